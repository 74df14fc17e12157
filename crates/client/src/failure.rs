//! From errors to what a person is told: a kind, one sentence, a hint.
//!
//! The one table of it. An error is followed down its sources; the innermost one that is known here
//! says what happened, because it is nearest to the cause. All of them are kept as causes.

use std::error::Error;
use std::io;

use candor_consent::Refusal;
use candor_vault::tree::TreeError;
use candor_vault::{IndexError, ManifestError, ReadError, RepositoryError, SinkError, SourceError};
use candor_wire::api::ErrorCode;
use candor_wire::cell::{CellError, InvitationError};
use candor_wire::chain::{ChainError, VoidHead};
use candor_wire::errand::ErrandError;
use candor_wire::head::HeadError;

use crate::account::AccountError;
use crate::api::ApiError;
use crate::bridge::Stopped;
use crate::commands::{Failure, FailureKind};
use crate::device_store::DeviceStoreError;
use crate::egress::{EgressError, TransportError};
use crate::epochs::EpochError;
use crate::home::HomeError;
use crate::keystore::KeyStoreError;
use crate::ledger::LedgerError;
use crate::log::{LogError, ReadFault, StateError};
use crate::memory::MemoryError;
use crate::phrase::PhraseError;
use crate::sets::SetError;

/// Most causes that are kept: chains of sources are short, and a loop must not hang us.
const CAUSES_MAX: usize = 16;

const RESUMES: &str = "run the same command again later: it goes on where it stopped";
/// What to do about everything that an honest cell does not do.
pub(crate) const TAMPERED: &str = "do not go on with this cell before you know why; nothing was written, and `candor ledger list` has the alarm. If the cell was restored from a backup, `candor account re-anchor` shows what it lost, and asks";
const DISK_FULL: &str =
    "make room on this disk, then run the command again: it goes on where it stopped";

impl Failure {
    /// A failure with a sentence.
    pub fn new(kind: FailureKind, sentence: impl Into<String>) -> Self {
        Self {
            kind,
            sentence: sentence.into(),
            hint: None,
            causes: Vec::new(),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds an error, and what is under it, as causes.
    #[must_use]
    pub fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.causes.extend(causes(error));
        self
    }

    /// What an error means for a person.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut known = None;
        let mut next = Some(error);
        for _ in 0..CAUSES_MAX {
            let Some(one) = next else { break };
            if let Some(failure) = recognise(one) {
                known = Some(failure);
            }
            next = one.source();
        }
        let failure = known.unwrap_or_else(|| Self::new(FailureKind::Failed, error.to_string()));
        failure.because(error)
    }

    /// There is no consent for `service`, by its name.
    pub fn no_consent(service: &str, refusal: &Refusal) -> Self {
        Self::new(
            FailureKind::NoConsent,
            format!("{refusal}; nothing was sent"),
        )
        .with_hint(format!("candor consent on {service}"))
    }
}

fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(one) = next {
        let text = one.to_string();
        // A shared error (`Arc`) is its own source once: the same sentence twice helps nobody.
        if out.last() != Some(&text) {
            out.push(text);
        }
        if out.len() >= CAUSES_MAX {
            break;
        }
        next = one.source();
    }
    out
}

/// The error as one of a type, also when it is shared.
fn is<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error
        .downcast_ref::<E>()
        .or_else(|| error.downcast_ref::<std::sync::Arc<E>>().map(AsRef::as_ref))
}

fn recognise(error: &(dyn Error + 'static)) -> Option<Failure> {
    of_the_cell(error)
        .or_else(|| of_the_log(error))
        .or_else(|| of_the_account(error))
        .or_else(|| of_the_vault(error))
        .or_else(|| of_the_device(error))
        .or_else(|| of_the_system(error))
}

fn integrity(error: &(dyn Error + 'static)) -> Failure {
    Failure::new(FailureKind::Integrity, error.to_string()).with_hint(TAMPERED)
}

fn of_the_cell(error: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(api) = is::<ApiError>(error) {
        return Some(match api {
            ApiError::Refused {
                code,
                used_bytes,
                quota_bytes,
            } => refused(*code, *used_bytes, *quota_bytes),
            ApiError::Unreachable { .. } => {
                Failure::new(FailureKind::Unreachable, "the cell cannot be reached")
                    .with_hint(RESUMES)
            }
            ApiError::Integrity { .. } => integrity(error),
            ApiError::Over => {
                Failure::new(FailureKind::Failed, error.to_string()).with_hint(RESUMES)
            }
            _ => Failure::new(FailureKind::Failed, error.to_string()),
        });
    }
    match is::<EgressError>(error) {
        Some(EgressError::Refused(reply)) => {
            return Some(refused(reply.code, reply.used_bytes, reply.quota_bytes));
        }
        Some(EgressError::Over | EgressError::OtherCell | EgressError::NotPermitted { .. }) => {
            return Some(Failure::new(FailureKind::Failed, error.to_string()));
        }
        // What a broken transport means is said by the error above it.
        _ => {}
    }
    if let Some(TransportError::Identity(_)) = is::<TransportError>(error) {
        return Some(integrity(error));
    }
    is::<CellError>(error).map(|_| integrity(error))
}

fn refused(code: ErrorCode, used_bytes: Option<u64>, quota_bytes: Option<u64>) -> Failure {
    use FailureKind::{Failed, NoConsent, Policy, Unreachable};
    let (kind, sentence, hint) = match code {
        ErrorCode::NoConsent => (
            NoConsent,
            "the cell knows no live consent for this".to_owned(),
            "`candor consent history` shows what ended it; `candor consent on backup` gives it again, or `candor consent on sync`",
        ),
        ErrorCode::OverQuota => {
            let used = used_bytes.zip(quota_bytes);
            let sentence = used.map_or_else(
                || "the account's quota at the cell is used up".to_owned(),
                |(used, quota)| {
                    format!("the account's quota at the cell is used up: {used} of {quota} bytes")
                },
            );
            (
                Policy,
                sentence,
                "ask who runs the cell for more room; what was acknowledged is kept",
            )
        }
        ErrorCode::CellFull => (
            Failed,
            "the cell has no room left on its disk; what was acknowledged is kept".to_owned(),
            "make room at the cell, then run the command again: it goes on where it stopped",
        ),
        ErrorCode::Busy | ErrorCode::Internal => (
            Unreachable,
            "the cell is busy or stopping and acknowledged nothing".to_owned(),
            RESUMES,
        ),
        ErrorCode::NotSigned | ErrorCode::NotPermitted => (
            Policy,
            "the cell does not let this device do that".to_owned(),
            "`candor device list` on another device shows whether this one still belongs to the account",
        ),
        ErrorCode::Revoked => (
            Policy,
            "this device was revoked: the cell serves it no longer".to_owned(),
            "if it is yours, `candor account recover` in a new home adds it again, as a new device",
        ),
        ErrorCode::Skew => (
            Failed,
            "the clocks of this device and of the cell differ by more than five minutes".to_owned(),
            "set this device's clock",
        ),
        ErrorCode::InvitationSpent => (
            Policy,
            "the right in the invitation was used already or has expired".to_owned(),
            "ask who runs the cell for a new invitation: `candor server invite`",
        ),
        ErrorCode::Conflict => (
            Failed,
            "another device of the account was faster, again and again".to_owned(),
            RESUMES,
        ),
        ErrorCode::NotFound => (
            Failed,
            "the cell does not have what was asked for".to_owned(),
            "`candor backup check` tells what is missing; if the cell was restored from a backup: `candor account re-anchor`",
        ),
        ErrorCode::Version => (
            Failed,
            "the cell does not accept this program's version".to_owned(),
            "update candor on this device",
        ),
        other => {
            let sentence = format!("the cell refused the request ({other:?})");
            return Failure::new(Failed, sentence)
                .with_hint("update candor on this device and at the cell");
        }
    };
    Failure::new(kind, sentence).with_hint(hint)
}

fn of_the_log(error: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(log) = is::<LogError>(error) {
        return Some(match log {
            LogError::NoLog => Failure::new(FailureKind::Failed, error.to_string())
                .with_hint("ask who runs the cell to update it"),
            LogError::NotYet => Failure::new(FailureKind::Failed, error.to_string())
                .with_hint("try again in a few seconds"),
            LogError::OtherLog => Failure::new(FailureKind::Policy, error.to_string())
                .with_hint("add this log's key to the file, or take every `log` line out of it"),
            _ => integrity(error),
        });
    }
    match is::<ReadFault>(error) {
        Some(ReadFault::Missing) => return Some(integrity(error)),
        Some(_) => return None,
        None => {}
    }
    is::<StateError>(error).map(|_| integrity(error))
}

fn of_the_account(error: &(dyn Error + 'static)) -> Option<Failure> {
    let is_void = is::<VoidHead>(error).is_some() || is::<HeadError>(error).is_some();
    if is_void || is::<ChainError>(error).is_some() {
        return Some(integrity(error));
    }
    if matches!(is::<EpochError>(error), Some(EpochError::Rejected)) {
        return Some(integrity(error));
    }
    if let Some(memory) = is::<MemoryError>(error) {
        return Some(match memory {
            MemoryError::Rollback { .. } => integrity(error),
            _ => Failure::new(FailureKind::Failed, error.to_string()).with_hint(
                "the file `memory` in candor's folder tells what this device saw last; keep it",
            ),
        });
    }
    if let Some(refusal) = is::<Refusal>(error) {
        let service = match refusal {
            Refusal::NoConsent { service }
            | Refusal::Withdrawn { service }
            | Refusal::Ended { service, .. }
            | Refusal::NotAcknowledged { service } => *service,
        };
        return Some(Failure::no_consent(service.name(), refusal));
    }
    if is::<ErrandError>(error).is_some() {
        return Some(
            Failure::new(FailureKind::Failed, error.to_string())
                .with_hint("look at this device's clock, then run the command again"),
        );
    }
    if is::<InvitationError>(error).is_some() || is::<PhraseError>(error).is_some() {
        return Some(
            Failure::new(FailureKind::Failed, error.to_string())
                .with_hint("copy it again, completely and in its order"),
        );
    }
    is::<AccountError>(error).map(|account| match account {
        AccountError::Cancelled => interrupted(),
        AccountError::LinkUsed => Failure::new(FailureKind::Policy, error.to_string()).with_hint(
            "if that was not you, somebody saw the code: say no on the other device, and make a new code there",
        ),
        AccountError::LinkOver => Failure::new(FailureKind::Policy, error.to_string())
            .with_hint("make a new one on a device of the account: candor device link"),
        AccountError::LinkDeclined => Failure::new(FailureKind::Policy, error.to_string())
            .with_hint("if that was a mistake: candor device link there, for a new code"),
        AccountError::OtherRoot
        | AccountError::OtherGenesis
        | AccountError::OtherChain
        | AccountError::LinkAltered => integrity(error),
        AccountError::NotFound => Failure::new(FailureKind::Failed, error.to_string()).with_hint(
            "look at the words again, and at the invitation: the account may live in another cell",
        ),
        AccountError::NotEnrolled => Failure::new(FailureKind::Policy, error.to_string())
            .with_hint("`candor account recover` in a new home adds a device"),
        AccountError::Contended => {
            Failure::new(FailureKind::Failed, error.to_string()).with_hint(RESUMES)
        }
        _ => Failure::new(FailureKind::Failed, error.to_string()),
    })
}

fn of_the_vault(error: &(dyn Error + 'static)) -> Option<Failure> {
    if is::<Stopped>(error).is_some() || matches!(is::<SinkError>(error), Some(SinkError::Stopped))
    {
        return Some(interrupted());
    }
    if let Some(read) = is::<ReadError>(error) {
        return read.is_integrity().then(|| integrity(error));
    }
    if let Some(SourceError::Missing { .. }) = is::<SourceError>(error) {
        return Some(
            Failure::new(FailureKind::Integrity, error.to_string())
                .with_hint("`candor backup check` names the files that need it"),
        );
    }
    if let Some(TreeError::Node { .. } | TreeError::Length { .. } | TreeError::TooDeep) =
        is::<TreeError>(error)
    {
        return Some(integrity(error));
    }
    // What a manifest of our own cannot hold is said by the error above it.
    if let Some(ManifestError::Codec(_) | ManifestError::OtherVault | ManifestError::Repeated) =
        is::<ManifestError>(error)
    {
        return Some(integrity(error));
    }
    if let Some(IndexError::Damaged(_)) = is::<IndexError>(error) {
        return Some(
            Failure::new(FailureKind::Failed, "the local index is damaged")
                .with_hint("run the command again: the index is rebuilt from the cell"),
        );
    }
    is::<RepositoryError>(error).map(|repository| match repository {
        RepositoryError::Manifest(manifest) => {
            Failure::new(FailureKind::Failed, manifest.to_string())
        }
        RepositoryError::Outdated => {
            Failure::new(FailureKind::Failed, error.to_string()).with_hint(RESUMES)
        }
        RepositoryError::Gone => Failure::new(FailureKind::Failed, error.to_string()).with_hint(
            "the cell's retention window is over; what is still on a device can be backed up anew",
        ),
        _ => Failure::new(FailureKind::Failed, error.to_string()),
    })
}

/// The person stopped it.
pub(crate) fn interrupted() -> Failure {
    Failure::new(FailureKind::Interrupted, "stopped before it was done")
        .with_hint("run it again to go on")
}

fn of_the_device(error: &(dyn Error + 'static)) -> Option<Failure> {
    let failed =
        |hint: &str| Some(Failure::new(FailureKind::Failed, error.to_string()).with_hint(hint));
    if let Some(store) = is::<DeviceStoreError>(error) {
        return match store {
            DeviceStoreError::Damaged { .. } => failed(
                "put the file aside; `candor account recover` in a new home brings back everything but the sets' names and rules",
            ),
            DeviceStoreError::Locked { .. } => {
                failed("end the program that holds it, then run the command again")
            }
            DeviceStoreError::Version { .. } => {
                failed("use the candor that wrote it, or a newer one")
            }
            DeviceStoreError::Storage { .. } => {
                failed("look at the disk's free space and at the file's rights")
            }
            DeviceStoreError::SetExists { .. }
            | DeviceStoreError::NoSuchSet { .. }
            | DeviceStoreError::TooManySets => Some(
                Failure::new(FailureKind::Usage, error.to_string())
                    .with_hint("`candor backup list` shows the sets"),
            ),
            DeviceStoreError::FolderExists { .. }
            | DeviceStoreError::NoFolder { .. }
            | DeviceStoreError::TooManyFolders => Some(
                Failure::new(FailureKind::Usage, error.to_string())
                    .with_hint("`candor sync status` shows the folders"),
            ),
        };
    }
    if is::<SetError>(error).is_some() {
        return Some(
            Failure::new(FailureKind::Usage, error.to_string())
                .with_hint("`candor backup add --help` has an example"),
        );
    }
    if let Some(home) = is::<HomeError>(error) {
        return match home {
            HomeError::InUse { .. } => {
                failed("wait until it is done, or talk to it: `candor status`")
            }
            HomeError::Storage { .. } => {
                failed("choose another folder with `--home DIR`, or look at its rights")
            }
        };
    }
    if let Some(LedgerError::Altered { .. } | LedgerError::Cut { .. } | LedgerError::Signature) =
        is::<LedgerError>(error)
    {
        return Some(
            Failure::new(FailureKind::Integrity, error.to_string())
                .with_hint("somebody changed the folder `ledger` behind candor's back; keep it, and use a new home"),
        );
    }
    if is::<LedgerError>(error).is_some() {
        return failed(
            "without its ledger candor opens no connection; look at the disk and at the file's rights",
        );
    }
    if let Some(keys) = is::<KeyStoreError>(error) {
        return Some(
            Failure::new(FailureKind::Failed, error.to_string()).with_hint(key_store_hint(keys)),
        );
    }
    None
}

fn key_store_hint(error: &KeyStoreError) -> &'static str {
    match error {
        KeyStoreError::WrongPassphrase => {
            "try again, or use the recovery phrase in a new home: `candor account recover`"
        }
        KeyStoreError::Missing => "`candor account create` or `candor account recover` makes one",
        _ => {
            "restore the file `keys`, or use the recovery phrase in a new home: `candor account recover`"
        }
    }
}

fn of_the_system(error: &(dyn Error + 'static)) -> Option<Failure> {
    let full = is::<io::Error>(error).is_some_and(|one| {
        matches!(
            one.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }) || is::<rusqlite::Error>(error)
        .is_some_and(|one| one.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull));
    full.then(|| {
        Failure::new(FailureKind::Failed, "the disk of this device is full").with_hint(DISK_FULL)
    })
}

macro_rules! from {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::of(&error)
            }
        })*
    };
}

from!(
    AccountError,
    ApiError,
    CellError,
    ChainError,
    DeviceStoreError,
    EgressError,
    EpochError,
    HeadError,
    HomeError,
    KeyStoreError,
    LedgerError,
    LogError,
    MemoryError,
    PhraseError,
    Refusal,
    RepositoryError,
    ReadError,
    SetError,
    VoidHead,
);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candor_vault::restore::RestoreError;
    use candor_vault::{ChunkId, WriteError};
    use candor_wire::consent_record::ServiceCode;
    use candor_wire::{Millis, ObjectId};

    use super::*;

    fn unreachable() -> ApiError {
        let lost = io::Error::from(io::ErrorKind::ConnectionReset);
        ApiError::Unreachable(TransportError::Broken(Box::new(lost)))
    }

    #[test]
    fn the_innermost_error_that_is_known_decides() {
        let object = ObjectId::from_bytes([1; 32]);
        let chunk = ChunkId::from_bytes([2; 32]);
        let quota = ApiError::Refused {
            code: ErrorCode::OverQuota,
            used_bytes: Some(3),
            quota_bytes: Some(4),
        };
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let cases: Vec<(Box<dyn Error>, FailureKind, &str)> = vec![
            (
                Box::new(WriteError::Sink(Arc::new(SinkError::Unreachable(
                    Box::new(unreachable()),
                )))),
                FailureKind::Unreachable,
                "cannot be reached",
            ),
            (
                Box::new(WriteError::Sink(Arc::new(SinkError::Full(Box::new(quota))))),
                FailureKind::Policy,
                "3 of 4 bytes",
            ),
            (
                Box::new(WriteError::Sink(Arc::new(SinkError::Stopped))),
                FailureKind::Interrupted,
                "stopped",
            ),
            (
                Box::new(RestoreError::Tree(TreeError::Length { chunk })),
                FailureKind::Integrity,
                "longer",
            ),
            (
                Box::new(RestoreError::Read(ReadError::Source(
                    SourceError::Missing { object },
                ))),
                FailureKind::Integrity,
                "does not have object",
            ),
            (
                Box::new(RestoreError::Read(ReadError::Source(
                    SourceError::Unreachable(Box::new(unreachable())),
                ))),
                FailureKind::Unreachable,
                "cannot be reached",
            ),
            (
                Box::new(RestoreError::Read(ReadError::WrongObject { object })),
                FailureKind::Integrity,
                "name",
            ),
            (
                Box::new(RepositoryError::Manifest(ManifestError::TooManySnapshots {
                    limit: 5,
                })),
                FailureKind::Failed,
                "at most 5 snapshots",
            ),
            (
                Box::new(RestoreError::Target {
                    path: "/x".into(),
                    source: full,
                }),
                FailureKind::Failed,
                "disk of this device is full",
            ),
            (
                Box::new(Refusal::Ended {
                    service: ServiceCode::Backup,
                    at: Millis(1),
                }),
                FailureKind::NoConsent,
                "nothing was sent",
            ),
        ];
        for (error, kind, words) in cases {
            let failure = Failure::of(&*error);
            assert_eq!(failure.kind, kind, "{failure:?}");
            assert!(failure.sentence.contains(words), "{failure:?}");
            assert!(!failure.causes.is_empty());
        }
    }
}
