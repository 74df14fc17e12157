//! What the kernel knows by number. A number stays the same for as long as the kernel remembers it,
//! and two names of one file have one number.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use candor_vault::RandomReader;
use candor_vault::name::Name;
use candor_vault::node::{self, Entry, References};
use candor_vault::tree::TreeError;

use super::Shown;

/// The number of the mounted folder itself; the kernel's protocol says so.
pub(super) const TOP: u64 = 1;

/// Something with a number.
#[derive(Clone)]
pub(super) enum Node {
    /// The mounted folder.
    Top,
    /// A set's folder.
    Set(Arc<str>),
    /// The link to a set's newest snapshot.
    Newest(Arc<str>),
    /// A snapshot's folder.
    Snapshot(Arc<SnapshotNode>),
    /// Something in a snapshot. Its entry is kept as it is stored: there may be millions.
    Inside {
        snapshot: Arc<SnapshotNode>,
        /// The folder in which it was found.
        parent: u64,
        entry: Arc<[u8]>,
    },
}

/// A snapshot that somebody looked at.
pub(super) struct SnapshotNode {
    pub(super) set: Arc<str>,
    pub(super) shown: Shown,
    top: OnceLock<References>,
}

impl SnapshotNode {
    pub(super) fn new(set: Arc<str>, shown: Shown) -> Self {
        Self {
            set,
            shown,
            top: OnceLock::new(),
        }
    }

    pub(super) fn reader(&self) -> &RandomReader {
        &self.shown.reader
    }

    /// What its folder holds, read when somebody looks into it.
    pub(super) fn top(&self) -> Result<&References, TreeError> {
        if let Some(top) = self.top.get() {
            return Ok(top);
        }
        let root = self.reader().root(self.shown.root)?;
        Ok(self.top.get_or_init(|| root.parts))
    }
}

/// What makes a node the one that it is.
#[derive(Hash, PartialEq, Eq)]
pub(super) enum Identity<'a> {
    Named {
        parent: u64,
        name: &'a [u8],
    },
    /// All names of a file with several, as long as nothing but the name differs: a file that changed while its names
    /// were read is two.
    Linked {
        snapshot: &'a str,
        entry: Arc<[u8]>,
    },
}

struct Known {
    node: Node,
    /// A second hash of its identity, to tell apart what has the same number.
    check: u64,
    /// How often the kernel was told of it, and has not forgotten it since.
    lookups: u64,
}

/// All nodes that the kernel knows.
pub(super) struct Nodes {
    numbers: RandomState,
    checks: RandomState,
    known: Mutex<HashMap<u64, Known>>,
}

impl Nodes {
    pub(super) fn new() -> Self {
        let top = Known {
            node: Node::Top,
            check: 0,
            lookups: 1,
        };
        Self {
            numbers: RandomState::new(),
            checks: RandomState::new(),
            known: Mutex::new(HashMap::from([(TOP, top)])),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        // Nodes go in and out whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, number: u64) -> Option<Node> {
        self.known().get(&number).map(|known| known.node.clone())
    }

    /// The number that something has, or would get. The kernel is not told.
    pub(super) fn number(&self, identity: &Identity<'_>) -> u64 {
        let (known, check) = (self.known(), self.checks.hash_one(identity));
        self.free(&known, identity, check)
    }

    /// The number, with which the kernel is told of the node now.
    pub(super) fn tell(&self, identity: &Identity<'_>, node: impl FnOnce() -> Node) -> u64 {
        let (mut known, check) = (self.known(), self.checks.hash_one(identity));
        let number = self.free(&known, identity, check);
        match known.entry(number) {
            Slot::Occupied(mut slot) => slot.get_mut().lookups += 1,
            Slot::Vacant(slot) => {
                slot.insert(Known {
                    node: node(),
                    check,
                    lookups: 1,
                });
            }
        }
        number
    }

    /// The kernel forgot a node so many times.
    pub(super) fn forget(&self, number: u64, times: u64) {
        let mut known = self.known();
        if number == TOP {
            return;
        }
        if let Slot::Occupied(mut slot) = known.entry(number) {
            let left = slot.get().lookups.saturating_sub(times);
            slot.get_mut().lookups = left;
            if left == 0 {
                slot.remove();
            }
        }
    }

    /// The first number, from the hash on, that is this node's or nobody's.
    fn free(&self, known: &HashMap<u64, Known>, identity: &Identity<'_>, check: u64) -> u64 {
        let mut number = self.numbers.hash_one(identity);
        loop {
            // 0 means nothing to the kernel, and 1 is the top.
            if number > TOP && known.get(&number).is_none_or(|other| other.check == check) {
                return number;
            }
            number = number.wrapping_add(1);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.known().len()
    }
}

/// The identity of an entry of a snapshot's folder.
pub(super) fn identity_of<'a>(
    snapshot: &'a SnapshotNode,
    parent: u64,
    entry: &'a Entry,
) -> Identity<'a> {
    let name = entry.name.as_bytes();
    match (entry.link, Name::new(b"-")) {
        (Some(_), Ok(no_name)) => {
            let mut unnamed = entry.clone();
            unnamed.name = no_name;
            Identity::Linked {
                snapshot: &snapshot.shown.id,
                entry: packed(&unnamed),
            }
        }
        _ => Identity::Named { parent, name },
    }
}

/// An entry in few bytes.
pub(super) fn packed(entry: &Entry) -> Arc<[u8]> {
    let mut bytes = Vec::new();
    node::encode_entry(entry, &mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_as_long_as_the_kernel_remembers_them() {
        let nodes = Nodes::new();
        let docs = Identity::Named {
            parent: TOP,
            name: b"docs",
        };
        let set = || Node::Set("docs".into());
        let number = nodes.tell(&docs, set);
        assert_eq!(nodes.tell(&docs, set), number);
        assert_eq!(nodes.number(&docs), number);
        let other = Identity::Named {
            parent: number,
            name: b"docs",
        };
        assert_ne!(nodes.tell(&other, set), number);
        nodes.forget(number, 1);
        assert!(nodes.get(number).is_some());
        nodes.forget(number, 1);
        assert!(nodes.get(number).is_none());
        nodes.forget(TOP, 1000);
        assert!(nodes.get(TOP).is_some());
        assert_eq!(nodes.count(), 2);
    }

    #[test]
    fn names_of_one_file_have_one_number() {
        let nodes = Nodes::new();
        let link = |group| Identity::Linked {
            snapshot: "0123",
            entry: Arc::from([group; 16]),
        };
        let set = || Node::Set("docs".into());
        assert_eq!(nodes.tell(&link(1), set), nodes.tell(&link(1), set));
        assert_ne!(nodes.tell(&link(1), set), nodes.tell(&link(2), set));
    }
}
