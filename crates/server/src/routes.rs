//! Routes: one for each row of the table, and the one answer to everything else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use candor_wire::api::{ENDPOINTS, Endpoint, EndpointId, ErrorCode, Method};

use crate::log::{Count, Event, Field, Loggable};
use crate::reply::Refusal;
use crate::shared::Shared;
use crate::{gate, handlers};

/// The cell's interface.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    for endpoint in ENDPOINTS {
        let filter = match endpoint.method {
            Method::Get => MethodFilter::GET,
            Method::Put => MethodFilter::PUT,
            Method::Post => MethodFilter::POST,
        };
        let shared = Arc::clone(shared);
        let handler = move |request: Request| answer(Arc::clone(&shared), endpoint, request);
        if endpoint.id == EndpointId::ReadLog {
            // The page about the log, which has no name of its own.
            router = router.route(handlers::LOG_PREFIX, on(filter, handler.clone()));
        }
        router = router.route(endpoint.path, on(filter, handler));
    }
    let (elsewhere, otherwise) = (Arc::clone(shared), Arc::clone(shared));
    router
        .fallback(move |request| nothing(Arc::clone(&elsewhere), request))
        .method_not_allowed_fallback(move |request| nothing(Arc::clone(&otherwise), request))
}

/// What is in no row of the table.
async fn nothing(shared: Arc<Shared>, request: Request) -> Response {
    let began = Instant::now();
    let (_, mut body) = gate::split(&shared, request);
    body.drain().await;
    let refusal = Refusal::from(ErrorCode::NotFound);
    shared.metrics.answered(
        None,
        refusal.code.status(),
        began.elapsed(),
        body.read_bytes(),
    );
    refusal.to_response(shared.clock.now())
}

async fn answer(shared: Arc<Shared>, endpoint: &'static Endpoint, request: Request) -> Response {
    let began = Instant::now();
    let (parts, mut body) = gate::split(&shared, request);
    let mut waited = Duration::ZERO;
    let outcome = match gate::pass(&shared, endpoint, &parts, &mut body).await {
        Ok(mut admitted) => {
            let headers = &parts.headers;
            let outcome =
                handlers::handle(&shared, endpoint.id, &mut admitted, headers, &mut body).await;
            waited = admitted.waited;
            outcome
        }
        Err(refusal) => Err(refusal),
    };
    let (response, error) = match outcome {
        Ok(response) => (response, None),
        Err(refusal) => {
            if let Some(cause) = refusal.cause {
                shared.fault(cause);
            }
            body.drain().await;
            (refusal.to_response(shared.clock.now()), Some(refusal.code))
        }
    };
    let status = response.status();
    let took = began.elapsed().saturating_sub(waited);
    shared
        .metrics
        .answered(Some(endpoint.id), status.as_u16(), took, body.read_bytes());
    let bytes_in = Count(body.read_bytes());
    let mut fields: Vec<(Field, &dyn Loggable)> = vec![
        (Field::Endpoint, endpoint),
        (Field::Status, &status),
        (Field::Milliseconds, &took),
        (Field::BytesIn, &bytes_in),
    ];
    if let Some(error) = &error {
        fields.push((Field::Error, error));
    }
    shared.log.line(shared.clock.now(), Event::Request, &fields);
    response
}

/// Whether the cell can do its work: not stopping, and the database answers.
pub(crate) async fn is_ready(shared: &Shared) -> bool {
    !shared.is_stopping() && shared.records.cell_value("ready").await.is_ok()
}

/// Health and metrics, for loopback only.
pub(crate) fn observation_router(shared: &Arc<Shared>) -> Router {
    use axum::routing::get;
    use http::{StatusCode, header};
    let (metrics, ready) = (Arc::clone(shared), Arc::clone(shared));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || {
                let shared = Arc::clone(&ready);
                async move {
                    match is_ready(&shared).await {
                        true => (StatusCode::OK, "ready\n"),
                        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
                    }
                }
            }),
        )
        .route(
            "/metrics",
            get(move || {
                let text = metrics.metrics.render();
                async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
            }),
        )
}

/// The transparency log for everybody, and nothing else.
pub(crate) fn log_router(shared: &Arc<Shared>) -> Router {
    let elsewhere = Arc::clone(shared);
    let read = ENDPOINTS.iter().find(|row| row.id == EndpointId::ReadLog);
    let mut router = Router::new();
    if let Some(endpoint) = read {
        let shared = Arc::clone(shared);
        let handler = move |request: Request| answer(Arc::clone(&shared), endpoint, request);
        router = router
            .route(endpoint.path, on(MethodFilter::GET, handler.clone()))
            .route(handlers::LOG_PREFIX, on(MethodFilter::GET, handler));
    }
    router.fallback(move |request| nothing(Arc::clone(&elsewhere), request))
}

/// Counts a connection for as long as it lives.
pub(crate) struct Connected(Arc<Shared>);

impl Connected {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared
            .metrics
            .connections_total
            .fetch_add(1, Ordering::Relaxed);
        shared
            .metrics
            .connections_open
            .fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0
            .metrics
            .connections_open
            .fetch_sub(1, Ordering::Relaxed);
    }
}
