//! `cargo xtask simulate`: what happens to honest people, many times over, from seeds.
//!
//! The simulations are tests of the crates that they drive; they are built for release here, and play for
//! longer than a suite may.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::sys::{self, Doing, Failure, Outcome};

/// The test that plays histories of cells, devices and witnesses.
const HISTORIES: &str = "histories::honest_histories_raise_no_alarm";

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
    Log(LogOptions),
}

/// How many histories, and which.
#[derive(clap::Args)]
struct LogOptions {
    /// How many.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    histories: u64,
    /// Seed of the first one; the others follow it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs one.
pub(crate) fn run(options: &Options) -> Outcome {
    match &options.what {
        Simulation::Log(options) => log(options),
    }
}

fn log(options: &LogOptions) -> Outcome {
    let mut command = sys::cargo();
    let build = ["test", "--release", "--locked", "--quiet"];
    let which = ["-p", "candor-client", "--test", "engine", "--"];
    command
        .args(build)
        .args(which)
        .args(["--exact", HISTORIES, "--ignored", "--nocapture"])
        .env("CANDOR_HISTORIES", options.histories.to_string())
        .env("CANDOR_HISTORY_FIRST", options.seed.to_string())
        .env_remove("CANDOR_HISTORY_SEED")
        .stdout(Stdio::piped());
    println!("$ {}", sys::shown(&command));
    let mut child = command.spawn().doing("starting the simulation")?;
    let mut played = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            played = outcome(&line).or(played);
            println!("{line}");
        }
    }
    let status = child.wait()?;
    match played {
        Some((histories, 0)) if status.success() && histories == options.histories => {
            println!("{histories} histories, 0 alarms");
            Ok(())
        }
        Some((histories, failed)) => Err(Failure::new(format!(
            "{failed} of {histories} histories failed"
        ))),
        None => Err(Failure::new(format!("the simulation ended with {status}"))),
    }
}

/// Histories that were played, and those that failed, if this is the line that says so. The test runner may
/// have written its own words before.
fn outcome(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once("simulated\t")?;
    let (histories, failed) = rest.split_once('\t')?;
    Some((histories.parse().ok()?, failed.parse().ok()?))
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
