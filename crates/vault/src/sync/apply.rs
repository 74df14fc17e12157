//! Bringing the folder to the merged tree.
//!
//! Order: what only moved is moved; what is gone is removed; then folders are made and files put, those that lie in
//! one pack together; modes of folders come last. Each name is recorded when it is done. A name that is not what the
//! merge saw is left as it is.

mod moves;

use std::rc::Rc;

use candor_wire::{Nanos, ObjectId};

use super::folder::{Folder, Trouble, join};
use super::merge::{Done, Merged, Notes, as_path, encode, is_synced, parts_of};
use super::record::{Row, Stamp};
use super::state::State;
use super::{SYNC_DEPTH_MAX, SyncError};
use crate::chunk::ChunkId;
use crate::node::{self, Entry, Item, Kind, Metadata, References};
use crate::report::{Cancel, ProblemKind, Progress};
use crate::tree::{ChunkSource, DirectoryReader};

/// Files that are put in one go, sorted by where they are stored: bounds what is in memory.
const BATCH_FILES: usize = 4096;

/// Something that the folder lacks.
#[derive(Debug)]
pub(crate) enum Action {
    /// Put a file or link in its place.
    Put {
        folder: i64,
        at: Rc<[u8]>,
        entry: Entry,
        /// What is there now, with its encoded entry.
        old: Option<(Stamp, Vec<u8>)>,
    },
    /// Make a folder with all that the remote tree has below it.
    AddFolder {
        folder: i64,
        at: Rc<[u8]>,
        entry: Entry,
    },
    /// Make a folder whose names have actions of their own.
    MakeFolder {
        folder: i64,
        at: Rc<[u8]>,
        child: i64,
        name: Vec<u8>,
        metadata: Metadata,
    },
    /// Remove a file or link.
    Remove {
        folder: i64,
        at: Rc<[u8]>,
        name: Vec<u8>,
        stamp: Stamp,
        key: Option<[u8; 32]>,
        entry: Vec<u8>,
    },
    /// Remove a folder with all that the base has below it.
    RemoveTree {
        folder: i64,
        at: Rc<[u8]>,
        name: Vec<u8>,
        child: i64,
        stamp: Stamp,
        parts: Vec<u8>,
    },
    /// Remove a folder whose names were removed before.
    RemoveFolder {
        folder: i64,
        at: Rc<[u8]>,
        name: Vec<u8>,
    },
    /// Set the mode of a folder.
    DressFolder {
        folder: i64,
        at: Rc<[u8]>,
        name: Vec<u8>,
        mode: u32,
    },
}

/// Where content lies, to fetch neighbours together.
pub(crate) trait Locate: ChunkSource {
    /// A number that is close for chunks that are stored close to each other.
    fn place(&mut self, id: &ChunkId) -> (i64, u32);
}

/// A file that waits for its batch.
struct Waiting {
    place: (i64, u32),
    folder: i64,
    at: Rc<[u8]>,
    entry: Entry,
    old: Option<(Stamp, Vec<u8>)>,
}

struct Apply<'a, F> {
    folder: &'a mut F,
    state: &'a mut State,
    source: &'a mut dyn Locate,
    notes: &'a mut Notes,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    waiting: Vec<Waiting>,
    counts: Applied,
}

/// What was changed in the folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) put: u64,
    pub(crate) removed: u64,
    pub(crate) moved: u64,
    pub(crate) bytes: u64,
}

impl Merged {
    /// Brings the folder to the merged tree, and records what was done. `head` is the one that names that tree by
    /// now: its counter and manifest.
    pub(crate) fn apply<S, F: Folder<S>>(
        &mut self,
        folder: &mut F,
        state: &mut State,
        source: &mut dyn Locate,
        progress: &dyn Progress,
        cancel: &Cancel,
        head: Option<(u64, ObjectId)>,
    ) -> Result<Applied, SyncError> {
        let actions: Vec<Option<Action>> = std::mem::take(&mut self.actions)
            .into_iter()
            .map(Some)
            .collect();
        let is_idle = actions.is_empty();
        let mut apply = Apply {
            folder,
            state,
            source,
            notes: &mut self.notes,
            progress,
            cancel,
            waiting: Vec::new(),
            counts: Applied::default(),
        };
        apply.run(actions)?;
        let counts = apply.counts;
        if !is_idle && let Err(Trouble::Fatal(error)) = folder.sync() {
            return Err(error);
        }
        for done in std::mem::take(&mut self.notes.done) {
            if !self.notes.has_failed(&done.path) {
                state.set_complete(done.folder, &done.name, &done.entry)?;
            }
        }
        if self.notes.failed.is_empty()
            && let Some((counter, manifest)) = head
        {
            state.set_top(Some((&self.parts, counter, manifest)))?;
        }
        Ok(counts)
    }
}

fn decode(encoded: &[u8]) -> Option<Entry> {
    node::decode_entry(encoded).ok()
}

impl<F> Apply<'_, F> {
    fn run<S>(&mut self, mut actions: Vec<Option<Action>>) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        self.open_up(&mut actions)?;
        self.move_folders(&mut actions)?;
        self.move_files(&mut actions)?;
        for slot in &mut actions {
            if let Some(
                Action::Remove { .. } | Action::RemoveTree { .. } | Action::RemoveFolder { .. },
            ) = slot
                && let Some(action) = slot.take()
            {
                self.check()?;
                self.remove(action)?;
            }
        }
        for slot in &mut actions {
            if !matches!(slot, Some(Action::DressFolder { .. }))
                && let Some(action) = slot.take()
            {
                self.check()?;
                self.make(action)?;
            }
        }
        self.flush()?;
        for action in actions.into_iter().flatten() {
            self.make(action)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), SyncError> {
        if self.cancel.is_cancelled() {
            return Err(SyncError::Cancelled);
        }
        Ok(())
    }

    fn remove<S>(&mut self, action: Action) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        match action {
            Action::Remove {
                folder,
                at,
                name,
                stamp,
                ..
            } => {
                let is_gone = self.remove_leaf(&at, &name, &stamp)?;
                if is_gone {
                    self.state.remove(folder, &name)?;
                }
            }
            Action::RemoveTree {
                folder,
                at,
                name,
                child,
                ..
            } => {
                self.remove_below(child, &join(&at, &name), 0)?;
                self.remove_folder(folder, &at, &name)?;
            }
            Action::RemoveFolder { folder, at, name } => self.remove_folder(folder, &at, &name)?,
            _ => {}
        }
        Ok(())
    }

    fn remove_leaf<S>(&mut self, at: &[u8], name: &[u8], stamp: &Stamp) -> Result<bool, SyncError>
    where
        F: Folder<S>,
    {
        match self.folder.remove(at, name, stamp) {
            Ok(()) => {
                self.counts.removed += 1;
                Ok(true)
            }
            Err(trouble) => {
                self.notes.trouble(at, name, trouble)?;
                Ok(false)
            }
        }
    }

    fn remove_below<S>(&mut self, folder: i64, at: &[u8], depth: usize) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        if depth > SYNC_DEPTH_MAX {
            return Ok(());
        }
        for row in self.state.rows(folder)? {
            self.check()?;
            match row.child {
                Some(child) => {
                    self.remove_below(child, &join(at, &row.name), depth + 1)?;
                    self.remove_folder(folder, at, &row.name)?;
                }
                None if row.held => {
                    if self.remove_leaf(at, &row.name, &row.stamp)? {
                        self.state.remove(folder, &row.name)?;
                    }
                }
                None => self.state.remove(folder, &row.name)?,
            }
        }
        Ok(())
    }

    /// Removes an empty folder. One that is not empty holds what is not synced, or what somebody just made: it
    /// stays, and is a new folder from now on.
    fn remove_folder<S>(&mut self, folder: i64, at: &[u8], name: &[u8]) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        match self.folder.remove_folder(at, name) {
            Ok(true) => {
                self.counts.removed += 1;
                self.state.remove(folder, name)?;
            }
            Ok(false) => {
                self.state.remove(folder, name)?;
                self.notes.again.insert(at.to_vec());
            }
            Err(trouble) => self.notes.trouble(at, name, trouble)?,
        }
        Ok(())
    }

    fn make<S>(&mut self, action: Action) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        match action {
            Action::Put {
                folder,
                at,
                entry,
                old,
            } => self.wait(folder, at, entry, old),
            Action::AddFolder { folder, at, entry } => self.add_folder(folder, &at, entry, 0),
            Action::MakeFolder {
                folder,
                at,
                child,
                name,
                metadata,
            } => self.make_folder(folder, &at, child, &name, &metadata),
            Action::DressFolder {
                folder,
                at,
                name,
                mode,
            } => {
                let metadata = Metadata {
                    mode,
                    uid: 0,
                    gid: 0,
                    mtime: Nanos(0),
                    xattrs: Vec::new(),
                };
                let dressed = self.folder.dress_folder(&at, &name, &metadata);
                let dressed = match dressed {
                    Ok(stamp) if self.restamp(folder, &name, stamp)? => Ok(()),
                    // Somebody put another folder in its place.
                    Ok(_) => Err(Trouble::Changed),
                    Err(trouble) => Err(trouble),
                };
                dressed.or_else(|trouble| {
                    self.notes.failed.insert(join(&at, &name));
                    self.notes.trouble(&at, &name, trouble)
                })
            }
            _ => Ok(()),
        }
    }

    /// Records the state of a folder after this round changed it. `false`: it is not the folder that is recorded.
    fn restamp(&mut self, folder: i64, name: &[u8], stamp: Stamp) -> Result<bool, SyncError> {
        let Some(mut row) = self.state.row(folder, name)? else {
            return Ok(false);
        };
        if (row.stamp.inode, row.stamp.device) != (stamp.inode, stamp.device) {
            return Ok(false);
        }
        row.stamp = stamp;
        self.state.put(folder, &row)?;
        Ok(true)
    }

    /// Somebody made a folder of the same name meanwhile: the next round looks into it.
    fn look_into(&mut self, at: &[u8], name: &[u8], is_new: bool) {
        if !is_new {
            self.notes.again.insert(join(at, name));
        }
    }

    fn make_folder<S>(
        &mut self,
        folder: i64,
        at: &[u8],
        child: i64,
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        match self.folder.make_folder(at, name, metadata) {
            Ok((stamp, is_new)) => {
                self.look_into(at, name, is_new);
                if let Some(mut row) = self.state.row(folder, name)?
                    && row.child == Some(child)
                {
                    row.stamp = stamp;
                    self.state.put(folder, &row)?;
                }
                Ok(())
            }
            Err(trouble) => self.notes.trouble(at, name, trouble),
        }
    }

    /// Makes a folder with everything that the remote tree has below it.
    fn add_folder<S>(
        &mut self,
        folder: i64,
        at: &[u8],
        entry: Entry,
        depth: usize,
    ) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        self.check()?;
        if depth >= SYNC_DEPTH_MAX {
            let trouble = Trouble::Refused(ProblemKind::TooDeep);
            return self.notes.trouble(at, entry.name.as_bytes(), trouble);
        }
        let Some((child, path, parts)) = self.new_folder(folder, at, entry)? else {
            return Ok(());
        };
        let shared: Rc<[u8]> = Rc::from(path.as_slice());
        self.each_below(child, &path, parts, &mut |this, entry| {
            if parts_of(&entry).is_some() {
                this.add_folder(child, &shared, entry, depth + 1)
            } else {
                this.wait(child, Rc::clone(&shared), entry, None)
            }
        })
    }

    /// Makes and records a folder that is only in the remote tree: its number, path and parts. `None`: it could not be
    /// made, which was noted.
    fn new_folder<S>(
        &mut self,
        folder: i64,
        at: &[u8],
        entry: Entry,
    ) -> Result<Option<(i64, Vec<u8>, References)>, SyncError>
    where
        F: Folder<S>,
    {
        let name = entry.name.as_bytes().to_vec();
        let (stamp, is_new) = match self.folder.make_folder(at, &name, &entry.metadata) {
            Ok(made) => made,
            Err(trouble) => {
                self.notes.trouble(at, &name, trouble)?;
                return Ok(None);
            }
        };
        self.look_into(at, &name, is_new);
        let child = self.state.new_folder();
        let encoded = encode(&entry);
        let row = Row {
            name: name.clone(),
            child: Some(child),
            complete: false,
            held: true,
            stamp,
            entry: encoded.clone(),
        };
        self.state.put(folder, &row)?;
        let path = join(at, &name);
        self.notes.done.push(Done {
            folder,
            name,
            path: path.clone(),
            entry: encoded,
        });
        Ok(match entry.kind {
            Kind::Directory { parts } => Some((child, path, parts)),
            _ => None,
        })
    }

    /// Hands on what the remote tree has in a folder, but for what is not synced here, which is only recorded.
    fn each_below<S>(
        &mut self,
        folder: i64,
        at: &[u8],
        parts: References,
        each: &mut dyn FnMut(&mut Self, Entry) -> Result<(), SyncError>,
    ) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        let mut reader = DirectoryReader::new(parts);
        while let Some(item) = reader.next(&mut SourceOf(self.source))? {
            let entry = match item {
                Item::Entry(entry) => entry,
                Item::Refused { name, reason } => {
                    let kind = ProblemKind::BadName(reason);
                    self.notes.problems.add(&as_path(&join(at, &name)), kind);
                    continue;
                }
            };
            let is_folder = parts_of(&entry).is_some();
            if !is_synced(&entry) || self.folder.hides(at, entry.name.as_bytes(), is_folder) {
                let row = Row::hidden(entry.name.as_bytes(), encode(&entry));
                self.state.put(folder, &row)?;
            } else {
                each(self, entry)?;
            }
        }
        Ok(())
    }

    fn wait<S>(
        &mut self,
        folder: i64,
        at: Rc<[u8]>,
        entry: Entry,
        old: Option<(Stamp, Vec<u8>)>,
    ) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        let place = match &entry.kind {
            Kind::File { content, .. } => content
                .list
                .first()
                .map_or((0, 0), |first| self.source.place(&first.id)),
            _ => (0, 0),
        };
        self.waiting.push(Waiting {
            place,
            folder,
            at,
            entry,
            old,
        });
        if self.waiting.len() >= BATCH_FILES {
            self.flush()?;
        }
        Ok(())
    }

    /// Puts the files that wait, in the order in which they are stored.
    fn flush<S>(&mut self) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|one| one.place);
        for one in waiting {
            self.check()?;
            let old = one
                .old
                .as_ref()
                .and_then(|(stamp, entry)| Some((*stamp, decode(entry)?)));
            let put = self.folder.put(
                &one.at,
                &one.entry,
                old.as_ref().map(|(stamp, entry)| (stamp, entry)),
                &mut SourceOf(self.source),
            );
            match put {
                Ok(stamp) => {
                    self.state.put(one.folder, &leaf_row(&one.entry, stamp))?;
                    let bytes = match one.entry.kind {
                        Kind::File { size, .. } => size,
                        _ => 0,
                    };
                    self.counts.put += 1;
                    self.counts.bytes += bytes;
                    self.progress.advance(1, bytes);
                }
                Err(trouble) => {
                    self.notes
                        .trouble(&one.at, one.entry.name.as_bytes(), trouble)?;
                }
            }
        }
        Ok(())
    }
}

/// A source that also knows places, as a plain one.
struct SourceOf<'a>(&'a mut dyn Locate);

impl ChunkSource for SourceOf<'_> {
    fn fetch(&mut self, id: ChunkId) -> Result<bytes::Bytes, crate::reader::ReadError> {
        self.0.fetch(id)
    }
}

fn leaf_row(entry: &Entry, stamp: Stamp) -> Row {
    Row::leaf(entry.name.as_bytes(), stamp, encode(entry))
}
