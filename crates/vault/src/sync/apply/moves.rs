//! Finds what only moved: a new folder or file that is what one that goes was is moved, and nothing is fetched.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::{Action, Apply, decode, leaf_row};
use crate::node::Entry;
use crate::sync::SyncError;
use crate::sync::decide::is_same;
use crate::sync::folder::{Folder, Trouble, join};
use crate::sync::merge::{encode, parts_of};
use crate::sync::record::{Stamp, content_key};
use crate::sync::state::encode_parts;

/// Most files of removed folders that are looked at to find where a new file came from: beyond this they are
/// fetched again.
const MOVED_FILES_MAX: usize = 100_000;

/// A file that is going, and may be what a new one is.
struct Going {
    folder: i64,
    at: Rc<[u8]>,
    stamp: Stamp,
    entry: Entry,
    /// Its own action, unless it goes with a whole folder.
    action: Option<usize>,
}

impl<F> Apply<'_, F> {
    /// While anything goes, new folders are taken apart, so that what was moved into them is found. Those whose name
    /// something else has until it is removed, and what is beyond the limit, are made as a whole.
    pub(super) fn open_up<S>(&mut self, actions: &mut Vec<Option<Action>>) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        let mut going = HashSet::new();
        let mut in_the_way = HashSet::new();
        for action in actions.iter().flatten() {
            match action {
                Action::RemoveTree { parts, .. } => {
                    going.insert(parts.clone());
                }
                Action::Remove { folder, name, .. } => {
                    in_the_way.insert((*folder, name.clone()));
                }
                _ => {}
            }
        }
        if going.is_empty() && in_the_way.is_empty() {
            return Ok(());
        }
        let mut budget = MOVED_FILES_MAX;
        let mut number = 0;
        while number < actions.len() {
            let is_new = |folder: i64, entry: &Entry| {
                let is_moved =
                    parts_of(entry).is_some_and(|parts| going.contains(&encode_parts(parts)));
                !is_moved && !in_the_way.contains(&(folder, entry.name.as_bytes().to_vec()))
            };
            if let Some(Action::AddFolder { folder, entry, .. }) = &actions[number]
                && is_new(*folder, entry)
                && budget > 0
                && let Some(Action::AddFolder { folder, at, entry }) = actions[number].take()
            {
                self.take_apart(folder, &at, entry, &mut budget, actions)?;
            }
            number += 1;
        }
        Ok(())
    }

    /// Makes a folder, and actions of what is in it.
    fn take_apart<S>(
        &mut self,
        folder: i64,
        at: &[u8],
        entry: Entry,
        budget: &mut usize,
        actions: &mut Vec<Option<Action>>,
    ) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        let Some((child, path, parts)) = self.new_folder(folder, at, entry)? else {
            return Ok(());
        };
        let shared: Rc<[u8]> = Rc::from(path.as_slice());
        self.each_below(child, &path, parts, &mut |_, entry| {
            *budget = budget.saturating_sub(1);
            let at = Rc::clone(&shared);
            actions.push(Some(if parts_of(&entry).is_some() {
                Action::AddFolder {
                    folder: child,
                    at,
                    entry,
                }
            } else {
                Action::Put {
                    folder: child,
                    at,
                    entry,
                    old: None,
                }
            }));
            Ok(())
        })
    }

    /// New folders that are what a folder that goes was: moved in one step, whatever is in them.
    pub(super) fn move_folders<S>(
        &mut self,
        actions: &mut [Option<Action>],
    ) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        let mut going: HashMap<Vec<u8>, usize> = HashMap::new();
        for (number, action) in actions.iter().enumerate() {
            if let Some(Action::RemoveTree { parts, .. }) = action
                && parts.len() > 1
            {
                going.insert(parts.clone(), number);
            }
        }
        if going.is_empty() {
            return Ok(());
        }
        for number in 0..actions.len() {
            let Some(Action::AddFolder { folder, at, entry }) = &actions[number] else {
                continue;
            };
            let Some(&from) = parts_of(entry).and_then(|parts| going.get(&encode_parts(parts)))
            else {
                continue;
            };
            let Some(Action::RemoveTree {
                folder: old_folder,
                at: old_at,
                name,
                stamp,
                ..
            }) = &actions[from]
            else {
                continue;
            };
            let new = entry.name.as_bytes();
            let moved = self.folder.rename((old_at, name), (at, new), stamp);
            match moved {
                Ok(stamp) => {
                    self.state.rename((*old_folder, name), (*folder, new))?;
                    self.record_moved(*folder, at, entry, stamp)?;
                    // What somebody did in it a moment ago was noticed under its old name.
                    self.notes.again.insert(join(&join(at, new), b""));
                    self.counts.moved += 1;
                    actions[number] = None;
                    actions[from] = None;
                }
                Err(Trouble::Fatal(error)) => return Err(error),
                // It is made anew instead.
                Err(Trouble::Changed | Trouble::Refused(_)) => {}
            }
        }
        Ok(())
    }

    /// The row of a folder that was moved.
    fn record_moved<S>(
        &mut self,
        folder: i64,
        at: &[u8],
        entry: &Entry,
        stamp: Stamp,
    ) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        let name = entry.name.as_bytes();
        let mut stamp = stamp;
        if stamp.mode != entry.metadata.mode
            && let Ok(dressed) = self.folder.dress_folder(at, name, &entry.metadata)
            && (dressed.inode, dressed.device) == (stamp.inode, stamp.device)
        {
            stamp = dressed;
        }
        if let Some(mut row) = self.state.row(folder, name)? {
            row.stamp = stamp;
            row.entry = encode(entry);
            row.complete = true;
            self.state.put(folder, &row)?;
        }
        Ok(())
    }

    /// New files that are what a file that goes was.
    pub(super) fn move_files<S>(&mut self, actions: &mut [Option<Action>]) -> Result<(), SyncError>
    where
        F: Folder<S>,
    {
        let mut wanted: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
        for (number, action) in actions.iter().enumerate() {
            if let Some(Action::Put {
                entry, old: None, ..
            }) = action
                && let Some(key) = content_key(entry)
            {
                wanted.entry(key).or_default().push(number);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        for going in self.going(actions)? {
            let Some(key) = content_key(&going.entry) else {
                continue;
            };
            let Some(number) = wanted.get_mut(&key).and_then(Vec::pop) else {
                continue;
            };
            let Some(Action::Put {
                folder, at, entry, ..
            }) = &actions[number]
            else {
                continue;
            };
            if !is_same(&going.entry, entry) {
                continue;
            }
            let (old, new) = (going.entry.name.as_bytes(), entry.name.as_bytes());
            match self
                .folder
                .rename((&going.at, old), (at, new), &going.stamp)
            {
                Ok(mut stamp) => {
                    if stamp.mode != going.stamp.mode {
                        // Somebody changed that meanwhile: the next round sees it.
                        self.notes.again.insert(at.to_vec());
                        stamp = stamp.disbelieved();
                    }
                    self.state.remove(going.folder, old)?;
                    self.state.put(*folder, &leaf_row(entry, stamp))?;
                    self.counts.moved += 1;
                    actions[number] = None;
                    if let Some(action) = going.action {
                        actions[action] = None;
                    }
                }
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Changed | Trouble::Refused(_)) => {}
            }
        }
        Ok(())
    }

    /// Every file that goes, on its own or with its folder.
    fn going(&self, actions: &[Option<Action>]) -> Result<Vec<Going>, SyncError> {
        let mut going = Vec::new();
        for (number, action) in actions.iter().enumerate() {
            match action {
                Some(Action::Remove {
                    folder,
                    at,
                    stamp,
                    key: Some(_),
                    entry,
                    ..
                }) => {
                    if let Some(entry) = decode(entry) {
                        going.push(Going {
                            folder: *folder,
                            at: Rc::clone(at),
                            stamp: *stamp,
                            entry,
                            action: Some(number),
                        });
                    }
                }
                Some(Action::RemoveTree {
                    at, name, child, ..
                }) => self.going_below(*child, join(at, name), &mut going)?,
                _ => {}
            }
        }
        Ok(going)
    }

    fn going_below(
        &self,
        folder: i64,
        at: Vec<u8>,
        going: &mut Vec<Going>,
    ) -> Result<(), SyncError> {
        let mut stack = vec![(folder, at)];
        while let Some((folder, at)) = stack.pop() {
            let shared: Rc<[u8]> = Rc::from(at.as_slice());
            for row in self.state.rows(folder)? {
                if going.len() >= MOVED_FILES_MAX {
                    return Ok(());
                }
                if let Some(child) = row.child {
                    stack.push((child, join(&at, &row.name)));
                } else if row.held
                    && let Some(entry) = decode(&row.entry)
                {
                    going.push(Going {
                        folder,
                        at: Rc::clone(&shared),
                        stamp: row.stamp,
                        entry,
                        action: None,
                    });
                }
            }
        }
        Ok(())
    }
}
