//! A cell that was restored from a backup, and a person who accepts what it has.

use std::path::{Path, PathBuf};

use candor_client::commands::{Command, FailureKind, ReAnchorView, ReAnchoredView, Stored, View};
use candor_client::memory::Memory;
use candor_wire::api::ErrorCode;
use candor_wire::statement::Kind;

use crate::lying_log::{refusal, reply};
use crate::world::{Person, World, assert_same};

pub(crate) fn copy(from: &Path, to: &Path) {
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
    assert!(shown.is_older);
    assert_eq!(shown.offered, shown.lost.len() as u64);
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
    // It was lowered to what was shown, and no further: less than that is refused as before.
    let cell = world.cell().id();
    let lowered = Memory::open(&home.join("memory"), cell).unwrap();
    let heads = shown
        .heads
        .iter()
        .map(|head| (head.vault.clone(), head.now));
    for (vault, now) in heads {
        let remembered = lowered
            .heads()
            .into_iter()
            .map(|head| (head.vault.to_string(), head.counter));
        let remembered = remembered
            .filter(|(name, _)| *name == vault)
            .map(|(_, counter)| counter);
        assert_eq!(
            remembered.collect::<Vec<_>>(),
            Vec::from_iter((now > 0).then_some(now))
        );
    }
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

/// A machine that was put back as a whole goes on with its log under the same name. No person's yes takes
/// that over: it is what an attack looks like, and one command of whoever runs the cell tells the two apart.
#[test]
fn a15_a_smaller_log_of_the_same_name_is_never_accepted() {
    let mut world = World::new();
    let (person, tree) = {
        let (person, _) = world.create("home");
        let tree = world.tree("tree");
        person.add(&tree);
        person.consent();
        person.run().unwrap();
        person.ask(Command::LogMonitor).unwrap();
        (person, tree)
    };
    let cell = world.path("cell");
    world.stop_cell();
    let kept = world.path("kept");
    copy(&cell, &kept);
    world.start_cell();
    std::fs::write(tree.join("later.txt"), "later").unwrap();
    person.run().unwrap();
    person.ask(Command::LogMonitor).unwrap();
    world.stop_cell();
    std::fs::remove_dir_all(&cell).unwrap();
    copy(&kept, &cell);
    world.start_cell();
    let memory = std::fs::read(person.engine.home().join("memory")).unwrap();
    let refused = person.ask(Command::ReAnchorPropose).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Integrity);
    assert!(refused.hint.unwrap().contains("candor server re-anchor"));
    assert_eq!(
        std::fs::read(person.engine.home().join("memory")).unwrap(),
        memory
    );
    // Once the cell says that it was put back, there is a way on.
    world.stop_cell();
    let place = world.path("cell");
    world
        .runtime
        .block_on(candor_server::begin_log_anew(&place))
        .unwrap();
    world.start_cell();
    let shown = propose(&person);
    assert!(shown.is_older && shown.log_now.is_some());
    accept(&person, &shown.token);
    person.run().unwrap();
    person.ask(Command::LogMonitor).unwrap();
}

/// The cell lost a withdrawal, and its chain went on without it: it cannot be brought back, and holds.
#[test]
fn a_withdrawal_that_a_restored_cell_lost_goes_on_holding() {
    let mut world = World::new();
    let (first, phrase) = world.create("home");
    first.add(&world.tree("tree"));
    first.consent();
    first.run().unwrap();
    let second = world.recover("second", &phrase).unwrap();
    let kept = world.path("kept");
    copy(&world.path("cell/store"), &kept);
    first
        .ask(Command::ConsentOff {
            service: "backup".to_owned(),
            set: None,
            stored: Stored::Stays,
        })
        .unwrap();
    world.put_cell_back(&kept);
    let papers = world.path("papers");
    std::fs::create_dir(&papers).unwrap();
    std::fs::write(papers.join("note.txt"), "note").unwrap();
    second.add(&papers);
    second.consent();
    let shown = propose(&first);
    assert_eq!((shown.lost.len(), shown.offered), (1, 0));
    let accepted = accept(&first, &shown.token);
    assert_eq!((accepted.brought_back, accepted.given_up), (0, 1));
    let View::Consents(consents) = first.ask(Command::ConsentList).unwrap() else {
        panic!("another view")
    };
    assert!(!consents.is_empty());
    assert!(consents.iter().all(|consent| consent.state == "withdrawn"));
    // The cell was told, too.
    let kinds = world.kinds(&first);
    let accepted = kinds.iter().position(|kind| *kind == Kind::ReAnchored);
    let told = kinds
        .iter()
        .position(|kind| *kind == Kind::ConsentWithdrawn);
    assert!(told.unwrap() > accepted.unwrap());
}

/// A person who read that something comes back did not agree to lose it.
#[test]
fn what_the_cell_declines_to_take_back_is_asked_again() {
    let mut world = World::new();
    let (person, kept, _) = with_something_to_lose(&world);
    world.put_cell_back(&kept);
    let shown = propose(&person);
    assert_eq!((shown.lost.len(), shown.offered), (2, 2));
    world.wire.answer(|request| {
        let is_append = request.method() == "POST" && request.uri().path().ends_with("/chain");
        is_append.then(|| Ok(refusal(ErrorCode::Chain)))
    });
    let memory = std::fs::read(person.engine.home().join("memory")).unwrap();
    let token = shown.token;
    let declined = person.ask(Command::ReAnchorAccept { token }).unwrap_err();
    assert_eq!(declined.kind, FailureKind::Failed);
    assert!(declined.hint.unwrap().contains("candor account re-anchor"));
    assert_eq!(
        std::fs::read(person.engine.home().join("memory")).unwrap(),
        memory
    );
    world.wire.honest();
    let shown = propose(&person);
    assert_eq!((shown.lost.len(), shown.offered), (2, 0));
    let accepted = accept(&person, &shown.token);
    assert_eq!((accepted.brought_back, accepted.given_up), (0, 2));
    person.ask(Command::LogMonitor).unwrap();
}

/// A log that is shown for reading and another one for accepting are not the same yes.
#[test]
fn a15_a_new_log_has_to_go_on_from_the_one_that_was_read() {
    let mut world = World::new();
    let (person, kept, _) = with_something_to_lose(&world);
    world.put_cell_back(&kept);
    propose(&person);
    let young = world.log_file("checkpoint").unwrap();
    // The account's next statement makes the log larger.
    let second = world.create("another").0;
    drop(second);
    let shown = loop {
        let shown = propose(&person);
        if world.log_file("checkpoint").unwrap() != young {
            break propose(&person);
        }
        assert!(shown.is_older);
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    world.wire.answer(move |request| {
        (request.uri().path() == "/log/checkpoint").then(|| Ok(reply(200, young.clone())))
    });
    let memory = std::fs::read(person.engine.home().join("memory")).unwrap();
    let token = shown.token.clone();
    let refused = person.ask(Command::ReAnchorAccept { token }).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Integrity);
    // Nor is no log at all a new one.
    world.wire.answer(|request| {
        (request.uri().path() == "/log/checkpoint").then(|| Ok(refusal(ErrorCode::NotFound)))
    });
    let token = shown.token.clone();
    let refused = person.ask(Command::ReAnchorAccept { token }).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Integrity);
    assert_eq!(
        std::fs::read(person.engine.home().join("memory")).unwrap(),
        memory
    );
    world.wire.honest();
    accept(&person, &shown.token);
    person.ask(Command::LogMonitor).unwrap();
}

/// The same backup is put back twice. The second time it loses what was accepted the first time.
#[test]
fn what_was_accepted_once_can_be_lost_and_accepted_again() {
    let mut world = World::new();
    let (person, kept, _) = with_something_to_lose(&world);
    let again = world.path("kept-again");
    copy(&kept, &again);
    world.put_cell_back(&kept);
    let shown = propose(&person);
    accept(&person, &shown.token);
    person.run().unwrap();
    person.ask(Command::LogMonitor).unwrap();
    world.put_cell_back(&again);
    let shown = propose(&person);
    let kinds: Vec<&str> = shown.lost.iter().map(|lost| lost.kind.as_str()).collect();
    assert!(kinds.contains(&"an older state was accepted"));
    let accepted = accept(&person, &shown.token);
    assert_eq!(accepted.given_up, 0);
    person.run().unwrap();
    person.ask(Command::LogMonitor).unwrap();
    let kinds = world.kinds(&person);
    let accepted = kinds.iter().filter(|kind| **kind == Kind::ReAnchored);
    assert_eq!(accepted.count(), 2);
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

fn off_everywhere(person: &Person) {
    let off = Command::ConsentOff {
        service: "backup".to_owned(),
        set: None,
        stored: Stored::Stays,
    };
    person.ask(off).unwrap();
}

fn states(person: &Person) -> Vec<String> {
    let View::Consents(consents) = person.ask(Command::ConsentHistory).unwrap() else {
        panic!("another view")
    };
    consents.into_iter().map(|consent| consent.state).collect()
}

/// A device that joined after the backup was made is the only one that knows of a no, and the cell does not
/// know the device.
#[test]
fn a15_a_no_outlives_a_cell_that_forgot_who_said_it() {
    let mut world = World::new();
    let (first, phrase) = world.create("home");
    first.add(&world.tree("tree"));
    first.consent();
    first.run().unwrap();
    let kept = world.path("kept");
    copy(&world.path("cell/store"), &kept);
    let second = world.recover("second", &phrase).unwrap();
    let papers = world.path("papers");
    std::fs::create_dir(&papers).unwrap();
    std::fs::write(papers.join("note.txt"), "note").unwrap();
    second.add(&papers);
    second.consent();
    second.run().unwrap();
    off_everywhere(&second);
    world.put_cell_back(&kept);
    // The first device knew nothing of all that, and goes on.
    let shown = propose(&first);
    assert!(shown.is_older && shown.lost.is_empty());
    accept(&first, &shown.token);
    assert_eq!(states(&first), ["live"]);

    let forgotten = second.ask(Command::ReAnchorPropose).unwrap_err();
    assert_eq!(forgotten.kind, FailureKind::Integrity);
    assert!(forgotten.hint.unwrap().contains("candor account recover"));
    let memory = std::fs::read(second.engine.home().join("memory")).unwrap();
    drop(second);
    // Nobody else's words do it.
    let other = candor_client::engine::draw_phrase(&candor_client::SystemEntropy).unwrap();
    let refused = world.recover("second", &other).err().unwrap();
    assert_eq!(refused.kind, FailureKind::Usage);
    let second = world.recover("second", &phrase).unwrap();
    let home = second.engine.home();
    assert!(home.join("former-1/keys").exists() && home.join("former-1/ledger").exists());
    // What it saw is still remembered, and a person asked.
    assert_eq!(std::fs::read(home.join("memory")).unwrap(), memory);
    assert_eq!(second.run().unwrap_err().kind, FailureKind::NoConsent);
    let shown = propose(&second);
    assert!(
        shown
            .lost
            .iter()
            .any(|lost| lost.kind == "a withdrawal of consent")
    );
    assert!(
        shown
            .heads
            .iter()
            .any(|head| head.before == 1 && head.now == 0)
    );
    accept(&second, &shown.token);
    assert_eq!(states(&first), ["withdrawn"]);
    assert_eq!(first.run().unwrap_err().kind, FailureKind::NoConsent);
    // Its folder is there, and goes on under a new yes.
    let [set] = second.status().sets.try_into().unwrap();
    assert_ne!(set.consent, "on");
    second.consent();
    second.run().unwrap();
    second
        .restore("papers:latest", &world.path("back"))
        .unwrap();
    assert_same(&papers, &world.path("back/papers"));
}

#[test]
fn a_device_that_the_cell_knows_does_not_join_twice() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let home = person.engine.home().to_owned();
    drop(person);
    let keys = std::fs::read(home.join("keys")).unwrap();
    let refused = world.recover("home", &phrase).err().unwrap();
    assert_eq!(refused.kind, FailureKind::Usage);
    assert!(refused.sentence.contains("the cell knows it"));
    assert_eq!(std::fs::read(home.join("keys")).unwrap(), keys);
    assert!(!home.join("former-1").exists());
}

#[test]
fn a_home_without_its_keys_joins_anew_and_keeps_its_folders() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let tree = world.tree("tree");
    person.add(&tree);
    person.consent();
    person.run().unwrap();
    let home = person.engine.home().to_owned();
    drop(person);
    std::fs::remove_file(home.join("keys")).unwrap();
    // Nor is a new account mixed with what is left of the old one.
    let other = candor_client::engine::draw_phrase(&candor_client::SystemEntropy).unwrap();
    let new = candor_client::engine::create_account(world.params("home", world.invite()), &other);
    assert_eq!(new.err().unwrap().kind, FailureKind::Usage);
    let person = world.recover("home", &phrase).unwrap();
    assert_eq!(person.status().sets.len(), 1);
    person.consent();
    person.run().unwrap();
    person.restore("latest", &world.path("back")).unwrap();
    assert_same(&tree, &world.path("back/tree"));
    assert_eq!(person.alarms(), Vec::<String>::new());
}

/// The cell is out of reach just when a device joins anew, once with its database and once without: what it
/// remembers stays, and the next try goes on.
#[test]
fn joining_anew_can_be_tried_again() {
    for loses_database in [false, true] {
        let mut world = World::new();
        let (first, phrase) = world.create("home");
        first.add(&world.tree("tree"));
        first.consent();
        first.run().unwrap();
        let kept = world.path("kept");
        copy(&world.path("cell/store"), &kept);
        let second = world.recover("second", &phrase).unwrap();
        second.ask(Command::ConsentHistory).unwrap();
        let home = second.engine.home().to_owned();
        drop(second);
        world.put_cell_back(&kept);
        if loses_database {
            for name in ["device.sqlite", "device.sqlite-wal", "device.sqlite-shm"] {
                let _ = std::fs::remove_file(home.join(name));
            }
        }
        let memory = std::fs::read(home.join("memory")).unwrap();
        // It answers that it does not know the device, finds the account, and then goes away.
        world.wire.answer(|request| {
            let is_append = request.method() == "POST" && request.uri().path().ends_with("/chain");
            is_append.then(|| Ok(refusal(ErrorCode::Busy)))
        });
        assert!(world.recover("second", &phrase).is_err());
        assert!(home.join("former-1/keys").exists());
        assert_eq!(
            std::fs::read(home.join("memory")).unwrap(),
            memory,
            "{loses_database}"
        );
        world.wire.answer(|_| None);
        let second = world.recover("second", &phrase).unwrap();
        assert_eq!(
            std::fs::read(home.join("memory")).unwrap(),
            memory,
            "{loses_database}"
        );
        let shown = propose(&second);
        assert!(shown.is_older);
        accept(&second, &shown.token);
        second.ask(Command::ConsentHistory).unwrap();
    }
}

/// A chain that takes more than one page: a device that joins, and one that lost its database, read it to its end.
#[test]
fn a_long_chain_is_read_to_its_end() {
    let world = World::new();
    let (first, phrase) = world.create("home");
    first.add(&world.tree("tree"));
    for _ in 0..80 {
        first.consent();
        first.off().unwrap();
    }
    first.consent();
    let kinds = world.kinds(&first);
    assert!(kinds.len() > 160);
    let second = world.recover("second", &phrase).unwrap();
    assert!(world.kinds(&second).starts_with(&kinds));
    let home = first.engine.home().to_owned();
    drop(first);
    for name in ["device.sqlite", "device.sqlite-wal", "device.sqlite-shm"] {
        let _ = std::fs::remove_file(home.join(name));
    }
    let first = Person {
        engine: world.open(&home).unwrap(),
    };
    first.ask(Command::ConsentHistory).unwrap();
    assert_eq!(world.kinds(&first), world.kinds(&second));
}
