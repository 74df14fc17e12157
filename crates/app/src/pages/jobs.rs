//! Work that takes longer than a page: it goes on while other pages are looked at, tells how far it is, and can be stopped.
//!
//! A job is one command of the engine on a thread of its own. What it came to is kept until newer ones take its place, in
//! memory alone: the lasting record is what the engine keeps itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candor_client::commands::{Command, Event, Failure, FailureKind, Problem, Progress, View};
use candor_client::{Cancel, Engine};

/// Jobs that are kept once they are done.
const KEPT_MAX: usize = 16;

/// Files with a problem that are kept of one job; the rest is counted.
const PROBLEMS_KEPT_MAX: usize = 100;

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
}

/// How far it is.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) progress: Option<Progress>,
    pub(super) step: Option<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) problems_count: u64,
    /// What it came to, once it is done.
    pub(super) result: Option<Result<View, Failure>>,
    /// Whether the person has seen what it came to.
    pub(super) is_seen: bool,
}

/// Gives a job an end that came to none, because its thread broke.
struct Ending<'a>(&'a Job);

impl Drop for Ending<'_> {
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
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Jobs {
    is_closed: AtomicBool,
    next: AtomicU64,
    jobs: Mutex<Vec<Arc<Job>>>,
    threads: Mutex<Vec<tokio::task::JoinHandle<()>>>,
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
        }
    }

    fn is_done(&self) -> bool {
        lock(&self.state).result.is_some()
    }

    fn tell(&self, event: Event) {
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
            Event::Entry(_) | Event::Difference(_) | Event::LedgerLine(_) => {}
        }
    }
}

impl Jobs {
    /// Begins one, unless the same is at work already. Must be called within the runtime.
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
            number: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            kind,
            title,
            command: command.clone(),
            cancel: Cancel::default(),
            state: Mutex::default(),
        });
        if self.is_closed.load(Ordering::Acquire) {
            job.cancel.cancel();
        }
        jobs.push(Arc::clone(&job));
        forget_old(&mut jobs);
        drop(jobs);
        let (working, engine) = (Arc::clone(&job), Arc::clone(engine));
        let thread = tokio::task::spawn_blocking(move || {
            let ending = Ending(&working);
            let result = engine.execute(command, &mut |event| working.tell(event), &working.cancel);
            lock(&working.state).result = Some(result);
            drop(ending);
        });
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
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

    fn of(&self, number: u64) -> Option<Arc<Job>> {
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

    /// Ends all of them cleanly.
    pub(super) async fn close(&self) {
        self.stop_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // One that panicked has ended too; its message is on standard error.
            let _ = thread.await;
        }
    }
}

/// Makes room: first by what the person has seen, then by what is done. Work that has not ended is never forgotten.
fn forget_old(jobs: &mut Vec<Arc<Job>>) {
    let seen = |job: &Job| job.is_done() && lock(&job.state).is_seen;
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
    fn a_thread_that_breaks_gives_its_job_an_end() {
        let job = job(1, false, false);
        drop(Ending(&job));
        assert!(matches!(job.state().result, Some(Err(_))));
        // One that ended keeps what it came to.
        lock(&job.state).result = Some(Ok(View::Done));
        drop(Ending(&job));
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
