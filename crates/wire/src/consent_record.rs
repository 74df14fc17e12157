//! Consent records, with the fields of ISO/IEC TS 27560:2023, as statements of the chain.
//!
//! A record says in checkable form what a person was told and what they said. It is personal data:
//! it is stored with its salt and never enters a log in the clear. Who signed it, when it was
//! acknowledged, its salt and its log label stand in the statement and record around it.

use crate::ids::{AccountId, CellId, DeviceId, StatementId, VaultId};
use crate::limits::CONSENT_MAX_MS;
use crate::time::Millis;

/// The version of consent records that this build writes and the lowest that it accepts.
pub const CONSENT_RECORD_VERSION: u8 = 1;

/// Longest text in a record, in bytes: names of controllers and regions, a language tag.
pub const TEXT_MAX_BYTES: usize = 256;

/// Most items in a list of a record. The longest list in use has five.
pub const LIST_MAX_ITEMS: usize = 16;

/// What a person can switch on. The numbers are part of the format and never reused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum ServiceCode {
    /// Back up folders.
    #[n(1)]
    Backup,
    /// Keep folders in step between devices.
    #[n(2)]
    Sync,
    /// Messages to other people's devices.
    #[n(3)]
    Messages,
    /// Secure internet.
    #[n(4)]
    Relay,
    /// Escrowed recovery.
    #[n(5)]
    Recovery,
}

impl ServiceCode {
    /// Every service.
    pub const ALL: [Self; 5] = [
        Self::Backup,
        Self::Sync,
        Self::Messages,
        Self::Relay,
        Self::Recovery,
    ];

    /// The name used on the command line and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Sync => "sync",
            Self::Messages => "messages",
            Self::Relay => "relay",
            Self::Recovery => "recovery",
        }
    }
}

/// What kinds of data a service handles.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum DataCategory {
    /// Contents, names and properties of files; sealed on the device.
    #[n(1)]
    SealedFiles,
    /// Sizes and number of sealed objects.
    #[n(2)]
    ObjectSizes,
    /// Times of uploads and downloads.
    #[n(3)]
    AccessTimes,
    /// Network address of the device while it is connected.
    #[n(4)]
    NetworkAddress,
    /// Random ids of account, device and vault, and public keys.
    #[n(5)]
    Identifiers,
}

/// What is done with the data.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum Operation {
    /// Received from the device.
    #[n(1)]
    Receive,
    /// Kept.
    #[n(2)]
    Store,
    /// Given back to the owner's devices.
    #[n(3)]
    ReturnToOwner,
    /// Deleted when asked, or when the time is over.
    #[n(4)]
    Delete,
}

/// Why the processing is lawful. Candor uses consent and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Basis {
    /// The person's consent (GDPR Article 6(1)(a)).
    #[n(1)]
    Consent,
}

/// How the answer was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Collected {
    /// The person answered a question on a terminal.
    #[n(1)]
    Terminal,
    /// A command carried an explicit flag that says yes; the same text was printed.
    #[n(2)]
    CommandFlag,
    /// The person used the switch on the device's own page.
    #[n(3)]
    Page,
}

/// What happened to the consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Event {
    /// Given for the first time.
    #[n(1)]
    Given,
    /// Given again before the end of an earlier one.
    #[n(2)]
    Renewed,
}

/// Where the data goes: who controls it, at which cell, in which region.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Recipient {
    /// The cell.
    #[n(0)]
    pub cell: CellId,
    /// Name of the party that runs the cell.
    #[n(1)]
    pub controller: String,
    /// Jurisdiction in which the cell keeps the data.
    #[n(2)]
    pub region: String,
}

/// What a person agreed to. Valid for one account, device, service, vault and cell.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ConsentRecord {
    /// Always [`CONSENT_RECORD_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The subject, under a pseudonym: the random account id.
    #[n(1)]
    pub subject: AccountId,
    /// The device that may send.
    #[n(2)]
    pub device: DeviceId,
    /// The service.
    #[n(3)]
    pub service: ServiceCode,
    /// The vault that may be written; absent for services without vaults.
    #[n(4)]
    pub vault: Option<VaultId>,
    /// Controller, cell and place. The only recipient: nobody else receives the data.
    #[n(5)]
    pub recipient: Recipient,
    /// Version of the purpose's text, for example `backup/1`.
    #[n(6)]
    pub purpose: String,
    /// SHA-256 of the purpose's text.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub purpose_hash: [u8; 32],
    /// Categories of data, ascending.
    #[n(8)]
    pub categories: Vec<DataCategory>,
    /// Operations, ascending.
    #[n(9)]
    pub operations: Vec<Operation>,
    /// Lawful basis.
    #[n(10)]
    pub basis: Basis,
    /// How long data stays after the consent ended and the person asked for erasure, in days.
    #[n(11)]
    pub retention_days: u32,
    /// SHA-256 of the notice that was shown.
    #[n(12)]
    #[cbor(with = "minicbor::bytes")]
    pub notice_hash: [u8; 32],
    /// Language of the notice (BCP 47).
    #[n(13)]
    pub language: String,
    /// How the answer was collected.
    #[n(14)]
    pub collected: Collected,
    /// What happened.
    #[n(15)]
    pub event: Event,
    /// From when it holds.
    #[n(16)]
    pub given_at: Millis,
    /// When it ends by itself. At most 13 months later.
    #[n(17)]
    pub ends_at: Millis,
    /// How to withdraw, as a command.
    #[n(18)]
    pub how_to_withdraw: String,
    /// The record that this one continues.
    #[n(19)]
    pub previous: Option<StatementId>,
}

/// Why a consent record cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The version is not one that this build accepts.
    #[error("its version is not accepted")]
    Version,
    /// It ends before it begins, or lasts longer than 13 months.
    #[error("it does not end within 13 months")]
    Duration,
    /// A text is empty or too long.
    #[error("a text in it is empty or too long")]
    Text,
    /// A list is empty, too long, unordered or has something twice.
    #[error("a list in it is empty, too long or not in order")]
    List,
    /// A service that writes vaults names none, or the other way round.
    #[error("it does not name exactly what the service needs")]
    Vault,
}

fn is_ascending<T: PartialOrd>(list: &[T]) -> bool {
    !list.is_empty()
        && list.len() <= LIST_MAX_ITEMS
        && list.windows(2).all(|pair| pair[0] < pair[1])
}

impl ConsentRecord {
    /// Checks everything that the record alone can tell.
    pub fn check(&self) -> Result<(), RecordFault> {
        if self.version != CONSENT_RECORD_VERSION {
            return Err(RecordFault::Version);
        }
        let lasts = self
            .ends_at
            .0
            .checked_sub(self.given_at.0)
            .ok_or(RecordFault::Duration)?;
        if lasts <= 0 || lasts > CONSENT_MAX_MS {
            return Err(RecordFault::Duration);
        }
        let texts = [
            &self.recipient.controller,
            &self.recipient.region,
            &self.purpose,
            &self.language,
            &self.how_to_withdraw,
        ];
        if texts
            .iter()
            .any(|text| text.is_empty() || text.len() > TEXT_MAX_BYTES)
        {
            return Err(RecordFault::Text);
        }
        if !is_ascending(&self.categories) || !is_ascending(&self.operations) {
            return Err(RecordFault::List);
        }
        let needs_vault = matches!(self.service, ServiceCode::Backup | ServiceCode::Sync);
        if needs_vault != self.vault.is_some() {
            return Err(RecordFault::Vault);
        }
        Ok(())
    }
}

/// A withdrawal. Ends every grant of this service (and vault, if one is named) that stands earlier
/// in the chain, on all of the account's devices.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Withdrawal {
    /// Always [`CONSENT_RECORD_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The service.
    #[n(1)]
    pub service: ServiceCode,
    /// The vault; absent for all of the service's.
    #[n(2)]
    pub vault: Option<VaultId>,
}
