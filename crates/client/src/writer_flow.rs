//! Vaults of write-only devices: how the device opens one to write a run, and others to read all of them.

use std::path::PathBuf;
use std::sync::Arc;

use candor_vault::runs::{LastRun, RunHead, RunsOf};
use candor_vault::secret::SecretBytes;
use candor_vault::{Index, IndexError, Repository, RepositoryError, VaultKeys};
use candor_wire::chain::AccountView as ChainView;
use candor_wire::head::{Head, HeadHash};
use candor_wire::statement::Role;
use candor_wire::{DeviceId, VaultId};

use crate::api::Api;
use crate::bridge::CellObjects;
use crate::commands::{Failure, FailureKind};
use crate::engine::{Engine, unknown_chain};
use crate::epochs;
use crate::events::Events;
use crate::memory::RememberedHead;
use crate::vault_access::{KnownHead, disagreement};
use crate::writer_state::WriterState;

/// A run that is under way.
pub(crate) struct Run {
    pub(crate) state: WriterState,
    pub(crate) path: PathBuf,
}

/// Whether a head is one that its device may put into this vault: a run of the write-only device whose vault it
/// is, and anything else of full devices.
pub(crate) fn check_mover(view: &ChainView, vault: &VaultId, head: &Head) -> Result<(), Failure> {
    let role = view.device(&head.device).map(|entry| entry.added.role);
    let writer = view.writer_of(vault);
    let fits = match role {
        Some(Role::Full) => head.runs.is_none() && writer.is_none(),
        Some(Role::WriteOnly) => head.runs.is_some() && writer == Some(head.device),
        None => false,
    };
    if fits {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Integrity,
        "the vault's head is one that its device may not move",
    )
    .with_hint(crate::failure::TAMPERED))
}

impl Engine {
    /// Opens a vault of this device, which is write-only, for one run. The run's key is drawn here, sealed for those
    /// who may read, and kept nowhere else.
    pub(crate) fn open_own_run(
        &self,
        view: &ChainView,
        vault: VaultId,
        head: Option<KnownHead>,
        objects: &CellObjects,
        events: &Events,
    ) -> Result<(Repository, Run), Failure> {
        let path = self.home.writer_state(&vault)?;
        let mut state = WriterState::load(&path);
        let manifest = head.map(|head| head.manifest);
        let (is_known, is_full) = (state.is_known(), state.is_full());
        let epoch = view.epoch(Some(vault)).ok_or_else(unknown_chain)?;
        let number = state.next(head.map_or(0, |head| head.epoch)).ok_or_else(|| {
            Failure::new(
                FailureKind::Integrity,
                "somebody else used up the numbers of this device's runs: its keys are in other hands",
            )
            .with_hint("make a new write-only device with `candor account recover --role write-only` in a new home")
        })?;
        let chunk_ids = {
            let keys = self.keys();
            let writer = keys.writer();
            let key = writer.and_then(|writer| writer.chunk_ids(&vault));
            SecretBytes::copy_of(key.ok_or_else(unknown_chain)?)
        };
        let (account, device) = (self.facts.account, self.facts.device);
        let (run, key) = epochs::begin_run(
            account,
            epoch,
            device,
            number,
            chunk_ids.as_array(),
            &*self.entropy,
        )
        .map_err(|error| Failure::of(&error))?;
        state.begin(run, is_full);
        state.save(&path)?;
        let last = LastRun {
            counter: head.map_or(0, |head| head.counter),
            manifest,
            snapshots: state.snapshots_of(manifest),
            keeps_unlisted: is_known && !is_full,
        };
        let keys = VaultKeys::of_runs(account, vault, [(number, key)], chunk_ids.as_array());
        let keys = keys.map(Arc::new).map_err(|error| Failure::of(&error))?;
        let index = self.home.index(&vault)?;
        let open = |last: LastRun| {
            let entropy = Arc::clone(&self.entropy);
            Repository::open_run(Arc::clone(&keys), entropy, last, &index, objects)
        };
        let repository = match open(last.clone()) {
            Err(RepositoryError::Index(IndexError::Damaged(_))) => {
                events.step("the local index is damaged; what it knew is sent again");
                delete_index(&index)?;
                open(last)?
            }
            opened => opened?,
        };
        Ok((repository, Run { state, path }))
    }

    /// Opens the vault of a write-only device for reading, with all of its runs.
    pub(crate) fn open_runs_of(
        &self,
        vault: VaultId,
        device: DeviceId,
        head: Option<KnownHead>,
        objects: &CellObjects,
        events: &Events,
    ) -> Result<Repository, Failure> {
        if self.facts.role == Role::WriteOnly {
            return Err(Failure::new(
                FailureKind::Policy,
                "a write-only device reads nothing back: it has no key",
            )
            .with_hint("use a full device of this account, or the recovery phrase"));
        }
        let signed = match head {
            Some(head) => self.read_runs(objects.api(), &self.view()?, vault, None, &head)?,
            None => Vec::new(),
        };
        let account = self.facts.account;
        let heads: Vec<RunHead> = {
            let keys = self.keys();
            let scope = keys.keys(Some(vault)).ok_or_else(unknown_chain)?;
            let run_head = |head: &Head| {
                let opened = head.runs.iter().flatten().map(|run| {
                    let opened = epochs::open_run(account, device, run, scope);
                    opened.ok()
                });
                RunHead {
                    counter: head.counter,
                    manifest: head.manifest,
                    // All of them or none: a head is believed as a whole.
                    secrets: opened.collect::<Option<Vec<_>>>().unwrap_or_default(),
                }
            };
            signed.iter().map(run_head).collect()
        };
        let index = self.home.index(&vault)?;
        let of = RunsOf {
            account,
            vault,
            device,
        };
        let count = heads.len();
        let opened = Repository::open_runs(of, heads, Arc::clone(&self.entropy), &index, objects);
        let (repository, left_out) = opened?;
        if !left_out.is_empty() {
            let sentence = format!(
                "{} of {count} runs of a write-only device are no proper ones and are left out: that device may be in other hands",
                left_out.len()
            );
            events.step(sentence.clone());
            self.ledger.alarm(&sentence)?;
        }
        Ok(repository)
    }

    /// Checks that a head of another device's runs comes from the newest one seen, however many are between.
    pub(crate) fn follow_runs(
        &self,
        api: &Api,
        view: &ChainView,
        vault: VaultId,
        newest: &KnownHead,
    ) -> Result<(), Failure> {
        match self.memory.head(&vault) {
            // The next one names it.
            Some(seen) if seen.counter + 1 < newest.counter => self
                .read_runs(api, view, vault, Some(seen), newest)
                .map(drop),
            _ => Ok(()),
        }
    }

    /// Every head of the vault up to the one that was verified, oldest first: each names the one before. They begin
    /// with the first, or with the one that was seen.
    fn read_runs(
        &self,
        api: &Api,
        view: &ChainView,
        vault: VaultId,
        seen: Option<RememberedHead>,
        newest: &KnownHead,
    ) -> Result<Vec<Head>, Failure> {
        let account = self.facts.account;
        let key_of = |device: &_| {
            let entry = view.device(device);
            entry.map(|entry| entry.added.signing.ed25519())
        };
        let mut heads: Vec<Head> = Vec::new();
        let mut last: Option<HeadHash> = None;
        let mut next = seen.map_or(1, |seen| seen.counter);
        while next <= newest.counter {
            let page = self.runtime.block_on(api.read_runs(account, vault, next))?;
            if page.is_empty() {
                return Err(disagreement());
            }
            // One that came meanwhile is not read this time.
            let wanted = usize::try_from(newest.counter - next).unwrap_or(usize::MAX);
            for signed in page.into_iter().take(wanted.saturating_add(1)) {
                let head = signed.verify(&account, &vault, key_of)?;
                check_mover(view, &vault, &head)?;
                let hash = signed.hash();
                if let (None, Some(seen)) = (last, seen) {
                    let shown = RememberedHead { hash, ..seen };
                    self.memory.check_head(&vault, Some(&shown))?;
                } else if head.previous != last {
                    return Err(disagreement());
                }
                if head.counter != next {
                    return Err(disagreement());
                }
                heads.push(head);
                last = Some(hash);
                next += 1;
            }
        }
        if last == Some(newest.hash) {
            Ok(heads)
        } else {
            Err(disagreement())
        }
    }
}

fn delete_index(path: &std::path::Path) -> Result<(), Failure> {
    Index::delete(path).map_err(|error| {
        Failure::new(FailureKind::Failed, "the local index cannot be deleted").because(&error)
    })
}
