//! What the tests of this crate share: a source of repeatable bytes, a clock that is set by hand, a
//! reader of vector files.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use candor_vault::Entropy;
use candor_vault::entropy::{EntropyError, SURROUNDINGS_BYTES};
use candor_wire::Millis;

use crate::clock::Clock;

/// BLAKE3 of a seed and a counter: the same bytes in the same order, every time.
pub(crate) struct Repeatable {
    seed: u8,
    calls: AtomicU64,
}

impl Repeatable {
    pub(crate) const fn new(seed: u8) -> Self {
        Self {
            seed,
            calls: AtomicU64::new(0),
        }
    }
}

impl Entropy for Repeatable {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        let mut hash = blake3::Hasher::new();
        hash.update(&[self.seed]);
        hash.update(&self.calls.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        hash.finalize_xof().fill(buffer);
        Ok(())
    }

    fn surroundings(&self) -> [u8; SURROUNDINGS_BYTES] {
        [self.seed; SURROUNDINGS_BYTES]
    }
}

/// A clock that stands still until it is set.
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) const fn new(ms: i64) -> Self {
        Self(AtomicI64::new(ms))
    }

    pub(crate) fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::Relaxed))
    }
}

/// The rows of a vector file: fields between `|`, without comments and empty lines.
pub(crate) fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            line.split('|')
                .map(|field| field.trim().to_owned())
                .collect()
        })
        .collect()
}

/// Bytes of a field in hexadecimal.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    assert!(digits.remainder().is_empty(), "an even number of digits");
    let byte = |pair: &[u8]| {
        let text = core::str::from_utf8(pair).expect("hexadecimal is ASCII");
        u8::from_str_radix(text, 16).expect("hexadecimal")
    };
    digits.map(byte).collect()
}
