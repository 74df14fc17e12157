use proptest::prelude::*;

use super::{MemoryCell, keys, keys_of, noise};
use crate::chunk::{CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, ChunkId, first_cut};
use crate::frame::*;
use crate::index_object::{self, IndexBody, PackEntry};
use crate::manifest::IndexReference;
use crate::merge::{MERGE_FANOUT, plan};
use crate::pack::*;
use crate::reader::fetch;
use crate::seal::{BODY_MAX_BYTES, ObjectType, SealBuffer, Sealer, open_whole};
use crate::{OpenPack, ReadError, SystemEntropy};
use bytes::Bytes;
use candor_wire::ObjectId;
use std::sync::Arc;

pub(super) fn pending(contents: &[&[u8]]) -> PendingFrame {
    let plaintext = contents.concat();
    let mut compressed = Vec::new();
    let codec = Compressor::new().compress(&plaintext, &mut compressed);
    let stored = if codec == Codec::Zstd {
        compressed
    } else {
        plaintext.clone()
    };
    let chunks = contents
        .iter()
        .map(|c| (ChunkId::of(&keys(), c), c.len() as u32))
        .collect();
    PendingFrame {
        codec,
        stored,
        plaintext: plaintext.len() as u32,
        chunks,
    }
}

fn table() -> Table {
    let frames = [pending(&[b"one", b"two two"]), pending(&[&[7; 5000]])];
    lay_out(Stream::Data, &frames, Vec::new()).unwrap().1
}

fn sealed(frames: &[PendingFrame]) -> (ObjectId, Vec<u8>) {
    let (buffer, _) = lay_out(Stream::Data, frames, Vec::new()).unwrap();
    let sealer = Sealer::new(Arc::new(keys()), Arc::new(SystemEntropy)).unwrap();
    sealer.seal(ObjectType::Pack, buffer, &[0; 32]).unwrap()
}

#[test]
fn a_pack_gives_back_every_chunk() {
    let (large, text) = (
        noise(1, 900_000),
        b"the same line over and over\n".repeat(9000),
    );
    let frames = [
        pending(&[b"first", &text]),
        pending(&[&large]),
        pending(&[b"x"]),
    ];
    assert_eq!(
        [frames[0].codec, frames[1].codec],
        [Codec::Zstd, Codec::Stored]
    );
    let (object, bytes) = sealed(&frames);
    assert_eq!(bytes.len(), 1024 * 1024);
    let pack = OpenPack::open(&keys(), object, Bytes::from(bytes)).unwrap();
    assert_eq!((pack.frames(), pack.stream()), (3, Stream::Data));
    let mut scratch = Vec::new();
    let expected = (5 + text.len() + large.len() + 1) as u64;
    assert_eq!(pack.verify_all(&keys(), &mut scratch).unwrap(), expected);
    assert_eq!(pack.frame(2, &mut scratch).unwrap(), b"x");
    assert!(matches!(
        pack.frame(3, &mut scratch),
        Err(ReadError::Pack { .. })
    ));
    assert!(pack.chunks(3).is_empty());
}

/// Another sound pack of the same vault, and one whose name is right and whose size tells how full it is.
#[test]
fn a10_a_pack_is_the_one_that_was_asked_for_and_has_a_pack_s_size() {
    let refused = |object: ObjectId, bytes: &[u8]| {
        let cell = MemoryCell::new();
        cell.replace(object, bytes.to_vec());
        let fetched = fetch(&cell, object).map(|_| ());
        let opened = OpenPack::open(&keys(), object, Bytes::copy_from_slice(bytes)).map(|_| ());
        for result in [fetched, opened] {
            assert!(
                matches!(result, Err(ReadError::WrongObject { object: named }) if named == object),
                "{result:?}"
            );
        }
    };
    let (one, two) = (sealed(&[pending(&[b"one"])]), sealed(&[pending(&[b"two"])]));
    refused(one.0, &two.1);
    refused(two.0, &one.1);

    let sealer = Sealer::new(Arc::new(keys()), Arc::new(SystemEntropy)).unwrap();
    for plaintext in [1, 64 * 1024, 100_000] {
        let buffer = SealBuffer::new(plaintext, Vec::new());
        let (object, bytes) = sealer.seal(ObjectType::Pack, buffer, &[0; 32]).unwrap();
        assert!(open_whole(&keys(), ObjectType::Pack, &mut bytes.clone()).is_ok());
        refused(object, &bytes);
    }
}

#[test]
fn packs_fill_exactly_and_waste_little() {
    let sizes: Vec<usize> = (0..24)
        .map(|n| 300_000 + (n * 7919 * 131) % 1_600_000)
        .collect();
    let chosen = choose(&sizes, &[1; 32]);
    let used: usize = chosen.iter().map(|&at| sizes[at]).sum();
    assert!(
        used <= PACK_ROOM_BYTES && used * 50 >= PACK_ROOM_BYTES * 49,
        "{used} bytes used"
    );
    assert_ne!(chosen, choose(&sizes, &[2; 32]), "the order is random");
    assert!(
        chosen.windows(2).any(|pair| pair[0] > pair[1]),
        "frames are shuffled"
    );
    // A pack that is full to the last byte is exactly 16 MiB, and opens.
    let exact = PACK_ROOM_BYTES - 4 * (13 + 36);
    let mut frames: Vec<_> = (0..3)
        .map(|n| pending(&[&noise(n, CHUNK_MAX_BYTES)]))
        .collect();
    frames.push(pending(&[&noise(9, exact - 3 * CHUNK_MAX_BYTES)]));
    let (object, bytes) = sealed(&frames);
    assert_eq!(bytes.len(), 16 * 1024 * 1024);
    OpenPack::open(&keys(), object, Bytes::from(bytes)).unwrap();
    frames.push(pending(&[b"one byte too many"]));
    assert!(lay_out(Stream::Data, &frames, Vec::new()).is_none());
    assert!(lay_out(Stream::Data, &[], Vec::new()).is_none());
}

#[test]
fn tables_that_do_not_add_up_are_refused() {
    let good = table().encode();
    assert_eq!(Table::decode(&good), Ok(table()));
    for at in [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18,
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x80;
        assert_eq!(Table::decode(&bad), Err(PackError), "offset {at}");
    }
    for cut in 0..good.len() {
        assert_eq!(Table::decode(&good[..cut]), Err(PackError), "cut at {cut}");
    }
    assert_eq!(Table::decode(&[&good[..], &[0]].concat()), Err(PackError));
}

#[test]
fn a07_frames_in_another_order_are_not_the_chunks_they_claim_to_be() {
    // A member's own mistake or malice: the table names the chunks in another order than they lie.
    let mut frame = pending(&[b"same length a", b"same length b"]);
    frame.chunks.swap(0, 1);
    let (object, bytes) = sealed(&[frame]);
    let pack = OpenPack::open(&keys(), object, Bytes::from(bytes)).unwrap();
    let refused = pack.verify_all(&keys(), &mut Vec::new());
    let wrong = ChunkId::of(&keys(), b"same length b");
    assert!(matches!(refused, Err(ReadError::WrongChunk { chunk, .. }) if chunk == wrong));
}

#[test]
fn a31_known_content_cannot_be_confirmed() {
    let known = b"a file that everybody has";
    let id = ChunkId::of(&keys(), known);
    assert_ne!(id.as_bytes(), blake3::hash(known).as_bytes());
    for other in [
        keys_of(1, 2, &[(1, 8)]),
        keys_of(3, 2, &[(1, 7)]),
        keys_of(1, 3, &[(1, 7)]),
    ] {
        assert_ne!(
            id,
            ChunkId::of(&other, known),
            "each vault has its own names"
        );
    }
    // A later epoch keeps the names, so that nothing is stored twice after a rotation.
    assert_eq!(id, ChunkId::of(&keys_of(1, 2, &[(1, 7), (2, 9)]), known));
    // What is stored shows neither name nor content.
    let (_, bytes) = sealed(&[pending(&[known])]);
    for needle in [
        id.as_bytes().as_slice(),
        blake3::hash(known).as_bytes(),
        known,
    ] {
        assert!(!bytes.windows(needle.len()).any(|window| window == needle));
    }
}

#[test]
fn a36_decompression_is_bounded_by_the_promised_length() {
    let bomb = zstd::bulk::compress(&vec![0; 512 << 20], 19).unwrap();
    assert!(bomb.len() < 100_000);
    let mut out = Vec::new();
    for promised in [1, 1000, FRAME_MAX_BYTES] {
        out = Vec::new();
        assert_eq!(decompress(&bomb, promised, &mut out), Err(FrameError));
        assert!(out.capacity() <= 2 * FRAME_MAX_BYTES);
    }
    for promised in [FRAME_MAX_BYTES + 1, usize::MAX] {
        assert_eq!(
            decompress(&bomb, promised, &mut out),
            Err(FrameError),
            "refused unread"
        );
    }
    // Shorter than promised is refused too, and so is what is not zstd.
    let small = zstd::bulk::compress(b"content", 3).unwrap();
    assert_eq!(decompress(&small, 7, &mut out), Ok(()));
    assert_eq!(out, b"content");
    assert_eq!(decompress(&small, 8, &mut out), Err(FrameError));
    assert_eq!(decompress(b"not zstd", 8, &mut out), Err(FrameError));
    assert_eq!(decompress(&[], 8, &mut out), Err(FrameError));
}

#[test]
fn a36_claimed_counts_allocate_nothing() {
    let huge = |frames: u32, chunks: u32| {
        let mut table = vec![TABLE_VERSION, 0];
        table.extend_from_slice(&frames.to_be_bytes());
        table.push(0);
        table.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
        table.extend_from_slice(&chunks.to_be_bytes());
        table.extend_from_slice(&[0; 36]);
        table
    };
    for (frames, chunks) in [(u32::MAX, 1), (1, u32::MAX), (0, 0), (2, 1), (1, 2), (1, 0)] {
        assert_eq!(Table::decode(&huge(frames, chunks)), Err(PackError));
    }
    let mut body = vec![1];
    body.extend_from_slice(&u32::MAX.to_be_bytes());
    assert!(index_object::read(&body).unwrap().next().unwrap().is_err());
    body.extend_from_slice(&[0xFF; 40]);
    let mut entries = index_object::read(&body).unwrap();
    assert!(entries.next().unwrap().is_err() && entries.next().is_none());
}

#[test]
fn index_objects_are_read_back_and_bad_ones_refused() {
    let encoded = table().encode();
    let entry = PackEntry {
        object: ObjectId::from_bytes([4; 32]),
        stored_bytes: 65536,
        table: &encoded,
    };
    let mut body = IndexBody::new();
    assert!(body.push(&entry) && body.push(&entry));
    let body = body.finish();
    let read: Result<Vec<_>, _> = index_object::read(&body).unwrap().collect();
    assert_eq!(read.unwrap(), vec![(entry, table()), (entry, table())]);
    let refused = |bytes: &[u8]| match index_object::read(bytes) {
        Err(_) => true,
        Ok(mut entries) => entries.any(|entry| entry.is_err()),
    };
    for cut in 0..body.len() {
        assert!(refused(&body[..cut]), "cut at {cut}");
    }
    assert!(refused(&[&body[..], &[0]].concat()));
    let mut odd_size = body.clone();
    odd_size[5 + 32 + 3] = 1;
    assert!(refused(&odd_size));
    let mut full = IndexBody::new();
    let long = vec![0; BODY_MAX_BYTES];
    assert!(!full.push(&PackEntry {
        table: &long,
        ..entry
    }));
}

#[test]
fn merging_keeps_few_index_objects() {
    let mut listed: Vec<IndexReference> = Vec::new();
    let (mut most, mut rewritten) = (0, 0u64);
    for run in 0..4000u32 {
        let planned = plan(&listed, vec![(1, 2000 + (run as usize * 37) % 3000)]);
        listed = planned
            .iter()
            .enumerate()
            .map(|(at, planned)| match planned.origins.as_slice() {
                [crate::merge::Origin::Listed(reference)] => *reference,
                _ => {
                    rewritten += planned.body_bytes;
                    let mut name = [0; 32];
                    name[..8]
                        .copy_from_slice(&[run.to_be_bytes(), (at as u32).to_be_bytes()].concat());
                    IndexReference {
                        object: ObjectId::from_bytes(name),
                        body_bytes: planned.body_bytes,
                    }
                }
            })
            .collect();
        most = most.max(listed.len());
        assert!(
            listed
                .iter()
                .all(|index| index.body_bytes <= BODY_MAX_BYTES as u64)
        );
    }
    let total: u64 = listed.iter().map(|index| index.body_bytes).sum();
    assert!(most <= 4 * MERGE_FANOUT, "{most} index objects");
    assert!(
        rewritten < 10 * total,
        "{rewritten} bytes written for {total}"
    );
    let split = plan(
        &[],
        (0..20).map(|number| (number, BODY_MAX_BYTES / 3)).collect(),
    );
    assert!(
        split
            .iter()
            .all(|planned| planned.body_bytes <= BODY_MAX_BYTES as u64)
    );
}

#[test]
fn frames_compress_only_when_it_pays() {
    let mut out = Vec::new();
    let mut compressor = Compressor::new();
    assert_eq!(
        compressor.compress(&noise(1, 1 << 20), &mut out),
        Codec::Stored
    );
    assert_eq!(
        compressor.compress(&noise(1, 1000), &mut out),
        Codec::Stored
    );
    let text = b"fn main() { println!(\"hello\"); }\n".repeat(40_000);
    assert_eq!(compressor.compress(&text, &mut out), Codec::Zstd);
    let mut back = Vec::new();
    decompress(&out, text.len(), &mut back).unwrap();
    assert_eq!(back, text);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cutting_keeps_every_byte_and_the_bounds(seed: u64, length in 1usize..(9 << 20)) {
        let content = noise(seed, length);
        let mut rest = &content[..];
        while !rest.is_empty() {
            let cut = first_cut(rest);
            prop_assert!(cut > 0 && cut <= CHUNK_MAX_BYTES && cut <= rest.len());
            prop_assert!(cut >= CHUNK_MIN_BYTES || cut == rest.len());
            // The cut depends on nothing that comes after the longest chunk.
            prop_assert_eq!(cut, first_cut(&rest[..rest.len().min(CHUNK_MAX_BYTES)]));
            rest = &rest[cut..];
        }
    }

    #[test]
    fn any_frames_make_a_pack_that_reads_back(
        contents in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..3000), 1..6), 1..8),
    ) {
        let frames: Vec<_> = contents
            .iter()
            .map(|chunks| pending(&chunks.iter().map(Vec::as_slice).collect::<Vec<_>>()))
            .collect();
        let (object, mut bytes) = sealed(&frames);
        let pack = OpenPack::open(&keys(), object, Bytes::from(bytes.clone())).unwrap();
        let total: usize = contents.iter().flatten().map(Vec::len).sum();
        prop_assert_eq!(pack.verify_all(&keys(), &mut Vec::new()).unwrap(), total as u64);
        let length = open_whole(&keys(), ObjectType::Pack, &mut bytes).unwrap();
        let table = read_table(&bytes[..length]).unwrap();
        prop_assert_eq!(Table::decode(&table.encode()), Ok(table));
    }

    #[test]
    fn foreign_bytes_make_no_table(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(table) = Table::decode(&bytes) {
            prop_assert_eq!(&table.encode(), &bytes);
        }
        let _ = read_table(&bytes);
    }
}
