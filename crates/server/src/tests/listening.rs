//! The listeners: TLS as strangers and devices meet it, and the operator's view.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use candor_wire::api::{CellDescription, EndpointId};
use candor_wire::cell::{CellKeyring, authority};
use candor_wire::ids::{CellId, ObjectId};
use candor_wire::sign::{Ed25519Public, Ed25519Secret};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{Der, ServerName, TrustAnchor};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt as _;

use super::world::{World, decoded, object};

/// What a device makes of an invitation: the one root that it believes.
pub(super) fn trust(cell: &CellId, root: &Ed25519Public) -> TrustAnchor<'static> {
    let mut subject = vec![
        0x31, 0x29, 0x30, 0x27, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x20,
    ];
    subject.extend_from_slice(cell.to_string().as_bytes());
    let mut key = vec![0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    key.extend_from_slice(root.as_bytes());
    TrustAnchor {
        subject: Der::from(subject),
        subject_public_key_info: Der::from(key),
        name_constraints: None,
    }
}

pub(super) async fn connect(
    world: &World,
    address: std::net::SocketAddr,
    root: &Ed25519Public,
    name: &str,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.roots.push(trust(&world.cell.id(), root));
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = stranger(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

pub(super) async fn stranger(address: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this test is a device, or a stranger"
    )]
    let stream = TcpStream::connect(address).await?;
    Ok(stream)
}

async fn over(stream: TlsStream<TcpStream>, request: Request<Body>) -> (StatusCode, Bytes) {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let running = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    let _ = running.await;
    (status, body)
}

/// Now, by the machine's clock: certificates are checked against it.
async fn world_of_today() -> World {
    today(World::new().await)
}

pub(super) fn today(world: World) -> World {
    let today = crate::clock::Clock::now(&crate::clock::SystemClock);
    world.advance(today.0 - world.now().0);
    world
}

#[tokio::test]
async fn a48_tls_1_3_with_the_pinned_root_and_nothing_else() {
    let world = world_of_today().await;
    let listening = world.cell.bind().await.unwrap();
    let (address, root) = (listening.address(), world.cell.root());
    assert_eq!(address, world.cell.config().listen);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(listening.run(async {
        let _ = stopped.await;
    }));
    let name = authority(&world.cell.id());

    let stream = connect(&world, address, &root, &name, &rustls::version::TLS13)
        .await
        .unwrap();
    let (_, session) = stream.get_ref();
    assert_eq!(
        session.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (status, body) = over(
        stream,
        Request::get("/v1/cell").body(Body::empty()).unwrap(),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    let keyring = CellKeyring::verify(&root, &decoded::<CellDescription>(&body).keys).unwrap();
    assert_eq!(keyring.current(), world.cell.keys());

    let older = connect(&world, address, &root, &name, &rustls::version::TLS12).await;
    assert!(older.is_err(), "TLS 1.2 is not spoken");
    let wrong = Ed25519Secret::from_seed(&[1; 32]).public();
    let error = connect(&world, address, &wrong, &name, &rustls::version::TLS13)
        .await
        .unwrap_err();
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .unwrap();
    assert!(
        matches!(inner, rustls::Error::InvalidCertificate(_)),
        "{inner:?}"
    );
    let elsewhere = authority(&CellId::from_bytes([1; 16]));
    assert!(
        connect(&world, address, &root, &elsewhere, &rustls::version::TLS13)
            .await
            .is_err()
    );

    stop.send(()).unwrap();
    running.await.unwrap();
    let gone = connect(&world, address, &root, &name, &rustls::version::TLS13).await;
    assert!(gone.is_err());
}

/// The same requests as within a process, the same answers: an object there and back.
#[tokio::test]
async fn objects_go_over_tls() {
    let world = world_of_today().await;
    let mut person = world.person().await;
    let listening = world.cell.bind().await.unwrap();
    let (address, root) = (listening.address(), world.cell.root());
    let running = tokio::spawn(listening.run(core::future::pending()));
    let name = authority(&world.cell.id());
    let grant = person.consents(&world).await;
    let sent = object(9);
    let stream = connect(&world, address, &root, &name, &rustls::version::TLS13)
        .await
        .unwrap();
    let (status, _) = over(stream, person.sign(&world, &person.putting(&sent, &grant))).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let stream = connect(&world, address, &root, &name, &rustls::version::TLS13)
        .await
        .unwrap();
    let get = person.getting(ObjectId::of(&sent), &grant);
    assert_eq!(
        over(stream, person.sign(&world, &get)).await,
        (StatusCode::OK, sent)
    );
    // A refusal is readable even if its body was never wanted.
    let stream = connect(&world, address, &root, &name, &rustls::version::TLS13)
        .await
        .unwrap();
    let large = Bytes::from(vec![1; 8 * 1024 * 1024]);
    let refused = over(
        stream,
        person.sign(
            &world,
            &person.putting(&large, &format!("grant {}", "0".repeat(64))),
        ),
    )
    .await;
    assert_eq!(refused.0, StatusCode::FORBIDDEN);
    running.abort();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let world = World::new().await;
    let _first = world.cell.bind().await.unwrap();
    match world.cell.bind().await {
        Err(crate::ServeError::Address { address, .. }) => {
            assert_eq!(address, world.cell.config().listen)
        }
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test]
async fn operators_see_health_and_numbers() {
    let world = World::new().await;
    let person = world.person().await;
    person.ask(EndpointId::ReadChain, String::new());
    let ask = async |path: &str| {
        let router = crate::routes::observation_router(world.cell.shared());
        let response = router
            .oneshot(Request::get(path).body(Body::empty()).unwrap())
            .await
            .unwrap();
        let status = response.status();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    };
    assert_eq!(ask("/healthz").await.0, StatusCode::OK);
    assert_eq!(ask("/readyz").await.0, StatusCode::OK);
    let (_, text) = ask("/metrics").await;
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(
        text.contains("candor_requests_total{endpoint=\"OpenAccount\",status=\"200\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("candor_request_seconds_bucket{endpoint=\"OpenAccount\",le=\"+Inf\"} 1\n")
    );
    world.cell.shared().stop();
    assert_eq!(ask("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask("/v1/cell").await.0, StatusCode::NOT_FOUND);
}

/// Whoever connects and says nothing, or stops in the middle, is let go in time.
#[tokio::test]
async fn a40_silence_ends_a_connection() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let impatient = |config: &mut crate::CellConfig| {
        config.limits.handshake_timeout_seconds = 1;
        config.limits.header_timeout_seconds = 1;
        config.limits.stall_timeout_seconds = 1;
    };
    let world = today(World::with(impatient, crate::log::Log::silent()).await);
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let listening = world.cell.bind().await.unwrap();
    let (address, root) = (listening.address(), world.cell.root());
    let running = tokio::spawn(listening.run(core::future::pending()));
    let name = authority(&world.cell.id());
    let mut mute = stranger(address).await.unwrap();
    let mut headless = connect(&world, address, &root, &name, &rustls::version::TLS13)
        .await
        .unwrap();
    headless
        .write_all(b"GET /v1/cell HTTP/1.1\r\nx-more: ")
        .await
        .unwrap();
    let put = person.sign(&world, &person.putting(&object(1), &grant));
    let mut stuck = connect(&world, address, &root, &name, &rustls::version::TLS13)
        .await
        .unwrap();
    let mut head = format!(
        "PUT {} HTTP/1.1\r\ncontent-length: 65536\r\n",
        put.uri().path()
    );
    for (name, value) in put.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    stuck
        .write_all(format!("{head}\r\nonly this").as_bytes())
        .await
        .unwrap();
    let ended = async {
        let mut rest = Vec::new();
        let _ = mute.read_to_end(&mut rest).await;
        let _ = headless.read_to_end(&mut rest).await;
        rest.clear();
        let _ = stuck.read_to_end(&mut rest).await;
        rest
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(10), ended)
        .await
        .unwrap();
    assert!(
        told.starts_with(b"HTTP/1.1 400 "),
        "{}",
        String::from_utf8_lossy(&told)
    );
    running.abort();
}
