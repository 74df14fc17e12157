//! Work: how much of what one account asks for the cell does at one time.
//!
//! Each request that is there in full has its part of the writer's commits and of the disk's time, and whoever comes
//! meanwhile waits for that part. So while somebody is there who asks for little, an account has one place, with all its
//! devices, and otherwise a few.

use std::sync::Arc;

use candor_wire::ids::AccountId;
use tokio::sync::OwnedSemaphorePermit;

use crate::shares::Shares;
use crate::turns::Turns;

/// Places of an account while nobody is there who asks for little. Two keep the disk busy, and four an account's
/// devices, while more would only make each commit longer.
const PLACES: usize = 4;

/// The places of all accounts.
pub(crate) struct Work {
    own: Shares<AccountId>,
    more: Shares<AccountId>,
    turns: Arc<Turns>,
}

impl Work {
    /// The turns know who is there.
    pub(crate) fn new(turns: Arc<Turns>) -> Self {
        Self {
            own: Shares::new(1),
            more: Shares::new(PLACES - 1),
            turns,
        }
    }

    /// A place, unless all that the account may have now are taken.
    pub(crate) fn try_take(&self, account: AccountId) -> Option<OwnedSemaphorePermit> {
        let own = self.own.try_take(account);
        if own.is_some() || self.turns.is_somebody_ahead() {
            return own;
        }
        self.more.try_take(account)
    }

    /// Waits for a place of the account; others do not wait for it.
    pub(crate) async fn take(&self, account: AccountId) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            place = self.own.take(account) => place,
            place = self.more.take(account), if !self.turns.is_somebody_ahead() => place,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use core::task::{Context, Waker};

    use super::*;
    use crate::turns::Holder;

    const GREEDY: AccountId = AccountId::from_bytes([1; 16]);
    const OTHER: AccountId = AccountId::from_bytes([2; 16]);

    /// As many places as the account gets.
    fn places(work: &Work, account: AccountId) -> Vec<OwnedSemaphorePermit> {
        core::iter::from_fn(|| work.try_take(account)).collect()
    }

    #[tokio::test]
    async fn a38_one_account_has_one_place_while_somebody_asks_for_little() {
        let turns = Turns::new(2);
        let work = Work::new(Arc::clone(&turns));
        assert_eq!(places(&work, GREEDY).len(), PLACES);
        assert_eq!(places(&work, OTHER).len(), PLACES, "each has its own");
        // Somebody has had much, and somebody else comes.
        turns.counts(Holder::Account(GREEDY), 1000);
        let seat = turns.seat(Holder::Account(OTHER));
        let mut asks = core::pin::pin!(seat.of(async {}));
        assert!(
            asks.as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        );
        let held = places(&work, GREEDY);
        assert_eq!(held.len(), 1);
        assert!(work.try_take(OTHER).is_some());
        // Whoever waits gets the place that comes free.
        let (waiting, ()) = tokio::join!(work.take(GREEDY), async { drop(held) });
        assert!(waiting.is_some());
    }
}
