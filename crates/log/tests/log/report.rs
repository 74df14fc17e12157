//! The report: its bytes, and that a stranger's program computes the same ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use candor_log::leaf::{Class, Leaf};
use candor_log::report::*;
use candor_log::state_map::*;
use candor_log::tree::{Hash, TreeHead};
use candor_wire::ids::to_hex;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::state_map::{key, value};
use crate::stored::{bytes_of, stored_or_made};

const ORIGIN: &str = "0123456789abcdef0123456789abcdef.cell.invalid/log";

fn leaf(class: Class, n: u64) -> Leaf {
    let bytes = |tag: &str| Sha256::digest([tag.as_bytes(), &n.to_be_bytes()].concat()).into();
    Leaf {
        class,
        label: bytes("label"),
        commitment: bytes("commitment"),
    }
}

/// RFC 6962, section 2.1, word for word.
fn naive_root(leaves: &[Leaf]) -> [u8; 32] {
    match leaves {
        [] => Sha256::digest(b"").into(),
        [one] => Sha256::digest([&[0][..], &one.encode()].concat()).into(),
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            Sha256::digest([&[1][..], &naive_root(left), &naive_root(right)].concat()).into()
        }
    }
}

fn head(leaves: &[Leaf]) -> TreeHead {
    TreeHead {
        size: leaves.len() as u64,
        root: Hash(naive_root(leaves)),
    }
}

fn report(leaves: &[Leaf]) -> Report {
    let mut counts = Counts::new();
    leaves.iter().for_each(|leaf| counts.add(leaf));
    Report::new(ORIGIN, head(leaves), counts).unwrap()
}

/// A log with every class, and the inputs of its state map by version.
fn sample(size: u64) -> (Vec<Leaf>, Vec<Vec<u8>>) {
    let (mut leaves, mut inputs) = (Vec::new(), Vec::new());
    let mut map = StateMap::new();
    for n in 0..size {
        leaves.push(match n % 10 {
            // A batch ends with a version of the state map.
            9 => {
                let round = u32::try_from(n / 10).unwrap();
                let changed: Vec<_> = (0..round % 4)
                    .map(|i| (key(round * i % 17), value(round + i)))
                    .collect();
                map = map.with(&changed);
                inputs.push(encode_inputs(&changed));
                Leaf::state_map(n / 10 + 1, &map.root().0)
            }
            7 => leaf(Class::ALL[2 + usize::try_from(n / 10 % 5).unwrap()], n),
            _ => leaf(Class::Sealed, n),
        });
    }
    (leaves, inputs)
}

#[test]
fn vectors_of_the_report() {
    let (leaves, _) = sample(60);
    let lines = leaves.iter().map(|leaf| to_hex(&leaf.encode()) + "\n");
    let made = format!(
        "# The leaves of a log, in order, in hexadecimal. `report.txt` and `report.json` are its reports, and\n\
         # docs/formats/transparency-report.md explains them. Its origin is {ORIGIN}.\n{}",
        lines.collect::<String>()
    );
    let stored = stored_or_made("report/leaves.txt", &made);
    let read = stored.lines().filter(|line| !line.starts_with('#'));
    let read: Vec<Leaf> = read
        .map(|line| Leaf::decode(&bytes_of(line)).unwrap())
        .collect();
    assert_eq!(read, leaves);
    stored_or_made("report/report.txt", &report(&leaves).text());
    stored_or_made("report/report.json", &report(&leaves).json());
}

#[test]
fn an_empty_log_and_one_with_gaps_are_said_to_be_so() {
    let empty = report(&[]);
    assert!(empty.text().contains("\nState map: no version.\n"));
    assert!(empty.json().contains("\"first\": null,"));
    let versions = [1, 2, 2, 5, 6];
    let root = StateMap::new().root();
    let leaves = versions.map(|version| Leaf::state_map(version, &root.0));
    let gaps = report(&leaves);
    assert_eq!(gaps.counts().unordered_versions(), 2);
    let said = "State map: versions 1 to 6; 2 of 5 do not follow from the one before.";
    assert!(gaps.text().contains(said));
    let late = report(&leaves[1..2]);
    assert_eq!(late.counts().unordered_versions(), 1);
}

#[test]
fn a_report_is_of_all_leaves_and_of_a_log_that_can_be() {
    let (leaves, _) = sample(12);
    let mut counts = Counts::new();
    leaves[1..].iter().for_each(|leaf| counts.add(leaf));
    let made = |origin: &str, counts: Counts| Report::new(origin, head(&leaves), counts).err();
    assert_eq!(
        made(ORIGIN, counts.clone()),
        Some(ReportError::Size {
            counted: 11,
            size: 12
        })
    );
    counts.add(&leaves[0]);
    for origin in ["", "a\nb", "a\u{7f}"] {
        assert_eq!(made(origin, counts.clone()), Some(ReportError::Origin));
    }
    // Whatever a log is called, its report stays JSON.
    let odd = Report::new("a \"quoted\" \\ log", head(&leaves), counts).unwrap();
    let json = odd.json();
    assert!(json.contains(r#""origin": "a \"quoted\" \\ log","#));
}

proptest! {
    #[test]
    fn every_leaf_is_counted_once(classes in proptest::collection::vec(0..7u8, 0..200)) {
        let leaves: Vec<Leaf> = (0..)
            .zip(&classes)
            .map(|(n, code)| leaf(Class::from_code(*code).unwrap(), n))
            .collect();
        let report = report(&leaves);
        let counts = report.counts();
        prop_assert_eq!(counts.size(), leaves.len() as u64);
        for class in Class::ALL {
            let is_of = |leaf: &Leaf| leaf.class == class;
            let first = leaves.iter().position(is_of);
            let last = leaves.iter().rposition(is_of);
            let range = first.zip(last).map(|(first, last)| (first as u64, last as u64));
            let all = leaves.iter().filter(|leaf| is_of(leaf)).count() as u64;
            prop_assert_eq!(counts.of(class), Count { leaves: all, range });
        }
    }
}

fn elements(number: u64) -> String {
    assert!(number < 1000);
    format!("{number:03}")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the crate does no I/O; this test hands its output to another program"
)]
fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Publishes a log of the sample, as a cell would.
fn publish(root: &Path, leaves: &[Leaf], inputs: &[Vec<u8>]) {
    for (index, bundle) in (0..).zip(leaves.chunks(256)) {
        let mut path = format!("tile/entries/{}", elements(index));
        if bundle.len() < 256 {
            path += &format!(".p/{}", bundle.len());
        }
        let bytes: Vec<u8> = bundle
            .iter()
            .flat_map(|leaf| [&[0, 66][..], &leaf.encode()].concat())
            .collect();
        write(root, &path, &bytes);
    }
    for (version, bytes) in (1..).zip(inputs) {
        write(root, &inputs_path(version), bytes);
    }
    let TreeHead { size, root: hash } = head(leaves);
    let hash = hash.to_base64();
    let note = format!("{ORIGIN}\n{size}\n{hash}\n\n\u{2014} {ORIGIN} AAAAAA==\n");
    write(root, "checkpoint", note.as_bytes());
    write(root, "report.txt", report(leaves).text().as_bytes());
    write(root, "report.json", report(leaves).json().as_bytes());
    let older = &leaves[..leaves.len() / 2];
    write(root, "older.txt", report(older).text().as_bytes());
}

/// Runs the stranger's program. `None`: there is no Python on this machine, and nothing is compared.
#[expect(
    clippy::disallowed_methods,
    reason = "the crate starts no process; this test runs the program that checks it"
)]
fn recompute(arguments: &[&Path]) -> Option<(bool, String)> {
    let project = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new("python3");
    command.arg(project.join("e2e/report/recompute.py"));
    match command.args(arguments).output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).unwrap();
            Some((output.status.success(), said))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_stranger_computes_the_same_report_and_state_map() {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("recomputed-log");
    let (leaves, mut inputs) = sample(1_030);
    publish(&root, &leaves, &inputs);
    let [text, json, older] =
        ["report.txt", "report.json", "older.txt"].map(|name| root.join(name));
    let all: [&Path; 4] = [&root, &text, &json, &older];
    let Some((same, said)) = recompute(&all) else {
        return;
    };
    assert!(same, "{said}");
    assert!(said.contains("leaves 1030, versions of the state map 103, reports 3."));
    // A cell that counts one access less than there are.
    let counted = report(&leaves).text();
    let count = report(&leaves).counts().of(Class::Access).leaves;
    let line = |count: u64| format!("{:<10}{count:>15}", "access");
    let lies = counted.replace(&line(count), &line(count - 1));
    assert_ne!(lies, counted);
    write(&root, "report.txt", lies.as_bytes());
    let (same, said) = recompute(&all).unwrap();
    assert!(!same && said.contains("report.txt, line 10"), "{said}");
    // A cell that publishes other inputs of the map than it made its root of.
    let changed = inputs.last_mut().unwrap();
    changed[40] ^= 1;
    publish(&root, &leaves, &inputs);
    let (same, said) = recompute(&all).unwrap();
    assert!(
        !same && said.contains("Version 103 of the state map"),
        "{said}"
    );
}

#[test]
fn the_strangers_program_finds_what_it_should() {
    if let Some((found, said)) = recompute(&[Path::new("--self-test")]) {
        assert!(found, "{said}");
    }
}
