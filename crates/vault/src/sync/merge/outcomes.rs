//! What each decision does to the merged tree, to the base, and to the folder.

use std::rc::Rc;

use candor_wire::Nanos;

use super::{
    Done, Level, Local, Outcome, Place, Remote, Sides, Store, Three, Walk, encode, parts_of,
    renamed,
};
use crate::name::Name;
use crate::node::{Entry, Kind, Metadata, References};
use crate::report::ProblemKind;
use crate::sync::apply::Action;
use crate::sync::folder::{Folder, Trouble, join, push};
use crate::sync::names::conflict_name;
use crate::sync::record::{Row, Stamp, content_key};
use crate::sync::{SYNC_DEPTH_MAX, SyncError};

impl<S: Store, F: Folder<S>> Walk<'_, S, F> {
    pub(super) fn agreed(
        &mut self,
        level: &mut Level<'_>,
        three: &Three<'_>,
        sides: &Sides,
    ) -> Result<(), SyncError> {
        let (Some(remote), Some((_, stamp))) = (three.remote, &sides.local) else {
            if three.row.is_some() {
                self.touch()?;
                self.state.remove(level.id, three.name)?;
            }
            return Ok(());
        };
        level.entries.push((three.name.to_vec(), remote.to_vec()));
        let row = Row::leaf(three.name, *stamp, remote.to_vec());
        if three.row != Some(&row) {
            if three.row.is_some_and(|row| row.child.is_some()) {
                self.state.remove(level.id, three.name)?;
            }
            self.put_row(level.id, &row)?;
        }
        Ok(())
    }

    pub(super) fn take_remote(
        &mut self,
        level: &mut Level<'_>,
        three: &Three<'_>,
        sides: Sides,
    ) -> Result<(), SyncError> {
        let Some(remote) = sides.remote else {
            return self.remove_local(level, three, sides.local);
        };
        if sides.local.is_none() && three.base().is_some() {
            // Its file is gone from here, and what this round sends may already count on that. Were it to come back
            // to this name before the remote one is put, it must not look as if it had never left.
            self.touch()?;
            self.state.remove(level.id, three.name)?;
        }
        if let Some(encoded) = three.remote {
            level.entries.push((three.name.to_vec(), encoded.to_vec()));
        }
        if parts_of(&remote).is_some() {
            self.remove_local(level, three, sides.local)?;
            return self.act(Action::AddFolder {
                folder: level.id,
                at: Rc::clone(&level.at),
                entry: remote,
            });
        }
        self.act(Action::Put {
            folder: level.id,
            at: Rc::clone(&level.at),
            entry: remote,
            old: sides.local.map(|(entry, stamp)| (stamp, encode(&entry))),
        })
    }

    /// The folder loses its file or link, if it has one.
    fn remove_local(
        &mut self,
        level: &Level<'_>,
        three: &Three<'_>,
        local: Option<(Entry, Stamp)>,
    ) -> Result<(), SyncError> {
        let Some((entry, stamp)) = local else {
            return Ok(());
        };
        self.act(Action::Remove {
            folder: level.id,
            at: Rc::clone(&level.at),
            name: three.name.to_vec(),
            stamp,
            key: content_key(&entry),
            entry: encode(&entry),
        })
    }

    pub(super) fn take_local(
        &mut self,
        level: &mut Level<'_>,
        at: &mut Vec<u8>,
        three: &Three<'_>,
        sides: &Sides,
    ) -> Result<(), SyncError> {
        match (&sides.local, sides.stamp) {
            (Some((entry, stamp)), _) => {
                let encoded = encode(entry);
                self.pend(level, three.name, Some((None, stamp, &encoded)))?;
                level.entries.push((three.name.to_vec(), encoded));
                Ok(())
            }
            (None, Some(stamp)) => {
                let is_in_the_way = three.remote.is_some();
                if !self.new_local_folder(level, at, three, stamp, is_in_the_way)? {
                    return self.keep_remote(level, three);
                }
                Ok(())
            }
            (None, None) => self.pend(level, three.name, None),
        }
    }

    /// A folder that only this side has. Says whether the merged tree has it now. One that holds only what the rules
    /// leave out stays out of it, unless it is in the way of something.
    fn new_local_folder(
        &mut self,
        level: &mut Level<'_>,
        at: &mut Vec<u8>,
        three: &Three<'_>,
        stamp: Stamp,
        is_in_the_way: bool,
    ) -> Result<bool, SyncError> {
        let hint = self.state.folder_with(&stamp)?;
        let id = self.state.new_folder();
        let place = Place {
            id,
            hint,
            local: Local::Deep,
            remote: Remote::Absent,
        };
        let (Some(outcome), _) = self.enter(level, at, three.name, place)? else {
            return Ok(false);
        };
        if outcome.only_hidden && !is_in_the_way {
            return Ok(false);
        }
        let metadata = self.folder_metadata(stamp.mode);
        self.keep_folder(level, three.name, id, stamp, metadata, outcome.parts)?;
        Ok(true)
    }

    /// The merged tree has a folder that the remote one does not have like this.
    pub(super) fn keep_folder(
        &mut self,
        level: &mut Level<'_>,
        name: &[u8],
        id: i64,
        stamp: Stamp,
        metadata: Metadata,
        parts: References,
    ) -> Result<(), SyncError> {
        let Ok(checked) = Name::new(name) else {
            return Ok(());
        };
        let entry = Entry {
            name: checked,
            metadata,
            link: None,
            kind: Kind::Directory { parts },
        };
        let encoded = encode(&entry);
        self.pend(level, name, Some((Some(id), &stamp, &encoded)))?;
        self.notes.done.push(Done {
            folder: level.id,
            name: name.to_vec(),
            path: join(&level.at, name),
            entry: encoded.clone(),
        });
        level.entries.push((name.to_vec(), encoded));
        Ok(())
    }

    pub(super) fn folder_metadata(&self, mode: u32) -> Metadata {
        Metadata {
            mode,
            uid: 0,
            gid: 0,
            mtime: Nanos(self.job.now.0.saturating_mul(1_000_000)),
            xattrs: Vec::new(),
        }
    }

    /// Walks a folder below this one. Also says whether its base was touched.
    pub(super) fn enter(
        &mut self,
        level: &Level<'_>,
        at: &mut Vec<u8>,
        name: &[u8],
        place: Place,
    ) -> Result<(Option<Outcome>, bool), SyncError> {
        if self.chain.len() >= SYNC_DEPTH_MAX {
            let trouble = Trouble::Refused(ProblemKind::TooDeep);
            self.notes.trouble(at, name, trouble)?;
            return Ok((None, true));
        }
        let before = push(at, name);
        self.chain.push((level.id, name.to_vec(), false));
        let outcome = self.folder(at, place);
        let touched = self.chain.pop().is_some_and(|(_, _, touched)| touched);
        at.truncate(before);
        Ok((outcome?, touched))
    }

    /// A name for a conflict copy that nothing has.
    fn free_name(&self, level: &mut Level<'_>, name: &[u8], device: &str) -> Vec<u8> {
        (0..)
            .map(|attempt| conflict_name(name, device, self.job.now, attempt))
            .find(|name| {
                level.names.binary_search(&name.as_slice()).is_err()
                    && level.taken.insert(name.clone())
            })
            .unwrap_or_default()
    }

    /// Moves the local file aside, under a name of its own. Says whether it did.
    pub(super) fn put_aside(
        &mut self,
        level: &mut Level<'_>,
        at: &[u8],
        name: &[u8],
        entry: &Entry,
        stamp: &Stamp,
    ) -> Result<bool, SyncError> {
        let aside = self.free_name(level, name, self.job.device);
        let moved = match self.folder.rename((at, name), (at, &aside), stamp) {
            Ok(moved) => moved,
            Err(trouble) => {
                self.notes.trouble(at, name, trouble)?;
                return Ok(false);
            }
        };
        let encoded = encode(&renamed(entry.clone(), &aside));
        self.pend(level, &aside, Some((None, &moved, &encoded)))?;
        level.entries.push((aside, encoded));
        self.notes.conflicts += 1;
        Ok(true)
    }

    pub(super) fn move_local(
        &mut self,
        level: &mut Level<'_>,
        at: &[u8],
        three: &Three<'_>,
        mut sides: Sides,
    ) -> Result<(), SyncError> {
        if let Some((entry, stamp)) = sides.local.take()
            && !self.put_aside(level, at, three.name, &entry, &stamp)?
        {
            return self.keep_remote(level, three);
        }
        self.take_remote(level, three, sides)
    }

    pub(super) fn move_remote(
        &mut self,
        level: &mut Level<'_>,
        at: &mut Vec<u8>,
        three: &Three<'_>,
        sides: &Sides,
    ) -> Result<(), SyncError> {
        let Some(stamp) = sides.stamp else {
            return self.keep_remote(level, three);
        };
        if !self.new_local_folder(level, at, three, stamp, true)? {
            return self.keep_remote(level, three);
        }
        self.remote_aside(level, three.name, sides.remote.as_ref())
    }

    /// The remote file gets another name in the merged tree.
    pub(super) fn remote_aside(
        &mut self,
        level: &mut Level<'_>,
        name: &[u8],
        remote: Option<&Entry>,
    ) -> Result<(), SyncError> {
        let Some(remote) = remote else { return Ok(()) };
        let aside = self.free_name(level, name, self.job.remote_device);
        let entry = renamed(remote.clone(), &aside);
        level.entries.push((aside, encode(&entry)));
        level.differs = true;
        self.notes.conflicts += 1;
        self.act(Action::Put {
            folder: level.id,
            at: Rc::clone(&level.at),
            entry,
            old: None,
        })
    }
}
