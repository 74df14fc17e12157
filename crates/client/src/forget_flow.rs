//! Forgetting snapshots, bringing them back, and pruning what nobody needs.
//!
//! Forgetting takes a snapshot off the list and nothing else. Pruning finds what only forgotten snapshots needed,
//! and moves a head that condemns it; the cell deletes it when its retention window is over. Until then it can be
//! brought back, from any full device: whoever stole one cannot destroy a backup before somebody looks.
//!
//! All of it changes a vault, so it needs a live consent for the set, like a backup.

use std::sync::Arc;

use candor_consent::{Backup, Sync};
use candor_vault::keep::{self, KeepRules};
use candor_vault::prune::{self, Forgotten, PruneError, PruneReport, PruneRules};
use candor_vault::report::Cancel;
use candor_vault::{ObjectSink, SnapshotEntry, SnapshotId};

use crate::commands::{
    Event, Failure, FailureKind, ForgottenView, Keep, PrunedView, SnapshotView, View,
};
use crate::device_store::{BackupSet, SyncedFolder};
use crate::engine::{Engine, unknown_chain};
use crate::events::{Events, Meter, pump};
use crate::failure;
use crate::restore_flow::{Held, SnapshotSpec, ambiguous, not_found, plain_view, snapshot_view};
use crate::vault_access::OpenVault;

/// How many bytes of content are stored anew at most where pruning is done beside other work: a few seconds' worth.
const SMALL_ROUND_BYTES: u64 = 64 * 1024 * 1024;

/// Which snapshots are to go.
pub(crate) struct Which<'a> {
    pub(crate) snapshots: &'a [String],
    pub(crate) set: Option<&'a str>,
    pub(crate) keep: Keep,
}

impl Which<'_> {
    fn rules(&self) -> KeepRules {
        let Keep {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        } = self.keep;
        KeepRules {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let by_rule = !self.rules().is_empty();
        if by_rule && !self.snapshots.is_empty() {
            return Err(Failure::new(
                FailureKind::Usage,
                "name snapshots, or give rules, and not both",
            ));
        }
        if !by_rule && self.snapshots.is_empty() {
            return Err(Failure::new(
                FailureKind::Usage,
                "nothing says which snapshots are to go",
            )
            .with_hint("name them, or say what stays: `candor backup forget --keep-daily 7 --keep-monthly 12`"));
        }
        Ok(())
    }

    /// Those of a set that no rule keeps.
    fn superfluous(&self, set: &BackupSet, listed: &[SnapshotEntry]) -> Vec<SnapshotId> {
        let own = listed.iter().filter(|entry| entry.set == set.name);
        let own: Vec<SnapshotEntry> = own.cloned().collect();
        keep::superfluous(&own, &self.rules())
    }
}

fn specs_of(texts: &[String]) -> Result<Vec<SnapshotSpec>, Failure> {
    texts.iter().map(|text| SnapshotSpec::parse(text)).collect()
}

/// The named snapshots that are in this list.
fn found_in(
    specs: &[SnapshotSpec],
    listed: &[SnapshotEntry],
) -> Result<Vec<Option<SnapshotId>>, Failure> {
    let each = specs.iter();
    each.map(|spec| Ok(spec.pick(listed)?.map(|entry| entry.id)))
        .collect()
}

/// The ids of the named snapshots, each of which has to be in just one of the vaults.
fn each_once(
    specs: &[SnapshotSpec],
    found: &[Vec<Option<SnapshotId>>],
) -> Result<Vec<SnapshotId>, Failure> {
    let mut ids = Vec::new();
    for place in 0..specs.len() {
        let mut of_this = found.iter().filter_map(|one| one[place]);
        match (of_this.next(), of_this.next()) {
            (Some(id), None) => ids.push(id),
            (Some(_), Some(_)) => return Err(ambiguous()),
            (None, _) => {
                return Err(not_found().with_hint(
                    "`candor backup snapshots` shows those of every set, and with `--forgotten` those that can be brought back; only sets that are on can be changed",
                ));
            }
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

impl Engine {
    /// Does something to the vault of each set that is asked for and on, on a worker thread.
    fn with_vaults<T: Send>(
        &self,
        set: Option<&str>,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
        work: impl Fn(&BackupSet, &mut Held<'_>, &Events, &Cancel) -> Result<T, Failure>
        + Send
        + core::marker::Sync,
    ) -> Result<Vec<T>, Failure> {
        let names: Vec<String> = set.map(str::to_owned).into_iter().collect();
        let (sets, off) = self.sets_to_run(&names)?;
        for name in off {
            events(Event::Step {
                text: format!("{name} is off and is passed over"),
            });
        }
        let stop = Cancel::default();
        pump(events, cancel, &stop, |events| {
            let each = sets.iter().map(|set| {
                let mut held = self.begin_writing::<Backup>(set.vault, events, &stop, || Ok(()))?;
                work(set, &mut held, events, &stop)
            });
            each.collect()
        })
    }

    /// Snapshots of manifests that this device saw, or that lead back from the newest one.
    fn earlier(&self, open: &OpenVault, listed_too: bool) -> Result<Vec<Forgotten>, Failure> {
        let seen = self.store().seen_manifests(&open.vault)?;
        let found = prune::forgotten(&open.repository, &seen, listed_too, &*open.objects);
        Ok(found?)
    }

    pub(crate) fn retention_days(&self) -> Result<u32, Failure> {
        self.with_chain(|chain| chain.keyring().current().retention_days)
            .ok_or_else(unknown_chain)
    }

    /// Takes snapshots off the list.
    pub(crate) fn backup_forget(
        &self,
        which: &Which<'_>,
        dry_run: bool,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        which.check()?;
        let specs = specs_of(which.snapshots)?;
        // Named ones have to be there, each once, before any is taken off; and they stay the ones that are meant,
        // whatever another device does meanwhile.
        let named = if specs.is_empty() {
            None
        } else {
            let found = self.with_vaults(which.set, events, cancel, |_, held, _, _| {
                found_in(&specs, &held.open.repository.manifest().snapshots)
            })?;
            Some(each_once(&specs, &found)?)
        };
        let done = self.with_vaults(which.set, events, cancel, |set, held, events, _| {
            let mut gone = Vec::new();
            let change = |open: &mut OpenVault| {
                let listed = &open.repository.manifest().snapshots;
                let mut ids = match &named {
                    Some(named) => named.clone(),
                    None => which.superfluous(set, listed),
                };
                ids.retain(|id| listed.iter().any(|entry| entry.id == *id));
                let entries = listed.iter().filter(|entry| ids.contains(&entry.id));
                let reader = open.random_reader();
                let views = entries.map(|entry| snapshot_view(&reader, entry));
                let views = views.collect::<Result<Vec<_>, _>>()?;
                // None of them the second time: they are off, and only the answer was lost.
                if !views.is_empty() {
                    gone = views;
                }
                if ids.is_empty() || dry_run {
                    return Ok(None);
                }
                let staged = open.repository.stage_forget(&ids, &*open.objects)?;
                // Before the head moves: what this device takes off itself is no news to it.
                self.store().unlist(&open.vault, &ids)?;
                Ok(Some(staged))
            };
            self.change_vault(&mut held.open, change)?;
            if !gone.is_empty() && !dry_run {
                events.step(format!("{}: {} forgotten", set.name, gone.len()));
            }
            let listed = held.open.repository.manifest().snapshots.len();
            let left = if dry_run { listed - gone.len() } else { listed };
            Ok((gone, left))
        })?;
        self.forgotten_view(done)
    }

    fn forgotten_view(&self, parts: Vec<(Vec<SnapshotView>, usize)>) -> Result<View, Failure> {
        let mut view = ForgottenView {
            snapshots: Vec::new(),
            left: 0,
            retention_days: self.retention_days()?,
        };
        for (snapshots, left) in parts {
            view.snapshots.extend(snapshots);
            view.left += left as u64;
        }
        view.snapshots.sort_by_key(|one| one.time_ms);
        Ok(View::Forgotten(view))
    }

    /// Snapshots that can be brought back.
    pub(crate) fn backup_forgotten(
        &self,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let found = self.with_vaults(None, events, cancel, |_, held, _, _| {
            let open = &held.open;
            let found = self.earlier(open, false)?;
            let views = found.iter().map(|one| plain_view(&one.entry)).collect();
            Ok((views, open.repository.manifest().snapshots.len()))
        })?;
        self.forgotten_view(found)
    }

    /// Puts forgotten snapshots on the list again.
    pub(crate) fn backup_unforget(
        &self,
        snapshots: &[String],
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let specs = specs_of(snapshots)?;
        if specs.iter().any(SnapshotSpec::is_newest) {
            return Err(
                Failure::new(FailureKind::Usage, "`latest` is no forgotten snapshot")
                    .with_hint("`candor backup snapshots --forgotten` shows their ids"),
            );
        }
        let found = self.with_vaults(None, events, cancel, |_, held, _, _| {
            let entries: Vec<SnapshotEntry> = self
                .earlier(&held.open, true)?
                .into_iter()
                .map(|one| one.entry)
                .collect();
            found_in(&specs, &entries)
        })?;
        let ids = each_once(&specs, &found)?;
        let done = self.with_vaults(None, events, cancel, |_, held, events, stop| {
            let mut back = Vec::new();
            let change = |open: &mut OpenVault| {
                let objects = Arc::clone(&open.objects);
                let found = self.earlier(open, true)?;
                let chosen: Vec<Forgotten> = found
                    .into_iter()
                    .filter(|one| ids.contains(&one.entry.id))
                    .collect();
                back = chosen.iter().map(|one| plain_view(&one.entry)).collect();
                if chosen.is_empty() {
                    return Ok(None);
                }
                let moved = || objects.moved_bytes();
                let meter = Meter::new(events, "check", &moved);
                let (repository, sink) = (&open.repository, &*objects);
                let staged = prune::bring_back(repository, &chosen, sink, &*objects, &meter, stop);
                meter.finish();
                staged.map(Some).map_err(|error| prune_failed(&error))
            };
            self.change_vault(&mut held.open, change)?;
            Ok((back, held.open.repository.manifest().snapshots.len()))
        })?;
        self.forgotten_view(done)
    }

    /// Prunes until nothing more is worth it. Each round is complete by itself.
    pub(crate) fn backup_prune(
        &self,
        set: Option<&str>,
        max_unused_percent: u8,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let effort = Effort::whole(max_unused_percent)?;
        let each = self.with_vaults(set, events, cancel, |_, held, events, stop| {
            self.prune_vault(held, &effort, events, stop)
        })?;
        self.pruned_view(each)
    }

    /// Prunes synced folders: what only superfluous versions needed, and what nothing names any more.
    pub(crate) fn sync_prune(
        &self,
        names: &[String],
        max_unused_percent: u8,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let effort = Effort::whole(max_unused_percent)?;
        let folders = self.folders_to_run(names, events)?;
        let stop = Cancel::default();
        let each = pump(events, cancel, &stop, |events| {
            let each = folders
                .iter()
                .map(|folder| self.prune_folder(folder, &effort, events, &stop));
            each.collect::<Result<Vec<_>, _>>()
        })?;
        self.pruned_view(each)
    }

    /// Prunes the vault of one folder.
    pub(crate) fn prune_folder(
        &self,
        folder: &SyncedFolder,
        effort: &Effort,
        events: &Events,
        cancel: &Cancel,
    ) -> Result<Vec<PruneReport>, Failure> {
        let begun = self.begin_writing::<Sync>(folder.vault, events, cancel, || Ok(()));
        begun
            .and_then(|mut held| self.prune_vault(&mut held, effort, events, cancel))
            .map_err(|failure| self.name_the_end::<Sync>(folder.vault, failure))
    }

    fn pruned_view(&self, each: Vec<Vec<PruneReport>>) -> Result<View, Failure> {
        let mut total = PrunedView {
            retention_days: self.retention_days()?,
            ..PrunedView::default()
        };
        for report in each.into_iter().flatten() {
            total.packs_gone += report.packs_gone;
            total.bytes_gone += report.bytes_gone + report.orphan_bytes;
            total.packs_rewritten += report.packs_rewritten;
            total.bytes_stored += report.bytes_stored;
            total.orphans += report.orphans;
        }
        Ok(View::Pruned(total))
    }

    /// Rounds until one finds nothing more that is worth it, as many as are wanted.
    fn prune_vault(
        &self,
        held: &mut Held<'_>,
        effort: &Effort,
        events: &Events,
        cancel: &Cancel,
    ) -> Result<Vec<PruneReport>, Failure> {
        let mut rounds = Vec::new();
        loop {
            let (report, moved) = self.prune_round(held, effort, events, cancel)?;
            let more = moved && report.more;
            rounds.extend(moved.then_some(report));
            if !more || rounds.len() >= effort.rounds {
                return Ok(rounds);
            }
        }
    }

    fn prune_round(
        &self,
        held: &mut Held<'_>,
        effort: &Effort,
        events: &Events,
        cancel: &Cancel,
    ) -> Result<(PruneReport, bool), Failure> {
        let mut report = PruneReport::default();
        let mut tries = 0;
        let moved = self.change_vault(&mut held.open, |open| {
            tries += 1;
            if tries > effort.tries {
                return Ok(None);
            }
            let objects = Arc::clone(&open.objects);
            let sink = Arc::clone(&objects) as Arc<dyn ObjectSink>;
            let moved = || objects.moved_bytes();
            let meter = Meter::new(events, "prune", &moved);
            let pruned = prune::run(
                &open.repository,
                &effort.rules,
                &sink,
                &*objects,
                &meter,
                cancel,
            );
            meter.finish();
            let pruned = pruned.map_err(|error| prune_failed(&error))?;
            report = pruned.report;
            Ok(pruned.staged)
        })?;
        Ok((report, moved))
    }
}

/// How much is done to prune.
pub(crate) struct Effort {
    rules: PruneRules,
    /// Rounds, at most.
    rounds: usize,
    /// How often one is begun, at most, where others move the head first.
    tries: usize,
}

impl Effort {
    /// All that can be done, for a person who asked.
    fn whole(max_unused_percent: u8) -> Result<Self, Failure> {
        if max_unused_percent > 100 {
            return Err(Failure::new(
                FailureKind::Usage,
                "a part of what is stored has 0 to 100 percent",
            ));
        }
        let rules = PruneRules {
            max_unused_percent,
            ..PruneRules::default()
        };
        Ok(Self {
            rules,
            rounds: usize::MAX,
            tries: usize::MAX,
        })
    }

    /// A little, beside other work: what is left is for the next time.
    pub(crate) fn small() -> Self {
        let rules = PruneRules {
            round_bytes: SMALL_ROUND_BYTES,
            ..PruneRules::default()
        };
        Self {
            rules,
            rounds: 1,
            tries: 2,
        }
    }
}

fn prune_failed(error: &PruneError) -> Failure {
    match error {
        PruneError::Cancelled => failure::interrupted(),
        PruneError::Listing => Failure::new(FailureKind::Integrity, error.to_string())
            .with_hint("nothing was taken away; tell whoever runs the cell"),
        PruneError::Tree(inner) if inner.is_integrity() => {
            Failure::new(FailureKind::Integrity, error.to_string())
                .with_hint("`candor backup check` tells what is damaged; nothing was taken away")
                .because(error)
        }
        other => Failure::of(other),
    }
}
