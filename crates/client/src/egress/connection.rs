//! A connection under one authority: checks, signatures, retries.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use candor_consent::Authority;
use candor_vault::entropy::EntropyError;
use candor_wire::api::{
    BodyKind, Caller, Endpoint, EndpointId, ErrorCode, ErrorReply, MEDIA_CBOR, MEDIA_OBJECT,
    endpoint,
};
use candor_wire::cbor;
use candor_wire::cell::authority as cell_authority;
use candor_wire::ids::RequestNonce;
use candor_wire::request::{
    Covered, FIRST_PLACEMENT, HEADER_AUTHORITY, HEADER_DEVICE, HEADER_DIGEST, HEADER_PLACEMENT,
    HEADER_SIGNATURE, HEADER_SIGNATURE_INPUT, content_digest, device_header, sign,
};
use candor_wire::sign::SecretKey;

use super::{Allowance, Shared, Transport, TransportError};
use crate::ledger::DataClass;

/// How often a request is sent again. With the pauses below a cell has six seconds to come back,
/// enough for a restart; after that the run ends and is resumed later.
pub const RETRIES_MAX: u32 = 5;

/// The pause before the first repetition, in milliseconds; each later one is twice as long.
pub const RETRY_PAUSE_MS: u64 = 200;

/// Why a request was not made or got no answer that counts.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The authority is for another cell.
    #[error("the authority is for another cell")]
    OtherCell,
    /// The authority has ended.
    #[error("the consent or errand has ended")]
    Over,
    /// The authority does not open this endpoint.
    #[error("the consent or errand does not open {}", .endpoint.path)]
    NotPermitted {
        /// The endpoint.
        endpoint: &'static Endpoint,
    },
    /// No reply.
    #[error("the cell gave no reply")]
    Transport(#[source] TransportError),
    /// The reply is none that a cell gives.
    #[error("the cell's reply makes no sense")]
    Malformed,
    /// The cell refused.
    #[error("the cell refused the request")]
    Refused(ErrorReply),
    /// The pinned root key or address cannot be used.
    #[error("the pinned cell cannot be addressed")]
    Pinned,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Entropy,
}

impl From<EntropyError> for EgressError {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// The endpoint's path, filled in.
    pub path: String,
    /// The query without its question mark.
    pub query: String,
    /// The body.
    pub body: Bytes,
    /// The asked range of bytes of an object.
    pub range: Option<Range<u64>>,
    /// How long the cell may keep the reply back, until there is one to give; zero for most.
    pub wait: Duration,
}

/// A way to the cell under one authority. Usable from many tasks at once.
pub struct Connection {
    shared: Arc<Shared>,
    authority: Box<dyn Authority>,
    signer: Arc<SecretKey>,
    transport: Box<dyn Transport>,
    /// What the cell's clock is ahead of this device's, in milliseconds. Only ever added to the time
    /// of a request.
    skew_ms: AtomicI64,
    /// The latest time that this device's clock showed here: set back, it does not make an authority
    /// last longer (row A52). Milliseconds UTC.
    latest_ms: AtomicI64,
    was_answered: AtomicBool,
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        authority: Box<dyn Authority>,
        signer: Arc<SecretKey>,
        transport: Box<dyn Transport>,
    ) -> Result<Self, EgressError> {
        let connection = Self {
            shared,
            authority,
            signer,
            transport,
            skew_ms: AtomicI64::new(0),
            latest_ms: AtomicI64::new(i64::MIN),
            was_answered: AtomicBool::new(false),
        };
        connection.check_not_over()?;
        Ok(connection)
    }

    /// What opened it.
    pub fn authority(&self) -> &dyn Authority {
        self.authority.as_ref()
    }

    /// The pinned root key of the cell.
    pub fn root(&self) -> candor_wire::sign::Ed25519Public {
        self.shared.root
    }

    /// Ends it; the ledger's lines are complete afterwards. Dropping it ends it too, a little later.
    pub async fn close(&self) {
        self.transport.close().await;
    }

    fn check_not_over(&self) -> Result<(), EgressError> {
        let now_ms = self.shared.clock.now().0;
        let latest_ms = self
            .latest_ms
            .fetch_max(now_ms, Ordering::Relaxed)
            .max(now_ms);
        if self.authority.ends_at().0 <= latest_ms {
            Err(EgressError::Over)
        } else {
            Ok(())
        }
    }

    fn check(&self, endpoint: &'static Endpoint) -> Result<(), EgressError> {
        self.check_not_over()?;
        if self.authority.opens(endpoint) {
            Ok(())
        } else {
            Err(EgressError::NotPermitted { endpoint })
        }
    }

    /// Makes one request; repeats it where that is harmless and may help. Returns the status and the
    /// body of a success.
    pub async fn call(&self, call: &Call) -> Result<(u16, Bytes), EgressError> {
        let endpoint = endpoint(call.endpoint);
        let mut failures = 0;
        let mut was_skewed = false;
        loop {
            self.check(endpoint)?;
            let request = self.request(endpoint, call)?;
            let allowance = Allowance {
                reply_max_bytes: endpoint
                    .reply
                    .max_bytes()
                    .max(BodyKind::Cbor("ErrorReply").max_bytes()),
                wait: call.wait,
            };
            let reply = self
                .transport
                .call(request, allowance, classes(call.endpoint))
                .await;
            let error = match reply {
                Ok(reply) if reply.status().is_success() => {
                    self.was_answered.store(true, Ordering::Relaxed);
                    return Ok((reply.status().as_u16(), reply.into_body()));
                }
                Ok(reply) => {
                    self.was_answered.store(true, Ordering::Relaxed);
                    let refusal: ErrorReply =
                        cbor::decode(reply.body()).map_err(|_| EgressError::Malformed)?;
                    if refusal.code == ErrorCode::Skew && !was_skewed {
                        was_skewed = true;
                        let ahead = refusal.time.0.saturating_sub(self.shared.clock.now().0);
                        self.skew_ms.store(ahead, Ordering::Relaxed);
                        continue;
                    }
                    EgressError::Refused(refusal)
                }
                Err(error) => EgressError::Transport(error),
            };
            if failures == RETRIES_MAX || !self.may_help(&error) {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS << failures)).await;
            failures += 1;
        }
    }

    /// Whether the same request may succeed later. Every endpoint may be asked twice: reads and puts
    /// are the same each time, and what goes by compare-and-swap is refused the second time.
    fn may_help(&self, error: &EgressError) -> bool {
        match error {
            EgressError::Refused(refusal) => refusal.code == ErrorCode::Busy,
            EgressError::Transport(TransportError::Broken(_)) => true,
            // A cell that never answered is told at once; one that was there may be restarting.
            EgressError::Transport(TransportError::NotConnected(_)) => {
                self.was_answered.load(Ordering::Relaxed)
            }
            _ => false,
        }
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        call: &Call,
    ) -> Result<http::Request<Bytes>, EgressError> {
        let host = cell_authority(&self.shared.cell);
        let target = if call.query.is_empty() {
            call.path.clone()
        } else {
            format!("{}?{}", call.path, call.query)
        };
        let mut builder = http::Request::builder()
            .method(endpoint.method.name())
            .uri(target)
            .header(http::header::HOST, &host)
            .header(http::header::CONTENT_LENGTH, call.body.len());
        builder = match endpoint.request {
            BodyKind::Empty | BodyKind::LogFile => builder,
            BodyKind::Cbor(_) => builder.header(http::header::CONTENT_TYPE, MEDIA_CBOR),
            BodyKind::Object => builder.header(http::header::CONTENT_TYPE, MEDIA_OBJECT),
        };
        if let Some(range) = &call.range {
            // RFC 9110 §14.1.2: both ends belong to the range.
            let last = range.end.saturating_sub(1);
            builder = builder.header(http::header::RANGE, format!("bytes={}-{last}", range.start));
        }
        if endpoint.caller != Caller::Anybody {
            builder = self.sign(builder, endpoint, call, &host)?;
        }
        builder
            .body(call.body.clone())
            .map_err(|_| EgressError::Malformed)
    }

    fn sign(
        &self,
        builder: http::request::Builder,
        endpoint: &Endpoint,
        call: &Call,
        host: &str,
    ) -> Result<http::request::Builder, EgressError> {
        let device = device_header(self.authority.device().as_ref());
        let authorization = self.authority.header();
        let placement = FIRST_PLACEMENT.to_string();
        let digest =
            matches!(endpoint.request, BodyKind::Cbor(_)).then(|| content_digest(&call.body));
        let covered = Covered {
            method: endpoint.method.name(),
            authority: host,
            path: &call.path,
            query: &call.query,
            device: &device,
            authorization: &authorization,
            placement: &placement,
            digest: digest.as_deref(),
        };
        let mut nonce = [0; RequestNonce::BYTES];
        self.shared.entropy.fill(&mut nonce)?;
        let created = self
            .shared
            .clock
            .now()
            .plus_ms(self.skew_ms.load(Ordering::Relaxed))
            .seconds();
        let nonce = RequestNonce::from_bytes(nonce);
        let headers = sign(&covered, created, &nonce, self.signer.ed25519());
        let mut builder = builder
            .header(HEADER_DEVICE, &device)
            .header(HEADER_AUTHORITY, &authorization)
            .header(HEADER_PLACEMENT, &placement)
            .header(HEADER_SIGNATURE_INPUT, headers.input)
            .header(HEADER_SIGNATURE, headers.signature);
        if let Some(digest) = &digest {
            builder = builder.header(HEADER_DIGEST, digest);
        }
        Ok(builder)
    }
}

/// What goes out with a request, for the ledger.
const fn classes(endpoint: EndpointId) -> &'static [DataClass] {
    use DataClass as Class;
    match endpoint {
        EndpointId::DescribeCell | EndpointId::ReadLog => &[],
        EndpointId::OpenAccount => &[
            Class::Identifiers,
            Class::Statements,
            Class::InvitationRight,
        ],
        EndpointId::AppendChain => &[Class::Identifiers, Class::Statements],
        EndpointId::FindAccount
        | EndpointId::ReadChain
        | EndpointId::ReadHead
        | EndpointId::ReadState
        | EndpointId::ReadErasure
        | EndpointId::ReadRuns
        | EndpointId::ListObjects
        | EndpointId::OpenLink
        | EndpointId::ReadLink => &[Class::Identifiers],
        EndpointId::PutLinkMessage => &[Class::Identifiers, Class::SealedMessages],
        EndpointId::SwapHead => &[Class::Identifiers, Class::Heads],
        EndpointId::PutObject => &[Class::Identifiers, Class::SealedObjects],
        EndpointId::GetObject | EndpointId::HasObjects => &[Class::Identifiers, Class::ObjectNames],
    }
}
