//! What a cell learns: known plaintexts go through a whole scenario, then everything the cell has is searched.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::capture::Capture;
use super::compare::{With, same_tree};
use super::namespace::Namespace;
use super::scan::{Hit, Scanner};
use super::world::{CellProcess, World};
use crate::sys::{Doing, Failure, Outcome};

/// What must never be seen: contents, names of files and folders, the target of a link, an attribute, the name of
/// the backup set.
const CANARIES: [(&str, &[u8]); 8] = [
    ("a letter's text", b"canary-text-5d1f0c6e-dear-alice"),
    ("a number in a large file", b"canary-imei-490154203237518"),
    ("a phone number", b"canary-phone-+8613800138000"),
    ("a file's name", b"canary-file-name-77ab.txt"),
    ("a folder's name", b"canary-folder-name-19cd"),
    ("a link's target", b"canary-link-target-e0f2"),
    ("the set's name", b"canary-set-name-b4a3"),
    ("text added later", b"canary-later-text-c8e1"),
];

/// Runs a device and a separate cell in a namespace, and searches all that the cell holds and all that passed by.
pub(super) fn no_plaintext_at_the_cell(world: &World) -> Outcome {
    let scanner = Scanner::new(&CANARIES)?;
    let namespace = Namespace::new()?;
    let capture_file = world.path("all.pcap");
    let capture = Capture::start(&namespace, &capture_file)?;
    let source = world.path("source");
    let log = world.path("cell.log");
    let cell_home = world.candor("cell").inside(&namespace);
    let (cell, invitation) = cell_home.new_cell(&log)?;

    use_everything(world, &namespace, &source, &invitation)?;

    let mut hits = Vec::new();
    scan_cell(&scanner, &cell, cell_home.home(), &log, &mut hits)?;
    let packets = capture.stop()?;
    if packets == 0 {
        return Err(Failure::new("the capture is empty, so it shows nothing"));
    }
    scanner.scan_file(&capture_file, &mut hits)?;
    cell.stop()?;
    // Once more at rest: what was in a write-ahead log may now be in the database.
    scanner.scan_directory(cell_home.home(), &mut hits)?;
    report(&hits)?;
    println!("no canary in the cell's files, its log, {packets} packets and its memory");
    the_search_finds(&scanner, &source)
}

/// Everything that a person does with backups, with canaries in all of it.
fn use_everything(
    world: &World,
    namespace: &Namespace,
    source: &Path,
    invitation: &str,
) -> Outcome {
    let text = |number: usize| String::from_utf8_lossy(CANARIES[number].1).into_owned();
    let (file, folder, set) = (text(3), text(4), text(6));
    fs::create_dir_all(source.join(&folder))?;
    fs::write(source.join(&file), text(0).repeat(50))?;
    let numbers: String = (0..200_000)
        .map(|line| format!("{line} {} {}\n", text(1), text(2)))
        .collect();
    fs::write(source.join(&folder).join("numbers"), numbers)?;
    std::os::unix::fs::symlink(text(5), source.join("link"))?;

    let device = world.candor("device").inside(namespace);
    let words = |words: &[&str], path: &Path| -> Vec<OsString> {
        words
            .iter()
            .map(OsString::from)
            .chain([path.as_os_str().to_owned()])
            .collect()
    };
    let create = [
        "account",
        "create",
        "someone",
        "--cell",
        invitation,
        "--unprotected-keys",
        "--recovery-file",
    ];
    device.run(words(&create, &world.path("phrase.txt")))?;
    let mut add = words(&["backup", "add"], source);
    add.extend(["--name", &set].map(OsString::from));
    device.run(add)?;
    device.run(["consent", "on", "backup", "--yes"])?;
    device.run(["backup", "run", "--all"])?;
    fs::write(source.join(&folder).join("later"), text(7))?;
    device.run(["backup", "run", &set])?;
    device.run(["backup", "snapshots", &set, "--json"])?;
    device.run(["backup", "check", "--read-data"])?;
    device.run(words(
        &["backup", "restore", "latest", "--to"],
        &world.path("restored"),
    ))?;
    same_tree(
        source,
        &world.path("restored").join("source"),
        With::DiffAndRsync,
    )
}

fn scan_cell(
    scanner: &Scanner,
    cell: &CellProcess,
    home: &Path,
    log: &Path,
    hits: &mut Vec<Hit>,
) -> Outcome {
    let memory = scanner
        .scan_memory(cell.id(), hits)
        .doing("the cell's memory")?;
    let files = scanner.scan_directory(home, hits)?;
    let logged = scanner.scan_file(log, hits)?;
    println!("searched {memory} bytes of memory, {files} of files, {logged} of logs");
    // A cell that took a backup holds at least a pack; less means that the wrong place was searched.
    if memory < 1 << 20 || files < 64 << 10 {
        return Err(Failure::new("too little was searched to say anything"));
    }
    Ok(())
}

fn report(hits: &[Hit]) -> Outcome {
    let lines: Vec<String> = hits
        .iter()
        .map(|hit| format!("{} in {}", hit.form, hit.place))
        .collect();
    crate::sys::no_findings("plaintext where none may be", &lines)
}

/// The search itself works: it finds in the source what it did not find at the cell.
fn the_search_finds(scanner: &Scanner, source: &Path) -> Outcome {
    let mut hits = Vec::new();
    scanner.scan_directory(source, &mut hits)?;
    // The set's name is nowhere in the source.
    for (name, _) in CANARIES
        .iter()
        .filter(|(name, _)| *name != "the set's name")
    {
        if !hits.iter().any(|hit| hit.form.starts_with(name)) {
            return Err(Failure::new(format!(
                "the search does not find {name} in the source either"
            )));
        }
    }
    Ok(())
}
