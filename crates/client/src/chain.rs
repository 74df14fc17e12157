//! The account's chain as this device holds it: the records, the cell's keys, and what follows from
//! both. Nothing of it is secret; the device keeps it between runs and checks all of it again when it
//! is loaded.

use candor_wire::cell::{CellError, CellKeyring, SignedAcknowledgement, SignedCellKeys};
use candor_wire::chain::{AccountView, ChainError, Record};
use candor_wire::sign::Ed25519Public;
use candor_wire::{AccountId, StatementId};

/// A chain that was checked from its first entry on.
#[derive(Debug, Clone)]
pub struct Chain {
    records: Vec<Record>,
    cell_keys: Vec<SignedCellKeys>,
    keyring: CellKeyring,
    view: AccountView,
}

/// Why parts do not make a chain.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The cell's keys do not verify.
    #[error("the cell's keys do not verify")]
    Cell(#[source] CellError),
    /// The records do not verify.
    #[error("the account's chain does not verify")]
    Chain(#[source] ChainError),
}

impl Chain {
    /// Checks all of it: the cell's keys under its pinned root key, every record under those before.
    pub fn load(
        root: &Ed25519Public,
        account: AccountId,
        cell_keys: Vec<SignedCellKeys>,
        records: Vec<Record>,
    ) -> Result<Self, LoadError> {
        let keyring = CellKeyring::verify(root, &cell_keys).map_err(LoadError::Cell)?;
        let view = AccountView::of(account, &records, &keyring).map_err(LoadError::Chain)?;
        Ok(Self {
            records,
            cell_keys,
            keyring,
            view,
        })
    }

    /// Takes newer keys of the cell. The caller has checked them and that they are not older.
    pub(crate) fn set_cell_keys(&mut self, signed: Vec<SignedCellKeys>, keyring: CellKeyring) {
        self.cell_keys = signed;
        self.keyring = keyring;
    }

    /// Checks further records and takes them all, or none.
    pub(crate) fn extend(&mut self, records: Vec<Record>) -> Result<(), ChainError> {
        let mut view = self.view.clone();
        for record in &records {
            view.apply(record, &self.keyring)?;
        }
        self.view = view;
        self.records.extend(records);
        Ok(())
    }

    /// Every record, in order, for keeping.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The cell's keys as it signed them, for keeping.
    pub fn cell_keys(&self) -> &[SignedCellKeys] {
        &self.cell_keys
    }

    /// The cell's keys.
    pub const fn keyring(&self) -> &CellKeyring {
        &self.keyring
    }

    /// What the chain says.
    pub const fn view(&self) -> &AccountView {
        &self.view
    }

    /// Its first statement, which tells this chain from every other.
    pub fn genesis(&self) -> StatementId {
        self.view.history()[0].id
    }

    /// The account.
    pub const fn account(&self) -> AccountId {
        self.view.account()
    }
}

/// Puts the acknowledgements into their records.
pub(crate) fn acknowledge(records: &mut [Record], acknowledgements: Vec<SignedAcknowledgement>) {
    for (record, acknowledgement) in records.iter_mut().zip(acknowledgements) {
        record.acknowledgement = Some(acknowledgement);
    }
}
