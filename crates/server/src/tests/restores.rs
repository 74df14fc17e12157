//! Cells that come back from a backup, once and again.

use std::path::{Path, PathBuf};

use candor_wire::chain::Record;
use candor_wire::re_anchor::{ChainPoint, RE_ANCHOR_VERSION, ReAnchor};
use candor_wire::statement::Body as Said;
use http::StatusCode;

use super::transparency::{bring_back, copy, entries, files, leaf_of, published, step};
use super::world::{Person, World};
use crate::BegunAnew;

/// What `candor server re-anchor` does.
fn begin_anew(place: &Path) -> BegunAnew {
    let runtime = tokio::runtime::Handle::current();
    let begin = || runtime.block_on(crate::begin_log_anew(place)).unwrap();
    std::thread::scope(|scope| scope.spawn(begin).join().unwrap())
}

/// A copy of a cell's directory.
struct Backup(tempfile::TempDir);

impl Backup {
    fn of(world: &World) -> Self {
        let kept = tempfile::tempdir().unwrap();
        copy(world.directory.path(), kept.path());
        Self(kept)
    }

    /// The whole store is as it was, with the log's files. The keys and the signer's memory stay.
    fn restore_store(&self, place: &Path) {
        std::fs::remove_dir_all(place.join("store")).unwrap();
        copy(&self.0.path().join("store"), &place.join("store"));
    }

    /// Database, objects and keys are as they were, with the signer's memory. The log's files stay.
    fn restore_all_but_the_log(&self, place: &Path) {
        let is_log = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name == "log" || name.starts_with("log-")
        };
        let parts = |place: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(place.join("store")).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            paths.filter(|path| !is_log(path)).collect()
        };
        for path in parts(place) {
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else {
                std::fs::remove_file(path).unwrap();
            }
        }
        for path in parts(self.0.path()) {
            let target = place.join("store").join(path.file_name().unwrap());
            if path.is_dir() {
                copy(&path, &target);
            } else {
                std::fs::copy(path, target).unwrap();
            }
        }
        std::fs::remove_dir_all(place.join("keys")).unwrap();
        copy(&self.0.path().join("keys"), &place.join("keys"));
    }
}

async fn one_backup_restored_twice(restore: impl Fn(&Backup, &Path)) {
    let mut world = World::new().await;
    world.person().await;
    step(&world).await;
    let backup = Backup::of(&world);
    let place = world.directory.path().to_owned();
    let mut before = Vec::new();
    for _ in 0..2 {
        world.person().await;
        step(&world).await;
        before.push(world.cell.keys().clone());
        let begin = || {
            restore(&backup, &place);
            begin_anew(&place);
        };
        world = world.restarted_after(begin).await;
        step(&world).await;
        let now = world.cell.keys().clone();
        assert_eq!(published(&world).await.origin(), now.log_origin());
        for earlier in &before {
            assert_ne!(now.log_origin(), earlier.log_origin());
            assert_ne!(now.log, earlier.log);
            assert!(now.serial > earlier.serial);
        }
        let head = published(&world).await.head();
        assert_eq!(entries(&files(&world), head).len() as u64, head.size);
    }
}

/// The database knows of one log only. What lies beside it knows of the one that was begun after the
/// first restore, whose name and key are never used again.
#[tokio::test]
async fn a_backup_restored_twice_makes_a_third_log_by_what_the_keys_remember() {
    one_backup_restored_twice(Backup::restore_store).await;
}

#[tokio::test]
async fn a_backup_restored_twice_makes_a_third_log_by_the_files_of_the_second() {
    one_backup_restored_twice(Backup::restore_all_but_the_log).await;
}

/// A database from before a log that was begun anew does not open beside that log's keys. No generation of
/// keys is signed for it: its number would be given out twice.
#[tokio::test]
async fn a_database_from_before_the_present_log_is_not_opened() {
    let world = World::new().await;
    world.person().await;
    step(&world).await;
    let backup = Backup::of(&world);
    let place = world.directory.path().to_owned();
    let root = world.cell.root();
    let world = world
        .restarted_after(|| {
            begin_anew(&place);
        })
        .await;
    step(&world).await;
    let mut generations = Vec::new();
    let open = || {
        backup.restore_store(&place);
        let runtime = tokio::runtime::Handle::current();
        let opening = async {
            let opened = crate::Cell::open(&place).await.map(drop);
            let store = candor_store::Store::open(&place.join("store")).unwrap();
            let keys = crate::cell::stored_keyring(&store, &root).await.unwrap();
            (opened, keys.unwrap().current().clone())
        };
        let trying = || runtime.block_on(opening);
        let (opened, keys) = std::thread::scope(|scope| scope.spawn(trying).join().unwrap());
        assert!(matches!(opened, Err(crate::OpenError::LogSigner(_))));
        generations.push((keys.serial, keys.log_number));
        assert_eq!(begin_anew(&place).number, 3);
    };
    let world = world.restarted_after(open).await;
    assert_eq!(generations, [(1, None)]);
    step(&world).await;
}

/// Runs it up to its last step but one, in which nobody can write the signer's memory.
fn begin_anew_and_be_cut(place: &Path) {
    let staged = place.join("keys/log-signer.new");
    std::fs::create_dir(&staged).unwrap();
    let runtime = tokio::runtime::Handle::current();
    let begin = || runtime.block_on(crate::begin_log_anew(place)).is_err();
    assert!(std::thread::scope(|scope| scope
        .spawn(begin)
        .join()
        .unwrap()));
    std::fs::remove_dir(&staged).unwrap();
}

/// A run that was cut goes on with the number that it had.
#[tokio::test]
async fn a_cut_run_goes_on_with_its_number() {
    let world = World::new().await;
    world.person().await;
    step(&world).await;
    let place = world.directory.path().to_owned();
    let mut numbers = Vec::new();
    let cut = || {
        begin_anew_and_be_cut(&place);
        begin_anew_and_be_cut(&place);
        numbers.push(begin_anew(&place).number);
    };
    let world = world.restarted_after(cut).await;
    assert_eq!(numbers, [2]);
    assert_eq!(world.cell.keys().log_number, Some(2));
    assert!(place.join("keys/log-1.key").exists() && !place.join("keys/log-2.key").exists());
    step(&world).await;
}

/// The same, unless its log was complete and signed for once: then the database of the cut run is one that
/// was put back.
#[tokio::test]
async fn a_cut_run_that_was_put_back_begins_another_log() {
    let world = World::new().await;
    world.person().await;
    step(&world).await;
    let place = world.directory.path().to_owned();
    let mut backup = None;
    let cut = || {
        begin_anew_and_be_cut(&place);
        let kept = tempfile::tempdir().unwrap();
        copy(&place, kept.path());
        backup = Some(Backup(kept));
        begin_anew(&place);
    };
    let world = world.restarted_after(cut).await;
    step(&world).await;
    let second = world.cell.keys().clone();
    let again = || {
        backup.unwrap().restore_store(&place);
        begin_anew(&place);
    };
    let world = world.restarted_after(again).await;
    step(&world).await;
    let third = world.cell.keys();
    assert_eq!((second.log_number, third.log_number), (Some(2), Some(3)));
    assert_ne!(second.log, third.log);
    assert!(third.serial > second.serial);
}

/// A memory that cannot be read says nothing of the log before, and is no obstacle to the next one.
#[tokio::test]
async fn a_damaged_memory_of_the_signer_does_not_keep_a_cell_from_a_new_log() {
    let world = World::new().await;
    world.person().await;
    step(&world).await;
    let place = world.directory.path().to_owned();
    let mut begun = None;
    let begin = || {
        std::fs::write(place.join("keys/log-signer"), [0xff; 9]).unwrap();
        begun = Some(begin_anew(&place));
    };
    let world = world.restarted_after(begin).await;
    let begun = begun.unwrap();
    assert_eq!((begun.number, begun.signed_before), (2, None));
    step(&world).await;
    assert_eq!(
        published(&world).await.origin(),
        world.cell.keys().log_origin()
    );
}

fn accepted(world: &World, person: &Person) -> Record {
    let view = person.view.as_ref().unwrap();
    let tip = ChainPoint {
        sequence: view.next_sequence() - 1,
        link: view.tip(),
    };
    let said = ReAnchor {
        version: RE_ANCHOR_VERSION,
        chain_before: tip,
        chain_now: tip,
        heads: Vec::new(),
        log_before: None,
        log_now: None,
    };
    let said = Said::ReAnchored(Box::new(said));
    person.state(world, Some(person.device), said, &[])
}

/// A device accepted a first restore, and the cell is restored again from the same backup: the acceptance
/// is lost like everything else, and is brought back like it, before the device accepts the second one.
#[tokio::test]
async fn an_acceptance_that_was_lost_is_brought_back_before_the_next_one() {
    let world = World::new().await;
    let mut alice = world.person().await;
    step(&world).await;
    let backup = Backup::of(&world);
    let place = world.directory.path().to_owned();
    let again = || {
        backup.restore_store(&place);
        begin_anew(&place);
    };
    let world = world.restarted_after(again).await;
    let before = alice.records.clone();
    let first = accepted(&world, &alice);
    assert_eq!(
        alice.re_anchors(&world, vec![first]).await,
        StatusCode::OK,
        "the first acceptance"
    );
    let lost = alice.records[before.len()..].to_vec();
    assert!(lost.iter().all(|record| record.acknowledgement.is_some()));
    let again = || {
        backup.restore_store(&place);
        begin_anew(&place);
    };
    let world = world.restarted_after(again).await;
    // Without its acknowledgement it would be somebody's new word; with that of another it is nothing.
    let mut other = lost[0].clone();
    other.acknowledgement = before[0].acknowledgement.clone();
    assert_eq!(
        bring_back(&world, &alice, &before, vec![other]).await,
        StatusCode::BAD_REQUEST
    );
    let second = accepted(&world, &alice);
    let status = bring_back(
        &world,
        &alice,
        &before,
        vec![lost[0].clone(), second.clone()],
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    step(&world).await;
    let head = published(&world).await.head();
    let leaves = entries(&files(&world), head);
    for record in [&lost[0], &second] {
        assert!(leaves.iter().any(|leaf| leaf.encode() == leaf_of(record)));
    }
}
