//! Objects and heads.

use axum::body::Body;
use bytes::Bytes;
use candor_wire::api::{
    API_VERSION, EndpointId, ErrorCode, ErrorReply, HasObjects, HasReply, HeadReply, ObjectPage,
    SwapHead,
};
use candor_wire::cbor;
use candor_wire::errand::Purpose;
use candor_wire::head::{HeadHash, SignedHead};
use candor_wire::ids::{ObjectId, VaultId};
use http::StatusCode;

use super::world::{Ask, Person, World, decoded, object};
use crate::log::Log;

async fn has(world: &World, person: &Person, objects: Vec<ObjectId>) -> Vec<bool> {
    let body = cbor::encode(&HasObjects {
        version: API_VERSION,
        objects,
    });
    let ask = person.ask(
        EndpointId::HasObjects,
        person.errand(world, Purpose::Verify),
    );
    let (status, body) = person
        .call(
            world,
            &Ask {
                body: body.into(),
                ..ask
            },
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    decoded::<HasReply>(&body).stored
}

#[tokio::test]
async fn what_was_stored_comes_back_whole_and_in_parts() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let sent: Bytes = (0..16 * 1024 * 1024u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (name, put) = (ObjectId::of(&sent), person.putting(&sent, &grant));
    assert_eq!(person.outcome(&world, &put).await, None);
    assert_eq!(
        person.outcome(&world, &put).await,
        None,
        "twice is like once"
    );
    let get = person.getting(name, &grant);
    assert!(person.call(&world, &get).await == (StatusCode::OK, sent.clone()));
    let part = Ask {
        range: Some("bytes=1000000-3000000"),
        ..person.getting(name, &grant)
    };
    let got = person.call(&world, &part).await;
    assert!(
        got == (
            StatusCode::PARTIAL_CONTENT,
            sent.slice(1_000_000..=3_000_000)
        )
    );
    let outside = Ask {
        range: Some("bytes=16777216-"),
        ..person.getting(name, &grant)
    };
    assert_eq!(
        person.outcome(&world, &outside).await,
        Some(ErrorCode::Range)
    );
    let absent = person.getting(ObjectId::of(b"no"), &grant);
    assert_eq!(
        person.outcome(&world, &absent).await,
        Some(ErrorCode::NotFound)
    );
    assert_eq!(
        has(&world, &person, vec![ObjectId::of(b"no"), name]).await,
        [false, true]
    );
    let list = person.ask(EndpointId::ListObjects, grant);
    let page: ObjectPage = decoded(&person.call(&world, &list).await.1);
    assert_eq!(
        (page.objects.len(), page.objects[0].bytes, page.more),
        (1, 16 * 1024 * 1024, false)
    );
    let after = Ask {
        query: format!("after={name}"),
        ..list
    };
    assert!(
        decoded::<ObjectPage>(&person.call(&world, &after).await.1)
            .objects
            .is_empty()
    );
}

#[tokio::test]
async fn a_vault_does_not_answer_for_another() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let sent = object(1);
    assert_eq!(
        person.outcome(&world, &person.putting(&sent, &grant)).await,
        None
    );
    let name = ObjectId::of(&sent);
    person.vault = VaultId::from_bytes(world.fresh_bytes());
    assert_eq!(has(&world, &person, vec![name]).await, [false]);
    let errand = person.errand(&world, Purpose::Restore);
    assert_eq!(
        person.outcome(&world, &person.getting(name, &errand)).await,
        Some(ErrorCode::NotFound)
    );
}

#[tokio::test]
async fn bytes_that_do_not_fit_their_name_leave_nothing() {
    let world = World::with(|config| config.quota_bytes = 64 * 1024, Log::silent()).await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let (right, wrong) = (object(1), object(2));
    let name = ObjectId::of(&right);
    let lie = person.putting_as(name, &wrong, &grant);
    assert_eq!(
        person.outcome(&world, &lie).await,
        Some(ErrorCode::WrongHash)
    );
    assert_eq!(has(&world, &person, vec![name]).await, [false]);
    assert_eq!(
        person.outcome(&world, &person.getting(name, &grant)).await,
        Some(ErrorCode::NotFound)
    );
    // The quota is for one object: the failed one does not count.
    assert_eq!(
        person
            .outcome(&world, &person.putting(&right, &grant))
            .await,
        None
    );
    // And what is stored cannot be overwritten or spoilt.
    assert_eq!(
        person.outcome(&world, &lie).await,
        Some(ErrorCode::WrongHash)
    );
    let get = person.getting(name, &grant);
    assert_eq!(person.call(&world, &get).await, (StatusCode::OK, right));
    let (status, body) = person
        .call(&world, &person.putting(&object(3), &grant))
        .await;
    let reply: ErrorReply = decoded(&body);
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(
        (reply.code, reply.used_bytes, reply.quota_bytes),
        (ErrorCode::OverQuota, Some(65_536), Some(65_536))
    );
}

#[tokio::test]
async fn only_bucket_sizes_are_taken() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    for bytes in [
        0,
        1,
        32 * 1024,
        64 * 1024 - 1,
        64 * 1024 + 1,
        96 * 1024,
        16 * 1024 * 1024 - 1,
    ] {
        let odd = person.putting(&Bytes::from(vec![7; bytes]), &grant);
        assert_eq!(
            person.outcome(&world, &odd).await,
            Some(ErrorCode::Malformed),
            "{bytes}"
        );
    }
    for bytes in [16 * 1024 * 1024 + 1, 32 * 1024 * 1024] {
        let large = person.putting(&Bytes::from(vec![7; bytes]), &grant);
        assert_eq!(
            person.outcome(&world, &large).await,
            Some(ErrorCode::TooLarge),
            "{bytes}"
        );
    }
    // A body that does not say how long it is.
    let put = person.putting(&object(1), &grant);
    let mut unknown = person.sign(&world, &put);
    let chunks = http_body_util::StreamBody::new(Chunks(vec![object(1)]));
    *unknown.body_mut() = Body::new(chunks);
    assert_eq!(world.send(unknown).await.0, StatusCode::BAD_REQUEST);
    let page: ObjectPage = decoded(
        &person
            .call(&world, &person.ask(EndpointId::ListObjects, grant))
            .await
            .1,
    );
    assert!(page.objects.is_empty());
}

struct Chunks(Vec<Bytes>);

impl futures_core::Stream for Chunks {
    type Item = Result<http_body::Frame<Bytes>, std::convert::Infallible>;

    fn poll_next(
        mut self: core::pin::Pin<&mut Self>,
        _: &mut core::task::Context<'_>,
    ) -> core::task::Poll<Option<Self::Item>> {
        core::task::Poll::Ready(self.0.pop().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

fn swapping(person: &Person, grant: &str, expected: Option<HeadHash>, head: SignedHead) -> Ask {
    rescuing(person, grant, (expected, head), None)
}

fn rescuing(
    person: &Person,
    grant: &str,
    (expected, head): (Option<HeadHash>, SignedHead),
    rescued: Option<Vec<ObjectId>>,
) -> Ask {
    let body = cbor::encode(&SwapHead {
        version: API_VERSION,
        expected,
        head,
        rescued,
    });
    Ask {
        body: body.into(),
        ..person.ask(EndpointId::SwapHead, grant.to_owned())
    }
}

async fn current(world: &World, person: &Person) -> Option<SignedHead> {
    let read = person.ask(EndpointId::ReadHead, person.errand(world, Purpose::Restore));
    decoded::<HeadReply>(&person.call(world, &read).await.1).head
}

#[tokio::test]
async fn a_head_moves_forward_by_compare_and_swap() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let manifest = ObjectId::of(&object(1));
    assert_eq!(current(&world, &person).await, None);
    let first = person.head(&world, 1, None, manifest);
    let swap = swapping(&person, &grant, None, first.clone());
    let dangling = person.outcome(&world, &swap).await;
    assert_eq!(
        dangling,
        Some(ErrorCode::NotFound),
        "the manifest is not stored"
    );
    assert_eq!(
        person
            .outcome(&world, &person.putting(&object(1), &grant))
            .await,
        None
    );
    assert_eq!(person.outcome(&world, &swap).await, None);
    assert_eq!(
        person.outcome(&world, &swap).await,
        None,
        "an answer that was lost"
    );
    assert_eq!(current(&world, &person).await, Some(first.clone()));

    world.advance(1);
    let rival = swapping(
        &person,
        &grant,
        None,
        person.head(&world, 1, None, manifest),
    );
    assert_eq!(
        person.outcome(&world, &rival).await,
        Some(ErrorCode::Conflict)
    );
    let before = Some(first.hash());
    let jump = swapping(
        &person,
        &grant,
        before,
        person.head(&world, 7, before, manifest),
    );
    assert_eq!(
        person.outcome(&world, &jump).await,
        Some(ErrorCode::Conflict)
    );
    let second = person.head(&world, 2, before, manifest);
    assert_eq!(
        person
            .outcome(&world, &swapping(&person, &grant, before, second.clone()))
            .await,
        None
    );
    let backwards = person.outcome(&world, &swap).await;
    assert_eq!(backwards, Some(ErrorCode::Conflict));
    assert_eq!(current(&world, &person).await, Some(second));
}

#[tokio::test]
async fn what_a_head_condemns_is_deleted_after_the_retention_window_and_not_before() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let names: Vec<ObjectId> = (1..=4).map(|n| ObjectId::of(&object(n))).collect();
    for n in 1..=4 {
        let put = person.putting(&object(n), &grant);
        assert_eq!(person.outcome(&world, &put).await, None);
    }
    let condemned = |mut list: Vec<ObjectId>| {
        list.sort_unstable();
        list
    };
    // Not the manifest itself, not in another order, not twice, not what it rescues.
    let (one, two) = (names[1].min(names[2]), names[1].max(names[2]));
    for (list, rescued) in [
        (vec![names[0]], None),
        (vec![two, one], None),
        (vec![one, one], None),
        (vec![one], Some(vec![one])),
    ] {
        let head = person.condemning(&world, (1, None, names[0]), list);
        let ask = rescuing(&person, &grant, (None, head), rescued);
        let outcome = person.outcome(&world, &ask).await;
        assert_eq!(outcome, Some(ErrorCode::Malformed));
    }
    let first = person.condemning(
        &world,
        (1, None, names[0]),
        condemned(vec![names[1], names[2], ObjectId::of(&object(9))]),
    );
    let before = Some(first.hash());
    let ask = swapping(&person, &grant, None, first);
    assert_eq!(person.outcome(&world, &ask).await, None);
    let has = HasObjects {
        version: API_VERSION,
        objects: names.clone(),
    };
    let asked = Ask {
        body: cbor::encode(&has).into(),
        ..person.ask(EndpointId::HasObjects, grant.clone())
    };
    let reply: HasReply = decoded(&person.call(&world, &asked).await.1);
    assert_eq!(reply.stored, [true; 4]);
    assert_eq!(reply.condemned, Some(vec![false, true, true, false]));
    let shared = world.cell.shared();
    let sweep = || crate::housekeeping::sweep(shared);
    let days = i64::from(shared.config.retention_days);
    // The signer signs, and so knows that the database is no older one.
    shared.transparency.step().await.unwrap();
    sweep().await;
    // The next head needs one of them again.
    let second = person.head(&world, 2, before, names[0]);
    let after = Some(second.hash());
    let rescue = rescuing(&person, &grant, (before, second), Some(vec![names[1]]));
    assert_eq!(person.outcome(&world, &rescue).await, None);
    world.advance(days * candor_wire::time::DAY_MS);
    sweep().await;
    let grant = person.consents(&world).await;
    assert_eq!(
        self::has(&world, &person, names.clone()).await,
        [true; 4],
        "not before its time"
    );
    world.advance(1);
    sweep().await;
    assert_eq!(
        self::has(&world, &person, names.clone()).await,
        [true, true, false, true]
    );
    let key = candor_store::ObjectKey {
        account: person.account,
        vault: person.vault,
        object: names[2],
    };
    assert_eq!(shared.records.object(key).await.unwrap(), None);
    assert_eq!(
        shared.objects.head(key).await.unwrap(),
        None,
        "the bytes, too"
    );
    // A head cannot rely on what is gone.
    let third = person.head(&world, 3, after, names[0]);
    let late = rescuing(&person, &grant, (after, third), Some(vec![names[2]]));
    let outcome = person.outcome(&world, &late).await;
    assert_eq!(outcome, Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn a_head_that_is_not_the_caller_s_does_not_move() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    assert_eq!(
        person
            .outcome(&world, &person.putting(&object(1), &grant))
            .await,
        None
    );
    let manifest = ObjectId::of(&object(1));
    let good = person.head(&world, 1, None, manifest);
    let disagrees = swapping(&person, &grant, Some(good.hash()), good.clone());
    assert_eq!(
        person.outcome(&world, &disagrees).await,
        Some(ErrorCode::Malformed)
    );
    let mut forged = good.clone();
    forged.signature = person
        .root
        .ed25519()
        .sign(candor_wire::sign::Domain::HEAD, &forged.head);
    let forged = swapping(&person, &grant, None, forged);
    assert_eq!(
        person.outcome(&world, &forged).await,
        Some(ErrorCode::NotSigned)
    );
    let authority = person.errand(&world, Purpose::Restore);
    let errand = Ask {
        authority,
        ..swapping(&person, &grant, None, good.clone())
    };
    assert_eq!(
        person.outcome(&world, &errand).await,
        Some(ErrorCode::NotPermitted)
    );
    let vault = person.vault;
    person.vault = VaultId::from_bytes([5; 16]);
    let elsewhere = person.head(&world, 1, None, manifest);
    person.vault = vault;
    let elsewhere = swapping(&person, &grant, None, elsewhere);
    assert_eq!(
        person.outcome(&world, &elsewhere).await,
        Some(ErrorCode::Malformed)
    );
    assert_eq!(current(&world, &person).await, None);
}

/// Uploads of one object at the same time, some of them lies: whatever is acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rivals_never_take_away_what_was_acknowledged() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    for round in 0..8 {
        let (right, wrong) = (object(round), object(100 + round));
        let name = ObjectId::of(&right);
        let mut running = tokio::task::JoinSet::new();
        for i in 0..9 {
            let body = if i % 3 == 0 { &wrong } else { &right };
            let request = person.sign(&world, &person.putting_as(name, body, &grant));
            let service = world.cell.service();
            running.spawn(async move {
                tower::ServiceExt::oneshot(service, request)
                    .await
                    .unwrap()
                    .status()
            });
        }
        let mut acknowledged = 0;
        while let Some(status) = running.join_next().await {
            let status = status.unwrap();
            acknowledged += usize::from(status.is_success());
            let known = [
                StatusCode::NO_CONTENT,
                StatusCode::BAD_REQUEST,
                StatusCode::SERVICE_UNAVAILABLE,
            ];
            assert!(known.contains(&status), "{status}");
        }
        if acknowledged == 0 {
            assert_eq!(
                person
                    .outcome(&world, &person.putting(&right, &grant))
                    .await,
                None
            );
        }
        assert_eq!(
            person.call(&world, &person.getting(name, &grant)).await,
            (StatusCode::OK, right)
        );
    }
}

/// A body that comes when it is let go, and has said before how long it is.
struct Held {
    bytes: Bytes,
    go: tokio::sync::oneshot::Receiver<()>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: core::pin::Pin<&mut Self>,
        cx: &mut core::task::Context<'_>,
    ) -> core::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let bytes = core::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            return core::task::Poll::Ready(None);
        }
        if core::pin::Pin::new(&mut self.go).poll(cx).is_pending() {
            self.bytes = bytes;
            return core::task::Poll::Pending;
        }
        core::task::Poll::Ready(Some(Ok(http_body::Frame::data(bytes))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// `request` with its body held back, and what lets it go.
fn held(
    mut request: http::Request<Body>,
    bytes: Bytes,
) -> (http::Request<Body>, tokio::sync::oneshot::Sender<()>) {
    let (let_go, go) = tokio::sync::oneshot::channel();
    *request.body_mut() = Body::new(Held { bytes, go });
    (request, let_go)
}

#[tokio::test]
async fn bytes_that_nobody_accounts_for_do_not_stay() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let (right, wrong) = (object(1), object(2));
    let key = candor_store::ObjectKey {
        account: person.account,
        vault: person.vault,
        object: ObjectId::of(&right),
    };
    let signed = person.sign(&world, &person.putting(&right, &grant));
    let (slow, let_go) = held(signed, right.clone());
    let slow = tokio::spawn(tower::ServiceExt::oneshot(world.cell.service(), slow));
    let shared = world.cell.shared();
    while shared.records.object(key).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    // Another upload of the same name fails meanwhile, and takes the reservation with it.
    let lie = person.putting_as(key.object, &wrong, &grant);
    assert_eq!(
        person.outcome(&world, &lie).await,
        Some(ErrorCode::WrongHash)
    );
    assert_eq!(shared.records.object(key).await.unwrap(), None);
    let_go.send(()).unwrap();
    let status = slow.await.unwrap().unwrap().status();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shared.objects.head(key).await.unwrap(), None);
    // Sent again, it is stored.
    let again = person.putting(&right, &grant);
    assert_eq!(person.outcome(&world, &again).await, None);
    assert_eq!(shared.objects.head(key).await.unwrap(), Some(64 * 1024));
}

#[tokio::test]
async fn a_stranger_s_slow_body_stands_in_nobody_s_way() {
    let world = World::with(
        |config| {
            config.limits.messages_max = 1;
            config.limits.stall_timeout_seconds = 3600;
        },
        Log::silent(),
    )
    .await;
    let mut person = world.person().await;
    let right = candor_wire::cell::InvitationRight([9; 16]);
    let (slow, _let_go) = held(
        Person::new(&world).opening(&world, &right),
        Bytes::from(vec![0; 64]),
    );
    let slow = tokio::spawn(tower::ServiceExt::oneshot(world.cell.service(), slow));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!slow.is_finished());
    let consenting = person.consents(&world);
    tokio::time::timeout(std::time::Duration::from_secs(20), consenting)
        .await
        .expect("there is a place for messages of accounts");
    slow.abort();
}

/// A body that comes a byte at a time and never stands still for long.
struct Dripping(core::pin::Pin<Box<tokio::time::Sleep>>);

impl http_body::Body for Dripping {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: core::pin::Pin<&mut Self>,
        cx: &mut core::task::Context<'_>,
    ) -> core::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0.as_mut().poll(cx).map(|()| {
            let next = tokio::time::Instant::now() + std::time::Duration::from_millis(100);
            self.0.as_mut().reset(next);
            Some(Ok(http_body::Frame::data(Bytes::from_static(b"x"))))
        })
    }
}

#[tokio::test]
async fn a_stranger_s_body_comes_soon_or_not_at_all() {
    let world = World::with(
        |config| config.limits.stall_timeout_seconds = 1,
        Log::silent(),
    )
    .await;
    let right = candor_wire::cell::InvitationRight([9; 16]);
    let mut opening = Person::new(&world).opening(&world, &right);
    let pause = tokio::time::sleep(std::time::Duration::ZERO);
    *opening.body_mut() = Body::new(Dripping(Box::pin(pause)));
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), world.send(opening));
    let (status, _) = answer.await.expect("it is not waited for");
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
