//! Bytes read as decisions: how noise picks its way past signatures and checksums.

/// What is left of the noise. At its end every decision is 0.
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u8) -> bool {
        self.byte() % times == 1
    }

    pub fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// A number below `end`; 0 for an `end` of 0.
    pub fn below(&mut self, end: usize) -> usize {
        let (high, low) = match end {
            0..=256 => (0, self.byte()),
            _ => (self.byte(), self.byte()),
        };
        (usize::from(high) << 8 | usize::from(low)) % end.max(1)
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// As [`Self::take`], filled up with zeros.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.take(N);
        out[..taken.len()].copy_from_slice(taken);
        out
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// A copy with up to four edits, which may undo each other.
    pub fn edit(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..self.byte() % 4 + 1 {
            self.edit_once(&mut out);
        }
        out
    }

    fn edit_once(&mut self, out: &mut Vec<u8>) {
        let kind = self.byte();
        let at = self.below(out.len() + 1);
        let end = out.len().min(at + self.below(out.len() + 1).min(64));
        match kind % 7 {
            0 if at < out.len() => out[at] ^= 1 << (self.byte() % 8),
            1 if at < out.len() => out[at] = self.byte(),
            2 => out.truncate(at),
            3 => out.insert(at, self.byte()),
            4 => drop(out.drain(at..end)),
            5 => {
                let copy = out[at..end].to_vec();
                let to = self.below(out.len() + 1);
                out.splice(to..to, copy);
            }
            6 => {
                let copy = out[at..end].to_vec();
                let to = self.below(out.len() - copy.len() + 1);
                out[to..to + copy.len()].copy_from_slice(&copy);
            }
            _ => {}
        }
    }
}
