//! What a watch remembers between two looks at the log.

use std::collections::HashSet;

use candor_wire::cbor::{self, Canonical, CodecError};
use candor_wire::chain::CHAIN_MAX_ENTRIES;

use super::{KINDS_MAX, Stated, WATCH_AHEAD};
use crate::leaf::{Class, Leaf};
use crate::state_map::MapRoot;

/// The version of states that this build writes and the lowest that it accepts.
pub const WATCH_STATE_VERSION: u8 = 1;

/// Most leaves that are kept beside the first one of each label. They are evidence against the cell,
/// which more of the same does not make stronger; further ones are counted.
pub const EVIDENCE_MAX: usize = 1024;

/// Most leaves that are kept: one for each label of the longest chain and ahead of it, and the evidence.
const SIGHTINGS_MAX: usize =
    CHAIN_MAX_ENTRIES as usize + KINDS_MAX * WATCH_AHEAD as usize + EVIDENCE_MAX;

/// Longest encoding of one kept leaf, in bytes.
const SIGHTING_MAX_BYTES: usize = 97;

/// A leaf with one of the account's labels.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct Sighting {
    /// Its place in the log.
    #[n(0)]
    pub(super) index: u64,
    /// What the label is for: the kind.
    #[n(1)]
    pub(super) kind: u8,
    /// What the label is for: the number.
    #[n(2)]
    pub(super) n: u64,
    /// [`Class::code`].
    #[n(3)]
    pub(super) class: u8,
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) label: [u8; 32],
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) commitment: [u8; 32],
}

impl Sighting {
    /// Whether this is the leaf of a statement. All kinds that exist are sealed: strangers would count
    /// one in an open class as something that it is not.
    pub(super) fn is_of(&self, stated: &Stated) -> bool {
        self.class == Class::Sealed.code()
            && self.label == *stated.label.as_bytes()
            && self.commitment == *stated.commitment.as_bytes()
    }
}

/// The leaf of a version of the state map. A device that scans all leaves needs nobody to tell it which
/// version is the newest of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapLeaf {
    /// Its place in the log.
    pub index: u64,
    /// The version.
    pub version: u64,
    /// The root of that version.
    pub root: MapRoot,
}

#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct StoredMapLeaf {
    #[n(0)]
    index: u64,
    #[n(1)]
    version: u64,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    root: [u8; 32],
}

/// How far a device looked, and what it saw of its account. It tells which leaves of a public log are
/// the account's: it belongs beside the chain, has no `Debug`, and is never sent.
#[derive(Clone, PartialEq, Eq)]
pub struct WatchState {
    content: Content,
    /// The labels of the kept leaves.
    labels: HashSet<[u8; 32]>,
}

#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Content {
    /// Always [`WATCH_STATE_VERSION`].
    #[n(0)]
    version: u8,
    /// How many leaves were scanned.
    #[n(1)]
    position: u64,
    /// Ascending by place.
    #[n(2)]
    sightings: Vec<Sighting>,
    /// How many leaves with labels of the account were seen and not kept.
    #[n(3)]
    left_off: u64,
    /// The last leaf of a state map.
    #[n(4)]
    newest_map: Option<StoredMapLeaf>,
    /// How many leaves of state maps did not follow from the one before.
    #[n(5)]
    unordered_maps: u64,
}

impl Canonical for Content {
    const WHAT: &'static str = "the state of a watch";
    const MAX_BYTES: usize = SIGHTINGS_MAX * SIGHTING_MAX_BYTES + 128;
}

/// A stored state cannot be used. The log has to be scanned from its beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchStateError {
    /// Not a valid encoding.
    #[error("the state of the watch cannot be read")]
    Codec(#[source] CodecError),
    /// Leaves that are not in order, not among those scanned, of no known class, or too many.
    #[error("the state of the watch contradicts itself")]
    Contradiction,
}

impl Default for WatchState {
    fn default() -> Self {
        Self::new()
    }
}

impl WatchState {
    /// Nothing was scanned yet.
    pub fn new() -> Self {
        Self {
            content: Content {
                version: WATCH_STATE_VERSION,
                position: 0,
                sightings: Vec::new(),
                left_off: 0,
                newest_map: None,
                unordered_maps: 0,
            },
            labels: HashSet::new(),
        }
    }

    /// Reads a stored state.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WatchStateError> {
        let content: Content = cbor::decode(bytes).map_err(WatchStateError::Codec)?;
        if content.version != WATCH_STATE_VERSION {
            return Err(WatchStateError::Codec(CodecError::Version {
                what: Content::WHAT,
                version: u32::from(content.version),
            }));
        }
        let sightings = &content.sightings;
        let ascend = sightings
            .windows(2)
            .all(|pair| pair[0].index < pair[1].index);
        let scanned = sightings
            .last()
            .is_none_or(|last| last.index < content.position);
        let known = sightings
            .iter()
            .all(|sighting| Class::from_code(sighting.class).is_some());
        let map = content.newest_map.as_ref();
        let scanned = scanned && map.is_none_or(|map| map.index < content.position);
        if !(ascend && scanned && known && sightings.len() <= SIGHTINGS_MAX) {
            return Err(WatchStateError::Contradiction);
        }
        let labels = sightings.iter().map(|sighting| sighting.label).collect();
        Ok(Self { content, labels })
    }

    /// The canonical encoding, to be stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(&self.content)
    }

    /// How many leaves were scanned; also the place of the leaf that is next.
    pub const fn position(&self) -> u64 {
        self.content.position
    }

    /// How many leaves with labels of the account were seen and not kept, since there are
    /// [`EVIDENCE_MAX`] others that an honest log does not have.
    pub const fn left_off(&self) -> u64 {
        self.content.left_off
    }

    pub(super) fn sightings(&self) -> &[Sighting] {
        &self.content.sightings
    }

    /// The last leaf of a state map that was scanned: the newest version of the tree.
    pub fn newest_map(&self) -> Option<MapLeaf> {
        self.content.newest_map.as_ref().map(|map| MapLeaf {
            index: map.index,
            version: map.version,
            root: MapRoot(map.root),
        })
    }

    /// How many leaves of state maps do not have the version after the one before; the first has to have
    /// version 1. None, in a log that keeps its rules.
    pub const fn unordered_maps(&self) -> u64 {
        self.content.unordered_maps
    }

    /// Counts the next leaf, and keeps what is known of it: which label of the account it has.
    pub(super) fn scanned(&mut self, leaf: &Leaf, sighting: Option<Sighting>) {
        if leaf.class == Class::StateMap {
            let newest = &mut self.content.newest_map;
            let before = newest.as_ref().map_or(0, |map| map.version);
            // A label that is no version cannot be decoded from a log; here it counts as version 0.
            let version = leaf.state_map_version().unwrap_or(0);
            let follows = before.checked_add(1) == Some(version);
            let unordered = &mut self.content.unordered_maps;
            // A stored count may be any: at its end it stays there, and does not begin anew.
            *unordered = unordered.saturating_add(u64::from(!follows));
            *newest = Some(StoredMapLeaf {
                index: self.content.position,
                version,
                root: leaf.commitment,
            });
        }
        self.content.position += 1;
        let Some(sighting) = sighting else {
            return;
        };
        let kept = self.content.sightings.len();
        let is_first = !self.labels.contains(&sighting.label);
        let evidence = kept - self.labels.len();
        if kept < SIGHTINGS_MAX && (is_first || evidence < EVIDENCE_MAX) {
            self.labels.insert(sighting.label);
            self.content.sightings.push(sighting);
        } else {
            self.content.left_off = self.content.left_off.saturating_add(1);
        }
    }
}
