//! A synced folder on disk.
//!
//! Everything is relative to the open top: a path is looked up beneath it and through no symbolic link. A
//! file is made in the folder's own hidden folder and appears whole, by a rename. What was in its place is exchanged with
//! it and looked at before it is removed, so that what somebody wrote in the last moment is put back and not lost.

mod content;
mod rules;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use candor_wire::{Nanos, VaultId};
use rustix::io::Errno;

use super::SyncError;
use super::folder::{Folder, ReadEntry, Trouble};
use super::record::{FOLDER, OTHER, OWNER_MODE, SYMLINK, SYNCED_MODE, Stamp};
use super::round::VaultStore;
use crate::backup::BackupError;
use crate::backup::content::{Buffers, FileError, sorted_attributes};
use crate::keys::VaultKeys;
use crate::name::Name;
use crate::node::{Entry, Kind, Metadata, SYMLINK_MAX_BYTES};
use crate::report::{Cancel, ProblemKind, Progress};
use crate::stat_cache::RACY_NANOSECONDS;
use crate::sys::{self, Status};
use crate::tree::ChunkSource;
use rules::FolderRules;

/// Name of the hidden folder at the top of every synced folder: unfinished files, and which vault it belongs to. It
/// is never synced, whichever side has it.
pub const OWN_FOLDER: &str = ".candor-sync";

/// Name of the file in it that says which vault the folder belongs to. A folder without it is not touched: its disk
/// may not be mounted, and an empty mount point must not look like a folder whose files were all deleted.
const MARKER: &str = "folder";

/// Ends the names of files that are about to be placed.
const NEW: &str = ".new";

/// Ends the names of the person's files that are about to be removed.
const ASIDE: &str = ".aside";

/// Ends the names of unfinished downloads.
const PART: &str = ".part";

/// How long an unfinished download that nothing goes on with is kept, in nanoseconds: a week.
const PART_KEPT_NANOSECONDS: i64 = 7 * 24 * 60 * 60 * 1_000_000_000;

/// Most folders that are kept open.
const OPEN_FOLDERS_MAX: usize = 128;

/// Extended attributes that are synced begin like this: all others belong to the machine.
const SYNCED_ATTRIBUTES: &[u8] = b"user.";

/// A folder that was opened for a round.
pub struct DiskFolder<'a> {
    path: PathBuf,
    top: Rc<OwnedFd>,
    own: OwnedFd,
    own_inode: u64,
    device: u64,
    keys: Arc<VaultKeys>,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    rules: FolderRules,
    lister: sys::Lister,
    buffers: Buffers,
    /// Times at or after this are too fresh to be believed, in nanoseconds.
    fresh_after: i64,
    counter: u64,
    /// Begins the names of this process in the hidden folder.
    run: String,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

fn unusable(reason: impl Into<String>, errno: Option<Errno>) -> SyncError {
    SyncError::Folder {
        reason: reason.into(),
        source: errno.map(Into::into),
    }
}

/// What an error of the system means for one name.
pub(super) fn trouble_of(errno: Errno, kind: impl Fn(Errno) -> ProblemKind) -> Trouble {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE | Errno::EXIST => {
            Trouble::Changed
        }
        Errno::NOSPC | Errno::DQUOT => unusable("its disk is full", Some(errno)).into(),
        Errno::ROFS => unusable("its disk is read-only", Some(errno)).into(),
        Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            unusable("the system fails", Some(errno)).into()
        }
        errno => Trouble::Refused(kind(errno)),
    }
}

fn unreadable(errno: Errno) -> Trouble {
    trouble_of(errno, ProblemKind::Unreadable)
}

fn unwritable(errno: Errno) -> Trouble {
    trouble_of(errno, ProblemKind::Unwritable)
}

impl<'a> DiskFolder<'a> {
    /// Makes a directory a synced folder: it gets its hidden folder and its marker. One that belongs to another vault
    /// already is refused.
    pub fn adopt(path: &Path, vault: VaultId) -> Result<(), SyncError> {
        let top = sys::open_directory_path(path)
            .map_err(|errno| unusable("it cannot be opened", Some(errno)))?;
        match sys::create_directory(&top, OWN_FOLDER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(unusable("it cannot be written", Some(errno))),
        }
        let own = sys::open_directory_beneath(&top, OWN_FOLDER)
            .map_err(|errno| unusable("its hidden folder cannot be opened", Some(errno)))?;
        match sys::create_file(&own, MARKER) {
            Ok(file) => sys::write_at(&file, vault.to_string().as_bytes(), 0)
                .and_then(|()| sys::sync_file_system(&top))
                .map_err(|errno| unusable("it cannot be written", Some(errno))),
            Err(Errno::EXIST) => check_marker(&own, vault),
            Err(errno) => Err(unusable("it cannot be written", Some(errno))),
        }
    }

    /// Takes the hidden folder away: the directory is a plain one again.
    pub fn release(path: &Path) -> std::io::Result<()> {
        match std::fs::remove_dir_all(path.join(OWN_FOLDER)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Opens a synced folder for one round. `excludes` are patterns of this device alone, in the syntax of
    /// `.gitignore`; `now` is the time of the system's clock, in nanoseconds.
    pub fn open(
        path: &Path,
        keys: Arc<VaultKeys>,
        excludes: &[String],
        now: Nanos,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self, SyncError> {
        let top = sys::open_directory_path(path)
            .map_err(|errno| unusable("it cannot be opened", Some(errno)))?;
        let own = sys::open_directory_beneath(&top, OWN_FOLDER).map_err(|errno| {
            unusable(
                "its hidden folder is gone; is its disk mounted?",
                Some(errno),
            )
        })?;
        check_marker(&own, keys.vault())?;
        let status = |fd: &OwnedFd| {
            sys::status_of(fd).map_err(|errno| unusable("it cannot be looked at", Some(errno)))
        };
        let (device, own_inode) = (status(&top)?.device, status(&own)?.inode);
        let mut folder = Self {
            path: path.to_owned(),
            rules: FolderRules::new(excludes)?,
            top: Rc::new(top),
            own,
            own_inode,
            device,
            keys,
            open: HashMap::new(),
            lister: sys::Lister::default(),
            buffers: Buffers::default(),
            fresh_after: now.0.saturating_sub(RACY_NANOSECONDS),
            counter: 0,
            run: format!("{:x}-{:x}", std::process::id(), now.0),
            progress,
            cancel,
        };
        folder.recover();
        Ok(folder)
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn directory(&mut self, at: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        if at.is_empty() {
            return Ok(Rc::clone(&self.top));
        }
        if let Some(open) = self.open.get(at) {
            return Ok(Rc::clone(open));
        }
        let opened = Rc::new(sys::open_directory_beneath(&*self.top, at)?);
        if sys::status_of(&*opened)?.inode == self.own_inode {
            return Err(Errno::STALE);
        }
        if self.open.len() >= OPEN_FOLDERS_MAX {
            self.open.clear();
        }
        self.open.insert(at.to_vec(), Rc::clone(&opened));
        Ok(opened)
    }

    /// Forgets open folders after one was moved or removed: their paths may be others' now.
    fn forget_open(&mut self) {
        self.open.clear();
    }

    fn stamp(&self, status: &Status) -> Stamp {
        let mut stamp = Stamp::of(status);
        if stamp.kind == FOLDER && status.device != self.device {
            // Another file system: not followed, and nothing can be moved into it in one step.
            stamp.kind = OTHER;
        }
        stamp
    }

    fn believed(&self, status: &Status) -> Stamp {
        let stamp = self.stamp(status);
        if stamp.kind != FOLDER && stamp.mtime.max(stamp.ctime) >= self.fresh_after {
            return stamp.disbelieved();
        }
        stamp
    }

    /// The stamp of what was just put: nobody else can have written it before, so that only its own time matters.
    fn put_stamp(&self, status: &Status) -> Stamp {
        let stamp = self.stamp(status);
        if stamp.mtime >= self.fresh_after {
            return stamp.disbelieved();
        }
        stamp
    }

    fn check_top(&self) -> Result<(), SyncError> {
        let own = sys::status(&*self.top, OWN_FOLDER);
        if own.is_ok_and(|status| status.inode == self.own_inode) {
            return Ok(());
        }
        Err(unusable(
            "its hidden folder is gone; is its disk mounted?",
            None,
        ))
    }

    /// A name that nothing in the hidden folder has, of whichever process.
    fn own_name(&mut self, ending: &str) -> String {
        self.counter += 1;
        format!("{}-{:x}{ending}", self.run, self.counter)
    }

    fn temporary(&mut self) -> String {
        self.own_name(NEW)
    }

    /// Removes what this device made and could not place. What cannot be removed is in nobody's way.
    fn drop_temporary(&self, name: &str) {
        let _ = sys::remove_file(&self.own, name);
    }

    /// Tidies the hidden folder up after a process that was killed: what it was about to place is made again, and
    /// what it had put aside is the person's and comes out.
    fn recover(&mut self) {
        let Ok(names) = self.lister.list(self.own.as_fd()) else {
            return;
        };
        for number in 0..names.len() {
            let Some(name) = names.get(number) else { break };
            if name.ends_with(NEW.as_bytes()) {
                let _ = sys::remove_file(&self.own, name);
            } else if name.ends_with(ASIDE.as_bytes()) {
                let mut out = b"recovered-".to_vec();
                out.extend_from_slice(&name[..name.len() - ASIDE.len()]);
                let _ = sys::rename_between(&self.own, name, &*self.top, out.as_slice());
            } else if name.ends_with(PART.as_bytes()) {
                let is_old = sys::status(&self.own, name).is_ok_and(|status| {
                    status.ctime < self.fresh_after.saturating_sub(PART_KEPT_NANOSECONDS)
                });
                if is_old {
                    let _ = sys::remove_file(&self.own, name);
                }
            }
        }
    }

    /// Gives a finished file or link its name. `temporary` is gone when this returns, unless somebody changed what was
    /// in its place in the very last moment: what is theirs is put back, or stays aside and comes out later.
    fn place(
        &mut self,
        temporary: &str,
        directory: &OwnedFd,
        name: &[u8],
        old: Option<&Stamp>,
    ) -> Result<(), Trouble> {
        let placed = match old {
            None => sys::rename_between(&self.own, temporary, directory, name).map_err(unwritable),
            Some(old) => self.place_over(temporary, directory, name, old),
        };
        placed.inspect_err(|_| self.drop_temporary(temporary))
    }

    fn place_over(
        &mut self,
        temporary: &str,
        directory: &OwnedFd,
        name: &[u8],
        old: &Stamp,
    ) -> Result<(), Trouble> {
        let there = sys::status(directory, name).map_err(unwritable)?;
        if !is_expected(&Stamp::of(&there), old) {
            return Err(Trouble::Changed);
        }
        let new = sys::status(&self.own, temporary).map_err(unwritable)?.inode;
        // From now on a kill leaves the person's file under this name.
        let aside = self.own_name(ASIDE);
        sys::replace(&self.own, temporary, &self.own, aside.as_str()).map_err(unwritable)?;
        match sys::exchange(&self.own, aside.as_str(), directory, name) {
            Ok(()) => {
                let out = sys::status(&self.own, aside.as_str()).map_err(unwritable)?;
                if Stamp::of(&out).is_same_file(old) {
                    return sys::remove_file(&self.own, aside.as_str()).map_err(unwritable);
                }
                // What came out was saved a moment ago: it goes back.
                match sys::exchange(&self.own, aside.as_str(), directory, name) {
                    Ok(()) => self.drop_if(&aside, new),
                    Err(_) => {
                        let _ = sys::rename_between(&self.own, aside.as_str(), directory, name);
                    }
                }
                Err(Trouble::Changed)
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                self.place_in_two_steps(&aside, directory, name, old)
            }
            Err(errno) => {
                self.drop_if(&aside, new);
                Err(unwritable(errno))
            }
        }
    }

    /// Without an exchange: what is there is put aside, looked at, and then the new one placed.
    fn place_in_two_steps(
        &mut self,
        new: &str,
        directory: &OwnedFd,
        name: &[u8],
        old: &Stamp,
    ) -> Result<(), Trouble> {
        let done = self.put_aside(directory, name, old).and_then(|aside| {
            sys::rename_between(&self.own, new, directory, name).map_err(unwritable)?;
            self.drop_temporary(&aside);
            Ok(())
        });
        done.inspect_err(|_| self.drop_temporary(new))
    }

    /// Moves a file that still is what it was into the hidden folder. One that is not goes back, or comes out later.
    fn put_aside(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        expected: &Stamp,
    ) -> Result<String, Trouble> {
        let there = sys::status(directory, name).map_err(unwritable)?;
        if !is_expected(&Stamp::of(&there), expected) {
            return Err(Trouble::Changed);
        }
        let aside = self.own_name(ASIDE);
        sys::replace(directory, name, &self.own, aside.as_str()).map_err(unwritable)?;
        let out = sys::status(&self.own, aside.as_str()).map_err(unwritable)?;
        if Stamp::of(&out).is_same_file(expected) {
            return Ok(aside);
        }
        // One that cannot go back comes out when the folder is opened next.
        sys::rename_between(&self.own, aside.as_str(), directory, name)
            .map_err(|errno| Trouble::Refused(ProblemKind::Unwritable(errno)))?;
        Err(Trouble::Changed)
    }

    /// Removes what is aside if it is this file, and nobody else's.
    fn drop_if(&self, aside: &str, inode: u64) {
        if sys::status(&self.own, aside).is_ok_and(|status| status.inode == inode) {
            self.drop_temporary(aside);
        }
    }

    fn read_link(&mut self, at: &[u8], name: &[u8]) -> Result<ReadEntry, Trouble> {
        let directory = self.directory(at).map_err(unreadable)?;
        let status = sys::status(&*directory, name).map_err(unreadable)?;
        let target = sys::read_symlink(&*directory, name).map_err(unreadable)?;
        if target.is_empty() || target.len() > SYMLINK_MAX_BYTES {
            return Err(Trouble::Refused(ProblemKind::Unreadable(
                Errno::NAMETOOLONG,
            )));
        }
        let entry = Entry {
            name: Name::new(name)
                .map_err(|reason| Trouble::Refused(ProblemKind::BadName(reason)))?,
            metadata: metadata(&status, Vec::new()),
            link: None,
            kind: Kind::Symlink { target },
        };
        Ok(ReadEntry {
            entry,
            stamp: self.believed(&status),
        })
    }
}

/// Whether what is there is what was recorded. A record that was not believed says nothing about the time of the last
/// change of anything.
fn is_expected(there: &Stamp, recorded: &Stamp) -> bool {
    there == recorded || (recorded.ctime == i64::MIN && there.is_same_file(recorded))
}

fn metadata(status: &Status, xattrs: sys::Attributes) -> Metadata {
    let xattrs = xattrs
        .into_iter()
        .filter(|(name, _)| name.starts_with(SYNCED_ATTRIBUTES))
        .collect();
    Metadata {
        mode: status.mode & SYNCED_MODE,
        uid: status.uid,
        gid: status.gid,
        mtime: Nanos(status.mtime),
        xattrs: sorted_attributes(xattrs).unwrap_or_default(),
    }
}

fn check_marker(own: &OwnedFd, vault: VaultId) -> Result<(), SyncError> {
    let mut text = [0; 64];
    let length = sys::open_file_beneath(own, MARKER)
        .and_then(|file| sys::read_at(&file, &mut text, 0))
        .map_err(|errno| {
            unusable(
                "its marker cannot be read; is its disk mounted?",
                Some(errno),
            )
        })?;
    if text[..length] == *vault.to_string().as_bytes() {
        Ok(())
    } else {
        Err(unusable("it belongs to another vault", None))
    }
}

impl<'v> Folder<VaultStore<'v>> for DiskFolder<'_> {
    fn list(&mut self, at: &[u8]) -> Result<Vec<(Vec<u8>, Stamp)>, Trouble> {
        if at.is_empty() {
            self.check_top()?;
        }
        let directory = self.directory(at).map_err(unreadable)?;
        let names = self.lister.list(directory.as_fd()).map_err(unreadable)?;
        let mut listed = Vec::with_capacity(names.len());
        for number in 0..names.len() {
            let Some(name) = names.get(number) else { break };
            match sys::status(&*directory, name) {
                Ok(status) => listed.push((name.to_vec(), self.stamp(&status))),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(unreadable(errno)),
            }
        }
        Ok(listed)
    }

    fn hides(&mut self, at: &[u8], name: &[u8], is_folder: bool) -> bool {
        if at.is_empty() && name == OWN_FOLDER.as_bytes() {
            return true;
        }
        let top = Rc::clone(&self.top);
        self.rules.hides(&top, at, name, is_folder)
    }

    fn read(
        &mut self,
        at: &[u8],
        name: &[u8],
        stamp: &Stamp,
        sink: &mut VaultStore<'v>,
    ) -> Result<ReadEntry, Trouble> {
        if stamp.kind == SYMLINK {
            return self.read_link(at, name);
        }
        let checked =
            Name::new(name).map_err(|reason| Trouble::Refused(ProblemKind::BadName(reason)))?;
        let directory = self.directory(at).map_err(unreadable)?;
        let status = sys::status(&*directory, name).map_err(unreadable)?;
        if Stamp::of(&status).kind != stamp.kind {
            return Err(Trouble::Changed);
        }
        let stored = sink
            .store_file(
                directory.as_fd(),
                name,
                &status,
                &mut self.buffers,
                self.progress,
                self.cancel,
            )
            .map_err(|error| match error {
                FileError::Problem(ProblemKind::Vanished | ProblemKind::Changed) => {
                    Trouble::Changed
                }
                FileError::Problem(kind) => Trouble::Refused(kind),
                FileError::Fatal(BackupError::Cancelled) => SyncError::Cancelled.into(),
                FileError::Fatal(BackupError::Write(error)) => SyncError::Write(error).into(),
                FileError::Fatal(error) => unusable(error.to_string(), None).into(),
            })?;
        if stored.changed {
            return Err(Trouble::Changed);
        }
        let entry = Entry {
            name: checked,
            metadata: metadata(&stored.status, stored.xattrs),
            link: None,
            kind: stored.kind,
        };
        Ok(ReadEntry {
            entry,
            stamp: self.believed(&stored.status),
        })
    }

    fn make_folder(
        &mut self,
        at: &[u8],
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<(Stamp, bool), Trouble> {
        let directory = self.directory(at).map_err(unwritable)?;
        let is_new = match sys::create_directory(&*directory, name) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(unwritable(errno)),
        };
        let made = sys::open_directory_beneath(&*directory, name).map_err(unwritable)?;
        if is_new {
            sys::set_mode(&made, metadata.mode & SYNCED_MODE | OWNER_MODE).map_err(unwritable)?;
        }
        let status = sys::status_of(&made).map_err(unwritable)?;
        if status.inode == self.own_inode {
            // The hidden folder, under a name that this file system does not tell from its own.
            return Err(Trouble::Refused(ProblemKind::Collision));
        }
        Ok((self.stamp(&status), is_new))
    }

    fn dress_folder(
        &mut self,
        at: &[u8],
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<Stamp, Trouble> {
        let directory = self.directory(at).map_err(unwritable)?;
        let open = sys::open_directory_beneath(&*directory, name).map_err(unwritable)?;
        sys::set_mode(&open, metadata.mode & SYNCED_MODE | OWNER_MODE).map_err(unwritable)?;
        let status = sys::status_of(&open).map_err(unwritable)?;
        Ok(self.stamp(&status))
    }

    fn put(
        &mut self,
        at: &[u8],
        entry: &Entry,
        old: Option<(&Stamp, &Entry)>,
        source: &mut dyn ChunkSource,
    ) -> Result<Stamp, Trouble> {
        let directory = self.directory(at).map_err(unwritable)?;
        let name = entry.name.as_bytes();
        if old.is_none() && sys::status(&*directory, name).is_ok() {
            return Err(Trouble::Changed);
        }
        if let Kind::Symlink { target } = &entry.kind {
            let temporary = self.temporary();
            sys::create_symlink(target.as_slice(), &self.own, temporary.as_str())
                .map_err(unwritable)?;
            self.place(&temporary, &directory, name, old.map(|(stamp, _)| stamp))?;
            let status = sys::status(&*directory, name).map_err(unwritable)?;
            return Ok(self.put_stamp(&status));
        }
        let (temporary, file) =
            self.fill(&directory, entry, old.map(|(_, entry)| entry), source)?;
        self.dress(&file, &entry.metadata)?;
        self.place(&temporary, &directory, name, old.map(|(stamp, _)| stamp))?;
        let status = sys::status_of(&file).map_err(unwritable)?;
        Ok(self.put_stamp(&status))
    }

    fn remove(&mut self, at: &[u8], name: &[u8], expected: &Stamp) -> Result<(), Trouble> {
        let directory = match self.directory(at) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(unwritable(errno)),
        };
        match self.put_aside(&directory, name, expected) {
            Ok(aside) => sys::remove_file(&self.own, aside.as_str()).map_err(unwritable),
            // Gone already is as good.
            Err(Trouble::Changed) if sys::status(&*directory, name) == Err(Errno::NOENT) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    fn remove_folder(&mut self, at: &[u8], name: &[u8]) -> Result<bool, Trouble> {
        let directory = match self.directory(at) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(true),
            Err(errno) => return Err(unwritable(errno)),
        };
        self.forget_open();
        match sys::remove_directory(&*directory, name) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(errno) => Err(unwritable(errno)),
        }
    }

    fn rename(
        &mut self,
        from: (&[u8], &[u8]),
        to: (&[u8], &[u8]),
        expected: &Stamp,
    ) -> Result<Stamp, Trouble> {
        let old = self.directory(from.0).map_err(unwritable)?;
        let new = self.directory(to.0).map_err(unwritable)?;
        if expected.kind != FOLDER {
            let there = sys::status(&*old, from.1).map_err(unwritable)?;
            if !is_expected(&Stamp::of(&there), expected) {
                return Err(Trouble::Changed);
            }
        }
        sys::rename_between(&*old, from.1, &*new, to.1).map_err(unwritable)?;
        self.forget_open();
        let status = sys::status(&*new, to.1).map_err(unwritable)?;
        let moved = self.stamp(&status);
        let is_it = if expected.kind == FOLDER {
            (moved.inode, moved.device) == (expected.inode, expected.device)
        } else {
            moved.is_same_file(expected)
        };
        if !is_it {
            sys::rename_between(&*new, to.1, &*old, from.1).map_err(unwritable)?;
            return Err(Trouble::Changed);
        }
        Ok(if moved.kind == FOLDER {
            moved
        } else {
            self.put_stamp(&status)
        })
    }

    fn sync(&mut self) -> Result<(), Trouble> {
        sys::sync_file_system(&*self.top).map_err(unwritable)
    }
}
