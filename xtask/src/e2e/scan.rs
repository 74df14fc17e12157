//! Searching for known plaintexts in whatever form: raw, base64, hex, and inside what was compressed.

use std::fs::{self, File};
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::sys::{Doing, Outcome};

/// Longest piece that is searched at once, in bytes. Pieces overlap by [`OVERLAP_BYTES`].
const PIECE_BYTES: usize = 64 << 20;

/// How much of one piece is searched again with the next, in bytes: longer than any canary in any form.
const OVERLAP_BYTES: usize = 4096;

/// Most bytes that are taken out of one compressed stream.
const UNPACKED_MAX_BYTES: u64 = 64 << 20;

/// Most compressed streams that are tried in one place: by chance a gibibyte of noise holds less than one start.
const STREAMS_MAX: usize = 2000;

/// How compressed streams begin, and the program that unpacks them.
const COMPRESSED: [(&[u8], &str); 2] = [
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0x1f, 0x8b, 0x08], "gzip"),
];

/// The known plaintexts, in every form that is searched for.
pub(super) struct Scanner {
    forms: AhoCorasick,
    names: Vec<String>,
    starts: AhoCorasick,
}

/// One place where a plaintext was found.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) place: String,
    pub(super) form: String,
}

impl Scanner {
    /// Takes canaries as (name, bytes); each should be 12 bytes or more, so that chance does not hit.
    pub(super) fn new(canaries: &[(&str, &[u8])]) -> Outcome<Self> {
        let mut names = Vec::new();
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        for (name, bytes) in canaries {
            for (form, pattern) in forms(bytes) {
                names.push(format!("{name} ({form})"));
                patterns.push(pattern);
            }
        }
        let forms = AhoCorasick::new(&patterns).doing("search patterns")?;
        let starts =
            AhoCorasick::new(COMPRESSED.map(|(magic, _)| magic)).doing("search patterns")?;
        Ok(Self {
            forms,
            names,
            starts,
        })
    }

    /// Searches every file and every name below a directory.
    pub(super) fn scan_directory(&self, directory: &Path, hits: &mut Vec<Hit>) -> Outcome<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(directory).doing(directory.display())? {
            let path = entry?.path();
            let place = path.display().to_string();
            self.scan_bytes(
                &format!("the name {place}"),
                path.as_os_str().as_encoded_bytes(),
                hits,
            )?;
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                bytes += self.scan_directory(&path, hits)?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path)?;
                let place = format!("the target of the link {place}");
                self.scan_bytes(&place, target.as_os_str().as_encoded_bytes(), hits)?;
            } else if metadata.is_file() {
                bytes += metadata.len();
                self.scan_stream(
                    &place,
                    &mut File::open(&path).doing(&place)?,
                    u64::MAX,
                    hits,
                )?;
            }
        }
        Ok(bytes)
    }

    /// Searches one file.
    pub(super) fn scan_file(&self, path: &Path, hits: &mut Vec<Hit>) -> Outcome<u64> {
        let mut file = File::open(path).doing(path.display())?;
        self.scan_stream(&path.display().to_string(), &mut file, u64::MAX, hits)?;
        Ok(file.metadata()?.len())
    }

    /// Searches everything that a process has in memory and that can be read. Returns how many bytes.
    pub(super) fn scan_memory(&self, process: u32, hits: &mut Vec<Hit>) -> Outcome<u64> {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).doing("the memory map")?;
        let mut memory = File::open(format!("/proc/{process}/mem")).doing("the memory")?;
        let mut bytes = 0;
        for line in maps.lines() {
            let Some((start, end, name)) = readable_region(line) else {
                continue;
            };
            if memory.seek(SeekFrom::Start(start)).is_err() {
                continue;
            }
            let place = format!("memory {start:x}-{end:x} {name}");
            bytes += self.scan_stream(&place, &mut memory, end - start, hits)?;
        }
        Ok(bytes)
    }

    /// Searches up to `length` bytes, or until reading ends or fails (as it does in guard pages).
    fn scan_stream(
        &self,
        place: &str,
        stream: &mut impl Read,
        length: u64,
        hits: &mut Vec<Hit>,
    ) -> Outcome<u64> {
        let mut piece: Vec<u8> = Vec::new();
        let mut total = 0_u64;
        loop {
            let kept = piece.len().min(OVERLAP_BYTES);
            piece.drain(..piece.len() - kept);
            let wanted = (PIECE_BYTES as u64).min(length - total);
            let read = stream.by_ref().take(wanted).read_to_end(&mut piece);
            let new = piece.len() - kept;
            total += new as u64;
            if new == 0 {
                return Ok(total);
            }
            self.scan_bytes(place, &piece, hits)?;
            if read.is_err() || total >= length {
                return Ok(total);
            }
        }
    }

    fn scan_bytes(&self, place: &str, bytes: &[u8], hits: &mut Vec<Hit>) -> Outcome {
        self.scan_plain(place, bytes, hits);
        for found in self.starts.find_iter(bytes).take(STREAMS_MAX) {
            let (_, program) = COMPRESSED[found.pattern().as_usize()];
            let unpacked = unpack(program, &bytes[found.start()..])?;
            self.scan_plain(&format!("{place}, unpacked by {program}"), &unpacked, hits);
        }
        Ok(())
    }

    fn scan_plain(&self, place: &str, bytes: &[u8], hits: &mut Vec<Hit>) {
        for found in self.forms.find_iter(bytes) {
            let form = self.names[found.pattern().as_usize()].clone();
            // One line for each form and place: a file may repeat a word a thousand times.
            if !hits
                .iter()
                .any(|hit| hit.form == form && hit.place == place)
            {
                hits.push(Hit {
                    place: place.to_owned(),
                    form,
                });
            }
        }
    }
}

/// A plaintext as it may stand in a file: as it is, as text in UTF-16, in hex, and in base64 from each of the
/// three positions that it may have in a longer text.
fn forms(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let wide: Vec<u8> = bytes.iter().flat_map(|byte| [*byte, 0]).collect();
    let mut forms = vec![
        ("raw", bytes.to_vec()),
        ("UTF-16", wide),
        ("HEX", hex.to_uppercase().into_bytes()),
        ("hex", hex.into_bytes()),
    ];
    for shift in 0..3 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(bytes);
        // Letters that also depend on the bytes before or after are cut off.
        let before = (shift * 8).div_ceil(6);
        let whole = shifted.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&shifted);
            forms.push(("base64", text.as_bytes()[before..whole].to_vec()));
        }
    }
    forms.dedup_by(|one, two| one.1 == two.1);
    forms
}

/// What a program unpacks from the beginning of some bytes, as far as it gets.
fn unpack(program: &str, bytes: &[u8]) -> Outcome<Vec<u8>> {
    let mut command = Command::new(program);
    command
        .arg("-dcq")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().doing(program)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Ok(Vec::new());
    };
    let end = bytes.len().min(PIECE_BYTES);
    let unpacked = thread::scope(|scope| {
        // It stops reading at the end of the stream or at damage; both end this writer early.
        scope.spawn(move || {
            drop(
                std::io::copy(&mut Cursor::new(&bytes[..end]), &mut input)
                    .and_then(|_| input.flush()),
            )
        });
        let mut unpacked = Vec::new();
        let read = output.take(UNPACKED_MAX_BYTES).read_to_end(&mut unpacked);
        let _ = child.kill();
        read.map(|_| unpacked)
    })?;
    child.wait()?;
    Ok(unpacked)
}

/// Start, end and name of a region that can be read, from a line of `/proc/PID/maps`.
fn readable_region(line: &str) -> Option<(u64, u64, &str)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_readable = fields.next()?.starts_with('r');
    let name = fields.nth(3).unwrap_or("anonymous");
    // The kernel's own pages hold nothing of the process and cannot be read through this file.
    if !is_readable || name == "[vvar]" || name == "[vsyscall]" || name == "[vvar_vclock]" {
        return None;
    }
    Some((
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
        name,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CANARY: &[u8] = b"canary-3f9a1c77-letter";

    fn hits_in(bytes: &[u8]) -> usize {
        let scanner = Scanner::new(&[("letter", CANARY)]).unwrap();
        let mut hits = Vec::new();
        scanner
            .scan_stream("here", &mut Cursor::new(bytes), u64::MAX, &mut hits)
            .unwrap();
        hits.len()
    }

    #[test]
    fn every_form_is_found() {
        assert_eq!(hits_in(b"nothing here"), 0);
        assert_eq!(hits_in(CANARY), 1);
        assert_eq!(hits_in(b"63616e6172792d33663961316337372d6c6574746572"), 1);
        for before in ["", "x", "yz", "abc"] {
            let text = [before.as_bytes(), CANARY, b" and more"].concat();
            assert!(
                hits_in(STANDARD_NO_PAD.encode(&text).as_bytes()) >= 1,
                "{before:?}"
            );
            assert!(
                hits_in(URL_SAFE_NO_PAD.encode(&text).as_bytes()) >= 1,
                "{before:?}"
            );
        }
    }

    #[test]
    fn compressed_canaries_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        let text = [b"some text before ".as_slice(), &CANARY.repeat(3)].concat();
        fs::write(&plain, text).unwrap();
        for (_, program) in COMPRESSED {
            let packed = Command::new(program)
                .args(["-cq"])
                .arg(&plain)
                .output()
                .unwrap()
                .stdout;
            let inside = [b"\x00\x01garbage".as_slice(), &packed, &[0; 100]].concat();
            assert!(hits_in(&inside) >= 1, "{program}");
        }
    }

    #[test]
    fn our_own_memory_is_searched() {
        // Made at run time, so that it is on the heap and in no file.
        let secret: Vec<u8> = CANARY.iter().rev().copied().collect();
        let scanner = Scanner::new(&[("secret", &secret)]).unwrap();
        let mut hits = Vec::new();
        let bytes = scanner.scan_memory(std::process::id(), &mut hits).unwrap();
        assert!(bytes > 0 && !hits.is_empty());
    }

    #[test]
    fn pieces_overlap() {
        let mut bytes = vec![b'.'; PIECE_BYTES - 5];
        bytes.extend_from_slice(CANARY);
        assert!(hits_in(&bytes) >= 1);
    }
}
