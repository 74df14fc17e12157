//! The decision about one name: three states in, one of a few outcomes out. Pure.

use crate::node::{Entry, Kind};

/// What a name is on one side.
#[derive(Debug, Clone, Copy)]
pub enum Side<'a> {
    /// It is not there.
    Absent,
    /// A file or a symbolic link.
    Leaf(&'a Entry),
    /// A folder. What is in it is decided name by name.
    Folder,
}

impl<'a> Side<'a> {
    /// The side of an entry.
    pub fn of(entry: Option<&'a Entry>) -> Self {
        match entry {
            None => Self::Absent,
            Some(entry) if matches!(entry.kind, Kind::Directory { .. }) => Self::Folder,
            Some(entry) => Self::Leaf(entry),
        }
    }
}

/// What becomes of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Both sides are the same already.
    Agreed,
    /// Only the remote side changed, or its change weighs more: the folder follows.
    TakeRemote,
    /// Only the local side changed, or its change weighs more: the vault follows.
    TakeLocal,
    /// At least one side is a folder, and its names are decided one by one. If none is left and the other side is
    /// a leaf, the leaf takes the name; if some are left, the leaf moves aside.
    Descend,
    /// Both changed. The remote one keeps the name, the local one moves aside.
    MoveLocal,
    /// Both changed. The local folder keeps the name, the remote leaf moves aside.
    MoveRemote,
}

/// Decides about one name.
///
/// | | rule |
/// |---|---|
/// | one side is as in the base | the other side |
/// | both the same | nothing to do |
/// | one side removed it, the other changed it | the change: it can be removed again, and not be brought back |
/// | both changed it, only attributes differ | the remote one, which others may have by now |
/// | both changed it | both stay; the one that has the head already keeps the name |
pub fn decide(base: Side<'_>, local: Side<'_>, remote: Side<'_>) -> Decision {
    use Side::{Absent, Folder, Leaf};
    match (local, remote) {
        (Folder, Folder) => Decision::Descend,
        (Folder, Absent) | (Absent, Folder) => match base {
            Folder => Decision::Descend,
            Absent | Leaf(_) if matches!(local, Folder) => Decision::TakeLocal,
            Absent | Leaf(_) => Decision::TakeRemote,
        },
        (Folder, Leaf(remote)) => match base {
            Leaf(base) if is_same(base, remote) => Decision::TakeLocal,
            Folder => Decision::Descend,
            Absent | Leaf(_) => Decision::MoveRemote,
        },
        (Leaf(local), Folder) => match base {
            Leaf(base) if is_same(base, local) => Decision::TakeRemote,
            Folder => Decision::Descend,
            Absent | Leaf(_) => Decision::MoveLocal,
        },
        (Absent, Absent) => Decision::Agreed,
        (Absent, Leaf(remote)) => match base {
            Leaf(base) if is_same(base, remote) => Decision::TakeLocal,
            _ => Decision::TakeRemote,
        },
        (Leaf(local), Absent) => match base {
            Leaf(base) if is_same(base, local) => Decision::TakeRemote,
            _ => Decision::TakeLocal,
        },
        (Leaf(local), Leaf(remote)) => leaves(base, local, remote),
    }
}

fn leaves(base: Side<'_>, local: &Entry, remote: &Entry) -> Decision {
    if is_same(local, remote) {
        return Decision::Agreed;
    }
    if let Side::Leaf(base) = base {
        if is_same(base, local) {
            return Decision::TakeRemote;
        }
        if is_same(base, remote) {
            return Decision::TakeLocal;
        }
        // Only attributes against content: the content must not be lost, and the attributes are.
        if has_same_content(base, local) {
            return Decision::TakeRemote;
        }
        if has_same_content(base, remote) {
            return Decision::TakeLocal;
        }
    }
    if has_same_content(local, remote) {
        Decision::TakeRemote
    } else {
        Decision::MoveLocal
    }
}

/// Whether two entries hold the same bytes, or point to the same place.
pub(crate) fn has_same_content(a: &Entry, b: &Entry) -> bool {
    match (&a.kind, &b.kind) {
        (
            Kind::File {
                size: size_a,
                content: content_a,
                extents: extents_a,
            },
            Kind::File {
                size: size_b,
                content: content_b,
                extents: extents_b,
            },
        ) => size_a == size_b && content_a == content_b && extents_a == extents_b,
        (Kind::Symlink { target: a }, Kind::Symlink { target: b }) => a == b,
        _ => false,
    }
}

/// Whether two leaves are the same in everything that is synced. Owners are not: they are numbers of one machine.
/// A link has no mode and no time of its own worth syncing.
pub(crate) fn is_same(a: &Entry, b: &Entry) -> bool {
    let (one, other) = (&a.metadata, &b.metadata);
    has_same_content(a, b)
        && (matches!(a.kind, Kind::Symlink { .. })
            || (one.mode == other.mode && one.mtime == other.mtime && one.xattrs == other.xattrs))
}
