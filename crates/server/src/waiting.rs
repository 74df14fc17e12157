//! Who waits for a vault's head to move, so that whoever moves it can wake them.
//!
//! A waiting read is both the push of the sync service and what it falls back on. The request passes through every
//! proxy that passes requests, is signed anew each time, and names the counter that its device knows already: whatever
//! moved between two of them is in the answer to the second, and nothing can be missed.
//!
//! 1. A request takes its place here before it reads the head: what moves after that wakes it.
//! 2. While it waits it holds this place and nothing else: no share of the cell, no connection to the database, no view
//!    of the account.
//! 3. It is woken by a head above the one that it knows, by whatever changes its account's chain, and when the cell
//!    stops. Woken, it is judged again like a new request.
//! 4. A wake-up that was lost, or a head that another process moved, is found by looking every few seconds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use candor_wire::ids::{AccountId, DeviceId, VaultId};
use tokio::sync::Notify;

/// Waiting requests of one account, with all its devices: a handful of devices that each wait for some vaults. Each
/// holds a connection and a few KiB.
pub(crate) const WAITS_PER_ACCOUNT_MAX: usize = 64;

/// Of these, waiting requests of one device, or of the account's root key: a device that is in other hands does not
/// stand in the way of the others.
pub(crate) const WAITS_PER_DEVICE_MAX: usize = 16;

/// How often a waiting request looks at the head without having been woken.
pub(crate) const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// How often all waiting requests together look at most, in a second: each look is one small read, and this many cost
/// less than a thousandth of one processor. With more than 20 waiting requests each looks less often; with more than
/// 500 none does, and the next request finds what was missed.
const LOOKS_PER_SECOND_MAX: u32 = 10;

/// What a waiting request is known by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awaited {
    pub(crate) account: AccountId,
    /// Who waits; `None` for the account's root key.
    pub(crate) device: Option<DeviceId>,
    pub(crate) vault: VaultId,
    /// The counter that is known: only heads above it are waited for.
    pub(crate) after: u64,
}

struct Entry {
    number: u64,
    awaited: Awaited,
    woken: Arc<Notify>,
}

#[derive(Default)]
struct Entries {
    by_account: HashMap<AccountId, Vec<Entry>>,
    next: u64,
}

/// All waiting requests of one cell.
pub(crate) struct Waiters {
    most: usize,
    entries: Mutex<Entries>,
    count: AtomicUsize,
}

impl Waiters {
    /// Room for `most` of them.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            entries: Mutex::default(),
            count: AtomicUsize::new(0),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Entries are added and removed whole: whatever stopped a thread, the map is one.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place to wait at; `None` if the device, the account or the cell has too many already.
    pub(crate) fn enter(self: &Arc<Self>, awaited: Awaited) -> Option<Waiter> {
        let mut entries = self.entries();
        let own = entries.by_account.get(&awaited.account);
        let own = own.map_or(&[][..], Vec::as_slice);
        let of_device = own
            .iter()
            .filter(|entry| entry.awaited.device == awaited.device);
        let is_full = self.count() >= self.most
            || own.len() >= WAITS_PER_ACCOUNT_MAX
            || of_device.count() >= WAITS_PER_DEVICE_MAX;
        if is_full {
            return None;
        }
        let (number, woken) = (entries.next, Arc::<Notify>::default());
        entries.next += 1;
        let own = entries.by_account.entry(awaited.account).or_default();
        own.push(Entry {
            number,
            awaited,
            woken: Arc::clone(&woken),
        });
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(Waiter {
            waiters: Arc::clone(self),
            account: awaited.account,
            number,
            woken,
        })
    }

    fn leave(&self, account: &AccountId, number: u64) {
        let mut entries = self.entries();
        let Some(own) = entries.by_account.get_mut(account) else {
            return;
        };
        own.retain(|entry| entry.number != number);
        if own.is_empty() {
            entries.by_account.remove(account);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    fn wake(&self, account: &AccountId, which: impl Fn(&Awaited) -> bool) {
        let entries = self.entries();
        let own = entries.by_account.get(account).into_iter().flatten();
        own.filter(|entry| which(&entry.awaited))
            .for_each(|entry| entry.woken.notify_one());
    }

    /// A vault's head has this counter now, durably: wakes whoever waits for it.
    pub(crate) fn head_moved(&self, account: &AccountId, vault: &VaultId, counter: u64) {
        self.wake(account, |awaited| {
            awaited.vault == *vault && awaited.after < counter
        });
    }

    /// The account's chain went on, or is gone: wakes all that wait for anything of it, so that they are judged again.
    pub(crate) fn account_changed(&self, account: &AccountId) {
        self.wake(account, |_| true);
    }

    /// The cell stops, and says so already: wakes everybody.
    pub(crate) fn stop(&self) {
        let entries = self.entries();
        let all = entries.by_account.values().flatten();
        all.for_each(|entry| entry.woken.notify_one());
    }

    /// How long one of them waits before it looks at the head by itself.
    pub(crate) fn look_pause(&self) -> Duration {
        let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
        let turn = Duration::from_secs(1) * count / LOOKS_PER_SECOND_MAX;
        turn.max(LOOK_PAUSE)
    }
}

/// A place among those who wait, until it is dropped.
pub(crate) struct Waiter {
    waiters: Arc<Waiters>,
    account: AccountId,
    number: u64,
    woken: Arc<Notify>,
}

impl Waiter {
    /// Ready once for all wake-ups since the last time, those before the call included.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiters.leave(&self.account, self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn awaited(account: u8, device: u8, after: u64) -> Awaited {
        Awaited {
            account: AccountId::from_bytes([account; 16]),
            device: Some(DeviceId::from_bytes([device; 16])),
            vault: VaultId::from_bytes([7; 16]),
            after,
        }
    }

    async fn is_woken(waiter: &Waiter) -> bool {
        let soon = Duration::from_millis(1);
        tokio::time::timeout(soon, waiter.woken()).await.is_ok()
    }

    #[test]
    fn device_account_and_cell_have_so_many_places() {
        let waiters = Arc::new(Waiters::new(WAITS_PER_ACCOUNT_MAX + 1));
        let mut held = Vec::new();
        let devices = u8::try_from(WAITS_PER_ACCOUNT_MAX / WAITS_PER_DEVICE_MAX).unwrap();
        for device in 0..devices {
            for _ in 0..WAITS_PER_DEVICE_MAX {
                held.push(waiters.enter(awaited(1, device, 0)).unwrap());
            }
            assert!(waiters.enter(awaited(1, device, 0)).is_none(), "the device");
        }
        assert!(
            waiters.enter(awaited(1, devices, 0)).is_none(),
            "the account"
        );
        held.push(waiters.enter(awaited(2, 0, 0)).unwrap());
        assert!(waiters.enter(awaited(3, 0, 0)).is_none(), "the cell");
        assert_eq!(waiters.count(), WAITS_PER_ACCOUNT_MAX + 1);
        held.pop();
        assert!(waiters.enter(awaited(3, 0, 0)).is_some());
        held.clear();
        assert_eq!(waiters.count(), 0);
        assert!(waiters.entries().by_account.is_empty(), "all are forgotten");
    }

    #[tokio::test]
    async fn whoever_waits_for_it_is_woken_and_nobody_else() {
        let waiters = Arc::new(Waiters::new(10));
        let [mine, ahead, other] =
            [(1, 3), (1, 4), (2, 3)].map(|(account, after)| awaited(account, 0, after));
        let elsewhere = Awaited {
            vault: VaultId::from_bytes([8; 16]),
            ..mine
        };
        let all = [mine, ahead, other, elsewhere].map(|one| waiters.enter(one).unwrap());
        // Before anybody waits for it: no wake-up is lost.
        waiters.head_moved(&mine.account, &mine.vault, 4);
        for (waiter, expected) in all.iter().zip([true, false, false, false]) {
            assert_eq!(is_woken(waiter).await, expected);
        }
        waiters.account_changed(&mine.account);
        for (waiter, expected) in all.iter().zip([true, true, false, true]) {
            assert_eq!(is_woken(waiter).await, expected);
        }
        waiters.stop();
        for waiter in &all {
            assert!(is_woken(waiter).await);
        }
    }

    #[test]
    fn many_look_as_often_as_few_altogether() {
        let waiters = Waiters::new(usize::MAX);
        for (count, seconds) in [(0, 2), (20, 2), (21, 2), (100, 10), (20_000, 2000)] {
            waiters.count.store(count, Ordering::Relaxed);
            assert_eq!(waiters.look_pause().as_secs(), seconds);
        }
    }
}
