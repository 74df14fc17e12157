//! What the cell does by itself: forgets nonces that can no longer be repeated, and takes away uploads that
//! never came, what a head condemned once its retention window is over, and what people asked to be erased.

use std::sync::{Arc, Weak};
use std::time::Duration;

use candor_wire::limits::NONCE_KEPT_SECONDS;
use candor_wire::time::DAY_MS;

use crate::erasures;
use crate::log::{Count, Event, Field};
use crate::shared::Shared;

/// How often it looks. Nonces of a busy minute are small.
const INTERVAL: Duration = Duration::from_secs(60);

/// The same until the log's signer signed for the first time since the start.
const BEFORE_SIGNED: Duration = Duration::from_secs(1);

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
        let pause = match shared.upgrade() {
            Some(shared) => {
                // Asked before: a round that begins too early has not done everything, whatever was signed meanwhile.
                let is_current = shared.transparency.is_current();
                sweep(&shared).await;
                if is_current { INTERVAL } else { BEFORE_SIGNED }
            }
            None => return,
        };
        tokio::time::sleep(pause).await;
    }
}

/// One round. What fails is tried again in the next.
pub(crate) async fn sweep(shared: &Arc<Shared>) {
    let now = shared.clock.now();
    let before = now.plus_ms(-(NONCE_KEPT_SECONDS + ROUNDING_SECONDS) * 1000);
    let mut nonces = 0;
    while let Ok(swept) = shared.records.sweep_nonces(before, BATCH_MAX_ROWS).await {
        nonces += swept;
        if swept < BATCH_MAX_ROWS as u64 {
            break;
        }
    }
    // There are few: they end by themselves within minutes.
    while let Ok(swept) = shared.links.sweep_links(now, BATCH_MAX_ROWS).await {
        if swept < BATCH_MAX_ROWS as u64 {
            break;
        }
    }
    // The window is part of every consent: whoever agreed was promised both that it is kept so long, and that
    // it is gone then.
    let window = i64::from(shared.config.retention_days) * DAY_MS;
    let condemned_before = now.plus_ms(-window);
    let mut condemned = 0;
    // A database that was put back does not know what was rescued since: nothing of it is deleted until the signer
    // found that it is none, or its operator began anew, with windows that begin anew, too.
    while shared.transparency.is_current()
        && let Ok(gone) = shared
            .records
            .let_condemned_go(condemned_before, now, BATCH_MAX_ROWS)
            .await
    {
        condemned += gone;
        if gone < BATCH_MAX_ROWS as u64 {
            break;
        }
    }
    let erasures = if shared.transparency.is_current() {
        erasures::sweep(shared, now).await
    } else {
        erasures::Swept::default()
    };
    let mut objects = erasures.objects;
    while let Ok(keys) = shared.records.releasing(now, BATCH_MAX_ROWS).await {
        let (listed, before) = (keys.len(), objects);
        for key in keys {
            objects += u64::from(shared.take_away(key).await);
        }
        // Those that cannot be taken away now would be listed for ever.
        if listed < BATCH_MAX_ROWS || objects == before {
            break;
        }
    }
    if nonces + condemned + objects + erasures.finished > 0 {
        let (nonces, objects) = (Count(nonces), Count(objects));
        let finished = Count(erasures.finished);
        shared.log.line(
            now,
            Event::Swept,
            &[
                (Field::Nonces, &nonces),
                (Field::Objects, &objects),
                (Field::Erasures, &finished),
            ],
        );
    }
}
