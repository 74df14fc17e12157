//! Being asked to stop, in the middle.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::person::{Person, Running, tree};

/// Enough that a run takes a while: many packs.
const LARGE_BYTES: usize = 160 << 20;

/// Bytes that no compressor makes smaller, the same every time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Files below a folder, while others come and go.
fn count(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .map(|path| if path.is_dir() { count(&path) } else { 1 })
        .sum()
}

#[test]
fn a_run_that_is_stopped_says_so_and_the_next_one_goes_on() {
    let person = Person::backed_up();
    fs::write(person.documents().join("large"), noise(LARGE_BYTES)).unwrap();
    let objects = person.home().join("cell/store/objects");
    let before = count(&objects);
    let run = Running::spawn(&mut person.command(["backup", "run", "--all"]));
    // Until the first packs of it are at the cell.
    while count(&objects) < before + 3 {
        thread::sleep(Duration::from_millis(5));
    }
    let code = run.terminate();
    if code == 0 {
        // A machine fast enough to have finished in between: nothing was interrupted.
        return;
    }
    assert_eq!(code, 1);
    let set = person
        .run(["backup", "list", "--json"])
        .must(0)
        .field("sets")[0]
        .clone();
    assert_eq!(set["interrupted"], true);
    let done = person.run(["backup", "run", "--all", "--json"]).must(0);
    let sent = done.field("backups")[0]["stored_bytes"].as_u64().unwrap();
    assert!(
        sent < LARGE_BYTES as u64,
        "{sent} bytes were sent: what was acknowledged was sent again"
    );
    person
        .run(["backup", "restore", "latest", "--to", "restored"])
        .must(0);
    assert_eq!(
        tree(&person.path("restored/documents")),
        tree(&person.documents())
    );
}
