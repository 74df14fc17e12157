//! Measurements, to be run in release: `cargo test -p candor-log --release -- --ignored --nocapture`.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the crate has no clock and does no I/O; its measurements need both"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use candor_log::leaf::Leaf;
use candor_log::monitor::*;
use candor_log::report::Counts;
use candor_log::state_map::*;
use candor_wire::ids::Label;
use candor_wire::time::Millis;
use sha2::{Digest as _, Sha256};

use crate::state_map::{Change, key, value};

const ACCOUNTS: u32 = 100_000;
const CHANGES: u32 = 1_000;
const LEAVES: u64 = 1_000_000;

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = black_box(run());
    let took = start.elapsed();
    println!("{what}: {:.3} ms", took.as_secs_f64() * 1000.0);
    (done, took)
}

/// Memory that this process has in use, in bytes (Linux).
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4096
}

fn per(bytes: u64, count: u32) -> u64 {
    bytes / u64::from(count)
}

#[test]
#[ignore = "a measurement, which no suite decides by: see above how to run it"]
fn the_state_map_of_a_large_cell() {
    let accounts: Vec<Change> = (0..ACCOUNTS).map(|n| (key(n), value(n))).collect();
    let before = resident_bytes();
    let (map, _) = timed("100,000 accounts, from nothing", || {
        StateMap::new().with(&accounts)
    });
    let grown = resident_bytes().saturating_sub(before);
    println!("memory: {} bytes for each account", per(grown, ACCOUNTS));
    let mut versions = vec![map];
    let before = resident_bytes();
    let mut times = Vec::new();
    for round in 0..11 {
        let changed = (0..CHANGES).map(|n| (key((n * 97 + round) % ACCOUNTS), value(n + round)));
        let changes: Vec<Change> = changed.collect();
        let newest = versions.last().unwrap();
        let (next, took) = timed("1,000 changes", || {
            let next = newest.with(&changes);
            black_box(next.root());
            next
        });
        versions.push(next);
        times.push(took);
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("memory: {} bytes for each change", per(grown, 11 * CHANGES));
    let map = versions.last().unwrap();
    let root = map.root();
    let (proofs, _) = timed("1,000 proofs", || {
        (0..CHANGES).map(|n| map.prove(&key(n))).collect::<Vec<_>>()
    });
    let bytes: usize = proofs.iter().map(|proof| proof.to_bytes().len()).sum();
    println!("a proof has {} bytes on average", bytes / proofs.len());
    timed("1,000 checks of proofs", || {
        (0..CHANGES).zip(&proofs).for_each(|(n, proof)| {
            assert!(proof.verify(&root, &key(n)).unwrap().is_some());
        });
    });
    times.sort();
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(20), "{median:?}");
}

#[test]
#[ignore = "a measurement, which no suite decides by: see above how to run it"]
fn a_watch_over_a_million_leaves() {
    let leaf = |n: u64| {
        let half = |tag: u8| Sha256::digest([&[tag][..], &n.to_be_bytes()].concat());
        let mut random = [0; 64];
        random[..32].copy_from_slice(&half(0));
        random[32..].copy_from_slice(&half(1));
        Leaf::padding(&random)
    };
    let leaves: Vec<Leaf> = (0..LEAVES).map(leaf).collect();
    let label = |kind: u8, n: u64| {
        Label::from_bytes(Sha256::digest([&[kind][..], &n.to_be_bytes()].concat()).into())
    };
    let mut counts = HashMap::new();
    let stated: Vec<Stated> = (0..1_000)
        .map(|n: u64| {
            let kind = if n.is_multiple_of(3) { 4 } else { 5 };
            let number = counts.entry(kind).or_insert(0);
            *number += 1;
            Stated {
                kind,
                label: label(kind, *number - 1),
                commitment: candor_wire::StatementId::from_bytes([1; 32]),
                acknowledged: None,
            }
        })
        .collect();
    let known = Known {
        stated: &stated,
        kinds: &[1, 2, 3, 4, 5],
        label: &label,
    };
    let mut watch = Watch::new(WatchState::new(), &known, LEAVES).unwrap();
    let ((), took) = timed("1,000,000 leaves, watched for 1,000 statements", || {
        for (index, leaf) in (0..).zip(&leaves) {
            watch.feed(index, leaf).unwrap();
        }
    });
    assert_eq!(watch.findings(Millis(0), 0), Ok(Vec::new()));
    let (counts, _) = timed("1,000,000 leaves, counted for the report", || {
        let mut counts = Counts::new();
        leaves.iter().for_each(|leaf| counts.add(leaf));
        counts
    });
    assert_eq!(counts.size(), LEAVES);
    assert!(took < Duration::from_millis(500), "{took:?}");
}
