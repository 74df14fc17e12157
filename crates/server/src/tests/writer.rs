//! Write-only devices: what one may do in a vault of its own, and that it destroys nothing, whoever holds it.

use candor_wire::api::{API_VERSION, EndpointId, ErrorCode, HeadReply, RunsPage, SwapHead};
use candor_wire::cbor;
use candor_wire::chain::AccountView;
use candor_wire::errand::Purpose;
use candor_wire::head::{
    ENCAPSULATED_BYTES, HEAD_VERSION, Head, HeadHash, RUN_SECRETS_SEALED_BYTES, RunKey, SignedHead,
};
use candor_wire::ids::{ObjectId, VaultId};
use candor_wire::statement::{Body as Said, Role};

use super::matrix::with_device;
use super::world::{Ask, Person, World, decoded, object};

const OWN: VaultId = VaultId::from_bytes([0xe1; 16]);

fn run_key(number: u32) -> RunKey {
    RunKey {
        number,
        epoch: 1,
        encapsulated: vec![1; ENCAPSULATED_BYTES],
        sealed: vec![2; RUN_SECRETS_SEALED_BYTES],
    }
}

fn run(
    person: &Person,
    world: &World,
    counter: u64,
    previous: Option<HeadHash>,
    manifest: ObjectId,
) -> Head {
    let number = u32::try_from(counter).unwrap();
    Head {
        version: HEAD_VERSION,
        account: person.account,
        vault: person.vault,
        counter,
        previous,
        manifest,
        epoch: number,
        device: person.device,
        time: world.now(),
        condemned: Vec::new(),
        runs: Some(vec![run_key(number)]),
    }
}

fn swapping(person: &Person, grant: &str, head: &Head, rescued: Option<Vec<ObjectId>>) -> Ask {
    let swap = SwapHead {
        version: API_VERSION,
        expected: head.previous,
        head: SignedHead::sign(head, person.key.ed25519()),
        rescued,
    };
    Ask {
        body: cbor::encode(&swap).into(),
        ..person.ask(EndpointId::SwapHead, grant.to_owned())
    }
}

/// A full device with a backup, and a write-only one of its account with a vault of its own.
async fn family(world: &World) -> (Person, String, Person, String) {
    let mut full = world.person().await;
    let full_grant = full.consents(world).await;
    let shared = full.vault;
    // The vault of the write-only device: its first epoch is stated by the root key.
    full.vault = OWN;
    let errand = full.errand_of(world, Purpose::Recover, None, Some(full.account));
    let epoch = full.state(world, None, full.epoch(Some(OWN)), &[]);
    let ask = Ask {
        signer: None,
        ..full.appending(vec![epoch], errand)
    };
    assert_eq!(full.outcome(world, &ask).await, None);
    full.records = full.chain(world).await.records;
    let keyring = &world.cell.shared().keyring;
    full.view = Some(AccountView::of(full.account, &full.records, keyring).unwrap());
    let (writer, grant) = with_device(world, &full, Role::WriteOnly).await;
    full.vault = shared;
    for filling in [1, 2] {
        let put = full.putting(&object(filling), &full_grant);
        assert_eq!(full.outcome(world, &put).await, None);
        let put = writer.putting(&object(filling), &grant);
        assert_eq!(writer.outcome(world, &put).await, None);
    }
    (full, full_grant, writer, grant)
}

async fn runs(world: &World, person: &Person, vault: VaultId, from: u64) -> RunsPage {
    let errand = person.errand(world, Purpose::Restore);
    let ask = person.ask(EndpointId::ReadRuns, errand);
    let ask = Ask {
        path: ask
            .path
            .replace(&person.vault.to_string(), &vault.to_string()),
        query: format!("from={from}"),
        ..ask
    };
    let (status, body) = person.call(world, &ask).await;
    assert!(status.is_success());
    decoded(&body)
}

#[tokio::test]
async fn a21_every_run_of_a_write_only_device_is_kept_and_read_by_full_ones_alone() {
    let world = World::new().await;
    let (full, _, writer, grant) = family(&world).await;
    let mut before = None;
    for counter in 1..=3_u64 {
        let head = run(&writer, &world, counter, before, ObjectId::of(&object(1)));
        let ask = swapping(&writer, &grant, &head, None);
        assert_eq!(writer.outcome(&world, &ask).await, None, "{counter}");
        assert_eq!(writer.outcome(&world, &ask).await, None, "a repetition");
        before = Some(SignedHead::sign(&head, writer.key.ed25519()).hash());
    }
    // Whoever stole it puts a run on top that nobody can open. The ones below are there.
    let garbage = run(&writer, &world, 4, before, ObjectId::of(&object(2)));
    let ask = swapping(&writer, &grant, &garbage, None);
    assert_eq!(writer.outcome(&world, &ask).await, None);
    let all = runs(&world, &full, OWN, 0).await;
    assert!(!all.more);
    let counters = |page: &RunsPage| -> Vec<u64> {
        let heads = page.heads.iter().map(|head| head.peek().unwrap());
        heads.map(|head| head.counter).collect()
    };
    assert_eq!(counters(&all), [1, 2, 3, 4]);
    assert_eq!(counters(&runs(&world, &full, OWN, 3).await), [3, 4]);
    let of_full = runs(&world, &full, full.vault, 0).await;
    assert!(counters(&of_full).is_empty());
    // The device itself reads back where it stands, and nothing more.
    let own = writer.ask(EndpointId::ReadHead, grant.clone());
    let (_, body) = writer.call(&world, &own).await;
    let head: HeadReply = decoded(&body);
    assert_eq!(head.head.unwrap().peek().unwrap().counter, 4);
    for authority in [grant.clone(), writer.errand(&world, Purpose::Restore)] {
        let ask = writer.ask(EndpointId::ReadRuns, authority.clone());
        let outcome = writer.outcome(&world, &ask).await;
        assert_eq!(outcome, Some(ErrorCode::NotPermitted));
        let get = writer.getting(ObjectId::of(&object(1)), &authority);
        let outcome = writer.outcome(&world, &get).await;
        assert_eq!(outcome, Some(ErrorCode::NotPermitted));
    }
}

#[tokio::test]
async fn a21_a_stolen_write_only_device_moves_condemns_and_erases_nothing() {
    let world = World::new().await;
    let (mut full, full_grant, mut writer, grant) = family(&world).await;
    let first = full.head(&world, 1, None, ObjectId::of(&object(1)));
    let swap = SwapHead {
        version: API_VERSION,
        expected: None,
        head: first.clone(),
        rescued: None,
    };
    let ask = Ask {
        body: cbor::encode(&swap).into(),
        ..full.ask(EndpointId::SwapHead, full_grant.clone())
    };
    assert_eq!(full.outcome(&world, &ask).await, None);
    let good = run(&writer, &world, 1, None, ObjectId::of(&object(1)));
    let kept = object(1);

    // In its own vault: nothing but runs, and a run condemns and rescues nothing.
    let no_run = Head {
        runs: None,
        epoch: 1,
        ..good.clone()
    };
    let condemning = Head {
        condemned: vec![ObjectId::of(&object(2))],
        ..good.clone()
    };
    let condemning_as_full = Head {
        runs: None,
        ..condemning.clone()
    };
    let unknown_epoch = Head {
        runs: Some(vec![RunKey {
            epoch: 2,
            ..run_key(1)
        }]),
        ..good.clone()
    };
    let absent = run(&writer, &world, 1, None, ObjectId::of(&object(9)));
    for (head, rescued, expected) in [
        (&no_run, None, ErrorCode::NotPermitted),
        (&condemning, None, ErrorCode::Malformed),
        (&condemning_as_full, None, ErrorCode::NotPermitted),
        (&unknown_epoch, None, ErrorCode::NotPermitted),
        (&absent, None, ErrorCode::NotFound),
        (
            &good,
            Some(vec![ObjectId::of(&object(2))]),
            ErrorCode::Malformed,
        ),
    ] {
        let ask = swapping(&writer, &grant, head, rescued);
        let outcome = writer.outcome(&world, &ask).await;
        assert_eq!(outcome, Some(expected), "{head:?}");
    }
    assert_eq!(
        writer
            .outcome(&world, &swapping(&writer, &grant, &good, None))
            .await,
        None
    );

    // In the vault of others: also with a consent of its own for it, which it can state.
    let erases = candor_wire::erasure::ErasureAsked {
        version: candor_wire::erasure::ERASURE_VERSION,
        vault: Some(full.vault),
    };
    let own = writer.vault;
    writer.vault = full.vault;
    writer.records = writer.chain(&world).await.records;
    let keyring = &world.cell.shared().keyring;
    writer.view = Some(AccountView::of(writer.account, &writer.records, keyring).unwrap());
    let foreign_grant = writer.consents(&world).await;
    let hash = Some(first.hash());
    for head in [
        run(&writer, &world, 2, hash, ObjectId::of(&kept)),
        Head {
            runs: None,
            ..run(&writer, &world, 2, hash, ObjectId::of(&kept))
        },
    ] {
        let ask = swapping(&writer, &foreign_grant, &head, None);
        let outcome = writer.outcome(&world, &ask).await;
        assert_eq!(outcome, Some(ErrorCode::NotPermitted));
    }
    let read = writer.ask(EndpointId::ReadHead, foreign_grant);
    assert_eq!(
        writer.outcome(&world, &read).await,
        Some(ErrorCode::NotPermitted)
    );
    let said = vec![candor_wire::statement::Body::ErasureAsked(erases)];
    let erased = writer.append_for(&world, Purpose::Erase, said).await;
    assert_eq!(erased, Some(ErrorCode::Chain));

    // Nobody takes a write-only device's vault away by consenting for it: no full device, no other write-only one.
    let (mut second, _) = with_device(&world, &full, Role::WriteOnly).await;
    for other in [&mut full, &mut second] {
        let usual = std::mem::replace(&mut other.vault, own);
        other.records = other.chain(&world).await.records;
        other.view = Some(AccountView::of(other.account, &other.records, keyring).unwrap());
        let said = vec![Said::ConsentGiven(Box::new(other.consent(&world)))];
        let outcome = other.append(&world, said).await;
        assert_eq!(outcome, Some(ErrorCode::Chain));
        other.vault = usual;
    }
    writer.vault = own;
    let before = Some(SignedHead::sign(&good, writer.key.ed25519()).hash());
    let next = run(&writer, &world, 2, before, ObjectId::of(&object(1)));
    let ask = swapping(&writer, &grant, &next, None);
    assert_eq!(writer.outcome(&world, &ask).await, None);

    // Everything is where it was, and a full device does not move the heads of a write-only one's vault.
    let get = full.getting(ObjectId::of(&kept), &full.errand(&world, Purpose::Restore));
    assert_eq!(full.outcome(&world, &get).await, None);
    let head = world.cell.shared().records.head(full.account, full.vault);
    assert_eq!(head.await.unwrap().unwrap().mark.counter, 1);
    assert_eq!(runs(&world, &full, own, 0).await.heads.len(), 2);
}
