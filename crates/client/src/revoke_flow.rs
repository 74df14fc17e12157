//! Revoking a device, and the new keys that follow.
//!
//! 1. The heads of all vaults are read and checked, and named in the statement: what the revoked device signs beyond
//!    them is void. If one moves meanwhile the cell does not take the statement, and it is made anew.
//! 2. It stands alone: nothing that may go wrong with new keys keeps a device in. They follow at once. If this device
//!    is stopped in between, whoever writes into such a vault next renews its keys first, and asking
//!    again goes on.
//!
//! Threats: rows A4, A5, A6.

use candor_vault::report::Cancel;
use candor_wire::chain::AccountView as ChainView;
use candor_wire::epoch::EpochRecord;
use candor_wire::errand::Purpose;
use candor_wire::revocation::HeadPin;
use candor_wire::statement::Role;
use candor_wire::{DeviceId, VaultId};

use crate::account::{self, APPEND_TRIES_MAX, AccountError, Tried, next_batch};
use crate::api::Api;
use crate::chain::Chain;
use crate::commands::{DeviceView, Failure, FailureKind, RevokedView, View};
use crate::engine::Engine;
use crate::epochs::Recipients;
use crate::memory::RememberedHead;

impl Engine {
    /// Revokes a device of the account and renews every key that it held (errand: revoke).
    pub(crate) fn device_revoke(&self, name: &str, cancel: &Cancel) -> Result<View, Failure> {
        if self.facts.role == Role::WriteOnly {
            return Err(
                Failure::new(FailureKind::Policy, "a write-only device revokes no other")
                    .with_hint("run it on a full device of the account"),
            );
        }
        let api = self.errand(Purpose::Revoke)?;
        self.sync_chain(&api)?;
        let device = {
            let (view, keys) = (self.view()?, self.keys());
            let all = view.devices().map(|entry| self.device_view(entry, &keys));
            let all: Vec<DeviceView> = all.collect();
            let found = DeviceView::find(&all, name)?;
            found
                .device
                .parse()
                .map_err(|_| crate::engine::unknown_chain())?
        };
        if device == self.facts.device {
            return Err(Failure::new(
                FailureKind::Usage,
                "this is the device itself, and no device revokes itself",
            )
            .with_hint("run it on another device of the account; on a new one after `candor account recover`"));
        }
        let was_revoked = self.view()?.is_revoked(&device);
        if !was_revoked {
            self.change_chain(&api, |chain| self.state_revocation(&api, chain, device))?;
        }
        let mut renewed = 0;
        // The statement stands. What is left is renewed one batch after the other.
        loop {
            if cancel.is_cancelled() {
                return Err(crate::failure::interrupted());
            }
            match self.renew_stale(&api, None)? {
                0 => break,
                more => renewed += more,
            }
        }
        let view = self.view()?;
        let scopes = std::iter::once(None).chain(view.vaults().map(Some));
        let left = scopes.filter(|scope| view.is_stale(*scope)).count();
        let keys = self.keys();
        let entry = view
            .device(&device)
            .ok_or_else(crate::engine::unknown_chain)?;
        Ok(View::Revoked(RevokedView {
            device: self.device_view(entry, &keys),
            was_revoked,
            renewed,
            left: left as u64,
        }))
    }

    fn state_revocation(
        &self,
        api: &Api,
        chain: &mut Chain,
        device: DeviceId,
    ) -> Result<(), Failure> {
        for _ in 0..APPEND_TRIES_MAX {
            // Somebody else's revocation of it is as good; so is one of ours whose answer was lost.
            if chain.view().is_revoked(&device) {
                return Ok(());
            }
            let heads = self.heads_to_pin(api, chain.view())?;
            let bodies = vec![account::revocation(device, heads)];
            let keys = self.keys();
            let trying =
                account::try_append(api, chain, &self.memory, &keys, bodies, self.surroundings());
            if self.runtime.block_on(trying)? == Tried::Done {
                return Ok(());
            }
        }
        Err(AccountError::Contended.into())
    }

    /// Where the heads of all vaults stand, none of them older than what this device saw.
    fn heads_to_pin(&self, api: &Api, view: &ChainView) -> Result<Vec<HeadPin>, Failure> {
        let read = || -> Result<Vec<HeadPin>, Failure> {
            let pins = self.runtime.block_on(account::pins(api, view))?;
            for seen in self.memory.heads() {
                // What is being erased may be gone by now.
                let is_erased = view.erasure_of(Some(&seen.vault)).is_some();
                let shown = pins.iter().find(|pin| pin.vault == seen.vault);
                let shown = shown.map(|pin| RememberedHead {
                    vault: pin.vault,
                    counter: pin.counter,
                    hash: pin.hash,
                    epoch: seen.epoch,
                });
                if !is_erased {
                    self.memory.check_head(&seen.vault, shown.as_ref())?;
                }
            }
            Ok(pins)
        };
        // A run of this device may have moved one between the cell's answer and the look at the memory.
        read().or_else(|failure| match failure.kind {
            FailureKind::Integrity => read(),
            _ => Err(failure),
        })
    }

    /// Renews keys that a revoked device holds: of one vault, or of everything with `None`. Tells how many; of many
    /// there may be more.
    pub(crate) fn renew_stale(&self, api: &Api, only: Option<VaultId>) -> Result<u64, Failure> {
        let is_meant = |view: &ChainView, scope: Option<VaultId>| {
            view.is_stale(scope) && (only.is_none() || scope == only)
        };
        let view = self.view()?;
        let mut scopes = std::iter::once(None).chain(view.vaults().map(Some));
        if !scopes.any(|scope| is_meant(&view, scope)) {
            return Ok(0);
        }
        self.renew(api, |view, record| is_meant(view, record.vault))
    }

    /// Begins new epochs of those that `which` picks and this device can renew. Tells how many; of many there may be
    /// more.
    pub(crate) fn renew(
        &self,
        api: &Api,
        which: impl Fn(&ChainView, &EpochRecord) -> bool,
    ) -> Result<u64, Failure> {
        self.change_chain(api, |chain| {
            for _ in 0..APPEND_TRIES_MAX {
                let keys = self.keys();
                let recipients = Recipients::of(chain.view());
                let mut renewals = account::renewals(
                    chain.view(),
                    &keys,
                    &recipients,
                    |_, record| which(chain.view(), record),
                    self.surroundings(),
                )?;
                let bodies = next_batch(&mut renewals);
                let count = bodies.len() as u64;
                if count == 0 {
                    return Ok(0);
                }
                let trying = account::try_append(
                    api,
                    chain,
                    &self.memory,
                    &keys,
                    bodies,
                    self.surroundings(),
                );
                if self.runtime.block_on(trying)? == Tried::Done {
                    return Ok(count);
                }
            }
            Err(AccountError::Contended.into())
        })
    }

    /// Refuses to write under keys that a revoked device holds; renews them where this device can. The connection
    /// is one of a grant for the vault.
    pub(crate) fn renew_before_writing(&self, api: &Api, vault: VaultId) -> Result<(), Failure> {
        if self.facts.role == Role::Full {
            self.renew_stale(api, Some(vault))?;
        }
        if self.view()?.is_stale(Some(vault)) {
            return Err(stale_keys());
        }
        Ok(())
    }
}

impl DeviceView {
    /// The device that a person means: by its name, its id, or the beginning of that.
    pub fn find<'a>(all: &'a [Self], name: &str) -> Result<&'a Self, Failure> {
        let usage = |sentence: String| {
            Failure::new(FailureKind::Usage, sentence)
                .with_hint("`candor device list` shows names and ids")
        };
        let is_named = |one: &&Self| one.name.as_deref() == Some(name);
        let mut found: Vec<&Self> = all.iter().filter(is_named).collect();
        if found.len() > 1 {
            // Of devices that have the same name, those that are gone are not meant.
            found.retain(|one| one.revoked_ms.is_none());
        }
        if found.is_empty() && !name.is_empty() {
            found = all.iter().collect();
            found.retain(|one| one.device.starts_with(name));
        }
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(usage(format!("no device is called {name}"))),
            _ => Err(usage(format!(
                "more than one device is called {name}; name it by its id"
            ))),
        }
    }
}

fn stale_keys() -> Failure {
    Failure::new(
        FailureKind::Policy,
        "a device was revoked that holds the keys of this vault, and there are no new ones yet; nothing was sent",
    )
    .with_hint("on a full device: `candor device revoke DEVICE` once more, which goes on where it stopped")
}
