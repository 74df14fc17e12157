//! Following folders: a thread for each that is on, which waits for changes here and for news from the cell, and brings
//! both into step.
//!
//! News come over a request that waits at the cell until the vault's head moved ([`crate::api::Api::wait_head`]). It is
//! made under the folder's grant and ends with it. What it answers is only a reason to look: the round reads and
//! checks the head itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use candor_consent::Sync;
use candor_vault::report::Cancel;
use candor_vault::sync::{Dirty, ROUND_STACK_BYTES};
use candor_wire::{StatementId, VaultId};
use tokio::sync::Notify;

use crate::api::Api;
use crate::commands::{Failure, FailureKind, SyncedView};
use crate::device_store::SyncedFolder;
use crate::engine::Engine;
use crate::events::Events;
use crate::forget_flow::Effort;
use crate::sync_flow::PART_MIN;
use crate::sync_watch::{Board, Watch};

/// Changes are taken up after a pause of this length: an editor writes a file in a few steps.
const PAUSE: Duration = Duration::from_millis(20);

/// Changes that do not pause are taken up after this time.
const PAUSE_AWAITED_MAX: Duration = Duration::from_millis(250);

/// The longest that a folder waits before it looks at everything again, whatever the watcher told.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);

/// The same without a watcher.
const LOOK_EVERY_UNWATCHED: Duration = Duration::from_secs(60);

/// After how many heads the device that moved the last of them prunes. Each head leaves a manifest behind, and thinned
/// versions leave their content; this many are some tens of megabytes.
const PRUNE_EVERY_HEADS: u64 = 512;

/// How soon a folder that was added, switched on or paused is noticed.
const SUPERVISE_EVERY: Duration = Duration::from_secs(1);

/// First and longest wait after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Wait before a round that follows one under whose hands files changed. It doubles as long as that goes on.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// After so many such rounds in a row it is told.
const AGAIN_TOLD_AFTER: u32 = 6;

/// Changes that do not pause for a long time are taken up less and less often, down to this.
const PAUSE_AWAITED_BUSY: Duration = Duration::from_secs(4);

/// The most folders that are looked at in one round: what a round holds in memory grows with what changed in them.
const FOLDERS_PER_ROUND_MAX: usize = 2048;

/// How many times as long as the last round a folder rests at least.
const RESTS_PER_ROUND: u32 = 3;

/// The longest such rest.
const REST_MAX: Duration = Duration::from_secs(2);

/// A consent that the cell refused is tried again after this time.
const REFUSED_AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);

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

/// Why a folder is not followed any more.
enum End {
    /// It was switched off, paused, or this program ends.
    Over,
    /// The cell refuses its consent.
    Refused(Option<StatementId>),
    /// Tampering was found.
    Halted,
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
    /// Ends the wait for news.
    over: Notify,
}

/// Threads end together, however one of them ends.
struct EndBoth<'f, 'e>(&'f Follower<'e>);

impl Drop for EndBoth<'_, '_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The consent under which a folder may be followed now.
fn consent_of(engine: &Engine, folder: &SyncedFolder) -> Option<StatementId> {
    match engine.grant_in::<Sync>(folder.vault) {
        Ok(Ok(grant)) if !folder.is_paused => Some(grant.id()),
        _ => None,
    }
}

/// A folder that is followed, and its thread.
type Running<'scope, 'e> = (
    Arc<Follower<'e>>,
    std::thread::ScopedJoinHandle<'scope, End>,
);

/// Which folders are not followed for now, and why.
#[derive(Default)]
struct Shunned {
    halted: BTreeSet<String>,
    refused: BTreeMap<String, (Option<StatementId>, Instant)>,
}

impl Shunned {
    fn has(&self, engine: &Engine, folder: &SyncedFolder) -> bool {
        let refused = self.refused.get(&folder.name);
        self.halted.contains(&folder.name)
            || refused.is_some_and(|(consent, since)| {
                *consent == consent_of(engine, folder) && since.elapsed() < REFUSED_AGAIN_AFTER
            })
    }
}

impl Engine {
    /// Follows every folder that is on until `cancel` is thrown. Blocks; what happens is told to `tell`.
    pub fn follow_folders(&self, tell: &(dyn Fn(Followed) + core::marker::Sync), cancel: &Cancel) {
        std::thread::scope(|scope| {
            let mut running: BTreeMap<String, Running<'_, '_>> = BTreeMap::new();
            let mut shunned = Shunned::default();
            while !cancel.is_cancelled() {
                let folders = self.store().folders().unwrap_or_default();
                // Whoever pauses and resumes a folder asks for another try.
                let is_paused = |name: &String| {
                    folders
                        .iter()
                        .any(|folder| folder.name == *name && folder.is_paused)
                };
                shunned.refused.retain(|name, _| !is_paused(name));
                shunned.halted.retain(|name| !is_paused(name));
                let wanted: Vec<SyncedFolder> = folders
                    .into_iter()
                    .filter(|folder| consent_of(self, folder).is_some())
                    .filter(|folder| !shunned.has(self, folder))
                    .collect();
                for (name, (follower, _)) in &running {
                    if !wanted.iter().any(|folder| folder.name == *name) {
                        follower.end();
                    }
                }
                collect_ended(&mut running, &mut shunned);
                for folder in wanted {
                    let Some(vault) = folder.vault.filter(|_| !running.contains_key(&folder.name))
                    else {
                        continue;
                    };
                    let name = folder.name.clone();
                    let follower = Arc::new(Follower::new(self, folder, vault));
                    let own = Arc::clone(&follower);
                    let builder = std::thread::Builder::new().stack_size(ROUND_STACK_BYTES);
                    let thread = builder.spawn_scoped(scope, move || {
                        let _both = EndBoth(&own);
                        own.follow(tell)
                    });
                    // Without room for a thread it is tried again in a second.
                    let Ok(thread) = thread else { continue };
                    let own = Arc::clone(&follower);
                    let listening = std::thread::Builder::new().spawn_scoped(scope, move || {
                        let _both = EndBoth(&own);
                        own.listen();
                    });
                    if listening.is_err() {
                        follower.end();
                    }
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

/// Takes note of followers that ended.
fn collect_ended(running: &mut BTreeMap<String, Running<'_, '_>>, shunned: &mut Shunned) {
    let ended: Vec<String> = running
        .iter()
        .filter(|(_, (_, thread))| thread.is_finished())
        .map(|(name, _)| name.clone())
        .collect();
    for name in ended {
        let Some((_, thread)) = running.remove(&name) else {
            continue;
        };
        match thread.join() {
            Ok(End::Over) => {}
            Ok(End::Refused(consent)) => {
                shunned.refused.insert(name, (consent, Instant::now()));
            }
            Ok(End::Halted) | Err(_) => {
                shunned.halted.insert(name);
            }
        }
    }
}

impl<'e> Follower<'e> {
    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.over.notify_one();
        self.stop.cancel();
        self.board.wake();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn new(engine: &'e Engine, folder: SyncedFolder, vault: VaultId) -> Self {
        Self {
            engine,
            folder,
            vault,
            board: Arc::default(),
            stop: Cancel::default(),
            seen: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            over: Notify::new(),
        }
    }

    /// Whether it is still on, as the person last said.
    fn is_on(&self) -> bool {
        let folder = self.engine.store().folder(&self.folder.name);
        // A run that was stopped, by a pause or a withdrawal, stays stopped: a new follower takes over.
        !self.is_over()
            && !self.stop.is_cancelled()
            && folder.is_ok_and(|folder| consent_of(self.engine, &folder).is_some())
    }

    /// Rounds, as long as the folder is on.
    fn follow(&self, tell: &(dyn Fn(Followed) + core::marker::Sync)) -> End {
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
        let mut pace = Pace::default();
        let mut turn = Turn::default();
        // How far the heads were when it was last looked whether to prune.
        let mut marked = None;
        while self.is_on() {
            if looked.elapsed() >= look_every {
                dirty = Dirty::All;
            }
            if matches!(dirty, Dirty::All) {
                looked = Instant::now();
            }
            let consent = consent_of(self.engine, &self.folder);
            let began = Instant::now();
            let (now, later) = turn.part(std::mem::take(&mut dirty));
            let places = (now.clone(), later.clone());
            let unheard = Events::unheard();
            let result = self
                .engine
                .sync_round(&self.folder, places, &unheard, &self.stop);
            let took = began.elapsed();
            match result {
                Ok(outcome) => {
                    let mut view = SyncedView {
                        folder: name(),
                        problems: outcome.problems.count(),
                        ..SyncedView::default()
                    };
                    view.add(&outcome);
                    let has_got_on = view.sent + view.received + view.removed + view.moved > 0;
                    if view.has_news() {
                        tell(Followed::Synced(view));
                    }
                    self.note_seen();
                    let heads = self.seen.load(Ordering::Relaxed) / PRUNE_EVERY_HEADS;
                    let is_due = marked.is_some_and(|marked| heads > marked);
                    if outcome.moved_head && is_due {
                        self.prune(tell);
                    }
                    marked = Some(heads);
                    self.rest(rest_after(took));
                    turn.ended(&now, &later, outcome.lost);
                    let left = outcome.left.with(later);
                    dirty = outcome.again;
                    if dirty.is_empty() && !left.is_empty() {
                        pace.quiet();
                        dirty = left.with(self.board.take_all());
                        continue;
                    }
                    dirty.extend(left);
                    if dirty.is_empty() {
                        pace.quiet();
                    } else {
                        if has_got_on {
                            pace.quiet();
                        }
                        let wait = pace.again();
                        if pace.again == AGAIN_TOLD_AFTER {
                            tell(Followed::Failed {
                                folder: name(),
                                failure: Box::new(never_still()),
                            });
                        }
                        dirty.extend(self.board.wait(wait, wait, wait));
                        continue;
                    }
                }
                Err(failure) => {
                    if !self.is_on() {
                        return End::Over;
                    }
                    let failure = self.engine.alarmed(failure);
                    let (kind, sentence) = (failure.kind, failure.sentence.clone());
                    let (folder, failure) = (name(), Box::new(failure));
                    match kind {
                        FailureKind::Integrity => {
                            tell(Followed::Halted { folder, failure });
                            return End::Halted;
                        }
                        FailureKind::NoConsent => {
                            tell(Followed::Failed { folder, failure });
                            return End::Refused(consent);
                        }
                        _ if pace.is_new(&sentence) => tell(Followed::Failed { folder, failure }),
                        _ => {}
                    }
                    let wait = pace.failed();
                    dirty = now.with(later).with(self.board.wait(wait, wait, wait));
                    continue;
                }
            }
            let limit = look_every.saturating_sub(looked.elapsed());
            let began = Instant::now();
            dirty = self.board.wait(PAUSE, pace.awaited, limit);
            pace.waited(began.elapsed());
        }
        End::Over
    }

    /// Lets go of what only superfluous versions needed. What it cannot do now, the next one does.
    fn prune(&self, tell: &(dyn Fn(Followed) + core::marker::Sync)) {
        let engine = self.engine;
        let effort = Effort::small();
        let pruned = engine.prune_folder(&self.folder, &effort, &Events::unheard(), &self.stop);
        match pruned {
            Err(failure) if failure.kind == FailureKind::Integrity => tell(Followed::Failed {
                folder: self.folder.name.clone(),
                failure: Box::new(engine.alarmed(failure)),
            }),
            // What others moved meanwhile is taken up by a round.
            _ => self.board.wake(),
        }
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
        let mut api = None;
        // What was told once is not told again, however long the rounds fail that would take it up.
        let mut announced = 0;
        while !self.is_over() {
            let began = Instant::now();
            let after = self.seen.load(Ordering::Relaxed).max(announced);
            match self.await_news(after, &mut api) {
                Ok(Some(counter)) if counter > after => {
                    (retry, announced) = (RETRY_FIRST, counter);
                    // A round may have taken it up already.
                    if counter > self.seen.load(Ordering::Relaxed) {
                        self.board.wake();
                        self.await_round(counter);
                    }
                }
                Ok(_) => {
                    retry = RETRY_FIRST;
                    if began.elapsed() < NO_NEWS_PAUSE {
                        self.rest(NO_NEWS_PAUSE);
                    }
                }
                Err(_) => {
                    // The first round that follows tells what is wrong, if it is still wrong then; it waits and tries
                    // again by itself.
                    self.rest(retry);
                    if retry == RETRY_FIRST {
                        self.board.wake();
                    }
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    fn rest(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.is_over() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            std::thread::sleep(Duration::from_millis(100).min(left));
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

    /// The counter of the head that the cell shows once it is beyond `after`, or when it answers without news. The connection is kept
    /// for the next time.
    fn await_news(&self, after: u64, kept: &mut Option<Arc<Api>>) -> Result<Option<u64>, Failure> {
        let engine = self.engine;
        let grant = engine.grant_in::<Sync>(Some(self.vault))??;
        let api = match kept.take() {
            Some(api) => api,
            None => engine.open_api(Box::new(grant))?,
        };
        let account = engine.facts.account;
        let head = engine.runtime.block_on(async {
            let waiting = api.wait_head(account, self.vault, after);
            // Once it is over nothing is waited for any more, also if that was told before.
            tokio::select! {
                done = waiting => done.map(Some),
                () = self.over.notified() => Ok(None),
            }
        })?;
        *kept = Some(api);
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
            Err(_) => {
                self.board.wake();
                None
            }
        })
    }
}

/// How long no round begins after one that took so long. Where changes do not end, this is the turn of the other devices:
/// one of which every round is just a little slower would find the head moved each time.
fn rest_after(took: Duration) -> Duration {
    took.saturating_mul(RESTS_PER_ROUND).min(REST_MAX)
}

/// How much of what changed is looked at in one round. Where devices change much and all the time, one that is slower would
/// lose the head each time, and have more to do the next time.
struct Turn {
    most: usize,
    /// Where the last one ended: each part has its turn.
    after: Vec<u8>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            most: FOLDERS_PER_ROUND_MAX,
            after: Vec::new(),
        }
    }
}

impl Turn {
    fn part(&self, dirty: Dirty) -> (Dirty, Dirty) {
        dirty.part(self.most, &self.after)
    }

    /// A round ended that lost the head so often.
    fn ended(&mut self, now: &Dirty, later: &Dirty, lost: u32) {
        let count = now.count().unwrap_or(self.most);
        self.most = if lost > 0 {
            (count >> lost.min(usize::BITS - 1)).max(PART_MIN)
        } else {
            self.most.saturating_mul(2).min(FOLDERS_PER_ROUND_MAX)
        };
        self.after = match now {
            Dirty::Folders(set) if !later.is_empty() => {
                // The part may have gone round.
                let around = set.range(..=self.after.clone()).next_back();
                around.or_else(|| set.last()).cloned().unwrap_or_default()
            }
            _ => Vec::new(),
        };
    }
}

/// How fast a folder is gone on with.
struct Pace {
    retry: Duration,
    told: Option<String>,
    again: u32,
    /// How long changes that do not pause are waited for.
    awaited: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            retry: RETRY_FIRST,
            told: None,
            again: 0,
            awaited: PAUSE_AWAITED_MAX,
        }
    }
}

impl Pace {
    /// A round ended, and nothing changed under its hands.
    fn quiet(&mut self) {
        (self.retry, self.told, self.again) = (RETRY_FIRST, None, 0);
    }

    /// A round ended, and something did: the time until the next one.
    fn again(&mut self) -> Duration {
        (self.retry, self.told) = (RETRY_FIRST, None);
        self.again = self.again.saturating_add(1);
        AGAIN_AFTER
            .saturating_mul(1 << self.again.saturating_sub(1).min(10))
            .min(RETRY_MAX)
    }

    /// A round failed: the time until the next one.
    fn failed(&mut self) -> Duration {
        let wait = self.retry;
        self.retry = (wait * 2).min(RETRY_MAX);
        wait
    }

    /// Whether a failure was not told yet.
    fn is_new(&mut self, sentence: &str) -> bool {
        let is_new = self.told.as_deref() != Some(sentence);
        self.told = Some(sentence.to_owned());
        is_new
    }

    /// Changes came after this time. If they did not pause until they had to be taken up, they are given more time.
    fn waited(&mut self, time: Duration) {
        self.awaited = if time >= self.awaited && time < 2 * self.awaited {
            (self.awaited * 2).min(PAUSE_AWAITED_BUSY)
        } else {
            PAUSE_AWAITED_MAX
        };
    }
}

fn never_still() -> Failure {
    Failure::new(
        FailureKind::Failed,
        "a file changes again and again while it is read, and is not in step",
    )
    .with_hint("end the program that writes it, or leave it out: `.candorignore`")
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
