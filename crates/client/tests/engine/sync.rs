//! Folders in step between two devices of one account and a cell.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use candor_client::commands::{
    Answered, Command, Failure, FailureKind, FolderView, ProposalView, Stored, SyncedView,
    VersionView, View,
};
use candor_client::path_text::PathText;
use candor_client::{Cancel, Followed};

use crate::re_anchor::copy;
use crate::world::{Person, World, assert_same};

/// Longest time in which a change has to arrive, however slow the machine is.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

fn propose(person: &Person) -> Result<ProposalView, Failure> {
    let command = Command::ConsentPropose {
        service: "sync".to_owned(),
        sets: Vec::new(),
    };
    match person.ask(command)? {
        View::Proposal(proposal) => Ok(proposal),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn say_yes(person: &Person) {
    let token = propose(person).unwrap().token;
    person
        .ask(Command::ConsentGive {
            service: "sync".to_owned(),
            sets: Vec::new(),
            token,
            answered: Answered::Terminal,
        })
        .unwrap();
}

fn folder(view: View) -> FolderView {
    match view {
        View::Folder(folder) => folder,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn add(person: &Person, path: &Path) -> FolderView {
    let command = Command::SyncAdd {
        name: Some("papers".to_owned()),
        path: PathText::from_path(path),
        excludes: Vec::new(),
    };
    folder(person.ask(command).unwrap())
}

fn join(person: &Person, name: &str, path: &Path) -> Result<FolderView, Failure> {
    std::fs::create_dir_all(path).unwrap();
    let command = Command::SyncJoin {
        name: name.to_owned(),
        path: PathText::from_path(path),
        excludes: Vec::new(),
    };
    person.ask(command).map(folder)
}

pub(crate) fn run(person: &Person) -> Result<SyncedView, Failure> {
    match person.ask(Command::SyncRun {
        folders: Vec::new(),
    })? {
        View::Synced(mut views) => Ok(views.remove(0)),
        other => panic!("{other:?}"),
    }
}

fn folders(person: &Person) -> Vec<FolderView> {
    match person.ask(Command::SyncList).unwrap() {
        View::Folders(list) => list,
        other => panic!("{other:?}"),
    }
}

/// The files of a folder without the hidden one.
fn assert_in_step(a: &Path, b: &Path, world: &World) {
    let plain = |path: &Path, name: &str| {
        let to = world.path(name);
        let _ = std::fs::remove_dir_all(&to);
        copy(path, &to);
        std::fs::remove_dir_all(to.join(".candor-sync")).unwrap();
        to
    };
    assert_same(&plain(a, "plain-a"), &plain(b, "plain-b"));
}

/// Two devices of one account, and a folder that both have.
struct Two {
    world: World,
    laptop: Person,
    phone: Person,
    on_laptop: PathBuf,
    on_phone: PathBuf,
}

fn two() -> Two {
    let world = World::new();
    let (laptop, phrase) = world.create("laptop");
    let phone = world.recover("phone", &phrase).unwrap();
    let on_laptop = world.tree("papers-on-laptop");
    let on_phone = world.path("papers-on-phone");
    add(&laptop, &on_laptop);
    say_yes(&laptop);
    run(&laptop).unwrap();
    join(&phone, "papers", &on_phone).unwrap();
    say_yes(&phone);
    run(&phone).unwrap();
    assert_in_step(&on_laptop, &on_phone, &world);
    Two {
        world,
        laptop,
        phone,
        on_laptop,
        on_phone,
    }
}

#[test]
fn nothing_is_sent_before_the_yes_and_after_the_no() {
    let world = World::new();
    let (person, _) = world.create("home");
    let papers = world.tree("papers");
    let before = person.ledger().len();
    let added = add(&person, &papers);
    assert_eq!(added.consent, "off");
    let refused = run(&person).unwrap_err();
    assert_eq!(refused.kind, FailureKind::NoConsent);
    let proposal = propose(&person).unwrap();
    assert!(proposal.text.starts_with("SYNC: what you are asked"));
    assert!(proposal.text.contains(papers.to_str().unwrap()));
    assert_eq!(person.ledger().len(), before, "no connection was opened");
    assert!(!papers.join(".candor-sync").exists());
    say_yes(&person);
    run(&person).unwrap();
    // Backup stays off, and its commands do not take the folder for a set.
    assert_eq!(person.run().unwrap_err().kind, FailureKind::Usage);
    person
        .ask(Command::ConsentOff {
            service: "sync".to_owned(),
            set: None,
            stored: Stored::Stays,
        })
        .unwrap();
    let before = person.ledger().len();
    std::fs::write(papers.join("new"), "new").unwrap();
    assert_eq!(run(&person).unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!(folders(&person)[0].consent, "withdrawn");
    assert_eq!(person.ledger().len(), before, "no connection was opened");
}

#[test]
fn the_status_says_when_a_folder_is_off_and_before_its_consent_ends() {
    let world = World::new();
    let (person, _) = world.create("home");
    add(&person, &world.tree("papers"));
    let told = |text: &str| {
        let warnings = person.status().warnings;
        warnings.iter().any(|warning| warning.contains(text))
    };
    assert!(told(
        "papers is not kept in step: `candor consent on sync` asks"
    ));
    say_yes(&person);
    assert!(!told("papers"));
    world.clock.forward_ms(350 * 24 * 60 * 60 * 1000);
    assert!(told("the consent for papers ends on"));
    assert!(told("`candor consent on sync` renews it"));
    world.clock.forward_ms(60 * 24 * 60 * 60 * 1000);
    assert!(told("the consent for papers has ended"));
}

#[test]
fn what_one_device_does_the_other_one_has() {
    let two = two();
    let (a, b) = (&two.on_laptop, &two.on_phone);
    std::fs::rename(a.join("sub"), a.join("moved")).unwrap();
    std::fs::write(a.join("moved/b.txt"), "gamma").unwrap();
    std::fs::remove_file(a.join("a.txt")).unwrap();
    let sent = run(&two.laptop).unwrap();
    assert_eq!((sent.received, sent.conflicts), (0, 0));
    let got = run(&two.phone).unwrap();
    assert_eq!(got.conflicts, 0);
    assert_in_step(a, b, &two.world);
    // The other way round, and both at once.
    std::fs::write(b.join("from-phone"), "hello").unwrap();
    std::fs::write(a.join("moved/b.txt"), "by the laptop").unwrap();
    std::fs::write(b.join("moved/b.txt"), "by the phone").unwrap();
    run(&two.phone).unwrap();
    assert_eq!(run(&two.laptop).unwrap().conflicts, 1);
    run(&two.phone).unwrap();
    assert_in_step(a, b, &two.world);
    let View::Conflicts(conflicts) = two.phone.ask(Command::SyncConflicts).unwrap() else {
        panic!("another view")
    };
    assert_eq!(conflicts.len(), 1);
    assert!(
        conflicts[0].path.text.contains("b (conflict laptop "),
        "{conflicts:?}"
    );
    // Whoever removes the copy settles it for both.
    std::fs::remove_file(conflicts[0].path.to_path()).unwrap();
    run(&two.phone).unwrap();
    run(&two.laptop).unwrap();
    assert_eq!(folders(&two.laptop)[0].conflicts, 0);
    for person in [&two.laptop, &two.phone] {
        person.ask(Command::LogMonitor).unwrap();
        assert_eq!(person.alarms(), Vec::<String>::new());
    }
}

fn versions(person: &Person, path: &PathText) -> Vec<VersionView> {
    let path = path.clone();
    match person.ask(Command::SyncVersions { path }).unwrap() {
        View::Versions(versions) => versions,
        other => panic!("{other:?}"),
    }
}

/// Each change leaves an older manifest behind, which nothing names; the versions themselves stay.
#[test]
fn what_nothing_needs_is_let_go_of_by_either_device_and_versions_stay() {
    let two = two();
    let note = two.on_laptop.join("note");
    for text in ["one", "two", "three", "four"] {
        std::fs::write(&note, text).unwrap();
        run(&two.laptop).unwrap();
    }
    run(&two.phone).unwrap();
    let prune = |person: &Person| {
        person.ask(Command::SyncPrune {
            folders: Vec::new(),
            max_unused_percent: 0,
        })
    };
    let pruned = |person| match prune(person).unwrap() {
        View::Pruned(pruned) => pruned,
        other => panic!("{other:?}"),
    };
    let path = PathText::from_path(&note);
    let before = versions(&two.laptop, &path);
    let first = pruned(&two.phone);
    assert!(first.orphans >= 4, "{first:?}");
    assert_eq!(pruned(&two.laptop).orphans, 0);
    // The laptop's rounds go on from a head that another device moved, and nothing is sent or fetched for it.
    let round = run(&two.laptop).unwrap();
    assert_eq!((round.sent, round.received, round.removed), (0, 0, 0));
    let after = versions(&two.laptop, &path);
    assert_eq!(after, before);
    for (version, text) in after.iter().zip(["four", "three", "two", "one"]) {
        let to = two.world.path(text);
        two.laptop
            .ask(Command::SyncRestore {
                path: path.clone(),
                version: version.version.clone(),
                to: Some(PathText::from_path(&to)),
            })
            .unwrap();
        assert_eq!(std::fs::read(to.join("note")).unwrap(), text.as_bytes());
    }
    std::fs::write(&note, "five").unwrap();
    run(&two.laptop).unwrap();
    run(&two.phone).unwrap();
    assert_in_step(&two.on_laptop, &two.on_phone, &two.world);
    // Like every change of the vault, it needs a consent.
    let off = Command::ConsentOff {
        service: "sync".to_owned(),
        set: None,
        stored: Stored::Stays,
    };
    two.laptop.ask(off).unwrap();
    let puts = two.world.wire.paths("PUT");
    assert_eq!(prune(&two.laptop).unwrap_err().kind, FailureKind::NoConsent);
    assert_eq!(two.world.wire.paths("PUT"), puts);
    for person in [&two.laptop, &two.phone] {
        assert_eq!(person.alarms(), Vec::<String>::new());
    }
}

#[test]
fn old_versions_come_back_and_what_was_there_stays_a_version() {
    let two = two();
    let note = two.on_laptop.join("note");
    for text in ["one", "two", "three"] {
        std::fs::write(&note, text).unwrap();
        run(&two.laptop).unwrap();
    }
    std::fs::remove_file(&note).unwrap();
    run(&two.laptop).unwrap();
    run(&two.phone).unwrap();
    let path = PathText::from_path(&two.on_phone.join("note"));
    let found = versions(&two.phone, &path);
    let shown: Vec<(&str, u64, bool)> = found
        .iter()
        .map(|one| (one.kind.as_str(), one.bytes, one.current))
        .collect();
    assert_eq!(
        shown,
        [
            ("removed", 0, true),
            ("file", 5, false),
            ("file", 3, false),
            ("file", 3, false)
        ]
    );
    assert!(found.iter().all(|one| one.device == "laptop"));
    let restore = |version: &str, to: Option<&Path>| {
        two.phone.ask(Command::SyncRestore {
            path: path.clone(),
            version: version.to_owned(),
            to: to.map(PathText::from_path),
        })
    };
    restore(&found[3].version, None).unwrap();
    assert_eq!(std::fs::read(two.on_phone.join("note")).unwrap(), b"one");
    // What is there now was never sent, and is a version after all.
    std::fs::write(two.on_phone.join("note"), "written on the phone").unwrap();
    restore(&found[1].version[..12], None).unwrap();
    assert_eq!(std::fs::read(two.on_phone.join("note")).unwrap(), b"three");
    run(&two.phone).unwrap();
    run(&two.laptop).unwrap();
    assert_eq!(std::fs::read(&note).unwrap(), b"three");
    let sizes: Vec<u64> = versions(&two.phone, &path)
        .iter()
        .map(|one| one.bytes)
        .collect();
    assert_eq!(sizes, [5, 20, 0, 5, 3, 3]);
    let elsewhere = two.world.path("elsewhere");
    restore(&found[2].version, Some(&elsewhere)).unwrap();
    assert_eq!(std::fs::read(elsewhere.join("note")).unwrap(), b"two");
    for bad in ["", "xyz"] {
        assert_eq!(restore(bad, None).unwrap_err().kind, FailureKind::Usage);
    }
    // Off: nothing that is there is replaced, for it could not be saved first.
    let folder = "papers".to_owned();
    two.phone
        .ask(Command::SyncPause {
            folder,
            paused: true,
        })
        .unwrap();
    std::fs::write(two.on_phone.join("note"), "unsaved").unwrap();
    assert!(restore(&found[1].version, None).is_err());
    assert_eq!(
        std::fs::read(two.on_phone.join("note")).unwrap(),
        b"unsaved"
    );
    let leftovers = std::fs::read_dir(two.on_phone.join(".candor-sync"))
        .unwrap()
        .count();
    assert_eq!(leftovers, 1, "only the marker");
}

#[test]
fn a_paused_folder_is_left_alone_and_one_that_is_off_is_not_joined() {
    let two = two();
    let pause = |paused| {
        let folder = "papers".to_owned();
        folder_of(
            two.phone
                .ask(Command::SyncPause { folder, paused })
                .unwrap(),
        )
    };
    assert!(pause(true).paused);
    std::fs::write(two.on_laptop.join("x"), "x").unwrap();
    run(&two.laptop).unwrap();
    assert_eq!(run(&two.phone).unwrap_err().kind, FailureKind::Usage);
    assert!(!two.on_phone.join("x").exists());
    assert!(!pause(false).paused);
    run(&two.phone).unwrap();
    assert_eq!(std::fs::read(two.on_phone.join("x")).unwrap(), b"x");
    let unknown = join(&two.phone, "photos", &two.world.path("photos")).unwrap_err();
    assert_eq!(unknown.kind, FailureKind::Usage);
    assert_eq!(unknown.hint.as_deref(), Some("there are: papers"));
    let inside = join(&two.phone, "papers-2", &two.on_phone.join("moved")).unwrap_err();
    assert_eq!(inside.kind, FailureKind::Usage);
}

fn folder_of(view: View) -> FolderView {
    folder(view)
}

#[test]
fn a_write_only_device_keeps_nothing_in_step() {
    let world = World::new();
    let (_, phrase) = world.create("home");
    let writer = world.recover_writer("writer", &phrase);
    let command = Command::SyncAdd {
        name: None,
        path: PathText::from_path(&world.tree("papers")),
        excludes: Vec::new(),
    };
    assert_eq!(writer.ask(command).unwrap_err().kind, FailureKind::Policy);
}

#[test]
fn a_cell_that_was_put_back_gets_everything_again_and_nothing_is_undone() {
    let mut two = two();
    let kept = two.world.path("kept");
    copy(&two.world.path("cell/store"), &kept);
    let (a, b) = (two.on_laptop.clone(), two.on_phone.clone());
    std::fs::write(a.join("a.txt"), "newer").unwrap();
    std::fs::write(a.join("later"), "later").unwrap();
    std::fs::remove_dir_all(a.join("sub")).unwrap();
    run(&two.laptop).unwrap();
    run(&two.phone).unwrap();
    std::fs::write(b.join("on the phone"), "not sent yet").unwrap();
    two.world.put_cell_back(&kept);
    let (laptop, phone) = (two.world.reopen(two.laptop), two.world.reopen(two.phone));
    // The rollback is noticed, nothing is touched, and the person decides.
    for person in [&laptop, &phone] {
        let noticed = run(person).unwrap_err();
        assert_eq!(noticed.kind, FailureKind::Integrity);
        let View::ReAnchor(proposal) = person.ask(Command::ReAnchorPropose).unwrap() else {
            panic!("another view")
        };
        let token = proposal.token;
        person.ask(Command::ReAnchorAccept { token }).unwrap();
    }
    assert_eq!(std::fs::read(a.join("a.txt")).unwrap(), b"newer");
    for _ in 0..2 {
        for person in [&laptop, &phone] {
            assert_eq!(run(person).unwrap().conflicts, 0);
        }
    }
    assert_eq!(std::fs::read(b.join("a.txt")).unwrap(), b"newer");
    assert_eq!(std::fs::read(a.join("later")).unwrap(), b"later");
    assert_eq!(
        std::fs::read(a.join("on the phone")).unwrap(),
        b"not sent yet"
    );
    assert!(!a.join("sub").exists() && !b.join("sub").exists());
    assert_in_step(&a, &b, &two.world);
}

#[test]
fn two_devices_that_follow_are_in_step_by_themselves() {
    let two = two();
    let (a, b) = (&two.on_laptop, &two.on_phone);
    let cancel = Cancel::default();
    let (tells, told) = channel();
    let tells = Mutex::new(tells);
    let tell = |news: Followed| tells.lock().unwrap().send(news).unwrap();
    std::thread::scope(|scope| {
        for person in [&two.laptop, &two.phone] {
            scope.spawn(|| person.engine.follow_folders(&tell, &cancel));
        }
        let arrives = |path: &Path, content: Option<&[u8]>| {
            let began = Instant::now();
            while std::fs::read(path).ok().as_deref() != content {
                assert!(began.elapsed() < ARRIVES_WITHIN, "{}", path.display());
                std::thread::sleep(Duration::from_millis(2));
            }
            began.elapsed()
        };
        std::fs::write(a.join("first"), "first").unwrap();
        arrives(&b.join("first"), Some(b"first"));
        let mut times = Vec::new();
        for number in 0..10_u32 {
            let (from, to) = if number % 2 == 0 { (a, b) } else { (b, a) };
            let text = number.to_string();
            std::fs::write(from.join("note"), &text).unwrap();
            times.push(arrives(&to.join("note"), Some(text.as_bytes())));
        }
        times.sort();
        println!("median {:?}", times[times.len() / 2]);
        std::fs::create_dir_all(b.join("deep/er")).unwrap();
        std::fs::write(b.join("deep/er/file"), "deep").unwrap();
        arrives(&a.join("deep/er/file"), Some(b"deep"));
        std::fs::remove_file(a.join("first")).unwrap();
        arrives(&b.join("first"), None);
        cancel.cancel();
    });
    drop(tells);
    for news in told {
        assert!(matches!(news, Followed::Synced(_)), "{news:?}");
    }
    assert_in_step(a, b, &two.world);
}
