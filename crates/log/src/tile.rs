//! C2SP tlog-tiles: how tree and entries are cut into files that never change.
//!
//! 1. A tile is up to 256 hashes of one level: level 0 holds hashes of leaves, each level above holds
//!    the root of every *full* tile of the level below.
//! 2. A bundle is the entries under a tile of level 0, each with its length before it.
//! 3. Tiles and bundles at the right edge are partial and carry their width in the path; they are
//!    never replaced, only followed by wider ones.
//!
//! [`Edge`] grows a tree and says which files that makes. [`Prover`] reads tiles of a tree whose head
//! is known and believes none of them before it hashes up to that head.
//!
//! The paths are those of C2SP, not those of Go's checksum database, so `tlog_tiles` makes none of them.

mod edge;
mod prover;

use core::fmt;

use candor_wire::ids::to_hex;

use crate::leaf::{LEAF_BYTES, Leaf, LeafError};
use crate::note::decimal;
use crate::tree::{HASH_BYTES, Hash, TREE_SIZE_MAX};

pub use edge::{Edge, Growth};
pub use prover::Prover;

/// Hashes in a full tile, and entries in a full bundle.
pub const TILE_WIDTH: u64 = 256;

/// Levels of tiles that the largest tree has: 256^5 is [`TREE_SIZE_MAX`].
pub const TILE_LEVELS: u8 = 6;

/// Length of an entry in a bundle, in bytes: a length of two bytes and a leaf.
pub const BUNDLE_ENTRY_BYTES: usize = 2 + LEAF_BYTES;

/// Longest path of a resource, in bytes: `tile/entries/x004/x294/x967/295.p/255` fits with room.
const PATH_MAX_BYTES: usize = 64;

/// A tile: its place and how many hashes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileId {
    /// Level, from 0 at the leaves.
    pub level: u8,
    /// Place in the level, from 0.
    pub index: u64,
    /// Hashes in it, 1 to 256; 256 is full.
    pub width: u16,
}

/// A bundle of entries: its place and how many entries it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleId {
    /// Place, from 0: entry `index * 256` is its first.
    pub index: u64,
    /// Entries in it, 1 to 256; 256 is full.
    pub width: u16,
}

/// Something that a log serves and that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// Hashes of one level.
    Tile(TileId),
    /// Entries.
    Entries(BundleId),
}

/// Width of the tile of this level and index in a tree of `size` leaves; 0 if there is none.
fn width_at(level: u8, index: u64, size: u64) -> u16 {
    let hashes = size.checked_shr(u32::from(level) * 8).unwrap_or(0);
    let before = index.saturating_mul(TILE_WIDTH);
    let width = hashes.saturating_sub(before).min(TILE_WIDTH);
    u16::try_from(width).expect("at most 256, by the line above")
}

/// The tile at a place, with the width that it has in a tree of `size` leaves; `None` if that tree
/// has none there.
pub fn tile_at(level: u8, index: u64, size: u64) -> Option<TileId> {
    let width = width_at(level, index, size);
    (width > 0).then_some(TileId {
        level,
        index,
        width,
    })
}

/// The bundle at a place, with the width that it has in a tree of `size` leaves.
pub fn bundle_at(index: u64, size: u64) -> Option<BundleId> {
    let width = width_at(0, index, size);
    (width > 0).then_some(BundleId { index, width })
}

impl TileId {
    /// Its path below the log's prefix, like `tile/0/x001/x234/067.p/1`.
    pub fn path(&self) -> String {
        Resource::Tile(*self).path()
    }

    /// Whether a tree that is accepted here can have it.
    fn is_possible(&self) -> bool {
        if self.level >= TILE_LEVELS || !(1..=256).contains(&self.width) {
            return false;
        }
        let hashes = TREE_SIZE_MAX >> (8 * u32::from(self.level));
        let start = self.index.saturating_mul(TILE_WIDTH);
        start.saturating_add(self.width.into()) <= hashes
    }
}

impl BundleId {
    /// Its path below the log's prefix, like `tile/entries/000.p/5`.
    pub fn path(&self) -> String {
        Resource::Entries(*self).path()
    }
}

impl Resource {
    /// Reads a path below the log's prefix. One spelling, and nothing that no tree up to
    /// [`TREE_SIZE_MAX`] has.
    pub fn from_path(path: &str) -> Option<Self> {
        if path.len() > PATH_MAX_BYTES {
            return None;
        }
        let (level, place) = path.strip_prefix("tile/")?.split_once('/')?;
        let (place, width) = match place.split_once(".p/") {
            Some((place, width)) => (place, decimal(width)?),
            None => (place, TILE_WIDTH),
        };
        let tile = TileId {
            level: match level {
                "entries" => 0,
                _ => decimal(level)?.try_into().ok()?,
            },
            index: index_from(place)?,
            width: width.try_into().ok()?,
        };
        let resource = match level {
            "entries" => Self::Entries(BundleId {
                index: tile.index,
                width: tile.width,
            }),
            _ => Self::Tile(tile),
        };
        (tile.is_possible() && resource.path() == path).then_some(resource)
    }

    /// Its path below the log's prefix.
    pub fn path(&self) -> String {
        let (level, index, width) = match self {
            Self::Tile(tile) => (tile.level.to_string(), tile.index, tile.width),
            Self::Entries(bundle) => ("entries".to_owned(), bundle.index, bundle.width),
        };
        let mut place = format!("{:03}", index % 1000);
        let mut rest = index / 1000;
        while rest > 0 {
            place = format!("x{:03}/{place}", rest % 1000);
            rest /= 1000;
        }
        if u64::from(width) == TILE_WIDTH {
            format!("tile/{level}/{place}")
        } else {
            format!("tile/{level}/{place}.p/{width}")
        }
    }

    /// How many hashes or entries it has.
    pub const fn width(&self) -> u16 {
        match self {
            Self::Tile(tile) => tile.width,
            Self::Entries(bundle) => bundle.width,
        }
    }

    /// The full tile or bundle at the same place. A log may drop a partial one once the full one is
    /// there; the first [`Self::bytes`] bytes of the full one are the partial one.
    pub const fn full(&self) -> Self {
        let width = TILE_WIDTH as u16;
        match *self {
            Self::Tile(TileId { level, index, .. }) => Self::Tile(TileId {
                level,
                index,
                width,
            }),
            Self::Entries(BundleId { index, .. }) => Self::Entries(BundleId { index, width }),
        }
    }

    /// How long it is, in bytes: entries of this project's logs have one length.
    pub fn bytes(&self) -> usize {
        let each = match self {
            Self::Tile(_) => HASH_BYTES,
            Self::Entries(_) => BUNDLE_ENTRY_BYTES,
        };
        usize::from(self.width()) * each
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// Reads `x001/x234/067`.
fn index_from(place: &str) -> Option<u64> {
    let mut index = 0_u64;
    let mut parts = place.split('/').peekable();
    while let Some(part) = parts.next() {
        let digits = match parts.peek() {
            Some(_) => part.strip_prefix('x')?,
            None => part,
        };
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some(index)
}

/// Bytes are not a bundle of leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not as many entries as the width says, or cut, or followed by something.
    #[error("the bundle does not have exactly {width} entries")]
    Width {
        /// How many there should be.
        width: u16,
    },
    /// An entry is not a leaf.
    #[error("entry {position} of the bundle is not a leaf")]
    Leaf {
        /// Which, from 0 in this bundle.
        position: u16,
        /// Why.
        #[source]
        source: LeafError,
    },
}

fn put_entry(bundle: &mut Vec<u8>, leaf: &[u8; LEAF_BYTES]) {
    bundle.extend_from_slice(&(LEAF_BYTES as u16).to_be_bytes());
    bundle.extend_from_slice(leaf);
}

/// The bytes of a bundle: before each entry its length, as two bytes, big endian.
pub fn encode_bundle<'a>(leaves: impl Iterator<Item = &'a Leaf>) -> Vec<u8> {
    let mut bundle = Vec::new();
    leaves.for_each(|leaf| put_entry(&mut bundle, &leaf.encode()));
    bundle
}

/// Reads the bytes of a bundle of exactly `width` leaves.
pub fn decode_bundle(bytes: &[u8], width: u16) -> Result<Vec<Leaf>, BundleError> {
    let entries = split_bundle(bytes, width).ok_or(BundleError::Width { width })?;
    leaves_of(&entries)
}

fn leaves_of(entries: &[&[u8]]) -> Result<Vec<Leaf>, BundleError> {
    let leaf = |(position, entry): (u16, &&[u8])| {
        Leaf::decode(entry).map_err(|source| BundleError::Leaf { position, source })
    };
    (0..).zip(entries).map(leaf).collect()
}

/// The entries of a bundle, whatever they are; `None` unless there are exactly `width`.
fn split_bundle(bytes: &[u8], width: u16) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::with_capacity(usize::from(width).min(TILE_WIDTH as usize));
    let mut rest = bytes;
    for _ in 0..width {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (entry, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
        entries.push(entry);
        rest = after;
    }
    rest.is_empty().then_some(entries)
}

/// Where tiles and bundles come from: a directory, a cell, a test. Nothing that it gives is believed.
///
/// A partial tile or bundle may be gone when the full one is there. Whether to ask for the full one
/// then ([`Resource::full`]) and cut it is the source's business: what it gives must have the width
/// that was asked for. A source should not read more than a bundle can have, [`Resource::bytes`].
pub trait TileSource {
    /// Why something could not be read.
    type Error;

    /// The bytes of one tile or bundle.
    fn read(&self, resource: &Resource) -> Result<Vec<u8>, Self::Error>;
}

/// What turned out not to belong to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspect {
    /// A full tile, or a bundle.
    Resource(Resource),
    /// The partial tiles at the right edge, which can only be checked together.
    Edge(crate::tree::TreeHead),
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource) => write!(f, "{resource}"),
            Self::Edge(head) => write!(
                f,
                "the right edge of the tree of {} leaves with root {}",
                head.size,
                to_hex(&head.root.0)
            ),
        }
    }
}

/// Tiles or entries could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError<E> {
    /// The source could not read.
    #[error("a tile could not be read")]
    Source(#[source] E),
    /// What the source gave does not hash up to the head.
    #[error("what was read is not part of the tree: {0}")]
    NotAuthentic(Suspect),
    /// The head is of a tree with more than [`TREE_SIZE_MAX`] leaves.
    #[error("a tree of {size} leaves is larger than any that is accepted")]
    TooLarge {
        /// Size of the tree.
        size: u64,
    },
    /// Asked for something that a tree of this size does not have.
    #[error("a tree of {size} leaves does not have that")]
    OutOfTree {
        /// Size of the tree.
        size: u64,
    },
    /// The tree really holds an entry that is not a leaf: no fault of the source, but of the log.
    #[error("the log holds an entry that is not a leaf, in {bundle}")]
    NotALeaf {
        /// In which bundle.
        bundle: Resource,
        /// Which entry, and why.
        #[source]
        source: BundleError,
    },
}

/// The hashes of a tile; `None` unless there are exactly `width`.
fn hashes_of(bytes: &[u8], width: u16) -> Option<Vec<Hash>> {
    if bytes.len() != usize::from(width) * HASH_BYTES {
        return None;
    }
    let hash = |chunk: &[u8]| chunk.try_into().ok().map(Hash);
    bytes.chunks_exact(HASH_BYTES).map(hash).collect()
}

/// The bytes of a tile with these hashes.
fn tile_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}
