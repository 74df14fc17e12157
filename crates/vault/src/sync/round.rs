//! A round over a vault and a folder on disk: merge, stage, and, once the head moved, apply.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use candor_wire::time::DAY_MS;
use candor_wire::{DeviceId, Millis};

use super::apply::{Applied, Locate};
use super::disk::DiskFolder;
use super::merge::{MergeJob, Merged, Store, merge};
use super::put_back::rebase;
use super::state::State;
use super::{Dirty, SyncError};
use crate::backup::content::{Buffers, FileError, FileStore, Stored};
use crate::chunk::ChunkId;
use crate::keep::{KeepRules, superfluous};
use crate::manifest::{Manifest, SnapshotEntry, SnapshotId, SnapshotStats};
use crate::node::{References, Root};
use crate::pack::Stream;
use crate::ports::{ObjectSink, ObjectSource, SourceError};
use crate::reader::{ReadError, Reader, fetch_body};
use crate::report::{Cancel, Problems, Progress};
use crate::repository::{Repository, RepositoryError, Staged};
use crate::seal::ObjectType;
use crate::sys::Status;
use crate::tree::{ChunkSource, TreeSink, read_root};
use crate::writer::{WriteError, Writer, Written};

/// How long every version stays, in milliseconds: what was saved today can be had back as it was at each moment.
const EVERY_VERSION_MS: i64 = DAY_MS;

/// Most versions of which all are kept; with more in a day the oldest are thinned like older ones. Keeps the manifest
/// below 256 KiB.
const EVERY_VERSION_MAX: usize = 1000;

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
    let merge_job = MergeJob {
        device: &job.device_name,
        remote_device: &job.remote_device_name,
        now: job.time,
        dirty: if was_put_back {
            &Dirty::All
        } else {
            &job.dirty
        },
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
        let body = match fetch_body(keys, source, object, ObjectType::Manifest) {
            Ok(body) => body,
            // Pruned meanwhile.
            Err(ReadError::Source(SourceError::Missing { .. })) => break,
            Err(error) => return Err(SyncError::Repository(RepositoryError::Read(error))),
        };
        let manifest = Manifest::decode(&body, keys.account(), keys.vault()).map_err(|source| {
            let error = ReadError::Manifest { object, source };
            SyncError::Repository(RepositoryError::Read(error))
        })?;
        if state.knows_head(&object)? {
            if let Some(newest) = manifest.snapshots.last() {
                let parts = read_root(newest.root, reader)?.parts;
                common = Some((manifest.counter, parts));
            }
            break;
        }
        at = manifest.previous;
    }
    let common = common.as_ref().map(|(counter, parts)| (*counter, parts));
    rebase(state, common, reader)?;
    state.put_back_done()?;
    Ok(true)
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
        // What was done is recorded, whatever came after it.
        let ended = state.end();
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
        })
    }
}

/// Versions that need not stay: of those older than a day all but a few.
fn thin_out(versions: &[SnapshotEntry], now: Millis) -> Vec<SnapshotId> {
    let recent = now.plus_ms(-EVERY_VERSION_MS);
    let newest = versions.len().saturating_sub(EVERY_VERSION_MAX);
    let fresh = |place: usize, entry: &SnapshotEntry| place >= newest && entry.time >= recent;
    let older: Vec<SnapshotEntry> = versions
        .iter()
        .enumerate()
        .filter(|(place, entry)| !fresh(*place, entry))
        .map(|(_, entry)| {
            // Versions follow each other whichever device made them: the rules count them as one series.
            let mut entry = entry.clone();
            entry.device = DeviceId::from_bytes([0; 16]);
            entry
        })
        .collect();
    superfluous(&older, &OLDER_VERSIONS)
}
