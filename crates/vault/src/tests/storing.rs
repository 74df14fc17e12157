use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candor_wire::{DeviceId, Millis, ObjectId};
use tempfile::TempDir;

use super::{MemoryCell, keys, keys_of, noise};
use crate::manifest::{Manifest, SnapshotEntry, SnapshotId, SnapshotStats};
use crate::{
    ChunkId, IndexError, ReadError, Repository, RepositoryError, SinkError, SourceError, Stream,
    SystemEntropy, VaultKeys, WriteError, Writer, Written,
};

struct Device {
    directory: TempDir,
    cell: Arc<MemoryCell>,
}

impl Device {
    fn new(cell: &Arc<MemoryCell>) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            cell: cell.clone(),
        }
    }

    fn index(&self) -> PathBuf {
        self.directory.path().join("index.sqlite")
    }

    fn try_open_with(
        &self,
        keys: VaultKeys,
        head: Option<ObjectId>,
    ) -> Result<Repository, RepositoryError> {
        let path = self.index();
        Repository::open(
            Arc::new(keys),
            Arc::new(SystemEntropy),
            head,
            &path,
            self.cell.as_ref(),
        )
    }

    fn try_open(&self, head: Option<ObjectId>) -> Result<Repository, RepositoryError> {
        self.try_open_with(keys(), head)
    }

    fn open(&self, head: Option<ObjectId>) -> Repository {
        self.try_open(head).unwrap()
    }

    fn writer(&self, repository: &Repository) -> Writer {
        repository.writer(self.cell.clone()).unwrap()
    }
}

fn entry(number: u8, root: ChunkId) -> SnapshotEntry {
    SnapshotEntry {
        id: SnapshotId::from_bytes([number; 16]),
        time: Millis(1_700_000_000_000 + i64::from(number)),
        device: DeviceId::from_bytes([5; 16]),
        set: "documents".to_owned(),
        root,
        stats: SnapshotStats::default(),
        incomplete: false,
    }
}

/// One whole run: contents as data, their ids as the root node.
fn run(
    device: &Device,
    repository: &mut Repository,
    number: u8,
    contents: &[&[u8]],
) -> (ChunkId, Written) {
    let mut writer = device.writer(repository);
    let mut node = Vec::new();
    for mut content in contents.iter().copied() {
        let content = writer.content(&mut content, &mut |_| true).unwrap();
        content
            .chunks
            .iter()
            .for_each(|(id, _)| node.extend_from_slice(id.as_bytes()));
    }
    node.push(number);
    let root = writer.chunk(Stream::Tree, &node).unwrap();
    let written = writer.finish().unwrap();
    let staged = repository
        .stage_snapshot(entry(number, root), &written, device.cell.as_ref())
        .unwrap();
    repository.accept(staged).unwrap();
    (root, written)
}

/// Reads all content under a root that [`run`] made.
fn read_back(repository: &Repository, cell: &MemoryCell, root: ChunkId) -> Vec<u8> {
    let mut reader = repository.reader(cell);
    let node = reader.chunk(root).unwrap();
    let ids = node[..node.len() - 1]
        .chunks(32)
        .map(|id| ChunkId::from_slice(id).unwrap());
    ids.flat_map(|id| reader.chunk(id).unwrap().to_vec())
        .collect()
}

#[test]
fn a_vault_comes_back_from_the_cell_with_the_keys_alone() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let mut repository = device.open(None);
    let (large, small) = (noise(1, 9_000_000), b"a small file".repeat(10));
    let (root, written) = run(&device, &mut repository, 1, &[&large, &small]);
    let content = (large.len() + small.len()) as u64;
    assert!(
        written.bytes_new > content && written.bytes_new < content + 2000,
        "content and root"
    );
    let expected = [&large[..], &small].concat();
    assert_eq!(read_back(&repository, &cell, root), expected);
    let head = repository.head();
    drop(repository);

    let other = Device::new(&cell);
    let rebuilt = other.open(head);
    assert_eq!(rebuilt.manifest().snapshots[0].root, root);
    assert_eq!(rebuilt.manifest().counter, 1);
    assert_eq!(read_back(&rebuilt, &cell, root), expected);
    // Every object on the cell has one of the padded sizes.
    for object in cell.stored() {
        let bytes = cell.object(object).len();
        assert!(bytes.is_power_of_two() && (65536..=16 << 20).contains(&bytes));
    }
}

#[test]
fn known_content_is_not_stored_again() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let mut repository = device.open(None);
    let content = noise(2, 3_000_000);
    let (_, first) = run(&device, &mut repository, 1, &[&content, &content]);
    let before = cell.puts.lock().unwrap().len();
    let (_, second) = run(&device, &mut repository, 2, &[&content]);
    assert!(
        first.bytes_new < 3_001_000 && second.chunks_new == 1,
        "only the root is new"
    );
    assert_eq!(
        cell.puts.lock().unwrap().len() - before,
        3,
        "a tree pack, its index, the manifest"
    );
    // A later epoch recognises what an earlier one stored.
    let head = repository.head();
    drop(repository);
    let rotated = keys_of(1, 2, &[(1, 7), (2, 8)]);
    let mut repository = device.try_open_with(rotated, head).unwrap();
    let (root, third) = run(&device, &mut repository, 3, &[&content]);
    assert_eq!(third.chunks_new, 1);
    assert_eq!(read_back(&repository, &cell, root), content);
}

#[test]
fn full_packs_are_exact_and_waste_less_than_two_in_a_hundred() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let mut repository = device.open(None);
    let content = noise(3, 80 << 20);
    let (root, written) = run(&device, &mut repository, 1, &[&content]);
    let full = cell
        .puts
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, bytes)| *bytes == 16 << 20)
        .count();
    assert_eq!(
        full, 5,
        "five full packs hold 80 MiB of incompressible content"
    );
    assert!(written.bytes_stored * 100 <= (84 << 20) * 100 + 16 * (1 << 20));
    assert!(read_back(&repository, &cell, root) == content);
}

#[test]
fn nothing_acknowledged_is_lost_or_sent_again_after_a_failure() {
    for keep_unacknowledged in [false, true] {
        let cell = Arc::new(MemoryCell {
            keep_unacknowledged,
            ..MemoryCell::new()
        });
        let device = Device::new(&cell);
        let content = noise(4, 60 << 20);
        cell.room.store(2, Ordering::SeqCst);
        let repository = device.open(None);
        let mut writer = device.writer(&repository);
        let failed = writer
            .content(&mut &content[..], &mut |_| true)
            .and_then(|_| writer.chunk(Stream::Tree, b"root").map(drop))
            .and_then(|()| writer.finish().map(drop));
        assert!(
            matches!(failed, Err(WriteError::Sink(error)) if matches!(*error, SinkError::Full(_)))
        );
        drop(repository);

        let acknowledged: HashSet<_> = cell
            .puts
            .lock()
            .unwrap()
            .iter()
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(acknowledged.len(), 2);
        let on_cell = cell.stored().len();
        cell.room.store(usize::MAX, Ordering::SeqCst);
        let mut repository = device.open(None);
        let (root, second) = run(&device, &mut repository, 1, &[&content]);
        // What the cell had is used, also where only the acknowledgement was lost.
        let sent_again = second.bytes_stored + on_cell as u64 * (16 << 20);
        assert!(sent_again <= (60 << 20) + (34 << 20), "{sent_again} bytes");
        // How full a pack is depends on chance; a full one never has less than 13 MiB of content.
        let known = on_cell as u64 * (13 << 20);
        assert!(
            second.bytes_new <= content.len() as u64 - known,
            "{} new bytes with {on_cell} packs there",
            second.bytes_new
        );
        let head = repository.head();
        assert!(read_back(&repository, &cell, root) == content);
        let other = Device::new(&cell);
        assert!(read_back(&other.open(head), &cell, root) == content);
    }
}

#[test]
fn a_dropped_writer_claims_nothing() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let repository = device.open(None);
    let mut writer = device.writer(&repository);
    let id = writer.chunk(Stream::Data, b"never finished").unwrap();
    drop(writer);
    assert!(!repository.index().contains(&id).unwrap());
    assert!(cell.stored().is_empty());
    let refused = repository.stage_snapshot(entry(1, id), &Written::default(), cell.as_ref());
    assert!(matches!(refused, Err(RepositoryError::RootMissing)));
    assert!(cell.stored().is_empty());
}

#[test]
fn content_can_be_stopped_and_chunks_have_bounds() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let repository = device.open(None);
    let mut writer = device.writer(&repository);
    let stopped = writer.content(&mut &noise(1, 5 << 20)[..], &mut |_| false);
    assert!(matches!(stopped, Err(WriteError::Stopped)));
    for bytes in [0, crate::chunk::CHUNK_MAX_BYTES + 1] {
        let refused = writer.chunk(Stream::Data, &vec![0; bytes]);
        assert!(matches!(refused, Err(WriteError::ChunkLength { bytes: b, .. }) if b == bytes));
    }
    assert_eq!(
        writer.content(&mut &[][..], &mut |_| true).unwrap().chunks,
        []
    );
    assert_eq!(writer.finish().unwrap(), Written::default());
}

#[test]
fn many_tiny_files_share_frames() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let mut repository = device.open(None);
    let files: Vec<Vec<u8>> = (0..40_000u32).map(|n| n.to_string().into_bytes()).collect();
    let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let mut writer = device.writer(&repository);
    let ids: Vec<_> = files
        .iter()
        .map(|file| writer.chunk(Stream::Data, file).unwrap())
        .collect();
    let root = writer.chunk(Stream::Tree, b"root").unwrap();
    let written = writer.finish().unwrap();
    assert_eq!(written.packs, 2);
    let staged = repository
        .stage_snapshot(entry(1, root), &written, cell.as_ref())
        .unwrap();
    repository.accept(staged).unwrap();
    let mut reader = repository.reader(cell.as_ref());
    for (file, id) in files.iter().zip(&ids).step_by(997) {
        assert_eq!(reader.chunk(*id).unwrap(), file);
    }
}

#[test]
fn many_runs_leave_few_index_objects() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let mut repository = device.open(None);
    let mut roots = Vec::new();
    for number in 0..40u8 {
        let content = noise(number.into(), 2000);
        roots.push((
            run(&device, &mut repository, number, &[&content]).0,
            content,
        ));
    }
    assert!(repository.manifest().indexes.len() <= 16);
    let other = Device::new(&cell);
    let rebuilt = other.open(repository.head());
    for (root, content) in roots {
        assert_eq!(read_back(&rebuilt, &cell, root), content);
    }
}

#[test]
fn a_manifest_names_the_epoch_that_it_was_made_in() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let mut repository = device.open(None);
    run(&device, &mut repository, 1, &[b"before"]);
    assert_eq!(repository.manifest().epoch, 1);
    let head = repository.head();
    drop(repository);
    let rotated = || keys_of(1, 2, &[(1, 7), (2, 8)]);
    let mut repository = device.try_open_with(rotated(), head).unwrap();
    let (root, _) = run(&device, &mut repository, 2, &[b"after"]);
    let made = repository.manifest().clone();
    assert_eq!((made.epoch, made.counter), (2, 2));
    assert_eq!(made.previous, head);
    let head = repository.head();
    drop(repository);
    // A device that was left out of the rotation learns nothing of it.
    let left_out = Device::new(&cell).try_open(head).map(|_| ());
    assert!(matches!(
        left_out,
        Err(RepositoryError::Read(ReadError::Seal {
            source: crate::seal::SealError::Rejected,
            ..
        }))
    ));
    let again = Device::new(&cell).try_open_with(rotated(), head).unwrap();
    assert_eq!(again.manifest(), &made);
    assert_eq!(read_back(&again, &cell, root), b"after");
}

#[test]
fn the_loser_of_a_race_stages_again_on_top() {
    let cell = Arc::new(MemoryCell::new());
    let (one, two) = (Device::new(&cell), Device::new(&cell));
    let mut first = one.open(None);
    run(&one, &mut first, 1, &[&noise(1, 1000)]);
    let mut second = two.open(first.head());
    let (winner, _) = run(&one, &mut first, 2, &[&noise(2, 1000)]);

    let mut writer = two.writer(&second);
    let id = writer
        .chunk(Stream::Data, b"from the second device")
        .unwrap();
    let root = writer
        .chunk(Stream::Tree, &[id.as_bytes().as_slice(), &[0]].concat())
        .unwrap();
    let written = writer.finish().unwrap();
    let staged = second
        .stage_snapshot(entry(3, root), &written, cell.as_ref())
        .unwrap();
    assert_eq!(staged.counter(), 2);
    let head = first.head().unwrap();
    let staged = second
        .rebase(entry(3, root), head, cell.as_ref(), cell.as_ref())
        .unwrap()
        .unwrap();
    assert_eq!((staged.counter(), staged.previous()), (3, Some(head)));
    second.accept(staged).unwrap();
    let third = Device::new(&cell);
    let merged = third.open(second.head());
    assert_eq!(merged.manifest().snapshots.len(), 3);
    assert_eq!(read_back(&merged, &cell, root), b"from the second device");
    assert_eq!(read_back(&merged, &cell, winner), noise(2, 1000));
}

#[test]
fn what_a_manifest_no_longer_lists_is_forgotten() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let mut repository = device.open(None);
    let (first, _) = run(&device, &mut repository, 1, &[&noise(1, 1000)]);
    let old = repository.head();
    let (second, _) = run(&device, &mut repository, 2, &[&noise(2, 1000)]);
    let lineage = repository.index().lineage().unwrap();
    drop(repository);
    let back = device.open(old);
    assert!(back.index().contains(&first).unwrap());
    assert!(!back.index().contains(&second).unwrap());
    assert_ne!(back.index().lineage().unwrap(), lineage);
    assert_eq!(back.index().packs(0, 100).unwrap().len(), 2);
}

#[test]
fn damaged_and_foreign_indexes_are_told_apart() {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let mut repository = device.open(None);
    let (root, _) = run(&device, &mut repository, 1, &[b"content"]);
    let head = repository.head();
    drop(repository);
    let foreign = device
        .try_open_with(keys_of(1, 3, &[(1, 7)]), None)
        .err()
        .unwrap();
    assert!(matches!(
        foreign,
        RepositoryError::Index(IndexError::OtherVault)
    ));
    std::fs::write(device.index(), noise(1, 50_000)).unwrap();
    let damaged = device.try_open(head).err().unwrap();
    assert!(matches!(
        damaged,
        RepositoryError::Index(IndexError::Damaged(_))
    ));
    crate::Index::delete(&device.index()).unwrap();
    crate::Index::delete(&device.index()).unwrap();
    assert_eq!(read_back(&device.open(head), &cell, root), b"content");
    let nowhere = Device::new(&cell).directory.path().join("missing/index");
    let failed = crate::Index::open(&nowhere, keys().account(), keys().vault(), &SystemEntropy);
    assert!(matches!(failed, Err(IndexError::Storage(_))));
}

/// A vault with two runs, and which objects hold what.
struct Stored {
    cell: Arc<MemoryCell>,
    device: Device,
    heads: [ObjectId; 2],
    data: [ChunkId; 2],
}

fn stored() -> Stored {
    let cell = Arc::new(MemoryCell::new());
    let device = Device::new(&cell);
    let mut repository = device.open(None);
    let mut heads = Vec::new();
    for (number, content) in [(1, b"version one"), (2, b"version two")] {
        run(&device, &mut repository, number, &[content]);
        heads.push(repository.head().unwrap());
    }
    let data = [b"version one", b"version two"].map(|content| ChunkId::of(&keys(), content));
    Stored {
        cell,
        device,
        heads: [heads[0], heads[1]],
        data,
    }
}

impl Stored {
    fn pack_of(&self, repository: &Repository, which: usize) -> ObjectId {
        repository
            .index()
            .locate(&self.data[which])
            .unwrap()
            .unwrap()
            .pack
    }
}

#[test]
fn a14_another_version_or_a_changed_pack_is_refused_and_nothing_is_handed_out() {
    let stored = stored();
    let repository = stored.device.open(Some(stored.heads[1]));
    let lineage = repository.index().lineage().unwrap();
    let (one, two) = (
        stored.pack_of(&repository, 0),
        stored.pack_of(&repository, 1),
    );
    let original = stored.cell.object(one);
    let mut flipped = original.clone();
    flipped[500] ^= 1;
    let forgeries = [
        flipped,
        original[..original.len() / 2].to_vec(),
        [&original[..], &original].concat(),
        // A valid object of the same vault: the other version of the content.
        stored.cell.object(two),
        vec![0; 16 << 20],
        Vec::new(),
    ];
    for forgery in forgeries {
        stored.cell.replace(one, forgery);
        let refused = repository
            .reader(stored.cell.as_ref())
            .chunk(stored.data[0]);
        assert!(matches!(refused, Err(ReadError::WrongObject { object }) if object == one));
        assert!(
            repository
                .reader(stored.cell.as_ref())
                .chunk(stored.data[1])
                .is_ok()
        );
    }
    stored.cell.objects.lock().unwrap().remove(&one);
    let refused = repository
        .reader(stored.cell.as_ref())
        .chunk(stored.data[0])
        .unwrap_err();
    assert!(matches!(refused, ReadError::Source(SourceError::Missing { object }) if object == one));
    assert!(refused.is_integrity());
    assert_eq!(repository.index().lineage().unwrap(), lineage);
}

#[test]
fn a14_manifests_of_other_versions_vaults_and_types_are_refused() {
    let stored = stored();
    let head = stored.heads[1];
    // Another vault's keys, the cell's own choice of an index object or a pack as the manifest.
    let repository = stored.device.open(Some(head));
    let wrong_type = [
        repository.manifest().indexes[0].object,
        stored.pack_of(&repository, 0),
    ];
    drop(repository);
    let device = Device::new(&stored.cell);
    for other in [keys_of(1, 3, &[(1, 7)]), keys_of(3, 2, &[(1, 7)])] {
        let refused = Device::new(&stored.cell)
            .try_open_with(other, Some(head))
            .err()
            .unwrap();
        assert!(
            matches!(refused, RepositoryError::Read(ReadError::Seal { object, .. }) if object == head)
        );
    }
    for object in wrong_type {
        let refused = device.try_open(Some(object)).err().unwrap();
        assert!(matches!(
            refused,
            RepositoryError::Read(ReadError::Seal { .. })
        ));
    }
    // Yesterday's manifest under today's name.
    stored
        .cell
        .replace(head, stored.cell.object(stored.heads[0]));
    let refused = device.try_open(Some(head)).err().unwrap();
    assert!(
        matches!(refused, RepositoryError::Read(ReadError::WrongObject { object }) if object == head)
    );
    assert!(
        device.open(None).index().packs(0, 10).unwrap().is_empty(),
        "nothing was taken over"
    );
}

#[test]
fn a08_a_changed_or_missing_index_object_is_refused_and_leaves_no_trace() {
    let stored = stored();
    let repository = stored.device.open(Some(stored.heads[1]));
    let indexes: Vec<_> = repository
        .manifest()
        .indexes
        .iter()
        .map(|index| index.object)
        .collect();
    assert_eq!(indexes.len(), 2);
    stored
        .cell
        .replace(indexes[1], stored.cell.object(indexes[0]));
    let device = Device::new(&stored.cell);
    let refused = device.try_open(Some(stored.heads[1])).err().unwrap();
    assert!(
        matches!(refused, RepositoryError::Read(ReadError::WrongObject { object }) if object == indexes[1])
    );
    let index = crate::Index::open(
        &device.index(),
        keys().account(),
        keys().vault(),
        &SystemEntropy,
    )
    .unwrap();
    assert!(!index.contains(&stored.data[1]).unwrap());
}

#[test]
fn a36_a_manifest_that_claims_too_much_is_refused() {
    let (account, vault) = (keys().account(), keys().vault());
    let decode = |bytes: &[u8]| Manifest::decode(bytes, account, vault);
    // Key 6, snapshots: an array that claims 2^60 entries.
    let mut good = candor_wire::cbor::encode(&Manifest {
        counter: 1,
        ..Manifest::empty(account, vault, 1)
    });
    assert!(decode(&good).is_ok());
    let at = good
        .windows(4)
        .position(|window| window == [6, 0x80, 7, 0x80])
        .unwrap();
    good.splice(at + 1..at + 2, [0x9B, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    assert!(decode(&good).is_err());
    let id = |n: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        SnapshotId::from_bytes(id)
    };
    let root = ChunkId::from_bytes([0; 32]);
    let snapshots = (0..=crate::manifest::SNAPSHOTS_MAX).map(|n| SnapshotEntry {
        id: id(n),
        ..entry(0, root)
    });
    let many = Manifest {
        counter: 1,
        snapshots: snapshots.collect(),
        ..Manifest::empty(account, vault, 1)
    };
    let refused = decode(&candor_wire::cbor::encode(&many));
    assert!(matches!(
        refused,
        Err(crate::ManifestError::TooManySnapshots { .. })
    ));
}
