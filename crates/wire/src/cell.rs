//! A cell's identity: the keys it uses, what it acknowledges, and the invitation that names it.
//!
//! 1. An invitation pins the cell's root key. Nothing else is ever believed about a cell's identity:
//!    no certificate authority, no name service.
//! 2. The root signs [`CellKeys`], which name the cell's rotatable acknowledgement and log keys, the
//!    party that runs it and its region. TLS certificates are issued by the same root.
//! 3. Whoever appends a statement gets an [`Acknowledgement`]: the cell's signed promise that it
//!    holds the statement durably at that place of the chain.

use crate::cbor::{self, Canonical, CodecError};
use crate::checked_text::{self, TextFault};
use crate::ids::{AccountId, CellId, Link, StatementId, to_hex};
use crate::re_anchor::LogPoint;
use crate::sign::{Domain, Ed25519Public, Ed25519Secret, Ed25519Signature};
use crate::time::Millis;

/// The version of these formats that this build writes and the lowest that it accepts.
pub const CELL_FORMAT_VERSION: u8 = 1;

/// Most generations of a cell's keys that a client keeps: acknowledgements are checked with the
/// generation that made them.
pub const CELL_KEYS_MAX: usize = 64;

/// Most addresses in one invitation.
pub const INVITATION_ADDRESSES_MAX: usize = 8;

/// Longest address in an invitation, in bytes: a DNS name is at most 253, and a port.
pub const ADDRESS_MAX_BYTES: usize = 260;

const KEYS_MAX_BYTES: usize = 2048;
const ACKNOWLEDGEMENT_MAX_BYTES: usize = 512;
const INVITATION_MAX_BYTES: usize = 4096;

/// The id of the cell with this root key: the first 16 bytes of a BLAKE3 hash of it.
pub fn cell_id(root: &Ed25519Public) -> CellId {
    let mut hash = blake3::Hasher::new_derive_key("candor 2026 cell id v1");
    hash.update(root.as_bytes());
    let mut id = [0; CellId::BYTES];
    id.copy_from_slice(&hash.finalize().as_bytes()[..CellId::BYTES]);
    CellId::from_bytes(id)
}

/// The authority under which a cell is addressed in requests and in TLS, whatever its network
/// address: a request signed for one cell is never valid at another. `.invalid` is reserved
/// (RFC 2606), so no resolver ever answers for it.
pub fn authority(cell: &CellId) -> String {
    format!("{cell}.cell.invalid")
}

/// The origin of a cell's first transparency log (C2SP tlog-checkpoint), and the name of the key that signs
/// its checkpoints. Like [`authority`] it is the cell's whatever its network address.
pub fn log_origin(cell: &CellId) -> String {
    format!("{}/log", authority(cell))
}

/// The keys that a cell uses now, and who runs it where.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct CellKeys {
    /// Always [`CELL_FORMAT_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Which cell.
    #[n(1)]
    pub cell: CellId,
    /// Generation, from 1, growing.
    #[n(2)]
    pub serial: u32,
    /// Checks acknowledgements.
    #[n(3)]
    pub acknowledgement: Ed25519Public,
    /// From when.
    #[n(4)]
    pub from: Millis,
    /// The party that runs the cell.
    #[n(5)]
    pub controller: String,
    /// The jurisdiction in which it keeps data.
    #[n(6)]
    pub region: String,
    /// How long erased data may stay in the cell before it is gone, in days.
    #[n(7)]
    pub retention_days: u32,
    /// Checks the log's checkpoints; absent in generations from before the cell had a log.
    #[n(8)]
    pub log: Option<Ed25519Public>,
    /// Which log of the cell this is, from 2; absent for the first. A new one is begun only when the cell
    /// had to be restored from a backup, and its old log cannot be continued.
    #[n(9)]
    pub log_number: Option<u32>,
    /// The last state of the log before this one that its signer remembers.
    #[n(10)]
    pub log_before: Option<LogPoint>,
}

impl CellKeys {
    /// The origin of the log that these keys sign.
    pub fn log_origin(&self) -> String {
        let first = log_origin(&self.cell);
        match self.log_number {
            None => first,
            Some(number) => format!("{first}/{number}"),
        }
    }
}

impl Canonical for CellKeys {
    const WHAT: &'static str = "a cell's keys";
    const MAX_BYTES: usize = KEYS_MAX_BYTES;
}

/// [`CellKeys`] with the root's signature.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SignedCellKeys {
    /// Canonical bytes of the [`CellKeys`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub keys: Vec<u8>,
    /// The root's signature over [`Domain::CELL_KEYS`] and those bytes.
    #[n(1)]
    pub signature: Ed25519Signature,
}

impl SignedCellKeys {
    /// Signs with the cell's root key.
    pub fn sign(keys: &CellKeys, root: &Ed25519Secret) -> Self {
        let bytes = cbor::encode(keys);
        Self {
            signature: root.sign(Domain::CELL_KEYS, &bytes),
            keys: bytes,
        }
    }
}

/// A reply about a cell's identity cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    /// Not a valid encoding.
    #[error("the cell's description cannot be read")]
    Codec(#[source] CodecError),
    /// Not signed by the pinned root key.
    #[error("the cell's description is not signed by the key in the invitation")]
    Signature,
    /// Signed, but for another cell, or the generations contradict each other.
    #[error("the cell's description contradicts itself")]
    Contradiction,
    /// An acknowledgement is not valid.
    #[error("the cell's acknowledgement is not valid")]
    Acknowledgement,
    /// A receipt of an erasure is not valid.
    #[error("the cell's receipt of an erasure is not valid")]
    Erasure,
}

/// All generations of one cell's keys, checked under its pinned root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellKeyring {
    cell: CellId,
    generations: Vec<CellKeys>,
}

impl CellKeyring {
    /// Checks signatures, ids and that the serials ascend.
    pub fn verify(root: &Ed25519Public, signed: &[SignedCellKeys]) -> Result<Self, CellError> {
        let cell = cell_id(root);
        if signed.is_empty() || signed.len() > CELL_KEYS_MAX {
            return Err(CellError::Contradiction);
        }
        let mut generations: Vec<CellKeys> = Vec::with_capacity(signed.len());
        for one in signed {
            root.verify(Domain::CELL_KEYS, &one.keys, &one.signature)
                .map_err(|_| CellError::Signature)?;
            let keys: CellKeys = cbor::decode(&one.keys).map_err(CellError::Codec)?;
            let ascends = generations
                .last()
                .is_none_or(|last| last.serial < keys.serial);
            if keys.version != CELL_FORMAT_VERSION
                || keys.cell != cell
                || keys.serial == 0
                || !ascends
            {
                return Err(CellError::Contradiction);
            }
            generations.push(keys);
        }
        Ok(Self { cell, generations })
    }

    /// The cell.
    pub const fn cell(&self) -> CellId {
        self.cell
    }

    /// The newest generation.
    pub fn current(&self) -> &CellKeys {
        self.generations
            .last()
            .expect("a keyring is never empty: `verify` refuses that")
    }

    /// The generation of this number.
    pub fn generation(&self, serial: u32) -> Option<&CellKeys> {
        self.generations.iter().find(|keys| keys.serial == serial)
    }

    /// Checks an acknowledgement by the generation that it names.
    pub fn check(&self, signed: &SignedAcknowledgement) -> Result<Acknowledgement, CellError> {
        let ack: Acknowledgement =
            cbor::decode(&signed.acknowledgement).map_err(CellError::Codec)?;
        let keys = self
            .generation(ack.serial)
            .ok_or(CellError::Acknowledgement)?;
        keys.acknowledgement
            .verify(
                Domain::ACKNOWLEDGEMENT,
                &signed.acknowledgement,
                &signed.signature,
            )
            .map_err(|_| CellError::Acknowledgement)?;
        if ack.version != CELL_FORMAT_VERSION || ack.cell != self.cell {
            return Err(CellError::Acknowledgement);
        }
        Ok(ack)
    }
}

/// A cell's promise: this statement is durable at this place.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Acknowledgement {
    /// Always [`CELL_FORMAT_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The cell.
    #[n(1)]
    pub cell: CellId,
    /// The generation of keys that signs it.
    #[n(2)]
    pub serial: u32,
    /// Whose chain.
    #[n(3)]
    pub account: AccountId,
    /// Place in the chain.
    #[n(4)]
    pub sequence: u64,
    /// Link at that place.
    #[n(5)]
    pub link: Link,
    /// The statement.
    #[n(6)]
    pub statement: StatementId,
    /// When, by the cell's clock.
    #[n(7)]
    pub time: Millis,
}

impl Canonical for Acknowledgement {
    const WHAT: &'static str = "an acknowledgement";
    const MAX_BYTES: usize = ACKNOWLEDGEMENT_MAX_BYTES;
}

/// An [`Acknowledgement`] with the cell's signature.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SignedAcknowledgement {
    /// Canonical bytes of the [`Acknowledgement`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub acknowledgement: Vec<u8>,
    /// Over [`Domain::ACKNOWLEDGEMENT`] and those bytes.
    #[n(1)]
    pub signature: Ed25519Signature,
}

impl SignedAcknowledgement {
    /// Signs with the cell's acknowledgement key.
    pub fn sign(acknowledgement: &Acknowledgement, key: &Ed25519Secret) -> Self {
        let bytes = cbor::encode(acknowledgement);
        Self {
            signature: key.sign(Domain::ACKNOWLEDGEMENT, &bytes),
            acknowledgement: bytes,
        }
    }
}

impl Canonical for SignedAcknowledgement {
    const WHAT: &'static str = "a signed acknowledgement";
    const MAX_BYTES: usize = ACKNOWLEDGEMENT_MAX_BYTES + 128;
}

/// A short text that names a cell: where it is, which root key it has, and, if it is meant for
/// somebody new, a one-time right to open an account there.
///
/// Text form: `candor1:` and base64url without padding of the canonical bytes and 4 bytes of their
/// BLAKE3 hash, so that a slip in copying is noticed at once.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Invitation {
    /// Always [`CELL_FORMAT_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The cell's root key.
    #[n(1)]
    pub root: Ed25519Public,
    /// `host:port`, in order of preference. Empty for a cell inside the same process only.
    #[n(2)]
    pub addresses: Vec<String>,
    /// The one-time right to open an account.
    #[n(3)]
    pub right: Option<InvitationRight>,
}

/// The secret of a one-time right to open an account. Bearer: whoever has it can use it once.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct InvitationRight(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 16],
);

impl InvitationRight {
    /// What the cell stores instead of the secret.
    pub fn stored_hash(&self) -> [u8; 32] {
        blake3::derive_key("candor 2026 invitation right v1", &self.0)
    }
}

impl core::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Invitation({}, {:?})",
            to_hex(self.root.as_bytes()),
            self.addresses
        )
    }
}

impl Canonical for Invitation {
    const WHAT: &'static str = "an invitation";
    const MAX_BYTES: usize = INVITATION_MAX_BYTES;
}

/// A text is not an invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// It does not begin with `candor1:`.
    #[error("an invitation begins with `candor1:`")]
    Prefix,
    /// A character was lost or changed in copying.
    #[error("the invitation is damaged: it was not copied completely")]
    Damaged,
    /// Its content is not acceptable.
    #[error("the invitation cannot be read")]
    Content,
}

impl Invitation {
    const PREFIX: &'static str = "candor1:";

    /// The cell that it names.
    pub fn cell(&self) -> CellId {
        cell_id(&self.root)
    }

    /// Reads the text form. White space around it is ignored.
    pub fn from_text(text: &str) -> Result<Self, InvitationError> {
        let content = checked_text::read(Self::PREFIX, text, INVITATION_MAX_BYTES);
        let content = content.map_err(|fault| match fault {
            TextFault::Prefix => InvitationError::Prefix,
            TextFault::Damaged => InvitationError::Damaged,
        })?;
        let invitation: Self = cbor::decode(&content).map_err(|_| InvitationError::Content)?;
        let is_sound = invitation.is_sound();
        is_sound
            .then_some(invitation)
            .ok_or(InvitationError::Content)
    }

    /// Whether its content is acceptable.
    pub(crate) fn is_sound(&self) -> bool {
        self.version == CELL_FORMAT_VERSION
            && self.addresses.len() <= INVITATION_ADDRESSES_MAX
            && self
                .addresses
                .iter()
                .all(|a| !a.is_empty() && a.len() <= ADDRESS_MAX_BYTES)
    }

    /// The text form.
    pub fn to_text(&self) -> String {
        checked_text::write(Self::PREFIX, cbor::encode(self))
    }
}
