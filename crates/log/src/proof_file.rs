//! C2SP tlog-proof: that a leaf is in a log, in one file that verifies offline and for ever.
//!
//! It holds the proof of the leaf's place and the checkpoint that the proof leads to, with the
//! cosignatures that it had. Whoever verifies it brings the leaf and a policy.

use core::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{CHECKPOINT_MAX_BYTES, CheckpointError, SignedCheckpoint};
use crate::note::{decimal, split_at_empty_line};
use crate::policy::{Policy, PolicyRefusal, Standing};
use crate::tree::{Hash, Inclusion, PROOF_MAX_HASHES, ProofError};

/// Most extra data, in bytes: a signed statement and its salt fit.
pub const EXTRA_MAX_BYTES: usize = 192 * 1024;

/// Longest proof file, in bytes: the extra data in base64, the lines before the checkpoint, and it.
pub const PROOF_FILE_MAX_BYTES: usize = EXTRA_MAX_BYTES / 3 * 4 + 4096 + CHECKPOINT_MAX_BYTES;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A proof file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofFileError {
    /// Longer than [`PROOF_FILE_MAX_BYTES`].
    #[error("a proof has at most {PROOF_FILE_MAX_BYTES} bytes, not {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A line before the checkpoint is not what it should be.
    #[error("line {line} of the proof cannot be read")]
    Line {
        /// Which, from 1.
        line: usize,
    },
    /// What follows the empty line is not a checkpoint.
    #[error("the checkpoint of the proof cannot be read")]
    Checkpoint(#[source] CheckpointError),
}

/// A proof does not prove that a leaf is in a log, by a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofRefusal {
    /// The policy does not accept the checkpoint.
    #[error("the checkpoint of the proof is not acceptable")]
    Policy(#[source] PolicyRefusal),
    /// The leaf is not at that place of the tree.
    #[error("the leaf is not where the proof says")]
    Inclusion(#[source] ProofError),
}

/// The proof of one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Whatever somebody put in, at most [`EXTRA_MAX_BYTES`]. Not authenticated by anything.
    pub extra: Option<Vec<u8>>,
    /// Where the leaf is.
    pub inclusion: Inclusion,
    /// In which tree.
    pub checkpoint: SignedCheckpoint,
}

impl TlogProof {
    /// Reads a proof in its one spelling. Verifies nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFileError> {
        if bytes.len() > PROOF_FILE_MAX_BYTES {
            return Err(ProofFileError::TooLong { bytes: bytes.len() });
        }
        let (head, checkpoint) =
            split_at_empty_line(bytes).ok_or(ProofFileError::Line { line: 1 })?;
        let mut lines = (1..).zip(head.split('\n')).peekable();
        if lines.next() != Some((1, FIRST_LINE)) {
            return Err(ProofFileError::Line { line: 1 });
        }
        let extra = match lines.next_if(|(_, text)| text.starts_with("extra ")) {
            Some((line, text)) => Some(extra_from(text).ok_or(ProofFileError::Line { line })?),
            None => None,
        };
        // The first line is there, so this one would be the second or third.
        let index_line = 2 + usize::from(extra.is_some());
        let index = lines
            .next()
            .and_then(|(_, text)| decimal(text.strip_prefix("index ")?))
            .ok_or(ProofFileError::Line { line: index_line })?;
        let mut path = Vec::new();
        for (line, text) in lines {
            let hash = Hash::from_base64(text).filter(|_| path.len() < PROOF_MAX_HASHES);
            path.push(hash.ok_or(ProofFileError::Line { line })?);
        }
        let checkpoint = SignedCheckpoint::parse(checkpoint).map_err(ProofFileError::Checkpoint)?;
        Ok(Self {
            extra,
            inclusion: Inclusion { index, path },
            checkpoint,
        })
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{FIRST_LINE}\n");
        let mut put = |line: String| {
            writeln!(head, "{line}").expect("writing into memory cannot fail");
        };
        if let Some(extra) = &self.extra {
            put(format!("extra {}", STANDARD.encode(extra)));
        }
        put(format!("index {}", self.inclusion.index));
        self.inclusion
            .path
            .iter()
            .for_each(|hash| put(hash.to_base64()));
        put(String::new());
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.checkpoint.bytes());
        bytes
    }

    /// Checks that a log of the policy signed the checkpoint, that the policy's quorum cosigned it,
    /// and that the leaf with this hash is in its tree.
    pub fn verify(&self, leaf: &Hash, policy: &Policy) -> Result<Standing, ProofRefusal> {
        let standing = policy
            .check(&self.checkpoint)
            .map_err(ProofRefusal::Policy)?;
        self.inclusion
            .verify(leaf, &self.checkpoint.head())
            .map_err(ProofRefusal::Inclusion)?;
        Ok(standing)
    }
}

fn extra_from(line: &str) -> Option<Vec<u8>> {
    let extra = STANDARD.decode(line.strip_prefix("extra ")?).ok()?;
    (extra.len() <= EXTRA_MAX_BYTES).then_some(extra)
}
