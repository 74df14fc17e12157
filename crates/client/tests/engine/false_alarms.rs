//! What honest histories once ended in, each as a test of its own: nobody may be frightened by it, nor be
//! left without a way on.

use std::sync::Arc;
use std::time::Duration;

use candor_client::commands::{Command, FailureKind, View};

use crate::log::{checkpoint, monitor};
use crate::lying_log::{Friends, now_s};
use crate::re_anchor::copy;
use crate::world::{Person, World, assert_same};

/// The store of the cell as it is now, as its operator's backup.
fn keep(world: &mut World, name: &str) {
    world.stop_cell();
    copy(&world.path("cell/store"), &world.path(name));
    world.start_cell();
}

fn put_back(world: &mut World, name: &str) -> u32 {
    let place = world.path("comes-back");
    copy(&world.path(name), &place);
    world.put_cell_back(&place).number
}

fn accept(person: &Person) -> (u64, u64) {
    let View::ReAnchor(shown) = person.ask(Command::ReAnchorPropose).unwrap() else {
        panic!("another view")
    };
    assert!(shown.is_older);
    let command = Command::ReAnchorAccept { token: shown.token };
    let View::ReAnchored(accepted) = person.ask(command).unwrap() else {
        panic!("another view")
    };
    (accepted.brought_back, accepted.given_up)
}

/// Alarms beside the lines that every acceptance writes.
fn frightening(person: &Person) -> Vec<String> {
    let mut alarms = person.alarms();
    alarms.retain(|line| !line.starts_with("an older state of the account was accepted"));
    alarms
}

#[test]
fn a_backup_that_comes_back_twice_begins_two_logs() {
    let mut world = World::new();
    let (person, _) = world.create("home");
    let tree = world.tree("tree");
    person.add(&tree);
    person.consent();
    person.run().unwrap();
    monitor(&person);
    keep(&mut world, "kept");
    // The database knows nothing of the second log when the third one begins.
    for number in 2..5 {
        assert_eq!(put_back(&mut world, "kept"), number);
        let serial = world.cell().keys().serial;
        assert_eq!(serial, 1_000 * (number - 1));
        accept(&person);
        std::fs::write(tree.join(format!("{number}.txt")), "new").unwrap();
        person.run().unwrap();
        let view = monitor(&person);
        assert_eq!(view.found, view.statements);
    }
    person.restore("latest", &world.path("back")).unwrap();
    assert_same(&tree, &world.path("back/tree"));
    assert_eq!(frightening(&person), Vec::<String>::new());
}

#[test]
fn an_acceptance_that_a_restored_cell_lost_is_brought_back() {
    let mut world = World::new();
    let (person, _) = world.create("home");
    monitor(&person);
    keep(&mut world, "first");
    put_back(&mut world, "first");
    keep(&mut world, "second");
    assert_eq!(accept(&person), (0, 0));
    // The keys that acknowledged the acceptance are in this backup, and the acceptance is not.
    put_back(&mut world, "second");
    assert_eq!(accept(&person), (1, 0));
    let view = monitor(&person);
    assert_eq!(view.found, view.statements);
    assert_eq!(frightening(&person), Vec::<String>::new());
}

/// A key epoch is lost with a restored cell, and another device begins one of the same number.
#[test]
fn keys_of_epochs_that_are_lost_do_not_stand_in_the_way_of_others() {
    let mut world = World::new();
    let (person, phrase) = world.create("home");
    person.add(&world.tree("tree"));
    person.consent();
    person.run().unwrap();
    keep(&mut world, "kept");
    let second = world.recover("second", &phrase).unwrap();
    monitor(&person);
    monitor(&second);
    drop(second);
    // Without its database this device has nothing to bring back, but the keys.
    let home = person.engine.home().to_owned();
    drop(person);
    for name in ["device.sqlite", "device.sqlite-wal", "device.sqlite-shm"] {
        let _ = std::fs::remove_file(home.join(name));
    }
    put_back(&mut world, "kept");
    let person = Person {
        engine: world.open(&home).unwrap(),
    };
    assert_eq!(accept(&person), (0, 0));
    let third = world.recover("third", &phrase).unwrap();
    person.ask(Command::ConsentHistory).unwrap();
    let person = world.reopen(person);
    for one in [&person, &third] {
        monitor(one);
        assert_eq!(frightening(one), Vec::<String>::new());
    }
    third.restore("tree:latest", &world.path("back")).unwrap();
    assert_same(&world.path("tree"), &world.path("back/tree"));
}

#[test]
fn a_policy_that_names_the_log_of_before_is_no_lie_of_the_cell() {
    let mut world = World::new();
    let (person, _) = world.create("home");
    let policy = world.path("home/log-policy");
    let text = |world: &World| format!("log {}\nquorum none\n", world.log_key());
    std::fs::write(&policy, text(&world)).unwrap();
    monitor(&person);
    keep(&mut world, "kept");
    put_back(&mut world, "kept");
    wait_for_the_log(&world);
    let refused = person.ask(Command::ReAnchorPropose).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Policy, "{refused:?}");
    assert!(refused.hint.unwrap().contains("add this log's key"));
    std::fs::write(&policy, text(&world)).unwrap();
    accept(&person);
    monitor(&person);
    assert_eq!(frightening(&person), Vec::<String>::new());
}

/// Waits for the first checkpoint of a log that has just begun.
fn wait_for_the_log(world: &World) {
    for _ in 0..500 {
        if world.log_file("checkpoint").is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no checkpoint");
}

/// Device and cell slept for three days. The cell asks its witnesses as soon as it wakes up, and a device may
/// be a moment faster.
#[test]
fn a_log_whose_witnesses_are_just_being_asked_is_not_frozen() {
    const DAY_S: u64 = 24 * 60 * 60;
    let world = World::new();
    let friends = Arc::new(Friends::new());
    let (person, _) = world.create("home");
    friends.ask_two_of_three(&world, "home");
    for look in [0, 1] {
        friends.vouch_on_the_wire(&world, 2, now_s(&world) - 3 * DAY_S);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(1_500));
                friends.vouch_on_the_wire(&world, 2, now_s(&world));
            });
            let log = match look {
                0 => monitor(&person).log,
                _ => checkpoint(&person).log,
            };
            assert_eq!(log.standing, "witnessed", "{}", log.sentence);
        });
        world.clock.forward_ms(60 * 60 * 1000);
        world.cell_clock.forward_ms(60 * 60 * 1000);
    }
    // Whoever did not look since the word was fresh does not say that the log is frozen.
    world.clock.forward_ms(23 * 60 * 60 * 1000 + 30 * 60 * 1000);
    let log = person.status().log.unwrap();
    assert_eq!(log.standing, "stale");
    assert!(!log.sentence.contains("FROZEN"), "{}", log.sentence);
    assert_eq!(person.alarms(), Vec::<String>::new());
}

/// A device was off for days, and comes back just when the witnesses do not answer: it cannot know since when.
#[test]
fn a_log_whose_witnesses_fell_silent_lately_is_not_frozen() {
    const HOUR_MS: i64 = 60 * 60 * 1000;
    let world = World::new();
    let friends = Arc::new(Friends::new());
    let (person, _) = world.create("home");
    friends.ask_two_of_three(&world, "home");
    friends.vouch_on_the_wire(&world, 2, now_s(&world));
    assert_eq!(monitor(&person).log.standing, "witnessed");
    for clock in [&world.clock, &world.cell_clock] {
        clock.forward_ms(3 * 24 * HOUR_MS);
    }
    friends.vouch_on_the_wire(&world, 1, now_s(&world));
    // The log went on meanwhile.
    let before = world.log_file("checkpoint");
    world.create("another");
    while world.log_file("checkpoint") == before {
        std::thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..2 {
        let log = monitor(&person).log;
        assert_eq!(log.standing, "unwitnessed", "{}", log.sentence);
        assert!(log.sentence.contains("last witnessed 3 days ago"));
        for clock in [&world.clock, &world.cell_clock] {
            clock.forward_ms(11 * HOUR_MS);
        }
    }
    assert_eq!(person.alarms(), Vec::<String>::new());
    assert!(!person.status().witnessed);
    // A day later it knows.
    for clock in [&world.clock, &world.cell_clock] {
        clock.forward_ms(3 * HOUR_MS);
    }
    friends.vouch_on_the_wire(&world, 1, now_s(&world));
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert!(
        failure
            .sentence
            .contains("FROZEN: last witnessed 4 days ago"),
        "{failure:?}"
    );
    assert_eq!(person.alarms().len(), 1);
}

#[test]
fn the_latest_snapshot_is_the_newest_one_whatever_the_clock_said() {
    let world = World::new();
    let (person, _) = world.create("home");
    let tree = world.tree("tree");
    person.add(&tree);
    person.consent();
    person.run().unwrap();
    world.clock.forward_ms(-200_000);
    std::fs::write(tree.join("later.txt"), "later").unwrap();
    person.run().unwrap();
    person.restore("latest", &world.path("back")).unwrap();
    assert_same(&tree, &world.path("back/tree"));
}
