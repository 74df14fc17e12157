//! Histories of two devices, their cell and the way between them, each out of one seed: devices that stop at any
//! step, power that is cut, machines that are put back to a copy, replies that are lost or come twice, a cell that
//! stops in the midst of an upload, and one that is restored from yesterday's copy.
//!
//! What has to hold, because nobody attacks:
//!
//! * no command ends with an alarm, except where the cell was put back: there the device says "older than what I
//!   saw", signs nothing, and goes on once a person accepted it;
//! * every snapshot whose head was acknowledged, and that nobody forgot, is listed in the end and restores byte for
//!   byte, on both devices and on a new one that has the keys alone;
//! * no two objects were ever sealed with the same salt;
//! * the same seed gives the same trace.
//!
//! The cell and the rollback memory are models in small of `store`, `server` and `client`, which this crate may not
//! know; everything else is the real thing, on real files.

mod cell;
mod device;
mod faults;
mod steps;
mod withheld;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use candor_wire::ObjectId;
use tempfile::TempDir;

use self::cell::Cell;
use self::device::{Device, Fail, Files, Loss, files};
use self::faults::{Plan, Request};
use super::{keys, noise};
use crate::SnapshotId;
use crate::keys::VaultKeys;
use crate::prune::PruneRules;
use crate::seal::{Aes256Gcm, ObjectType, Opener};
use crate::tests::played::{asked_for, play_all};

/// Steps of one history before it becomes quiet.
const STEPS: usize = 24;

/// How many histories the suite plays.
const HISTORIES: u64 = 500;

/// SplitMix64: a history is its seed.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// What the devices were promised.
#[derive(Clone, Default)]
struct Ledger {
    /// What each snapshot has to give back.
    saved: BTreeMap<SnapshotId, Files>,
    /// Snapshots whose head was acknowledged.
    acknowledged: BTreeSet<SnapshotId>,
    /// Snapshots that somebody took off the list, whether or not the head moved.
    forgotten: BTreeSet<SnapshotId>,
}

/// What happened, told without names that differ from one run to the next.
struct Journal {
    keys: Arc<VaultKeys>,
    trace: Mutex<Vec<String>>,
    names: Mutex<BTreeMap<Vec<u8>, String>>,
    salts: Mutex<HashMap<[u8; 32], ObjectId>>,
    late: Mutex<Vec<Request>>,
    ledger: Mutex<Ledger>,
    ticks: AtomicU64,
}

impl Journal {
    fn new() -> Self {
        Self {
            keys: Arc::new(keys()),
            trace: Mutex::default(),
            names: Mutex::default(),
            salts: Mutex::default(),
            late: Mutex::default(),
            ledger: Mutex::default(),
            ticks: AtomicU64::new(0),
        }
    }

    fn note(&self, line: String) {
        self.trace.lock().unwrap().push(line);
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }

    /// What an object is called here; and whether its salt is new, which it has to be.
    fn name(&self, object: ObjectId, bytes: &Bytes) -> String {
        let salt = *bytes[10..].first_chunk::<32>().unwrap();
        let first = *self.salts.lock().unwrap().entry(salt).or_insert(object);
        assert_eq!(first, object, "one salt seals one object");
        let opens = |kind| {
            let length = bytes.len() as u64;
            Opener::<Aes256Gcm>::new(&self.keys, kind, bytes, length).is_ok()
        };
        let kind = match (opens(ObjectType::Pack), opens(ObjectType::Index)) {
            (true, _) => "pack",
            (_, true) => "index object",
            _ => "manifest",
        };
        self.name_as(object.as_bytes(), kind)
    }

    fn name_as(&self, id: &[u8], kind: &str) -> String {
        let mut names = self.names.lock().unwrap();
        let number = names.values().filter(|name| name.starts_with(kind)).count() + 1;
        let name = names.entry(id.to_vec());
        name.or_insert_with(|| format!("{kind} {number}")).clone()
    }

    fn name_of(&self, object: &ObjectId) -> String {
        let names = self.names.lock().unwrap();
        let name = names.get(object.as_bytes().as_slice());
        name.map_or("something unknown", String::as_str).to_owned()
    }

    fn name_snapshot(&self, id: SnapshotId) -> String {
        self.name_as(id.as_bytes(), "snapshot")
    }

    fn save(&self, id: SnapshotId, files: Files) {
        self.ledger.lock().unwrap().saved.insert(id, files);
    }

    fn acknowledge(&self, id: SnapshotId) {
        self.ledger.lock().unwrap().acknowledged.insert(id);
    }

    fn forget(&self, ids: &[SnapshotId]) {
        self.ledger.lock().unwrap().forgotten.extend(ids);
    }

    fn remember_again(&self, id: SnapshotId) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.forgotten.remove(&id);
        ledger.acknowledged.insert(id);
    }
}

/// A cell, and what was promised when it was like that.
struct Copy {
    cell: Cell,
    acknowledged: BTreeSet<SnapshotId>,
    forgotten: BTreeSet<SnapshotId>,
}

struct World {
    top: TempDir,
    seed: u64,
    cell: Arc<Mutex<Cell>>,
    journal: Arc<Journal>,
    devices: [Device; 2],
    copies: Vec<Copy>,
}

/// A directory in memory, where there is one: what is durable is decided here, and not by a disk.
fn place() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap_or_else(|_| TempDir::new().unwrap())
}

impl World {
    fn new(seed: u64) -> Self {
        let top = place();
        let cell = Arc::new(Mutex::new(Cell::default()));
        let journal = Arc::new(Journal::new());
        let device = |number| Device::new(number, top.path(), seed, &cell, &journal);
        Self {
            devices: [device(1), device(2)],
            top,
            seed,
            cell,
            journal,
            copies: Vec::new(),
        }
    }

    /// A command of a device, and what follows from how it ended. Says whether it was done.
    fn run(
        &mut self,
        number: usize,
        what: &str,
        loss: Loss,
        command: impl FnOnce(&mut Device) -> Result<(), Fail>,
    ) -> Result<(), Fail> {
        let device = &mut self.devices[number];
        self.journal.note(format!("d{} {what}", device.number));
        let (torn, swaps) = (device.link.torn(), device.link.swaps());
        let is_waiting = device.waits.is_some();
        let ended = command(device);
        if device.link.is_dead() {
            self.journal
                .note(format!("d{} stopped: {loss:?}", device.number));
            device.start_again(loss);
            return Err(Fail::NoAnswer);
        }
        let ended = match ended {
            Ok(()) => return Ok(()),
            Err(ended) => ended,
        };
        let word = match &ended {
            Fail::Alarm(_) => "an alarm".to_owned(),
            other => format!("{other:?}"),
        };
        self.journal
            .note(format!("d{} ended with {word}", device.number));
        match &ended {
            Fail::Alarm(text) => {
                assert!(device.link.torn() > torn, "a false alarm: {text}");
            }
            Fail::Stale => {
                assert!(device.is_rolled_back(), "a false alarm: nothing is older");
                assert!(is_waiting || device.link.swaps() == swaps, "it signed on");
            }
            Fail::NoAnswer | Fail::Again | Fail::Gone => {}
        }
        device.close();
        Err(ended)
    }

    /// A person accepts, for all devices, what the cell is now.
    fn accept_older(&mut self) {
        self.journal.note("a person accepts the cell".to_owned());
        for device in &mut self.devices {
            device.accept_older();
        }
    }

    fn copy_cell(&mut self) {
        let ledger = self.journal.ledger.lock().unwrap();
        self.copies.push(Copy {
            cell: self.cell.lock().unwrap().copy(),
            acknowledged: ledger.acknowledged.clone(),
            forgotten: ledger.forgotten.clone(),
        });
    }

    fn put_back(&mut self, which: usize) {
        let copy = &self.copies[which];
        *self.cell.lock().unwrap() = copy.cell.copy();
        let mut ledger = self.journal.ledger.lock().unwrap();
        ledger.acknowledged.clone_from(&copy.acknowledged);
        // What was forgotten since may be taken off once more, by a request that comes late.
        ledger.forgotten.extend(&copy.forgotten);
        drop(ledger);
        // A copy is of the past of what is there now.
        self.copies.truncate(which + 1);
    }

    /// Something that nobody waits for any more arrives.
    fn deliver_late(&mut self, draw: &mut Draw) {
        let late = self.journal.late.lock().unwrap();
        if !late.is_empty() {
            let at = draw.below(late.len());
            late[at].arrive(&mut self.cell.lock().unwrap());
        }
    }

    /// Nothing goes wrong any more: each device backs up what it has.
    fn become_quiet(&mut self) {
        for number in [0, 1] {
            self.devices[number].link.set_plan(Plan::Calm);
        }
        for number in [0, 1, 0] {
            loop {
                let ended = self.run(number, "backs up", Loss::Killed, Device::back_up);
                match ended {
                    Ok(()) => break,
                    Err(Fail::Stale) => self.accept_older(),
                    Err(other) => panic!("{other:?} although nothing is wrong"),
                }
            }
        }
    }

    /// Everything that was promised is there, on both devices and on one that has the keys alone.
    fn assert_whole(&mut self) {
        self.become_quiet();
        self.cell.lock().unwrap().expire();
        let ledger = self.journal.ledger.lock().unwrap().clone();
        for device in &mut self.devices {
            device.open().unwrap();
            let own = files(&device.folder());
            assert_promised(device, &ledger, false);
            let entries = &device.repository().manifest().snapshots;
            let of_device =
                |entry: &&crate::SnapshotEntry| entry.device.as_bytes() == &[device.number; 16];
            let newest = entries.iter().rfind(of_device).unwrap();
            assert_eq!(ledger.saved[&newest.id], own, "the newest is what is there");
        }
        let (top, seed) = (self.top.path(), self.seed);
        let mut fresh = Device::new(9, top, seed, &self.cell, &self.journal);
        fresh.open().unwrap();
        assert_promised(&fresh, &ledger, true);
    }
}

/// Everything listed is whole, and everything acknowledged is listed. Restores all snapshots, or the newest.
fn assert_promised(device: &Device, ledger: &Ledger, restores_all: bool) {
    let report = device.check();
    assert!(report.is_sound(), "{report:?}");
    let listed = device.snapshots();
    for id in ledger.acknowledged.difference(&ledger.forgotten) {
        assert!(
            listed.contains(id),
            "an acknowledged snapshot is not listed"
        );
    }
    let entries = &device.repository().manifest().snapshots;
    let restored = entries.len() - if restores_all { 0 } else { entries.len() - 1 };
    for entry in entries.iter().rev().take(restored) {
        let (outcome, found) = device.restore(entry.root).unwrap();
        assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
        assert_eq!(
            found, ledger.saved[&entry.id],
            "a snapshot came back changed"
        );
    }
}

const NAMES: [&str; 6] = ["a", "b", "c", "below/d", "below/e", "below/deep/f"];

fn some_loss(draw: &mut Draw) -> Loss {
    match draw.below(9) {
        0..3 => Loss::Killed,
        3..6 => Loss::Power {
            index: draw.below(3) > 0,
            states: draw.below(3) > 0,
        },
        6 | 7 => Loss::CopiedBack,
        _ => Loss::Everything,
    }
}

fn change_a_file(device: &Device, draw: &mut Draw) {
    let name = NAMES[draw.below(NAMES.len())];
    if draw.below(5) == 0 {
        device.remove(name);
        return;
    }
    // Contents are few and come back, so that runs rely on what others condemn.
    let length = [1_000, 40_000, 90_000, 150_000][draw.below(4)];
    device.write(name, &noise(draw.below(6) as u64, length));
}

fn some_rules(draw: &mut Draw) -> PruneRules {
    PruneRules {
        max_unused_percent: [0, 10, 60][draw.below(3)],
        round_bytes: 300_000,
    }
}

/// One step of a history.
fn step(world: &mut World, draw: &mut Draw) {
    let number = draw.below(2);
    let loss = some_loss(draw);
    let is_waiting = world.devices[number].waits.is_some();
    let ended = match draw.below(100) {
        0..30 => {
            change_a_file(&world.devices[number], draw);
            change_a_file(&world.devices[number], draw);
            if is_waiting {
                return;
            }
            world.run(number, "stages a backup", loss, |device| {
                device.open()?;
                device.stage_backup()
            })
        }
        30..55 => world.run(number, "commits", loss, |device| {
            device.commit().map(|_| ())
        }),
        55..63 if !is_waiting => {
            let at = draw.below(8);
            world.run(number, "forgets", loss, |device| {
                device.open()?;
                let listed = device.snapshots();
                match listed.get(at) {
                    Some(id) if listed.len() > 1 => device.forget(&[*id]),
                    _ => Ok(()),
                }
            })
        }
        63..73 if !is_waiting => {
            let rules = some_rules(draw);
            world.run(number, "stages a prune", loss, |device| {
                device.open()?;
                device.waits = device.stage_prune(&rules)?;
                Ok(())
            })
        }
        73..80 if !is_waiting => {
            let at = draw.below(2);
            world.run(number, "brings back", loss, |device| {
                device.bring_back(|found| found.get(at).copied())
            })
        }
        80..85 if !is_waiting => {
            world.devices[number].copy();
            Ok(())
        }
        85..89 => {
            world.devices[number].link.stop();
            world.run(number, "is killed", loss, |_| Ok(()))
        }
        89..93 => {
            world.cell.lock().unwrap().expire();
            Ok(())
        }
        93..96 => {
            world.deliver_late(draw);
            Ok(())
        }
        96..99 => {
            world.copy_cell();
            Ok(())
        }
        99 => {
            let which = draw.below(world.copies.len());
            let line = format!("the cell is put back to copy {which}");
            world.journal.note(line);
            world.put_back(which);
            Ok(())
        }
        _ => world.run(number, "commits", loss, |device| {
            device.commit().map(|_| ())
        }),
    };
    if ended == Err(Fail::Stale) && draw.below(2) == 0 {
        world.accept_older();
    }
}

/// One history. Returns its trace.
fn play(seed: u64) -> Vec<String> {
    let mut world = World::new(seed);
    let journal = Arc::clone(&world.journal);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut draw = Draw(seed);
        let per_mille = [0, 10, 30, 80][draw.below(4)];
        for number in [0, 1] {
            world.devices[number].link.set_plan(Plan::Drawn {
                draw: Draw(seed ^ (0xfa17 + number as u64)),
                per_mille,
                may_tear: seed.is_multiple_of(4),
            });
        }
        world.copy_cell();
        for _ in 0..STEPS {
            step(&mut world, &mut draw);
        }
        world.assert_whole();
    }));
    let trace = std::mem::take(&mut *journal.trace.lock().unwrap());
    if let Err(panic) = played {
        eprintln!("history {seed}:\n{}", trace.join("\n"));
        std::panic::resume_unwind(panic);
    }
    trace
}

/// Plays one, for whoever wants no trace.
fn played(seed: u64) {
    drop(play(seed));
}

#[test]
fn honest_histories_of_a_vault_lose_nothing_and_raise_no_alarm() {
    assert_eq!(play_all("history", 1, HISTORIES, played), 0);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 4, 7, 8, 1_000_001] {
        let trace = play(seed);
        assert!(trace.len() > 2 * STEPS, "{trace:?}");
        assert_eq!(trace, play(seed), "seed {seed}");
    }
}

#[test]
fn everything_happens_in_histories() {
    let traces: Vec<String> = (1..=80).flat_map(play).collect();
    let rescues = |line: &&String| line.contains(" rescued") && !line.contains(" 0 rescued");
    assert!(traces.iter().filter(rescues).count() > 0);
    let count = |words: &str| traces.iter().filter(|line| line.contains(words)).count();
    for words in [
        "[RequestLost]",
        "[ReplyLost]",
        "[Twice]",
        "[Late]",
        "[Slow]",
        "[Torn]",
        "[CellStops(",
        "[CrashBefore]",
        "[CrashAfter]",
        "stopped: Killed",
        "stopped: Power",
        "stopped: Everything",
        "stopped: CopiedBack",
        "the cell is put back",
        "older than what I saw",
        "a person accepts",
        "Err(Conflict)",
        "brings back",
    ] {
        println!("{words}: {}", count(words));
        assert!(count(words) > 0, "{words}");
    }
}

/// Ten thousand, or those that the environment asks for.
#[test]
#[ignore = "the long form, which `cargo xtask simulate vault` runs"]
fn many_histories_of_a_vault() {
    let count = asked_for("CANDOR_VAULT_HISTORIES").unwrap_or(10_000);
    let first = asked_for("CANDOR_VAULT_FIRST").unwrap_or(1);
    let failed = play_all("history", first, count, played);
    println!("simulated\t{count}\t{failed}");
    assert_eq!(failed, 0);
}
