//! Turns: who gets the processor next when more connections have something to do than there are threads.
//!
//! A runtime alone lets every connection that is ready have its turn, in the order in which they became so: whoever has
//! fifty of them is served fifty times as often as whoever has one, and everybody waits behind all fifty at each step of
//! a request. Here each turn of a connection counts for its [`Holder`], and the next one goes to the holder who has
//! had the least: start-time fair queueing (Goyal, Vin and Cheng, 1997), with the time that a turn takes for the length of a
//! packet. While somebody is there who asks for little, those who ask for much leave one turn free, where there is more
//! than one. With nobody there but those who ask for much, the order of the runtime is as good, and they have all turns.

use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candor_wire::ids::AccountId;

/// How far behind the others a holder may start who had nothing to do for a while: what the turns of some dozens of
/// ordinary requests take. Among accounts that ask for as much as they can get, none is so far behind for long; and
/// somebody who floods, rests and floods again is ahead of the others for so long.
const AHEAD_MAX: Duration = Duration::from_millis(100);

/// For how long after such a turn one is kept free for the next.
const HERE: Duration = Duration::from_secs(1);

/// From this many holders on, those who are no further than everybody are swept with the next one.
const SWEEP_MIN_HOLDERS: usize = 1024;

/// Whose turns these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// Nobody has shown yet who this is: one network address.
    Address(IpAddr),
    /// Everybody who shows that they belong to it.
    Account(AccountId),
}

/// Where a turn stands in line: the time of its start, and a number of its own.
type Ticket = (Duration, u64);

struct State {
    /// How many turns there are.
    most: usize,
    /// How many of them are being had.
    running: usize,
    /// When an account last wanted a turn that was as far ahead of the others as one can be. Of strangers nobody knows
    /// whether they are others, and nobody makes room for them.
    ahead: Option<Instant>,
    /// The start of the turn that was given last, or the end of the last one, once nobody has anything to do. It only
    /// grows, and says nothing about the time of day.
    now: Duration,
    /// The latest of all ends.
    latest: Duration,
    next: u64,
    waiting: BTreeMap<Ticket, Waker>,
    /// Turns that were given to somebody who does not know it yet.
    given: HashSet<u64>,
    /// Where each holder's next turn starts at the earliest.
    ends: HashMap<Holder, Duration>,
    /// At how many of them those are swept that say nothing.
    sweep_at: usize,
}

impl State {
    /// Where a holder starts who had nothing to do for a while. Strangers start with the others: an address costs nothing.
    fn earliest(&self, holder: &Holder) -> Duration {
        match holder {
            Holder::Account(_) => self.now.saturating_sub(AHEAD_MAX),
            Holder::Address(_) => self.now,
        }
    }

    /// The start of the holder's next turn.
    fn start(&self, holder: Holder) -> Duration {
        let end = self.ends.get(&holder).copied().unwrap_or_default();
        end.max(self.earliest(&holder))
    }

    fn is_somebody_ahead(&self) -> bool {
        self.ahead.is_some_and(|last| last.elapsed() < HERE)
    }

    /// How many turns may be had at one time by those who stand in line.
    fn in_line(&self) -> usize {
        self.most - usize::from(self.most > 1 && self.is_somebody_ahead())
    }

    fn begin(&mut self, start: Duration) {
        self.running += 1;
        self.now = self.now.max(start);
    }

    /// Counts a turn for its holder.
    fn count(&mut self, holder: Holder, took: Duration) {
        if self.ends.len() >= self.sweep_at {
            let mut ends = core::mem::take(&mut self.ends);
            ends.retain(|holder, end| *end > self.earliest(holder));
            self.sweep_at = SWEEP_MIN_HOLDERS.max(2 * ends.len());
            self.ends = ends;
        }
        let end = self.start(holder) + took;
        self.latest = self.latest.max(end);
        self.ends.insert(holder, end);
    }

    /// After a turn that is over, or that nobody wants.
    fn end(&mut self) -> Vec<Waker> {
        self.running -= 1;
        if self.running == 0 && self.waiting.is_empty() {
            self.now = self.now.max(self.latest);
        }
        self.give()
    }

    /// Gives free turns to the first in line, who have to be woken.
    fn give(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            // The turn that is kept free is for whoever is ahead.
            let is_ahead = first.key().0 < self.now;
            if self.running >= if is_ahead { self.most } else { self.in_line() } {
                break;
            }
            let Some(((start, number), waker)) = self.waiting.pop_first() else {
                break;
            };
            self.given.insert(number);
            self.begin(start);
            woken.push(waker);
        }
        woken
    }
}

/// The turns of one cell.
pub(crate) struct Turns {
    state: Mutex<State>,
}

impl Turns {
    /// `most` at one time, and at least one.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let state = State {
            most: most.max(1),
            running: 0,
            ahead: None,
            now: Duration::ZERO,
            latest: Duration::ZERO,
            next: 0,
            waiting: BTreeMap::new(),
            given: HashSet::new(),
            ends: HashMap::new(),
            sweep_at: SWEEP_MIN_HOLDERS,
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below it panics, so that it is never left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an account is there that asks for little while another one asks for much, or was a moment ago.
    pub(crate) fn is_somebody_ahead(&self) -> bool {
        self.state().is_somebody_ahead()
    }

    /// Lets somebody have had so many turns of ten milliseconds.
    #[cfg(test)]
    pub(crate) fn counts(&self, holder: Holder, turns: usize) {
        let mut state = self.state();
        for _ in 0..turns {
            let start = state.start(holder);
            state.begin(start);
            state.count(holder, Duration::from_millis(10));
            state.running -= 1;
        }
    }

    /// One connection's seat, which counts for this holder until another one is named.
    pub(crate) fn seat(self: &Arc<Self>, holder: Holder) -> Arc<Seat> {
        Arc::new(Seat {
            turns: Arc::clone(self),
            holder: Mutex::new(holder),
        })
    }
}

/// Whose turns those of one connection are.
pub(crate) struct Seat {
    turns: Arc<Turns>,
    holder: Mutex<Holder>,
}

impl Seat {
    fn holder(&self) -> MutexGuard<'_, Holder> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This turn, and those that follow, count for this one.
    pub(crate) fn belongs_to(&self, holder: Holder) {
        *self.holder() = holder;
    }

    /// Has the work done turn by turn.
    pub(crate) fn of<F>(self: Arc<Self>, work: F) -> InTurns<F> {
        InTurns {
            seat: self,
            ticket: None,
            work: Box::pin(work),
        }
    }
}

/// Work that goes on when it is its turn.
pub(crate) struct InTurns<F> {
    seat: Arc<Seat>,
    /// Where it stands in line, while it does.
    ticket: Option<Ticket>,
    work: Pin<Box<F>>,
}

/// A turn; it ends with this value, also where the work panics.
struct Turn<'a> {
    seat: &'a Seat,
    began: Instant,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let (took, holder) = (self.began.elapsed(), *self.seat.holder());
        let mut state = self.seat.turns.state();
        state.count(holder, took);
        let next = state.end();
        let is_somebody_ahead = state.is_somebody_ahead();
        drop(state);
        next.into_iter().for_each(Waker::wake);
        if is_somebody_ahead {
            // Whoever was woken may be on a thread that waits for this one's processor, and would otherwise wait for
            // the system's tick: some milliseconds.
            std::thread::yield_now();
        }
    }
}

impl<F> InTurns<F> {
    /// Whether it is its turn. If not, `cx` is woken once it is.
    fn take(&mut self, cx: &Context<'_>) -> bool {
        let mut state = self.seat.turns.state();
        if let Some(ticket) = self.ticket {
            if state.given.remove(&ticket.1) {
                self.ticket = None;
                return true;
            }
            if let Some(waker) = state.waiting.get_mut(&ticket) {
                waker.clone_from(cx.waker());
            }
            return false;
        }
        let holder = *self.seat.holder();
        let start = state.start(holder);
        if matches!(holder, Holder::Account(_)) && start + AHEAD_MAX <= state.now {
            state.ahead = Some(Instant::now());
        }
        // Among those who ask for much the order of the runtime is as good, and costs less.
        let is_next = start < state.now || !state.is_somebody_ahead();
        if state.running < state.most && is_next {
            state.begin(start);
            return true;
        }
        // Whoever is not ahead of the others stands in line even where a turn is free: the runtime may have others
        // that are ready and that it has not come to, and until it comes back to this one they are in line, too.
        let ticket = (start, state.next);
        state.next += 1;
        state.waiting.insert(ticket, cx.waker().clone());
        self.ticket = Some(ticket);
        let first = state.give();
        drop(state);
        first.into_iter().for_each(Waker::wake);
        false
    }
}

impl<F: Future> Future for InTurns<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.take(cx) {
            return Poll::Pending;
        }
        let this = &mut *self;
        let _turn = Turn {
            seat: &this.seat,
            began: Instant::now(),
        };
        this.work.as_mut().poll(cx)
    }
}

impl<F> Drop for InTurns<F> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.seat.turns.state();
        let was_given = state.given.remove(&ticket.1);
        state.waiting.remove(&ticket);
        let next = if was_given { state.end() } else { Vec::new() };
        drop(state);
        next.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::future::{pending, poll_fn};
    use std::net::Ipv4Addr;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    const GREEDY: Holder = Holder::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    const QUIET: Holder = Holder::Account(AccountId::from_bytes([2; 16]));
    const STRANGER: Holder = Holder::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3)));

    fn poll<F: Future>(work: &mut InTurns<F>) -> Poll<F::Output> {
        Pin::new(work).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// The work of one turn: a fifth of a millisecond of the processor.
    fn work() {
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(200) {
            core::hint::spin_loop();
        }
    }

    /// Something to do at once, after the others that have.
    async fn again() {
        let mut has_waited = false;
        poll_fn(|cx| {
            if has_waited {
                return Poll::Ready(());
            }
            has_waited = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[tokio::test]
    async fn a38_whoever_asks_for_little_waits_for_a_turn_and_not_for_fifty() {
        const CONNECTIONS: usize = 50;
        let turns = Turns::new(1);
        // They have had much already, so that it is known who asks for little.
        turns.counts(GREEDY, 100);
        let had = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let mut greedy = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (had, is_over) = (Arc::clone(&had), Arc::clone(&is_over));
            greedy.spawn(turns.seat(GREEDY).of(async move {
                while !is_over.load(Ordering::Relaxed) {
                    work();
                    had.fetch_add(1, Ordering::Relaxed);
                    again().await;
                }
            }));
        }
        let seen = Arc::clone(&had);
        let quiet = tokio::spawn(turns.seat(QUIET).of(async move {
            let mut waited = Vec::new();
            while waited.len() < CONNECTIONS {
                let before = seen.load(Ordering::Relaxed);
                again().await;
                work();
                waited.push(seen.load(Ordering::Relaxed) - before);
                // It has something to do now and then.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            waited
        }));
        let waited = quiet.await.unwrap();
        is_over.store(true, Ordering::Relaxed);
        greedy.join_all().await;
        let behind_many = waited.iter().filter(|turns| **turns > CONNECTIONS / 10);
        // Now and then the machine takes the processor from a quiet turn, which counts all the same.
        assert!(behind_many.count() <= 2, "{waited:?}");
        let all = had.load(Ordering::Relaxed);
        assert!(all > CONNECTIONS, "the others had {all} turns");
    }

    #[test]
    fn a_turn_goes_to_the_next_also_when_nobody_wants_it_or_work_panics() {
        let turns = Turns::new(1);
        let mut gone = turns.seat(GREEDY).of(pending::<()>());
        let mut second = turns.seat(GREEDY).of(poll_fn(|_| Poll::Ready(2)));
        let mut third = turns.seat(GREEDY).of(poll_fn(|_| Poll::Ready(3)));
        // Somebody had a turn before, so that another one is ahead.
        turns.state().now = AHEAD_MAX;
        let mut first = turns.seat(QUIET).of(poll_fn(|_| {
            assert!(poll(&mut gone).is_pending());
            assert!(poll(&mut second).is_pending());
            assert!(poll(&mut third).is_pending());
            panic!("this is its end");
            #[expect(unreachable_code, reason = "says what it would give")]
            Poll::Ready(())
        }));
        assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut first))).is_err());
        drop(first);
        assert!(poll(&mut second).is_pending(), "another one has it");
        drop(gone);
        assert!(poll(&mut third).is_pending(), "they keep their order");
        assert_eq!(poll(&mut second), Poll::Ready(2));
        assert_eq!(poll(&mut third), Poll::Ready(3));
        assert_eq!(turns.state().running, 0);
        assert!(turns.state().given.is_empty() && turns.state().waiting.is_empty());
    }

    #[test]
    fn whoever_is_not_ahead_leaves_one_turn_free_while_somebody_is() {
        let turns = Turns::new(2);
        turns.state().now = AHEAD_MAX;
        turns.state().ends.insert(GREEDY, AHEAD_MAX);
        let polls = Arc::new(AtomicUsize::new(0));
        let greedy = || {
            let polls = Arc::clone(&polls);
            turns.seat(GREEDY).of(poll_fn(move |_| {
                polls.fetch_add(1, Ordering::Relaxed);
                Poll::<()>::Pending
            }))
        };
        // With nobody ahead nobody stands in line.
        let (mut one, mut two) = (greedy(), greedy());
        assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
        assert_eq!(polls.load(Ordering::Relaxed), 2);
        // A stranger has one, and makes nobody leave one free.
        assert!(poll(&mut turns.seat(STRANGER).of(pending::<()>())).is_pending());
        assert!(!turns.is_somebody_ahead());
        // An account has one: it is not in line for it.
        assert!(poll(&mut turns.seat(QUIET).of(pending::<()>())).is_pending());
        assert!(turns.is_somebody_ahead());
        assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
        assert_eq!(turns.state().running, 1);
        let mut quiet = turns.seat(QUIET).of(poll_fn(|_| Poll::Ready(())));
        assert_eq!(poll(&mut quiet), Poll::Ready(()), "the other one is free");
        // What is in line is not forgotten.
        assert!(poll(&mut one).is_pending());
        assert_eq!(turns.state().running, 1);
        assert!(poll(&mut two).is_pending());
        let state = turns.state();
        assert_eq!((state.running, state.waiting.len()), (0, 0));
        assert_eq!(polls.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_holder_is_ahead_for_so_long_and_counts_from_there() {
        let turns = Turns::new(2);
        let ms = Duration::from_millis;
        // Somebody had ten seconds of it.
        turns.counts(GREEDY, 1000);
        let mut state = turns.state();
        let (greedy, quiet) = (state.start(GREEDY), state.start(QUIET));
        assert_eq!(greedy, ms(10_000));
        assert_eq!(quiet, state.now - AHEAD_MAX);
        assert_eq!(state.start(STRANGER), state.now);
        state.count(QUIET, ms(3));
        assert_eq!(state.start(QUIET), quiet + ms(3));
        // Whoever has no more than the others needs no place in memory.
        for n in 0..u32::try_from(4 * SWEEP_MIN_HOLDERS).unwrap() {
            let address = Holder::Address(IpAddr::V4(Ipv4Addr::from_bits(n)));
            let start = state.start(address);
            state.begin(start);
            state.count(address, ms(1));
            assert!(state.end().is_empty());
        }
        assert!(
            state.ends.len() <= SWEEP_MIN_HOLDERS,
            "{}",
            state.ends.len()
        );
    }
}
