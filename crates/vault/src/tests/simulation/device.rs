//! A device: its folder, its local files, what it remembers, and its commands, as the client has them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use candor_wire::{DeviceId, Millis, ObjectId};
use tempfile::TempDir;

use super::Journal;
use super::cell::{Cell, Head, HeadHash, Refused};
use super::faults::{Link, copy_files};
use crate::backup::{self, BackupJob};
use crate::check;
use crate::entropy::{Entropy, EntropyError, SURROUNDINGS_BYTES};
use crate::ports::ObjectSink;
use crate::prune::{self, PruneRules};
use crate::report::{Cancel, Quiet};
use crate::repository::{Repository, Staged};
use crate::restore::{self, RestoreJob, RestoreOutcome};
use crate::rules::Rules;
use crate::{ChunkId, SnapshotId};

/// Files of a folder by their paths.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// How often a command tries again when the other device is faster.
const TRIES_MAX: usize = 8;

/// The devices' clock begins here, in seconds: later than any file system's, so that no time is too fresh.
const CLOCK_START_S: u64 = 4_000_000_000;

/// Why a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fail {
    /// No answer, or the device stopped.
    NoAnswer,
    /// The cell shows what is older than what this device saw, or something else in its place.
    Stale,
    /// It has to be done again.
    Again,
    /// What was forgotten is not there any more.
    Gone,
    /// Anything else. In an honest history nothing else happens.
    Alarm(String),
}

/// Random bytes out of a seed. Those for salts come again if the device is copied back; names do not.
pub(super) struct Luck {
    seed: u64,
    names: AtomicU64,
    salts: AtomicU64,
    clock: AtomicU64,
    is_clock_stopped: AtomicBool,
}

impl Luck {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            names: AtomicU64::new(0),
            salts: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            is_clock_stopped: AtomicBool::new(false),
        }
    }
}

impl Entropy for Luck {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        let is_salt = buffer.len() == 32;
        let drawn = if is_salt { &self.salts } else { &self.names };
        let number = drawn.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_be_bytes());
        hasher.update(&[u8::from(is_salt)]);
        hasher.update(&number.to_be_bytes());
        hasher.finalize_xof().fill(buffer);
        Ok(())
    }

    fn surroundings(&self) -> [u8; SURROUNDINGS_BYTES] {
        let is_stopped = self.is_clock_stopped.load(Ordering::Relaxed);
        let ticks = u64::from(!is_stopped);
        let time = self.clock.fetch_add(ticks, Ordering::Relaxed);
        let mut out = [0; SURROUNDINGS_BYTES];
        out[..8].copy_from_slice(&time.to_be_bytes());
        out
    }
}

/// The newest head that a device saw.
pub(super) type Mark = (u64, HeadHash);

/// What becomes of the local files when a device stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The process was killed.
    Killed,
    /// The power was cut: of these databases, what was not yet synced is lost.
    Power { index: bool, states: bool },
    /// The local files are gone.
    Everything,
    /// The whole machine is put back to an earlier copy of itself, its random numbers included.
    CopiedBack,
}

/// What came of moving a head.
enum Moved {
    Done,
    Faster,
    Gone,
}

pub(super) struct Device {
    pub(super) number: u8,
    place: PathBuf,
    cell: Arc<Mutex<Cell>>,
    pub(super) link: Arc<Link>,
    journal: Arc<Journal>,
    luck: Arc<Luck>,
    pub(super) repository: Option<Repository>,
    head: Option<Head>,
    /// The rollback memory: durable before anything that rests on it goes on.
    pub(super) memory: Option<Mark>,
    /// What is staged and not committed.
    pub(super) waits: Option<Staged>,
    /// The cell showed something older, and nobody accepted it yet.
    has_noticed: bool,
    /// Of the copy of the machine: what it remembered, and how many salts it had drawn.
    copied: Option<(Option<Mark>, u64)>,
    runs: i64,
}

/// The files below a folder.
pub(super) fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(one) = folders.pop() {
        for entry in fs::read_dir(&one).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap();
            found.insert(name.to_str().unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    found
}

impl Device {
    pub(super) fn new(
        number: u8,
        top: &Path,
        seed: u64,
        cell: &Arc<Mutex<Cell>>,
        journal: &Arc<Journal>,
    ) -> Self {
        let place = top.join(format!("device-{number}"));
        for part in ["files", "local", "scratch"] {
            fs::create_dir_all(place.join(part)).unwrap();
        }
        let (local, left) = (place.join("local"), place.join("left"));
        let link = Arc::new(Link::new(number, cell, journal, local, left));
        let device = Self {
            number,
            place,
            cell: Arc::clone(cell),
            link,
            journal: Arc::clone(journal),
            luck: Arc::new(Luck::new(seed * 256 + u64::from(number))),
            repository: None,
            head: None,
            memory: None,
            waits: None,
            has_noticed: false,
            copied: None,
            runs: 0,
        };
        device.touch(&device.folder());
        device
    }

    /// From now on it is always the same time for whoever makes a salt.
    pub(super) fn stop_clock(&self) {
        self.luck.is_clock_stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.place.join("files")
    }

    fn local(&self) -> PathBuf {
        self.place.join("local")
    }

    /// Gives what was changed the next time of the devices' clock.
    fn touch(&self, path: &Path) {
        let time = self.journal.tick();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(CLOCK_START_S + time);
        File::open(path).unwrap().set_modified(time).unwrap();
    }

    fn touch_with_parents(&self, path: &Path) {
        let folder = self.folder();
        for above in path.ancestors().skip(1) {
            self.touch(above);
            if above == folder {
                return;
            }
        }
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.touch(&path);
        self.touch_with_parents(&path);
    }

    pub(super) fn remove(&self, name: &str) {
        let path = self.folder().join(name);
        if fs::remove_file(&path).is_ok() {
            self.touch_with_parents(&path);
        }
    }

    fn fail(error: &dyn Error) -> Fail {
        let mut text = format!("{error:?}");
        let mut cause = error.source();
        while let Some(next) = cause {
            text.push_str(&format!(" <- {next:?}"));
            cause = next.source();
        }
        if text.contains("Unreachable") {
            Fail::NoAnswer
        } else if text.contains("Outdated") {
            Fail::Again
        } else if text.contains("Repository(Gone)") {
            Fail::Gone
        } else {
            Fail::Alarm(text)
        }
    }

    /// The process ends.
    pub(super) fn close(&mut self) {
        self.waits = None;
        self.repository = None;
    }

    /// Whether the cell's chain lacks the newest head that this device saw.
    pub(super) fn is_rolled_back(&self) -> bool {
        let cell = self.cell.lock().unwrap();
        self.memory.is_some_and(|(_, hash)| !cell.has_head(&hash))
    }

    /// A person accepted what the cell shows now: it is remembered anew where it is older.
    pub(super) fn accept_older(&mut self) {
        if self.is_rolled_back() {
            let head = self.cell.lock().unwrap().head();
            self.memory = head.map(|head| (head.counter, head.hash()));
        }
        self.has_noticed = false;
        self.close();
    }

    /// Compares what is shown with what was seen, as the client's memory does.
    fn compare(&self, shown: Option<&Head>) -> bool {
        match (self.memory, shown) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((counter, hash)), Some(head)) => {
                let is_same = head.hash() == hash;
                let is_next = head.counter == counter + 1 && head.previous == Some(hash);
                (head.counter == counter && is_same) || is_next || head.counter > counter + 1
            }
        }
    }

    fn remember(&mut self, head: &Head) -> Result<(), Fail> {
        let mark = (head.counter, head.hash());
        if self.memory == Some(mark) {
            return Ok(());
        }
        let memory = &mut self.memory;
        if self
            .link
            .local("remembers the head", || *memory = Some(mark))
        {
            Ok(())
        } else {
            Err(Fail::NoAnswer)
        }
    }

    fn read_head(&mut self) -> Result<(), Fail> {
        let shown = self.link.head().ok_or(Fail::NoAnswer)?;
        if !self.compare(shown.as_ref()) {
            self.has_noticed = true;
            self.journal
                .note(format!("d{} says: older than what I saw", self.number));
            return Err(Fail::Stale);
        }
        // The other device may have gone on so far that numbers tell nothing any more. Then it is up to the log,
        // which is not played here.
        self.has_noticed = false;
        if let Some(head) = &shown {
            self.remember(head)?;
        }
        self.head = shown;
        Ok(())
    }

    fn must_fit(&self) -> Result<(), Fail> {
        let counter = self.head.as_ref().map_or(0, |head| head.counter);
        let found = self.repository().manifest().counter;
        if found == counter {
            Ok(())
        } else {
            Err(Fail::Alarm(format!("head {counter}, manifest {found}")))
        }
    }

    pub(super) fn repository(&self) -> &Repository {
        self.repository.as_ref().expect("the vault is open")
    }

    /// A new process opens the vault.
    pub(super) fn open(&mut self) -> Result<(), Fail> {
        self.close();
        self.read_head()?;
        let manifest = self.head.as_ref().map(|head| head.manifest);
        let (keys, luck) = (Arc::clone(&self.journal.keys), Arc::clone(&self.luck));
        let index = self.local().join("index");
        let opened = Repository::open(keys, luck, manifest, &index, self.link.as_ref());
        self.repository = Some(opened.map_err(|error| Self::fail(&error))?);
        self.must_fit()
    }

    fn sink(&self) -> Arc<dyn ObjectSink> {
        Arc::clone(&self.link) as Arc<dyn ObjectSink>
    }

    fn job(&mut self) -> BackupJob {
        self.runs += 1;
        let seconds = (CLOCK_START_S + self.journal.tick() + 1_000_000) as i64;
        BackupJob {
            sources: vec![self.folder()],
            rules: Rules::default(),
            set: "documents".to_owned(),
            device: DeviceId::from_bytes([self.number; 16]),
            time: Millis(seconds * 1_000),
            stat_cache: self.local().join("states"),
        }
    }

    /// Runs a backup up to where the head would move.
    pub(super) fn stage_backup(&mut self) -> Result<(), Fail> {
        let job = self.job();
        let (sink, cancel) = (self.sink(), Cancel::default());
        let repository = self.repository.as_mut().expect("the vault is open");
        let outcome = backup::run(repository, &job, sink, &Quiet, &cancel);
        let outcome = outcome.map_err(|error| Self::fail(&error))?;
        if !outcome.problems.is_empty() {
            return Err(Fail::Alarm(format!("{:?}", outcome.problems)));
        }
        if let Some(staged) = outcome.staged {
            let name = self.journal.name_snapshot(outcome.snapshot.id);
            self.journal.note(format!("d{} staged {name}", self.number));
            self.journal
                .save(outcome.snapshot.id, files(&self.folder()));
            self.waits = Some(staged);
        }
        Ok(())
    }

    fn try_head(&mut self, staged: Staged) -> Result<Moved, Fail> {
        assert!(
            !self.has_noticed,
            "it signs nothing before a person accepted"
        );
        let next = Head {
            counter: self.head.as_ref().map_or(1, |head| head.counter + 1),
            previous: self.head.as_ref().map(Head::hash),
            manifest: staged.manifest(),
            device: self.number,
            time: self.journal.tick() as i64,
            condemned: staged.condemned().to_vec(),
        };
        if next.counter != staged.counter() {
            return Err(Fail::Alarm("the counters differ".to_owned()));
        }
        match self.link.swap(&next, staged.rescued()) {
            None => Err(Fail::NoAnswer),
            Some(Ok(())) => {
                if let Some(snapshot) = staged.snapshot() {
                    self.journal.acknowledge(snapshot.id);
                }
                self.remember(&next)?;
                self.head = Some(next);
                self.accept(staged)?;
                Ok(Moved::Done)
            }
            Some(Err(Refused::Conflict)) => {
                self.read_head()?;
                Ok(Moved::Faster)
            }
            Some(Err(Refused::Missing)) => Ok(Moved::Gone),
        }
    }

    fn accept(&mut self, staged: Staged) -> Result<(), Fail> {
        let repository = self.repository.as_mut().expect("the vault is open");
        let (mut staged, mut accepted) = (Some(staged), Ok(()));
        let done = self.link.local("accepts", || {
            if let Some(staged) = staged.take() {
                accepted = repository.accept(staged);
            }
        });
        accepted.map_err(|error| Self::fail(&error))?;
        if done { Ok(()) } else { Err(Fail::NoAnswer) }
    }

    fn advance(&mut self) -> Result<(), Fail> {
        let Some(manifest) = self.head.as_ref().map(|head| head.manifest) else {
            return Err(Fail::Again);
        };
        let repository = self.repository.as_mut().expect("the vault is open");
        let advanced = repository.advance(manifest, self.link.as_ref());
        advanced.map_err(|error| Self::fail(&error))?;
        self.must_fit()
    }

    /// Moves the head to what was staged. False: it has to be done again.
    pub(super) fn commit(&mut self) -> Result<bool, Fail> {
        let Some(staged) = self.waits.take() else {
            return Ok(true);
        };
        if staged.snapshot().is_some() {
            return self.add_snapshot(staged);
        }
        match self.try_head(staged)? {
            Moved::Done => Ok(true),
            Moved::Faster | Moved::Gone => {
                self.advance()?;
                Ok(false)
            }
        }
    }

    fn add_snapshot(&mut self, mut staged: Staged) -> Result<bool, Fail> {
        let snapshot = staged.snapshot().expect("it adds one").clone();
        for _ in 0..TRIES_MAX {
            match self.try_head(staged)? {
                Moved::Done => return Ok(true),
                Moved::Faster => {}
                Moved::Gone => {
                    self.advance()?;
                    return Ok(false);
                }
            }
            let Some(head) = self.head.as_ref().map(|head| head.manifest) else {
                return Err(Fail::Again);
            };
            let repository = self.repository.as_mut().expect("the vault is open");
            let link = self.link.as_ref();
            match repository.rebase(snapshot.clone(), head, link, link) {
                Ok(Some(again)) => staged = again,
                Ok(None) => {
                    self.journal.acknowledge(snapshot.id);
                    return Ok(true);
                }
                Err(crate::RepositoryError::Outdated) => return Ok(false),
                Err(error) => return Err(Self::fail(&error)),
            }
        }
        Err(Fail::Again)
    }

    /// The whole command.
    pub(super) fn back_up(&mut self) -> Result<(), Fail> {
        self.open()?;
        for _ in 0..TRIES_MAX {
            self.stage_backup()?;
            if self.commit()? {
                return Ok(());
            }
        }
        Err(Fail::Again)
    }

    fn change(
        &mut self,
        mut stage: impl FnMut(&mut Self) -> Result<Option<Staged>, Fail>,
    ) -> Result<bool, Fail> {
        for _ in 0..TRIES_MAX {
            self.waits = stage(self)?;
            if self.waits.is_none() {
                return Ok(false);
            }
            if self.commit()? {
                return Ok(true);
            }
        }
        Err(Fail::Again)
    }

    /// Takes snapshots off the list, if they are on it.
    pub(super) fn forget(&mut self, ids: &[SnapshotId]) -> Result<(), Fail> {
        self.open()?;
        self.change(|device| {
            let listed = device.snapshots();
            if !ids.iter().any(|id| listed.contains(id)) {
                return Ok(None);
            }
            device.journal.forget(ids);
            let staged = device.repository().stage_forget(ids, device.link.as_ref());
            staged.map(Some).map_err(|error| Self::fail(&error))
        })
        .map(|_| ())
    }

    /// One round of pruning up to where the head would move.
    pub(super) fn stage_prune(&mut self, rules: &PruneRules) -> Result<Option<Staged>, Fail> {
        let (sink, cancel) = (self.sink(), Cancel::default());
        let source = self.link.as_ref();
        let pruned = prune::run(self.repository(), rules, &sink, source, &Quiet, &cancel);
        Ok(pruned.map_err(|error| Self::fail(&error))?.staged)
    }

    pub(super) fn prune(&mut self, rules: &PruneRules) -> Result<(), Fail> {
        self.open()?;
        self.change(|device| device.stage_prune(rules)).map(|_| ())
    }

    /// Puts one of the forgotten snapshots on the list again: the one that `choose` names, if there is one.
    pub(super) fn bring_back(
        &mut self,
        choose: impl Fn(&[SnapshotId]) -> Option<SnapshotId>,
    ) -> Result<(), Fail> {
        self.open()?;
        let mut chosen = None;
        let moved = self.change(|device| {
            let (repository, link) = (device.repository(), device.link.as_ref());
            let found = prune::forgotten(repository, &[], false, link);
            let found = found.map_err(|error| Self::fail(&error))?;
            let ids: Vec<SnapshotId> = found.iter().map(|one| one.entry.id).collect();
            chosen = choose(&ids);
            let Some(at) = ids.iter().position(|id| Some(*id) == chosen) else {
                return Ok(None);
            };
            let cancel = Cancel::default();
            let back = prune::bring_back(repository, &found[at..=at], link, link, &Quiet, &cancel);
            back.map(Some).map_err(|error| Self::fail(&error))
        })?;
        if let Some(id) = chosen.filter(|_| moved) {
            self.journal.remember_again(id);
        }
        Ok(())
    }

    pub(super) fn snapshots(&self) -> Vec<SnapshotId> {
        let listed = self.repository().manifest().snapshots.iter();
        listed.map(|one| one.id).collect()
    }

    /// The machine is copied while no command runs.
    pub(super) fn copy(&mut self) {
        self.close();
        copy_files(&self.local(), &self.place.join("copy"));
        let salts = self.luck.salts.load(Ordering::Relaxed);
        self.copied = Some((self.memory, salts));
    }

    /// The device starts again after it stopped.
    pub(super) fn start_again(&mut self, loss: Loss) {
        let local = self.local();
        self.close();
        if self.link.is_dead() {
            copy_files(&self.place.join("left"), &local);
        }
        match (loss, self.copied) {
            (Loss::Killed, _) | (Loss::CopiedBack, None) => {}
            (Loss::Power { index, states }, _) => {
                for (is_lost, name) in [(index, "index-wal"), (states, "states-wal")] {
                    if is_lost {
                        // There may be none.
                        let _ = fs::remove_file(local.join(name));
                    }
                }
            }
            (Loss::Everything, _) => copy_files(&self.place.join("scratch"), &local),
            (Loss::CopiedBack, Some((memory, salts))) => {
                copy_files(&self.place.join("copy"), &local);
                self.memory = memory;
                self.luck.salts.store(salts, Ordering::Relaxed);
            }
        }
        self.link.revive();
    }

    /// Restores a snapshot into a new directory.
    pub(super) fn restore(&self, root: ChunkId) -> Result<(RestoreOutcome, Files), Fail> {
        let top = TempDir::new_in(&self.place).unwrap();
        let job = RestoreJob {
            root,
            paths: Vec::new(),
            target: top.path().join("target"),
            scratch: self.place.join("scratch"),
            privileged: false,
            durable: false,
        };
        let (source, cancel) = (self.link.as_ref(), Cancel::default());
        let outcome = restore::run(self.repository(), &job, source, &Quiet, &cancel);
        let outcome = outcome.map_err(|error| Self::fail(&error))?;
        Ok((outcome, files(&job.target.join("files"))))
    }

    pub(super) fn check(&self) -> check::CheckReport {
        let (source, cancel) = (self.link.as_ref(), Cancel::default());
        check::run(self.repository(), source, true, &Quiet, &cancel).unwrap()
    }

    /// Objects of the local index, for what is found out beside the product.
    pub(super) fn place_of(&self, content: &[u8]) -> Option<ObjectId> {
        let id = ChunkId::of(self.repository().keys(), content);
        let place = self.repository().index().locate(&id).unwrap();
        place.map(|place| place.pack)
    }
}
