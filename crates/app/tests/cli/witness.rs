//! A witness beside a cell, both as people run them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::person::{Person, Running};

/// How long the cell may take to publish a checkpoint that the witness cosigned.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn address_of(line: &str) -> String {
    line.rsplit("http://").next().unwrap().trim().to_owned()
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: witness\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

const LISTEN: [&str; 5] = ["log", "witness", "run", "--listen", "127.0.0.1:0"];

/// The name is kept, and so is what was cosigned; a record that is gone is said at the start.
fn what_was_cosigned_is_kept(person: &Person, friend: &Path) {
    let other: Vec<&str> = LISTEN
        .into_iter()
        .chain(["--name", "other.example"])
        .collect();
    person
        .run_in(friend, &other)
        .must(2)
        .says("friend.example/w");
    let newest = friend.join("witness/newest");
    let record = std::fs::read_dir(&newest).unwrap().next().unwrap().unwrap();
    std::fs::remove_file(record.path()).unwrap();
    let witness = Running::spawn(&mut person.command_in(friend, LISTEN));
    witness.wait_for("REFUSES");
    assert_eq!(witness.terminate(), 0);
    std::fs::remove_file(friend.join("witness/witness.key")).unwrap();
    person
        .run_in(friend, LISTEN)
        .must(4)
        .says("put witness.key back");
}

#[test]
fn a_cell_is_witnessed_on_another_machine() {
    let person = Person::new();
    let (cell, friend) = (person.path("cell"), person.path("friend"));
    let words = ["server", "init", "--region", "home"];
    person.run_in(&cell, words).must(0);
    let log = person.run_in(&cell, ["log", "key"]).must(0).stdout;
    let log = log.trim();
    assert!(log.contains(".cell.invalid/log+"), "{log}");

    person
        .run_in(&friend, ["log", "witness", "key"])
        .must(1)
        .says("candor log witness run");
    person
        .run_in(&friend, ["log", "witness", "add", log])
        .must(0);
    let named: Vec<&str> = LISTEN
        .into_iter()
        .chain(["--name", "friend.example/w"])
        .collect();
    let witness = Running::spawn(&mut person.command_in(&friend, &named));
    witness.wait_for("nothing cosigned yet");
    let address = address_of(&witness.wait_for("listening on http://"));
    let vkey = person.run_in(&friend, ["log", "witness", "key"]).must(0);
    let vkey = vkey.stdout.trim();
    assert!(vkey.starts_with("friend.example/w+"), "{vkey}");
    person
        .run_in(&friend, LISTEN)
        .must(1)
        .says("another process");
    let again = person.run_in(&friend, ["log", "witness", "add", log, "--json"]);
    assert_eq!(again.must(0).field("added")["is-new"], false);

    // The cell is told of its witness, and publishes with a cosignature.
    let settings = cell.join("cell/cell.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    let text = format!("{text}\n[log]\nwitnesses = [\"{vkey} http://{address}\"]\n");
    std::fs::write(&settings, text).unwrap();
    let serving = Running::start(
        &mut person.command_in(&cell, ["server", "run"]),
        "listening on",
    );
    let published = cell.join("cell/store/log/checkpoint");
    let began = Instant::now();
    while !std::fs::read_to_string(&published).is_ok_and(|text| text.contains("friend.example/w")) {
        assert!(began.elapsed() < WAIT_MAX, "never witnessed");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(get(&address, "/").starts_with("HTTP/1.1 404"));
    // While the cell runs, its key can still be asked for.
    assert_eq!(
        person.run_in(&cell, ["log", "key"]).must(0).stdout.trim(),
        log
    );
    assert_eq!(serving.terminate(), 0);
    assert_eq!(witness.terminate(), 0);

    what_was_cosigned_is_kept(&person, &friend);
}

#[test]
fn what_is_not_the_key_of_a_log_is_wrong_usage() {
    let person = Person::new();
    let add = |text: &str| person.run(["log", "witness", "add", text]);
    add("nonsense").must(2).says("NAME+ID+KEY");
    let witness =
        "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO";
    add(witness).must(2).says("not of a log");
    assert!(!person.home().exists());
    person.run(["log", "key"]).must(1).says("hint:");
    person.run(["log", "witness", "run"]).must(2);
}
