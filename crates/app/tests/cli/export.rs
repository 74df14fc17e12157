//! `candor export`, as people and scripts use it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::person::{Person, tree};

#[test]
fn everything_is_there_as_plain_files() {
    let person = Person::new();
    // The engine of a running `up` writes it, and relative paths mean the same.
    let up = person.start(person.up_words(), "restored and compared");
    person
        .run(["export", "--to", "first", "--all-snapshots"])
        .must(0);
    assert!(person.path("first/export.json").exists());
    assert_eq!(up.terminate(), 0);
    let ended = person.run(["export", "--to", "mine"]).must(0);
    assert!(
        ended.stdout.contains("1 snapshot of backups"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("Nothing in it is encrypted."));
    let to = person.path("mine");
    assert_eq!(
        fs::metadata(&to).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let set = to.join("backups/documents");
    let snapshot = fs::read_dir(&set).unwrap().next().unwrap().unwrap();
    let restored = snapshot.path().join("documents");
    assert_eq!(tree(&restored), tree(&person.documents()));
    // Done: it is not written to again, and whoever asks is told what to do.
    let again = person.run(["export", "--to", "mine"]).must(2);
    assert!(
        again.stderr.contains("name a folder that is empty"),
        "{}",
        again.stderr
    );
    let second = person.run(["export", "--to", "second", "--json"]).must(0);
    let said = second.field("exported");
    assert_eq!((&said["files"], &said["problems"]), (&3.into(), &0.into()));
}
