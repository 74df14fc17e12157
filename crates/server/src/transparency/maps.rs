//! The state map in memory: a fold of the rows in the database, the same in every process of a cell.

use std::collections::BTreeMap;

use candor_log::state_map::{
    AccountState, MapKey, MapValue, StateMap, StateSecret, VaultState, encode_inputs,
};
use candor_store::LogRecords;
use candor_store::log::{ChangedAccount, LogTree, MapChange, MapVersion};
use candor_wire::cbor;
use candor_wire::chain::Record;

use super::LogFault;
use super::padding::PaddingEntry;

/// The map of the newest version that this process knows.
pub(crate) struct Maps {
    version: u64,
    map: StateMap,
}

/// What a new version consists of, besides its entry's place.
pub(crate) struct NextVersion {
    pub(crate) changes: Vec<MapChange>,
    pub(crate) inputs: Vec<(MapKey, MapValue)>,
    pub(crate) map: StateMap,
}

impl NextVersion {
    /// For the database; the entry with the root is the `entry`-th of the batch.
    pub(crate) fn to_store(&self, entry: usize) -> MapVersion {
        MapVersion {
            changes: self.changes.clone(),
            root: self.map.root().0,
            entry,
            inputs: encode_inputs(&self.inputs).into(),
        }
    }
}

impl Maps {
    pub(crate) fn new() -> Self {
        Self {
            version: 0,
            map: StateMap::new(),
        }
    }

    pub(crate) const fn map(&self) -> &StateMap {
        &self.map
    }

    /// Takes over a version that this process made.
    pub(crate) fn set(&mut self, version: u64, map: StateMap) {
        (self.version, self.map) = (version, map);
    }

    /// Catches up with the database, which stands at `tree`. `false`: it moved on meanwhile.
    pub(crate) async fn catch_up(
        &mut self,
        records: &dyn LogRecords,
        tree: &LogTree,
    ) -> Result<bool, LogFault> {
        if self.version > tree.map_version {
            // The database was put back: what is in memory is of another history.
            *self = Self::new();
        }
        let from_zero = self.version == 0;
        if self.version != tree.map_version {
            self.read(records, tree.map_version).await?;
        }
        if self.map.root().0 == tree.map_root {
            return Ok(true);
        }
        *self = Self::new();
        if from_zero && records.log_tree().await?.map_version == tree.map_version {
            return Err(LogFault::Damaged(
                "the rows of the state map do not have its root",
            ));
        }
        Ok(false)
    }

    async fn read(&mut self, records: &dyn LogRecords, version: u64) -> Result<(), LogFault> {
        let mut last = None;
        loop {
            let rows = records.map_rows(self.version, last).await?;
            let Some(end) = rows.last() else { break };
            last = Some((end.version, end.account));
            let changes: Vec<(MapKey, MapValue)> = rows
                .iter()
                .map(|row| (MapKey(row.key), MapValue(row.value)))
                .collect();
            self.map = self.map.with(&changes);
        }
        self.version = version;
        Ok(())
    }

    /// The version after this one, if these accounts make a difference, or padding does.
    pub(crate) fn next(
        &self,
        changed: &[ChangedAccount],
        padding: &[PaddingEntry],
    ) -> Result<Option<NextVersion>, LogFault> {
        let mut changes = changed
            .iter()
            .map(change_of)
            .collect::<Result<Vec<_>, _>>()?;
        // Two padding entries of one batch may have drawn the same key: the later one counts.
        let drawn = padding
            .iter()
            .map(|entry| (entry.change.key, &entry.change));
        changes.extend(BTreeMap::from_iter(drawn).into_values().cloned());
        let mut next = NextVersion {
            inputs: Vec::with_capacity(changes.len()),
            changes,
            map: self.map.clone(),
        };
        for change in &next.changes {
            let (key, value) = (MapKey(change.key), MapValue(change.value));
            // A move that was counted with an earlier version already is settled with the next one.
            if self.map.get(&key) != Some(value) {
                next.inputs.push((key, value));
            }
        }
        if next.inputs.is_empty() {
            return Ok(None);
        }
        next.inputs.sort_unstable_by_key(|(key, _)| key.0);
        next.map = self.map.with(&next.inputs);
        Ok(Some(next))
    }
}

fn change_of(account: &ChangedAccount) -> Result<MapChange, LogFault> {
    let damaged = || LogFault::Damaged("the first record of a chain");
    let genesis: Record = cbor::decode(&account.genesis).map_err(|_| damaged())?;
    let salt = genesis.statement.ok_or_else(damaged)?.salt;
    let secret = StateSecret::of(&salt, &account.account);
    let heads = account.heads.iter().map(|(vault, mark)| VaultState {
        vault: *vault,
        counter: mark.counter,
        hash: mark.hash,
    });
    let state = AccountState::new(account.tip.sequence, account.tip.link, heads.collect());
    Ok(MapChange {
        account: account.account,
        stamp: account.stamp,
        key: secret.key().0,
        value: secret.value(&state).0,
        state: state.to_bytes().into(),
    })
}
