//! The engine of a device: one account, one cell, all of its services.
//!
//! A door (the command line, a page, a phone's binding) hands it [`Command`]s and gets [`View`]s.
//! The engine decides from its own, checked copy of the chain whether anything may be sent, asks
//! `candor-consent` for the authority, and opens connections through [`crate::egress`] alone.
//!
//! Threads: [`Engine::execute`] blocks, and may be called from many threads at once, but never from
//! an asynchronous task. Work on one vault excludes other work on it; changes of the chain queue.
//! Locks are taken in the order log turn, chain turn, key store, store, chain, each for a moment; only
//! the turns, and the key store while statements are appended, are held while a cell is waited for.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use candor_consent::Authority;
use candor_vault::report::Cancel;
use candor_vault::secret::scrub_stack;
use candor_vault::{Entropy, VaultKeys};
use candor_wire::chain::AccountView as ChainView;
use candor_wire::errand::Purpose;
use candor_wire::sign::SecretKey;
use candor_wire::statement::Role;
use candor_wire::{AccountId, CellId, DeviceId, Millis, StatementId, VaultId};
use tokio::runtime::Handle;

use crate::account::{self, ErrandFor, Surroundings};
use crate::api::Api;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::commands::{Command, Event, Failure, FailureKind, View};
use crate::device_store::{DeviceStore, PendingWithdrawal};
use crate::drill_flow::DrillSize;
use crate::egress::{CellDoor, Egress, EgressParts};
pub use crate::enrol::{EnrolParams, create_account, draw_phrase, join_account, recover_account};
use crate::failure::interrupted;
use crate::forget_flow::Which;
use crate::home::Home;
use crate::keystore::KeyStore;
use crate::ledger::{Ledger, LedgerParts};
use crate::link_flow::OpenLink;
use crate::memory::Memory;
use crate::re_anchor_flow::Proposal;
use candor_wire::cell::{Invitation, SignedCellKeys};

/// What an engine works with.
pub struct EngineConfig {
    /// The device's folder, locked.
    pub home: Home,
    /// The key store, open, of a device that belongs to an account.
    pub keys: KeyStore,
    /// How the cell is reached.
    pub door: CellDoor,
    /// Where asynchronous work runs.
    pub runtime: Handle,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where random bytes come from.
    pub entropy: Arc<dyn Entropy>,
}

/// What never changes while an engine lives.
pub(crate) struct Facts {
    pub(crate) account: AccountId,
    pub(crate) genesis: Option<StatementId>,
    pub(crate) account_name: String,
    pub(crate) device: DeviceId,
    pub(crate) device_name: String,
    pub(crate) role: Role,
    pub(crate) cell: CellId,
    pub(crate) invitation: Invitation,
    pub(crate) in_process: bool,
    pub(crate) is_protected: bool,
    pub(crate) signing: Arc<SecretKey>,
}

/// One device at work. See the module's description for threads and locks.
pub struct Engine {
    pub(crate) home: Home,
    pub(crate) facts: Facts,
    pub(crate) runtime: Handle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) egress: Egress,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) memory: Memory,
    /// Held from the reading of a checkpoint until it is remembered: two that are read at one time must
    /// not look like a log that shrank.
    pub(crate) log_turn: Mutex<()>,
    pub(crate) proposal: Mutex<Proposal>,
    /// The link that this device opened last, while it waits for a new one.
    pub(crate) link: Mutex<Option<OpenLink>>,
    chain_turn: Mutex<()>,
    chain: Mutex<Option<Chain>>,
    keys: Mutex<KeyStore>,
    store: Mutex<DeviceStore>,
    vaults: Vaults,
    runs: Mutex<BTreeMap<String, Cancel>>,
    /// Held by a drill.
    pub(crate) drilling: Mutex<()>,
    /// Where snapshots are mounted now.
    pub(crate) mounts: Mutex<Vec<PathBuf>>,
}

/// A lock of data that is never left half changed: a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Opens everything of the device. Sends nothing.
    ///
    /// A cached chain that does not verify is left aside, as if there were none: it is read from
    /// the cell again by the next command that may ask the cell.
    pub fn open(config: EngineConfig) -> Result<Self, Failure> {
        let EngineConfig {
            home,
            keys,
            door,
            runtime,
            clock,
            entropy,
        } = config;
        let Some(account) = keys.account().filter(|_| keys.is_enrolled()) else {
            return Err(
                Failure::new(FailureKind::Failed, "this device belongs to no account yet")
                    .with_hint("candor account create, or candor account recover"),
            );
        };
        let store = DeviceStore::open(&home.device_store())?;
        let chain = cached_chain(&store, account, &keys)?;
        crate::drill_flow::sweep(home.path());
        let ledger = open_ledger(&home, &keys, &clock, &entropy)?;
        let memory = Memory::open(&home.memory(), keys.cell().cell())?;
        let facts = Facts {
            account,
            genesis: keys.genesis(),
            account_name: keys.account_name().to_owned(),
            device: keys.device(),
            device_name: keys.device_name().to_owned(),
            role: keys.role(),
            cell: keys.cell().cell(),
            invitation: keys.cell().clone(),
            in_process: matches!(door, CellDoor::InProcess(_)),
            is_protected: keys.is_protected(),
            signing: keys.signing(),
        };
        let egress = Egress::new(EgressParts {
            cell: keys.cell().clone(),
            door,
            ledger: Arc::clone(&ledger),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
        });
        Ok(Self {
            home,
            facts,
            runtime,
            clock,
            entropy,
            egress,
            ledger,
            memory,
            log_turn: Mutex::new(()),
            proposal: Mutex::default(),
            link: Mutex::default(),
            chain_turn: Mutex::new(()),
            chain: Mutex::new(chain),
            keys: Mutex::new(keys),
            store: Mutex::new(store),
            vaults: Vaults::default(),
            runs: Mutex::default(),
            drilling: Mutex::default(),
            mounts: Mutex::default(),
        })
    }

    /// Does what a command asks, telling `events` on the way. Blocks until it is done; `cancel`
    /// ends it cleanly with [`FailureKind::Interrupted`], and what was acknowledged stays.
    ///
    /// Whatever shows tampering, rollback or a fork is written to the ledger as an alarm.
    pub fn execute(
        &self,
        command: Command,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let result = self.dispatch(command, events, cancel);
        // Keys were used below this frame, and this thread may be one of a pool.
        scrub_stack();
        result.map_err(|failure| self.alarmed(failure))
    }

    /// Writes an alarm if the failure is one.
    pub(crate) fn alarmed(&self, failure: Failure) -> Failure {
        alarmed(&self.ledger, failure)
    }

    #[inline(never)]
    fn dispatch(
        &self,
        command: Command,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        match command {
            Command::Status => self.status(),
            Command::AccountShow => self.account_view().map(View::Account),
            Command::DeviceList => self.device_list(),
            Command::DeviceLink { write_only } => self.device_link(if write_only {
                Role::WriteOnly
            } else {
                Role::Full
            }),
            Command::DeviceLinkWait => self.device_link_wait(cancel),
            Command::DeviceLinkAnswer { accept, digits } => {
                self.device_link_answer(accept, &digits)
            }
            Command::DeviceRevoke { device } => self.device_revoke(&device, cancel),
            Command::ConsentList => self.consent_list(),
            Command::ConsentHistory => self.consent_history(),
            Command::ConsentPropose { service, sets } => self.consent_propose(&service, &sets),
            Command::ConsentGive {
                service,
                sets,
                token,
                answered,
            } => self.consent_give(&service, &sets, &token, answered),
            Command::ConsentOff {
                service,
                set,
                stored,
            } => self.consent_off(&service, set.as_deref(), stored),
            Command::AccountDelete { cancel } => self.account_delete(cancel),
            Command::ErasureKeep { erasure } => self.erasure_keep(&erasure),
            Command::ConsentReceipt { id } => self.consent_receipt(&id, cancel),
            Command::BackupAdd {
                name,
                paths,
                excludes,
            } => self.backup_add(name, &paths, excludes),
            Command::BackupList => self.set_views().map(View::Sets),
            Command::BackupRun { sets } => self.backup_run(&sets, events, cancel),
            Command::BackupSnapshots { set } => self.backup_snapshots(set.as_deref(), cancel),
            Command::BackupLs {
                snapshot,
                path,
                recursive,
            } => self.backup_ls(&snapshot, path.as_ref(), recursive, events, cancel),
            Command::BackupFind { glob } => self.backup_find(&glob, events, cancel),
            Command::BackupDiff { a, b } => self.backup_diff(&a, &b, events, cancel),
            Command::BackupRestore {
                snapshot,
                paths,
                to,
                privileged,
            } => self.backup_restore(&snapshot, &paths, &to, privileged, events, cancel),
            Command::BackupMount { at } => self.backup_mount(&at, events, cancel),
            Command::BackupCheck { read_data, repair } => {
                self.backup_check(read_data, repair, events, cancel)
            }
            Command::BackupDrill { sets, files, quick } => {
                let size = DrillSize {
                    files,
                    is_quick: quick,
                };
                self.backup_drill(&sets, size, events, cancel)
            }
            Command::Export { to, every_snapshot } => {
                self.export(&to, every_snapshot, events, cancel)
            }
            Command::BackupForget {
                snapshots,
                set,
                keep,
                dry_run,
            } => {
                let which = Which {
                    snapshots: &snapshots,
                    set: set.as_deref(),
                    keep,
                };
                self.backup_forget(&which, dry_run, events, cancel)
            }
            Command::BackupForgotten => self.backup_forgotten(events, cancel),
            Command::BackupUnforget { snapshots } => {
                self.backup_unforget(&snapshots, events, cancel)
            }
            Command::BackupPrune {
                set,
                max_unused_percent,
            } => self.backup_prune(set.as_deref(), max_unused_percent, events, cancel),
            Command::SyncAdd {
                name,
                path,
                excludes,
            } => self.sync_add(name, &path, excludes),
            Command::SyncJoin {
                name,
                path,
                excludes,
            } => self.sync_join(&name, &path, excludes, cancel),
            Command::SyncList => self.folder_views().map(View::Folders),
            Command::SyncRun { folders } => self.sync_run(&folders, events, cancel),
            Command::SyncPrune {
                folders,
                max_unused_percent,
            } => self.sync_prune(&folders, max_unused_percent, events, cancel),
            Command::SyncPause { folder, paused } => self.sync_pause(&folder, paused),
            Command::SyncConflicts => self.sync_conflicts(),
            Command::SyncVersions { path } => self.sync_versions(&path, cancel),
            Command::SyncRestore { path, version, to } => {
                self.sync_restore(&path, &version, to.as_ref(), events, cancel)
            }
            Command::ReAnchorPropose => self.re_anchor_propose(),
            Command::ReAnchorAccept { token } => self.re_anchor_accept(&token, cancel),
            Command::Ledger { since_ms } => {
                let told = self.ledger.lines_until(since_ms, &mut |line| {
                    events(Event::LedgerLine(Box::new(line)));
                    if cancel.is_cancelled() {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })?;
                if told.is_break() {
                    return Err(interrupted());
                }
                Ok(View::Done)
            }
            Command::LedgerNewest {
                selection,
                before,
                most,
            } => Ok(View::LedgerPage(
                self.ledger.newest(&selection, before, most)?,
            )),
            Command::LedgerSummary => Ok(View::LedgerSummary(self.ledger.summarise())),
            Command::LedgerVerify => Ok(View::LedgerVerified(self.ledger.verify()?)),
            Command::LogCheckpoint { compare } => self.log_checkpoint(compare.as_deref(), cancel),
            Command::LogProve { statement } => self.log_prove(&statement, cancel),
            Command::LogMonitor => self.log_monitor(cancel),
            Command::PhraseConfirmed => {
                let mut keys = self.keys();
                keys.set_phrase_confirmed();
                keys.save()?;
                Ok(View::Done)
            }
            Command::Stop => {
                self.stop_runs();
                Ok(View::Done)
            }
        }
    }

    /// Asks every run to end cleanly. They end with [`FailureKind::Interrupted`] and resume later.
    pub fn stop_runs(&self) {
        lock(&self.runs).values().for_each(Cancel::cancel);
    }

    /// The device's folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The id of the cell that this device knows.
    pub fn cell(&self) -> CellId {
        self.facts.cell
    }

    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            clock: &*self.clock,
            entropy: &*self.entropy,
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    pub(crate) fn keys(&self) -> MutexGuard<'_, KeyStore> {
        lock(&self.keys)
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, DeviceStore> {
        lock(&self.store)
    }

    /// Reads from the chain as this device knows it; `None` when it knows none.
    pub(crate) fn with_chain<T>(&self, read: impl FnOnce(&Chain) -> T) -> Option<T> {
        lock(&self.chain).as_ref().map(read)
    }

    /// Takes over a chain that is kept already.
    pub(crate) fn set_chain(&self, chain: Chain) {
        *lock(&self.chain) = Some(chain);
    }

    /// A copy of the view, for what takes longer.
    pub(crate) fn view(&self) -> Result<ChainView, Failure> {
        self.with_chain(|chain| chain.view().clone())
            .ok_or_else(unknown_chain)
    }

    /// Opens a connection for an authority. Nothing is sent before the first request.
    pub(crate) fn open_api(&self, authority: Box<dyn Authority>) -> Result<Arc<Api>, Failure> {
        let _inside = self.runtime.enter();
        let connection = self
            .egress
            .open(authority, Arc::clone(&self.facts.signing))?;
        Ok(Arc::new(Api::new(connection)))
    }

    /// Opens a connection for one thing that the person just asked for.
    pub(crate) fn errand(&self, purpose: Purpose) -> Result<Arc<Api>, Failure> {
        let what = ErrandFor {
            purpose,
            account: Some(self.facts.account),
            signer: Some(self.facts.device),
            cell: self.facts.cell,
        };
        let errand = account::sign_errand(what, &self.facts.signing, self.surroundings())?;
        self.open_api(Box::new(errand))
    }

    /// Reads the cell's newest keys and what is new in the chain, and checks all of it against what
    /// this device ever saw.
    pub(crate) fn sync_chain(&self, api: &Api) -> Result<(), Failure> {
        self.change_chain(api, |chain| {
            Ok(self
                .runtime
                .block_on(account::sync(api, chain, &self.memory))?)
        })
    }

    /// Works on a copy of the chain and keeps it, durably, if the work succeeded. New epochs are
    /// opened, and the key store saved, before anybody can rely on them.
    pub(crate) fn change_chain<T>(
        &self,
        api: &Api,
        work: impl FnOnce(&mut Chain) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let _turn = lock(&self.chain_turn);
        let known = lock(&self.chain).clone();
        let kept = known.as_ref().map_or(0, |chain| chain.records().len());
        let kept_keys = known
            .as_ref()
            .map_or_else(Vec::new, |chain| chain.cell_keys().to_vec());
        let mut chain = match known {
            Some(chain) => chain,
            None => self.fetch_chain(api)?,
        };
        let value = work(&mut chain)?;
        let mut keys = self.keys();
        if account::open_keys(&chain, &mut keys)? {
            keys.save()?;
        }
        drop(keys);
        self.keep_chain(&chain, kept, &kept_keys)?;
        *lock(&self.chain) = Some(chain);
        Ok(value)
    }

    /// Writes down what is new in the chain, and forgets withdrawals that it has by now. An unchanged
    /// chain costs no write.
    fn keep_chain(
        &self,
        chain: &Chain,
        kept: usize,
        kept_keys: &[SignedCellKeys],
    ) -> Result<(), Failure> {
        let mut store = self.store();
        if chain.cell_keys() != kept_keys {
            store.put_cell_keys(chain.cell_keys())?;
        }
        let new = chain.records().get(kept..).unwrap_or_default();
        if !new.is_empty() {
            store.put_chain(new)?;
        }
        let consents = chain.view().consents();
        for pending in store.withdrawals()? {
            // One that waits for a yes without an answer is forgotten by whoever tells it.
            let is_told = pending.before != PendingWithdrawal::ANYWHERE
                && consents
                    .iter()
                    .all(|(_, consent)| !pending.ends(consent) || consent.withdrawn.is_some());
            if is_told {
                store.forget_withdrawal(&pending)?;
            }
        }
        Ok(())
    }

    /// The whole chain, for a device whose database was lost.
    fn fetch_chain(&self, api: &Api) -> Result<Chain, Failure> {
        let (root, account) = (self.facts.invitation.root, self.facts.account);
        let fetched = account::fetch(api, &root, account, self.facts.genesis, &self.memory);
        Ok(self.runtime.block_on(fetched)?)
    }

    /// The secrets of a vault, from the key store.
    pub(crate) fn vault_keys(&self, vault: VaultId) -> Result<Arc<VaultKeys>, Failure> {
        let keys = self.keys();
        let scope = keys.keys(Some(vault)).ok_or_else(|| {
            Failure::new(
                FailureKind::Failed,
                format!("this device holds no key of vault {vault}"),
            )
            .with_hint("`candor account recover` in a new home opens it with the recovery phrase")
        })?;
        let keys = scope
            .vault_keys(self.facts.account)
            .ok_or_else(unknown_chain)?;
        keys.map(Arc::new).map_err(|error| Failure::of(&error))
    }

    /// Waits for a vault to be free, and keeps it until the result is dropped.
    pub(crate) fn hold_vault(
        &self,
        vault: VaultId,
        cancel: &Cancel,
    ) -> Result<VaultHold<'_>, Failure> {
        self.vaults.hold(vault, cancel)
    }

    /// Registers a run of a set, unless one is at work.
    pub(crate) fn begin_run(&self, set: &str, cancel: &Cancel) -> Option<RunMark<'_>> {
        let mut runs = lock(&self.runs);
        if runs.contains_key(set) {
            return None;
        }
        runs.insert(set.to_owned(), cancel.clone());
        Some(RunMark {
            runs: &self.runs,
            set: set.to_owned(),
        })
    }

    /// Stops the run of a set, if there is one.
    pub(crate) fn stop_run(&self, set: &str) {
        if let Some(cancel) = lock(&self.runs).get(set) {
            cancel.cancel();
        }
    }

    pub(crate) fn is_running(&self, set: &str) -> bool {
        lock(&self.runs).contains_key(set)
    }
}

/// Writes an alarm if the failure is one.
pub(crate) fn alarmed(ledger: &Ledger, mut failure: Failure) -> Failure {
    if failure.kind == FailureKind::Integrity
        && let Err(error) = ledger.alarm(&failure.sentence)
    {
        failure
            .causes
            .push(format!("the alarm could not be written: {error}"));
    }
    failure
}

pub(crate) fn unknown_chain() -> Failure {
    Failure::new(
        FailureKind::Failed,
        "this device's copy of the account's chain is missing",
    )
    .with_hint("`candor consent history` reads it from the cell again")
}

fn cached_chain(
    store: &DeviceStore,
    account: AccountId,
    keys: &KeyStore,
) -> Result<Option<Chain>, Failure> {
    let records = store.chain()?;
    if records.is_empty() {
        return Ok(None);
    }
    // What does not verify is not believed, and not fatal: the cell has the original.
    let loaded = Chain::load(&keys.cell().root, account, store.cell_keys()?, records).ok();
    Ok(loaded.filter(|chain| {
        keys.genesis()
            .is_none_or(|genesis| genesis == chain.genesis())
    }))
}

pub(crate) fn open_ledger(
    home: &Home,
    keys: &KeyStore,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Arc<Ledger>, Failure> {
    let parts = LedgerParts {
        key: keys.ledger_key(),
        signing: keys.signing(),
        device: keys.device(),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
    };
    Ok(Ledger::open(&home.ledger(), parts)?)
}

/// A run of a set, as long as it lasts.
pub(crate) struct RunMark<'a> {
    runs: &'a Mutex<BTreeMap<String, Cancel>>,
    set: String,
}

impl Drop for RunMark<'_> {
    fn drop(&mut self) {
        lock(self.runs).remove(&self.set);
    }
}

/// Which vaults are being worked on.
#[derive(Default)]
struct Vaults {
    held: Mutex<Vec<VaultId>>,
    freed: Condvar,
}

/// A vault that nobody else works on, until this is dropped.
pub(crate) struct VaultHold<'a> {
    vaults: &'a Vaults,
    vault: VaultId,
}

impl Vaults {
    fn hold(&self, vault: VaultId, cancel: &Cancel) -> Result<VaultHold<'_>, Failure> {
        let mut held = lock(&self.held);
        while held.contains(&vault) {
            if cancel.is_cancelled() {
                return Err(interrupted());
            }
            let waited = self.freed.wait_timeout(held, crate::events::CANCEL_POLL);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        held.push(vault);
        Ok(VaultHold {
            vaults: self,
            vault,
        })
    }
}

impl Drop for VaultHold<'_> {
    fn drop(&mut self) {
        lock(&self.vaults.held).retain(|other| *other != self.vault);
        self.vaults.freed.notify_all();
    }
}
