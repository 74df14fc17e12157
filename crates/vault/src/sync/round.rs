//! A round over a vault and a folder on disk: merge, stage, and, once the head moved, apply.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use candor_wire::time::DAY_MS;
use candor_wire::{DeviceId, Millis};

use super::apply::{Applied, Locate};
use super::disk::DiskFolder;
use super::folder::Folder;
use super::merge::{MergeJob, Merged, Store, merge};
use super::put_back::rebase;
use super::state::State;
use super::{Dirty, SyncError};
use crate::backup::content::{Buffers, FileError, FileStore, Stored};
use crate::chunk::ChunkId;
use crate::keep::{KeepRules, superfluous};
use crate::manifest::{SnapshotEntry, SnapshotId, SnapshotStats};
use crate::node::{References, Root};
use crate::pack::Stream;
use crate::ports::{ObjectSink, ObjectSource, SourceError};
use crate::reader::{ReadError, Reader, fetch_manifest};
use crate::report::{Cancel, Problems, Progress};
use crate::repository::{Repository, RepositoryError, Staged};
use crate::sys::Status;
use crate::tree::{ChunkSource, TreeError, TreeSink, read_root};
use crate::writer::{WriteError, Writer, Written};

/// For how long a version of each minute stays, in milliseconds.
const EACH_MINUTE_MS: i64 = DAY_MS;

/// The newest versions, which stay whatever their time: what was saved in the last minutes can be had back as it was at
/// each moment. Together with those of each minute they keep the manifest below 300 KiB.
const NEWEST_VERSIONS: usize = 256;

const MINUTE_MS: i64 = 60_000;

/// What stays of older versions: the newest of each hour of two days, of each day of a month, of each month of a year.
const OLDER_VERSIONS: KeepRules = KeepRules {
    last: 1,
    hourly: 48,
    daily: 31,
    weekly: 0,
    monthly: 12,
    yearly: 0,
};

/// How many heads a cell that was put back is followed back: what other devices brought back meanwhile.
const HEADS_BACK_MAX: usize = 10_000;

/// What a round is about.
#[derive(Debug, Clone)]
pub struct SyncJob {
    /// Name of the folder.
    pub name: String,
    /// This device.
    pub device: DeviceId,
    /// Its name, for conflict copies.
    pub device_name: String,
    /// Name of the device that made the newest version, for conflict copies of it.
    pub remote_device_name: String,
    /// The time.
    pub time: Millis,
    /// Where the folder may have changed.
    pub dirty: Dirty,
    /// Where it may have changed, too, and is not looked at in this round: nothing is decided there.
    pub later: Dirty,
}

/// Stores what a merge makes, through a writer that is started with the first chunk.
pub(crate) struct VaultStore<'a> {
    repository: &'a Repository,
    sink: Arc<dyn ObjectSink>,
    writer: Option<Writer>,
}

impl<'a> VaultStore<'a> {
    fn new(repository: &'a Repository, sink: Arc<dyn ObjectSink>) -> Self {
        Self {
            repository,
            sink,
            writer: None,
        }
    }

    fn writer(&mut self) -> Result<&mut Writer, WriteError> {
        if self.writer.is_none() {
            let started = self.repository.writer(Arc::clone(&self.sink));
            self.writer = Some(started.map_err(|error| match error {
                RepositoryError::Write(error) => error,
                _ => WriteError::Stopped,
            })?);
        }
        self.writer.as_mut().ok_or(WriteError::Stopped)
    }

    pub(super) fn store_file(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        status: &Status,
        buffers: &mut Buffers,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Stored, FileError> {
        let writer = self.writer().map_err(FileError::from)?;
        let mut store = FileStore {
            writer,
            buffers,
            progress,
            cancel,
            bytes_read: 0,
        };
        let stored = store.store_file(directory, name, status)?;
        progress.advance(1, 0);
        Ok(stored)
    }

    /// Sends all that is left, and waits until everything is acknowledged.
    fn finish(self) -> Result<Written, WriteError> {
        self.writer.map_or(Ok(Written::default()), Writer::finish)
    }
}

impl TreeSink for VaultStore<'_> {
    fn store(&mut self, plaintext: &[u8]) -> Result<ChunkId, WriteError> {
        self.writer()?.chunk(Stream::Tree, plaintext)
    }
}

impl Store for VaultStore<'_> {
    fn has(&mut self, id: &ChunkId) -> Result<bool, SyncError> {
        self.repository
            .index()
            .contains(id)
            .map_err(|error| SyncError::Repository(RepositoryError::Index(error)))
    }
}

struct Located<'a>(Reader<'a>);

impl ChunkSource for Located<'_> {
    fn fetch(&mut self, id: ChunkId) -> Result<bytes::Bytes, crate::reader::ReadError> {
        self.0.chunk(id)
    }
}

impl Locate for Located<'_> {
    fn place(&mut self, id: &ChunkId) -> (i64, u32) {
        match self.0.locate(*id) {
            Ok(Some(place)) => (place.pack_number, place.frame),
            _ => (i64::MAX, 0),
        }
    }
}

/// A merge that is not committed yet.
pub struct Round {
    merged: Merged,
    snapshot: Option<SnapshotEntry>,
    written: Written,
}

/// What a round did.
#[derive(Debug, Default)]
pub struct RoundOutcome {
    /// Counts.
    pub stats: SyncStats,
    /// What could not be done as it should.
    pub problems: Problems,
    /// Where something changed meanwhile: the next round has to look there.
    pub again: Dirty,
    /// Where it was not looked because another device was faster: the next round has to.
    pub left: Dirty,
    /// How often another device was faster.
    pub lost: u32,
    /// Whether this device moved the head.
    pub moved_head: bool,
}

impl RoundOutcome {
    /// Adds what another part of the same round did.
    pub fn add(&mut self, other: Self) {
        let (one, more) = (&mut self.stats, other.stats);
        one.sent += more.sent;
        one.received += more.received;
        one.removed += more.removed;
        one.moved += more.moved;
        one.conflicts += more.conflicts;
        one.bytes_received += more.bytes_received;
        one.bytes_stored += more.bytes_stored;
        self.problems.extend(other.problems);
        self.again.extend(other.again);
        self.left.extend(other.left);
        self.lost += other.lost;
        self.moved_head |= other.moved_head;
    }
}

/// Counts of a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncStats {
    /// Names that were taken over from the folder into the vault.
    pub sent: u64,
    /// Files and links that were put into the folder.
    pub received: u64,
    /// Names that were removed from the folder.
    pub removed: u64,
    /// Names that were moved within the folder.
    pub moved: u64,
    /// Files that were kept twice.
    pub conflicts: u64,
    /// Bytes of content that were put into the folder.
    pub bytes_received: u64,
    /// Bytes of sealed packs that were added to the cell.
    pub bytes_stored: u64,
}

/// The newest version that a vault lists.
fn newest(repository: &Repository) -> Option<&SnapshotEntry> {
    repository.manifest().snapshots.last()
}

/// The newest version of a vault: which device made it.
pub fn first_tree(repository: &Repository) -> Option<DeviceId> {
    newest(repository).map(|entry| entry.device)
}

/// Merges the folder and the vault, and stores what the merged tree needs.
///
/// `state` holds changes that are not on the disk yet; [`Round::commit`] or [`Round::give_up`] has to follow.
pub fn run(
    repository: &Repository,
    folder: &mut DiskFolder<'_>,
    state: &mut State,
    job: &SyncJob,
    objects: (&dyn ObjectSource, Arc<dyn ObjectSink>),
    cancel: &Cancel,
) -> Result<Round, SyncError> {
    let (source, sink) = objects;
    let mut reader = Located(repository.reader(source));
    let remote: Option<References> = match newest(repository) {
        Some(entry) => Some(read_root(entry.root, &mut reader)?.parts),
        None => None,
    };
    let mut store = VaultStore::new(repository, sink);
    state.begin()?;
    let was_put_back = rebase_if_put_back(repository, state, source, &mut reader);
    let was_put_back = was_put_back.inspect_err(|_| drop(state.abandon()))?;
    let nothing = Dirty::none();
    let merge_job = MergeJob {
        device: &job.device_name,
        remote_device: &job.remote_device_name,
        now: job.time,
        dirty: if was_put_back {
            &Dirty::All
        } else {
            &job.dirty
        },
        later: if was_put_back { &nothing } else { &job.later },
        cancel,
    };
    let merged = merge(
        folder,
        state,
        &mut store,
        &mut reader,
        remote.as_ref(),
        &merge_job,
    );
    let merged = merged.inspect_err(|_| drop(state.abandon()))?;
    let mut snapshot = None;
    if merged.differs {
        let root = Root {
            parts: merged.parts.clone(),
            origins: Vec::new(),
        };
        let root = store.store(&root.encode())?;
        let mut id = [0; 16];
        repository
            .entropy()
            .fill(&mut id)
            .map_err(SyncError::Entropy)?;
        snapshot = Some(SnapshotEntry {
            id: SnapshotId::from_bytes(id),
            time: job.time,
            device: job.device,
            set: job.name.clone(),
            root,
            stats: SnapshotStats::default(),
            incomplete: false,
        });
    }
    let written = store.finish()?;
    repository
        .index()
        .persist()
        .map_err(|error| SyncError::Repository(RepositoryError::Index(error)))?;
    if let Some(snapshot) = &mut snapshot {
        snapshot.stats.bytes_new = written.bytes_new;
        snapshot.stats.bytes_stored = written.bytes_stored;
    }
    Ok(Round {
        merged,
        snapshot,
        written,
    })
}

/// After the cell was put back: finds the newest head that it has and of which the folder had the whole tree, and makes
/// that the base. Says whether it was put back.
fn rebase_if_put_back(
    repository: &Repository,
    state: &mut State,
    source: &dyn ObjectSource,
    reader: &mut Located<'_>,
) -> Result<bool, SyncError> {
    if !state.is_put_back()? {
        return Ok(false);
    }
    let keys = repository.keys();
    let mut at = repository.head();
    let mut common = None;
    for _ in 0..HEADS_BACK_MAX {
        let Some(object) = at else { break };
        let manifest = match fetch_manifest(keys, source, object) {
            Ok(manifest) => manifest,
            // Pruned meanwhile.
            Err(ReadError::Source(SourceError::Missing { .. })) => break,
            Err(error) => return Err(SyncError::Repository(RepositoryError::Read(error))),
        };
        if state.knows_head(&object)? {
            if let Some(newest) = manifest.snapshots.last() {
                match read_root(newest.root, reader) {
                    Ok(root) => common = Some((manifest.counter, root.parts)),
                    Err(error) if is_pruned(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            break;
        }
        at = manifest.previous;
    }
    let common = common.as_ref().map(|(counter, parts)| (*counter, parts));
    match rebase(state, common, reader) {
        // As if there were no such head any more.
        Err(SyncError::Tree(error)) if is_pruned(&error) => rebase(state, None, reader)?,
        done => done?,
    }
    state.put_back_done()?;
    Ok(true)
}

/// Whether a tree of an older version cannot be read because somebody let go of it.
fn is_pruned(error: &TreeError) -> bool {
    matches!(
        error,
        TreeError::Read(
            ReadError::UnknownChunk { .. } | ReadError::Source(SourceError::Missing { .. })
        )
    )
}

impl Round {
    /// Stages the version that the head has to move to; `None` if the vault has it already. Versions that are
    /// superfluous by now are taken off the list with the same move.
    pub fn stage(
        &self,
        repository: &Repository,
        sink: &dyn ObjectSink,
    ) -> Result<Option<Staged>, SyncError> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(None);
        };
        let drop = thin_out(&repository.manifest().snapshots, snapshot.time);
        repository
            .stage_version(snapshot.clone(), &drop, &self.written, sink)
            .map(Some)
            .map_err(SyncError::Repository)
    }

    /// Whether the vault lacks something of the merged tree, so that the head has to move.
    pub fn differs(&self) -> bool {
        self.snapshot.is_some()
    }

    /// The head moved, or names the merged tree already: what waited is the base now.
    pub fn commit(&self, state: &mut State) -> Result<(), SyncError> {
        state.take_pending()?;
        Ok(state.end()?)
    }

    /// Another device moved the head first: as if the round had not been.
    pub fn give_up(self, state: &mut State) -> Result<(), SyncError> {
        Ok(state.abandon()?)
    }

    /// Brings the folder to the merged tree, after [`Round::commit`].
    pub fn apply(
        mut self,
        repository: &Repository,
        folder: &mut DiskFolder<'_>,
        state: &mut State,
        source: &dyn ObjectSource,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<RoundOutcome, SyncError> {
        let mut reader = Located(repository.reader(source));
        state.begin()?;
        let applied = self.merged.apply::<VaultStore<'_>, _>(
            folder,
            state,
            &mut reader,
            progress,
            cancel,
            repository
                .head()
                .map(|head| (repository.manifest().counter, head)),
        );
        // What was done is recorded, whatever came after it, but not before it is on the disk: after a power cut a
        // record of a file that is not there would look like a removal. A round that ended well has seen to it.
        let is_safe = applied.is_ok() || Folder::<VaultStore<'_>>::sync(folder).is_ok();
        let ended = if is_safe {
            state.end()
        } else {
            state.abandon()
        };
        let Applied {
            put,
            removed,
            moved,
            bytes,
        } = applied?;
        ended?;
        let notes = self.merged.notes;
        Ok(RoundOutcome {
            stats: SyncStats {
                sent: notes.sent,
                received: put,
                removed,
                moved,
                conflicts: notes.conflicts,
                bytes_received: bytes,
                bytes_stored: self.written.bytes_stored,
            },
            problems: notes.problems,
            again: Dirty::Folders(notes.again),
            moved_head: self.snapshot.is_some(),
            left: Dirty::none(),
            lost: 0,
        })
    }
}

/// Versions that need not stay: beside the newest ones, of the last day all but the newest of each minute, and of
/// older ones all but a few. What is later than now is treated like what is of today: neither a clock that runs ahead nor
/// one that is behind pushes out what others made.
fn thin_out(versions: &[SnapshotEntry], now: Millis) -> Vec<SnapshotId> {
    let recent = now.plus_ms(-EACH_MINUTE_MS);
    let newest = versions.len().saturating_sub(NEWEST_VERSIONS);
    let minute = |entry: &SnapshotEntry| entry.time.0.div_euclid(MINUTE_MS);
    let mut minutes: HashSet<i64> = versions[newest..].iter().map(minute).collect();
    let mut older = Vec::new();
    let mut unneeded = Vec::new();
    for entry in versions[..newest].iter().rev() {
        if entry.time < recent {
            // Versions follow each other whichever device made them: the rules count them as one series.
            let mut entry = entry.clone();
            entry.device = DeviceId::from_bytes([0; 16]);
            older.push(entry);
        } else if !minutes.insert(minute(entry)) {
            unneeded.push(entry.id);
        }
    }
    older.reverse();
    unneeded.extend(superfluous(&older, &OLDER_VERSIONS));
    unneeded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use super::*;
    use crate::chunk::ChunkId;

    fn version(number: u64, time: i64) -> SnapshotEntry {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        SnapshotEntry {
            id: SnapshotId::from_bytes(id),
            time: Millis(time),
            device: DeviceId::from_bytes([number as u8; 16]),
            set: "papers".to_owned(),
            root: ChunkId::from_bytes([1; 32]),
            stats: SnapshotStats::default(),
            incomplete: false,
        }
    }

    #[test]
    fn a_busy_day_keeps_the_newest_and_one_of_each_minute() {
        let start = 1_795_000_000_000 / MINUTE_MS * MINUTE_MS;
        let mut versions: Vec<SnapshotEntry> = Vec::new();
        // Ten in each minute of an hour, each of them thinned as it comes.
        for number in 0..600 {
            let now = start + i64::try_from(number).unwrap() * 6_000;
            let drop = thin_out(&versions, Millis(now));
            versions.retain(|entry| !drop.contains(&entry.id));
            versions.push(version(number, now));
        }
        for minute in 0..60 {
            let in_it =
                |entry: &&SnapshotEntry| (entry.time.0 - start).div_euclid(MINUTE_MS) == minute;
            assert!(
                versions.iter().any(|entry| in_it(&entry)),
                "minute {minute}"
            );
        }
        assert!(versions.len() <= 60 + NEWEST_VERSIONS + 1);
        assert_eq!(versions.last().unwrap().time.0, start + 599 * 6_000);
    }

    #[test]
    fn a_clock_that_runs_ahead_pushes_nothing_out() {
        let now = 1_795_000_000_000;
        let mut versions: Vec<SnapshotEntry> = (0..300)
            .map(|number| version(number, now + i64::try_from(number).unwrap() * 40 * DAY_MS))
            .collect();
        versions.insert(0, version(1000, now - 10 * MINUTE_MS));
        assert_eq!(thin_out(&versions, Millis(now)), []);
    }

    #[test]
    fn a_clock_that_is_behind_pushes_nothing_out() {
        let now = 1_795_000_000_000;
        let versions: Vec<SnapshotEntry> = (0..600)
            .map(|number| {
                version(
                    number,
                    now - (600 - i64::try_from(number).unwrap()) * 2 * MINUTE_MS,
                )
            })
            .collect();
        assert_eq!(thin_out(&versions, Millis(now)), []);
        assert_eq!(thin_out(&versions, Millis(now - 20 * DAY_MS)), []);
    }

    #[test]
    fn devices_that_save_in_turns_are_thinned_like_one() {
        let now = 1_795_000_000_000;
        // One clock is five minutes ahead.
        let versions: Vec<SnapshotEntry> = (0..1000)
            .map(|number| {
                let time = now - 600_000 + i64::try_from(number).unwrap() * 600;
                version(
                    number,
                    time + i64::try_from(number % 2).unwrap() * 5 * MINUTE_MS,
                )
            })
            .collect();
        let dropped = thin_out(&versions, Millis(now));
        assert!(versions.len() - dropped.len() <= NEWEST_VERSIONS + 20);
    }

    #[test]
    fn of_old_versions_a_few_stay() {
        let now = 1_795_000_000_000;
        let mut versions: Vec<SnapshotEntry> = (0..2000)
            .map(|number| {
                version(
                    number,
                    now - (2000 - i64::try_from(number).unwrap()) * 3_600_000,
                )
            })
            .collect();
        let dropped = thin_out(&versions, Millis(now));
        versions.retain(|entry| !dropped.contains(&entry.id));
        let count = versions.len();
        assert!(
            (NEWEST_VERSIONS + 30..NEWEST_VERSIONS + 100).contains(&count),
            "{count}"
        );
    }
}
