//! `cargo xtask bench churn`: a large tree under constant change on both sides, then quiet.
//!
//! Both devices and the cell are processes of their own. Two threads do what people and their programs do, one in
//! each folder, without asking the other. In the end both trees have to be the same, and neither device may have
//! needed more memory than it may.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::pairs::{Candor, Pair};
use super::{count, is_same, peak_of_devices, used};
use crate::bench;
use crate::bench::mutate::Noise;
use crate::sys::{self, Doing, Failure, Outcome};

/// How much memory a device may need, in bytes.
const MEMORY_MAX: u64 = 150_000_000;

/// How long the trees may take to become the same once nobody changes anything.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(3600);

/// How many folders lie in one.
const FOLDERS_TOGETHER: u64 = 100;

/// Length of a file, at most, in bytes.
const FILE_BYTES_MAX: u64 = 2000;

/// What is kept in step, and for how long it changes.
#[derive(clap::Args)]
pub(crate) struct ChurnOptions {
    #[arg(long, default_value_t = 200_000)]
    files: u64,
    #[arg(long, default_value_t = 20_000)]
    folders: u64,
    /// For how long both sides change, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How long each side rests between two changes, in milliseconds.
    #[arg(long, default_value_t = 2)]
    pause: u64,
    /// Measure this program instead of building it.
    #[arg(long, value_name = "FILE")]
    candor: Option<PathBuf>,
    /// Where the devices are put.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The short form of the suite.
pub(crate) fn run_short() -> Outcome {
    run(&ChurnOptions {
        files: 1000,
        folders: 100,
        seconds: 5,
        pause: 2,
        candor: None,
        dir: None,
    })
}

/// Changes both sides, waits, and fails unless they are the same.
pub(crate) fn run(options: &ChurnOptions) -> Outcome {
    let program = bench::program(options.candor.as_deref())?;
    let parent = bench::place(options.dir.as_deref())?;
    let work = tempfile::Builder::new()
        .prefix("churn-")
        .tempdir_in(&parent)?;
    let mut pair = Candor::new(&program);
    let outcome = churn(&mut pair, work.path(), options);
    if outcome.is_err() {
        let logs = ["one.log", "two.log"].map(|log| work.path().join(log));
        for log in logs {
            println!("{}", fs::read_to_string(log).unwrap_or_default());
        }
    }
    pair.stop();
    outcome
}

fn churn(pair: &mut Candor, place: &Path, options: &ChurnOptions) -> Outcome {
    let tree = Tree {
        folders: options.folders.max(1),
        each: options.files.div_ceil(options.folders.max(1)).max(1),
    };
    let sides = [place.join("from"), place.join("to")];
    fs::create_dir(&sides[1])?;
    tree.make(&sides[0])?;
    pair.start(place, &sides[0], &sides[1])?;
    let began = Instant::now();
    pair.begin()?;
    let own = pair.own_names();
    let equal = |limit: Duration| wait_until_same(&sides, &own, limit);
    equal(QUIET_WAIT_MAX)?;
    println!(
        "{} names in step after {:.1} s, {:.1} CPU s, {} MB at most",
        count(&sides[0], &own)?,
        began.elapsed().as_secs_f64(),
        used(pair)?.iter().sum::<f64>(),
        peak_of_devices(pair)? / 1_000_000
    );
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let pause = Duration::from_millis(options.pause);
    let changes = AtomicU64::new(0);
    let outcomes = thread::scope(|scope| {
        let threads: Vec<_> = sides
            .iter()
            .zip(1..)
            .map(|(side, seed)| {
                let (tree, changes) = (&tree, &changes);
                scope.spawn(move || tree.change(side, seed, (end, pause), changes))
            })
            .collect();
        threads
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err(Failure::new("panicked"))))
            .collect::<Vec<Outcome>>()
    });
    for outcome in outcomes {
        outcome?;
    }
    let quiet = Instant::now();
    equal(QUIET_WAIT_MAX)?;
    let changes = changes.into_inner();
    if changes < options.seconds {
        return Err(Failure::new(format!("only {changes} changes were made")));
    }
    sys::no_findings(
        "files that nobody touched are gone",
        &lost(&sides, changes)?,
    )?;
    let mut modes = Vec::new();
    other_modes(&sides[0], &sides[1], &own, &mut modes)?;
    sys::no_findings("modes differ", &modes)?;
    let peak = peak_of_devices(pair)?;
    println!(
        "{} changes in {} s; the same {:.1} s later, {} names, {} kept twice; {:.1} CPU s of all; a device used {} MB \
         at most",
        changes,
        options.seconds,
        quiet.elapsed().as_secs_f64(),
        count(&sides[0], &own)?,
        conflicts(&sides[0])?,
        used(pair)?.iter().sum::<f64>(),
        peak / 1_000_000
    );
    if peak > MEMORY_MAX {
        return Err(Failure::new(format!(
            "a device used {peak} bytes of memory, and may use {MEMORY_MAX}"
        )));
    }
    Ok(())
}

/// Waits until both sides are the same for good: twice in a row, so that nothing is still on its way.
fn wait_until_same(sides: &[PathBuf; 2], own: &[&str], limit: Duration) -> Outcome {
    let began = Instant::now();
    let mut same = 0;
    while same < 2 {
        let look = Instant::now();
        let [from, to] = sides;
        let counts = (count(from, own).ok(), count(to, own).ok());
        same = if counts.0.is_some() && counts.0 == counts.1 && is_same(from, to, own) {
            same + 1
        } else {
            0
        };
        if same == 0 && began.elapsed() > limit {
            return Err(Failure::new(format!(
                "the sides do not become the same: {counts:?} names"
            )));
        }
        thread::sleep(Duration::from_millis(500).max(look.elapsed() * 2));
    }
    Ok(())
}

/// Every so many changes of a side it makes a file that nobody ever touches again.
const KEPT_ONE_OF: u64 = 50;

/// Where these are, and what is in each.
fn kept(side: &Path, seed: u64, number: u64) -> (PathBuf, String) {
    let folder = side.join("kept").join(format!("by {seed}"));
    (
        folder.join(format!("file {number}")),
        format!("{seed} made {number}\n"),
    )
}

/// Which of them are not as they were made.
fn lost(sides: &[PathBuf; 2], changes: u64) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    let mut seen = 0;
    for side in sides {
        for seed in [1, 2] {
            for number in (0..).step_by(KEPT_ONE_OF as usize) {
                let (path, text) = kept(side, seed, number);
                // They are made one after the other: beyond the first that is on neither side there is none.
                let is_there = sides.iter().any(|side| kept(side, seed, number).0.exists());
                if !is_there {
                    break;
                }
                seen += 1;
                if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    // On each of two sides; a change that a race undid counts for none.
    let expected = changes / KEPT_ONE_OF * 2;
    if seen < expected {
        found.push(format!("{seen} of {expected} are there"));
    }
    Ok(found)
}

fn other_modes(one: &Path, other: &Path, own: &[&str], found: &mut Vec<String>) -> Outcome {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(one)? {
        let entry = entry?;
        if own.iter().any(|own| entry.file_name() == **own) {
            continue;
        }
        let there = other.join(entry.file_name());
        let modes = [entry.metadata()?, fs::symlink_metadata(&there)?]
            .map(|metadata| metadata.permissions().mode() & 0o777);
        if modes[0] != modes[1] {
            found.push(format!(
                "{}: {:o} and {:o}",
                entry.path().display(),
                modes[0],
                modes[1]
            ));
        }
        if entry.file_type()?.is_dir() {
            other_modes(&entry.path(), &there, own, found)?;
        }
    }
    Ok(())
}

fn conflicts(directory: &Path) -> Outcome<usize> {
    let mut found = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found += conflicts(&entry.path())?;
        } else if entry.file_name().to_string_lossy().contains("(conflict ") {
            found += 1;
        }
    }
    Ok(found)
}

/// Where files are made: numbered, so that one can be drawn without listing anything.
struct Tree {
    folders: u64,
    /// Files of one folder.
    each: u64,
}

impl Tree {
    fn folder(&self, root: &Path, number: u64) -> PathBuf {
        root.join(format!("part {}", number / FOLDERS_TOGETHER))
            .join(format!("folder {number}"))
    }

    fn make(&self, root: &Path) -> Outcome {
        let mut noise = Noise::new(9);
        for number in 0..self.folders {
            let folder = self.folder(root, number);
            fs::create_dir_all(&folder)?;
            for file in 0..self.each {
                fs::write(folder.join(format!("file {file}")), text(&mut noise))?;
            }
        }
        Ok(())
    }

    /// Changes one side until the end.
    fn change(
        &self,
        root: &Path,
        seed: u64,
        (end, pause): (Instant, Duration),
        changes: &AtomicU64,
    ) -> Outcome {
        let mut noise = Noise::new(seed);
        let mut made = 0;
        while Instant::now() < end {
            // The other side may have removed or made anything in between.
            match self.step(root, &mut noise) {
                Ok(()) => {
                    if made % KEPT_ONE_OF == 0 {
                        let (path, text) = kept(root, seed, made);
                        fs::create_dir_all(path.parent().unwrap_or(root))?;
                        fs::write(path, text)?;
                    }
                    made += 1;
                    changes.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if is_a_race(&error) => {}
                Err(error) => return Err(error).doing("a change"),
            }
            thread::sleep(pause);
        }
        Ok(())
    }

    fn step(&self, root: &Path, noise: &mut Noise) -> std::io::Result<()> {
        let folder = self.folder(root, noise.below(self.folders));
        let file = folder.join(format!("file {}", noise.below(self.each)));
        match noise.below(20) {
            // Programs write beside a file and rename over it, or write into it.
            0..=4 => {
                let beside = folder.join(format!(".saving {}", noise.below(self.each)));
                fs::write(&beside, text(noise))?;
                fs::rename(&beside, &file)
            }
            5..=9 => fs::write(&file, text(noise)),
            10..=12 => fs::remove_file(&file),
            13..=15 => {
                let other = self.folder(root, noise.below(self.folders));
                fs::rename(
                    &file,
                    other.join(format!("file {}", noise.below(self.each))),
                )
            }
            16 | 17 => {
                use std::os::unix::fs::PermissionsExt as _;
                let mode = [0o600, 0o644][noise.below(2) as usize];
                fs::set_permissions(&file, fs::Permissions::from_mode(mode))
            }
            18 => fs::create_dir_all(&folder).and_then(|()| fs::write(&file, text(noise))),
            _ => match noise.below(4) {
                0 => fs::remove_dir_all(&folder),
                1 => fs::rename(&folder, self.folder(root, noise.below(self.folders))),
                _ => fs::create_dir_all(&folder),
            },
        }
    }
}

fn is_a_race(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::DirectoryNotEmpty
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
    )
}

fn text(noise: &mut Noise) -> String {
    let length = noise.below(FILE_BYTES_MAX);
    let mut text = String::new();
    while (text.len() as u64) < length {
        text.push_str(&format!("{:x} ", noise.next()));
    }
    text
}
