#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;

use candor_wire::Nanos;

use super::*;
use crate::name::Name;
use crate::node::{Entry, Kind, Metadata};

/// Chunks in memory, named by their plain hash.
#[derive(Default)]
struct Memory(HashMap<ChunkId, Vec<u8>>);

impl TreeSink for Memory {
    fn store(&mut self, plaintext: &[u8]) -> Result<ChunkId, WriteError> {
        let id = ChunkId::from_bytes(*blake3::hash(plaintext).as_bytes());
        self.0.insert(id, plaintext.to_vec());
        Ok(id)
    }
}

impl ChunkSource for Memory {
    fn fetch(&mut self, id: ChunkId) -> Result<Bytes, ReadError> {
        self.0
            .get(&id)
            .map(|bytes| Bytes::copy_from_slice(bytes))
            .ok_or(ReadError::UnknownChunk { chunk: id })
    }
}

fn entry(name: &[u8], kind: Kind) -> Entry {
    let metadata = Metadata {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Nanos(0),
        xattrs: Vec::new(),
    };
    Entry {
        name: Name::new(name).unwrap(),
        metadata,
        link: None,
        kind,
    }
}

fn directory(entries: &[Entry], memory: &mut Memory) -> References {
    let mut builder = DirectoryBuilder::default();
    for entry in entries {
        let mut bytes = Vec::new();
        node::encode_entry(entry, &mut bytes);
        builder.push(entry.name.as_bytes(), &bytes, memory).unwrap();
    }
    builder.finish(memory).unwrap()
}

#[test]
fn long_lists_become_levels_and_come_back_in_order() {
    for count in [0, 1, 2048, 2049, 4096, 4097, 2048 * 2048 + 1] {
        let mut memory = Memory::default();
        let mut builder = ReferenceBuilder::default();
        for number in 0..count {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&u32::to_be_bytes(number));
            builder
                .push(
                    Reference {
                        id: ChunkId::from_bytes(id),
                        length: 1,
                    },
                    &mut memory,
                )
                .unwrap();
        }
        let references = builder.finish(&mut memory).unwrap();
        let levels = if count <= 2048 {
            0
        } else if count <= 2048 * 2048 {
            1
        } else {
            2
        };
        assert_eq!(references.levels, levels, "{count}");
        assert!(references.list.len() <= LIST_MAX_REFERENCES);
        let mut reader = ReferenceReader::new(references);
        for number in 0..count {
            let found = reader.next(&mut memory).unwrap().unwrap();
            assert_eq!(found.id.as_bytes()[..4], u32::to_be_bytes(number));
        }
        assert!(reader.next(&mut memory).unwrap().is_none());
    }
}

#[test]
fn one_more_name_changes_few_parts_of_a_huge_directory() {
    let names: Vec<String> = (0..30_000)
        .map(|number| format!("file-{number:06}"))
        .collect();
    let mut memory = Memory::default();
    let mut entries: Vec<Entry> = names
        .iter()
        .map(|name| entry(name.as_bytes(), Kind::Fifo))
        .collect();
    let before = directory(&entries, &mut memory);
    entries.insert(10, entry(b"file-000009a", Kind::Fifo));
    let after = directory(&entries, &mut memory);
    assert!(before.list.len() > 3);
    let new = after
        .list
        .iter()
        .filter(|part| !before.list.contains(part))
        .count();
    assert!(new <= 2, "{new} of {}", after.list.len());
    let mut reader = DirectoryReader::new(after);
    let mut count = 0;
    while reader.next(&mut memory).unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, entries.len());
}

#[test]
fn a12_parts_in_another_order_are_refused() {
    let mut memory = Memory::default();
    let a = directory(&[entry(b"a", Kind::Fifo)], &mut memory);
    let b = directory(&[entry(b"b", Kind::Fifo)], &mut memory);
    let swapped = References {
        levels: 0,
        list: vec![b.list[0], a.list[0]],
    };
    let mut reader = DirectoryReader::new(swapped);
    reader.next(&mut memory).unwrap();
    let refused = reader.next(&mut memory);
    assert!(matches!(
        refused,
        Err(TreeError::Node {
            source: NodeError::Order,
            ..
        })
    ));
}

#[test]
fn a12_a_part_of_another_length_is_refused() {
    let mut memory = Memory::default();
    let mut parts = directory(&[entry(b"a", Kind::Fifo)], &mut memory);
    parts.list[0].length += 1;
    let refused = DirectoryReader::new(parts).next(&mut memory);
    assert!(matches!(refused, Err(TreeError::Length { .. })));
}

#[test]
fn a36_nesting_ends_at_its_limit() {
    let mut memory = Memory::default();
    let mut parts = References::default();
    for _ in 0..node::DEPTH_MAX + 10 {
        parts = directory(&[entry(b"d", Kind::Directory { parts })], &mut memory);
    }
    let mut walk = TreeWalk::new(parts);
    let mut depth = 0;
    let refused = loop {
        match walk.next(&mut memory).unwrap() {
            Some(Step::Item(Item::Entry(Entry {
                kind: Kind::Directory { parts },
                ..
            }))) => {
                if let Err(error) = walk.enter(parts) {
                    break error;
                }
                depth += 1;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(refused, TreeError::TooDeep));
    assert_eq!(depth + 1, node::DEPTH_MAX);
}

#[test]
fn a36_a_tree_that_is_deep_and_wide_is_refused_before_it_fills_memory() {
    let mut memory = Memory::default();
    let mut parts = References::default();
    for _ in 0..400 {
        let mut entries = vec![entry(b"0", Kind::Directory { parts })];
        let target = vec![b'x'; node::SYMLINK_MAX_BYTES];
        entries.extend((0..100).map(|number| {
            entry(
                format!("{number:09}").as_bytes(),
                Kind::Symlink {
                    target: target.clone(),
                },
            )
        }));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        parts = directory(&entries, &mut memory);
    }
    let mut walk = TreeWalk::new(parts);
    let refused = loop {
        match walk.next(&mut memory).unwrap() {
            Some(Step::Item(Item::Entry(Entry {
                kind: Kind::Directory { parts },
                ..
            }))) => {
                if let Err(error) = walk.enter(parts) {
                    break error;
                }
            }
            Some(_) => {}
            None => panic!("the walk reached the end"),
        }
    };
    assert!(matches!(refused, TreeError::TooDeep));
    assert!(walk.retained <= WALK_MAX_BYTES + node::PART_MAX_BYTES);
}
