//! Noise for the records of trees, and for names.

use std::path::{Component, Path};

use candor_vault::name::{self, NAME_MAX_BYTES, Name};
use candor_vault::node::{
    Entry, Item, Kind, LEVELS_MAX, LIST_MAX_REFERENCES, MODE_MASK, References, Root, decode_entry,
    decode_list, decode_part, encode_entry, encode_list, encode_part,
};
use candor_vault::rules::Rules;

use super::{Noise, seeds};

/// What a name must be before anything is made under it: one step down, and nowhere else.
fn check_name(bytes: &[u8]) {
    assert!(!bytes.is_empty() && bytes.len() <= NAME_MAX_BYTES);
    assert!(!bytes.contains(&b'/') && !bytes.contains(&0));
    let name = Name::new(bytes).expect("it was accepted before");
    let path = Path::new("/target").join(name.as_os_str());
    let steps: Vec<Component<'_>> = path.components().collect();
    assert_eq!(steps.len(), 3, "a name leads elsewhere");
    assert!(matches!(steps[2], Component::Normal(last) if last == name.as_os_str()));
}

fn check_references(references: &References) {
    assert!(references.levels <= LEVELS_MAX && references.list.len() <= LIST_MAX_REFERENCES);
    assert!(references.list.iter().all(|one| one.length > 0));
}

fn check_entry(entry: &Entry) {
    check_name(entry.name.as_bytes());
    assert_eq!(entry.metadata.mode & !MODE_MASK, 0);
    match &entry.kind {
        Kind::File {
            size,
            content,
            extents,
        } => {
            check_references(content);
            let extents = extents.iter().flatten();
            let data: u64 = extents.map(|extent| extent.length).sum();
            assert!(data <= *size);
        }
        Kind::Directory { parts } => {
            check_references(parts);
            assert!(entry.link.is_none());
        }
        Kind::Symlink { target } => assert!(!target.is_empty() && !target.contains(&0)),
        _ => {}
    }
}

fn part(bytes: &[u8]) {
    let Ok(items) = decode_part(bytes) else {
        return;
    };
    let mut encoded = Vec::new();
    let mut all = true;
    for item in &items {
        match item {
            Item::Entry(entry) => {
                check_entry(entry);
                encode_entry(entry, &mut encoded);
            }
            Item::Refused { name, reason } => {
                assert_eq!(name::check(name), Err(*reason));
                all = false;
            }
        }
    }
    let ascend = items
        .windows(2)
        .all(|pair| pair[0].raw_name() < pair[1].raw_name());
    assert!(ascend, "names that do not ascend");
    if all {
        assert_eq!(encode_part(items.len(), &encoded), bytes);
    }
}

fn list(bytes: &[u8]) {
    if let Ok(list) = decode_list(bytes) {
        assert!(!list.is_empty() && list.len() <= LIST_MAX_REFERENCES);
        assert_eq!(encode_list(&list), bytes);
    }
}

fn root(bytes: &[u8]) {
    let Ok(root) = Root::decode(bytes) else {
        return;
    };
    assert_eq!(root.encode(), bytes);
    check_references(&root.parts);
    for origin in &root.origins {
        check_name(origin.name.as_bytes());
        assert!(origin.path.starts_with(b"/"));
    }
}

fn entry(bytes: &[u8]) {
    let Ok(entry) = decode_entry(bytes) else {
        return;
    };
    check_entry(&entry);
    let mut again = Vec::new();
    encode_entry(&entry, &mut again);
    assert_eq!(again, bytes);
}

/// The first byte selects a row; rows are only ever added at the end.
const RECORDS: &[Noise] = &[part, list, root, entry];

/// Parts, lists, roots and entries: one spelling, and no name that leads elsewhere.
pub fn trees(noise: &[u8]) {
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    RECORDS[usize::from(*selector) % RECORDS.len()](bytes);
}

pub fn tree_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for file in ["tree/accepted.txt", "tree/rejected.txt"] {
        let records = seeds::bytes_in(file, 1);
        for row in 0..3 {
            // The largest ones make a fuzzer slow, and nothing in them is new.
            let small = records.iter().filter(|bytes| bytes.len() <= 16_384);
            all.extend(seeds::selected(row, small.cloned().collect()));
        }
        let entries = records
            .iter()
            .filter_map(|record| decode_part(record).ok())
            .flatten();
        let entries = entries.filter_map(|item| match item {
            Item::Entry(entry) => {
                let mut out = Vec::new();
                encode_entry(&entry, &mut out);
                (out.len() <= 16_384).then_some(out)
            }
            Item::Refused { .. } => None,
        });
        all.extend(seeds::selected(3, entries.collect()));
    }
    all
}

/// Names of entries, and patterns of what is left out.
pub fn names(noise: &[u8]) {
    match name::check(noise) {
        Ok(()) => check_name(noise),
        Err(_) => assert!(Name::new(noise).is_err()),
    }
    let rules = Rules {
        excludes: vec![String::from_utf8_lossy(noise).into_owned()],
        ..Rules::default()
    };
    // Whatever the pattern is, it is one or it is refused.
    let _ = rules.check();
}

pub fn name_seeds() -> Vec<Vec<u8>> {
    let names = [
        "a",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "a/",
        "a\0b",
        "...",
        "-rf",
        " ",
        "*.o",
        "!keep",
        "**/target/",
        "[a-z]?\\*",
        "a{b,c}",
        "\u{301}",
    ];
    let mut all = names.map(|name| name.as_bytes().to_vec()).to_vec();
    all.push(vec![b'a'; NAME_MAX_BYTES]);
    all.push(vec![b'a'; NAME_MAX_BYTES + 1]);
    all.push(vec![0xff, 0xfe]);
    all
}
