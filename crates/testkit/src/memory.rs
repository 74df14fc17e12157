//! Looking for secrets in the memory of the process that runs the test.
//!
//! A secret is kept masked (every byte XOR a mask) from the moment a test learns it, so that looking
//! for it does not put it there. Needs a process of its own: a test runs itself again as a child,
//! see [`in_own_process`].

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;

const MASK: u8 = 0xa5;

/// How much memory is looked at together, in bytes.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// A secret by name, masked.
pub struct Masked {
    name: String,
    bytes: Vec<u8>,
}

impl Masked {
    /// Masks a secret. The caller wipes the original.
    ///
    /// # Panics
    /// When it is shorter than 16 bytes: chance would find it.
    pub fn new(name: impl Into<String>, secret: &[u8]) -> Self {
        assert!(secret.len() >= 16, "chance finds shorter ones");
        Self {
            name: name.into(),
            bytes: secret.iter().map(|byte| byte ^ MASK).collect(),
        }
    }

    /// The same secret by another name.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..self
        }
    }

    /// What it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is the mask of `secret`.
    pub fn is(&self, secret: &[u8]) -> bool {
        self.bytes.len() == secret.len() && self.is_start_of(secret)
    }

    fn is_start_of(&self, window: &[u8]) -> bool {
        // Compared byte by byte: the plain secret is never put together.
        self.bytes
            .iter()
            .zip(window)
            .all(|(masked, byte)| byte ^ MASK == *masked)
    }
}

/// The names of those secrets that are somewhere in this process's writable memory: heap, every
/// thread's stack (those of ended threads too, as far as they are still mapped), and static data.
///
/// # Panics
/// When the process's memory cannot be read.
pub fn found_in_memory(secrets: &[Masked]) -> Vec<&str> {
    let longest = secrets
        .iter()
        .map(|secret| secret.bytes.len())
        .max()
        .unwrap_or(0);
    let mut memory = File::open("/proc/self/mem").expect("Linux shows a process its memory");
    let mut found = vec![false; secrets.len()];
    let mut piece = vec![0; PIECE_BYTES as usize + longest];
    let maps: Vec<String> = BufReader::new(File::open("/proc/self/maps").expect("the memory map"))
        .lines()
        .map(|line| line.expect("the memory map is text"))
        .collect();
    for map in maps.iter().filter(|map| map.contains(" rw")) {
        let (mut from, to) = bounds(map);
        while from < to {
            let length = (to - from).min(PIECE_BYTES + longest as u64) as usize;
            memory.seek(SeekFrom::Start(from)).expect("an offset");
            if memory.read_exact(&mut piece[..length]).is_ok() {
                look(&piece[..length], secrets, &mut found);
            }
            // What was read must not be found a second time, in this buffer.
            piece.fill(0);
            from += PIECE_BYTES;
        }
    }
    let names = secrets.iter().zip(found);
    names
        .filter_map(|(secret, found)| found.then_some(secret.name()))
        .collect()
}

/// Copies what is at an address of this process, also if no value is there any more.
///
/// # Panics
/// When no memory is there.
pub fn copy_from(address: usize, into: &mut [u8]) {
    // Nothing here takes memory: what is looked for may be in a place that was given back.
    let mut memory = File::open("/proc/self/mem").expect("Linux shows a process its memory");
    memory
        .seek(SeekFrom::Start(address as u64))
        .expect("an offset");
    memory.read_exact(into).expect("memory at the address");
}

fn look(piece: &[u8], secrets: &[Masked], found: &mut [bool]) {
    // By first byte, so that most places cost one look.
    let mut starts: [Vec<usize>; 256] = std::array::from_fn(|_| Vec::new());
    for (at, secret) in secrets.iter().enumerate() {
        starts[usize::from(secret.bytes[0] ^ MASK)].push(at);
    }
    for (place, byte) in piece.iter().enumerate() {
        for &at in &starts[usize::from(*byte)] {
            let length = secrets[at].bytes.len();
            if let Some(window) = piece.get(place..place + length) {
                found[at] |= secrets[at].is_start_of(window);
            }
        }
    }
}

fn bounds(map: &str) -> (u64, u64) {
    let parsed = map.split_once(' ').and_then(|(range, _)| {
        let (from, to) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some((number(from)?, number(to)?))
    });
    parsed.expect("a line of the memory map begins with two addresses")
}

/// Runs the test `name` (ignored otherwise) of this test binary in a process of its own, in `folder`,
/// and returns what it printed.
///
/// # Panics
/// When it cannot be started, or fails.
pub fn in_own_process(name: &str, folder: &Path) -> String {
    let child = Command::new("/proc/self/exe")
        .args(["--exact", name, "--ignored", "--nocapture"])
        .current_dir(folder)
        .output()
        .expect("this test binary starts");
    let told = String::from_utf8_lossy(&child.stdout).into_owned();
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{told}\n{errors}");
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_not() {
        let mut secret: Vec<u8> = (0..40_u8).map(|n| n.wrapping_mul(37) ^ 0x5c).collect();
        let other = Masked::new(
            "other",
            &(0..40_u8)
                .map(|n| n.wrapping_mul(91) ^ 0x1d)
                .collect::<Vec<_>>(),
        );
        let list = [Masked::new("secret", &secret), other];
        assert!(list[0].is(&secret) && !list[1].is(&secret));
        assert!(found_in_memory(&list).contains(&"secret"));
        secret.fill(0);
        std::hint::black_box(&mut secret);
    }
}
