//! Erasures in memory.

use bytes::Bytes;
use candor_wire::{AccountId, Millis, StatementId};

use super::{MemoryRecords, Tables};
use crate::Pending;
use crate::erasures::{
    ErasureAsk, ErasureChange, ErasureEnd, ErasureJob, Erasures, RowsOutcome, RowsToErase,
};
use crate::objects::ObjectKey;
use crate::records::{ObjectState, ROWS_MAX, RecordsError};

/// How far an erasure is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Waits,
    Began,
    Done { receipt: Bytes, erased_at: Millis },
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    job: ErasureJob,
    receipt_name: [u8; 32],
    due_at: Millis,
    stage: Stage,
}

impl Row {
    fn of(account: AccountId, ask: &ErasureAsk) -> Self {
        Self {
            job: ErasureJob {
                asked: ask.asked,
                account,
                vault: ask.vault,
                asked_at: ask.asked_at,
                objects: 0,
                bytes: 0,
                consents: 0,
            },
            receipt_name: ask.receipt_name,
            due_at: ask.due_at,
            stage: Stage::Waits,
        }
    }

    fn covers(&self, key: &ObjectKey) -> bool {
        let job = &self.job;
        key.account == job.account && job.vault.is_none_or(|vault| vault == key.vault)
    }
}

/// Kind of the statements that are erased with their vault.
const CONSENT_GIVEN: u32 = 4;

impl Tables {
    /// Whatever waits has its whole time again.
    pub(super) fn erasures_begin_anew(&mut self, now: Millis) {
        let waiting = self.erasures.values_mut();
        for row in waiting.filter(|row| row.stage == Stage::Waits) {
            let window = row.due_at.0 - row.job.asked_at.0;
            row.due_at = row.due_at.max(now.plus_ms(window));
        }
    }

    /// Whether one of the changes cancels what has begun.
    pub(super) fn comes_too_late(&self, changes: &[ErasureChange]) -> bool {
        let too_late = |change: &ErasureChange| match change {
            ErasureChange::Ask(_) => false,
            ErasureChange::Cancel(asked) => self
                .erasures
                .get(asked)
                .is_some_and(|row| row.stage != Stage::Waits),
        };
        changes.iter().any(too_late)
    }

    pub(super) fn change_erasures(&mut self, account: AccountId, changes: &[ErasureChange]) {
        for change in changes {
            match change {
                ErasureChange::Ask(ask) => {
                    let row = Row::of(account, ask);
                    self.erasures.entry(ask.asked).or_insert(row);
                }
                ErasureChange::Cancel(asked) => {
                    let is_own =
                        |row: &Row| row.job.account == account && row.stage == Stage::Waits;
                    if self.erasures.get(asked).is_some_and(is_own) {
                        self.erasures.remove(asked);
                    }
                }
            }
        }
    }

    fn begun(&self, asked: &StatementId) -> Option<Row> {
        let row = self.erasures.get(asked)?;
        (row.stage == Stage::Began).then(|| row.clone())
    }

    fn begin(&mut self, asked: StatementId, now: Millis) -> Option<ErasureJob> {
        let row = self.erasures.get(&asked)?.clone();
        let is_due = row.stage == Stage::Waits && row.due_at <= now;
        if is_due {
            let stored = self
                .objects
                .iter()
                .filter(|(key, entry)| row.covers(key) && entry.state == ObjectState::Stored);
            let sizes: Vec<u64> = stored.map(|(_, entry)| entry.size).collect();
            let row = self.erasures.get_mut(&asked)?;
            row.stage = Stage::Began;
            row.job.objects = sizes.len() as u64;
            row.job.bytes = sizes.iter().sum();
        }
        self.begun(&asked).map(|row| row.job)
    }

    fn let_objects_go(
        &mut self,
        asked: StatementId,
        now: Millis,
        limit: usize,
    ) -> Result<u64, RecordsError> {
        let Some(row) = self.begun(&asked) else {
            return Ok(0);
        };
        let held = self
            .objects
            .iter()
            .filter(|(key, entry)| row.covers(key) && entry.state != ObjectState::Releasing);
        let keys: Vec<ObjectKey> = held
            .map(|(key, _)| *key)
            .take(limit.min(ROWS_MAX))
            .collect();
        for key in &keys {
            let Some(entry) = self.objects.get_mut(key) else {
                continue;
            };
            let (was, size) = (entry.state, entry.size);
            (entry.state, entry.since, entry.condemned_at) = (ObjectState::Releasing, now, None);
            if was == ObjectState::Stored {
                let account = self.existing(key.account)?;
                account.stored_bytes -= size;
                account.reserved_bytes += size;
            }
        }
        Ok(keys.len() as u64)
    }

    fn erase_rows(&mut self, rows: &RowsToErase) -> RowsOutcome {
        let Some(row) = self.begun(&rows.asked) else {
            return RowsOutcome::NotBegun;
        };
        if self.objects.keys().any(|key| row.covers(key)) {
            return RowsOutcome::ObjectsLeft;
        }
        let account = row.job.account;
        let erased = match row.job.vault {
            Some(vault) => {
                self.heads.remove(&(account, vault));
                self.runs
                    .retain(|(owner, of, _), _| (*owner, *of) != (account, vault));
                self.log.mark_changed(account);
                self.put_stubs(account, &rows.stubs)
            }
            None => self.erase_account(&row, rows.alias),
        };
        let Some(kept) = self.erasures.get_mut(&rows.asked) else {
            return RowsOutcome::NotBegun;
        };
        kept.job.consents += erased;
        RowsOutcome::Erased {
            consents: kept.job.consents,
        }
    }

    fn put_stubs(&mut self, account: AccountId, stubs: &[(u64, Bytes)]) -> u64 {
        let mut erased = 0;
        let chain = self.chains.entry(account).or_default();
        for (sequence, stub) in stubs {
            let row = chain.iter_mut().find(|row| {
                row.sequence == *sequence && row.kind == CONSENT_GIVEN && row.record != *stub
            });
            if let Some(row) = row {
                row.record = stub.clone();
                erased += 1;
            }
        }
        erased
    }

    fn erase_account(&mut self, row: &Row, alias: AccountId) -> u64 {
        let account = row.job.account;
        let chain = self.chains.remove(&account).unwrap_or_default();
        self.accounts.remove(&account);
        self.heads.retain(|(owner, _), _| *owner != account);
        self.runs.retain(|(owner, _, _), _| *owner != account);
        self.links.retain(|_, row| !row.is_of(account));
        self.invitations
            .retain(|_, (_, opened)| *opened != Some(account));
        self.erasures
            .retain(|asked, other| other.job.account != account || *asked == row.job.asked);
        self.log.give_to_nobody(account, alias);
        let consents = chain.iter().filter(|row| row.kind == CONSENT_GIVEN);
        consents.count() as u64
    }

    fn finish(&mut self, end: ErasureEnd) -> Result<bool, RecordsError> {
        if self.begun(&end.asked).is_none() {
            return Ok(false);
        }
        self.log.queue(&[end.entry], end.now)?;
        if let Some(row) = self.erasures.get_mut(&end.asked) {
            row.job.vault = None;
            row.stage = Stage::Done {
                receipt: end.receipt,
                erased_at: end.now,
            };
        }
        Ok(true)
    }
}

impl Erasures for MemoryRecords {
    fn due(&self, now: Millis, limit: usize) -> Pending<'_, Result<Vec<ErasureJob>, RecordsError>> {
        self.once(None, |tables| {
            let open = tables.erasures.values().filter(|row| match row.stage {
                Stage::Waits => row.due_at <= now,
                Stage::Began => true,
                Stage::Done { .. } => false,
            });
            let mut open: Vec<&Row> = open.collect();
            open.sort_by_key(|row| (row.due_at, row.job.asked));
            let jobs = open.into_iter().map(|row| row.job.clone());
            Ok(jobs.take(limit.min(ROWS_MAX)).collect())
        })
    }

    fn begin(
        &self,
        asked: StatementId,
        now: Millis,
    ) -> Pending<'_, Result<Option<ErasureJob>, RecordsError>> {
        self.once(None, |tables| Ok(tables.begin(asked, now)))
    }

    fn let_objects_go(
        &self,
        asked: StatementId,
        now: Millis,
        limit: usize,
    ) -> Pending<'_, Result<u64, RecordsError>> {
        self.once(None, |tables| tables.let_objects_go(asked, now, limit))
    }

    fn erase_rows(&self, rows: RowsToErase) -> Pending<'_, Result<RowsOutcome, RecordsError>> {
        self.once(None, |tables| Ok(tables.erase_rows(&rows)))
    }

    fn settle(&self) -> Pending<'_, Result<(), RecordsError>> {
        self.once(None, |_| Ok(()))
    }

    fn finish(&self, end: ErasureEnd) -> Pending<'_, Result<bool, RecordsError>> {
        self.once(None, |tables| tables.finish(end))
    }

    fn receipt(&self, name: [u8; 32]) -> Pending<'_, Result<Option<Bytes>, RecordsError>> {
        self.once(None, |tables| {
            let named = tables
                .erasures
                .values()
                .find(|row| row.receipt_name == name);
            Ok(match named.map(|row| &row.stage) {
                Some(Stage::Done { receipt, .. }) => Some(receipt.clone()),
                _ => None,
            })
        })
    }

    fn sweep_receipts(
        &self,
        before: Millis,
        limit: usize,
    ) -> Pending<'_, Result<u64, RecordsError>> {
        self.once(None, |tables| {
            let old = tables.erasures.values().filter(|row| {
                let is_old =
                    matches!(row.stage, Stage::Done { erased_at, .. } if erased_at < before);
                is_old && !tables.accounts.contains_key(&row.job.account)
            });
            let old: Vec<StatementId> = old
                .map(|row| row.job.asked)
                .take(limit.min(ROWS_MAX))
                .collect();
            for asked in &old {
                tables.erasures.remove(asked);
            }
            Ok(old.len() as u64)
        })
    }
}
