//! The cell's log, as somebody looks at it who was backed up.

use std::fs;

use crate::person::{Person, Running};

#[test]
fn the_log_is_looked_through_shown_and_compared() {
    let person = Person::backed_up();
    let status = person.run(["status", "--json"]).must(0).field("status");
    assert_eq!(status["log"]["standing"], "unwitnessed");
    assert_eq!(status["witnessed"], false);
    let shown = person.run(["status"]).must(0).stdout;
    assert!(shown.contains("nobody but the cell vouches"), "{shown}");

    let monitor = person.run(["log", "monitor"]).must(0).stdout;
    assert!(
        monitor.contains("5 of 5 statements of this account found"),
        "{monitor}"
    );
    let monitor = person.run(["log", "monitor", "--json"]).must(0);
    let monitor = monitor.field("monitor");
    assert_eq!(
        (&monitor["found"], &monitor["state_matches"]),
        (&5.into(), &true.into())
    );

    let ended = person.run(["log", "checkpoint"]).must(0);
    let ended = ended.says("The log has").says("unwitnessed");
    assert!(
        ended.stdout.contains(".cell.invalid/log\n"),
        "{}",
        ended.stdout
    );
    let kept = person.path("checkpoint");
    fs::write(&kept, &ended.stdout).unwrap();
    let compare = [
        "log".as_ref(),
        "checkpoint".as_ref(),
        "--compare".as_ref(),
        kept.as_os_str(),
    ];
    person.run(compare).must(0).says("belongs to the same log");
    fs::write(&kept, "something else").unwrap();
    person.run(compare).must(2).says("candor log checkpoint");
}

#[test]
fn a_consent_is_proven_into_a_file() {
    let person = Person::backed_up();
    let consents = person.run(["consent", "list", "--json"]).must(0);
    let id = consents.field("consents")[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let file = person.path("consent.tlog-proof");
    let words = ["log", "prove", &id[..16], "-o", file.to_str().unwrap()];
    person.run(words).must(0).says("candor log verify");
    let proof = fs::read_to_string(&file).unwrap();
    assert!(proof.starts_with("c2sp.org/tlog-proof@v1\n"), "{proof}");
    person.run(words).must(1).says("cannot write");
    person
        .run(["log", "prove", "not-an-id"])
        .must(2)
        .says("candor consent history --json");
}

#[test]
fn somebody_without_an_account_is_told_what_to_do() {
    let person = Person::new();
    for words in [
        &["log", "monitor"][..],
        &["log", "checkpoint"],
        &["log", "prove", "ab"],
    ] {
        person.run(words).must(1).says("candor up");
    }
    assert!(!person.home().exists());
}

#[test]
fn a_policy_that_makes_no_sense_is_wrong_usage() {
    let person = Person::backed_up();
    fs::write(person.home().join("log-policy"), "quorum\n").unwrap();
    person
        .run(["log", "checkpoint"])
        .must(2)
        .says("line 1 of the policy");
    // It keeps nobody from a backup, and is said.
    person
        .run(["backup", "run", "--all"])
        .must(0)
        .says("log could not be checked");
    let warnings = person.run(["status", "--json"]).must(0).field("status");
    assert!(warnings["warnings"].to_string().contains("log-policy"));
}

/// A friend's witness, the person's own cell, and the policy that asks for the friend's word.
#[test]
fn a_friend_makes_the_log_a_witnessed_one() {
    const TRIES: usize = 40;
    let person = Person::backed_up();
    let friend = person.path("friend");
    let log = person.run(["log", "key"]).must(0).stdout;
    let listen = ["log", "witness", "run", "--listen", "127.0.0.1:0"];
    let named: Vec<&str> = listen
        .into_iter()
        .chain(["--name", "friend.example/w"])
        .collect();
    let witness = Running::spawn(&mut person.command_in(&friend, &named));
    let line = witness.wait_for("listening on http://");
    let address = line.rsplit("http://").next().unwrap().trim().to_owned();
    person
        .run_in(&friend, ["log", "witness", "add", log.trim()])
        .must(0);
    let vkey = person.run_in(&friend, ["log", "witness", "key"]).must(0);
    let vkey = vkey.stdout.trim().to_owned();
    let policy = format!("log {log}witness friend {vkey}\nquorum friend\n");
    fs::write(person.home().join("log-policy"), policy).unwrap();
    person
        .run(["log", "checkpoint"])
        .must(0)
        .says("unwitnessed: no quorum");

    let settings = person.home().join("cell/cell.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let text = format!("{text}\n[log]\nwitnesses = [\"{vkey} http://{address}\"]\n");
    fs::write(&settings, text).unwrap();
    // The cell runs with each command, and asks its witness when it begins to.
    let is_witnessed = |_| {
        let monitor = person.run(["log", "monitor", "--json"]).must(0);
        monitor.field("monitor")["log"]["standing"] == "witnessed"
    };
    assert!((0..TRIES).any(is_witnessed), "never witnessed");
    let status = person.run(["status"]).must(0).stdout;
    assert!(
        status.contains("witnessed less than an hour ago by friend"),
        "{status}"
    );
    let status = person.run(["status", "--json"]).must(0).field("status");
    assert_eq!(status["witnessed"], true);
    assert_eq!(witness.terminate(), 0);
}
