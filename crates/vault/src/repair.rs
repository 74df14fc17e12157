//! Repair: a vault goes on without objects that are missing or damaged.
//!
//! Content is known by its name wherever it lies. So a pack that cannot be used is taken out of the vault's
//! lists, and nothing else is: snapshots keep naming what was in it, and the next backup finds that it is
//! not stored and sends it again, if it is still in the person's files. Then all snapshots that need it are
//! whole again, the old ones too. Index objects that cannot be used are made anew from the local index.

use std::collections::{HashMap, HashSet};

use candor_wire::ObjectId;
use candor_wire::head::CONDEMNED_MAX;

use crate::check::Damage;
use crate::index::IndexError;
use crate::manifest::IndexReference;
use crate::ports::{ObjectSink, ObjectSource, SourceError};
use crate::prune::relist;
use crate::reader::{OpenPack, ReadError, fetch};
use crate::repository::{Change, Repository, RepositoryError, Staged};

/// How many packs are looked at together.
const PACKS_PER_PAGE: usize = 256;

/// What of `found` is lost still. A check may have been hours ago, and a disk may have been away for a moment: what is
/// there now, and right, is not lost.
pub fn still_lost(
    repository: &Repository,
    found: &HashMap<ObjectId, Damage>,
    source: &dyn ObjectSource,
) -> Result<HashMap<ObjectId, Damage>, RepositoryError> {
    let keys = repository.keys();
    let mut lost = HashMap::new();
    for (object, damage) in found {
        match fetch(source, *object) {
            // It has its name's bytes, and may still be one that nobody can use.
            Ok(bytes) if *damage == Damage::Altered => {
                let opened = OpenPack::open(keys, *object, bytes.freeze());
                if opened
                    .and_then(|pack| pack.verify_all(keys, &mut Vec::new()))
                    .is_err()
                {
                    lost.insert(*object, Damage::Altered);
                }
            }
            Ok(_) => {}
            Err(ReadError::Source(SourceError::Missing { .. })) => {
                lost.insert(*object, Damage::Missing);
            }
            Err(ReadError::WrongObject { .. }) => {
                lost.insert(*object, Damage::Altered);
            }
            Err(error) => return Err(RepositoryError::Read(error)),
        }
    }
    Ok(lost)
}

/// Stages a state that names none of `lost`. `None` if the present state names none of them either.
///
/// What is altered is condemned, as far as one head can name it. What is missing is not: if it is there again one day, no
/// word of ours has it deleted before a prune found that nothing needs it.
pub fn stage(
    repository: &Repository,
    lost: &HashMap<ObjectId, Damage>,
    sink: &dyn ObjectSink,
) -> Result<Option<Staged>, RepositoryError> {
    let manifest = repository.manifest();
    let gone = packs_of(repository, lost).map_err(RepositoryError::Index)?;
    let is_lost = |one: &&IndexReference| lost.contains_key(&one.object);
    let without: HashSet<ObjectId> = manifest
        .indexes
        .iter()
        .filter(is_lost)
        .map(|one| one.object)
        .collect();
    if gone.is_empty() && without.is_empty() {
        return Ok(None);
    }
    let numbers = gone.iter().map(|(number, _)| *number).collect();
    let (listed, fresh) = relist(repository.index(), &manifest.indexes, &numbers, &without)
        .map_err(RepositoryError::Index)?;
    let is_altered = |object: &ObjectId| lost.get(object) == Some(&Damage::Altered);
    let condemned: Vec<ObjectId> = gone
        .iter()
        .map(|(_, object)| *object)
        .filter(is_altered)
        .collect();
    let names: Vec<ObjectId> = gone.iter().map(|(_, object)| *object).collect();
    let change = Change {
        snapshots: manifest.snapshots.clone(),
        listed,
        fresh,
        rescued: repository.endangered_but(&names),
        condemned: Vec::new(),
        gone: numbers.into_iter().collect(),
    };
    let mut staged = repository.stage(change, sink)?;
    staged.condemn(condemned.into_iter().take(CONDEMNED_MAX));
    Ok(Some(staged))
}

/// Numbers and names of the packs that are lost.
fn packs_of(
    repository: &Repository,
    lost: &HashMap<ObjectId, Damage>,
) -> Result<Vec<(i64, ObjectId)>, IndexError> {
    let (mut found, mut after) = (Vec::new(), -1);
    loop {
        let page = repository.index().packs(after, PACKS_PER_PAGE)?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = last.number;
        let named = page.iter().map(|pack| (pack.number, pack.object));
        found.extend(named.filter(|(_, object)| lost.contains_key(object)));
    }
}

#[cfg(test)]
#[path = "tests/repair.rs"]
mod tests;
