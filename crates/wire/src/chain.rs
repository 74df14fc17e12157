//! An account's chain: its statements in order, and the view that follows from them.
//!
//! The view is a fold: each record is checked completely against the view so far and then applied,
//! or refused with nothing changed. Devices and cells run the same fold, so a cell cannot make a
//! device believe what the chain does not say:
//!
//! 1. Entry 0 is the genesis and is signed by the root key that it names.
//! 2. A device is added by the root or by a full device that is in the view.
//! 3. An epoch is signed by a full device; the first one of a scope also by the root, for a write-only device,
//!    which states none; its recipients are the recovery key and devices of the
//!    view, nobody else; numbers have no gaps.
//! 4. A consent is signed by the very device that it is for. A withdrawal by a full device ends the
//!    matching grants of all devices; one by a write-only device ends its own.
//! 5. A re-anchoring is signed by a full device, names the entry before it, and changes nothing else: it
//!    is there to be seen.
//! 6. Under an erasure that was asked for and not cancelled, of a vault or of the account, no consent holds and
//!    none can be given. It is asked for by a full device (the account's also by its root), and cancelled by
//!    either.
//! 7. A revocation is signed by a full device, about another one, or by the root. What the revoked device states after it is
//!    refused, no consent of it holds, and no later epoch is wrapped to it ([`crate::revocation`]).
//! 8. An erased consent statement leaves a stub. A stub gives nothing. The stub of a withdrawal ends
//!    *every* earlier grant: whoever hides what was withdrawn must not bring it back to life.

mod consents;
mod revoked;

use std::collections::BTreeMap;

pub use self::revoked::{Revoked, VoidHead};
use crate::cbor::{self, CodecError};
use crate::cell::{CellError, CellKeyring, SignedAcknowledgement};
use crate::consent_record::{ConsentRecord, RecordFault};
use crate::epoch::EpochRecord;
use crate::erasure::{ERASURE_VERSION, ErasureAsked, ErasureCancelled};
use crate::ids::{AccountId, CellId, DeviceId, Link, StatementId, VaultId};
use crate::limits::DEVICES_MAX;
use crate::re_anchor::HeadPoint;
use crate::sign::PublicKey;
use crate::statement::{
    Body, DeviceAdded, Genesis, Kind, Parsed, Role, Statement, genesis_link, link,
};
use crate::time::Millis;

/// The version of chain records that this build writes and the lowest that it accepts.
pub const RECORD_VERSION: u8 = 1;

/// Most entries in one chain: consents and devices of a lifetime, and a bound for whoever folds it.
pub const CHAIN_MAX_ENTRIES: u64 = 65_536;

/// Most vaults of one account.
pub const VAULTS_MAX: usize = 1024;

/// The last entries of a chain that can only take back erasures or revoke devices, one for each that can stand: nobody
/// fills a chain so that they, or what they asked for, can no longer be stopped.
pub const CHAIN_KEPT_FOR_CANCELLING: u64 = (VAULTS_MAX + 1 + DEVICES_MAX) as u64;

/// One place of a chain as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Record {
    /// Always [`RECORD_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Place, from 0.
    #[n(1)]
    pub sequence: u64,
    /// Kind of the statement; stays when it is erased.
    #[n(2)]
    pub kind: Kind,
    /// Commitment to the statement; stays when it is erased.
    #[n(3)]
    pub commitment: StatementId,
    /// The statement and its salt; absent once erased.
    #[n(4)]
    pub statement: Option<Statement>,
    /// The cell's acknowledgement; absent while it is on its way there.
    #[n(5)]
    pub acknowledgement: Option<SignedAcknowledgement>,
}

impl cbor::Canonical for Record {
    const WHAT: &'static str = "a chain record";
    const MAX_BYTES: usize = crate::limits::STATEMENT_MAX_BYTES + 2048;
}

impl Record {
    /// A new, not yet acknowledged record of a statement.
    pub fn of(statement: Statement) -> Result<Self, CodecError> {
        let parsed = statement.parse()?;
        Ok(Self {
            version: RECORD_VERSION,
            sequence: parsed.entry.sequence,
            kind: parsed.entry.kind,
            commitment: parsed.id,
            statement: Some(statement),
            acknowledgement: None,
        })
    }
}

/// Why a record was refused. The view is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The bytes cannot be read.
    #[error("entry {sequence} of the chain cannot be read")]
    Codec {
        /// Place in the chain.
        sequence: u64,
        /// What is wrong with them.
        #[source]
        source: CodecError,
    },
    /// Not the next place, another account, or it does not follow from the entry before.
    #[error("entry {sequence} does not continue the chain")]
    Order {
        /// Place in the chain.
        sequence: u64,
    },
    /// Not signed by a key that may state this.
    #[error("entry {sequence} is not signed by a key that may state it")]
    Signature {
        /// Place in the chain.
        sequence: u64,
    },
    /// Signed by a device that was revoked before.
    #[error("entry {sequence} is signed by a device that was revoked")]
    Revoked {
        /// Place in the chain.
        sequence: u64,
    },
    /// The signer exists, but its role does not allow this.
    #[error("entry {sequence} is signed by a device that may not state it")]
    Role {
        /// Place in the chain.
        sequence: u64,
    },
    /// The statement contradicts what the chain says already.
    #[error("entry {sequence} contradicts the chain: {reason}")]
    Contradiction {
        /// Place in the chain.
        sequence: u64,
        /// In which way.
        reason: &'static str,
    },
    /// A consent record is not acceptable in itself.
    #[error("the consent in entry {sequence} cannot hold")]
    Consent {
        /// Place in the chain.
        sequence: u64,
        /// Why.
        #[source]
        source: RecordFault,
    },
    /// The acknowledgement is not one of this cell for this place.
    #[error("the acknowledgement of entry {sequence} is not valid")]
    Acknowledgement {
        /// Place in the chain.
        sequence: u64,
        /// Why, when the signature itself was bad.
        #[source]
        source: Option<CellError>,
    },
    /// A statement is missing that may never be erased.
    #[error("entry {sequence} was taken away, and its kind can never be erased")]
    NotErasable {
        /// Place in the chain.
        sequence: u64,
    },
    /// Too many of something.
    #[error("entry {sequence} goes beyond a limit: {what}")]
    Limit {
        /// Place in the chain.
        sequence: u64,
        /// Of what.
        what: &'static str,
    },
}

/// A device of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEntry {
    /// Its statement.
    pub added: DeviceAdded,
    /// Where it stands in the chain.
    pub sequence: u64,
    /// When it was added, by the signer's clock.
    pub time: Millis,
    /// When and how it ceased to be one of the account's devices, if it did.
    pub revoked: Option<Revoked>,
}

/// A consent of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentEntry {
    /// What was agreed.
    pub record: ConsentRecord,
    /// Where it stands in the chain.
    pub sequence: u64,
    /// When the cell acknowledged it; `None` while it has not.
    pub acknowledged: Option<Millis>,
    /// When it was withdrawn, if it was.
    pub withdrawn: Option<Millis>,
}

/// An erasure that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureEntry {
    /// Which vault; `None` for the whole account.
    pub vault: Option<VaultId>,
    /// Where it stands in the chain.
    pub sequence: u64,
    /// The device that asked; `None` for the root.
    pub device: Option<DeviceId>,
    /// When, by the signer's clock.
    pub time: Millis,
    /// When the cell acknowledged it; `None` while it has not.
    pub acknowledged: Option<Millis>,
    /// When it was taken back, if it was.
    pub cancelled: Option<Millis>,
}

/// One line of an account's history, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Place in the chain.
    pub sequence: u64,
    /// What kind of fact.
    pub kind: Kind,
    /// The statement's id.
    pub id: StatementId,
    /// When, if the statement was not erased.
    pub time: Option<Millis>,
}

/// What an account's chain says, checked up to [`Self::next_sequence`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountView {
    account: AccountId,
    genesis: Genesis,
    devices: BTreeMap<DeviceId, DeviceEntry>,
    epochs: BTreeMap<Option<VaultId>, EpochRecord>,
    consents: BTreeMap<StatementId, ConsentEntry>,
    erasures: BTreeMap<StatementId, ErasureEntry>,
    /// Where the newest re-anchoring stands that named a vault, and the head that it accepted, if there was one.
    accepted: BTreeMap<VaultId, (u64, Option<HeadPoint>)>,
    history: Vec<HistoryEntry>,
    next_sequence: u64,
    tip: Link,
}

impl AccountView {
    /// Begins a view with the genesis record of `account`.
    pub fn begin(
        account: AccountId,
        record: &Record,
        cell: &CellKeyring,
    ) -> Result<Self, ChainError> {
        let parsed = parse(record, 0, &account, &genesis_link())?;
        let Some(parsed) = parsed else {
            return Err(ChainError::NotErasable { sequence: 0 });
        };
        let Body::Genesis(genesis) = &parsed.body else {
            return Err(ChainError::Contradiction {
                sequence: 0,
                reason: "it does not begin with a genesis",
            });
        };
        if parsed.entry.signer.is_some() || parsed.verify(&genesis.root).is_err() {
            return Err(ChainError::Signature { sequence: 0 });
        }
        if genesis.cell != cell.cell() {
            return Err(ChainError::Contradiction {
                sequence: 0,
                reason: "it begins at another cell",
            });
        }
        let tip = parsed.link();
        acknowledged(record, &account, &tip, cell)?;
        Ok(Self {
            account,
            genesis: (**genesis).clone(),
            devices: BTreeMap::new(),
            epochs: BTreeMap::new(),
            consents: BTreeMap::new(),
            erasures: BTreeMap::new(),
            accepted: BTreeMap::new(),
            history: vec![HistoryEntry {
                sequence: 0,
                kind: Kind::Genesis,
                id: parsed.id,
                time: Some(parsed.entry.time),
            }],
            next_sequence: 1,
            tip,
        })
    }

    /// Folds a whole chain.
    pub fn of(
        account: AccountId,
        records: &[Record],
        cell: &CellKeyring,
    ) -> Result<Self, ChainError> {
        let (first, rest) = records
            .split_first()
            .ok_or(ChainError::Order { sequence: 0 })?;
        let mut view = Self::begin(account, first, cell)?;
        for record in rest {
            view.apply(record, cell)?;
        }
        Ok(view)
    }

    /// Checks the next record and applies it.
    pub fn apply(&mut self, record: &Record, cell: &CellKeyring) -> Result<(), ChainError> {
        let sequence = self.next_sequence;
        if sequence >= CHAIN_MAX_ENTRIES {
            return Err(ChainError::Limit {
                sequence,
                what: "entries of a chain",
            });
        }
        let parsed = parse(record, sequence, &self.account, &self.tip)?;
        let is_kept = sequence >= CHAIN_MAX_ENTRIES - CHAIN_KEPT_FOR_CANCELLING;
        let stops = |parsed: &Parsed| {
            matches!(
                parsed.body,
                Body::ErasureCancelled(_) | Body::DeviceRevoked(_)
            )
        };
        if is_kept && parsed.as_ref().is_some_and(|parsed| !stops(parsed)) {
            return Err(ChainError::Limit {
                sequence,
                what: "entries of a chain",
            });
        }
        let tip = link(sequence, record.kind.code(), &self.tip, &record.commitment);
        let acknowledged = acknowledged(record, &self.account, &tip, cell)?;
        let time = parsed.as_ref().map(|parsed| parsed.entry.time);
        match parsed {
            Some(parsed) => self.apply_statement(&parsed, acknowledged)?,
            None => self.apply_stub(record.kind, sequence)?,
        }
        self.history.push(HistoryEntry {
            sequence,
            kind: record.kind,
            id: record.commitment,
            time,
        });
        self.next_sequence += 1;
        self.tip = tip;
        Ok(())
    }

    fn apply_stub(&mut self, kind: Kind, sequence: u64) -> Result<(), ChainError> {
        if !kind.is_erasable() {
            return Err(ChainError::NotErasable { sequence });
        }
        if kind == Kind::ConsentWithdrawn {
            // What it withdrew is unknown: everything before it.
            for consent in self.consents.values_mut() {
                consent.withdrawn.get_or_insert(consent.record.given_at);
            }
        }
        Ok(())
    }

    fn apply_statement(
        &mut self,
        parsed: &Parsed,
        acknowledged: Option<Millis>,
    ) -> Result<(), ChainError> {
        let sequence = parsed.entry.sequence;
        let signer = match &parsed.entry.signer {
            None => None,
            Some(device) => Some(
                self.devices
                    .get(device)
                    .ok_or(ChainError::Signature { sequence })?,
            ),
        };
        let key = signer.map_or(&self.genesis.root, |device| &device.added.signing);
        parsed
            .verify(key)
            .map_err(|_| ChainError::Signature { sequence })?;
        if signer.is_some_and(|device| !device.is_live()) {
            return Err(ChainError::Revoked { sequence });
        }
        let role = signer.map(|device| (device.added.device, device.added.role));
        let only_full = || match role {
            Some((device, Role::Full)) => Ok(device),
            _ => Err(ChainError::Role { sequence }),
        };
        match &parsed.body {
            Body::Genesis(_) => Err(ChainError::Contradiction {
                sequence,
                reason: "an account begins only once",
            }),
            Body::DeviceAdded(added) => {
                if role.is_some() {
                    only_full()?;
                }
                self.add_device(added, parsed)
            }
            Body::Epoch(record) => {
                if role.is_some() || record.epoch != 1 {
                    only_full()?;
                }
                self.add_epoch(record, sequence)
            }
            Body::ConsentGiven(record) => {
                let Some((device, _)) = role else {
                    return Err(ChainError::Role { sequence });
                };
                self.add_consent(record, parsed, device, acknowledged)
            }
            Body::ConsentWithdrawn(withdrawal) => {
                let Some((device, role)) = role else {
                    return Err(ChainError::Role { sequence });
                };
                let only = (role == Role::WriteOnly).then_some(device);
                self.withdraw(withdrawal, only, &parsed.entry)
            }
            Body::ErasureAsked(asked) => {
                if role.is_some() || asked.vault.is_some() {
                    only_full()?;
                }
                self.ask_erasure(asked, parsed, acknowledged)
            }
            Body::ErasureCancelled(cancelled) => {
                if role.is_some() {
                    only_full()?;
                }
                self.cancel_erasure(cancelled, parsed)
            }
            Body::DeviceRevoked(revoked) => {
                if role.is_some() {
                    only_full()?;
                }
                self.revoke(revoked, parsed)
            }
            Body::ReAnchored(accepted) => {
                only_full()?;
                if accepted.fits(sequence, &parsed.entry.previous) {
                    self.accept_heads(accepted, sequence);
                    Ok(())
                } else {
                    Err(ChainError::Contradiction {
                        sequence,
                        reason: "a re-anchoring accepts what is before it, and nothing newer",
                    })
                }
            }
        }
    }

    fn add_device(&mut self, added: &DeviceAdded, parsed: &Parsed) -> Result<(), ChainError> {
        let sequence = parsed.entry.sequence;
        let live = self.devices.values().filter(|entry| entry.is_live());
        if live.count() >= DEVICES_MAX {
            return Err(ChainError::Limit {
                sequence,
                what: "devices",
            });
        }
        if self.devices.contains_key(&added.device) {
            return Err(ChainError::Contradiction {
                sequence,
                reason: "the device is there already",
            });
        }
        let entry = DeviceEntry {
            added: added.clone(),
            sequence,
            time: parsed.entry.time,
            revoked: None,
        };
        self.devices.insert(added.device, entry);
        Ok(())
    }

    fn add_epoch(&mut self, record: &EpochRecord, sequence: u64) -> Result<(), ChainError> {
        let contradiction = |reason| Err(ChainError::Contradiction { sequence, reason });
        if !record.is_well_formed() {
            return contradiction("the epoch record has no valid shape");
        }
        let current = self
            .epochs
            .get(&record.vault)
            .map_or(0, |epoch| epoch.epoch);
        if record.epoch != current + 1 {
            return contradiction("epochs follow each other without gaps");
        }
        // The newest epoch of a scope says who its members are; only those, and newly added
        // devices of the account, can be recipients.
        if record
            .wraps
            .iter()
            .flat_map(|wrap| wrap.recipient)
            .any(|device| !self.devices.get(&device).is_some_and(DeviceEntry::is_live))
        {
            return contradiction(
                "an epoch is wrapped to somebody who is not a device of the account",
            );
        }
        if current == 0 && self.epochs.len() > VAULTS_MAX {
            return Err(ChainError::Limit {
                sequence,
                what: "vaults",
            });
        }
        self.epochs.insert(record.vault, record.clone());
        Ok(())
    }

    fn ask_erasure(
        &mut self,
        asked: &ErasureAsked,
        parsed: &Parsed,
        acknowledged: Option<Millis>,
    ) -> Result<(), ChainError> {
        let sequence = parsed.entry.sequence;
        let contradiction = |reason| Err(ChainError::Contradiction { sequence, reason });
        if asked.version != ERASURE_VERSION {
            return contradiction("the wish to erase has a version that is not accepted");
        }
        if asked.vault.is_some() && !self.epochs.contains_key(&asked.vault) {
            return contradiction("what is to be erased is no known vault");
        }
        if self.erasure_of(asked.vault.as_ref()).is_some() {
            return contradiction("it is being erased already");
        }
        for consent in self.consents.values_mut() {
            if asked.vault.is_none() || consent.record.vault == asked.vault {
                consent.withdrawn.get_or_insert(parsed.entry.time);
            }
        }
        let entry = ErasureEntry {
            vault: asked.vault,
            sequence,
            device: parsed.entry.signer,
            time: parsed.entry.time,
            acknowledged,
            cancelled: None,
        };
        self.erasures.insert(parsed.id, entry);
        Ok(())
    }

    fn cancel_erasure(
        &mut self,
        cancelled: &ErasureCancelled,
        parsed: &Parsed,
    ) -> Result<(), ChainError> {
        let standing = self
            .erasures
            .get_mut(&cancelled.asked)
            .filter(|entry| cancelled.version == ERASURE_VERSION && entry.cancelled.is_none());
        let Some(entry) = standing else {
            return Err(ChainError::Contradiction {
                sequence: parsed.entry.sequence,
                reason: "there is no such erasure to cancel",
            });
        };
        entry.cancelled = Some(parsed.entry.time);
        Ok(())
    }

    /// The account.
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// The cell on which the account began.
    pub const fn cell(&self) -> CellId {
        self.genesis.cell
    }

    /// The first statement: root key and recovery key.
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// A device, if it is or was one of this account.
    pub fn device(&self, device: &DeviceId) -> Option<&DeviceEntry> {
        self.devices.get(device)
    }

    /// All devices that there are or were, by id.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceEntry> {
        self.devices.values()
    }

    /// The newest epoch of a vault, or of the account's own key.
    pub fn epoch(&self, vault: Option<VaultId>) -> Option<&EpochRecord> {
        self.epochs.get(&vault)
    }

    /// Every vault that has an epoch.
    pub fn vaults(&self) -> impl Iterator<Item = VaultId> + '_ {
        self.epochs.keys().filter_map(|vault| *vault)
    }

    /// A consent, whatever became of it.
    pub fn consent(&self, id: &StatementId) -> Option<&ConsentEntry> {
        self.consents.get(id)
    }

    /// All consents that were not erased, whatever became of them, by place in the chain.
    pub fn consents(&self) -> Vec<(StatementId, &ConsentEntry)> {
        let mut all: Vec<_> = self
            .consents
            .iter()
            .map(|(id, entry)| (*id, entry))
            .collect();
        all.sort_by_key(|(_, entry)| entry.sequence);
        all
    }

    /// All erasures that were ever asked for, by place in the chain.
    pub fn erasures(&self) -> Vec<(StatementId, &ErasureEntry)> {
        let mut all: Vec<_> = self
            .erasures
            .iter()
            .map(|(id, entry)| (*id, entry))
            .collect();
        all.sort_by_key(|(_, entry)| entry.sequence);
        all
    }

    /// The erasure that a vault is under, its own or the account's; with `None`, the account's.
    pub fn erasure_of(&self, vault: Option<&VaultId>) -> Option<(StatementId, &ErasureEntry)> {
        let standing = self.erasures.iter().find(|(_, one)| {
            let covers = one.vault.is_none() || one.vault.as_ref() == vault;
            one.cancelled.is_none() && covers
        });
        standing.map(|(id, entry)| (*id, entry))
    }

    /// The write-only device whose vault this is: the only device that ever consented for it. Its heads are runs,
    /// and nobody else moves them.
    pub fn writer_of(&self, vault: &VaultId) -> Option<DeviceId> {
        let mut devices = self
            .consents
            .values()
            .filter(|consent| consent.record.vault.as_ref() == Some(vault))
            .map(|consent| consent.record.device);
        let first = devices.next()?;
        let is_writer = self
            .device(&first)
            .is_some_and(|entry| entry.added.role == Role::WriteOnly);
        (is_writer && devices.all(|device| device == first)).then_some(first)
    }

    /// Every entry, in order.
    pub fn history(&self) -> &[HistoryEntry] {
        &self.history
    }

    /// Place of the next entry; also the number of entries.
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Link of the newest entry.
    pub const fn tip(&self) -> Link {
        self.tip
    }

    /// The public key of the signer of a request or statement: a device's, also of one that was revoked, or the root's
    /// for `None`.
    pub fn key_of(&self, signer: Option<&DeviceId>) -> Option<&PublicKey> {
        match signer {
            None => Some(&self.genesis.root),
            Some(device) => self.devices.get(device).map(|entry| &entry.added.signing),
        }
    }
}

/// Decodes a record and checks its place. `None` for an erased one.
fn parse(
    record: &Record,
    sequence: u64,
    account: &AccountId,
    previous: &Link,
) -> Result<Option<Parsed>, ChainError> {
    if record.version != RECORD_VERSION || record.sequence != sequence {
        return Err(ChainError::Order { sequence });
    }
    let Some(statement) = &record.statement else {
        return Ok(None);
    };
    let parsed = statement
        .parse()
        .map_err(|source| ChainError::Codec { sequence, source })?;
    let in_place = parsed.entry.sequence == sequence
        && parsed.entry.account == *account
        && parsed.entry.previous == *previous
        && parsed.entry.kind == record.kind
        && parsed.id == record.commitment;
    if in_place {
        Ok(Some(parsed))
    } else {
        Err(ChainError::Order { sequence })
    }
}

/// Checks the acknowledgement of a record, if it has one, and tells its time.
fn acknowledged(
    record: &Record,
    account: &AccountId,
    tip: &Link,
    cell: &CellKeyring,
) -> Result<Option<Millis>, ChainError> {
    let sequence = record.sequence;
    let Some(signed) = &record.acknowledgement else {
        return Ok(None);
    };
    let ack = cell
        .check(signed)
        .map_err(|source| ChainError::Acknowledgement {
            sequence,
            source: Some(source),
        })?;
    let fits = ack.account == *account
        && ack.sequence == sequence
        && ack.link == *tip
        && ack.statement == record.commitment;
    if fits {
        Ok(Some(ack.time))
    } else {
        Err(ChainError::Acknowledgement {
            sequence,
            source: None,
        })
    }
}
