//! Memory that whoever is measured can write to without bringing it in first.
//!
//! The host of a virtual machine takes memory away that is free for a moment, and it costs processor time to get it back:
//! of 3 GB, 6 CPU seconds here, more than anybody's own work, and not the same for everybody. So memory is kept in
//! use by files, and these are removed while somebody who is measured writes, just fast enough: what they are given was
//! in use until then.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sys::{self, Doing, Outcome};

/// Length of each file, in bytes.
const PART_BYTES: u64 = 32 << 20;

/// Free memory that is there at any time, in KiB: below this the system would look for some by itself.
const FREE_MIN_KIB: u64 = 256 << 10;

/// How often the free memory is looked at. In this time nobody writes more than there is.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Files that fill the machine's memory, and go while somebody writes.
pub(super) struct Ballast {
    directory: PathBuf,
    files: Vec<PathBuf>,
    made: u64,
}

impl Ballast {
    /// For measurements in a directory, if that lies in the machine's memory.
    pub(super) fn beside(directory: &Path) -> Outcome<Option<Self>> {
        let mut stat = Command::new("stat");
        stat.args(["--file-system", "--format=%T"]).arg(directory);
        if sys::output(&mut stat)?.trim_ascii() != b"tmpfs" {
            return Ok(None);
        }
        let directory = directory.join("ballast");
        fs::create_dir(&directory).doing(directory.display())?;
        Ok(Some(Self {
            directory,
            files: Vec::new(),
            made: 0,
        }))
    }

    /// Fills what is free, and gives it back bit by bit while `work` needs it.
    pub(super) fn give_while<T>(&mut self, work: impl FnOnce() -> T) -> Outcome<T> {
        while free_kib()? > FREE_MIN_KIB + PART_BYTES / 1024 {
            self.made += 1;
            let path = self.directory.join(self.made.to_string());
            let mut zeros = std::io::repeat(0).take(PART_BYTES);
            let written =
                fs::File::create(&path).and_then(|mut file| std::io::copy(&mut zeros, &mut file));
            self.files.push(path);
            match written {
                Ok(_) => {}
                // The file system may hold less than the memory has.
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error).doing("filling the memory"),
            }
        }
        let is_over = AtomicBool::new(false);
        let (files, directory) = (&mut self.files, &*self.directory);
        Ok(std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let is_short =
                        free_kib().is_ok_and(|free| free < FREE_MIN_KIB) || !has_room(directory);
                    if is_short && let Some(file) = files.pop() {
                        let _ = fs::remove_file(file);
                    } else {
                        std::thread::sleep(LOOK_EVERY);
                    }
                }
            });
            let _end = End(&is_over);
            work()
        }))
    }
}

/// Ends the giving, also when the work panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether the file system takes as much as is to be free.
fn has_room(directory: &Path) -> bool {
    nix::sys::statvfs::statvfs(directory).is_ok_and(|room| {
        let free = room.blocks_available() * room.fragment_size();
        free >= FREE_MIN_KIB * 1024
    })
}

fn free_kib() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| sys::Failure::new("/proc/meminfo does not say what is free"))
}
