//! Receipts of erasures: what they prove, that nothing else verifies, and their vectors.

use std::fmt::Write as _;

use candor_log::erasure_receipt::*;
use candor_log::policy::{Policy, PolicyRefusal, Standing};
use candor_log::proof_file::ProofRefusal;
use candor_log::receipt::{LogKeyError, ReceiptTextError};
use candor_testkit::sample as people;
use candor_wire::cbor;
use candor_wire::erasure::{ERASURE_VERSION, Erasure, SignedErasure};
use candor_wire::ids::{Salt, StatementId, to_hex};
use candor_wire::sign::Ed25519Secret;
use candor_wire::time::DAY_MS;

use crate::receipt::{
    Asked, INDEX, NO_WITNESSES, cell_log, keys, no_witnesses, policy_of, signed_keys, two_of_three,
};
use crate::sample::*;
use crate::stored::{bytes_of, reason, stored_or_made};

const SALT: Salt = Salt::from_bytes([0x5a; 32]);

fn erasure() -> Erasure {
    Erasure {
        version: ERASURE_VERSION,
        cell: people::cell(),
        serial: 1,
        account: people::ACCOUNT,
        vault: Some(people::VAULT),
        asked: StatementId::from_bytes([0x99; 32]),
        asked_at: people::NOW,
        erased_at: people::NOW.plus_ms(30 * DAY_MS),
        objects: 12,
        bytes: 12 * 65_536,
        consents: 1,
    }
}

fn receipt_of(erasure: &Erasure, key: &Ed25519Secret) -> ErasureReceipt {
    let erasure = SignedErasure::sign(erasure, key);
    let leaf = erasure_leaf(&erasure, &SALT);
    ErasureReceipt {
        version: ERASURE_RECEIPT_VERSION,
        root: people::cell_root().public(),
        keys: signed_keys(&[keys(1, Some(&log_secret()))]),
        erasure,
        salt: SALT,
        proof: Asked::usual(leaf).proof().to_bytes(),
    }
}

fn receipt() -> ErasureReceipt {
    receipt_of(&erasure(), &people::acknowledgement_key())
}

/// Of a whole account, which nobody witnessed.
fn lonely() -> ErasureReceipt {
    let erasure = Erasure {
        vault: None,
        ..erasure()
    };
    let alone = receipt_of(&erasure, &people::acknowledgement_key());
    let proof = Asked {
        witnesses: &[],
        ..Asked::usual(erasure_leaf(&alone.erasure, &SALT))
    };
    ErasureReceipt {
        proof: proof.proof().to_bytes(),
        ..alone
    }
}

#[test]
fn a_receipt_verifies_with_nothing_but_a_policy() {
    let text = format!("On the phone:\n\n{}\nregards\n", receipt().to_text());
    assert!(is_erasure_receipt(&text));
    let read = ErasureReceipt::from_text(&text).unwrap();
    assert_eq!(read, receipt());
    let verified = read.verify(&two_of_three()).unwrap();
    assert_eq!(verified.erasure, erasure());
    assert_eq!((verified.index, verified.tree_size), (INDEX as u64, 13));
    assert_eq!(verified.log, cell_log());
    assert_eq!(
        (verified.controller.as_str(), verified.region.as_str()),
        ("Example Family", "home")
    );
    assert!(matches!(verified.standing, Standing::Witnessed { .. }));
    let alone = lonely().verify(&no_witnesses()).unwrap();
    assert_eq!(alone.standing, Standing::Unwitnessed { have: vec![] });
    assert_eq!(alone.erasure.vault, None);
}

#[test]
fn other_texts_are_no_receipts_of_erasures() {
    let consent = crate::receipt::receipt().to_text();
    assert!(!is_erasure_receipt(&consent));
    let refused = ErasureReceipt::from_text(&consent).unwrap_err();
    assert!(matches!(refused, ReceiptTextError::NoLine { .. }));
    let twice = receipt().to_text().repeat(2);
    let refused = ErasureReceipt::from_text(&twice).unwrap_err();
    assert_eq!(refused, ReceiptTextError::Several);
    let long = "a".repeat(ERASURE_RECEIPT_TEXT_MAX_BYTES + 1);
    let refused = ErasureReceipt::from_text(&long).unwrap_err();
    assert!(matches!(refused, ReceiptTextError::TooLong { .. }));
}

/// What is wrong, and what it is called.
fn spoilt() -> Vec<(&'static str, ErasureReceipt)> {
    let good = receipt();
    let other_log = Asked {
        origin: "elsewhere.example/log",
        ..Asked::usual(erasure_leaf(&good.erasure, &SALT))
    };
    let other_key = Asked {
        secret: secret(40),
        ..Asked::usual(erasure_leaf(&good.erasure, &SALT))
    };
    let mut extra = Asked::usual(erasure_leaf(&good.erasure, &SALT)).proof();
    extra.extra = Some(b"more".to_vec());
    let smaller = Erasure {
        objects: 11,
        ..erasure()
    };
    let of_another = receipt_of(&smaller, &people::acknowledgement_key());
    vec![
        (
            "keys",
            ErasureReceipt {
                root: secret(41).public(),
                ..good.clone()
            },
        ),
        ("erasure", receipt_of(&erasure(), &secret(42))),
        (
            "proof-file",
            ErasureReceipt {
                proof: b"c2sp.org/tlog-proof@v1\n".to_vec(),
                ..good.clone()
            },
        ),
        (
            "extra",
            ErasureReceipt {
                proof: extra.to_bytes(),
                ..good.clone()
            },
        ),
        (
            "other-log",
            ErasureReceipt {
                proof: other_log.proof().to_bytes(),
                ..good.clone()
            },
        ),
        (
            "log-key",
            ErasureReceipt {
                proof: other_key.proof().to_bytes(),
                ..good.clone()
            },
        ),
        (
            "policy",
            ErasureReceipt {
                proof: lonely_proof(&good),
                ..good.clone()
            },
        ),
        (
            "inclusion",
            ErasureReceipt {
                salt: Salt::from_bytes([1; 32]),
                ..good.clone()
            },
        ),
        (
            "inclusion",
            ErasureReceipt {
                erasure: of_another.erasure,
                ..good
            },
        ),
    ]
}

fn lonely_proof(of: &ErasureReceipt) -> Vec<u8> {
    let proof = Asked {
        witnesses: &[],
        ..Asked::usual(erasure_leaf(&of.erasure, &SALT))
    };
    proof.proof().to_bytes()
}

fn name_of(error: &ErasureReceiptError) -> &'static str {
    match error {
        ErasureReceiptError::Keys(_) => "keys",
        ErasureReceiptError::Erasure(_) => "erasure",
        ErasureReceiptError::ProofFile(_) => "proof-file",
        ErasureReceiptError::Extra => "extra",
        ErasureReceiptError::Log(LogKeyError::Keys(_)) => "keys",
        ErasureReceiptError::Log(LogKeyError::OtherLog) => "other-log",
        ErasureReceiptError::Log(LogKeyError::Signature(_)) => "log-key",
        ErasureReceiptError::Proof(ProofRefusal::Policy(PolicyRefusal::Log(_))) => "other-policy",
        ErasureReceiptError::Proof(ProofRefusal::Policy(_)) => "policy",
        ErasureReceiptError::Proof(ProofRefusal::Inclusion(_)) => "inclusion",
    }
}

#[test]
fn nothing_else_verifies() {
    for (name, receipt) in spoilt() {
        let refused = receipt.verify(&two_of_three()).unwrap_err();
        assert_eq!(name_of(&refused), name, "{refused:?}");
    }
    // A policy that does not ask for witnesses still wants the proof.
    let refused = spoilt().pop().unwrap().1.verify(&no_witnesses());
    assert_eq!(name_of(&refused.unwrap_err()), "inclusion");
}

const HEAD: &str = "# Receipts of erasures (docs/formats/erasure.md). Fields are separated by ` | `; BYTES are hexadecimal.
#
# policy | NAME | BYTES
# accept | NAME | NAME of a policy | BYTES
# refuse | error under policy `two-of-three` | BYTES
# unreadable | reason | BYTES
";

fn made() -> String {
    let mut out = HEAD.to_owned();
    let policies = [
        ("two-of-three", policy_of(&cell_log())),
        ("no-witnesses", NO_WITNESSES.to_owned()),
    ];
    for (name, text) in &policies {
        writeln!(out, "policy | {name} | {}", to_hex(text.as_bytes())).unwrap();
    }
    for (name, policy, receipt) in [
        ("vault", "two-of-three", receipt()),
        ("account", "no-witnesses", lonely()),
    ] {
        let bytes = to_hex(&cbor::encode(&receipt));
        writeln!(out, "accept | {name} | {policy} | {bytes}").unwrap();
    }
    for (name, receipt) in spoilt() {
        writeln!(out, "refuse | {name} | {}", to_hex(&cbor::encode(&receipt))).unwrap();
    }
    let good = cbor::encode(&receipt());
    let newer = ErasureReceipt {
        version: ERASURE_RECEIPT_VERSION + 1,
        ..receipt()
    };
    let mut longer = good.clone();
    longer.push(0);
    for bytes in [&good[..good.len() - 1], &longer, &cbor::encode(&newer)] {
        let error = ErasureReceipt::decode(bytes).unwrap_err();
        writeln!(out, "unreadable | {} | {}", reason(&error), to_hex(bytes)).unwrap();
    }
    out
}

#[test]
fn vectors() {
    let stored = stored_or_made("erasure/receipts.txt", &made());
    let mut policies = std::collections::BTreeMap::new();
    let mut judged = 0;
    for line in stored.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(" | ").collect();
        let judge = |hex: &str, policy: &Policy| {
            let receipt = ErasureReceipt::decode(&bytes_of(hex)).unwrap();
            receipt.verify(policy).map_err(|error| name_of(&error))
        };
        match fields[..] {
            ["policy", name, hex] => {
                let policy = Policy::parse(&bytes_of(hex)).unwrap();
                policies.insert(name.to_owned(), policy);
            }
            ["accept", name, policy, hex] => {
                assert!(judge(hex, &policies[policy]).is_ok(), "{name}");
            }
            ["refuse", name, hex] => {
                assert_eq!(judge(hex, &two_of_three()).err(), Some(name));
            }
            ["unreadable", why, hex] => {
                let error = ErasureReceipt::decode(&bytes_of(hex)).unwrap_err();
                assert_eq!(reason(&error), why);
            }
            _ => panic!("not a vector: {line}"),
        }
        judged += 1;
    }
    assert!(judged > 12, "too few vectors");
}
