//! One vault, opened: keys, local index and the manifest that the head names.
//!
//! A change has three steps. *Stage*: index objects for the run's packs and a new manifest are
//! sealed and stored; nothing that exists is changed. *Commit*: the caller moves the signed head to
//! the staged manifest by compare-and-swap. *Accept*: the local index takes the change over, as
//! opening the vault would. A crash between any two loses nothing: packs that were acknowledged
//! are staged again by the next run.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use candor_wire::{ObjectId, cbor};

use crate::entropy::{Entropy, EntropyError};
use crate::index::{Index, IndexError};
use crate::index_object::{INDEX_HEAD_BYTES, IndexBody, PackEntry};
use crate::keys::{KeysError, VaultKeys};
use crate::manifest::{
    IndexReference, MANIFEST_VERSION, Manifest, ManifestError, SnapshotEntry, SnapshotId,
};
use crate::merge::{Origin, Planned, plan};
use crate::ports::{ObjectSink, ObjectSource, SinkError};
use crate::reader::{ReadError, Reader, fetch_body, fetch_manifest};
use crate::runs;
use crate::seal::{ObjectType, Sealer};
use crate::writer::{WriteError, Writer, Written};

/// Why the vault could not be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The local index failed. When it is damaged, delete it ([`Index::delete`]) and open again.
    #[error("the local index failed")]
    Index(#[source] IndexError),
    /// The manifest that would be stored is not acceptable.
    #[error("the manifest is not acceptable")]
    Manifest(#[source] ManifestError),
    /// An object of the vault could not be read.
    #[error("an object of the vault could not be read")]
    Read(#[source] ReadError),
    /// The pipeline could not be started.
    #[error("nothing could be written")]
    Write(#[source] WriteError),
    /// The cell did not take an object.
    #[error("an object could not be stored")]
    Sink(#[source] SinkError),
    /// The operating system gave no random bytes.
    #[error("an object could not be sealed")]
    Entropy(#[source] EntropyError),
    /// The keys of runs cannot be put together.
    #[error("the keys of runs cannot be put together")]
    Keys(#[source] KeysError),
    /// An index object or the manifest does not fit one object.
    #[error("a list of the vault does not fit one object")]
    TooLong,
    /// The snapshot's root is not on the cell: the run was not finished.
    #[error("the snapshot's root is not stored")]
    RootMissing,
    /// Another device removed content while this run relied on it. Run again.
    #[error("content that the run relied on was removed by another device")]
    Outdated,
    /// What a forgotten snapshot needs is not on the cell any more.
    #[error("the forgotten snapshot is not whole any more")]
    Gone,
}

/// A change that was stored, and that the head must name next.
#[derive(Debug, Clone)]
pub struct Staged {
    object: ObjectId,
    manifest: Manifest,
    snapshot: Option<SnapshotEntry>,
    new_indexes: Vec<(IndexReference, Vec<i64>)>,
    condemned: Vec<ObjectId>,
    rescued: Vec<ObjectId>,
    gone: Vec<i64>,
}

/// What the next manifest is to be, before anything of it is sealed.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) snapshots: Vec<SnapshotEntry>,
    /// Index objects that stay as they are, or are merged.
    pub(crate) listed: Vec<IndexReference>,
    /// Packs for new index objects: number, and length of the encoded table.
    pub(crate) fresh: Vec<(i64, usize)>,
    /// Objects that nobody needs then.
    pub(crate) condemned: Vec<ObjectId>,
    /// Objects that are condemned now and needed then.
    pub(crate) rescued: Vec<ObjectId>,
    /// Packs of this index that are needed no more.
    pub(crate) gone: Vec<i64>,
}

impl Staged {
    /// The object that holds the new manifest.
    pub fn manifest(&self) -> ObjectId {
        self.object
    }

    /// The new manifest's counter: one more than before.
    pub fn counter(&self) -> u64 {
        self.manifest.counter
    }

    /// The epoch under which it was sealed.
    pub fn epoch(&self) -> u32 {
        self.manifest.epoch
    }

    /// The manifest that the head must name now, for the move to succeed.
    pub fn previous(&self) -> Option<ObjectId> {
        self.manifest.previous
    }

    /// The snapshot that it adds, if it adds one.
    pub fn snapshot(&self) -> Option<&SnapshotEntry> {
        self.snapshot.as_ref()
    }

    /// Objects that the head has to condemn, ascending.
    pub fn condemned(&self) -> &[ObjectId] {
        &self.condemned
    }

    /// Objects that the head's move has to rescue.
    pub fn rescued(&self) -> &[ObjectId] {
        &self.rescued
    }

    /// The manifest's index objects.
    pub(crate) fn indexes(&self) -> &[IndexReference] {
        &self.manifest.indexes
    }

    /// Adds to what the head has to condemn, but for what it names itself: a machine that was put back to a copy and
    /// draws the same random numbers stores the same object again, which nothing named until then.
    pub(crate) fn condemn(&mut self, objects: impl IntoIterator<Item = ObjectId>) {
        let indexes = self.manifest.indexes.iter().map(|index| index.object);
        let named: HashSet<ObjectId> = indexes.chain([self.object]).collect();
        let objects = objects.into_iter();
        self.condemned
            .extend(objects.filter(|object| !named.contains(object)));
        self.condemned.sort_unstable();
        self.condemned.dedup();
    }
}

/// One vault, opened. One process at a time may have its index open for writing.
pub struct Repository {
    sealer: Arc<Sealer>,
    index: Arc<Index>,
    manifest: Manifest,
    head: Option<ObjectId>,
    /// Packs that no manifest lists and that are condemned: whoever lists them rescues them.
    endangered: Vec<ObjectId>,
    /// Of a write-only device: a manifest lists one run alone, and the ones before are never read.
    is_run: bool,
}

impl Repository {
    /// Opens the vault. `head` is the manifest that the verified, signed head names; `None` is a
    /// vault without one. The local index is made where there is none, and brought up to date with
    /// the manifest; with an empty one this is the rebuild from the cell with the keys alone.
    pub fn open(
        keys: Arc<VaultKeys>,
        entropy: Arc<dyn Entropy>,
        head: Option<ObjectId>,
        index_path: &Path,
        source: &dyn ObjectSource,
    ) -> Result<Self, RepositoryError> {
        let index = Index::open(index_path, keys.account(), keys.vault(), entropy.as_ref())
            .map_err(RepositoryError::Index)?;
        let manifest = Manifest::empty(keys.account(), keys.vault(), keys.current_epoch());
        let sealer = Arc::new(Sealer::new(keys, entropy).map_err(RepositoryError::Entropy)?);
        let mut repository = Self {
            sealer,
            index: Arc::new(index),
            manifest,
            head: None,
            endangered: Vec::new(),
            is_run: false,
        };
        // After the head was read: what is condemned later is condemned by a later head, and then this one
        // cannot be followed by a change of ours.
        repository.settle(source)?;
        match head {
            Some(head) => repository.follow(head, source)?,
            None => repository.sync(&repository.manifest, source)?,
        }
        Ok(repository)
    }

    /// One of a write-only device's vault; see [`crate::runs`].
    pub(crate) fn of_run(
        sealer: Arc<Sealer>,
        index: Index,
        manifest: Manifest,
        head: Option<ObjectId>,
    ) -> Self {
        Self {
            sealer,
            index: Arc::new(index),
            manifest,
            head,
            endangered: Vec::new(),
            is_run: true,
        }
    }

    /// Takes over what a further run lists.
    pub(crate) fn extend_manifest(&mut self, counter: u64, object: ObjectId, run: Manifest) {
        self.manifest.counter = counter;
        self.manifest.snapshots.extend(run.snapshots);
        self.manifest.indexes.extend(run.indexes);
        self.head = Some(object);
    }

    /// A run's head moved: what earlier runs listed stays.
    fn accept_run(&mut self, staged: Staged) -> Result<(), RepositoryError> {
        let known = self.index.index_objects().map_err(RepositoryError::Index)?;
        let mut live = runs::by_name(known);
        live.extend(&staged.manifest.indexes);
        self.index
            .accept(&staged.new_indexes, &live, &[], self.entropy())
            .map_err(RepositoryError::Index)?;
        let new = &staged.manifest.snapshots;
        self.manifest.snapshots = runs::newest_of_each(&self.manifest.snapshots, new);
        self.manifest.counter = staged.manifest.counter;
        self.head = Some(staged.object);
        Ok(())
    }

    /// Asks which packs that no manifest lists are still there.
    fn settle(&mut self, source: &dyn ObjectSource) -> Result<(), RepositoryError> {
        let condemned = self.index.settle(source, self.entropy());
        self.endangered = condemned.map_err(RepositoryError::Index)?;
        Ok(())
    }

    /// The keys.
    pub fn keys(&self) -> &VaultKeys {
        self.sealer.keys()
    }

    /// The local index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The keys, for a reader that outlives the repository.
    pub(crate) fn shared_keys(&self) -> Arc<VaultKeys> {
        Arc::clone(self.sealer.keys())
    }

    /// The index, for a reader that outlives the repository.
    pub(crate) fn shared_index(&self) -> Arc<Index> {
        Arc::clone(&self.index)
    }

    /// Where random bytes come from.
    pub fn entropy(&self) -> &dyn Entropy {
        self.sealer.entropy().as_ref()
    }

    /// The manifest that the head names; an empty one with counter 0 when there is none.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The object that holds the manifest, if there is one.
    pub fn head(&self) -> Option<ObjectId> {
        self.head
    }

    /// Starts a run that stores chunks.
    pub fn writer(&self, sink: Arc<dyn ObjectSink>) -> Result<Writer, RepositoryError> {
        Writer::start(self.index.clone(), self.sealer.clone(), sink).map_err(RepositoryError::Write)
    }

    /// Whether the cell has packs that no manifest lists, from runs that were not finished. Those of a write-only
    /// device's runs mean nothing to its later ones.
    pub(crate) fn has_unlisted(&self) -> Result<bool, RepositoryError> {
        let unlisted = self.index.unlisted().map_err(RepositoryError::Index)?;
        Ok(!self.is_run && !unlisted.is_empty())
    }

    /// A reader of chunks.
    pub fn reader<'a>(&'a self, source: &'a dyn ObjectSource) -> Reader<'a> {
        Reader::new(self.keys(), &self.index, source)
    }

    /// Stores what is needed for the head to move to a manifest with this snapshot: index objects
    /// for all packs that no manifest lists yet, and the manifest. `written` shows that the run
    /// was finished. Nothing changes locally until [`Repository::accept`].
    pub fn stage_snapshot(
        &self,
        snapshot: SnapshotEntry,
        written: &Written,
        sink: &dyn ObjectSink,
    ) -> Result<Staged, RepositoryError> {
        self.stage_with(snapshot, &[], written, sink)
    }

    fn stage_with(
        &self,
        snapshot: SnapshotEntry,
        superfluous: &[SnapshotId],
        _written: &Written,
        sink: &dyn ObjectSink,
    ) -> Result<Staged, RepositoryError> {
        if !self
            .index
            .contains(&snapshot.root)
            .map_err(RepositoryError::Index)?
        {
            return Err(RepositoryError::RootMissing);
        }
        let mut snapshots = self.manifest.snapshots.clone();
        if self.is_run {
            snapshots.clear();
        }
        snapshots.retain(|entry| !superfluous.contains(&entry.id));
        snapshots.push(snapshot.clone());
        let change = Change {
            snapshots,
            listed: self.manifest.indexes.clone(),
            fresh: self.index.unlisted().map_err(RepositoryError::Index)?,
            rescued: self.endangered.clone(),
            ..Change::default()
        };
        let mut staged = self.stage(change, sink)?;
        staged.snapshot = Some(snapshot);
        Ok(staged)
    }

    /// Stores what is needed for the head to move to a manifest with this version of a synced folder, and without
    /// those that need not stay. See [`Repository::stage_snapshot`].
    pub fn stage_version(
        &self,
        version: SnapshotEntry,
        superfluous: &[SnapshotId],
        written: &Written,
        sink: &dyn ObjectSink,
    ) -> Result<Staged, RepositoryError> {
        self.stage_with(version, superfluous, written, sink)
    }

    /// Stores a manifest without these snapshots. What only they needed stays on the cell until it is pruned.
    pub fn stage_forget(
        &self,
        snapshots: &[SnapshotId],
        sink: &dyn ObjectSink,
    ) -> Result<Staged, RepositoryError> {
        let stays = |entry: &&SnapshotEntry| !snapshots.contains(&entry.id);
        let change = Change {
            snapshots: self
                .manifest
                .snapshots
                .iter()
                .filter(stays)
                .cloned()
                .collect(),
            listed: self.manifest.indexes.clone(),
            ..Change::default()
        };
        self.stage(change, sink)
    }

    /// Stores index objects and a manifest.
    pub(crate) fn stage(
        &self,
        change: Change,
        sink: &dyn ObjectSink,
    ) -> Result<Staged, RepositoryError> {
        let planned = plan(&change.listed, change.fresh);
        let mut manifest = Manifest {
            version: MANIFEST_VERSION,
            counter: self.manifest.counter + 1,
            previous: self.head,
            epoch: self.keys().current_epoch(),
            snapshots: change.snapshots,
            indexes: Vec::with_capacity(planned.len()),
            ..self.manifest
        };
        // Checked before anything is sent; the index objects are only counted so far.
        manifest
            .check(self.keys().account(), self.keys().vault())
            .map_err(RepositoryError::Manifest)?;
        let mut new_indexes = Vec::new();
        for planned in planned {
            match planned.origins.as_slice() {
                [Origin::Listed(reference)] => manifest.indexes.push(*reference),
                _ => {
                    let (reference, packs) = self.store_index(&planned, sink)?;
                    manifest.indexes.push(reference);
                    new_indexes.push((reference, packs));
                }
            }
        }
        manifest
            .check(self.keys().account(), self.keys().vault())
            .map_err(RepositoryError::Manifest)?;
        let object = self.store(ObjectType::Manifest, &cbor::encode(&manifest), sink)?;
        let mut staged = Staged {
            object,
            manifest,
            snapshot: None,
            new_indexes,
            condemned: Vec::new(),
            rescued: change.rescued,
            gone: change.gone,
        };
        staged.condemn(change.condemned);
        Ok(staged)
    }

    /// The head moved to what was staged: from now on it is the vault's state.
    pub fn accept(&mut self, staged: Staged) -> Result<(), RepositoryError> {
        if self.is_run {
            return self.accept_run(staged);
        }
        let (new, live) = (&staged.new_indexes, &staged.manifest.indexes);
        self.index
            .accept(new, live, &staged.gone, self.entropy())
            .map_err(RepositoryError::Index)?;
        self.endangered.clear();
        self.manifest = staged.manifest;
        self.head = Some(staged.object);
        Ok(())
    }

    /// The head was moved by another device first: takes its manifest over, and stages the snapshot
    /// again on top of it. The packs of the run are used as they are, if all of them are still there. `None`: the
    /// snapshot is listed already. The answer to the move was lost, and the other device went on from it.
    pub fn rebase(
        &mut self,
        snapshot: SnapshotEntry,
        head: ObjectId,
        source: &dyn ObjectSource,
        sink: &dyn ObjectSink,
    ) -> Result<Option<Staged>, RepositoryError> {
        let before = self.index.lineage().map_err(RepositoryError::Index)?;
        self.advance(head, source)?;
        let listed = &self.manifest.snapshots;
        if listed.iter().any(|entry| entry.id == snapshot.id) {
            return Ok(None);
        }
        if self.index.lineage().map_err(RepositoryError::Index)? != before {
            return Err(RepositoryError::Outdated);
        }
        self.stage_snapshot(snapshot, &Written::default(), sink)
            .map(Some)
    }

    /// Takes over what another device moved the head to.
    pub fn advance(
        &mut self,
        head: ObjectId,
        source: &dyn ObjectSource,
    ) -> Result<(), RepositoryError> {
        self.settle(source)?;
        self.follow(head, source)
    }

    /// Makes the manifest in this object the vault's state.
    fn follow(&mut self, head: ObjectId, source: &dyn ObjectSource) -> Result<(), RepositoryError> {
        let manifest = fetch_manifest(self.keys(), source, head).map_err(RepositoryError::Read)?;
        self.sync(&manifest, source)?;
        self.manifest = manifest;
        self.head = Some(head);
        Ok(())
    }

    /// Brings the local index up to date with a manifest: first what is new, then what is gone, so
    /// that packs which only moved between index objects are never forgotten.
    fn sync(&self, manifest: &Manifest, source: &dyn ObjectSource) -> Result<(), RepositoryError> {
        let known: HashSet<ObjectId> = self
            .index
            .index_objects()
            .map_err(RepositoryError::Index)?
            .into_iter()
            .collect();
        for reference in &manifest.indexes {
            if !known.contains(&reference.object) {
                self.add_index(reference, source, false)?;
            }
        }
        let live: HashSet<ObjectId> = manifest.indexes.iter().map(|index| index.object).collect();
        let gone: Vec<ObjectId> = known.difference(&live).copied().collect();
        self.index
            .forget_index_objects(&gone, self.entropy())
            .map_err(RepositoryError::Index)
    }

    /// Reads an index object into the local index.
    fn add_index(
        &self,
        reference: &IndexReference,
        source: &dyn ObjectSource,
        is_older: bool,
    ) -> Result<(), RepositoryError> {
        let object = reference.object;
        let malformed = || RepositoryError::Read(ReadError::IndexObject { object });
        let body = fetch_body(self.keys(), source, object, ObjectType::Index)
            .map_err(RepositoryError::Read)?;
        if body.len() as u64 != reference.body_bytes {
            return Err(malformed());
        }
        self.index
            .add_index_object(reference, &body, is_older)
            .map_err(RepositoryError::Index)?
            .map_err(|_| malformed())
    }

    /// Reads index objects of an older manifest into the local index. They are forgotten again when a state is
    /// accepted or taken over that does not list them.
    pub(crate) fn add_older_indexes(
        &self,
        indexes: &[IndexReference],
        source: &dyn ObjectSource,
    ) -> Result<(), RepositoryError> {
        let known = self.index.index_objects().map_err(RepositoryError::Index)?;
        for reference in indexes {
            if !known.contains(&reference.object) {
                self.add_index(reference, source, true)?;
            }
        }
        Ok(())
    }

    /// Packs that no manifest lists and that have to be rescued, but for these.
    pub(crate) fn endangered_but(&self, gone: &[ObjectId]) -> Vec<ObjectId> {
        let endangered = self.endangered.iter().copied();
        endangered.filter(|object| !gone.contains(object)).collect()
    }

    /// Makes, seals and stores one index object.
    fn store_index(
        &self,
        planned: &Planned,
        sink: &dyn ObjectSink,
    ) -> Result<(IndexReference, Vec<i64>), RepositoryError> {
        let mut packs = Vec::new();
        for origin in &planned.origins {
            match origin {
                Origin::Fresh(fresh) => packs.extend(fresh.iter().map(|&(number, _)| number)),
                Origin::Listed(reference) => {
                    let listed = self
                        .index
                        .listed_by(&reference.object)
                        .map_err(RepositoryError::Index)?;
                    packs.extend(listed.iter().map(|&(number, _)| number));
                }
            }
        }
        let mut body = IndexBody::new();
        for &number in &packs {
            let pack = self
                .index
                .contents(number)
                .map_err(RepositoryError::Index)?;
            let entry = PackEntry {
                object: pack.object,
                stored_bytes: pack.stored_bytes,
                table: &pack.table,
            };
            if !body.push(&entry) {
                return Err(RepositoryError::TooLong);
            }
        }
        let body = body.finish();
        debug_assert!(body.len() >= INDEX_HEAD_BYTES);
        let object = self.store(ObjectType::Index, &body, sink)?;
        Ok((
            IndexReference {
                object,
                body_bytes: body.len() as u64,
            },
            packs,
        ))
    }

    fn store(
        &self,
        object_type: ObjectType,
        body: &[u8],
        sink: &dyn ObjectSink,
    ) -> Result<ObjectId, RepositoryError> {
        let sealed = self
            .sealer
            .seal_body(object_type, body)
            .map_err(RepositoryError::Entropy)?;
        let (object, bytes) = sealed.ok_or(RepositoryError::TooLong)?;
        sink.put(object, Bytes::from(bytes))
            .map_err(RepositoryError::Sink)?;
        Ok(object)
    }
}
