//! A cell and its witnesses: what becomes of a checkpoint when some of them are gone, and of a signer
//! that lost its memory.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use candor_log::checkpoint::{Checkpoint, SignedCheckpoint};
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::policy::{Policy, Standing};
use candor_log::tree::{Hash, TreeHead};
use candor_wire::cell::log_origin;
use candor_wire::sign::Ed25519Secret;

use super::witness::Running;
use super::world::World;
use crate::transparency::LogFault;
use crate::transparency::signer::SignerError;
use crate::witness::add_log;

/// How long the cell may take to publish what it is waited for.
const WAIT_MAX: Duration = Duration::from_secs(30);

fn log_key(world: &World) -> VerifierKey {
    let keys = world.cell.keys();
    VerifierKey::new(&log_origin(&keys.cell), KeyKind::Log, keys.log.unwrap()).unwrap()
}

/// Three friends with a witness each, and the cell that they witness.
struct Friends {
    world: World,
    folders: tempfile::TempDir,
    witnesses: Vec<Option<Running>>,
    policy: Policy,
}

impl Friends {
    async fn new() -> Self {
        let world = World::new().await;
        let folders = tempfile::tempdir().unwrap();
        let log = log_key(&world);
        let mut witnesses = Vec::new();
        let mut policy = format!("log {log}\n");
        for number in 0..3 {
            let folder = folders.path().join(number.to_string());
            add_log(&folder, &log.to_string()).unwrap();
            let running = Running::start(&folder, world.clock.clone()).await;
            policy += &format!("witness w{number} {}\n", running.vkey);
            witnesses.push(Some(running));
        }
        policy += "group friends 2 w0 w1 w2\nquorum friends\n";
        let lines: Vec<String> = witnesses
            .iter()
            .flatten()
            .map(|witness| format!("\"{} http://{}\"", witness.vkey, witness.address))
            .collect();
        let settings = world.directory.path().join("cell.toml");
        let text = std::fs::read_to_string(&settings).unwrap();
        let text = format!("{text}\n[log]\nwitnesses = [{}]\n", lines.join(", "));
        std::fs::write(&settings, text).unwrap();
        Self {
            world: world.restarted().await,
            folders,
            witnesses,
            policy: Policy::parse(policy.as_bytes()).unwrap(),
        }
    }

    /// One friend's machine is switched off.
    async fn lose(&mut self, number: usize) {
        self.witnesses[number].take().unwrap().stop().await;
    }

    fn published_file(&self) -> PathBuf {
        self.world.directory.path().join("store/log/checkpoint")
    }

    fn published(&self) -> SignedCheckpoint {
        SignedCheckpoint::parse(&std::fs::read(self.published_file()).unwrap()).unwrap()
    }

    /// The checkpoint, once it is as wanted.
    async fn published_when(
        &self,
        is_wanted: impl Fn(&SignedCheckpoint) -> bool,
    ) -> SignedCheckpoint {
        let waiting = async {
            loop {
                let published = self.published();
                if is_wanted(&published) {
                    return published;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(WAIT_MAX, waiting).await {
            Ok(published) => published,
            Err(_) => panic!("it was never published; there is {:?}", self.published()),
        }
    }

    /// The checkpoint of a tree that has grown by somebody's account.
    async fn grown(&self) -> SignedCheckpoint {
        let before = self.published().head().size;
        self.world.person().await;
        self.published_when(|now| now.head().size > before).await
    }

    fn names(&self, checkpoint: &SignedCheckpoint) -> Vec<String> {
        match self.policy.standing(checkpoint) {
            Standing::Witnessed { witnesses, .. } => witnesses,
            Standing::Unwitnessed { have } => have,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_witnesses_are_enough_and_one_is_not() {
    let mut friends = Friends::new().await;
    let all = |checkpoint: &SignedCheckpoint| friends.names(checkpoint).len() == 3;
    friends.published_when(all).await;
    let three = friends.grown().await;
    assert_eq!(friends.names(&three), ["w0", "w1", "w2"]);
    assert!(matches!(
        friends.policy.check(&three).unwrap(),
        Standing::Witnessed { .. }
    ));
    friends.lose(1).await;
    let two = friends.grown().await;
    assert_eq!(friends.names(&two), ["w0", "w2"]);
    assert!(matches!(
        friends.policy.check(&two).unwrap(),
        Standing::Witnessed { .. }
    ));
    friends.lose(0).await;
    let one = friends.grown().await;
    assert_eq!(friends.names(&one), ["w2"]);
    assert!(matches!(
        friends.policy.standing(&one),
        Standing::Unwitnessed { .. }
    ));
    assert!(friends.policy.check(&one).is_err());
}

/// Witnesses are asked again after a while. Whoever is silent then takes nothing away from what they
/// and the others said before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cosignature_stays_when_its_witness_goes() {
    let mut friends = Friends::new().await;
    let all = |checkpoint: &SignedCheckpoint| friends.names(checkpoint).len() == 3;
    let before = friends.published_when(all).await;
    friends.lose(0).await;
    friends.lose(1).await;
    friends.world.advance(700_000);
    let key = friends.witnesses[2].as_ref().unwrap().key();
    let again = friends
        .published_when(|now| now.cosigned_by(&key) > before.cosigned_by(&key))
        .await;
    if again.head() == before.head() {
        assert_eq!(friends.names(&again), ["w0", "w1", "w2"]);
    }
}

async fn without_memory(friends: Friends, lost: &[usize]) -> Friends {
    let memory = friends.world.directory.path().join("keys/log-signer");
    let Friends {
        world,
        folders,
        mut witnesses,
        policy,
    } = friends;
    for number in lost {
        witnesses[*number].take().unwrap().stop().await;
    }
    let world = world
        .restarted_after(|| std::fs::remove_file(&memory).unwrap())
        .await;
    Friends {
        world,
        folders,
        witnesses,
        policy,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b22_a_signer_without_memory_recovers_from_a_quorum_of_witnesses() {
    let friends = Friends::new().await;
    friends.grown().await;
    let all = |checkpoint: &SignedCheckpoint| friends.names(checkpoint).len() == 3;
    friends.published_when(all).await;
    let friends = without_memory(friends, &[2]).await;
    let after = friends.grown().await;
    assert_eq!(friends.names(&after), ["w0", "w1"]);
    let memory = friends.world.directory.path().join("keys/log-signer");
    assert!(memory.exists());
    drop(friends.folders);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b22_a_signer_without_memory_and_without_a_quorum_signs_nothing() {
    let friends = Friends::new().await;
    let all = |checkpoint: &SignedCheckpoint| friends.names(checkpoint).len() == 3;
    friends.published_when(all).await;
    let before = friends.published();
    let friends = without_memory(friends, &[1, 2]).await;
    friends.world.person().await;
    let fault = friends.world.cell.shared().transparency.step().await;
    assert!(matches!(fault, Err(LogFault::Signer(SignerError::Missing))));
    let memory = friends.world.directory.path().join("keys/log-signer");
    assert!(!memory.exists());
    assert_eq!(friends.published().head(), before.head());
}

/// Something that stands in for a witness: it answers each request as it is told to.
struct Impostor {
    address: std::net::SocketAddr,
    asked: Arc<AtomicUsize>,
}

/// What it answers to `add-checkpoint`, and what it shows as its newest checkpoint.
struct Answers {
    status: &'static str,
    body: Vec<u8>,
    newest: Option<Vec<u8>>,
}

impl Impostor {
    fn start(answers: Arc<Mutex<Answers>>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "this test is the witness")]
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let request = request_from(&mut stream);
                let answers = answers.lock().unwrap();
                let (status, body) = if request.starts_with("POST") {
                    counted.fetch_add(1, Ordering::SeqCst);
                    (answers.status, answers.body.clone())
                } else {
                    let newest = answers.newest.clone();
                    newest.map_or(("404 Not Found", Vec::new()), |shown| ("200 OK", shown))
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
        });
        Self { address, asked }
    }
}

/// A whole request: head and body.
fn request_from(stream: &mut std::net::TcpStream) -> String {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                break;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(read) => request.extend_from_slice(&piece[..read]),
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

/// A cell with one good witness and one that answers what a test wants.
struct Beset {
    world: World,
    good: Running,
    _folder: tempfile::TempDir,
    impostor: Impostor,
    answers: Arc<Mutex<Answers>>,
    secret: Ed25519Secret,
    key: VerifierKey,
}

impl Beset {
    async fn new() -> Self {
        let world = World::new().await;
        let folder = tempfile::tempdir().unwrap();
        add_log(folder.path(), &log_key(&world).to_string()).unwrap();
        let good = Running::start(folder.path(), world.clock.clone()).await;
        let answers = Arc::new(Mutex::new(Answers {
            status: "404 Not Found",
            body: Vec::new(),
            newest: None,
        }));
        let impostor = Impostor::start(Arc::clone(&answers));
        let secret = Ed25519Secret::from_seed(&[9; 32]);
        let key = VerifierKey::new("impostor/w", KeyKind::Cosigner, secret.public()).unwrap();
        Self {
            world,
            good,
            _folder: folder,
            impostor,
            answers,
            secret,
            key,
        }
    }

    /// The cell learns of its witnesses when it starts, and has grown by somebody's account.
    async fn started(self) -> Self {
        let settings = self.world.directory.path().join("cell.toml");
        let text = std::fs::read_to_string(&settings).unwrap();
        let text = format!(
            "{text}\n[log]\nwitnesses = [\"{} http://{}\", \"{} http://{}\"]\n",
            self.key, self.impostor.address, self.good.vkey, self.good.address
        );
        let world = self
            .world
            .restarted_after(|| std::fs::write(&settings, text).unwrap())
            .await;
        world.person().await;
        Self { world, ..self }
    }

    fn answer(&self, status: &'static str, body: &str, newest: Option<Vec<u8>>) {
        let body = body.as_bytes().to_vec();
        *self.answers.lock().unwrap() = Answers {
            status,
            body,
            newest,
        };
    }

    /// A checkpoint that the impostor cosigned, signed by `log`.
    fn seen(&self, size: u64, log: &Ed25519Secret) -> Vec<u8> {
        let name = log_origin(&self.world.cell.id());
        let key = VerifierKey::new(&name, KeyKind::Log, log.public()).unwrap();
        let checkpoint = Checkpoint {
            origin: name,
            head: TreeHead {
                size,
                root: Hash([7; 32]),
            },
        };
        let mut signed = SignedCheckpoint::sign(&checkpoint, &key, log).unwrap();
        let time_s = u64::try_from(self.world.now().seconds()).unwrap();
        let line = signed.cosign(&self.key, &self.secret, time_s).unwrap();
        assert_eq!(signed.add_lines(&line, std::slice::from_ref(&self.key)), 1);
        signed.bytes()
    }

    async fn step(&self) -> Result<bool, LogFault> {
        self.world.cell.shared().transparency.step().await
    }

    fn published(&self) -> SignedCheckpoint {
        let path = self.world.directory.path().join("store/log/checkpoint");
        SignedCheckpoint::parse(&std::fs::read(path).unwrap()).unwrap()
    }
}

/// What a witness refuses with is unsigned: nobody on the way can stop a cell from publishing with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_nothing_proves_does_not_stop_publication() {
    let huge = format!("{}\n", u64::MAX);
    for (status, body) in [
        ("409 Conflict", huge.as_str()),
        ("422 Unprocessable Entity", ""),
    ] {
        for signed in [false, true] {
            let beset = Beset::new().await;
            // A checkpoint proves something only if the log's own key signed it.
            let other = Ed25519Secret::from_seed(&[1; 32]);
            let newest = signed.then(|| beset.seen(1 << 40, &other));
            beset.answer(status, body, newest);
            let beset = beset.started().await;
            beset.step().await.unwrap();
            let published = beset.published();
            assert!(published.head().size > 0, "{status}");
            assert!(published.cosigned_by(&beset.good.key()).is_some());
            assert_eq!(published.cosigned_by(&beset.key), None);
        }
    }
}

/// A checkpoint that the log's own key signed is proof: this cell was put back, and signs no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b22_a_checkpoint_that_contradicts_this_log_stops_publication() {
    let huge = format!("{}\n", u64::MAX);
    for (status, body, size) in [
        ("409 Conflict", huge.as_str(), 1 << 40),
        ("422 Unprocessable Entity", "", 1 << 40),
        ("422 Unprocessable Entity", "", 1),
    ] {
        let beset = Beset::new().await;
        let own = beset.world.cell.shared().keys.log.secret();
        beset.answer(status, body, Some(beset.seen(size, &own)));
        let beset = beset.started().await;
        let before = beset.published().head();
        for _ in 0..2 {
            let refused = beset.step().await.unwrap_err();
            let is_named = match refused {
                LogFault::Signer(SignerError::Behind { signed, .. }) => signed == size,
                LogFault::Signer(SignerError::Fork) => size == 1,
                _ => false,
            };
            assert!(is_named, "{status} {size}: {refused:?}");
        }
        assert_eq!(beset.published().head(), before);
    }
}

/// One that answers well and says nothing rests like one that is silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_that_agrees_and_does_not_sign_is_left_alone_for_a_while() {
    let beset = Beset::new().await;
    beset.answer("200 OK", "", None);
    let beset = beset.started().await;
    beset.step().await.unwrap();
    let asked = beset.impostor.asked.load(Ordering::SeqCst);
    assert!(asked >= 1);
    for _ in 0..5 {
        beset.step().await.unwrap();
    }
    assert_eq!(beset.impostor.asked.load(Ordering::SeqCst), asked);
    assert!(beset.published().cosigned_by(&beset.good.key()).is_some());
}
