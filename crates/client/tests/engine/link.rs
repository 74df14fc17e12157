//! Taking a new device in with a code: both sides, and everybody between them.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use candor_client::Cancel;
use candor_client::EnrolParams;
use candor_client::commands::{
    Command, DeviceView, Failure, FailureKind, LinkAskView, SnapshotView, View,
};
use candor_client::engine;
use candor_wire::api::{ChainPage, LinkReply};
use candor_wire::cbor;
use candor_wire::linking::{LINK_MAX_MS, LinkCode, LinkPlace, SignedVerdict, Verdict};
use candor_wire::statement::Role;

use crate::hostile::{assert_refused, is, rogue, with_body};
use crate::world::{Person, World, assert_same};

fn code(person: &Person, write_only: bool) -> LinkCode {
    match person.ask(Command::DeviceLink { write_only }).unwrap() {
        View::LinkCode(view) => LinkCode::from_text(&view.code).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn asked(person: &Person) -> Result<LinkAskView, Failure> {
    match person.ask(Command::DeviceLinkWait)? {
        View::LinkAsk(view) => Ok(view),
        other => panic!("{other:?}"),
    }
}

fn answer(person: &Person, digits: &str, accept: bool) -> Result<View, Failure> {
    let digits = digits.to_owned();
    person.ask(Command::DeviceLinkAnswer { accept, digits })
}

/// The new device's side, which tells its digits to `tell`.
fn join(
    world: &World,
    home: &str,
    code: &LinkCode,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<Person, Failure> {
    let params = EnrolParams {
        role: code.role,
        ..world.params(home, code.cell.clone())
    };
    let engine = engine::join_account(params, code, tell, &Cancel::default())?;
    Ok(Person { engine })
}

/// Both sides at once: what the old device was asked, what the new one showed, and the new one, if it was taken in.
fn link(
    world: &World,
    person: &Person,
    home: &str,
    (write_only, accept): (bool, bool),
) -> (LinkAskView, String, Result<Person, Failure>) {
    let code = code(person, write_only);
    let (tells, told): (_, Receiver<String>) = channel();
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| {
            join(world, home, &code, &mut |digits: &str| {
                tells.send(digits.to_owned()).unwrap();
            })
        });
        let asked = asked(person).unwrap();
        let shown = told.recv().unwrap();
        answer(person, &asked.digits, accept).unwrap();
        (asked, shown, joining.join().unwrap())
    })
}

fn snapshots(person: &Person) -> Vec<SnapshotView> {
    match person.ask(Command::BackupSnapshots { set: None }).unwrap() {
        View::Snapshots(list) => list,
        other => panic!("{other:?}"),
    }
}

fn devices(person: &Person) -> Vec<DeviceView> {
    match person.ask(Command::DeviceList).unwrap() {
        View::Devices(list) => list,
        other => panic!("{other:?}"),
    }
}

/// Somebody with a backup.
fn with_backup(world: &World) -> Person {
    let (home, _) = world.create("home");
    home.add(&world.tree("at-home"));
    home.consent();
    home.run().unwrap();
    home
}

#[test]
fn a_new_device_joins_with_a_code_and_opens_everything() {
    let world = World::new();
    let home = with_backup(&world);
    let (asked, shown, phone) = link(&world, &home, "phone", (false, true));
    let phone = phone.unwrap();
    assert_eq!(asked.digits, shown);
    assert_eq!(
        (asked.name.as_str(), asked.role.as_str()),
        ("phone", "full")
    );
    assert_eq!(shown.len(), "123 456".len());
    let names: Vec<_> = devices(&home)
        .into_iter()
        .map(|one| one.name.unwrap())
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"home".to_owned()) && names.contains(&"phone".to_owned()));
    let out = world.path("out");
    phone.restore("at-home:latest", &out).unwrap();
    assert_same(&world.path("at-home"), &out.join("at-home"));
    // Nothing is on at the new device; then it backs up, and the old one reads that.
    phone.add(&world.tree("on-phone"));
    assert_eq!(phone.run().unwrap_err().kind, FailureKind::NoConsent);
    phone.consent();
    phone.run().unwrap();
    let out = world.path("more");
    home.restore("on-phone:latest", &out).unwrap();
    assert_same(&world.path("on-phone"), &out.join("on-phone"));
    let phone = world.reopen(phone);
    for person in [&home, &phone] {
        assert_eq!(snapshots(person).len(), 2);
        person.ask(Command::LogMonitor).unwrap();
        assert_eq!(person.alarms(), Vec::<String>::new());
    }
    // It can take in the next one, and put the first one out.
    let (_, _, third) = link(&world, &phone, "third", (false, true));
    let third = third.unwrap();
    let revoking = Command::DeviceRevoke {
        device: "home".to_owned(),
    };
    third.ask(revoking).unwrap();
    assert_eq!(home.run().unwrap_err().kind, FailureKind::Policy);
    phone.run().unwrap();
}

#[test]
fn a_write_only_device_joins_with_a_code() {
    let world = World::new();
    let home = with_backup(&world);
    let (asked, shown, server) = link(&world, &home, "server", (true, true));
    let server = server.unwrap();
    assert_eq!((asked.role.as_str(), asked.digits), ("write-only", shown));
    let logs = world.tree("logs");
    server.add(&logs);
    server.consent();
    server.run().unwrap();
    assert!(server.restore("latest", &world.path("nothing")).is_err());
    let refused = server.ask(Command::DeviceLink { write_only: true });
    assert_eq!(refused.unwrap_err().kind, FailureKind::Policy);
    let out = world.path("out");
    home.restore("logs:latest", &out).unwrap();
    assert_same(&logs, &out.join("logs"));
    for person in [&home, &server] {
        person.ask(Command::LogMonitor).unwrap();
        assert_eq!(person.alarms(), Vec::<String>::new());
    }
}

#[test]
fn whoever_is_not_taken_in_gets_nothing() {
    let world = World::new();
    let home = with_backup(&world);
    let length = world.kinds(&home).len();
    let (_, _, refused) = link(&world, &home, "phone", (false, false));
    let failure = refused.map(drop).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Policy);
    assert!(failure.sentence.contains("did not take"), "{failure:?}");
    home.ask(Command::DeviceList).unwrap();
    assert_eq!(world.kinds(&home).len(), length, "nothing was stated");
    // The same folder may try again, and a second answer is to nobody.
    let twice = answer(&home, "123 456", true);
    assert_eq!(twice.unwrap_err().kind, FailureKind::Usage);
    let (_, _, phone) = link(&world, &home, "phone", (false, true));
    phone.unwrap().ask(Command::DeviceList).unwrap();
    assert_eq!(home.alarms(), Vec::<String>::new());
}

/// The code is good once: whoever comes second is told that somebody was faster.
#[test]
fn a03_a_code_is_good_once() {
    let world = World::new();
    let home = with_backup(&world);
    let code = code(&home, false);
    let (tells, told) = channel();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            join(&world, "first", &code, &mut |_: &str| {
                tells.send(()).unwrap()
            })
        });
        let digits = asked(&home).unwrap().digits;
        told.recv().unwrap();
        let second = join(&world, "second", &code, &mut |_: &str| panic!("no digits"));
        let failure = second.map(drop).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Policy);
        assert!(failure.sentence.contains("used"), "{failure:?}");
        answer(&home, &digits, true).unwrap();
        first.join().unwrap().unwrap();
    });
    // Used up, it is of no use to anybody later either.
    let third = join(&world, "third", &code, &mut |_: &str| panic!("no digits"));
    assert_eq!(third.map(drop).unwrap_err().kind, FailureKind::Policy);
    assert_eq!(devices(&home).len(), 2);
}

#[test]
fn a03_a_code_is_over_after_ten_minutes() {
    let world = World::new();
    let home = with_backup(&world);
    let code = code(&home, false);
    world.clock.forward_ms(LINK_MAX_MS);
    world.cell_clock.forward_ms(LINK_MAX_MS);
    let late = join(&world, "late", &code, &mut |_: &str| panic!("no digits"));
    assert_eq!(late.map(drop).unwrap_err().kind, FailureKind::Policy);
    let failure = asked(&home).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Policy);
    // By the cell's clock alone, too: a new device's may be wrong.
    let code = self::code(&home, false);
    world.cell_clock.forward_ms(LINK_MAX_MS);
    let late = join(&world, "later", &code, &mut |_: &str| panic!("no digits"));
    assert_eq!(late.map(drop).unwrap_err().kind, FailureKind::Policy);
    assert_eq!(devices(&home).len(), 1);
}

/// Whatever a cell changes in what is left at a link before the person is asked, somebody notices, and nobody is taken
/// in.
#[test]
fn a03_messages_that_a_cell_alters_are_refused() {
    let world = World::new();
    let home = with_backup(&world);
    for (place, by_home) in [(0, true), (1, false), (2, true)] {
        world.wire.twist(move |request, reply| {
            let at_link = request.uri().path().starts_with("/v1/links/");
            if request.method() != "GET" || !at_link || reply.status() != 200 {
                return reply;
            }
            let mut link: LinkReply = cbor::decode(reply.body()).unwrap();
            if let Some(sealed) = &mut link.messages[place].sealed {
                *sealed.last_mut().unwrap() ^= 1;
            }
            with_body(&reply, cbor::encode(&link))
        });
        let code = code(&home, false);
        // Whoever notices ends it for both: the other side would wait for ten minutes.
        let (at_home, at_phone) = (Cancel::default(), Cancel::default());
        let (of_home, of_phone) = std::thread::scope(|scope| {
            let joining = scope.spawn(|| {
                let params = world.params(&format!("phone{place}"), code.cell.clone());
                let joined = engine::join_account(params, &code, &mut |_: &str| {}, &at_phone);
                at_home.cancel();
                joined.map(drop)
            });
            let ask = |command| home.engine.execute(command, &mut |_| {}, &at_home);
            let waited = ask(Command::DeviceLinkWait).and_then(|view| {
                let View::LinkAsk(LinkAskView { digits, .. }) = view else {
                    panic!("another view")
                };
                let accept = true;
                ask(Command::DeviceLinkAnswer { accept, digits })
            });
            let waited = waited.map(drop);
            if waited.is_err() {
                at_phone.cancel();
            }
            (waited, joining.join().unwrap())
        });
        let failure = if by_home { of_home } else { of_phone }.unwrap_err();
        assert_refused(&failure, "altered on its way");
        world.wire.honest();
    }
    assert_eq!(devices(&home).len(), 1);
    assert_eq!(home.alarms().len(), 2);
}

/// Somebody who saw the code stands between the two, with the cell's help: they cannot choose their random bytes after
/// they saw the other side's, since those were committed to.
#[test]
fn a03_whoever_stands_between_cannot_choose_the_digits() {
    let world = World::new();
    let home = with_backup(&world);
    let code = code(&home, false);
    // In place of what the new device opens: 32 bytes of their own, sealed with the code's key as they should be.
    let key = code.secret.key(LinkPlace::Opening);
    let name = *code.secret.signing().public().ed25519().as_bytes();
    let mut sealed = vec![7; 12];
    let mut chosen = vec![9; 32];
    let cipher = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &key).unwrap();
    let nonce = ring::aead::Nonce::assume_unique_for_key([7; 12]);
    ring::aead::LessSafeKey::new(cipher)
        .seal_in_place_append_tag(nonce, ring::aead::Aad::from(name), &mut chosen)
        .unwrap();
    sealed.extend(chosen);
    let path = format!("/v1/links/{}", candor_wire::ids::to_hex(&name));
    world.wire.twist(move |request, reply| {
        if request.method() != "GET" || request.uri().path() != path || reply.status() != 200 {
            return reply;
        }
        let mut link: LinkReply = cbor::decode(reply.body()).unwrap();
        if let Some(opening) = &mut link.messages[2].sealed {
            opening.clone_from(&sealed);
        }
        with_body(&reply, cbor::encode(&link))
    });
    let cancel = Cancel::default();
    let failure = std::thread::scope(|scope| {
        let joining = scope.spawn(|| {
            let params = world.params("phone", code.cell.clone());
            engine::join_account(params, &code, &mut |_: &str| {}, &cancel).map(drop)
        });
        let failure = asked(&home).unwrap_err();
        // And whoever waits at the other end is told.
        let declined = joining.join().unwrap().unwrap_err();
        assert_eq!(declined.kind, FailureKind::Policy, "{declined:?}");
        failure
    });
    assert_refused(&failure, "altered on its way");
    world.wire.honest();
    assert_eq!(devices(&home).len(), 1);
    // The yes is for the digits that were compared, and for no others.
    let code = self::code(&home, false);
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| join(&world, "tablet", &code, &mut |_: &str| {}).map(drop));
        let shown = asked(&home).unwrap().digits;
        let other = if shown == "000 000" {
            "000 001"
        } else {
            "000 000"
        };
        let refused = answer(&home, other, true).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Usage);
        world.clock.forward_ms(LINK_MAX_MS);
        world.cell_clock.forward_ms(LINK_MAX_MS);
        assert!(joining.join().unwrap().is_err());
    });
    assert_eq!(devices(&home).len(), 1);
}

/// A yes that comes too late takes nobody in.
#[test]
fn a_yes_after_the_code_is_over_changes_nothing() {
    let world = World::new();
    let home = with_backup(&world);
    let code = code(&home, false);
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| join(&world, "phone", &code, &mut |_: &str| {}).map(drop));
        let digits = asked(&home).unwrap().digits;
        world.clock.forward_ms(LINK_MAX_MS);
        world.cell_clock.forward_ms(LINK_MAX_MS);
        let late = answer(&home, &digits, true).unwrap_err();
        assert_eq!(late.kind, FailureKind::Policy);
        assert!(joining.join().unwrap().is_err());
    });
    assert_eq!(devices(&home).len(), 1);
}

/// Whoever saw the code leaves a no in the place of the verdict: the new device believes the chain.
#[test]
fn a_no_that_somebody_else_left_changes_nothing() {
    let world = World::new();
    let home = with_backup(&world);
    let code = code(&home, false);
    let key = code.secret.key(LinkPlace::Verdict);
    let name = *code.secret.signing().public().ed25519().as_bytes();
    let no = SignedVerdict::sign(
        &Verdict {
            version: 1,
            accepted: false,
            request: [0; 32],
            gift: None,
        },
        rogue().ed25519(),
    );
    let mut chosen = cbor::encode(&no);
    let cipher = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &key).unwrap();
    let nonce = ring::aead::Nonce::assume_unique_for_key([7; 12]);
    ring::aead::LessSafeKey::new(cipher)
        .seal_in_place_append_tag(nonce, ring::aead::Aad::from(name), &mut chosen)
        .unwrap();
    let mut sealed = vec![7; 12];
    sealed.extend(chosen);
    world.wire.twist(move |request, reply| {
        let at_link = request.uri().path().starts_with("/v1/links/");
        if request.method() != "GET" || !at_link || reply.status() != 200 {
            return reply;
        }
        let mut link: LinkReply = cbor::decode(reply.body()).unwrap();
        if let Some(verdict) = &mut link.messages[3].sealed {
            verdict.clone_from(&sealed);
        }
        with_body(&reply, cbor::encode(&link))
    });
    let joined = std::thread::scope(|scope| {
        let joining = scope.spawn(|| join(&world, "phone", &code, &mut |_: &str| {}));
        let digits = asked(&home).unwrap().digits;
        answer(&home, &digits, true).unwrap();
        joining.join().unwrap()
    });
    world.wire.honest();
    joined.unwrap().ask(Command::DeviceList).unwrap();
    assert_eq!(devices(&home).len(), 2);
}

/// A cell that shows the new device another history than the one that the old device's code names.
#[test]
fn a16_a_new_device_is_shown_no_other_chain() {
    let world = World::new();
    let home = with_backup(&world);
    let code = code(&home, false);
    let (tells, told) = channel();
    let failure = std::thread::scope(|scope| {
        let joining = scope.spawn(|| {
            join(&world, "phone", &code, &mut |_: &str| {
                tells.send(()).unwrap()
            })
            .map(drop)
        });
        let digits = asked(&home).unwrap().digits;
        told.recv().unwrap();
        // To whoever begins to read: less than the old device knew.
        let short = code.chain_length - 1;
        world.wire.twist(move |request, reply| {
            let begins = request.uri().query() == Some("from=0");
            if !is(request, "GET", "/chain") || !begins || reply.status() != 200 {
                return reply;
            }
            let mut page: ChainPage = cbor::decode(reply.body()).unwrap();
            page.records.retain(|record| record.sequence < short);
            page.length = page.records.len() as u64;
            with_body(&reply, cbor::encode(&page))
        });
        answer(&home, &digits, true).unwrap();
        joining.join().unwrap().unwrap_err()
    });
    assert_refused(&failure, "not the one that the other device knows");
    world.wire.honest();
    let alarms = world.alarms_of_unenrolled("phone");
    assert_eq!(alarms.len(), 1, "{alarms:?}");
}

/// The cell is restarted between every two steps; nobody has to begin again.
#[test]
fn a_link_survives_a_restart_of_the_cell() {
    let mut world = World::new();
    let home = with_backup(&world);
    let code = code(&home, false);
    let told: Arc<Mutex<Option<String>>> = Arc::default();
    let shows = Arc::clone(&told);
    let params = world.params("phone", code.cell.clone());
    let at_phone = code.clone();
    let joining = std::thread::spawn(move || {
        let mut tell = |digits: &str| *shows.lock().unwrap() = Some(digits.to_owned());
        engine::join_account(params, &at_phone, &mut tell, &Cancel::default())
    });
    let asked = asked(&home).unwrap();
    world.stop_cell();
    std::thread::sleep(std::time::Duration::from_millis(600));
    world.start_cell();
    while told.lock().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(told.lock().unwrap().as_deref(), Some(asked.digits.as_str()));
    answer(&home, &asked.digits, true).unwrap();
    let phone = Person {
        engine: joining.join().unwrap().unwrap(),
    };
    phone.restore("at-home:latest", &world.path("out")).unwrap();
    assert_eq!(phone.alarms(), Vec::<String>::new());
}

#[test]
fn waiting_for_a_device_can_be_stopped() {
    let world = World::new();
    let home = with_backup(&world);
    assert_eq!(asked(&home).unwrap_err().kind, FailureKind::Usage);
    let _code = code(&home, false);
    let early = answer(&home, "123 456", true);
    assert_eq!(early.unwrap_err().kind, FailureKind::Usage);
    let code = code(&home, false);
    let cancel = Cancel::default();
    cancel.cancel();
    let waited = home
        .engine
        .execute(Command::DeviceLinkWait, &mut |_| {}, &cancel);
    assert_eq!(waited.unwrap_err().kind, FailureKind::Interrupted);
    let params = EnrolParams {
        role: Role::Full,
        ..world.params("phone", code.cell.clone())
    };
    let joined = engine::join_account(params, &code, &mut |_: &str| {}, &cancel);
    assert_eq!(joined.map(drop).unwrap_err().kind, FailureKind::Interrupted);
}
