//! Who is measured, behind one small interface; here Candor itself, in `peers` the others.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Phase;
use crate::e2e::{UP_ONCE, terminate};
use crate::sys::{self, Doing, Failure, Outcome};

/// How long a server may take until it listens, and to stop.
const SERVER_WAIT_MAX: Duration = Duration::from_secs(60);

/// Where a cell's home is, below the directory of what is measured.
const CELL_HOME: &str = "server";

/// One program in one setting.
pub(crate) trait Contender {
    /// Its name in the tables.
    fn name(&self) -> String;
    /// What it says its version is.
    fn version(&self) -> Outcome<String>;
    /// Whether a server is part of it.
    fn is_over_network(&self) -> bool;
    /// Whether it is Candor.
    fn is_ours(&self) -> bool {
        false
    }
    /// Makes a new repository in a directory of its own, and starts the server where there is one. Not measured.
    fn start(&mut self, directory: &Path, source: &Path) -> Outcome;
    /// The command of a phase.
    fn command(&self, phase: Phase, source: &Path, target: &Path) -> Outcome<Command>;
    /// Whether the restore writes into the directory in which it is started.
    fn restores_here(&self) -> bool {
        false
    }
    /// Where the source is after a restore to `target`.
    fn restored(&self, source: &Path, target: &Path) -> PathBuf;
    /// Where the repository is, whose size counts.
    fn store(&self) -> PathBuf;
    /// The server's process, whose processor time counts too.
    fn server(&self) -> Option<u32> {
        None
    }
    /// Stops the server.
    fn stop(&mut self) -> Outcome {
        Ok(())
    }
}

/// A path where an absolute path ends up below another directory.
pub(crate) fn below(target: &Path, source: &Path) -> PathBuf {
    target.join(source.strip_prefix("/").unwrap_or(source))
}

pub(crate) fn candor(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg("--home")
        .arg(home)
        .env_remove("CANDOR_HOME")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

pub(crate) fn candor_version(program: &Path) -> Outcome<String> {
    Ok(sys::text(Command::new(program).arg("--version"))?
        .trim()
        .to_owned())
}

fn candor_phase(program: &Path, home: &Path, phase: Phase, target: &Path) -> Command {
    let mut command = candor(program, home);
    match phase {
        Phase::First | Phase::Unchanged | Phase::Mutated => {
            command.args(["backup", "run", "--all"])
        }
        Phase::Restore => command
            .args(["backup", "restore", "latest", "--to"])
            .arg(target),
        Phase::Check => command.args(["backup", "check", "--read-data"]),
    };
    command
}

fn below_by_name(source: &Path, target: &Path) -> PathBuf {
    target.join(source.file_name().unwrap_or_default())
}

/// Candor with device and cell in one process.
pub(crate) struct Embedded {
    program: PathBuf,
    directory: PathBuf,
}

impl Embedded {
    pub(crate) fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            directory: PathBuf::new(),
        }
    }

    fn home(&self) -> PathBuf {
        self.directory.join("home")
    }
}

impl Contender for Embedded {
    fn name(&self) -> String {
        "candor".to_owned()
    }

    fn version(&self) -> Outcome<String> {
        candor_version(&self.program)
    }

    fn is_over_network(&self) -> bool {
        false
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn start(&mut self, directory: &Path, _source: &Path) -> Outcome {
        directory.clone_into(&mut self.directory);
        Ok(())
    }

    /// The first backup is the very first command of a new home: keys, account, consent and cell are counted in.
    fn command(&self, phase: Phase, source: &Path, target: &Path) -> Outcome<Command> {
        if phase != Phase::First {
            return Ok(candor_phase(&self.program, &self.home(), phase, target));
        }
        let mut command = candor(&self.program, &self.home());
        command.arg("up").arg(source).args(UP_ONCE);
        command.arg(self.directory.join("phrase.txt"));
        Ok(command)
    }

    fn restored(&self, source: &Path, target: &Path) -> PathBuf {
        below_by_name(source, target)
    }

    fn store(&self) -> PathBuf {
        self.home().join("cell")
    }
}

/// Makes a cell in a home, at a port of this machine.
pub(crate) fn init_cell(program: &Path, home: &Path) -> Outcome {
    sys::output(candor(program, home).args([
        "server",
        "init",
        "--region",
        "home",
        "--listen",
        "127.0.0.1:0",
    ]))?;
    Ok(())
}

/// Starts a new cell in a process of its own below a directory; and an invitation to it.
pub(crate) fn new_cell(program: &Path, directory: &Path) -> Outcome<(Server, String)> {
    let home = directory.join(CELL_HOME);
    let cell = || candor(program, &home);
    init_cell(program, &home)?;
    let mut run = cell();
    run.args(["server", "run"]);
    let server = Server::start(run, &directory.join("cell.log"), "listening on ")?;
    let invitation = sys::text(cell().args(["server", "invite"]))?;
    Ok((server, invitation.trim().to_owned()))
}

/// Candor with a cell in a process of its own, reached over TLS.
pub(crate) struct Separate {
    program: PathBuf,
    directory: PathBuf,
    cell: Option<Server>,
}

impl Separate {
    pub(crate) fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            directory: PathBuf::new(),
            cell: None,
        }
    }

    fn device(&self) -> Command {
        candor(&self.program, &self.directory.join("device"))
    }
}

impl Contender for Separate {
    fn name(&self) -> String {
        "candor over TLS".to_owned()
    }

    fn version(&self) -> Outcome<String> {
        candor_version(&self.program)
    }

    fn is_over_network(&self) -> bool {
        true
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn start(&mut self, directory: &Path, source: &Path) -> Outcome {
        directory.clone_into(&mut self.directory);
        let (cell, invitation) = new_cell(&self.program, directory)?;
        self.cell = Some(cell);
        let mut create = self.device();
        create.args([
            "account",
            "create",
            "bench",
            "--cell",
            &invitation,
            "--unprotected-keys",
            "--recovery-file",
        ]);
        sys::output(create.arg(directory.join("phrase.txt")))?;
        sys::output(
            self.device()
                .args(["backup", "add"])
                .arg(source)
                .args(["--name", "bench"]),
        )?;
        sys::output(self.device().args(["consent", "on", "backup", "--yes"])).map(drop)
    }

    fn command(&self, phase: Phase, _source: &Path, target: &Path) -> Outcome<Command> {
        Ok(candor_phase(
            &self.program,
            &self.directory.join("device"),
            phase,
            target,
        ))
    }

    fn restored(&self, source: &Path, target: &Path) -> PathBuf {
        below_by_name(source, target)
    }

    fn store(&self) -> PathBuf {
        self.directory.join(CELL_HOME).join("cell")
    }

    fn server(&self) -> Option<u32> {
        self.cell.as_ref().map(Server::id)
    }

    fn stop(&mut self) -> Outcome {
        self.cell = None;
        Ok(())
    }
}

/// A server that ends with this value.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts a server with its output in a file, and waits until that holds some words.
    pub(crate) fn start(mut command: Command, log: &Path, words: &str) -> Outcome<Self> {
        let shown = sys::shown(&command);
        let file = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let mut server = Self {
            child: command.spawn().doing(&shown)?,
        };
        let started = Instant::now();
        while started.elapsed() < SERVER_WAIT_MAX {
            let lines = BufReader::new(File::open(log)?)
                .lines()
                .map_while(Result::ok);
            if lines.into_iter().any(|line| line.contains(words)) {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(Failure::new(format!(
                    "`{shown}` ended with {status}\n{said}"
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(Failure::new(format!("`{shown}` does not listen")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = terminate(&mut self.child, SERVER_WAIT_MAX);
    }
}

/// Words of a command line that mixes texts and paths.
pub(crate) fn words<const N: usize>(words: [&dyn AsRef<std::ffi::OsStr>; N]) -> Vec<OsString> {
    words
        .iter()
        .map(|word| (*word).as_ref().to_owned())
        .collect()
}
