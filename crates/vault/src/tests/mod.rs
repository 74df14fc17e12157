//! Tests of everything below files: sealing, packs, index, manifest, pipeline, repository.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lengths;
mod packing;
pub(crate) mod played;
mod sealing;
mod simulation;
mod storing;
mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use candor_wire::{AccountId, ObjectId, VaultId};

use crate::entropy::{Entropy, EntropyError, SURROUNDINGS_BYTES};
use crate::keys::{EpochKey, VaultKeys};
use crate::ports::{ObjectSink, ObjectSource, Presence, SinkError, SourceError};
use crate::repository::Staged;

pub(crate) fn keys_of(account: u8, vault: u8, epochs: &[(u32, u8)]) -> VaultKeys {
    let epochs = epochs
        .iter()
        .map(|&(epoch, key)| (epoch, EpochKey::from_bytes(&[key; 32])));
    VaultKeys::new(
        AccountId::from_bytes([account; 16]),
        VaultId::from_bytes([vault; 16]),
        epochs,
    )
    .unwrap()
}

pub(crate) fn keys() -> VaultKeys {
    keys_of(1, 2, &[(1, 7)])
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_be_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// A generator whose whole state can be copied, as a virtual machine's can.
pub(crate) struct CopiedEntropy {
    pub(crate) machine: u64,
    pub(crate) drawn: AtomicU64,
}

impl CopiedEntropy {
    pub(crate) fn on_machine(machine: u64) -> Self {
        Self {
            machine,
            drawn: AtomicU64::new(0),
        }
    }
}

impl Entropy for CopiedEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        buffer.copy_from_slice(&noise(drawn, buffer.len()));
        Ok(())
    }

    fn surroundings(&self) -> [u8; SURROUNDINGS_BYTES] {
        let mut out = [0; SURROUNDINGS_BYTES];
        out[..8].copy_from_slice(&self.machine.to_be_bytes());
        out
    }
}

/// A cell in memory that can fail, forget and lie.
#[derive(Default)]
pub(crate) struct MemoryCell {
    pub(crate) objects: Mutex<BTreeMap<ObjectId, Bytes>>,
    /// What heads condemned and no head rescued.
    pub(crate) condemned: Mutex<BTreeSet<ObjectId>>,
    pub(crate) head: Mutex<Option<ObjectId>>,
    /// Puts that still succeed before the cell is full; `usize::MAX` is no limit.
    pub(crate) room: AtomicUsize,
    /// Whether the put that fails stores the object all the same: a lost acknowledgement.
    pub(crate) keep_unacknowledged: bool,
    pub(crate) puts: Mutex<Vec<(ObjectId, usize)>>,
    pub(crate) gets: AtomicUsize,
}

impl MemoryCell {
    pub(crate) fn new() -> Self {
        Self {
            room: AtomicUsize::new(usize::MAX),
            ..Self::default()
        }
    }

    pub(crate) fn replace(&self, object: ObjectId, bytes: Vec<u8>) {
        self.objects
            .lock()
            .unwrap()
            .insert(object, Bytes::from(bytes));
    }

    pub(crate) fn object(&self, object: ObjectId) -> Vec<u8> {
        self.objects.lock().unwrap()[&object].to_vec()
    }

    pub(crate) fn stored(&self) -> Vec<ObjectId> {
        self.objects.lock().unwrap().keys().copied().collect()
    }

    /// Moves the head, as the cell does: by compare-and-swap, and only if everything needed is stored.
    pub(crate) fn move_head(&self, staged: &Staged) -> Result<(), Refused> {
        let mut head = self.head.lock().unwrap();
        if *head != staged.previous() {
            return Err(Refused::Conflict);
        }
        let objects = self.objects.lock().unwrap();
        let manifest = staged.manifest();
        let mut needed = staged.rescued().iter().chain([&manifest]);
        if needed.any(|object| !objects.contains_key(object)) {
            return Err(Refused::Missing);
        }
        let mut condemned = self.condemned.lock().unwrap();
        for object in staged.rescued() {
            condemned.remove(object);
        }
        let stored = staged
            .condemned()
            .iter()
            .filter(|one| objects.contains_key(one));
        condemned.extend(stored);
        *head = Some(staged.manifest());
        Ok(())
    }

    /// The retention window is over: everything condemned is gone. Says how much that was.
    pub(crate) fn expire(&self) -> usize {
        let gone = std::mem::take(&mut *self.condemned.lock().unwrap());
        let mut objects = self.objects.lock().unwrap();
        objects.retain(|object, _| !gone.contains(object));
        gone.len()
    }
}

/// Why a head did not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Conflict,
    Missing,
}

impl ObjectSink for MemoryCell {
    fn put(&self, object: ObjectId, bytes: Bytes) -> Result<(), SinkError> {
        assert_eq!(ObjectId::of(&bytes), object);
        let left = self
            .room
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if left.is_ok() || self.keep_unacknowledged {
            self.objects
                .lock()
                .unwrap()
                .insert(object, Bytes::copy_from_slice(&bytes));
        }
        if left.is_err() {
            return Err(SinkError::Full("no room".into()));
        }
        self.puts.lock().unwrap().push((object, bytes.len()));
        Ok(())
    }
}

impl ObjectSource for MemoryCell {
    fn get(&self, object: ObjectId) -> Result<Bytes, SourceError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let objects = self.objects.lock().unwrap();
        let bytes = objects
            .get(&object)
            .ok_or(SourceError::Missing { object })?;
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn get_range(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes, SourceError> {
        let bytes = self.get(object)?;
        let end = (range.end as usize).min(bytes.len());
        Ok(bytes.slice((range.start as usize).min(end)..end))
    }

    fn has(&self, objects: &[ObjectId]) -> Result<Vec<Presence>, SourceError> {
        let stored = self.objects.lock().unwrap();
        let condemned = self.condemned.lock().unwrap();
        let standing = |object| match stored.contains_key(object) {
            false => Presence::Absent,
            true if condemned.contains(object) => Presence::Condemned,
            true => Presence::Stored,
        };
        Ok(objects.iter().map(standing).collect())
    }

    fn list(&self, after: Option<ObjectId>) -> Result<Vec<(ObjectId, u64)>, SourceError> {
        let stored = self.objects.lock().unwrap();
        let rest = stored.iter().filter(|(object, _)| Some(**object) > after);
        Ok(rest
            .take(100)
            .map(|(object, bytes)| (*object, bytes.len() as u64))
            .collect())
    }
}
