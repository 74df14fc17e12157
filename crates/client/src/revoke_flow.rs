//! Revoking a device, and the new keys that follow.
//!
//! 1. The heads of all vaults are read and checked, and named in the statement: what the revoked device signs beyond
//!    them is void. If one moves meanwhile the cell does not take the statement, and it is made anew.
//! 2. In the same append come new epochs of the account and of as many vaults as fit; the others follow at once. If
//!    this device is stopped in between, whoever writes into such a vault next renews its keys first, and asking
//!    again goes on.
//!
//! Threats: rows A4, A5, A6.

use candor_vault::report::Cancel;
use candor_wire::chain::AccountView as ChainView;
use candor_wire::errand::Purpose;
use candor_wire::limits::BODY_MAX_BYTES;
use candor_wire::revocation::{DeviceRevoked, HeadPin, REVOCATION_VERSION};
use candor_wire::statement::{Body, Role};
use candor_wire::{DeviceId, VaultId, cbor};

use crate::account::{self, APPEND_TRIES_MAX, AccountError, Renewal, Tried};
use crate::api::Api;
use crate::chain::Chain;
use crate::commands::{DeviceView, Failure, FailureKind, RevokedView, View};
use crate::engine::Engine;
use crate::epochs::Recipients;

/// What the epochs of one append may weigh: a quarter of what a cell takes, since the signatures of an epoch weigh as
/// much again.
const BATCH_MAX_BYTES: usize = BODY_MAX_BYTES / 4;

/// Takes renewals off the front until the batch is full.
fn next_batch(renewals: &mut Vec<Renewal>, mut bytes: usize) -> Vec<Body> {
    let mut batch = Vec::new();
    while let Some(next) = renewals.first() {
        bytes += cbor::encode(&next.record).len();
        if bytes > BATCH_MAX_BYTES && !batch.is_empty() {
            break;
        }
        batch.push(Body::Epoch(Box::new(renewals.remove(0).record)));
    }
    batch
}

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
        let device = self.find_device(name)?;
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
        let keys = self.keys();
        let entry = view
            .device(&device)
            .ok_or_else(crate::engine::unknown_chain)?;
        Ok(View::Revoked(RevokedView {
            device: self.device_view(entry, &keys),
            was_revoked,
            renewed,
        }))
    }

    /// The device that a person means: by its id, the beginning of it, or its name.
    fn find_device(&self, name: &str) -> Result<DeviceId, Failure> {
        let view = self.view()?;
        let keys = self.keys();
        let all: Vec<DeviceView> = view
            .devices()
            .map(|entry| self.device_view(entry, &keys))
            .collect();
        drop(keys);
        let usage = |sentence: String| {
            Err(Failure::new(FailureKind::Usage, sentence)
                .with_hint("`candor device list` shows them"))
        };
        let named = |one: &&DeviceView| one.name.as_deref() == Some(name);
        let mut found: Vec<&DeviceView> = all
            .iter()
            .filter(|one| one.device.starts_with(name) && !name.is_empty())
            .collect();
        if found.is_empty() {
            // Of devices that have the same name, those that are gone are not meant.
            found = all.iter().filter(named).collect();
            if found.len() > 1 {
                found.retain(|one| one.revoked_ms.is_none());
            }
        }
        match found.as_slice() {
            [one] => one
                .device
                .parse()
                .or_else(|_| usage(format!("no device is called {name}"))),
            [] => usage(format!("no device is called {name}")),
            _ => usage(format!(
                "more than one device is called {name}; name it by its id"
            )),
        }
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
            let keys = self.keys();
            let recipients = Recipients::of(chain.view()).without(&device);
            let mut renewals = account::renewals(
                chain.view(),
                &keys,
                &recipients,
                |scope, record| {
                    record.wrap_for(Some(device)).is_some() && keys.keys(scope).is_some()
                },
                self.surroundings(),
            )?;
            let revoked = DeviceRevoked {
                version: REVOCATION_VERSION,
                device,
                heads,
            };
            let bytes = cbor::encode(&revoked).len();
            let mut bodies = vec![Body::DeviceRevoked(Box::new(revoked))];
            bodies.extend(next_batch(&mut renewals, bytes));
            let trying =
                account::try_append(api, chain, &self.memory, &keys, bodies, self.surroundings());
            if self.runtime.block_on(trying)? == Tried::Done {
                return Ok(());
            }
        }
        Err(AccountError::Contended.into())
    }

    /// Where the heads of all vaults stand, each checked against all that this device saw.
    fn heads_to_pin(&self, api: &Api, view: &ChainView) -> Result<Vec<HeadPin>, Failure> {
        let mut pins = Vec::new();
        for vault in view
            .vaults()
            .filter(|vault| view.erasure_of(Some(vault)).is_none())
        {
            let read = || self.read_head(api, view, vault);
            // A run of this device may have moved it between the cell's answer and the look at the memory.
            let head = read().or_else(|failure| match failure.kind {
                FailureKind::Integrity => read(),
                _ => Err(failure),
            })?;
            pins.extend(head.map(|head| HeadPin {
                vault,
                counter: head.counter,
                hash: head.hash,
            }));
        }
        Ok(pins)
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
        self.change_chain(api, |chain| {
            for _ in 0..APPEND_TRIES_MAX {
                let keys = self.keys();
                let recipients = Recipients::of(chain.view());
                let mut renewals = account::renewals(
                    chain.view(),
                    &keys,
                    &recipients,
                    |scope, _| is_meant(chain.view(), scope) && keys.keys(scope).is_some(),
                    self.surroundings(),
                )?;
                let bodies = next_batch(&mut renewals, 0);
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

fn stale_keys() -> Failure {
    Failure::new(
        FailureKind::Policy,
        "a device was revoked that holds the keys of this vault, and there are no new ones yet; nothing was sent",
    )
    .with_hint("on a full device: `candor device revoke DEVICE` once more, which goes on where it stopped")
}
