//! Noise for what is not public here (row A37): walks over trees that a hostile writer made, and files of this
//! device. For the fuzzer and for the tests below; `candor_testkit::noise` has what is public.

use std::path::Path;

use bytes::Bytes;
use candor_wire::{Millis, Nanos};

use crate::chunk::ChunkId;
use crate::name::{self, Name};
use crate::node::{
    Entry, Item, Kind, Metadata, Reference, References, decode_entry, encode_entry, encode_list,
    encode_part,
};
use crate::reader::ReadError;
use crate::rules::{Matcher, Rules};
use crate::stat_cache::read_record;
use crate::sync::{Stamp, conflict_name, is_conflict_name};
use crate::tree::{ChunkSource, ReferenceReader, Step, TreeWalk};

/// Most chunks of one made tree.
const CHUNKS_MAX: u8 = 12;

/// Steps after which a walk is given up: directories that share chunks make trees that grow with every level.
const STEPS_MAX: usize = 2000;

/// Bytes read as decisions; at their end every one is 0.
struct Noise<'a>(&'a [u8]);

impl<'a> Noise<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn take(&mut self, count: u8) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(self.0.len().min(count.into()));
        self.0 = rest;
        taken
    }
}

/// Chunks by number: the first byte of a name.
struct Chunks(Vec<Vec<u8>>);

impl ChunkSource for Chunks {
    fn fetch(&mut self, id: ChunkId) -> Result<Bytes, ReadError> {
        let number = usize::from(id.as_bytes()[0]);
        let found = self
            .0
            .get(number)
            .map(|bytes| Bytes::copy_from_slice(bytes));
        found.ok_or(ReadError::UnknownChunk { chunk: id })
    }
}

impl Chunks {
    /// A reference to a chunk that is there already, mostly with its true length.
    fn reference(&self, noise: &mut Noise<'_>) -> Reference {
        let number = noise.byte() % (self.0.len().max(1) as u8);
        let length = self.0.get(usize::from(number)).map_or(1, Vec::len) as u32;
        let is_wrong = noise.byte() % 16 == 1;
        Reference {
            id: ChunkId::from_bytes([number; 32]),
            length: length + u32::from(is_wrong),
        }
    }

    fn references(&self, noise: &mut Noise<'_>) -> References {
        let shape = noise.byte();
        let count = shape % 4;
        let levels = match (count, shape / 4 % 8) {
            (0, _) => 0,
            (_, levels @ 1..=3) => levels,
            _ => 0,
        };
        References {
            levels,
            list: (0..count).map(|_| self.reference(noise)).collect(),
        }
    }

    fn entry(&self, name: Name, noise: &mut Noise<'_>) -> Entry {
        let kind = match noise.byte() % 4 {
            0 => {
                let content = self.references(noise);
                let size = content.list.iter().map(|one| u64::from(one.length)).sum();
                Kind::File {
                    size,
                    content,
                    extents: None,
                }
            }
            1 => Kind::Symlink {
                target: b"../x".to_vec(),
            },
            _ => Kind::Directory {
                parts: self.references(noise),
            },
        };
        let metadata = Metadata {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Nanos(0),
            xattrs: Vec::new(),
        };
        Entry {
            name,
            metadata,
            link: None,
            kind,
        }
    }

    fn part(&self, noise: &mut Noise<'_>) -> Vec<u8> {
        let mut names: Vec<Name> = (0..=noise.byte() % 5)
            .filter_map(|_| {
                let length = 1 + noise.byte() % 6;
                Name::new(noise.take(length)).ok()
            })
            .collect();
        if noise.byte() % 16 != 1 {
            names.sort();
            names.dedup();
        }
        let count = names.len();
        let mut entries = Vec::new();
        for name in names {
            encode_entry(&self.entry(name, noise), &mut entries);
        }
        encode_part(count, &entries)
    }

    fn made_of(noise: &mut Noise<'_>) -> Self {
        let mut chunks = Self(Vec::new());
        for _ in 0..=noise.byte() % CHUNKS_MAX {
            let chunk = match noise.byte() % 8 {
                0 => encode_list(&chunks.references(noise).list),
                1 => {
                    let length = noise.byte();
                    noise.take(length).to_vec()
                }
                _ => chunks.part(noise),
            };
            chunks.0.push(chunk);
        }
        chunks
    }
}

/// Walks a tree that somebody made to hurt: it ends, directories nest, and names ascend in each of them.
pub fn walks(noise: &[u8]) {
    let mut noise = Noise(noise);
    let mut chunks = Chunks::made_of(&mut noise);
    let top = chunks.references(&mut noise);
    let mut walk = TreeWalk::new(top);
    let mut last: Vec<Vec<u8>> = vec![Vec::new()];
    for _ in 0..STEPS_MAX {
        match walk.next(&mut chunks) {
            Ok(None) => return,
            Ok(Some(Step::Leave)) => drop(last.pop()),
            Ok(Some(Step::Item(item))) => {
                let before = last.last_mut().expect("an entry is in a directory");
                assert!(item.raw_name() > before.as_slice(), "names do not ascend");
                *before = item.raw_name().to_vec();
                match item {
                    Item::Refused { name, reason } => assert_eq!(name::check(&name), Err(reason)),
                    Item::Entry(entry) => match entry.kind {
                        Kind::Directory { parts } if walk.enter(parts.clone()).is_ok() => {
                            last.push(Vec::new());
                        }
                        Kind::File { content, .. } => read(content, &mut chunks),
                        _ => {}
                    },
                }
            }
            Err(_) => {
                last.pop();
                if !walk.abandon() {
                    return;
                }
            }
        }
    }
}

/// Follows the lists of a file's content.
fn read(content: References, chunks: &mut Chunks) {
    let levels = content.levels;
    let mut references = ReferenceReader::new(content);
    for _ in 0..STEPS_MAX {
        match references.next_any(chunks) {
            Ok(Some((level, reference))) => assert!(level <= levels && reference.length > 0),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Rows of the cache of states: records follow each other, and end.
fn stat_records(block: &[u8]) {
    let mut at = 0;
    while let Some(record) = read_record(block, at) {
        assert!(record.end > at && record.end <= block.len());
        assert!(record.name.len() <= usize::from(u16::MAX));
        // What is believed of a record is decoded like a foreign one.
        let _ = decode_entry(&block[record.entry.0..record.entry.1]);
        at = record.end;
    }
}

fn stamp(bytes: &[u8]) {
    if let Some(stamp) = Stamp::decode(bytes) {
        assert_eq!(stamp.encode(), bytes);
    }
}

/// The name of a conflict copy is a name, whatever the device is called.
fn conflict(bytes: &[u8]) {
    let mut noise = Noise(bytes);
    let (length, attempt) = (noise.byte(), noise.byte());
    let time = noise
        .take(8)
        .iter()
        .fold(0, |time, byte| time << 8 | i64::from(*byte));
    let name = noise.take(length);
    if name::check(name).is_err() {
        return;
    }
    let device = String::from_utf8_lossy(noise.0);
    let made = conflict_name(name, &device, Millis(time), attempt.into());
    assert_eq!(name::check(&made), Ok(()), "{made:?}");
    // A year of more than four digits is nobody's clock.
    if (0..250_000_000_000_000).contains(&time) {
        assert!(is_conflict_name(&made), "{made:?}");
    }
}

/// A file of rules that another device synced here.
fn ignore_file(bytes: &[u8]) {
    let Ok(mut matcher) = Matcher::new(&Rules::default(), Path::new("/s")) else {
        return;
    };
    let bad = matcher.enter(0, Path::new("/s"), bytes);
    assert!(bad <= bytes.len() + 1);
    for name in [&b"a"[..], b"target", b"x.o", b"\xff", b" "] {
        let _ = matcher.excludes(Path::new("/s/d"), name, true);
        let _ = matcher.excludes(Path::new("/s"), name, false);
    }
    matcher.leave(0);
    assert!(!matcher.excludes(Path::new("/s"), b"a", false));
}

/// What this device keeps or syncs beside content. The first byte selects a row; rows are only ever added at
/// the end.
pub fn local_files(noise: &[u8]) {
    const ROWS: [fn(&[u8]); 4] = [stat_records, stamp, conflict, ignore_file];
    if let Some((selector, bytes)) = noise.split_first() {
        ROWS[usize::from(*selector) % ROWS.len()](bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candor_testkit::noise::{device, feed};

    use super::*;

    #[test]
    fn a37_walks_over_hostile_trees_end() {
        feed(walks, &device::walk_seeds(), 40_000);
    }

    #[test]
    fn a37_files_beside_the_content_take_noise() {
        feed(local_files, &device::local_file_seeds(), 20_000);
    }
}
