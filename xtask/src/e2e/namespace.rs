//! Namespaces of one's own: a network with loopback alone, so that every packet in it is the scenario's, or a small
//! disk that nobody else fills.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::sys::{self, Doing, Failure, Outcome};

/// Holds a namespace open by a process in it, which ends with this value.
pub(crate) struct Namespace {
    holder: Child,
    // The holder sleeps until its input closes.
    _output: BufReader<ChildStdout>,
    is_root: bool,
    kind: &'static str,
}

impl Namespace {
    /// A network with loopback up.
    pub(crate) fn new() -> Outcome<Self> {
        Self::holding("--net", "ip link set lo up", &[])
    }

    /// Makes one of this kind, in which `prepare` was run with these words: as root directly, otherwise within a user
    /// namespace.
    fn holding(kind: &'static str, prepare: &str, words: &[&OsStr]) -> Outcome<Self> {
        let is_root = sys::is_root();
        let mut unshare = Command::new("unshare");
        unshare.arg(kind);
        if !is_root {
            unshare.args(["--user", "--map-root-user"]);
        }
        // `read` waits for the end of the input, so the holder goes when we do, however we go.
        let script = format!("PATH=$PATH:/usr/sbin:/sbin; {prepare} && echo ready && read -r line");
        unshare.args(["--", "sh", "-c", &script, "sh"]).args(words);
        let mut holder = unshare
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .doing("starting unshare")?;
        let output = holder
            .stdout
            .take()
            .ok_or_else(|| Failure::new("unshare has no output"))?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line.trim() != "ready" {
            let _ = holder.kill();
            let _ = holder.wait();
            return Err(Failure::new(
                "a namespace cannot be made here (as root, or with user namespaces, it can)",
            ));
        }
        Ok(Self {
            holder,
            _output: output,
            is_root,
            kind,
        })
    }

    /// A command that runs in the namespace. It becomes the program itself, so that its process id is the program's.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.holder.id().to_string())
            .arg(self.kind);
        if !self.is_root {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A file system in memory of a certain size, which exists within its namespace alone.
pub(crate) struct SmallDisk {
    namespace: Namespace,
    place: PathBuf,
}

impl SmallDisk {
    /// Makes one, at a directory that is made for it.
    pub(crate) fn new(place: &Path, mebibytes: usize) -> Outcome<Self> {
        std::fs::create_dir_all(place)?;
        let size = format!("size={mebibytes}m");
        let words = [size.as_ref(), place.as_os_str()];
        Ok(Self {
            namespace: Namespace::holding(
                "--mount",
                "mount -t tmpfs -o \"$1\" none \"$2\"",
                &words,
            )?,
            place: place.to_owned(),
        })
    }

    /// Where it can be seen.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Fills it to its last byte, with a file of this name.
    pub(crate) fn fill(&self, name: &str) -> Outcome {
        let file = self.place.join(name);
        let mut dd = self.namespace.command("dd");
        dd.args(["if=/dev/zero", "bs=4k", "status=none"])
            .arg(format!("of={}", file.display()))
            .stderr(Stdio::null());
        // It ends by finding no more room.
        if dd.status()?.success() {
            return Err(Failure::new("a disk never got full"));
        }
        Ok(())
    }

    /// Gives it another size, whoever uses it.
    pub(crate) fn resize(&self, mebibytes: usize) -> Outcome {
        let option = format!("remount,size={mebibytes}m");
        let mut mount = self.namespace.command("mount");
        sys::run(mount.args(["-o", &option]).arg(&self.place))
    }
}
