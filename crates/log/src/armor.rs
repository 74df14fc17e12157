//! The text form of receipts, after RFC 7468: base64 between two lines that say what it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use candor_wire::cbor::CodecError;

/// Letters in a line of the text form: what RFC 7468 asks for.
const LINE_LETTERS: usize = 64;

/// What text is given beside the base64 itself, in bytes: line ends, and a mail around it.
const SLACK_BYTES: usize = 128 * 1024;

/// The two lines around one kind of receipt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Armor {
    pub(crate) begin: &'static str,
    pub(crate) end: &'static str,
    /// Longest content, in bytes.
    pub(crate) max_bytes: usize,
}

/// Longest text with a content of so many bytes, in bytes.
pub(crate) const fn text_max_bytes(max_bytes: usize) -> usize {
    max_bytes / 3 * 4 + SLACK_BYTES
}

/// A text is not a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptTextError {
    /// Too long to be one.
    #[error("a receipt's text has at most {max_bytes} bytes, not {bytes}")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max_bytes: usize,
    },
    /// One of the two lines around a receipt is missing.
    #[error("there is no line `{line}`")]
    NoLine {
        /// The line.
        line: &'static str,
    },
    /// More than one receipt.
    #[error("there is more than one receipt")]
    Several,
    /// What is between the two lines is not base64.
    #[error("the receipt is damaged: it was not copied completely")]
    Base64,
    /// What it holds is not a receipt.
    #[error("the receipt cannot be read")]
    Content(#[source] CodecError),
}

impl Armor {
    /// The text form, which can be mailed and printed.
    pub(crate) fn to_text(self, bytes: &[u8]) -> String {
        let encoded = STANDARD.encode(bytes);
        let mut text = format!("{}\n", self.begin);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(LINE_LETTERS));
            text.push_str(line);
            text.push('\n');
            rest = more;
        }
        text.push_str(self.end);
        text.push('\n');
        text
    }

    /// Whether a text has such a receipt's first line.
    pub(crate) fn begins_in(self, text: &str) -> bool {
        text.lines().any(|line| line.trim() == self.begin)
    }

    /// The bytes in a text. What stands before and after the two lines, white space at the ends of lines, and
    /// where the lines break are ignored: mail changes them.
    pub(crate) fn read(self, text: &str) -> Result<Vec<u8>, ReceiptTextError> {
        let max_bytes = text_max_bytes(self.max_bytes);
        if text.len() > max_bytes {
            let bytes = text.len();
            return Err(ReceiptTextError::TooLong { bytes, max_bytes });
        }
        let mut lines = text.lines().map(str::trim);
        if !lines.any(|line| line == self.begin) {
            return Err(ReceiptTextError::NoLine { line: self.begin });
        }
        let mut encoded = String::new();
        loop {
            match lines.next() {
                None => return Err(ReceiptTextError::NoLine { line: self.end }),
                Some(line) if line == self.end => break,
                Some(line) => encoded.push_str(line),
            }
        }
        if lines.any(|line| line == self.begin) {
            return Err(ReceiptTextError::Several);
        }
        STANDARD
            .decode(encoded)
            .map_err(|_| ReceiptTextError::Base64)
    }
}
