//! `cargo xtask bench mount`: reads of 64 KiB at random places of a mounted snapshot, one after another.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::contenders::candor;
use super::mutate::Noise;
use super::{corpus, place, program};
use crate::e2e::{Mounted, UP_ONCE, can_mount};
use crate::sys::{self, Failure, Outcome};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// How to measure.
#[derive(clap::Args)]
pub(super) struct MountOptions {
    /// How many reads.
    #[arg(long, default_value_t = 2_000)]
    reads: usize,
    /// What is read from.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["linux", "media"])]
    corpus: Vec<corpus::Corpus>,
    /// Measure this program instead of building it.
    #[arg(long, value_name = "FILE")]
    candor: Option<PathBuf>,
    /// Where the cell keeps its objects.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Files with their lengths, so that each byte has the same chance to be read.
struct Files {
    files: Vec<(PathBuf, u64)>,
    bytes: u64,
}

impl Files {
    fn below(top: &Path) -> Outcome<Self> {
        let mut found = Self {
            files: Vec::new(),
            bytes: 0,
        };
        let mut folders = vec![top.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if metadata.is_file() && metadata.len() > 0 {
                    found.bytes += metadata.len();
                    found.files.push((entry.path(), metadata.len()));
                }
            }
        }
        found.files.sort();
        Ok(found)
    }

    /// A file, and a place in it.
    fn at(&self, mut place: u64) -> Option<(&Path, u64)> {
        for (path, length) in &self.files {
            if place < *length {
                return Some((path, place));
            }
            place -= length;
        }
        None
    }
}

pub(super) fn run(options: &MountOptions) -> Outcome {
    if !can_mount() {
        return Err(Failure::new("nothing can be mounted here"));
    }
    let program = program(options.candor.as_deref())?;
    for corpus in &options.corpus {
        let source = corpus.make(&corpus::default_directory()?)?;
        let work = tempfile::Builder::new()
            .prefix("mount-")
            .tempdir_in(place(options.dir.as_deref())?)?;
        let home = work.path().join("home");
        let mut up = candor(&program, &home);
        up.arg("up").arg(&source).args(UP_ONCE);
        sys::output(up.arg(work.path().join("phrase.txt")))?;
        let mut mount = candor(&program, &home);
        mount.args(["backup", "mount"]);
        let mounted = Mounted::start(mount, &work.path().join("snapshots"))?;
        let times = read(&mounted.newest(&source)?, &source, options.reads)?;
        mounted.stop()?;
        report(corpus.name(), times);
    }
    Ok(())
}

/// Reads, compares with the source, and says how long each read took.
fn read(shown: &Path, source: &Path, reads: usize) -> Outcome<Vec<Duration>> {
    let files = Files::below(source)?;
    let mut noise = Noise::new(7);
    let mut times = Vec::with_capacity(reads);
    let (mut found, mut expected) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    for _ in 0..reads {
        let Some((path, place)) = files.at(noise.below(files.bytes)) else {
            continue;
        };
        let relative = path.strip_prefix(source).unwrap_or(path);
        let began = Instant::now();
        let length = File::open(shown.join(relative))?.read_at(&mut found, place)?;
        times.push(began.elapsed());
        let there = File::open(path)?.read_at(&mut expected, place)?;
        if length == 0 || found[..length] != expected[..length.min(there)] {
            return Err(Failure::new(format!(
                "{} reads differently at {place}",
                path.display()
            )));
        }
    }
    Ok(times)
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| {
        let place = (times.len() * part / 100).min(times.len().saturating_sub(1));
        times
            .get(place)
            .map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let all: Duration = times.iter().sum();
    println!(
        "{name}: {} reads of 64 KiB, opening the file included: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, {:.0} a second",
        times.len(),
        at(50),
        at(90),
        at(99),
        times.len() as f64 / all.as_secs_f64()
    );
}
