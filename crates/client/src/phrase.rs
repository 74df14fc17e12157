//! The recovery phrase: 24 English words (BIP 39) that carry 256 random bits, and the keys that
//! follow from them.
//!
//! 1. The words encode 32 bytes and an 8-bit checksum. BIP 39's own seed function is not used: it is
//!    made for wallets, stretches with PBKDF2 and knows no purposes.
//! 2. HKDF-SHA256 (RFC 5869) over the 32 bytes gives each key under an `info` of its own: both seeds
//!    of the root signing key, and the seed of the recovery key (X-Wing).
//! 3. Devices keep only the public halves. The phrase is wiped from memory when it is dropped.
//!
//! Threats: a wrong word must never give a silently different account, so the checksum is checked
//! and each word is looked up; a word typed wrongly is told by its place alone, because even a
//! nearly right word is close to a secret.

use candor_vault::Entropy;
use candor_vault::entropy::EntropyError;
use candor_wire::sign::{SecretKey, SigningSeeds};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

use crate::epochs::AgreementSecret;
use candor_vault::secret::{SecretBytes, scrub_stack};

/// Words in a recovery phrase.
pub const PHRASE_WORDS: usize = 24;

/// Secret bytes that a phrase carries: 256 bits, so that guessing stays hopeless for quantum
/// computers as well.
pub const PHRASE_BYTES: usize = 32;

/// Longest text that is looked at, in bytes: 24 words of at most 8 letters, with room for odd
/// spacing.
pub const PHRASE_TEXT_MAX_BYTES: usize = 4096;

const INFO_ROOT_ED25519: &[u8] = b"candor/phrase/root/ed25519/1";
const INFO_ROOT_ML_DSA: &[u8] = b"candor/phrase/root/ml-dsa-65/1";
const INFO_RECOVERY: &[u8] = b"candor/phrase/recovery/x-wing/1";

/// Why a text is not a recovery phrase. Never holds a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// Too few or too many words.
    #[error("a recovery phrase has {PHRASE_WORDS} words; these are {found}")]
    WordCount {
        /// How many there are.
        found: usize,
    },
    /// One of the words is not in the list of words.
    #[error("word {place} is not a word of recovery phrases")]
    UnknownWord {
        /// Which, counted from 1.
        place: usize,
    },
    /// Every word is possible, but they do not belong together.
    #[error("the words do not belong together: one is wrong, or two changed places")]
    Checksum,
}

/// A recovery phrase. Has no `Debug`; wiped when dropped.
pub struct RecoveryPhrase(SecretBytes);

impl RecoveryPhrase {
    /// Draws a new phrase.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = Zeroizing::new([0; PHRASE_BYTES]);
        entropy.fill(bytes.as_mut())?;
        Ok(Self(SecretBytes::copy_of(&bytes)))
    }

    /// Takes the secret bytes as they are.
    pub fn from_bytes(bytes: &[u8; PHRASE_BYTES]) -> Self {
        Self(SecretBytes::copy_of(bytes))
    }

    /// Reads what a person typed: letters of any case, any white space between and around the words.
    pub fn from_text(text: &str) -> Result<Self, PhraseError> {
        let read = Self::read(text);
        scrub_stack();
        read
    }

    #[inline(never)]
    fn read(text: &str) -> Result<Self, PhraseError> {
        let found = text.split_whitespace().count();
        if found != PHRASE_WORDS || text.len() > PHRASE_TEXT_MAX_BYTES {
            return Err(PhraseError::WordCount { found });
        }
        // All at once, so that nothing is left behind by a growing buffer.
        let mut normal = Zeroizing::new(String::with_capacity(text.len()));
        for word in text.split_whitespace() {
            if !normal.is_empty() {
                normal.push(' ');
            }
            normal.extend(word.chars().map(|letter| letter.to_ascii_lowercase()));
        }
        let mnemonic = bip39::Mnemonic::parse_in_normalized(bip39::Language::English, &normal);
        let mnemonic = mnemonic.map_err(|error| match error {
            bip39::Error::UnknownWord(index) => PhraseError::UnknownWord { place: index + 1 },
            bip39::Error::BadWordCount(found) => PhraseError::WordCount { found },
            _ => PhraseError::Checksum,
        })?;
        let (mut array, length) = mnemonic.to_entropy_array();
        let phrase = array[..length].try_into().map(Self::from_bytes);
        array.zeroize();
        phrase.map_err(|_| PhraseError::WordCount { found })
    }

    /// The 24 words, in order.
    pub fn words(&self) -> Vec<&'static str> {
        let mnemonic = bip39::Mnemonic::from_entropy(self.0.as_array())
            .expect("32 bytes are a valid length for 24 words");
        mnemonic.words().collect()
    }

    /// The words with single spaces between them, for a recovery file.
    pub fn text(&self) -> Zeroizing<String> {
        let words = self.words();
        let mut text = Zeroizing::new(String::with_capacity(PHRASE_WORDS * 9));
        for word in words {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }

    /// The account's root signing key.
    pub fn root(&self) -> SecretKey {
        let mut seeds = SigningSeeds {
            ed25519: [0; 32],
            ml_dsa: [0; 32],
        };
        self.derive(INFO_ROOT_ED25519, &mut seeds.ed25519);
        self.derive(INFO_ROOT_ML_DSA, &mut seeds.ml_dsa);
        SecretKey::from_seeds(&seeds)
    }

    /// The account's recovery key, to which every epoch is wrapped.
    pub fn recovery(&self) -> AgreementSecret {
        let mut seed = Zeroizing::new([0; 32]);
        self.derive(INFO_RECOVERY, &mut seed);
        AgreementSecret::from_seed(&seed)
    }

    fn derive(&self, info: &[u8], out: &mut [u8; 32]) {
        Hkdf::<Sha256>::new(None, self.0.as_array())
            .expand(info, out)
            .expect("32 bytes are within what HKDF-SHA256 can expand");
    }
}

#[cfg(test)]
mod tests;
