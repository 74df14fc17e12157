//! Where the cell gets the time. A cell's time decides about skew, expiry and acknowledgements, so
//! tests hand in one that they can move.

use std::time::{SystemTime, UNIX_EPOCH};

use candor_wire::Millis;

/// A source of the present time.
pub trait Clock: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Millis;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        // A clock before 1970 or after the year 292 million is shown as the end of the range; every
        // request is then refused for its skew, which names the cell's time.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
