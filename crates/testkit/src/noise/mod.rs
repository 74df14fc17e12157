//! Noise for every decoder and verifier (row A37 of the threat model): what has to hold, whatever the bytes.
//!
//! A [`Target`] takes any bytes. Some are given to a decoder as they are, behind a first byte that selects which;
//! others are read as decisions ([`choices`]), by which something is made that gets past signatures, seals and
//! checksums. What a target asserts is never only that nothing panics: what decodes is spelled the same again,
//! two ways to read the same bytes agree, and nothing verifies that nobody signed.
//!
//! The same functions are run by a fuzzer (`fuzz/`), which looks for new ways through them, and by a test, with
//! vectors and mutations from fixed seeds ([`mutate`]). What is not public is treated likewise by a module
//! `fuzzing` of its own crate.

pub mod chain;
pub mod choices;
pub mod device;
pub mod known;
pub mod mutate;
pub mod notes;
pub mod receipts;
pub mod records;
pub mod sealed;
pub mod seeds;
pub mod signed;
pub mod trees;
pub mod wire;

use self::mutate::{Random, mutated};

/// What is done with noise.
pub type Noise = fn(&[u8]);

/// Longest plain noise that [`feed`] makes, in bytes.
const PLAIN_MAX_BYTES: usize = 600;

/// Gives seeds to a target as they are, then so many mutations of them, and a tenth as much plain noise: the same
/// each time.
pub fn feed(check: Noise, seeds: &[Vec<u8>], rounds: usize) {
    assert!(!seeds.is_empty(), "there are no seeds");
    seeds.iter().for_each(|seed| check(seed));
    let mut random = Random::new(37);
    for _ in 0..rounds {
        let seed = &seeds[random.below(seeds.len())];
        let other = &seeds[random.below(seeds.len())];
        check(&mutated(seed, other, &mut random));
    }
    for _ in 0..=rounds / 10 {
        let length = random.below(PLAIN_MAX_BYTES);
        let noise: Vec<u8> = (0..length).map(|_| random.number() as u8).collect();
        check(&noise);
    }
}

/// Something that takes noise.
pub struct Target {
    /// As the fuzzer's program is called.
    pub name: &'static str,
    /// What has to hold.
    pub check: Noise,
    /// Where to begin.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target whose decoders are public.
pub const TARGETS: &[Target] = &[
    Target {
        name: "wire",
        check: wire::types,
        seeds: wire::type_seeds,
    },
    Target {
        name: "text",
        check: wire::texts,
        seeds: wire::text_seeds,
    },
    Target {
        name: "requests",
        check: signed::requests,
        seeds: signed::request_seeds,
    },
    Target {
        name: "signatures",
        check: signed::signatures,
        seeds: signed::signature_seeds,
    },
    Target {
        name: "chain",
        check: chain::chains,
        seeds: chain::chain_seeds,
    },
    Target {
        name: "log_notes",
        check: notes::notes,
        seeds: notes::note_seeds,
    },
    Target {
        name: "log_proofs",
        check: trees::proofs,
        seeds: trees::proof_seeds,
    },
    Target {
        name: "state_map",
        check: trees::state_map,
        seeds: trees::state_map_seeds,
    },
    Target {
        name: "monitor",
        check: trees::watches,
        seeds: trees::watch_seeds,
    },
    Target {
        name: "receipt",
        check: receipts::receipts,
        seeds: receipts::receipt_seeds,
    },
    Target {
        name: "seal",
        check: sealed::seals,
        seeds: sealed::seal_seeds,
    },
    Target {
        name: "pack",
        check: sealed::packs,
        seeds: sealed::pack_seeds,
    },
    Target {
        name: "index_object",
        check: sealed::index_objects,
        seeds: sealed::index_object_seeds,
    },
    Target {
        name: "manifest",
        check: sealed::manifests,
        seeds: sealed::manifest_seeds,
    },
    Target {
        name: "tree",
        check: records::trees,
        seeds: records::tree_seeds,
    },
    Target {
        name: "restore_names",
        check: records::names,
        seeds: records::name_seeds,
    },
];
