//! There and back: a tree is backed up in one home, and restored in another that has only the recovery phrase
//! and the invitation.

use std::fs;
use std::path::{Path, PathBuf};

use super::awkward;
use super::compare::{With, same_tree};
use super::world::World;
use crate::bench::corpus;
use crate::sys::{self, Doing, Failure, Outcome};

/// Most files of the smaller real tree: enough for many packs' worth of small files, quick enough for every run.
const SMALL_TREE_FILES: usize = 4000;

/// Least files of a tree that may be called real.
const REAL_TREE_FILES: usize = 300;

/// A tree that people made, not this program: sources, documents or the whole of linux.
pub(super) fn real_tree(world: &World) -> Outcome {
    round_trip(world, &real_source(world)?, With::DiffAndRsync)
}

/// The tree that was asked for: that of the command line, linux, or a smaller one.
pub(super) fn real_source(world: &World) -> Outcome<PathBuf> {
    match &world.tree {
        Some(tree) => Ok(tree.clone()),
        None if world.full => corpus::linux_source(&corpus::default_directory()?),
        None => small_real_tree(&world.path("sources")),
    }
}

/// Every awkward kind of file.
pub(super) fn awkward_tree(world: &World) -> Outcome {
    let source = world.path("awkward");
    let kinds = awkward::build(&source)?;
    println!("{kinds} kinds of awkward files");
    let restored = restored_of(world, &source);
    round_trip(world, &source, With::Rsync)?;
    awkward::same_contents(&source, &restored)?;
    awkward::same_holes(&source, &restored)
}

fn restored_of(world: &World, source: &Path) -> PathBuf {
    let name = source.file_name().unwrap_or_default();
    world.path("restored").join(name)
}

fn round_trip(world: &World, source: &Path, with: With) -> Outcome {
    let phrase = world.path("phrase.txt");
    let first = world.candor("first");
    first.up_once(&[source], &phrase)?;

    let invitation = fs::read_to_string(first.home().join("invitation"))
        .doing("the invitation")?
        .trim()
        .to_owned();
    let cell = first.start_cell(&world.path("cell.log"))?;

    let second = world.candor("second");
    let mut recover = second.command([
        "account",
        "recover",
        "--cell",
        &invitation,
        "--unprotected-keys",
    ]);
    sys::run(recover.arg("--recovery-file").arg(&phrase))?;
    let mut restore = second.command(["backup", "restore", "latest", "--to"]);
    sys::run(restore.arg(world.path("restored")))?;
    same_tree(source, &restored_of(world, source), with)?;
    cell.stop()
}

/// Copies a smaller real tree: the sources of crates that this workspace was built from, else the system's documents.
fn small_real_tree(to: &Path) -> Outcome<PathBuf> {
    fs::create_dir_all(to)?;
    let mut left = SMALL_TREE_FILES;
    for parent in candidates() {
        let Ok(entries) = fs::read_dir(&parent) else {
            continue;
        };
        let mut names: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        names.sort();
        for path in names.iter().filter(|path| path.is_dir()) {
            let count = count_files(path);
            if count == 0 || count > left {
                continue;
            }
            sys::output(std::process::Command::new("cp").arg("-a").arg(path).arg(to))
                .doing(path.display())?;
            left -= count;
        }
    }
    let count = SMALL_TREE_FILES - left;
    if count < REAL_TREE_FILES {
        return Err(Failure::new(format!(
            "only {count} files found for a real tree; name one with --tree"
        )));
    }
    println!("{count} files");
    Ok(to.to_owned())
}

fn candidates() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut parents = Vec::new();
    if let Some(home) = home
        && let Ok(registries) = fs::read_dir(home.join("registry/src"))
    {
        parents.extend(registries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    parents.push(PathBuf::from("/usr/share/doc"));
    parents
}

fn count_files(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let count = entries
        .filter_map(Result::ok)
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path()),
            Ok(_) => 1,
            Err(_) => 0,
        });
    count.sum()
}
