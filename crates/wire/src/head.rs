//! A vault's head: the one small thing about a vault that changes.
//!
//! It names the newest sealed manifest. It is signed by a device and moved by compare-and-swap on
//! the head before it; its counter only grows. Who keeps the newest counter it ever saw notices an
//! older head at once.
//!
//! A write-only device moves heads too, of a vault that is its alone: each of its heads is one *run*, and
//! brings the keys of the run, sealed for the vault's members ([`RunKey`]). It condemns nothing, and a cell
//! keeps every such head, so that a later run never hides an earlier one.

use crate::cbor::{self, Canonical, CodecError};
use crate::ids::{AccountId, DeviceId, ObjectId, VaultId};
use crate::sign::{Domain, Ed25519Public, Ed25519Secret, Ed25519Signature};
use crate::time::Millis;

/// The version of heads that this build writes and the lowest that it accepts.
pub const HEAD_VERSION: u8 = 1;

/// Most objects that one move of a head condemns: at 32 bytes each the list stays below 1 MiB.
pub const CONDEMNED_MAX: usize = 16_384;

/// Most keys that one run brings: its own, and those of earlier runs that were interrupted and whose packs it uses.
pub const RUN_KEYS_MAX: usize = 16;

/// Length of an encapsulated X-Wing key, in bytes.
pub const ENCAPSULATED_BYTES: usize = 1120;

/// Length of a run's sealed secrets, in bytes: the run's key, the key of its chunk ids, and a tag.
pub const RUN_SECRETS_SEALED_BYTES: usize = 32 + 32 + 16;

const HEAD_MAX_BYTES: usize = 640 * 1024;

/// BLAKE3 (derived-key mode) of a signed head's canonical bytes: what the next head names, and what
/// compare-and-swap compares.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeadHash(pub [u8; 32]);

impl core::fmt::Debug for HeadHash {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "HeadHash({})", crate::ids::to_hex(&self.0))
    }
}

impl<C> minicbor::Encode<C> for HeadHash {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for HeadHash {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = d
            .bytes()?
            .try_into()
            .map_err(|_| minicbor::decode::Error::message("wrong length"))?;
        Ok(Self(bytes))
    }
}

/// The secrets of one run of a write-only device, sealed to an epoch of its vault (HPKE, RFC 9180): whoever holds
/// the epoch's key opens it, and the device itself does not.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct RunKey {
    /// Number of the run within its vault, from 1, growing.
    #[n(0)]
    pub number: u32,
    /// The vault's epoch to whose public key it is sealed.
    #[n(1)]
    pub epoch: u32,
    /// HPKE encapsulated key, [`ENCAPSULATED_BYTES`].
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub encapsulated: Vec<u8>,
    /// HPKE ciphertext, [`RUN_SECRETS_SEALED_BYTES`].
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// The HPKE `info` of a run's secrets: binds account, vault, device, epoch and run.
pub fn run_info(
    account: &AccountId,
    vault: &VaultId,
    device: &DeviceId,
    epoch: u32,
    number: u32,
) -> Vec<u8> {
    let mut info = b"candor run key\0\x01".to_vec();
    info.extend_from_slice(account.as_bytes());
    info.extend_from_slice(vault.as_bytes());
    info.extend_from_slice(device.as_bytes());
    info.extend_from_slice(&epoch.to_be_bytes());
    info.extend_from_slice(&number.to_be_bytes());
    info
}

/// What a head says.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Head {
    /// Always [`HEAD_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Whose.
    #[n(1)]
    pub account: AccountId,
    /// Of which vault.
    #[n(2)]
    pub vault: VaultId,
    /// Grows by one with every move, from 1.
    #[n(3)]
    pub counter: u64,
    /// The head before; absent for the first.
    #[n(4)]
    pub previous: Option<HeadHash>,
    /// The newest sealed manifest.
    #[n(5)]
    pub manifest: ObjectId,
    /// The epoch under which the manifest is sealed.
    #[n(6)]
    pub epoch: u32,
    /// The device that moved it.
    #[n(7)]
    pub device: DeviceId,
    /// When, by that device's clock.
    #[n(8)]
    pub time: Millis,
    /// Objects that this move condemns, in ascending order: no snapshot needs them any more, and the cell
    /// deletes them once the retention window is over, unless a later move rescues them
    /// ([`crate::api::SwapHead::rescued`]).
    #[n(9)]
    pub condemned: Vec<ObjectId>,
    /// Only of a write-only device, and always of one: its run's key, then those of interrupted runs before it,
    /// descending by number. [`Self::epoch`] is the run's number then.
    #[n(10)]
    pub runs: Option<Vec<RunKey>>,
}

impl Head {
    /// Whether its runs have a possible shape; a head without any has.
    fn has_possible_runs(&self) -> bool {
        let Some(runs) = &self.runs else { return true };
        let fits = |run: &RunKey| {
            run.number >= 1
                && run.epoch >= 1
                && run.encapsulated.len() == ENCAPSULATED_BYTES
                && run.sealed.len() == RUN_SECRETS_SEALED_BYTES
        };
        (1..=RUN_KEYS_MAX).contains(&runs.len())
            && runs[0].number == self.epoch
            && runs.windows(2).all(|pair| pair[0].number > pair[1].number)
            && runs.iter().all(fits)
            && self.condemned.is_empty()
    }
}

impl Canonical for Head {
    const WHAT: &'static str = "a head";
    const MAX_BYTES: usize = HEAD_MAX_BYTES;
}

/// A head's canonical bytes and their signature.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SignedHead {
    /// Canonical bytes of the [`Head`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub head: Vec<u8>,
    /// The device's signature over [`Domain::HEAD`] and those bytes.
    #[n(1)]
    pub signature: Ed25519Signature,
}

impl Canonical for SignedHead {
    const WHAT: &'static str = "a signed head";
    const MAX_BYTES: usize = HEAD_MAX_BYTES + 128;
}

/// A head is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not a valid encoding.
    #[error("the head cannot be read")]
    Codec(#[source] CodecError),
    /// Not signed by the device that it names.
    #[error("the head is not signed by the device that it names")]
    Signature,
    /// For another account or vault, or with an impossible counter.
    #[error("the head is not one of this vault")]
    Place,
}

impl SignedHead {
    /// Signs a head.
    pub fn sign(head: &Head, key: &Ed25519Secret) -> Self {
        let bytes = cbor::encode(head);
        Self {
            signature: key.sign(Domain::HEAD, &bytes),
            head: bytes,
        }
    }

    /// The hash that the next head names.
    pub fn hash(&self) -> HeadHash {
        HeadHash(blake3::derive_key(
            "candor 2026 head v1",
            &cbor::encode(self),
        ))
    }

    /// Decodes without checking the signature, to learn which device to ask for.
    pub fn peek(&self) -> Result<Head, HeadError> {
        cbor::decode(&self.head).map_err(HeadError::Codec)
    }

    /// Checks signature, place and shape.
    pub fn verify(
        &self,
        account: &AccountId,
        vault: &VaultId,
        key_of: impl Fn(&DeviceId) -> Option<Ed25519Public>,
    ) -> Result<Head, HeadError> {
        let head = self.peek()?;
        let key = key_of(&head.device).ok_or(HeadError::Signature)?;
        key.verify(Domain::HEAD, &self.head, &self.signature)
            .map_err(|_| HeadError::Signature)?;
        let in_place = head.account == *account
            && head.vault == *vault
            && head.version == HEAD_VERSION
            && head.counter >= 1
            && head.epoch >= 1
            && (head.counter == 1) == head.previous.is_none()
            && head.condemned.len() <= CONDEMNED_MAX
            && head.condemned.windows(2).all(|pair| pair[0] < pair[1])
            && head.condemned.binary_search(&head.manifest).is_err()
            && head.has_possible_runs();
        if in_place {
            Ok(head)
        } else {
            Err(HeadError::Place)
        }
    }
}
