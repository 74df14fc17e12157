//! Checking that everything is there, and going on without what is not.
//!
//! A check is an errand. A repair writes, and needs the consent of the service whose vault it is: it takes what is missing
//! or damaged out of the vault's lists, so that the next backup sends it again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use candor_consent::{Backup, Sync};
use candor_vault::check::{self, CheckError, CheckReport, Damage};
use candor_vault::repair;
use candor_vault::report::Cancel;
use candor_wire::errand::Purpose;
use candor_wire::{ObjectId, VaultId};

use crate::commands::{CheckView, Event, Failure, FailureKind, View};
use crate::engine::Engine;
use crate::events::{Events, Meter, pump};
use crate::failure;
use crate::path_text::PathText;
use crate::restore_flow::Session;

/// What a check found in one vault.
struct Found {
    vault: VaultId,
    /// What it cannot use.
    lost: HashMap<ObjectId, Damage>,
}

impl Engine {
    /// Checks every vault: that its objects are there and, if asked for, that every byte is right. With `repairs`,
    /// the vaults go on without what cannot be used.
    pub(crate) fn backup_check(
        &self,
        read_data: bool,
        repairs: bool,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let (mut view, found) = self.read_back(Purpose::Verify, events, cancel, |session| {
            let mut view = CheckView {
                read_data,
                ..CheckView::default()
            };
            let mut found = Vec::new();
            for vault in session.vaults()? {
                let lost = session.check(vault, &mut view)?;
                if !lost.is_empty() {
                    found.push(Found { vault, lost });
                }
            }
            view.affected.sort_unstable();
            view.affected.dedup();
            Ok((view, found))
        })?;
        if !view.damaged.is_empty() || !view.affected.is_empty() {
            let (objects, files) = (view.damaged.len(), view.affected.len());
            // A finding is an alarm, and still an answer: the person needs the list.
            self.ledger.alarm(&format!(
                "a check found {objects} damaged or missing objects; {files} files need them"
            ))?;
        }
        if repairs {
            let stop = Cancel::default();
            (view.repaired, view.unrepaired) = pump(events, cancel, &stop, |events| {
                let (mut repaired, mut unrepaired) = (0, 0);
                for one in &found {
                    let done = self.repair(one, events, &stop).unwrap_or_else(|failure| {
                        let failure = self.alarmed(failure);
                        let vault = one.vault;
                        events.step(format!(
                            "vault {vault} is not repaired: {}",
                            failure.sentence
                        ));
                        false
                    });
                    *(if done { &mut repaired } else { &mut unrepaired }) += one.lost.len() as u64;
                }
                (repaired, unrepaired)
            });
            if stop.is_cancelled() {
                return Err(failure::interrupted());
            }
        }
        Ok(View::Checked(view))
    }

    /// Takes what is lost out of a vault. False if this device may not.
    fn repair(&self, found: &Found, events: &Events, cancel: &Cancel) -> Result<bool, Failure> {
        let vault = Some(found.vault);
        let begun = if self.is_synced_vault(&found.vault) {
            self.begin_writing::<Sync>(vault, events, cancel, || Ok(()))
        } else {
            self.begin_writing::<Backup>(vault, events, cancel, || Ok(()))
        };
        let mut held = match begun {
            Ok(held) => held,
            // What another device backs up, or what is off, is not this device's to change.
            Err(failure) if failure.kind == FailureKind::NoConsent => {
                events.step(format!(
                    "vault {} is not repaired: this device has no consent to write to it; try it on the one that backs it up",
                    found.vault
                ));
                return Ok(false);
            }
            Err(failure) => return Err(failure),
        };
        let open = &held.open;
        let lost = repair::still_lost(&open.repository, &found.lost, &*open.objects)?;
        self.change_vault(&mut held.open, |open| {
            let sink = Arc::clone(&open.objects);
            Ok(repair::stage(&open.repository, &lost, &*sink)?)
        })?;
        Ok(true)
    }
}

impl Session<'_> {
    /// Checks one vault, adds to the view what was found, and returns what cannot be used.
    fn check(
        &self,
        vault: VaultId,
        view: &mut CheckView,
    ) -> Result<HashMap<ObjectId, Damage>, Failure> {
        let held = self.open(vault)?;
        let open = &held.open;
        let moved = || open.objects.moved_bytes();
        let meter = Meter::new(self.events, "check", &moved);
        let (repository, objects) = (&open.repository, &*open.objects);
        let report = check::run(repository, objects, view.read_data, &meter, self.cancel)
            .map_err(|error| check_failed(&error))?;
        meter.finish();
        let own = repository.manifest().indexes.len() as u64 + u64::from(open.head.is_some());
        let CheckReport {
            snapshots,
            packs,
            bytes_read,
            damaged,
            affected,
            lost,
            ..
        } = report;
        view.snapshots += snapshots;
        view.objects += packs + own;
        view.bytes_read += bytes_read;
        let names = damaged.iter().map(|one| one.object.to_string());
        view.damaged.extend(names);
        let paths = affected.into_iter().map(|one| whole_if_empty(one.path));
        view.affected.extend(paths);
        Ok(lost)
    }
}

/// An empty path means all of a snapshot.
fn whole_if_empty(path: PathBuf) -> PathText {
    if path.as_os_str().is_empty() {
        PathText::from_bytes(b"/")
    } else {
        PathText::from_path(&path)
    }
}

fn check_failed(error: &CheckError) -> Failure {
    match error {
        CheckError::Cancelled => failure::interrupted(),
        other => Failure::of(other),
    }
}
