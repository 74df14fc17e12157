//! Consent receipts: that somebody agreed to something, in one file that verifies offline.
//!
//! 1. A receipt carries the signed consent with its salt, the key that signed it, the cell's
//!    acknowledgement, the cell's keys under its root, and the proof that the consent is in the cell's
//!    log.
//! 2. [`Receipt::verify`] needs nothing else but a policy: no network, no account, no cell, no clock.
//! 3. Whoever reads it decides whether the cell is the one that they mean: by its id, or by a policy that
//!    lists its log.
//!
//! That the signing key is a device's of the account is the cell's word, given with its acknowledgement:
//! the chain that says so stays with the owner. The file holds a consent record, which is personal data.
//! The format is in `docs/formats/receipt.md`.

mod json_ld;

use candor_wire::cbor::{self, Canonical, CodecError};
use candor_wire::cell::{
    Acknowledgement, CELL_KEYS_MAX, CellError, CellKeyring, CellKeys, SignedAcknowledgement,
    SignedCellKeys,
};
use candor_wire::consent_record::{ConsentRecord, RecordFault};
use candor_wire::limits::STATEMENT_MAX_BYTES;
use candor_wire::sign::{BadSignature, Ed25519Public, PublicKey};
use candor_wire::statement::{Body, Parsed, Statement};
use candor_wire::{AccountId, CellId, Millis, StatementId};

pub use crate::armor::ReceiptTextError;
use crate::armor::{Armor, text_max_bytes};
use crate::checkpoint::{CHECKPOINT_MAX_BYTES, CheckpointError, SignedCheckpoint};
use crate::leaf::Leaf;
use crate::note::{KeyKind, VerifierKey};
use crate::policy::{Policy, Standing};
use crate::proof_file::{ProofFileError, ProofRefusal, TlogProof};

/// The version of receipts that this build writes and the only one that it accepts.
pub const RECEIPT_VERSION: u8 = 1;

/// Longest receipt, in bytes: all generations of a cell's keys, a statement, a proof without extra data,
/// and 16 KiB for the signer's key, the acknowledgement and what holds it together.
pub const RECEIPT_MAX_BYTES: usize =
    CELL_KEYS_MAX * 2304 + STATEMENT_MAX_BYTES + CHECKPOINT_MAX_BYTES + 4096 + 16 * 1024;

/// Longest text around and with a receipt, in bytes: its base64 with line ends, and a mail around it.
pub const RECEIPT_TEXT_MAX_BYTES: usize = text_max_bytes(RECEIPT_MAX_BYTES);

const ARMOR: Armor = Armor {
    begin: "-----BEGIN CANDOR CONSENT RECEIPT-----",
    end: "-----END CANDOR CONSENT RECEIPT-----",
    max_bytes: RECEIPT_MAX_BYTES,
};

/// A consent, and everything that proves it.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Receipt {
    /// Always [`RECEIPT_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The cell's root key.
    #[n(1)]
    pub root: Ed25519Public,
    /// All generations of the cell's keys.
    #[n(2)]
    pub keys: Vec<SignedCellKeys>,
    /// The consent, with the salt that opens its commitment.
    #[n(3)]
    pub statement: Statement,
    /// The key that signed it.
    #[n(4)]
    pub signer: PublicKey,
    /// The cell's promise that it holds the statement.
    #[n(5)]
    pub acknowledgement: SignedAcknowledgement,
    /// A `.tlog-proof` of the statement's leaf (C2SP tlog-proof), without extra data.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub proof: Vec<u8>,
}

impl Canonical for Receipt {
    const WHAT: &'static str = "a consent receipt";
    const MAX_BYTES: usize = RECEIPT_MAX_BYTES;
}

/// A checkpoint is not one of the cell's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogKeyError {
    /// The cell's keys cannot be read.
    #[error("the cell's keys in the receipt cannot be believed")]
    Keys(#[source] CellError),
    /// It is of another log.
    #[error("the proof in the receipt is of another log than the cell's")]
    OtherLog,
    /// None of the cell's log keys signed it, or one of them not validly.
    #[error("the checkpoint in the receipt is not signed by the cell's log")]
    Signature(#[source] CheckpointError),
}

impl From<LogKeyError> for ReceiptError {
    fn from(error: LogKeyError) -> Self {
        match error {
            LogKeyError::Keys(source) => Self::Keys(source),
            LogKeyError::OtherLog => Self::OtherLog,
            LogKeyError::Signature(source) => Self::LogKey(source),
        }
    }
}

/// A receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The cell's keys are not under its root key.
    #[error("the cell's keys in the receipt cannot be believed")]
    Keys(#[source] CellError),
    /// The statement cannot be read.
    #[error("the statement in the receipt cannot be read")]
    Statement(#[source] CodecError),
    /// A statement, but no consent.
    #[error("the statement in the receipt is not a consent")]
    NotAConsent,
    /// The key in the receipt did not sign the statement.
    #[error("the consent is not signed by the key in the receipt")]
    Signature(#[source] BadSignature),
    /// A record that no device and no cell accepts.
    #[error("the consent in the receipt cannot hold")]
    Record(#[source] RecordFault),
    /// The record is another account's or device's than the statement around it.
    #[error("the consent in the receipt is not about whom its statement says")]
    Subject,
    /// The consent is to another cell.
    #[error("the consent in the receipt was given to another cell")]
    OtherCell,
    /// The cell did not sign the acknowledgement.
    #[error("the acknowledgement in the receipt is not the cell's")]
    Acknowledgement(#[source] CellError),
    /// The acknowledgement is of another statement, account or place.
    #[error("the acknowledgement in the receipt is of another statement")]
    OtherStatement,
    /// The proof cannot be read.
    #[error("the proof in the receipt cannot be read")]
    ProofFile(#[source] ProofFileError),
    /// The proof carries extra data, which nothing vouches for.
    #[error("the proof in the receipt carries something that nothing vouches for")]
    Extra,
    /// The proof is of another log than the cell's.
    #[error("the proof in the receipt is of another log than the cell's")]
    OtherLog,
    /// None of the cell's log keys signed the checkpoint, or one of them not validly.
    #[error("the checkpoint in the receipt is not signed by the cell's log")]
    LogKey(#[source] CheckpointError),
    /// The consent is not in the log, or the policy does not accept the checkpoint.
    #[error("the proof in the receipt does not hold")]
    Proof(#[source] ProofRefusal),
}

/// What a receipt proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What was agreed.
    pub record: ConsentRecord,
    /// The consent's id: the commitment in the log.
    pub id: StatementId,
    /// Who agreed, under a pseudonym.
    pub account: AccountId,
    /// When the cell acknowledged it, by the cell's clock.
    pub acknowledged: Millis,
    /// Which cell.
    pub cell: CellId,
    /// The key that signed the checkpoint, one of those under the cell's root.
    pub log: VerifierKey,
    /// Place in the log.
    pub index: u64,
    /// Size of the tree that the proof leads to.
    pub tree_size: u64,
    /// Who witnessed it, by the policy.
    pub standing: Standing,
}

impl Receipt {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads the bytes of one receipt. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let receipt: Self = cbor::decode(bytes)?;
        if receipt.version != RECEIPT_VERSION {
            return Err(CodecError::Version {
                what: Self::WHAT,
                version: u32::from(receipt.version),
            });
        }
        Ok(receipt)
    }

    /// The text form, which can be mailed and printed.
    pub fn to_text(&self) -> String {
        ARMOR.to_text(&self.encode())
    }

    /// Reads the text form. What stands before and after it, white space at the ends of lines, and where
    /// the lines break are ignored: mail changes them.
    pub fn from_text(text: &str) -> Result<Self, ReceiptTextError> {
        Self::decode(&ARMOR.read(text)?).map_err(ReceiptTextError::Content)
    }

    /// Checks everything that the receipt says.
    ///
    /// If the policy lists logs, the cell's must be one of them. Too few witnesses are a standing, not an
    /// error, unless the policy has a quorum: then it is [`ReceiptError::Proof`].
    pub fn verify(&self, policy: &Policy) -> Result<Verified, ReceiptError> {
        let keyring = CellKeyring::verify(&self.root, &self.keys).map_err(ReceiptError::Keys)?;
        let parsed = self.statement.parse().map_err(ReceiptError::Statement)?;
        let record = consent_of(&parsed, &keyring)?;
        parsed
            .verify(&self.signer)
            .map_err(ReceiptError::Signature)?;
        let acknowledgement = keyring
            .check(&self.acknowledgement)
            .map_err(ReceiptError::Acknowledgement)?;
        if !is_of(&acknowledgement, &parsed) {
            return Err(ReceiptError::OtherStatement);
        }
        let proof = TlogProof::parse(&self.proof).map_err(ReceiptError::ProofFile)?;
        if proof.extra.is_some() {
            return Err(ReceiptError::Extra);
        }
        let log = log_that_signed(&self.keys, &proof.checkpoint)?;
        let leaf = Leaf::statement(&parsed.entry.label, &parsed.id);
        let standing = proof
            .verify(&leaf.hash(), policy)
            .map_err(ReceiptError::Proof)?;
        Ok(Verified {
            record,
            id: parsed.id,
            account: parsed.entry.account,
            acknowledged: acknowledgement.time,
            cell: keyring.cell(),
            log,
            index: proof.inclusion.index,
            tree_size: proof.checkpoint.head().size,
            standing,
        })
    }
}

/// The one of the cell's log keys that signed the checkpoint, by the generation that names its log. A
/// cell that was restored from a backup has had several logs. The keyring was verified before.
pub(crate) fn log_that_signed(
    all: &[SignedCellKeys],
    checkpoint: &SignedCheckpoint,
) -> Result<VerifierKey, LogKeyError> {
    let mut signed = Err(LogKeyError::OtherLog);
    for one in all {
        let keys: CellKeys =
            cbor::decode(&one.keys).map_err(|error| LogKeyError::Keys(CellError::Codec(error)))?;
        let origin = keys.log_origin();
        let Some(key) = keys.log.filter(|_| checkpoint.origin() == origin) else {
            continue;
        };
        let key = VerifierKey::new(&origin, KeyKind::Log, key)
            .map_err(|_| LogKeyError::Signature(CheckpointError::Key))?;
        match checkpoint.is_signed_by(&key) {
            Ok(()) => signed = Ok(key),
            Err(CheckpointError::NotSigned) if signed.is_ok() => {}
            Err(error @ CheckpointError::NotSigned) => {
                signed = Err(LogKeyError::Signature(error));
            }
            // A line in a key's name that is not by the key spoils the checkpoint.
            Err(error) => return Err(LogKeyError::Signature(error)),
        }
    }
    signed
}

/// The record in a statement, if it is one that can hold at this cell.
fn consent_of(parsed: &Parsed, keyring: &CellKeyring) -> Result<ConsentRecord, ReceiptError> {
    let Body::ConsentGiven(record) = &parsed.body else {
        return Err(ReceiptError::NotAConsent);
    };
    record.check().map_err(ReceiptError::Record)?;
    if record.subject != parsed.entry.account || Some(record.device) != parsed.entry.signer {
        return Err(ReceiptError::Subject);
    }
    if record.recipient.cell != keyring.cell() {
        return Err(ReceiptError::OtherCell);
    }
    Ok((**record).clone())
}

fn is_of(acknowledgement: &Acknowledgement, parsed: &Parsed) -> bool {
    acknowledgement.statement == parsed.id
        && acknowledgement.account == parsed.entry.account
        && acknowledgement.sequence == parsed.entry.sequence
        && acknowledgement.link == parsed.link()
}
