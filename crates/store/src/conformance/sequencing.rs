//! The rules of [`crate::LogRecords`]: places, the state map and the tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use candor_wire::AccountId;

use super::log::{
    Both, Standing, batch, entries, next, queue, rows, sequence, sound, standing, tree, waiting,
};
use super::records::{NOW, head, invitation, opening, swap, with_account};
use super::{NO_FAULT, account, vault};
use crate::log::{
    LOG_FILE_MAX_BYTES, LogBatch, LogTree, MapChange, MapInputs, MapRow, MapVersion,
    STATE_BATCH_MAX_ACCOUNTS, Sequencing,
};
use crate::records::{
    AccountOpening, Invitation, OpenOutcome, ROWS_MAX, RecordsError, RootKeyHash, SecretHash,
    SwapOutcome,
};

pub(super) async fn check_sequencing<S: Both>(fresh: impl Fn() -> Arc<S>) {
    entries_get_places_and_leave_the_queue(&*fresh()).await;
    no_place_without_a_sound_batch(&*fresh()).await;
    a_lost_race_changes_nothing(&*fresh()).await;
    one_of_many_sequencings_wins(fresh()).await;
    every_entry_gets_one_place(fresh()).await;
    the_map_moves_with_its_entry(&*fresh()).await;
    an_account_that_changed_again_goes_on_waiting(&*fresh()).await;
    rows_come_by_version_and_account(&*fresh()).await;
    entries_come_in_order_and_bounded(&*fresh()).await;
    the_tree_grows_over_what_has_a_place(&*fresh()).await;
    one_of_many_advances_wins(fresh()).await;
    a_log_can_begin_anew(&*fresh()).await;
    many_accounts_come_in_parts(fresh()).await;
}

/// What a change for this account would bring, told apart by `variant`.
fn change(account_number: u8, stamp: u64, variant: u8) -> MapChange {
    MapChange {
        account: account(account_number),
        stamp,
        key: [account_number; 32],
        value: [variant; 32],
        state: Bytes::from(vec![variant; 40]),
    }
}

fn version(changes: Vec<MapChange>, entry: usize, variant: u8) -> MapVersion {
    MapVersion {
        changes,
        root: [variant; 32],
        entry,
        inputs: Bytes::from(vec![variant; 64]),
    }
}

fn row_of(change: MapChange, version: u64) -> MapRow {
    MapRow {
        account: change.account,
        key: change.key,
        value: change.value,
        version,
        state: change.state,
    }
}

async fn entries_get_places_and_leave_the_queue(records: &dyn Both) {
    queue(records, [1, 2, 3], NOW).await;
    // In the order that the caller chose, with others among them, one of them twice.
    let given = next(records, [50, 3, 1, 50]).await;
    assert!(sequence(records, given).await);
    let standing_at = LogTree {
        sequenced: 4,
        ..LogTree::EMPTY
    };
    let expected = LogBatch {
        tree: standing_at,
        queued: entries([2]),
        changed: Vec::new(),
    };
    assert_eq!(batch(records).await, expected);
    let given = next(records, [2]).await;
    assert!(sequence(records, given).await);
    assert_eq!(batch(records).await.queued, entries([]));
    assert_eq!(waiting(records, 0).await, entries([50, 3, 1, 50, 2]));
    sound(records).await;
}

async fn no_place_without_a_sound_batch(records: &dyn Both) {
    with_account(records, 1).await;
    queue(records, [1], NOW).await;
    let good = Sequencing {
        map: Some(version(vec![change(1, 1, 1)], 0, 1)),
        ..next(records, [1]).await
    };
    let with_map = |change: &dyn Fn(&mut MapVersion)| {
        let mut broken = good.clone();
        broken.map.iter_mut().for_each(change);
        broken
    };
    let expecting = |sequenced, map_version| Sequencing {
        expected: LogTree {
            sequenced,
            map_version,
            ..good.expected
        },
        ..good.clone()
    };
    let broken = [
        Sequencing {
            entries: Vec::new(),
            map: None,
            ..good.clone()
        },
        with_map(&|map| map.entry = 1),
        with_map(&|map| map.changes.clear()),
        with_map(&|map| map.inputs = Bytes::from(vec![0; LOG_FILE_MAX_BYTES + 1])),
        with_map(&|map| map.changes[0].stamp = u64::MAX),
        expecting(u64::MAX, 0),
        expecting(i64::MAX as u64, 0),
        expecting(0, u64::MAX),
        Sequencing {
            map: None,
            ..expecting(0, u64::MAX)
        },
    ];
    let before = standing(records).await;
    for sequencing in broken {
        let refused = records.sequence(sequencing).await;
        assert!(
            matches!(refused, Err(RecordsError::Invalid(_))),
            "{refused:?}"
        );
        assert_eq!(standing(records).await, before);
    }
    let largest = with_map(&|map| map.inputs = Bytes::from(vec![0; LOG_FILE_MAX_BYTES]));
    assert!(sequence(records, largest).await);
    sound(records).await;
}

async fn a_lost_race_changes_nothing(records: &dyn Both) {
    with_account(records, 1).await;
    queue(records, [1, 2], NOW).await;
    let first = Sequencing {
        map: Some(version(vec![change(1, 1, 1)], 1, 1)),
        ..next(records, [1, 100]).await
    };
    let second = Sequencing {
        entries: entries([1, 2, 101]),
        map: Some(version(vec![change(1, 1, 2)], 2, 2)),
        ..first.clone()
    };
    assert!(sequence(records, first.clone()).await);
    let before = standing(records).await;
    let here = before.batch.tree;
    let elsewhere = |sequenced, map_version| Sequencing {
        expected: LogTree {
            sequenced,
            map_version,
            ..here
        },
        ..second.clone()
    };
    for lost in [
        first,
        second.clone(),
        Sequencing {
            map: None,
            ..second.clone()
        },
        elsewhere(here.sequenced + 1, here.map_version),
        elsewhere(here.sequenced, here.map_version + 1),
        elsewhere(here.sequenced, 0),
        elsewhere(0, here.map_version),
    ] {
        assert!(!sequence(records, lost).await, "the log stands elsewhere");
        assert_eq!(standing(records).await, before);
    }
    // Whether a part of the log went into the tree meanwhile makes no difference.
    let sequencing = elsewhere(here.sequenced, here.map_version);
    let moved = records.advance((0, here.root), (1, [1; 32])).await;
    assert!(moved.expect(NO_FAULT));
    assert!(sequence(records, sequencing).await);
    let after = tree(records).await;
    assert_eq!((after.size, after.root), (1, [1; 32]), "nor is it undone");
    sound(records).await;
}

async fn one_of_many_sequencings_wins(records: Arc<dyn Both>) {
    const WRITERS: u8 = 8;
    with_account(&*records, 1).await;
    queue(&*records, [1], NOW).await;
    let expected = tree(&*records).await;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let records = Arc::clone(&records);
        let sequencing = Sequencing {
            expected,
            entries: entries([1, 100 + u16::from(number)]),
            map: Some(version(vec![change(1, 1, number)], 1, number)),
        };
        running.spawn(async move { (number, sequence(&*records, sequencing).await) });
    }
    let outcomes = running.join_all().await;
    let winners: Vec<u8> = outcomes
        .into_iter()
        .filter_map(|(number, won)| won.then_some(number))
        .collect();
    assert_eq!(winners.len(), 1, "exactly one wins");
    let winner = winners[0];
    let expected = Standing {
        batch: LogBatch {
            tree: LogTree {
                sequenced: 2,
                map_version: 1,
                map_root: [winner; 32],
                map_place: 1,
                ..LogTree::EMPTY
            },
            queued: Vec::new(),
            changed: Vec::new(),
        },
        waiting: entries([1, 100 + u16::from(winner)]),
        inputs: vec![MapInputs {
            version: 1,
            place: 1,
            inputs: Bytes::from(vec![winner; 64]),
        }],
        rows: vec![row_of(change(1, 1, winner), 1)],
    };
    assert_eq!(standing(&*records).await, expected, "and nobody else");
    sound(&*records).await;
}

async fn every_entry_gets_one_place(records: Arc<dyn Both>) {
    const QUEUERS: u16 = 4;
    const EACH: u16 = 40;
    const SEQUENCERS: usize = 3;
    let mut running = tokio::task::JoinSet::new();
    for queuer in 0..QUEUERS {
        let records = Arc::clone(&records);
        running.spawn(async move {
            for number in 0..EACH {
                queue(&*records, [queuer * EACH + number], NOW).await;
            }
        });
    }
    for _ in 0..SEQUENCERS {
        let records = Arc::clone(&records);
        running.spawn(async move {
            while tree(&*records).await.sequenced < u64::from(QUEUERS * EACH) {
                let batch = batch(&*records).await;
                if batch.queued.is_empty() {
                    tokio::task::yield_now().await;
                    continue;
                }
                let sequencing = Sequencing {
                    expected: batch.tree,
                    entries: batch.queued,
                    map: None,
                };
                sequence(&*records, sequencing).await;
            }
        });
    }
    running.join_all().await;
    assert_eq!(batch(&*records).await.queued, entries([]));
    let mut placed = waiting(&*records, 0).await;
    placed.sort_unstable();
    assert_eq!(placed, entries(0..QUEUERS * EACH), "each exactly once");
    sound(&*records).await;
}

async fn the_map_moves_with_its_entry(records: &dyn Both) {
    with_account(records, 1).await;
    with_account(records, 2).await;
    let first = Sequencing {
        map: Some(version(vec![change(1, 1, 1), change(2, 1, 1)], 2, 1)),
        ..next(records, [1, 2, 3, 4]).await
    };
    assert!(sequence(records, first).await);
    let moved = LogTree {
        sequenced: 4,
        map_version: 1,
        map_root: [1; 32],
        map_place: 2,
        ..LogTree::EMPTY
    };
    assert_eq!(tree(records).await, moved);
    assert_eq!(batch(records).await.changed, [], "both are settled");

    let between = next(records, [5]).await;
    assert!(sequence(records, between).await);
    let longer = LogTree {
        sequenced: 5,
        ..moved
    };
    assert_eq!(tree(records).await, longer, "the map stays where it was");

    // Also what is of no account, as padding is.
    let second = Sequencing {
        map: Some(version(vec![change(77, 0, 2), change(2, 0, 2)], 0, 2)),
        ..next(records, [6]).await
    };
    assert!(sequence(records, second).await);
    let moved = LogTree {
        sequenced: 6,
        map_version: 2,
        map_root: [2; 32],
        map_place: 5,
        ..LogTree::EMPTY
    };
    assert_eq!(tree(records).await, moved);
    for (number, expected) in [
        (1, Some(row_of(change(1, 1, 1), 1))),
        (2, Some(row_of(change(2, 0, 2), 2))),
        (77, Some(row_of(change(77, 0, 2), 2))),
        (3, None),
    ] {
        let found = records.map_row(account(number)).await.expect(NO_FAULT);
        assert_eq!(found, expected);
    }
    let inputs = records.map_inputs().await.expect(NO_FAULT);
    let expected = [(1, 2), (2, 5)].map(|(version, place)| MapInputs {
        version,
        place,
        inputs: Bytes::from(vec![version as u8; 64]),
    });
    assert_eq!(inputs, expected, "kept until they are in the tree");
    sound(records).await;
}

async fn an_account_that_changed_again_goes_on_waiting(records: &dyn Both) {
    with_account(records, 1).await;
    with_account(records, 2).await;
    let seen = batch(records).await;
    let outcome = records.swap_head(None, swap(None, head(1, 1))).await;
    assert_eq!(outcome.expect(NO_FAULT), SwapOutcome::Swapped);
    let changes = seen.changed.iter().map(|changed| MapChange {
        stamp: changed.stamp,
        ..change(changed.account.as_bytes()[0], 0, 1)
    });
    let sequencing = Sequencing {
        expected: seen.tree,
        entries: entries([1]),
        map: Some(version(changes.collect(), 0, 1)),
    };
    assert!(sequence(records, sequencing).await);
    let waiting = batch(records).await.changed;
    assert_eq!(waiting.len(), 1, "the other one is settled");
    let stamp = waiting[0].stamp;
    assert_eq!(waiting[0].account, account(1));
    assert_eq!(waiting[0].heads, [(vault(1), head(1, 1).mark)]);
    assert!(stamp > seen.changed[0].stamp);
    for wrong in [stamp - 1, stamp + 1, 0] {
        let sequencing = Sequencing {
            map: Some(version(vec![change(1, wrong, 2)], 0, 2)),
            ..next(records, [2]).await
        };
        assert!(sequence(records, sequencing).await);
        assert_eq!(batch(records).await.changed, waiting, "stamp {wrong}");
    }
    let sequencing = Sequencing {
        map: Some(version(vec![change(1, stamp, 3)], 0, 3)),
        ..next(records, [3]).await
    };
    assert!(sequence(records, sequencing).await);
    assert_eq!(batch(records).await.changed, []);
    let outcome = records
        .swap_head(None, swap(Some(&head(1, 1)), head(2, 2)))
        .await;
    assert_eq!(outcome.expect(NO_FAULT), SwapOutcome::Swapped);
    assert_eq!(batch(records).await.changed.len(), 1, "it can change again");
    sound(records).await;
}

async fn rows_come_by_version_and_account(records: &dyn Both) {
    for (variant, numbers) in [(1, vec![9, 3, 200]), (2, vec![7, 3]), (3, vec![1, 255])] {
        let changes = numbers.into_iter().map(|number| change(number, 0, variant));
        let sequencing = Sequencing {
            map: Some(version(changes.collect(), 0, variant)),
            ..next(records, [1]).await
        };
        assert!(sequence(records, sequencing).await);
    }
    let all = [(1, 9), (1, 200), (2, 3), (2, 7), (3, 1), (3, 255)];
    for (after, last, skipped) in [
        (0, None, 0),
        (1, None, 2),
        (2, None, 4),
        (3, None, 6),
        (u64::MAX, None, 6),
        (0, Some((1, 9)), 1),
        (0, Some((1, 100)), 1),
        (0, Some((1, 255)), 2),
        (0, Some((2, 0)), 2),
        (1, Some((2, 3)), 3),
        (0, Some((3, 255)), 6),
        (0, Some((u64::MAX, 1)), 6),
        // Behind a row that is not asked for: the larger of both bounds counts.
        (2, Some((1, 9)), 4),
        (2, Some((2, 3)), 4),
    ] {
        let last = last.map(|(version, number)| (version, account(number)));
        let found = rows(records, after, last).await;
        let expected: Vec<MapRow> = all[skipped..]
            .iter()
            .map(|(version, number)| row_of(change(*number, 0, *version as u8), *version))
            .collect();
        assert_eq!(found, expected, "above {after}, from behind {last:?}");
    }

    let many = (0..=ROWS_MAX).map(|number| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        MapChange {
            account: AccountId::from_bytes(id),
            key: *blake3::hash(&id).as_bytes(),
            ..change(0, 0, 4)
        }
    });
    let sequencing = Sequencing {
        map: Some(version(many.collect(), 0, 4)),
        ..next(records, [2]).await
    };
    assert!(sequence(records, sequencing).await);
    let page = rows(records, 3, None).await;
    assert_eq!(page.len(), ROWS_MAX, "a page is bounded");
    let last = page.last().map(|row| (row.version, row.account));
    assert_eq!(rows(records, 3, last).await.len(), 1, "and goes on");
    sound(records).await;
}

async fn entries_come_in_order_and_bounded(records: &dyn Both) {
    let some = |from, limit| async move {
        let found = records.sequenced_entries(from, limit).await;
        found.expect(NO_FAULT)
    };
    for numbers in [vec![5, 4], vec![3], vec![9, 8, 7]] {
        let given = next(records, numbers).await;
        assert!(sequence(records, given).await);
    }
    assert_eq!(some(0, 10).await, entries([5, 4, 3, 9, 8, 7]));
    assert_eq!(some(0, 2).await, entries([5, 4]));
    assert_eq!(some(1, 3).await, entries([4, 3, 9]));
    assert_eq!(some(5, 3).await, entries([7]));
    for (from, limit) in [(0, 0), (6, 1), (7, 1), (u64::MAX, 1)] {
        assert_eq!(some(from, limit).await, entries([]));
    }
    let most = u16::try_from(ROWS_MAX).expect("a page is small");
    let given = next(records, 0..most).await;
    assert!(sequence(records, given).await);
    assert_eq!(some(0, usize::MAX).await.len(), ROWS_MAX);
    assert_eq!(some(6, usize::MAX).await, entries(0..most));
}

async fn the_tree_grows_over_what_has_a_place(records: &dyn Both) {
    let given = Sequencing {
        map: Some(version(vec![change(1, 0, 1)], 0, 1)),
        ..next(records, [1, 2, 3]).await
    };
    assert!(sequence(records, given).await);
    let given = Sequencing {
        map: Some(version(vec![change(1, 0, 2)], 1, 2)),
        ..next(records, [4, 5]).await
    };
    assert!(sequence(records, given).await);
    let empty = (0, LogTree::EMPTY.root);
    let advance = |from, to| async move { records.advance(from, to).await.expect(NO_FAULT) };

    let before = standing(records).await;
    assert!(
        !advance(empty, (6, [6; 32])).await,
        "beyond what has a place"
    );
    assert!(!advance((1, empty.1), (3, [3; 32])).await, "another size");
    assert!(!advance((0, [9; 32]), (3, [3; 32])).await, "another root");
    for (from, to) in [
        (empty, empty),
        (empty, (0, [9; 32])),
        ((3, [3; 32]), (2, [2; 32])),
        (empty, (u64::MAX, [9; 32])),
    ] {
        let refused = records.advance(from, to).await;
        assert!(matches!(refused, Err(RecordsError::Invalid(_))));
    }
    assert_eq!(standing(records).await, before, "nothing was changed");

    assert!(advance(empty, (3, [3; 32])).await);
    let after = standing(records).await;
    let moved = LogTree {
        size: 3,
        root: [3; 32],
        ..before.batch.tree
    };
    assert_eq!(after.batch.tree, moved);
    assert_eq!(after.waiting, entries([4, 5]), "these are not in the tree");
    assert_eq!(after.inputs, before.inputs[1..]);
    assert_eq!(after.rows, before.rows, "what the map is stays");
    for from in 0..3 {
        let overtaken = waiting(records, from).await;
        assert_eq!(overtaken, entries([]), "these are forgotten");
    }
    assert!(!advance(empty, (3, [3; 32])).await, "only once");
    assert!(!advance(empty, (4, [4; 32])).await);
    sound(records).await;

    assert!(advance((3, [3; 32]), (5, [5; 32])).await);
    let end = standing(records).await;
    assert_eq!((end.waiting, end.inputs), (Vec::new(), Vec::new()));
    let given = next(records, [6]).await;
    assert!(sequence(records, given).await);
    assert_eq!(waiting(records, 5).await, entries([6]), "and so on");
    sound(records).await;
}

async fn one_of_many_advances_wins(records: Arc<dyn Both>) {
    const WRITERS: u8 = 8;
    let given = next(&*records, 0..u16::from(WRITERS)).await;
    assert!(sequence(&*records, given).await);
    let mut running = tokio::task::JoinSet::new();
    for number in 1..=WRITERS {
        let records = Arc::clone(&records);
        let to = (u64::from(number), [number; 32]);
        running.spawn(async move {
            let moved = records.advance((0, LogTree::EMPTY.root), to).await;
            (to, moved.expect(NO_FAULT))
        });
    }
    let outcomes = running.join_all().await;
    let winners: Vec<_> = outcomes.into_iter().filter(|(_, won)| *won).collect();
    assert_eq!(winners.len(), 1, "exactly one wins");
    let ((size, root), _) = winners[0];
    let found = tree(&*records).await;
    assert_eq!((found.size, found.root), (size, root));
    let rest = waiting(&*records, size).await;
    assert_eq!(rest.len() as u64, u64::from(WRITERS) - size);
    sound(&*records).await;
}

async fn a_log_can_begin_anew(records: &dyn Both) {
    with_account(records, 2).await;
    let waiting = batch(records).await.changed;
    records.begin_log_anew(NOW).await.expect(NO_FAULT);
    let unmoved = standing(records).await;
    assert_eq!(unmoved.batch.changed, waiting, "it waits already");

    with_account(records, 1).await;
    queue(records, [1, 2, 3], NOW).await;
    let given = Sequencing {
        map: Some(version(vec![change(1, 1, 1), change(77, 0, 1)], 2, 1)),
        ..next(records, [1, 10, 20]).await
    };
    assert!(sequence(records, given).await);
    let moved = records.advance((0, LogTree::EMPTY.root), (1, [1; 32]));
    assert!(moved.await.expect(NO_FAULT));
    let outcome = records.swap_head(None, swap(None, head(1, 1))).await;
    assert_eq!(outcome.expect(NO_FAULT), SwapOutcome::Swapped);

    records.begin_log_anew(NOW).await.expect(NO_FAULT);
    let anew = standing(records).await;
    let changed = anew.batch.changed.iter();
    let accounts: Vec<_> = changed
        .map(|changed| (changed.account, changed.stamp))
        .collect();
    assert_eq!(accounts, [(account(1), 1), (account(2), 1)], "all of them");
    assert_eq!(anew.batch.changed[0].heads, [(vault(1), head(1, 1).mark)]);
    let empty = Standing {
        batch: LogBatch {
            tree: LogTree::EMPTY,
            queued: Vec::new(),
            changed: anew.batch.changed.clone(),
        },
        waiting: Vec::new(),
        inputs: Vec::new(),
        rows: Vec::new(),
    };
    assert_eq!(anew, empty);
    sound(records).await;

    queue(records, [1], NOW).await;
    let given = Sequencing {
        map: Some(version(vec![change(1, 1, 9), change(2, 1, 9)], 1, 9)),
        ..next(records, [1, 2]).await
    };
    assert!(sequence(records, given).await, "and it goes on");
    assert_eq!(batch(records).await.changed, []);
    sound(records).await;
}

async fn many_accounts_come_in_parts(records: Arc<dyn Both>) {
    let mut running = tokio::task::JoinSet::new();
    for number in 0..=STATE_BATCH_MAX_ACCOUNTS as u64 {
        let records = Arc::clone(&records);
        running.spawn(async move {
            let mut id = [0; 32];
            id[8..16].copy_from_slice(&number.to_be_bytes());
            let mut account = [0; 16];
            account.copy_from_slice(&id[..16]);
            let invitation = Invitation {
                secret: SecretHash(id),
                ..invitation(0)
            };
            records.create_invitation(invitation).await.expect(NO_FAULT);
            let opening = AccountOpening {
                secret: SecretHash(id),
                account: AccountId::from_bytes(account),
                root_key: RootKeyHash(id),
                ..opening(0)
            };
            let outcome = records.open_account(opening).await.expect(NO_FAULT);
            assert_eq!(outcome, OpenOutcome::Opened);
        });
    }
    running.join_all().await;
    let first = batch(&*records).await;
    assert_eq!(first.changed.len(), STATE_BATCH_MAX_ACCOUNTS);
    let changes = first.changed.iter().map(|changed| MapChange {
        account: changed.account,
        stamp: changed.stamp,
        ..change(0, 0, 1)
    });
    let sequencing = Sequencing {
        expected: first.tree,
        entries: entries([1]),
        map: Some(version(changes.collect(), 0, 1)),
    };
    assert!(sequence(&*records, sequencing).await);
    let rest = batch(&*records).await.changed;
    assert_eq!(rest.len(), 1, "the others come with the next batch");
    let mut accounts = Vec::new();
    while accounts.len() <= STATE_BATCH_MAX_ACCOUNTS {
        let page = records.accounts_after(accounts.last().copied()).await;
        let page = page.expect(NO_FAULT);
        assert!((1..=ROWS_MAX).contains(&page.len()), "a page is bounded");
        accounts.extend(page);
    }
    assert_eq!(accounts.len(), STATE_BATCH_MAX_ACCOUNTS + 1);
    assert!(accounts.is_sorted(), "and goes on");
    let mut found = BTreeMap::new();
    let mut last = None;
    loop {
        let page = rows(&*records, 0, last).await;
        let Some(end) = page.last() else { break };
        last = Some((end.version, end.account));
        found.extend(page.into_iter().map(|row| (row.account, row.version)));
    }
    assert_eq!(found.len(), STATE_BATCH_MAX_ACCOUNTS);
    sound(&*records).await;
}
