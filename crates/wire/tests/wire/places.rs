//! Records that say one thing wrongly and everything else right: each check of a chain refuses by
//! itself, whatever the others would do.

use candor_wire::cbor::{self, CodecError};
use candor_wire::cell::{Acknowledgement, SignedAcknowledgement};
use candor_wire::chain::{
    AccountView, CHAIN_MAX_ENTRIES, ChainError, RECORD_VERSION, Record, VAULTS_MAX,
};
use candor_wire::consent_record::{
    CONSENT_RECORD_VERSION, ConsentRecord, DataCategory, LIST_MAX_ITEMS, RecordFault, ServiceCode,
    TEXT_MAX_BYTES, Withdrawal,
};
use candor_wire::epoch::{EPOCH_RECORD_VERSION, EpochRecord, Wrap};
use candor_wire::ids::{AccountId, CellId, DeviceId, Label, Link, Salt, StatementId, VaultId};
use candor_wire::limits::{CONSENT_MAX_MS, DEVICES_MAX};
use candor_wire::sign::{Domain, SecretKey};
use candor_wire::statement::{
    Body, Draft, ENTRY_VERSION, Entry, Genesis, Kind, Role, SignedEntry, Statement, commitment,
    link,
};
use candor_wire::time::Millis;

use candor_testkit::sample::*;

const OTHER_ACCOUNT: AccountId = AccountId::from_bytes([0xa2; 16]);
const OTHER_VAULT: VaultId = VaultId::from_bytes([0xb2; 16]);

/// Applies a record and expects a refusal that leaves the view as it was.
#[track_caller]
fn refused(view: &AccountView, record: &Record) -> ChainError {
    let mut after = view.clone();
    let error = after.apply(record, &keyring()).unwrap_err();
    assert_eq!(&after, view, "a refused record changed the view");
    error
}

/// A record of a body at any place of any account, whether it fits or not.
fn placed(account: AccountId, sequence: u64, previous: Link, body: Body) -> Record {
    let draft = Draft {
        account,
        signer: Some(LAPTOP),
        time: NOW,
        label: Label::from_bytes([1; 32]),
        salt: Salt::from_bytes([2; 32]),
        body,
    };
    Record::of(draft.sign(sequence, previous, &laptop()).0).unwrap()
}

#[test]
fn a_record_is_for_one_place_of_one_account() {
    let grower = family();
    let view = grower.view();
    let (tip, order) = (view.tip(), ChainError::Order { sequence: 4 });
    let good = placed(ACCOUNT, 4, tip, consent(LAPTOP));
    assert_eq!(view.clone().apply(&good, &keyring()), Ok(()));

    let elsewhere = placed(OTHER_ACCOUNT, 4, tip, consent(LAPTOP));
    let after_another = placed(ACCOUNT, 4, Link::from_bytes([9; 32]), consent(LAPTOP));
    let mut later_inside = placed(ACCOUNT, 5, tip, consent(LAPTOP));
    later_inside.sequence = 4;
    let (mut later_outside, mut newer) = (good.clone(), good.clone());
    later_outside.sequence = 5;
    newer.version = RECORD_VERSION + 1;
    let (mut relabelled, mut renamed) = (good.clone(), good.clone());
    relabelled.kind = Kind::Epoch;
    renamed.commitment = StatementId::from_bytes([9; 32]);
    for wrong in [
        elsewhere,
        after_another,
        later_inside,
        later_outside,
        newer,
        relabelled,
        renamed,
    ] {
        assert_eq!(refused(&view, &wrong), order);
    }
}

/// Of a stub nothing is signed: its place is all that can be checked.
#[test]
fn a_stub_is_for_one_place() {
    let mut grower = family();
    grower.push(Some(LAPTOP), &laptop(), consent(LAPTOP));
    let mut stub = grower.records.pop().unwrap();
    stub.statement = None;
    let view = AccountView::of(ACCOUNT, &grower.records, &keyring()).unwrap();
    assert_eq!(view.clone().apply(&stub, &keyring()), Ok(()));
    // As a cell that only lost the acknowledgement sends it.
    stub.acknowledgement = None;
    let (mut later, mut newer) = (stub.clone(), stub);
    later.sequence = 5;
    newer.version = RECORD_VERSION + 1;
    for wrong in [later, newer] {
        assert_eq!(refused(&view, &wrong), ChainError::Order { sequence: 4 });
    }
}

/// Signed by the right key, for a place that differs in one thing.
#[test]
fn an_acknowledgement_fits_in_everything() {
    let mut grower = family();
    grower.push(Some(LAPTOP), &laptop(), consent(LAPTOP));
    let record = grower.records.pop().unwrap();
    let before = AccountView::of(ACCOUNT, &grower.records, &keyring()).unwrap();
    let signed = record.acknowledgement.clone().unwrap();
    let good: Acknowledgement = cbor::decode(&signed.acknowledgement).unwrap();
    let wrong = [
        Acknowledgement {
            account: OTHER_ACCOUNT,
            ..good.clone()
        },
        Acknowledgement {
            sequence: 5,
            ..good.clone()
        },
        Acknowledgement {
            link: Link::from_bytes([9; 32]),
            ..good.clone()
        },
        Acknowledgement {
            statement: StatementId::from_bytes([9; 32]),
            ..good.clone()
        },
    ];
    let unfit = ChainError::Acknowledgement {
        sequence: 4,
        source: None,
    };
    for wrong in wrong {
        let mut record = record.clone();
        let key = acknowledgement_key();
        record.acknowledgement = Some(SignedAcknowledgement::sign(&wrong, &key));
        assert_eq!(refused(&before, &record), unfit, "{wrong:?}");
        // The same holds for what is left of an erased record.
        record.statement = None;
        assert_eq!(refused(&before, &record), unfit, "{wrong:?}");
    }
}

#[test]
fn an_entry_of_another_version_is_refused() {
    let grower = family();
    let view = grower.view();
    let (record, _) = grower.draft(Some(LAPTOP), &laptop(), consent(LAPTOP));
    let statement = record.statement.clone().unwrap();
    let signed: SignedEntry = cbor::decode(&statement.signed).unwrap();
    let mut entry: Entry = cbor::decode(&signed.entry).unwrap();
    entry.version = ENTRY_VERSION + 1;
    let entry = cbor::encode(&entry);
    let signed = cbor::encode(&SignedEntry {
        signature: laptop().sign(Domain::STATEMENT, &entry),
        entry,
    });
    let newer = Record {
        commitment: commitment(&statement.salt, &signed),
        statement: Some(Statement {
            signed,
            ..statement
        }),
        ..record
    };
    assert_eq!(
        refused(&view, &newer),
        ChainError::Codec {
            sequence: 4,
            source: CodecError::Version {
                what: "a statement",
                version: 2
            }
        }
    );
}

#[test]
fn an_epoch_record_has_one_shape() {
    let Body::Epoch(good) = epoch(Some(VAULT), 2, &[LAPTOP, PHONE]) else {
        panic!("another body")
    };
    let formed = |change: &dyn Fn(&mut EpochRecord)| {
        let mut record = (*good).clone();
        change(&mut record);
        record.is_well_formed()
    };
    assert!(formed(&|_| {}));
    let bad: [&dyn Fn(&mut EpochRecord); 11] = [
        &|record| record.version = EPOCH_RECORD_VERSION + 1,
        &|record| record.earlier.clear(),
        &|record| record.epoch = 1,
        &|record| record.epoch = 0,
        &|record| (record.epoch, record.earlier) = (0, Vec::new()),
        &|record| record.wraps.clear(),
        // The recovery key: missing, at another place, twice.
        &|record| drop(record.wraps.remove(0)),
        &|record| record.wraps.swap(0, 1),
        &|record| record.wraps[1].recipient = None,
        // Devices: not in order, twice.
        &|record| record.wraps.swap(1, 2),
        &|record| record.wraps[2].recipient = record.wraps[1].recipient,
    ];
    for (which, change) in bad.into_iter().enumerate() {
        assert!(!formed(change), "{which}");
    }

    let recipients = |count: usize| {
        formed(&|record| {
            let wrap = record.wraps[1].clone();
            record.wraps.truncate(1);
            record.wraps.extend((0..count).map(|n| Wrap {
                recipient: Some(DeviceId::from_bytes([u8::try_from(n).unwrap(); 16])),
                ..wrap.clone()
            }));
        })
    };
    assert!(recipients(0));
    assert!(recipients(DEVICES_MAX));
    assert!(!recipients(DEVICES_MAX + 1));
}

#[test]
fn a_wrap_is_found_by_its_recipient() {
    let Body::Epoch(record) = epoch(None, 1, &[LAPTOP, PHONE]) else {
        panic!("another body")
    };
    for recipient in [None, Some(LAPTOP), Some(PHONE)] {
        let found = record.wrap_for(recipient).map(|wrap| wrap.recipient);
        assert_eq!(found, Some(recipient));
    }
    assert_eq!(record.wrap_for(Some(DeviceId::from_bytes([9; 16]))), None);
}

fn begun(signer: Option<DeviceId>, key: &SecretKey, body: Body) -> Result<AccountView, ChainError> {
    let mut grower = Grower::empty();
    grower.push(signer, key, body);
    AccountView::begin(ACCOUNT, &grower.records[0], &keyring())
}

#[test]
fn an_account_begins_with_its_root_at_this_cell() {
    assert!(begun(None, &root(), genesis()).is_ok());
    let signature = ChainError::Signature { sequence: 0 };
    assert_eq!(begun(None, &laptop(), genesis()), Err(signature.clone()));
    assert_eq!(begun(Some(LAPTOP), &root(), genesis()), Err(signature));
    let contradiction = |reason| ChainError::Contradiction {
        sequence: 0,
        reason,
    };
    assert_eq!(
        begun(None, &root(), added(LAPTOP, Role::Full, &laptop())),
        Err(contradiction("it does not begin with a genesis"))
    );
    let elsewhere = Body::Genesis(Box::new(Genesis {
        root: root().public(),
        recovery: [0x5e; 1216],
        cell: CellId::from_bytes([9; 16]),
    }));
    assert_eq!(
        begun(None, &root(), elsewhere),
        Err(contradiction("it begins at another cell"))
    );

    let records = family().records;
    let mut erased = records[0].clone();
    erased.statement = None;
    assert_eq!(
        AccountView::begin(ACCOUNT, &erased, &keyring()),
        Err(ChainError::NotErasable { sequence: 0 })
    );
    let mut misplaced = records[0].clone();
    misplaced.acknowledgement = records[1].acknowledgement.clone();
    assert_eq!(
        AccountView::begin(ACCOUNT, &misplaced, &keyring()),
        Err(ChainError::Acknowledgement {
            sequence: 0,
            source: None
        })
    );
    assert_eq!(
        AccountView::of(ACCOUNT, &[], &keyring()),
        Err(ChainError::Order { sequence: 0 })
    );
}

#[test]
fn an_account_begins_only_once() {
    let grower = family();
    let (again, _) = grower.draft(None, &root(), genesis());
    assert_eq!(
        refused(&grower.view(), &again),
        ChainError::Contradiction {
            sequence: 4,
            reason: "an account begins only once"
        }
    );
}

#[test]
fn a_consent_is_of_this_account_and_of_a_vault_that_is_there() {
    let grower = family();
    let view = grower.view();
    let of_another = ConsentRecord {
        subject: OTHER_ACCOUNT,
        ..consent_record(LAPTOP)
    };
    let of_nothing = ConsentRecord {
        vault: Some(OTHER_VAULT),
        ..consent_record(LAPTOP)
    };
    for (record, reason) in [
        (of_another, "the consent is another account's"),
        (of_nothing, "the consent names no known vault"),
    ] {
        let body = Body::ConsentGiven(Box::new(record));
        let (record, _) = grower.draft(Some(LAPTOP), &laptop(), body);
        assert_eq!(
            refused(&view, &record),
            ChainError::Contradiction {
                sequence: 4,
                reason
            }
        );
    }
    let (by_root, _) = grower.draft(None, &root(), withdrawal(None));
    assert_eq!(refused(&view, &by_root), ChainError::Role { sequence: 4 });
}

#[test]
fn a_consent_record_says_everything_in_bounds() {
    let broken = |change: &dyn Fn(&mut ConsentRecord)| {
        let mut record = consent_record(LAPTOP);
        change(&mut record);
        record.check()
    };
    assert_eq!(broken(&|_| {}), Ok(()));
    let version = broken(&|record| record.version = CONSENT_RECORD_VERSION + 1);
    assert_eq!(version, Err(RecordFault::Version));

    let lasting = |ms| broken(&|record| record.ends_at = record.given_at.plus_ms(ms));
    for (ms, expected) in [
        (CONSENT_MAX_MS, Ok(())),
        (CONSENT_MAX_MS + 1, Err(RecordFault::Duration)),
        (1, Ok(())),
        (0, Err(RecordFault::Duration)),
        (-1, Err(RecordFault::Duration)),
    ] {
        assert_eq!(lasting(ms), expected, "{ms}");
    }
    let overflowing = broken(&|record| {
        (record.given_at, record.ends_at) = (Millis(i64::MIN), Millis(i64::MAX));
    });
    assert_eq!(overflowing, Err(RecordFault::Duration));

    let texts: [fn(&mut ConsentRecord) -> &mut String; 5] = [
        |record| &mut record.recipient.controller,
        |record| &mut record.recipient.region,
        |record| &mut record.purpose,
        |record| &mut record.language,
        |record| &mut record.how_to_withdraw,
    ];
    for text in texts {
        let with = |value: String| broken(&|record| text(record).clone_from(&value));
        assert_eq!(with(String::new()), Err(RecordFault::Text));
        assert_eq!(with("x".repeat(TEXT_MAX_BYTES)), Ok(()));
        assert_eq!(with("x".repeat(TEXT_MAX_BYTES + 1)), Err(RecordFault::Text));
    }

    let first = DataCategory::SealedFiles;
    for list in [
        vec![],
        vec![first, first],
        vec![DataCategory::ObjectSizes, first],
        vec![first; LIST_MAX_ITEMS + 1],
    ] {
        let categories = broken(&|record| record.categories.clone_from(&list));
        assert_eq!(categories, Err(RecordFault::List), "{list:?}");
    }
    let backwards = broken(&|record| record.operations.reverse());
    assert_eq!(backwards, Err(RecordFault::List));

    for service in ServiceCode::ALL {
        let needs = matches!(service, ServiceCode::Backup | ServiceCode::Sync);
        for vault in [None, Some(VAULT)] {
            let checked = broken(&|record| (record.service, record.vault) = (service, vault));
            let expected = if needs == vault.is_some() {
                Ok(())
            } else {
                Err(RecordFault::Vault)
            };
            assert_eq!(checked, expected, "{service:?} {vault:?}");
        }
    }
}

/// Two devices with consents to two services and two vaults.
fn consenting() -> (Grower, Vec<StatementId>) {
    let mut grower = family();
    grower
        .push(
            Some(LAPTOP),
            &laptop(),
            added(PHONE, Role::WriteOnly, &phone()),
        )
        .push(Some(LAPTOP), &laptop(), epoch(Some(OTHER_VAULT), 1, &[]));
    let mut ids = Vec::new();
    for (device, key, service, vault) in [
        (LAPTOP, laptop(), ServiceCode::Backup, VAULT),
        (LAPTOP, laptop(), ServiceCode::Backup, OTHER_VAULT),
        (LAPTOP, laptop(), ServiceCode::Sync, VAULT),
        (PHONE, phone(), ServiceCode::Backup, VAULT),
        (PHONE, phone(), ServiceCode::Backup, OTHER_VAULT),
    ] {
        let record = ConsentRecord {
            service,
            vault: Some(vault),
            ..consent_record(device)
        };
        grower.push(Some(device), &key, Body::ConsentGiven(Box::new(record)));
        ids.push(grower.records.last().unwrap().commitment);
    }
    (grower, ids)
}

#[test]
fn a_withdrawal_ends_what_it_names_and_nothing_else() {
    let check = |signer: DeviceId, key: SecretKey, service, vault, ended: [bool; 5]| {
        let (mut grower, ids) = consenting();
        let body = Body::ConsentWithdrawn(Withdrawal {
            version: CONSENT_RECORD_VERSION,
            service,
            vault,
        });
        grower.push(Some(signer), &key, body);
        let view = grower.view();
        let withdrawn: Vec<_> = ids
            .iter()
            .map(|id| view.consent(id).unwrap().withdrawn.is_some())
            .collect();
        assert_eq!(withdrawn, ended, "{signer:?} {service:?} {vault:?}");
    };
    let backup = ServiceCode::Backup;
    check(
        LAPTOP,
        laptop(),
        backup,
        None,
        [true, true, false, true, true],
    );
    check(
        LAPTOP,
        laptop(),
        backup,
        Some(VAULT),
        [true, false, false, true, false],
    );
    check(
        LAPTOP,
        laptop(),
        ServiceCode::Sync,
        None,
        [false, false, true, false, false],
    );
    // A write-only device speaks for itself alone.
    check(
        PHONE,
        phone(),
        backup,
        None,
        [false, false, false, true, true],
    );
    check(
        PHONE,
        phone(),
        backup,
        Some(OTHER_VAULT),
        [false, false, false, false, true],
    );
}

/// A consent ended when it was first withdrawn, not when that was said again.
#[test]
fn the_first_withdrawal_counts() {
    let (mut grower, ids) = consenting();
    let first = NOW.plus_ms(grower.records.len() as i64);
    grower
        .push(Some(LAPTOP), &laptop(), withdrawal(Some(VAULT)))
        .push(Some(LAPTOP), &laptop(), withdrawal(None));
    let view = grower.view();
    let withdrawn = |id| view.consent(id).unwrap().withdrawn;
    assert_eq!(withdrawn(&ids[0]), Some(first));
    assert_eq!(withdrawn(&ids[1]), Some(first.plus_ms(1)));
}

/// Only the stub of a withdrawal ends others: what is left of a consent says nothing about them.
#[test]
fn an_erased_consent_ends_no_other() {
    let (grower, ids) = consenting();
    let mut records = grower.records;
    records.last_mut().unwrap().statement = None;
    let view = AccountView::of(ACCOUNT, &records, &keyring()).unwrap();
    let (erased, others) = ids.split_last().unwrap();
    assert_eq!(view.consent(erased), None);
    for id in others {
        assert_eq!(view.consent(id).unwrap().withdrawn, None);
    }
}

/// A place of a chain has another link under every number and kind.
#[test]
fn a_link_covers_all_that_it_is_made_of() {
    let (previous, id) = (Link::from_bytes([1; 32]), StatementId::from_bytes([2; 32]));
    let one = link(3, 4, &previous, &id);
    for other in [
        link(4, 4, &previous, &id),
        link(3, 5, &previous, &id),
        link(3, 4, &Link::from_bytes([9; 32]), &id),
        link(3, 4, &previous, &StatementId::from_bytes([9; 32])),
    ] {
        assert_ne!(other, one);
    }
}

/// Stubs cost nothing to make, so a chain has to end somewhere.
#[test]
fn a_chain_has_so_many_entries_and_no_more() {
    let mut view = family().view();
    let stub = |sequence| Record {
        version: RECORD_VERSION,
        sequence,
        kind: Kind::ConsentGiven,
        commitment: StatementId::from_bytes([5; 32]),
        statement: None,
        acknowledgement: None,
    };
    let keyring = keyring();
    while view.next_sequence() < CHAIN_MAX_ENTRIES {
        let next = stub(view.next_sequence());
        view.apply(&next, &keyring).unwrap();
    }
    assert_eq!(
        refused(&view, &stub(CHAIN_MAX_ENTRIES)),
        ChainError::Limit {
            sequence: CHAIN_MAX_ENTRIES,
            what: "entries of a chain"
        }
    );
}

#[test]
fn an_account_has_so_many_devices_and_no_more() {
    let mut grower = family();
    let device = |n: usize| DeviceId::from_bytes([u8::try_from(n).unwrap(); 16]);
    // The laptop is one of them.
    for n in 1..DEVICES_MAX {
        grower.push(None, &root(), added(device(n), Role::WriteOnly, &phone()));
    }
    let view = grower.view();
    assert_eq!(view.devices().count(), DEVICES_MAX);
    let one_more = added(device(DEVICES_MAX), Role::WriteOnly, &phone());
    let (record, _) = grower.draft(None, &root(), one_more);
    assert_eq!(
        refused(&view, &record),
        ChainError::Limit {
            sequence: view.next_sequence(),
            what: "devices"
        }
    );
}

#[test]
fn an_account_has_so_many_vaults_and_no_more() {
    let mut grower = family();
    let vault = |n: u16| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        Some(VaultId::from_bytes(bytes))
    };
    let mut view = grower.view();
    let most = u16::try_from(VAULTS_MAX).unwrap();
    // One is there already.
    for n in 1..most {
        grower.push(Some(LAPTOP), &laptop(), epoch(vault(n), 1, &[]));
        let newest = grower.records.last().unwrap();
        view.apply(newest, &keyring()).unwrap();
    }
    assert_eq!(view.vaults().count(), VAULTS_MAX);
    let (one_more, _) = grower.draft(Some(LAPTOP), &laptop(), epoch(vault(most), 1, &[]));
    assert_eq!(
        refused(&view, &one_more),
        ChainError::Limit {
            sequence: view.next_sequence(),
            what: "vaults"
        }
    );
    // Those that are there go on.
    let (next, _) = grower.draft(Some(LAPTOP), &laptop(), epoch(Some(VAULT), 2, &[]));
    assert_eq!(view.apply(&next, &keyring()), Ok(()));
}
