#![allow(clippy::unwrap_used, clippy::panic)]
use std::net::SocketAddr;
use std::sync::Mutex;

use candor_consent::Errand;
use candor_wire::api::{API_VERSION, EndpointId, ErrorCode, ErrorReply, HeadReply};
use candor_wire::cbor;
use candor_wire::cell::{authority, cell_id};
use candor_wire::errand::Purpose;
use candor_wire::request::{
    Covered, HEADER_AUTHORITY, HEADER_DEVICE, HEADER_PLACEMENT, SignatureHeaders, verify,
};
use candor_wire::sign::{Ed25519Secret, SigningSeeds};
use candor_wire::{AccountId, DeviceId, Millis, ObjectId, VaultId};
use http::{Request, Response};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use super::*;
use crate::account::{ErrandFor, Surroundings, sign_errand};
use crate::api::{Api, ApiError};
use crate::commands::LedgerLineView;
use crate::keystore::LedgerKey;
use crate::ledger::LedgerParts;
use crate::test_support::{HandClock, Repeatable};

const NOW_MS: i64 = 1_800_000_000_000;
const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([2; 16]);
const VAULT: VaultId = VaultId::from_bytes([3; 16]);

fn signer() -> Arc<SecretKey> {
    Arc::new(SecretKey::from_seeds(&SigningSeeds {
        ed25519: [3; 32],
        ml_dsa: [4; 32],
    }))
}

fn root() -> Ed25519Secret {
    Ed25519Secret::from_seed(&[8; 32])
}

struct Bench {
    _folder: tempfile::TempDir,
    clock: Arc<HandClock>,
    egress: Egress,
}

fn bench(root: Ed25519Public, addresses: Vec<String>, door: CellDoor) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(HandClock::new(NOW_MS));
    let parts = LedgerParts {
        key: &LedgerKey::from_bytes(&[6; 32]),
        signing: signer(),
        device: DEVICE,
        clock: clock.clone(),
        entropy: Arc::new(Repeatable::new(1)),
    };
    let ledger = Ledger::open(&folder.path().join("ledger"), parts).unwrap();
    let cell = Invitation {
        version: 1,
        root,
        addresses,
        right: None,
    };
    let entropy = Arc::new(Repeatable::new(2));
    let egress = Egress::new(EgressParts {
        cell,
        door,
        ledger,
        clock: clock.clone(),
        entropy,
    });
    Bench {
        _folder: folder,
        clock,
        egress,
    }
}

impl Bench {
    fn errand(&self, purpose: Purpose) -> Errand {
        let entropy = Repeatable::new(3);
        let surroundings = Surroundings {
            clock: self.clock.as_ref(),
            entropy: &entropy,
        };
        let what = ErrandFor {
            purpose,
            account: Some(ACCOUNT),
            signer: Some(DEVICE),
            cell: self.egress.cell(),
        };
        sign_errand(what, &signer(), surroundings).unwrap()
    }

    fn api(&self, purpose: Purpose) -> Api {
        Api::new(
            self.egress
                .open(Box::new(self.errand(purpose)), signer())
                .unwrap(),
        )
    }

    fn lines(&self) -> Vec<LedgerLineView> {
        let mut lines = Vec::new();
        self.egress
            .ledger()
            .lines(None, &mut |line| lines.push(line))
            .unwrap();
        lines
    }
}

/// Answers with what it was told to, and keeps what it was asked.
struct Scripted {
    asked: Mutex<Vec<Request<Bytes>>>,
    answers: Mutex<Vec<Result<Response<Bytes>, TransportError>>>,
}

impl Scripted {
    fn new(mut answers: Vec<Result<Response<Bytes>, TransportError>>) -> Arc<Self> {
        answers.reverse();
        Arc::new(Self {
            asked: Mutex::new(Vec::new()),
            answers: Mutex::new(answers),
        })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl CellService for Scripted {
    fn call(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Result<Response<Bytes>, TransportError>> {
        self.asked.lock().unwrap().push(request);
        let answer = self
            .answers
            .lock()
            .unwrap()
            .pop()
            .expect("an answer for every request");
        Box::pin(async move { answer })
    }
}

fn ok(body: &[u8]) -> Result<Response<Bytes>, TransportError> {
    Ok(Response::new(Bytes::copy_from_slice(body)))
}

fn refused(code: ErrorCode, time: i64) -> Result<Response<Bytes>, TransportError> {
    let reply = ErrorReply {
        version: API_VERSION,
        code,
        time: Millis(time),
        used_bytes: None,
        quota_bytes: None,
    };
    let mut response = Response::new(Bytes::from(cbor::encode(&reply)));
    *response.status_mut() = http::StatusCode::from_u16(code.status()).unwrap();
    Ok(response)
}

fn broken() -> Result<Response<Bytes>, TransportError> {
    Err(TransportError::Broken("lost".into()))
}

fn created(request: &Request<Bytes>) -> i64 {
    let header = |name| request.headers().get(name).unwrap().to_str().unwrap();
    let covered = Covered {
        method: request.method().as_str(),
        authority: header("host"),
        path: request.uri().path(),
        query: request.uri().query().unwrap_or(""),
        device: header(HEADER_DEVICE),
        authorization: header(HEADER_AUTHORITY),
        placement: header(HEADER_PLACEMENT),
        digest: request
            .headers()
            .get("content-digest")
            .map(|value| value.to_str().unwrap()),
    };
    let headers = SignatureHeaders {
        input: header("signature-input").to_owned(),
        signature: header("signature").to_owned(),
    };
    let input = headers.input.split_once(";created=").unwrap().1;
    let now = input.split_once(';').unwrap().0.parse().unwrap();
    verify(&covered, &headers, now, &signer().ed25519().public())
        .unwrap()
        .created
}

#[tokio::test]
async fn requests_are_signed_counted_and_repeated_with_new_nonces() {
    let object = Bytes::from_static(b"sealed");
    let name = ObjectId::of(&object);
    let service = Scripted::new(vec![broken(), refused(ErrorCode::Busy, 0), ok(&object)]);
    let bench = bench(
        root().public(),
        vec![],
        CellDoor::InProcess(service.clone()),
    );
    let api = bench.api(Purpose::Restore);
    assert!(
        bench.lines().is_empty(),
        "nothing is opened before the first request"
    );
    assert_eq!(api.get_object(ACCOUNT, VAULT, name).await.unwrap(), object);
    assert_eq!(bench.lines()[0].state, "open");
    api.close().await;
    let asked = service.asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(
        asked
            .iter()
            .all(|request| created(request) == NOW_MS / 1000)
    );
    assert_ne!(
        asked[0].headers()["signature-input"],
        asked[1].headers()["signature-input"]
    );
    let lines = bench.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (lines[0].protocol.as_str(), lines[0].state.as_str()),
        ("in-process", "closed")
    );
    assert_eq!(
        (lines[0].service.as_str(), lines[0].consent_state.as_str()),
        ("restore", "errand")
    );
    assert_eq!(
        (lines[0].cipher_out, lines[0].retransmitted_segments),
        (None, None)
    );
    assert_eq!(lines[0].data_classes, ["identifiers", "object-names"]);
}

#[tokio::test]
async fn repetition_is_bounded_and_altered_objects_are_refused() {
    let service = Scripted::new((0..=RETRIES_MAX).map(|_| broken()).collect());
    let bench = bench(
        root().public(),
        vec![],
        CellDoor::InProcess(service.clone()),
    );
    let api = bench.api(Purpose::Restore);
    let lost = api.get_object(ACCOUNT, VAULT, ObjectId::of(b"x")).await;
    assert!(matches!(
        lost,
        Err(ApiError::Unreachable(TransportError::Broken(_)))
    ));
    assert_eq!(service.asked(), RETRIES_MAX as usize + 1);
    service.answers.lock().unwrap().push(ok(b"y"));
    let altered = api.get_object(ACCOUNT, VAULT, ObjectId::of(b"x")).await;
    assert!(matches!(altered, Err(ApiError::Integrity { .. })));
}

#[tokio::test]
async fn the_cells_time_corrects_a_request_once_and_nothing_else() {
    let skewed = NOW_MS + 7_200_000;
    let service = Scripted::new(vec![
        refused(ErrorCode::Skew, skewed),
        ok(b"sealed"),
        refused(ErrorCode::Skew, skewed),
        refused(ErrorCode::Skew, skewed),
    ]);
    let bench = bench(
        root().public(),
        vec![],
        CellDoor::InProcess(service.clone()),
    );
    let api = bench.api(Purpose::Restore);
    api.get_object(ACCOUNT, VAULT, ObjectId::of(b"sealed"))
        .await
        .unwrap();
    assert_eq!(created(&service.asked.lock().unwrap()[1]), skewed / 1000);
    let again = api
        .get_object(ACCOUNT, VAULT, ObjectId::of(b"sealed"))
        .await;
    assert!(matches!(
        again,
        Err(ApiError::Refused {
            code: ErrorCode::Skew,
            ..
        })
    ));
    // The authority still ends by this device's own clock.
    bench.clock.set(NOW_MS + candor_wire::limits::ERRAND_MAX_MS);
    let over = api
        .get_object(ACCOUNT, VAULT, ObjectId::of(b"sealed"))
        .await;
    assert!(matches!(over, Err(ApiError::Over)));
    assert_eq!(service.asked(), 4);
}

#[tokio::test]
async fn an_authority_opens_its_own_endpoints_at_its_own_cell_only() {
    let service = Scripted::new(vec![]);
    let bench = bench(
        root().public(),
        vec![],
        CellDoor::InProcess(service.clone()),
    );
    let api = bench.api(Purpose::List);
    let put = api
        .put_object(ACCOUNT, VAULT, ObjectId::of(b"x"), Bytes::from_static(b"x"))
        .await;
    assert!(matches!(put, Err(ApiError::NotPermitted)));
    let other = super::tests::bench(
        Ed25519Secret::from_seed(&[7; 32]).public(),
        vec![],
        CellDoor::Network,
    );
    let foreign = other
        .egress
        .open(Box::new(bench.errand(Purpose::List)), signer());
    assert!(matches!(foreign.map(|_| ()), Err(EgressError::OtherCell)));
    assert_eq!(service.asked(), 0);
    assert!(bench.lines().is_empty() && other.lines().is_empty());
}

/// PKCS#8 of an Ed25519 seed (RFC 8410 §7).
fn pkcs8(seed: [u8; 32]) -> Vec<u8> {
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend_from_slice(&seed);
    der
}

/// A TLS server as a cell makes it, that answers each request with `body`.
async fn serve(
    seed: [u8; 32],
    body: &'static [u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> SocketAddr {
    serve_and_hold(seed, body, versions, Arc::new(Semaphore::new(0))).await
}

/// The same; what waits for news gets none, and `held` has a permit for each.
async fn serve_and_hold(
    seed: [u8; 32],
    body: &'static [u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
    held: Arc<Semaphore>,
) -> SocketAddr {
    let cell = cell_id(&Ed25519Secret::from_seed(&seed).public());
    let der = rustls_pki_types::PrivatePkcs8KeyDer::from(pkcs8(seed));
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.distinguished_name = rcgen::DistinguishedName::new();
    ca.distinguished_name
        .push(DnType::CommonName, cell.to_string());
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, key);
    let leaf_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut leaf = CertificateParams::new(vec![authority(&cell)]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            rustls_pki_types::PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    #[expect(clippy::disallowed_methods, reason = "the other end of the test")]
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            let (acceptor, held) = (acceptor.clone(), Arc::clone(&held));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service =
                    hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                        let waits = request.uri().query() == Some("after=7");
                        let held = Arc::clone(&held);
                        async move {
                            if waits {
                                held.add_permits(1);
                                std::future::pending::<()>().await;
                            }
                            Ok::<_, std::convert::Infallible>(Response::new(
                                http_body_util::Full::new(Bytes::from_static(body)),
                            ))
                        }
                    });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

#[tokio::test]
async fn the_pinned_cell_is_reached_and_every_byte_is_counted() {
    let address = serve([8; 32], b"sealed", &[&rustls::version::TLS13]).await;
    let bench = bench(
        root().public(),
        vec![address.to_string()],
        CellDoor::Network,
    );
    let api = bench.api(Purpose::Restore);
    for _ in 0..3 {
        api.get_object(ACCOUNT, VAULT, ObjectId::of(b"sealed"))
            .await
            .unwrap();
    }
    api.close().await;
    let lines = bench.lines();
    assert_eq!(lines.len(), 1, "kept alive");
    let line = &lines[0];
    assert_eq!(
        (line.protocol.as_str(), line.state.as_str()),
        ("tcp", "closed")
    );
    assert_eq!(line.remote.as_deref(), Some(address.to_string().as_str()));
    assert!(line.local.as_deref().unwrap().starts_with("127.0.0.1:"));
    assert!(line.plain_out > 1000 && line.cipher_out.unwrap() > line.plain_out);
    assert!(line.plain_in > 18 && line.cipher_in.unwrap() > line.plain_in);
    assert!(
        line.retransmitted_segments
            .is_none_or(|segments| segments < 100)
    );
}

#[tokio::test]
async fn a_head_is_waited_for_above_the_counter_that_is_known() {
    let none = cbor::encode(&HeadReply {
        version: API_VERSION,
        head: None,
    });
    let gone = refused(ErrorCode::NotFound, 0);
    let service = Scripted::new(vec![ok(&none), gone]);
    let bench = bench(
        root().public(),
        vec![],
        CellDoor::InProcess(service.clone()),
    );
    let api = bench.api(Purpose::Restore);
    assert_eq!(api.wait_head(ACCOUNT, VAULT, 7).await.unwrap(), None);
    assert_eq!(
        service.asked.lock().unwrap()[0].uri().query(),
        Some("after=7")
    );
    // Else whoever waits would ask an account that is gone for ever.
    let gone = api.wait_head(ACCOUNT, VAULT, 7).await.unwrap_err();
    assert!(gone.is_not_found());
}

#[tokio::test]
async fn a_waiting_request_keeps_no_other_waiting_and_ends_when_it_is_dropped() {
    let held = Arc::new(Semaphore::new(0));
    let versions = [&rustls::version::TLS13];
    let address = serve_and_hold([8; 32], b"sealed", &versions, Arc::clone(&held)).await;
    let bench = bench(
        root().public(),
        vec![address.to_string()],
        CellDoor::Network,
    );
    let api = Arc::new(bench.api(Purpose::Restore));
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let api = Arc::clone(&api);
            tokio::spawn(async move { api.wait_head(ACCOUNT, VAULT, 7).await })
        })
        .collect();
    let _held = held.acquire_many(3).await.unwrap();
    let name = ObjectId::of(b"sealed");
    let read = api.get_object(ACCOUNT, VAULT, name).await;
    assert_eq!(read.unwrap(), "sealed");
    let open = || {
        let lines = bench.lines();
        lines.iter().filter(|line| line.state == "open").count()
    };
    assert_eq!(open(), 4);
    for one in waiting {
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
    }
    let closed = async {
        while open() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(5), closed).await;
    assert!(closed.is_ok(), "its connections end with it");
}

#[tokio::test]
async fn a48_another_root_key_is_refused_before_a_request_leaves() {
    // It has the right name and a certificate of its own making.
    let address = serve([9; 32], b"sealed", &[&rustls::version::TLS13]).await;
    let bench = bench(
        root().public(),
        vec![address.to_string()],
        CellDoor::Network,
    );
    let api = bench.api(Purpose::Restore);
    let refused = api
        .get_object(ACCOUNT, VAULT, ObjectId::of(b"sealed"))
        .await;
    assert!(
        matches!(refused, Err(ApiError::Integrity { .. })),
        "{refused:?}"
    );
    let lines = bench.lines();
    assert_eq!(
        (lines.len(), lines[0].plain_out, lines[0].plain_in),
        (1, 0, 0)
    );
    assert_eq!(lines[0].state, "closed");
}

#[tokio::test]
async fn a48_what_does_not_speak_tls_is_refused() {
    #[expect(clippy::disallowed_methods, reason = "the other end of the test")]
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    });
    let bench = bench(
        root().public(),
        vec![address.to_string()],
        CellDoor::Network,
    );
    let refused = bench
        .api(Purpose::Restore)
        .get_object(ACCOUNT, VAULT, ObjectId::of(b"sealed"))
        .await;
    assert!(
        matches!(refused, Err(ApiError::Integrity { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_told_at_once_and_written_down() {
    #[expect(
        clippy::disallowed_methods,
        reason = "to learn a port where nobody listens"
    )]
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let bench = bench(
        root().public(),
        vec![address.to_string()],
        CellDoor::Network,
    );
    let api = bench.api(Purpose::Restore);
    let lost = api
        .get_object(ACCOUNT, VAULT, ObjectId::of(b"sealed"))
        .await;
    assert!(matches!(
        lost,
        Err(ApiError::Unreachable(TransportError::NotConnected(_)))
    ));
    assert_eq!(bench.lines().len(), 1);
    assert_eq!(endpoint_count(), candor_wire::api::ENDPOINTS.len());
}

/// Every endpoint of the table has a typed call; adding one without the other fails here.
fn endpoint_count() -> usize {
    [
        EndpointId::DescribeCell,
        EndpointId::OpenAccount,
        EndpointId::FindAccount,
        EndpointId::ReadChain,
        EndpointId::AppendChain,
        EndpointId::ReadHead,
        EndpointId::SwapHead,
        EndpointId::PutObject,
        EndpointId::GetObject,
        EndpointId::HasObjects,
        EndpointId::ListObjects,
        EndpointId::ReadLog,
        EndpointId::ReadState,
        EndpointId::ReadErasure,
        EndpointId::ReadRuns,
        EndpointId::OpenLink,
        EndpointId::PutLinkMessage,
        EndpointId::ReadLink,
    ]
    .len()
}

#[tokio::test]
async fn the_servers_own_certificate_is_the_one_that_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let params = candor_server::InitParams {
        region: "home".into(),
        controller: "the tests".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        public_addresses: vec![],
    };
    let path = folder.path().join("cell");
    candor_server::Cell::init(&path, &params).await.unwrap();
    let cell = candor_server::Cell::open(&path).await.unwrap();
    let listening = cell.bind().await.unwrap();
    let pinned = cell.address_card();
    let id = pinned.cell();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(listening.run(async move {
        let _ = stopped.await;
    }));
    let bench = bench(pinned.root, pinned.addresses, CellDoor::Network);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    bench.clock.set(i64::try_from(now.as_millis()).unwrap());
    let api = bench.api(Purpose::List);
    assert_eq!(api.describe_cell().await.unwrap().keyring.cell(), id);
    let unknown = api.read_chain(ACCOUNT, 0).await;
    assert!(matches!(
        unknown,
        Err(ApiError::Refused {
            code: ErrorCode::NotSigned | ErrorCode::NotFound,
            ..
        })
    ));
    api.close().await;
    let _ = stop.send(());
    server.await.unwrap();
}

#[tokio::test]
async fn a52_a_clock_that_is_set_back_does_not_make_an_authority_last_longer() {
    let scripted = Scripted::new(Vec::new());
    let service = Arc::clone(&scripted) as Arc<dyn CellService>;
    let bench = bench(root().public(), Vec::new(), CellDoor::InProcess(service));
    let api = bench.api(Purpose::List);
    let ends = bench.errand(Purpose::List).ends_at();
    bench.clock.set(ends.0);
    assert!(matches!(
        api.read_chain(ACCOUNT, 0).await,
        Err(ApiError::Over)
    ));
    bench.clock.set(NOW_MS);
    assert!(matches!(
        api.read_chain(ACCOUNT, 0).await,
        Err(ApiError::Over)
    ));
    assert_eq!(scripted.asked(), 0);
}

#[test]
fn work_of_low_priority_begins_no_threads_of_the_pool() {
    let here = || std::thread::current().id();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let asked = on_the_runtime(async move { here() });
    assert_ne!(runtime.block_on(asked).unwrap(), here());
    // Giving it up ends it.
    let (begins, begun) = tokio::sync::oneshot::channel();
    let (held, gone) = tokio::sync::oneshot::channel::<()>();
    let endless = on_the_runtime(async move {
        let _held = held;
        begins.send(()).unwrap();
        std::future::pending::<()>().await;
    });
    runtime.block_on(async {
        tokio::select! {
            _ = endless => panic!("it does not end"),
            told = begun => told.unwrap(),
        }
        assert!(gone.await.is_err());
    });
}
