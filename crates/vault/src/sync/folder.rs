//! What the merge needs of a folder: a port, implemented over the file system and, for the simulation, in memory.

use super::SyncError;
use super::record::Stamp;
use crate::node::{Entry, Metadata};
use crate::report::ProblemKind;
use crate::tree::ChunkSource;

/// Why something in the folder was not done.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It is not what it was a moment ago; the next round sees what it is.
    Changed,
    /// It cannot be done; what is wrong is told, and the rest goes on.
    Refused(ProblemKind),
    /// The round cannot go on.
    Fatal(SyncError),
}

impl From<SyncError> for Trouble {
    fn from(error: SyncError) -> Self {
        Self::Fatal(error)
    }
}

/// What was read of a file or link.
pub(crate) struct ReadEntry {
    /// Its entry; its content is stored.
    pub(crate) entry: Entry,
    /// Its state, to be recorded: one that no file has, if the file is too fresh to be believed.
    pub(crate) stamp: Stamp,
}

/// A folder. Paths are from its top, names joined by `/`, the top being empty. Nothing here follows a
/// symbolic link, replaces what it was not told about, or leaves the folder.
pub(crate) trait Folder<S> {
    /// Names and states of what is in a folder, ascending by name.
    fn list(&mut self, at: &[u8]) -> Result<Vec<(Vec<u8>, Stamp)>, Trouble>;

    /// Whether the rules leave a name out, whichever side has it.
    fn hides(&mut self, at: &[u8], name: &[u8], is_folder: bool) -> bool;

    /// Reads a file or link, storing its content.
    fn read(
        &mut self,
        at: &[u8],
        name: &[u8],
        stamp: &Stamp,
        sink: &mut S,
    ) -> Result<ReadEntry, Trouble>;

    /// Makes a folder. One that is there already is as good, but what is in it is not known. Says whether it is new.
    fn make_folder(
        &mut self,
        at: &[u8],
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<(Stamp, bool), Trouble>;

    /// Sets the mode of a folder.
    fn dress_folder(
        &mut self,
        at: &[u8],
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<Stamp, Trouble>;

    /// Puts a file or link in its place, whole and at once. `old` is what must be there now, with its entry for the
    /// chunks that need not be fetched; `None`: nothing may be there.
    fn put(
        &mut self,
        at: &[u8],
        entry: &Entry,
        old: Option<(&Stamp, &Entry)>,
        source: &mut dyn ChunkSource,
    ) -> Result<Stamp, Trouble>;

    /// Removes a file or link that still is what it was.
    fn remove(&mut self, at: &[u8], name: &[u8], expected: &Stamp) -> Result<(), Trouble>;

    /// Removes a folder if nothing is in it. Says whether it is gone.
    fn remove_folder(&mut self, at: &[u8], name: &[u8]) -> Result<bool, Trouble>;

    /// Moves something that still is what it was to a name that nothing has.
    fn rename(
        &mut self,
        from: (&[u8], &[u8]),
        to: (&[u8], &[u8]),
        expected: &Stamp,
    ) -> Result<Stamp, Trouble>;

    /// Returns when everything done so far is on the disk.
    fn sync(&mut self) -> Result<(), Trouble>;
}

/// The path of a name.
pub(crate) fn join(at: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = at.to_vec();
    push(&mut path, name);
    path
}

/// Goes into a folder. Returns how long the path was before.
pub(crate) fn push(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let before = path.len();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    before
}
