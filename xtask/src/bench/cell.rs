//! `cargo xtask bench cell`: a hundred devices at once against one cell, a neighbour beside a flood, and the cell's
//! memory under hostile requests.
//!
//! The cell is the program as operators run it, in a process of its own over SQLite and the local disk. The devices
//! sign real requests and speak TLS, so a test of the server is their home; it gets invitations and nothing else, and
//! prints what it measured.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::contenders::{Server, candor, init_cell};
use super::log::{Measured, measurement};
use super::measure;
use crate::bench;
use crate::sys::{self, Doing, Failure, Outcome};

/// The test that measures.
const MEASURES: &str = "tests::cell_bench::measures_the_cell";

/// Accounts that the test opens beside the one with the small quota: twenty families, two that flood, a busy one, the
/// neighbour, one for hostile requests, and one that is served beside them.
const INVITATIONS: usize = 26;

/// Accounts with the small quota, whose invitations come first: one for each flood.
const SMALL_INVITATIONS: usize = 2;

/// Quota of the account that uploads more than it may, in bytes: room for a few of the smallest objects.
const SMALL_QUOTA_BYTES: u64 = 1024 * 1024;

/// How much longer a neighbour's slowest hundredth may take beside a flood than alone.
const NEIGHBOUR_MAX_TIMES: f64 = 1.20;

/// What floods beside the neighbour.
const FLOODS: [&str; 2] = ["the flood", "the busy account"];

/// How much more than beside the neighbour a flood has to get that has the cell to itself: else it is none.
const FLOOD_MIN_TIMES: f64 = 5.0;

/// What is measured, and where.
#[derive(clap::Args)]
pub(crate) struct CellOptions {
    /// Measure this program instead of building it.
    #[arg(long, value_name = "FILE")]
    candor: Option<PathBuf>,
    /// Where the cell is put: a directory on the disk that shall be measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Also write every measurement as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The form that the suite runs: seconds instead of minutes, and nothing is judged that a busy machine decides.
    #[arg(long)]
    short: bool,
    /// Measure only this part.
    #[arg(long, value_enum)]
    part: Option<Part>,
}

/// What can be measured alone.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Load,
    Neighbour,
    Memory,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Neighbour => "neighbour",
            Self::Memory => "memory",
        }
    }
}

/// Measures, prints the table, and fails where a flood reaches the neighbour.
pub(crate) fn run(options: &CellOptions) -> Outcome {
    let program = bench::program(options.candor.as_deref())?;
    let directory = bench::place(options.dir.as_deref())?;
    let measured = of_program(&program, &directory, options)?;
    if let Some(file) = &options.out {
        let lines: Vec<_> = measured
            .iter()
            .map(|one| json!({ "name": one.name, "value": one.value, "unit": one.unit }))
            .collect();
        let text = json!({ "version": 1, "measurements": lines });
        fs::write(file, format!("{text:#}\n")).doing(file.display())?;
    }
    if options.short {
        return Ok(());
    }
    let mut reached: Vec<String> = measured
        .iter()
        .filter(|one| one.name.contains("p99 ratio") && one.value > NEIGHBOUR_MAX_TIMES)
        .map(|one| format!("{}: {:.2}", one.name, one.value))
        .collect();
    if reached.is_empty() && !is_flood(&measured) {
        reached.push("what floods is no flood".into());
    }
    sys::no_findings("a flood reaches the neighbour", &reached)
}

/// Whether what floods gets much more when nobody else is there. Where no neighbour was watched, nothing has to be shown.
fn is_flood(measured: &[Measured]) -> bool {
    let rate = |name: &str| {
        let mut all = measured.iter();
        let found = all.find(|one| one.name == name && one.unit == "requests/s");
        found.map(|one| one.value)
    };
    FLOODS.iter().all(|name| {
        let alone = rate(&format!("{name}, alone"));
        let rates = alone.zip(rate(&format!("{name}, beside the neighbour")));
        rates.is_some_and(|(alone, beside)| alone >= FLOOD_MIN_TIMES * beside)
    }) || !measured.iter().any(|one| one.name.starts_with("neighbour"))
}

/// The short form of the suite, with the programs that the suite has built.
pub(crate) fn run_short() -> Outcome {
    run(&CellOptions {
        candor: None,
        dir: None,
        out: None,
        short: true,
        part: None,
    })
}

/// A cell of its own, and the invitations to it.
struct Cell {
    server: Server,
    invitations: PathBuf,
}

impl Cell {
    fn start(program: &Path, work: &Path) -> Outcome<Self> {
        let home = work.join("home");
        let cell = || candor(program, &home);
        init_cell(program, &home)?;
        let settings = home.join("cell").join("cell.toml");
        let ordinary = fs::read_to_string(&settings).doing("the cell's settings")?;
        fs::write(
            &settings,
            format!("quota_bytes = {SMALL_QUOTA_BYTES}\n{ordinary}"),
        )?;
        let mut texts = String::new();
        for _ in 0..SMALL_INVITATIONS {
            texts += &sys::text(cell().args(["server", "invite"]))?;
        }
        fs::write(&settings, ordinary)?;
        for _ in 0..INVITATIONS {
            texts += &sys::text(cell().args(["server", "invite"]))?;
        }
        let invitations = work.join("invitations");
        fs::write(&invitations, texts)?;
        let mut run = cell();
        run.args(["server", "run"]);
        let log = work.join("log");
        Ok(Self {
            server: Server::start(run, &log, "listening on ")?,
            invitations,
        })
    }
}

fn of_program(program: &Path, directory: &Path, options: &CellOptions) -> Outcome<Vec<Measured>> {
    let work = tempfile::Builder::new()
        .prefix("cell-")
        .tempdir_in(directory)?;
    let cell = Cell::start(program, work.path())?;
    let before = measure::server_usage(cell.server.id())?;
    let mut test = test_command(options.short);
    test.env("CANDOR_CELL_INVITATIONS", &cell.invitations)
        .env("CANDOR_CELL_PROCESS", cell.server.id().to_string())
        .env(
            "CANDOR_CELL_FORM",
            if options.short { "short" } else { "long" },
        )
        .env("CANDOR_CELL_PART", options.part.map_or("all", Part::name));
    let measured = run_test(&mut test)?;
    let used = measure::server_usage(cell.server.id())?.since(&before);
    println!("the cell used {used}");
    Ok(measured)
}

fn test_command(short: bool) -> Command {
    let mut command = sys::cargo();
    command.args(["test", "--locked", "--quiet"]);
    if !short {
        command.arg("--release");
    }
    command.args(["-p", "candor-server", "--lib", "--"]).args([
        "--exact",
        MEASURES,
        "--ignored",
        "--nocapture",
    ]);
    command
}

/// Runs the test, and prints each measurement as it comes.
fn run_test(command: &mut Command) -> Outcome<Vec<Measured>> {
    let shown = sys::shown(command);
    let mut child = command.stdout(Stdio::piped()).spawn().doing(&shown)?;
    let mut measured = Vec::new();
    for line in child
        .stdout
        .take()
        .into_iter()
        .flat_map(|out| BufReader::new(out).lines())
    {
        if let Some(one) = measurement(&line?) {
            println!("{:<48} {:>12.2} {}", one.name, one.value, one.unit);
            measured.push(one);
        }
    }
    let status = child.wait()?;
    if status.success() && !measured.is_empty() {
        return Ok(measured);
    }
    Err(Failure::new(format!("`{shown}` ended with {status}")))
}
