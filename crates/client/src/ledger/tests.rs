#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;
use std::path::PathBuf;

use candor_wire::cbor;
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
    open_at(folder, key, entropy, Arc::new(HandClock::new(1_000)))
}

fn open_at(
    folder: &Path,
    key: &LedgerKey,
    entropy: u8,
    clock: Arc<HandClock>,
) -> Result<Arc<Ledger>, LedgerError> {
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
            clock,
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
    for n in 0..600 {
        ledger.alarm(&format!("alarm {n}")).unwrap();
    }
    let count = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(count, SEGMENTS_MAX + 2);
    let kept = ledger.verify().unwrap();
    assert!(kept.lines < 400, "{kept:?}");
    assert_eq!(lines(&ledger).last().unwrap().sequence, 600);
    assert_eq!(lines(&ledger).len() as u64, kept.lines);
    let reopened = open_with(folder.path(), 8).unwrap();
    assert_eq!(reopened.verify().unwrap(), kept);
    fs::remove_file(folder.path().join("checkpoint")).unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(LedgerError::Altered { sequence: 1 })
    ));
}

/// A ledger of many small segments: alarms, connections to two places, and two connections that are open.
fn with_a_history(folder: &Path) -> (Arc<Ledger>, Vec<OpenLine>) {
    let clock = Arc::new(HandClock::new(1_000));
    let ledger = open_at(folder, &key(), 5, Arc::clone(&clock)).unwrap();
    ledger.inner().set_segment_max_bytes(1_000);
    let mut open = Vec::new();
    for n in 0..40 {
        clock.set(1_000 + i64::try_from(n).unwrap() * 10);
        let name = ["cell.example:7443", "other.example:443"][n % 2];
        let opening = Opening {
            name: name.to_owned(),
            service: ["backup", "verify", "list"][n % 3],
            remote: None,
            ..opening()
        };
        let line = ledger.begin(&opening).unwrap();
        if n == 5 || n == 30 {
            open.push(line);
        } else {
            line.finish().unwrap();
        }
        if n % 10 == 0 {
            ledger.alarm(&format!("alarm {n}")).unwrap();
        }
    }
    (ledger, open)
}

/// What [`Ledger::newest`] has to tell, the simple way.
fn looked_for(ledger: &Ledger, asked: &LedgerSelection) -> Vec<LedgerLineView> {
    let all = lines(ledger).into_iter().rev();
    let fits = |line: &LedgerLineView| {
        let to = line.remote.as_ref().unwrap_or(&line.name);
        asked.since_ms.is_none_or(|since| line.opened_ms >= since)
            && asked
                .service
                .as_ref()
                .is_none_or(|one| *one == line.service)
            && asked
                .destination
                .as_ref()
                .is_none_or(|part| to.contains(part.as_str()))
    };
    all.filter(fits).collect()
}

#[test]
fn the_newest_lines_come_page_by_page_each_once_and_none_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, open) = with_a_history(folder.path());
    let word = |text: &str| Some(text.to_owned());
    let middle = lines(&ledger)[20].opened_ms;
    let selections = [
        (None, None, None),
        (None, word("verify"), None),
        (None, None, word("other.ex")),
        (None, word("backup"), word("cell.example")),
        (Some(middle), None, None),
        (Some(middle), word("list"), None),
        (None, word("no such service"), None),
        (Some(i64::MAX), None, None),
    ];
    for (since_ms, service, destination) in selections {
        let asked = LedgerSelection {
            since_ms,
            service,
            destination,
        };
        let expected = looked_for(&ledger, &asked);
        for most in [1, 2, 7, NEWEST_MAX] {
            let (mut told, mut before) = (Vec::new(), None);
            loop {
                let page = ledger.newest(&asked, before, most).unwrap();
                // Connections that are open do not make the first page longer than it takes to show them.
                assert!(page.lines.len() <= most.max(open.len()), "{asked:?}");
                told.extend(page.lines);
                before = page.older_before;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(told, expected, "{asked:?}, {most} at once");
        }
    }
    assert_eq!(lines(&ledger).len(), 44);
    drop(open);
    assert!(lines(&ledger).iter().all(|line| line.state != "open"));
}

#[test]
fn whoever_is_told_slowly_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, open) = with_a_history(folder.path());
    let mut told = 0;
    // A connection is opened and closed while a line is told; one that began before the reading is told all the same.
    let mut tell = |_| {
        told += 1;
        if told == 1 {
            ledger.begin(&opening()).unwrap().finish().unwrap();
        }
    };
    ledger.lines(None, &mut tell).unwrap();
    assert_eq!(told, 45);
    drop(open);
}

#[test]
fn what_is_added_while_a_line_is_told_leaves_no_hole() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    let open = ledger.begin(&opening()).unwrap();
    ledger.begin(&opening()).unwrap().finish().unwrap();
    let mut told = Vec::new();
    let mut open = Some(open);
    // All there is was read when the first line is told. Then the same segment grows, and another one begins.
    let mut tell = |line: LedgerLineView| {
        told.push((line.sequence, line.state));
        if let Some(open) = open.take() {
            open.finish().unwrap();
            ledger.inner().set_segment_max_bytes(1);
            ledger.begin(&opening()).unwrap().finish().unwrap();
        }
    };
    ledger.lines(None, &mut tell).unwrap();
    let told: Vec<(u64, &str)> = told.iter().map(|(n, state)| (*n, state.as_str())).collect();
    assert_eq!(told, [(2, "closed"), (1, "closed"), (5, "closed")]);
}

#[test]
fn a_segment_that_a_crash_left_empty_ends_no_reading_and_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, open) = with_a_history(folder.path());
    drop(open);
    let expected = lines(&ledger).len();
    let (last, _) = ledger.inner().newest();
    drop(ledger);
    let empty = folder.path().join(format!("{:016}.segment", last + 1));
    fs::write(&empty, b"").unwrap();
    let ledger = open_with(folder.path(), 6).unwrap();
    assert_eq!(lines(&ledger).len(), expected);
    let all = ledger.newest(&LedgerSelection::default(), None, NEWEST_MAX);
    assert_eq!(all.unwrap().lines.len(), expected);
    ledger.begin(&opening()).unwrap().finish().unwrap();
    assert!(fs::metadata(&empty).unwrap().len() > 0);
    assert_eq!(lines(&ledger).len(), expected + 1);
}

#[test]
fn what_is_not_whole_is_not_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    // One record in each segment.
    ledger.inner().set_segment_max_bytes(1);
    for n in 0..SEGMENTS_MAX {
        ledger.alarm(&format!("alarm {n}")).unwrap();
    }
    let oldest = segment(folder.path());
    let good = fs::read(&oldest).unwrap();
    let mut bad = good.clone();
    bad[40] ^= 1;
    let longer = [&good[..], b"more"].concat();
    for content in [bad, longer] {
        fs::write(&oldest, content).unwrap();
        let refused = ledger.alarm("one more");
        assert!(matches!(refused, Err(LedgerError::Altered { .. })));
        assert!(oldest.exists());
    }
    fs::write(&oldest, &good).unwrap();
    ledger.alarm("the last").unwrap();
    assert!(!oldest.exists());
    ledger.verify().unwrap();
}

#[test]
fn a_segment_that_is_altered_later_is_noticed_by_whoever_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, _open) = with_a_history(folder.path());
    let asked = LedgerSelection::default();
    let oldest = segment(folder.path());
    let good = fs::read(&oldest).unwrap();
    let all = || ledger.newest(&asked, None, NEWEST_MAX);
    let whole = all().unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    for content in [Some(bad), Some(good[..good.len() - 3].to_vec()), None] {
        match content {
            Some(content) => fs::write(&oldest, content).unwrap(),
            None => fs::remove_file(&oldest).unwrap(),
        }
        assert!(matches!(all(), Err(LedgerError::Altered { .. })));
        let told = ledger.lines(None, &mut |_| {});
        assert!(matches!(told, Err(LedgerError::Altered { .. })));
        assert!(ledger.verify().is_err());
        // The newest ones need none of it.
        ledger.newest(&asked, None, 3).unwrap();
        // Nor does whoever looks for what is in none of them.
        let none = LedgerSelection {
            service: Some("no such service".to_owned()),
            ..LedgerSelection::default()
        };
        assert_eq!(ledger.newest(&none, None, 3).unwrap().lines.len(), 0);
    }
    fs::write(&oldest, &good).unwrap();
    assert_eq!(all().unwrap(), whole);
}

#[test]
fn files_that_are_not_the_ledgers_own_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, open) = with_a_history(folder.path());
    drop(open);
    let is_altered = |ledger: &Ledger| matches!(ledger.verify(), Err(LedgerError::Altered { .. }));
    ledger.verify().unwrap();
    let surplus = folder.path().join(format!("{:016}.segment", 999_999));
    fs::write(&surplus, b"").unwrap();
    assert!(is_altered(&ledger));
    fs::remove_file(&surplus).unwrap();
    ledger.verify().unwrap();
    // Bytes behind the newest record are no record, and do not stand in the way of the next one.
    let mut there: Vec<PathBuf> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "segment"))
        .collect();
    there.sort();
    let newest = there.last().unwrap();
    // Once it goes on in the same segment, and once in another one.
    for most in [1_000_000, 1_000] {
        let mut content = fs::read(newest).unwrap();
        content.push(7);
        fs::write(newest, content).unwrap();
        assert!(is_altered(&ledger));
        ledger.inner().set_segment_max_bytes(most);
        ledger.alarm(&"somebody wrote here ".repeat(50)).unwrap();
        ledger.verify().unwrap();
    }
    // A checkpoint is the last record before the segments, not one that went long ago.
    let checkpoint = folder.path().join("checkpoint");
    let write = |sequence, hash| {
        let signed = ledger.sign(Claim::Checkpoint, sequence, hash);
        fs::write(&checkpoint, cbor::encode(&signed)).unwrap();
    };
    let (last, hash) = ledger.inner().newest();
    write(1, hash);
    assert!(is_altered(&ledger));
    // Nor the newest one: something always stays.
    write(last, hash);
    assert!(is_altered(&ledger));
    drop(ledger);
    let segments = || fs::read_dir(folder.path()).unwrap().count();
    let before = segments();
    assert!(matches!(
        open_with(folder.path(), 6),
        Err(LedgerError::Altered { .. })
    ));
    assert_eq!(segments(), before, "nothing is taken away for it");
}

#[test]
fn a_head_that_was_kept_aside_takes_nothing_away() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).unwrap();
    ledger.inner().set_segment_max_bytes(1);
    let [head, checkpoint, kept] =
        ["head", "checkpoint", "aside"].map(|name| folder.path().join(name));
    ledger.alarm("what somebody wants to hide").unwrap();
    // The record after it begins a segment, so that the rest is a ledger of its own.
    fs::copy(&head, &kept).unwrap();
    ledger.alarm("what may be seen").unwrap();
    let is_refused = |tried: Result<(), LedgerError>| matches!(tried, Err(LedgerError::Signature));
    fs::copy(&kept, &checkpoint).unwrap();
    assert!(is_refused(ledger.verify().map(drop)));
    drop(ledger);
    assert!(is_refused(open(folder.path()).map(drop)));
    let hidden = folder.path().join(format!("{:016}.segment", 1));
    assert!(hidden.exists(), "nothing is taken away for it");
    fs::remove_file(&checkpoint).unwrap();
    assert_eq!(lines(&open(folder.path()).unwrap()).len(), 2);
}

#[test]
fn a_segment_is_read_as_it_was_whatever_is_written_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, open) = with_a_history(folder.path());
    let everything = LedgerSelection::default();
    let oldest = ledger.next_segment(0, &everything, check_head).unwrap();
    let newest = ledger.last_segment(u64::MAX, &everything).unwrap();
    let (oldest, newest) = (oldest.unwrap(), newest.unwrap());
    let (last, _) = ledger.inner().newest();
    let path = folder.path().join(format!("{:016}.segment", oldest.first));
    while path.exists() {
        ledger.alarm("one more").unwrap();
    }
    let (expected, mut read) = (oldest.last.0, Vec::new());
    let told = oldest.read(&mut |record| read.push(record.sequence));
    assert_eq!(told.unwrap(), expected);
    assert_eq!(read, (1..=expected).collect::<Vec<u64>>());
    assert_eq!(newest.read(&mut |_| {}).unwrap(), last);
    drop(open);
    ledger.verify().unwrap();
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
