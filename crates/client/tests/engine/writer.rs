//! A write-only device: it backs up, and neither it nor whoever steals it reads or destroys anything.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candor_client::commands::{Command, FailureKind, Keep, SnapshotView, Stored, View};
use candor_client::epochs;
use candor_client::keystore::KeyStore;
use candor_testkit::hostile::lost;
use candor_vault::SystemEntropy;
use candor_wire::api::{API_VERSION, HeadReply, RunsPage, SwapHead};
use candor_wire::head::{Head, SignedHead};
use candor_wire::ids::VaultId;
use candor_wire::sign::SecretKey;
use candor_wire::statement::{Kind, Role};
use candor_wire::{AccountId, cbor};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::world::{Person, World, assert_same, noise};

fn snapshots(person: &Person) -> Vec<SnapshotView> {
    match person.ask(Command::BackupSnapshots { set: None }).unwrap() {
        View::Snapshots(list) => list,
        other => panic!("{other:?}"),
    }
}

fn restores(world: &World, person: &Person, source: &Path, snapshot: &str) {
    let out = world.path(&format!("out of {snapshot}"));
    person.restore(snapshot, &out).unwrap();
    assert_same(source, &out.join(source.file_name().unwrap()));
}

fn check(person: &Person) {
    let View::Checked(checked) = person
        .ask(Command::BackupCheck {
            read_data: true,
            repair: false,
        })
        .unwrap()
    else {
        panic!("another view")
    };
    assert_eq!((checked.damaged, checked.affected), (vec![], vec![]));
    assert!(checked.bytes_read > 0);
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_write_only_device_backs_up_and_a_full_one_reads_it() {
    let world = World::new();
    let (full, phrase) = world.create("home");
    let writer = world.recover_writer("server", &phrase);
    let (docs, photos) = (world.tree("docs"), world.tree("photos"));
    writer.add(&docs);
    writer.add(&photos);
    assert_eq!(writer.run().unwrap_err().kind, FailureKind::NoConsent);
    writer.consent();
    writer.run().unwrap();
    // Unchanged, it makes no snapshot; changed, one that sends what is new.
    let View::Backups(again) = writer.run().unwrap() else {
        panic!("another view")
    };
    assert!(
        again
            .iter()
            .all(|one| one.new_bytes == 0 && one.stored_bytes == 0)
    );
    std::fs::write(docs.join("new"), b"something new").unwrap();
    let View::Backups(third) = writer.run().unwrap() else {
        panic!("another view")
    };
    assert!(third[0].new_bytes > 0 && third[0].stored_bytes > 0);

    let list = snapshots(&full);
    let sets: Vec<&str> = list.iter().map(|one| one.set.as_str()).collect();
    assert_eq!(sets.iter().filter(|set| **set == "docs").count(), 2);
    assert_eq!(sets.iter().filter(|set| **set == "photos").count(), 1);
    restores(&world, &full, &docs, "docs:latest");
    restores(&world, &full, &photos, "photos:latest");
    check(&full);
    for person in [&full, &writer] {
        person.ask(Command::LogMonitor).unwrap();
        assert_eq!(person.alarms(), Vec::<String>::new());
    }
    // With nothing but the phrase, too; and it goes on after a restart and without what it remembered.
    let fresh = world.recover("fresh", &phrase).unwrap();
    restores(
        &world,
        &fresh,
        &docs,
        &format!("docs:{}", latest(&list, "docs")),
    );
    let writer = world.reopen(writer);
    for file in files_below(&world.path("server/index")) {
        std::fs::remove_file(file).unwrap();
    }
    std::fs::write(photos.join("new"), b"more").unwrap();
    writer.run().unwrap();
    let list = snapshots(&full);
    restores(
        &world,
        &full,
        &photos,
        &format!("photos:{}", latest(&list, "photos")),
    );
    check(&full);
}

fn latest(list: &[SnapshotView], set: &str) -> String {
    let of_set = list.iter().filter(|one| one.set == set);
    of_set
        .max_by_key(|one| one.time_ms)
        .unwrap()
        .snapshot
        .clone()
}

#[test]
fn a21_a_write_only_device_neither_reads_nor_deletes() {
    let world = World::new();
    let (full, phrase) = world.create("home");
    let writer = world.recover_writer("server", &phrase);
    let docs = world.tree("docs");
    writer.add(&docs);
    writer.consent();
    writer.run().unwrap();
    let mine = world.tree("mine");
    full.add(&mine);
    full.consent();
    full.run().unwrap();
    assert!(
        writer
            .restore("docs:latest", &world.path("nothing"))
            .is_err()
    );
    assert!(!world.path("nothing/docs").exists());
    let forget = Command::BackupForget {
        snapshots: vec!["latest".to_owned()],
        set: None,
        keep: Keep::default(),
        dry_run: false,
    };
    assert!(writer.ask(forget).is_err());
    for (command, expected) in [
        (
            Command::ConsentOff {
                service: "backup".to_owned(),
                set: None,
                stored: Stored::Erased,
            },
            FailureKind::Policy,
        ),
        (
            Command::AccountDelete { cancel: false },
            FailureKind::Policy,
        ),
        (
            Command::ReAnchorAccept {
                token: String::new(),
            },
            FailureKind::Policy,
        ),
    ] {
        assert_eq!(
            writer.ask(command.clone()).unwrap_err().kind,
            expected,
            "{command:?}"
        );
    }
    // What it withdrew is its own, and everything is there.
    assert_eq!(writer.run().unwrap_err().kind, FailureKind::NoConsent);
    full.run().unwrap();
    restores(&world, &full, &mine, "mine:latest");
    let list = snapshots(&full);
    restores(
        &world,
        &full,
        &docs,
        &format!("docs:{}", latest(&list, "docs")),
    );
    check(&full);
}

#[test]
fn an_account_can_begin_with_a_write_only_device() {
    let world = World::new();
    let phrase = candor_client::engine::draw_phrase(&SystemEntropy).unwrap();
    let params = candor_client::EnrolParams {
        role: Role::WriteOnly,
        ..world.params("server", world.invite())
    };
    let engine = candor_client::engine::create_account(params, &phrase).unwrap();
    let writer = Person { engine };
    let docs = world.tree("docs");
    writer.add(&docs);
    writer.consent();
    writer.run().unwrap();
    assert!(
        world
            .kinds(&writer)
            .iter()
            .filter(|kind| **kind == Kind::Epoch)
            .count()
            == 9
    );
    let fresh = world.recover("fresh", &phrase).unwrap();
    restores(&world, &fresh, &docs, "docs:latest");
    assert_eq!(writer.alarms(), Vec::<String>::new());
}

#[test]
fn an_interrupted_run_is_gone_on_with() {
    let world = World::new();
    let (full, phrase) = world.create("home");
    let writer = world.recover_writer("server", &phrase);
    let docs = world.tree("docs");
    let mut state = 7;
    for number in 0..6 {
        let content = noise(&mut state, 5 * 1024 * 1024);
        std::fs::write(docs.join(format!("large{number}")), content).unwrap();
    }
    writer.add(&docs);
    writer.consent();
    // The cell goes away after one pack.
    let stored = std::sync::atomic::AtomicUsize::new(0);
    world.wire.answer(move |request| {
        let is_pack = request.method() == "PUT" && request.body().len() > 1024 * 1024;
        let before = stored.fetch_add(usize::from(is_pack), std::sync::atomic::Ordering::SeqCst);
        (is_pack && before >= 1).then(|| Err(lost()))
    });
    assert_eq!(writer.run().unwrap_err().kind, FailureKind::Unreachable);
    world.wire.honest();
    let writer = world.reopen(writer);
    let View::Backups(done) = writer.run().unwrap() else {
        panic!("another view")
    };
    let whole = 30 * 1024 * 1024;
    assert!(done[0].stored_bytes < whole, "{}", done[0].stored_bytes);
    restores(&world, &full, &docs, "docs:latest");
    check(&full);
}

/// Whoever stole the device can add runs that nobody can read. The others are read all the same, and it is told.
#[test]
fn a21_a_run_that_cannot_be_read_hides_none_of_the_others() {
    let world = World::new();
    let (full, phrase) = world.create("home");
    let writer = world.recover_writer("server", &phrase);
    let docs = world.tree("docs");
    writer.add(&docs);
    writer.consent();
    let heads: Arc<Mutex<Vec<Head>>> = Arc::default();
    let seen = Arc::clone(&heads);
    world.wire.answer(move |request| {
        if request.method() == "PUT" && request.uri().path().ends_with("/head") {
            let swap: SwapHead = cbor::decode(request.body()).unwrap();
            seen.lock().unwrap().push(swap.head.peek().unwrap());
        }
        None
    });
    for number in 0..3 {
        std::fs::write(docs.join("changes"), format!("state {number}")).unwrap();
        writer.run().unwrap();
    }
    let list = snapshots(&full);
    assert_eq!(list.len(), 3);
    let last = list
        .iter()
        .max_by_key(|one| one.time_ms)
        .unwrap()
        .snapshot
        .clone();
    let spoilt = heads.lock().unwrap()[1].manifest.to_string();
    let objects = files_below(&world.path("cell/store/objects"));
    let file = objects.iter().find(|file| file.ends_with(&spoilt)).unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let fresh = world.recover("fresh", &phrase).unwrap();
    for person in [&full, &fresh] {
        assert_eq!(snapshots(person).len(), 2);
        let alarms = person.alarms();
        assert!(
            alarms.iter().any(|alarm| alarm.contains("1 of 3 runs")),
            "{alarms:?}"
        );
    }
    restores(&world, &fresh, &docs, &format!("docs:{last}"));
}

/// Where an object's key would have to fit, as docs/formats/vault.md has it: written once more, on purpose.
fn commits(
    candidate: &[u8],
    header: &[u8],
    account: &AccountId,
    vault: &VaultId,
    object_type: u8,
) -> bool {
    let (epoch, salt, commitment) = (&header[6..10], &header[10..42], &header[42..74]);
    let info: [&[u8]; 5] = [
        b"candor/vault/object",
        account.as_bytes(),
        vault.as_bytes(),
        epoch,
        &[object_type, 1, 1],
    ];
    let mut okm = [0; 64];
    Hkdf::<Sha256>::new(Some(salt), candidate)
        .expand_multi_info(&info, &mut okm)
        .unwrap();
    okm[32..] == *commitment
}

/// Everything that is stored on a write-only device, every 32 bytes of it at every place, tried as the key of every
/// object that it stored.
#[test]
fn a21_nothing_that_a_write_only_device_stores_decrypts_anything() {
    let world = World::new();
    let (full, phrase) = world.create("home");
    let writer = world.recover_writer("server", &phrase);
    let docs = world.path("docs");
    std::fs::create_dir(&docs).unwrap();
    std::fs::write(docs.join("secret"), b"what nobody else shall read").unwrap();
    writer.add(&docs);
    writer.consent();
    let swapped: Arc<Mutex<Option<Head>>> = Arc::default();
    let seen = Arc::clone(&swapped);
    world.wire.answer(move |request| {
        if request.method() == "PUT" && request.uri().path().ends_with("/head") {
            let swap: SwapHead = cbor::decode(request.body()).unwrap();
            *seen.lock().unwrap() = Some(swap.head.peek().unwrap());
        }
        None
    });
    writer.run().unwrap();
    assert_eq!(snapshots(&full).len(), 1);
    let home = writer.engine.home().to_owned();
    drop(writer);
    let keys = KeyStore::open(&home.join("keys"), None, Arc::new(SystemEntropy)).unwrap();
    assert!(keys.keys(None).is_none());
    let vaults: Vec<VaultId> = keys.writer().unwrap().vaults().collect();
    assert!(vaults.iter().all(|vault| keys.keys(Some(*vault)).is_none()));
    let account = keys.account().unwrap();
    let mut headers = Vec::new();
    for file in files_below(&world.path("cell/store/objects")) {
        let bytes = std::fs::read(&file).unwrap();
        let place = file.to_str().unwrap();
        let vault = *vaults
            .iter()
            .find(|vault| place.contains(&vault.to_string()))
            .unwrap();
        headers.push((vault, bytes[..74].to_vec()));
    }
    assert!(headers.len() >= 4, "packs, an index object and a manifest");
    // A key is random: windows that repeat, or hold little, are tried once or not at all.
    let mut windows = std::collections::HashSet::new();
    for file in files_below(&home) {
        let bytes = std::fs::read(&file).unwrap();
        windows.extend(bytes.windows(32).map(<[u8]>::to_vec));
    }
    assert!(windows.len() > 10_000, "{}", windows.len());
    let differs = |window: &&Vec<u8>| {
        let distinct: std::collections::HashSet<u8> = window.iter().copied().collect();
        distinct.len() >= 16
    };
    for window in windows.iter().filter(differs) {
        for (vault, header) in &headers {
            for object_type in 1..=3 {
                assert!(!commits(window, header, &account, vault, object_type));
            }
        }
    }
    // The question is the right one: what a full device opens with its own keys answers it.
    let head = swapped.lock().unwrap().clone().unwrap();
    let full_keys = full.engine.home().join("keys");
    drop(full);
    let full_keys = KeyStore::open(&full_keys, None, Arc::new(SystemEntropy)).unwrap();
    let run = &head.runs.as_ref().unwrap()[0];
    let scope = full_keys.keys(Some(head.vault)).unwrap();
    let opened = epochs::open_run(account, head.device, run, scope).unwrap();
    let fits = |(vault, header): &(VaultId, Vec<u8>)| {
        (1..=3)
            .any(|object_type| commits(opened.key.as_bytes(), header, &account, vault, object_type))
    };
    assert!(headers.iter().all(fits));
    // And the sealed secrets open under nothing that the device holds.
    assert!(epochs::open_run(account, full_keys.device(), run, scope).is_err());
}

/// A cell that works together with whoever stole the device: it shows what the thief signed.
struct Thief<'w> {
    world: &'w World,
    key: Arc<SecretKey>,
    /// The heads that the vault has in truth, in their order.
    heads: Arc<Mutex<Vec<SignedHead>>>,
}

impl<'w> Thief<'w> {
    /// Of a device that was stolen before its first run.
    fn of(world: &'w World, writer: &Person) -> Self {
        let keys = writer.engine.home().join("keys");
        let keys = KeyStore::open(&keys, None, Arc::new(SystemEntropy)).unwrap();
        let heads: Arc<Mutex<Vec<SignedHead>>> = Arc::default();
        let seen = Arc::clone(&heads);
        world.wire.answer(move |request| {
            if request.method() == "PUT" && request.uri().path().ends_with("/head") {
                let swap: SwapHead = cbor::decode(request.body()).unwrap();
                seen.lock().unwrap().push(swap.head);
            }
            None
        });
        let key = keys.signing();
        Self { world, key, heads }
    }

    fn real(&self) -> Vec<SignedHead> {
        self.heads.lock().unwrap().clone()
    }

    /// A run after this one with that number, whose keys nobody can open.
    fn run_after(&self, last: &SignedHead, number: u32) -> SignedHead {
        let mut head = last.peek().unwrap();
        head.counter += 1;
        head.previous = Some(last.hash());
        head.epoch = number;
        for run in head.runs.iter_mut().flatten() {
            run.number = number;
            run.sealed.fill(7);
        }
        SignedHead::sign(&head, self.key.ed25519())
    }

    /// From now on their vault has these heads for everybody.
    fn shows(&self, heads: Vec<SignedHead>) {
        let vault = heads[0].peek().unwrap().vault.to_string();
        self.world.wire.answer(move |request| {
            let path = request.uri().path();
            if !path.contains(&vault) || request.method() != "GET" {
                return None;
            }
            let body = if path.ends_with("/head") {
                let head = heads.last().cloned();
                cbor::encode(&HeadReply {
                    version: API_VERSION,
                    head,
                })
            } else if path.ends_with("/runs") {
                let from = request.uri().query().unwrap().strip_prefix("from=");
                let from: usize = from.unwrap().parse().unwrap();
                cbor::encode(&RunsPage {
                    version: API_VERSION,
                    heads: heads[from.max(1) - 1..].to_vec(),
                    more: false,
                })
            } else {
                return None;
            };
            Some(Ok(http::Response::new(body.into())))
        });
    }
}

/// Three runs of a write-only device, seen by a full one.
fn stolen(world: &World) -> (Person, Person, Thief<'_>) {
    let (full, phrase) = world.create("home");
    let writer = world.recover_writer("server", &phrase);
    let docs = world.tree("docs");
    writer.add(&docs);
    writer.consent();
    let thief = Thief::of(world, &writer);
    for number in 0..3 {
        std::fs::write(docs.join("changes"), format!("state {number}")).unwrap();
        writer.run().unwrap();
    }
    assert_eq!(snapshots(&full).len(), 3);
    std::fs::write(docs.join("changes"), "and on").unwrap();
    (full, writer, thief)
}

#[test]
fn a21_numbers_of_runs_lock_nobody_out() {
    let world = World::new();
    let (full, writer, thief) = stolen(&world);
    let mut heads = thief.real();
    for (number, bad) in [(u32::MAX, 1), (1, 2), (u32::MAX, 3)] {
        heads.push(thief.run_after(heads.last().unwrap(), number));
        thief.shows(heads.clone());
        assert_eq!(snapshots(&full).len(), 3);
        let told = format!("{bad} of {} runs", heads.len());
        let alarms = full.alarms();
        assert!(
            alarms.iter().any(|alarm| alarm.contains(&told)),
            "{alarms:?}"
        );
    }
    // The device itself notices that it is not alone.
    let refused = writer.run().unwrap_err();
    assert_eq!(refused.kind, FailureKind::Integrity, "{refused:?}");
    assert!(refused.hint.is_some(), "{refused:?}");
}

/// What was seen stays what it was, also where the next heads that are shown are far beyond it.
#[test]
fn a21_runs_that_were_seen_are_not_replaced_by_others() {
    let world = World::new();
    let (full, _writer, thief) = stolen(&world);
    let real = thief.real();
    for kept in [1, 2] {
        let mut heads = real[..kept].to_vec();
        while heads.len() < 6 {
            let next = u32::try_from(heads.len()).unwrap() + 1;
            heads.push(thief.run_after(heads.last().unwrap(), next));
        }
        thief.shows(heads);
        for _ in 0..2 {
            let refused = full.ask(Command::BackupSnapshots { set: None });
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind, FailureKind::Integrity);
            assert!(refused.sentence.contains("older"), "{refused:?}");
        }
    }
    world.wire.honest();
    assert_eq!(snapshots(&full).len(), 3);
}

/// A vault of a write-only device with nothing in it, or with nothing that can be read, stands in no other's way.
#[test]
fn a21_a_vault_without_a_readable_run_blocks_no_restore() {
    let world = World::new();
    let (full, phrase) = world.create("home");
    let photos = world.tree("photos");
    full.add(&photos);
    full.consent();
    full.run().unwrap();
    let writer = world.recover_writer("server", &phrase);
    let docs = world.tree("docs");
    writer.add(&docs);
    writer.consent();
    // It consented and stored nothing yet.
    let fresh = world.recover("fresh", &phrase).unwrap();
    restores(&world, &fresh, &photos, "photos:latest");
    assert_eq!(fresh.alarms(), Vec::<String>::new());
    let thief = Thief::of(&world, &writer);
    writer.run().unwrap();
    let mut first = thief.real()[0].peek().unwrap();
    for run in first.runs.iter_mut().flatten() {
        run.sealed.fill(7);
    }
    let first = SignedHead::sign(&first, thief.key.ed25519());
    thief.shows(vec![first]);
    let newer = world.recover("newer", &phrase).unwrap();
    let out = world.path("out of newer");
    newer.restore("photos:latest", &out).unwrap();
    assert_same(&photos, &out.join("photos"));
    let alarms = newer.alarms();
    assert!(
        alarms.iter().any(|alarm| alarm.contains("1 of 1 runs")),
        "{alarms:?}"
    );
}
