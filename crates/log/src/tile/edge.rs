//! The right edge of a tree: reading it, checking it, growing it.

use core::mem;

use super::{
    BundleId, Resource, Suspect, TILE_LEVELS, TILE_WIDTH, TileError, TileId, TileSource, hashes_of,
    leaves_of, put_entry, split_bundle, tile_bytes,
};
use crate::leaf::Leaf;
use crate::tree::{Hash, TREE_SIZE_MAX, TreeHead, empty_root, leaf_hash, node_hash, subtree_hash};

/// Hashes of the partial tile of each level, from level 0; empty where the level has none.
pub(super) type Levels = [Vec<Hash>; TILE_LEVELS as usize];

/// The root over a whole tree, from its partial tiles. The full subtrees of which RFC 6962 makes the
/// tree are all in them: those of level `8 l + b` are in the tile of level `l`, for bit `b` of its width.
fn root_of(levels: &Levels) -> Hash {
    let mut root: Option<Hash> = None;
    for hashes in levels {
        let mut end = hashes.len();
        for bit in 0..8 {
            let width = 1_usize << bit;
            if hashes.len() & width == 0 {
                continue;
            }
            let left = subtree_hash(&hashes[end - width..end]);
            root = Some(root.map_or(left, |right| node_hash(&left, &right)));
            end -= width;
        }
    }
    root.unwrap_or_else(empty_root)
}

/// The partial tiles of a tree of `size` leaves.
fn partial_tiles(size: u64) -> impl Iterator<Item = TileId> {
    (0..TILE_LEVELS).filter_map(move |level| {
        let hashes = size >> (8 * u32::from(level));
        let width = u16::try_from(hashes % TILE_WIDTH).expect("a remainder of 256");
        (width > 0).then_some(TileId {
            level,
            index: hashes / TILE_WIDTH,
            width,
        })
    })
}

/// Reads the partial tiles of a tree and checks that they, together, are those of the head.
pub(super) fn read_levels<S: TileSource>(
    source: &S,
    head: &TreeHead,
) -> Result<Levels, TileError<S::Error>> {
    if head.size > TREE_SIZE_MAX {
        return Err(TileError::TooLarge { size: head.size });
    }
    let mut levels = Levels::default();
    for tile in partial_tiles(head.size) {
        let resource = Resource::Tile(tile);
        let bytes = source.read(&resource).map_err(TileError::Source)?;
        levels[usize::from(tile.level)] = hashes_of(&bytes, tile.width)
            .ok_or(TileError::NotAuthentic(Suspect::Resource(resource)))?;
    }
    if root_of(&levels) == head.root {
        Ok(levels)
    } else {
        Err(TileError::NotAuthentic(Suspect::Edge(*head)))
    }
}

/// Reads a bundle and checks each entry against its hash in the tree.
pub(super) fn read_leaves<S: TileSource>(
    source: &S,
    bundle: BundleId,
    hashes: &[Hash],
) -> Result<Vec<Leaf>, TileError<S::Error>> {
    let resource = Resource::Entries(bundle);
    let bytes = source.read(&resource).map_err(TileError::Source)?;
    let authentic = |entries: &Vec<&[u8]>| {
        entries.len() == hashes.len()
            && (entries.iter().zip(hashes)).all(|(entry, hash)| leaf_hash(entry) == *hash)
    };
    let entries = split_bundle(&bytes, bundle.width)
        .filter(authentic)
        .ok_or(TileError::NotAuthentic(Suspect::Resource(resource)))?;
    leaves_of(&entries).map_err(|source| TileError::NotALeaf {
        bundle: resource,
        source,
    })
}

/// What growing a tree makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// The head of the grown tree.
    pub head: TreeHead,
    /// Every full tile and bundle that was completed, and every partial one of the new size (also
    /// one that the old size had: writing it again changes nothing). In the order in which they may
    /// be written: bundles, then tiles from level 0 up, so that a hash is never there before what it
    /// is made of. All must be durable before a checkpoint over the head is signed.
    pub files: Vec<(Resource, Vec<u8>)>,
}

/// The right edge of a tree: what has to be known to append. At most 255 hashes of each level and
/// 255 entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    levels: Levels,
    bundle: Vec<u8>,
}

impl Edge {
    /// The edge of the tree without leaves.
    pub fn empty() -> Self {
        Self {
            size: 0,
            levels: Levels::default(),
            bundle: Vec::new(),
        }
    }

    /// Reads the edge of the tree with this head: one partial tile for each level, and the partial
    /// bundle. Fails with [`TileError::NotAuthentic`] if what is read does not hash to the head.
    pub fn load<S: TileSource>(source: &S, head: TreeHead) -> Result<Self, TileError<S::Error>> {
        let levels = read_levels(source, &head)?;
        let mut bundle = Vec::new();
        if let Some(width) = super::bundle_at(head.size / TILE_WIDTH, head.size) {
            for leaf in read_leaves(source, width, &levels[0])? {
                put_entry(&mut bundle, &leaf.encode());
            }
        }
        Ok(Self {
            size: head.size,
            levels,
            bundle,
        })
    }

    /// The head of the tree.
    pub fn head(&self) -> TreeHead {
        TreeHead {
            size: self.size,
            root: root_of(&self.levels),
        }
    }

    /// Appends leaves and says which files that makes. Without leaves: the partial ones of now.
    ///
    /// # Panics
    ///
    /// When the tree would have more than [`TREE_SIZE_MAX`] leaves, which takes longer to append
    /// than anything here will be used.
    pub fn append(&mut self, leaves: &[Leaf]) -> Growth {
        let added = leaves.len() as u64;
        assert!(
            self.size <= TREE_SIZE_MAX - added.min(TREE_SIZE_MAX),
            "a tree has at most {TREE_SIZE_MAX} leaves"
        );
        let mut bundles = Vec::new();
        let mut tiles = Vec::new();
        for leaf in leaves {
            let bytes = leaf.encode();
            put_entry(&mut self.bundle, &bytes);
            self.levels[0].push(leaf_hash(&bytes));
            self.size += 1;
            if self.size.is_multiple_of(TILE_WIDTH) {
                let id = BundleId {
                    index: self.size / TILE_WIDTH - 1,
                    width: TILE_WIDTH as u16,
                };
                bundles.push((Resource::Entries(id), mem::take(&mut self.bundle)));
                self.complete_tiles(&mut tiles);
            }
        }
        if let Some(id) = super::bundle_at(self.size / TILE_WIDTH, self.size) {
            bundles.push((Resource::Entries(id), self.bundle.clone()));
        }
        for tile in partial_tiles(self.size) {
            let hashes = &self.levels[usize::from(tile.level)];
            tiles.push((tile, tile_bytes(hashes)));
        }
        tiles.sort_by_key(|(tile, _)| *tile);
        let tiles = tiles
            .into_iter()
            .map(|(tile, bytes)| (Resource::Tile(tile), bytes));
        bundles.extend(tiles);
        Growth {
            head: self.head(),
            files: bundles,
        }
    }

    /// Takes full tiles out, from level 0 up, and puts the root of each into the level above.
    fn complete_tiles(&mut self, tiles: &mut Vec<(TileId, Vec<u8>)>) {
        for level in 0..TILE_LEVELS - 1 {
            let place = usize::from(level);
            if (self.levels[place].len() as u64) < TILE_WIDTH {
                return;
            }
            let hashes = mem::take(&mut self.levels[place]);
            let id = TileId {
                level,
                index: (self.size >> (8 * u32::from(level))) / TILE_WIDTH - 1,
                width: TILE_WIDTH as u16,
            };
            tiles.push((id, tile_bytes(&hashes)));
            self.levels[place + 1].push(subtree_hash(&hashes));
        }
    }
}
