//! A network namespace of one's own: only loopback, so that every packet in it is the scenario's.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::sys::{self, Doing, Failure, Outcome};

/// Holds a namespace open by a process in it, which ends with this value.
pub(crate) struct Namespace {
    holder: Child,
    // The holder sleeps until its input closes.
    _output: BufReader<ChildStdout>,
    is_root: bool,
}

impl Namespace {
    /// Makes one, with loopback up: as root directly, otherwise within a user namespace.
    pub(crate) fn new() -> Outcome<Self> {
        let is_root = sys::is_root();
        let mut unshare = Command::new("unshare");
        unshare.arg("--net");
        if !is_root {
            unshare.args(["--user", "--map-root-user"]);
        }
        // `read` waits for the end of the input, so the holder goes when we do, however we go.
        unshare.args([
            "--",
            "sh",
            "-c",
            "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && echo ready && read -r line",
        ]);
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
                "a network namespace cannot be made here (as root, or with user namespaces, it can)",
            ));
        }
        Ok(Self {
            holder,
            _output: output,
            is_root,
        })
    }

    /// A command that runs in the namespace. It becomes the program itself, so that its process id is the program's.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.holder.id().to_string())
            .arg("--net");
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
