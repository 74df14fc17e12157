//! The Merkle tree of RFC 6962, section 2.1: hashes, tree heads, and the two proofs.
//!
//! Leaves hash as SHA-256(0x00 | leaf), nodes as SHA-256(0x01 | left | right), the empty tree as
//! SHA-256 of nothing. Proofs are checked by `tlog_tiles`, which copies what is left of a proof at
//! every level and asserts its arithmetic: so sizes and lengths are bounded here before it is asked.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tlog_tiles::tlog;

/// Length of a hash, in bytes.
pub const HASH_BYTES: usize = 32;

/// Largest tree, in leaves. A leaf each second fills it in 34,000 years; with it a tree has six levels
/// of tiles, and no arithmetic on sizes comes near the end of 64 bits. Everything above is refused.
pub const TREE_SIZE_MAX: u64 = 1 << 40;

/// Most hashes of one proof: C2SP's bound for a witness. The largest tree accepted here needs 41.
pub const PROOF_MAX_HASHES: usize = 63;

/// Length of a hash in base64, in bytes.
const HASH_BASE64_BYTES: usize = 44;

/// A hash of a leaf, a node or a whole tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; HASH_BYTES]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({})", candor_wire::ids::to_hex(&self.0))
    }
}

impl Hash {
    /// Reads standard base64 with padding (RFC 4648, section 4), in its one spelling.
    pub fn from_base64(text: &str) -> Option<Self> {
        if text.len() != HASH_BASE64_BYTES {
            return None;
        }
        let bytes = STANDARD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// Standard base64 with padding: 44 letters.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    const fn foreign(self) -> tlog::Hash {
        tlog::Hash(self.0)
    }
}

/// What a log commits to: how many leaves, and the root over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// Number of leaves.
    pub size: u64,
    /// Root of the tree over all of them.
    pub root: Hash,
}

impl TreeHead {
    /// The head of the tree without leaves.
    pub fn empty() -> Self {
        Self {
            size: 0,
            root: empty_root(),
        }
    }
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Hash(Sha256::digest(b"").into())
}

/// The hash of a leaf with these bytes.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(bytes);
    Hash(hash.finalize().into())
}

/// The hash of a node over its two children.
pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 1 + 2 * HASH_BYTES];
    bytes[1..=HASH_BYTES].copy_from_slice(&left.0);
    bytes[1 + HASH_BYTES..].copy_from_slice(&right.0);
    Hash(Sha256::digest(bytes).into())
}

/// The root over a full subtree. `hashes` is not empty and its length is a power of two.
pub(crate) fn subtree_hash(hashes: &[Hash]) -> Hash {
    debug_assert!(hashes.len().is_power_of_two());
    match hashes {
        [one] => *one,
        [left, right] => node_hash(left, right),
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&subtree_hash(left), &subtree_hash(right))
        }
    }
}

/// A proof does not show what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf is not in a tree of this size.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    Index {
        /// Which leaf.
        index: u64,
        /// Size of the tree.
        size: u64,
    },
    /// The tree that should be newer is smaller.
    #[error("the tree shrank from {old} to {new} leaves")]
    Shrunk {
        /// Size of the older tree.
        old: u64,
        /// Size of the newer tree.
        new: u64,
    },
    /// The tree has more than [`TREE_SIZE_MAX`] leaves.
    #[error("a tree of {size} leaves is larger than any that is accepted")]
    TooLarge {
        /// Size of the tree.
        size: u64,
    },
    /// More than [`PROOF_MAX_HASHES`] hashes.
    #[error("the proof has {hashes} hashes, more than any tree needs")]
    TooLong {
        /// How many it has.
        hashes: usize,
    },
    /// A tree without leaves has another root than that of the empty tree.
    #[error("the root of a tree without leaves is not that of the empty tree")]
    EmptyRoot,
    /// The proof has the wrong number of hashes, or does not lead to the root.
    #[error("the proof does not lead to the root")]
    Invalid,
}

fn check_bounds(heads: &[&TreeHead], path: &[Hash]) -> Result<(), ProofError> {
    for head in heads {
        if head.size > TREE_SIZE_MAX {
            return Err(ProofError::TooLarge { size: head.size });
        }
        if head.size == 0 && head.root != empty_root() {
            return Err(ProofError::EmptyRoot);
        }
    }
    if path.len() > PROOF_MAX_HASHES {
        return Err(ProofError::TooLong { hashes: path.len() });
    }
    Ok(())
}

fn foreign_path(path: &[Hash]) -> Vec<tlog::Hash> {
    path.iter().map(|hash| hash.foreign()).collect()
}

pub(crate) fn own_path(path: &[tlog::Hash]) -> Vec<Hash> {
    path.iter().map(|hash| Hash(hash.0)).collect()
}

/// That one leaf stands at one place of a tree (RFC 6962, section 2.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    /// Place of the leaf, from 0.
    pub index: u64,
    /// From the leaf's sibling up to the child of the root.
    pub path: Vec<Hash>,
}

impl Inclusion {
    /// Checks that `leaf` stands at [`Self::index`] of the tree with this head.
    pub fn verify(&self, leaf: &Hash, head: &TreeHead) -> Result<(), ProofError> {
        check_bounds(&[head], &self.path)?;
        if self.index >= head.size {
            return Err(ProofError::Index {
                index: self.index,
                size: head.size,
            });
        }
        tlog::check_record(
            &foreign_path(&self.path),
            head.size,
            head.root.foreign(),
            self.index,
            leaf.foreign(),
        )
        .map_err(|_| ProofError::Invalid)
    }
}

/// That a newer tree begins with all leaves of an older one (RFC 6962, section 2.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// The hashes, in the order of the RFC. Empty when the older tree is empty or both are the same.
    pub path: Vec<Hash>,
}

impl Consistency {
    /// Checks it between two heads. Every tree is consistent with the empty one, and with itself.
    pub fn verify(&self, old: &TreeHead, new: &TreeHead) -> Result<(), ProofError> {
        check_bounds(&[old, new], &self.path)?;
        if old.size > new.size {
            return Err(ProofError::Shrunk {
                old: old.size,
                new: new.size,
            });
        }
        if old.size == 0 || old.size == new.size {
            let same = old.size == 0 || old.root == new.root;
            return if same && self.path.is_empty() {
                Ok(())
            } else {
                Err(ProofError::Invalid)
            };
        }
        tlog::check_tree(
            &foreign_path(&self.path),
            new.size,
            new.root.foreign(),
            old.size,
            old.root.foreign(),
        )
        .map_err(|_| ProofError::Invalid)
    }
}
