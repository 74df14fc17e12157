//! A vault at the cell, opened: its verified head, its repository, and the connection to both.
//!
//! Whoever opens one holds the vault on this device, has synced the chain, and has checked the head
//! against the rollback memory. Reading and writing start from the same place.

use std::sync::Arc;

use candor_vault::random::RandomReader;
use candor_vault::report::Cancel;
use candor_vault::{
    IndexError, Repository, RepositoryError, SnapshotEntry, SnapshotId, Staged, VaultKeys, seal,
};
use candor_wire::api::ErrorCode;
use candor_wire::chain::AccountView as ChainView;
use candor_wire::head::{HEAD_VERSION, Head, HeadHash, SignedHead};
use candor_wire::statement::Role;
use candor_wire::{Millis, ObjectId, VaultId};

use crate::api::{Api, ApiError};
use crate::bridge::CellObjects;
use crate::commands::{Failure, FailureKind};
use crate::engine::{Engine, unknown_chain};
use crate::erase_flow;
use crate::events::Events;
use crate::memory::RememberedHead;
use crate::writer_flow::{Run, check_mover};

/// How often a run tries to move the head when other devices are faster. Each loss means that
/// somebody else's backup was done in between, so more than a few in a row do not happen.
const HEAD_TRIES_MAX: usize = 8;

/// A head that was verified and remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownHead {
    pub(crate) counter: u64,
    pub(crate) hash: HeadHash,
    pub(crate) manifest: ObjectId,
    /// Of a run its number. Those of a write-only device in other hands mean nothing, so that they are not remembered.
    pub(crate) epoch: u32,
    is_run: bool,
}

impl KnownHead {
    fn seen(&self, vault: VaultId) -> RememberedHead {
        RememberedHead {
            vault,
            counter: self.counter,
            hash: self.hash,
            epoch: if self.is_run { 0 } else { self.epoch },
        }
    }
}

/// A vault with its index up to date.
pub(crate) struct OpenVault {
    pub(crate) vault: VaultId,
    pub(crate) head: Option<KnownHead>,
    pub(crate) repository: Repository,
    pub(crate) objects: Arc<CellObjects>,
    /// The run of this device, if it is write-only.
    pub(crate) run: Option<Run>,
}

impl OpenVault {
    /// Reads a little, wherever it is.
    pub(crate) fn random_reader(&self) -> RandomReader {
        let source = Arc::clone(&self.objects);
        RandomReader::new(&self.repository, source)
    }
}

/// What a reply about a head must fit.
pub(crate) fn disagreement() -> Failure {
    Failure::new(
        FailureKind::Integrity,
        "the vault's head and its manifest do not belong together",
    )
    .with_hint("do not go on with this cell before you know why; nothing was written")
}

/// A signed head and the manifest that it names say the same about themselves.
fn must_fit(repository: &Repository, head: Option<&KnownHead>) -> Result<(), Failure> {
    let manifest = repository.manifest();
    let fits = match head {
        Some(head) => (manifest.counter, manifest.epoch) == (head.counter, head.epoch),
        None => manifest.counter == 0,
    };
    if fits { Ok(()) } else { Err(disagreement()) }
}

impl Engine {
    /// Reads the vault's head and checks signature, place and that it is not older than what this
    /// device saw. It is remembered, durably, before this returns.
    pub(crate) fn read_head(
        &self,
        api: &Api,
        view: &ChainView,
        vault: VaultId,
    ) -> Result<Option<KnownHead>, Failure> {
        let account = self.facts.account;
        let Some(signed) = self.runtime.block_on(api.read_head(account, vault))? else {
            if let Some((asked, entry)) = view.erasure_of(Some(&vault)) {
                return Err(erase_flow::erased(asked, entry));
            }
            view.check_no_head(&vault)?;
            self.memory.check_head(&vault, None)?;
            return Ok(None);
        };
        let key_of = |device: &_| {
            view.device(device)
                .map(|entry| entry.added.signing.ed25519())
        };
        let head = signed.verify(&account, &vault, key_of)?;
        check_mover(view, &vault, &head)?;
        view.check_head(&vault, &head, &signed.hash())?;
        let known = KnownHead {
            counter: head.counter,
            hash: signed.hash(),
            manifest: head.manifest,
            epoch: head.epoch,
            is_run: head.runs.is_some(),
        };
        let newest = |view: &ChainView| view.epoch(Some(vault)).map_or(0, |record| record.epoch);
        if !known.is_run && known.epoch > newest(view) {
            // Another device may have begun it just now. Then the head is judged by the newer chain, in which its
            // signer may be revoked. One of a number that nobody began would make every later head look older.
            self.sync_chain(api)?;
            let newer = self.view()?;
            if known.epoch > newest(&newer) {
                return Err(disagreement());
            }
            return self.read_head(api, &newer, vault);
        }
        let seen = known.seen(vault);
        self.memory.check_successor(&seen, head.previous.as_ref())?;
        if known.is_run && self.facts.role == Role::Full {
            self.follow_runs(api, view, vault, &known)?;
        }
        self.memory.remember_head(seen)?;
        Ok(Some(known))
    }

    /// Opens a vault over a connection whose chain was synced. A damaged local index is thrown away
    /// and built again from the cell.
    pub(crate) fn open_vault(
        &self,
        objects: Arc<CellObjects>,
        vault: VaultId,
        events: &Events,
    ) -> Result<OpenVault, Failure> {
        self.memory.check_format(seal::FORMAT, seal::SUITE)?;
        let view = self.view()?;
        let writer = view.writer_of(&vault);
        let head = self.read_head(objects.api(), &view, vault)?;
        // After the head: it may be sealed under keys that were begun meanwhile.
        let keys = match writer {
            Some(_) => None,
            None => Some(self.vault_keys(vault)?),
        };
        if writer == Some(self.facts.device) {
            let (repository, run) = self.open_own_run(&view, vault, head, &objects, events)?;
            return Ok(OpenVault {
                vault,
                head,
                repository,
                objects,
                run: Some(run),
            });
        }
        let manifest = head.map(|head| head.manifest);
        let repository = match (writer, keys) {
            (Some(device), _) => self.open_runs_of(vault, device, head, &objects, events)?,
            (None, keys) => {
                let keys = keys.ok_or_else(unknown_chain)?;
                self.open_shared(&keys, manifest, &objects, events)?
            }
        };
        if writer.is_none() {
            must_fit(&repository, head.as_ref())?;
        }
        self.memory.remember_format(seal::FORMAT, seal::SUITE)?;
        let missing = if self.is_synced_vault(&vault) {
            // Versions come and go by themselves.
            0
        } else {
            let listed = listed(&repository);
            self.store().see_listed(&vault, &listed, self.now())?
        };
        if let Some(manifest) = manifest.filter(|_| writer.is_none()) {
            self.store().see_manifest(&vault, &manifest)?;
        }
        if missing > 0 {
            events.step(format!(
                "{missing} snapshots are not listed any more, and this device did not take them off; `candor backup snapshots --forgotten` shows what can be brought back"
            ));
        }
        Ok(OpenVault {
            vault,
            head,
            repository,
            objects,
            run: None,
        })
    }

    /// Notes what this device has just listed itself, and a way back to it.
    fn note_own(&self, open: &OpenVault, manifest: &ObjectId) -> Result<(), Failure> {
        if !self.is_synced_vault(&open.vault) {
            let listed = listed(&open.repository);
            self.store().list_also(&open.vault, &listed)?;
        }
        if self.view()?.writer_of(&open.vault).is_none() {
            self.store().see_manifest(&open.vault, manifest)?;
        }
        Ok(())
    }

    /// Opens the repository of a vault that full devices share.
    fn open_shared(
        &self,
        keys: &Arc<VaultKeys>,
        manifest: Option<ObjectId>,
        objects: &Arc<CellObjects>,
        events: &Events,
    ) -> Result<Repository, Failure> {
        let vault = keys.vault();
        let repository = match self.open_repository(keys, manifest, objects) {
            Err(RepositoryError::Index(IndexError::Damaged(_))) => {
                events.step("the local index is damaged; it is built again from the cell");
                let path = self.home.index(&vault)?;
                candor_vault::Index::delete(&path).map_err(|error| {
                    Failure::new(FailureKind::Failed, "the local index cannot be deleted")
                        .because(&error)
                })?;
                self.open_repository(keys, manifest, objects)?
            }
            opened => opened?,
        };
        Ok(repository)
    }

    fn open_repository(
        &self,
        keys: &Arc<VaultKeys>,
        manifest: Option<ObjectId>,
        objects: &CellObjects,
    ) -> Result<Repository, RepositoryError> {
        let path = self
            .home
            .index(&keys.vault())
            .map_err(|_| RepositoryError::Index(IndexError::Damaged(None)))?;
        Repository::open(
            Arc::clone(keys),
            Arc::clone(&self.entropy),
            manifest,
            &path,
            objects,
        )
    }

    /// The connection of one command to one vault.
    pub(crate) fn objects(
        &self,
        api: Arc<Api>,
        vault: VaultId,
        cancel: &Cancel,
    ) -> Arc<CellObjects> {
        let runtime = self.runtime.clone();
        Arc::new(CellObjects::new(
            api,
            runtime,
            self.facts.account,
            vault,
            cancel.clone(),
        ))
    }

    /// Moves the head to what was staged, by compare-and-swap. The new head is remembered before this returns.
    fn try_head(
        &self,
        open: &mut OpenVault,
        staged: Staged,
        now: Millis,
    ) -> Result<Moved, Failure> {
        // Whoever switched the service off after the last object was sent gets no head either.
        if open.objects.is_stopped() {
            return Err(crate::failure::interrupted());
        }
        let account = self.facts.account;
        let next = Head {
            version: HEAD_VERSION,
            account,
            vault: open.vault,
            counter: open.head.map_or(1, |head| head.counter.saturating_add(1)),
            previous: open.head.map(|head| head.hash),
            manifest: staged.manifest(),
            epoch: staged.epoch(),
            device: self.facts.device,
            time: now,
            condemned: staged.condemned().to_vec(),
            runs: open.run.as_ref().map(|run| run.state.runs()),
        };
        if next.counter != staged.counter() {
            return Err(disagreement());
        }
        self.check_keys(open, staged.epoch())?;
        let signed = SignedHead::sign(&next, self.facts.signing.ed25519());
        let known = KnownHead {
            counter: next.counter,
            hash: signed.hash(),
            manifest: next.manifest,
            epoch: next.epoch,
            is_run: next.runs.is_some(),
        };
        let api = open.objects.api();
        let (previous, rescued) = (next.previous, staged.rescued());
        match self
            .runtime
            .block_on(api.swap_head(account, open.vault, previous, &signed, rescued))
        {
            Ok(()) => {
                self.memory.remember_head(known.seen(open.vault))?;
                open.head = Some(known);
                open.repository.accept(staged)?;
                if let Some(run) = &mut open.run {
                    let snapshots = open.repository.manifest().snapshots.clone();
                    run.state.published(known.manifest, snapshots);
                    run.state.save(&run.path)?;
                } else {
                    self.note_own(open, &known.manifest)?;
                }
                Ok(Moved::Done)
            }
            Err(ApiError::Refused {
                code: ErrorCode::Conflict,
                ..
            }) => {
                // The device that was faster may be one that this device has not heard of.
                self.sync_chain(api)?;
                self.check_keys(open, staged.epoch())?;
                let view = self.view()?;
                let head = self.read_head(api, &view, open.vault)?;
                self.check_keys(open, staged.epoch())?;
                Ok(Moved::Faster(head.ok_or_else(renewed_meanwhile)?))
            }
            Err(error) if error.is_not_found() => Ok(Moved::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses what was sealed under other keys than the vault's newest.
    fn check_keys(&self, open: &OpenVault, sealed_under: u32) -> Result<(), Failure> {
        let view = self.view()?;
        let newest = view.epoch(Some(open.vault)).map(|epoch| epoch.epoch);
        let is_older = open.run.is_none() && newest.is_some_and(|newest| newest > sealed_under);
        if is_older || view.is_stale(Some(open.vault)) {
            return Err(renewed_meanwhile());
        }
        Ok(())
    }

    /// Moves the head to a manifest with one more snapshot; when another device was faster, puts the snapshot
    /// on top of its state and tries again. `false`: another device removed what the run relied on, and this one
    /// knows that by now. The run has to be done again.
    pub(crate) fn add_snapshot(
        &self,
        open: &mut OpenVault,
        mut staged: Staged,
        snapshot: &SnapshotEntry,
        now: Millis,
    ) -> Result<bool, Failure> {
        let objects = Arc::clone(&open.objects);
        for _ in 0..HEAD_TRIES_MAX {
            let head = match self.try_head(open, staged, now)? {
                Moved::Done => return Ok(true),
                // It reads nothing back, so it cannot go on from what another copy of it did.
                _ if open.run.is_some() => return Err(RepositoryError::Outdated.into()),
                Moved::Faster(head) => head,
                Moved::Gone => {
                    let head = open.head.ok_or(RepositoryError::Outdated)?;
                    open.repository.advance(head.manifest, &*objects)?;
                    must_fit(&open.repository, Some(&head))?;
                    return Ok(false);
                }
            };
            open.head = Some(head);
            let (snapshot, manifest) = (snapshot.clone(), head.manifest);
            match open
                .repository
                .rebase(snapshot, manifest, &*objects, &*objects)
            {
                Ok(Some(again)) => staged = again,
                Ok(None) => return Ok(true),
                Err(RepositoryError::Outdated) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_slow())
    }

    /// Moves the head to what `stage` makes of the vault's state, if it makes anything; when another device was
    /// faster, of what it is then. Says whether it moved.
    pub(crate) fn change_vault(
        &self,
        open: &mut OpenVault,
        mut stage: impl FnMut(&mut OpenVault) -> Result<Option<Staged>, Failure>,
    ) -> Result<bool, Failure> {
        let objects = Arc::clone(&open.objects);
        for _ in 0..HEAD_TRIES_MAX {
            let Some(staged) = stage(open)? else {
                return Ok(false);
            };
            let head = match self.try_head(open, staged, self.now())? {
                Moved::Done => return Ok(true),
                Moved::Faster(head) => head,
                Moved::Gone => open.head.ok_or(RepositoryError::Outdated)?,
            };
            open.head = Some(head);
            open.repository.advance(head.manifest, &*objects)?;
            must_fit(&open.repository, Some(&head))?;
        }
        Err(too_slow())
    }
}

/// The snapshots that a vault lists.
pub(crate) fn listed(repository: &Repository) -> Vec<SnapshotId> {
    let snapshots = repository.manifest().snapshots.iter();
    snapshots.map(|entry| entry.id).collect()
}

/// What came of moving a head.
enum Moved {
    Done,
    /// Another device moved it first, to this.
    Faster(KnownHead),
    /// Something that the new one needs is not at the cell any more.
    Gone,
}

/// Says that a run has to be done again under new keys.
pub(crate) const RENEWED: &str =
    "the keys of the vault were renewed meanwhile, and nothing is written under the old ones";

fn renewed_meanwhile() -> Failure {
    Failure::new(FailureKind::Failed, RENEWED)
        .with_hint("run it again: it writes under the new ones")
}

fn too_slow() -> Failure {
    Failure::new(
        FailureKind::Failed,
        "other devices moved the vault's head again and again",
    )
    .with_hint("run it again: nothing has to be sent twice")
}
