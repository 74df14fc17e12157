//! `cargo xtask fuzz`: noise for every decoder and verifier, from a fuzzer that learns which ways it has not seen.
//!
//! The targets are programs of the workspace in `fuzz/` (its README says what each demands). They are built here
//! with the coverage counters of the stable compiler, begin with the vectors, and keep what they find below the
//! target directory, so that the next run goes on from there. A panic, an input that takes ten seconds, and one that
//! takes two gibibytes are failures; the input stays in a file.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sys::{self, Doing, Failure, Outcome};

/// Every target, and the longest input that it is given, in bytes.
const TARGETS: [(&str, u32); 26] = [
    ("wire", 16_384),
    ("text", 2_048),
    ("requests", 2_048),
    ("signatures", 64),
    ("chain", 1_024),
    ("log_notes", 8_192),
    ("log_proofs", 4_096),
    ("state_map", 16_384),
    ("monitor", 8_192),
    ("receipt", 16_384),
    ("seal", 4_096),
    ("pack", 16_384),
    ("index_object", 16_384),
    ("manifest", 8_192),
    ("tree", 16_384),
    ("restore_names", 512),
    ("tree_walk", 2_048),
    ("local_files", 8_192),
    ("key_store", 8_192),
    ("ledger", 8_192),
    ("memory", 16_384),
    ("epoch", 16_384),
    ("typed_text", 1_024),
    ("http", 4_096),
    ("cell_files", 4_096),
    ("commands", 4_096),
];

/// How long one input may take, in seconds: a thousand times as long as the slowest good one.
const INPUT_MAX_SECONDS: u32 = 10;

/// How much memory a target may take, in MiB.
const MEMORY_MAX_MIB: u32 = 2048;

/// How long each target runs in the suite, in seconds.
const SHORT_SECONDS: u64 = 3;

/// How long a target may go on after its time, in seconds: reading what it knows, and the last input.
const GRACE_SECONDS: u64 = 600;

/// Lines of a failed target's output that are shown.
const SHOWN_LINES: usize = 40;

/// How to fuzz.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these targets.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many targets run at once; as many as there are processors unless it is given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Afterwards keep only the inputs that show something which no other one shows.
    #[arg(long)]
    minimize: bool,
    /// The same, and put them into the archives that are committed.
    #[arg(long)]
    keep: bool,
    /// Give one input to one target, and nothing else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["minimize", "keep", "jobs"])]
    replay: Option<PathBuf>,
    /// Print the targets.
    #[arg(long)]
    list: bool,
}

type Target = (&'static str, u32);

/// What a target did.
struct Ran {
    executions: u64,
    /// The last line in which it said what it knows: places, features, inputs.
    coverage: String,
    took: Duration,
}

/// Runs targets.
pub(crate) fn run(options: &Options) -> Outcome {
    if options.list {
        for (name, longest) in TARGETS {
            println!("{name:<14} up to {longest} bytes");
        }
        return Ok(());
    }
    let targets = chosen(&options.targets)?;
    build(&targets)?;
    if let Some(file) = &options.replay {
        return match targets[..] {
            [(name, _)] => replay(name, file),
            _ => Err(Failure::new("name the one target that the input is for")),
        };
    }
    let fuzzing = Fuzzing {
        seconds: options.seconds,
        corpus: sys::target_dir().join("fuzz/corpus"),
        minimize: options.minimize || options.keep,
        keep: options.keep,
    };
    fuzzing.all(&targets, options.jobs)
}

/// Every target for some seconds, from the vectors on: what the suite does.
pub(crate) fn run_short() -> Outcome {
    check_list()?;
    build(&TARGETS)?;
    let corpus = sys::target_dir().join("fuzz/short");
    remove(&corpus)?;
    let fuzzing = Fuzzing {
        seconds: SHORT_SECONDS,
        corpus,
        minimize: false,
        keep: false,
    };
    fuzzing.all(&TARGETS, None)
}

fn chosen(names: &[String]) -> Outcome<Vec<Target>> {
    if names.is_empty() {
        return Ok(TARGETS.to_vec());
    }
    let find = |name: &String| {
        let found = TARGETS.iter().find(|(known, _)| known == name);
        found.copied().ok_or_else(|| {
            Failure::new(format!(
                "there is no target {name:?}; see `cargo xtask fuzz --list`"
            ))
        })
    };
    names.iter().map(find).collect()
}

/// The targets here are the programs of the fuzz workspace, and its README describes all of them.
fn check_list() -> Outcome {
    let read = |name: &str| {
        let path = fuzz_dir().join(name);
        fs::read_to_string(&path).doing(path.display())
    };
    let manifest: toml::Table = read("Cargo.toml")?.parse().doing("fuzz/Cargo.toml")?;
    let programs = manifest.get("bin").and_then(toml::Value::as_array);
    let programs: Vec<&str> = programs
        .into_iter()
        .flatten()
        .filter_map(|program| program.get("name")?.as_str())
        .collect();
    let described = read("README.md")?;
    let mut findings = Vec::new();
    for (name, _) in TARGETS {
        if !programs.contains(&name) {
            findings.push(format!("{name}: no program of fuzz/Cargo.toml"));
        }
        if !described.contains(&format!("| `{name}` |")) {
            findings.push(format!("{name}: not in the table of fuzz/README.md"));
        }
    }
    let is_known = |program: &&str| TARGETS.iter().any(|(name, _)| name == program);
    let unknown = programs.iter().filter(|program| !is_known(program));
    findings.extend(unknown.map(|program| format!("{program}: not a target of xtask")));
    sys::no_findings("the list of fuzz targets does not hold", &findings)
}

fn fuzz_dir() -> PathBuf {
    sys::root().join("fuzz")
}

fn programs_dir() -> PathBuf {
    sys::target_dir().join("fuzz")
}

/// Builds the targets, with counters in the crates that `fuzz/instrument.sh` names. A cargo that is run from here
/// takes nothing of the flags of the one that runs this.
fn build(targets: &[Target]) -> Outcome {
    let mut command = sys::cargo();
    command
        .args(["build", "--release", "--locked", "--quiet"])
        .arg("--manifest-path")
        .arg(fuzz_dir().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(programs_dir())
        .env("RUSTC_WRAPPER", fuzz_dir().join("instrument.sh"))
        .env_remove("RUSTFLAGS");
    if targets.len() < TARGETS.len() {
        for (name, _) in targets {
            command.args(["--bin", name]);
        }
    }
    let started = Instant::now();
    sys::run(&mut command)?;
    println!(
        "the targets are built after {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn program(name: &str) -> Command {
    // The limit is compared with the largest memory of the process, in which Linux counts what its parent had before
    // it became this program: the suite may have had more than the limit. A shell in between has little.
    let mut command = Command::new("sh");
    command
        .args(["-c", "\"$@\"; exit $?", "fuzz"])
        .arg(programs_dir().join("release").join(name))
        .arg(format!("-timeout={INPUT_MAX_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MAX_MIB}"));
    command
}

fn replay(name: &str, file: &Path) -> Outcome {
    sys::run(program(name).arg(file))?;
    println!("{name} takes {}", file.display());
    Ok(())
}

fn remove(directory: &Path) -> Outcome {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(directory.display())
        }
        _ => Ok(()),
    }
}

fn make(directory: &Path) -> Outcome {
    fs::create_dir_all(directory).doing(directory.display())
}

/// The inputs of a target that are committed.
fn archive(name: &str) -> PathBuf {
    fuzz_dir().join("corpus").join(format!("{name}.tar.zst"))
}

/// Puts what a target knows into its archive. The same files make the same archive.
fn pack(name: &str, corpus: &Path) -> Outcome {
    make(&fuzz_dir().join("corpus"))?;
    let archive = archive(name);
    let new = archive.with_extension("new");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--zstd", "--sort=name", "--format=ustar"])
        .args(["--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"])
        .arg("--mode=u=rw,go=r,a-s,a+X")
        .arg("--file")
        .arg(&new)
        .arg("--directory")
        .arg(corpus)
        .arg(name)
        .env("ZSTD_CLEVEL", "19");
    sys::output(&mut tar)?;
    fs::rename(&new, &archive).doing(archive.display())
}

/// The directory of the inputs that are committed for a target, if there are some.
fn unpack(name: &str) -> Outcome<Option<PathBuf>> {
    let archive = archive(name);
    if !archive.is_file() {
        return Ok(None);
    }
    let place = sys::target_dir().join("fuzz/kept");
    make(&place)?;
    remove(&place.join(name))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--zstd", "--no-same-owner", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&place);
    sys::output(&mut tar)?;
    Ok(Some(place.join(name)))
}

/// One run of several targets.
struct Fuzzing {
    seconds: u64,
    /// Where each target keeps what it finds, in a directory of its own.
    corpus: PathBuf,
    minimize: bool,
    keep: bool,
}

impl Fuzzing {
    /// Runs all, some at once, and fails with all that failed.
    fn all(&self, targets: &[Target], jobs: Option<usize>) -> Outcome {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = jobs.unwrap_or(processors).clamp(1, targets.len().max(1));
        println!(
            "{} targets for {} s each, {jobs} at once",
            targets.len(),
            self.seconds
        );
        println!(
            "{:<14} {:>12} {:>9}  places, features, inputs",
            "target", "executions", "a second"
        );
        let waiting: Mutex<VecDeque<Target>> = Mutex::new(targets.iter().copied().collect());
        let findings = Mutex::new(Vec::new());
        let next = || waiting.lock().ok()?.pop_front();
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(target) = next() {
                        if let Err(failure) = self.one(target)
                            && let Ok(mut findings) = findings.lock()
                        {
                            findings.push(format!("{}: {failure}", target.0));
                        }
                    }
                });
            }
        });
        let findings = findings.into_inner().unwrap_or_default();
        sys::no_findings("targets that failed", &findings)
    }

    fn one(&self, target: Target) -> Outcome {
        let (name, _) = target;
        let ran = self.fuzz(target)?;
        let seconds = ran.took.as_secs_f64().max(1.0);
        println!(
            "{name:<14} {:>12} {:>9.0}  {}",
            ran.executions,
            ran.executions as f64 / seconds,
            ran.coverage
        );
        if self.minimize {
            self.keep_what_counts(target)?;
        }
        if self.keep {
            pack(name, &self.corpus)?;
        }
        Ok(())
    }

    fn directories(&self, name: &str) -> Outcome<(PathBuf, PathBuf)> {
        let corpus = self.corpus.join(name);
        let artifacts = sys::target_dir().join("fuzz/artifacts").join(name);
        make(&corpus)?;
        make(&artifacts)?;
        Ok((corpus, artifacts))
    }

    /// Runs one target. What it says goes into a file.
    fn fuzz(&self, (name, longest): Target) -> Outcome<Ran> {
        let (corpus, artifacts) = self.directories(name)?;
        let log = artifacts.join("log");
        let mut command = program(name);
        command
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-max_len={longest}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1")
            .arg(&corpus)
            .env("CANDOR_FUZZ_SEEDS", &corpus);
        if let Some(committed) = unpack(name)? {
            command.arg(committed);
        }
        command.stdout(File::create(&log).doing(log.display())?);
        command.stderr(File::options().append(true).open(&log)?);
        let started = Instant::now();
        let mut child = command.spawn().doing(name)?;
        let longest = Duration::from_secs(self.seconds + GRACE_SECONDS);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > longest {
                child.kill()?;
                child.wait()?;
                return Err(Failure::new("it does not end"));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let said = fs::read(&log).doing(log.display())?;
        let said = String::from_utf8_lossy(&said);
        if status.success() {
            let (executions, coverage) = outcome(&said);
            let took = started.elapsed();
            return Ok(Ran {
                executions,
                coverage,
                took,
            });
        }
        let lines: Vec<&str> = said.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n    ");
        let input = artifact(&said).map_or_else(
            || format!("it ended with {status}"),
            |file| {
                format!(
                    "it ended with {status}; the input is {file}, and is given to it again by `cargo xtask fuzz \
                     {name} --replay {file}`"
                )
            },
        );
        Err(Failure::new(format!("{input}\n    {shown}")))
    }

    /// Makes the directory of a target anew, with the inputs that cover something.
    fn keep_what_counts(&self, (name, longest): Target) -> Outcome {
        let (corpus, artifacts) = self.directories(name)?;
        let kept = self.corpus.join(format!("{name}.kept"));
        remove(&kept)?;
        make(&kept)?;
        let log = artifacts.join("merge-log");
        let mut command = program(name);
        command
            .arg("-merge=1")
            .arg(format!("-max_len={longest}"))
            .arg(&kept)
            .arg(&corpus)
            .args(unpack(name)?)
            .stdout(File::create(&log).doing(log.display())?)
            .stderr(File::options().append(true).open(&log)?);
        let status = command.status().doing(name)?;
        if !status.success() {
            let log = log.display();
            return Err(Failure::new(format!("merging ended with {status}: {log}")));
        }
        remove(&corpus)?;
        fs::rename(&kept, &corpus).doing(corpus.display())
    }
}

/// How many inputs were tried, and the last words about coverage.
fn outcome(said: &str) -> (u64, String) {
    let executions = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let executions = executions.and_then(|number| number.trim().parse().ok());
    let coverage = said.lines().rev().find_map(|line| {
        let (_, words) = line.split_once("cov: ")?;
        let words: Vec<&str> = words.split_whitespace().collect();
        let [places, "ft:", features, "corp:", inputs, ..] = words[..] else {
            return None;
        };
        Some(format!("{places}, {features}, {inputs}"))
    });
    (executions.unwrap_or(0), coverage.unwrap_or_default())
}

/// The file in which an input that failed was kept.
fn artifact(said: &str) -> Option<&str> {
    said.lines().find_map(|line| {
        line.split_once("Test unit written to ")
            .map(|(_, file)| file.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzers_words_are_understood() {
        let said = "#718\tNEW    cov: 3030 ft: 10985 corp: 242/41Kb lim: 256\n\
                    #900\tDONE   cov: 3031 ft: 10990 corp: 243/41Kb lim: 256 exec/s: 34\n\
                    stat::number_of_executed_units: 900\n";
        let expected = (900, "3031, 10990, 243/41Kb".to_owned());
        assert_eq!(outcome(said), expected);
        assert_eq!(outcome(""), (0, String::new()));
        let crash = "artifact_prefix='x/'; Test unit written to x/crash-1\nBase64: AA==\n";
        assert_eq!(artifact(crash), Some("x/crash-1"));
        assert_eq!(artifact(said), None);
    }

    #[test]
    fn targets_are_chosen_by_name() {
        let names = ["chain".to_owned(), "wire".to_owned()];
        let chosen = chosen(&names).map(|targets| targets.len()).ok();
        assert_eq!(chosen, Some(2));
        assert!(super::chosen(&["nothing".to_owned()]).is_err());
    }
}
