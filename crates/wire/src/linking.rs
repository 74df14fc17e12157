//! Linking: how a device of an account takes in a new one, over the cell and without trusting it.
//!
//! 1. The *old* device, a full one, opens a link at the cell and shows a [`LinkCode`], as text and as a QR code. It
//!    holds 256 secret bits, the cell and its root key, the account and where its chain ends. It is good once, for ten
//!    minutes. (The other direction, in which the new device shows a code and the old one scans, is what phishers use:
//!    they show theirs.)
//! 2. The *new* device seals what it is ([`JoinRequest`]) under the code's secret and leaves it at the link, with a
//!    commitment to 32 random bytes.
//! 3. The old device answers with 32 random bytes of its own; only then does the new one open its commitment. Both
//!    show six digits made of all of that ([`digits`]). Whoever saw the code and stands between, even with the cell's
//!    help, had to commit before they could know which digits the other side will show: one guess in a million
//!    (as in ZRTP, RFC 6189 §4.4, and in Bluetooth's numeric comparison).
//! 4. The person compares the digits. If they say yes, the old device states the new one on the chain, with new epochs
//!    that are wrapped to it, and leaves the verdict ([`SignedVerdict`]).
//! 5. The new device reads the chain, and takes it only if it goes through the place that the code named. Whether it is
//!    on it decides, and not what somebody who saw the code may have left in the verdict's place.
//!
//! The key of each message follows from the secret, and so does an Ed25519 pair: its public half is the link's name at
//! the cell, and with the other half both sides sign what they ask there. So nobody else writes or reads anything, and
//! the cell learns nothing. What it could do is not deliver. Threats: rows A3, A16.

use hmac::{KeyInit as _, Mac as _};
use zeroize::Zeroize;

use crate::cbor::{self, Canonical, CodecError};
use crate::cell::Invitation;
use crate::checked_text::{self, TextFault};
use crate::ids::{AccountId, CellId, DeviceId, Link, VaultId};
use crate::sign::{
    BadSignature, Domain, Ed25519Public, Ed25519Secret, Ed25519Signature, PublicKey, SecretKey,
    SigningSeeds,
};
use crate::statement::{AGREEMENT_PUBLIC_BYTES, Role};
use crate::time::Millis;

/// The version of these formats that this build writes and the lowest that it accepts.
pub const LINKING_VERSION: u8 = 1;

/// How long a code is good, in milliseconds: long enough to walk to the other machine.
pub const LINK_MAX_MS: i64 = 10 * 60 * 1000;

/// Messages of one link: request, answer, opening, verdict.
pub const LINK_MESSAGES: usize = 4;

/// Longest sealed message of a link, in bytes: a request has two public keys of 3.2 KiB together, a verdict for a
/// write-only device 1.4 KiB.
pub const LINK_MESSAGE_MAX_BYTES: usize = 8 * 1024;

/// Links that one account may have open at one time: somebody may try again before ten minutes are over.
pub const LINKS_MAX: usize = 8;

/// Longest name of a device that joins, in bytes.
pub const JOIN_NAME_MAX_BYTES: usize = 256;

/// Length of the secret in a code, of a link's name, and of the random bytes of each side.
pub const LINK_SECRET_BYTES: usize = 32;

const CODE_MAX_BYTES: usize = 1024;

/// Which message of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPlace {
    /// From the new device: a [`JoinRequest`].
    Request,
    /// From the old device: its random bytes.
    Answer,
    /// From the new device: the bytes that it committed to.
    Opening,
    /// From the old device: a [`Verdict`].
    Verdict,
}

impl LinkPlace {
    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Answer => 1,
            Self::Opening => 2,
            Self::Verdict => 3,
        }
    }
}

/// The 256 bits that two devices share over a code. Has no `Debug`; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkSecret([u8; LINK_SECRET_BYTES]);

impl Drop for LinkSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<C> minicbor::Encode<C> for LinkSecret {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for LinkSecret {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = d
            .bytes()?
            .try_into()
            .map_err(|_| minicbor::decode::Error::message("wrong length"))?;
        Ok(Self(bytes))
    }
}

impl LinkSecret {
    /// Takes random bytes.
    pub const fn from_bytes(bytes: [u8; LINK_SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    fn derive(&self, parts: &[&[u8]]) -> [u8; 32] {
        // HMAC takes a key of any length.
        let Ok(mut mac) = hmac::Hmac::<sha2::Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC accepts keys of every length")
        };
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The pair that signs requests at the link; its public half is the link's name. (The other half of a signing key
    /// is there because every signer has one; requests do not use it.)
    pub fn signing(&self) -> SecretKey {
        SecretKey::from_seeds(&SigningSeeds {
            ed25519: self.derive(&[b"candor link name\0\x01"]),
            ml_dsa: self.derive(&[b"candor link unused\0\x01"]),
        })
    }

    /// The key that seals one message. Each seals once.
    pub fn key(&self, place: LinkPlace) -> [u8; 32] {
        self.derive(&[b"candor link message\0\x01", &[place.number()]])
    }
}

/// What the old device shows.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct LinkCode {
    /// Always [`LINKING_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Where the cell is, and its root key; without a right.
    #[n(1)]
    pub cell: Invitation,
    /// Whose account.
    #[n(2)]
    pub account: AccountId,
    /// The secret.
    #[n(3)]
    pub secret: LinkSecret,
    /// Entries of the account's chain as the old device knows it.
    #[n(4)]
    pub chain_length: u64,
    /// The link that they end with.
    #[n(5)]
    pub chain_tip: Link,
    /// Until when it is good, by the old device's clock.
    #[n(6)]
    pub expires: Millis,
    /// What the new device will be.
    #[n(7)]
    pub role: Role,
}

impl Canonical for LinkCode {
    const WHAT: &'static str = "a linking code";
    const MAX_BYTES: usize = CODE_MAX_BYTES;
}

/// A text is not a linking code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkCodeError {
    /// It does not begin with `candor-link1:`.
    #[error("a linking code begins with `candor-link1:`")]
    Prefix,
    /// A character was lost or changed in copying.
    #[error("the linking code is damaged: it was not copied completely")]
    Damaged,
    /// Its content is not acceptable.
    #[error("the linking code cannot be read")]
    Content,
}

impl LinkCode {
    const PREFIX: &'static str = "candor-link1:";

    /// Reads the text form. White space around it is ignored.
    pub fn from_text(text: &str) -> Result<Self, LinkCodeError> {
        let content = checked_text::read(Self::PREFIX, text, CODE_MAX_BYTES);
        let content = content.map_err(|fault| match fault {
            TextFault::Prefix => LinkCodeError::Prefix,
            TextFault::Damaged => LinkCodeError::Damaged,
        })?;
        let code: Self = cbor::decode(&content).map_err(|_| LinkCodeError::Content)?;
        let is_sound = code.version == LINKING_VERSION
            && code.cell.is_sound()
            && code.cell.right.is_none()
            && code.chain_length >= 1;
        is_sound.then_some(code).ok_or(LinkCodeError::Content)
    }

    /// The text form.
    pub fn to_text(&self) -> String {
        checked_text::write(Self::PREFIX, cbor::encode(self))
    }
}

/// What the new device says it is.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct JoinRequest {
    /// Always [`LINKING_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Its id.
    #[n(1)]
    pub device: DeviceId,
    /// What its person calls it: 1 to [`JOIN_NAME_MAX_BYTES`] bytes.
    #[n(2)]
    pub name: String,
    /// Checks what it signs.
    #[n(3)]
    pub signing: PublicKey,
    /// Its X-Wing key.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub agreement: [u8; AGREEMENT_PUBLIC_BYTES],
    /// [`commitment`] to its random bytes.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: [u8; 32],
}

impl Canonical for JoinRequest {
    const WHAT: &'static str = "a request to join";
    const MAX_BYTES: usize = LINK_MESSAGE_MAX_BYTES;
}

impl JoinRequest {
    /// Whether it is one that this build accepts.
    pub fn is_sound(&self) -> bool {
        self.version == LINKING_VERSION && (1..=JOIN_NAME_MAX_BYTES).contains(&self.name.len())
    }
}

/// A vault that a write-only device is given.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct GivenVault {
    /// Which.
    #[n(0)]
    pub vault: VaultId,
    /// The key of its chunk ids, which opens nothing.
    #[n(1)]
    pub chunk_ids: LinkSecret,
}

impl GivenVault {
    /// A vault and the key of its chunk ids.
    pub const fn new(vault: VaultId, chunk_ids: [u8; LINK_SECRET_BYTES]) -> Self {
        Self {
            vault,
            chunk_ids: LinkSecret::from_bytes(chunk_ids),
        }
    }

    /// The key of its chunk ids.
    pub const fn chunk_ids(&self) -> &[u8; LINK_SECRET_BYTES] {
        &self.chunk_ids.0
    }
}

/// What a write-only device has instead of keys.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct WriterGift {
    /// The account's watch keys of kinds 1 to 32, one after another.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub watch: Vec<u8>,
    /// The vaults that it may write into.
    #[n(1)]
    pub vaults: Vec<GivenVault>,
}

impl Drop for WriterGift {
    fn drop(&mut self) {
        self.watch.zeroize();
    }
}

impl Canonical for WriterGift {
    const WHAT: &'static str = "what a write-only device is given";
    const MAX_BYTES: usize = LINK_MESSAGE_MAX_BYTES;
}

/// A [`WriterGift`], sealed to the new device's agreement key with HPKE: whoever saw the code does not read it.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SealedGift {
    /// HPKE encapsulated key.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub encapsulated: Vec<u8>,
    /// HPKE ciphertext.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub ciphertext: Vec<u8>,
}

/// The HPKE `info` of a gift: binds account, device and request.
pub fn gift_info(account: &AccountId, device: &DeviceId, request: &[u8; 32]) -> Vec<u8> {
    let mut info = b"candor link gift\0\x01".to_vec();
    info.extend_from_slice(account.as_bytes());
    info.extend_from_slice(device.as_bytes());
    info.extend_from_slice(request);
    info
}

/// What the old device's person said.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Verdict {
    /// Always [`LINKING_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Whether the new device is in the account now.
    #[n(1)]
    pub accepted: bool,
    /// [`request_hash`] of what it is about; zeros if nobody asked.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub request: [u8; 32],
    /// For a write-only device.
    #[n(3)]
    pub gift: Option<SealedGift>,
}

impl Canonical for Verdict {
    const WHAT: &'static str = "a verdict about a device";
    const MAX_BYTES: usize = LINK_MESSAGE_MAX_BYTES;
}

/// A verdict, signed by the device whose statement put the new one on the chain: a yes counts only with that.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SignedVerdict {
    /// Canonical bytes of the [`Verdict`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub verdict: Vec<u8>,
    /// Over [`Domain::LINK_VERDICT`] and those bytes.
    #[n(1)]
    pub signature: Ed25519Signature,
}

impl Canonical for SignedVerdict {
    const WHAT: &'static str = "a signed verdict";
    const MAX_BYTES: usize = LINK_MESSAGE_MAX_BYTES;
}

impl SignedVerdict {
    /// Signs a verdict.
    pub fn sign(verdict: &Verdict, key: &Ed25519Secret) -> Self {
        let bytes = cbor::encode(verdict);
        Self {
            signature: key.sign(Domain::LINK_VERDICT, &bytes),
            verdict: bytes,
        }
    }

    /// Reads it without checking who signed it: a no needs no signature.
    pub fn peek(&self) -> Result<Verdict, CodecError> {
        cbor::decode(&self.verdict)
    }

    /// Whether this key signed it.
    pub fn verify(&self, key: &Ed25519Public) -> Result<(), BadSignature> {
        key.verify(Domain::LINK_VERDICT, &self.verdict, &self.signature)
    }
}

/// The hash of a request's canonical bytes: BLAKE3 in derive-key mode.
pub fn request_hash(request: &[u8]) -> [u8; 32] {
    blake3::derive_key("candor 2026 linking request v1", request)
}

/// What a device publishes of its random bytes before it shows them: BLAKE3 in derive-key mode.
pub fn commitment(random: &[u8; LINK_SECRET_BYTES]) -> [u8; 32] {
    blake3::derive_key("candor 2026 linking commitment v1", random)
}

/// What both sides saw, from which the digits follow.
#[derive(Clone, Copy)]
pub struct Transcript<'a> {
    /// The cell.
    pub cell: &'a CellId,
    /// The account.
    pub account: &'a AccountId,
    /// Canonical bytes of the [`JoinRequest`].
    pub request: &'a [u8],
    /// The old device's random bytes.
    pub answer: &'a [u8; LINK_SECRET_BYTES],
    /// The new device's.
    pub opening: &'a [u8; LINK_SECRET_BYTES],
}

/// Six digits for two people, or one with two machines, to compare: HMAC-SHA256 under the secret over the transcript,
/// of which the first eight bytes, big endian, count modulo a million.
pub fn digits(secret: &LinkSecret, transcript: Transcript<'_>) -> u32 {
    let mac = secret.derive(&[
        b"candor link digits\0\x01",
        transcript.cell.as_bytes(),
        transcript.account.as_bytes(),
        &request_hash(transcript.request),
        transcript.answer,
        transcript.opening,
    ]);
    let (first, _) = mac.split_first_chunk().unwrap_or((&[0; 8], &[]));
    // Below a million.
    u32::try_from(u64::from_be_bytes(*first) % 1_000_000).unwrap_or(0)
}
