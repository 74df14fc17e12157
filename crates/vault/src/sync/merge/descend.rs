//! Names that are folders on at least one side, and what becomes of them when their own names are decided.

use std::rc::Rc;

use super::{Done, Local, Place, Remote, Sides, Store, Three, Walk, encode, parts_of};
use crate::node::{Entry, References};
use crate::sync::SyncError;
use crate::sync::apply::Action;
use crate::sync::folder::{Folder, join};
use crate::sync::record::{FOLDER, OWNER_MODE, Row, Stamp};
use crate::sync::state::encode_parts;

use super::Level;

impl<S: Store, F: Folder<S>> Walk<'_, S, F> {
    /// Goes into a folder that the base, and at least one side, has.
    pub(super) fn descend(
        &mut self,
        level: &mut Level<'_>,
        at: &mut Vec<u8>,
        three: &Three<'_>,
        sides: Sides,
    ) -> Result<(), SyncError> {
        let path = join(at, three.name);
        let known = three.base().filter(|row| row.child.is_some());
        let is_local = sides.local.is_none() && sides.stamp.is_some();
        let remote = remote_side(known, &sides);
        let local = match sides.stamp.filter(|_| is_local) {
            None => Local::Absent,
            Some(stamp) => self.local_side(level, known, &stamp, &path),
        };
        let is_quiet = known.is_some_and(|row| row.complete) && !self.job.dirty.has_below(&path);
        if local == Local::Trusted && is_quiet && matches!(remote, Remote::Absent) {
            return self.drop_tree(level, three, &sides);
        }
        if local == Local::Absent
            && sides.local.is_none()
            && matches!(remote, Remote::Base(_))
            && let Some(child) = known.and_then(|row| row.child)
            && self.state.holds_all_below(child)?
        {
            return self.pend(level, three.name, None);
        }
        let hint = match (local, sides.stamp) {
            (Local::Deep, Some(stamp)) if known.is_none_or(|row| !is_same_folder(row, &stamp)) => {
                self.state.folder_with(&stamp)?
            }
            _ => None,
        };
        let id = known
            .and_then(|row| row.child)
            .unwrap_or_else(|| self.state.new_folder());
        let first_action = self.actions.len();
        let place = Place {
            id,
            hint,
            local,
            remote,
        };
        let (Some(outcome), touched) = self.enter(level, at, three.name, place)? else {
            return self.keep_remote(level, three);
        };
        let has_remote = sides
            .remote
            .as_ref()
            .is_some_and(|one| parts_of(one).is_some());
        let below = Below {
            id,
            parts: outcome.parts,
            count: outcome.count,
            differs: outcome.differs,
            touched,
            first_action,
        };
        match (is_local, has_remote) {
            (true, true) => self.both_folders(level, three, &sides, below),
            (true, false) => self.local_folder(level, three, &sides, below),
            (false, _) => self.remote_folder(level, at, three, sides, below),
        }
    }

    fn local_side(
        &self,
        level: &Level<'_>,
        known: Option<&Row>,
        stamp: &Stamp,
        path: &[u8],
    ) -> Local {
        match known {
            Some(row) if is_same_folder(row, stamp) && level.local != Local::Deep => {
                if self.job.dirty.has(path) {
                    Local::Listed
                } else {
                    Local::Trusted
                }
            }
            _ => Local::Deep,
        }
    }

    /// A folder that nobody changed here, and that the remote tree has no more.
    fn drop_tree(
        &mut self,
        level: &mut Level<'_>,
        three: &Three<'_>,
        sides: &Sides,
    ) -> Result<(), SyncError> {
        if let (Some(row), Some(child)) = (three.row, three.row.and_then(|row| row.child)) {
            self.act(Action::RemoveTree {
                folder: level.id,
                at: Rc::clone(&level.at),
                name: three.name.to_vec(),
                child,
                stamp: row.stamp,
                parts: sides
                    .base
                    .as_ref()
                    .and_then(parts_of)
                    .map(encode_parts)
                    .unwrap_or_default(),
            })?;
        }
        self.remote_leaf(level, three, sides.remote.as_ref())
    }

    /// The remote tree has a file where a folder was.
    fn remote_leaf(
        &mut self,
        level: &mut Level<'_>,
        three: &Three<'_>,
        remote: Option<&Entry>,
    ) -> Result<(), SyncError> {
        let (Some(remote), Some(encoded)) = (remote, three.remote) else {
            return Ok(());
        };
        level.entries.push((three.name.to_vec(), encoded.to_vec()));
        self.act(Action::Put {
            folder: level.id,
            at: Rc::clone(&level.at),
            entry: remote.clone(),
            old: None,
        })
    }

    fn both_folders(
        &mut self,
        level: &mut Level<'_>,
        three: &Three<'_>,
        sides: &Sides,
        below: Below,
    ) -> Result<(), SyncError> {
        let (Some(remote), Some(stamp), Some(encoded)) = (&sides.remote, sides.stamp, three.remote)
        else {
            return self.keep_remote(level, three);
        };
        let mode = self.merged_mode(three, sides, remote, &stamp);
        // One that was made open for its owner stays so.
        if mode != stamp.mode && mode | OWNER_MODE != stamp.mode {
            self.act(Action::DressFolder {
                folder: level.id,
                at: Rc::clone(&level.at),
                name: three.name.to_vec(),
                mode,
            })?;
        }
        if below.differs || mode != remote.metadata.mode {
            let metadata = self.folder_metadata(mode);
            return self.keep_folder(level, three.name, below.id, stamp, metadata, below.parts);
        }
        level.entries.push((three.name.to_vec(), encoded.to_vec()));
        let row = folder_row(three.name, below.id, stamp, encoded);
        let is_recorded = three.row.is_some_and(|known| {
            known.complete
                && !below.touched
                && known.held
                && known.child == row.child
                && known.stamp == row.stamp
                && known.entry == row.entry
        });
        if !is_recorded {
            self.put_row(level.id, &row)?;
            self.will_be_done(level, three.name, encoded);
        }
        Ok(())
    }

    /// The mode of a folder that both sides have. What was recorded here is compared, and not what the tree says:
    /// a folder that is closed to its owner is made open here, so that it can be kept in step.
    fn merged_mode(&self, three: &Three<'_>, sides: &Sides, remote: &Entry, stamp: &Stamp) -> u32 {
        let is_remote_as_before = sides
            .base
            .as_ref()
            .is_some_and(|base| base.metadata.mode == remote.metadata.mode);
        let is_local_as_before = three.base().is_some_and(|row| row.stamp.mode == stamp.mode);
        if is_remote_as_before && !is_local_as_before {
            stamp.mode
        } else {
            remote.metadata.mode
        }
    }

    fn will_be_done(&mut self, level: &Level<'_>, name: &[u8], entry: &[u8]) {
        self.notes.done.push(Done {
            folder: level.id,
            name: name.to_vec(),
            path: join(&level.at, name),
            entry: entry.to_vec(),
        });
    }

    /// A folder here, and none in the remote tree, where there was one.
    fn local_folder(
        &mut self,
        level: &mut Level<'_>,
        three: &Three<'_>,
        sides: &Sides,
        below: Below,
    ) -> Result<(), SyncError> {
        let Some(stamp) = sides.stamp else {
            return self.keep_remote(level, three);
        };
        if below.count == 0 {
            self.act(Action::RemoveFolder {
                folder: level.id,
                at: Rc::clone(&level.at),
                name: three.name.to_vec(),
            })?;
            return self.remote_leaf(level, three, sides.remote.as_ref());
        }
        let metadata = self.folder_metadata(stamp.mode);
        self.keep_folder(level, three.name, below.id, stamp, metadata, below.parts)?;
        self.remote_aside(level, three.name, sides.remote.as_ref())
    }

    /// A folder in the remote tree, and none here, where there was one.
    fn remote_folder(
        &mut self,
        level: &mut Level<'_>,
        at: &[u8],
        three: &Three<'_>,
        sides: Sides,
        below: Below,
    ) -> Result<(), SyncError> {
        if below.count == 0 {
            let Some((entry, stamp)) = &sides.local else {
                return self.pend(level, three.name, None);
            };
            let encoded = encode(entry);
            self.pend(level, three.name, Some((None, stamp, &encoded)))?;
            level.entries.push((three.name.to_vec(), encoded));
            return Ok(());
        }
        if let Some((entry, stamp)) = &sides.local
            && !self.put_aside(level, at, three.name, entry, stamp)?
        {
            self.actions.truncate(below.first_action);
            return self.keep_remote(level, three);
        }
        let (Some(remote), Some(encoded)) = (&sides.remote, three.remote) else {
            return Ok(());
        };
        let make = Action::MakeFolder {
            folder: level.id,
            at: Rc::clone(&level.at),
            child: below.id,
            name: three.name.to_vec(),
            metadata: remote.metadata.clone(),
        };
        self.touch()?;
        self.actions.insert(below.first_action, make);
        let mut stamp = Stamp::nothing();
        stamp.kind = FOLDER;
        if below.differs {
            let metadata = remote.metadata.clone();
            return self.keep_folder(level, three.name, below.id, stamp, metadata, below.parts);
        }
        level.entries.push((three.name.to_vec(), encoded.to_vec()));
        self.put_row(level.id, &folder_row(three.name, below.id, stamp, encoded))?;
        self.will_be_done(level, three.name, encoded);
        Ok(())
    }
}

/// What came of the names below a name.
struct Below {
    id: i64,
    parts: References,
    count: usize,
    differs: bool,
    touched: bool,
    /// Where the actions of what is below begin.
    first_action: usize,
}

fn is_same_folder(row: &Row, stamp: &Stamp) -> bool {
    (row.stamp.inode, row.stamp.device) == (stamp.inode, stamp.device)
}

fn folder_row(name: &[u8], child: i64, stamp: Stamp, entry: &[u8]) -> Row {
    Row {
        name: name.to_vec(),
        child: Some(child),
        complete: false,
        held: true,
        stamp,
        entry: entry.to_vec(),
    }
}

fn remote_side(known: Option<&Row>, sides: &Sides) -> Remote {
    let Some(parts) = sides.remote.as_ref().and_then(parts_of) else {
        return Remote::Absent;
    };
    let base = sides.base.as_ref().and_then(parts_of);
    let is_base = known.is_some_and(|row| row.complete)
        && base.is_some_and(|base| encode_parts(base) == encode_parts(parts));
    if is_base {
        Remote::Base(parts.clone())
    } else {
        Remote::Parts(parts.clone())
    }
}
