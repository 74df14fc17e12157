//! A cell in small: objects that are durable or not, what is condemned, and the chain of heads.

use std::collections::BTreeMap;

use bytes::Bytes;
use candor_wire::ObjectId;

use crate::ports::Presence;

/// Hash of a head.
pub(super) type HeadHash = [u8; 32];

/// What a device signs to move a vault on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) counter: u64,
    pub(super) previous: Option<HeadHash>,
    pub(super) manifest: ObjectId,
    pub(super) device: u8,
    /// Tells apart two heads that are otherwise the same.
    pub(super) time: i64,
    pub(super) condemned: Vec<ObjectId>,
}

impl Head {
    /// Its name.
    pub(super) fn hash(&self) -> HeadHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.counter.to_be_bytes());
        hasher.update(&self.previous.unwrap_or_default());
        hasher.update(self.manifest.as_bytes());
        hasher.update(&[self.device]);
        hasher.update(&self.time.to_be_bytes());
        for object in &self.condemned {
            hasher.update(object.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// Why a head did not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Conflict,
    Missing,
}

#[derive(Clone)]
struct Stored {
    bytes: Bytes,
    is_condemned: bool,
}

/// The cell's disk and database.
#[derive(Clone, Default)]
pub(super) struct Cell {
    stored: BTreeMap<ObjectId, Stored>,
    /// Uploads that began and were not acknowledged: what of their bytes is on the disk.
    begun: BTreeMap<ObjectId, Bytes>,
    heads: Vec<Head>,
}

impl Cell {
    /// Stores an object: written beside, synced, renamed, and only then in the database.
    pub(super) fn put(&mut self, object: ObjectId, bytes: &Bytes) {
        self.begun.insert(object, bytes.clone());
        self.confirm(object);
    }

    /// An upload of which the disk has only so many bytes when the cell stops.
    pub(super) fn begin(&mut self, object: ObjectId, bytes: &Bytes, written: usize) {
        self.begun
            .insert(object, bytes.slice(..written.min(bytes.len())));
    }

    fn confirm(&mut self, object: ObjectId) {
        let Some(bytes) = self.begun.remove(&object) else {
            return;
        };
        assert_eq!(ObjectId::of(&bytes), object, "the cell checks the hash");
        // One that is condemned stays so: only a head rescues it.
        self.stored.entry(object).or_insert(Stored {
            bytes,
            is_condemned: false,
        });
    }

    /// The cell starts again: what is not in the database, whole or torn, is discarded.
    pub(super) fn start_again(&mut self) {
        self.begun.clear();
    }

    pub(super) fn get(&self, object: ObjectId) -> Option<Bytes> {
        self.stored.get(&object).map(|one| one.bytes.clone())
    }

    pub(super) fn presence(&self, object: ObjectId) -> Presence {
        match self.stored.get(&object) {
            None => Presence::Absent,
            Some(one) if one.is_condemned => Presence::Condemned,
            Some(_) => Presence::Stored,
        }
    }

    pub(super) fn list(&self, after: Option<ObjectId>) -> Vec<(ObjectId, u64)> {
        let rest = self.stored.iter().filter(|(one, _)| Some(**one) > after);
        rest.take(100)
            .map(|(object, one)| (*object, one.bytes.len() as u64))
            .collect()
    }

    pub(super) fn objects(&self) -> Vec<ObjectId> {
        self.stored.keys().copied().collect()
    }

    pub(super) fn head(&self) -> Option<Head> {
        self.heads.last().cloned()
    }

    /// Whether the chain as it is now has this head.
    pub(super) fn has_head(&self, hash: &HeadHash) -> bool {
        self.heads.iter().any(|head| head.hash() == *hash)
    }

    /// Moves the head by compare-and-swap. The same request again finds its head there, and nothing happens.
    pub(super) fn swap(&mut self, head: &Head, rescued: &[ObjectId]) -> Result<(), Refused> {
        assert!(
            !rescued.iter().any(|object| head.condemned.contains(object)),
            "the cell calls such a request malformed"
        );
        let now = self.heads.last();
        if now == Some(head) {
            return Ok(());
        }
        let follows = now.map_or(1, |now| now.counter + 1) == head.counter;
        if now.map(Head::hash) != head.previous || !follows {
            return Err(Refused::Conflict);
        }
        let needed: Vec<ObjectId> = rescued.iter().copied().chain([head.manifest]).collect();
        if needed.iter().any(|one| !self.stored.contains_key(one)) {
            return Err(Refused::Missing);
        }
        for object in &needed {
            self.set_condemned(object, false);
        }
        for object in &head.condemned {
            self.set_condemned(object, true);
        }
        self.heads.push(head.clone());
        Ok(())
    }

    fn set_condemned(&mut self, object: &ObjectId, is_condemned: bool) {
        if let Some(one) = self.stored.get_mut(object) {
            one.is_condemned = is_condemned;
        }
    }

    /// The retention window of everything that is condemned is over. Says how much goes.
    pub(super) fn expire(&mut self) -> usize {
        let before = self.stored.len();
        self.stored.retain(|_, one| !one.is_condemned);
        before - self.stored.len()
    }

    /// Keeps an object back, as if it had never been.
    pub(super) fn withhold(&mut self, object: ObjectId) {
        self.stored.remove(&object);
    }

    /// What a backup of the cell holds: only what is durable.
    pub(super) fn copy(&self) -> Self {
        Self {
            begun: BTreeMap::new(),
            ..self.clone()
        }
    }
}
