//! `candor backup mount`: an errand that lasts until the person ends it.
//!
//! No vault is held meanwhile: backups and prunes go on. What a mounted snapshot needs stays at the cell
//! for as long as it is listed, and for the retention window after that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candor_vault::report::Cancel;
use candor_vault::{RandomReader, SnapshotEntry};
use candor_wire::VaultId;
use candor_wire::errand::Purpose;
use candor_wire::limits::ERRAND_MAX_MS;
use fuser::BackgroundSession;

use crate::commands::{Event, Failure, FailureKind, Problem, View};
use crate::engine::{Engine, lock};
use crate::mount::filesystem::{self, Mounted};
use crate::mount::{Catalog, Keeper, Shelf, Trouble, Way, Work};
use crate::path_text::PathText;
use crate::restore_flow::Session;

/// When the errand is renewed without being asked: half of the time for which it is good.
pub(crate) const ERRAND_AGE: Duration = Duration::from_millis(ERRAND_MAX_MS as u64 / 2);

/// How long the end of a mount is waited for.
const UNMOUNT_WAIT: Duration = Duration::from_secs(3);

/// Of how many paths problems are told: somebody may read all of a damaged vault.
const TOLD_MAX: usize = 10_000;

/// One vault that is mounted.
struct MountedVault {
    vault: VaultId,
    way: Arc<Way>,
    reader: Arc<RandomReader>,
    /// The newest keys that the reader has.
    epoch: u32,
    /// What it listed when it was last opened.
    snapshots: Vec<SnapshotEntry>,
}

/// A mount, seen from the command's thread.
struct Mount<'e> {
    session: Session<'e>,
    since: Instant,
    keeper: Keeper,
    shelf: Shelf,
    vaults: Vec<MountedVault>,
    /// Paths of which a problem was told: whoever reads tries again.
    told: BTreeSet<String>,
}

/// Says where a mount is, as long as it lasts.
struct MountMark<'e> {
    engine: &'e Engine,
    target: PathBuf,
}

impl<'e> MountMark<'e> {
    fn put(engine: &'e Engine, target: &Path) -> Self {
        lock(&engine.mounts).push(target.to_owned());
        Self {
            engine,
            target: target.to_owned(),
        }
    }
}

impl Drop for MountMark<'_> {
    fn drop(&mut self) {
        lock(&self.engine.mounts).retain(|mount| *mount != self.target);
    }
}

impl Engine {
    /// Shows all snapshots as folders below `to`, until the person stops it or unmounts it.
    pub(crate) fn backup_mount(
        &self,
        to: &PathText,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let target = self.mount_target(&to.to_path())?;
        let stop = Cancel::default();
        let _mark = MountMark::put(self, &target);
        crate::events::pump(events, cancel, &stop, |events| {
            let session = Session::begin(self, Purpose::Restore, events, &stop)?;
            let mut mount = Mount {
                session,
                since: Instant::now(),
                keeper: Keeper::default(),
                shelf: Shelf::default(),
                vaults: Vec::new(),
                told: BTreeSet::new(),
            };
            mount.run(&target)
        })
    }

    /// Where to mount: a folder that is there, with nothing in it, and nothing that is backed up.
    fn mount_target(&self, path: &Path) -> Result<PathBuf, Failure> {
        let usage = |what: &str| {
            Failure::new(FailureKind::Usage, format!("{} {what}", path.display()))
                .with_hint("name an empty folder: `mkdir DIR` makes one")
        };
        let target = fs::canonicalize(path)
            .map_err(|error| usage("cannot be used as a folder").because(&error))?;
        let mut inside =
            fs::read_dir(&target).map_err(|error| usage("is no folder").because(&error))?;
        if inside.next().is_some() {
            return Err(usage("is not empty"));
        }
        if let Some(source) = self.source_around(&target)? {
            return Err(usage(&format!(
                "is in {}, which is backed up or synced: snapshots would go into the next one",
                source.display()
            )));
        }
        Ok(target)
    }

    /// Snapshots that are mounted are not backed up or synced themselves.
    pub(crate) fn must_hold_no_mount(&self, source: &Path) -> Result<(), Failure> {
        let source = real(source);
        let lie_in_each_other =
            |mount: &&PathBuf| mount.starts_with(&source) || source.starts_with(mount);
        let mounts = lock(&self.mounts);
        let Some(inside) = mounts.iter().find(lie_in_each_other) else {
            return Ok(());
        };
        let sentence = format!(
            "snapshots are mounted at {}, which it has in it or lies in",
            inside.display()
        );
        Err(Failure::new(FailureKind::Usage, sentence)
            .with_hint("end that mount, or choose another folder"))
    }

    /// What is backed up or synced and has `place` in it: the path of a set, or a folder.
    pub(crate) fn source_around(&self, place: &Path) -> Result<Option<PathBuf>, Failure> {
        let sets = self.store().sets()?.into_iter().flat_map(|set| set.paths);
        let folders = self.store().folders()?.into_iter().map(|one| one.path);
        Ok(sets
            .chain(folders)
            .find(|path| place.starts_with(real(path))))
    }
}

/// A path without links; as it is if it is not there now.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

impl Mount<'_> {
    fn run(&mut self, target: &Path) -> Result<View, Failure> {
        self.open_vaults()?;
        self.show();
        self.keeper.listed();
        let catalog = self.shelf.get();
        let filesystem = Mounted::new(
            self.shelf.clone(),
            self.keeper.clone(),
            self.session.engine.now(),
        );
        let background = fuser::spawn_mount(filesystem, target, &filesystem::config())
            .map_err(|error| cannot_mount(target, &error))?;
        self.session.events.step(format!(
            "mounted at {}, read-only: {} of {}; Ctrl-C or `umount` ends it",
            target.display(),
            counted(catalog.snapshots(), "snapshot", "snapshots"),
            counted(catalog.sets.len(), "set", "sets"),
        ));
        let result = self.serve(&background);
        self.keeper.end();
        unmount(target, background)?;
        result.map(|()| View::Done)
    }

    /// Opens every vault once. One that is damaged is told, and hides nothing in the others.
    fn open_vaults(&mut self) -> Result<(), Failure> {
        let mut damaged = None;
        for vault in self.session.vaults()? {
            let held = match self.session.open(vault) {
                Ok(held) => held,
                Err(failure) if failure.kind == FailureKind::Integrity => {
                    let failure = self.session.engine.alarmed(failure);
                    let text = format!("vault {vault} is left out: {}", failure.sentence);
                    self.session.events.step(text);
                    damaged.get_or_insert(failure);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let objects = Arc::clone(&held.open.objects);
            let way = Arc::new(Way::new(objects, self.keeper.clone()));
            let source: Arc<dyn candor_vault::ObjectSource> = Arc::clone(&way) as _;
            let repository = &held.open.repository;
            self.vaults.push(MountedVault {
                vault,
                way,
                reader: Arc::new(RandomReader::new(repository, source)),
                epoch: repository.keys().current_epoch(),
                snapshots: repository.manifest().snapshots.clone(),
            });
        }
        match damaged {
            Some(failure) if self.vaults.is_empty() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Shows what was listed when each vault was last opened.
    fn show(&self) {
        let mut catalog = Catalog::default();
        for one in &self.vaults {
            catalog.add(&one.snapshots, &one.reader);
        }
        self.shelf.put(catalog.finish());
    }

    /// Does what readers ask for, until the person or the system ends the mount.
    fn serve(&mut self, background: &BackgroundSession) -> Result<(), Failure> {
        loop {
            if self.session.cancel.is_cancelled() || background.guard.is_finished() {
                return Ok(());
            }
            if self.since.elapsed() > ERRAND_AGE {
                self.connect();
            }
            match self.keeper.next() {
                Work::Look => {}
                Work::Connect => self.connect(),
                Work::List => {
                    self.refresh();
                    self.keeper.listed();
                }
                Work::Tell(problems) => self.tell(problems)?,
            }
        }
    }

    /// A new errand over a new connection. If there is none, whoever waits gets an error, and asks again later.
    fn connect(&mut self) {
        let session = &self.session;
        let begun = Session::begin(
            session.engine,
            Purpose::Restore,
            session.events,
            session.cancel,
        );
        match begun {
            Ok(session) => {
                for one in &self.vaults {
                    let api = Arc::clone(&session.api);
                    let objects = session.engine.objects(api, one.vault, session.cancel);
                    one.way.replace(objects);
                }
                self.session = session;
            }
            Err(failure) => {
                let failure = session.engine.alarmed(failure);
                session.events.step(failure.sentence);
            }
        }
        self.since = Instant::now();
        self.keeper.connected();
    }

    /// Looks for new snapshots. Those of a vault that a run is busy with, or that cannot be opened, stay as they were.
    fn refresh(&mut self) {
        let session = &self.session;
        let synced = session.engine.sync_chain(&session.api);
        if let Err(failure) = synced {
            self.told_once(failure);
            return;
        }
        for place in 0..self.vaults.len() {
            if let Err(failure) = self.refresh_one(place) {
                self.told_once(failure);
            }
        }
        self.show();
    }

    fn refresh_one(&mut self, place: usize) -> Result<(), Failure> {
        let one = &mut self.vaults[place];
        let Some(held) = self.session.open_if_free(one.vault)? else {
            return Ok(());
        };
        let repository = &held.open.repository;
        let epoch = repository.keys().current_epoch();
        if epoch != one.epoch {
            // What is open goes on with the reader that it has; its snapshots are of the keys before.
            let source: Arc<dyn candor_vault::ObjectSource> = Arc::clone(&one.way) as _;
            one.reader = Arc::new(RandomReader::new(repository, source));
            one.epoch = epoch;
        }
        one.snapshots.clone_from(&repository.manifest().snapshots);
        Ok(())
    }

    /// A cell that is away is no news; anything wrong is told, and told once.
    fn told_once(&mut self, failure: Failure) {
        let is_news = failure.kind == FailureKind::Integrity;
        if is_news && self.told.insert(failure.sentence.clone()) {
            let failure = self.session.engine.alarmed(failure);
            self.session.events.step(failure.sentence);
        }
    }

    fn tell(&mut self, problems: Vec<Trouble>) -> Result<(), Failure> {
        for problem in problems {
            if self.told.len() >= TOLD_MAX || !self.told.insert(problem.path.clone()) {
                continue;
            }
            if problem.is_integrity {
                let text = format!("{}: {}", problem.path, problem.what);
                self.session.engine.ledger.alarm(&text)?;
            }
            self.session.events.send(Event::Problem(Problem {
                path: PathText::from_bytes(problem.path.as_bytes()),
                what: problem.what,
            }));
        }
        Ok(())
    }
}

fn cannot_mount(target: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        FailureKind::Failed,
        format!("nothing can be mounted at {}", target.display()),
    )
    .with_hint("the system needs FUSE: /dev/fuse, and for everybody but root `fusermount3` (Debian: apt install fuse3)")
    .because(error)
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Ends a mount.
fn unmount(target: &Path, background: BackgroundSession) -> Result<(), Failure> {
    // Somebody unmounted it; perhaps something else is mounted there by now.
    if background.guard.is_finished() {
        return Ok(());
    }
    // Of one that is in use, `fusermount3` takes away the name alone, and the connection lasts as long as its users.
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(background.umount_and_join().is_ok()));
    match ended.recv_timeout(UNMOUNT_WAIT) {
        Ok(true) | Err(_) => return Ok(()),
        Ok(false) => {}
    }
    // In use, and root's own. It goes from the tree now, and whoever is in it gets errors.
    let detached = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
    detached.map_err(|error| {
        Failure::new(
            FailureKind::Failed,
            format!("{} cannot be unmounted", target.display()),
        )
        .with_hint(format!("`umount --lazy {}` does it", target.display()))
        .because(&error)
    })
}
