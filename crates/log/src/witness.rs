//! C2SP tlog-witness, `add-checkpoint`: what a witness is asked, and whether it may sign.
//!
//! 1. A log sends its newest checkpoint, the size that it believes the witness signed last, and the
//!    proof that the tree has only grown since.
//! 2. The witness compares with what it remembers ([`AddCheckpoint::check`]), writes the new head down
//!    durably, and only then signs. Comparing and writing down are one step: otherwise two requests
//!    at once roll the witness back.
//! 3. A log that sent the wrong size is told the right one (409), and tries again.
//!
//! The order of the checks is the specification's, so that every refusal has one status.

use core::fmt::Write as _;

use candor_wire::ids::to_hex;
use sha2::{Digest as _, Sha256};

use crate::checkpoint::{CHECKPOINT_MAX_BYTES, CheckpointError, SignedCheckpoint};
use crate::note::{VerifierKey, decimal, split_at_empty_line};
use crate::tree::{Consistency, Hash, PROOF_MAX_HASHES, TREE_SIZE_MAX, TreeHead};

/// Longest request, in bytes: a size, 63 hashes in base64 and a checkpoint.
pub const ADD_CHECKPOINT_MAX_BYTES: usize = 4096 + CHECKPOINT_MAX_BYTES;

/// The type of the body that goes with a conflict: [`Refusal::body`].
pub const CONFLICT_CONTENT_TYPE: &str = "text/x.tlog.size";

/// Why a witness does not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a request, or the old size is above the new one.
    #[error("the request cannot be read")]
    Malformed,
    /// The witness does not know the log.
    #[error("the log is not known")]
    UnknownLog,
    /// The log's key did not sign the checkpoint, or a line that says so is not valid.
    #[error("the checkpoint is not signed by the log")]
    NotSigned,
    /// The old size is not the one that the witness signed last.
    #[error("the newest checkpoint known here has {size} leaves")]
    Conflict {
        /// The size that the witness signed last, 0 if it never did.
        size: u64,
    },
    /// The tree is not one that grew from the one that the witness signed last.
    #[error("the checkpoint does not follow from the one before")]
    Inconsistent,
}

impl Refusal {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::UnknownLog => 404,
            Self::NotSigned => 403,
            Self::Conflict { .. } => 409,
            Self::Inconsistent => 422,
        }
    }

    /// The body of the reply: the size and a newline for a conflict, else empty.
    pub fn body(self) -> String {
        match self {
            Self::Conflict { size } => format!("{size}\n"),
            _ => String::new(),
        }
    }
}

/// A request to cosign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the tree that the witness is believed to have signed last.
    pub old_size: u64,
    /// That the tree has only grown since.
    pub proof: Consistency,
    /// The tree now.
    pub checkpoint: SignedCheckpoint,
}

impl AddCheckpoint {
    /// Reads a request in its one spelling; everything else is [`Refusal::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        Self::read(bytes).ok_or(Refusal::Malformed)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > ADD_CHECKPOINT_MAX_BYTES {
            return None;
        }
        let (head, checkpoint) = split_at_empty_line(bytes)?;
        let mut lines = head.split('\n');
        let old_size = decimal(lines.next()?.strip_prefix("old ")?)?;
        let path: Vec<Hash> = lines.map(Hash::from_base64).collect::<Option<_>>()?;
        if old_size > TREE_SIZE_MAX || path.len() > PROOF_MAX_HASHES {
            return None;
        }
        Some(Self {
            old_size,
            proof: Consistency { path },
            checkpoint: SignedCheckpoint::parse(checkpoint).ok()?,
        })
    }

    /// The bytes of the request.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("old {}\n", self.old_size);
        for hash in &self.proof.path {
            writeln!(head, "{}", hash.to_base64()).expect("writing into memory cannot fail");
        }
        head.push('\n');
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.checkpoint.bytes());
        bytes
    }

    /// Whether a witness may cosign this, knowing the log by `log` (the key that it has for the
    /// checkpoint's origin) and having cosigned `last` of it.
    ///
    /// In the specification's order: 404, 403, 400, 409, 422. The caller makes this check and the
    /// durable update of `last` one step.
    pub fn check(&self, log: Option<&VerifierKey>, last: Option<TreeHead>) -> Result<(), Refusal> {
        let log = log.ok_or(Refusal::UnknownLog)?;
        match self.checkpoint.is_signed_by(log) {
            Ok(()) => {}
            Err(CheckpointError::OtherLog) => return Err(Refusal::UnknownLog),
            Err(_) => return Err(Refusal::NotSigned),
        }
        let new = self.checkpoint.head();
        if self.old_size > new.size {
            return Err(Refusal::Malformed);
        }
        let last = last.unwrap_or_else(TreeHead::empty);
        if self.old_size != last.size {
            return Err(Refusal::Conflict { size: last.size });
        }
        // Also that an empty tree has the empty tree's root, and that the same size has the same.
        self.proof
            .verify(&last, &new)
            .map_err(|_| Refusal::Inconsistent)
    }
}

/// How a witness names a log in paths, `<origin hash>/checkpoint`: SHA-256, lowercase hexadecimal.
pub fn origin_hash(origin: &str) -> String {
    to_hex(&Sha256::digest(origin.as_bytes()))
}
