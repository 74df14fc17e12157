//! Playing from seeds: how many, which, on all processors, and what went wrong.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every so many, one tells how far it is.
const TOLD_EVERY: u64 = 500;

/// Plays `count` seeds from `first` on, and says how many went wrong. `what` is what is played.
pub(crate) fn play_all(
    what: &str,
    first: u64,
    count: u64,
    play: impl Fn(u64) + Sync + std::panic::RefUnwindSafe,
) -> u64 {
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            if catch_unwind(|| play(seed)).is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("{what} of seed {seed}: went wrong");
            } else if (seed - first) % TOLD_EVERY == TOLD_EVERY - 1 {
                eprintln!("{what}: {} of {count}", seed - first + 1);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    failed.into_inner()
}

/// A number that `cargo xtask simulate` hands on in the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "how many, asked by `cargo xtask`"
)]
pub(crate) fn asked_for(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
