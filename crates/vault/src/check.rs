//! Checks a vault: that every object is there, every directory can be read, every chunk has a
//! place, and, when asked for, that every stored byte is what its name promises.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use candor_wire::ObjectId;
use candor_wire::limits::HAS_MAX_IDS;

use crate::index::IndexError;
use crate::manifest::SnapshotId;
use crate::node::{Item, Kind, References};
use crate::ports::{ObjectSource, Presence, SourceError};
use crate::reader::{ReadError, Reader, fetch};
use crate::report::{Cancel, PROBLEMS_MAX, Progress};
use crate::repository::Repository;
use crate::seen::{SeenSet, directory_key};
use crate::tree::{self, ReferenceReader, Step, TreeError, TreeWalk};

/// Why a check could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The cell did not answer.
    #[error("the cell could not be asked for its objects")]
    Source(#[source] SourceError),
    /// The local index failed.
    #[error("the local index failed")]
    Index(#[source] IndexError),
    /// The list of checked directories could not be kept.
    #[error("the list of checked directories could not be kept on disk")]
    Scratch(#[source] rusqlite::Error),
    /// The check was asked to stop.
    #[error("the check was stopped")]
    Cancelled,
}

impl From<rusqlite::Error> for CheckError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Scratch(error)
    }
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The cell does not have it.
    Missing,
    /// Its bytes are not what its name promises, or do not open.
    Altered,
}

/// An object that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedObject {
    /// Its name.
    pub object: ObjectId,
    /// What is wrong with it.
    pub damage: Damage,
}

/// A file or directory that cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The first snapshot in which it was met.
    pub snapshot: SnapshotId,
    /// Its path in the snapshot; empty: the whole snapshot.
    pub path: PathBuf,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Snapshots whose trees were walked.
    pub snapshots: u64,
    /// Distinct directories.
    pub directories: u64,
    /// Files in them.
    pub files: u64,
    /// Packs of the index.
    pub packs: u64,
    /// Sealed bytes that were fetched and verified.
    pub bytes_read: u64,
    /// Objects that are missing or altered, at most [`PROBLEMS_MAX`].
    pub damaged: Vec<DamagedObject>,
    /// All of them, for a repair.
    pub lost: HashMap<ObjectId, Damage>,
    /// Files and directories that depend on them, at most [`PROBLEMS_MAX`].
    pub affected: Vec<Affected>,
    /// How many more of both there are.
    pub more: u64,
}

impl CheckReport {
    /// Whether everything is as it should be.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.affected.is_empty()
    }

    fn damage(&mut self, object: ObjectId, damage: Damage) {
        self.lost.insert(object, damage);
        if self.damaged.len() < PROBLEMS_MAX {
            self.damaged.push(DamagedObject { object, damage });
        } else {
            self.more += 1;
        }
    }

    fn affect(&mut self, snapshot: SnapshotId, path: PathBuf) {
        if self.affected.len() < PROBLEMS_MAX {
            self.affected.push(Affected { snapshot, path });
        } else {
            self.more += 1;
        }
    }
}

struct Check<'a> {
    repository: &'a Repository,
    source: &'a dyn ObjectSource,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    report: CheckReport,
    /// The directories that were walked already.
    walked: SeenSet,
}

/// Checks the vault as its manifest names it. `read_data` fetches and verifies every pack.
///
/// Damage is a finding, not an error: the report lists it, and the rest is checked all the same.
pub fn run(
    repository: &Repository,
    source: &dyn ObjectSource,
    read_data: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CheckReport, CheckError> {
    let walked = SeenSet::new()?;
    let report = CheckReport::default();
    let mut check = Check {
        repository,
        source,
        progress,
        cancel,
        report,
        walked,
    };
    check.own_objects(read_data)?;
    check.packs(read_data)?;
    check.trees()?;
    Ok(check.report)
}

impl Check<'_> {
    fn go_on(&self) -> Result<(), CheckError> {
        if self.cancel.is_cancelled() {
            Err(CheckError::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Asks whether objects are there, and returns one answer each, whatever the cell sent.
    fn has(&self, objects: &[ObjectId]) -> Result<Vec<bool>, CheckError> {
        let answers = self.source.has(objects).map_err(CheckError::Source)?;
        let is_there = |answer| answer != Presence::Absent;
        let mut answers: Vec<bool> = answers.into_iter().map(is_there).collect();
        // An answer that is too short says nothing good about the rest.
        answers.resize(objects.len(), false);
        Ok(answers)
    }

    /// The manifest and the index objects.
    fn own_objects(&mut self, read_data: bool) -> Result<(), CheckError> {
        let manifest = self.repository.manifest();
        let objects: Vec<ObjectId> = self
            .repository
            .head()
            .into_iter()
            .chain(manifest.indexes.iter().map(|index| index.object))
            .collect();
        for page in objects.chunks(HAS_MAX_IDS) {
            for (object, there) in page.iter().zip(self.has(page)?) {
                if !there {
                    self.report.damage(*object, Damage::Missing);
                } else if read_data {
                    self.read_own(*object)?;
                }
            }
        }
        Ok(())
    }

    /// The bytes of a manifest or an index object. What was in them was opened when the vault was.
    fn read_own(&mut self, object: ObjectId) -> Result<(), CheckError> {
        match fetch(self.source, object) {
            Ok(bytes) => self.report.bytes_read += bytes.len() as u64,
            Err(ReadError::Source(SourceError::Missing { .. })) => {
                self.report.damage(object, Damage::Missing);
            }
            Err(ReadError::Source(error)) => return Err(CheckError::Source(error)),
            Err(_) => self.report.damage(object, Damage::Altered),
        }
        Ok(())
    }

    fn packs(&mut self, read_data: bool) -> Result<(), CheckError> {
        let reader = self.repository.reader(self.source);
        let mut scratch = Vec::new();
        let mut after = -1;
        loop {
            let page = self
                .repository
                .index()
                .packs(after, HAS_MAX_IDS)
                .map_err(CheckError::Index)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.number;
            let objects: Vec<ObjectId> = page.iter().map(|pack| pack.object).collect();
            for (object, there) in objects.iter().zip(self.has(&objects)?) {
                self.go_on()?;
                self.report.packs += 1;
                if !there {
                    self.report.damage(*object, Damage::Missing);
                } else if read_data {
                    self.read_pack(*object, &reader, &mut scratch)?;
                }
            }
        }
    }

    fn read_pack(
        &mut self,
        object: ObjectId,
        reader: &Reader<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), CheckError> {
        let read = reader
            .open_pack(object)
            .and_then(|pack| pack.verify_all(self.repository.keys(), scratch));
        match read {
            Ok(bytes) => {
                self.report.bytes_read += bytes;
                self.progress.advance(0, bytes);
            }
            Err(ReadError::Source(SourceError::Missing { .. })) => {
                self.report.damage(object, Damage::Missing)
            }
            Err(ReadError::Source(error)) => return Err(CheckError::Source(error)),
            Err(ReadError::Index(error)) => return Err(CheckError::Index(error)),
            Err(_) => self.report.damage(object, Damage::Altered),
        }
        Ok(())
    }

    fn trees(&mut self) -> Result<(), CheckError> {
        let mut reader = self.repository.reader(self.source);
        for snapshot in &self.repository.manifest().snapshots {
            self.go_on()?;
            self.report.snapshots += 1;
            match tree::read_root(snapshot.root, &mut reader) {
                Ok(root) => self.tree(snapshot.id, root.parts, &mut reader)?,
                Err(error) => {
                    finding(error)?;
                    self.report.affect(snapshot.id, PathBuf::new());
                }
            }
        }
        Ok(())
    }

    fn tree(
        &mut self,
        snapshot: SnapshotId,
        top: References,
        reader: &mut Reader<'_>,
    ) -> Result<(), CheckError> {
        if !self.is_new(&top)? {
            return Ok(());
        }
        let mut walk = TreeWalk::new(top);
        let mut path = PathBuf::new();
        loop {
            self.go_on()?;
            let step = match walk.next(reader) {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(()),
                Err(error) => {
                    // The rest of this directory is out of reach; those beside it are not.
                    finding(error)?;
                    self.report.affect(snapshot, path.clone());
                    if !walk.abandon() {
                        return Ok(());
                    }
                    path.pop();
                    continue;
                }
            };
            let entry = match step {
                Step::Leave => {
                    path.pop();
                    continue;
                }
                Step::Item(Item::Refused { name, .. }) => {
                    self.report
                        .affect(snapshot, path.join(OsStr::from_bytes(&name)));
                    continue;
                }
                Step::Item(Item::Entry(entry)) => entry,
            };
            match entry.kind {
                Kind::Directory { parts } => {
                    self.report.directories += 1;
                    if self.is_new(&parts)? {
                        path.push(entry.name.as_os_str());
                        if let Err(error) = walk.enter(parts) {
                            finding(error)?;
                            self.report.affect(snapshot, path.clone());
                            path.pop();
                        }
                    }
                }
                Kind::File { content, .. } => {
                    self.report.files += 1;
                    self.progress.advance(1, 0);
                    if !self.content(content, reader)? {
                        self.report
                            .affect(snapshot, path.join(entry.name.as_os_str()));
                    }
                }
                _ => self.report.files += 1,
            }
        }
    }

    /// Whether every chunk of a file has a place in a pack that can be used.
    fn content(
        &mut self,
        content: References,
        reader: &mut Reader<'_>,
    ) -> Result<bool, CheckError> {
        let mut references = ReferenceReader::new(content);
        loop {
            let reference = match references.next(reader) {
                Ok(Some(reference)) => reference,
                Ok(None) => return Ok(true),
                Err(error) => {
                    finding(error)?;
                    return Ok(false);
                }
            };
            match self
                .repository
                .index()
                .locate(&reference.id)
                .map_err(CheckError::Index)?
            {
                Some(place)
                    if place.length == reference.length
                        && !self.report.lost.contains_key(&place.pack) => {}
                _ => return Ok(false),
            }
        }
    }

    /// Whether a directory was not walked before; notes that it is now.
    fn is_new(&mut self, parts: &References) -> Result<bool, CheckError> {
        Ok(self.walked.add(&directory_key(parts))?)
    }
}

/// Damage is a finding; a cell or an index that does not answer ends the check.
fn finding(error: TreeError) -> Result<(), CheckError> {
    match error {
        TreeError::Read(ReadError::Source(SourceError::Missing { .. })) => Ok(()),
        TreeError::Read(ReadError::Source(error)) => Err(CheckError::Source(error)),
        TreeError::Read(ReadError::Index(error)) => Err(CheckError::Index(error)),
        _ => Ok(()),
    }
}
