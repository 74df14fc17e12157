//! Noise for what is not public here (row A37): the device's own files, keys that others wrapped for it, and texts
//! that people type. For the fuzzer and for the tests below; `candor_testkit::noise` has what is public.

use std::path::Path;

use candor_wire::cbor;
use candor_wire::epoch::EpochRecord;
use candor_wire::ids::to_hex;
use candor_wire::{AccountId, DeviceId};

use crate::epochs::{self, AgreementSecret};
use crate::path_text::PathText;
use crate::phrase::{PHRASE_WORDS, RecoveryPhrase};
use crate::restore_flow::SnapshotSpec;
use crate::{keystore, ledger, memory, seal_small, sets, writer_state};

/// The key store's file.
pub fn key_stores(noise: &[u8]) {
    keystore::noise::take_noise(noise);
}

/// Where noise for [`key_stores`] begins.
pub fn key_store_seeds() -> Vec<Vec<u8>> {
    keystore::noise::seeds()
}

/// The ledger's files.
pub fn ledgers(noise: &[u8]) {
    ledger::noise::take_noise(noise);
}

/// Where noise for [`ledgers`] begins, beside the vectors.
pub fn ledger_seeds() -> Vec<Vec<u8>> {
    ledger::noise::seeds()
}

/// The rollback memory, and what a write-only device remembers. The first byte selects a row; rows are only
/// ever added at the end.
pub fn memories(noise: &[u8]) {
    const ROWS: [fn(&[u8]); 2] = [memory::take_noise, writer_state::take_noise];
    if let Some((selector, bytes)) = noise.split_first() {
        ROWS[usize::from(*selector) % ROWS.len()](bytes);
    }
}

/// Where noise for [`memories`] begins.
pub fn memory_seeds() -> Vec<Vec<u8>> {
    let rows = [(0, memory::seeds()), (1, writer_state::seeds())];
    let selected = rows.into_iter().flat_map(|(row, seeds)| {
        seeds.into_iter().map(move |mut seed| {
            seed.insert(0, row);
            seed
        })
    });
    selected.collect()
}

/// An epoch that somebody wrapped for the device or the recovery key of the vectors: keys that open are those that
/// the record announces.
pub fn epoch_records(noise: &[u8]) {
    let account = AccountId::from_bytes([0xa0; 16]);
    let device = DeviceId::from_bytes([0xd0; 16]);
    assert!(seal_small::open(&[7; 32], b"place", noise).is_err());
    let Ok(record) = cbor::decode::<EpochRecord>(noise) else {
        return;
    };
    assert_eq!(cbor::encode(&record), noise);
    for (recipient, seed) in [(Some(device), 2), (None, 1)] {
        let secret = AgreementSecret::from_seed(&[seed; 32]);
        if let Ok(keys) = epochs::open(account, &record, recipient, &secret) {
            assert_eq!((keys.scope(), keys.newest()), (record.vault, record.epoch));
            assert!(epochs::is_announced(account, &record, &keys));
        }
    }
}

fn phrase(text: &str) {
    if let Ok(phrase) = RecoveryPhrase::from_text(text) {
        assert_eq!(phrase.words().len(), PHRASE_WORDS);
        let typed: Vec<_> = text
            .split_whitespace()
            .map(str::to_ascii_lowercase)
            .collect();
        assert_eq!(typed.join(" "), *phrase.text());
    }
}

fn snapshot(text: &str) {
    // Whatever the text is, it names a snapshot or it is refused.
    let _ = SnapshotSpec::parse(text);
}

fn set_name(text: &str) {
    let made = sets::derive_name(Path::new(text), |name| name == text);
    assert!(sets::is_name(&made), "{made:?}");
}

/// A raw path that a program sends.
fn raw_path(text: &str) {
    let path = PathText {
        text: "text".to_owned(),
        raw: Some(text.to_owned()),
    };
    let bytes = path.to_bytes();
    let is_raw = to_hex(&bytes) == text.to_ascii_lowercase();
    assert!(is_raw || bytes == b"text", "{text:?} is no path");
}

/// Texts that people type, and paths. The first byte selects a row; rows are only ever added at the end.
pub fn texts(noise: &[u8]) {
    const ROWS: [fn(&str); 4] = [phrase, snapshot, set_name, raw_path];
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    assert_eq!(PathText::from_bytes(bytes).to_bytes(), bytes);
    let text = String::from_utf8_lossy(bytes);
    ROWS[usize::from(*selector) % ROWS.len()](&text);
}

#[cfg(test)]
mod tests {
    use candor_testkit::noise::{device, feed};

    use super::*;

    #[test]
    fn a37_key_stores_take_noise() {
        feed(key_stores, &key_store_seeds(), 4_000);
    }

    #[test]
    fn a37_ledgers_take_noise() {
        let seeds = [ledger_seeds(), device::ledger_seeds()].concat();
        feed(ledgers, &seeds, 4_000);
    }

    #[test]
    fn a37_memories_take_noise() {
        feed(memories, &memory_seeds(), 20_000);
    }

    #[test]
    fn a37_epoch_records_take_noise() {
        feed(epoch_records, &device::epoch_seeds(), 400);
    }

    #[test]
    fn a37_typed_texts_take_noise() {
        feed(texts, &device::typed_seeds(), 4_000);
    }
}
