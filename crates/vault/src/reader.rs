//! Reading chunks back, with everything checked on the way.
//!
//! Steps: (1) the index says in which pack a chunk lies; (2) the whole pack is fetched, and its
//! bytes must have the hash that is its name; (3) it is opened in place: commitment, then tags;
//! (4) its table must be well formed; (5) the frame must decompress to the promised length; (6) the
//! chunk's keyed hash must be its name. Nothing is handed out before all six hold, so whatever a
//! cell sends, the worst it can do is not to send it (rows 7 to 10, 13, 14, 36).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use candor_wire::ObjectId;

use crate::chunk::ChunkId;
use crate::frame::{Codec, decompress};
use crate::index::{Index, IndexError, Place};
use crate::keys::VaultKeys;
use crate::manifest::{Manifest, ManifestError};
use crate::pack::{PackError, PackedChunk, Stream, Table, read_table};
use crate::ports::{ObjectSource, SourceError};
use crate::seal::{ObjectType, SealError, epoch_of, is_object_size, open_body, open_whole};

/// Most bytes of opened packs that a reader keeps: two full ones, so that walking a tree whose nodes
/// lie in neighbouring packs does not fetch them again and again.
pub const READER_PACKS_BYTES: usize = 32 * 1024 * 1024;

/// Most bytes of decompressed frames that a reader keeps.
pub const READER_FRAMES_BYTES: usize = 16 * 1024 * 1024;

/// Why content could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The index knows no place for the chunk.
    #[error("chunk {chunk} is in no pack")]
    UnknownChunk {
        /// The chunk.
        chunk: ChunkId,
    },
    /// The bytes that came are not the object that was asked for.
    #[error("object {object} does not have the bytes that its name promises")]
    WrongObject {
        /// The object.
        object: ObjectId,
    },
    /// The object does not open: not authentic, of another vault or type, or of a refused version.
    #[error("object {object} could not be opened")]
    Seal {
        /// The object.
        object: ObjectId,
        /// Why.
        #[source]
        source: SealError,
    },
    /// The object opens, but its content is not well formed.
    #[error("pack {object} is not well formed")]
    Pack {
        /// The pack.
        object: ObjectId,
    },
    /// The object opens, but is no well-formed index object.
    #[error("index object {object} is not well formed")]
    IndexObject {
        /// The index object.
        object: ObjectId,
    },
    /// The object opens, but is no acceptable manifest.
    #[error("manifest {object} is not acceptable")]
    Manifest {
        /// The manifest's object.
        object: ObjectId,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// The bytes at the chunk's place are not the chunk.
    #[error("chunk {chunk} in pack {object} has other content than its name promises")]
    WrongChunk {
        /// The chunk.
        chunk: ChunkId,
        /// The pack.
        object: ObjectId,
    },
    /// The cell did not deliver.
    #[error("an object could not be fetched")]
    Source(#[source] SourceError),
    /// The local index failed.
    #[error("the local index failed")]
    Index(#[source] IndexError),
}

impl ReadError {
    /// Whether it means that something is damaged, forged or missing, rather than out of reach.
    pub fn is_integrity(&self) -> bool {
        !matches!(
            self,
            Self::Index(_) | Self::Source(SourceError::Unreachable(_) | SourceError::Refused(_))
        )
    }
}

/// Fetches an object and checks its size and its name.
pub(crate) fn fetch(source: &dyn ObjectSource, object: ObjectId) -> Result<BytesMut, ReadError> {
    let bytes = source.get(object).map_err(ReadError::Source)?;
    if !is_object_size(bytes.len() as u64) || ObjectId::of(&bytes) != object {
        return Err(ReadError::WrongObject { object });
    }
    Ok(bytes
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..])))
}

/// Fetches an object and returns its body, checked and opened.
pub(crate) fn fetch_body(
    keys: &VaultKeys,
    source: &dyn ObjectSource,
    object: ObjectId,
    object_type: ObjectType,
) -> Result<BytesMut, ReadError> {
    let mut bytes = fetch(source, object)?;
    let body = open_body(keys, object_type, &mut bytes)
        .map_err(|source| ReadError::Seal { object, source })?;
    bytes.truncate(body.end);
    Ok(bytes.split_off(body.start))
}

/// Fetches a manifest and checks that it is one of this vault, sealed under the epoch that it names.
pub(crate) fn fetch_manifest(
    keys: &VaultKeys,
    source: &dyn ObjectSource,
    object: ObjectId,
) -> Result<Manifest, ReadError> {
    let mut bytes = fetch(source, object)?;
    let sealed_under = epoch_of(&bytes);
    let body = open_body(keys, ObjectType::Manifest, &mut bytes)
        .map_err(|source| ReadError::Seal { object, source })?;
    let manifest = Manifest::decode(&bytes[body], keys.account(), keys.vault());
    let manifest = manifest.and_then(|manifest| {
        let is_same = sealed_under == Some(manifest.epoch);
        is_same.then_some(manifest).ok_or(ManifestError::OtherEpoch)
    });
    manifest.map_err(|source| ReadError::Manifest { object, source })
}

/// A pack that was checked and opened. Holds its plaintext: at most 16 MiB.
pub struct OpenPack {
    object: ObjectId,
    plaintext: BytesMut,
    table: Table,
}

impl OpenPack {
    /// Checks bytes that claim to be this pack, and opens them in place.
    pub fn open(keys: &VaultKeys, object: ObjectId, bytes: Bytes) -> Result<Self, ReadError> {
        if !is_object_size(bytes.len() as u64) || ObjectId::of(&bytes) != object {
            return Err(ReadError::WrongObject { object });
        }
        Self::open_checked(
            keys,
            object,
            bytes
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..])),
        )
    }

    fn open_checked(
        keys: &VaultKeys,
        object: ObjectId,
        mut bytes: BytesMut,
    ) -> Result<Self, ReadError> {
        let length = open_whole(keys, ObjectType::Pack, &mut bytes)
            .map_err(|source| ReadError::Seal { object, source })?;
        bytes.truncate(length);
        let table = read_table(&bytes).map_err(|PackError| ReadError::Pack { object })?;
        Ok(Self {
            object,
            plaintext: bytes,
            table,
        })
    }

    /// The pack's name.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// What kind of content it holds.
    pub fn stream(&self) -> Stream {
        self.table.stream
    }

    /// How many frames it has; they are numbered from 0.
    pub fn frames(&self) -> u32 {
        self.table.frames.len() as u32
    }

    /// The chunks of a frame, in order; none when there is no such frame.
    pub fn chunks(&self, frame: u32) -> &[PackedChunk] {
        self.table.chunks_of(frame)
    }

    /// The plaintext of a frame. `scratch` is only written when the frame is compressed; reuse it
    /// between calls. The bytes are authentic, but a chunk is only what its name says once
    /// [`OpenPack::verify`] has said so.
    pub fn frame<'a>(
        &'a self,
        frame: u32,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], ReadError> {
        let malformed = || ReadError::Pack {
            object: self.object,
        };
        let frame = self
            .table
            .frames
            .get(frame as usize)
            .ok_or_else(malformed)?;
        let start = frame.offset as usize;
        let stored = self
            .plaintext
            .get(start..start + frame.stored as usize)
            .ok_or_else(malformed)?;
        match frame.codec {
            Codec::Stored => Ok(stored),
            Codec::Zstd => {
                decompress(stored, frame.plaintext as usize, scratch).map_err(|_| malformed())?;
                Ok(scratch)
            }
        }
    }

    /// Cuts the chunk at a place out of its frame's plaintext, and checks that it is what its name
    /// says.
    pub fn verify<'a>(
        &self,
        keys: &VaultKeys,
        id: ChunkId,
        place: &Place,
        frame: &'a [u8],
    ) -> Result<&'a [u8], ReadError> {
        let start = place.offset as usize;
        let chunk = frame.get(start..start.saturating_add(place.length as usize));
        match chunk {
            Some(chunk) if ChunkId::of(keys, chunk) == id => Ok(chunk),
            _ => Err(ReadError::WrongChunk {
                chunk: id,
                object: self.object,
            }),
        }
    }

    /// Decompresses every frame and checks every chunk against its name; returns how many bytes of
    /// plaintext that were.
    pub fn verify_all(&self, keys: &VaultKeys, scratch: &mut Vec<u8>) -> Result<u64, ReadError> {
        let mut bytes = 0;
        for number in 0..self.frames() {
            let frame = self.frame(number, scratch)?;
            bytes += frame.len() as u64;
            for chunk in self.chunks(number) {
                let place = Place {
                    pack: self.object,
                    pack_number: 0,
                    frame: number,
                    offset: chunk.offset,
                    length: chunk.length,
                };
                self.verify(keys, chunk.id, &place, frame)?;
            }
        }
        Ok(bytes)
    }
}

/// Reads chunks one at a time, in any order, and keeps what it opened last within fixed bounds.
pub struct Reader<'a> {
    keys: &'a VaultKeys,
    index: &'a Index,
    source: &'a dyn ObjectSource,
    packs: Recent<ObjectId, OpenPack>,
    frames: Recent<(ObjectId, u32), Bytes>,
}

impl<'a> Reader<'a> {
    /// A reader; it keeps at most [`READER_PACKS_BYTES`] and [`READER_FRAMES_BYTES`], and one item
    /// more while it works.
    pub fn new(keys: &'a VaultKeys, index: &'a Index, source: &'a dyn ObjectSource) -> Self {
        let (packs, frames) = (
            Recent::new(READER_PACKS_BYTES),
            Recent::new(READER_FRAMES_BYTES),
        );
        Self {
            keys,
            index,
            source,
            packs,
            frames,
        }
    }

    /// The chunk's plaintext, verified.
    pub fn chunk(&mut self, id: ChunkId) -> Result<Bytes, ReadError> {
        let place = self
            .locate(id)?
            .ok_or(ReadError::UnknownChunk { chunk: id })?;
        let frame = self.frame(&place)?;
        let start = place.offset as usize;
        let end = start.saturating_add(place.length as usize);
        let wrong = ReadError::WrongChunk {
            chunk: id,
            object: place.pack,
        };
        if end > frame.len() {
            return Err(wrong);
        }
        let chunk = frame.slice(start..end);
        if ChunkId::of(self.keys, &chunk) == id {
            Ok(chunk)
        } else {
            Err(wrong)
        }
    }

    /// Where the chunk lies.
    pub fn locate(&self, id: ChunkId) -> Result<Option<Place>, ReadError> {
        self.index.locate(&id).map_err(ReadError::Index)
    }

    /// Fetches, checks and opens a whole pack, in place where the source's bytes allow it.
    pub fn open_pack(&self, object: ObjectId) -> Result<OpenPack, ReadError> {
        OpenPack::open_checked(self.keys, object, fetch(self.source, object)?)
    }

    fn frame(&mut self, place: &Place) -> Result<Bytes, ReadError> {
        let key = (place.pack, place.frame);
        if let Some(frame) = self.frames.get(&key) {
            return Ok(frame.clone());
        }
        if self.packs.get(&place.pack).is_none() {
            let pack = self.open_pack(place.pack)?;
            self.packs.insert(place.pack, pack.plaintext.len(), pack);
        }
        let malformed = ReadError::Pack { object: place.pack };
        let pack = self.packs.get(&place.pack).ok_or(malformed)?;
        let mut scratch = Vec::new();
        let stored = pack.frame(place.frame, &mut scratch)?;
        let frame = Bytes::copy_from_slice(stored);
        self.frames.insert(key, frame.len(), frame.clone());
        Ok(frame)
    }
}

/// The items used last, within a number of bytes. A handful of items, so a linear search will do.
pub(crate) struct Recent<K, V> {
    items: VecDeque<(K, usize, V)>,
    bytes: usize,
    limit_bytes: usize,
}

impl<K: PartialEq, V> Recent<K, V> {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
            limit_bytes,
        }
    }

    /// The value, which counts as used now.
    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        let at = self.items.iter().position(|(known, ..)| known == key)?;
        if at > 0 {
            let item = self.items.remove(at)?;
            self.items.push_front(item);
        }
        self.items.front().map(|(.., value)| value)
    }

    /// Keeps a value, and drops those used longest ago; the newest one always stays.
    pub(crate) fn insert(&mut self, key: K, bytes: usize, value: V) {
        self.items.push_front((key, bytes, value));
        self.bytes += bytes;
        while self.bytes > self.limit_bytes && self.items.len() > 1 {
            if let Some((_, dropped, _)) = self.items.pop_back() {
                self.bytes -= dropped;
            }
        }
    }
}
