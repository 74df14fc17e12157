//! The witness's listener: plain HTTP, because everything that goes over it proves itself.
//!
//! Whoever reaches it is a stranger. The number of connections is bounded, and so is the time of
//! headers, of bodies and of replies that nobody reads.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use candor_log::witness::{ADD_CHECKPOINT_MAX_BYTES, CONFLICT_CONTENT_TYPE, Refusal};
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::{RecordError, Refused, Witness};
use crate::gate::{HEADERS_MAX, HEADERS_MAX_BYTES};
use crate::listener::ServeError;
use crate::log::{Cause, Event, Field};
use crate::stall::Stall;

/// Connections at one time: every log of a large list, and monitors.
const CONNECTIONS_MAX: usize = 256;

/// Longest silence before a request's headers are complete; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest time for a request's body, which has at most [`ADD_CHECKPOINT_MAX_BYTES`].
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest standstill of a reply.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long running requests get when the witness stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";

/// Letters in the hash of an origin.
const ORIGIN_HASH_LETTERS: usize = 64;

/// An open listener of a witness. Dropping it closes it.
pub struct WitnessListening {
    witness: Arc<Witness>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Witness {
    /// Takes the listening address. Connections are accepted once [`WitnessListening::run`] runs.
    ///
    /// # Errors
    /// [`ServeError::Address`] if the address is taken or not this machine's.
    pub async fn bind(self, address: SocketAddr) -> Result<WitnessListening, ServeError> {
        let fault = |source| ServeError::Address { address, source };
        #[expect(
            clippy::disallowed_methods,
            reason = "the witness's listener is opened in this module"
        )]
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        Ok(WitnessListening {
            address: listener.local_addr().map_err(fault)?,
            witness: Arc::new(self),
            listener,
        })
    }
}

impl WitnessListening {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts and answers until `shutdown` is ready; then lets running requests finish.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let service = router(&self.witness);
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = core::pin::pin!(shutdown);
        let (witness, clock) = (&self.witness, &self.witness.clock);
        witness.log.line(clock.now(), Event::Started, &[]);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = accept(&self.listener, &room) => match accepted {
                    Ok((stream, permit)) => {
                        let connection = serve(stream, service.clone(), stopped.clone());
                        connections.spawn(async move {
                            connection.await;
                            drop(permit);
                        });
                    }
                    Err(_) => {
                        witness.fault(Cause::Accept);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        witness.log.line(clock.now(), Event::Stopping, &[]);
        drop(self.listener);
        let _ = stop.send(true);
        let finished = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, finished).await;
        connections.shutdown().await;
        witness.log.line(clock.now(), Event::Stopped, &[]);
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn serve(stream: TcpStream, service: Router, mut stopped: watch::Receiver<bool>) {
    // Replies go out as they are written; where that fails, they only come later.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADERS_MAX_BYTES)
        .serve_connection(
            TokioIo::new(Stall::new(stream, STALL_TIMEOUT)),
            TowerToHyperService::new(service),
        );
    let mut connection = core::pin::pin!(connection);
    tokio::select! {
        // How a connection ends is the other side's business.
        _ = connection.as_mut() => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn router(witness: &Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin}/checkpoint", get(newest))
        .with_state(Arc::clone(witness))
}

/// `POST /add-checkpoint`.
async fn add_checkpoint(State(witness): State<Arc<Witness>>, request: Request) -> Response {
    let body = match body_of(request).await {
        Ok(body) => body,
        Err(status) => return reply(&witness, status, TEXT, String::new()),
    };
    let asked = Arc::clone(&witness);
    let decided = tokio::task::spawn_blocking(move || asked.add_checkpoint(&body)).await;
    let Ok(decided) = decided else {
        witness.fault(Cause::Task);
        return reply(
            &witness,
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT,
            String::new(),
        );
    };
    match decided {
        Ok(cosignature) => reply(&witness, StatusCode::OK, TEXT, cosignature),
        Err(Refused::Rule(refusal)) => {
            let content_type = match refusal {
                Refusal::Conflict { .. } => CONFLICT_CONTENT_TYPE,
                _ => TEXT,
            };
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            reply(&witness, status, content_type, refusal.body())
        }
        Err(Refused::Record(error)) => broken(&witness, Cause::WitnessRecord, &error.to_string()),
        Err(Refused::Logs(_)) => broken(
            &witness,
            Cause::WitnessLogs,
            "the witness's list of logs cannot be used",
        ),
        Err(Refused::Clock) => broken(
            &witness,
            Cause::WitnessClock,
            "the witness's clock is wrong",
        ),
    }
}

/// `GET /<origin hash>/checkpoint`.
async fn newest(State(witness): State<Arc<Witness>>, Path(hash): Path<String>) -> Response {
    // Also what keeps a path from being one of the file system's.
    let is_hash = hash.len() == ORIGIN_HASH_LETTERS
        && hash
            .bytes()
            .all(|letter| matches!(letter, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash {
        return reply(&witness, StatusCode::NOT_FOUND, TEXT, String::new());
    }
    let asked = Arc::clone(&witness);
    let read = tokio::task::spawn_blocking(move || asked.newest(&hash)).await;
    match read {
        Ok(Ok(Some(checkpoint))) => reply(&witness, StatusCode::OK, TEXT, checkpoint.bytes()),
        Ok(Ok(None)) => reply(&witness, StatusCode::NOT_FOUND, TEXT, String::new()),
        Ok(Err(error)) => broken_record(&witness, &error),
        Err(_) => {
            witness.fault(Cause::Task);
            reply(
                &witness,
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                String::new(),
            )
        }
    }
}

/// The whole body, or the status that says why there is none.
async fn body_of(request: Request) -> Result<bytes::Bytes, StatusCode> {
    let (parts, body) = request.into_parts();
    let declared = parts.headers.get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > ADD_CHECKPOINT_MAX_BYTES) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let whole = Limited::new(body, ADD_CHECKPOINT_MAX_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

fn broken_record(witness: &Witness, error: &RecordError) -> Response {
    broken(witness, Cause::WitnessRecord, &error.to_string())
}

/// Something is wrong here, and not with the request: said to both sides.
fn broken(witness: &Witness, cause: Cause, what: &str) -> Response {
    witness.fault(cause);
    let said = format!("{what}; nothing is cosigned until its operator has put it right\n");
    reply(witness, StatusCode::INTERNAL_SERVER_ERROR, TEXT, said)
}

fn reply(
    witness: &Witness,
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let fields: [(Field, &dyn crate::log::Loggable); 1] = [(Field::Status, &status)];
    witness
        .log
        .line(witness.clock.now(), Event::Request, &fields);
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
