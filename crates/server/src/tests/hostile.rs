//! Strangers and bad neighbours: what they can make the cell do, and what others notice of it.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use candor_wire::api::ErrorCode;
use candor_wire::cell::authority;
use candor_wire::ids::ObjectId;
use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::listening::{connect, stranger, today};
use super::world::{Person, World, error, object};
use crate::log::Log;

const SOON: Duration = Duration::from_secs(10);

async fn listening(change: impl FnOnce(&mut crate::CellConfig)) -> (World, std::net::SocketAddr) {
    let world = today(World::with(change, Log::silent()).await);
    let listening = world.cell.bind().await.unwrap();
    let address = listening.address();
    tokio::spawn(listening.run(core::future::pending()));
    (world, address)
}

/// Everything until the other side closes.
async fn rest_of(mut stream: impl tokio::io::AsyncRead + Unpin) -> Vec<u8> {
    let mut rest = Vec::new();
    let reading = tokio::time::timeout(SOON, stream.read_to_end(&mut rest));
    let _ = reading.await.expect("the connection is closed");
    rest
}

/// A signed request as it goes over the wire.
fn raw(request: &http::Request<Body>, more: &str) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri().path());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    head + more + "\r\n"
}

/// Passes bytes on, and keeps those of the device.
async fn record(device: TcpStream, cell: TcpStream) -> Vec<u8> {
    let (mut from_device, mut to_device) = device.into_split();
    let (mut from_cell, mut to_cell) = cell.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_cell, &mut to_device).await;
    });
    let mut kept = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from_device.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        if to_cell.write_all(&piece[..read]).await.is_err() {
            break;
        }
    }
    let _ = to_cell.shutdown().await;
    let _ = back.await;
    kept
}

/// Whoever is in the middle sends a device's whole connection once more, and each part of it.
#[tokio::test]
async fn a48_nothing_of_a_connection_can_be_replayed() {
    let (world, address) = listening(|_| ()).await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    #[expect(clippy::disallowed_methods, reason = "this test is in the middle")]
    let middle = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = middle.local_addr().unwrap();
    let recording = tokio::spawn(async move {
        let (device, _) = middle.accept().await.unwrap();
        record(device, stranger(address).await.unwrap()).await
    });
    let name = authority(&world.cell.id());
    let put = person.sign(&world, &person.putting(&object(7), &grant));
    let (version, root) = (&rustls::version::TLS13, world.cell.root());
    let mut stream = connect(&world, between, &root, &name, version)
        .await
        .unwrap();
    let head = raw(&put, "content-length: 65536\r\nconnection: close\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&object(7)).await.unwrap();
    let told = rest_of(&mut stream).await;
    assert!(
        told.starts_with(b"HTTP/1.1 204"),
        "{}",
        String::from_utf8_lossy(&told)
    );
    let session = stream.get_ref().1;
    assert_eq!(
        session.tls13_tickets_received(),
        0,
        "nothing to resume with"
    );
    drop(stream);
    let kept = recording.await.unwrap();
    assert!(kept.len() > 65_536);
    let answered = || -> u64 {
        let text = world.cell.shared().metrics.render();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("candor_requests_total"));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    let before = answered();
    for cut in [kept.len(), 2_000, 300] {
        let mut again = stranger(address).await.unwrap();
        let _ = again.write_all(&kept[..cut]).await;
        let _ = again.shutdown().await;
        let said = rest_of(&mut again).await;
        let is_told = said.windows(8).any(|some| some == b"HTTP/1.1");
        assert!(
            !is_told,
            "{} bytes: {}",
            cut,
            String::from_utf8_lossy(&said)
        );
    }
    // Nor without TLS at all.
    let mut plain = stranger(address).await.unwrap();
    plain.write_all(head.as_bytes()).await.unwrap();
    let said = rest_of(&mut plain).await;
    assert!(
        !said.starts_with(b"HTTP/1.1"),
        "{}",
        String::from_utf8_lossy(&said)
    );
    assert_eq!(answered(), before);
}

/// Where one request ends and the next begins has to be beyond doubt: whatever is ambiguous gets one refusal,
/// and the connection ends.
#[tokio::test]
async fn a40_smuggled_requests_are_refused_and_nothing_follows() {
    let (world, address) = listening(|_| ()).await;
    let (name, root) = (authority(&world.cell.id()), world.cell.root());
    let second = "GET /v1/cell HTTP/1.1\r\nhost: x\r\n\r\n";
    let body = second.len();
    let cases = [
        format!(
            "POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-length: {body}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{second}"
        ),
        format!(
            "POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: {body}\r\n\r\n{second}"
        ),
        format!("POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-length: +0\r\n\r\n{second}"),
        format!("POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-length: 0x0\r\n\r\n{second}"),
        format!(
            "POST /v1/accounts HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n{second}"
        ),
        format!(
            "POST /v1/accounts HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n{second}"
        ),
        format!(
            "POST /v1/accounts HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{second}"
        ),
        format!("GET /v1/cell HTTP/1.1\r\nhost : x\r\n\r\n{second}"),
        format!("GET /v1/cell HTTP/1.1\r\nhost: x\0y\r\n\r\n{second}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for case in &cases {
        let version = &rustls::version::TLS13;
        let mut stream = connect(&world, address, &root, &name, version)
            .await
            .unwrap();
        let _ = stream.write_all(case.as_bytes()).await;
        let mut told = Vec::new();
        // A refusal may leave the connection open; then nothing may follow it.
        let reading = stream.read_to_end(&mut told);
        let _ = tokio::time::timeout(Duration::from_millis(500), reading).await;
        let text = String::from_utf8_lossy(&told).into_owned();
        let replies = text.matches("HTTP/1.1 ").count();
        assert!(replies <= 1, "{case:?} {text}");
        assert!(!text.contains("HTTP/1.1 200"), "{case:?} {text}");
    }
}

/// A body of which something comes, and then nothing any more.
struct Stuck(Option<Bytes>);

impl http_body::Body for Stuck {
    type Data = Bytes;
    type Error = core::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(64 * 1024)
    }
}

/// One account uploads as much at once as it can, and slowly. Another one does not notice.
#[tokio::test]
async fn a38_one_account_leaves_the_others_their_places() {
    let world = Arc::new(World::new().await);
    let (mut greedy, mut other) = (world.person().await, world.person().await);
    let (grant, others) = (greedy.consents(&world).await, other.consents(&world).await);
    let uploads = world.cell.config().limits.uploads_max as u8;
    let mut held = Vec::new();
    for n in 0..uploads * 2 {
        let mut request = greedy.sign(&world, &greedy.putting(&object(n), &grant));
        *request.body_mut() = Body::new(Stuck(Some(Bytes::from_static(b"a bit"))));
        let world = Arc::clone(&world);
        held.push(tokio::spawn(async move { world.send(request).await }));
    }
    // All of them are on their way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let put = other.putting(&object(200), &others);
    let stored = tokio::time::timeout(SOON, other.outcome(&world, &put)).await;
    assert_eq!(stored, Ok(None), "there is a place for the other");
    assert!(held.iter().all(|upload| !upload.is_finished()));
    held.iter().for_each(|upload| upload.abort());
}

/// Uploads that are begun and never end hold quota for a day, and then there is nothing of them.
#[tokio::test]
async fn a38_uploads_that_break_off_leave_nothing() {
    const FIT: u8 = 4;
    let quota = u64::from(FIT) * 64 * 1024;
    let world = World::with(|config| config.quota_bytes = quota, Log::silent()).await;
    let world = Arc::new(today(world));
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let records = Arc::clone(&world.cell.shared().records);
    let counted = async || {
        let account = records.account(person.account).await.unwrap().unwrap();
        (account.stored_bytes, account.reserved_bytes)
    };
    let mut begun = Vec::new();
    for n in 0..FIT {
        let mut request = person.sign(&world, &person.putting(&object(n), &grant));
        *request.body_mut() = Body::new(Stuck(Some(Bytes::from_static(b"a bit"))));
        let world = Arc::clone(&world);
        begun.push(tokio::spawn(async move { world.send(request).await }));
    }
    let all = async {
        while counted().await != (0, quota) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, all)
        .await
        .expect("all are begun");
    for upload in begun {
        upload.abort();
        assert!(upload.await.unwrap_err().is_cancelled());
    }
    let put = person.putting(&object(FIT), &grant);
    let sweep = || crate::housekeeping::sweep(world.cell.shared());
    sweep().await;
    assert_eq!(
        person.outcome(&world, &put).await,
        Some(ErrorCode::OverQuota)
    );
    world.advance(candor_store::records::RESERVATION_MAX_MS);
    sweep().await;
    assert_eq!(counted().await, (0, 0));
    assert_eq!(person.outcome(&world, &put).await, None);
    assert_eq!(counted().await, (64 * 1024, 0));
    let objects = &world.cell.shared().objects;
    let there = objects.list(person.account, person.vault, None, 10).await;
    assert_eq!(there.unwrap().len(), 1);
}

/// A device that asks for a lot at once waits for itself, and what was decided meanwhile holds for it.
#[tokio::test]
async fn a38_requests_of_one_device_wait_for_each_other_and_not_for_others() {
    let few = |config: &mut crate::CellConfig| config.limits.requests_per_device_max = 2;
    let world = Arc::new(World::with(few, Log::silent()).await);
    let (mut greedy, other) = (world.person().await, world.person().await);
    let grant = greedy.consents(&world).await;
    let shares = &world.cell.shared().request_shares;
    let taken = [
        shares
            .take((greedy.account, Some(greedy.device)))
            .await
            .unwrap(),
        shares
            .take((greedy.account, Some(greedy.device)))
            .await
            .unwrap(),
    ];
    let ask = |person: &Person| {
        let errand = person.errand(&world, candor_wire::errand::Purpose::List);
        person.sign(
            &world,
            &person.ask(candor_wire::api::EndpointId::ReadChain, errand),
        )
    };
    let (waiting, request) = (Arc::clone(&world), ask(&greedy));
    let waits = tokio::spawn(async move { waiting.send(request).await.0 });
    let answer = tokio::time::timeout(SOON, world.send(ask(&other)))
        .await
        .unwrap();
    assert_eq!(answer.0, StatusCode::OK);
    // A consent is withdrawn while an upload under it waits. (Nobody else waits for the withdrawal.)
    let put = greedy.sign(&world, &greedy.putting(&object(5), &grant));
    let waiting = Arc::clone(&world);
    let late = tokio::spawn(async move { waiting.send(put).await.0 });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waits.is_finished() && !late.is_finished());
    let [first, second] = taken;
    drop(first);
    assert_eq!(waits.await.unwrap(), StatusCode::OK);
    let _ = late.await.unwrap();
    drop(second);
    // The last place again, and this time the withdrawal comes first.
    let holder = (greedy.account, Some(greedy.device));
    let third = shares.take(holder).await.unwrap();
    let fourth = shares.take(holder).await.unwrap();
    let put = greedy.sign(&world, &greedy.putting(&object(6), &grant));
    let waiting = Arc::clone(&world);
    let late = tokio::spawn(async move { waiting.send(put).await.0 });
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.advance(40 * candor_wire::time::DAY_MS);
    drop((third, fourth));
    assert_eq!(
        late.await.unwrap(),
        StatusCode::UNAUTHORIZED,
        "its time is over"
    );
}

/// Steps of an account in a second, so few that they can be counted.
const STEPS_PER_SECOND: u32 = 10;

const STEP: Duration = Duration::from_millis(100);

fn few_steps(config: &mut crate::CellConfig) {
    config.limits.steps_per_second_max = STEPS_PER_SECOND;
}

/// A request that costs nearly nothing.
fn small(world: &World, person: &Person) -> http::Request<Body> {
    let errand = person.errand(world, candor_wire::errand::Purpose::List);
    let asked = person.ask(candor_wire::api::EndpointId::ReadChain, errand);
    person.sign(world, &asked)
}

/// While somebody is there who asks for less, an account gets so many steps in a second; nobody else waits for them.
#[tokio::test]
async fn a38_an_account_goes_step_by_step_and_others_do_not() {
    const STEPS: u32 = 20;
    let world = Arc::new(World::with(few_steps, Log::silent()).await);
    let (greedy, other) = (world.person().await, world.person().await);
    assert_eq!(world.send(small(&world, &other)).await.0, StatusCode::OK);
    let pace = &world.cell.shared().pace;
    pace.spends_extras(greedy.account);
    let began = std::time::Instant::now();
    let all = (0..STEPS).map(|_| {
        let (world, asked) = (Arc::clone(&world), small(&world, &greedy));
        tokio::spawn(async move { world.send(asked).await.0 })
    });
    let all: Vec<_> = all.collect();
    let others = world.send(small(&world, &other)).await.0;
    assert_eq!(others, StatusCode::OK);
    let waiting = all.iter().filter(|one| !one.is_finished()).count();
    assert!(waiting > 1, "only {waiting} wait after somebody else came");
    for one in all {
        assert_eq!(one.await.unwrap(), StatusCode::OK, "nothing is refused");
    }
    let least = STEP * (STEPS - 1);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

/// An object is sent step by step.
#[tokio::test]
async fn a38_an_object_that_is_read_comes_step_by_step() {
    const OBJECT_BYTES: usize = 1024 * 1024;
    /// Pieces of it, of which the first comes with the request.
    const PIECES: u32 = 4;
    let world = World::with(few_steps, Log::silent()).await;
    let (mut greedy, other) = (world.person().await, world.person().await);
    let grant = greedy.consents(&world).await;
    let large = Bytes::from(vec![7; OBJECT_BYTES]);
    let put = greedy.putting(&large, &grant);
    assert_eq!(greedy.outcome(&world, &put).await, None);
    assert_eq!(world.send(small(&world, &other)).await.0, StatusCode::OK);
    let get = greedy.getting(ObjectId::of(&large), &grant);
    let asked = greedy.sign(&world, &get);
    world.cell.shared().pace.spends_extras(greedy.account);
    let began = std::time::Instant::now();
    let reply = world.cell.service().oneshot(asked).await.unwrap();
    let whole = reply.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(whole, large);
    assert!(
        began.elapsed() >= STEP * (PIECES - 1),
        "{:?}",
        began.elapsed()
    );
}

/// While an account has to wait for its steps, one of its uploads at a time has a place; others have theirs.
#[tokio::test]
async fn a38_of_an_account_that_goes_step_by_step_one_upload_has_a_place() {
    let world = Arc::new(World::new().await);
    let (mut greedy, mut other) = (world.person().await, world.person().await);
    let (grant, others) = (greedy.consents(&world).await, other.consents(&world).await);
    let shared = Arc::clone(world.cell.shared());
    let first = shared.paced_uploads.take(greedy.account).await.unwrap();
    shared.pace.spends_extras(greedy.account);
    assert!(shared.pace.try_step(greedy.account) && !shared.pace.try_step(greedy.account));
    let put = greedy.sign(&world, &greedy.putting(&object(1), &grant));
    let waiting = Arc::clone(&world);
    let second = tokio::spawn(async move { waiting.send(put).await.0 });
    let put = other.putting(&object(2), &others);
    assert_eq!(other.outcome(&world, &put).await, None);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!second.is_finished());
    assert_eq!(
        shared.uploads.available_permits(),
        shared.config.limits.uploads_max as usize,
        "whoever waits keeps no place"
    );
    drop(first);
    assert_eq!(second.await.unwrap(), StatusCode::NO_CONTENT);
}

/// A body that comes in pieces.
struct Pieces(Bytes);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = core::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        const PIECE_BYTES: usize = 128 * 1024;
        let length = self.0.len().min(PIECE_BYTES);
        let piece = self.0.split_to(length);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.len() as u64)
    }
}

/// What is refused, or finds no room, is read no faster than anything else.
#[tokio::test]
async fn a38_a_large_body_that_is_refused_goes_step_by_step() {
    const OBJECT_BYTES: usize = 1024 * 1024;
    /// Pieces of it, of which the first comes with the request.
    const PIECES: u32 = 8;
    let little = |config: &mut crate::CellConfig| {
        few_steps(config);
        config.quota_bytes = 1;
    };
    let world = World::with(little, Log::silent()).await;
    let (mut greedy, other) = (world.person().await, world.person().await);
    let grant = greedy.consents(&world).await;
    assert_eq!(world.send(small(&world, &other)).await.0, StatusCode::OK);
    let without_consent = format!("grant {}", "00".repeat(32));
    for (authority, expected) in [
        (without_consent, StatusCode::FORBIDDEN),
        (grant, StatusCode::INSUFFICIENT_STORAGE),
    ] {
        let large = Bytes::from(vec![7; OBJECT_BYTES]);
        let mut request = greedy.sign(&world, &greedy.putting(&large, &authority));
        *request.body_mut() = Body::new(Pieces(large));
        world.cell.shared().pace.spends_extras(greedy.account);
        let began = std::time::Instant::now();
        let (status, body) = world.send(request).await;
        assert_eq!(status, expected, "{:?}", error(&body));
        let least = STEP * (PIECES - 1);
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a40_one_address_has_so_many_connections_and_no_more() {
    let few = |config: &mut crate::CellConfig| config.limits.connections_per_address_max = 3;
    let (world, address) = listening(few).await;
    let (name, root) = (authority(&world.cell.id()), world.cell.root());
    let version = &rustls::version::TLS13;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(
            connect(&world, address, &root, &name, version)
                .await
                .unwrap(),
        );
    }
    let refused = connect(&world, address, &root, &name, version).await;
    assert!(refused.is_err(), "one too many");
    held.pop();
    let mut tries = 0;
    // The cell notices a moment later that one is gone.
    while connect(&world, address, &root, &name, version)
        .await
        .is_err()
    {
        tries += 1;
        assert!(tries < 100, "a place is never free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Resident memory of this process, in bytes: each test has one of its own.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Slow and oversize requests, by the hundred and again and again: memory stays flat, and somebody else is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a40_memory_stays_flat_under_slow_and_oversize_requests() {
    const AT_ONCE: usize = 100;
    const MIB: usize = 1024 * 1024;
    let many = |config: &mut crate::CellConfig| {
        config.limits.connections_per_address_max = 2 * AT_ONCE as u32;
        config.limits.header_timeout_seconds = 2;
        config.limits.stall_timeout_seconds = 2;
    };
    let (world, address) = listening(many).await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let (name, root) = (authority(&world.cell.id()), world.cell.root());
    let version = &rustls::version::TLS13;
    let highest = Mutex::new(Vec::new());
    for round in 0..4_u8 {
        let mut held = Vec::new();
        for n in 0..AT_ONCE {
            let mut stream = connect(&world, address, &root, &name, version)
                .await
                .unwrap();
            let head = match n % 4 {
                // Headers that do not end.
                0 => format!("GET /v1/cell HTTP/1.1\r\nx: {}", "y".repeat(15_000)),
                // More of them than allowed.
                1 => format!(
                    "GET /v1/cell HTTP/1.1\r\nx: {}\r\n\r\n",
                    "y".repeat(200_000)
                ),
                // A body that is too long, of which a MiB is sent.
                2 => {
                    "POST /v1/accounts HTTP/1.1\r\ncontent-length: 1000000000\r\n\r\n".to_owned()
                        + &"z".repeat(MIB)
                }
                // One without an end, in pieces.
                _ => {
                    "POST /v1/accounts HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
                        + "400\r\n"
                        + &"z".repeat(1_000)
                }
            };
            let sending = stream.write_all(head.as_bytes());
            let _ = tokio::time::timeout(Duration::from_millis(200), sending).await;
            held.push(stream);
        }
        let sent = object(round);
        let put = person.putting(&sent, &grant);
        let stored = tokio::time::timeout(SOON, person.outcome(&world, &put)).await;
        assert_eq!(stored, Ok(None), "round {round}");
        let get = person.getting(ObjectId::of(&sent), &grant);
        assert_eq!(person.outcome(&world, &get).await, None);
        highest.lock().unwrap().push(resident());
        drop(held);
    }
    let highest = highest.into_inner().unwrap();
    let (first, last) = (highest[0], highest[highest.len() - 1]);
    assert!(last < first + 24 * MIB, "it grows: {highest:?}");
    assert!(last < 300 * MIB, "{highest:?}");
}
