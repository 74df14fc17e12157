//! Keeping a folder in step with a vault's head: a three-way merge of trees.
//!
//! Three trees meet in a round. The *base* is what this device and the vault last had in common, name by
//! name; it is kept in a [`State`] on the device. The *local* tree is the folder as it is now. The *remote* tree
//! is what the head names. What changed on one side only is taken over; what changed on both in different
//! ways is kept twice. Content and history decide. Clocks decide nothing: they only name conflict copies.
//!
//! A round has four steps, and may be killed between any two of them:
//!
//! 1. **Merge** ([`run`]). Walks where something may have changed, stores new content, and makes the merged
//!    tree out of the three. The folder is not changed, but for files that give way to a conflict.
//! 2. **Commit**. If the merged tree is not the remote one, the caller moves the head to it by compare-and-swap.
//!    If another device was faster, the round is given up and begins again with the new remote tree.
//! 3. **Apply** ([`Round::apply`]). Brings the folder to the merged tree. A file is replaced only if it still is what the
//!    merge saw; what somebody changed meanwhile is left for the next round.
//! 4. **Record**. Name by name, what was applied becomes the base.
//!
//! The base moves only with what is both in the folder and in the head, so a crash costs work and never a file: a
//! name whose record is old is merged again, and both sides are found equal.
//!
//! The merge knows no file system and no cell: a port for folders and the tree's own ports are handed in. The
//! simulation runs the same code over folders in memory.

mod apply;
mod decide;
mod disk;
mod folder;
mod merge;
mod names;
mod put_back;
mod record;
mod round;
mod state;

pub use decide::{Decision, Side, decide};
pub use disk::{DiskFolder, OWN_FOLDER};
#[cfg(any(test, fuzzing))]
pub(crate) use names::{conflict_name, is_conflict_name};
pub use record::Stamp;
pub use round::{Round, RoundOutcome, SyncJob, SyncStats, first_tree, run};
pub use state::{State, StateError};

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::tree::TreeError;
use crate::writer::WriteError;

/// Deepest nesting of folders that is synced. Walks recurse, so this bounds their stack: see [`ROUND_STACK_BYTES`].
pub const SYNC_DEPTH_MAX: usize = 256;

/// Stack of a thread that does rounds, in bytes: a level of the walk takes about 6 KiB, and several times that without
/// optimization.
pub const ROUND_STACK_BYTES: usize = 32 * 1024 * 1024;

/// Which folders may have changed since the base was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dirty {
    /// Any: the folder was not watched all the time.
    All,
    /// These, by path from the top, `/` between names, the top being empty: which names are in them changed, or what
    /// these names are. A path with `/` at its end means a folder with everything below it: it was moved, and what
    /// changed in it was told under its old name.
    Folders(BTreeSet<Vec<u8>>),
}

impl Default for Dirty {
    fn default() -> Self {
        Self::Folders(BTreeSet::new())
    }
}

impl Dirty {
    /// Whether the folder's own entries have to be listed.
    pub(crate) fn has(&self, at: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Folders(set) => set.contains(at) || covers(set, at),
        }
    }

    /// Whether it or anything below it has to be listed.
    pub(crate) fn has_below(&self, at: &[u8]) -> bool {
        let Self::Folders(set) = self else {
            return true;
        };
        if at.is_empty() {
            return !set.is_empty();
        }
        if set.contains(at) || covers(set, at) {
            return true;
        }
        let mut below = at.to_vec();
        below.push(b'/');
        set.range(below.clone()..)
            .next()
            .is_some_and(|path| path.starts_with(&below))
    }

    /// What of it is a folder, or lies below it.
    pub(crate) fn at_and_below(&self, at: &[u8]) -> BTreeSet<Vec<u8>> {
        let Self::Folders(set) = self else {
            return BTreeSet::new();
        };
        let mut below = at.to_vec();
        below.push(b'/');
        let inside = set
            .range(below.clone()..)
            .take_while(|path| path.starts_with(&below));
        inside.chain(set.get(at)).cloned().collect()
    }

    /// Names in the folder on the way to what has to be listed below it.
    pub(crate) fn ways_from(&self, at: &[u8]) -> BTreeSet<&[u8]> {
        let Self::Folders(set) = self else {
            return BTreeSet::new();
        };
        let mut below = at.to_vec();
        if !at.is_empty() {
            below.push(b'/');
        }
        let paths = set
            .range(below.clone()..)
            .take_while(|path| path.starts_with(&below));
        paths
            .filter_map(|path| path[below.len()..].split(|&byte| byte == b'/').next())
            .filter(|name| !name.is_empty())
            .collect()
    }

    /// The first so many that come after a path, going round at the end, and the others. What is everything is not parted.
    pub fn part(self, most: usize, after: &[u8]) -> (Self, Self) {
        let Self::Folders(set) = self else {
            return (self, Self::none());
        };
        if set.len() <= most {
            return (Self::Folders(set), Self::none());
        }
        let beyond = set.range::<[u8], _>((Bound::Excluded(after), Bound::Unbounded));
        let around = set.range::<[u8], _>((Bound::Unbounded, Bound::Included(after)));
        let first: BTreeSet<Vec<u8>> = beyond.chain(around).take(most).cloned().collect();
        let rest = set.difference(&first).cloned().collect();
        (Self::Folders(first), Self::Folders(rest))
    }

    /// How many folders have to be listed; `None`: all.
    pub fn count(&self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::Folders(set) => Some(set.len()),
        }
    }

    /// Nothing has to be listed.
    pub const fn none() -> Self {
        Self::Folders(BTreeSet::new())
    }

    /// Whether nothing has to be listed.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Folders(set) if set.is_empty())
    }

    /// Both together.
    pub fn with(mut self, other: Dirty) -> Self {
        self.extend(other);
        self
    }

    /// Adds another set.
    pub fn extend(&mut self, other: Dirty) {
        match (&mut *self, other) {
            (Self::Folders(set), Dirty::Folders(more)) => set.extend(more),
            (_, Dirty::All) => *self = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// Whether a folder, or one that it is in, has to be listed with everything below it.
fn covers(set: &BTreeSet<Vec<u8>>, at: &[u8]) -> bool {
    let ends = at.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let ends = ends.map(|(end, _)| end).chain([at.len()]);
    let mut path = Vec::with_capacity(at.len() + 1);
    ends.filter(|end| *end > 0).any(|end| {
        path.clear();
        path.extend_from_slice(&at[..end]);
        path.push(b'/');
        set.contains(&path)
    })
}

/// Why a round could not be finished. What was applied stays recorded.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The remote tree could not be read.
    #[error("the vault's tree could not be read")]
    Tree(#[source] TreeError),
    /// New content could not be stored.
    #[error("new content could not be stored")]
    Write(#[source] WriteError),
    /// What is known of the folder could not be read or kept.
    #[error("the record of the folder failed")]
    State(#[source] StateError),
    /// The folder as a whole cannot be used: gone, not the one that it was, full or read-only.
    #[error("the folder cannot be used: {reason}")]
    Folder {
        /// What is wrong.
        reason: String,
        /// What the system says.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The vault could not be read or written.
    #[error("the vault could not be used")]
    Repository(#[source] crate::repository::RepositoryError),
    /// The system has no random bytes.
    #[error("no random bytes")]
    Entropy(#[source] crate::entropy::EntropyError),
    /// The round was asked to stop.
    #[error("the round was stopped")]
    Cancelled,
}

impl SyncError {
    /// Whether damage or tampering was found.
    pub fn is_integrity(&self) -> bool {
        matches!(self, Self::Tree(error) if error.is_integrity())
    }
}

impl From<TreeError> for SyncError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<WriteError> for SyncError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<StateError> for SyncError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

#[cfg(test)]
mod tests;
