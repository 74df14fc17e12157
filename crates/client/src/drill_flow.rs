//! A drill: files of a backup are restored, compared with their sources, and thrown away. A backup is good when it
//! was restored.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use candor_vault::node::{Entry, Item, Kind, Root};
use candor_vault::report::{Cancel, ProblemKind};
use candor_vault::restore::RestoreJob;
use candor_vault::{SnapshotEntry, browse};
use candor_wire::errand::Purpose;

use crate::browse_flow::browse_failed;
use crate::commands::{DrillView, Event, Failure, FailureKind, View};
use crate::device_store::Drill;
use crate::engine::{Engine, lock};
use crate::path_text::PathText;
use crate::restore_flow::{Held, Session, SnapshotSpec};
use crate::sets::LATEST;

/// Largest file that a drill restores, in bytes: it takes a moment, not an hour.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// The same for a first look after a first backup.
const QUICK_FILE_MAX_BYTES: u64 = 8 << 20;

/// Most files of one drill: each is kept in memory by its path.
const FILES_MAX: u32 = 10_000;

/// Bytes that are compared at once.
const COMPARED_AT_ONCE_BYTES: usize = 64 << 10;

/// Where files come back to, below the folder for scratch.
const FOLDER: &str = "drill";

/// Removes what a drill left that did not end.
pub(crate) fn sweep(home: &Path) {
    // Whatever hinders it hinders the next drill, which says so.
    let _ = remove_tree(&home.join("scratch").join(FOLDER));
}

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// What a person asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrillSize {
    /// How many files of each set.
    pub(crate) files: u32,
    /// Take the first ones instead of looking through all.
    pub(crate) is_quick: bool,
}

/// A file that was drawn.
struct Drawn {
    path: PathBuf,
    bytes: u64,
    modified_ns: i64,
}

/// Draws files so that each has the same chance, in one pass, without knowing how many there are (Vitter's
/// algorithm R).
struct Draw {
    size: DrillSize,
    state: u64,
    seen: u64,
    drawn: Vec<Drawn>,
}

impl Draw {
    /// SplitMix64: it has to spread, and nothing hangs on its secrecy.
    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    fn see(&mut self, path: &Path, entry: &Entry) -> ControlFlow<()> {
        let Kind::File { size, .. } = entry.kind else {
            return ControlFlow::Continue(());
        };
        let most = if self.size.is_quick {
            QUICK_FILE_MAX_BYTES
        } else {
            FILE_MAX_BYTES
        };
        if size == 0 || size > most {
            return ControlFlow::Continue(());
        }
        let file = Drawn {
            path: path.to_owned(),
            bytes: size,
            modified_ns: entry.metadata.mtime.0,
        };
        self.seen += 1;
        if self.drawn.len() < self.size.files as usize {
            self.drawn.push(file);
        } else if self.size.is_quick {
            return ControlFlow::Break(());
        } else if let Ok(place) = usize::try_from(self.below(self.seen))
            && let Some(there) = self.drawn.get_mut(place)
        {
            *there = file;
        }
        ControlFlow::Continue(())
    }
}

impl Engine {
    /// Restores files of this device's sets and compares them with their sources.
    pub(crate) fn backup_drill(
        &self,
        sets: &[String],
        size: DrillSize,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        if !(1..=FILES_MAX).contains(&size.files) {
            let sentence = format!("a drill restores 1 to {FILES_MAX} files");
            return Err(Failure::new(FailureKind::Usage, sentence));
        }
        let known = self.store().sets()?;
        if let Some(name) = sets
            .iter()
            .find(|name| known.iter().all(|set| set.name != **name))
        {
            return Err(Failure::new(
                FailureKind::Usage,
                format!("there is no backup set named {name:?} on this device"),
            )
            .with_hint("`candor backup list` shows them"));
        }
        let names: Vec<String> = known
            .into_iter()
            .filter(|set| set.runs.succeeded.is_some())
            .map(|set| set.name)
            .filter(|name| sets.is_empty() || sets.contains(name))
            .collect();
        if names.is_empty() {
            return Err(
                Failure::new(FailureKind::Failed, "there is no backup to try yet")
                    .with_hint("`candor backup run --all` makes one"),
            );
        }
        // One at a time: they share a folder, in which nothing stays.
        let _alone = lock(&self.drilling);
        let drilled = self.read_back(Purpose::Restore, events, cancel, |session| {
            let each = names.iter().map(|name| session.drill(name, size));
            each.collect::<Result<Vec<_>, _>>()
        })?;
        for view in &drilled {
            if let Some(path) = view.different.first() {
                self.ledger.alarm(&format!(
                    "a drill of {} brought back {} different from its source",
                    view.set, path.text
                ))?;
            } else {
                let drill = Drill {
                    time: self.now(),
                    files: view.files,
                };
                self.store().put_drill(&view.set, &drill)?;
            }
        }
        Ok(View::Drilled(drilled))
    }
}

impl Session<'_> {
    fn drill(&self, set: &str, size: DrillSize) -> Result<DrillView, Failure> {
        let spec = SnapshotSpec::parse(&format!("{set}:{LATEST}"))?;
        let (held, entry) = self.find(&spec)?;
        let drawn = self.draw(&held, &entry, size)?;
        let mut view = DrillView {
            set: set.to_owned(),
            snapshot: entry.id.to_string(),
            ..DrillView::default()
        };
        if drawn.is_empty() {
            return Ok(view);
        }
        let scratch = self.engine.scratch()?;
        let target = scratch.join(FOLDER);
        let wipe = || remove_tree(&target).map_err(|error| Failure::of(&error));
        wipe()?;
        let job = RestoreJob {
            root: entry.root,
            paths: drawn.iter().map(|file| file.path.clone()).collect(),
            target: target.clone(),
            scratch,
            privileged: false,
            durable: false,
        };
        // What a restore cannot set here, such as an owner, is not what a drill is about.
        let compared = self.restore(&held.open, &job).and_then(|outcome| {
            let mut problems = outcome.problems.list.iter();
            if let Some(lost) = problems.find(|one| one.kind == ProblemKind::Damaged) {
                return Err(cannot_come_back(&lost.path));
            }
            let root = held.open.random_reader().root(entry.root);
            let root = root.map_err(|error| browse_failed(&error.into()))?;
            let is_own = entry.device == self.engine.facts.device;
            compare(&mut view, is_own.then_some(&root), &drawn, &target)
        });
        wipe()?;
        compared.map(|()| view)
    }

    fn draw(
        &self,
        held: &Held<'_>,
        entry: &SnapshotEntry,
        size: DrillSize,
    ) -> Result<Vec<Drawn>, Failure> {
        let mut seed = [0; 8];
        self.engine
            .entropy
            .fill(&mut seed)
            .map_err(|error| Failure::of(&error))?;
        let mut draw = Draw {
            size,
            state: u64::from_le_bytes(seed),
            seen: 0,
            drawn: Vec::new(),
        };
        let mut reader = held.open.repository.reader(&*held.open.objects);
        let mut each = |path: &Path, item: &Item| match item {
            _ if self.cancel.is_cancelled() => ControlFlow::Break(()),
            Item::Entry(entry) => draw.see(path, entry),
            Item::Refused { .. } => ControlFlow::Continue(()),
        };
        browse::list_all(&mut reader, entry.root, Path::new(""), &mut each)
            .map_err(|error| browse_failed(&error))?;
        self.done()?;
        Ok(draw.drawn)
    }
}

fn cannot_come_back(path: &Path) -> Failure {
    Failure::new(
        FailureKind::Integrity,
        format!(
            "{} cannot be restored: the cell does not have all of it",
            path.display()
        ),
    )
    .with_hint("`candor backup check --read-data` tells what is missing")
}

/// Compares what came back with the sources, where those are as they were.
fn compare(
    view: &mut DrillView,
    root: Option<&Root>,
    drawn: &[Drawn],
    target: &Path,
) -> Result<(), Failure> {
    for file in drawn {
        let copy = target.join(&file.path);
        let failed = |error: io::Error| Failure::of(&error);
        let metadata = match fs::symlink_metadata(&copy) {
            // It could not be made here, which was told.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            there => there.map_err(failed)?,
        };
        view.files += 1;
        view.bytes += metadata.len();
        let source = root.and_then(|root| source_of(root, &file.path));
        let Some(source) = source.filter(|source| is_unchanged(source, file)) else {
            view.changed += 1;
            continue;
        };
        match same_content(&source, &copy) {
            Ok(true) => view.equal += 1,
            // It is being changed just now, or may not be read any more.
            Ok(false) if !is_unchanged(&source, file) => view.changed += 1,
            Err(_) => view.changed += 1,
            Ok(false) => view.different.push(PathText::from_path(&file.path)),
        }
    }
    Ok(())
}

/// Where a file of a snapshot came from. Its path begins with the name of the folder or file that was backed up.
fn source_of(root: &Root, path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    let top = parts.next()?.as_os_str();
    let mut origins = root.origins.iter();
    let origin = origins.find(|origin| origin.name.as_os_str() == top)?;
    let rest = parts.as_path();
    let origin = Path::new(std::ffi::OsStr::from_bytes(&origin.path));
    Some(if rest.as_os_str().is_empty() {
        origin.to_owned()
    } else {
        origin.join(rest)
    })
}

fn is_unchanged(source: &Path, file: &Drawn) -> bool {
    source.symlink_metadata().is_ok_and(|metadata| {
        let modified_ns = metadata
            .mtime()
            .checked_mul(NANOS)
            .and_then(|ns| ns.checked_add(metadata.mtime_nsec()));
        metadata.is_file() && metadata.len() == file.bytes && modified_ns == Some(file.modified_ns)
    })
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let mut left = vec![0; COMPARED_AT_ONCE_BYTES];
    let mut right = vec![0; COMPARED_AT_ONCE_BYTES];
    loop {
        let length = a.read(&mut left)?;
        if length == 0 {
            return Ok(b.read(&mut right[..1])? == 0);
        }
        match b.read_exact(&mut right[..length]) {
            Ok(()) if left[..length] == right[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Removes a restored tree, also where its folders may not be written, as in the source.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_file_is_drawn_as_often_as_any_other() {
        const FILES: usize = 50;
        let mut times = [0_u32; FILES];
        for seed in 0..2_000 {
            let size = DrillSize {
                files: 5,
                is_quick: false,
            };
            let mut draw = Draw {
                size,
                state: seed,
                seen: 0,
                drawn: Vec::new(),
            };
            for n in 0..FILES {
                let entry = file_entry(n as u64 + 1);
                assert!(draw.see(Path::new(&n.to_string()), &entry).is_continue());
            }
            assert_eq!(draw.drawn.len(), 5);
            for file in &draw.drawn {
                let n: usize = file.path.to_str().unwrap().parse().unwrap();
                times[n] += 1;
            }
        }
        // 200 each on average, with a deviation of 13.
        assert!(
            times.iter().all(|times| (130..270).contains(times)),
            "{times:?}"
        );
    }

    fn file_entry(size: u64) -> Entry {
        Entry {
            name: candor_vault::name::Name::new(b"file").unwrap(),
            metadata: candor_vault::node::Metadata {
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: candor_wire::Nanos(0),
                xattrs: Vec::new(),
            },
            link: None,
            kind: Kind::File {
                size,
                content: candor_vault::node::References::default(),
                extents: None,
            },
        }
    }

    #[test]
    fn contents_are_compared_to_the_last_byte() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let long = vec![7; COMPARED_AT_ONCE_BYTES + 1];
        let a = file("a", &long);
        assert!(same_content(&a, &file("same", &long)).unwrap());
        assert!(!same_content(&a, &file("shorter", &long[1..])).unwrap());
        assert!(!same_content(&file("short", &long[1..]), &a).unwrap());
        let mut other = long.clone();
        *other.last_mut().unwrap() = 8;
        assert!(!same_content(&a, &file("other", &other)).unwrap());
    }

    #[test]
    fn a_tree_that_may_not_be_written_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("inner")).unwrap();
        fs::write(tree.join("inner/file"), "x").unwrap();
        for path in [tree.join("inner"), tree.clone()] {
            fs::set_permissions(path, Permissions::from_mode(0o500)).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        remove_tree(&tree).unwrap();
    }
}
