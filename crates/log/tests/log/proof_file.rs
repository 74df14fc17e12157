//! Proof files: what they prove, and that nothing else verifies.

use candor_log::checkpoint::CheckpointError;
use candor_log::policy::{Policy, PolicyRefusal, Standing};
use candor_log::proof_file::*;
use candor_log::tree::{Hash, PROOF_MAX_HASHES, ProofError};
use proptest::prelude::*;

use crate::sample::*;

pub(crate) fn policy() -> Policy {
    Policy::parse(policy_text().as_bytes()).unwrap()
}

/// The proof of leaf 6 of 13, cosigned by two of the three witnesses.
pub(crate) fn proof() -> TlogProof {
    let log = Log::of(13);
    TlogProof {
        extra: None,
        inclusion: log.prover().inclusion(6).unwrap(),
        checkpoint: cosign(sign(log.head()), &[(0, TIME_S), (2, TIME_S + 60)]),
    }
}

#[test]
fn a_proof_verifies_offline_and_for_ever() {
    let proof = proof();
    let read = TlogProof::parse(&proof.to_bytes()).unwrap();
    assert_eq!(read, proof);
    let standing = read.verify(&leaf(6).hash(), &policy()).unwrap();
    let witnesses = vec!["w0".to_owned(), "w2".to_owned()];
    let time_s = TIME_S;
    assert_eq!(standing, Standing::Witnessed { witnesses, time_s });
    let text = String::from_utf8(proof.to_bytes()).unwrap();
    assert!(text.starts_with("c2sp.org/tlog-proof@v1\nindex 6\n"));
    assert!(text.contains(&format!("=\n\n{ORIGIN}\n13\n")));
}

#[test]
fn extra_data_is_carried_and_proves_nothing() {
    for extra in [b"".to_vec(), b"a".to_vec(), vec![7; EXTRA_MAX_BYTES]] {
        let mut with = proof();
        with.extra = Some(extra);
        let bytes = with.to_bytes();
        assert!(bytes.starts_with(b"c2sp.org/tlog-proof@v1\nextra "));
        assert!(bytes.len() <= PROOF_FILE_MAX_BYTES);
        let read = TlogProof::parse(&bytes).unwrap();
        assert_eq!(read, with);
        assert!(read.verify(&leaf(6).hash(), &policy()).is_ok());
    }
    let mut with = proof();
    with.extra = Some(vec![7; EXTRA_MAX_BYTES + 3]);
    let error = ProofFileError::Line { line: 2 };
    assert_eq!(TlogProof::parse(&with.to_bytes()), Err(error));
}

#[test]
fn a_tree_of_one_leaf_needs_no_hashes() {
    let log = Log::of(1);
    let proof = TlogProof {
        extra: None,
        inclusion: log.prover().inclusion(0).unwrap(),
        checkpoint: cosign(sign(log.head()), &[(0, TIME_S), (1, TIME_S)]),
    };
    let read = TlogProof::parse(&proof.to_bytes()).unwrap();
    assert!(read.verify(&leaf(0).hash(), &policy()).is_ok());
}

#[test]
fn what_is_not_proven_is_refused() {
    let wrong_leaf = proof().verify(&leaf(7).hash(), &policy());
    let error = ProofRefusal::Inclusion(ProofError::Invalid);
    assert_eq!(wrong_leaf, Err(error));
    let mut moved = proof();
    moved.inclusion.index = 13;
    let index = ProofError::Index {
        index: 13,
        size: 13,
    };
    let result = moved.verify(&leaf(6).hash(), &policy());
    assert_eq!(result, Err(ProofRefusal::Inclusion(index)));
    let mut alone = proof();
    alone.checkpoint = cosign(sign(alone.checkpoint.head()), &[(1, TIME_S)]);
    let have = vec!["w1".to_owned()];
    let refusal = ProofRefusal::Policy(PolicyRefusal::Unwitnessed { have });
    assert_eq!(alone.verify(&leaf(6).hash(), &policy()), Err(refusal));
    let other = policy_text().replace(&log_key().to_string(), REAL_LOG);
    let other = Policy::parse(other.as_bytes()).unwrap();
    let refusal = ProofRefusal::Policy(PolicyRefusal::Log(CheckpointError::OtherLog));
    assert_eq!(proof().verify(&leaf(6).hash(), &other), Err(refusal));
}

#[test]
fn every_flipped_byte_is_refused() {
    let bytes = proof().to_bytes();
    let hash = leaf(6).hash();
    let policy = policy();
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << bit;
            let verified = TlogProof::parse(&flipped).is_ok_and(|proof| {
                assert_eq!(proof.to_bytes(), flipped);
                proof.verify(&hash, &policy).is_ok()
            });
            assert!(!verified, "byte {place}, bit {bit}");
        }
    }
}

/// Every way to spell a proof wrongly, with its error.
pub(crate) fn misspelt() -> Vec<(&'static str, ProofFileError, Vec<u8>)> {
    let good = String::from_utf8(proof().to_bytes()).unwrap();
    let at = |line| ProofFileError::Line { line };
    let change = |from: &str, to: &str| good.replacen(from, to, 1).into_bytes();
    let hash = Hash([7; 32]).to_base64() + "\n";
    let many = hash.repeat(PROOF_MAX_HASHES + 1);
    let note = ProofFileError::Checkpoint(CheckpointError::Note);
    vec![
        ("empty", at(1), Vec::new()),
        ("other-version", at(1), change("@v1", "@v2")),
        ("space-after-version", at(1), change("@v1", "@v1 ")),
        ("carriage-return", at(1), change("@v1\n", "@v1\r\n")),
        ("no-index", at(2), change("index 6\n", "")),
        ("no-number", at(2), change("index 6", "index ")),
        ("leading-zero", at(2), change("index 6", "index 06")),
        ("space-after-index", at(2), change("index 6", "index 6 ")),
        (
            "index-above-64-bits",
            at(2),
            change("index 6", "index 18446744073709551616"),
        ),
        (
            "extra-twice",
            at(3),
            change("index", "extra AAAA\nextra AAAA\nindex"),
        ),
        (
            "extra-after-index",
            at(3),
            change("index 6\n", "index 6\nextra AAAA\n"),
        ),
        (
            "extra-not-base64",
            at(2),
            change("index", "extra AAA\nindex"),
        ),
        (
            "extra-without-space",
            at(2),
            change("index", "extra\nindex"),
        ),
        (
            "hash-too-short",
            at(3),
            change("index 6\n", "index 6\nAAAA\n"),
        ),
        (
            "too-many-hashes",
            at(3 + PROOF_MAX_HASHES),
            change("index 6\n", &format!("index 6\n{many}")),
        ),
        (
            "no-checkpoint",
            note.clone(),
            good.split_once("\n\n")
                .unwrap()
                .0
                .to_owned()
                .into_bytes()
                .into_iter()
                .chain(*b"\n\n")
                .collect(),
        ),
        ("empty-line-first", at(1), format!("\n{good}").into_bytes()),
        (
            "two-empty-lines",
            ProofFileError::Checkpoint(CheckpointError::Origin),
            change("\n\n", "\n\n\n"),
        ),
        ("cut", note, good.trim_end().into()),
    ]
}

#[test]
fn a_proof_has_one_spelling() {
    for (name, error, bytes) in misspelt() {
        assert_eq!(TlogProof::parse(&bytes), Err(error), "{name}");
    }
    let long = vec![b'a'; PROOF_FILE_MAX_BYTES + 1];
    let error = ProofFileError::TooLong { bytes: long.len() };
    assert_eq!(TlogProof::parse(&long), Err(error));
}

proptest! {
    #[test]
    fn any_lines_are_read_back_or_refused(
        extra in "(extra [A-Za-z0-9+/]{0,8}={0,2}\n){0,2}",
        index in "(index [0-9]{1,21}\n)?",
        hashes in "([A-Za-z0-9+/]{43}=\n){0,3}",
    ) {
        let checkpoint = String::from_utf8(proof().checkpoint.bytes()).unwrap();
        let text = format!("c2sp.org/tlog-proof@v1\n{extra}{index}{hashes}\n{checkpoint}");
        if let Ok(read) = TlogProof::parse(text.as_bytes()) {
            prop_assert_eq!(read.to_bytes(), text.as_bytes());
            prop_assert!(read.verify(&leaf(6).hash(), &policy()).is_err());
        }
    }
}
