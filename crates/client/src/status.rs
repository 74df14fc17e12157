//! Views of what is on, what is safe and what waits. Nothing here sends anything, except the list of
//! devices, which asks the cell.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use candor_consent::Refusal;
use candor_wire::chain::DeviceEntry;
use candor_wire::consent_record::ServiceCode;
use candor_wire::errand::Purpose;
use candor_wire::sign::PublicKey;
use candor_wire::statement::Role;
use candor_wire::time::DAY_MS;
use candor_wire::{Millis, ids};

use crate::account;
use crate::clock::date_text;
use crate::commands::{
    AccountView, DeviceView, Failure, FailureKind, FolderView, LogView, ServiceView, SetView,
    StatusView, View,
};
use crate::consent_flow::RENEWAL_DAYS;
use crate::device_store::BackupSet;
use crate::engine::{Engine, unknown_chain};
use crate::keystore::KeyStore;
use crate::path_text::PathText;
use crate::sets::{self, SetRequest};

/// A set that is on and has had no good run for this long is overdue, in milliseconds: a day, and
/// half a day for a machine that sleeps at night.
pub const OVERDUE_AFTER_MS: i64 = 36 * 60 * 60 * 1000;

/// Digits of a fingerprint that stand together, so that two people can read it to each other.
const FINGERPRINT_GROUP_DIGITS: usize = 8;

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Full => "full",
        Role::WriteOnly => "write-only",
    }
}

/// The fingerprint of a key as people read it to each other.
pub fn fingerprint_text(key: &PublicKey) -> String {
    grouped(&ids::to_hex(&key.fingerprint()))
}

fn grouped(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && place % FINGERPRINT_GROUP_DIGITS == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Whether an address of an invitation is on this machine.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn device_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.dev())
}

impl Engine {
    /// Adds a backup set.
    pub(crate) fn backup_add(
        &self,
        name: Option<String>,
        paths: &[PathText],
        excludes: Vec<String>,
    ) -> Result<View, Failure> {
        let others = self.store().sets()?;
        let paths = paths.iter().map(PathText::to_path).collect();
        let request = SetRequest {
            name,
            paths,
            excludes,
        };
        let set = sets::make(request, &others, self.home.path(), self.now())?;
        crate::backup_flow::check_excludes(&set)?;
        for path in &set.paths {
            self.must_hold_no_mount(path)?;
        }
        self.store().add_set(&set)?;
        self.set_view(&set).map(View::Set)
    }

    pub(crate) fn set_views(&self) -> Result<Vec<SetView>, Failure> {
        let sets = self.store().sets()?;
        sets.iter().map(|set| self.set_view(set)).collect()
    }

    fn set_view(&self, set: &BackupSet) -> Result<SetView, Failure> {
        let consent = self.consent_of(ServiceCode::Backup, set)?;
        let state = match &consent {
            Ok(_) => "on",
            Err(Refusal::NoConsent { .. } | Refusal::NotAcknowledged { .. }) => "off",
            Err(Refusal::Withdrawn { .. }) => "withdrawn",
            Err(Refusal::Ended { .. }) => "ended",
        };
        let waits_since = set
            .runs
            .succeeded
            .or_else(|| self.consented_at(set))
            .unwrap_or(set.added);
        let overdue =
            consent.is_ok() && self.now().0.saturating_sub(waits_since.0) > OVERDUE_AFTER_MS;
        let running = self.is_running(&set.name);
        Ok(SetView {
            name: set.name.clone(),
            vault: set.vault.map(|vault| vault.to_string()),
            paths: set
                .paths
                .iter()
                .map(|path| PathText::from_path(path))
                .collect(),
            excludes: set.excludes.clone(),
            consent: state.to_owned(),
            last_backup_ms: set.runs.succeeded.map(|time| time.0),
            last_problems: set.runs.problems,
            last_drill_ms: self.store().drill(&set.name)?.map(|drill| drill.time.0),
            overdue,
            running,
            interrupted: set.runs.unfinished.is_some() && !running,
        })
    }

    fn consented_at(&self, set: &BackupSet) -> Option<Millis> {
        let (id, _) = self.consent_of(ServiceCode::Backup, set).ok()?.ok()?;
        self.with_chain(|chain| chain.view().consent(&id).map(|entry| entry.record.given_at))
            .flatten()
    }

    /// The account as this device knows it.
    pub(crate) fn account_view(&self) -> Result<AccountView, Failure> {
        let facts = &self.facts;
        let known = self.with_chain(|chain| {
            let cell = chain.keyring().current();
            let root = fingerprint_text(&chain.view().genesis().root);
            (cell.controller.clone(), cell.region.clone(), root)
        });
        let (controller, region, root_fingerprint) = known.unwrap_or_default();
        let protected_by = if facts.is_protected {
            "passphrase"
        } else {
            "unprotected"
        };
        Ok(AccountView {
            name: facts.account_name.clone(),
            account: facts.account.to_string(),
            device: facts.device.to_string(),
            device_name: facts.device_name.clone(),
            role: role_name(facts.role).to_owned(),
            cell: facts.cell.to_string(),
            cell_addresses: facts.invitation.addresses.clone(),
            controller,
            region,
            root_fingerprint,
            phrase_confirmed: self.keys().phrase_confirmed(),
            keys_protected_by: protected_by.to_owned(),
            cell_on_same_disk: self.cell_on_same_disk()?,
        })
    }

    /// Whether losing one disk of this machine would take the sources and the cell's copy. A cell on
    /// this machine whose disk is not known counts as on the same one.
    fn cell_on_same_disk(&self) -> Result<bool, Failure> {
        let is_here = self.facts.in_process
            || self
                .facts
                .invitation
                .addresses
                .iter()
                .any(|address| is_loopback(address));
        if !is_here {
            return Ok(false);
        }
        let Some(cell_disk) = device_of(&self.home.cell()) else {
            return Ok(true);
        };
        let sets = self.store().sets()?;
        let mut paths = sets.iter().flat_map(|set| &set.paths).peekable();
        Ok(paths.peek().is_none()
            || paths.any(|path| device_of(path).is_none_or(|disk| disk == cell_disk)))
    }

    /// The account's devices (errand: list).
    pub(crate) fn device_list(&self) -> Result<View, Failure> {
        let api = self.errand(Purpose::List)?;
        self.sync_chain(&api)?;
        let view = self.view()?;
        let keys = self.keys();
        let devices = view.devices();
        let devices = devices.map(|entry| self.device_view(entry, &keys));
        Ok(View::Devices(devices.collect()))
    }

    pub(crate) fn device_view(&self, entry: &DeviceEntry, keys: &KeyStore) -> DeviceView {
        let account_keys = keys.keys(None);
        DeviceView {
            device: entry.added.device.to_string(),
            name: account_keys
                .and_then(|keys| account::open_name(&entry.added, self.facts.account, keys)),
            role: role_name(entry.added.role).to_owned(),
            added_ms: entry.time.0,
            revoked_ms: entry.revoked.as_ref().map(|revoked| revoked.time.0),
            this_device: entry.added.device == self.facts.device,
        }
    }

    /// What is on, what is safe, what waits. Sends nothing.
    pub(crate) fn status(&self) -> Result<View, Failure> {
        let account = self.account_view()?;
        let sets = self.set_views()?;
        let services = self.services()?;
        let folders = self.folder_views()?;
        let mut warnings = self.warnings(&account, &sets)?;
        for folder in &folders {
            warnings.extend(self.folder_warnings(folder)?);
        }
        let log = self.log_status(&mut warnings)?;
        let erasures = match self.with_chain(|_| ()) {
            Some(()) => self.erasure_views()?,
            None => Vec::new(),
        };
        Ok(View::Status(Box::new(StatusView {
            account: Some(account),
            services,
            sets,
            folders,
            erasures,
            warnings,
            witnessed: log.as_ref().is_some_and(LogView::is_witnessed),
            log: log.map(Box::new),
        })))
    }

    fn services(&self) -> Result<Vec<ServiceView>, Failure> {
        let now = self.now();
        let pending = self.store().withdrawals()?;
        let over = self.consents_over(now)?;
        let live = |service: ServiceCode| {
            self.with_chain(|chain| {
                let ends = chain
                    .view()
                    .consents()
                    .into_iter()
                    .filter_map(|(id, consent)| {
                        let record = &consent.record;
                        let is_live = record.service == service
                            && !over.contains(&id)
                            && record.device == self.facts.device
                            && consent.acknowledged.is_some()
                            && consent.withdrawn.is_none()
                            && record.ends_at > now
                            && !pending.iter().any(|one| one.ends(consent));
                        is_live.then_some(record.ends_at.0)
                    });
                ends.min()
            })
            .flatten()
        };
        let services = ServiceCode::ALL.into_iter().map(|service| {
            let ends_ms = live(service);
            ServiceView {
                name: service.name().to_owned(),
                on: ends_ms.is_some(),
                ends_ms,
            }
        });
        Ok(services.collect())
    }

    /// Sentences about what is not safe or needs the person.
    fn warnings(&self, account: &AccountView, sets: &[SetView]) -> Result<Vec<String>, Failure> {
        let mut out = Vec::new();
        if self.with_chain(|_| ()).is_none() {
            out.push(format!(
                "{}: `candor consent history`",
                unknown_chain().sentence
            ));
        }
        if !account.phrase_confirmed {
            out.push(
                "the recovery phrase is not confirmed: without it, losing this device means losing everything"
                    .to_owned(),
            );
        }
        if !self.facts.is_protected {
            out.push(
                "the keys on this device are not protected: whoever reads its disk has them"
                    .to_owned(),
            );
        }
        if account.cell_on_same_disk {
            out.push(
                "the cell is on the same disk: this copy does not survive the loss of this disk"
                    .to_owned(),
            );
        }
        if !self.store().withdrawals()?.is_empty() {
            out.push(
                "the cell has not been told of a withdrawal yet: run `candor consent off` again when it can be reached"
                    .to_owned(),
            );
        }
        out.extend(self.erasure_warnings()?);
        for set in sets {
            out.extend(self.set_warnings(set)?);
        }
        out.extend(self.vanished_warnings(sets)?);
        Ok(out)
    }

    /// Snapshots that somebody else took off the list, as long as they can be brought back.
    fn vanished_warnings(&self, sets: &[SetView]) -> Result<Vec<String>, Failure> {
        let days = self.with_chain(|chain| chain.keyring().current().retention_days);
        let window = i64::from(days.unwrap_or_default()) * DAY_MS;
        let vanished = self.store().vanished(self.now().plus_ms(-window))?;
        let told = vanished.into_iter().map(|one| {
            let vault = one.vault.to_string();
            let set = sets.iter().find(|set| set.vault.as_ref() == Some(&vault));
            let of = set.map_or(vault.as_str(), |set| set.name.as_str());
            let (count, day) = (one.count, date_text(one.seen));
            format!(
                "{count} snapshots of {of} were taken off the list, seen here on {day}, and not by this device: if it was none of yours, somebody has your keys; `candor backup snapshots --forgotten` shows what can be brought back"
            )
        });
        Ok(told.collect())
    }

    fn set_warnings(&self, set: &SetView) -> Result<Vec<String>, Failure> {
        let name = &set.name;
        let mut out = Vec::new();
        match set.consent.as_str() {
            "off" => out.push(format!(
                "{name} is not backed up: `candor consent on backup` asks for it"
            )),
            "withdrawn" => out.push(format!(
                "{name} is not backed up any more: you switched it off"
            )),
            "ended" => out.push(format!(
                "the consent for {name} has ended: `candor consent on backup`"
            )),
            _ => {}
        }
        if set.overdue {
            out.push(format!(
                "{name} is overdue: its last good backup is older than 36 hours, or there is none"
            ));
        }
        if set.interrupted {
            out.push(format!(
                "a backup of {name} was interrupted: the next run goes on where it stopped"
            ));
        }
        if set.last_problems > 0 {
            out.push(format!(
                "{} files of {name} are not in its last backup as they should be",
                set.last_problems
            ));
        }
        let known = self.store().set(name)?;
        out.extend(self.reminder(ServiceCode::Backup, &known)?);
        Ok(out)
    }

    /// A folder that is paused is so because the person said it.
    fn folder_warnings(&self, folder: &FolderView) -> Result<Vec<String>, Failure> {
        let name = &folder.name;
        let mut out = Vec::new();
        match folder.consent.as_str() {
            "off" => out.push(format!(
                "{name} is not kept in step: `candor consent on sync` asks for it"
            )),
            "withdrawn" => out.push(format!(
                "{name} is not kept in step any more: you switched it off"
            )),
            "ended" => out.push(format!(
                "the consent for {name} has ended: `candor consent on sync`"
            )),
            _ => {}
        }
        if folder.last_problems > 0 {
            out.push(format!(
                "{} files of {name} are not in step as they should be: `candor sync run` names them",
                folder.last_problems
            ));
        }
        let known = self.store().folder(name)?.as_set();
        out.extend(self.reminder(ServiceCode::Sync, &known)?);
        Ok(out)
    }

    /// A sentence about a consent that ends within [`RENEWAL_DAYS`].
    fn reminder(&self, service: ServiceCode, set: &BackupSet) -> Result<Option<String>, Failure> {
        let Ok((_, ends)) = self.consent_of(service, set)? else {
            return Ok(None);
        };
        let is_near = ends <= self.now().plus_ms(RENEWAL_DAYS * DAY_MS);
        Ok(is_near.then(|| {
            format!(
                "the consent for {} ends on {}: `candor consent on {}` renews it",
                set.name,
                date_text(ends),
                service.name()
            )
        }))
    }

    /// The same for several sets.
    pub(crate) fn reminders(&self, sets: &[BackupSet]) -> Result<Vec<String>, Failure> {
        let reminders = sets
            .iter()
            .map(|set| self.reminder(ServiceCode::Backup, set));
        let found: Result<Vec<Option<String>>, Failure> = reminders.collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// The log as it was seen last. What stands against it, or keeps it from being judged, is a warning.
    fn log_status(&self, warnings: &mut Vec<String>) -> Result<Option<LogView>, Failure> {
        let log = match self.log_view() {
            Ok(log) => log,
            // A policy that cannot be read is no reason to show nothing else.
            Err(failure) if failure.kind == FailureKind::Usage => {
                warnings.push(failure.sentence);
                return self.log_view_under(None, None);
            }
            Err(failure) => return Err(failure),
        };
        let Some(log) = log else {
            return Ok(None);
        };
        warnings.extend(log.findings.iter().map(|one| format!("ALARM: {one}")));
        if log.is_stale() && !log.findings.contains(&log.sentence) {
            warnings.push(log.sentence.clone());
        }
        if log.evidence_files > 0 {
            warnings.push(format!(
                "files that speak against the cell are kept: {} in the folder evidence of candor's folder; once you know why, put them elsewhere",
                log.evidence_files
            ));
        }
        let late = log
            .checked_ms
            .filter(|checked| self.now().0.saturating_sub(*checked) > OVERDUE_AFTER_MS);
        if let Some(checked) = late {
            warnings.push(format!(
                "the cell's log was last looked through on {}: `candor log monitor`",
                date_text(Millis(checked))
            ));
        }
        Ok(Some(log))
    }
}

impl LogView {
    /// Whether a quorum vouches for the newest state, and did so lately.
    pub fn is_witnessed(&self) -> bool {
        self.standing == crate::log::WITNESSED
    }

    /// Whether a quorum vouched for the log once, and not lately.
    pub fn is_stale(&self) -> bool {
        self.standing == crate::log::STALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for here in [
            "127.0.0.1:9",
            "127.8.8.8:9",
            "[::1]:9",
            "localhost:9",
            "localhost",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for away in ["192.0.2.1:9", "[2001:db8::1]:9", "cell.example:9"] {
            assert!(!is_loopback(away), "{away}");
        }
    }

    #[test]
    fn fingerprints_are_grouped() {
        assert_eq!(grouped("0123456789abcdef01"), "01234567 89abcdef 01");
    }
}
