//! Every engine goes through the suite of its port.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candor_store::conformance::{
    check_erasures, check_links, check_log_files, check_log_records, check_objects, check_records,
};
use candor_store::faulty::{Faults, Faulty};
use candor_store::memory::{MemoryLogFiles, MemoryObjects, MemoryRecords};
use candor_store::{DiskLogFiles, DiskObjects, LogFiles, Objects, Records, SqliteRecords};

/// Gives a new path below one directory each time.
struct Places {
    directory: tempfile::TempDir,
    given: AtomicUsize,
}

impl Places {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            given: AtomicUsize::new(0),
        }
    }

    fn next(&self) -> PathBuf {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        self.directory.path().join(number.to_string())
    }
}

#[tokio::test]
async fn objects_in_memory() {
    check_objects(|| Arc::new(MemoryObjects::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn objects_on_disk() {
    let places = Places::new();
    check_objects(|| Arc::new(DiskObjects::open(&places.next()).unwrap())).await;
}

#[tokio::test]
async fn records_in_memory() {
    check_records(|| Arc::new(MemoryRecords::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_in_sqlite() {
    let places = Places::new();
    check_records(|| Arc::new(SqliteRecords::open(&places.next()).unwrap())).await;
}

#[tokio::test]
async fn log_records_in_memory() {
    check_log_records(|| Arc::new(MemoryRecords::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn log_records_in_sqlite() {
    let places = Places::new();
    check_log_records(|| Arc::new(SqliteRecords::open(&places.next()).unwrap())).await;
}

#[tokio::test]
async fn links_in_memory() {
    check_links(|| Arc::new(MemoryRecords::default())).await;
}

#[tokio::test]
async fn links_in_sqlite() {
    let places = Places::new();
    check_links(|| Arc::new(SqliteRecords::open(&places.next()).unwrap())).await;
}

#[tokio::test]
async fn erasures_in_memory() {
    check_erasures(|| Arc::new(MemoryRecords::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn erasures_in_sqlite() {
    let places = Places::new();
    check_erasures(|| Arc::new(SqliteRecords::open(&places.next()).unwrap())).await;
}

#[tokio::test]
async fn log_files_in_memory() {
    check_log_files(|| Arc::new(MemoryLogFiles::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn log_files_on_disk() {
    let places = Places::new();
    check_log_files(|| Arc::new(DiskLogFiles::open(&places.next()).unwrap())).await;
}

/// A wrapper without a plan is the engine itself.
#[tokio::test]
async fn engines_with_no_faults_yet() {
    let faults = Faults::default();
    check_records(|| {
        Faulty::new(
            Arc::new(MemoryRecords::default()) as Arc<dyn Records>,
            &faults,
        )
    })
    .await;
    check_objects(|| {
        Faulty::new(
            Arc::new(MemoryObjects::default()) as Arc<dyn Objects>,
            &faults,
        )
    })
    .await;
    check_log_files(|| {
        Faulty::new(
            Arc::new(MemoryLogFiles::default()) as Arc<dyn LogFiles>,
            &faults,
        )
    })
    .await;
    assert!(faults.calls().len() > 100);
    assert!(faults.stop().is_empty());
}
