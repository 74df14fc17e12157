//! What `stat` shows of what is in a snapshot: as it was backed up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use candor_vault::node::{self, Entry, Kind};
use candor_wire::{Millis, Nanos};
use fuser::{FileAttr, FileType, INodeNo};

/// A block, for those who count in blocks.
const BLOCK_BYTES: u64 = 512;

fn since_1970(nanoseconds: i128) -> SystemTime {
    let distance = Duration::from_nanos(u64::try_from(nanoseconds.unsigned_abs()).unwrap_or(0));
    let time = if nanoseconds < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

/// A time of the protocols, as the system has it.
pub(super) fn time_of(Millis(time): Millis) -> SystemTime {
    since_1970(i128::from(time) * 1_000_000)
}

/// The system's word for a kind of entry.
pub(super) const fn type_of(kind: &Kind) -> FileType {
    match kind {
        Kind::File { .. } => FileType::RegularFile,
        Kind::Directory { .. } => FileType::Directory,
        Kind::Symlink { .. } => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice { .. } => FileType::CharDevice,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
    }
}

/// What `stat` shows of an entry.
pub(super) fn attributes_of(number: u64, entry: &Entry) -> FileAttr {
    let (size, stored) = match &entry.kind {
        Kind::File { size, extents, .. } => {
            let data = |extents: &Vec<node::Extent>| extents.iter().map(|one| one.length).sum();
            (*size, extents.as_ref().map_or(*size, data))
        }
        Kind::Symlink { target } => (target.len() as u64, 0),
        _ => (0, 0),
    };
    let rdev = match entry.kind {
        Kind::CharacterDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            u32::try_from(rustix::fs::makedev(major, minor)).unwrap_or(0)
        }
        _ => 0,
    };
    let metadata = &entry.metadata;
    let Nanos(mtime) = metadata.mtime;
    let time = since_1970(i128::from(mtime));
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: stored.div_ceil(BLOCK_BYTES),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: type_of(&entry.kind),
        perm: u16::try_from(metadata.mode & node::MODE_MASK).unwrap_or(0),
        // How many names a linked file has is not in its entry; that it has several is.
        nlink: 1 + u32::from(entry.link.is_some()),
        uid: metadata.uid,
        gid: metadata.gid,
        rdev,
        blksize: 4096,
        flags: 0,
    }
}
