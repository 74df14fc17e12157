//! A witness: what it signs, and everything that it refuses, in the specification's order.

use candor_log::note::KeyKind;
use candor_log::tree::{Consistency, Hash, PROOF_MAX_HASHES, TreeHead, empty_root};
use candor_log::witness::*;
use proptest::prelude::*;

use crate::sample::*;

fn nothing() -> Consistency {
    Consistency { path: Vec::new() }
}

fn request(old_size: u64, proof: Consistency, head: TreeHead) -> AddCheckpoint {
    AddCheckpoint {
        old_size,
        proof,
        checkpoint: sign(head),
    }
}

/// From 5 leaves to 13, honestly.
pub(crate) fn honest() -> (AddCheckpoint, TreeHead) {
    let log = Log::of(13);
    let proof = log.prover().consistency(5).unwrap();
    (request(5, proof, log.head()), log.head_at(5))
}

fn judge(request: &AddCheckpoint, last: Option<TreeHead>) -> Result<(), Refusal> {
    let read = AddCheckpoint::parse(&request.to_bytes()).unwrap();
    assert_eq!(&read, request);
    request.check(Some(&log_key()), last)
}

#[test]
fn a_log_that_grew_is_signed() {
    let (request, last) = honest();
    assert_eq!(judge(&request, Some(last)), Ok(()));
    for size in 0..40 {
        let log = Log::of(size);
        for old in 0..=size {
            let proof = log.prover().consistency(old).unwrap();
            let last = log.head_at(old);
            let request = self::request(old, proof, log.head());
            assert_eq!(judge(&request, Some(last)), Ok(()), "{old} to {size}");
            if old == 0 {
                assert_eq!(judge(&request, None), Ok(()));
            }
        }
    }
}

#[test]
fn requests_are_those_of_the_specification() {
    let (request, _) = honest();
    let text = String::from_utf8(request.to_bytes()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "old 5");
    let empty = lines.iter().position(|line| line.is_empty()).unwrap();
    assert_eq!(empty, 1 + request.proof.path.len());
    assert_eq!(lines[empty + 1], ORIGIN);
    // The example of the specification: two signatures by keys that it does not give.
    let example = "old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
";
    let read = AddCheckpoint::parse(example.as_bytes()).unwrap();
    assert_eq!(read.to_bytes(), example.as_bytes());
    assert_eq!(read.old_size, 20_852_014);
    assert_eq!(read.proof.path.len(), 4);
    assert_eq!(read.checkpoint.head().size, 20_852_163);
}

#[test]
fn every_refusal_has_its_status() {
    let statuses = [
        (Refusal::Malformed, 400, ""),
        (Refusal::NotSigned, 403, ""),
        (Refusal::UnknownLog, 404, ""),
        (Refusal::Conflict { size: 7 }, 409, "7\n"),
        (Refusal::Conflict { size: 0 }, 409, "0\n"),
        (Refusal::Inconsistent, 422, ""),
    ];
    for (refusal, status, body) in statuses {
        assert_eq!((refusal.status(), refusal.body().as_str()), (status, body));
    }
    assert_eq!(CONFLICT_CONTENT_TYPE, "text/x.tlog.size");
    assert_eq!(
        origin_hash("abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn b30_an_unknown_log_is_refused() {
    let (request, last) = honest();
    let unknown = Err(Refusal::UnknownLog);
    assert_eq!(request.check(None, Some(last)), unknown);
    let other = key("example.com/log", KeyKind::Log, 1);
    assert_eq!(request.check(Some(&other), Some(last)), unknown);
}

#[test]
fn b30_a_checkpoint_that_the_log_did_not_sign_is_refused() {
    let (request, last) = honest();
    let refused = Err(Refusal::NotSigned);
    let other = key(ORIGIN, KeyKind::Log, 2);
    assert_eq!(request.check(Some(&other), Some(last)), refused);
    let as_witness = key(ORIGIN, KeyKind::Cosigner, 1);
    assert_eq!(request.check(Some(&as_witness), Some(last)), refused);
    // A valid line and one that only says that it is by the log.
    let mut bytes = request.to_bytes();
    bytes.extend_from_slice(line(&log_key(), &[7; 64]).as_bytes());
    let spoilt = AddCheckpoint::parse(&bytes).unwrap();
    assert_eq!(spoilt.check(Some(&log_key()), Some(last)), refused);
    // The signature of another checkpoint of the same log.
    let text = String::from_utf8(request.to_bytes()).unwrap();
    let moved = text.replace(&format!("{ORIGIN}\n13\n"), &format!("{ORIGIN}\n14\n"));
    let moved = AddCheckpoint::parse(moved.as_bytes()).unwrap();
    assert_eq!(judge(&moved, Some(last)), refused);
}

#[test]
fn b30_a_shrunken_log_is_refused() {
    let log = Log::of(13);
    let (large, small) = (log.head(), log.head_at(5));
    // It admits that it was larger.
    let open = request(13, nothing(), small);
    assert_eq!(judge(&open, Some(large)), Err(Refusal::Malformed));
    // It claims that the witness never saw more than 5, or nothing at all.
    let conflict = Err(Refusal::Conflict { size: 13 });
    assert_eq!(judge(&request(5, nothing(), small), Some(large)), conflict);
    assert_eq!(judge(&request(0, nothing(), small), Some(large)), conflict);
    assert_eq!(
        judge(&request(0, nothing(), TreeHead::empty()), Some(large)),
        conflict
    );
    let (honest, _) = honest();
    assert_eq!(judge(&honest, Some(large)), conflict);
}

#[test]
fn b30_a_wrong_old_size_is_a_conflict() {
    let (request, last) = honest();
    assert_eq!(judge(&request, None), Err(Refusal::Conflict { size: 0 }));
    for size in (1..20).filter(|size| *size != 5) {
        let last = Some(TreeHead { size, ..last });
        assert_eq!(judge(&request, last), Err(Refusal::Conflict { size }));
    }
}

#[test]
fn b30_a_bad_proof_is_refused() {
    let (good, last) = honest();
    let refused = Err(Refusal::Inconsistent);
    let with = |path: Vec<Hash>| AddCheckpoint {
        proof: Consistency { path },
        ..good.clone()
    };
    let path = &good.proof.path;
    let mut bad = vec![Vec::new(), vec![path[0]; PROOF_MAX_HASHES]];
    for place in 0..path.len() {
        for byte in 0..32 {
            let mut flipped = path.clone();
            flipped[place].0[byte] ^= 1;
            bad.push(flipped);
        }
        let mut missing = path.clone();
        missing.remove(place);
        bad.push(missing);
        let mut doubled = path.clone();
        doubled.insert(place, path[place]);
        bad.push(doubled);
        let mut swapped = path.clone();
        swapped.rotate_left(place + 1);
        bad.push(swapped);
    }
    bad.retain(|path| *path != good.proof.path);
    for path in bad {
        assert_eq!(judge(&with(path), Some(last)), refused);
    }
    // Right for other sizes.
    for old in 1..13 {
        let other = Log::of(13).prover().consistency(old).unwrap();
        if other != good.proof {
            assert_eq!(judge(&with(other.path), Some(last)), refused);
        }
    }
    // The witness remembers another tree of that size: the log is forked.
    let forked = TreeHead {
        root: Hash([7; 32]),
        ..last
    };
    assert_eq!(judge(&good, Some(forked)), refused);
}

#[test]
fn b30_another_tree_of_the_same_size_is_refused() {
    let log = Log::of(13);
    let again = request(13, nothing(), log.head());
    assert_eq!(judge(&again, Some(log.head())), Ok(()));
    let forked = TreeHead {
        root: Hash([7; 32]),
        ..log.head()
    };
    let refused = Err(Refusal::Inconsistent);
    assert_eq!(judge(&again, Some(forked)), refused);
    let mut with_proof = again;
    with_proof.proof.path.push(log.head().root);
    assert_eq!(judge(&with_proof, Some(log.head())), refused);
}

#[test]
fn b30_the_first_checkpoint_needs_an_empty_proof() {
    let head = Log::of(13).head();
    let mut first = request(0, nothing(), head);
    assert_eq!(judge(&first, None), Ok(()));
    assert_eq!(judge(&first, Some(TreeHead::empty())), Ok(()));
    first.proof.path.push(empty_root());
    assert_eq!(judge(&first, None), Err(Refusal::Inconsistent));
}

#[test]
fn b30_an_empty_tree_with_another_root_is_refused() {
    let none = request(0, nothing(), TreeHead::empty());
    assert_eq!(judge(&none, None), Ok(()));
    assert_eq!(judge(&none, Some(TreeHead::empty())), Ok(()));
    let body = format!("{ORIGIN}\n0\n{}\n", Hash([7; 32]).to_base64());
    let signed = sign_anything(&body, &log_secret(), &log_key());
    let bytes = [b"old 0\n\n".to_vec(), signed].concat();
    let request = AddCheckpoint::parse(&bytes).unwrap();
    assert_eq!(judge(&request, None), Err(Refusal::Inconsistent));
}

/// With several things wrong, the specification's order decides: 404, 403, 400, 409, 422.
#[test]
fn b30_refusals_come_in_the_order_of_the_specification() {
    let log = Log::of(13);
    let bad = Consistency {
        path: vec![Hash([7; 32])],
    };
    let other = key("example.com/log", KeyKind::Log, 9);
    let unsigned = key(ORIGIN, KeyKind::Log, 9);
    let last = Some(log.head());
    // All wrong: not signed, the old size too large, no match, no proof.
    let all = request(20, bad.clone(), log.head());
    assert_eq!(all.check(Some(&other), last), Err(Refusal::UnknownLog));
    assert_eq!(all.check(None, last), Err(Refusal::UnknownLog));
    assert_eq!(all.check(Some(&unsigned), last), Err(Refusal::NotSigned));
    assert_eq!(all.check(Some(&log_key()), last), Err(Refusal::Malformed));
    let conflict = request(5, bad.clone(), log.head());
    let refused = Err(Refusal::Conflict { size: 13 });
    assert_eq!(conflict.check(Some(&log_key()), last), refused);
    let inconsistent = request(13, bad, log.head());
    let refused = Err(Refusal::Inconsistent);
    assert_eq!(inconsistent.check(Some(&log_key()), last), refused);
}

/// Every way to spell a request wrongly.
pub(crate) fn misspelt() -> Vec<(&'static str, Vec<u8>)> {
    let good = String::from_utf8(honest().0.to_bytes()).unwrap();
    let change = |from: &str, to: &str| good.replacen(from, to, 1).into_bytes();
    let many = (Hash([7; 32]).to_base64() + "\n").repeat(PROOF_MAX_HASHES + 1);
    vec![
        ("empty", Vec::new()),
        ("no-old-size", change("old 5\n", "")),
        ("old-in-capitals", change("old", "Old")),
        ("two-spaces", change("old ", "old  ")),
        ("leading-zero", change("old 5", "old 05")),
        ("plus-sign", change("old 5", "old +5")),
        ("space-after", change("old 5", "old 5 ")),
        ("carriage-return", change("old 5\n", "old 5\r\n")),
        ("above-the-largest", change("old 5", "old 1099511627777")),
        ("above-64-bits", change("old 5", "old 18446744073709551616")),
        ("hash-too-short", change("old 5\n", "old 5\nAAAA\n")),
        ("hash-without-padding", change("=\n", "\n")),
        (
            "too-many-hashes",
            change("old 5\n", &format!("old 5\n{many}")),
        ),
        ("no-empty-line", change("\n\n", "\n")),
        ("two-empty-lines", change("\n\n", "\n\n\n")),
        (
            "no-checkpoint",
            good.split_inclusive("\n\n").next().unwrap().into(),
        ),
        ("cut", good.trim_end().into()),
        (
            "too-long",
            [good.as_bytes(), &[b'x'; ADD_CHECKPOINT_MAX_BYTES]].concat(),
        ),
    ]
}

#[test]
fn b30_what_is_not_a_request_is_refused() {
    for (name, bytes) in misspelt() {
        let result = AddCheckpoint::parse(&bytes);
        assert_eq!(result, Err(Refusal::Malformed), "{name}");
    }
}

#[test]
fn b30_every_flipped_byte_is_refused() {
    let (good, last) = honest();
    let bytes = good.to_bytes();
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << bit;
            let signed = AddCheckpoint::parse(&flipped).is_ok_and(|request| {
                assert_eq!(request.to_bytes(), flipped);
                request.check(Some(&log_key()), Some(last)).is_ok()
            });
            assert!(!signed, "byte {place}, bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_back_or_refused(
        head in "(old [0-9]{1,14}\n)?([A-Za-z0-9+/]{43}=\n){0,3}\n?",
        cut in 0_usize..400,
    ) {
        let checkpoint = honest().0.checkpoint.bytes();
        let bytes = [head.as_bytes(), &checkpoint[cut.min(checkpoint.len())..]].concat();
        if let Ok(read) = AddCheckpoint::parse(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
    }
}
