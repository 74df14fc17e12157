//! The rules of [`Erasures`], together with the records that they are kept with.

use std::sync::Arc;

use bytes::Bytes;
use candor_wire::{AccountId, Millis, ObjectId, StatementId, VaultId};

use super::log::Both;
use super::records::{NOW, append_after, head, row, swap, with_account};
use super::{NO_FAULT, account, key, vault};
use crate::erasures::{
    ErasureAsk, ErasureChange, ErasureEnd, ErasureJob, Erasures, RowsOutcome, RowsToErase,
};
use crate::log::{LOG_ENTRY_BYTES, MapChange, MapVersion, Sequencing};
use crate::records::{AppendOutcome, ChainRow, ObjectState, OpenOutcome, Reservation};

/// When what is asked for is due.
const DUE: Millis = NOW.plus_ms(1000);

/// Kind of the statements that are erased with their vault.
const CONSENT_GIVEN: u32 = 4;

trait All: Both + Erasures {}

impl<S: Both + Erasures> All for S {}

/// Puts erasures through every rule. `fresh` makes an empty store.
///
/// # Panics
/// If a rule is broken.
pub async fn check_erasures<S: crate::Records + crate::LogRecords + Erasures>(
    fresh: impl Fn() -> Arc<S>,
) {
    an_erasure_waits_until_it_is_due(&*fresh()).await;
    it_can_be_cancelled_until_it_begins(&*fresh()).await;
    what_waits_has_its_whole_time_again_in_a_copy_that_was_put_back(&*fresh()).await;
    a_vault_goes_and_its_neighbour_stays(&*fresh()).await;
    an_account_goes_whole(&*fresh()).await;
    an_erased_account_keeps_its_place_in_the_map(&*fresh()).await;
    receipts_of_accounts_are_forgotten(&*fresh()).await;
}

fn asked(number: u8) -> StatementId {
    StatementId::from_bytes([number; 32])
}

fn ask(number: u8, vault: Option<VaultId>) -> ErasureChange {
    ErasureChange::Ask(ErasureAsk {
        asked: asked(number),
        vault,
        receipt_name: [number; 32],
        asked_at: NOW,
        due_at: DUE,
    })
}

fn consent(sequence: u64) -> ChainRow {
    ChainRow {
        kind: CONSENT_GIVEN,
        ..row(1, sequence)
    }
}

/// Appends a row of account 1 that changes something about erasures.
async fn change(
    records: &dyn All,
    sequence: u64,
    change: impl IntoIterator<Item = ErasureChange>,
) -> AppendOutcome {
    let append = crate::ChainAppend {
        erasures: change.into_iter().collect(),
        heads: None,
        ..append_after(&row(1, sequence - 1), vec![consent(sequence)])
    };
    records.append(None, append).await.expect(NO_FAULT)
}

async fn due(records: &dyn All, now: Millis) -> Vec<StatementId> {
    let due = records.due(now, 10).await.expect(NO_FAULT);
    due.into_iter().map(|job| job.asked).collect()
}

async fn begin(records: &dyn All, number: u8) -> Option<ErasureJob> {
    records.begin(asked(number), DUE).await.expect(NO_FAULT)
}

async fn erase_rows(records: &dyn All, number: u8, stubs: &[u64]) -> RowsOutcome {
    let stub = |sequence: &u64| (*sequence, Bytes::from_static(b"stub"));
    let rows = RowsToErase {
        asked: asked(number),
        stubs: stubs.iter().map(stub).collect(),
        alias: account(99),
    };
    records.erase_rows(rows).await.expect(NO_FAULT)
}

async fn finish(records: &dyn All, number: u8) -> bool {
    let end = ErasureEnd {
        asked: asked(number),
        receipt: Bytes::from(vec![number; 10]),
        entry: [number; LOG_ENTRY_BYTES],
        now: DUE,
    };
    records.finish(end).await.expect(NO_FAULT)
}

/// Stores an object.
async fn store(records: &dyn All, vault: u8, number: u8) {
    let key = key(1, vault, ObjectId::from_bytes([number; 32]));
    let (size, now) = (100, NOW);
    let reservation = Reservation { key, size, now };
    records.reserve(None, reservation).await.expect(NO_FAULT);
    records.confirm(key, NOW).await.expect(NO_FAULT);
}

/// Takes away what was let go, as the cell does.
async fn take_away(records: &dyn All) {
    let keys = records.releasing(DUE, 100).await.expect(NO_FAULT);
    records.finish_release(keys).await.expect(NO_FAULT);
}

async fn sound(records: &dyn All) {
    records.check().await.expect("a sound store says so");
}

async fn an_erasure_waits_until_it_is_due(records: &dyn All) {
    with_account(records, 1).await;
    let appended = change(records, 2, [ask(1, Some(vault(1)))]).await;
    assert!(matches!(appended, AppendOutcome::Appended(_)));
    assert_eq!(due(records, DUE.plus_ms(-1)).await, []);
    let early = records.begin(asked(1), DUE.plus_ms(-1)).await;
    assert_eq!(early.expect(NO_FAULT), None);
    assert_eq!(erase_rows(records, 1, &[]).await, RowsOutcome::NotBegun);
    assert!(!finish(records, 1).await);
    assert_eq!(due(records, DUE).await, [asked(1)]);
    let job = begin(records, 1).await.expect("it is due");
    assert_eq!((job.account, job.vault), (account(1), Some(vault(1))));
    assert_eq!(due(records, NOW).await, [asked(1)], "it has begun");
    assert_eq!(begin(records, 1).await, Some(job), "and can go on");
    assert_eq!(begin(records, 2).await, None, "nobody asked for that");
    sound(records).await;
}

/// The copy may not know what was taken back since.
async fn what_waits_has_its_whole_time_again_in_a_copy_that_was_put_back(records: &dyn All) {
    with_account(records, 1).await;
    change(records, 2, [ask(1, Some(vault(1)))]).await;
    change(records, 3, [ask(2, Some(vault(2)))]).await;
    assert!(begin(records, 2).await.is_some());
    let put_back = DUE.plus_ms(1000);
    records.begin_log_anew(put_back).await.expect(NO_FAULT);
    // What has begun goes on: of that nothing is there to be kept.
    assert_eq!(due(records, put_back).await, [asked(2)]);
    let again = put_back.plus_ms(DUE.0 - NOW.0);
    assert_eq!(due(records, again.plus_ms(-1)).await, [asked(2)]);
    let early = records.begin(asked(1), again.plus_ms(-1)).await;
    assert_eq!(early.expect(NO_FAULT), None);
    let begun = records.begin(asked(1), again).await.expect(NO_FAULT);
    assert_eq!(begun.map(|job| job.asked_at), Some(NOW), "as acknowledged");
    sound(records).await;
}

async fn it_can_be_cancelled_until_it_begins(records: &dyn All) {
    with_account(records, 1).await;
    change(records, 2, [ask(1, Some(vault(1)))]).await;
    change(records, 3, [ErasureChange::Cancel(asked(1))]).await;
    assert_eq!(begin(records, 1).await, None);
    assert_eq!(due(records, DUE).await, []);

    let both = [ErasureChange::Cancel(asked(2)), ask(3, None)];
    change(records, 4, [ask(2, Some(vault(1)))]).await;
    assert!(begin(records, 2).await.is_some());
    let late = change(records, 5, both).await;
    assert_eq!(late, AppendOutcome::ErasureBegun);
    assert_eq!(due(records, DUE).await, [asked(2)], "nothing was changed");
    let page = records.read_chain(account(1), Some(4), 9).await;
    assert_eq!(page.expect(NO_FAULT).rows, []);
    sound(records).await;
}

async fn a_vault_goes_and_its_neighbour_stays(records: &dyn All) {
    with_account(records, 1).await;
    for number in 1..=3 {
        store(records, 1, number).await;
        store(records, 2, number).await;
    }
    let first = swap(None, head(1, 1));
    let mut other = first.clone();
    other.vault = vault(2);
    for swap in [first, other] {
        records.swap_head(None, swap).await.expect(NO_FAULT);
    }
    change(records, 2, []).await;
    change(records, 3, [ask(1, Some(vault(1)))]).await;
    let job = begin(records, 1).await.expect("it is due");
    assert_eq!((job.objects, job.bytes), (3, 300));
    assert_eq!(
        erase_rows(records, 1, &[2]).await,
        RowsOutcome::ObjectsLeft,
        "rows go after the bytes"
    );
    let go = |limit| records.let_objects_go(asked(1), DUE, limit);
    assert_eq!(go(2).await.expect(NO_FAULT), 2);
    assert_eq!(go(10).await.expect(NO_FAULT), 1);
    assert_eq!(go(10).await.expect(NO_FAULT), 0);
    let gone = records.has_objects(account(1), vault(1), vec![ObjectId::from_bytes([1; 32])]);
    assert_eq!(
        gone.await.expect(NO_FAULT),
        [crate::records::Presence::Absent]
    );
    sound(records).await;
    take_away(records).await;
    for _ in 0..2 {
        assert_eq!(
            erase_rows(records, 1, &[0, 2]).await,
            RowsOutcome::Erased { consents: 1 },
            "a genesis is no consent, and nothing is counted twice"
        );
    }
    records.settle().await.expect(NO_FAULT);
    assert!(finish(records, 1).await);
    assert!(!finish(records, 1).await, "it is done");
    assert_eq!(due(records, DUE).await, []);
    assert_eq!(begin(records, 1).await, None);

    let heads = [1, 2].map(|number| records.head(account(1), vault(number)));
    let [mine, other] = heads;
    assert_eq!(mine.await.expect(NO_FAULT), None);
    assert!(other.await.expect(NO_FAULT).is_some());
    let there = records.object(key(1, 2, ObjectId::from_bytes([1; 32])));
    let there = there.await.expect(NO_FAULT).map(|entry| entry.state);
    assert_eq!(there, Some(ObjectState::Stored));
    let bytes = records.account(account(1)).await.expect(NO_FAULT);
    assert_eq!(
        bytes.map(|one| (one.stored_bytes, one.reserved_bytes)),
        Some((300, 0))
    );
    let page = records.read_chain(account(1), None, 9).await;
    let records_kept: Vec<bool> = page
        .expect(NO_FAULT)
        .rows
        .iter()
        .map(|row| row.record != Bytes::from_static(b"stub"))
        .collect();
    assert_eq!(records_kept, [true, true, false, true]);
    let receipt = records.receipt([1; 32]).await.expect(NO_FAULT);
    assert_eq!(receipt, Some(Bytes::from(vec![1; 10])));
    assert_eq!(records.receipt([2; 32]).await.expect(NO_FAULT), None);
    let queued = records.log_batch().await.expect(NO_FAULT).queued;
    assert!(queued.contains(&[1; LOG_ENTRY_BYTES]));
    sound(records).await;
}

/// Erases account 1 from the beginning to the end.
async fn erase_account(records: &dyn All, sequence: u64) {
    change(records, sequence, [ask(7, None)]).await;
    assert!(begin(records, 7).await.is_some());
    let gone = records.let_objects_go(asked(7), DUE, 100).await;
    gone.expect(NO_FAULT);
    take_away(records).await;
    let outcome = erase_rows(records, 7, &[]).await;
    assert!(matches!(outcome, RowsOutcome::Erased { .. }));
    assert_eq!(erase_rows(records, 7, &[]).await, outcome, "again");
    assert!(finish(records, 7).await);
}

async fn an_account_goes_whole(records: &dyn All) {
    with_account(records, 1).await;
    with_account(records, 2).await;
    store(records, 1, 1).await;
    store(records, 2, 2).await;
    records
        .swap_head(None, swap(None, head(1, 1)))
        .await
        .expect(NO_FAULT);
    change(records, 2, [ask(1, Some(vault(1)))]).await;
    erase_account(records, 3).await;
    assert_eq!(records.account(account(1)).await.expect(NO_FAULT), None);
    assert_eq!(records.chain_tip(account(1)).await.expect(NO_FAULT), None);
    let head = records.head(account(1), vault(1)).await;
    assert_eq!(head.expect(NO_FAULT), None);
    assert_eq!(due(records, DUE).await, [], "its other wishes went with it");
    let receipt = records.receipt([7; 32]).await.expect(NO_FAULT);
    assert_eq!(receipt, Some(Bytes::from(vec![7; 10])));
    let again = records.open_account(super::records::opening(1)).await;
    assert_eq!(again.expect(NO_FAULT), OpenOutcome::InvitationUnknown);
    assert!(records.account(account(2)).await.expect(NO_FAULT).is_some());
    sound(records).await;
}

async fn an_erased_account_keeps_its_place_in_the_map(records: &dyn All) {
    with_account(records, 1).await;
    let put = |batch: &crate::log::LogBatch, number: u16| MapVersion {
        changes: vec![MapChange {
            account: account(1),
            stamp: batch.changed.first().map_or(0, |changed| changed.stamp),
            key: [5; 32],
            value: [number as u8; 32],
            state: Bytes::from_static(b"state"),
        }],
        root: [number as u8; 32],
        entry: 0,
        inputs: Bytes::new(),
    };
    let version = |batch: &crate::log::LogBatch, number: u16| Sequencing {
        expected: batch.tree,
        entries: vec![[number as u8; LOG_ENTRY_BYTES]],
        map: Some(put(batch, number)),
    };
    let batch = records.log_batch().await.expect(NO_FAULT);
    assert!(records.sequence(version(&batch, 1)).await.expect(NO_FAULT));
    // A version that was made before the account went, and comes after.
    let late = records.log_batch().await.expect(NO_FAULT);
    erase_account(records, 2).await;
    let rows = records.map_rows(0, None).await.expect(NO_FAULT);
    let one = |rows: &[crate::log::MapRow]| -> (AccountId, [u8; 32], [u8; 32], Bytes) {
        assert_eq!(rows.len(), 1);
        (
            rows[0].account,
            rows[0].key,
            rows[0].value,
            rows[0].state.clone(),
        )
    };
    assert_eq!(one(&rows), (account(99), [5; 32], [1; 32], Bytes::new()));
    assert!(records.sequence(version(&late, 2)).await.expect(NO_FAULT));
    let rows = records.map_rows(0, None).await.expect(NO_FAULT);
    assert_eq!(one(&rows), (account(99), [5; 32], [2; 32], Bytes::new()));
    assert_eq!(records.map_row(account(1)).await.expect(NO_FAULT), None);
    assert!(
        records
            .log_batch()
            .await
            .expect(NO_FAULT)
            .changed
            .is_empty()
    );
    sound(records).await;
}

async fn receipts_of_accounts_are_forgotten(records: &dyn All) {
    with_account(records, 1).await;
    change(records, 2, [ask(1, Some(vault(1)))]).await;
    assert!(begin(records, 1).await.is_some());
    assert_eq!(
        erase_rows(records, 1, &[]).await,
        RowsOutcome::Erased { consents: 0 }
    );
    assert!(finish(records, 1).await);
    let sweep = |before| records.sweep_receipts(before, 10);
    let later = DUE.plus_ms(1);
    assert_eq!(
        sweep(later).await.expect(NO_FAULT),
        0,
        "its account is there"
    );
    erase_account(records, 3).await;
    assert_eq!(records.receipt([1; 32]).await.expect(NO_FAULT), None);
    assert_eq!(sweep(DUE).await.expect(NO_FAULT), 0);
    assert_eq!(sweep(later).await.expect(NO_FAULT), 1);
    assert_eq!(records.receipt([7; 32]).await.expect(NO_FAULT), None);
    sound(records).await;
}
