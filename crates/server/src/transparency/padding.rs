//! Padding entries: in every window of time the log grows by at least so many entries, so that a
//! stranger who counts leaves cannot tell a quiet cell from a busy one.
//!
//! A statement changes its account's entry in the state map in the same batch, which everybody can see
//! in the map's inputs. So each padding entry comes with a change of a padding key of the map: a few
//! keys that belong to no account, with values drawn at random.
//!
//! What this does not hide: batches that are larger than one statement makes them, and how many accounts'
//! states changed in a batch from somebody who watched for days: padding keys change about equally often,
//! and never without a leaf. `docs/formats/state-map.md` says so.
//!
//! A window has a number of moments, drawn at random. At each a padding entry is due, unless a
//! statement has taken its place since the window began. So entries come at random moments either way,
//! and below the number the leaves alone do not tell how many of them were statements.

use candor_log::leaf::Leaf;
use candor_log::state_map::{MapKey, MapValue};
use candor_store::log::MapChange;
use candor_wire::{AccountId, Millis};

use crate::random::{self, NoRandomness};

/// Length of the random bytes in a padding entry.
const RANDOM_BYTES: usize = 64;

/// Keys of the state map that belong to no account. More than one, so that a key that changes often does
/// not stand out; few, so that they cost a large map nothing.
const PADDING_KEYS: u8 = 64;

/// One padding entry and the change of the state map that goes with it.
pub(crate) struct PaddingEntry {
    pub(crate) leaf: Leaf,
    pub(crate) change: MapChange,
}

/// The windows of one process. Another process that takes over begins a window of its own.
pub(crate) struct Padding {
    entries: u32,
    window_ms: i64,
    /// From it the padding keys are derived: the same in every process of the cell, and known to no
    /// stranger.
    secret: [u8; 32],
    ends_at: Millis,
    /// Moments that are still to come, the latest first.
    moments: Vec<Millis>,
    /// Statements that no moment was given up for yet.
    credit: usize,
}

impl Padding {
    pub(crate) const fn new(entries: u32, window_ms: i64, secret: [u8; 32]) -> Self {
        Self {
            entries,
            window_ms,
            secret,
            ends_at: Millis(i64::MIN),
            moments: Vec::new(),
            credit: 0,
        }
    }

    /// The padding that is due now, beside this many statements.
    pub(crate) fn due(
        &mut self,
        now: Millis,
        statements: usize,
    ) -> Result<Vec<PaddingEntry>, NoRandomness> {
        if self.entries == 0 {
            return Ok(Vec::new());
        }
        // A clock that was set back far begins a window anew, too.
        if now >= self.ends_at || now.plus_ms(self.window_ms) < self.ends_at {
            self.begin(now)?;
        }
        self.credit = self.credit.saturating_add(statements);
        let mut due = Vec::new();
        while self.moments.last().is_some_and(|moment| *moment <= now) {
            self.moments.pop();
            if self.credit > 0 {
                self.credit -= 1;
            } else {
                due.push(self.entry()?);
            }
        }
        Ok(due)
    }

    fn entry(&self) -> Result<PaddingEntry, NoRandomness> {
        let [number] = random::bytes::<1>()?;
        let derived = |what: &[u8]| {
            let mut hash = blake3::Hasher::new_keyed(&self.secret);
            hash.update(what);
            hash.update(&[number % PADDING_KEYS]);
            *hash.finalize().as_bytes()
        };
        let mut account = [0; AccountId::BYTES];
        account.copy_from_slice(&derived(b"account")[..AccountId::BYTES]);
        let (key, value) = (MapKey(derived(b"key")), MapValue(random::bytes()?));
        Ok(PaddingEntry {
            leaf: Leaf::padding(&random::bytes::<RANDOM_BYTES>()?),
            change: MapChange {
                account: AccountId::from_bytes(account),
                stamp: 0,
                key: key.0,
                value: value.0,
                state: bytes::Bytes::new(),
            },
        })
    }

    fn begin(&mut self, now: Millis) -> Result<(), NoRandomness> {
        let mut moments = Vec::new();
        for _ in 0..self.entries {
            let draw = u64::from_be_bytes(random::bytes()?);
            // A window has far fewer milliseconds than 2^64: the remainder's bias is nothing.
            let after = draw % self.window_ms.unsigned_abs().max(1);
            moments.push(now.plus_ms(i64::try_from(after).unwrap_or(0)));
        }
        moments.sort_unstable_by(|a, b| b.cmp(a));
        self.moments = moments;
        self.ends_at = now.plus_ms(self.window_ms);
        self.credit = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Entries of 20 windows of 600 s, looked at every second, with a statement each `every` seconds.
    fn grown(every: Option<i64>) -> (usize, usize) {
        let mut padding = Padding::new(16, 600_000, [1; 32]);
        let (mut statements, mut pads) = (0, 0);
        for second in 0..20 * 600_i64 {
            let new = usize::from(every.is_some_and(|every| second % every == 0));
            statements += new;
            pads += padding.due(Millis(second * 1000), new).unwrap().len();
        }
        (statements, pads)
    }

    #[test]
    fn a_quiet_log_grows_by_the_padding_and_a_busy_one_by_its_statements() {
        let (_, quiet) = grown(None);
        // The moments of the last second of a window may fall into the next.
        assert!((310..=320).contains(&quiet), "{quiet}");
        let (statements, pads) = grown(Some(60));
        let all = statements + pads;
        assert!((300..=340).contains(&all), "{statements} and {pads}");
        let (statements, pads) = grown(Some(5));
        assert!(pads < statements / 50, "{statements} and {pads}");
        assert_eq!(
            Padding::new(0, 1, [1; 32]).due(Millis(5), 0).unwrap().len(),
            0
        );
    }

    #[test]
    fn a_clock_that_jumps_begins_a_new_window() {
        let mut padding = Padding::new(4, 1000, [1; 32]);
        padding.due(Millis(1_000_000), 0).unwrap();
        let mut seen = 0;
        for ms in 0..1000 {
            seen += padding.due(Millis(ms), 0).unwrap().len();
        }
        assert!((3..=4).contains(&seen), "{seen}");
    }
}
