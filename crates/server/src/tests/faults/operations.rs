//! Every operation of the API, every call of the store that it makes, every kind of fault.

use axum::body::Body;
use bytes::Bytes;
use candor_store::faulty::{Call, FaultKind, Faults};
use candor_wire::api::{
    API_VERSION, CellDescription, ChainPage, ENDPOINTS, EndpointId, ErasureReply, ErrorCode,
    FoundAccount, HasObjects, HasReply, HeadReply, LinkReply, ObjectPage, RunsPage, StateReply,
    SwapHead,
};
use candor_wire::cbor;
use candor_wire::chain::Record;
use candor_wire::erasure::receipt_name;
use candor_wire::errand::Purpose;
use candor_wire::head::SignedHead;
use candor_wire::ids::{AccountId, ObjectId, to_hex};
use candor_wire::linking::LINK_MAX_MS;
use candor_wire::statement::Body as Said;
use candor_wire::time::DAY_MS;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{
    HANG_MAX, Promised, fresh_object, has_erased, nothing_is_left_over, refusal, stored_chain,
};
use crate::tests::links;
use crate::tests::transparency::step;
use crate::tests::world::{Ask, Person, World, decoded, error};

/// An account with a consent, objects, a head and a published log, over a store that fails when it is told to.
struct Stage {
    world: World,
    faults: Faults,
    person: Person,
    grant: String,
    /// What is stored, oldest first; the first is the manifest of every head.
    objects: Vec<Bytes>,
    head: Option<SignedHead>,
    counter: u64,
    promised: Promised,
    /// Who opened an account, beside the person.
    others: Vec<Person>,
    /// Of a vault that somebody had erased.
    receipt: String,
}

/// One request, to be sent until it succeeds, and what its success promises.
struct Attempt {
    ask: Asked,
    promise: Promise,
}

enum Asked {
    Signed(Ask),
    Open(String),
    /// By whoever holds the key of a link.
    Linked(Box<Person>, Ask),
    /// A new person opens an account with this right.
    Opening(Box<Person>, candor_wire::cell::InvitationRight),
}

enum Promise {
    /// It reads, and the reply is looked at.
    Reply(fn(&Stage, &[u8])),
    Opened,
    Appended(Vec<Record>),
    Moved(SignedHead),
    Stored(Bytes),
}

impl Stage {
    async fn new() -> Self {
        let faults = Faults::default();
        let world = World::over(&faults, |_| {}).await;
        let erased = has_erased(&world).await;
        world.advance(i64::from(world.cell.config().retention_days) * DAY_MS);
        crate::housekeeping::sweep(world.cell.shared()).await;
        let mut person = world.person().await;
        let grant = person.consents(&world).await;
        let mut stage = Self {
            world,
            faults,
            person,
            grant,
            objects: Vec::new(),
            head: None,
            counter: 0,
            promised: Promised::default(),
            others: Vec::new(),
            receipt: format!("/v1/erasures/{}", to_hex(&receipt_name(&erased))),
        };
        stage.promised.chain(&stage.person);
        for id in [
            EndpointId::PutObject,
            EndpointId::PutObject,
            EndpointId::SwapHead,
        ] {
            let mut attempt = stage.attempt(id).await;
            stage.must_succeed(&mut attempt).await;
        }
        stage
    }

    /// A request to this endpoint that was never made before. A new endpoint has its line here, or this does not build.
    async fn attempt(&mut self, id: EndpointId) -> Attempt {
        if matches!(
            id,
            EndpointId::OpenLink | EndpointId::PutLinkMessage | EndpointId::ReadLink
        ) {
            // An account has few links open at one time.
            self.world.advance(LINK_MAX_MS);
        }
        let (world, person) = (&self.world, &self.person);
        let with_grant = |id| person.ask(id, self.grant.clone());
        let reads = |ask: Ask, looks: fn(&Self, &[u8])| Attempt {
            ask: Asked::Signed(ask),
            promise: Promise::Reply(looks),
        };
        match id {
            EndpointId::DescribeCell => Attempt {
                ask: Asked::Open("/v1/cell".into()),
                promise: Promise::Reply(|stage, body| {
                    assert_eq!(body, stage.world.cell.shared().description);
                    assert!(!decoded::<CellDescription>(body).keys.is_empty());
                }),
            },
            EndpointId::ReadLog => Attempt {
                ask: Asked::Open("/log/checkpoint".into()),
                promise: Promise::Reply(|stage, body| {
                    let file = stage.world.directory.path().join("store/log/checkpoint");
                    assert_eq!(body, std::fs::read(file).unwrap());
                }),
            },
            EndpointId::OpenAccount => {
                let right = world.cell.invite().await.unwrap().right.unwrap();
                Attempt {
                    ask: Asked::Opening(Box::new(Person::new(world)), right),
                    promise: Promise::Opened,
                }
            }
            EndpointId::FindAccount => {
                let errand = person.errand_of(world, Purpose::Recover, None, None);
                let ask = Ask {
                    signer: None,
                    ..person.ask(id, errand)
                };
                reads(ask, |stage, body| {
                    assert_eq!(decoded::<FoundAccount>(body).account, stage.person.account);
                })
            }
            EndpointId::ReadChain => reads(
                person.ask(id, person.errand(world, Purpose::List)),
                |stage, body| {
                    let page: ChainPage = decoded(body);
                    assert_eq!(
                        page.length,
                        stage.person.view.as_ref().unwrap().next_sequence()
                    );
                    assert!(stage.person.records.starts_with(&page.records));
                },
            ),
            EndpointId::AppendChain => {
                let consent = Said::ConsentGiven(Box::new(person.consent(world)));
                let records = vec![person.state(world, Some(person.device), consent, &[])];
                let errand = person.errand(world, Purpose::Consent);
                Attempt {
                    ask: Asked::Signed(person.appending(records.clone(), errand)),
                    promise: Promise::Appended(records),
                }
            }
            EndpointId::ReadHead => reads(with_grant(id), |stage, body| {
                assert_eq!(decoded::<HeadReply>(body).head, stage.head);
            }),
            EndpointId::SwapHead => {
                let before = self.head.as_ref().map(SignedHead::hash);
                let manifest = ObjectId::of(&self.objects[0]);
                let head = person.head(world, self.counter + 1, before, manifest);
                let body = SwapHead {
                    version: API_VERSION,
                    expected: before,
                    head: head.clone(),
                    rescued: Some(
                        self.objects[1..]
                            .iter()
                            .take(8)
                            .map(|one| ObjectId::of(one))
                            .collect(),
                    ),
                };
                let ask = Ask {
                    body: cbor::encode(&body).into(),
                    ..with_grant(id)
                };
                Attempt {
                    ask: Asked::Signed(ask),
                    promise: Promise::Moved(head),
                }
            }
            EndpointId::PutObject => {
                let object = fresh_object(world);
                Attempt {
                    ask: Asked::Signed(person.putting(&object, &self.grant)),
                    promise: Promise::Stored(object),
                }
            }
            EndpointId::GetObject => reads(
                person.getting(ObjectId::of(&self.objects[0]), &self.grant),
                |stage, body| assert_eq!(body, stage.objects[0]),
            ),
            EndpointId::HasObjects => {
                let body = HasObjects {
                    version: API_VERSION,
                    objects: self.objects.iter().map(|one| ObjectId::of(one)).collect(),
                };
                let ask = Ask {
                    body: cbor::encode(&body).into(),
                    ..with_grant(id)
                };
                reads(ask, |stage, body| {
                    let reply: HasReply = decoded(body);
                    assert_eq!(reply.stored, vec![true; stage.objects.len()]);
                })
            }
            EndpointId::ListObjects => reads(with_grant(id), |stage, body| {
                assert_eq!(
                    decoded::<ObjectPage>(body).objects.len(),
                    stage.objects.len()
                );
            }),
            EndpointId::ReadState => reads(
                person.ask(id, person.errand(world, Purpose::Verify)),
                |_, body| assert!(decoded::<StateReply>(body).state.is_some()),
            ),
            EndpointId::ReadRuns => reads(with_grant(id), |_, body| {
                assert!(decoded::<RunsPage>(body).heads.is_empty());
            }),
            EndpointId::OpenLink => Attempt {
                ask: Asked::Signed(links::opening(world, person, &links::linker(world))),
                // That it is open is seen by who leaves a message there.
                promise: Promise::Reply(|_, _| {}),
            },
            EndpointId::PutLinkMessage | EndpointId::ReadLink => {
                let linker = links::linker(world);
                let ask = links::opening(world, person, &linker);
                assert_eq!(person.outcome(world, &ask).await, None);
                let ask = links::asking(world, &linker, id, 0);
                Attempt {
                    ask: Asked::Linked(Box::new(linker), ask),
                    promise: Promise::Reply(if id == EndpointId::ReadLink {
                        |_, body| assert_eq!(decoded::<LinkReply>(body).messages.len(), 4)
                    } else {
                        |_, _| {}
                    }),
                }
            }
            EndpointId::ReadErasure => Attempt {
                ask: Asked::Open(self.receipt.clone()),
                promise: Promise::Reply(|stage, body| {
                    let reply: ErasureReply = decoded(body);
                    let keyring = &stage.world.cell.shared().keyring;
                    assert!(reply.erasure.verify(keyring).is_ok());
                }),
            },
        }
    }

    /// The request with a nonce that was never used.
    fn request(&self, ask: &mut Asked) -> Request<Body> {
        match ask {
            Asked::Signed(ask) => self.person.sign(&self.world, ask),
            Asked::Open(path) => Request::get(path.as_str())
                .header("content-length", "0")
                .body(Body::empty())
                .unwrap(),
            Asked::Opening(person, right) => person.opening(&self.world, right),
            Asked::Linked(linker, ask) => linker.sign(&self.world, ask),
        }
    }

    /// Sends it. `Err`: the reply broke off before its end.
    async fn send(&self, attempt: &mut Attempt) -> Result<(StatusCode, Bytes), StatusCode> {
        let request = self.request(&mut attempt.ask);
        let sending = async {
            let response = self.world.cell.service().oneshot(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await;
            body.map(|body| (status, body.to_bytes()))
                .map_err(|_| status)
        };
        let sent = tokio::time::timeout(HANG_MAX, sending).await;
        sent.expect("a request hangs")
    }

    /// Writes down what a success promises.
    fn keep(&mut self, attempt: &mut Attempt, body: &[u8]) {
        match &attempt.promise {
            Promise::Reply(looks) => looks(self, body),
            Promise::Opened => {
                if let Asked::Opening(person, _) = &mut attempt.ask {
                    let mut opened = core::mem::replace(&mut **person, Person::new(&self.world));
                    opened.keep(&self.world, body);
                    self.promised.chain(&opened);
                    self.others.push(opened);
                }
            }
            Promise::Appended(records) => {
                self.person.keeps(&self.world, records.clone(), body);
                self.promised.chain(&self.person);
            }
            Promise::Moved(head) => {
                self.counter += 1;
                self.promised.head(&self.person, self.counter, head);
                self.head = Some(head.clone());
            }
            Promise::Stored(object) => {
                self.promised.object(&self.person, object);
                self.objects.push(object.clone());
            }
        }
    }

    /// Sent without faults, as a device sends again what failed.
    async fn must_succeed(&mut self, attempt: &mut Attempt) {
        let (status, body) = self.send(attempt).await.unwrap();
        if let (Promise::Appended(records), Some(ErrorCode::Conflict)) =
            (&attempt.promise, error(&body))
        {
            // It was done, and only the answer was lost: the device finds it on the chain.
            let stored = stored_chain(&self.world, self.person.account).await;
            let found = &stored[self.person.records.len()..];
            assert!(
                found
                    .iter()
                    .map(|one| one.commitment)
                    .eq(records.iter().map(|one| one.commitment))
            );
            self.person.found(&self.world, found.to_vec());
            self.promised.chain(&self.person);
            return;
        }
        assert!(status.is_success(), "{status} {:?}", error(&body));
        self.keep(attempt, &body);
    }

    /// Lets nobody remember what the store says, and publishes what the last attempt left.
    async fn make_ready(&self) {
        step(&self.world).await;
        for account in self.accounts() {
            self.world.cell.shared().views.forget(&account);
        }
    }

    fn accounts(&self) -> Vec<AccountId> {
        self.promised.chains.keys().copied().collect()
    }

    /// What a request to this endpoint calls.
    async fn calls(&mut self, id: EndpointId) -> Vec<Call> {
        let mut attempt = self.attempt(id).await;
        self.make_ready().await;
        self.faults.stop();
        let sent = self.send(&mut attempt).await;
        let calls = self.faults.calls();
        let (status, body) = sent.unwrap();
        assert!(status.is_success(), "{id:?}: {status} {:?}", error(&body));
        self.keep(&mut attempt, &body);
        calls
    }

    /// One fault at one call of one request.
    async fn suffers(&mut self, id: EndpointId, place: usize, call: Call, kind: FaultKind) {
        let mut attempt = self.attempt(id).await;
        self.make_ready().await;
        self.faults.strike(place, kind);
        let sent = self.send(&mut attempt).await;
        let struck = self.faults.stop();
        let told = format!("{id:?}, {kind:?} at call {place}, {}", call.name);
        assert_eq!(struck, [(call, kind)], "{told}");
        match sent {
            Ok((status, body)) if status.is_success() => {
                assert_eq!(refusal(kind), None, "{told}");
                assert_ne!(kind, FaultKind::Torn, "{told}");
                self.keep(&mut attempt, &body);
                self.promised.is_kept(&self.world).await;
                return;
            }
            Ok((status, body)) => {
                let code = error(&body);
                assert_eq!(code, refusal(kind), "{told}");
                assert_eq!(Some(status.as_u16()), code.map(ErrorCode::status), "{told}");
            }
            Err(_) => assert_eq!(kind, FaultKind::Torn, "{told}"),
        }
        self.promised.is_kept(&self.world).await;
        self.must_succeed(&mut attempt).await;
        // What the cell remembers of the account is not behind, either.
        step(&self.world).await;
        let mut next = self.attempt(id).await;
        self.must_succeed(&mut next).await;
        self.promised.is_kept(&self.world).await;
    }
}

impl Stage {
    /// The store is gone from one call on, also for what cleans up after the failure, and comes back after the reply.
    async fn suffers_all(&mut self, id: EndpointId, place: usize, kind: FaultKind) {
        let mut attempt = self.attempt(id).await;
        self.make_ready().await;
        self.faults.strike_from(place, kind);
        let sent = self.send(&mut attempt).await;
        let struck = self.faults.stop();
        let told = format!("{id:?}, {kind:?} from call {place} on");
        let (status, body) = sent.unwrap();
        if status.is_success() {
            assert!(struck.is_empty(), "{told}");
            self.keep(&mut attempt, &body);
        } else {
            assert_eq!(error(&body), refusal(kind), "{told}");
            self.promised.is_kept(&self.world).await;
            // An upload that was being taken away when the store went is let go by the cell's next round.
            crate::housekeeping::sweep(self.world.cell.shared()).await;
            self.must_succeed(&mut attempt).await;
        }
        self.promised.is_kept(&self.world).await;
    }
}

/// What these endpoints answer lies in memory.
const STORES_NOTHING: [EndpointId; 1] = [EndpointId::DescribeCell];

async fn suffers_every_fault(id: EndpointId) -> usize {
    let mut stage = Stage::new().await;
    let calls = stage.calls(id).await;
    assert_eq!(calls.is_empty(), STORES_NOTHING.contains(&id), "{id:?}");
    let mut suffered = 0;
    for (place, call) in calls.into_iter().enumerate() {
        for kind in FaultKind::ALL
            .into_iter()
            .filter(|kind| call.can_meet(*kind))
        {
            stage.suffers(id, place, call, kind).await;
            suffered += 1;
        }
        for kind in [
            FaultKind::Fails,
            FaultKind::Lost,
            FaultKind::Full,
            FaultKind::Busy,
        ] {
            stage.suffers_all(id, place, kind).await;
            suffered += 1;
        }
    }
    let mut people: Vec<&Person> = stage.others.iter().collect();
    people.push(&stage.person);
    nothing_is_left_over(&stage.world, &people).await;
    suffered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_survives_every_fault_of_every_call() {
    let mut suffered = 0;
    for endpoint in ENDPOINTS {
        let faults = suffers_every_fault(endpoint.id).await;
        println!("{:?}: {faults} faults", endpoint.id);
        suffered += faults;
    }
    assert!(suffered > 100, "{suffered}");
}
