//! What a command answers, as plain data: one type for each thing that is shown.

use serde::{Deserialize, Serialize};

use crate::path_text::PathText;

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
    /// For [`crate::commands::Command::ReAnchorAccept`].
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

/// An erasure that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureView {
    /// Id of the statement.
    pub id: String,
    /// The vault; `None` for the whole account.
    pub vault: Option<String>,
    /// Name of the backup set or synced folder, if it is one of this device's.
    pub set: Option<String>,
    /// The service that it was stored for: `backup` or `sync`.
    pub service: String,
    /// The device that asked; `None` for the root key.
    pub device: Option<String>,
    /// Whether that is this one.
    pub this_device: bool,
    /// `waiting` for the cell, `asked` and not due, `due`, or `cancelled`.
    pub state: String,
    /// Milliseconds UTC.
    pub asked_ms: i64,
    /// When the cell erases it, milliseconds UTC.
    pub due_ms: Option<i64>,
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
    /// Synced folders.
    pub folders: Vec<FolderView>,
    /// Erasures that the account asked for, whatever became of them.
    pub erasures: Vec<ErasureView>,
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
    /// When it was revoked, milliseconds UTC, if it was.
    pub revoked_ms: Option<i64>,
    /// Whether it is this one.
    pub this_device: bool,
}

/// A code for a new device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCodeView {
    /// The code. Whoever has it can ask to join.
    pub code: String,
    /// Until when it is good, milliseconds UTC.
    pub expires_ms: i64,
}

/// A device that asks to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkAskView {
    /// What it calls itself.
    pub name: String,
    /// Six digits, which it should show as well.
    pub digits: String,
    /// `full` or `write-only`.
    pub role: String,
}

/// A device that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedView {
    /// Which.
    pub device: DeviceView,
    /// Whether it was revoked before already.
    pub was_revoked: bool,
    /// Keys that were renewed.
    pub renewed: u64,
    /// Keys that revoked devices hold and that this device cannot renew, because it does not have them.
    pub left: u64,
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
    /// When a sample was last restored and compared, milliseconds UTC.
    pub last_drill_ms: Option<i64>,
    /// Whether it should have run by now.
    pub overdue: bool,
    /// Whether a run is at work.
    pub running: bool,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// How many of the damaged or missing objects the vaults do without from now on.
    pub repaired: u64,
    /// How many are in vaults that could not be repaired from here.
    pub unrepaired: u64,
}

/// Result of a drill of one set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillView {
    /// The set.
    pub set: String,
    /// Its newest snapshot.
    pub snapshot: String,
    /// Files that came back, every byte verified.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Of those, files that are the same as their sources.
    pub equal: u64,
    /// Of those, files whose sources changed since, or are not on this device.
    pub changed: u64,
    /// Files that are not the same as their sources, though nothing says that these changed.
    pub different: Vec<PathText>,
}

/// What an export holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedView {
    /// Snapshots of backup sets.
    pub snapshots: u64,
    /// Synced folders.
    pub folders: u64,
    /// Files in all of them.
    pub files: u64,
    /// Bytes that were written for them.
    pub bytes: u64,
    /// Consents of the account.
    pub consents: u64,
    /// Receipts of consents and of erasures.
    pub receipts: u64,
    /// Statements of the account's chain.
    pub statements: u64,
    /// Lines of this device's ledger.
    pub ledger_lines: u64,
    /// What is not in it as it should be.
    pub problems: u64,
    /// Of those, what shows tampering, rollback or a fork.
    pub alarms: u64,
    /// How long it took.
    pub duration_ms: u64,
}

/// Some lines of the ledger, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPageView {
    /// Connections that are open now come before those that ended.
    pub lines: Vec<super::LedgerLineView>,
    /// Where older ones that fit go on, if there are any.
    pub older_before: Option<u64>,
}

/// What went over the connections of the last weeks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSummaryView {
    /// From when on, milliseconds UTC.
    pub since_ms: i64,
    /// By hour, service and destination. Connections that are open count in this hour, with what went over them so far.
    pub hours: Vec<LedgerHourView>,
    /// How many connections are open.
    pub open: u64,
    /// How many alarms.
    pub alarms: u64,
    /// The hour of the newest of them, milliseconds UTC.
    pub newest_alarm_ms: Option<i64>,
}

/// What went over connections that were opened in one hour, for one service, to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHourView {
    /// Its beginning, milliseconds UTC.
    pub hour_ms: i64,
    /// Service or errand.
    pub service: String,
    /// Address of the other end, or the name that was asked for.
    pub destination: String,
    /// As in [`super::LedgerLineView`].
    pub protocol: String,
    /// Connections.
    pub connections: u64,
    /// Those of them that were cut off by the end of the process: what went over them is not in the bytes.
    pub interrupted: u64,
    /// Bytes that went out: on the wire where there was one, else before encryption.
    pub out_bytes: u64,
    /// Bytes that came in.
    pub in_bytes: u64,
}

/// Result of checking the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerVerifiedView {
    /// How many lines.
    pub lines: u64,
    /// Hash of the newest.
    pub head: String,
}

/// A synced folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderView {
    /// What it is called on all devices.
    pub name: String,
    /// Where it is on this one.
    pub path: PathText,
    /// Its vault, once consent was asked for it.
    pub vault: Option<String>,
    /// What this device leaves out.
    pub excludes: Vec<String>,
    /// `on`, `off`, `withdrawn` or `ended`.
    pub consent: String,
    /// Whether the person stopped it for a while.
    pub paused: bool,
    /// Whether a round is at work.
    pub syncing: bool,
    /// When it was in step last, milliseconds UTC.
    pub last_sync_ms: Option<i64>,
    /// How many files could not be kept in step then.
    pub last_problems: u64,
    /// Files and links in step.
    pub files: u64,
    /// Folders in step.
    pub folders: u64,
    /// Files that were kept twice and still are.
    pub conflicts: u64,
}

/// What rounds of a folder did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncedView {
    /// The folder.
    pub folder: String,
    /// Names that were taken over from here.
    pub sent: u64,
    /// Files that came from other devices.
    pub received: u64,
    /// Names that other devices removed.
    pub removed: u64,
    /// Names that other devices moved.
    pub moved: u64,
    /// Files that were kept twice.
    pub conflicts: u64,
    /// Bytes of content that came.
    pub received_bytes: u64,
    /// Bytes of sealed packs that were added to the cell.
    pub stored_bytes: u64,
    /// Files that could not be kept in step.
    pub problems: u64,
}

/// A file that was kept twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictView {
    /// The folder.
    pub folder: String,
    /// The copy, named by the device and the time that made it.
    pub path: PathText,
}

/// A version of something in a synced folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// Its id; the beginning is enough to name it.
    pub version: String,
    /// When it came to be, by the clock of its device, milliseconds UTC.
    pub time_ms: i64,
    /// Name of the device that made it.
    pub device: String,
    /// `file`, `folder`, `symlink`, or `removed`.
    pub kind: String,
    /// Size in bytes, for files.
    pub bytes: u64,
    /// Whether it is what the vault has now.
    pub current: bool,
}
