//! Requests and statements that are wrong in one thing only: each check refuses by itself, with its
//! own code, and what is stored stays as it was.

use core::pin::Pin;
use core::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use candor_wire::api::{API_VERSION, AppendChain, EndpointId, ErrorCode, endpoint};
use candor_wire::cbor;
use candor_wire::chain::Record;
use candor_wire::consent_record::{CONSENT_RECORD_VERSION, ServiceCode, Withdrawal};
use candor_wire::errand::{ERRAND_VERSION, ErrandToken, Purpose, SignedErrand};
use candor_wire::ids::{AccountId, CellId, DeviceId, RequestNonce};
use candor_wire::limits::{BODY_MAX_BYTES, REQUEST_SKEW_SECONDS};
use candor_wire::request::{self, Covered};
use candor_wire::sign::{Domain, SecretKey};
use candor_wire::statement::{Body as Said, Entry, SignedEntry, Statement, commitment};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;

use super::world::{Ask, Person, World, error, object};
use crate::gate::{HEADERS_MAX, HEADERS_MAX_BYTES};

/// A body that does not say how long it is.
struct Untold(Option<Bytes>);

impl http_body::Body for Untold {
    type Data = Bytes;
    type Error = core::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn code(world: &World, request: Request<Body>) -> Option<ErrorCode> {
    error(&world.send(request).await.1)
}

fn bytes_of(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

fn read(world: &World, person: &Person) -> Request<Body> {
    let errand = person.errand(world, Purpose::List);
    person.sign(world, &person.ask(EndpointId::ReadChain, errand))
}

#[tokio::test]
async fn headers_are_few_and_short() {
    let world = World::new().await;
    let person = world.person().await;
    let more = HeaderName::from_static("x-more");
    for (over, expected) in [(0, None), (1, Some(ErrorCode::TooLarge))] {
        let mut many = read(&world, &person);
        let headers = many.headers_mut();
        while headers.len() < HEADERS_MAX + over {
            headers.append(&more, HeaderValue::from_static(""));
        }
        assert_eq!(code(&world, many).await, expected, "{over} too many");

        let mut long = read(&world, &person);
        let headers = long.headers_mut();
        let left = HEADERS_MAX_BYTES - bytes_of(headers) - more.as_str().len();
        let filling = "y".repeat(left + over);
        headers.insert(&more, filling.parse().unwrap());
        assert_eq!(bytes_of(headers), HEADERS_MAX_BYTES + over);
        assert_eq!(code(&world, long).await, expected, "{over} too long");
    }
}

#[tokio::test]
async fn paths_and_queries_are_short() {
    let world = World::new().await;
    let person = world.person().await;
    let errand = person.errand(&world, Purpose::List);
    let ask = person.ask(EndpointId::ReadChain, errand);
    for (bytes, expected) in [(1024, ErrorCode::Malformed), (1025, ErrorCode::TooLarge)] {
        let digits = bytes - ask.path.len() - "from=".len();
        let query = format!("from={}", "9".repeat(digits));
        let long = Ask {
            query,
            ..person.ask(EndpointId::ReadChain, person.errand(&world, Purpose::List))
        };
        assert_eq!(person.outcome(&world, &long).await, Some(expected));
    }
}

#[tokio::test]
async fn bodies_are_of_the_kind_and_length_of_their_endpoint() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let has = person.ask(EndpointId::HasObjects, grant.clone());
    for (bytes, expected) in [
        (BODY_MAX_BYTES, ErrorCode::Malformed),
        (BODY_MAX_BYTES + 1, ErrorCode::TooLarge),
    ] {
        let long = Ask {
            body: vec![0; bytes].into(),
            ..person.ask(EndpointId::HasObjects, grant.clone())
        };
        assert_eq!(person.outcome(&world, &long).await, Some(expected));
    }
    // Where there is to be none, one that does not tell its length is one.
    let mut untold = read(&world, &person);
    *untold.body_mut() = Body::new(Untold(None));
    assert_eq!(code(&world, untold).await, Some(ErrorCode::Malformed));

    let typed = |ask: &Ask, types: &[&'static str]| {
        let mut request = person.sign(&world, ask);
        for one in types {
            let value = HeaderValue::from_static(one);
            request.headers_mut().append(CONTENT_TYPE, value);
        }
        request
    };
    let put = person.putting(&object(1), &grant);
    for types in [&["text/plain"][..], &["application/cbor"]] {
        let refused = code(&world, typed(&put, types)).await;
        assert_eq!(refused, Some(ErrorCode::Malformed), "{types:?}");
    }
    let octets = "application/octet-stream";
    let twice = code(&world, typed(&put, &[octets, octets])).await;
    assert_eq!(twice, Some(ErrorCode::Malformed));
    let name = candor_wire::ObjectId::of(&object(1));
    let getting = person.getting(name, &grant);
    assert_eq!(
        person.outcome(&world, &getting).await,
        Some(ErrorCode::NotFound)
    );
    let message = Ask {
        body: cbor::encode(&candor_wire::api::HasObjects {
            version: API_VERSION,
            objects: vec![name],
        })
        .into(),
        ..has
    };
    let wrong = code(&world, typed(&message, &[octets])).await;
    assert_eq!(wrong, Some(ErrorCode::Malformed));
    let right = candor_wire::api::MEDIA_CBOR;
    assert_eq!(code(&world, typed(&message, &[right])).await, None);
}

/// A request that signs what it says, whatever it says.
fn signed(world: &World, ask: &Ask, key: &SecretKey, placement: &str) -> Request<Body> {
    let row = endpoint(ask.endpoint);
    let (device, authority) = (
        request::device_header(ask.signer.as_ref()),
        candor_wire::cell::authority(&world.cell.id()),
    );
    let covered = Covered {
        method: row.method.name(),
        authority: &authority,
        path: &ask.path,
        query: &ask.query,
        device: &device,
        authorization: &ask.authority,
        placement,
        digest: None,
    };
    let nonce = RequestNonce::from_bytes(world.fresh_bytes());
    let headers = request::sign(&covered, world.now().seconds(), &nonce, key.ed25519());
    Request::builder()
        .method(row.method.name())
        .uri(&ask.path)
        .header(request::HEADER_DEVICE, &device)
        .header(request::HEADER_AUTHORITY, &ask.authority)
        .header(request::HEADER_PLACEMENT, placement)
        .header(request::HEADER_SIGNATURE_INPUT, headers.input)
        .header(request::HEADER_SIGNATURE, headers.signature)
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_request_names_the_placement_that_there_is() {
    let world = World::new().await;
    let person = world.person().await;
    for (placement, expected) in [
        ("1", None),
        ("0", Some(ErrorCode::Conflict)),
        ("2", Some(ErrorCode::Conflict)),
        ("01", Some(ErrorCode::Conflict)),
    ] {
        let errand = person.errand(&world, Purpose::List);
        let ask = person.ask(EndpointId::ReadChain, errand);
        let request = signed(&world, &ask, &person.key, placement);
        assert_eq!(code(&world, request).await, expected, "{placement}");
    }
}

#[tokio::test]
async fn what_has_to_be_signed_is_there_once() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let mut none = read(&world, &person);
    none.headers_mut().remove(request::HEADER_AUTHORITY);
    assert_eq!(code(&world, none).await, Some(ErrorCode::NotSigned));
    let mut twice = read(&world, &person);
    let value = twice.headers()[request::HEADER_AUTHORITY].clone();
    twice.headers_mut().append(request::HEADER_AUTHORITY, value);
    assert_eq!(code(&world, twice).await, Some(ErrorCode::Malformed));
    let has = Ask {
        body: Bytes::from_static(b"message"),
        ..person.ask(EndpointId::HasObjects, grant)
    };
    let mut undigested = person.sign(&world, &has);
    undigested.headers_mut().remove(request::HEADER_DIGEST);
    assert_eq!(code(&world, undigested).await, Some(ErrorCode::NotSigned));
}

/// The root key finds its account as itself, and not in the name of a device.
#[tokio::test]
async fn only_the_root_itself_looks_for_its_account() {
    let world = World::new().await;
    let person = world.person().await;
    for (signer, key, expected) in [
        (None, &*person.root, None),
        (None, &person.key, Some(ErrorCode::NotFound)),
        (Some(person.device), &person.key, Some(ErrorCode::NotFound)),
        (
            Some(person.device),
            &*person.root,
            Some(ErrorCode::NotFound),
        ),
    ] {
        let token = token(&world, &person, Purpose::Recover);
        let errand = header(&ErrandToken { signer, ..token }, key);
        let find = Ask {
            signer,
            ..person.ask(EndpointId::FindAccount, errand)
        };
        let request = signed(&world, &find, key, "1");
        assert_eq!(code(&world, request).await, expected, "{signer:?}");
    }
}

fn token(world: &World, person: &Person, purpose: Purpose) -> ErrandToken {
    ErrandToken {
        version: ERRAND_VERSION,
        account: Some(person.account),
        signer: Some(person.device),
        purpose,
        cell: world.cell.id(),
        created: world.now(),
        expires: world.now().plus_ms(60_000),
        nonce: RequestNonce::from_bytes(world.fresh_bytes()),
    }
}

fn header(token: &ErrandToken, key: &SecretKey) -> String {
    let signed = SignedErrand::sign(token, key.ed25519());
    format!("errand {}", signed.to_text())
}

#[tokio::test]
async fn an_errand_is_the_caller_s_own() {
    let world = World::new().await;
    let person = world.person().await;
    let good = || token(&world, &person, Purpose::Recover);
    let read = async |errand: String, signer| {
        let ask = Ask {
            signer,
            ..person.ask(EndpointId::ReadChain, errand)
        };
        person.outcome(&world, &ask).await
    };
    let device = Some(person.device);
    assert_eq!(read(header(&good(), &person.key), device).await, None);
    let another = AccountId::from_bytes([0xee; 16]);
    for wrong in [
        ErrandToken {
            signer: Some(DeviceId::from_bytes([0xee; 16])),
            ..good()
        },
        ErrandToken {
            signer: None,
            ..good()
        },
        ErrandToken {
            account: Some(another),
            ..good()
        },
        ErrandToken {
            account: None,
            ..good()
        },
        ErrandToken {
            account: None,
            signer: None,
            ..good()
        },
        ErrandToken {
            cell: CellId::from_bytes([0xee; 16]),
            ..good()
        },
    ] {
        let refused = read(header(&wrong, &person.key), device).await;
        assert_eq!(refused, Some(ErrorCode::NotPermitted), "{wrong:?}");
    }
    // The root need not know its account, but must not name another one.
    let roots = |account| ErrandToken {
        account,
        signer: None,
        ..good()
    };
    for (account, expected) in [
        (None, None),
        (Some(person.account), None),
        (Some(another), Some(ErrorCode::NotPermitted)),
    ] {
        let errand = header(&roots(account), &person.root);
        assert_eq!(read(errand, None).await, expected, "{account:?}");
    }
    let unsigned = read(header(&good(), &person.root), device).await;
    assert_eq!(unsigned, Some(ErrorCode::NotPermitted));
    // Signed well, and no errand at all.
    let token = b"no errand".to_vec();
    let signature = person.key.ed25519().sign(Domain::ERRAND, &token);
    let unreadable = format!("errand {}", SignedErrand { token, signature }.to_text());
    assert_eq!(read(unreadable, device).await, Some(ErrorCode::Malformed));
}

#[tokio::test]
async fn an_errand_holds_for_its_time_and_the_difference_of_the_clocks() {
    let world = World::new().await;
    let person = world.person().await;
    let skew_ms = REQUEST_SKEW_SECONDS * 1000;
    let begins = |at| ErrandToken {
        created: at,
        expires: at.plus_ms(60_000),
        ..token(&world, &person, Purpose::List)
    };
    let read = async |token: &ErrandToken| {
        let ask = person.ask(EndpointId::ReadChain, header(token, &person.key));
        person.outcome(&world, &ask).await
    };
    let refused = Some(ErrorCode::NotPermitted);
    assert_eq!(read(&begins(world.now().plus_ms(skew_ms))).await, None);
    let later = begins(world.now().plus_ms(skew_ms + 1));
    assert_eq!(read(&later).await, refused);
    let now = begins(world.now());
    world.advance(60_000 + skew_ms - 1);
    assert_eq!(read(&now).await, None);
    world.advance(1);
    assert_eq!(read(&now).await, refused);
}

#[tokio::test]
async fn a_grant_is_a_device_s_and_opens_no_chain() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let by_root = Ask {
        signer: None,
        ..person.ask(EndpointId::ReadChain, grant.clone())
    };
    assert_eq!(
        person.outcome(&world, &by_root).await,
        Some(ErrorCode::NotPermitted)
    );
    let record = person.state(&world, Some(person.device), withdrawal(), &[]);
    let append = person.appending(vec![record], grant);
    assert_eq!(
        person.outcome(&world, &append).await,
        Some(ErrorCode::NotPermitted)
    );
    assert_eq!(person.chain(&world).await.records, person.records);
}

fn withdrawal() -> Said {
    Said::ConsentWithdrawn(Withdrawal {
        version: CONSENT_RECORD_VERSION,
        service: ServiceCode::Backup,
        vault: None,
    })
}

#[tokio::test]
async fn an_errand_appends_only_what_it_is_for() {
    let world = World::new().await;
    let mut person = world.person().await;
    person.consents(&world).await;
    let other = DeviceId::from_bytes([7; 16]);
    let added = || person.device_added(other, &person.key);
    let consent = || Said::ConsentGiven(Box::new(person.consent(&world)));
    let next_epoch = || {
        let Said::Epoch(mut epoch) = person.epoch(None) else {
            panic!("another body")
        };
        (epoch.epoch, epoch.earlier) = (2, vec![1; 8]);
        Said::Epoch(epoch)
    };
    let device = Some(person.device);
    let cases = [
        (Purpose::Consent, device, added()),
        (Purpose::Recover, device, added()),
        (Purpose::Recover, device, consent()),
        (Purpose::Recover, device, withdrawal()),
        (Purpose::Recover, None, consent()),
        (Purpose::Recover, None, withdrawal()),
        (Purpose::List, device, consent()),
        (Purpose::Restore, device, withdrawal()),
        (Purpose::Verify, device, next_epoch()),
        (Purpose::Create, device, consent()),
    ];
    for (purpose, signer, said) in cases {
        let kind = said.kind();
        let record = person.state(&world, signer, said, &[]);
        let token = ErrandToken {
            signer,
            ..token(&world, &person, purpose)
        };
        let key = signer.map_or(&*person.root, |_| &person.key);
        let append = Ask {
            signer,
            ..person.appending(vec![record], header(&token, key))
        };
        assert_eq!(
            person.outcome(&world, &append).await,
            Some(ErrorCode::NotPermitted),
            "{purpose:?} {kind:?}"
        );
    }
    // One that it may not append spoils those that it may.
    let first = person.state(&world, device, withdrawal(), &[]);
    let second = person.state(&world, device, added(), std::slice::from_ref(&first));
    let both = person.appending(vec![first, second], person.errand(&world, Purpose::Consent));
    assert_eq!(
        person.outcome(&world, &both).await,
        Some(ErrorCode::NotPermitted)
    );
    assert_eq!(person.chain(&world).await.records, person.records);

    let record = person.state(&world, device, next_epoch(), &[]);
    let begun = person.appending(vec![record], person.errand(&world, Purpose::Recover));
    assert_eq!(person.outcome(&world, &begun).await, None);
}

/// The same statement with another entry, signed again by the device.
fn changed(person: &Person, record: &Record, change: impl FnOnce(&mut Entry)) -> Record {
    let statement = record.statement.clone().unwrap();
    let signed: SignedEntry = cbor::decode(&statement.signed).unwrap();
    let mut entry: Entry = cbor::decode(&signed.entry).unwrap();
    change(&mut entry);
    let entry = cbor::encode(&entry);
    let signed = cbor::encode(&SignedEntry {
        signature: person.key.sign(Domain::STATEMENT, &entry),
        entry,
    });
    Record {
        commitment: commitment(&statement.salt, &signed),
        statement: Some(Statement {
            signed,
            ..statement
        }),
        ..record.clone()
    }
}

#[tokio::test]
async fn statements_come_whole_and_from_their_signer() {
    let world = World::new().await;
    let mut person = world.person().await;
    person.consents(&world).await;
    let good = person.state(&world, Some(person.device), withdrawal(), &[]);
    let (mut stub, mut acknowledged, mut broken) = (good.clone(), good.clone(), good.clone());
    stub.statement = None;
    acknowledged.acknowledgement = person.records[0].acknowledgement.clone();
    broken.statement.as_mut().unwrap().signed.push(0);
    let newer = changed(&person, &good, |entry| entry.version += 1);
    let by_root = person.state(&world, None, withdrawal(), &[]);
    let unsigned = changed(&person, &good, |entry| entry.signer = None);
    for (record, expected) in [
        (stub, ErrorCode::Malformed),
        (acknowledged, ErrorCode::Malformed),
        (broken, ErrorCode::Malformed),
        (newer, ErrorCode::Version),
        (by_root, ErrorCode::NotPermitted),
        (unsigned, ErrorCode::NotPermitted),
    ] {
        let errand = person.errand(&world, Purpose::Consent);
        let append = person.appending(vec![record.clone()], errand);
        let refused = person.outcome(&world, &append).await;
        assert_eq!(refused, Some(expected), "{record:?}");
    }
    let body = AppendChain {
        version: API_VERSION + 1,
        after: person.view.as_ref().unwrap().tip(),
        records: vec![good.clone()],
    };
    let errand = person.errand(&world, Purpose::Consent);
    let newer_api = Ask {
        body: cbor::encode(&body).into(),
        ..person.ask(EndpointId::AppendChain, errand)
    };
    assert_eq!(
        person.outcome(&world, &newer_api).await,
        Some(ErrorCode::Version)
    );
    assert_eq!(person.chain(&world).await.records, person.records);
    let append = person.appending(vec![good], person.errand(&world, Purpose::Consent));
    assert_eq!(person.outcome(&world, &append).await, None);
}

#[tokio::test]
async fn a_consent_is_for_this_cell_and_begins_by_now() {
    let world = World::new().await;
    let mut person = world.person().await;
    person.consents(&world).await;
    let skew_ms = REQUEST_SKEW_SECONDS * 1000;
    let mut elsewhere = person.consent(&world);
    elsewhere.recipient.cell = CellId::from_bytes([9; 16]);
    let mut later = person.consent(&world);
    later.given_at = world.now().plus_ms(skew_ms + 1);
    for lie in [elsewhere, later] {
        let said = vec![Said::ConsentGiven(Box::new(lie))];
        assert_eq!(person.append(&world, said).await, Some(ErrorCode::Chain));
    }
    assert_eq!(person.chain(&world).await.records, person.records);
    let mut ahead = person.consent(&world);
    ahead.given_at = world.now().plus_ms(skew_ms);
    let said = vec![Said::ConsentGiven(Box::new(ahead))];
    assert_eq!(person.append(&world, said).await, None);
}
