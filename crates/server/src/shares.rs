//! Shares: how much of the cell one account, or one network address, may hold at one time, so that nobody can
//! keep the others waiting.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From this many entries on, those that nobody holds are swept with the next one. An entry is small.
const SWEEP_MIN_ENTRIES: usize = 1024;

/// Shares of one kind: so many for each holder.
pub(crate) struct Shares<K> {
    each: usize,
    held: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Hash + Eq> Shares<K> {
    /// `each` for everybody, and at least one.
    pub(crate) fn new(each: usize) -> Self {
        Self {
            each: each.max(1),
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<K, Weak<Semaphore>>> {
        // The map is never left half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, holder: K) -> Arc<Semaphore> {
        let mut held = self.held();
        if let Some(share) = held.get(&holder).and_then(Weak::upgrade) {
            return share;
        }
        if held.len() >= SWEEP_MIN_ENTRIES {
            held.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.each));
        held.insert(holder, Arc::downgrade(&share));
        share
    }

    /// Waits for one of the holder's own; others do not wait for it.
    pub(crate) async fn take(&self, holder: K) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.of(holder).acquire_owned().await.ok()
    }

    /// One of the holder's own, unless all are taken.
    pub(crate) fn try_take(&self, holder: K) -> Option<OwnedSemaphorePermit> {
        self.of(holder).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn a_share_is_the_holder_s_own_and_comes_back() {
        let shares = Shares::new(2);
        let first = shares.take("one").await.unwrap();
        let _second = shares.take("one").await.unwrap();
        assert!(shares.try_take("one").is_none());
        assert!(
            shares.try_take("other").is_some(),
            "others are not concerned"
        );
        drop(first);
        assert!(shares.try_take("one").is_some());
        // Whoever has none still gets one.
        assert!(Shares::new(0).try_take("one").is_some());
    }

    #[test]
    fn holders_who_hold_nothing_are_forgotten() {
        let shares = Shares::new(1);
        let held = shares.try_take(u64::MAX).unwrap();
        for holder in 0..10 * SWEEP_MIN_ENTRIES as u64 {
            drop(shares.try_take(holder).unwrap());
        }
        assert!(shares.held().len() <= SWEEP_MIN_ENTRIES);
        assert!(shares.try_take(u64::MAX).is_none(), "but not those who do");
        drop(held);
    }
}
