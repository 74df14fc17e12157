//! A folder on two machines, and a cell over TLS between them.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::person::{Person, Running};
use crate::separate::{cell, create, start};

/// Longest time in which a change has to arrive, however slow the machine is.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

fn arrives(path: &Path, content: &str) {
    let began = Instant::now();
    while std::fs::read_to_string(path).ok().as_deref() != Some(content) {
        assert!(began.elapsed() < ARRIVES_WITHIN, "{}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn two_machines_keep_a_folder_in_step_and_outlive_the_cells_absence() {
    let person = Person::new();
    let cell = cell(&person);
    create(&person, &cell).must(0);
    let none = person.run(["sync", "status"]).must(0);
    assert!(none.stdout.contains("no synced folders"), "{}", none.stdout);
    // Without a yes nothing begins, and the folder is known to be off.
    person.run(["sync", "add", "nowhere"]).must(2);
    person
        .run(["sync", "add", "documents", "--name", "papers"])
        .must(3)
        .says("SYNC: what you are asked");
    person.run(["sync", "run", "papers"]).must(3);
    person
        .run(["consent", "on", "sync", "--yes"])
        .must(0)
        .says("Next: candor sync run");
    person.run(["sync", "run"]).must(0);

    let laptop = person.path("laptop");
    let phrase = person.phrase();
    let phrase = phrase.to_str().unwrap();
    let words = [
        "account",
        "recover",
        "--cell",
        &cell.invitation,
        "--unprotected-keys",
        "--recovery-file",
        phrase,
    ];
    person.run_in(&laptop, words).must(0);
    let there = person.path("papers");
    let path = there.to_str().unwrap();
    person
        .run_in(&laptop, ["sync", "join", "paper", path, "--yes"])
        .must(2)
        .says("there are: papers");
    let joined = person
        .run_in(&laptop, ["sync", "join", "papers", path, "--yes"])
        .must(0);
    assert!(
        joined.stdout.contains("papers: in step ("),
        "{}",
        joined.stdout
    );

    let here = person.documents();
    let at_home = Running::spawn(&mut person.command(["up"]));
    let on_laptop = Running::spawn(&mut person.command_in(&laptop, ["up"]));
    std::fs::write(here.join("letter"), "from home").unwrap();
    arrives(&there.join("letter"), "from home");
    std::fs::write(there.join("letter"), "from the laptop").unwrap();
    arrives(&here.join("letter"), "from the laptop");
    // Whoever may see it, sees how its memory is set: it runs for months.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if let Ok(set) = at_home.environment() {
        let is_set = |one: &[u8]| one.starts_with(b"MALLOC_MMAP_THRESHOLD_=");
        assert!(set.split(|&byte| byte == 0).any(is_set));
    }
    // The commands talk to the engine that runs.
    let status = person.run(["sync", "status", "--json"]).must(0);
    let folder = status.field("folders")[0].clone();
    assert_eq!(
        (&folder["consent"], &folder["paused"]),
        (&"on".into(), &false.into())
    );
    person.run_in(&laptop, ["sync", "pause", "papers"]).must(0);
    std::fs::write(here.join("later"), "later").unwrap();
    // The cell goes away and comes back: both go on by themselves.
    assert_eq!(cell.running.terminate(), 0);
    std::fs::write(here.join("offline"), "written meanwhile").unwrap();
    let again = start(&person, &cell.home);
    person.run_in(&laptop, ["sync", "resume", "papers"]).must(0);
    arrives(&there.join("later"), "later");
    arrives(&there.join("offline"), "written meanwhile");
    let letter = there.join("letter");
    let versions = person
        .run_in(&laptop, ["sync", "versions", letter.to_str().unwrap()])
        .must(0);
    assert!(versions.stdout.contains("now"), "{}", versions.stdout);
    // Off ends it at once.
    person.run(["consent", "off", "sync"]).must(0);
    std::fs::write(there.join("unseen"), "x").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!here.join("unseen").exists());
    assert_eq!(at_home.terminate(), 0);
    assert_eq!(on_laptop.terminate(), 0);
    assert_eq!(again.terminate(), 0);
}

#[test]
fn a_service_file_is_written_and_nothing_of_anybody_else_s_is_replaced() {
    Person::new()
        .run(["service", "install", "--print"])
        .must(1)
        .says("no account yet");
    let person = Person::backed_up();
    let config = person.path("config");
    let unit = config.join("systemd/user/candor.service");
    let run = |words: &[&str]| {
        let mut command = person.command(words);
        crate::person::ended(command.env("XDG_CONFIG_HOME", &config))
    };
    let printed = run(&["service", "install", "--print"]).must(0).stdout;
    assert!(!unit.exists());
    run(&["service", "install"])
        .must(0)
        .says("systemctl --user enable --now candor");
    let text = std::fs::read_to_string(&unit).unwrap();
    assert_eq!(text.trim_end(), printed.trim_end());
    let home = person.home().to_str().unwrap();
    assert!(
        text.contains(&format!("\"--home\" \"{home}\" \"up\" \"--no-open\"")),
        "{text}"
    );
    run(&["service", "install"]).must(0);
    run(&["service", "uninstall"]).must(0);
    assert!(!unit.exists());
    std::fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    for words in [["service", "install"], ["service", "uninstall"]] {
        run(&words).must(1).says("candor did not write it");
    }
    let plist = run(&["service", "install", "--manager", "launchd", "--print"]).must(0);
    assert!(
        plist.stdout.contains("<string>--no-open</string>"),
        "{}",
        plist.stdout
    );
}
