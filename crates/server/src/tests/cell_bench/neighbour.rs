//! One quiet account, alone and beside a flood, in turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::floods::{Flood, Got};
use super::load::{Caller, Kind};
use super::people::family;
use super::{Bench, SMALL_BYTES, line, milliseconds, percentile, runtime};

/// Where the neighbour comes from.
const SOURCE: u8 = 30;

/// The pause between two of its requests: it is quiet.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the cell comes to rest, or the flood to its height, before the neighbour is watched.
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
const PHASES: [&str; 2] = ["alone", "beside a flood"];

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

/// On a thread that comes first.
fn first<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            // Without the right to it, the thread is like the others.
            let _ = rustix::process::nice(FIRST);
            work()
        });
        working.join().unwrap()
    })
}

/// A flood that goes on while something else is done; returns how long it took.
fn beside(flood: &mut Flood, far: &Runtime, got: &Arc<Got>, work: impl FnOnce()) -> Duration {
    let over = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let began = Instant::now();
        let flooding = scope.spawn(|| far.block_on(flood.until(&over, got)));
        work();
        let took = began.elapsed();
        over.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
        took
    })
}

/// Measures the neighbour, and what the flood got meanwhile.
///
/// In each round twice: alone, and beside a flood of its own cell. At first the flood has the cell to itself, so that it can be
/// seen that it is one.
pub(super) fn measure(bench: &mut Bench) {
    let (near, far) = (runtime(1, FIRST), runtime(2, LAST));
    let mut flood = far.block_on(Flood::new(&mut bench.cell));
    let how_long = bench.form.watched();
    let alone = Arc::new(Got::default());
    let flooded_alone_for = beside(&mut flood, &far, &alone, || std::thread::sleep(how_long));
    std::thread::sleep(bench.form.rest());
    let mut caller = near.block_on(async {
        let (invitation, place) = (bench.cell.invitation(), &bench.cell.place);
        let device = family(&invitation, place, 1).await.remove(0);
        Caller::open(device, SOURCE, SMALL_BYTES).await
    });
    let mut watched: [Times; PHASES.len()] = Default::default();
    let beside_it = Arc::new(Got::default());
    let mut flooded_for = Duration::ZERO;
    for round in 0..bench.form.rounds() {
        // Which of the two comes first may matter to the machine.
        for phase in [[0, 1], [1, 0]][round % 2] {
            let times = &mut watched[phase];
            let mut watching = || first(|| near.block_on(watch(&mut caller, how_long, times)));
            if phase == 0 {
                watching();
            } else {
                flooded_for += beside(&mut flood, &far, &beside_it, watching);
                std::thread::sleep(bench.form.rest());
            }
        }
    }
    for (name, got, seconds) in [
        ("the flood, alone", alone, flooded_alone_for),
        ("the flood, beside the neighbour", beside_it, flooded_for),
    ] {
        let seconds = seconds.as_secs_f64();
        line(name, got.requests() as f64 / seconds, "requests/s");
        line(name, got.bytes() as f64 / seconds / 1e6, "MB/s");
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
            let ratio = each[1] / each[0];
            line(&format!("neighbour, {name}, {word}, ratio"), ratio, "times");
        }
    }
}
