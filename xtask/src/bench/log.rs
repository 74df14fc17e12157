//! `cargo xtask bench log`: what the transparency log costs.
//!
//! The log's parts are no commands, so a test of the server, built for release, takes the measurements and prints
//! them; this runs it and makes the table.

use std::path::PathBuf;

use serde_json::json;

use crate::sys::{self, Doing, Failure, Outcome};

/// The test that measures.
const MEASURES: &str = "tests::log_bench::measures_the_log";

/// How many lines it prints; fewer mean that it did not get to its end.
const MEASUREMENTS: usize = 9;

/// What is measured, and where.
#[derive(clap::Args)]
pub(crate) struct LogOptions {
    /// How many entries, once in batches of 64 and once in batches of 256.
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Where the log is put: a directory on the disk that shall be measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Also write every measurement as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// One line of a test that measures.
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: String,
}

/// Measures a release build, and prints the table.
pub(crate) fn run(options: &LogOptions) -> Outcome {
    let directory = match &options.dir {
        Some(directory) => std::path::absolute(directory)?,
        None => sys::target_dir().join("bench"),
    };
    std::fs::create_dir_all(&directory)?;
    let mut command = sys::cargo();
    command
        .args([
            "test",
            "--release",
            "--locked",
            "--quiet",
            "-p",
            "candor-server",
            "--lib",
            "--",
        ])
        .args(["--exact", MEASURES, "--ignored", "--nocapture"])
        .env("CANDOR_LOG_ENTRIES", options.entries.to_string())
        .env("CANDOR_BENCH_DIR", &directory);
    let measured = table(&sys::text(&mut command)?)?;
    if let Some(file) = &options.out {
        let lines: Vec<_> = measured
            .iter()
            .map(|one| json!({ "name": one.name, "value": one.value, "unit": one.unit }))
            .collect();
        let text = json!({ "version": 1, "entries": options.entries, "measurements": lines });
        std::fs::write(file, format!("{text:#}\n")).doing(file.display())?;
    }
    Ok(())
}

/// The short form of the suite, in the build that the tests have: it shows that everything runs. Its figures mean
/// little.
pub(crate) fn run_short() -> Outcome {
    let mut command = sys::cargo();
    // Like the step that runs all tests: with other packages the same code would be built anew.
    command
        .args(["nextest", "run", "--workspace", "--locked", "--no-capture"])
        .args(["--run-ignored", "only", "-E"])
        .arg(format!("package(candor-server) & test(={MEASURES})"));
    table(&sys::text(&mut command)?).map(drop)
}

fn table(printed: &str) -> Outcome<Vec<Measured>> {
    let measured: Vec<Measured> = printed.lines().filter_map(measurement).collect();
    for one in &measured {
        println!("{:<48} {:>14.1} {}", one.name, one.value, one.unit);
    }
    if measured.len() == MEASUREMENTS {
        return Ok(measured);
    }
    Err(Failure::new(format!(
        "{} measurements instead of {MEASUREMENTS}",
        measured.len()
    )))
}

pub(super) fn measurement(line: &str) -> Option<Measured> {
    // The test runner may have written its own words before.
    let (_, rest) = line.split_once("measured\t")?;
    let mut fields = rest.split('\t');
    Some(Measured {
        name: fields.next()?.to_owned(),
        value: fields.next()?.parse().ok()?,
        unit: fields.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_runner_are_passed_over() {
        let text = "running 1 test\nmeasured\tone\t2.5\tms\ntest x ... measured\ttwo\t3\tµs\nok\n";
        let names: Vec<String> = text
            .lines()
            .filter_map(measurement)
            .map(|one| one.name)
            .collect();
        assert_eq!(names, ["one", "two"]);
        assert!(table(text).is_err());
    }
}
