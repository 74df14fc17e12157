//! Sealed objects: the only form in which anything of a vault leaves the device.
//!
//! Steps of sealing: (1) draw a fresh 32-byte salt; (2) HKDF-SHA256 of the epoch key with that salt
//! and the full context gives an AES-256 key and a 32-byte commitment; (3) the plaintext is cut
//! into segments of 64 KiB, each encrypted under a nonce that holds its number and whether it is
//! the last (the STREAM construction); (4) the object's name is BLAKE3 of all ciphertext bytes.
//! Opening derives again and compares the commitment in constant time before anything is decrypted.
//!
//! Threats: reordered, dropped, appended and repeated segments (7, 8) meet a nonce of another
//! number or a wrong last flag; flipped bits (9) a tag or the commitment; objects of another
//! account, vault, epoch or type (13) and lowered versions (23) another context; an object that
//! opens under two keys (26) the commitment, which fixes the key; copied states (27) the salt. All
//! of these give the same error. References: RFC 5869; NIST SP 800-38D; Hoang, Reyhanitabar,
//! Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015;
//! Albertini et al., "How to Abuse and Fix Authenticated Encryption Without Key Commitment", 2022.

use core::ops::Range;
use std::sync::Arc;

use candor_wire::limits::{OBJECT_MAX_BYTES, OBJECT_MIN_BYTES};
use candor_wire::{AccountId, ObjectId, VaultId};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::entropy::{Entropy, EntropyError};
use crate::keys::{EpochKey, VaultKeys};

/// First bytes of every sealed object.
pub const MAGIC: [u8; 4] = *b"CNDR";

/// The format that is written, and the lowest that is read.
pub const FORMAT: u8 = 1;

/// The cipher suite that is written, and the lowest that is read: HKDF-SHA256 and AES-256-GCM.
pub const SUITE: u8 = 1;

/// Length of the salt, in bytes: as long as the key, so that salts never repeat by chance.
pub const SALT_BYTES: usize = 32;

/// Length of the commitment, in bytes: 256 bits leave 128 against a searched collision.
pub const COMMITMENT_BYTES: usize = 32;

/// Length of the header, in bytes.
pub const HEADER_BYTES: usize = 4 + 1 + 1 + 4 + SALT_BYTES + COMMITMENT_BYTES;

/// Plaintext bytes of every segment but the last: fits a processor's cache, and is the unit of
/// reads by range.
pub const SEGMENT_BYTES: usize = 64 * 1024;

/// Length of a segment's tag, in bytes.
pub const TAG_BYTES: usize = 16;

/// Ciphertext bytes of every segment but the last.
pub const SEALED_SEGMENT_BYTES: usize = SEGMENT_BYTES + TAG_BYTES;

/// Length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 12;

/// Longest body that fits one object after its length word (see [`Sealer::seal_body`]), in bytes.
pub const BODY_MAX_BYTES: usize = plaintext_bytes(OBJECT_MAX_BYTES) - LENGTH_BYTES;

/// Length of the word before a body, in bytes.
const LENGTH_BYTES: usize = 4;

/// Separates the keys of sealed objects from every other derived key.
const OBJECT_DOMAIN: &[u8] = b"candor/vault/object";

/// Separates the derivation of salts from every other use of HMAC.
const SALT_DOMAIN: &[u8] = b"candor/vault/salt";

/// Why an object was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The bytes are not this vault's object of this type. Deliberately one error for every
    /// cause, so that nobody learns from it how close a forgery came.
    #[error("the object is not authentic")]
    Rejected,
    /// The format or the suite is not one that this build accepts.
    #[error("format {format} with suite {suite} is not accepted")]
    Version {
        /// The format that the header names.
        format: u8,
        /// The suite that the header names.
        suite: u8,
    },
}

/// What an object is. Part of the context of its key, never visible in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectType {
    /// Frames of chunks ([`crate::pack`]).
    Pack = 1,
    /// A list of packs ([`crate::index_object`]).
    Index = 2,
    /// The vault's manifest ([`crate::manifest`]).
    Manifest = 3,
}

/// A 256-bit key with 96-bit nonces and 128-bit tags. One small trait, so that the library behind
/// it can be exchanged by measurement, and so that tests can run an independent twin.
pub trait Aead: Sized {
    /// Schedules a key.
    fn new(key: &[u8; 32]) -> Self;

    /// Encrypts in place and returns the tag.
    fn seal(&self, nonce: &[u8; NONCE_BYTES], segment: &mut [u8]) -> [u8; TAG_BYTES];

    /// Decrypts `buffer[from..]` to the start of the buffer. On an error the buffer's content is
    /// unspecified and must not be used.
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        tag: &[u8; TAG_BYTES],
        buffer: &mut [u8],
        from: usize,
    ) -> Result<(), SealError>;
}

/// AES-256-GCM of `ring`, the fastest here by measurement.
pub struct Aes256Gcm(LessSafeKey);

impl Aead for Aes256Gcm {
    fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the suite's length");
        Self(LessSafeKey::new(key))
    }

    fn seal(&self, nonce: &[u8; NONCE_BYTES], segment: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::empty(), segment)
            .expect("a segment is far below AES-GCM's length limit");
        let mut out = [0; TAG_BYTES];
        out.copy_from_slice(tag.as_ref());
        out
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        tag: &[u8; TAG_BYTES],
        buffer: &mut [u8],
        from: usize,
    ) -> Result<(), SealError> {
        self.0
            .open_in_place_separate_tag(
                Nonce::assume_unique_for_key(*nonce),
                Aad::empty(),
                Tag::from(*tag),
                buffer,
                from..,
            )
            .map(|_| ())
            .map_err(|_| SealError::Rejected)
    }
}

/// Everything that an object's key depends on besides the epoch key and the salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The account.
    pub account: AccountId,
    /// The vault.
    pub vault: VaultId,
    /// The epoch.
    pub epoch: u32,
    /// What the object is.
    pub object_type: ObjectType,
}

impl Context {
    pub(crate) fn derive(
        &self,
        key: &EpochKey,
        salt: &[u8; SALT_BYTES],
        format: u8,
        suite: u8,
    ) -> Derived {
        let info: [&[u8]; 5] = [
            OBJECT_DOMAIN,
            self.account.as_bytes(),
            self.vault.as_bytes(),
            &self.epoch.to_be_bytes(),
            &[self.object_type as u8, format, suite],
        ];
        let mut okm = Zeroizing::new([0u8; 64]);
        Hkdf::<Sha256>::new(Some(salt), key.as_bytes())
            .expand_multi_info(&info, okm.as_mut())
            .expect("64 bytes are within what HKDF-SHA256 can expand");
        let mut derived = Derived {
            key: Zeroizing::new([0; 32]),
            commitment: [0; COMMITMENT_BYTES],
        };
        derived.key.copy_from_slice(&okm[..32]);
        derived.commitment.copy_from_slice(&okm[32..]);
        derived
    }
}

pub(crate) struct Derived {
    pub(crate) key: Zeroizing<[u8; 32]>,
    pub(crate) commitment: [u8; COMMITMENT_BYTES],
}

/// The nonce of a segment: its number in 11 bytes, big-endian, then 1 if it is the last.
pub(crate) fn nonce(segment: u64, last: bool) -> [u8; NONCE_BYTES] {
    let mut out = [0; NONCE_BYTES];
    out[3..11].copy_from_slice(&segment.to_be_bytes());
    out[11] = u8::from(last);
    out
}

/// How many plaintext bytes an object of this many bytes holds; 0 when it is too short to be one.
pub const fn plaintext_bytes(object_bytes: usize) -> usize {
    if object_bytes <= HEADER_BYTES + TAG_BYTES {
        return 0;
    }
    let sealed = object_bytes - HEADER_BYTES;
    let segments = sealed.div_ceil(SEALED_SEGMENT_BYTES);
    if sealed - (segments - 1) * SEALED_SEGMENT_BYTES <= TAG_BYTES {
        return 0;
    }
    sealed - segments * TAG_BYTES
}

/// How many bytes an object with this much plaintext has.
pub const fn object_bytes(plaintext_bytes: usize) -> usize {
    HEADER_BYTES + plaintext_bytes + plaintext_bytes.div_ceil(SEGMENT_BYTES) * TAG_BYTES
}

/// The padded size of an object for this much plaintext: the smallest power of two, at least
/// 64 KiB and at most 16 MiB, that holds it. `None` when no object does.
pub fn padded_object_bytes(plaintext: usize) -> Option<usize> {
    let mut size = OBJECT_MIN_BYTES;
    while plaintext_bytes(size) < plaintext {
        size *= 2;
        if size > OBJECT_MAX_BYTES {
            return None;
        }
    }
    Some(size)
}

/// Whether an object may have this size: a power of two between 64 KiB and 16 MiB.
pub fn is_object_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && (OBJECT_MIN_BYTES as u64..=OBJECT_MAX_BYTES as u64).contains(&bytes)
}

/// Plaintext laid out where its ciphertext will be, with room for header and tags, so that sealing
/// happens in place and nothing is copied twice.
pub struct SealBuffer {
    bytes: Vec<u8>,
    plaintext: usize,
    written: usize,
}

impl SealBuffer {
    /// A buffer for exactly this much plaintext (at least 1 byte). The storage of `reuse` is taken
    /// over; its old content is overwritten before anything is sealed.
    pub fn new(plaintext: usize, mut reuse: Vec<u8>) -> Self {
        let plaintext = plaintext.max(1);
        reuse.resize(object_bytes(plaintext), 0);
        Self {
            bytes: reuse,
            plaintext,
            written: 0,
        }
    }

    /// How many plaintext bytes still fit.
    pub fn remaining(&self) -> usize {
        self.plaintext - self.written
    }

    /// Appends plaintext. What does not fit any more is a mistake of the caller and is cut off.
    pub fn append(&mut self, content: &[u8]) {
        debug_assert!(
            content.len() <= self.remaining(),
            "the buffer was sized for its content"
        );
        let mut left = &content[..content.len().min(self.remaining())];
        while !left.is_empty() {
            let room = self.room();
            let part = left.len().min(room.len());
            self.bytes[room.start..room.start + part].copy_from_slice(&left[..part]);
            self.written += part;
            left = &left[part..];
        }
    }

    /// Appends zeros.
    pub fn append_zeros(&mut self, count: usize) {
        let mut left = count.min(self.remaining());
        while left > 0 {
            let room = self.room();
            let part = left.min(room.len());
            self.bytes[room.start..room.start + part].fill(0);
            self.written += part;
            left -= part;
        }
    }

    /// The rest of the segment that is being filled, as a range of the object's bytes.
    fn room(&self) -> Range<usize> {
        let (segment, within) = (self.written / SEGMENT_BYTES, self.written % SEGMENT_BYTES);
        let start = HEADER_BYTES + segment * SEALED_SEGMENT_BYTES + within;
        start..start + (SEGMENT_BYTES - within).min(self.remaining())
    }

    /// Seals in place with a given salt; the rest of the plaintext is zeros. A salt must never be
    /// used twice: use [`Sealer::seal`], which draws it.
    pub fn seal_with_salt<A: Aead>(
        mut self,
        context: &Context,
        key: &EpochKey,
        salt: &[u8; SALT_BYTES],
    ) -> (ObjectId, Vec<u8>) {
        self.append_zeros(self.remaining());
        let derived = context.derive(key, salt, FORMAT, SUITE);
        let (header, mut rest) = self.bytes.split_at_mut(HEADER_BYTES);
        write_header(header, context.epoch, salt, &derived.commitment);
        let mut hasher = blake3::Hasher::new();
        hasher.update(header);
        let aead = A::new(&derived.key);
        let mut number = 0;
        while !rest.is_empty() {
            let length = rest.len().min(SEALED_SEGMENT_BYTES);
            let (sealed, after) = rest.split_at_mut(length);
            let (segment, tag) = sealed.split_at_mut(length - TAG_BYTES);
            tag.copy_from_slice(&aead.seal(&nonce(number, after.is_empty()), segment));
            // Hashed here, while the segment is still in the cache.
            hasher.update(sealed);
            rest = after;
            number += 1;
        }
        (
            ObjectId::from_bytes(*hasher.finalize().as_bytes()),
            self.bytes,
        )
    }
}

fn write_header(
    header: &mut [u8],
    epoch: u32,
    salt: &[u8; SALT_BYTES],
    commitment: &[u8; COMMITMENT_BYTES],
) {
    header[..4].copy_from_slice(&MAGIC);
    header[4] = FORMAT;
    header[5] = SUITE;
    header[6..10].copy_from_slice(&epoch.to_be_bytes());
    header[10..42].copy_from_slice(salt);
    header[42..].copy_from_slice(commitment);
}

/// Seals objects of one vault with fresh salts.
///
/// A salt is HMAC-SHA256, keyed with 32 fresh bytes of the operating system, over 32 bytes drawn
/// when the process started, the surroundings (clock, process, counter) and a fingerprint of the
/// content. If a machine is copied while it runs and the copies draw the same random bytes at the
/// same nanosecond, their salts still differ unless the content is the same too; and then the two
/// objects are the same bytes, which tells the cell no more than a repeated upload.
pub struct Sealer {
    keys: Arc<VaultKeys>,
    entropy: Arc<dyn Entropy>,
    process: Zeroizing<[u8; 32]>,
}

impl Sealer {
    /// A sealer for one vault.
    pub fn new(keys: Arc<VaultKeys>, entropy: Arc<dyn Entropy>) -> Result<Self, EntropyError> {
        let mut process = Zeroizing::new([0; 32]);
        entropy.fill(process.as_mut())?;
        Ok(Self {
            keys,
            entropy,
            process,
        })
    }

    /// The keys under which it seals.
    pub fn keys(&self) -> &Arc<VaultKeys> {
        &self.keys
    }

    /// Where its random bytes come from.
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.entropy
    }

    /// Draws a salt. `fingerprint` must differ for different content.
    pub fn salt(&self, fingerprint: &[u8; 32]) -> Result<[u8; SALT_BYTES], EntropyError> {
        let mut fresh = Zeroizing::new([0; 32]);
        self.entropy.fill(fresh.as_mut())?;
        let mut mac = Hmac::<Sha256>::new_from_slice(fresh.as_ref())
            .expect("HMAC takes keys of every length");
        mac.update(SALT_DOMAIN);
        mac.update(self.process.as_ref());
        mac.update(&self.entropy.surroundings());
        mac.update(fingerprint);
        Ok(mac.finalize().into_bytes().into())
    }

    /// Seals under the current epoch. `fingerprint` must differ for different content.
    pub fn seal(
        &self,
        object_type: ObjectType,
        buffer: SealBuffer,
        fingerprint: &[u8; 32],
    ) -> Result<(ObjectId, Vec<u8>), EntropyError> {
        let salt = self.salt(fingerprint)?;
        let context = context(&self.keys, self.keys.current_epoch(), object_type);
        let key = self
            .keys
            .epoch(self.keys.current_epoch())
            .expect("the current epoch is one of the keys' epochs");
        Ok(buffer.seal_with_salt::<Aes256Gcm>(&context, key, &salt))
    }

    /// Seals a body, padded: a 4-byte big-endian length, the body, zeros up to the padded size.
    /// `None` when the body is longer than [`BODY_MAX_BYTES`].
    pub fn seal_body(
        &self,
        object_type: ObjectType,
        body: &[u8],
    ) -> Result<Option<(ObjectId, Vec<u8>)>, EntropyError> {
        let Some(buffer) = lay_out_body(body) else {
            return Ok(None);
        };
        self.seal(object_type, buffer, blake3::hash(body).as_bytes())
            .map(Some)
    }
}

/// A buffer that holds the length word and the body, sized to the padded object.
pub(crate) fn lay_out_body(body: &[u8]) -> Option<SealBuffer> {
    let length = u32::try_from(body.len()).ok()?;
    let size = padded_object_bytes(body.len().checked_add(LENGTH_BYTES)?)?;
    let mut buffer = SealBuffer::new(plaintext_bytes(size), Vec::new());
    buffer.append(&length.to_be_bytes());
    buffer.append(body);
    Some(buffer)
}

fn context(keys: &VaultKeys, epoch: u32, object_type: ObjectType) -> Context {
    Context {
        account: keys.account(),
        vault: keys.vault(),
        epoch,
        object_type,
    }
}

/// An object whose header was accepted: its key is derived and committed to.
pub struct Opener<A: Aead = Aes256Gcm> {
    aead: A,
    plaintext: u64,
}

/// The epoch that an object's header names; whether it is true shows when the object opens.
pub(crate) fn epoch_of(object: &[u8]) -> Option<u32> {
    let epoch = object.get(6..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*epoch))
}

impl<A: Aead> Opener<A> {
    /// Checks the header of an object that has `object_bytes` bytes in all.
    pub fn new(
        keys: &VaultKeys,
        object_type: ObjectType,
        header: &[u8],
        object_bytes: u64,
    ) -> Result<Self, SealError> {
        let (Some(header), Ok(size)) = (
            header.first_chunk::<HEADER_BYTES>(),
            usize::try_from(object_bytes),
        ) else {
            return Err(SealError::Rejected);
        };
        let plaintext = plaintext_bytes(size);
        if header[..4] != MAGIC || plaintext == 0 {
            return Err(SealError::Rejected);
        }
        let (format, suite) = (header[4], header[5]);
        if format != FORMAT || suite != SUITE {
            return Err(SealError::Version { format, suite });
        }
        let (epoch, after) = header[6..].split_at(4);
        let epoch = u32::from_be_bytes(epoch.try_into().map_err(|_| SealError::Rejected)?);
        let (salt, commitment) = after.split_at(SALT_BYTES);
        let salt: &[u8; SALT_BYTES] = salt.try_into().map_err(|_| SealError::Rejected)?;
        let key = keys.epoch(epoch).ok_or(SealError::Rejected)?;
        let derived = context(keys, epoch, object_type).derive(key, salt, format, suite);
        if !bool::from(derived.commitment.as_slice().ct_eq(commitment)) {
            return Err(SealError::Rejected);
        }
        Ok(Self {
            aead: A::new(&derived.key),
            plaintext: plaintext as u64,
        })
    }

    /// How many bytes of plaintext the object claims to hold: true once its last segment opened.
    pub fn plaintext_bytes(&self) -> u64 {
        self.plaintext
    }

    /// Which bytes of the object must be fetched to read this range of plaintext: whole segments.
    /// `None` when the range is empty or goes past the end.
    pub fn ciphertext_range(&self, plaintext: &Range<u64>) -> Option<Range<u64>> {
        if plaintext.start >= plaintext.end || plaintext.end > self.plaintext {
            return None;
        }
        let first = plaintext.start / SEGMENT_BYTES as u64;
        let last = (plaintext.end - 1) / SEGMENT_BYTES as u64;
        let end =
            ((last + 1) * SEGMENT_BYTES as u64).min(self.plaintext) + (last + 1) * TAG_BYTES as u64;
        let header = HEADER_BYTES as u64;
        Some(header + first * SEALED_SEGMENT_BYTES as u64..header + end)
    }

    /// Opens the segments that [`Opener::ciphertext_range`] named for this range, in place.
    /// Returns where in `segments` the plaintext of the range now is.
    pub fn open_range(
        &self,
        plaintext: &Range<u64>,
        segments: &mut [u8],
    ) -> Result<Range<usize>, SealError> {
        let wanted = self
            .ciphertext_range(plaintext)
            .ok_or(SealError::Rejected)?;
        if wanted.end - wanted.start != segments.len() as u64 {
            return Err(SealError::Rejected);
        }
        let first = plaintext.start / SEGMENT_BYTES as u64;
        self.open_segments(first, segments, 0)?;
        let start = (plaintext.start - first * SEGMENT_BYTES as u64) as usize;
        Ok(start..start + (plaintext.end - plaintext.start) as usize)
    }

    /// Opens consecutive segments at `bytes[from..]`, and moves their plaintext to the front.
    fn open_segments(&self, first: u64, bytes: &mut [u8], from: usize) -> Result<usize, SealError> {
        let (mut number, mut source, mut target) = (first, from, 0);
        while source < bytes.len() {
            let length = (bytes.len() - source).min(SEALED_SEGMENT_BYTES);
            let content = length
                .checked_sub(TAG_BYTES)
                .filter(|&c| c > 0)
                .ok_or(SealError::Rejected)?;
            let end = source + content;
            let tag: [u8; TAG_BYTES] = bytes[end..end + TAG_BYTES]
                .try_into()
                .map_err(|_| SealError::Rejected)?;
            let last = number * SEGMENT_BYTES as u64 + content as u64 == self.plaintext;
            let place = &mut bytes[target..end];
            self.aead
                .open(&nonce(number, last), &tag, place, source - target)?;
            number += 1;
            source += length;
            target += content;
        }
        Ok(target)
    }
}

/// Opens a whole object in place: on success its plaintext is the first bytes, as many as are
/// returned. On an error the content of `object` is unspecified and must not be used.
pub fn open_whole(
    keys: &VaultKeys,
    object_type: ObjectType,
    object: &mut [u8],
) -> Result<usize, SealError> {
    open_whole_with::<Aes256Gcm>(keys, object_type, object)
}

/// [`open_whole`], with a chosen implementation of the cipher.
pub fn open_whole_with<A: Aead>(
    keys: &VaultKeys,
    object_type: ObjectType,
    object: &mut [u8],
) -> Result<usize, SealError> {
    let opener = Opener::<A>::new(keys, object_type, object, object.len() as u64)?;
    let length = opener.open_segments(0, object, HEADER_BYTES)?;
    if length as u64 != opener.plaintext {
        Err(SealError::Rejected)
    } else {
        Ok(length)
    }
}

/// Opens an object that [`Sealer::seal_body`] made, and returns the range of its body. Its size
/// must be one that objects have, and its padding zeros.
pub fn open_body(
    keys: &VaultKeys,
    object_type: ObjectType,
    object: &mut [u8],
) -> Result<Range<usize>, SealError> {
    if !is_object_size(object.len() as u64) {
        return Err(SealError::Rejected);
    }
    let end = open_whole(keys, object_type, object)?;
    let length = object
        .first_chunk::<LENGTH_BYTES>()
        .ok_or(SealError::Rejected)?;
    let length = u32::from_be_bytes(*length) as usize;
    let body = LENGTH_BYTES
        ..LENGTH_BYTES
            .checked_add(length)
            .ok_or(SealError::Rejected)?;
    if body.end > end || object[body.end..end].iter().any(|&byte| byte != 0) {
        return Err(SealError::Rejected);
    }
    Ok(body)
}
