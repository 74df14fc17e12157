#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use super::*;
use crate::ChunkId;
use crate::backup::tests::{World, describe, root_of};
use crate::check::{self, CheckReport};
use crate::report::{Cancel, Quiet};
use crate::tests::noise;

fn check(world: &World) -> CheckReport {
    let (source, cancel) = (world.cell.as_ref(), Cancel::default());
    check::run(&world.repository, source, true, &Quiet, &cancel).unwrap()
}

/// Checks, and takes out what was found. Says how many objects that were.
fn repair(world: &mut World) -> usize {
    let report = check(world);
    let lost = still_lost(&world.repository, &report.lost, world.cell.as_ref()).unwrap();
    assert_eq!(lost, report.lost);
    let staged = stage(&world.repository, &lost, world.cell.as_ref()).unwrap();
    if let Some(staged) = staged {
        world.repository.accept(staged).unwrap();
    }
    report.lost.len()
}

/// The pack that holds a file's content.
fn pack_of(world: &World, content: &[u8]) -> ObjectId {
    let id = ChunkId::of(world.repository.keys(), content);
    world.repository.index().locate(&id).unwrap().unwrap().pack
}

fn restores(world: &World, root: ChunkId) {
    let _ = fs::remove_dir_all(world.path("target"));
    let outcome = world.restore(&world.restore_job(root)).unwrap();
    assert!(outcome.problems.list.is_empty());
    assert_eq!(
        describe(&world.source()),
        describe(&world.path("target/source"))
    );
}

/// Two files whose contents lie in different packs.
fn two_packs() -> (World, Vec<u8>, Vec<u8>, ChunkId) {
    let mut world = World::new();
    let (a, b) = (noise(1, 200_000), noise(2, 200_000));
    world.write("a", &a);
    world.back_up();
    world.write("b", &b);
    let root = root_of(&world.back_up());
    assert_ne!(pack_of(&world, &a), pack_of(&world, &b));
    (world, a, b, root)
}

#[test]
fn a_damaged_pack_is_taken_out_and_comes_back_from_the_source() {
    let (mut world, a, b, root) = two_packs();
    let pack = pack_of(&world, &a);
    let mut bytes = world.cell.object(pack);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    world.cell.replace(pack, bytes);
    let found = check(&world);
    assert_eq!(found.lost, HashMap::from([(pack, Damage::Altered)]));
    let paths: Vec<_> = found
        .affected
        .iter()
        .map(|one| one.path.as_path())
        .collect();
    let a_file = std::path::Path::new("source/a");
    assert_eq!(paths, [a_file, a_file], "of both snapshots");
    assert_eq!(repair(&mut world), 1);
    let id = ChunkId::of(world.repository.keys(), &a);
    assert_eq!(world.repository.index().locate(&id).unwrap(), None);
    // Nothing of it is found any more; the file is still named as one that lacks its content.
    let found = check(&world);
    assert_eq!(found.lost, HashMap::new());
    assert_eq!(found.affected.len(), 2);
    // Everything else comes back, and what does not is told.
    let _ = fs::remove_dir_all(world.path("target"));
    let outcome = world.restore(&world.restore_job(root)).unwrap();
    let told: Vec<_> = outcome
        .problems
        .list
        .iter()
        .map(|one| one.path.clone())
        .collect();
    assert_eq!(told, [a_file]);
    assert!(!world.path("target/source/a").exists());
    assert_eq!(fs::read(world.path("target/source/b")).unwrap(), b);
    // Nothing changed in the folder, and the next backup sends just what is missing.
    let outcome = world.back_up();
    assert!(outcome.stats.bytes_stored > 0);
    assert!(check(&world).is_sound());
    restores(&world, root);
    let fresh = world.second_device();
    let (source, cancel) = (world.cell.as_ref(), Cancel::default());
    assert!(
        check::run(&fresh, source, true, &Quiet, &cancel)
            .unwrap()
            .is_sound()
    );
}

/// What the vault's state names, but for the manifest: the packs of the contents and of the folder in both snapshots, then
/// index objects. Which pack of a backup is numbered first is a matter of chance.
fn named(world: &World, a: &[u8], b: &[u8]) -> Vec<ObjectId> {
    let index = world.repository.index();
    let manifest = world.repository.manifest();
    let folder = |n: usize| index.locate(&manifest.snapshots[n].root).unwrap().unwrap();
    let (first, second) = (folder(0).pack, folder(1).pack);
    let packs = [pack_of(world, a), pack_of(world, b), first, second];
    let all: HashSet<ObjectId> = index
        .packs(-1, 100)
        .unwrap()
        .iter()
        .map(|pack| pack.object)
        .collect();
    assert_eq!(HashSet::from(packs), all);
    let indexes = manifest.indexes.iter().map(|one| one.object);
    packs.into_iter().chain(indexes).collect()
}

#[test]
fn every_object_but_the_head_can_be_lost_and_comes_back() {
    let (world, a, b, _) = two_packs();
    let count = named(&world, &a, &b).len();
    assert!(count >= 5, "{count}");
    let mut old_trees = 0;
    for n in 0..count {
        let (mut world, a, b, _) = two_packs();
        let first = world.repository.manifest().snapshots[0].id;
        let object = named(&world, &a, &b)[n];
        world.cell.objects.lock().unwrap().remove(&object);
        assert_eq!(repair(&mut world), 1);
        let root = root_of(&world.back_up());
        let left = check(&world);
        assert!(left.lost.is_empty());
        // A folder as it was in an older snapshot is in no source any more.
        assert!(left.affected.iter().all(|one| one.snapshot == first));
        old_trees += usize::from(!left.is_sound());
        restores(&world, root);
        let fresh = world.second_device();
        let (source, cancel) = (world.cell.as_ref(), Cancel::default());
        let seen = check::run(&fresh, source, true, &Quiet, &cancel).unwrap();
        assert_eq!(seen.affected, left.affected);
        assert_eq!(seen.lost, left.lost);
    }
    assert_eq!(old_trees, 1);
}

#[test]
fn a_sound_vault_needs_no_repair() {
    let (mut world, ..) = two_packs();
    let head = world.repository.head();
    assert_eq!(repair(&mut world), 0);
    assert_eq!(world.repository.head(), head);
    // What nobody names is none of its business.
    let stranger = HashMap::from([(ObjectId::from_bytes([7; 32]), Damage::Missing)]);
    let staged = stage(&world.repository, &stranger, world.cell.as_ref()).unwrap();
    assert!(staged.is_none());
}

/// A disk that was away while it was looked for, or a cell that says so.
#[test]
fn what_is_there_again_is_not_given_up_and_what_is_missing_is_not_condemned() {
    let (mut world, a, ..) = two_packs();
    let pack = pack_of(&world, &a);
    let bytes = world.cell.object(pack);
    world.cell.objects.lock().unwrap().remove(&pack);
    let found = check(&world).lost;
    assert_eq!(found, HashMap::from([(pack, Damage::Missing)]));
    world.cell.replace(pack, bytes);
    let lost = still_lost(&world.repository, &found, world.cell.as_ref()).unwrap();
    assert_eq!(lost, HashMap::new());
    let staged = stage(&world.repository, &found, world.cell.as_ref()).unwrap();
    let staged = staged.unwrap();
    assert!(!staged.condemned().contains(&pack));
    world.repository.accept(staged).unwrap();
}
