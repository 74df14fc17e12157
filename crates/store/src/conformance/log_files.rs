//! The rules of [`LogFiles`].

use std::sync::Arc;

use bytes::Bytes;

use super::NO_FAULT;
use crate::log::{LOG_FILE_MAX_BYTES, LogFiles, LogFilesError};

/// Puts a store of the log's files through every rule. `fresh` makes an empty one.
///
/// # Panics
/// If a rule is broken.
pub async fn check_log_files(fresh: impl Fn() -> Arc<dyn LogFiles>) {
    what_is_put_comes_back(&*fresh()).await;
    putting_can_be_repeated(&*fresh()).await;
    other_bytes_are_refused(&*fresh()).await;
    the_one_file_that_changes(&*fresh()).await;
    names_stay_in_the_directory(&*fresh()).await;
    files_are_bounded(&*fresh()).await;
    equal_puts_at_once_all_succeed(fresh()).await;
    one_of_many_different_puts_wins(fresh()).await;
    readers_see_whole_files(fresh()).await;
    partial_files_go_when_the_whole_one_is_there(&*fresh()).await;
}

fn body(byte: u8, length: usize) -> Bytes {
    Bytes::from(vec![byte; length])
}

async fn get(files: &dyn LogFiles, name: &str) -> Option<Bytes> {
    files.get(String::from(name)).await.expect(NO_FAULT)
}

fn batch(files: &[(&str, Bytes)]) -> Vec<(String, Bytes)> {
    files
        .iter()
        .map(|(name, bytes)| (String::from(*name), bytes.clone()))
        .collect()
}

fn is_different(outcome: &Result<(), LogFilesError>, expected: &str) -> bool {
    matches!(outcome, Err(LogFilesError::Different { name }) if name == expected)
}

async fn what_is_put_comes_back(files: &dyn LogFiles) {
    let put = [
        ("tile/0/000", body(1, 8192)),
        ("tile/0/000.p/1", body(2, 32)),
        ("tile/0/x001/234", body(3, 8192)),
        ("tile/entries/000", body(4, 17_000)),
        ("map/x000/001", body(5, 0)),
        ("report.json", body(6, 1)),
    ];
    for (name, _) in &put {
        assert_eq!(get(files, name).await, None, "nothing was put");
    }
    files.put(batch(&put)).await.expect(NO_FAULT);
    for (name, bytes) in put {
        assert_eq!(get(files, name).await, Some(bytes), "{name}");
    }
    for other in ["tile", "tile/0", "tile/0/000/1", "tile/0/001", "tile/1/000"] {
        assert_eq!(get(files, other).await, None, "{other} is no file");
    }
    files.put(Vec::new()).await.expect(NO_FAULT);
}

async fn putting_can_be_repeated(files: &dyn LogFiles) {
    let first = [("tile/0/000", body(1, 100))];
    let both = [("tile/0/000", body(1, 100)), ("tile/1/000", body(2, 100))];
    for put in [&first[..], &both, &both, &first] {
        files.put(batch(put)).await.expect(NO_FAULT);
    }
    let twice = [("a", body(1, 1)), ("a", body(1, 1))];
    files.put(batch(&twice)).await.expect(NO_FAULT);
    for (name, bytes) in both.into_iter().chain(twice) {
        assert_eq!(get(files, name).await, Some(bytes));
    }
}

async fn other_bytes_are_refused(files: &dyn LogFiles) {
    let there = [("tile/0/000", body(1, 100))];
    files.put(batch(&there)).await.expect(NO_FAULT);
    for other in [body(2, 100), body(1, 99), body(1, 101), Bytes::new()] {
        let with_new = [
            ("a", body(3, 10)),
            ("tile/0/000", other),
            ("tile/1/000", body(3, 10)),
        ];
        let refused = files.put(batch(&with_new)).await;
        assert!(is_different(&refused, "tile/0/000"), "{refused:?}");
    }
    let with_itself = [("tile/1/000", body(1, 1)), ("tile/1/000", body(2, 1))];
    let refused = files.put(batch(&with_itself)).await;
    assert!(is_different(&refused, "tile/1/000"), "{refused:?}");
    let found = get(files, "tile/0/000").await;
    assert_eq!(found, Some(body(1, 100)), "it stays");
    for name in ["a", "tile/1/000"] {
        assert_eq!(get(files, name).await, None, "nothing was changed");
    }
}

async fn the_one_file_that_changes(files: &dyn LogFiles) {
    let name = || String::from("checkpoint");
    for bytes in [body(1, 300), body(2, 500), body(2, 500), body(3, 10)] {
        files.replace(name(), bytes.clone()).await.expect(NO_FAULT);
        assert_eq!(get(files, "checkpoint").await, Some(bytes));
    }
    files
        .put(batch(&[("a", body(1, 1))]))
        .await
        .expect(NO_FAULT);
    let refused = files.put(batch(&[("checkpoint", body(4, 10))])).await;
    assert!(is_different(&refused, "checkpoint"), "{refused:?}");
    assert_eq!(get(files, "checkpoint").await, Some(body(3, 10)));
}

async fn names_stay_in_the_directory(files: &dyn LogFiles) {
    let long = "a/".repeat(200);
    for bad in [
        "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", ".a", "a/.b", "A",
        "a b", "a~1-0", "a_b", "a\\b", "a:b", "a\0", "a\n", "a%2fb", "ä", &long,
    ] {
        let with_good = [("good", body(1, 1)), (bad, body(1, 1))];
        for refused in [
            files.put(batch(&with_good)).await,
            files.replace(String::from(bad), body(1, 1)).await,
            files.get(String::from(bad)).await.map(|_| ()),
        ] {
            assert!(matches!(refused, Err(LogFilesError::Name)), "{bad:?}");
        }
    }
    assert_eq!(get(files, "good").await, None, "nothing was changed");
}

async fn files_are_bounded(files: &dyn LogFiles) {
    let (largest, more) = (body(1, LOG_FILE_MAX_BYTES), body(1, LOG_FILE_MAX_BYTES + 1));
    let put = [("map/000", largest.clone())];
    files.put(batch(&put)).await.expect(NO_FAULT);
    assert!(get(files, "map/000").await == Some(largest));
    for refused in [
        files
            .put(batch(&[("a", body(1, 1)), ("b", more.clone())]))
            .await,
        files.replace(String::from("b"), more).await,
    ] {
        assert!(
            matches!(refused, Err(LogFilesError::TooLong { bytes }) if bytes == LOG_FILE_MAX_BYTES + 1),
            "{refused:?}"
        );
    }
    for name in ["a", "b"] {
        assert_eq!(get(files, name).await, None, "nothing was changed");
    }
}

async fn equal_puts_at_once_all_succeed(files: Arc<dyn LogFiles>) {
    const WRITERS: usize = 8;
    let put = [("tile/0/000", body(1, 8192)), ("tile/1/000", body(2, 8192))];
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (files, put) = (Arc::clone(&files), batch(&put));
        waiting.spawn(async move { files.put(put).await.expect(NO_FAULT) });
    }
    waiting.join_all().await;
    for (name, bytes) in put {
        assert_eq!(get(&*files, name).await, Some(bytes));
    }
}

async fn one_of_many_different_puts_wins(files: Arc<dyn LogFiles>) {
    const WRITERS: u8 = 8;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let files = Arc::clone(&files);
        let put = batch(&[("tile/0/000", body(number, 8192))]);
        waiting.spawn(async move { (number, files.put(put).await) });
    }
    let mut winners = Vec::new();
    for (number, outcome) in waiting.join_all().await {
        match outcome {
            Ok(()) => winners.push(number),
            refused => assert!(is_different(&refused, "tile/0/000"), "{refused:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "one writer wins, the others are told");
    let found = get(&*files, "tile/0/000").await;
    assert!(found == Some(body(winners[0], 8192)), "its bytes stay");
}

/// Bytes that say themselves how many they are.
fn turn(number: u8) -> Bytes {
    body(number, 20_000 + usize::from(number))
}

async fn partial_files_go_when_the_whole_one_is_there(files: &dyn LogFiles) {
    let put = [
        ("tile/0/000", body(1, 8192)),
        ("tile/0/000.p/1", body(1, 32)),
        ("tile/0/000.p/255", body(1, 255 * 32)),
        ("tile/0/001.p/7", body(2, 7 * 32)),
        ("tile/entries/000.p/7", body(3, 7)),
    ];
    files.put(batch(&put)).await.expect(NO_FAULT);
    let names = || {
        let names = ["tile/0/000", "tile/0/001", "tile/0/002", "tile/entries/000"];
        names.map(String::from).to_vec()
    };
    for _ in 0..2 {
        files.remove_partial(names()).await.expect(NO_FAULT);
        for (name, bytes) in &put {
            let is_gone = name.starts_with("tile/0/000.p/");
            let expected = (!is_gone).then(|| bytes.clone());
            assert_eq!(get(files, name).await, expected, "{name}");
        }
    }
    // Somebody who is behind can still write what he knows.
    let late = batch(&put[1..2]);
    files.put(late).await.expect(NO_FAULT);
    files.remove_partial(names()).await.expect(NO_FAULT);
    assert_eq!(get(files, "tile/0/000.p/1").await, None);
    let outside = vec![String::from("../tile/0/000")];
    let refused = files.remove_partial(outside).await;
    assert!(matches!(refused, Err(LogFilesError::Name)), "{refused:?}");
}

async fn readers_see_whole_files(files: Arc<dyn LogFiles>) {
    const TURNS: u8 = 20;
    let name = || String::from("checkpoint");
    files.replace(name(), turn(0)).await.expect(NO_FAULT);
    let mut waiting = tokio::task::JoinSet::new();
    for writer in 1..=2 {
        let files = Arc::clone(&files);
        waiting.spawn(async move {
            for number in 0..TURNS {
                let bytes = turn(writer * TURNS + number);
                files.replace(name(), bytes).await.expect(NO_FAULT);
                let tile = batch(&[(&format!("tile/0/{number}"), turn(number))]);
                files.put(tile).await.expect(NO_FAULT);
            }
        });
    }
    for _ in 0..4 {
        let files = Arc::clone(&files);
        waiting.spawn(async move {
            for number in (0..TURNS).chain(0..TURNS) {
                let found = get(&*files, "checkpoint").await;
                let found = found.expect("a file that is replaced is never missing");
                assert!(found == turn(found[0]), "a file is whole");
                if let Some(tile) = get(&*files, &format!("tile/0/{number}")).await {
                    assert!(tile == turn(number), "a file is whole");
                }
                tokio::task::yield_now().await;
            }
        });
    }
    waiting.join_all().await;
}
