//! Paths in commands and views: bytes, because a file's name need not be text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A path as people and programs can both read it.
///
/// `text` is the path with bytes that are not UTF-8 replaced; `raw` is the exact path in lowercase
/// hexadecimal, present exactly when `text` is not exact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PathText {
    /// For people.
    pub text: String,
    /// For programs, when `text` had to be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

impl PathText {
    /// From the bytes of a path.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match core::str::from_utf8(bytes) {
            Ok(text) => Self {
                text: text.to_owned(),
                raw: None,
            },
            Err(_) => Self {
                text: String::from_utf8_lossy(bytes).into_owned(),
                raw: Some(candor_wire::ids::to_hex(bytes)),
            },
        }
    }

    /// From a path.
    pub fn from_path(path: &Path) -> Self {
        Self::from_bytes(path.as_os_str().as_bytes())
    }

    /// The exact bytes. A `raw` that is not hexadecimal falls back to `text`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let decode = |hex: &str| -> Option<Vec<u8>> {
            let pairs = hex.as_bytes().chunks_exact(2);
            let whole = pairs.remainder().is_empty();
            // A sign is no digit, though a number may have one.
            let digits = hex.bytes().all(|digit| digit.is_ascii_hexdigit());
            let bytes: Option<Vec<u8>> = pairs
                .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok())
                .collect();
            bytes.filter(|_| whole && digits)
        };
        self.raw
            .as_deref()
            .and_then(decode)
            .unwrap_or_else(|| self.text.as_bytes().to_vec())
    }

    /// As a path.
    pub fn to_path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sign before a digit makes a number, and no byte in hexadecimal.
    #[test]
    fn a37_a_raw_path_is_hexadecimal_or_passed_over() {
        let path = |raw: &str| PathText {
            text: "text".to_owned(),
            raw: Some(raw.to_owned()),
        };
        assert_eq!(path("2f61").to_bytes(), b"/a");
        for raw in ["+5", "2f6", "zz", "-1", "2f+1"] {
            assert_eq!(path(raw).to_bytes(), b"text", "{raw}");
        }
    }
}
