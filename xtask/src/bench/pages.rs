//! `cargo xtask bench pages`: how long a person waits for each page and each action, with much to show beside little.

use std::path::PathBuf;

use super::{place, program};
use crate::e2e::Scripts;
use crate::sys::{self, Outcome};

/// What is measured, and where.
#[derive(clap::Args)]
pub(super) struct PagesOptions {
    /// Files in the large home's backup, and as many in its synced folder.
    #[arg(long, default_value_t = 1_000_000)]
    files: u64,
    /// Connections in its ledger.
    #[arg(long, default_value_t = 100_000)]
    lines: u64,
    /// How often each is measured; the table shows medians.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Measure this program instead of building it.
    #[arg(long, value_name = "FILE")]
    candor: Option<PathBuf>,
    /// Where homes are put: a directory with a short path.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Also write every measurement as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(options: &PagesOptions) -> Outcome {
    let program = program(options.candor.as_deref())?;
    let work = match &options.dir {
        Some(directory) => tempfile::tempdir_in(place(Some(directory))?)?,
        None => tempfile::tempdir()?,
    };
    let scripts = Scripts::prepare(&program, work.path().to_owned())?;
    let mut bench = scripts.node("bench.mjs");
    bench
        .env("CANDOR_BENCH_FILES", options.files.to_string())
        .env("CANDOR_BENCH_LINES", options.lines.to_string())
        .env("CANDOR_BENCH_ROUNDS", options.rounds.to_string());
    if let Some(out) = &options.out {
        bench.env("CANDOR_BENCH_OUT", std::path::absolute(out)?);
    }
    sys::run(&mut bench)
}

/// The short form of the suite: a home that is hardly larger than the other, each once. It shows that everything that is
/// measured is there; its figures mean little.
pub(crate) fn run_short() -> Outcome {
    run(&PagesOptions {
        files: 300,
        lines: 200,
        rounds: 1,
        candor: None,
        dir: None,
        out: None,
    })
}
