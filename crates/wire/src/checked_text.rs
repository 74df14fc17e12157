//! The text form of what people copy by hand or scan: a prefix, and base64url of the bytes and of a check, so that a
//! copy that is not complete is noticed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of the BLAKE3 hash that follow the content.
const CHECK_BYTES: usize = 4;

/// Why a text is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextFault {
    Prefix,
    Damaged,
}

pub(crate) fn write(prefix: &str, mut content: Vec<u8>) -> String {
    let check = *blake3::hash(&content).as_bytes();
    content.extend_from_slice(&check[..CHECK_BYTES]);
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(&content))
}

/// The content, of at most about twice `max_bytes`. White space around the text is ignored.
pub(crate) fn read(prefix: &str, text: &str, max_bytes: usize) -> Result<Vec<u8>, TextFault> {
    let encoded = text.trim().strip_prefix(prefix).ok_or(TextFault::Prefix)?;
    if encoded.len() > max_bytes * 2 {
        return Err(TextFault::Damaged);
    }
    let decoded = URL_SAFE_NO_PAD.decode(encoded);
    let mut bytes = decoded.map_err(|_| TextFault::Damaged)?;
    let split = bytes.len().checked_sub(CHECK_BYTES);
    let (content, check) = bytes.split_at(split.ok_or(TextFault::Damaged)?);
    if blake3::hash(content).as_bytes()[..CHECK_BYTES] != *check {
        return Err(TextFault::Damaged);
    }
    bytes.truncate(bytes.len() - CHECK_BYTES);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 11 bytes and their check are 20 letters: twice the largest number that was asked for, and no more.
    #[test]
    fn a_text_has_a_longest_length() {
        let text = write("prefix:", vec![7; 11]);
        assert_eq!(text.len(), "prefix:".len() + 20);
        assert_eq!(read("prefix:", &text, 10), Ok(vec![7; 11]));
        assert_eq!(read("prefix:", &text, 9), Err(TextFault::Damaged));
    }
}
