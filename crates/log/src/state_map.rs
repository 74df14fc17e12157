//! A cell's state map: for each account, what its chain and the heads of its vaults are now.
//!
//! Chains and heads change too often to be leaves of the log. They are entries of this map instead, and
//! the map's root is a leaf of the log with each batch. A cell that shows one state to a device and
//! another state to another has to publish two roots, and witnesses cosign only one.
//!
//! 1. An account's entry is a key and a value of 32 bytes each. Both are HMACs under a secret of the
//!    account ([`StateSecret`]): whoever has the whole map and the whole log, and nothing else, cannot
//!    compute whose an entry is, or what it says.
//! 2. The map is a binary tree over the bits of keys, the most significant bit first. The empty map is
//!    32 zero bytes. A subtree with one entry is that entry, at whatever depth:
//!    `SHA-256(0x00 | key | value)`. Every other subtree is `SHA-256(0x01 | left | right)`.
//! 3. With each version the cell publishes what changed ([`encode_inputs`], at [`inputs_path`]). Anybody
//!    rebuilds the map from version 1 on and compares its root with the version's leaf.
//! 4. A device asks for the proof of its own key ([`MapProof`]) and checks it under a root that is in a
//!    witnessed tree. The value must be the one of the state that the device knows.
//!
//! **What a proof reveals.** Keys are HMACs, so their order says nothing. A proof holds hashes of
//! subtrees and at most one entry. If the key is absent, that entry may be a neighbour: its key and its
//! value, two outputs of HMAC. Both are in the published inputs anyway; neither says who it is.
//!
//! **What the published inputs reveal.** Which key changed with which version: how many keys there are,
//! and how often the account behind a key is active. Somebody who knows by other means when a person was
//! active can guess which key is theirs; a cell may change keys that are nobody's, to make that harder.
//! Leaves that came in a batch in which one account's key changed are that account's. A device that was revoked knew the secret, and can go on following this one key. Entries are never taken
//! out; once the salt of an account's genesis is destroyed, nobody can tell any more whose it was.
//!
//! Threats: rows A15, A16 and A17; an old value, another account's value, an account that is denied. The
//! format is in `docs/formats/state-map.md`.

mod account;
mod inputs;
mod proof;

use std::sync::Arc;

use sha2::Digest as _;

pub use account::{
    ACCOUNT_STATE_VERSION, AccountState, AccountStateError, StateSecret, VaultState,
};
pub use inputs::{
    INPUTS_MAX_BYTES, INPUTS_MAX_ENTRIES, InputsError, decode_inputs, encode_inputs, inputs_path,
    inputs_version,
};
pub use proof::{MAP_PROOF_VERSION, MAP_SIBLINGS_MAX, MapProof, MapProofError};

/// Bits of a key, and so the greatest depth of the map. What follows a path never goes deeper.
const KEY_BITS: usize = 256;

/// Stands for a subtree without entries.
const EMPTY: [u8; 32] = [0; 32];

const ENTRY_PREFIX: u8 = 0x00;
const INNER_PREFIX: u8 = 0x01;

macro_rules! bytes_32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let hex = candor_wire::ids::to_hex(&self.0);
                write!(f, concat!(stringify!($name), "({})"), hex)
            }
        }
    };
}

bytes_32!(
    /// Where an account stands in the map. Made by [`StateSecret::key`].
    MapKey
);
bytes_32!(
    /// What the map says of an account. Made by [`StateSecret::value`].
    MapValue
);
bytes_32!(
    /// The root of a whole map: 32 zero bytes for the empty one.
    MapRoot
);

impl MapKey {
    /// Bit `depth` of the key, from the most significant one. Beyond the last bit there are zeros.
    fn bit(&self, depth: usize) -> bool {
        let byte = self.0.get(depth / 8).copied().unwrap_or(0);
        byte & (0x80 >> (depth % 8)) != 0
    }

    /// The first bit in which two keys differ; [`KEY_BITS`] for equal ones.
    fn first_difference(&self, other: &Self) -> usize {
        let differs = |(a, b): (&u8, &u8)| a != b;
        match self.0.iter().zip(&other.0).position(differs) {
            None => KEY_BITS,
            Some(byte) => byte * 8 + (self.0[byte] ^ other.0[byte]).leading_zeros() as usize,
        }
    }
}

/// A key and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MapEntry {
    key: MapKey,
    value: MapValue,
}

impl MapEntry {
    fn hash(&self) -> [u8; 32] {
        hash_of(ENTRY_PREFIX, &self.key.0, &self.value.0)
    }
}

fn hash_of(prefix: u8, first: &[u8; 32], second: &[u8; 32]) -> [u8; 32] {
    let mut bytes = [prefix; 65];
    bytes[1..33].copy_from_slice(first);
    bytes[33..].copy_from_slice(second);
    sha2::Sha256::digest(bytes).into()
}

/// The hash of a subtree at `depth`, from the hash of its half on the side of `key` and the other half.
fn join_hashes(key: &MapKey, depth: usize, same: &[u8; 32], other: &[u8; 32]) -> [u8; 32] {
    if key.bit(depth) {
        hash_of(INNER_PREFIX, other, same)
    } else {
        hash_of(INNER_PREFIX, same, other)
    }
}

/// Part of a map. A place where all keys go the same way is not a node: keys that agree in many bits
/// cost no more memory than others, so foreign inputs of n entries make at most 2n - 1 nodes.
enum Node {
    Entry(MapEntry),
    Fork(Fork),
}

struct Fork {
    /// The first bit in which keys below differ. Grows from a node to its halves.
    bit: usize,
    /// The hash of the subtree that begins at this bit.
    hash: [u8; 32],
    left: Arc<Node>,
    right: Arc<Node>,
}

impl Node {
    /// The first bit in which keys below differ; [`KEY_BITS`] for a single one.
    fn bit(&self) -> usize {
        match self {
            Self::Entry(_) => KEY_BITS,
            Self::Fork(fork) => fork.bit,
        }
    }

    /// A key below this node: all of them agree in the bits before its fork.
    fn some_key(&self) -> &MapKey {
        let mut node = self;
        loop {
            match node {
                Self::Entry(entry) => return &entry.key,
                Self::Fork(fork) => node = &fork.left,
            }
        }
    }

    /// The hash of the subtree that begins at `depth`, at or above the node's own fork.
    fn hash_from(&self, depth: usize) -> [u8; 32] {
        let fork = match self {
            Self::Entry(entry) => return entry.hash(),
            Self::Fork(fork) => fork,
        };
        if fork.bit == depth {
            return fork.hash;
        }
        let key = self.some_key();
        let above = (depth..fork.bit).rev();
        above.fold(fork.hash, |hash, depth| {
            join_hashes(key, depth, &hash, &EMPTY)
        })
    }
}

/// A map in memory. Versions share what did not change: [`Self::with`] makes a new one, the old one
/// stays readable, and a clone costs nothing.
///
/// Memory: n entries are 2n - 1 nodes of 88 bytes, which are 96 in an allocator of 16-byte steps: 192
/// bytes for each account (188 measured, for 100,000). A further version costs the nodes of the paths
/// that it changes: about 800 bytes for each of 1,000 changes among 100,000 accounts.
#[derive(Clone, Default)]
pub struct StateMap {
    top: Option<Arc<Node>>,
    len: usize,
}

impl core::fmt::Debug for StateMap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut shown = f.debug_struct("StateMap");
        shown.field("len", &self.len).field("root", &self.root());
        shown.finish()
    }
}

impl StateMap {
    /// The empty map, which is the one before version 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// The root, which is in the log.
    pub fn root(&self) -> MapRoot {
        MapRoot(self.top.as_ref().map_or(EMPTY, |node| node.hash_from(0)))
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get(&self, key: &MapKey) -> Option<MapValue> {
        let mut node = self.top.as_ref()?;
        loop {
            match &**node {
                Node::Entry(entry) => return (entry.key == *key).then_some(entry.value),
                Node::Fork(fork) => {
                    let right = key.bit(fork.bit);
                    node = if right { &fork.right } else { &fork.left };
                }
            }
        }
    }

    /// The map after these changes: keys that are new, and new values of keys that were there. They
    /// may be in any order; of two changes of one key the later one counts.
    pub fn with(&self, changes: &[(MapKey, MapValue)]) -> Self {
        let mut added = 0;
        let top = merge(self.top.as_ref(), 0, &in_order(changes), &mut added);
        Self {
            top,
            len: self.len + added,
        }
    }

    /// The proof of what this map says of a key: its value, or that there is none.
    pub fn prove(&self, key: &MapKey) -> MapProof {
        let mut siblings = Vec::new();
        let mut node = self.top.as_ref();
        let mut found = None;
        while let Some(here) = node {
            match &**here {
                Node::Entry(entry) => {
                    found = Some(*entry);
                    break;
                }
                Node::Fork(fork) => {
                    let bit = fork.bit;
                    if siblings.len() < bit {
                        // On the way to this fork there is nothing beside its keys.
                        let agree = key.first_difference(here.some_key()).min(bit);
                        siblings.resize(agree, EMPTY);
                        if agree < bit {
                            siblings.push(here.hash_from(agree + 1));
                            break;
                        }
                    }
                    let (next, other) = if key.bit(bit) {
                        (&fork.right, &fork.left)
                    } else {
                        (&fork.left, &fork.right)
                    };
                    siblings.push(other.hash_from(bit + 1));
                    node = Some(next);
                }
            }
        }
        MapProof::new(siblings, found)
    }
}

/// Changes in the order of their keys, each key once: of several the last one.
fn in_order(changes: &[(MapKey, MapValue)]) -> Vec<(MapKey, MapValue)> {
    let mut sorted = changes.to_vec();
    // A stable sort: changes of one key stay in their order.
    sorted.sort_by_key(|change| change.0);
    sorted.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1;
        }
        same
    });
    sorted
}

/// The subtree that begins at `depth` and holds `node`'s entries, changed. Calls itself at most
/// [`KEY_BITS`] deep: each level splits at a later bit than the one above.
fn merge(
    node: Option<&Arc<Node>>,
    depth: usize,
    changes: &[(MapKey, MapValue)],
    added: &mut usize,
) -> Option<Arc<Node>> {
    let (first, last) = match changes {
        [] => return node.cloned(),
        [first, .., last] => (first, last),
        [only] => (only, only),
    };
    // The first bit in which the keys here differ.
    let mut bit = first.0.first_difference(&last.0);
    if let Some(node) = node {
        bit = if node.bit() == depth {
            depth
        } else {
            let apart = first.0.first_difference(node.some_key());
            bit.min(apart).min(node.bit())
        };
    }
    if bit == KEY_BITS {
        // One key, and nothing else is here.
        *added += usize::from(node.is_none());
        let (key, value) = *first;
        return Some(Arc::new(Node::Entry(MapEntry { key, value })));
    }
    let (left, right) = halves(node, bit);
    let (to_left, to_right) =
        changes.split_at(changes.partition_point(|change| !change.0.bit(bit)));
    let left = merge(left, bit + 1, to_left, added);
    let right = merge(right, bit + 1, to_right, added);
    fork(bit, left, right)
}

/// What of a node belongs to the left and to the right of `bit`, which is not after its own fork.
fn halves(node: Option<&Arc<Node>>, bit: usize) -> (Option<&Arc<Node>>, Option<&Arc<Node>>) {
    match node.map(|here| &**here) {
        None => (None, None),
        Some(Node::Fork(fork)) if fork.bit == bit => (Some(&fork.left), Some(&fork.right)),
        Some(here) if here.some_key().bit(bit) => (None, node),
        Some(_) => (node, None),
    }
}

fn fork(bit: usize, left: Option<Arc<Node>>, right: Option<Arc<Node>>) -> Option<Arc<Node>> {
    let (left, right) = match (left, right) {
        (Some(left), Some(right)) => (left, right),
        (one, None) | (None, one) => return one,
    };
    let hash = hash_of(
        INNER_PREFIX,
        &left.hash_from(bit + 1),
        &right.hash_from(bit + 1),
    );
    Some(Arc::new(Node::Fork(Fork {
        bit,
        hash,
        left,
        right,
    })))
}
