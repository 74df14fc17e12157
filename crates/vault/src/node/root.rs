//! The record that a snapshot names: where its tree begins, and which folders it came from.

use minicbor::{Decoder, Encoder};

use super::{
    Infallible, LEVELS_MAX, NodeError, References, SYMLINK_MAX_BYTES, TREE_VERSION, definite,
    read_references, read_version, write_references,
};
use crate::name::Name;

/// Where one entry of the top of a snapshot came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The entry's name at the top of the snapshot.
    pub name: Name,
    /// The absolute path that was backed up under it.
    pub path: Vec<u8>,
}

/// The record that a snapshot names: the parts of the top directory, and where its entries came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Parts of the top directory.
    pub parts: References,
    /// Ascending by name, one for each source.
    pub origins: Vec<Origin>,
}

/// Most sources of one snapshot: a person names a handful; bounds the root record.
pub const SOURCES_MAX: usize = 256;

impl Root {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out).expect("memory takes every byte");
        out
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), Infallible> {
        let mut e = Encoder::new(out);
        e.map(4)?.u8(0)?.u32(TREE_VERSION)?.u8(1)?;
        write_references(&self.parts.list, &mut e)?;
        e.u8(2)?.u8(self.parts.levels)?;
        e.u8(3)?.array(self.origins.len() as u64)?;
        for origin in &self.origins {
            e.array(2)?
                .bytes(origin.name.as_bytes())?
                .bytes(&origin.path)?;
        }
        Ok(())
    }

    /// Decodes a root record.
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        let mut d = Decoder::new(bytes);
        read_version(&mut d, 4)?;
        if d.u8()? != 1 {
            return Err(NodeError::Malformed);
        }
        let list = read_references(d.bytes()?)?;
        if d.u8()? != 2 {
            return Err(NodeError::Malformed);
        }
        let levels = d.u8()?;
        if levels > LEVELS_MAX {
            return Err(NodeError::Limit {
                what: "levels of lists",
            });
        }
        if d.u8()? != 3 {
            return Err(NodeError::Malformed);
        }
        let count = definite(d.array()?)?;
        if count > SOURCES_MAX as u64 {
            return Err(NodeError::Limit { what: "sources" });
        }
        let mut origins: Vec<Origin> = Vec::new();
        for _ in 0..count {
            if definite(d.array()?)? != 2 {
                return Err(NodeError::Malformed);
            }
            let name = Name::new(d.bytes()?).map_err(|_| NodeError::Value {
                what: "name of a source",
            })?;
            let path = d.bytes()?.to_vec();
            if path.first() != Some(&b'/') || path.contains(&0) || path.len() > SYMLINK_MAX_BYTES {
                return Err(NodeError::Value {
                    what: "path of a source",
                });
            }
            if origins.last().is_some_and(|last| last.name >= name) {
                return Err(NodeError::Order);
            }
            origins.push(Origin { name, path });
        }
        let root = Self {
            parts: References { levels, list },
            origins,
        };
        if d.position() != bytes.len() {
            return Err(NodeError::Malformed);
        }
        if root.encode() != bytes {
            return Err(NodeError::NotCanonical);
        }
        Ok(root)
    }
}
