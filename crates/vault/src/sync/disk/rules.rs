//! What a synced folder leaves out: patterns of this device, and `.candorignore` files on the way to a name.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::rules::{IGNORE_FILE_MAX_BYTES, IGNORE_FILE_NAME};
use crate::sync::SyncError;
use crate::sys::{self, FileKind};

/// The rules of one folder. Read once for each round.
pub(super) struct FolderRules {
    excludes: Option<Gitignore>,
    files: HashMap<Vec<u8>, Option<Rc<Gitignore>>>,
    /// The rules on the way to the folder that was asked for last, the deepest first.
    current: Option<(Vec<u8>, Vec<Rc<Gitignore>>)>,
}

impl FolderRules {
    pub(super) fn new(excludes: &[String]) -> Result<Self, SyncError> {
        let refuse = |error: ignore::Error| SyncError::Folder {
            reason: format!("a pattern cannot be understood: {error}"),
            source: None,
        };
        let mut builder = GitignoreBuilder::new("/");
        for pattern in excludes {
            builder.add_line(None, pattern).map_err(refuse)?;
        }
        let built = builder.build().map_err(refuse)?;
        Ok(Self {
            excludes: (!built.is_empty()).then_some(built),
            files: HashMap::new(),
            current: None,
        })
    }

    /// Whether the rules leave out a name. Patterns are matched against the path from the folder's top.
    pub(super) fn hides(&mut self, top: &OwnedFd, at: &[u8], name: &[u8], is_folder: bool) -> bool {
        if self.current.as_ref().is_none_or(|(path, _)| path != at) {
            let rules = self.rules_at(top, at);
            self.current = Some((at.to_vec(), rules));
        }
        let Some((_, rules)) = &self.current else {
            return false;
        };
        if self.excludes.is_none() && rules.is_empty() {
            return false;
        }
        let mut path = b"/".to_vec();
        path.extend_from_slice(&crate::sync::folder::join(at, name));
        let path = Path::new(OsStr::from_bytes(&path));
        for rules in self
            .excludes
            .iter()
            .chain(rules.iter().map(|rules| &**rules))
        {
            match rules.matched(path, is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }

    fn rules_at(&mut self, top: &OwnedFd, at: &[u8]) -> Vec<Rc<Gitignore>> {
        let mut rules = Vec::new();
        let mut path = at;
        loop {
            let found = match self.files.get(path) {
                Some(found) => found.clone(),
                None => {
                    let read = read_rules(top, path).map(Rc::new);
                    self.files.insert(path.to_vec(), read.clone());
                    read
                }
            };
            rules.extend(found);
            if path.is_empty() {
                return rules;
            }
            let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            path = &path[..end];
        }
    }
}

/// Reads the rules of one folder. Lines that cannot be understood are passed over.
fn read_rules(top: &OwnedFd, at: &[u8]) -> Option<Gitignore> {
    let file = crate::sync::folder::join(at, IGNORE_FILE_NAME.as_bytes());
    let file = sys::open_file_beneath(top, file.as_slice()).ok()?;
    let status = sys::status_of(&file).ok()?;
    if status.kind != FileKind::File || status.size > IGNORE_FILE_MAX_BYTES as u64 {
        return None;
    }
    let mut text = vec![0; usize::try_from(status.size).ok()?];
    let length = sys::read_at(&file, &mut text, 0).ok()?;
    let mut directory = b"/".to_vec();
    directory.extend_from_slice(at);
    let mut builder = GitignoreBuilder::new(OsStr::from_bytes(&directory));
    for line in text[..length].split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Ok(line) = std::str::from_utf8(line) {
            let _ = builder.add_line(None, line);
        }
    }
    builder.build().ok().filter(|rules| !rules.is_empty())
}
