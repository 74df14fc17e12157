//! One engine, many commands.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use std::io::{Read as _, Write as _};

use crate::person::{Person, ended};

/// Somebody else on this machine.
const NOBODY: u32 = 65_534;

/// Tells the test that runs as somebody else where the socket is.
const SOCKET_VARIABLE: &str = "CANDOR_TEST_SOCKET";

#[test]
fn commands_and_a_second_up_use_the_engine_that_runs() {
    let person = Person::new();
    let up = person.start(person.up_words(), "restored and compared");
    person.run(["status"]).must(0);
    person.run(["backup", "run", "--all"]).must(0);
    fs::create_dir(person.path("pictures")).unwrap();
    fs::write(person.path("pictures/one.png"), "pixels").unwrap();
    let second = person
        .run(["up", "documents", "pictures", "--yes"])
        .must(0)
        .says("joining the `candor up`");
    assert!(
        second.stderr.contains("pictures") && second.stdout.contains("pictures:"),
        "{}",
        second.stderr
    );
    // Only the new path is asked for.
    let asked = second
        .stderr
        .split("What is sent")
        .nth(1)
        .unwrap()
        .split("Where to")
        .next()
        .unwrap();
    assert!(!asked.contains("documents"), "{asked}");
    let invitation = person.run(["server", "invite"]).must(0).stdout;
    assert!(invitation.starts_with("candor1:"));
    assert_eq!(up.terminate(), 0);
    for socket in ["engine.sock", "cell.sock"] {
        assert!(!person.home().join(socket).exists(), "{socket}");
    }
    let sets = person
        .run(["backup", "list", "--json"])
        .must(0)
        .field("sets");
    assert_eq!(sets.as_array().unwrap().len(), 2);
}

#[test]
fn a_power_cut_leaves_nothing_in_the_way() {
    let person = Person::new();
    let up = person.start(person.up_words(), "restored and compared");
    up.kill();
    person.run(["backup", "run", "--all"]).must(0);
    person.run(["ledger", "verify"]).must(0);
}

#[test]
fn backup_run_is_safe_from_cron() {
    let person = Person::backed_up();
    fs::write(person.documents().join("large"), vec![3; 4 << 20]).unwrap();
    let spawn = || {
        person
            .command(["backup", "run", "--all"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..5).map(|_| spawn()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    person.run(["backup", "check"]).must(0);
}

#[test]
fn a42_another_user_cannot_use_the_engine() {
    let person = Person::new();
    let _up = person.start(person.up_words(), "restored and compared");
    let socket = person.home().join("engine.sock");
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    if !rustix::process::geteuid().is_root() {
        // Only root can become somebody else; the mode alone keeps others out.
        return;
    }
    // The test program itself, where somebody else can start it.
    let program = person.path("somebody-else");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for folder in [person.path(""), person.home().to_owned()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let become_nobody = |expected: &str| {
        let mut command = Command::new(&program);
        command
            .args(["running::as_somebody_else", "--exact", "--nocapture"])
            .env(SOCKET_VARIABLE, &socket);
        let ended = ended(command.uid(NOBODY).gid(NOBODY).current_dir("/")).must(0);
        assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    };
    become_nobody("answer: not let in");
    // And if the mode were lost, the engine still looks at who it is.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    become_nobody("answer: nothing");
    person.run(["status"]).must(0);
}

#[test]
fn who_connects_and_says_nothing_keeps_nobody_from_ending() {
    let person = Person::new();
    let up = person.start(person.up_words(), "restored and compared");
    let silent = UnixStream::connect(person.home().join("engine.sock")).unwrap();
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(30));
        drop(silent);
    });
    let began = Instant::now();
    up.terminate();
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// Not a test by itself: what `a42_another_user_cannot_use_the_engine` runs as another user.
#[test]
fn as_somebody_else() {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else {
        return;
    };
    let answer = match UnixStream::connect(socket) {
        Err(_) => "not let in".to_owned(),
        Ok(mut stream) => {
            let _ = stream.write_all(b"{\"hello\":{\"version\":1}}\n{\"run\":\"status\"}\n");
            let mut reply = String::new();
            let _ = stream.read_to_string(&mut reply);
            if reply.is_empty() {
                "nothing".to_owned()
            } else {
                reply
            }
        }
    };
    let _ = writeln!(std::io::stdout(), "answer: {answer}");
}

#[test]
fn consent_off_takes_effect_at_once() {
    let person = Person::backed_up();
    person
        .run(["consent", "off", "backup"])
        .must(0)
        .says("is off");
    person
        .run(["backup", "run", "--all"])
        .must(3)
        .says("candor consent on backup");
    // A summary does not pass over it.
    let summary = person.run(["up", "--once"]).must(0).stdout;
    assert!(
        summary.contains("not backed up any more, its consent is withdrawn"),
        "{summary}"
    );
    // What was stored can still be had back.
    person
        .run(["backup", "restore", "latest", "--to", "restored"])
        .must(0);
    person.run(["consent", "on", "backup"]).must(3);
    person
        .run(["consent", "on", "backup", "--yes"])
        .must(0)
        .says("What is sent");
    person.run(["backup", "run"]).must(0);
}

#[test]
fn a_phrase_that_went_to_a_file_is_confirmed_later_and_only_the_right_one() {
    let person = Person::backed_up();
    assert!(person.run(["status"]).stdout.contains("not confirmed"));
    let other = person.path("other.txt");
    std::fs::write(&other, format!("{}art", "abandon ".repeat(23))).unwrap();
    let refused = person.run([
        "account".as_ref(),
        "confirm".as_ref(),
        "--recovery-file".as_ref(),
        other.as_os_str(),
    ]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("of another account"),
        "{}",
        refused.stderr
    );
    assert!(person.run(["status"]).stdout.contains("not confirmed"));
    let phrase = person.phrase();
    let confirmed = person.run([
        "account".as_ref(),
        "confirm".as_ref(),
        "--recovery-file".as_ref(),
        phrase.as_os_str(),
    ]);
    assert_eq!(confirmed.code, 0, "{}", confirmed.stderr);
    assert!(!person.run(["status"]).stdout.contains("not confirmed"));
}
