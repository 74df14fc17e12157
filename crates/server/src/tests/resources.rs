//! What one request, one list and one account may take, for every endpoint there is.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use bytes::Bytes;
use candor_store::{ConfirmOutcome, ObjectKey, Reservation, ReserveOutcome};
use candor_wire::api::{
    API_VERSION, BodyKind, ENDPOINTS, EndpointId, ErrorCode, HasObjects, Method, ObjectPage,
    SwapHead,
};
use candor_wire::cbor;
use candor_wire::errand::Purpose;
use candor_wire::ids::ObjectId;
use candor_wire::limits::{
    BODY_MAX_BYTES, HAS_MAX_IDS, OBJECT_MAX_BYTES, PAGE_MAX_ENTRIES, RESCUED_MAX,
};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http_body::{Frame, SizeHint};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::world::{Ask, Person, World, decoded, error, object};
use crate::log::Log;

const FRAME_BYTES: u64 = 64 * 1024;

/// A body that goes on for as long as somebody reads it, whatever it says of its length.
struct Endless {
    declared: Option<u64>,
    taken: Arc<AtomicU64>,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.taken.fetch_add(FRAME_BYTES, Ordering::Relaxed);
        let bytes = Bytes::from_static(&[7; FRAME_BYTES as usize]);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// A well-formed request of the person to any endpoint, without a body.
fn ask(world: &World, person: &Person, id: EndpointId) -> Ask {
    let purpose = match id {
        EndpointId::OpenAccount => Purpose::Create,
        EndpointId::FindAccount => Purpose::Recover,
        EndpointId::AppendChain => Purpose::Consent,
        _ => Purpose::Restore,
    };
    let ask = person.ask(id, person.errand(world, purpose));
    Ask {
        path: ask
            .path
            .replace("{object}", &ObjectId::of(&object(1)).to_string())
            .replace("{*file}", "checkpoint"),
        ..ask
    }
}

/// Whoever is let in and whoever is not: no endpoint reads a body beyond the bound of its kind, and one that says at
/// once that it is too long is not read at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c03_no_endpoint_takes_more_of_a_body_than_its_bound() {
    let world = Arc::new(World::new().await);
    let person = Arc::new(world.person().await);
    let mut sending = JoinSet::new();
    for endpoint in ENDPOINTS {
        for is_signed in [true, false] {
            for declared in [None, Some(u64::MAX), Some(OBJECT_MAX_BYTES as u64)] {
                let (world, person) = (Arc::clone(&world), Arc::clone(&person));
                sending.spawn(async move {
                    let mut request = person.sign(&world, &ask(&world, &person, endpoint.id));
                    if !is_signed {
                        request.headers_mut().clear();
                    }
                    let taken = Arc::<AtomicU64>::default();
                    *request.body_mut() = Body::new(Endless {
                        declared,
                        taken: Arc::clone(&taken),
                    });
                    let (status, body) = world.send(request).await;
                    let told = format!("{:?}, signed {is_signed}, {declared:?}", endpoint.id);
                    assert!(status.is_client_error(), "{told}: {status}");
                    assert!(error(&body).is_some(), "{told}");
                    let most = match declared {
                        Some(u64::MAX) => 0,
                        // Read to its end and let go piece by piece, so that the caller gets to read the refusal.
                        Some(bytes) => bytes,
                        None if matches!(endpoint.request, BodyKind::Cbor(_)) => {
                            BODY_MAX_BYTES as u64
                        }
                        None => 0,
                    };
                    let taken = taken.load(Ordering::Relaxed);
                    assert!(taken <= most + 2 * FRAME_BYTES, "{told}: {taken} bytes");
                });
            }
        }
    }
    let sent = sending.join_all().await.len();
    assert_eq!(sent, ENDPOINTS.len() * 6);
}

/// As gzip has it, with the bytes as they are inside (RFC 1951, a stored block, and RFC 1952).
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let length = u16::try_from(bytes.len()).unwrap();
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(&(!crc).to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out
}

/// A cell that decompresses nothing cannot be made to hold more than what was sent to it.
#[tokio::test]
async fn c03_nothing_is_compressed_or_decompressed() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    world.cell.shared().transparency.step().await.unwrap();
    let message: Bytes = cbor::encode(&HasObjects {
        version: API_VERSION,
        objects: vec![ObjectId::of(b"some")],
    })
    .into();
    let has = Ask {
        body: message.clone(),
        ..person.ask(EndpointId::HasObjects, grant)
    };
    assert_eq!(person.outcome(&world, &has).await, None);
    for name in ["gzip", "identity, gzip"] {
        let packed = Ask {
            body: gzip(&message).into(),
            ..has.clone()
        };
        let mut request = person.sign(&world, &packed);
        let headers = request.headers_mut();
        headers.insert(CONTENT_ENCODING, name.parse().unwrap());
        let (_, body) = world.send(request).await;
        assert_eq!(error(&body), Some(ErrorCode::Malformed), "{name}");
    }
    for endpoint in ENDPOINTS.iter().filter(|one| one.method == Method::Get) {
        let mut request = person.sign(&world, &ask(&world, &person, endpoint.id));
        let headers = request.headers_mut();
        headers.insert(ACCEPT_ENCODING, "gzip, br, zstd, deflate".parse().unwrap());
        let response = world.cell.service().oneshot(request).await.unwrap();
        let encoding = response.headers().get(CONTENT_ENCODING);
        assert_eq!(encoding, None, "{:?}", endpoint.id);
    }
}

/// Of lists as long as an account makes them, and of questions as long as a caller makes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c03_every_list_comes_in_pages_and_every_question_is_bounded() {
    const OBJECTS: u64 = 2 * PAGE_MAX_ENTRIES as u64 + 2;
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let mut writing = JoinSet::new();
    for number in 0..OBJECTS {
        let records = world.cell.shared().store().records();
        let (size, now) = (64 * 1024, world.now());
        let key = ObjectKey {
            account: person.account,
            vault: person.vault,
            object: ObjectId::of(&number.to_be_bytes()),
        };
        writing.spawn(async move {
            let reserved = records.reserve(None, Reservation { key, size, now });
            assert_eq!(reserved.await.unwrap(), ReserveOutcome::Reserved);
            let confirmed = records.confirm(key, now).await.unwrap();
            assert_eq!(confirmed, ConfirmOutcome::Confirmed);
            key.object
        });
    }
    let all: BTreeSet<ObjectId> = writing.join_all().await.into_iter().collect();
    let mut listed = Vec::new();
    let mut pages = 0;
    loop {
        let query = listed
            .last()
            .map_or(String::new(), |last| format!("after={last}"));
        let ask = Ask {
            query,
            ..person.ask(EndpointId::ListObjects, grant.clone())
        };
        let (_, body) = person.call(&world, &ask).await;
        let page: ObjectPage = decoded(&body);
        assert!(page.objects.len() <= PAGE_MAX_ENTRIES);
        listed.extend(page.objects.iter().map(|one| one.object));
        pages += 1;
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert!(listed.iter().eq(&all));

    let names = |count: usize| vec![listed[0]; count];
    let has = |count| Ask {
        body: cbor::encode(&HasObjects {
            version: API_VERSION,
            objects: names(count),
        })
        .into(),
        ..person.ask(EndpointId::HasObjects, grant.clone())
    };
    assert_eq!(person.outcome(&world, &has(HAS_MAX_IDS)).await, None);
    let refused = person.outcome(&world, &has(HAS_MAX_IDS + 1)).await;
    assert_eq!(refused, Some(ErrorCode::TooLarge));
    let head = person.head(&world, 1, None, listed[0]);
    let swap = |count| Ask {
        body: cbor::encode(&SwapHead {
            version: API_VERSION,
            expected: None,
            head: head.clone(),
            rescued: Some(names(count)),
        })
        .into(),
        ..person.ask(EndpointId::SwapHead, grant.clone())
    };
    let refused = person.outcome(&world, &swap(RESCUED_MAX + 1)).await;
    assert_eq!(refused, Some(ErrorCode::Malformed));
    assert_eq!(person.outcome(&world, &swap(RESCUED_MAX)).await, None);
}

/// Uploads that come at one time get what there is, and not a byte more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c03_a_quota_holds_under_uploads_at_one_time() {
    const FIT: usize = 4;
    const SENT: u8 = 24;
    let quota = (FIT * 64 * 1024) as u64;
    let world = World::with(|config| config.quota_bytes = quota, Log::silent()).await;
    let world = Arc::new(world);
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let person = Arc::new(person);
    let mut sending = JoinSet::new();
    for filling in 0..SENT {
        let (world, person, grant) = (Arc::clone(&world), Arc::clone(&person), grant.clone());
        sending.spawn(async move {
            let put = person.putting(&object(filling), &grant);
            person.outcome(&world, &put).await
        });
    }
    let outcomes = sending.join_all().await;
    let refused = outcomes
        .iter()
        .filter(|one| **one == Some(ErrorCode::OverQuota));
    assert_eq!(refused.count(), usize::from(SENT) - FIT, "{outcomes:?}");
    let store = world.cell.shared().store();
    let totals = store.records().account(person.account).await;
    let totals = totals.unwrap().unwrap();
    assert_eq!((totals.stored_bytes, totals.reserved_bytes), (quota, 0));
    let on_disk = store
        .objects()
        .list(person.account, person.vault, None, PAGE_MAX_ENTRIES)
        .await
        .unwrap();
    assert_eq!(on_disk.len(), FIT);
    // Somebody else has a quota of their own.
    let mut other = world.person().await;
    let grant = other.consents(&world).await;
    let put = other.putting(&object(1), &grant);
    assert_eq!(other.outcome(&world, &put).await, None);
}
