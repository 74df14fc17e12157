//! End-to-end scenarios: the built program as a person and a stranger use it, on real files and sockets.
//!
//! A scenario is one function that gets a [`World`] of its own and returns why it failed. To add one, write it
//! in a module here and list it in [`SCENARIOS`]; the suite then runs it as a step of its own.

mod awkward;
mod canary;
mod capture;
mod compare;
mod consent;
mod elsewhere;
mod export;
mod full_disk;
mod kills;
mod log;
mod mount;
mod namespace;
mod pages;
mod python;
mod reader;
mod round_trip;
mod scan;
mod schemathesis;
mod verifier;
mod world;

use std::path::PathBuf;
use std::time::Instant;

use crate::sys::{self, Failure, Outcome};
use crate::tools;

pub(crate) use mount::{Mounted, can_mount};
pub(crate) use pages::Scripts;
use world::World;
pub(crate) use world::{UP_ONCE, free_port, terminate};

/// One scenario.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What it shows, for the list.
    shows: &'static str,
    run: fn(&World) -> Outcome,
}

/// Every scenario, in the order in which the suite runs them.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "no-consent-no-packets",
        shows: "without a grant nothing leaves, not even on loopback; with one, something does",
        run: consent::no_consent_no_packets,
    },
    Scenario {
        name: "tree-round-trip",
        shows: "a real tree comes back exactly, into a second home, from phrase and invitation alone",
        run: round_trip::real_tree,
    },
    Scenario {
        name: "awkward-tree",
        shows: "every awkward kind of file comes back exactly",
        run: round_trip::awkward_tree,
    },
    Scenario {
        name: "mounted",
        shows: "mounted snapshots are the same as their source, and nothing of them can be changed",
        run: mount::shows_what_was_backed_up,
    },
    Scenario {
        name: "second-reader",
        shows: "a program written from the documents alone restores everything with the phrase and the cell's directory",
        run: reader::restores_with_the_phrase_alone,
    },
    Scenario {
        name: "exported",
        shows: "an export is everything, as plain files that other programs read and check",
        run: export::is_read_without_candor,
    },
    Scenario {
        name: "canary",
        shows: "no known plaintext in a cell's files, logs, packets or memory",
        run: canary::no_plaintext_at_the_cell,
    },
    Scenario {
        name: "log-survives-kills",
        shows: "a cell killed at any moment: no two checkpoints of one size, nothing acknowledged is missing",
        run: log::survives_kills,
    },
    Scenario {
        name: "vault-survives-kills",
        shows: "device and cell killed while backing up, forgetting, pruning and restoring: nothing acknowledged is missing",
        run: kills::vault_survives_kills,
    },
    Scenario {
        name: "full-disk",
        shows: "a cell whose disk is full says so, gives back what it has, and goes on once there is room",
        run: full_disk::goes_on,
    },
    Scenario {
        name: "restored-cell",
        shows: "a cell put back to an older copy: nothing is signed, and everybody goes on once a person accepted",
        run: log::re_anchors,
    },
    Scenario {
        name: "log-verifies-elsewhere",
        shows: "witnesses, the whole log, receipts and the report, checked by programs that share no code with ours",
        run: elsewhere::verifies_elsewhere,
    },
    Scenario {
        name: "pages",
        shows: "every page and every action in a real browser, on the real program",
        run: pages::in_a_browser,
    },
    Scenario {
        name: "schemathesis",
        shows: "schemathesis finds nothing against a running cell, and gets past the gate at every endpoint",
        run: schemathesis::finds_nothing,
    },
];

/// Which scenarios to run, and with what.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Scenarios by name; all of them when none is named.
    names: Vec<String>,
    /// List the scenarios and stop.
    #[arg(long)]
    list: bool,
    /// Use the whole linux-source tree where a smaller real tree would do.
    #[arg(long)]
    full: bool,
    /// Use this tree instead.
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
    /// Test this program instead of building it.
    #[arg(long, value_name = "FILE")]
    candor: Option<PathBuf>,
    /// Keep the directories of the scenarios.
    #[arg(long)]
    keep: bool,
}

/// Runs the chosen scenarios, and goes on after one failed.
pub(crate) fn run(options: &Options) -> Outcome {
    if options.list {
        for scenario in SCENARIOS {
            println!("{:<24} {}", scenario.name, scenario.shows);
        }
        return Ok(());
    }
    if let Some(unknown) = options
        .names
        .iter()
        .find(|name| SCENARIOS.iter().all(|known| known.name != **name))
    {
        return Err(Failure::new(format!(
            "no scenario is called {unknown}; see `cargo xtask e2e --list`"
        )));
    }
    tools::install_programs(&tools::SUITE_PROGRAMS)?;
    let program = match &options.candor {
        Some(program) => program.clone(),
        None => build()?,
    };
    let settings = world::Settings {
        program: std::path::absolute(program)?,
        full: options.full,
        tree: options.tree.clone(),
        keep: options.keep,
    };
    let wanted = |scenario: &&Scenario| {
        options.names.is_empty() || options.names.iter().any(|name| name == scenario.name)
    };
    let mut failed = Vec::new();
    let mut passed = 0_usize;
    for scenario in SCENARIOS.iter().filter(wanted) {
        println!("--- {}: {}", scenario.name, scenario.shows);
        let started = Instant::now();
        match run_in_world(scenario, &settings) {
            Ok(()) => {
                passed += 1;
                println!(
                    "--- {}: passed in {:.1} s",
                    scenario.name,
                    started.elapsed().as_secs_f64()
                );
            }
            Err(failure) => {
                println!("--- {}: FAILED\n{failure}", scenario.name);
                failed.push(scenario.name.to_owned());
            }
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    sys::no_findings("scenarios failed", &failed)
}

/// Runs one scenario of the suite, with the release build that an earlier step made.
pub(crate) fn run_one(scenario: &Scenario) -> Outcome {
    let settings = world::Settings {
        program: build()?,
        full: false,
        tree: None,
        keep: false,
    };
    println!("{}", scenario.shows);
    run_in_world(scenario, &settings)
}

fn run_in_world(scenario: &Scenario, settings: &world::Settings) -> Outcome {
    let world = World::new(scenario.name, settings)?;
    let outcome = (scenario.run)(&world);
    world.finish(outcome)
}

/// Builds the release program (nothing to do where it is built) and says where it is.
pub(crate) fn build() -> Outcome<PathBuf> {
    sys::run(sys::cargo().args([
        "build",
        "--release",
        "--quiet",
        "--locked",
        "-p",
        "candor-app",
    ]))?;
    Ok(sys::target_dir().join("release").join("candor"))
}
