//! A cell that lies with its log. Each test: the failure, the alarm, the evidence, and nothing changed.

use std::sync::{Arc, Mutex};

use candor_client::commands::{Command, Event, Failure, FailureKind, View};
use candor_client::device_store::DeviceStore;
use candor_client::memory::{Memory, RememberedHead};
use candor_client::receipt;
use candor_log::checkpoint::{Checkpoint, SignedCheckpoint};
use candor_log::fork::Misbehaviour;
use candor_log::leaf::Leaf;
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::state_map::{AccountState, StateMap, StateSecret, decode_inputs, inputs_path};
use candor_wire::api::{ErrorCode, StateReply};
use candor_wire::cbor;
use candor_wire::head::HeadHash;
use candor_wire::sign::Ed25519Secret;
use candor_wire::statement::Kind;

use crate::log::{checkpoint, monitor};
use crate::lying_log::{
    Forged, Friends, assert_alarmed, consented, evidence, is_checkpoint, is_state, label_of,
    memory_of, now_s, padding, place_of, real_checkpoint, real_leaves, refusal, reply,
};
use crate::world::{Person, World};

const CHECKPOINT: Command = Command::LogCheckpoint { compare: None };

/// An account with one consent and one backup, whose log was looked through.
fn settled(world: &World) -> Person {
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    person.run().unwrap();
    monitor(&person);
    person
}

#[test]
fn b22_a_log_that_was_rolled_back_is_told_in_plain_words() {
    let world = World::new();
    let person = settled(&world);
    let old = real_checkpoint(&world);
    std::fs::write(world.path("docs/new.txt"), "new").unwrap();
    person.run().unwrap();
    assert!(monitor(&person).log.size > old.head().size);
    let (before, puts) = (memory_of(&person), world.wire.paths("PUT"));
    let shown = old.bytes();
    world.wire.twist(move |request, passed| {
        if is_checkpoint(request) {
            reply(200, shown.clone())
        } else {
            passed
        }
    });
    for command in [CHECKPOINT, Command::LogMonitor] {
        let failure = person.ask(command).unwrap_err();
        assert_alarmed(&person, &failure, "ROLLBACK");
    }
    assert_eq!(
        (memory_of(&person), world.wire.paths("PUT")),
        (before, puts)
    );
    // Both checkpoints are kept, once.
    let files = evidence(&person);
    assert_eq!(files.len(), 1);
    let text = std::fs::read_to_string(files.first().unwrap()).unwrap();
    let kept: Vec<&str> = text.split("\n\n").collect();
    assert!(kept[0].starts_with("candor log evidence v1\nkind rollback"));
    assert!(text.contains(&String::from_utf8(old.bytes()).unwrap()));
    // A backup says it too, is no failure for it, and rings the bell once.
    let rings = person.alarms().len();
    std::fs::write(world.path("docs/newer.txt"), "newer").unwrap();
    for _ in 0..2 {
        let (view, events) = person.listen(Command::BackupRun { sets: Vec::new() });
        view.unwrap();
        let is_told = |event: &Event| matches!(event, Event::Step { text } if text.starts_with("ALARM: ROLLBACK"));
        assert!(events.iter().any(is_told), "{events:?}");
    }
    assert_eq!(person.alarms().len(), rings);
    // Once the log is what it was, only the evidence is left.
    world.wire.honest();
    monitor(&person);
    let status = person.status();
    assert_eq!(status.log.as_ref().unwrap().findings, Vec::<String>::new());
    assert_eq!(status.log.unwrap().evidence_files, 1);
}

/// The newest answer about the account's state, as the cell gives it to this device.
fn state_of(world: &World, person: &Person) -> StateReply {
    let held: Arc<Mutex<Option<StateReply>>> = Arc::default();
    let keep = Arc::clone(&held);
    world.wire.twist(move |request, passed| {
        if is_state(request) {
            *keep.lock().unwrap() = Some(cbor::decode(passed.body()).unwrap());
        }
        passed
    });
    monitor(person);
    world.wire.honest();
    let state = held.lock().unwrap().clone();
    state.unwrap()
}

/// From now on the cell says this of the account's state.
fn say_state(world: &World, shown: &StateReply) {
    let bytes = cbor::encode(shown);
    world.wire.twist(move |request, passed| {
        if is_state(request) {
            reply(200, bytes.clone())
        } else {
            passed
        }
    });
}

/// The log as it would be if no version of the state map after this one had been published.
fn with_maps_up_to(world: &World, version: u64) -> Forged {
    let mut leaves = real_leaves(world);
    for (n, leaf) in leaves.iter_mut().enumerate() {
        if leaf
            .state_map_version()
            .is_some_and(|found| found > version)
        {
            *leaf = padding(u8::try_from(n % 200).unwrap());
        }
    }
    Forged::of(world, &leaves)
}

/// The same home, without its rollback memory.
fn without_memory(world: &World, person: Person) -> Person {
    let home = person.engine.home().to_owned();
    drop(person);
    std::fs::remove_file(home.join("memory")).unwrap();
    Person {
        engine: world.open(&home).unwrap(),
    }
}

#[test]
fn a15_an_older_version_of_the_state_map_is_refused() {
    let world = World::new();
    let person = settled(&world);
    let old = state_of(&world, &person);
    // The head moves on, and the map of the day before goes on saying what it said.
    say_state(&world, &old);
    std::fs::write(world.path("docs/new.txt"), "new").unwrap();
    person.run().unwrap();
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(
        &person,
        &failure,
        "ROLLBACK: the cell shows this account's state in version",
    );
    assert_eq!(evidence(&person).len(), 1);
    // A device that was shown the newer version refuses the older one at once.
    world.wire.honest();
    monitor(&person);
    let before = memory_of(&person);
    say_state(&world, &old);
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(
        &person,
        &failure,
        "the state map in the cell's log is older",
    );
    assert_eq!(memory_of(&person), before);
}

#[test]
fn a15_an_older_state_in_a_log_of_its_own_is_waited_for_and_told() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let old = state_of(&world, &person);
    person.add(&world.tree("photos"));
    person.consent();
    monitor(&person);
    // To a device that lost its memory the cell can show a log in which the map never went on.
    let person = without_memory(&world, person);
    with_maps_up_to(&world, old.map_version).serve(&world);
    say_state(&world, &old);
    let puts = world.wire.paths("PUT");
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(&person, &failure, "ROLLBACK: the state map");
    assert_eq!(world.wire.paths("PUT"), puts);
}

#[test]
fn a16_a_fresh_device_says_unwitnessed_until_a_quorum_vouches() {
    let world = World::new();
    let friends = Arc::new(Friends::new());
    let (person, phrase) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    monitor(&person);
    let old = real_checkpoint(&world).bytes();
    person.run().unwrap();
    monitor(&person);
    drop(person);
    // Without a policy: unwitnessed, in the place where things are said to be safe.
    let fresh = world.recover("fresh", &phrase).unwrap();
    let view = checkpoint(&fresh);
    assert_eq!(view.log.standing, "unwitnessed");
    assert!(!view.log.has_quorum && !fresh.status().witnessed);
    drop(fresh);
    // With one, the old state is shown to a device without memory: no witness vouches for it any more.
    let fresh = world.recover("asking", &phrase).unwrap();
    friends.ask_two_of_three(&world, "asking");
    let (one, time_s) = (Arc::clone(&friends), now_s(&world));
    world.wire.twist(move |request, passed| {
        if is_checkpoint(request) {
            reply(200, one.vouch(&old, 1, time_s))
        } else {
            passed
        }
    });
    let view = checkpoint(&fresh);
    assert_eq!(view.log.standing, "unwitnessed");
    assert_eq!(view.log.witnesses, ["friend-0"]);
    assert!(!fresh.status().witnessed);
    assert!(view.log.sentence.starts_with("unwitnessed: no quorum"));
    // The newest one has its quorum.
    world.wire.honest();
    friends.vouch_on_the_wire(&world, 2, now_s(&world));
    let view = checkpoint(&fresh);
    assert_eq!(view.log.standing, "witnessed");
    assert!(fresh.status().witnessed);
    // And stays so in the memory, when later ones come without.
    world.wire.honest();
    assert!(checkpoint(&fresh).log.witnessed_ms.is_some());
    assert_eq!(fresh.alarms(), Vec::<String>::new());
}

/// The log is the newest one and witnessed; what the cell says of the account is from the day before. A
/// device without memory finds the newer version of the map in the log.
#[test]
fn a16_an_older_state_is_found_by_a_device_without_memory() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let old = state_of(&world, &person);
    person.run().unwrap();
    monitor(&person);
    let puts = world.wire.paths("PUT");
    let home = person.engine.home().to_owned();
    drop(person);
    for name in [
        "device.sqlite",
        "device.sqlite-wal",
        "device.sqlite-shm",
        "memory",
    ] {
        let _ = std::fs::remove_file(home.join(name));
    }
    let person = Person {
        engine: world.open(&home).unwrap(),
    };
    say_state(&world, &old);
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(
        &person,
        &failure,
        "ROLLBACK: the cell shows this account's state",
    );
    assert_eq!(evidence(&person).len(), 1);
    assert_eq!(world.wire.paths("PUT"), puts);
}

#[test]
fn a17_another_head_than_another_device_sees_is_a_fork() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    person.run().unwrap();
    let vault = person.status().sets[0].vault.as_ref().unwrap().parse();
    let vault = vault.unwrap();
    let second = world.recover("second", &phrase).unwrap();
    let (home, cell) = (second.engine.home().to_owned(), second.engine.cell());
    drop(second);
    // The cell showed the second device a head of its own for the same counter.
    let other = RememberedHead {
        vault,
        counter: 1,
        hash: HeadHash([9; 32]),
        epoch: 1,
    };
    let memory = Memory::open(&home.join("memory"), cell).unwrap();
    memory.remember_head(other).unwrap();
    drop(memory);
    let second = Person {
        engine: world.open(&home).unwrap(),
    };
    let failure = second.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(&second, &failure, "FORK: the state map");
    let files = evidence(&second);
    assert_eq!(files.len(), 1);
    let text = std::fs::read_to_string(files.first().unwrap()).unwrap();
    assert!(text.contains(&format!("seen-vault {vault}")), "{text}");
    assert!(text.contains(&format!("seen-head {}", "09".repeat(32))));
    let failure = second.restore("latest", &world.path("out")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    assert!(!world.path("out").exists());
    // The other device is fine, and would see the same with the other head.
    monitor(&person);
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn a17_two_devices_that_compare_their_checkpoints_find_two_logs() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    monitor(&person);
    let second = world.recover("second", &phrase).unwrap();
    monitor(&person);
    let mut leaves = real_leaves(&world);
    leaves.push(padding(7));
    leaves.push(padding(8));
    let forged = Forged::of(&world, &leaves);
    forged.serve(&world);
    let theirs = checkpoint(&second).checkpoint;
    world.wire.honest();
    // The real log goes on, and the two cannot be one.
    person.run().unwrap();
    while real_checkpoint(&world).head().size <= forged.checkpoint.head().size {
        std::fs::write(world.path("docs/more"), format!("{}", now_s(&world))).unwrap();
        person.run().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    checkpoint(&person);
    let before = memory_of(&person);
    let compare = |text: &str| Command::LogCheckpoint {
        compare: Some(text.to_owned()),
    };
    let failure = person.ask(compare(&theirs)).unwrap_err();
    assert_alarmed(&person, &failure, "FORK");
    verify_fork(&world, &person);
    assert_eq!(memory_of(&person), before);
    // What the log did sign before is no fork, and what it did not is no checkpoint of it.
    let own = checkpoint(&person).checkpoint;
    let View::LogCheckpoint(view) = person.ask(compare(&own)).unwrap() else {
        panic!("another view")
    };
    assert!(view.compared.is_some());
    let failure = person.ask(compare(&own.replace('/', "x"))).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Usage, "{failure:?}");
}

#[test]
fn a17_two_roots_for_one_version_of_the_state_map_are_told() {
    let world = World::new();
    let (person, mut leaves) = consented(&world);
    leaves.push(Leaf::state_map(1, &[9; 32]));
    Forged::of(&world, &leaves).serve(&world);
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(&person, &failure, "FORK: the cell's log has version 1");
    let text = std::fs::read_to_string(evidence(&person).first().unwrap()).unwrap();
    assert!(
        text.contains(&format!("entry {}", leaves.len() - 1)),
        "{text}"
    );
}

/// Answers one kind of request so.
fn answer_with(world: &World, is: fn(&http::Request<bytes::Bytes>) -> bool, shown: Vec<u8>) {
    world.wire.answer(move |request| {
        is(request).then(|| {
            Ok(if shown.is_empty() {
                refusal(ErrorCode::NotFound)
            } else {
                reply(200, shown.clone())
            })
        })
    });
}

#[test]
fn a16_a_checkpoint_that_the_cell_did_not_sign_is_refused() {
    let world = World::new();
    let person = settled(&world);
    let before = memory_of(&person);
    let real = real_checkpoint(&world);
    let key = Ed25519Secret::from_seed(&[77; 32]);
    let signed_as = |origin: &str| {
        let verifier = VerifierKey::new(origin, KeyKind::Log, key.public()).unwrap();
        let checkpoint = Checkpoint {
            origin: origin.to_owned(),
            head: real.head(),
        };
        SignedCheckpoint::sign(&checkpoint, &verifier, &key)
            .unwrap()
            .bytes()
    };
    let mut larger = real.bytes();
    let place = larger.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    larger[place] = b'9';
    let mut cut = real.bytes();
    cut.truncate(cut.len() - 1);
    let none = Vec::new();
    for shown in [
        signed_as(real.origin()),
        signed_as("other.example/log"),
        larger,
        cut,
        b"nothing".to_vec(),
        none,
    ] {
        answer_with(&world, is_checkpoint, shown);
        for command in [CHECKPOINT, Command::LogMonitor] {
            let failure = person.ask(command).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
            assert!(person.alarms().contains(&failure.sentence));
        }
        assert_eq!(memory_of(&person), before);
    }
    // Tiles that are withheld prove nothing either.
    world.wire.honest();
    std::fs::write(world.path("docs/new.txt"), "new").unwrap();
    person.run().unwrap();
    let before = memory_of(&person);
    answer_with(
        &world,
        |request| request.uri().path().starts_with("/log/tile/"),
        Vec::new(),
    );
    while real_checkpoint(&world).head().size == real.head().size {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    assert_eq!(memory_of(&person), before);
}

#[test]
fn a15_a_state_without_its_proof_is_refused() {
    let world = World::new();
    let person = settled(&world);
    let genuine = state_of(&world, &person);
    let size = real_checkpoint(&world).head().size;
    let mut longer = AccountState::from_bytes(genuine.state.as_ref().unwrap()).unwrap();
    longer.sequence += 1;
    for (shown, words) in [
        (
            StateReply {
                index: size + 1_000,
                ..genuine.clone()
            },
            "does not have",
        ),
        (
            StateReply {
                index: genuine.index - 1,
                ..genuine.clone()
            },
            "is not that version",
        ),
        (
            StateReply {
                proof: denial(&world, &person),
                state: None,
                ..genuine.clone()
            },
            "",
        ),
        (
            StateReply {
                proof: vec![0xff],
                ..genuine.clone()
            },
            "cannot be read",
        ),
        (
            StateReply {
                state: Some(longer.to_bytes()),
                ..genuine.clone()
            },
            "says something else",
        ),
    ] {
        let failure = with_state(&world, &person, &shown);
        assert!(failure.sentence.contains(words), "{failure:?}");
    }
    world.wire.honest();
    monitor(&person);
    assert_eq!(person.status().log.unwrap().findings, Vec::<String>::new());
}

/// Finds the one fork proof in a home and checks it with the log's key alone.
fn verify_fork(world: &World, person: &Person) -> Misbehaviour {
    let forks: Vec<_> = evidence(person)
        .into_iter()
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("fork-")
        })
        .collect();
    let [path] = &forks[..] else {
        panic!("{forks:?}")
    };
    let bytes = std::fs::read(path).unwrap();
    // As anybody does with `candor log verify`, with the file and the log's key alone.
    let policy = |key: &VerifierKey| format!("log {key}\nquorum none\n").into_bytes();
    assert!(receipt::is_fork_proof(&bytes));
    let said = receipt::verify_fork(&bytes, &policy(&world.log_key())).unwrap();
    assert_ne!(said.signed[0].1, said.signed[1].1);
    let other = Ed25519Secret::from_seed(&[9; 32]).public();
    let other = VerifierKey::new(world.log_key().name(), KeyKind::Log, other).unwrap();
    let refused = receipt::verify_fork(&bytes, &policy(&other)).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Integrity);
    Misbehaviour::parse(&bytes).unwrap()
}

#[test]
fn a18_two_logs_of_one_size_are_a_proof_that_anybody_can_verify() {
    let world = World::new();
    let person = settled(&world);
    let seen = SignedCheckpoint::parse(checkpoint(&person).checkpoint.as_bytes()).unwrap();
    let before = memory_of(&person);
    let size = usize::try_from(seen.head().size).unwrap();
    let mut leaves = real_leaves(&world);
    leaves.truncate(size);
    leaves[size - 1] = padding(5);
    Forged::of(&world, &leaves).serve(&world);
    for command in [CHECKPOINT, Command::LogMonitor] {
        let failure = person.ask(command).unwrap_err();
        assert_alarmed(&person, &failure, "FORK");
    }
    let proof = verify_fork(&world, &person);
    assert_eq!(proof.older, seen);
    assert!(proof.prefix.is_none());
    assert_eq!(memory_of(&person), before);
    let view = person.restore("latest", &world.path("out")).unwrap();
    assert!(matches!(view, View::Restored(_)), "data is not the log's");
}

#[test]
fn a18_a_larger_log_that_does_not_continue_the_one_seen_is_one_too() {
    let world = World::new();
    let person = settled(&world);
    let seen = SignedCheckpoint::parse(checkpoint(&person).checkpoint.as_bytes()).unwrap();
    let before = memory_of(&person);
    let size = usize::try_from(seen.head().size).unwrap();
    let mut leaves = real_leaves(&world);
    leaves.truncate(size);
    leaves[0] = padding(5);
    leaves.extend([padding(6), padding(7), padding(8)]);
    Forged::of(&world, &leaves).serve(&world);
    let failure = person.ask(CHECKPOINT).unwrap_err();
    assert_alarmed(&person, &failure, "FORK");
    let proof = verify_fork(&world, &person);
    assert_eq!(proof.older, seen);
    assert!(proof.prefix.is_some());
    assert_eq!(memory_of(&person), before);
    // Tiles that do not belong to the checkpoint prove nothing, and are refused as well.
    let forged = Forged::of(&world, &leaves[1..]);
    world.wire.answer(move |request| {
        let only = is_checkpoint(request);
        only.then(|| Ok(reply(200, forged.checkpoint.bytes())))
    });
    let failure = person.ask(CHECKPOINT).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    assert_eq!(memory_of(&person), before);
}

#[test]
fn a19_a_frozen_log_is_told_by_the_age_of_its_witnesses_word() {
    const HOUR_S: u64 = 60 * 60;
    let world = World::new();
    let friends = Arc::new(Friends::new());
    let person = settled(&world);
    friends.ask_two_of_three(&world, "home");
    friends.vouch_on_the_wire(&world, 3, now_s(&world) - 5 * HOUR_S);
    let view = checkpoint(&person);
    assert_eq!(view.log.standing, "witnessed");
    assert!(view.log.sentence.contains("5 hours ago"), "{view:?}");
    assert_eq!(person.alarms(), Vec::<String>::new());
    // A day later the same is shown. A backup still works, and rings the bell once.
    world.clock.forward_ms(20 * 60 * 60 * 1000);
    for round in 0..2 {
        std::fs::write(world.path("docs/new.txt"), format!("{round}")).unwrap();
        let (view, events) = person.listen(Command::BackupRun { sets: Vec::new() });
        view.unwrap();
        let is_told = |event: &Event| matches!(event, Event::Step { text } if text.contains("FROZEN: last witnessed 25 hours ago"));
        assert!(events.iter().any(is_told), "{events:?}");
    }
    assert_eq!(person.alarms().len(), 1);
    let status = person.status();
    assert!(!status.witnessed);
    assert_eq!(status.log.unwrap().standing, "stale");
    world.clock.forward_ms(-20 * 60 * 60 * 1000);
    // The same by the witnesses' clocks alone: a fresh home is shown what is a day old.
    let second = world.create("second").0;
    friends.ask_two_of_three(&world, "second");
    friends.vouch_on_the_wire(&world, 2, now_s(&world) - 30 * HOUR_S);
    let failure = second.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(&second, &failure, "FROZEN: last witnessed 30 hours ago");
    // Fresh words end it.
    friends.vouch_on_the_wire(&world, 2, now_s(&world));
    assert_eq!(monitor(&second).log.standing, "witnessed");
    assert_eq!(second.status().log.unwrap().findings, Vec::<String>::new());
}

#[test]
fn b29_a_consent_that_the_cell_acknowledged_and_left_out_is_missing() {
    let world = World::new();
    let (person, mut leaves) = consented(&world);
    let home = person.engine.home().to_owned();
    let label = label_of(&home, Kind::ConsentGiven, 0);
    let place = place_of(&leaves, label);
    leaves[place] = padding(3);
    Forged::of(&world, &leaves).serve(&world);
    // It is not late yet, so a backup says nothing.
    person.run().unwrap();
    assert_eq!(person.alarms(), Vec::<String>::new());
    let puts = world.wire.paths("PUT");
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(&person, &failure, "MISSING");
    assert!(
        failure.sentence.contains("a consent was given, number 1"),
        "{}",
        failure.sentence
    );
    let files = evidence(&person);
    let missing: Vec<_> = files
        .iter()
        .filter(|path| path.to_string_lossy().contains("missing-"))
        .collect();
    let [path] = &missing[..] else {
        panic!("{files:?}")
    };
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("acknowledgement "), "{text}");
    // Nor does such a log prove the consent.
    let View::Consents(consents) = person.ask(Command::ConsentList).unwrap() else {
        panic!("another view")
    };
    let prove = Command::LogProve {
        statement: consents[0].id.clone(),
    };
    assert_eq!(person.ask(prove).unwrap_err().kind, FailureKind::Integrity);
    assert_eq!(world.wire.paths("PUT"), puts);
}

#[test]
fn b29_entries_in_the_accounts_name_that_it_did_not_state_are_found() {
    let world = World::new();
    let (person, mut leaves) = consented(&world);
    let home = person.engine.home().to_owned();
    let own = leaves[place_of(&leaves, label_of(&home, Kind::ConsentGiven, 0))];
    let invented = Leaf {
        label: label_of(&home, Kind::ConsentGiven, 1),
        ..padding(4)
    };
    leaves.extend([own, invented]);
    Forged::of(&world, &leaves).serve(&world);
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(&person, &failure, "DOUBLED");
    assert!(
        failure.causes.iter().any(|cause| cause.contains("EXTRA")),
        "{failure:?}"
    );
    // Each is an alarm of its own, and each is kept.
    assert_eq!(person.alarms().len(), 2);
    assert_eq!(evidence(&person).len(), 2);
    let findings = person.status().log.unwrap().findings;
    assert_eq!(findings.len(), 2, "{findings:?}");
    // Nobody's consent came from it.
    assert_eq!(person.status().sets[0].consent, "on");
    let View::Consents(consents) = person.ask(Command::ConsentList).unwrap() else {
        panic!("another view")
    };
    assert_eq!(consents.len(), 1);
}

#[test]
fn b29_an_account_that_the_state_map_denies_is_told() {
    let world = World::new();
    // The first account makes the first version of the map, in which the second one is not.
    let (first, _) = world.create("first");
    monitor(&first);
    let (person, _) = world.create("home");
    let genuine = state_of(&world, &person);
    let proof = denial(&world, &person);
    let leaves = real_leaves(&world);
    let index = leaves
        .iter()
        .position(|leaf| leaf.state_map_version() == Some(1));
    let denied = StateReply {
        map_version: 1,
        index: index.unwrap() as u64,
        state: None,
        proof,
        ..genuine.clone()
    };
    // A device that was shown more is not taken in.
    let failure = with_state(&world, &person, &denied);
    assert!(
        failure
            .sentence
            .contains("state map in the cell's log is older")
    );
    // One that was not waits for what is due, and then says so.
    let person = without_memory(&world, person);
    with_maps_up_to(&world, 1).serve(&world);
    let failure = with_state(&world, &person, &denied);
    assert!(failure.sentence.contains("WITHHELD"), "{failure:?}");
    world.wire.honest();
    let person = without_memory(&world, person);
    // A state without a proof that fits is refused, whatever else it says.
    let wrong = StateReply {
        state: None,
        ..genuine
    };
    let failure = with_state(&world, &person, &wrong);
    assert!(
        failure.sentence.contains("says something else"),
        "{failure:?}"
    );
}

/// The proof that the first version of the map has nothing of this account, from what the cell published.
fn denial(world: &World, person: &Person) -> Vec<u8> {
    let inputs = world.log_file(&inputs_path(1)).unwrap();
    let map = StateMap::new().with(&decode_inputs(&inputs).unwrap());
    let store = DeviceStore::open(&person.engine.home().join("device.sqlite")).unwrap();
    let records = store.chain().unwrap();
    let statement = records[0].statement.clone().unwrap();
    let account = statement.parse().unwrap().entry.account;
    map.prove(&StateSecret::of(&statement.salt, &account).key())
        .to_bytes()
}

fn with_state(world: &World, person: &Person, shown: &StateReply) -> Failure {
    say_state(world, shown);
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    assert!(person.alarms().contains(&failure.sentence));
    failure
}

/// A cell can grow its log as it likes, and must not keep a backup waiting with it.
#[test]
fn a36_a_huge_log_is_looked_through_in_pieces() {
    const PIECE: usize = 256 * 1024;
    let world = World::new();
    let (person, _) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    let leaves: Vec<Leaf> = (0..PIECE + 1_000)
        .map(|n| padding(u8::try_from(n % 251).unwrap()))
        .collect();
    Forged::of(&world, &leaves).serve(&world);
    let bundles = |world: &World| {
        let paths = world.wire.paths("GET");
        let read = paths.iter().filter(|path| path.contains("/tile/entries/"));
        let read = read.count();
        world.wire.forget();
        read
    };
    let (view, events) = person.listen(Command::BackupRun { sets: Vec::new() });
    view.unwrap();
    let is_told = |event: &Event| matches!(event, Event::Step { text } if text.contains("262144 of its 263144 entries"));
    assert!(events.iter().any(is_told), "{events:?}");
    assert_eq!(bundles(&world), PIECE / 256);
    assert_eq!(person.status().log.unwrap().checked_ms, None);
    assert_eq!(person.alarms(), Vec::<String>::new());
    // The next one goes on there, also after a restart.
    let person = world.reopen(person);
    person.run().unwrap();
    // Those that are left, and the one in which the state map's version should be.
    assert_eq!(bundles(&world), 5);
}
