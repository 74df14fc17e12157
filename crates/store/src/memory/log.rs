//! The log's ports in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use candor_wire::{AccountId, Millis, VaultId};

use super::{MemoryRecords, Tables, locked, ready};
use crate::Pending;
use crate::log::{
    ChangedAccount, LOG_BATCH_MAX_ENTRIES, LogBatch, LogEntry, LogFiles, LogFilesError, LogRecords,
    LogTree, MapInputs, MapRow, MapVersion, PARTIAL_ENDING, STATE_BATCH_MAX_ACCOUNTS, Sequencing,
    by_name, check_file, check_growth, check_name,
};
use crate::records::{Account, ROWS_MAX, RecordsError};

/// The log's bookkeeping.
#[derive(Debug)]
pub(super) struct Log {
    tree: LogTree,
    queue: BTreeMap<LogEntry, Millis>,
    /// Entries with a place that are not in the tree, by place.
    entries: BTreeMap<u64, LogEntry>,
    /// Stamps of the accounts that changed.
    changes: BTreeMap<AccountId, u64>,
    map: BTreeMap<AccountId, MapRow>,
    /// Inputs of versions whose entries are not in the tree, by version.
    inputs: BTreeMap<u64, MapInputs>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            tree: LogTree::EMPTY,
            queue: BTreeMap::new(),
            entries: BTreeMap::new(),
            changes: BTreeMap::new(),
            map: BTreeMap::new(),
            inputs: BTreeMap::new(),
        }
    }
}

impl Log {
    /// Puts all entries into the queue, or none.
    pub(super) fn queue(&mut self, entries: &[LogEntry], now: Millis) -> Result<(), RecordsError> {
        let new: BTreeMap<LogEntry, Millis> = entries.iter().map(|entry| (*entry, now)).collect();
        if new.len() < entries.len() || new.keys().any(|entry| self.queue.contains_key(entry)) {
            return Err(RecordsError::Invalid(
                "an entry of the log is queued already",
            ));
        }
        self.queue.extend(new);
        Ok(())
    }

    /// Notes that an account's chain or heads moved.
    pub(super) fn mark_changed(&mut self, account: AccountId) {
        *self.changes.entry(account).or_default() += 1;
    }

    /// An erased account's entry in the state map goes on as one that belongs to nobody.
    pub(super) fn give_to_nobody(&mut self, account: AccountId, alias: AccountId) {
        self.changes.remove(&account);
        if let Some(row) = self.map.remove(&account) {
            let row = MapRow {
                account: alias,
                state: Bytes::new(),
                ..row
            };
            self.map.insert(alias, row);
        }
    }

    fn oldest(&self) -> Vec<LogEntry> {
        let mut queued: Vec<(Millis, LogEntry)> = self
            .queue
            .iter()
            .map(|(entry, queued_at)| (*queued_at, *entry))
            .collect();
        queued.sort_unstable();
        queued.truncate(LOG_BATCH_MAX_ENTRIES);
        queued.into_iter().map(|(_, entry)| entry).collect()
    }

    fn sequence(
        &mut self,
        sequencing: Sequencing,
        accounts: &BTreeMap<AccountId, Account>,
    ) -> Result<bool, RecordsError> {
        let (from, to) = (sequencing.expected, sequencing.outcome()?);
        if (from.sequenced, from.map_version) != (self.tree.sequenced, self.tree.map_version) {
            return Ok(false);
        }
        self.tree.sequenced = to.sequenced;
        for (place, entry) in (from.sequenced..).zip(sequencing.entries) {
            self.queue.remove(&entry);
            self.entries.insert(place, entry);
        }
        if let Some(map) = sequencing.map {
            self.move_map(map, &to, accounts);
        }
        Ok(true)
    }

    fn move_map(&mut self, map: MapVersion, to: &LogTree, accounts: &BTreeMap<AccountId, Account>) {
        let (version, place) = (to.map_version, to.map_place);
        self.tree.map_version = version;
        self.tree.map_root = to.map_root;
        self.tree.map_place = place;
        let inputs = MapInputs {
            version,
            place,
            inputs: map.inputs,
        };
        self.inputs.insert(version, inputs);
        for change in map.changes {
            if self.changes.get(&change.account) == Some(&change.stamp) {
                self.changes.remove(&change.account);
            }
            // An account that was erased since this version was made: its entry is nobody's by now.
            let is_gone = !accounts.contains_key(&change.account);
            let mut is_orphaned = false;
            for row in self.map.values_mut() {
                if is_gone && row.key == change.key && row.account != change.account {
                    (row.value, row.version) = (change.value, version);
                    is_orphaned = true;
                }
            }
            if is_orphaned {
                continue;
            }
            let row = MapRow {
                account: change.account,
                key: change.key,
                value: change.value,
                version,
                state: change.state,
            };
            self.map.insert(change.account, row);
        }
    }

    fn sequenced(&self, from: u64, limit: usize) -> Vec<LogEntry> {
        if from < self.tree.size {
            return Vec::new();
        }
        let entries = self.entries.range(from..).map(|(_, entry)| *entry);
        entries.take(limit.min(ROWS_MAX)).collect()
    }

    fn advance(
        &mut self,
        from: (u64, [u8; 32]),
        to: (u64, [u8; 32]),
    ) -> Result<bool, RecordsError> {
        check_growth(from.0, to.0)?;
        if from != (self.tree.size, self.tree.root) || to.0 > self.tree.sequenced {
            return Ok(false);
        }
        (self.tree.size, self.tree.root) = to;
        self.entries = self.entries.split_off(&to.0);
        self.inputs.retain(|_, inputs| inputs.place >= to.0);
        Ok(true)
    }

    fn map_rows(&self, after: u64, last: Option<(u64, AccountId)>) -> Vec<MapRow> {
        let place = |row: &MapRow| (row.version, row.account);
        let mut rows: Vec<MapRow> = self
            .map
            .values()
            .filter(|row| row.version > after && last.is_none_or(|last| place(row) > last))
            .cloned()
            .collect();
        rows.sort_unstable_by_key(place);
        rows.truncate(ROWS_MAX);
        rows
    }
}

impl Tables {
    fn log_batch(&self) -> LogBatch {
        let changed = self.log.changes.iter();
        let changed = changed
            .filter_map(|(account, stamp)| self.changed(*account, *stamp))
            .take(STATE_BATCH_MAX_ACCOUNTS);
        LogBatch {
            tree: self.log.tree,
            queued: self.log.oldest(),
            changed: changed.collect(),
        }
    }

    fn changed(&self, account: AccountId, stamp: u64) -> Option<ChangedAccount> {
        let vault = |byte| (account, VaultId::from_bytes([byte; 16]));
        let heads = self.heads.range(vault(0)..=vault(0xff));
        let heads = heads.map(|((_, vault), head)| (*vault, head.mark));
        Some(ChangedAccount {
            account,
            stamp,
            tip: self.tip(account)?,
            heads: heads.collect(),
            genesis: self.chains.get(&account)?.first()?.record.clone(),
        })
    }
}

impl LogRecords for MemoryRecords {
    fn log_tree(&self) -> Pending<'_, Result<LogTree, RecordsError>> {
        self.once(None, |tables| Ok(tables.log.tree))
    }

    fn log_batch(&self) -> Pending<'_, Result<LogBatch, RecordsError>> {
        self.once(None, |tables| Ok(tables.log_batch()))
    }

    fn queue_entries(
        &self,
        entries: Vec<LogEntry>,
        now: Millis,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.once(None, |tables| tables.log.queue(&entries, now))
    }

    fn queue_again(
        &self,
        entries: Vec<LogEntry>,
        now: Millis,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.once(None, |tables| {
            for entry in entries {
                tables.log.queue.entry(entry).or_insert(now);
            }
            Ok(())
        })
    }

    fn begin_log_anew(&self, now: Millis) -> Pending<'_, Result<(), RecordsError>> {
        self.once(None, |tables| {
            let accounts = tables.accounts.keys().map(|account| (*account, 1));
            tables.log = Log {
                changes: accounts.collect(),
                ..Log::default()
            };
            for entry in tables.objects.values_mut() {
                entry.condemned_at = entry.condemned_at.map(|_| now);
            }
            tables.erasures_begin_anew(now);
            Ok(())
        })
    }

    fn accounts_after(
        &self,
        after: Option<AccountId>,
    ) -> Pending<'_, Result<Vec<AccountId>, RecordsError>> {
        self.once(None, |tables| {
            let all = tables.accounts.keys().copied();
            let later = all.filter(|account| after.is_none_or(|after| *account > after));
            Ok(later.take(ROWS_MAX).collect())
        })
    }

    fn sequence(&self, sequencing: Sequencing) -> Pending<'_, Result<bool, RecordsError>> {
        self.once(None, |tables| {
            tables.log.sequence(sequencing, &tables.accounts)
        })
    }

    fn sequenced_entries(
        &self,
        from: u64,
        limit: usize,
    ) -> Pending<'_, Result<Vec<LogEntry>, RecordsError>> {
        self.once(None, |tables| Ok(tables.log.sequenced(from, limit)))
    }

    fn map_inputs(&self) -> Pending<'_, Result<Vec<MapInputs>, RecordsError>> {
        self.once(None, |tables| {
            Ok(tables.log.inputs.values().cloned().collect())
        })
    }

    fn advance(
        &self,
        from: (u64, [u8; 32]),
        to: (u64, [u8; 32]),
    ) -> Pending<'_, Result<bool, RecordsError>> {
        self.once(None, |tables| tables.log.advance(from, to))
    }

    fn map_rows(
        &self,
        after: u64,
        last: Option<(u64, AccountId)>,
    ) -> Pending<'_, Result<Vec<MapRow>, RecordsError>> {
        self.once(None, |tables| Ok(tables.log.map_rows(after, last)))
    }

    fn map_row(&self, account: AccountId) -> Pending<'_, Result<Option<MapRow>, RecordsError>> {
        self.once(None, |tables| Ok(tables.log.map.get(&account).cloned()))
    }
}

/// The log's published files in memory.
#[derive(Debug, Default)]
pub struct MemoryLogFiles(Mutex<BTreeMap<String, Bytes>>);

impl MemoryLogFiles {
    fn put_all(&self, files: &[(String, Bytes)]) -> Result<(), LogFilesError> {
        let wanted = by_name(files)?;
        let mut there = locked(&self.0);
        for (name, bytes) in &wanted {
            if there.get(*name).is_some_and(|found| found != *bytes) {
                return Err(LogFilesError::Different {
                    name: String::from(*name),
                });
            }
        }
        for (name, bytes) in wanted {
            there.insert(String::from(name), bytes.clone());
        }
        Ok(())
    }
}

impl LogFiles for MemoryLogFiles {
    fn put(&self, files: Vec<(String, Bytes)>) -> Pending<'_, Result<(), LogFilesError>> {
        ready(self.put_all(&files))
    }

    fn replace(&self, name: String, bytes: Bytes) -> Pending<'_, Result<(), LogFilesError>> {
        let checked = check_file(&name, &bytes);
        ready(checked.map(|()| {
            locked(&self.0).insert(name, bytes);
        }))
    }

    fn remove_partial(&self, names: Vec<String>) -> Pending<'_, Result<(), LogFilesError>> {
        let checked = names.iter().try_for_each(|name| check_name(name));
        ready(checked.map(|()| {
            let mut there = locked(&self.0);
            for name in names {
                if !there.contains_key(&name) {
                    continue;
                }
                let partial = format!("{name}{PARTIAL_ENDING}/");
                there.retain(|name, _| !name.starts_with(&partial));
            }
        }))
    }

    fn get(&self, name: String) -> Pending<'_, Result<Option<Bytes>, LogFilesError>> {
        let checked = check_name(&name);
        ready(checked.map(|()| locked(&self.0).get(&name).cloned()))
    }
}
