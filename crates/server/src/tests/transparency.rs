//! The transparency log as a stranger and as a device see it, over restarts, races and rolled-back
//! databases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candor_log::checkpoint::SignedCheckpoint;
use candor_log::leaf::{Class, Leaf};
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::state_map::{
    AccountState, MapProof, MapRoot, StateMap, StateSecret, decode_inputs, inputs_path,
};
use candor_log::tile::{Edge, Prover, Resource, TileSource, bundle_at};
use candor_log::tree::TreeHead;
use candor_wire::api::{API_VERSION, AppendChain, EndpointId, StateReply};
use candor_wire::cell::log_origin;
use candor_wire::chain::{AccountView, Record};
use candor_wire::errand::Purpose;
use http::StatusCode;

use super::world::{Ask, Person, World, decoded};
use crate::log::Log;

/// The published files, as any web server would serve them.
pub(super) struct Files(pub(super) PathBuf);

impl TileSource for Files {
    type Error = std::io::Error;

    fn read(&self, resource: &Resource) -> Result<Vec<u8>, std::io::Error> {
        std::fs::read(self.0.join(resource.path()))
    }
}

pub(super) fn files(world: &World) -> Files {
    Files(world.directory.path().join("store/log"))
}

fn log_key(world: &World) -> VerifierKey {
    let keys = world.cell.keys();
    VerifierKey::new(&log_origin(&keys.cell), KeyKind::Log, keys.log.unwrap()).unwrap()
}

/// The checkpoint over HTTP, which must be the one in the file.
async fn checkpoint(world: &World) -> SignedCheckpoint {
    let (status, body) = get(world, "/log/checkpoint").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        std::fs::read(files(world).0.join("checkpoint")).unwrap(),
        body
    );
    let checkpoint = SignedCheckpoint::parse(&body).unwrap();
    checkpoint.is_signed_by(&log_key(world)).unwrap();
    checkpoint
}

/// The published checkpoint, signed by the log that the cell has now.
pub(super) async fn published(world: &World) -> SignedCheckpoint {
    let keys = world.cell.keys();
    let key = VerifierKey::new(&keys.log_origin(), KeyKind::Log, keys.log.unwrap()).unwrap();
    let (_, body) = get(world, "/log/checkpoint").await;
    let checkpoint = SignedCheckpoint::parse(&body).unwrap();
    checkpoint.is_signed_by(&key).unwrap();
    checkpoint
}

async fn get(world: &World, path: &str) -> (StatusCode, bytes::Bytes) {
    let request = http::Request::get(path)
        .header("content-length", "0")
        .body(axum::body::Body::empty());
    world.send(request.unwrap()).await
}

pub(super) async fn step(world: &World) {
    world.cell.shared().transparency.step().await.unwrap();
}

/// Every entry, each bundle checked against the tiles and they against the checkpoint.
pub(super) fn entries(files: &Files, head: TreeHead) -> Vec<Leaf> {
    let prover = Prover::new(files, head);
    let bundles = (0..).map_while(|index| bundle_at(index, head.size));
    bundles
        .flat_map(|bundle| prover.leaves(&bundle).unwrap())
        .collect()
}

/// Rebuilds the state map from its published inputs, and compares each version's root with its entry.
fn rebuilt_map(files: &Files, leaves: &[Leaf]) -> (u64, StateMap) {
    let mut map = StateMap::new();
    let mut version = 0;
    for leaf in leaves.iter().filter(|leaf| leaf.class == Class::StateMap) {
        version += 1;
        assert_eq!(leaf.state_map_version(), Some(version));
        let inputs = std::fs::read(files.0.join(inputs_path(version))).unwrap();
        map = map.with(&decode_inputs(&inputs).unwrap());
        assert_eq!(map.root().0, leaf.commitment);
    }
    (version, map)
}

pub(super) fn leaf_of(record: &Record) -> [u8; 66] {
    let parsed = record.statement.as_ref().unwrap().parse().unwrap();
    Leaf::statement(&parsed.entry.label, &parsed.id).encode()
}

fn statements_of(person: &Person) -> Vec<[u8; 66]> {
    person.records.iter().map(leaf_of).collect()
}

pub(super) async fn state(world: &World, person: &Person) -> StateReply {
    let mut ask: Ask = person.ask(EndpointId::ReadState, person.errand(world, Purpose::Verify));
    ask.body = bytes::Bytes::new();
    let (status, body) = world.send(person.sign(world, &ask)).await;
    assert_eq!(status, StatusCode::OK);
    decoded(&body)
}

/// The state in a reply, which its proof shows to be in the map whose root is an entry.
fn proven_state(
    reply: &StateReply,
    leaves: &[Leaf],
    person: &Person,
) -> (AccountState, StateSecret) {
    let root = leaves[usize::try_from(reply.index).unwrap()];
    assert_eq!(root.state_map_version(), Some(reply.map_version));
    let genesis = person.records[0].statement.as_ref().unwrap();
    let secret = StateSecret::of(&genesis.salt, &person.account);
    let state = AccountState::from_bytes(reply.state.as_ref().unwrap()).unwrap();
    let proof = MapProof::from_bytes(&reply.proof).unwrap();
    let value = proof.verify(&MapRoot(root.commitment), &secret.key());
    assert_eq!(value.unwrap(), Some(secret.value(&state)));
    (state, secret)
}

/// Asks the cell to take back what it lost after `before`.
pub(super) async fn bring_back(
    world: &World,
    person: &Person,
    before: &[Record],
    records: Vec<Record>,
) -> StatusCode {
    let keyring = &world.cell.shared().keyring;
    let body = AppendChain {
        version: API_VERSION,
        after: AccountView::of(person.account, before, keyring)
            .unwrap()
            .tip(),
        records,
    };
    let errand = person.errand(world, Purpose::ReAnchor);
    let mut ask = person.ask(EndpointId::AppendChain, errand);
    ask.body = candor_wire::cbor::encode(&body).into();
    person.call(world, &ask).await.0
}

#[tokio::test]
async fn an_empty_log_has_a_checkpoint() {
    let world = World::new().await;
    step(&world).await;
    assert_eq!(checkpoint(&world).await.head(), TreeHead::empty());
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_log_and_in_the_map() {
    let world = World::new().await;
    let (alice, bob) = (world.person().await, world.person().await);
    step(&world).await;
    let head = checkpoint(&world).await.head();
    let leaves = entries(&files(&world), head);
    let encoded: Vec<[u8; 66]> = leaves.iter().map(Leaf::encode).collect();
    for statement in statements_of(&alice).iter().chain(&statements_of(&bob)) {
        assert_eq!(encoded.iter().filter(|leaf| *leaf == statement).count(), 1);
    }
    // Both accounts' states are in the map, and the owner gets the proof.
    let (version, map) = rebuilt_map(&files(&world), &leaves);
    for person in [&alice, &bob] {
        let reply = state(&world, person).await;
        assert!(reply.map_version <= version);
        let (state, secret) = proven_state(&reply, &leaves, person);
        assert_eq!(map.get(&secret.key()), Some(secret.value(&state)));
        let view = person.view.as_ref().unwrap();
        assert_eq!(
            (state.sequence + 1, state.link),
            (view.next_sequence(), view.tip())
        );
        assert!(state.heads.is_empty());
    }
}

#[tokio::test]
async fn a_log_goes_on_after_a_restart() {
    let world = World::new().await;
    let alice = world.person().await;
    step(&world).await;
    let before = checkpoint(&world).await.head();
    let world = world.restarted().await;
    let bob = world.person().await;
    step(&world).await;
    let after = checkpoint(&world).await.head();
    assert!(after.size > before.size);
    let source = files(&world);
    let proof = Prover::new(&source, after)
        .consistency(before.size)
        .unwrap();
    proof.verify(&before, &after).unwrap();
    let leaves = entries(&source, after);
    let encoded: Vec<[u8; 66]> = leaves.iter().map(Leaf::encode).collect();
    for statement in statements_of(&alice).iter().chain(&statements_of(&bob)) {
        assert!(encoded.contains(statement));
    }
    rebuilt_map(&source, &leaves);
}

#[tokio::test]
async fn only_names_of_the_log_are_read() {
    let world = World::new().await;
    world.person().await;
    step(&world).await;
    let head = checkpoint(&world).await.head();
    let tile = format!("/log/tile/0/000.p/{}", head.size);
    assert_eq!(get(&world, &tile).await.0, StatusCode::OK);
    assert_eq!(get(&world, "/log/map/x000/001").await.0, StatusCode::OK);
    let path = world.directory.path().join("store/log/secret");
    std::fs::write(path, "x").unwrap();
    for name in [
        "/log/secret",
        "/log/../records.sqlite",
        "/log/tile/0/000.p/255",
        "/log/tile/00/000.p/1",
        "/log/tile/8/0/000",
        "/log/tile/entries/000.p/0",
        "/log/map/0",
        "/log/map/x000/000",
        "/log/map/001",
        "/log/checkpoint/",
        "/log/checkpoint~1-1",
        "/log/%63heckpoint",
    ] {
        assert_eq!(get(&world, name).await.0, StatusCode::NOT_FOUND, "{name}");
    }
}

/// Several servers of one cell: every round of each runs against the same store, and one order comes
/// out of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_race_make_one_log() {
    use crate::transparency::{Transparency, TransparencyParts};
    let world = World::new().await;
    let shared = world.cell.shared();
    let others: Vec<Transparency> = (0..3)
        .map(|number| {
            let memory = world.directory.path().join(format!("signer-{number}"));
            crate::transparency::Signer::create_memory(&memory, log_key(&world).name()).unwrap();
            let key = log_key(&world);
            let secret = shared.keys.log.secret();
            Transparency::new(TransparencyParts {
                records: shared.log_records(),
                files: shared.log_files(),
                clock: world.clock.clone(),
                settings: world.cell.config().log.clone(),
                witnesses: Vec::new(),
                signer: crate::transparency::Signer::open(&memory, key, secret).unwrap(),
                padding_secret: [number; 32],
                about: crate::transparency::AboutCell {
                    controller: "Tester".into(),
                    region: "testland".into(),
                },
            })
        })
        .collect();
    let mut people = Vec::new();
    for _ in 0..6 {
        people.push(world.person().await);
        let rounds = others.iter().map(Transparency::step);
        for outcome in futures_util::future::join_all(rounds).await {
            outcome.unwrap();
        }
    }
    step(&world).await;
    let head = checkpoint(&world).await.head();
    let leaves = entries(&files(&world), head);
    rebuilt_map(&files(&world), &leaves);
    let mut times: BTreeMap<[u8; 66], usize> = BTreeMap::new();
    for leaf in &leaves {
        *times.entry(leaf.encode()).or_default() += 1;
    }
    for statement in people.iter().flat_map(statements_of) {
        assert_eq!(times[&statement], 1);
    }
    // Whatever each of them signed was one of the heads of this one log.
    for other in &others {
        let seen = other.published().checkpoint.unwrap().head();
        let source = files(&world);
        let proof = Prover::new(&source, head).consistency(seen.size).unwrap();
        proof.verify(&seen, &head).unwrap();
    }
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The world with its store as it was when it was `kept`; the keys and the signer's memory stay.
async fn put_back(world: World, kept: &Path) -> World {
    let store = world.directory.path().join("store");
    world
        .restarted_after(|| {
            std::fs::remove_dir_all(&store).unwrap();
            copy(kept, &store);
        })
        .await
}

/// Row B22: the database is put back to an earlier state. The log would grow a second time from there;
/// the signer remembers what it signed, and signs nothing that does not continue it.
#[tokio::test]
async fn b22_a_rolled_back_database_gets_no_signature() {
    let world = World::with(|config| config.log.padding_entries = 0, Log::silent()).await;
    world.person().await;
    step(&world).await;
    let store = world.directory.path().join("store");
    let kept = world.directory.path().join("kept");
    copy(&store, &kept);
    world.person().await;
    step(&world).await;
    let signed = checkpoint(&world).await;
    let memory = world.directory.path().join("keys/log-signer");
    let remembered = std::fs::read(&memory).unwrap();

    // Everything of the store is as it was yesterday, but for the signer's own memory.
    let place = world.directory.path().to_owned();
    let world = put_back(world, &kept).await;
    let fault = world.cell.shared().transparency.step().await.unwrap_err();
    assert!(matches!(
        fault,
        crate::transparency::LogFault::Signer(crate::transparency::signer::SignerError::Behind {
            size,
            signed: remembered,
        }) if size < remembered && remembered == signed.head().size
    ));
    // Growing past the size that was signed does not help: it is another tree.
    world.person().await;
    world.person().await;
    let fault = world.cell.shared().transparency.step().await.unwrap_err();
    assert!(matches!(
        fault,
        crate::transparency::LogFault::Signer(crate::transparency::signer::SignerError::Fork)
    ));
    assert_eq!(std::fs::read(&memory).unwrap(), remembered);
    // What is published is still the checkpoint of the copy: nothing new was signed.
    let published = std::fs::read(place.join("store/log/checkpoint")).unwrap();
    assert_eq!(
        published,
        std::fs::read(kept.join("log/checkpoint")).unwrap()
    );
}

/// A signer whose memory is gone signs nothing: nobody but witnesses could tell it what it signed.
#[tokio::test]
async fn b22_a_signer_without_memory_and_without_witnesses_signs_nothing() {
    let world = World::new().await;
    world.person().await;
    step(&world).await;
    let signed = checkpoint(&world).await;
    let memory = world.directory.path().join("keys/log-signer");
    let world = world
        .restarted_after(|| std::fs::remove_file(&memory).unwrap())
        .await;
    world.person().await;
    let fault = world.cell.shared().transparency.step().await.unwrap_err();
    assert!(matches!(
        fault,
        crate::transparency::LogFault::Signer(crate::transparency::signer::SignerError::Missing)
    ));
    assert!(!memory.exists());
    let published = std::fs::read(files(&world).0.join("checkpoint")).unwrap();
    assert_eq!(published, signed.bytes());
}

/// Tiles that were altered on disk are noticed before anything is built on them.
#[tokio::test]
async fn a_log_does_not_grow_on_altered_tiles() {
    let world = World::new().await;
    world.person().await;
    step(&world).await;
    let head = checkpoint(&world).await.head();
    let tile = files(&world).0.join(format!("tile/0/000.p/{}", head.size));
    let world = world
        .restarted_after(|| {
            let mut bytes = std::fs::read(&tile).unwrap();
            bytes[0] ^= 1;
            std::fs::write(&tile, bytes).unwrap();
        })
        .await;
    world.person().await;
    let fault = world.cell.shared().transparency.step().await.unwrap_err();
    assert!(matches!(fault, crate::transparency::LogFault::Damaged(_)));
}

/// The page and the report are made from the log alone, name nobody, and carry nothing that runs.
#[tokio::test]
async fn the_page_and_the_report_say_what_the_entries_say() {
    let world = World::with(
        |config| config.controller = "A <b>& \"C\"".into(),
        Log::silent(),
    )
    .await;
    let alice = world.person().await;
    step(&world).await;
    // The report of the empty log may have been written a moment ago: a new process writes its own.
    let world = world.restarted().await;
    world.person().await;
    step(&world).await;
    let (status, page) = get(&world, "/log/").await;
    assert_eq!(status, StatusCode::OK);
    let page = String::from_utf8(page.to_vec()).unwrap();
    let (_, json) = get(&world, "/log/report.json").await;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let head = TreeHead {
        size: json["leaves"].as_u64().unwrap(),
        root: candor_log::tree::Hash::from_base64(json["root"].as_str().unwrap()).unwrap(),
    };
    let mut counts = candor_log::report::Counts::new();
    entries(&files(&world), head)
        .iter()
        .for_each(|leaf| counts.add(leaf));
    let report = candor_log::report::Report::new(log_key(&world).name(), head, counts).unwrap();
    let (_, text) = get(&world, "/log/report.txt").await;
    assert_eq!(text, report.text());
    assert!(page.contains(&format!("<td>{}</td>", head.size)));
    assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("http"));
    for secret in [alice.account.to_string(), alice.device.to_string()] {
        assert!(!page.contains(&secret));
    }
}

/// The documented way on: a new log that says that it is one, holds everything that the database has, and
/// is signed by a key that the cell's root signed. What was lost can be brought back by who has it.
#[tokio::test]
async fn a_restored_cell_begins_a_new_log_and_gets_back_what_it_lost() {
    let world = World::with(|config| config.log.padding_entries = 0, Log::silent()).await;
    let mut alice = world.person().await;
    step(&world).await;
    let kept = world.directory.path().join("kept");
    copy(&world.directory.path().join("store"), &kept);
    let before = alice.records.clone();
    alice.consents(&world).await;
    step(&world).await;
    let signed = checkpoint(&world).await;
    let lost = alice.records[before.len()..].to_vec();
    assert!(!lost.is_empty());

    let world = put_back(world, &kept).await;
    let place = world.directory.path().to_owned();
    let mut begun = None;
    let world = {
        let runtime = tokio::runtime::Handle::current();
        world
            .restarted_after(|| {
                let begin = || runtime.block_on(crate::begin_log_anew(&place)).unwrap();
                begun = Some(std::thread::scope(|scope| {
                    scope.spawn(begin).join().unwrap()
                }));
            })
            .await
    };
    let begun = begun.unwrap();
    assert_eq!((begun.number, begun.accounts), (2, 1));
    assert_eq!(begun.signed_before, Some(signed.head().size));
    assert_eq!(begun.statements, before.len() as u64);
    step(&world).await;
    let keys = world.cell.keys().clone();
    assert_eq!(keys.log_number, Some(2));
    let said = keys.log_before.clone().unwrap();
    assert_eq!(
        (said.size, said.root),
        (signed.head().size, signed.head().root.0)
    );
    assert_eq!(said.origin, signed.origin());
    // The old log's last checkpoint and key are still there.
    let old = std::fs::read(place.join("store/log-1/checkpoint")).unwrap();
    assert_eq!(old, std::fs::read(kept.join("log/checkpoint")).unwrap());
    assert!(place.join("keys/log-1.key").exists());

    let new = published(&world).await;
    let leaves = entries(&files(&world), new.head());
    rebuilt_map(&files(&world), &leaves);
    let encoded: Vec<[u8; 66]> = leaves.iter().map(Leaf::encode).collect();
    let known = |records: &[Record]| -> Vec<[u8; 66]> { records.iter().map(leaf_of).collect() };
    assert!(known(&before).iter().all(|leaf| encoded.contains(leaf)));
    assert!(!known(&lost).iter().any(|leaf| encoded.contains(leaf)));

    // The device brings back what the cell itself had acknowledged.
    let status = bring_back(&world, &alice, &before, lost.clone()).await;
    assert_eq!(status, StatusCode::OK);
    step(&world).await;
    let leaves = entries(&files(&world), published(&world).await.head());
    let encoded: Vec<[u8; 66]> = leaves.iter().map(Leaf::encode).collect();
    assert!(known(&lost).iter().all(|leaf| encoded.contains(leaf)));
}

/// Only what the cell acknowledged for just this place can be brought back.
#[tokio::test]
async fn nothing_is_brought_back_without_the_cells_own_signature() {
    let world = World::new().await;
    let alice = world.person().await;
    let before = alice.records.clone();
    let consent = candor_wire::statement::Body::ConsentGiven(Box::new(alice.consent(&world)));
    let epoch = alice.state(
        &world,
        Some(alice.device),
        alice.epoch(Some(alice.vault)),
        &[],
    );
    let stated = alice.state(
        &world,
        Some(alice.device),
        consent,
        std::slice::from_ref(&epoch),
    );
    let mut other = stated.clone();
    other.acknowledgement = before[0].acknowledgement.clone();
    for record in [epoch.clone(), stated, other] {
        let status = bring_back(&world, &alice, &before, vec![record]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(alice.chain(&world).await.length, before.len() as u64);
}

/// A cell that is older than its log puts everything into it at its next start.
#[tokio::test]
async fn what_was_stated_before_the_cell_had_a_log_goes_into_it() {
    let world = World::with(|config| config.log.padding_entries = 0, Log::silent()).await;
    let alice = world.person().await;
    let old_keys = candor_wire::cell::CellKeys {
        log: None,
        ..world.cell.keys().clone()
    };
    let place = world.directory.path().join("store");
    let world = {
        let runtime = tokio::runtime::Handle::current();
        world
            .restarted_after(|| {
                let keys = place.with_file_name("keys");
                let root = crate::keys::read_root(&keys).unwrap().secret();
                let description = candor_wire::api::CellDescription {
                    version: API_VERSION,
                    keys: vec![candor_wire::cell::SignedCellKeys::sign(&old_keys, &root)],
                };
                let description = candor_wire::cbor::encode(&description);
                // As the tables are after the migration of a database without a log.
                let empty = || {
                    let store = candor_store::Store::open(&place).unwrap();
                    let records = store.records();
                    let changing = async {
                        store
                            .log_records()
                            .begin_log_anew(candor_wire::time::Millis(1))
                            .await
                            .unwrap();
                        let kept = records.set_cell_value("cell-keys", description.into());
                        kept.await.unwrap();
                    };
                    runtime.block_on(changing);
                };
                std::thread::scope(|scope| scope.spawn(empty).join().unwrap());
                std::fs::remove_dir_all(place.join("log")).unwrap();
                std::fs::remove_file(keys.join("log-signer")).unwrap();
                std::fs::remove_file(keys.join("log.key")).unwrap();
            })
            .await
    };
    step(&world).await;
    let leaves = entries(&files(&world), published(&world).await.head());
    rebuilt_map(&files(&world), &leaves);
    let encoded: Vec<[u8; 66]> = leaves.iter().map(Leaf::encode).collect();
    assert!(
        statements_of(&alice)
            .iter()
            .all(|leaf| encoded.contains(leaf))
    );
    assert_eq!(encoded.len(), alice.records.len() + 1);
}

/// Partial tiles and bundles go when the whole one is published. Whoever asks for one that is gone, as a
/// reader of an older checkpoint does, gets it from the whole one.
#[tokio::test]
async fn partial_files_are_removed_when_the_whole_ones_are_published() {
    let world = World::with(|config| config.log.padding_entries = 0, Log::silent()).await;
    world.person().await;
    step(&world).await;
    let before = checkpoint(&world).await.head();
    let names = [
        format!("tile/0/000.p/{}", before.size),
        format!("tile/entries/000.p/{}", before.size),
    ];
    let mut bytes = Vec::new();
    for name in &names {
        assert!(files(&world).0.join(name).exists());
        bytes.push(get(&world, &format!("/log/{name}")).await.1);
    }
    let entry = |number: u64| {
        let id = *blake3::hash(&number.to_be_bytes()).as_bytes();
        Leaf::statement(
            &candor_wire::ids::Label::from_bytes(id),
            &candor_wire::ids::StatementId::from_bytes(id),
        )
    };
    let entries_more = (0..300).map(|number| entry(number).encode()).collect();
    let log = world.cell.shared().log_records();
    log.queue_entries(entries_more, world.now()).await.unwrap();
    while checkpoint(&world).await.head().size < 256 {
        step(&world).await;
    }
    let after = checkpoint(&world).await.head();
    for (name, bytes) in names.iter().zip(bytes) {
        assert!(!files(&world).0.join(name).exists(), "{name}");
        assert_eq!(
            get(&world, &format!("/log/{name}")).await,
            (StatusCode::OK, bytes)
        );
    }
    for partial in ["tile/0/000.p", "tile/entries/000.p"] {
        assert!(!files(&world).0.join(partial).exists(), "{partial}");
    }
    assert!(files(&world).0.join("tile/0/001.p").exists());
    // The older head is still proven, from what is there.
    let source = crate::transparency::PublishedFiles::new(&world.cell.shared().log_files());
    let proving = tokio::task::spawn_blocking(move || {
        Edge::load(&source, before).unwrap();
        Prover::new(&source, after)
            .consistency(before.size)
            .unwrap()
    });
    proving.await.unwrap().verify(&before, &after).unwrap();
}

/// What has gathered is sequenced batch after batch: nobody waits between full ones.
#[tokio::test]
async fn full_batches_follow_each_other_without_a_wait() {
    use candor_store::log::LOG_BATCH_MAX_ENTRIES;
    const BATCHES: usize = 12;
    let world = World::new().await;
    let place = world.directory.path().join("store");
    let now = world.now();
    let world = {
        let runtime = tokio::runtime::Handle::current();
        let gathered = || {
            let store = candor_store::Store::open(&place).unwrap();
            for batch in 0..BATCHES {
                let entry = |number: usize| {
                    let number = batch * LOG_BATCH_MAX_ENTRIES + number;
                    let id = blake3::hash(&number.to_be_bytes());
                    let label = candor_wire::ids::Label::from_bytes(*id.as_bytes());
                    let statement = candor_wire::ids::StatementId::from_bytes(*id.as_bytes());
                    Leaf::statement(&label, &statement).encode()
                };
                let entries = (0..LOG_BATCH_MAX_ENTRIES).map(entry).collect();
                let queued = store.log_records();
                runtime
                    .block_on(queued.queue_entries(entries, now))
                    .unwrap();
            }
        };
        world
            .restarted_after(|| std::thread::scope(|scope| scope.spawn(gathered).join().unwrap()))
            .await
    };
    let log = &world.cell.shared().transparency;
    let all = (BATCHES * LOG_BATCH_MAX_ENTRIES) as u64;
    let mut published = log.subscribe();
    let has_all = |published: &crate::transparency::Published| {
        let checkpoint = published.checkpoint.as_ref();
        checkpoint.is_some_and(|checkpoint| checkpoint.head().size >= all)
    };
    published.wait_for(has_all).await.unwrap();
    // One more round found nothing full; publishing the last batch may have taken another.
    let waits = log.queue().waits();
    assert!(waits < BATCHES / 2, "{waits} waits for {BATCHES} batches");
}

/// An account that moves while its state waits for publication gets the newer state with the newer map.
#[tokio::test]
async fn a_state_that_is_waited_for_is_the_one_that_its_proof_shows() {
    let world = World::new().await;
    let mut alice = world.person().await;
    step(&world).await;
    let log = &world.cell.shared().transparency;
    let held = log.hold().await;
    alice.consents(&world).await;
    log.close().await.unwrap();
    let ask = alice.ask(EndpointId::ReadState, alice.errand(&world, Purpose::Verify));
    let asking = tokio::spawn({
        let (service, request) = (world.cell.service(), alice.sign(&world, &ask));
        async move { tower::ServiceExt::oneshot(service, request).await.unwrap() }
    });
    // Once it waits, the account moves on.
    while log.waiting_for_a_map() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    alice.withdraws(&world).await;
    log.close().await.unwrap();
    drop(held);
    step(&world).await;
    let body = asking.await.unwrap().into_body();
    let body = http_body_util::BodyExt::collect(body).await.unwrap();
    let reply: StateReply = decoded(&body.to_bytes());
    let leaves = entries(&files(&world), checkpoint(&world).await.head());
    let (state, _) = proven_state(&reply, &leaves, &alice);
    let view = alice.view.as_ref().unwrap();
    assert_eq!(state.link, view.tip());
}

/// A log that nobody may publish keeps no more maps than the one that is published next needs.
#[tokio::test]
async fn maps_do_not_pile_up_while_nothing_is_published() {
    let world = World::new().await;
    let mut alice = world.person().await;
    step(&world).await;
    let log = &world.cell.shared().transparency;
    let held = log.hold().await;
    for _ in 0..10 {
        alice.consents(&world).await;
        log.close().await.unwrap();
        alice.withdraws(&world).await;
        log.close().await.unwrap();
    }
    assert!(log.waiting_maps() <= crate::transparency::UNPUBLISHED_MAX);
    drop(held);
    step(&world).await;
    let leaves = entries(&files(&world), checkpoint(&world).await.head());
    let (state, _) = proven_state(&state(&world, &alice).await, &leaves, &alice);
    assert_eq!(state.link, alice.view.as_ref().unwrap().tip());
}
