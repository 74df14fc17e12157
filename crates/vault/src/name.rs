//! Names of directory entries: raw bytes, checked once, before they reach any system call.
//!
//! A name is what a POSIX directory can hold and nothing more: it never separates, never climbs
//! and never ends early. Everything that creates a file takes a [`Name`], so a tree made by a
//! hostile writer cannot steer a restore out of its directory by spelling alone.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// Longest name of one entry, in bytes: `NAME_MAX` of every common Linux file system.
pub const NAME_MAX_BYTES: usize = 255;

/// Why bytes are not the name of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There are no bytes.
    #[error("the name is empty")]
    Empty,
    /// The name is `.` or `..`, which mean directories themselves.
    #[error("the name stands for a directory itself or its parent")]
    Dots,
    /// The name contains `/`, so it would be a path.
    #[error("the name contains a slash")]
    Slash,
    /// The name contains a zero byte, at which the system would cut it.
    #[error("the name contains a zero byte")]
    Nul,
    /// The name is longer than any file system here can hold.
    #[error("the name is longer than {NAME_MAX_BYTES} bytes")]
    TooLong,
}

/// A checked name of a directory entry. Any bytes but `/` and zero; not always UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks and takes a name.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        check(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as the system's string type.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_os_str())
    }
}

/// Checks a name without keeping it.
pub fn check(bytes: &[u8]) -> Result<(), NameError> {
    match bytes {
        [] => return Err(NameError::Empty),
        b"." | b".." => return Err(NameError::Dots),
        _ => {}
    }
    if bytes.len() > NAME_MAX_BYTES {
        return Err(NameError::TooLong);
    }
    for &byte in bytes {
        match byte {
            b'/' => return Err(NameError::Slash),
            0 => return Err(NameError::Nul),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a34_names_that_climb_separate_or_end_early_are_refused() {
        let cases: [(&[u8], NameError); 9] = [
            (b"", NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"../x", NameError::Slash),
            (b"/etc/passwd", NameError::Slash),
            (b"a/", NameError::Slash),
            (b"a\0b", NameError::Nul),
            (b"\0", NameError::Nul),
            (&[b'a'; 256], NameError::TooLong),
        ];
        for (bytes, why) in cases {
            assert_eq!(Name::new(bytes), Err(why));
        }
    }

    #[test]
    fn odd_names_that_a_file_system_holds_are_kept() {
        for bytes in [
            &b"\xff\xfe"[..],
            b"...",
            b"-rf",
            b" ",
            b"C:",
            b"con",
            b"a\nb",
            b"\xcc\x81",
            &[b'a'; 255],
        ] {
            assert_eq!(Name::new(bytes).unwrap().as_bytes(), bytes);
        }
    }
}
