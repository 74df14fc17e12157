//! Moves what is committed from the write-ahead log into the database, beside the writer.
//!
//! By itself SQLite does this within the commit that made the log long, and everybody's next write waits for a sync of
//! the whole database. Here a thread of its own does it. While it copies, the writer goes on, so that its log never
//! ends just there and would grow for ever: so the writer finishes each round, which is little by then, and the log
//! begins again at its beginning.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rusqlite::Connection;

/// By how much the log grows between two rounds, in pages: 4 MiB, as SQLite does it by itself.
const ROUND_PAGES: i32 = 1000;

/// From this length on the writer finishes a round, whatever is left to do, in pages: 64 MiB. It comes to that only
/// where the disk does not keep up.
const LONG_PAGES: i32 = 16 * 1024;

/// What the writer and the thread tell each other.
#[derive(Debug, Default)]
struct State {
    /// Length of the log after the last commit, in pages, with what was moved already.
    pages: AtomicI32,
    /// The thread did a round that the writer has not finished.
    is_copied: AtomicBool,
}

/// The thread. It ends with this value.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    wake: Option<SyncSender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    state: Arc<State>,
    /// Length of the log when the last round began, in pages.
    begun_pages: i32,
}

impl Checkpoints {
    /// Starts the thread over a connection of its own, for a log that grows by the commits of `writer`.
    pub(crate) fn start(beside: Connection, writer: &mut Connection) -> rusqlite::Result<Self> {
        let state = Arc::<State>::default();
        let (told, copied) = (Arc::clone(&state), Arc::clone(&state));
        // Takes the place of the moving that SQLite does by itself.
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            told.pages.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        let (wake, waiting) = sync_channel(1);
        let thread = thread::Builder::new()
            .name(String::from("records-checkpoints"))
            .spawn(move || {
                while waiting.recv().is_ok() {
                    // What fails is tried again in the next round; the log holds everything until then.
                    let _ = checkpoint(&beside);
                    copied.is_copied.store(true, Ordering::Release);
                }
            });
        Ok(Self {
            wake: Some(wake),
            // Without the thread the writer does all of it, when the log is long.
            thread: thread.ok(),
            state,
            begun_pages: 0,
        })
    }

    /// After a group of writes, on the writer's thread and connection.
    pub(crate) fn committed(&mut self, writer: &Connection) {
        let pages = self.state.pages.load(Ordering::Relaxed);
        if pages < self.begun_pages {
            // It began again at its beginning.
            self.begun_pages = 0;
        }
        if self.state.is_copied.swap(false, Ordering::Acquire) || pages >= LONG_PAGES {
            let _ = checkpoint(writer);
            self.begun_pages = pages;
        } else if pages >= self.begun_pages + ROUND_PAGES
            && let Some(wake) = &self.wake
        {
            self.begun_pages = pages;
            // A round that still runs need not be begun.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread leaves the log as it is.
            let _ = thread.join();
        }
    }
}

/// Copies as much as nobody still reads.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    /// Pages that each commit of the test adds at least.
    const COMMIT_PAGES: i32 = 32;

    #[test]
    fn a_log_that_grows_all_the_time_begins_again() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let connection = Connection::open(directory.path().join("some.sqlite")).unwrap();
            connection
                .pragma_update(None, "journal_mode", "WAL")
                .unwrap();
            connection
        };
        let mut writer = open();
        writer.execute_batch("CREATE TABLE some (bytes)").unwrap();
        let mut checkpoints = Checkpoints::start(open(), &mut writer).unwrap();
        let mut longest = 0;
        let mut begun_again = false;
        for _ in 0..2000 {
            writer
                .execute(
                    "INSERT INTO some VALUES (zeroblob(?1))",
                    [COMMIT_PAGES * 4096],
                )
                .unwrap();
            let pages = checkpoints.state.pages.load(Ordering::Relaxed);
            begun_again |= pages < longest;
            longest = longest.max(pages);
            checkpoints.committed(&writer);
            if begun_again {
                break;
            }
            if longest > ROUND_PAGES {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(begun_again, "{longest} pages");
        assert!(longest >= ROUND_PAGES, "{longest} pages");
        drop(checkpoints);
        let kept: i64 = writer
            .query_row("SELECT count(*) FROM some", [], |row| row.get(0))
            .unwrap();
        assert!(kept >= i64::from(longest / (2 * COMMIT_PAGES)));
    }
}
