//! The whole suite: what CI runs, step by step.

use std::time::{Duration, Instant};

use crate::sys::{self, Failure, Outcome};
use crate::{bench, docs, e2e, edges, fuzz, threats, tidy, tools};

/// How to run the suite.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Go on after a step failed, and fail at the end.
    #[arg(long)]
    keep_going: bool,
    /// Run only the steps whose name contains this (several may be given).
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Leave out the steps whose name contains this (several may be given).
    #[arg(long, value_name = "WORD")]
    skip: Vec<String>,
}

struct Step {
    name: String,
    run: Box<dyn Fn() -> Outcome>,
}

fn step(name: impl Into<String>, run: impl Fn() -> Outcome + 'static) -> Step {
    Step {
        name: name.into(),
        run: Box::new(run),
    }
}

/// Every step, cheap ones first, so that a small mistake is told soon.
fn steps() -> Vec<Step> {
    let mut steps = vec![
        step("tools", tools::install_all),
        step("fmt", || {
            sys::run(sys::cargo().args(["fmt", "--all", "--check"]))
        }),
        step("edges", edges::check),
        step("tidy", tidy::check),
        step("threat table", threats::check),
        step("docs", docs::check),
        step("clippy", clippy),
        step("deny", deny),
        step("tests", || {
            let words = [
                "nextest",
                "run",
                "--workspace",
                "--locked",
                "--retries",
                "0",
                "--no-fail-fast",
            ];
            sys::run(sys::cargo().args(words))
        }),
        step("doc tests", || {
            sys::run(sys::cargo().args(["test", "--doc", "--workspace", "--locked"]))
        }),
        step("rustdoc", || {
            let words = ["doc", "--workspace", "--no-deps", "--locked", "--quiet"];
            sys::run(sys::cargo().args(words).env("RUSTDOCFLAGS", "-D warnings"))
        }),
        step("cell build", cell_build),
        step("release build", || {
            sys::run(sys::cargo().args(["build", "--release", "--locked", "-p", "candor-app"]))
        }),
        // Where secrets lie on the stack depends on the optimiser: row A51 is tried as people run it, too.
        step("secrets in memory, release", || {
            let words = ["nextest", "run", "--release", "--locked"];
            let which = ["-p", "candor-client", "-E", "test(/a51_/)"];
            sys::run(sys::cargo().args(words).args(which))
        }),
    ];
    for scenario in e2e::SCENARIOS {
        steps.push(step(format!("e2e {}", scenario.name), move || {
            e2e::run_one(scenario)
        }));
    }
    steps.push(step("fuzz, short", fuzz::run_short));
    steps.push(step("bench, short", bench::run_short));
    steps.push(step("bench of the log, short", bench::run_log_short));
    steps.push(step("bench of the cell, short", bench::run_cell_short));
    steps.push(step("bench of sync, short", bench::run_sync_short));
    steps.push(step("bench of the pages, short", bench::run_pages_short));
    steps
}

/// Licences, sources and banned crates of both workspaces.
fn deny() -> Outcome {
    let words = ["--all-features", "check", "bans", "licenses", "sources"];
    sys::run(sys::cargo().arg("deny").args(words))?;
    let fuzz = ["deny", "--manifest-path", "fuzz/Cargo.toml"];
    sys::run(sys::cargo().args(fuzz).args(words))
}

fn clippy() -> Outcome {
    let words = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    sys::run(sys::cargo().args(words))
}

/// The program that operators deploy builds by itself, without the code that decrypts.
fn cell_build() -> Outcome {
    sys::run(
        sys::cargo()
            .args(["check", "--locked", "-p", "candor-app"])
            .args(edges::CELL_FEATURES),
    )?;
    edges::check_cell_build()
}

/// Runs the steps and prints the summary.
///
/// The last line is `N passed, N failed`, and counts steps; the test runner prints its own count of tests.
pub(crate) fn run(options: &Options) -> Outcome {
    let chosen: Vec<Step> = steps()
        .into_iter()
        .filter(|step| options.wants(&step.name))
        .collect();
    let total = chosen.len();
    let mut done: Vec<(String, Duration, Outcome)> = Vec::new();
    for (position, step) in chosen.into_iter().enumerate() {
        println!("\n=== {}/{total} {}", position + 1, step.name);
        let started = Instant::now();
        let outcome = (step.run)();
        let took = started.elapsed();
        match &outcome {
            Ok(()) => println!("=== {}: passed in {:.1} s", step.name, took.as_secs_f64()),
            Err(failure) => println!(
                "=== {}: FAILED in {:.1} s\n{failure}",
                step.name,
                took.as_secs_f64()
            ),
        }
        let stop = outcome.is_err() && !options.keep_going;
        done.push((step.name, took, outcome));
        if stop {
            break;
        }
    }
    summarise(&done, total)
}

fn summarise(done: &[(String, Duration, Outcome)], total: usize) -> Outcome {
    println!("\n=== summary");
    for (name, took, outcome) in done {
        let word = if outcome.is_ok() { "passed" } else { "FAILED" };
        println!("{word}  {:>7.1} s  {name}", took.as_secs_f64());
    }
    if done.len() < total {
        println!("{} more steps were not run", total - done.len());
    }
    let passed = done
        .iter()
        .filter(|(_, _, outcome)| outcome.is_ok())
        .count();
    let failed = done.len() - passed;
    println!("{passed} passed, {failed} failed");
    if total == 0 {
        return Err(Failure::new("no step has such a name"));
    }
    if failed > 0 {
        return Err(Failure::new("the suite did not pass"));
    }
    Ok(())
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        let asked =
            self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()));
        asked && !self.skip.iter().any(|word| name.contains(word.as_str()))
    }
}
