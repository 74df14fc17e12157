//! The local pages in a real browser, on the real program: `e2e/pages` says what is looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::world::World;
use crate::sys::{self, Doing, Outcome};
use crate::tools;

/// Where the tests are, below the project's root.
const FOLDER: &str = "e2e/pages";

/// Names the versions of what they use.
const LOCK: &str = "package-lock.json";

/// What the program says that it has; all of it is attacked.
const ROUTES: &str = "crates/app/src/pages/routes.txt";

/// Set to 1, the kept snapshots in `e2e/pages/aria` are written anew instead of compared.
const REWRITE: &str = "CANDOR_PAGES_REWRITE";

/// Pictures of the README: which screenshot, and its name below `docs/pictures`. They are taken anew with the kept
/// snapshots, which fail where a page no longer says what it said.
const PICTURES: [(&str, &str); 3] = [
    ("home-light.png", "home.png"),
    ("home-360.png", "home-360.png"),
    ("before-yes.png", "consent.png"),
];

/// Every page and every action, attacks included.
pub(super) fn in_a_browser(world: &World) -> Outcome {
    let pictures = screenshots();
    let program = world
        .candor("home")
        .command(["up"])
        .get_program()
        .to_owned();
    let scripts = Scripts::prepare(Path::new(&program), world.path("w"))?;
    // What must find something finds it: a check that is always content would show nothing.
    sys::run(scripts.node("self-test.mjs").env_remove(REWRITE))?;
    sys::run(&mut scripts.node("run.mjs"))?;
    println!("screenshots are in {}", pictures.display());
    if std::env::var_os(REWRITE).is_some() {
        for (screenshot, name) in PICTURES {
            let to = sys::root().join("docs/pictures").join(name);
            fs::copy(pictures.join(screenshot), &to).doing(to.display())?;
        }
    }
    Ok(())
}

fn screenshots() -> PathBuf {
    sys::target_dir().join("pages-screenshots")
}

/// The scripts of `e2e/pages`, ready to be run with a program.
pub(crate) struct Scripts {
    place: PathBuf,
    program: PathBuf,
    work: PathBuf,
}

impl Scripts {
    /// `work` is where homes are put; its path has to be short, for the sockets in them.
    pub(crate) fn prepare(program: &Path, work: PathBuf) -> Outcome<Self> {
        tools::install_programs(&tools::PAGES_PROGRAMS)?;
        Ok(Self {
            place: tests()?,
            program: program.to_owned(),
            work,
        })
    }

    /// Runs one of them.
    pub(crate) fn node(&self, script: &str) -> Command {
        let mut node = Command::new("node");
        node.current_dir(&self.place)
            .arg(script)
            .stdin(Stdio::null())
            .env("CANDOR_PAGES_PROGRAM", &self.program)
            .env("CANDOR_PAGES_WORK", &self.work)
            .env("CANDOR_PAGES_SCREENSHOTS", screenshots())
            .env("CANDOR_PAGES_ARIA", sys::root().join(FOLDER).join("aria"))
            .env("CANDOR_PAGES_ROUTES", sys::root().join(ROUTES));
        node
    }
}

/// A copy of the tests below the build, with what they use. That is installed anew only for another list of versions.
fn tests() -> Outcome<PathBuf> {
    let (from, place) = (sys::root().join(FOLDER), sys::target_dir().join("pages"));
    fs::create_dir_all(&place)?;
    let wanted = fs::read(from.join(LOCK))?;
    let installed = place.join("installed.json");
    copy_files(&from, &place)?;
    let works = place.join("node_modules").is_dir();
    if works && fs::read(&installed).is_ok_and(|there| there == wanted) {
        println!("what {FOLDER} needs is here");
        return Ok(place);
    }
    println!("what {FOLDER} needs is missing; installing it");
    let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    sys::run(
        Command::new("npm")
            .args(words)
            .current_dir(&place)
            .stdin(Stdio::null()),
    )?;
    fs::write(&installed, wanted)?;
    Ok(place)
}

/// Copies the files of a folder, without the folders in it; scripts that are there no more go.
fn copy_files(from: &Path, to: &Path) -> Outcome {
    for entry in fs::read_dir(to)? {
        let path = entry?.path();
        if sys::has_extension(&path, "mjs") {
            fs::remove_file(&path)?;
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).doing(entry.path().display())?;
        }
    }
    Ok(())
}
