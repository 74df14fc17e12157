//! Pace: what one account gets of the cell in a second while somebody else is there who takes less.
//!
//! However fair the shares are, whoever asks for as much as it can get makes others wait for a processor or a disk that is
//! busy with it: of a hundred requests of somebody else, more than one. So each account goes step by step, with all its
//! devices and connections together. Whoever asks for little does not notice; nothing is refused; and with nobody there but
//! those who take as much as they get, nothing is slower.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use candor_wire::ids::AccountId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Whoever takes nine tenths of the steps that it may have in so long asks for much.
const WINDOW: Duration = Duration::from_secs(4);

/// How long an account counts as held up after a step that had to wait.
const HELD_FOR: Duration = Duration::from_secs(1);

/// How long it counts as one that asks for much.
const BUSY_FOR: Duration = Duration::from_secs(10);

/// How many steps an account may take before their time: a device that has a handful of things to ask does not wait
/// between them.
const EXTRAS_MAX: u32 = 32;

/// In so long it gets one of them back.
const EXTRA_EVERY: Duration = Duration::from_millis(500);

/// How long somebody counts as there after a request or a piece of a body.
const HERE: Duration = Duration::from_secs(60);

/// Of so many accounts it is remembered when they were there. Whoever wants to be alone with the others who ask for much
/// would have to push out all that do not.
const HERE_MAX: usize = 32;

/// From this many accounts on, those of which nothing has to be remembered are swept with the next one.
const SWEEP_MIN: usize = 1024;

/// One account that did something a moment ago.
struct Paced {
    /// When its next step may begin, if somebody else is there.
    next: Instant,
    /// Until when it counts as held up.
    held_until: Instant,
    /// When it has all its extra steps again.
    extras: Instant,
    /// Its steps since `since`, for a [`WINDOW`].
    steps: u32,
    since: Instant,
    /// Until when it counts as one that asks for much.
    busy_until: Instant,
    /// Its steps wait here, one behind the other.
    line: Arc<Semaphore>,
}

impl Paced {
    fn new(now: Instant) -> Self {
        Self {
            next: now,
            held_until: now,
            extras: now,
            steps: 0,
            since: now,
            busy_until: now,
            line: Arc::new(Semaphore::new(1)),
        }
    }

    fn is_waited_for(&self) -> bool {
        Arc::strong_count(&self.line) > 1
    }

    fn says_nothing(&self, now: Instant) -> bool {
        let until = self.next.max(self.extras).max(self.busy_until);
        let until = until.max(self.held_until);
        until.max(self.since + WINDOW) <= now && !self.is_waited_for()
    }

    /// Takes one of the extra steps, if any is left.
    fn take_extra(&mut self, now: Instant) -> bool {
        let spent = self.extras.max(now) + EXTRA_EVERY;
        let is_left = spent <= now + EXTRA_EVERY * EXTRAS_MAX;
        if is_left {
            self.extras = spent;
        }
        is_left
    }

    /// Counts a step. Tells whether the account asks for much.
    fn count(&mut self, now: Instant, steps_per_second: u32) -> bool {
        if now >= self.since + WINDOW {
            (self.steps, self.since) = (0, now);
        }
        self.steps += 1;
        let most = u64::from(steps_per_second) * WINDOW.as_secs();
        if u64::from(self.steps) * 10 >= most * 9 {
            self.busy_until = now + BUSY_FOR;
        }
        now < self.busy_until
    }
}

#[derive(Default)]
struct State {
    accounts: HashMap<AccountId, Paced>,
    /// At how many of them those are swept that say nothing.
    sweep_at: usize,
    /// The last who asked for something and do not ask for much, and when they did.
    here: [Option<(AccountId, Instant)>; HERE_MAX],
}

impl State {
    fn account(&mut self, account: AccountId, now: Instant) -> &mut Paced {
        if self.accounts.len() >= self.sweep_at && !self.accounts.contains_key(&account) {
            self.accounts.retain(|_, one| !one.says_nothing(now));
            self.sweep_at = SWEEP_MIN.max(2 * self.accounts.len());
        }
        let accounts = &mut self.accounts;
        accounts.entry(account).or_insert_with(|| Paced::new(now))
    }

    /// Whether somebody else is there who does not take all that they may.
    fn is_somebody_here(&self, account: &AccountId, now: Instant) -> bool {
        let mut others = self.here.iter().flatten();
        others.any(|(other, last)| other != account && now < *last + HERE)
    }

    fn was_here(&mut self, account: AccountId, now: Instant) {
        if now < self.account(account, now).busy_until {
            return;
        }
        let is_it = |one: &Option<(AccountId, Instant)>| one.is_some_and(|(id, _)| id == account);
        let place = self.here.iter().position(is_it).unwrap_or_else(|| {
            // The place of whoever was there longest ago.
            let last = |n: &usize| self.here[*n].map(|(_, last)| last);
            (0..HERE_MAX).min_by_key(last).unwrap_or_default()
        });
        self.here[place] = Some((account, now));
    }

    /// Begins a step, if it may begin now.
    fn begin(
        &mut self,
        account: AccountId,
        steps_per_second: u32,
        is_first_in_line: bool,
    ) -> Begun {
        let now = Instant::now();
        let is_somebody_here = self.is_somebody_here(&account, now);
        let one = self.account(account, now);
        let is_early = is_somebody_here && now < one.next;
        let is_behind = is_somebody_here && !is_first_in_line && one.is_waited_for();
        if is_behind || (is_early && !is_first_in_line && !one.take_extra(now)) {
            one.held_until = now + HELD_FOR;
            return Begun::Behind(Arc::clone(&one.line));
        }
        if is_first_in_line {
            one.held_until = now + HELD_FOR;
            if is_early {
                return Begun::Early(one.next);
            }
        }
        if !is_early {
            // Whoever stood in line loses little by a clock that wakes it late.
            let began = if is_first_in_line {
                one.next.min(now)
            } else {
                now
            };
            one.next = now.max(began + Duration::from_secs(1) / steps_per_second);
        }
        if one.count(now, steps_per_second) {
            for place in &mut self.here {
                *place = place.filter(|(id, _)| *id != account);
            }
        }
        Begun::Now
    }
}

/// What becomes of a step.
enum Begun {
    Now,
    /// Others of the account are before it.
    Behind(Arc<Semaphore>),
    /// It is the first, and has to wait until then.
    Early(Instant),
}

/// The pace of all accounts.
pub(crate) struct Pace {
    steps_per_second: u32,
    state: Mutex<State>,
}

impl Pace {
    /// So many steps in a second for each account.
    pub(crate) fn new(steps_per_second: u32) -> Self {
        Self {
            steps_per_second: steps_per_second.max(1),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below it panics, so that it is never left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account asked for something that others may make it wait for: from here on it is somebody who is there.
    pub(crate) fn was_here(&self, account: AccountId) {
        self.state().was_here(account, Instant::now());
    }

    /// The account has no extra steps left.
    #[cfg(test)]
    pub(crate) fn spends_extras(&self, account: AccountId) {
        let now = Instant::now();
        self.state().account(account, now).extras = now + EXTRA_EVERY * EXTRAS_MAX;
    }

    /// Whether the account had to wait for a step a moment ago.
    pub(crate) fn is_held_up(&self, account: &AccountId) -> bool {
        let now = Instant::now();
        let state = self.state();
        let one = state.accounts.get(account);
        one.is_some_and(|one| now < one.held_until)
    }

    /// A step of the account, if it need not wait for it.
    pub(crate) fn try_step(&self, account: AccountId) -> bool {
        matches!(
            self.state().begin(account, self.steps_per_second, false),
            Begun::Now
        )
    }

    /// A step of the account, as soon as it may go on: a request, or a piece of a body. Tells whether it had to wait.
    ///
    /// Of what other accounts wait for, one place for uploads may be held here, and the account's share of those for messages.
    pub(crate) async fn step(&self, account: AccountId) -> bool {
        let begun = self.state().begin(account, self.steps_per_second, false);
        let Begun::Behind(line) = begun else {
            return false;
        };
        // The semaphore is never closed.
        let _first = line.acquire().await;
        loop {
            let begun = self.state().begin(account, self.steps_per_second, true);
            let Begun::Early(next) = begun else {
                return true;
            };
            tokio::time::sleep_until(next).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use tokio::task::JoinHandle;
    use tokio::time::advance;

    use super::*;

    const GREEDY: AccountId = AccountId::from_bytes([1; 16]);
    const OTHER: AccountId = AccountId::from_bytes([2; 16]);

    const THIRD: AccountId = AccountId::from_bytes([3; 16]);

    const RATE: u32 = 10;
    const STEP: Duration = Duration::from_millis(100);

    /// With so many steps in a window an account asks for much.
    const MUCH: u32 = 36;

    /// So many steps of the greedy account, after all extra ones.
    fn at_once(pace: &Arc<Pace>, steps: u32) -> Vec<JoinHandle<bool>> {
        pace.spends_extras(GREEDY);
        let ask = |_| {
            let pace = Arc::clone(pace);
            tokio::spawn(async move { pace.step(GREEDY).await })
        };
        (0..steps).map(ask).collect()
    }

    /// Whether the account has to wait after a step, if it has no extra ones.
    fn is_slow(pace: &Pace, account: AccountId) -> bool {
        pace.spends_extras(account);
        pace.try_step(account);
        !pace.try_step(account)
    }

    /// Takes so many steps of the account in the next window, with nobody to wait for.
    async fn goes(pace: &Pace, account: AccountId, steps: u32) {
        advance(WINDOW).await;
        for _ in 0..steps {
            pace.was_here(account);
            assert!(pace.try_step(account));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a38_beside_somebody_who_asks_for_less_an_account_goes_step_by_step() {
        const STEPS: u32 = 30;
        let pace = Arc::new(Pace::new(RATE));
        pace.was_here(OTHER);
        pace.was_here(THIRD);
        pace.spends_extras(OTHER);
        let began = Instant::now();
        assert!(!pace.is_held_up(&GREEDY));
        let all = at_once(&pace, STEPS);
        let mut finished = 0;
        while finished < STEPS as usize {
            tokio::time::sleep(2 * STEP).await;
            finished = all.iter().filter(|one| one.is_finished()).count();
            let most = began.elapsed().as_millis() / STEP.as_millis() + 1;
            assert!(finished as u128 <= most, "{finished} of {most}");
            // Whoever asks for half of it never waits.
            assert!(pace.try_step(OTHER));
        }
        assert!(began.elapsed() <= STEP * (STEPS + 1));
        assert!(pace.is_held_up(&GREEDY) && !pace.is_held_up(&OTHER));
        // Once nobody is in line, there is no wait for a single step either.
        assert!(pace.try_step(GREEDY));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_wakes_late_costs_nothing() {
        // No number of whole milliseconds, which is what timers know.
        const ODD_RATE: u32 = 128;
        let pace = Arc::new(Pace::new(ODD_RATE));
        pace.was_here(OTHER);
        let began = Instant::now();
        for one in at_once(&pace, ODD_RATE + 1) {
            one.await.unwrap();
        }
        let took = began.elapsed();
        let (least, most) = (Duration::from_secs(1), Duration::from_millis(1002));
        assert!(took >= least && took <= most, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn with_nobody_there_who_asks_for_less_nothing_is_slower() {
        let pace = Pace::new(RATE);
        // Whoever is alone is nobody else, and neither is one who takes all that there is.
        for account in [GREEDY, OTHER] {
            goes(&pace, account, MUCH).await;
        }
        assert!(!is_slow(&pace, GREEDY) && !is_slow(&pace, OTHER));
        // Somebody comes.
        pace.was_here(THIRD);
        advance(WINDOW).await;
        assert!(is_slow(&pace, GREEDY) && is_slow(&pace, OTHER));
        assert!(!is_slow(&pace, THIRD), "nobody asks for less");
        // Until nobody has asked for a minute.
        advance(HERE).await;
        assert!(!is_slow(&pace, GREEDY));
    }

    #[tokio::test(start_paused = true)]
    async fn a38_whoever_takes_nine_tenths_does_not_slow_the_others_for_a_while() {
        let pace = Pace::new(RATE);
        goes(&pace, OTHER, MUCH - 1).await;
        assert!(is_slow(&pace, GREEDY));
        goes(&pace, OTHER, MUCH).await;
        assert!(!is_slow(&pace, GREEDY));
        advance(BUSY_FOR - WINDOW / 2).await;
        pace.was_here(OTHER);
        assert!(!is_slow(&pace, GREEDY));
        advance(WINDOW / 2).await;
        pace.was_here(OTHER);
        assert!(is_slow(&pace, GREEDY));
    }

    #[tokio::test(start_paused = true)]
    async fn a38_whoever_is_slowed_asks_for_much_all_the_same() {
        let pace = Arc::new(Pace::new(RATE));
        pace.was_here(GREEDY);
        pace.was_here(OTHER);
        let all = at_once(&pace, 20 * RATE);
        tokio::time::sleep(2 * WINDOW).await;
        assert!(!all.last().unwrap().is_finished());
        pace.was_here(GREEDY);
        assert!(!is_slow(&pace, OTHER), "the other one does not wait for it");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stands_in_line_goes_on_once_nobody_else_is_there() {
        const STEPS: u32 = 1000;
        let pace = Arc::new(Pace::new(RATE));
        pace.was_here(OTHER);
        let began = Instant::now();
        for one in at_once(&pace, STEPS) {
            one.await.unwrap();
        }
        let took = began.elapsed();
        assert!(took >= HERE - STEP && took <= HERE + STEP, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handful_of_steps_need_not_wait_and_more_do() {
        const SECONDS: u32 = 60;
        let pace = Pace::new(RATE);
        pace.was_here(OTHER);
        let at_once = core::iter::repeat_with(|| pace.try_step(GREEDY));
        let at_once = at_once.take_while(|begun| *begun).count();
        assert_eq!(at_once, 1 + EXTRAS_MAX as usize);
        // Whoever takes each of them as soon as it may.
        let mut steps = 0;
        for _ in 0..SECONDS * 1000 {
            pace.was_here(OTHER);
            steps += u32::from(pace.try_step(GREEDY));
            advance(Duration::from_millis(1)).await;
        }
        let most = SECONDS * (RATE + 2);
        assert!(steps <= most && steps >= most - SECONDS, "{steps}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_costs_the_others_in_line_nothing() {
        let pace = Arc::new(Pace::new(RATE));
        pace.was_here(OTHER);
        let all = at_once(&pace, 50);
        tokio::time::sleep(STEP / 2).await;
        all.iter().for_each(JoinHandle::abort);
        let began = Instant::now();
        assert!(pace.step(GREEDY).await);
        assert!(began.elapsed() <= STEP, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_of_which_nothing_has_to_be_remembered_are_forgotten() {
        let pace = Pace::new(RATE);
        for n in 0..4 * SWEEP_MIN {
            let mut id = [9; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            pace.try_step(AccountId::from_bytes(id));
            advance(WINDOW / 256).await;
        }
        let kept = pace.state().accounts.len();
        assert!(kept <= 2 * SWEEP_MIN, "{kept}");
    }
}
