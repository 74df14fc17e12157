//! Reading and moving a vault's head.

use std::sync::Arc;

use axum::response::Response;
use candor_store::{Head as StoredHead, HeadMark, HeadSwap, SwapOutcome};
use candor_wire::api::{API_VERSION, ErrorCode, HeadReply, RunsPage, SwapHead};
use candor_wire::cbor;
use candor_wire::chain::AccountView;
use candor_wire::head::{Head, HeadError, SignedHead};
use candor_wire::ids::{DeviceId, VaultId};
use candor_wire::limits::{PAGE_MAX_ENTRIES, RESCUED_MAX};
use candor_wire::statement::Role;

use crate::gate::Admitted;
use crate::log::Cause;
use crate::reply::{self, Refusal};
use crate::shared::Shared;

/// The head, as the device signed it. A write-only device reads only those that it signed itself.
pub(super) async fn read(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let (view, vault) = (admitted.view()?, admitted.vault()?);
    if is_write_only(view, admitted.signer) && view.writer_of(&vault) != admitted.signer {
        return Err(ErrorCode::NotPermitted.into());
    }
    let stored = shared
        .records
        .head(admitted.account()?, admitted.vault()?)
        .await;
    let stored = stored.map_err(|error| Refusal::of_records(&error))?;
    let decoded = stored
        .map(|stored| cbor::decode::<SignedHead>(&stored.bytes))
        .transpose();
    let head = decoded.map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::DatabaseDamaged))?;
    Ok(reply::message(&HeadReply {
        version: API_VERSION,
        head,
    }))
}

fn is_write_only(view: &AccountView, signer: Option<DeviceId>) -> bool {
    let entry = signer.and_then(|device| view.device(&device));
    entry.is_some_and(|entry| entry.added.role == Role::WriteOnly)
}

/// Whether the device may put such a head there: a write-only one its runs into a vault that is its alone, a full
/// one everything else.
fn may_move(view: &AccountView, vault: &VaultId, head: &Head) -> bool {
    let Some(epoch) = view.epoch(Some(*vault)) else {
        return false;
    };
    let writer = view.writer_of(vault);
    match (&head.runs, is_write_only(view, Some(head.device))) {
        (Some(runs), true) => {
            writer == Some(head.device) && runs.iter().all(|run| run.epoch <= epoch.epoch)
        }
        (None, false) => writer.is_none() && head.epoch <= epoch.epoch,
        _ => false,
    }
}

/// The heads of a write-only device's vault from one on.
pub(super) async fn runs(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let from = super::chain::decimal(admitted.query.as_deref())?;
    let (account, vault) = (admitted.account()?, admitted.vault()?);
    let page = shared
        .records
        .runs(account, vault, from.saturating_sub(1), PAGE_MAX_ENTRIES)
        .await;
    let (heads, more) = page.map_err(|error| Refusal::of_records(&error))?;
    let heads: Result<Vec<SignedHead>, _> = heads.iter().map(|head| cbor::decode(head)).collect();
    Ok(reply::message(&RunsPage {
        version: API_VERSION,
        heads: heads.map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::DatabaseDamaged))?,
        more,
    }))
}

/// Moves the head, if it is still the one that the caller names. The manifest has to be stored, so
/// that no head ever points at nothing; so does everything that the caller rescues.
pub(super) async fn swap(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let request: SwapHead = cbor::decode(&admitted.message).map_err(|_| ErrorCode::Malformed)?;
    if request.version != API_VERSION {
        return Err(ErrorCode::Version.into());
    }
    let (account, vault, view) = (admitted.account()?, admitted.vault()?, admitted.view()?);
    let key_of = |device: &_| {
        view.device(device)
            .map(|entry| entry.added.signing.ed25519())
    };
    let head = request
        .head
        .verify(&account, &vault, key_of)
        .map_err(|error| match error {
            HeadError::Codec(_) | HeadError::Place => ErrorCode::Malformed,
            HeadError::Signature => ErrorCode::NotSigned,
        })?;
    if admitted.signer != Some(head.device) || request.expected != head.previous {
        return Err(ErrorCode::Malformed.into());
    }
    if !may_move(view, &vault, &head) {
        return Err(ErrorCode::NotPermitted.into());
    }
    let mut needed = request.rescued.unwrap_or_default();
    let is_both = |object| head.condemned.binary_search(object).is_ok();
    let is_run = head.runs.is_some();
    if needed.len() > RESCUED_MAX || needed.iter().any(is_both) || (is_run && !needed.is_empty()) {
        return Err(ErrorCode::Malformed.into());
    }
    needed.push(head.manifest);
    let expected = head.previous.map(|previous| HeadMark {
        counter: head.counter - 1,
        hash: previous.0,
    });
    let mark = HeadMark {
        counter: head.counter,
        hash: request.head.hash().0,
    };
    let bytes = cbor::encode(&request.head).into();
    let new = StoredHead {
        mark,
        bytes,
        moved_at: admitted.now,
    };
    let outcome = shared
        .records
        .swap_head(
            admitted.nonce,
            HeadSwap {
                account,
                vault,
                expected,
                new,
                condemned: head.condemned,
                needed,
                is_run,
            },
        )
        .await;
    match outcome.map_err(|error| Refusal::of_records(&error))? {
        SwapOutcome::Swapped | SwapOutcome::AlreadyThere => {
            shared.transparency.queue().added(1);
            Ok(reply::done())
        }
        SwapOutcome::Conflict(_) | SwapOutcome::NotNewer { .. } => Err(ErrorCode::Conflict.into()),
        SwapOutcome::Missing(_) => Err(ErrorCode::NotFound.into()),
    }
}
