//! The rules of a chain, and that each of them holds against a cell or member that breaks it.

use candor_wire::chain::{AccountView, ChainError, Record};
use candor_wire::consent_record::{ConsentRecord, RecordFault};
use candor_wire::ids::{DeviceId, Link, Salt, StatementId, VaultId};
use candor_wire::limits::CONSENT_MAX_MS;
use candor_wire::sign::Signature;
use candor_wire::statement::{Body, Kind, Role, SignedEntry, Statement};
use candor_wire::{AccountId, cbor};

use candor_testkit::sample::*;

/// Applies a record and expects a refusal that leaves the view as it was.
#[track_caller]
fn refused(view: &AccountView, record: &Record) -> ChainError {
    let mut after = view.clone();
    let error = after.apply(record, &keyring()).unwrap_err();
    assert_eq!(&after, view, "a refused record changed the view");
    error
}

#[test]
fn an_honest_chain_is_accepted_and_seen() {
    let mut grower = family();
    grower
        .push(Some(LAPTOP), &laptop(), consent(LAPTOP))
        .push(
            Some(LAPTOP),
            &laptop(),
            added(PHONE, Role::WriteOnly, &phone()),
        )
        .push(Some(LAPTOP), &laptop(), epoch(Some(VAULT), 2, &[LAPTOP]))
        .push(Some(LAPTOP), &laptop(), withdrawal(Some(VAULT)));
    let view = grower.view();
    assert_eq!(view.next_sequence(), 8);
    assert_eq!(view.tip(), grower.tip);
    assert_eq!(view.devices().count(), 2);
    assert_eq!(view.epoch(Some(VAULT)).unwrap().epoch, 2);
    let consents = view.consents();
    assert_eq!(consents.len(), 1);
    assert!(consents[0].1.acknowledged.is_some());
    assert!(consents[0].1.withdrawn.is_some());
}

#[test]
fn only_the_root_begins_an_account() {
    let mut grower = Grower::empty();
    grower.push(None, &laptop(), genesis());
    let result = AccountView::of(ACCOUNT, &grower.records, &keyring());
    assert_eq!(result.unwrap_err(), ChainError::Signature { sequence: 0 });

    let other = AccountId::from_bytes([0xee; 16]);
    assert_eq!(
        AccountView::of(other, &family().records, &keyring()).unwrap_err(),
        ChainError::Order { sequence: 0 }
    );
}

#[test]
fn a_device_is_added_by_the_root_or_a_full_device_only() {
    let mut grower = family();
    grower.push(
        Some(LAPTOP),
        &laptop(),
        added(PHONE, Role::WriteOnly, &phone()),
    );
    let view = grower.view();
    let tablet = DeviceId::from_bytes([0xd3; 16]);
    let (by_phone, _) = grower.draft(Some(PHONE), &phone(), added(tablet, Role::Full, &secret(4)));
    assert_eq!(refused(&view, &by_phone), ChainError::Role { sequence: 5 });
    let (by_itself, _) = grower.draft(
        Some(tablet),
        &secret(4),
        added(tablet, Role::Full, &secret(4)),
    );
    assert_eq!(
        refused(&view, &by_itself),
        ChainError::Signature { sequence: 5 }
    );
    // Signed with the right name and the wrong key.
    let (forged, _) = grower.draft(
        Some(LAPTOP),
        &secret(4),
        added(tablet, Role::Full, &secret(4)),
    );
    assert_eq!(
        refused(&view, &forged),
        ChainError::Signature { sequence: 5 }
    );
    let (twice, _) = grower.draft(None, &root(), added(PHONE, Role::Full, &phone()));
    assert_eq!(
        refused(&view, &twice),
        ChainError::Contradiction {
            sequence: 5,
            reason: "the device is there already"
        }
    );
}

#[test]
fn both_signatures_have_to_verify() {
    let grower = family();
    let mut before = grower.records.clone();
    let last = before.pop().unwrap();
    let view = AccountView::of(ACCOUNT, &before, &keyring()).unwrap();
    let statement = last.statement.clone().unwrap();
    let signed: SignedEntry = cbor::decode(&statement.signed).unwrap();
    let bytes = cbor::encode(&signed.signature);
    // The first byte of the Ed25519 half and one in the middle of the ML-DSA half.
    for position in [5, 2_000] {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1;
        let signature: Signature = minicbor::decode(&flipped).unwrap();
        let forged = SignedEntry {
            entry: signed.entry.clone(),
            signature,
        };
        let forged = Statement {
            signed: cbor::encode(&forged),
            salt: statement.salt,
        };
        let mut record = Record::of(forged).unwrap();
        record.acknowledgement = None;
        assert_eq!(
            refused(&view, &record),
            ChainError::Signature { sequence: 3 }
        );
    }
}

#[test]
fn an_epoch_has_only_known_recipients_and_no_gaps() {
    let grower = family();
    let view = grower.view();
    let shape = "the epoch record has no valid shape";
    let gap = "epochs follow each other without gaps";
    let stranger = "an epoch is wrapped to somebody who is not a device of the account";
    // In the order of their ids, so that it is not the order that is refused.
    let (before, after) = (
        DeviceId::from_bytes([0x66; 16]),
        DeviceId::from_bytes([0xee; 16]),
    );
    let mut cases = vec![
        (epoch(Some(VAULT), 2, &[before, LAPTOP]), stranger),
        (epoch(Some(VAULT), 2, &[LAPTOP, after]), stranger),
        (epoch(Some(VAULT), 2, &[after]), stranger),
        (epoch(None, 2, &[LAPTOP, after]), stranger),
        (epoch(Some(VAULT), 2, &[LAPTOP, before]), shape),
        (epoch(Some(VAULT), 3, &[LAPTOP]), gap),
        (epoch(Some(VAULT), 1, &[LAPTOP]), gap),
        (epoch(Some(VaultId::from_bytes([1; 16])), 2, &[LAPTOP]), gap),
    ];
    if let Body::Epoch(mut without_recovery) = epoch(Some(VAULT), 2, &[LAPTOP]) {
        without_recovery.wraps.remove(0);
        cases.push((Body::Epoch(without_recovery), shape));
    }
    if let Body::Epoch(mut twice) = epoch(Some(VAULT), 2, &[LAPTOP]) {
        let again = twice.wraps[1].clone();
        twice.wraps.push(again);
        cases.push((Body::Epoch(twice), shape));
    }
    for (body, reason) in cases {
        let (record, _) = grower.draft(Some(LAPTOP), &laptop(), body);
        assert_eq!(
            refused(&view, &record),
            ChainError::Contradiction {
                sequence: 4,
                reason
            }
        );
    }
    let (by_root, _) = grower.draft(None, &root(), epoch(Some(VAULT), 2, &[LAPTOP]));
    assert_eq!(refused(&view, &by_root), ChainError::Role { sequence: 4 });
    // A first one it may state: a write-only device gets its vaults so.
    let new = VaultId::from_bytes([1; 16]);
    let (by_root, _) = grower.draft(None, &root(), epoch(Some(new), 1, &[LAPTOP]));
    let mut view = view;
    assert_eq!(view.apply(&by_root, &keyring()), Ok(()));
}

#[test]
fn a_consent_is_signed_by_its_own_device_and_ends() {
    let mut grower = family();
    grower.push(Some(LAPTOP), &laptop(), added(PHONE, Role::Full, &phone()));
    let view = grower.view();
    let (for_another, _) = grower.draft(Some(LAPTOP), &laptop(), consent(PHONE));
    assert_eq!(
        refused(&view, &for_another),
        ChainError::Role { sequence: 5 }
    );
    let (by_root, _) = grower.draft(None, &root(), consent(LAPTOP));
    assert_eq!(refused(&view, &by_root), ChainError::Role { sequence: 5 });

    let mut endless = consent_record(LAPTOP);
    endless.ends_at = endless.given_at.plus_ms(CONSENT_MAX_MS + 1);
    let mut over = consent_record(LAPTOP);
    over.ends_at = over.given_at;
    for record in [endless, over] {
        let (record, _) = grower.draft(
            Some(LAPTOP),
            &laptop(),
            Body::ConsentGiven(Box::new(record)),
        );
        assert_eq!(
            refused(&view, &record),
            ChainError::Consent {
                sequence: 5,
                source: RecordFault::Duration
            }
        );
    }
}

#[test]
fn a_vault_that_only_a_write_only_device_uses_is_that_device_s() {
    let theirs = VaultId::from_bytes([0xb2; 16]);
    let consent_for = |device: DeviceId, vault: VaultId| {
        let record = ConsentRecord {
            vault: Some(vault),
            ..consent_record(device)
        };
        Body::ConsentGiven(Box::new(record))
    };
    let mut grower = family();
    grower
        .push(
            Some(LAPTOP),
            &laptop(),
            added(PHONE, Role::WriteOnly, &phone()),
        )
        .push(Some(LAPTOP), &laptop(), epoch(Some(theirs), 1, &[LAPTOP]));
    assert_eq!(grower.view().writer_of(&theirs), None);
    // The phone consents twice, as it does before the first one ends.
    grower
        .push(Some(PHONE), &phone(), consent_for(PHONE, theirs))
        .push(Some(LAPTOP), &laptop(), consent_for(LAPTOP, VAULT))
        .push(Some(PHONE), &phone(), consent_for(PHONE, theirs));
    let view = grower.view();
    assert_eq!(view.writer_of(&theirs), Some(PHONE));
    assert_eq!(view.writer_of(&VAULT), None);
    let (intruding, _) = grower.draft(Some(LAPTOP), &laptop(), consent_for(LAPTOP, theirs));
    assert_eq!(
        refused(&view, &intruding),
        ChainError::Contradiction {
            sequence: 9,
            reason: "a write-only device has its vaults to itself"
        }
    );
    // Where a full device was first, a write-only one may follow, and the vault stays shared.
    grower.push(Some(PHONE), &phone(), consent_for(PHONE, VAULT));
    assert_eq!(grower.view().writer_of(&VAULT), None);
}

#[test]
fn a_signer_is_known_by_its_own_key() {
    let view = family().view();
    assert_eq!(view.key_of(None), Some(&root().public()));
    assert_eq!(view.key_of(Some(&LAPTOP)), Some(&laptop().public()));
    assert_eq!(view.key_of(Some(&PHONE)), None);
}

#[test]
fn records_cannot_be_reordered_dropped_or_replaced() {
    let grower = family();
    let swap = |a: usize, b: usize| {
        let mut records = grower.records.clone();
        records.swap(a, b);
        AccountView::of(ACCOUNT, &records, &keyring()).unwrap_err()
    };
    assert_eq!(swap(2, 3), ChainError::Order { sequence: 2 });
    let mut dropped = grower.records.clone();
    dropped.remove(2);
    assert_eq!(
        AccountView::of(ACCOUNT, &dropped, &keyring()).unwrap_err(),
        ChainError::Order { sequence: 2 }
    );
    // Another salt gives another commitment.
    let mut resalted = grower.records.clone();
    resalted[3].statement.as_mut().unwrap().salt = Salt::from_bytes([0; 32]);
    assert_eq!(
        AccountView::of(ACCOUNT, &resalted, &keyring()).unwrap_err(),
        ChainError::Order { sequence: 3 }
    );
    let mut relabelled = grower.records.clone();
    relabelled[3].kind = Kind::ConsentGiven;
    assert_eq!(
        AccountView::of(ACCOUNT, &relabelled, &keyring()).unwrap_err(),
        ChainError::Order { sequence: 3 }
    );
}

#[test]
fn an_acknowledgement_is_for_one_place_of_one_chain() {
    let grower = family();
    let mut moved = grower.records.clone();
    moved[3].acknowledgement = moved[2].acknowledgement.clone();
    assert_eq!(
        AccountView::of(ACCOUNT, &moved, &keyring()).unwrap_err(),
        ChainError::Acknowledgement {
            sequence: 3,
            source: None
        }
    );
    let mut forged = grower.records.clone();
    let ack = forged[3].acknowledgement.as_mut().unwrap();
    let last = ack.acknowledgement.len() - 1;
    ack.acknowledgement[last] ^= 1;
    assert!(matches!(
        AccountView::of(ACCOUNT, &forged, &keyring()).unwrap_err(),
        ChainError::Acknowledgement {
            sequence: 3,
            source: Some(_)
        }
    ));
}

#[test]
fn erasing_a_consent_leaves_a_chain_that_verifies() {
    let mut grower = family();
    grower.push(Some(LAPTOP), &laptop(), consent(LAPTOP)).push(
        Some(LAPTOP),
        &laptop(),
        withdrawal(None),
    );
    let mut records = grower.records.clone();
    records[4].statement = None;
    let view = AccountView::of(ACCOUNT, &records, &keyring()).unwrap();
    assert_eq!(view.tip(), grower.tip);
    assert!(view.consents().is_empty());
    assert_eq!(view.history().len(), 6);

    // Devices and epochs are never erased.
    let mut records = grower.records.clone();
    records[1].statement = None;
    assert_eq!(
        AccountView::of(ACCOUNT, &records, &keyring()).unwrap_err(),
        ChainError::NotErasable { sequence: 1 }
    );
}

#[test]
fn hiding_a_withdrawal_does_not_bring_the_consent_back() {
    let mut grower = family();
    grower.push(Some(LAPTOP), &laptop(), consent(LAPTOP)).push(
        Some(LAPTOP),
        &laptop(),
        withdrawal(None),
    );
    let mut records = grower.records.clone();
    records[5].statement = None;
    let view = AccountView::of(ACCOUNT, &records, &keyring()).unwrap();
    assert!(view.consents()[0].1.withdrawn.is_some());
}

#[test]
fn a_stub_with_another_commitment_breaks_the_chain() {
    let mut grower = family();
    grower.push(Some(LAPTOP), &laptop(), consent(LAPTOP)).push(
        Some(LAPTOP),
        &laptop(),
        withdrawal(None),
    );
    let mut records = grower.records.clone();
    records[4].statement = None;
    records[4].acknowledgement = None;
    records[4].commitment = StatementId::from_bytes([9; 32]);
    assert_eq!(
        AccountView::of(ACCOUNT, &records, &keyring()).unwrap_err(),
        ChainError::Order { sequence: 5 }
    );
    assert_ne!(grower.tip, Link::from_bytes([0; 32]));
}
