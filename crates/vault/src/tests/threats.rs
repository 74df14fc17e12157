//! Rows of the threat table that a restore must withstand, against a cell that lies.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::sync::Arc;

use candor_wire::{DeviceId, Millis, Nanos, ObjectId};

use super::*;
use crate::backup::tests::{World, root_of};
use crate::manifest::{SnapshotEntry, SnapshotId, SnapshotStats};
use crate::name::NameError;
use crate::node::{self, Entry, Kind, LinkGroup, Metadata, Reference, References, Root};
use crate::pack::Stream;
use crate::ports::ObjectSink;
use crate::report::ProblemKind;
use crate::tests::noise;

/// Which objects a step of the test added to the cell.
fn added(world: &World, before: &[ObjectId]) -> Vec<ObjectId> {
    world
        .cell
        .stored()
        .into_iter()
        .filter(|object| !before.contains(object))
        .collect()
}

fn packs(world: &World) -> Vec<crate::index::PackRow> {
    world.repository.index().packs(-1, 100).unwrap()
}

fn pack_of(world: &World, stream: Stream) -> ObjectId {
    packs(world)
        .iter()
        .find(|pack| pack.stream == stream)
        .unwrap()
        .object
}

fn assert_tree_refused(world: &World, root: crate::ChunkId, object: ObjectId) {
    let refused = world.restore(&world.restore_job(root));
    match refused {
        Err(RestoreError::Tree(TreeError::Read(ReadError::WrongObject { object: named }))) => {
            assert_eq!(named, object);
        }
        other => panic!("{other:?}"),
    }
    assert!(
        !world.path("target").exists(),
        "the destination was touched"
    );
}

fn assert_content_refused(world: &World, root: crate::ChunkId, object: ObjectId) {
    let refused = world.restore(&world.restore_job(root));
    match refused {
        Err(RestoreError::Read(ReadError::WrongObject { object: named })) => {
            assert_eq!(named, object)
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        fs::read_dir(world.path("target")).unwrap().count(),
        0,
        "something was written"
    );
}

#[test]
fn a10_content_of_one_file_under_the_name_of_another_is_refused() {
    let mut world = World::new();
    world.write("a", &noise(1, 100_000));
    world.back_up();
    let first = pack_of(&world, Stream::Data);
    let before: Vec<ObjectId> = packs(&world).iter().map(|pack| pack.object).collect();
    world.write("b", &noise(2, 100_000));
    let outcome = world.back_up();
    let second = packs(&world)
        .iter()
        .find(|pack| pack.stream == Stream::Data && !before.contains(&pack.object))
        .unwrap()
        .object;
    let (a, b) = (world.cell.object(first), world.cell.object(second));
    world.cell.replace(first, b);
    world.cell.replace(second, a);
    assert_content_refused(&world, root_of(&outcome), first);
}

#[test]
fn a10_a_chunk_whose_place_holds_another_chunk_is_refused() {
    // A writer of the vault, not the cell: its index says that one chunk lies where another is.
    let mut world = World::new();
    world.write("a", b"some content");
    let outcome = world.back_up();
    let reader = world.repository.reader(world.cell.as_ref());
    let pack = reader.open_pack(pack_of(&world, Stream::Data)).unwrap();
    let chunk = pack.chunks(0)[0].id;
    let place = reader.locate(chunk).unwrap().unwrap();
    let other = crate::ChunkId::from_bytes([3; 32]);
    let mut scratch = Vec::new();
    let frame = pack.frame(place.frame, &mut scratch).unwrap();
    let refused = pack.verify(world.repository.keys(), other, &place, frame);
    assert!(
        matches!(refused, Err(ReadError::WrongChunk { .. })),
        "{refused:?}"
    );
    assert!(
        pack.verify(world.repository.keys(), chunk, &place, frame)
            .is_ok()
    );
    drop(outcome);
}

#[test]
fn a11_a_tampered_tree_is_refused_at_every_offset_class() {
    let mut world = World::new();
    world.write("a", b"content");
    let outcome = world.back_up();
    let pack = pack_of(&world, Stream::Tree);
    let sound = world.cell.object(pack);
    // Version, suite, epoch, salt, commitment, body, tag, padding.
    for at in [0, 4, 5, 6, 10, 42, 74, 80, sound.len() / 2, sound.len() - 1] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        world.cell.replace(pack, bytes);
        assert_tree_refused(&world, root_of(&outcome), pack);
    }
    world.cell.replace(pack, sound);
    assert!(world.restore(&world.restore_job(root_of(&outcome))).is_ok());
}

#[test]
fn a12_a_folder_of_another_snapshot_cannot_be_spliced_in() {
    let mut world = World::new();
    world.write("private/a", b"content");
    let first = world.back_up();
    let old = pack_of(&world, Stream::Tree);
    let before: Vec<ObjectId> = packs(&world).iter().map(|pack| pack.object).collect();
    fs::rename(
        world.source().join("private"),
        world.source().join("public"),
    )
    .unwrap();
    let second = world.back_up();
    let new = packs(&world)
        .iter()
        .find(|pack| pack.stream == Stream::Tree && !before.contains(&pack.object))
        .unwrap()
        .object;
    let bytes = world.cell.object(old);
    world.cell.replace(new, bytes);
    assert_tree_refused(&world, root_of(&second), new);
    drop(first);
}

#[test]
fn a14_yesterdays_ciphertext_of_the_same_path_is_refused() {
    let mut world = World::new();
    world.write("a", &noise(1, 50_000));
    world.back_up();
    let old = pack_of(&world, Stream::Data);
    let before = world.cell.stored();
    world.write("a", &noise(2, 50_000));
    let outcome = world.back_up();
    let new = packs(&world)
        .iter()
        .find(|pack| pack.stream == Stream::Data && added(&world, &before).contains(&pack.object))
        .unwrap()
        .object;
    let bytes = world.cell.object(old);
    world.cell.replace(new, bytes);
    assert_content_refused(&world, root_of(&outcome), new);
}

/// What a hostile member of the vault, who has its keys, can write.
struct Forger<'a> {
    world: &'a mut World,
    chunks: Vec<Vec<u8>>,
}

fn metadata(mode: u32) -> Metadata {
    Metadata {
        mode,
        uid: 0,
        gid: 0,
        mtime: Nanos(1_000_000_000),
        xattrs: Vec::new(),
    }
}

/// Encodes an entry under a name that no honest program writes.
fn raw_entry(name: &[u8], kind: Kind) -> Vec<u8> {
    let entry = Entry {
        name: node::placeholder_name(),
        metadata: metadata(0o644),
        link: None,
        kind,
    };
    let mut bytes = Vec::new();
    node::encode_entry(&entry, &mut bytes);
    // A map header, the key 0, and a byte string of one byte: `-`.
    let mut out = bytes[..2].to_vec();
    minicbor::Encoder::new(&mut out).bytes(name).unwrap();
    out.extend_from_slice(&bytes[4..]);
    out
}

impl Forger<'_> {
    fn reference(&mut self, stream: Stream, bytes: &[u8]) -> Reference {
        assert_eq!(stream, Stream::Tree);
        self.chunks.push(bytes.to_vec());
        let id = crate::ChunkId::of(self.world.repository.keys(), bytes);
        Reference {
            id,
            length: u32::try_from(bytes.len()).unwrap(),
        }
    }

    fn directory(&mut self, entries: &[Vec<u8>]) -> References {
        let part = node::encode_part(entries.len(), &entries.concat());
        References {
            levels: 0,
            list: vec![self.reference(Stream::Tree, &part)],
        }
    }

    /// Stores everything and makes it a snapshot.
    fn publish(mut self, parts: References, content: &[&[u8]]) -> crate::ChunkId {
        let root = self.reference(
            Stream::Tree,
            &Root {
                parts,
                origins: Vec::new(),
            }
            .encode(),
        );
        let sink = Arc::clone(&self.world.cell) as Arc<dyn ObjectSink>;
        let mut writer = self.world.repository.writer(Arc::clone(&sink)).unwrap();
        for chunk in &self.chunks {
            writer.chunk(Stream::Tree, chunk).unwrap();
        }
        for chunk in content {
            writer.chunk(Stream::Data, chunk).unwrap();
        }
        let written = writer.finish().unwrap();
        let entry = SnapshotEntry {
            id: SnapshotId::from_bytes([5; 16]),
            time: Millis(0),
            device: DeviceId::from_bytes([6; 16]),
            set: "forged".into(),
            root: root.id,
            stats: SnapshotStats::default(),
            incomplete: false,
        };
        let staged = self
            .world
            .repository
            .stage_snapshot(entry, &written, sink.as_ref())
            .unwrap();
        self.world.repository.accept(staged).unwrap();
        root.id
    }

    fn content(&self, bytes: &[u8]) -> Kind {
        let id = crate::ChunkId::of(self.world.repository.keys(), bytes);
        let length = u32::try_from(bytes.len()).unwrap();
        let content = References {
            levels: 0,
            list: vec![Reference { id, length }],
        };
        Kind::File {
            size: bytes.len() as u64,
            content,
            extents: None,
        }
    }
}

#[test]
fn a34_entries_with_hostile_names_are_refused_and_their_neighbours_restored() {
    let mut world = World::new();
    let mut forger = Forger {
        world: &mut world,
        chunks: Vec::new(),
    };
    let file = forger.content(b"content");
    let names: [&[u8]; 7] = [
        b"",
        b"..",
        b"../escaped",
        b"/tmp/escaped",
        b"C:",
        b"a\0b",
        b"good",
    ];
    let mut sorted = names;
    sorted.sort_unstable();
    let entries: Vec<Vec<u8>> = sorted
        .iter()
        .map(|name| raw_entry(name, file.clone()))
        .collect();
    let parts = forger.directory(&entries);
    let root = forger.publish(parts, &[b"content"]);
    let restored = world.restore(&world.restore_job(root)).unwrap();
    let reasons: Vec<ProblemKind> = restored
        .problems
        .list
        .iter()
        .map(|problem| problem.kind.clone())
        .collect();
    assert_eq!(
        reasons,
        [
            NameError::Empty,
            NameError::Dots,
            NameError::Slash,
            NameError::Slash,
            NameError::Nul
        ]
        .map(ProblemKind::BadName)
    );
    let mut names: Vec<_> = fs::read_dir(world.path("target"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["C:", "good"]);
    assert!(!world.path("escaped").exists());
}

#[test]
fn a35_a_link_and_then_a_child_under_the_same_name_is_refused() {
    let mut world = World::new();
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    let mut forger = Forger {
        world: &mut world,
        chunks: Vec::new(),
    };
    let file = forger.content(b"content");
    let inner = forger.directory(&[raw_entry(b"child", file)]);
    let link = raw_entry(
        b"x",
        Kind::Symlink {
            target: b"../outside".to_vec(),
        },
    );
    let parts = forger.directory(&[link, raw_entry(b"x", Kind::Directory { parts: inner })]);
    let root = forger.publish(parts, &[b"content"]);
    let refused = world.restore(&world.restore_job(root));
    assert!(
        matches!(
            refused,
            Err(RestoreError::Tree(TreeError::Node {
                source: node::NodeError::Order,
                ..
            }))
        ),
        "{refused:?}"
    );
    assert!(!world.path("target").exists());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a35_hard_links_join_only_entries_that_are_equal() {
    let mut world = World::new();
    let mut forger = Forger {
        world: &mut world,
        chunks: Vec::new(),
    };
    let (one, two) = (forger.content(b"one"), forger.content(b"two"));
    let entries: Vec<Vec<u8>> = [(b"a", one.clone()), (b"b", one), (b"c", two)]
        .into_iter()
        .map(|(name, kind)| {
            let name = crate::name::Name::new(name).unwrap();
            let entry = Entry {
                name,
                metadata: metadata(0o600),
                link: Some(LinkGroup([1; 16])),
                kind,
            };
            let mut bytes = Vec::new();
            node::encode_entry(&entry, &mut bytes);
            bytes
        })
        .collect();
    let parts = forger.directory(&entries);
    let root = forger.publish(parts, &[b"one", b"two"]);
    world.restore(&world.restore_job(root)).unwrap();
    use std::os::unix::fs::MetadataExt;
    let inode = |name: &str| world.path("target").join(name).metadata().unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_ne!(inode("a"), inode("c"));
    assert_eq!(fs::read(world.path("target/c")).unwrap(), b"two");
}

#[test]
fn a36_sizes_that_content_does_not_have_are_refused_before_anything_is_written() {
    let mut world = World::new();
    let mut forger = Forger {
        world: &mut world,
        chunks: Vec::new(),
    };
    let Kind::File { content, .. } = forger.content(b"content") else {
        panic!()
    };
    // A list chunk hides how long the content is until it is read.
    let list = forger.reference(Stream::Tree, &node::encode_list(&content.list));
    let kind = Kind::File {
        size: 1 << 60,
        content: References {
            levels: 1,
            list: vec![list],
        },
        extents: None,
    };
    let parts = forger.directory(&[raw_entry(b"bomb", kind)]);
    let root = forger.publish(parts, &[b"content"]);
    let refused = world.restore(&world.restore_job(root));
    assert!(
        matches!(refused, Err(RestoreError::Tree(TreeError::Node { .. }))),
        "{refused:?}"
    );
    assert!(!world.path("target").exists());
}

#[test]
fn a36_a_tree_nested_too_deeply_is_refused_before_anything_is_written() {
    let mut world = World::new();
    let mut forger = Forger {
        world: &mut world,
        chunks: Vec::new(),
    };
    let mut parts = References::default();
    for _ in 0..node::DEPTH_MAX + 2 {
        parts = forger.directory(&[raw_entry(b"d", Kind::Directory { parts })]);
    }
    let root = forger.publish(parts, &[]);
    let refused = world.restore(&world.restore_job(root));
    assert!(
        matches!(refused, Err(RestoreError::Tree(TreeError::TooDeep))),
        "{refused:?}"
    );
    assert!(!world.path("target").exists());
}

#[test]
fn a07_a_missing_pack_leaves_no_partial_file_and_the_others_come_back() {
    let mut world = World::new();
    world.write("a", &noise(1, 40_000_000));
    world.write("b", b"small");
    let outcome = world.back_up();
    let data: Vec<ObjectId> = packs(&world)
        .iter()
        .filter(|pack| pack.stream == Stream::Data)
        .map(|pack| pack.object)
        .collect();
    assert!(data.len() >= 3);
    world.cell.objects.lock().unwrap().remove(&data[1]);
    let restored = world
        .restore(&world.restore_job(root_of(&outcome)))
        .unwrap();
    let names: Vec<_> = fs::read_dir(world.path("target/source"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    for problem in &restored.problems.list {
        assert_eq!(problem.kind, ProblemKind::Damaged);
    }
    assert!(
        names.len() + restored.problems.list.len() == 2,
        "{names:?} {:?}",
        restored.problems
    );
    assert!(!names.iter().any(|name| name == "a"));
}
