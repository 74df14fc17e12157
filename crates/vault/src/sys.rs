//! The file system calls of this crate, in one place, so that another platform has one file to
//! replace. Linux: everything is relative to an open directory; nothing here follows a symbolic
//! link in the last component, and nothing that restores follows one anywhere.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, StatxFlags, Timespec,
    Timestamps,
};
use rustix::io::Errno;

/// Bytes of the buffer that directory listings are read into: about a thousand names a call.
const LISTING_BUFFER_BYTES: usize = 64 * 1024;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

/// What the system says about one entry. Times are nanoseconds, saturated at the ends of 64 bits
/// (years 1677 and 2262).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    /// What it is.
    pub(crate) kind: FileKind,
    /// The twelve mode bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Length in bytes.
    pub(crate) size: u64,
    /// Blocks of 512 bytes that are really there.
    pub(crate) blocks: u64,
    /// Last change of the content.
    pub(crate) mtime: i64,
    /// Last change of anything.
    pub(crate) ctime: i64,
    /// The file system.
    pub(crate) device: u64,
    /// The file within its file system.
    pub(crate) inode: u64,
    /// How many names it has.
    pub(crate) links: u32,
    /// Device number of a device: major.
    pub(crate) device_major: u32,
    /// Device number of a device: minor.
    pub(crate) device_minor: u32,
}

fn nanoseconds(seconds: i64, nanos: u32) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(nanos))
}

fn kind_of(mode: u32) -> FileKind {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharacterDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        _ => FileKind::File,
    }
}

/// What the entry `name` of a directory is; a symbolic link itself, not what it points to.
pub(crate) fn status(directory: impl AsFd, name: impl rustix::path::Arg) -> Result<Status, Errno> {
    statx(
        directory,
        name,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
    )
}

/// What an open file is.
pub(crate) fn status_of(file: impl AsFd) -> Result<Status, Errno> {
    statx(file, c"", AtFlags::EMPTY_PATH)
}

fn statx(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
    flags: AtFlags,
) -> Result<Status, Errno> {
    let s = rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS)?;
    let mode = u32::from(s.stx_mode);
    Ok(Status {
        kind: kind_of(mode),
        mode: mode & crate::node::MODE_MASK,
        uid: s.stx_uid,
        gid: s.stx_gid,
        size: s.stx_size,
        blocks: s.stx_blocks,
        mtime: nanoseconds(s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec),
        ctime: nanoseconds(s.stx_ctime.tv_sec, s.stx_ctime.tv_nsec),
        device: u64::from(s.stx_dev_major) << 32 | u64::from(s.stx_dev_minor),
        inode: s.stx_ino,
        links: s.stx_nlink,
        device_major: s.stx_rdev_major,
        device_minor: s.stx_rdev_minor,
    })
}

/// Opens a directory by a path of the person's; the last component may be a symbolic link.
pub(crate) fn open_directory_path(path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens a sub-directory for reading. Its name is one component; a symbolic link is refused.
pub(crate) fn open_directory(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Opens a regular file for reading without following a link, waiting on a pipe or, where the
/// system allows, changing its access time.
pub(crate) fn open_file(
    directory: impl AsFd,
    name: impl rustix::path::Arg + Copy,
) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(&directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&directory, name, flags, Mode::empty()),
        other => other,
    }
}

/// What every lookup below a restore's target is bound to: it stays beneath, and follows nothing.
fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// Opens a sub-directory for restoring into, beneath `directory` and through no link.
pub(crate) fn open_directory_beneath(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), beneath())
}

/// Opens an existing regular file for comparing, beneath `directory` and through no link.
pub(crate) fn open_file_beneath(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), beneath())
}

/// Opens a file that this restore made earlier, for writing more of it.
pub(crate) fn reopen_file_beneath(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), beneath())
}

/// Makes a new file, mode 0600; whatever already has the name is an error.
pub(crate) fn create_file(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, name, flags, Mode::RUSR | Mode::WUSR, beneath())
}

/// Makes a new directory, mode 0700.
pub(crate) fn create_directory(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
) -> Result<(), Errno> {
    rustix::fs::mkdirat(directory, name, Mode::RWXU)
}

/// Makes a symbolic link.
pub(crate) fn create_symlink(
    target: impl rustix::path::Arg,
    directory: impl AsFd,
    name: impl rustix::path::Arg,
) -> Result<(), Errno> {
    rustix::fs::symlinkat(target, directory, name)
}

/// Makes a named pipe or a device node, mode 0600.
pub(crate) fn create_special(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
    kind: FileKind,
    major: u32,
    minor: u32,
) -> Result<(), Errno> {
    let file_type = match kind {
        FileKind::Fifo => FileType::Fifo,
        FileKind::CharacterDevice => FileType::CharacterDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        _ => return Err(Errno::INVAL),
    };
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(directory, name, file_type, Mode::RUSR | Mode::WUSR, device)
}

/// Gives a second name to a file, through no link.
pub(crate) fn hard_link(
    old_directory: impl AsFd,
    old: impl rustix::path::Arg,
    new_directory: impl AsFd,
    new: impl rustix::path::Arg,
) -> Result<(), Errno> {
    rustix::fs::linkat(old_directory, old, new_directory, new, AtFlags::empty())
}

/// Gives a finished file its real name, unless something already has it. A file system without
/// that rename gets a hard link and loses the old name, which refuses just the same.
pub(crate) fn rename_new(
    directory: impl AsFd,
    old: impl rustix::path::Arg + Copy,
    new: impl rustix::path::Arg + Copy,
) -> Result<(), Errno> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(&directory, old, &directory, new, flags) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(&directory, old, &directory, new, AtFlags::empty())?;
            rustix::fs::unlinkat(&directory, old, AtFlags::empty())
        }
        other => other,
    }
}

/// Moves an entry from one directory to another, unless something already has the new name. A file system without
/// that rename gets a hard link in its stead, for files.
pub(crate) fn rename_between(
    old_directory: impl AsFd,
    old: impl rustix::path::Arg + Copy,
    new_directory: impl AsFd,
    new: impl rustix::path::Arg + Copy,
) -> Result<(), Errno> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(&old_directory, old, &new_directory, new, flags) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(&old_directory, old, &new_directory, new, AtFlags::empty())?;
            rustix::fs::unlinkat(&old_directory, old, AtFlags::empty())
        }
        other => other,
    }
}

/// Exchanges two entries in one step.
pub(crate) fn exchange(
    one_directory: impl AsFd,
    one: impl rustix::path::Arg,
    other_directory: impl AsFd,
    other: impl rustix::path::Arg,
) -> Result<(), Errno> {
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(one_directory, one, other_directory, other, flags)
}

/// Moves an entry over another one.
pub(crate) fn replace(
    old_directory: impl AsFd,
    old: impl rustix::path::Arg,
    new_directory: impl AsFd,
    new: impl rustix::path::Arg,
) -> Result<(), Errno> {
    rustix::fs::renameat(old_directory, old, new_directory, new)
}

/// Removes an empty directory.
pub(crate) fn remove_directory(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
) -> Result<(), Errno> {
    rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
}

/// Removes a file.
pub(crate) fn remove_file(directory: impl AsFd, name: impl rustix::path::Arg) -> Result<(), Errno> {
    rustix::fs::unlinkat(directory, name, AtFlags::empty())
}

/// Sets the mode of an open file or directory.
pub(crate) fn set_mode(file: impl AsFd, mode: u32) -> Result<(), Errno> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
}

/// Sets the mode of a pipe or a device by name. It is looked at without opening it, so that a
/// link that somebody put in its place is noticed and not followed.
pub(crate) fn set_mode_at(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
    mode: u32,
) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat2(directory, name, flags, Mode::empty(), beneath())?;
    match status_of(&held)?.kind {
        FileKind::Fifo | FileKind::CharacterDevice | FileKind::BlockDevice => {}
        _ => return Err(Errno::LOOP),
    }
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    rustix::fs::chmodat(
        CWD,
        path.as_str(),
        Mode::from_raw_mode(mode),
        AtFlags::empty(),
    )
}

/// Sets owner and group of an entry itself.
pub(crate) fn set_owner(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
    uid: u32,
    gid: u32,
) -> Result<(), Errno> {
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(uid),
        rustix::fs::Gid::from_raw(gid),
    );
    rustix::fs::chownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// Sets owner and group of an open file.
pub(crate) fn set_owner_of(file: impl AsFd, uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(uid),
        rustix::fs::Gid::from_raw(gid),
    );
    rustix::fs::fchown(file, Some(uid), Some(gid))
}

fn timestamps(mtime: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.div_euclid(1_000_000_000),
        // The remainder is below a thousand million, whatever the sign.
        tv_nsec: mtime.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Sets the times of an open file to `mtime`, in nanoseconds.
pub(crate) fn set_times_of(file: impl AsFd, mtime: i64) -> Result<(), Errno> {
    rustix::fs::futimens(file, &timestamps(mtime))
}

/// Sets the times of an entry itself to `mtime`, in nanoseconds.
pub(crate) fn set_times(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
    mtime: i64,
) -> Result<(), Errno> {
    rustix::fs::utimensat(
        directory,
        name,
        &timestamps(mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// Reads where a symbolic link points.
pub(crate) fn read_symlink(
    directory: impl AsFd,
    name: impl rustix::path::Arg,
) -> Result<Vec<u8>, Errno> {
    Ok(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes())
}

/// Reads at an offset; fewer bytes than asked for only at the end of the file.
pub(crate) fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(&file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all bytes at an offset.
pub(crate) fn write_at(file: impl AsFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sets the length of a file; what is added is a hole.
pub(crate) fn set_length(file: impl AsFd, length: u64) -> Result<(), Errno> {
    rustix::fs::ftruncate(file, length)
}

/// The next stretch of data at or after `from`: its start and end. `None` when only a hole is left.
pub(crate) fn next_data(file: impl AsFd, from: u64) -> Result<Option<(u64, u64)>, Errno> {
    let start = match rustix::fs::seek(&file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error),
    };
    let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
    Ok(Some((start, end)))
}

/// The names of one directory, sorted by their bytes, in one block of memory.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    ends: Vec<(u32, u32)>,
}

impl Names {
    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no name.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A name, without its terminating zero.
    pub(crate) fn get(&self, position: usize) -> Option<&[u8]> {
        let (start, end) = *self.ends.get(position)?;
        self.bytes.get(start as usize..end as usize)
    }

    /// Whether a name is among them.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        let place = self
            .ends
            .binary_search_by(|&(start, end)| self.bytes[start as usize..end as usize].cmp(name));
        place.is_ok()
    }

    fn push(&mut self, name: &[u8]) -> Result<(), Errno> {
        let start = u32::try_from(self.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
        let end = u32::try_from(self.bytes.len() + name.len()).map_err(|_| Errno::OVERFLOW)?;
        self.bytes.extend_from_slice(name);
        self.ends.push((start, end));
        Ok(())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.ends.sort_unstable_by(|a, b| {
            bytes[a.0 as usize..a.1 as usize].cmp(&bytes[b.0 as usize..b.1 as usize])
        });
        self.ends.dedup_by(|a, b| {
            bytes[a.0 as usize..a.1 as usize] == bytes[b.0 as usize..b.1 as usize]
        });
    }
}

/// Lists directories into a buffer that is used again and again.
#[derive(Debug)]
pub(crate) struct Lister {
    buffer: Vec<u8>,
}

impl Default for Lister {
    fn default() -> Self {
        Self {
            buffer: Vec::with_capacity(LISTING_BUFFER_BYTES),
        }
    }
}

impl Lister {
    /// All names of an open directory but `.` and `..`, sorted.
    pub(crate) fn list(&mut self, directory: BorrowedFd<'_>) -> Result<Names, Errno> {
        // Whoever listed it before left the read position at the end.
        rustix::fs::seek(directory, SeekFrom::Start(0))?;
        let mut names = Names::default();
        let mut listing = RawDir::new(directory, self.buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name)?;
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Extended attributes that were read: names and values.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads all extended attributes of an open file, unsorted. `scratch` is reused between calls.
pub(crate) fn attributes_of(file: impl AsFd, scratch: &mut Vec<u8>) -> Result<Attributes, Errno> {
    let length = fill(scratch, |buffer| rustix::fs::flistxattr(&file, buffer))?;
    read_values(&scratch[..length], |name, value| {
        fill(value, |buffer| rustix::fs::fgetxattr(&file, name, buffer))
    })
}

/// Reads all extended attributes of an entry that cannot be opened (links, pipes, devices), through
/// the process's own descriptor directory. Without `/proc` there are none to see.
pub(crate) fn attributes_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<Attributes, Errno> {
    let path = descriptor_path(directory, name);
    let length = match fill(scratch, |buffer| {
        rustix::fs::llistxattr(path.as_slice(), buffer)
    }) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other?,
    };
    read_values(&scratch[..length], |name, value| {
        fill(value, |buffer| {
            rustix::fs::lgetxattr(path.as_slice(), name, buffer)
        })
    })
}

fn descriptor_path(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    use std::os::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Calls a size-or-fill system call until the buffer is large enough; no attributes at all where
/// the file system has none.
fn fill(
    buffer: &mut Vec<u8>,
    mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    if buffer.len() < 256 {
        buffer.resize(256, 0);
    }
    loop {
        match call(buffer.as_mut_slice()) {
            // More than the system's own largest list or value cannot be asked for.
            Err(Errno::RANGE) if buffer.len() < 64 * 1024 => buffer.resize(64 * 1024, 0),
            Err(Errno::OPNOTSUPP | Errno::NODATA) => return Ok(0),
            other => return other,
        }
    }
}

fn read_values(
    names: &[u8],
    mut read: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Attributes, Errno> {
    let mut attributes = Vec::new();
    for name in names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = Vec::new();
        let length = read(name, &mut value)?;
        value.truncate(length);
        attributes.push((name.to_vec(), value));
    }
    Ok(attributes)
}

/// Sets an extended attribute of an open file.
pub(crate) fn set_attribute_of(file: impl AsFd, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    rustix::fs::fsetxattr(file, name, value, rustix::fs::XattrFlags::empty())
}

/// Sets an extended attribute of an entry itself, not of what it points to.
pub(crate) fn set_attribute_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    attribute: &[u8],
    value: &[u8],
) -> Result<(), Errno> {
    let path = descriptor_path(directory, name);
    rustix::fs::lsetxattr(
        path.as_slice(),
        attribute,
        value,
        rustix::fs::XattrFlags::empty(),
    )
}

/// Removes an extended attribute of an open file, if it is there.
pub(crate) fn remove_attribute_of(file: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::fremovexattr(file, name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Whether this process may give files away: only then is ownership restored.
pub(crate) fn is_superuser() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes everything written to the file system of `directory` durable.
pub(crate) fn sync_file_system(directory: impl AsFd) -> Result<(), Errno> {
    rustix::fs::syncfs(directory)
}
