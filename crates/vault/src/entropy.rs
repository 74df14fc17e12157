//! Where random bytes come from, behind one small trait so that a test can hand two writers the
//! same state, as a cloned virtual machine would.

use std::sync::atomic::{AtomicU64, Ordering};

/// The operating system gave no random bytes. Nothing can be sealed without them.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct EntropyError;

/// A source of unpredictable bytes.
pub trait Entropy: Send + Sync {
    /// Fills the buffer with unpredictable bytes, or fails without having filled it.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError>;

    /// Something that differs between two machines that run on from one copied state, even when
    /// their random bytes do not: it need not be secret nor unpredictable.
    fn surroundings(&self) -> [u8; SURROUNDINGS_BYTES];
}

/// Length of what [`Entropy::surroundings`] returns, in bytes: clock, process and a counter, 8 each.
pub const SURROUNDINGS_BYTES: usize = 24;

/// The operating system's generator; surroundings are the clock in nanoseconds, the process id and
/// a counter of the process.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemEntropy;

static CALLS: AtomicU64 = AtomicU64::new(0);

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(buffer).map_err(|_| EntropyError)
    }

    fn surroundings(&self) -> [u8; SURROUNDINGS_BYTES] {
        // The clock is read as noise, never as a time.
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let nanos = (clock.tv_sec as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(clock.tv_nsec as u64);
        let mut out = [0; SURROUNDINGS_BYTES];
        out[..8].copy_from_slice(&nanos.to_be_bytes());
        out[8..16].copy_from_slice(&u64::from(std::process::id()).to_be_bytes());
        out[16..].copy_from_slice(&CALLS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        out
    }
}
