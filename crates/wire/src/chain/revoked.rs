//! What follows from a revocation: for statements, for consents, and for the heads of vaults.

use std::collections::BTreeMap;

use super::{AccountView, ChainError, DeviceEntry};
use crate::head::{Head, HeadHash};
use crate::ids::{DeviceId, VaultId};
use crate::re_anchor::{HeadPoint, ReAnchor};
use crate::revocation::DeviceRevoked;
use crate::statement::Parsed;
use crate::time::Millis;

impl DeviceEntry {
    /// Whether it is one of the account's devices still.
    pub const fn is_live(&self) -> bool {
        self.revoked.is_none()
    }
}

/// The end of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Where it stands in the chain.
    pub sequence: u64,
    /// When, by the signer's clock.
    pub time: Millis,
    /// The device that said so; `None` for the root.
    pub by: Option<DeviceId>,
    /// What it said.
    pub statement: DeviceRevoked,
    /// Vaults whose keys the device held, and the last epoch of each that it could open: what is stored after the
    /// pinned head is sealed under a later one.
    pub opened: BTreeMap<VaultId, u32>,
}

/// Why a signed head does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VoidHead {
    /// A device signed it that was revoked, and it is not the head that the revocation pins.
    #[error("the vault's head is one that a revoked device signed, and not the one that it left")]
    Revoked,
    /// It is older than the one that a revocation pins, or another one of the same counter.
    #[error(
        "the vault's head is older than the one that the account's chain names, or not the same"
    )]
    Pinned,
    /// It came after a revocation, and is sealed under keys that the revoked device holds.
    #[error("what the vault's head names is sealed under keys that a revoked device holds")]
    StaleEpoch,
}

/// The vault's epoch whose holders can open what a head names.
fn sealed_under(head: &Head) -> u32 {
    let run = head.runs.as_ref().and_then(|runs| runs.first());
    run.map_or(head.epoch, |run| run.epoch)
}

impl AccountView {
    pub(super) fn revoke(
        &mut self,
        revoked: &DeviceRevoked,
        parsed: &Parsed,
    ) -> Result<(), ChainError> {
        let sequence = parsed.entry.sequence;
        let contradiction = |reason| Err(ChainError::Contradiction { sequence, reason });
        if !revoked.is_well_formed() {
            return contradiction("the revocation has no valid shape");
        }
        if Some(revoked.device) == parsed.entry.signer {
            return contradiction("no device revokes itself");
        }
        let known = |vault| self.epochs.contains_key(&Some(vault));
        if !revoked.heads.iter().all(|pin| known(pin.vault)) {
            return contradiction("the revocation names no known vault");
        }
        let opened = self.epochs.iter().filter_map(|(scope, record)| {
            let is_recipient = record.wrap_for(Some(revoked.device)).is_some();
            scope
                .filter(|_| is_recipient)
                .map(|vault| (vault, record.epoch))
        });
        let opened = opened.collect();
        let Some(entry) = self.devices.get_mut(&revoked.device) else {
            return contradiction("what is to be revoked is no device of the account");
        };
        if entry.revoked.is_some() {
            return contradiction("the device is revoked already");
        }
        entry.revoked = Some(Revoked {
            sequence,
            time: parsed.entry.time,
            by: parsed.entry.signer,
            statement: revoked.clone(),
            opened,
        });
        for consent in self.consents.values_mut() {
            if consent.record.device == revoked.device {
                consent.withdrawn.get_or_insert(parsed.entry.time);
            }
        }
        Ok(())
    }

    /// Takes note of the heads that a person accepted after their cell was restored.
    pub(super) fn accept_heads(&mut self, accepted: &ReAnchor, sequence: u64) {
        for change in &accepted.heads {
            self.accepted.insert(change.vault, (sequence, change.now));
        }
    }

    /// Whether a head whose signature was checked holds, as far as revocations say.
    pub fn check_head(
        &self,
        vault: &VaultId,
        head: &Head,
        hash: &HeadHash,
    ) -> Result<(), VoidHead> {
        let is = |counter, other: &HeadHash| head.counter == counter && hash == other;
        let accepted = self.accepted.get(vault);
        let is_accepted = accepted
            .and_then(|(_, now)| now.as_ref())
            .is_some_and(|HeadPoint { counter, hash }| is(*counter, hash));
        let revocations = self.devices.values().filter_map(|entry| {
            let revoked = entry.revoked.as_ref()?;
            Some((entry.added.device, revoked))
        });
        for (device, revoked) in revocations {
            let pin = revoked.statement.pin(vault);
            let is_pinned = pin.is_some_and(|pin| is(pin.counter, &pin.hash));
            // What a person accepted after the revocation is weighed against it no more.
            let was_accepted = accepted.is_some_and(|(sequence, _)| revoked.sequence < *sequence);
            if is_pinned || (was_accepted && is_accepted) {
                continue;
            }
            if device == head.device {
                return Err(VoidHead::Revoked);
            }
            if was_accepted {
                continue;
            }
            if pin.is_some_and(|pin| head.counter <= pin.counter) {
                return Err(VoidHead::Pinned);
            }
            let epoch = sealed_under(head);
            let last = revoked.opened.get(vault);
            if last.is_some_and(|last| epoch <= *last) {
                return Err(VoidHead::StaleEpoch);
            }
        }
        Ok(())
    }

    /// Whether a vault may be without a head, as far as revocations say: one that had a head when a device was put out
    /// has one for ever, unless it was erased, or a person accepted since that it has none.
    pub fn check_no_head(&self, vault: &VaultId) -> Result<(), VoidHead> {
        let accepted = self.accepted.get(vault).map(|(sequence, _)| *sequence);
        let mut revocations = self
            .devices
            .values()
            .filter_map(|entry| entry.revoked.as_ref());
        let is_older = revocations.any(|revoked| {
            let is_pinned = revoked.statement.pin(vault).is_some();
            is_pinned && accepted.is_none_or(|accepted| accepted < revoked.sequence)
        });
        if is_older {
            Err(VoidHead::Pinned)
        } else {
            Ok(())
        }
    }

    /// Whether the newest epoch of a vault, or of the account's own key, is wrapped to a device that was revoked
    /// since: nobody writes under it before there is a newer one.
    pub fn is_stale(&self, scope: Option<VaultId>) -> bool {
        let is_revoked = |device: &DeviceId| self.is_revoked(device);
        self.epoch(scope).is_some_and(|record| {
            let mut recipients = record.wraps.iter().filter_map(|wrap| wrap.recipient);
            recipients.any(|device| is_revoked(&device))
        })
    }

    /// Whether a device was one of this account and is not any longer.
    pub fn is_revoked(&self, device: &DeviceId) -> bool {
        self.device(device).is_some_and(|entry| !entry.is_live())
    }
}
