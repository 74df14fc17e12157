//! The project's own commands: the whole test suite, its single checks, end-to-end scenarios and
//! benchmarks. People and CI run the same ones. Nothing depends on this crate, and it depends on no
//! crate of the product: it looks at them from outside, as a stranger would.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a developer's tool: it prints, reads the environment and looks for free ports"
)]

mod advisories;
mod bench;
mod docs;
mod e2e;
mod edges;
mod fuzz;
mod mutants;
mod simulate;
mod suite;
mod sys;
mod threats;
mod tidy;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development commands of Candor.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that CI runs, in order.
    Test(suite::Options),
    /// Check the crate graph: who may depend on whom, and what the operators' build links.
    Edges,
    /// Check lengths, leftovers and lint exceptions.
    Tidy,
    /// Check that documents cover every format and that their links lead somewhere.
    Docs,
    /// Check docs/threat-model.md against the tests named by its rows.
    Threats {
        /// Print every row with its state and its tests.
        #[arg(long)]
        list: bool,
    },
    /// Check Cargo.lock against a local copy of the RustSec advisory database.
    Advisories {
        /// The directory of the copy.
        #[arg(long)]
        db: PathBuf,
    },
    /// Run end-to-end scenarios against the built program.
    E2e(e2e::Options),
    /// Measure the program beside its peers.
    Bench(bench::Options),
    /// Give noise to every decoder and verifier, and look for new ways through them.
    Fuzz(fuzz::Options),
    /// Change code that people's rights hang on, one place at a time, and demand that a test notices.
    Mutants(mutants::Options),
    /// Play what happens to honest people, many times over, from seeds.
    Simulate(simulate::Options),
    /// Run one command and report what it used (for `bench`, which starts it in a process of its own).
    #[command(hide = true)]
    Measure(bench::MeasureOptions),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Task::Test(options) => suite::run(&options),
        Task::Edges => edges::check(),
        Task::Tidy => tidy::check(),
        Task::Docs => docs::check(),
        Task::Threats { list: true } => threats::list(),
        Task::Threats { list: false } => threats::check(),
        Task::Advisories { db } => advisories::check(&db),
        Task::E2e(options) => e2e::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Mutants(options) => mutants::run(&options),
        Task::Simulate(options) => simulate::run(&options),
        Task::Measure(options) => bench::measure(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("failed: {failure}");
            ExitCode::FAILURE
        }
    }
}
