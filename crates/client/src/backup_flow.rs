//! Running backups.
//!
//! 1. Every set is checked for a live grant from what this device knows. Without one nothing is
//!    opened and nothing is sent.
//! 2. With the grant: the chain is synced, and the grant asked for again; the head is read; the
//!    vault's index brought up to date; the run stored; the head moved; what was seen remembered.
//! 3. The cell's log is looked at over the same connection ([`crate::log`]). What is wrong there is an
//!    alarm; a backup that was made stays one that was made.
//! 4. One set that fails does not keep the others from being backed up, unless the cell is out of
//!    reach or the person stopped it.
//!
//! A run that ended early is known as unfinished until one ends well; the next one sends nothing
//! again that was acknowledged.

use std::sync::Arc;
use std::time::Instant;

use candor_consent::{Backup, Grant, Refusal, Service};
use candor_vault::backup::{self, BackupError, BackupJob, BackupStats};
use candor_vault::report::Cancel;
use candor_vault::rules::Rules;
use candor_vault::{ObjectSink, RepositoryError};
use candor_wire::{Millis, StatementId, VaultId};

use crate::api::Api;
use crate::commands::{BackupView, Event, Failure, FailureKind, Problem, View};
use crate::device_store::BackupSet;
use crate::engine::Engine;
use crate::events::{Events, Meter, pump};
use crate::failure;
use crate::path_text::PathText;
use crate::restore_flow::Held;
use crate::vault_access::RENEWED;

/// How often a run is done again because another device pruned what it relied on. Each time somebody else's
/// prune was done in between.
const RUNS_MAX: u32 = 4;

/// Checks that the globs of a set can be understood, before it is kept.
pub(crate) fn check_excludes(set: &BackupSet) -> Result<(), Failure> {
    let rules = Rules {
        excludes: set.excludes.clone(),
        ..Rules::default()
    };
    rules.check().map_err(|error| {
        Failure::new(FailureKind::Usage, error.to_string())
            .with_hint("globs are written as in a .gitignore file")
            .because(&error)
    })
}

/// Tells problems one by one, and how many there are in all.
pub(crate) fn tell_problems(problems: &candor_vault::report::Problems, events: &Events) -> u64 {
    for one in &problems.list {
        let path = PathText::from_path(&one.path);
        events.send(Event::Problem(Problem {
            path,
            what: one.kind.to_string(),
        }));
    }
    if problems.more > 0 {
        events.step(format!("{} more problems are not listed", problems.more));
    }
    problems.count()
}

impl Engine {
    /// The grant for a set, or why there is none. Made anew from the verified chain each time, and
    /// never from anything that a cell says outside of it; nothing is sent.
    pub(crate) fn grant_for(
        &self,
        set: &BackupSet,
    ) -> Result<Result<Grant<Backup>, Refusal>, Failure> {
        self.grant_in::<Backup>(set.vault)
    }

    /// The grant of a service in a vault, or why there is none: as [`Self::grant_for`].
    pub(crate) fn grant_in<S: Service>(
        &self,
        vault: Option<VaultId>,
    ) -> Result<Result<Grant<S>, Refusal>, Failure> {
        let service = S::CODE;
        let Some(vault) = vault else {
            return Ok(Err(Refusal::NoConsent { service }));
        };
        let pending = self.store().withdrawals()?;
        let now = self.now();
        let over = self.consents_over(now)?;
        let decided = self.with_chain(|chain| {
            let device = &self.facts.device;
            let grant = candor_consent::grant::<S>(
                chain.view(),
                chain.keyring(),
                device,
                Some(&vault),
                now,
            )?;
            let ended_here = chain
                .view()
                .consent(&grant.id())
                .is_none_or(|consent| pending.iter().any(|one| one.ends(consent)));
            if ended_here {
                Err(Refusal::Withdrawn { service })
            } else if over.contains(&grant.id()) {
                let at = grant.ends_at();
                Err(Refusal::Ended { service, at })
            } else {
                Ok(grant)
            }
        });
        Ok(decided.unwrap_or(Err(Refusal::NoConsent { service })))
    }

    /// Consents that are over whatever the time is now. Expiry never rests on the cell's word alone, and
    /// not on one look at this device's clock either (row A52):
    ///
    /// * what this device saw to end once stays ended, also when its clock is set back; a new yes is a
    ///   new consent;
    /// * a cell's acknowledgement later than the end it is about can only end a consent earlier.
    pub(crate) fn consents_over(&self, now: Millis) -> Result<Vec<StatementId>, Failure> {
        let device = self.facts.device;
        let (ended, late) = self
            .with_chain(|chain| {
                let consents = chain.view().consents();
                let own = consents
                    .into_iter()
                    .filter(|(_, one)| one.record.device == device);
                let (mut ended, mut late) = (Vec::new(), Vec::new());
                for (id, one) in own {
                    let ends_at = one.record.ends_at;
                    if ends_at <= now {
                        ended.push(id);
                    } else if one.acknowledged.is_some_and(|time| time >= ends_at) {
                        late.push(id);
                    }
                }
                (ended, late)
            })
            .unwrap_or_default();
        let mut store = self.store();
        let mut over = store.ended()?;
        let new: Vec<StatementId> = ended.into_iter().filter(|id| !over.contains(id)).collect();
        if !new.is_empty() {
            store.add_ended(&new)?;
        }
        over.extend(new);
        over.extend(late);
        Ok(over)
    }

    /// Which sets are asked for, and which of them may run.
    pub(crate) fn sets_to_run(
        &self,
        names: &[String],
    ) -> Result<(Vec<BackupSet>, Vec<String>), Failure> {
        let mut asked = Vec::new();
        if names.is_empty() {
            asked = self.store().sets()?;
        }
        for name in names {
            let set = self.store().set(name)?;
            if !asked.contains(&set) {
                asked.push(set);
            }
        }
        if asked.is_empty() {
            return Err(Failure::new(FailureKind::Usage, "there is no backup set")
                .with_hint("candor backup add PATH"));
        }
        let mut granted = Vec::new();
        let mut off = Vec::new();
        let mut refusal = None;
        for set in asked {
            match self.grant_for(&set)? {
                Ok(_) => granted.push(set),
                Err(reason) => {
                    off.push(set.name);
                    refusal = Some(reason);
                }
            }
        }
        match refusal {
            Some(reason) if granted.is_empty() || !names.is_empty() => Err(reason.into()),
            _ => Ok((granted, off)),
        }
    }

    /// Backs up sets, one after the other.
    pub(crate) fn backup_run(
        &self,
        names: &[String],
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let (sets, off) = self.sets_to_run(names)?;
        for name in off {
            events(Event::Step {
                text: format!("{name} is off and is passed over"),
            });
        }
        let mut views = Vec::new();
        let mut first_failure: Option<Failure> = None;
        // The connection of the newest run that ended well.
        let mut last_api = None;
        for set in &sets {
            let stop = Cancel::default();
            let Some(_mark) = self.begin_run(&set.name, &stop) else {
                events(Event::Step {
                    text: format!("{} is being backed up already", set.name),
                });
                continue;
            };
            let result = pump(events, cancel, &stop, |events| {
                self.back_up_again(set, events, &stop)
            });
            match result {
                Ok((view, api)) => {
                    views.push(view);
                    last_api = Some(api);
                }
                Err(failure) => {
                    let failure = if cancel.is_cancelled() {
                        failure
                    } else {
                        self.name_the_end::<Backup>(set.vault, failure)
                    };
                    let ends_all = matches!(
                        failure.kind,
                        FailureKind::Unreachable | FailureKind::Interrupted
                    );
                    if sets.len() > 1 {
                        events(Event::Step {
                            text: format!("{}: {}", set.name, failure.sentence),
                        });
                    }
                    if let Some(first) = &mut first_failure {
                        // Only one failure can be answered; an alarm is written for every one.
                        let failure = self.alarmed(failure);
                        first
                            .causes
                            .push(format!("{}: {}", set.name, failure.sentence));
                    } else {
                        first_failure = Some(failure);
                    }
                    if ends_all {
                        break;
                    }
                }
            }
        }
        if let Some(api) = last_api.filter(|_| !cancel.is_cancelled()) {
            let stop = Cancel::default();
            pump(events, cancel, &stop, |events| {
                self.watch_after_run(&api, events, &stop);
            });
        }
        for text in self.reminders(&sets)? {
            events(Event::Step { text });
        }
        first_failure.map_or(Ok(View::Backups(views)), Err)
    }

    /// A run that was stopped because its consent was withdrawn meanwhile says so.
    pub(crate) fn name_the_end<S: Service>(
        &self,
        vault: Option<VaultId>,
        failure: Failure,
    ) -> Failure {
        if failure.kind != FailureKind::Interrupted {
            return failure;
        }
        match self.grant_in::<S>(vault) {
            Ok(Err(refusal)) => Failure::no_consent(S::CODE.name(), &refusal),
            _ => failure,
        }
    }

    /// Opens a vault to change it for a service: grant, lock, chain, head and index.
    pub(crate) fn begin_writing<S: Service>(
        &self,
        vault: Option<VaultId>,
        events: &Events,
        cancel: &Cancel,
        begun: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Held<'_>, Failure> {
        let grant = self.grant_in::<S>(vault)??;
        let vault = grant
            .vault()
            .ok_or(Refusal::NoConsent { service: S::CODE })?;
        let hold = self.hold_vault(vault, cancel)?;
        let api = self.open_api(Box::new(grant))?;
        begun()?;
        self.sync_chain(&api)?;
        // What was read may have ended it: another device of the account withdrew.
        self.grant_in::<S>(Some(vault))??;
        self.renew_before_writing(&api, vault)?;
        let objects = self.objects(api, vault, cancel);
        let open = self.open_vault(objects, vault, events)?;
        Ok(Held::new(hold, open))
    }

    /// Backs up, and once more when other devices renewed the vault's keys meanwhile: nothing has to be sent twice.
    fn back_up_again(
        &self,
        set: &BackupSet,
        events: &Events,
        cancel: &Cancel,
    ) -> Result<(BackupView, Arc<Api>), Failure> {
        for _ in 1..RUNS_MAX {
            match self.back_up(set, events, cancel) {
                Err(failure) if failure.sentence == RENEWED => {
                    events.step("the vault's keys were renewed meanwhile; the run goes on under the new ones");
                }
                done => return done,
            }
        }
        self.back_up(set, events, cancel)
    }

    fn back_up(
        &self,
        set: &BackupSet,
        events: &Events,
        cancel: &Cancel,
    ) -> Result<(BackupView, Arc<Api>), Failure> {
        let began = Instant::now();
        let time = self.now();
        let mut writing = self.begin_writing::<Backup>(set.vault, events, cancel, || {
            Ok(self.store().run_began(&set.name, time)?)
        })?;
        let open = &mut writing.open;
        let objects = Arc::clone(&open.objects);
        let moved = || objects.moved_bytes();
        let job = self.job(set, open.vault, time)?;
        let mut tries = 0;
        let outcome = loop {
            let meter = Meter::new(events, "backup", &moved);
            let sink: Arc<dyn ObjectSink> = Arc::clone(&objects) as Arc<dyn ObjectSink>;
            let mut outcome = backup::run(&mut open.repository, &job, sink, &meter, cancel)
                .map_err(|error| run_failed(&error))?;
            meter.finish();
            if outcome.staged.is_none()
                && outcome.stats.bytes_stored == 0
                && let Some(run) = &mut open.run
            {
                run.state.stored_nothing();
                run.state.save(&run.path)?;
            }
            let is_there = match outcome.staged.take() {
                Some(staged) => self.add_snapshot(open, staged, &outcome.snapshot, time)?,
                None => true,
            };
            tries += 1;
            if is_there {
                break outcome;
            }
            if tries == RUNS_MAX {
                return Err(RepositoryError::Outdated.into());
            }
            events.step("another device pruned meanwhile; what is gone is sent again");
        };
        let problems = tell_problems(&outcome.problems, events);
        let snapshot = outcome.snapshot;
        let api = Arc::clone(objects.api());
        self.store()
            .run_succeeded(&set.name, self.now(), problems)?;
        let BackupStats {
            files,
            directories,
            unchanged,
            bytes_total,
            bytes_new,
            bytes_stored,
            ..
        } = outcome.stats;
        let view = BackupView {
            set: set.name.clone(),
            snapshot: snapshot.id.to_string(),
            files,
            folders: directories,
            bytes: bytes_total,
            unchanged_files: unchanged,
            new_bytes: bytes_new,
            stored_bytes: bytes_stored,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            problems,
        };
        Ok((view, api))
    }

    fn job(&self, set: &BackupSet, vault: VaultId, time: Millis) -> Result<BackupJob, Failure> {
        Ok(BackupJob {
            sources: set.paths.clone(),
            rules: Rules {
                excludes: set.excludes.clone(),
                never: vec![self.home.path().to_owned()],
                one_file_system: false,
            },
            set: set.name.clone(),
            device: self.facts.device,
            time,
            stat_cache: self.home.stat_cache(&vault)?,
        })
    }
}

fn run_failed(error: &BackupError) -> Failure {
    match error {
        BackupError::Cancelled => failure::interrupted(),
        BackupError::Source { path, .. } => Failure::new(
            FailureKind::Failed,
            format!("{} cannot be read", path.display()),
        )
        .with_hint("bring it back, or take the set away; nothing of it was changed at the cell")
        .because(error),
        other => Failure::of(other),
    }
}
