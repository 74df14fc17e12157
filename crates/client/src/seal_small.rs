//! AES-256-GCM for small things that stay on this device or travel inside a signed statement.
//!
//! A sealed value is `nonce (12 random bytes) || ciphertext || tag (16)`. The nonce is random, so one
//! key must not seal more than 2^32 values (NIST SP 800-38D §8.3); every user of this module says
//! why it stays far below.
//!
//! Both functions leave the key on the stack below their caller, in the cipher's key schedule. Callers
//! overwrite it once the work is done ([`candor_vault::secret::scrub_stack`]).

use candor_vault::Entropy;
use candor_vault::entropy::EntropyError;
use ring::aead;

/// Length of a nonce, in bytes.
pub(crate) const NONCE_BYTES: usize = 12;
/// Length of a tag, in bytes.
pub(crate) const TAG_BYTES: usize = 16;

/// The sealed bytes were altered, or belong to another key or place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Altered;

fn key_of(key: &[u8; 32]) -> aead::LessSafeKey {
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, key).expect("an AES-256 key has 32 bytes");
    aead::LessSafeKey::new(key)
}

/// Seals `plaintext` under `key` for the place that `place` names.
#[inline(never)]
pub(crate) fn seal(
    key: &[u8; 32],
    place: &[u8],
    plaintext: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, EntropyError> {
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill(&mut nonce)?;
    let mut out = Vec::with_capacity(NONCE_BYTES + plaintext.len() + TAG_BYTES);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(plaintext);
    let tag = key_of(key)
        .seal_in_place_separate_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(place),
            &mut out[NONCE_BYTES..],
        )
        .expect("AES-GCM seals anything shorter than 64 GiB");
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

/// Opens what [`seal`] made for the same key and place. The plaintext is wiped by the caller.
#[inline(never)]
pub(crate) fn open(key: &[u8; 32], place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Altered> {
    if sealed.len() < NONCE_BYTES + TAG_BYTES {
        return Err(Altered);
    }
    let (nonce, ciphertext) = sealed.split_at(NONCE_BYTES);
    let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| Altered)?;
    // The plaintext takes the place of the ciphertext, so that only one buffer ever holds it.
    let mut buffer = ciphertext.to_vec();
    key_of(key)
        .open_in_place(nonce, aead::Aad::from(place), &mut buffer)
        .map_err(|_| Altered)?;
    buffer.truncate(ciphertext.len() - TAG_BYTES);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candor_vault::SystemEntropy;

    use super::*;

    #[test]
    fn what_is_empty_is_sealed_and_opened_and_nothing_shorter_is() {
        let (key, place) = ([7; 32], b"place");
        let sealed = seal(&key, place, b"", &SystemEntropy).unwrap();
        assert_eq!(sealed.len(), NONCE_BYTES + TAG_BYTES);
        assert_eq!(open(&key, place, &sealed), Ok(Vec::new()));
        assert_eq!(open(&key, place, &sealed[1..]), Err(Altered));
        assert_eq!(open(&key, b"other", &sealed), Err(Altered));
    }
}
