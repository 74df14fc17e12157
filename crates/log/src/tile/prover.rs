//! Reading tiles and making proofs from them, without believing them.

use core::cell::{OnceCell, RefCell};
use std::sync::Arc;

use tlog_tiles::tlog::{self, HashReader};

use super::edge::{read_leaves, read_levels};
use super::{
    BundleId, Resource, Suspect, TILE_LEVELS, TILE_WIDTH, TileError, TileId, TileSource, hashes_of,
    width_at,
};
use crate::leaf::Leaf;
use crate::tree::{Consistency, Hash, Inclusion, TreeHead, empty_root, own_path, subtree_hash};

type Hashes = Arc<[Hash]>;

/// Reads tiles of a tree whose head is known.
///
/// The partial tiles are read first and must, together, give the root. The root of a full tile is
/// in the level above: so tiles are checked from the edge down, each before anything in it is used.
/// The newest full tile of each level stays in memory, which makes walking along a log linear.
///
/// A full tile is asked for when a partial one is gone only if the source does so itself.
pub struct Prover<'a, S: TileSource> {
    source: &'a S,
    head: TreeHead,
    edge: OnceCell<Vec<Hashes>>,
    newest: RefCell<[Option<(u64, Hashes)>; TILE_LEVELS as usize]>,
}

impl<'a, S: TileSource> Prover<'a, S> {
    /// Of the tree with this head. Reads nothing yet.
    pub fn new(source: &'a S, head: TreeHead) -> Self {
        Self {
            source,
            head,
            edge: OnceCell::new(),
            newest: RefCell::default(),
        }
    }

    /// The head.
    pub const fn head(&self) -> TreeHead {
        self.head
    }

    /// Proves the place of a leaf.
    pub fn inclusion(&self, index: u64) -> Result<Inclusion, TileError<S::Error>> {
        if index >= self.head.size {
            return Err(self.out_of_tree());
        }
        let path = self.with_reader(|reader| tlog::prove_record(self.head.size, index, reader))?;
        Ok(Inclusion {
            index,
            path: own_path(&path),
        })
    }

    /// Proves that the tree begins with the one of `old_size` leaves.
    pub fn consistency(&self, old_size: u64) -> Result<Consistency, TileError<S::Error>> {
        if old_size > self.head.size {
            return Err(self.out_of_tree());
        }
        if old_size == 0 || old_size == self.head.size {
            return Ok(Consistency { path: Vec::new() });
        }
        let path = self.with_reader(|reader| tlog::prove_tree(self.head.size, old_size, reader))?;
        Ok(Consistency {
            path: own_path(&path),
        })
    }

    /// The root that the tree had when it had `old_size` leaves.
    pub fn root_of(&self, old_size: u64) -> Result<Hash, TileError<S::Error>> {
        if old_size > self.head.size {
            return Err(self.out_of_tree());
        }
        if old_size == 0 {
            return Ok(empty_root());
        }
        let root = self.with_reader(|reader| tlog::tree_hash(old_size, reader))?;
        Ok(Hash(root.0))
    }

    /// The entries of a bundle, each checked against its hash in the tree. The bundle may be
    /// narrower than the one that the tree has there.
    pub fn leaves(&self, bundle: &BundleId) -> Result<Vec<Leaf>, TileError<S::Error>> {
        let width = width_at(0, bundle.index, self.head.size);
        if bundle.width == 0 || bundle.width > width {
            return Err(self.out_of_tree());
        }
        let hashes = self.tile(0, bundle.index)?;
        read_leaves(self.source, *bundle, &hashes[..usize::from(bundle.width)])
    }

    const fn out_of_tree(&self) -> TileError<S::Error> {
        TileError::OutOfTree {
            size: self.head.size,
        }
    }

    /// The partial tile of each level, checked.
    fn edge(&self) -> Result<&[Hashes], TileError<S::Error>> {
        if let Some(edge) = self.edge.get() {
            return Ok(edge);
        }
        let levels = read_levels(self.source, &self.head)?;
        let edge = levels.into_iter().map(Hashes::from).collect();
        Ok(self.edge.get_or_init(|| edge))
    }

    /// The hashes of a tile, checked.
    fn tile(&self, level: u8, index: u64) -> Result<Hashes, TileError<S::Error>> {
        let place = usize::from(level);
        let edge = self.edge()?;
        let width = width_at(level, index, self.head.size);
        if width == 0 || level >= TILE_LEVELS {
            return Err(self.out_of_tree());
        }
        if u64::from(width) < TILE_WIDTH {
            return Ok(edge[place].clone());
        }
        if let Some((newest, hashes)) = &self.newest.borrow()[place]
            && *newest == index
        {
            return Ok(hashes.clone());
        }
        let above = self.tile(level + 1, index / TILE_WIDTH)?;
        let within = usize::try_from(index % TILE_WIDTH).expect("a remainder of 256");
        let root = above.get(within).ok_or_else(|| self.out_of_tree())?;
        let resource = Resource::Tile(TileId {
            level,
            index,
            width,
        });
        let bytes = self.source.read(&resource).map_err(TileError::Source)?;
        let hashes: Hashes = hashes_of(&bytes, width)
            .filter(|hashes| subtree_hash(hashes) == *root)
            .ok_or(TileError::NotAuthentic(Suspect::Resource(resource)))?
            .into();
        self.newest.borrow_mut()[place] = Some((index, hashes.clone()));
        Ok(hashes)
    }

    /// The root over the full subtree of `2^height` leaves that is number `index` of that height.
    fn subtree(&self, height: u8, index: u64) -> Result<Hash, TileError<S::Error>> {
        let within = u32::from(height % 8);
        let first = index << within;
        let hashes = self.tile(height / 8, first / TILE_WIDTH)?;
        let start = usize::try_from(first % TILE_WIDTH).expect("a remainder of 256");
        let part = hashes.get(start..start + (1 << within));
        part.map(subtree_hash).ok_or_else(|| self.out_of_tree())
    }

    /// Runs a function of `tlog_tiles` over the checked tiles, and brings this crate's errors
    /// through it.
    fn with_reader<T>(
        &self,
        run: impl FnOnce(&Reader<'_, 'a, S>) -> Result<T, tlog::Error>,
    ) -> Result<T, TileError<S::Error>> {
        self.edge()?;
        let reader = Reader {
            prover: self,
            failed: RefCell::new(None),
        };
        let result = run(&reader);
        match (result, reader.failed.into_inner()) {
            (Ok(value), None) => Ok(value),
            (_, Some(error)) => Err(error),
            (Err(_), None) => Err(self.out_of_tree()),
        }
    }
}

struct Reader<'p, 'a, S: TileSource> {
    prover: &'p Prover<'a, S>,
    failed: RefCell<Option<TileError<S::Error>>>,
}

impl<S: TileSource> HashReader for Reader<'_, '_, S> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        let mut hashes = Vec::with_capacity(indexes.len());
        for index in indexes {
            // Indexes come from `tlog_tiles` itself, for a size that was checked.
            let (height, place) = tlog::split_stored_hash_index(*index);
            match self.prover.subtree(height, place) {
                Ok(hash) => hashes.push(tlog::Hash(hash.0)),
                Err(error) => {
                    *self.failed.borrow_mut() = Some(error);
                    return Err(tlog::Error::InvalidTile);
                }
            }
        }
        Ok(hashes)
    }
}
