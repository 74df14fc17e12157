//! The store of one machine as a whole.

use std::path::Path;

use bytes::Bytes;
use candor_store::log::LOG_ENTRY_BYTES;
use candor_store::{ObjectKey, PutOutcome, Store, StoreError};
use candor_wire::{AccountId, Millis, ObjectId, VaultId};

fn key(body: &[u8]) -> ObjectKey {
    ObjectKey {
        account: AccountId::from_bytes([1; 16]),
        vault: VaultId::from_bytes([2; 16]),
        object: ObjectId::of(body),
    }
}

fn files_below(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(files_below(&path));
        } else {
            names.push(path.display().to_string());
        }
    }
    names
}

#[tokio::test]
async fn a_directory_has_one_user_and_keeps_what_it_was_given() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("new/cell");
    let body = Bytes::from_static(b"sealed bytes");
    {
        let store = Store::open(&directory).unwrap();
        let second = Store::open(&directory).err();
        assert!(
            matches!(second, Some(StoreError::InUse { .. })),
            "{second:?}"
        );
        let put = store.objects().put(key(&body), vec![body.clone()]).await;
        assert_eq!(put.unwrap(), PutOutcome::Stored);
        store
            .records()
            .set_cell_value("region", Bytes::from_static(b"here"))
            .await
            .unwrap();
    }
    let store = Store::open(&directory).unwrap();
    store.check().await.unwrap();
    let value = store.records().cell_value("region").await.unwrap();
    assert_eq!(value.as_deref(), Some(&b"here"[..]));
    let reader = store.objects().get(key(&body), None).await.unwrap();
    assert_eq!(reader.read_to_end().await.unwrap(), body);

    store
        .backup_to(&place.path().join("backup.sqlite"))
        .await
        .unwrap();
    assert!(place.path().join("backup.sqlite").exists());
}

#[tokio::test]
async fn an_object_lies_where_the_format_says() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    let key = key(b"body");
    store
        .objects()
        .put(key, vec![Bytes::from_static(b"body")])
        .await
        .unwrap();
    let name = key.object.to_string();
    let expected = place
        .path()
        .join("objects")
        .join(key.account.to_string())
        .join(key.vault.to_string())
        .join(&name[..2])
        .join(&name);
    let objects = files_below(&place.path().join("objects"));
    assert_eq!(
        objects,
        [expected.display().to_string()],
        "and nothing else is left beside it"
    );
    assert_eq!(std::fs::read(expected).unwrap(), b"body");
}

#[tokio::test]
async fn the_log_lies_where_it_is_published_and_nothing_unfinished_beside_it() {
    let place = tempfile::tempdir().unwrap();
    let tile = || (String::from("tile/0/000"), Bytes::from_static(b"tile"));
    {
        let store = Store::open(place.path()).unwrap();
        store.log_files().put(vec![tile()]).await.unwrap();
        let entry = vec![[1; LOG_ENTRY_BYTES]];
        let records = store.log_records();
        records.queue_entries(entry, Millis(0)).await.unwrap();
    }
    // As a process leaves it that is killed while it writes.
    let log = place.path().join("log");
    std::fs::write(log.join("checkpoint~12-3"), b"half").unwrap();
    std::fs::write(log.join("tile/0/001~12-4"), b"half").unwrap();
    let store = Store::open(place.path()).unwrap();
    let expected = log.join("tile/0/000").display().to_string();
    assert_eq!(files_below(&log), [expected]);
    let (name, bytes) = tile();
    assert_eq!(store.log_files().get(name).await.unwrap(), Some(bytes));
    let batch = store.log_records().log_batch().await.unwrap();
    assert_eq!(batch.queued, [[1; LOG_ENTRY_BYTES]]);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_enter() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("cell");
    let _store = Store::open(&directory).unwrap();
    for inside in ["", "objects", "log"].map(|name| directory.join(name)) {
        let mode = std::fs::metadata(inside).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
