//! The rules of [`Records`]: the cell's values, accounts, chains, heads and nonces.

use std::sync::Arc;

use bytes::Bytes;
use candor_wire::ids::{Link, RequestNonce};
use candor_wire::{DeviceId, Millis, StatementId, VaultId};

use super::accounting::check_accounting;
use super::{NO_FAULT, account, vault};
use crate::records::{
    AccountOpening, AccountState, AppendOutcome, CELL_VALUE_MAX_BYTES, CHAIN_PAGE_MAX_BYTES,
    ChainAppend, ChainRow, ChainTip, CreateOutcome, Head, HeadMark, HeadSwap, Invitation,
    NonceOutcome, NonceUse, OpenOutcome, Records, RecordsError, RootKeyHash, SecretHash,
    SwapOutcome,
};

pub(super) const NOW: Millis = Millis(1_700_000_000_000);
pub(super) const QUOTA: u64 = 1000;

/// Puts a store of records through every rule. `fresh` makes an empty one.
///
/// # Panics
/// If a rule is broken.
pub async fn check_records(fresh: impl Fn() -> Arc<dyn Records>) {
    values_of_the_cell(&*fresh()).await;
    an_invitation_opens_one_account(&*fresh()).await;
    a_refused_opening_keeps_the_invitation(&*fresh()).await;
    one_of_many_openings_wins(fresh()).await;
    a_chain_grows_at_its_end(&*fresh()).await;
    one_of_many_appends_wins(fresh()).await;
    rows_have_no_gap(&*fresh()).await;
    pages_of_a_chain_are_bounded(&*fresh()).await;
    a_head_only_moves_forwards(&*fresh()).await;
    heads_and_chain_hold_each_other_in_place(&*fresh()).await;
    one_of_many_swaps_wins(fresh()).await;
    a_frozen_account_takes_no_writes(&*fresh()).await;
    a_nonce_is_good_once(&*fresh()).await;
    a_nonce_goes_with_its_write(&*fresh()).await;
    a_refused_write_does_not_hurt_its_neighbours(fresh()).await;
    check_accounting(fresh).await;
}

pub(super) fn invitation(number: u8) -> Invitation {
    Invitation {
        secret: SecretHash([number; 32]),
        made_at: NOW,
        expires_at: NOW.plus_ms(1000),
        quota_bytes: QUOTA,
    }
}

pub(super) fn row(chain: u8, sequence: u64) -> ChainRow {
    let mut link = [chain; 32];
    link[..8].copy_from_slice(&sequence.to_be_bytes());
    ChainRow {
        sequence,
        kind: u32::MAX,
        link: Link::from_bytes(link),
        commitment: StatementId::from_bytes([chain ^ 0x55; 32]),
        record: Bytes::from(vec![chain; 100]),
        acknowledgement: Bytes::from_static(b"acknowledged"),
    }
}

pub(super) fn tip_of(row: &ChainRow) -> ChainTip {
    ChainTip {
        sequence: row.sequence,
        link: row.link,
    }
}

pub(super) fn opening(number: u8) -> AccountOpening {
    AccountOpening {
        secret: SecretHash([number; 32]),
        account: account(number),
        root_key: RootKeyHash([number; 32]),
        genesis: vec![row(number, 0), row(number, 1)],
        entries: Vec::new(),
        now: NOW,
    }
}

pub(super) fn nonce(number: u8) -> NonceUse {
    NonceUse {
        device: DeviceId::from_bytes([1; 16]),
        nonce: RequestNonce::from_bytes([number; 16]),
        seen_at: NOW,
    }
}

/// Makes account `number`, whose chain ends at sequence 1.
pub(super) async fn with_account(records: &dyn Records, number: u8) {
    let made = records
        .create_invitation(invitation(number))
        .await
        .expect(NO_FAULT);
    assert_eq!(made, CreateOutcome::Created);
    assert_eq!(
        records.open_account(opening(number)).await.expect(NO_FAULT),
        OpenOutcome::Opened
    );
}

async fn values_of_the_cell(records: &dyn Records) {
    assert_eq!(records.cell_value("name").await.expect(NO_FAULT), None);
    for value in [&b"first"[..], b"second", b""] {
        records
            .set_cell_value("name", Bytes::from_static(value))
            .await
            .expect(NO_FAULT);
        let found = records.cell_value("name").await.expect(NO_FAULT);
        assert_eq!(found.as_deref(), Some(value));
    }
    assert_eq!(records.cell_value("other").await.expect(NO_FAULT), None);
    let long = Bytes::from(vec![0; CELL_VALUE_MAX_BYTES + 1]);
    let refused = records.set_cell_value("name", long).await;
    assert!(matches!(refused, Err(RecordsError::Invalid(_))));
    records.check().await.expect("a sound store says so");
}

async fn an_invitation_opens_one_account(records: &dyn Records) {
    with_account(records, 1).await;
    let again = records
        .create_invitation(invitation(1))
        .await
        .expect(NO_FAULT);
    assert_eq!(
        again,
        CreateOutcome::AlreadyThere,
        "a used invitation is not made good again"
    );

    let found = records
        .account(account(1))
        .await
        .expect(NO_FAULT)
        .expect("it was opened");
    assert_eq!(found.root_key, RootKeyHash([1; 32]));
    assert_eq!((found.state, found.opened_at), (AccountState::Active, NOW));
    assert_eq!(
        (found.quota_bytes, found.stored_bytes, found.reserved_bytes),
        (QUOTA, 0, 0)
    );
    let by_key = records
        .account_by_root_key(RootKeyHash([1; 32]))
        .await
        .expect(NO_FAULT);
    assert_eq!(by_key, Some(found));
    assert_eq!(
        records
            .account_by_root_key(RootKeyHash([2; 32]))
            .await
            .expect(NO_FAULT),
        None
    );
    let tip = records.chain_tip(account(1)).await.expect(NO_FAULT);
    assert_eq!(tip, Some(tip_of(&row(1, 1))));

    let repeated = records.open_account(opening(1)).await.expect(NO_FAULT);
    assert_eq!(
        repeated,
        OpenOutcome::AlreadyOpened,
        "an answer that was lost can be had again"
    );
    let other_chain = AccountOpening {
        genesis: vec![row(9, 0)],
        ..opening(1)
    };
    let other_account = AccountOpening {
        account: account(2),
        ..opening(1)
    };
    let other_root = AccountOpening {
        root_key: RootKeyHash([2; 32]),
        ..opening(1)
    };
    for other in [other_chain, other_account, other_root] {
        let refused = records.open_account(other).await.expect(NO_FAULT);
        assert_eq!(refused, OpenOutcome::InvitationUsed);
    }
    assert_eq!(records.account(account(2)).await.expect(NO_FAULT), None);
    assert_eq!(records.chain_tip(account(2)).await.expect(NO_FAULT), None);
}

async fn a_refused_opening_keeps_the_invitation(records: &dyn Records) {
    with_account(records, 1).await;
    records
        .create_invitation(invitation(2))
        .await
        .expect(NO_FAULT);
    let unknown = AccountOpening {
        secret: SecretHash([3; 32]),
        ..opening(2)
    };
    let late = AccountOpening {
        now: NOW.plus_ms(1000),
        ..opening(2)
    };
    let taken = AccountOpening {
        account: account(1),
        ..opening(2)
    };
    let root_taken = AccountOpening {
        root_key: RootKeyHash([1; 32]),
        ..opening(2)
    };
    for (refused, why) in [
        (unknown, OpenOutcome::InvitationUnknown),
        (late, OpenOutcome::InvitationExpired),
        (taken, OpenOutcome::AccountExists),
        (root_taken, OpenOutcome::RootKeyTaken),
    ] {
        assert_eq!(records.open_account(refused).await.expect(NO_FAULT), why);
    }
    for genesis in [vec![], vec![row(2, 0), row(2, 2)]] {
        let refused = records
            .open_account(AccountOpening {
                genesis,
                ..opening(2)
            })
            .await;
        assert!(matches!(refused, Err(RecordsError::Invalid(_))));
    }
    let last_moment = AccountOpening {
        now: NOW.plus_ms(999),
        ..opening(2)
    };
    assert_eq!(
        records.open_account(last_moment).await.expect(NO_FAULT),
        OpenOutcome::Opened
    );
}

async fn one_of_many_openings_wins(records: Arc<dyn Records>) {
    records
        .create_invitation(invitation(1))
        .await
        .expect(NO_FAULT);
    let mut waiting = tokio::task::JoinSet::new();
    for number in 1..=8 {
        let records = Arc::clone(&records);
        let opening = AccountOpening {
            secret: SecretHash([1; 32]),
            ..opening(number)
        };
        waiting.spawn(async move { records.open_account(opening).await.expect(NO_FAULT) });
    }
    let outcomes = waiting.join_all().await;
    let opened = outcomes
        .iter()
        .filter(|outcome| **outcome == OpenOutcome::Opened)
        .count();
    let used = outcomes
        .iter()
        .filter(|outcome| **outcome == OpenOutcome::InvitationUsed)
        .count();
    assert_eq!((opened, used), (1, 7), "one invitation opens one account");
}

pub(super) fn append_after(last: &ChainRow, rows: Vec<ChainRow>) -> ChainAppend {
    ChainAppend {
        account: account(1),
        expected: tip_of(last),
        rows,
        entries: Vec::new(),
        erasures: Vec::new(),
        heads: None,
        now: NOW,
    }
}

async fn a_chain_grows_at_its_end(records: &dyn Records) {
    with_account(records, 1).await;
    let append = append_after(&row(1, 1), vec![row(1, 2), row(1, 3)]);
    let outcome = records.append(None, append.clone()).await.expect(NO_FAULT);
    assert_eq!(outcome, AppendOutcome::Appended(tip_of(&row(1, 3))));
    let stale = records.append(None, append).await.expect(NO_FAULT);
    assert_eq!(stale, AppendOutcome::Conflict(tip_of(&row(1, 3))));
    // The right place with the wrong link is another chain.
    let forked = records
        .append(None, append_after(&row(7, 3), vec![row(1, 4)]))
        .await;
    assert_eq!(
        forked.expect(NO_FAULT),
        AppendOutcome::Conflict(tip_of(&row(1, 3)))
    );

    let page = records
        .read_chain(account(1), None, 100)
        .await
        .expect(NO_FAULT);
    assert_eq!(page.rows, [row(1, 0), row(1, 1), row(1, 2), row(1, 3)]);
    assert!(!page.more);
    let page = records
        .read_chain(account(1), Some(0), 2)
        .await
        .expect(NO_FAULT);
    assert_eq!((page.rows, page.more), (vec![row(1, 1), row(1, 2)], true));
    let page = records
        .read_chain(account(1), Some(1), 2)
        .await
        .expect(NO_FAULT);
    assert_eq!((page.rows, page.more), (vec![row(1, 2), row(1, 3)], false));
    for (whose, after) in [(1, Some(3)), (2, None)] {
        let page = records
            .read_chain(account(whose), after, 2)
            .await
            .expect(NO_FAULT);
        assert_eq!((page.rows, page.more), (vec![], false));
    }
    let nobody = ChainAppend {
        account: account(2),
        ..append_after(&row(1, 3), vec![row(1, 4)])
    };
    let refused = records.append(None, nobody).await;
    assert!(matches!(refused, Err(RecordsError::NoSuchAccount(who)) if who == account(2)));
    records.check().await.expect("a sound store says so");
}

async fn one_of_many_appends_wins(records: Arc<dyn Records>) {
    with_account(&*records, 1).await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 10..20 {
        let records = Arc::clone(&records);
        let append = append_after(&row(1, 1), vec![row(number, 2)]);
        waiting.spawn(async move { records.append(None, append).await.expect(NO_FAULT) });
    }
    let outcomes = waiting.join_all().await;
    let tip = records
        .chain_tip(account(1))
        .await
        .expect(NO_FAULT)
        .expect("the account is there");
    let won = outcomes
        .iter()
        .filter(|outcome| **outcome == AppendOutcome::Appended(tip))
        .count();
    let lost = outcomes
        .iter()
        .filter(|outcome| **outcome == AppendOutcome::Conflict(tip))
        .count();
    assert_eq!(
        (won, lost),
        (1, 9),
        "one append wins and the others learn what it was"
    );
}

async fn rows_have_no_gap(records: &dyn Records) {
    with_account(records, 1).await;
    let repeated = vec![row(1, 2), row(1, 2)];
    for rows in [
        vec![],
        vec![row(1, 3)],
        vec![row(1, 1)],
        vec![row(1, 2), row(1, 4)],
        repeated,
    ] {
        let refused = records.append(None, append_after(&row(1, 1), rows)).await;
        assert!(matches!(refused, Err(RecordsError::Invalid(_))));
    }
    let tip = records.chain_tip(account(1)).await.expect(NO_FAULT);
    assert_eq!(
        tip,
        Some(tip_of(&row(1, 1))),
        "nothing of a refused append stays"
    );
}

async fn pages_of_a_chain_are_bounded(records: &dyn Records) {
    with_account(records, 1).await;
    let large = |sequence, length| ChainRow {
        record: Bytes::from(vec![3; length]),
        ..row(1, sequence)
    };
    let rows = vec![
        large(2, CHAIN_PAGE_MAX_BYTES * 2),
        large(3, 10),
        large(4, 10),
    ];
    records
        .append(None, append_after(&row(1, 1), rows))
        .await
        .expect(NO_FAULT);
    let lengths = |rows: Vec<ChainRow>| rows.iter().map(|row| row.sequence).collect::<Vec<_>>();
    for (after, sequences, more) in [
        (None, vec![0, 1], true),
        (Some(1), vec![2], true),
        (Some(2), vec![3, 4], false),
    ] {
        let page = records
            .read_chain(account(1), after, 100)
            .await
            .expect(NO_FAULT);
        assert_eq!((lengths(page.rows), page.more), (sequences, more));
    }
}

pub(super) fn head(counter: u64, variant: u8) -> Head {
    Head {
        mark: HeadMark {
            counter,
            hash: [variant; 32],
        },
        bytes: Bytes::from(vec![variant; 300]),
        moved_at: NOW,
    }
}

pub(super) fn swap(expected: Option<&Head>, new: Head) -> HeadSwap {
    let expected = expected.map(|head| head.mark);
    HeadSwap {
        account: account(1),
        vault: vault(1),
        chain: None,
        expected,
        new,
        condemned: Vec::new(),
        needed: Vec::new(),
        is_run: false,
    }
}

async fn a_head_only_moves_forwards(records: &dyn Records) {
    with_account(records, 1).await;
    assert_eq!(
        records.head(account(1), vault(1)).await.expect(NO_FAULT),
        None
    );
    let (first, second) = (head(5, 1), head(9, 2));
    let outcome = |swap| async { records.swap_head(None, swap).await.expect(NO_FAULT) };
    let early = outcome(swap(Some(&first), second.clone())).await;
    assert_eq!(early, SwapOutcome::Conflict(None));
    assert_eq!(
        outcome(swap(None, first.clone())).await,
        SwapOutcome::Swapped
    );
    assert_eq!(
        outcome(swap(None, first.clone())).await,
        SwapOutcome::AlreadyThere
    );
    assert_eq!(
        outcome(swap(Some(&first), second.clone())).await,
        SwapOutcome::Swapped
    );
    assert_eq!(
        outcome(swap(Some(&first), second.clone())).await,
        SwapOutcome::AlreadyThere
    );

    let conflict = SwapOutcome::Conflict(Some(second.clone()));
    assert_eq!(outcome(swap(None, head(10, 3))).await, conflict);
    assert_eq!(outcome(swap(Some(&first), head(10, 3))).await, conflict);
    assert_eq!(
        outcome(swap(Some(&head(9, 3)), head(10, 3))).await,
        conflict,
        "hashes count"
    );
    for counter in [0, 8, 9] {
        let backwards = outcome(swap(Some(&second), head(counter, 3))).await;
        assert_eq!(backwards, SwapOutcome::NotNewer { current: 9 });
    }
    let found = records.head(account(1), vault(1)).await.expect(NO_FAULT);
    assert_eq!(found, Some(second));
    assert_eq!(
        records.head(account(1), vault(2)).await.expect(NO_FAULT),
        None
    );
    let nobody = HeadSwap {
        account: account(2),
        ..swap(None, first)
    };
    let refused = records.swap_head(None, nobody).await;
    assert!(matches!(refused, Err(RecordsError::NoSuchAccount(_))));
}

async fn heads_and_chain_hold_each_other_in_place(records: &dyn Records) {
    with_account(records, 1).await;
    let first = head(5, 1);
    let swapped = |chain: &ChainRow, swap| {
        let swap = HeadSwap {
            chain: Some(chain.link),
            ..swap
        };
        async { records.swap_head(None, swap).await.expect(NO_FAULT) }
    };
    let appended = |heads: Vec<(VaultId, HeadMark)>, rows| {
        let append = ChainAppend {
            heads: Some(heads),
            ..append_after(&row(1, 1), rows)
        };
        async { records.append(None, append).await.expect(NO_FAULT) }
    };
    assert_eq!(
        swapped(&row(1, 0), swap(None, first.clone())).await,
        SwapOutcome::ChainMoved,
        "the chain goes on after this entry"
    );
    assert_eq!(
        swapped(&row(1, 1), swap(None, first.clone())).await,
        SwapOutcome::Swapped
    );
    let here = (vault(1), first.mark);
    let elsewhere = (vault(2), first.mark);
    let other = (vault(1), head(5, 2).mark);
    for heads in [vec![], vec![other], vec![elsewhere], vec![here, elsewhere]] {
        assert_eq!(
            appended(heads, vec![row(1, 2)]).await,
            AppendOutcome::HeadsMoved
        );
    }
    assert_eq!(
        appended(vec![here], vec![row(1, 2)]).await,
        AppendOutcome::Appended(tip_of(&row(1, 2)))
    );
    assert_eq!(
        swapped(&row(1, 1), swap(Some(&first), head(6, 1))).await,
        SwapOutcome::ChainMoved
    );
    let standing = records.head(account(1), vault(1)).await.expect(NO_FAULT);
    assert_eq!(standing, Some(first), "nothing was changed");
}

async fn one_of_many_swaps_wins(records: Arc<dyn Records>) {
    with_account(&*records, 1).await;
    let mut waiting = tokio::task::JoinSet::new();
    for variant in 1..=8 {
        let records = Arc::clone(&records);
        let swap = swap(None, head(1, variant));
        waiting.spawn(async move { records.swap_head(None, swap).await.expect(NO_FAULT) });
    }
    let outcomes = waiting.join_all().await;
    let standing = records.head(account(1), vault(1)).await.expect(NO_FAULT);
    let won = outcomes
        .iter()
        .filter(|outcome| **outcome == SwapOutcome::Swapped)
        .count();
    let conflict = SwapOutcome::Conflict(standing);
    let lost = outcomes
        .iter()
        .filter(|outcome| **outcome == conflict)
        .count();
    assert_eq!((won, lost), (1, 7));
}

async fn a_frozen_account_takes_no_writes(records: &dyn Records) {
    with_account(records, 1).await;
    records
        .set_account_state(account(1), AccountState::Frozen)
        .await
        .expect(NO_FAULT);
    let append = append_after(&row(1, 1), vec![row(1, 2)]);
    let refused = records.append(Some(nonce(1)), append.clone()).await;
    assert!(matches!(refused, Err(RecordsError::AccountFrozen(who)) if who == account(1)));
    let refused = records.swap_head(None, swap(None, head(1, 1))).await;
    assert!(matches!(refused, Err(RecordsError::AccountFrozen(_))));
    let page = records
        .read_chain(account(1), None, 10)
        .await
        .expect(NO_FAULT);
    assert_eq!(page.rows.len(), 2, "it can be read");

    records
        .set_account_state(account(1), AccountState::Active)
        .await
        .expect(NO_FAULT);
    let replayed = records.append(Some(nonce(1)), append.clone()).await;
    assert!(
        matches!(replayed, Err(RecordsError::Replayed)),
        "a refused request stays refused"
    );
    let outcome = records
        .append(Some(nonce(2)), append)
        .await
        .expect(NO_FAULT);
    assert!(matches!(outcome, AppendOutcome::Appended(_)));
    for nobody in [
        records
            .set_account_state(account(2), AccountState::Active)
            .await,
        records.set_quota(account(2), 1).await,
    ] {
        assert!(matches!(nobody, Err(RecordsError::NoSuchAccount(_))));
    }
}

async fn a_nonce_is_good_once(records: &dyn Records) {
    let spend = |nonce| async move { records.use_nonce(nonce).await.expect(NO_FAULT) };
    assert_eq!(spend(nonce(1)).await, NonceOutcome::Fresh);
    let later = NonceUse {
        seen_at: NOW.plus_ms(5),
        ..nonce(1)
    };
    assert_eq!(spend(later).await, NonceOutcome::Seen);
    let other_device = NonceUse {
        device: DeviceId::from_bytes([2; 16]),
        ..nonce(1)
    };
    assert_eq!(
        spend(other_device).await,
        NonceOutcome::Fresh,
        "nonces are per device"
    );
    let newer = NonceUse {
        seen_at: NOW.plus_ms(10),
        ..nonce(2)
    };
    assert_eq!(spend(newer).await, NonceOutcome::Fresh);

    assert_eq!(records.sweep_nonces(NOW, 10).await.expect(NO_FAULT), 0);
    assert_eq!(
        records
            .sweep_nonces(NOW.plus_ms(10), 1)
            .await
            .expect(NO_FAULT),
        1
    );
    assert_eq!(
        records
            .sweep_nonces(NOW.plus_ms(10), 10)
            .await
            .expect(NO_FAULT),
        1
    );
    assert_eq!(
        spend(newer).await,
        NonceOutcome::Seen,
        "a young one is kept"
    );
    assert_eq!(
        spend(nonce(1)).await,
        NonceOutcome::Fresh,
        "a forgotten one is not known"
    );
}

async fn a_nonce_goes_with_its_write(records: &dyn Records) {
    with_account(records, 1).await;
    let append = append_after(&row(1, 1), vec![row(1, 2)]);
    let outcome = records
        .append(Some(nonce(1)), append.clone())
        .await
        .expect(NO_FAULT);
    assert!(matches!(outcome, AppendOutcome::Appended(_)));
    let next = append_after(&row(1, 2), vec![row(1, 3)]);
    let replayed = records.append(Some(nonce(1)), next).await;
    assert!(matches!(replayed, Err(RecordsError::Replayed)));
    let tip = records.chain_tip(account(1)).await.expect(NO_FAULT);
    assert_eq!(
        tip,
        Some(tip_of(&row(1, 2))),
        "a repeated request changes nothing"
    );

    let conflict = records
        .append(Some(nonce(2)), append)
        .await
        .expect(NO_FAULT);
    assert!(matches!(conflict, AppendOutcome::Conflict(_)));
    for (number, why) in [(1, "a write that happened"), (2, "a write that lost")] {
        let seen = records.use_nonce(nonce(number)).await.expect(NO_FAULT);
        assert_eq!(seen, NonceOutcome::Seen, "{why} spends its nonce");
    }
    let replayed = records
        .swap_head(Some(nonce(1)), swap(None, head(1, 1)))
        .await;
    assert!(
        matches!(replayed, Err(RecordsError::Replayed)),
        "whatever the request is"
    );
    assert_eq!(
        records.head(account(1), vault(1)).await.expect(NO_FAULT),
        None
    );
}

async fn a_refused_write_does_not_hurt_its_neighbours(records: Arc<dyn Records>) {
    const WRITES: u8 = 100;
    with_account(&*records, 1).await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..WRITES {
        let records = Arc::clone(&records);
        waiting.spawn(async move {
            if number % 2 == 0 {
                let gap = append_after(&row(1, 1), vec![row(1, 9)]);
                let refused = records.append(Some(nonce(number)), gap).await;
                assert!(matches!(refused, Err(RecordsError::Invalid(_))));
            } else {
                let spent = records.use_nonce(nonce(number)).await.expect(NO_FAULT);
                assert_eq!(spent, NonceOutcome::Fresh);
            }
        });
    }
    waiting.join_all().await;
    for number in 0..WRITES {
        let seen = records.use_nonce(nonce(number)).await.expect(NO_FAULT);
        assert_eq!(seen, NonceOutcome::Seen);
    }
}
