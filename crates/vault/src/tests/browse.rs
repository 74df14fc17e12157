#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use super::*;
use crate::backup::tests::{World, root_of};
use crate::check;
use crate::report::{Cancel, Quiet};

fn listed(world: &World, root: ChunkId, path: &str, recursive: bool) -> Vec<String> {
    let mut out = Vec::new();
    let each = &mut |path: &Path, _: &Item| {
        out.push(path.display().to_string());
        ControlFlow::Continue(())
    };
    if recursive {
        let mut reader = world.repository.reader(world.cell.as_ref());
        list_all(&mut reader, root, Path::new(path), each).unwrap();
    } else {
        list(&random_reader(world), root, Path::new(path), each).unwrap();
    }
    out
}

fn random_reader(world: &World) -> RandomReader {
    RandomReader::new(&world.repository, world.cell.clone())
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
    let all = &mut |_: &Path, _: &Item| ControlFlow::Continue(());
    let missing = list(&random_reader(&world), first, Path::new("source/none"), all);
    assert!(matches!(missing, Err(BrowseError::NotFound { .. })));
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

/// What a search found in a snapshot, and how much it looked at.
fn searched(world: &World, search: &mut Search, root: ChunkId) -> (Vec<String>, usize) {
    let mut reader = world.repository.reader(world.cell.as_ref());
    let (mut found, mut looked_at) = (Vec::new(), 0);
    let each = &mut |path: &Path, _: &Item, fits| {
        looked_at += 1;
        if fits {
            found.push(path.display().to_string());
        }
        ControlFlow::Continue(())
    };
    search.run(&mut reader, root, each).unwrap();
    (found, looked_at)
}

#[test]
fn a_search_reads_what_snapshots_share_once() {
    let mut world = World::new();
    for path in ["a/x.c", "a/deep/y.h", "b/z", "c/deep/er/w"] {
        world.write(path, path.as_bytes());
    }
    let first = root_of(&world.back_up());
    let again = root_of(&world.back_up());
    world.write("c/deep/er/new.c", b"new");
    // The same folder at another place, where a pattern with a place fits.
    world.write("d/x.c", b"a/x.c");
    let second = root_of(&world.back_up());
    let hit = |paths: &[&str]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut search = Search::new("*.c").unwrap();
    let in_first = searched(&world, &mut search, first);
    assert_eq!(in_first, (hit(&["source/a/x.c"]), 11));
    // `a` holds something that fits; `a/deep`, `b` and `c` are not looked into again.
    let in_same = searched(&world, &mut search, again);
    assert_eq!(in_same, (hit(&["source/a/x.c"]), 6));
    let in_second = searched(&world, &mut search, second);
    let all = ["source/a/x.c", "source/c/deep/er/new.c", "source/d/x.c"];
    assert_eq!(in_second, (hit(&all), 12));
    let mut search = Search::new("/source/d/*").unwrap();
    assert_eq!(searched(&world, &mut search, first), (hit(&[]), 11));
    assert_eq!(searched(&world, &mut search, again), (hit(&[]), 0));
    assert_eq!(searched(&world, &mut search, second).0, ["source/d/x.c"]);
}

#[test]
fn a_pattern_is_understood_or_refused() {
    let nested = |levels| format!("{}a{}", "{".repeat(levels), "}".repeat(levels));
    assert!(Search::new(&nested(50)).is_ok());
    for bad in ["a/{b", &nested(511)] {
        let refused = Search::new(bad);
        assert!(matches!(refused, Err(BrowseError::Pattern { .. })), "{bad}");
    }
    let refused = Search::new(&nested(512));
    assert!(matches!(refused, Err(BrowseError::LongPattern)));
}

#[test]
fn a_search_that_was_stopped_knows_nothing_of_what_it_did_not_see() {
    let mut world = World::new();
    world.write("a/x", b"1");
    world.write("a/y.c", b"2");
    let root = root_of(&world.back_up());
    let mut search = Search::new("*.c").unwrap();
    let mut reader = world.repository.reader(world.cell.as_ref());
    let mut looked_at = 0;
    // It finds nothing until it is stopped, at `x`.
    let each = &mut |_: &Path, _: &Item, fits: bool| {
        assert!(!fits);
        looked_at += 1;
        if looked_at == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    search.run(&mut reader, root, each).unwrap();
    assert_eq!(looked_at, 3);
    drop(reader);
    let found = searched(&world, &mut search, root);
    assert_eq!(found, (vec!["source/a/y.c".to_owned()], 4));
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
