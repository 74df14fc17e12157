//! Receipts and proofs as a stranger checks them: from files alone, without an account, a cell or a
//! network. [`crate::commands::Command::ConsentReceipt`] is what makes a receipt.

use candor_log::erasure_receipt::{self, ErasureReceipt, ErasureReceiptError};
use candor_log::fork::Misbehaviour;
use candor_log::leaf::Leaf;
use candor_log::policy::{Policy, Standing};
use candor_log::proof_file::{ProofRefusal, TlogProof};
use candor_log::receipt::{Receipt, ReceiptError, ReceiptTextError, Verified};
use candor_log::tree::leaf_hash;
use candor_wire::Millis;
use candor_wire::consent_record::{Collected, ConsentRecord, DataCategory, Event, Operation};
use candor_wire::ids::from_hex;
use serde::{Deserialize, Serialize};

use crate::commands::{Failure, FailureKind};

pub use candor_log::policy::POLICY_MAX_BYTES;
pub use candor_log::proof_file::PROOF_FILE_MAX_BYTES;
pub use candor_log::receipt::RECEIPT_TEXT_MAX_BYTES;

/// Longest leaf that is looked at, in bytes: far more than any log of ours has.
const LEAF_MAX_BYTES: usize = 64 * 1024;

/// The policy of somebody who gives none: nobody is asked for.
const NOBODY: &[u8] = b"quorum none\n";

/// Milliseconds in a second.
const SECOND_MS: i64 = 1000;

/// How well something in a log is witnessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingView {
    /// Whether a quorum of the policy vouches for it.
    pub witnessed: bool,
    /// Names, in the policy, of the witnesses that do.
    pub witnesses: Vec<String>,
    /// The time that the quorum reached, milliseconds UTC.
    pub witnessed_ms: Option<i64>,
    /// Whether the policy asks for witnesses.
    pub has_quorum: bool,
    /// Whether a policy was given at all.
    pub has_policy: bool,
}

/// What a valid receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptView {
    /// The consent's id.
    pub consent: String,
    /// Who agreed: a random id.
    pub account: String,
    /// The device that may send.
    pub device: String,
    /// Name of the service.
    pub service: String,
    /// The vault that may be written.
    pub vault: Option<String>,
    /// Code and version of the purpose.
    pub purpose: String,
    /// What kinds of data, in words.
    pub categories: Vec<String>,
    /// What is done with them, in words.
    pub operations: Vec<String>,
    /// Who runs the cell.
    pub controller: String,
    /// Where the cell keeps data.
    pub region: String,
    /// The cell's id.
    pub cell: String,
    /// SHA-256 of the notice that was shown.
    pub notice_hash: String,
    /// The notice's language.
    pub language: String,
    /// How the answer was collected, in words.
    pub collected: String,
    /// Whether it continues an earlier consent.
    pub renewed: bool,
    /// The consent that it continues.
    pub previous: Option<String>,
    /// From when it holds, milliseconds UTC.
    pub given_ms: i64,
    /// When it ends by itself, milliseconds UTC.
    pub ends_ms: i64,
    /// How long erased data may stay, in days.
    pub retention_days: u32,
    /// The command that withdraws.
    pub how_to_withdraw: String,
    /// When the cell acknowledged it, milliseconds UTC.
    pub acknowledged_ms: i64,
    /// Name of the log.
    pub log: String,
    /// Key of the log, in C2SP's text form.
    pub log_key: String,
    /// Place in the log.
    pub index: u64,
    /// Entries of the tree that the proof leads to.
    pub size: u64,
    /// Who vouches for the log.
    pub standing: StandingView,
}

/// What a valid proof says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofView {
    /// Name of the log.
    pub log: String,
    /// Place in the log.
    pub index: u64,
    /// Entries of the tree that the proof leads to.
    pub size: u64,
    /// What the leaf is, in words, if it is one of a cell's log.
    pub leaf: Option<String>,
    /// Who vouches for the log.
    pub standing: StandingView,
}

/// A receipt that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptFileView {
    /// The receipt in its text form.
    pub text: String,
    /// What it says.
    pub receipt: ReceiptView,
}

/// What a valid receipt of an erasure says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureReceiptView {
    /// The statement that asked for it.
    pub asked: String,
    /// Whose data: a random id.
    pub account: String,
    /// The vault; `None` for the whole account.
    pub vault: Option<String>,
    /// Who runs the cell.
    pub controller: String,
    /// Where the cell kept the data.
    pub region: String,
    /// The cell's id.
    pub cell: String,
    /// When it was asked for, by the cell's clock, milliseconds UTC.
    pub asked_ms: i64,
    /// When everything was gone, by the cell's clock, milliseconds UTC.
    pub erased_ms: i64,
    /// How many objects were erased.
    pub objects: u64,
    /// How many bytes they had.
    pub bytes: u64,
    /// How many consent records were erased.
    pub consents: u64,
    /// Name of the log.
    pub log: String,
    /// Key of the log, in C2SP's text form.
    pub log_key: String,
    /// Place in the log.
    pub index: u64,
    /// Entries of the tree that the proof leads to.
    pub size: u64,
    /// Who vouches for the log.
    pub standing: StandingView,
}

/// A receipt of an erasure that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureReceiptFileView {
    /// The receipt in its text form.
    pub text: String,
    /// What it says.
    pub receipt: ErasureReceiptView,
}

/// Whether a text is, by its first line, a receipt of an erasure and not of a consent.
pub fn is_erasure_receipt(text: &str) -> bool {
    erasure_receipt::is_erasure_receipt(text)
}

/// Checks a receipt of an erasure, as [`verify_receipt`] does one of a consent.
///
/// # Errors
/// As for [`verify_receipt`].
pub fn verify_erasure_receipt(
    text: &str,
    policy: Option<&[u8]>,
) -> Result<ErasureReceiptView, Failure> {
    let receipt = ErasureReceipt::from_text(text).map_err(|error| text_failure(&error))?;
    let parsed = parse_policy(policy.unwrap_or(NOBODY))?;
    let verified = receipt.verify(&parsed).map_err(|error| match &error {
        ErasureReceiptError::Proof(refusal) => proof_failure(refusal),
        _ => invalid(&error),
    })?;
    let erasure = &verified.erasure;
    Ok(ErasureReceiptView {
        asked: erasure.asked.to_string(),
        account: erasure.account.to_string(),
        vault: erasure.vault.map(|vault| vault.to_string()),
        controller: verified.controller.clone(),
        region: verified.region.clone(),
        cell: erasure.cell.to_string(),
        asked_ms: erasure.asked_at.0,
        erased_ms: erasure.erased_at.0,
        objects: erasure.objects,
        bytes: erasure.bytes,
        consents: erasure.consents,
        log: verified.log.name().to_owned(),
        log_key: verified.log.to_string(),
        index: verified.index,
        size: verified.tree_size,
        standing: standing_view(verified.standing.clone(), &parsed, policy.is_some()),
    })
}

/// Checks a receipt in its text form. Without a policy, whoever made the receipt is believed about nothing
/// but their own log: who the cell is, the reader decides.
///
/// # Errors
/// [`FailureKind::Usage`] for a text that is no receipt, or no policy; [`FailureKind::Integrity`] for a
/// receipt that is not valid.
pub fn verify_receipt(text: &str, policy: Option<&[u8]>) -> Result<ReceiptView, Failure> {
    let (verified, standing) = verified(text, policy)?;
    Ok(receipt_view(&verified, standing))
}

/// The receipt in the words of ISO/IEC TS 27560 and the W3C's Data Privacy Vocabulary, as JSON-LD. It is
/// checked first, as by [`verify_receipt`] without a policy; the document itself is not signed.
///
/// # Errors
/// As for [`verify_receipt`].
pub fn to_json_ld(text: &str, made_at: Millis) -> Result<String, Failure> {
    let (verified, _) = verified(text, None)?;
    Ok(verified.to_json_ld(made_at))
}

/// Checks the proof of a leaf, given in hexadecimal, under a policy that lists its log.
///
/// # Errors
/// [`FailureKind::Usage`] for files that are none of the kind; [`FailureKind::Integrity`] for a proof that
/// does not hold.
pub fn verify_proof(proof: &[u8], leaf: &str, policy: &[u8]) -> Result<ProofView, Failure> {
    let policy = parse_policy(policy)?;
    if policy.logs().is_empty() {
        let sentence = "the policy lists no log, so nobody would have signed anything";
        return Err(Failure::new(FailureKind::Usage, sentence)
            .with_hint("it needs a line `log KEY`; a cell's key is what `candor log key` prints"));
    }
    let leaf = leaf_bytes(leaf)?;
    let proof = TlogProof::parse(proof).map_err(|error| {
        Failure::new(FailureKind::Usage, "this is not a proof of a log")
            .with_hint("`candor log prove` makes one, as C2SP tlog-proof describes it")
            .because(&error)
    })?;
    let standing = proof
        .verify(&leaf_hash(&leaf), &policy)
        .map_err(|error| proof_failure(&error))?;
    Ok(ProofView {
        log: proof.checkpoint.origin().to_owned(),
        index: proof.inclusion.index,
        size: proof.checkpoint.head().size,
        leaf: Leaf::decode(&leaf).ok().map(|leaf| leaf_name(&leaf)),
        standing: standing_view(standing, &policy, true),
    })
}

/// What a valid proof of a fork says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkView {
    /// Name of the log.
    pub log: String,
    /// Entries and root of the one tree that it signed, and of the other.
    pub signed: [(u64, String); 2],
}

/// Whether a file is a proof of a fork, and not of a leaf.
pub fn is_fork_proof(bytes: &[u8]) -> bool {
    Misbehaviour::is_one(bytes)
}

/// Checks the proof that a log of the policy signed two trees that contradict each other.
///
/// # Errors
/// [`FailureKind::Usage`] for files that are none of the kind; [`FailureKind::Integrity`] for a proof that
/// does not hold.
pub fn verify_fork(proof: &[u8], policy: &[u8]) -> Result<ForkView, Failure> {
    let policy = parse_policy(policy)?;
    let proof = Misbehaviour::parse(proof).map_err(|error| {
        Failure::new(FailureKind::Usage, "this is not a proof of a fork").because(&error)
    })?;
    let mut refused = None;
    for log in policy.logs() {
        match proof.verify(&log.key) {
            Ok(()) => {
                let signed = [&proof.older, &proof.newer].map(|checkpoint| {
                    let head = checkpoint.head();
                    (head.size, head.root.to_base64())
                });
                return Ok(ForkView {
                    log: log.key.name().to_owned(),
                    signed,
                });
            }
            Err(error) => refused = Some(error),
        }
    }
    let failure = Failure::new(
        FailureKind::Integrity,
        "this does not prove that a log of the policy forked",
    )
    .with_hint("the policy has to list the key of the log that is accused");
    Err(match refused {
        Some(error) => failure.because(&error),
        None => failure,
    })
}

fn verified(text: &str, policy: Option<&[u8]>) -> Result<(Verified, StandingView), Failure> {
    let receipt = Receipt::from_text(text).map_err(|error| text_failure(&error))?;
    let parsed = parse_policy(policy.unwrap_or(NOBODY))?;
    let verified = receipt
        .verify(&parsed)
        .map_err(|error| receipt_failure(&error))?;
    let standing = standing_view(verified.standing.clone(), &parsed, policy.is_some());
    Ok((verified, standing))
}

fn parse_policy(bytes: &[u8]) -> Result<Policy, Failure> {
    Policy::parse(bytes).map_err(|error| {
        Failure::new(FailureKind::Usage, "the policy cannot be used")
            .with_hint("docs/sample-log-policy is one to begin with")
            .because(&error)
    })
}

fn leaf_bytes(hex: &str) -> Result<Vec<u8>, Failure> {
    let byte = |pair: &[u8]| from_hex::<1>(std::str::from_utf8(pair).ok()?).map(|byte| byte[0]);
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
    bytes
        .filter(|bytes| bytes.len() <= LEAF_MAX_BYTES)
        .ok_or_else(|| {
            Failure::new(FailureKind::Usage, "the leaf is not hexadecimal")
                .with_hint("it is what `candor log prove --json` shows as `leaf`")
        })
}

fn text_failure(error: &ReceiptTextError) -> Failure {
    let is_damaged = matches!(
        error,
        ReceiptTextError::Base64 | ReceiptTextError::Content(_)
    );
    let failure = if is_damaged {
        Failure::new(FailureKind::Integrity, "the receipt is damaged")
            .with_hint("ask for it again: a part was lost or changed on the way")
    } else {
        Failure::new(FailureKind::Usage, "this is not a receipt")
            .with_hint("`candor consent receipt` makes one")
    };
    failure.because(error)
}

fn receipt_failure(error: &ReceiptError) -> Failure {
    if let ReceiptError::Proof(refusal) = error {
        return proof_failure(refusal);
    }
    invalid(error)
}

fn invalid(error: &(dyn core::error::Error + 'static)) -> Failure {
    Failure::new(FailureKind::Integrity, "the receipt is not valid")
        .with_hint("somebody changed it, or made it up: it proves nothing")
        .because(error)
}

/// A proof can be good and not enough: that is told apart.
fn proof_failure(error: &ProofRefusal) -> Failure {
    use candor_log::policy::PolicyRefusal;
    let (sentence, hint) = match error {
        ProofRefusal::Policy(PolicyRefusal::Unwitnessed { .. }) => (
            "it is not witnessed as the policy asks",
            "it may be genuine: without witnesses, the operator alone says so",
        ),
        ProofRefusal::Policy(PolicyRefusal::Log(_)) => (
            "it is not from a log that the policy lists",
            "the policy may be about another cell",
        ),
        ProofRefusal::Inclusion(_) => (
            "it does not prove that this is in the log",
            "somebody changed it, or made it up: it proves nothing",
        ),
    };
    Failure::new(FailureKind::Integrity, sentence)
        .with_hint(hint)
        .because(error)
}

fn standing_view(standing: Standing, policy: &Policy, has_policy: bool) -> StandingView {
    let has_quorum = policy.needs_witnesses();
    match standing {
        Standing::Witnessed { witnesses, time_s } => StandingView {
            witnessed: true,
            witnesses,
            witnessed_ms: i64::try_from(time_s)
                .ok()
                .and_then(|seconds| seconds.checked_mul(SECOND_MS)),
            has_quorum,
            has_policy,
        },
        Standing::Unwitnessed { have } => StandingView {
            witnessed: false,
            witnesses: have,
            witnessed_ms: None,
            has_quorum,
            has_policy,
        },
    }
}

fn leaf_name(leaf: &Leaf) -> String {
    use candor_log::leaf::Class;
    let name = match leaf.class {
        Class::Sealed => "a statement or padding",
        Class::StateMap => "a version of the state map",
        Class::Access => "an access",
        Class::Move => "a move",
        Class::Erasure => "an erasure",
        Class::Report => "a report",
        Class::Build => "a build",
    };
    name.to_owned()
}

fn receipt_view(verified: &Verified, standing: StandingView) -> ReceiptView {
    let record: &ConsentRecord = &verified.record;
    let words = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    ReceiptView {
        consent: verified.id.to_string(),
        account: verified.account.to_string(),
        device: record.device.to_string(),
        service: record.service.name().to_owned(),
        vault: record.vault.map(|vault| vault.to_string()),
        purpose: record.purpose.clone(),
        categories: words(record.categories.iter().copied().map(category).collect()),
        operations: words(record.operations.iter().copied().map(operation).collect()),
        controller: record.recipient.controller.clone(),
        region: record.recipient.region.clone(),
        cell: verified.cell.to_string(),
        notice_hash: candor_wire::ids::to_hex(&record.notice_hash),
        language: record.language.clone(),
        collected: collected(record.collected).to_owned(),
        renewed: record.event == Event::Renewed,
        previous: record.previous.map(|previous| previous.to_string()),
        given_ms: record.given_at.0,
        ends_ms: record.ends_at.0,
        retention_days: record.retention_days,
        how_to_withdraw: record.how_to_withdraw.clone(),
        acknowledged_ms: verified.acknowledged.0,
        log: verified.log.name().to_owned(),
        log_key: verified.log.to_string(),
        index: verified.index,
        size: verified.tree_size,
        standing,
    }
}

const fn category(category: DataCategory) -> &'static str {
    match category {
        DataCategory::SealedFiles => {
            "contents, names and properties of files, sealed on the device"
        }
        DataCategory::ObjectSizes => "sizes and number of sealed objects",
        DataCategory::AccessTimes => "times of uploads and downloads",
        DataCategory::NetworkAddress => "the device's network address while it is connected",
        DataCategory::Identifiers => "random ids of account, device and vault, and public keys",
    }
}

const fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Receive => "receive",
        Operation::Store => "store",
        Operation::ReturnToOwner => "return to the owner",
        Operation::Delete => "delete",
    }
}

const fn collected(collected: Collected) -> &'static str {
    match collected {
        Collected::Terminal => "answered on a terminal",
        Collected::CommandFlag => "with a flag of a command; the same text was printed",
        Collected::Page => "on the device's own page",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RECEIPT: &str = include_str!("../../../vectors/receipt/witnessed.receipt");
    const LONELY: &str = include_str!("../../../vectors/receipt/lonely.receipt");
    const POLICY: &[u8] = include_bytes!("../../../vectors/receipt/two-of-three.policy");
    const PROOF: &[u8] = include_bytes!("../../../vectors/receipt/witnessed.tlog-proof");

    #[test]
    fn a_receipt_says_what_was_agreed() {
        let view = verify_receipt(RECEIPT, Some(POLICY)).unwrap();
        assert_eq!((view.service.as_str(), view.index), ("backup", 6));
        assert_eq!(view.controller, "Example Family");
        assert!(view.standing.witnessed);
        assert_eq!(view.standing.witnesses, ["w0", "w2"]);
        assert_eq!(view.standing.witnessed_ms, Some(1_800_000_000_000));
        let view = verify_receipt(LONELY, None).unwrap();
        assert!(view.renewed && !view.standing.witnessed && !view.standing.has_policy);
        assert!(to_json_ld(LONELY, Millis(0)).unwrap().contains("dpv:"));
    }

    #[test]
    fn what_is_not_valid_is_told_apart_from_what_is_no_receipt() {
        let kind = |text: &str, policy| verify_receipt(text, policy).unwrap_err().kind;
        assert_eq!(kind("", None), FailureKind::Usage);
        assert_eq!(kind(RECEIPT, Some(b"quorum x\n")), FailureKind::Usage);
        assert_eq!(kind(LONELY, Some(POLICY)), FailureKind::Integrity);
        let damaged = RECEIPT.replacen("AAA", "AAB", 1);
        assert_eq!(kind(&damaged, None), FailureKind::Integrity);
    }

    #[test]
    fn a_proof_needs_its_leaf_and_a_policy_with_its_log() {
        let kind = |leaf: &str, policy| verify_proof(PROOF, leaf, policy).unwrap_err().kind;
        assert_eq!(kind("00", NOBODY), FailureKind::Usage);
        assert_eq!(kind("0", POLICY), FailureKind::Usage);
        assert_eq!(kind("00", POLICY), FailureKind::Integrity);
        let receipt = Receipt::from_text(RECEIPT).unwrap();
        let parsed = receipt.statement.parse().unwrap();
        let leaf = Leaf::statement(&parsed.entry.label, &parsed.id).encode();
        let leaf = candor_wire::ids::to_hex(&leaf);
        let view = verify_proof(PROOF, &leaf, POLICY).unwrap();
        assert_eq!((view.index, view.size), (6, 13));
        assert_eq!(view.leaf.as_deref(), Some("a statement or padding"));
    }
}
