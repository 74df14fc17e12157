//! What an engine leaves in memory: row 51.

use std::sync::{Arc, Mutex};

use candor_client::commands::{Command, View};
use candor_client::engine::{self, Engine, EngineConfig, EnrolParams};
use candor_client::home::Home;
use candor_client::{Entropy, KeyProtection, KeyStore, RecoveryPhrase, SystemEntropy};
use candor_testkit::memory::{Masked, found_in_memory, in_own_process};
use candor_vault::entropy::{EntropyError, SURROUNDINGS_BYTES};
use candor_vault::secret::scrub_stack;
use candor_wire::VaultId;
use zeroize::Zeroizing;

use crate::world::{Person, World, assert_same};

#[test]
fn a51_no_secret_is_left_in_memory_after_an_engine_ended() {
    let folder = tempfile::tempdir().unwrap();
    let told = in_own_process("memory::a_whole_life_in_one_process", folder.path());
    // Two are made when they are needed, and gone at once. That all others are found while the engine
    // is there shows that the search finds what it looks for.
    let made_on_demand = ["recovery seed", "first: content ids' key"];
    assert!(
        told.contains(&format!("not held while open: {made_on_demand:?}\n"))
            && told.contains("left: []"),
        "{told}"
    );
}

/// The system's random bytes; those of 32, masked, are kept: seeds and keys are among them.
#[derive(Default)]
struct Overheard(Mutex<Vec<Masked>>);

impl Entropy for Overheard {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        SystemEntropy.fill(buffer)?;
        if buffer.len() == 32 {
            self.0.lock().unwrap().push(Masked::new("drawn", buffer));
        }
        Ok(())
    }

    fn surroundings(&self) -> [u8; SURROUNDINGS_BYTES] {
        SystemEntropy.surroundings()
    }
}

/// Drawn, so that it is in no read-only part of the program either.
fn passphrase() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0_u8; 24]);
    SystemEntropy.fill(bytes.as_mut()).unwrap();
    let mut text = Zeroizing::new(String::with_capacity(bytes.len()));
    text.extend(bytes.iter().map(|byte| char::from(b'a' + byte % 26)));
    text
}

fn protected(
    world: &World,
    home: &str,
    passphrase: &str,
    entropy: Arc<dyn Entropy>,
) -> EnrolParams {
    EnrolParams {
        protection: KeyProtection::Passphrase(Zeroizing::new(passphrase.to_owned())),
        entropy,
        ..world.params(home, world.invite())
    }
}

fn reopen(world: &World, home: &str, passphrase: &str) -> Person {
    let home = Home::lock(&world.path(home)).unwrap();
    let keys = KeyStore::open(&home.keys(), Some(passphrase), Arc::new(SystemEntropy)).unwrap();
    let engine = Engine::open(EngineConfig {
        home,
        keys,
        door: world.door(),
        runtime: world.runtime.handle().clone(),
        clock: Arc::new(candor_client::clock::SystemClock),
        entropy: Arc::new(SystemEntropy),
    });
    Person {
        engine: engine.unwrap(),
    }
}

/// Learns the secrets of a device from its key store, beside the engine that runs.
#[inline(never)]
fn secrets_of(world: &World, home: &str, passphrase: &str, list: &mut Vec<Masked>) {
    let path = world.path(home).join("keys");
    let store = KeyStore::open(&path, Some(passphrase), Arc::new(SystemEntropy)).unwrap();
    let mut put =
        |name: &str, secret: &[u8]| list.push(Masked::new(format!("{home}: {name}"), secret));
    put("passphrase", passphrase.as_bytes());
    put("agreement seed", store.agreement().seed());
    put("ledger key", store.ledger_key().as_bytes());
    put(
        "account's key",
        store.keys(None).unwrap().get(1).unwrap().as_bytes(),
    );
}

#[inline(never)]
fn secrets_of_the_vault(
    world: &World,
    (home, passphrase): (&str, &str),
    vault: VaultId,
    list: &mut Vec<Masked>,
) {
    let path = world.path(home).join("keys");
    let store = KeyStore::open(&path, Some(passphrase), Arc::new(SystemEntropy)).unwrap();
    let account = store.account().unwrap();
    let epoch = store.keys(Some(vault)).unwrap().get(1).unwrap();
    list.push(Masked::new(
        format!("{home}: vault's key"),
        epoch.as_bytes(),
    ));
    let info: [&[u8]; 5] = [
        b"candor/vault/chunk-id",
        account.as_bytes(),
        vault.as_bytes(),
        &1_u32.to_be_bytes(),
        &[1],
    ];
    list.push(Masked::new(
        format!("{home}: content ids' key"),
        epoch.derive(&info).as_ref(),
    ));
}

#[test]
#[ignore = "the child process that the test of row A51 starts and looks through"]
fn a_whole_life_in_one_process() {
    let world = World::new();
    let mut secrets = Vec::new();
    let drawn = Arc::new(Overheard::default());
    let phrase = engine::draw_phrase(drawn.as_ref()).unwrap();
    secrets.push(Masked::new("phrase", phrase.text().as_bytes()));
    secrets.push(Masked::new("recovery seed", phrase.recovery().seed()));
    let first = passphrase();
    let params = protected(
        &world,
        "first",
        &first,
        Arc::clone(&drawn) as Arc<dyn Entropy>,
    );
    let person = Person {
        engine: engine::create_account(params, &phrase).unwrap(),
    };
    secrets_of(&world, "first", &first, &mut secrets);
    // The draws begin with the phrase, then the key store's: both signing seeds, the X-Wing seed, …
    let mut draws = std::mem::take(&mut *drawn.0.lock().unwrap()).into_iter();
    for name in [
        "phrase's bytes",
        "signing seed, Ed25519",
        "signing seed, ML-DSA",
    ] {
        secrets.push(draws.next().unwrap().named(name));
    }
    check_order(&world, &first, &draws.next().unwrap());
    // Everything that uses keys: consent, backup, check, restore, the ledger, a restart.
    let tree = world.tree("tree");
    person.add(&tree);
    person.consent();
    person.run().unwrap();
    let View::Sets(sets) = person.ask(Command::BackupList).unwrap() else {
        panic!("another view")
    };
    let vault = sets[0].vault.as_ref().unwrap().parse().unwrap();
    secrets_of_the_vault(&world, ("first", &first), vault, &mut secrets);
    std::fs::write(tree.join("later.txt"), "later").unwrap();
    drop(person);
    let person = reopen(&world, "first", &first);
    person.run().unwrap();
    person
        .ask(Command::BackupCheck {
            read_data: true,
            repair: false,
        })
        .unwrap();
    person.restore("latest", &world.path("back")).unwrap();
    assert!(!person.ledger().is_empty());
    // The same account on a second device, by the words.
    let typed = phrase.text();
    let again = RecoveryPhrase::from_text(&typed).unwrap();
    let second = passphrase();
    let params = protected(&world, "second", &second, Arc::new(SystemEntropy));
    let other = Person {
        engine: engine::recover_account(params, &again, false).unwrap(),
    };
    secrets_of(&world, "second", &second, &mut secrets);
    other.restore("latest", &world.path("back-2")).unwrap();
    assert_same(&world.path("back"), &world.path("back-2"));

    let held = found_in_memory(&secrets);
    let missing: Vec<&str> = secrets
        .iter()
        .map(Masked::name)
        .filter(|name| !held.contains(name))
        .collect();
    println!("not held while open: {missing:?}");
    drop((person, other, phrase, again, typed, first, second));
    let mut world = world;
    world.stop_cell();
    drop(world);
    scrub_stack();
    println!("left: {:?}", found_in_memory(&secrets));
}

/// The fourth draw has to be the X-Wing seed, or the names given to those before it are wrong.
#[inline(never)]
fn check_order(world: &World, passphrase: &str, draw: &Masked) {
    let path = world.path("first").join("keys");
    let store = KeyStore::open(&path, Some(passphrase), Arc::new(SystemEntropy)).unwrap();
    assert!(draw.is(store.agreement().seed()));
}
