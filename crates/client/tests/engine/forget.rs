//! Forgetting, bringing back, and pruning, with a real cell.

use std::path::{Path, PathBuf};

use candor_client::commands::{
    Command, FailureKind, ForgottenView, Keep, PrunedView, SnapshotView, View,
};

use crate::world::{Person, World, assert_same};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn forget(person: &Person, snapshots: &[&str], keep: Keep, dry_run: bool) -> ForgottenView {
    let command = Command::BackupForget {
        snapshots: snapshots.iter().map(|&id| id.to_owned()).collect(),
        set: None,
        keep,
        dry_run,
    };
    match person.ask(command).unwrap() {
        View::Forgotten(view) => view,
        other => panic!("{other:?}"),
    }
}

fn prune(person: &Person) -> PrunedView {
    let command = Command::BackupPrune {
        set: None,
        max_unused_percent: candor_client::MAX_UNUSED_PERCENT,
    };
    match person.ask(command).unwrap() {
        View::Pruned(view) => view,
        other => panic!("{other:?}"),
    }
}

fn forgotten(person: &Person) -> Vec<SnapshotView> {
    match person.ask(Command::BackupForgotten).unwrap() {
        View::Forgotten(view) => view.snapshots,
        other => panic!("{other:?}"),
    }
}

fn snapshots(person: &Person) -> Vec<SnapshotView> {
    match person.ask(Command::BackupSnapshots { set: None }).unwrap() {
        View::Snapshots(list) => list,
        other => panic!("{other:?}"),
    }
}

fn check(person: &Person) {
    let View::Checked(checked) = person
        .ask(Command::BackupCheck {
            read_data: true,
            repair: false,
        })
        .unwrap()
    else {
        panic!("another view")
    };
    assert_eq!((checked.damaged, checked.affected), (vec![], vec![]));
}

/// The bytes of the files in the cell's directory of objects.
fn on_disk(world: &World) -> u64 {
    fn bytes(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let each = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
            true => bytes(&entry.path()),
            false => entry.metadata().unwrap().len(),
        });
        each.sum()
    }
    bytes(&world.path("cell/store/objects"))
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut out);
    out
}

/// A set with two snapshots: the first has a large file that the second has not.
fn with_history(world: &World) -> (Person, PathBuf, candor_client::RecoveryPhrase) {
    let (person, phrase) = world.create("home");
    let tree = world.tree("tree");
    std::fs::write(tree.join("large"), noise(1, 30_000_000)).unwrap();
    person.add(&tree);
    person.consent();
    person.run().unwrap();
    std::fs::remove_file(tree.join("large")).unwrap();
    world.clock.forward_ms(60_000);
    std::fs::write(tree.join("later"), "later").unwrap();
    person.run().unwrap();
    (person, tree, phrase)
}

/// Time passes, and the cell looks what is due: it does when it starts, too.
fn let_days_pass(world: &mut World, days: i64) {
    world.clock.forward_ms(days * DAY_MS);
    world.cell_clock.forward_ms(days * DAY_MS);
    world.stop_cell();
    world.start_cell();
}

/// The cell looks what is due when it starts, beside what it is asked: less than so many bytes are left then.
fn wait_until_gone(world: &World, bytes: u64) {
    for _ in 0..400 {
        if on_disk(world) < bytes {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{} of {bytes} bytes are left", on_disk(world));
}

#[test]
fn what_was_forgotten_and_pruned_is_gone_from_the_cell_after_the_retention_window() {
    let mut world = World::new();
    let (person, tree, _) = with_history(&world);
    let keep = Keep {
        last: 1,
        ..Keep::default()
    };
    let would = forget(&person, &[], keep, true);
    assert_eq!((would.snapshots.len(), would.left), (1, 1));
    assert_eq!(snapshots(&person).len(), 2, "nothing was done");
    let done = forget(&person, &[], keep, false);
    assert_eq!(done.snapshots, would.snapshots);
    assert_eq!(snapshots(&person).len(), 1);
    let before = on_disk(&world);
    let pruned = prune(&person);
    assert!(pruned.bytes_gone > 30_000_000, "{pruned:?}");
    assert_eq!(pruned.retention_days, 30);
    assert!(on_disk(&world) >= before, "it waits");
    let again = prune(&person);
    assert_eq!((again.packs_gone, again.orphans), (0, 0), "{again:?}");
    let_days_pass(&mut world, 29);
    assert!(on_disk(&world) >= before);
    let_days_pass(&mut world, 2);
    wait_until_gone(&world, before - 29_000_000);
    check(&person);
    person.restore("latest", &world.path("back")).unwrap();
    assert_same(&tree, &world.path("back/tree"));
    assert_eq!(forgotten(&person), []);
    // The next run goes on.
    std::fs::write(tree.join("even later"), "even later").unwrap();
    person.run().unwrap();
    check(&person);
    assert_eq!(person.alarms(), Vec::<String>::new());
}

/// Somebody has a full device, and forgets and prunes everything that it can. Another device of the account
/// brings it back within the window.
#[test]
fn a21_deletions_wait_and_can_be_undone_until_the_window_is_over() {
    let mut world = World::new();
    let (person, _, _) = with_history(&world);
    let listed = snapshots(&person);
    let old = &listed[0].snapshot;
    let gone = forget(&person, &[&old[..8]], Keep::default(), false);
    assert_eq!(gone.snapshots.len(), 1);
    prune(&person);
    person.restore(old, &world.path("nothing")).unwrap_err();
    let is_told = |text: &String| text.contains("taken off the list");
    let warnings = person.status().warnings;
    assert!(
        !warnings.iter().any(is_told),
        "its own doing is no news: {warnings:?}"
    );
    let_days_pass(&mut world, 20);
    person.consent();
    let found = forgotten(&person);
    assert_eq!(found.len(), 1);
    assert_eq!(&found[0].snapshot, old);
    let undo = Command::BackupUnforget {
        snapshots: vec![old.clone()],
    };
    person.ask(undo.clone()).unwrap();
    assert_eq!(snapshots(&person).len(), 2);
    let before = on_disk(&world);
    let_days_pass(&mut world, 20);
    // The manifests that listed it before are gone then.
    wait_until_gone(&world, before);
    check(&person);
    person.restore(old, &world.path("back")).unwrap();
    let large = std::fs::read(world.path("back/tree/large")).unwrap();
    assert!(large == noise(1, 30_000_000));
    let missing = person.ask(undo).unwrap_err();
    assert_eq!(missing.kind, FailureKind::Failed, "{missing:?}");
}

#[test]
fn nothing_is_forgotten_or_pruned_without_consent_or_by_a_slip() {
    let world = World::new();
    let (person, _, _) = with_history(&world);
    let command = |snapshots: &[&str], keep| Command::BackupForget {
        snapshots: snapshots.iter().map(|&id| id.to_owned()).collect(),
        set: None,
        keep,
        dry_run: false,
    };
    let one = Keep {
        last: 1,
        ..Keep::default()
    };
    use FailureKind::{Failed, Usage};
    for (snapshots, keep, kind) in [
        (&[][..], Keep::default(), Usage),
        (&["latest"][..], one, Usage),
        (&["no id"][..], Keep::default(), Usage),
        (&["ffffffffffff"][..], Keep::default(), Failed),
    ] {
        let refused = person.ask(command(snapshots, keep)).unwrap_err();
        assert_eq!(refused.kind, kind, "{snapshots:?} {refused:?}");
    }
    assert_eq!(snapshots(&person).len(), 2);
    person.off().unwrap();
    let puts = world.wire.paths("PUT");
    let prune = Command::BackupPrune {
        set: None,
        max_unused_percent: 10,
    };
    for refused in [command(&[], one), prune, Command::BackupForgotten] {
        let refused = person.ask(refused).unwrap_err();
        assert_eq!(refused.kind, FailureKind::NoConsent);
    }
    assert_eq!(world.wire.paths("PUT"), puts);
}

/// Each device has its own sets, and their vaults; what they share is the account. Both prune at once.
#[test]
fn two_devices_prune_their_own_sets_and_leave_each_other_alone() {
    let world = World::new();
    let (first, tree, phrase) = with_history(&world);
    let second = world.recover("second", &phrase).unwrap();
    let papers = world.path("papers");
    std::fs::create_dir(&papers).unwrap();
    std::fs::write(papers.join("note"), "note").unwrap();
    second.add(&papers);
    second.consent();
    second.run().unwrap();
    let keep = Keep {
        last: 1,
        ..Keep::default()
    };
    forget(&first, &[], keep, false);
    std::thread::scope(|scope| {
        scope.spawn(|| prune(&first));
        scope.spawn(|| prune(&second));
    });
    check(&first);
    check(&second);
    second.restore("tree:latest", &world.path("back")).unwrap();
    assert_same(&tree, &world.path("back/tree"));
    first.ask(Command::ConsentHistory).unwrap();
    first
        .restore("papers:latest", &world.path("back-2"))
        .unwrap();
    assert_same(&papers, &world.path("back-2/papers"));
}

/// Somebody copied the whole home of a device, keys and all, and forgets its snapshots from elsewhere: the signatures
/// are the device's own. It tells its person all the same.
#[test]
fn a21_what_somebody_else_takes_off_the_list_is_told() {
    // The newest one, too, which this device has made itself and never saw again.
    for place in [0, 1] {
        let world = World::new();
        let (person, _, _) = with_history(&world);
        let home = person.engine.home().to_owned();
        drop(person);
        let stolen = world.path("stolen");
        crate::re_anchor::copy(&home, &stolen);
        let thief = Person {
            engine: world.open(&stolen).unwrap(),
        };
        let there = snapshots(&thief);
        assert_eq!(there.len(), 2);
        forget(&thief, &[&there[place].snapshot], Keep::default(), false);
        drop(thief);
        let person = Person {
            engine: world.open(&home).unwrap(),
        };
        let is_told =
            |text: &String| text.starts_with("1 snapshots of tree were taken off the list");
        assert!(
            !person.status().warnings.iter().any(is_told),
            "it does not know yet"
        );
        person.run().unwrap();
        let status = person.status();
        assert!(status.warnings.iter().any(is_told), "{:?}", status.warnings);
        let found = forgotten(&person);
        let undo = Command::BackupUnforget {
            snapshots: vec![found[0].snapshot.clone()],
        };
        let listed = snapshots(&person).len();
        person.ask(undo).unwrap();
        assert_eq!(snapshots(&person).len(), listed + 1);
        check(&person);
    }
}

/// The copy of a cell's store still condemns what was rescued since, and its window is over when it is put back.
#[test]
fn what_was_rescued_is_not_deleted_by_a_cell_that_forgot_it() {
    let mut world = World::new();
    let (person, tree, _) = with_history(&world);
    let old = snapshots(&person)[0].snapshot.clone();
    forget(&person, &[&old], Keep::default(), false);
    prune(&person);
    let_days_pass(&mut world, 28);
    let kept = world.path("kept");
    world.stop_cell();
    crate::re_anchor::copy(&world.path("cell/store"), &kept);
    world.start_cell();
    let undo = Command::BackupUnforget {
        snapshots: vec![old.clone()],
    };
    person.ask(undo.clone()).unwrap();
    std::fs::write(tree.join("after"), "after").unwrap();
    person.run().unwrap();
    world.clock.forward_ms(3 * DAY_MS);
    world.cell_clock.forward_ms(3 * DAY_MS);
    world.put_cell_back(&kept);
    let View::ReAnchor(shown) = person.ask(Command::ReAnchorPropose).unwrap() else {
        panic!("another view")
    };
    let token = shown.token;
    person.ask(Command::ReAnchorAccept { token }).unwrap();
    person.consent();
    person.run().unwrap();
    // The cell signed, and looks every second what is due.
    person.ask(Command::LogMonitor).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    // It is forgotten again, as it was in the copy, and can be brought back again.
    person.ask(undo).unwrap();
    check(&person);
    person.restore(&old, &world.path("back")).unwrap();
    let large = std::fs::read(world.path("back/tree/large")).unwrap();
    assert!(large == noise(1, 30_000_000));
}
