//! One quiet account: alone, beside a flood of another cell, and beside a flood of its own, in turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::floods::{Flood, Got};
use super::load::{Caller, Kind};
use super::people::family;
use super::{Bench, SMALL_BYTES, line, milliseconds, percentile, runtime};

/// Where the neighbour comes from.
const SOURCE: u8 = 30;

/// The pause between two of its requests: it is quiet.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the cell comes to rest, or the flood to its full height, before the neighbour is watched.
const SETTLE: Duration = Duration::from_secs(1);

/// The threads of the neighbour come first where the machine allows that: a device in another house has a processor of
/// its own.
const FIRST: i32 = -10;

/// The threads of the flood get what is left.
const LAST: i32 = 19;

const KINDS: [(&str, Kind); 3] = [
    ("head moves", Kind::Move),
    ("puts of 64 KiB", Kind::Put(SMALL_BYTES)),
    ("gets of 64 KiB", Kind::Get),
];

/// What else goes on while the neighbour is watched.
const PHASES: [&str; 3] = ["alone", "elsewhere", "here"];

/// The times of one phase in all rounds, for each kind.
type Times = [Vec<Duration>; KINDS.len()];

async fn watch(caller: &mut Caller, how_long: Duration, times: &mut Times) {
    tokio::time::sleep(SETTLE).await;
    let began = Instant::now();
    while began.elapsed() < how_long {
        for ((_, kind), times) in KINDS.iter().zip(times.iter_mut()) {
            let reply = caller.once(*kind).await.unwrap();
            assert!(reply.is_good(), "{kind:?}: {:?}", reply.error());
            times.push(reply.whole);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Measures the neighbour, and what the flood got meanwhile.
///
/// In each round three times: alone; while the flood is at another cell of this machine; and while the same flood is at
/// the neighbour's own. Whoever floods from the same machine takes the processor, the memory and the disk from everybody
/// there, whatever a cell does. The second phase is that, and the third is that and the cell they share.
pub(super) fn measure(bench: &mut Bench) {
    let (near, far) = (runtime(1, FIRST), runtime(2, LAST));
    let mut here = Some(far.block_on(Flood::new(&mut bench.cell)));
    let mut elsewhere = Some(far.block_on(Flood::new(&mut bench.elsewhere)));
    let mut caller = near.block_on(async {
        let (invitation, place) = (bench.cell.invitation(), &bench.cell.place);
        let device = family(&invitation, place, 1).await.remove(0);
        Caller::open(device, SOURCE, SMALL_BYTES).await
    });
    let got = [Arc::new(Got::default()), Arc::new(Got::default())];
    let mut flooded_for = [Duration::ZERO; 2];
    let mut watched: [Times; PHASES.len()] = Default::default();
    for round in 0..bench.form.rounds() {
        // What one flood leaves to be written is not always there for the other.
        for phase in [[0, 1, 2], [0, 2, 1]][round % 2] {
            let watched = &mut watched[phase];
            let which = usize::checked_sub(phase, 1);
            let flood =
                which.map(|which| (which, [&mut elsewhere, &mut here][which].take().unwrap()));
            let over = Arc::new(AtomicBool::new(false));
            let began = Instant::now();
            let flooding = flood.map(|(which, mut flood)| {
                let (until, counted) = (Arc::clone(&over), Arc::clone(&got[which]));
                far.spawn(async move {
                    flood.until(&until, &counted).await;
                    (which, flood)
                })
            });
            near.block_on(watch(&mut caller, bench.form.watched(), watched));
            over.store(true, Ordering::Relaxed);
            if let Some(flooding) = flooding {
                let (which, flood) = far.block_on(flooding).unwrap();
                *[&mut elsewhere, &mut here][which] = Some(flood);
                flooded_for[which] += began.elapsed();
            }
        }
    }
    for (which, got) in got.iter().enumerate() {
        let (phase, seconds) = (PHASES[which + 1], flooded_for[which].as_secs_f64());
        let name = format!("the flood {phase}");
        line(&name, got.requests() as f64 / seconds, "requests/s");
        line(&name, got.bytes() as f64 / seconds / 1e6, "MB/s");
    }
    for (place, (name, _)) in KINDS.iter().enumerate() {
        for (word, part) in [("p50", 0.5), ("p99", 0.99)] {
            // Of all rounds together: of one round's requests, the slowest hundredth is three or four.
            let each = watched
                .each_mut()
                .map(|times| milliseconds(percentile(&mut times[place], part)));
            for (phase, time) in PHASES.iter().zip(each) {
                line(&format!("neighbour, {name}, {word}, {phase}"), time, "ms");
            }
            line(
                &format!("neighbour, {name}, {word}, ratio"),
                each[2] / each[1],
                "times",
            );
        }
    }
}
