//! What the system says about a file, as far as it tells whether the file changed.

use crate::node::{Entry, Kind};
use crate::sys::{FileKind, Status};

/// The bits of a mode that are synced: what owner, group and others may do.
pub(crate) const SYNCED_MODE: u32 = 0o777;

/// What owners can always do with folders that are kept in step.
pub(crate) const OWNER_MODE: u32 = 0o700;

/// Bytes of a stamp as it is kept.
const STAMP_BYTES: usize = 1 + 4 + 5 * 8;

/// The state of a file or folder in the file system, by which a change is noticed without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// 0 a file, 1 a folder, 2 a symbolic link, 3 anything else, which is not synced.
    pub kind: u8,
    /// The permission bits.
    pub mode: u32,
    /// Length in bytes; of a folder 0.
    pub size: u64,
    /// Last change of the content, in nanoseconds; of a folder 0: its entries say what changed.
    pub mtime: i64,
    /// Last change of anything, in nanoseconds; of a folder 0.
    pub ctime: i64,
    /// The file within its file system.
    pub inode: u64,
    /// The file system.
    pub device: u64,
}

/// Kinds, as in [`Stamp::kind`].
pub(crate) const FILE: u8 = 0;
pub(crate) const FOLDER: u8 = 1;
pub(crate) const SYMLINK: u8 = 2;
pub(crate) const OTHER: u8 = 3;

impl Stamp {
    /// The stamp of what the system says.
    pub(crate) fn of(status: &Status) -> Self {
        let kind = match status.kind {
            FileKind::File => FILE,
            FileKind::Directory => FOLDER,
            FileKind::Symlink => SYMLINK,
            _ => OTHER,
        };
        let is_folder = kind == FOLDER;
        let unless_folder = |value| if is_folder { 0 } else { value };
        Self {
            kind,
            mode: status.mode & SYNCED_MODE,
            size: if is_folder { 0 } else { status.size },
            mtime: unless_folder(status.mtime),
            ctime: unless_folder(status.ctime),
            inode: status.inode,
            device: status.device,
        }
    }

    /// Whether it is the same file with the same content, under whatever name: a rename changes only the time of
    /// the last change of anything.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        let key = |s: &Self| (s.kind, s.size, s.mtime, s.inode, s.device);
        key(self) == key(other)
    }

    /// The state of what is not here, or not yet.
    pub(crate) fn nothing() -> Self {
        Self {
            kind: OTHER,
            mode: 0,
            size: 0,
            mtime: 0,
            ctime: i64::MIN,
            inode: 0,
            device: 0,
        }
    }

    /// A stamp that no file has, for a record whose file has to be read again.
    pub(crate) fn disbelieved(mut self) -> Self {
        self.ctime = i64::MIN;
        self
    }

    pub(crate) fn encode(&self) -> [u8; STAMP_BYTES] {
        let mut out = [0; STAMP_BYTES];
        out[0] = self.kind;
        out[1..5].copy_from_slice(&self.mode.to_le_bytes());
        let numbers = [
            self.size.to_le_bytes(),
            self.mtime.to_le_bytes(),
            self.ctime.to_le_bytes(),
            self.inode.to_le_bytes(),
            self.device.to_le_bytes(),
        ];
        for (place, number) in out[5..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAMP_BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| {
            let mut out = [0; 8];
            out.copy_from_slice(&bytes[5 + at * 8..13 + at * 8]);
            u64::from_le_bytes(out)
        };
        Some(Self {
            kind: bytes[0],
            mode: u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]),
            size: number(0),
            mtime: number(1).cast_signed(),
            ctime: number(2).cast_signed(),
            inode: number(3),
            device: number(4),
        })
    }
}

/// What the base has for one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: Vec<u8>,
    /// Number of a folder, under which its own names are kept.
    pub(crate) child: Option<i64>,
    /// Of a folder: whether all that is below it is in the base as its entry says.
    pub(crate) complete: bool,
    /// Whether it is in the folder, and not only known to be in the vault: what the rules leave out is not.
    pub(crate) held: bool,
    /// Its state when it was recorded.
    pub(crate) stamp: Stamp,
    /// The entry, encoded.
    pub(crate) entry: Vec<u8>,
}

impl Row {
    /// Of a file or link that is held here.
    pub(crate) fn leaf(name: &[u8], stamp: Stamp, entry: Vec<u8>) -> Self {
        Self {
            name: name.to_vec(),
            child: None,
            complete: false,
            held: true,
            stamp,
            entry,
        }
    }

    /// Of what is in the vault and left out here.
    pub(crate) fn hidden(name: &[u8], entry: Vec<u8>) -> Self {
        Self {
            held: false,
            ..Self::leaf(name, Stamp::nothing(), entry)
        }
    }
}

/// What content is, to find it under another name: the hash of its references.
pub(crate) fn content_key(entry: &Entry) -> Option<[u8; 32]> {
    let Kind::File {
        size,
        content,
        extents: None,
    } = &entry.kind
    else {
        return None;
    };
    if content.list.is_empty() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    hasher.update(&[content.levels]);
    for reference in &content.list {
        hasher.update(reference.id.as_bytes());
    }
    Some(*hasher.finalize().as_bytes())
}
