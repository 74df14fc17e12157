//! Content-defined cutting, and the keyed names of what was cut.
//!
//! FastCDC (2020) with fixed parameters: a file shorter than [`CHUNK_MIN_BYTES`] is one chunk. The
//! lengths of chunks are hidden from the cell by packs, not by a secret cutter, so the cutter needs
//! no key. A chunk's name is BLAKE3 keyed with a secret of the vault: the cell, which knows many
//! files, can confirm none (row 31). Reference: Xia et al., "The Design of Fast Content-Defined
//! Chunking for Data Deduplication Based Storage Systems", IEEE TPDS 2020.

use core::fmt;

use candor_wire::ids::{from_hex, to_hex};

use crate::keys::VaultKeys;

/// Shortest chunk that is not the end of its file, in bytes: small files are one chunk each.
pub const CHUNK_MIN_BYTES: usize = 512 * 1024;

/// The length that cutting aims at, in bytes: an index of a terabyte has about a million entries.
pub const CHUNK_TARGET_BYTES: usize = 1024 * 1024;

/// Longest chunk, in bytes: bounds what a reader of foreign chunks must hold.
pub const CHUNK_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Name of a chunk: BLAKE3 of its plaintext, keyed with a secret of the vault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId([u8; 32]);

impl ChunkId {
    /// Length in bytes.
    pub const BYTES: usize = 32;

    /// The name of this plaintext in this vault.
    pub fn of(keys: &VaultKeys, plaintext: &[u8]) -> Self {
        Self(*blake3::keyed_hash(keys.chunk_id_key(), plaintext).as_bytes())
    }

    /// Takes the bytes as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Takes a slice of exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads 64 lowercase hexadecimal digits.
    pub fn from_text(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

impl<C> minicbor::Encode<C> for ChunkId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for ChunkId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_slice(d.bytes()?)
            .ok_or_else(|| minicbor::decode::Error::message("a chunk id: wrong length"))
    }
}

/// Where the first chunk of `source` ends. `source` must hold at least [`CHUNK_MAX_BYTES`], or
/// all that is left of the content.
pub fn first_cut(source: &[u8]) -> usize {
    let cutter =
        fastcdc::v2020::FastCDC::new(source, CHUNK_MIN_BYTES, CHUNK_TARGET_BYTES, CHUNK_MAX_BYTES);
    let (_, end) = cutter.cut(0, source.len());
    end
}
