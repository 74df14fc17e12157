//! What a cell does for many devices at once, what one account can take from another, and what strangers can make it
//! hold: `cargo xtask bench cell` starts a cell, runs this beside it and prints its lines. The cell is a process of its
//! own, met over TLS; nothing of it is linked here but the forms of its messages.

mod floods;
mod line;
mod load;
mod memory;
mod neighbour;
mod people;

use std::sync::Arc;
use std::time::Duration;

use candor_wire::cell::Invitation;
use tokio::runtime::Runtime;

use people::Place;

/// An object of the smallest size, as most of a busy day's are, in bytes.
const SMALL_BYTES: usize = 64 * 1024;

/// An object of the largest size, as those of a first backup are, in bytes.
const LARGE_BYTES: usize = 16 * 1024 * 1024;

/// How many invitations to accounts with a small quota come first: one for each flood.
const SMALL_INVITATIONS: usize = 2;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// For the suite: everything runs, and what can be told from a busy machine is judged.
    Short,
    /// For the table.
    Long,
}

impl Form {
    fn is_long(self) -> bool {
        self == Self::Long
    }

    /// How long each kind of request is made.
    fn load(self) -> Duration {
        Duration::from_secs(if self.is_long() { 10 } else { 2 })
    }

    /// Rounds of the neighbour, each with all of its phases.
    fn rounds(self) -> usize {
        if self.is_long() { 10 } else { 1 }
    }

    /// How long the neighbour is watched each time. In all rounds together it makes more than five thousand requests of each
    /// kind in each phase: of the slowest hundredth of fewer, one run says one thing and the next another.
    fn watched(self) -> Duration {
        Duration::from_secs(if self.is_long() { 20 } else { 3 })
    }

    /// How long it takes until the cell has noticed that all ask for as much as they get.
    fn noticed(self) -> Duration {
        Duration::from_secs(if self.is_long() { 5 } else { 0 })
    }

    /// How long it takes until nobody counts as there who was, a minute.
    fn forgotten(self) -> Duration {
        Duration::from_secs(if self.is_long() { 60 } else { 0 })
    }

    /// How long the cell rests after a flood: what its connections asked for is still there when they have hung up, and is
    /// served a step at a time.
    fn rest(self) -> Duration {
        Duration::from_secs(if self.is_long() { 5 } else { 1 })
    }

    /// Rounds of hostile requests; the later half is compared with the earlier one.
    fn hostile_rounds(self) -> usize {
        if self.is_long() { 12 } else { 4 }
    }
}

/// One cell, and rights to open accounts there.
struct Rights {
    place: Arc<Place>,
    /// To accounts that may store very little.
    small: Vec<Invitation>,
    invitations: Vec<Invitation>,
}

impl Rights {
    fn of(file: &str) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let mut invitations: Vec<Invitation> = text
            .lines()
            .map(|line| Invitation::from_text(line).unwrap())
            .collect();
        let small: Vec<Invitation> = invitations.drain(..SMALL_INVITATIONS).collect();
        Self {
            place: runtime(1, 0).block_on(Place::of(&small[0])),
            small,
            invitations,
        }
    }

    fn invitation(&mut self) -> Invitation {
        self.invitations.pop().unwrap()
    }
}

/// The cell that is measured.
struct Bench {
    cell: Rights,
    process: u32,
    form: Form,
    /// The one part that is measured, or `all`.
    part: String,
}

/// Prints one measurement, for the table.
fn line(name: &str, value: f64, unit: &str) {
    println!("measured\t{name}\t{value:.3}\t{unit}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The time that this part of them does not exceed.
fn percentile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let place = (times.len() as f64 * part).ceil() as usize;
    times[place.clamp(1, times.len()) - 1]
}

/// Threads of their own for some of the callers. Whoever attacks gets only the time that nobody else wants: on one
/// machine it would otherwise take the processor, and not the cell, from the others.
fn runtime(threads: usize, niceness: i32) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .on_thread_start(move || {
            // Without the right to it the threads are like the others.
            let _ = rustix::process::nice(niceness);
        })
        .enable_all()
        .build()
        .unwrap()
}

fn bench() -> Option<Bench> {
    #[expect(
        clippy::disallowed_methods,
        reason = "xtask says which cell is measured, and how long"
    )]
    let said = |name: &str| std::env::var(name).ok();
    let form = match said("CANDOR_CELL_FORM").as_deref() {
        Some("long") => Form::Long,
        _ => Form::Short,
    };
    Some(Bench {
        cell: Rights::of(&said("CANDOR_CELL_INVITATIONS")?),
        process: said("CANDOR_CELL_PROCESS")?.parse().unwrap(),
        form,
        part: said("CANDOR_CELL_PART")?,
    })
}

#[test]
#[ignore = "the measurements of `cargo xtask bench cell`"]
fn measures_the_cell() {
    let Some(mut bench) = bench() else { return };
    let part = bench.part.clone();
    let is_wanted = |name| part == name || part == "all";
    // First, while nobody has been there beside whom the flood would be served step by step.
    if is_wanted("neighbour") {
        neighbour::measure(&mut bench);
    }
    if is_wanted("load") {
        load::measure(&mut bench);
    }
    if is_wanted("memory") {
        memory::measure(&mut bench);
    }
}
