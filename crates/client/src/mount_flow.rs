//! `candor backup mount`: an errand that lasts until the person ends it.
//!
//! No vault is held meanwhile: backups and prunes go on. What a mounted snapshot needs stays at the cell
//! for as long as it is listed, and for the retention window after that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candor_vault::RandomReader;
use candor_vault::report::Cancel;
use candor_wire::VaultId;
use candor_wire::errand::Purpose;
use candor_wire::limits::ERRAND_MAX_MS;
use fuser::BackgroundSession;

use crate::commands::{Event, Failure, FailureKind, Problem, View};
use crate::engine::Engine;
use crate::mount::filesystem::{self, Mounted};
use crate::mount::{Catalog, Keeper, Shelf, Trouble, Way, Work};
use crate::path_text::PathText;
use crate::restore_flow::Session;

/// When the errand is renewed without being asked: half of the time for which it is good.
const ERRAND_AGE: Duration = Duration::from_millis(ERRAND_MAX_MS as u64 / 2);

/// Of how many paths problems are told: somebody may read all of a damaged vault.
const TOLD_MAX: usize = 10_000;

/// One vault that is mounted.
struct MountedVault {
    vault: VaultId,
    way: Arc<Way>,
    reader: Arc<RandomReader>,
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
        let sets = self.store().sets()?.into_iter().flat_map(|set| set.paths);
        let folders = self.store().folders()?.into_iter().map(|one| one.path);
        if let Some(source) = sets.chain(folders).find(|path| target.starts_with(path)) {
            return Err(usage(&format!(
                "is in {}, which is backed up or synced: snapshots would go into the next one",
                source.display()
            )));
        }
        Ok(target)
    }
}

impl Mount<'_> {
    fn run(&mut self, target: &Path) -> Result<View, Failure> {
        self.open_vaults()?;
        self.look()?;
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
            let reader = Arc::new(RandomReader::new(&held.open.repository, source));
            self.vaults.push(MountedVault { vault, way, reader });
        }
        match damaged {
            Some(failure) if self.vaults.is_empty() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Puts together which snapshots there are now. Those of a vault that a run is busy with stay as they were.
    fn look(&self) -> Result<(), Failure> {
        let mut catalog = Catalog::default();
        for one in &self.vaults {
            let held = self.session.open(one.vault)?;
            catalog.add(&held.open.repository.manifest().snapshots, &one.reader);
        }
        self.shelf.put(catalog.finish());
        self.keeper.listed();
        Ok(())
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

    /// Looks for new snapshots; while there is no way to the cell, those that were known stay.
    fn refresh(&self) {
        if self
            .vaults
            .iter()
            .any(|one| !self.session.is_free(one.vault))
        {
            return;
        }
        if let Err(failure) = self.look()
            && failure.kind == FailureKind::Integrity
        {
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
    if background.guard.is_finished() || background.umount_and_join().is_ok() {
        return Ok(());
    }
    // In use. It goes from the tree now, and whoever is in it gets errors.
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
