//! Noise for the texts of a log: keys, checkpoints, policies, requests to witnesses, proof files.

use std::sync::LazyLock;

use candor_log::checkpoint::{Checkpoint, SignedCheckpoint};
use candor_log::fork::Misbehaviour;
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::policy::{Policy, Standing};
use candor_log::proof_file::TlogProof;
use candor_log::tile::Resource;
use candor_log::tree::{Hash, TreeHead};
use candor_log::witness::AddCheckpoint;
use candor_wire::sign::Ed25519Secret;

use super::choices::Choices;
use super::{Noise, seeds};

/// The log and the witnesses of the vectors (`vectors/log/accepted.txt`).
const ORIGIN: &str = "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0.cell.invalid/log";
const TIME_S: u64 = 1_800_000_000;

fn secret(number: u8) -> Ed25519Secret {
    Ed25519Secret::from_seed(&[number; 32])
}

fn key(name: &str, kind: KeyKind, number: u8) -> VerifierKey {
    VerifierKey::new(name, kind, secret(number).public()).expect("the name is one")
}

static LOG: LazyLock<VerifierKey> = LazyLock::new(|| key(ORIGIN, KeyKind::Log, 1));
static WITNESSES: LazyLock<[VerifierKey; 2]> = LazyLock::new(|| {
    [0, 1].map(|number: u8| {
        let name = format!("witness.example/w{number}");
        key(&name, KeyKind::Cosigner, 100 + number)
    })
});
/// Keys that signed nothing, under the names of those that did.
static STRANGERS: LazyLock<[VerifierKey; 2]> = LazyLock::new(|| {
    [
        key(ORIGIN, KeyKind::Log, 77),
        key("witness.example/w0", KeyKind::Cosigner, 78),
    ]
});
static POLICIES: LazyLock<Vec<Policy>> = LazyLock::new(|| {
    let policies = seeds::fields_in("log/accepted.txt", "policy", 2);
    let bytes = policies.iter().filter_map(|text| seeds::hex(text));
    bytes
        .filter_map(|bytes| Policy::parse(&bytes).ok())
        .collect()
});

fn verifier_key(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(key) = VerifierKey::parse(&text) {
        assert_eq!(key.to_string(), text);
    }
}

/// One spelling, no stranger's signature, and every policy comes to some end.
fn checkpoint(bytes: &[u8]) {
    let Ok(read) = SignedCheckpoint::parse(bytes) else {
        return;
    };
    assert_eq!(read.bytes(), bytes, "another spelling of a checkpoint");
    assert!(read.is_signed_by(&STRANGERS[0]).is_err());
    assert_eq!(read.cosigned_by(&STRANGERS[1]), None);
    for policy in &*POLICIES {
        judge(policy, &read);
    }
}

/// A policy refuses exactly what is unwitnessed or not its log's.
fn judge(policy: &Policy, checkpoint: &SignedCheckpoint) {
    let standing = policy.standing(checkpoint);
    if let Standing::Witnessed { witnesses, time_s } = &standing {
        assert!(policy.needs_witnesses() && !witnesses.is_empty() && *time_s > 0);
    }
    if let Ok(accepted) = policy.check(checkpoint) {
        assert_eq!(accepted, standing);
        let logs = policy.logs();
        let is_signed = |log: &VerifierKey| checkpoint.is_signed_by(log).is_ok();
        assert!(logs.is_empty() || logs.iter().any(|log| is_signed(&log.key)));
        let is_witnessed = matches!(standing, Standing::Witnessed { .. });
        assert!(is_witnessed || !policy.needs_witnesses());
    }
}

fn policy(bytes: &[u8]) {
    let Ok(policy) = Policy::parse(bytes) else {
        return;
    };
    for checkpoint in &*CHECKPOINTS {
        judge(&policy, checkpoint);
    }
}

fn request(bytes: &[u8]) {
    let Ok(request) = AddCheckpoint::parse(bytes) else {
        return;
    };
    assert_eq!(request.to_bytes(), bytes, "another spelling of a request");
    assert!(request.check(None, None).is_err());
    assert!(request.check(Some(&STRANGERS[0]), None).is_err());
    let last = TreeHead {
        size: request.old_size,
        root: Hash([7; 32]),
    };
    // With a root that no tree of the vectors has, nothing follows but the empty proof of the same.
    if request.check(Some(&LOG), Some(last)).is_ok() {
        assert_eq!(request.checkpoint.head(), last);
    }
}

fn proof_file(bytes: &[u8]) {
    let Ok(proof) = TlogProof::parse(bytes) else {
        return;
    };
    assert_eq!(proof.to_bytes(), bytes, "another spelling of a proof");
    for policy in &*POLICIES {
        let refused = proof.verify(&Hash([9; 32]), policy).is_err();
        assert!(refused, "a leaf that is in no tree is proven");
    }
}

fn fork(bytes: &[u8]) {
    let Ok(proof) = Misbehaviour::parse(bytes) else {
        return;
    };
    assert_eq!(proof.to_bytes(), bytes, "another spelling of a fork proof");
    assert!(Misbehaviour::is_one(bytes));
    assert!(
        proof.verify(&STRANGERS[0]).is_err(),
        "a stranger is convicted"
    );
    if proof.verify(&LOG).is_ok() {
        let (older, newer) = (proof.older.head(), proof.newer.head());
        assert!(older.size <= newer.size && older != newer);
    }
}

fn path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(resource) = Resource::from_path(&text) {
        assert_eq!(resource.path(), text);
        assert!(!text.contains("..") && !text.starts_with('/'));
    }
    if let Some(version) = candor_log::state_map::inputs_version(&text) {
        assert_eq!(candor_log::state_map::inputs_path(version), text);
    }
}

static CHECKPOINTS: LazyLock<Vec<SignedCheckpoint>> = LazyLock::new(|| {
    let checkpoints = seeds::fields_in("log/accepted.txt", "checkpoint", 2);
    let bytes = checkpoints.iter().filter_map(|text| seeds::hex(text));
    let read = bytes.filter_map(|bytes| SignedCheckpoint::parse(&bytes).ok());
    read.chain([signed(13, 5)]).collect()
});

/// A checkpoint of the log with the cosignatures of both witnesses.
fn signed(size: u64, root: u8) -> SignedCheckpoint {
    let said = Checkpoint {
        origin: ORIGIN.to_owned(),
        head: TreeHead {
            size,
            root: Hash([root; 32]),
        },
    };
    let mut signed =
        SignedCheckpoint::sign(&said, &LOG, &secret(1)).expect("the log can sign this");
    for (number, witness) in (100..).zip(&*WITNESSES) {
        let line = signed.cosign(witness, &secret(number), TIME_S);
        let line = line.expect("the witness can cosign this");
        assert_eq!(signed.add_lines(&line, std::slice::from_ref(witness)), 1);
    }
    signed
}

/// A signed checkpoint that was changed, and lines of witnesses that were changed: what still counts as
/// signed says the same.
fn changed_checkpoint(bytes: &[u8]) {
    static GOOD: LazyLock<SignedCheckpoint> = LazyLock::new(|| signed(13, 5));
    let mut choices = Choices::new(bytes);
    let changed = choices.edit(&GOOD.bytes());
    if let Ok(read) = SignedCheckpoint::parse(&changed) {
        let is_same = read.origin() == GOOD.origin() && read.head() == GOOD.head();
        assert!(read.is_signed_by(&LOG).is_err() || is_same);
        for witness in &*WITNESSES {
            let time = read.cosigned_by(witness);
            assert!(time.is_none() || (is_same && time == Some(TIME_S)));
        }
    }
    let text = String::from_utf8_lossy(&changed);
    let lines = text.split_once("\n\n").map_or(&*text, |(_, lines)| lines);
    let said = Checkpoint {
        origin: ORIGIN.to_owned(),
        head: TreeHead {
            size: 14,
            root: Hash([6; 32]),
        },
    };
    let other = SignedCheckpoint::sign(&said, &LOG, &secret(1));
    let mut other = other.expect("the log can sign this");
    let taken = other.add_lines(lines, &*WITNESSES);
    assert_eq!(taken, 0, "a cosignature of another checkpoint is taken");
}

/// The first byte selects a row; rows are only ever added at the end. The kind and the field are where the
/// row's vectors are, in `vectors/log`.
const FORMS: &[(&str, usize, usize, Noise)] = &[
    ("key", 1, 2, verifier_key),
    ("checkpoint", 2, 3, checkpoint),
    ("policy", 2, 3, policy),
    ("request", 2, 3, request),
    ("proof", 2, 3, proof_file),
    ("fork", 2, 3, fork),
    ("path", 1, 1, path),
    ("none", 1, 1, changed_checkpoint),
];

/// Every text form of the log.
pub fn notes(noise: &[u8]) {
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    let (.., check) = FORMS[usize::from(*selector) % FORMS.len()];
    check(bytes);
}

pub fn note_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (row, (kind, accepted, rejected, _)) in FORMS.iter().enumerate() {
        let is_text = matches!(*kind, "key" | "path");
        let bytes_of = |text: String| match is_text {
            true => Some(text.into_bytes()),
            false => seeds::hex(&text),
        };
        let accepted = seeds::fields_in("log/accepted.txt", kind, *accepted);
        let rejected = seeds::fields_in("log/rejected.txt", kind, *rejected);
        let both = accepted.into_iter().chain(rejected);
        all.extend(seeds::selected(row, both.filter_map(bytes_of).collect()));
    }
    let paths = [
        "tile/0/x001/x234/067.p/1",
        "tile/entries/000",
        "map/x000/001",
    ];
    let paths = paths.map(|path| path.as_bytes().to_vec()).to_vec();
    all.extend(seeds::selected(6, paths));
    all.extend(seeds::selected(7, seeds::decisions()));
    all
}
