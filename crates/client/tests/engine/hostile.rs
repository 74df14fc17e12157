//! A cell that lies. Each test: the typed refusal, nothing written or uploaded, an alarm.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use candor_client::commands::{Command, Failure, FailureKind, View};
use candor_client::device_store::DeviceStore;
use candor_client::epochs::{self, Recipients};
use candor_client::memory::Memory;
use candor_client::path_text::PathText;
use candor_vault::{SystemEntropy, seal};
use candor_wire::api::{API_VERSION, CellDescription, ChainPage, HeadReply};
use candor_wire::cbor;
use candor_wire::chain::Record;
use candor_wire::epoch::Wrap;
use candor_wire::ids::{Label, Salt};
use candor_wire::sign::{SecretKey, SigningSeeds};
use candor_wire::statement::{Body, Draft, Kind, SignedEntry, Statement};
use candor_wire::{AccountId, DeviceId, Millis, VaultId};
use http::{Request, Response};

use crate::world::{Person, World};

pub(crate) fn rogue() -> SecretKey {
    SecretKey::from_seeds(&SigningSeeds {
        ed25519: [1; 32],
        ml_dsa: [2; 32],
    })
}

pub(crate) fn is(request: &Request<Bytes>, method: &str, end: &str) -> bool {
    request.method() == method && request.uri().path().ends_with(end)
}

pub(crate) fn with_body(reply: &Response<Bytes>, body: Vec<u8>) -> Response<Bytes> {
    let mut out = Response::builder().status(reply.status());
    for (name, value) in reply.headers() {
        if name != "content-length" {
            out = out.header(name, value);
        }
    }
    out.body(Bytes::from(body)).unwrap()
}

/// Changes every page of the chain that goes by.
pub(crate) fn twist_chain(world: &World, change: impl Fn(&mut ChainPage) + Send + Sync + 'static) {
    world.wire.twist(move |request, reply| {
        if !is(request, "GET", "/chain") || reply.status() != 200 {
            return reply;
        }
        let mut page: ChainPage = cbor::decode(reply.body()).unwrap();
        change(&mut page);
        with_body(&reply, cbor::encode(&page))
    });
}

pub(crate) fn records(home: &Path) -> Vec<Record> {
    DeviceStore::open(&home.join("device.sqlite"))
        .unwrap()
        .chain()
        .unwrap()
}

pub(crate) struct Ids {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
}

pub(crate) fn ids(person: &Person) -> Ids {
    let View::Account(view) = person.ask(Command::AccountShow).unwrap() else {
        panic!("another view")
    };
    Ids {
        account: view.account.parse().unwrap(),
        device: view.device.parse().unwrap(),
    }
}

/// A record after the last one of `records`, "signed" by the device with a key of the cell's own.
pub(crate) fn forged(ids: &Ids, records: &[Record], body: Body) -> Record {
    let last = records.last().unwrap();
    let tip = last.statement.as_ref().unwrap().parse().unwrap().link();
    let draft = Draft {
        account: ids.account,
        signer: Some(ids.device),
        time: Millis(1),
        label: Label::from_bytes([3; 32]),
        salt: Salt::from_bytes([4; 32]),
        body,
    };
    Record::of(draft.sign(last.sequence + 1, tip, &rogue()).0).unwrap()
}

pub(crate) fn assert_refused(failure: &Failure, cause: &str) {
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    assert!(
        failure.causes.iter().any(|one| one.contains(cause)),
        "{failure:?}"
    );
}

/// An epoch like the genuine one, for a key that the cell knows: wrapped to the device and to the
/// recovery key, whose public halves the cell has.
fn servers_own_epoch(record: &Record) -> Record {
    let statement = record.statement.clone().unwrap();
    let parsed = statement.parse().unwrap();
    let Body::Epoch(genuine) = &parsed.body else {
        panic!("no epoch")
    };
    let public = epochs::AgreementSecret::from_seed(&[9; 32]).public();
    let devices = genuine
        .wraps
        .iter()
        .filter_map(|wrap| wrap.recipient)
        .map(|device| (device, public));
    let recipients = Recipients::new(public, devices);
    let (own, _) = epochs::begin(
        parsed.entry.account,
        genuine.vault,
        &recipients,
        &SystemEntropy,
    )
    .unwrap();
    let mut entry = parsed.entry.clone();
    entry.body = cbor::encode(&own);
    let signed = SignedEntry {
        entry: cbor::encode(&entry),
        signature: parsed.signature.clone(),
    };
    let changed = Statement {
        signed: cbor::encode(&signed),
        salt: statement.salt,
    };
    // Its acknowledgement is left out: the cell could make one, and the test is about the signature.
    Record::of(changed).unwrap()
}

#[test]
fn a01_a_replaced_vault_key_is_refused_by_a_device_that_comes_back() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    drop(person);
    twist_chain(&world, |page| {
        for record in &mut page.records {
            let is_vault = record.statement.as_ref().is_some_and(|statement| {
                matches!(&statement.parse().unwrap().body, Body::Epoch(epoch) if epoch.vault.is_some())
            });
            if is_vault {
                *record = servers_own_epoch(record);
            }
        }
    });
    let failure = world.recover("second", &phrase).err().unwrap();
    assert_refused(&failure, "is not signed by a key that may state it");
    assert_eq!(
        world.wire.paths("PUT"),
        Vec::<String>::new(),
        "nothing was uploaded"
    );
    assert_eq!(world.alarms_of_unenrolled("second").len(), 1);
}

#[test]
fn a01_an_epoch_of_the_cells_own_is_refused_and_nothing_is_uploaded_under_it() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let records = records(&world.path("home"));
    let genuine = records
        .iter()
        .filter(|record| record.kind == Kind::Epoch)
        .map(|record| record.statement.as_ref().unwrap().parse().unwrap().body)
        .find_map(|body| match body {
            Body::Epoch(epoch) if epoch.vault.is_some() => Some(epoch),
            _ => None,
        })
        .unwrap();
    let mut next = *genuine;
    next.epoch = 2;
    next.earlier = vec![0; 64];
    let extra = forged(&ids(&person), &records, Body::Epoch(Box::new(next)));
    twist_chain(&world, move |page| {
        page.records.push(extra.clone());
        page.length += 1;
    });
    let failure = person.run().unwrap_err();
    assert_refused(&failure, "is not signed by a key that may state it");
    assert_eq!(
        world.wire.paths("PUT"),
        Vec::<String>::new(),
        "nothing was uploaded"
    );
    assert_eq!(person.alarms().len(), 1);
    // The honest cell is believed again.
    world.wire.honest();
    person.run().unwrap();
}

#[test]
fn a36_a_chain_that_nobody_signed_is_refused_at_its_first_page() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    let known = records(&world.path("home"));
    let junk = known.iter().find(|one| one.kind == Kind::Epoch).unwrap();
    let parsed = junk.statement.as_ref().unwrap().parse().unwrap();
    let extra = forged(&ids(&person), &known, parsed.body);
    // Each page holds one more record, and says that thousands follow.
    twist_chain(&world, move |page| {
        page.records = vec![extra.clone()];
        page.length = candor_wire::chain::CHAIN_MAX_ENTRIES;
    });
    world.wire.forget();
    assert_refused(
        &person.ask(Command::ConsentHistory).unwrap_err(),
        "is not signed by a key that may state it",
    );
    let pages = world.wire.paths("GET");
    assert_eq!(
        pages.iter().filter(|one| one.ends_with("/chain")).count(),
        1
    );
    assert_eq!(person.alarms().len(), 1);
}

#[test]
fn a44_a_cell_cannot_switch_a_service_on() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let vault: VaultId = person.status().sets[0]
        .vault
        .clone()
        .unwrap()
        .parse()
        .unwrap();
    let genuine = records(&world.path("home"))
        .iter()
        .filter_map(|record| record.statement.as_ref())
        .find_map(|statement| match statement.parse().unwrap().body {
            Body::ConsentGiven(record) if record.vault == Some(vault) => Some(record),
            _ => None,
        })
        .unwrap();
    person.off().unwrap();
    let mut pushed = *genuine;
    pushed.given_at = pushed.given_at.plus_ms(1);
    let extra = forged(
        &ids(&person),
        &records(&world.path("home")),
        Body::ConsentGiven(Box::new(pushed)),
    );
    twist_chain(&world, move |page| {
        page.records.push(extra.clone());
        page.length += 1;
    });
    // Without a consent the cell is not even asked.
    let (calls, lines) = (world.wire.count(), person.ledger().len());
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!((world.wire.count(), person.ledger().len()), (calls, lines));
    // When the person asks for the history, the forged consent is refused, and changes nothing.
    assert_refused(
        &person.ask(Command::ConsentHistory).unwrap_err(),
        "is not signed by a key that may state it",
    );
    assert_eq!(person.alarms().len(), 1);
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!(world.wire.paths("PUT"), Vec::<String>::new());
    // And no endpoint exists over which a cell could push anything: a device only ever asks.
    let pushes = candor_wire::api::ENDPOINTS.iter().any(|one| {
        let path = one.path.to_lowercase();
        ["config", "push", "feature", "setting", "consent"]
            .iter()
            .any(|word| path.contains(word))
    });
    assert!(!pushes);
}

#[test]
fn a_chain_that_lost_its_end_is_a_rollback() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    twist_chain(&world, |page| {
        page.records.clear();
        page.length = 3;
    });
    assert_eq!(person.run().unwrap_err().kind, FailureKind::Integrity);
    assert_eq!(person.alarms().len(), 1);
    assert_eq!(world.wire.paths("PUT"), Vec::<String>::new());
}

#[test]
fn a15_an_older_head_is_refused_and_the_destination_stays_as_it_was() {
    let world = World::new();
    let (person, _) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    person.run().unwrap();
    let kept: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let keep = Arc::clone(&kept);
    world.wire.twist(move |request, reply| {
        if is(request, "GET", "/head") {
            *keep.lock().unwrap() = Some(reply.body().to_vec());
        }
        reply
    });
    person.restore("latest", &world.path("first")).unwrap();
    let old = kept.lock().unwrap().clone().unwrap();
    world.wire.honest();
    std::fs::write(docs.join("new.txt"), "new").unwrap();
    person.run().unwrap();
    let none = cbor::encode(&HeadReply {
        version: API_VERSION,
        head: None,
    });
    for shown in [old, none] {
        world.wire.twist(move |request, reply| {
            if is(request, "GET", "/head") {
                with_body(&reply, shown.clone())
            } else {
                reply
            }
        });
        let alarms = person.alarms().len();
        let failure = person.restore("latest", &world.path("out")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
        assert_eq!(person.run().unwrap_err().kind, FailureKind::Integrity);
        assert!(!world.path("out").exists(), "nothing was written");
        assert_eq!(person.alarms().len(), alarms + 2);
    }
    // After a restart too.
    let person = world.reopen(person);
    assert_eq!(
        person
            .restore("latest", &world.path("out"))
            .unwrap_err()
            .kind,
        FailureKind::Integrity
    );
    world.wire.honest();
    person.restore("latest", &world.path("out")).unwrap();
}

#[test]
fn an_altered_object_is_refused_and_nothing_unverified_is_written() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    person.run().unwrap();
    world.wire.twist(|request, reply| {
        if request.method() != "GET" || !request.uri().path().contains("/objects/") {
            return reply;
        }
        let mut body = reply.body().to_vec();
        let middle = body.len() / 2;
        body[middle] ^= 1;
        with_body(&reply, body)
    });
    let failure = person.restore("latest", &world.path("out")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    assert!(!world.path("out").exists(), "nothing was written");
    assert_eq!(person.alarms().len(), 1);
    let second = world.recover("second", &phrase).unwrap();
    assert_eq!(
        second
            .restore("latest", &world.path("out"))
            .unwrap_err()
            .kind,
        FailureKind::Integrity
    );
    assert!(!world.path("out").exists());
}

#[test]
fn withheld_objects_are_named_by_a_check() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    person.run().unwrap();
    let sound = person
        .ask(Command::BackupCheck {
            read_data: true,
            repair: false,
        })
        .unwrap();
    let View::Checked(sound) = sound else {
        panic!("another view")
    };
    assert!(
        sound.damaged.is_empty() && sound.affected.is_empty() && sound.bytes_read > 0,
        "{sound:?}"
    );
    world.wire.twist(|request, reply| {
        if request.method() != "GET"
            || !request.uri().path().contains("/objects/")
            || reply.body().len() < 1_000_000
        {
            return reply;
        }
        let mut body = reply.body().to_vec();
        body[1000] ^= 1;
        with_body(&reply, body)
    });
    let View::Checked(found) = person
        .ask(Command::BackupCheck {
            read_data: true,
            repair: false,
        })
        .unwrap()
    else {
        panic!("another view")
    };
    assert_eq!(found.damaged.len(), 1, "{found:?}");
    assert!(
        found
            .affected
            .contains(&PathText::from_bytes(b"docs/sub/noise.bin")),
        "{found:?}"
    );
    assert_eq!(person.alarms().len(), 1);
}

#[test]
fn another_cells_keys_are_refused_at_recovery() {
    let world = World::new();
    let (_person, phrase) = world.create("home");
    world.wire.twist(|request, reply| {
        if !is(request, "GET", "/v1/cell") {
            return reply;
        }
        let mut description: CellDescription = cbor::decode(reply.body()).unwrap();
        description.keys[0].signature = rogue()
            .ed25519()
            .sign(candor_wire::sign::Domain::CELL_KEYS, b"");
        with_body(&reply, cbor::encode(&description))
    });
    let failure = world.recover("second", &phrase).err().unwrap();
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
}

#[test]
fn a_rollback_of_another_vault_is_told_even_where_it_does_not_matter() {
    let world = World::new();
    let (person, _) = world.create("home");
    for name in ["docs", "photos"] {
        person.add(&world.tree(name));
    }
    person.consent();
    let View::Backups(done) = person.run().unwrap() else {
        panic!("another view")
    };
    let photos = person
        .status()
        .sets
        .into_iter()
        .find(|one| one.name == "photos");
    let vault = photos.and_then(|one| one.vault).unwrap();
    let none = cbor::encode(&HeadReply {
        version: API_VERSION,
        head: None,
    });
    world.wire.twist(move |request, reply| {
        if is(request, "GET", "/head") && request.uri().path().contains(&vault) {
            with_body(&reply, none.clone())
        } else {
            reply
        }
    });
    let docs = done.iter().find(|one| one.set == "docs").unwrap();
    // The beginning of an id could be another one's, too.
    let begins = &docs.snapshot[..31];
    person.restore(begins, &world.path("out")).unwrap();
    assert_eq!(person.alarms().len(), 1);
    let photos = done.iter().find(|one| one.set == "photos").unwrap();
    let refused = person.restore(&photos.snapshot, &world.path("none"));
    assert_eq!(refused.unwrap_err().kind, FailureKind::Integrity);
    assert_eq!(person.alarms().len(), 2);
}

/// Ways to craft a wrapped key.
type Craft = fn(&mut Wrap);

const CRAFTED: [Craft; 6] = [
    |wrap| wrap.encapsulated[0] ^= 1,
    |wrap| *wrap.encapsulated.last_mut().unwrap() ^= 1,
    |wrap| wrap.encapsulated.fill(0),
    |wrap| wrap.ciphertext[0] ^= 1,
    |wrap| *wrap.ciphertext.last_mut().unwrap() ^= 1,
    |wrap| wrap.ciphertext.fill(0),
];

#[test]
fn a25_a_cell_learns_nothing_from_what_a_device_does_with_crafted_keys() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    drop(person);
    let mut seen = Vec::new();
    for (n, craft) in CRAFTED.into_iter().enumerate() {
        twist_chain(&world, move |page| {
            for record in &mut page.records {
                let Some(statement) = &record.statement else {
                    continue;
                };
                let parsed = statement.parse().unwrap();
                let Body::Epoch(mut epoch) = parsed.body.clone() else {
                    continue;
                };
                epoch.wraps.iter_mut().for_each(craft);
                let mut entry = parsed.entry.clone();
                entry.body = cbor::encode(&epoch);
                let signed = SignedEntry {
                    entry: cbor::encode(&entry),
                    signature: parsed.signature,
                };
                let changed = Statement {
                    signed: cbor::encode(&signed),
                    salt: statement.salt,
                };
                *record = Record::of(changed).unwrap();
            }
        });
        world.wire.forget();
        let failure = world
            .recover(&format!("second-{n}"), &phrase)
            .err()
            .unwrap();
        seen.push((failure, world.wire.requests()));
    }
    assert_refused(&seen[0].0, "is not signed by a key that may state it");
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
}

/// Welch's t-statistic of two samples without their slowest tenth, which is the machine's noise.
fn t_statistic(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    let crop = |samples: &mut Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples.truncate(samples.len() * 9 / 10);
    };
    crop(&mut a);
    crop(&mut b);
    let moments = |samples: &[f64]| {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let variance = samples.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean_a, error_a), (mean_b, error_b)) = (moments(&a), moments(&b));
    (mean_a - mean_b) / (error_a + error_b).sqrt()
}

#[test]
fn a25_crafted_keys_are_refused_in_the_same_time() {
    /// Samples of each kind in one measurement.
    const SAMPLES: usize = 600;
    /// A machine that others use makes outliers; a leak shows in every measurement.
    const MEASUREMENTS: usize = 4;
    const T_MAX: f64 = 4.5;
    let secret = epochs::AgreementSecret::from_seed(&[5; 32]);
    let device = DeviceId::from_bytes([6; 16]);
    let account = AccountId::from_bytes([7; 16]);
    let recipients = Recipients::new(secret.public(), [(device, secret.public())]);
    let (genuine, _) = epochs::begin(account, None, &recipients, &SystemEntropy).unwrap();
    epochs::open(account, &genuine, Some(device), &secret)
        .map(|_| ())
        .unwrap();
    let crafted: Vec<_> = [CRAFTED[0], CRAFTED[1], CRAFTED[3], CRAFTED[4]]
        .into_iter()
        .map(|craft| {
            let mut record = genuine.clone();
            record.wraps.iter_mut().for_each(craft);
            record
        })
        .collect();
    let measure = || {
        let mut times = vec![Vec::with_capacity(SAMPLES); crafted.len()];
        for round in 0..SAMPLES {
            for place in 0..crafted.len() {
                // Each kind takes each place in turn.
                let kind = (place + round) % crafted.len();
                let began = std::time::Instant::now();
                let refused = epochs::open(account, &crafted[kind], Some(device), &secret);
                let took = began.elapsed().as_nanos() as f64;
                assert!(matches!(refused, Err(epochs::EpochError::Rejected)));
                times[kind].push(took);
            }
        }
        let first = times[0].clone();
        times[1..]
            .iter()
            .map(|other| t_statistic(first.clone(), other.clone()).abs())
            .fold(0.0, f64::max)
    };
    let measured: Vec<f64> = (0..MEASUREMENTS).map(|_| measure()).collect();
    assert!(measured.iter().any(|t| *t < T_MAX), "{measured:?}");
}

#[test]
fn a23_nothing_is_read_or_sent_below_the_format_that_this_device_has_seen() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    person.run().unwrap();
    let (home, cell) = (person.engine.home().to_owned(), person.engine.cell());
    drop(person);
    let memory = Memory::open(&home.join("memory"), cell).unwrap();
    memory
        .remember_format(seal::FORMAT + 1, seal::SUITE)
        .unwrap();
    drop(memory);
    let person = Person {
        engine: world.open(&home).unwrap(),
    };
    let before = world.wire.paths("PUT");
    for failure in [
        person.run().unwrap_err(),
        person.restore("latest", &world.path("out")).unwrap_err(),
    ] {
        assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    }
    assert_eq!(world.wire.paths("PUT"), before);
    assert!(!world.path("out").exists());
    assert_eq!(person.alarms().len(), 2);
}

/// The device lost everything but its keys, and the cell tells it another story of the account: one
/// that begins with a root and a recovery key of the cell's own.
#[test]
fn a_chain_with_another_beginning_is_refused_by_a_device_that_kept_only_its_keys() {
    let world = World::new();
    let (person, _) = world.create("home");
    let account = ids(&person).account;
    let home = person.engine.home().to_owned();
    let genuine = records(&home);
    drop(person);
    for name in [
        "device.sqlite",
        "device.sqlite-wal",
        "device.sqlite-shm",
        "memory",
    ] {
        let _ = std::fs::remove_file(home.join(name));
    }
    let (mut forged, mut tip) = (Vec::new(), candor_wire::statement::genesis_link());
    for record in genuine.iter().take(2) {
        let parsed = record.statement.as_ref().unwrap().parse().unwrap();
        let mut body = parsed.body;
        if let Body::Genesis(genesis) = &mut body {
            genesis.root = rogue().public();
            genesis.recovery = epochs::AgreementSecret::from_seed(&[9; 32]).public();
        }
        let draft = Draft {
            account,
            signer: None,
            time: parsed.entry.time,
            label: parsed.entry.label,
            salt: Salt::from_bytes([4; 32]),
            body,
        };
        let (statement, link) = draft.sign(forged.len() as u64, tip, &rogue());
        forged.push(Record::of(statement).unwrap());
        tip = link;
    }
    twist_chain(&world, move |page| {
        page.length = forged.len() as u64;
        page.records.clone_from(&forged);
    });
    let person = Person {
        engine: world.open(&home).unwrap(),
    };
    let failure = person.ask(Command::ConsentHistory).unwrap_err();
    assert_refused(&failure, "is not this account's");
    assert_eq!(records(&home), Vec::new());
    assert_eq!(world.wire.paths("PUT"), Vec::<String>::new());
    world.wire.honest();
    person.ask(Command::ConsentHistory).unwrap();
    assert_eq!(records(&home), genuine);
}
