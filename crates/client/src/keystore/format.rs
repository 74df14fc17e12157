//! The outside of the key store's file: header, sealing, damage check.

use argon2::{Algorithm, Argon2, Params, Version};
use candor_vault::Entropy;
use candor_wire::cbor;
use zeroize::Zeroizing;

use super::{KEY_STORE_MAX_BYTES, KeyProtection, KeyStoreError};
use crate::seal_small;

/// The version of key stores that this build writes and the lowest that it accepts.
pub const KEY_STORE_VERSION: u8 = 1;

/// Least memory for Argon2id, in KiB, and what this build uses: 64 MiB, the second choice of
/// RFC 9106 §4, because a first start on a small machine must succeed.
pub const ARGON2_MEMORY_MIN_KIB: u32 = 64 * 1024;

/// Most memory that a file may ask for, in KiB: 1 GiB, so that a damaged one cannot take all.
pub const ARGON2_MEMORY_MAX_KIB: u32 = 1024 * 1024;

/// Least passes, and what this build uses (RFC 9106 §4).
pub const ARGON2_PASSES_MIN: u32 = 3;

/// Most passes that a file may ask for.
pub const ARGON2_PASSES_MAX: u32 = 64;

/// Lanes. One: the implementation works through lanes one after another.
pub const ARGON2_LANES: u32 = 1;

/// Length of a salt, in bytes (RFC 9106 §3.1 recommends 16).
pub const SALT_BYTES: usize = 16;

/// Length of the damage check at the end of the file, in bytes.
pub(super) const CHECK_BYTES: usize = 16;

const CHECK_CONTEXT: &str = "candor 2026 key store check v1";
const PLACE: &[u8] = b"candor/key-store/1";

/// Argon2id's parameters and salt.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct Kdf {
    #[n(0)]
    pub(super) memory_kib: u32,
    #[n(1)]
    pub(super) passes: u32,
    #[n(2)]
    pub(super) lanes: u32,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) salt: [u8; SALT_BYTES],
}

/// The file without its damage check.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct KeyFile {
    #[n(0)]
    pub(super) version: u8,
    /// Absent for an unprotected store.
    #[n(1)]
    pub(super) kdf: Option<Kdf>,
    /// Sealed content; for an unprotected store the content itself.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) content: Zeroed,
}

/// Bytes that are wiped when dropped.
pub(super) struct Zeroed(pub(super) Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Zeroed {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<C> minicbor::bytes::EncodeBytes<C> for Zeroed {
    fn encode_bytes<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::bytes::DecodeBytes<'b, C> for Zeroed {
    fn decode_bytes(
        d: &mut minicbor::Decoder<'b>,
        _: &mut C,
    ) -> Result<Self, minicbor::decode::Error> {
        Ok(Self(Zeroizing::new(d.bytes()?.to_vec())))
    }
}

impl Kdf {
    /// The floor and the ceiling.
    fn check(&self) -> Result<(), KeyStoreError> {
        let memory_ok = (ARGON2_MEMORY_MIN_KIB..=ARGON2_MEMORY_MAX_KIB).contains(&self.memory_kib);
        let passes_ok = (ARGON2_PASSES_MIN..=ARGON2_PASSES_MAX).contains(&self.passes);
        if memory_ok && passes_ok && self.lanes == ARGON2_LANES {
            Ok(())
        } else {
            Err(KeyStoreError::Parameters)
        }
    }

    fn key(&self, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, KeyStoreError> {
        self.check()?;
        if passphrase.is_empty() {
            return Err(KeyStoreError::EmptyPassphrase);
        }
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|_| KeyStoreError::Parameters)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &self.salt, key.as_mut())
            .map_err(|_| KeyStoreError::Parameters)?;
        Ok(key)
    }

    /// What the seal binds: nothing of the header can be changed without the seal noticing.
    fn place(&self, version: u8) -> Vec<u8> {
        let mut place = PLACE.to_vec();
        place.push(version);
        place.extend(cbor::encode(self));
        place
    }
}

fn check_of(file: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::derive_key(CHECK_CONTEXT, file);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash[..CHECK_BYTES]);
    check
}

/// Reads the outside of a file: damage, shape, version. Parameters are checked too.
pub(super) fn header(file: &[u8]) -> Result<KeyFile, KeyStoreError> {
    let split = file
        .len()
        .checked_sub(CHECK_BYTES)
        .ok_or(KeyStoreError::Damaged)?;
    let (body, check) = file.split_at(split);
    if check_of(body) != check {
        return Err(KeyStoreError::Damaged);
    }
    let mut decoder = minicbor::Decoder::new(body);
    let decoded: KeyFile = decoder.decode().map_err(|_| KeyStoreError::Damaged)?;
    if decoded.version != KEY_STORE_VERSION {
        return Err(KeyStoreError::Version {
            version: decoded.version,
        });
    }
    if *encode(&decoded) != *body {
        return Err(KeyStoreError::Damaged);
    }
    if let Some(kdf) = &decoded.kdf {
        kdf.check()?;
    }
    Ok(decoded)
}

/// Opens the content of a file whose header was read.
pub(super) fn open(
    file: &KeyFile,
    protection: &KeyProtection,
) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    match (&file.kdf, protection) {
        (None, _) => Ok(file.content.0.clone()),
        (Some(_), KeyProtection::Unprotected) => Err(KeyStoreError::NeedsPassphrase),
        (Some(kdf), KeyProtection::Passphrase(passphrase)) => {
            let key = kdf.key(passphrase)?;
            seal_small::open(&key, &kdf.place(file.version), &file.content.0)
                .map(Zeroizing::new)
                .map_err(|_| KeyStoreError::WrongPassphrase)
        }
    }
}

/// Makes a whole file. Salt and nonce are fresh.
pub(super) fn seal(
    content: &[u8],
    protection: &KeyProtection,
    entropy: &dyn Entropy,
) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let (kdf, content) = match protection {
        KeyProtection::Unprotected => (None, Zeroizing::new(content.to_vec())),
        KeyProtection::Passphrase(passphrase) => {
            let mut salt = [0; SALT_BYTES];
            entropy.fill(&mut salt)?;
            let kdf = Kdf {
                memory_kib: ARGON2_MEMORY_MIN_KIB,
                passes: ARGON2_PASSES_MIN,
                lanes: ARGON2_LANES,
                salt,
            };
            let key = kdf.key(passphrase)?;
            // This key seals once: the salt is new.
            let sealed = seal_small::seal(&key, &kdf.place(KEY_STORE_VERSION), content, entropy)?;
            (Some(kdf), Zeroizing::new(sealed))
        }
    };
    let mut file = encode(&KeyFile {
        version: KEY_STORE_VERSION,
        kdf,
        content: Zeroed(content),
    });
    let check = check_of(&file);
    file.extend_from_slice(&check);
    // A longer one could never be opened again.
    if file.len() as u64 > KEY_STORE_MAX_BYTES {
        return Err(KeyStoreError::TooLong);
    }
    Ok(file)
}

/// Canonical bytes, in a buffer that never grows (a growing one leaves copies behind) and has room
/// for the damage check.
fn encode(file: &KeyFile) -> Zeroizing<Vec<u8>> {
    const HEADER_MAX_BYTES: usize = 128;
    let mut out = Zeroizing::new(Vec::with_capacity(
        file.content.0.len() + HEADER_MAX_BYTES + CHECK_BYTES,
    ));
    minicbor::encode(file, &mut *out).expect("encoding into memory cannot fail");
    out
}

/// The least work that a file may ask for.
#[cfg(any(test, fuzzing))]
pub(super) const fn least_work(salt: [u8; SALT_BYTES]) -> Kdf {
    Kdf {
        memory_kib: ARGON2_MEMORY_MIN_KIB,
        passes: ARGON2_PASSES_MIN,
        lanes: ARGON2_LANES,
        salt,
    }
}

/// A body with its check.
#[cfg(any(test, fuzzing))]
pub(super) fn with_check(body: &[u8]) -> Vec<u8> {
    let mut file = body.to_vec();
    file.extend_from_slice(&check_of(body));
    file
}

/// The whole file of a header that was read.
#[cfg(any(test, fuzzing))]
pub(super) fn whole(file: &KeyFile) -> Vec<u8> {
    with_check(&encode(file))
}

/// For tests of other files: a file with these parameters, correct in every other way.
#[cfg(test)]
pub(super) fn with_parameters(file: &[u8], change: impl FnOnce(&mut KeyFile)) -> Vec<u8> {
    let body = &file[..file.len() - CHECK_BYTES];
    let mut decoded: KeyFile = minicbor::Decoder::new(body).decode().expect("a valid file");
    change(&mut decoded);
    whole(&decoded)
}
