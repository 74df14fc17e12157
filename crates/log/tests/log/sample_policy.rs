//! The policy that people begin with, as the documents have it.

use candor_log::note::KeyKind;
use candor_log::policy::{Policy, Standing};
use candor_log::tree::TreeHead;

use crate::sample::*;

const SAMPLE: &str = include_str!("../../../../docs/sample-log-policy");
const GUIDE: &str = include_str!("../../../../docs/witness.md");

#[test]
fn the_sample_policy_is_two_of_three() {
    let policy = Policy::parse(SAMPLE.as_bytes()).unwrap();
    assert_eq!(policy.logs().len(), 1);
    let names: Vec<&str> = policy
        .witnesses()
        .iter()
        .map(|witness| witness.name.as_str())
        .collect();
    assert_eq!(names, ["alice", "bob", "carol"]);
    assert!(policy.needs_witnesses());
    assert!(policy.logs()[0].key.name().ends_with(".cell.invalid/log"));
    // Nobody has the secrets of its keys, so its shape is tried with others in their place.
    let mut text = SAMPLE.to_owned();
    text = text.replace(&policy.logs()[0].key.to_string(), &log_key().to_string());
    for (number, witness) in (0..).zip(policy.witnesses()) {
        assert_eq!(witness.key.kind(), KeyKind::Cosigner);
        text = text.replace(&witness.key.to_string(), &witness_key(number).to_string());
    }
    let policy = Policy::parse(text.as_bytes()).unwrap();
    let standing = |by: &[u8]| {
        let times: Vec<(u8, u64)> = by.iter().map(|number| (*number, TIME_S)).collect();
        policy.standing(&cosign(sign(TreeHead::empty()), &times))
    };
    for by in [&[0, 1][..], &[1, 2], &[0, 2], &[0, 1, 2]] {
        assert!(matches!(standing(by), Standing::Witnessed { .. }));
    }
    for by in [&[][..], &[0], &[1], &[2]] {
        assert!(matches!(standing(by), Standing::Unwitnessed { .. }));
    }
}

#[test]
fn the_guide_shows_the_sample_policy() {
    let (_, shown) = SAMPLE.split_once("\n\n").unwrap();
    assert!(GUIDE.contains(&format!("```\n{shown}```\n")));
}
