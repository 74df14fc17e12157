//! Nothing is sent before a yes, a yes is for one text, and off is off at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use candor_client::commands::{Command, Event, FailureKind, Stored, View};
use candor_client::egress::TransportError;
use candor_wire::time::DAY_MS;

use crate::world::{Person, World, assert_same};

fn states(view: &View) -> Vec<&str> {
    let View::Consents(list) = view else {
        panic!("another view")
    };
    list.iter().map(|consent| consent.state.as_str()).collect()
}

/// The consents as the device knows them.
fn known(person: &Person) -> View {
    person.ask(Command::ConsentList).unwrap()
}

#[test]
fn without_consent_no_connection_is_opened() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    let (before, lines) = (world.wire.count(), person.ledger().len());
    let failure = person.run().unwrap_err();
    assert_eq!(failure.kind, FailureKind::NoConsent);
    assert_eq!(failure.hint.as_deref(), Some("candor consent on backup"));
    person.status();
    person.propose();
    person.ask(Command::ConsentList).unwrap();
    assert_eq!((world.wire.count(), person.ledger().len()), (before, lines));
}

#[test]
fn a_yes_is_for_the_text_that_was_shown() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    let shown = person.propose();
    assert!(
        shown
            .text
            .contains(&world.path("docs").display().to_string()),
        "{}",
        shown.text
    );
    assert!(
        shown.text.contains("the tests, region home"),
        "{}",
        shown.text
    );
    person.add(&world.tree("photos"));
    let failure = person.say_yes(&shown.token).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Failed);
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    let shown = person.propose();
    assert_eq!(shown.sets, ["docs", "photos"]);
    let view = person.say_yes(&shown.token).unwrap();
    assert_eq!(states(&view), ["live", "live"]);
    assert_eq!(person.propose().sets, Vec::<String>::new());
    let status = person.status();
    assert!(
        status
            .services
            .iter()
            .any(|service| service.name == "backup" && service.on)
    );
    assert!(
        status
            .sets
            .iter()
            .all(|set| set.consent == "on" && set.vault.is_some())
    );
}

#[test]
fn off_is_off_at_once_and_after_a_restart_even_when_the_cell_is_away() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    person.run().unwrap();
    world.wire.cut();
    let failure = person.off().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(
        failure.sentence.contains("off on this device"),
        "{}",
        failure.sentence
    );
    let person = world.reopen(person);
    let before = world.wire.count();
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!(world.wire.count(), before);
    assert_eq!(
        states(&person.ask(Command::ConsentList).unwrap()),
        ["withdrawn"]
    );
    assert_eq!(person.status().sets[0].consent, "withdrawn");
    // The cell is told when it can be, and then a new yes counts.
    world.wire.honest();
    person.off().unwrap();
    assert_eq!(states(&known(&person)), ["withdrawn"]);
    let before = world.wire.count();
    person.off().unwrap();
    assert_eq!(states(&known(&person)), ["withdrawn"]);
    assert_eq!(world.wire.count(), before, "nothing is left to be told");
    person.consent();
    assert_eq!(
        states(&person.ask(Command::ConsentHistory).unwrap()),
        ["withdrawn", "live"]
    );
    person.run().unwrap();
}

#[test]
fn a_withdrawal_of_one_set_leaves_the_others_on() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.add(&world.tree("photos"));
    person.consent();
    let off = Command::ConsentOff {
        service: "backup".to_owned(),
        set: Some("docs".to_owned()),
        stored: Stored::Stays,
    };
    person.ask(off).unwrap();
    assert_eq!(states(&known(&person)), ["withdrawn", "live"]);
    let named = Command::BackupRun {
        sets: vec!["docs".to_owned()],
    };
    assert_eq!(person.ask(named).unwrap_err().kind, FailureKind::NoConsent);
    let View::Backups(done) = person.run().unwrap() else {
        panic!("another view")
    };
    assert_eq!(
        done.iter().map(|one| one.set.as_str()).collect::<Vec<_>>(),
        ["photos"]
    );
}

#[test]
fn a_consent_ends_by_itself() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    world.clock.forward_ms(340 * DAY_MS);
    assert_eq!(
        person.propose().sets,
        ["docs"],
        "renewal is proposed before the end"
    );
    assert!(
        person
            .status()
            .warnings
            .iter()
            .any(|one| one.contains("ends on"))
    );
    // Whoever backs up is reminded too, in one sentence with the command.
    let (view, events) = person.listen(Command::BackupRun { sets: Vec::new() });
    view.unwrap();
    let reminds = |event: &Event| matches!(event, Event::Step { text } if text.contains("the consent for docs ends on") && text.contains("`candor consent on backup`"));
    assert_eq!(events.iter().filter(|event| reminds(event)).count(), 1);
    world.clock.forward_ms(27 * DAY_MS);
    let before = world.wire.count();
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!(world.wire.count(), before);
    assert_eq!(person.status().sets[0].consent, "ended");
}

#[test]
fn another_device_withdraws_and_this_one_stops() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let second = world.recover("second", &phrase).unwrap();
    second.off().unwrap();
    let failure = person.run().unwrap_err();
    assert_eq!(failure.kind, FailureKind::NoConsent, "{failure:?}");
    assert_eq!(world.wire.paths("PUT"), Vec::<String>::new());
}

#[test]
fn a_statement_that_reaches_the_cell_late_does_not_leave_another_key_on_the_device() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    let is_append = |request: &http::Request<bytes::Bytes>| {
        request.method() == "POST" && request.uri().path().ends_with("/chain")
    };
    let late: Arc<Mutex<Option<http::Request<bytes::Bytes>>>> = Arc::default();
    let held = Arc::clone(&late);
    world.wire.answer(move |request| {
        is_append(request).then(|| {
            *held.lock().unwrap() = Some(request.clone());
            Err(TransportError::TimedOut)
        })
    });
    let token = person.propose().token;
    assert_eq!(
        person.say_yes(&token).unwrap_err().kind,
        FailureKind::Unreachable
    );
    // The person tries again, and only now the first request arrives.
    let (service, runtime) = (world.inner(), world.runtime.handle().clone());
    world.wire.answer(move |request| {
        let request = late.lock().unwrap().take_if(|_| is_append(request))?;
        let arrive = || runtime.block_on(service.call(request)).map(drop);
        std::thread::scope(|scope| scope.spawn(arrive).join().unwrap()).unwrap();
        None
    });
    let _ = person.say_yes(&token);
    person.ask(Command::ConsentHistory).unwrap();
    person.run().unwrap();
    let second = world.recover("second", &phrase).unwrap();
    second.restore("latest", &world.path("out")).unwrap();
    assert_same(&docs, &world.path("out/docs"));
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn no_head_is_sent_after_the_service_was_switched_off() {
    let puts = |world: &World| world.wire.paths("PUT");
    let is_object = |path: &str| path.contains("/objects/");
    let honest = World::new();
    let (person, _) = honest.create("home");
    person.add(&honest.tree("docs"));
    person.consent();
    person.run().unwrap();
    let objects = puts(&honest).iter().filter(|one| is_object(one)).count();
    // The same again; off comes while the last object is acknowledged.
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let person = Arc::new(person);
    let (other, stored) = (Arc::clone(&person), AtomicUsize::new(0));
    world.wire.twist(move |request, reply| {
        let is_put = request.method() == "PUT" && is_object(request.uri().path());
        if is_put && stored.fetch_add(1, Ordering::SeqCst) + 1 == objects {
            std::thread::scope(|scope| scope.spawn(|| other.off()).join().unwrap()).unwrap();
        }
        reply
    });
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!(puts(&world).len(), objects);
    assert!(puts(&world).iter().all(|one| is_object(one)));
}

/// The cell has the yes, the device never heard so, and the person changes their mind.
#[test]
fn off_after_a_yes_without_an_answer_is_off() {
    for arrives_before_off in [true, false] {
        let world = World::new();
        let (person, _) = world.create("home");
        person.add(&world.tree("docs"));
        let held: Arc<Mutex<Option<http::Request<bytes::Bytes>>>> = Arc::default();
        let late = Arc::clone(&held);
        world.wire.answer(move |request| {
            let is_append = request.method() == "POST" && request.uri().path().ends_with("/chain");
            is_append.then(|| {
                *held.lock().unwrap() = Some(request.clone());
                Err(TransportError::TimedOut)
            })
        });
        let token = person.propose().token;
        assert_eq!(
            person.say_yes(&token).unwrap_err().kind,
            FailureKind::Unreachable
        );
        world.wire.honest();
        let arrive = || {
            let request = late.lock().unwrap().take().unwrap();
            let reply = world.runtime.block_on(world.inner().call(request)).unwrap();
            reply.status().is_success()
        };
        if arrives_before_off {
            assert!(arrive());
        }
        person.off().unwrap();
        if !arrives_before_off {
            assert!(!arrive(), "the chain went on without it");
        }
        let history = person.ask(Command::ConsentHistory).unwrap();
        assert!(!states(&history).contains(&"live"), "{history:?}");
        let failure = person.run().unwrap_err();
        assert_eq!(failure.kind, FailureKind::NoConsent);
        assert_eq!(world.wire.paths("PUT"), Vec::<String>::new());
        // A new yes counts.
        person.consent();
        person.run().unwrap();
    }
}
