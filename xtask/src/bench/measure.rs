//! What a command used: time of the processor, time on the wall, and memory.
//!
//! The kernel adds up what ended children used. So that the sum and the peak are those of one command, each is run
//! by a process of its own: this program again, with the hidden command `measure`.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::sys::{self, Doing, Failure, Outcome};

/// How much of a failed command's messages is shown, in lines.
const SHOWN_LINES: usize = 20;

/// Which command to run, and where to say what it used.
#[derive(clap::Args)]
pub(crate) struct MeasureOptions {
    #[arg(long)]
    report: PathBuf,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// What a command used; with a server, both together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) wall_seconds: f64,
    /// Largest resident memory of one process of the command.
    pub(crate) peak_bytes: u64,
    /// Largest resident memory of the server, where there is one.
    pub(crate) server_peak_bytes: u64,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.peak_bytes / 1_000_000;
        write!(
            f,
            "{:>8.2} CPU s {:>8.2} s {megabytes:>6} MB",
            self.cpu_seconds, self.wall_seconds
        )
    }
}

impl Usage {
    pub(crate) fn add_server(&mut self, server: &ServerUsage) {
        self.cpu_seconds += server.cpu_seconds;
        self.server_peak_bytes = server.peak_bytes;
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "cpu_seconds": self.cpu_seconds,
            "wall_seconds": self.wall_seconds,
            "peak_bytes": self.peak_bytes,
            "server_peak_bytes": self.server_peak_bytes,
        })
    }
}

/// What a server used since it started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerUsage {
    cpu_seconds: f64,
    peak_bytes: u64,
}

impl fmt::Display for ServerUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.peak_bytes / 1_000_000;
        write!(f, "{:.2} CPU s, {megabytes} MB at most", self.cpu_seconds)
    }
}

impl ServerUsage {
    /// Processor time since it started, in seconds.
    pub(crate) const fn cpu_seconds(&self) -> f64 {
        self.cpu_seconds
    }

    /// Largest resident memory since it started.
    pub(crate) const fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// The part since an earlier reading; the peak is that of the whole time.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            peak_bytes: self.peak_bytes,
        }
    }
}

/// The hidden command: runs the command, and writes what it and its children used.
pub(crate) fn measure(options: &MeasureOptions) -> Outcome {
    let (program, words) = options
        .command
        .split_first()
        .ok_or_else(|| Failure::new("no command"))?;
    let started = Instant::now();
    let status = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .status()
        .doing(program.display())?;
    let wall = started.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).doing("resource usage")?;
    let report = json!({
        "cpu_seconds": seconds(usage.user_time()) + seconds(usage.system_time()),
        "wall_seconds": wall.as_secs_f64(),
        // Linux tells it in KiB.
        "peak_bytes": u64::try_from(usage.max_rss()).unwrap_or_default() * 1024,
    });
    fs::write(&options.report, report.to_string()).doing(options.report.display())?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("ended with {status}")))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds of a benchmark are small"
)]
fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

/// Runs a command, and returns what it used. Its output is shown only when it failed.
pub(crate) fn of_command(command: &Command, report: &Path) -> Outcome<Usage> {
    let mut measured = Command::new(std::env::current_exe()?);
    measured
        .args(["measure", "--report"])
        .arg(report)
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => measured.env(name, value),
            None => measured.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        measured.current_dir(directory);
    }
    let output = measured.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        return Err(Failure::new(format!(
            "`{}` failed:\n{}",
            sys::shown(command),
            last.join("\n")
        )));
    }
    let text = fs::read_to_string(report).doing("the measurement")?;
    let value: Value = serde_json::from_str(&text).doing("the measurement")?;
    Ok(Usage {
        cpu_seconds: value["cpu_seconds"].as_f64().unwrap_or_default(),
        wall_seconds: value["wall_seconds"].as_f64().unwrap_or_default(),
        peak_bytes: value["peak_bytes"].as_u64().unwrap_or_default(),
        server_peak_bytes: 0,
    })
}

/// What a running process used until now.
pub(crate) fn server_usage(process: u32) -> Outcome<ServerUsage> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).doing("the server's usage")?;
    let ticks =
        ticks_of_stat(&text).ok_or_else(|| Failure::new("the server's usage cannot be read"))?;
    let status =
        fs::read_to_string(format!("/proc/{process}/status")).doing("the server's memory")?;
    let peak = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    Ok(ServerUsage {
        cpu_seconds: ticks / ticks_per_second()?,
        peak_bytes: peak.unwrap_or(0_u64) * 1024,
    })
}

/// A process and all that it started, which are still there.
pub(crate) fn family(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let mut family = vec![process];
    for thread in threads.into_iter().flatten().filter_map(Result::ok) {
        let started = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in started
            .split_whitespace()
            .filter_map(|one| one.parse().ok())
        {
            family.extend(self::family(child));
        }
    }
    family
}

/// User and system time of a process, in clock ticks: the 14th and 15th field, counted after the name, which may
/// itself hold spaces.
fn ticks_of_stat(text: &str) -> Option<f64> {
    let after_name = &text[text.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn ticks_per_second() -> Outcome<f64> {
    let text = sys::text(Command::new("getconf").arg("CLK_TCK"))?;
    text.trim().parse().doing("ticks per second")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_past_odd_names() {
        let line = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(ticks_of_stat(line), Some(300.0));
    }

    #[test]
    fn our_own_usage_can_be_read() {
        assert!(server_usage(std::process::id()).is_ok_and(|usage| usage.peak_bytes > 0));
    }
}
