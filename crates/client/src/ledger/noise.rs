//! Noise for the ledger (row A37): records, signed heads, frames, and segments that were changed.

use std::sync::LazyLock;

use candor_wire::cbor::{self, Canonical};
use candor_wire::sign::Ed25519Secret;
use candor_wire::{DeviceId, Millis};

use super::reading::frame;
use super::record::{Claim, Event, LedgerHead, Record, SignedLedgerHead};
use super::segments::Segments;
use super::{Counts, DataClass, LEDGER_VERSION, Opening, Protocol, RECORD_MAX_BYTES};
use crate::keystore::LedgerKey;

/// Records of the sample segment.
const RECORDS: u64 = 3;

const DEVICE: DeviceId = DeviceId::from_bytes([0xd0; 16]);

fn canonical<T: Canonical>(bytes: &[u8]) -> Option<T> {
    let value = cbor::decode::<T>(bytes).ok()?;
    assert_eq!(cbor::encode(&value), bytes, "another spelling");
    Some(value)
}

fn record(bytes: &[u8]) {
    if let Some(record) = canonical::<Record>(bytes) {
        let view = record.view();
        assert_eq!(view.state == "alarm", record.event == Event::Alarm);
        assert_ne!(Record::link(&[0; 32], bytes), Record::link(&[1; 32], bytes));
    }
}

fn head(bytes: &[u8]) {
    canonical::<LedgerHead>(bytes);
    if let Some(signed) = canonical::<SignedLedgerHead>(bytes) {
        let stranger = Ed25519Secret::from_seed(&[99; 32]).public();
        for claim in [Claim::Head, Claim::Checkpoint] {
            let verified = signed.verify(claim, DEVICE, &stranger);
            assert!(verified.is_none(), "a forged {}", claim.file());
        }
    }
}

fn frames(mut bytes: &[u8]) {
    while let Ok(Some(sealed)) = frame(&mut bytes) {
        assert!(sealed.len() <= RECORD_MAX_BYTES);
        if sealed.is_empty() {
            assert!(bytes.is_empty(), "the end came too early");
            return;
        }
    }
}

struct Sample {
    ledger: Segments,
    records: Vec<Record>,
    segment: Vec<u8>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let ledger = Segments::in_memory(&LedgerKey::from_bytes(&[0x1e; 32]));
    let record = |sequence| Record {
        sequence,
        ..Record::alarm(Millis(1000), format!("alarm {sequence}"))
    };
    let records: Vec<Record> = (1..=RECORDS).map(record).collect();
    Sample {
        segment: ledger.segment_of(&records),
        ledger,
        records,
    }
});

/// A segment with bytes exchanged, cut off or added: what is read are the first records, as they were, and
/// nothing that was signed is missing without a word.
fn segment(bytes: &[u8]) {
    let sample = &*SAMPLE;
    let mut changed = sample.segment.clone();
    let (signed, edits) = bytes.split_first().unwrap_or((&0, &[]));
    let signed = u64::from(*signed) % (RECORDS + 1);
    let (edits, tail) = edits.split_at(edits.len().min(12));
    for edit in edits.chunks_exact(4) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % (changed.len() + 1);
        match changed.get_mut(at) {
            Some(byte) if edit[2] % 4 != 0 => *byte ^= edit[3],
            _ => changed.truncate(at),
        }
    }
    changed.extend_from_slice(tail);
    let mut seen = Vec::new();
    let mut visit = |record| seen.push(record);
    let walked = sample.ledger.walk_bytes(&changed, signed, &mut visit);
    assert_eq!(
        sample.records.get(..seen.len()),
        Some(&seen[..]),
        "other records"
    );
    if let Ok(sequence) = walked {
        assert_eq!(sequence, seen.len() as u64);
    }
    if changed == sample.segment {
        assert_eq!(seen.len() as u64, RECORDS);
    }
    let version = seen.iter().all(|record| record.version == LEDGER_VERSION);
    assert!(version);
}

/// Files of the ledger. The first byte selects a row; rows are only ever added at the end.
pub(crate) fn take_noise(noise: &[u8]) {
    const ROWS: [fn(&[u8]); 4] = [record, head, frames, segment];
    if let Some((selector, bytes)) = noise.split_first() {
        ROWS[usize::from(*selector) % ROWS.len()](bytes);
    }
}

/// Where noise begins: records, one of them of a closed connection.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let opening = Opening {
        protocol: Protocol::Tcp,
        name: "cell.example:7443".to_owned(),
        local: None,
        remote: None,
        service: "backup",
        authority: vec![0xab; 32],
        is_grant: true,
    };
    let opened = Record::opened(Millis(1000), &opening);
    let counts = Counts::new();
    counts.add_plain(10, 20);
    counts.add_class(DataClass::Heads);
    let closed = opened.closed(1, Millis(2000), &counts);
    let records = [opened, closed, SAMPLE.records[0].clone()];
    let row = |record| [&[0], &cbor::encode(&record)[..]].concat();
    records.map(row).to_vec()
}
