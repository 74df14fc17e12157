//! Consents of a chain: what is given, and what ends it.

use super::{AccountView, ChainError, ConsentEntry};
use crate::consent_record::{CONSENT_RECORD_VERSION, ConsentRecord, RecordFault, Withdrawal};
use crate::ids::DeviceId;
use crate::statement::{Entry, Parsed};
use crate::time::Millis;

impl AccountView {
    pub(super) fn add_consent(
        &mut self,
        record: &ConsentRecord,
        parsed: &Parsed,
        signer: DeviceId,
        acknowledged: Option<Millis>,
    ) -> Result<(), ChainError> {
        let sequence = parsed.entry.sequence;
        record
            .check()
            .map_err(|source| ChainError::Consent { sequence, source })?;
        if record.device != signer {
            return Err(ChainError::Role { sequence });
        }
        if record.subject != self.account {
            return Err(ChainError::Contradiction {
                sequence,
                reason: "the consent is another account's",
            });
        }
        if record.vault.is_some() && !self.epochs.contains_key(&record.vault) {
            return Err(ChainError::Contradiction {
                sequence,
                reason: "the consent names no known vault",
            });
        }
        if self.erasure_of(record.vault.as_ref()).is_some() {
            return Err(ChainError::Contradiction {
                sequence,
                reason: "the consent names what is being erased",
            });
        }
        let writer = record.vault.and_then(|vault| self.writer_of(&vault));
        if writer.is_some_and(|writer| writer != signer) {
            return Err(ChainError::Contradiction {
                sequence,
                reason: "a write-only device has its vaults to itself",
            });
        }
        let entry = ConsentEntry {
            record: record.clone(),
            sequence,
            acknowledged,
            withdrawn: None,
        };
        self.consents.insert(parsed.id, entry);
        Ok(())
    }

    /// Ends consents; `only` those of a device, if it is one that may end no others.
    pub(super) fn withdraw(
        &mut self,
        withdrawal: &Withdrawal,
        only: Option<DeviceId>,
        entry: &Entry,
    ) -> Result<(), ChainError> {
        if withdrawal.version != CONSENT_RECORD_VERSION {
            return Err(ChainError::Consent {
                sequence: entry.sequence,
                source: RecordFault::Version,
            });
        }
        for consent in self.consents.values_mut() {
            let record = &consent.record;
            let matches = record.service == withdrawal.service
                && (withdrawal.vault.is_none() || record.vault == withdrawal.vault)
                && only.is_none_or(|device| device == record.device);
            if matches {
                consent.withdrawn.get_or_insert(entry.time);
            }
        }
        Ok(())
    }
}
