//! Opening an account, and finding one by its root key.

use std::sync::Arc;

use axum::response::Response;
use candor_store::records::RootKeyHash;
use candor_store::{AccountOpening, OpenOutcome, SecretHash};
use candor_wire::api::{API_VERSION, Appended, ErrorCode, FoundAccount, OpenAccount};
use candor_wire::cbor;
use candor_wire::chain::Record;
use candor_wire::statement::{Body, Kind, Parsed, Role, Statement};

use super::chain::{self, Extension};
use crate::gate::Admitted;
use crate::log::Cause;
use crate::reply::{self, Refusal};
use crate::shared::Shared;
use crate::views::Folded;

/// What an account begins with: its root, its first device, and the key of its own small secrets.
const BEGINNING: [Kind; 3] = [Kind::Genesis, Kind::DeviceAdded, Kind::Epoch];

/// Whether a record adds a full device.
fn enrols_full(record: &Record) -> bool {
    let parsed = record.statement.as_ref().map(Statement::parse);
    matches!(parsed, Some(Ok(Parsed { body: Body::DeviceAdded(added), .. })) if added.role == Role::Full)
}

/// Opens an account. A repetition whose first answer was lost is answered like the first time.
pub(super) async fn open(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let request: OpenAccount = cbor::decode(&admitted.message).map_err(|_| ErrorCode::Malformed)?;
    if request.version != API_VERSION {
        return Err(ErrorCode::Version.into());
    }
    if !request
        .records
        .iter()
        .map(|record| record.kind)
        .eq(BEGINNING)
    {
        return Err(ErrorCode::Chain.into());
    }
    let (account, secret, now) = (
        request.account,
        SecretHash(request.right.stored_hash()),
        admitted.now,
    );
    let signer = admitted.signer;
    let extending = Arc::clone(shared);
    let extended = tokio::task::spawn_blocking(move || -> Result<Extension, Refusal> {
        // The root states the first two, the new device the third; a write-only one states no epoch.
        let is_full = request.records.iter().any(enrols_full);
        let signers = [None, None, signer.filter(|_| is_full)];
        let terms = chain::Terms::Signed(&signers);
        chain::extend(&extending, account, None, request.records, terms, now)
    });
    let extended = extended
        .await
        .map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::Task))??;
    let _held = shared.views.hold(&account).await;
    let opening = AccountOpening {
        secret,
        account,
        root_key: RootKeyHash(extended.view.genesis().root.fingerprint()),
        genesis: extended.rows,
        entries: extended.entries,
        now,
    };
    let outcome = shared.records.open_account(opening).await;
    match outcome.map_err(|error| Refusal::of_records(&error))? {
        OpenOutcome::Opened => shared.transparency.queue().added(BEGINNING.len()),
        OpenOutcome::AlreadyOpened => return again(shared, account).await,
        OpenOutcome::InvitationUnknown
        | OpenOutcome::InvitationUsed
        | OpenOutcome::InvitationExpired => {
            return Err(ErrorCode::InvitationSpent.into());
        }
        OpenOutcome::AccountExists | OpenOutcome::RootKeyTaken => {
            return Err(ErrorCode::Conflict.into());
        }
    }
    shared.views.remember(&Folded {
        view: Arc::new(extended.view),
        bytes: extended.bytes,
    });
    Ok(reply::message(&Appended {
        version: API_VERSION,
        acknowledgements: extended.acknowledgements,
    }))
}

/// The acknowledgements that were made when the account was opened.
async fn again(shared: &Arc<Shared>, account: candor_wire::AccountId) -> Result<Response, Refusal> {
    let page = shared
        .records
        .read_chain(account, None, BEGINNING.len())
        .await;
    let page = page.map_err(|error| Refusal::of_records(&error))?;
    let mut acknowledgements = Vec::with_capacity(BEGINNING.len());
    for row in &page.rows {
        let acknowledgement = cbor::decode(&row.acknowledgement);
        acknowledgements.push(
            acknowledgement
                .map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::ChainDamaged))?,
        );
    }
    Ok(reply::message(&Appended {
        version: API_VERSION,
        acknowledgements,
    }))
}

/// The account of the root key that signed the request.
pub(super) fn find(admitted: &Admitted) -> Result<Response, Refusal> {
    Ok(reply::message(&FoundAccount {
        version: API_VERSION,
        account: admitted.account()?,
    }))
}
