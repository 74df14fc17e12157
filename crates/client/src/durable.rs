//! Small files that are replaced as a whole: after a crash there is the old content or the new one,
//! never a mixture and never nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Permission bits of every file that this crate makes: for its owner alone.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Replaces the file at `path`. When this returns, the new content is on the disk, under its name.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(content))
}

/// The same with what `write` writes, unless it fails.
pub(crate) fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_beside(path);
    // A leftover of a crash; its content is worth nothing.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_new(&temporary, write).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder_of(path)
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write_new(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    let mut file = BufWriter::new(file);
    write(&mut file)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()
}

/// Makes the names in the folder of `path` durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Reads a whole file of at most `limit_bytes`; `None` if there is none. A longer one is refused
/// before it is read.
pub(crate) fn read_limited(path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    if length > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is longer than it can be",
        ));
    }
    let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(limit_bytes + 1).read_to_end(&mut content)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small");
        assert_eq!(read_limited(&path, 10).unwrap(), None);
        replace(&path, b"one").unwrap();
        fs::write(temporary_beside(&path), b"half of a crashed wri").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read_limited(&path, 10).unwrap().unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            FILE_MODE
        );
        assert!(!temporary_beside(&path).exists());
        // What was not written to its end replaces nothing.
        let broken = replace_with(&path, |file| {
            file.write_all(b"thr")?;
            Err(io::ErrorKind::Other.into())
        });
        assert!(broken.is_err() && !temporary_beside(&path).exists());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            read_limited(&path, 2).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
