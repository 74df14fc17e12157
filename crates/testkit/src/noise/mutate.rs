//! Mutations from a seed, the same each time: what a fuzzer does, without one.

/// A repeatable source of numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`; 0 for an `end` of 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % (end.max(1) as u64)) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }
}

/// Bytes that mean something to decoders: ends of ranges, heads of CBOR, separators of texts.
const TELLING: [u8; 24] = [
    0x00, 0x01, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x20, 0x40, 0x58, 0x5f, 0x60, 0x7f, 0x80, 0x9f, 0xa0,
    0xbf, 0xf4, 0xf6, 0xfb, 0xff, b'\n', b'/', b'=',
];

/// Lengths that overflow something.
const LENGTHS: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// `bytes` with one to five changes; `other` is where splices come from.
pub fn mutated(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(5) {
        mutate(&mut out, other, random);
    }
    out
}

fn mutate(out: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(out.len() + 1);
    let end = at + random.below((out.len() - at).min(40) + 1);
    match random.below(10) {
        0 | 1 if at < out.len() => out[at] ^= 1 << random.below(8),
        2 if at < out.len() => out[at] = TELLING[random.below(TELLING.len())],
        3 => out.truncate(at),
        4 => drop(out.drain(at..end)),
        5 => {
            let copy = out[at..end].to_vec();
            out.splice(at..at, copy);
        }
        6 => {
            let count = random.below(9);
            let new = random.bytes(count);
            out.splice(at..at, new);
        }
        7 => {
            let from = random.below(other.len() + 1);
            let to = from + random.below((other.len() - from).min(200) + 1);
            out.splice(at..end, other[from..to].iter().copied());
        }
        8 => edit_length(out, at, random),
        _ => {
            let count = random.below(5);
            let new = random.bytes(count);
            out.extend(new);
        }
    }
}

/// Writes a telling number over 1, 2, 4 or 8 bytes, of either order.
fn edit_length(out: &mut [u8], at: usize, random: &mut Random) {
    let width = 1 << random.below(4);
    let number = LENGTHS[random.below(LENGTHS.len())];
    let Some(place) = out.get_mut(at..at + width) else {
        return;
    };
    if random.below(2) == 0 {
        place.copy_from_slice(&number.to_be_bytes()[8 - width..]);
    } else {
        place.copy_from_slice(&number.to_le_bytes()[..width]);
    }
}
