//! Work that takes longer than a page: it goes on while other pages are looked at, tells how far it is, and can be stopped.
//!
//! A job is one command of the engine on a thread of its own, which lets the pages go first. What it came to is kept until newer
//! ones take its place, in memory alone: the lasting record is what the engine keeps itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use candor_client::commands::{
    Command, EntryView, Event, Failure, FailureKind, Problem, Progress, View,
};
use candor_client::{Cancel, Engine};
use tokio::sync::Notify;

use super::find::FOUND_MAX;
use crate::{background, text};

/// Jobs that are kept once they are done.
const KEPT_MAX: usize = 16;

/// Files with a problem that are kept of one job; the rest is counted.
const PROBLEMS_KEPT_MAX: usize = 100;

/// What a job leaves to the page that shows it, which comes first: a person sees at once that it was begun.
const HEAD_START: Duration = Duration::from_millis(50);

/// A search that no page asked about for so long is stopped: it keeps others from what it looks through. A page that is seen asks
/// every second; whoever looks at another one, or has no scripts, has this long to come back.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// What a job is, to find it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Backup,
    Restore,
    Check,
    Drill,
    Sync,
    Version,
    Export,
    Link,
    Look,
    Find,
    Verify,
}

/// One piece of work.
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) kind: Kind,
    /// What it does, for people: `Backing up documents`.
    pub(super) title: String,
    command: Command,
    cancel: Cancel,
    state: Mutex<State>,
    /// When a page asked for it last.
    asked: Mutex<Instant>,
    /// Told once it is done.
    end: Notify,
}

/// How far it is.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) progress: Option<Progress>,
    pub(super) step: Option<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) problems_count: u64,
    /// What was found, as much as a page shows.
    pub(super) entries: Vec<EntryView>,
    /// Whether it ended because there is more than that.
    pub(super) has_more: bool,
    /// What it came to, once it is done.
    pub(super) result: Option<Result<View, Failure>>,
    /// Whether the person has seen what it came to.
    pub(super) is_seen: bool,
}

/// Gives a job an end that came to none, because its thread broke or could not be begun.
struct Ending(Arc<Job>);

impl Drop for Ending {
    fn drop(&mut self) {
        let broken = || Failure {
            kind: FailureKind::Failed,
            sentence: "the engine stopped in the middle".to_owned(),
            hint: None,
            causes: Vec::new(),
        };
        lock(&self.0.state)
            .result
            .get_or_insert_with(|| Err(broken()));
        self.0.end.notify_waiters();
    }
}

/// All of them.
pub(super) struct Jobs {
    is_closed: AtomicBool,
    last_number: AtomicU64,
    jobs: Mutex<Vec<Arc<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            is_closed: AtomicBool::new(false),
            // A number of an earlier run, in a page that is still open, means nothing now.
            last_number: AtomicU64::new(text::now_ms().unsigned_abs()),
            jobs: Mutex::default(),
            threads: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    /// How far it is now.
    pub(super) fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// One that stands where it is said to.
    #[cfg(test)]
    pub(super) fn standing(number: u64, title: &str, state: State) -> Self {
        Self {
            number,
            kind: Kind::Check,
            title: title.to_owned(),
            command: Command::Status,
            cancel: Cancel::default(),
            state: Mutex::new(state),
            asked: Mutex::new(Instant::now()),
            end: Notify::new(),
        }
    }

    /// The same for a command of a kind.
    #[cfg(test)]
    pub(super) fn doing(self, kind: Kind, command: Command) -> Self {
        Self {
            kind,
            command,
            ..self
        }
    }

    /// What it does.
    pub(super) const fn command(&self) -> &Command {
        &self.command
    }

    /// Waits until it is done.
    pub(super) async fn ends(&self) {
        let end = self.end.notified();
        if !self.is_done() {
            end.await;
        }
    }

    fn is_done(&self) -> bool {
        lock(&self.state).result.is_some()
    }

    /// A page asks for it.
    pub(super) fn ask(&self) {
        *lock(&self.asked) = Instant::now();
    }

    fn tell(&self, event: Event, now: Instant) {
        let asked = *lock(&self.asked);
        if self.kind == Kind::Find && now.saturating_duration_since(asked) > FOLLOWED_WITHIN {
            self.cancel.cancel();
        }
        let mut state = lock(&self.state);
        match event {
            Event::Progress(progress) => state.progress = Some(progress),
            Event::Step { text } => state.step = Some(text),
            Event::Problem(problem) => {
                state.problems_count += 1;
                if state.problems.len() < PROBLEMS_KEPT_MAX {
                    state.problems.push(problem);
                }
            }
            Event::Entry(entry) if state.entries.len() < FOUND_MAX => state.entries.push(entry),
            Event::Entry(_) => {
                state.has_more = true;
                self.cancel.cancel();
            }
            Event::Difference(_) | Event::LedgerLine(_) => {}
        }
    }
}

impl Jobs {
    /// Begins one, unless the same is at work already.
    pub(super) fn start(
        &self,
        engine: &Arc<Engine>,
        kind: Kind,
        title: String,
        command: Command,
    ) -> Arc<Job> {
        let mut jobs = lock(&self.jobs);
        let same = jobs.iter().find(|job| {
            let is_same = job.kind == kind && job.command == command;
            is_same && !job.is_done() && !job.cancel.is_cancelled()
        });
        if let Some(same) = same {
            return Arc::clone(same);
        }
        let job = Arc::new(Job {
            number: self.last_number.fetch_add(1, Ordering::Relaxed) + 1,
            kind,
            title,
            command: command.clone(),
            cancel: Cancel::default(),
            state: Mutex::default(),
            asked: Mutex::new(Instant::now()),
            end: Notify::new(),
        });
        if self.is_closed.load(Ordering::Acquire) {
            job.cancel.cancel();
        }
        jobs.push(Arc::clone(&job));
        forget_old(&mut jobs);
        drop(jobs);
        let (ending, engine) = (Ending(Arc::clone(&job)), Arc::clone(engine));
        let thread = thread::Builder::new()
            .name("job".to_owned())
            .spawn(move || {
                background::let_others_go_first();
                thread::sleep(HEAD_START);
                let working = &ending.0;
                let mut tell = |event| working.tell(event, Instant::now());
                let result = engine.execute(command, &mut tell, &working.cancel);
                lock(&working.state).result = Some(result);
            });
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.extend(thread);
        job
    }

    /// All, the newest first.
    pub(super) fn all(&self) -> Vec<Arc<Job>> {
        lock(&self.jobs).iter().rev().cloned().collect()
    }

    /// The newest of a kind.
    pub(super) fn newest(&self, kind: Kind) -> Option<Arc<Job>> {
        self.all().into_iter().find(|job| job.kind == kind)
    }

    /// The one with this number, as long as it is kept.
    pub(super) fn of(&self, number: u64) -> Option<Arc<Job>> {
        let jobs = lock(&self.jobs);
        jobs.iter().find(|job| job.number == number).cloned()
    }

    /// Asks one to end cleanly.
    pub(super) fn stop(&self, number: u64) {
        if let Some(job) = self.of(number) {
            job.cancel.cancel();
        }
    }

    /// Asks all of a kind to end cleanly.
    pub(super) fn stop_kind(&self, kind: Kind) {
        let all = self.all();
        all.iter()
            .filter(|job| job.kind == kind)
            .for_each(|job| job.cancel.cancel());
    }

    /// Asks all of a kind that do something else than this to end cleanly.
    pub(super) fn stop_others(&self, kind: Kind, command: &Command) {
        let all = self.all();
        all.iter()
            .filter(|job| job.kind == kind && job.command != *command)
            .for_each(|job| job.cancel.cancel());
    }

    /// Asks all to end cleanly, and whatever still begins.
    pub(super) fn stop_all(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.all().iter().for_each(|job| job.cancel.cancel());
    }

    /// Takes what one came to off the pages.
    pub(super) fn put_away(&self, number: u64) {
        if let Some(job) = self.of(number) {
            lock(&job.state).is_seen = true;
        }
    }

    /// Ends all of them cleanly, and waits for that.
    pub(super) fn close(&self) {
        self.stop_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // One that panicked has ended too; its message is on standard error.
            let _ = thread.join();
        }
    }
}

/// Makes room: first by what the person has seen, and by what was looked for, then by what is done. Work that has not ended is
/// never forgotten.
fn forget_old(jobs: &mut Vec<Arc<Job>>) {
    let seen = |job: &Job| job.is_done() && (job.kind == Kind::Find || lock(&job.state).is_seen);
    let mut surplus = jobs.len().saturating_sub(KEPT_MAX);
    for may_go in [seen as fn(&Job) -> bool, Job::is_done] {
        jobs.retain(|job| {
            let goes = surplus > 0 && may_go(job);
            surplus -= usize::from(goes);
            !goes
        });
    }
}

/// Whether a person has to hear of a result that they did not wait for.
pub(super) fn is_news(result: &Result<View, Failure>) -> bool {
    match result {
        Ok(_) => true,
        Err(failure) => failure.kind != FailureKind::Interrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64, is_done: bool, is_seen: bool) -> Arc<Job> {
        let state = State {
            result: is_done.then_some(Ok(View::Done)),
            is_seen,
            ..State::default()
        };
        Arc::new(Job::standing(number, "", state))
    }

    #[test]
    fn what_was_seen_makes_room_first_and_work_is_never_forgotten() {
        let mut jobs: Vec<Arc<Job>> = (0..KEPT_MAX as u64 + 2)
            .map(|number| job(number, number != 0, number == 7))
            .collect();
        forget_old(&mut jobs);
        let kept: Vec<u64> = jobs.iter().map(|job| job.number).collect();
        assert_eq!(kept.len(), KEPT_MAX);
        assert!(kept.contains(&0), "it has not ended");
        assert!(!kept.contains(&7) && !kept.contains(&1), "{kept:?}");
    }

    #[test]
    fn what_was_looked_for_makes_room_before_news() {
        let mut jobs: Vec<Arc<Job>> = (0..KEPT_MAX as u64 + 1)
            .map(|number| job(number, true, false))
            .collect();
        let state = State {
            result: Some(Ok(View::Done)),
            ..State::default()
        };
        let search = Command::BackupFind {
            glob: "*".to_owned(),
        };
        jobs[9] = Arc::new(Job::standing(9, "", state).doing(Kind::Find, search));
        forget_old(&mut jobs);
        assert_eq!(jobs.len(), KEPT_MAX);
        assert!(jobs.iter().all(|job| job.number != 9));
    }

    #[test]
    fn a_new_search_ends_the_one_before_and_no_other_work() {
        let jobs = Jobs::default();
        let search = |number, glob: &str| {
            let glob = glob.to_owned();
            let job = Job::standing(number, "", State::default());
            Arc::new(job.doing(Kind::Find, Command::BackupFind { glob }))
        };
        let all = [search(1, "a"), search(2, "b"), job(3, false, false)];
        lock(&jobs.jobs).extend(all.iter().cloned());
        jobs.stop_others(Kind::Find, all[1].command());
        assert_eq!(
            all.map(|job| job.cancel.is_cancelled()),
            [true, false, false]
        );
    }

    #[test]
    fn a_search_that_nobody_asks_about_ends_and_no_other_work() {
        let search = Command::BackupFind {
            glob: "*".to_owned(),
        };
        let work = Job::standing(1, "", State::default());
        let search = Job::standing(2, "", State::default()).doing(Kind::Find, search);
        let tell = |job: &Job, after| {
            let text = String::new();
            let asked = *lock(&job.asked);
            job.tell(Event::Step { text }, asked + after);
            job.cancel.is_cancelled()
        };
        let late = FOLLOWED_WITHIN + Duration::from_secs(1);
        assert!(!tell(&search, FOLLOWED_WITHIN));
        let before = *lock(&search.asked);
        search.ask();
        assert!(*lock(&search.asked) > before);
        assert!(!tell(&search, FOLLOWED_WITHIN));
        assert!(tell(&search, late));
        assert!(!tell(&work, late));
    }

    #[test]
    fn numbers_of_an_earlier_run_mean_nothing() {
        let last = |jobs: &Jobs| jobs.last_number.load(Ordering::Relaxed);
        let earlier = last(&Jobs::default());
        thread::sleep(Duration::from_millis(2));
        assert!(last(&Jobs::default()) > earlier);
    }

    #[test]
    fn a_thread_that_breaks_gives_its_job_an_end() {
        let job = job(1, false, false);
        drop(Ending(Arc::clone(&job)));
        assert!(matches!(job.state().result, Some(Err(_))));
        // One that ended keeps what it came to.
        lock(&job.state).result = Some(Ok(View::Done));
        drop(Ending(Arc::clone(&job)));
        assert_eq!(job.state().result, Some(Ok(View::Done)));
    }

    #[test]
    fn once_all_are_stopped_what_begins_is_stopped_too() {
        let jobs = Jobs::default();
        let running = job(1, false, false);
        lock(&jobs.jobs).push(Arc::clone(&running));
        jobs.stop(2);
        assert!(!running.cancel.is_cancelled());
        jobs.stop_kind(Kind::Backup);
        assert!(!running.cancel.is_cancelled());
        jobs.stop_all();
        assert!(running.cancel.is_cancelled());
        assert!(jobs.is_closed.load(Ordering::Acquire));
    }
}
