//! Measures the pipeline: reads every regular file under a directory into packs that are kept in a
//! directory, does it again with everything known, reads all packs back, and reports CPU seconds.
//!
//! It reads two lines: the directory, and an empty directory for the objects.
#![allow(clippy::print_stderr)]

use std::error::Error;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use candor_vault::{
    EpochKey, ObjectSink, ObjectSource, Presence, Repository, SinkError, SnapshotEntry, SnapshotId,
    SnapshotStats, SourceError, Stream, SystemEntropy, VaultKeys,
};
use candor_wire::{AccountId, DeviceId, Millis, ObjectId, VaultId};

struct Directory(PathBuf);

impl Directory {
    fn path(&self, object: ObjectId) -> PathBuf {
        self.0.join(object.to_string())
    }
}

impl ObjectSink for Directory {
    fn put(&self, object: ObjectId, bytes: Bytes) -> Result<(), SinkError> {
        fs::write(self.path(object), &bytes).map_err(|error| SinkError::Refused(error.into()))
    }
}

impl ObjectSource for Directory {
    fn get(&self, object: ObjectId) -> Result<Bytes, SourceError> {
        fs::read(self.path(object))
            .map(Bytes::from)
            .map_err(|_| SourceError::Missing { object })
    }

    fn get_range(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes, SourceError> {
        let bytes = self.get(object)?;
        let end = (range.end as usize).min(bytes.len());
        Ok(bytes.slice((range.start as usize).min(end)..end))
    }

    fn has(&self, objects: &[ObjectId]) -> Result<Vec<Presence>, SourceError> {
        let standing = |object: &ObjectId| match self.path(*object).exists() {
            true => Presence::Stored,
            false => Presence::Absent,
        };
        Ok(objects.iter().map(standing).collect())
    }

    fn list(&self, _after: Option<ObjectId>) -> Result<Vec<(ObjectId, u64)>, SourceError> {
        // Nothing is pruned here.
        Ok(Vec::new())
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files(&entry.path(), found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn cpu_seconds() -> f64 {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    clock.tv_sec as f64 + clock.tv_nsec as f64 / 1e9
}

fn measure<T>(
    what: &str,
    work: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    let result = work()?;
    eprintln!(
        "{what}: {:.2} s CPU, {:.2} s",
        cpu_seconds() - cpu,
        wall.elapsed().as_secs_f64()
    );
    Ok(result)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut lines = std::io::stdin().lines();
    let source = PathBuf::from(lines.next().ok_or("which directory?")??);
    let store = PathBuf::from(lines.next().ok_or("where to?")??);
    fs::create_dir_all(&store)?;
    let cell = Arc::new(Directory(store.clone()));
    let epoch = EpochKey::from_bytes(&[7; 32]);
    let (account, vault) = (AccountId::from_bytes([1; 16]), VaultId::from_bytes([2; 16]));
    let keys = Arc::new(VaultKeys::new(account, vault, [(1, epoch)])?);
    let index = store.join("index.sqlite");
    let mut repository =
        Repository::open(keys, Arc::new(SystemEntropy), None, &index, cell.as_ref())?;
    let mut found = Vec::new();
    measure("list", || Ok(files(&source, &mut found)?))?;
    for number in 1..=2u8 {
        let (staged, written) = measure("write", || {
            let mut writer = repository.writer(cell.clone())?;
            for path in &found {
                writer.content(&mut File::open(path)?, &mut |_| true)?;
            }
            let root = writer.chunk(Stream::Tree, &[number])?;
            let written = writer.finish()?;
            let entry = SnapshotEntry {
                id: SnapshotId::from_bytes([number; 16]),
                time: Millis(0),
                device: DeviceId::from_bytes([3; 16]),
                set: "throughput".into(),
                root,
                stats: SnapshotStats::default(),
                incomplete: false,
            };
            Ok((
                repository.stage_snapshot(entry, &written, cell.as_ref())?,
                written,
            ))
        })?;
        repository.accept(staged)?;
        eprintln!("{} files: {written:?}", found.len());
    }
    let bytes = measure("check", || {
        let (mut bytes, mut scratch) = (0, Vec::new());
        for pack in repository.index().packs(0, usize::MAX >> 1)? {
            let opened = repository.reader(cell.as_ref()).open_pack(pack.object)?;
            bytes += opened.verify_all(repository.keys(), &mut scratch)?;
        }
        Ok(bytes)
    })?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or_default();
    eprintln!("{bytes} bytes verified; {peak}");
    Ok(())
}
