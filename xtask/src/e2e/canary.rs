//! What a cell learns: known plaintexts go through a whole scenario, then everything the cell has is searched.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::capture::Capture;
use super::compare::{With, same_tree};
use super::namespace::Namespace;
use super::scan::{Hit, Scanner};
use super::world::{Candor, CellProcess, World};
use crate::sys::{Doing, Failure, Outcome};

/// What must never be seen: contents, names of files and folders, the target of a link, an attribute, the name of
/// the backup set.
const CANARIES: [(&str, &[u8]); 9] = [
    ("a letter's text", b"canary-text-5d1f0c6e-dear-alice"),
    ("a number in a large file", b"canary-imei-490154203237518"),
    ("a phone number", b"canary-phone-+8613800138000"),
    ("a file's name", b"canary-file-name-77ab.txt"),
    ("a folder's name", b"canary-folder-name-19cd"),
    ("a link's target", b"canary-link-target-e0f2"),
    ("the set's name", b"canary-set-name-b4a3"),
    ("text added later", b"canary-later-text-c8e1"),
    ("the account's name", ACCOUNT_NAME.as_bytes()),
];

/// What the person calls the account; stays on the device.
const ACCOUNT_NAME: &str = "canary-account-name-6e21";

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

    let ids = Ids::of(&world.candor("device").inside(&namespace))?;
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
    let in_the_log = ids.search(&super::log::log_directory(&cell_home))?;
    println!("no account, device, statement or name in {in_the_log} bytes of the public log");
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
        ACCOUNT_NAME,
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

/// What strangers must not learn from the log: who has an account, and what was agreed.
struct Ids(Vec<(String, Vec<u8>)>);

impl Ids {
    /// The account's ids, its name, and the whole signed consent, as the device tells them.
    fn of(device: &Candor<'_>) -> Outcome<Self> {
        let mut all = vec![(
            "the account's name".to_owned(),
            ACCOUNT_NAME.as_bytes().to_vec(),
        )];
        let told = device.run(["account", "show", "--json"])?
            + &device.run(["consent", "history", "--json"])?;
        for word in told.split(|letter: char| !letter.is_ascii_hexdigit()) {
            // Ids of accounts, devices and vaults have 32 digits; a statement's id is public as a commitment.
            if word.len() == 32 {
                let bytes: Option<Vec<u8>> = (0..16)
                    .map(|at| u8::from_str_radix(&word[2 * at..2 * at + 2], 16).ok())
                    .collect();
                let bytes = bytes.ok_or_else(|| Failure::new("an id is not hexadecimal"))?;
                all.push((format!("the id {word}"), bytes));
                all.push((format!("the id {word} as text"), word.as_bytes().to_vec()));
            }
        }
        // The cell's own id is in the log's origin, and in nobody's way.
        let cell = device.run(["account", "show", "--json"])?;
        let cell: serde_json::Value = serde_json::from_str(&cell).doing("the account")?;
        let cell = find_cell(&cell).unwrap_or_default();
        all.retain(|(name, _)| cell.is_empty() || !name.contains(&cell));
        if all.len() < 5 {
            return Err(Failure::new("too few ids were found to say anything"));
        }
        Ok(Self(all))
    }

    /// Searches the published files; says how many bytes they have.
    fn search(&self, log: &Path) -> Outcome<u64> {
        let canaries: Vec<(&str, &[u8])> = self
            .0
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
            .collect();
        let scanner = Scanner::new(&canaries)?;
        let mut hits = Vec::new();
        let bytes = scanner.scan_directory(log, &mut hits)?;
        report(&hits)?;
        if bytes < 1000 {
            return Err(Failure::new("the public log is too small to say anything"));
        }
        Ok(bytes)
    }
}

fn find_cell(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Object(map) => {
            let own = map.get("cell").and_then(serde_json::Value::as_str);
            own.map(str::to_owned)
                .or_else(|| map.values().find_map(find_cell))
        }
        _ => None,
    }
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
    // These two are nowhere in the source.
    for (name, _) in CANARIES
        .iter()
        .filter(|(name, _)| *name != "the set's name" && *name != "the account's name")
    {
        if !hits.iter().any(|hit| hit.form.starts_with(name)) {
            return Err(Failure::new(format!(
                "the search does not find {name} in the source either"
            )));
        }
    }
    Ok(())
}
