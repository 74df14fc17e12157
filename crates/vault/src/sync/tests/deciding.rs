//! The decision, for every combination of a few states.

use candor_wire::Nanos;

use crate::chunk::ChunkId;
use crate::name::Name;
use crate::node::{Entry, Kind, Metadata, Reference, References};
use crate::sync::{Decision, Side, decide};

fn file(content: u8, mode: u32) -> Entry {
    let id = ChunkId::from_bytes([content; 32]);
    Entry {
        name: Name::new(b"a").unwrap(),
        metadata: Metadata {
            mode,
            uid: u32::from(content),
            gid: 0,
            mtime: Nanos(i64::from(mode)),
            xattrs: Vec::new(),
        },
        link: None,
        kind: Kind::File {
            size: 1,
            content: References {
                levels: 0,
                list: vec![Reference { id, length: 1 }],
            },
            extents: None,
        },
    }
}

#[test]
fn every_combination_has_the_outcome_that_the_rules_name() {
    let files = [file(1, 0o644), file(1, 0o600), file(2, 0o644)];
    let sides = |entry: Option<usize>| entry.map_or(Side::Absent, |at| Side::Leaf(&files[at]));
    let states = [None, Some(0), Some(1), Some(2)];
    for base in states {
        for local in states {
            for remote in states {
                let decision = decide(sides(base), sides(local), sides(remote));
                let content = |state: Option<usize>| state.map(|at| at / 2);
                let expected = if local == remote {
                    Decision::Agreed
                } else if local == base {
                    Decision::TakeRemote
                } else if remote == base || remote.is_none() {
                    Decision::TakeLocal
                } else if local.is_none()
                    || content(local) == content(remote)
                    || (base.is_some() && content(local) == content(base))
                {
                    Decision::TakeRemote
                } else if base.is_some() && content(remote) == content(base) {
                    Decision::TakeLocal
                } else {
                    Decision::MoveLocal
                };
                assert_eq!(decision, expected, "{base:?} {local:?} {remote:?}");
            }
        }
    }
}

#[test]
fn a_folder_against_a_file_loses_neither() {
    let (old, new) = (file(1, 0o644), file(2, 0o644));
    let (old, new, folder) = (Side::Leaf(&old), Side::Leaf(&new), Side::Folder);
    for (base, local, remote, expected) in [
        (Side::Absent, folder, new, Decision::MoveRemote),
        (Side::Absent, new, folder, Decision::MoveLocal),
        (old, folder, new, Decision::MoveRemote),
        (old, new, folder, Decision::MoveLocal),
        (old, folder, old, Decision::TakeLocal),
        (old, old, folder, Decision::TakeRemote),
        (folder, folder, new, Decision::Descend),
        (folder, new, folder, Decision::Descend),
        (folder, Side::Absent, folder, Decision::Descend),
        (folder, folder, Side::Absent, Decision::Descend),
        (Side::Absent, folder, Side::Absent, Decision::TakeLocal),
        (Side::Absent, Side::Absent, folder, Decision::TakeRemote),
        (folder, folder, folder, Decision::Descend),
    ] {
        assert_eq!(
            decide(base, local, remote),
            expected,
            "{base:?} {local:?} {remote:?}"
        );
    }
}

#[test]
fn owners_are_numbers_of_one_machine() {
    let mut other = file(1, 0o644);
    other.metadata.uid = 77;
    let base = file(1, 0o644);
    let decision = decide(Side::Absent, Side::Leaf(&base), Side::Leaf(&other));
    assert_eq!(decision, Decision::Agreed);
}

#[test]
fn conflict_copies_have_names_that_say_what_they_are() {
    use crate::sync::is_conflict_name;
    use crate::sync::names::conflict_name;
    use candor_wire::Millis;

    let time = Millis(1_795_000_000_000);
    let name = |name: &[u8], attempt| {
        String::from_utf8(conflict_name(name, "lap/top", time, attempt)).unwrap()
    };
    assert_eq!(
        name(b"report.odt", 0),
        "report (conflict lap_top 2026-11-18 110640).odt"
    );
    assert_eq!(
        name(b"report.odt", 1),
        "report (conflict lap_top 2026-11-18 110640 2).odt"
    );
    assert_eq!(
        name(b".profile", 0),
        ".profile (conflict lap_top 2026-11-18 110640)"
    );
    assert_eq!(
        name(b"a.with a long ending indeed", 0).split(" (").next(),
        Some("a.with a long ending indeed")
    );
    let long = conflict_name("ä".repeat(127).as_bytes(), "d", time, 0);
    assert!(long.len() <= 255 && std::str::from_utf8(&long).is_ok());
    for copy in [name(b"x.txt", 0), name(b"x", 12)] {
        assert!(is_conflict_name(copy.as_bytes()), "{copy}");
    }
    for other in [
        "x",
        "x (conflict ).txt",
        "conflict 2026-11-18 110640",
        "x (conflict d 2026-11-18)",
    ] {
        assert!(!is_conflict_name(other.as_bytes()), "{other}");
    }
}
