//! Synced folders: adding and joining them, one round, and what is told about them.
//!
//! A round takes the folder's grant, the vault and its newest head, merges ([`candor_vault::sync`]), moves the head by
//! compare-and-swap, and brings the folder to the merged tree. A round that lost the swap merges again with what
//! the other device made.

use std::path::{Component, Path};

use candor_consent::{Refusal, Sync};
use candor_vault::report::Cancel;
use candor_vault::sync::{self, Dirty, DiskFolder, Round, RoundOutcome, State, SyncError, SyncJob};
use candor_vault::{ObjectSink, ObjectSource};
use candor_wire::chain::AccountView as ChainView;
use candor_wire::consent_record::ServiceCode;
use candor_wire::errand::Purpose;
use candor_wire::statement::Role;
use candor_wire::{DeviceId, Nanos, VaultId};
use std::sync::Arc;

use crate::account;
use crate::backup_flow::tell_problems;
use crate::commands::{ConflictView, Event, Failure, FailureKind, FolderView, SyncedView, View};
use crate::device_store::{BackupSet, SyncedFolder};
use crate::engine::Engine;
use crate::events::{Events, Meter, pump};
use crate::failure;
use crate::path_text::PathText;
use crate::restore_flow::Session;
use crate::sets;

/// The fewest folders that are looked at in one round.
pub(crate) const PART_MIN: usize = 16;

/// What a run of a service on a set or folder is registered as. Names have no slash.
pub(crate) fn run_name(service: ServiceCode, name: &str) -> String {
    match service {
        ServiceCode::Sync => format!("sync/{name}"),
        _ => name.to_owned(),
    }
}

impl Engine {
    fn check_can_sync(&self) -> Result<(), Failure> {
        if self.facts.role == Role::Full {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::Policy,
            "a write-only device cannot keep folders in step: it can read nothing",
        )
        .with_hint("link it as a full device, or back it up"))
    }

    /// Checks a folder that a person names, and makes the record of it.
    fn make_folder(
        &self,
        name: Option<String>,
        path: &PathText,
        excludes: Vec<String>,
        vault: Option<VaultId>,
    ) -> Result<SyncedFolder, Failure> {
        self.check_can_sync()?;
        let path = path.to_path();
        let usage = |sentence: String| Failure::new(FailureKind::Usage, sentence);
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            let sentence = format!("{} is not an absolute path without \"..\"", path.display());
            return Err(usage(sentence));
        }
        let real = path.canonicalize().map_err(|error| {
            usage(format!("{} cannot be opened", path.display())).because(&error)
        })?;
        if !real.is_dir() {
            return Err(usage(format!("{} is not a folder", real.display())));
        }
        if real.starts_with(self.home.path()) || self.home.path().starts_with(&real) {
            let sentence = format!(
                "{} and candor's own folder lie in each other",
                real.display()
            );
            return Err(usage(sentence).with_hint("choose another folder"));
        }
        self.must_hold_no_mount(&real)?;
        let folders = self.store().folders()?;
        if let Some(other) = folders
            .iter()
            .find(|other| real.starts_with(&other.path) || other.path.starts_with(&real))
        {
            return Err(usage(format!(
                "{} and the synced folder {} lie in each other",
                real.display(),
                other.name
            )));
        }
        let name = match name {
            Some(name) if sets::is_name(&name) => name,
            Some(name) => return Err(crate::sets::SetError::Name { name }.into()),
            None => sets::derive_name(&real, |name| folders.iter().any(|one| one.name == name)),
        };
        Ok(SyncedFolder {
            name,
            path: real,
            vault,
            excludes,
            is_paused: false,
            added: self.now(),
            synced: None,
            problems: 0,
        })
    }

    /// Adds a folder that is to be kept in step. Sends nothing.
    pub(crate) fn sync_add(
        &self,
        name: Option<String>,
        path: &PathText,
        excludes: Vec<String>,
    ) -> Result<View, Failure> {
        let folder = self.make_folder(name, path, excludes, None)?;
        crate::backup_flow::check_excludes(&folder.as_set())?;
        self.store().add_folder(&folder)?;
        self.folder_view(&folder).map(View::Folder)
    }

    /// Adds a folder that another device of the account keeps in step, under its name (errand: restore).
    pub(crate) fn sync_join(
        &self,
        name: &str,
        path: &PathText,
        excludes: Vec<String>,
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let folder = self.make_folder(Some(name.to_owned()), path, excludes, None)?;
        crate::backup_flow::check_excludes(&folder.as_set())?;
        let found = self.read_back(Purpose::Restore, &mut |_| (), cancel, |session| {
            named_vaults(session)
        })?;
        let mut matching = found.iter().filter(|(_, found)| found == name);
        let Some((vault, _)) = matching.next() else {
            let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
            let hint = if names.is_empty() {
                "no device of the account keeps a folder in step yet: `candor sync add DIR` begins"
                    .to_owned()
            } else {
                format!("there are: {}", names.join(", "))
            };
            let sentence = format!("there is no synced folder named {name:?}");
            return Err(Failure::new(FailureKind::Usage, sentence).with_hint(hint));
        };
        if matching.next().is_some() {
            let sentence = format!("two synced folders are named {name:?}");
            return Err(Failure::new(FailureKind::Failed, sentence));
        }
        let folder = SyncedFolder {
            vault: Some(*vault),
            ..folder
        };
        self.store().add_folder(&folder)?;
        self.folder_view(&folder).map(View::Folder)
    }

    /// A folder gets a new vault. What an earlier one left in it is taken away.
    pub(crate) fn begin_folder(&self, set: &BackupSet, vault: VaultId) -> Result<(), Failure> {
        if set.vault.is_some()
            && let Some(path) = set.paths.first()
        {
            DiskFolder::release(path).map_err(|error| Failure::of(&error))?;
        }
        Ok(self.store().assign_folder(&set.name, vault)?)
    }

    /// Stops a folder for a while, or lets it go on. Sends nothing.
    pub(crate) fn sync_pause(&self, name: &str, is_paused: bool) -> Result<View, Failure> {
        let folder = self.store().folder(name)?;
        self.store().pause_folder(name, is_paused)?;
        if is_paused {
            self.stop_run(&run_name(ServiceCode::Sync, name));
        }
        self.folder_view(&SyncedFolder {
            is_paused,
            ..folder
        })
        .map(View::Folder)
    }

    /// The folders of this device. Sends nothing.
    pub(crate) fn folder_views(&self) -> Result<Vec<FolderView>, Failure> {
        let folders = self.store().folders()?;
        folders.iter().map(|one| self.folder_view(one)).collect()
    }

    fn folder_view(&self, folder: &SyncedFolder) -> Result<FolderView, Failure> {
        let consent = match self.grant_in::<Sync>(folder.vault)? {
            Ok(_) => "on",
            Err(Refusal::Withdrawn { .. }) => "withdrawn",
            Err(Refusal::Ended { .. }) => "ended",
            Err(_) => "off",
        };
        let (files, folders) = match self.folder_state(folder)? {
            Some(state) => state.counts().map_err(|error| Failure::of(&error))?,
            None => (0, 0),
        };
        Ok(FolderView {
            name: folder.name.clone(),
            path: PathText::from_path(&folder.path),
            vault: folder.vault.map(|vault| vault.to_string()),
            excludes: folder.excludes.clone(),
            consent: consent.to_owned(),
            paused: folder.is_paused,
            syncing: self.is_running(&run_name(ServiceCode::Sync, &folder.name)),
            last_sync_ms: folder.synced.map(|time| time.0),
            last_problems: folder.problems,
            files,
            folders,
            conflicts: self.conflicts_of(folder)?.len() as u64,
        })
    }

    /// The record of a folder, if there was a round.
    fn folder_state(&self, folder: &SyncedFolder) -> Result<Option<State>, Failure> {
        let Some(vault) = folder.vault else {
            return Ok(None);
        };
        let path = self.home.sync_state(&vault)?;
        if !path.exists() {
            return Ok(None);
        }
        State::open(&path)
            .map(Some)
            .map_err(|error| Failure::of(&error))
    }

    fn conflicts_of(&self, folder: &SyncedFolder) -> Result<Vec<ConflictView>, Failure> {
        let Some(state) = self.folder_state(folder)? else {
            return Ok(Vec::new());
        };
        let paths = state.conflicts().map_err(|error| Failure::of(&error))?;
        Ok(paths
            .into_iter()
            .map(|path| ConflictView {
                folder: folder.name.clone(),
                path: PathText::from_path(&folder.path.join(PathText::from_bytes(&path).to_path())),
            })
            .collect())
    }

    /// Files that were kept twice and still are. Sends nothing.
    pub(crate) fn sync_conflicts(&self) -> Result<View, Failure> {
        let mut conflicts = Vec::new();
        for folder in self.store().folders()? {
            conflicts.extend(self.conflicts_of(&folder)?);
        }
        Ok(View::Conflicts(conflicts))
    }

    /// One round of each folder that is named, or of all that are on.
    pub(crate) fn sync_run(
        &self,
        names: &[String],
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let folders = self.folders_to_run(names, events)?;
        let mut views = Vec::new();
        for folder in folders {
            let stop = Cancel::default();
            let view = pump(events, cancel, &stop, |events| {
                self.sync_until_quiet(&folder, events, &stop)
            })?;
            views.push(view);
        }
        Ok(View::Synced(views))
    }

    /// The folders that are named, or all, as far as they are on; one that is paused has to be named.
    pub(crate) fn folders_to_run(
        &self,
        names: &[String],
        events: &mut dyn FnMut(Event),
    ) -> Result<Vec<SyncedFolder>, Failure> {
        let mut folders = Vec::new();
        let mut refusal = None;
        let all = self.store().folders()?;
        for name in names {
            self.store().folder(name)?;
        }
        for folder in all {
            let is_asked = names.contains(&folder.name);
            if !names.is_empty() && !is_asked {
                continue;
            }
            match self.grant_in::<Sync>(folder.vault)? {
                Ok(_) if folder.is_paused && !is_asked => events(Event::Step {
                    text: format!("{} is paused and is passed over", folder.name),
                }),
                Ok(_) => folders.push(folder),
                Err(reason) if is_asked => return Err(reason.into()),
                Err(reason) => refusal = Some(reason),
            }
        }
        if folders.is_empty() {
            return Err(match refusal {
                Some(reason) => reason.into(),
                None => Failure::new(FailureKind::Usage, "there is no synced folder")
                    .with_hint("candor sync add DIR"),
            });
        }
        Ok(folders)
    }

    /// Rounds until nothing changes under their hands any more, at most a few.
    pub(crate) fn sync_until_quiet(
        &self,
        folder: &SyncedFolder,
        events: &Events,
        cancel: &Cancel,
    ) -> Result<SyncedView, Failure> {
        const ROUNDS_MAX: u32 = 5;
        let mut dirty = Dirty::All;
        let mut view = SyncedView {
            folder: folder.name.clone(),
            ..SyncedView::default()
        };
        for _ in 0..ROUNDS_MAX {
            let outcome = self.sync_round(folder, (dirty, Dirty::none()), events, cancel)?;
            view.problems = tell_problems(&outcome.problems, events);
            view.add(&outcome);
            dirty = outcome.again.with(outcome.left);
            if dirty.is_empty() {
                break;
            }
        }
        Ok(view)
    }

    /// One round of a folder: where it may have changed, and where too, but is not looked at in this round.
    pub(crate) fn sync_round(
        &self,
        folder: &SyncedFolder,
        (dirty, later): (Dirty, Dirty),
        events: &Events,
        cancel: &Cancel,
    ) -> Result<RoundOutcome, Failure> {
        let name = run_name(ServiceCode::Sync, &folder.name);
        let Some(_mark) = self.begin_run(&name, cancel) else {
            let sentence = format!("{} is being synced already", folder.name);
            return Err(Failure::new(FailureKind::Failed, sentence)
                .with_hint("`candor sync status` shows how far it is"));
        };
        let outcome = self
            .round(folder, (dirty, later), events, cancel)
            .map_err(|failure| self.name_the_end::<Sync>(folder.vault, failure))?;
        let problems = outcome.problems.count();
        self.store()
            .folder_synced(&folder.name, self.now(), problems)?;
        Ok(outcome)
    }

    fn round(
        &self,
        folder: &SyncedFolder,
        (dirty, later): (Dirty, Dirty),
        events: &Events,
        cancel: &Cancel,
    ) -> Result<RoundOutcome, Failure> {
        let mut held = self.begin_writing::<Sync>(folder.vault, events, cancel, || Ok(()))?;
        let open = &mut held.open;
        let state_path = self.home.sync_state(&open.vault)?;
        if !state_path.exists() {
            DiskFolder::adopt(&folder.path, open.vault)
                .map_err(|error| round_failed(&folder.path, &error))?;
        }
        let mut state = State::open(&state_path).map_err(|error| Failure::of(&error))?;
        let objects = Arc::clone(&open.objects);
        let moved = || objects.moved_bytes();
        let meter = Meter::new(events, "sync", &moved);
        let keys = self.vault_keys(open.vault)?;
        let now = self.now();
        let disk = DiskFolder::open(
            &folder.path,
            keys,
            &folder.excludes,
            Nanos(now.0.saturating_mul(1_000_000)),
            &meter,
            cancel,
        );
        let mut disk = disk.map_err(|error| round_failed(&folder.path, &error))?;
        let failed = |error: SyncError| round_failed(&folder.path, &error);
        let mut merged: Option<Round> = None;
        let mut received = RoundOutcome::default();
        let (mut dirty, mut left) = (dirty, later);
        self.change_vault(open, |open| {
            let sink: Arc<dyn ObjectSink> = Arc::clone(&open.objects) as Arc<dyn ObjectSink>;
            let source: &dyn ObjectSource = &*open.objects;
            let job = |dirty: Dirty, later: Dirty| SyncJob {
                name: folder.name.clone(),
                device: self.facts.device,
                device_name: self.facts.device_name.clone(),
                remote_device_name: self.device_called(sync::first_tree(&open.repository)),
                time: now,
                dirty,
                later,
            };
            let run = |disk: &mut DiskFolder<'_>, state: &mut State, job: SyncJob| {
                let objects = (source, Arc::clone(&sink));
                sync::run(&open.repository, disk, state, &job, objects, cancel)
            };
            if let Some(late) = merged.take() {
                late.give_up(&mut state).map_err(failed)?;
                // What the faster device made is taken first, where nothing changed here: it is behind us then,
                // however often the head is lost, and the next merge has little to do.
                let all = left.clone().with(dirty.clone());
                let receiving = job(Dirty::none(), all.clone());
                let round = run(&mut disk, &mut state, receiving).map_err(failed)?;
                if round.differs() {
                    round.give_up(&mut state).map_err(failed)?;
                } else {
                    round.commit(&mut state).map_err(failed)?;
                    let outcome = round.apply(
                        &open.repository,
                        &mut disk,
                        &mut state,
                        source,
                        &meter,
                        cancel,
                    );
                    received.add(outcome.map_err(failed)?);
                }
                // And only a part of what changed here is looked at the next time.
                received.lost += 1;
                let all = all.with(std::mem::take(&mut received.again));
                (dirty, left) = parted(&folder.path, all, received.lost);
            }
            let round =
                run(&mut disk, &mut state, job(dirty.clone(), left.clone())).map_err(failed)?;
            let staged = round.stage(&open.repository, &*sink).map_err(failed)?;
            merged = Some(round);
            Ok(staged)
        })?;
        let round = merged.ok_or_else(crate::engine::unknown_chain)?;
        round.commit(&mut state).map_err(failed)?;
        let mut outcome = round
            .apply(
                &open.repository,
                &mut disk,
                &mut state,
                &*open.objects,
                &meter,
                cancel,
            )
            .map_err(failed)?;
        meter.finish();
        outcome.add(received);
        outcome.left.extend(left);
        Ok(outcome)
    }

    /// The name of a device, for the name of a conflict copy.
    pub(crate) fn device_called(&self, device: Option<DeviceId>) -> String {
        let keys = self.keys();
        let name = device.and_then(|device| {
            self.with_chain(|chain| {
                let entry = chain.view().device(&device)?;
                let keys = keys.keys(None)?;
                account::open_name(&entry.added, self.facts.account, keys)
            })?
        });
        name.unwrap_or_else(|| "another device".to_owned())
    }

    /// Whether a vault is a synced folder's: its snapshots are versions, and come and go by themselves. One that was ever
    /// consented to for backups is none: another device could say anything to have its snapshots taken for versions.
    pub(crate) fn is_synced_vault(&self, vault: &VaultId) -> bool {
        self.with_chain(|chain| is_synced_vault(chain.view(), vault))
            .unwrap_or(false)
    }
}

/// As [`Engine::is_synced_vault`].
pub(crate) fn is_synced_vault(view: &ChainView, vault: &VaultId) -> bool {
    let consents = view.consents();
    let has = |service| {
        consents.iter().any(|(_, consent)| {
            consent.record.service == service && consent.record.vault == Some(*vault)
        })
    };
    has(ServiceCode::Sync) && !has(ServiceCode::Backup)
}

/// A part of what has to be looked at, the smaller the more often the head was lost, and the rest. Of a whole folder its
/// names at the top are the parts.
fn parted(folder: &Path, dirty: Dirty, lost: u32) -> (Dirty, Dirty) {
    let dirty = match dirty {
        Dirty::All => match std::fs::read_dir(folder) {
            Ok(entries) => {
                let names = entries
                    .filter_map(Result::ok)
                    .map(|entry| entry.file_name());
                let below = names.map(|name| [name.as_encoded_bytes(), b"/"].concat());
                Dirty::Folders(below.chain([Vec::new()]).collect())
            }
            Err(_) => Dirty::All,
        },
        some => some,
    };
    let count = dirty.count().unwrap_or_default();
    let most = (count >> lost.min(usize::BITS - 1)).max(PART_MIN);
    dirty.part(most, b"")
}

/// The synced folders of the account, with their names.
fn named_vaults(session: &Session<'_>) -> Result<Vec<(VaultId, String)>, Failure> {
    let mut named = Vec::new();
    for vault in session.vaults()? {
        if !session.engine.is_synced_vault(&vault) {
            continue;
        }
        let held = session.open(vault)?;
        if let Some(newest) = held.open.repository.manifest().snapshots.last() {
            named.push((vault, newest.set.clone()));
        }
    }
    Ok(named)
}

impl SyncedView {
    pub(crate) fn add(&mut self, outcome: &RoundOutcome) {
        let stats = outcome.stats;
        self.sent += stats.sent;
        self.received += stats.received;
        self.removed += stats.removed;
        self.moved += stats.moved;
        self.conflicts += stats.conflicts;
        self.received_bytes += stats.bytes_received;
        self.stored_bytes += stats.bytes_stored;
    }
}

fn round_failed(path: &Path, error: &SyncError) -> Failure {
    match error {
        SyncError::Cancelled => failure::interrupted(),
        SyncError::Folder { reason, .. } => Failure::new(
            FailureKind::Failed,
            format!("{} cannot be kept in step: {reason}", path.display()),
        )
        .with_hint("nothing of it was changed, here or at the cell; put it right and run `candor sync run`")
        .because(error),
        other => Failure::of(other),
    }
}
