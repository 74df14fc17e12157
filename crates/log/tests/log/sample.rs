//! Trees, keys and sources of tiles for tests. Everything follows from small numbers.

use std::cell::Cell;
use std::collections::BTreeMap;

use candor_log::checkpoint::{Checkpoint, SignedCheckpoint};
use candor_log::leaf::{Class, Leaf};
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::tile::{Edge, Growth, Prover, Resource, TileSource};
use candor_log::tree::{Hash, TreeHead, empty_root};
use candor_wire::sign::Ed25519Secret;
use sha2::{Digest as _, Sha256};

pub(crate) const ORIGIN: &str = "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0.cell.invalid/log";
/// A time of a cosignature, in POSIX seconds.
pub(crate) const TIME_S: u64 = 1_800_000_000;

pub(crate) fn secret(number: u8) -> Ed25519Secret {
    Ed25519Secret::from_seed(&[number; 32])
}

/// The key of number `number`, under a name.
pub(crate) fn key(name: &str, kind: KeyKind, number: u8) -> VerifierKey {
    VerifierKey::new(name, kind, secret(number).public()).unwrap()
}

pub(crate) fn log_key() -> VerifierKey {
    key(ORIGIN, KeyKind::Log, 1)
}

pub(crate) fn log_secret() -> Ed25519Secret {
    secret(1)
}

/// Witness `number`, from 0, has the secret of `100 + number`.
pub(crate) fn witness_key(number: u8) -> VerifierKey {
    key(
        &format!("witness.example/w{number}"),
        KeyKind::Cosigner,
        100 + number,
    )
}

/// Leaf `i` of the tests' tree: each class in turn.
pub(crate) fn leaf(i: u64) -> Leaf {
    let class = Class::ALL[usize::try_from(i % 7).unwrap()];
    if class == Class::StateMap {
        return Leaf::state_map(i, &[0x55; 32]);
    }
    let mut label = [0x11; 32];
    label[..8].copy_from_slice(&i.to_be_bytes());
    Leaf {
        class,
        label,
        commitment: [0xcc; 32],
    }
}

pub(crate) fn leaves(range: std::ops::Range<u64>) -> Vec<Leaf> {
    range.map(leaf).collect()
}

/// RFC 6962, section 2.1, word by word, over hashes of leaves.
pub(crate) fn naive_root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => empty_root(),
        [one] => *one,
        _ => {
            let split = hashes.len().next_power_of_two() / 2;
            let (left, right) = hashes.split_at(split);
            let mut hash = Sha256::new();
            hash.update([1]);
            hash.update(naive_root(left).0);
            hash.update(naive_root(right).0);
            Hash(hash.finalize().into())
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {0}")]
pub(crate) struct Missing(pub(crate) String);

/// Files in memory. Counts what is read.
#[derive(Clone, Default)]
pub(crate) struct Files {
    pub(crate) files: BTreeMap<Resource, Vec<u8>>,
    pub(crate) reads: Cell<usize>,
}

impl TileSource for Files {
    type Error = Missing;

    fn read(&self, resource: &Resource) -> Result<Vec<u8>, Missing> {
        self.reads.set(self.reads.get() + 1);
        let missing = || Missing(resource.path());
        self.files.get(resource).cloned().ok_or_else(missing)
    }
}

impl Files {
    pub(crate) fn keep(&mut self, growth: Growth) {
        self.files.extend(growth.files);
    }
}

/// A log in memory.
pub(crate) struct Log {
    pub(crate) files: Files,
    pub(crate) edge: Edge,
}

impl Log {
    pub(crate) fn of(size: u64) -> Self {
        let mut log = Self {
            files: Files::default(),
            edge: Edge::empty(),
        };
        log.grow(size);
        log
    }

    pub(crate) fn grow(&mut self, size: u64) {
        let growth = self.edge.append(&leaves(self.edge.head().size..size));
        self.files.keep(growth);
    }

    pub(crate) fn head(&self) -> TreeHead {
        self.edge.head()
    }

    pub(crate) fn head_at(&self, size: u64) -> TreeHead {
        let root = self.prover().root_of(size).unwrap();
        TreeHead { size, root }
    }

    pub(crate) fn prover(&self) -> Prover<'_, Files> {
        Prover::new(&self.files, self.head())
    }
}

pub(crate) fn sign(head: TreeHead) -> SignedCheckpoint {
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        head,
    };
    SignedCheckpoint::sign(&checkpoint, &log_key(), &log_secret()).unwrap()
}

/// Cosigned by these witnesses, each at its time.
pub(crate) fn cosign(mut checkpoint: SignedCheckpoint, by: &[(u8, u64)]) -> SignedCheckpoint {
    for (number, time_s) in by {
        let key = witness_key(*number);
        let line = checkpoint.cosign(&key, &secret(100 + number), *time_s);
        assert_eq!(checkpoint.add_lines(&line.unwrap(), &[key]), 1);
    }
    checkpoint
}

/// A signed checkpoint over any head, also one that no tree can have.
pub(crate) fn sign_anything(body: &str, secret: &Ed25519Secret, key: &VerifierKey) -> Vec<u8> {
    let signature = secret.sign_raw(body.as_bytes());
    format!("{body}\n{}", line(key, signature.as_bytes())).into_bytes()
}

/// A signature line.
pub(crate) fn line(key: &VerifierKey, signature: &[u8]) -> String {
    use base64::Engine as _;
    let mut bytes = key.id().to_be_bytes().to_vec();
    bytes.extend_from_slice(signature);
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("— {} {text}\n", key.name())
}

/// The policy of the tests: this log, and two of three witnesses.
pub(crate) fn policy_text() -> String {
    let mut text = format!("log {} https://log.example/\n", log_key());
    for number in 0..3 {
        text += &format!("witness w{number} {}\n", witness_key(number));
    }
    text + "group all-of-them 2 w0 w1 w2\nquorum all-of-them\n"
}

/// A real checkpoint of a public log, as published, with cosignatures of public witnesses, and keys
/// of each.
pub(crate) const REAL: &str = "arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
";
pub(crate) const REAL_LOG: &str =
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f";
pub(crate) const REAL_WITNESSES: [&str; 4] = [
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
];
pub(crate) const REAL_TIME_S: u64 = 0x6a12_2120;
