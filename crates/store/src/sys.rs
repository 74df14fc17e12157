//! What differs by platform: directories that only the cell's user can enter, and making a
//! directory's entries durable.

use std::fs::File;
use std::io;
use std::path::Path;

/// Creates `path` and what is missing above it, and makes the new entries durable. Directories that
/// are created can be entered by their owner only; existing ones are left as they are.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut existing = path;
    while !existing.as_os_str().is_empty() && !existing.try_exists()? {
        match existing.parent() {
            Some(parent) => existing = parent,
            None => break,
        }
    }
    builder().recursive(true).create(path)?;
    let mut directory = path;
    while directory != existing {
        let Some(parent) = directory.parent() else {
            break;
        };
        sync_directory(parent)?;
        directory = parent;
    }
    Ok(())
}

/// Creates one directory within an existing one, for its owner only, if it is missing. Its entry is
/// not durable until the parent is synced.
pub(crate) fn create_directory_entry(path: &Path) -> io::Result<()> {
    match builder().create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// Makes the entries of a directory survive a loss of power. The empty path is the present directory.
#[cfg(unix)]
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)?.sync_all()
}

/// Elsewhere directories cannot be opened like files; the file systems there keep entries in order.
#[cfg(not(unix))]
pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes the bytes of an existing file durable, whoever wrote them.
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(unix)]
fn builder() -> std::fs::DirBuilder {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    builder
}

#[cfg(not(unix))]
fn builder() -> std::fs::DirBuilder {
    std::fs::DirBuilder::new()
}
