//! Lives of a cell under a seed: a few people do what people do, calls of the store fail at random, the cell is
//! stopped, loses its power in the middle, and comes back over the same directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use candor_store::ObjectKey;
use candor_store::faulty::Faults;
use candor_wire::api::{
    API_VERSION, ChainPage, EndpointId, ErrorCode, HasObjects, HasReply, HeadReply, StateReply,
    SwapHead,
};
use candor_wire::cbor;
use candor_wire::errand::Purpose;
use candor_wire::head::SignedHead;
use candor_wire::ids::ObjectId;
use candor_wire::statement::Body as Said;
use candor_wire::time::DAY_MS;

use super::{Promised, fresh_object, key, nothing_is_left_over, stored_chain, the_log_has};
use crate::tests::transparency::step;
use crate::tests::world::{Ask, Person, World, decoded, error};

/// What is played. A failure says its seed.
const SEEDS: [u64; 3] = [1, 2, 3];

/// What happens in one life. Everything that can happen does, many times over.
const EVENTS: usize = 300;

/// One call in so many fails.
const ONE_IN: u64 = 12;

const PEOPLE: usize = 3;

/// How often an upload is sent at most: with the fewest calls that it takes, two in three go through.
const TRIES_MAX: usize = 100;

/// Somebody, as their device remembers what the cell told it.
struct Resident {
    person: Person,
    grant: String,
    head: Option<SignedHead>,
    counter: u64,
    /// Stored and needed.
    objects: Vec<Bytes>,
    /// Condemned by a head that may have moved.
    condemned: Vec<Bytes>,
}

struct Life {
    world: World,
    faults: Faults,
    drawn: u64,
    residents: Vec<Resident>,
    promised: Promised,
    /// Nothing that the published state map has changed since it was published.
    is_published: bool,
    failures: usize,
    /// How often what was to be rescued was gone.
    too_late: usize,
}

/// What a request came to.
enum Came {
    Done(Bytes),
    /// It met a fault, and may have been done all the same.
    Failed,
    /// For one of the reasons that the caller named.
    Refused,
}

impl Life {
    async fn begin(seed: u64) -> Self {
        let faults = Faults::default();
        let world = World::over(&faults, |_| {}).await;
        let settings = world.directory.path().join("cell.toml");
        let short = || {
            let text = fs::read_to_string(&settings).unwrap();
            fs::write(&settings, format!("{text}retention_days = 1\n")).unwrap();
        };
        let world = world.restarted_after(short).await;
        let mut life = Self {
            world,
            faults,
            drawn: seed,
            residents: Vec::new(),
            promised: Promised::default(),
            is_published: false,
            failures: 0,
            too_late: 0,
        };
        for _ in 0..PEOPLE {
            let mut person = life.world.person().await;
            let grant = person.consents(&life.world).await;
            life.promised.chain(&person);
            life.residents.push(Resident {
                person,
                grant,
                head: None,
                counter: 0,
                objects: Vec::new(),
                condemned: Vec::new(),
            });
        }
        life
    }

    /// A number below `end`. Which ones come is the seed's alone.
    fn draw(&mut self, end: usize) -> usize {
        let hash = blake3::hash(&self.drawn.to_be_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        self.drawn = u64::from_be_bytes(bytes);
        usize::try_from(self.drawn % end as u64).unwrap()
    }

    /// Sends a request while the store fails at random. Whatever met no fault has to be done, or refused for a reason.
    async fn send(&mut self, ask: &Ask, who: usize, reasons: &[ErrorCode]) -> Came {
        let fault_seed = self.draw(usize::MAX) as u64;
        let request = self.residents[who].person.sign(&self.world, ask);
        self.faults.strike_at_random(fault_seed, ONE_IN);
        let sent = tokio::time::timeout(super::HANG_MAX, self.world.try_send(request)).await;
        let struck = self.faults.stop();
        let told = format!("{:?} {struck:?}", ask.endpoint);
        let Some((status, body)) = sent.expect("a request hangs") else {
            assert!(!struck.is_empty(), "{told}");
            self.failures += 1;
            return Came::Failed;
        };
        if status.is_success() {
            return Came::Done(body);
        }
        let code = error(&body).expect("an error has its body");
        assert_eq!(status.as_u16(), code.status());
        let is_fault = matches!(
            code,
            ErrorCode::Internal | ErrorCode::CellFull | ErrorCode::Busy
        );
        if is_fault && !struck.is_empty() {
            self.failures += 1;
            return Came::Failed;
        }
        assert!(reasons.contains(&code), "{code:?}: {told}");
        Came::Refused
    }

    async fn stores(&mut self, who: usize) {
        let resident = &self.residents[who];
        let object = fresh_object(&self.world);
        let ask = resident.person.putting(&object, &resident.grant);
        // Sent again until it is there, as a backup does.
        let mut tries = 0;
        while let Came::Failed | Came::Refused = self.send(&ask, who, &[ErrorCode::Busy]).await {
            tries += 1;
            assert!(tries < TRIES_MAX, "an object cannot be stored");
            crate::housekeeping::sweep(self.world.cell.shared()).await;
        }
        let resident = &mut self.residents[who];
        self.promised.object(&resident.person, &object);
        resident.objects.push(object);
    }

    async fn moves_head(&mut self, who: usize) {
        if self.residents[who].objects.len() < 2 {
            return;
        }
        let (condemns, rescues) = (self.draw(2) == 0, self.draw(2) == 0);
        self.is_published = false;
        let resident = &mut self.residents[who];
        let manifest = ObjectId::of(resident.objects.last().unwrap());
        let unneeded: Vec<Bytes> = resident.objects.drain(..usize::from(condemns)).collect();
        let rescued: Vec<Bytes> = resident
            .condemned
            .iter()
            .take(usize::from(rescues))
            .cloned()
            .collect();
        let before = resident.head.as_ref().map(SignedHead::hash);
        let place = (resident.counter + 1, before, manifest);
        let names = |objects: &[Bytes]| objects.iter().map(|one| ObjectId::of(one)).collect();
        let head = resident
            .person
            .condemning(&self.world, place, names(&unneeded));
        let body = SwapHead {
            version: API_VERSION,
            expected: before,
            head: head.clone(),
            rescued: (!rescued.is_empty()).then(|| names(&rescued)),
        };
        let ask = Ask {
            body: cbor::encode(&body).into(),
            ..resident
                .person
                .ask(EndpointId::SwapHead, resident.grant.clone())
        };
        // From the moment it is sent on, nobody may rely on what it condemns.
        for object in &unneeded {
            self.promised.objects.remove(&key(&resident.person, object));
        }
        resident.condemned.extend(unneeded);
        let came = self.send(&ask, who, &[ErrorCode::NotFound]).await;
        let resident = &mut self.residents[who];
        match came {
            Came::Done(_) => {
                resident.counter += 1;
                self.promised
                    .head(&resident.person, resident.counter, &head);
                resident.head = Some(head);
                for object in &rescued {
                    self.promised.object(&resident.person, object);
                }
                resident
                    .condemned
                    .retain(|object| !rescued.contains(object));
                resident.objects.splice(0..0, rescued);
            }
            Came::Failed => self.looks_again(who).await,
            // What was to be rescued is gone.
            Came::Refused => {
                assert!(!rescued.is_empty());
                resident
                    .condemned
                    .retain(|object| !rescued.contains(object));
                self.too_late += 1;
            }
        }
    }

    async fn consents(&mut self, who: usize) {
        self.is_published = false;
        let person = &self.residents[who].person;
        let consent = Said::ConsentGiven(Box::new(person.consent(&self.world)));
        let records = vec![person.state(&self.world, Some(person.device), consent, &[])];
        let errand = person.errand(&self.world, Purpose::Consent);
        let ask = person.appending(records.clone(), errand);
        match self.send(&ask, who, &[]).await {
            Came::Done(body) => {
                let person = &mut self.residents[who].person;
                person.keeps(&self.world, records, &body);
                self.promised.chain(person);
            }
            _ => self.looks_again(who).await,
        }
    }

    /// A device that does not know what became of its request reads where its chain and its head are.
    async fn looks_again(&mut self, who: usize) {
        let resident = &mut self.residents[who];
        let person = &mut resident.person;
        let stored = stored_chain(&self.world, person.account).await;
        let found = stored[person.records.len()..].to_vec();
        person.found(&self.world, found);
        let records = self.world.cell.shared().store().records();
        if let Some(head) = records.head(person.account, person.vault).await.unwrap() {
            resident.counter = head.mark.counter;
            resident.head = Some(cbor::decode(&head.bytes).unwrap());
        }
    }

    /// Whatever is read is either an error or the truth.
    async fn reads(&mut self, who: usize) {
        let resident = &self.residents[who];
        let (person, grant) = (&resident.person, resident.grant.clone());
        let kind = self.drawn % 4;
        let ask = match kind {
            0 => person.ask(
                EndpointId::ReadChain,
                person.errand(&self.world, Purpose::List),
            ),
            1 => person.ask(EndpointId::ReadHead, grant),
            2 if !resident.objects.is_empty() => {
                person.getting(ObjectId::of(&resident.objects[0]), &grant)
            }
            _ => Ask {
                body: cbor::encode(&HasObjects {
                    version: API_VERSION,
                    objects: resident
                        .objects
                        .iter()
                        .map(|one| ObjectId::of(one))
                        .collect(),
                })
                .into(),
                ..person.ask(EndpointId::HasObjects, grant)
            },
        };
        let Came::Done(body) = self.send(&ask, who, &[]).await else {
            return;
        };
        let resident = &self.residents[who];
        match ask.endpoint {
            EndpointId::ReadChain => {
                let length = decoded::<ChainPage>(&body).length;
                assert_eq!(length, resident.person.records.len() as u64);
            }
            EndpointId::ReadHead => assert_eq!(decoded::<HeadReply>(&body).head, resident.head),
            EndpointId::GetObject => assert_eq!(body, resident.objects[0]),
            _ => assert_eq!(
                decoded::<HasReply>(&body).stored,
                vec![true; resident.objects.len()]
            ),
        }
    }

    async fn reads_state(&mut self, who: usize) {
        if !self.is_published {
            return;
        }
        let person = &self.residents[who].person;
        let ask = person.ask(
            EndpointId::ReadState,
            person.errand(&self.world, Purpose::Verify),
        );
        if let Came::Done(body) = self.send(&ask, who, &[]).await {
            assert!(decoded::<StateReply>(&body).state.is_some());
        }
    }

    /// The cell's own work, while the store fails.
    async fn works(&mut self, publishes: bool) {
        let fault_seed = self.draw(usize::MAX) as u64;
        self.faults.strike_at_random(fault_seed, ONE_IN);
        let shared = self.world.cell.shared();
        if publishes {
            self.is_published |= shared.transparency.step().await.is_ok();
        } else {
            crate::housekeeping::sweep(shared).await;
        }
        self.failures += self.faults.stop().len();
    }

    async fn happens(mut self) -> Self {
        let who = self.draw(PEOPLE);
        match self.draw(20) {
            0..=3 => self.stores(who).await,
            4..=6 => self.moves_head(who).await,
            7..=8 => self.consents(who).await,
            9..=12 => self.reads(who).await,
            13 => self.reads_state(who).await,
            14..=15 => self.works(true).await,
            16 => self.works(false).await,
            17 => self.world.advance(DAY_MS / 8),
            18 if self.draw(3) == 0 => {
                self.world = self.world.restarted().await;
                self.is_published = false;
            }
            19 if self.draw(3) == 0 => return self.loses_power(who).await,
            _ => {}
        }
        self
    }

    /// The power goes while an object, a file of the log and a commit are half written.
    async fn loses_power(mut self, who: usize) -> Self {
        let lost = key(&self.residents[who].person, &fresh_object(&self.world));
        let torn = self.draw(5000);
        let half: Vec<PathBuf> = vec![
            format!("store/objects/{}", staged(&lost)).into(),
            "store/log/tile/0/x999/000.p/7~1-1".into(),
        ];
        let leave = |place: &Path| {
            for file in &half {
                let file = place.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, vec![7; torn]).unwrap();
            }
            let commits = place.join("store/records.sqlite-wal");
            let mut bytes = fs::read(&commits).unwrap_or_default();
            bytes.extend(vec![7; torn]);
            fs::write(commits, bytes).unwrap();
        };
        self.world = self.world.crashed(leave).await;
        for file in &half {
            assert!(
                !self.world.directory.path().join(file).exists(),
                "{}",
                file.display()
            );
        }
        self.is_published = false;
        self
    }
}

/// Where an object is written before it has its name, below the directory of the objects.
fn staged(key: &ObjectKey) -> String {
    let name = key.object.to_string();
    format!("{}/{}/{}/{name}#1", key.account, key.vault, &name[..2])
}

async fn everything_acknowledged_is_there(seed: u64) {
    println!("seed {seed}");
    let mut life = Life::begin(seed).await;
    for event in 0..EVENTS {
        life = life.happens().await;
        if event % 10 == 0 {
            life.promised.is_kept(&life.world).await;
        }
    }
    assert!(life.failures > EVENTS / 10, "{} failures", life.failures);
    println!(
        "{} failures, rescued too late {} times",
        life.failures, life.too_late
    );
    life.faults.stop();
    life.promised.is_kept(&life.world).await;
    step(&life.world).await;
    let mut chains = BTreeMap::new();
    for resident in &life.residents {
        let account = resident.person.account;
        chains.insert(account, stored_chain(&life.world, account).await);
    }
    the_log_has(&life.world, &chains).await;
    let people: Vec<&Person> = life.residents.iter().map(|one| &one.person).collect();
    nothing_is_left_over(&life.world, &people).await;
    life.promised.is_kept(&life.world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_what_was_acknowledged_is_there() {
    for seed in SEEDS {
        everything_acknowledged_is_there(seed).await;
    }
}
