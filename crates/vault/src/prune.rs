//! Pruning: finds what no snapshot needs, and stages a head that condemns it; and bringing back what was
//! forgotten, as long as it is there.
//!
//! The cell cannot see which chunks a snapshot needs, so a device that holds the keys finds out. It walks the
//! trees of all snapshots and marks every chunk. A pack without a marked chunk goes. Of packs of which little is
//! marked, the marked chunks are stored once more, and then they go, too. Objects that nothing names (older
//! manifests, index objects that were merged, packs of runs that were given up) go as well.
//!
//! Nothing is deleted here. The head that is staged names what goes, and the cell deletes it only when its
//! retention window is over. Until then another device that relied on it, because it was backing up meanwhile,
//! finds out when it moves the head itself: it rescues what is there, or sends it again.
//!
//! A round is short: what it rewrites is bounded, so that an interruption loses little, and any device can go on.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use candor_wire::ObjectId;
use candor_wire::head::CONDEMNED_MAX;
use candor_wire::limits::{HAS_MAX_IDS, RESCUED_MAX};

use crate::chunk::ChunkId;
use crate::index::{Index, IndexError, Place};
use crate::manifest::{IndexReference, SnapshotEntry, SnapshotId};
use crate::node::{Item, Kind, Reference, References};
use crate::pack::Table;
use crate::ports::{ObjectSink, ObjectSource, Presence, SourceError};
use crate::reader::{ReadError, Reader, fetch_manifest};
use crate::report::{Cancel, Progress};
use crate::repository::{Change, Repository, RepositoryError, Staged};
use crate::seen::{SeenSet, directory_key};
use crate::tree::{self, ChunkSource, ReferenceReader, Step, TreeError, TreeWalk};
use crate::writer::{WriteError, Writer};

/// How much of what is stored may be unneeded, in percent, before packs are rewritten.
pub const MAX_UNUSED_PERCENT: u8 = 10;

/// How many bytes of content one round rewrites at most: 64 packs' worth.
pub const ROUND_BYTES: u64 = 1024 * 1024 * 1024;

/// Most packs that one round takes out; the rest of its condemned list is for objects that nothing names.
const PACKS_PER_ROUND_MAX: usize = CONDEMNED_MAX / 4 * 3;

/// How many manifests are looked through for forgotten snapshots, the newest first.
const MANIFESTS_MAX: usize = 4096;

/// How many packs are looked at together.
const PACKS_PER_PAGE: usize = 256;

/// Why a prune could not be finished. Nothing was taken away.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A snapshot cannot be read, so what it needs is not known.
    #[error("a snapshot cannot be read, so nothing can be taken away")]
    Tree(#[source] TreeError),
    /// The cell did not answer, or not as a cell does.
    #[error("the cell could not be asked for its objects")]
    Source(#[source] SourceError),
    /// The cell lists its objects out of order.
    #[error("the cell's list of objects is out of order")]
    Listing,
    /// The local index failed.
    #[error("the local index failed")]
    Index(#[source] IndexError),
    /// The marks could not be kept.
    #[error("the list of needed chunks could not be kept on disk")]
    Scratch(#[source] rusqlite::Error),
    /// A chunk that is needed could not be read.
    #[error("content that is needed could not be read")]
    Read(#[source] ReadError),
    /// Something could not be stored.
    #[error("content that is needed could not be stored again")]
    Write(#[source] WriteError),
    /// The change could not be staged.
    #[error("the change could not be staged")]
    Repository(#[source] RepositoryError),
    /// The run was asked to stop.
    #[error("the prune was stopped")]
    Cancelled,
}

impl From<rusqlite::Error> for PruneError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Scratch(error)
    }
}

/// How much is taken away, and how much work that may be.
#[derive(Debug, Clone, Copy)]
pub struct PruneRules {
    /// How much of what is stored may be unneeded, in percent.
    pub max_unused_percent: u8,
    /// How many bytes of content a round rewrites at most; at least one pack is.
    pub round_bytes: u64,
}

impl Default for PruneRules {
    fn default() -> Self {
        Self {
            max_unused_percent: MAX_UNUSED_PERCENT,
            round_bytes: ROUND_BYTES,
        }
    }
}

/// What a round found and staged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Packs that stay as they are.
    pub packs_kept: u64,
    /// Packs that go.
    pub packs_gone: u64,
    /// Sealed bytes of the packs that go.
    pub bytes_gone: u64,
    /// Of those, packs whose needed chunks were stored again.
    pub packs_rewritten: u64,
    /// Sealed bytes of the new packs.
    pub bytes_stored: u64,
    /// Objects that nothing named, and their bytes.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Whether another round would find more.
    pub more: bool,
}

/// A round of pruning.
#[derive(Debug)]
pub struct Pruned {
    /// What the head has to name next; `None` when there is nothing to take away.
    pub staged: Option<Staged>,
    /// What was found.
    pub report: PruneReport,
}

/// Reads chunks, and marks every one that it reads.
struct Marker<'a> {
    reader: Reader<'a>,
    used: SeenSet,
    /// What went wrong with the marks; a [`ChunkSource`] cannot say it.
    fault: Option<rusqlite::Error>,
}

impl ChunkSource for Marker<'_> {
    fn fetch(&mut self, id: ChunkId) -> Result<Bytes, ReadError> {
        if let Err(error) = self.used.add(id.as_bytes()) {
            self.fault = Some(error);
        }
        self.reader.chunk(id)
    }
}

impl Marker<'_> {
    /// What has no place in the index is in a pack that the index does not name: it would be taken for one that
    /// nobody needs.
    fn must_have_a_place(&self, reference: Reference) -> Result<(), PruneError> {
        let chunk = reference.id;
        let place = self.reader.locate(chunk);
        let place = place.map_err(|error| PruneError::Tree(TreeError::Read(error)))?;
        match place {
            Some(place) if place.length == reference.length => Ok(()),
            Some(_) => Err(PruneError::Tree(TreeError::Length { chunk })),
            None => Err(PruneError::Tree(TreeError::Read(ReadError::UnknownChunk {
                chunk,
            }))),
        }
    }
}

impl<'a> Marker<'a> {
    fn new(repository: &'a Repository, source: &'a dyn ObjectSource) -> Result<Self, PruneError> {
        Ok(Self {
            reader: repository.reader(source),
            used: SeenSet::new()?,
            fault: None,
        })
    }

    /// Marks everything that these snapshots need.
    fn mark(
        &mut self,
        snapshots: &[SnapshotEntry],
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<(), PruneError> {
        let walked = SeenSet::new()?;
        for snapshot in snapshots {
            let root = tree::read_root(snapshot.root, self).map_err(PruneError::Tree)?;
            self.tree(root.parts, &walked, progress, cancel)?;
        }
        match self.fault.take() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    fn tree(
        &mut self,
        top: References,
        walked: &SeenSet,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<(), PruneError> {
        if !walked.add(&directory_key(&top))? {
            return Ok(());
        }
        let mut walk = TreeWalk::new(top);
        while let Some(step) = walk.next(self).map_err(PruneError::Tree)? {
            go_on(cancel)?;
            let Step::Item(Item::Entry(entry)) = step else {
                continue;
            };
            match entry.kind {
                Kind::Directory { parts } if walked.add(&directory_key(&parts))? => {
                    walk.enter(parts).map_err(PruneError::Tree)?;
                }
                Kind::File { content, .. } => {
                    progress.advance(1, 0);
                    let mut references = ReferenceReader::new(content);
                    while let Some(reference) = references.next(self).map_err(PruneError::Tree)? {
                        if self.used.add(reference.id.as_bytes())? {
                            self.must_have_a_place(reference)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn go_on(cancel: &Cancel) -> Result<(), PruneError> {
    if cancel.is_cancelled() {
        Err(PruneError::Cancelled)
    } else {
        Ok(())
    }
}

/// A pack, weighed.
struct Weighed {
    number: i64,
    object: ObjectId,
    stored_bytes: u64,
    /// Bytes of its content that are needed from it.
    live: u64,
    /// Bytes of its content.
    total: u64,
}

impl Weighed {
    const fn dead(&self) -> u64 {
        self.total - self.live
    }

    /// Which of two has the larger part that nobody needs.
    fn emptier(&self, other: &Self) -> Ordering {
        let own = u128::from(self.live) * u128::from(other.total);
        let others = u128::from(other.live) * u128::from(self.total);
        own.cmp(&others).then(self.number.cmp(&other.number))
    }
}

/// Which packs go, and which of them have something to be stored again.
#[derive(Default)]
struct Choice {
    gone: Vec<Weighed>,
    rewritten: HashSet<i64>,
    kept: u64,
    more: bool,
}

/// A chunk is needed from the pack that the index names for it, and from no other that may have it, too.
fn is_live(
    index: &Index,
    used: &SeenSet,
    pack: i64,
    chunk: &ChunkId,
) -> Result<Option<Place>, PruneError> {
    if !used.has(chunk.as_bytes())? {
        return Ok(None);
    }
    let place = index.locate(chunk).map_err(PruneError::Index)?;
    Ok(place.filter(|place| place.pack_number == pack))
}

fn weigh(index: &Index, used: &SeenSet, cancel: &Cancel) -> Result<Vec<Weighed>, PruneError> {
    let mut weighed = Vec::new();
    let mut after = -1;
    loop {
        let page = index
            .packs(after, PACKS_PER_PAGE)
            .map_err(PruneError::Index)?;
        let Some(last) = page.last() else {
            return Ok(weighed);
        };
        after = last.number;
        for pack in page {
            go_on(cancel)?;
            let contents = index.contents(pack.number).map_err(PruneError::Index)?;
            let table = Table::decode(&contents.table)
                .map_err(|_| PruneError::Index(IndexError::Damaged(None)))?;
            let (mut live, mut total) = (0, 0);
            for chunk in &table.chunks {
                let length = u64::from(chunk.length);
                total += length;
                if is_live(index, used, pack.number, &chunk.id)?.is_some() {
                    live += length;
                }
            }
            weighed.push(Weighed {
                number: pack.number,
                object: pack.object,
                stored_bytes: pack.stored_bytes,
                live,
                total,
            });
        }
    }
}

/// Dead packs go. Of the others the emptiest, until little enough of what is kept is unneeded.
fn choose(weighed: Vec<Weighed>, rules: &PruneRules) -> Choice {
    let mut choice = Choice::default();
    let (mut dead, mut rest): (Vec<_>, Vec<_>) =
        weighed.into_iter().partition(|pack| pack.live == 0);
    choice.more |= dead.len() > PACKS_PER_ROUND_MAX;
    choice.kept += dead.len().saturating_sub(PACKS_PER_ROUND_MAX) as u64;
    dead.truncate(PACKS_PER_ROUND_MAX);
    choice.gone = dead;
    rest.sort_by(Weighed::emptier);
    let mut unused: u64 = rest.iter().map(Weighed::dead).sum();
    let mut total: u64 = rest.iter().map(|pack| pack.total).sum();
    let mut rewritten: u64 = 0;
    for pack in rest {
        let is_enough =
            unused.saturating_mul(100) <= total.saturating_mul(u64::from(rules.max_unused_percent));
        if is_enough || pack.dead() == 0 {
            choice.kept += 1;
            continue;
        }
        let fits = rewritten == 0 || rewritten.saturating_add(pack.live) <= rules.round_bytes;
        if !fits || choice.gone.len() >= PACKS_PER_ROUND_MAX {
            choice.more = true;
            choice.kept += 1;
            continue;
        }
        rewritten = rewritten.saturating_add(pack.live);
        unused -= pack.dead();
        total -= pack.dead();
        choice.rewritten.insert(pack.number);
        choice.gone.push(pack);
    }
    choice
}

/// Stores what is needed of a pack once more.
fn rewrite(
    repository: &Repository,
    source: &dyn ObjectSource,
    used: &SeenSet,
    pack: &Weighed,
    writer: &mut Writer,
) -> Result<(), PruneError> {
    let reader = repository.reader(source);
    let open = reader.open_pack(pack.object).map_err(PruneError::Read)?;
    let mut scratch = Vec::new();
    for number in 0..open.frames() {
        let frame = open.frame(number, &mut scratch).map_err(PruneError::Read)?;
        for chunk in open.chunks(number) {
            let place = is_live(repository.index(), used, pack.number, &chunk.id)?;
            if let Some(place) = place.filter(|place| place.frame == number) {
                let bytes = open
                    .verify(repository.keys(), chunk.id, &place, frame)
                    .map_err(PruneError::Read)?;
                writer
                    .copy(open.stream(), chunk.id, bytes)
                    .map_err(PruneError::Write)?;
            }
        }
    }
    Ok(())
}

/// Objects of the vault that nothing names and no head condemned yet: at most `limit`, with their bytes.
/// Tells also whether there are more.
fn orphans(
    source: &dyn ObjectSource,
    named: &HashSet<ObjectId>,
    limit: usize,
) -> Result<(Vec<(ObjectId, u64)>, bool), PruneError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = source.list(after).map_err(PruneError::Source)?;
        let Some((last, _)) = page.last().copied() else {
            return Ok((found, false));
        };
        let first = page.first().map(|(object, _)| *object);
        if page.windows(2).any(|pair| pair[0].0 >= pair[1].0) || first <= after {
            return Err(PruneError::Listing);
        }
        after = Some(last);
        let unnamed: Vec<(ObjectId, u64)> = page
            .into_iter()
            .filter(|(object, _)| !named.contains(object))
            .collect();
        for some in unnamed.chunks(HAS_MAX_IDS) {
            let names: Vec<ObjectId> = some.iter().map(|(object, _)| *object).collect();
            let standing = source.has(&names).map_err(PruneError::Source)?;
            for (one, presence) in some.iter().zip(standing) {
                if presence != Presence::Stored {
                    continue;
                }
                if found.len() == limit {
                    return Ok((found, true));
                }
                found.push(*one);
            }
        }
    }
}

/// One round: marks, chooses, stores again what is needed, and stages. The caller moves the head and then calls
/// [`Repository::accept`]; when another device was faster, [`Repository::advance`], and a new round.
pub fn run(
    repository: &Repository,
    rules: &PruneRules,
    sink: &Arc<dyn ObjectSink>,
    source: &dyn ObjectSource,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Pruned, PruneError> {
    let index = repository.index();
    let manifest = repository.manifest();
    let mut marker = Marker::new(repository, source)?;
    marker.mark(&manifest.snapshots, progress, cancel)?;
    let used = &marker.used;
    let choice = choose(weigh(index, used, cancel)?, rules);
    let mut report = PruneReport {
        packs_kept: choice.kept,
        packs_gone: choice.gone.len() as u64,
        packs_rewritten: choice.rewritten.len() as u64,
        bytes_gone: choice.gone.iter().map(|pack| pack.stored_bytes).sum(),
        more: choice.more,
        ..PruneReport::default()
    };
    if !choice.rewritten.is_empty() {
        let mut writer = repository
            .writer(Arc::clone(sink))
            .map_err(PruneError::Repository)?;
        let rewritten = choice.gone.iter();
        for pack in rewritten.filter(|pack| choice.rewritten.contains(&pack.number)) {
            go_on(cancel)?;
            rewrite(repository, source, used, pack, &mut writer)?;
            progress.advance(0, pack.live);
        }
        let written = writer.finish().map_err(PruneError::Write)?;
        index.persist().map_err(PruneError::Index)?;
        report.bytes_stored = written.bytes_stored;
    }
    let gone: HashSet<i64> = choice.gone.iter().map(|pack| pack.number).collect();
    let (listed, fresh) =
        relist(index, &manifest.indexes, &gone, &HashSet::new()).map_err(PruneError::Index)?;
    let named = named(repository)?;
    let room =
        CONDEMNED_MAX - choice.gone.len() - manifest.indexes.len().min(CONDEMNED_MAX / 8) - 1;
    let (orphans, more) = orphans(source, &named, room)?;
    report.more |= more;
    report.orphans = orphans.len() as u64;
    report.orphan_bytes = orphans.iter().map(|(_, bytes)| bytes).sum();
    if gone.is_empty() && orphans.is_empty() {
        return Ok(Pruned {
            staged: None,
            report,
        });
    }
    go_on(cancel)?;
    let condemned = choice.gone.iter().map(|pack| pack.object);
    let condemned = condemned.chain(orphans.into_iter().map(|(object, _)| object));
    let change = Change {
        snapshots: manifest.snapshots.clone(),
        listed,
        fresh,
        condemned: condemned.collect(),
        rescued: Vec::new(),
        gone: gone.into_iter().collect(),
    };
    let rescued = repository.endangered_but(&change.condemned);
    let mut staged = repository
        .stage(Change { rescued, ..change }, sink.as_ref())
        .map_err(PruneError::Repository)?;
    let stays: HashSet<ObjectId> = staged.indexes().iter().map(|one| one.object).collect();
    let replaced = manifest.indexes.iter().map(|one| one.object);
    let replaced: Vec<ObjectId> = replaced.filter(|object| !stays.contains(object)).collect();
    // Those beyond are found as orphans by the next round.
    let room = CONDEMNED_MAX.saturating_sub(staged.condemned().len());
    staged.condemn(repository.head().into_iter().chain(replaced).take(room));
    Ok(Pruned {
        staged: Some(staged),
        report,
    })
}

/// Index objects that stay, and the packs that new ones have to list: those that stay of the others, and those
/// that none lists.
pub(crate) type Relisted = (Vec<IndexReference>, Vec<(i64, usize)>);

/// Lists all packs but those that are gone, in other index objects than those in `without`.
pub(crate) fn relist(
    index: &Index,
    indexes: &[IndexReference],
    gone: &HashSet<i64>,
    without: &HashSet<ObjectId>,
) -> Result<Relisted, IndexError> {
    let (mut listed, mut fresh) = (Vec::new(), Vec::new());
    for reference in indexes {
        let packs = index.listed_by(&reference.object)?;
        let is_replaced = without.contains(&reference.object);
        if is_replaced || packs.iter().any(|(number, _)| gone.contains(number)) {
            fresh.extend(packs);
        } else {
            listed.push(*reference);
        }
    }
    fresh.extend(index.unlisted()?);
    fresh.retain(|(number, _)| !gone.contains(number));
    Ok((listed, fresh))
}

/// Every object that the vault's state names: its manifest, index objects, and all packs of the local index.
fn named(repository: &Repository) -> Result<HashSet<ObjectId>, PruneError> {
    let manifest = repository.manifest();
    let mut named: HashSet<ObjectId> = manifest.indexes.iter().map(|one| one.object).collect();
    named.extend(repository.head());
    let mut after = -1;
    loop {
        let page = repository
            .index()
            .packs(after, PACKS_PER_PAGE)
            .map_err(PruneError::Index)?;
        let Some(last) = page.last() else {
            return Ok(named);
        };
        after = last.number;
        named.extend(page.iter().map(|pack| pack.object));
    }
}

/// A snapshot that the manifest does not list any more.
#[derive(Debug, Clone)]
pub struct Forgotten {
    /// The snapshot.
    pub entry: SnapshotEntry,
    /// Index objects of the last manifest that listed it.
    indexes: Vec<IndexReference>,
    /// The snapshots that came before it there.
    before: Vec<SnapshotId>,
}

/// Snapshots of older manifests that are still there, the newest manifest first: those that are not listed any
/// more, and, if `listed_too`, those that are, as they were listed then. `from` are manifests that were seen
/// before: whoever moved the head may have left the way back to them out.
pub fn forgotten(
    repository: &Repository,
    from: &[ObjectId],
    listed_too: bool,
    source: &dyn ObjectSource,
) -> Result<Vec<Forgotten>, ReadError> {
    let manifest = repository.manifest();
    let mut known: HashSet<SnapshotId> = HashSet::new();
    if !listed_too {
        known.extend(manifest.snapshots.iter().map(|one| one.id));
    }
    let mut found = Vec::new();
    let mut walked: HashSet<ObjectId> = repository.head().into_iter().collect();
    for start in manifest.previous.iter().chain(from) {
        walk_back(
            repository,
            *start,
            source,
            &mut walked,
            &mut known,
            &mut found,
        )?;
    }
    Ok(found)
}

fn walk_back(
    repository: &Repository,
    start: ObjectId,
    source: &dyn ObjectSource,
    walked: &mut HashSet<ObjectId>,
    known: &mut HashSet<SnapshotId>,
    found: &mut Vec<Forgotten>,
) -> Result<(), ReadError> {
    let mut previous = Some(start);
    for _ in 0..MANIFESTS_MAX {
        let Some(object) = previous.filter(|object| walked.insert(*object)) else {
            break;
        };
        let manifest = match fetch_manifest(repository.keys(), source, object) {
            Ok(manifest) => manifest,
            // Older ones are gone by now, too.
            Err(ReadError::Source(SourceError::Missing { .. })) => break,
            Err(error) => return Err(error),
        };
        let mut before = Vec::new();
        for entry in manifest.snapshots {
            let id = entry.id;
            if known.insert(id) {
                found.push(Forgotten {
                    entry,
                    indexes: manifest.indexes.clone(),
                    before: before.clone(),
                });
            }
            before.push(id);
        }
        previous = manifest.previous;
    }
    Ok(())
}

/// Stages a manifest with these snapshots again, and rescues what they need.
///
/// # Errors
/// [`RepositoryError::Gone`] if something of it is not on the cell any more.
pub fn bring_back(
    repository: &Repository,
    forgotten: &[Forgotten],
    sink: &dyn ObjectSink,
    source: &dyn ObjectSource,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Staged, PruneError> {
    let manifest = repository.manifest();
    let live: HashSet<ObjectId> = manifest.indexes.iter().map(|one| one.object).collect();
    let live_ids: HashSet<SnapshotId> = manifest.snapshots.iter().map(|one| one.id).collect();
    for one in forgotten {
        repository
            .add_older_indexes(&one.indexes, source)
            .map_err(of_missing)?;
    }
    let mut marker = Marker::new(repository, source)?;
    let entries: Vec<SnapshotEntry> = forgotten.iter().map(|one| one.entry.clone()).collect();
    marker
        .mark(&entries, progress, cancel)
        .map_err(|error| match error {
            PruneError::Tree(TreeError::Read(
                ReadError::UnknownChunk { .. } | ReadError::Source(SourceError::Missing { .. }),
            )) => PruneError::Repository(RepositoryError::Gone),
            other => other,
        })?;
    let index = repository.index();
    let mut listed_now = HashSet::new();
    for object in &live {
        let packs = index.listed_by(object).map_err(PruneError::Index)?;
        listed_now.extend(packs.into_iter().map(|(number, _)| number));
    }
    let mut needed: HashMap<ObjectId, (i64, usize)> = HashMap::new();
    for pack in weigh(index, &marker.used, cancel)? {
        if pack.live > 0 && !listed_now.contains(&pack.number) {
            let contents = index.contents(pack.number).map_err(PruneError::Index)?;
            needed.insert(pack.object, (pack.number, contents.table.len()));
        }
    }
    let names: Vec<ObjectId> = needed.keys().copied().collect();
    let mut rescued = Vec::new();
    for some in names.chunks(HAS_MAX_IDS) {
        let standing = source.has(some).map_err(PruneError::Source)?;
        for (place, object) in some.iter().enumerate() {
            match standing.get(place) {
                Some(Presence::Stored) => {}
                Some(Presence::Condemned) => rescued.push(*object),
                _ => return Err(PruneError::Repository(RepositoryError::Gone)),
            }
        }
    }
    if rescued.len() > RESCUED_MAX {
        return Err(PruneError::Repository(RepositoryError::TooLong));
    }
    let mut snapshots = manifest.snapshots.clone();
    let is_listed = |one: &&Forgotten| live_ids.contains(&one.entry.id);
    for one in forgotten.iter().filter(|one| !is_listed(one)) {
        // In the order in which they were made, which their times need not tell.
        let earlier = |entry: &SnapshotEntry| one.before.contains(&entry.id);
        let place = snapshots
            .iter()
            .rposition(earlier)
            .map_or(0, |last| last + 1);
        snapshots.insert(place, one.entry.clone());
    }
    let mut fresh: Vec<(i64, usize)> = needed.into_values().collect();
    fresh.sort_unstable();
    let change = Change {
        snapshots,
        listed: manifest.indexes.clone(),
        fresh,
        rescued,
        ..Change::default()
    };
    repository
        .stage(change, sink)
        .map_err(PruneError::Repository)
}

fn of_missing(error: RepositoryError) -> PruneError {
    PruneError::Repository(match error {
        RepositoryError::Read(ReadError::Source(SourceError::Missing { .. })) => {
            RepositoryError::Gone
        }
        other => other,
    })
}

#[cfg(test)]
#[path = "tests/prune.rs"]
mod tests;
