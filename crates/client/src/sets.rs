//! Backup sets: a name, folders and rules. What a person may ask for, checked before it is kept.

use std::path::{Component, Path, PathBuf};

use candor_wire::Millis;
use candor_wire::limits::NAME_MAX_BYTES;

use crate::device_store::{BackupSet, RunState};

/// Most paths of one set: they are listed in the notice that a person reads.
pub const SET_PATHS_MAX: usize = 64;

/// Most globs of one set.
pub const SET_EXCLUDES_MAX: usize = 256;

/// Longest glob, in bytes.
pub const EXCLUDE_MAX_BYTES: usize = 1024;

/// The word that means the newest snapshot, and so can be no set's name.
pub const LATEST: &str = "latest";

/// Why a set cannot be as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The name cannot be one.
    #[error(
        "{name:?} cannot be the name of a backup set: 1 to {NAME_MAX_BYTES} bytes without \"/\", \":\" and control characters, and not \"latest\""
    )]
    Name {
        /// The name.
        name: String,
    },
    /// No paths, or too many.
    #[error("a backup set has 1 to {SET_PATHS_MAX} paths")]
    PathCount,
    /// A path is not absolute, or leads upwards.
    #[error("{} is not an absolute path without \"..\"", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// There is nothing at a path.
    #[error("there is nothing at {}", .path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// A path lies within candor's own folder.
    #[error("{} is candor's own folder, which is never backed up", .path.display())]
    Home {
        /// The path.
        path: PathBuf,
    },
    /// A path is named twice, or lies within another one of the set.
    #[error("{} is in the set twice", .path.display())]
    Repeated {
        /// The path.
        path: PathBuf,
    },
    /// Another set of this device has exactly these paths.
    #[error("the set {name} has exactly these paths already")]
    SamePaths {
        /// Name of the other set.
        name: String,
    },
    /// Too many globs, or one that is too long.
    #[error(
        "a backup set has at most {SET_EXCLUDES_MAX} excludes of at most {EXCLUDE_MAX_BYTES} bytes"
    )]
    Excludes,
}

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct SetRequest {
    /// A name; `None` to make one out of the first path.
    pub name: Option<String>,
    /// The paths.
    pub paths: Vec<PathBuf>,
    /// The globs.
    pub excludes: Vec<String>,
}

/// Whether a text can be the name of a set.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&name.len())
        && name != LATEST
        && !name.starts_with('-')
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_control())
}

/// A name out of a path: its last part, with what a name may not hold replaced, and a number behind
/// it if others have that name.
pub(crate) fn derive_name(path: &Path, taken: impl Fn(&str) -> bool) -> String {
    /// Room that is left for a number behind the name, in bytes.
    const SUFFIX_BYTES: usize = 8;
    let last = path
        .file_name()
        .map_or_else(|| "root".into(), |name| name.to_string_lossy());
    let mut base = String::new();
    for c in last.chars() {
        let c = if c == ':' || c == '/' || c.is_control() {
            '_'
        } else {
            c
        };
        if base.len() + c.len_utf8() > NAME_MAX_BYTES - SUFFIX_BYTES {
            break;
        }
        base.push(c);
    }
    if !is_name(&base) {
        base = format!("set-{}", base.trim_start_matches('-'));
    }
    if !taken(&base) {
        return base;
    }
    (2_u32..)
        .map(|n| format!("{base}-{n}"))
        .find(|name| !taken(name))
        .unwrap_or(base)
}

/// Checks a request and makes the set of it. `others` are the sets that are there; `home` is
/// candor's own folder, without symlinks.
///
/// Of the file system, only whether the paths exist and where they really are is asked.
pub fn make(
    request: SetRequest,
    others: &[BackupSet],
    home: &Path,
    now: Millis,
) -> Result<BackupSet, SetError> {
    let SetRequest {
        name,
        paths,
        excludes,
    } = request;
    if paths.is_empty() || paths.len() > SET_PATHS_MAX {
        return Err(SetError::PathCount);
    }
    let too_long = excludes
        .iter()
        .any(|glob| glob.is_empty() || glob.len() > EXCLUDE_MAX_BYTES);
    if excludes.len() > SET_EXCLUDES_MAX || too_long {
        return Err(SetError::Excludes);
    }
    let mut clean: Vec<PathBuf> = Vec::with_capacity(paths.len());
    for path in paths {
        let tidy: PathBuf = path
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        if !tidy.is_absolute() || tidy.components().any(|part| part == Component::ParentDir) {
            return Err(SetError::Path { path });
        }
        let Ok(real) = tidy.canonicalize() else {
            return Err(SetError::Missing { path });
        };
        if real.starts_with(home) {
            return Err(SetError::Home { path });
        }
        if clean
            .iter()
            .any(|other| tidy.starts_with(other) || other.starts_with(&tidy))
        {
            return Err(SetError::Repeated { path });
        }
        clean.push(tidy);
    }
    if let Some(other) = others.iter().find(|set| set.paths == clean) {
        return Err(SetError::SamePaths {
            name: other.name.clone(),
        });
    }
    let taken = |name: &str| others.iter().any(|set| set.name == name);
    let name = match name {
        Some(name) if is_name(&name) => name,
        Some(name) => return Err(SetError::Name { name }),
        None => derive_name(&clean[0], taken),
    };
    Ok(BackupSet {
        name,
        vault: None,
        paths: clean,
        excludes,
        added: now,
        runs: RunState::default(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn ask(
        name: Option<&str>,
        paths: &[&Path],
        others: &[BackupSet],
    ) -> Result<BackupSet, SetError> {
        let request = SetRequest {
            name: name.map(str::to_owned),
            paths: paths.iter().map(|path| path.to_path_buf()).collect(),
            excludes: Vec::new(),
        };
        make(
            request,
            others,
            Path::new("/home/nobody/.candor"),
            Millis(0),
        )
    }

    #[test]
    fn names_are_derived_and_unique() {
        let folder = tempfile::tempdir().unwrap();
        let docs = folder.path().join("Documents:old");
        std::fs::create_dir(&docs).unwrap();
        let first = ask(None, &[&docs.join(".")], &[]).unwrap();
        assert_eq!(
            (first.name.as_str(), &first.paths),
            ("Documents_old", &vec![docs.clone()])
        );
        assert_eq!(
            ask(None, &[&docs], std::slice::from_ref(&first)),
            Err(SetError::SamePaths {
                name: "Documents_old".to_owned()
            })
        );
        let elsewhere = folder.path().join("elsewhere/Documents:old");
        std::fs::create_dir_all(&elsewhere).unwrap();
        let second = ask(None, &[&elsewhere], &[first]).unwrap();
        assert_eq!(second.name, "Documents_old-2");
        assert_eq!(ask(None, &[Path::new("/")], &[]).unwrap().name, "root");
        let dashes = folder.path().join("--all");
        std::fs::create_dir(&dashes).unwrap();
        assert_eq!(ask(None, &[&dashes], &[]).unwrap().name, "set-all");
    }

    #[test]
    fn what_cannot_be_a_set_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let path = folder.path();
        assert_eq!(ask(None, &[], &[]), Err(SetError::PathCount));
        for name in ["", "a/b", "a:b", "latest", "-x", "a\nb"] {
            assert!(
                matches!(ask(Some(name), &[path], &[]), Err(SetError::Name { .. })),
                "{name:?}"
            );
        }
        assert!(matches!(
            ask(None, &[Path::new("a")], &[]),
            Err(SetError::Path { .. })
        ));
        assert!(matches!(
            ask(None, &[&path.join("../x")], &[]),
            Err(SetError::Path { .. })
        ));
        assert!(matches!(
            ask(None, &[&path.join("none")], &[]),
            Err(SetError::Missing { .. })
        ));
        assert!(matches!(
            ask(None, &[path, &inside], &[]),
            Err(SetError::Repeated { .. })
        ));
        assert!(matches!(
            ask(None, &[&inside, path], &[]),
            Err(SetError::Repeated { .. })
        ));
        let real = path.canonicalize().unwrap();
        let request = SetRequest {
            name: None,
            paths: vec![inside],
            excludes: Vec::new(),
        };
        assert!(matches!(
            make(request, &[], &real, Millis(0)),
            Err(SetError::Home { .. })
        ));
    }
}
