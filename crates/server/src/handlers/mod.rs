//! What is done for a request that went through the gate: one function for each endpoint.

mod accounts;
mod chain;
mod erasures;
mod heads;
mod links;
mod log;
mod objects;

pub(crate) use chain::FROM_MAX_DIGITS;
pub(crate) use log::LOG_PREFIX;
#[cfg(any(test, fuzzing))]
pub(crate) use objects::range;

use std::sync::Arc;

use axum::response::Response;
use candor_wire::api::EndpointId;
use http::HeaderMap;

use crate::body::RequestBody;
use crate::gate::Admitted;
use crate::reply::{self, Refusal};
use crate::shared::Shared;

/// Does what was asked. A success is answered only when it is durable.
pub(crate) async fn handle(
    shared: &Arc<Shared>,
    endpoint: EndpointId,
    admitted: &mut Admitted,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<Response, Refusal> {
    match endpoint {
        EndpointId::DescribeCell => Ok(reply::bytes(shared.description.clone())),
        EndpointId::OpenAccount => accounts::open(shared, admitted).await,
        EndpointId::FindAccount => accounts::find(admitted),
        EndpointId::ReadChain => chain::read(shared, admitted).await,
        EndpointId::AppendChain => chain::append(shared, admitted).await,
        EndpointId::ReadHead => heads::read(shared, admitted).await,
        EndpointId::SwapHead => heads::swap(shared, admitted).await,
        EndpointId::PutObject => objects::put(shared, admitted, body).await,
        EndpointId::GetObject => objects::get(shared, admitted, headers).await,
        EndpointId::HasObjects => objects::has(shared, admitted).await,
        EndpointId::ListObjects => objects::list(shared, admitted).await,
        EndpointId::ReadLog => log::read(shared, admitted).await,
        EndpointId::ReadState => {
            // It may wait for the log, and keeps no other request of the account waiting meanwhile.
            drop(admitted.work.take());
            log::state(shared, admitted).await
        }
        EndpointId::ReadRuns => heads::runs(shared, admitted).await,
        EndpointId::ReadErasure => erasures::read(shared, admitted).await,
        EndpointId::OpenLink => links::open(shared, admitted).await,
        EndpointId::PutLinkMessage => links::put(shared, admitted).await,
        EndpointId::ReadLink => links::read(shared, admitted).await,
    }
}
