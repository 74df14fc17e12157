//! `cargo xtask bench sync`: a tree from one device to another, a small change, a renamed folder, and rest, beside
//! Syncthing in the same run.
//!
//! Both are measured as people run them: Candor as two devices and a cell, three processes over TLS; Syncthing as two
//! devices, which need no third. What counts is what all of them used together.

mod churn;
mod pairs;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::corpus::{self, Corpus};
use super::measure::{self, Usage};
use super::mutate::Noise;
use super::report::{aligned, median};
use super::{must_be_same, peers};
use crate::bench;
use crate::sys::{self, Doing, Failure, Outcome};
use pairs::{Candor, Pair, Syncthing};

pub(crate) use churn::{ChurnOptions, run as run_churn};

/// How long a tree may take to arrive, however large it is.
const TREE_WAIT_MAX: Duration = Duration::from_secs(3600);

/// How long one change may take.
const CHANGE_WAIT_MAX: Duration = Duration::from_secs(120);

/// How often is looked whether a change arrived.
const CHANGE_LOOK: Duration = Duration::from_millis(1);

/// How long both sides may still work after everything arrived; that work is counted.
const SETTLE: Duration = Duration::from_secs(5);

/// The renamed folder is the one at the top whose number of files is nearest to this.
const RENAMED_FILES: usize = 10_000;

/// What Candor may use of what Syncthing uses, of processor time and of time on the wall.
const CPU_RATIO_MAX: f64 = 1.0 / 3.0;
const WALL_RATIO_MAX: f64 = 0.5;

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct SyncOptions {
    /// How often everything is run; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// What is sent from one device to the other.
    #[arg(long, value_enum, default_value_t = Corpus::Linux)]
    corpus: Corpus,
    /// How many small changes, one after the other.
    #[arg(long, default_value_t = 50)]
    changes: usize,
    /// For how long the devices are watched at rest, in seconds.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Measure Candor alone.
    #[arg(long)]
    alone: bool,
    /// Measure this program instead of building it.
    #[arg(long, value_name = "FILE")]
    candor: Option<PathBuf>,
    /// Where the devices are put: a directory on the disk or memory that shall be measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Also write every measurement as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// One round of one pair.
struct Measured {
    tree: Usage,
    /// How long each small change took, in milliseconds.
    changes: Vec<f64>,
    rename_ms: f64,
    renamed: usize,
    /// Processor time at rest, in percent of one core: the busiest process, and all together.
    idle_busiest: f64,
    idle_all: f64,
    /// Largest resident memory of one device.
    peak_bytes: u64,
}

struct Contender {
    pair: Box<dyn Pair>,
    version: String,
    measured: Vec<Measured>,
}

/// Measures, prints the table, and fails where Candor uses more beside its peer than it may.
pub(crate) fn run(options: &SyncOptions) -> Outcome {
    let contenders = measure_all(options)?;
    let rows = rows(&contenders);
    println!(
        "\n{}, from one device to another: medians of {}\n",
        options.corpus.name(),
        options.rounds
    );
    print!("{}", aligned(&rows));
    for one in &contenders {
        println!("{}: {}", one.pair.name(), one.version);
    }
    if let Some(file) = &options.out {
        let all: Vec<Value> = contenders.iter().map(Contender::json).collect();
        let text = json!({ "version": 1, "corpus": options.corpus.name(), "contenders": all });
        fs::write(file, format!("{text:#}\n")).doing(file.display())?;
    }
    sys::no_findings("Candor uses too much beside its peer", &judged(&contenders))
}

/// The short form of the suite: Candor alone, a small tree, a few changes.
pub(crate) fn run_short() -> Outcome {
    let contenders = measure_all(&SyncOptions {
        rounds: 1,
        corpus: Corpus::Small,
        changes: 5,
        idle: 1,
        alone: true,
        candor: None,
        dir: None,
        out: None,
    })?;
    let measured: Vec<&Measured> = contenders.iter().flat_map(|one| &one.measured).collect();
    let is_whole = matches!(measured[..], [one] if one.changes.len() == 5 && one.renamed > 0);
    if !is_whole {
        return Err(Failure::new("not everything was measured"));
    }
    churn::run_short()
}

fn measure_all(options: &SyncOptions) -> Outcome<Vec<Contender>> {
    let program = bench::program(options.candor.as_deref())?;
    let parent = bench::place(options.dir.as_deref())?;
    let work = tempfile::Builder::new()
        .prefix("sync-")
        .tempdir_in(&parent)?;
    let pristine = options.corpus.make(&corpus::default_directory()?)?;
    let mut pairs: Vec<Box<dyn Pair>> = vec![Box::new(Candor::new(&program))];
    if !options.alone {
        pairs.push(Box::new(Syncthing::new(&peers::install_syncthing()?)));
    }
    let mut contenders = Vec::new();
    for pair in pairs {
        let version = pair.version()?;
        contenders.push(Contender {
            pair,
            version,
            measured: Vec::new(),
        });
    }
    for round in 0..options.rounds {
        // Whoever is first in one round is last in the next.
        let (first, second) = contenders.split_at_mut(1);
        let order: Vec<&mut Contender> = if round % 2 == 0 {
            first.iter_mut().chain(second).collect()
        } else {
            second.iter_mut().chain(first).collect()
        };
        for one in order {
            let place = work.path().join("pair");
            fs::create_dir_all(&place)?;
            let measured = measure_pair(one.pair.as_mut(), &pristine, &place, options);
            one.pair.stop();
            let measured = measured.doing(one.pair.name())?;
            println!("round {} {:<10} {measured}", round + 1, one.pair.name());
            one.measured.push(measured);
            fs::remove_dir_all(&place).doing("removing the devices")?;
        }
    }
    Ok(contenders)
}

fn measure_pair(
    pair: &mut dyn Pair,
    pristine: &Path,
    place: &Path,
    options: &SyncOptions,
) -> Outcome<Measured> {
    let (from, to) = (place.join("from"), place.join("to"));
    fs::create_dir(&to)?;
    corpus::reset(pristine, &from)?;
    corpus::warm(&from)?;
    pair.start(place, &from, &to)?;
    let tree = whole_tree(pair, &from, &to)?;
    let changes = changes(&from, &to, options.changes)?;
    let (renamed, rename_ms) = rename(&from, &to)?;
    thread::sleep(SETTLE);
    let (idle_busiest, idle_all) = idle(pair, Duration::from_secs(options.idle))?;
    must_be_same(&from, &to, &pair.own_names())?;
    Ok(Measured {
        tree,
        changes,
        rename_ms,
        renamed,
        idle_busiest,
        idle_all,
        peak_bytes: peak_of_devices(pair)?,
    })
}

fn peak_of_devices(pair: &dyn Pair) -> Outcome<u64> {
    let mut peak = 0;
    for process in pair.devices() {
        peak = peak.max(measure::server_usage(process)?.peak_bytes());
    }
    Ok(peak)
}

/// From the moment at which both sides may begin until the tree is there, with all that they still do then.
fn whole_tree(pair: &mut dyn Pair, from: &Path, to: &Path) -> Outcome<Usage> {
    let expected = count(from, &pair.own_names())?;
    let before = used(pair)?;
    let (began, began_at) = (Instant::now(), SystemTime::now());
    let commands = pair.begin()?;
    loop {
        let look = Instant::now();
        if count(to, &pair.own_names())? == expected && is_same(from, to, &pair.own_names()) {
            break;
        }
        if began.elapsed() > TREE_WAIT_MAX {
            return Err(Failure::new("the tree does not arrive"));
        }
        // Looking must not be what takes the time.
        thread::sleep(Duration::from_millis(100).max(look.elapsed() * 20));
    }
    // How often was looked plays no part: the files themselves say when the last of them was made what it is.
    let wall = newest_change(to, &pair.own_names())?;
    let wall = wall.duration_since(began_at).doing("the clock")?;
    thread::sleep(SETTLE);
    Ok(Usage {
        cpu_seconds: commands.cpu_seconds + used(pair)?.iter().sum::<f64>()
            - before.iter().sum::<f64>(),
        wall_seconds: wall.as_secs_f64(),
        peak_bytes: peak_of_devices(pair)?,
        server_peak_bytes: 0,
    })
}

/// When anything in a tree was changed last.
fn newest_change(directory: &Path, own: &[&str]) -> Outcome<SystemTime> {
    let metadata = fs::metadata(directory)?;
    let mut newest = changed(&metadata);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if own.iter().any(|own| entry.file_name() == **own) {
            continue;
        }
        let time = if entry.file_type()?.is_dir() {
            newest_change(&entry.path(), own)?
        } else {
            changed(&entry.metadata()?)
        };
        newest = newest.max(time);
    }
    Ok(newest)
}

fn changed(metadata: &fs::Metadata) -> SystemTime {
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
    let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

/// Whether what is there is whole: the sizes tell before bytes have to be compared.
fn is_same(from: &Path, to: &Path, own: &[&str]) -> bool {
    must_be_same(from, to, own).is_ok()
}

/// Processor time of each process until now, in seconds.
fn used(pair: &dyn Pair) -> Outcome<Vec<f64>> {
    pair.processes()
        .into_iter()
        .map(|process| Ok(measure::server_usage(process)?.cpu_seconds()))
        .collect()
}

/// How many names a tree has, without those that a program keeps for itself.
fn count(directory: &Path, own: &[&str]) -> Outcome<usize> {
    let mut names = 0;
    for entry in fs::read_dir(directory).doing(directory.display())? {
        let entry = entry?;
        if own.iter().any(|own| entry.file_name() == **own) {
            continue;
        }
        names += 1;
        if entry.file_type()?.is_dir() {
            names += count(&entry.path(), own)?;
        }
    }
    Ok(names)
}

/// Small changes, one after the other: how long each takes until the other side has it, in milliseconds.
fn changes(from: &Path, to: &Path, count: usize) -> Outcome<Vec<f64>> {
    let mut noise = Noise::new(count as u64);
    let mut took = Vec::new();
    for number in 0..count {
        // At no particular moment of anybody's clock.
        thread::sleep(Duration::from_millis(200 + noise.below(300)));
        let name = format!("note {}.txt", number % 3);
        let text = format!("change {number}\n");
        let began = Instant::now();
        fs::write(from.join(&name), &text)?;
        wait(&format!("change {number}"), || {
            fs::read_to_string(to.join(&name)).is_ok_and(|read| read == text)
        })?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(took)
}

fn wait(what: &str, mut is_there: impl FnMut() -> bool) -> Outcome {
    let began = Instant::now();
    while !is_there() {
        if began.elapsed() > CHANGE_WAIT_MAX {
            return Err(Failure::new(format!("{what} does not arrive")));
        }
        thread::sleep(CHANGE_LOOK);
    }
    Ok(())
}

/// Renames a folder: how many names were in it, and how long it took, in milliseconds.
fn rename(from: &Path, to: &Path) -> Outcome<(usize, f64)> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() && !name.as_encoded_bytes().starts_with(b".") {
            folders.push((count(&entry.path(), &[])?, name));
        }
    }
    let nearest = folders
        .into_iter()
        .min_by_key(|(names, _)| names.abs_diff(RENAMED_FILES));
    let (names, old) = nearest.ok_or_else(|| Failure::new("no folder to rename"))?;
    let mut new = old.clone();
    new.push(" renamed");
    let began = Instant::now();
    fs::rename(from.join(&old), from.join(&new))?;
    wait("the renamed folder", || {
        to.join(&new).is_dir()
            && !to.join(&old).exists()
            && count(&to.join(&new), &[]).is_ok_and(|there| there == names)
    })?;
    Ok((names, began.elapsed().as_secs_f64() * 1000.0))
}

/// What the processes use when nobody does anything, in percent of one core: the busiest, and all together.
fn idle(pair: &dyn Pair, watched: Duration) -> Outcome<(f64, f64)> {
    let before = used(pair)?;
    thread::sleep(watched);
    let after = used(pair)?;
    let each = before.iter().zip(&after);
    let each: Vec<f64> = each
        .map(|(before, after)| (after - before) / watched.as_secs_f64() * 100.0)
        .collect();
    Ok((
        each.iter().copied().fold(0.0, f64::max),
        each.iter().sum::<f64>(),
    ))
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}; change {:.0} ms; {} names renamed in {:.0} ms; at rest {:.2} %",
            self.tree,
            median(self.changes.clone()).unwrap_or_default(),
            self.renamed,
            self.rename_ms,
            self.idle_all
        )
    }
}

impl Contender {
    fn median(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        median(self.measured.iter().map(figure).collect()).unwrap_or_default()
    }

    /// A fraction of all small changes of all rounds took at most this long.
    fn change_ms(&self, fraction: f64) -> f64 {
        let mut all: Vec<f64> = self
            .measured
            .iter()
            .flat_map(|one| one.changes.clone())
            .collect();
        all.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "a few hundred changes"
        )]
        let at = ((all.len() as f64 * fraction).ceil() as usize).saturating_sub(1);
        all.get(at).copied().unwrap_or_default()
    }

    fn json(&self) -> Value {
        let rounds: Vec<Value> = self
            .measured
            .iter()
            .map(|one| {
                json!({
                    "tree": one.tree.json(),
                    "changes_ms": one.changes,
                    "renamed": one.renamed,
                    "rename_ms": one.rename_ms,
                    "idle_percent_busiest": one.idle_busiest,
                    "idle_percent_all": one.idle_all,
                    "peak_bytes": one.peak_bytes,
                })
            })
            .collect();
        json!({ "name": self.pair.name(), "version": self.version, "rounds": rounds })
    }
}

type Figure = fn(&Contender) -> f64;

#[expect(
    clippy::cast_precision_loss,
    reason = "bytes of memory fit well enough"
)]
const FIGURES: [(&str, Figure); 9] = [
    ("tree, CPU s of all processes", |one| {
        one.median(|one| one.tree.cpu_seconds)
    }),
    ("tree, wall s", |one| {
        one.median(|one| one.tree.wall_seconds)
    }),
    ("one change, ms, median", |one| one.change_ms(0.5)),
    ("one change, ms, p99", |one| one.change_ms(0.99)),
    ("names in the renamed folder", |one| {
        one.median(|one| one.renamed as f64)
    }),
    ("renamed folder, ms", |one| one.median(|one| one.rename_ms)),
    ("at rest, % CPU, busiest process", |one| {
        one.median(|one| one.idle_busiest)
    }),
    ("at rest, % CPU, all processes", |one| {
        one.median(|one| one.idle_all)
    }),
    ("peak memory of a device, MB", |one| {
        one.median(|one| one.peak_bytes as f64 / 1e6)
    }),
];

fn rows(contenders: &[Contender]) -> Vec<Vec<String>> {
    let mut heading = vec![String::new()];
    heading.extend(contenders.iter().map(|one| one.pair.name().to_owned()));
    let mut rows = vec![heading];
    if let [_, _] = contenders {
        rows[0].push("ratio".to_owned());
    }
    for (name, figure) in FIGURES {
        let mut row = vec![name.to_owned()];
        row.extend(contenders.iter().map(|one| format!("{:.2}", figure(one))));
        if let [ours, peer] = contenders {
            row.push(format!("{:.3}", figure(ours) / figure(peer)));
        }
        rows.push(row);
    }
    rows
}

/// What is more beside the peer than it may be.
fn judged(contenders: &[Contender]) -> Vec<String> {
    let [ours, peer] = contenders else {
        return Vec::new();
    };
    let limits = [CPU_RATIO_MAX, WALL_RATIO_MAX];
    let judged = FIGURES.iter().zip(limits);
    judged
        .filter_map(|((name, figure), limit)| {
            let ratio = figure(ours) / figure(peer);
            (ratio > limit).then(|| format!("{name}: {ratio:.2} of the peer's, at most {limit:.2}"))
        })
        .collect()
}
