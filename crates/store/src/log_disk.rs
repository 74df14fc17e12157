//! The log's published files on the local disk. The directory can be served as it is by any web server.
//!
//! A file is written beside its name and synced before it gets the name, so that nobody ever reads part
//! of one; then its directory is synced. The files of one batch are synced together. A file that never
//! changes gets its name by a link, which no file that is there gives way to; the one that changes, by
//! a rename.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::Pending;
use crate::disk::DurableDirectories;
use crate::log::{
    LOG_FILE_MAX_BYTES, LogFiles, LogFilesError, PARTIAL_ENDING, by_name, check_file, check_name,
    is_name,
};
use crate::sys;

/// What separates a file's name from the number of an unfinished write. No published file has it in its
/// name.
const UNFINISHED_MARK: char = '~';

/// Tells the unfinished writes of this process apart, also those of two engines over one directory.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// The engine for the log's files on the local disk. The file system must support hard links.
#[derive(Debug, Clone)]
pub struct DiskLogFiles {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    durable: DurableDirectories,
    #[cfg(test)]
    watch: tests::Watch,
}

impl DiskLogFiles {
    /// Opens the directory, and creates it if it is missing. Does I/O on the calling thread.
    ///
    /// # Errors
    /// [`LogFilesError::Full`] and [`LogFilesError::Io`].
    pub fn open(root: &Path) -> Result<Self, LogFilesError> {
        let opened = sys::create_private_directory(root).and_then(|()| fs::canonicalize(root));
        let root = opened.map_err(|source| fault("opened", source))?;
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                durable: DurableDirectories::default(),
                #[cfg(test)]
                watch: tests::Watch::default(),
            }),
        })
    }

    /// Removes what writes that never finished have left behind, and returns how many files that were.
    /// Only for start-up, while nothing else uses the directory. Does I/O on the calling thread, in
    /// time that grows with the length of the log.
    ///
    /// # Errors
    /// [`LogFilesError::Io`].
    pub fn remove_unfinished(&self) -> Result<u64, LogFilesError> {
        remove_unfinished_below(&self.inner.root)
            .map_err(|source| fault("cleared of unfinished ones", source))
    }
}

fn remove_unfinished_below(root: &Path) -> io::Result<u64> {
    let mut removed = 0;
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() && entry.file_name().to_str().is_some_and(is_unfinished) {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn is_unfinished(name: &str) -> bool {
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    name.split_once(UNFINISHED_MARK)
        .is_some_and(|(published, rest)| {
            is_name(published)
                && rest
                    .split_once('-')
                    .is_some_and(|(process, number)| is_number(process) && is_number(number))
        })
}

fn fault(action: &'static str, source: io::Error) -> LogFilesError {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => LogFilesError::Full(Arc::new(source)),
        _ => LogFilesError::Io {
            action,
            source: Arc::new(source),
        },
    }
}

fn write_fault(source: io::Error) -> LogFilesError {
    fault("written", source)
}

/// A file that does not have its name yet. The name that it has meanwhile goes when this does.
#[derive(Debug)]
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A rename has taken it already. Otherwise, what stays behind is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// What changes the disk.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Directory(&'a Path),
    Write(&'a Unfinished, &'a [u8]),
    Sync(&'a Unfinished),
    SyncPublished(&'a Path),
    Link(&'a Unfinished, &'a Path),
    Rename(&'a Unfinished, &'a Path),
    SyncDirectory(&'a Path),
}

impl Inner {
    fn put(&self, files: &[(String, Bytes)]) -> Result<(), LogFilesError> {
        let files = by_name(files)?;
        let mut missing = Vec::new();
        let mut published = Vec::new();
        for (name, bytes) in files {
            let path = self.root.join(name);
            if is_there(name, &path, bytes)? {
                published.push(path);
            } else {
                missing.push((name, path, bytes));
            }
        }
        let directories: BTreeSet<PathBuf> = published
            .iter()
            .chain(missing.iter().map(|(_, path, _)| path))
            .map(|path| self.directory_of(path))
            .collect();
        for directory in &directories {
            self.take(Step::Directory(directory)).map_err(write_fault)?;
        }
        let mut written = Vec::with_capacity(missing.len());
        for (name, path, bytes) in missing {
            let unfinished = self.write_beside(&path, bytes).map_err(write_fault)?;
            written.push((name, path, bytes, unfinished));
        }
        for (.., unfinished) in &written {
            self.take(Step::Sync(unfinished)).map_err(write_fault)?;
        }
        for (name, path, bytes, unfinished) in written {
            match self.take(Step::Link(&unfinished, &path)) {
                // Somebody else was faster.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !is_there(name, &path, bytes)? {
                        return Err(write_fault(error));
                    }
                    published.push(path);
                }
                linked => linked.map_err(write_fault)?,
            }
        }
        for path in &published {
            // Whoever wrote it may not have come to syncing it.
            self.take(Step::SyncPublished(path)).map_err(write_fault)?;
        }
        for directory in &directories {
            self.take(Step::SyncDirectory(directory))
                .map_err(write_fault)?;
        }
        Ok(())
    }

    fn replace(&self, name: &str, bytes: &Bytes) -> Result<(), LogFilesError> {
        check_file(name, bytes)?;
        let path = self.root.join(name);
        let directory = self.directory_of(&path);
        let replace = || -> io::Result<()> {
            self.take(Step::Directory(&directory))?;
            let unfinished = self.write_beside(&path, bytes)?;
            self.take(Step::Sync(&unfinished))?;
            self.take(Step::Rename(&unfinished, &path))?;
            self.take(Step::SyncDirectory(&directory))
        };
        replace().map_err(write_fault)
    }

    fn remove_partial(&self, name: &str) -> Result<(), LogFilesError> {
        check_name(name)?;
        let whole = self.root.join(name);
        let partial = self.root.join(format!("{name}{PARTIAL_ENDING}"));
        let remove = || -> io::Result<()> {
            if length_of(&whole)?.is_none() {
                return Ok(());
            }
            self.durable.forget(&partial);
            match fs::remove_dir_all(&partial) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        };
        remove().map_err(|source| fault("removed", source))
    }

    fn directory_of(&self, path: &Path) -> PathBuf {
        path.parent().unwrap_or(&self.root).to_path_buf()
    }

    fn write_beside(&self, path: &Path, bytes: &[u8]) -> io::Result<Unfinished> {
        let unfinished = loop {
            let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
            let mut name = path.as_os_str().to_owned();
            name.push(format!("{UNFINISHED_MARK}{}-{number}", std::process::id()));
            let path = PathBuf::from(name);
            match File::create_new(&path) {
                // Left behind by an earlier process that had the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => {
                    break Unfinished {
                        file: created?,
                        path,
                    };
                }
            }
        };
        self.take(Step::Write(&unfinished, bytes))?;
        Ok(unfinished)
    }

    fn take(&self, step: Step<'_>) -> io::Result<()> {
        #[cfg(test)]
        self.watch.before(&self.root, step)?;
        match step {
            Step::Directory(path) => self.durable.ensure(&self.root, path),
            Step::Write(unfinished, bytes) => (&unfinished.file).write_all(bytes),
            Step::Sync(unfinished) => unfinished.file.sync_all(),
            Step::SyncPublished(path) => sys::sync_file(path),
            Step::Link(unfinished, path) => fs::hard_link(&unfinished.path, path),
            Step::Rename(unfinished, path) => fs::rename(&unfinished.path, path),
            Step::SyncDirectory(path) => sys::sync_directory(path),
        }
    }
}

/// Whether a file that never changes is there with these bytes.
fn is_there(name: &str, path: &Path, bytes: &Bytes) -> Result<bool, LogFilesError> {
    let same = || -> io::Result<Option<bool>> {
        let Some(length) = length_of(path)? else {
            return Ok(None);
        };
        Ok(Some(
            length == bytes.len() as u64 && fs::read(path)? == *bytes,
        ))
    };
    match same().map_err(|source| fault("read", source))? {
        Some(true) => Ok(true),
        Some(false) => Err(LogFilesError::Different {
            name: name.to_owned(),
        }),
        None => Ok(false),
    }
}

/// A whole file; longer ones than any of the log's are none of it.
fn read(path: &Path) -> io::Result<Option<Bytes>> {
    let Some(length) = length_of(path)? else {
        return Ok(None);
    };
    if length > LOG_FILE_MAX_BYTES as u64 {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the file is longer than any of the log's",
        ));
    }
    fs::read(path).map(|bytes| Some(Bytes::from(bytes)))
}

/// How long a file is; `None` if there is none.
fn length_of(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        // Not a directory: a component of the path is a file, so there is no such file either.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        found => found.map(|metadata| metadata.is_file().then_some(metadata.len())),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogFilesError> + Send + 'static,
) -> Result<T, LogFilesError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| fault("reached", io::Error::other(source)))?
}

impl LogFiles for DiskLogFiles {
    fn put(&self, files: Vec<(String, Bytes)>) -> Pending<'_, Result<(), LogFilesError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(blocking(move || inner.put(&files)))
    }

    fn replace(&self, name: String, bytes: Bytes) -> Pending<'_, Result<(), LogFilesError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(blocking(move || inner.replace(&name, &bytes)))
    }

    fn remove_partial(&self, names: Vec<String>) -> Pending<'_, Result<(), LogFilesError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(blocking(move || {
            names.iter().try_for_each(|name| inner.remove_partial(name))
        }))
    }

    fn get(&self, name: String) -> Pending<'_, Result<Option<Bytes>, LogFilesError>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(blocking(move || {
            check_name(&name)?;
            read(&inner.root.join(&name)).map_err(|source| fault("read", source))
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Notes the steps, and makes one of them fail as a full disk does.
    #[derive(Debug, Default)]
    pub(super) struct Watch(Mutex<(Vec<String>, Option<usize>)>);

    impl Watch {
        pub(super) fn before(&self, root: &Path, step: Step<'_>) -> io::Result<()> {
            let (what, path) = match step {
                Step::Directory(path) => ("directory", path),
                Step::Write(unfinished, _) => ("write", unfinished.path.as_path()),
                Step::Sync(unfinished) => ("sync", unfinished.path.as_path()),
                Step::SyncPublished(path) => ("sync published", path),
                Step::Link(_, path) => ("link", path),
                Step::Rename(_, path) => ("rename", path),
                Step::SyncDirectory(path) => ("sync directory", path),
            };
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            let name = name.split(UNFINISHED_MARK).next().unwrap();
            let (steps, fails_at) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            steps.push(format!("{what} {name}"));
            if *fails_at != Some(steps.len()) {
                return Ok(());
            }
            if let Step::Write(unfinished, bytes) = step {
                (&unfinished.file).write_all(&bytes[..bytes.len() / 2])?;
            }
            Err(ErrorKind::StorageFull.into())
        }

        fn begin(&self, fails_at: Option<usize>) {
            *self.0.lock().unwrap() = (Vec::new(), fails_at);
        }

        fn steps(&self) -> Vec<String> {
            self.0.lock().unwrap().0.clone()
        }
    }

    fn engine() -> (tempfile::TempDir, DiskLogFiles) {
        let place = tempfile::tempdir().unwrap();
        let files = DiskLogFiles::open(place.path()).unwrap();
        (place, files)
    }

    fn batch() -> Vec<(String, Bytes)> {
        let file = |name: &str, byte| (name.to_owned(), Bytes::from(vec![byte; 1000]));
        vec![
            file("tile/1/000.p/1", 1),
            file("tile/0/000", 2),
            file("tile/0/001.p/7", 3),
            file("tile/0/x001/000", 4),
        ]
    }

    /// Every file, by its path below the directory.
    fn files_in(root: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut directories = vec![root.to_path_buf()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                    found.insert(name.to_owned(), fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    #[tokio::test]
    async fn bytes_are_durable_before_names_and_names_before_the_answer() {
        let (_place, files) = engine();
        files.put(batch()[1..2].to_vec()).await.unwrap();
        files.inner.watch.begin(None);
        files.put(batch()).await.unwrap();
        let expected = [
            "directory tile/0",
            "directory tile/0/001.p",
            "directory tile/0/x001",
            "directory tile/1/000.p",
            "write tile/0/001.p/7",
            "write tile/0/x001/000",
            "write tile/1/000.p/1",
            "sync tile/0/001.p/7",
            "sync tile/0/x001/000",
            "sync tile/1/000.p/1",
            "link tile/0/001.p/7",
            "link tile/0/x001/000",
            "link tile/1/000.p/1",
            // It may be that of a put that has not finished.
            "sync published tile/0/000",
            "sync directory tile/0",
            "sync directory tile/0/001.p",
            "sync directory tile/0/x001",
            "sync directory tile/1/000.p",
        ];
        assert_eq!(files.inner.watch.steps(), expected);

        files.inner.watch.begin(None);
        let bytes = Bytes::from_static(b"note");
        files.replace("checkpoint".to_owned(), bytes).await.unwrap();
        let expected = [
            "directory ",
            "write checkpoint",
            "sync checkpoint",
            "rename checkpoint",
            "sync directory ",
        ];
        assert_eq!(files.inner.watch.steps(), expected);
    }

    #[tokio::test]
    async fn a_full_disk_leaves_whole_files_or_none() {
        for step in 1.. {
            let (place, files) = engine();
            files.inner.watch.begin(Some(step));
            let outcome = files.put(batch()).await;
            let there = files_in(place.path());
            for (name, bytes) in there {
                let expected = batch().into_iter().find(|file| file.0 == name);
                assert_eq!(expected.unwrap().1, bytes, "step {step}, {name}");
            }
            if outcome.is_ok() {
                assert!(step > files.inner.watch.steps().len(), "no step was left");
                break;
            }
            assert!(
                matches!(outcome, Err(LogFilesError::Full(_))),
                "{outcome:?}"
            );
            files.inner.watch.begin(None);
            files.put(batch()).await.unwrap();
            assert_eq!(files_in(place.path()).len(), batch().len());
        }
    }

    #[tokio::test]
    async fn a_full_disk_leaves_the_file_that_changes_as_it_was_or_as_it_will_be() {
        let name = || "checkpoint".to_owned();
        let (before, after) = (Bytes::from(vec![1; 100]), Bytes::from(vec![2; 200]));
        for step in 1..=5 {
            let (place, files) = engine();
            files.replace(name(), before.clone()).await.unwrap();
            files.inner.watch.begin(Some(step));
            let outcome = files.replace(name(), after.clone()).await;
            assert!(
                matches!(outcome, Err(LogFilesError::Full(_))),
                "{outcome:?}"
            );
            let expected = if step == 5 { &after } else { &before };
            let there = files_in(place.path());
            assert_eq!(there, BTreeMap::from([(name(), expected.to_vec())]));
        }
    }

    #[tokio::test]
    async fn what_stands_in_the_way_is_a_fault_and_stays() {
        let (place, files) = engine();
        let put = |name: &str| vec![(name.to_owned(), Bytes::from_static(b"new"))];
        fs::write(place.path().join("tile"), b"a file").unwrap();
        fs::create_dir(place.path().join("checkpoint")).unwrap();
        let replaced = files.replace("checkpoint".to_owned(), Bytes::new()).await;
        for refused in [
            files.put(put("tile/0/000")).await,
            files.put(put("checkpoint")).await,
            replaced,
        ] {
            let told = matches!(
                &refused,
                Err(LogFilesError::Io {
                    action: "written",
                    ..
                })
            );
            assert!(told, "{refused:?}");
        }
        let there = files_in(place.path());
        assert_eq!(
            there,
            BTreeMap::from([("tile".to_owned(), b"a file".to_vec())])
        );
        assert!(place.path().join("checkpoint").is_dir());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_directory_that_takes_no_files_is_a_fault() {
        use std::os::unix::fs::PermissionsExt as _;
        let (place, files) = engine();
        files.put(batch()).await.unwrap();
        let directory = place.path().join("tile/0");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o500)).unwrap();
        if File::create(directory.join("probe")).is_ok() {
            // Whoever runs this may write everywhere.
            return;
        }
        let more = ["tile/1/new", "tile/0/new"].map(|name| (name.to_owned(), Bytes::new()));
        let refused = files.put(more.to_vec()).await;
        assert!(
            matches!(
                refused,
                Err(LogFilesError::Io {
                    action: "written",
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(files_in(place.path()).len(), batch().len());
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_nobody_can_have_published_is_told_and_not_read() {
        let (place, files) = engine();
        let name = || "tile/0/000".to_owned();
        fs::create_dir_all(place.path().join("tile/0")).unwrap();
        let long = vec![0; LOG_FILE_MAX_BYTES + 1];
        fs::write(place.path().join(name()), &long).unwrap();
        let read = files.get(name()).await;
        assert!(
            matches!(read, Err(LogFilesError::Io { action: "read", .. })),
            "{read:?}"
        );
        let put = files.put(vec![(name(), Bytes::from_static(b"tile"))]).await;
        assert!(
            matches!(put, Err(LogFilesError::Different { .. })),
            "{put:?}"
        );
    }

    #[tokio::test]
    async fn unfinished_writes_are_removed_and_files_kept() {
        let (place, files) = engine();
        files.put(batch()).await.unwrap();
        for name in ["checkpoint~12-0", "tile/0/000~1-345", "tile/0/x001/001~1-2"] {
            fs::write(place.path().join(name), b"half").unwrap();
        }
        let foreign = ["notes~", "README~1-x", "a~1-2-3", "b~"];
        for name in foreign {
            fs::write(place.path().join(name), b"somebody's").unwrap();
        }
        let again = DiskLogFiles::open(place.path()).unwrap();
        assert_eq!(again.remove_unfinished().unwrap(), 3);
        assert_eq!(again.remove_unfinished().unwrap(), 0);
        assert_eq!(files_in(place.path()).len(), batch().len() + foreign.len());
        for (name, bytes) in batch() {
            assert_eq!(again.get(name).await.unwrap(), Some(bytes));
        }
    }

    #[tokio::test]
    async fn an_unfinished_write_of_the_same_number_is_not_touched() {
        let (place, files) = engine();
        let next = WRITTEN.load(Ordering::Relaxed);
        let left: Vec<PathBuf> = (next..next + 100)
            .map(|number| format!("checkpoint~{}-{number}", std::process::id()))
            .map(|name| place.path().join(name))
            .collect();
        for path in &left {
            fs::write(path, b"half").unwrap();
        }
        let bytes = Bytes::from_static(b"note");
        files
            .replace("checkpoint".to_owned(), bytes.clone())
            .await
            .unwrap();
        assert_eq!(
            files.get("checkpoint".to_owned()).await.unwrap(),
            Some(bytes)
        );
        assert!(left.iter().all(|path| fs::read(path).unwrap() == b"half"));
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        for full in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            assert!(matches!(write_fault(full.into()), LogFilesError::Full(_)));
        }
        let other = write_fault(ErrorKind::PermissionDenied.into());
        assert!(matches!(
            other,
            LogFilesError::Io {
                action: "written",
                ..
            }
        ));
    }
}
