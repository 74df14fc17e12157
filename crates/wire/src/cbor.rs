//! Deterministic CBOR (RFC 8949 §4.2.1) and the check that foreign bytes really are deterministic.
//!
//! A decoder that accepts two spellings of one value lets a relay change bytes under a signature
//! without changing their meaning. So foreign bytes are decoded, encoded again and compared: only
//! the one canonical spelling is ever accepted. Maps have integer keys, ascending; lengths are
//! definite; there are no floats and no tags.

use minicbor::{Decode, Encode};

/// Why bytes were not accepted as a canonical value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not CBOR of the expected shape.
    #[error("the bytes are not a valid encoding of {what}")]
    Malformed {
        /// The type that was expected.
        what: &'static str,
    },
    /// The bytes decode, but are not the one canonical spelling of the value.
    #[error("the encoding of {what} is not canonical")]
    NotCanonical {
        /// The type that was expected.
        what: &'static str,
    },
    /// The bytes are longer than the type may be.
    #[error("an encoding of {what} has {bytes} bytes; at most {limit_bytes} are accepted")]
    TooLong {
        /// The type that was expected.
        what: &'static str,
        /// How long the input was.
        bytes: usize,
        /// The limit that it broke.
        limit_bytes: usize,
    },
    /// The version is one that this build does not accept.
    #[error("version {version} of {what} is not accepted")]
    Version {
        /// The type that was expected.
        what: &'static str,
        /// The version found.
        version: u32,
    },
}

/// A type with one canonical encoding, a name for errors and a largest size in bytes.
pub trait Canonical: Encode<()> + for<'b> Decode<'b, ()> {
    /// Name of the type in errors, in plain words.
    const WHAT: &'static str;
    /// Longest accepted encoding, in bytes. Checked before anything is decoded or allocated.
    const MAX_BYTES: usize;
}

/// The canonical encoding of a value.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    match minicbor::encode(value, &mut out) {
        Ok(()) => out,
        // A `Vec` never refuses bytes and no `Encode` here makes errors of its own.
        Err(_) => unreachable!("encoding into memory cannot fail"),
    }
}

/// Decodes foreign bytes: size, shape, nothing left over, and canonical.
pub fn decode<T: Canonical>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > T::MAX_BYTES {
        return Err(CodecError::TooLong {
            what: T::WHAT,
            bytes: bytes.len(),
            limit_bytes: T::MAX_BYTES,
        });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let value: T = decoder
        .decode()
        .map_err(|_| CodecError::Malformed { what: T::WHAT })?;
    if decoder.position() != bytes.len() {
        return Err(CodecError::Malformed { what: T::WHAT });
    }
    if encode(&value) != bytes {
        return Err(CodecError::NotCanonical { what: T::WHAT });
    }
    Ok(value)
}
