//! Opening epochs: the keys of every scope, with a device's key or the recovery key, as far as the chain vouches for them.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use candor_wire::epoch::EpochRecord;
use candor_wire::statement::{AGREEMENT_PUBLIC_BYTES, Body, Kind};
use candor_wire::{DeviceId, VaultId};

use super::AccountError;
use crate::chain::Chain;
use crate::epochs::{self, AgreementSecret, EpochError, Known, ScopeKeys};
use crate::keystore::KeyStore;

/// The public key of every epoch on a chain.
type Publics = BTreeMap<(Option<VaultId>, u32), [u8; AGREEMENT_PUBLIC_BYTES]>;

/// The epochs of a chain. Their public keys are read from it only when one has to be compared.
struct Epochs<'a> {
    chain: &'a Chain,
    publics: OnceCell<Publics>,
}

impl<'a> Epochs<'a> {
    const fn of(chain: &'a Chain) -> Self {
        Self {
            chain,
            publics: OnceCell::new(),
        }
    }

    /// All epoch records, the newest first.
    fn records(&self) -> impl Iterator<Item = Box<EpochRecord>> {
        let statements = self.chain.records().iter().rev();
        statements
            .filter(|record| record.kind == Kind::Epoch)
            .filter_map(|record| record.statement.as_ref()?.parse().ok())
            .filter_map(|parsed| match parsed.body {
                Body::Epoch(record) => Some(record),
                _ => None,
            })
    }

    fn open(
        &self,
        record: &EpochRecord,
        recipient: Option<DeviceId>,
        secret: &AgreementSecret,
        held: Option<&ScopeKeys>,
    ) -> Result<ScopeKeys, EpochError> {
        let announced = |epoch| {
            let publics = self.publics.get_or_init(|| {
                let place = |record: &EpochRecord| (record.vault, record.epoch);
                self.records()
                    .map(|record| (place(&record), record.public))
                    .collect()
            });
            publics.get(&(record.vault, epoch)).copied()
        };
        let known = Known {
            held,
            announced: &announced,
        };
        epochs::open_next(self.chain.account(), record, recipient, secret, &known)
    }
}

/// Opens the newest keys of every scope with this device's key, where the key store does not hold
/// them yet. Returns whether there were any; the caller saves the key store then.
///
/// A key that is held already must be the one that the chain announces: what is sealed under another
/// one could be opened by nobody else, and not with the phrase.
pub fn open_keys(chain: &Chain, keys: &mut KeyStore) -> Result<bool, AccountError> {
    let (mut is_new, epochs) = (false, Epochs::of(chain));
    for scope in std::iter::once(None).chain(chain.view().vaults().map(Some)) {
        let Some(record) = chain.view().epoch(scope) else {
            continue;
        };
        let held = keys.keys(scope);
        if let Some(held) = held.filter(|held| held.newest() >= record.epoch) {
            if !epochs::is_announced(chain.account(), record, held) {
                return Err(EpochError::Rejected.into());
            }
            continue;
        }
        match epochs.open(record, Some(keys.device()), keys.agreement(), held) {
            Ok(opened) => {
                keys.put_keys(opened);
                is_new = true;
            }
            // Membership is per vault: another device's vault need not be this one's. A key that does not open was
            // wrapped so by a device of the account, whose signature was checked: that keeps this one out of the
            // scope, and out of nothing else.
            Err(EpochError::NotRecipient | EpochError::Rejected) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(is_new)
}

/// Opens the newest keys of every scope with the recovery key. A scope whose keys do not open is left out: a device of
/// the account wrapped them so, and keeps nobody from all the rest.
pub(super) fn open_all(
    chain: &Chain,
    keys: &mut KeyStore,
    recovery: &AgreementSecret,
) -> Result<(), AccountError> {
    let epochs = Epochs::of(chain);
    for scope in std::iter::once(None).chain(chain.view().vaults().map(Some)) {
        let held = keys.keys(scope);
        let is_new = |record: &&EpochRecord| held.is_none_or(|held| held.newest() < record.epoch);
        if chain.view().epoch(scope).filter(is_new).is_none() {
            continue;
        }
        match newest_of(&epochs, scope, recovery, held) {
            Ok(opened) => keys.put_keys(opened),
            Err(EpochError::Rejected) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The newest keys of a scope that the recovery key opens: those of its newest epoch, unless somebody wrapped that to
/// another key, or gave other keys for the earlier ones.
pub(super) fn open_newest(
    chain: &Chain,
    scope: Option<VaultId>,
    recovery: &AgreementSecret,
) -> Result<ScopeKeys, AccountError> {
    Ok(newest_of(&Epochs::of(chain), scope, recovery, None)?)
}

fn newest_of(
    epochs: &Epochs<'_>,
    scope: Option<VaultId>,
    recovery: &AgreementSecret,
    held: Option<&ScopeKeys>,
) -> Result<ScopeKeys, EpochError> {
    // What is held already is not opened again: it may be more than an older record gives.
    let after = held.map_or(0, ScopeKeys::newest);
    let newer = |record: &EpochRecord| record.vault == scope && record.epoch > after;
    for record in epochs.records().filter(|record| newer(record)) {
        match epochs.open(&record, None, recovery, held) {
            Err(EpochError::Rejected) => {}
            opened => return opened,
        }
    }
    Err(EpochError::Rejected)
}
