//! A cell on a disk that fills up, for real.

use std::fs;
use std::process::Command;

use super::compare::{With, same_tree};
use super::namespace::SmallDisk;
use super::world::World;
use crate::sys::{self, Failure, Outcome};

/// The cell's disk, in MiB: a new cell fits with room, and the large file does not.
const SMALL_MIB: usize = 32;

/// The same after its operator gave it room.
const LARGE_MIB: usize = 512;

/// What is backed up and does not fit, in MiB.
const FILE_MIB: usize = 96;

/// Exit code of a command that failed without anybody's fault.
const FAILED: i32 = 1;

/// A backup that does not fit is refused in words, what was backed up before can be read back from the full disk, and
/// once there is room the same command goes through, at the same cell.
pub(super) fn goes_on(world: &World) -> Outcome {
    let disk = SmallDisk::new(&world.path("cell"), SMALL_MIB)?;
    let cell = world.candor("cell").inside(disk.namespace());
    let (running, invitation) = cell.new_cell(&world.path("cell.log"))?;
    let device = world.candor("device");
    super::log::prepare(world, &device, &invitation)?;
    device.run(["backup", "run", "--all"])?;
    let (source, copy) = (world.path("source"), world.path("copy"));
    sys::run(Command::new("cp").arg("-a").arg(&source).arg(&copy))?;

    fs::write(source.join("large"), super::kills::noise(1, FILE_MIB << 20))?;
    let is_refused = || {
        let refused = device.try_run(["backup", "run", "--all"])?;
        refused.must_exit(FAILED)?;
        println!("{}", refused.stderr.trim());
        let is_told = refused.stderr.contains("no room left");
        is_told
            .then_some(())
            .ok_or_else(|| Failure::new("nobody is told that the cell has no room"))
    };
    is_refused()?;
    let restore = |to: &str| {
        let place = world.path(to);
        let words = [
            "backup",
            "restore",
            "latest",
            "--to",
            &place.to_string_lossy(),
        ];
        device.run(words).map(|_| place.join("source"))
    };
    same_tree(&copy, &restore("while-full")?, With::DiffAndRsync)?;

    // Not even the database has room for another page.
    disk.fill("rest")?;
    is_refused()?;
    disk.resize(LARGE_MIB)?;
    device.run(["backup", "run", "--all"])?;
    same_tree(&source, &restore("with-room")?, With::DiffAndRsync)?;
    device.run(["log", "monitor"])?;
    running.stop()
}
