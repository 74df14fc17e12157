//! The pages' listener: one loopback address, one person's programs, every request judged first.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use candor_client::{Entropy as _, SystemEntropy};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::entry::KEY_MAX_MS;
use super::guard::{COOKIE_NAME, Pass, Refused};
use super::peer::{self, Owner};
use super::request::{Browser, Nonce, html, see_other};
use super::welcome::WELCOME;
use super::{Shared, routes, shell};
use crate::failure::{Doing as _, Outcome};

/// Ports that are chosen from, below those that operating systems hand out for outgoing connections, so that the port
/// is still free at the next start.
const PORTS: core::ops::Range<u16> = 20_000..30_000;

/// How many ports are tried.
const PORT_TRIES_MAX: usize = 64;

/// Connections at one time: a few browsers with a few pages each.
const CONNECTIONS_MAX: usize = 64;

/// How long the head of a request may take.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// Most headers of a request.
const HEADERS_MAX: usize = 64;

/// Largest head of a request, in bytes.
const HEAD_MAX_BYTES: usize = 32 << 10;

/// How long to wait when no connection can be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections may still take once the program ends.
const END_WAIT: Duration = Duration::from_secs(2);

/// What a page may load and do, beside its scripts: what this listener serves, and nothing else.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Seconds that the cookie is kept: as long as the key in it is good.
const COOKIE_SECONDS: i64 = KEY_MAX_MS / 1000;

/// Opens the listener: at `port` if that is free, else at another one.
pub(super) async fn bind(port: u16) -> Outcome<(TcpListener, u16)> {
    let mut wanted = port;
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES_MAX {
        if wanted == 0 {
            wanted = random_port()?;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the pages' listener, on the loopback address"
        )]
        match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).await {
            Ok(listener) => return Ok((listener, wanted)),
            Err(error) => last = error,
        }
        wanted = 0;
    }
    Err(last).doing(|| "open a port for the pages".to_owned())
}

fn random_port() -> Outcome<u16> {
    let mut bytes = [0; 2];
    SystemEntropy
        .fill(&mut bytes)
        .doing(|| "draw random numbers".to_owned())?;
    let width = PORTS.end - PORTS.start;
    Ok(PORTS.start + u16::from_le_bytes(bytes) % width)
}

/// Accepts and answers until the program is asked to stop.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = routes::router(&shared);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = shared.stop.stopped() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (place, accepted) = next => {
                let Ok((stream, peer)) = accepted else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let (shared, router) = (Arc::clone(&shared), router.clone());
                connections.spawn(async move {
                    converse(stream, peer, shared, router).await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    // Whoever asked for something gets their answer; a browser that only keeps a connection open is let go.
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(END_WAIT, all).await;
    connections.shutdown().await;
}

async fn converse(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, router: Router) {
    let (SocketAddr::V4(peer), Ok(SocketAddr::V4(here))) = (peer, stream.local_addr()) else {
        return;
    };
    if peer::owner(peer, here).await == Owner::Other {
        return;
    }
    let stop = shared.stop.clone();
    let service = hyper::service::service_fn(move |request| {
        let (shared, router) = (Arc::clone(&shared), router.clone());
        async move { Ok::<_, Infallible>(answer(&shared, router, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = core::pin::pin!(connection);
    tokio::select! {
        // A browser that goes away in the middle is nobody's fault.
        _ = connection.as_mut() => return,
        () = stop.stopped() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Judges a request, and only then looks at what it asks for.
async fn answer(shared: &Arc<Shared>, router: Router, request: Request<Incoming>) -> Response {
    let (mut head, body) = request.into_parts();
    let response = match shared.guard.judge(&head, &shared.entry, shared.now()) {
        Ok(Pass::Known(key)) => {
            if let Some(to) = elsewhere(shared, head.uri.path()) {
                return protected(see_other(to));
            }
            head.extensions.insert(Browser(key));
            let request = Request::from_parts(head, Body::new(body));
            let Ok(response) = router.oneshot(request).await;
            response
        }
        Ok(Pass::Entering { token, known }) => enter(shared, token, known).await,
        Err(refused) => refusal(refused),
    };
    protected(response)
}

/// Where a browser is sent that asks for the first run without being in it, or for the rest while it lasts.
fn elsewhere(shared: &Shared, path: &str) -> Option<&'static str> {
    let below = path.strip_prefix(WELCOME);
    let is_welcome = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match shared.welcome() {
        Some(_) if !is_welcome && !path.starts_with("/assets/") => Some(WELCOME),
        None if is_welcome => Some("/"),
        _ => None,
    }
}

fn refusal(refused: Refused) -> Response {
    html(StatusCode::FORBIDDEN, shell::refused(&refused.to_string()))
}

/// Lets a browser in, if it brings the token.
async fn enter(shared: &Arc<Shared>, token: String, known: Option<String>) -> Response {
    let now = shared.now();
    let is_known = known.is_some();
    let entering = super::off_the_thread(shared, move |shared| {
        shared.entry.enter(&token, known.as_deref(), now)
    });
    let Ok(Ok(entered)) = entering.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let Some(key) = entered else {
        // A page that was opened once more, or a bookmark of the way in.
        return if is_known {
            see_other("/")
        } else {
            refusal(Refused::Key)
        };
    };
    let cookie =
        format!("{COOKIE_NAME}={key}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict");
    let Ok(cookie) = HeaderValue::from_str(&cookie) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = see_other("/");
    response.headers_mut().insert(SET_COOKIE, cookie);
    response
}

/// What every answer says, whatever it is.
fn protected(mut response: Response) -> Response {
    let policy = match response.extensions().get::<Nonce>() {
        Some(nonce) => format!("script-src 'nonce-{}'; {CONTENT_POLICY}", nonce.0),
        None => CONTENT_POLICY.to_owned(),
    };
    let fixed = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // A form's origin would be `null` under `no-referrer`.
        (REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    let headers = response.headers_mut();
    // A nonce has digits alone.
    let policy = HeaderValue::from_str(&policy);
    headers.insert(
        CONTENT_SECURITY_POLICY,
        policy.unwrap_or(HeaderValue::from_static("default-src 'none'")),
    );
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
