//! What lengths tell the cell (row A30): the attacks of two papers of 2025 on content-defined chunking, on the sizes
//! that a cell really sees. "Chunking Attacks on File Backup Services using Content-Defined Chunking" (Alexeev,
//! Percival, Zhang) and "Breaking and Fixing Content-Defined Chunking" (Truong, Merz, Scarlata, Günther, Paterson)
//! both begin with the lengths of chunks: to find a known file among backups, and to recover the secret parameters
//! of a cutter. Here the cutter has no secret, and chunks have no lengths that anybody sees.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use crate::backup::tests::World;
use crate::chunk::first_cut;
use crate::seal::is_object_size;
use crate::tests::noise;

/// How many backups with the known file, and how many without.
const TRIALS: u64 = 6;

/// The file that the attacker knows, in bytes.
const KNOWN_BYTES: usize = 12_000_000;

/// Lengths of the chunks of a file: what a cell sees where chunks are stored one by one.
fn lengths_of_chunks(mut content: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !content.is_empty() {
        let (chunk, rest) = content.split_at(first_cut(content));
        lengths.push(chunk.len());
        content = rest;
    }
    lengths
}

/// What the cell sees of one backup: the sizes of all objects.
fn sizes_seen(files: &[Vec<u8>]) -> Vec<usize> {
    let mut world = World::new();
    for (n, content) in files.iter().enumerate() {
        world.write(&format!("{n}"), content);
    }
    world.back_up();
    let mut sizes: Vec<usize> = world
        .cell
        .puts
        .lock()
        .unwrap()
        .iter()
        .map(|put| put.1)
        .collect();
    sizes.sort_unstable();
    sizes
}

/// The papers' fingerprint: how many of the known file's chunk lengths are among the lengths seen, whatever
/// constant is added to each.
fn score(known: &[usize], seen: &[usize]) -> usize {
    let seen: BTreeSet<usize> = seen.iter().copied().collect();
    let overheads = seen.iter().flat_map(|one| {
        let fits = known.iter().filter_map(|length| one.checked_sub(*length));
        fits.filter(|overhead| *overhead < 4096)
    });
    let overheads: BTreeSet<usize> = overheads.collect();
    let found = |overhead: &usize| {
        let there = known
            .iter()
            .filter(|length| seen.contains(&(**length + overhead)));
        there.count()
    };
    overheads.iter().map(found).max().unwrap_or(0)
}

/// The chance that a backup with the file scores higher than one without; ties count half.
fn area_under_curve(with: &[usize], without: &[usize]) -> f64 {
    let mut sum = 0.0;
    for a in with {
        for b in without {
            sum += match a.cmp(b) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    sum / (with.len() * without.len()) as f64
}

#[test]
fn a30_a_known_file_is_not_recognised_by_lengths() {
    let known = noise(1, KNOWN_BYTES);
    let print = lengths_of_chunks(&known);
    assert!(print.len() > 6);
    let (mut seen, mut one_by_one) = ([vec![], vec![]], [vec![], vec![]]);
    for trial in 0..TRIALS {
        for (with, content) in [known.clone(), noise(100 + trial, KNOWN_BYTES)]
            .into_iter()
            .enumerate()
        {
            let other = noise(200 + trial, 9_000_000);
            let chunks = [lengths_of_chunks(&content), lengths_of_chunks(&other)].concat();
            one_by_one[with].push(score(&print, &chunks));
            seen[with].push(score(&print, &sizes_seen(&[content, other])));
        }
    }
    // The attack works where chunks are stored one by one …
    assert!(area_under_curve(&one_by_one[0], &one_by_one[1]) > 0.99);
    // … and is a coin here.
    let here = area_under_curve(&seen[0], &seen[1]);
    println!("area under the curve: 1.00 for chunks one by one, {here:.2} here");
    assert!((here - 0.5).abs() < 0.01, "{here}");
}

/// The other attack needs to see how a file of its own choosing was cut. Files that are cut at other places, as
/// often and as seldom as can be, look the same.
#[test]
fn a30_how_a_chosen_file_was_cut_does_not_show() {
    // Without any content to cut at, chunks have their greatest length.
    let never = vec![0_u8; 8_000_000];
    let often: Vec<u8> = (0..)
        .flat_map(|n| noise(n, 300_000))
        .take(8_000_000)
        .collect();
    assert_ne!(lengths_of_chunks(&never), lengths_of_chunks(&often));
    let seen: BTreeSet<Vec<usize>> = (0..3)
        .map(|n| sizes_seen(&[noise(300 + n, 8_000_000)]))
        .chain([sizes_seen(&[often])])
        .collect();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

/// What a short pack tells is its bucket, and buckets are powers of two.
#[test]
fn a30_a_short_pack_tells_its_bucket_and_no_more() {
    let mut buckets = BTreeSet::new();
    for length in (1..40).map(|n| n * 199_999) {
        let sizes = sizes_seen(&[noise(length as u64, length)]);
        assert!(sizes.iter().all(|size| is_object_size(*size as u64)));
        assert!(sizes.iter().all(|size| size.is_power_of_two()));
        buckets.insert(sizes);
    }
    println!(
        "39 lengths from 0.2 to 7.8 MB are seen as {} different ones",
        buckets.len()
    );
    assert!(buckets.len() <= 7, "{buckets:?}");
}

/// Row A33. Small files of a folder are compressed together, so a guess beside a secret is shorter if it is right. The
/// cell sees that only where the two lengths lie on both sides of a power of two.
#[test]
fn a33_a_guess_beside_a_secret_shows_in_no_size() {
    const FOLDERS: u64 = 60;
    let (mut shorter, mut shown) = (0, 0);
    for folder in 0..FOLDERS {
        let digits = |seed: u64| candor_wire::ids::to_hex(&noise(seed, 24));
        let secret = format!("the password of the bank is {}\n", digits(1_000 + folder));
        let wrong = format!("the password of the bank is {}\n", digits(2_000 + folder));
        let other = noise(folder, 20_000 + 7_919 * folder as usize);
        let lengths = [&secret, &wrong].map(|guess| {
            let mut out = Vec::new();
            let plain = [secret.as_bytes(), guess.as_bytes()].concat();
            crate::frame::Compressor::new().compress(&plain, &mut out);
            out.len()
        });
        shorter += u64::from(lengths[0] < lengths[1]);
        let seen = [&secret, &wrong].map(|guess| {
            sizes_seen(&[
                secret.clone().into_bytes(),
                guess.clone().into_bytes(),
                other.clone(),
            ])
        });
        shown += u64::from(seen[0] != seen[1]);
    }
    println!(
        "of {FOLDERS} guesses the right one is shorter in {shorter}; seen by the cell: {shown}"
    );
    assert_eq!(shorter, FOLDERS, "the compressor would tell");
    assert_eq!(shown, 0);
}
