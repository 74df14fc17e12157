#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use candor_vault::{EpochKey, SystemEntropy};
use candor_wire::StatementId;
use candor_wire::sign::Ed25519Public;

use super::format::with_parameters;
use super::*;
use crate::test_support::Repeatable;

const PASSPHRASE: &str = "correct horse battery";

fn new_keys() -> NewKeys {
    NewKeys {
        account: Some(AccountId::from_bytes([1; 16])),
        account_name: "alice".into(),
        device_name: "laptop".into(),
        role: Role::Full,
        cell: Invitation {
            version: 1,
            root: Ed25519Public::from_bytes([9; 32]),
            addresses: vec!["192.0.2.1:7443".into()],
            right: Some(candor_wire::cell::InvitationRight([5; 16])),
        },
    }
}

fn passphrase() -> KeyProtection {
    KeyProtection::Passphrase(Zeroizing::new(PASSPHRASE.to_owned()))
}

fn create(path: &Path, protection: KeyProtection) -> KeyStore {
    KeyStore::create(path, new_keys(), protection, Arc::new(Repeatable::new(7))).unwrap()
}

fn open(path: &Path, passphrase: Option<&str>) -> Result<KeyStore, KeyStoreError> {
    KeyStore::open(path, passphrase, Arc::new(SystemEntropy))
}

fn refusal(path: &Path, passphrase: Option<&str>) -> KeyStoreError {
    open(path, passphrase).map(|_| ()).unwrap_err()
}

#[test]
fn what_was_saved_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    assert_eq!(state(&path).unwrap(), KeyState::Missing);
    assert!(matches!(refusal(&path, None), KeyStoreError::Missing));
    let mut store = create(&path, KeyProtection::Unprotected);
    assert_eq!(state(&path).unwrap(), KeyState::Unprotected);
    let vault = VaultId::from_bytes([4; 16]);
    let epochs = [
        EpochKey::from_bytes(&[6; 32]),
        EpochKey::from_bytes(&[7; 32]),
    ];
    store.put_keys(ScopeKeys::new(Some(vault), epochs).unwrap());
    store.set_enrolled(
        AccountId::from_bytes([1; 16]),
        StatementId::from_bytes([5; 32]),
    );
    store.set_phrase_confirmed();
    store.save().unwrap();
    let read = open(&path, None).unwrap();
    assert_eq!(read.genesis(), Some(StatementId::from_bytes([5; 32])));
    assert!(read.is_enrolled() && read.phrase_confirmed() && !read.is_protected());
    assert!(read.cell().right.is_none());
    assert_eq!(read.signing().public(), store.signing().public());
    assert_eq!(read.agreement().seed(), store.agreement().seed());
    assert_eq!(read.ledger_key().as_bytes(), store.ledger_key().as_bytes());
    assert_eq!(
        read.keys(Some(vault)).unwrap().get(2).unwrap().as_bytes(),
        &[7; 32]
    );
    assert_eq!(
        (read.account_name(), read.device_name()),
        ("alice", "laptop")
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = KeyStore::create(
        &path,
        new_keys(),
        KeyProtection::Unprotected,
        Arc::new(SystemEntropy),
    );
    assert!(matches!(again.map(|_| ()), Err(KeyStoreError::Exists)));
}

#[test]
fn wrong_damaged_and_locked_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let store = create(&path, passphrase());
    let seed = *store.agreement().seed();
    assert_eq!(state(&path).unwrap(), KeyState::Passphrase);
    assert!(matches!(
        refusal(&path, None),
        KeyStoreError::NeedsPassphrase
    ));
    assert!(matches!(
        refusal(&path, Some("incorrect horse")),
        KeyStoreError::WrongPassphrase
    ));
    assert!(matches!(
        refusal(&path, Some("")),
        KeyStoreError::EmptyPassphrase
    ));
    assert_eq!(
        open(&path, Some(PASSPHRASE)).unwrap().agreement().seed(),
        &seed
    );
    let good = fs::read(&path).unwrap();
    assert!(!good.windows(32).any(|part| part == seed));
    for place in [0, 10, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[place] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert!(matches!(
            refusal(&path, Some(PASSPHRASE)),
            KeyStoreError::Damaged
        ));
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(matches!(
        refusal(&path, Some(PASSPHRASE)),
        KeyStoreError::Damaged
    ));
    fs::write(&path, with_parameters(&good, |file| file.version = 0)).unwrap();
    assert!(matches!(
        refusal(&path, Some(PASSPHRASE)),
        KeyStoreError::Version { version: 0 }
    ));
}

#[test]
fn a22_cheaper_passphrase_hashing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let store = create(&path, passphrase());
    let good = fs::read(&path).unwrap();
    let change = |change: fn(&mut format::Kdf)| {
        with_parameters(&good, |file| change(file.kdf.as_mut().unwrap()))
    };
    let refused = [
        change(|kdf| kdf.memory_kib = ARGON2_MEMORY_MIN_KIB - 1),
        change(|kdf| kdf.memory_kib = 8),
        change(|kdf| kdf.passes = ARGON2_PASSES_MIN - 1),
        change(|kdf| kdf.lanes = 2),
        change(|kdf| kdf.memory_kib = ARGON2_MEMORY_MAX_KIB + 1),
        change(|kdf| kdf.passes = ARGON2_PASSES_MAX + 1),
    ];
    for file in refused {
        fs::write(&path, &file).unwrap();
        assert!(matches!(
            refusal(&path, Some(PASSPHRASE)),
            KeyStoreError::Parameters
        ));
        assert!(matches!(state(&path), Err(KeyStoreError::Parameters)));
        assert_eq!(fs::read(&path).unwrap(), file);
    }
    // More work than this build asks for is fine for the floor, but is not what was sealed.
    fs::write(&path, change(|kdf| kdf.passes += 1)).unwrap();
    assert!(matches!(
        refusal(&path, Some(PASSPHRASE)),
        KeyStoreError::WrongPassphrase
    ));
    // A salt is never used twice.
    let salt_of = |file: &[u8]| format::header(file).unwrap().kdf.clone().unwrap().salt;
    store.save().unwrap();
    assert_ne!(salt_of(&fs::read(&path).unwrap()), salt_of(&good));
    open(&path, Some(PASSPHRASE)).unwrap();
}

/// A file made of any bytes, with the damage check that belongs to them.
fn checked(body: &[u8]) -> Vec<u8> {
    let hash = blake3::derive_key("candor 2026 key store check v1", body);
    [body, &hash[..format::CHECK_BYTES]].concat()
}

#[test]
fn a_key_store_has_one_spelling_and_one_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    drop(create(&path, KeyProtection::Unprotected));
    let good = fs::read(&path).unwrap();
    let body = &good[..good.len() - format::CHECK_BYTES];
    assert_eq!(checked(body), good);
    let more = [body, &[0]].concat();
    // The map's head in two bytes.
    let longer_head = [&[0xb8, body[0] & 0x1f], &body[1..]].concat();
    for bad in [more, longer_head, Vec::new()] {
        fs::write(&path, checked(&bad)).unwrap();
        assert!(matches!(refusal(&path, None), KeyStoreError::Damaged));
        assert!(matches!(state(&path), Err(KeyStoreError::Damaged)));
    }
    let newer = with_parameters(&good, |file| file.version = 2);
    fs::write(&path, newer).unwrap();
    assert!(matches!(
        refusal(&path, None),
        KeyStoreError::Version { version: 2 }
    ));
}

/// Opened by hand, from the description of the format alone: nothing of the header is outside the seal.
#[test]
fn the_seal_binds_version_and_parameters() {
    let content = b"what is kept";
    let file = format::seal(content, &passphrase(), &Repeatable::new(7)).unwrap();
    let header = format::header(&file).unwrap();
    let kdf = header.kdf.as_ref().unwrap();
    let params = argon2::Params::new(64 * 1024, 3, 1, Some(32)).unwrap();
    let mut key = [0; 32];
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(PASSPHRASE.as_bytes(), &kdf.salt, &mut key)
        .unwrap();
    let parameters = candor_wire::cbor::encode(kdf);
    let place = [&b"candor/key-store/1"[..], &[1], &parameters].concat();
    let opened = crate::seal_small::open(&key, &place, &header.content.0).unwrap();
    assert_eq!(opened, content);
    assert!(matches!(
        format::open(&header, &KeyProtection::Unprotected),
        Err(KeyStoreError::NeedsPassphrase)
    ));
    for other in [
        [&b"candor/key-store/1"[..], &[2], &parameters].concat(),
        b"candor/key-store/1\x01".to_vec(),
        Vec::new(),
    ] {
        assert!(crate::seal_small::open(&key, &other, &header.content.0).is_err());
    }
}

/// A longer file could be written and never be read again; a growing buffer would leave copies behind.
#[test]
fn a_key_store_has_a_longest_length_and_its_buffer_never_grows() {
    let sealed = |bytes: usize| {
        let content = vec![7; bytes];
        format::seal(&content, &KeyProtection::Unprotected, &SystemEntropy)
    };
    let around = sealed(1024 * 1024).unwrap().len() - 1024 * 1024;
    let most = usize::try_from(KEY_STORE_MAX_BYTES).unwrap() - around;
    let longest = sealed(most).unwrap();
    assert_eq!(longest.len() as u64, KEY_STORE_MAX_BYTES);
    assert_eq!(format::header(&longest).unwrap().content.0.len(), most);
    assert!(matches!(sealed(most + 1), Err(KeyStoreError::TooLong)));
    for bytes in [0, 1, 200, most] {
        let room = bytes + 128 + format::CHECK_BYTES;
        assert_eq!(sealed(bytes).unwrap().capacity(), room, "{bytes}");
    }
}
