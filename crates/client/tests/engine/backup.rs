//! Files go there and come back: to this home, to a new one, after interruptions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use candor_client::commands::{BackupView, Command, Event, FailureKind, View};
use candor_client::device_store::DeviceStore;
use candor_client::path_text::PathText;
use candor_client::{Cancel, CellDoor, KeyProtection, SystemEntropy};
use candor_wire::Millis;
use candor_wire::api::{API_VERSION, ErrorCode, ErrorReply};

use candor_testkit::hostile::lost;

use crate::world::{Person, World, assert_same, noise};

fn backed_up(person: &Person) -> BackupView {
    let View::Backups(done) = person.run().unwrap() else {
        panic!("another view")
    };
    let [one] = &done[..] else { panic!("{done:?}") };
    one.clone()
}

#[test]
fn a_backup_comes_back_and_an_unchanged_run_sends_no_content() {
    let world = World::new();
    let (person, _) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    let first = backed_up(&person);
    assert_eq!((first.files, first.problems), (3, 0));
    assert!(first.new_bytes >= 6_000_000);
    person.restore("latest", &world.path("out")).unwrap();
    assert_same(&docs, &world.path("out/docs"));
    let second = backed_up(&person);
    assert_eq!(second.stored_bytes, 0, "{second:?}");
    // Nothing changed: the snapshot is the same one, and no other is made.
    assert_eq!(second.snapshot, first.snapshot);
    std::fs::write(docs.join("new.txt"), "new").unwrap();
    let third = backed_up(&person);
    assert_ne!(third.snapshot, first.snapshot);
    std::fs::remove_file(docs.join("new.txt")).unwrap();
    let View::Snapshots(list) = person
        .ask(Command::BackupSnapshots {
            set: Some("docs".to_owned()),
        })
        .unwrap()
    else {
        panic!("another view")
    };
    assert_eq!(list.len(), 2);
    assert_eq!(list[0].snapshot, first.snapshot);
    assert_eq!(list[0].paths[0].to_path(), docs.canonicalize().unwrap());
    let View::Restored(again) = person
        .restore(&first.snapshot[..12], &world.path("out"))
        .unwrap()
    else {
        panic!("another view")
    };
    assert_eq!(
        (again.files, again.already_there, again.problems),
        (0, 3, 0),
        "{again:?}"
    );
    person.ask(Command::LedgerVerify).unwrap();
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn a_second_home_needs_only_the_phrase() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    backed_up(&person);
    drop(person);
    let second = world.recover("second", &phrase).unwrap();
    let View::Snapshots(list) = second
        .ask(Command::BackupSnapshots {
            set: Some("docs".to_owned()),
        })
        .unwrap()
    else {
        panic!("another view")
    };
    assert_eq!(list.len(), 1);
    second.restore("docs:latest", &world.path("out")).unwrap();
    assert_same(&docs, &world.path("out/docs"));
    // Having read back is no consent to send.
    second.add(&docs);
    assert_eq!(second.run().unwrap_err().kind, FailureKind::NoConsent);
}

#[test]
fn a_run_that_loses_the_cell_resumes_and_sends_nothing_acknowledged_again() {
    let world = World::new();
    let (person, _) = world.create("home");
    let docs = world.path("docs");
    std::fs::create_dir(&docs).unwrap();
    let mut state = 7_u64;
    for file in 0..12 {
        let noise = noise(&mut state, 4_000_000);
        std::fs::write(docs.join(format!("{file}")), noise).unwrap();
    }
    person.add(&docs);
    person.consent();
    let puts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&puts);
    world.wire.answer(move |request| {
        let is_object = request.method() == "PUT" && request.uri().path().contains("/objects/");
        let is_lost = is_object && counted.fetch_add(1, Ordering::SeqCst) >= 1;
        is_lost.then(|| Err(lost()))
    });
    assert_eq!(person.run().unwrap_err().kind, FailureKind::Unreachable);
    assert!(person.status().sets[0].interrupted);
    let acknowledged = world.wire.paths("PUT")[0].clone();
    world.wire.honest();
    world.wire.forget();
    let person = world.reopen(person);
    backed_up(&person);
    let sent: Vec<String> = world.wire.paths("PUT");
    assert!(
        !sent.contains(&acknowledged),
        "an acknowledged pack was sent again"
    );
    assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len());
    assert!(!person.status().sets[0].interrupted);
    person.restore("latest", &world.path("out")).unwrap();
    assert_same(&docs, &world.path("out/docs"));
}

#[test]
fn a_head_whose_acknowledgement_was_lost_is_ours_all_the_same() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let docs = world.path("docs");
    let lost = AtomicBool::new(false);
    world.wire.twist(move |request, reply| {
        let is_head = request.method() == "PUT" && request.uri().path().ends_with("/head");
        if is_head && !lost.swap(true, Ordering::SeqCst) {
            let busy = ErrorReply {
                version: API_VERSION,
                code: ErrorCode::Busy,
                time: Millis(0),
                used_bytes: None,
                quota_bytes: None,
            };
            return http::Response::builder()
                .status(503)
                .body(candor_wire::cbor::encode(&busy).into())
                .unwrap();
        }
        reply
    });
    backed_up(&person);
    world.wire.honest();
    std::fs::write(docs.join("new.txt"), "new").unwrap();
    backed_up(&person);
    let View::Snapshots(list) = person
        .ask(Command::BackupSnapshots {
            set: Some("docs".to_owned()),
        })
        .unwrap()
    else {
        panic!("another view")
    };
    assert_eq!(list.len(), 2);
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn one_run_of_a_set_at_a_time() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let entered = Arc::new(AtomicBool::new(false));
    let leave = Arc::new(AtomicBool::new(false));
    let (inside, wait) = (Arc::clone(&entered), Arc::clone(&leave));
    world.wire.twist(move |request, reply| {
        if request.method() == "PUT" && request.uri().path().contains("/objects/") {
            inside.store(true, Ordering::SeqCst);
            while !wait.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        reply
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| person.run());
        let began = std::time::Instant::now();
        while !entered.load(Ordering::SeqCst) {
            assert!(
                began.elapsed().as_secs() < 60 && !first.is_finished(),
                "the first run sends nothing"
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let (second, events) = person.listen(Command::BackupRun { sets: Vec::new() });
        leave.store(true, Ordering::SeqCst);
        assert_eq!(second.unwrap(), View::Backups(Vec::new()));
        let told = events
            .iter()
            .any(|event| matches!(event, Event::Step { text } if text.contains("already")));
        assert!(told, "{events:?}");
        assert!(matches!(first.join().unwrap(), Ok(View::Backups(done)) if done.len() == 1));
    });
}

#[test]
fn stopping_is_clean() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let cancel = Cancel::default();
    cancel.cancel();
    let run = Command::BackupRun { sets: Vec::new() };
    let failure = person
        .engine
        .execute(run, &mut |_| (), &cancel)
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Interrupted, "{failure:?}");
    backed_up(&person);
}

#[test]
fn a_damaged_index_is_built_again() {
    let world = World::new();
    let (person, _) = world.create("home");
    let docs = world.tree("docs");
    let set = person.add(&docs);
    person.consent();
    backed_up(&person);
    let vault = person.status().sets[0].vault.clone().unwrap();
    let person = world.reopen(person);
    assert_eq!(set.name, "docs");
    let index = world.path("home/index");
    for entry in std::fs::read_dir(&index).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy() == format!("{vault}.sqlite") {
            std::fs::write(&path, vec![0x55; 65_536]).unwrap();
        } else if !path.to_string_lossy().contains("stat") {
            std::fs::remove_file(&path).unwrap();
        }
    }
    let again = backed_up(&person);
    assert_eq!(again.stored_bytes, 0, "{again:?}");
    person.restore("latest", &world.path("out")).unwrap();
    assert_same(&docs, &world.path("out/docs"));
}

#[test]
fn a_lost_device_database_is_read_from_the_cell_again() {
    let world = World::new();
    let (person, _) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    backed_up(&person);
    let home = person.engine.home().to_owned();
    drop(person);
    std::fs::write(home.join("device.sqlite"), vec![0x5a; 8192]).unwrap();
    let failure = world.open(&home).err().unwrap();
    assert_eq!(failure.kind, FailureKind::Failed);
    assert!(
        failure.sentence.contains("damaged") && failure.hint.is_some(),
        "{failure:?}"
    );
    for name in ["device.sqlite", "device.sqlite-wal", "device.sqlite-shm"] {
        let _ = std::fs::remove_file(home.join(name));
    }
    let person = Person {
        engine: world.open(&home).unwrap(),
    };
    person.add(&docs);
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    person.restore("docs:latest", &world.path("out")).unwrap();
    assert_same(&docs, &world.path("out/docs"));
}

#[test]
fn a_set_that_did_not_run_is_overdue() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    backed_up(&person);
    assert!(!person.status().sets[0].overdue);
    world
        .clock
        .forward_ms(candor_client::status::OVERDUE_AFTER_MS + 60_000);
    let status = person.status();
    assert!(status.sets[0].overdue);
    assert!(
        status.warnings.iter().any(|one| one.contains("overdue")),
        "{:?}",
        status.warnings
    );
}

#[test]
fn a_head_that_another_device_moved_first_is_built_upon() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    let vault = person.status().sets[0]
        .vault
        .clone()
        .unwrap()
        .parse()
        .unwrap();
    // A second device with a set of its own in the same vault.
    let second = world.recover("second", &phrase).unwrap();
    second.add(&world.tree("photos"));
    DeviceStore::open(&world.path("second/device.sqlite"))
        .unwrap()
        .assign_vault("photos", vault, None)
        .unwrap();
    second.consent();
    let second = Arc::new(second);
    let (other, ran) = (Arc::clone(&second), AtomicBool::new(false));
    world.wire.answer(move |request| {
        let is_head = request.method() == "PUT" && request.uri().path().ends_with("/head");
        if is_head && !ran.swap(true, Ordering::SeqCst) {
            backed_up(&other);
        }
        None
    });
    backed_up(&person);
    world.wire.honest();
    for (set, tree) in [("docs", &docs), ("photos", &world.path("photos"))] {
        let out = world.path(&format!("out-{set}"));
        person.restore(&format!("{set}:latest"), &out).unwrap();
        assert_same(tree, &out.join(set));
    }
    // Both go on from there.
    backed_up(&second);
    backed_up(&person);
    assert_eq!((person.alarms(), second.alarms()), (Vec::new(), Vec::new()));
}

#[test]
fn refusals_of_the_cell_have_their_kind_sentence_and_hint() {
    let world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let cases = [
        (ErrorCode::OverQuota, FailureKind::Policy, "9 of 10 bytes"),
        (ErrorCode::CellFull, FailureKind::Failed, "no room left"),
        (
            ErrorCode::NoConsent,
            FailureKind::NoConsent,
            "no live consent",
        ),
    ];
    for (code, kind, words) in cases {
        world.wire.answer(move |request| {
            let reply = ErrorReply {
                version: API_VERSION,
                code,
                time: Millis(0),
                used_bytes: (code == ErrorCode::OverQuota).then_some(9),
                quota_bytes: (code == ErrorCode::OverQuota).then_some(10),
            };
            let body = candor_wire::cbor::encode(&reply).into();
            let reply = http::Response::builder()
                .status(code.status())
                .body(body)
                .unwrap();
            (request.method() == "PUT").then_some(Ok(reply))
        });
        let failure = person.run().unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(
            failure.sentence.contains(words) && failure.hint.is_some(),
            "{failure:?}"
        );
    }
    world.wire.honest();
    backed_up(&person);
}

#[test]
fn another_phrase_opens_nothing_and_an_unreachable_cell_can_be_tried_again() {
    let world = World::new();
    let (_person, phrase) = world.create("home");
    let other = candor_client::engine::draw_phrase(&SystemEntropy).unwrap();
    let failure = world.recover("second", &other).err().unwrap();
    assert_eq!(failure.kind, FailureKind::Failed);
    assert!(
        failure.sentence.contains("recovery phrase") && failure.hint.is_some(),
        "{failure:?}"
    );
    world.wire.cut();
    assert_eq!(
        world.recover("second", &phrase).err().unwrap().kind,
        FailureKind::Unreachable
    );
    world.wire.honest();
    // The next try has names and protection of its own; what was sent until now stays on record.
    let mut params = world.params("second", world.cell().address_card());
    params.device_name = "laptop".to_owned();
    params.protection = KeyProtection::Passphrase("correct horse".to_owned().into());
    let second = Person {
        engine: candor_client::engine::recover_account(params, &phrase, false).unwrap(),
    };
    let View::Account(view) = second.ask(Command::AccountShow).unwrap() else {
        panic!("another view")
    };
    assert_eq!(
        (view.device_name.as_str(), view.keys_protected_by.as_str()),
        ("laptop", "passphrase")
    );
    assert!(world.path("second/begun-2/ledger").exists());
    drop(second);
    // A home that belongs to an account is never taken over.
    drop(world.recover("third", &phrase).unwrap());
    let failure = world.recover("third", &phrase).err().unwrap();
    assert_eq!(failure.kind, FailureKind::Usage, "{failure:?}");
}

#[test]
fn listings_find_compare() {
    let world = World::new();
    let (person, _) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    let first = backed_up(&person).snapshot;
    std::fs::write(docs.join("a.txt"), "other").unwrap();
    std::fs::write(docs.join("new.txt"), "new").unwrap();
    std::fs::remove_file(docs.join("sub/b.txt")).unwrap();
    let second = backed_up(&person).snapshot;
    let entries = |command: Command| -> Vec<String> {
        let (view, events) = person.listen(command);
        assert_eq!(view.unwrap(), View::Done);
        let texts = events.into_iter().filter_map(|event| match event {
            Event::Entry(entry) => Some(format!("{} {}", entry.kind, entry.path.text)),
            Event::Difference(one) => Some(format!("{} {}", one.change, one.path.text)),
            _ => None,
        });
        texts.collect()
    };
    let ls = Command::BackupLs {
        snapshot: first.clone(),
        path: Some(PathText::from_bytes(b"docs")),
        recursive: false,
    };
    assert_eq!(entries(ls), ["file docs/a.txt", "folder docs/sub"]);
    let find = Command::BackupFind {
        glob: "*.txt".to_owned(),
    };
    assert_eq!(
        entries(find),
        [
            "file docs/a.txt",
            "file docs/sub/b.txt",
            "file docs/a.txt",
            "file docs/new.txt"
        ]
    );
    let diff = entries(Command::BackupDiff {
        a: first,
        b: second,
    });
    for line in [
        "content docs/a.txt",
        "added docs/new.txt",
        "removed docs/sub/b.txt",
    ] {
        assert!(diff.iter().any(|one| one == line), "{line}: {diff:?}");
    }
    let missing = Command::BackupLs {
        snapshot: "latest".to_owned(),
        path: Some(PathText::from_bytes(b"no")),
        recursive: false,
    };
    assert_eq!(person.ask(missing).unwrap_err().kind, FailureKind::Usage);
}

#[test]
fn over_tls_it_is_the_same_and_the_ledger_counts_what_was_on_the_wire() {
    let world = World::new();
    let listening = world.runtime.block_on(world.cell().bind()).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = world.runtime.spawn(listening.run(async move {
        let _ = stopped.await;
    }));
    let phrase = candor_client::engine::draw_phrase(&SystemEntropy).unwrap();
    let mut params = world.params("home", world.invite());
    params.door = CellDoor::Network;
    let person = Person {
        engine: candor_client::engine::create_account(params, &phrase).unwrap(),
    };
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    backed_up(&person);
    person.restore("latest", &world.path("out")).unwrap();
    assert_same(&docs, &world.path("out/docs"));
    let lines = person.ledger();
    let sent: Vec<_> = lines
        .iter()
        .filter(|line| line.service == "backup")
        .collect();
    assert!(
        sent.iter().all(|line| line.consent_state == "live"),
        "{sent:?}"
    );
    let plain: u64 = sent.iter().map(|line| line.plain_out).sum();
    let cipher: u64 = sent.iter().map(|line| line.cipher_out.unwrap()).sum();
    assert!(plain > 6_000_000 && cipher > plain, "{sent:?}");
    assert!(
        lines
            .iter()
            .all(|line| line.remote.is_some() && line.protocol == "tcp"),
        "{lines:?}"
    );
    stop.send(()).unwrap();
    world.runtime.block_on(served).unwrap();
    let failure = person.run().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
    assert!(person.status().sets[0].interrupted);
    assert_eq!(person.alarms(), Vec::<String>::new());
}

#[test]
fn latest_alone_is_refused_where_there_are_several_sets() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    person.add(&world.tree("docs"));
    person.add(&world.tree("pictures"));
    person.consent();
    person.run().unwrap();
    let refused = person.restore("latest", &world.path("out")).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Usage, "{refused:?}");
    assert!(refused.sentence.contains("docs, pictures"), "{refused:?}");
    assert!(!world.path("out").exists());
    drop(person);
    // A home that knows no set by name learns all of them.
    let other = world.recover("other", &phrase).unwrap();
    let View::Snapshots(list) = other.ask(Command::BackupSnapshots { set: None }).unwrap() else {
        panic!("another view")
    };
    let mut sets: Vec<&str> = list.iter().map(|one| one.set.as_str()).collect();
    sets.sort_unstable();
    assert_eq!(sets, ["docs", "pictures"]);
    other
        .restore("pictures:latest", &world.path("out"))
        .unwrap();
    assert_same(&world.path("pictures"), &world.path("out/pictures"));
}

#[test]
fn a_whole_id_opens_the_one_vault_that_has_it() {
    let world = World::new();
    let (person, phrase) = world.create("home");
    let names = ["docs", "letters", "pictures"];
    for name in names {
        person.add(&world.tree(name));
    }
    person.consent();
    let View::Backups(done) = person.run().unwrap() else {
        panic!("another view")
    };
    // How many vaults' heads are read for one snapshot.
    let heads = |person: &Person, snapshot: &str| {
        world.wire.forget();
        let command = Command::BackupLs {
            snapshot: snapshot.to_owned(),
            path: None,
            recursive: false,
        };
        person.ask(command).unwrap();
        let asked = world.wire.paths("GET");
        let is_head = |path: &&String| path.contains("/vaults/") && path.ends_with("/head");
        asked.iter().filter(is_head).count()
    };
    let ids: Vec<&str> = done.iter().map(|one| one.snapshot.as_str()).collect();
    assert_eq!(ids.len(), names.len());
    for id in &ids {
        assert_eq!(heads(&person, id), 1);
        // Whether the beginning of an id means one snapshot is known when all were seen.
        assert_eq!(heads(&person, &id[..31]), names.len());
    }
    drop(person);
    // Where nothing was seen yet, they are looked through until it is found.
    let other = world.recover("other", &phrase).unwrap();
    let first: Vec<usize> = ids.iter().map(|id| heads(&other, id)).collect();
    assert_eq!(first.iter().max(), Some(&names.len()), "{first:?}");
    assert!(ids.iter().all(|id| heads(&other, id) == 1));
}
