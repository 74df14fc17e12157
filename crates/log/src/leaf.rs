//! The entry of the log: always 66 bytes, so that its length says nothing.
//!
//! `version | class | label | commitment`. What a person would recognise is in none of them: the
//! label is an HMAC that the owner's devices can compute and others cannot, the commitment an HMAC
//! over the statement under a salt that never enters the log. Classes that strangers must be able to
//! count are open; statements about people and padding share one class and look the same.

use candor_wire::StatementId;
use candor_wire::ids::Label;

use crate::tree::{Hash, leaf_hash};

/// Length of every leaf, in bytes.
pub const LEAF_BYTES: usize = 66;

/// The version of leaves that this build writes and the only one that it accepts.
pub const LEAF_VERSION: u8 = 1;

/// Bytes of randomness in a padding leaf: label and commitment.
pub const PADDING_BYTES: usize = 64;

/// Zero bytes before the version in the label of a state map's leaf.
const STATE_MAP_ZEROS: usize = 24;

/// What a leaf is about, as far as everybody may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A statement of an account, or padding.
    Sealed = 0,
    /// The root of a version of the state map.
    StateMap = 1,
    /// Somebody opened what was entrusted to a lockbox.
    Access = 2,
    /// Data moved to another party or jurisdiction.
    Move = 3,
    /// Data was erased.
    Erasure = 4,
    /// A report to the public.
    Report = 5,
    /// A build of the programs.
    Build = 6,
}

impl Class {
    /// Every class, in the order of the codes.
    pub const ALL: [Self; 7] = [
        Self::Sealed,
        Self::StateMap,
        Self::Access,
        Self::Move,
        Self::Erasure,
        Self::Report,
        Self::Build,
    ];

    /// The byte in the leaf.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The class with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// Bytes are not a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Not [`LEAF_BYTES`] long.
    #[error("a leaf has {LEAF_BYTES} bytes, not {bytes}")]
    Length {
        /// How long it is.
        bytes: usize,
    },
    /// Of a version that this build does not know.
    #[error("version {version} of leaves is not accepted")]
    Version {
        /// The version found.
        version: u8,
    },
    /// Of a class that this version does not have.
    #[error("there is no class {code} of leaves")]
    Class {
        /// The code found.
        code: u8,
    },
    /// A state map's leaf whose label is not a version.
    #[error("the label of a state map's leaf is not a version")]
    StateMapLabel,
}

/// An entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// What everybody may know about it.
    pub class: Class,
    /// Where its owner looks for it.
    pub label: [u8; 32],
    /// What it commits to.
    pub commitment: [u8; 32],
}

impl Leaf {
    /// The leaf of a statement.
    pub const fn statement(label: &Label, commitment: &StatementId) -> Self {
        Self {
            class: Class::Sealed,
            label: *label.as_bytes(),
            commitment: *commitment.as_bytes(),
        }
    }

    /// The leaf of a version of the state map. The label is 24 zero bytes and the version, big endian.
    pub fn state_map(version: u64, root: &[u8; 32]) -> Self {
        let mut label = [0; 32];
        label[STATE_MAP_ZEROS..].copy_from_slice(&version.to_be_bytes());
        Self {
            class: Class::StateMap,
            label,
            commitment: *root,
        }
    }

    /// A leaf that stands for nothing. Nobody can tell it from a statement's, if `random` is
    /// uniformly random and used once.
    pub fn padding(random: &[u8; PADDING_BYTES]) -> Self {
        let mut leaf = Self {
            class: Class::Sealed,
            label: [0; 32],
            commitment: [0; 32],
        };
        leaf.label.copy_from_slice(&random[..32]);
        leaf.commitment.copy_from_slice(&random[32..]);
        leaf
    }

    /// The version of the state map that this leaf publishes, if it is one that does.
    pub fn state_map_version(&self) -> Option<u64> {
        let (zeros, version) = self.label.split_at(STATE_MAP_ZEROS);
        if self.class != Class::StateMap || zeros.iter().any(|byte| *byte != 0) {
            return None;
        }
        version.try_into().ok().map(u64::from_be_bytes)
    }

    /// The bytes in the log.
    pub fn encode(&self) -> [u8; LEAF_BYTES] {
        let mut bytes = [0; LEAF_BYTES];
        bytes[0] = LEAF_VERSION;
        bytes[1] = self.class.code();
        bytes[2..34].copy_from_slice(&self.label);
        bytes[34..].copy_from_slice(&self.commitment);
        bytes
    }

    /// Reads the bytes of one leaf; each value has one spelling.
    pub fn decode(bytes: &[u8]) -> Result<Self, LeafError> {
        let bytes: &[u8; LEAF_BYTES] = bytes
            .try_into()
            .map_err(|_| LeafError::Length { bytes: bytes.len() })?;
        if bytes[0] != LEAF_VERSION {
            return Err(LeafError::Version { version: bytes[0] });
        }
        let class = Class::from_code(bytes[1]).ok_or(LeafError::Class { code: bytes[1] })?;
        let mut leaf = Self {
            class,
            label: [0; 32],
            commitment: [0; 32],
        };
        leaf.label.copy_from_slice(&bytes[2..34]);
        leaf.commitment.copy_from_slice(&bytes[34..]);
        if class == Class::StateMap && leaf.state_map_version().is_none() {
            return Err(LeafError::StateMapLabel);
        }
        Ok(leaf)
    }

    /// Its hash in the tree.
    pub fn hash(&self) -> Hash {
        leaf_hash(&self.encode())
    }
}
