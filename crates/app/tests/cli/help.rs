//! What the program says about itself.

use crate::person::{Person, ended};

#[test]
fn the_help_names_every_command() {
    let help = Person::new().run(["--help"]).must(0);
    insta::assert_snapshot!(help.stdout, @r"
    Backups, encrypted before they leave this machine, sent only after you said yes

    Usage: candor [OPTIONS] <COMMAND>

    Commands:
      up           Start everything on this machine: cell, device and pages; with PATHs, ask for consent
                   and back them up
      status       Show what is on, what is safe and what is pending
      account      Create, recover or show your account
      device       Show your devices, take a new one in, or a lost one out
      consent      Switch services on and off, and see what you agreed to
      backup       Back up, look at snapshots, restore
      sync         Keep folders in step with your other devices
      export       Copy everything of your account into a folder, in open formats that need no candor to
                   be read
      service      Start `candor up` with your session
      ledger       Show every connection that this device opened
      server       Run a cell: the server that keeps other people's sealed objects, or yours
      log          The public log of a cell: its key, proofs, and witnesses of what it says
      completions  Print a completion script for a shell
      man          Write the manual pages into a folder

    Options:
          --home <DIR>              Folder with this device's keys, index and ledger [default:
                                    $CANDOR_HOME, else ~/.local/share/candor]
          --json                    Print JSON: one document, or one object per line where a command
                                    lists as it goes
          --passphrase-file <FILE>  Read the passphrase of the key store from the first line of this
                                    file
      -h, --help                    Print help
      -V, --version                 Print version

    Example:
      candor up ~/Documents      start, ask, back up, stay up
      candor status              what is on, what is safe, what is pending

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no consent, 4 tampering detected,
    5 server not reachable, 6 refused by policy, 7 done in part.
    ");
}

#[test]
fn wrong_usage_exits_with_2() {
    let person = Person::new();
    for words in [
        &["frobnicate"][..],
        &["backup", "run", "a", "--all"],
        &["backup", "restore", "latest"],
        &["consent", "on", "everything"],
        &["export"],
        &["up", "--unprotected-keys", "--passphrase-file", "x"],
        &["ledger", "--since", "yesterday"],
    ] {
        let ended = person.run(words);
        assert!(
            ended.code == 2 || words[0] == "ledger",
            "{words:?}: {}",
            ended.code
        );
        assert!(!ended.stderr.is_empty());
    }
    person.run(["backup", "drill", "--files", "0"]).must(2);
    person
        .run(["consent", "off", "backup", "--erase", "--keep"])
        .must(2);
    person
        .run(["account", "delete", "--yes", "--cancel"])
        .must(2);
    assert!(!person.home().exists());
}

#[test]
fn completions_and_manual_pages_are_made() {
    let person = Person::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            person
                .run(["completions", shell])
                .must(0)
                .stdout
                .contains("candor")
        );
    }
    let pages = person.path("man");
    person
        .run(["man".as_ref(), "--to".as_ref(), pages.as_os_str()])
        .must(0);
    for page in ["candor.1", "candor-up.1", "candor-backup-restore.1"] {
        assert!(
            std::fs::read_to_string(pages.join(page))
                .unwrap()
                .contains("candor"),
            "{page}"
        );
    }
}

#[test]
fn the_home_comes_from_the_flag_the_variable_or_the_data_folder() {
    let person = Person::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_candor"));
    command
        .env_clear()
        .args(["server", "init", "--region", "home"]);
    ended(&mut command).must(2).says("--home DIR");
    command.env("HOME", person.path("person"));
    ended(&mut command).must(0);
    assert!(person.path("person/.local/share/candor/cell").is_dir());
    command.env("XDG_DATA_HOME", person.path("data"));
    ended(&mut command).must(0);
    assert!(person.path("data/candor/cell").is_dir());
    command.env("CANDOR_HOME", person.path("variable"));
    ended(&mut command).must(0);
    assert!(person.path("variable/cell").is_dir());
}
