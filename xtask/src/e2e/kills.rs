//! Device and cell killed at many moments of backing up, forgetting, pruning and restoring: nothing that was
//! acknowledged is missing, and every byte is right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use super::compare::{With, same_tree};
use super::world::{Candor, CellProcess, World};
use crate::sys::{Doing, Failure, Outcome};

/// How often something is killed in CI, and in the full form.
const KILLS: usize = 20;
const KILLS_FULL: usize = 100;

/// After how many kills everything is read back.
const KILLS_CHECKED: usize = 10;

/// How long a command runs at most before it, or the cell, is killed.
const LIFE_MAX: Duration = Duration::from_millis(900);

/// Files of the source, and the longest one, in bytes: the tree stays below 64 MB.
const FILES: usize = 12;
const FILE_MAX_BYTES: usize = 4_000_000;

/// A device, its cell, and what it was told is safe.
struct Household<'w> {
    world: &'w World,
    device: Candor<'w>,
    cell: Candor<'w>,
    running: Option<CellProcess>,
    /// A copy of the source as each acknowledged snapshot has it.
    copies: BTreeMap<String, PathBuf>,
    newest: Option<String>,
    tick: usize,
}

/// Bytes that do not compress, the same for the same number (xorshift64).
pub(super) fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        out.extend_from_slice(&next());
    }
    out.truncate(length);
    out
}

/// Kills one of the two again and again, and after each kill lets the command be done.
pub(super) fn vault_survives_kills(world: &World) -> Outcome {
    let (cell_log, cell) = (world.path("cell.log"), world.candor("cell"));
    let (running, invitation) = cell.new_cell(&cell_log)?;
    let device = world.candor("device");
    super::log::prepare(world, &device, &invitation)?;
    let mut household = Household {
        world,
        device,
        cell,
        running: Some(running),
        copies: BTreeMap::new(),
        newest: None,
        tick: 0,
    };
    household.change()?;
    household.back_up()?;
    let kills = if world.full { KILLS_FULL } else { KILLS };
    for number in 0..kills {
        household.kill_in(number, kills)?;
        if number % KILLS_CHECKED == KILLS_CHECKED - 1 {
            household.read_back()?;
        }
    }
    household.read_back()?;
    println!(
        "{kills} kills, {} snapshots acknowledged, nothing missing",
        household.copies.len()
    );
    match household.running {
        Some(running) => running.stop(),
        None => Ok(()),
    }
}

impl Household<'_> {
    fn source(&self) -> PathBuf {
        self.world.path("source")
    }

    /// Some files become others, and some what they were before.
    fn change(&mut self) -> Outcome {
        for step in 0..4 {
            self.tick += 1;
            let number = self.tick * 7 + step;
            let path = self.source().join(format!("{}", number % FILES));
            let length = number * 997_001 % FILE_MAX_BYTES;
            fs::write(path, noise((number % 40) as u64, length))?;
        }
        Ok(())
    }

    fn words(&self, number: usize) -> Vec<String> {
        let to = self.world.path(format!("killed-{number}"));
        let words: &[&str] = match number % 6 {
            0 | 2 | 4 => &["backup", "run", "--all"],
            1 => &["backup", "forget", "--keep-last", "3"],
            3 => &["backup", "prune", "--max-unused", "0"],
            _ => &["backup", "restore", "latest", "--to"],
        };
        let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        if words.last().is_some_and(|word| word == "--to") {
            words.push(to.to_string_lossy().into_owned());
        }
        words
    }

    fn spawn(&self, words: &[String]) -> Outcome<Child> {
        let mut command = self.device.command(words);
        println!("$ {}", crate::sys::shown(&command));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().doing("starting a command")
    }

    /// Kills the command, or the cell under it, at its moment. Then the same command has to succeed.
    fn kill_in(&mut self, number: usize, kills: usize) -> Outcome {
        if number.is_multiple_of(2) {
            self.change()?;
        }
        let words = self.words(number);
        let mut child = self.spawn(&words)?;
        // A step that shares no factor with the number of kills visits every moment once.
        let moment = (number * 7 % kills) as f64 + 0.5;
        thread::sleep(LIFE_MAX.mul_f64(moment / kills as f64));
        if number % 4 < 2 {
            let _ = child.kill();
            child.wait()?;
        } else {
            if let Some(running) = self.running.take() {
                running.kill()?;
            }
            child.wait()?;
            // A log of its own: in the one of before it listens already.
            let log = self.world.path(format!("cell-{number}.log"));
            self.running = Some(self.cell.start_cell(&log)?);
        }
        if words[1] == "run" {
            return self.back_up();
        }
        self.device.run(&words)?;
        if words[1] == "restore" {
            let restored = self.world.path(format!("killed-{number}"));
            self.compare(self.newest.as_deref(), &restored)?;
            fs::remove_dir_all(restored)?;
        }
        Ok(())
    }

    /// A backup that succeeds is acknowledged: its snapshot is remembered with a copy of what is in it.
    fn back_up(&mut self) -> Outcome {
        let told = self.device.run(["--json", "backup", "run", "--all"])?;
        let told: serde_json::Value = serde_json::from_str(&told).doing("reading the backup")?;
        let snapshot = told["backups"][0]["snapshot"].as_str();
        let snapshot = snapshot
            .ok_or_else(|| Failure::new(format!("no snapshot in {told}")))?
            .to_owned();
        if !self.copies.contains_key(&snapshot) {
            let copy = self.world.path(format!("copy-{}", self.copies.len()));
            let mut cp = std::process::Command::new("cp");
            cp.arg("-a").arg(self.source()).arg(&copy);
            let status = cp.status().doing("copying the source")?;
            if !status.success() {
                return Err(Failure::new("the source could not be copied"));
            }
            self.copies.insert(snapshot.clone(), copy);
        }
        self.newest = Some(snapshot);
        Ok(())
    }

    fn compare(&self, snapshot: Option<&str>, restored: &Path) -> Outcome {
        let copy = snapshot.and_then(|snapshot| self.copies.get(snapshot));
        let copy = copy.ok_or_else(|| Failure::new("a snapshot that nobody was told of"))?;
        same_tree(copy, &restored.join("source"), With::DiffAndRsync)
    }

    /// Every byte is right, the newest snapshot is listed, and each that is listed gives back what it has to.
    fn read_back(&self) -> Outcome {
        self.device.run(["backup", "check", "--read-data"])?;
        let told = self.device.run(["--json", "backup", "snapshots"])?;
        let told: serde_json::Value = serde_json::from_str(&told).doing("reading the list")?;
        let listed: Vec<&str> = told["snapshots"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["snapshot"].as_str())
            .collect();
        if !listed
            .iter()
            .any(|one| Some(*one) == self.newest.as_deref())
        {
            return Err(Failure::new("the newest acknowledged snapshot is missing"));
        }
        let mut compared = 0;
        for snapshot in listed {
            // A run that was killed after its head moved told nobody.
            if !self.copies.contains_key(snapshot) {
                continue;
            }
            let to = self.world.path(format!("back-{snapshot}"));
            let target = to.to_string_lossy();
            self.device
                .run(["backup", "restore", snapshot, "--to", &target])?;
            self.compare(Some(snapshot), &to)?;
            fs::remove_dir_all(to)?;
            compared += 1;
        }
        println!("{compared} snapshots compared");
        Ok(())
    }
}
