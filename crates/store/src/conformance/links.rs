//! The rules of [`Links`].

use std::sync::Arc;

use bytes::Bytes;
use candor_wire::Millis;
use candor_wire::linking::{LINK_MESSAGE_MAX_BYTES, LINK_MESSAGES, LINKS_MAX};

use super::records::{NOW, nonce, with_account};
use super::{NO_FAULT, account};
use crate::links::{LinkOpening, LinkOutcome, Links, MessageOutcome};
use crate::records::{AccountState, Records, RecordsError};

const END: Millis = NOW.plus_ms(1000);

trait Both: Records + Links {}

impl<S: Records + Links> Both for S {}

/// Puts links through every rule. `fresh` makes an empty store.
///
/// # Panics
/// If a rule is broken.
pub async fn check_links<S: Records + Links>(fresh: impl Fn() -> Arc<S>) {
    a_place_takes_one_message(&*fresh()).await;
    a_link_ends(&*fresh()).await;
    an_account_has_so_many(&*fresh()).await;
    nobody_opens_one_for_nobody(&*fresh()).await;
    what_no_link_can_hold_is_refused(&*fresh()).await;
}

fn opening(number: u8) -> LinkOpening {
    LinkOpening {
        name: [number; 32],
        account: account(1),
        expires_at: END,
        now: NOW,
    }
}

async fn opens(links: &dyn Both, opening: LinkOpening) -> LinkOutcome {
    links.open_link(None, opening).await.expect(NO_FAULT)
}

async fn leaves(links: &dyn Both, place: u8, message: &[u8], now: Millis) -> MessageOutcome {
    let message = Bytes::copy_from_slice(message);
    let outcome = links.leave_message([1; 32], place, message, now).await;
    outcome.expect(NO_FAULT)
}

async fn a_place_takes_one_message(links: &dyn Both) {
    with_account(links, 1).await;
    assert_eq!(
        leaves(links, 0, b"early", NOW).await,
        MessageOutcome::NoSuchLink
    );
    assert_eq!(opens(links, opening(1)).await, LinkOutcome::Opened);
    assert_eq!(opens(links, opening(1)).await, LinkOutcome::AlreadyThere);
    for place in 0..LINK_MESSAGES as u8 {
        let message = [place; 10];
        assert_eq!(
            leaves(links, place, &message, NOW).await,
            MessageOutcome::Left
        );
        let again = leaves(links, place, &message, NOW).await;
        assert_eq!(again, MessageOutcome::AlreadyThere);
        assert_eq!(
            leaves(links, place, b"other", NOW).await,
            MessageOutcome::Taken
        );
        let found = links
            .link([1; 32], NOW)
            .await
            .expect(NO_FAULT)
            .expect("it is open");
        assert_eq!(found.account, opening(1).account);
        for (number, found) in (0..).zip(&found.messages) {
            let expected = (number <= place).then(|| Bytes::from(vec![number; 10]));
            assert_eq!(*found, expected);
        }
    }
    let other = links.link([2; 32], NOW).await.expect(NO_FAULT);
    assert_eq!(other, None);
}

async fn a_link_ends(links: &dyn Both) {
    with_account(links, 1).await;
    assert_eq!(opens(links, opening(1)).await, LinkOutcome::Opened);
    let last = END.plus_ms(-1);
    assert_eq!(
        leaves(links, 0, b"in time", last).await,
        MessageOutcome::Left
    );
    assert_eq!(
        leaves(links, 1, b"late", END).await,
        MessageOutcome::NoSuchLink
    );
    let found = links.link([1; 32], END).await.expect(NO_FAULT);
    assert_eq!(found, None);
    for (before, limit, swept) in [
        (END, 10, 0),
        (END.plus_ms(1), 0, 0),
        (END.plus_ms(1), 10, 1),
    ] {
        let outcome = links.sweep_links(before, limit).await.expect(NO_FAULT);
        assert_eq!(outcome, swept);
    }
    assert_eq!(opens(links, opening(1)).await, LinkOutcome::Opened);
}

async fn an_account_has_so_many(links: &dyn Both) {
    with_account(links, 1).await;
    with_account(links, 2).await;
    for number in 0..LINKS_MAX as u8 {
        assert_eq!(opens(links, opening(number)).await, LinkOutcome::Opened);
    }
    assert_eq!(opens(links, opening(100)).await, LinkOutcome::TooMany);
    let others = LinkOpening {
        account: account(2),
        ..opening(100)
    };
    assert_eq!(opens(links, others).await, LinkOutcome::Opened);
    let later = LinkOpening {
        now: END,
        expires_at: END.plus_ms(1000),
        ..opening(101)
    };
    assert_eq!(opens(links, later).await, LinkOutcome::Opened);
}

async fn nobody_opens_one_for_nobody(links: &dyn Both) {
    let refused = links.open_link(None, opening(1)).await;
    assert!(matches!(refused, Err(RecordsError::NoSuchAccount(_))));
    with_account(links, 1).await;
    let first = links.open_link(Some(nonce(1)), opening(1)).await;
    assert_eq!(first.expect(NO_FAULT), LinkOutcome::Opened);
    let again = links.open_link(Some(nonce(1)), opening(2)).await;
    assert!(matches!(again, Err(RecordsError::Replayed)));
    let frozen = links.set_account_state(account(1), AccountState::Frozen);
    frozen.await.expect(NO_FAULT);
    let refused = links.open_link(None, opening(2)).await;
    assert!(matches!(refused, Err(RecordsError::AccountFrozen(_))));
}

async fn what_no_link_can_hold_is_refused(links: &dyn Both) {
    with_account(links, 1).await;
    assert_eq!(opens(links, opening(1)).await, LinkOutcome::Opened);
    let longest = Bytes::from(vec![1; LINK_MESSAGE_MAX_BYTES]);
    let longer = Bytes::from(vec![1; LINK_MESSAGE_MAX_BYTES + 1]);
    for (place, message) in [(LINK_MESSAGES as u8, longest.clone()), (0, longer)] {
        let refused = links.leave_message([1; 32], place, message, NOW).await;
        assert!(matches!(refused, Err(RecordsError::Invalid(_))));
    }
    assert_eq!(leaves(links, 0, &longest, NOW).await, MessageOutcome::Left);
}
