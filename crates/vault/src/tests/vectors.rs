//! Reads the vectors under `vectors/`, accepted and rejected. With CANDOR_WRITE_VECTORS set, the
//! accepted ones are written first; a change of any of them is a change of a format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use candor_wire::ids::to_hex;
use candor_wire::{AccountId, DeviceId, Millis, ObjectId, VaultId, cbor};

use super::packing::pending;
use super::sealing::Twin;
use super::{keys, keys_of};
use crate::index_object::{self, IndexBody, PackEntry};
use crate::keys::{EpochKey, VaultKeys};
use crate::manifest::{IndexReference, Manifest, SnapshotEntry, SnapshotId, SnapshotStats};
use crate::pack::{PendingFrame, Stream, Table, lay_out, read_table};
use crate::seal::*;
use crate::{ChunkId, ManifestError};

type Block = BTreeMap<String, String>;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../vectors")
        .join(name)
}

/// Blocks of `name = value` lines, separated by empty lines; `#` starts a comment.
fn read(name: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let mut blocks = vec![Block::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(" = ") {
            Some((name, value)) => {
                blocks
                    .last_mut()
                    .unwrap()
                    .insert(name.to_owned(), value.to_owned());
            }
            None => blocks.push(Block::new()),
        }
    }
    blocks.retain(|block| !block.is_empty());
    assert!(!blocks.is_empty(), "{name} holds vectors");
    blocks
}

#[expect(
    clippy::disallowed_methods,
    reason = "vectors are only written when a person asks for it"
)]
fn write(name: &str, head: &str, blocks: &[Vec<(&str, String)>]) {
    if std::env::var_os("CANDOR_WRITE_VECTORS").is_none() {
        return;
    }
    let mut text = String::new();
    head.lines()
        .for_each(|line| writeln!(text, "# {line}").unwrap());
    for block in blocks {
        text.push('\n');
        block
            .iter()
            .for_each(|(name, value)| writeln!(text, "{name} = {value}").unwrap());
    }
    std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
    std::fs::write(path(name), text).unwrap();
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

fn bytes<const N: usize>(block: &Block, name: &str) -> [u8; N] {
    hex(&block[name]).try_into().unwrap()
}

fn number(block: &Block, name: &str) -> usize {
    block[name].parse().unwrap()
}

fn object_type(name: &str) -> ObjectType {
    match name {
        "pack" => ObjectType::Pack,
        "index" => ObjectType::Index,
        "manifest" => ObjectType::Manifest,
        other => panic!("object type {other}"),
    }
}

fn vault_keys(block: &Block) -> VaultKeys {
    let epoch = number(block, "epoch") as u32;
    let mut epochs = vec![(epoch, EpochKey::from_bytes(&bytes(block, "epoch_key")))];
    if epoch != 1 {
        epochs.push((1, EpochKey::from_bytes(&[0; 32])));
    }
    let account = AccountId::from_bytes(bytes(block, "account"));
    VaultKeys::new(account, VaultId::from_bytes(bytes(block, "vault")), epochs).unwrap()
}

/// The plaintext of the seal vectors: byte number i is (7 i + 3) modulo 256.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + 3) as u8).collect()
}

fn seal_block<A: Aead>(block: &Block) -> (ObjectId, Vec<u8>) {
    let keys = vault_keys(block);
    let epoch = number(block, "epoch") as u32;
    let context = Context {
        account: keys.account(),
        vault: keys.vault(),
        epoch,
        object_type: object_type(&block["type"]),
    };
    let plaintext = pattern(number(block, "plaintext_bytes"));
    let mut buffer = SealBuffer::new(plaintext.len(), Vec::new());
    buffer.append(&plaintext);
    buffer.seal_with_salt::<A>(&context, keys.epoch(epoch).unwrap(), &bytes(block, "salt"))
}

const SEAL_HEAD: &str = "Sealed objects (docs/formats/vault.md). Byte i of the plaintext is (7 i + 3) mod 256.\n\
`object_start` is the header and what follows, up to 96 bytes; `object` names the whole.";

fn write_seal() {
    let cases = [
        ("one-byte", 1, "pack", 1, 1),
        ("one-block", 16, "index", 1, 2),
        ("full-segment", SEGMENT_BYTES, "manifest", 7, 3),
        ("two-segments", SEGMENT_BYTES + 1, "pack", 1, 4),
        (
            "three-segments",
            2 * SEGMENT_BYTES + 1000,
            "pack",
            4_000_000_000u32,
            5,
        ),
    ];
    let blocks: Vec<Vec<(&str, String)>> = cases
        .iter()
        .map(|&(name, length, kind, epoch, salt)| {
            let mut block = vec![
                ("name", name.to_owned()),
                ("epoch_key", to_hex(&[7; 32])),
                ("account", to_hex(&[1; 16])),
                ("vault", to_hex(&[2; 16])),
                ("epoch", epoch.to_string()),
                ("type", kind.to_owned()),
                ("salt", to_hex(&[salt; 32])),
                ("plaintext_bytes", length.to_string()),
            ];
            let named: Block = block
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect();
            let (id, object) = seal_block::<Twin>(&named);
            block.push(("object_start", to_hex(&object[..object.len().min(96)])));
            block.push(("object_bytes", object.len().to_string()));
            block.push(("object", id.to_string()));
            block
        })
        .collect();
    write("seal/accepted.txt", SEAL_HEAD, &blocks);
}

#[test]
fn seal_vectors_are_accepted() {
    write_seal();
    for block in read("seal/accepted.txt") {
        for (id, object) in [seal_block::<Aes256Gcm>(&block), seal_block::<Twin>(&block)] {
            assert_eq!(id.to_string(), block["object"], "{}", block["name"]);
            assert_eq!(object.len(), number(&block, "object_bytes"));
            assert_eq!(
                to_hex(&object[..object.len().min(96)]),
                block["object_start"]
            );
            let mut opened = object;
            let kind = object_type(&block["type"]);
            let length = open_whole(&vault_keys(&block), kind, &mut opened).unwrap();
            assert_eq!(opened[..length], pattern(length));
        }
    }
}

/// Applies one change, as `vectors/seal/rejected.txt` describes them.
fn change(change: &str, mut object: Vec<u8>, block: &mut Block) -> Vec<u8> {
    let words: Vec<&str> = change.split(' ').collect();
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    let segment = |n: usize, length: usize| {
        let start = HEADER_BYTES + n * SEALED_SEGMENT_BYTES;
        start..(start + SEALED_SEGMENT_BYTES).min(length)
    };
    match words[0] {
        "flip" => object[number(1)] ^= 1 << number(2),
        "set" => object[number(1)] = number(2) as u8,
        "truncate" => object.truncate(number(1)),
        "append" => object.extend_from_slice(&hex(words[1])),
        "append-segment" => {
            let copy = object[segment(number(1), object.len())].to_vec();
            object.extend_from_slice(&copy);
        }
        "swap-segments" => {
            let (a, b) = (
                segment(number(1), object.len()),
                segment(number(2), object.len()),
            );
            let copy = object[a.clone()].to_vec();
            object.copy_within(b.clone(), a.start);
            object[b].copy_from_slice(&copy);
        }
        "drop-segment" => drop(object.drain(segment(number(1), object.len()))),
        "open-with" => drop(block.insert(words[1].to_owned(), words[2].to_owned())),
        other => panic!("change {other}"),
    }
    object
}

#[test]
fn seal_vectors_are_rejected() {
    let accepted = read("seal/accepted.txt");
    for rejected in read("seal/rejected.txt") {
        let mut base = accepted
            .iter()
            .find(|block| block["name"] == rejected["base"])
            .unwrap()
            .clone();
        let (_, object) = seal_block::<Aes256Gcm>(&base);
        let mut object = change(&rejected["change"], object, &mut base);
        let error = open_whole(&vault_keys(&base), object_type(&base["type"]), &mut object);
        let expected = match rejected["error"].as_str() {
            "rejected" => SealError::Rejected,
            "version" => SealError::Version {
                format: object[4],
                suite: object[5],
            },
            other => panic!("error {other}"),
        };
        assert_eq!(
            error,
            Err(expected),
            "{} of {}",
            rejected["change"],
            rejected["base"]
        );
    }
}

#[test]
fn chunk_id_vectors_are_accepted() {
    let block = |length: usize| {
        let id = ChunkId::of(&keys(), &pattern(length));
        vec![
            ("epoch_key", to_hex(&[7; 32])),
            ("account", to_hex(&[1; 16])),
            ("vault", to_hex(&[2; 16])),
            ("epoch", "1".to_owned()),
            ("plaintext_bytes", length.to_string()),
            ("chunk", id.to_string()),
        ]
    };
    let head = "Content ids: BLAKE3 keyed with a key derived from the first epoch's key.";
    write(
        "seal/chunk-id.txt",
        head,
        &[block(1), block(1024), block(1_000_000)],
    );
    for block in read("seal/chunk-id.txt") {
        let plaintext = pattern(number(&block, "plaintext_bytes"));
        assert_eq!(
            ChunkId::of(&vault_keys(&block), &plaintext).to_string(),
            block["chunk"]
        );
    }
}

/// A small pack: two frames, one compressed, three chunks.
fn small_frames() -> [PendingFrame; 2] {
    [
        pending(&[b"first chunk", b"second"]),
        pending(&[&b"to be or not to be, ".repeat(40)]),
    ]
}

#[test]
fn pack_vectors_are_accepted_and_rejected() {
    let (_, table) = lay_out(Stream::Tree, &small_frames(), Vec::new()).unwrap();
    let encoded = table.encode();
    let frames: Vec<u8> = small_frames()
        .iter()
        .flat_map(|frame| frame.stored.clone())
        .collect();
    let length = (encoded.len() as u32).to_be_bytes();
    let plaintext = [&frames[..], &[0; 5], &encoded, &length].concat();
    write(
        "pack/accepted.txt",
        "Plaintexts of packs, less padding than a real one. Keys as in seal/chunk-id.txt.",
        &[vec![
            ("name", "tree-pack".into()),
            ("plaintext", to_hex(&plaintext)),
            ("frames", "2".into()),
            (
                "chunks",
                table
                    .chunks
                    .iter()
                    .map(|c| c.id.to_string())
                    .collect::<Vec<_>>()
                    .join(" "),
            ),
        ]],
    );
    for block in read("pack/accepted.txt") {
        let plaintext = hex(&block["plaintext"]);
        let table = read_table(&plaintext).unwrap();
        assert_eq!(table.frames.len(), number(&block, "frames"));
        let ids: Vec<_> = table
            .chunks
            .iter()
            .map(|chunk| chunk.id.to_string())
            .collect();
        assert_eq!(ids.join(" "), block["chunks"]);
        let mut out = Vec::new();
        for (number, frame) in table.frames.iter().enumerate() {
            let start = frame.offset as usize;
            let stored = &plaintext[start..start + frame.stored as usize];
            match frame.codec {
                crate::frame::Codec::Stored => out = stored.to_vec(),
                crate::frame::Codec::Zstd => {
                    crate::frame::decompress(stored, frame.plaintext as usize, &mut out).unwrap();
                }
            }
            for chunk in table.chunks_of(number as u32) {
                let content = &out[chunk.offset as usize..(chunk.offset + chunk.length) as usize];
                assert_eq!(ChunkId::of(&keys(), content), chunk.id);
            }
        }
    }
    for block in read("pack/rejected.txt") {
        assert!(
            read_table(&hex(&block["plaintext"])).is_err(),
            "{}",
            block["why"]
        );
    }
}

#[test]
fn index_vectors_are_accepted_and_rejected() {
    let (_, table) = lay_out(Stream::Tree, &small_frames(), Vec::new()).unwrap();
    let encoded = table.encode();
    let mut body = IndexBody::new();
    for (name, stored_bytes) in [(4, 65536), (5, 16 << 20)] {
        let object = ObjectId::from_bytes([name; 32]);
        assert!(body.push(&PackEntry {
            object,
            stored_bytes,
            table: &encoded
        }));
    }
    write(
        "index/accepted.txt",
        "Bodies of index objects.",
        &[vec![
            ("name", "two-packs".into()),
            ("body", to_hex(&body.finish())),
            (
                "packs",
                format!("{} {}", to_hex(&[4; 32]), to_hex(&[5; 32])),
            ),
            ("sizes", format!("65536 {}", 16 << 20)),
        ]],
    );
    for block in read("index/accepted.txt") {
        let body = hex(&block["body"]);
        let entries: Vec<_> = index_object::read(&body)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let join = |parts: Vec<String>| parts.join(" ");
        let names = entries
            .iter()
            .map(|(entry, _)| entry.object.to_string())
            .collect();
        let sizes = entries
            .iter()
            .map(|(entry, _)| entry.stored_bytes.to_string())
            .collect();
        assert_eq!(
            [join(names), join(sizes)],
            [block["packs"].clone(), block["sizes"].clone()]
        );
        assert!(
            entries
                .iter()
                .all(|(entry, table)| Table::decode(entry.table).as_ref() == Ok(table))
        );
    }
    for block in read("index/rejected.txt") {
        let body = hex(&block["body"]);
        let refused = match index_object::read(&body) {
            Err(_) => true,
            Ok(mut entries) => entries.any(|entry| entry.is_err()),
        };
        assert!(refused, "{}", block["why"]);
    }
}

fn sample_manifest() -> Manifest {
    let stats = SnapshotStats {
        files: 3,
        directories: 2,
        bytes_total: 70_000,
        bytes_new: 500,
        bytes_stored: 65_536,
    };
    let snapshot = |number: u8| SnapshotEntry {
        id: SnapshotId::from_bytes([number; 16]),
        time: Millis(1_700_000_000_000),
        device: DeviceId::from_bytes([6; 16]),
        set: "documents".into(),
        root: ChunkId::from_bytes([number; 32]),
        stats,
        incomplete: number == 2,
    };
    Manifest {
        version: 1,
        account: AccountId::from_bytes([1; 16]),
        vault: VaultId::from_bytes([2; 16]),
        counter: 2,
        previous: Some(ObjectId::from_bytes([8; 32])),
        epoch: 1,
        snapshots: vec![snapshot(1), snapshot(2)],
        indexes: vec![IndexReference {
            object: ObjectId::from_bytes([9; 32]),
            body_bytes: 300,
        }],
    }
}

#[test]
fn manifest_vectors_are_accepted_and_rejected() {
    let first = Manifest {
        counter: 1,
        ..Manifest::empty(keys().account(), keys().vault(), 1)
    };
    let block = |name: &str, manifest: &Manifest| {
        vec![
            ("name", name.to_owned()),
            ("account", manifest.account.to_string()),
            ("vault", manifest.vault.to_string()),
            ("body", to_hex(&cbor::encode(manifest))),
            ("counter", manifest.counter.to_string()),
            ("snapshots", manifest.snapshots.len().to_string()),
            ("indexes", manifest.indexes.len().to_string()),
        ]
    };
    let blocks = [block("first", &first), block("second", &sample_manifest())];
    write("manifest/accepted.txt", "Bodies of manifests.", &blocks);
    let owner = |block: &Block| (bytes(block, "account"), bytes(block, "vault"));
    let decode = |block: &Block| {
        let (account, vault) = owner(block);
        Manifest::decode(
            &hex(&block["body"]),
            AccountId::from_bytes(account),
            VaultId::from_bytes(vault),
        )
    };
    let accepted = read("manifest/accepted.txt");
    for block in &accepted {
        let manifest = decode(block).unwrap();
        assert_eq!(manifest.counter as usize, number(block, "counter"));
        assert_eq!(manifest.snapshots.len(), number(block, "snapshots"));
        assert_eq!(manifest.indexes.len(), number(block, "indexes"));
    }
    assert_eq!(decode(&accepted[1]).unwrap(), sample_manifest());
    for block in read("manifest/rejected.txt") {
        let error = match decode(&block) {
            Err(ManifestError::Codec(_)) => "codec",
            Err(ManifestError::OtherVault) => "other-vault",
            Err(ManifestError::Repeated) => "repeated",
            Err(ManifestError::SetName { .. }) => "set-name",
            other => panic!("{}: {other:?}", block["why"]),
        };
        assert_eq!(error, block["error"], "{}", block["why"]);
    }
}

/// Writes the rejected vectors of packs, indexes and manifests from changes of good ones.
#[test]
fn rejected_vectors_are_written_on_request() {
    let (_, table) = lay_out(Stream::Tree, &small_frames(), Vec::new()).unwrap();
    let encoded = table.encode();
    let frames: Vec<u8> = small_frames()
        .iter()
        .flat_map(|frame| frame.stored.clone())
        .collect();
    let pack = |padding: &[u8], table: &[u8], length: usize| {
        to_hex(&[&frames[..], padding, table, &(length as u32).to_be_bytes()].concat())
    };
    let edit = |at: usize, byte: u8| {
        let mut edited = encoded.clone();
        edited[at] = byte;
        edited
    };
    let n = encoded.len();
    let packs: Vec<(&str, String)> = vec![
        ("the padding is not zero", pack(&[1], &encoded, n)),
        (
            "the length word is one too small",
            pack(&[0], &encoded, n - 1),
        ),
        (
            "the length word is one too large",
            pack(&[0], &encoded, n + 1),
        ),
        (
            "the length word goes past the start",
            pack(&[0], &encoded, usize::MAX),
        ),
        ("an unknown table version", pack(&[0], &edit(0, 2), n)),
        ("an unknown stream", pack(&[0], &edit(1, 2), n)),
        (
            "more frames than the table has",
            pack(&[0], &edit(2, 0xFF), n),
        ),
        ("an unknown codec", pack(&[0], &edit(6, 2), n)),
        (
            "a stored frame with two lengths",
            pack(&[0], &edit(10, 1), n),
        ),
        (
            "a frame longer than frames may be",
            pack(&[0], &edit(11, 1), n),
        ),
        (
            "chunks that do not fill their frame",
            pack(&[0], &edit(n - 1, 1), n),
        ),
        (
            "a byte after the table",
            pack(&[0], &[&encoded[..], &[0]].concat(), n + 1),
        ),
        ("nothing at all", to_hex(&[0; 4])),
    ];
    let as_blocks = |name: &'static str, items: Vec<(&str, String)>| {
        items
            .into_iter()
            .map(|(why, value)| vec![("why", why.to_owned()), (name, value)])
            .collect::<Vec<_>>()
    };
    write(
        "pack/rejected.txt",
        "Plaintexts that are no packs.",
        &as_blocks("plaintext", packs),
    );

    let mut body = IndexBody::new();
    let object = ObjectId::from_bytes([4; 32]);
    assert!(body.push(&PackEntry {
        object,
        stored_bytes: 65536,
        table: &encoded
    }));
    let body = body.finish();
    let edit = |at: usize, byte: u8| {
        let mut edited = body.clone();
        edited[at] = byte;
        to_hex(&edited)
    };
    let indexes: Vec<(&str, String)> = vec![
        ("an unknown version", edit(0, 2)),
        ("no packs", edit(4, 0)),
        (
            "one pack fewer than there is",
            to_hex(&[&[1, 0, 0, 0, 0], &body[5..]].concat()),
        ),
        ("more packs than there are", edit(4, 2)),
        ("a pack of a size that packs never have", edit(40, 1)),
        ("a table longer than what is left", edit(41, 0xFF)),
        ("a table that is not well formed", edit(45, 9)),
        ("cut short", to_hex(&body[..body.len() - 1])),
        ("a byte too many", to_hex(&[&body[..], &[0]].concat())),
        ("nothing at all", String::new()),
    ];
    write(
        "index/rejected.txt",
        "Bodies that are no index objects.",
        &as_blocks("body", indexes),
    );
    write(
        "manifest/rejected.txt",
        "Bodies that are no manifests of this vault.",
        &bad_manifests(),
    );
}

fn bad_manifests() -> Vec<Vec<(&'static str, String)>> {
    let good = sample_manifest();
    let other = keys_of(3, 2, &[(1, 7)]);
    let bytes = cbor::encode(&good);
    let mut twice = good.clone();
    twice.snapshots[1].id = twice.snapshots[0].id;
    let mut listed = good.clone();
    listed.indexes.push(listed.indexes[0]);
    let mut nameless = good.clone();
    nameless.snapshots[0].set.clear();
    let mut long = good.clone();
    long.snapshots[0].set = "x".repeat(129);
    // The counter, key 3, spelled in two bytes instead of one.
    let mut spelled = bytes.clone();
    let at = spelled
        .windows(3)
        .position(|window| window == [3, 2, 4])
        .unwrap();
    spelled.splice(at + 1..at + 2, [0x18, 2]);
    let encode = |manifest: &Manifest| cbor::encode(manifest);
    let cases = [
        (
            "a version below the floor",
            "codec",
            encode(&Manifest {
                version: 0,
                ..good.clone()
            }),
        ),
        (
            "an unknown version",
            "codec",
            encode(&Manifest {
                version: 2,
                ..good.clone()
            }),
        ),
        (
            "another account",
            "other-vault",
            encode(&Manifest {
                account: other.account(),
                ..good.clone()
            }),
        ),
        (
            "counter 0",
            "codec",
            encode(&Manifest {
                counter: 0,
                ..good.clone()
            }),
        ),
        (
            "the first has no manifest before it",
            "codec",
            encode(&Manifest {
                counter: 1,
                ..good.clone()
            }),
        ),
        (
            "a later one has",
            "codec",
            encode(&Manifest {
                previous: None,
                ..good.clone()
            }),
        ),
        ("a snapshot twice", "repeated", encode(&twice)),
        ("an index object twice", "repeated", encode(&listed)),
        ("a backup set without a name", "set-name", encode(&nameless)),
        ("a name that is too long", "set-name", encode(&long)),
        ("an integer in a longer form", "codec", spelled),
        ("a byte too many", "codec", [&bytes[..], &[0]].concat()),
        ("cut short", "codec", bytes[..bytes.len() - 1].to_vec()),
    ];
    cases
        .into_iter()
        .map(|(why, error, body)| {
            vec![
                ("why", why.to_owned()),
                ("error", error.to_owned()),
                ("account", good.account.to_string()),
                ("vault", good.vault.to_string()),
                ("body", to_hex(&body)),
            ]
        })
        .collect()
}
