//! Fills the temporary file of a file that is put: from a download that was interrupted, from what the file held
//! before, and from the vault, in this order. Every chunk is checked against its name, wherever it came from.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use super::super::SyncError;
use super::super::folder::Trouble;
use super::super::record::{SYNCED_MODE, content_key};
use super::{DiskFolder, unwritable};
use crate::chunk::ChunkId;
use crate::node::{Entry, Extent, Kind, Metadata};
use crate::report::ProblemKind;
use crate::sys;
use crate::tree::{ChunkSource, ReferenceReader, TreeError};

/// Content shorter than this is fetched again rather than looked for: looking costs as much.
const REUSE_MIN_BYTES: u64 = 1024 * 1024;

/// An open file, and where in it which chunk lies.
type KnownChunks = (OwnedFd, HashMap<ChunkId, u64>);

impl DiskFolder<'_> {
    /// Makes the temporary file of `entry`, whole. `old` is what is in its place now.
    pub(super) fn fill(
        &mut self,
        directory: &OwnedFd,
        entry: &Entry,
        old: Option<&Entry>,
        source: &mut dyn ChunkSource,
    ) -> Result<(String, OwnedFd), Trouble> {
        let Kind::File {
            size,
            content,
            extents,
        } = &entry.kind
        else {
            return Err(Trouble::Refused(ProblemKind::Damaged));
        };
        let is_long = *size >= REUSE_MIN_BYTES;
        let (temporary, file, is_resumed) = self.open_part(entry, is_long)?;
        let known = if is_long {
            self.known_chunks(directory, old, source)?
        } else {
            None
        };
        let mut places = Places::new(extents.as_deref());
        let mut references = ReferenceReader::new(content.clone());
        let mut buffer = Vec::new();
        loop {
            if self.cancel.is_cancelled() {
                return Err(SyncError::Cancelled.into());
            }
            let Some(reference) = references.next(source).map_err(SyncError::from)? else {
                break;
            };
            let length = reference.length as usize;
            let start = places.position();
            if is_resumed && places.is_whole(reference.length) {
                buffer.resize(length, 0);
                let read = sys::read_at(&file, &mut buffer, start).map_err(unwritable)?;
                if read == length && ChunkId::of(&self.keys, &buffer) == reference.id {
                    places.write(&buffer, *size, |_, _| Ok(()))?;
                    continue;
                }
            }
            if let Some((old_file, at)) = known
                .as_ref()
                .and_then(|(file, chunks)| Some((file, *chunks.get(&reference.id)?)))
            {
                buffer.resize(length, 0);
                let read = sys::read_at(old_file, &mut buffer, at).map_err(unwritable)?;
                if read == length && ChunkId::of(&self.keys, &buffer) == reference.id {
                    places.write(&buffer, *size, |bytes, at| sys::write_at(&file, bytes, at))?;
                    continue;
                }
            }
            let bytes = source
                .fetch(reference.id)
                .map_err(|error| SyncError::from(TreeError::Read(error)))?;
            if bytes.len() != length {
                return Err(SyncError::from(TreeError::Length {
                    chunk: reference.id,
                })
                .into());
            }
            places.write(&bytes, *size, |bytes, at| sys::write_at(&file, bytes, at))?;
        }
        if extents.is_none() && places.position() != *size {
            return Err(Trouble::Refused(ProblemKind::Damaged));
        }
        sys::set_length(&file, *size).map_err(unwritable)?;
        Ok((temporary, file))
    }

    /// The temporary file: for long content one that an interrupted download goes on with.
    fn open_part(
        &mut self,
        entry: &Entry,
        is_long: bool,
    ) -> Result<(String, OwnedFd, bool), Trouble> {
        if is_long && let Some(key) = content_key(entry) {
            let name = format!("{}{}", candor_wire::ids::to_hex(&key[..16]), super::PART);
            if let Ok(file) = sys::reopen_file_beneath(&self.own, name.as_str())
                && sys::status_of(&file).is_ok_and(|status| status.links == 1)
            {
                return Ok((name, file, true));
            }
            // One that was closed for writing already, is no file at all, or has its own name by now.
            self.drop_temporary(&name);
            let file = sys::create_file(&self.own, name.as_str()).map_err(unwritable)?;
            return Ok((name, file, false));
        }
        let name = self.temporary();
        let file = sys::create_file(&self.own, name.as_str()).map_err(unwritable)?;
        Ok((name, file, false))
    }

    /// The file that is in the place now, and where in it which chunk lies.
    fn known_chunks(
        &mut self,
        directory: &OwnedFd,
        old: Option<&Entry>,
        source: &mut dyn ChunkSource,
    ) -> Result<Option<KnownChunks>, Trouble> {
        let Some(old) = old else { return Ok(None) };
        let Kind::File {
            content,
            extents: None,
            ..
        } = &old.kind
        else {
            return Ok(None);
        };
        let Ok(file) = sys::open_file_beneath(directory, old.name.as_bytes()) else {
            return Ok(None);
        };
        let mut chunks = HashMap::new();
        let mut at = 0;
        let mut references = ReferenceReader::new(content.clone());
        loop {
            let reference = match references.next(source) {
                Ok(Some(reference)) => reference,
                Ok(None) => break,
                // Somebody let go of that version: everything is fetched.
                Err(_) => return Ok(None),
            };
            chunks.insert(reference.id, at);
            at += u64::from(reference.length);
        }
        Ok(Some((file, chunks)))
    }

    /// Gives a file its mode, attributes and time, the time last.
    pub(super) fn dress(&mut self, file: &OwnedFd, metadata: &Metadata) -> Result<(), Trouble> {
        for xattr in &metadata.xattrs {
            if xattr.name.starts_with(super::SYNCED_ATTRIBUTES) {
                // A file system that has none keeps the content all the same.
                let _ = sys::set_attribute_of(file, &xattr.name, &xattr.value);
            }
        }
        sys::set_mode(file, metadata.mode & SYNCED_MODE).map_err(unwritable)?;
        sys::set_times_of(file, metadata.mtime.0).map_err(unwritable)
    }
}

/// Where the bytes of the content go, holes left out.
struct Places<'a> {
    extents: Option<&'a [Extent]>,
    at: u64,
    left: u64,
}

impl<'a> Places<'a> {
    fn new(extents: Option<&'a [Extent]>) -> Self {
        let mut this = Self {
            extents,
            at: 0,
            left: u64::MAX,
        };
        if extents.is_some() {
            this.left = 0;
            this.next_extent();
        }
        this
    }

    fn next_extent(&mut self) {
        if let Some((first, rest)) = self.extents.and_then(<[Extent]>::split_first) {
            self.extents = Some(rest);
            self.at = self.at.saturating_add(first.gap);
            self.left = first.length;
        }
    }

    const fn position(&self) -> u64 {
        self.at
    }

    /// Whether so many bytes follow without a hole.
    fn is_whole(&self, length: u32) -> bool {
        self.left >= u64::from(length)
    }

    /// Writes the next bytes of the content. A tree that says more than the file's size is refused.
    fn write(
        &mut self,
        mut bytes: &[u8],
        size: u64,
        mut write: impl FnMut(&[u8], u64) -> Result<(), rustix::io::Errno>,
    ) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.next_extent();
            }
            let room = usize::try_from(self.left).unwrap_or(usize::MAX);
            let count = bytes.len().min(room);
            if count == 0 || self.at.saturating_add(count as u64) > size {
                return Err(Trouble::Refused(ProblemKind::Damaged));
            }
            write(&bytes[..count], self.at).map_err(unwritable)?;
            bytes = &bytes[count..];
            self.at += count as u64;
            self.left = self.left.saturating_sub(count as u64);
        }
        Ok(())
    }
}
