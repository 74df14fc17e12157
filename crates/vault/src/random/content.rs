//! The content of one file, for reading at any place.

use bytes::Bytes;

use super::RandomReader;
use crate::chunk::ChunkId;
use crate::node::{self, Extent, Reference, References};
use crate::tree::{TreeError, fetch_exact};

/// Where the bytes of an open file are. Its size in memory is that of the file's own list of chunks,
/// or, of a file with more than one list of them, 44 bytes for each 2,048 chunks.
#[derive(Debug)]
pub struct FileContent {
    size: u64,
    /// The first chunk that its entry names, to name the file in an error.
    first: ChunkId,
    /// Stretches of data by their place in the file; between them are holes.
    stretches: Vec<Stretch>,
    lists: Vec<List>,
}

/// Bytes of the file that are stored.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// Where it begins in the file.
    start: u64,
    /// Where it begins in the data.
    data: u64,
    length: u64,
}

/// Chunks that follow one another.
#[derive(Debug)]
struct List {
    /// Where it begins in the data.
    data: u64,
    chunks: Chunks,
}

#[derive(Debug)]
enum Chunks {
    /// In the file's entry.
    Here(Vec<Reference>),
    /// In a list chunk.
    Stored(Reference),
}

impl FileContent {
    /// Opens a file by what its entry says. Of a file with list chunks all are read once.
    pub fn open(
        size: u64,
        content: &References,
        extents: Option<&[Extent]>,
        reader: &RandomReader,
    ) -> Result<Self, TreeError> {
        let stretches = stretches(size, extents);
        let promised = stretches.iter().map(|stretch| stretch.length).sum();
        let first = content.list.first().map(|first| first.id);
        let first = first.unwrap_or(ChunkId::from_bytes([0; ChunkId::BYTES]));
        let mut lists = Vec::new();
        let stored = if content.levels == 0 {
            lists.push(List {
                data: 0,
                chunks: Chunks::Here(content.list.clone()),
            });
            length_of(&content.list)
        } else {
            let mut found = Found {
                reader,
                promised,
                stored: 0,
                lists: &mut lists,
            };
            found.add(&content.list, content.levels)?;
            found.stored
        };
        if promised != stored {
            return Err(TreeError::Length { chunk: first });
        }
        Ok(Self {
            size,
            first,
            stretches,
            lists,
        })
    }

    /// Length of the file in bytes, holes included.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from `offset` on: `length` of them, or fewer at the end of the file.
    pub fn read(
        &self,
        offset: u64,
        length: usize,
        reader: &RandomReader,
    ) -> Result<Vec<u8>, TreeError> {
        let end = self.size.min(offset.saturating_add(length as u64));
        let Some(wanted) = end.checked_sub(offset).filter(|wanted| *wanted > 0) else {
            return Ok(Vec::new());
        };
        let mut out = vec![0; usize::try_from(wanted).unwrap_or(length)];
        let first = self
            .stretches
            .partition_point(|one| one.start + one.length <= offset);
        for stretch in &self.stretches[first..] {
            if stretch.start >= end {
                break;
            }
            let from = stretch.start.max(offset);
            let to = (stretch.start + stretch.length).min(end);
            let place = (from - offset) as usize..(to - offset) as usize;
            let data = stretch.data + (from - stretch.start);
            self.read_data(data, &mut out[place], reader)?;
        }
        Ok(out)
    }

    /// Fills a buffer with stored bytes.
    fn read_data(
        &self,
        mut data: u64,
        mut out: &mut [u8],
        reader: &RandomReader,
    ) -> Result<(), TreeError> {
        let after = self.lists.partition_point(|list| list.data <= data);
        let mut lists = self.lists[after.saturating_sub(1)..].iter();
        while !out.is_empty() {
            // The lists hold as much as the stretches promise.
            let Some(list) = lists.next() else {
                return Err(TreeError::Length { chunk: self.first });
            };
            let stored;
            let chunks = match &list.chunks {
                Chunks::Here(chunks) => chunks,
                Chunks::Stored(reference) => {
                    stored = read_list(*reference, reader)?;
                    &stored
                }
            };
            let mut at = list.data;
            for chunk in chunks {
                let end = at + u64::from(chunk.length);
                if out.is_empty() {
                    break;
                }
                if data < end {
                    let bytes: Bytes = fetch_exact(*chunk, &mut &*reader)?;
                    let part = &bytes[(data - at) as usize..];
                    let taken = part.len().min(out.len());
                    let (now, later) = out.split_at_mut(taken);
                    now.copy_from_slice(&part[..taken]);
                    out = later;
                    data += taken as u64;
                }
                at = end;
            }
        }
        Ok(())
    }
}

fn length_of(list: &[Reference]) -> u64 {
    list.iter().map(|chunk| u64::from(chunk.length)).sum()
}

fn read_list(reference: Reference, reader: &RandomReader) -> Result<Vec<Reference>, TreeError> {
    let bytes = fetch_exact(reference, &mut &*reader)?;
    node::decode_list(&bytes).map_err(|source| TreeError::Node {
        chunk: reference.id,
        source,
    })
}

/// The lowest lists of a file, as far as they were found.
struct Found<'a> {
    reader: &'a RandomReader,
    /// How much data the file has, by its own word.
    promised: u64,
    stored: u64,
    lists: &'a mut Vec<List>,
}

impl Found<'_> {
    /// Adds those below a list.
    fn add(&mut self, list: &[Reference], levels: u8) -> Result<(), TreeError> {
        for reference in list {
            let below = read_list(*reference, self.reader)?;
            if levels > 1 {
                self.add(&below, levels - 1)?;
                continue;
            }
            self.lists.push(List {
                data: self.stored,
                chunks: Chunks::Stored(*reference),
            });
            self.stored = self.stored.saturating_add(length_of(&below));
            // So a list that names itself again and again comes to an end.
            if self.stored > self.promised {
                return Err(TreeError::Length {
                    chunk: reference.id,
                });
            }
        }
        Ok(())
    }
}

fn stretches(size: u64, extents: Option<&[Extent]>) -> Vec<Stretch> {
    let Some(extents) = extents else {
        let whole = Stretch {
            start: 0,
            data: 0,
            length: size,
        };
        return vec![whole];
    };
    let (mut start, mut data) = (0_u64, 0_u64);
    extents
        .iter()
        .map(|extent| {
            start = start.saturating_add(extent.gap);
            let stretch = Stretch {
                start,
                data,
                length: extent.length,
            };
            start = start.saturating_add(extent.length);
            data = data.saturating_add(extent.length);
            stretch
        })
        .collect()
}
