//! A sample of a backup, restored and compared byte by byte with its source.

use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use candor_client::commands::{Command, EntryView, Event, SetView};
use candor_client::path_text::PathText;

use super::differs;
use crate::App;
use crate::door::Door;
use crate::failure::{Doing as _, Outcome};
use crate::progress::view;

/// Files in a sample: enough to pass through every part of a restore.
const FILES_MAX: usize = 5;

/// Largest file in a sample: the sample takes a moment, not a minute.
const FILE_MAX_BYTES: u64 = 8 << 20;

/// Folders that are looked into for files.
const FOLDERS_MAX: usize = 12;

/// Bytes that are compared at once.
const COMPARED_AT_ONCE_BYTES: usize = 64 << 10;

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

/// What was restored and compared.
pub(super) struct Sample {
    /// The set.
    pub(super) set: String,
    /// How many files.
    pub(super) files: u64,
}

/// Restores a few files of the set's newest snapshot into the device's folder and compares them with
/// their sources. A source that changed in the meantime is left out.
pub(super) fn restore_and_compare(app: &App, door: &mut Door, set: &SetView) -> Outcome<Sample> {
    let snapshot = format!("{}:latest", set.name);
    let mut sample = Sample {
        set: set.name.clone(),
        files: 0,
    };
    let chosen = choose(app, door, &snapshot)?;
    if chosen.is_empty() {
        return Ok(sample);
    }
    let target = app
        .home
        .path()
        .join(format!("sample-{}", std::process::id()));
    remove_tree(&target).doing(|| format!("clear {}", target.display()))?;
    let restore = Command::BackupRestore {
        snapshot,
        paths: chosen.iter().map(|entry| entry.path.clone()).collect(),
        to: PathText::from_path(&target),
        privileged: false,
    };
    // What a restore cannot set here, such as an owner, is not what the sample is about.
    let restored = door
        .execute(app, restore, &mut |_| {})
        .and_then(|view| view!(view, Restored));
    let compared = restored.and_then(|_| compare(&mut sample, set, &chosen, &target));
    let removed = remove_tree(&target).doing(|| format!("clear {}", target.display()));
    compared.and(removed)?;
    Ok(sample)
}

/// Looks into folder after folder, from the top, until there are enough files.
fn choose(app: &App, door: &mut Door, snapshot: &str) -> Outcome<Vec<EntryView>> {
    let mut chosen = Vec::new();
    let mut folders = VecDeque::from([None]);
    for _ in 0..FOLDERS_MAX {
        let Some(path) = folders.pop_front() else {
            break;
        };
        let list = Command::BackupLs {
            snapshot: snapshot.to_owned(),
            path,
            recursive: false,
        };
        let mut take = |event| {
            let Event::Entry(entry) = event else { return };
            let is_good = entry.kind == "file" && (1..=FILE_MAX_BYTES).contains(&entry.bytes);
            if is_good && chosen.len() < FILES_MAX {
                chosen.push(entry);
            } else if entry.kind == "folder" && folders.len() < FOLDERS_MAX {
                folders.push_back(Some(entry.path));
            }
        };
        door.execute(app, list, &mut take)?;
        if chosen.len() >= FILES_MAX {
            break;
        }
    }
    Ok(chosen)
}

fn compare(sample: &mut Sample, set: &SetView, chosen: &[EntryView], target: &Path) -> Outcome {
    for entry in chosen {
        let Some(source) = source_of(set, &entry.path) else {
            continue;
        };
        if !is_unchanged(&source, entry) {
            continue;
        }
        let copy = target.join(entry.path.to_path());
        let same = same_content(&source, &copy).doing(|| format!("compare {}", copy.display()))?;
        if same {
            sample.files += 1;
        } else if is_unchanged(&source, entry) {
            return Err(differs(sample, &entry.path));
        }
    }
    Ok(())
}

/// Paths in a snapshot begin with the name of the folder or file that was backed up.
fn source_of(set: &SetView, path: &PathText) -> Option<PathBuf> {
    let path = path.to_path();
    let top = path.components().next()?.as_os_str();
    let mut roots = set
        .paths
        .iter()
        .map(PathText::to_path)
        .filter(|root| root.file_name() == Some(top));
    let root = roots.next()?;
    // Of two roots with one name, only the engine knows which is which.
    if roots.next().is_some() {
        return None;
    }
    Some(root.parent()?.join(path))
}

fn is_unchanged(source: &Path, entry: &EntryView) -> bool {
    source.symlink_metadata().is_ok_and(|metadata| {
        let modified_ns = metadata
            .mtime()
            .checked_mul(NANOS)
            .and_then(|ns| ns.checked_add(metadata.mtime_nsec()));
        metadata.is_file()
            && metadata.len() == entry.bytes
            && modified_ns == Some(entry.modified_ns)
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
fn remove_tree(path: &Path) -> io::Result<()> {
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
