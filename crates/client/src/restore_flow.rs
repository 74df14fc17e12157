//! Reading back: snapshots, listings, restores, checks. Each is an errand of the person who asked;
//! none needs a consent, because nothing of it is a service that goes on.
//!
//! Sets are found through the vaults on the chain, not through this device's list of sets: a home
//! that was made a minute ago with the recovery phrase finds all of them.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use candor_vault::browse::BrowseError;
use candor_vault::random::RandomReader;
use candor_vault::report::Cancel;
use candor_vault::restore::{self, RestoreError, RestoreJob, RestoreOutcome};
use candor_vault::{SnapshotEntry, SnapshotId};
use candor_wire::VaultId;
use candor_wire::errand::Purpose;
use candor_wire::ids::from_hex;

use crate::api::Api;
use crate::backup_flow::tell_problems;
use crate::commands::{Event, Failure, FailureKind, RestoredView, SnapshotView, View};
use crate::engine::{Engine, VaultHold};
use crate::erase_flow;
use crate::events::{Events, Meter, pump};
use crate::failure;
use crate::path_text::PathText;
use crate::sets::LATEST;
use crate::vault_access::OpenVault;

/// Digits of a whole snapshot id.
const SNAPSHOT_DIGITS: usize = 32;

/// Which snapshot a person means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotSpec {
    set: Option<String>,
    /// `None` for the newest.
    prefix: Option<String>,
}

impl SnapshotSpec {
    /// Reads `latest`, `SET:latest`, a snapshot's id or the beginning of one, with or without `SET:`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let (set, rest) = match text.split_once(':') {
            Some((set, rest)) => (Some(set.to_owned()), rest),
            None => (None, text),
        };
        let is_digits = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let prefix = match rest {
            LATEST => None,
            digits if (1..=SNAPSHOT_DIGITS).contains(&digits.len()) && is_digits(digits) => {
                Some(digits.to_owned())
            }
            _ => {
                return Err(Failure::new(FailureKind::Usage, format!("{text:?} names no snapshot")).with_hint(
                    "write `latest`, `SET:latest`, or the beginning of an id from `candor backup snapshots SET`",
                ));
            }
        };
        Ok(Self { set, prefix })
    }

    /// Whether it means the newest one, whichever that is.
    pub(crate) const fn is_newest(&self) -> bool {
        self.prefix.is_none()
    }

    /// The whole id, if that is how it was said: it is one snapshot's.
    fn id(&self) -> Option<SnapshotId> {
        let prefix = self.prefix.as_deref()?;
        from_hex(prefix).map(SnapshotId::from_bytes)
    }

    fn matches(&self, entry: &SnapshotEntry) -> bool {
        self.set.as_ref().is_none_or(|set| *set == entry.set)
            && self
                .prefix
                .as_ref()
                .is_none_or(|prefix| entry.id.to_string().starts_with(prefix.as_str()))
    }

    /// The snapshot of one vault that is meant, if it is there.
    pub(crate) fn pick(
        &self,
        snapshots: &[SnapshotEntry],
    ) -> Result<Option<SnapshotEntry>, Failure> {
        let mut matching = snapshots.iter().filter(|entry| self.matches(entry));
        if self.prefix.is_none() {
            // The manifest has them in the order in which they were made. Their times are by clocks that
            // may have been set back.
            return Ok(matching.next_back().cloned());
        }
        let first = matching.next().cloned();
        if matching.next().is_some() {
            Err(ambiguous())
        } else {
            Ok(first)
        }
    }
}

/// One errand that reads back, over one connection.
pub(crate) struct Session<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) api: Arc<Api>,
    pub(crate) events: &'e Events,
    pub(crate) cancel: &'e Cancel,
}

/// A vault that is held and open.
pub(crate) struct Held<'e> {
    _hold: VaultHold<'e>,
    pub(crate) open: OpenVault,
}

impl<'e> Held<'e> {
    pub(crate) const fn new(hold: VaultHold<'e>, open: OpenVault) -> Self {
        Self { _hold: hold, open }
    }
}

impl<'e> Session<'e> {
    pub(crate) fn begin(
        engine: &'e Engine,
        purpose: Purpose,
        events: &'e Events,
        cancel: &'e Cancel,
    ) -> Result<Self, Failure> {
        let api = engine.errand(purpose)?;
        engine.sync_chain(&api)?;
        Ok(Self {
            engine,
            api,
            events,
            cancel,
        })
    }

    /// Every vault on the chain whose keys this device holds, but for those that are erased by now.
    pub(crate) fn vaults(&self) -> Result<Vec<VaultId>, Failure> {
        let view = self.engine.view()?;
        let (days, now) = (self.engine.retention_days()?, self.engine.now());
        let keys = self.engine.keys();
        Ok(view
            .vaults()
            .filter(|vault| keys.keys(Some(*vault)).is_some())
            .filter(|vault| !erase_flow::is_gone(&view, vault, days, now))
            .collect())
    }

    pub(crate) fn open(&self, vault: VaultId) -> Result<Held<'e>, Failure> {
        let hold = self.engine.hold_vault(vault, self.cancel)?;
        self.open_held(hold, vault)
    }

    fn open_held(&self, hold: VaultHold<'e>, vault: VaultId) -> Result<Held<'e>, Failure> {
        let objects = self
            .engine
            .objects(Arc::clone(&self.api), vault, self.cancel);
        let open = self.engine.open_vault(objects, vault, self.events)?;
        Ok(Held::new(hold, open))
    }

    /// Opens a vault, unless somebody works on it just now.
    pub(crate) fn open_if_free(&self, vault: VaultId) -> Result<Option<Held<'e>>, Failure> {
        let at_once = Cancel::default();
        at_once.cancel();
        let Ok(hold) = self.engine.hold_vault(vault, &at_once) else {
            return Ok(None);
        };
        self.open_held(hold, vault).map(Some)
    }

    /// Restores from a vault that is open.
    pub(crate) fn restore(
        &self,
        open: &OpenVault,
        job: &RestoreJob,
    ) -> Result<RestoreOutcome, Failure> {
        let moved = || open.objects.moved_bytes();
        let meter = Meter::new(self.events, "restore", &moved);
        let (repository, objects) = (&open.repository, &*open.objects);
        let outcome = restore::run(repository, job, objects, &meter, self.cancel)
            .map_err(|error| restore_failed(&error))?;
        meter.finish();
        Ok(outcome)
    }

    /// Where a snapshot can be. One whose id is known comes first in the vault that this device saw it in.
    fn candidates_of(&self, spec: &SnapshotSpec) -> Result<Vec<VaultId>, Failure> {
        let mut vaults = self.candidates(spec.set.as_deref())?;
        if let Some(id) = spec.id() {
            let seen_in = self.engine.store().vaults_listing(&id)?;
            vaults.sort_by_key(|vault| !seen_in.contains(vault));
        }
        Ok(vaults)
    }

    /// Where snapshots of a set can be: in the vault of this device's set of that name, or anywhere.
    fn candidates(&self, set: Option<&str>) -> Result<Vec<VaultId>, Failure> {
        let all = self.vaults()?;
        let own = self
            .engine
            .store()
            .sets()?
            .into_iter()
            .find(|one| Some(one.name.as_str()) == set);
        match own
            .and_then(|set| set.vault)
            .filter(|vault| all.contains(vault))
        {
            Some(vault) => Ok(vec![vault]),
            None => Ok(all),
        }
    }

    /// The one snapshot that is meant, with its vault open. Others are opened as far as that has to be known.
    pub(crate) fn find(&self, spec: &SnapshotSpec) -> Result<(Held<'e>, SnapshotEntry), Failure> {
        let mut best: Option<(Held<'e>, SnapshotEntry)> = None;
        let mut passed_over = Vec::new();
        let mut sets = BTreeSet::new();
        for vault in self.candidates_of(spec)? {
            let held = match self.open(vault) {
                Ok(held) => held,
                // An id says which snapshot is meant, wherever it is: a vault that cannot be opened
                // does not matter, if the id is found. The newest is known only if all can be.
                Err(failure) if spec.prefix.is_some() && failure.kind == FailureKind::Integrity => {
                    passed_over.push(failure);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let snapshots = &held.open.repository.manifest().snapshots;
            if spec.set.is_none() && spec.prefix.is_none() {
                sets.extend(snapshots.iter().map(|entry| entry.set.clone()));
            }
            let found = spec.pick(snapshots)?;
            if found.is_some() && best.is_some() && spec.prefix.is_some() {
                return Err(ambiguous());
            }
            if let Some(entry) = found
                && best
                    .as_ref()
                    .is_none_or(|(_, other)| other.time < entry.time)
            {
                best = Some((held, entry));
            }
            if best.is_some() && spec.id().is_some() {
                // No other has this id, so that no other vault is opened for it.
                break;
            }
        }
        if sets.len() > 1 {
            return Err(of_which_set(sets));
        }
        if best.is_none() && !passed_over.is_empty() {
            // The first one is the answer, and is written as an alarm where all answers are.
            let first = passed_over.remove(0);
            passed_over
                .drain(..)
                .for_each(|other| drop(self.engine.alarmed(other)));
            return Err(first);
        }
        for failure in passed_over {
            let failure = self.engine.alarmed(failure);
            let text = format!("another vault was passed over: {}", failure.sentence);
            self.events.step(text);
        }
        best.ok_or_else(not_found)
    }
}

/// `latest` alone, where there are several sets: restoring one of them would look like restoring all.
fn of_which_set(sets: BTreeSet<String>) -> Failure {
    let names: Vec<String> = sets.into_iter().collect();
    let first = names.first().map_or("SET", String::as_str);
    Failure::new(
        FailureKind::Usage,
        format!(
            "there are {} backup sets: {}",
            names.len(),
            names.join(", ")
        ),
    )
    .with_hint(format!("say which one: `{first}:latest`"))
}

pub(crate) fn ambiguous() -> Failure {
    Failure::new(
        FailureKind::Usage,
        "more than one snapshot begins like that",
    )
    .with_hint("write more of its id")
}

pub(crate) fn not_found() -> Failure {
    Failure::new(FailureKind::Failed, "there is no such snapshot")
        .with_hint("`candor backup snapshots` lists them")
}

/// A snapshot, for lists, with what only its tree says.
pub(crate) fn snapshot_view(
    reader: &RandomReader,
    entry: &SnapshotEntry,
) -> Result<SnapshotView, Failure> {
    let root = reader.root(entry.root);
    let root = root.map_err(|error| Failure::of(&BrowseError::from(error)))?;
    let origins = root.origins.iter();
    Ok(SnapshotView {
        snapshot: entry.id.to_string(),
        set: entry.set.clone(),
        time_ms: entry.time.0,
        device: entry.device.to_string(),
        paths: origins
            .map(|origin| PathText::from_bytes(&origin.path))
            .collect(),
        files: entry.stats.files,
        bytes: entry.stats.bytes_total,
    })
}

/// A snapshot without what only its tree says.
pub(crate) fn plain_view(entry: &SnapshotEntry) -> SnapshotView {
    SnapshotView {
        snapshot: entry.id.to_string(),
        set: entry.set.clone(),
        time_ms: entry.time.0,
        device: entry.device.to_string(),
        paths: Vec::new(),
        files: entry.stats.files,
        bytes: entry.stats.bytes_total,
    }
}

impl Engine {
    /// Does something with an errand on a worker thread.
    pub(crate) fn read_back<T: Send>(
        &self,
        purpose: Purpose,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
        work: impl FnOnce(&Session<'_>) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let stop = Cancel::default();
        pump(events, cancel, &stop, |events| {
            let session = Session::begin(self, purpose, events, &stop)?;
            work(&session)
        })
    }

    /// Snapshots of a set, or of all, oldest first.
    pub(crate) fn backup_snapshots(
        &self,
        set: Option<&str>,
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let views = self.read_back(Purpose::Restore, &mut |_| (), cancel, |session| {
            let mut views = Vec::new();
            for vault in session.candidates(set)? {
                let held = session.open(vault)?;
                let reader = held.open.random_reader();
                let listed = held.open.repository.manifest().snapshots.iter();
                for entry in listed.filter(|entry| set.is_none_or(|set| entry.set == set)) {
                    views.push(match snapshot_view(&reader, entry) {
                        // It is listed all the same; a check tells what it lacks.
                        Err(failure) if failure.kind == FailureKind::Integrity => plain_view(entry),
                        viewed => viewed?,
                    });
                }
            }
            Ok(views)
        })?;
        if let Some(set) = set
            && views.is_empty()
            && self.store().set(set).is_err()
        {
            return Err(Failure::new(
                FailureKind::Usage,
                format!("there is no backup set named {set:?}"),
            )
            .with_hint("`candor backup snapshots` shows those of every set"));
        }
        let mut views = views;
        views.sort_by(|a, b| (a.time_ms, &a.snapshot).cmp(&(b.time_ms, &b.snapshot)));
        Ok(View::Snapshots(views))
    }

    /// Restores a snapshot, or some paths of it.
    pub(crate) fn backup_restore(
        &self,
        snapshot: &str,
        paths: &[PathText],
        to: &PathText,
        privileged: bool,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let spec = SnapshotSpec::parse(snapshot)?;
        let target = to.to_path();
        if !target.is_absolute() {
            return Err(Failure::new(
                FailureKind::Usage,
                format!("{} is not an absolute path", target.display()),
            ));
        }
        let paths: Vec<PathBuf> = paths.iter().map(PathText::to_path).collect();
        let scratch = self.scratch()?;
        let view = self.read_back(Purpose::Restore, events, cancel, |session| {
            let began = Instant::now();
            let (held, entry) = session.find(&spec)?;
            let job = RestoreJob {
                root: entry.root,
                paths,
                target,
                scratch,
                privileged,
                durable: true,
            };
            let outcome = session.restore(&held.open, &job)?;
            Ok(RestoredView {
                files: outcome.files,
                folders: outcome.directories,
                bytes: outcome.bytes_written,
                already_there: outcome.already,
                problems: tell_problems(&outcome.problems, session.events),
                duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            })
        })?;
        Ok(View::Restored(view))
    }

    /// A folder for what a command needs on disk while it runs; readable by its owner alone.
    pub(crate) fn scratch(&self) -> Result<PathBuf, Failure> {
        let folder = self.home.path().join("scratch");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| Failure::of(&error))?;
        Ok(folder)
    }
}

fn restore_failed(error: &RestoreError) -> Failure {
    match error {
        RestoreError::Cancelled => failure::interrupted(),
        RestoreError::NotFound { .. } => Failure::new(FailureKind::Usage, error.to_string())
            .with_hint("`candor backup ls SNAPSHOT` shows what is in it"),
        RestoreError::Target { path, .. } => Failure::new(
            FailureKind::Failed,
            format!("{} cannot be written", path.display()),
        )
        .with_hint("its parent folder must be there and writable; look at the disk's free space")
        .because(error),
        other => Failure::of(other),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn snapshots_are_named_in_four_ways() {
        let parse = |text: &str| SnapshotSpec::parse(text).map_err(|failure| failure.kind);
        let spec = |set: Option<&str>, prefix: Option<&str>| {
            Ok(SnapshotSpec {
                set: set.map(str::to_owned),
                prefix: prefix.map(str::to_owned),
            })
        };
        assert_eq!(parse("latest"), spec(None, None));
        assert_eq!(parse("docs:latest"), spec(Some("docs"), None));
        assert_eq!(parse("0a1b"), spec(None, Some("0a1b")));
        assert_eq!(parse("docs:0"), spec(Some("docs"), Some("0")));
        for bad in ["", "docs:", "newest", "0A", &"0".repeat(33)] {
            assert_eq!(parse(bad), Err(FailureKind::Usage), "{bad:?}");
        }
    }
}
