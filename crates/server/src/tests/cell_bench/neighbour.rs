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

/// The pause between two of its requests: it asks for less than an account may have in a second.
const PAUSE: Duration = Duration::from_millis(10);

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
const PHASES: [&str; 3] = ["alone", "beside a flood", "beside a busy account"];

/// What floods in each phase but the first.
const FLOODS: [&str; 2] = ["the flood", "the busy account"];

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
    let mut floods = far.block_on(async {
        [
            Flood::new(&mut bench.cell).await,
            Flood::within_limits(&mut bench.cell).await,
        ]
    });
    let how_long = bench.form.watched();
    // Whoever opened an account counts as there for a while.
    std::thread::sleep(bench.form.forgotten());
    for (flood, name) in floods.iter_mut().zip(FLOODS) {
        let got = Arc::new(Got::default());
        let took = beside(flood, &far, &got, || std::thread::sleep(how_long));
        got.print(&format!("{name}, alone"), took);
        std::thread::sleep(bench.form.rest());
    }
    let mut caller = near.block_on(async {
        let (invitation, place) = (bench.cell.invitation(), &bench.cell.place);
        let device = family(&invitation, place, 1).await.remove(0);
        Caller::open(device, SOURCE, SMALL_BYTES).await
    });
    let mut watched: [Times; PHASES.len()] = Default::default();
    let mut beside_it = FLOODS.map(|_| (Arc::new(Got::default()), Duration::ZERO));
    for round in 0..bench.form.rounds() {
        // Which of them comes first may matter to the machine.
        for phase in (0..PHASES.len()).map(|n| (n + round) % PHASES.len()) {
            let times = &mut watched[phase];
            let mut watching = || first(|| near.block_on(watch(&mut caller, how_long, times)));
            if phase == 0 {
                watching();
            } else {
                let (got, took) = &mut beside_it[phase - 1];
                *took += beside(&mut floods[phase - 1], &far, got, watching);
                std::thread::sleep(bench.form.rest());
            }
        }
    }
    for ((got, took), name) in beside_it.iter().zip(FLOODS) {
        got.print(&format!("{name}, beside the neighbour"), *took);
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
            for (phase, time) in PHASES.iter().zip(each).skip(1) {
                let ratio = time / each[0];
                line(
                    &format!("neighbour, {name}, {word} ratio, {phase}"),
                    ratio,
                    "times",
                );
            }
        }
    }
}
