//! `cargo xtask bench`: the program beside its peers, interleaved, on the same corpora in the same run.

mod ballast;
mod cell;
mod contenders;
pub(crate) mod corpus;
mod log;
mod measure;
mod mount;
mod mutate;
mod pages;
mod peers;
mod report;
mod sync;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ballast::Ballast;
use contenders::{Contender, Embedded, Separate};
use measure::Usage;
pub(crate) use measure::{MeasureOptions, measure};
use report::{Report, Results};

use crate::e2e;
use crate::sys::{self, Doing, Failure, Outcome};

/// How long a server may take to come to rest after a client's command ended.
const SETTLE: Duration = Duration::from_millis(300);

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// First backup, nothing changed, a little changed, restore, and a check that reads all data.
    Backup(BackupOptions),
    /// Reading 64 KiB here and there in a mounted snapshot.
    Mount(mount::MountOptions),
    /// Appending to the transparency log, proofs, a device's monitor, and the state map.
    Log(log::LogOptions),
    /// A hundred devices at once against one cell, a neighbour beside a flood, and memory under hostile requests.
    Cell(cell::CellOptions),
    /// First paint of every page, and of what comes after an action, with a million files and a long ledger.
    Pages(pages::PagesOptions),
    /// A tree from one device to another, a small change, a renamed folder, and rest, beside Syncthing.
    Sync(sync::SyncOptions),
    /// A large tree under constant change on both sides, then quiet.
    Churn(sync::ChurnOptions),
}

#[derive(clap::Args)]
struct BackupOptions {
    /// How often each phase is run; the table shows medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What is backed up (several may be given, separated by commas).
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["linux", "media"])]
    corpus: Vec<corpus::Corpus>,
    /// Who else is measured, separated by commas; `none` measures Candor alone.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["restic", "borg", "rustic"])]
    peers: Vec<peers::Peer>,
    /// Leave out the runs with a separate cell.
    #[arg(long)]
    embedded_only: bool,
    /// Measure the peers alone.
    #[arg(long)]
    without_candor: bool,
    /// Measure this program instead of building it.
    #[arg(long, value_name = "FILE")]
    candor: Option<PathBuf>,
    /// Where repositories and restored trees are put: a directory on the disk or memory that shall be measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Also write every measurement as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// One thing that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    First,
    Unchanged,
    Mutated,
    Restore,
    Check,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::First,
        Self::Unchanged,
        Self::Mutated,
        Self::Restore,
        Self::Check,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::First => "first backup",
            Self::Unchanged => "nothing changed",
            Self::Mutated => "mutated",
            Self::Restore => "restore",
            Self::Check => "check reading data",
        }
    }
}

/// Runs the benchmark and prints its tables.
pub(crate) fn run(options: &Options) -> Outcome {
    match &options.what {
        What::Backup(options) => run_backup(options).map(drop),
        What::Mount(options) => mount::run(options),
        What::Log(options) => log::run(options),
        What::Cell(options) => cell::run(options),
        What::Pages(options) => pages::run(options),
        What::Sync(options) => sync::run(options),
        What::Churn(options) => sync::run_churn(options),
    }
}

pub(crate) use cell::run_short as run_cell_short;
pub(crate) use log::run_short as run_log_short;
pub(crate) use pages::run_short as run_pages_short;
pub(crate) use sync::run_short as run_sync_short;

/// The short form of the suite: Candor alone on a small corpus, once. It shows that the benchmark runs and that
/// its phases restore what was backed up; its figures mean little.
pub(crate) fn run_short() -> Outcome {
    let options = BackupOptions {
        rounds: 1,
        corpus: vec![corpus::Corpus::Small],
        peers: vec![peers::Peer::None],
        embedded_only: false,
        without_candor: false,
        candor: None,
        dir: None,
        out: None,
    };
    let report = run_backup(&options)?;
    let expected = 2 * Phase::ALL.len();
    if report.measurements() != expected {
        return Err(Failure::new(format!(
            "{} measurements instead of {expected}",
            report.measurements()
        )));
    }
    Ok(())
}

/// The program that is measured: the one that is given, or one that is built now.
fn program(given: Option<&Path>) -> Outcome<PathBuf> {
    given.map_or_else(e2e::build, |program| Ok(std::path::absolute(program)?))
}

/// The directory in which is measured, which is made if it is not there.
fn place(given: Option<&Path>) -> Outcome<PathBuf> {
    let place = match given {
        Some(directory) => std::path::absolute(directory)?,
        None => sys::target_dir().join("bench"),
    };
    fs::create_dir_all(&place)?;
    Ok(place)
}

fn run_backup(options: &BackupOptions) -> Outcome<Report> {
    let program = if options.without_candor {
        PathBuf::new()
    } else {
        program(options.candor.as_deref())?
    };
    let parent = place(options.dir.as_deref())?;
    let work = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&parent)?;
    let installed = peers::install(&options.peers)?;
    let mut report = Report::new(options.rounds);
    for corpus in &options.corpus {
        let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
        if !options.without_candor {
            contenders.push(Box::new(Embedded::new(&program)));
        }
        contenders.extend(installed.local(&options.peers));
        if !options.embedded_only {
            if !options.without_candor {
                contenders.push(Box::new(Separate::new(&program)));
            }
            contenders.extend(installed.over_http(&options.peers)?);
        }
        if contenders.is_empty() {
            return Err(Failure::new("nobody to measure"));
        }
        let results = run_corpus(*corpus, &mut contenders, work.path(), options.rounds)?;
        report.add(corpus.name(), results);
    }
    report.print();
    if let Some(path) = &options.out {
        fs::write(path, report.json()).doing(path.display())?;
    }
    Ok(report)
}

fn run_corpus(
    corpus: corpus::Corpus,
    contenders: &mut [Box<dyn Contender>],
    work: &Path,
    rounds: usize,
) -> Outcome<Results> {
    let pristine = corpus.make(&corpus::default_directory()?)?;
    let live = work.join(corpus.name());
    let mut ballast = Ballast::beside(work)?;
    let mut results = Results::default();
    for contender in contenders.iter() {
        results.name(
            contender.name(),
            contender.version()?,
            contender.is_over_network(),
            contender.is_ours(),
        );
    }
    for round in 0..rounds {
        // Whoever is first in one round is last in the next, so that nobody always has the cold cache.
        contenders.rotate_left(usize::from(round > 0));
        corpus::reset(&pristine, &live)?;
        let repositories = work.join("r");
        run_round(
            contenders,
            &live,
            &repositories,
            round,
            ballast.as_mut(),
            &mut results,
        )?;
    }
    fs::remove_dir_all(&live)?;
    Ok(results)
}

fn run_round(
    contenders: &mut [Box<dyn Contender>],
    live: &Path,
    repositories: &Path,
    round: usize,
    mut ballast: Option<&mut Ballast>,
    results: &mut Results,
) -> Outcome {
    let _ = fs::remove_dir_all(repositories);
    for contender in contenders.iter_mut() {
        let own = repositories.join(contender.name().replace(' ', "-"));
        fs::create_dir_all(&own)?;
        contender.start(&own, live)?;
    }
    for phase in Phase::ALL {
        if phase == Phase::Mutated {
            let summary = mutate::mutate(live, round as u64)?;
            println!("mutated: {summary}");
        }
        corpus::warm(live)?;
        for contender in contenders.iter_mut() {
            let usage = run_phase(
                contender.as_ref(),
                phase,
                live,
                repositories,
                ballast.as_deref_mut(),
            )?;
            println!(
                "round {} {:<18} {:<24} {usage}",
                round + 1,
                phase.name(),
                contender.name()
            );
            results.add(&contender.name(), phase, usage);
            if phase == Phase::First {
                results.add_stored(&contender.name(), stored_bytes(&contender.store())?);
            }
        }
    }
    for contender in contenders.iter_mut() {
        contender.stop()?;
    }
    fs::remove_dir_all(repositories).doing("removing the repositories")
}

fn run_phase(
    contender: &dyn Contender,
    phase: Phase,
    live: &Path,
    repositories: &Path,
    ballast: Option<&mut Ballast>,
) -> Outcome<Usage> {
    let target = repositories.join("restored");
    let mut command = contender.command(phase, live, &target)?;
    if phase == Phase::Restore {
        fs::create_dir_all(&target)?;
        if contender.restores_here() {
            command.current_dir(&target);
        }
    }
    let server = contender.server();
    let before = server.map(measure::server_usage).transpose()?;
    let measured = repositories.join("measured.json");
    let measure = || measure::of_command(&command, &measured);
    let usage = match ballast {
        Some(ballast) => ballast.give_while(measure)?,
        None => measure(),
    };
    let mut usage = usage.doing(format_args!("{}, {}", contender.name(), phase.name()))?;
    if let (Some(server), Some(before)) = (server, before) {
        std::thread::sleep(SETTLE);
        usage.add_server(&measure::server_usage(server)?.since(&before));
    }
    if phase == Phase::Restore {
        must_be_same(live, &contender.restored(live, &target), &[])?;
        fs::remove_dir_all(&target)?;
    }
    Ok(usage)
}

/// What came back, or arrived, counts only when it is the same, byte by byte; but for names that are left out.
fn must_be_same(source: &Path, restored: &Path, without: &[&str]) -> Outcome {
    let mut diff = Command::new("diff");
    diff.args(["-r", "-q", "--no-dereference"])
        .args(without.iter().flat_map(|name| ["-x", name]))
        .args([source, restored])
        .stdin(Stdio::null());
    let printed = diff.output()?;
    if printed.status.success() && printed.stdout.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the trees differ: {}",
        String::from_utf8_lossy(&printed.stdout)
    )))
}

/// Sum of the lengths of all files below a directory.
fn stored_bytes(directory: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).doing(directory.display())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            stored_bytes(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(bytes)
}
