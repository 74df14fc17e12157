//! Repair: a vault goes on without objects that are missing or damaged.
//!
//! Content is known by its name wherever it lies. So a pack that cannot be used is taken out of the vault's
//! lists, and nothing else is: snapshots keep naming what was in it, and the next backup finds that it is
//! not stored and sends it again, if it is still in the person's files. Then all snapshots that need it are
//! whole again, the old ones too. Index objects that cannot be used are made anew from the local index.

use std::collections::HashSet;

use candor_wire::ObjectId;
use candor_wire::head::CONDEMNED_MAX;

use crate::index::IndexError;
use crate::manifest::IndexReference;
use crate::ports::ObjectSink;
use crate::prune::relist;
use crate::repository::{Change, Repository, RepositoryError, Staged};

/// How many packs are looked at together.
const PACKS_PER_PAGE: usize = 256;

/// Stages a state that names none of `lost`. `None` if the present state names none of them either.
///
/// What is damaged and still stored is condemned with the rest, as far as one head can name it; a prune finds
/// what is left.
pub fn stage(
    repository: &Repository,
    lost: &HashSet<ObjectId>,
    sink: &dyn ObjectSink,
) -> Result<Option<Staged>, RepositoryError> {
    let manifest = repository.manifest();
    let gone = packs_of(repository, lost).map_err(RepositoryError::Index)?;
    let is_lost = |one: &&IndexReference| lost.contains(&one.object);
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
    let condemned: Vec<ObjectId> = gone.iter().map(|(_, object)| *object).collect();
    let change = Change {
        snapshots: manifest.snapshots.clone(),
        listed,
        fresh,
        rescued: repository.endangered_but(&condemned),
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
    lost: &HashSet<ObjectId>,
) -> Result<Vec<(i64, ObjectId)>, IndexError> {
    let (mut found, mut after) = (Vec::new(), -1);
    loop {
        let page = repository.index().packs(after, PACKS_PER_PAGE)?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = last.number;
        let named = page.iter().map(|pack| (pack.number, pack.object));
        found.extend(named.filter(|(_, object)| lost.contains(object)));
    }
}

#[cfg(test)]
#[path = "tests/repair.rs"]
mod tests;
