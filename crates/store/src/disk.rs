//! Objects on the local disk, through `object_store`.
//!
//! An object is the file `<account>/<vault>/<first two digits>/<name>` below the root, all in
//! lowercase hexadecimal. It is written beside its final name, synced, and then linked to it, so a
//! name never leads to part of an object; then the directory is synced.
//!
//! What a large object has goes to the disk piece by piece, and the large objects that come at one time take turns:
//! a commit of the records then waits for one piece, and not for all that somebody uploads.
//!
//! `object_store` syncs what it creates itself. Two cases are left to this module. A directory that
//! another upload has just made may not be durable yet, so each directory on the way is synced into
//! its parent before the first object goes in. And an object that is found to be there may be that of
//! a put that has not finished, so it is synced before it is reported.

use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use candor_wire::ids::to_hex;
use candor_wire::{AccountId, ObjectId, VaultId};
use futures_core::Stream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{GetOptions, GetResultPayload, ObjectStore, PutMode, PutOptions, PutPayload};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::Pending;
use crate::objects::{
    CHUNK_MAX_BYTES, ObjectKey, ObjectListing, ObjectReader, Objects, ObjectsError, PutOutcome,
};
use crate::sys;

/// How many directories are remembered as durable, at most. One is at most about 200 bytes, so this
/// is under a megabyte; forgetting one costs a sync.
const DIRECTORIES_KNOWN_MAX: usize = 4096;

/// How much of a large object is written before other threads get their turn, in bytes.
const YIELD_BYTES: usize = 64 * 1024;

/// How much of a large object is written before it is synced, in bytes. The disk has no more than that to do before
/// it gets to what others wait for; and a sync of this much costs a few hundredths more than one of everything.
const PIECE_BYTES: usize = 1024 * 1024;

/// How many large objects give a piece to the disk at one time. One keeps it busy.
const PIECES_AT_ONCE: usize = 1;

/// What separates an object's name from the number of an unfinished write, in `object_store`.
const STAGING_MARK: char = '#';

/// The engine for objects on the local disk. The file system must support hard links.
#[derive(Debug)]
pub struct DiskObjects {
    store: LocalFileSystem,
    root: PathBuf,
    durable: Arc<DurableDirectories>,
    /// Turns among large objects, in the order in which they asked.
    turns: Arc<Semaphore>,
}

/// A file that is being written, beside its final name. Without that name it is removed with this value.
struct Staged {
    file: File,
    path: PathBuf,
}

impl Staged {
    fn create(named: &Path) -> io::Result<Self> {
        for number in 1_u32.. {
            let mut path = named.as_os_str().to_owned();
            path.push(format!("{STAGING_MARK}{number}"));
            let path = PathBuf::from(path);
            match File::create_new(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => return created.map(|file| Self { file, path }),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Writes the next piece and waits until the disk has it.
    fn write(mut self, piece: &[Bytes]) -> io::Result<Self> {
        for bytes in piece {
            for some in bytes.chunks(YIELD_BYTES) {
                self.file.write_all(some)?;
                // A processor may be kept for as long as the system's tick otherwise, whoever waits for it.
                thread::yield_now();
            }
        }
        self.file.sync_data()?;
        Ok(self)
    }

    /// Gives the file its name, for good; `false` if the name is taken.
    fn publish(self, named: &Path, directory: &Path) -> io::Result<bool> {
        self.file.sync_all()?;
        match fs::hard_link(&self.path, named) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            linked => linked?,
        }
        sys::sync_directory(directory)?;
        Ok(true)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Cuts a body where a piece is full. Nothing is copied.
fn pieces(body: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let (mut all, mut piece, mut length) = (Vec::new(), Vec::new(), 0);
    for mut bytes in body {
        while length + bytes.len() >= PIECE_BYTES {
            piece.push(bytes.split_to(PIECE_BYTES - length));
            all.push(core::mem::take(&mut piece));
            length = 0;
        }
        length += bytes.len();
        piece.push(bytes);
    }
    all.push(piece);
    all
}

impl DiskObjects {
    /// Opens the store below `root`, and creates that directory if it is missing. Does I/O on the
    /// calling thread.
    ///
    /// # Errors
    /// [`ObjectsError::Full`] and [`ObjectsError::Io`].
    pub fn open(root: &Path) -> Result<Self, ObjectsError> {
        const ACTION: &str = "open its directory";
        sys::create_private_directory(root).map_err(|source| io_fault(ACTION, source))?;
        let root = fs::canonicalize(root).map_err(|source| io_fault(ACTION, source))?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|source| store_fault(ACTION, source))?
            .with_fsync(true);
        Ok(Self {
            store,
            root,
            durable: Arc::default(),
            turns: Arc::new(Semaphore::new(PIECES_AT_ONCE)),
        })
    }

    /// Removes what writes that never finished have left behind, and returns how many files that
    /// were. Only for start-up, while nothing else uses the directory. Does I/O on the calling
    /// thread, in time that grows with the number of objects.
    ///
    /// # Errors
    /// [`ObjectsError::Io`].
    pub fn remove_unfinished(&self) -> Result<u64, ObjectsError> {
        let mut removed = 0;
        for account in directories(&self.root)? {
            for vault in directories(&account?)? {
                for fan in directories(&vault?)? {
                    removed += remove_unfinished_in(&fan?)?;
                }
            }
        }
        Ok(removed)
    }

    fn file(&self, key: &ObjectKey) -> PathBuf {
        self.fan_directory(key).join(key.object.to_string())
    }

    fn fan_directory(&self, key: &ObjectKey) -> PathBuf {
        self.root
            .join(key.account.to_string())
            .join(key.vault.to_string())
            .join(fan_name(&key.object))
    }

    async fn put_new(&self, key: ObjectKey, body: Vec<Bytes>) -> Result<PutOutcome, ObjectsError> {
        let (root, directory, file) =
            (self.root.clone(), self.fan_directory(&key), self.file(&key));
        let durable = Arc::clone(&self.durable);
        let there = blocking("prepare an object's directory", move || {
            durable.ensure(&root, &directory)?;
            file.try_exists()
        })
        .await?;
        if there {
            return self.sync_existing(&key).await;
        }
        if body.iter().map(Bytes::len).sum::<usize>() > PIECE_BYTES {
            return self.put_large(&key, body).await;
        }
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        match self
            .store
            .put_opts(&location(&key), PutPayload::from_iter(body), options)
            .await
        {
            Ok(_) => Ok(PutOutcome::Stored),
            Err(object_store::Error::AlreadyExists { .. }) => self.sync_existing(&key).await,
            Err(source) => Err(store_fault("write an object", source)),
        }
    }

    /// The same for an object of many pieces. Its directory is there and durable.
    async fn put_large(
        &self,
        key: &ObjectKey,
        body: Vec<Bytes>,
    ) -> Result<PutOutcome, ObjectsError> {
        const ACTION: &str = "write an object";
        let (directory, file) = (self.fan_directory(key), self.file(key));
        let named = file.clone();
        let mut staged = blocking(ACTION, move || Staged::create(&named)).await?;
        for piece in pieces(body) {
            // The semaphore is never closed.
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            staged = blocking(ACTION, move || {
                let written = staged.write(&piece);
                drop(turn);
                written
            })
            .await?;
        }
        let is_new = blocking(ACTION, move || staged.publish(&file, &directory)).await?;
        if is_new {
            return Ok(PutOutcome::Stored);
        }
        self.sync_existing(key).await
    }

    async fn sync_existing(&self, key: &ObjectKey) -> Result<PutOutcome, ObjectsError> {
        let (directory, file) = (self.fan_directory(key), self.file(key));
        blocking("sync an object", move || {
            sys::sync_file(&file)?;
            sys::sync_directory(&directory)
        })
        .await?;
        Ok(PutOutcome::AlreadyThere)
    }

    /// The open file of an object and its size, or `None` if there is no such object.
    async fn open_file(&self, key: &ObjectKey) -> Result<Option<(File, u64)>, ObjectsError> {
        match self
            .store
            .get_opts(&location(key), GetOptions::default())
            .await
        {
            Ok(found) => match found.payload {
                GetResultPayload::File(file, _) => Ok(Some((file, found.meta.size))),
                GetResultPayload::Stream(_) => Err(io_fault(
                    "open an object",
                    io::Error::new(ErrorKind::Unsupported, "the object is not a file"),
                )),
            },
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(store_fault("open an object", source)),
        }
    }

    async fn list_page(
        &self,
        vault: Location,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Result<Vec<ObjectListing>, ObjectsError> {
        const ACTION: &str = "list a vault";
        let fault = |source| store_fault(ACTION, source);
        let fans = self
            .store
            .list_with_delimiter(Some(&vault))
            .await
            .map_err(fault)?;
        let first_fan = after.map(|after| fan_name(&after));
        let mut page = Vec::new();
        for fan in fans.common_prefixes {
            if page.len() >= limit {
                break;
            }
            if fan.filename() < first_fan.as_deref() {
                continue;
            }
            let entries = self
                .store
                .list_with_delimiter(Some(&fan))
                .await
                .map_err(fault)?;
            let mut found: Vec<ObjectListing> = entries
                .objects
                .iter()
                .filter_map(|meta| {
                    let object = meta.location.filename()?.parse().ok()?;
                    Some(ObjectListing {
                        object,
                        size: meta.size,
                    })
                })
                .filter(|listing| after.is_none_or(|after| listing.object > after))
                .collect();
            found.sort_unstable_by_key(|listing| listing.object);
            found.truncate(limit - page.len());
            page.append(&mut found);
        }
        Ok(page)
    }
}

impl Objects for DiskObjects {
    fn put(
        &self,
        key: ObjectKey,
        body: Vec<Bytes>,
    ) -> Pending<'_, Result<PutOutcome, ObjectsError>> {
        Box::pin(self.put_new(key, body))
    }

    fn get(
        &self,
        key: ObjectKey,
        range: Option<Range<u64>>,
    ) -> Pending<'_, Result<ObjectReader, ObjectsError>> {
        Box::pin(async move {
            let (file, size) = self
                .open_file(&key)
                .await?
                .ok_or(ObjectsError::NotFound(key.object))?;
            let Range { start, end } = range.unwrap_or(0..size);
            if start > end || end > size {
                return Err(ObjectsError::RangeOutside {
                    object: key.object,
                    start,
                    end,
                    size,
                });
            }
            Ok(ObjectReader::new(
                end - start,
                FileChunks::new(file, start, end - start),
            ))
        })
    }

    fn head(&self, key: ObjectKey) -> Pending<'_, Result<Option<u64>, ObjectsError>> {
        Box::pin(async move { Ok(self.open_file(&key).await?.map(|(_, size)| size)) })
    }

    fn delete(&self, key: ObjectKey) -> Pending<'_, Result<(), ObjectsError>> {
        let (directory, file) = (self.fan_directory(&key), self.file(&key));
        Box::pin(blocking("delete an object", move || {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                // Also when it is gone already: an earlier delete may have failed to sync.
                _ => {}
            }
            match sys::sync_directory(&directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                synced => synced,
            }
        }))
    }

    fn erase(
        &self,
        account: AccountId,
        vault: Option<VaultId>,
    ) -> Pending<'_, Result<(), ObjectsError>> {
        let durable = Arc::clone(&self.durable);
        let mut directory = self.root.join(account.to_string());
        if let Some(vault) = vault {
            directory.push(vault.to_string());
        }
        Box::pin(blocking("erase a directory of objects", move || {
            remove_tree(&directory, &durable)?;
            // The account's directory may never have been made; then its parent says so.
            let parents = directory.ancestors().skip(1);
            let existing = parents
                .map(Path::to_path_buf)
                .find(|parent| parent.exists());
            existing.map_or(Ok(()), |parent| sys::sync_directory(&parent))
        }))
    }

    fn list(
        &self,
        account: AccountId,
        vault: VaultId,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ObjectListing>, ObjectsError>> {
        let vault = Location::from_iter([account.to_string(), vault.to_string()]);
        Box::pin(self.list_page(vault, after, limit))
    }
}

/// The directories whose entries are known to be durable all the way up to the root.
#[derive(Debug, Default)]
pub(crate) struct DurableDirectories(Mutex<HashSet<PathBuf>>);

impl DurableDirectories {
    /// Creates `directory` below `root`, and makes every entry on the way to it durable.
    pub(crate) fn ensure(&self, root: &Path, directory: &Path) -> io::Result<()> {
        if directory == root || self.known().contains(directory) {
            return Ok(());
        }
        let parent = directory.parent().unwrap_or(root);
        self.ensure(root, parent)?;
        sys::create_directory_entry(directory)?;
        // Even if it was there: whoever made it may not have come to this line yet.
        sys::sync_directory(parent)?;
        let mut known = self.known();
        if known.len() >= DIRECTORIES_KNOWN_MAX {
            known.clear();
        }
        known.insert(directory.to_path_buf());
        Ok(())
    }

    /// Before `directory` is removed.
    pub(crate) fn forget(&self, directory: &Path) {
        self.known().remove(directory);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        // A set of facts stays true whatever happened to the thread that held it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a file, one piece being read while the one before it is used.
struct FileChunks {
    remaining: u64,
    reading: Option<JoinHandle<(File, io::Result<Vec<u8>>)>>,
}

impl FileChunks {
    fn new(mut file: File, start: u64, length: u64) -> Self {
        let first = chunk_length(length);
        let reading = (length > 0).then(|| {
            tokio::task::spawn_blocking(move || {
                let read = file
                    .seek(SeekFrom::Start(start))
                    .and_then(|_| read_exactly(&file, first));
                (file, read)
            })
        });
        Self {
            remaining: length,
            reading,
        }
    }
}

impl Stream for FileChunks {
    type Item = Result<Bytes, ObjectsError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        const ACTION: &str = "read an object";
        let Some(reading) = self.reading.as_mut() else {
            return Poll::Ready(None);
        };
        let joined = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let (file, chunk) = match joined {
            Ok((file, Ok(chunk))) => (file, chunk),
            Ok((_, Err(source))) => return Poll::Ready(Some(Err(io_fault(ACTION, source)))),
            Err(source) => {
                return Poll::Ready(Some(Err(io_fault(ACTION, io::Error::other(source)))));
            }
        };
        self.remaining -= chunk.len() as u64;
        if self.remaining > 0 {
            let next = chunk_length(self.remaining);
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let read = read_exactly(&file, next);
                (file, read)
            }));
        }
        Poll::Ready(Some(Ok(Bytes::from(chunk))))
    }
}

fn chunk_length(remaining: u64) -> usize {
    usize::try_from(remaining).map_or(CHUNK_MAX_BYTES, |remaining| remaining.min(CHUNK_MAX_BYTES))
}

fn read_exactly(mut file: &File, length: usize) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(length);
    Read::take(&mut file, length as u64).read_to_end(&mut chunk)?;
    if chunk.len() < length {
        return Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "the file became shorter",
        ));
    }
    Ok(chunk)
}

/// The directory within a vault that holds an object: 256 of them keep each one short.
fn fan_name(object: &ObjectId) -> String {
    to_hex(&object.as_bytes()[..1])
}

fn location(key: &ObjectKey) -> Location {
    Location::from_iter([
        key.account.to_string(),
        key.vault.to_string(),
        fan_name(&key.object),
        key.object.to_string(),
    ])
}

/// The directories within a directory.
fn directories(
    path: &Path,
) -> Result<impl Iterator<Item = Result<PathBuf, ObjectsError>> + use<>, ObjectsError> {
    const ACTION: &str = "look for unfinished writes";
    let entries = fs::read_dir(path).map_err(|source| io_fault(ACTION, source))?;
    Ok(entries.filter_map(|entry| {
        let kept = entry.and_then(|entry| Ok(entry.file_type()?.is_dir().then(|| entry.path())));
        kept.map_err(|source| io_fault(ACTION, source)).transpose()
    }))
}

fn remove_unfinished_in(fan: &Path) -> Result<u64, ObjectsError> {
    let fault = |source| io_fault("remove an unfinished write", source);
    let mut removed = 0;
    for entry in fs::read_dir(fan).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let name = entry.file_name();
        let staged = name
            .to_str()
            .and_then(|name| name.split_once(STAGING_MARK))
            .is_some_and(|(object, _)| object.parse::<ObjectId>().is_ok());
        if staged {
            fs::remove_file(entry.path()).map_err(fault)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes a directory and everything in it, the innermost first. One that is not there is fine.
fn remove_tree(directory: &Path, durable: &DurableDirectories) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path(), durable)?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    sys::sync_directory(directory)?;
    durable.forget(directory);
    fs::remove_dir(directory)
}

async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ObjectsError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|source| io_fault(action, source)),
        Err(source) => Err(io_fault(action, io::Error::other(source))),
    }
}

fn io_fault(action: &'static str, source: io::Error) -> ObjectsError {
    if is_full(&source) {
        ObjectsError::Full(Arc::new(source))
    } else {
        ObjectsError::Io {
            action,
            source: Arc::new(source),
        }
    }
}

fn store_fault(action: &'static str, source: object_store::Error) -> ObjectsError {
    let mut cause: Option<&(dyn core::error::Error + 'static)> = Some(&source);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_full) {
            return ObjectsError::Full(Arc::new(source));
        }
        cause = error.source();
    }
    ObjectsError::Io {
        action,
        source: Arc::new(source),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn key(byte: u8) -> ObjectKey {
        ObjectKey {
            account: AccountId::from_bytes([1; 16]),
            vault: VaultId::from_bytes([2; 16]),
            object: ObjectId::from_bytes([byte; 32]),
        }
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = || io::Error::from(ErrorKind::StorageFull);
        let wrapped = object_store::Error::Generic {
            store: "disk",
            source: Box::new(full()),
        };
        assert!(matches!(io_fault("write", full()), ObjectsError::Full(_)));
        assert!(matches!(
            store_fault("write", wrapped),
            ObjectsError::Full(_)
        ));
        let other = io::Error::from(ErrorKind::PermissionDenied);
        assert!(matches!(
            io_fault("write", other),
            ObjectsError::Io {
                action: "write",
                ..
            }
        ));
    }

    #[tokio::test]
    async fn unfinished_writes_are_removed_and_objects_kept() {
        let directory = tempfile::tempdir().unwrap();
        let objects = DiskObjects::open(directory.path()).unwrap();
        objects
            .put(key(7), vec![Bytes::from_static(b"kept")])
            .await
            .unwrap();
        let mut staged = objects.file(&key(7)).into_os_string();
        staged.push("#1");
        fs::write(&staged, b"half").unwrap();

        let listed = objects
            .list(key(7).account, key(7).vault, None, 10)
            .await
            .unwrap();
        assert_eq!(listed.len(), 1, "an unfinished write is not an object");
        assert_eq!(objects.remove_unfinished().unwrap(), 1);
        assert!(!Path::new(&staged).exists());
        assert_eq!(objects.head(key(7)).await.unwrap(), Some(4));
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error_and_not_a_short_object() {
        let directory = tempfile::tempdir().unwrap();
        let objects = DiskObjects::open(directory.path()).unwrap();
        let body = Bytes::from(vec![3; 3 * CHUNK_MAX_BYTES]);
        objects.put(key(9), vec![body]).await.unwrap();
        let mut reader = objects.get(key(9), None).await.unwrap();
        let file = File::options()
            .write(true)
            .open(objects.file(&key(9)))
            .unwrap();
        file.set_len(CHUNK_MAX_BYTES as u64).unwrap();
        let mut outcome = Ok(0);
        while let Some(chunk) = reader.next_chunk().await {
            outcome = chunk.map(|chunk| chunk.len());
        }
        assert!(matches!(
            outcome,
            Err(ObjectsError::Io {
                action: "read an object",
                ..
            })
        ));
    }
}
