//! What a write-only device remembers between runs, beside its index: nothing of it is secret.
//!
//! Losing it costs sending some content again, and nothing else: the cell says how far its heads are.

use std::path::Path;

use candor_vault::SnapshotEntry;
use candor_wire::ObjectId;
use candor_wire::cbor::{self, Canonical};
use candor_wire::head::{RUN_KEYS_MAX, RunKey};

use crate::commands::{Failure, FailureKind};
use crate::durable;

/// The version of the file that this build writes and the only one that it reads.
const WRITER_STATE_VERSION: u8 = 1;

/// Largest file, in bytes: snapshots of a few sets, and keys of at most 16 runs of 1.3 KiB each.
const WRITER_STATE_MAX_BYTES: usize = 256 * 1024;

/// How far this device is with a vault of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(crate) struct WriterState {
    /// Always [`WRITER_STATE_VERSION`].
    #[n(0)]
    version: u8,
    /// The next run's number is at least this.
    #[n(1)]
    next: u32,
    /// Sealed keys of runs that no head brought yet, ascending: packs at the cell may need them.
    #[n(2)]
    open: Vec<RunKey>,
    /// The manifest of the newest run.
    #[n(3)]
    manifest: Option<ObjectId>,
    /// The newest snapshot of each set.
    #[n(4)]
    snapshots: Vec<SnapshotEntry>,
}

impl Canonical for WriterState {
    const WHAT: &'static str = "a write-only device's state";
    const MAX_BYTES: usize = WRITER_STATE_MAX_BYTES;
}

impl WriterState {
    /// Reads it. A missing or damaged one is like a new one.
    pub(crate) fn load(path: &Path) -> Self {
        let bytes = durable::read_limited(path, WRITER_STATE_MAX_BYTES as u64);
        let decoded = bytes
            .ok()
            .flatten()
            .and_then(|bytes| cbor::decode::<Self>(&bytes).ok());
        decoded
            .filter(|state| state.version == WRITER_STATE_VERSION)
            .unwrap_or_default()
    }

    /// Whether it is one that was written: then it knows the keys of what interrupted runs left.
    pub(crate) const fn is_known(&self) -> bool {
        self.version == WRITER_STATE_VERSION
    }

    /// The number of the next run, given that of the newest head's; 0 for none. `None`: no number is left, which
    /// takes somebody who wants it so.
    pub(crate) fn next(&self, published: u32) -> Option<u32> {
        let after = published.checked_add(1)?;
        (self.next != u32::MAX).then_some(self.next.max(after))
    }

    /// Whether no more keys fit one head: then what the interrupted runs left is given up.
    pub(crate) fn is_full(&self) -> bool {
        self.open.len() >= RUN_KEYS_MAX
    }

    /// Snapshots to compare with, if they are of the newest head.
    pub(crate) fn snapshots_of(&self, manifest: Option<ObjectId>) -> Vec<SnapshotEntry> {
        if manifest.is_some() && self.manifest == manifest {
            self.snapshots.clone()
        } else {
            Vec::new()
        }
    }

    /// A run begins: before anything of it is sent, its sealed key is kept.
    pub(crate) fn begin(&mut self, run: RunKey, gives_up: bool) {
        self.version = WRITER_STATE_VERSION;
        self.next = run.number.saturating_add(1);
        if gives_up {
            self.open.clear();
        }
        self.open.push(run);
    }

    /// The keys that the next head brings: its run's own first.
    pub(crate) fn runs(&self) -> Vec<RunKey> {
        self.open.iter().rev().cloned().collect()
    }

    /// The head moved: the keys are with it.
    pub(crate) fn published(&mut self, manifest: ObjectId, snapshots: Vec<SnapshotEntry>) {
        self.open.clear();
        self.manifest = Some(manifest);
        self.snapshots = snapshots;
    }

    /// The run stored nothing, so nobody needs its key.
    pub(crate) fn stored_nothing(&mut self) {
        self.open.pop();
    }

    /// Writes it, durably.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        durable::replace(path, &cbor::encode(self)).map_err(|error| {
            Failure::new(
                FailureKind::Failed,
                "what this device remembers of its runs cannot be written",
            )
            .because(&error)
        })
    }
}

/// A state with any content (row A37): what is read is written the same, and no number overflows.
#[cfg(any(test, fuzzing))]
pub(crate) fn take_noise(bytes: &[u8]) {
    let Ok(state) = cbor::decode::<WriterState>(bytes) else {
        return;
    };
    assert_eq!(cbor::encode(&state), bytes);
    for published in [0, 1, u32::MAX - 1, u32::MAX] {
        if let Some(next) = state.next(published) {
            assert!(next > published && next >= state.next);
        }
    }
    assert_eq!(state.runs().len(), state.open.len());
    assert!(state.snapshots_of(None).is_empty());
}

/// Where noise begins: a state between two runs, and a new one.
#[cfg(any(test, fuzzing))]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let run = |number| RunKey {
        number,
        epoch: 1,
        encapsulated: vec![0x22; 40],
        sealed: vec![0x33; 80],
    };
    let mut state = WriterState::default();
    state.published(ObjectId::from_bytes([3; 32]), Vec::new());
    state.begin(run(4), false);
    state.begin(run(5), false);
    vec![cbor::encode(&state), cbor::encode(&WriterState::default())]
}
