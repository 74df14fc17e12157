//! Index objects: sealed lists of packs with the tables of what they hold.
//!
//! Together, the index objects of a manifest say where every chunk of the vault lies, so a device
//! with nothing but the keys makes its whole index from them, without fetching packs. Body: version
//! (1 byte), number of packs (4), then for each pack its name (32), sealed size (4), length of its
//! table (4) and the table as it is at the pack's end. All integers are big-endian.

use candor_wire::ObjectId;

use crate::pack::{PackError, Table};
use crate::seal::{BODY_MAX_BYTES, is_object_size};

/// Version of the body's encoding.
pub const INDEX_OBJECT_VERSION: u8 = 1;

/// Length of the body's fixed part, in bytes.
pub const INDEX_HEAD_BYTES: usize = 1 + 4;

/// Length of a pack's entry without its table, in bytes.
pub const PACK_ENTRY_BYTES: usize = ObjectId::BYTES + 4 + 4;

/// The opened bytes are not a well-formed index object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the index object is not well formed")]
pub struct IndexObjectError;

impl From<PackError> for IndexObjectError {
    fn from(_: PackError) -> Self {
        Self
    }
}

/// One pack of an index object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackEntry<'a> {
    /// The sealed pack.
    pub object: ObjectId,
    /// Size of the sealed pack, in bytes.
    pub stored_bytes: u32,
    /// Its table, encoded; decode it with [`Table::decode`].
    pub table: &'a [u8],
}

/// Collects packs into the body of one index object.
pub struct IndexBody {
    bytes: Vec<u8>,
    packs: u32,
}

impl Default for IndexBody {
    fn default() -> Self {
        Self::new()
    }
}

impl IndexBody {
    /// An empty body.
    pub fn new() -> Self {
        let mut bytes = vec![INDEX_OBJECT_VERSION];
        bytes.extend_from_slice(&0u32.to_be_bytes());
        Self { bytes, packs: 0 }
    }

    /// What a pack with a table of this length adds, in bytes.
    pub fn cost(table_bytes: usize) -> usize {
        PACK_ENTRY_BYTES + table_bytes
    }

    /// Adds a pack, unless the body would no longer fit one object; says whether it was added.
    pub fn push(&mut self, pack: &PackEntry<'_>) -> bool {
        let Ok(length) = u32::try_from(pack.table.len()) else {
            return false;
        };
        if self.bytes.len() + Self::cost(pack.table.len()) > BODY_MAX_BYTES {
            return false;
        }
        self.bytes.extend_from_slice(pack.object.as_bytes());
        self.bytes
            .extend_from_slice(&pack.stored_bytes.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(pack.table);
        self.packs += 1;
        true
    }

    /// The body's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[1..INDEX_HEAD_BYTES].copy_from_slice(&self.packs.to_be_bytes());
        self.bytes
    }
}

/// Reads a body pack by pack; nothing is allocated for counts that it merely claims. Each item also
/// carries the decoded table. After an error there are no more items.
pub fn read(
    body: &[u8],
) -> Result<impl Iterator<Item = Result<(PackEntry<'_>, Table), IndexObjectError>>, IndexObjectError>
{
    let (head, rest) = body
        .split_first_chunk::<INDEX_HEAD_BYTES>()
        .ok_or(IndexObjectError)?;
    let count = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != INDEX_OBJECT_VERSION || count == 0 {
        return Err(IndexObjectError);
    }
    Ok(Entries { rest, left: count })
}

struct Entries<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Entries<'a> {
    fn step(&mut self) -> Result<(PackEntry<'a>, Table), IndexObjectError> {
        let (entry, after) = self
            .rest
            .split_first_chunk::<PACK_ENTRY_BYTES>()
            .ok_or(IndexObjectError)?;
        let object = ObjectId::from_slice(&entry[..32]).ok_or(IndexObjectError)?;
        let stored_bytes = u32::from_be_bytes([entry[32], entry[33], entry[34], entry[35]]);
        let length = u32::from_be_bytes([entry[36], entry[37], entry[38], entry[39]]) as usize;
        let (table, rest) = after.split_at_checked(length).ok_or(IndexObjectError)?;
        if !is_object_size(u64::from(stored_bytes)) {
            return Err(IndexObjectError);
        }
        let decoded = Table::decode(table)?;
        self.rest = rest;
        self.left -= 1;
        if self.left == 0 && !self.rest.is_empty() {
            return Err(IndexObjectError);
        }
        Ok((
            PackEntry {
                object,
                stored_bytes,
                table,
            },
            decoded,
        ))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(PackEntry<'a>, Table), IndexObjectError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let item = self.step();
        if item.is_err() {
            self.left = 0;
        }
        Some(item)
    }
}
