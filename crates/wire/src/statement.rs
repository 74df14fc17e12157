//! Statements: signed, typed facts about an account, in the order of its chain.
//!
//! 1. An [`Entry`] says who states what, and at which place of which chain. Its canonical bytes are
//!    signed with both signatures of the signer: together a [`SignedEntry`].
//! 2. The commitment is HMAC-SHA256(salt, canonical bytes of the signed entry). It is the
//!    statement's id and all that a transparency log ever holds of it.
//! 3. The link is SHA-256 over (sequence, kind, previous link, commitment). It never covers the
//!    statement itself, so that erasing a consent record (statement and salt) leaves a stub with
//!    which the chain still verifies.
//! 4. The label is where the owner's devices look for the statement in the log. It is derived from
//!    a watch key that only they hold; the cell cannot tell whose it is by looking at the log.

use hmac::{KeyInit as _, Mac as _};
use sha2::Digest as _;

use crate::cbor::{self, Canonical, CodecError};
use crate::consent_record::{ConsentRecord, Withdrawal};
use crate::epoch::EpochRecord;
use crate::erasure::{ErasureAsked, ErasureCancelled};
use crate::ids::{AccountId, CellId, DeviceId, Label, Link, Salt, StatementId};
use crate::limits::STATEMENT_MAX_BYTES;
use crate::re_anchor::ReAnchor;
use crate::revocation::DeviceRevoked;
use crate::sign::{Domain, PublicKey, SecretKey, Signature};
use crate::time::Millis;

/// The version of entries that this build writes and the lowest that it accepts.
pub const ENTRY_VERSION: u8 = 1;

/// Length of an X-Wing public key, in bytes (ML-KEM-768 and X25519).
pub const AGREEMENT_PUBLIC_BYTES: usize = 1216;

/// Kinds of statements. The numbers are part of the format and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// An account begins. Signed by its root.
    #[n(1)]
    Genesis,
    /// A device joins. Signed by the root or a full device.
    #[n(2)]
    DeviceAdded,
    /// A key epoch of the account or of a vault begins. Signed by a full device.
    #[n(3)]
    Epoch,
    /// A person consented to a service on a device. Signed by that device.
    #[n(4)]
    ConsentGiven,
    /// A consent ended because the person said so. Signed by a device.
    #[n(5)]
    ConsentWithdrawn,
    /// A person accepted an older state, after their cell was restored from a backup. Signed by a full
    /// device.
    #[n(6)]
    ReAnchored,
    /// A person asked for a vault, or the account, to be erased. Signed by a full device; for the account also
    /// by its root.
    #[n(7)]
    ErasureAsked,
    /// A person took that back in time. Signed by a full device or the root.
    #[n(8)]
    ErasureCancelled,
    /// A device is one of the account's no longer. Signed by another, full device.
    #[n(9)]
    DeviceRevoked,
}

impl Kind {
    /// Every kind, by number.
    pub const ALL: [Self; 9] = [
        Self::Genesis,
        Self::DeviceAdded,
        Self::Epoch,
        Self::ConsentGiven,
        Self::ConsentWithdrawn,
        Self::ReAnchored,
        Self::ErasureAsked,
        Self::ErasureCancelled,
        Self::DeviceRevoked,
    ];

    /// The number of this kind.
    pub const fn code(self) -> u8 {
        match self {
            Self::Genesis => 1,
            Self::DeviceAdded => 2,
            Self::Epoch => 3,
            Self::ConsentGiven => 4,
            Self::ConsentWithdrawn => 5,
            Self::ReAnchored => 6,
            Self::ErasureAsked => 7,
            Self::ErasureCancelled => 8,
            Self::DeviceRevoked => 9,
        }
    }

    /// Whether a statement of this kind may be erased while its account lives. Devices and epochs
    /// may not: without them nobody could check the rest.
    pub const fn is_erasable(self) -> bool {
        matches!(self, Self::ConsentGiven | Self::ConsentWithdrawn)
    }
}

/// What a device may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Reads, writes, adds and revokes devices.
    #[n(1)]
    Full,
    /// Only writes; holds no key that opens anything.
    #[n(2)]
    WriteOnly,
}

/// The body of [`Kind::Genesis`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Genesis {
    /// The root signing key, derived from the recovery phrase.
    #[n(0)]
    pub root: PublicKey,
    /// The recovery key (X-Wing), derived from the recovery phrase: every epoch is wrapped to it.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub recovery: [u8; AGREEMENT_PUBLIC_BYTES],
    /// The cell on which the account begins.
    #[n(2)]
    pub cell: CellId,
}

/// The body of [`Kind::DeviceAdded`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct DeviceAdded {
    /// The new device.
    #[n(0)]
    pub device: DeviceId,
    /// What it may do.
    #[n(1)]
    pub role: Role,
    /// Checks its statements, requests and heads.
    #[n(2)]
    pub signing: PublicKey,
    /// Its X-Wing key, to which epochs are wrapped.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub agreement: [u8; AGREEMENT_PUBLIC_BYTES],
    /// Its name, sealed under the account's key: a device's name is nobody else's business.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed_name: Vec<u8>,
}

/// A body, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// See [`Kind::Genesis`].
    Genesis(Box<Genesis>),
    /// See [`Kind::DeviceAdded`].
    DeviceAdded(Box<DeviceAdded>),
    /// See [`Kind::Epoch`].
    Epoch(Box<EpochRecord>),
    /// See [`Kind::ConsentGiven`].
    ConsentGiven(Box<ConsentRecord>),
    /// See [`Kind::ConsentWithdrawn`].
    ConsentWithdrawn(Withdrawal),
    /// See [`Kind::ReAnchored`].
    ReAnchored(Box<ReAnchor>),
    /// See [`Kind::ErasureAsked`].
    ErasureAsked(ErasureAsked),
    /// See [`Kind::ErasureCancelled`].
    ErasureCancelled(ErasureCancelled),
    /// See [`Kind::DeviceRevoked`].
    DeviceRevoked(Box<DeviceRevoked>),
}

macro_rules! canonical {
    ($type:ty, $what:literal) => {
        impl Canonical for $type {
            const WHAT: &'static str = $what;
            const MAX_BYTES: usize = STATEMENT_MAX_BYTES;
        }
    };
}

canonical!(Genesis, "a genesis statement");
canonical!(DeviceAdded, "a device statement");
canonical!(EpochRecord, "an epoch record");
canonical!(ConsentRecord, "a consent record");
canonical!(Withdrawal, "a withdrawal");
canonical!(ReAnchor, "a re-anchoring");
canonical!(ErasureAsked, "a wish to erase");
canonical!(ErasureCancelled, "a wish to erase, taken back");
canonical!(DeviceRevoked, "a revocation");
canonical!(Entry, "a statement");
canonical!(SignedEntry, "a signed statement");

impl Body {
    /// The kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Genesis(_) => Kind::Genesis,
            Self::DeviceAdded(_) => Kind::DeviceAdded,
            Self::Epoch(_) => Kind::Epoch,
            Self::ConsentGiven(_) => Kind::ConsentGiven,
            Self::ConsentWithdrawn(_) => Kind::ConsentWithdrawn,
            Self::ReAnchored(_) => Kind::ReAnchored,
            Self::ErasureAsked(_) => Kind::ErasureAsked,
            Self::ErasureCancelled(_) => Kind::ErasureCancelled,
            Self::DeviceRevoked(_) => Kind::DeviceRevoked,
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Genesis(body) => cbor::encode(body),
            Self::DeviceAdded(body) => cbor::encode(body),
            Self::Epoch(body) => cbor::encode(body),
            Self::ConsentGiven(body) => cbor::encode(body),
            Self::ConsentWithdrawn(body) => cbor::encode(body),
            Self::ReAnchored(body) => cbor::encode(body),
            Self::ErasureAsked(body) => cbor::encode(body),
            Self::ErasureCancelled(body) => cbor::encode(body),
            Self::DeviceRevoked(body) => cbor::encode(body),
        }
    }

    fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(match kind {
            Kind::Genesis => Self::Genesis(Box::new(cbor::decode(bytes)?)),
            Kind::DeviceAdded => Self::DeviceAdded(Box::new(cbor::decode(bytes)?)),
            Kind::Epoch => Self::Epoch(Box::new(cbor::decode(bytes)?)),
            Kind::ConsentGiven => Self::ConsentGiven(Box::new(cbor::decode(bytes)?)),
            Kind::ConsentWithdrawn => Self::ConsentWithdrawn(cbor::decode(bytes)?),
            Kind::ReAnchored => Self::ReAnchored(Box::new(cbor::decode(bytes)?)),
            Kind::ErasureAsked => Self::ErasureAsked(cbor::decode(bytes)?),
            Kind::ErasureCancelled => Self::ErasureCancelled(cbor::decode(bytes)?),
            Kind::DeviceRevoked => Self::DeviceRevoked(Box::new(cbor::decode(bytes)?)),
        })
    }
}

/// One statement at its place in a chain: what the signer signs.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Entry {
    /// Always [`ENTRY_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Whose chain.
    #[n(1)]
    pub account: AccountId,
    /// Place in the chain, from 0.
    #[n(2)]
    pub sequence: u64,
    /// Link of the entry before; [`genesis_link`] for the first.
    #[n(3)]
    pub previous: Link,
    /// What kind of fact.
    #[n(4)]
    pub kind: Kind,
    /// The signing device; absent for the root.
    #[n(5)]
    pub signer: Option<DeviceId>,
    /// When, by the signer's clock.
    #[n(6)]
    pub time: Millis,
    /// Where the owner's devices look for it in the log.
    #[n(7)]
    pub label: Label,
    /// Canonical bytes of the body of this kind.
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

/// An entry's canonical bytes and their signatures.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SignedEntry {
    /// Canonical bytes of the [`Entry`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub entry: Vec<u8>,
    /// Over [`Domain::STATEMENT`] and those bytes.
    #[n(1)]
    pub signature: Signature,
}

/// What the link of the entry before the first one is: 32 zero bytes.
pub const fn genesis_link() -> Link {
    Link::from_bytes([0; 32])
}

/// The commitment to a signed entry: HMAC-SHA256 (RFC 2104) under the salt.
pub fn commitment(salt: &Salt, signed_entry: &[u8]) -> StatementId {
    // HMAC takes a key of any length; 32 bytes are fine.
    let Ok(mut mac) = hmac::Hmac::<sha2::Sha256>::new_from_slice(salt.as_bytes()) else {
        unreachable!("HMAC accepts keys of every length")
    };
    mac.update(signed_entry);
    StatementId::from_bytes(mac.finalize().into_bytes().into())
}

/// The link of an entry: SHA-256 over a domain, sequence (u64, big endian), kind, previous link and
/// commitment.
pub fn link(sequence: u64, kind: u8, previous: &Link, commitment: &StatementId) -> Link {
    let mut hash = sha2::Sha256::new();
    hash.update(b"candor link\0\x01");
    hash.update(sequence.to_be_bytes());
    hash.update([kind]);
    hash.update(previous.as_bytes());
    hash.update(commitment.as_bytes());
    Link::from_bytes(hash.finalize().into())
}

/// A statement with the salt that opens its commitment.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Statement {
    /// Canonical bytes of a [`SignedEntry`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub signed: Vec<u8>,
    /// Opens the commitment.
    #[n(1)]
    pub salt: Salt,
}

/// A statement that was decoded and is about to be checked against its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The entry.
    pub entry: Entry,
    /// Its body.
    pub body: Body,
    /// Its signatures.
    pub signature: Signature,
    /// Its bytes, as signed.
    pub entry_bytes: Vec<u8>,
    /// Its commitment, which is its id.
    pub id: StatementId,
}

impl Statement {
    /// Decodes everything and computes the commitment; checks no signature.
    pub fn parse(&self) -> Result<Parsed, CodecError> {
        let signed: SignedEntry = cbor::decode(&self.signed)?;
        let entry: Entry = cbor::decode(&signed.entry)?;
        if entry.version != ENTRY_VERSION {
            return Err(CodecError::Version {
                what: Entry::WHAT,
                version: u32::from(entry.version),
            });
        }
        let body = Body::decode(entry.kind, &entry.body)?;
        Ok(Parsed {
            entry,
            body,
            signature: signed.signature,
            entry_bytes: signed.entry,
            id: commitment(&self.salt, &self.signed),
        })
    }
}

impl Parsed {
    /// Checks both signatures under `key`.
    pub fn verify(&self, key: &PublicKey) -> Result<(), crate::sign::BadSignature> {
        key.verify(Domain::STATEMENT, &self.entry_bytes, &self.signature)
    }

    /// The link of this statement at its place.
    pub fn link(&self) -> Link {
        link(
            self.entry.sequence,
            self.entry.kind.code(),
            &self.entry.previous,
            &self.id,
        )
    }
}

/// What a signer says, before it has a place in the chain. Kept by the caller, so that a lost
/// compare-and-swap is signed again without asking the person again.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Whose chain.
    pub account: AccountId,
    /// The signing device; `None` for the root.
    pub signer: Option<DeviceId>,
    /// When.
    pub time: Millis,
    /// Log label.
    pub label: Label,
    /// 32 fresh random bytes.
    pub salt: Salt,
    /// What is said.
    pub body: Body,
}

impl Draft {
    /// Signs the draft for the place after `previous`, the link of entry `sequence - 1`.
    /// Returns the statement and its own link.
    pub fn sign(&self, sequence: u64, previous: Link, key: &SecretKey) -> (Statement, Link) {
        let entry = Entry {
            version: ENTRY_VERSION,
            account: self.account,
            sequence,
            previous,
            kind: self.body.kind(),
            signer: self.signer,
            time: self.time,
            label: self.label,
            body: self.body.encode(),
        };
        let bytes = cbor::encode(&entry);
        let signature = key.sign(Domain::STATEMENT, &bytes);
        let signed = cbor::encode(&SignedEntry {
            entry: bytes,
            signature,
        });
        let id = commitment(&self.salt, &signed);
        let link = link(sequence, entry.kind.code(), &previous, &id);
        (
            Statement {
                signed,
                salt: self.salt,
            },
            link,
        )
    }
}
