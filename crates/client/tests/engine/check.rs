//! Checks, repairs and drills, against a cell whose disk lost or changed something.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use candor_client::commands::{CheckView, Command, DrillView, FailureKind, View};

use crate::world::{Person, World, assert_same, noise};

fn check(person: &Person, repair: bool) -> CheckView {
    let command = Command::BackupCheck {
        read_data: true,
        repair,
    };
    match person.ask(command).unwrap() {
        View::Checked(view) => view,
        other => panic!("{other:?}"),
    }
}

fn objects(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            objects(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// A folder with a file that lies in an object of its own size.
fn with_large(world: &World) -> PathBuf {
    let tree = world.tree("docs");
    std::fs::write(tree.join("large"), noise(&mut 5, 3_000_000)).unwrap();
    tree
}

/// The largest object of the cell: contents of files.
pub(crate) fn largest(world: &World) -> PathBuf {
    let mut found = Vec::new();
    objects(&world.path("cell/store/objects"), &mut found);
    let size = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
    found.into_iter().max_by_key(size).unwrap()
}

pub(crate) fn flip(object: &Path) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(object)
        .unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[!byte[0]], middle).unwrap();
}

#[test]
fn a_damaged_pack_loses_only_what_was_in_it_and_comes_back() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let tree = with_large(&world);
    person.add(&tree);
    person.consent();
    person.run().unwrap();
    flip(&largest(&world));
    let found = check(&person, false);
    assert_eq!((found.damaged.len(), found.repaired), (1, 0));
    let paths: Vec<&str> = found.affected.iter().map(|one| &*one.text).collect();
    assert!(paths.contains(&"docs/large"), "{paths:?}");
    assert_eq!(check(&person, true).repaired, 1);
    let left = check(&person, true);
    assert_eq!((left.damaged.len(), left.repaired), (0, 0));
    assert_eq!(left.affected, found.affected, "they lack what was in it");
    // Nothing changed in the folder; what is missing is sent again all the same.
    person.run().unwrap();
    let sound = check(&person, false);
    assert!(sound.damaged.is_empty() && sound.affected.is_empty());
    let second = world.recover("second", &phrase).unwrap();
    second.restore("latest", &world.path("back")).unwrap();
    assert_same(&tree, &world.path("back/docs"));
}

#[test]
fn a_missing_object_is_repaired_too_and_only_with_consent() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let tree = with_large(&world);
    person.add(&tree);
    person.consent();
    person.run().unwrap();
    let lost = largest(&world);
    let other = world.recover("other", &phrase).unwrap();
    person.off().unwrap();
    std::fs::remove_file(&lost).unwrap();
    for device in [&person, &other] {
        let found = check(device, true);
        assert_eq!((found.damaged.len(), found.repaired), (1, 0));
    }
    person.consent();
    assert_eq!(check(&person, true).repaired, 1);
    person.run().unwrap();
    other.restore("latest", &world.path("back")).unwrap();
    assert_same(&tree, &world.path("back/docs"));
    let refused = other.run().unwrap_err();
    assert_ne!(refused.kind, FailureKind::Integrity, "{refused:?}");
}

fn drill(person: &Person, files: u32, quick: bool) -> DrillView {
    let command = Command::BackupDrill {
        sets: Vec::new(),
        files,
        quick,
    };
    match person.ask(command).unwrap() {
        View::Drilled(mut views) if views.len() == 1 => views.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_drill_restores_and_compares_and_leaves_nothing_behind() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let tree = world.tree("docs");
    let early = Command::BackupDrill {
        sets: Vec::new(),
        files: 3,
        quick: false,
    };
    person.add(&tree);
    person.consent();
    assert_eq!(person.ask(early).unwrap_err().kind, FailureKind::Failed);
    for n in 0..30 {
        std::fs::write(tree.join(format!("{n}.txt")), format!("number {n}")).unwrap();
    }
    person.run().unwrap();
    assert_eq!(person.status().sets[0].last_drill_ms, None);
    let done = drill(&person, 12, false);
    assert_eq!((done.files, done.equal, done.changed), (12, 12, 0));
    assert!(done.different.is_empty() && done.bytes > 0);
    assert_eq!(drill(&person, 3, true).equal, 3);
    assert!(person.status().sets[0].last_drill_ms.is_some());
    // What changed since is no finding.
    for n in 0..30 {
        std::fs::write(tree.join(format!("{n}.txt")), "another length").unwrap();
    }
    let done = drill(&person, 1_000, false);
    assert!(done.changed >= 30 && done.different.is_empty(), "{done:?}");
    assert_eq!(done.files, done.equal + done.changed);
    assert_eq!(
        std::fs::read_dir(world.path("home/scratch"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(person.alarms(), Vec::<String>::new());
    // A device with no sets of its own has nothing to compare.
    let other = world.recover("other", &phrase).unwrap();
    let nothing = other.ask(Command::BackupDrill {
        sets: vec!["docs".to_owned()],
        files: 3,
        quick: false,
    });
    assert_eq!(nothing.unwrap_err().kind, FailureKind::Usage);
}

/// A disk that changes a file without anybody writing to it, and a cell that changed what it keeps.
#[test]
fn a_drill_finds_what_changed_by_itself_on_either_side() {
    let world = World::new();
    let (person, _) = world.create("home");
    let tree = with_large(&world);
    person.add(&tree);
    person.consent();
    person.run().unwrap();
    let large = tree.join("large");
    let modified = std::fs::metadata(&large).unwrap().modified().unwrap();
    flip(&large);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&large)
        .unwrap();
    file.set_modified(modified).unwrap();
    let done = drill(&person, 1_000, false);
    let paths: Vec<&str> = done.different.iter().map(|one| &*one.text).collect();
    assert_eq!(paths, ["docs/large"]);
    assert_eq!(person.alarms().len(), 1);
    assert_eq!(person.status().sets[0].last_drill_ms, None);
    flip(&largest(&world));
    let failure = person
        .ask(Command::BackupDrill {
            sets: Vec::new(),
            files: 1_000,
            quick: false,
        })
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    assert_eq!(person.alarms().len(), 2);
    assert_eq!(
        std::fs::read_dir(world.path("home/scratch"))
            .unwrap()
            .count(),
        0
    );
}
