//! What a long run tells its caller: progress, problems with single files, and how it is stopped.
//!
//! A file that cannot be read or written never ends a run. It becomes a [`Problem`] in a bounded
//! list, and the caller shows the list and says that the work was done in part.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::name::NameError;

/// Most problems that are kept one by one: more than a person reads; the rest are counted.
pub const PROBLEMS_MAX: usize = 10_000;

/// A switch that ends a run cleanly: what was acknowledged or finished stays.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks every run that holds this switch to end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run was asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Listens to a run. Called often and from one thread; must return at once.
pub trait Progress: Sync {
    /// How much work is likely, when that is known: files and bytes of content.
    fn expect(&self, files: u64, bytes: u64);

    /// More work was done, skipped files included: files and bytes of content since the last call.
    fn advance(&self, files: u64, bytes: u64);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn expect(&self, _files: u64, _bytes: u64) {}
    fn advance(&self, _files: u64, _bytes: u64) {}
}

/// What is wrong with one file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemKind {
    /// It was there when its directory was listed, and gone when it was read.
    Vanished,
    /// It changed while it was read, twice. What the snapshot holds may be neither state.
    Changed,
    /// The system refused to let it be read. It is not in the snapshot.
    Unreadable(Errno),
    /// Directories are nested deeper than [`crate::node::DEPTH_MAX`].
    TooDeep,
    /// Its extended attributes could not be read or are too large; it is stored without them.
    AttributesLeftOut,
    /// A rule file holds lines that cannot be understood.
    Rules {
        /// How many lines were passed over.
        lines: usize,
    },
    /// Its name in the snapshot is one that no directory may hold. It was not restored.
    BadName(NameError),
    /// Something else already has its name. It was left alone.
    Exists,
    /// The target cannot tell its name from that of a neighbour (case or composed characters).
    Collision,
    /// Its directory could not be made or entered, so it was not restored.
    ParentMissing,
    /// The target or the system refused to take it.
    Unwritable(Errno),
    /// A socket: listed, never made.
    Socket,
    /// A device node; made only when asked for with privileges.
    DeviceNode,
    /// It was restored without its setuid or setgid bit.
    SetIdDropped,
    /// It was restored without an extended attribute.
    AttributeDropped {
        /// The attribute's name.
        name: Vec<u8>,
    },
    /// It was restored, and its mode, owner or times could not be set.
    MetadataRefused(Errno),
    /// Its content could not be read from the vault: withheld, or damaged.
    Damaged,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vanished => f.write_str("vanished before it could be read"),
            Self::Changed => f.write_str("changed while it was read"),
            Self::Unreadable(errno) => write!(f, "could not be read: {errno}"),
            Self::TooDeep => f.write_str("nested too deeply"),
            Self::AttributesLeftOut => f.write_str("stored without its extended attributes"),
            Self::Rules { lines } => write!(f, "{lines} rules could not be understood"),
            Self::BadName(reason) => write!(f, "refused: {reason}"),
            Self::Exists => f.write_str("something else is already there"),
            Self::Collision => f.write_str("the target cannot tell its name from a neighbour's"),
            Self::ParentMissing => f.write_str("its directory could not be restored"),
            Self::Unwritable(errno) => write!(f, "could not be written: {errno}"),
            Self::Socket => f.write_str("a socket is not restored"),
            Self::DeviceNode => f.write_str("a device node is restored only with privileges"),
            Self::SetIdDropped => f.write_str("restored without setuid and setgid"),
            Self::AttributeDropped { name } => {
                write!(
                    f,
                    "restored without the attribute {}",
                    String::from_utf8_lossy(name)
                )
            }
            Self::MetadataRefused(errno) => {
                write!(f, "mode, owner or times could not be set: {errno}")
            }
            Self::Damaged => f.write_str("its content is missing or damaged"),
        }
    }
}

/// One file or directory that could not be handled as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which: an absolute path in a backup, a path within the snapshot in everything else.
    pub path: PathBuf,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// A bounded list of problems.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    /// The first [`PROBLEMS_MAX`].
    pub list: Vec<Problem>,
    /// How many more there were.
    pub more: u64,
}

impl Problems {
    /// Adds one, or counts it when the list is full.
    pub(crate) fn add(&mut self, path: &Path, kind: ProblemKind) {
        if self.list.len() < PROBLEMS_MAX {
            self.list.push(Problem {
                path: path.to_path_buf(),
                kind,
            });
        } else {
            self.more += 1;
        }
    }

    /// Adds those of another part of the same run; what was told already is not told twice.
    pub(crate) fn extend(&mut self, other: Self) {
        for one in other.list {
            let is_told = |told: &Problem| told.path == one.path && told.kind == one.kind;
            if !self.list.iter().any(is_told) {
                self.add(&one.path, one.kind);
            }
        }
        self.more += other.more;
    }

    /// How many there are in all.
    pub fn count(&self) -> u64 {
        self.list.len() as u64 + self.more
    }

    /// Whether nothing went wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
