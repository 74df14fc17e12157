//! What a scenario gets: a directory of its own, the program, and cells that end with it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::namespace::Namespace;
use crate::sys::{self, Doing, Failure, Outcome};

/// How long a cell may take until it listens: it makes its keys and its database first.
const START_MAX: Duration = Duration::from_secs(60);

/// What `up` needs to ask nothing and to end when the backup is done; the file for the phrase follows.
pub(crate) const UP_ONCE: [&str; 5] = [
    "--once",
    "--yes",
    "--no-open",
    "--unprotected-keys",
    "--recovery-file",
];

/// How long a cell may take to stop after it was asked to.
const STOP_MAX: Duration = Duration::from_secs(20);

/// What the scenarios of one run share.
pub(super) struct Settings {
    pub(super) program: PathBuf,
    pub(super) full: bool,
    pub(super) tree: Option<PathBuf>,
    pub(super) keep: bool,
}

/// One scenario's world: a directory of its own, gone at the end.
pub(crate) struct World {
    directory: tempfile::TempDir,
    program: PathBuf,
    pub(super) full: bool,
    pub(super) tree: Option<PathBuf>,
    keep: bool,
}

impl World {
    pub(super) fn new(name: &str, settings: &Settings) -> Outcome<Self> {
        // Beside the build, on a disk: a temporary file system may lack attributes, holes or room.
        let parent = sys::target_dir().join("e2e");
        fs::create_dir_all(&parent)?;
        // Short, because the path of a Unix socket in a home has little more than 100 bytes.
        let initials: String = name
            .split('-')
            .filter_map(|word| word.chars().next())
            .collect();
        let directory = tempfile::Builder::new()
            .prefix(&format!("{initials}-"))
            .tempdir_in(&parent)?;
        Ok(Self {
            directory,
            program: settings.program.clone(),
            full: settings.full,
            tree: settings.tree.clone(),
            keep: settings.keep,
        })
    }

    /// A path in this world's directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The program with a home of that name in this world.
    pub(crate) fn candor(&self, home: &str) -> Candor<'_> {
        Candor {
            world: self,
            home: self.path(home),
            namespace: None,
        }
    }

    /// Cleans up, unless the files shall be kept.
    pub(super) fn finish(self, outcome: Outcome) -> Outcome {
        if self.keep {
            println!("kept in {}", self.directory.keep().display());
            return outcome;
        }
        // Restored trees may hold directories that their owner may not write.
        let _ = Command::new("chmod")
            .args(["-R", "u+rwX"])
            .arg(self.directory.path())
            .stderr(Stdio::null())
            .status();
        let path = self.directory.path().to_owned();
        outcome.and(
            self.directory
                .close()
                .doing(format_args!("removing {}", path.display())),
        )
    }
}

/// The program, with one home, perhaps inside a network namespace.
#[derive(Clone)]
pub(crate) struct Candor<'a> {
    world: &'a World,
    home: PathBuf,
    namespace: Option<&'a Namespace>,
}

/// How a command of the program ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    shown: String,
}

impl<'a> Candor<'a> {
    /// The same program and home inside a network namespace.
    pub(crate) fn inside(mut self, namespace: &'a Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// The home's directory.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// A command line of the program.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = match self.namespace {
            Some(namespace) => namespace.command(&self.world.program),
            None => Command::new(&self.world.program),
        };
        command.arg("--home").arg(&self.home).args(words);
        // Nothing of the person who runs the suite, and no terminal.
        command
            .env_remove("CANDOR_HOME")
            .env("HOME", self.world.path("person"))
            .env("NO_COLOR", "1");
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program and returns how it ended, whatever that was.
    pub(crate) fn try_run<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> Outcome<Ended> {
        let mut command = self.command(words);
        let shown = sys::shown(&command);
        println!("$ {shown}");
        let output = command.output().doing(&shown)?;
        Ok(Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            shown,
        })
    }

    /// Runs the program, which must succeed, and returns what it printed.
    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> Outcome<String> {
        let ended = self.try_run(words)?;
        ended.must_exit(0)?;
        Ok(ended.stdout)
    }

    /// Makes a cell, an account and a backup of these folders in this home, and ends.
    pub(crate) fn up_once(&self, sources: &[&Path], phrase: &Path) -> Outcome {
        let mut up = self.command(["up"]);
        up.args(sources).args(UP_ONCE).arg(phrase);
        sys::run(&mut up)
    }

    /// Starts this home's cell and waits until it listens. Its output goes to `log`.
    pub(crate) fn start_cell(&self, log: &Path) -> Outcome<CellProcess> {
        let mut command = self.command(["server", "run"]);
        println!("$ {} &", sys::shown(&command));
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().doing("starting the cell")?;
        let mut cell = CellProcess {
            child,
            log: log.to_owned(),
        };
        cell.wait_until_it_listens()?;
        Ok(cell)
    }

    /// Makes a cell in this home and returns it running, with an invitation to it.
    pub(crate) fn new_cell(&self, log: &Path) -> Outcome<(CellProcess, String)> {
        self.run([
            "server",
            "init",
            "--region",
            "home",
            "--listen",
            "127.0.0.1:0",
        ])?;
        let cell = self.start_cell(log)?;
        let invitation = self.run(["server", "invite"])?.trim().to_owned();
        if invitation.is_empty() {
            return Err(Failure::new("`server invite` printed nothing"));
        }
        Ok((cell, invitation))
    }
}

impl Ended {
    /// Fails, with what the program printed, unless it exited with this code.
    pub(crate) fn must_exit(&self, code: i32) -> Outcome {
        if self.status.code() == Some(code) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "`{}` ended with {} instead of {code}\nstdout: {}\nstderr: {}",
            self.shown,
            self.status,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )))
    }
}

/// A running cell; asked to stop, and at last stopped, when it goes out of scope.
pub(crate) struct CellProcess {
    child: Child,
    log: PathBuf,
}

impl CellProcess {
    /// The process id of the cell itself.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the cell to stop and waits for it; fails when it does not end well in time.
    pub(crate) fn stop(mut self) -> Outcome {
        let status = self.terminate()?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "the cell ended with {status}\n{}",
            self.log_text()
        )))
    }

    /// Ends the cell as a loss of power would, as far as a process can.
    pub(crate) fn kill(mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn wait_until_it_listens(&mut self) -> Outcome {
        let started = Instant::now();
        while started.elapsed() < START_MAX {
            if self.address().is_some() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(Failure::new(format!(
                    "the cell ended with {status}\n{}",
                    self.log_text()
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(Failure::new(format!(
            "the cell does not listen after {START_MAX:?}\n{}",
            self.log_text()
        )))
    }

    /// The address that the cell said it listens on.
    fn address(&self) -> Option<String> {
        let file = fs::File::open(&self.log).ok()?;
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        lines
            .filter_map(|line| Some(line.split_once("listening on ")?.1.trim().to_owned()))
            .last()
    }

    fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn terminate(&mut self) -> Outcome<ExitStatus> {
        terminate(&mut self.child, STOP_MAX)
    }
}

impl Drop for CellProcess {
    fn drop(&mut self) {
        let _ = self.terminate();
    }
}

/// A port that is free now, for a program that does not say which one it took.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Asks a child to end, waits, and ends it by force when it does not.
pub(crate) fn terminate(child: &mut Child, wait: Duration) -> Outcome<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    let id = i32::try_from(child.id()).doing("process id")?;
    signal::kill(Pid::from_raw(id), Signal::SIGTERM).doing("asking a process to end")?;
    let started = Instant::now();
    while started.elapsed() < wait {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    Ok(child.wait()?)
}
