//! Python in an environment of its own below the build, for programs of other people and for ours in Python.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::sys::{self, Outcome};
use crate::tools;

/// What Debian splits off from Python, and `venv` needs.
const PACKAGE: &str = "python3-venv";

/// Python with the versions that `requirements.txt` in `folder`, below the project's root, names. The list is kept
/// beside it once everything is there, so that an environment that was half made, or for another list, is made anew.
/// `import` is what works once it is whole.
pub(super) fn environment(folder: &str, import: &str) -> Outcome<PathBuf> {
    let wanted = sys::root().join(folder).join("requirements.txt");
    let name = folder.rsplit('/').next().unwrap_or(folder);
    let place = sys::target_dir().join(name);
    let (environment, installed) = (place.join("environment"), place.join("requirements.txt"));
    let python = environment.join("bin/python");
    let list = fs::read(&wanted)?;
    let works = || {
        let mut version = Command::new(&python);
        sys::output(version.args(["-c", &format!("import {import}")])).is_ok()
    };
    if fs::read(&installed).is_ok_and(|there| there == list) && works() {
        println!("what {folder} needs is here");
        return Ok(python);
    }
    println!("what {folder} needs is missing; installing it");
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
