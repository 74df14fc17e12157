//! The independent verifier of the log: a Go program on Debian's packages, built by the suite itself.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sys::{self, Doing, Failure, Outcome};
use crate::tools;

/// What it is built with.
const PACKAGES: [&str; 2] = ["golang-go", "golang-golang-x-mod-dev"];

/// Where Debian installs Go's libraries.
const GO_PATH: &str = "/usr/share/gocode";

/// The built verifier.
pub(super) struct Verifier(PathBuf);

/// How a check ended.
pub(super) struct Verdict {
    pub(super) is_good: bool,
    pub(super) said: String,
}

fn go(words: &[&str]) -> Command {
    let cache = sys::target_dir().join("go");
    let mut command = Command::new("go");
    command
        .args(words)
        .current_dir(sys::root())
        .env("GO111MODULE", "off")
        .env("GOPATH", GO_PATH)
        .env("GOFLAGS", "")
        .env("GOCACHE", cache.join("cache"))
        .env("GOTMPDIR", &cache);
    command
}

impl Verifier {
    /// Installs what it needs, runs its own tests, and builds it.
    pub(super) fn build() -> Outcome<Self> {
        let has_library = Path::new(GO_PATH)
            .join("src/golang.org/x/mod/sumdb/tlog")
            .is_dir();
        if sys::find_program("go").is_none() || !has_library {
            tools::install_packages(&PACKAGES)?;
        }
        let cache = sys::target_dir().join("go");
        fs::create_dir_all(&cache)?;
        sys::run(&mut go(&["vet", "./e2e/tlogverify"]))?;
        sys::run(&mut go(&["test", "./e2e/tlogverify"]))?;
        let program = cache.join("tlogverify");
        let place = program.to_string_lossy().into_owned();
        sys::run(&mut go(&["build", "-o", &place, "./e2e/tlogverify"]))?;
        Ok(Self(program))
    }

    /// Runs one of its commands.
    pub(super) fn check<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> Outcome<Verdict> {
        let output = Command::new(&self.0)
            .args(words)
            .output()
            .doing("running the verifier")?;
        let said = [output.stdout, output.stderr].concat();
        match output.status.code() {
            Some(code @ (0 | 1)) => Ok(Verdict {
                is_good: code == 0,
                said: String::from_utf8_lossy(&said).trim().to_owned(),
            }),
            _ => Err(Failure::new(format!(
                "the verifier ended with {}: {}",
                output.status,
                String::from_utf8_lossy(&said)
            ))),
        }
    }

    /// A check that has to be good.
    pub(super) fn must_accept<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> Outcome<String> {
        let verdict = self.check(words)?;
        if verdict.is_good {
            return Ok(verdict.said);
        }
        Err(Failure::new(format!(
            "the independent verifier refuses: {}",
            verdict.said
        )))
    }

    /// A check that has to be refused, with these words.
    pub(super) fn must_refuse<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        because: &str,
    ) -> Outcome {
        let verdict = self.check(words)?;
        if !verdict.is_good && verdict.said.contains(because) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "the independent verifier should refuse ({because}), and says: {}",
            verdict.said
        )))
    }
}
