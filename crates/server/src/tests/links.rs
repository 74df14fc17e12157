//! Links: who opens one, who leaves and reads messages there, and that it ends.

use std::sync::Arc;

use candor_wire::api::{API_VERSION, EndpointId, ErrorCode, LinkMessage, LinkReply};
use candor_wire::cbor;
use candor_wire::errand::Purpose;
use candor_wire::ids::{AccountId, VaultId, to_hex};
use candor_wire::linking::{
    LINK_MAX_MS, LINK_MESSAGE_MAX_BYTES, LINK_MESSAGES, LINKS_MAX, LinkSecret,
};
use candor_wire::statement::{Body as Said, Role};
use http::StatusCode;

use super::matrix::with_device;
use super::world::{Ask, Person, World, decoded};

/// Somebody who knows the secret of a new code: its key signs where a person's root key does.
pub(super) fn linker(world: &World) -> Person {
    let secret = LinkSecret::from_bytes(world.fresh_bytes());
    let mut linker = Person::new(world);
    linker.root = Arc::new(secret.signing());
    linker
}

fn at(ask: Ask, linker: &Person) -> Ask {
    let name = to_hex(linker.root.public().ed25519().as_bytes());
    Ask {
        path: ask.path.replace(&"1c".repeat(32), &name),
        ..ask
    }
}

/// The request of a device that opens the link.
pub(super) fn opening(world: &World, owner: &Person, linker: &Person) -> Ask {
    let errand = owner.errand(world, Purpose::Link);
    at(owner.ask(EndpointId::OpenLink, errand), linker)
}

/// A request at the link, signed with its key; a message is for `place`.
pub(super) fn asking(world: &World, linker: &Person, id: EndpointId, place: u8) -> Ask {
    leaving(world, linker, id, place, b"a message")
}

fn leaving(world: &World, linker: &Person, id: EndpointId, place: u8, sealed: &[u8]) -> Ask {
    let errand = linker.errand_of(world, Purpose::Join, None, None);
    let message = LinkMessage {
        version: API_VERSION,
        place,
        sealed: sealed.to_vec(),
    };
    let body = match id {
        EndpointId::PutLinkMessage => cbor::encode(&message).into(),
        _ => bytes::Bytes::new(),
    };
    Ask {
        signer: None,
        body,
        ..at(linker.ask(id, errand), linker)
    }
}

async fn opened(world: &World, owner: &Person) -> Person {
    let linker = linker(world);
    let ask = opening(world, owner, &linker);
    assert_eq!(owner.outcome(world, &ask).await, None);
    linker
}

async fn messages(world: &World, linker: &Person) -> Result<LinkReply, StatusCode> {
    let ask = asking(world, linker, EndpointId::ReadLink, 0);
    let (status, body) = linker.call(world, &ask).await;
    status.is_success().then(|| decoded(&body)).ok_or(status)
}

#[tokio::test]
async fn two_who_know_a_code_leave_each_other_messages() {
    let world = World::new().await;
    let owner = world.person().await;
    let linker = opened(&world, &owner).await;
    for place in 0..LINK_MESSAGES as u8 {
        let ask = asking(&world, &linker, EndpointId::PutLinkMessage, place);
        assert_eq!(linker.outcome(&world, &ask).await, None);
        // The same again is a repetition; another one has no place there: a code is good once.
        let again = asking(&world, &linker, EndpointId::PutLinkMessage, place);
        assert_eq!(linker.outcome(&world, &again).await, None);
        let id = EndpointId::PutLinkMessage;
        let other = leaving(&world, &linker, id, place, b"another one");
        let outcome = linker.outcome(&world, &other).await;
        assert_eq!(outcome, Some(ErrorCode::Conflict));
        let found = messages(&world, &linker).await.unwrap().messages;
        assert_eq!(found.len(), LINK_MESSAGES);
        let left = found.iter().filter(|one| one.sealed.is_some()).count();
        assert_eq!(left, usize::from(place) + 1);
    }
    // They are there after a restart.
    let world = world.restarted().await;
    let found = messages(&world, &linker).await.unwrap().messages;
    assert!(
        found
            .iter()
            .all(|one| one.sealed.as_deref() == Some(b"a message"))
    );
}

/// What is asked with a link's key is asked by the account that opened it.
#[tokio::test]
async fn a38_requests_at_a_link_are_steps_of_its_account() {
    const READS: u32 = 4;
    let slow = |config: &mut crate::CellConfig| config.limits.steps_per_second_max = 10;
    let world = World::with(slow, crate::log::Log::silent()).await;
    let (owner, other) = (world.person().await, world.person().await);
    let linker = opened(&world, &owner).await;
    let _other = opened(&world, &other).await;
    world.cell.shared().pace.spends_extras(owner.account);
    let began = std::time::Instant::now();
    for _ in 0..READS {
        assert!(messages(&world, &linker).await.is_ok());
    }
    let least = std::time::Duration::from_millis(100) * (READS - 1);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_link_ends_after_ten_minutes_and_nothing_is_left_of_it() {
    let world = World::new().await;
    let owner = world.person().await;
    let linker = opened(&world, &owner).await;
    let put = asking(&world, &linker, EndpointId::PutLinkMessage, 0);
    assert_eq!(linker.outcome(&world, &put).await, None);
    world.advance(LINK_MAX_MS - 1);
    assert!(messages(&world, &linker).await.is_ok());
    world.advance(1);
    assert_eq!(messages(&world, &linker).await, Err(StatusCode::NOT_FOUND));
    let put = asking(&world, &linker, EndpointId::PutLinkMessage, 1);
    let outcome = linker.outcome(&world, &put).await;
    assert_eq!(outcome, Some(ErrorCode::NotFound));
    world.advance(1);
    crate::housekeeping::sweep(world.cell.shared()).await;
    let database = world.directory.path().join("store/records.sqlite");
    let connection = rusqlite::Connection::open(database).unwrap();
    let rows: i64 = connection
        .query_row("SELECT count(*) FROM links", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

/// Nobody reads or writes at a link whose key they do not hold, whatever else they may do, and nobody learns whether
/// it is there.
#[tokio::test]
async fn c01_a_link_is_for_those_who_hold_its_key() {
    let world = World::new().await;
    let mut owner = world.person().await;
    let grant = owner.consents(&world).await;
    let link = opened(&world, &owner).await;
    let unopened = linker(&world);
    for id in [EndpointId::PutLinkMessage, EndpointId::ReadLink] {
        let (mut answers, mut asked) = (Vec::new(), 0);
        for at_link in [&link, &unopened] {
            let genuine = asking(&world, at_link, id, 0);
            let other_key = Person::new(&world);
            let by_other = Ask {
                authority: other_key.errand_of(&world, Purpose::Join, None, None),
                ..genuine.clone()
            };
            answers.push(other_key.call(&world, &by_other).await);
            for authority in [grant.clone(), owner.errand(&world, Purpose::Link)] {
                let by_owner = Ask {
                    signer: Some(owner.device),
                    authority,
                    ..genuine.clone()
                };
                answers.push(owner.call(&world, &by_owner).await);
            }
            asked += 1;
        }
        assert_eq!(asked, 2);
        answers.push(
            unopened
                .call(&world, &asking(&world, &unopened, id, 0))
                .await,
        );
        assert!(
            answers.windows(2).all(|pair| pair[0] == pair[1]),
            "{answers:?}"
        );
        assert_eq!(answers[0].0, StatusCode::NOT_FOUND);
    }
    // With the right key and another errand or account.
    for (purpose, account) in [
        (Purpose::Recover, None),
        (Purpose::Join, Some(owner.account)),
    ] {
        let ask = Ask {
            authority: link.errand_of(&world, purpose, None, account),
            ..asking(&world, &link, EndpointId::ReadLink, 0)
        };
        let outcome = link.outcome(&world, &ask).await;
        assert_eq!(outcome, Some(ErrorCode::NotPermitted), "{purpose:?}");
    }
    // Nor does the key open anything but the link.
    let elsewhere = Ask {
        signer: None,
        ..owner.ask(
            EndpointId::ReadChain,
            link.errand_of(&world, Purpose::Join, None, None),
        )
    };
    let outcome = link.outcome(&world, &elsewhere).await;
    assert_eq!(outcome, Some(ErrorCode::NotFound));
}

#[tokio::test]
async fn a_link_is_opened_by_a_full_device_and_there_are_few() {
    let world = World::new().await;
    let mut owner = world.person().await;
    owner.consents(&world).await;
    let (writer, _) = with_device(&world, &owner, Role::WriteOnly).await;
    let link = linker(&world);
    let outcome = writer
        .outcome(&world, &opening(&world, &writer, &link))
        .await;
    assert_eq!(outcome, Some(ErrorCode::NotPermitted));
    for purpose in Purpose::ALL.into_iter().filter(|one| *one != Purpose::Link) {
        let ask = Ask {
            authority: owner.errand(&world, purpose),
            ..opening(&world, &owner, &link)
        };
        let outcome = owner.outcome(&world, &ask).await;
        assert_eq!(outcome, Some(ErrorCode::NotPermitted), "{purpose:?}");
    }
    for _ in 0..LINKS_MAX {
        let ask = opening(&world, &owner, &linker(&world));
        assert_eq!(owner.outcome(&world, &ask).await, None);
        assert_eq!(owner.outcome(&world, &ask).await, None, "a repetition");
    }
    let ask = opening(&world, &owner, &link);
    assert_eq!(owner.outcome(&world, &ask).await, Some(ErrorCode::Conflict));
    world.advance(LINK_MAX_MS);
    let ask = opening(&world, &owner, &link);
    assert_eq!(owner.outcome(&world, &ask).await, None);
}

#[tokio::test]
async fn c03_messages_of_a_link_are_small_and_have_a_place() {
    let world = World::new().await;
    let owner = world.person().await;
    let link = opened(&world, &owner).await;
    let id = EndpointId::PutLinkMessage;
    for (place, length) in [(LINK_MESSAGES as u8, 1), (0, LINK_MESSAGE_MAX_BYTES + 1)] {
        let ask = leaving(&world, &link, id, place, &vec![1; length]);
        let outcome = link.outcome(&world, &ask).await;
        assert_eq!(outcome, Some(ErrorCode::Malformed));
    }
    let ask = leaving(&world, &link, id, 0, &vec![1; LINK_MESSAGE_MAX_BYTES]);
    assert_eq!(link.outcome(&world, &ask).await, None);
}

/// On the errand of linking a device is added and new keys are made, and nothing else is said.
#[tokio::test]
async fn linking_states_a_device_and_its_keys_alone() {
    let world = World::new().await;
    let mut owner = world.person().await;
    owner.consents(&world).await;
    let joining = Person::new(&world);
    let consent = Said::ConsentGiven(Box::new(owner.consent(&world)));
    let outcome = owner.append_for(&world, Purpose::Link, vec![consent]).await;
    assert_eq!(outcome, Some(ErrorCode::NotPermitted));
    let said = vec![
        owner.device_added(joining.device, &joining.key),
        owner.epoch(Some(VaultId::from_bytes([9; 16]))),
    ];
    let outcome = owner.append_for(&world, Purpose::Link, said).await;
    assert_eq!(outcome, None);
    // From then on the new device reads the chain; another account's it does not.
    let joined = Person {
        account: owner.account,
        ..joining
    };
    let ask = joined.ask(EndpointId::ReadChain, joined.errand(&world, Purpose::Join));
    assert_eq!(joined.outcome(&world, &ask).await, None);
    let elsewhere = Person {
        account: AccountId::from_bytes([7; 16]),
        ..joined
    };
    let ask = elsewhere.ask(
        EndpointId::ReadChain,
        elsewhere.errand(&world, Purpose::Join),
    );
    let outcome = elsewhere.outcome(&world, &ask).await;
    assert_eq!(outcome, Some(ErrorCode::NotFound));
}
