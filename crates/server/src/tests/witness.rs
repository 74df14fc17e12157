//! A witness as the logs of this world meet it: over HTTP, with honest and with lying requests.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use candor_log::checkpoint::{Checkpoint, SignedCheckpoint};
use candor_log::fork::Misbehaviour;
use candor_log::leaf::{Class, Leaf};
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::tile::{Edge, Prover, Resource, TileSource};
use candor_log::tree::{Consistency, Hash, TreeHead};
use candor_log::witness::{ADD_CHECKPOINT_MAX_BYTES, AddCheckpoint, origin_hash};
use candor_wire::sign::Ed25519Secret;
use candor_wire::time::Millis;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::world::START;
use crate::clock::Clock;
use crate::witness::{Witness, WitnessError, WitnessOptions, add_log, vkey_of};

pub(super) struct Stopped(pub(super) Millis);

impl Clock for Stopped {
    fn now(&self) -> Millis {
        self.0
    }
}

/// A witness at an address of this machine.
pub(super) struct Running {
    pub(super) vkey: String,
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Running {
    pub(super) async fn start(directory: &Path, clock: Arc<dyn Clock>) -> Self {
        let options = WitnessOptions {
            clock,
            ..WitnessOptions::default()
        };
        let witness = Witness::open(directory, options).unwrap();
        let vkey = witness.vkey();
        let listening = witness
            .bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .unwrap();
        let address = listening.address();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(listening.run(async {
            let _ = stopped.await;
        }));
        Self {
            vkey,
            address,
            stop: Some(stop),
            serving,
        }
    }

    pub(super) async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        (&mut self.serving).await.unwrap();
    }

    pub(super) fn key(&self) -> VerifierKey {
        VerifierKey::parse(&self.vkey).unwrap()
    }
}

struct Reply {
    status: StatusCode,
    content_type: String,
    body: Bytes,
}

impl Reply {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    #[expect(clippy::disallowed_methods, reason = "this test is the log")]
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let running = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    drop(sender);
    let _ = running.await;
    let content_type = parts.headers.get("content-type");
    Reply {
        status: parts.status,
        content_type: content_type
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default(),
        body,
    }
}

async fn post(address: SocketAddr, body: Vec<u8>) -> Reply {
    let request = Request::post("/add-checkpoint").header("host", "witness");
    send(address, request.body(Full::from(body)).unwrap()).await
}

async fn get(address: SocketAddr, path: &str) -> Reply {
    let request = Request::get(path).header("host", "witness");
    send(address, request.body(Full::default()).unwrap()).await
}

/// A log in memory, of which every size stays provable.
struct TestLog {
    origin: &'static str,
    secret: Ed25519Secret,
    edge: Edge,
    files: RefCell<BTreeMap<Resource, Vec<u8>>>,
}

impl TileSource for TestLog {
    type Error = std::io::Error;

    fn read(&self, resource: &Resource) -> Result<Vec<u8>, std::io::Error> {
        let files = self.files.borrow();
        files
            .get(resource)
            .cloned()
            .ok_or(std::io::ErrorKind::NotFound.into())
    }
}

impl TestLog {
    fn new(origin: &'static str, filling: u8, size: u64) -> Self {
        let mut log = Self {
            origin,
            secret: Ed25519Secret::from_seed(&[9; 32]),
            edge: Edge::empty(),
            files: RefCell::default(),
        };
        for number in 0..size {
            let mut label = [filling; 32];
            label[..8].copy_from_slice(&number.to_be_bytes());
            let leaf = Leaf {
                class: Class::Sealed,
                label,
                commitment: [7; 32],
            };
            let growth = log.edge.append(&[leaf]);
            log.files.borrow_mut().extend(growth.files);
        }
        log
    }

    fn key(&self) -> VerifierKey {
        VerifierKey::new(self.origin, KeyKind::Log, self.secret.public()).unwrap()
    }

    fn head(&self, size: u64) -> TreeHead {
        if size == self.edge.head().size {
            return self.edge.head();
        }
        let root = Prover::new(self, self.edge.head()).root_of(size).unwrap();
        TreeHead { size, root }
    }

    fn checkpoint(&self, size: u64) -> SignedCheckpoint {
        let checkpoint = Checkpoint {
            origin: self.origin.to_owned(),
            head: self.head(size),
        };
        SignedCheckpoint::sign(&checkpoint, &self.key(), &self.secret).unwrap()
    }

    fn request(&self, old_size: u64, size: u64) -> AddCheckpoint {
        AddCheckpoint {
            old_size,
            proof: Prover::new(self, self.head(size))
                .consistency(old_size)
                .unwrap(),
            checkpoint: self.checkpoint(size),
        }
    }
}

const ORIGIN: &str = "log.example/one";

struct Scene {
    directory: tempfile::TempDir,
    log: TestLog,
    running: Running,
}

impl Scene {
    /// A witness that knows one log, and has cosigned its tree of 10.
    async fn new() -> Self {
        let scene = Self::fresh().await;
        let reply = scene.post(&scene.log.request(0, 10)).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        scene
    }

    /// A witness that knows one log, and has cosigned nothing.
    async fn fresh() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = TestLog::new(ORIGIN, 1, 20);
        let home = directory.path().join("witness");
        assert!(add_log(&home, &log.key().to_string()).unwrap().is_new);
        let running = Running::start(&home, Arc::new(Stopped(START))).await;
        Self {
            directory,
            log,
            running,
        }
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("witness")
    }

    fn record(&self) -> PathBuf {
        self.home().join("newest").join(origin_hash(ORIGIN))
    }

    async fn post(&self, request: &AddCheckpoint) -> Reply {
        post(self.running.address, request.to_bytes()).await
    }

    async fn newest(&self) -> Reply {
        let path = format!("/{}/checkpoint", origin_hash(ORIGIN));
        get(self.running.address, &path).await
    }

    /// The request is refused with this status, and the witness remembers exactly what it did before.
    async fn refuses(&self, body: Vec<u8>, status: u16) -> Reply {
        let before = std::fs::read(self.record()).unwrap();
        let reply = post(self.running.address, body).await;
        assert_eq!(reply.status.as_u16(), status, "{}", reply.text());
        assert!(!reply.text().contains('—'), "no signature in a refusal");
        assert_eq!(std::fs::read(self.record()).unwrap(), before);
        assert_eq!(self.newest().await.body, before);
        reply
    }
}

#[tokio::test]
async fn a_checkpoint_that_follows_is_cosigned_and_served() {
    let scene = Scene::fresh().await;
    assert_eq!(scene.newest().await.status, StatusCode::NOT_FOUND);
    for (old_size, size) in [(0, 0), (0, 7), (7, 20), (20, 20)] {
        let request = scene.log.request(old_size, size);
        let reply = scene.post(&request).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        let mut checkpoint = request.checkpoint.clone();
        let known = [scene.running.key()];
        assert_eq!(checkpoint.add_lines(reply.text(), &known), 1);
        let time_s = u64::try_from(START.seconds()).unwrap();
        assert_eq!(checkpoint.cosigned_by(&known[0]), Some(time_s));
        let newest = scene.newest().await;
        assert_eq!(newest.status, StatusCode::OK);
        assert_eq!(newest.body, checkpoint.bytes());
        let mode = std::fs::metadata(scene.record()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn lines_of_others_are_not_kept() {
    let scene = Scene::fresh().await;
    let mut request = scene.log.request(0, 5);
    for number in 0..90 {
        let secret = Ed25519Secret::from_seed(&[number; 32]);
        let name = format!("other.example/{number}");
        let key = VerifierKey::new(&name, KeyKind::Cosigner, secret.public()).unwrap();
        let line = request.checkpoint.cosign(&key, &secret, 5).unwrap();
        assert_eq!(request.checkpoint.add_lines(&line, &[key]), 1);
    }
    assert_eq!(scene.post(&request).await.status, StatusCode::OK);
    let kept = SignedCheckpoint::parse(&scene.newest().await.body).unwrap();
    assert!(kept.is_signed_by(&scene.log.key()).is_ok());
    assert!(kept.cosigned_by(&scene.running.key()).is_some());
    assert_eq!(
        kept.bytes().iter().filter(|byte| **byte == b'\n').count(),
        6
    );
}

#[tokio::test]
async fn b30_a_shrunken_log_is_refused() {
    let scene = Scene::new().await;
    // With the size that was really signed last it is no request at all, with another a conflict.
    let shrunken = AddCheckpoint {
        old_size: 10,
        proof: Consistency { path: Vec::new() },
        checkpoint: scene.log.checkpoint(8),
    };
    scene.refuses(shrunken.to_bytes(), 400).await;
    scene.refuses(scene.log.request(4, 8).to_bytes(), 409).await;
    scene.refuses(scene.log.request(0, 0).to_bytes(), 409).await;
}

#[tokio::test]
async fn b30_a_bad_proof_is_refused() {
    let scene = Scene::new().await;
    let good = scene.log.request(10, 15);
    let mut altered = good.clone();
    altered.proof.path[0].0[0] ^= 1;
    scene.refuses(altered.to_bytes(), 422).await;
    let mut shorter = good.clone();
    shorter.proof.path.pop();
    scene.refuses(shorter.to_bytes(), 422).await;
    let mut longer = good.clone();
    longer.proof.path.push(Hash([0; 32]));
    scene.refuses(longer.to_bytes(), 422).await;
    // A tree that really grew, from another beginning.
    let other = TestLog::new(ORIGIN, 2, 20);
    scene.refuses(other.request(10, 15).to_bytes(), 422).await;
    assert_eq!(scene.post(&good).await.status, StatusCode::OK);
}

#[tokio::test]
async fn b30_a_fork_of_the_same_size_is_refused_and_kept_as_evidence() {
    let scene = Scene::new().await;
    let other = TestLog::new(ORIGIN, 2, 10);
    let forked = AddCheckpoint {
        old_size: 10,
        proof: Consistency { path: Vec::new() },
        checkpoint: other.checkpoint(10),
    };
    scene.refuses(forked.to_bytes(), 422).await;
    let kept = scene.home().join("forks").join(origin_hash(ORIGIN));
    let proof = std::fs::read(&kept).unwrap();
    Misbehaviour::parse(&proof)
        .unwrap()
        .verify(&scene.log.key())
        .unwrap();
    // Only the first one: nobody fills the witness's disk.
    let third = TestLog::new(ORIGIN, 3, 10);
    let third = AddCheckpoint {
        checkpoint: third.checkpoint(10),
        ..forked
    };
    scene.refuses(third.to_bytes(), 422).await;
    assert_eq!(std::fs::read(&kept).unwrap(), proof);
}

#[tokio::test]
async fn b30_an_unknown_log_is_refused() {
    let scene = Scene::new().await;
    let unknown = TestLog::new("log.example/two", 1, 5);
    scene.refuses(unknown.request(0, 5).to_bytes(), 404).await;
    // Added while the witness runs, it is known.
    let added = add_log(&scene.home(), &unknown.key().to_string()).unwrap();
    assert_eq!(
        (added.origin.as_str(), added.is_new),
        ("log.example/two", true)
    );
    assert!(
        !add_log(&scene.home(), &unknown.key().to_string())
            .unwrap()
            .is_new
    );
    let reply = scene.post(&unknown.request(0, 5)).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn b30_a_checkpoint_that_the_log_did_not_sign_is_refused() {
    let scene = Scene::new().await;
    let mut stranger = TestLog::new(ORIGIN, 1, 15);
    stranger.secret = Ed25519Secret::from_seed(&[8; 32]);
    scene
        .refuses(stranger.request(10, 15).to_bytes(), 403)
        .await;
    // A line under the log's name and key whose signature is another's.
    let good = scene.log.request(10, 15).to_bytes();
    let other = String::from_utf8(scene.log.request(10, 16).to_bytes()).unwrap();
    let signature = other.lines().last().unwrap();
    let good = String::from_utf8(good).unwrap();
    let own = good.lines().last().unwrap();
    scene
        .refuses(good.replace(own, signature).into_bytes(), 403)
        .await;
    // A good signature beside it does not help.
    let both = format!("{good}{signature}\n");
    scene.refuses(both.into_bytes(), 403).await;
}

#[tokio::test]
async fn b30_another_old_size_is_answered_with_the_right_one() {
    let scene = Scene::new().await;
    for old_size in [0, 3, 11, 15] {
        let request = scene.log.request(old_size, 15);
        let reply = scene.refuses(request.to_bytes(), 409).await;
        assert_eq!(reply.content_type, "text/x.tlog.size");
        assert_eq!(reply.text(), "10\n");
    }
    let reply = scene.post(&scene.log.request(10, 15)).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test]
async fn b30_what_is_no_request_is_refused() {
    let scene = Scene::new().await;
    let good = scene.log.request(10, 15).to_bytes();
    let text = String::from_utf8(good.clone()).unwrap();
    for body in [
        Vec::new(),
        b"old 10\n".to_vec(),
        good[..good.len() - 1].to_vec(),
        text.replace("old 10", "old 010").into_bytes(),
        text.replace("old 10", "OLD 10").into_bytes(),
        text.replace("old 10", "old -1").into_bytes(),
        [&good[..], b"x"].concat(),
        vec![0xff; 1000],
    ] {
        scene.refuses(body, 400).await;
    }
    for path in [
        "/",
        "/add-checkpoint",
        "/0/checkpoint",
        "/%2e%2e/checkpoint",
    ] {
        let status = get(scene.running.address, path).await.status;
        assert!(status == 404 || status == 405, "{path}: {status}");
    }
    let upper = origin_hash(ORIGIN).to_uppercase();
    let reply = get(scene.running.address, &format!("/{upper}/checkpoint")).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn b30_a_request_that_is_too_long_is_not_read() {
    let scene = Scene::new().await;
    let request = Request::post("/add-checkpoint")
        .header("host", "witness")
        .header("content-length", ADD_CHECKPOINT_MAX_BYTES + 1);
    let reply = send(
        scene.running.address,
        request.body(Full::default()).unwrap(),
    )
    .await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// The race of the specification: many requests at once, each honest when it was made. Whatever their
/// order, the witness never signs a smaller tree after a larger one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn b30_requests_at_once_never_take_the_witness_back() {
    let scene = Scene::new().await;
    let requests = (10..=20).map(|size| scene.log.request(10, size).to_bytes());
    let address = scene.running.address;
    let sent: Vec<_> = requests
        .map(|body| tokio::spawn(async move { post(address, body).await }))
        .collect();
    let mut granted = Vec::new();
    for (size, sent) in (10..=20).zip(sent) {
        let reply = sent.await.unwrap();
        match reply.status.as_u16() {
            200 => granted.push(size),
            409 => {}
            other => panic!("{other}: {}", reply.text()),
        }
    }
    // Of all that grow from 10, exactly one was first; 10 itself may have come before it.
    let grown: Vec<u64> = granted.iter().copied().filter(|size| *size > 10).collect();
    assert_eq!(grown.len(), 1, "{granted:?}");
    let newest = SignedCheckpoint::parse(&scene.newest().await.body).unwrap();
    assert_eq!(newest.head().size, grown[0]);
}

#[tokio::test]
async fn b30_a_record_that_is_damaged_or_gone_is_never_begun_again() {
    let scene = Scene::new().await;
    let good = std::fs::read(scene.record()).unwrap();
    let next = scene.log.request(10, 15);
    let again = scene.log.request(0, 5);
    let foreign = scene.log.checkpoint(10).bytes();
    let mut flipped = good.clone();
    flipped[ORIGIN.len() + 1] ^= 1;
    let cut = good[..good.len() / 2].to_vec();
    for (what, bytes) in [
        ("flipped", Some(flipped)),
        ("cut", Some(cut)),
        ("empty", Some(Vec::new())),
        ("without the cosignature", Some(foreign)),
        ("gone", None),
    ] {
        match &bytes {
            Some(bytes) => std::fs::write(scene.record(), bytes).unwrap(),
            None => std::fs::remove_file(scene.record()).unwrap(),
        }
        for request in [&next, &again] {
            let reply = scene.post(request).await;
            assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{what}");
            assert!(reply.text().contains("the record of this log is"), "{what}");
        }
        assert_eq!(scene.newest().await.status.as_u16(), 500, "{what}");
        assert_eq!(std::fs::read(scene.record()).ok(), bytes, "{what}");
    }
    // Put back, it goes on.
    std::fs::write(scene.record(), good).unwrap();
    assert_eq!(scene.post(&next).await.status, StatusCode::OK);
}

#[tokio::test]
async fn b30_a_witness_remembers_over_restarts() {
    let Scene {
        directory,
        log,
        running,
    } = Scene::new().await;
    let home = directory.path().join("witness");
    let refused = Witness::open(&home, WitnessOptions::default());
    assert!(matches!(refused, Err(WitnessError::InUse { .. })));
    let vkey = running.vkey.clone();
    running.stop().await;
    let running = Running::start(&home, Arc::new(Stopped(START))).await;
    assert_eq!(running.vkey, vkey);
    let scene = Scene {
        directory,
        log,
        running,
    };
    scene
        .refuses(scene.log.request(0, 15).to_bytes(), 409)
        .await;
    assert_eq!(
        scene.post(&scene.log.request(10, 15)).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_witness_without_a_clock_signs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = TestLog::new(ORIGIN, 1, 5);
    add_log(directory.path(), &log.key().to_string()).unwrap();
    for time in [Millis(0), Millis(-1)] {
        let running = Running::start(directory.path(), Arc::new(Stopped(time))).await;
        let reply = post(running.address, log.request(0, 5).to_bytes()).await;
        assert_eq!(reply.status.as_u16(), 500);
        running.stop().await;
    }
}

#[test]
fn a_witness_keeps_its_key_and_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("a/b");
    assert!(matches!(
        vkey_of(&home),
        Err(WitnessError::NoWitness { .. })
    ));
    let open = |name: Option<&str>| {
        let options = WitnessOptions {
            name: name.map(str::to_owned),
            ..WitnessOptions::default()
        };
        Witness::open(&home, options).map(|witness| witness.vkey())
    };
    assert!(matches!(open(Some("a b")), Err(WitnessError::Key(_))));
    let vkey = open(Some("friend.example")).unwrap();
    assert!(vkey.starts_with("friend.example+"));
    assert_eq!(VerifierKey::parse(&vkey).unwrap().kind(), KeyKind::Cosigner);
    assert_eq!(open(None).unwrap(), vkey);
    assert_eq!(vkey_of(&home).unwrap(), vkey);
    let renamed = open(Some("other.example"));
    assert!(matches!(renamed, Err(WitnessError::OtherName { name }) if name == "friend.example"));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    let key = home.join("witness.key");
    assert_eq!(mode(&key), 0o600);
    // A witness that has cosigned is never given a new key in silence.
    std::fs::write(home.join("seen").join(origin_hash(ORIGIN)), "").unwrap();
    let bytes = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    assert!(matches!(open(None), Err(WitnessError::KeyLost { .. })));
    std::fs::write(&key, &bytes[1..]).unwrap();
    assert!(matches!(open(None), Err(WitnessError::DamagedKey { .. })));
    std::fs::write(&key, &bytes).unwrap();
    assert_eq!(open(None).unwrap(), vkey);
}

#[test]
fn only_keys_of_logs_are_witnessed() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    let witness = Ed25519Secret::from_seed(&[4; 32]).public();
    let witness = VerifierKey::new("friend.example", KeyKind::Cosigner, witness).unwrap();
    let add = |text: &str| add_log(home, text);
    assert!(matches!(
        add(&witness.to_string()),
        Err(WitnessError::NotALog)
    ));
    assert!(matches!(add("nonsense"), Err(WitnessError::Key(_))));
    std::fs::write(home.join("logs"), format!("# mine\n\n{witness}\n")).unwrap();
    let refused = Witness::open(home, WitnessOptions::default());
    assert!(matches!(
        refused,
        Err(WitnessError::LogsLine { line: 3, .. })
    ));
    std::fs::write(home.join("logs"), "# mine").unwrap();
    let log = TestLog::new(ORIGIN, 1, 0).key();
    assert!(add(&format!(" {log} ")).unwrap().is_new);
    let text = std::fs::read_to_string(home.join("logs")).unwrap();
    assert_eq!(text, format!("# mine\n{log}\n"));
    let witness = Witness::open(home, WitnessOptions::default()).unwrap();
    let known = witness.logs().unwrap();
    assert_eq!(known.len(), 1);
    assert!(matches!(known[0].size, Ok(None)));
}
