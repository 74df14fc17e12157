//! Watching a synced folder: which of its folders changed since somebody asked last.
//!
//! What the watcher cannot tell, because events were lost or because the system has no room for more watches, is told as
//! "any of them", and found by a look at everything.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candor_vault::sync::{Dirty, OWN_FOLDER};
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind};
use notify::{RecursiveMode, Watcher as _};

use crate::engine::lock;

/// A new folder is looked into once more after this time: files that were made in it before the system watched it were
/// not told.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(2);

/// Most folders that wait for their second look; with more, everything is looked at.
const LATER_MAX: usize = 10_000;

/// Name of the files that hold rules: what they change may be anywhere below.
const RULES_FILE: &str = ".candorignore";

/// What happened since it was asked for last.
#[derive(Debug, Default)]
struct News {
    dirty: Dirty,
    /// When the first and the newest of it came.
    since: Option<(Instant, Instant)>,
    /// Folders to be looked into again, and when.
    later: Vec<(Instant, Vec<u8>)>,
    is_woken: bool,
}

/// Where news of a folder come together: from the watcher, from the cell, from whoever stops it.
#[derive(Debug, Default)]
pub(crate) struct Board {
    news: Mutex<News>,
    changed: Condvar,
}

impl Board {
    /// Something else happened: whoever waits looks for itself.
    pub(crate) fn wake(&self) {
        lock(&self.news).is_woken = true;
        self.changed.notify_all();
    }

    /// Folders changed.
    pub(crate) fn add(&self, dirty: Dirty) {
        if dirty.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut news = lock(&self.news);
        news.dirty.extend(dirty);
        news.since = Some((news.since.map_or(now, |(first, _)| first), now));
        drop(news);
        self.changed.notify_all();
    }

    /// Waits until somebody woke it, or until changes came and paused for `quiet`, or went on for `most` of this wait; at
    /// most for `limit`. Returns the changes.
    pub(crate) fn wait(&self, quiet: Duration, most: Duration, limit: Duration) -> Dirty {
        let began = Instant::now();
        let end = began + limit;
        let mut news = lock(&self.news);
        loop {
            let now = Instant::now();
            let due: Vec<Vec<u8>> = {
                let later = std::mem::take(&mut news.later);
                let (due, rest): (Vec<_>, Vec<_>) =
                    later.into_iter().partition(|(time, _)| *time <= now);
                news.later = rest;
                due.into_iter().map(|(_, path)| path).collect()
            };
            if !due.is_empty() {
                news.dirty.extend(Dirty::Folders(due.into_iter().collect()));
                news.since.get_or_insert((now, now));
            }
            let ready = news
                .since
                .map(|(first, newest)| (newest + quiet).min(first.max(began) + most));
            let is_ready = ready.is_some_and(|time| time <= now);
            if news.is_woken || is_ready || now >= end {
                news.is_woken = false;
                news.since = None;
                return std::mem::take(&mut news.dirty);
            }
            let next = news.later.iter().map(|(time, _)| *time).min();
            let until = [ready, next].into_iter().flatten().fold(end, Instant::min);
            let waited = self
                .changed
                .wait_timeout(news, until.saturating_duration_since(now));
            news = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What came until now, without waiting for more.
    pub(crate) fn take_all(&self) -> Dirty {
        let mut news = lock(&self.news);
        news.since = None;
        std::mem::take(&mut news.dirty)
    }

    /// Has a folder looked into, with everything below it, once the system watches it for certain.
    fn look_later(&self, folder: Vec<u8>) {
        let mut news = lock(&self.news);
        if news.later.len() < LATER_MAX {
            news.later
                .push((Instant::now() + SECOND_LOOK_AFTER, folder));
        } else {
            news.dirty = Dirty::All;
        }
    }

    /// Takes up what the watcher tells.
    fn take(&self, top: &Path, event: notify::Result<notify::Event>) {
        let Ok(event) = event else {
            return self.add(Dirty::All);
        };
        if event.need_rescan() {
            return self.add(Dirty::All);
        }
        let is_change = match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        };
        if !is_change {
            return;
        }
        let mut folders = BTreeSet::new();
        for path in &event.paths {
            let Some(relative) = within(top, path) else {
                continue;
            };
            if path.file_name().is_some_and(|name| name == RULES_FILE) {
                return self.add(Dirty::All);
            }
            let end = relative.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            folders.insert(relative[..end].to_vec());
            let is_new = event.kind == EventKind::Create(CreateKind::Folder);
            let is_move = matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)));
            let is_folder = || std::fs::symlink_metadata(path).is_ok_and(|status| status.is_dir());
            if is_new || (is_move && is_folder()) {
                let mut with_all = relative;
                with_all.push(b'/');
                if is_move {
                    folders.insert(with_all.clone());
                }
                self.look_later(with_all);
            }
        }
        self.add(Dirty::Folders(folders));
    }
}

/// The path from a folder's top, as the merge names it. `None`: it is the top itself, elsewhere, or in the hidden folder.
fn within(top: &Path, path: &Path) -> Option<Vec<u8>> {
    let relative = path.strip_prefix(top).ok()?;
    if relative.as_os_str().is_empty() || relative.starts_with(OWN_FOLDER) {
        return None;
    }
    Some(relative.as_os_str().as_bytes().to_vec())
}

/// A folder that is watched, until this is dropped.
pub(crate) struct Watch {
    _watcher: notify::RecommendedWatcher,
}

impl Watch {
    /// Begins to watch. What changed before has to be found by a look at everything.
    pub(crate) fn begin(top: &Path, board: &Arc<Board>) -> notify::Result<Self> {
        let (folder, news): (PathBuf, Arc<Board>) = (top.to_owned(), Arc::clone(board));
        // A link is synced as what it is: what it leads to is not in the folder.
        let config = notify::Config::default().with_follow_symlinks(false);
        let take = move |event| news.take(&folder, event);
        let mut watcher = notify::RecommendedWatcher::new(take, config)?;
        watcher.watch(top, RecursiveMode::Recursive)?;
        Ok(Self { _watcher: watcher })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(30);

    fn folders(names: &[&str]) -> Dirty {
        Dirty::Folders(names.iter().map(|name| name.as_bytes().to_vec()).collect())
    }

    #[test]
    fn changes_are_told_by_the_folder_that_they_are_in() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("a/b")).unwrap();
        std::fs::create_dir(top.path().join(OWN_FOLDER)).unwrap();
        let board = Arc::new(Board::default());
        let _watch = Watch::begin(top.path(), &board).unwrap();
        std::fs::write(top.path().join(OWN_FOLDER).join("x.part"), b"x").unwrap();
        std::fs::write(top.path().join("a/b/file"), b"one").unwrap();
        assert_eq!(board.wait(SHORT, LONG, LONG), folders(&["a/b"]));
        std::fs::rename(top.path().join("a/b/file"), top.path().join("file")).unwrap();
        assert_eq!(board.wait(SHORT, LONG, LONG), folders(&["", "a/b"]));
        // A new folder is looked into twice.
        std::fs::create_dir(top.path().join("a/new")).unwrap();
        assert_eq!(board.wait(SHORT, LONG, LONG), folders(&["a"]));
        assert_eq!(board.wait(SHORT, LONG, LONG), folders(&["a/new/"]));
        // What a link leads to is not in the folder.
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), top.path().join("link")).unwrap();
        assert_eq!(board.wait(SHORT, LONG, LONG), folders(&[""]));
        let _again = Watch::begin(top.path(), &board).unwrap();
        std::fs::write(outside.path().join("x"), b"x").unwrap();
        assert!(board.wait(SHORT, SHORT, 4 * SHORT).is_empty());
        // Rules may change anything.
        std::fs::write(top.path().join("a/.candorignore"), b"*.o\n").unwrap();
        assert_eq!(board.wait(SHORT, LONG, LONG), Dirty::All);
    }

    #[test]
    fn a_wake_up_ends_the_waiting_and_time_does() {
        let board = Arc::new(Board::default());
        assert!(board.wait(SHORT, LONG, SHORT).is_empty());
        let other = Arc::clone(&board);
        let waking = std::thread::spawn(move || other.wake());
        let began = Instant::now();
        assert!(board.wait(SHORT, LONG, LONG).is_empty());
        assert!(began.elapsed() < LONG);
        waking.join().unwrap();
    }

    #[test]
    fn changes_without_a_pause_are_not_waited_for_for_ever() {
        let board = Arc::new(Board::default());
        let other = Arc::clone(&board);
        let busy = std::thread::spawn(move || {
            for _ in 0..100 {
                other.add(folders(&["a"]));
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let began = Instant::now();
        let most = Duration::from_millis(200);
        assert_eq!(
            board.wait(Duration::from_secs(5), most, LONG),
            folders(&["a"])
        );
        assert!(began.elapsed() < Duration::from_secs(5));
        busy.join().unwrap();
    }
}
