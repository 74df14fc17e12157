//! Pace: an account that goes beyond its limits is served step by step, as long as somebody is there who keeps to theirs.
//!
//! What an account asks for within its limits is its share of the cell, and shares are as fair as turns and work make
//! them. Beyond them it is a flood, and however fair its share, others would wait for a processor or a disk that is busy
//! with it: of a hundred requests of somebody else, more than one. So it gets a step now and then, with all its devices
//! and connections together, each in its turn. Nothing is refused, and with nobody else there nothing is slower.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use candor_wire::ids::AccountId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// From one step of such an account to its next one. A step is a request, or a piece of a body: half a millisecond to two of
/// a processor or the disk.
pub(crate) const STEP: Duration = Duration::from_millis(100);

/// How long an account is served so after it went beyond its limits.
const SLOW_FOR: Duration = Duration::from_secs(10);

/// How long somebody counts as there after a request: a device that waits for news asks again within a minute.
const HERE: Duration = Duration::from_secs(60);

/// Of so many accounts it is remembered when they were there. Whoever wants to be alone with the others who flood would
/// have to push out all that keep to their limits.
const ORDERLY: usize = 32;

/// Refused requests of an account in [`SLOW_FOR`], beyond which it goes beyond its limits: a device that is told why does not
/// ask so often.
const REFUSED_MAX: u32 = 1000;

/// From this many such accounts on, those that kept to their limits since are swept with the next one.
const SWEEP_MIN: usize = 256;

/// An account that went beyond its limits.
struct Slow {
    until: Instant,
    /// When its next step may begin.
    next: Instant,
    /// Its requests wait here, one behind the other.
    line: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    slow: HashMap<AccountId, Slow>,
    /// How often accounts were refused something, and since when that is counted.
    refused: HashMap<AccountId, (u32, Instant)>,
    /// The last who made a request and keep to their limits, and when they did.
    orderly: [Option<(AccountId, Instant)>; ORDERLY],
}

impl State {
    /// Whether the account went beyond its limits a short while ago.
    fn is_beyond(&self, account: &AccountId, now: Instant) -> bool {
        self.slow.get(account).is_some_and(|slow| now < slow.until)
    }

    /// What an account is held up by, if it is.
    fn slow(&mut self, account: &AccountId, now: Instant) -> Option<&mut Slow> {
        // For nearly all accounts this is the answer.
        if !self.is_beyond(account, now) {
            return None;
        }
        let mut others = self.orderly.iter().flatten();
        let is_somebody_here = others.any(|(other, last)| other != account && now < *last + HERE);
        self.slow.get_mut(account).filter(|_| is_somebody_here)
    }

    fn was_here(&mut self, account: AccountId, now: Instant) {
        let is_it = |one: &Option<(AccountId, Instant)>| one.is_some_and(|(id, _)| id == account);
        let place = self.orderly.iter().position(is_it).unwrap_or_else(|| {
            // The place of whoever was there longest ago.
            let last = |n: &usize| self.orderly[*n].map(|(_, last)| last);
            (0..ORDERLY).min_by_key(last).unwrap_or_default()
        });
        self.orderly[place] = Some((account, now));
    }
}

/// The pace of all accounts.
#[derive(Default)]
pub(crate) struct Pace(Mutex<State>);

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below it panics, so that it is never left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account went beyond its limits.
    pub(crate) fn exceeded(&self, account: AccountId) {
        let now = Instant::now();
        let mut state = self.state();
        if state.slow.len() >= SWEEP_MIN && !state.slow.contains_key(&account) {
            state.slow.retain(|_, slow| now < slow.until);
        }
        let slow = state.slow.entry(account).or_insert_with(|| Slow {
            until: now,
            next: now,
            line: Arc::new(Semaphore::new(1)),
        });
        slow.until = now + SLOW_FOR;
        for one in &mut state.orderly {
            *one = one.filter(|(id, _)| *id != account);
        }
    }

    /// Something was refused to the account.
    pub(crate) fn refused(&self, account: AccountId) {
        let now = Instant::now();
        let mut state = self.state();
        if state.refused.len() >= SWEEP_MIN && !state.refused.contains_key(&account) {
            state
                .refused
                .retain(|_, (_, since)| now < *since + SLOW_FOR);
        }
        let (count, since) = state.refused.entry(account).or_insert((0, now));
        if now >= *since + SLOW_FOR {
            (*count, *since) = (0, now);
        }
        *count += 1;
        let is_too_often = *count > REFUSED_MAX;
        drop(state);
        if is_too_often {
            self.exceeded(account);
        }
    }

    /// Whether the account is served step by step now.
    pub(crate) fn is_slow(&self, account: &AccountId) -> bool {
        self.state().slow(account, Instant::now()).is_some()
    }

    /// Before a request of the account: waits for its next step, if it has to. Tells whether it had to.
    ///
    /// Nothing may be held here that other accounts wait for.
    pub(crate) async fn request(&self, account: AccountId) -> bool {
        let now = Instant::now();
        {
            let mut state = self.state();
            if !state.is_beyond(&account, now) {
                state.was_here(account, now);
                return false;
            }
        }
        self.step(account).await
    }

    /// Before the next piece of a body of the account: the same, but whoever only goes on with a request does not count as
    /// there for it.
    ///
    /// Of what other accounts wait for, one place among the uploads may be held here, and the account's share of those
    /// among the messages.
    pub(crate) async fn step(&self, account: AccountId) -> bool {
        let line = {
            let mut state = self.state();
            state
                .slow(&account, Instant::now())
                .map(|slow| Arc::clone(&slow.line))
        };
        let Some(line) = line else { return false };
        // The semaphore is never closed.
        let _first = line.acquire().await;
        loop {
            let now = Instant::now();
            let next = {
                let mut state = self.state();
                let Some(slow) = state.slow(&account, now) else {
                    return true;
                };
                if slow.next <= now {
                    slow.next = now + STEP;
                    return true;
                }
                slow.next
            };
            tokio::time::sleep_until(next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use tokio::task::JoinHandle;

    use super::*;

    const GREEDY: AccountId = AccountId::from_bytes([1; 16]);
    const OTHER: AccountId = AccountId::from_bytes([2; 16]);

    /// So many requests of the greedy account.
    fn at_once(pace: &Arc<Pace>, requests: u32) -> Vec<JoinHandle<bool>> {
        let ask = |_| {
            let pace = Arc::clone(pace);
            tokio::spawn(async move { pace.request(GREEDY).await })
        };
        (0..requests).map(ask).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a38_beyond_its_limits_an_account_gets_a_step_now_and_then() {
        const REQUESTS: u32 = 20;
        let pace = Arc::new(Pace::default());
        assert!(!pace.request(GREEDY).await);
        pace.exceeded(GREEDY);
        assert!(!pace.request(OTHER).await, "others are not concerned");
        let began = Instant::now();
        let all = at_once(&pace, REQUESTS);
        let other = tokio::spawn({
            let pace = Arc::clone(&pace);
            async move {
                // It is there all the time.
                for _ in 0..2 * REQUESTS {
                    assert!(!pace.request(OTHER).await);
                    tokio::time::sleep(STEP).await;
                }
            }
        });
        for one in all {
            assert!(one.await.unwrap());
        }
        assert!(
            began.elapsed() >= STEP * (REQUESTS - 1),
            "{:?}",
            began.elapsed()
        );
        assert!(
            began.elapsed() < STEP * (REQUESTS + 1),
            "{:?}",
            began.elapsed()
        );
        other.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn with_nobody_else_there_and_after_a_while_nothing_is_slower() {
        let third = AccountId::from_bytes([3; 16]);
        let pace = Pace::default();
        // It was within its limits a moment ago, but is nobody else; and two that flood are nobody to each other.
        assert!(!pace.request(GREEDY).await && !pace.request(OTHER).await);
        pace.exceeded(GREEDY);
        assert!(pace.is_slow(&GREEDY), "the other one is there");
        pace.exceeded(OTHER);
        assert!(!pace.is_slow(&GREEDY) && !pace.is_slow(&OTHER));
        assert!(!pace.request(GREEDY).await && !pace.request(OTHER).await);
        // Somebody comes.
        assert!(!pace.request(third).await);
        assert!(pace.is_slow(&GREEDY) && pace.is_slow(&OTHER));
        assert!(pace.request(GREEDY).await && pace.step(GREEDY).await);
        // For a while after it went beyond its limits.
        tokio::time::advance(SLOW_FOR).await;
        assert!(!pace.request(GREEDY).await && !pace.request(OTHER).await);
        // From here on both are there, and whoever came before them does not matter.
        pace.exceeded(OTHER);
        assert!(pace.is_slow(&OTHER));
        // Until nobody has asked for a minute.
        tokio::time::advance(HERE).await;
        pace.exceeded(OTHER);
        assert!(!pace.is_slow(&OTHER) && !pace.request(OTHER).await);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stands_in_line_goes_on_once_nobody_else_is_there() {
        const REQUESTS: u32 = 1000;
        let pace = Arc::new(Pace::default());
        pace.exceeded(GREEDY);
        pace.request(OTHER).await;
        let began = Instant::now();
        let all = at_once(&pace, REQUESTS);
        let again = Arc::clone(&pace);
        let floods_on = tokio::spawn(async move {
            loop {
                again.exceeded(GREEDY);
                tokio::time::sleep(SLOW_FOR / 2).await;
            }
        });
        for one in all {
            one.await.unwrap();
        }
        let took = began.elapsed();
        assert!(took >= HERE - STEP && took <= HERE + STEP, "{took:?}");
        floods_on.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a38_whoever_is_refused_again_and_again_goes_beyond_its_limits() {
        let pace = Pace::default();
        pace.request(OTHER).await;
        for _ in 0..3 {
            for _ in 0..REFUSED_MAX {
                pace.refused(GREEDY);
            }
            assert!(!pace.is_slow(&GREEDY), "now and then is no flood");
            tokio::time::advance(SLOW_FOR).await;
        }
        for _ in 0..=REFUSED_MAX {
            pace.refused(GREEDY);
        }
        assert!(pace.is_slow(&GREEDY) && !pace.is_slow(&OTHER));
    }

    #[test]
    fn accounts_that_kept_to_their_limits_since_are_forgotten() {
        let pace = Pace::default();
        for n in 0..SWEEP_MIN {
            let mut id = [9; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            pace.exceeded(AccountId::from_bytes(id));
        }
        for slow in pace.state().slow.values_mut() {
            slow.until = Instant::now();
        }
        pace.exceeded(GREEDY);
        assert_eq!(pace.state().slow.len(), 1);
    }
}
