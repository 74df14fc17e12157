//! Row A37 without a fuzzer: every public decoder and verifier takes the vectors, thousands of mutations of them
//! and plain noise, always the same ones. What has to hold is in `candor_testkit::noise`; `cargo xtask fuzz` looks
//! for new ways through the same functions.
#![allow(clippy::unwrap_used, clippy::panic)]

use candor_testkit::noise::{self, TARGETS};

fn feed(name: &str, rounds: usize) {
    let found = TARGETS.iter().find(|target| target.name == name);
    let target = found.unwrap_or_else(|| panic!("there is no target {name}"));
    noise::feed(target.check, &(target.seeds)(), rounds);
}

#[test]
fn a37_every_canonical_type_takes_noise() {
    feed("wire", 200_000);
}

#[test]
fn a37_text_forms_take_noise() {
    feed("text", 100_000);
}

#[test]
fn a37_signature_headers_of_requests_take_noise() {
    feed("requests", 10_000);
}

#[test]
fn a37_nothing_signed_verifies_after_a_change() {
    feed("signatures", 2_000);
}

#[test]
fn a37_chains_of_any_statements_fold_or_are_refused() {
    feed("chain", 60);
}

#[test]
fn a37_texts_of_the_log_take_noise() {
    feed("log_notes", 40_000);
}

#[test]
fn a37_proofs_of_the_log_take_noise() {
    feed("log_proofs", 10_000);
}

#[test]
fn a37_the_state_map_takes_noise() {
    feed("state_map", 40_000);
}

#[test]
fn a37_what_a_watch_remembers_takes_noise() {
    feed("monitor", 2_000);
}

#[test]
fn a37_receipts_take_noise() {
    feed("receipt", 10_000);
}

#[test]
fn a37_sealed_objects_take_noise() {
    feed("seal", 2_000);
}

#[test]
fn a37_packs_take_noise() {
    feed("pack", 10_000);
}

#[test]
fn a37_index_objects_take_noise() {
    feed("index_object", 100_000);
}

#[test]
fn a37_manifests_take_noise() {
    feed("manifest", 100_000);
}

#[test]
fn a37_records_of_trees_take_noise() {
    feed("tree", 200_000);
}

#[test]
fn a37_no_name_leads_elsewhere() {
    feed("restore_names", 40_000);
}

/// Every target is fed by one of the tests above.
#[test]
fn every_target_has_a_test() {
    let text = include_str!("noise.rs");
    for target in TARGETS {
        let fed = format!("feed(\"{}\", ", target.name);
        assert!(text.contains(&fed), "{} is fed by no test", target.name);
    }
}
