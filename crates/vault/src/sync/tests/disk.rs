//! Rounds over real folders and a cell in memory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candor_wire::{DeviceId, Millis, Nanos, VaultId};
use tempfile::TempDir;

use crate::backup::tests::open;
use crate::manifest::{SnapshotEntry, SnapshotId, SnapshotStats};
use crate::name::Name;
use crate::node::{Entry, Kind, Metadata, Root};
use crate::pack::Stream;
use crate::ports::ObjectSink;
use crate::report::{Cancel, ProblemKind, Quiet};
use crate::repository::Repository;
use crate::sync::{Dirty, DiskFolder, OWN_FOLDER, RoundOutcome, State, SyncError, SyncJob, run};
use crate::tests::{MemoryCell, keys, noise};
use crate::tree::DirectoryBuilder;

struct Device {
    folder: PathBuf,
    repository: Repository,
    state: State,
    number: u8,
    excludes: Vec<String>,
}

struct World {
    directory: TempDir,
    cell: Arc<MemoryCell>,
}

impl World {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            cell: Arc::new(MemoryCell::new()),
        }
    }

    fn device(&self, number: u8) -> Device {
        let top = self.directory.path();
        let folder = top.join(format!("folder-{number}"));
        fs::create_dir(&folder).unwrap();
        DiskFolder::adopt(&folder, keys().vault()).unwrap();
        let head = *self.cell.head.lock().unwrap();
        Device {
            repository: open(&top.join(format!("index-{number}")), head, &self.cell),
            state: State::open(&top.join(format!("state-{number}"))).unwrap(),
            folder,
            number,
            excludes: Vec::new(),
        }
    }

    fn try_sync(&self, device: &mut Device, dirty: Dirty) -> Result<RoundOutcome, SyncError> {
        let cancel = Cancel::default();
        let head = *self.cell.head.lock().unwrap();
        if let Some(head) = head.filter(|head| device.repository.head() != Some(*head)) {
            device.repository.advance(head, &*self.cell).unwrap();
        }
        let job = SyncJob {
            name: "folder".to_owned(),
            device: DeviceId::from_bytes([device.number; 16]),
            device_name: format!("device {}", device.number),
            remote_device_name: "the other".to_owned(),
            time: Millis(1_795_000_000_000),
            dirty,
            later: Dirty::none(),
        };
        // A minute ahead, so that fresh files count as settled.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let now = Nanos(i64::try_from(now.as_nanos()).unwrap() + 60_000_000_000);
        let keys = Arc::new(keys());
        let mut folder =
            DiskFolder::open(&device.folder, keys, &device.excludes, now, &Quiet, &cancel)?;
        let sink = Arc::clone(&self.cell) as Arc<dyn ObjectSink>;
        let objects = (&*self.cell as &dyn crate::ObjectSource, Arc::clone(&sink));
        let round = run(
            &device.repository,
            &mut folder,
            &mut device.state,
            &job,
            objects,
            &cancel,
        )?;
        if let Some(staged) = round.stage(&device.repository, &*sink)? {
            self.cell.move_head(&staged).unwrap();
            device.repository.accept(staged).unwrap();
        }
        round.commit(&mut device.state)?;
        round.apply(
            &device.repository,
            &mut folder,
            &mut device.state,
            &*self.cell,
            &Quiet,
            &cancel,
        )
    }

    fn sync(&self, device: &mut Device) -> RoundOutcome {
        let outcome = self.try_sync(device, Dirty::All).unwrap();
        assert_eq!(outcome.problems.list, [], "device {}", device.number);
        outcome
    }

    fn stored_bytes(&self) -> usize {
        self.cell
            .puts
            .lock()
            .unwrap()
            .iter()
            .map(|(_, bytes)| bytes)
            .sum()
    }
}

/// What is in a folder, but for the hidden one: mode, and content or target.
fn look(folder: &Path) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut queue = vec![folder.to_owned()];
    while let Some(at) = queue.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with(OWN_FOLDER) {
                continue;
            }
            let status = fs::symlink_metadata(&path).unwrap();
            let (mtime, content) = if status.is_dir() {
                queue.push(path.clone());
                (0, Vec::new())
            } else if status.is_symlink() {
                (
                    0,
                    fs::read_link(&path)
                        .unwrap()
                        .into_os_string()
                        .into_encoded_bytes(),
                )
            } else {
                let mtime = status.mtime() * 1_000_000_000 + status.mtime_nsec();
                (mtime, fs::read(&path).unwrap())
            };
            let path = path.strip_prefix(folder).unwrap().to_owned();
            found.insert(path, (status.mode() & 0o777, mtime, content));
        }
    }
    found
}

fn fill(folder: &Path) {
    fs::create_dir_all(folder.join("a/b/c")).unwrap();
    fs::write(folder.join("a/text"), b"hello").unwrap();
    fs::write(folder.join("a/b/empty"), b"").unwrap();
    fs::write(folder.join("a/b/c/large"), noise(1, 9_000_000)).unwrap();
    fs::set_permissions(folder.join("a/text"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../nowhere", folder.join("a/link")).unwrap();
    let sparse = fs::File::create(folder.join("sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"in the middle", 2_000_000).unwrap();
    fs::create_dir(folder.join("empty folder")).unwrap();
}

#[test]
fn a_tree_arrives_whole_and_an_idle_round_does_nothing() {
    let world = World::new();
    let (mut a, mut b) = (world.device(1), world.device(2));
    fill(&a.folder);
    let sent = world.sync(&mut a);
    assert_eq!(sent.stats.received, 0);
    let received = world.sync(&mut b);
    assert_eq!(received.stats.received, 5);
    assert_eq!(look(&a.folder), look(&b.folder));
    let head = *world.cell.head.lock().unwrap();
    for device in [&mut a, &mut b] {
        let outcome = world.sync(device);
        assert_eq!(outcome.stats, super::super::SyncStats::default());
        assert!(outcome.again.is_empty());
    }
    assert_eq!(
        *world.cell.head.lock().unwrap(),
        head,
        "nobody moved the head"
    );
}

#[test]
fn a_folder_of_ten_thousand_files_is_renamed_without_sending_them_again() {
    let world = World::new();
    let (mut a, mut b) = (world.device(1), world.device(2));
    for number in 0..10_000 {
        let folder = a.folder.join(format!("photos/{}", number % 100));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{number}")), noise(number, 100)).unwrap();
    }
    world.sync(&mut a);
    world.sync(&mut b);
    let inode = fs::metadata(b.folder.join("photos/7/7")).unwrap().ino();
    let before = world.stored_bytes();
    fs::create_dir(a.folder.join("old")).unwrap();
    fs::rename(a.folder.join("photos"), a.folder.join("old/pictures")).unwrap();
    let dirty = Dirty::Folders([Vec::new(), b"old".to_vec()].into());
    world.try_sync(&mut a, dirty).unwrap();
    let sent = world.stored_bytes() - before;
    assert!(sent < 1_000_000, "{sent} bytes");
    let gets = world.cell.gets.load(std::sync::atomic::Ordering::Relaxed);
    let outcome = world.try_sync(&mut b, Dirty::default()).unwrap();
    assert_eq!((outcome.stats.received, outcome.stats.removed), (0, 0));
    let gets = world.cell.gets.load(std::sync::atomic::Ordering::Relaxed) - gets;
    assert!(gets < 10, "{gets} objects were fetched");
    assert_eq!(look(&a.folder), look(&b.folder));
    let moved = fs::metadata(b.folder.join("old/pictures/7/7")).unwrap();
    assert_eq!(moved.ino(), inode, "it is the same file");
}

#[test]
fn both_sides_of_a_conflict_stay() {
    let world = World::new();
    let (mut a, mut b) = (world.device(1), world.device(2));
    fs::write(a.folder.join("report.txt"), b"one").unwrap();
    world.sync(&mut a);
    world.sync(&mut b);
    fs::write(a.folder.join("report.txt"), b"from a").unwrap();
    fs::write(b.folder.join("report.txt"), b"from b, later").unwrap();
    world.sync(&mut a);
    assert_eq!(world.sync(&mut b).stats.conflicts, 1);
    world.sync(&mut a);
    let names: Vec<PathBuf> = look(&a.folder).into_keys().collect();
    let copy = "report (conflict device 2 2026-11-18 110640).txt";
    assert_eq!(names, [Path::new(copy), Path::new("report.txt")]);
    assert_eq!(fs::read(a.folder.join("report.txt")).unwrap(), b"from a");
    assert_eq!(fs::read(a.folder.join(copy)).unwrap(), b"from b, later");
    assert_eq!(look(&a.folder), look(&b.folder));
    assert_eq!(b.state.conflicts().unwrap(), [copy.as_bytes()]);
}

#[test]
fn what_is_left_out_stays_where_it_is_on_both_sides() {
    let world = World::new();
    let (mut a, mut b) = (world.device(1), world.device(2));
    b.excludes = vec!["/videos/".to_owned()];
    fs::create_dir_all(a.folder.join("videos")).unwrap();
    fs::write(a.folder.join("videos/film"), b"long").unwrap();
    fs::write(a.folder.join(".candorignore"), b"*.tmp\n").unwrap();
    fs::write(a.folder.join("x.tmp"), b"mine").unwrap();
    world.sync(&mut a);
    fs::write(b.folder.join("x.tmp"), b"theirs").unwrap();
    world.sync(&mut b);
    assert!(!b.folder.join("videos").exists());
    fs::write(b.folder.join("new"), b"new").unwrap();
    world.sync(&mut b);
    world.sync(&mut a);
    assert_eq!(fs::read(a.folder.join("videos/film")).unwrap(), b"long");
    assert_eq!(fs::read(a.folder.join("x.tmp")).unwrap(), b"mine");
    assert_eq!(fs::read(b.folder.join("x.tmp")).unwrap(), b"theirs");
    assert_eq!(fs::read(a.folder.join("new")).unwrap(), b"new");
    // Wanted after all.
    b.excludes.clear();
    world.sync(&mut b);
    assert_eq!(fs::read(b.folder.join("videos/film")).unwrap(), b"long");
}

#[test]
fn a_tree_deeper_than_the_limit_is_told_and_the_rest_arrives() {
    let deep = std::thread::Builder::new().stack_size(crate::sync::ROUND_STACK_BYTES);
    let done = deep.spawn(|| {
        let world = World::new();
        let (mut a, mut b) = (world.device(1), world.device(2));
        let mut path = a.folder.clone();
        for _ in 0..crate::sync::SYNC_DEPTH_MAX + 3 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        fs::write(a.folder.join("file"), b"arrives").unwrap();
        for number in [1, 2, 1, 2] {
            let device = if number == 1 { &mut a } else { &mut b };
            let outcome = world.try_sync(device, Dirty::All).unwrap();
            let kinds: Vec<_> = outcome.problems.list.iter().map(|one| &one.kind).collect();
            let expected = [&ProblemKind::TooDeep];
            assert_eq!(kinds, &expected[..usize::from(number == 1)]);
        }
        assert_eq!(fs::read(b.folder.join("file")).unwrap(), b"arrives");
    });
    done.unwrap().join().unwrap();
}

#[test]
fn what_a_killed_process_left_comes_out_or_goes() {
    let world = World::new();
    let mut a = world.device(1);
    fs::write(a.folder.join("file"), b"one").unwrap();
    world.sync(&mut a);
    let own = a.folder.join(OWN_FOLDER);
    fs::write(own.join("1-2-3.new"), b"half a download").unwrap();
    fs::write(own.join("1-2-4.aside"), b"somebody's only copy").unwrap();
    world.sync(&mut a);
    assert_eq!(
        fs::read(a.folder.join("recovered-1-2-4")).unwrap(),
        b"somebody's only copy"
    );
    assert_eq!(fs::read_dir(&own).unwrap().count(), 1, "only the marker");
}

#[test]
fn a_disk_that_is_not_there_deletes_nothing() {
    let world = World::new();
    let (mut a, mut b) = (world.device(1), world.device(2));
    fill(&a.folder);
    world.sync(&mut a);
    world.sync(&mut b);
    let before = look(&a.folder);
    let head = *world.cell.head.lock().unwrap();
    // The folder of b is an empty mount point.
    fs::remove_dir_all(&b.folder).unwrap();
    fs::create_dir(&b.folder).unwrap();
    let refused = world.try_sync(&mut b, Dirty::All).map(|_| ()).unwrap_err();
    assert!(matches!(refused, SyncError::Folder { .. }), "{refused:?}");
    assert_eq!(*world.cell.head.lock().unwrap(), head);
    world.sync(&mut a);
    assert_eq!(look(&a.folder), before);
    // Nor does a folder of another vault stand in for it.
    DiskFolder::adopt(&b.folder, VaultId::from_bytes([77; 16])).unwrap();
    assert!(world.try_sync(&mut b, Dirty::All).is_err());
    assert!(DiskFolder::adopt(&b.folder, keys().vault()).is_err());
}

#[test]
fn a_record_that_is_lost_costs_reading_and_no_conflict() {
    let world = World::new();
    let (mut a, mut b) = (world.device(1), world.device(2));
    fill(&a.folder);
    world.sync(&mut a);
    world.sync(&mut b);
    let before = look(&b.folder);
    b.state = State::in_memory().unwrap();
    let outcome = world.sync(&mut b);
    assert_eq!((outcome.stats.received, outcome.stats.conflicts), (0, 0));
    assert_eq!(look(&b.folder), before);
}

#[test]
fn a_large_file_that_changed_a_little_is_put_together_from_what_is_there() {
    let world = World::new();
    let (mut a, mut b) = (world.device(1), world.device(2));
    let mut content = noise(3, 40_000_000);
    fs::write(a.folder.join("large"), &content).unwrap();
    world.sync(&mut a);
    world.sync(&mut b);
    let before = world.cell.gets.load(std::sync::atomic::Ordering::Relaxed);
    content.splice(20_000_000..20_000_000, *b"a few bytes more");
    fs::write(a.folder.join("large"), &content).unwrap();
    world.sync(&mut a);
    world.sync(&mut b);
    assert_eq!(fs::read(b.folder.join("large")).unwrap(), content);
    let gets = world.cell.gets.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(gets <= 8, "{gets} objects were fetched");
}

#[test]
fn nothing_is_written_through_a_link_that_somebody_planted() {
    let world = World::new();
    let (mut a, mut b) = (world.device(1), world.device(2));
    let outside = world.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), b"untouched").unwrap();
    fs::create_dir(a.folder.join("sub")).unwrap();
    fs::write(a.folder.join("sub/file"), b"one").unwrap();
    world.sync(&mut a);
    world.sync(&mut b);
    // On b the folder becomes a link to another place, which the watcher did not tell.
    fs::remove_dir_all(b.folder.join("sub")).unwrap();
    symlink(&outside, b.folder.join("sub")).unwrap();
    fs::write(a.folder.join("sub/file"), b"two").unwrap();
    fs::write(a.folder.join("sub/more"), b"more").unwrap();
    world.sync(&mut a);
    let outcome = world.try_sync(&mut b, Dirty::default()).unwrap();
    assert!(!outcome.again.is_empty());
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // A look finds the link: both sides changed, and both stay.
    for _ in 0..3 {
        world.sync(&mut b);
        world.sync(&mut a);
    }
    assert_eq!(look(&a.folder), look(&b.folder));
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// A tree that no honest device makes: names that lead elsewhere, the hidden folder, a device node.
#[test]
fn a34_a_hostile_tree_puts_nothing_outside_the_folder_and_nothing_into_the_hidden_one() {
    let world = World::new();
    let mut b = world.device(2);
    let sink = Arc::clone(&world.cell) as Arc<dyn ObjectSink>;
    let mut writer = b.repository.writer(Arc::clone(&sink)).unwrap();
    let entry = |name: &str, kind: Kind| Entry {
        name: Name::new(name.as_bytes()).unwrap(),
        metadata: Metadata {
            mode: 0o6755,
            uid: 0,
            gid: 0,
            mtime: Nanos(0),
            xattrs: Vec::new(),
        },
        link: None,
        kind,
    };
    let id = writer.chunk(Stream::Data, b"evil").unwrap();
    let content = |id| Kind::File {
        size: 4,
        content: crate::node::References {
            levels: 0,
            list: vec![crate::node::Reference { id, length: 4 }],
        },
        extents: None,
    };
    let mut inner = DirectoryBuilder::default();
    let push =
        |builder: &mut DirectoryBuilder, writer: &mut crate::Writer, entry: &Entry, raw: &[u8]| {
            let mut encoded = Vec::new();
            crate::node::encode_entry_as(raw, entry, &mut encoded);
            builder.push(raw, &encoded, writer).unwrap();
        };
    let file = entry("file", content(id));
    push(&mut inner, &mut writer, &file, b"folder");
    let inner = inner.finish(&mut writer).unwrap();
    let mut top = DirectoryBuilder::default();
    push(&mut top, &mut writer, &file, b"..");
    push(&mut top, &mut writer, &file, b"../x");
    push(
        &mut top,
        &mut writer,
        &entry("d", Kind::Directory { parts: inner }),
        OWN_FOLDER.as_bytes(),
    );
    push(
        &mut top,
        &mut writer,
        &entry("n", Kind::CharacterDevice { major: 1, minor: 3 }),
        b"null",
    );
    push(&mut top, &mut writer, &file, b"plain");
    let parts = top.finish(&mut writer).unwrap();
    let root = writer
        .chunk(
            Stream::Tree,
            &Root {
                parts,
                origins: Vec::new(),
            }
            .encode(),
        )
        .unwrap();
    let written = writer.finish().unwrap();
    let snapshot = SnapshotEntry {
        id: SnapshotId::from_bytes([1; 16]),
        time: Millis(1),
        device: DeviceId::from_bytes([6; 16]),
        set: "folder".to_owned(),
        root,
        stats: SnapshotStats::default(),
        incomplete: false,
    };
    let staged = b
        .repository
        .stage_snapshot(snapshot, &written, &*sink)
        .unwrap();
    world.cell.move_head(&staged).unwrap();
    b.repository.accept(staged).unwrap();

    let marker = fs::read(b.folder.join(OWN_FOLDER).join("folder")).unwrap();
    let outcome = world.try_sync(&mut b, Dirty::All).unwrap();
    let refused: Vec<_> = outcome
        .problems
        .list
        .iter()
        .map(|one| one.kind.clone())
        .collect();
    assert!(
        refused
            .iter()
            .all(|kind| matches!(kind, ProblemKind::BadName(_))),
        "{refused:?}"
    );
    assert_eq!(refused.len(), 2);
    let found: Vec<PathBuf> = look(&b.folder).into_keys().collect();
    assert_eq!(found, [Path::new("plain")]);
    let mode = fs::metadata(b.folder.join("plain")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755, "no setuid");
    assert_eq!(
        fs::read(b.folder.join(OWN_FOLDER).join("folder")).unwrap(),
        marker
    );
    let mut beside: Vec<_> = fs::read_dir(world.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("index") && !name.starts_with("state"))
        .collect();
    beside.sort();
    assert_eq!(beside, ["folder-2"]);
}

#[test]
fn what_somebody_writes_in_the_last_moment_is_not_overwritten() {
    use crate::sync::folder::{Folder, Trouble};
    let world = World::new();
    let b = world.device(2);
    let path = b.folder.join("file");
    fs::write(&path, b"one").unwrap();
    let cancel = Cancel::default();
    let keys = Arc::new(keys());
    let mut folder =
        DiskFolder::open(&b.folder, keys, &[], Nanos(i64::MAX), &Quiet, &cancel).unwrap();
    let seen = Folder::list(&mut folder, b"").unwrap();
    let stamp = seen.iter().find(|(name, _)| name == b"file").unwrap().1;
    fs::write(&path, b"two, and longer").unwrap();
    for done in [
        Folder::remove(&mut folder, b"", b"file", &stamp),
        Folder::rename(&mut folder, (b"", b"file"), (b"", b"other"), &stamp).map(drop),
    ] {
        assert!(matches!(done, Err(Trouble::Changed)));
    }
    assert_eq!(fs::read(&path).unwrap(), b"two, and longer");
    assert!(!b.folder.join("other").exists());
}
