//! Opening, finding, appending, reading.

use candor_wire::api::{ChainPage, EndpointId, ErrorCode, FoundAccount};
use candor_wire::cell::InvitationRight;
use candor_wire::chain::AccountView;
use candor_wire::consent_record::{CONSENT_RECORD_VERSION, ServiceCode, Withdrawal};
use candor_wire::errand::Purpose;
use candor_wire::ids::DeviceId;
use candor_wire::limits::REQUEST_SKEW_SECONDS;
use candor_wire::sign::{SecretKey, SigningSeeds};
use candor_wire::statement::Body as Said;
use http::StatusCode;

use super::world::{Ask, Person, World, decoded, error};
use crate::{Cell, InitError, OpenError};

#[tokio::test]
async fn a_cell_is_made_once_and_opened_once() {
    let world = World::new().await;
    let directory = world.directory.path();
    let again = Cell::init(directory, &super::world::params()).await;
    assert!(matches!(again, Err(InitError::AlreadyThere { .. })));
    assert!(matches!(
        Cell::open(directory).await,
        Err(OpenError::InUse { .. })
    ));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(
        Cell::open(empty.path()).await,
        Err(OpenError::NoCell { .. })
    ));
    let (id, port) = (world.cell.id(), world.cell.config().listen.port());
    assert_ne!(port, 0);
    let world = world.restarted().await;
    assert_eq!(
        (world.cell.id(), world.cell.config().listen.port()),
        (id, port)
    );
}

#[cfg(unix)]
#[tokio::test]
async fn keys_are_for_the_cell_s_user_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    let mode = |path: &str| {
        world
            .directory
            .path()
            .join(path)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("keys"), 0o700);
    for file in [
        "keys/root.key",
        "keys/acknowledgement.key",
        "keys/tls.key",
        "cell.toml",
    ] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_region_never_changes_and_a_controller_is_a_new_generation() {
    let world = World::new().await;
    let path = world.directory.path().join("cell.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("Tester", "Somebody else")).unwrap();
    let world = world.restarted().await;
    assert_eq!(
        (
            world.cell.keys().serial,
            world.cell.keys().controller.as_str()
        ),
        (2, "Somebody else")
    );
    let directory = world.directory;
    drop(world.cell);
    std::fs::write(&path, text.replace("testland", "elsewhere")).unwrap();
    for _ in 0..100 {
        match Cell::open(directory.path()).await {
            Err(OpenError::InUse { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await
            }
            Err(OpenError::Region { signed }) => return assert_eq!(signed, "testland"),
            other => panic!("{:?}", other.err()),
        }
    }
    panic!("the cell was never closed");
}

#[tokio::test]
async fn an_invitation_opens_one_account() {
    let world = World::new().await;
    let right = world.cell.invite().await.unwrap().right.unwrap();
    let mut first = Person::new(&world);
    let (status, body) = world.send(first.opening(&world, &right)).await;
    assert_eq!(status, StatusCode::OK, "{:?}", error(&body));
    // The answer was lost: the same statements again, signed anew.
    let (status, again) = world.send(first.opening(&world, &right)).await;
    assert_eq!((status, again), (StatusCode::OK, body.clone()));
    first.keep(&world, &body);

    let mut second = Person::new(&world);
    let spent = world.send(second.opening(&world, &right)).await;
    assert_eq!(
        (spent.0, error(&spent.1)),
        (StatusCode::FORBIDDEN, Some(ErrorCode::InvitationSpent))
    );
    let unknown = world
        .send(second.opening(&world, &InvitationRight([9; 16])))
        .await;
    assert_eq!(unknown, spent);

    let late = world.cell.invite().await.unwrap().right.unwrap();
    world.advance(7 * 24 * 3600 * 1000);
    let mut third = Person::new(&world);
    let (_, body) = world.send(third.opening(&world, &late)).await;
    assert_eq!(error(&body), Some(ErrorCode::InvitationSpent));
}

#[tokio::test]
async fn the_root_key_alone_finds_the_account() {
    let world = World::new().await;
    let person = world.person().await;
    let errand = person.errand_of(&world, Purpose::Recover, None, None);
    let find = Ask {
        signer: None,
        ..person.ask(EndpointId::FindAccount, errand)
    };
    let (status, body) = person.call(&world, &find).await;
    assert_eq!(
        (status, decoded::<FoundAccount>(&body).account),
        (StatusCode::OK, person.account)
    );

    let stranger = Person::new(&world);
    let errand_of_stranger = stranger.errand_of(&world, Purpose::Recover, None, None);
    let unknown = Ask {
        signer: None,
        ..stranger.ask(EndpointId::FindAccount, errand_of_stranger.clone())
    };
    let not_theirs = Ask {
        path: find.path.clone(),
        ..unknown
    };
    let no_such = Ask {
        signer: None,
        ..stranger.ask(EndpointId::FindAccount, errand_of_stranger)
    };
    let refused = stranger.call(&world, &not_theirs).await;
    assert_eq!(error(&refused.1), Some(ErrorCode::NotFound));
    assert_eq!(stranger.call(&world, &no_such).await, refused);
}

#[tokio::test]
async fn the_root_key_enrols_a_device_and_does_nothing_else() {
    let world = World::new().await;
    let mut person = world.person().await;
    let errand = person.errand_of(&world, Purpose::Recover, None, None);
    let read = Ask {
        signer: None,
        ..person.ask(EndpointId::ReadChain, errand.clone())
    };
    let (_, body) = person.call(&world, &read).await;
    assert_eq!(decoded::<ChainPage>(&body).records, person.records);
    let new_key = SecretKey::from_seeds(&SigningSeeds {
        ed25519: world.fresh_bytes(),
        ml_dsa: world.fresh_bytes(),
    });
    let new_device = DeviceId::from_bytes(world.fresh_bytes());
    let added = person.state(&world, None, person.device_added(new_device, &new_key), &[]);
    let append = Ask {
        signer: None,
        ..person.appending(vec![added], errand.clone())
    };
    assert_eq!(person.outcome(&world, &append).await, None);
    person.records = person.chain(&world).await.records;
    person.view = Some(
        AccountView::of(
            person.account,
            &person.records,
            &world.cell.shared().keyring,
        )
        .unwrap(),
    );
    let consent = person.state(
        &world,
        None,
        Said::ConsentGiven(Box::new(person.consent(&world))),
        &[],
    );
    let append = Ask {
        signer: None,
        ..person.appending(vec![consent], errand)
    };
    assert_eq!(
        person.outcome(&world, &append).await,
        Some(ErrorCode::NotPermitted)
    );
}

#[tokio::test]
async fn an_append_is_a_compare_and_swap() {
    let world = World::new().await;
    let mut person = world.person().await;
    let stale = person.appending(
        vec![person.state(
            &world,
            Some(person.device),
            person.epoch(Some(person.vault)),
            &[],
        )],
        person.errand(&world, Purpose::Consent),
    );
    person.consents(&world).await;
    assert_eq!(
        person.outcome(&world, &stale).await,
        Some(ErrorCode::Conflict)
    );
    let page = person.chain(&world).await;
    assert_eq!((page.records, page.length), (person.records.clone(), 5));
    let tail = Ask {
        query: "from=3".into(),
        ..person.ask(EndpointId::ReadChain, person.errand(&world, Purpose::List))
    };
    let (_, body) = person.call(&world, &tail).await;
    assert_eq!(decoded::<ChainPage>(&body).records, person.records[3..]);
    let spelled = Ask {
        query: "from=03".into(),
        ..tail
    };
    assert_eq!(
        person.outcome(&world, &spelled).await,
        Some(ErrorCode::Malformed)
    );
}

/// A withdrawal counts from the moment that it is written, also if nobody heard the answer.
#[tokio::test]
async fn who_hangs_up_while_appending_changes_what_is_known_all_the_same() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let withdrawal = Said::ConsentWithdrawn(Withdrawal {
        version: CONSENT_RECORD_VERSION,
        service: ServiceCode::Backup,
        vault: None,
    });
    let record = person.state(&world, Some(person.device), withdrawal, &[]);
    let after = person.records.len() as u64;
    let ask = person.appending(vec![record], person.errand(&world, Purpose::Consent));
    let request = person.sign(&world, &ask);
    let mut call = Box::pin(tower::ServiceExt::oneshot(world.cell.service(), request));
    let records = &world.cell.shared().records;
    // Step by step, with time for what a step has started, until it is written.
    loop {
        tokio::select! {
            biased;
            _ = &mut call => panic!("it was answered before anybody could hang up"),
            () = core::future::ready(()) => {}
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let tip = records.chain_tip(person.account).await.unwrap().unwrap();
        if tip.sequence == after {
            break;
        }
    }
    drop(call);
    // Whoever writes holds the account until it is remembered.
    drop(world.cell.shared().views.hold(&person.account).await);
    let put = person.putting(&super::world::object(1), &grant);
    assert_eq!(
        person.outcome(&world, &put).await,
        Some(ErrorCode::NoConsent)
    );
    // The device reads what became of it, and goes on from there.
    person.records = person.chain(&world).await.records;
    let keyring = &world.cell.shared().keyring;
    person.view = Some(AccountView::of(person.account, &person.records, keyring).unwrap());
    let given = Said::ConsentGiven(Box::new(person.consent(&world)));
    assert_eq!(person.append(&world, vec![given]).await, None);
}

/// What is remembered of an account can fall behind what is stored, if a commit was not heard of. The
/// refusal that tells so is the last one.
#[tokio::test]
async fn a_memory_that_fell_behind_is_given_up() {
    let world = World::new().await;
    let mut person = world.person().await;
    person.consents(&world).await;
    let withdrawal = || {
        Said::ConsentWithdrawn(Withdrawal {
            version: CONSENT_RECORD_VERSION,
            service: ServiceCode::Backup,
            vault: None,
        })
    };
    let views = &world.cell.shared().views;
    let behind = views.recall(&person.account).unwrap();
    let record = person.state(&world, Some(person.device), withdrawal(), &[]);
    let late = person.appending(vec![record], person.errand(&world, Purpose::Consent));
    person.withdraws(&world).await;
    views.remember(&behind);
    assert_eq!(
        person.outcome(&world, &late).await,
        Some(ErrorCode::Conflict)
    );
    assert_eq!(person.append(&world, vec![withdrawal()]).await, None);
    assert_eq!(person.chain(&world).await.records, person.records);
}

/// The room for what is remembered is counted in the same bytes, whether it was read or appended.
#[tokio::test]
async fn appending_counts_like_reading() {
    let world = World::new().await;
    let mut person = world.person().await;
    person.consents(&world).await;
    person.withdraws(&world).await;
    let views = &world.cell.shared().views;
    let appended = views.recall(&person.account).unwrap().bytes;
    views.forget(&person.account);
    assert!(views.recall(&person.account).is_none());
    person.chain(&world).await;
    assert_eq!(views.recall(&person.account).unwrap().bytes, appended);
}

#[tokio::test]
async fn statements_that_break_the_rules_change_nothing() {
    let world = World::new().await;
    let mut person = world.person().await;
    assert_eq!(
        person
            .append(&world, vec![person.epoch(Some(person.vault))])
            .await,
        None
    );
    let good = person.consent(&world);
    let mut lies = vec![good.clone(), good.clone(), good.clone(), good.clone()];
    lies[0].recipient.region = "elsewhere".into();
    lies[1].recipient.controller = "Nobody".into();
    lies[2].retention_days += 1;
    lies[3].given_at = world.now().plus_ms((REQUEST_SKEW_SECONDS + 1) * 1000);
    for lie in lies {
        let said = vec![Said::ConsentGiven(Box::new(lie))];
        assert_eq!(person.append(&world, said).await, Some(ErrorCode::Chain));
    }
    // A device cannot add devices on an errand to consent, and nobody begins an account twice.
    let added = person.device_added(DeviceId::from_bytes([7; 16]), &person.key);
    assert_eq!(
        person.append(&world, vec![added]).await,
        Some(ErrorCode::NotPermitted)
    );
    assert_eq!(
        person
            .append(&world, vec![person.epoch(Some(person.vault))])
            .await,
        Some(ErrorCode::Chain)
    );
    assert_eq!(
        person.append(&world, vec![]).await,
        Some(ErrorCode::Malformed)
    );
    assert_eq!(person.chain(&world).await.records, person.records);
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let sent = super::world::object(5);
    assert_eq!(
        person.outcome(&world, &person.putting(&sent, &grant)).await,
        None
    );
    let replayed = person.putting(&super::world::object(6), &grant);
    let nonce = candor_wire::ids::RequestNonce::from_bytes([8; 16]);
    let first = person.sign_as(&world, &replayed, nonce, world.now().seconds());
    assert_eq!(world.send(first).await.0, StatusCode::NO_CONTENT);

    let world = world.restarted().await;
    assert_eq!(person.chain(&world).await.records, person.records);
    let got = person
        .call(
            &world,
            &person.getting(candor_wire::ObjectId::of(&sent), &grant),
        )
        .await;
    assert_eq!(got, (StatusCode::OK, sent));
    let second = person.sign_as(&world, &replayed, nonce, world.now().seconds());
    assert_eq!(
        error(&world.send(second).await.1),
        Some(ErrorCode::Replayed)
    );
}
