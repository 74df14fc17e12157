//! `candor export`: everything of the account as plain files, in formats that need no candor to be read.
//!
//! docs/formats/export.md says what is where. An export that was interrupted, or that lacks something, goes on in the same
//! folder; one that is whole is never written to again.

mod target;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Instant;

use candor_vault::SnapshotEntry;
use candor_vault::report::Cancel;
use candor_vault::restore::RestoreJob;
use candor_wire::api::{API_VERSION, CellDescription};
use candor_wire::errand::Purpose;
use candor_wire::statement::Role;
use candor_wire::{Millis, VaultId, cbor};
use serde::Serialize;
use target::{Target, cannot_write, make_folder};

use crate::chain::Chain;
use crate::commands::{
    AccountView, DeviceView, Event, ExportedLine, ExportedView, Failure, FailureKind, Problem,
    SnapshotView, View,
};
use crate::drill_flow::remove_tree;
use crate::durable;
use crate::engine::{Engine, unknown_chain};
use crate::erase_flow;
use crate::events::{Events, pump};
use crate::log::kind_name;
use crate::mount_flow::ERRAND_AGE;
use crate::path_text::PathText;
use crate::receipt;
use crate::restore_flow::{Held, Session, plain_view, snapshot_view};

/// The version of the JSON documents.
const VERSION: u32 = 1;

/// What an export is, for whoever finds it.
const README: &str = include_str!("export_flow/README.txt");

/// Most problems that the export itself lists.
const PROBLEMS_MAX: usize = 10_000;

/// Digits of a snapshot's id in the name of its folder.
const ID_DIGITS: usize = 8;

/// The end of the name of a snapshot's folder while it is not whole.
const PART: &str = ".part";

/// `account.json`
#[derive(Serialize)]
struct Account {
    version: u32,
    account: AccountView,
    /// The cell's public root key, in hexadecimal: what checks the keys in `chain/`.
    cell_root: String,
    devices: Vec<DeviceView>,
}

/// One of `backups.json` and of `folders.json`.
#[derive(Serialize)]
struct Listed {
    snapshot: SnapshotView,
    vault: String,
    folder: Option<PathText>,
}

/// One of `chain.json`.
#[derive(Serialize)]
struct Statement {
    sequence: u64,
    file: String,
    id: String,
    what: &'static str,
    /// Absent once it was erased.
    time_ms: Option<i64>,
}

/// A list in a document of its own.
#[derive(Serialize)]
struct Document<'a, T> {
    version: u32,
    list: &'a [T],
}

/// `export.json`
#[derive(Serialize)]
struct Summary<'a> {
    version: u32,
    made_ms: i64,
    exported: &'a ExportedView,
    problems: &'a [Problem],
}

/// An export at work.
struct Export<'e> {
    session: Session<'e>,
    since: Instant,
    target: &'e Path,
    every_snapshot: bool,
    view: ExportedView,
    problems: Vec<Problem>,
    backups: Vec<Listed>,
    folders: Vec<Listed>,
    /// Folders of snapshots that have a name by now.
    named: BTreeSet<String>,
    began: Millis,
}

impl Engine {
    /// Writes everything of the account below `to`.
    pub(crate) fn export(
        &self,
        to: &PathText,
        every_snapshot: bool,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let began = Instant::now();
        let target = Target::take(self, &to.to_path())?;
        let stop = Cancel::default();
        let view = pump(events, cancel, &stop, |events| {
            let mut export = Export {
                session: Session::begin(self, Purpose::Restore, events, &stop)?,
                since: Instant::now(),
                target: &target.path,
                every_snapshot,
                view: ExportedView::default(),
                problems: Vec::new(),
                backups: Vec::new(),
                folders: Vec::new(),
                named: BTreeSet::new(),
                began: self.now(),
            };
            export.run(began).map(|()| export.view)
        })?;
        if view.problems == 0 {
            for top in ["backups", "folders"] {
                sweep(&target.path.join(top))?;
            }
            target.finish()?;
        }
        Ok(View::Exported(view))
    }
}

/// Removes what an earlier run began and nobody asks for any more, two levels down.
fn sweep(top: &Path) -> Result<(), Failure> {
    let sweep_set = |set: &Path| -> io::Result<()> {
        for entry in fs::read_dir(set)? {
            let entry = entry?;
            let is_part = entry.file_name().as_bytes().ends_with(PART.as_bytes());
            if is_part && entry.file_type()?.is_dir() {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    };
    let sweep_all = || -> io::Result<()> {
        for set in fs::read_dir(top)? {
            let set = set?;
            if set.file_type()?.is_dir() {
                sweep_set(&set.path())?;
            }
        }
        Ok(())
    };
    match sweep_all() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_write(top, &error)),
        _ => Ok(()),
    }
}

/// A name that folders have on any system: as other devices gave it, it may be one that none can have.
fn portable(name: &str) -> String {
    let is_odd = |c: char| c.is_control() || "/\\<>:\"|?*".contains(c);
    let plain: String = name
        .chars()
        .map(|c| if is_odd(c) { '_' } else { c })
        .collect();
    match plain.trim_end_matches(['.', ' ']) {
        "" => "_".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// `2026-11-26T184152Z`: not every system has colons in names.
fn time_name(time: Millis) -> String {
    let at = time.calendar();
    format!(
        "{:04}-{:02}-{:02}T{:02}{:02}{:02}Z",
        at.year, at.month, at.day, at.hour, at.minute, at.second
    )
}

impl<'e> Export<'e> {
    fn run(&mut self, began: Instant) -> Result<(), Failure> {
        self.put("README.txt", README.as_bytes())?;
        self.vaults()?;
        self.put_list("backups.json", &self.backups)?;
        self.put_list("folders.json", &self.folders)?;
        self.session
            .events
            .step("the account, its consents and its ledger");
        self.account()?;
        self.consents()?;
        self.chain()?;
        self.checkpoint()?;
        self.ledger()?;
        self.view.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let summary = Summary {
            version: VERSION,
            made_ms: self.engine().now().0,
            exported: &self.view,
            problems: &self.problems,
        };
        self.put_json("export.json", &summary)
    }

    const fn engine(&self) -> &'e Engine {
        self.session.engine
    }

    const fn events(&self) -> &'e Events {
        self.session.events
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.target.join(name);
        durable::replace(&path, content).map_err(|error| cannot_write(&path, &error))
    }

    fn put_json(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_vec_pretty(value).map_err(|error| Failure::of(&error))?;
        text.push(b'\n');
        self.put(name, &text)
    }

    fn put_list<T: Serialize>(&self, name: &str, list: &[T]) -> Result<(), Failure> {
        self.put_json(
            name,
            &Document {
                version: VERSION,
                list,
            },
        )
    }

    /// What is not here as it should be. It is told, and listed in the export.
    fn miss(&mut self, path: PathText, what: impl Into<String>) {
        let problem = Problem {
            path,
            what: what.into(),
        };
        self.events().send(Event::Problem(problem.clone()));
        self.view.problems += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    /// What was altered, or is missing, is missed, and the rest is had. Anything else ends the export, which goes on later.
    fn or_miss<T>(&mut self, of: &str, result: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(failure) if failure.kind == FailureKind::Integrity => {
                self.missed(of, failure);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The same for what is beside the files: whatever is wrong with it, they are there.
    fn or_miss_beside<T>(
        &mut self,
        of: &str,
        result: Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(failure)
                if matches!(
                    failure.kind,
                    FailureKind::Unreachable | FailureKind::Interrupted
                ) =>
            {
                Err(failure)
            }
            Err(failure) => {
                self.missed(of, failure);
                Ok(None)
            }
        }
    }

    fn missed(&mut self, of: &str, failure: Failure) {
        self.view.alarms += u64::from(failure.kind == FailureKind::Integrity);
        let failure = self.engine().alarmed(failure);
        self.miss(PathText::from_bytes(of.as_bytes()), failure.sentence);
    }

    /// An errand lasts a day, and an export may take longer.
    fn renew(&mut self) -> Result<(), Failure> {
        if self.since.elapsed() > ERRAND_AGE {
            let Session {
                engine,
                events,
                cancel,
                ..
            } = self.session;
            self.session = Session::begin(engine, Purpose::Restore, events, cancel)?;
            self.since = Instant::now();
        }
        Ok(())
    }

    fn vaults(&mut self) -> Result<(), Failure> {
        let engine = self.engine();
        if engine.facts.role == Role::WriteOnly {
            self.miss(
                PathText::from_bytes(b"backups"),
                "this device is write-only: it holds no key that reads backups",
            );
            return Ok(());
        }
        let view = engine.view()?;
        let (days, now) = (engine.retention_days()?, engine.now());
        let mut vaults: Vec<VaultId> = view
            .vaults()
            .filter(|vault| !erase_flow::is_gone(&view, vault, days, now))
            .collect();
        vaults.sort_by_key(|vault| engine.is_synced_vault(vault));
        for vault in vaults {
            self.renew()?;
            let of = format!("vault {vault}");
            if engine.keys().keys(Some(vault)).is_none() {
                self.miss(
                    PathText::from_bytes(of.as_bytes()),
                    "this device holds no key of it",
                );
                continue;
            }
            let opened = match self.session.open(vault) {
                // Asked to be erased before anything was in it, or gone sooner than it had to be.
                Err(failure) if view.erasure_of(Some(&vault)).is_some() => {
                    if failure.kind != FailureKind::Policy {
                        return Err(failure);
                    }
                    self.events().step(format!("{of}: {}", failure.sentence));
                    continue;
                }
                opened => opened,
            };
            if let Some(held) = self.or_miss(&of, opened)? {
                self.vault(vault, &held)?;
            }
        }
        Ok(())
    }

    fn vault(&mut self, vault: VaultId, held: &Held<'_>) -> Result<(), Failure> {
        let snapshots = &held.open.repository.manifest().snapshots;
        let is_synced = self.engine().is_synced_vault(&vault);
        let reader = held.open.random_reader();
        for (place, entry) in snapshots.iter().enumerate() {
            let rest = &snapshots[place + 1..];
            let is_newest = if is_synced {
                rest.is_empty()
            } else {
                rest.iter()
                    .all(|later| (&later.set, later.device) != (&entry.set, entry.device))
            };
            let name = self.name_of(entry, is_synced);
            if is_newest || (self.every_snapshot && !is_synced) {
                self.snapshot(held, entry, is_synced, &name)?;
            }
            // An earlier run of this export may have got it.
            let is_here = self.target.join(&name).is_dir();
            if is_synced && !is_newest && !is_here {
                continue;
            }
            let viewed = snapshot_view(&reader, entry);
            let viewed = self.or_miss(&name, viewed)?;
            let listed = Listed {
                snapshot: viewed.unwrap_or_else(|| plain_view(entry)),
                vault: vault.to_string(),
                folder: is_here.then(|| PathText::from_bytes(name.as_bytes())),
            };
            if is_synced {
                self.folders.push(listed);
            } else {
                self.backups.push(listed);
            }
        }
        Ok(())
    }

    /// Where a snapshot is in the export. No two have one name, whatever other devices call them.
    fn name_of(&mut self, entry: &SnapshotEntry, is_synced: bool) -> String {
        let top = if is_synced { "folders" } else { "backups" };
        let id = entry.id.to_string();
        let (set, time) = (portable(&entry.set), time_name(entry.time));
        let digits = id.get(..ID_DIGITS).unwrap_or(&id);
        let short = format!("{top}/{set}/{time}-{digits}");
        let name = if self.named.contains(&short) {
            format!("{top}/{set}/{time}-{id}")
        } else {
            short
        };
        self.named.insert(name.clone());
        name
    }

    /// Restores one snapshot to its folder, as far as it is there. The folder has its name only when that is done.
    fn snapshot(
        &mut self,
        held: &Held<'_>,
        entry: &SnapshotEntry,
        is_synced: bool,
        name: &str,
    ) -> Result<(), Failure> {
        self.session.done()?;
        self.events().step(name);
        let whole = self.target.join(name);
        for above in [whole.ancestors().nth(2), whole.parent()] {
            make_folder(above.unwrap_or(self.target))?;
        }
        let part = self.target.join(format!("{name}{PART}"));
        let is_again = whole.is_dir();
        if !is_again {
            make_folder(&part)?;
        }
        let job = RestoreJob {
            root: entry.root,
            paths: Vec::new(),
            target: if is_again {
                whole.clone()
            } else {
                part.clone()
            },
            scratch: self.engine().scratch()?,
            privileged: false,
            durable: true,
        };
        let restored = self.session.restore(&held.open, &job);
        let Some(outcome) = self.or_miss(name, restored)? else {
            return Ok(());
        };
        if !is_again {
            fs::rename(&part, &whole)
                .and_then(|()| durable::sync_folder_of(&whole))
                .map_err(|error| cannot_write(&whole, &error))?;
        }
        for one in outcome.problems.list {
            let path = PathText::from_path(&Path::new(name).join(&one.path));
            self.miss(path, one.kind.to_string());
        }
        self.view.problems += outcome.problems.more;
        if is_synced {
            self.view.folders += 1;
        } else {
            self.view.snapshots += 1;
        }
        self.view.files += outcome.files + outcome.already;
        self.view.bytes += outcome.bytes_written;
        Ok(())
    }

    fn account(&self) -> Result<(), Failure> {
        let engine = self.engine();
        let view = engine.view()?;
        let keys = engine.keys();
        let devices = view.devices();
        let devices = devices.map(|entry| engine.device_view(entry, &keys));
        let devices = devices.collect();
        drop(keys);
        let account = Account {
            version: VERSION,
            account: engine.account_view()?,
            cell_root: candor_wire::ids::to_hex(engine.facts.invitation.root.as_bytes()),
            devices,
        };
        self.put_json("account.json", &account)
    }

    fn consents(&mut self) -> Result<(), Failure> {
        let consents = self.engine().consents()?;
        self.put_list("consents.json", &consents)?;
        let erasures = self.engine().erasure_views()?;
        self.put_list("erasures.json", &erasures)?;
        make_folder(&self.target.join("receipts"))?;
        self.view.consents = consents.len() as u64;
        let due = erasures.into_iter().filter(|one| one.state == "due");
        let ids = consents.into_iter().map(|consent| consent.id);
        let ids: Vec<String> = ids.chain(due.map(|one| one.id)).collect();
        for id in ids {
            self.session.done()?;
            let made = self.engine().consent_receipt(&id, self.session.cancel);
            match self.or_miss_beside(&format!("receipts/{id}"), made)? {
                Some(View::Receipt(made)) => {
                    let json = receipt::to_json_ld(&made.text, self.engine().now())?;
                    self.put(&format!("receipts/{id}.receipt"), made.text.as_bytes())?;
                    self.put(&format!("receipts/{id}.jsonld"), json.as_bytes())?;
                }
                Some(View::ErasureReceipt(made)) => {
                    let name = format!("receipts/{id}.erasure-receipt");
                    self.put(&name, made.text.as_bytes())?;
                }
                _ => continue,
            }
            self.view.receipts += 1;
        }
        Ok(())
    }

    fn chain(&mut self) -> Result<(), Failure> {
        let chain = self.engine().with_chain(Chain::clone);
        let chain = chain.ok_or_else(unknown_chain)?;
        make_folder(&self.target.join("chain"))?;
        let mut list = Vec::new();
        for record in chain.records() {
            let file = format!("chain/{:06}.cbor", record.sequence);
            self.put(&file, &cbor::encode(record))?;
            let statement = record.statement.as_ref();
            let parsed = statement.and_then(|statement| statement.parse().ok());
            list.push(Statement {
                sequence: record.sequence,
                file,
                id: record.commitment.to_string(),
                what: kind_name(record.kind),
                time_ms: parsed.map(|parsed| parsed.entry.time.0),
            });
        }
        let description = CellDescription {
            version: API_VERSION,
            keys: chain.cell_keys().to_vec(),
        };
        self.put("chain/cell-keys.cbor", &cbor::encode(&description))?;
        self.view.statements = list.len() as u64;
        self.put_list("chain.json", &list)
    }

    fn checkpoint(&mut self) -> Result<(), Failure> {
        make_folder(&self.target.join("log"))?;
        let read = self.engine().log_checkpoint(None, self.session.cancel);
        match self.or_miss_beside("log/checkpoint", read)? {
            Some(View::LogCheckpoint(view)) => {
                self.put("log/checkpoint", view.checkpoint.as_bytes())
            }
            _ => Ok(()),
        }
    }

    fn ledger(&mut self) -> Result<(), Failure> {
        let (mut lines, mut alarms, mut read) = (0, 0, Ok(()));
        let path = self.target.join("ledger.jsonl");
        // Line by line: a long ledger is not held in memory.
        let written = durable::replace_with(&path, |file| {
            let mut written = Ok(());
            let told = self.engine().ledger.lines_until(None, &mut |line| {
                let is_new = line.alarm.is_some() && line.opened_ms >= self.began.0;
                alarms += u64::from(is_new);
                lines += 1;
                written = serde_json::to_writer(&mut *file, &ExportedLine::of(&line))
                    .map_err(io::Error::from)
                    .and_then(|()| file.write_all(b"\n"));
                if written.is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            read = told.map(drop);
            // What could not be read is no ledger.
            read.as_ref().map_err(|_| io::ErrorKind::InvalidData)?;
            written
        });
        read?;
        written.map_err(|error| cannot_write(&path, &error))?;
        self.view.ledger_lines = lines;
        if alarms > self.view.alarms {
            self.view.alarms = alarms;
            self.miss(
                PathText::from_bytes(b"ledger.jsonl"),
                "it has alarms that were raised while this was made",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_that_folders_have_them_everywhere() {
        let cases = [
            ("documents", "documents"),
            ("a/../b", "a_.._b"),
            ("..", "_"),
            ("", "_"),
            ("two\nlines", "two_lines"),
            ("c:\\x?", "c__x_"),
            ("ends. ", "ends"),
        ];
        for (set, folder) in cases {
            assert_eq!(portable(set), folder);
        }
        assert_eq!(time_name(Millis(1_798_761_599_999)), "2026-12-31T235959Z");
    }
}
