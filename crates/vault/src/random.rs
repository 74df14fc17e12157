//! Reading a snapshot here and there: what a mounted one needs.
//!
//! A restore reads whole packs in the order in which they lie. Here a few bytes of any file may be
//! asked for at any time, from several threads and for days. So a [`RandomReader`] fetches just the
//! part of a pack in which a frame lies, keeps the frames used last, and needs neither the vault held
//! nor its manifest: chunks never change, and the index says where they lie now.
//!
//! Nothing is trusted more than in a restore: the header's commitment, the tag of every segment, the
//! promised length of the frame and the chunk's keyed hash must all hold before a byte is handed out.
//! What is not checked is the hash over the whole pack, which would mean fetching all of it; the index
//! object that names the pack is bound to the signed head, and its segments open only under this
//! vault's keys, at their place, and not cut short.

mod content;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use candor_wire::ObjectId;

pub use content::FileContent;

use crate::browse;
use crate::chunk::ChunkId;
use crate::frame::{Codec, decompress};
use crate::index::{Index, Place};
use crate::keys::VaultKeys;
use crate::node::{Entry, Item, References, Root};
use crate::pack::Table;
use crate::ports::ObjectSource;
use crate::reader::{ReadError, Recent};
use crate::repository::Repository;
use crate::seal::{HEADER_BYTES, ObjectType, Opener};
use crate::tree::{self, ChunkSource, DirectoryReader, TreeError};

/// Most bytes of decompressed frames that are kept: some tens of frames, so that several files can
/// be read in order at the same time.
pub const RANDOM_FRAMES_BYTES: usize = 48 * 1024 * 1024;

/// Most bytes of pack tables that are kept. One pack of small files has 200 KB of them.
const RANDOM_TABLES_BYTES: usize = 16 * 1024 * 1024;

/// What one thing that is kept counts at least, in bytes: their number is bounded, too.
const ENTRY_MIN_BYTES: usize = 16 * 1024;

/// Steps in which packs are read, in bytes of plaintext. The cell sees which part of an object it is asked for; with
/// the exact length of a frame it could compare what somebody reads with the chunks of files that it knows.
pub const READ_STEP_BYTES: u64 = 1024 * 1024;

/// How often a chunk is looked up, when the pack that held it goes in between.
const LOOKUPS_MAX: usize = 4;

/// How many frames may be fetched at once. Two readers of one frame fetch it once.
const LANES: usize = 16;

/// Reads chunks of one vault in any order, from any number of threads.
pub struct RandomReader {
    keys: Arc<VaultKeys>,
    index: Arc<Index>,
    source: Arc<dyn ObjectSource>,
    recent: Mutex<Kept>,
    lanes: [Mutex<()>; LANES],
    hasher: RandomState,
}

/// What was used last.
struct Kept {
    packs: Recent<ObjectId, Arc<KnownPack>>,
    frames: Recent<(ObjectId, u32), Bytes>,
}

/// A pack whose header was accepted.
struct KnownPack {
    opener: Opener,
    table: Table,
}

impl RandomReader {
    /// A reader of what the repository's index knows, also of what it will know later.
    pub fn new(repository: &Repository, source: Arc<dyn ObjectSource>) -> Self {
        let kept = Kept {
            packs: Recent::new(RANDOM_TABLES_BYTES),
            frames: Recent::new(RANDOM_FRAMES_BYTES),
        };
        Self {
            keys: repository.shared_keys(),
            index: repository.shared_index(),
            source,
            recent: Mutex::new(kept),
            lanes: Default::default(),
            hasher: RandomState::new(),
        }
    }

    /// The chunk's plaintext, verified.
    pub fn chunk(&self, id: ChunkId) -> Result<Bytes, ReadError> {
        let (place, frame) = self.located(id)?;
        let start = place.offset as usize;
        let end = start.saturating_add(place.length as usize);
        if end > frame.len() || ChunkId::of(&self.keys, &frame[start..end]) != id {
            return Err(ReadError::WrongChunk {
                chunk: id,
                object: place.pack,
            });
        }
        Ok(frame.slice(start..end))
    }

    /// Where a chunk is, and the frame there.
    fn located(&self, id: ChunkId) -> Result<(Place, Bytes), ReadError> {
        for _ in 0..LOOKUPS_MAX {
            let place = self.index.locate(&id).map_err(ReadError::Index)?;
            let place = place.ok_or(ReadError::UnknownChunk { chunk: id })?;
            if let Some(frame) = self.frame(&place)? {
                return Ok((place, frame));
            }
        }
        Err(ReadError::UnknownChunk { chunk: id })
    }

    /// The root record of a snapshot.
    pub fn root(&self, root: ChunkId) -> Result<Root, TreeError> {
        tree::read_root(root, &mut &*self)
    }

    /// The entry of that name in a directory, if there is one that may be used.
    pub fn find(&self, directory: &References, name: &[u8]) -> Result<Option<Entry>, TreeError> {
        browse::find_name(directory.clone(), name, &mut &*self)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic elsewhere leaves nothing half made: values go in whole.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_frame(&self, key: &(ObjectId, u32)) -> Option<Bytes> {
        self.kept().frames.get(key).cloned()
    }

    /// The frame at a place; `None` if its pack is not listed any more, so that the chunk is somewhere else.
    fn frame(&self, place: &Place) -> Result<Option<Bytes>, ReadError> {
        let key = (place.pack, place.frame);
        if let Some(frame) = self.known_frame(&key) {
            return Ok(Some(frame));
        }
        let lane = self.hasher.hash_one(key) as usize % LANES;
        let _lane = self.lanes[lane]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = self.known_frame(&key) {
            return Ok(Some(frame));
        }
        let Some(pack) = self.pack(place)? else {
            return Ok(None);
        };
        let frame = self.fetch_frame(place, &pack)?;
        let bytes = frame.len().max(ENTRY_MIN_BYTES);
        self.kept().frames.insert(key, bytes, frame.clone());
        Ok(Some(frame))
    }

    fn fetch_frame(&self, place: &Place, pack: &KnownPack) -> Result<Bytes, ReadError> {
        let object = place.pack;
        let malformed = || ReadError::Pack { object };
        let frame = pack.table.frames.get(place.frame as usize);
        let frame = frame.ok_or_else(malformed)?;
        let start = u64::from(frame.offset);
        let end = start + u64::from(frame.stored);
        let around = start / READ_STEP_BYTES * READ_STEP_BYTES;
        let whole = pack.opener.plaintext_bytes();
        let plaintext = around..end.next_multiple_of(READ_STEP_BYTES).min(whole);
        let range = pack.opener.ciphertext_range(&plaintext);
        let range = range.filter(|_| end <= whole).ok_or_else(malformed)?;
        let mut bytes = self.fetch(object, range)?;
        let opened = pack
            .opener
            .open_range(&plaintext, &mut bytes)
            .map_err(|source| ReadError::Seal { object, source })?;
        let from = opened.start + (start - around) as usize;
        let stored = from..from + frame.stored as usize;
        if frame.codec == Codec::Stored {
            // A copy, since the rest of what was fetched would stay with it.
            return Ok(Bytes::copy_from_slice(&bytes[stored]));
        }
        let mut out = Vec::new();
        decompress(&bytes[stored], frame.plaintext as usize, &mut out).map_err(|_| malformed())?;
        Ok(Bytes::from(out))
    }

    fn pack(&self, place: &Place) -> Result<Option<Arc<KnownPack>>, ReadError> {
        let object = place.pack;
        if let Some(pack) = self.kept().packs.get(&object) {
            return Ok(Some(Arc::clone(pack)));
        }
        let contents = self.index.contents_at(place).map_err(ReadError::Index)?;
        let Some(contents) = contents else {
            return Ok(None);
        };
        let table = Table::decode(&contents.table).map_err(|_| ReadError::Pack { object })?;
        let header = self.fetch(object, 0..HEADER_BYTES as u64)?;
        let size = u64::from(contents.stored_bytes);
        let opener = Opener::new(&self.keys, ObjectType::Pack, &header, size)
            .map_err(|source| ReadError::Seal { object, source })?;
        let pack = Arc::new(KnownPack { opener, table });
        let bytes = contents.table.len().max(ENTRY_MIN_BYTES);
        self.kept().packs.insert(object, bytes, Arc::clone(&pack));
        Ok(Some(pack))
    }

    /// Fetches a range, all of it.
    fn fetch(&self, object: ObjectId, range: core::ops::Range<u64>) -> Result<BytesMut, ReadError> {
        let wanted = range.end - range.start;
        let bytes = self.source.get_range(object, range);
        let bytes = bytes.map_err(ReadError::Source)?;
        if bytes.len() as u64 != wanted {
            return Err(ReadError::WrongObject { object });
        }
        Ok(bytes
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..])))
    }
}

impl ChunkSource for &RandomReader {
    fn fetch(&mut self, id: ChunkId) -> Result<Bytes, ReadError> {
        self.chunk(id)
    }
}

/// The entries of a directory, one after another.
#[derive(Debug)]
pub struct Listing(DirectoryReader);

impl Listing {
    /// From the first entry on.
    pub fn new(directory: &References) -> Self {
        Self(DirectoryReader::new(directory.clone()))
    }

    /// The next one; `None` after the last. After an error there is no going on.
    pub fn next(&mut self, reader: &RandomReader) -> Result<Option<Item>, TreeError> {
        self.0.next(&mut &*reader)
    }
}

#[cfg(test)]
#[path = "tests/random.rs"]
mod tests;
