//! The vault of a write-only device: each head is a run of its own, sealed under a key that the device forgets.
//!
//! 1. The device writes with [`Repository::open_run`]: it deduplicates against what its own index says that it
//!    stored, lists in a run's manifest the run's one snapshot and new packs, and reads nothing back.
//! 2. Whoever holds the vault's keys reads with [`Repository::open_runs`]: every run that the cell kept, the oldest
//!    first. One that does not open, or contradicts itself, is left out and told; it can hide none of the others,
//!    because what an earlier run says of a pack, a chunk or a key stays.
//!
//! Threats: rows 21 (a stolen writer), 26, 31.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candor_wire::{AccountId, DeviceId, ObjectId, VaultId};
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::index::Index;
use crate::keys::{EpochKey, FIRST_EPOCH, RUNS_MAX, VaultKeys};
use crate::manifest::{IndexReference, Manifest, SnapshotEntry};
use crate::ports::{ObjectSource, SourceError};
use crate::reader::{ReadError, fetch_manifest};
use crate::repository::{Repository, RepositoryError};
use crate::seal::Sealer;
use crate::secret::SecretBytes;

/// Where a write-only device stands before a run.
#[derive(Debug, Clone, Default)]
pub struct LastRun {
    /// Counter of its newest head; 0 for none.
    pub counter: u64,
    /// The manifest that the head names.
    pub manifest: Option<ObjectId>,
    /// The newest snapshot of each backup set, as far as it remembers: an unchanged set makes no run.
    pub snapshots: Vec<SnapshotEntry>,
    /// Whether it knows the keys of packs that an interrupted run left. If not, they are sent again.
    pub keeps_unlisted: bool,
}

/// The secrets that one head brings, opened.
pub struct RunSecrets {
    /// Number of the run.
    pub number: u32,
    /// Its key.
    pub key: EpochKey,
    /// The key of the device's content ids.
    pub chunk_ids: SecretBytes,
}

/// A run as its head announces it.
pub struct RunHead {
    /// Counter of the head.
    pub counter: u64,
    /// Its manifest.
    pub manifest: ObjectId,
    /// Its own secrets first; none if they could not be opened.
    pub secrets: Vec<RunSecrets>,
}

/// Whose runs.
#[derive(Debug, Clone, Copy)]
pub struct RunsOf {
    /// The account.
    pub account: AccountId,
    /// The vault.
    pub vault: VaultId,
    /// The device whose vault it is.
    pub device: DeviceId,
}

/// Runs that are left out: counters of their heads, ascending.
pub type RunsLeftOut = Vec<u64>;

impl Repository {
    /// Opens the vault of this device, which is write-only, for one run. `keys` holds the run's key alone.
    pub fn open_run(
        keys: Arc<VaultKeys>,
        entropy: Arc<dyn Entropy>,
        last: LastRun,
        index_path: &Path,
        source: &dyn ObjectSource,
    ) -> Result<Self, RepositoryError> {
        let index = Index::open(index_path, keys.account(), keys.vault(), entropy.as_ref())
            .map_err(RepositoryError::Index)?;
        index
            .settle_all(last.keeps_unlisted, source, entropy.as_ref())
            .map_err(RepositoryError::Index)?;
        let manifest = Manifest {
            counter: last.counter,
            snapshots: last.snapshots,
            ..Manifest::empty(keys.account(), keys.vault(), keys.current_epoch())
        };
        let sealer = Arc::new(Sealer::new(keys, entropy).map_err(RepositoryError::Entropy)?);
        Ok(Self::of_run(sealer, index, manifest, last.manifest))
    }

    /// Opens the vault of a write-only device for reading, with the runs that can be read: none of them makes an
    /// empty vault. Beyond [`RUNS_MAX`] keys the later runs are left out.
    pub fn open_runs(
        of: RunsOf,
        runs: Vec<RunHead>,
        entropy: Arc<dyn Entropy>,
        index_path: &Path,
        source: &dyn ObjectSource,
    ) -> Result<(Self, RunsLeftOut), RepositoryError> {
        let RunsOf { account, vault, .. } = of;
        let mut left_out = Vec::new();
        let first = runs.iter().find_map(|run| run.secrets.first());
        let chunk_ids = match first {
            Some(first) => SecretBytes::copy_of(first.chunk_ids.as_array()),
            None => drawn(entropy.as_ref())?,
        };
        let is_same = |run: &RunSecrets| run.chunk_ids.as_array() == chunk_ids.as_array();
        let mut secrets = BTreeMap::new();
        let mut heads = Vec::new();
        for run in runs {
            let Some(own) = run.secrets.first().map(|own| own.number) else {
                left_out.push(run.counter);
                continue;
            };
            let is_new = |one: &&RunSecrets| !secrets.contains_key(&one.number);
            let new = run.secrets.iter().filter(is_new).count();
            if !run.secrets.iter().all(is_same) || secrets.len() + new > RUNS_MAX {
                left_out.push(run.counter);
                continue;
            }
            heads.push((run.counter, run.manifest, own));
            for one in run.secrets {
                secrets.entry(one.number).or_insert(one.key);
            }
        }
        if secrets.is_empty() {
            // Of an empty vault: it opens nothing.
            let key = EpochKey::from_bytes(drawn(entropy.as_ref())?.as_array());
            secrets.insert(FIRST_EPOCH, key);
        }
        let keys = VaultKeys::of_runs(account, vault, secrets, chunk_ids.as_array());
        let keys = keys.map(Arc::new).map_err(RepositoryError::Keys)?;
        let index = Index::open(index_path, account, vault, entropy.as_ref())
            .map_err(RepositoryError::Index)?;
        let sealer =
            Arc::new(Sealer::new(Arc::clone(&keys), entropy).map_err(RepositoryError::Entropy)?);
        let empty = Manifest::empty(account, vault, keys.current_epoch());
        let mut repository = Self::of_run(sealer, index, empty, None);
        for (counter, manifest, number) in heads {
            match repository.take_run(of.device, (counter, manifest, number), source) {
                Ok(()) => {}
                Err(RepositoryError::Read(error)) if is_the_runs_own(&error) => {
                    left_out.push(counter);
                }
                Err(error) => return Err(error),
            }
        }
        left_out.sort_unstable();
        Ok((repository, left_out))
    }

    /// Adds what one run lists to what the ones before it did.
    fn take_run(
        &mut self,
        device: DeviceId,
        (counter, object, number): (u64, ObjectId, u32),
        source: &dyn ObjectSource,
    ) -> Result<(), RepositoryError> {
        let keys = self.keys();
        let refused = |source| RepositoryError::Read(ReadError::Manifest { object, source });
        let manifest = fetch_manifest(keys, source, object).map_err(RepositoryError::Read)?;
        let known = &self.manifest().snapshots;
        let is_its_own = |entry: &SnapshotEntry| {
            entry.device == device && known.iter().all(|other| other.id != entry.id)
        };
        if manifest.counter != counter
            || manifest.epoch != number
            || manifest.snapshots.len() != 1
            || !manifest.snapshots.iter().all(is_its_own)
        {
            return Err(refused(crate::manifest::ManifestError::OtherVault));
        }
        self.add_older_indexes(&manifest.indexes, source)?;
        self.extend_manifest(counter, object, manifest);
        Ok(())
    }
}

fn drawn(entropy: &dyn Entropy) -> Result<SecretBytes, RepositoryError> {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy
        .fill(bytes.as_mut())
        .map_err(RepositoryError::Entropy)?;
    Ok(SecretBytes::copy_of(&bytes))
}

/// Whether the run itself is to blame: it is left out, and the others are read. A cell that does not answer, or an
/// index here that fails, is another matter.
fn is_the_runs_own(error: &ReadError) -> bool {
    match error {
        ReadError::Index(_) => false,
        ReadError::Source(source) => matches!(source, SourceError::Missing { .. }),
        _ => true,
    }
}

/// What becomes of a manifest when a run was accepted: its snapshot is the newest of its set.
pub(crate) fn newest_of_each(
    before: &[SnapshotEntry],
    new: &[SnapshotEntry],
) -> Vec<SnapshotEntry> {
    let is_replaced = |old: &&SnapshotEntry| new.iter().all(|entry| entry.set != old.set);
    let kept = before.iter().filter(is_replaced).cloned();
    kept.chain(new.iter().cloned()).collect()
}

/// Index objects by name alone: all that the local index compares.
pub(crate) fn by_name(objects: Vec<ObjectId>) -> Vec<IndexReference> {
    let reference = |object| IndexReference {
        object,
        body_bytes: 0,
    };
    objects.into_iter().map(reference).collect()
}
