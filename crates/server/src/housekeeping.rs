//! What the cell does by itself: forgets nonces that can no longer be repeated, and takes away
//! uploads that never came.

use std::sync::{Arc, Weak};
use std::time::Duration;

use candor_wire::limits::NONCE_KEPT_SECONDS;

use crate::log::{Count, Event, Field};
use crate::shared::Shared;

/// How often it looks. Nonces of a busy minute are small.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many rows go in one commit, so that requests are never kept waiting for long.
const BATCH_MAX_ROWS: usize = 1000;

/// Nonces are kept this much longer than the rule says, in seconds: clocks are compared in whole
/// seconds.
const ROUNDING_SECONDS: i64 = 1;

/// Starts the task. It ends when the cell is dropped.
pub(crate) fn start(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    tokio::spawn(run(weak));
}

async fn run(shared: Weak<Shared>) {
    loop {
        match shared.upgrade() {
            Some(shared) => sweep(&shared).await,
            None => return,
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// One round. What fails is tried again in the next.
pub(crate) async fn sweep(shared: &Shared) {
    let now = shared.clock.now();
    let before = now.plus_ms(-(NONCE_KEPT_SECONDS + ROUNDING_SECONDS) * 1000);
    let mut nonces = 0;
    while let Ok(swept) = shared.records.sweep_nonces(before, BATCH_MAX_ROWS).await {
        nonces += swept;
        if swept < BATCH_MAX_ROWS as u64 {
            break;
        }
    }
    let mut objects = 0;
    if let Ok(keys) = shared.records.releasing(now, BATCH_MAX_ROWS).await {
        for key in keys {
            objects += u64::from(shared.take_away(key).await);
        }
    }
    if nonces + objects > 0 {
        let (nonces, objects) = (Count(nonces), Count(objects));
        shared.log.line(
            now,
            Event::Swept,
            &[(Field::Nonces, &nonces), (Field::Objects, &objects)],
        );
    }
}
