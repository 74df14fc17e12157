//! Where the device's folder is, and what this program keeps in it beside the engine's own files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::failure::{Doing as _, Failure, Kind, Outcome};

/// The device's folder. It need not exist.
#[derive(Debug, Clone)]
pub(crate) struct HomeDir(PathBuf);

impl HomeDir {
    /// `--home`, else `$CANDOR_HOME`, else the data folder of this person's account.
    pub(crate) fn find(given: Option<&Path>) -> Outcome<Self> {
        let absolute = |path: &PathBuf| path.is_absolute();
        let path = given
            .map(Path::to_owned)
            .or_else(|| variable("CANDOR_HOME"))
            .or_else(|| {
                variable("XDG_DATA_HOME")
                    .filter(absolute)
                    .map(|data| data.join("candor"))
            })
            .or_else(|| {
                variable("HOME")
                    .filter(absolute)
                    .map(|home| home.join(".local/share/candor"))
            });
        let path = path.ok_or_else(|| {
            Failure::new(Kind::Usage, "nothing says where this device's folder is")
                .hint("give --home DIR, or set CANDOR_HOME")
        })?;
        std::path::absolute(&path)
            .map(Self)
            .doing(|| "find the current folder".to_owned())
    }

    /// None, for commands that never look at it.
    pub(crate) fn nowhere() -> Self {
        Self(PathBuf::new())
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, for its owner alone, unless it is there.
    pub(crate) fn make(&self) -> Outcome {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0);
        made.doing(|| format!("make the folder {}", self.0.display()))
    }

    /// The embedded cell.
    pub(crate) fn cell(&self) -> PathBuf {
        self.0.join("cell")
    }

    /// The socket through which a running cell is asked for an invitation.
    pub(crate) fn cell_socket(&self) -> PathBuf {
        self.0.join("cell.sock")
    }

    /// The socket of a running engine.
    #[cfg(feature = "device")]
    pub(crate) fn engine_socket(&self) -> PathBuf {
        self.0.join("engine.sock")
    }

    /// The invitation to the embedded cell, for this person's other devices.
    #[cfg(feature = "device")]
    pub(crate) fn invitation(&self) -> PathBuf {
        self.0.join("invitation")
    }
}

/// Whether a variable of the environment is set.
#[cfg(feature = "device")]
pub(crate) fn has_variable(name: &str) -> bool {
    variable(name).is_some()
}

/// The value of a variable of the environment that names a path.
#[expect(
    clippy::disallowed_methods,
    reason = "the program is where the environment is read"
)]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// The browser that the person names, as other programs read it.
#[cfg(feature = "device")]
pub(crate) fn browser() -> Option<PathBuf> {
    variable("BROWSER")
}

/// The home folder of this person's account.
#[cfg(feature = "device")]
pub(crate) fn user_folder() -> Outcome<PathBuf> {
    variable("HOME")
        .filter(|path| path.is_absolute())
        .ok_or_else(|| {
            Failure::new(Kind::Usage, "nothing says where your home folder is").hint("set HOME")
        })
}

/// Where programs keep this person's settings.
#[cfg(feature = "device")]
pub(crate) fn config_folder() -> Outcome<PathBuf> {
    match variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute()) {
        Some(folder) => Ok(folder),
        None => Ok(user_folder()?.join(".config")),
    }
}

/// Writes a new file that its owner alone may read. Durable when it returns; refuses to replace
/// anything.
pub(crate) fn write_new_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    sync_parent(path)
}

/// Writes or replaces such a file, in one step.
#[cfg(feature = "device")]
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_new_private(&beside, content)?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a small text file; larger than `max_bytes` is refused, so that a wrong file does no harm.
pub(crate) fn read_small(path: &Path, max_bytes: u64) -> Outcome<String> {
    let what = || format!("read {}", path.display());
    // All at once: what is read can be a secret, and a growing buffer leaves copies behind.
    let mut text = String::with_capacity(usize::try_from(max_bytes).unwrap_or(0) + 1);
    let file = File::open(path).doing(what)?;
    let length = file
        .take(max_bytes + 1)
        .read_to_string(&mut text)
        .doing(what)?;
    if length as u64 > max_bytes {
        let sentence = format!("{} is too long to be the right file", path.display());
        return Err(Failure::new(Kind::Usage, sentence));
    }
    Ok(text)
}

/// Removes a file if it is there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn private_files_are_private_and_never_replace_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phrase");
        write_new_private(&path, b"words").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            write_new_private(&path, b"other").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&path).unwrap(), b"words");
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_small(&path, 5).unwrap(), "12345");
        assert_eq!(read_small(&path, 4).unwrap_err().kind, Kind::Usage);
    }
}
