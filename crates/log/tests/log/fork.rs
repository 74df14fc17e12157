//! Proofs of misbehaviour: what proves it, and that honest logs can never be accused.

use candor_log::checkpoint::{CheckpointError, SignedCheckpoint};
use candor_log::fork::*;
use candor_log::note::KeyKind;
use candor_log::tile::{Edge, Prover};
use candor_log::tree::{Consistency, Hash, PROOF_MAX_HASHES, ProofError, TreeHead};
use candor_wire::sign::BadSignature;

use crate::sample::*;

/// The head of another tree of this size, and the files of it.
fn forked(size: u64) -> (Files, TreeHead) {
    let mut other = leaves(0..size);
    other[2].commitment = [0; 32];
    let mut files = Files::default();
    let growth = Edge::empty().append(&other);
    let head = growth.head;
    files.keep(growth);
    (files, head)
}

/// Two trees of 13 leaves, both signed.
pub(crate) fn same_size() -> Misbehaviour {
    let first = cosign(sign(Log::of(13).head()), &[(0, TIME_S)]);
    let second = cosign(sign(forked(13).1), &[(1, TIME_S + 5)]);
    Misbehaviour::new(first, second).unwrap()
}

/// A tree of 5 leaves, and one of 13 that did not grow from it.
pub(crate) fn other_size() -> Misbehaviour {
    let (files, head) = forked(13);
    let prover = Prover::new(&files, head);
    let prefix = Prefix {
        root: prover.root_of(5).unwrap(),
        consistency: prover.consistency(5).unwrap(),
    };
    let older = sign(Log::of(5).head());
    Misbehaviour::with_prefix(older, sign(head), prefix).unwrap()
}

#[test]
fn a18_two_logs_of_the_same_size_prove_it() {
    let proof = same_size();
    let read = Misbehaviour::parse(&proof.to_bytes()).unwrap();
    assert_eq!(read, proof);
    assert_eq!(read.verify(&log_key()), Ok(()));
    // The cosignatures are in it: two witnesses saw different trees.
    assert_eq!(read.older.cosigned_by(&witness_key(0)), Some(TIME_S));
    assert_eq!(read.newer.cosigned_by(&witness_key(1)), Some(TIME_S + 5));
    let text = String::from_utf8(proof.to_bytes()).unwrap();
    assert!(text.starts_with(&format!("candor fork proof v1\n\n{ORIGIN}\n13\n")));
}

#[test]
fn a18_a_larger_log_that_did_not_grow_from_the_smaller_proves_it() {
    let proof = other_size();
    let read = Misbehaviour::parse(&proof.to_bytes()).unwrap();
    assert_eq!(read, proof);
    assert_eq!(read.verify(&log_key()), Ok(()));
    for old in 3..13 {
        let (files, head) = forked(13);
        let prover = Prover::new(&files, head);
        let prefix = Prefix {
            root: prover.root_of(old).unwrap(),
            consistency: prover.consistency(old).unwrap(),
        };
        let older = sign(Log::of(old).head());
        let proof = Misbehaviour::with_prefix(older, sign(head), prefix).unwrap();
        assert_eq!(proof.verify(&log_key()), Ok(()), "from {old}");
    }
}

#[test]
fn a18_an_honest_log_cannot_be_accused() {
    let log = Log::of(13);
    let (head, old) = (log.head(), log.head_at(5));
    assert_eq!(Misbehaviour::new(sign(head), sign(head)), None);
    assert_eq!(Misbehaviour::new(sign(old), sign(head)), None);
    let again = cosign(sign(head), &[(0, TIME_S)]);
    assert_eq!(Misbehaviour::new(sign(head), again), None);
    let honest = Prefix {
        root: old.root,
        consistency: log.prover().consistency(5).unwrap(),
    };
    let accuse = |older, newer, prefix| Misbehaviour::with_prefix(older, newer, prefix);
    assert_eq!(accuse(sign(old), sign(head), honest.clone()), None);
    // Another root for the prefix needs another proof, and there is none.
    let invented = Prefix {
        root: Hash([7; 32]),
        ..honest.clone()
    };
    assert_eq!(accuse(sign(old), sign(head), invented), None);
    let same = Prefix {
        root: Hash([7; 32]),
        consistency: Consistency { path: Vec::new() },
    };
    assert_eq!(accuse(sign(head), sign(head), same.clone()), None);
    assert_eq!(accuse(sign(head), sign(old), same.clone()), None);
    assert_eq!(accuse(sign(TreeHead::empty()), sign(head), same), None);
    // Parsed without the check, it still does not verify.
    let proof = Misbehaviour {
        older: sign(old),
        newer: sign(head),
        prefix: Some(honest),
    };
    let proof = Misbehaviour::parse(&proof.to_bytes()).unwrap();
    assert_eq!(proof.verify(&log_key()), Err(ForkError::NoContradiction));
    let proof = Misbehaviour {
        prefix: None,
        ..proof
    };
    assert_eq!(proof.verify(&log_key()), Err(ForkError::NoContradiction));
}

#[test]
fn a18_only_what_the_log_signed_counts() {
    let proof = same_size();
    let other = key(ORIGIN, KeyKind::Log, 2);
    let refused = |error| Err(ForkError::Checkpoint(error));
    assert_eq!(proof.verify(&other), refused(CheckpointError::NotSigned));
    let elsewhere = key("example.com/log", KeyKind::Log, 1);
    assert_eq!(proof.verify(&elsewhere), refused(CheckpointError::OtherLog));
    // Somebody signs a second tree in the log's name, with another key.
    let body = format!("{ORIGIN}\n13\n{}\n", Hash([7; 32]).to_base64());
    for (signer, error) in [
        (other, CheckpointError::NotSigned),
        (log_key(), CheckpointError::Signature(BadSignature)),
    ] {
        let forged = sign_anything(&body, &secret(2), &signer);
        let forged = SignedCheckpoint::parse(&forged).unwrap();
        let accused = Misbehaviour::new(proof.older.clone(), forged).unwrap();
        assert_eq!(accused.verify(&log_key()), refused(error));
    }
    // A checkpoint of another log, with a key of its own.
    let name = "example.com/log";
    let body = format!("{name}\n13\n{}\n", Hash([7; 32]).to_base64());
    let foreign = sign_anything(&body, &secret(2), &key(name, KeyKind::Log, 2));
    let foreign = SignedCheckpoint::parse(&foreign).unwrap();
    assert_eq!(Misbehaviour::new(proof.older, foreign), None);
}

#[test]
fn a18_a_changed_prefix_proves_nothing() {
    let proof = other_size();
    let good = proof.prefix.clone().unwrap();
    let refused = Err(ForkError::Prefix(ProofError::Invalid));
    let with = |prefix: Prefix| Misbehaviour {
        prefix: Some(prefix),
        ..proof.clone()
    };
    let mut other = good.clone();
    other.root.0[0] ^= 1;
    assert_eq!(with(other).verify(&log_key()), refused);
    for place in 0..good.consistency.path.len() {
        let mut other = good.clone();
        other.consistency.path[place].0[0] ^= 1;
        assert_eq!(with(other).verify(&log_key()), refused);
        let mut other = good.clone();
        other.consistency.path.remove(place);
        assert_eq!(with(other).verify(&log_key()), refused);
    }
    let swapped = Misbehaviour {
        older: proof.newer.clone(),
        newer: proof.older.clone(),
        prefix: Some(good),
    };
    let error = Err(ForkError::NoContradiction);
    assert_eq!(swapped.verify(&log_key()), error);
}

#[test]
fn a18_every_flipped_byte_is_refused_or_proves_the_same() {
    for proof in [same_size(), other_size()] {
        let bytes = proof.to_bytes();
        let lines_of_witnesses = |proof: &Misbehaviour| {
            [
                proof.older.cosigned_by(&witness_key(0)),
                proof.newer.cosigned_by(&witness_key(1)),
            ]
        };
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                let Ok(read) = Misbehaviour::parse(&flipped) else {
                    continue;
                };
                assert_eq!(read.to_bytes(), flipped);
                if read.verify(&log_key()).is_ok() {
                    // Only a witness's line changed, and it does not count any more.
                    assert_eq!(read.older.head(), proof.older.head());
                    assert_eq!(read.newer.head(), proof.newer.head());
                    assert_ne!(lines_of_witnesses(&read), lines_of_witnesses(&proof));
                }
            }
        }
    }
}

/// Every way to spell a proof wrongly, with its error.
pub(crate) fn misspelt() -> Vec<(&'static str, ForkError, Vec<u8>)> {
    use ForkError::*;
    let plain = String::from_utf8(same_size().to_bytes()).unwrap();
    let good = String::from_utf8(other_size().to_bytes()).unwrap();
    let change = |from: &str, to: &str| good.replacen(from, to, 1).into_bytes();
    let many = (Hash([7; 32]).to_base64() + "\n").repeat(PROOF_MAX_HASHES + 1);
    let one = plain.rsplitn(3, "\n\n").last().unwrap().to_owned();
    vec![
        ("empty", Format, Vec::new()),
        ("other-version", Format, change(" v1\n", " v2\n")),
        ("carriage-return", Format, change("v1\n", "v1\r\n")),
        ("root-without-a-name", Format, change("root ", "")),
        (
            "root-too-short",
            Format,
            change("root ", "root AAAA\nroot "),
        ),
        (
            "too-many-hashes",
            Format,
            change("=\n\n", &format!("=\n{many}\n")),
        ),
        ("one-checkpoint", Format, (one + "\n").into_bytes()),
        (
            "three-checkpoints",
            Format,
            format!("{plain}\n{}", plain.split_once("\n\n").unwrap().1).into_bytes(),
        ),
        ("not-utf-8", Format, [plain.as_bytes(), &[0xff]].concat()),
        (
            "cut",
            Checkpoint(CheckpointError::Note),
            plain.trim_end().into(),
        ),
        (
            "bad-size",
            Checkpoint(CheckpointError::Size),
            plain.replacen("\n13\n", "\n013\n", 1).into_bytes(),
        ),
        (
            "newline-at-the-end",
            Format,
            format!("{plain}\n").into_bytes(),
        ),
    ]
}

#[test]
fn a_fork_proof_has_one_spelling() {
    for (name, error, bytes) in misspelt() {
        assert_eq!(Misbehaviour::parse(&bytes), Err(error), "{name}");
    }
    let long = vec![b'a'; FORK_PROOF_MAX_BYTES + 1];
    let error = ForkError::TooLong { bytes: long.len() };
    assert_eq!(Misbehaviour::parse(&long), Err(error));
}
