//! Revocations: who may state one, what it ends, and which heads hold after it.

use candor_testkit::sample::*;
use candor_wire::chain::{AccountView, ChainError, VoidHead};
use candor_wire::head::{HEAD_VERSION, Head, HeadHash, RunKey};
use candor_wire::ids::{DeviceId, ObjectId, VaultId};
use candor_wire::limits::DEVICES_MAX;
use candor_wire::re_anchor::{HeadChange, HeadPoint, ReAnchor};
use candor_wire::revocation::{DeviceRevoked, HeadPin, REVOCATION_VERSION};
use candor_wire::statement::{Body, Role};

const WRITER: DeviceId = DeviceId::from_bytes([0xd3; 16]);
const OTHER_PHONE: DeviceId = DeviceId::from_bytes([0xd4; 16]);
const OTHER: VaultId = VaultId::from_bytes([0xb2; 16]);

pub(crate) fn pin(vault: VaultId, counter: u64, hash: u8) -> HeadPin {
    HeadPin {
        vault,
        counter,
        hash: HeadHash([hash; 32]),
    }
}

pub(crate) fn revoked(device: DeviceId, heads: &[HeadPin]) -> DeviceRevoked {
    DeviceRevoked {
        version: REVOCATION_VERSION,
        device,
        heads: heads.to_vec(),
    }
}

fn says(device: DeviceId, heads: &[HeadPin]) -> Body {
    Body::DeviceRevoked(Box::new(revoked(device, heads)))
}

/// A family with a full phone, a write-only device, and consents of all three.
fn three() -> Grower {
    let mut grower = family();
    grower
        .push(Some(LAPTOP), &laptop(), added(PHONE, Role::Full, &phone()))
        .push(
            Some(LAPTOP),
            &laptop(),
            epoch(Some(VAULT), 2, &[LAPTOP, PHONE]),
        )
        .push(None, &root(), added(WRITER, Role::WriteOnly, &secret(4)))
        .push(None, &root(), epoch(Some(OTHER), 1, &[LAPTOP, PHONE]))
        .push(Some(LAPTOP), &laptop(), consent(LAPTOP))
        .push(Some(PHONE), &phone(), consent(PHONE));
    grower
}

fn key_of(signer: Option<DeviceId>) -> candor_wire::sign::SecretKey {
    match signer {
        None => root(),
        Some(PHONE) => phone(),
        Some(WRITER) => secret(4),
        Some(_) => laptop(),
    }
}

/// What applying one more statement comes to; a refusal changes nothing.
fn outcome(grower: &Grower, signer: Option<DeviceId>, body: Body) -> Result<(), ChainError> {
    let (record, _) = grower.draft(signer, &key_of(signer), body);
    let mut view = grower.view();
    let before = view.clone();
    let applied = view.apply(&record, &keyring());
    if applied.is_err() {
        assert_eq!(view, before);
    }
    applied
}

fn is_live(view: &AccountView, device: DeviceId) -> bool {
    let consents = view.consents();
    let mut own = consents
        .iter()
        .filter(|(_, one)| one.record.device == device);
    own.all(|(_, one)| one.withdrawn.is_none())
}

#[test]
fn a06_nothing_that_a_revoked_device_states_afterwards_counts() {
    let mut grower = three();
    grower.push(Some(LAPTOP), &laptop(), says(PHONE, &[]));
    let view = grower.view();
    assert!(view.is_revoked(&PHONE) && !view.is_revoked(&LAPTOP));
    assert!(!is_live(&view, PHONE) && is_live(&view, LAPTOP));
    let entry = view.device(&PHONE).unwrap().revoked.as_ref().unwrap();
    assert_eq!((entry.by, entry.sequence), (Some(LAPTOP), 10));
    // What it signs is known to be its own, to be refused as that.
    assert_eq!(view.key_of(Some(&PHONE)), Some(&phone().public()));
    let sequence = 11;
    let stated = [
        consent(PHONE),
        withdrawal(None),
        epoch(Some(VAULT), 3, &[LAPTOP]),
        added(DeviceId::from_bytes([9; 16]), Role::Full, &secret(5)),
        says(LAPTOP, &[]),
    ];
    for body in stated {
        let refused = outcome(&grower, Some(PHONE), body);
        assert_eq!(refused, Err(ChainError::Revoked { sequence }));
    }
    // It is no recipient of new keys, and comes back under no statement of others.
    for body in [
        epoch(Some(VAULT), 3, &[LAPTOP, PHONE]),
        added(PHONE, Role::Full, &secret(5)),
        says(PHONE, &[]),
    ] {
        let refused = outcome(&grower, Some(LAPTOP), body).unwrap_err();
        assert!(
            matches!(refused, ChainError::Contradiction { .. }),
            "{refused:?}"
        );
    }
    let renewed = epoch(Some(VAULT), 3, &[LAPTOP]);
    assert!(view.is_stale(Some(VAULT)) && view.is_stale(Some(OTHER)) && !view.is_stale(None));
    grower.push(Some(LAPTOP), &laptop(), renewed);
    assert!(!grower.view().is_stale(Some(VAULT)) && grower.view().is_stale(Some(OTHER)));
}

#[test]
fn a06_only_a_full_device_or_the_root_revokes_and_no_device_itself() {
    let grower = three();
    let sequence = 10;
    assert_eq!(outcome(&grower, Some(PHONE), says(LAPTOP, &[])), Ok(()));
    // Whoever has nothing but the phrase has a way out, too.
    assert_eq!(outcome(&grower, None, says(LAPTOP, &[])), Ok(()));
    assert_eq!(
        outcome(&grower, Some(WRITER), says(PHONE, &[])),
        Err(ChainError::Role { sequence })
    );
    let unsorted = [pin(OTHER, 1, 1), pin(VAULT, 1, 1)];
    let twice = [pin(VAULT, 1, 1), pin(VAULT, 2, 1)];
    let unknown = [pin(VaultId::from_bytes([1; 16]), 1, 1)];
    let none = [pin(VAULT, 0, 1)];
    let mut version = revoked(PHONE, &[]);
    version.version += 1;
    for body in [
        says(LAPTOP, &[]),
        says(DeviceId::from_bytes([9; 16]), &[]),
        says(PHONE, &unsorted),
        says(PHONE, &twice),
        says(PHONE, &unknown),
        says(PHONE, &none),
        Body::DeviceRevoked(Box::new(version)),
    ] {
        let refused = outcome(&grower, Some(LAPTOP), body).unwrap_err();
        assert!(
            matches!(refused, ChainError::Contradiction { .. }),
            "{refused:?}"
        );
    }
}

fn head(device: DeviceId, counter: u64, epoch: u32) -> Head {
    Head {
        version: HEAD_VERSION,
        account: ACCOUNT,
        vault: VAULT,
        counter,
        previous: None,
        manifest: ObjectId::from_bytes([1; 32]),
        epoch,
        device,
        time: NOW,
        condemned: Vec::new(),
        runs: None,
    }
}

fn check(
    view: &AccountView,
    device: DeviceId,
    counter: u64,
    epoch: u32,
    hash: u8,
) -> Result<(), VoidHead> {
    view.check_head(&VAULT, &head(device, counter, epoch), &HeadHash([hash; 32]))
}

/// The phone was revoked when the vault's head was its own, number 7 under epoch 2.
fn phone_revoked() -> Grower {
    let mut grower = three();
    grower.push(Some(LAPTOP), &laptop(), says(PHONE, &[pin(VAULT, 7, 7)]));
    grower
}

#[test]
fn a06_a_head_of_a_revoked_device_holds_only_if_it_is_the_one_it_left() {
    let before = three().view();
    assert_eq!(
        check(&before, PHONE, 8, 2, 8),
        Ok(()),
        "before the revocation"
    );
    let view = phone_revoked().view();
    assert_eq!(check(&view, PHONE, 7, 2, 7), Ok(()));
    // Later, another one of the same number, and one that claims to be from before.
    for (counter, hash) in [(8, 8), (7, 8), (6, 6), (1, 7)] {
        assert_eq!(
            check(&view, PHONE, counter, 2, hash),
            Err(VoidHead::Revoked)
        );
        assert_eq!(
            check(&view, PHONE, counter, 3, hash),
            Err(VoidHead::Revoked)
        );
    }
    // Of a vault that had none, none holds.
    let other = Head {
        vault: OTHER,
        ..head(PHONE, 1, 1)
    };
    assert_eq!(
        view.check_head(&OTHER, &other, &HeadHash([7; 32])),
        Err(VoidHead::Revoked)
    );
}

#[test]
fn a06_a_head_older_than_a_pinned_one_is_refused_also_by_who_never_saw_a_newer_one() {
    let view = phone_revoked().view();
    for (counter, hash) in [(6, 6), (7, 8)] {
        assert_eq!(
            check(&view, LAPTOP, counter, 2, hash),
            Err(VoidHead::Pinned)
        );
    }
}

#[test]
fn a05_what_is_sealed_under_keys_of_a_revoked_device_is_flagged() {
    let mut grower = phone_revoked();
    assert_eq!(
        check(&grower.view(), LAPTOP, 8, 2, 8),
        Err(VoidHead::StaleEpoch),
        "also before there are new keys"
    );
    grower.push(Some(LAPTOP), &laptop(), epoch(Some(VAULT), 3, &[LAPTOP]));
    let view = grower.view();
    assert_eq!(check(&view, LAPTOP, 8, 2, 8), Err(VoidHead::StaleEpoch));
    assert_eq!(check(&view, LAPTOP, 8, 1, 8), Err(VoidHead::StaleEpoch));
    assert_eq!(check(&view, LAPTOP, 8, 3, 8), Ok(()));
    // A run is sealed to the epoch that its key names, whatever its number is.
    let run = |epoch| {
        let key = RunKey {
            number: 40,
            epoch,
            encapsulated: Vec::new(),
            sealed: Vec::new(),
        };
        Head {
            runs: Some(vec![key]),
            ..head(WRITER, 8, 40)
        }
    };
    let hash = HeadHash([8; 32]);
    assert_eq!(
        view.check_head(&VAULT, &run(2), &hash),
        Err(VoidHead::StaleEpoch)
    );
    assert_eq!(view.check_head(&VAULT, &run(3), &hash), Ok(()));
}

/// After its cell was restored, a person accepts what is left; the revoked device gets nothing out of that.
#[test]
fn a06_a_restored_cell_is_accepted_and_a_revoked_device_is_not() {
    let mut grower = phone_revoked();
    let accepted = |grower: &Grower, heads| {
        Body::ReAnchored(Box::new(ReAnchor {
            heads,
            ..crate::re_anchor::sample(grower)
        }))
    };
    let change = HeadChange {
        vault: VAULT,
        before: HeadPoint {
            counter: 7,
            hash: HeadHash([7; 32]),
        },
        now: Some(HeadPoint {
            counter: 5,
            hash: HeadHash([5; 32]),
        }),
    };
    let body = accepted(&grower, vec![change]);
    grower.push(Some(LAPTOP), &laptop(), body);
    let view = grower.view();
    assert_eq!(check(&view, PHONE, 5, 2, 5), Ok(()), "what was accepted");
    for (counter, hash) in [(5, 6), (6, 6), (8, 8)] {
        assert_eq!(
            check(&view, PHONE, counter, 2, hash),
            Err(VoidHead::Revoked)
        );
    }
    assert_eq!(
        check(&view, LAPTOP, 6, 2, 6),
        Ok(()),
        "it goes on from there"
    );
    // A later revocation weighs again, also what was accepted before it.
    let mut later = Grower {
        records: grower.records.clone(),
        tip: grower.tip,
    };
    later
        .push(None, &root(), added(OTHER_PHONE, Role::Full, &secret(6)))
        .push(
            Some(OTHER_PHONE),
            &secret(6),
            says(LAPTOP, &[pin(VAULT, 6, 6)]),
        );
    let later = later.view();
    assert_eq!(check(&later, PHONE, 5, 2, 5), Err(VoidHead::Pinned));
    // Of a vault that was not named nothing was accepted.
    let other = Head {
        vault: OTHER,
        ..head(PHONE, 1, 1)
    };
    assert_eq!(
        view.check_head(&OTHER, &other, &HeadHash([7; 32])),
        Err(VoidHead::Revoked)
    );
    // Accepted once, it is so until something newer is.
    let gone = HeadChange {
        vault: VAULT,
        before: HeadPoint {
            counter: 6,
            hash: HeadHash([6; 32]),
        },
        now: None,
    };
    let body = accepted(&grower, vec![gone]);
    grower.push(Some(LAPTOP), &laptop(), body);
    assert_eq!(
        check(&grower.view(), PHONE, 5, 2, 5),
        Err(VoidHead::Revoked)
    );
}

#[test]
fn a06_a_vault_that_had_a_head_is_not_without_one_afterwards() {
    let no_head = |grower: &Grower, vault| grower.view().check_no_head(&vault);
    assert_eq!(no_head(&three(), VAULT), Ok(()), "before the revocation");
    let mut grower = phone_revoked();
    assert_eq!(no_head(&grower, VAULT), Err(VoidHead::Pinned));
    assert_eq!(no_head(&grower, OTHER), Ok(()), "it had none");
    // Its cell was restored, and the person accepts that there is none.
    let gone = HeadChange {
        vault: VAULT,
        before: HeadPoint {
            counter: 7,
            hash: HeadHash([7; 32]),
        },
        now: None,
    };
    let accepted = ReAnchor {
        heads: vec![gone],
        ..crate::re_anchor::sample(&grower)
    };
    let body = Body::ReAnchored(Box::new(accepted));
    grower.push(Some(LAPTOP), &laptop(), body);
    assert_eq!(no_head(&grower, VAULT), Ok(()));
    // A head that a later revocation pins came after that.
    grower
        .push(None, &root(), added(OTHER_PHONE, Role::Full, &secret(6)))
        .push(
            Some(LAPTOP),
            &laptop(),
            says(OTHER_PHONE, &[pin(VAULT, 1, 1)]),
        );
    assert_eq!(no_head(&grower, VAULT), Err(VoidHead::Pinned));
}

#[test]
fn devices_that_are_gone_make_room_for_others() {
    let mut grower = family();
    let number = |n: usize| DeviceId::from_bytes([n as u8; 16]);
    for n in 1..DEVICES_MAX {
        grower.push(None, &root(), added(number(n), Role::Full, &phone()));
    }
    let one_more = added(PHONE, Role::Full, &phone());
    let refused = outcome(&grower, None, one_more.clone()).unwrap_err();
    assert!(matches!(refused, ChainError::Limit { .. }));
    grower.push(Some(LAPTOP), &laptop(), says(number(3), &[]));
    assert_eq!(outcome(&grower, None, one_more), Ok(()));
}
