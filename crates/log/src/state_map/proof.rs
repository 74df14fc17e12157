//! The proof that a map says something of a key, or nothing.
//!
//! From the root the bits of the key lead down a path. The proof holds the hash of everything beside
//! that path, and the entry at the end of it, if there is one. Whoever checks it computes the root from
//! these and compares. One root has one answer for each key, even if whoever made the map did not keep
//! its rules: a second answer would need two inputs of SHA-256 with one output.

use candor_wire::cbor::{self, Canonical, CodecError};

use super::{EMPTY, KEY_BITS, MapEntry, MapKey, MapRoot, MapValue, join_hashes};

/// The version of proofs that this build writes and the lowest that it accepts.
pub const MAP_PROOF_VERSION: u8 = 1;

/// Most hashes beside a path: one for each bit of a key.
pub const MAP_SIBLINGS_MAX: usize = KEY_BITS;

const HASH_BYTES: usize = 32;
const ENTRY_BYTES: usize = 64;

/// Longest encoding, in bytes: all siblings, an entry, and ten bytes of CBOR around them.
const MAP_PROOF_MAX_BYTES: usize = MAP_SIBLINGS_MAX * HASH_BYTES + ENTRY_BYTES + 10;

/// What a map says of one key, for somebody who has only the root. Canonical CBOR.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct MapProof {
    /// Always [`MAP_PROOF_VERSION`].
    #[n(0)]
    version: u8,
    /// Beside the path, from the root down.
    #[n(1)]
    siblings: Siblings,
    /// At the end of the path: the key's own entry, a neighbour's, or none.
    #[n(2)]
    entry: Option<MapEntry>,
}

impl Canonical for MapProof {
    const WHAT: &'static str = "a proof of the state map";
    const MAX_BYTES: usize = MAP_PROOF_MAX_BYTES;
}

/// A proof of the state map does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapProofError {
    /// The version is one that this build does not accept.
    #[error("version {version} of a proof of the state map is not accepted")]
    Version {
        /// The version found.
        version: u8,
    },
    /// The entry in the proof cannot stand on the path of the key.
    #[error("the proof shows an entry that does not stand on the path of the key")]
    Misplaced,
    /// The path is longer than the rules of the map make it.
    #[error("the path in the proof is longer than it can be")]
    TooLong,
    /// The proof leads to another root.
    #[error("the proof does not lead to the root of the state map")]
    Root,
}

impl MapProof {
    pub(super) fn new(siblings: Vec<[u8; 32]>, entry: Option<MapEntry>) -> Self {
        Self {
            version: MAP_PROOF_VERSION,
            siblings: Siblings(siblings),
            entry,
        }
    }

    /// The canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Decodes a foreign proof: bounded, canonical, and of a version that this build knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let proof: Self = cbor::decode(bytes)?;
        if proof.version == MAP_PROOF_VERSION {
            Ok(proof)
        } else {
            Err(CodecError::Version {
                what: Self::WHAT,
                version: u32::from(proof.version),
            })
        }
    }

    /// What the map with this root says of `key`: `Some` value, or `None`: it is proven that there is
    /// no entry. An error proves nothing, and is the fault of whoever gave the proof.
    pub fn verify(&self, root: &MapRoot, key: &MapKey) -> Result<Option<MapValue>, MapProofError> {
        if self.version != MAP_PROOF_VERSION {
            return Err(MapProofError::Version {
                version: self.version,
            });
        }
        let siblings = &self.siblings.0;
        // A subtree with one entry is that entry, and one without is empty: neither has halves.
        if siblings.last() == Some(&EMPTY) {
            return Err(MapProofError::TooLong);
        }
        let end = match &self.entry {
            None => EMPTY,
            Some(entry) if entry.key.first_difference(key) < siblings.len() => {
                return Err(MapProofError::Misplaced);
            }
            Some(entry) => entry.hash(),
        };
        let upwards = siblings.iter().enumerate().rev();
        let reached = upwards.fold(end, |hash, (depth, sibling)| {
            join_hashes(key, depth, &hash, sibling)
        });
        if reached != root.0 {
            return Err(MapProofError::Root);
        }
        let own = self.entry.filter(|entry| entry.key == *key);
        Ok(own.map(|entry| entry.value))
    }
}

/// Hashes, one after the other in one byte string.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Siblings(Vec<[u8; HASH_BYTES]>);

impl<C> minicbor::Encode<C> for Siblings {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(self.0.as_flattened())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Siblings {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let (hashes, rest) = d.bytes()?.as_chunks::<HASH_BYTES>();
        if rest.is_empty() && hashes.len() <= MAP_SIBLINGS_MAX {
            Ok(Self(hashes.to_vec()))
        } else {
            Err(minicbor::decode::Error::message("not a list of siblings"))
        }
    }
}

impl<C> minicbor::Encode<C> for MapEntry {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes([self.key.0, self.value.0].as_flattened())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for MapEntry {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match d.bytes()?.as_chunks::<HASH_BYTES>() {
            ([key, value], []) => Ok(Self {
                key: MapKey(*key),
                value: MapValue(*value),
            }),
            _ => Err(minicbor::decode::Error::message("not an entry of the map")),
        }
    }
}
