//! `cargo xtask mutants`: changes the code that people's rights hang on, one place at a time, and demands that a test notices.
//!
//! The work is cargo-mutants'. What is changed, and by which tests it has to be noticed, is here; changes that mean
//! nothing are left out by `.cargo/mutants.toml`, each with the reason.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::sys::{self, Doing, Failure, Outcome};
use crate::tools;

/// A part of the code, and the tests that have to notice.
struct Area {
    name: &'static str,
    package: &'static str,
    /// All of the package if there is none.
    files: &'static [&'static str],
    /// What `cargo test` is told beside the package.
    tests: &'static [&'static str],
}

const AREAS: [Area; 4] = [
    Area {
        name: "consent",
        package: "candor-consent",
        files: &[],
        // It builds programs that must not build, for a minute, and says nothing of what the code does.
        tests: &["--", "--skip", "authorities_cannot_be_forged"],
    },
    Area {
        name: "sealing",
        package: "candor-vault",
        files: &["crates/vault/src/seal.rs", "crates/vault/src/keys.rs"],
        tests: &[
            "--lib",
            "--",
            "tests::sealing",
            "tests::packing",
            "tests::vectors",
        ],
    },
    Area {
        name: "small-sealing",
        package: "candor-client",
        files: &["crates/client/src/seal_small.rs"],
        tests: &["--lib", "--", "seal_small", "keystore", "ledger"],
    },
    Area {
        name: "wire",
        package: "candor-wire",
        files: &[],
        tests: &["--tests"],
    },
];

/// What to change.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these parts: consent, sealing, small-sealing, wire.
    #[arg(value_name = "PART")]
    parts: Vec<String>,
    /// How many changes are tried at once, each in a copy of the sources.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Only a part of the changes: `0/4` is the first of four.
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Only what no test noticed the last time.
    #[arg(long, conflicts_with = "shard")]
    again: bool,
}

/// Tries every change, and fails if one of them is not noticed.
pub(crate) fn run(options: &Options) -> Outcome {
    let is_known = |part: &&String| AREAS.iter().any(|area| area.name == **part);
    if let Some(unknown) = options.parts.iter().find(|part| !is_known(part)) {
        let names = AREAS.map(|area| area.name).join(", ");
        return Err(Failure::new(format!("{unknown} is none of {names}")));
    }
    tools::install_mutants()?;
    let is_chosen = |area: &&Area| {
        options.parts.is_empty() || options.parts.iter().any(|part| part == area.name)
    };
    let mut findings = Vec::new();
    let output = output();
    fs::create_dir_all(&output).doing(output.display())?;
    for area in AREAS.iter().filter(is_chosen) {
        if let Err(failure) = sys::run(&mut command(area, options)) {
            findings.extend(not_noticed(area, &failure)?);
        }
    }
    sys::no_findings("changes that no test noticed", &findings)
}

/// What stands against an area whose run did not end well. One that only had endless loops did: each was noticed by the
/// time that a test took.
fn not_noticed(area: &Area, failure: &Failure) -> Outcome<Option<String>> {
    let list = |name: &str| {
        let path = output().join(area.name).join("mutants.out").join(name);
        fs::read_to_string(&path).doing(path.display())
    };
    let (missed, timed_out) = (list("missed.txt")?, list("timeout.txt")?);
    if missed.is_empty() && !timed_out.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!("{}: {failure}\n{missed}", area.name)))
}

/// Where what was tried is written down.
fn output() -> PathBuf {
    sys::target_dir().join("mutants-tried")
}

fn command(area: &Area, options: &Options) -> Command {
    let mut command = sys::cargo();
    command
        .args([
            "mutants",
            "--no-shuffle",
            "--colors=never",
            "--profile=mutants",
        ])
        .args(["--package", area.package])
        .args(["--jobs", &options.jobs.to_string()])
        .arg("--output")
        .arg(output().join(area.name));
    for file in area.files {
        command.args(["--file", file]);
    }
    if options.again {
        command.arg("--iterate");
    }
    if let Some(shard) = &options.shard {
        command.args(["--shard", shard]);
    }
    if !area.tests.is_empty() {
        command.arg("--").args(area.tests);
    }
    command
}
