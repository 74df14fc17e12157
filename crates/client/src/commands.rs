//! What can be asked of an engine, what it tells while it works, and what it answers.
//!
//! These types are all that passes between a door (the command line, a page, a phone's binding) and
//! the engine, in the same process or over the engine's Unix socket. They are plain data. Secrets
//! never travel in them, except a passphrase or recovery phrase that the person just typed.

mod views;

pub use views::*;

use serde::{Deserialize, Serialize};

use crate::path_text::PathText;

/// The version of these types; both ends of a socket must have the same.
pub const COMMANDS_VERSION: u32 = 11;

/// A request to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// What is on, what is safe, what is pending. Sends nothing.
    Status,
    /// The account and this device. Sends nothing.
    AccountShow,
    /// The account's devices. Asks the cell (errand: list).
    DeviceList,
    /// Makes a code with which a new device can join (errand: link).
    DeviceLink {
        /// Whether it will only be able to write.
        write_only: bool,
    },
    /// Waits for a device to use the code.
    DeviceLinkWait,
    /// Says yes or no to the device that asked.
    DeviceLinkAnswer {
        /// Whether the person said yes.
        accept: bool,
        /// The digits that they compared: the answer is about the device that shows these.
        digits: String,
    },
    /// Takes a device out of the account and renews the keys that it held (errand: revoke).
    DeviceRevoke {
        /// Its id, the beginning of it, or its name.
        device: String,
    },
    /// Consents of this device, as known here. Sends nothing.
    ConsentList,
    /// All consent statements of the account. Asks the cell (errand: list).
    ConsentHistory,
    /// What would be agreed to: the notice, filled in. Sends nothing.
    ConsentPropose {
        /// Name of the service.
        service: String,
        /// Backup sets; empty for every set of this device without a live consent.
        sets: Vec<String>,
    },
    /// Says yes to exactly the text that [`Command::ConsentPropose`] gave (errand: consent).
    ConsentGive {
        /// Name of the service.
        service: String,
        /// As in the proposal.
        sets: Vec<String>,
        /// [`View::Proposal`]'s `token`: ties the yes to the text that was shown.
        token: String,
        /// How the person said yes.
        answered: Answered,
    },
    /// Withdraws (errand: consent). Takes effect on this device before the cell is asked.
    ConsentOff {
        /// Name of the service.
        service: String,
        /// A backup set; `None` for all.
        set: Option<String>,
        /// What becomes of what was stored (errand: erase, unless it stays).
        stored: Stored,
    },
    /// Takes back one erasure that was asked for, as long as the cell has not begun (errand: erase). Changes no consent.
    ErasureKeep {
        /// [`ErasureView::id`], or a beginning of it that no other has.
        erasure: String,
    },
    /// Makes a receipt of a consent or of an erasure: a file that proves it to anybody, offline (errand: verify,
    /// or erase).
    ConsentReceipt {
        /// The statement's id, or a beginning of it that no other statement has.
        id: String,
    },
    /// Asks for the whole account to be erased, or takes that back in time (errand: erase).
    AccountDelete {
        /// Take it back.
        cancel: bool,
    },
    /// Adds a backup set. Sends nothing.
    BackupAdd {
        /// Name of the set; `None` to derive one from the first path.
        name: Option<String>,
        /// Absolute paths.
        paths: Vec<PathText>,
        /// Globs in gitignore syntax.
        excludes: Vec<String>,
    },
    /// The backup sets of this device. Sends nothing.
    BackupList,
    /// Backs up (grant: backup).
    BackupRun {
        /// Names of sets; empty for all.
        sets: Vec<String>,
    },
    /// Snapshots of a set (errand: restore).
    BackupSnapshots {
        /// Name of the set; `None` for all, also those that only other devices know.
        set: Option<String>,
    },
    /// Lists a folder of a snapshot (errand: restore). Streams [`Event::Entry`].
    BackupLs {
        /// Id, unique prefix of an id, or `latest` (with an optional `SET:` in front).
        snapshot: String,
        /// Folder in the snapshot; the top if `None`.
        path: Option<PathText>,
        /// Also everything below it.
        recursive: bool,
    },
    /// Finds files by name in all snapshots (errand: restore). Streams [`Event::Entry`].
    BackupFind {
        /// Glob, matched against the file's name, or against the path if it has a slash.
        glob: String,
    },
    /// Compares two snapshots (errand: restore). Streams [`Event::Difference`].
    BackupDiff {
        /// The older one.
        a: String,
        /// The newer one.
        b: String,
    },
    /// Restores (errand: restore).
    BackupRestore {
        /// As in [`Command::BackupLs`].
        snapshot: String,
        /// What to restore; everything if empty.
        paths: Vec<PathText>,
        /// Absolute path of the target folder.
        to: PathText,
        /// Restore setuid, setgid and device nodes too.
        privileged: bool,
    },
    /// Shows all snapshots as folders, read-only, until it is stopped or unmounted (errand: restore).
    BackupMount {
        /// Absolute path of an empty folder.
        at: PathText,
    },
    /// Checks that everything is there (errand: verify).
    BackupCheck {
        /// Read and verify every byte.
        read_data: bool,
        /// Do without what is missing or damaged, so that the next backup sends it again (grant: backup, or sync).
        repair: bool,
    },
    /// Restores files of this device's sets to a folder of its own, compares them with their sources, and throws them
    /// away (errand: restore).
    BackupDrill {
        /// Names of sets; empty for all that were backed up.
        sets: Vec<String>,
        /// How many files of each.
        files: u32,
        /// Take the first ones, instead of giving each file the same chance.
        quick: bool,
    },
    /// Writes everything of the account into a folder, as plain files in open formats (errands: restore, verify, and erase
    /// for receipts of erasures).
    Export {
        /// Absolute path of a folder that is not there, is empty, or has an export that is not done.
        to: PathText,
        /// Every snapshot of every set, instead of each device's newest.
        every_snapshot: bool,
    },
    /// Takes snapshots of this device's sets off the list (grant: backup). What only they needed stays at the
    /// cell until it is pruned.
    BackupForget {
        /// Which, by id or the beginning of one.
        snapshots: Vec<String>,
        /// Of which set the rules take snapshots; `None` for all sets that are on.
        set: Option<String>,
        /// What stays. Without rules only `snapshots` go.
        keep: Keep,
        /// Only tell which would go.
        dry_run: bool,
    },
    /// Snapshots that were forgotten and are still at the cell (grant: backup).
    BackupForgotten,
    /// Brings forgotten snapshots back (grant: backup).
    BackupUnforget {
        /// Which, by id or the beginning of one.
        snapshots: Vec<String>,
    },
    /// Finds what no snapshot needs, and has the cell delete it after its retention window (grant: backup).
    BackupPrune {
        /// A set; `None` for all that are on.
        set: Option<String>,
        /// How much of what is stored may be unneeded, in percent; the rest is not worth storing again.
        max_unused_percent: u8,
    },
    /// Adds a folder that is to be kept in step. Sends nothing.
    SyncAdd {
        /// Its name; `None` to derive one from the path.
        name: Option<String>,
        /// Absolute path.
        path: PathText,
        /// Globs in gitignore syntax: what this device leaves out.
        excludes: Vec<String>,
    },
    /// Adds a folder that another device of the account keeps in step (errand: restore).
    SyncJoin {
        /// Its name.
        name: String,
        /// Absolute path.
        path: PathText,
        /// Globs in gitignore syntax: what this device leaves out.
        excludes: Vec<String>,
    },
    /// The synced folders of this device. Sends nothing.
    SyncList,
    /// Brings folders and vaults into step once (grant: sync).
    SyncRun {
        /// Names of folders; empty for all that are on and not paused.
        folders: Vec<String>,
    },
    /// Finds what no version needs, and has the cell delete it after its retention window (grant: sync).
    SyncPrune {
        /// Names of folders; empty for all that are on and not paused.
        folders: Vec<String>,
        /// How much of what is stored may be unneeded, in percent; the rest is not worth storing again.
        max_unused_percent: u8,
    },
    /// Stops a folder for a while, or lets it go on. Sends nothing.
    SyncPause {
        /// Name of the folder.
        folder: String,
        /// Whether it stops.
        paused: bool,
    },
    /// Files that were kept twice. Sends nothing.
    SyncConflicts,
    /// Versions of something in a synced folder (errand: restore).
    SyncVersions {
        /// Absolute path.
        path: PathText,
    },
    /// Brings a version back (grant: sync, if something is in its place; errand: restore).
    SyncRestore {
        /// Absolute path.
        path: PathText,
        /// The beginning of a version's id.
        version: String,
        /// Absolute path of a folder to restore into; `None`: to its place.
        to: Option<PathText>,
    },
    /// What a cell that was restored from a backup lost (errand: re-anchor). Changes nothing.
    ReAnchorPropose,
    /// Accepts exactly that (errand: re-anchor).
    ReAnchorAccept {
        /// [`ReAnchorView::token`]: ties the yes to what was shown.
        token: String,
    },
    /// Lines of the ledger. Sends nothing. Streams [`Event::LedgerLine`].
    Ledger {
        /// Only lines from this time on, milliseconds UTC.
        since_ms: Option<i64>,
    },
    /// The newest lines of the ledger that fit, the newest first. Sends nothing.
    LedgerNewest {
        /// Which.
        selection: LedgerSelection,
        /// From [`LedgerPageView::older_before`] backwards; `None`: from the newest.
        before: Option<u64>,
        /// At most so many, 1,000 in any case, but for those that are open: all of these are told first.
        most: usize,
    },
    /// What went over the connections of the last weeks, by the hour. Sends nothing, and reads no disk.
    LedgerSummary,
    /// Checks the ledger's hash chain and signature. Sends nothing.
    LedgerVerify,
    /// The newest checkpoint of the cell's log, checked against everything seen before (errand: verify).
    LogCheckpoint {
        /// The text of a checkpoint that somebody else was shown; it must belong to the same log.
        compare: Option<String>,
    },
    /// Proves that a statement of the account is in the cell's log (errand: verify).
    LogProve {
        /// The statement's id, a consent's for example, or a beginning of it that no other has.
        statement: String,
    },
    /// Looks through the cell's log for the account's statements, and at its state (errand: verify).
    LogMonitor,
    /// The person typed back words of the recovery phrase: marks it as confirmed.
    PhraseConfirmed,
    /// Asks a running engine to end cleanly.
    Stop,
}

/// Which lines of the ledger are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSelection {
    /// Only those of connections that were opened from this time on, milliseconds UTC.
    pub since_ms: Option<i64>,
    /// Only those of this service or errand.
    pub service: Option<String>,
    /// Only those whose other end's address, or the name that was asked for, has this in it.
    pub destination: Option<String>,
}

/// Keep rules: the newest snapshot of each of the newest so many periods, for each device and set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The newest snapshots.
    pub last: u32,
    /// Hours.
    pub hourly: u32,
    /// Days, UTC.
    pub daily: u32,
    /// Weeks from Monday on.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

/// How a person said yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answered {
    /// Typed at a question on a terminal.
    Terminal,
    /// With the flag `--yes`.
    Flag,
    /// On the device's page.
    Page,
}

/// Something that the engine tells while it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// How far it is.
    Progress(Progress),
    /// A step began; one short sentence.
    Step {
        /// For people.
        text: String,
    },
    /// A file that could not be read or written as it should.
    Problem(Problem),
    /// An entry of a listing.
    Entry(EntryView),
    /// A difference between two snapshots.
    Difference(DifferenceView),
    /// A line of the ledger.
    LedgerLine(Box<LedgerLineView>),
}

/// Progress of long work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is going on: `scan`, `backup`, `restore`, `check`, `find`, `prune`, `sync`.
    pub phase: String,
    /// Files done.
    pub files: u64,
    /// Files expected, once known.
    pub files_total: Option<u64>,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes expected, once known.
    pub bytes_total: Option<u64>,
    /// Bytes that went to or came from the cell.
    pub sent_bytes: u64,
}

/// One file that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which.
    pub path: PathText,
    /// One sentence.
    pub what: String,
}

/// An entry of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// The snapshot.
    pub snapshot: String,
    /// Path within it.
    pub path: PathText,
    /// `file`, `folder`, `symlink`, `fifo`, `character-device` or `block-device`.
    pub kind: String,
    /// Size in bytes, for files.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Nanoseconds UTC.
    pub modified_ns: i64,
    /// Target of a symlink.
    pub target: Option<PathText>,
}

/// A difference between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceView {
    /// `added`, `removed`, `content`, `metadata` or `kind`.
    pub change: String,
    /// Where.
    pub path: PathText,
}

/// A line of the ledger: one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLineView {
    /// Place in the ledger.
    pub sequence: u64,
    /// `closed`, `open` now, `interrupted` (the process ended while it was open; its counts are
    /// unknown) or `alarm`.
    pub state: String,
    /// When it was opened, milliseconds UTC.
    pub opened_ms: i64,
    /// When it was closed, milliseconds UTC.
    pub closed_ms: i64,
    /// `tcp`, `in-process` or `name-lookup` (the machine's resolver was asked).
    pub protocol: String,
    /// Name that was asked for.
    pub name: String,
    /// Address and port of this device.
    pub local: Option<String>,
    /// Address and port of the other end.
    pub remote: Option<String>,
    /// Service or errand.
    pub service: String,
    /// Consent id, or number of the errand.
    pub authority: String,
    /// State of the consent: `live` or `errand`.
    pub consent_state: String,
    /// Classes of data that went out.
    pub data_classes: Vec<String>,
    /// Bytes before encryption.
    pub plain_out: u64,
    /// Bytes before encryption.
    pub plain_in: u64,
    /// Bytes on the wire, above TCP; absent in-process.
    pub cipher_out: Option<u64>,
    /// Bytes on the wire, above TCP; absent in-process.
    pub cipher_in: Option<u64>,
    /// Segments sent again, from `TCP_INFO`.
    pub retransmitted_segments: Option<u32>,
    /// What happened, if it is not a connection: an alarm, in one sentence.
    pub alarm: Option<String>,
}

/// A line of the ledger in a file of lines, each a JSON object.
#[derive(Debug, Clone, Serialize)]
pub struct ExportedLine<'a> {
    version: u32,
    #[serde(rename = "ledger-line")]
    line: &'a LedgerLineView,
}

impl<'a> ExportedLine<'a> {
    /// As files have it.
    pub const fn of(line: &'a LedgerLineView) -> Self {
        Self { version: 1, line }
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Done; there is nothing to tell.
    Done,
    /// Answer to [`Command::Status`].
    Status(Box<StatusView>),
    /// Answer to [`Command::AccountShow`].
    Account(AccountView),
    /// Answer to [`Command::SyncAdd`], [`Command::SyncJoin`] and [`Command::SyncPause`].
    Folder(FolderView),
    /// Answer to [`Command::SyncList`].
    Folders(Vec<FolderView>),
    /// Answer to [`Command::SyncRun`].
    Synced(Vec<SyncedView>),
    /// Answer to [`Command::SyncConflicts`].
    Conflicts(Vec<ConflictView>),
    /// Answer to [`Command::SyncVersions`].
    Versions(Vec<VersionView>),
    /// Answer to [`Command::DeviceList`].
    Devices(Vec<DeviceView>),
    /// Answer to [`Command::DeviceLink`].
    LinkCode(LinkCodeView),
    /// Answer to [`Command::DeviceLinkWait`].
    LinkAsk(LinkAskView),
    /// Answer to [`Command::DeviceLinkAnswer`], if it was yes.
    Device(DeviceView),
    /// Answer to [`Command::DeviceRevoke`].
    Revoked(RevokedView),
    /// Answer to [`Command::ConsentList`] and [`Command::ConsentHistory`].
    Consents(Vec<ConsentView>),
    /// Answer to [`Command::ConsentOff`] and [`Command::AccountDelete`].
    Erasures(Vec<ErasureView>),
    /// Answer to [`Command::ConsentReceipt`] for a consent.
    Receipt(Box<crate::receipt::ReceiptFileView>),
    /// Answer to [`Command::ConsentReceipt`] for an erasure.
    ErasureReceipt(Box<crate::receipt::ErasureReceiptFileView>),
    /// Answer to [`Command::ConsentPropose`].
    Proposal(ProposalView),
    /// Answer to [`Command::BackupAdd`].
    Set(SetView),
    /// Answer to [`Command::BackupList`].
    Sets(Vec<SetView>),
    /// Answer to [`Command::BackupRun`].
    Backups(Vec<BackupView>),
    /// Answer to [`Command::BackupSnapshots`].
    Snapshots(Vec<SnapshotView>),
    /// Answer to [`Command::BackupRestore`].
    Restored(RestoredView),
    /// Answer to [`Command::BackupCheck`].
    Checked(CheckView),
    /// Answer to [`Command::BackupDrill`].
    Drilled(Vec<DrillView>),
    /// Answer to [`Command::Export`].
    Exported(ExportedView),
    /// Answer to [`Command::BackupForget`], [`Command::BackupForgotten`] and [`Command::BackupUnforget`].
    Forgotten(ForgottenView),
    /// Answer to [`Command::BackupPrune`] and [`Command::SyncPrune`].
    Pruned(PrunedView),
    /// Answer to [`Command::LedgerNewest`].
    LedgerPage(LedgerPageView),
    /// Answer to [`Command::LedgerSummary`].
    LedgerSummary(LedgerSummaryView),
    /// Answer to [`Command::LedgerVerify`].
    LedgerVerified(LedgerVerifiedView),
    /// Answer to [`Command::LogCheckpoint`].
    LogCheckpoint(LogCheckpointView),
    /// Answer to [`Command::LogProve`].
    LogProof(Box<LogProofView>),
    /// Answer to [`Command::LogMonitor`].
    LogMonitored(LogMonitorView),
    /// Answer to [`Command::ReAnchorPropose`].
    ReAnchor(ReAnchorView),
    /// Answer to [`Command::ReAnchorAccept`].
    ReAnchored(ReAnchoredView),
}

/// What becomes of what a service stored when it is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stored {
    /// It stays as it is.
    Stays,
    /// It stays, and what was asked to be erased stays too.
    Kept,
    /// It is erased after the cell's retention window.
    Erased,
}

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: FailureKind,
    /// What happened, in one sentence.
    pub sentence: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Causes, outermost first.
    pub causes: Vec<String>,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Anything without a kind of its own.
    Failed,
    /// The command makes no sense as it was given.
    Usage,
    /// There is no consent for this service.
    NoConsent,
    /// Tampering, rollback or a fork was detected; nothing was written.
    Integrity,
    /// The cell cannot be reached; work is kept and can be resumed.
    Unreachable,
    /// Refused by policy: quota, region, revoked device.
    Policy,
    /// Done, but not for every file; each was told as [`Event::Problem`].
    Partial,
    /// Stopped because the person asked for it; resumes next time.
    Interrupted,
}
