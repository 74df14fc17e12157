#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::FileExt as _;

use super::*;
use crate::backup::tests::{World, awkward_tree, root_of};
use crate::node::{Kind, Reference, encode_list};
use crate::ports::{Presence, SourceError};
use crate::tests::noise;

fn reader(world: &World) -> RandomReader {
    let source: Arc<dyn ObjectSource> = world.cell.clone();
    RandomReader::new(&world.repository, source)
}

/// What is at a path, found name by name.
fn entry(reader: &RandomReader, root: ChunkId, path: &str) -> Entry {
    let mut parts = reader.root(root).unwrap().parts;
    let mut found = None;
    for name in path.split('/') {
        let entry = reader.find(&parts, name.as_bytes()).unwrap().unwrap();
        if let Kind::Directory { parts: below } = &entry.kind {
            parts = below.clone();
        }
        found = Some(entry);
    }
    found.unwrap()
}

fn open(reader: &RandomReader, entry: &Entry) -> FileContent {
    let Kind::File {
        size,
        content,
        extents,
    } = &entry.kind
    else {
        panic!("not a file");
    };
    FileContent::open(*size, content, extents.as_deref(), reader).unwrap()
}

fn content_of(entry: &Entry) -> References {
    match &entry.kind {
        Kind::File { content, .. } => content.clone(),
        _ => panic!("not a file"),
    }
}

/// Files beyond this are compared at some places only.
const LARGE_BYTES: u64 = 64 << 20;

/// Compares at the beginning, the end, and all over.
fn must_equal_in_places(reader: &RandomReader, entry: &Entry, source: &fs::File) {
    let (file, size) = (open(reader, entry), source.metadata().unwrap().len());
    assert_eq!(file.size(), size);
    for part in 0..=64 {
        let place = (size / 64 * part).saturating_sub(5_000);
        let mut expected = vec![0; 10_000];
        let length = source.read_at(&mut expected, place).unwrap();
        assert_eq!(
            file.read(place, 10_000, reader).unwrap(),
            expected[..length]
        );
    }
}

/// Reads in steps that fit nothing, and at places from a seed, and compares with the file.
fn must_equal(reader: &RandomReader, entry: &Entry, bytes: &[u8]) {
    let file = open(reader, entry);
    assert_eq!(file.size(), bytes.len() as u64);
    let mut all = Vec::new();
    while all.len() < bytes.len() {
        let part = file.read(all.len() as u64, 1_000_003, reader).unwrap();
        assert!(!part.is_empty());
        all.extend(part);
    }
    assert_eq!(all, bytes);
    for place in noise(bytes.len() as u64, 64).chunks(8) {
        let place = u64::from_be_bytes(place.try_into().unwrap());
        let from = (place % (bytes.len() as u64 + 10)) as usize;
        let length = (place >> 32) as usize % 70_000;
        let expected = &bytes[from.min(bytes.len())..(from + length).min(bytes.len())];
        assert_eq!(file.read(from as u64, length, reader).unwrap(), expected);
    }
    assert_eq!(file.read(u64::MAX, 4096, reader).unwrap(), b"");
}

#[test]
fn every_file_reads_the_same_at_any_place() {
    let mut world = World::new();
    awkward_tree(&world);
    let root = root_of(&world.back_up());
    let reader = reader(&world);
    let top = entry(&reader, root, "source");
    let Kind::Directory { parts } = &top.kind else {
        panic!("the source is a directory");
    };
    let (mut files, mut listing) = (0, Listing::new(parts));
    while let Some(item) = listing.next(&reader).unwrap() {
        let Item::Entry(entry) = item else {
            panic!("a name was refused");
        };
        if matches!(entry.kind, Kind::File { .. }) {
            let path = world.source().join(entry.name.as_os_str());
            files += 1;
            if fs::metadata(&path).unwrap().len() > LARGE_BYTES {
                must_equal_in_places(&reader, &entry, &fs::File::open(path).unwrap());
            } else {
                must_equal(&reader, &entry, &fs::read(path).unwrap());
            }
        }
    }
    assert!(files > 3, "{files}");
    assert!(reader.find(parts, b"no such name").unwrap().is_none());
}

#[test]
fn a_file_with_lists_of_chunks_reads_the_same_at_any_place() {
    let mut world = World::new();
    let once = noise(3, 7_000_000);
    world.write("content", &once);
    let root = root_of(&world.back_up());
    let chunks = content_of(&entry(&reader(&world), root, "source/content")).list;
    // A list of chunks is a chunk: here that of a file with its bytes.
    world.write("list", &encode_list(&chunks));
    let root = root_of(&world.back_up());
    let list: Vec<Reference> = content_of(&entry(&reader(&world), root, "source/list")).list;
    world.write("lists", &encode_list(&[list[0], list[0]]));
    let root = root_of(&world.back_up());
    let reader = reader(&world);
    let lists = content_of(&entry(&reader, root, "source/lists")).list;
    let mut big = entry(&reader, root, "source/content");
    for (levels, list, times) in [(1, vec![list[0]; 3], 3), (2, vec![lists[0], lists[0]], 4)] {
        let bytes = once.repeat(times);
        big.kind = Kind::File {
            size: bytes.len() as u64,
            content: References {
                levels,
                list: list.clone(),
            },
            extents: None,
        };
        must_equal(&reader, &big, &bytes);
        // A file that is shorter or longer than it says is none.
        for size in [bytes.len() as u64 - 1, bytes.len() as u64 + 1] {
            let content = References {
                levels,
                list: list.clone(),
            };
            let opened = FileContent::open(size, &content, None, &reader);
            assert!(matches!(opened, Err(TreeError::Length { .. })));
        }
    }
}

#[test]
fn little_is_fetched_for_little() {
    let mut world = World::new();
    world.write("big", &noise(8, 60_000_000));
    let root = root_of(&world.back_up());
    let counted = Arc::new(Counted {
        cell: world.cell.clone(),
        bytes: Mutex::new(0),
        ranges: Mutex::new(Vec::new()),
    });
    let source: Arc<dyn ObjectSource> = counted.clone();
    let reader = RandomReader::new(&world.repository, source);
    let file = open(&reader, &entry(&reader, root, "source/big"));
    *counted.bytes.lock().unwrap() = 0;
    file.read(30_000_000, 4096, &reader).unwrap();
    let fetched = *counted.bytes.lock().unwrap();
    assert!(fetched < 9_000_000, "{fetched} bytes for 4096");
    file.read(30_000_000, 4096, &reader).unwrap();
    assert_eq!(*counted.bytes.lock().unwrap(), fetched, "it was kept");
}

/// A prune, or another device's repair, while somebody reads.
#[test]
fn a_pack_that_goes_between_two_looks_is_no_fault() {
    let mut world = World::new();
    world.write("a", &noise(1, 200_000));
    let root = root_of(&world.back_up());
    let reader = reader(&world);
    let place = world.repository.index().locate(&root).unwrap().unwrap();
    for gone in [
        Place {
            pack: ObjectId::from_bytes([7; 32]),
            ..place
        },
        Place {
            pack: ObjectId::from_bytes([7; 32]),
            pack_number: place.pack_number + 1_000,
            ..place
        },
    ] {
        assert!(reader.frame(&gone).unwrap().is_none());
    }
    assert!(reader.frame(&place).unwrap().is_some());
}

/// Of a pack the cell sees steps, or its head or end, and never where a frame lies.
#[test]
fn a30_reads_here_and_there_tell_no_lengths() {
    let mut world = World::new();
    world.write("big", &noise(8, 30_000_000));
    let root = root_of(&world.back_up());
    let counted = Arc::new(Counted {
        cell: world.cell.clone(),
        bytes: Mutex::new(0),
        ranges: Mutex::new(Vec::new()),
    });
    let source: Arc<dyn ObjectSource> = counted.clone();
    let reader = RandomReader::new(&world.repository, source);
    let file = open(&reader, &entry(&reader, root, "source/big"));
    for n in 0..200 {
        file.read(n * 149_999, 1000, &reader).unwrap();
    }
    let sealed_step = READ_STEP_BYTES / 65_536 * crate::seal::SEALED_SEGMENT_BYTES as u64;
    let mut parts = 0;
    for (object, range) in counted.ranges.lock().unwrap().iter() {
        let size = world.cell.object(*object).len() as u64;
        if *range == (0..HEADER_BYTES as u64) {
            continue;
        }
        parts += 1;
        let at = |place: u64| (place - HEADER_BYTES as u64).is_multiple_of(sealed_step);
        assert!(at(range.start), "{range:?}");
        assert!(at(range.end) || range.end == size, "{range:?} of {size}");
    }
    assert!(parts > 10);
}

/// A cell that counts what it sends.
struct Counted {
    cell: Arc<crate::tests::MemoryCell>,
    bytes: Mutex<usize>,
    ranges: Mutex<Vec<(ObjectId, core::ops::Range<u64>)>>,
}

impl ObjectSource for Counted {
    fn get(&self, object: ObjectId) -> Result<Bytes, SourceError> {
        self.get_range(object, 0..u64::MAX)
    }

    fn get_range(
        &self,
        object: ObjectId,
        range: core::ops::Range<u64>,
    ) -> Result<Bytes, SourceError> {
        self.ranges.lock().unwrap().push((object, range.clone()));
        let bytes = self.cell.get_range(object, range)?;
        *self.bytes.lock().unwrap() += bytes.len();
        Ok(bytes)
    }

    fn has(&self, objects: &[ObjectId]) -> Result<Vec<Presence>, SourceError> {
        self.cell.has(objects)
    }

    fn list(&self, after: Option<ObjectId>) -> Result<Vec<(ObjectId, u64)>, SourceError> {
        self.cell.list(after)
    }
}

#[test]
fn nothing_that_a_cell_changed_is_handed_out() {
    let mut world = World::new();
    let bytes = noise(4, 3_000_000);
    world.write("file", &bytes);
    let root = root_of(&world.back_up());
    let honest = reader(&world);
    let found = entry(&honest, root, "source/file");
    let pack = honest
        .index
        .locate(&content_of(&found).list[0].id)
        .unwrap()
        .unwrap()
        .pack;
    let sealed = world.cell.object(pack);
    let read_all = |reader: &RandomReader| open(reader, &found).read(0, bytes.len(), reader);
    for at in [0, 4, 6, 20, 60, HEADER_BYTES + 10, sealed.len() / 3] {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        world.cell.replace(pack, altered);
        let error = read_all(&reader(&world));
        assert!(
            error.as_ref().is_err_and(TreeError::is_integrity)
                || error.is_ok_and(|read| read == bytes),
            "byte {at}"
        );
    }
    for end in [0, HEADER_BYTES, sealed.len() / 2] {
        world.cell.replace(pack, sealed[..end].to_vec());
        assert!(read_all(&reader(&world)).is_err_and(|error| error.is_integrity()));
    }
    // Segments in another order.
    let mut swapped = sealed.clone();
    let size = crate::seal::SEALED_SEGMENT_BYTES;
    let (first, second) = swapped[HEADER_BYTES..].split_at_mut(size);
    first.swap_with_slice(&mut second[..size]);
    world.cell.replace(pack, swapped);
    let read = read_all(&reader(&world));
    assert!(read.is_err_and(|error| error.is_integrity()));
    world.cell.replace(pack, sealed);
    assert_eq!(read_all(&reader(&world)).unwrap(), bytes);
}
