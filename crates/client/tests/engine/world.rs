//! A cell, homes of devices, and a person who asks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candor_client::CellService;
use candor_client::clock::{Clock, SystemClock};
use candor_client::commands::{
    Answered, Command, Event, Failure, LedgerLineView, ProposalView, SetView, StatusView, Stored,
    View,
};
use candor_client::egress::{BoxFuture, TransportError};
use candor_client::engine::{self, Engine, EngineConfig, EnrolParams};
use candor_client::home::Home;
use candor_client::ledger::{Ledger, LedgerParts};
use candor_client::path_text::PathText;
use candor_client::{Cancel, CellDoor, KeyProtection, KeyStore, RecoveryPhrase};
use candor_log::note::{KeyKind, VerifierKey};
use candor_server::{Cell, CellOptions, InitParams};
use candor_testkit::hostile::Wire;
use candor_vault::{Entropy, SystemEntropy};
use candor_wire::Millis;
use candor_wire::cell::Invitation;
use candor_wire::sign::Ed25519Secret;
use candor_wire::statement::Role;

/// A clock that can be set forward.
#[derive(Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn forward_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        SystemClock.now().plus_ms(self.0.load(Ordering::Relaxed))
    }
}

impl candor_server::clock::Clock for TestClock {
    fn now(&self) -> Millis {
        Clock::now(self)
    }
}

/// Where the cell answers, while it runs. Devices may keep it open while the cell is restarted.
#[derive(Default)]
struct Address(Mutex<Option<Arc<dyn CellService>>>);

impl Address {
    fn set(&self, service: Option<Arc<dyn CellService>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = service;
    }
}

impl CellService for Address {
    fn call(
        &self,
        request: http::Request<bytes::Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<bytes::Bytes>, TransportError>> {
        let service = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match service.as_ref() {
            Some(service) => service.call(request),
            None => Box::pin(async { Err(candor_testkit::hostile::lost()) }),
        }
    }
}

pub(crate) struct World {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) folder: tempfile::TempDir,
    cell: Option<Cell>,
    address: Arc<Address>,
    pub(crate) wire: Arc<Wire>,
    /// The devices' clock.
    pub(crate) clock: Arc<TestClock>,
    /// The cell's.
    pub(crate) cell_clock: Arc<TestClock>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// `prepare` is handed the folder of the cell before it is opened for the first time.
    pub(crate) fn with(prepare: impl FnOnce(&Path)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("cell");
        let params = InitParams {
            region: "home".to_owned(),
            controller: "the tests".to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            public_addresses: Vec::new(),
        };
        runtime.block_on(Cell::init(&directory, &params)).unwrap();
        prepare(&directory);
        let address: Arc<Address> = Arc::default();
        let wire = Wire::to(Arc::clone(&address) as Arc<dyn CellService>);
        let mut world = Self {
            runtime,
            folder,
            cell: None,
            address,
            wire,
            clock: Arc::default(),
            cell_clock: Arc::default(),
        };
        world.start_cell();
        world
    }

    pub(crate) fn cell(&self) -> &Cell {
        self.cell.as_ref().unwrap()
    }

    pub(crate) fn start_cell(&mut self) {
        let options = CellOptions {
            clock: Arc::clone(&self.cell_clock) as Arc<dyn candor_server::clock::Clock>,
            ..CellOptions::default()
        };
        let place = self.path("cell");
        let opened = self.runtime.block_on(Cell::open_with(&place, options));
        self.cell = Some(opened.unwrap());
        self.address.set(Some(self.inner()));
    }

    /// Ends the cell. Nothing holds its files when this returns.
    pub(crate) fn stop_cell(&mut self) {
        self.address.set(None);
        self.cell = None;
        // The cell's own tasks may hold it for a moment.
        let lock = std::fs::File::open(self.path("cell/store/store.lock")).unwrap();
        let is_free = (0..1_000).any(|_| {
            let is_free = lock.try_lock().is_ok();
            if !is_free {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            is_free
        });
        assert!(is_free, "the cell does not end");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn entropy() -> Arc<dyn Entropy> {
        Arc::new(SystemEntropy)
    }

    /// The cell itself, past the wire.
    pub(crate) fn inner(&self) -> Arc<dyn candor_client::CellService> {
        candor_client::egress::in_process::service(self.cell().service())
    }

    pub(crate) fn door(&self) -> CellDoor {
        CellDoor::InProcess(self.wire.service())
    }

    pub(crate) fn params(&self, home: &str, invitation: Invitation) -> EnrolParams {
        EnrolParams {
            home: Home::lock(&self.path(home)).unwrap(),
            invitation,
            door: self.door(),
            account_name: "me".to_owned(),
            device_name: home.to_owned(),
            role: Role::Full,
            protection: KeyProtection::Unprotected,
            runtime: self.runtime.handle().clone(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Self::entropy(),
        }
    }

    pub(crate) fn invite(&self) -> Invitation {
        self.runtime.block_on(self.cell().invite()).unwrap()
    }

    /// A new account in a new home.
    pub(crate) fn create(&self, home: &str) -> (Person, RecoveryPhrase) {
        let phrase = engine::draw_phrase(&SystemEntropy).unwrap();
        let engine = engine::create_account(self.params(home, self.invite()), &phrase).unwrap();
        (Person { engine }, phrase)
    }

    /// A new home of an account, with nothing but its phrase and the cell's address.
    pub(crate) fn recover(&self, home: &str, phrase: &RecoveryPhrase) -> Result<Person, Failure> {
        let engine =
            engine::recover_account(self.params(home, self.cell().address_card()), phrase, false)?;
        Ok(Person { engine })
    }

    /// The same, with every other device revoked at once.
    pub(crate) fn recover_alone(&self, home: &str, phrase: &RecoveryPhrase) -> Person {
        let params = self.params(home, self.cell().address_card());
        Person {
            engine: engine::recover_account(params, phrase, true).unwrap(),
        }
    }

    /// The same as a write-only device.
    pub(crate) fn recover_writer(&self, home: &str, phrase: &RecoveryPhrase) -> Person {
        let params = EnrolParams {
            role: Role::WriteOnly,
            ..self.params(home, self.cell().address_card())
        };
        Person {
            engine: engine::recover_account(params, phrase, false).unwrap(),
        }
    }

    /// The same home again, as after a restart.
    pub(crate) fn reopen(&self, person: Person) -> Person {
        let home = person.engine.home().to_owned();
        drop(person);
        Person {
            engine: self.open(&home).unwrap(),
        }
    }

    pub(crate) fn open(&self, home: &Path) -> Result<Engine, Failure> {
        let home = Home::lock(home).unwrap();
        let keys = KeyStore::open(&home.keys(), None, Self::entropy()).unwrap();
        Engine::open(EngineConfig {
            home,
            keys,
            door: self.door(),
            runtime: self.runtime.handle().clone(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Self::entropy(),
        })
    }

    /// Alarms in the ledger of a home whose enrolment was given up.
    pub(crate) fn alarms_of_unenrolled(&self, home: &str) -> Vec<String> {
        let home = Home::lock(&self.path(home)).unwrap();
        let keys = KeyStore::open(&home.keys(), None, Self::entropy()).unwrap();
        assert!(!keys.is_enrolled());
        let parts = LedgerParts {
            key: keys.ledger_key(),
            signing: keys.signing(),
            device: keys.device(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Self::entropy(),
        };
        let ledger = Ledger::open(&home.ledger(), parts).unwrap();
        let mut alarms = Vec::new();
        ledger
            .lines(None, &mut |line| alarms.extend(line.alarm))
            .unwrap();
        alarms
    }

    /// The key of the cell's log, as anybody can have it.
    pub(crate) fn log_key(&self) -> VerifierKey {
        let keys = self.cell().keys();
        VerifierKey::new(&keys.log_origin(), KeyKind::Log, keys.log.unwrap()).unwrap()
    }

    /// A key that a cell keeps in a file of its own: the seed is its end.
    pub(crate) fn secret_of_the_cell(&self, name: &str) -> Ed25519Secret {
        let file = std::fs::read(self.path("cell/keys").join(name)).unwrap();
        Ed25519Secret::from_seed(file.last_chunk::<32>().unwrap())
    }

    /// A published file of the real log, past the wire.
    pub(crate) fn log_file(&self, name: &str) -> Option<Vec<u8>> {
        let request = http::Request::builder()
            .method("GET")
            .uri(format!("/log/{name}"))
            .header("host", candor_wire::cell::authority(&self.cell().id()))
            .header("content-length", 0)
            .body(bytes::Bytes::new())
            .unwrap();
        let reply = self.runtime.block_on(self.inner().call(request)).unwrap();
        reply
            .status()
            .is_success()
            .then(|| reply.into_body().to_vec())
    }

    /// Puts the cell's store back to a copy of it, and begins its log anew, as its operator would after a
    /// restore from a backup. Before the cell runs again, `prepare` is handed its folder.
    pub(crate) fn put_cell_back_and(
        &mut self,
        kept: &Path,
        prepare: impl FnOnce(&Path),
    ) -> candor_server::BegunAnew {
        let place = self.path("cell");
        self.stop_cell();
        std::fs::remove_dir_all(place.join("store")).unwrap();
        std::fs::rename(kept, place.join("store")).unwrap();
        let begun = self
            .runtime
            .block_on(candor_server::begin_log_anew_at(&place, &*self.cell_clock))
            .unwrap();
        prepare(&place);
        self.start_cell();
        begun
    }

    pub(crate) fn put_cell_back(&mut self, kept: &Path) -> candor_server::BegunAnew {
        self.put_cell_back_and(kept, |_| {})
    }

    /// The kinds of all statements on a person's chain, as their device keeps it.
    pub(crate) fn kinds(&self, person: &Person) -> Vec<candor_wire::statement::Kind> {
        let path = person.engine.home().join("device.sqlite");
        let store = candor_client::device_store::DeviceStore::open(&path).unwrap();
        let chain = store.chain().unwrap();
        chain.iter().map(|record| record.kind).collect()
    }

    /// A folder with some files, one of them of several chunks.
    pub(crate) fn tree(&self, name: &str) -> PathBuf {
        let top = self.path(name);
        std::fs::create_dir_all(top.join("sub/empty")).unwrap();
        std::fs::write(top.join("a.txt"), "alpha").unwrap();
        std::fs::write(top.join("sub/b.txt"), "beta").unwrap();
        let mut state = 1_u64;
        let noise = noise(&mut state, 6_000_000);
        std::fs::write(top.join("sub/noise.bin"), noise).unwrap();
        top
    }
}

/// Bytes that no compression makes smaller, the same ones from the same state.
pub(crate) fn noise(state: &mut u64, bytes: usize) -> Vec<u8> {
    let draw = |_| {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (*state >> 56) as u8
    };
    (0..bytes).map(draw).collect()
}

/// Somebody at a door.
pub(crate) struct Person {
    pub(crate) engine: Engine,
}

impl Person {
    pub(crate) fn ask(&self, command: Command) -> Result<View, Failure> {
        self.listen(command).0
    }

    pub(crate) fn listen(&self, command: Command) -> (Result<View, Failure>, Vec<Event>) {
        let mut seen = Vec::new();
        let view = self
            .engine
            .execute(command, &mut |event| seen.push(event), &Cancel::default());
        (view, seen)
    }

    pub(crate) fn add(&self, path: &Path) -> SetView {
        let command = Command::BackupAdd {
            name: None,
            paths: vec![PathText::from_path(path)],
            excludes: Vec::new(),
        };
        let View::Set(set) = self.ask(command).unwrap() else {
            panic!("another view")
        };
        set
    }

    pub(crate) fn propose(&self) -> ProposalView {
        let command = Command::ConsentPropose {
            service: "backup".to_owned(),
            sets: Vec::new(),
        };
        let View::Proposal(proposal) = self.ask(command).unwrap() else {
            panic!("another view")
        };
        proposal
    }

    pub(crate) fn say_yes(&self, token: &str) -> Result<View, Failure> {
        self.ask(Command::ConsentGive {
            service: "backup".to_owned(),
            sets: Vec::new(),
            token: token.to_owned(),
            answered: Answered::Terminal,
        })
    }

    pub(crate) fn consent(&self) {
        let proposal = self.propose();
        self.say_yes(&proposal.token).unwrap();
    }

    pub(crate) fn off(&self) -> Result<View, Failure> {
        self.ask(Command::ConsentOff {
            service: "backup".to_owned(),
            set: None,
            stored: Stored::Stays,
        })
    }

    pub(crate) fn run(&self) -> Result<View, Failure> {
        self.ask(Command::BackupRun { sets: Vec::new() })
    }

    pub(crate) fn restore(&self, snapshot: &str, to: &Path) -> Result<View, Failure> {
        self.ask(Command::BackupRestore {
            snapshot: snapshot.to_owned(),
            paths: Vec::new(),
            to: PathText::from_path(to),
            privileged: false,
        })
    }

    pub(crate) fn status(&self) -> StatusView {
        let View::Status(status) = self.ask(Command::Status).unwrap() else {
            panic!("another view")
        };
        *status
    }

    pub(crate) fn ledger(&self) -> Vec<LedgerLineView> {
        let (view, events) = self.listen(Command::Ledger { since_ms: None });
        view.unwrap();
        let lines = events.into_iter().map(|event| match event {
            Event::LedgerLine(line) => *line,
            other => panic!("{other:?}"),
        });
        lines.collect()
    }

    pub(crate) fn alarms(&self) -> Vec<String> {
        self.ledger()
            .into_iter()
            .filter_map(|line| line.alarm)
            .collect()
    }
}

/// Asserts that two trees hold the same files with the same content.
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let list = |top: &Path| {
        let mut out = Vec::new();
        let mut open = vec![top.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let relative = path.strip_prefix(top).unwrap().to_owned();
                if path.is_dir() {
                    open.push(path);
                    out.push((relative, None));
                } else {
                    out.push((relative, Some(std::fs::read(&path).unwrap())));
                }
            }
        }
        out.sort();
        out
    };
    let (left, right) = (list(a), list(b));
    let names = |list: &[(PathBuf, Option<Vec<u8>>)]| {
        list.iter()
            .map(|(path, _)| path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&left), names(&right));
    assert!(left == right, "contents differ");
}
