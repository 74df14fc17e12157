#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::backup::tests::{World, awkward_tree, describe, root_of};
use crate::report::{Cancel, ProblemKind, Quiet};
use crate::tests::noise;

fn kinds(outcome: &RestoreOutcome) -> Vec<(String, ProblemKind)> {
    let list = outcome.problems.list.iter();
    list.map(|problem| (problem.path.display().to_string(), problem.kind.clone()))
        .collect()
}

#[test]
fn what_is_already_right_counts_as_done_and_what_is_not_is_left_alone() {
    let mut world = World::new();
    awkward_tree(&world);
    fs::remove_file(world.source().join("sparse")).unwrap();
    let outcome = world.back_up();
    let job = world.restore_job(root_of(&outcome));
    let first = world.restore(&job).unwrap();
    let again = world.restore(&job).unwrap();
    assert_eq!(kinds(&again), []);
    assert_eq!((again.files, again.already), (0, first.files));
    // Somebody changed one file, removed another, and left an unfinished one behind.
    fs::write(world.path("target/source/text"), b"mine now!\n").unwrap();
    fs::remove_file(world.path("target/source/large")).unwrap();
    let leftover = world.path("target/source/.candor-0123456789abcdef-1f.part");
    fs::write(&leftover, b"half").unwrap();
    let third = world.restore(&job).unwrap();
    let mut listed = kinds(&third);
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        listed
            .iter()
            .map(|(path, _)| path.as_str())
            .collect::<Vec<_>>(),
        ["source/a/second name", "source/text"]
    );
    assert_eq!(
        fs::read(world.path("target/source/text")).unwrap(),
        b"mine now!\n"
    );
    assert_eq!(
        fs::read(world.path("target/source/large")).unwrap(),
        noise(1, 9_000_000)
    );
    assert!(!leftover.exists());
}

#[test]
fn a_stopped_restore_leaves_no_unfinished_file_and_goes_on() {
    struct StopAfter<'a>(&'a Cancel);
    impl Progress for StopAfter<'_> {
        fn expect(&self, _files: u64, _bytes: u64) {}
        fn advance(&self, _files: u64, bytes: u64) {
            if bytes > 0 {
                self.0.cancel();
            }
        }
    }
    let mut world = World::new();
    world.write("a", &noise(5, 40_000_000));
    let outcome = world.back_up();
    let job = world.restore_job(root_of(&outcome));
    let cancel = Cancel::default();
    let stopped = run(
        &world.repository,
        &job,
        world.cell.as_ref(),
        &StopAfter(&cancel),
        &cancel,
    );
    assert!(matches!(stopped, Err(RestoreError::Cancelled)));
    assert_eq!(
        fs::read_dir(world.path("target/source")).unwrap().count(),
        0
    );
    assert_eq!(world.restore(&job).unwrap().files, 1);
    assert_eq!(
        describe(&world.source()),
        describe(&world.path("target/source"))
    );
}

#[test]
fn parts_of_a_snapshot_keep_their_paths() {
    let mut world = World::new();
    world.write("a/b/one", b"1");
    world.write("a/two", b"2");
    world.write("three", b"3");
    let outcome = world.back_up();
    let mut job = world.restore_job(root_of(&outcome));
    job.paths = vec!["source/a/b".into(), "source/three".into()];
    world.restore(&job).unwrap();
    let names: Vec<_> = describe(&world.path("target"))
        .into_keys()
        .map(|n| String::from_utf8(n).unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "source",
            "source/a",
            "source/a/b",
            "source/a/b/one",
            "source/three"
        ]
    );
    job.paths = vec!["source/none".into()];
    job.target = world.path("elsewhere");
    assert!(matches!(
        world.restore(&job),
        Err(RestoreError::NotFound { .. })
    ));
    assert!(!world.path("elsewhere").exists());
}

#[test]
fn a_path_in_a_folder_that_is_out_of_reach_hinders_no_other_path() {
    let mut world = World::new();
    world.write("lost/one", b"1");
    world.back_up();
    let first: Vec<_> = world.cell.objects.lock().unwrap().keys().copied().collect();
    world.write("there/two", b"2");
    let outcome = world.back_up();
    // Everything of the first backup is gone, the folder `lost` with it.
    let manifest = world.repository.head();
    let mut objects = world.cell.objects.lock().unwrap();
    objects.retain(|object, _| !first.contains(object) || Some(*object) == manifest);
    drop(objects);
    let mut job = world.restore_job(root_of(&outcome));
    job.paths = vec!["source/lost/one".into(), "source/there/two".into()];
    let restored = world.restore(&job).unwrap();
    assert_eq!(
        kinds(&restored),
        [("source/lost".to_owned(), ProblemKind::Damaged)]
    );
    let two = fs::read(world.path("target/source/there/two"));
    assert_eq!(two.unwrap(), b"2");
}

#[test]
fn c06_setuid_and_device_nodes_need_privileges() {
    if !crate::sys::is_superuser() {
        return;
    }
    let mut world = World::new();
    let tool = world.write("tool", b"#!/bin/true\n");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o6755)).unwrap();
    let handle = crate::sys::open_directory_path(world.source()).unwrap();
    let device =
        crate::sys::create_special(&handle, "null", crate::sys::FileKind::CharacterDevice, 1, 3);
    let outcome = world.back_up();
    let job = world.restore_job(root_of(&outcome));
    let restored = world.restore(&job).unwrap();
    let mut wanted = vec![("source/tool".to_owned(), ProblemKind::SetIdDropped)];
    if device.is_ok() {
        wanted.push(("source/null".to_owned(), ProblemKind::DeviceNode));
    }
    assert_eq!(kinds(&restored), wanted);
    assert_eq!(
        world.path("target/source/tool").metadata().unwrap().mode() & 0o7777,
        0o755
    );
    assert!(!world.path("target/source/null").exists());
    let job = RestoreJob {
        privileged: true,
        target: world.path("privileged"),
        ..job
    };
    assert_eq!(kinds(&world.restore(&job).unwrap()), []);
    assert_eq!(
        describe(&world.source()),
        describe(&world.path("privileged/source"))
    );
}

#[test]
fn sockets_are_listed() {
    let mut world = World::new();
    let handle = crate::sys::open_directory_path(world.source()).unwrap();
    // Only the entry is needed, and nobody listens behind it.
    rustix::fs::mknodat(
        &handle,
        "socket",
        rustix::fs::FileType::Socket,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let outcome = world.back_up();
    let restored = world
        .restore(&world.restore_job(root_of(&outcome)))
        .unwrap();
    assert_eq!(
        kinds(&restored),
        [("source/socket".to_owned(), ProblemKind::Socket)]
    );
}

#[test]
fn a35_planted_links_are_never_followed() {
    let mut world = World::new();
    world.write("dir/file", b"content");
    world.write("plain", b"content");
    let outcome = world.back_up();
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir_all(world.path("target/source")).unwrap();
    symlink(&outside, world.path("target/source/dir")).unwrap();
    symlink(outside.join("planted"), world.path("target/source/plain")).unwrap();
    let restored = world
        .restore(&world.restore_job(root_of(&outcome)))
        .unwrap();
    let mut listed = kinds(&restored);
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        listed,
        [
            ("source/dir".to_owned(), ProblemKind::Exists),
            ("source/dir/file".to_owned(), ProblemKind::ParentMissing),
            ("source/plain".to_owned(), ProblemKind::Exists),
        ]
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a35_a_directory_that_is_swapped_for_a_link_while_the_restore_runs_is_not_entered() {
    /// Swaps the directory for a link to the outside after the first file was written.
    struct Swapper {
        directory: PathBuf,
        outside: PathBuf,
    }
    impl Progress for Swapper {
        fn expect(&self, _files: u64, _bytes: u64) {
            fs::create_dir_all(self.directory.parent().unwrap()).unwrap();
            symlink(&self.outside, &self.directory).unwrap();
        }
        fn advance(&self, _files: u64, _bytes: u64) {}
    }
    let mut world = World::new();
    world.write("dir/file", b"content");
    let outcome = world.back_up();
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    let swapper = Swapper {
        directory: world.path("target/source/dir"),
        outside: outside.clone(),
    };
    let job = world.restore_job(root_of(&outcome));
    let restored = run(
        &world.repository,
        &job,
        world.cell.as_ref(),
        &swapper,
        &Cancel::default(),
    )
    .unwrap();
    assert!(!restored.problems.is_empty());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a35_directories_that_are_swapped_for_links_after_the_survey_are_not_entered() {
    /// More than a restore keeps open, so that some are opened again after they were surveyed.
    const DIRECTORIES: usize = 200;
    /// Swaps every directory for a link to the outside once the first file is being written.
    struct Swapper<'a>(&'a World, std::sync::Once);
    impl Progress for Swapper<'_> {
        fn expect(&self, _files: u64, _bytes: u64) {}
        fn advance(&self, _files: u64, _bytes: u64) {
            self.1.call_once(|| {
                for number in 0..DIRECTORIES {
                    let directory = self.0.path(&format!("target/source/{number}"));
                    fs::rename(&directory, self.0.path(&format!("moved/{number}"))).unwrap();
                    symlink(self.0.path("outside"), &directory).unwrap();
                }
            });
        }
    }
    let mut world = World::new();
    for number in 0..DIRECTORIES {
        world.write(&format!("{number}/file-{number}"), b"content");
        fs::create_dir_all(world.path(&format!("target/source/{number}"))).unwrap();
    }
    let outcome = world.back_up();
    fs::create_dir(world.path("moved")).unwrap();
    fs::create_dir(world.path("outside")).unwrap();
    fs::set_permissions(world.path("outside"), fs::Permissions::from_mode(0o711)).unwrap();
    let job = world.restore_job(root_of(&outcome));
    let swapper = Swapper(&world, std::sync::Once::new());
    let cancel = Cancel::default();
    let cell = world.cell.as_ref();
    let restored = run(&world.repository, &job, cell, &swapper, &cancel).unwrap();
    assert!(swapper.1.is_completed() && !restored.problems.is_empty());
    let outside = world.path("outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(outside.metadata().unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn a_target_that_is_a_file_is_refused() {
    let mut world = World::new();
    world.write("a", b"1");
    let outcome = world.back_up();
    fs::write(world.path("target"), b"file").unwrap();
    let refused = restore_quietly(&world, &world.restore_job(root_of(&outcome)));
    assert!(matches!(refused, Err(RestoreError::Target { .. })));
    assert_eq!(fs::read(world.path("target")).unwrap(), b"file");
}

fn restore_quietly(world: &World, job: &RestoreJob) -> Result<RestoreOutcome, RestoreError> {
    run(
        &world.repository,
        job,
        world.cell.as_ref(),
        &Quiet,
        &Cancel::default(),
    )
}

#[test]
fn the_plan_has_no_name_that_a_killed_restore_could_leave_behind() {
    struct Look<'a>(&'a World, std::sync::Mutex<Vec<String>>);
    impl Progress for Look<'_> {
        fn expect(&self, _files: u64, _bytes: u64) {}
        fn advance(&self, _files: u64, _bytes: u64) {
            let there = fs::read_dir(self.0.path("scratch")).unwrap();
            let names = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            self.1.lock().unwrap().extend(names);
        }
    }
    let mut world = World::new();
    world.write("a", &noise(1, 9_000_000));
    let outcome = world.back_up();
    fs::create_dir(world.path("scratch")).unwrap();
    let job = RestoreJob {
        scratch: world.path("scratch"),
        ..world.restore_job(root_of(&outcome))
    };
    let look = Look(&world, std::sync::Mutex::default());
    let cancel = Cancel::default();
    let done = run(&world.repository, &job, world.cell.as_ref(), &look, &cancel).unwrap();
    assert_eq!(done.files, 1);
    assert_eq!(*look.1.lock().unwrap(), Vec::<String>::new());
}
