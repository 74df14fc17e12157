//! Tests of the device's database.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn set(name: &str) -> BackupSet {
    BackupSet {
        name: name.to_owned(),
        vault: None,
        paths: vec![
            PathBuf::from("/a"),
            PathBuf::from(OsString::from_vec(b"/b\xff".to_vec())),
        ],
        excludes: vec!["*.o".to_owned()],
        added: Millis(5),
        runs: RunState::default(),
    }
}

#[test]
fn sets_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.sqlite");
    let mut store = DeviceStore::open(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    store.add_set(&set("one")).unwrap();
    assert!(matches!(
        store.add_set(&set("one")),
        Err(DeviceStoreError::SetExists { .. })
    ));
    let vault = VaultId::from_bytes([7; 16]);
    store.assign_vault("one", vault, None).unwrap();
    assert!(
        store
            .assign_vault("one", VaultId::from_bytes([8; 16]), None)
            .is_err()
    );
    store.run_began("one", Millis(9)).unwrap();
    drop(store);
    let mut store = DeviceStore::open(&path).unwrap();
    store.check().unwrap();
    let mut expected = BackupSet {
        vault: Some(vault),
        ..set("one")
    };
    expected.runs.unfinished = Some(Millis(9));
    assert_eq!(store.sets().unwrap(), [expected.clone()]);
    store.run_succeeded("one", Millis(11), 3).unwrap();
    expected.runs = RunState {
        unfinished: None,
        succeeded: Some(Millis(11)),
        problems: 3,
    };
    assert_eq!(store.set("one").unwrap(), expected);
    assert!(matches!(
        store.set("two"),
        Err(DeviceStoreError::NoSuchSet { .. })
    ));
}

#[test]
fn withdrawals_wait_until_they_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = DeviceStore::open(&folder.path().join("device.sqlite")).unwrap();
    let one = PendingWithdrawal {
        service: ServiceCode::Backup,
        vault: Some(VaultId::from_bytes([1; 16])),
        time: Millis(3),
        before: 4,
    };
    let all = PendingWithdrawal {
        vault: None,
        ..one.clone()
    };
    store.add_withdrawal(&one).unwrap();
    store.add_withdrawal(&all).unwrap();
    assert_eq!(store.withdrawals().unwrap(), [one.clone(), all.clone()]);
    store.forget_withdrawal(&one).unwrap();
    assert_eq!(store.withdrawals().unwrap(), std::slice::from_ref(&all));
    store.forget_withdrawal(&all).unwrap();
    assert_eq!(store.withdrawals().unwrap(), []);
}

#[test]
fn damage_is_told_from_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.sqlite");
    std::fs::write(&path, vec![0x5a; 8192]).unwrap();
    assert!(matches!(
        DeviceStore::open(&path),
        Err(DeviceStoreError::Damaged { .. })
    ));
    let newer = folder.path().join("newer.sqlite");
    let store = DeviceStore::open(&newer).unwrap();
    store
        .connection
        .pragma_update(None, "user_version", 99)
        .unwrap();
    drop(store);
    assert!(matches!(
        DeviceStore::open(&newer),
        Err(DeviceStoreError::Version { version: 99, .. })
    ));
}
