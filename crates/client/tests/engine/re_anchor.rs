//! A cell that was restored from a backup, and a person who accepts what it has.

use std::path::{Path, PathBuf};

use candor_client::commands::{Command, FailureKind, ReAnchorView, ReAnchoredView, View};
use candor_wire::statement::Kind;

use crate::world::{Person, World, assert_same};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn propose(person: &Person) -> ReAnchorView {
    match person.ask(Command::ReAnchorPropose).unwrap() {
        View::ReAnchor(view) => view,
        other => panic!("{other:?}"),
    }
}

fn accept(person: &Person, token: &str) -> ReAnchoredView {
    let token = token.to_owned();
    match person.ask(Command::ReAnchorAccept { token }).unwrap() {
        View::ReAnchored(view) => view,
        other => panic!("{other:?}"),
    }
}

/// A person with a backup, a copy of the cell's store, and a second snapshot and a second consent that
/// the copy does not have.
fn with_something_to_lose(world: &World) -> (Person, PathBuf, PathBuf) {
    let (person, _) = world.create("home");
    let tree = world.tree("tree");
    person.add(&tree);
    person.consent();
    person.run().unwrap();
    person.ask(Command::LogMonitor).unwrap();
    let kept = world.path("kept");
    copy(&world.path("cell/store"), &kept);
    std::fs::write(tree.join("later.txt"), "later").unwrap();
    person.run().unwrap();
    let papers = world.path("papers");
    std::fs::create_dir(&papers).unwrap();
    std::fs::write(papers.join("note.txt"), "note").unwrap();
    person.add(&papers);
    person.consent();
    person.run().unwrap();
    person.ask(Command::LogMonitor).unwrap();
    assert_eq!(person.alarms(), Vec::<String>::new());
    (person, kept, tree)
}

#[test]
fn a15_a_restored_cell_is_refused_until_a_person_accepts_what_it_has() {
    let mut world = World::new();
    let (person, kept, tree) = with_something_to_lose(&world);
    let home = person.engine.home().to_owned();
    drop(person);
    let begun = world.put_cell_back(&kept);
    assert_eq!(begun.number, 2);
    let person = Person {
        engine: world.open(&home).unwrap(),
    };
    let sets = vec!["tree".to_owned()];
    let failure = person
        .ask(Command::BackupRun { sets: sets.clone() })
        .unwrap_err();
    let memory = std::fs::read(home.join("memory")).unwrap();
    person.ask(Command::BackupRun { sets }).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity);
    assert!(failure.hint.unwrap().contains("candor account re-anchor"));
    assert_eq!(std::fs::read(home.join("memory")).unwrap(), memory);
    assert!(!person.alarms().is_empty());

    // What was lost, in words; looking changes nothing.
    let shown = propose(&person);
    assert!(shown.is_older && shown.comes_back);
    let kinds: Vec<&str> = shown.lost.iter().map(|lost| lost.kind.as_str()).collect();
    assert_eq!(kinds, ["a new key", "a consent"]);
    let heads: Vec<_> = shown
        .heads
        .iter()
        .map(|head| (head.set.as_deref(), head.before, head.now))
        .collect();
    assert!(heads.contains(&(Some("tree"), 2, 1)) && heads.contains(&(Some("papers"), 1, 0)));
    assert_eq!(std::fs::read(home.join("memory")).unwrap(), memory);
    // A yes to something else is none.
    let token = "0".repeat(32);
    let refused = person.ask(Command::ReAnchorAccept { token }).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Failed);
    assert_eq!(std::fs::read(home.join("memory")).unwrap(), memory);

    let accepted = accept(&person, &shown.token);
    assert_eq!((accepted.brought_back, accepted.given_up), (2, 0));
    assert!(
        home.join(accepted.evidence.strip_prefix("kept in ").unwrap())
            .exists()
    );
    // Work goes on, the second set's consent too; what was lost is sent again, and comes back.
    person.run().unwrap();
    person.ask(Command::LogMonitor).unwrap();
    person.restore("tree:latest", &world.path("back")).unwrap();
    assert_same(&tree, &world.path("back/tree"));
    let View::Consents(history) = person.ask(Command::ConsentHistory).unwrap() else {
        panic!("another view")
    };
    assert_eq!(
        history
            .iter()
            .filter(|consent| consent.state == "live")
            .count(),
        2
    );
    // Nothing is left to accept, also after a restart; the acceptance stands on the chain.
    let person = world.reopen(person);
    assert!(!propose(&person).is_older);
    let again = person
        .ask(Command::ReAnchorAccept { token: shown.token })
        .unwrap_err();
    assert_eq!(again.kind, FailureKind::Usage);
    assert_eq!(
        world
            .kinds(&person)
            .iter()
            .filter(|kind| **kind == Kind::ReAnchored)
            .count(),
        1
    );
    person.ask(Command::LogMonitor).unwrap();
}

/// A second device of the account, whose memory is newer than what the first one accepted, is asked too.
#[test]
fn every_device_asks_its_own_person() {
    let mut world = World::new();
    let (first, phrase) = world.create("home");
    first.add(&world.tree("tree"));
    first.consent();
    first.run().unwrap();
    let second = world.recover("second", &phrase).unwrap();
    let kept = world.path("kept");
    copy(&world.path("cell/store"), &kept);
    std::fs::write(world.path("tree/later.txt"), "later").unwrap();
    first.run().unwrap();
    second.restore("latest", &world.path("back")).unwrap();
    let homes = [
        first.engine.home().to_owned(),
        second.engine.home().to_owned(),
    ];
    drop((first, second));
    world.put_cell_back(&kept);
    let [first, second] = homes.map(|home| Person {
        engine: world.open(&home).unwrap(),
    });
    let shown = propose(&first);
    accept(&first, &shown.token);
    first.run().unwrap();
    // The first run made the head as new as the second device's memory, and it is another one.
    let failure = second.restore("latest", &world.path("back-2")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity);
    let shown = propose(&second);
    assert!(shown.is_older);
    accept(&second, &shown.token);
    second.restore("latest", &world.path("back-2")).unwrap();
    assert_same(&world.path("tree"), &world.path("back-2/tree"));
}

#[test]
fn a_cell_that_lost_nothing_needs_no_acceptance() {
    let world = World::new();
    let (person, _) = world.create("home");
    let shown = propose(&person);
    assert!(!shown.is_older && shown.lost.is_empty() && shown.heads.is_empty());
    let refused = person
        .ask(Command::ReAnchorAccept { token: shown.token })
        .unwrap_err();
    assert_eq!(refused.kind, FailureKind::Usage);
    assert!(!world.kinds(&person).contains(&Kind::ReAnchored));
}
