//! Handing out receipts of erasures.

use std::sync::Arc;

use axum::response::Response;
use candor_wire::api::ErrorCode;

use crate::gate::Admitted;
use crate::reply::{self, Refusal};
use crate::shared::Shared;

/// The receipt of this name. There is nothing to sign it with any more once an account is gone, so whoever knows
/// the name may have it: 256 bits that follow from the salt of the statement that asked.
pub(super) async fn read(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let found = shared.erasures.receipt(admitted.receipt()?).await;
    let found = found.map_err(|error| Refusal::of_records(&error))?;
    Ok(reply::bytes(found.ok_or(ErrorCode::NotFound)?))
}
