//! Links: where a device that joins an account and one that takes it in leave each other sealed messages.

use std::sync::Arc;

use axum::response::Response;
use candor_store::links::{LinkOpening, LinkOutcome, MessageOutcome};
use candor_wire::api::{API_VERSION, ErrorCode, LinkEntry, LinkMessage, LinkReply};
use candor_wire::cbor;
use candor_wire::linking::{LINK_MAX_MS, LINK_MESSAGE_MAX_BYTES, LINK_MESSAGES};

use crate::gate::Admitted;
use crate::reply::{self, Refusal};
use crate::shared::Shared;

/// Opens a link of a full device's account.
pub(super) async fn open(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let opening = LinkOpening {
        name: admitted.link()?,
        account: admitted.account()?,
        expires_at: admitted.now.plus_ms(LINK_MAX_MS),
        now: admitted.now,
    };
    let outcome = shared.links.open_link(admitted.nonce, opening).await;
    match outcome.map_err(|error| Refusal::of_records(&error))? {
        LinkOutcome::Opened | LinkOutcome::AlreadyThere => Ok(reply::done()),
        LinkOutcome::TooMany => Err(ErrorCode::Conflict.into()),
    }
}

/// Leaves a message. What the two sides leave proves itself to the other one, or is refused there.
pub(super) async fn put(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let name = admitted.link()?;
    let message: LinkMessage = cbor::decode(&admitted.message).map_err(|_| ErrorCode::Malformed)?;
    if message.version != API_VERSION {
        return Err(ErrorCode::Version.into());
    }
    let fits = usize::from(message.place) < LINK_MESSAGES
        && message.sealed.len() <= LINK_MESSAGE_MAX_BYTES;
    if !fits {
        return Err(ErrorCode::Malformed.into());
    }
    let (place, sealed) = (message.place, message.sealed.into());
    let outcome = shared
        .links
        .leave_message(name, place, sealed, admitted.now)
        .await;
    match outcome.map_err(|error| Refusal::of_records(&error))? {
        MessageOutcome::Left | MessageOutcome::AlreadyThere => Ok(reply::done()),
        MessageOutcome::Taken => Err(ErrorCode::Conflict.into()),
        MessageOutcome::NoSuchLink => Err(ErrorCode::NotFound.into()),
    }
}

/// What was left at a link.
pub(super) async fn read(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let found = shared.links.link(admitted.link()?, admitted.now).await;
    let found = found.map_err(|error| Refusal::of_records(&error))?;
    let messages = found.ok_or(ErrorCode::NotFound)?.messages.into_iter();
    Ok(reply::message(&LinkReply {
        version: API_VERSION,
        messages: messages
            .map(|message| LinkEntry {
                sealed: message.map(|bytes| bytes.to_vec()),
            })
            .collect(),
    }))
}
