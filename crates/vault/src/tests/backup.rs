#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::Ordering;

use tempfile::TempDir;

use super::*;
use crate::entropy::SystemEntropy;
use crate::report::{ProblemKind, Quiet};
use crate::restore::{self, RestoreError, RestoreJob, RestoreOutcome};
use crate::sys;
use crate::tests::{MemoryCell, keys, noise};

/// A device with one vault, a cell in memory, and a folder of files.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) cell: Arc<MemoryCell>,
    pub(crate) repository: Repository,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("source")).unwrap();
        let cell = Arc::new(MemoryCell::new());
        let repository = open(&directory.path().join("index"), None, &cell);
        Self {
            directory,
            cell,
            repository,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.path("source")
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn job(&self) -> BackupJob {
        BackupJob {
            sources: vec![self.source()],
            rules: Rules::default(),
            set: "documents".into(),
            device: DeviceId::from_bytes([9; 16]),
            // A minute ahead, so that fresh files count as settled.
            time: Millis(now_ms() + 60_000),
            stat_cache: self.path("states"),
        }
    }

    pub(crate) fn back_up_job(&mut self, job: &BackupJob) -> BackupOutcome {
        let sink = Arc::clone(&self.cell) as Arc<dyn ObjectSink>;
        let outcome = run(&mut self.repository, job, sink, &Quiet, &Cancel::default()).unwrap();
        if let Some(staged) = outcome.staged.clone() {
            self.repository.accept(staged).unwrap();
        }
        outcome
    }

    pub(crate) fn back_up(&mut self) -> BackupOutcome {
        let job = self.job();
        self.back_up_job(&job)
    }

    pub(crate) fn restore_job(&self, root: crate::ChunkId) -> RestoreJob {
        RestoreJob {
            root,
            paths: Vec::new(),
            target: self.path("target"),
            scratch: self.directory.path().to_path_buf(),
            privileged: false,
            durable: false,
        }
    }

    pub(crate) fn restore(&self, job: &RestoreJob) -> Result<RestoreOutcome, RestoreError> {
        restore::run(
            &self.repository,
            job,
            self.cell.as_ref(),
            &Quiet,
            &Cancel::default(),
        )
    }

    /// The same vault on another device that has only the keys.
    pub(crate) fn second_device(&self) -> Repository {
        open(
            &self.path("second-index"),
            self.repository.head(),
            &self.cell,
        )
    }
}

pub(crate) fn open(
    index: &Path,
    head: Option<candor_wire::ObjectId>,
    cell: &MemoryCell,
) -> Repository {
    Repository::open(Arc::new(keys()), Arc::new(SystemEntropy), head, index, cell).unwrap()
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

pub(crate) fn root_of(outcome: &BackupOutcome) -> crate::ChunkId {
    outcome.snapshot.root
}

/// Everything about a tree that a restore must bring back, by path.
pub(crate) fn describe(top: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut out = BTreeMap::new();
    let mut groups: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    let mut queue = vec![top.to_path_buf()];
    while let Some(directory) = queue.pop() {
        let mut entries: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            let status = fs::symlink_metadata(&path).unwrap();
            let kind = status.file_type();
            let content = if kind.is_file() && status.size() < 1 << 30 {
                blake3::hash(&fs::read(&path).unwrap()).to_string()
            } else if kind.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else {
                String::new()
            };
            let handle = sys::open_directory_path(path.parent().unwrap()).unwrap();
            let name = path.file_name().unwrap().as_bytes();
            let mut attributes = sys::attributes_at(handle.as_fd(), name, &mut Vec::new()).unwrap();
            attributes.sort();
            let group = (status.nlink() > 1 && !kind.is_dir()).then(|| {
                let next = groups.len();
                *groups.entry((status.dev(), status.ino())).or_insert(next)
            });
            let text = format!(
                "{kind:?} {:o} {}:{} {}.{:09} {} {content} {attributes:?} {group:?} {}",
                status.mode(),
                status.uid(),
                status.gid(),
                status.mtime(),
                status.mtime_nsec(),
                if kind.is_dir() { 0 } else { status.size() },
                status.rdev(),
            );
            out.insert(
                path.strip_prefix(top)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec(),
                text,
            );
            if kind.is_dir() {
                queue.push(path);
            }
        }
    }
    out
}

pub(crate) fn awkward_tree(world: &World) {
    world.write("empty", b"");
    world.write("a/b/c/deep", b"deep");
    world.write("text", b"some text\n");
    world.write("large", &noise(1, 9_000_000));
    world.write("same-as-large", &noise(1, 9_000_000));
    fs::create_dir(world.source().join("empty directory")).unwrap();
    let odd = std::ffi::OsString::from_vec(b"not \xff utf8\n".to_vec());
    fs::write(world.source().join(&odd), b"odd").unwrap();
    symlink("../\u{e9}/nowhere", world.source().join("link")).unwrap();
    fs::hard_link(
        world.source().join("text"),
        world.source().join("a/second name"),
    )
    .unwrap();
    let handle = sys::open_directory_path(world.source()).unwrap();
    sys::create_special(&handle, "pipe", sys::FileKind::Fifo, 0, 0).unwrap();
    sys::set_times(&handle, "pipe", 1_000_000_001).unwrap();
    sys::set_times(&handle, "link", -7).unwrap();
    let sparse = fs::File::create(world.source().join("sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(&noise(2, 100_000), 3_000_000).unwrap();
    sparse.set_len(5 * 1024 * 1024 * 1024).unwrap();
    let hollow = fs::File::create(world.source().join("hollow")).unwrap();
    hollow.set_len(1_000_000).unwrap();
    // Attributes are set where the file system of the tests has them.
    let text = fs::File::open(world.source().join("text")).unwrap();
    let _ = sys::set_attribute_of(&text, b"user.note", b"kept");
    let _ = sys::set_attribute_of(&handle, b"user.directory", b"kept too");
    fs::set_permissions(
        world.source().join("a/b"),
        fs::Permissions::from_mode(0o1511),
    )
    .unwrap();
    fs::set_permissions(
        world.source().join("empty"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
}

#[test]
fn every_awkward_kind_of_file_comes_back_exactly_with_only_the_keys() {
    let mut world = World::new();
    awkward_tree(&world);
    let outcome = world.back_up();
    assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
    let second = world.second_device();
    let job = world.restore_job(root_of(&outcome));
    let restored = restore::run(
        &second,
        &job,
        world.cell.as_ref(),
        &Quiet,
        &Cancel::default(),
    )
    .unwrap();
    assert!(restored.problems.is_empty(), "{:?}", restored.problems);
    let mut before = describe(&world.source());
    // The large sparse file is too long to be hashed here; its parts are compared below.
    before.retain(|path, _| path != b"sparse");
    let mut after = describe(&world.path("target/source"));
    after.retain(|path, _| path != b"sparse");
    assert_eq!(before, after);
    let sparse = fs::File::open(world.path("target/source/sparse")).unwrap();
    let status = sparse.metadata().unwrap();
    assert_eq!(status.size(), 5 * 1024 * 1024 * 1024);
    assert!(status.blocks() * 512 < 1_000_000);
    let mut data = vec![0; 100_000];
    sparse.read_exact_at(&mut data, 3_000_000).unwrap();
    assert_eq!(data, noise(2, 100_000));
    assert_eq!(
        world.path("target/source").metadata().unwrap().mtime(),
        world.source().metadata().unwrap().mtime()
    );
    assert!(!fs::read_dir(world.directory.path()).unwrap().any(|entry| {
        entry
            .unwrap()
            .path()
            .extension()
            .is_some_and(|e| e == "plan")
    }));
}

#[test]
fn an_unchanged_tree_is_not_opened_and_stores_no_content() {
    let mut world = World::new();
    awkward_tree(&world);
    let first = world.back_up();
    let second = world.back_up();
    assert_eq!(first.stats.files, second.stats.files);
    assert_eq!(second.stats.unchanged, second.stats.files);
    assert_eq!(second.stats.bytes_read, 0);
    assert_eq!(root_of(&first), root_of(&second));
    // A changed file, a new one, one that is gone and a directory that is gone.
    world.write("text2", b"new");
    fs::write(world.source().join("empty directory/x"), b"new too").unwrap();
    fs::remove_file(world.source().join("large")).unwrap();
    fs::remove_dir_all(world.source().join("a")).unwrap();
    let third = world.back_up();
    assert_eq!(
        third.stats.bytes_read,
        10 + 3 + 7,
        "the text lost a name, two files are new"
    );
    let restored = world.restore(&world.restore_job(root_of(&third))).unwrap();
    assert!(restored.problems.is_empty(), "{:?}", restored.problems);
    assert!(!world.path("target/source/a").exists());
    assert_eq!(fs::read(world.path("target/source/text2")).unwrap(), b"new");
}

#[test]
fn files_that_are_too_fresh_are_read_again() {
    let mut world = World::new();
    world.write("a", b"12345");
    let job = BackupJob {
        time: Millis(now_ms()),
        ..world.job()
    };
    world.back_up_job(&job);
    assert_eq!(world.back_up_job(&job).stats.bytes_read, 5);
    world.back_up();
    assert_eq!(world.back_up().stats.bytes_read, 0);
}

#[test]
fn records_of_a_run_that_failed_are_used_only_after_a_look_at_the_index() {
    let mut world = World::new();
    for number in 0..40_u64 {
        world.write(&format!("{number:02}"), &noise(number, 1_000_000));
    }
    world.cell.room.store(1, Ordering::SeqCst);
    let job = world.job();
    let sink = Arc::clone(&world.cell) as Arc<dyn ObjectSink>;
    let failed = run(
        &mut world.repository,
        &job,
        sink,
        &Quiet,
        &Cancel::default(),
    );
    assert!(
        matches!(failed, Err(BackupError::Write(WriteError::Sink(_)))),
        "{failed:?}"
    );
    world.cell.room.store(usize::MAX, Ordering::SeqCst);
    let before = world.cell.stored();
    let outcome = world.back_up();
    let puts = world.cell.puts.lock().unwrap().clone();
    for object in before {
        assert_eq!(
            puts.iter().filter(|(put, _)| *put == object).count(),
            1,
            "sent twice"
        );
    }
    world
        .restore(&world.restore_job(root_of(&outcome)))
        .unwrap();
    assert_eq!(
        describe(&world.source()),
        describe(&world.path("target/source"))
    );
}

#[test]
fn a_damaged_cache_is_made_anew() {
    let mut world = World::new();
    world.write("a", b"12345");
    world.back_up();
    fs::write(world.path("states"), noise(3, 8192)).unwrap();
    for suffix in ["states-wal", "states-shm"] {
        let _ = fs::remove_file(world.path(suffix));
    }
    assert_eq!(world.back_up().stats.bytes_read, 5);
    assert_eq!(world.back_up().stats.bytes_read, 0);
}

#[test]
fn a_run_that_is_stopped_says_so() {
    let mut world = World::new();
    world.write("a", b"12345");
    let cancel = Cancel::default();
    cancel.cancel();
    let job = world.job();
    let sink = Arc::clone(&world.cell) as Arc<dyn ObjectSink>;
    let stopped = run(&mut world.repository, &job, sink, &Quiet, &cancel);
    assert!(matches!(stopped, Err(BackupError::Cancelled)));
    assert_eq!(world.back_up().stats.files, 1);
}

#[test]
fn rules_and_the_programs_own_home_are_left_out() {
    let mut world = World::new();
    world.write("keep/a.txt", b"1");
    world.write("keep/a.tmp", b"1");
    world.write("keep/.candorignore", b"*.log\n");
    world.write("keep/b.log", b"1");
    world.write("home/secret", b"1");
    let rules = Rules {
        excludes: vec!["*.tmp".into()],
        never: vec![world.source().join("home")],
        one_file_system: true,
    };
    let job = BackupJob {
        rules,
        ..world.job()
    };
    let outcome = world.back_up_job(&job);
    world
        .restore(&world.restore_job(root_of(&outcome)))
        .unwrap();
    let names: Vec<String> = describe(&world.path("target/source"))
        .into_keys()
        .map(|name| String::from_utf8(name).unwrap())
        .collect();
    assert_eq!(names, ["keep", "keep/.candorignore", "keep/a.txt"]);
}

#[test]
fn sources_with_one_base_name_are_told_apart_and_nested_ones_are_one() {
    let world = World::new();
    for name in ["x/same", "y/same", "x/other/in", "file"] {
        world.write(&format!("{name}/f"), b"1");
    }
    let source = world.source().canonicalize().unwrap();
    let paths =
        ["x/same", "y/same", "x/other", "x/other/in", "file/f"].map(|name| source.join(name));
    let named = resolve(&paths).unwrap();
    let names: Vec<String> = named
        .iter()
        .map(|source| String::from_utf8_lossy(source.name.as_bytes()).into_owned())
        .collect();
    let prefix = source.to_str().unwrap()[1..].replace('/', "_");
    let mut wanted = vec![
        "f".into(),
        "other".into(),
        format!("{prefix}_x_same"),
        format!("{prefix}_y_same"),
    ];
    wanted.sort();
    assert_eq!(names, wanted);
    assert!(matches!(resolve(&[]), Err(BackupError::Sources { .. })));
    assert!(matches!(
        resolve(&[source.join("none")]),
        Err(BackupError::Source { .. })
    ));
}

#[test]
fn a_source_may_be_one_file() {
    let mut world = World::new();
    let file = world.write("only", b"12345");
    let job = BackupJob {
        sources: vec![file],
        ..world.job()
    };
    let outcome = world.back_up_job(&job);
    world
        .restore(&world.restore_job(root_of(&outcome)))
        .unwrap();
    assert_eq!(fs::read(world.path("target/only")).unwrap(), b"12345");
}

#[test]
fn a_tree_deeper_than_the_limit_is_listed_and_the_rest_is_stored() {
    let mut world = World::new();
    world.write("z", b"last");
    let mut handle = sys::open_directory_path(world.source()).unwrap();
    for _ in 0..node::DEPTH_MAX + 5 {
        sys::create_directory(&handle, "d").unwrap();
        handle = sys::open_directory(&handle, "d").unwrap();
    }
    let outcome = world.back_up();
    assert_eq!(outcome.problems.list.len(), 1);
    assert_eq!(outcome.problems.list[0].kind, ProblemKind::TooDeep);
    assert_eq!(outcome.stats.files, 1);
    let restored = world
        .restore(&world.restore_job(root_of(&outcome)))
        .unwrap();
    assert!(restored.problems.is_empty(), "{:?}", restored.problems);
    assert_eq!(restored.files, 1);
}

/// Times the whole way of a real tree: `CANDOR_TREE=/usr/include cargo test --release -p
/// candor-vault -- --ignored --nocapture times_a_real_tree`.
#[test]
#[ignore = "needs a tree of the caller's"]
#[allow(clippy::disallowed_methods, clippy::print_stdout)]
fn times_a_real_tree() {
    let Some(tree) = std::env::var_os("CANDOR_TREE") else {
        return;
    };
    let mut world = World::new();
    let mut report = Vec::new();
    let cpu = || {
        let usage = fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = usage.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap() / 100.0;
        (ticks(11), ticks(12))
    };
    let mut timed = |name: &str, work: &mut dyn FnMut() -> String| {
        let (before, start) = (cpu(), std::time::Instant::now());
        let note = work();
        let after = cpu();
        let wall = start.elapsed().as_secs_f64();
        report.push(format!(
            "{name}: user {:.2} sys {:.2} wall {wall:.2} {note}",
            after.0 - before.0,
            after.1 - before.1
        ));
    };
    let job = BackupJob {
        sources: vec![tree.into()],
        ..world.job()
    };
    let mut root = None;
    for name in ["first", "unchanged", "unchanged again"] {
        timed(name, &mut || {
            let outcome = world.back_up_job(&job);
            root = Some(root_of(&outcome));
            format!("{:?} {} problems", outcome.stats, outcome.problems.count())
        });
    }
    let job = world.restore_job(root.unwrap());
    timed("restore", &mut || {
        let outcome = world.restore(&job).unwrap();
        format!(
            "{} files {} problems",
            outcome.files,
            outcome.problems.count()
        )
    });
    timed("check", &mut || {
        let report = crate::check::run(
            &world.repository,
            world.cell.as_ref(),
            true,
            &Quiet,
            &Cancel::default(),
        )
        .unwrap();
        format!("{} files sound {}", report.files, report.is_sound())
    });
    println!("{}", report.join("\n"));
}

#[test]
fn what_the_stat_cache_trusts_is_durable_in_the_index() {
    let mut world = World::new();
    world.write("a", &noise(1, 100_000));
    let job = world.job();
    let sink = Arc::clone(&world.cell) as Arc<dyn ObjectSink>;
    let outcome = run(
        &mut world.repository,
        &job,
        sink,
        &Quiet,
        &Cancel::default(),
    )
    .unwrap();
    // What a power cut leaves at the least: the database without its log.
    fs::copy(world.path("index"), world.path("left")).unwrap();
    let keys = keys();
    let (account, vault) = (keys.account(), keys.vault());
    let left = crate::Index::open(&world.path("left"), account, vault, &SystemEntropy).unwrap();
    assert_eq!(
        left.lineage().unwrap(),
        world.repository.index().lineage().unwrap()
    );
    assert!(left.contains(&root_of(&outcome)).unwrap());
}
