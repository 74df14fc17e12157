//! C2SP checkpoints: a tree head, signed by its log and by witnesses.
//!
//! 1. The text is three lines: origin, size, root; a log may add extension lines. They are covered by
//!    every signature and never interpreted.
//! 2. The log signs the text. Its key's name is the origin.
//! 3. A witness signs `cosignature/v1`, a time and the text: that at this time, this was the largest
//!    tree that it had seen of this log, and that the tree had only grown.
//!
//! Lines of unknown keys are kept, so that a checkpoint that somebody passes on stays what it was.

use core::fmt::Write as _;

use candor_wire::sign::{BadSignature, ED25519_SIGNATURE_BYTES, Ed25519Secret, Ed25519Signature};

use crate::note::{self, KeyKind, SignatureLine, VerifierKey, decimal};
use crate::tree::{Hash, TREE_SIZE_MAX, TreeHead, empty_root};

/// Longest origin, in bytes: what C2SP's newer cosignatures can carry.
pub const ORIGIN_MAX_BYTES: usize = 255;

/// Longest signed checkpoint, in bytes: [`SIGNATURES_MAX`] Ed25519 lines, or 16 with the largest
/// post-quantum signatures that C2SP speaks of, fit with room.
pub const CHECKPOINT_MAX_BYTES: usize = 128 * 1024;

/// Most signature lines: the 64 witnesses that a policy can have, and half as many lines of keys that
/// are not known here. C2SP asks for at least 16.
pub const SIGNATURES_MAX: usize = 96;

/// Latest time of a cosignature, in POSIX seconds: C2SP's bound.
pub const COSIGNATURE_TIME_MAX_S: u64 = i64::MAX as u64;

const TIMESTAMP_BYTES: usize = 8;

/// A checkpoint cannot be read, made or believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Longer than [`CHECKPOINT_MAX_BYTES`].
    #[error("a checkpoint has at most {CHECKPOINT_MAX_BYTES} bytes, not {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// More lines than [`SIGNATURES_MAX`].
    #[error("a checkpoint has at most {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// Not a signed note in its one spelling.
    #[error("this is not a signed note")]
    Note,
    /// Empty, longer than [`ORIGIN_MAX_BYTES`], or with a control character.
    #[error("the origin of a checkpoint is one line of 1 to {ORIGIN_MAX_BYTES} bytes")]
    Origin,
    /// Not a decimal in its one spelling, or above [`TREE_SIZE_MAX`].
    #[error("the size in a checkpoint is a decimal up to {TREE_SIZE_MAX}")]
    Size,
    /// Not 32 bytes in base64, or not the root that a tree without leaves has.
    #[error("the root in a checkpoint is not one")]
    Root,
    /// An extension line is empty, or the text does not end with a line end.
    #[error("the text of a checkpoint has an empty line")]
    Extension,
    /// The key is of the wrong kind or name, or not the public half of the secret.
    #[error("this key cannot sign this checkpoint")]
    Key,
    /// Zero, or after [`COSIGNATURE_TIME_MAX_S`].
    #[error("a cosignature cannot have this time")]
    Time,
    /// Of another log than the key's.
    #[error("the checkpoint is of another log")]
    OtherLog,
    /// The log's key has not signed it.
    #[error("the log has not signed the checkpoint")]
    NotSigned,
    /// A line that says that it is by the log's key is not.
    #[error("a signature of the log is not valid")]
    Signature(#[source] BadSignature),
}

/// What a log says about its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names the log, for ever.
    pub origin: String,
    /// Its tree.
    pub head: TreeHead,
}

impl Checkpoint {
    /// The text that is signed, without extension lines.
    pub fn body(&self) -> String {
        let root = self.head.root.to_base64();
        format!("{}\n{}\n{root}\n", self.origin, self.head.size)
    }

    /// Reads a text, which may have extension lines.
    fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let origin = lines.next().ok_or(CheckpointError::Origin)?;
        if !is_origin(origin) {
            return Err(CheckpointError::Origin);
        }
        let size = lines
            .next()
            .and_then(decimal)
            .filter(|size| *size <= TREE_SIZE_MAX)
            .ok_or(CheckpointError::Size)?;
        let root = lines
            .next()
            .and_then(Hash::from_base64)
            .ok_or(CheckpointError::Root)?;
        if lines.any(str::is_empty) {
            return Err(CheckpointError::Extension);
        }
        Ok(Self {
            origin: origin.to_owned(),
            head: TreeHead { size, root },
        })
    }
}

fn is_origin(origin: &str) -> bool {
    (1..=ORIGIN_MAX_BYTES).contains(&origin.len())
        && !origin.bytes().any(|byte| byte.is_ascii_control())
}

/// A checkpoint with its signatures. What is not checked by one of its methods is not known to be
/// signed by anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    text: String,
    lines: Vec<SignatureLine>,
}

impl SignedCheckpoint {
    /// Signs as the log. The key's name must be the origin, and the head one that a tree can have.
    pub fn sign(
        checkpoint: &Checkpoint,
        key: &VerifierKey,
        secret: &Ed25519Secret,
    ) -> Result<Self, CheckpointError> {
        // With a line end in it, an origin would say something else about size and root.
        if !is_origin(&checkpoint.origin) {
            return Err(CheckpointError::Origin);
        }
        let text = checkpoint.body();
        let read = Checkpoint::parse(&text)?;
        if read.head.size == 0 && read.head.root != empty_root() {
            return Err(CheckpointError::Root);
        }
        let is_own = key.kind() == KeyKind::Log && *key.key() == secret.public();
        if !is_own || key.name() != read.origin {
            return Err(CheckpointError::Key);
        }
        let signature = secret.sign_raw(text.as_bytes()).as_bytes().to_vec();
        let line = SignatureLine::new(key, signature).ok_or(CheckpointError::Key)?;
        Ok(Self {
            checkpoint: read,
            text,
            lines: vec![line],
        })
    }

    /// Reads a signed checkpoint in its one spelling: [`Self::bytes`] gives the same bytes again.
    /// Says nothing about who signed it.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        if bytes.len() > CHECKPOINT_MAX_BYTES {
            return Err(CheckpointError::TooLong { bytes: bytes.len() });
        }
        let (text, lines) = note::open(bytes).ok_or(CheckpointError::Note)?;
        if lines.len() > SIGNATURES_MAX {
            return Err(CheckpointError::TooManySignatures);
        }
        let signed = Self {
            checkpoint: Checkpoint::parse(&text)?,
            text,
            lines,
        };
        if signed.bytes() == bytes {
            Ok(signed)
        } else {
            Err(CheckpointError::Note)
        }
    }

    /// The bytes that are stored, served and passed on.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.text.clone();
        bytes.push('\n');
        for line in &self.lines {
            bytes.push_str(&line.text());
        }
        bytes.into_bytes()
    }

    /// Which log.
    pub fn origin(&self) -> &str {
        &self.checkpoint.origin
    }

    /// Its tree.
    pub const fn head(&self) -> TreeHead {
        self.checkpoint.head
    }

    /// Checks that this log signed it: the origin is the key's name, there is a line by the key, and
    /// every line that says that it is by the key is valid.
    pub fn is_signed_by(&self, log: &VerifierKey) -> Result<(), CheckpointError> {
        if log.name() != self.origin() {
            return Err(CheckpointError::OtherLog);
        }
        if log.kind() != KeyKind::Log {
            return Err(CheckpointError::Key);
        }
        let mut signed = Err(CheckpointError::NotSigned);
        for line in self.lines.iter().filter(|line| line.is_by(log)) {
            let bytes: Result<[u8; ED25519_SIGNATURE_BYTES], _> = line.signature().try_into();
            let bytes = bytes.map_err(|_| CheckpointError::Signature(BadSignature))?;
            log.key()
                .verify_raw(self.text.as_bytes(), &Ed25519Signature::from_bytes(bytes))
                .map_err(CheckpointError::Signature)?;
            signed = Ok(());
        }
        signed
    }

    /// Makes a witness's line for it, with its newline. Whether the tree grew honestly is checked
    /// before: [`crate::witness::AddCheckpoint::check`]. `time_s` is in POSIX seconds.
    pub fn cosign(
        &self,
        key: &VerifierKey,
        secret: &Ed25519Secret,
        time_s: u64,
    ) -> Result<String, CheckpointError> {
        if key.kind() != KeyKind::Cosigner || *key.key() != secret.public() {
            return Err(CheckpointError::Key);
        }
        if !is_cosignature_time(time_s) {
            return Err(CheckpointError::Time);
        }
        let signature = secret.sign_raw(&self.cosigned(time_s));
        let mut bytes = time_s.to_be_bytes().to_vec();
        bytes.extend_from_slice(signature.as_bytes());
        let line = SignatureLine::new(key, bytes).ok_or(CheckpointError::Key)?;
        Ok(line.text())
    }

    /// Takes from `lines` (a witness's reply) the valid cosignatures of known witnesses, and ignores
    /// everything else. A newer one replaces the witness's older ones. Says how many were taken.
    pub fn add_lines(&mut self, lines: &str, known: &[VerifierKey]) -> usize {
        if lines.len() > CHECKPOINT_MAX_BYTES {
            return 0;
        }
        let lines = lines.split_inclusive('\n').take(SIGNATURES_MAX);
        let lines = lines.filter_map(|line| SignatureLine::parse(line.strip_suffix('\n')?));
        lines.filter(|line| self.add_line(line, known)).count()
    }

    fn add_line(&mut self, line: &SignatureLine, known: &[VerifierKey]) -> bool {
        let Some((witness, time_s)) = known
            .iter()
            .find_map(|key| Some((key, self.time_of(line, key)?)))
        else {
            return false;
        };
        if self
            .cosigned_by(witness)
            .is_some_and(|newest| newest >= time_s)
        {
            return false;
        }
        let mut lines = self.lines.clone();
        lines.retain(|old| !old.is_by(witness));
        lines.push(line.clone());
        let added = Self {
            lines,
            ..self.clone()
        };
        let fits =
            added.lines.len() <= SIGNATURES_MAX && added.bytes().len() <= CHECKPOINT_MAX_BYTES;
        if fits {
            *self = added;
        }
        fits
    }

    /// When this witness cosigned it, in POSIX seconds: the newest time of a valid line by it.
    pub fn cosigned_by(&self, witness: &VerifierKey) -> Option<u64> {
        self.lines
            .iter()
            .filter_map(|line| self.time_of(line, witness))
            .max()
    }

    /// The time of a line, if it is a valid cosignature by this witness.
    fn time_of(&self, line: &SignatureLine, witness: &VerifierKey) -> Option<u64> {
        if witness.kind() != KeyKind::Cosigner || !line.is_by(witness) {
            return None;
        }
        let (time, signature) = line.signature().split_first_chunk::<TIMESTAMP_BYTES>()?;
        let time_s = u64::from_be_bytes(*time);
        let signature: [u8; ED25519_SIGNATURE_BYTES] = signature.try_into().ok()?;
        if !is_cosignature_time(time_s) {
            return None;
        }
        let signature = Ed25519Signature::from_bytes(signature);
        witness
            .key()
            .verify_raw(&self.cosigned(time_s), &signature)
            .ok()?;
        Some(time_s)
    }

    /// What a witness signs.
    fn cosigned(&self, time_s: u64) -> Vec<u8> {
        let mut message = String::from("cosignature/v1\n");
        writeln!(message, "time {time_s}").expect("writing into memory cannot fail");
        message.push_str(&self.text);
        message.into_bytes()
    }
}

fn is_cosignature_time(time_s: u64) -> bool {
    (1..=COSIGNATURE_TIME_MAX_S).contains(&time_s)
}
