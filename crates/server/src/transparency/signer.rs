//! The key that signs checkpoints, and its memory.
//!
//! The signer keeps the last head that it signed in a file of its own, beside the keys and apart from
//! the database. It signs only what verifiably continues that head, and writes the new one down,
//! durably, before a signature leaves. So a database that was rolled back, or two that diverged, never
//! get two signatures that contradict each other. A signer without its file signs nothing until its
//! memory is set from what witnesses saw. Threats: rows A18, B22, B30.

use std::path::{Path, PathBuf};

use candor_log::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use candor_log::note::VerifierKey;
use candor_log::tree::{Consistency, Hash, TreeHead};
use candor_wire::cbor::{self, Canonical};
use candor_wire::sign::Ed25519Secret;

use crate::sys;

/// The version of the memory's file that this build writes and the lowest that it accepts.
const MEMORY_VERSION: u8 = 1;

#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Memory {
    #[n(0)]
    version: u8,
    #[n(1)]
    size: u64,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    root: [u8; 32],
    #[n(3)]
    origin: String,
}

impl Canonical for Memory {
    const WHAT: &'static str = "the memory of a log's signer";
    const MAX_BYTES: usize = 512;
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignerError {
    #[error("the signer's memory cannot be used")]
    File(#[source] std::io::Error),
    #[error("the signer's memory is damaged")]
    Damaged,
    #[error("the signer's memory is of another log than the stored keys: the cell was put back")]
    OtherLog,
    #[error("the signer's memory is missing")]
    Missing,
    #[error("the tree has {size} entries, fewer than the {signed} that were signed")]
    Behind { size: u64, signed: u64 },
    #[error("the tree does not continue what was signed")]
    Fork,
    #[error("the checkpoint cannot be written")]
    Checkpoint(#[source] CheckpointError),
}

/// Signs the checkpoints of one log.
pub(crate) struct Signer {
    path: PathBuf,
    key: VerifierKey,
    secret: Ed25519Secret,
    last: Option<TreeHead>,
}

impl Signer {
    /// Writes the memory of a log that never signed, unless it is there. Only for a log that is being
    /// made.
    pub(crate) fn create_memory(path: &Path, origin: &str) -> Result<(), SignerError> {
        match recall(path)? {
            Some(memory) if memory.origin == origin => Ok(()),
            _ => remember(path, origin, &TreeHead::empty()),
        }
    }

    /// Writes the memory of a log that never signed, over whatever is there. Only for a log that begins
    /// anew, under an origin that no log had before.
    pub(crate) fn begin_memory(path: &Path, origin: &str) -> Result<(), SignerError> {
        remember(path, origin, &TreeHead::empty())
    }

    /// What the memory says: origin and head.
    pub(crate) fn memory_of(path: &Path) -> Result<Option<(String, TreeHead)>, SignerError> {
        Ok(recall(path)?.map(|memory| {
            let head = memory.head();
            (memory.origin, head)
        }))
    }

    /// Opens the signer. Without its memory it signs nothing.
    pub(crate) fn open(
        path: &Path,
        key: VerifierKey,
        secret: Ed25519Secret,
    ) -> Result<Self, SignerError> {
        let memory = recall(path)?;
        if memory
            .as_ref()
            .is_some_and(|memory| memory.origin != key.name())
        {
            return Err(SignerError::OtherLog);
        }
        let last = memory.map(|memory| memory.head());
        Ok(Self {
            path: path.to_owned(),
            key,
            secret,
            last,
        })
    }

    /// The log's key, as verifiers know it.
    pub(crate) const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The last head that it signed.
    pub(crate) const fn last(&self) -> Option<TreeHead> {
        self.last
    }

    /// Signs a head that `proof` shows to continue the last one. The head is remembered, durably, before
    /// this returns.
    pub(crate) fn sign(
        &mut self,
        head: TreeHead,
        proof: &Consistency,
    ) -> Result<SignedCheckpoint, SignerError> {
        let last = self.last.ok_or(SignerError::Missing)?;
        if head.size < last.size {
            return Err(SignerError::Behind {
                size: head.size,
                signed: last.size,
            });
        }
        proof.verify(&last, &head).map_err(|_| SignerError::Fork)?;
        if head != last {
            remember(&self.path, self.key.name(), &head)?;
            self.last = Some(head);
        }
        let checkpoint = Checkpoint {
            origin: self.key.name().to_owned(),
            head,
        };
        SignedCheckpoint::sign(&checkpoint, &self.key, &self.secret)
            .map_err(SignerError::Checkpoint)
    }

    /// Sets a missing memory from a head that a quorum of witnesses vouches for.
    pub(crate) fn recover(&mut self, head: TreeHead) -> Result<(), SignerError> {
        if self.last.is_none() {
            remember(&self.path, self.key.name(), &head)?;
            self.last = Some(head);
        }
        Ok(())
    }
}

impl Memory {
    const fn head(&self) -> TreeHead {
        TreeHead {
            size: self.size,
            root: Hash(self.root),
        }
    }
}

fn recall(path: &Path) -> Result<Option<Memory>, SignerError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let memory: Memory = cbor::decode(&bytes).map_err(|_| SignerError::Damaged)?;
            if memory.version == MEMORY_VERSION {
                Ok(Some(memory))
            } else {
                Err(SignerError::Damaged)
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SignerError::File(error)),
    }
}

fn remember(path: &Path, origin: &str, head: &TreeHead) -> Result<(), SignerError> {
    let memory = Memory {
        version: MEMORY_VERSION,
        size: head.size,
        root: head.root.0,
        origin: origin.to_owned(),
    };
    sys::write_private_file(path, &cbor::encode(&memory)).map_err(SignerError::File)
}

/// Whatever is read of such a file is written the same (row A37).
#[cfg(any(test, fuzzing))]
pub(crate) fn take_noise(bytes: &[u8]) {
    if let Ok(file) = cbor::decode::<Memory>(bytes) {
        assert_eq!(cbor::encode(&file), bytes);
    }
}
