//! Reads one regular file: its data without its holes, its attributes, and whether it held still.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::BackupError;
use crate::chunk::CHUNK_MIN_BYTES;
use crate::node::{EXTENTS_MAX, Extent, Kind, Reference, XATTR_VALUE_MAX_BYTES, XATTRS_MAX, Xattr};
use crate::pack::Stream;
use crate::report::{Cancel, ProblemKind, Progress};
use crate::sys::{self, Attributes, FileKind, Status};
use crate::tree::ReferenceBuilder;
use crate::writer::{WriteError, Writer};

/// Bytes of a file that are cut in one go: bounds the list of chunks that the writer returns. One
/// extra cut in a gibibyte costs nothing, and cutting finds its old places again after it.
const WINDOW_BYTES: u64 = 1 << 30;

/// How often a file is read before it is reported as changing.
const ATTEMPTS: u32 = 2;

/// Most bytes of extended attributes that are kept in one entry, names and values: twice the most
/// that ext4 holds for a file, and safely below the limit of an entry.
const XATTRS_TOTAL_BYTES: usize = 512 * 1024;

/// Buffers that are used for file after file.
#[derive(Debug)]
pub(crate) struct Buffers {
    small: Vec<u8>,
    pub(crate) attributes: Vec<u8>,
    pub(crate) entry: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        // One byte more than the largest small file shows that a file has grown.
        Self {
            small: vec![0; CHUNK_MIN_BYTES + 1],
            attributes: Vec::new(),
            entry: Vec::new(),
        }
    }
}

/// A file that was stored.
pub(crate) struct Stored {
    pub(crate) kind: Kind,
    pub(crate) xattrs: Attributes,
    pub(crate) status: Status,
    pub(crate) changed: bool,
    pub(crate) attributes_lost: bool,
}

/// Why a file was not stored.
pub(crate) enum FileError {
    /// The file alone has a problem; the run goes on.
    Problem(ProblemKind),
    /// The run cannot go on.
    Fatal(BackupError),
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        Self::Problem(match errno {
            Errno::NOENT => ProblemKind::Vanished,
            errno => ProblemKind::Unreadable(errno),
        })
    }
}

impl From<WriteError> for FileError {
    fn from(error: WriteError) -> Self {
        match &error {
            WriteError::Read(cause) => {
                let errno = Errno::from_io_error(cause).unwrap_or(Errno::IO);
                Self::Problem(ProblemKind::Unreadable(errno))
            }
            _ => Self::Fatal(BackupError::Write(error)),
        }
    }
}

/// Reads files and stores what is in them.
pub(crate) struct FileStore<'a> {
    pub(crate) writer: &'a mut Writer,
    pub(crate) buffers: &'a mut Buffers,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) cancel: &'a Cancel,
    /// Bytes of content that were read.
    pub(crate) bytes_read: u64,
}

impl FileStore<'_> {
    /// Stores a regular file. It is read again when it changed meanwhile; when it keeps changing,
    /// what was read last is kept and reported.
    pub(crate) fn store_file(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        listed: &Status,
    ) -> Result<Stored, FileError> {
        let mut before = *listed;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let file = sys::open_file(directory, name)?;
            if attempt > 1 {
                before = sys::status_of(&file)?;
                if before.kind != FileKind::File {
                    return Err(FileError::Problem(ProblemKind::Changed));
                }
            }
            let (kind, whole) = self.store_content(&file, &before)?;
            let (xattrs, attributes_lost) =
                match sys::attributes_of(&file, &mut self.buffers.attributes) {
                    Ok(xattrs) => (xattrs, false),
                    Err(_) => (Vec::new(), true),
                };
            let after = sys::status_of(&file)?;
            let still = whole && is_same(&before, &after);
            if still || attempt == ATTEMPTS {
                return Ok(Stored {
                    kind,
                    xattrs,
                    status: after,
                    changed: !still,
                    attributes_lost,
                });
            }
        }
    }

    /// Stores the data of an open file; also says whether it was as long as its state promised.
    fn store_content(
        &mut self,
        file: &OwnedFd,
        status: &Status,
    ) -> Result<(Kind, bool), FileError> {
        let sparse = status.blocks.saturating_mul(512) < status.size;
        if !sparse && status.size <= CHUNK_MIN_BYTES as u64 {
            return self.store_small(file, status.size);
        }
        let stretches = if sparse {
            find_data(file.as_fd(), status.size)?
        } else {
            None
        };
        let open_ended = stretches.is_none();
        let list = stretches.unwrap_or_else(|| vec![(0, u64::MAX)]);
        let mut reader = DataReader {
            file: file.as_fd(),
            list: &list,
            at: 0,
            position: 0,
            done: Vec::new(),
        };
        let mut references = ReferenceBuilder::default();
        loop {
            let cancel = self.cancel;
            let progress = self.progress;
            let mut observer = |bytes| {
                progress.advance(0, bytes);
                !cancel.is_cancelled()
            };
            let content = self
                .writer
                .content(&mut (&mut reader).take(WINDOW_BYTES), &mut observer);
            if cancel.is_cancelled() {
                return Err(FileError::Fatal(BackupError::Cancelled));
            }
            let content = content?;
            for (id, length) in content.chunks {
                references
                    .push(Reference { id, length }, self.writer)
                    .map_err(FileError::from)?;
            }
            self.bytes_read += content.bytes;
            if content.bytes < WINDOW_BYTES {
                break;
            }
        }
        let found = reader.done;
        let content = references.finish(self.writer).map_err(FileError::from)?;
        Ok(describe(content, &found, &list, open_ended, status.size))
    }

    fn store_small(&mut self, file: &OwnedFd, size: u64) -> Result<(Kind, bool), FileError> {
        let wanted = usize::try_from(size).unwrap_or(CHUNK_MIN_BYTES) + 1;
        let length = sys::read_at(file, &mut self.buffers.small[..wanted], 0)?;
        let data = &self.buffers.small[..length];
        let mut references = ReferenceBuilder::default();
        if !data.is_empty() {
            let id = self
                .writer
                .chunk(Stream::Data, data)
                .map_err(FileError::from)?;
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            references
                .push(Reference { id, length }, self.writer)
                .map_err(FileError::from)?;
        }
        let content = references.finish(self.writer).map_err(FileError::from)?;
        self.bytes_read += length as u64;
        self.progress.advance(0, length as u64);
        let kind = Kind::File {
            size: length as u64,
            content,
            extents: None,
        };
        Ok((kind, length as u64 == size))
    }
}

/// Whether two states are of one file that held still.
fn is_same(before: &Status, after: &Status) -> bool {
    let key = |s: &Status| (s.kind, s.size, s.mtime, s.ctime, s.inode, s.device);
    key(before) == key(after)
}

/// The stretches of data of a sparse file, or `None` when it has no hole after all. Beyond the
/// limit the rest is one stretch, its holes read as zeros.
fn find_data(file: BorrowedFd<'_>, size: u64) -> Result<Option<Vec<(u64, u64)>>, FileError> {
    let mut list: Vec<(u64, u64)> = Vec::new();
    let mut position = 0;
    while position < size {
        let Some((start, end)) = sys::next_data(file, position)? else {
            break;
        };
        let end = if list.len() + 1 == EXTENTS_MAX {
            size
        } else {
            end.min(size)
        };
        if start >= end {
            break;
        }
        list.push((start, end));
        position = end;
    }
    Ok((list.as_slice() != [(0, size)]).then_some(list))
}

/// Puts together what was really read. A file that shrank loses what is not there any more.
fn describe(
    content: crate::node::References,
    found: &[u64],
    list: &[(u64, u64)],
    open_ended: bool,
    size: u64,
) -> (Kind, bool) {
    if open_ended {
        let length = found.first().copied().unwrap_or(0);
        return (
            Kind::File {
                size: length,
                content,
                extents: None,
            },
            length == size,
        );
    }
    let mut extents = Vec::with_capacity(found.len());
    let mut end = 0;
    for (&(start, _), &length) in list.iter().zip(found).filter(|(_, length)| **length > 0) {
        extents.push(Extent {
            gap: start - end,
            length,
        });
        end = start + length;
    }
    let whole = found.len() == list.len()
        && list
            .iter()
            .zip(found)
            .all(|(&(from, to), &n)| to - from == n);
    let size = if whole { size } else { end };
    let data: u64 = extents.iter().map(|extent| extent.length).sum();
    let extents = (data != size).then_some(extents);
    (
        Kind::File {
            size,
            content,
            extents,
        },
        whole,
    )
}

/// Reads the data of a file without its holes, and notes how much each stretch really gave.
struct DataReader<'a> {
    file: BorrowedFd<'a>,
    list: &'a [(u64, u64)],
    at: usize,
    position: u64,
    done: Vec<u64>,
}

impl Read for DataReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(&(start, end)) = self.list.get(self.at) {
            if self.done.len() == self.at {
                self.done.push(0);
                self.position = start;
            }
            let left = end - self.position;
            if left == 0 {
                self.at += 1;
                continue;
            }
            let wanted = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = rustix::io::pread(self.file, &mut buffer[..wanted], self.position)?;
            if count == 0 {
                // The file ends here; stretches behind cannot give anything either.
                self.at = self.list.len();
                return Ok(0);
            }
            self.position += count as u64;
            self.done[self.at] += count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

/// Sorts attributes for an entry; `None` when there is more than an entry may hold.
pub(crate) fn sorted_attributes(attributes: Attributes) -> Option<Vec<Xattr>> {
    let total: usize = attributes
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let fits = attributes.len() <= XATTRS_MAX
        && total <= XATTRS_TOTAL_BYTES
        && attributes.iter().all(|(name, value)| {
            name.len() <= crate::name::NAME_MAX_BYTES && value.len() <= XATTR_VALUE_MAX_BYTES
        });
    if !fits {
        return None;
    }
    let mut list: Vec<Xattr> = attributes
        .into_iter()
        .map(|(name, value)| Xattr { name, value })
        .collect();
    list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    list.dedup_by(|a, b| a.name == b.name);
    Some(list)
}
