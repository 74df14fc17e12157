//! One day of a device, with a fault at every durable step of it in turn (row A53).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::device::{Device, Fail, Loss};
use super::faults::{Fault, Plan};
use super::{World, noise};
use crate::prune::PruneRules;

/// A change of the folder, and the command after it.
struct Scene {
    what: &'static str,
    edit: fn(&Device),
    command: fn(&mut Device) -> Result<(), Fail>,
}

const RULES: PruneRules = PruneRules {
    max_unused_percent: 0,
    round_bytes: 300_000,
};

/// A first backup, a second one with changes, forget, prune, bring back, and a third backup.
const DAY: [Scene; 6] = [
    Scene {
        what: "backs up for the first time",
        edit: |device| {
            device.write("a", &noise(1, 90_000));
            device.write("below/d", &noise(2, 40_000));
        },
        command: Device::back_up,
    },
    Scene {
        what: "backs up what changed",
        edit: |device| {
            device.write("a", &noise(3, 70_000));
            device.write("c", b"new");
        },
        command: Device::back_up,
    },
    Scene {
        what: "forgets the first one",
        edit: |_| {},
        command: |device| {
            device.open()?;
            match device.snapshots().as_slice() {
                [first, _, ..] => device.forget(&[*first]),
                _ => Ok(()),
            }
        },
    },
    Scene {
        what: "prunes",
        edit: |_| {},
        command: |device| device.prune(&RULES),
    },
    Scene {
        what: "brings it back",
        edit: |_| {},
        command: |device| device.bring_back(|found| found.first().copied()),
    },
    Scene {
        what: "backs up again",
        edit: |device| {
            device.remove("c");
            device.write("below/e", &noise(1, 90_000));
        },
        command: Device::back_up,
    },
];

/// Lives through the day. `after_stop` is called when a command got no answer or the device stopped in it, before it
/// is done again.
fn live(world: &mut World, loss: Loss, mut after_stop: impl FnMut(&mut World)) {
    world.copy_cell();
    for scene in &DAY {
        world.devices[0].copy();
        (scene.edit)(&world.devices[0]);
        loop {
            match world.run(0, scene.what, loss, scene.command) {
                Ok(()) | Err(Fail::Gone) => break,
                Err(Fail::NoAnswer | Fail::Again) => after_stop(world),
                Err(Fail::Stale) => world.accept_older(),
                Err(other) => panic!("{other:?}"),
            }
        }
        world.copy_cell();
    }
}

/// How many durable steps the day has.
fn steps() -> usize {
    let mut world = World::new(1);
    live(&mut world, Loss::Killed, |_| {});
    let steps = world.devices[0].link.steps();
    world.assert_whole();
    steps
}

/// Plays every case, on all cores; the first that fails prints its trace.
fn play_each<C: Copy + std::fmt::Debug + Sync>(cases: &[C], play: impl Fn(&mut World, C) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut world = World::new(1);
            let journal = std::sync::Arc::clone(&world.journal);
            let played = catch_unwind(AssertUnwindSafe(|| play(&mut world, *case)));
            if let Err(panic) = played {
                let trace = std::mem::take(&mut *journal.trace.lock().unwrap());
                eprintln!("{case:?}:\n{}", trace.join("\n"));
                std::panic::resume_unwind(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
}

const CRASHES: [Fault; 2] = [Fault::CrashBefore, Fault::CrashAfter];

fn fault_at(world: &World, step: usize, fault: Fault) {
    world.devices[0].link.set_plan(Plan::At { step, fault });
}

#[test]
fn a53_a_crash_at_every_durable_step_loses_nothing_acknowledged() {
    let steps = steps();
    assert!(steps > 25, "{steps}");
    let power = |index, states| Loss::Power { index, states };
    let losses = [
        Loss::Killed,
        power(true, true),
        power(true, false),
        power(false, true),
        Loss::Everything,
    ];
    let lost = [
        Fault::RequestLost,
        Fault::ReplyLost,
        Fault::Twice,
        Fault::CellStops(1),
        Fault::CellStops(2),
    ];
    let mut cases = Vec::new();
    for step in 0..steps {
        let crashes = CRASHES
            .iter()
            .flat_map(|crash| losses.map(|loss| (*crash, loss)));
        let answers = lost.iter().map(|fault| (*fault, Loss::Killed));
        cases.extend(
            crashes
                .chain(answers)
                .map(|(fault, loss)| (step, fault, loss)),
        );
    }
    play_each(&cases, |world, (step, fault, loss)| {
        fault_at(world, step, fault);
        live(world, loss, |_| {});
        assert!(world.devices[0].link.steps() > step);
        world.assert_whole();
    });
}

/// After each step the cell is put back to one of its earlier states.
#[test]
fn a53_stale_state_after_every_step_is_noticed_and_never_a_false_alarm() {
    let steps = steps();
    let mut cases = Vec::new();
    for step in 0..steps {
        cases.extend((0..3).map(|back| (step, back)));
    }
    let noticed = AtomicUsize::new(0);
    play_each(&cases, |world, (step, back)| {
        fault_at(world, step, Fault::CrashAfter);
        live(world, Loss::Killed, |world| {
            let which = (world.copies.len() - 1).saturating_sub(back);
            world.put_back(which);
            // The device alone moves heads here: what it remembers tells for certain.
            let is_older = world.devices[0].is_rolled_back();
            noticed.fetch_add(usize::from(is_older), Ordering::Relaxed);
            let swaps = world.devices[0].link.swaps();
            let shown = world.run(0, "looks at it", Loss::Killed, Device::open);
            let expected = if is_older { Err(Fail::Stale) } else { Ok(()) };
            assert_eq!(shown, expected);
            assert_eq!(world.devices[0].link.swaps(), swaps);
        });
        world.assert_whole();
    });
    assert!(noticed.into_inner() > steps);
}

/// The machine is put back to a copy of itself after each step, and draws the same random numbers again, at the same
/// time by its clock. What it seals then is the same, or under another key; every object of a journal is compared.
#[test]
fn a53_no_nonce_is_used_twice_whatever_is_copied_back() {
    let mut cases = Vec::new();
    for step in 0..steps() {
        for crash in CRASHES {
            cases.extend([false, true].map(|is_changed| (step, crash, is_changed)));
        }
    }
    play_each(&cases, |world, (step, crash, is_changed)| {
        world.devices[0].stop_clock();
        fault_at(world, step, crash);
        live(world, Loss::CopiedBack, |world| {
            if is_changed {
                world.devices[0].write("a", &noise(40, 90_000));
            }
        });
        world.assert_whole();
    });
}
