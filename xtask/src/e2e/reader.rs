//! The second reader, written from the documents alone: it gets everything back from a cell's directory and the
//! recovery phrase, without any program of ours.

use std::path::Path;
use std::process::{Command, Stdio};

use super::compare::{With, same_tree};
use super::world::World;
use super::{awkward, mount, python, round_trip};
use crate::sys::{self, Failure, Outcome};

/// Where it is, below the project's root.
pub(super) const FOLDER: &str = "e2e/reader";

/// What it needs.
pub(super) const PACKAGES: &str = "blake3, cryptography, zstandard";

/// Its own tests, then a real tree and every awkward kind of file.
pub(super) fn restores_with_the_phrase_alone(world: &World) -> Outcome {
    let python = python::environment(FOLDER, PACKAGES)?;
    let reader = |words: &[&str]| {
        let mut command = Command::new(&python);
        command
            .current_dir(sys::root().join(FOLDER))
            .args(["-m"])
            .args(words)
            .stdin(Stdio::null())
            // Nothing is left behind in the project's tree.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    sys::run(&mut reader(&["unittest", "--quiet"]))?;

    let real = round_trip::real_source(world)?;
    let awkward = world.path("awkward");
    awkward::build(&awkward)?;
    let (candor, phrase) = (world.candor("home"), world.path("phrase.txt"));
    candor.up_once(&[&real, &awkward], &phrase)?;

    let restore = |to: &Path| {
        let mut restore = reader(&["candor_reader", "--special", "--cell"]);
        restore.arg(candor.home().join("cell"));
        restore
            .arg("--phrase-file")
            .arg(&phrase)
            .arg("--to")
            .arg(to);
        restore
    };
    let restored = world.path("restored");
    sys::run(&mut restore(&restored))?;
    let place = |source: &Path| {
        let name = source.file_name().unwrap_or_default();
        restored.join(name).join(name)
    };
    same_tree(&real, &place(&real), With::DiffAndRsync)?;
    same_tree(&awkward, &place(&awkward), With::Rsync)?;
    awkward::same_contents(&awkward, &place(&awkward))?;
    awkward::same_holes(&awkward, &place(&awkward))?;

    // It would not notice a fault of ours if it took whatever it is given.
    mount::damage_contents(&candor)?;
    let damaged = restore(&world.path("damaged")).status()?;
    if damaged.code() == Some(1) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "contents were changed at the cell, and the reader ended with {damaged}"
    )))
}
