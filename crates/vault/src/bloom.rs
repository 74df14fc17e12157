//! A Bloom filter of fixed size: says of most new chunks, without a question to the database, that
//! they are new.

use crate::chunk::ChunkId;

/// Size of the filter, in bytes: below 1 % wrong answers up to six million chunks (some six
/// terabytes of large files), and still of use at ten.
const BLOOM_BYTES: usize = 8 * 1024 * 1024;

/// How many bits each chunk sets: close to the best number at the size where the filter matters.
const BLOOM_HASHES: u32 = 4;

const BITS: u64 = BLOOM_BYTES as u64 * 8;

pub(crate) struct Bloom(Vec<u64>);

impl Bloom {
    pub(crate) fn new() -> Self {
        Self(vec![0; BLOOM_BYTES / 8])
    }

    pub(crate) fn insert(&mut self, id: &ChunkId) {
        for bit in bits(id) {
            self.0[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    /// Whether the chunk may have been inserted; `false` is certain.
    pub(crate) fn may_contain(&self, id: &ChunkId) -> bool {
        bits(id).all(|bit| self.0[(bit / 64) as usize] & (1 << (bit % 64)) != 0)
    }
}

/// Ids are outputs of a keyed hash, so their own bytes are the hash values.
fn bits(id: &ChunkId) -> impl Iterator<Item = u64> {
    let bytes = id.as_bytes();
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_be_bytes(word)
    };
    let (start, step) = (word(0), word(8) | 1);
    (0..BLOOM_HASHES).map(move |k| start.wrapping_add(step.wrapping_mul(u64::from(k))) % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_all_that_was_inserted_and_little_else() {
        let id = |n: u32| ChunkId::from_bytes(*blake3::hash(&n.to_be_bytes()).as_bytes());
        let mut bloom = Bloom::new();
        (0..100_000).for_each(|n| bloom.insert(&id(n)));
        assert!((0..100_000).all(|n| bloom.may_contain(&id(n))));
        let wrong = (100_000..200_000)
            .filter(|&n| bloom.may_contain(&id(n)))
            .count();
        assert!(wrong < 10, "{wrong} of 100,000 wrong answers");
    }
}
