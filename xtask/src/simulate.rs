//! `cargo xtask simulate`: what happens to honest people, many times over, from seeds.
//!
//! The simulations are tests of the crates that they drive; they are built for release here, and play for
//! longer than a suite may.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::sys::{self, Doing, Failure, Outcome};

/// A test that plays from seeds, in which crate, and the variables that tell it how many and which.
struct Played {
    package: &'static str,
    /// What `cargo test` calls its program.
    target: &'static [&'static str],
    test: &'static str,
    count: &'static str,
    first: &'static str,
    /// What is played.
    what: &'static str,
}

const LOG: Played = Played {
    package: "candor-client",
    target: &["--test", "engine"],
    test: "histories::honest_histories_raise_no_alarm",
    count: "CANDOR_HISTORIES",
    first: "CANDOR_HISTORY_FIRST",
    what: "histories",
};

const PRUNE: Played = Played {
    package: "candor-vault",
    target: &["--lib"],
    test: "prune::tests::a_thousand_schedules_lose_nothing",
    count: "CANDOR_SCHEDULES",
    first: "CANDOR_SCHEDULE_FIRST",
    what: "schedules",
};

const SYNC: Played = Played {
    package: "candor-vault",
    target: &["--lib"],
    test: "sync::tests::simulation::many_histories_converge_and_lose_nothing",
    count: "CANDOR_SYNC_HISTORIES",
    first: "CANDOR_SYNC_FIRST",
    what: "histories",
};

const VAULT: Played = Played {
    package: "candor-vault",
    target: &["--lib"],
    test: "tests::simulation::many_histories_of_a_vault",
    count: "CANDOR_VAULT_HISTORIES",
    first: "CANDOR_VAULT_FIRST",
    what: "histories",
};

/// Which simulation.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: Simulation,
}

#[derive(clap::Subcommand)]
enum Simulation {
    /// Honest histories of cells with transparency logs, and of their devices and witnesses: none may
    /// raise an alarm.
    Log(Seeds),
    /// Schedules of two devices that back up, forget and prune at once, while the cell deletes what is
    /// condemned at any moment: nothing that a snapshot needs may be lost.
    Prune(Seeds),
    /// Histories of several devices that keep a folder in step, with crashes, races, lost records and a cell that is
    /// put back: all folders end the same, and nothing that was saved is lost.
    Sync(Seeds),
    /// Histories of two devices, their cell and the way between them, with stops at any step, cut power, lost and
    /// doubled replies, and a cell that is put back: nothing acknowledged is lost, and no false alarm is raised.
    Vault(ManySeeds),
}

/// How many, and which, where one takes little time.
#[derive(clap::Args)]
struct ManySeeds {
    /// How many.
    #[arg(long, visible_alias = "histories", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Seed of the first one; the others follow it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How many, and which.
#[derive(clap::Args)]
struct Seeds {
    /// How many.
    #[arg(long, visible_alias = "histories", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Seed of the first one; the others follow it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs one.
pub(crate) fn run(options: &Options) -> Outcome {
    match &options.what {
        Simulation::Log(seeds) => play(&LOG, seeds),
        Simulation::Prune(seeds) => play(&PRUNE, seeds),
        Simulation::Sync(seeds) => play(&SYNC, seeds),
        Simulation::Vault(many) => {
            let (count, seed) = (many.count, many.seed);
            play(&VAULT, &Seeds { count, seed })
        }
    }
}

fn play(played: &Played, seeds: &Seeds) -> Outcome {
    let mut command = sys::cargo();
    command
        .args([
            "test",
            "--release",
            "--locked",
            "--quiet",
            "-p",
            played.package,
        ])
        .args(played.target)
        .args(["--", "--exact", played.test, "--ignored", "--nocapture"])
        .env(played.count, seeds.count.to_string())
        .env(played.first, seeds.seed.to_string())
        .env_remove("CANDOR_HISTORY_SEED")
        .stdout(Stdio::piped());
    println!("$ {}", sys::shown(&command));
    let mut child = command.spawn().doing("starting the simulation")?;
    let mut outcome_found = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            outcome_found = outcome(&line).or(outcome_found);
            println!("{line}");
        }
    }
    let status = child.wait()?;
    let what = played.what;
    match outcome_found {
        Some((count, 0)) if status.success() && count == seeds.count => {
            println!("{count} {what}, 0 failed");
            Ok(())
        }
        Some((count, failed)) => Err(Failure::new(format!("{failed} of {count} {what} failed"))),
        None => Err(Failure::new(format!("the simulation ended with {status}"))),
    }
}

/// How many were played, and how many failed, if this is the line that says so. The test runner may
/// have written its own words before.
fn outcome(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once("simulated\t")?;
    let (count, failed) = rest.split_once('\t')?;
    Some((count.parse().ok()?, failed.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_found_behind_the_runners_words() {
        assert_eq!(outcome("test x ... simulated\t12\t0"), Some((12, 0)));
        assert_eq!(outcome("test x ... ok"), None);
        assert_eq!(outcome("simulated\tmany\t0"), None);
    }
}
