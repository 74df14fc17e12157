//! Waiting reads of a head: what wakes them, what ends them, and what they keep from others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use candor_store::{Head as StoredHead, HeadMark, HeadSwap, SwapOutcome};
use candor_wire::api::{API_VERSION, EndpointId, ErrorCode, HeadReply, SwapHead};
use candor_wire::cbor;
use candor_wire::cell::authority;
use candor_wire::chain::AccountView;
use candor_wire::erasure::{ACCOUNT_ERASURE_DAYS, ERASURE_VERSION, ErasureAsked};
use candor_wire::errand::Purpose;
use candor_wire::head::{HeadHash, SignedHead};
use candor_wire::ids::{AccountId, ObjectId, VaultId};
use candor_wire::revocation::{DeviceRevoked, HeadPin, REVOCATION_VERSION};
use candor_wire::statement::{Body as Said, Role};
use candor_wire::time::DAY_MS;
use http::{Request, StatusCode};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::listening::{connect, today};
use super::matrix::with_device;
use super::world::{Ask, Person, World, decoded, error, object};
use crate::CellConfig;
use crate::log::Log;
use crate::waiting::WAITS_PER_DEVICE_MAX;

/// What a wake-up may take, with all processors busy; well below [`crate::waiting::LOOK_PAUSE`].
const AT_ONCE: Duration = Duration::from_secs(1);

type Answer = (StatusCode, Bytes);

/// A cell at which nobody waits for longer than a second.
fn impatient(config: &mut CellConfig) {
    config.limits.wait_timeout_seconds = 1;
}

async fn world(change: impl FnOnce(&mut CellConfig)) -> Arc<World> {
    Arc::new(World::with(change, Log::silent()).await)
}

/// A read that waits for a head above `after`.
fn wait(person: &Person, authority: &str, after: impl ToString) -> Ask {
    Ask {
        query: format!("after={}", after.to_string()),
        ..person.ask(EndpointId::ReadHead, authority.to_owned())
    }
}

/// Sends it without waiting for the answer.
fn send(world: &Arc<World>, person: &Person, ask: &Ask) -> JoinHandle<Answer> {
    let (world, request) = (Arc::clone(world), person.sign(world, ask));
    tokio::spawn(async move { world.send(request).await })
}

/// Until so many requests wait.
async fn until_waiting(world: &World, count: usize) {
    let waiters = &world.cell.shared().waiters;
    let reached = async {
        while waiters.count() != count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
    assert!(reached.is_ok(), "{} wait, not {count}", waiters.count());
}

/// The answer, which has to be there at once.
async fn at_once(answer: JoinHandle<Answer>) -> Answer {
    let answer = tokio::time::timeout(AT_ONCE, answer).await;
    answer.expect("an answer at once").unwrap()
}

fn counter((status, body): &Answer) -> Option<u64> {
    assert_eq!(*status, StatusCode::OK, "{:?}", error(body));
    let head = decoded::<HeadReply>(body).head;
    head.map(|head| head.peek().unwrap().counter)
}

/// A person with a consent and what a head needs.
async fn somebody(world: &World) -> (Person, String) {
    let mut person = world.person().await;
    let grant = person.consents(world).await;
    let put = person.putting(&object(1), &grant);
    assert_eq!(person.outcome(world, &put).await, None);
    (person, grant)
}

fn next_head(
    world: &World,
    person: &Person,
    counter: u64,
    previous: Option<HeadHash>,
) -> SignedHead {
    person.head(world, counter, previous, ObjectId::of(&object(1)))
}

async fn moves(world: &World, person: &Person, grant: &str, head: &SignedHead) {
    let swap = SwapHead {
        version: API_VERSION,
        expected: head.peek().unwrap().previous,
        head: head.clone(),
        rescued: None,
    };
    let ask = Ask {
        body: cbor::encode(&swap).into(),
        ..person.ask(EndpointId::SwapHead, grant.to_owned())
    };
    assert_eq!(person.outcome(world, &ask).await, None);
}

/// Takes over what stands on the chain now.
async fn catches_up(world: &World, person: &mut Person, other: &Person) {
    person.records = other.chain(world).await.records;
    let keyring = &world.cell.shared().keyring;
    person.view = Some(AccountView::of(person.account, &person.records, keyring).unwrap());
}

#[tokio::test]
async fn a_newer_head_is_answered_at_once() {
    let world = world(|_| {}).await;
    let (person, grant) = somebody(&world).await;
    let head = next_head(&world, &person, 1, None);
    moves(&world, &person, &grant, &head).await;
    let plain = person.ask(EndpointId::ReadHead, grant.clone());
    let expected = person.call(&world, &plain).await;
    assert_eq!(counter(&expected), Some(1));
    for authority in [grant, person.errand(&world, Purpose::Restore)] {
        let answer = send(&world, &person, &wait(&person, &authority, 0));
        assert_eq!(at_once(answer).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_moves_wakes_all_who_wait_for_it() {
    let world = world(|_| {}).await;
    let (person, grant) = somebody(&world).await;
    let (other, other_grant) = with_device(&world, &person, Role::Full).await;
    let mut previous = None;
    for number in 1..=3 {
        let waiting = [
            send(&world, &other, &wait(&other, &other_grant, number - 1)),
            send(&world, &person, &wait(&person, &grant, number - 1)),
            send(
                &world,
                &other,
                &wait(&other, &other.errand(&world, Purpose::Verify), number - 1),
            ),
        ];
        let ahead = send(&world, &other, &wait(&other, &other_grant, number));
        until_waiting(&world, 4).await;
        let metrics = world.cell.shared().metrics.render();
        assert!(metrics.contains("\ncandor_requests_waiting 4\n"));
        let head = next_head(&world, &person, number, previous);
        moves(&world, &person, &grant, &head).await;
        for answer in waiting {
            assert_eq!(counter(&at_once(answer).await), Some(number));
        }
        assert!(!ahead.is_finished(), "whoever knows it already is not told");
        // The caller is gone, and so is its place.
        ahead.abort();
        until_waiting(&world, 0).await;
        previous = Some(head.hash());
    }
}

#[tokio::test]
async fn the_head_is_answered_as_it_is_at_the_end_of_the_time() {
    let world = world(impatient).await;
    let (person, grant) = somebody(&world).await;
    let began = Instant::now();
    let answer = person.call(&world, &wait(&person, &grant, 0)).await;
    assert_eq!(counter(&answer), None);
    let head = next_head(&world, &person, 1, None);
    moves(&world, &person, &grant, &head).await;
    for after in [1, u64::MAX] {
        let answer = person.call(&world, &wait(&person, &grant, after)).await;
        assert_eq!(counter(&answer), Some(1));
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    // It waited, and was not slow.
    let metrics = world.cell.shared().metrics.render();
    let told = |le: &str, count: u32| {
        let bucket = format!("candor_request_seconds_bucket{{endpoint=\"ReadHead\",le=\"{le}\"}}");
        metrics.contains(&format!("{bucket} {count}\n"))
    };
    assert!(told("0.500", 3) && told("+Inf", 3), "{metrics}");
}

/// Another process moves the head, or the one that moved it was cut off before it told anybody.
#[tokio::test]
async fn a_head_is_found_whoever_moved_it() {
    let world = world(|_| {}).await;
    let (person, grant) = somebody(&world).await;
    let waiting = send(&world, &person, &wait(&person, &grant, 0));
    until_waiting(&world, 1).await;
    let head = next_head(&world, &person, 1, None);
    let swap = HeadSwap {
        account: person.account,
        vault: person.vault,
        chain: None,
        expected: None,
        new: StoredHead {
            mark: HeadMark {
                counter: 1,
                hash: head.hash().0,
            },
            bytes: cbor::encode(&head).into(),
            moved_at: world.now(),
        },
        condemned: Vec::new(),
        needed: Vec::new(),
        is_run: false,
    };
    let records = world.cell.shared().store().records();
    let moved = records.swap_head(None, swap).await.unwrap();
    assert_eq!(moved, SwapOutcome::Swapped);
    let answer = tokio::time::timeout(crate::waiting::LOOK_PAUSE * 2, waiting).await;
    assert_eq!(counter(&answer.unwrap().unwrap()), Some(1));
}

/// Threat table C, row 2: also what was waiting ends, with whatever it was allowed before.
#[tokio::test]
async fn c02_a_revoked_device_waits_no_longer() {
    let world = world(|_| {}).await;
    let (mut mine, grant) = somebody(&world).await;
    let head = next_head(&world, &mine, 1, None);
    moves(&world, &mine, &grant, &head).await;
    let (lost, lost_grant) = with_device(&world, &mine, Role::Full).await;
    catches_up(&world, &mut mine, &lost).await;
    let errand = lost.errand(&world, Purpose::Restore);
    let waiting =
        [&lost_grant, &errand].map(|authority| send(&world, &lost, &wait(&lost, authority, 1)));
    let own = send(&world, &mine, &wait(&mine, &grant, 1));
    until_waiting(&world, 3).await;
    let revoked = Said::DeviceRevoked(Box::new(DeviceRevoked {
        version: REVOCATION_VERSION,
        device: lost.device,
        heads: vec![HeadPin {
            vault: mine.vault,
            counter: 1,
            hash: head.hash(),
        }],
    }));
    let outcome = mine
        .append_for(&world, Purpose::Revoke, vec![revoked])
        .await;
    assert_eq!(outcome, None);
    for answer in waiting {
        let (status, body) = at_once(answer).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(error(&body), Some(ErrorCode::Revoked));
    }
    // It was judged again, too, and waits on.
    until_waiting(&world, 1).await;
    assert!(!own.is_finished());
}

#[tokio::test]
async fn nobody_waits_beyond_the_end_of_their_consent() {
    let world = world(|_| {}).await;
    let (mut person, grant) = somebody(&world).await;
    let waiting = send(&world, &person, &wait(&person, &grant, 0));
    let errand = person.errand(&world, Purpose::Restore);
    let restoring = send(&world, &person, &wait(&person, &errand, 0));
    until_waiting(&world, 2).await;
    person.withdraws(&world).await;
    let (_, body) = at_once(waiting).await;
    assert_eq!(error(&body), Some(ErrorCode::NoConsent));
    until_waiting(&world, 1).await;
    assert!(!restoring.is_finished(), "what is theirs they get back");

    // A consent and an errand that end by themselves open nothing that comes later.
    let grant = person.consents(&world).await;
    let late = send(&world, &person, &wait(&person, &grant, 0));
    until_waiting(&world, 2).await;
    world.advance(31 * DAY_MS);
    world
        .cell
        .shared()
        .waiters
        .head_moved(&person.account, &person.vault, 1);
    let outcomes = [at_once(late).await, at_once(restoring).await].map(|(_, body)| error(&body));
    let expected = [ErrorCode::NoConsent, ErrorCode::NotPermitted].map(Some);
    assert_eq!(outcomes, expected);
}

#[tokio::test]
async fn nobody_waits_for_what_is_erased() {
    let world = world(|_| {}).await;
    // The signer signs, and so knows that the database is no older one.
    world.cell.shared().transparency.step().await.unwrap();
    let (mut person, grant) = somebody(&world).await;
    let waiting = send(&world, &person, &wait(&person, &grant, 0));
    until_waiting(&world, 1).await;
    let said = Said::ErasureAsked(ErasureAsked {
        version: ERASURE_VERSION,
        vault: None,
    });
    let outcome = person.append_for(&world, Purpose::Erase, vec![said]).await;
    assert_eq!(outcome, None);
    let (_, body) = at_once(waiting).await;
    assert_eq!(error(&body), Some(ErrorCode::NoConsent));

    world.advance(i64::from(ACCOUNT_ERASURE_DAYS) * DAY_MS + 1);
    let errand = person.errand(&world, Purpose::Restore);
    let waiting = send(&world, &person, &wait(&person, &errand, 0));
    until_waiting(&world, 1).await;
    crate::housekeeping::sweep(world.cell.shared()).await;
    let (_, body) = at_once(waiting).await;
    assert_eq!(error(&body), Some(ErrorCode::NotFound));
}

/// A stranger's vault is waited for like one that does not exist, and nothing is told of its moves.
#[tokio::test]
async fn a39_a_foreign_vault_is_waited_for_like_none() {
    let world = world(impatient).await;
    let (mine, grant) = somebody(&world).await;
    let (theirs, their_grant) = somebody(&world).await;
    let head = next_head(&world, &theirs, 1, None);
    moves(&world, &theirs, &their_grant, &head).await;
    let errand = mine.errand(&world, Purpose::Restore);
    let vaults = [theirs.vault, VaultId::from_bytes([0xee; 16])];
    let at = |vault: VaultId, authority: &str| {
        let ask = wait(&mine, authority, 0);
        let path = ask
            .path
            .replace(&mine.vault.to_string(), &vault.to_string());
        Ask { path, ..ask }
    };
    let waiting = vaults.map(|vault| send(&world, &mine, &at(vault, &errand)));
    until_waiting(&world, 2).await;
    let head = next_head(&world, &theirs, 2, Some(head.hash()));
    moves(&world, &theirs, &their_grant, &head).await;
    assert!(!waiting.iter().any(JoinHandle::is_finished));
    for answer in waiting {
        assert_eq!(counter(&answer.await.unwrap()), None);
    }
    // With a grant, which names a vault, and in another account: not even that.
    for vault in vaults {
        let outcome = mine.outcome(&world, &at(vault, &grant)).await;
        assert_eq!(outcome, Some(ErrorCode::NoConsent));
    }
    for account in [theirs.account, AccountId::from_bytes([0xee; 16])] {
        let ask = at(theirs.vault, &errand);
        let path = ask
            .path
            .replace(&mine.account.to_string(), &account.to_string());
        let outcome = mine.outcome(&world, &Ask { path, ..ask }).await;
        assert_eq!(outcome, Some(ErrorCode::NotFound));
    }
    // A write-only device waits for nothing that it may not read.
    let (writer, grant) = with_device(&world, &mine, Role::WriteOnly).await;
    let outcome = writer.outcome(&world, &wait(&writer, &grant, 0)).await;
    assert_eq!(outcome, Some(ErrorCode::NotPermitted));
}

#[tokio::test]
async fn the_known_counter_has_one_spelling() {
    let world = world(impatient).await;
    let (person, grant) = somebody(&world).await;
    let head = next_head(&world, &person, 1, None);
    moves(&world, &person, &grant, &head).await;
    for bad in [
        "",
        "+1",
        "-1",
        "01",
        "00",
        " 1",
        "%31",
        "0x1",
        "1.0",
        "one",
        "18446744073709551616",
        "1&after=2",
        "1&more=2",
    ] {
        let Ok(_) = format!("/?after={bad}").parse::<http::Uri>() else {
            // Does not even get here.
            continue;
        };
        let outcome = person.outcome(&world, &wait(&person, &grant, bad)).await;
        assert_eq!(outcome, Some(ErrorCode::Malformed), "{bad}");
    }
    for good in ["0", "1", "18446744073709551615"] {
        let answer = person.call(&world, &wait(&person, &grant, good)).await;
        assert_eq!(counter(&answer), Some(1), "{good}");
    }
}

#[tokio::test]
async fn as_many_as_may_wait_keep_nobody_else_waiting() {
    let world = world(|_| {}).await;
    let (person, grant) = somebody(&world).await;
    let (other, other_grant) = with_device(&world, &person, Role::Full).await;
    let waiting: Vec<_> = (0..WAITS_PER_DEVICE_MAX)
        .map(|_| send(&world, &person, &wait(&person, &grant, 0)))
        .collect();
    until_waiting(&world, WAITS_PER_DEVICE_MAX).await;
    let (status, body) = at_once(send(&world, &person, &wait(&person, &grant, 0))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error(&body), Some(ErrorCode::Busy));
    // Everything else of the device goes on, and so does its account.
    let working = async {
        for filling in 2..10 {
            let put = person.putting(&object(filling), &grant);
            assert_eq!(person.outcome(&world, &put).await, None);
            let read = person.ask(EndpointId::ReadHead, grant.clone());
            assert_eq!(person.outcome(&world, &read).await, None);
        }
        let others = send(&world, &other, &wait(&other, &other_grant, 0));
        until_waiting(&world, WAITS_PER_DEVICE_MAX + 1).await;
        let head = next_head(&world, &other, 1, None);
        moves(&world, &other, &other_grant, &head).await;
        at_once(others).await
    };
    let told = tokio::time::timeout(Duration::from_secs(10), working).await;
    assert_eq!(counter(&told.unwrap()), Some(1));
    for answer in waiting {
        assert_eq!(counter(&answer.await.unwrap()), Some(1));
    }
    until_waiting(&world, 0).await;
}

#[tokio::test]
async fn a_cell_lets_so_many_wait() {
    let world = world(|config| config.limits.waits_max = 1).await;
    let ((one, one_grant), (two, two_grant)) = (somebody(&world).await, somebody(&world).await);
    let waiting = send(&world, &one, &wait(&one, &one_grant, 0));
    until_waiting(&world, 1).await;
    let outcome = two.outcome(&world, &wait(&two, &two_grant, 0)).await;
    assert_eq!(outcome, Some(ErrorCode::Busy));
    // Whoever does not have to wait needs no place.
    let head = next_head(&world, &two, 1, None);
    moves(&world, &two, &two_grant, &head).await;
    let answer = at_once(send(&world, &two, &wait(&two, &two_grant, 0))).await;
    assert_eq!(counter(&answer), Some(1));
    waiting.abort();
    until_waiting(&world, 0).await;
}

/// A connection over TLS, and what keeps it going.
async fn over_tls(
    world: &World,
    address: std::net::SocketAddr,
) -> (SendRequest<Body>, JoinHandle<()>) {
    let name = authority(&world.cell.id());
    let (root, version) = (world.cell.root(), &rustls::version::TLS13);
    let stream = connect(world, address, &root, &name, version)
        .await
        .unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    let running = tokio::spawn(async move {
        let _ = connection.await;
    });
    (sender, running)
}

#[tokio::test]
async fn a_caller_that_goes_away_waits_no_longer() {
    let world = today(World::new().await);
    let (person, grant) = somebody(&world).await;
    let listening = world.cell.bind().await.unwrap();
    let address = listening.address();
    let serving = tokio::spawn(listening.run(core::future::pending()));
    let (mut sender, running) = over_tls(&world, address).await;
    let request: Request<Body> = person.sign(&world, &wait(&person, &grant, 0));
    let waiting = tokio::spawn(async move { sender.send_request(request).await.is_ok() });
    until_waiting(&world, 1).await;
    running.abort();
    let gone = tokio::time::timeout(Duration::from_secs(1), until_waiting(&world, 0)).await;
    assert!(gone.is_ok());
    assert!(!waiting.await.unwrap());
    serving.abort();
}

#[tokio::test]
async fn a_cell_that_stops_keeps_nobody_waiting() {
    let world = Arc::new(today(World::new().await));
    let (person, grant) = somebody(&world).await;
    let listening = world.cell.bind().await.unwrap();
    let address = listening.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(listening.run(async {
        let _ = stopped.await;
    }));
    let (mut sender, _running) = over_tls(&world, address).await;
    let request: Request<Body> = person.sign(&world, &wait(&person, &grant, 0));
    let waiting = tokio::spawn(async move { sender.send_request(request).await.unwrap().status() });
    let within = send(&world, &person, &wait(&person, &grant, 0));
    until_waiting(&world, 2).await;
    stop.send(()).unwrap();
    let stopping = tokio::time::timeout(AT_ONCE, serving).await;
    stopping.expect("it stops at once").unwrap();
    assert_eq!(waiting.await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error(&at_once(within).await.1), Some(ErrorCode::Busy));
    // Whoever comes only now does not wait either.
    let outcome = person.outcome(&world, &wait(&person, &grant, 0)).await;
    assert_eq!(outcome, Some(ErrorCode::Busy));
}

/// Whoever only waits does not notice how busy the cell is, and nobody is slowed for it.
#[tokio::test]
async fn whoever_only_waits_slows_nobody() {
    let slow = |config: &mut CellConfig| {
        impatient(config);
        config.limits.steps_per_second_max = 10;
    };
    let world = world(slow).await;
    let (greedy, other) = (world.person().await, world.person().await);
    let pace = &world.cell.shared().pace;
    let is_slow = || {
        pace.spends_extras(greedy.account);
        pace.try_step(greedy.account);
        !pace.try_step(greedy.account)
    };
    let errand = || other.errand(&world, Purpose::Verify);
    let waited = world.send(other.sign(&world, &wait(&other, &errand(), 0)));
    assert_eq!(counter(&waited.await), None);
    assert!(!is_slow());
    let read = other.ask(EndpointId::ReadHead, errand());
    assert_eq!(counter(&world.send(other.sign(&world, &read)).await), None);
    assert!(is_slow());
}
