//! Noise for sealed objects and what is in them: seal, pack, index object, manifest.

use std::sync::LazyLock;

use bytes::Bytes;
use candor_vault::chunk::CHUNK_MAX_BYTES;
use candor_vault::frame::{Codec, Compressor, FRAME_MAX_BYTES, decompress};
use candor_vault::index_object::{IndexBody, PackEntry, read};
use candor_vault::pack::{PendingFrame, Table, lay_out, read_table};
use candor_vault::seal::{
    Aes256Gcm, Context, HEADER_BYTES, ObjectType, Opener, SEALED_SEGMENT_BYTES, SEGMENT_BYTES,
    SealBuffer, open_body, open_whole, plaintext_bytes,
};
use candor_vault::{ChunkId, EpochKey, Manifest, OpenPack, Stream, VaultKeys};
use candor_wire::cbor::encode;
use candor_wire::{AccountId, ObjectId, VaultId};

use super::choices::Choices;
use super::{Noise, seeds};

const TYPES: [ObjectType; 3] = [ObjectType::Pack, ObjectType::Index, ObjectType::Manifest];
const SALT: [u8; 32] = [5; 32];

/// The vault of the vectors: epochs 1 and 2.
static KEYS: LazyLock<VaultKeys> = LazyLock::new(|| {
    let epochs = [(1, 7), (2, 8)].map(|(epoch, key)| (epoch, EpochKey::from_bytes(&[key; 32])));
    let vault = VaultId::from_bytes([2; 16]);
    VaultKeys::new(AccountId::from_bytes([1; 16]), vault, epochs).expect("these are keys")
});

fn sealed(kind: ObjectType, epoch: u32, buffer: SealBuffer) -> (ObjectId, Vec<u8>) {
    let context = Context {
        account: KEYS.account(),
        vault: KEYS.vault(),
        epoch,
        object_type: kind,
    };
    let key = KEYS.epoch(epoch).expect("the epoch is there");
    buffer.seal_with_salt::<Aes256Gcm>(&context, key, &SALT)
}

/// Bytes of which no two segments are alike.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|place| (place * 7 + place / SEGMENT_BYTES) as u8)
        .collect()
}

/// Opens a range as a device does: the segments that it needs, and no more.
fn open_range(kind: ObjectType, object: &[u8], range: core::ops::Range<u64>) -> Option<Vec<u8>> {
    let opener = Opener::<Aes256Gcm>::new(&KEYS, kind, object, object.len() as u64).ok()?;
    let needed = opener.ciphertext_range(&range)?;
    let needed = needed.start as usize..needed.end as usize;
    let mut segments = object.get(needed)?.to_vec();
    let place = opener.open_range(&range, &mut segments).ok()?;
    Some(segments[place].to_vec())
}

/// Moves, drops and repeats segments, which a flipped bit never does.
fn edit_segments(object: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let count = object.len().saturating_sub(HEADER_BYTES) / SEALED_SEGMENT_BYTES;
    if count == 0 {
        return;
    }
    let start = |number: usize| HEADER_BYTES + number * SEALED_SEGMENT_BYTES;
    let (a, b) = (choices.below(count), choices.below(count));
    let segment = object[start(a)..start(a + 1)].to_vec();
    match choices.byte() % 4 {
        0 => object.extend_from_slice(&segment),
        1 => drop(object.drain(start(a)..start(a + 1))),
        2 => {
            object.copy_within(start(b)..start(b + 1), start(a));
            object[start(b)..start(b + 1)].copy_from_slice(&segment);
        }
        _ => object.truncate(start(a)),
    }
}

/// The kind of change that moves whole segments.
const SEGMENTS: u8 = 1;

/// An object that was sealed and then changed: it does not open; and whatever range of it does, is what was
/// sealed there.
fn changed_object(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let kind = choices.pick(&TYPES);
    let epoch = 1 + u32::from(choices.once_in(4));
    let change = choices.byte() % 4;
    let length = match (change, choices.byte() % 8) {
        (SEGMENTS, _) => 2 * SEGMENT_BYTES + choices.below(60_000),
        (_, 0) => SEGMENT_BYTES,
        (_, 1) => SEGMENT_BYTES + 1,
        _ => 1 + choices.below(2000),
    };
    let plaintext = pattern(length);
    let mut buffer = SealBuffer::new(length, Vec::new());
    buffer.append(&plaintext);
    let (_, good) = sealed(kind, epoch, buffer);
    let mut object = good.clone();
    match change {
        0 => object = choices.edit(&good),
        SEGMENTS => edit_segments(&mut object, &mut choices),
        2 => {
            let place = choices.number() as usize % object.len();
            object[place] ^= 1 << (choices.byte() % 8);
        }
        _ => {}
    }
    let asked = match choices.once_in(8) {
        true => choices.pick(&TYPES),
        false => kind,
    };
    let is_same = object == good && asked == kind;
    let start = choices.below(length) as u64;
    let end = start + 1 + choices.below(length) as u64;
    match open_range(asked, &object, start..end) {
        Some(opened) => {
            let sealed = plaintext.get(start as usize..end as usize);
            assert!(sealed == Some(&opened[..]), "a range says something else");
            assert_eq!(asked, kind, "opened as another type");
        }
        None => assert!(!is_same || end > length as u64, "a good range is refused"),
    }
    match open_whole(&KEYS, asked, &mut object) {
        Ok(opened) => assert!(is_same && object[..opened] == plaintext, "a forged object"),
        Err(_) => assert!(!is_same, "a good object is refused"),
    }
}

/// Objects of the vectors that are whole in their file.
static KNOWN: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| seeds::bytes_in("seal/accepted.txt", HEADER_BYTES));

/// Bytes from nowhere: nothing opens but what the vectors have.
fn raw_object(bytes: &[u8]) {
    if KNOWN.iter().any(|known| known == bytes) {
        return;
    }
    for kind in TYPES {
        let mut object = bytes.to_vec();
        assert!(open_whole(&KEYS, kind, &mut object).is_err());
        let mut object = bytes.to_vec();
        assert!(open_body(&KEYS, kind, &mut object).is_err());
        assert_eq!(open_range(kind, bytes, 0..1), None);
    }
}

/// A body with any length word before it: only one that fits, with zeros after it, is one.
fn bodies(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let size = 64 * 1024;
    let word = match choices.byte() % 4 {
        0 => choices.number() as u32,
        1 => (plaintext_bytes(size) as u32 - 6).wrapping_add(u32::from(choices.byte() % 4)),
        _ => choices.below(2000) as u32,
    };
    let count = choices.below(2000);
    let content = choices.take(count);
    let last = choices.once_in(8);
    let mut plain = vec![0; plaintext_bytes(size)];
    plain[..4].copy_from_slice(&word.to_be_bytes());
    plain[4..4 + content.len()].copy_from_slice(content);
    if let Some(end) = plain.last_mut() {
        *end = u8::from(last);
    }
    let mut buffer = SealBuffer::new(plain.len(), Vec::new());
    buffer.append(&plain);
    let (_, mut object) = sealed(ObjectType::Index, 1, buffer);
    let end = 4usize.saturating_add(word as usize);
    let is_body = end <= plain.len() && plain[end..].iter().all(|byte| *byte == 0);
    match open_body(&KEYS, ObjectType::Index, &mut object) {
        Ok(body) => assert!(is_body && object[body] == plain[4..end]),
        Err(_) => assert!(!is_body, "a good body is refused"),
    }
}

/// The first byte selects a row; rows are only ever added at the end.
const SEALS: &[Noise] = &[changed_object, raw_object, bodies];

/// Sealed objects.
pub fn seals(noise: &[u8]) {
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    SEALS[usize::from(*selector) % SEALS.len()](bytes);
}

pub fn seal_seeds() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = seeds::selected(1, KNOWN.clone()).collect();
    for row in [0, 2] {
        all.extend(seeds::selected(row, seeds::decisions()));
    }
    all
}

/// What a table that was read says about itself.
fn check_table(table: &Table) {
    assert!(!table.frames.is_empty());
    let mut chunks = 0;
    let mut offset = 0;
    for (number, frame) in (0..).zip(&table.frames) {
        assert_eq!((frame.offset, frame.chunks.start), (offset, chunks));
        assert!(frame.plaintext as usize <= FRAME_MAX_BYTES && frame.stored <= frame.plaintext);
        let mut within = 0;
        for chunk in table.chunks_of(number) {
            assert!(chunk.length > 0 && chunk.length as usize <= CHUNK_MAX_BYTES);
            assert_eq!(chunk.offset, within);
            within += chunk.length;
        }
        assert_eq!(within, frame.plaintext);
        offset += frame.stored;
        chunks = frame.chunks.end;
    }
    assert_eq!(chunks, table.chunks.len());
}

/// The opened bytes of a pack.
fn pack_plaintext(bytes: &[u8]) {
    let Ok(table) = read_table(bytes) else {
        return;
    };
    check_table(&table);
    let encoded = table.encode();
    let end = bytes.len() - 4;
    assert_eq!(bytes[end - encoded.len()..end], encoded);
    let mut out = Vec::new();
    for frame in &table.frames {
        let start = frame.offset as usize;
        let stored = &bytes[start..start + frame.stored as usize];
        let length = frame.plaintext as usize;
        if frame.codec == Codec::Zstd && decompress(stored, length, &mut out).is_ok() {
            assert_eq!(out.len(), length);
        }
    }
}

fn table(bytes: &[u8]) {
    if let Ok(table) = Table::decode(bytes) {
        check_table(&table);
        assert_eq!(table.encode(), bytes);
    }
}

/// A frame of zstd, or of noise: what was promised comes out, or nothing.
fn frame(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let raw = choices.once_in(2);
    let claimed = choices.number() as usize % (FRAME_MAX_BYTES + 2);
    let mut out = Vec::new();
    if raw {
        if decompress(choices.rest(), claimed, &mut out).is_ok() {
            assert!(out.len() == claimed && claimed <= FRAME_MAX_BYTES);
        }
        return;
    }
    let plain = choices.rest().repeat(20);
    let mut stored = Vec::new();
    if Compressor::new().compress(&plain, &mut stored) == Codec::Zstd {
        let opened = decompress(&stored, plain.len(), &mut out);
        assert!(opened.is_ok() && out == plain);
        let other = decompress(&stored, plain.len() + 1, &mut out);
        assert!(other.is_err(), "another length than was promised");
    }
}

/// A whole pack, sealed, with its plaintext changed before: every chunk that is handed out is what its name
/// says.
fn whole_pack(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let pending = |choices: &mut Choices<'_>| {
        let lengths: Vec<usize> = (0..=choices.byte() % 3)
            .map(|_| 1 + choices.below(100))
            .collect();
        let plain = pattern(lengths.iter().sum());
        let mut start = 0;
        let chunks = lengths.iter().map(|length| {
            let chunk = &plain[start..start + length];
            start += length;
            (ChunkId::of(&KEYS, chunk), *length as u32)
        });
        PendingFrame {
            codec: Codec::Stored,
            plaintext: plain.len() as u32,
            chunks: chunks.collect(),
            stored: plain,
        }
    };
    let frames: Vec<PendingFrame> = (0..=choices.byte() % 3)
        .map(|_| pending(&mut choices))
        .collect();
    let stream = choices.pick(&[Stream::Data, Stream::Tree]);
    let (buffer, table) = lay_out(stream, &frames, Vec::new()).expect("a few frames fit");
    check_table(&table);
    let (name, mut object) = sealed(ObjectType::Pack, 1, buffer);
    let length = open_whole(&KEYS, ObjectType::Pack, &mut object).expect("it was just sealed");
    let mut plain = object[..length].to_vec();
    let is_changed = choices.once_in(2);
    let (name, object) = if is_changed {
        let near = plain.len() - 1 - choices.below(table.encode().len() + 4);
        plain[near] = choices.byte();
        let place = choices.below(300);
        plain[place] ^= choices.byte();
        let mut buffer = SealBuffer::new(plain.len(), Vec::new());
        buffer.append(&plain);
        sealed(ObjectType::Pack, 1, buffer)
    } else {
        let mut buffer = SealBuffer::new(plain.len(), Vec::new());
        buffer.append(&plain);
        let again = sealed(ObjectType::Pack, 1, buffer);
        assert_eq!(again.0, name);
        again
    };
    let opened = OpenPack::open(&KEYS, name, Bytes::from(object));
    assert!(is_changed || opened.is_ok(), "a good pack is refused");
    if let Ok(pack) = opened {
        let verified = pack.verify_all(&KEYS, &mut Vec::new());
        assert!(is_changed || verified.is_ok(), "a good chunk is refused");
    }
}

/// The first byte selects a row; rows are only ever added at the end.
const PACKS: &[Noise] = &[pack_plaintext, table, frame, whole_pack];

/// Packs: tables, frames, and the whole.
pub fn packs(noise: &[u8]) {
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    PACKS[usize::from(*selector) % PACKS.len()](bytes);
}

pub fn pack_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for file in ["pack/accepted.txt", "pack/rejected.txt"] {
        let packs = seeds::bytes_in(file, 4);
        let tables = packs.iter().filter_map(|pack| {
            let table = read_table(pack).ok()?;
            Some(table.encode())
        });
        all.extend(seeds::selected(1, tables.collect()));
        all.extend(seeds::selected(0, packs));
    }
    let plain = b"to be or not to be, ".repeat(40);
    let mut stored = Vec::new();
    Compressor::new().compress(&plain, &mut stored);
    stored.splice(0..0, [1, 0, 0, 0, 0, 0, 0, 3, 32]);
    all.extend(seeds::selected(2, vec![stored]));
    for row in [2, 3] {
        all.extend(seeds::selected(row, seeds::decisions()));
    }
    all
}

/// The body of an index object: what is read makes the same body again.
pub fn index_objects(noise: &[u8]) {
    let Ok(entries) = read(noise) else {
        return;
    };
    let mut body = IndexBody::new();
    for entry in entries {
        let Ok((entry, table)) = entry else {
            return;
        };
        check_table(&table);
        assert_eq!(table.encode(), entry.table);
        let PackEntry { stored_bytes, .. } = entry;
        assert!(candor_vault::seal::is_object_size(u64::from(stored_bytes)));
        assert!(body.push(&entry), "what was read does not fit a body");
    }
    assert_eq!(body.finish(), noise, "another spelling of an index object");
}

pub fn index_object_seeds() -> Vec<Vec<u8>> {
    let files = ["index/accepted.txt", "index/rejected.txt"];
    files
        .into_iter()
        .flat_map(|file| seeds::bytes_in(file, 40))
        .collect()
}

/// The body of a manifest.
pub fn manifests(noise: &[u8]) {
    let (account, vault) = (KEYS.account(), KEYS.vault());
    let Ok(manifest) = Manifest::decode(noise, account, vault) else {
        return;
    };
    assert_eq!(encode(&manifest), noise);
    assert_eq!(manifest.check(account, vault), Ok(()));
    let other = AccountId::from_bytes([9; 16]);
    assert!(Manifest::decode(noise, other, vault).is_err());
    for snapshot in manifest.snapshots.iter().take(4) {
        assert_eq!(manifest.snapshot(snapshot.id), Some(snapshot));
    }
}

pub fn manifest_seeds() -> Vec<Vec<u8>> {
    let files = ["manifest/accepted.txt", "manifest/rejected.txt"];
    files
        .into_iter()
        .flat_map(|file| seeds::bytes_in(file, 17))
        .collect()
}
