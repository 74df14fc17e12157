//! Captures of all packets in a namespace, and how many there were.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};
use std::thread;
use std::time::Duration;

use super::namespace::Namespace;
use super::world::terminate;
use crate::sys::{self, Doing, Failure, Outcome};

/// How long packets may take from the wire to the capture: the capture writes each at once.
const SETTLE: Duration = Duration::from_millis(500);

/// How long tcpdump may take to end.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Length of a pcap file's header, in bytes.
const FILE_HEADER_BYTES: usize = 24;

/// Length of a packet's header in a pcap file, in bytes.
const PACKET_HEADER_BYTES: usize = 16;

/// A running capture of every interface of a namespace, loopback included.
pub(crate) struct Capture {
    tcpdump: Child,
    messages: BufReader<ChildStderr>,
    file: PathBuf,
}

impl Capture {
    /// Starts to capture, and returns when tcpdump says that it does.
    pub(crate) fn start(namespace: &Namespace, file: &Path) -> Outcome<Self> {
        let program =
            sys::find_program("tcpdump").ok_or_else(|| Failure::new("tcpdump is not installed"))?;
        let mut command = namespace.command(program);
        command
            .args([
                "-i",
                "any",
                "-n",
                "-s",
                "0",
                "-U",
                "--immediate-mode",
                "-B",
                "65536",
                "-w",
            ])
            .arg(file);
        if sys::is_root() {
            // Otherwise it gives up its rights, and with them the directory of the scenario.
            command.args(["-Z", "root"]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut tcpdump = command.spawn().doing("starting tcpdump")?;
        let messages = tcpdump
            .stderr
            .take()
            .ok_or_else(|| Failure::new("tcpdump has no messages"))?;
        let mut messages = BufReader::new(messages);
        let mut said = String::new();
        while !said.contains("listening on") {
            let before = said.len();
            messages.read_line(&mut said)?;
            if said.len() == before {
                let _ = tcpdump.wait();
                return Err(Failure::new(format!("tcpdump ended: {said}")));
            }
        }
        Ok(Self {
            tcpdump,
            messages,
            file: file.to_owned(),
        })
    }

    /// Stops, and returns how many packets there were. Fails when some were dropped: then the count says nothing.
    pub(crate) fn stop(mut self) -> Outcome<usize> {
        thread::sleep(SETTLE);
        terminate(&mut self.tcpdump, STOP_MAX)?;
        let mut said = String::new();
        self.messages.read_to_string(&mut said)?;
        if !said
            .lines()
            .any(|line| line.starts_with("0 packets dropped by kernel"))
        {
            return Err(Failure::new(format!("the capture is not complete: {said}")));
        }
        let bytes = fs::read(&self.file).doing(self.file.display())?;
        packets(&bytes)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = terminate(&mut self.tcpdump, STOP_MAX);
    }
}

/// How many packets a pcap file holds.
fn packets(bytes: &[u8]) -> Outcome<usize> {
    let header = bytes
        .get(..FILE_HEADER_BYTES)
        .ok_or_else(|| Failure::new("a capture without a header"))?;
    let is_little_endian = match header[..4] {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => true,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => false,
        _ => return Err(Failure::new("not a pcap file")),
    };
    let mut rest = &bytes[FILE_HEADER_BYTES..];
    let mut count = 0;
    while !rest.is_empty() {
        let cut_off = || Failure::new(format!("packet {count} is cut off"));
        let length: [u8; 4] = rest
            .get(8..12)
            .and_then(|field| field.try_into().ok())
            .ok_or_else(cut_off)?;
        let length = if is_little_endian {
            u32::from_le_bytes(length)
        } else {
            u32::from_be_bytes(length)
        };
        let whole = PACKET_HEADER_BYTES + usize::try_from(length).doing("packet length")?;
        rest = rest.get(whole..).ok_or_else(cut_off)?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(lengths: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1];
        bytes.resize(FILE_HEADER_BYTES, 0);
        for length in lengths {
            bytes.extend([0; 8]);
            bytes.extend(length.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(vec![0; *length as usize]);
        }
        bytes
    }

    #[test]
    fn packets_are_counted() {
        assert_eq!(packets(&file(&[])).unwrap(), 0);
        assert_eq!(packets(&file(&[10, 0, 1500])).unwrap(), 3);
    }

    #[test]
    fn damaged_captures_are_refused() {
        assert!(packets(&[]).is_err());
        assert!(packets(&[0; 100]).is_err());
        let whole = file(&[100]);
        assert!(packets(&whole[..whole.len() - 1]).is_err());
    }
}
