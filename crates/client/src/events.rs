//! The way from a worker to whoever asked: events, progress, and the switch that stops it.

use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use candor_vault::report::{self, Cancel};
use candor_vault::secret::scrub_stack;
use candor_vault::sync::ROUND_STACK_BYTES;

use crate::commands::{Event, Progress};
use crate::engine::lock;

/// Most events that wait for a slow listener; a listing then waits for it.
const EVENTS_WAITING_MAX: usize = 1024;

/// How soon a worker hears that the person stopped it.
pub(crate) const CANCEL_POLL: Duration = Duration::from_millis(100);

/// Time between two progress events: ten in a second are smooth, more is noise.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Where a worker sends its events.
#[derive(Clone)]
pub(crate) struct Events(SyncSender<Event>);

impl Events {
    /// Goes nowhere: for work that nobody listens to.
    pub(crate) fn unheard() -> Self {
        Self(mpsc::sync_channel(0).0)
    }

    /// Sends one, waiting while the listener is busy. A listener that is gone hears nothing.
    pub(crate) fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }

    /// Sends a step.
    pub(crate) fn step(&self, text: impl Into<String>) {
        self.send(Event::Step { text: text.into() });
    }
}

/// Runs `work` on a thread of its own and hands its events to `events` on this one. `work` is given
/// a switch, which is thrown when `outer` is.
pub(crate) fn pump<T: Send>(
    events: &mut dyn FnMut(Event),
    outer: &Cancel,
    inner: &Cancel,
    work: impl FnOnce(&Events) -> T + Send,
) -> T {
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(EVENTS_WAITING_MAX);
        // A round of a synced folder recurses.
        let builder = thread::Builder::new().stack_size(ROUND_STACK_BYTES);
        let worker = builder.spawn_scoped(scope, move || {
            let value = work(&Events(sender));
            scrub_stack();
            value
        });
        let worker = worker.expect("the system has room for a thread");
        loop {
            if outer.is_cancelled() {
                inner.cancel();
            }
            match receiver.recv_timeout(CANCEL_POLL) {
                Ok(event) => events(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        match worker.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Turns what the vault counts into progress events, at most ten in a second.
pub(crate) struct Meter<'a> {
    events: Events,
    moved_bytes: &'a (dyn Fn() -> u64 + Sync),
    state: Mutex<(Progress, Instant)>,
}

impl<'a> Meter<'a> {
    /// For a phase: `scan`, `backup`, `restore`, `check`, `find`. `moved_bytes` tells how much went over
    /// the connection so far.
    pub(crate) fn new(
        events: &Events,
        phase: &str,
        moved_bytes: &'a (dyn Fn() -> u64 + Sync),
    ) -> Self {
        let progress = Progress {
            phase: phase.to_owned(),
            ..Progress::default()
        };
        Self {
            events: events.clone(),
            moved_bytes,
            state: Mutex::new((progress, Instant::now())),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Progress), at_once: bool) {
        let mut state = lock(&self.state);
        change(&mut state.0);
        if at_once || state.1.elapsed() >= PROGRESS_EVERY {
            state.1 = Instant::now();
            state.0.sent_bytes = (self.moved_bytes)();
            // Progress is never waited for: the next one says more.
            let _ = self.events.0.try_send(Event::Progress(state.0.clone()));
        }
    }

    /// Tells the last state.
    pub(crate) fn finish(&self) {
        self.change(|_| (), true);
    }
}

impl report::Progress for Meter<'_> {
    fn expect(&self, files: u64, bytes: u64) {
        let change = |progress: &mut Progress| {
            progress.files_total = Some(files);
            progress.bytes_total = Some(bytes);
        };
        self.change(change, true);
    }

    fn advance(&self, files: u64, bytes: u64) {
        let change = |progress: &mut Progress| {
            progress.files += files;
            progress.bytes += bytes;
        };
        self.change(change, false);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use candor_vault::report::Progress as _;

    use super::*;

    #[test]
    fn events_arrive_in_order_and_the_switch_is_passed_on() {
        let (outer, inner) = (Cancel::default(), Cancel::default());
        let mut seen = Vec::new();
        let stopped = pump(
            &mut |event| {
                seen.push(event);
                outer.cancel();
            },
            &outer,
            &inner,
            |events| {
                events.step("one");
                while !inner.is_cancelled() {
                    thread::yield_now();
                }
                events.step("two");
                let meter = Meter::new(events, "scan", &|| 7);
                meter.expect(3, 30);
                meter.advance(1, 10);
                meter.finish();
                true
            },
        );
        assert!(stopped);
        let last = Progress {
            phase: "scan".to_owned(),
            files: 1,
            files_total: Some(3),
            bytes: 10,
            bytes_total: Some(30),
            sent_bytes: 7,
        };
        assert_eq!(
            seen[0],
            Event::Step {
                text: "one".to_owned()
            }
        );
        assert_eq!(
            seen[1],
            Event::Step {
                text: "two".to_owned()
            }
        );
        assert_eq!(seen.last(), Some(&Event::Progress(last)));
    }
}
