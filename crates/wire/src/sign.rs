//! Signatures: what is signed, with which keys, and how foreign ones are checked.
//!
//! 1. What is signed is always `domain || 0x00 || version || bytes`. The domain is a constant of
//!    this module, so bytes signed for one purpose verify for no other.
//! 2. Statements of a chain carry two signatures, Ed25519 (RFC 8032) and ML-DSA-65 (FIPS 204), and
//!    both must verify: a forger has to break both, now or with a quantum computer later.
//! 3. What lives for minutes (requests, errands) or is replaced at once (heads, acknowledgements)
//!    carries Ed25519 alone.
//!
//! Ed25519 is checked strictly: keys and nonce points of small order and non-canonical encodings
//! are refused, so a signature has one reading everywhere.

use ed25519_dalek::Signer as _;
use ml_dsa::{KeyExport as _, KeyInit as _, Keypair as _, MlDsa65, Verifier as _};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of an Ed25519 public key, in bytes.
pub const ED25519_PUBLIC_BYTES: usize = 32;
/// Length of an Ed25519 signature, in bytes.
pub const ED25519_SIGNATURE_BYTES: usize = 64;
/// Length of an ML-DSA-65 public key, in bytes (FIPS 204, table 2).
pub const ML_DSA_65_PUBLIC_BYTES: usize = 1952;
/// Length of an ML-DSA-65 signature, in bytes (FIPS 204, table 2).
pub const ML_DSA_65_SIGNATURE_BYTES: usize = 3309;
/// Length of the seed from which a key pair is made, in bytes.
pub const SEED_BYTES: usize = 32;

/// What a signature is for. The label is part of the signed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain {
    /// Unique within the project; ASCII.
    pub label: &'static str,
    /// Version of the signed format.
    pub version: u8,
}

impl Domain {
    /// A statement of a chain.
    pub const STATEMENT: Self = Self {
        label: "candor statement",
        version: 1,
    };
    /// A vault's head.
    pub const HEAD: Self = Self {
        label: "candor head",
        version: 1,
    };
    /// An errand.
    pub const ERRAND: Self = Self {
        label: "candor errand",
        version: 1,
    };
    /// What a device says to one that it takes in.
    pub const LINK_VERDICT: Self = Self {
        label: "candor link verdict",
        version: 1,
    };
    /// A cell's keys, signed by its root.
    pub const CELL_KEYS: Self = Self {
        label: "candor cell keys",
        version: 1,
    };
    /// A cell's word that something was erased.
    pub const ERASURE: Self = Self {
        label: "candor erasure",
        version: 1,
    };
    /// A cell's acknowledgement of a statement.
    pub const ACKNOWLEDGEMENT: Self = Self {
        label: "candor acknowledgement",
        version: 1,
    };
    /// The newest line of a device's ledger.
    pub const LEDGER_HEAD: Self = Self {
        label: "candor ledger head",
        version: 1,
    };
    /// The last line of a device's ledger that retention took away.
    pub const LEDGER_CHECKPOINT: Self = Self {
        label: "candor ledger checkpoint",
        version: 1,
    };

    /// Every domain, for the test that they differ.
    pub const ALL: [Self; 9] = [
        Self::STATEMENT,
        Self::HEAD,
        Self::ERRAND,
        Self::LINK_VERDICT,
        Self::CELL_KEYS,
        Self::ACKNOWLEDGEMENT,
        Self::ERASURE,
        Self::LEDGER_HEAD,
        Self::LEDGER_CHECKPOINT,
    ];

    /// The bytes that are really signed.
    pub fn message(self, bytes: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.label.len() + 2 + bytes.len());
        message.extend_from_slice(self.label.as_bytes());
        message.push(0);
        message.push(self.version);
        message.extend_from_slice(bytes);
        message
    }
}

/// A signature does not verify under the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct BadSignature;

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ed25519Public([u8; ED25519_PUBLIC_BYTES]);

impl Ed25519Public {
    /// Takes the bytes as they are; a bad point is noticed when a signature is checked.
    pub const fn from_bytes(bytes: [u8; ED25519_PUBLIC_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; ED25519_PUBLIC_BYTES] {
        &self.0
    }

    /// Checks a signature over a message as it stands, without a domain. Only for formats that
    /// bring their own separation, like RFC 9421's signature base.
    pub fn verify_raw(
        &self,
        message: &[u8],
        signature: &Ed25519Signature,
    ) -> Result<(), BadSignature> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(message, &signature)
            .map_err(|_| BadSignature)
    }

    /// Checks a signature over `bytes` in `domain`.
    pub fn verify(
        &self,
        domain: Domain,
        bytes: &[u8],
        signature: &Ed25519Signature,
    ) -> Result<(), BadSignature> {
        self.verify_raw(&domain.message(bytes), signature)
    }
}

/// An Ed25519 signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ed25519Signature([u8; ED25519_SIGNATURE_BYTES]);

impl Ed25519Signature {
    /// Takes the bytes as they are.
    pub const fn from_bytes(bytes: [u8; ED25519_SIGNATURE_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; ED25519_SIGNATURE_BYTES] {
        &self.0
    }
}

/// An Ed25519 key pair. Has no `Debug`; wiped when dropped.
pub struct Ed25519Secret(ed25519_dalek::SigningKey);

impl Ed25519Secret {
    /// Makes the key pair of a seed.
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public(&self) -> Ed25519Public {
        Ed25519Public(self.0.verifying_key().to_bytes())
    }

    /// Signs a message as it stands; see [`Ed25519Public::verify_raw`].
    pub fn sign_raw(&self, message: &[u8]) -> Ed25519Signature {
        Ed25519Signature(self.0.sign(message).to_bytes())
    }

    /// Signs `bytes` in `domain`.
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> Ed25519Signature {
        self.sign_raw(&domain.message(bytes))
    }
}

/// A public key for statements: Ed25519 and ML-DSA-65.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct PublicKey {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    ed25519: [u8; ED25519_PUBLIC_BYTES],
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    ml_dsa: [u8; ML_DSA_65_PUBLIC_BYTES],
}

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PublicKey({})", crate::ids::to_hex(&self.ed25519))
    }
}

impl PublicKey {
    /// The Ed25519 half, which checks requests, errands and heads.
    pub const fn ed25519(&self) -> Ed25519Public {
        Ed25519Public(self.ed25519)
    }

    /// SHA-256 over both halves: names the key, for people and for look-ups.
    pub fn fingerprint(&self) -> [u8; 32] {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        hash.update(b"candor key fingerprint\0\x01");
        hash.update(self.ed25519);
        hash.update(self.ml_dsa);
        hash.finalize().into()
    }

    /// Checks both signatures; one bad half is a bad signature.
    pub fn verify(
        &self,
        domain: Domain,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        let message = domain.message(bytes);
        self.ed25519()
            .verify_raw(&message, &Ed25519Signature(signature.ed25519))?;
        let key = ml_dsa::VerifyingKey::<MlDsa65>::new((&self.ml_dsa).into());
        let decoded = ml_dsa::Signature::<MlDsa65>::try_from(&signature.ml_dsa[..])
            .map_err(|_| BadSignature)?;
        key.verify(&message, &decoded).map_err(|_| BadSignature)
    }
}

/// Both signatures over one statement.
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Signature {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    ed25519: [u8; ED25519_SIGNATURE_BYTES],
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    ml_dsa: [u8; ML_DSA_65_SIGNATURE_BYTES],
}

impl core::fmt::Debug for Signature {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Signature({}…)", crate::ids::to_hex(&self.ed25519[..8]))
    }
}

/// The seeds of both key pairs of a signer. Has no `Debug`; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SigningSeeds {
    /// Seed of the Ed25519 key pair.
    pub ed25519: [u8; SEED_BYTES],
    /// Seed (xi of FIPS 204) of the ML-DSA-65 key pair.
    pub ml_dsa: [u8; SEED_BYTES],
}

/// Both key pairs of a signer: of a device, or of an account's root.
pub struct SecretKey {
    ed25519: Ed25519Secret,
    ml_dsa: ml_dsa::SigningKey<MlDsa65>,
}

impl SecretKey {
    /// Makes both key pairs.
    pub fn from_seeds(seeds: &SigningSeeds) -> Self {
        Self {
            ed25519: Ed25519Secret::from_seed(&seeds.ed25519),
            ml_dsa: ml_dsa::SigningKey::from_seed((&seeds.ml_dsa).into()),
        }
    }

    /// The Ed25519 half, which signs requests, errands and heads.
    pub const fn ed25519(&self) -> &Ed25519Secret {
        &self.ed25519
    }

    /// The public halves.
    pub fn public(&self) -> PublicKey {
        let encoded = self.ml_dsa.verifying_key().to_bytes();
        let mut ml_dsa = [0; ML_DSA_65_PUBLIC_BYTES];
        ml_dsa.copy_from_slice(&encoded);
        PublicKey {
            ed25519: *self.ed25519.public().as_bytes(),
            ml_dsa,
        }
    }

    /// Signs with both. ML-DSA-65 in its deterministic form, with an empty context.
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> Signature {
        use ml_dsa::Signer as _;
        let message = domain.message(bytes);
        let encoded = self.ml_dsa.sign(&message).encode();
        let mut ml_dsa = [0; ML_DSA_65_SIGNATURE_BYTES];
        ml_dsa.copy_from_slice(&encoded);
        Signature {
            ed25519: *self.ed25519.sign_raw(&message).as_bytes(),
            ml_dsa,
        }
    }
}

macro_rules! bytes_in_cbor {
    ($name:ident, $len:expr) => {
        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let bytes: [u8; $len] = d
                    .bytes()?
                    .try_into()
                    .map_err(|_| minicbor::decode::Error::message("wrong length"))?;
                Ok(Self(bytes))
            }
        }
    };
}

bytes_in_cbor!(Ed25519Public, ED25519_PUBLIC_BYTES);
bytes_in_cbor!(Ed25519Signature, ED25519_SIGNATURE_BYTES);
