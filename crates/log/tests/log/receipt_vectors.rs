//! The vectors under `vectors/receipt/`. What is accepted is made anew here from fixed keys and must come
//! out the same; then every line of both files is judged as it says.

use std::fmt::Write as _;

use candor_log::policy::{Policy, Standing};
use candor_log::proof_file::ProofRefusal;
use candor_log::receipt::*;
use candor_testkit::sample as people;
use candor_wire::ids::to_hex;
use candor_wire::time::Millis;
use people::LAPTOP;

use crate::receipt::*;
use crate::stored::{bytes_of, reason, stored_or_made};

fn name_of(error: &ReceiptError) -> &'static str {
    match error {
        ReceiptError::Keys(_) => "keys",
        ReceiptError::Statement(_) => "statement",
        ReceiptError::NotAConsent => "not-a-consent",
        ReceiptError::Signature(_) => "signature",
        ReceiptError::Record(_) => "record",
        ReceiptError::Subject => "subject",
        ReceiptError::OtherCell => "other-cell",
        ReceiptError::Acknowledgement(_) => "acknowledgement",
        ReceiptError::OtherStatement => "other-statement",
        ReceiptError::ProofFile(_) => "proof-file",
        ReceiptError::Extra => "extra",
        ReceiptError::OtherLog => "other-log",
        ReceiptError::LogKey(_) => "log-key",
        ReceiptError::Proof(ProofRefusal::Policy(_)) => "policy",
        ReceiptError::Proof(ProofRefusal::Inclusion(_)) => "inclusion",
    }
}

const ACCEPTED_HEAD: &str = "# What is accepted (docs/formats/receipt.md). Fields are separated by ` | `; BYTES are hexadecimal.
#
# policy | NAME | BYTES
# receipt | NAME | BYTES | SHA-256 of its text form
# verified | NAME of a receipt | NAME of a policy | consent id | account | acknowledged, ms | cell | index | size | witnesses
";

const REJECTED_HEAD: &str = "# What is refused (docs/formats/receipt.md). Fields are separated by ` | `. A receipt is given as the one of
# accepted.txt named `witnessed` with some bytes, from OFFSET on, replaced by BYTES (hexadecimal).
#
# unreadable | NAME | reason | OFFSET | number of bytes that go | BYTES
# invalid | NAME | error under policy `two-of-three` | OFFSET | number of bytes that go | BYTES
";

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    to_hex(&sha2::Sha256::digest(bytes))
}

fn accepted() -> String {
    let mut out = ACCEPTED_HEAD.to_owned();
    let policies = [
        ("two-of-three", policy_of(&cell_log())),
        ("no-witnesses", NO_WITNESSES.to_owned()),
    ];
    for (name, text) in &policies {
        writeln!(out, "policy | {name} | {}", to_hex(text.as_bytes())).unwrap();
    }
    let receipts = [("witnessed", receipt()), ("lonely", lonely())];
    for (name, receipt) in &receipts {
        let text = sha256(receipt.to_text().as_bytes());
        writeln!(
            out,
            "receipt | {name} | {} | {text}",
            to_hex(&receipt.encode())
        )
        .unwrap();
    }
    for (name, receipt, policy) in [
        ("witnessed", &receipts[0].1, &policies[0]),
        ("witnessed", &receipts[0].1, &policies[1]),
        ("lonely", &receipts[1].1, &policies[1]),
    ] {
        let parsed = Policy::parse(policy.1.as_bytes()).unwrap();
        let verified = receipt.verify(&parsed).unwrap();
        writeln!(
            out,
            "verified | {name} | {} | {}",
            policy.0,
            fields(&verified)
        )
        .unwrap();
    }
    out
}

fn fields(verified: &Verified) -> String {
    let witnesses = match &verified.standing {
        Standing::Witnessed { witnesses, time_s } => format!("{} at {time_s}", witnesses.join(" ")),
        Standing::Unwitnessed { .. } => "unwitnessed".to_owned(),
    };
    [
        verified.id.to_string(),
        verified.account.to_string(),
        verified.acknowledged.0.to_string(),
        verified.cell.to_string(),
        verified.index.to_string(),
        verified.tree_size.to_string(),
        witnesses,
    ]
    .join(" | ")
}

/// What has to be replaced in `good` to get `other`.
fn patch(good: &[u8], other: &[u8]) -> String {
    let same = |pair: &(&u8, &u8)| pair.0 == pair.1;
    let before = good.iter().zip(other).take_while(same).count();
    let (rest, other) = (&good[before..], &other[before..]);
    let after = rest.iter().rev().zip(other.iter().rev());
    let after = after.take_while(same).count();
    let goes = rest.len() - after;
    let comes = &other[..other.len() - after];
    format!("{before} | {goes} | {}", to_hex(comes))
}

fn patched(good: &[u8], fields: &[&str]) -> Vec<u8> {
    let offset: usize = fields[0].parse().unwrap();
    let goes: usize = fields[1].parse().unwrap();
    [
        &good[..offset],
        &bytes_of(fields[2]),
        &good[offset + goes..],
    ]
    .concat()
}

fn unreadable(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut long_head = vec![0xb8, good[0] & 0x1f];
    long_head.extend_from_slice(&good[1..]);
    let mut newer = good.to_vec();
    newer[2] = 2;
    let mut unknown_key = good.to_vec();
    unknown_key[0] += 1;
    unknown_key.extend_from_slice(&[0x07, 0x00]);
    vec![
        ("cut", good[..good.len() - 1].to_vec()),
        ("trailing-byte", [good, &[0]].concat()),
        ("long-map-head", long_head),
        ("unknown-key", unknown_key),
        ("newer-version", newer),
        ("an-array", [&[0x87], &good[1..]].concat()),
    ]
}

fn rejected() -> String {
    let mut out = REJECTED_HEAD.to_owned();
    let good = receipt().encode();
    for (name, bytes) in unreadable(&good) {
        let why = reason(&Receipt::decode(&bytes).unwrap_err());
        writeln!(
            out,
            "unreadable | {name} | {why} | {}",
            patch(&good, &bytes)
        )
        .unwrap();
    }
    for (name, receipt, error) in cases() {
        let patch = patch(&good, &receipt.encode());
        writeln!(out, "invalid | {name} | {} | {patch}", name_of(&error)).unwrap();
    }
    out
}

#[test]
fn accepted_vectors() {
    let stored = stored_or_made("receipt/accepted.txt", &accepted());
    let lines: Vec<Vec<&str>> = stored
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" | ").collect())
        .collect();
    let named = |kind: &str, name: &str| {
        let line = lines.iter().find(|line| line[0] == kind && line[1] == name);
        bytes_of(line.unwrap()[2])
    };
    let mut judged = 0;
    for line in lines.iter().filter(|line| line[0] == "verified") {
        let policy = Policy::parse(&named("policy", line[2])).unwrap();
        let receipt = Receipt::decode(&named("receipt", line[1])).unwrap();
        let verified = receipt.verify(&policy).unwrap();
        assert_eq!(fields(&verified), line[3..].join(" | "));
        assert_eq!(Receipt::from_text(&receipt.to_text()).unwrap(), receipt);
        judged += 1;
    }
    assert_eq!(judged, 3);
}

#[test]
fn rejected_vectors() {
    let stored = stored_or_made("receipt/rejected.txt", &rejected());
    let good = receipt().encode();
    let mut judged = 0;
    for line in stored.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(" | ").collect();
        let bytes = patched(&good, &fields[3..]);
        let error = match fields[0] {
            "unreadable" => reason(&Receipt::decode(&bytes).unwrap_err()),
            _ => {
                let receipt = Receipt::decode(&bytes).unwrap();
                name_of(&receipt.verify(&two_of_three()).unwrap_err())
            }
        };
        assert_eq!(error, fields[2], "{}", fields[1]);
        judged += 1;
    }
    assert!(judged > 30);
}

/// The derived document, word by word, and that it holds nothing that the record does not.
#[test]
fn the_json_ld_form_is_the_stored_one() {
    let verified = lonely().verify(&no_witnesses()).unwrap();
    let made = verified.to_json_ld(Millis(1_790_000_100_000));
    stored_or_made("receipt/receipt.jsonld", &made);
    for absent in [
        to_hex(LAPTOP.as_bytes()),
        to_hex(&[0x77; 32]),
        to_hex(people::laptop().public().fingerprint().as_slice()),
    ] {
        assert!(!made.contains(&absent), "{absent}");
    }
}

/// The same as files, to try programs on.
#[test]
fn files_to_try_programs_on() {
    let receipt = receipt();
    let stored = stored_or_made("receipt/witnessed.receipt", &receipt.to_text());
    let policy = stored_or_made("receipt/two-of-three.policy", &policy_of(&cell_log()));
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    assert!(Receipt::from_text(&stored).unwrap().verify(&policy).is_ok());
    let parsed = receipt.statement.parse().unwrap();
    let leaf = candor_log::leaf::Leaf::statement(&parsed.entry.label, &parsed.id);
    stored_or_made(
        "receipt/witnessed.leaf",
        &format!("{}\n", to_hex(&leaf.encode())),
    );
    let proof = String::from_utf8(receipt.proof).unwrap();
    stored_or_made("receipt/witnessed.tlog-proof", &proof);
    stored_or_made("receipt/lonely.receipt", &lonely().to_text());
}
