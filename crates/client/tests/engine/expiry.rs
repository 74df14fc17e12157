//! When a consent ends: at once, everywhere, and not by the cell's clock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use candor_client::commands::{Command, FailureKind};
use candor_wire::Millis;
use candor_wire::api::{Appended, ChainPage, ErrorCode};
use candor_wire::cbor;
use candor_wire::cell::{Acknowledgement, SignedAcknowledgement};
use candor_wire::statement::Kind;
use candor_wire::time::DAY_MS;

use crate::log::monitor;
use crate::lying_log::{
    Forged, assert_alarmed, label_of, now_s, padding, place_of, real_leaves, reply,
};
use crate::world::{World, noise};

#[test]
fn b28_a_withdrawal_stops_another_devices_running_transfer_at_the_next_object() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let docs = world.path("docs");
    std::fs::create_dir(&docs).unwrap();
    let mut state = 3_u64;
    for file in 0..10 {
        let noise = noise(&mut state, 9_000_000);
        std::fs::write(docs.join(format!("{file}")), noise).unwrap();
    }
    person.add(&docs);
    person.consent();
    let second = world.recover("second", &phrase).unwrap();
    let is_object = |request: &http::Request<bytes::Bytes>| {
        request.method() == "PUT" && request.uri().path().contains("/objects/")
    };
    let withdrawn = Arc::new(AtomicBool::new(false));
    // Every object but the first is sent once the withdrawal was acknowledged.
    let (began, is_over) = (AtomicUsize::new(0), Arc::clone(&withdrawn));
    world.wire.answer(move |request| {
        if is_object(request) && began.fetch_add(1, Ordering::SeqCst) > 0 {
            while !is_over.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        None
    });
    let replies: Arc<Mutex<Vec<u16>>> = Arc::default();
    let (seen, over) = (Arc::clone(&replies), Arc::clone(&withdrawn));
    let second = Arc::new(second);
    let other = Arc::clone(&second);
    world.wire.twist(move |request, passed| {
        if is_object(request) {
            seen.lock().unwrap().push(passed.status().as_u16());
            if !over.load(Ordering::SeqCst) {
                std::thread::scope(|scope| scope.spawn(|| other.off()).join().unwrap()).unwrap();
                over.store(true, Ordering::SeqCst);
            }
        }
        passed
    });
    let failure = person.run().unwrap_err();
    assert_eq!(failure.kind, FailureKind::NoConsent, "{failure:?}");
    let replies = replies.lock().unwrap().clone();
    let (first, late) = replies.split_first().unwrap();
    assert!(
        (200..300).contains(first) && !late.is_empty(),
        "{replies:?}"
    );
    let refused = ErrorCode::NoConsent.status();
    assert!(late.iter().all(|status| *status == refused), "{replies:?}");
    let heads = world.wire.paths("PUT");
    assert!(heads.iter().all(|path| path.contains("/objects/")));
    world.wire.honest();
    // The withdrawal is in the log, and this device knows that it is off.
    let view = monitor(&second);
    assert_eq!(view.found, view.statements);
    let before = world.wire.paths("PUT").len();
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!(world.wire.paths("PUT").len(), before);
}

#[test]
fn a52_an_end_does_not_rest_on_the_servers_clock() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    person.run().unwrap();
    // To the cell it is a year ago, and it says so with everything that it signs and refuses.
    world.clock.forward_ms(370 * DAY_MS);
    let before = world.wire.count();
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!(world.wire.count(), before, "nobody was asked");
    assert_eq!(person.status().sets[0].consent, "ended");
    // Set back, this device's own clock brings nothing back to life either; not after a restart.
    world.clock.forward_ms(-370 * DAY_MS);
    let person = world.reopen(person);
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!(world.wire.count(), before);
    let status = person.status();
    assert_eq!(status.sets[0].consent, "ended");
    assert!(status.services.iter().all(|service| !service.on));
    // A new yes is a new consent.
    person.consent();
    person.run().unwrap();
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn a52_an_acknowledgement_can_end_a_consent_earlier_and_never_later() {
    for (days, consent) in [(400, "ended"), (-400, "on")] {
        let world = World::new();
        let (person, _) = world.create("home");
        person.add(&world.tree("docs"));
        acknowledge_at(&world, days);
        person.consent();
        assert_eq!(person.status().sets[0].consent, consent);
        if days > 0 {
            let before = world.wire.count();
            assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
            assert_eq!(world.wire.count(), before);
        } else {
            world.clock.forward_ms(370 * DAY_MS);
            assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
        }
    }
}

#[test]
fn a52_an_acknowledgement_from_the_future_gives_the_log_no_time() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    acknowledge_at(&world, 300);
    person.consent();
    let label = label_of(person.engine.home(), Kind::ConsentGiven, 0);
    let mut leaves = loop {
        let leaves = real_leaves(&world);
        let is_there = leaves.iter().any(|leaf| leaf.label == label);
        if is_there && leaves.last().unwrap().state_map_version().is_some() {
            break leaves;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    let place = place_of(&leaves, label);
    leaves[place] = padding(3);
    Forged::of(&world, &leaves).serve(&world);
    let failure = person.ask(Command::LogMonitor).unwrap_err();
    assert_alarmed(&person, &failure, "MISSING");
}

/// From now on the cell dates what it acknowledges so many days from now.
fn acknowledge_at(world: &World, days: i64) {
    let secret = world.secret_of_the_cell("acknowledgement.key");
    let time = Millis(i64::try_from(now_s(world)).unwrap() * 1000).plus_ms(days * DAY_MS);
    let dated = move |signed: &mut SignedAcknowledgement| {
        let mut acknowledgement: Acknowledgement = cbor::decode(&signed.acknowledgement).unwrap();
        acknowledgement.time = time;
        *signed = SignedAcknowledgement::sign(&acknowledgement, &secret);
    };
    world.wire.twist(move |request, passed| {
        if passed.status() != 200 || !request.uri().path().ends_with("/chain") {
            return passed;
        }
        if request.method() == "POST" {
            let mut appended: Appended = cbor::decode(passed.body()).unwrap();
            appended.acknowledgements.iter_mut().for_each(&dated);
            return reply(200, cbor::encode(&appended));
        }
        let mut page: ChainPage = cbor::decode(passed.body()).unwrap();
        let signed = page.records.iter_mut();
        signed
            .filter_map(|record| record.acknowledgement.as_mut())
            .for_each(&dated);
        reply(200, cbor::encode(&page))
    });
}
