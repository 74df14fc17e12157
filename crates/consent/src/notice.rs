//! What a person is told before they consent, and the record that holds them and us to it.
//!
//! Notices are versioned text files in this crate, and one that was shown to people stays here when a newer one
//! takes its place. A record holds the hash of the text as it was shown, blanks filled in, so an old notice can
//! always be shown again and compared.

use candor_wire::cell::CellKeys;
use candor_wire::consent_record::{
    Basis, CONSENT_RECORD_VERSION, Collected, ConsentRecord, DataCategory, Event, Operation,
    Recipient, ServiceCode,
};
use candor_wire::ids::{AccountId, DeviceId, StatementId, VaultId};
use candor_wire::time::Millis;
use sha2::Digest as _;

/// A notice of one service in one language.
#[derive(Debug, Clone, Copy)]
pub struct Notice {
    service: ServiceCode,
    language: &'static str,
    purpose: &'static str,
    purpose_text: &'static str,
    template: &'static str,
    how_to_withdraw: &'static str,
}

const BACKUP_EN: Notice = Notice {
    service: ServiceCode::Backup,
    language: "en",
    purpose: "backup/1",
    purpose_text: include_str!("../notices/backup.purpose.txt"),
    template: include_str!("../notices/backup.en.2.txt"),
    how_to_withdraw: "candor consent off backup",
};

const SYNC_EN: Notice = Notice {
    service: ServiceCode::Sync,
    language: "en",
    purpose: "sync/1",
    purpose_text: include_str!("../notices/sync.purpose.txt"),
    template: include_str!("../notices/sync.en.1.txt"),
    how_to_withdraw: "candor consent off sync",
};

/// The notice of a service, if this build offers the service.
pub const fn notice(service: ServiceCode) -> Option<&'static Notice> {
    match service {
        ServiceCode::Backup => Some(&BACKUP_EN),
        ServiceCode::Sync => Some(&SYNC_EN),
        _ => None,
    }
}

/// What a notice says about this very case.
#[derive(Debug, Clone, Copy)]
pub struct NoticeBlanks<'a> {
    /// What will be sent, in a person's words: the folders.
    pub what: &'a str,
    /// The end of the consent as a date, for people.
    pub until: &'a str,
}

impl Notice {
    /// The text as a person reads it.
    pub fn text(&self, cell: &CellKeys, blanks: &NoticeBlanks<'_>) -> String {
        // One pass, left to right, so that a folder whose name looks like a blank stays a name.
        let mut out = String::with_capacity(self.template.len() * 2);
        let mut rest = self.template;
        while let Some(start) = rest.find('{') {
            let Some(length) = rest[start..].find('}') else {
                break;
            };
            out.push_str(&rest[..start]);
            match &rest[start + 1..start + length] {
                "what" => out.push_str(blanks.what),
                "until" => out.push_str(blanks.until),
                "controller" => out.push_str(&cell.controller),
                "region" => out.push_str(&cell.region),
                "cell" => out.push_str(&cell.cell.to_string()),
                "retention" => out.push_str(&cell.retention_days.to_string()),
                other => {
                    out.push('{');
                    out.push_str(other);
                    out.push('}');
                }
            }
            rest = &rest[start + length + 1..];
        }
        out.push_str(rest);
        out
    }
}

/// Everything about a consent that the person's answer does not decide.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    /// The notice that is shown.
    pub notice: &'a Notice,
    /// Who asks.
    pub account: AccountId,
    /// For which device.
    pub device: DeviceId,
    /// For which vault.
    pub vault: Option<VaultId>,
    /// Where the data goes.
    pub cell: &'a CellKeys,
    /// From when.
    pub now: Millis,
    /// Until when; at most 13 months later.
    pub ends_at: Millis,
    /// The text as it is shown.
    pub shown: &'a str,
    /// How the answer is collected.
    pub collected: Collected,
    /// The consent that this one continues.
    pub previous: Option<StatementId>,
}

fn sha256(text: &str) -> [u8; 32] {
    sha2::Sha256::digest(text.as_bytes()).into()
}

/// The record for a proposal. Signing it is the person's *yes*.
pub fn propose(proposal: &Proposal<'_>) -> ConsentRecord {
    ConsentRecord {
        version: CONSENT_RECORD_VERSION,
        subject: proposal.account,
        device: proposal.device,
        service: proposal.notice.service,
        vault: proposal.vault,
        recipient: Recipient {
            cell: proposal.cell.cell,
            controller: proposal.cell.controller.clone(),
            region: proposal.cell.region.clone(),
        },
        purpose: proposal.notice.purpose.to_owned(),
        purpose_hash: sha256(proposal.notice.purpose_text),
        categories: vec![
            DataCategory::SealedFiles,
            DataCategory::ObjectSizes,
            DataCategory::AccessTimes,
            DataCategory::NetworkAddress,
            DataCategory::Identifiers,
        ],
        operations: vec![
            Operation::Receive,
            Operation::Store,
            Operation::ReturnToOwner,
            Operation::Delete,
        ],
        basis: Basis::Consent,
        retention_days: proposal.cell.retention_days,
        notice_hash: sha256(proposal.shown),
        language: proposal.notice.language.to_owned(),
        collected: proposal.collected,
        event: if proposal.previous.is_some() {
            Event::Renewed
        } else {
            Event::Given
        },
        given_at: proposal.now,
        ends_at: proposal.ends_at,
        how_to_withdraw: proposal.notice.how_to_withdraw.to_owned(),
        previous: proposal.previous,
    }
}
