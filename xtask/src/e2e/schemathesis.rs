//! The kept OpenAPI document against a running cell, by somebody else's program: schemathesis, out of PyPI.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::log::prepare;
use super::world::World;
use crate::sys::{self, Outcome};
use crate::tools;

/// What Debian splits off from Python, and `venv` needs.
const PACKAGE: &str = "python3-venv";

/// Ours, below the project's root.
const SCRIPTS: &str = "e2e/schemathesis";

/// A cell and an account as people make them; then requests by the thousand, made up from the document, unsigned and
/// signed by that account's device.
pub(super) fn finds_nothing(world: &World) -> Outcome {
    let python = python()?;
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

/// Python in an environment of its own below the build, with the versions that `requirements.txt` names. The list is
/// kept beside it once everything is there, so that an environment that was half made, or for another list, is made anew.
fn python() -> Outcome<PathBuf> {
    let wanted = sys::root().join(SCRIPTS).join("requirements.txt");
    let place = sys::target_dir().join("schemathesis");
    let (environment, installed) = (place.join("environment"), place.join("requirements.txt"));
    let python = environment.join("bin/python");
    let list = fs::read(&wanted)?;
    let works = || {
        let mut version = Command::new(&python);
        sys::output(version.args(["-c", "import schemathesis"])).is_ok()
    };
    if fs::read(&installed).is_ok_and(|there| there == list) && works() {
        println!("schemathesis is here");
        return Ok(python);
    }
    println!("schemathesis is missing; installing it");
    if sys::output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_err() {
        tools::install_packages(&[PACKAGE])?;
    }
    fs::create_dir_all(&place)?;
    sys::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
    )?;
    let words = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--requirement",
    ];
    sys::run(Command::new(&python).args(words).arg(&wanted))?;
    fs::write(&installed, list)?;
    Ok(python)
}
