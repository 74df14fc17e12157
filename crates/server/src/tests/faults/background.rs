//! What the cell does by itself, over a store that fails: it is done once the store is well again, with nobody's help.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use candor_store::faulty::{Call, FaultKind, Faults};
use candor_store::{ObjectKey, ObjectState, Reservation};
use candor_wire::api::{API_VERSION, EndpointId, SwapHead};
use candor_wire::cbor;
use candor_wire::erasure::receipt_name;
use candor_wire::head::{HeadHash, SignedHead};
use candor_wire::ids::{ObjectId, Salt};
use candor_wire::time::DAY_MS;

use super::{Promised, fresh_object, has_erased, key, the_log_has};
use crate::housekeeping::sweep;
use crate::tests::transparency::{files, step};
use crate::tests::world::{Ask, Person, World};
use crate::transparency::LogFault;

/// How long the cell may take until its log says everything, once the store is well: a pause after a failure takes
/// five seconds, and both of the log's tasks may be in one.
const RECOVERED_MAX: Duration = Duration::from_secs(30);

/// What strikes every call that it can strike.
fn faults_of(calls: &[Call]) -> Vec<(usize, FaultKind)> {
    let all = calls.iter().enumerate().flat_map(|(place, call)| {
        let kinds = FaultKind::ALL.into_iter();
        kinds
            .filter(|kind| call.can_meet(*kind))
            .map(move |kind| (place, kind))
    });
    all.collect()
}

async fn consents_again(world: &World, person: &mut Person, promised: &mut Promised) {
    person.consents(world).await;
    promised.chain(person);
}

/// What a round of the log cannot do without.
const OF_A_ROUND: [&str; 8] = [
    "log_tree",
    "log_batch",
    "sequence",
    "sequenced_entries",
    "map_inputs",
    "put",
    "advance",
    "replace",
];

/// Each call of a round of the log fails in each way. Nothing is published that is not so, and the next round says all.
/// With `anew`, the round is the first of a cell that was just started, and every other time the next one is, too.
async fn the_log_survives(anew: bool, kinds: &[FaultKind]) {
    let faults = Faults::default();
    let mut world = World::over(&faults, |_| {}).await;
    let mut person = world.person().await;
    let mut promised = Promised::default();
    step(&world).await;
    let mut struck_names = BTreeSet::new();
    for place in 0.. {
        let mut calls = 0;
        for kind in kinds.iter().copied() {
            consents_again(&world, &mut person, &mut promised).await;
            let before = published_size(&world);
            if anew {
                world = world.restarted().await;
            }
            faults.strike(place, kind);
            let round = world.cell.shared().transparency.step().await;
            calls = calls.max(faults.calls().len());
            let struck = faults.stop();
            struck_names.extend(struck.iter().map(|(call, _)| call.name));
            let is_whole = struck.is_empty() || kind == FaultKind::Slow;
            assert_eq!(round.is_ok(), is_whole, "{struck:?}: {round:?}");
            // A disk that fails is not told as a log that does not fit together.
            let is_named = matches!(
                round,
                Ok(_) | Err(LogFault::Records(_) | LogFault::Files(_))
            );
            assert!(is_named, "{struck:?}: {round:?}");
            assert!(published_size(&world) >= before);
            if anew && place % 2 == 1 {
                world = world.restarted().await;
            }
            step(&world).await;
            assert!(published_size(&world) > before);
            promised.is_kept(&world).await;
            the_log_has(&world, &promised.chains).await;
        }
        if calls <= place {
            break;
        }
    }
    for name in OF_A_ROUND {
        assert!(struck_names.contains(name), "{name} was never struck");
    }
}

/// Of the checkpoint in the file.
fn published_size(world: &World) -> u64 {
    let text = std::fs::read_to_string(files(world).0.join("checkpoint")).unwrap();
    text.lines().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_survives_every_fault_of_every_call() {
    the_log_survives(false, &FaultKind::ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_just_started_survives_every_fault_of_every_call() {
    let kinds = [FaultKind::Fails, FaultKind::Lost, FaultKind::Full];
    the_log_survives(true, &kinds).await;
}

/// A vault with what nobody needs any more: an object that its head condemned, an upload that never came, and nonces;
/// and another one that is to be erased.
struct Littered {
    condemned: ObjectKey,
    lost: ObjectKey,
    erased: Salt,
}

struct Keeper {
    person: Person,
    head: Option<HeadHash>,
    counter: u64,
}

async fn litter(world: &World, keeper: &mut Keeper, promised: &mut Promised) -> Littered {
    let grant = keeper.person.consents(world).await;
    let person = &keeper.person;
    let (manifest, unneeded) = (fresh_object(world), fresh_object(world));
    for object in [&manifest, &unneeded] {
        assert_eq!(
            person.outcome(world, &person.putting(object, &grant)).await,
            None
        );
    }
    keeper.counter += 1;
    let place = (keeper.counter, keeper.head, ObjectId::of(&manifest));
    let head: SignedHead = person.condemning(world, place, vec![ObjectId::of(&unneeded)]);
    let body = SwapHead {
        version: API_VERSION,
        expected: keeper.head,
        head: head.clone(),
        rescued: None,
    };
    let ask = Ask {
        body: cbor::encode(&body).into(),
        ..person.ask(EndpointId::SwapHead, grant)
    };
    assert_eq!(person.outcome(world, &ask).await, None);
    keeper.head = Some(head.hash());
    promised.chain(person);
    promised.head(person, keeper.counter, &head);
    promised.object(person, &manifest);
    let lost = Reservation {
        key: key(person, &fresh_object(world)),
        size: 64 * 1024,
        now: world.now(),
    };
    let records = world.cell.shared().store().records();
    records.reserve(None, lost).await.unwrap();
    Littered {
        condemned: key(person, &unneeded),
        lost: lost.key,
        erased: has_erased(world).await,
    }
}

async fn is_swept(world: &World, littered: &Littered, person: &Person) {
    let store = world.cell.shared().store();
    let (records, objects) = (store.records(), store.objects());
    for key in [littered.condemned, littered.lost] {
        let entry = records.object(key).await.unwrap();
        assert!(entry.is_none(), "{entry:?}");
        assert_eq!(objects.head(key).await.unwrap(), None);
    }
    let totals = records.account(person.account).await.unwrap().unwrap();
    assert_eq!(totals.reserved_bytes, 0);
    let erasures = store.erasures();
    let receipt = erasures.receipt(receipt_name(&littered.erased));
    assert!(receipt.await.unwrap().is_some(), "not erased");
}

/// Each call of a round of housekeeping fails in each way. Nothing goes that is needed, what is not needed goes in the
/// next round, and quota and disk agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn housekeeping_survives_every_fault_of_every_call() {
    let faults = Faults::default();
    let world = World::over(&faults, |config| config.retention_days = 1).await;
    let mut keeper = Keeper {
        person: world.person().await,
        head: None,
        counter: 0,
    };
    let mut promised = Promised::default();
    // A cell whose log was never signed since its start deletes nothing.
    step(&world).await;
    let littered = litter(&world, &mut keeper, &mut promised).await;
    world.advance(2 * DAY_MS);
    faults.stop();
    sweep(world.cell.shared()).await;
    let calls = faults.calls();
    is_swept(&world, &littered, &keeper.person).await;
    let names: Vec<&str> = calls.iter().map(|call| call.name).collect();
    for needed in [
        "sweep_nonces",
        "sweep_links",
        "let_condemned_go",
        "releasing",
        "delete",
        "finish_release",
        "due",
        "begin",
        "let_objects_go",
        "erase",
        "erase_rows",
        "settle",
        "finish",
        "sweep_receipts",
    ] {
        assert!(names.contains(&needed), "{names:?}");
    }
    for (place, kind) in faults_of(&calls) {
        let littered = litter(&world, &mut keeper, &mut promised).await;
        world.advance(2 * DAY_MS);
        faults.strike(place, kind);
        sweep(world.cell.shared()).await;
        assert_eq!(faults.stop().len(), 1, "{kind:?} at call {place}");
        promised.is_kept(&world).await;
        for key in [littered.condemned, littered.lost] {
            let entry = world
                .cell
                .shared()
                .store()
                .records()
                .object(key)
                .await
                .unwrap();
            // What can be read has its bytes: it lost its name before it lost them.
            if entry.is_some_and(|entry| entry.state == ObjectState::Stored) {
                assert!(
                    world
                        .cell
                        .shared()
                        .store()
                        .objects()
                        .head(key)
                        .await
                        .unwrap()
                        .is_some()
                );
            }
        }
        sweep(world.cell.shared()).await;
        is_swept(&world, &littered, &keeper.person).await;
        promised.is_kept(&world).await;
    }
}

/// With every second call struck for a while, the cell's own tasks go on, and afterwards its log has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cell_recovers_by_itself() {
    let faults = Faults::default();
    let world = World::over(&faults, |_| {}).await;
    let mut person = world.person().await;
    let mut promised = Promised::default();
    world.cell.start();
    for round in 0..20 {
        faults.strike_at_random(round, 2);
        tokio::time::sleep(Duration::from_millis(100)).await;
        faults.stop();
        consents_again(&world, &mut person, &mut promised).await;
    }
    let recovering = Instant::now();
    loop {
        let published = world.cell.shared().transparency.published();
        let tree = world.cell.shared().log_records().log_tree().await.unwrap();
        let queued = world
            .cell
            .shared()
            .log_records()
            .log_batch()
            .await
            .unwrap()
            .queued;
        let size = published
            .checkpoint
            .map_or(0, |checkpoint| checkpoint.head().size);
        if queued.is_empty() && size > 0 && size == tree.sequenced {
            break;
        }
        assert!(recovering.elapsed() < RECOVERED_MAX, "the log stands still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    promised.is_kept(&world).await;
    the_log_has(&world, &promised.chains).await;
}
