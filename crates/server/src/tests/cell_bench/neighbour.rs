//! One quiet account, alone and beside a flood, in turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::floods::{Flood, Got};
use super::load::{Caller, Kind};
use super::people::family;
use super::{Bench, SMALL_BYTES, line, median, milliseconds, percentile, runtime};

/// Where the neighbour comes from.
const SOURCE: u8 = 30;

/// The pause between two of its requests: it is quiet.
const PAUSE: Duration = Duration::from_millis(5);

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

/// The times of one phase, for each kind.
type Times = [Vec<Duration>; KINDS.len()];

async fn watch(caller: &mut Caller, how_long: Duration) -> Times {
    let mut times = Times::default();
    tokio::time::sleep(SETTLE).await;
    let began = Instant::now();
    while began.elapsed() < how_long {
        for ((_, kind), times) in KINDS.iter().zip(&mut times) {
            let reply = caller.once(*kind).await.unwrap();
            assert!(reply.is_good(), "{kind:?}: {:?}", reply.error());
            times.push(reply.whole);
            tokio::time::sleep(PAUSE).await;
        }
    }
    times
}

/// Measures the neighbour, and what the flood got meanwhile.
pub(super) fn measure(bench: &mut Bench) {
    let (near, far) = (runtime(1, FIRST), runtime(2, LAST));
    let mut flood = far.block_on(Flood::new(bench));
    let mut caller = near.block_on(async {
        let device = family(&bench.invitation(), &bench.place, 1).await.remove(0);
        Caller::open(device, SOURCE, SMALL_BYTES).await
    });
    let got = Arc::new(Got::default());
    let mut flooded_for = Duration::ZERO;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..bench.form.rounds() {
        alone.push(near.block_on(watch(&mut caller, bench.form.watched())));
        let over = Arc::new(AtomicBool::new(false));
        let (until, counted) = (Arc::clone(&over), Arc::clone(&got));
        let began = Instant::now();
        let flooding = far.spawn(async move {
            flood.until(&until, &counted).await;
            flood
        });
        beside.push(near.block_on(watch(&mut caller, bench.form.watched())));
        over.store(true, Ordering::Relaxed);
        flood = far.block_on(flooding).unwrap();
        flooded_for += began.elapsed();
    }
    let seconds = flooded_for.as_secs_f64();
    line("the flood", got.requests() as f64 / seconds, "requests/s");
    line("the flood", got.bytes() as f64 / seconds / 1e6, "MB/s");
    for (place, (name, _)) in KINDS.iter().enumerate() {
        let of = |rounds: &mut Vec<Times>, part| {
            let each = rounds.iter_mut();
            let mut each: Vec<f64> = each
                .map(|times| milliseconds(percentile(&mut times[place], part)))
                .collect();
            median(&mut each)
        };
        for (word, part) in [("p50", 0.5), ("p99", 0.99)] {
            let (quiet, loud) = (of(&mut alone, part), of(&mut beside, part));
            line(&format!("neighbour, {name}, {word}, alone"), quiet, "ms");
            line(&format!("neighbour, {name}, {word}, flooded"), loud, "ms");
            line(
                &format!("neighbour, {name}, {word}, ratio"),
                loud / quiet,
                "times",
            );
        }
    }
}
