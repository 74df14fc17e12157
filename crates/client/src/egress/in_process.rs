//! The cell in the same process: a function call that takes the same signed requests.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use candor_wire::limits::OBJECT_MAX_BYTES;
use http_body_util::{BodyExt as _, Full};
use tower::ServiceExt as _;

use super::{Allowance, BoxFuture, Cause, Transport, TransportError, on_the_runtime};
use crate::ledger::{Counts, DataClass, Ledger, OpenLine, Opening};

/// A cell that can be called as a function. `candor up` hands in the server's own service.
pub trait CellService: Send + Sync {
    /// Answers one request.
    fn call(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, TransportError>>;
}

struct Tower<S>(S);

/// Makes a [`CellService`] of an HTTP service (an `axum::Router` is one). Bodies pass without a copy.
pub fn service<S, B>(service: S) -> Arc<dyn CellService>
where
    S: tower::Service<http::Request<Full<Bytes>>, Response = http::Response<B>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Error: Into<Cause>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Cause>,
{
    Arc::new(Tower(service))
}

impl<S, B> CellService for Tower<S>
where
    S: tower::Service<http::Request<Full<Bytes>>, Response = http::Response<B>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Error: Into<Cause>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Cause>,
{
    fn call(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<Bytes>, TransportError>> {
        let service = self.0.clone();
        Box::pin(async move {
            let reply = service
                .oneshot(request.map(Full::new))
                .await
                .map_err(|error| TransportError::Broken(error.into()))?;
            let (parts, body) = reply.into_parts();
            let body = collect(body, OBJECT_MAX_BYTES).await?;
            Ok(http::Response::from_parts(parts, body))
        })
    }
}

/// Reads a whole body of at most `limit_bytes`. One that comes in one piece is not copied.
pub(super) async fn collect<B>(mut body: B, limit_bytes: usize) -> Result<Bytes, TransportError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Cause>,
{
    let expected = body
        .size_hint()
        .upper()
        .and_then(|bytes| usize::try_from(bytes).ok());
    if expected.is_some_and(|bytes| bytes > limit_bytes) {
        return Err(TransportError::TooLong { limit_bytes });
    }
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| TransportError::Broken(error.into()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if all.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > limit_bytes {
            return Err(TransportError::TooLong { limit_bytes });
        }
        match first.take() {
            None if all.is_empty() => first = Some(data),
            None => all.extend_from_slice(&data),
            Some(start) => {
                all.reserve(expected.unwrap_or(0).max(start.len() + data.len()));
                all.extend_from_slice(&start);
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

/// The transport over a [`CellService`]. One line of the ledger for all its requests.
pub(super) struct InProcess {
    service: Arc<dyn CellService>,
    ledger: Arc<Ledger>,
    opening: Opening,
    line: Mutex<Option<OpenLine>>,
}

impl InProcess {
    pub(super) fn new(
        service: Arc<dyn CellService>,
        ledger: Arc<Ledger>,
        opening: Opening,
    ) -> Self {
        Self {
            service,
            ledger,
            opening,
            line: Mutex::new(None),
        }
    }

    /// Opens the line with the first request.
    fn counts(&self) -> Result<Arc<Counts>, TransportError> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.is_none() {
            *line = Some(
                self.ledger
                    .begin(&self.opening)
                    .map_err(TransportError::Ledger)?,
            );
        }
        Ok(line
            .as_ref()
            .map(OpenLine::counts)
            .expect("the line was just opened"))
    }
}

impl Transport for InProcess {
    fn call<'a>(
        &'a self,
        request: http::Request<Bytes>,
        allowance: Allowance,
        classes: &'static [DataClass],
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async move {
            let counts = self.counts()?;
            classes.iter().for_each(|class| counts.add_class(*class));
            counts.add_plain(request.body().len() as u64, 0);
            let reply = on_the_runtime(self.service.call(request)).await?;
            let reply = reply?;
            counts.add_plain(0, reply.body().len() as u64);
            if reply.body().len() > allowance.reply_max_bytes {
                return Err(TransportError::TooLong {
                    limit_bytes: allowance.reply_max_bytes,
                });
            }
            Ok(reply)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // Dropping the line closes it.
        let line = self
            .line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Box::pin(async move { drop(line) })
    }
}
