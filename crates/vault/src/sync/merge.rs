//! The walk of a round: three trees side by side, one folder inside another.
//!
//! A folder is entered only if something in it may have changed: its local entries (it is dirty), its remote ones
//! (its parts are not those of the base), or its base is not complete. For everything else the remote entry is taken
//! over as it is, without looking at a single file.

mod descend;
mod outcomes;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use candor_wire::Millis;

use super::apply::Action;
use super::decide::{Decision, Side, decide};
use super::folder::{Folder, Trouble, join};
use super::record::{FOLDER, OTHER, Row, Stamp};
use super::state::{State, TOP, encode_parts};
use super::{Dirty, SyncError};
use crate::chunk::ChunkId;
use crate::name::Name;
use crate::node::{self, Entry, Item, Kind, References};
use crate::report::{Cancel, ProblemKind, Problems};
use crate::tree::{ChunkSource, DirectoryBuilder, DirectoryReader, TreeSink};

/// Where the merge stores, and what of it is stored already.
pub(crate) trait Store: TreeSink {
    /// Whether a chunk is in the vault.
    fn has(&mut self, id: &ChunkId) -> Result<bool, SyncError>;
}

/// What a merge works with.
pub(crate) struct MergeJob<'a> {
    /// Name of this device.
    pub(crate) device: &'a str,
    /// Name of the device that made the remote tree.
    pub(crate) remote_device: &'a str,
    /// For the names of conflict copies, and the time of folders that change.
    pub(crate) now: Millis,
    /// Where the folder may have changed.
    pub(crate) dirty: &'a Dirty,
    /// Where the folder may have changed, too, and is not looked at in this round: nothing is decided there.
    pub(crate) later: &'a Dirty,
    /// Ends the merge.
    pub(crate) cancel: &'a Cancel,
}

/// A folder whose base will be complete once everything below it is applied.
#[derive(Debug)]
pub(crate) struct Done {
    /// The folder that it is in.
    pub(crate) folder: i64,
    pub(crate) name: Vec<u8>,
    pub(crate) path: Vec<u8>,
    pub(crate) entry: Vec<u8>,
}

/// What is to tell at the end of a round.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) problems: Problems,
    /// Folders in which something could not be done: their base stays incomplete.
    pub(crate) failed: BTreeSet<Vec<u8>>,
    /// Folders in which something changed under the round's hands.
    pub(crate) again: BTreeSet<Vec<u8>>,
    /// Files that were kept twice.
    pub(crate) conflicts: u64,
    /// Names that were taken over from the folder.
    pub(crate) sent: u64,
    /// Folders whose base will be complete.
    pub(crate) done: Vec<Done>,
}

impl Notes {
    /// Something in the folder `at` was not done.
    pub(crate) fn trouble(
        &mut self,
        at: &[u8],
        name: &[u8],
        trouble: Trouble,
    ) -> Result<(), SyncError> {
        self.failed.insert(at.to_vec());
        match trouble {
            Trouble::Changed => {
                self.again.insert(at.to_vec());
            }
            Trouble::Refused(kind) => self.problems.add(&as_path(&join(at, name)), kind),
            Trouble::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether something failed in a folder or below it.
    pub(crate) fn has_failed(&self, path: &[u8]) -> bool {
        if path.is_empty() {
            return !self.failed.is_empty();
        }
        let below = join(path, b"");
        self.failed.contains(path)
            || self
                .failed
                .range(below.clone()..)
                .next()
                .is_some_and(|found| found.starts_with(&below))
    }
}

/// A path for messages.
pub(crate) fn as_path(path: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(path).into()
}

/// The merged tree, and what the folder lacks of it.
pub(crate) struct Merged {
    /// Parts of the top.
    pub(crate) parts: References,
    /// Whether it is another tree than the remote one.
    pub(crate) differs: bool,
    pub(crate) actions: Vec<Action>,
    pub(crate) notes: Notes,
}

/// Which names of a folder are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    /// There is no such folder here.
    Absent,
    /// As in the base.
    Trusted,
    /// Listed, and folders below it as their dirt says.
    Listed,
    /// Listed, with everything below.
    Deep,
}

/// What the remote tree has of a folder.
enum Remote {
    Absent,
    /// Exactly what the base has.
    Base(References),
    Parts(References),
}

/// One folder of the walk.
struct Place {
    id: i64,
    /// A folder of the base whose files these may be: it was moved.
    hint: Option<i64>,
    local: Local,
    remote: Remote,
}

/// What came of a folder.
struct Outcome {
    parts: References,
    /// How many names the merged folder has.
    count: usize,
    /// Whether it is not what the remote tree has.
    differs: bool,
    /// Whether it holds only what the rules leave out.
    only_hidden: bool,
}

/// One folder's names and what becomes of them.
struct Level<'a> {
    id: i64,
    at: Rc<[u8]>,
    local: Local,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    differs: bool,
    hidden: usize,
    /// Every name that some side has.
    names: &'a [&'a [u8]],
    /// Names that conflict copies got.
    taken: BTreeSet<Vec<u8>>,
}

/// What the sides of a name are, decoded.
struct Sides {
    base: Option<Entry>,
    /// A local file or link with its state.
    local: Option<(Entry, Stamp)>,
    /// The state of whatever is there locally.
    stamp: Option<Stamp>,
    remote: Option<Entry>,
}

/// The names that the remote tree has in a folder, ascending, with their encoded entries.
type RemoteEntries<'r> = Vec<(Vec<u8>, Cow<'r, [u8]>)>;

/// One name on all three sides.
struct Three<'a> {
    name: &'a [u8],
    /// Its row, also if it is not held here.
    row: Option<&'a Row>,
    /// Its state here.
    listed: Option<Stamp>,
    /// A state and entry under which it may be known from before it was moved.
    hint: Option<&'a Row>,
    /// Its remote entry, encoded.
    remote: Option<&'a [u8]>,
}

impl<'a> Three<'a> {
    fn base(&self) -> Option<&'a Row> {
        self.row.filter(|row| row.held)
    }
}

struct Walk<'a, S, F> {
    folder: &'a mut F,
    state: &'a mut State,
    sink: &'a mut S,
    source: &'a mut dyn ChunkSource,
    job: &'a MergeJob<'a>,
    actions: Vec<Action>,
    notes: Notes,
    /// The folders that the walk is inside of, and whether they are marked as incomplete.
    chain: Vec<(i64, Vec<u8>, bool)>,
    top_touched: bool,
}

/// Merges. `remote` is the remote tree's top; `None` if the vault has no tree yet.
pub(crate) fn merge<S: Store, F: Folder<S>>(
    folder: &mut F,
    state: &mut State,
    sink: &mut S,
    source: &mut dyn ChunkSource,
    remote: Option<&References>,
    job: &MergeJob<'_>,
) -> Result<Merged, SyncError> {
    state.drop_pending()?;
    let base = state.top()?;
    let is_base = base
        .as_ref()
        .zip(remote)
        .is_some_and(|(base, remote)| *base == encode_parts(remote));
    if is_base && job.dirty.is_empty() {
        return Ok(Merged {
            parts: remote.cloned().unwrap_or_default(),
            differs: false,
            actions: Vec::new(),
            notes: Notes::default(),
        });
    }
    let local = match job.dirty {
        Dirty::All => Local::Deep,
        dirty if dirty.has(b"") => Local::Listed,
        Dirty::Folders(_) => Local::Trusted,
    };
    let mut walk = Walk {
        folder,
        state,
        sink,
        source,
        job,
        actions: Vec::new(),
        notes: Notes::default(),
        chain: Vec::new(),
        top_touched: false,
    };
    let place = Place {
        id: TOP,
        hint: None,
        local,
        remote: match remote {
            None => Remote::Absent,
            Some(parts) if is_base => Remote::Base(parts.clone()),
            Some(parts) => Remote::Parts(parts.clone()),
        },
    };
    let outcome = walk
        .folder(&mut Vec::new(), place)?
        .ok_or_else(|| SyncError::Folder {
            reason: "it cannot be listed".to_owned(),
            source: None,
        })?;
    Ok(Merged {
        parts: outcome.parts,
        differs: outcome.differs || remote.is_none(),
        actions: walk.actions,
        notes: walk.notes,
    })
}

/// The entry that a row or an item holds. Rows were encoded by us, items decoded before.
pub(super) fn decode(encoded: &[u8]) -> Result<Entry, SyncError> {
    node::decode_entry(encoded).map_err(|source| {
        SyncError::Tree(crate::tree::TreeError::Node {
            chunk: ChunkId::from_bytes([0; 32]),
            source,
        })
    })
}

pub(crate) fn encode(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    node::encode_entry(entry, &mut out);
    out
}

pub(crate) fn parts_of(entry: &Entry) -> Option<&References> {
    match &entry.kind {
        Kind::Directory { parts } => Some(parts),
        _ => None,
    }
}

pub(crate) fn is_synced(entry: &Entry) -> bool {
    matches!(
        entry.kind,
        Kind::File { .. } | Kind::Directory { .. } | Kind::Symlink { .. }
    )
}

/// An entry under another name.
fn renamed(mut entry: Entry, name: &[u8]) -> Entry {
    if let Ok(name) = Name::new(name) {
        entry.name = name;
    }
    entry
}

/// Every name of three ascending lists, once, ascending.
fn names_of<'a>(
    rows: &'a [Row],
    listed: &'a [(Vec<u8>, Stamp)],
    remote: &'a RemoteEntries<'_>,
) -> Vec<&'a [u8]> {
    let mut names: Vec<&[u8]> = rows
        .iter()
        .map(|row| row.name.as_slice())
        .chain(listed.iter().map(|(name, _)| name.as_slice()))
        .chain(remote.iter().map(|(name, _)| name.as_slice()))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The element of an ascending list that has this name, if it is next.
fn take<'a, T>(
    list: &'a [T],
    at: &mut usize,
    name_of: impl Fn(&T) -> &Vec<u8>,
    name: &[u8],
) -> Option<&'a T> {
    let found = list.get(*at).filter(|one| name_of(one) == name)?;
    *at += 1;
    Some(found)
}

impl<S: Store, F: Folder<S>> Walk<'_, S, F> {
    /// Marks the folders that the walk is inside of: what the base has of them is about to change.
    fn touch(&mut self) -> Result<(), SyncError> {
        if !self.top_touched {
            self.top_touched = true;
            self.state.set_top(None)?;
        }
        for (folder, name, touched) in self.chain.iter_mut().rev() {
            if *touched {
                break;
            }
            *touched = true;
            self.state.set_incomplete(*folder, name)?;
        }
        Ok(())
    }

    fn put_row(&mut self, folder: i64, row: &Row) -> Result<(), SyncError> {
        self.touch()?;
        Ok(self.state.put(folder, row)?)
    }

    fn act(&mut self, action: Action) -> Result<(), SyncError> {
        self.touch()?;
        self.actions.push(action);
        Ok(())
    }

    /// Records after the head moved.
    fn pend(
        &mut self,
        level: &mut Level<'_>,
        name: &[u8],
        new: Option<(Option<i64>, &Stamp, &[u8])>,
    ) -> Result<(), SyncError> {
        self.touch()?;
        level.differs = true;
        if new.is_none_or(|(child, _, _)| child.is_none()) {
            self.notes.sent += 1;
        }
        Ok(self.state.put_pending(level.id, name, new)?)
    }

    /// Walks one folder. `None`: it cannot be read here, which was noted.
    fn folder(&mut self, at: &mut Vec<u8>, mut place: Place) -> Result<Option<Outcome>, SyncError> {
        if self.job.cancel.is_cancelled() {
            return Err(SyncError::Cancelled);
        }
        let rows = self.state.rows(place.id)?;
        if place.local == Local::Trusted && self.has_unknown_ways(at, &rows) {
            place.local = Local::Listed;
        }
        let listed = match place.local {
            Local::Absent | Local::Trusted => Vec::new(),
            Local::Listed | Local::Deep => match self.folder.list(at) {
                Ok(listed) => listed,
                Err(trouble) => {
                    self.notes.trouble(at, b"", trouble)?;
                    return Ok(None);
                }
            },
        };
        let hints: HashMap<Vec<u8>, Row> = match place.hint {
            Some(hint) => {
                let rows = self.state.rows(hint)?;
                rows.into_iter()
                    .map(|row| (row.name.clone(), row))
                    .collect()
            }
            None => HashMap::new(),
        };
        let remote = self.remote_entries(&place.remote, &rows, at)?;
        let names = names_of(&rows, &listed, &remote);
        let mut level = Level {
            id: place.id,
            at: Rc::from(at.as_slice()),
            local: place.local,
            entries: Vec::with_capacity(names.len()),
            differs: false,
            hidden: 0,
            names: &names,
            taken: BTreeSet::new(),
        };
        let (mut row_at, mut listed_at, mut remote_at) = (0, 0, 0);
        for &name in &names {
            let row = take(&rows, &mut row_at, |row| &row.name, name);
            let stamp = take(&listed, &mut listed_at, |one| &one.0, name);
            let remote = take(&remote, &mut remote_at, |one| &one.0, name);
            let listed = match place.local {
                Local::Absent => None,
                Local::Trusted => row.filter(|row| row.held).map(|row| row.stamp),
                Local::Listed | Local::Deep => stamp.map(|(_, stamp)| *stamp),
            };
            let three = Three {
                name,
                row,
                listed,
                hint: hints.get(name),
                remote: remote.map(|(_, encoded)| encoded.as_ref()),
            };
            self.name(&mut level, at, &three)?;
        }
        self.close(level, place.remote).map(Some)
    }

    /// Whether something has to be listed below a folder that the base does not have.
    fn has_unknown_ways(&self, at: &[u8], rows: &[Row]) -> bool {
        self.job.dirty.ways_from(at).into_iter().any(|name| {
            let row = rows.binary_search_by(|row| row.name.as_slice().cmp(name));
            !row.is_ok_and(|place| rows[place].held && rows[place].child.is_some())
        })
    }

    /// The names that the remote tree has in a folder, ascending, with their entries.
    fn remote_entries<'r>(
        &mut self,
        remote: &Remote,
        rows: &'r [Row],
        at: &[u8],
    ) -> Result<RemoteEntries<'r>, SyncError> {
        match remote {
            Remote::Absent => Ok(Vec::new()),
            Remote::Base(_) => Ok(rows
                .iter()
                .map(|row| (row.name.clone(), Cow::Borrowed(row.entry.as_slice())))
                .collect()),
            Remote::Parts(parts) => {
                let mut reader = DirectoryReader::new(parts.clone());
                let mut entries = Vec::new();
                while let Some(item) = reader.next(self.source)? {
                    match item {
                        Item::Entry(entry) => {
                            let encoded = encode(&entry);
                            entries.push((entry.name.as_bytes().to_vec(), encoded.into()));
                        }
                        Item::Refused { name, reason } => self
                            .notes
                            .problems
                            .add(&as_path(&join(at, &name)), ProblemKind::BadName(reason)),
                    }
                }
                Ok(entries)
            }
        }
    }

    /// Makes the merged folder of what became of its names.
    fn close(&mut self, mut level: Level<'_>, remote: Remote) -> Result<Outcome, SyncError> {
        let count = level.entries.len();
        let only_hidden = count == 0 && level.hidden > 0;
        let parts = match remote {
            Remote::Base(parts) | Remote::Parts(parts) if !level.differs => parts,
            _ => {
                // Conflict copies were added where they arose.
                level.entries.sort_by(|a, b| a.0.cmp(&b.0));
                let mut builder = DirectoryBuilder::default();
                for (name, encoded) in &level.entries {
                    builder.push(name, encoded, self.sink)?;
                }
                builder.finish(self.sink)?
            }
        };
        Ok(Outcome {
            parts,
            count,
            differs: level.differs,
            only_hidden,
        })
    }

    /// Decides about one name.
    fn name(
        &mut self,
        level: &mut Level<'_>,
        at: &mut Vec<u8>,
        three: &Three<'_>,
    ) -> Result<(), SyncError> {
        if self.pass_over(level, at, three)? {
            return Ok(());
        }
        let remote = three.remote.map(decode).transpose()?;
        let is_hidden = self.is_hidden(at, three, remote.as_ref());
        if is_hidden {
            level.hidden += usize::from(three.listed.is_some());
            return self.keep_hidden(level, three);
        }
        let base = three.base().map(|row| decode(&row.entry)).transpose()?;
        let (local, stamp) = match three.listed {
            None => (None, None),
            Some(stamp) if stamp.kind == FOLDER => (None, Some(stamp)),
            Some(stamp) => match self.local_leaf(at, three, &stamp)? {
                Some((entry, stamp)) => (Some(entry), Some(stamp)),
                None => return self.keep_remote(level, three),
            },
        };
        let local_side = match (&local, stamp) {
            (Some(entry), _) => Side::Leaf(entry),
            (None, Some(_)) => Side::Folder,
            (None, None) => Side::Absent,
        };
        let decision = decide(
            Side::of(base.as_ref()),
            local_side,
            Side::of(remote.as_ref()),
        );
        let sides = Sides {
            base,
            local: local.zip(stamp),
            stamp,
            remote,
        };
        if self.has_to_wait(level, at, three, &sides, decision) {
            self.notes.failed.insert(at.clone());
            // What was to be looked at waits with it: the name itself, and what is below it.
            let below = self.job.dirty.at_and_below(&join(at, three.name));
            self.notes.again.extend(below);
            if level.local != Local::Trusted {
                self.notes.again.insert(at.clone());
            }
            return self.keep_remote(level, three);
        }
        match decision {
            Decision::Agreed => self.agreed(level, three, &sides),
            Decision::TakeRemote => self.take_remote(level, three, sides),
            Decision::TakeLocal => self.take_local(level, at, three, &sides),
            Decision::MoveLocal => self.move_local(level, at, three, sides),
            Decision::MoveRemote => self.move_remote(level, at, three, &sides),
            Decision::Descend => self.descend(level, at, three, sides),
        }
    }

    /// Whether a name has to wait: something here may have changed of which this round does not know. Folders that both
    /// sides have are gone into all the same, and each of their names is asked about.
    fn has_to_wait(
        &self,
        level: &Level<'_>,
        at: &[u8],
        three: &Three<'_>,
        sides: &Sides,
        decision: Decision,
    ) -> bool {
        let later = self.job.later;
        let is_unseen = level.local == Local::Trusted && later.has(at);
        let mode_of = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.metadata.mode);
        let is_folder = |entry: &Entry| parts_of(entry).is_some();
        match decision {
            Decision::Agreed => false,
            Decision::Descend if sides.remote.as_ref().is_some_and(is_folder) => {
                is_unseen && mode_of(&sides.base) != mode_of(&sides.remote)
            }
            Decision::Descend => is_unseen || later.has_below(&join(at, three.name)),
            _ => is_unseen,
        }
    }

    /// Takes a name over as it is, if neither side can have changed it.
    fn pass_over(
        &mut self,
        level: &mut Level<'_>,
        at: &[u8],
        three: &Three<'_>,
    ) -> Result<bool, SyncError> {
        let (Some(row), Some(remote)) = (three.row, three.remote) else {
            return Ok(false);
        };
        if row.entry != remote {
            return Ok(false);
        }
        let is_unchanged = if row.held {
            three.listed == Some(row.stamp)
        } else {
            level.local == Local::Trusted
        };
        if !is_unchanged {
            return Ok(false);
        }
        if row.child.is_some() {
            let path = join(at, three.name);
            let is_quiet =
                row.complete && level.local != Local::Deep && !self.job.dirty.has_below(&path);
            if !is_quiet {
                return Ok(false);
            }
        }
        if row.held && level.local != Local::Trusted {
            let is_folder = row.child.is_some();
            if self.folder.hides(at, three.name, is_folder) {
                return Ok(false);
            }
        }
        level.entries.push((three.name.to_vec(), remote.to_vec()));
        Ok(true)
    }

    fn is_hidden(&mut self, at: &[u8], three: &Three<'_>, remote: Option<&Entry>) -> bool {
        let is_other = three.listed.is_some_and(|stamp| stamp.kind == OTHER);
        let is_foreign = remote.is_some_and(|entry| !is_synced(entry));
        let is_folder = three.listed.map_or_else(
            || remote.is_some_and(|entry| parts_of(entry).is_some()),
            |stamp| stamp.kind == FOLDER,
        );
        is_other || is_foreign || self.folder.hides(at, three.name, is_folder)
    }

    /// A name that the rules leave out: it stays in the vault as it is there, and here as it is here.
    fn keep_hidden(&mut self, level: &mut Level<'_>, three: &Three<'_>) -> Result<(), SyncError> {
        let Some(remote) = three.remote else {
            if three.row.is_some() {
                self.touch()?;
                self.state.remove(level.id, three.name)?;
            }
            return Ok(());
        };
        level.entries.push((three.name.to_vec(), remote.to_vec()));
        let is_known = three
            .row
            .is_some_and(|row| !row.held && row.entry == remote);
        if !is_known {
            self.touch()?;
            self.state.remove(level.id, three.name)?;
            let row = Row::hidden(three.name, remote.to_vec());
            self.state.put(level.id, &row)?;
        }
        Ok(())
    }

    /// A name whose local side cannot be told in this round.
    fn keep_remote(&mut self, level: &mut Level<'_>, three: &Three<'_>) -> Result<(), SyncError> {
        if let Some(remote) = three.remote {
            level.entries.push((three.name.to_vec(), remote.to_vec()));
        }
        self.touch()
    }

    /// The entry of a local file or link, read only if it is not known. `None`: it cannot be read, which was noted.
    fn local_leaf(
        &mut self,
        at: &[u8],
        three: &Three<'_>,
        stamp: &Stamp,
    ) -> Result<Option<(Entry, Stamp)>, SyncError> {
        if let Some(row) = three.base().filter(|row| row.stamp == *stamp) {
            return Ok(Some((decode(&row.entry)?, *stamp)));
        }
        if let Some(hint) = three.hint.filter(|hint| hint.held && hint.stamp == *stamp) {
            let entry = decode(&hint.entry)?;
            if self.is_stored(&entry)? {
                return Ok(Some((entry, *stamp)));
            }
        }
        if Name::new(three.name).is_err() {
            return Ok(None);
        }
        match self.folder.read(at, three.name, stamp, self.sink) {
            Ok(read) => Ok(Some((read.entry, read.stamp))),
            Err(trouble) => {
                self.notes.trouble(at, three.name, trouble)?;
                Ok(None)
            }
        }
    }

    fn is_stored(&mut self, entry: &Entry) -> Result<bool, SyncError> {
        let Kind::File { content, .. } = &entry.kind else {
            return Ok(true);
        };
        if content.levels > 0 {
            return Ok(false);
        }
        for reference in &content.list {
            if !self.sink.has(&reference.id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
