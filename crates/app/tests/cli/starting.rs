//! Somebody new: nothing is made by mistake, nothing is sent without a yes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::person::{Person, tree};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Bytes of objects in the embedded cell.
fn stored(person: &Person) -> usize {
    let objects = person.home().join("cell/store/objects");
    if objects.exists() {
        tree(&objects)
            .iter()
            .map(|(_, content)| content.len())
            .sum()
    } else {
        0
    }
}

#[test]
fn a_path_that_does_not_exist_exits_with_2_and_makes_nothing() {
    let person = Person::new();
    let ended = person
        .run(["up", "no-such-folder", "--yes", "--once"])
        .must(2);
    ended
        .says("no-such-folder cannot be backed up")
        .says("hint:");
    assert!(!person.home().exists());
}

#[test]
fn without_a_terminal_the_phrase_needs_a_file_and_the_keys_a_word() {
    let person = Person::new();
    person
        .run(["up", "documents", "--yes", "--once", "--unprotected-keys"])
        .must(2)
        .says("--recovery-file FILE");
    person
        .run([
            "up",
            "documents",
            "--yes",
            "--once",
            "--recovery-file",
            "phrase.txt",
        ])
        .must(2)
        .says("--passphrase-file FILE");
    fs::write(person.phrase(), "something else").unwrap();
    person
        .run(person.up_words())
        .must(2)
        .says("is there already");
    assert_eq!(
        fs::read_to_string(person.phrase()).unwrap(),
        "something else"
    );
    assert!(!person.home().exists());
}

#[test]
fn looking_around_without_an_account_makes_nothing() {
    let person = Person::new();
    let status = person.run(["status", "--json"]).must(0);
    assert!(status.field("status")["account"].is_null());
    assert_eq!(
        person
            .run(["consent", "list", "--json"])
            .must(0)
            .field("consents"),
        serde_json::json!([])
    );
    assert_eq!(
        person
            .run(["backup", "list", "--json"])
            .must(0)
            .field("sets"),
        serde_json::json!([])
    );
    person
        .run(["backup", "run", "--all"])
        .must(1)
        .says("there is no account")
        .says("hint: `candor up PATH`");
    let failure = person.run(["ledger", "--json"]).must(1).field("failure");
    assert_eq!(failure["kind"], "failed");
    assert!(!person.home().exists());
}

#[test]
fn without_a_yes_nothing_is_sent() {
    let person = Person::new();
    let words = person.up_words();
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| *word != "--yes")
        .chain(["--once"])
        .collect();
    let ended = person.run(words).must(3);
    let ended = ended
        .says("What is sent")
        .says("nothing was sent")
        .says("candor consent on backup");
    assert!(!ended.stderr.contains("Answered with --yes"));
    assert_eq!(stored(&person), 0);
    person
        .run(["backup", "run", "--all"])
        .must(3)
        .says("candor consent on backup");
    assert_eq!(stored(&person), 0);
    assert_eq!(
        person.run(["status", "--json"]).must(0).field("status")["sets"][0]["consent"],
        "off"
    );
}

#[test]
fn up_once_backs_up_compares_a_sample_and_says_what_is_not_safe() {
    let person = Person::new();
    let words = person.up_words();
    let ended = person
        .run(words.iter().map(String::as_str).chain(["--once"]))
        .must(0);
    let ended = ended
        .says("Answered with --yes.")
        .says("restored and compared: equal");
    for text in [
        "SAFE",
        "NOT SAFE",
        "loss of this disk",
        "not confirmed",
        "unwitnessed",
        "candor backup restore documents:latest",
    ] {
        assert!(
            ended.stdout.contains(text),
            "`{text}` is not in:\n{}",
            ended.stdout
        );
    }
    assert!(
        ended.stdout.lines().count() <= 30,
        "more than one screen:\n{}",
        ended.stdout
    );
    assert_eq!(
        fs::read_to_string(person.phrase())
            .unwrap()
            .split_whitespace()
            .count(),
        24
    );
    assert_eq!(mode(&person.phrase()), 0o600);
    assert_eq!(mode(person.home()), 0o700);
    for private in ["invitation", "keys"] {
        assert_eq!(mode(&person.home().join(private)), 0o600, "{private}");
    }
    assert!(stored(&person) > 0);
    let left: Vec<_> = fs::read_dir(person.home())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let is_left = |name: &str| {
        left.iter()
            .any(|one| one.to_string_lossy().starts_with(name))
    };
    assert!(
        !is_left("sample-") && !is_left("engine.sock") && !is_left("cell.sock"),
        "{left:?}"
    );
}

#[test]
fn the_consent_text_says_what_where_how_long_who_and_how_to_stop() {
    let person = Person::backed_up();
    fs::create_dir(person.path("pictures")).unwrap();
    person.run(["backup", "add", "pictures"]).must(0);
    let show = person.run(["consent", "show", "backup"]).must(0);
    let text = show
        .stdout
        .split("CONSENT")
        .next()
        .unwrap()
        .replace(person.path("").to_str().unwrap(), "[folder]/");
    let mut words: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in &mut words {
        let hidden = |word: &str| {
            let is_id = word.len() >= 32
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() || byte == b'.');
            let is_date = word.len() >= 10 && word.starts_with("20") && word.as_bytes()[4] == b'-';
            if is_id {
                "[cell].".to_owned()
            } else if is_date {
                "[date],".to_owned()
            } else {
                word.to_owned()
            }
        };
        *line = line.split(' ').map(hidden).collect::<Vec<_>>().join(" ");
    }
    insta::assert_snapshot!(words.join("\n").trim_end(), @r"
    BACKUP: what you are asked

    What is sent    The files in: [folder]/pictures.
                    Contents, names and properties are locked on this device before
                    anything leaves it. Only your devices and your recovery phrase can
                    open them.
    Where to        you (this machine), region home, cell [cell].
    How long        Until [date], unless you stop earlier. Then nothing more is sent,
                    and you are asked again.
    Who can read    You. The cell cannot: it has no key. It can see how many locked
                    objects there are, how large they are, when they come and go, the
                    network address of this device, and random numbers that stand for
                    your account, device and backup.
    How to stop     candor consent off backup
                    It takes effect at once, and nothing more is sent. What was stored
                    stays at the cell, locked. If you say
                    candor consent off backup --erase
                    it is gone 30 days later, and the cell signs a receipt of that.
                    Until then you can change your mind.
    ");
}

#[test]
fn starting_again_asks_nothing_and_sends_nothing_twice() {
    let person = Person::backed_up();
    let ended = person.run(["up", "documents", "--once", "--json"]).must(0);
    let backup = &ended.field("backups")[0];
    assert_eq!(
        (backup["files"].as_u64(), backup["new_bytes"].as_u64()),
        (Some(3), Some(0))
    );
    assert_eq!(backup["problems"], 0);
    assert!(!ended.stderr.contains("What is sent"));
}

#[test]
fn what_was_saved_comes_back_and_a_second_restore_writes_nothing() {
    let person = Person::backed_up();
    person
        .run(["backup", "restore", "latest", "--to", "restored"])
        .must(0);
    assert_eq!(
        tree(&person.path("restored/documents")),
        tree(&person.documents())
    );
    let again = person
        .run([
            "backup",
            "restore",
            "documents:latest",
            "--to",
            "restored",
            "--json",
        ])
        .must(0);
    assert_eq!(again.field("restored")["already_there"], 3);
    person
        .run([
            "backup",
            "restore",
            "latest",
            "documents/letters/",
            "--to",
            "letters",
        ])
        .must(0);
    assert_eq!(tree(&person.path("letters/documents")).len(), 1);
}

#[test]
fn everything_can_be_looked_at_as_json() {
    let person = Person::backed_up();
    fs::write(person.documents().join("three"), "new").unwrap();
    person.run(["backup", "run", "documents"]).must(0);
    let snapshots = person
        .run(["backup", "snapshots", "documents", "--json"])
        .must(0)
        .field("snapshots");
    let ids: Vec<&str> = snapshots
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["snapshot"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2);
    let entries = person
        .run(["backup", "ls", "latest", "--recursive", "--json"])
        .must(0)
        .json();
    let find = |path: &str| {
        entries
            .iter()
            .find(|one| one["entry"]["path"]["text"] == path)
    };
    assert_eq!(find("documents/two.txt").unwrap()["entry"]["bytes"], 13);
    assert_eq!(
        find("documents/letters").unwrap()["entry"]["kind"],
        "folder"
    );
    let found = person
        .run(["backup", "find", "one.*", "--json"])
        .must(0)
        .json();
    assert!(
        !found.is_empty()
            && found
                .iter()
                .all(|one| one["entry"]["path"]["text"] == "documents/letters/one.txt")
    );
    let mut times: Vec<(i64, &str)> = snapshots
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["time_ms"].as_i64().unwrap(),
                one["snapshot"].as_str().unwrap(),
            )
        })
        .collect();
    times.sort_unstable();
    let differences = person
        .run(["backup", "diff", times[0].1, times[1].1, "--json"])
        .must(0)
        .json();
    assert!(
        differences
            .iter()
            .any(|one| one["difference"]["change"] == "added"
                && one["difference"]["path"]["text"] == "documents/three")
    );
    let checked = person
        .run(["backup", "check", "--read-data", "--json"])
        .must(0)
        .field("checked");
    assert_eq!(checked["damaged"], serde_json::json!([]));
    assert!(checked["bytes_read"].as_u64().unwrap() > 0);
    assert_eq!(
        person
            .run(["account", "show", "--json"])
            .must(0)
            .field("account")["role"],
        "full"
    );
    assert_eq!(
        person
            .run(["device", "list", "--json"])
            .must(0)
            .field("devices")[0]["this_device"],
        true
    );
    assert_eq!(
        person
            .run(["consent", "history", "--json"])
            .must(0)
            .field("consents")[0]["state"],
        "live"
    );
}

#[test]
fn the_ledger_is_listed_added_up_exported_and_verified() {
    let person = Person::backed_up();
    let lines = person.run(["ledger", "--json"]).must(0).json();
    assert!(
        !lines.is_empty()
            && lines
                .iter()
                .all(|line| line["ledger-line"]["protocol"] == "in-process")
    );
    assert_eq!(
        person
            .run(["ledger", "--since", "2999-01-01", "--json"])
            .must(0)
            .stdout,
        ""
    );
    assert!(
        person
            .run(["ledger", "--by", "service", "--json"])
            .must(0)
            .field("sums")["backup"]["plain_out"]
            .as_u64()
            .unwrap()
            > 0
    );
    person
        .run(["ledger", "export", "-o", "ledger.jsonl"])
        .must(0);
    assert_eq!(mode(&person.path("ledger.jsonl")), 0o600);
    person
        .run(["ledger", "export", "-o", "ledger.jsonl"])
        .must(1);
    person.run(["ledger", "verify"]).must(0);
    person
        .run(["ledger", "--since", "yesterday"])
        .must(2)
        .says("hint:");
}
