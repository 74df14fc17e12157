//! Revoking a device: who may, what it has to name, and that nothing of the device gets through afterwards.

use candor_wire::api::{API_VERSION, ENDPOINTS, EndpointId, ErrorCode, SwapHead};
use candor_wire::cbor;
use candor_wire::chain::AccountView;
use candor_wire::epoch::EpochRecord;
use candor_wire::errand::Purpose;
use candor_wire::head::{HeadHash, SignedHead};
use candor_wire::ids::{ObjectId, VaultId};
use candor_wire::revocation::{DeviceRevoked, HeadPin, REVOCATION_VERSION};
use candor_wire::statement::{Body as Said, Role};

use super::matrix::with_device;
use super::world::{Ask, Person, World, object};

/// Takes over what stands on the chain now.
async fn catches_up(world: &World, person: &mut Person, other: &Person) {
    person.records = other.chain(world).await.records;
    let keyring = &world.cell.shared().keyring;
    person.view = Some(AccountView::of(person.account, &person.records, keyring).unwrap());
}

/// Two full devices that both back up into one vault.
async fn pair(world: &World) -> (Person, String, Person, String) {
    let mut mine = world.person().await;
    let grant = mine.consents(world).await;
    let (lost, lost_grant) = with_device(world, &mine, Role::Full).await;
    for (person, grant) in [(&mine, &grant), (&lost, &lost_grant)] {
        let put = person.putting(&object(1), grant);
        assert_eq!(person.outcome(world, &put).await, None);
    }
    catches_up(world, &mut mine, &lost).await;
    (mine, grant, lost, lost_grant)
}

fn revoking(lost: &Person, heads: &[(VaultId, &SignedHead)]) -> Said {
    let pins = heads.iter().map(|(vault, head)| HeadPin {
        vault: *vault,
        counter: head.peek().unwrap().counter,
        hash: head.hash(),
    });
    Said::DeviceRevoked(Box::new(DeviceRevoked {
        version: REVOCATION_VERSION,
        device: lost.device,
        heads: pins.collect(),
    }))
}

fn swapping(person: &Person, grant: &str, head: &SignedHead) -> Ask {
    let swap = SwapHead {
        version: API_VERSION,
        expected: head.peek().unwrap().previous,
        head: head.clone(),
        rescued: None,
    };
    Ask {
        body: cbor::encode(&swap).into(),
        ..person.ask(EndpointId::SwapHead, grant.to_owned())
    }
}

fn head(
    world: &World,
    person: &Person,
    counter: u64,
    epoch: u32,
    before: Option<HeadHash>,
) -> SignedHead {
    let head = person.head(world, counter, before, ObjectId::of(&object(1)));
    let head = candor_wire::head::Head {
        epoch,
        ..head.peek().unwrap()
    };
    SignedHead::sign(&head, person.key.ed25519())
}

/// The vault's next epoch, wrapped to the person's device alone.
fn renewal(person: &Person, epoch: u32) -> Said {
    let Said::Epoch(first) = person.epoch(Some(person.vault)) else {
        unreachable!()
    };
    Said::Epoch(Box::new(EpochRecord {
        epoch,
        earlier: vec![1; 60],
        ..*first
    }))
}

/// Threat table C, row 2: from the acknowledgement on, which is well below a second, on every endpoint that asks
/// who calls, with whatever it was allowed before.
#[tokio::test]
async fn c02_a_revoked_device_is_refused_at_once_everywhere() {
    let world = World::new().await;
    let (mut mine, grant, lost, lost_grant) = pair(&world).await;
    let errands = Purpose::ALL.map(|purpose| lost.errand(&world, purpose));
    let revoked = revoking(&lost, &[]);
    let outcome = mine
        .append_for(&world, Purpose::Revoke, vec![revoked])
        .await;
    assert_eq!(outcome, None);
    let mut refused = 0;
    for row in ENDPOINTS {
        if !matches!(row.caller, candor_wire::api::Caller::Device) {
            continue;
        }
        for authority in errands.iter().chain([&lost_grant]) {
            let ask = lost.ask(row.id, authority.clone());
            let path = ask
                .path
                .replace("{object}", &ObjectId::of(&object(1)).to_string());
            let ask = Ask { path, ..ask };
            let outcome = lost.outcome(&world, &ask).await;
            assert_eq!(outcome, Some(ErrorCode::Revoked), "{:?}", row.id);
            refused += 1;
        }
    }
    assert_eq!(refused, 11 * (Purpose::ALL.len() + 1));
    // Whoever does not hold its key is told nothing about it.
    let mut stranger = Person::new(&world);
    stranger.account = lost.account;
    stranger.device = lost.device;
    let ask = stranger.ask(
        EndpointId::ReadChain,
        stranger.errand(&world, Purpose::List),
    );
    let outcome = stranger.outcome(&world, &ask).await;
    assert_eq!(outcome, Some(ErrorCode::NotFound));
    // The other one works on.
    let put = mine.putting(&object(2), &grant);
    assert_eq!(mine.outcome(&world, &put).await, None);
    // A restart changes nothing.
    let world = world.restarted().await;
    let ask = lost.ask(EndpointId::ReadChain, lost.errand(&world, Purpose::List));
    let outcome = lost.outcome(&world, &ask).await;
    assert_eq!(outcome, Some(ErrorCode::Revoked));
}

#[tokio::test]
async fn a06_a_revocation_names_every_head_as_it_is() {
    let world = World::new().await;
    let (mut mine, _, lost, lost_grant) = pair(&world).await;
    let first = head(&world, &lost, 1, 1, None);
    let swap = swapping(&lost, &lost_grant, &first);
    assert_eq!(lost.outcome(&world, &swap).await, None);
    let second = head(&world, &lost, 2, 1, Some(first.hash()));
    let elsewhere = [(mine.vault, &second)];
    for heads in [&[][..], &elsewhere[..]] {
        let said = vec![revoking(&lost, heads)];
        let outcome = mine.append_for(&world, Purpose::Revoke, said).await;
        assert_eq!(outcome, Some(ErrorCode::Conflict));
        // It does not outrun the next try: for a while it changes nothing.
        let swap = swapping(&lost, &lost_grant, &second);
        assert_eq!(lost.outcome(&world, &swap).await, Some(ErrorCode::Busy));
    }
    let said = vec![revoking(&lost, &[(mine.vault, &first)])];
    let outcome = mine.append_for(&world, Purpose::Revoke, said).await;
    assert_eq!(outcome, None);
    let swap = swapping(&lost, &lost_grant, &second);
    assert_eq!(lost.outcome(&world, &swap).await, Some(ErrorCode::Revoked));
}

/// The device moves the head at the very moment in which it is revoked: one of the two comes first, and in no order
/// does a head of it stand that the revocation does not name.
#[tokio::test(flavor = "multi_thread")]
async fn a06_a_head_and_a_revocation_at_one_time_never_both_win() {
    let world = World::new().await;
    let mut won = [0, 0];
    for _ in 0..12 {
        let (mut mine, _, lost, lost_grant) = pair(&world).await;
        let first = head(&world, &lost, 1, 1, None);
        let swap = swapping(&lost, &lost_grant, &first);
        let (moved, revoked) = tokio::join!(
            lost.outcome(&world, &swap),
            mine.append_for(&world, Purpose::Revoke, vec![revoking(&lost, &[])])
        );
        match (moved, revoked) {
            (None, Some(ErrorCode::Conflict)) => won[0] += 1,
            (Some(ErrorCode::Revoked), None) => won[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won.iter().sum::<i32>(), 12);
}

#[tokio::test]
async fn a05_nobody_writes_under_keys_of_a_revoked_device() {
    let world = World::new().await;
    let (mut mine, grant, mut lost, _) = pair(&world).await;
    // The vault's keys are the lost device's too.
    let Said::Epoch(mut shared) = renewal(&mine, 2) else {
        unreachable!()
    };
    let mut wrap = shared.wraps[1].clone();
    wrap.recipient = Some(lost.device);
    shared.wraps.push(wrap);
    shared.wraps.sort_by_key(|wrap| wrap.recipient);
    assert_eq!(mine.append(&world, vec![Said::Epoch(shared)]).await, None);
    let first = head(&world, &mine, 1, 2, None);
    let swap = swapping(&mine, &grant, &first);
    assert_eq!(mine.outcome(&world, &swap).await, None);
    let said = vec![revoking(&lost, &[(mine.vault, &first)])];
    let outcome = mine.append_for(&world, Purpose::Revoke, said).await;
    assert_eq!(outcome, None);

    let next = |epoch| head(&world, &mine, 2, epoch, Some(first.hash()));
    let old = swapping(&mine, &grant, &next(2));
    assert_eq!(mine.outcome(&world, &old).await, Some(ErrorCode::Conflict));
    // With its consent alone the device makes new keys, of this vault and of nothing else.
    let other = VaultId::from_bytes([0x0e; 16]);
    let elsewhere = Person::new(&world);
    let first_of_other = elsewhere.epoch(Some(other));
    for said in [first_of_other, mine.epoch(None), revoking(&mine, &[])] {
        let record = mine.state(&world, Some(mine.device), said, &[]);
        let ask = mine.appending(vec![record], grant.clone());
        let outcome = mine.outcome(&world, &ask).await;
        assert_eq!(outcome, Some(ErrorCode::NotPermitted));
    }
    let record = mine.state(&world, Some(mine.device), renewal(&mine, 3), &[]);
    let ask = mine.appending(vec![record], grant.clone());
    assert_eq!(mine.outcome(&world, &ask).await, None);
    assert_eq!(mine.outcome(&world, &old).await, Some(ErrorCode::Conflict));
    let new = swapping(&mine, &grant, &next(3));
    assert_eq!(mine.outcome(&world, &new).await, None);
    // The lost one cannot make any.
    lost.view.clone_from(&mine.view);
    let record = lost.state(&world, Some(lost.device), renewal(&lost, 4), &[]);
    let ask = lost.appending(vec![record], lost.errand(&world, Purpose::Consent));
    assert_eq!(lost.outcome(&world, &ask).await, Some(ErrorCode::Revoked));
}

#[tokio::test]
async fn a_revocation_needs_its_own_errand_and_a_full_device() {
    let world = World::new().await;
    let (mut mine, _, lost, _) = pair(&world).await;
    for purpose in Purpose::ALL {
        if matches!(purpose, Purpose::Revoke | Purpose::ReAnchor) {
            continue;
        }
        let said = vec![revoking(&lost, &[])];
        let outcome = mine.append_for(&world, purpose, said).await;
        assert_eq!(outcome, Some(ErrorCode::NotPermitted), "{purpose:?}");
    }
    let (mut writer, _) = with_device(&world, &lost, Role::WriteOnly).await;
    let said = vec![revoking(&lost, &[])];
    let outcome = writer.append_for(&world, Purpose::Revoke, said).await;
    assert_eq!(outcome, Some(ErrorCode::Chain));
    catches_up(&world, &mut mine, &lost).await;
    // With this errand nothing else is stated.
    for said in [
        mine.device_added(writer.device, &writer.key),
        Said::ConsentGiven(Box::new(mine.consent(&world))),
    ] {
        let outcome = mine.append_for(&world, Purpose::Revoke, vec![said]).await;
        assert_eq!(outcome, Some(ErrorCode::NotPermitted));
    }
}
