//! Old versions of what is in synced folders: which there are, and having one back.
//!
//! A version that comes back takes the place of what is there now only if that is in the vault too: a round goes
//! before, and what is there is looked at again when it is exchanged. Otherwise nothing is done.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use candor_consent::Sync;
use candor_vault::node::{Entry, Kind};
use candor_vault::report::Cancel;
use candor_vault::restore::RestoreJob;
use candor_vault::sync::OWN_FOLDER;
use candor_vault::{SnapshotEntry, browse};
use candor_wire::errand::Purpose;

use crate::browse_flow::{browse_failed, kind_name};
use crate::commands::{Event, Failure, FailureKind, VersionView, View};
use crate::device_store::SyncedFolder;
use crate::engine::Engine;
use crate::events::pump;
use crate::path_text::PathText;
use crate::restore_flow::{Session, ambiguous};
use crate::sys;

/// Fewest digits of a version that name it.
const VERSION_DIGITS_MIN: usize = 1;

/// Where a path lies: the folder, and the path from its top.
struct Spot {
    folder: SyncedFolder,
    relative: PathBuf,
}

fn failed(sentence: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Failed, sentence.into())
}

impl Engine {
    fn spot(&self, path: &PathText) -> Result<Spot, Failure> {
        let path = path.to_path();
        let folders = self.store().folders()?;
        let found = folders.into_iter().find_map(|folder| {
            let relative = path.strip_prefix(&folder.path).ok()?.to_path_buf();
            Some(Spot { folder, relative })
        });
        found
            .filter(|spot| !spot.relative.as_os_str().is_empty())
            .ok_or_else(|| {
                let sentence = format!("{} is in no synced folder", path.display());
                Failure::new(FailureKind::Usage, sentence)
                    .with_hint("`candor sync status` shows the folders")
            })
    }

    /// The versions of a path, the newest first (errand: restore).
    pub(crate) fn sync_versions(&self, path: &PathText, cancel: &Cancel) -> Result<View, Failure> {
        let spot = self.spot(path)?;
        let versions = self.read_back(Purpose::Restore, &mut |_| (), cancel, |session| {
            self.versions_of(session, &spot)
        })?;
        Ok(View::Versions(versions))
    }

    fn versions_of(&self, session: &Session<'_>, spot: &Spot) -> Result<Vec<VersionView>, Failure> {
        let Some(vault) = spot.folder.vault else {
            return Ok(Vec::new());
        };
        let held = session.open(vault)?;
        let repository = &held.open.repository;
        let reader = held.open.random_reader();
        let mut views: Vec<VersionView> = Vec::new();
        let mut before: Option<Entry> = None;
        for snapshot in &repository.manifest().snapshots {
            let entry = browse::entry(&reader, snapshot.root, &spot.relative)
                .map_err(|error| browse_failed(&error))?;
            let is_same = match (&before, &entry) {
                (None, None) => true,
                (Some(a), Some(b)) => a.kind == b.kind && a.metadata == b.metadata,
                _ => false,
            };
            if !is_same {
                views.push(self.version_view(snapshot, entry.as_ref()));
                before = entry;
            }
            session.done()?;
        }
        if let Some(newest) = views.last_mut() {
            newest.current = true;
        }
        views.reverse();
        Ok(views)
    }

    fn version_view(&self, snapshot: &SnapshotEntry, entry: Option<&Entry>) -> VersionView {
        VersionView {
            version: snapshot.id.to_string(),
            time_ms: snapshot.time.0,
            device: self.device_called(Some(snapshot.device)),
            kind: entry
                .map_or("removed", |entry| kind_name(&entry.kind))
                .to_owned(),
            bytes: match entry.map(|entry| &entry.kind) {
                Some(Kind::File { size, .. }) => *size,
                _ => 0,
            },
            current: false,
        }
    }

    /// Brings a version back: to its place, or into a folder that is named (errand: restore).
    pub(crate) fn sync_restore(
        &self,
        path: &PathText,
        version: &str,
        to: Option<&PathText>,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let spot = self.spot(path)?;
        let is_digits = version.len() >= VERSION_DIGITS_MIN
            && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_digits {
            let sentence = format!("{version:?} names no version");
            return Err(Failure::new(FailureKind::Usage, sentence)
                .with_hint("write the beginning of one that `candor sync versions PATH` shows"));
        }
        let place = spot.folder.path.join(&spot.relative);
        let before = match to {
            Some(_) => None,
            None => self.save_first(&spot, &place, events, cancel)?,
        };
        let target = match to {
            Some(to) => to.to_path(),
            None => self.room_in(&spot.folder)?,
        };
        let restored = self.restore_version(&spot, version, &target, events, cancel);
        if to.is_some() {
            return restored.map(|()| View::Done);
        }
        let done = restored
            .and_then(|()| put_in_place(&target.join(&spot.relative), &place, before.as_ref()));
        // What was taken out of its place is in the vault; what cannot be removed is in nobody's way.
        let _ = fs::remove_dir_all(&target);
        done.map(|()| View::Done)
    }

    /// Brings the folder into step, so that what is in the place now is in the vault. Returns what it is.
    fn save_first(
        &self,
        spot: &Spot,
        place: &Path,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<Option<Metadata>, Failure> {
        let there = match fs::symlink_metadata(place) {
            Ok(there) => there,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::of(&error)),
        };
        let elsewhere = "have it elsewhere: `--to DIR`";
        if there.is_dir() {
            let sentence = format!("{} is there, and is a folder", place.display());
            return Err(failed(sentence).with_hint(elsewhere));
        }
        if spot.folder.is_paused || self.grant_in::<Sync>(spot.folder.vault)?.is_err() {
            let sentence = format!(
                "{} is not kept in step now, so what is there would be lost",
                spot.folder.name
            );
            return Err(failed(sentence).with_hint(elsewhere));
        }
        let stop = Cancel::default();
        let view = pump(events, cancel, &stop, |events| {
            self.sync_until_quiet(&spot.folder, events, &stop)
        })?;
        if view.problems > 0 {
            return Err(
                failed("some files could not be kept in step; nothing was replaced")
                    .with_hint(elsewhere),
            );
        }
        fs::symlink_metadata(place)
            .map(Some)
            .map_err(|error| Failure::of(&error))
    }

    /// A new folder within the synced one's hidden folder: on the same disk, and never synced.
    fn room_in(&self, folder: &SyncedFolder) -> Result<PathBuf, Failure> {
        let mut random = [0; 8];
        self.entropy
            .fill(&mut random)
            .map_err(|error| Failure::of(&error))?;
        let name = format!("restore-{}", candor_wire::ids::to_hex(&random));
        let room = folder.path.join(OWN_FOLDER).join(name);
        fs::create_dir(&room).map_err(|error| Failure::of(&error))?;
        Ok(room)
    }

    fn restore_version(
        &self,
        spot: &Spot,
        version: &str,
        target: &Path,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let scratch = self.scratch()?;
        self.read_back(Purpose::Restore, events, cancel, |session| {
            let vault = spot
                .folder
                .vault
                .ok_or_else(|| failed("there is no version yet"))?;
            let held = session.open(vault)?;
            let open = &held.open;
            let version = version.to_ascii_lowercase();
            let listed = &open.repository.manifest().snapshots;
            let mut matching = listed
                .iter()
                .filter(|entry| entry.id.to_string().starts_with(&version));
            let entry = matching.next().ok_or_else(|| {
                Failure::new(FailureKind::Usage, "there is no such version")
                    .with_hint("`candor sync versions PATH` lists them")
            })?;
            if matching.next().is_some() {
                return Err(ambiguous());
            }
            let job = RestoreJob {
                root: entry.root,
                paths: vec![spot.relative.clone()],
                target: target.to_owned(),
                scratch,
                privileged: false,
                durable: true,
            };
            let outcome = session.restore(open, &job)?;
            let problems = crate::backup_flow::tell_problems(&outcome.problems, session.events);
            if problems > 0 {
                return Err(failed(
                    "the version could not be restored in full; nothing was replaced",
                ));
            }
            Ok(())
        })
    }
}

/// Whether a file is what it was.
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    let key = |m: &Metadata| (m.ino(), m.len(), m.mtime(), m.mtime_nsec());
    key(a) == key(b)
}

/// Puts what was restored in its place, if that still is what it was before.
fn put_in_place(new: &Path, place: &Path, before: Option<&Metadata>) -> Result<(), Failure> {
    let changed = || {
        failed(format!(
            "{} was changed meanwhile; it was left as it is",
            place.display()
        ))
        .with_hint("run it again")
    };
    let Some(before) = before else {
        if let Some(above) = place.parent() {
            fs::create_dir_all(above).map_err(|error| Failure::of(&error))?;
        }
        return sys::rename_new(new, place).map_err(|error| {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                changed()
            } else {
                Failure::of(&error)
            }
        });
    };
    sys::exchange(new, place).map_err(|error| Failure::of(&error))?;
    let out = fs::symlink_metadata(new).map_err(|error| Failure::of(&error))?;
    if is_same(&out, before) {
        return Ok(());
    }
    sys::exchange(new, place).map_err(|error| Failure::of(&error))?;
    Err(changed())
}
