//! The transparency log from outside: killed at any moment, and checked with somebody else's program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::verifier::Verifier;
use super::world::{Candor, World};
use crate::sys::{Doing, Failure, Outcome};

/// How often the cell is killed in CI, and in the full form.
const KILLS: usize = 20;
const KILLS_FULL: usize = 200;

/// After how many kills the whole log is checked from outside.
const KILLS_CHECKED: usize = 5;

/// How long a cell lives at most before it is killed.
const LIFE_MAX: Duration = Duration::from_millis(1500);

/// How long the log may take to publish what was acknowledged last.
const PUBLISH_MAX: Duration = Duration::from_secs(30);

/// Where a cell's log lies, in the home of `server init`.
pub(super) fn log_directory(cell: &Candor<'_>) -> PathBuf {
    cell.home().join("cell/store/log")
}

/// The log's key, as its page says it, once the page was written.
pub(super) fn log_key(directory: &Path) -> Outcome<String> {
    let started = Instant::now();
    loop {
        let page = fs::read_to_string(directory.join("index.html")).unwrap_or_default();
        let key = page
            .split_once("<th>Key</th><td><code>")
            .and_then(|(_, rest)| rest.split_once('<'));
        if let Some((key, _)) = key {
            return Ok(key.to_owned());
        }
        if started.elapsed() > PUBLISH_MAX {
            return Err(Failure::new("the cell publishes no page about its log"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Every size that was ever published, with its root: two roots of one size are a fork.
#[derive(Default)]
struct Seen {
    roots: Mutex<BTreeMap<u64, String>>,
    forks: Mutex<Vec<String>>,
}

impl Seen {
    fn look(&self, directory: &Path) {
        let Ok(text) = fs::read_to_string(directory.join("checkpoint")) else {
            return;
        };
        let mut lines = text.lines().skip(1);
        let (Some(size), Some(root)) = (
            lines.next().and_then(|size| size.parse().ok()),
            lines.next(),
        ) else {
            return;
        };
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let known = roots.entry(size).or_insert_with(|| root.to_owned());
        if known != root {
            let mut forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner);
            forks.push(format!("size {size}: {known} and {root}"));
        }
    }
}

/// Kills the cell at many moments while a device appends to its chain; then nothing acknowledged is missing, no two
/// checkpoints contradict each other, and somebody else's verifier finds nothing wrong.
pub(super) fn survives_kills(world: &World) -> Outcome {
    let verifier = Verifier::build()?;
    let (cell_log, cell) = (world.path("cell.log"), world.candor("cell"));
    let (running, invitation) = cell.new_cell(&cell_log)?;
    let device = world.candor("device");
    prepare(world, &device, &invitation)?;
    let directory = log_directory(&cell);
    let policy = world.path("policy");
    fs::write(
        &policy,
        format!("log {}\nquorum none\n", log_key(&directory)?),
    )?;
    let remembered = world.path("remembered");

    let kills = if world.full { KILLS_FULL } else { KILLS };
    let (seen, stop, acknowledged) = (Seen::default(), AtomicBool::new(false), AtomicUsize::new(0));
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                seen.look(&directory);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let appending = scope.spawn(|| append_until(&device, &stop, &acknowledged));
        let mut running = Some(running);
        let killing = (|| {
            for number in 0..kills {
                let one = match running.take() {
                    Some(running) => running,
                    None => cell.start_cell(&cell_log)?,
                };
                thread::sleep(moment(number, kills));
                one.kill()?;
                if number % KILLS_CHECKED == 0 {
                    verifier.must_accept(check(&policy, &directory, &remembered))?;
                }
            }
            Ok(())
        })();
        // The last command finds a cell again.
        let restarted = cell.start_cell(&cell_log);
        stop.store(true, Ordering::Relaxed);
        let appended = appending
            .join()
            .unwrap_or_else(|_| Err(Failure::new("the appending thread ended in a panic")));
        killing.and(appended)?;
        restarted
    })?;
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    println!("{kills} kills, {acknowledged} acknowledged changes of consent");
    if acknowledged < kills / 4 {
        return Err(Failure::new("too little was acknowledged to say anything"));
    }
    device.run(["log", "monitor"])?;
    seen.look(&directory);
    verifier.must_accept(check(&policy, &directory, &remembered))?;
    outcome.stop()?;
    let forks = seen
        .forks
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    crate::sys::no_findings("two checkpoints of one size", &forks)
}

fn check<'a>(
    policy: &'a Path,
    directory: &'a Path,
    remembered: &'a Path,
) -> [&'a std::ffi::OsStr; 7] {
    [
        "log".as_ref(),
        "--policy".as_ref(),
        policy.as_os_str(),
        "--dir".as_ref(),
        directory.as_os_str(),
        "--remember".as_ref(),
        remembered.as_os_str(),
    ]
}

/// An account with a set and a consent.
pub(super) fn prepare(world: &World, device: &Candor<'_>, invitation: &str) -> Outcome {
    let source = world.path("source");
    fs::create_dir_all(&source)?;
    fs::write(source.join("letter"), "hello")?;
    let phrase = world.path("phrase.txt");
    let phrase = phrase.to_string_lossy();
    device.run([
        "account",
        "create",
        "someone",
        "--cell",
        invitation,
        "--unprotected-keys",
        "--recovery-file",
        &phrase,
    ])?;
    device.run([
        "backup",
        "add",
        &source.to_string_lossy(),
        "--name",
        "papers",
    ])?;
    device.run(["consent", "on", "backup", "--yes"]).map(drop)
}

/// Changes the consent again and again. A command may fail while the cell is gone; one that says that it is done
/// must never be lost.
fn append_until(device: &Candor<'_>, stop: &AtomicBool, acknowledged: &AtomicUsize) -> Outcome {
    let changes: [&[&str]; 2] = [
        &["consent", "off", "backup"],
        &["consent", "on", "backup", "--yes"],
    ];
    for change in changes.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let output = device
            .command(change.iter())
            .output()
            .doing("changing a consent")?;
        match output.status.code() {
            Some(0) => {
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            // Not reachable, or what was asked for is so already.
            Some(1 | 3 | 5) => {}
            _ => {
                return Err(Failure::new(format!(
                    "changing a consent ended with {}: {}",
                    output.status,
                    String::from_utf8_lossy(&output.stderr)
                )));
            }
        }
    }
    Ok(())
}

/// How long the cell lives this time: spread over the range in an order that looks random and is always the same.
fn moment(number: usize, kills: usize) -> Duration {
    // A step that shares no factor with either number of kills visits every place once.
    let place = number * 7 % kills;
    LIFE_MAX.mul_f64((place as f64 + 0.5) / kills as f64)
}

/// The cell's store is put back to yesterday's copy. Its signer refuses; its operator begins a new log; the device
/// refuses, shows what was lost, and goes on once its person accepted.
pub(super) fn re_anchors(world: &World) -> Outcome {
    let verifier = Verifier::build()?;
    let (cell_log, cell) = (world.path("cell.log"), world.candor("cell"));
    let (running, invitation) = cell.new_cell(&cell_log)?;
    let device = world.candor("device");
    prepare(world, &device, &invitation)?;
    device.run(["backup", "run", "--all"])?;
    running.stop()?;
    let (store, kept) = (cell.home().join("cell/store"), world.path("kept"));
    super::elsewhere::copy(&store, &kept)?;
    let running = cell.start_cell(&cell_log)?;
    fs::write(world.path("source/later"), "later")?;
    device.run(["consent", "off", "backup"])?;
    device.run(["consent", "on", "backup", "--yes"])?;
    device.run(["backup", "run", "--all"])?;
    wait_for_growth(&log_directory(&cell), &kept.join("log"))?;
    device.run(["log", "monitor"])?;
    // Neither the copy nor the other device knows this one, and what it takes back for the whole account.
    let late = world.candor("late");
    let phrase = world.path("phrase.txt").to_string_lossy().into_owned();
    let recover = ["account", "recover", "--recovery-file", &phrase];
    late.run(
        recover
            .into_iter()
            .chain(["--cell", &invitation, "--unprotected-keys"]),
    )?;
    late.run(["consent", "off", "backup"])?;
    // It belongs to the account, and the cell knows it.
    late.try_run(recover)?.must_exit(2)?;
    let signed = fs::read(log_directory(&cell).join("checkpoint"))?;
    running.stop()?;

    fs::remove_dir_all(&store)?;
    super::elsewhere::copy(&kept, &store)?;
    let running = cell.start_cell(&cell_log)?;
    let said = wait_for_line(&cell_log, "log_signer")?;
    println!("the restored cell says: {said}");
    let published = fs::read(log_directory(&cell).join("checkpoint"))?;
    if published != fs::read(kept.join("log/checkpoint"))? {
        return Err(Failure::new("the restored cell signed something"));
    }
    device.try_run(["log", "monitor"])?.must_exit(4)?;
    running.stop()?;

    cell.try_run(["server", "re-anchor"])?.must_exit(2)?;
    cell.run(["server", "re-anchor", "--yes"])?;
    let running = cell.start_cell(&cell_log)?;
    let directory = log_directory(&cell);
    let policy = world.path("policy");
    fs::write(
        &policy,
        format!("log {}\nquorum none\n", log_key(&directory)?),
    )?;
    let remembered = world.path("remembered");
    verifier.must_accept(check(&policy, &directory, &remembered))?;
    // Without a terminal and without a yes nothing is accepted.
    device.try_run(["account", "re-anchor"])?.must_exit(4)?;
    device.try_run(["log", "monitor"])?.must_exit(4)?;
    let accepted = device.run(["account", "re-anchor", "--yes"])?;
    println!("{}", accepted.trim());
    device.run(["backup", "run", "--all"])?;
    device.run(["log", "monitor"])?;
    let restored = world.path("restored");
    device.run([
        "backup",
        "restore",
        "latest",
        "--to",
        &restored.to_string_lossy(),
    ])?;
    super::compare::same_tree(
        &world.path("source"),
        &restored.join("source"),
        super::compare::With::DiffAndRsync,
    )?;
    let kept_key = cell.home().join("cell/keys/log-1.key");
    let old = fs::read(cell.home().join("cell/store/log-1/checkpoint"))?;
    if !kept_key.exists() || old == signed {
        return Err(Failure::new(
            "the old log was not put aside as it was restored",
        ));
    }
    verifier.must_accept(check(&policy, &directory, &remembered))?;
    // The device that nobody brought back joins anew, in its own home, and what it withdrew is off again.
    late.try_run(["account", "re-anchor", "--yes"])?
        .must_exit(4)?;
    late.run(recover)?;
    late.run(["account", "re-anchor", "--yes"])?;
    device.run(["consent", "history"])?;
    device.try_run(["backup", "run", "--all"])?.must_exit(3)?;
    verifier.must_accept(check(&policy, &directory, &remembered))?;
    running.stop()
}

fn wait_for_growth(log: &Path, before: &Path) -> Outcome {
    let size = |log: &Path| -> u64 {
        let text = fs::read_to_string(log.join("checkpoint")).unwrap_or_default();
        text.lines()
            .nth(1)
            .and_then(|size| size.parse().ok())
            .unwrap_or(0)
    };
    let started = Instant::now();
    while size(log) <= size(before) {
        if started.elapsed() > PUBLISH_MAX {
            return Err(Failure::new("the log does not grow"));
        }
        thread::sleep(Duration::from_millis(100));
    }
    // The newest statement is in it once nothing follows for two batches.
    thread::sleep(Duration::from_secs(3));
    Ok(())
}

fn wait_for_line(file: &Path, word: &str) -> Outcome<String> {
    let started = Instant::now();
    while started.elapsed() < PUBLISH_MAX {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(line) = text.lines().rfind(|line| line.contains(word)) {
            return Ok(line.to_owned());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(Failure::new(format!("the cell's log never says `{word}`")))
}
