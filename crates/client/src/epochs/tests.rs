#![allow(clippy::unwrap_used, clippy::panic)]
use candor_wire::cbor;
use candor_wire::ids::to_hex;

use super::*;
use crate::test_support::{Repeatable, rows, unhex};

/// Account, recipient (`-` for the recovery key), its X-Wing seed, keys of all epochs, record.
const ACCEPTED: &str = include_str!("../../../../vectors/epoch/accepted.txt");
/// The same without keys: each is refused.
const REJECTED: &str = include_str!("../../../../vectors/epoch/rejected.txt");

const ACCOUNT: AccountId = AccountId::from_bytes([0xa0; 16]);
const VAULT: VaultId = VaultId::from_bytes([0xb0; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([0xd0; 16]);

fn secrets() -> (AgreementSecret, AgreementSecret) {
    (
        AgreementSecret::from_seed(&[1; 32]),
        AgreementSecret::from_seed(&[2; 32]),
    )
}

fn recipients() -> Recipients {
    let (recovery, device) = secrets();
    Recipients::new(recovery.public(), [(DEVICE, device.public())])
}

fn same(a: &ScopeKeys, b: &ScopeKeys) -> bool {
    a.scope() == b.scope()
        && a.iter()
            .map(|(n, k)| (n, *k.as_bytes()))
            .eq(b.iter().map(|(n, k)| (n, *k.as_bytes())))
}

fn refused(record: &EpochRecord) -> EpochError {
    let (_, device) = secrets();
    open(ACCOUNT, record, Some(DEVICE), &device)
        .map(|_| ())
        .unwrap_err()
}

#[test]
fn members_and_the_recovery_key_open_every_epoch() {
    let entropy = Repeatable::new(1);
    let (recovery, device) = secrets();
    let (mut record, mut keys) = begin(ACCOUNT, Some(VAULT), &recipients(), &entropy).unwrap();
    for epoch in 1..=3 {
        assert!(record.is_well_formed());
        assert_eq!((record.epoch, keys.newest()), (epoch, epoch));
        assert!(same(
            &open(ACCOUNT, &record, Some(DEVICE), &device).unwrap(),
            &keys
        ));
        assert!(same(
            &open(ACCOUNT, &record, None, &recovery).unwrap(),
            &keys
        ));
        let other = open(
            ACCOUNT,
            &record,
            Some(DeviceId::from_bytes([9; 16])),
            &device,
        );
        assert_eq!(other.map(|_| ()).unwrap_err(), EpochError::NotRecipient);
        (record, keys) = rotate(ACCOUNT, &keys, &recipients(), &entropy).unwrap();
    }
    assert!(keys.vault_keys(ACCOUNT).unwrap().is_ok());
}

#[test]
fn a01_replaced_wrapped_keys_are_refused() {
    let entropy = Repeatable::new(2);
    let (record, _) = begin(ACCOUNT, Some(VAULT), &recipients(), &entropy).unwrap();
    // The cell wraps a key of its own to the same recipients, in the same form.
    let (foreign, _) = begin(ACCOUNT, Some(VAULT), &recipients(), &entropy).unwrap();
    let wraps_swapped = EpochRecord {
        wraps: foreign.wraps.clone(),
        ..record.clone()
    };
    assert_eq!(refused(&wraps_swapped), EpochError::Rejected);
    let public_swapped = EpochRecord {
        public: foreign.public,
        ..record
    };
    assert_eq!(refused(&public_swapped), EpochError::Rejected);
}

#[test]
fn every_tampering_has_the_same_answer() {
    let entropy = Repeatable::new(3);
    let (_, keys) = begin(ACCOUNT, Some(VAULT), &recipients(), &entropy).unwrap();
    let (record, _) = rotate(ACCOUNT, &keys, &recipients(), &entropy).unwrap();
    let changes: [fn(&mut EpochRecord); 10] = [
        |record| record.wraps[1].encapsulated[0] ^= 1,
        |record| record.wraps[1].encapsulated[1119] ^= 1,
        |record| record.wraps[1].ciphertext[0] ^= 1,
        |record| record.wraps[1].ciphertext[47] ^= 1,
        |record| record.wraps[1].encapsulated.truncate(1119),
        |record| record.wraps[1].ciphertext.clear(),
        |record| record.public[7] ^= 1,
        |record| record.earlier[20] ^= 1,
        |record| record.epoch = 3,
        |record| record.vault = None,
    ];
    for change in changes {
        let mut changed = record.clone();
        change(&mut changed);
        assert_eq!(refused(&changed), EpochError::Rejected);
    }
    let (_, device) = secrets();
    let elsewhere = open(
        AccountId::from_bytes([1; 16]),
        &record,
        Some(DEVICE),
        &device,
    );
    assert_eq!(elsewhere.map(|_| ()).unwrap_err(), EpochError::Rejected);
}

fn vector(row: &[String]) -> Result<ScopeKeys, EpochError> {
    let account = row[0].parse().unwrap();
    let recipient = (row[1] != "-").then(|| row[1].parse().unwrap());
    let seed: [u8; 32] = unhex(&row[2]).try_into().unwrap();
    let record = cbor::decode::<EpochRecord>(&unhex(row.last().unwrap())).unwrap();
    open(
        account,
        &record,
        recipient,
        &AgreementSecret::from_seed(&seed),
    )
}

#[test]
fn vectors_accepted() {
    let rows = rows(ACCEPTED);
    assert!(rows.len() >= 3);
    for row in rows {
        let keys: String = vector(&row)
            .unwrap()
            .iter()
            .map(|(_, key)| to_hex(key.as_bytes()))
            .collect();
        assert_eq!(keys, row[3]);
    }
}

#[test]
fn vectors_rejected() {
    let rows = rows(REJECTED);
    assert!(rows.len() >= 3);
    for row in rows {
        assert_eq!(vector(&row).map(|_| ()).unwrap_err(), EpochError::Rejected);
    }
}

/// What makes the vector files; the sealed bytes follow from the repeatable entropy alone.
#[test]
fn vectors_are_what_this_build_makes() {
    let (recovery, device) = secrets();
    let entropy = Repeatable::new(9);
    let (first, keys) = begin(ACCOUNT, Some(VAULT), &recipients(), &entropy).unwrap();
    let (second, _) = rotate(ACCOUNT, &keys, &recipients(), &entropy).unwrap();
    let (own, _) = begin(ACCOUNT, None, &recipients(), &entropy).unwrap();
    let line = |record: &EpochRecord, recipient: Option<DeviceId>, secret: &AgreementSecret| {
        let opened = open(ACCOUNT, record, recipient, secret).unwrap();
        let keys: String = opened
            .iter()
            .map(|(_, key)| to_hex(key.as_bytes()))
            .collect();
        let recipient = recipient.map_or("-".to_owned(), |device| device.to_string());
        let record = to_hex(&cbor::encode(record));
        format!(
            "{ACCOUNT} | {recipient} | {} | {keys} | {record}",
            to_hex(secret.seed())
        )
    };
    let expected = [
        line(&first, Some(DEVICE), &device),
        line(&second, None, &recovery),
        line(&own, Some(DEVICE), &device),
    ];
    let found: Vec<String> = rows(ACCEPTED).iter().map(|row| row.join(" | ")).collect();
    assert_eq!(found[..3], expected);
}

#[test]
fn a_first_epoch_is_wrapped_again_with_the_same_key() {
    let entropy = Repeatable::new(1);
    let (_, device) = secrets();
    let (first, keys) = begin(ACCOUNT, Some(VAULT), &recipients(), &entropy).unwrap();
    let again = begin_again(ACCOUNT, &keys, &recipients(), &entropy);
    let again = again.unwrap().unwrap();
    assert!(again != first && again.is_well_formed());
    for record in [&first, &again] {
        let opened = open(ACCOUNT, record, Some(DEVICE), &device).unwrap();
        assert!(same(&opened, &keys) && is_announced(ACCOUNT, record, &keys));
    }
    let (_, other) = begin(ACCOUNT, Some(VAULT), &recipients(), &entropy).unwrap();
    assert!(!is_announced(ACCOUNT, &first, &other));
    let (_, rotated) = rotate(ACCOUNT, &keys, &recipients(), &entropy).unwrap();
    assert!(is_announced(ACCOUNT, &first, &rotated));
    assert!(begin_again(ACCOUNT, &rotated, &recipients(), &entropy).is_none());
}

/// A stolen device states an epoch that everybody can open, with other keys for the epochs before.
#[test]
fn a04_an_epoch_takes_no_earlier_keys_away() {
    let entropy = Repeatable::new(5);
    let (recovery, device) = secrets();
    let (first, one) = begin(ACCOUNT, Some(VAULT), &recipients(), &entropy).unwrap();
    let (second, two) = rotate(ACCOUNT, &one, &recipients(), &entropy).unwrap();
    let (_, foreign) = begin(ACCOUNT, Some(VAULT), &recipients(), &entropy).unwrap();
    let (_, foreign) = rotate(ACCOUNT, &foreign, &recipients(), &entropy).unwrap();
    let (third, wrong) = rotate(ACCOUNT, &foreign, &recipients(), &entropy).unwrap();
    // By itself, nothing about it is wrong.
    assert!(same(
        &open(ACCOUNT, &third, Some(DEVICE), &device).unwrap(),
        &wrong
    ));
    let announced = |epoch: u32| match epoch {
        1 => Some(first.public),
        2 => Some(second.public),
        _ => None,
    };
    let known = |held| Known {
        held,
        announced: &announced,
    };
    let opened = |record, held| {
        let of_device = open_next(ACCOUNT, record, Some(DEVICE), &device, &known(held));
        let of_phrase = open_next(ACCOUNT, record, None, &recovery, &known(held));
        match (of_device, of_phrase) {
            (Ok(a), Ok(b)) if same(&a, &b) => Ok(a),
            (Err(a), Err(b)) if a == b => Err(a),
            _ => panic!("the device and the phrase see different things"),
        }
    };
    // Whoever holds the old keys keeps them, and goes on with the new one.
    let kept = opened(&third, Some(&two)).unwrap();
    assert_eq!(kept.newest(), 3);
    for epoch in 1..=2 {
        assert!(kept.get(epoch).unwrap().as_bytes() == two.get(epoch).unwrap().as_bytes());
    }
    // Whoever does not hold all of them refuses that epoch, and stays with what is true.
    for held in [None, Some(&one), Some(&foreign)] {
        let refused = opened(&third, held).map(|_| ()).unwrap_err();
        assert_eq!(refused, EpochError::Rejected);
    }
    for held in [None, Some(&one), Some(&foreign)] {
        assert!(same(&opened(&second, held).unwrap(), &two));
    }
}
