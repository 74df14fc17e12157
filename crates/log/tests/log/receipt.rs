//! Consent receipts: what they prove, and that nothing else verifies.

use candor_log::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use candor_log::leaf::Leaf;
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::policy::{Policy, PolicyRefusal, Standing};
use candor_log::proof_file::{ProofRefusal, TlogProof};
use candor_log::receipt::*;
use candor_log::tile::{Edge, Prover};
use candor_testkit::sample as people;
use candor_wire::cbor;
use candor_wire::cell::{
    Acknowledgement, CellError, CellKeys, SignedAcknowledgement, SignedCellKeys, cell_id,
    log_origin,
};
use candor_wire::chain::Record;
use candor_wire::consent_record::{Event, RecordFault};
use candor_wire::ids::{AccountId, Link, Salt, StatementId};
use candor_wire::sign::Ed25519Secret;
use candor_wire::statement::Body;
use people::{LAPTOP, NOW, PHONE};

use crate::sample::*;
use crate::stored::reason;

/// The leaf of the consent in a log of 13.
pub(crate) const INDEX: usize = 6;

fn origin() -> String {
    log_origin(&people::cell())
}

pub(crate) fn cell_log() -> VerifierKey {
    VerifierKey::new(&origin(), KeyKind::Log, log_secret().public()).unwrap()
}

/// The cell's keys with a log, by generation.
pub(crate) fn keys(serial: u32, log: Option<&Ed25519Secret>) -> CellKeys {
    CellKeys {
        serial,
        log: log.map(Ed25519Secret::public),
        ..people::cell_keys()
    }
}

pub(crate) fn signed_keys(all: &[CellKeys]) -> Vec<SignedCellKeys> {
    let root = people::cell_root();
    all.iter()
        .map(|keys| SignedCellKeys::sign(keys, &root))
        .collect()
}

pub(crate) fn two_of_three() -> Policy {
    Policy::parse(policy_of(&cell_log()).as_bytes()).unwrap()
}

pub(crate) fn policy_of(log: &VerifierKey) -> String {
    let own = policy_text();
    let (_, rest) = own.split_once('\n').unwrap();
    format!("log {log}\n{rest}")
}

pub(crate) const NO_WITNESSES: &str = "quorum none\n";

pub(crate) fn no_witnesses() -> Policy {
    Policy::parse(NO_WITNESSES.as_bytes()).unwrap()
}

fn consent() -> Record {
    said(people::consent(LAPTOP))
}

/// A statement of the laptop, after those that make the account.
fn said(body: Body) -> Record {
    let mut family = people::family();
    family.push(Some(LAPTOP), &people::laptop(), body);
    family.records.pop().unwrap()
}

fn leaf_of(record: &Record) -> Leaf {
    let parsed = record.statement.as_ref().unwrap().parse().unwrap();
    Leaf::statement(&parsed.entry.label, &parsed.id)
}

/// What a log is asked for a proof.
pub(crate) struct Asked<'a> {
    pub(crate) leaf: Leaf,
    pub(crate) size: usize,
    pub(crate) index: usize,
    pub(crate) origin: &'a str,
    pub(crate) secret: Ed25519Secret,
    pub(crate) witnesses: &'a [(u8, u64)],
}

impl Asked<'_> {
    pub(crate) fn usual(leaf: Leaf) -> Self {
        Self {
            leaf,
            size: 13,
            index: INDEX,
            origin: "",
            secret: log_secret(),
            witnesses: &[(0, TIME_S), (2, TIME_S + 60)],
        }
    }

    /// The log with this leaf at its usual place, or the last one of a smaller log.
    pub(crate) fn proof(&self) -> TlogProof {
        let mut all = leaves(0..self.size as u64);
        all[INDEX.min(self.size - 1)] = self.leaf;
        let mut edge = Edge::empty();
        let mut files = Files::default();
        files.keep(edge.append(&all));
        let own = origin();
        let origin = if self.origin.is_empty() {
            &own
        } else {
            self.origin
        };
        let key = VerifierKey::new(origin, KeyKind::Log, self.secret.public()).unwrap();
        let checkpoint = Checkpoint {
            origin: origin.to_owned(),
            head: edge.head(),
        };
        let checkpoint = SignedCheckpoint::sign(&checkpoint, &key, &self.secret).unwrap();
        TlogProof {
            extra: None,
            inclusion: Prover::new(&files, edge.head())
                .inclusion(self.index as u64)
                .unwrap(),
            checkpoint: cosign(checkpoint, self.witnesses),
        }
    }
}

fn receipt_of(record: &Record) -> Receipt {
    Receipt {
        version: RECEIPT_VERSION,
        root: people::cell_root().public(),
        keys: signed_keys(&[keys(1, Some(&log_secret()))]),
        statement: record.statement.clone().unwrap(),
        signer: people::laptop().public(),
        acknowledgement: record.acknowledgement.clone().unwrap(),
        proof: Asked::usual(leaf_of(record)).proof().to_bytes(),
    }
}

pub(crate) fn receipt() -> Receipt {
    receipt_of(&consent())
}

/// The only leaf of a log, of a cell that has changed its keys twice since it had none; nobody
/// witnessed it.
pub(crate) fn lonely() -> Receipt {
    let mut record = people::consent_record(LAPTOP);
    record.event = Event::Renewed;
    record.previous = Some(StatementId::from_bytes([0x99; 32]));
    let record = said(Body::ConsentGiven(Box::new(record)));
    let generations = [
        keys(1, None),
        keys(2, Some(&secret(40))),
        keys(3, Some(&log_secret())),
    ];
    let proof = Asked {
        size: 1,
        index: 0,
        witnesses: &[],
        ..Asked::usual(leaf_of(&record))
    };
    Receipt {
        keys: signed_keys(&generations),
        proof: proof.proof().to_bytes(),
        ..receipt_of(&record)
    }
}

#[test]
fn a_receipt_verifies_with_nothing_but_a_policy() {
    let receipt = Receipt::decode(&receipt().encode()).unwrap();
    let verified = receipt.verify(&two_of_three()).unwrap();
    assert_eq!(verified.record, people::consent_record(LAPTOP));
    assert_eq!(verified.id, consent().commitment);
    assert_eq!(verified.account, people::ACCOUNT);
    assert_eq!(verified.cell, people::cell());
    assert_eq!(verified.acknowledged, NOW.plus_ms(5));
    assert_eq!((verified.index, verified.tree_size), (INDEX as u64, 13));
    assert_eq!(verified.log, cell_log());
    let witnesses = vec!["w0".to_owned(), "w2".to_owned()];
    let time_s = TIME_S;
    assert_eq!(verified.standing, Standing::Witnessed { witnesses, time_s });
}

#[test]
fn too_few_witnesses_are_a_standing_unless_the_policy_has_a_quorum() {
    let alone = lonely();
    let verified = alone.verify(&no_witnesses()).unwrap();
    assert_eq!(verified.standing, Standing::Unwitnessed { have: vec![] });
    assert_eq!((verified.index, verified.tree_size), (0, 1));
    let refused = alone.verify(&two_of_three()).unwrap_err();
    let missing = PolicyRefusal::Unwitnessed { have: vec![] };
    assert_eq!(refused, ReceiptError::Proof(ProofRefusal::Policy(missing)));
    // Witnesses that a policy without a quorum names are still told.
    let text = policy_of(&cell_log()).replace("quorum all-of-them", "quorum none");
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let have = vec!["w0".to_owned(), "w2".to_owned()];
    let standing = receipt().verify(&policy).unwrap().standing;
    assert_eq!(standing, Standing::Unwitnessed { have });
}

fn with_acknowledgement(change: impl FnOnce(&mut Acknowledgement)) -> Receipt {
    let good = receipt();
    let mut acknowledgement: Acknowledgement = {
        let keyring = candor_wire::cell::CellKeyring::verify(&good.root, &good.keys).unwrap();
        keyring.check(&good.acknowledgement).unwrap()
    };
    change(&mut acknowledgement);
    let key = people::acknowledgement_key();
    Receipt {
        acknowledgement: SignedAcknowledgement::sign(&acknowledgement, &key),
        ..good
    }
}

fn with_proof<'a>(change: impl FnOnce(&mut Asked<'a>)) -> Receipt {
    let record = consent();
    let mut asked = Asked::usual(leaf_of(&record));
    change(&mut asked);
    Receipt {
        proof: asked.proof().to_bytes(),
        ..receipt()
    }
}

fn with_record(change: impl FnOnce(&mut candor_wire::consent_record::ConsentRecord)) -> Receipt {
    let mut record = people::consent_record(LAPTOP);
    change(&mut record);
    receipt_of(&said(Body::ConsentGiven(Box::new(record))))
}

type Case = (&'static str, Receipt, ReceiptError);

/// The identity of the cell is not what the receipt says.
fn wrong_cells() -> Vec<Case> {
    let good = receipt();
    let other = Ed25519Secret::from_seed(&[0xdd; 32]);
    let mut altered = good.clone();
    altered.keys[0].keys[40] ^= 1;
    let doubled = [good.keys.clone(), good.keys.clone()].concat();
    let elsewhere = CellKeys {
        cell: cell_id(&other.public()),
        ..keys(1, Some(&log_secret()))
    };
    vec![
        (
            "root-swapped",
            Receipt {
                root: other.public(),
                ..good.clone()
            },
            ReceiptError::Keys(CellError::Signature),
        ),
        (
            "keys-altered",
            altered,
            ReceiptError::Keys(CellError::Signature),
        ),
        (
            "keys-missing",
            Receipt {
                keys: Vec::new(),
                ..good.clone()
            },
            ReceiptError::Keys(CellError::Contradiction),
        ),
        (
            "keys-doubled",
            Receipt {
                keys: doubled,
                ..good.clone()
            },
            ReceiptError::Keys(CellError::Contradiction),
        ),
        (
            "another-cell",
            Receipt {
                root: other.public(),
                keys: vec![SignedCellKeys::sign(&elsewhere, &other)],
                ..good
            },
            ReceiptError::OtherCell,
        ),
    ]
}

/// The statement is not one that its signer made.
fn wrong_statements() -> Vec<Case> {
    let good = receipt();
    let mut altered = good.clone();
    *altered.statement.signed.last_mut().unwrap() ^= 1;
    let mut cut = good.clone();
    cut.statement.signed.pop();
    let codec = cut.statement.parse().unwrap_err();
    let bad = candor_wire::sign::BadSignature;
    let mut opened = good.clone();
    opened.statement.salt = Salt::from_bytes([0x78; 32]);
    let withdrawal = receipt_of(&said(people::withdrawal(None)));
    vec![
        ("statement-altered", altered, ReceiptError::Signature(bad)),
        ("statement-cut", cut, ReceiptError::Statement(codec)),
        (
            "signer-swapped",
            Receipt {
                signer: people::phone().public(),
                ..good
            },
            ReceiptError::Signature(bad),
        ),
        ("salt-altered", opened, ReceiptError::OtherStatement),
        ("withdrawal", withdrawal, ReceiptError::NotAConsent),
        (
            "too-long-a-consent",
            with_record(|record| record.ends_at = NOW.plus_ms(i64::MAX / 2)),
            ReceiptError::Record(RecordFault::Duration),
        ),
        (
            "another-subject",
            with_record(|record| record.subject = AccountId::from_bytes([0xa2; 16])),
            ReceiptError::Subject,
        ),
        (
            "another-device",
            with_record(|record| record.device = PHONE),
            ReceiptError::Subject,
        ),
    ]
}

/// The acknowledgement is not the cell's, or not of this statement.
fn wrong_acknowledgements() -> Vec<Case> {
    let good = receipt();
    let mut altered = good.clone();
    altered.acknowledgement.acknowledgement[60] ^= 1;
    let invalid = || ReceiptError::Acknowledgement(CellError::Acknowledgement);
    let codec = cbor::decode::<Acknowledgement>(&altered.acknowledgement.acknowledgement);
    let altered_error = match codec {
        Ok(_) => invalid(),
        Err(error) => ReceiptError::Acknowledgement(CellError::Codec(error)),
    };
    let earlier = people::family().records.pop().unwrap();
    vec![
        ("acknowledgement-altered", altered, altered_error),
        (
            "acknowledgement-of-another-statement",
            Receipt {
                acknowledgement: earlier.acknowledgement.unwrap(),
                ..good
            },
            ReceiptError::OtherStatement,
        ),
        (
            "acknowledgement-of-another-account",
            with_acknowledgement(|ack| ack.account = AccountId::from_bytes([0xa2; 16])),
            ReceiptError::OtherStatement,
        ),
        (
            "acknowledgement-of-another-place",
            with_acknowledgement(|ack| ack.sequence += 1),
            ReceiptError::OtherStatement,
        ),
        (
            "acknowledgement-with-another-link",
            with_acknowledgement(|ack| ack.link = Link::from_bytes([3; 32])),
            ReceiptError::OtherStatement,
        ),
        (
            "acknowledgement-of-no-generation",
            with_acknowledgement(|ack| ack.serial = 2),
            invalid(),
        ),
        (
            "acknowledgement-of-another-cell",
            with_acknowledgement(|ack| ack.cell = candor_wire::CellId::from_bytes([1; 16])),
            invalid(),
        ),
    ]
}

/// The proof, with what the log signed for a smaller tree in the log's own line.
fn with_a_spoilt_line(proof: &[u8]) -> Vec<u8> {
    let line = |size| {
        let asked = Asked {
            size,
            ..Asked::usual(leaf_of(&consent()))
        };
        let text = String::from_utf8(asked.proof().checkpoint.bytes()).unwrap();
        let beginning = format!("— {} ", origin());
        let line = text.lines().find(|line| line.starts_with(&beginning));
        line.unwrap().to_owned()
    };
    let text = std::str::from_utf8(proof).unwrap();
    text.replace(&line(13), &line(12)).into_bytes()
}

/// The proof is not one that this consent is in this cell's log.
fn wrong_proofs() -> Vec<Case> {
    let good = receipt();
    let mut cut = good.clone();
    cut.proof.pop();
    let unreadable = TlogProof::parse(&cut.proof).unwrap_err();
    let mut extra = Asked::usual(leaf_of(&consent())).proof();
    extra.extra = Some(b"said nowhere else".to_vec());
    let inclusion = |error| ReceiptError::Proof(ProofRefusal::Inclusion(error));
    let wrong_leaf = with_proof(|asked| asked.index = INDEX + 1);
    let other_leaf = with_proof(|asked| asked.leaf = leaf(6));
    let bad = candor_wire::sign::BadSignature;
    let error_of = |receipt: &Receipt| receipt.verify(&two_of_three()).unwrap_err();
    let mut cases = vec![
        ("proof-cut", cut, ReceiptError::ProofFile(unreadable)),
        (
            "proof-with-extra",
            Receipt {
                proof: extra.to_bytes(),
                ..good.clone()
            },
            ReceiptError::Extra,
        ),
        (
            "log-of-another-cell",
            with_proof(|asked| asked.origin = ORIGIN),
            ReceiptError::OtherLog,
        ),
        (
            "another-log-key",
            with_proof(|asked| asked.secret = secret(40)),
            ReceiptError::LogKey(CheckpointError::NotSigned),
        ),
        (
            "log-signature-altered",
            Receipt {
                proof: with_a_spoilt_line(&good.proof),
                ..good.clone()
            },
            ReceiptError::LogKey(CheckpointError::Signature(bad)),
        ),
        (
            "cell-without-a-log",
            Receipt {
                keys: signed_keys(&[keys(1, None)]),
                ..good
            },
            ReceiptError::OtherLog,
        ),
        (
            "one-witness",
            with_proof(|asked| asked.witnesses = &[(1, TIME_S)]),
            ReceiptError::Proof(ProofRefusal::Policy(PolicyRefusal::Unwitnessed {
                have: vec!["w1".to_owned()],
            })),
        ),
    ];
    for (name, receipt) in [
        ("place-of-another-leaf", wrong_leaf),
        ("leaf-missing", other_leaf),
    ] {
        match error_of(&receipt) {
            ReceiptError::Proof(ProofRefusal::Inclusion(error)) => {
                cases.push((name, receipt, inclusion(error)));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    cases
}

pub(crate) fn cases() -> Vec<Case> {
    [
        wrong_cells(),
        wrong_statements(),
        wrong_acknowledgements(),
        wrong_proofs(),
    ]
    .concat()
}

/// A cell that was restored from a backup began a new log. What is in the old one stays proven.
#[test]
fn each_log_of_a_cell_has_its_own_key() {
    let anew = CellKeys {
        log_number: Some(2),
        ..keys(2, Some(&secret(40)))
    };
    let both = signed_keys(&[keys(1, Some(&log_secret())), anew]);
    let second = format!("{}/2", origin());
    let of_second = |number: u8| {
        let mut receipt = with_proof(|asked| {
            asked.origin = &second;
            asked.secret = secret(number);
        });
        receipt.keys = both.clone();
        receipt
    };
    let verified = of_second(40).verify(&no_witnesses()).unwrap();
    assert_eq!(verified.log.name(), second);
    let first = Receipt {
        keys: both.clone(),
        ..receipt()
    };
    assert_eq!(first.verify(&two_of_three()).unwrap().log, cell_log());
    let wrong_key = of_second(1).verify(&no_witnesses());
    let expected = ReceiptError::LogKey(CheckpointError::NotSigned);
    assert_eq!(wrong_key, Err(expected));
    let unknown = Receipt {
        keys: signed_keys(&[keys(1, Some(&log_secret()))]),
        ..of_second(40)
    };
    assert_eq!(unknown.verify(&no_witnesses()), Err(ReceiptError::OtherLog));
}

#[test]
fn each_part_is_checked() {
    for (name, receipt, expected) in cases() {
        let read = Receipt::decode(&receipt.encode()).unwrap();
        assert_eq!(read.verify(&two_of_three()), Err(expected), "{name}");
    }
}

#[test]
fn a_policy_with_logs_accepts_no_other_cell() {
    let other = VerifierKey::new(&origin(), KeyKind::Log, secret(40).public()).unwrap();
    for (log, expected) in [
        (log_key(), CheckpointError::OtherLog),
        (other, CheckpointError::NotSigned),
    ] {
        let policy = Policy::parse(policy_of(&log).as_bytes()).unwrap();
        let expected = ReceiptError::Proof(ProofRefusal::Policy(PolicyRefusal::Log(expected)));
        assert_eq!(receipt().verify(&policy), Err(expected));
    }
}

#[test]
fn a_receipt_with_a_flipped_bit_never_verifies() {
    let good = receipt().encode();
    let policy = two_of_three();
    for position in (0..good.len()).step_by(3) {
        let mut bytes = good.clone();
        bytes[position] ^= 1 << (position % 8);
        if let Ok(receipt) = Receipt::decode(&bytes) {
            assert!(receipt.verify(&policy).is_err(), "byte {position}");
        }
    }
    for length in (0..good.len()).step_by(101) {
        assert!(Receipt::decode(&good[..length]).is_err());
    }
}

#[test]
fn the_text_form_survives_the_mail() {
    let receipt = receipt();
    let text = receipt.to_text();
    assert!(text.lines().all(|line| line.len() <= 64 && line.is_ascii()));
    assert_eq!(Receipt::from_text(&text).unwrap(), receipt);
    let mailed = format!(
        "From: alice\r\n\r\nHere it is.\r\n{}\r\n--\r\nAlice\r\n",
        text.replace('\n', " \r\n")
    );
    assert_eq!(Receipt::from_text(&mailed).unwrap(), receipt);
    let lines: Vec<&str> = text.lines().collect();
    let without = |place: usize| {
        let mut lines = lines.clone();
        lines.remove(place);
        lines.join("\n")
    };
    let missing = |text: &str| match Receipt::from_text(text) {
        Err(ReceiptTextError::NoLine { line }) => line.to_owned(),
        other => panic!("{other:?}"),
    };
    assert!(missing(&without(0)).contains("BEGIN"));
    assert!(missing(&without(lines.len() - 1)).contains("END"));
    assert!(missing("").contains("BEGIN"));
    assert!(missing(lines[0]).contains("END"));
    for lost in [1, 20, lines.len() - 2] {
        assert!(Receipt::from_text(&without(lost)).is_err(), "line {lost}");
    }
    let twice = format!("{text}{text}");
    assert_eq!(Receipt::from_text(&twice), Err(ReceiptTextError::Several));
    let long = " ".repeat(RECEIPT_TEXT_MAX_BYTES + 1);
    assert!(matches!(
        Receipt::from_text(&long),
        Err(ReceiptTextError::TooLong { .. })
    ));
    let spoilt = text.replacen('A', "*", 1).replace(lines[0], "");
    let spoilt = format!("{}\n{spoilt}", lines[0]);
    assert_eq!(Receipt::from_text(&spoilt), Err(ReceiptTextError::Base64));
}

#[test]
fn the_largest_receipt_fits() {
    let generations: Vec<CellKeys> = (1..=64)
        .map(|serial| CellKeys {
            controller: "c".repeat(256),
            region: "r".repeat(256),
            ..keys(serial, Some(&log_secret()))
        })
        .collect();
    let largest = Receipt {
        keys: signed_keys(&generations),
        ..receipt()
    };
    let bytes = largest.encode();
    assert!(bytes.len() < RECEIPT_MAX_BYTES);
    let read = Receipt::from_text(&largest.to_text()).unwrap();
    assert!(read.verify(&two_of_three()).is_ok());
}

#[test]
fn another_version_is_not_read() {
    for version in [0, 2, 255] {
        let other = Receipt {
            version,
            ..receipt()
        };
        let error = Receipt::decode(&other.encode()).unwrap_err();
        assert_eq!(reason(&error), "version");
    }
}
