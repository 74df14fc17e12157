//! A home that was enrolled before joins its account anew, with the recovery phrase.
//!
//! Needed when a restored cell does not know the device, because it joined after the backup was made, and
//! when the key store was lost. The device gets new keys and a new ledger; the old ones are put aside.
//! Everything else stays: the sets, the copy of the chain, and the rollback memory, so that what the cell
//! lost is still seen, told to a person and accepted by them ([`crate::re_anchor_flow`]), and a withdrawal
//! that only this device knows goes on holding.

use std::path::Path;
use std::sync::Arc;

use candor_wire::cell::Invitation;
use candor_wire::errand::Purpose;
use candor_wire::ids::StatementId;
use candor_wire::statement::Body;

use crate::account::{self, AccountError, Surroundings};
use crate::api::{Api, ApiError};
use crate::commands::{Failure, FailureKind};
use crate::device_store::DeviceStore;
use crate::egress::{Egress, EgressParts};
use crate::engine::{EnrolParams, open_ledger};
use crate::home::Home;
use crate::keystore::{self, KeyProtection, KeyState, KeyStore, KeyStoreError};
use crate::memory::Memory;
use crate::phrase::RecoveryPhrase;

/// Where the keys and the ledger of the device that a home was before go.
pub(crate) const FORMER: &str = "former";

/// What the home knows of its account from before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Former {
    /// The first statement of the account's chain.
    pub(crate) genesis: StatementId,
    /// The newest generation of the cell's keys that was seen.
    pub(crate) serial: u32,
}

pub(crate) fn refused(sentence: &str) -> Failure {
    Failure::new(FailureKind::Usage, sentence).with_hint("choose another folder with `--home DIR`")
}

/// The genesis in the home's copy of the chain, with the root key in it.
fn known_genesis(home: &Home) -> Result<Option<(StatementId, Body)>, Failure> {
    if !home.device_store().exists() {
        return Ok(None);
    }
    let records = DeviceStore::open(&home.device_store())?.chain()?;
    let first = records.first();
    Ok(first.and_then(|record| {
        let parsed = record.statement.as_ref()?.parse().ok()?;
        Some((parsed.id, parsed.body))
    }))
}

/// Refuses a home in which an account was before: a new one would be mixed with what is left of it.
pub(crate) fn check_unused(home: &Home) -> Result<(), Failure> {
    match known_genesis(home)? {
        None => Ok(()),
        Some(_) => Err(refused("this folder belongs to an account already")),
    }
}

/// The key store at `path`, if there is one and it opens.
pub(crate) fn held_keys(
    path: &Path,
    protection: &KeyProtection,
    entropy: &Arc<dyn candor_vault::Entropy>,
) -> Result<Option<KeyStore>, Failure> {
    if keystore::state(path)? == KeyState::Missing {
        return Ok(None);
    }
    let passphrase = match protection {
        KeyProtection::Passphrase(text) => Some(text.as_str()),
        KeyProtection::Unprotected => None,
    };
    match KeyStore::open(path, passphrase, Arc::clone(entropy)) {
        Ok(keys) => Ok(Some(keys)),
        // Whether it belongs to an account cannot be seen without its passphrase.
        Err(KeyStoreError::WrongPassphrase | KeyStoreError::NeedsPassphrase) => Err(refused(
            "this folder has a key store with another passphrase",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Whether this home may join anew: `None` if it is new. Asks the cell (errand: re-anchor) if there are keys
/// of a device: one that the cell knows does not join a second time. Changes nothing.
pub(crate) fn former(
    params: &EnrolParams,
    phrase: &RecoveryPhrase,
) -> Result<Option<Former>, Failure> {
    let copied = known_genesis(&params.home)?;
    let is_other = |body: &Body| !matches!(body, Body::Genesis(genesis) if genesis.root == phrase.root().public());
    if copied.as_ref().is_some_and(|(_, body)| is_other(body)) {
        return Err(refused(
            "this folder belongs to an account with another recovery phrase",
        ));
    }
    let keys = held_keys(&params.home.keys(), &params.protection, &params.entropy)?;
    let keys = keys.filter(KeyStore::is_enrolled);
    // The database can be lost, or the key store; and an earlier try may have put the keys aside.
    let mut pinned = keys.as_ref().and_then(KeyStore::genesis);
    pinned = pinned.or_else(|| copied.map(|(id, _)| id));
    if pinned.is_none()
        && let Some(aside) = params.home.newest_aside(FORMER)
    {
        let before = held_keys(&aside.join("keys"), &params.protection, &params.entropy)?;
        pinned = before.as_ref().and_then(KeyStore::genesis);
    }
    let Some(genesis) = pinned else {
        return Ok(None);
    };
    let memory = Memory::open(&params.home.memory(), params.invitation.cell())?;
    if let Some(keys) = &keys {
        ask_whether_forgotten(params, keys, &memory, phrase)?;
    }
    Ok(Some(Former {
        genesis,
        serial: memory.cell_serial(),
    }))
}

fn ask_whether_forgotten(
    params: &EnrolParams,
    keys: &KeyStore,
    memory: &Memory,
    phrase: &RecoveryPhrase,
) -> Result<(), Failure> {
    if keys.cell().root != params.invitation.root {
        return Err(refused("this folder belongs to an account of another cell"));
    }
    let ledger = open_ledger(&params.home, keys, &params.clock, &params.entropy)?;
    let egress = Egress::new(EgressParts {
        // The cell may have another address by now.
        cell: Invitation {
            right: None,
            ..params.invitation.clone()
        },
        door: params.door.clone(),
        ledger,
        clock: Arc::clone(&params.clock),
        entropy: Arc::clone(&params.entropy),
    });
    let surroundings = Surroundings {
        clock: &*params.clock,
        entropy: &*params.entropy,
    };
    let account = keys.account().ok_or(AccountError::NotEnrolled)?;
    let api = account::device_errand(&egress, keys, Purpose::ReAnchor, surroundings)?;
    let ask = async |api: &Api| {
        let cell = api.describe_cell().await?;
        let shown = api.read_chain(account, 0).await.map(|_| ());
        Ok::<_, ApiError>((cell.keyring.current().serial, shown))
    };
    let answer = params.runtime.block_on(ask(&api));
    params.runtime.block_on(api.close());
    let (serial, shown) = answer?;
    memory.check_cell(serial)?;
    match shown {
        // Nothing is put aside for an account that the cell does not know either.
        Err(error) if error.is_not_found() => {
            let root = Arc::new(phrase.root());
            let found = account::find(&egress, &root, surroundings);
            params.runtime.block_on(found)?;
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(()) => Err(refused(
            "this device belongs to the account already, and the cell knows it",
        )),
    }
}
