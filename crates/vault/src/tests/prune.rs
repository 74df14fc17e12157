#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candor_wire::{DeviceId, Millis};
use tempfile::TempDir;

use super::*;
use crate::SystemEntropy;
use crate::backup::{self, BackupJob};
use crate::check;
use crate::report::Quiet;
use crate::restore::{self, RestoreJob};
use crate::rules::Rules;
use crate::tests::played::{asked_for, play_all};
use crate::tests::{MemoryCell, Refused, keys, noise};

/// A device with a folder and a local index; the cell is shared.
struct Device {
    number: u8,
    place: PathBuf,
    cell: Arc<MemoryCell>,
    repository: Repository,
    /// A change that is staged and not committed.
    waits: Option<Staged>,
    runs: i64,
}

/// What a snapshot has to give back: the files of its folder.
type Saved = BTreeMap<SnapshotId, BTreeMap<String, Vec<u8>>>;

fn open(place: &Path, cell: &Arc<MemoryCell>) -> Repository {
    let head = *cell.head.lock().unwrap();
    let entropy = Arc::new(SystemEntropy);
    let index = place.join("index");
    Repository::open(Arc::new(keys()), entropy, head, &index, cell.as_ref()).unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let named = entries.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    named.collect()
}

impl Device {
    fn new(number: u8, top: &Path, cell: &Arc<MemoryCell>) -> Self {
        let place = top.join(format!("device-{number}"));
        fs::create_dir_all(place.join("files")).unwrap();
        Self {
            number,
            repository: open(&place, cell),
            place,
            cell: Arc::clone(cell),
            waits: None,
            runs: 0,
        }
    }

    fn folder(&self) -> PathBuf {
        self.place.join("files")
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.folder().join(name), content).unwrap();
    }

    fn sink(&self) -> Arc<dyn ObjectSink> {
        Arc::clone(&self.cell) as Arc<dyn ObjectSink>
    }

    /// A crash, or the next command.
    fn restart(&mut self) {
        self.waits = None;
        self.repository = open(&self.place, &self.cell);
    }

    fn stage_backup(&mut self, saved: &mut Saved) {
        self.runs += 1;
        let job = BackupJob {
            sources: vec![self.folder()],
            rules: Rules::default(),
            set: "documents".to_owned(),
            device: DeviceId::from_bytes([self.number; 16]),
            time: Millis(4_000_000_000_000 + self.runs * 1_000),
            stat_cache: self.place.join("states"),
        };
        let cancel = Cancel::default();
        let sink = self.sink();
        let outcome = backup::run(&mut self.repository, &job, sink, &Quiet, &cancel).unwrap();
        if let Some(staged) = outcome.staged {
            saved.insert(outcome.snapshot.id, files(&self.folder()));
            self.waits = Some(staged);
        }
    }

    /// Tells whether the snapshot is there. A run that relied on what is gone is to be done again.
    fn commit_backup(&mut self) -> bool {
        let Some(mut staged) = self.waits.take() else {
            return true;
        };
        let snapshot = staged.snapshot().unwrap().clone();
        loop {
            match self.cell.move_head(&staged) {
                Ok(()) => {
                    self.repository.accept(staged).unwrap();
                    return true;
                }
                Err(Refused::Missing) => return false,
                Err(Refused::Conflict) => {}
            }
            let head = self.cell.head.lock().unwrap().unwrap();
            let (source, sink) = (self.cell.as_ref(), self.cell.as_ref());
            match self.repository.rebase(snapshot.clone(), head, source, sink) {
                Ok(Some(again)) => staged = again,
                Ok(None) => return true,
                Err(RepositoryError::Outdated) => return false,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn prune(&mut self, rules: &PruneRules) -> PruneReport {
        let source = Arc::clone(&self.cell);
        let pruned = run(
            &self.repository,
            rules,
            &self.sink(),
            source.as_ref(),
            &Quiet,
            &Cancel::default(),
        );
        let pruned = pruned.unwrap();
        self.waits = pruned.staged;
        pruned.report
    }

    /// Moves the head if nobody else did meanwhile.
    fn commit(&mut self) -> bool {
        let Some(staged) = self.waits.take() else {
            return false;
        };
        if self.cell.move_head(&staged).is_err() {
            return false;
        }
        self.repository.accept(staged).unwrap();
        true
    }

    fn forget(&mut self, ids: &[SnapshotId]) -> bool {
        let staged = self.repository.stage_forget(ids, self.cell.as_ref());
        self.waits = Some(staged.unwrap());
        self.commit()
    }

    fn back_up(&mut self, saved: &mut Saved) {
        loop {
            self.stage_backup(saved);
            if self.commit_backup() {
                return;
            }
            self.restart();
        }
    }

    fn restore(&self, root: ChunkId, to: &Path) -> BTreeMap<String, Vec<u8>> {
        let job = RestoreJob {
            root,
            paths: Vec::new(),
            target: to.to_path_buf(),
            scratch: self.place.clone(),
            privileged: false,
            durable: false,
        };
        let (source, cancel) = (self.cell.as_ref(), Cancel::default());
        restore::run(&self.repository, &job, source, &Quiet, &cancel).unwrap();
        files(&to.join("files"))
    }

    /// Everything that the vault lists is there and is what was saved.
    fn assert_whole(&self, saved: &Saved) {
        let (source, cancel) = (self.cell.as_ref(), Cancel::default());
        let report = check::run(&self.repository, source, true, &Quiet, &cancel).unwrap();
        assert!(report.is_sound(), "{report:?}");
        for snapshot in &self.repository.manifest().snapshots {
            let to = TempDir::new().unwrap();
            assert_eq!(self.restore(snapshot.root, to.path()), saved[&snapshot.id]);
        }
    }

    fn snapshots(&self) -> Vec<SnapshotId> {
        let listed = self.repository.manifest().snapshots.iter();
        listed.map(|one| one.id).collect()
    }
}

fn two() -> (TempDir, Arc<MemoryCell>, Device, Device, Saved) {
    let top = TempDir::new().unwrap();
    let cell = Arc::new(MemoryCell::new());
    let first = Device::new(1, top.path(), &cell);
    let second = Device::new(2, top.path(), &cell);
    (top, cell, first, second, Saved::new())
}

#[test]
fn what_no_snapshot_needs_goes_and_everything_else_stays() {
    let (_top, cell, mut device, mut other, mut saved) = two();
    device.write("stays", &noise(1, 3_000_000));
    device.write("goes", &noise(2, 40_000_000));
    device.back_up(&mut saved);
    fs::remove_file(device.folder().join("goes")).unwrap();
    device.write("new", &noise(3, 1_000_000));
    device.back_up(&mut saved);
    let old = device.snapshots()[0];
    // Nothing is superfluous yet, but for the first manifest.
    let report = device.prune(&PruneRules::default());
    assert_eq!((report.packs_gone, report.orphans), (0, 1));
    assert!(device.commit());
    assert!(device.forget(&[old]));
    let stored = cell.stored().len();
    let report = device.prune(&PruneRules::default());
    assert!(report.packs_gone >= 2 && !report.more, "{report:?}");
    assert!(device.commit());
    // It is condemned, and still there.
    assert!(cell.stored().len() >= stored);
    let gone = cell.expire();
    assert!(gone >= report.packs_gone as usize);
    device.restart();
    device.assert_whole(&saved);
    other.restart();
    other.assert_whole(&saved);
    let bytes: usize = cell.objects.lock().unwrap().values().map(Bytes::len).sum();
    assert!(bytes < 9_000_000, "{bytes}");
    // A second round finds nothing: it does not go on for ever.
    let report = device.prune(&PruneRules::default());
    assert!(device.waits.is_none(), "{report:?}");
}

#[test]
fn what_is_needed_of_a_pack_is_stored_again_only_if_it_pays() {
    let (_top, cell, mut device, _, mut saved) = two();
    for n in 0..20 {
        device.write(&format!("{n}"), &noise(n, 500_000));
    }
    device.back_up(&mut saved);
    for n in 0..16 {
        fs::remove_file(device.folder().join(format!("{n}"))).unwrap();
    }
    device.back_up(&mut saved);
    let old = device.snapshots()[0];
    assert!(device.forget(&[old]));
    let lazy = PruneRules {
        max_unused_percent: 90,
        ..PruneRules::default()
    };
    let report = device.prune(&lazy);
    assert_eq!(report.packs_rewritten, 0, "{report:?}");
    let report = device.prune(&PruneRules::default());
    assert!(report.packs_rewritten >= 1, "{report:?}");
    assert!(report.bytes_stored > 0 && report.bytes_stored < 5_000_000);
    assert!(device.commit());
    cell.expire();
    device.restart();
    device.assert_whole(&saved);
    // What was stored again is known: the next run stores nothing of it.
    let before = cell.puts.lock().unwrap().len();
    device.stage_backup(&mut saved);
    assert!(device.waits.is_none());
    assert_eq!(cell.puts.lock().unwrap().len(), before);
}

#[test]
fn a_run_that_relied_on_what_goes_sends_it_again() {
    let (_top, cell, mut first, mut second, mut saved) = two();
    let shared = noise(7, 2_000_000);
    first.write("shared", &shared);
    first.back_up(&mut saved);
    let old = first.snapshots()[0];
    second.restart();
    second.write("the same", &shared);
    second.stage_backup(&mut saved);
    // Meanwhile the other device finds that nobody needs it, and the cell deletes it at once.
    fs::remove_file(first.folder().join("shared")).unwrap();
    first.write("other", b"other");
    first.back_up(&mut saved);
    assert!(first.forget(&[old]));
    first.prune(&PruneRules::default());
    assert!(first.commit());
    cell.expire();
    assert!(!second.commit_backup(), "it is told to run again");
    second.restart();
    second.back_up(&mut saved);
    second.assert_whole(&saved);
    first.restart();
    first.assert_whole(&saved);
}

#[test]
fn packs_of_an_unfinished_run_that_are_condemned_are_rescued_or_sent_again() {
    for is_expired in [false, true] {
        let (_top, cell, mut first, mut second, mut saved) = two();
        first.write("a", b"a");
        first.back_up(&mut saved);
        second.restart();
        second.write("large", &noise(8, 20_000_000));
        second.stage_backup(&mut saved);
        // It crashed before the head moved. Its packs are on the cell, and nobody names them.
        let report = first.prune(&PruneRules::default());
        assert!(report.orphans > 1, "{report:?}");
        assert!(first.commit());
        if is_expired {
            cell.expire();
        }
        let before = cell.puts.lock().unwrap().len();
        second.restart();
        second.back_up(&mut saved);
        let sent = cell.puts.lock().unwrap().len() - before;
        assert_eq!(sent > 2, is_expired, "{sent}: rescued, not sent again");
        cell.expire();
        second.restart();
        second.assert_whole(&saved);
    }
}

#[test]
fn a21_a_snapshot_that_was_forgotten_and_pruned_comes_back_until_it_is_gone() {
    let (_top, cell, mut device, _, mut saved) = two();
    device.write("precious", &noise(9, 3_000_000));
    device.back_up(&mut saved);
    let precious = device.snapshots()[0];
    device.write("precious", b"overwritten");
    device.back_up(&mut saved);
    // Whoever has the device forgets it, and prunes.
    assert!(device.forget(&[precious]));
    device.prune(&PruneRules::default());
    assert!(device.commit());
    device.write("later", b"later");
    device.back_up(&mut saved);
    let found = forgotten(&device.repository, &[], false, cell.as_ref()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].entry.id, precious);
    let back = |device: &Device, found: &[Forgotten]| {
        let (sink, source) = (cell.as_ref(), cell.as_ref());
        bring_back(
            &device.repository,
            found,
            sink,
            source,
            &Quiet,
            &Cancel::default(),
        )
    };
    device.waits = Some(back(&device, &found).unwrap());
    assert!(device.commit());
    cell.expire();
    device.restart();
    assert_eq!(device.snapshots().len(), 3);
    assert_eq!(device.snapshots()[0], precious, "where it was");
    device.assert_whole(&saved);
    // Once the window is over it is gone, and that is said.
    assert!(device.forget(&[precious]));
    device.prune(&PruneRules::default());
    assert!(device.commit());
    let found = forgotten(&device.repository, &[], false, cell.as_ref()).unwrap();
    cell.expire();
    let gone = back(&device, &found).unwrap_err();
    assert!(
        matches!(gone, PruneError::Repository(RepositoryError::Gone)),
        "{gone:?}"
    );
    device.restart();
    device.assert_whole(&saved);
    assert!(
        forgotten(&device.repository, &[], false, cell.as_ref())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn nothing_is_taken_away_while_a_snapshot_cannot_be_read() {
    let (_top, cell, mut device, _, mut saved) = two();
    device.write("a", &noise(1, 200_000));
    device.back_up(&mut saved);
    let old = device.snapshots()[0];
    device.write("a", &noise(2, 200_000));
    device.back_up(&mut saved);
    assert!(device.forget(&[old]));
    // The cell withholds a pack of the tree.
    let root = device.repository.manifest().snapshots[0].root;
    let place = device.repository.index().locate(&root).unwrap().unwrap();
    cell.objects.lock().unwrap().remove(&place.pack);
    let source = cell.as_ref();
    let (rules, cancel) = (PruneRules::default(), Cancel::default());
    let refused = run(
        &device.repository,
        &rules,
        &device.sink(),
        source,
        &Quiet,
        &cancel,
    );
    assert!(matches!(refused, Err(PruneError::Tree(_))), "{refused:?}");
}

#[test]
fn a_stopped_prune_changes_nothing() {
    let (_top, cell, mut device, _, mut saved) = two();
    device.write("a", b"a");
    device.back_up(&mut saved);
    let cancel = Cancel::default();
    cancel.cancel();
    let before = cell.stored();
    let rules = PruneRules::default();
    let stopped = run(
        &device.repository,
        &rules,
        &device.sink(),
        cell.as_ref(),
        &Quiet,
        &cancel,
    );
    assert!(matches!(stopped, Err(PruneError::Cancelled)));
    assert_eq!(cell.stored(), before);
}

/// SplitMix64: a schedule is its seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// One schedule of two devices that back up, forget, prune, crash and are slow to commit, while the cell deletes
/// what is condemned at any moment.
fn play(seed: u64) {
    let (_top, cell, first, second, mut saved) = two();
    let mut devices = [first, second];
    let mut draw = Draw(seed);
    for _ in 0..30 {
        let n = draw.below(2);
        let device = &mut devices[n];
        match draw.below(100) {
            0..30 => {
                // Contents are shared and come back, so that runs rely on what others condemn.
                let name = format!("{}", draw.below(4));
                let content = noise(draw.below(6) as u64, 1_000 + draw.below(4) * 90_000);
                device.write(&name, &content);
                if device.waits.is_none() {
                    device.restart();
                    device.stage_backup(&mut saved);
                }
            }
            30..55 => {
                let is_backup = device
                    .waits
                    .as_ref()
                    .is_some_and(|one| one.snapshot().is_some());
                if is_backup {
                    device.commit_backup();
                } else {
                    device.commit();
                }
            }
            55..67 if device.waits.is_none() => {
                device.restart();
                let listed = device.snapshots();
                if listed.len() > 1 {
                    let which = listed[draw.below(listed.len())];
                    device.forget(&[which]);
                }
            }
            67..85 if device.waits.is_none() => {
                device.restart();
                let rules = PruneRules {
                    max_unused_percent: [0, 10, 60][draw.below(3)],
                    round_bytes: 300_000,
                };
                device.prune(&rules);
            }
            85..90 if device.waits.is_none() => {
                device.restart();
                let source = Arc::clone(&cell);
                let listed_too = draw.below(3) == 0;
                let repository = &device.repository;
                let found = forgotten(repository, &[], listed_too, source.as_ref()).unwrap();
                if !found.is_empty() {
                    let one = &found[draw.below(found.len())..][..1];
                    let (source, cancel) = (source.as_ref(), Cancel::default());
                    match bring_back(repository, one, source, source, &Quiet, &cancel) {
                        Ok(staged) => device.waits = Some(staged),
                        Err(PruneError::Repository(RepositoryError::Gone)) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                    // It may be given up, and the same process goes on.
                    if draw.below(3) == 0 {
                        device.waits = None;
                        device.restart();
                    }
                }
            }
            85..92 => device.restart(),
            92..97 => drop(cell.expire()),
            _ => {
                if let Some(name) = files(&device.folder()).keys().next() {
                    fs::remove_file(device.folder().join(name)).unwrap();
                }
            }
        }
    }
    for device in &mut devices {
        device.restart();
        device.back_up(&mut saved);
    }
    cell.expire();
    let [first, second] = &mut devices;
    first.restart();
    first.assert_whole(&saved);
    second.restart();
    second.prune(&PruneRules::default());
    second.commit();
    cell.expire();
    second.restart();
    second.assert_whole(&saved);
}

#[test]
fn two_devices_that_prune_and_back_up_at_once_lose_nothing() {
    assert_eq!(play_all("schedule", 1, 30, play), 0);
}

/// A thousand, or those that the environment asks for.
#[test]
#[ignore = "the long form, which `cargo xtask simulate prune` runs"]
fn a_thousand_schedules_lose_nothing() {
    let count = asked_for("CANDOR_SCHEDULES").unwrap_or(1_000);
    let first = asked_for("CANDOR_SCHEDULE_FIRST").unwrap_or(1);
    let failed = play_all("schedule", first, count, play);
    println!("simulated\t{count}\t{failed}");
    assert_eq!(failed, 0);
    println!("simulated\t{count}\t0");
}

#[test]
fn a_cell_that_lists_its_objects_in_circles_is_refused() {
    struct Circle(Arc<MemoryCell>);
    impl ObjectSource for Circle {
        fn get(&self, object: ObjectId) -> Result<Bytes, SourceError> {
            self.0.get(object)
        }
        fn get_range(
            &self,
            object: ObjectId,
            range: std::ops::Range<u64>,
        ) -> Result<Bytes, SourceError> {
            self.0.get_range(object, range)
        }
        fn has(&self, objects: &[ObjectId]) -> Result<Vec<Presence>, SourceError> {
            self.0.has(objects)
        }
        fn list(&self, _: Option<ObjectId>) -> Result<Vec<(ObjectId, u64)>, SourceError> {
            self.0.list(None)
        }
    }
    let (_top, cell, mut device, _, mut saved) = two();
    device.write("a", b"a");
    device.back_up(&mut saved);
    let source = Circle(Arc::clone(&cell));
    let (rules, cancel) = (PruneRules::default(), Cancel::default());
    let refused = run(
        &device.repository,
        &rules,
        &device.sink(),
        &source,
        &Quiet,
        &cancel,
    );
    assert!(matches!(refused, Err(PruneError::Listing)), "{refused:?}");
}

#[test]
fn what_is_not_brought_back_is_not_known_any_more() {
    let (_top, cell, mut device, _, mut saved) = two();
    let contents = [noise(1, 300_000), noise(2, 300_000)];
    for content in &contents {
        device.write("a", content);
        device.back_up(&mut saved);
    }
    device.write("a", b"now");
    device.back_up(&mut saved);
    let old = device.snapshots()[..2].to_vec();
    assert!(device.forget(&old));
    device.prune(&PruneRules::default());
    assert!(device.commit());
    let found = forgotten(&device.repository, &[], false, cell.as_ref()).unwrap();
    let first: Vec<Forgotten> = found
        .into_iter()
        .filter(|one| one.entry.id == old[0])
        .collect();
    let (sink, cancel) = (cell.as_ref(), Cancel::default());
    let staged = bring_back(
        &device.repository,
        &first,
        sink,
        cell.as_ref(),
        &Quiet,
        &cancel,
    );
    device.waits = Some(staged.unwrap());
    assert!(device.commit());
    cell.expire();
    // In the same process, without opening the vault again.
    device.write("a", &contents[1]);
    device.stage_backup(&mut saved);
    assert!(device.commit_backup());
    device.assert_whole(&saved);
}

#[test]
fn packs_that_no_manifest_listed_are_forgotten_when_they_go() {
    let (_top, cell, mut device, _, mut saved) = two();
    device.write("a", b"a");
    device.back_up(&mut saved);
    device.write("x", &noise(3, 300_000));
    device.stage_backup(&mut saved);
    device.restart();
    fs::remove_file(device.folder().join("x")).unwrap();
    let report = device.prune(&PruneRules::default());
    assert!(report.packs_gone > 0, "{report:?}");
    assert!(device.commit());
    cell.expire();
    device.write("x", &noise(3, 300_000));
    device.stage_backup(&mut saved);
    assert!(device.commit_backup());
    device.assert_whole(&saved);
}

/// Undo reads index objects of older manifests, which list packs of the present state, too.
#[test]
fn bringing_one_back_leaves_the_others_their_packs() {
    let (_top, cell, mut device, mut other, mut saved) = two();
    for n in 0..9 {
        device.write("a", &noise(n, 200_000));
        device.write(&format!("b{n}"), &noise(100 + n, 50_000));
        device.back_up(&mut saved);
    }
    let all = device.snapshots();
    assert!(device.forget(&all[3..4]));
    device.prune(&PruneRules::default());
    assert!(device.commit());
    let undo = |device: &Device| {
        let found = forgotten(&device.repository, &[], false, cell.as_ref()).unwrap();
        let (end, cancel) = (cell.as_ref(), Cancel::default());
        bring_back(&device.repository, &found, end, end, &Quiet, &cancel).unwrap()
    };
    // Begun and given up; then done.
    undo(&device);
    device.restart();
    device.waits = Some(undo(&device));
    assert!(device.commit());
    for n in 20..30 {
        device.write("c", &noise(n, 30_000));
        device.back_up(&mut saved);
    }
    device.prune(&PruneRules {
        max_unused_percent: 0,
        ..PruneRules::default()
    });
    device.commit();
    cell.expire();
    device.assert_whole(&saved);
    device.restart();
    device.assert_whole(&saved);
    other.restart();
    other.assert_whole(&saved);
    assert_eq!(other.snapshots().len(), 19);
}

#[test]
fn a_device_whose_index_lacks_a_pack_takes_nothing_away() {
    let (_top, cell, mut device, _, mut saved) = two();
    device.write("a", &noise(1, 3_000_000));
    device.back_up(&mut saved);
    device.write("b", b"b");
    device.back_up(&mut saved);
    // Whatever made it so.
    let index = device.place.join("index");
    let connection = rusqlite::Connection::open(&index).unwrap();
    let numbers = "SELECT number FROM pack ORDER BY stored_bytes DESC LIMIT 1";
    connection
        .execute(&format!("DELETE FROM chunk WHERE pack = ({numbers})"), [])
        .unwrap();
    connection
        .execute(&format!("DELETE FROM pack WHERE number = ({numbers})"), [])
        .unwrap();
    drop(connection);
    let (rules, cancel) = (PruneRules::default(), Cancel::default());
    let refused = run(
        &device.repository,
        &rules,
        &device.sink(),
        cell.as_ref(),
        &Quiet,
        &cancel,
    );
    assert!(matches!(refused, Err(PruneError::Tree(_))), "{refused:?}");
}

/// Somebody with the keys lists a snapshot on, and condemns what it needs. As long as that is there, it can be
/// listed again with its packs.
#[test]
fn a21_what_a_listed_snapshot_needs_comes_back_too() {
    let (_top, cell, mut device, _, mut saved) = two();
    device.write("precious", &noise(9, 300_000));
    device.back_up(&mut saved);
    let seen = device.repository.head().unwrap();
    let all = device.repository.index().packs(-1, 100).unwrap();
    let change = Change {
        snapshots: device.repository.manifest().snapshots.clone(),
        condemned: all.into_iter().map(|pack| pack.object).collect(),
        ..Change::default()
    };
    device.waits = Some(device.repository.stage(change, cell.as_ref()).unwrap());
    assert!(device.commit());
    device.restart();
    let (end, cancel) = (cell.as_ref(), Cancel::default());
    let report = check::run(&device.repository, end, false, &Quiet, &cancel).unwrap();
    assert!(!report.is_sound());
    let found = forgotten(&device.repository, &[seen], true, end).unwrap();
    let staged = bring_back(&device.repository, &found, end, end, &Quiet, &cancel).unwrap();
    device.waits = Some(staged);
    assert!(device.commit());
    cell.expire();
    device.restart();
    assert_eq!(device.snapshots().len(), 1);
    device.assert_whole(&saved);
}
