//! Receipts of erasures: that a cell says something is gone from it, in one file that verifies offline.
//!
//! 1. A receipt carries what the cell signed, the salt that opens its commitment, the cell's keys under its
//!    root, and the proof that the erasure is in the cell's log, where everybody can count it.
//! 2. [`ErasureReceipt::verify`] needs nothing else but a policy.
//!
//! It is the cell's word, and a lie would stand in its log for ever; it cannot prove that nobody kept a copy. The
//! format is in `docs/formats/erasure.md`.

use candor_wire::cbor::{self, Canonical, CodecError};
use candor_wire::cell::{CELL_KEYS_MAX, CellError, CellKeyring, SignedCellKeys};
use candor_wire::erasure::{Erasure, SignedErasure, log_label};
use candor_wire::ids::Salt;
use candor_wire::sign::Ed25519Public;

use crate::armor::{Armor, ReceiptTextError, text_max_bytes};
use crate::checkpoint::CHECKPOINT_MAX_BYTES;
use crate::leaf::{Class, Leaf};
use crate::note::VerifierKey;
use crate::policy::{Policy, Standing};
use crate::proof_file::{ProofFileError, ProofRefusal, TlogProof};
use crate::receipt::{LogKeyError, log_that_signed};

/// The version of these receipts that this build writes and the only one that it accepts.
pub const ERASURE_RECEIPT_VERSION: u8 = 1;

/// Longest receipt, in bytes: all generations of a cell's keys, a proof without extra data, and 8 KiB for the
/// rest.
pub const ERASURE_RECEIPT_MAX_BYTES: usize =
    CELL_KEYS_MAX * 2304 + CHECKPOINT_MAX_BYTES + 4096 + 8 * 1024;

/// Longest text around and with a receipt, in bytes.
pub const ERASURE_RECEIPT_TEXT_MAX_BYTES: usize = text_max_bytes(ERASURE_RECEIPT_MAX_BYTES);

const ARMOR: Armor = Armor {
    begin: "-----BEGIN CANDOR ERASURE RECEIPT-----",
    end: "-----END CANDOR ERASURE RECEIPT-----",
    max_bytes: ERASURE_RECEIPT_MAX_BYTES,
};

/// An erasure, and everything that proves that the cell said so.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ErasureReceipt {
    /// Always [`ERASURE_RECEIPT_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The cell's root key.
    #[n(1)]
    pub root: Ed25519Public,
    /// All generations of the cell's keys.
    #[n(2)]
    pub keys: Vec<SignedCellKeys>,
    /// What the cell signed.
    #[n(3)]
    pub erasure: SignedErasure,
    /// Opens its commitment.
    #[n(4)]
    pub salt: Salt,
    /// A `.tlog-proof` of the erasure's leaf (C2SP tlog-proof), without extra data.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub proof: Vec<u8>,
}

impl Canonical for ErasureReceipt {
    const WHAT: &'static str = "a receipt of an erasure";
    const MAX_BYTES: usize = ERASURE_RECEIPT_MAX_BYTES;
}

/// A receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErasureReceiptError {
    /// The cell's keys are not under its root key.
    #[error("the cell's keys in the receipt cannot be believed")]
    Keys(#[source] CellError),
    /// The cell did not sign the erasure.
    #[error("the erasure in the receipt is not signed by the cell")]
    Erasure(#[source] CellError),
    /// The proof cannot be read.
    #[error("the proof in the receipt cannot be read")]
    ProofFile(#[source] ProofFileError),
    /// The proof carries extra data, which nothing vouches for.
    #[error("the proof in the receipt carries something that nothing vouches for")]
    Extra,
    /// The checkpoint is not one of the cell's log.
    #[error("the proof in the receipt is not of the cell's log")]
    Log(#[source] LogKeyError),
    /// The erasure is not in the log, or the policy does not accept the checkpoint.
    #[error("the proof in the receipt does not hold")]
    Proof(#[source] ProofRefusal),
}

/// What a receipt proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedErasure {
    /// What the cell says.
    pub erasure: Erasure,
    /// Who runs the cell and where, by the keys that signed.
    pub controller: String,
    /// The jurisdiction.
    pub region: String,
    /// The key that signed the checkpoint, one of those under the cell's root.
    pub log: VerifierKey,
    /// Place in the log.
    pub index: u64,
    /// Size of the tree that the proof leads to.
    pub tree_size: u64,
    /// Who witnessed it, by the policy.
    pub standing: Standing,
}

/// The leaf of an erasure in the log.
pub fn erasure_leaf(erasure: &SignedErasure, salt: &Salt) -> Leaf {
    Leaf {
        class: Class::Erasure,
        label: *log_label(salt).as_bytes(),
        commitment: *erasure.commitment(salt).as_bytes(),
    }
}

/// Whether a text has the first line of such a receipt.
pub fn is_erasure_receipt(text: &str) -> bool {
    ARMOR.begins_in(text)
}

impl ErasureReceipt {
    /// The text form, which can be mailed and printed.
    pub fn to_text(&self) -> String {
        ARMOR.to_text(&cbor::encode(self))
    }

    /// Reads the text form, as [`crate::receipt::Receipt::from_text`] does. Verifies nothing.
    pub fn from_text(text: &str) -> Result<Self, ReceiptTextError> {
        Self::decode(&ARMOR.read(text)?).map_err(ReceiptTextError::Content)
    }

    /// Reads the bytes of one receipt. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let receipt: Self = cbor::decode(bytes)?;
        if receipt.version != ERASURE_RECEIPT_VERSION {
            return Err(CodecError::Version {
                what: Self::WHAT,
                version: u32::from(receipt.version),
            });
        }
        Ok(receipt)
    }

    /// Checks everything that the receipt says. Too few witnesses are a standing, not an error, unless the policy
    /// has a quorum.
    pub fn verify(&self, policy: &Policy) -> Result<VerifiedErasure, ErasureReceiptError> {
        let keyring =
            CellKeyring::verify(&self.root, &self.keys).map_err(ErasureReceiptError::Keys)?;
        let erasure = self
            .erasure
            .verify(&keyring)
            .map_err(ErasureReceiptError::Erasure)?;
        let keys = keyring
            .generation(erasure.serial)
            .ok_or(ErasureReceiptError::Erasure(CellError::Erasure))?;
        let proof = TlogProof::parse(&self.proof).map_err(ErasureReceiptError::ProofFile)?;
        if proof.extra.is_some() {
            return Err(ErasureReceiptError::Extra);
        }
        let log =
            log_that_signed(&self.keys, &proof.checkpoint).map_err(ErasureReceiptError::Log)?;
        let leaf = erasure_leaf(&self.erasure, &self.salt);
        let standing = proof
            .verify(&leaf.hash(), policy)
            .map_err(ErasureReceiptError::Proof)?;
        Ok(VerifiedErasure {
            erasure,
            controller: keys.controller.clone(),
            region: keys.region.clone(),
            log,
            index: proof.inclusion.index,
            tree_size: proof.checkpoint.head().size,
            standing,
        })
    }
}
