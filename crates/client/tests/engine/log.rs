//! The cell's log as a device checks it, over an honest wire: proofs, monitoring, and no alarm.

use candor_client::commands::{
    Command, Event, FailureKind, LogCheckpointView, LogMonitorView, LogProofView, View,
};
use candor_log::leaf::Leaf;
use candor_log::policy::Policy;
use candor_log::proof_file::TlogProof;
use candor_wire::ids::from_hex;

use crate::world::{Person, World};

pub(crate) fn monitor(person: &Person) -> LogMonitorView {
    let View::LogMonitored(view) = person.ask(Command::LogMonitor).unwrap() else {
        panic!("another view")
    };
    view
}

pub(crate) fn checkpoint(person: &Person) -> LogCheckpointView {
    let View::LogCheckpoint(view) = person
        .ask(Command::LogCheckpoint { compare: None })
        .unwrap()
    else {
        panic!("another view")
    };
    view
}

fn prove(person: &Person, statement: &str) -> LogProofView {
    let command = Command::LogProve {
        statement: statement.to_owned(),
    };
    let View::LogProof(view) = person.ask(command).unwrap() else {
        panic!("another view")
    };
    *view
}

fn consent_id(person: &Person) -> String {
    let View::Consents(consents) = person.ask(Command::ConsentList).unwrap() else {
        panic!("another view")
    };
    consents[0].id.clone()
}

#[test]
fn a_consent_is_proven_to_be_in_the_log_and_anybody_can_check_it() {
    let world = World::new();
    let (person, _) = world.create("home");
    assert_eq!(person.status().log, None);
    person.add(&world.tree("docs"));
    person.consent();
    let id = consent_id(&person);
    let proof = prove(&person, &id[..12]);
    assert_eq!(proof.statement, id);
    assert_eq!(proof.what, "a consent was given");
    let parsed = TlogProof::parse(proof.proof.as_bytes()).unwrap();
    let leaf = Leaf::decode(&from_hex::<66>(&proof.leaf).unwrap()).unwrap();
    let key = world.log_key().to_string();
    let policy = Policy::parse(format!("log {key}\nquorum none\n").as_bytes()).unwrap();
    parsed.verify(&leaf.hash(), &policy).unwrap();
    assert_eq!(parsed.inclusion.index, proof.index);
    let unknown = Command::LogProve {
        statement: "zz".to_owned(),
    };
    assert_eq!(person.ask(unknown).unwrap_err().kind, FailureKind::Usage);
    // The empty beginning is that of every statement.
    let all = Command::LogProve {
        statement: String::new(),
    };
    assert_eq!(person.ask(all).unwrap_err().kind, FailureKind::Usage);
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn a_device_finds_all_of_its_statements_and_its_state() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    person.run().unwrap();
    let view = monitor(&person);
    assert_eq!((view.statements, view.found), (5, 5));
    assert!(view.state_matches);
    assert_eq!(view.log.standing, "unwitnessed");
    assert_eq!(view.log.findings, Vec::<String>::new());
    assert!(view.log.size >= 5);
    let again = monitor(&person);
    assert_eq!((again.statements, again.found), (5, 5));
    assert!(again.new_entries < view.log.size);
    let status = person.status();
    let log = status.log.unwrap();
    assert!(!status.witnessed);
    assert_eq!(log.size, again.log.size);
    assert!(log.checked_ms.is_some());
    // What was read is for everybody and goes out under an errand that is in the ledger.
    assert!(person.ledger().iter().any(|line| line.service == "verify"));
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn a_backup_looks_at_the_log_over_its_own_connection() {
    let world = World::new();
    let (person, _) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    let lines = person.ledger().len();
    let (view, events) = person.listen(Command::BackupRun { sets: Vec::new() });
    view.unwrap();
    assert_eq!(person.ledger().len(), lines + 1, "one connection");
    let log = person.status().log.unwrap();
    assert!(log.checked_ms.is_some() && log.size > 0);
    let steps: Vec<_> = events
        .iter()
        .filter(|event| matches!(event, Event::Step { .. }))
        .collect();
    assert!(steps.is_empty(), "{steps:?}");
    // A log that cannot be read makes no backup fail.
    world.wire.answer(|request| {
        let is_log = request.uri().path().starts_with("/log/");
        is_log.then(|| Err(candor_client::egress::TransportError::TimedOut))
    });
    std::fs::write(docs.join("new.txt"), "new").unwrap();
    let (view, events) = person.listen(Command::BackupRun { sets: Vec::new() });
    view.unwrap();
    let told = events.iter().any(
        |event| matches!(event, Event::Step { text } if text.contains("log could not be checked")),
    );
    assert!(told, "{events:?}");
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn honest_histories_raise_no_alarm() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    person.run().unwrap();
    let second = world.recover("second", &phrase).unwrap();
    second.add(&world.tree("more"));
    second.consent();
    second.run().unwrap();
    let mut person = person;
    for round in 0..3 {
        std::fs::write(docs.join(format!("{round}")), "new").unwrap();
        person.run().unwrap();
        monitor(&second);
        person = world.reopen(person);
        // Clocks jump, forwards and back: by more than a cell promises, and by less than it forgives.
        world
            .clock
            .forward_ms(if round == 1 { -480_000 } else { 240_000 });
        monitor(&person);
        second.run().unwrap();
    }
    second.off().unwrap();
    monitor(&second);
    monitor(&person);
    // Both at once: two checkpoints that are read together are no rollback.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| monitor(&person));
            scope.spawn(|| checkpoint(&person));
        }
    });
    for one in [&person, &second] {
        assert_eq!(one.alarms(), Vec::<String>::new());
        assert_eq!(one.status().log.unwrap().findings, Vec::<String>::new());
    }
}

#[test]
fn a_device_that_lost_its_database_looks_through_the_log_again() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let before = monitor(&person);
    let home = person.engine.home().to_owned();
    drop(person);
    for name in ["device.sqlite", "device.sqlite-wal", "device.sqlite-shm"] {
        let _ = std::fs::remove_file(home.join(name));
    }
    let person = Person {
        engine: world.open(&home).unwrap(),
    };
    let after = monitor(&person);
    assert_eq!(after.new_entries, after.log.size);
    assert_eq!(
        (after.statements, after.found),
        (before.statements, before.found)
    );
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn a_policy_that_cannot_be_read_is_told_with_its_line() {
    let world = World::new();
    let (person, _) = world.create("home");
    monitor(&person);
    std::fs::write(world.path("home/log-policy"), "witnes x\n").unwrap();
    for command in [
        Command::LogMonitor,
        Command::LogCheckpoint { compare: None },
        Command::LogProve {
            statement: "aa".to_owned(),
        },
    ] {
        let failure = person.ask(command).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage, "{failure:?}");
        assert!(failure.sentence.contains("line 1"), "{}", failure.sentence);
    }
    let status = person.status();
    assert!(
        status.warnings.iter().any(|one| one.contains("log-policy")),
        "{:?}",
        status.warnings
    );
    assert!(status.log.is_some());
    // A policy for other logs is refused as one, and nothing is remembered under it.
    let other = candor_log::note::VerifierKey::new(
        "other.example/log",
        candor_log::note::KeyKind::Log,
        candor_wire::sign::Ed25519Secret::from_seed(&[1; 32]).public(),
    )
    .unwrap();
    let policy = format!("log {other}\nquorum none\n");
    std::fs::write(world.path("home/log-policy"), policy).unwrap();
    let failure = person
        .ask(Command::LogCheckpoint { compare: None })
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Policy, "{failure:?}");
    assert_eq!(person.alarms(), Vec::<String>::new());
}
