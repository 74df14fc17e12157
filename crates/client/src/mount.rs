//! Snapshots as folders: what a mounted vault shows, apart from the kernel's protocol.
//!
//! `SET/2026-11-26T18:41:52Z/…` for each snapshot, and `SET/latest`, a link to the newest. Below a
//! snapshot is the tree as it was backed up. Nothing can be changed, and nothing of what the kernel
//! asks for changes while it is mounted, but for snapshots that are added.

mod attributes;
pub(crate) mod filesystem;
mod keeper;
mod nodes;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use candor_vault::{ChunkId, RandomReader, SnapshotEntry};
use candor_wire::Millis;

pub(crate) use keeper::{Keeper, Trouble, Way, Work};

/// The name of the link to a set's newest snapshot.
const NEWEST: &str = "latest";

/// Digits of a snapshot's id behind its time, where several of a set are of the same second.
const ID_DIGITS: usize = 8;

/// A snapshot of the mounted ones.
#[derive(Clone)]
pub(crate) struct Shown {
    /// The name of its folder.
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) time: Millis,
    pub(crate) root: ChunkId,
    pub(crate) reader: Arc<RandomReader>,
}

/// All sets with their snapshots, the oldest first.
#[derive(Default)]
pub(crate) struct Catalog {
    pub(crate) sets: BTreeMap<String, Vec<Shown>>,
}

impl Catalog {
    /// Adds the snapshots of a vault.
    pub(crate) fn add(&mut self, snapshots: &[SnapshotEntry], reader: &Arc<RandomReader>) {
        for entry in snapshots {
            let set = self.sets.entry(folder_name(&entry.set)).or_default();
            set.push(Shown {
                name: time_name(entry.time),
                id: entry.id.to_string(),
                time: entry.time,
                root: entry.root,
                reader: Arc::clone(reader),
            });
        }
    }

    /// Puts snapshots in order and tells those of one second apart.
    pub(crate) fn finish(mut self) -> Self {
        for set in self.sets.values_mut() {
            let one_vault = set
                .windows(2)
                .all(|two| Arc::ptr_eq(&two[0].reader, &two[1].reader));
            // A vault lists its snapshots in the order in which they were made; clocks may have been wrong.
            if !one_vault {
                set.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
            }
            let mut times: BTreeMap<String, usize> = BTreeMap::new();
            for shown in set.iter() {
                *times.entry(shown.name.clone()).or_default() += 1;
            }
            for shown in set.iter_mut().filter(|shown| times[&shown.name] > 1) {
                let digits = shown.id.get(..ID_DIGITS).unwrap_or(&shown.id);
                shown.name = format!("{}-{digits}", shown.name);
            }
        }
        self
    }

    pub(crate) fn snapshots(&self) -> usize {
        self.sets.values().map(Vec::len).sum()
    }

    fn find(&self, set: &str, name: &str) -> Option<&Shown> {
        self.sets.get(set)?.iter().find(|shown| shown.name == name)
    }
}

/// The newest catalog, for all who look at it.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<RwLock<Arc<Catalog>>>);

impl Shelf {
    pub(crate) fn put(&self, catalog: Catalog) {
        let catalog = Arc::new(catalog);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = catalog;
    }

    pub(crate) fn get(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The name of a set's folder: as other devices gave it, it may be one that no folder can have.
fn folder_name(set: &str) -> String {
    let plain: String = set
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    match plain.as_str() {
        "" | "." | ".." => format!("set-{plain}"),
        _ => plain,
    }
}

/// `2026-11-26T18:41:52Z`.
fn time_name(time: Millis) -> String {
    let at = time.calendar();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        at.year, at.month, at.day, at.hour, at.minute, at.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_sets_have_names_that_folders_can_have() {
        let cases = [
            ("documents", "documents"),
            ("a/../b", "a_.._b"),
            ("..", "set-.."),
            ("", "set-"),
            ("two\nlines", "two_lines"),
        ];
        for (set, folder) in cases {
            assert_eq!(folder_name(set), folder);
        }
        assert_eq!(time_name(Millis(1_798_761_599_999)), "2026-12-31T23:59:59Z");
    }
}
