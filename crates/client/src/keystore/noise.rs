//! Noise for the file of a key store (row A37).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candor_vault::secret::SecretBytes;
use candor_vault::{EpochKey, SystemEntropy};
use candor_wire::cell::Invitation;
use candor_wire::sign::{Ed25519Public, SecretKey, SigningSeeds};
use candor_wire::statement::Role;
use candor_wire::{AccountId, DeviceId, StatementId, VaultId};
use zeroize::Zeroizing;

use super::content::Content;
use super::format::{KeyFile, Zeroed};
use super::{KeyProtection, KeyStore, LedgerKey, WriterKeys, format};
use crate::epochs::{AgreementSecret, ScopeKeys};

/// A file as it is, its check included.
fn raw_file(file: &[u8]) {
    let Ok(header) = format::header(file) else {
        return;
    };
    assert_eq!(format::whole(&header), file, "another spelling of a file");
    if header.kdf.is_some() {
        assert!(format::open(&header, &KeyProtection::Unprotected).is_err());
    }
}

/// A file whose check is right.
fn checked_file(body: &[u8]) {
    let file = format::with_check(body);
    raw_file(&file);
    if let Ok(header) = format::header(&file)
        && let Ok(plain) = format::open(&header, &KeyProtection::Unprotected)
    {
        content(&plain);
    }
}

/// What is inside: what is read is written the same, and becomes the same store again.
fn content(plain: &[u8]) {
    let Ok(content) = Content::decode(plain) else {
        return;
    };
    assert_eq!(*content.encode(), *plain);
    let path = Path::new("keys");
    let store = |content: Content| {
        content
            .into_store(path, KeyProtection::Unprotected, Arc::new(SystemEntropy))
            .ok()
    };
    let Some(first) = store(content) else {
        return;
    };
    assert!(first.cell().right.is_none(), "a right is kept");
    let kept = Content::of(&first).encode();
    let again = Content::decode(&kept).ok().and_then(store);
    let again = again.expect("what is written is read");
    assert_eq!(*Content::of(&again).encode(), *kept);
}

/// Files of key stores. The first byte selects a row; rows are only ever added at the end.
pub(crate) fn take_noise(noise: &[u8]) {
    const ROWS: [fn(&[u8]); 3] = [raw_file, checked_file, content];
    if let Some((selector, bytes)) = noise.split_first() {
        ROWS[usize::from(*selector) % ROWS.len()](bytes);
    }
}

/// A store with keys of two scopes, or of a write-only device.
fn sample(writes_only: bool) -> KeyStore {
    let seeds = || SigningSeeds {
        ed25519: [3; 32],
        ml_dsa: [4; 32],
    };
    let vault = VaultId::from_bytes([0xb0; 16]);
    let scope = |scope, key: u8, count: u8| {
        let keys = (0..count).map(|number| EpochKey::from_bytes(&[key + number; 32]));
        ScopeKeys::new(scope, keys).map(|keys| (scope, keys))
    };
    let scopes = [scope(None, 1, 1), scope(Some(vault), 5, 3)];
    let writer = WriterKeys::new(
        Zeroizing::new(vec![6; 64]),
        vec![(vault, SecretBytes::copy_of(&[7; 32]))],
    );
    KeyStore {
        path: PathBuf::new(),
        protection: KeyProtection::Unprotected,
        entropy: Arc::new(SystemEntropy),
        account: Some(AccountId::from_bytes([0xa0; 16])),
        genesis: Some(StatementId::from_bytes([0x99; 32])),
        device: DeviceId::from_bytes([0xd0; 16]),
        account_name: "family".to_owned(),
        device_name: "laptop".to_owned(),
        role: match writes_only {
            true => Role::WriteOnly,
            false => Role::Full,
        },
        cell: Invitation {
            version: 1,
            root: Ed25519Public::from_bytes([0xce; 32]),
            addresses: vec!["cell.example:7443".to_owned()],
            right: None,
        },
        phrase_confirmed: true,
        signing: Arc::new(SecretKey::from_seeds(&seeds())),
        seeds: Box::new(seeds()),
        agreement: AgreementSecret::from_seed(&[8; 32]),
        ledger_key: LedgerKey::from_bytes(&[9; 32]),
        scopes: match writes_only {
            true => BTreeMap::new(),
            false => scopes.into_iter().flatten().collect(),
        },
        writer: writes_only.then_some(writer),
    }
}

/// Where noise begins: stores inside and outside, one of them sealed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for writes_only in [false, true] {
        let content = Content::of(&sample(writes_only)).encode();
        for kdf in [None, Some(format::least_work([5; format::SALT_BYTES]))] {
            let file = KeyFile {
                version: format::KEY_STORE_VERSION,
                kdf,
                content: Zeroed(content.clone()),
            };
            let whole = format::whole(&file);
            let body = &whole[..whole.len() - format::CHECK_BYTES];
            seeds.push([&[0], &whole[..]].concat());
            seeds.push([&[1], body].concat());
        }
        seeds.push([&[2], &content[..]].concat());
    }
    seeds
}
