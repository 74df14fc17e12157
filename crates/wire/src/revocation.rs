//! Revocation: a person's word that a device is no longer one of theirs.
//!
//! 1. A full device states [`DeviceRevoked`] about another one, or the root about any. From that place of the chain on, nothing that the
//!    revoked device signs is accepted: no statement, no request, and no consent of it holds.
//! 2. The statement pins the head of every vault. A head that the revoked device signed holds only if it is the
//!    pinned one: whatever it signs later is void, also if it claims to be from before.
//! 3. A head older than a pinned one is a rollback, also for a device that never saw a newer one.
//! 4. New key epochs follow, which are not wrapped to the revoked device. What it could open before, it still can:
//!    nobody can take back what somebody has read.
//!
//! After a cell was restored from a backup, heads may be older than pinned ones. A re-anchoring
//! ([`crate::re_anchor`]) accepts them: of the vaults that it names the head in it holds, and pins before it are floors
//! no longer.

use crate::head::HeadHash;
use crate::ids::{DeviceId, VaultId};

/// The version of these statements that this build writes and the lowest that it accepts.
pub const REVOCATION_VERSION: u8 = 1;

/// Where a vault's head stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct HeadPin {
    /// Which vault.
    #[n(0)]
    pub vault: VaultId,
    /// The head's counter.
    #[n(1)]
    pub counter: u64,
    /// The head's hash.
    #[n(2)]
    pub hash: HeadHash,
}

/// The body of [`crate::statement::Kind::DeviceRevoked`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct DeviceRevoked {
    /// Always [`REVOCATION_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The device.
    #[n(1)]
    pub device: DeviceId,
    /// The heads of all of the account's vaults that have one, ascending by vault. A cell takes the statement only if
    /// they are exactly those that it has.
    #[n(2)]
    pub heads: Vec<HeadPin>,
}

impl DeviceRevoked {
    /// Whether the shape is right: version, vaults ascending and unique, counters from 1.
    pub fn is_well_formed(&self) -> bool {
        self.version == REVOCATION_VERSION
            && self.heads.iter().all(|pin| pin.counter >= 1)
            && self
                .heads
                .windows(2)
                .all(|pair| pair[0].vault < pair[1].vault)
    }

    /// The pinned head of a vault.
    pub fn pin(&self, vault: &VaultId) -> Option<&HeadPin> {
        let place = self
            .heads
            .binary_search_by(|pin| pin.vault.cmp(vault))
            .ok()?;
        self.heads.get(place)
    }
}
