//! The folder of an export: which one may be written to, and who writes.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::commands::{Failure, FailureKind};
use crate::durable::{self, FILE_MODE};
use crate::engine::Engine;

/// Is there while an export is not done, or lacks something that may still come.
const UNFINISHED: &str = "UNFINISHED.txt";

/// Permission bits of every folder that is made: what is in it is readable.
const FOLDER_MODE: u32 = 0o700;

/// How often the marker is looked for, when another export ends in between.
const TRIES_MAX: u32 = 3;

/// More than a marker is.
const MARKER_MAX_BYTES: u64 = 4096;

/// What follows the line that says whose export it is.
const MARKER_TEXT: &str = "It is not done, or lacks something: export.json, if it is there, says what. The same command in the same place goes on.\n";

/// A folder that nobody else exports to, as long as this lasts.
pub(super) struct Target {
    pub(super) path: PathBuf,
    marker: File,
}

pub(super) fn cannot_write(path: &Path, error: &(dyn std::error::Error + 'static)) -> Failure {
    let sentence = format!("{} cannot be written", path.display());
    Failure::new(FailureKind::Failed, sentence)
        .with_hint("run the same command again once it can be: it goes on where it stopped")
        .because(error)
}

/// Makes a folder in one that is there. What is there already has to be a folder, and no link to one.
pub(super) fn make_folder(path: &Path) -> Result<(), Failure> {
    let mut builder = DirBuilder::new();
    let made = builder.mode(FOLDER_MODE).create(path);
    let made = match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(path) {
                Ok(there) if there.is_dir() => Ok(()),
                _ => Err(error),
            }
        }
        made => made,
    };
    made.map_err(|error| cannot_write(path, &error))
}

/// A path without links, as far as it is there.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Err(error), Some(above), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(resolved(above)?.join(name))
        }
        (found, ..) => found,
    }
}

fn refused(path: &Path, what: &str, hint: &str) -> Failure {
    Failure::new(FailureKind::Usage, format!("{} {what}", path.display())).with_hint(hint)
}

impl Target {
    /// A folder with nothing in it, or with an export of this account that is not done.
    pub(super) fn take(engine: &Engine, path: &Path) -> Result<Self, Failure> {
        let elsewhere = "name a folder elsewhere";
        if !path.is_absolute() {
            return Err(refused(path, "is not an absolute path", "name a folder"));
        }
        let new = "name a folder that is empty, or not there yet";
        let place = resolved(path)
            .map_err(|error| refused(path, "cannot be used as a folder", new).because(&error))?;
        if let Some(source) = engine.source_around(&place)? {
            let what = format!(
                "is in {}, which is backed up or synced: everything would be sent again, and be readable there",
                source.display()
            );
            return Err(refused(path, &what, elsewhere));
        }
        let home = resolved(engine.home.path()).map_err(|error| Failure::of(&error))?;
        if place.starts_with(home) {
            return Err(refused(path, "is in candor's own folder", elsewhere));
        }
        if place.exists() && !place.is_dir() {
            return Err(refused(path, "is not a folder", new));
        }
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(FOLDER_MODE).create(&place);
        made.map_err(|error| cannot_write(&place, &error))?;
        let owner = format!("Export of account {}\n", engine.facts.account);
        for _ in 0..TRIES_MAX {
            let marker = open_marker(&place)?;
            match marker.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(busy(&place)),
                // A file system without locks: whoever exports twice at once there is on their own.
                Err(TryLockError::Error(_)) => {}
            }
            if !is_still(&place, &marker)? {
                continue;
            }
            let mut target = Self {
                path: place,
                marker,
            };
            return target.begin(&owner).map(|()| target);
        }
        Err(busy(&place))
    }

    /// Whose export this is, if it is an old one; says so in a new one.
    fn begin(&mut self, owner: &str) -> Result<(), Failure> {
        let failed = |error: io::Error| cannot_write(&self.path, &error);
        let mut text = String::new();
        let read = (&self.marker)
            .take(MARKER_MAX_BYTES)
            .read_to_string(&mut text);
        if read.is_ok() && text.starts_with(owner) {
            return Ok(());
        }
        let new = "name a folder that is empty, or not there yet";
        if !text.is_empty() || read.is_err() {
            return Err(refused(
                &self.path,
                "holds an export of another account",
                new,
            ));
        }
        // Just made, or made and not written to. There is nothing beside it then.
        if fs::read_dir(&self.path).map_err(failed)?.count() > 1 {
            fs::remove_file(self.path.join(UNFINISHED)).map_err(failed)?;
            return Err(refused(&self.path, "is not empty", new));
        }
        let marker = &mut self.marker;
        marker
            .rewind()
            .and_then(|()| marker.write_all(format!("{owner}{MARKER_TEXT}").as_bytes()))
            .and_then(|()| marker.sync_all())
            .and_then(|()| durable::sync_folder_of(&self.path.join(UNFINISHED)))
            .map_err(failed)
    }

    /// Nothing is missing.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let marker = self.path.join(UNFINISHED);
        fs::remove_file(&marker)
            .and_then(|()| durable::sync_folder_of(&marker))
            .map_err(|error| cannot_write(&marker, &error))
    }
}

fn busy(place: &Path) -> Failure {
    let sentence = format!("another export is being written to {}", place.display());
    Failure::new(FailureKind::Failed, sentence).with_hint("wait until it is done")
}

fn open_marker(place: &Path) -> Result<File, Failure> {
    let path = place.join(UNFINISHED);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(|error| cannot_write(&path, &error))
}

/// Whether the marker that is open is the one that is there: another export may have ended in between.
fn is_still(place: &Path, marker: &File) -> Result<bool, Failure> {
    let open = marker.metadata().map_err(|error| Failure::of(&error))?;
    match fs::symlink_metadata(place.join(UNFINISHED)) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::of(&error)),
    }
}
