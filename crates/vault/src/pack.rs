//! Packs: objects that hold frames of chunks and, at their end, a table of what they hold.
//!
//! Plaintext of a pack: the frames one after another, zeros, the table, the table's length (4
//! bytes, big-endian). A full pack is an object of exactly 16 MiB; a short one is padded to a power
//! of two. The order of the frames is random, so that neighbours in a pack say little about
//! neighbours in the tree. Because the table is in the pack, the index can be made anew from packs
//! alone. Contents of files and directory nodes are never in one pack, so that listing a snapshot
//! reads few objects.
//!
//! The table has one spelling: fixed widths, offsets implied by order, nothing optional.

use core::ops::Range;

use crate::chunk::{CHUNK_MAX_BYTES, ChunkId};
use crate::frame::{Codec, FRAME_MAX_BYTES};
use crate::seal::{SealBuffer, padded_object_bytes, plaintext_bytes};
use candor_wire::limits::OBJECT_MAX_BYTES;

/// Version of the table's encoding.
pub const TABLE_VERSION: u8 = 1;

/// Length of the table's fixed part, in bytes: version, stream, number of frames.
const TABLE_HEAD_BYTES: usize = 1 + 1 + 4;

/// Length of a frame's entry, in bytes: codec, stored length, plaintext length, number of chunks.
const FRAME_ENTRY_BYTES: usize = 1 + 4 + 4 + 4;

/// Length of a chunk's entry, in bytes: id, length.
const CHUNK_ENTRY_BYTES: usize = ChunkId::BYTES + 4;

/// Length of the word at the very end, in bytes.
const FOOTER_BYTES: usize = 4;

/// How much a full pack may leave unused before another choice of frames is tried, in bytes.
const GOOD_FIT_BYTES: usize = 16 * 1024;

/// How many random orders are tried to fill a pack well: each costs microseconds.
const FIT_TRIES: usize = 64;

/// How much more than one pack is collected before a pack is filled, in bytes of frames: something
/// to choose from, so that little of a full pack is padding.
pub const FIT_SLACK_BYTES: usize = 2 * 1024 * 1024;

/// Plaintext bytes of a full pack.
pub const PACK_PLAINTEXT_BYTES: usize = plaintext_bytes(OBJECT_MAX_BYTES);

/// Which kind of content a chunk is. The two are never packed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stream {
    /// Contents of files.
    Data = 0,
    /// Directory nodes.
    Tree = 1,
}

impl Stream {
    /// Reads the byte of a pack's table.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Data),
            1 => Some(Self::Tree),
            _ => None,
        }
    }
}

/// The opened bytes are not a well-formed pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pack is not well formed")]
pub struct PackError;

/// A chunk, as its pack's table lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedChunk {
    /// Its name.
    pub id: ChunkId,
    /// Offset in the frame's plaintext, in bytes.
    pub offset: u32,
    /// Length, in bytes.
    pub length: u32,
}

/// A frame, as its pack's table lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedFrame {
    /// How it is stored.
    pub codec: Codec,
    /// Offset in the pack's plaintext, in bytes.
    pub offset: u32,
    /// Stored length, in bytes.
    pub stored: u32,
    /// Length of its plaintext, in bytes.
    pub plaintext: u32,
    /// Which of the table's chunks are in it.
    pub chunks: Range<usize>,
}

/// What a pack holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which kind of content.
    pub stream: Stream,
    /// Frames in the order in which they lie.
    pub frames: Vec<PackedFrame>,
    /// Chunks of all frames, in the order in which they lie.
    pub chunks: Vec<PackedChunk>,
}

impl Table {
    /// The chunks of a frame; empty when there is no such frame.
    pub fn chunks_of(&self, frame: u32) -> &[PackedChunk] {
        self.frames
            .get(frame as usize)
            .map_or(&[], |frame| &self.chunks[frame.chunks.clone()])
    }

    /// The one encoding of the table.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            TABLE_HEAD_BYTES
                + self.frames.len() * FRAME_ENTRY_BYTES
                + self.chunks.len() * CHUNK_ENTRY_BYTES,
        );
        out.push(TABLE_VERSION);
        out.push(self.stream as u8);
        out.extend_from_slice(&(self.frames.len() as u32).to_be_bytes());
        for frame in &self.frames {
            out.push(frame.codec as u8);
            out.extend_from_slice(&frame.stored.to_be_bytes());
            out.extend_from_slice(&frame.plaintext.to_be_bytes());
            out.extend_from_slice(&(frame.chunks.len() as u32).to_be_bytes());
        }
        for chunk in &self.chunks {
            out.extend_from_slice(chunk.id.as_bytes());
            out.extend_from_slice(&chunk.length.to_be_bytes());
        }
        out
    }

    /// Reads a table. Counts are checked against the bytes that are there before anything is
    /// allocated; lengths must add up and stay within their limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let (head, mut rest) = bytes
            .split_first_chunk::<TABLE_HEAD_BYTES>()
            .ok_or(PackError)?;
        if head[0] != TABLE_VERSION {
            return Err(PackError);
        }
        let stream = Stream::from_byte(head[1]).ok_or(PackError)?;
        let count = u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize;
        if count == 0 || count > rest.len() / FRAME_ENTRY_BYTES {
            return Err(PackError);
        }
        let chunk_count = (rest.len() - count * FRAME_ENTRY_BYTES) / CHUNK_ENTRY_BYTES;
        let mut frames = Vec::with_capacity(count);
        let (mut offset, mut first) = (0usize, 0usize);
        for _ in 0..count {
            let (entry, after) = rest
                .split_first_chunk::<FRAME_ENTRY_BYTES>()
                .ok_or(PackError)?;
            let frame = decode_frame(entry, offset, first)?;
            offset += frame.stored as usize;
            first = frame.chunks.end;
            if offset > PACK_PLAINTEXT_BYTES || first > chunk_count {
                return Err(PackError);
            }
            frames.push(frame);
            rest = after;
        }
        if first * CHUNK_ENTRY_BYTES != rest.len() {
            return Err(PackError);
        }
        let mut chunks = Vec::with_capacity(first);
        for frame in &frames {
            rest = decode_chunks(frame, rest, &mut chunks)?;
        }
        Ok(Self {
            stream,
            frames,
            chunks,
        })
    }
}

fn decode_frame(
    entry: &[u8; FRAME_ENTRY_BYTES],
    offset: usize,
    first: usize,
) -> Result<PackedFrame, PackError> {
    let word =
        |at: usize| u32::from_be_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    let codec = Codec::from_byte(entry[0]).ok_or(PackError)?;
    let (stored, plaintext, count) = (word(1), word(5), word(9) as usize);
    let whole = match codec {
        Codec::Stored => stored == plaintext,
        Codec::Zstd => stored < plaintext,
    };
    if !whole || stored == 0 || plaintext as usize > FRAME_MAX_BYTES || count == 0 {
        return Err(PackError);
    }
    let end = first.checked_add(count).ok_or(PackError)?;
    let offset = u32::try_from(offset).map_err(|_| PackError)?;
    Ok(PackedFrame {
        codec,
        offset,
        stored,
        plaintext,
        chunks: first..end,
    })
}

fn decode_chunks<'a>(
    frame: &PackedFrame,
    mut rest: &'a [u8],
    chunks: &mut Vec<PackedChunk>,
) -> Result<&'a [u8], PackError> {
    let mut offset = 0u32;
    for _ in frame.chunks.clone() {
        let (entry, after) = rest
            .split_first_chunk::<CHUNK_ENTRY_BYTES>()
            .ok_or(PackError)?;
        let id = ChunkId::from_slice(&entry[..ChunkId::BYTES]).ok_or(PackError)?;
        let length = u32::from_be_bytes([entry[32], entry[33], entry[34], entry[35]]);
        if length == 0 || length as usize > CHUNK_MAX_BYTES {
            return Err(PackError);
        }
        chunks.push(PackedChunk { id, offset, length });
        offset = offset.checked_add(length).ok_or(PackError)?;
        rest = after;
    }
    if offset != frame.plaintext {
        Err(PackError)
    } else {
        Ok(rest)
    }
}

/// A frame that waits to be packed.
pub struct PendingFrame {
    /// How it is stored.
    pub codec: Codec,
    /// The stored bytes.
    pub stored: Vec<u8>,
    /// Length of its plaintext, in bytes.
    pub plaintext: u32,
    /// Its chunks in order, with their lengths in bytes.
    pub chunks: Vec<(ChunkId, u32)>,
}

impl PendingFrame {
    /// What it adds to a pack, in bytes: itself and its part of the table.
    pub fn cost(&self) -> usize {
        self.stored.len() + FRAME_ENTRY_BYTES + self.chunks.len() * CHUNK_ENTRY_BYTES
    }
}

/// What a pack needs besides its frames' costs, in bytes.
const PACK_OVERHEAD_BYTES: usize = TABLE_HEAD_BYTES + FOOTER_BYTES;

/// Room for frames' costs in a full pack, in bytes.
pub const PACK_ROOM_BYTES: usize = PACK_PLAINTEXT_BYTES - PACK_OVERHEAD_BYTES;

/// Chooses frames for a pack, in random order: as many as fit, with little room left. `random`
/// decides the order and should be drawn anew for each pack. The result has at least one frame when
/// the first fits at all.
pub fn choose(costs: &[usize], random: &[u8; 32]) -> Vec<usize> {
    let total: usize = costs.iter().sum();
    let mut stream = blake3::Hasher::new_keyed(random).finalize_xof();
    let mut draw = move || {
        let mut word = [0; 8];
        stream.fill(&mut word);
        u64::from_be_bytes(word)
    };
    let mut best: (usize, Vec<usize>) = (0, Vec::new());
    let mut order: Vec<usize> = (0..costs.len()).collect();
    for _ in 0..FIT_TRIES {
        for at in (1..order.len()).rev() {
            // The bias of the remainder is below 2^-50 for any number of frames.
            order.swap(at, (draw() % (at as u64 + 1)) as usize);
        }
        let mut used = 0;
        let fits = order.iter().copied().filter(|&frame| {
            let fits = used + costs[frame] <= PACK_ROOM_BYTES;
            used += if fits { costs[frame] } else { 0 };
            fits
        });
        let chosen: Vec<usize> = fits.collect();
        if used > best.0 {
            best = (used, chosen);
        }
        if best.0 == total || best.0 + GOOD_FIT_BYTES >= PACK_ROOM_BYTES {
            break;
        }
    }
    best.1
}

/// Lays frames out as a pack in the given order. `None` when they are none or do not fit.
pub fn lay_out(
    stream: Stream,
    frames: &[PendingFrame],
    reuse: Vec<u8>,
) -> Option<(SealBuffer, Table)> {
    let mut table = Table {
        stream,
        frames: Vec::with_capacity(frames.len()),
        chunks: Vec::new(),
    };
    let mut offset = 0u32;
    for frame in frames {
        let first = table.chunks.len();
        let mut within = 0;
        for &(id, length) in &frame.chunks {
            table.chunks.push(PackedChunk {
                id,
                offset: within,
                length,
            });
            within += length;
        }
        let stored = u32::try_from(frame.stored.len()).ok()?;
        table.frames.push(PackedFrame {
            codec: frame.codec,
            offset,
            stored,
            plaintext: frame.plaintext,
            chunks: first..table.chunks.len(),
        });
        offset = offset.checked_add(stored)?;
    }
    let encoded = table.encode();
    let needed = offset as usize + encoded.len() + FOOTER_BYTES;
    if frames.is_empty() || needed > PACK_PLAINTEXT_BYTES {
        return None;
    }
    let plaintext = plaintext_bytes(padded_object_bytes(needed)?);
    let mut buffer = SealBuffer::new(plaintext, reuse);
    for frame in frames {
        buffer.append(&frame.stored);
    }
    buffer.append_zeros(plaintext - needed);
    buffer.append(&encoded);
    buffer.append(&(encoded.len() as u32).to_be_bytes());
    Some((buffer, table))
}

/// Finds the table at the end of a pack's plaintext, and checks that frames, zeros, table and
/// length word fill it exactly.
pub fn read_table(plaintext: &[u8]) -> Result<Table, PackError> {
    let (before, footer) = plaintext
        .split_last_chunk::<FOOTER_BYTES>()
        .ok_or(PackError)?;
    let length = u32::from_be_bytes(*footer) as usize;
    let start = before.len().checked_sub(length).ok_or(PackError)?;
    let table = Table::decode(&before[start..])?;
    let end = table
        .frames
        .last()
        .map_or(0, |frame| frame.offset as usize + frame.stored as usize);
    let padding = before.get(end..start).ok_or(PackError)?;
    if padding.iter().any(|&byte| byte != 0) {
        Err(PackError)
    } else {
        Ok(table)
    }
}
