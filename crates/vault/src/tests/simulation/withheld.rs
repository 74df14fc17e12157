//! A cell that keeps one object back, each in turn (row A20).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candor_wire::ObjectId;

use super::device::{Device, Fail, Files};
use super::{World, noise};
use crate::check::Damage;
use crate::{SnapshotEntry, Stream};

/// Two snapshots of folders of which one folder changed in between.
fn vault() -> World {
    let mut world = World::new(1);
    let device = &mut world.devices[0];
    device.write("top", &noise(1, 90_000));
    device.write("stays/one", &noise(2, 40_000));
    device.write("stays/two", &noise(3, 40_000));
    device.write("changes/three", &noise(4, 40_000));
    device.write("changes/four", &noise(5, 40_000));
    device.back_up().unwrap();
    device.write("changes/three", &noise(6, 50_000));
    device.back_up().unwrap();
    world
}

fn is_below(path: &Path, lost: &BTreeSet<PathBuf>) -> bool {
    path.ancestors().any(|above| lost.contains(above))
}

/// Restores what can be restored of a snapshot: what is said to be lost is lost, and nothing else is.
fn assert_rest_is_restored(
    device: &Device,
    entry: &SnapshotEntry,
    saved: &Files,
    reported: &BTreeSet<PathBuf>,
) -> Option<BTreeSet<PathBuf>> {
    let (outcome, found) = match device.restore(entry.root) {
        Ok(restored) => restored,
        Err(Fail::Alarm(text)) => {
            assert!(text.contains("Missing"), "{text}");
            assert!(reported.contains(Path::new("")), "the check says so, too");
            return None;
        }
        Err(other) => panic!("{other:?}"),
    };
    let lost: BTreeSet<PathBuf> = outcome
        .problems
        .list
        .into_iter()
        .map(|one| one.path)
        .collect();
    assert!(lost.is_subset(reported), "{lost:?} {reported:?}");
    let mut rest = saved.clone();
    rest.retain(|name, _| !is_below(&Path::new("files").join(name), &lost));
    assert_eq!(found, rest);
    Some(lost)
}

/// The files of a snapshot whose content lies in this pack.
fn in_pack(device: &Device, saved: &Files, pack: ObjectId) -> BTreeSet<PathBuf> {
    let there = saved
        .iter()
        .filter(|(_, content)| device.place_of(content) == Some(pack));
    there
        .map(|(name, _)| Path::new("files").join(name))
        .collect()
}

/// What a check says, and what comes back all the same, while one object is kept back. Returns for each snapshot what
/// was lost of it; `None` is all of it.
fn withhold(world: &mut World, object: ObjectId) -> Vec<Option<BTreeSet<PathBuf>>> {
    let ledger = world.journal.ledger.lock().unwrap().clone();
    let device = &mut world.devices[0];
    device.open().unwrap();
    let whole = world.cell.lock().unwrap().copy();
    world.cell.lock().unwrap().withhold(object);
    let report = device.check();
    let manifest = device.repository().manifest();
    let packs = device.repository().index().packs(-1, 100).unwrap();
    let pack = packs.iter().find(|pack| pack.object == object);
    let is_named = Some(object) == device.repository().head()
        || manifest.indexes.iter().any(|index| index.object == object)
        || pack.is_some();
    let damaged: Vec<_> = report
        .damaged
        .iter()
        .map(|one| (one.object, one.damage))
        .collect();
    let expected = is_named.then_some((object, Damage::Missing));
    assert_eq!(
        damaged,
        Vec::from_iter(expected),
        "the check names it alone"
    );
    let reported: BTreeSet<PathBuf> = report.affected.iter().map(|one| one.path.clone()).collect();
    let mut needed = BTreeSet::new();
    let mut lost = Vec::new();
    for entry in &manifest.snapshots {
        let saved = &ledger.saved[&entry.id];
        let found = assert_rest_is_restored(device, entry, saved, &reported);
        if pack.is_some_and(|pack| pack.stream == Stream::Data) {
            let those = in_pack(device, saved, object);
            assert_eq!(
                found.as_ref(),
                Some(&those),
                "the files that need it, and no others"
            );
            needed.extend(those);
        }
        lost.push(found);
    }
    if pack.is_none_or(|pack| pack.stream == Stream::Data) {
        assert_eq!(reported, needed);
    }
    *world.cell.lock().unwrap() = whole;
    lost
}

#[test]
fn a20_an_object_that_is_withheld_is_found_and_everything_else_restores() {
    let mut world = vault();
    let objects = world.cell.lock().unwrap().objects();
    let (mut parts, mut wholes, mut folders) = (0, 0, 0);
    for object in objects {
        for lost in withhold(&mut world, object) {
            match lost {
                None => wholes += 1,
                Some(lost) if lost == BTreeSet::from([PathBuf::from("files/stays")]) => {
                    folders += 1
                }
                Some(lost) if !lost.is_empty() => parts += 1,
                Some(_) => {}
            }
        }
    }
    // Each snapshot has a pack of its own with its root; the folder that stayed lies in the first.
    assert_eq!((wholes, folders), (2, 1));
    // The second run's pack has what changed; both snapshots need the first one.
    assert_eq!(parts, 3);
    world.assert_whole();
}

/// A device that has nothing yet cannot read a vault whose manifest or index is kept back, and says which object that
/// is; when it is there again, so is everything.
#[test]
fn a20_a_new_device_names_what_is_withheld() {
    let mut world = vault();
    let device = &mut world.devices[0];
    device.open().unwrap();
    let mut objects: Vec<ObjectId> = device.repository().head().into_iter().collect();
    let indexes = &device.repository().manifest().indexes;
    objects.extend(indexes.iter().map(|index| index.object));
    device.close();
    for (number, object) in (20..).zip(objects) {
        let whole = world.cell.lock().unwrap().copy();
        world.cell.lock().unwrap().withhold(object);
        let top = world.top.path();
        let mut fresh = Device::new(number, top, 1, &world.cell, &world.journal);
        let refused = fresh.open();
        let named = matches!(&refused, Err(Fail::Alarm(text))
            if text.contains("Missing") && text.contains(&format!("{object:?}")));
        assert!(named, "{refused:?}");
        *world.cell.lock().unwrap() = whole;
        fresh.open().unwrap();
    }
    world.assert_whole();
}
