//! Following folders: a thread for each that is on, which waits for changes here and for news from the cell, and brings
//! both into step.
//!
//! News come over a request that waits at the cell until the vault's head moved ([`crate::api::Api::wait_head`]). It is
//! made under the folder's grant and ends with it. What it answers is only a reason to look: the round reads and
//! checks the head itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use candor_consent::Sync;
use candor_vault::report::Cancel;
use candor_vault::sync::Dirty;
use candor_wire::VaultId;

use crate::commands::{Failure, FailureKind, SyncedView};
use crate::device_store::SyncedFolder;
use crate::engine::Engine;
use crate::events::Events;
use crate::sync_watch::{Board, Watch};

/// Changes are taken up after a pause of this length: an editor writes a file in a few steps.
const PAUSE: Duration = Duration::from_millis(20);

/// Changes that do not pause are taken up after this time.
const PAUSE_AWAITED_MAX: Duration = Duration::from_millis(250);

/// The longest that a folder waits before it looks at everything again, whatever the watcher told.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);

/// The same without a watcher.
const LOOK_EVERY_UNWATCHED: Duration = Duration::from_secs(60);

/// How soon a folder that was added, switched on or paused is noticed.
const SUPERVISE_EVERY: Duration = Duration::from_secs(1);

/// First and longest wait after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Wait before a round that follows one under whose hands files changed.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A cell that answers at once without news is asked again after this time.
const NO_NEWS_PAUSE: Duration = Duration::from_secs(2);

/// What is told of a folder that is followed.
#[derive(Debug, Clone)]
pub enum Followed {
    /// A round that changed something.
    Synced(SyncedView),
    /// A round failed; it is tried again.
    Failed {
        /// Name of the folder.
        folder: String,
        /// Why.
        failure: Box<Failure>,
    },
    /// Tampering was found: the folder is not touched any more until this program is started again.
    Halted {
        /// Name of the folder.
        folder: String,
        /// What was found.
        failure: Box<Failure>,
    },
    /// The system cannot watch the folder; it is looked at every minute.
    Unwatched {
        /// Name of the folder.
        folder: String,
        /// Why.
        reason: String,
    },
}

/// One folder that is followed, as its thread sees it.
struct Follower<'e> {
    engine: &'e Engine,
    folder: SyncedFolder,
    vault: VaultId,
    board: Arc<Board>,
    stop: Cancel,
    /// The counter of the newest head that a round has seen.
    seen: AtomicU64,
    is_over: AtomicBool,
}

/// Whether a folder may be followed now.
fn is_on(engine: &Engine, folder: &SyncedFolder) -> bool {
    !folder.is_paused && matches!(engine.grant_in::<Sync>(folder.vault), Ok(Ok(_)))
}

impl Engine {
    /// Follows every folder that is on until `cancel` is thrown. Blocks; what happens is told to `tell`.
    pub fn follow_folders(&self, tell: &(dyn Fn(Followed) + core::marker::Sync), cancel: &Cancel) {
        std::thread::scope(|scope| {
            let mut running: BTreeMap<
                String,
                (Arc<Follower<'_>>, std::thread::ScopedJoinHandle<'_, bool>),
            > = BTreeMap::new();
            let mut halted: Vec<String> = Vec::new();
            while !cancel.is_cancelled() {
                let folders = self.store().folders().unwrap_or_default();
                let wanted: Vec<SyncedFolder> = folders
                    .into_iter()
                    .filter(|folder| is_on(self, folder) && !halted.contains(&folder.name))
                    .collect();
                for (name, (follower, _)) in &running {
                    if !wanted.iter().any(|folder| folder.name == *name) {
                        follower.end();
                    }
                }
                let ended: Vec<String> = running
                    .iter()
                    .filter(|(_, (_, thread))| thread.is_finished())
                    .map(|(name, _)| name.clone())
                    .collect();
                for name in ended {
                    if let Some((_, thread)) = running.remove(&name)
                        && !thread.join().unwrap_or(false)
                    {
                        halted.push(name);
                    }
                }
                for folder in wanted {
                    let Some(vault) = folder.vault.filter(|_| !running.contains_key(&folder.name))
                    else {
                        continue;
                    };
                    let name = folder.name.clone();
                    let follower = Arc::new(Follower {
                        engine: self,
                        folder,
                        vault,
                        board: Arc::default(),
                        stop: Cancel::default(),
                        seen: AtomicU64::new(0),
                        is_over: AtomicBool::new(false),
                    });
                    let own = Arc::clone(&follower);
                    let thread = scope.spawn(move || {
                        let is_well = own.follow(tell);
                        own.end();
                        is_well
                    });
                    let own = Arc::clone(&follower);
                    scope.spawn(move || own.listen());
                    running.insert(name, (follower, thread));
                }
                std::thread::sleep(SUPERVISE_EVERY);
            }
            for (follower, _) in running.values() {
                follower.end();
            }
        });
    }
}

impl Follower<'_> {
    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.stop.cancel();
        self.board.wake();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Rounds, as long as the folder is on. `false`: tampering was found.
    fn follow(&self, tell: &(dyn Fn(Followed) + core::marker::Sync)) -> bool {
        let name = || self.folder.name.clone();
        let watch = Watch::begin(&self.folder.path, &self.board);
        if let Err(error) = &watch {
            let reason = error.to_string();
            let folder = name();
            tell(Followed::Unwatched { folder, reason });
        }
        let look_every = if watch.is_ok() {
            LOOK_EVERY
        } else {
            LOOK_EVERY_UNWATCHED
        };
        let mut dirty = Dirty::All;
        let mut looked = Instant::now();
        let mut retry = RETRY_FIRST;
        let mut told: Option<String> = None;
        while !self.is_over() {
            if matches!(dirty, Dirty::All) {
                looked = Instant::now();
            }
            let result =
                self.engine
                    .sync_round(&self.folder, dirty.clone(), &Events::unheard(), &self.stop);
            match result {
                Ok(outcome) => {
                    (retry, told) = (RETRY_FIRST, None);
                    let mut view = SyncedView {
                        folder: name(),
                        problems: outcome.problems.count(),
                        ..SyncedView::default()
                    };
                    view.add(&outcome);
                    if view.has_news() {
                        tell(Followed::Synced(view));
                    }
                    self.note_seen();
                    dirty = outcome.again;
                    if !dirty.is_empty() {
                        std::thread::sleep(AGAIN_AFTER);
                        dirty.extend(self.board.wait(
                            Duration::ZERO,
                            Duration::ZERO,
                            Duration::ZERO,
                        ));
                        continue;
                    }
                }
                Err(failure) => {
                    let failure = self.engine.alarmed(failure);
                    if self.is_over() {
                        return true;
                    }
                    if failure.kind == FailureKind::Integrity {
                        let (folder, failure) = (name(), Box::new(failure));
                        tell(Followed::Halted { folder, failure });
                        return false;
                    }
                    if failure.kind == FailureKind::NoConsent {
                        return true;
                    }
                    if told.as_ref() != Some(&failure.sentence) {
                        told = Some(failure.sentence.clone());
                        let (folder, failure) = (name(), Box::new(failure));
                        tell(Followed::Failed { folder, failure });
                    }
                    let more = self.board.wait(retry, retry, retry);
                    dirty.extend(more);
                    retry = (retry * 2).min(RETRY_MAX);
                    continue;
                }
            }
            let limit = look_every.saturating_sub(looked.elapsed());
            dirty = self.board.wait(PAUSE, PAUSE_AWAITED_MAX, limit);
            if looked.elapsed() >= look_every {
                dirty = Dirty::All;
            }
        }
        true
    }

    /// Remembers which head the round ended with.
    fn note_seen(&self) {
        let heads = self.engine.memory.heads();
        if let Some(head) = heads.iter().find(|head| head.vault == self.vault) {
            self.seen.store(head.counter, Ordering::Relaxed);
        }
    }

    /// Waits at the cell for news, again and again.
    fn listen(&self) {
        let mut retry = RETRY_FIRST;
        while !self.is_over() {
            let began = Instant::now();
            match self.await_news() {
                Ok(Some(counter)) if counter > self.seen.load(Ordering::Relaxed) => {
                    retry = RETRY_FIRST;
                    self.board.wake();
                    self.await_round(counter);
                }
                Ok(_) => {
                    retry = RETRY_FIRST;
                    if began.elapsed() < NO_NEWS_PAUSE {
                        self.rest(NO_NEWS_PAUSE);
                    }
                }
                Err(_) => {
                    // The round that follows tells what is wrong, if it is still wrong then.
                    self.rest(retry);
                    retry = (retry * 2).min(RETRY_MAX);
                    self.board.wake();
                }
            }
        }
    }

    fn rest(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.is_over() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100).min(time));
        }
    }

    /// Gives the round time to take the news up, so that they are not asked for again at once.
    fn await_round(&self, counter: u64) {
        let end = Instant::now() + NO_NEWS_PAUSE;
        while !self.is_over() && self.seen.load(Ordering::Relaxed) < counter && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The counter of the head that the cell shows once it is another one than the round saw.
    fn await_news(&self) -> Result<Option<u64>, Failure> {
        let engine = self.engine;
        let grant = engine.grant_in::<Sync>(Some(self.vault))??;
        let api = engine.open_api(Box::new(grant))?;
        let after = self.seen.load(Ordering::Relaxed);
        let account = engine.facts.account;
        let head = engine.runtime.block_on(async {
            let waiting = api.wait_head(account, self.vault, after);
            tokio::pin!(waiting);
            loop {
                let pause = tokio::time::sleep(Duration::from_millis(500));
                tokio::select! {
                    done = &mut waiting => return done.map(Some),
                    () = pause => if self.is_over() { return Ok(None) },
                }
            }
        })?;
        let Some(Some(signed)) = head else {
            return Ok(None);
        };
        let view = engine.view()?;
        let key_of = |device: &_| {
            view.device(device)
                .map(|entry| entry.added.signing.ed25519())
        };
        // One that a device signed of which this one has not heard yet is news all the same.
        Ok(match signed.verify(&account, &self.vault, key_of) {
            Ok(head) => Some(head.counter),
            Err(_) => Some(u64::MAX),
        })
    }
}

impl SyncedView {
    /// Whether anything happened.
    fn has_news(&self) -> bool {
        let counts = [
            self.sent,
            self.received,
            self.removed,
            self.moved,
            self.conflicts,
            self.problems,
        ];
        counts.iter().any(|count| *count > 0)
    }
}
