//! The rules of [`Records`]: how objects and quota are accounted for.

use std::sync::Arc;

use candor_wire::limits::HAS_MAX_IDS;
use candor_wire::{Millis, ObjectId};

use super::records::{NOW, QUOTA, head, nonce, swap, with_account};
use super::{NO_FAULT, account, key, vault};
use crate::objects::ObjectKey;
use crate::records::{
    AccountState, ConfirmOutcome, Head, HeadSwap, ObjectState, Presence, RESERVATION_MAX_MS,
    Records, RecordsError, Reservation, ReserveOutcome, SwapOutcome,
};

pub(super) async fn check_accounting(fresh: impl Fn() -> Arc<dyn Records>) {
    an_object_is_reserved_then_stored(&*fresh()).await;
    quota_is_never_exceeded(&*fresh()).await;
    quota_holds_against_many_at_once(fresh()).await;
    reservations_expire(&*fresh()).await;
    a_failed_upload_gives_its_quota_back(&*fresh()).await;
    has_answers_in_order(&*fresh()).await;
    condemned_objects_go_after_a_while_unless_they_are_rescued(&*fresh()).await;
    a_head_moves_only_if_what_it_needs_is_stored(&*fresh()).await;
    stored_objects_are_listed(&*fresh()).await;
}

fn object(number: u8) -> ObjectKey {
    key(1, 1, ObjectId::from_bytes([number; 32]))
}

fn reservation(number: u8, size: u64) -> Reservation {
    Reservation {
        key: object(number),
        size,
        now: NOW,
    }
}

async fn reserve(records: &dyn Records, number: u8, size: u64) -> ReserveOutcome {
    records
        .reserve(None, reservation(number, size))
        .await
        .expect(NO_FAULT)
}

async fn confirm(records: &dyn Records, number: u8) -> ConfirmOutcome {
    records
        .confirm(object(number), NOW.plus_ms(1))
        .await
        .expect(NO_FAULT)
}

async fn bytes(records: &dyn Records) -> (u64, u64) {
    let found = records
        .account(account(1))
        .await
        .expect(NO_FAULT)
        .expect("it was opened");
    (found.stored_bytes, found.reserved_bytes)
}

async fn state(records: &dyn Records, number: u8) -> Option<ObjectState> {
    records
        .object(object(number))
        .await
        .expect(NO_FAULT)
        .map(|entry| entry.state)
}

async fn an_object_is_reserved_then_stored(records: &dyn Records) {
    with_account(records, 1).await;
    assert_eq!(confirm(records, 1).await, ConfirmOutcome::NotReserved);
    assert_eq!(state(records, 1).await, None);
    let first = records
        .reserve(Some(nonce(1)), reservation(1, 300))
        .await
        .expect(NO_FAULT);
    assert_eq!(first, ReserveOutcome::Reserved);
    assert_eq!(
        (bytes(records).await, state(records, 1).await),
        ((0, 300), Some(ObjectState::Reserved))
    );
    let replayed = records.reserve(Some(nonce(1)), reservation(1, 300)).await;
    assert!(matches!(replayed, Err(RecordsError::Replayed)));
    assert_eq!(
        reserve(records, 1, 300).await,
        ReserveOutcome::Reserved,
        "it can be renewed"
    );
    assert_eq!(bytes(records).await, (0, 300), "and is counted once");
    let other_size = records.reserve(None, reservation(1, 301)).await;
    assert!(matches!(other_size, Err(RecordsError::Invalid(_))));

    assert_eq!(confirm(records, 1).await, ConfirmOutcome::Confirmed);
    assert_eq!(
        (bytes(records).await, state(records, 1).await),
        ((300, 0), Some(ObjectState::Stored))
    );
    let entry = records
        .object(object(1))
        .await
        .expect(NO_FAULT)
        .expect("it is stored");
    assert_eq!((entry.size, entry.since), (300, NOW.plus_ms(1)));
    assert_eq!(confirm(records, 1).await, ConfirmOutcome::AlreadyStored);
    assert_eq!(
        reserve(records, 1, 300).await,
        ReserveOutcome::AlreadyStored
    );
    assert_eq!(bytes(records).await, (300, 0));
    assert!(
        !records.release(object(1), NOW).await.expect(NO_FAULT),
        "what is stored stays"
    );

    let nobody = Reservation {
        key: key(2, 1, object(1).object),
        size: 1,
        now: NOW,
    };
    let refused = records.reserve(None, nobody).await;
    assert!(matches!(refused, Err(RecordsError::NoSuchAccount(_))));
    records
        .set_account_state(account(1), AccountState::Frozen)
        .await
        .expect(NO_FAULT);
    let refused = records.reserve(None, reservation(2, 1)).await;
    assert!(matches!(refused, Err(RecordsError::AccountFrozen(_))));
    records.check().await.expect("a sound store says so");
}

async fn store_all(records: &dyn Records, numbers: &[u8]) {
    for number in numbers {
        assert_eq!(
            reserve(records, *number, 100).await,
            ReserveOutcome::Reserved
        );
        assert_eq!(confirm(records, *number).await, ConfirmOutcome::Confirmed);
    }
}

fn move_to(counter: u64, condemned: &[u8], needed: &[u8], moved_at: Millis) -> HeadSwap {
    let before = (counter > 1).then(|| head(counter - 1, (counter - 1) as u8));
    let names = |numbers: &[u8]| numbers.iter().map(|one| object(*one).object).collect();
    let new = Head {
        moved_at,
        ..head(counter, counter as u8)
    };
    HeadSwap {
        condemned: names(condemned),
        needed: names(needed),
        is_run: false,
        ..swap(before.as_ref(), new)
    }
}

async fn standing(records: &dyn Records, numbers: &[u8]) -> Vec<Presence> {
    let asked = numbers.iter().map(|one| object(*one).object).collect();
    let answers = records.has_objects(account(1), vault(1), asked).await;
    answers.expect(NO_FAULT)
}

async fn condemned_objects_go_after_a_while_unless_they_are_rescued(records: &dyn Records) {
    use Presence::{Absent, Condemned, Stored};
    with_account(records, 1).await;
    store_all(records, &[1, 2, 3, 4]).await;
    reserve(records, 5, 100).await;
    // What is not stored, and what is not known, is passed over.
    let first = move_to(1, &[1, 2, 3, 5, 9], &[4], NOW);
    let outcome = records.swap_head(None, first).await.expect(NO_FAULT);
    assert_eq!(outcome, SwapOutcome::Swapped);
    let all = [1, 2, 3, 4, 5, 9];
    let expected = [Condemned, Condemned, Condemned, Stored, Absent, Absent];
    assert_eq!(standing(records, &all).await, expected);
    // Condemning again does not begin anew; rescuing does.
    let second = move_to(2, &[1], &[2], NOW.plus_ms(50));
    records.swap_head(None, second).await.expect(NO_FAULT);
    let third = move_to(3, &[2], &[], NOW.plus_ms(60));
    records.swap_head(None, third).await.expect(NO_FAULT);
    let go = |before: i64| async move {
        let (before, now) = (NOW.plus_ms(before), NOW.plus_ms(100));
        let gone = records.let_condemned_go(before, now, 10).await;
        gone.expect(NO_FAULT)
    };
    assert_eq!(go(0).await, 0, "not before their time");
    assert_eq!(go(1).await, 2);
    assert_eq!(state(records, 1).await, Some(ObjectState::Releasing));
    assert_eq!(
        bytes(records).await,
        (200, 300),
        "they count until they are gone"
    );
    let keys = records
        .releasing(NOW.plus_ms(100), 10)
        .await
        .expect(NO_FAULT);
    assert_eq!(keys, [object(1), object(3)]);
    assert_eq!(records.finish_release(keys).await.expect(NO_FAULT), 2);
    assert_eq!(bytes(records).await, (200, 100));
    assert_eq!(go(61).await, 1);
    assert_eq!(
        standing(records, &all).await,
        [Absent, Absent, Absent, Stored, Absent, Absent]
    );
    records.check().await.expect("a sound store says so");
}

async fn a_head_moves_only_if_what_it_needs_is_stored(records: &dyn Records) {
    with_account(records, 1).await;
    store_all(records, &[1, 2]).await;
    let first = move_to(1, &[1], &[2], NOW);
    records.swap_head(None, first).await.expect(NO_FAULT);
    let late = NOW.plus_ms(10);
    let gone = records.let_condemned_go(late, late, 10).await;
    assert_eq!(gone.expect(NO_FAULT), 1);
    // Nothing of a refused move happens.
    let refused = move_to(2, &[2], &[1], late);
    let outcome = records.swap_head(None, refused).await.expect(NO_FAULT);
    assert_eq!(outcome, SwapOutcome::Missing(object(1).object));
    assert_eq!(standing(records, &[2]).await, [Presence::Stored]);
    let found = records.head(account(1), vault(1)).await.expect(NO_FAULT);
    assert_eq!(found.map(|head| head.mark.counter), Some(1));
    // An object of another vault is none of this one's.
    let elsewhere = HeadSwap {
        vault: vault(2),
        expected: None,
        ..move_to(1, &[2], &[], late)
    };
    let outcome = records.swap_head(None, elsewhere).await.expect(NO_FAULT);
    assert_eq!(outcome, SwapOutcome::Swapped);
    assert_eq!(standing(records, &[2]).await, [Presence::Stored]);
}

async fn quota_is_never_exceeded(records: &dyn Records) {
    with_account(records, 1).await;
    assert_eq!(reserve(records, 1, 600).await, ReserveOutcome::Reserved);
    confirm(records, 1).await;
    let over = |used| ReserveOutcome::OverQuota { used, quota: QUOTA };
    assert_eq!(reserve(records, 2, 401).await, over(600));
    assert_eq!(reserve(records, 2, i64::MAX as u64).await, over(600));
    assert_eq!(
        state(records, 2).await,
        None,
        "what does not fit leaves nothing"
    );
    assert_eq!(reserve(records, 2, 400).await, ReserveOutcome::Reserved);
    assert_eq!(reserve(records, 3, 1).await, over(1000));

    records.set_quota(account(1), 500).await.expect(NO_FAULT);
    assert_eq!(
        confirm(records, 2).await,
        ConfirmOutcome::Confirmed,
        "a promise is kept"
    );
    let over = ReserveOutcome::OverQuota {
        used: 1000,
        quota: 500,
    };
    assert_eq!(reserve(records, 3, 1).await, over);
    records
        .set_quota(account(1), u64::MAX)
        .await
        .expect(NO_FAULT);
    assert_eq!(reserve(records, 3, 1).await, ReserveOutcome::Reserved);
}

async fn quota_holds_against_many_at_once(records: Arc<dyn Records>) {
    with_account(&*records, 1).await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..20 {
        let records = Arc::clone(&records);
        waiting.spawn(async move { reserve(&*records, number, 90).await });
    }
    let outcomes = waiting.join_all().await;
    let reserved = outcomes
        .iter()
        .filter(|outcome| **outcome == ReserveOutcome::Reserved)
        .count();
    assert_eq!(
        (reserved, bytes(&*records).await),
        (11, (0, 990)),
        "11 of 90 bytes fit into 1000"
    );
}

async fn reservations_expire(records: &dyn Records) {
    with_account(records, 1).await;
    reserve(records, 1, 100).await;
    reserve(records, 2, 100).await;
    reserve(records, 3, 100).await;
    confirm(records, 3).await;
    let later = Reservation {
        now: NOW.plus_ms(10),
        ..reservation(2, 100)
    };
    records.reserve(None, later).await.expect(NO_FAULT);

    let releasing =
        |now: Millis, limit| async move { records.releasing(now, limit).await.expect(NO_FAULT) };
    let end = NOW.plus_ms(RESERVATION_MAX_MS);
    assert_eq!(releasing(end.plus_ms(-1), 10).await, []);
    assert_eq!(
        releasing(end, 10).await,
        [object(1)],
        "the renewed one lives on"
    );
    assert_eq!(
        releasing(end, 10).await,
        [object(1)],
        "until it is finished, it comes again"
    );
    assert_eq!(
        (bytes(records).await, state(records, 1).await),
        ((100, 200), Some(ObjectState::Releasing))
    );
    assert_eq!(
        confirm(records, 1).await,
        ConfirmOutcome::NotReserved,
        "too late"
    );
    assert_eq!(reserve(records, 1, 100).await, ReserveOutcome::Releasing);

    let finished = records
        .finish_release(vec![object(1), object(2), object(3), object(4)])
        .await;
    assert_eq!(
        finished.expect(NO_FAULT),
        1,
        "only what is releasing is forgotten"
    );
    assert_eq!(
        (bytes(records).await, state(records, 1).await),
        ((100, 100), None)
    );
    assert_eq!(
        reserve(records, 1, 100).await,
        ReserveOutcome::Reserved,
        "it can come again"
    );
    assert_eq!(
        releasing(end.plus_ms(10), 1).await.len(),
        1,
        "pages are as short as asked"
    );
    assert_eq!(
        releasing(end.plus_ms(11), 10).await,
        [object(1), object(2)],
        "the oldest first"
    );
    records.check().await.expect("a sound store says so");
}

async fn a_failed_upload_gives_its_quota_back(records: &dyn Records) {
    with_account(records, 1).await;
    assert!(
        !records.release(object(1), NOW).await.expect(NO_FAULT),
        "it is not known"
    );
    reserve(records, 1, 1000).await;
    assert!(records.release(object(1), NOW).await.expect(NO_FAULT));
    assert!(
        !records.release(object(1), NOW).await.expect(NO_FAULT),
        "once"
    );
    assert_eq!(
        bytes(records).await,
        (0, 1000),
        "quota is held while the bytes may be there"
    );
    assert_eq!(
        records.releasing(NOW, 10).await.expect(NO_FAULT),
        [object(1)]
    );
    assert_eq!(
        records
            .finish_release(vec![object(1)])
            .await
            .expect(NO_FAULT),
        1
    );
    assert_eq!(
        records
            .finish_release(vec![object(1)])
            .await
            .expect(NO_FAULT),
        0
    );
    assert_eq!(bytes(records).await, (0, 0));
}

async fn has_answers_in_order(records: &dyn Records) {
    use Presence::{Absent, Stored};
    with_account(records, 1).await;
    for number in [1, 3] {
        reserve(records, number, 1).await;
        confirm(records, number).await;
    }
    reserve(records, 2, 1).await;
    let name = |number: u8| object(number).object;
    let asked = vec![name(3), name(4), name(2), name(1), name(3)];
    let here = records
        .has_objects(account(1), vault(1), asked.clone())
        .await
        .expect(NO_FAULT);
    assert_eq!(
        here,
        [Stored, Absent, Absent, Stored, Stored],
        "reserved is not stored"
    );
    for (other_account, other_vault) in [(1, 2), (2, 1)] {
        let there = records.has_objects(account(other_account), vault(other_vault), asked.clone());
        assert_eq!(
            there.await.expect(NO_FAULT),
            [Absent; 5],
            "within one vault only"
        );
    }
    let none = records
        .has_objects(account(1), vault(1), vec![])
        .await
        .expect(NO_FAULT);
    assert!(none.is_empty());
    let many = vec![name(1); HAS_MAX_IDS + 1];
    let refused = records.has_objects(account(1), vault(1), many).await;
    assert!(matches!(refused, Err(RecordsError::Invalid(_))));
}

async fn stored_objects_are_listed(records: &dyn Records) {
    with_account(records, 1).await;
    for number in [9, 0, 255, 128, 4] {
        reserve(records, number, u64::from(number) % 100).await;
        if number != 4 {
            confirm(records, number).await;
        }
    }
    let list = |after: Option<u8>, limit| async move {
        let after = after.map(|after| object(after).object);
        let page = records
            .list_objects(account(1), vault(1), after, limit)
            .await
            .expect(NO_FAULT);
        page.iter()
            .map(|entry| entry.object.as_bytes()[0])
            .collect::<Vec<_>>()
    };
    assert_eq!(
        list(None, 10).await,
        [0, 9, 128, 255],
        "in order, without the reserved one"
    );
    assert_eq!(list(None, 2).await, [0, 9]);
    assert_eq!(list(Some(9), 2).await, [128, 255]);
    assert_eq!(
        list(Some(10), 2).await,
        [128, 255],
        "after a name that is not there"
    );
    assert_eq!(list(Some(255), 2).await, [0; 0]);
}
