//! Which index objects a new manifest lists: a few in each size class, so that their number grows
//! with the logarithm of the vault and each pack's entry is written again only a few times.

use crate::index_object::{INDEX_HEAD_BYTES, IndexBody};
use crate::manifest::IndexReference;
use crate::seal::BODY_MAX_BYTES;

/// How many index objects of one class are merged into one.
pub(crate) const MERGE_FANOUT: usize = 8;

/// Longest body of the lowest class, in bytes: eight runs that changed little still fit one object
/// of the smallest size.
const LOWEST_CLASS_BYTES: u64 = 48 * 1024;

/// How much larger the bodies of each next class are.
const CLASS_FACTOR: u64 = 8;

/// From this length on an index object is left as it is, in bytes: two of them would not fit one.
const SETTLED_BYTES: u64 = BODY_MAX_BYTES as u64 / 2;

/// Where the packs of a planned index object come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// All packs of an index object that the manifest before lists.
    Listed(IndexReference),
    /// Packs that none lists: number, and length of the encoded table.
    Fresh(Vec<(i64, usize)>),
}

/// An index object of the next manifest. With a single listed origin it is that object, unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) origins: Vec<Origin>,
    pub(crate) body_bytes: u64,
}

/// Plans the index objects of the next manifest.
pub(crate) fn plan(listed: &[IndexReference], fresh: Vec<(i64, usize)>) -> Vec<Planned> {
    let mut planned: Vec<Planned> = listed
        .iter()
        .map(|&reference| Planned {
            origins: vec![Origin::Listed(reference)],
            body_bytes: reference.body_bytes,
        })
        .collect();
    planned.extend(split(fresh));
    while let Some(class) = crowded_class(&planned) {
        planned = merge_class(planned, class);
    }
    planned
}

/// Divides fresh packs into bodies that fit an object each.
fn split(fresh: Vec<(i64, usize)>) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut group = Vec::new();
    let mut bytes = INDEX_HEAD_BYTES;
    let flush = |group: &mut Vec<(i64, usize)>, bytes: usize, planned: &mut Vec<Planned>| {
        if !group.is_empty() {
            let origins = vec![Origin::Fresh(std::mem::take(group))];
            planned.push(Planned {
                origins,
                body_bytes: bytes as u64,
            });
        }
    };
    for (number, table_bytes) in fresh {
        let cost = IndexBody::cost(table_bytes);
        if bytes + cost > BODY_MAX_BYTES {
            flush(&mut group, bytes, &mut planned);
            bytes = INDEX_HEAD_BYTES;
        }
        group.push((number, table_bytes));
        bytes += cost;
    }
    flush(&mut group, bytes, &mut planned);
    planned
}

/// The size class of a body; `None` when it is never merged again.
fn class(body_bytes: u64) -> Option<u32> {
    if body_bytes > SETTLED_BYTES {
        return None;
    }
    let (mut class, mut limit) = (0, LOWEST_CLASS_BYTES);
    while body_bytes > limit {
        class += 1;
        limit *= CLASS_FACTOR;
    }
    Some(class)
}

fn crowded_class(planned: &[Planned]) -> Option<u32> {
    let mut counts = [0usize; 8];
    planned
        .iter()
        .filter_map(|planned| class(planned.body_bytes))
        .find(|&class| {
            let count = &mut counts[class as usize % 8];
            *count += 1;
            *count >= MERGE_FANOUT
        })
}

/// Merges all of a class, in groups that fit an object. Each group has at least two: no member is
/// longer than half an object.
fn merge_class(planned: Vec<Planned>, crowded: u32) -> Vec<Planned> {
    let (members, mut kept): (Vec<_>, Vec<_>) = planned
        .into_iter()
        .partition(|planned| class(planned.body_bytes) == Some(crowded));
    let head = INDEX_HEAD_BYTES as u64;
    let mut merged: Option<Planned> = None;
    for member in members {
        merged = Some(match merged.take() {
            None => member,
            Some(group) if group.body_bytes + member.body_bytes - head > BODY_MAX_BYTES as u64 => {
                kept.push(group);
                member
            }
            Some(mut group) => {
                group.body_bytes += member.body_bytes - head;
                group.origins.extend(member.origins);
                group
            }
        });
    }
    kept.extend(merged);
    kept
}
