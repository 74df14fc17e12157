//! Reading and moving a vault's head.

use std::sync::Arc;

use axum::response::Response;
use candor_store::{Head as StoredHead, HeadMark, HeadSwap, SwapOutcome};
use candor_wire::api::{API_VERSION, ErrorCode, HeadReply, SwapHead};
use candor_wire::cbor;
use candor_wire::head::{HeadError, SignedHead};
use candor_wire::limits::RESCUED_MAX;
use candor_wire::statement::Role;

use crate::gate::Admitted;
use crate::log::Cause;
use crate::reply::{self, Refusal};
use crate::shared::Shared;

/// The head, as the device signed it.
pub(super) async fn read(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
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
    // A write-only device has a register of its own and never moves the vault's head.
    let is_full = view
        .device(&head.device)
        .is_some_and(|entry| entry.added.role == Role::Full);
    let epoch_known = view
        .epoch(Some(vault))
        .is_some_and(|epoch| head.epoch <= epoch.epoch);
    if !is_full || !epoch_known {
        return Err(ErrorCode::NotPermitted.into());
    }
    let mut needed = request.rescued.unwrap_or_default();
    let is_both = |object| head.condemned.binary_search(object).is_ok();
    if needed.len() > RESCUED_MAX || needed.iter().any(is_both) {
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
