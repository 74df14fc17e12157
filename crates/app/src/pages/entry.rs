//! How a browser gets in: a one-time token from a file that only its owner reads becomes a key in a strict cookie.
//!
//! The file `pages` in the device's folder (mode 0600) holds the port, the token that lets the next browser in, and the keys
//! of those that are in, so that a restart throws nobody out. Who can read it may use the pages; who can read it can read
//! the device's whole folder, too. A token that was used is replaced at once.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candor_client::{Entropy as _, SystemEntropy};
use candor_wire::ids::to_hex;
use candor_wire::time::DAY_MS;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::failure::{Doing as _, Outcome};
use crate::home;

/// The file's name.
const FILE: &str = "pages";

/// The version of the file.
const VERSION: u32 = 1;

/// Random bytes of a token and of a key: nobody guesses 256 bits.
const SECRET_BYTES: usize = 32;

/// Browsers that are in at one time; the one that came first goes when another comes.
const KEYS_MAX: usize = 16;

/// How long a browser is in, in milliseconds: a month, and then it is let in anew.
pub(super) const KEY_MAX_MS: i64 = 30 * DAY_MS;

/// Largest file, in bytes: four times what it holds at most.
const FILE_MAX_BYTES: u64 = 16 << 10;

/// What the file holds.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    version: u32,
    port: u16,
    token: String,
    keys: Vec<Key>,
}

/// A browser that is in.
#[derive(Clone, Serialize, Deserialize)]
struct Key {
    key: String,
    since_ms: i64,
}

/// Who is in, and who comes in next.
pub(super) struct Entry {
    path: PathBuf,
    kept: Mutex<Kept>,
}

fn secret() -> Outcome<String> {
    let mut bytes = [0; SECRET_BYTES];
    SystemEntropy
        .fill(&mut bytes)
        .doing(|| "draw random numbers".to_owned())?;
    Ok(to_hex(&bytes))
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

fn read(path: &Path) -> Option<Kept> {
    let text = home::read_small(path, FILE_MAX_BYTES).ok()?;
    let kept: Kept = serde_json::from_str(&text).ok()?;
    (kept.version == VERSION).then_some(kept)
}

/// The address that lets the next browser in, of the pages that `folder` belongs to.
pub(crate) fn address(folder: &Path) -> Option<String> {
    let kept = read(&folder.join(FILE)).filter(|kept| !kept.token.is_empty())?;
    Some(format!(
        "http://127.0.0.1:{}{}?token={}",
        kept.port,
        super::guard::ENTER,
        kept.token
    ))
}

impl Entry {
    /// Reads who was in. A file that cannot be used is replaced: everybody is let in anew.
    pub(super) fn open(folder: &Path, now_ms: i64) -> Outcome<Self> {
        let path = folder.join(FILE);
        let mut kept = match read(&path) {
            Some(kept) => kept,
            None => Kept {
                version: VERSION,
                port: 0,
                token: String::new(),
                keys: Vec::new(),
            },
        };
        kept.keys.retain(|key| is_fresh(key, now_ms));
        kept.token = secret()?;
        Ok(Self {
            path,
            kept: Mutex::new(kept),
        })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The port of the last time, 0 if there was none.
    pub(super) fn port(&self) -> u16 {
        self.kept().port
    }

    /// Writes down where the pages are.
    pub(super) fn set_port(&self, port: u16) -> Outcome {
        self.change(&mut self.kept(), |kept| kept.port = port)
    }

    /// On the disk first: a token that was used must never be good again, and nobody who was let out is in after a crash.
    fn change(&self, kept: &mut Kept, make: impl FnOnce(&mut Kept)) -> Outcome {
        let mut changed = kept.clone();
        make(&mut changed);
        self.save(&changed)?;
        *kept = changed;
        Ok(())
    }

    fn save(&self, kept: &Kept) -> Outcome {
        let text = serde_json::to_string(kept).doing(|| "write the pages' file".to_owned())?;
        home::replace_private(&self.path, text.as_bytes())
            .doing(|| format!("write {}", self.path.display()))
    }

    /// Lets a browser in for the token, once. `None` if that is not the token.
    /// `before` is a key that this browser has already, and that the new one takes the place of.
    pub(super) fn enter(
        &self,
        token: &str,
        before: Option<&str>,
        now_ms: i64,
    ) -> Outcome<Option<String>> {
        let mut kept = self.kept();
        if kept.token.is_empty() || !same(&kept.token, token) {
            return Ok(None);
        }
        let (key, next) = (secret()?, secret()?);
        self.change(&mut kept, |kept| {
            kept.token = next;
            kept.keys.retain(|known| {
                is_fresh(known, now_ms) && !before.is_some_and(|before| same(&known.key, before))
            });
            let surplus = (kept.keys.len() + 1).saturating_sub(KEYS_MAX);
            kept.keys.drain(..surplus);
            kept.keys.push(Key {
                key: key.clone(),
                since_ms: now_ms,
            });
        })?;
        Ok(Some(key))
    }

    /// Whether a browser with this key is in.
    pub(super) fn knows(&self, key: &str, now_ms: i64) -> bool {
        let kept = self.kept();
        // All are compared, so that the time says nothing of how many there are.
        kept.keys.iter().fold(false, |found, known| {
            found | (same(&known.key, key) & is_fresh(known, now_ms))
        })
    }

    /// How many browsers are in.
    pub(super) fn count(&self) -> usize {
        self.kept().keys.len()
    }

    /// Lets nobody in any more until the next start.
    pub(super) fn close(&self) -> Outcome {
        let mut kept = self.kept();
        kept.token.clear();
        self.save(&kept)
    }

    /// Lets a browser out; or all others.
    pub(super) fn leave(&self, key: &str, all_others: bool) -> Outcome {
        let others = |known: &Key| same(&known.key, key) == all_others;
        self.change(&mut self.kept(), |kept| kept.keys.retain(others))
    }
}

/// A clock that was set back makes nobody's key last longer.
fn is_fresh(key: &Key, now_ms: i64) -> bool {
    (0..KEY_MAX_MS).contains(&now_ms.saturating_sub(key.since_ms))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn token(folder: &Path) -> String {
        read(&folder.join(FILE)).unwrap().token
    }

    #[test]
    fn c05_a_token_lets_one_browser_in_once() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::open(folder.path(), 0).unwrap();
        entry.set_port(1).unwrap();
        let first = token(folder.path());
        let mode = fs::metadata(folder.path().join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(entry.enter("", None, 0).unwrap(), None);
        let key = entry.enter(&first, None, 0).unwrap().unwrap();
        assert!(entry.knows(&key, 1));
        assert!(!entry.knows(&first, 1), "the token is no key");
        assert_eq!(entry.enter(&first, None, 0).unwrap(), None, "it was used");
        let second = token(folder.path());
        assert_ne!(first, second);
        assert_ne!(entry.enter(&second, None, 0).unwrap().unwrap(), key);
        assert_eq!(entry.count(), 2);
    }

    #[test]
    fn a_restart_throws_nobody_out_and_makes_a_new_token() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::open(folder.path(), 0).unwrap();
        entry.set_port(7).unwrap();
        let before = token(folder.path());
        let key = entry.enter(&before, None, 0).unwrap().unwrap();
        let old = token(folder.path());
        let entry = Entry::open(folder.path(), 1).unwrap();
        assert_eq!(entry.port(), 7);
        entry.set_port(7).unwrap();
        assert!(entry.knows(&key, 1));
        assert_eq!(entry.enter(&old, None, 1).unwrap(), None);
        // A month later, and after the clock was set back, everybody is let in anew.
        for now in [KEY_MAX_MS, -1] {
            let entry = Entry::open(folder.path(), now).unwrap();
            assert_eq!((entry.count(), entry.knows(&key, now)), (0, false), "{now}");
        }
    }

    #[test]
    fn browsers_are_let_out_and_only_so_many_are_in() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::open(folder.path(), 0).unwrap();
        entry.set_port(1).unwrap();
        let mut keys = Vec::new();
        for _ in 0..=KEYS_MAX {
            let token = token(folder.path());
            keys.push(entry.enter(&token, None, 0).unwrap().unwrap());
        }
        assert_eq!(entry.count(), KEYS_MAX);
        assert!(!entry.knows(&keys[0], 1), "the first one made room");
        entry.leave(&keys[1], false).unwrap();
        assert!(!entry.knows(&keys[1], 1) && entry.knows(&keys[2], 1));
        entry.leave(&keys[2], true).unwrap();
        assert!(entry.knows(&keys[2], 1) && !entry.knows(&keys[3], 1));
        assert_eq!(
            Entry::open(folder.path(), 0).unwrap().count(),
            1,
            "on the disk, too"
        );
    }

    #[test]
    fn a_browser_that_comes_in_again_takes_no_second_place() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::open(folder.path(), 0).unwrap();
        entry.set_port(1).unwrap();
        let first = entry
            .enter(&token(folder.path()), None, 0)
            .unwrap()
            .unwrap();
        let second = entry
            .enter(&token(folder.path()), Some(&first), 0)
            .unwrap()
            .unwrap();
        assert_eq!(entry.count(), 1);
        assert!(entry.knows(&second, 0) && !entry.knows(&first, 0));
        // Once the program has ended nobody comes in, and nobody is told an address.
        entry.close().unwrap();
        assert_eq!(entry.enter("", None, 0).unwrap(), None);
        assert_eq!(address(folder.path()), None);
    }

    #[test]
    fn a_file_that_is_no_such_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{\"version\":9}").unwrap();
        let entry = Entry::open(folder.path(), 0).unwrap();
        assert_eq!((entry.port(), entry.count()), (0, 0));
        entry.set_port(3).unwrap();
        assert!(
            address(folder.path())
                .unwrap()
                .starts_with("http://127.0.0.1:3/enter?token=")
        );
    }
}
