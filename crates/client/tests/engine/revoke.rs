//! Taking a device out of the account: it gets nothing more, and nothing that it signs counts, whoever helps it.

use std::sync::{Arc, Mutex};

use candor_client::commands::{
    Command, Failure, FailureKind, RevokedView, SnapshotView, Stored, View,
};
use candor_client::keystore::KeyStore;
use candor_client::{RecoveryPhrase, account};
use candor_testkit::hostile::lost;
use candor_vault::SystemEntropy;
use candor_wire::api::{API_VERSION, HeadReply};
use candor_wire::cbor;
use candor_wire::epoch::EpochRecord;
use candor_wire::head::{Head, SignedHead};
use candor_wire::statement::{Body, DeviceAdded, Kind, Role};

use crate::hostile::{assert_refused, forged, ids, is, records, rogue, twist_chain, with_body};
use crate::re_anchor::copy;
use crate::world::{Person, World, assert_same};

fn revoke(person: &Person, device: &str) -> Result<RevokedView, Failure> {
    let device = device.to_owned();
    match person.ask(Command::DeviceRevoke { device })? {
        View::Revoked(view) => Ok(view),
        other => panic!("{other:?}"),
    }
}

fn keys_of(world: &World, home: &str) -> KeyStore {
    let file = world.path(home).join("keys");
    KeyStore::open(&file, None, Arc::new(SystemEntropy)).unwrap()
}

fn snapshots(person: &Person) -> Vec<SnapshotView> {
    match person.ask(Command::BackupSnapshots { set: None }).unwrap() {
        View::Snapshots(list) => list,
        other => panic!("{other:?}"),
    }
}

/// Two full devices of one account, each with a backup of its own.
fn two(world: &World) -> (Person, Person, RecoveryPhrase) {
    let (home, phrase) = world.create("home");
    let laptop = world.recover("laptop", &phrase).unwrap();
    for (person, name) in [(&home, "at-home"), (&laptop, "on-laptop")] {
        person.add(&world.tree(name));
        person.consent();
        person.run().unwrap();
    }
    (home, laptop, phrase)
}

#[test]
fn a_revoked_device_is_out_and_the_others_go_on() {
    let world = World::new();
    let (home, laptop, phrase) = two(&world);
    let done = revoke(&home, "laptop").unwrap();
    assert!(!done.was_revoked && done.device.revoked_ms.is_some());
    assert_eq!(
        (done.device.name.as_deref(), done.renewed, done.left),
        // The account's key, and those of two vaults.
        (Some("laptop"), 3, 0)
    );
    for failure in [
        laptop.run().unwrap_err(),
        laptop.restore("latest", &world.path("out")).unwrap_err(),
        laptop.ask(Command::DeviceList).unwrap_err(),
        revoke(&laptop, "home").unwrap_err(),
    ] {
        assert_eq!(failure.kind, FailureKind::Policy, "{failure:?}");
        assert!(failure.sentence.contains("revoked"), "{failure:?}");
    }
    assert!(!world.path("out").exists());
    // What comes now is under keys that it does not hold; what it stored is there for the others.
    std::fs::write(world.path("at-home/new.txt"), "new").unwrap();
    home.run().unwrap();
    let newest = keys_of(&world, "home").keys(None).unwrap().newest();
    assert!(keys_of(&world, "laptop").keys(None).unwrap().newest() < newest);
    let out = world.path("back");
    home.restore("on-laptop:latest", &out).unwrap();
    assert_same(&world.path("on-laptop"), &out.join("on-laptop"));
    let fresh = world.recover("fresh", &phrase).unwrap();
    assert_eq!(snapshots(&fresh).len(), 3);
    let out = world.path("all");
    fresh.restore("at-home:latest", &out).unwrap();
    assert_same(&world.path("at-home"), &out.join("at-home"));
    let View::Devices(devices) = fresh.ask(Command::DeviceList).unwrap() else {
        panic!("another view")
    };
    let gone: Vec<&str> = devices
        .iter()
        .filter(|device| device.revoked_ms.is_some())
        .map(|device| device.name.as_deref().unwrap())
        .collect();
    assert_eq!(gone, ["laptop"]);
    // Once more changes nothing.
    let again = revoke(&home, "laptop").unwrap();
    assert!(again.was_revoked && again.renewed == 0);
    for person in [&home, &fresh] {
        person.ask(Command::LogMonitor).unwrap();
        assert_eq!(person.alarms(), Vec::<String>::new());
    }
}

#[test]
fn a_device_is_named_by_one_name_and_is_another_one() {
    let world = World::new();
    let (home, _, phrase) = two(&world);
    let writer = world.recover_writer("server", &phrase);
    let twin = world.recover("twin", &phrase).unwrap();
    let itself = ids(&home).device.to_string();
    for name in ["home", &itself, "nobody", ""] {
        let failure = revoke(&home, name).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage, "{name}: {failure:?}");
    }
    let failure = revoke(&writer, "laptop").unwrap_err();
    assert_eq!(failure.kind, FailureKind::Policy);
    // A name that looks like the beginning of another one's id means the name.
    let id = ids(&twin).device.to_string();
    let _named = world.recover(&id[..2], &phrase).unwrap();
    let done = revoke(&home, &id[..2]).unwrap();
    assert_eq!(done.device.name.as_deref(), Some(&id[..2]));
    // By the beginning of its id; a write-only device, which holds no keys, as well.
    revoke(&home, &id[..12]).unwrap();
    revoke(&home, "server").unwrap();
    assert_eq!(writer.run().unwrap_err().kind, FailureKind::Usage);
    writer.add(&world.tree("tree"));
    assert_eq!(home.alarms(), Vec::<String>::new());
}

/// A revocation that is interrupted before all keys are renewed: nobody writes under the old ones, and asking again
/// goes on where it stopped.
#[test]
fn a05_what_an_interrupted_revocation_left_is_renewed_before_anybody_writes() {
    let world = World::new();
    let (home, _laptop, phrase) = two(&world);
    // So many vaults that their keys do not fit into one append.
    for number in 0..10 {
        drop(world.recover_writer(&format!("writer{number}"), &phrase));
    }
    let appended = Mutex::new(0);
    world.wire.answer(move |request| {
        let mut appended = appended.lock().unwrap();
        *appended += usize::from(is(request, "POST", "/chain"));
        (*appended > 1).then(|| Err(lost()))
    });
    let failure = revoke(&home, "laptop").unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    world.wire.honest();
    std::fs::write(world.path("at-home/new.txt"), "new").unwrap();
    home.run().unwrap();
    let chain = records(&world.path("home"));
    let laptop = chain
        .iter()
        .rev()
        .find(|one| one.kind == Kind::DeviceRevoked);
    assert!(laptop.is_some());
    let again = revoke(&home, "laptop").unwrap();
    assert!(again.was_revoked && again.renewed > 0, "{again:?}");
    assert_eq!(revoke(&home, "laptop").unwrap().renewed, 0);
    let fresh = world.recover("fresh", &phrase).unwrap();
    let out = world.path("out");
    fresh.restore("at-home:latest", &out).unwrap();
    assert_same(&world.path("at-home"), &out.join("at-home"));
    assert_eq!(home.alarms(), Vec::<String>::new());
}

/// Neither what waits to be erased, nor what a write-only device stored meanwhile, keeps a device in the account.
#[test]
fn a06_a_revocation_waits_for_nothing() {
    let world = World::new();
    let (home, laptop, phrase) = two(&world);
    let writer = world.recover_writer("server", &phrase);
    let logs = world.tree("logs");
    writer.add(&logs);
    writer.consent();
    writer.run().unwrap();
    assert_eq!(snapshots(&home).len(), 3);
    for number in 0..3 {
        std::fs::write(logs.join("more"), format!("{number}")).unwrap();
        writer.run().unwrap();
    }
    laptop
        .ask(Command::ConsentOff {
            service: "backup".to_owned(),
            set: None,
            stored: Stored::Erased,
        })
        .unwrap();
    revoke(&home, "laptop").unwrap();
    revoke(&home, "server").unwrap();
    assert_eq!(writer.run().unwrap_err().kind, FailureKind::Policy);
    let out = world.path("out");
    home.restore("logs:latest", &out).unwrap();
    assert_same(&logs, &out.join("logs"));
    // It had switched backups off for all.
    home.consent();
    home.run().unwrap();
    assert_eq!(home.alarms(), Vec::<String>::new());
}

/// A stolen device that revoked all the others: the phrase puts it out, and nobody gets in between.
#[test]
fn a06_the_phrase_alone_revokes_whoever_is_left() {
    let world = World::new();
    let (home, laptop, phrase) = two(&world);
    revoke(&laptop, "home").unwrap();
    assert_eq!(home.run().unwrap_err().kind, FailureKind::Policy);
    let fresh = world.recover_alone("fresh", &phrase);
    assert_eq!(laptop.run().unwrap_err().kind, FailureKind::Policy);
    let View::Devices(devices) = fresh.ask(Command::DeviceList).unwrap() else {
        panic!("another view")
    };
    let live = devices.iter().filter(|device| device.revoked_ms.is_none());
    let live: Vec<_> = live.map(|device| device.name.as_deref()).collect();
    assert_eq!(live, [Some("fresh")]);
    for name in ["at-home", "on-laptop"] {
        let out = world.path(&format!("out of {name}"));
        fresh.restore(&format!("{name}:latest"), &out).unwrap();
        assert_same(&world.path(name), &out.join(name));
    }
    fresh.add(&world.tree("new"));
    fresh.consent();
    fresh.run().unwrap();
    fresh.ask(Command::LogMonitor).unwrap();
    assert_eq!(fresh.alarms(), Vec::<String>::new());
}

/// Another device is revoked while this one backs up for the first time: it goes on under the new keys.
#[test]
fn a05_a_run_that_meets_a_revocation_goes_on_under_the_new_keys() {
    let world = World::new();
    let (home, _laptop, phrase) = two(&world);
    let desk = Arc::new(world.recover("desk", &phrase).unwrap());
    desk.add(&world.tree("on-desk"));
    desk.consent();
    // The moment before the head moves.
    let home = Arc::new(home);
    let (revoker, done) = (Arc::clone(&home), std::sync::Once::new());
    let runs = std::thread::scope(|scope| {
        let (told, tells) = std::sync::mpsc::channel::<()>();
        let (go, goes) = std::sync::mpsc::channel::<()>();
        let (told, goes) = (Mutex::new(told), Mutex::new(goes));
        world.wire.answer(move |request| {
            if is(request, "PUT", "/head") {
                done.call_once(|| {
                    told.lock().unwrap().send(()).unwrap();
                    goes.lock().unwrap().recv().unwrap();
                });
            }
            None
        });
        let running = scope.spawn(|| desk.run());
        tells.recv().unwrap();
        revoke(&revoker, "laptop").unwrap();
        go.send(()).unwrap();
        running.join().unwrap()
    });
    runs.unwrap();
    world.wire.honest();
    let out = world.path("out");
    home.restore("on-desk:latest", &out).unwrap();
    assert_same(&world.path("on-desk"), &out.join("on-desk"));
    for person in [&home, &desk] {
        assert_eq!(person.alarms(), Vec::<String>::new());
    }
}

/// The cell was put back to before a revocation, and went on without it: it is said again.
#[test]
fn a06_a_revocation_that_does_not_come_back_is_said_again() {
    let mut world = World::new();
    let (home, laptop, _) = two(&world);
    let kept = world.path("kept");
    copy(&world.path("cell/store"), &kept);
    revoke(&home, "laptop").unwrap();
    let place = home.engine.home().to_owned();
    drop((home, laptop));
    world.put_cell_back(&kept);
    let home = Person {
        engine: world.open(&place).unwrap(),
    };
    let laptop = Person {
        engine: world.open(&world.path("laptop")).unwrap(),
    };
    // The laptop knows nothing of it, and states something first.
    laptop.off().unwrap();
    let View::ReAnchor(shown) = home.ask(Command::ReAnchorPropose).unwrap() else {
        panic!("another view")
    };
    assert_eq!(shown.offered, 0);
    let token = shown.token;
    home.ask(Command::ReAnchorAccept { token }).unwrap();
    let failure = laptop.ask(Command::DeviceList).unwrap_err();
    assert!(failure.sentence.contains("revoked"), "{failure:?}");
    home.consent();
    home.run().unwrap();
    let newest = keys_of(&world, "home").keys(None).unwrap().newest();
    assert!(keys_of(&world, "laptop").keys(None).unwrap().newest() < newest);
}

/// The vault's head, as the cell shows it, and what `change` makes of it, signed by the keys of another home.
fn crafted(world: &World, reply: &[u8], home: &str, change: impl Fn(&mut Head)) -> Vec<u8> {
    let shown: HeadReply = cbor::decode(reply).unwrap();
    let before = shown.head.unwrap();
    let mut head = before.peek().unwrap();
    head.previous = Some(before.hash());
    head.counter += 1;
    let keys = keys_of(world, home);
    head.device = keys.device();
    change(&mut head);
    cbor::encode(&HeadReply {
        version: API_VERSION,
        head: Some(SignedHead::sign(&head, keys.signing().ed25519())),
    })
}

/// What the cell answers about the head of home's vault now.
fn head_now(world: &World, person: &Person) -> Vec<u8> {
    let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
    let keep = Arc::clone(&kept);
    world.wire.twist(move |request, reply| {
        if is(request, "GET", "/head") {
            *keep.lock().unwrap() = reply.body().to_vec();
        }
        reply
    });
    person.run().unwrap();
    world.wire.honest();
    let kept = kept.lock().unwrap().clone();
    assert!(!kept.is_empty());
    kept
}

fn vault_of(head: &[u8]) -> candor_wire::VaultId {
    let shown: HeadReply = cbor::decode(head).unwrap();
    shown.head.unwrap().peek().unwrap().vault
}

fn shows(world: &World, head: Vec<u8>) {
    let vault = vault_of(&head);
    let end = format!("/{vault}/head");
    world.wire.twist(move |request, reply| {
        if is(request, "GET", &end) {
            with_body(&reply, head.clone())
        } else {
            reply
        }
    });
}

/// The cell and the revoked device work together: it signs, with the right key, what the cell serves.
#[test]
fn a06_a_cell_that_helps_a_revoked_device_is_refused() {
    let world = World::new();
    let (home, _laptop, phrase) = two(&world);
    let before = head_now(&world, &home);
    revoke(&home, "laptop").unwrap();
    let fresh = world.recover("fresh", &phrase).unwrap();
    let newest = keys_of(&world, "home").keys(None).unwrap().newest();
    home.ask(Command::DeviceList).unwrap();
    let memory = std::fs::read(world.path("home/memory")).unwrap();
    let heads = [
        // A new one, under its own keys or, as it may claim, under the new ones.
        crafted(&world, &before, "laptop", |_| {}),
        crafted(&world, &before, "laptop", |head| head.epoch = newest),
        // Back-dated: of the same number as the one that was pinned, by a clock of long ago.
        crafted(&world, &before, "laptop", |head| {
            head.counter -= 1;
            head.previous = None;
            head.time = candor_wire::Millis(1);
        }),
    ];
    for head in heads {
        shows(&world, head);
        for person in [&home, &fresh] {
            let alarms = person.alarms().len();
            let failure = person
                .restore("at-home:latest", &world.path("out"))
                .unwrap_err();
            assert_refused(&failure, "revoked device signed");
            assert!(!world.path("out").exists(), "nothing was written");
            assert_eq!(person.alarms().len(), alarms + 1);
        }
        let failure = home.run().unwrap_err();
        assert_refused(&failure, "revoked device signed");
        world.wire.honest();
    }
    assert_eq!(std::fs::read(world.path("home/memory")).unwrap(), memory);
    home.run().unwrap();
    fresh.restore("at-home:latest", &world.path("out")).unwrap();
}

/// A device that was not revoked writes on under the old keys, because the cell told it nothing.
#[test]
fn a05_a_head_under_old_keys_is_flagged() {
    let world = World::new();
    let (home, _laptop, phrase) = two(&world);
    let _phone = world.recover("phone", &phrase).unwrap();
    home.run().unwrap();
    let before = head_now(&world, &home);
    revoke(&home, "laptop").unwrap();
    shows(&world, crafted(&world, &before, "phone", |_| {}));
    let failure = home
        .restore("at-home:latest", &world.path("out"))
        .unwrap_err();
    assert_refused(&failure, "sealed under keys that a revoked device holds");
    assert!(!world.path("out").exists());
    assert_eq!(home.alarms().len(), 1);
}

/// A vault of which the chain names a head, and of which the cell shows none: to a device that never saw it, that
/// would look like one in which nothing was stored yet.
#[test]
fn a06_a_vault_without_the_head_that_the_chain_names_is_refused() {
    let world = World::new();
    let (home, _laptop, phrase) = two(&world);
    let before = head_now(&world, &home);
    revoke(&home, "laptop").unwrap();
    let fresh = world.recover("fresh", &phrase).unwrap();
    let none = HeadReply {
        version: API_VERSION,
        head: None,
    };
    let vault = vault_of(&before);
    let end = format!("/{vault}/head");
    world.wire.twist(move |request, reply| {
        if is(request, "GET", &end) {
            with_body(&reply, cbor::encode(&none))
        } else {
            reply
        }
    });
    let failure = fresh
        .restore("at-home:latest", &world.path("out"))
        .unwrap_err();
    assert_refused(
        &failure,
        "older than the one that the account's chain names",
    );
    assert_eq!(fresh.alarms().len(), 1);
    world.wire.honest();
    fresh.restore("at-home:latest", &world.path("out")).unwrap();
}

/// A head of a number of keys that nobody began would make every later one look like an older state.
#[test]
fn a06_a_head_of_keys_that_do_not_exist_is_refused() {
    let world = World::new();
    let (home, _laptop, phrase) = two(&world);
    let _phone = world.recover("phone", &phrase).unwrap();
    let before = head_now(&world, &home);
    shows(
        &world,
        crafted(&world, &before, "phone", |head| head.epoch = 2_000_000),
    );
    let failure = home
        .restore("at-home:latest", &world.path("out"))
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    assert!(failure.sentence.contains("do not belong together"));
    world.wire.honest();
    home.run().unwrap();
    home.restore("at-home:latest", &world.path("out")).unwrap();
}

/// A cell that puts a device into the account by itself, or lets one in that no full device and no root added.
#[test]
fn a03_a_device_that_the_cell_adds_is_refused() {
    let world = World::new();
    let (home, laptop, _) = two(&world);
    home.ask(Command::DeviceList).unwrap();
    let known = records(&world.path("home"));
    let own = ids(&home);
    let ghost = candor_wire::DeviceId::from_bytes([0xee; 16]);
    let added = Body::DeviceAdded(Box::new(DeviceAdded {
        device: ghost,
        role: Role::Full,
        signing: rogue().public(),
        agreement: [1; 1216],
        sealed_name: Vec::new(),
    }));
    let record = forged(&own, &known, added);
    twist_chain(&world, move |page| {
        page.records.push(record.clone());
        page.length += 1;
    });
    let failure = home.ask(Command::DeviceList).unwrap_err();
    assert_refused(&failure, "is not signed by a key that may state it");
    assert_eq!(
        records(&world.path("home")),
        known,
        "nothing was taken over"
    );
    assert_eq!(home.alarms().len(), 1);
    world.wire.honest();
    // Nor does a revoked device add one, with its real key and the cell's help.
    revoke(&home, "laptop").unwrap();
    drop(laptop);
    let known = records(&world.path("home"));
    let keys = keys_of(&world, "laptop");
    let last = known.last().unwrap();
    let draft = candor_wire::statement::Draft {
        account: own.account,
        signer: Some(keys.device()),
        time: candor_wire::Millis(1),
        label: account::label(&keys, Kind::DeviceAdded, 9).unwrap(),
        salt: candor_wire::ids::Salt::from_bytes([4; 32]),
        body: Body::DeviceAdded(Box::new(DeviceAdded {
            device: ghost,
            role: Role::Full,
            signing: rogue().public(),
            agreement: [1; 1216],
            sealed_name: Vec::new(),
        })),
    };
    let tip = last.statement.as_ref().unwrap().parse().unwrap().link();
    let (statement, _) = draft.sign(last.sequence + 1, tip, &keys.signing());
    let record = candor_wire::chain::Record::of(statement).unwrap();
    twist_chain(&world, move |page| {
        page.records.push(record.clone());
        page.length += 1;
    });
    let failure = home.ask(Command::DeviceList).unwrap_err();
    assert_refused(&failure, "is signed by a device that was revoked");
    assert_eq!(records(&world.path("home")), known);
}

/// A cell that adds itself to those who get a vault's new keys.
#[test]
fn a04_one_more_receiver_of_an_epoch_is_refused() {
    let world = World::new();
    let (home, laptop, phrase) = two(&world);
    // The laptop's backup gets new keys, of which home has not heard yet.
    let extra = world.recover("extra", &phrase).unwrap();
    drop((laptop, extra));
    let known = records(&world.path("home"));
    twist_chain(&world, |page| {
        for record in &mut page.records {
            let Some(statement) = &record.statement else {
                continue;
            };
            let parsed = statement.parse().unwrap();
            let Body::Epoch(epoch) = &parsed.body else {
                continue;
            };
            let mut wraps = epoch.wraps.clone();
            let mut ghost = wraps[0].clone();
            ghost.recipient = Some(candor_wire::DeviceId::from_bytes([0xff; 16]));
            wraps.push(ghost);
            let altered = EpochRecord {
                wraps,
                ..(**epoch).clone()
            };
            let mut entry = parsed.entry.clone();
            entry.body = cbor::encode(&altered);
            let signed = candor_wire::statement::SignedEntry {
                entry: cbor::encode(&entry),
                signature: parsed.signature.clone(),
            };
            let statement = candor_wire::statement::Statement {
                signed: cbor::encode(&signed),
                salt: statement.salt,
            };
            *record = candor_wire::chain::Record::of(statement).unwrap();
        }
    });
    let failure = home.ask(Command::DeviceList).unwrap_err();
    assert_refused(&failure, "is not signed by a key that may state it");
    assert_eq!(records(&world.path("home")), known);
    assert_eq!(home.alarms().len(), 1);
}

/// The cell was put back to a state before the revocation. Nobody was wrong, and the device stays out.
#[test]
fn a06_a_restored_cell_gets_the_revocation_back() {
    let mut world = World::new();
    let (home, laptop, _) = two(&world);
    let kept = world.path("kept");
    copy(&world.path("cell/store"), &kept);
    std::fs::write(world.path("on-laptop/new.txt"), "new").unwrap();
    laptop.run().unwrap();
    revoke(&home, "laptop").unwrap();
    let place = home.engine.home().to_owned();
    drop((home, laptop));
    world.put_cell_back(&kept);
    let home = Person {
        engine: world.open(&place).unwrap(),
    };
    let laptop = Person {
        engine: world.open(&world.path("laptop")).unwrap(),
    };
    assert_eq!(home.run().unwrap_err().kind, FailureKind::Integrity);
    let View::ReAnchor(shown) = home.ask(Command::ReAnchorPropose).unwrap() else {
        panic!("another view")
    };
    let kinds: Vec<&str> = shown.lost.iter().map(|lost| lost.kind.as_str()).collect();
    assert!(kinds.contains(&"a device was revoked"), "{kinds:?}");
    let token = shown.token;
    home.ask(Command::ReAnchorAccept { token }).unwrap();
    let failure = laptop.run().unwrap_err();
    assert!(failure.sentence.contains("revoked"), "{failure:?}");
    home.run().unwrap();
    let alarms = home.alarms().len();
    let out = world.path("out");
    home.restore("on-laptop:latest", &out).unwrap();
    assert!(out.join("on-laptop/a.txt").exists());
    home.restore("at-home:latest", &world.path("more")).unwrap();
    assert_eq!(home.alarms().len(), alarms);
}
