//! The walk of a backup: one directory inside another, on a stack of its own, with few open
//! descriptors however deep the tree is.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use candor_wire::Nanos;
use rustix::io::Errno;

use super::content::{Buffers, FileError, FileStore, Stored, sorted_attributes};
use super::{BackupError, BackupStats};
use crate::index::Index;
use crate::name::Name;
use crate::node::{self, DEPTH_MAX, Entry, Kind, LinkGroup, Metadata, Xattr};
use crate::report::{Cancel, ProblemKind, Problems, Progress};
use crate::rules::{IGNORE_FILE_MAX_BYTES, IGNORE_FILE_NAME, Matcher};
use crate::stat_cache::{DirectoryCache, StatCache, Unchanged};
use crate::sys::{self, Attributes, FileKind, Names, Status};
use crate::tree::DirectoryBuilder;
use crate::writer::Writer;

/// Most directories that are open at once. Those above are opened again through `..` and compared
/// with what they were, so a deep tree does not use up the process's descriptors.
const OPEN_DIRECTORIES_MAX: usize = 128;

/// Separates the numbers that name a hard link group from every other use of the hash.
const LINK_GROUP_DOMAIN: &[u8] = b"candor/1/hard-link-group";

/// One run over all sources.
pub(super) struct Run<'a> {
    pub(super) writer: Writer,
    pub(super) cache: StatCache,
    pub(super) index: &'a Index,
    pub(super) matcher: Matcher,
    pub(super) one_file_system: bool,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a Cancel,
    pub(super) problems: Problems,
    pub(super) stats: BackupStats,
    /// Times at or after this are too fresh to be believed next time, in nanoseconds.
    pub(super) fresh_after: i64,
    pub(super) lister: sys::Lister,
    pub(super) buffers: Buffers,
}

/// A directory that the walk is inside of.
struct Level {
    directory: Option<OwnedFd>,
    status: Status,
    name: Name,
    xattrs: Vec<Xattr>,
    names: Names,
    position: usize,
    builder: DirectoryBuilder,
    cache: DirectoryCache,
}

impl Run<'_> {
    /// Stores one source and returns its encoded entry; `None` when it could not be read at all.
    pub(super) fn store_source(
        &mut self,
        parent: OwnedFd,
        own_name: &OsStr,
        name: &Name,
        path: &Path,
    ) -> Result<Option<Vec<u8>>, BackupError> {
        let status = match sys::status(&parent, own_name) {
            Ok(status) => status,
            Err(errno) => {
                self.report_errno(path, errno);
                return Ok(None);
            }
        };
        if status.kind == FileKind::Directory {
            return self.walk(&parent, own_name, name, status, path);
        }
        let entry = self.make_entry(parent.as_fd(), own_name.as_bytes(), name, &status, path)?;
        self.progress.advance(1, 0);
        Ok(entry.map(|(entry, _)| {
            let mut out = Vec::new();
            node::encode_entry(&entry, &mut out);
            out
        }))
    }

    fn report_errno(&mut self, path: &Path, errno: Errno) {
        let kind = match errno {
            Errno::NOENT => ProblemKind::Vanished,
            errno => ProblemKind::Unreadable(errno),
        };
        self.problems.add(path, kind);
    }

    fn walk(
        &mut self,
        parent: &OwnedFd,
        own_name: &OsStr,
        name: &Name,
        status: Status,
        path: &Path,
    ) -> Result<Option<Vec<u8>>, BackupError> {
        let mut path = path.to_path_buf();
        let device = status.device;
        let mut stack = Vec::new();
        match self.open_level(parent.as_fd(), own_name.as_bytes(), name.clone(), &path, 0)? {
            Some(level) => stack.push(level),
            None => return Ok(None),
        }
        loop {
            if self.cancel.is_cancelled() {
                return Err(BackupError::Cancelled);
            }
            let depth = stack.len();
            let Some(level) = stack.last_mut() else {
                return Ok(None);
            };
            if level.position < level.names.len() {
                level.position += 1;
                if let Some(child) = self.step(level, &mut path, device, depth)? {
                    if depth >= OPEN_DIRECTORIES_MAX {
                        stack[depth - OPEN_DIRECTORIES_MAX].directory = None;
                    }
                    stack.push(child);
                }
                continue;
            }
            let Some(done) = stack.pop() else {
                return Ok(None);
            };
            self.matcher.leave(depth - 1);
            if let Some(above) = stack.last_mut() {
                reopen(above, &done).unwrap_or_else(|errno| {
                    // The directory above was moved away meanwhile; the rest of it cannot be reached.
                    self.problems.add(&path, ProblemKind::Unreadable(errno));
                    above.position = above.names.len();
                });
                let name = done.name.clone();
                self.close_level(done)?;
                above
                    .builder
                    .push(name.as_bytes(), &self.buffers.entry, &mut self.writer)?;
                path.pop();
            } else {
                self.close_level(done)?;
                return Ok(Some(self.buffers.entry.clone()));
            }
        }
    }

    /// Handles the entry before `level.position`; a directory to go into is returned.
    fn step(
        &mut self,
        level: &mut Level,
        path: &mut PathBuf,
        source_device: u64,
        depth: usize,
    ) -> Result<Option<Level>, BackupError> {
        let (Some(name), Some(directory)) = (level.names.get(level.position - 1), &level.directory)
        else {
            return Ok(None);
        };
        let status = match sys::status(directory, name) {
            Ok(status) => status,
            Err(errno) => {
                let path = path.join(OsStr::from_bytes(name));
                self.report_errno(&path, errno);
                return Ok(None);
            }
        };
        let is_directory = status.kind == FileKind::Directory;
        if self.matcher.is_never(&status) || self.matcher.excludes(path, name, is_directory) {
            return Ok(None);
        }
        let unchanged = level.cache.lookup(&mut self.cache, name, &status)?;
        if is_directory {
            let checked = match Name::new(name) {
                Ok(checked) => checked,
                Err(reason) => {
                    self.problems.add(
                        &path.join(OsStr::from_bytes(name)),
                        ProblemKind::BadName(reason),
                    );
                    return Ok(None);
                }
            };
            path.push(OsStr::from_bytes(name));
            // The top of the snapshot is one level more than the walk has.
            let child = if depth + 1 >= DEPTH_MAX {
                self.problems.add(path, ProblemKind::TooDeep);
                None
            } else {
                self.open_level(directory.as_fd(), name, checked, path, depth)?
            };
            let Some(mut child) = child else {
                path.pop();
                return Ok(None);
            };
            if self.one_file_system && status.device != source_device {
                child.position = child.names.len();
            }
            level.cache.record_directory(&mut self.cache, name)?;
            return Ok(Some(child));
        }
        if let Some(unchanged) = unchanged
            && (unchanged.trusted || self.is_stored(level.cache.entry(unchanged))?)
        {
            return self.keep(level, &status, unchanged).map(|()| None);
        }
        self.store_new(level, &status, path).map(|()| None)
    }

    /// Takes over the entry of an unchanged file.
    fn keep(
        &mut self,
        level: &mut Level,
        status: &Status,
        unchanged: Unchanged,
    ) -> Result<(), BackupError> {
        let Some(name) = level.names.get(level.position - 1) else {
            return Ok(());
        };
        level
            .builder
            .push(name, level.cache.entry(unchanged), &mut self.writer)?;
        level
            .cache
            .record_again(&mut self.cache, name, status, unchanged)?;
        self.stats.files += 1;
        self.stats.unchanged += 1;
        let bytes = if status.kind == FileKind::File {
            status.size
        } else {
            0
        };
        self.stats.bytes_total += bytes;
        self.progress.advance(1, bytes);
        Ok(())
    }

    fn store_new(
        &mut self,
        level: &mut Level,
        status: &Status,
        path: &mut PathBuf,
    ) -> Result<(), BackupError> {
        let (Some(name), Some(directory)) = (level.names.get(level.position - 1), &level.directory)
        else {
            return Ok(());
        };
        path.push(OsStr::from_bytes(name));
        let made = match Name::new(name) {
            Ok(checked) => self.make_entry(directory.as_fd(), name, &checked, status, path),
            Err(reason) => {
                self.problems.add(path, ProblemKind::BadName(reason));
                Ok(None)
            }
        };
        path.pop();
        self.progress.advance(1, 0);
        let Some((entry, after)) = made? else {
            return Ok(());
        };
        self.buffers.entry.clear();
        node::encode_entry(&entry, &mut self.buffers.entry);
        level
            .builder
            .push(name, &self.buffers.entry, &mut self.writer)?;
        if let Some(after) = after
            && after.mtime.max(after.ctime) < self.fresh_after
        {
            level
                .cache
                .record(&mut self.cache, name, &after, &self.buffers.entry)?;
        }
        Ok(())
    }

    /// Whether every chunk of a recorded entry is stored. Long lists are not looked into: such a
    /// file is read again.
    fn is_stored(&self, encoded: &[u8]) -> Result<bool, BackupError> {
        let Ok(entry) = node::decode_entry(encoded) else {
            return Ok(false);
        };
        let Kind::File { content, .. } = &entry.kind else {
            return Ok(true);
        };
        if content.levels > 0 {
            return Ok(false);
        }
        for reference in &content.list {
            if !self
                .index
                .contains(&reference.id)
                .map_err(BackupError::Index)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the entry of anything but a directory, storing its content. The second value is the
    /// state that may be recorded; `None` when it must not be believed next time.
    fn make_entry(
        &mut self,
        directory: std::os::fd::BorrowedFd<'_>,
        own_name: &[u8],
        name: &Name,
        status: &Status,
        path: &Path,
    ) -> Result<Option<(Entry, Option<Status>)>, BackupError> {
        let link = (status.links > 1).then(|| link_group(status));
        if link.is_some()
            && let Some(encoded) = self.cache.linked(status)?
            && let Ok(mut entry) = node::decode_entry(&encoded)
        {
            entry.name = name.clone();
            self.count(&entry);
            return Ok(Some((entry, Some(*status))));
        }
        let made = match status.kind {
            FileKind::File => self.store_file(directory, own_name, status).map(|stored| {
                if stored.attributes_lost {
                    self.problems.add(path, ProblemKind::AttributesLeftOut);
                }
                if stored.changed {
                    self.problems.add(path, ProblemKind::Changed);
                }
                let believed =
                    (!stored.changed && !stored.attributes_lost).then_some(stored.status);
                (stored.kind, stored.xattrs, stored.status, believed)
            }),
            _ => self
                .special(directory, own_name, status)
                .map(|(kind, xattrs)| (kind, xattrs, *status, Some(*status))),
        };
        let (kind, xattrs, status, believed) = match made {
            Ok(made) => made,
            Err(FileError::Problem(kind)) => {
                self.problems.add(path, kind);
                return Ok(None);
            }
            Err(FileError::Fatal(error)) => return Err(error),
        };
        let entry = Entry {
            name: name.clone(),
            metadata: self.metadata(&status, xattrs, path),
            link,
            kind,
        };
        if link.is_some() && believed.is_some() {
            let mut encoded = Vec::new();
            node::encode_entry(&entry, &mut encoded);
            self.cache.remember_link(&status, &encoded)?;
        }
        self.count(&entry);
        Ok(Some((entry, believed)))
    }

    fn store_file(
        &mut self,
        directory: std::os::fd::BorrowedFd<'_>,
        name: &[u8],
        listed: &Status,
    ) -> Result<Stored, FileError> {
        let mut store = FileStore {
            writer: &mut self.writer,
            buffers: &mut self.buffers,
            progress: self.progress,
            cancel: self.cancel,
            bytes_read: 0,
        };
        let stored = store.store_file(directory, name, listed);
        self.stats.bytes_read += store.bytes_read;
        stored
    }

    fn count(&mut self, entry: &Entry) {
        self.stats.files += 1;
        if let Kind::File { size, .. } = entry.kind {
            self.stats.bytes_total += size;
        }
    }

    fn special(
        &mut self,
        directory: std::os::fd::BorrowedFd<'_>,
        name: &[u8],
        status: &Status,
    ) -> Result<(Kind, Attributes), FileError> {
        let (major, minor) = (status.device_major, status.device_minor);
        let kind = match status.kind {
            FileKind::Symlink => {
                let target = sys::read_symlink(directory, name)?;
                if target.is_empty() || target.len() > node::SYMLINK_MAX_BYTES {
                    return Err(FileError::Problem(ProblemKind::Unreadable(
                        Errno::NAMETOOLONG,
                    )));
                }
                Kind::Symlink { target }
            }
            FileKind::Fifo => Kind::Fifo,
            FileKind::Socket => Kind::Socket,
            FileKind::CharacterDevice => Kind::CharacterDevice { major, minor },
            FileKind::BlockDevice => Kind::BlockDevice { major, minor },
            FileKind::File | FileKind::Directory => {
                return Err(FileError::Problem(ProblemKind::Changed));
            }
        };
        let xattrs = sys::attributes_at(directory, name, &mut self.buffers.attributes)?;
        Ok((kind, xattrs))
    }

    fn metadata(&mut self, status: &Status, xattrs: Attributes, path: &Path) -> Metadata {
        let xattrs = sorted_attributes(xattrs).unwrap_or_else(|| {
            self.problems.add(path, ProblemKind::AttributesLeftOut);
            Vec::new()
        });
        Metadata {
            mode: status.mode,
            uid: status.uid,
            gid: status.gid,
            mtime: Nanos(status.mtime),
            xattrs,
        }
    }

    /// Opens and lists a directory; `None` after reporting that it could not be read.
    fn open_level(
        &mut self,
        parent: std::os::fd::BorrowedFd<'_>,
        own_name: &[u8],
        name: Name,
        path: &Path,
        depth: usize,
    ) -> Result<Option<Level>, BackupError> {
        let opened = sys::open_directory(parent, own_name).and_then(|directory| {
            let status = sys::status_of(&directory)?;
            let names = self.lister.list(directory.as_fd())?;
            Ok((directory, status, names))
        });
        let (directory, status, names) = match opened {
            Ok(opened) => opened,
            Err(errno) => {
                self.report_errno(path, errno);
                return Ok(None);
            }
        };
        let xattrs = match sys::attributes_of(&directory, &mut self.buffers.attributes) {
            Ok(found) => sorted_attributes(found),
            Err(_) => None,
        };
        if xattrs.is_none() {
            self.problems.add(path, ProblemKind::AttributesLeftOut);
        }
        if names.contains(IGNORE_FILE_NAME.as_bytes()) {
            self.read_rules(&directory, path, depth);
        }
        self.stats.directories += 1;
        let cache = DirectoryCache::open(&self.cache, path.as_os_str().as_bytes())?;
        Ok(Some(Level {
            directory: Some(directory),
            status,
            name,
            xattrs: xattrs.unwrap_or_default(),
            names,
            position: 0,
            builder: DirectoryBuilder::default(),
            cache,
        }))
    }

    fn read_rules(&mut self, directory: &OwnedFd, path: &Path, depth: usize) {
        let mut text = vec![0; IGNORE_FILE_MAX_BYTES + 1];
        let length = sys::open_file(directory, IGNORE_FILE_NAME).and_then(|file| {
            match sys::status_of(&file)?.kind {
                FileKind::File => sys::read_at(&file, &mut text, 0),
                _ => Ok(0),
            }
        });
        let file = path.join(IGNORE_FILE_NAME);
        match length {
            Ok(length) if length <= IGNORE_FILE_MAX_BYTES => {
                let lines = self.matcher.enter(depth, path, &text[..length]);
                if lines > 0 {
                    self.problems.add(&file, ProblemKind::Rules { lines });
                }
            }
            Ok(_) => self
                .problems
                .add(&file, ProblemKind::Unreadable(Errno::FBIG)),
            Err(errno) => self.report_errno(&file, errno),
        }
    }

    /// Finishes a directory and leaves its encoded entry in the entry buffer.
    fn close_level(&mut self, level: Level) -> Result<(), BackupError> {
        let parts = level.builder.finish(&mut self.writer)?;
        level.cache.finish(&mut self.cache)?;
        let status = level.status;
        let metadata = Metadata {
            mode: status.mode,
            uid: status.uid,
            gid: status.gid,
            mtime: Nanos(status.mtime),
            xattrs: level.xattrs,
        };
        let entry = Entry {
            name: level.name,
            metadata,
            link: None,
            kind: Kind::Directory { parts },
        };
        self.buffers.entry.clear();
        node::encode_entry(&entry, &mut self.buffers.entry);
        Ok(())
    }
}

/// Opens the directory above again if its descriptor was given back, and makes sure that it is the same one.
fn reopen(above: &mut Level, below: &Level) -> Result<(), Errno> {
    if above.directory.is_some() {
        return Ok(());
    }
    let directory = sys::open_directory(below.directory.as_ref().ok_or(Errno::STALE)?, c"..")?;
    let status = sys::status_of(&directory)?;
    if (status.device, status.inode) != (above.status.device, above.status.inode) {
        return Err(Errno::STALE);
    }
    above.directory = Some(directory);
    Ok(())
}

/// Names the group of a file with several names: the same for all of them and, while the file
/// lives, in every snapshot, so that unchanged directories keep their nodes.
fn link_group(status: &Status) -> LinkGroup {
    let mut hasher = blake3::Hasher::new();
    hasher.update(LINK_GROUP_DOMAIN);
    hasher.update(&status.device.to_be_bytes());
    hasher.update(&status.inode.to_be_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    LinkGroup(out)
}
