//! What can be asked of an engine, what it tells while it works, and what it answers.
//!
//! These types are all that passes between a door (the command line, a page, a phone's binding) and
//! the engine, in the same process or over the engine's Unix socket. They are plain data. Secrets
//! never travel in them, except a passphrase or recovery phrase that the person just typed.

use serde::{Deserialize, Serialize};

use crate::path_text::PathText;

/// The version of these types; both ends of a socket must have the same.
pub const COMMANDS_VERSION: u32 = 3;

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
    },
    /// Makes a receipt of a consent: a file that proves it to anybody, offline (errand: verify).
    ConsentReceipt {
        /// The consent's id, or a beginning of it that no other statement has.
        id: String,
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
    /// Checks that everything is there (errand: verify).
    BackupCheck {
        /// Read and verify every byte.
        read_data: bool,
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
    /// What is going on: `scan`, `backup`, `restore`, `check`, `prune`.
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

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Done; there is nothing to tell.
    Done,
    /// Answer to [`Command::Status`].
    Status(StatusView),
    /// Answer to [`Command::AccountShow`].
    Account(AccountView),
    /// Answer to [`Command::DeviceList`].
    Devices(Vec<DeviceView>),
    /// Answer to [`Command::ConsentList`] and [`Command::ConsentHistory`].
    Consents(Vec<ConsentView>),
    /// Answer to [`Command::ConsentReceipt`].
    Receipt(Box<crate::receipt::ReceiptFileView>),
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
    /// Answer to [`Command::BackupForget`], [`Command::BackupForgotten`] and [`Command::BackupUnforget`].
    Forgotten(ForgottenView),
    /// Answer to [`Command::BackupPrune`].
    Pruned(PrunedView),
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

/// Snapshots that are off the list, or would be, or are on it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenView {
    /// Which.
    pub snapshots: Vec<SnapshotView>,
    /// How many are on the list of the same sets.
    pub left: u64,
    /// How many days the cell keeps what was pruned.
    pub retention_days: u32,
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedView {
    /// Packs that nobody needs any more, those that were stored again included.
    pub packs_gone: u64,
    /// Bytes that the cell deletes after its retention window.
    pub bytes_gone: u64,
    /// Packs whose needed part was stored again.
    pub packs_rewritten: u64,
    /// Bytes that were stored for that.
    pub bytes_stored: u64,
    /// Objects that nothing named; counted in the bytes.
    pub orphans: u64,
    /// How many days the cell keeps them.
    pub retention_days: u32,
}

/// What a restored cell lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReAnchorView {
    /// Whether the cell shows less than this device saw. If not, there is nothing to accept.
    pub is_older: bool,
    /// Entries of the account's chain that the cell no longer has.
    pub lost: Vec<LostStatementView>,
    /// How many of them, from the first on, this device brings back. The others are given up.
    pub offered: u64,
    /// Vaults whose newest snapshots the cell no longer has.
    pub heads: Vec<LostHeadView>,
    /// Entries of the log as this device saw it last, if the cell began a new one since.
    pub log_before: Option<u64>,
    /// Entries of the new one now.
    pub log_now: Option<u64>,
    /// For [`Command::ReAnchorAccept`].
    pub token: String,
}

/// An entry of the chain that a restored cell lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostStatementView {
    /// What it is, in words.
    pub kind: String,
    /// When it was stated, milliseconds UTC.
    pub time_ms: Option<i64>,
}

/// A vault that a restored cell has an older state of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostHeadView {
    /// The backup set on this device, if it is one's.
    pub set: Option<String>,
    /// The vault.
    pub vault: String,
    /// How often it had been written to.
    pub before: u64,
    /// How often according to the cell.
    pub now: u64,
}

/// What was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReAnchoredView {
    /// Entries of the chain that this device brought back.
    pub brought_back: u64,
    /// Entries that could not be brought back.
    pub given_up: u64,
    /// Where is kept what was seen before.
    pub evidence: String,
}

/// What is on, what is safe, what is pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Whether there is an account on this device.
    pub account: Option<AccountView>,
    /// The services and whether they are on.
    pub services: Vec<ServiceView>,
    /// The backup sets.
    pub sets: Vec<SetView>,
    /// Sentences about what is not safe or needs the person.
    pub warnings: Vec<String>,
    /// Whether the transparency log of the cell is witnessed by the quorum of this device's policy, and
    /// was so lately.
    pub witnessed: bool,
    /// The cell's log as this device saw it last; absent before it looked.
    pub log: Option<Box<LogView>>,
}

/// The cell's log as this device saw it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// Name of the log.
    pub origin: String,
    /// How many entries it had.
    pub size: u64,
    /// Root of the tree over them, in base64.
    pub root: String,
    /// `witnessed`, `stale` (no quorum vouched for it lately) or `unwitnessed`.
    pub standing: String,
    /// The same as a sentence.
    pub sentence: String,
    /// Whether there is a policy on this device that asks for witnesses.
    pub has_quorum: bool,
    /// Names of the witnesses that vouched for this checkpoint.
    pub witnesses: Vec<String>,
    /// When a quorum last vouched for any checkpoint of the log, milliseconds UTC, by its clocks.
    pub witnessed_ms: Option<i64>,
    /// When the log was last looked through, milliseconds UTC.
    pub checked_ms: Option<i64>,
    /// What stands against the cell, each a sentence.
    pub findings: Vec<String>,
    /// How many files of evidence against the cell are in the folder `evidence`.
    pub evidence_files: u64,
}

/// The newest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCheckpointView {
    /// What it says, and how well it is witnessed.
    pub log: LogView,
    /// The signed checkpoint (C2SP tlog-checkpoint), as it came.
    pub checkpoint: String,
    /// How many entries the log had when this device looked before; absent if it never did.
    pub seen_before: Option<u64>,
    /// How many entries the checkpoint to compare with has, which belongs to the same log.
    pub compared: Option<u64>,
}

/// The proof that a statement is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProofView {
    /// The statement's id.
    pub statement: String,
    /// What it states, in words.
    pub what: String,
    /// Place of its entry in the log.
    pub index: u64,
    /// Entries of the log in the proof's checkpoint.
    pub size: u64,
    /// The entry itself, in hexadecimal: what the proof is about.
    pub leaf: String,
    /// The proof (C2SP tlog-proof).
    pub proof: String,
    /// How well the proof's checkpoint is witnessed.
    pub log: LogView,
}

/// What looking through the log gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMonitorView {
    /// The log.
    pub log: LogView,
    /// Statements of the account.
    pub statements: u64,
    /// Those of them whose entries were found.
    pub found: u64,
    /// Entries that were new since the last time.
    pub new_entries: u64,
    /// Whether the state map has the account, and says of it what this device knows.
    pub state_matches: bool,
}

/// A service and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Name.
    pub name: String,
    /// Whether at least one live consent exists.
    pub on: bool,
    /// When the first of them ends, milliseconds UTC.
    pub ends_ms: Option<i64>,
}

/// The account as this device knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Name that the person gave; known on this device alone.
    pub name: String,
    /// Random id.
    pub account: String,
    /// Id of this device.
    pub device: String,
    /// Name of this device.
    pub device_name: String,
    /// `full` or `write-only`.
    pub role: String,
    /// Id of the cell.
    pub cell: String,
    /// Addresses of the cell.
    pub cell_addresses: Vec<String>,
    /// Who runs the cell.
    pub controller: String,
    /// Where it keeps data.
    pub region: String,
    /// Fingerprint of the account's root key.
    pub root_fingerprint: String,
    /// Whether the person proved that they wrote the recovery phrase down.
    pub phrase_confirmed: bool,
    /// How the keys on this device are protected: `passphrase` or `unprotected`.
    pub keys_protected_by: String,
    /// Whether account data and cell are on the same disk.
    pub cell_on_same_disk: bool,
}

/// A device of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Id.
    pub device: String,
    /// Name, if this device can open it.
    pub name: Option<String>,
    /// `full` or `write-only`.
    pub role: String,
    /// When it was added, milliseconds UTC.
    pub added_ms: i64,
    /// Whether it is this one.
    pub this_device: bool,
}

/// A consent and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentView {
    /// Id of the statement.
    pub id: String,
    /// Service.
    pub service: String,
    /// Name of the backup set, if it is one of this device's.
    pub set: Option<String>,
    /// Vault.
    pub vault: Option<String>,
    /// Device.
    pub device: String,
    /// `live`, `withdrawn`, `ended` or `waiting` for the cell.
    pub state: String,
    /// Milliseconds UTC.
    pub given_ms: i64,
    /// Milliseconds UTC.
    pub ends_ms: i64,
    /// Milliseconds UTC.
    pub withdrawn_ms: Option<i64>,
    /// Who receives the data.
    pub controller: String,
    /// Where.
    pub region: String,
    /// How to withdraw.
    pub how_to_withdraw: String,
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalView {
    /// The notice, filled in; to be shown whole.
    pub text: String,
    /// Ties a yes to this text.
    pub token: String,
    /// Sets that it is about; empty when all have a live consent already.
    pub sets: Vec<String>,
    /// When it would end, milliseconds UTC.
    pub ends_ms: i64,
}

/// A backup set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetView {
    /// Name.
    pub name: String,
    /// Vault, once it has one.
    pub vault: Option<String>,
    /// Folders and files.
    pub paths: Vec<PathText>,
    /// Globs.
    pub excludes: Vec<String>,
    /// `on`, `off`, `withdrawn` or `ended`.
    pub consent: String,
    /// When the last run ended well, milliseconds UTC.
    pub last_backup_ms: Option<i64>,
    /// Files that the last run could not back up.
    pub last_problems: u64,
    /// Whether it should have run by now.
    pub overdue: bool,
    /// Whether a run was interrupted and will be resumed.
    pub interrupted: bool,
}

/// Result of backing up one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupView {
    /// The set.
    pub set: String,
    /// The snapshot.
    pub snapshot: String,
    /// Files in it.
    pub files: u64,
    /// Folders in it.
    pub folders: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Files that were not read, because nothing about them changed.
    pub unchanged_files: u64,
    /// Bytes that were not at the cell yet.
    pub new_bytes: u64,
    /// Bytes sent, sealed and padded.
    pub stored_bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// How many files are not in it as they should be.
    pub problems: u64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Id.
    pub snapshot: String,
    /// The set.
    pub set: String,
    /// Milliseconds UTC.
    pub time_ms: i64,
    /// Device that made it.
    pub device: String,
    /// Its folders and files.
    pub paths: Vec<PathText>,
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Result of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredView {
    /// Files written.
    pub files: u64,
    /// Folders made.
    pub folders: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Files that were there already, byte for byte.
    pub already_there: u64,
    /// How many entries could not be restored as they should be.
    pub problems: u64,
    /// How long it took.
    pub duration_ms: u64,
}

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// Snapshots walked.
    pub snapshots: u64,
    /// Objects that belong to them.
    pub objects: u64,
    /// Bytes read and verified.
    pub bytes_read: u64,
    /// Objects that are missing or damaged.
    pub damaged: Vec<String>,
    /// Files that need them.
    pub affected: Vec<PathText>,
    /// Whether every byte was read.
    pub read_data: bool,
}

/// Result of checking the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerVerifiedView {
    /// How many lines.
    pub lines: u64,
    /// Hash of the newest.
    pub head: String,
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
