//! Grants and errands: the only two values that open a connection.

use core::marker::PhantomData;

use candor_wire::api::{Caller, Endpoint};
use candor_wire::cell::CellKeyring;
use candor_wire::chain::{AccountView, ConsentEntry, DeviceEntry};
use candor_wire::consent_record::ServiceCode;
use candor_wire::errand::{ErrandError, Purpose, SignedErrand};
use candor_wire::ids::{AccountId, CellId, DeviceId, RequestNonce, StatementId, VaultId};
use candor_wire::limits::REQUEST_SKEW_SECONDS;
use candor_wire::sign::Ed25519Public;
use candor_wire::time::Millis;

mod sealed {
    pub trait Sealed {}
}

/// A service, as a type: a grant of one is never taken for a grant of another.
pub trait Service: sealed::Sealed + Send + core::marker::Sync + 'static {
    /// Its number in records.
    const CODE: ServiceCode;
}

macro_rules! service {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}

        impl sealed::Sealed for $name {}

        impl Service for $name {
            const CODE: ServiceCode = ServiceCode::$name;
        }
    };
}

service!(
    /// Back up folders.
    Backup
);
service!(
    /// Keep folders in step.
    Sync
);
service!(
    /// Messages to other people's devices.
    Messages
);
service!(
    /// Secure internet.
    Relay
);
service!(
    /// Escrowed recovery.
    Recovery
);

/// Why there is no grant. Each is an ordinary answer, not a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody ever consented to this here.
    #[error("there is no consent for {}", .service.name())]
    NoConsent {
        /// The service.
        service: ServiceCode,
    },
    /// The consent was withdrawn.
    #[error("the consent for {} was withdrawn", .service.name())]
    Withdrawn {
        /// The service.
        service: ServiceCode,
    },
    /// The consent is over.
    #[error("the consent for {} has ended", .service.name())]
    Ended {
        /// The service.
        service: ServiceCode,
        /// When it ended.
        at: Millis,
    },
    /// The cell has not acknowledged the consent yet.
    #[error("the cell has not acknowledged the consent for {} yet", .service.name())]
    NotAcknowledged {
        /// The service.
        service: ServiceCode,
    },
}

/// A verified, live consent to service `S`, for one account, device, vault and cell.
///
/// It cannot be constructed outside this crate, cloned or converted from another service's.
#[derive(Debug)]
pub struct Grant<S: Service> {
    id: StatementId,
    account: AccountId,
    device: DeviceId,
    vault: Option<VaultId>,
    cell: CellId,
    ends_at: Millis,
    service: PhantomData<S>,
}

/// Makes a grant of `S` for `device` (and `vault`) at `cell`, if the chain says so at `now`.
///
/// Of several live consents the one that lasts longest is used. If none is live, the refusal tells
/// the most recent reason.
pub fn grant<S: Service>(
    view: &AccountView,
    cell: &CellKeyring,
    device: &DeviceId,
    vault: Option<&VaultId>,
    now: Millis,
) -> Result<Grant<S>, Refusal> {
    let mut refusal = Refusal::NoConsent { service: S::CODE };
    let mut best: Option<(StatementId, Millis)> = None;
    for (id, entry) in view.consents() {
        let record = &entry.record;
        let matches = record.service == S::CODE
            && record.device == *device
            && record.vault.as_ref() == vault
            && record.recipient.cell == cell.cell();
        if !matches || !view.device(device).is_some_and(DeviceEntry::is_live) {
            continue;
        }
        match liveness(entry, now) {
            Ok(()) if best.is_none_or(|(_, ends)| ends < record.ends_at) => {
                best = Some((id, record.ends_at))
            }
            Ok(()) => {}
            Err(reason) => refusal = reason,
        }
    }
    let (id, ends_at) = best.ok_or(refusal)?;
    Ok(Grant {
        id,
        account: view.account(),
        device: *device,
        vault: vault.copied(),
        cell: cell.cell(),
        ends_at,
        service: PhantomData,
    })
}

/// The cell's side of the same question: is the consent that a request names live, and for this
/// service, device and vault? Used before anything is written.
pub fn admit(
    view: &AccountView,
    id: &StatementId,
    services: &[ServiceCode],
    device: &DeviceId,
    vault: Option<&VaultId>,
    cell: &CellId,
    now: Millis,
) -> Result<(), Refusal> {
    let service = services.first().copied().unwrap_or(ServiceCode::Backup);
    let entry = view.consent(id).ok_or(Refusal::NoConsent { service })?;
    let record = &entry.record;
    let matches = services.contains(&record.service)
        && record.device == *device
        && record.recipient.cell == *cell
        && vault.is_none_or(|vault| record.vault.as_ref() == Some(vault));
    if !matches {
        return Err(Refusal::NoConsent { service });
    }
    liveness(entry, now)
}

fn liveness(entry: &ConsentEntry, now: Millis) -> Result<(), Refusal> {
    let service = entry.record.service;
    if entry.withdrawn.is_some() {
        Err(Refusal::Withdrawn { service })
    } else if entry.record.ends_at <= now {
        Err(Refusal::Ended {
            service,
            at: entry.record.ends_at,
        })
    } else if entry.acknowledged.is_none() {
        Err(Refusal::NotAcknowledged { service })
    } else {
        Ok(())
    }
}

impl<S: Service> Grant<S> {
    /// The consent that it stands for.
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// The vault that it opens.
    pub const fn vault(&self) -> Option<VaultId> {
        self.vault
    }

    /// When it ends by itself.
    pub const fn ends_at(&self) -> Millis {
        self.ends_at
    }
}

/// A one-shot authority for one thing that a person just asked for.
///
/// It cannot be constructed outside this crate. It is a value of the command that made it: nothing
/// stores one, so none can run by itself later.
#[derive(Debug)]
pub struct Errand {
    signed: SignedErrand,
    account: Option<AccountId>,
    signer: Option<DeviceId>,
    purpose: Purpose,
    cell: CellId,
    expires: Millis,
    nonce: RequestNonce,
}

/// Turns a signed token into an errand at `cell`, after checking all of it under the signer's key.
pub fn errand(
    signed: SignedErrand,
    key: &Ed25519Public,
    cell: &CellId,
    now: Millis,
) -> Result<Errand, ErrandError> {
    let token = signed.verify(key, cell, now, REQUEST_SKEW_SECONDS * 1000)?;
    Ok(Errand {
        signed,
        account: token.account,
        signer: token.signer,
        purpose: token.purpose,
        cell: token.cell,
        expires: token.expires,
        nonce: token.nonce,
    })
}

impl Errand {
    /// What it is for.
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }
}

/// What opens a connection: a [`Grant`] or an [`Errand`]. Sealed: there will never be a third
/// outside this crate.
pub trait Authority: sealed::Sealed + Send + core::marker::Sync {
    /// The cell that it is for.
    fn cell(&self) -> CellId;

    /// The account, if it is known yet.
    fn account(&self) -> Option<AccountId>;

    /// The device that acts; `None` for the account's root key.
    fn device(&self) -> Option<DeviceId>;

    /// Whether it opens this endpoint.
    fn opens(&self, endpoint: &Endpoint) -> bool;

    /// Until when it holds.
    fn ends_at(&self) -> Millis;

    /// The value of the authority header of a request.
    fn header(&self) -> String;

    /// Name of the service or purpose, for the ledger.
    fn name(&self) -> &'static str;

    /// The consent, or the errand's number, for the ledger: up to 32 bytes.
    fn reference(&self) -> Vec<u8>;

    /// Whether it stands for a consent, for the ledger.
    fn is_grant(&self) -> bool;
}

/// Replies of public endpoints say nothing about anybody, and a cell's keys have to be readable by
/// whoever checks its acknowledgements.
const fn is_public(endpoint: &Endpoint) -> bool {
    matches!(endpoint.caller, Caller::Anybody)
}

impl<S: Service> sealed::Sealed for Grant<S> {}
impl sealed::Sealed for Errand {}

impl<S: Service + Send + core::marker::Sync> Authority for Grant<S> {
    fn cell(&self) -> CellId {
        self.cell
    }

    fn account(&self) -> Option<AccountId> {
        Some(self.account)
    }

    fn device(&self) -> Option<DeviceId> {
        Some(self.device)
    }

    fn opens(&self, endpoint: &Endpoint) -> bool {
        is_public(endpoint) || endpoint.grants.contains(&S::CODE)
    }

    fn ends_at(&self) -> Millis {
        self.ends_at
    }

    fn header(&self) -> String {
        format!("grant {}", self.id)
    }

    fn name(&self) -> &'static str {
        S::CODE.name()
    }

    fn reference(&self) -> Vec<u8> {
        self.id.as_bytes().to_vec()
    }

    fn is_grant(&self) -> bool {
        true
    }
}

impl Authority for Errand {
    fn cell(&self) -> CellId {
        self.cell
    }

    fn account(&self) -> Option<AccountId> {
        self.account
    }

    fn device(&self) -> Option<DeviceId> {
        self.signer
    }

    fn opens(&self, endpoint: &Endpoint) -> bool {
        is_public(endpoint) || endpoint.errands.contains(&self.purpose)
    }

    fn ends_at(&self) -> Millis {
        self.expires
    }

    fn header(&self) -> String {
        format!("errand {}", self.signed.to_text())
    }

    fn name(&self) -> &'static str {
        self.purpose.name()
    }

    fn reference(&self) -> Vec<u8> {
        self.nonce.as_bytes().to_vec()
    }

    fn is_grant(&self) -> bool {
        false
    }
}
