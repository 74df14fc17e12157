//! Restoring a snapshot, or parts of it, into a directory.
//!
//! Everything is hostile here: what the cell sends, the names and numbers in the tree, and whoever
//! else can write to the target directory while the restore runs. The order of work follows from it:
//!
//! 1. **Plan.** The whole tree is read and verified into a plan on disk. Nothing is written to the
//!    target, so a tampered tree leaves it as it was. What the cell does not have is no tampering: a
//!    directory or a file of which a part is missing is listed, and everything else is restored.
//! 2. **Survey.** What the target already holds is compared. A file that is already right counts as
//!    done, which is how an interrupted restore goes on; anything else is listed and left alone.
//! 3. **Fill.** Packs are opened one at a time in storage order. A chunk is verified before a byte
//!    of it is written. A file is made under a temporary name, gets its attributes, and appears
//!    under its own name only when it is whole; a rename that replaces nothing does that.
//! 4. **Finish.** Empty files, links, special files and empty directories are made; hard links are
//!    joined; directories get their attributes last, from the bottom up.
//!
//! Every lookup is relative to an open directory beneath the target and follows no symbolic link
//! anywhere (`openat2` with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS`).
//! Memory is bounded: a pack, a frame, and a fixed number of descriptors.

mod attributes;
mod fill;
mod plan;
mod survey;
mod target;

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::chunk::ChunkId;
use crate::entropy::EntropyError;
use crate::ports::ObjectSource;
use crate::reader::ReadError;
use crate::report::{Cancel, Problems, Progress};
use crate::repository::Repository;
use crate::tree::TreeError;

/// What to restore, and where.
#[derive(Debug, Clone)]
pub struct RestoreJob {
    /// The snapshot's root record.
    pub root: ChunkId,
    /// Paths within the snapshot; empty: all of it. What is restored keeps its path below the target.
    pub paths: Vec<PathBuf>,
    /// The directory to restore into; made when it is not there, its parent must be.
    pub target: PathBuf,
    /// A directory of the caller's for the plan, which holds names. The plan is removed at the end.
    pub scratch: PathBuf,
    /// Restore setuid and setgid bits, device nodes, capabilities and trusted attributes too.
    pub privileged: bool,
    /// Return only when everything is on the disk, and not merely handed to the system.
    pub durable: bool,
}

/// What a restore did.
#[derive(Debug, Clone, Default)]
pub struct RestoreOutcome {
    /// Files, links and special files that were made.
    pub files: u64,
    /// Files that were there already, with the right content and attributes.
    pub already: u64,
    /// Directories that were made or given their attributes.
    pub directories: u64,
    /// Bytes of content that were written.
    pub bytes_written: u64,
    /// What could not be restored as it should.
    pub problems: Problems,
}

/// Why a restore could not be finished. What was finished stays; no unfinished file does.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot's tree could not be read, or nothing of it is there. Nothing was written.
    #[error("the tree of the snapshot could not be read")]
    Tree(#[source] TreeError),
    /// Content could not be read. No part of it was written.
    #[error("content of the snapshot could not be read")]
    Read(#[source] ReadError),
    /// A path is not in the snapshot. Nothing was written.
    #[error("{path:?} is not in the snapshot")]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// The target as a whole does not take files: not a directory, full, or read-only.
    #[error("the target {path:?} cannot be written")]
    Target {
        /// The target.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The plan could not be kept.
    #[error("the plan of the restore could not be kept on disk")]
    Plan(#[source] rusqlite::Error),
    /// The system has no random bytes.
    #[error("no random bytes for temporary names")]
    Entropy(#[source] EntropyError),
    /// The restore was asked to stop. It can be run again and goes on.
    #[error("the restore was stopped")]
    Cancelled,
}

impl RestoreError {
    /// Whether damage or tampering was found.
    pub fn is_integrity(&self) -> bool {
        match self {
            Self::Tree(error) => error.is_integrity(),
            Self::Read(error) => error.is_integrity(),
            _ => false,
        }
    }
}

impl From<TreeError> for RestoreError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<rusqlite::Error> for RestoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Plan(error)
    }
}

/// What the parts of a restore share.
struct Context<'a> {
    job: &'a RestoreJob,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    outcome: RestoreOutcome,
    superuser: bool,
    /// The target hands its default ACL on to what is made in it; restored entries must not keep that.
    inherits_acl: bool,
    /// What could not be set on the entry at hand.
    noted: Vec<crate::report::ProblemKind>,
}

impl Context<'_> {
    fn check_cancel(&self) -> Result<(), RestoreError> {
        if self.cancel.is_cancelled() {
            Err(RestoreError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Errors of the target as a whole end the restore; all others are one entry's problem.
    fn is_fatal(errno: Errno) -> bool {
        matches!(
            errno,
            Errno::NOSPC
                | Errno::DQUOT
                | Errno::ROFS
                | Errno::IO
                | Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
        )
    }

    fn fatal(&self, errno: Errno) -> RestoreError {
        RestoreError::Target {
            path: self.job.target.clone(),
            source: errno.into(),
        }
    }
}

/// Restores a snapshot or parts of it.
///
/// Running it again after it was stopped, or after it failed, goes on where it was.
pub fn run(
    repository: &Repository,
    job: &RestoreJob,
    source: &dyn ObjectSource,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RestoreOutcome, RestoreError> {
    let mut random = [0; 16];
    repository
        .entropy()
        .fill(&mut random)
        .map_err(RestoreError::Entropy)?;
    let mut context = Context {
        job,
        progress,
        cancel,
        outcome: RestoreOutcome::default(),
        superuser: crate::sys::is_superuser(),
        inherits_acl: false,
        noted: Vec::new(),
    };
    let mut reader = repository.reader(source);
    let plan = plan::Plan::create(&job.scratch, random)?;
    plan::read_tree(&plan, &mut context, &mut reader)?;
    let (files, bytes) = plan.totals()?;
    progress.expect(files, bytes);
    let mut target = target::Target::open(&mut context, random)?;
    if target.existed() {
        survey::survey(
            &plan,
            &mut target,
            &mut context,
            repository.keys(),
            &mut reader,
        )?;
    }
    let filled = fill::fill(&plan, &mut target, &mut context, repository.keys(), &reader);
    if filled.is_err() {
        // Whatever went wrong, no unfinished file stays behind.
        fill::remove_unfinished(&plan, &mut target, &mut context);
    }
    filled?;
    fill::finish(&plan, &mut target, &mut context)?;
    if job.durable {
        target.sync().map_err(|errno| context.fatal(errno))?;
    }
    Ok(context.outcome)
}

/// The path of an entry for messages.
fn join(directory: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    directory.join(std::ffi::OsStr::from_bytes(name))
}

#[cfg(test)]
#[path = "tests/restore.rs"]
mod tests;
#[cfg(test)]
#[path = "tests/threats.rs"]
mod threat_tests;
