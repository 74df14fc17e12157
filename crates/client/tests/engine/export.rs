//! Exports: everything of an account as plain files, read here without an engine.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use candor_client::Cancel;
use candor_client::chain::Chain;
use candor_client::commands::{Command, Event, ExportedView, Failure, FailureKind, Stored, View};
use candor_client::path_text::PathText;
use candor_client::receipt;
use candor_wire::api::CellDescription;
use candor_wire::cbor;
use candor_wire::chain::Record;
use candor_wire::ids::to_hex;
use serde_json::Value;

use crate::check::{flip, largest};
use crate::sync;
use crate::world::{Person, World, assert_same, noise};

fn command(to: &Path, every_snapshot: bool) -> Command {
    Command::Export {
        to: PathText::from_path(to),
        every_snapshot,
    }
}

fn export(person: &Person, to: &Path) -> Result<ExportedView, Failure> {
    match person.ask(command(to, false))? {
        View::Exported(view) => Ok(view),
        other => panic!("{other:?}"),
    }
}

fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

/// The folders that a list names, each below the export.
fn folders(folder: &Path, list: &str) -> Vec<PathBuf> {
    let list = json(folder, list);
    let named = list["list"].as_array().unwrap().iter();
    named
        .filter_map(|one| Some(folder.join(one["folder"]["text"].as_str()?)))
        .collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// A person with a backup of `docs` and a synced folder `papers`.
fn with_all(world: &World) -> (Person, candor_client::RecoveryPhrase, PathBuf, PathBuf) {
    let (person, phrase) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    person.run().unwrap();
    let papers = world.path("papers");
    std::fs::create_dir(&papers).unwrap();
    std::fs::write(papers.join("one"), "a paper").unwrap();
    sync::add(&person, &papers);
    sync::say_yes(&person);
    sync::run(&person).unwrap();
    (person, phrase, docs, papers)
}

fn erase_backups(person: &Person) {
    let command = Command::ConsentOff {
        service: "backup".to_owned(),
        set: None,
        stored: Stored::Erased,
    };
    person.ask(command).unwrap();
}

#[test]
fn an_export_holds_everything_and_is_read_without_an_engine() {
    let world = World::new();
    let (person, _, docs, papers) = with_all(&world);
    let to = world.path("export");
    let view = export(&person, &to).unwrap();
    assert_eq!((view.snapshots, view.folders, view.problems), (1, 1, 0));
    assert_eq!((view.files, view.consents, view.receipts), (4, 2, 2));

    let all = "README.txt account.json backups backups.json chain chain.json consents.json erasures.json export.json folders folders.json ledger.jsonl log receipts";
    assert_eq!(names(&to), all.split(' ').map(str::to_owned).collect());
    let backed_up = folders(&to, "backups.json");
    assert_eq!(backed_up.len(), 1);
    assert_same(&docs, &backed_up[0].join("docs"));
    let synced = folders(&to, "folders.json");
    assert_eq!(std::fs::read(synced[0].join("one")).unwrap(), b"a paper");
    assert_eq!(names(&papers).len(), names(&synced[0]).len() + 1);

    let summary = json(&to, "export.json");
    assert_eq!(summary["exported"]["files"], 4);
    assert_eq!(summary["problems"], Value::Array(Vec::new()));
    let account = json(&to, "account.json");
    assert_eq!(account["devices"][0]["this_device"], true);

    // Receipts are valid by themselves, and say what the list of consents says.
    let consents = json(&to, "consents.json");
    for consent in consents["list"].as_array().unwrap() {
        let id = consent["id"].as_str().unwrap();
        let text = std::fs::read_to_string(to.join(format!("receipts/{id}.receipt"))).unwrap();
        let receipt = receipt::verify_receipt(&text, None).unwrap();
        assert_eq!(receipt.service, consent["service"].as_str().unwrap());
        let said = json(&to, &format!("receipts/{id}.jsonld"));
        assert!(said["@context"].is_object() || said["@context"].is_array());
    }

    // The chain verifies as it lies there.
    let cell = world.cell().address_card();
    assert_eq!(account["cell_root"], to_hex(cell.root.as_bytes()));
    let read = |name: &str| std::fs::read(to.join("chain").join(name)).unwrap();
    let mut files = names(&to.join("chain"));
    assert!(files.remove("cell-keys.cbor"));
    let keys: CellDescription = cbor::decode(&read("cell-keys.cbor")).unwrap();
    let records: Vec<Record> = files
        .iter()
        .map(|name| cbor::decode(&read(name)).unwrap())
        .collect();
    assert_eq!(records.len() as u64, view.statements);
    let listed = json(&to, "chain.json");
    for (record, said) in records.iter().zip(listed["list"].as_array().unwrap()) {
        assert_eq!(said["id"], record.commitment.to_string());
        assert!(record.acknowledgement.is_some() && said["time_ms"].is_i64());
    }
    let id = account["account"]["account"].as_str().unwrap();
    let genesis = records[0].statement.as_ref().unwrap().parse().unwrap();
    assert_eq!(genesis.entry.account.to_string(), id);
    let chain = Chain::load(&cell.root, genesis.entry.account, keys.keys, records).unwrap();
    assert_eq!(chain.view().consents().len(), 2);

    let ledger = std::fs::read_to_string(to.join("ledger.jsonl")).unwrap();
    let lines: Vec<Value> = ledger
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len() as u64, view.ledger_lines);
    assert!(
        lines
            .iter()
            .any(|line| line["ledger-line"]["service"] == "restore")
    );
    let checkpoint = std::fs::read_to_string(to.join("log/checkpoint")).unwrap();
    assert!(checkpoint.starts_with(&world.cell().keys().log_origin()));
}

#[test]
fn every_snapshot_is_exported_only_if_that_was_asked_for() {
    let world = World::new();
    let (person, _, docs, _) = with_all(&world);
    std::fs::write(docs.join("a.txt"), "changed").unwrap();
    person.run().unwrap();
    let newest = world.path("newest");
    export(&person, &newest).unwrap();
    let found = folders(&newest, "backups.json");
    assert_eq!(found.len(), 1);
    assert_same(&docs, &found[0].join("docs"));
    let list = json(&newest, "backups.json");
    assert_eq!(list["list"].as_array().unwrap().len(), 2);
    let every = world.path("every");
    person.ask(command(&every, true)).unwrap();
    let found = folders(&every, "backups.json");
    assert_eq!(found.len(), 2);
    let old = std::fs::read_to_string(found[0].join("docs/a.txt"));
    assert_eq!(old.unwrap(), "alpha");
    assert_same(&docs, &found[1].join("docs"));
}

#[test]
fn an_export_that_was_stopped_goes_on_and_one_that_is_done_is_left_alone() {
    let world = World::new();
    let (person, _, docs, _) = with_all(&world);
    let to = world.path("export");
    // A link in the place of one of the export's files leads nowhere: the link is replaced.
    let precious = world.path("precious");
    std::fs::write(&precious, "precious").unwrap();
    let cancel = Cancel::default();
    let mut stop_late = |event| {
        if matches!(&event, Event::Step { text } if text.starts_with("folders/")) {
            cancel.cancel();
        }
    };
    let stopped = person
        .engine
        .execute(command(&to, false), &mut stop_late, &cancel);
    assert_eq!(stopped.unwrap_err().kind, FailureKind::Interrupted);
    assert!(to.join("UNFINISHED.txt").exists() && !to.join("export.json").exists());
    symlink(&precious, to.join("ledger.jsonl")).unwrap();
    // What an interrupted run left of something that nobody asks for any more.
    let left = to.join("backups/docs/2020-01-01T000000Z-00000000.part");
    std::fs::create_dir_all(left.join("inside")).unwrap();
    std::fs::write(left.join("inside/half"), "half").unwrap();
    // What is there already is not written again.
    let before = |name: &str| std::fs::metadata(docs_of(&to).join(name)).unwrap();
    let ino = |name: &str| before(name).ino();
    let noise = ino("sub/noise.bin");
    let view = export(&person, &to).unwrap();
    assert_eq!((view.files, view.problems), (4, 0));
    assert!(view.bytes < 1000, "{}", view.bytes);
    assert_eq!(ino("sub/noise.bin"), noise);
    assert_same(&docs, &docs_of(&to));
    assert!(!to.join("UNFINISHED.txt").exists() && !left.exists());
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    for name in ["ledger.jsonl", "export.json", "chain/000000.cbor"] {
        let mode = std::fs::symlink_metadata(to.join(name)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    let done = export(&person, &to).unwrap_err();
    assert_eq!(done.kind, FailureKind::Usage);
}

#[test]
fn two_exports_do_not_write_to_one_folder() {
    let world = World::new();
    let (person, ..) = with_all(&world);
    let to = world.path("export");
    let mut refused = None;
    let mut try_too = |event| {
        if matches!(&event, Event::Step { .. }) && refused.is_none() {
            refused = Some(export(&person, &to).unwrap_err());
        }
    };
    let first = person
        .engine
        .execute(command(&to, false), &mut try_too, &Cancel::default());
    assert!(first.is_ok());
    let refused = refused.unwrap();
    assert!(refused.sentence.contains("another export"), "{refused:?}");
}

#[test]
fn a_vault_that_was_never_used_and_is_to_be_erased_hinders_nothing() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    erase_backups(&person);
    let view = export(&person, &world.path("export")).unwrap();
    assert_eq!((view.files, view.problems, view.receipts), (0, 0, 1));
}

#[test]
fn an_export_that_lacks_something_can_be_made_whole() {
    let world = World::new();
    let (person, ..) = with_all(&world);
    let pack = largest(&world);
    let bytes = std::fs::read(&pack).unwrap();
    std::fs::remove_file(&pack).unwrap();
    let to = world.path("export");
    let lacks = export(&person, &to).unwrap();
    assert!(lacks.problems > 0 && to.join("UNFINISHED.txt").exists());
    std::fs::write(&pack, bytes).unwrap();
    let whole = export(&person, &to).unwrap();
    assert_eq!((whole.files, whole.problems), (4, 0));
    assert!(!to.join("UNFINISHED.txt").exists());
}

/// Where the backed up folder is in an export of one snapshot.
fn docs_of(export: &Path) -> PathBuf {
    let set = export.join("backups/docs");
    let snapshot = names(&set).pop_last().unwrap();
    set.join(snapshot).join("docs")
}

#[test]
fn exports_go_to_folders_of_their_own() {
    let world = World::new();
    let (person, _, docs, papers) = with_all(&world);
    let full = world.path("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("mine"), "mine").unwrap();
    let (other, _) = world.create("stranger");
    let theirs = world.path("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(
        theirs.join("UNFINISHED.txt"),
        "Export of account 00000000000000000000000000000000\n",
    )
    .unwrap();
    let link = world.path("link");
    symlink(&docs, &link).unwrap();
    // A set that was named by a link to a folder has what is in that folder.
    let linked = world.path("linked");
    std::fs::create_dir(world.path("real")).unwrap();
    symlink(world.path("real"), &linked).unwrap();
    person.add(&linked);
    let home = person.engine.home().join("export");
    for place in [
        &full,
        &theirs,
        &docs.join("export"),
        &papers.join("deep/export"),
        &link.join("export"),
        &home,
        &linked.join("export"),
        &world.path("real/export"),
        &full.join("mine"),
        Path::new("relative"),
    ] {
        let refused = export(&person, place).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Usage, "{place:?} {refused:?}");
        assert!(refused.hint.is_some());
    }
    assert_eq!(names(&full).len(), 1);
    assert!(!docs.join("export").exists() && !papers.join("deep").exists());
    // Another account's snapshots are not in it.
    let view = export(&other, &world.path("empty")).unwrap();
    assert_eq!((view.files, view.consents, view.problems), (0, 0, 0));
}

#[test]
fn what_cannot_be_exported_is_named_and_everything_else_is_there() {
    let world = World::new();
    let (person, _) = world.create("home");
    let docs = world.path("docs");
    std::fs::create_dir_all(docs.join("sub")).unwrap();
    std::fs::write(docs.join("sub/b.txt"), "beta").unwrap();
    person.add(&docs);
    person.consent();
    person.run().unwrap();
    std::fs::write(docs.join("large"), noise(&mut 5, 3_000_000)).unwrap();
    person.run().unwrap();
    let pack = largest(&world);
    let bytes = std::fs::read(&pack).unwrap();
    std::fs::remove_file(&pack).unwrap();
    let to = world.path("export");
    let (view, events) = person.listen(command(&to, false));
    let View::Exported(view) = view.unwrap() else {
        panic!("another view")
    };
    assert!(view.problems > 0 && view.receipts == 1, "{view:?}");
    let is_large = |event: &Event| matches!(event, Event::Problem(one) if one.path.text.ends_with("docs/large"));
    assert!(events.iter().any(is_large));
    let listed = json(&to, "export.json");
    let listed = listed["problems"].as_array().unwrap();
    assert_eq!(listed.len() as u64, view.problems);
    let path = listed[0]["path"]["text"].as_str().unwrap();
    assert!(path.starts_with("backups/docs/"), "{path}");
    assert_eq!(
        std::fs::read(docs_of(&to).join("sub/b.txt")).unwrap(),
        b"beta"
    );
    // What was altered is an alarm, as in a restore, and the rest of the export is there too.
    std::fs::write(&pack, bytes).unwrap();
    flip(&pack);
    let view = export(&person, &world.path("altered")).unwrap();
    assert_eq!((view.problems, view.alarms, view.receipts), (1, 1, 1));
    assert_eq!(person.alarms().len(), 1);
}

#[test]
fn a_write_only_device_says_that_it_exports_no_files() {
    let world = World::new();
    let (_full, phrase, ..) = with_all(&world);
    let writer = world.recover_writer("writer", &phrase);
    let view = export(&writer, &world.path("export")).unwrap();
    assert_eq!((view.files, view.problems, view.receipts), (0, 1, 2));
    let listed = json(&world.path("export"), "export.json");
    let what = listed["problems"][0]["what"].as_str().unwrap();
    assert!(what.contains("write-only"), "{what}");
}

#[test]
fn what_was_withdrawn_and_erased_is_said() {
    let world = World::new();
    let (person, ..) = with_all(&world);
    erase_backups(&person);
    let view = export(&person, &world.path("export")).unwrap();
    // The cell has it still, and it can still be exported.
    assert_eq!((view.snapshots, view.problems), (1, 0));
    let erasures = json(&world.path("export"), "erasures.json");
    assert_eq!(erasures["list"][0]["state"], "asked");
    let consents = json(&world.path("export"), "consents.json");
    let list = consents["list"].as_array().unwrap();
    let states: BTreeSet<_> = list
        .iter()
        .map(|one| one["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, BTreeSet::from(["live", "withdrawn"]));
}
