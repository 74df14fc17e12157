//! Which entries a backup leaves out.
//!
//! Two sources of rules, both in the syntax of `.gitignore`: the patterns of the backup set, which
//! are relative to each source and decide first, and `.candorignore` files, which are relative to
//! the directory that holds them; a deeper file decides before a shallower one. `.gitignore`
//! itself is not honoured: what a person does not want in version control (keys, builds, notes) is
//! often what they most want back. Directories named by the caller, such as the program's own
//! home, are left out by identity, under whatever path they are reached.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::sys;

/// Name of the files that hold rules for their directory.
pub const IGNORE_FILE_NAME: &str = ".candorignore";

/// Longest rule file that is read, in bytes: thousands of lines; more is a mistake, and is reported.
pub const IGNORE_FILE_MAX_BYTES: usize = 1024 * 1024;

/// A rule that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The pattern is not a glob.
    #[error("the exclude pattern {pattern:?} cannot be understood")]
    Pattern {
        /// The pattern as it was given.
        pattern: String,
        /// What the glob parser says.
        #[source]
        source: ignore::Error,
    },
}

/// Rules of a backup set.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Patterns in the syntax of `.gitignore`, relative to each source.
    pub excludes: Vec<String>,
    /// Files and directories that are always left out with all that is below them: the program's
    /// own home. Those that do not exist are passed over.
    pub never: Vec<PathBuf>,
    /// Do not enter directories on another file system than their source.
    pub one_file_system: bool,
}

impl Rules {
    /// Checks the patterns without running anything.
    pub fn check(&self) -> Result<(), RulesError> {
        Matcher::new(self, Path::new("/")).map(|_| ())
    }
}

/// Rules bound to one source.
#[derive(Debug)]
pub(crate) struct Matcher {
    excludes: Option<Gitignore>,
    never: Vec<(u64, u64)>,
    stack: Vec<(usize, Gitignore)>,
}

impl Matcher {
    /// Binds the rules to a source. `never` is resolved now, to the identity of what is there.
    pub(crate) fn new(rules: &Rules, source: &Path) -> Result<Self, RulesError> {
        let mut builder = GitignoreBuilder::new(source);
        for pattern in &rules.excludes {
            builder
                .add_line(None, pattern)
                .map_err(|source| RulesError::Pattern {
                    pattern: pattern.clone(),
                    source,
                })?;
        }
        let built = builder.build().map_err(|source| RulesError::Pattern {
            pattern: rules.excludes.join("\n"),
            source,
        })?;
        let never = rules
            .never
            .iter()
            .filter_map(|path| sys::status(rustix::fs::CWD, path.as_path()).ok())
            .map(|status| (status.device, status.inode))
            .collect();
        Ok(Self {
            excludes: (!built.is_empty()).then_some(built),
            never,
            stack: Vec::new(),
        })
    }

    /// Adds the rules of a `.candorignore` file found at `depth` in `directory`. Lines that cannot
    /// be understood are counted and passed over.
    pub(crate) fn enter(&mut self, depth: usize, directory: &Path, file: &[u8]) -> usize {
        let mut builder = GitignoreBuilder::new(directory);
        let mut bad = 0;
        for line in file.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match std::str::from_utf8(line) {
                Ok(line) => bad += usize::from(builder.add_line(None, line).is_err()),
                Err(_) => bad += 1,
            }
        }
        match builder.build() {
            Ok(rules) if !rules.is_empty() => self.stack.push((depth, rules)),
            Ok(_) => {}
            Err(_) => bad += 1,
        }
        bad
    }

    /// Forgets the rules of the directory at `depth`.
    pub(crate) fn leave(&mut self, depth: usize) {
        while self.stack.last().is_some_and(|(at, _)| *at >= depth) {
            self.stack.pop();
        }
    }

    /// Whether this very file or directory is left out whatever the patterns say.
    pub(crate) fn is_never(&self, status: &sys::Status) -> bool {
        self.never.contains(&(status.device, status.inode))
    }

    /// Whether the patterns leave out the entry `name` of `directory`.
    pub(crate) fn excludes(&self, directory: &Path, name: &[u8], is_directory: bool) -> bool {
        if self.excludes.is_none() && self.stack.is_empty() {
            return false;
        }
        let path = directory.join(OsStr::from_bytes(name));
        let rules = self
            .excludes
            .iter()
            .chain(self.stack.iter().rev().map(|(_, rules)| rules));
        for rules in rules {
            match rules.matched(&path, is_directory) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns_of_the_set_decide_before_files_and_deep_files_before_shallow_ones() {
        let rules = Rules {
            excludes: vec!["*.tmp".into(), "/build".into()],
            ..Rules::default()
        };
        let mut matcher = Matcher::new(&rules, Path::new("/s")).unwrap();
        assert!(matcher.excludes(Path::new("/s/a"), b"x.tmp", false));
        assert!(matcher.excludes(Path::new("/s"), b"build", true));
        assert!(!matcher.excludes(Path::new("/s/a"), b"build", true));
        assert_eq!(
            matcher.enter(0, Path::new("/s"), b"*.log\r\n# comment\n"),
            0
        );
        assert_eq!(matcher.enter(1, Path::new("/s/a"), b"!keep.log\n"), 0);
        assert!(matcher.excludes(Path::new("/s/a"), b"x.log", false));
        assert!(!matcher.excludes(Path::new("/s/a"), b"keep.log", false));
        matcher.leave(1);
        assert!(matcher.excludes(Path::new("/s/a"), b"keep.log", false));
        matcher.leave(0);
        assert!(!matcher.excludes(Path::new("/s"), b"x.log", false));
    }

    #[test]
    fn a_pattern_that_is_no_glob_is_an_error_of_its_own() {
        let rules = Rules {
            excludes: vec!["[z-a]".into()],
            ..Rules::default()
        };
        assert!(
            matches!(rules.check(), Err(RulesError::Pattern { pattern, .. }) if pattern == "[z-a]")
        );
    }

    #[test]
    fn names_that_are_not_unicode_match_patterns() {
        let rules = Rules {
            excludes: vec!["*.o".into()],
            ..Rules::default()
        };
        let matcher = Matcher::new(&rules, Path::new("/s")).unwrap();
        assert!(matcher.excludes(Path::new("/s"), b"\xff.o", false));
    }
}
