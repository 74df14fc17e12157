//! The kept OpenAPI document against a running cell, by somebody else's program: schemathesis, out of PyPI.

use std::fs;
use std::process::{Command, Stdio};

use super::log::prepare;
use super::python;
use super::world::World;
use crate::sys::{self, Outcome};

/// Ours, below the project's root.
const SCRIPTS: &str = "e2e/schemathesis";

/// A cell and an account as people make them; then requests by the thousand, made up from the document, unsigned and
/// signed by that account's device.
pub(super) fn finds_nothing(world: &World) -> Outcome {
    let python = python::environment(SCRIPTS, "schemathesis")?;
    let (running, invitation) = world.candor("cell").new_cell(&world.path("cell.log"))?;
    let device = world.candor("device");
    prepare(world, &device, &invitation)?;
    device.run(["backup", "run", "--all"])?;
    // Some of what the cell has is condemned.
    fs::write(world.path("source/letter"), "hello again")?;
    device.run(["backup", "run", "--all"])?;
    device.run(["backup", "forget", "--keep-last", "1"])?;
    device.run(["backup", "prune", "--max-unused", "0"])?;
    let work = world.path("schemathesis");
    fs::create_dir_all(&work)?;
    sys::run(
        Command::new(&python)
            .arg(sys::root().join(SCRIPTS).join("check.py"))
            .arg(sys::root().join("docs/openapi.json"))
            .arg(&invitation)
            .arg(device.home().join("keys"))
            .arg(world.path("phrase.txt"))
            .arg(&work)
            // Nothing is left behind in the project's tree.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null()),
    )?;
    running.stop()
}
