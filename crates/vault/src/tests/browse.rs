#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use super::*;
use crate::backup::tests::{World, root_of};
use crate::check;
use crate::report::{Cancel, Quiet};

fn listed(world: &World, root: ChunkId, path: &str, recursive: bool) -> Vec<String> {
    let mut out = Vec::new();
    let mut reader = world.repository.reader(world.cell.as_ref());
    list(
        &mut reader,
        root,
        Path::new(path),
        recursive,
        &mut |path, _| {
            out.push(path.display().to_string());
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    out
}

#[test]
fn snapshots_can_be_listed_searched_and_compared() {
    let mut world = World::new();
    world.write("a/x.c", b"1");
    world.write("a/y.h", b"2");
    world.write("b", b"3");
    let first = root_of(&world.back_up());
    assert_eq!(listed(&world, first, "", false), ["source"]);
    assert_eq!(
        listed(&world, first, "/source", false),
        ["source/a", "source/b"]
    );
    assert_eq!(listed(&world, first, "source/b", false), ["source/b"]);
    assert_eq!(
        listed(&world, first, "", true),
        [
            "source",
            "source/a",
            "source/a/x.c",
            "source/a/y.h",
            "source/b"
        ]
    );
    let mut reader = world.repository.reader(world.cell.as_ref());
    let missing = list(
        &mut reader,
        first,
        Path::new("source/none"),
        false,
        &mut |_, _| ControlFlow::Continue(()),
    );
    assert!(matches!(missing, Err(BrowseError::NotFound { .. })));
    let mut found = Vec::new();
    let mut looked_at = 0;
    find(&mut reader, first, "*.c", &mut |path, _, fits| {
        looked_at += 1;
        if fits {
            found.push(path.display().to_string());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(found, ["source/a/x.c"]);
    assert_eq!(looked_at, 5, "source, a, x.c, y.h, b");
    // One that finds nothing can be stopped as well.
    let mut looked_at = 0;
    find(&mut reader, first, "no such name", &mut |_, _, fits| {
        assert!(!fits);
        looked_at += 1;
        if looked_at == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert_eq!(looked_at, 2);
    drop(reader);
    world.write("a/x.c", b"changed");
    world.write("new/z", b"4");
    fs::remove_file(world.source().join("b")).unwrap();
    let second = root_of(&world.back_up());
    let mut reader = world.repository.reader(world.cell.as_ref());
    let mut found = Vec::new();
    compare(&mut reader, first, second, &mut |path, difference| {
        let sign = match difference {
            Difference::Added(_) => '+',
            Difference::Removed(_) => '-',
            Difference::Changed { content: true, .. } => '~',
            Difference::Changed { content: false, .. } => '.',
        };
        found.push(format!("{sign} {}", path.display()));
        ControlFlow::Continue(())
    })
    .unwrap();
    found.retain(|line| !line.starts_with('.'));
    assert_eq!(
        found,
        [
            "~ source/a/x.c",
            "- source/b",
            "+ source/new",
            "+ source/new/z"
        ]
    );
}

#[test]
fn a_check_names_what_is_damaged_and_which_files_need_it() {
    let mut world = World::new();
    world.write("a/x", b"1");
    world.back_up();
    let run = |world: &World, read| {
        check::run(
            &world.repository,
            world.cell.as_ref(),
            read,
            &Quiet,
            &Cancel::default(),
        )
        .unwrap()
    };
    let sound = run(&world, true);
    assert!(sound.is_sound(), "{sound:?}");
    assert_eq!(
        (sound.snapshots, sound.directories, sound.files, sound.packs),
        (1, 2, 1, 2)
    );
    let packs = world.repository.index().packs(-1, 10).unwrap();
    let data = packs
        .iter()
        .find(|pack| pack.stream == crate::Stream::Data)
        .unwrap()
        .object;
    let mut bytes = world.cell.object(data);
    bytes[100] ^= 1;
    world.cell.replace(data, bytes);
    assert!(run(&world, false).is_sound());
    let damaged = run(&world, true);
    assert_eq!(
        damaged.damaged,
        [check::DamagedObject {
            object: data,
            damage: check::Damage::Altered
        }]
    );
    assert_eq!(damaged.affected.len(), 1);
    assert_eq!(damaged.affected[0].path, Path::new("source/a/x"));
    world.cell.objects.lock().unwrap().remove(&data);
    let missing = run(&world, false);
    assert_eq!(missing.damaged[0].damage, check::Damage::Missing);
    assert_eq!(missing.affected[0].path, Path::new("source/a/x"));
}
