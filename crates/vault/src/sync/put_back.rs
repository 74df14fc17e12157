//! A cell that was put back to an earlier state, and a person who accepted that.
//!
//! The folder has what the cell lost. Merged as always, the vault's older tree would look like a change of somebody
//! else's, and undo it here. So the newest tree that both had becomes the base, name by name: everything that
//! the folder has beyond it is a change of this device, and goes to the vault again. What other devices bring back
//! meanwhile is merged with it like any change of theirs.

use std::collections::BTreeMap;

use super::merge::{decode, encode, is_synced, parts_of};
use super::record::{FILE, FOLDER, Row, Stamp};
use super::state::{State, TOP};
use super::{SYNC_DEPTH_MAX, SyncError};
use crate::node::{Entry, Item, References};
use crate::tree::{ChunkSource, DirectoryReader, TreeError};

/// Makes the tree of a head the base: of the newest one that the cell has now and of which this folder had the whole
/// tree. `None`: there is no such head any more.
///
/// A base that is not newer stays as it is. Of one that is not whole, or that has nothing in common with what the cell
/// has, nothing is known: it is forgotten, and what differs is kept twice.
pub(super) fn rebase(
    state: &mut State,
    common: Option<(u64, &References)>,
    source: &mut dyn ChunkSource,
) -> Result<(), SyncError> {
    let (Some(known), Some((counter, parts))) = (state.counter()?, common) else {
        return Ok(state.clear()?);
    };
    if known <= counter {
        return Ok(());
    }
    state.set_top(None)?;
    state.forget_heads_after(counter)?;
    rebase_folder(state, TOP, parts.clone(), source, 0)
}

fn rebase_folder(
    state: &mut State,
    folder: i64,
    parts: References,
    source: &mut dyn ChunkSource,
    depth: usize,
) -> Result<(), SyncError> {
    if depth > SYNC_DEPTH_MAX {
        return Err(TreeError::TooDeep.into());
    }
    let rows = state.rows(folder)?;
    let mut rows: BTreeMap<Vec<u8>, Row> = rows
        .into_iter()
        .map(|row| (row.name.clone(), row))
        .collect();
    let mut reader = DirectoryReader::new(parts);
    while let Some(item) = reader.next(source)? {
        let Item::Entry(entry) = item else { continue };
        let known = rows.remove(entry.name.as_bytes());
        let row = rebased(state, known, &entry)?;
        state.put(folder, &row)?;
        if let (Some(child), Some(parts)) = (row.child, parts_of(&entry)) {
            rebase_folder(state, child, parts.clone(), source, depth + 1)?;
        }
    }
    for name in rows.into_keys() {
        state.remove(folder, &name)?;
    }
    Ok(())
}

/// The row of a name of the tree. A file that is not recorded as this very entry is read again.
fn rebased(state: &mut State, known: Option<Row>, entry: &Entry) -> Result<Row, SyncError> {
    let encoded = encode(entry);
    let held = known
        .as_ref()
        .map_or_else(|| is_synced(entry), |row| row.held);
    let is_folder = parts_of(entry).is_some();
    let mut stamp = Stamp::nothing();
    stamp.kind = if is_folder { FOLDER } else { FILE };
    let mut child = None;
    if let Some(known) = &known {
        let was_folder = parts_of(&decode(&known.entry)?).is_some();
        if is_folder && was_folder {
            stamp = known.stamp;
            child = known.child;
        } else if known.entry == encoded {
            stamp = known.stamp;
        }
    }
    if is_folder && held && child.is_none() {
        child = Some(state.new_folder());
    }
    Ok(Row {
        name: entry.name.as_bytes().to_vec(),
        child,
        complete: false,
        held,
        stamp,
        entry: encoded,
    })
}
