//! The log, witnesses and receipts from outside: what a stranger checks with programs that are not ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::log::{log_directory, prepare};
use super::namespace::Namespace;
use super::verifier::Verifier;
use super::world::{Candor, CellProcess, World, free_port};
use crate::sys::{self, Doing, Failure, Outcome};

/// How many friends witness the cell.
const WITNESSES: usize = 3;

/// How long a checkpoint may take to have everybody's signature.
const WITNESSED_MAX: Duration = Duration::from_secs(60);

/// Places in each real file at which a bit is turned; the verifier's own tests turn every byte of small logs.
const FLIPS: usize = 12;

/// Three friends witness a cell; a person's receipt and the whole log are checked by programs that share no code with
/// this one, over HTTP and as files, and on a machine without a network.
pub(super) fn verifies_elsewhere(world: &World) -> Outcome {
    let verifier = Verifier::build()?;
    let friends = friends(world)?;
    let (cell, running, address) = witnessed_cell(world, &friends)?;
    let invitation = cell.run(["server", "invite"])?.trim().to_owned();
    let device = world.candor("device");
    prepare(world, &device, &invitation)?;
    device.run(["backup", "run", "--all"])?;
    let directory = log_directory(&cell);
    wait_for_cosignatures(&directory)?;

    let policy = world.path("policy");
    fs::write(&policy, policy_of(&cell, &friends, "2")?)?;
    fs::copy(&policy, device.home().join("log-policy"))?;
    let prefix = format!("http://{address}/log");
    let by_http = words(&["log", "--policy"], &policy, &["--url", &prefix]);
    let said = verifier.must_accept(by_http)?;
    println!(
        "over HTTP, the independent verifier says: {}",
        said.replace('\n', ", ")
    );
    verifier.must_accept(on_files(&policy, &directory))?;
    device.run(["log", "monitor"])?;
    let checkpoint = device.run(["log", "checkpoint", "--json"])?;
    if !checkpoint.contains("\"witnessed\"") {
        return Err(Failure::new(format!(
            "the device does not say that the log is witnessed: {checkpoint}"
        )));
    }
    let frozen = world.path("frozen");
    copy(&directory, &frozen)?;
    receipts(world, &verifier, &device, &policy)?;
    reports(&frozen)?;
    // Everybody's signature is needed here: of two in three, one that is spoilt into somebody else's may be missing.
    let all = world.path("policy-all");
    fs::write(&all, policy_of(&cell, &friends, "all")?)?;
    verifier.must_accept(on_files(&all, &frozen))?;
    refusals(world, &verifier, &frozen, &all)?;
    quorum(world, &verifier, &policy)?;
    rollback(world, &verifier, &directory, &frozen, &policy)?;
    running.stop()
}

/// A running witness; ended when it goes out of scope.
struct Friend {
    process: std::process::Child,
    key: String,
    address: String,
    home: PathBuf,
}

impl Drop for Friend {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn friends(world: &World) -> Outcome<Vec<Friend>> {
    (0..WITNESSES)
        .map(|number| {
            let home = world.candor(&format!("friend-{number}"));
            let address = format!("127.0.0.1:{}", free_port()?);
            let name = format!("friend-{number}.example/witness");
            let mut command = home.command([
                "log", "witness", "run", "--listen", &address, "--name", &name,
            ]);
            println!("$ {} &", sys::shown(&command));
            let process = command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .doing("a witness")?;
            let mut friend = Friend {
                process,
                key: String::new(),
                address,
                home: home.home().to_owned(),
            };
            let started = Instant::now();
            while friend.key.is_empty() {
                let asked = home.try_run(["log", "witness", "key"])?;
                friend.key = asked.stdout.trim().to_owned();
                if started.elapsed() > WITNESSED_MAX {
                    return Err(Failure::new("a witness does not start"));
                }
                thread::sleep(Duration::from_millis(100));
            }
            Ok(friend)
        })
        .collect()
}

fn witnessed_cell<'a>(
    world: &'a World,
    friends: &[Friend],
) -> Outcome<(Candor<'a>, CellProcess, String)> {
    let cell = world.candor("cell");
    cell.run([
        "server",
        "init",
        "--region",
        "home",
        "--listen",
        "127.0.0.1:0",
    ])?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let lines: Vec<String> = friends
        .iter()
        .map(|friend| format!("  \"{} http://{}\",", friend.key, friend.address))
        .collect();
    let settings = cell.home().join("cell/cell.toml");
    let text = fs::read_to_string(&settings)?;
    let log = format!(
        "{text}\n[log]\nlisten = \"{address}\"\nwitnesses = [\n{}\n]\n",
        lines.join("\n")
    );
    fs::write(&settings, log)?;
    let key = cell.run(["log", "key"])?.trim().to_owned();
    for friend in friends {
        let home = friend.home.to_string_lossy().into_owned();
        cell.run([
            "log",
            "witness",
            "add",
            &key,
            "--dir",
            &format!("{home}/witness"),
        ])?;
    }
    let running = cell.start_cell(&world.path("cell.log"))?;
    Ok((cell, running, address))
}

fn policy_of(cell: &Candor<'_>, friends: &[Friend], quorum: &str) -> Outcome<String> {
    let key = cell.run(["log", "key"])?;
    let mut text = format!("log {}\n", key.trim());
    let mut names = Vec::new();
    for (number, friend) in friends.iter().enumerate() {
        text.push_str(&format!("witness friend-{number} {}\n", friend.key));
        names.push(format!("friend-{number}"));
    }
    text.push_str(&format!(
        "group enough {quorum} {}\nquorum enough\n",
        names.join(" ")
    ));
    Ok(text)
}

fn words<'a>(before: &[&'a str], path: &'a Path, after: &[&'a str]) -> Vec<&'a std::ffi::OsStr> {
    let mut all: Vec<&std::ffi::OsStr> = before.iter().copied().map(std::ffi::OsStr::new).collect();
    all.push(path.as_os_str());
    all.extend(after.iter().copied().map(std::ffi::OsStr::new));
    all
}

fn on_files<'a>(policy: &'a Path, directory: &'a Path) -> Vec<&'a std::ffi::OsStr> {
    let mut all = words(&["log", "--policy"], policy, &["--dir"]);
    all.push(directory.as_os_str());
    all
}

fn wait_for_cosignatures(directory: &Path) -> Outcome {
    let started = Instant::now();
    while started.elapsed() < WITNESSED_MAX {
        let text = fs::read_to_string(directory.join("checkpoint")).unwrap_or_default();
        let size: u64 = text
            .lines()
            .nth(1)
            .and_then(|size| size.parse().ok())
            .unwrap_or(0);
        if size > 0
            && text
                .lines()
                .filter(|line| line.starts_with('\u{2014}'))
                .count()
                > WITNESSES
        {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Err(Failure::new("the witnesses do not cosign"))
}

/// A receipt made here is verified on a machine without network, account and cell, and its proof by somebody else's
/// program.
fn receipts(world: &World, verifier: &Verifier, device: &Candor<'_>, policy: &Path) -> Outcome {
    let listed: Value = serde_json::from_str(&device.run(["consent", "history", "--json"])?)
        .doing("the history")?;
    let id = find_id(&listed).ok_or_else(|| Failure::new("the history names no consent"))?;
    let receipt = world.path("consent.receipt");
    let proof = world.path("consent.tlog-proof");
    device.run(["consent", "receipt", &id, "-o", &receipt.to_string_lossy()])?;
    let proven: Value =
        serde_json::from_str(&device.run(["log", "prove", &id, "--json"])?).doing("the proof")?;
    device.run(["log", "prove", &id, "-o", &proof.to_string_lossy()])?;
    let leaf = find_text(&proven, "leaf").ok_or_else(|| Failure::new("the proof names no leaf"))?;
    let proof_text = proof.to_string_lossy().into_owned();
    let checks = words(
        &["proof", "--policy"],
        policy,
        &["--proof", &proof_text, "--leaf", &leaf],
    );
    verifier.must_accept(checks)?;
    let mut other = leaf.clone().into_bytes();
    other[10] = if other[10] == b'0' { b'1' } else { b'0' };
    let other = String::from_utf8_lossy(&other).into_owned();
    let checks = words(
        &["proof", "--policy"],
        policy,
        &["--proof", &proof_text, "--leaf", &other],
    );
    if verifier.check(checks)?.is_good {
        return Err(Failure::new(
            "the verifier takes another leaf for the proven one",
        ));
    }
    let namespace = Namespace::new()?;
    let stranger = world.candor("stranger").inside(&namespace);
    let (receipt, policy) = (
        receipt.to_string_lossy().into_owned(),
        policy.to_string_lossy().into_owned(),
    );
    let said = stranger.run(["consent", "verify", &receipt, "--policy", &policy])?;
    println!(
        "without a network, `consent verify` says: {}",
        said.lines().next().unwrap_or_default()
    );
    stranger.run([
        "log",
        "verify",
        &proof_text,
        "--leaf",
        &leaf,
        "--policy",
        &policy,
    ])?;
    let mut spoilt = fs::read(&receipt)?;
    let middle = spoilt.len() / 2;
    spoilt[middle] = if spoilt[middle] == b'A' { b'B' } else { b'A' };
    let bad = world.path("spoilt.receipt");
    fs::write(&bad, spoilt)?;
    let ended = stranger.try_run(["consent", "verify", &bad.to_string_lossy()])?;
    if matches!(ended.status.code(), Some(2 | 4)) {
        return Ok(());
    }
    ended.must_exit(4)
}

/// The first id of a consent in whatever form the history has.
fn find_id(value: &Value) -> Option<String> {
    match value {
        Value::Array(list) => list.iter().find_map(find_id),
        Value::Object(map) => {
            let id = map
                .get("id")
                .and_then(Value::as_str)
                .filter(|id| id.len() == 64);
            id.map(str::to_owned)
                .or_else(|| map.values().find_map(find_id))
        }
        _ => None,
    }
}

fn find_text(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Array(list) => list.iter().find_map(|inner| find_text(inner, name)),
        Value::Object(map) => {
            let text = map.get(name).and_then(Value::as_str);
            text.map(str::to_owned)
                .or_else(|| map.values().find_map(|inner| find_text(inner, name)))
        }
        _ => None,
    }
}

/// The published report, made anew by a script that shares no code with the program.
fn reports(directory: &Path) -> Outcome {
    let script = sys::root().join("e2e/report/recompute.py");
    sys::run(Command::new("python3").arg(&script).arg("--self-test"))?;
    let report = |name: &str| directory.join(name);
    sys::run(
        Command::new("python3")
            .arg(&script)
            .arg(directory)
            .args([report("report.txt"), report("report.json")]),
    )
}

/// Bits turned, files cut and files gone: each is refused.
fn refusals(world: &World, verifier: &Verifier, good: &Path, policy: &Path) -> Outcome {
    let mut files = Vec::new();
    list(good, good, &mut files)?;
    let checked: Vec<&PathBuf> = files
        .iter()
        .filter(|file| file.starts_with("tile") || file.as_os_str() == "checkpoint")
        // Only the files of this checkpoint's tree are looked at; earlier partial ones may be anything.
        .filter(|file| is_of_the_tree(good, file))
        .collect();
    let bad = world.path("bad");
    let mut refused = 0;
    for file in &checked {
        let bytes = fs::read(good.join(file))?;
        let mut spoilt: Vec<Option<Vec<u8>>> = vec![None, Some(bytes[..bytes.len() - 1].to_vec())];
        for number in 0..FLIPS {
            let mut changed = bytes.clone();
            let at = number * bytes.len() / FLIPS;
            changed[at] ^= 1 << (number % 8);
            spoilt.push(Some(changed));
        }
        for one in spoilt {
            if bad.exists() {
                fs::remove_dir_all(&bad)?;
            }
            copy(good, &bad)?;
            match one {
                Some(changed) => fs::write(bad.join(file), changed)?,
                None => fs::remove_file(bad.join(file))?,
            }
            if verifier.check(on_files(policy, &bad))?.is_good {
                return Err(Failure::new(format!(
                    "a spoilt {} is accepted",
                    file.display()
                )));
            }
            refused += 1;
        }
    }
    println!(
        "{refused} spoilt copies of {} files, all refused",
        checked.len()
    );
    Ok(())
}

/// Whether a tile or bundle belongs to the tree of the checkpoint: it is full, or as wide as the tree makes it.
fn is_of_the_tree(log: &Path, file: &Path) -> bool {
    let text = fs::read_to_string(log.join("checkpoint")).unwrap_or_default();
    let size: u64 = text
        .lines()
        .nth(1)
        .and_then(|size| size.parse().ok())
        .unwrap_or(0);
    let name = file.to_string_lossy();
    let Some((before, width)) = name.split_once(".p/") else {
        return true;
    };
    let level: u32 = before
        .split('/')
        .nth(1)
        .and_then(|level| level.parse().ok())
        .unwrap_or(0);
    let hashes = size >> (8 * level);
    width.parse() == Ok(hashes % 256)
}

/// Only one of the witnesses' signatures, where two are asked for.
fn quorum(world: &World, verifier: &Verifier, policy: &Path) -> Outcome {
    let directory = world.path("frozen");
    let one = world.path("one-witness");
    copy(&directory, &one)?;
    let text = fs::read_to_string(one.join("checkpoint"))?;
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("friend-1.example") && !line.contains("friend-2.example"))
        .collect();
    fs::write(one.join("checkpoint"), format!("{}\n", kept.join("\n")))?;
    verifier.must_refuse(on_files(policy, &one), "which make no quorum")
}

/// An older state of the same log, after a newer one was seen.
fn rollback(
    world: &World,
    verifier: &Verifier,
    directory: &Path,
    frozen: &Path,
    policy: &Path,
) -> Outcome {
    let remembered = world.path("seen");
    let remembering = |directory: &Path| -> Vec<std::ffi::OsString> {
        let mut all: Vec<std::ffi::OsString> = on_files(policy, directory)
            .iter()
            .map(std::ffi::OsString::from)
            .collect();
        all.extend(["--remember".into(), remembered.as_os_str().to_owned()]);
        all
    };
    let device = world.candor("device");
    device.run(["consent", "off", "backup"])?;
    let size = |directory: &Path| {
        let text = fs::read_to_string(directory.join("checkpoint")).unwrap_or_default();
        text.lines()
            .nth(1)
            .and_then(|size| size.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let started = Instant::now();
    while size(directory) <= size(frozen) && started.elapsed() < WITNESSED_MAX {
        thread::sleep(Duration::from_millis(200));
    }
    wait_for_cosignatures(directory)?;
    verifier.must_accept(remembering(directory))?;
    verifier.must_refuse(remembering(frozen), "the log was rolled back")
}

fn list(top: &Path, directory: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            list(top, &path, files)?;
        } else if let Ok(relative) = path.strip_prefix(top) {
            files.push(relative.to_owned());
        }
    }
    Ok(())
}

pub(super) fn copy(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if !entry.file_name().to_string_lossy().contains('~') {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
