//! A backup run: walks the sources, stores what is new, and stages a snapshot.
//!
//! One thread walks, depth first, each directory in the order of its names' bytes, so the same tree
//! always gives the same nodes and neighbours share frames. Files whose state is the recorded one
//! are never opened. Cutting and hashing happen on this thread while the bytes are in cache;
//! compressing, sealing and sending are the writer's.
//!
//! Sources appear at the top of the snapshot under their base names. Sources with the same base
//! name get their whole path instead, joined with `_`; a source inside another is part of it.
//!
//! What cannot be read never ends a run: it is listed in [`BackupOutcome::problems`] and left out.

pub(crate) mod content;
mod walk;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candor_wire::{DeviceId, Millis};
use rustix::io::Errno;

use crate::entropy::EntropyError;
use crate::manifest::{SnapshotEntry, SnapshotId, SnapshotStats};
use crate::name::Name;
use crate::node::{self, Origin, Root};
use crate::ports::ObjectSink;
use crate::report::{Cancel, Problems, Progress};
use crate::repository::{Repository, RepositoryError, Staged};
use crate::rules::{Matcher, Rules, RulesError};
use crate::stat_cache::{RACY_NANOSECONDS, StatCache, StatCacheError};
use crate::tree::{DirectoryBuilder, TreeSink};
use crate::writer::WriteError;

/// What to back up.
#[derive(Debug, Clone)]
pub struct BackupJob {
    /// Files and directories, at most [`node::SOURCES_MAX`].
    pub sources: Vec<PathBuf>,
    /// What to leave out.
    pub rules: Rules,
    /// Name of the backup set.
    pub set: String,
    /// The device that runs.
    pub device: DeviceId,
    /// When the run begins, by the same clock that stamps the files.
    pub time: Millis,
    /// Where the cache of file states is kept; made when it is not there.
    pub stat_cache: PathBuf,
}

/// What a run did.
#[derive(Debug)]
pub struct BackupOutcome {
    /// The snapshot, stored; the head must name it next.
    /// `None` when nothing changed since the newest snapshot of this set by this device: then there
    /// is nothing to move the head to.
    pub staged: Option<Staged>,
    /// The snapshot that holds what was found: the new one, or that newest one.
    pub snapshot: SnapshotEntry,
    /// Counts.
    pub stats: BackupStats,
    /// What could not be read as it should.
    pub problems: Problems,
}

/// Counts of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupStats {
    /// Everything in the snapshot that is not a directory.
    pub files: u64,
    /// Directories in the snapshot.
    pub directories: u64,
    /// Files that were not opened because they had not changed.
    pub unchanged: u64,
    /// Bytes of content in the snapshot; a file with several names counts each time.
    pub bytes_total: u64,
    /// Bytes of content that were read.
    pub bytes_read: u64,
    /// Bytes of chunks that were not stored before.
    pub bytes_new: u64,
    /// Bytes of sealed packs that were added to the cell.
    pub bytes_stored: u64,
}

/// Why a run could not be finished. What was acknowledged stays recorded for the next one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A source is not there or cannot be resolved.
    #[error("the source {path:?} cannot be read")]
    Source {
        /// The source.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing to back up, or more sources than a snapshot has room for.
    #[error("a backup has 1 to {limit} sources")]
    Sources {
        /// The limit.
        limit: usize,
    },
    /// Two sources would have the same name in the snapshot.
    #[error("two sources would both be called {name:?} in the snapshot")]
    SameName {
        /// The name.
        name: Vec<u8>,
    },
    /// An exclude pattern cannot be understood.
    #[error("the rules of the backup set cannot be used")]
    Rules(#[source] RulesError),
    /// The cache of file states failed.
    #[error("the cache of file states failed")]
    StatCache(#[source] StatCacheError),
    /// The local index failed.
    #[error("the local index failed")]
    Index(#[source] crate::index::IndexError),
    /// Something could not be stored.
    #[error("the backup could not be stored")]
    Write(#[source] WriteError),
    /// The snapshot could not be staged.
    #[error("the snapshot could not be staged")]
    Repository(#[source] RepositoryError),
    /// The system has no random bytes.
    #[error("no random bytes for the snapshot's name")]
    Entropy(#[source] EntropyError),
    /// The run was asked to stop.
    #[error("the run was stopped")]
    Cancelled,
}

impl From<WriteError> for BackupError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<StatCacheError> for BackupError {
    fn from(error: StatCacheError) -> Self {
        Self::StatCache(error)
    }
}

/// A source with its name in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    name: Name,
    path: PathBuf,
}

/// Resolves the sources, drops those inside others, and names the rest.
fn resolve(sources: &[PathBuf]) -> Result<Vec<Source>, BackupError> {
    let limit = node::SOURCES_MAX;
    if sources.is_empty() || sources.len() > limit {
        return Err(BackupError::Sources { limit });
    }
    let mut paths = Vec::with_capacity(sources.len());
    for path in sources {
        let resolved = std::fs::canonicalize(path).map_err(|source| BackupError::Source {
            path: path.clone(),
            source,
        })?;
        if resolved.as_os_str().len() > node::SYMLINK_MAX_BYTES {
            let source = std::io::Error::from(Errno::NAMETOOLONG);
            return Err(BackupError::Source {
                path: path.clone(),
                source,
            });
        }
        paths.push(resolved);
    }
    paths.sort_unstable_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    paths.dedup();
    let outer: Vec<PathBuf> = paths
        .iter()
        .filter(|path| {
            !paths
                .iter()
                .any(|other| other != *path && path.starts_with(other))
        })
        .cloned()
        .collect();
    let mut named: Vec<Source> = Vec::with_capacity(outer.len());
    for path in &outer {
        let base = base_name(path);
        let shared = outer
            .iter()
            .filter(|other| base_name(other) == base)
            .count()
            > 1;
        let bytes = if shared { whole_path_name(path) } else { base };
        let name = Name::new(&bytes).map_err(|_| BackupError::SameName { name: bytes })?;
        named.push(Source {
            name,
            path: path.clone(),
        });
    }
    named.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for pair in named.windows(2) {
        if pair[0].name == pair[1].name {
            return Err(BackupError::SameName {
                name: pair[0].name.as_bytes().to_vec(),
            });
        }
    }
    Ok(named)
}

fn base_name(path: &Path) -> Vec<u8> {
    path.file_name()
        .map_or_else(|| b"root".to_vec(), |name| name.as_bytes().to_vec())
}

fn whole_path_name(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    let joined: Vec<u8> = bytes
        .iter()
        .skip(1)
        .map(|&byte| if byte == b'/' { b'_' } else { byte })
        .collect();
    if joined.is_empty() {
        b"root".to_vec()
    } else {
        joined
    }
}

/// Runs a backup and stages its snapshot. The caller moves the head to what was staged and then
/// calls [`Repository::accept`], or [`Repository::rebase`] when another device was faster.
///
/// Returns an error only when the run as a whole cannot go on: everything that the cell
/// acknowledged until then is recorded, and the next run sends none of it again.
pub fn run(
    repository: &mut Repository,
    job: &BackupJob,
    sink: Arc<dyn ObjectSink>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<BackupOutcome, BackupError> {
    job.rules.check().map_err(BackupError::Rules)?;
    let sources = resolve(&job.sources)?;
    let lineage = repository.index().lineage().map_err(BackupError::Index)?;
    let cache = StatCache::open(&job.stat_cache, lineage)?;
    if let Some((files, bytes)) = cache.total(&job.set)? {
        progress.expect(files, bytes);
    }
    let writer = repository
        .writer(Arc::clone(&sink))
        .map_err(BackupError::Repository)?;
    let scan_start = job.time.0.saturating_mul(1_000_000);
    let mut run = walk::Run {
        writer,
        cache,
        index: repository.index(),
        matcher: Matcher::new(&job.rules, Path::new("/")).map_err(BackupError::Rules)?,
        one_file_system: job.rules.one_file_system,
        progress,
        cancel,
        problems: Problems::default(),
        stats: BackupStats::default(),
        fresh_after: scan_start.saturating_sub(RACY_NANOSECONDS),
        lister: crate::sys::Lister::default(),
        buffers: content::Buffers::default(),
    };
    let root = match store_sources(&mut run, &sources, job) {
        Ok(root) => root,
        Err(error) => {
            // Rows of this run stay untrusted: the next run looks their chunks up one by one.
            run.cache.finish(None)?;
            return Err(error);
        }
    };
    let walk::Run {
        writer,
        cache,
        problems,
        mut stats,
        ..
    } = run;
    let written = match writer.finish() {
        Ok(written) => written,
        Err(error) => {
            cache.finish(None)?;
            return Err(error.into());
        }
    };
    // A power cut must not leave a cache that trusts its rows beside an index that lost their chunks.
    repository.index().persist().map_err(BackupError::Index)?;
    cache.finish(Some((&job.set, stats.files, stats.bytes_total)))?;
    stats.bytes_new = written.bytes_new;
    stats.bytes_stored = written.bytes_stored;
    // What a repair took out was sent again, perhaps by a run that did not end: others find it when it is listed.
    let is_listed =
        stats.bytes_stored == 0 && !repository.has_unlisted().map_err(BackupError::Repository)?;
    if is_listed && let Some(snapshot) = unchanged(repository, job, root, !problems.is_empty()) {
        return Ok(BackupOutcome {
            staged: None,
            snapshot,
            stats,
            problems,
        });
    }
    let mut id = [0; 16];
    repository
        .entropy()
        .fill(&mut id)
        .map_err(BackupError::Entropy)?;
    let entry = SnapshotEntry {
        id: SnapshotId::from_bytes(id),
        time: job.time,
        device: job.device,
        set: job.set.clone(),
        root,
        stats: SnapshotStats {
            files: stats.files,
            directories: stats.directories,
            bytes_total: stats.bytes_total,
            bytes_new: stats.bytes_new,
            bytes_stored: stats.bytes_stored,
        },
        incomplete: !problems.is_empty(),
    };
    let staged = repository
        .stage_snapshot(entry.clone(), &written, sink.as_ref())
        .map_err(BackupError::Repository)?;
    Ok(BackupOutcome {
        snapshot: entry,
        staged: Some(staged),
        stats,
        problems,
    })
}

/// The newest snapshot of this set by this device, if it holds exactly what this run found. An
/// hourly run over folders that nobody touches must not fill the manifest.
fn unchanged(
    repository: &Repository,
    job: &BackupJob,
    root: crate::chunk::ChunkId,
    incomplete: bool,
) -> Option<SnapshotEntry> {
    let own = |entry: &&SnapshotEntry| entry.set == job.set && entry.device == job.device;
    let newest = repository.manifest().snapshots.iter().rfind(own)?;
    let same = newest.root == root && newest.incomplete == incomplete;
    same.then(|| newest.clone())
}

/// Stores all sources and the root record, whose id is returned.
fn store_sources(
    run: &mut walk::Run<'_>,
    sources: &[Source],
    job: &BackupJob,
) -> Result<crate::chunk::ChunkId, BackupError> {
    let mut top = DirectoryBuilder::default();
    let mut origins = Vec::with_capacity(sources.len());
    for source in sources {
        run.matcher = Matcher::new(&job.rules, &source.path).map_err(BackupError::Rules)?;
        let parent = source.path.parent().unwrap_or(Path::new("/"));
        let own_name = source.path.file_name().unwrap_or(OsStr::new("."));
        let directory =
            crate::sys::open_directory_path(parent).map_err(|errno| BackupError::Source {
                path: source.path.clone(),
                source: errno.into(),
            })?;
        if let Some(encoded) = run.store_source(directory, own_name, &source.name, &source.path)? {
            top.push(source.name.as_bytes(), &encoded, &mut run.writer)?;
            origins.push(Origin {
                name: source.name.clone(),
                path: source.path.as_os_str().as_bytes().to_vec(),
            });
        }
    }
    let parts = top.finish(&mut run.writer)?;
    Ok(run.writer.store(&Root { parts, origins }.encode())?)
}

#[cfg(test)]
#[path = "tests/backup.rs"]
pub(crate) mod tests;
