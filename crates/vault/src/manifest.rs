//! The manifest: what a vault is at one moment. The signed head names it by its ciphertext hash.
//!
//! It lists the live snapshots (each with the content id of its root directory) and the index
//! objects that say where every chunk lies. It is a small CBOR value, sealed and padded like every
//! other object. It names the manifest before it, so histories can be followed and forks shown.

use core::fmt;
use std::collections::HashSet;

use candor_wire::cbor::{self, Canonical, CodecError};
use candor_wire::{AccountId, DeviceId, Millis, ObjectId, VaultId};
use minicbor::{Decode, Encode};

use crate::chunk::ChunkId;

/// Version of the manifest's encoding.
pub const MANIFEST_VERSION: u32 = 1;

/// Most live snapshots of one vault: hourly ones for a year fit; the manifest stays below 3 MiB.
pub const SNAPSHOTS_MAX: usize = 10_000;

/// Most index objects of one vault: tiered merging keeps a few per tier, and a full one maps at
/// least 100 GiB of ordinary content, so this is petabytes.
pub const INDEX_OBJECTS_MAX: usize = 16_384;

/// Longest name of a backup set, in bytes.
pub const SET_NAME_MAX_BYTES: usize = candor_wire::limits::NAME_MAX_BYTES;

/// Why a manifest cannot be made or accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not a canonical manifest of a known version.
    #[error("the manifest is not valid: {0}")]
    Codec(CodecError),
    /// It is a manifest of another account or vault.
    #[error("the manifest belongs to another vault")]
    OtherVault,
    /// It is sealed under another epoch than it names.
    #[error("the manifest is sealed under other keys than it says")]
    OtherEpoch,
    /// It has more snapshots than a vault may have.
    #[error("a vault holds at most {limit} snapshots; forget some before making more")]
    TooManySnapshots {
        /// The limit that was broken.
        limit: usize,
    },
    /// It has more index objects than a vault may have.
    #[error("a vault holds at most {limit} index objects")]
    TooManyIndexObjects {
        /// The limit that was broken.
        limit: usize,
    },
    /// The name of a backup set is empty or too long.
    #[error("the name of a backup set has 1 to {limit_bytes} bytes")]
    SetName {
        /// The limit that was broken.
        limit_bytes: usize,
    },
    /// Two snapshots, or two index objects, are the same.
    #[error("the manifest lists something twice")]
    Repeated,
}

/// A snapshot: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId([u8; 16]);

impl SnapshotId {
    /// Takes the bytes as they are.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&candor_wire::ids::to_hex(&self.0))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotId({self})")
    }
}

impl<C> Encode<C> for SnapshotId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SnapshotId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.bytes()?
            .try_into()
            .map(Self)
            .map_err(|_| minicbor::decode::Error::message("a snapshot id: wrong length"))
    }
}

/// What a snapshot counted, for lists; nothing relies on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SnapshotStats {
    /// Everything that is not a directory.
    #[n(0)]
    pub files: u64,
    /// Directories.
    #[n(1)]
    pub directories: u64,
    /// Bytes of content that the snapshot holds.
    #[n(2)]
    pub bytes_total: u64,
    /// Bytes of content that were not stored before.
    #[n(3)]
    pub bytes_new: u64,
    /// Bytes of sealed packs that the run added to the cell.
    #[n(4)]
    pub bytes_stored: u64,
}

/// One snapshot, as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SnapshotEntry {
    /// Its name.
    #[n(0)]
    pub id: SnapshotId,
    /// When the run began, by the device's clock.
    #[n(1)]
    pub time: Millis,
    /// The device that made it.
    #[n(2)]
    pub device: DeviceId,
    /// The backup set that it is of.
    #[n(3)]
    pub set: String,
    /// The root directory's content id.
    #[n(4)]
    pub root: ChunkId,
    /// What it counted.
    #[n(5)]
    pub stats: SnapshotStats,
    /// Whether something could not be read: the run's problems were shown to the person.
    #[n(6)]
    pub incomplete: bool,
}

/// One index object, as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct IndexReference {
    /// The sealed object.
    #[n(0)]
    pub object: ObjectId,
    /// Length of what it lists, before padding and sealing, in bytes: decides its tier.
    #[n(1)]
    pub body_bytes: u64,
}

/// What a vault is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    #[n(0)]
    pub version: u32,
    /// The account that owns the vault.
    #[n(1)]
    pub account: AccountId,
    /// The vault.
    #[n(2)]
    pub vault: VaultId,
    /// One more than the manifest before; the first is 1.
    #[n(3)]
    pub counter: u64,
    /// The manifest before, if any.
    #[n(4)]
    pub previous: Option<ObjectId>,
    /// The epoch that was current when it was made.
    #[n(5)]
    pub epoch: u32,
    /// Live snapshots, oldest first in the order in which they were added.
    #[n(6)]
    pub snapshots: Vec<SnapshotEntry>,
    /// Index objects: together they list every pack that a live snapshot may need.
    #[n(7)]
    pub indexes: Vec<IndexReference>,
}

impl Canonical for Manifest {
    const WHAT: &'static str = "a vault manifest";
    const MAX_BYTES: usize = crate::seal::BODY_MAX_BYTES;
}

impl Manifest {
    /// The manifest of a vault that has none yet: counter 0, never stored.
    pub(crate) fn empty(account: AccountId, vault: VaultId, epoch: u32) -> Self {
        Self {
            version: MANIFEST_VERSION,
            account,
            vault,
            counter: 0,
            previous: None,
            epoch,
            snapshots: Vec::new(),
            indexes: Vec::new(),
        }
    }

    /// Checks what the encoding cannot: version, owner, limits, nothing twice.
    pub fn check(&self, account: AccountId, vault: VaultId) -> Result<(), ManifestError> {
        if self.version != MANIFEST_VERSION {
            return Err(ManifestError::Codec(CodecError::Version {
                what: Self::WHAT,
                version: self.version,
            }));
        }
        if (self.account, self.vault) != (account, vault) {
            return Err(ManifestError::OtherVault);
        }
        if self.counter == 0 || (self.counter == 1) != self.previous.is_none() {
            return Err(ManifestError::Codec(CodecError::Malformed {
                what: Self::WHAT,
            }));
        }
        if self.snapshots.len() > SNAPSHOTS_MAX {
            return Err(ManifestError::TooManySnapshots {
                limit: SNAPSHOTS_MAX,
            });
        }
        if self.indexes.len() > INDEX_OBJECTS_MAX {
            return Err(ManifestError::TooManyIndexObjects {
                limit: INDEX_OBJECTS_MAX,
            });
        }
        if self
            .snapshots
            .iter()
            .any(|s| s.set.is_empty() || s.set.len() > SET_NAME_MAX_BYTES)
        {
            return Err(ManifestError::SetName {
                limit_bytes: SET_NAME_MAX_BYTES,
            });
        }
        let snapshots: HashSet<_> = self.snapshots.iter().map(|snapshot| snapshot.id).collect();
        let indexes: HashSet<_> = self.indexes.iter().map(|index| index.object).collect();
        if snapshots.len() != self.snapshots.len() || indexes.len() != self.indexes.len() {
            return Err(ManifestError::Repeated);
        }
        Ok(())
    }

    /// Reads the body of a manifest's object, and checks it.
    pub fn decode(bytes: &[u8], account: AccountId, vault: VaultId) -> Result<Self, ManifestError> {
        let manifest: Self = cbor::decode(bytes).map_err(ManifestError::Codec)?;
        manifest.check(account, vault)?;
        Ok(manifest)
    }

    /// The snapshot of this name.
    pub fn snapshot(&self, id: SnapshotId) -> Option<&SnapshotEntry> {
        self.snapshots.iter().find(|snapshot| snapshot.id == id)
    }
}
