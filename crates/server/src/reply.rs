//! Replies: what went well, and refusals that tell nothing about the inside.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use candor_store::{ObjectReader, ObjectsError, RecordsError};
use candor_wire::api::{API_VERSION, EndpointId, ErrorCode, ErrorReply, MEDIA_CBOR, MEDIA_OBJECT};
use candor_wire::cbor;
use candor_wire::ids::AccountId;
use candor_wire::time::Millis;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::log::Cause;
use crate::shared::Shared;

/// Why a request was not done: what the caller is told, and what the log is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    /// Bytes in use and allowed.
    pub(crate) quota: Option<(u64, u64)>,
    pub(crate) cause: Option<Cause>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            quota: None,
            cause: None,
        }
    }
}

impl Refusal {
    /// A failure of the cell itself.
    pub(crate) const fn fault(code: ErrorCode, cause: Cause) -> Self {
        Self {
            code,
            quota: None,
            cause: Some(cause),
        }
    }

    pub(crate) fn of_records(error: &RecordsError) -> Self {
        match error {
            RecordsError::Replayed => ErrorCode::Replayed.into(),
            RecordsError::NoSuchAccount(_) => ErrorCode::NotFound.into(),
            RecordsError::AccountFrozen(_) => ErrorCode::NotPermitted.into(),
            RecordsError::Full(_) => Self::fault(ErrorCode::CellFull, Cause::DatabaseFull),
            RecordsError::Busy(_) => Self::fault(ErrorCode::Busy, Cause::DatabaseBusy),
            RecordsError::Closed => ErrorCode::Busy.into(),
            RecordsError::Invalid(_) => Self::fault(ErrorCode::Internal, Cause::DatabaseMisused),
            RecordsError::Damaged { .. } | RecordsError::NewerSchema { .. } => {
                Self::fault(ErrorCode::Internal, Cause::DatabaseDamaged)
            }
            RecordsError::Io { .. } => Self::fault(ErrorCode::Internal, Cause::DatabaseFailed),
        }
    }

    pub(crate) fn of_objects(error: &ObjectsError) -> Self {
        match error {
            // The records say that it is stored.
            ObjectsError::NotFound(_) => Self::fault(ErrorCode::NotFound, Cause::ObjectMissing),
            ObjectsError::RangeOutside { .. } => ErrorCode::Range.into(),
            ObjectsError::Full(_) => Self::fault(ErrorCode::CellFull, Cause::ObjectsFull),
            ObjectsError::Io { .. } => Self::fault(ErrorCode::Internal, Cause::ObjectsFailed),
        }
    }

    /// The reply. Its bytes depend on the code, the time and the quota, and on nothing else.
    pub(crate) fn to_response(self, now: Millis) -> Response {
        let reply = ErrorReply {
            version: API_VERSION,
            code: self.code,
            time: now,
            used_bytes: self.quota.map(|(used, _)| used),
            quota_bytes: self.quota.map(|(_, quota)| quota),
        };
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        with_body(status, MEDIA_CBOR, Body::from(cbor::encode(&reply)))
    }
}

/// A message.
pub(crate) fn message<T: minicbor::Encode<()>>(value: &T) -> Response {
    bytes(cbor::encode(value).into())
}

/// A message that is encoded already.
pub(crate) fn bytes(encoded: Bytes) -> Response {
    with_body(StatusCode::OK, MEDIA_CBOR, Body::from(encoded))
}

/// How long a published file stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// For ever, once it is there.
    Lasting,
    /// Text, until the next one.
    Text,
    /// JSON, until the next one.
    Json,
    /// The page for people, until the next one.
    Page,
}

/// A published file of the log. Caching as C2SP tlog-tiles asks for it.
pub(crate) fn file(bytes: Bytes, kind: FileKind) -> Response {
    let (media, caching) = match kind {
        FileKind::Lasting => (MEDIA_OBJECT, "public, max-age=31536000, immutable"),
        FileKind::Text => ("text/plain; charset=utf-8", "no-cache"),
        FileKind::Json => ("application/json", "no-cache"),
        FileKind::Page => ("text/html; charset=utf-8", "no-cache"),
    };
    let mut response = with_body(StatusCode::OK, media, Body::from(bytes));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    if kind == FileKind::Page {
        response.headers_mut().insert(
            http::header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
        );
    }
    response
}

/// Done, and nothing to say about it.
pub(crate) fn done() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// What an object is sent for.
pub(crate) struct ObjectReply {
    pub(crate) account: AccountId,
    /// The device's share of the cell, which it has until all of it is sent.
    pub(crate) share: Option<OwnedSemaphorePermit>,
    pub(crate) size: u64,
    /// Start, and the byte after the last; all of it if there is none.
    pub(crate) range: Option<(u64, u64)>,
}

/// An object, or a range of it.
pub(crate) fn object(shared: &Arc<Shared>, reader: ObjectReader, reply: ObjectReply) -> Response {
    let ObjectReply { size, range, .. } = reply;
    let body = ObjectBody {
        remaining: reader.size(),
        reader,
        shared: Arc::clone(shared),
        account: reply.account,
        pause: None,
        _share: reply.share,
    };
    let status = if range.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let mut response = with_body(status, MEDIA_OBJECT, Body::new(body));
    response
        .headers_mut()
        .insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some((start, end)) = range {
        let text = format!("bytes {start}-{}/{size}", end.saturating_sub(1));
        // Digits, a dash and a slash are always a header value.
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(CONTENT_RANGE, value);
        }
    }
    response
}

fn with_body(status: StatusCode, media: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An object on its way out. Knows its length, so that a reply that breaks off is noticed.
struct ObjectBody {
    reader: ObjectReader,
    remaining: u64,
    shared: Arc<Shared>,
    account: AccountId,
    /// Before the next piece, where the account has to wait for it.
    pause: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    _share: Option<OwnedSemaphorePermit>,
}

impl ObjectBody {
    fn step(&self) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let (pace, account) = (Arc::clone(&self.shared.pace), self.account);
        Box::pin(async move { pace.step(account).await })
    }
}

impl http_body::Body for ObjectBody {
    type Data = Bytes;
    type Error = ObjectsError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ObjectsError>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let next = core::pin::pin!(self.reader.next_chunk()).poll(cx);
        next.map(|chunk| {
            let chunk = chunk?;
            match &chunk {
                Ok(bytes) => {
                    let length = bytes.len() as u64;
                    self.remaining = self.remaining.saturating_sub(length);
                    self.shared.metrics.sent(EndpointId::GetObject, length);
                    // The first piece is part of the request's own step.
                    if self.remaining > 0 {
                        self.shared.pace.was_here(self.account);
                        if !self.shared.pace.try_step(self.account) {
                            self.pause = Some(self.step());
                        }
                    }
                }
                Err(_) => self.shared.fault(Cause::ObjectsFailed),
            }
            Some(chunk.map(Frame::data))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use candor_wire::{AccountId, ObjectId};

    use super::*;

    #[test]
    fn a_failure_is_told_without_its_inside() {
        let fault =
            || -> candor_store::objects::Fault { Arc::new(std::io::Error::other("/a/path")) };
        let (action, account) = ("write", AccountId::from_bytes([1; 16]));
        let object = ObjectId::from_bytes([2; 32]);
        let cases = [
            (
                Refusal::of_records(&RecordsError::Full(fault())),
                ErrorCode::CellFull,
            ),
            (
                Refusal::of_records(&RecordsError::Busy(fault())),
                ErrorCode::Busy,
            ),
            (Refusal::of_records(&RecordsError::Closed), ErrorCode::Busy),
            (
                Refusal::of_records(&RecordsError::Replayed),
                ErrorCode::Replayed,
            ),
            (
                Refusal::of_records(&RecordsError::NoSuchAccount(account)),
                ErrorCode::NotFound,
            ),
            (
                Refusal::of_records(&RecordsError::AccountFrozen(account)),
                ErrorCode::NotPermitted,
            ),
            (
                Refusal::of_records(&RecordsError::Io {
                    action,
                    source: fault(),
                }),
                ErrorCode::Internal,
            ),
            (
                Refusal::of_objects(&ObjectsError::Full(fault())),
                ErrorCode::CellFull,
            ),
            (
                Refusal::of_objects(&ObjectsError::NotFound(object)),
                ErrorCode::NotFound,
            ),
            (
                Refusal::of_objects(&ObjectsError::Io {
                    action,
                    source: fault(),
                }),
                ErrorCode::Internal,
            ),
        ];
        for (refusal, code) in cases {
            assert_eq!(refusal.code, code);
            assert_eq!(
                refusal.to_response(Millis(7)).status().as_u16(),
                code.status()
            );
        }
    }
}
