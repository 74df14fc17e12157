//! Having a vault or the account erased, with a real cell.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candor_client::RecoveryPhrase;
use candor_client::commands::{Command, ErasureView, FailureKind, SnapshotView, Stored, View};
use candor_client::receipt::{ErasureReceiptView, verify_erasure_receipt};

use crate::world::{Person, World, assert_same};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How long a cell that was just started may take to erase what is due.
const ERASES_WITHIN: Duration = Duration::from_secs(30);

fn off(person: &Person, set: Option<&str>, stored: Stored) -> Vec<ErasureView> {
    let command = Command::ConsentOff {
        service: "backup".to_owned(),
        set: set.map(str::to_owned),
        stored,
    };
    match person.ask(command).unwrap() {
        View::Erasures(erasures) => erasures,
        other => panic!("{other:?}"),
    }
}

fn delete(person: &Person, cancel: bool) -> Vec<ErasureView> {
    match person.ask(Command::AccountDelete { cancel }).unwrap() {
        View::Erasures(erasures) => erasures,
        other => panic!("{other:?}"),
    }
}

fn states(erasures: &[ErasureView]) -> Vec<&str> {
    erasures.iter().map(|one| one.state.as_str()).collect()
}

fn snapshots(person: &Person) -> Vec<SnapshotView> {
    match person.ask(Command::BackupSnapshots { set: None }).unwrap() {
        View::Snapshots(list) => list,
        other => panic!("{other:?}"),
    }
}

/// Lets days go by, after which the cell is started again and erases what is due.
fn days_later(world: &mut World, days: i64) {
    world.clock.forward_ms(days * DAY_MS);
    world.cell_clock.forward_ms(days * DAY_MS);
    world.stop_cell();
    world.start_cell();
}

/// The receipt, once the cell has erased what it is of.
fn receipt(person: &Person, id: &str) -> (String, ErasureReceiptView) {
    let began = Instant::now();
    loop {
        let command = Command::ConsentReceipt { id: id.to_owned() };
        match person.ask(command) {
            Ok(View::ErasureReceipt(made)) => return (made.text, made.receipt),
            Err(failure) if began.elapsed() < ERASES_WITHIN => {
                assert_eq!(failure.kind, FailureKind::Failed, "{failure:?}");
                std::thread::sleep(Duration::from_millis(200));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn restores(world: &World, person: &Person, source: &Path, what: &str) {
    let out = world.path(&format!("out of {what}"));
    person.restore(what, &out).unwrap();
    assert_same(source, &out.join(source.file_name().unwrap()));
}

/// Somebody with two sets that are backed up: the person, the phrase, and the sets' folders.
fn with_two_sets(world: &World) -> (Person, RecoveryPhrase, PathBuf, PathBuf) {
    let (person, phrase) = world.create("home");
    let (docs, photos) = (world.tree("docs"), world.tree("photos"));
    person.add(&docs);
    person.add(&photos);
    person.consent();
    person.run().unwrap();
    (person, phrase, docs, photos)
}

#[test]
fn a_set_is_erased_and_its_neighbour_and_the_person_go_on() {
    let mut world = World::new();
    let (person, phrase, docs, photos) = with_two_sets(&world);
    let other = world.recover("other", &phrase).unwrap();

    let asked = off(&person, Some("docs"), Stored::Erased);
    assert_eq!(states(&asked), ["asked"]);
    assert_eq!(asked[0].set.as_deref(), Some("docs"));
    let window = asked[0].due_ms.unwrap() - asked[0].asked_ms;
    assert!((30 * DAY_MS - 60_000..=30 * DAY_MS + 60_000).contains(&window));
    let again = off(&person, Some("docs"), Stored::Erased);
    assert_eq!(states(&again), ["asked"], "it is asked for once");
    // Every device of the account is told, and until its day everything can be read back.
    let warned = |person: &Person| {
        let warnings = person.status().warnings;
        warnings.iter().any(|one| one.contains("is erased on"))
    };
    other.ask(Command::ConsentHistory).unwrap();
    assert!(warned(&person) && warned(&other));
    restores(&world, &person, &docs, "docs:latest");
    let early = person.ask(Command::ConsentReceipt {
        id: asked[0].id.clone(),
    });
    assert_eq!(early.unwrap_err().kind, FailureKind::Failed);

    days_later(&mut world, 31);
    let (text, receipt) = receipt(&person, &asked[0].id[..12]);
    assert_eq!(receipt.vault, asked[0].vault);
    assert!(receipt.objects > 0 && receipt.bytes >= 65_536 && receipt.consents == 1);
    assert_eq!(verify_erasure_receipt(&text, None).unwrap(), receipt);
    let forged = text.replacen('A', "B", 1);
    assert!(verify_erasure_receipt(&forged, None).is_err());
    // The other device gets the same word of the cell.
    let (_, of_other) = self::receipt(&other, &asked[0].id);
    assert_eq!(of_other.erased_ms, receipt.erased_ms);

    // What is left goes on, nobody is frightened, and the log shows what it has to.
    let left = snapshots(&person);
    assert_eq!(
        left.iter().map(|one| one.set.as_str()).collect::<Vec<_>>(),
        ["photos"]
    );
    for person in [&person, &other] {
        person.ask(Command::LogMonitor).unwrap();
        assert_eq!(person.alarms(), Vec::<String>::new());
        assert!(!warned(person));
    }
    person.run().unwrap();
    restores(&world, &person, &photos, "photos:latest");
    let gone = person.restore("docs:latest", &world.path("nothing"));
    assert!(gone.is_err());

    // The set can be backed up again, as something new.
    person.consent();
    person.run().unwrap();
    restores(&world, &person, &docs, "docs:latest");
    person.ask(Command::LogMonitor).unwrap();
    assert_eq!(person.alarms(), Vec::<String>::new());

    // A device that knows nothing yet reads a chain with a stub in it.
    let fresh = world.recover("fresh", &phrase).unwrap();
    fresh.ask(Command::LogMonitor).unwrap();
    assert_eq!(snapshots(&fresh).len(), 2);
}

#[test]
fn what_is_kept_in_time_stays() {
    let mut world = World::new();
    let (person, phrase) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    person.run().unwrap();
    off(&person, None, Stored::Erased);
    // Another device takes it back.
    let other = world.recover("other", &phrase).unwrap();
    let kept = off(&other, None, Stored::Kept);
    assert_eq!(states(&kept), ["cancelled"]);
    days_later(&mut world, 31);
    person.consent();
    person.run().unwrap();
    restores(&world, &person, &docs, "docs:latest");
    let command = Command::ConsentReceipt {
        id: kept[0].id.clone(),
    };
    assert_eq!(person.ask(command).unwrap_err().kind, FailureKind::Usage);
    for person in [&person, &other] {
        person.ask(Command::LogMonitor).unwrap();
        assert_eq!(person.alarms(), Vec::<String>::new());
    }
}

#[test]
fn one_erasure_is_taken_back_and_everything_else_stays_as_it_was() {
    let mut world = World::new();
    let (person, phrase, docs, photos) = with_two_sets(&world);
    let erased = |set| off(&person, Some(set), Stored::Erased)[0].id.clone();
    let (of_docs, of_photos) = (erased("docs"), erased("photos"));
    // The sets get new vaults: what was stored before belongs to none any more, here as on a device that joins.
    person.consent();
    person.run().unwrap();
    let other = world.recover("other", &phrase).unwrap();
    for id in ["", "x", "no such id"] {
        let erasure = id.to_owned();
        let failure = other.ask(Command::ErasureKeep { erasure }).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage, "{id}");
    }
    let keep = Command::ErasureKeep {
        erasure: of_docs[..12].to_owned(),
    };
    for _ in 0..2 {
        let View::Erasures(all) = other.ask(keep.clone()).unwrap() else {
            panic!("another view")
        };
        let state = |id: &str| {
            let one = all.iter().find(|one| one.id == id).unwrap();
            (one.state.as_str(), one.set.as_deref())
        };
        assert_eq!(state(&of_docs), ("cancelled", None));
        assert_eq!(state(&of_photos), ("asked", None));
    }
    // Nothing was switched off: the new vaults go on, and what was kept outlives the window.
    person.run().unwrap();
    days_later(&mut world, 31);
    receipt(&person, &of_photos);
    let command = Command::ConsentReceipt { id: of_docs };
    assert_eq!(person.ask(command).unwrap_err().kind, FailureKind::Usage);
    person.run().unwrap();
    for (source, set) in [(&docs, "docs:latest"), (&photos, "photos:latest")] {
        restores(&world, &person, source, set);
    }
}

#[test]
fn switching_off_and_erasing_sends_no_file_and_needs_the_cell() {
    let mut world = World::new();
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    person.run().unwrap();
    world.stop_cell();
    let command = Command::ConsentOff {
        service: "backup".to_owned(),
        set: None,
        stored: Stored::Erased,
    };
    let failure = person.ask(command.clone()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    let refused = person.run().unwrap_err();
    assert_eq!(
        refused.kind,
        FailureKind::NoConsent,
        "it is off here at once"
    );
    world.start_cell();
    let View::Erasures(asked) = person.ask(command).unwrap() else {
        panic!("another view")
    };
    assert_eq!(states(&asked), ["asked"]);
}

#[test]
fn an_account_is_deleted_after_a_week_and_can_be_kept_until_then() {
    let mut world = World::new();
    let (person, phrase) = world.create("home");
    let docs = world.tree("docs");
    person.add(&docs);
    person.consent();
    person.run().unwrap();
    let nothing = person.ask(Command::AccountDelete { cancel: true });
    assert_eq!(nothing.unwrap_err().kind, FailureKind::Usage);
    delete(&person, false);
    assert_eq!(person.run().unwrap_err().kind, FailureKind::NoConsent);
    let propose = Command::ConsentPropose {
        service: "backup".to_owned(),
        sets: Vec::new(),
    };
    let refused = person.ask(propose).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Policy, "{refused:?}");
    // Somebody with the phrase alone can keep it.
    let other = world.recover("other", &phrase).unwrap();
    let kept = delete(&other, true);
    assert_eq!(states(&kept), ["cancelled"]);
    person.ask(Command::ConsentHistory).unwrap();
    person.consent();
    person.run().unwrap();

    let asked = delete(&person, false);
    let last = asked.last().unwrap();
    assert_eq!((last.state.as_str(), &last.vault), ("asked", &None));
    let window = last.due_ms.unwrap() - last.asked_ms;
    assert!((7 * DAY_MS - 60_000..=7 * DAY_MS + 60_000).contains(&window));
    restores(&world, &other, &docs, "docs:latest");
    days_later(&mut world, 8);
    let (text, receipt) = receipt(&person, &last.id);
    assert_eq!(receipt.vault, None);
    assert!(receipt.objects > 0 && receipt.consents == 2);
    verify_erasure_receipt(&text, None).unwrap();
    let gone = person.ask(Command::ConsentHistory).unwrap_err();
    assert_ne!(gone.kind, FailureKind::Integrity, "{gone:?}");
    assert!(world.recover("late", &phrase).is_err());
    assert_eq!(person.alarms(), Vec::<String>::new());
}
