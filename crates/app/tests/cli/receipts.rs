//! Receipts: made by somebody, checked by somebody else who has nothing but the file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::person::{Ended, Person, ended};

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../vectors/receipt")
        .join(name)
}

/// The program as a stranger runs it: without a home, and without anything in the environment.
fn stranger<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Ended {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_candor"));
    command
        .env_clear()
        .current_dir(empty.path())
        .stdin(std::process::Stdio::null())
        .args(words);
    let ended = ended(&mut command);
    let left = std::fs::read_dir(empty.path()).unwrap().count();
    assert_eq!(left, 0, "it left something behind");
    ended
}

fn verify(file: &Path, more: &[&OsStr]) -> Ended {
    let words = [
        OsStr::new("consent"),
        OsStr::new("verify"),
        file.as_os_str(),
    ];
    stranger(words.iter().chain(more))
}

#[test]
fn a_stranger_checks_a_receipt_with_the_file_and_a_policy() {
    let policy = vector("two-of-three.policy");
    let with_policy = [OsStr::new("--policy"), policy.as_os_str()];
    let valid = verify(&vector("witnessed.receipt"), &with_policy).must(0);
    insta::assert_snapshot!(valid.stdout, @r"
    The receipt is valid.
    agreed        backup (backup/1), vault b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1
      data        contents, names and properties of files, sealed on the device; sizes and number of sealed objects
      handling    receive, store
    by            account a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1, device d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1
    to            Example Family, region home (cell 01fe4217317572658373574bfccc03eb)
    given         2026-09-21 14:13 UTC, answered on a terminal, notice in en
    until         2027-09-21 14:13 UTC
    to withdraw   candor consent off backup
    acknowledged  2026-09-21 14:13 UTC, by the cell that it was given to
    log           entry 6 of 13 in 01fe4217317572658373574bfccc03eb.cell.invalid/log
    witnesses     witnessed by w0, w2; a quorum by 2027-01-15 08:00 UTC
    That the consent was not withdrawn since is not what a receipt says.
    ");
    assert_eq!(valid.stderr, "");
    let json = [&with_policy[..], &[OsStr::new("--json")]].concat();
    let receipt = verify(&vector("witnessed.receipt"), &json)
        .must(0)
        .field("receipt");
    assert_eq!(receipt["service"], "backup");
    assert_eq!(receipt["standing"]["witnessed"], true);
    // The same cell, and nobody who witnessed it: not what this policy asks for.
    verify(&vector("lonely.receipt"), &with_policy)
        .must(4)
        .says("not witnessed as the policy asks");
}

#[test]
fn without_a_policy_it_says_so_and_nobody_is_a_witness() {
    let valid = verify(&vector("lonely.receipt"), &[])
        .must(0)
        .says("No policy was given")
        .says("01fe4217317572658373574bfccc03eb");
    assert!(valid.stdout.contains("witnesses     unwitnessed"));
    assert!(valid.stdout.contains("to go on with an earlier consent"));
}

#[test]
fn what_is_changed_is_not_valid_and_what_is_no_receipt_is_wrong_usage() {
    let person = Person::new();
    let text = std::fs::read_to_string(vector("witnessed.receipt")).unwrap();
    let put = |name: &str, text: &str| {
        let path = person.path(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let lines: Vec<&str> = text.lines().collect();
    let mut swapped = lines.clone();
    swapped.swap(20, 21);
    let mut cut = lines.clone();
    cut.remove(40);
    for (name, lines) in [("swapped", swapped), ("cut", cut)] {
        verify(&put(name, &lines.join("\n")), &[])
            .must(4)
            .says("hint:");
    }
    let mailed = format!("Hello!\r\n\r\n{}", text.replace('\n', "\r\n"));
    verify(&put("mailed", &mailed), &[]).must(0);
    verify(&put("empty", ""), &[]).must(2).says("hint:");
    verify(&vector("two-of-three.policy"), &[]).must(2);
    verify(&person.path("nowhere"), &[]).must(2);
    let no_policy = put("policy", "quorum nobody\n");
    let words = [OsStr::new("--policy"), no_policy.as_os_str()];
    verify(&vector("witnessed.receipt"), &words)
        .must(2)
        .says("line 1");
}

#[test]
fn a_stranger_checks_a_bare_proof() {
    let receipt = std::fs::read_to_string(vector("accepted.txt")).unwrap();
    assert!(receipt.contains("verified | witnessed"));
    let (proof, policy) = (
        vector("witnessed.tlog-proof"),
        vector("two-of-three.policy"),
    );
    let check = |leaf: &str, policy: &Path| {
        stranger([
            OsStr::new("log"),
            OsStr::new("verify"),
            proof.as_os_str(),
            OsStr::new("--leaf"),
            OsStr::new(leaf),
            OsStr::new("--policy"),
            policy.as_os_str(),
        ])
    };
    let leaf = std::fs::read_to_string(vector("witnessed.leaf")).unwrap();
    let valid = check(leaf.trim(), &policy).must(0);
    insta::assert_snapshot!(valid.stdout, @r"
    The proof is valid.
    leaf          a statement or padding
    log           entry 6 of 13 in 01fe4217317572658373574bfccc03eb.cell.invalid/log
    witnesses     witnessed by w0, w2; a quorum by 2027-01-15 08:00 UTC
    ");
    let other = leaf.trim().replacen("01", "02", 1);
    check(&other, &policy).must(4).says("does not prove");
    check("no hex", &policy).must(2);
    check(leaf.trim(), &vector("witnessed.receipt")).must(2);
}

/// Made on one machine and checked on another, with no network, no account and no cell.
#[test]
fn a_receipt_of_ones_own_consent() {
    let person = Person::backed_up();
    let history = person
        .run(["consent", "history", "--json"])
        .must(0)
        .field("consents");
    let id = history[0]["id"].as_str().unwrap().to_owned();
    let file = person.path("backup.receipt");
    let receipt = |more: &[&str]| {
        let words = ["consent", "receipt", &id[..12]];
        person.run(words.iter().chain(more))
    };
    receipt(&["-o", "backup.receipt"])
        .must(0)
        .says("candor consent verify");
    receipt(&["-o", "backup.receipt"])
        .must(2)
        .says("not there yet");
    let checked = verify(&file, &[OsStr::new("--json")])
        .must(0)
        .field("receipt");
    assert_eq!(checked["consent"], id.as_str());
    assert_eq!(checked["region"], "home");
    let document = receipt(&["--format", "json-ld"]).must(0).stdout;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["@type"], "dpv:ConsentReceipt");
    assert_eq!(document["dct:identifier"], id.as_str());
    // Genesis and devices are statements too, and have no receipts.
    person
        .run(["consent", "receipt", "zz"])
        .must(2)
        .says("hint:");
    // Withdrawn, it is still what was agreed then.
    person.run(["consent", "off", "backup"]).must(0);
    receipt(&[]).must(0);
    verify(&file, &[]).must(0);
}
