//! What goes wrong has its sentence, its hint and its exit code.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;

use rustix::fs::FlockOperation;

use crate::person::{Person, ended};

/// Somebody without special rights.
const NOBODY: u32 = 65_534;

#[test]
fn a_passphrase_opens_the_keys_and_a_wrong_one_does_not() {
    let person = Person::new();
    fs::write(person.path("right"), "correct horse\n").unwrap();
    fs::write(person.path("wrong"), "battery staple\n").unwrap();
    fs::write(person.path("none"), "\n").unwrap();
    let words = [
        "up",
        "documents",
        "--yes",
        "--once",
        "--recovery-file",
        "phrase.txt",
        "--passphrase-file",
    ];
    person.run(words.iter().chain(&["none"])).must(2);
    person.run(words.iter().chain(&["right"])).must(0);
    person
        .run(["status"])
        .must(2)
        .says("--passphrase-file FILE");
    person
        .run(["status", "--passphrase-file", "wrong"])
        .must(1)
        .says("does not open the key store")
        .says("hint:");
    let status = person
        .run(["status", "--passphrase-file", "right", "--json"])
        .must(0);
    assert_eq!(
        status.field("status")["account"]["keys_protected_by"],
        "passphrase"
    );
}

#[test]
fn a_locked_device_database_is_said() {
    let person = Person::backed_up();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(person.home().join("device.sqlite"))
        .unwrap();
    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    person.run(["backup", "run", "--all"]).must(1).says("hint:");
    drop(file);
    person.run(["backup", "run", "--all"]).must(0);
}

#[test]
fn a_damaged_device_database_is_said_and_not_replaced() {
    let person = Person::backed_up();
    let path = person.home().join("device.sqlite");
    for beside in ["device.sqlite-wal", "device.sqlite-shm"] {
        let _ = fs::remove_file(person.home().join(beside));
    }
    fs::write(
        &path,
        "this is no database, and it is longer than a header of one. ".repeat(100),
    )
    .unwrap();
    let before = fs::read(&path).unwrap();
    person.run(["status"]).must(1).says("hint:");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn damaged_keys_are_said_and_not_replaced() {
    let person = Person::backed_up();
    let path = person.home().join("keys");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    person.run(["status"]).must(1).says("hint:");
    person.run(["up", "documents", "--once", "--yes"]).must(1);
    assert_eq!(fs::read(&path).unwrap().len(), whole.len() / 2);
}

#[test]
fn an_object_that_the_cell_lost_is_found_by_check() {
    let person = Person::backed_up();
    let objects = person.home().join("cell/store/objects");
    for (path, _) in crate::person::tree(&objects) {
        fs::remove_file(objects.join(path)).unwrap();
    }
    person.run(["backup", "check"]).must(4);
    person
        .run(["backup", "restore", "latest", "--to", "restored"])
        .must(4);
}

#[test]
fn a_file_that_cannot_be_read_is_listed_and_exits_with_7() {
    if !rustix::process::geteuid().is_root() {
        return unreadable(&Person::new(), ended);
    }
    // Root can read everything: run it as somebody who cannot.
    let person = Person::new();
    let program = person.path("candor");
    fs::copy(env!("CARGO_BIN_EXE_candor"), &program).unwrap();
    for path in [
        "",
        "documents",
        "documents/letters",
        "documents/two.txt",
        "documents/empty",
        "documents/letters/one.txt",
    ] {
        chown(person.path(path), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    unreadable(&person, |command| {
        let mut other = std::process::Command::new(&program);
        other
            .args(command.get_args())
            .current_dir(command.get_current_dir().unwrap());
        other
            .stdin(std::process::Stdio::null())
            .uid(NOBODY)
            .gid(NOBODY);
        ended(&mut other)
    });
}

fn unreadable(person: &Person, run: impl Fn(&mut std::process::Command) -> crate::person::Ended) {
    fs::set_permissions(
        person.documents().join("two.txt"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    let words = person.up_words();
    let done = run(&mut person.command(words.iter().map(String::as_str).chain(["--once"]))).must(7);
    let done = done.says("two.txt").says("done in part");
    assert!(
        done.stdout.contains("1 file could not be saved"),
        "{}",
        done.stdout
    );
    let status = run(&mut person.command(["status", "--json"])).must(0);
    assert_eq!(status.field("status")["sets"][0]["last_problems"], 1);
    let backups = run(&mut person.command(["backup", "run", "--all", "--json"])).must(7);
    assert_eq!(
        backups.field("problem")["path"]["text"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next(),
        Some("two.txt")
    );
    assert_eq!(backups.field("failure")["kind"], "partial");
}
