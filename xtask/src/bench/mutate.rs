//! A little change, the same in every run of the same round.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::sys::{Doing, Failure, Outcome};

/// One file of this many is changed.
const CHANGED_ONE_OF: usize = 100;

/// One file of this many is renamed, and one more of as many is new.
const RENAMED_ONE_OF: usize = 200;

/// How many bytes are inserted at the start of the largest file.
const INSERTED_BYTES: usize = 1024;

/// How many bytes of a changed file are written over.
const OVERWRITTEN_BYTES: usize = 512;

/// A sequence of numbers that looks like noise and is the same in every run (splitmix64).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound, which must not be 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What was done.
pub(crate) struct Summary {
    files: usize,
    changed: usize,
    renamed: usize,
    new: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            files,
            changed,
            renamed,
            new,
        } = self;
        write!(
            f,
            "of {files} files {changed} changed, {renamed} renamed, {new} new; {INSERTED_BYTES} bytes inserted"
        )
    }
}

/// Changes 1 % of the files, renames 0.5 %, adds 0.5 %, and inserts 1 KiB at the start of the largest.
pub(crate) fn mutate(root: &Path, seed: u64) -> Outcome<Summary> {
    let mut noise = Noise::new(seed.wrapping_add(0x6d75_7461));
    let mut files = regular_files(root)?;
    let count = files.len();
    let largest = largest(&files)?;
    files.retain(|(path, _)| *path != largest);
    insert_at_start(&largest, &mut noise)?;
    let (changed, moved) = (
        count.div_ceil(CHANGED_ONE_OF),
        count.div_ceil(RENAMED_ONE_OF),
    );
    let mut draw = |noise: &mut Noise| -> Outcome<(PathBuf, u64)> {
        if files.is_empty() {
            return Err(Failure::new("too few files to change"));
        }
        let position = noise.below(files.len() as u64) as usize;
        Ok(files.swap_remove(position))
    };
    for _ in 0..changed {
        let (path, length) = draw(&mut noise)?;
        overwrite(&path, length, &mut noise)?;
    }
    for _ in 0..moved {
        let (path, _) = draw(&mut noise)?;
        fs::rename(&path, beside(&path, ".renamed")).doing(path.display())?;
    }
    for _ in 0..moved {
        let (path, _) = draw(&mut noise)?;
        add_beside(&path)?;
    }
    Ok(Summary {
        files: count,
        changed,
        renamed: moved,
        new: moved,
    })
}

fn regular_files(root: &Path) -> Outcome<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.is_file() {
                found.push((entry.path(), metadata.len()));
            }
        }
    }
    // The order of a directory differs from disk to disk.
    found.sort();
    Ok(found)
}

fn largest(files: &[(PathBuf, u64)]) -> Outcome<PathBuf> {
    let largest = files.iter().max_by_key(|(_, length)| *length);
    largest
        .map(|(path, _)| path.clone())
        .ok_or_else(|| Failure::new("no file to change"))
}

fn insert_at_start(path: &Path, noise: &mut Noise) -> Outcome {
    let mut bytes: Vec<u8> = (0..INSERTED_BYTES / 8)
        .flat_map(|_| noise.next().to_le_bytes())
        .collect();
    bytes.extend(fs::read(path).doing(path.display())?);
    fs::write(path, bytes).doing(path.display())
}

fn overwrite(path: &Path, length: u64, noise: &mut Noise) -> Outcome {
    let bytes: Vec<u8> = (0..OVERWRITTEN_BYTES / 8)
        .flat_map(|_| format!("{:08x}", noise.next() >> 32).into_bytes())
        .collect();
    let at = if length == 0 { 0 } else { noise.below(length) };
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .doing(path.display())?;
    file.write_all_at(&bytes, at).doing(path.display())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A new file that compresses like one that is there and shares nothing with it: its letters are turned by thirteen.
fn add_beside(path: &Path) -> Outcome {
    let mut bytes = fs::read(path).doing(path.display())?;
    for byte in &mut bytes {
        *byte = match *byte {
            b'a'..=b'z' => b'a' + (*byte - b'a' + 13) % 26,
            b'A'..=b'Z' => b'A' + (*byte - b'A' + 13) % 26,
            other => other,
        };
    }
    let new = beside(path, ".new");
    fs::write(&new, bytes).doing(new.display())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tree(at: &Path) {
        for number in 0..200 {
            fs::write(
                at.join(format!("{number:03}")),
                format!("file {number} ").repeat(number + 1),
            )
            .unwrap();
        }
    }

    #[test]
    fn the_same_seed_changes_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let mut contents = Vec::new();
        for name in ["one", "two"] {
            let root = directory.path().join(name);
            fs::create_dir(&root).unwrap();
            tree(&root);
            let summary = mutate(&root, 7).unwrap();
            assert_eq!((summary.changed, summary.renamed, summary.new), (2, 1, 1));
            let files = regular_files(&root).unwrap();
            let bytes: Vec<_> = files
                .iter()
                .map(|(path, _)| {
                    (
                        path.strip_prefix(&root).unwrap().to_owned(),
                        fs::read(path).unwrap(),
                    )
                })
                .collect();
            contents.push(bytes);
        }
        assert_eq!(contents[0].len(), 201);
        assert_eq!(contents[0], contents[1]);
    }
}
