//! A cell of its own, reached over TLS.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::person::{Person, Running, tree};

pub(crate) struct Cell {
    pub(crate) home: PathBuf,
    pub(crate) running: Running,
    pub(crate) invitation: String,
}

pub(crate) fn start(person: &Person, home: &Path) -> Running {
    Running::start(
        &mut person.command_in(home, ["server", "run"]),
        "listening on",
    )
}

pub(crate) fn cell(person: &Person) -> Cell {
    let home = person.path("cell-home");
    person
        .run_in(
            &home,
            [
                "server",
                "init",
                "--region",
                "test-region",
                "--controller",
                "Somebody Ltd",
            ],
        )
        .must(0)
        .says("invitations will name 127.0.0.1:");
    person
        .run_in(&home, ["server", "init", "--region", "test-region"])
        .must(1)
        .says("hint:");
    person.run_in(&home, ["server", "check-config"]).must(0);
    let running = start(person, &home);
    let invitation = person
        .run_in(&home, ["server", "invite"])
        .must(0)
        .stdout
        .trim()
        .to_owned();
    Cell {
        home,
        running,
        invitation,
    }
}

pub(crate) fn create(person: &Person, cell: &Cell) -> crate::person::Ended {
    let words = [
        "account",
        "create",
        "alice",
        "--cell",
        &cell.invitation,
        "--unprotected-keys",
        "--recovery-file",
    ];
    person.run(
        words
            .iter()
            .map(std::ffi::OsStr::new)
            .chain([person.phrase().as_os_str()]),
    )
}

#[test]
fn a_device_uses_a_cell_elsewhere_and_outlives_its_absence() {
    let person = Person::new();
    let cell = cell(&person);
    create(&person, &cell).must(0);
    person
        .run(["backup", "add", "documents", "--exclude", "*.tmp"])
        .must(0)
        .says("candor consent on backup");
    person.run(["backup", "run", "--all"]).must(3);
    person
        .run(["consent", "on", "backup", "--yes"])
        .must(0)
        .says("Somebody Ltd, region test-region");
    person.run(["backup", "run", "--all"]).must(0);
    let lines = person.run(["ledger", "--json"]).must(0).json();
    assert!(
        lines
            .iter()
            .all(|line| line["ledger-line"]["protocol"] == "tcp")
    );
    assert_eq!(cell.running.terminate(), 0);
    std::fs::write(person.documents().join("later"), "while the cell is down").unwrap();
    person.run(["backup", "run", "--all"]).must(5).says("hint:");
    person.run(["status"]).must(0);
    let again = start(&person, &cell.home);
    person.run(["backup", "run", "--all"]).must(0);
    person
        .run(["backup", "restore", "latest", "--to", "restored"])
        .must(0);
    assert_eq!(
        tree(&person.path("restored/documents")),
        tree(&person.documents())
    );
    assert_eq!(again.terminate(), 0);
}

#[test]
fn old_snapshots_are_forgotten_brought_back_and_pruned_and_the_operator_sees_it() {
    let person = Person::new();
    person
        .run_in(&person.path("nowhere"), ["server", "stats"])
        .must(1)
        .says("candor server init");
    let cell = cell(&person);
    create(&person, &cell).must(0);
    person.run(["backup", "add", "documents"]).must(0);
    person
        .run(["backup", "prune"])
        .must(3)
        .says("candor consent on backup");
    person.run(["consent", "on", "backup", "--yes"]).must(0);
    for n in 0..3 {
        std::fs::write(person.documents().join("changes"), format!("{n}")).unwrap();
        person.run(["backup", "run", "--all"]).must(0);
    }
    person
        .run(["backup", "forget"])
        .must(2)
        .says("--keep-daily");
    let dry = person
        .run(["backup", "forget", "--keep-last", "1", "--dry-run"])
        .must(0);
    assert!(
        dry.stdout
            .contains("2 snapshots would be forgotten, 1 stay"),
        "{}",
        dry.stdout
    );
    let gone = person
        .run(["backup", "forget", "--keep-last", "1", "--json"])
        .must(0)
        .json();
    let gone = &gone[0]["forgotten"];
    assert_eq!(
        (gone["snapshots"].as_array().unwrap().len(), &gone["left"]),
        (2, &1.into())
    );
    let first = gone["snapshots"][0]["snapshot"]
        .as_str()
        .unwrap()
        .to_owned();
    let pruned = person.run(["backup", "prune"]).must(0).says("--forgotten");
    assert!(
        pruned.stdout.contains("the cell deletes them in 30 days"),
        "{}",
        pruned.stdout
    );
    let again = person.run(["backup", "prune"]).must(0);
    assert_eq!(again.stdout.trim(), "nothing is superfluous");
    let stats = person
        .run_in(&cell.home, ["server", "stats", "--json"])
        .must(0)
        .json();
    let stats = &stats[0]["stats"];
    assert_eq!(
        (&stats["accounts"], &stats["vaults"]),
        (&1.into(), &1.into())
    );
    assert!(stats["condemned_objects"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["condemned_bytes"].as_u64() < stats["stored_bytes"].as_u64());
    let list = person.run(["backup", "snapshots", "--forgotten"]).must(0);
    assert!(list.stdout.contains(&first[..8]), "{}", list.stdout);
    person
        .run(["backup", "restore", &first, "--to", "old"])
        .must(1);
    person.run(["backup", "forget", "--undo", &first]).must(0);
    person
        .run(["backup", "restore", &first, "--to", "old"])
        .must(0);
    assert_eq!(
        std::fs::read(person.path("old/documents/changes")).unwrap(),
        b"0"
    );
    person.run(["backup", "check", "--read-data"]).must(0);
    assert_eq!(cell.running.terminate(), 0);
}

#[test]
fn the_phrase_and_the_invitation_bring_everything_back() {
    let person = Person::backed_up();
    let invitation = std::fs::read_to_string(person.home().join("invitation")).unwrap();
    let running = start(&person, person.home());
    // The first device finds its cell in another process, and reaches it like any other.
    person.run(["backup", "run", "--all"]).must(0);
    let lines = person.run(["ledger", "--json"]).must(0).json();
    assert_eq!(lines.last().unwrap()["ledger-line"]["protocol"], "tcp");
    let second = person.path("second");
    let cell = format!("@{}", person.home().join("invitation").display());
    let words = [
        "account",
        "recover",
        "--cell",
        &cell,
        "--unprotected-keys",
        "--recovery-file",
        "phrase.txt",
    ];
    person
        .run_in(&second, words)
        .must(0)
        .says("candor backup ls latest");
    person
        .run_in(&second, ["backup", "restore", "latest", "--to", "restored"])
        .must(0);
    assert_eq!(
        tree(&person.path("restored/documents")),
        tree(&person.documents())
    );
    let devices = person
        .run_in(&second, ["device", "list", "--json"])
        .must(0)
        .field("devices");
    assert_eq!(devices.as_array().unwrap().len(), 2);
    assert!(invitation.starts_with("candor1:"));
    assert_eq!(running.terminate(), 0);
}

#[test]
fn a_wrong_phrase_and_a_bad_invitation_are_refused_and_leave_nothing() {
    let person = Person::new();
    let cell = cell(&person);
    let phrase = person.path("wrong.txt");
    let recover = |invitation: &str| {
        person.run([
            "account",
            "recover",
            "--cell",
            invitation,
            "--unprotected-keys",
            "--recovery-file",
            "wrong.txt",
        ])
    };
    std::fs::write(&phrase, "abandon abandon").unwrap();
    recover(&cell.invitation)
        .must(1)
        .says("24 words")
        .says("hint:");
    std::fs::write(&phrase, "abandon ".repeat(24)).unwrap();
    recover(&cell.invitation)
        .must(1)
        .says("do not belong together");
    std::fs::write(&phrase, format!("{}xyzzy", "abandon ".repeat(23))).unwrap();
    recover(&cell.invitation).must(1).says("word 24");
    // A good phrase of no account of this cell.
    std::fs::write(&phrase, format!("{}art", "abandon ".repeat(23))).unwrap();
    recover(&cell.invitation).must(1).says("hint:");
    recover("candor1:nonsense").must(2).says("hint:");
    recover("@no-such-file").must(2);
    let status = person.run(["status", "--json"]).must(0);
    assert!(status.field("status")["account"].is_null());
    // What was tried does not stand in the way of the right phrase.
    create(&person, &cell).must(0);
}

#[test]
fn an_invitation_opens_one_account() {
    let person = Person::new();
    let cell = cell(&person);
    create(&person, &cell).must(0);
    let other = Person::new();
    create(&other, &cell).must(6).says("candor server invite");
    // A second try goes on with the keys of the first one, and never leaves them less protected than
    // the person says.
    std::fs::write(other.path("passphrase"), "correct horse").unwrap();
    let words = ["account", "create", "alice", "--cell", &cell.invitation];
    let protected = [
        "--recovery-file",
        "other.txt",
        "--passphrase-file",
        "passphrase",
    ];
    other
        .run(words.iter().chain(&protected))
        .must(2)
        .says("without a passphrase");
    assert!(!other.phrase().exists());
    let invitation = person
        .run_in(&cell.home, ["server", "invite"])
        .must(0)
        .stdout
        .trim()
        .to_owned();
    create(&person, &cell).must(1).says("already");
    create(&other, &Cell { invitation, ..cell }).must(0);
}

/// The six digits in what a command said.
fn digits(said: &str) -> &str {
    let is_digits = |line: &&str| {
        let digits = line.chars().filter(char::is_ascii_digit).count();
        line.starts_with("    ") && digits == 6 && line.trim().len() == 7
    };
    said.lines().find(is_digits).unwrap().trim()
}

#[test]
fn a_second_machine_joins_with_a_code_and_is_put_out_again() {
    let person = Person::new();
    let cell = cell(&person);
    create(&person, &cell).must(0);
    person.run(["backup", "add", "documents"]).must(0);
    person.run(["consent", "on", "backup", "--yes"]).must(0);
    person.run(["backup", "run", "--all"]).must(0);
    // Without a terminal nobody compares anything, unless they say so.
    person.run(["device", "link"]).must(2).says("--yes");
    let laptop = person.path("laptop");
    person
        .run_in(&laptop, ["device", "join", "candor-link1:AAAA"])
        .must(2)
        .says("hint:");
    assert!(!laptop.join("keys").exists());

    let mut linking = person.command(["device", "link", "--yes"]);
    let mut linking = linking
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(linking.stdout.take().unwrap());
    let mut code = String::new();
    said.read_line(&mut code).unwrap();
    assert!(code.starts_with("candor-link1:"), "{code}");
    let joined = person
        .run_in(
            &laptop,
            ["device", "join", code.trim(), "--unprotected-keys"],
        )
        .must(0);
    let ended = linking.wait_with_output().unwrap();
    assert!(ended.status.success());
    let at_home = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(digits(&at_home), digits(&joined.stderr));
    let restored = person.path("restored");
    let to = restored.to_str().unwrap();
    person
        .run_in(&laptop, ["backup", "restore", "latest", "--to", to])
        .must(0);
    assert_eq!(tree(&restored.join("documents")), tree(&person.documents()));
    // Used up.
    person
        .run_in(
            &person.path("third"),
            ["device", "join", code.trim(), "--unprotected-keys"],
        )
        .must(6);

    let listed = person.run(["device", "list", "--json"]).must(0).json();
    let listed = listed[0]["devices"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 2);
    let other = listed.iter().find(|one| one["this_device"] == false);
    let id = other.unwrap()["device"].as_str().unwrap().to_owned();
    person.run(["device", "revoke", &id]).must(2).says("--yes");
    let revoked = person.run(["device", "revoke", &id[..10], "--yes"]).must(0);
    assert!(revoked.stdout.contains("is revoked"), "{}", revoked.stdout);
    person
        .run_in(&laptop, ["backup", "ls", "latest"])
        .must(6)
        .says("this device was revoked");
    let listed = person.run(["device", "list"]).must(0);
    assert!(listed.stdout.contains("revoked 20"), "{}", listed.stdout);
    std::fs::write(person.documents().join("later"), "afterwards").unwrap();
    person.run(["backup", "run", "--all"]).must(0);
    assert_eq!(cell.running.terminate(), 0);
}
