//! Trees of directory nodes: built from entries, and walked again, with bounded memory both ways.
//!
//! A directory or a file of any size is a short list of references in its entry. Long lists go
//! into list chunks, level upon level, so nothing here grows with a file or a directory.

use bytes::Bytes;

use crate::chunk::ChunkId;
use crate::node::{self, Item, LEVELS_MAX, LIST_MAX_REFERENCES, NodeError, Reference, References};
use crate::pack::Stream;
use crate::reader::{ReadError, Reader};
use crate::writer::{WriteError, Writer};

/// Fewest bytes of a part before it may end at a name that the split rule picks: small directories
/// are one part.
const PART_SPLIT_MIN_BYTES: usize = 128 * 1024;

/// Bytes after which a part always ends.
const PART_SPLIT_MAX_BYTES: usize = 512 * 1024;

/// One name in this many ends a part, so that a new entry in a huge directory changes one part
/// and not all that follow.
const PART_SPLIT_NAMES: u32 = 512;

/// Most bytes of undecoded parts and lists that a walk keeps for the directories it is inside of.
/// An honest tree needs a few hundred KiB; a tree that is made deep and wide at once ends here.
pub const WALK_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Where chunks of the tree are stored.
pub(crate) trait TreeSink {
    /// Stores one chunk of the tree.
    fn store(&mut self, plaintext: &[u8]) -> Result<ChunkId, WriteError>;
}

impl TreeSink for Writer {
    fn store(&mut self, plaintext: &[u8]) -> Result<ChunkId, WriteError> {
        self.chunk(Stream::Tree, plaintext)
    }
}

/// Where verified chunks come from.
pub(crate) trait ChunkSource {
    /// The chunk's plaintext, checked against its id.
    fn fetch(&mut self, id: ChunkId) -> Result<Bytes, ReadError>;
}

impl ChunkSource for Reader<'_> {
    fn fetch(&mut self, id: ChunkId) -> Result<Bytes, ReadError> {
        self.chunk(id)
    }
}

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A chunk of the tree could not be read.
    #[error("a part of the tree could not be read")]
    Read(#[source] ReadError),
    /// A chunk of the tree is authentic and still not a valid record.
    #[error("chunk {chunk} is not a valid record of a tree")]
    Node {
        /// The chunk.
        chunk: ChunkId,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
    /// A chunk has another length than its parent says.
    #[error("chunk {chunk} is longer or shorter than its parent says")]
    Length {
        /// The chunk.
        chunk: ChunkId,
    },
    /// Directories are nested deeper than [`node::DEPTH_MAX`], or deep and wide at once.
    #[error("the tree is nested too deeply")]
    TooDeep,
}

impl TreeError {
    /// Whether this is damage or tampering, and not a cell or a disk that does not answer.
    pub fn is_integrity(&self) -> bool {
        match self {
            Self::Read(error) => error.is_integrity(),
            Self::Node { .. } | Self::Length { .. } | Self::TooDeep => true,
        }
    }
}

/// Builds the list of references of one file or directory.
#[derive(Debug)]
pub(crate) struct ReferenceBuilder {
    levels: Vec<Vec<Reference>>,
}

impl Default for ReferenceBuilder {
    fn default() -> Self {
        Self {
            levels: vec![Vec::new()],
        }
    }
}

impl ReferenceBuilder {
    /// Adds the next reference. Full lists are stored at once.
    pub(crate) fn push(
        &mut self,
        reference: Reference,
        sink: &mut dyn TreeSink,
    ) -> Result<(), WriteError> {
        let mut carried = reference;
        for level in 0..=usize::from(LEVELS_MAX) {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let list = &mut self.levels[level];
            if list.len() < LIST_MAX_REFERENCES || level == usize::from(LEVELS_MAX) {
                list.push(carried);
                return Ok(());
            }
            let stored = store_list(list, sink)?;
            list.clear();
            list.push(carried);
            carried = stored;
        }
        Ok(())
    }

    /// Closes all levels.
    pub(crate) fn finish(mut self, sink: &mut dyn TreeSink) -> Result<References, WriteError> {
        let mut level = 0;
        while level + 1 < self.levels.len() {
            let stored = store_list(&self.levels[level], sink)?;
            self.levels[level].clear();
            // The level above may be full itself; only then does another level appear.
            let mut above = level + 1;
            let mut carried = stored;
            while self.levels[above].len() == LIST_MAX_REFERENCES && above < usize::from(LEVELS_MAX)
            {
                let next = store_list(&self.levels[above], sink)?;
                self.levels[above] = vec![carried];
                carried = next;
                above += 1;
                if above == self.levels.len() {
                    self.levels.push(Vec::new());
                }
            }
            self.levels[above].push(carried);
            level += 1;
        }
        let list = self.levels.pop().unwrap_or_default();
        Ok(References {
            levels: u8::try_from(level).unwrap_or(LEVELS_MAX),
            list,
        })
    }
}

fn store_list(list: &[Reference], sink: &mut dyn TreeSink) -> Result<Reference, WriteError> {
    let bytes = node::encode_list(list);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Ok(Reference {
        id: sink.store(&bytes)?,
        length,
    })
}

/// Builds one directory from encoded entries that come in ascending order of their names.
#[derive(Debug, Default)]
pub(crate) struct DirectoryBuilder {
    entries: Vec<u8>,
    count: usize,
    parts: ReferenceBuilder,
}

impl DirectoryBuilder {
    /// Adds the encoding of the entry `name`. Full parts are stored at once.
    pub(crate) fn push(
        &mut self,
        name: &[u8],
        encoded: &[u8],
        sink: &mut dyn TreeSink,
    ) -> Result<(), WriteError> {
        self.entries.extend_from_slice(encoded);
        self.count += 1;
        let length = self.entries.len();
        if length >= PART_SPLIT_MAX_BYTES || (length >= PART_SPLIT_MIN_BYTES && ends_part(name)) {
            self.store_part(sink)?;
        }
        Ok(())
    }

    fn store_part(&mut self, sink: &mut dyn TreeSink) -> Result<(), WriteError> {
        let part = node::encode_part(self.count, &self.entries);
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        let id = sink.store(&part)?;
        self.parts.push(Reference { id, length }, sink)?;
        self.entries.clear();
        self.count = 0;
        Ok(())
    }

    /// Stores what is left. An empty directory has no part.
    pub(crate) fn finish(mut self, sink: &mut dyn TreeSink) -> Result<References, WriteError> {
        if self.count > 0 {
            self.store_part(sink)?;
        }
        self.parts.finish(sink)
    }
}

/// Whether a name ends its part: FNV-1a, which needs only to spread, since readers accept any split.
fn ends_part(name: &[u8]) -> bool {
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash ^ hash >> 16) % PART_SPLIT_NAMES == 0
}

pub(crate) fn fetch_exact(
    reference: Reference,
    source: &mut dyn ChunkSource,
) -> Result<Bytes, TreeError> {
    let bytes = source.fetch(reference.id).map_err(TreeError::Read)?;
    if bytes.len() != reference.length as usize {
        return Err(TreeError::Length {
            chunk: reference.id,
        });
    }
    Ok(bytes)
}

/// Yields the references to content below a [`References`], reading list chunks as it goes.
#[derive(Debug)]
pub(crate) struct ReferenceReader {
    stack: Vec<(u8, std::vec::IntoIter<Reference>)>,
}

impl ReferenceReader {
    pub(crate) fn new(references: References) -> Self {
        Self {
            stack: vec![(references.levels, references.list.into_iter())],
        }
    }

    /// The next reference to content, or to a list chunk when `lists` is asked for by the caller
    /// through [`ReferenceReader::next_any`].
    pub(crate) fn next(
        &mut self,
        source: &mut dyn ChunkSource,
    ) -> Result<Option<Reference>, TreeError> {
        loop {
            match self.next_any(source)? {
                Some((0, reference)) => return Ok(Some(reference)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next reference with its level: every list chunk comes before what it holds.
    pub(crate) fn next_any(
        &mut self,
        source: &mut dyn ChunkSource,
    ) -> Result<Option<(u8, Reference)>, TreeError> {
        while let Some((level, list)) = self.stack.last_mut() {
            let level = *level;
            let Some(reference) = list.next() else {
                self.stack.pop();
                continue;
            };
            if level > 0 {
                let bytes = fetch_exact(reference, source)?;
                let list = node::decode_list(&bytes).map_err(|error| TreeError::Node {
                    chunk: reference.id,
                    source: error,
                })?;
                self.stack.push((level - 1, list.into_iter()));
            }
            return Ok(Some((level, reference)));
        }
        Ok(None)
    }

    /// Bytes of references that are held.
    fn retained(&self) -> usize {
        self.stack
            .iter()
            .map(|(_, list)| list.len() * node::REFERENCE_BYTES)
            .sum()
    }
}

/// Yields the entries of one directory in order, part after part.
#[derive(Debug)]
pub(crate) struct DirectoryReader {
    parts: ReferenceReader,
    items: std::vec::IntoIter<Item>,
    part_bytes: usize,
    last: Vec<u8>,
    started: bool,
}

impl DirectoryReader {
    pub(crate) fn new(parts: References) -> Self {
        Self {
            parts: ReferenceReader::new(parts),
            items: Vec::new().into_iter(),
            part_bytes: 0,
            last: Vec::new(),
            started: false,
        }
    }

    /// The next entry. Names ascend strictly across parts too.
    pub(crate) fn next(&mut self, source: &mut dyn ChunkSource) -> Result<Option<Item>, TreeError> {
        loop {
            if let Some(item) = self.items.next() {
                if self.items.len() == 0 {
                    self.part_bytes = 0;
                }
                return Ok(Some(item));
            }
            let Some(part) = self.parts.next(source)? else {
                return Ok(None);
            };
            let bytes = fetch_exact(part, source)?;
            let wrap = |error| TreeError::Node {
                chunk: part.id,
                source: error,
            };
            let items = node::decode_part(&bytes).map_err(wrap)?;
            let Some((first, end)) = items.first().zip(items.last()) else {
                return Err(wrap(NodeError::Value {
                    what: "part without entries",
                }));
            };
            if self.started && first.raw_name() <= self.last.as_slice() {
                return Err(wrap(NodeError::Order));
            }
            self.started = true;
            self.last = end.raw_name().to_vec();
            self.part_bytes = bytes.len();
            self.items = items.into_iter();
        }
    }

    pub(crate) fn retained(&self) -> usize {
        self.part_bytes + self.last.len() + self.parts.retained()
    }
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    /// The next entry of the innermost directory.
    Item(Item),
    /// The innermost directory has no more entries and was left.
    Leave,
}

/// Walks a tree depth first, entering only the directories that the caller wants.
#[derive(Debug)]
pub(crate) struct TreeWalk {
    levels: Vec<(DirectoryReader, usize)>,
    retained: usize,
}

impl TreeWalk {
    pub(crate) fn new(top: References) -> Self {
        Self {
            levels: vec![(DirectoryReader::new(top), 0)],
            retained: 0,
        }
    }

    /// The next entry, or the end of a directory; `None` after the end of the top one.
    pub(crate) fn next(&mut self, source: &mut dyn ChunkSource) -> Result<Option<Step>, TreeError> {
        let Some((directory, _)) = self.levels.last_mut() else {
            return Ok(None);
        };
        if let Some(item) = directory.next(source)? {
            return Ok(Some(Step::Item(item)));
        }
        self.levels.pop();
        if let Some((_, retained)) = self.levels.last_mut() {
            self.retained -= std::mem::take(retained);
            Ok(Some(Step::Leave))
        } else {
            Ok(None)
        }
    }

    /// Gives up the innermost directory after an error. False when it was the top one.
    pub(crate) fn abandon(&mut self) -> bool {
        self.levels.pop();
        if let Some((_, retained)) = self.levels.last_mut() {
            self.retained -= std::mem::take(retained);
        }
        !self.levels.is_empty()
    }

    /// Goes into a directory that was just returned.
    pub(crate) fn enter(&mut self, parts: References) -> Result<(), TreeError> {
        if self.levels.len() >= node::DEPTH_MAX {
            return Err(TreeError::TooDeep);
        }
        if let Some((directory, retained)) = self.levels.last_mut() {
            *retained = directory.retained();
            self.retained += *retained;
        }
        if self.retained > WALK_MAX_BYTES {
            return Err(TreeError::TooDeep);
        }
        self.levels.push((DirectoryReader::new(parts), 0));
        Ok(())
    }
}

/// Reads the root record of a snapshot.
pub(crate) fn read_root(
    root: ChunkId,
    source: &mut dyn ChunkSource,
) -> Result<node::Root, TreeError> {
    let bytes = source.fetch(root).map_err(TreeError::Read)?;
    node::Root::decode(&bytes).map_err(|error| TreeError::Node {
        chunk: root,
        source: error,
    })
}

#[cfg(test)]
#[path = "tests/tree.rs"]
mod tests;
