//! A proof that a log broke its promise, which anybody can verify offline with the log's key.
//!
//! Threat model, A18: an operator shows one tree to some and another to others. A log must never sign
//! two checkpoints of which one cannot have grown from the other.
//!
//! 1. Two checkpoints of one size with different roots prove it by themselves.
//! 2. With different sizes, one more thing is needed: the root that the newer tree had at the older
//!    size, with its proof of consistency. It is not the root that the log signed then.
//!
//! Both checkpoints keep the cosignatures that they had, which also say when each was seen by whom.

use core::fmt::Write as _;

use crate::checkpoint::{CHECKPOINT_MAX_BYTES, CheckpointError, SignedCheckpoint};
use crate::note::VerifierKey;
use crate::tree::{Consistency, Hash, PROOF_MAX_HASHES, ProofError, TreeHead};

/// Longest proof, in bytes: two checkpoints and 64 hashes.
pub const FORK_PROOF_MAX_BYTES: usize = 2 * CHECKPOINT_MAX_BYTES + 4096;

const FIRST_LINE: &str = "candor fork proof v1";

/// What the newer tree says about the older size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The root that the newer tree had at the size of the older checkpoint.
    pub root: Hash,
    /// That the newer tree grew from it.
    pub consistency: Consistency,
}

/// Two checkpoints of one log that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misbehaviour {
    /// Of the smaller tree; of two with the same size, the one that was seen first.
    pub older: SignedCheckpoint,
    /// The one that contradicts it.
    pub newer: SignedCheckpoint,
    /// Needed when the sizes differ, absent when they are the same.
    pub prefix: Option<Prefix>,
}

/// A text is not a proof of misbehaviour, or proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// Longer than [`FORK_PROOF_MAX_BYTES`].
    #[error("a fork proof has at most {FORK_PROOF_MAX_BYTES} bytes, not {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not the lines of such a proof.
    #[error("this is not a fork proof")]
    Format,
    /// One of the two checkpoints cannot be read, or is not signed by the log.
    #[error("a checkpoint of the fork proof is not acceptable")]
    Checkpoint(#[source] CheckpointError),
    /// The proof that belongs to the newer checkpoint does not verify.
    #[error("the newer checkpoint does not say what the fork proof claims")]
    Prefix(#[source] ProofError),
    /// The checkpoints do not contradict each other.
    #[error("the two checkpoints do not contradict each other")]
    NoContradiction,
}

impl Misbehaviour {
    /// The proof that two checkpoints of one size are, if their roots differ. Signatures are not
    /// checked here: [`Self::verify`] does.
    pub fn new(older: SignedCheckpoint, newer: SignedCheckpoint) -> Option<Self> {
        let proof = Self {
            older,
            newer,
            prefix: None,
        };
        proof.contradiction().ok().map(|()| proof)
    }

    /// The proof that two checkpoints of different sizes are, with what the newer tree says about
    /// the older size.
    pub fn with_prefix(
        older: SignedCheckpoint,
        newer: SignedCheckpoint,
        prefix: Prefix,
    ) -> Option<Self> {
        let proof = Self {
            older,
            newer,
            prefix: Some(prefix),
        };
        proof.contradiction().ok().map(|()| proof)
    }

    /// Whether a file says that it is such a proof.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes
            .strip_prefix(FIRST_LINE.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b'\n'))
    }

    /// Reads a proof in its one spelling. Verifies nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, ForkError> {
        if bytes.len() > FORK_PROOF_MAX_BYTES {
            return Err(ForkError::TooLong { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ForkError::Format)?;
        // No checkpoint has an empty line but the one between its text and its signatures.
        let parts: Vec<&str> = text.splitn(6, "\n\n").collect();
        let [head, older, older_lines, newer, newer_lines] = parts[..] else {
            return Err(ForkError::Format);
        };
        let prefix = prefix_from(head).ok_or(ForkError::Format)?;
        let checkpoint =
            |text: &str| SignedCheckpoint::parse(text.as_bytes()).map_err(ForkError::Checkpoint);
        Ok(Self {
            older: checkpoint(&format!("{older}\n\n{older_lines}\n"))?,
            newer: checkpoint(&format!("{newer}\n\n{newer_lines}"))?,
            prefix,
        })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{FIRST_LINE}\n");
        if let Some(prefix) = &self.prefix {
            let hashes = prefix.consistency.path.iter();
            let lines = [format!("root {}", prefix.root.to_base64())].into_iter();
            for line in lines.chain(hashes.map(Hash::to_base64)) {
                writeln!(head, "{line}").expect("writing into memory cannot fail");
            }
        }
        head.push('\n');
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.older.bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.newer.bytes());
        bytes
    }

    /// Checks that this log signed both checkpoints, and that they contradict each other.
    pub fn verify(&self, log: &VerifierKey) -> Result<(), ForkError> {
        for checkpoint in [&self.older, &self.newer] {
            checkpoint
                .is_signed_by(log)
                .map_err(ForkError::Checkpoint)?;
        }
        self.contradiction()
    }

    fn contradiction(&self) -> Result<(), ForkError> {
        let (older, newer) = (self.older.head(), self.newer.head());
        let contradicts = match &self.prefix {
            None => older.size == newer.size && older.root != newer.root,
            Some(prefix) => {
                if older.size == 0 || older.size >= newer.size {
                    return Err(ForkError::NoContradiction);
                }
                let then = TreeHead {
                    size: older.size,
                    root: prefix.root,
                };
                prefix
                    .consistency
                    .verify(&then, &newer)
                    .map_err(ForkError::Prefix)?;
                prefix.root != older.root
            }
        };
        if contradicts && self.older.origin() == self.newer.origin() {
            Ok(())
        } else {
            Err(ForkError::NoContradiction)
        }
    }
}

/// Reads the lines before the first checkpoint.
fn prefix_from(head: &str) -> Option<Option<Prefix>> {
    let mut lines = head.split('\n');
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let Some(root) = lines.next() else {
        return Some(None);
    };
    let root = Hash::from_base64(root.strip_prefix("root ")?)?;
    let path: Vec<Hash> = lines.map(Hash::from_base64).collect::<Option<_>>()?;
    (path.len() <= PROOF_MAX_HASHES).then_some(Some(Prefix {
        root,
        consistency: Consistency { path },
    }))
}
