//! Key epochs: who can open a vault (or the account's own small secrets) from now on.
//!
//! 1. A full device draws a random 32-byte key and wraps it with HPKE (RFC 9180, X-Wing) to every
//!    member device **and to the recovery key**, so that the recovery phrase alone opens everything.
//! 2. The record is a statement of the chain: the cell can neither add a recipient nor replace one.
//! 3. A later epoch carries the keys of all earlier ones, sealed under its own key.
//!
//! The wrapping itself is done on the device; here are the bytes and the context that binds them.

use crate::ids::{AccountId, DeviceId, VaultId};
use crate::limits::DEVICES_MAX;
use crate::statement::AGREEMENT_PUBLIC_BYTES;

/// The version of epoch records that this build writes and the lowest that it accepts.
pub const EPOCH_RECORD_VERSION: u8 = 1;

/// One wrapped copy of the epoch's key.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Wrap {
    /// The device that can open it; absent for the recovery key.
    #[n(0)]
    pub recipient: Option<DeviceId>,
    /// HPKE encapsulated key.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub encapsulated: Vec<u8>,
    /// HPKE ciphertext of the 32-byte key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub ciphertext: Vec<u8>,
}

/// The body of an epoch statement.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct EpochRecord {
    /// Always [`EPOCH_RECORD_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The vault; absent for the account's own key (device names, watch keys).
    #[n(1)]
    pub vault: Option<VaultId>,
    /// Number of the epoch, from 1, without gaps within one vault.
    #[n(2)]
    pub epoch: u32,
    /// X-Wing public key of this epoch, derived from its key: write-only devices seal to it.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub public: [u8; AGREEMENT_PUBLIC_BYTES],
    /// One for the recovery key first, then one for each member device, in ascending order of id.
    #[n(4)]
    pub wraps: Vec<Wrap>,
    /// Keys of the earlier epochs, sealed under this one; empty for the first.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub earlier: Vec<u8>,
}

impl EpochRecord {
    /// Whether the shape is right: version, the recovery key first, recipients ascending and unique.
    pub fn is_well_formed(&self) -> bool {
        let Some((recovery, devices)) = self.wraps.split_first() else {
            return false;
        };
        self.version == EPOCH_RECORD_VERSION
            && self.epoch >= 1
            && (self.epoch == 1) == self.earlier.is_empty()
            && recovery.recipient.is_none()
            && devices.len() <= DEVICES_MAX
            && devices.iter().all(|wrap| wrap.recipient.is_some())
            && devices
                .windows(2)
                .all(|pair| pair[0].recipient < pair[1].recipient)
    }

    /// The wrap for a device, or for the recovery key.
    pub fn wrap_for(&self, recipient: Option<DeviceId>) -> Option<&Wrap> {
        self.wraps.iter().find(|wrap| wrap.recipient == recipient)
    }
}

/// The HPKE `info` of a wrap: binds account, vault, epoch and recipient, so that a wrap fits only
/// its own place. Absent ids are 16 zero bytes after a presence byte of 0.
pub fn wrap_info(
    account: &AccountId,
    vault: Option<&VaultId>,
    epoch: u32,
    recipient: Option<&DeviceId>,
) -> Vec<u8> {
    let mut info = b"candor epoch wrap\0\x01".to_vec();
    info.extend_from_slice(account.as_bytes());
    let mut optional = |id: Option<&[u8; 16]>| {
        info.push(u8::from(id.is_some()));
        info.extend_from_slice(id.unwrap_or(&[0; 16]));
    };
    optional(vault.map(VaultId::as_bytes));
    optional(recipient.map(DeviceId::as_bytes));
    info.extend_from_slice(&epoch.to_be_bytes());
    info
}
