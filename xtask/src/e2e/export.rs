//! An export is everything, and is read by programs that are not ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::compare::{With, same_tree};
use super::world::World;
use super::{awkward, python, reader, round_trip};
use crate::sys::{self, Failure, Outcome};

/// A real tree and every awkward kind of file come back as plain files, and the rest is as the documents say.
pub(super) fn is_read_without_candor(world: &World) -> Outcome {
    let python = python::environment(reader::FOLDER, reader::PACKAGES)?;
    let real = round_trip::real_source(world)?;
    let awkward = world.path("awkward");
    awkward::build(&awkward)?;
    let (candor, phrase) = (world.candor("home"), world.path("phrase.txt"));
    candor.up_once(&[&real, &awkward], &phrase)?;

    let to = world.path("export");
    sys::run(candor.command(["export", "--to"]).arg(&to))?;
    let place = |source: &Path| -> Outcome<PathBuf> {
        let name = source.file_name().unwrap_or_default();
        let mut snapshots = fs::read_dir(to.join("backups").join(name))?;
        match (snapshots.next(), snapshots.next()) {
            (Some(only), None) => Ok(only?.path().join(name)),
            _ => Err(Failure::new("there is not one snapshot of each set")),
        }
    };
    same_tree(&real, &place(&real)?, With::DiffAndRsync)?;
    same_tree(&awkward, &place(&awkward)?, With::Rsync)?;
    awkward::same_contents(&awkward, &place(&awkward)?)?;
    awkward::same_holes(&awkward, &place(&awkward)?)?;

    let check = || {
        let mut check = Command::new(&python);
        check
            .current_dir(sys::root().join(reader::FOLDER))
            .arg("check_export.py")
            .arg(&to)
            .arg("--phrase-file")
            .arg(&phrase)
            .stdin(Stdio::null())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        check
    };
    sys::run(&mut check())?;

    // It would not notice a fault of ours if it took whatever it is given.
    let record = to.join("chain/000002.cbor");
    let mut bytes = fs::read(&record)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&record, bytes)?;
    let altered = check().output()?;
    let said = String::from_utf8_lossy(&altered.stderr);
    if altered.status.code() == Some(1) && said.starts_with("refused: Refused(") {
        return Ok(());
    }
    Err(Failure::new(format!(
        "a statement was altered, and the check ended with {}: {said}",
        altered.status
    )))
}
