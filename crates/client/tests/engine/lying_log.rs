//! What a cell can do that holds the keys of its log: another history, other witnesses, other answers.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use candor_client::commands::{Failure, FailureKind};
use candor_client::{KeyStore, SystemEntropy, account};
use candor_log::checkpoint::{Checkpoint, SignedCheckpoint};
use candor_log::leaf::Leaf;
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::tile::{Edge, TILE_WIDTH, bundle_at, decode_bundle};
use candor_wire::api::{API_VERSION, ErrorCode, ErrorReply};
use candor_wire::cbor;
use candor_wire::sign::Ed25519Secret;
use candor_wire::statement::Kind;
use http::{Request, Response};

use crate::world::{Person, World};

/// The files of a log that somebody with the cell's log key made.
#[derive(Clone)]
pub(crate) struct Forged {
    pub(crate) checkpoint: SignedCheckpoint,
    files: Arc<HashMap<String, Vec<u8>>>,
}

impl Forged {
    /// A log with exactly these entries.
    pub(crate) fn of(world: &World, leaves: &[Leaf]) -> Self {
        let growth = Edge::empty().append(leaves);
        let key = world.log_key();
        let checkpoint = Checkpoint {
            origin: key.name().to_owned(),
            head: growth.head,
        };
        let secret = world.secret_of_the_cell("log.key");
        let checkpoint = SignedCheckpoint::sign(&checkpoint, &key, &secret).unwrap();
        let files = growth
            .files
            .into_iter()
            .map(|(resource, bytes)| (resource.path(), bytes));
        let mut files: HashMap<String, Vec<u8>> = files.collect();
        files.insert("checkpoint".to_owned(), checkpoint.bytes());
        Self {
            checkpoint,
            files: Arc::new(files),
        }
    }

    /// From now on devices see this log.
    pub(crate) fn serve(&self, world: &World) {
        let files = Arc::clone(&self.files);
        world.wire.answer(move |request| {
            let name = request.uri().path().strip_prefix("/log/")?;
            Some(Ok(match files.get(name) {
                Some(bytes) => reply(200, bytes.clone()),
                None => refusal(ErrorCode::NotFound),
            }))
        });
    }
}

pub(crate) fn reply(status: u16, body: Vec<u8>) -> Response<Bytes> {
    let reply = Response::builder().status(status);
    reply.body(Bytes::from(body)).unwrap()
}

pub(crate) fn refusal(code: ErrorCode) -> Response<Bytes> {
    let refusal = ErrorReply {
        version: API_VERSION,
        code,
        time: candor_wire::Millis(0),
        used_bytes: None,
        quota_bytes: None,
    };
    reply(code.status(), cbor::encode(&refusal))
}

/// The newest real checkpoint.
pub(crate) fn real_checkpoint(world: &World) -> SignedCheckpoint {
    SignedCheckpoint::parse(&world.log_file("checkpoint").unwrap()).unwrap()
}

/// Every entry of the real log.
pub(crate) fn real_leaves(world: &World) -> Vec<Leaf> {
    let size = real_checkpoint(world).head().size;
    let mut leaves = Vec::new();
    for index in 0..size.div_ceil(TILE_WIDTH) {
        let bundle = bundle_at(index, size).unwrap();
        let bytes = world.log_file(&bundle.path()).unwrap();
        leaves.extend(decode_bundle(&bytes, bundle.width).unwrap());
    }
    leaves
}

/// A leaf of nobody.
pub(crate) fn padding(seed: u8) -> Leaf {
    Leaf::padding(&[seed; 64])
}

/// Three friends who witness, and the policy that asks for two of them.
pub(crate) struct Friends(Vec<(VerifierKey, Ed25519Secret)>);

impl Friends {
    pub(crate) fn new() -> Self {
        let friends = ["ann", "bob", "cyd"].iter().enumerate().map(|(n, name)| {
            let secret = Ed25519Secret::from_seed(&[40 + u8::try_from(n).unwrap(); 32]);
            let name = format!("{name}.example/w");
            let key = VerifierKey::new(&name, KeyKind::Cosigner, secret.public()).unwrap();
            (key, secret)
        });
        Self(friends.collect())
    }

    /// Puts the policy into a home.
    pub(crate) fn ask_two_of_three(&self, world: &World, home: &str) {
        let mut policy = format!("log {}\n", world.log_key());
        for (n, (key, _)) in self.0.iter().enumerate() {
            policy.push_str(&format!("witness friend-{n} {key}\n"));
        }
        policy.push_str("group friends 2 friend-0 friend-1 friend-2\nquorum friends\n");
        std::fs::write(world.path(home).join("log-policy"), policy).unwrap();
    }

    /// A checkpoint with the words of the first `count` friends.
    pub(crate) fn vouch(&self, bytes: &[u8], count: usize, time_s: u64) -> Vec<u8> {
        let mut checkpoint = SignedCheckpoint::parse(bytes).unwrap();
        for (key, secret) in self.0.iter().take(count) {
            let line = checkpoint.cosign(key, secret, time_s).unwrap();
            assert_eq!(checkpoint.add_lines(&line, std::slice::from_ref(key)), 1);
        }
        checkpoint.bytes()
    }

    /// From now on every checkpoint that passes has them.
    pub(crate) fn vouch_on_the_wire(self: &Arc<Self>, world: &World, count: usize, time_s: u64) {
        let friends = Arc::clone(self);
        world.wire.twist(move |request, passed| {
            if is_checkpoint(request) && passed.status() == 200 {
                reply(200, friends.vouch(passed.body(), count, time_s))
            } else {
                passed
            }
        });
    }
}

pub(crate) fn is_checkpoint(request: &Request<Bytes>) -> bool {
    request.uri().path() == "/log/checkpoint"
}

pub(crate) fn is_state(request: &Request<Bytes>) -> bool {
    request.method() == "GET" && request.uri().path().ends_with("/state")
}

pub(crate) fn now_s(world: &World) -> u64 {
    use candor_client::clock::Clock as _;
    u64::try_from(world.clock.now().seconds()).unwrap()
}

/// The files of evidence in a home.
pub(crate) fn evidence(person: &Person) -> BTreeSet<PathBuf> {
    let folder = person.engine.home().join("evidence");
    std::fs::read_dir(folder).map_or_else(
        |_| BTreeSet::new(),
        |entries| entries.map(|entry| entry.unwrap().path()).collect(),
    )
}

/// What a device remembers, byte for byte.
pub(crate) fn memory_of(person: &Person) -> Vec<u8> {
    std::fs::read(person.engine.home().join("memory")).unwrap()
}

/// The label of the number `n` of a kind, which only the account's devices can compute.
pub(crate) fn label_of(home: &std::path::Path, kind: Kind, n: u64) -> [u8; 32] {
    let keys = KeyStore::open(&home.join("keys"), None, Arc::new(SystemEntropy)).unwrap();
    let label = account::label(&keys, kind, n).unwrap();
    *label.as_bytes()
}

pub(crate) fn place_of(leaves: &[Leaf], label: [u8; 32]) -> usize {
    leaves.iter().position(|leaf| leaf.label == label).unwrap()
}

/// An account with a consent whose log nobody looked through yet, and the real log with that consent.
pub(crate) fn consented(world: &World) -> (Person, Vec<Leaf>) {
    let (person, _) = world.create("home");
    person.add(&world.tree("docs"));
    person.consent();
    let label = label_of(person.engine.home(), Kind::ConsentGiven, 0);
    loop {
        let leaves = real_leaves(world);
        let is_there = leaves.iter().any(|leaf| leaf.label == label);
        // The map's entry of the batch comes after the statements.
        if is_there && leaves.last().unwrap().state_map_version().is_some() {
            return (person, leaves);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

pub(crate) fn assert_alarmed(person: &Person, failure: &Failure, words: &str) {
    assert_eq!(failure.kind, FailureKind::Integrity, "{failure:?}");
    assert!(failure.sentence.contains(words), "{}", failure.sentence);
    let alarms = person.alarms();
    assert!(
        alarms.iter().any(|alarm| alarm.contains(words)),
        "{alarms:?}"
    );
    let status = person.status();
    assert!(
        status
            .warnings
            .iter()
            .any(|one| one.contains("ALARM") && one.contains(words)),
        "{:?}",
        status.warnings
    );
}
