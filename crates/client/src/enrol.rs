//! How a device comes into an account: it opens one, comes back with the recovery phrase, or joins with a code that
//! another device shows. Each ends with an engine.

use std::sync::Arc;

use candor_vault::Entropy;
use candor_vault::report::Cancel;
use candor_wire::cell::Invitation;
use candor_wire::linking::LinkCode;
use candor_wire::statement::Role;
use tokio::runtime::Handle;

use crate::account::{self, AccountError, Known, Surroundings};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::commands::{Failure, FailureKind};
use crate::device_store::DeviceStore;
use crate::egress::{CellDoor, Egress, EgressParts};
use crate::engine::{Engine, EngineConfig, alarmed, open_ledger};
use crate::home::Home;
use crate::keystore::{KeyProtection, KeyStore, NewKeys};
use crate::link_flow::digits_text;
use crate::memory::Memory;
use crate::phrase::RecoveryPhrase;
use crate::rejoin::{self, Former};

/// What is needed to open an account, or to come back to one, on this device.
pub struct EnrolParams {
    /// The device's folder, locked. It belongs to no account yet, or to the one that is recovered.
    pub home: Home,
    /// Names the cell; with a right to open an account, if one is to be opened.
    pub invitation: Invitation,
    /// How the cell is reached.
    pub door: CellDoor,
    /// What the person calls the account; stays on this device.
    pub account_name: String,
    /// What the person calls this device.
    pub device_name: String,
    /// What this device may do.
    pub role: Role,
    /// How the key store is sealed.
    pub protection: KeyProtection,
    /// Where asynchronous work runs.
    pub runtime: Handle,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where random bytes come from.
    pub entropy: Arc<dyn Entropy>,
}

/// A recovery phrase for a new account: shown to the person, or written to their file, *before*
/// [`create_account`] tells a cell anything.
pub fn draw_phrase(entropy: &dyn Entropy) -> Result<RecoveryPhrase, Failure> {
    RecoveryPhrase::generate(entropy).map_err(|error| Failure::of(&error))
}

/// Opens an account at the invitation's cell, with this as its first device (errand: create).
///
/// If the cell could not be reached or refused, it can be tried again in the same folder.
pub fn create_account(params: EnrolParams, phrase: &RecoveryPhrase) -> Result<Engine, Failure> {
    rejoin::check_unused(&params.home)?;
    let Some(right) = params.invitation.right.clone() else {
        return Err(
            Failure::new(FailureKind::Usage, "this invitation opens no account")
                .with_hint("ask who runs the cell for a new one: `candor server invite`"),
        );
    };
    enrol(
        params,
        None,
        |runtime, egress, keys, memory, surroundings| {
            // A name that was used in a try whose answer got lost cannot be used again.
            keys.set_account(
                account::new_account_id(surroundings.entropy).map_err(AccountError::from)?,
            );
            keys.save()?;
            Ok(runtime.block_on(account::create(
                egress,
                right,
                phrase,
                keys,
                memory,
                surroundings,
            ))?)
        },
    )
}

/// Adds this device to an account with its recovery phrase (errand: recover), and opens all of its
/// vaults' keys with it.
///
/// A home that belonged to the account before keeps its sets and what it saw, and joins as a new device. One
/// that the cell still knows is refused.
///
/// With `revoke_others` every other device of the account is revoked first, by the root key: when this one is enrolled,
/// nobody who holds another gets in between.
pub fn recover_account(
    params: EnrolParams,
    phrase: &RecoveryPhrase,
    revoke_others: bool,
) -> Result<Engine, Failure> {
    let former = rejoin::former(&params, phrase)?;
    let genesis = former.map(|former| former.genesis);
    enrol(
        params,
        former,
        |runtime, egress, keys, memory, surroundings| {
            let known = Known {
                phrase,
                genesis,
                revoke_others,
            };
            Ok(runtime.block_on(account::recover(egress, known, keys, memory, surroundings))?)
        },
    )
}

/// Joins the account of a code that one of its devices shows (errand: join). `tell` is given the digits that the other
/// device shows too, for the person to compare; this waits until they said yes there.
pub fn join_account(
    params: EnrolParams,
    code: &LinkCode,
    tell: &mut (dyn FnMut(&str) + Send),
    cancel: &Cancel,
) -> Result<Engine, Failure> {
    rejoin::check_unused(&params.home)?;
    enrol(
        params,
        None,
        |runtime, egress, keys, memory, surroundings| {
            let mut tell = |digits| tell(&digits_text(digits));
            let joined = account::join(egress, code, keys, memory, &mut tell, cancel, surroundings);
            Ok(runtime.block_on(joined)?)
        },
    )
}

fn enrol(
    params: EnrolParams,
    former: Option<Former>,
    work: impl FnOnce(
        &Handle,
        &Egress,
        &mut KeyStore,
        &Memory,
        Surroundings<'_>,
    ) -> Result<Chain, Failure>,
) -> Result<Engine, Failure> {
    let EnrolParams {
        home,
        invitation,
        door,
        account_name,
        device_name,
        role,
        protection,
        runtime,
        clock,
        entropy,
    } = params;
    let cell = Invitation {
        right: None,
        ..invitation
    };
    let new = NewKeys {
        account_name,
        device_name,
        role,
        cell,
        account: None,
    };
    let mut keys = new_keys(&home, new, protection, &entropy, former)?;
    let ledger = open_ledger(&home, &keys, &clock, &entropy)?;
    let memory = match former {
        None => Memory::open(&home.memory(), keys.cell().cell())?,
        // What the home remembers is compared, and a person asked, once it can ask the cell again.
        Some(former) => Memory::of_one_join(keys.cell().cell(), former.serial),
    };
    let egress = Egress::new(EgressParts {
        cell: keys.cell().clone(),
        door: door.clone(),
        ledger: Arc::clone(&ledger),
        clock: Arc::clone(&clock),
        entropy: Arc::clone(&entropy),
    });
    let enrolled = work(
        &runtime,
        &egress,
        &mut keys,
        &memory,
        Surroundings {
            clock: &*clock,
            entropy: &*entropy,
        },
    );
    let chain = enrolled.map_err(|failure| alarmed(&ledger, failure))?;
    if former.is_none() {
        let mut store = DeviceStore::open(&home.device_store())?;
        store.put_cell_keys(chain.cell_keys())?;
        store.put_chain(chain.records())?;
    }
    // The engine opens these itself.
    drop((egress, ledger, memory));
    Engine::open(EngineConfig {
        home,
        keys,
        door,
        runtime,
        clock,
        entropy,
    })
}

/// A new key store. One that is there from an enrolment that did not succeed, or from the device that this
/// home was before, is put aside together with the ledger that is sealed under it: this try has its own
/// names and protection, and what was sent earlier stays on record.
fn new_keys(
    home: &Home,
    new: NewKeys,
    protection: KeyProtection,
    entropy: &Arc<dyn Entropy>,
    former: Option<Former>,
) -> Result<KeyStore, Failure> {
    let held = rejoin::held_keys(&home.keys(), &protection, entropy)?;
    match (&held, former) {
        (None, None) => {}
        (Some(keys), None) if keys.is_enrolled() => {
            return Err(rejoin::refused("this device belongs to an account already"));
        }
        // What an enrolment remembered that did not succeed is of no use to the next.
        (Some(_), None) => home.put_aside("begun", &["ledger", "memory", "keys"])?,
        (_, Some(_)) => home.put_aside(rejoin::FORMER, &["ledger", "keys"])?,
    }
    drop(held);
    Ok(KeyStore::create(
        &home.keys(),
        new,
        protection,
        Arc::clone(entropy),
    )?)
}
