//! Erasure: what a person asks for, and what a cell signs when it is done.
//!
//! 1. A full device states [`ErasureAsked`] for a vault, or for the whole account. From then on no consent
//!    holds for it and none can be given: nothing more is stored there.
//! 2. Until the window is over ([`due`]) any full device can take it back with [`ErasureCancelled`]: a device
//!    in other hands destroys nothing at once, and every device of the account sees what was asked.
//! 3. Then the cell erases objects, heads and consent records, durably, and only after that signs an
//!    [`Erasure`]. Its commitment is an entry of the log with an open class: strangers count erasures, and
//!    nobody but the account learns which they were.
//! 4. Whoever knows the salt of the asking statement, which the account's devices and the cell do, finds the
//!    signed erasure under [`receipt_name`], also when the account that could sign requests is gone.

use hmac::{KeyInit as _, Mac as _};

use crate::cbor::{self, Canonical};
use crate::cell::{CellError, CellKeyring};
use crate::ids::{AccountId, CellId, Label, Salt, StatementId, VaultId};
use crate::sign::{Domain, Ed25519Secret, Ed25519Signature};
use crate::statement::commitment;
use crate::time::{DAY_MS, Millis};

/// The version of these formats that this build writes and the lowest that it accepts.
pub const ERASURE_VERSION: u8 = 1;

/// How long the deletion of an account can be taken back, in days: a week, so that somebody who is away for a
/// weekend still notices. A cell that promised to erase sooner does.
pub const ACCOUNT_ERASURE_DAYS: u32 = 7;

/// Ten numbers and ids.
const ERASURE_MAX_BYTES: usize = 512;

/// The body of [`crate::statement::Kind::ErasureAsked`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ErasureAsked {
    /// Always [`ERASURE_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Which vault; absent for the whole account.
    #[n(1)]
    pub vault: Option<VaultId>,
}

/// The body of [`crate::statement::Kind::ErasureCancelled`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ErasureCancelled {
    /// Always [`ERASURE_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The statement that asked.
    #[n(1)]
    pub asked: StatementId,
}

/// When what was asked for at `asked_at`, by the cell's clock, is erased at a cell of this retention window.
pub fn due(asked_at: Millis, vault: Option<&VaultId>, retention_days: u32) -> Millis {
    let days = match vault {
        Some(_) => retention_days,
        None => retention_days.min(ACCOUNT_ERASURE_DAYS),
    };
    asked_at.plus_ms(i64::from(days).saturating_mul(DAY_MS))
}

/// A cell's word that something is gone from it.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Erasure {
    /// Always [`ERASURE_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The cell.
    #[n(1)]
    pub cell: CellId,
    /// The generation of keys that signs it.
    #[n(2)]
    pub serial: u32,
    /// Whose data.
    #[n(3)]
    pub account: AccountId,
    /// Which vault; absent for the whole account.
    #[n(4)]
    pub vault: Option<VaultId>,
    /// The statement that asked for it.
    #[n(5)]
    pub asked: StatementId,
    /// When the cell acknowledged that one.
    #[n(6)]
    pub asked_at: Millis,
    /// When everything was gone, by the cell's clock.
    #[n(7)]
    pub erased_at: Millis,
    /// How many objects were erased.
    #[n(8)]
    pub objects: u64,
    /// How many bytes they had, padding included.
    #[n(9)]
    pub bytes: u64,
    /// How many consent records were erased.
    #[n(10)]
    pub consents: u64,
}

impl Canonical for Erasure {
    const WHAT: &'static str = "an erasure";
    const MAX_BYTES: usize = ERASURE_MAX_BYTES;
}

/// An [`Erasure`] with the cell's signature.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SignedErasure {
    /// Canonical bytes of the [`Erasure`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub erasure: Vec<u8>,
    /// By the key that signs acknowledgements, over [`Domain::ERASURE`] and those bytes.
    #[n(1)]
    pub signature: Ed25519Signature,
}

impl Canonical for SignedErasure {
    const WHAT: &'static str = "a signed erasure";
    const MAX_BYTES: usize = ERASURE_MAX_BYTES + 128;
}

impl SignedErasure {
    /// Signs with the cell's acknowledgement key.
    pub fn sign(erasure: &Erasure, key: &Ed25519Secret) -> Self {
        let bytes = cbor::encode(erasure);
        Self {
            signature: key.sign(Domain::ERASURE, &bytes),
            erasure: bytes,
        }
    }

    /// Checks it by the generation of keys that it names.
    pub fn verify(&self, keyring: &CellKeyring) -> Result<Erasure, CellError> {
        let erasure: Erasure = cbor::decode(&self.erasure).map_err(CellError::Codec)?;
        let keys = keyring
            .generation(erasure.serial)
            .ok_or(CellError::Erasure)?;
        keys.acknowledgement
            .verify(Domain::ERASURE, &self.erasure, &self.signature)
            .map_err(|_| CellError::Erasure)?;
        if erasure.version != ERASURE_VERSION || erasure.cell != keyring.cell() {
            return Err(CellError::Erasure);
        }
        Ok(erasure)
    }

    /// What the log has of it, given its salt: the commitment of its entry.
    pub fn commitment(&self, salt: &Salt) -> StatementId {
        commitment(salt, &cbor::encode(self))
    }
}

/// The label of an erasure's entry in the log, given its salt.
pub fn log_label(salt: &Salt) -> Label {
    Label::from_bytes(keyed(salt, b"candor erasure label\0\x01"))
}

/// Under which name a cell hands out the erasure that a statement asked for, given that statement's salt.
pub fn receipt_name(asked: &Salt) -> [u8; 32] {
    keyed(asked, b"candor erasure receipt\0\x01")
}

fn keyed(salt: &Salt, what: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length; 32 bytes are fine.
    let Ok(mut mac) = hmac::Hmac::<sha2::Sha256>::new_from_slice(salt.as_bytes()) else {
        unreachable!("HMAC accepts keys of every length")
    };
    mac.update(what);
    mac.finalize().into_bytes().into()
}
