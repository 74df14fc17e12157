//! What the log costs: `cargo xtask bench log` runs this in a release build and prints its lines. It is
//! no test and says nothing about right or wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use candor_log::leaf::Leaf;
use candor_log::monitor::{Known, Stated, Watch, WatchState};
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::state_map::{MapKey, MapValue, StateMap};
use candor_log::tile::{Prover, TILE_WIDTH, bundle_at};
use candor_store::Store;
use candor_store::log::LogEntry;
use candor_wire::StatementId;
use candor_wire::ids::Label;
use candor_wire::sign::Ed25519Secret;

use super::transparency::Files;
use crate::clock::SystemClock;
use crate::config::CellConfig;
use crate::transparency::{Signer, Transparency, TransparencyParts};

/// Entries of the short form, which CI runs.
const SHORT_ENTRIES: usize = 4096;

/// Proofs that are made and verified.
const PROOFS: u64 = 1000;

/// Accounts in the state map, and changes in one batch.
const ACCOUNTS: u64 = 100_000;
const CHANGES: u64 = 1000;

/// Prints one measurement, for the table.
fn line(name: &str, value: f64, unit: &str) {
    println!("measured\t{name}\t{value:.3}\t{unit}");
}

fn entry(number: u64) -> LogEntry {
    let mut random = [0; 64];
    let mut bytes = blake3::Hasher::new()
        .update(&number.to_be_bytes())
        .finalize_xof();
    bytes.fill(&mut random);
    Leaf::padding(&random).encode()
}

struct Bench {
    log: Transparency,
    store: Store,
    _directory: tempfile::TempDir,
    files: Files,
}

fn bench(place: Option<&str>) -> Bench {
    let directory = match place {
        Some(place) => tempfile::tempdir_in(place).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let store = Store::open(&directory.path().join("store")).unwrap();
    let secret = Ed25519Secret::from_seed(&[5; 32]);
    let key = VerifierKey::new("bench.invalid/log", KeyKind::Log, secret.public()).unwrap();
    let memory = directory.path().join("signer");
    Signer::create_memory(&memory, key.name()).unwrap();
    let mut settings = CellConfig::from_text("region = \"r\"\ncontroller = \"c\"\n")
        .unwrap()
        .log;
    settings.padding_entries = 0;
    let log = Transparency::new(TransparencyParts {
        records: store.log_records(),
        files: store.log_files(),
        clock: Arc::new(SystemClock),
        settings,
        witnesses: Vec::new(),
        signer: Signer::open(&memory, key, secret).unwrap(),
        padding_secret: [0; 32],
        about: crate::transparency::AboutCell {
            controller: "c".into(),
            region: "r".into(),
        },
    });
    Bench {
        log,
        files: Files(directory.path().join("store/log")),
        store,
        _directory: directory,
    }
}

/// Queues, sequences, writes tiles, moves the tree and publishes, batch by batch, each durable before
/// the next begins.
async fn grow(bench: &Bench, entries: usize, batch: usize) -> Duration {
    let records = bench.store.log_records();
    let from = records.log_tree().await.unwrap().size;
    let all: Vec<LogEntry> = (from..from + entries as u64).map(entry).collect();
    let started = Instant::now();
    for some in all.chunks(batch) {
        let now = candor_wire::Millis(1_780_000_000_000);
        records.queue_entries(some.to_vec(), now).await.unwrap();
        bench.log.step().await.unwrap();
    }
    let took = started.elapsed();
    assert_eq!(
        records.log_tree().await.unwrap().size,
        from + entries as u64
    );
    took
}

fn proofs(bench: &Bench) {
    let checkpoint = bench.log.published().checkpoint.unwrap();
    let head = checkpoint.head();
    let mut made = Vec::new();
    let started = Instant::now();
    for number in 0..PROOFS {
        let index = number * (head.size / PROOFS).max(1) % head.size;
        let prover = Prover::new(&bench.files, head);
        made.push(prover.inclusion(index).unwrap());
    }
    let each = |started: Instant| started.elapsed().as_secs_f64() * 1e6 / PROOFS as f64;
    line("making a proof of inclusion", each(started), "µs");
    let leaf_of = |index: u64| {
        let bundle = bundle_at(index / TILE_WIDTH, head.size).unwrap();
        let leaves = Prover::new(&bench.files, head).leaves(&bundle).unwrap();
        leaves[usize::try_from(index % TILE_WIDTH).unwrap()].hash()
    };
    let leaves: Vec<_> = made.iter().map(|proof| leaf_of(proof.index)).collect();
    let started = Instant::now();
    for (proof, leaf) in made.iter().zip(&leaves) {
        proof.verify(leaf, &head).unwrap();
    }
    line("verifying one", each(started), "µs");
    let started = Instant::now();
    let old = head.size / 2;
    Prover::new(&bench.files, head).consistency(old).unwrap();
    line(
        "making a proof of consistency",
        started.elapsed().as_secs_f64() * 1e6,
        "µs",
    );
}

fn monitor(leaves: u64) {
    let label = |kind: u8, n: u64| {
        let mut hash = blake3::Hasher::new();
        hash.update(&[kind]).update(&n.to_be_bytes());
        Label::from_bytes(*hash.finalize().as_bytes())
    };
    let stated: Vec<Stated> = (0..64)
        .map(|n| Stated {
            kind: 4,
            label: label(4, n),
            commitment: StatementId::from_bytes([1; 32]),
            acknowledged: None,
        })
        .collect();
    let known = Known {
        stated: &stated,
        kinds: &[1, 2, 3, 4, 5],
        label: &label,
    };
    let all: Vec<Leaf> = (0..leaves)
        .map(|n| Leaf::decode(&entry(n)).unwrap())
        .collect();
    let started = Instant::now();
    let mut watch = Watch::new(WatchState::default(), &known, leaves).unwrap();
    for (index, leaf) in (0..).zip(&all) {
        watch.feed(index, leaf).unwrap();
    }
    let took = started.elapsed();
    line(
        "a device's monitor over 1 million leaves",
        took.as_secs_f64() * 1e9 / leaves as f64,
        "ms",
    );
}

fn state_map() {
    let key = |number: u64| MapKey(*blake3::hash(&number.to_be_bytes()).as_bytes());
    let all: Vec<_> = (0..ACCOUNTS).map(|n| (key(n), MapValue([1; 32]))).collect();
    let started = Instant::now();
    let mut map = StateMap::new().with(&all);
    line(
        "state map of 100,000 accounts, from nothing",
        started.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    let rounds = 20;
    let started = Instant::now();
    for round in 0..rounds {
        let changes: Vec<_> = (0..CHANGES)
            .map(|n| {
                (
                    key((n * 97 + round) % ACCOUNTS),
                    MapValue([u8::try_from(round + 2).unwrap(); 32]),
                )
            })
            .collect();
        map = map.with(&changes);
    }
    let took = started.elapsed().as_secs_f64() * 1e3 / rounds as f64;
    line("1,000 changes in it", took, "ms");
    let started = Instant::now();
    for number in 0..PROOFS {
        let proof = map.prove(&key(number));
        assert!(proof.verify(&map.root(), &key(number)).unwrap().is_some());
    }
    line(
        "making and verifying a proof of it",
        started.elapsed().as_secs_f64() * 1e6 / PROOFS as f64,
        "µs",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the measurements of `cargo xtask bench log`"]
async fn measures_the_log() {
    #[expect(
        clippy::disallowed_methods,
        reason = "xtask says how long and where to measure"
    )]
    let (entries, place) = (
        std::env::var("CANDOR_LOG_ENTRIES")
            .ok()
            .and_then(|text| text.parse().ok()),
        std::env::var("CANDOR_BENCH_DIR").ok(),
    );
    let entries: usize = entries.unwrap_or(SHORT_ENTRIES);
    for batch in [64, 256] {
        let bench = bench(place.as_deref());
        let took = grow(&bench, entries, batch).await;
        let rate = entries as f64 / took.as_secs_f64();
        line(
            &format!("appending in batches of {batch}, each durable"),
            rate,
            "entries/s",
        );
        if batch == 256 {
            proofs(&bench);
        }
    }
    monitor(entries as u64);
    state_map();
}
