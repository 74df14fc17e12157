//! The rules of [`LogRecords`]: what waits, and for what.

use std::sync::Arc;

use candor_wire::{AccountId, Millis};

use super::records::{
    NOW, append_after, head, invitation, nonce, opening, row, swap, tip_of, with_account,
};
use super::sequencing::check_sequencing;
use super::{NO_FAULT, account, vault};
use crate::log::{
    ChangedAccount, LOG_BATCH_MAX_ENTRIES, LOG_ENTRY_BYTES, LogBatch, LogEntry, LogRecords,
    LogTree, MapInputs, MapRow, Sequencing,
};
use crate::records::{
    AccountOpening, AccountState, AppendOutcome, ChainAppend, HeadSwap, OpenOutcome, Records,
    RecordsError, RootKeyHash, SecretHash, SwapOutcome,
};

/// Records together with the log's bookkeeping.
pub(super) trait Both: Records + LogRecords {}

impl<S: Records + LogRecords> Both for S {}

/// Puts the log's bookkeeping through every rule, together with the records that it is kept with.
/// `fresh` makes an empty store.
///
/// # Panics
/// If a rule is broken.
pub async fn check_log_records<S: Records + LogRecords>(fresh: impl Fn() -> Arc<S>) {
    a_log_begins_empty(&*fresh()).await;
    statements_are_queued_with_their_chain(&*fresh()).await;
    moves_mark_their_account(&*fresh()).await;
    a_refused_opening_queues_nothing(&*fresh()).await;
    a_refused_append_queues_nothing(&*fresh()).await;
    a_refused_swap_marks_nothing(&*fresh()).await;
    an_entry_is_queued_once(&*fresh()).await;
    what_is_queued_can_be_queued_again(&*fresh()).await;
    the_oldest_come_first(&*fresh()).await;
    accounts_are_listed_by_id(&*fresh()).await;
    check_sequencing(&fresh).await;
}

fn entry(number: u16) -> LogEntry {
    let mut entry = [7; LOG_ENTRY_BYTES];
    entry[..2].copy_from_slice(&number.to_be_bytes());
    entry
}

pub(super) fn entries(numbers: impl IntoIterator<Item = u16>) -> Vec<LogEntry> {
    numbers.into_iter().map(entry).collect()
}

pub(super) async fn tree(records: &dyn Both) -> LogTree {
    records.log_tree().await.expect(NO_FAULT)
}

pub(super) async fn batch(records: &dyn Both) -> LogBatch {
    records.log_batch().await.expect(NO_FAULT)
}

pub(super) async fn queue(records: &dyn Both, numbers: impl IntoIterator<Item = u16>, now: Millis) {
    let queued = records.queue_entries(entries(numbers), now).await;
    queued.expect("entries that are not queued can be");
}

pub(super) async fn sequence(records: &dyn Both, sequencing: Sequencing) -> bool {
    records.sequence(sequencing).await.expect(NO_FAULT)
}

pub(super) async fn waiting(records: &dyn Both, from: u64) -> Vec<LogEntry> {
    let found = records.sequenced_entries(from, usize::MAX).await;
    found.expect(NO_FAULT)
}

pub(super) async fn rows(
    records: &dyn Both,
    after: u64,
    last: Option<(u64, AccountId)>,
) -> Vec<MapRow> {
    records.map_rows(after, last).await.expect(NO_FAULT)
}

/// Entries without a map, after what is there.
pub(super) async fn next(records: &dyn Both, numbers: impl IntoIterator<Item = u16>) -> Sequencing {
    Sequencing {
        expected: tree(records).await,
        entries: entries(numbers),
        map: None,
    }
}

/// Everything that can be seen of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) batch: LogBatch,
    pub(super) waiting: Vec<LogEntry>,
    pub(super) inputs: Vec<MapInputs>,
    pub(super) rows: Vec<MapRow>,
}

pub(super) async fn standing(records: &dyn Both) -> Standing {
    let batch = batch(records).await;
    assert_eq!(batch.tree, tree(records).await, "the same is told twice");
    Standing {
        waiting: waiting(records, batch.tree.size).await,
        inputs: records.map_inputs().await.expect(NO_FAULT),
        rows: rows(records, 0, None).await,
        batch,
    }
}

pub(super) async fn sound(records: &dyn Both) {
    records.check().await.expect("a sound store says so");
}

async fn a_log_begins_empty(records: &dyn Both) {
    let expected = Standing {
        batch: LogBatch {
            tree: LogTree::EMPTY,
            queued: Vec::new(),
            changed: Vec::new(),
        },
        waiting: Vec::new(),
        inputs: Vec::new(),
        rows: Vec::new(),
    };
    assert_eq!(standing(records).await, expected);
    let nobody = records.map_row(account(1)).await.expect(NO_FAULT);
    assert_eq!(nobody, None);
    sound(records).await;
}

/// Opens account `number` with entries.
async fn open_with(records: &dyn Both, number: u8, numbers: impl IntoIterator<Item = u16>) {
    let made = records.create_invitation(invitation(number)).await;
    made.expect(NO_FAULT);
    let opening = AccountOpening {
        entries: entries(numbers),
        ..opening(number)
    };
    let outcome = records.open_account(opening).await.expect(NO_FAULT);
    assert_eq!(outcome, OpenOutcome::Opened);
}

fn append_with(sequence: u64, numbers: impl IntoIterator<Item = u16>) -> ChainAppend {
    ChainAppend {
        entries: entries(numbers),
        now: NOW.plus_ms(1),
        ..append_after(&row(1, sequence - 1), vec![row(1, sequence)])
    }
}

async fn statements_are_queued_with_their_chain(records: &dyn Both) {
    open_with(records, 1, [20, 30]).await;
    assert_eq!(batch(records).await.queued, entries([20, 30]));
    let append = append_with(2, [10, 40]);
    let outcome = records.append(Some(nonce(1)), append).await;
    assert!(matches!(
        outcome.expect(NO_FAULT),
        AppendOutcome::Appended(_)
    ));
    let standing = standing(records).await;
    assert_eq!(standing.batch.queued, entries([20, 30, 10, 40]));
    assert_eq!(standing.batch.tree, LogTree::EMPTY, "no place yet");
    assert_eq!(standing.waiting, entries([]));
    sound(records).await;
}

async fn moves_mark_their_account(records: &dyn Both) {
    with_account(records, 2).await;
    with_account(records, 1).await;
    let untouched = |number| ChangedAccount {
        account: account(number),
        stamp: 1,
        tip: tip_of(&row(number, 1)),
        heads: Vec::new(),
        genesis: row(number, 0).record,
    };
    let found = batch(records).await;
    assert_eq!(found.changed, [untouched(1), untouched(2)], "by their ids");
    assert_eq!(found.queued, entries([]), "it was opened without entries");

    let appended = records.append(None, append_with(2, [])).await;
    assert!(matches!(
        appended.expect(NO_FAULT),
        AppendOutcome::Appended(_)
    ));
    for (number, counter) in [(9, 1), (3, 1), (3, 2)] {
        let expected = (counter > 1).then(|| head(counter - 1, number));
        let swap = HeadSwap {
            vault: vault(number),
            ..swap(expected.as_ref(), head(counter, number))
        };
        let outcome = records.swap_head(None, swap).await.expect(NO_FAULT);
        assert_eq!(outcome, SwapOutcome::Swapped);
    }
    let moved = ChangedAccount {
        stamp: 5,
        tip: tip_of(&row(1, 2)),
        heads: vec![(vault(3), head(2, 3).mark), (vault(9), head(1, 9).mark)],
        ..untouched(1)
    };
    let found = batch(records).await;
    assert_eq!(found.changed, [moved, untouched(2)]);
    sound(records).await;
}

async fn a_refused_opening_queues_nothing(records: &dyn Both) {
    open_with(records, 1, [1, 2]).await;
    let made = records.create_invitation(invitation(2)).await;
    made.expect(NO_FAULT);
    let before = standing(records).await;
    let refused = AccountOpening {
        entries: entries([3]),
        ..opening(2)
    };
    let openings = [
        AccountOpening {
            entries: entries([3]),
            ..opening(1)
        },
        AccountOpening {
            secret: SecretHash([1; 32]),
            ..refused.clone()
        },
        AccountOpening {
            secret: SecretHash([3; 32]),
            ..refused.clone()
        },
        AccountOpening {
            now: NOW.plus_ms(1000),
            ..refused.clone()
        },
        AccountOpening {
            account: account(1),
            ..refused.clone()
        },
        AccountOpening {
            root_key: RootKeyHash([1; 32]),
            ..refused.clone()
        },
    ];
    for opening in openings {
        let outcome = records.open_account(opening).await.expect(NO_FAULT);
        assert_ne!(outcome, OpenOutcome::Opened);
        assert_eq!(standing(records).await, before, "{outcome:?}");
    }
    let gap = AccountOpening {
        genesis: vec![row(2, 0), row(2, 2)],
        ..refused.clone()
    };
    let queued_already = AccountOpening {
        entries: entries([3, 2]),
        ..refused.clone()
    };
    for opening in [gap, queued_already] {
        let outcome = records.open_account(opening).await;
        assert!(matches!(outcome, Err(RecordsError::Invalid(_))));
        assert_eq!(standing(records).await, before);
    }
    let nobody = records.account(account(2)).await.expect(NO_FAULT);
    assert_eq!(nobody, None);
    let opened = records.open_account(refused).await.expect(NO_FAULT);
    assert_eq!(opened, OpenOutcome::Opened, "the invitation is still good");
    sound(records).await;
}

async fn a_refused_append_queues_nothing(records: &dyn Both) {
    open_with(records, 1, [1, 2]).await;
    records.use_nonce(nonce(1)).await.expect(NO_FAULT);
    let before = standing(records).await;
    let good = append_with(2, [3]);
    let conflict = ChainAppend {
        expected: tip_of(&row(9, 1)),
        ..good.clone()
    };
    let outcome = records.append(None, conflict).await.expect(NO_FAULT);
    assert!(matches!(outcome, AppendOutcome::Conflict(_)));
    let nobody = ChainAppend {
        account: account(2),
        ..good.clone()
    };
    let gap = ChainAppend {
        rows: vec![row(1, 3)],
        ..good.clone()
    };
    let queued_already = append_with(2, [3, 2]);
    let twice = append_with(2, [3, 3]);
    for (nonce, append) in [
        (None, nobody),
        (None, gap),
        (None, queued_already),
        (None, twice),
        (Some(nonce(1)), good.clone()),
    ] {
        let refused = records.append(nonce, append).await;
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(standing(records).await, before);
    }
    freeze(records, AccountState::Frozen).await;
    let refused = records.append(None, good.clone()).await;
    assert!(matches!(refused, Err(RecordsError::AccountFrozen(_))));
    freeze(records, AccountState::Active).await;
    assert_eq!(standing(records).await, before, "that moves no chain");
    let tip = records.chain_tip(account(1)).await.expect(NO_FAULT);
    assert_eq!(tip, Some(tip_of(&row(1, 1))));
    let outcome = records.append(None, good).await.expect(NO_FAULT);
    assert!(matches!(outcome, AppendOutcome::Appended(_)));
    sound(records).await;
}

async fn freeze(records: &dyn Both, state: AccountState) {
    let done = records.set_account_state(account(1), state).await;
    done.expect(NO_FAULT);
}

async fn a_refused_swap_marks_nothing(records: &dyn Both) {
    with_account(records, 1).await;
    let (first, second) = (head(1, 1), head(2, 2));
    for swap in [
        swap(None, first.clone()),
        swap(Some(&first), second.clone()),
    ] {
        let outcome = records.swap_head(None, swap).await.expect(NO_FAULT);
        assert_eq!(outcome, SwapOutcome::Swapped);
    }
    let before = standing(records).await;
    for swap in [
        swap(Some(&first), second.clone()),
        swap(Some(&first), head(3, 3)),
        swap(Some(&second), head(2, 3)),
    ] {
        let outcome = records.swap_head(None, swap).await.expect(NO_FAULT);
        assert_ne!(outcome, SwapOutcome::Swapped);
        assert_eq!(standing(records).await, before, "{outcome:?}");
    }
    freeze(records, AccountState::Frozen).await;
    let refused = records
        .swap_head(None, swap(Some(&second), head(3, 3)))
        .await;
    assert!(matches!(refused, Err(RecordsError::AccountFrozen(_))));
    assert_eq!(standing(records).await, before);
}

async fn an_entry_is_queued_once(records: &dyn Both) {
    queue(records, [5], NOW).await;
    queue(records, [], NOW).await;
    for numbers in [[5, 6], [6, 5], [6, 6]] {
        let refused = records.queue_entries(entries(numbers), NOW).await;
        assert!(matches!(refused, Err(RecordsError::Invalid(_))));
        assert_eq!(batch(records).await.queued, entries([5]), "none is queued");
    }
}

async fn what_is_queued_can_be_queued_again(records: &dyn Both) {
    queue(records, [5], NOW).await;
    let later = NOW.plus_ms(7);
    for numbers in [vec![9, 5, 9], vec![5, 9, 4], vec![]] {
        let queued = records.queue_again(entries(numbers), later).await;
        queued.expect("what is there already is no obstacle");
    }
    // The one that was there keeps its time; each is there once.
    assert_eq!(batch(records).await.queued, entries([5, 4, 9]));
    let refused = records.queue_entries(entries([4]), NOW).await;
    assert!(matches!(refused, Err(RecordsError::Invalid(_))));
    sound(records).await;
}

async fn accounts_are_listed_by_id(records: &dyn Both) {
    let after = |last: Option<u8>| async move {
        let found = records.accounts_after(last.map(account)).await;
        found.expect(NO_FAULT)
    };
    assert_eq!(after(None).await, []);
    for number in [200, 0, 3, 255] {
        with_account(records, number).await;
    }
    let all = [0, 3, 200, 255].map(account);
    assert_eq!(after(None).await, all);
    for (last, skipped) in [(0, 1), (1, 1), (3, 2), (200, 3), (254, 3), (255, 4)] {
        assert_eq!(after(Some(last)).await, all[skipped..], "after {last}");
    }
}

async fn the_oldest_come_first(records: &dyn Both) {
    let most = u16::try_from(LOG_BATCH_MAX_ENTRIES).expect("a batch is small");
    queue(records, [3, 1], NOW.plus_ms(5)).await;
    queue(records, [2], NOW.plus_ms(-5)).await;
    queue(records, [9], NOW).await;
    assert_eq!(batch(records).await.queued, entries([2, 9, 1, 3]));

    queue(records, 100..100 + most, NOW.plus_ms(1)).await;
    let first = batch(records).await.queued;
    let expected = [2, 9].into_iter().chain(100..98 + most);
    assert_eq!(first, entries(expected), "a batch is bounded");
    let expected = tree(records).await;
    let sequencing = Sequencing {
        expected,
        entries: first,
        map: None,
    };
    assert!(sequence(records, sequencing).await);
    let rest = [98 + most, 99 + most, 1, 3];
    assert_eq!(batch(records).await.queued, entries(rest));
    sound(records).await;
}
