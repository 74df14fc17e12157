//! Somebody with a home, some documents, and the program.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// How long a process may take to say what it is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A person. Everything of theirs goes away with this.
pub(crate) struct Person {
    folder: TempDir,
    home: PathBuf,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Person {
    /// With three small documents, and no home yet.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        let person = Self { folder, home };
        let documents = person.documents();
        fs::create_dir_all(documents.join("letters")).unwrap();
        fs::write(
            documents.join("letters/one.txt"),
            "a first letter\n".repeat(100),
        )
        .unwrap();
        fs::write(documents.join("two.txt"), "a second text").unwrap();
        fs::write(documents.join("empty"), "").unwrap();
        person
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn documents(&self) -> PathBuf {
        self.path("documents")
    }

    pub(crate) fn phrase(&self) -> PathBuf {
        self.path("phrase.txt")
    }

    /// The program with this person's home, without a terminal.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        self.command_in(&self.home, words)
    }

    pub(crate) fn command_in<S: AsRef<OsStr>>(
        &self,
        home: &Path,
        words: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_candor"));
        command.arg("--home").arg(home).args(words);
        command
            .env_remove("CANDOR_HOME")
            .env_remove("XDG_DATA_HOME")
            // No browser of whoever runs the tests opens.
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("BROWSER")
            .env("HOME", self.path("person"));
        command
            .env("COLUMNS", "100")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs it.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Ended {
        ended(&mut self.command(words))
    }

    /// Runs it with another home.
    pub(crate) fn run_in<S: AsRef<OsStr>>(
        &self,
        home: &Path,
        words: impl IntoIterator<Item = S>,
    ) -> Ended {
        ended(&mut self.command_in(home, words))
    }

    /// `up` as a script gives it to somebody new.
    pub(crate) fn up_words(&self) -> Vec<String> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let words = ["up", "--yes", "--unprotected-keys", "--recovery-file"].map(str::to_owned);
        words
            .into_iter()
            .chain([text(self.phrase()), text(self.documents())])
            .collect()
    }

    /// Somebody whose documents were backed up once.
    pub(crate) fn backed_up() -> Self {
        let person = Self::new();
        person
            .run(
                person
                    .up_words()
                    .iter()
                    .map(String::as_str)
                    .chain(["--once"]),
            )
            .must(0);
        person
    }

    /// Starts it, and waits until it says `text` on standard error.
    pub(crate) fn start<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        text: &str,
    ) -> Running {
        Running::start(&mut self.command(words), text)
    }
}

/// Runs a command to its end.
pub(crate) fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ended {
    /// Fails, with all that was said, unless it exited with this code.
    #[track_caller]
    pub(crate) fn must(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails unless standard error has this text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "`{text}` is not in:\n{}",
            self.stderr
        );
        self
    }

    /// Standard output as JSON objects, one per line, each with the version.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let objects: Vec<Value> = self
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(
            objects.iter().all(|object| object["version"] == 1),
            "no version in:\n{}",
            self.stdout
        );
        objects
    }

    /// The object with this field.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Value {
        let found = self
            .json()
            .into_iter()
            .find_map(|object| object.get(name).cloned());
        found.unwrap_or_else(|| panic!("no `{name}` in:\n{}", self.stdout))
    }
}

/// A program that stays.
pub(crate) struct Running {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command, text: &str) -> Self {
        let running = Self::spawn(command);
        running.wait_for(text);
        running
    }

    /// Without waiting for anything.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, said }
    }

    /// The environment that it was started with.
    pub(crate) fn environment(&self) -> std::io::Result<Vec<u8>> {
        std::fs::read(format!("/proc/{}/environ", self.child.id()))
    }

    /// Waits until it says `text`; the line.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let mut before = String::new();
        loop {
            match self.said.recv_timeout(WAIT_MAX) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => {
                    before.push_str(&line);
                    before.push('\n');
                }
                Err(_) => panic!("it never said `{text}`, but:\n{before}"),
            }
        }
    }

    /// Asks it to end, as a service manager does; its exit code.
    pub(crate) fn terminate(mut self) -> i32 {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Ends it by force, as a power cut does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every file below a folder with its content, in order.
pub(crate) fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mut content = Vec::new();
                fs::File::open(&path)
                    .unwrap()
                    .read_to_end(&mut content)
                    .unwrap();
                files.push((path.strip_prefix(root).unwrap().to_owned(), content));
            }
        }
    }
    files.sort();
    files
}
