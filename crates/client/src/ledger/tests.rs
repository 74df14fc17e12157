#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;
use std::path::PathBuf;

use candor_wire::sign::SigningSeeds;

use super::*;
use crate::commands::LedgerHourView;
use crate::test_support::{HandClock, Repeatable, rows, unhex};

/// File name, content.
const ACCEPTED: &str = include_str!("../../../../vectors/ledger/accepted.txt");
/// The error, then file names and contents.
const REJECTED: &str = include_str!("../../../../vectors/ledger/rejected.txt");

const DEVICE: DeviceId = DeviceId::from_bytes([0xd0; 16]);

fn key() -> LedgerKey {
    LedgerKey::from_bytes(&[0x1e; 32])
}

fn open_with(folder: &Path, entropy: u8) -> Result<Arc<Ledger>, LedgerError> {
    open_under(folder, &key(), entropy)
}

fn open_under(folder: &Path, key: &LedgerKey, entropy: u8) -> Result<Arc<Ledger>, LedgerError> {
    let seeds = SigningSeeds {
        ed25519: [3; 32],
        ml_dsa: [4; 32],
    };
    Ledger::open(
        folder,
        LedgerParts {
            key,
            signing: Arc::new(SecretKey::from_seeds(&seeds)),
            device: DEVICE,
            clock: Arc::new(HandClock::new(1_000)),
            entropy: Arc::new(Repeatable::new(entropy)),
        },
    )
}

fn open(folder: &Path) -> Result<Arc<Ledger>, LedgerError> {
    open_with(folder, 5)
}

fn opening() -> Opening {
    Opening {
        protocol: Protocol::Tcp,
        name: "cell.example:7443".into(),
        local: Some("192.0.2.1:40000".parse().unwrap()),
        remote: Some("192.0.2.2:7443".parse().unwrap()),
        service: "backup",
        authority: vec![0xab; 32],
        is_grant: true,
    }
}

fn lines(ledger: &Ledger) -> Vec<LedgerLineView> {
    let mut lines = Vec::new();
    ledger.lines(None, &mut |line| lines.push(line)).unwrap();
    lines
}

fn segment(folder: &Path) -> PathBuf {
    folder.join("0000000000000001.segment")
}

#[test]
fn a_line_says_what_went_over_its_connection() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    let line = ledger.begin(&opening()).unwrap();
    let counts = line.counts();
    counts.add_plain(100, 20);
    counts.add_cipher(122, 42);
    counts.add_class(DataClass::SealedObjects);
    counts.set_retransmitted(0);
    assert_eq!(lines(&ledger)[0].state, "open");
    line.finish().unwrap();
    ledger
        .alarm("a head was older than one seen before")
        .unwrap();
    let lines = lines(&ledger);
    assert_eq!(lines.len(), 2);
    let line = &lines[0];
    assert_eq!(
        (line.sequence, line.state.as_str(), line.protocol.as_str()),
        (1, "closed", "tcp")
    );
    assert_eq!((line.plain_out, line.plain_in), (100, 20));
    assert_eq!((line.cipher_out, line.cipher_in), (Some(122), Some(42)));
    assert_eq!(line.retransmitted_segments, Some(0));
    assert_eq!(line.data_classes, ["sealed-objects"]);
    assert_eq!(
        (line.service.as_str(), line.consent_state.as_str()),
        ("backup", "live")
    );
    assert_eq!(line.authority, "ab".repeat(32));
    assert_eq!(
        lines[1].alarm.as_deref(),
        Some("a head was older than one seen before")
    );
    assert_eq!(ledger.verify().unwrap().lines, 2);
}

/// The sums are the same whether they were made as it went or from the disk at a start.
#[test]
fn the_summary_adds_up_what_the_lines_say() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    let sums = |ledger: &Ledger| {
        let summary = ledger.summarise();
        let sum = |count: fn(&LedgerHourView) -> u64| summary.hours.iter().map(count).sum::<u64>();
        [
            sum(|hour| hour.connections),
            sum(|hour| hour.out_bytes),
            sum(|hour| hour.in_bytes),
            sum(|hour| hour.interrupted),
            summary.open,
            summary.alarms,
        ]
    };
    let line = ledger.begin(&opening()).unwrap();
    line.counts().add_cipher(100, 7);
    assert_eq!(sums(&ledger), [1, 100, 7, 0, 1, 0], "one that is open");
    line.counts().add_cipher(200, 0);
    line.finish().unwrap();
    assert_eq!(sums(&ledger), [1, 300, 7, 0, 0, 0], "it is closed");
    // A killed process runs no destructors.
    std::mem::forget(ledger.begin(&opening()).unwrap());
    ledger.alarm("something was detected").unwrap();
    drop(ledger);
    let ledger = open_with(folder.path(), 6).unwrap();
    assert_eq!(sums(&ledger), [2, 300, 7, 1, 0, 1], "from the disk");
    let hour = &ledger.summarise().hours[0];
    let place = (hour.service.as_str(), hour.destination.as_str());
    assert_eq!(place, ("backup", "192.0.2.2:7443"));
}

#[test]
fn a_kill_leaves_an_interrupted_line_and_never_a_missing_one() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    // A killed process runs no destructors.
    std::mem::forget(ledger.begin(&opening()).unwrap());
    ledger.begin(&opening()).unwrap().finish().unwrap();
    let ledger = open_with(folder.path(), 6).unwrap();
    let found: Vec<(u64, String)> = lines(&ledger)
        .into_iter()
        .map(|l| (l.sequence, l.state))
        .collect();
    assert_eq!(
        found,
        [(2, "closed".to_owned()), (1, "interrupted".to_owned())]
    );
    // Told once: another start adds nothing.
    let head = ledger.verify().unwrap().head;
    assert_eq!(
        open_with(folder.path(), 7).unwrap().verify().unwrap().head,
        head
    );
}

#[test]
fn what_a_crash_left_half_written_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    ledger.alarm("one").unwrap();
    let head = fs::read(folder.path().join("head")).unwrap();
    let one = fs::read(segment(folder.path())).unwrap();
    ledger.alarm("two").unwrap();
    let two = fs::read(segment(folder.path())).unwrap();
    drop(ledger);
    // The record is whole and its head was not written: it stays.
    fs::write(folder.path().join("head"), &head).unwrap();
    assert_eq!(lines(&open(folder.path()).unwrap()).len(), 2);
    // The record is not whole.
    for length in one.len() + 1..two.len() {
        fs::write(segment(folder.path()), &two[..length]).unwrap();
        fs::write(folder.path().join("head"), &head).unwrap();
        let ledger = open(folder.path()).unwrap();
        assert_eq!(lines(&ledger).len(), 1);
        assert_eq!(fs::read(segment(folder.path())).unwrap(), one);
    }
    let ledger = open(folder.path()).unwrap();
    ledger.alarm("two again").unwrap();
    assert_eq!(ledger.verify().unwrap().lines, 2);
}

#[test]
fn alterations_are_noticed_wherever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    for text in ["one", "two", "three"] {
        ledger.alarm(text).unwrap();
    }
    let good = fs::read(segment(folder.path())).unwrap();
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1;
        fs::write(segment(folder.path()), &bad).unwrap();
        assert!(
            matches!(ledger.verify(), Err(LedgerError::Altered { .. })),
            "byte {place}"
        );
    }
    // Cut at a border between records.
    let second = 4 + u32::from_be_bytes(good[..4].try_into().unwrap()) as usize;
    fs::write(segment(folder.path()), &good[..second]).unwrap();
    assert!(matches!(
        ledger.verify(),
        Err(LedgerError::Cut {
            found: 1,
            signed: 3
        })
    ));
    assert!(matches!(
        open(folder.path()),
        Err(LedgerError::Cut {
            found: 1,
            signed: 3
        })
    ));
    // A record taken out of the middle.
    let third =
        second + 4 + u32::from_be_bytes(good[second..second + 4].try_into().unwrap()) as usize;
    let without = [&good[..second], &good[third..]].concat();
    fs::write(segment(folder.path()), without).unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(LedgerError::Altered { sequence: 2 })
    ));
    fs::write(segment(folder.path()), &good).unwrap();
    ledger.verify().unwrap();
    fs::remove_file(folder.path().join("head")).unwrap();
    assert!(matches!(ledger.verify(), Err(LedgerError::Signature)));
}

#[test]
fn retention_is_bounded_and_what_is_left_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    ledger.inner().set_segment_max_bytes(300);
    for n in 0..200 {
        ledger.alarm(&format!("alarm {n}")).unwrap();
    }
    let count = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(count, SEGMENTS_MAX + 2);
    let kept = ledger.verify().unwrap();
    assert!(kept.lines < 100, "{kept:?}");
    assert_eq!(lines(&ledger).last().unwrap().sequence, 200);
    let reopened = open_with(folder.path(), 8).unwrap();
    assert_eq!(reopened.verify().unwrap(), kept);
    fs::remove_file(folder.path().join("checkpoint")).unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(LedgerError::Altered { sequence: 1 })
    ));
}

#[test]
fn nothing_of_a_line_can_be_read_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    ledger.begin(&opening()).unwrap().finish().unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap();
        assert!(!content.windows(12).any(|part| part == b"cell.example"));
    }
}

fn lay_out(files: &[String]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for pair in files.chunks_exact(2) {
        fs::write(folder.path().join(&pair[0]), unhex(&pair[1])).unwrap();
    }
    folder
}

#[test]
fn vectors_accepted() {
    let rows = rows(ACCEPTED);
    let folder = lay_out(&rows.concat());
    let ledger = open(folder.path()).unwrap();
    let lines = lines(&ledger);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].plain_out, 100);
    assert_eq!(
        lines[1].alarm.as_deref(),
        Some("a head was older than one seen before")
    );
}

#[test]
fn vectors_rejected() {
    for row in rows(REJECTED) {
        let folder = lay_out(&row[1..]);
        let error = open(folder.path()).map(|_| ()).unwrap_err();
        assert_eq!(format!("{error:?}"), row[0]);
    }
}

/// What makes the accepted vectors.
#[test]
fn vectors_are_what_this_build_makes() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open_with(folder.path(), 0x1e).unwrap();
    let line = ledger.begin(&opening()).unwrap();
    line.counts().add_plain(100, 20);
    line.counts().add_cipher(122, 42);
    line.counts().add_class(DataClass::SealedObjects);
    line.finish().unwrap();
    ledger
        .alarm("a head was older than one seen before")
        .unwrap();
    for row in rows(ACCEPTED) {
        let content = fs::read(folder.path().join(&row[0])).unwrap();
        assert_eq!(to_hex(&content), row[1], "{}", row[0]);
    }
}

#[test]
fn a_line_that_is_written_while_the_ledger_is_read_is_no_cut() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..200 {
                ledger.alarm("something").unwrap();
            }
        });
        while !writer.is_finished() {
            ledger.verify().unwrap();
            ledger.lines(None, &mut |_| ()).unwrap();
        }
    });
    assert_eq!(ledger.verify().unwrap().lines, 200);
}

/// Threads of the runtime close connections, and outlive the engine.
#[test]
fn a51_a_thread_that_closed_a_line_holds_no_key() {
    use candor_testkit::memory::{Masked, found_in_memory};
    use candor_vault::{SystemEntropy, secret::scrub_stack};
    use std::sync::mpsc;

    let folder = tempfile::tempdir().unwrap();
    let mut drawn = zeroize::Zeroizing::new([0; 32]);
    SystemEntropy.fill(drawn.as_mut()).unwrap();
    let secret = [Masked::new("ledger key", drawn.as_ref())];
    let key = LedgerKey::from_bytes(&drawn);
    // In place: moving it would leave a copy.
    zeroize::Zeroize::zeroize(&mut drawn);
    let ledger = open_under(folder.path(), &key, 5).unwrap();
    let line = ledger.begin(&opening()).unwrap();
    let (told, closed) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        drop(line);
        told.send(()).unwrap();
        ended.recv().unwrap_err();
    });
    closed.recv().unwrap();
    assert_eq!(found_in_memory(&secret), ["ledger key"]);
    drop((ledger, key));
    scrub_stack();
    assert!(found_in_memory(&secret).is_empty());
    drop(end);
    other.join().unwrap();
}
