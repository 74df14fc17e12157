//! How vectors are compared: what this build makes with what is stored, then every stored line is judged.

use std::path::PathBuf;

use candor_wire::cbor::CodecError;
use candor_wire::ids::from_hex;

pub(crate) fn bytes_of(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| from_hex::<1>(std::str::from_utf8(pair).unwrap()).unwrap()[0])
        .collect()
}

pub(crate) fn reason(error: &CodecError) -> &'static str {
    match error {
        CodecError::Malformed { .. } => "malformed",
        CodecError::NotCanonical { .. } => "not-canonical",
        CodecError::TooLong { .. } => "too-long",
        CodecError::Version { .. } => "version",
    }
}

/// The stored file under `vectors/`, which has to be what this build makes.
#[expect(
    clippy::disallowed_methods,
    reason = "the crate does no I/O; its test reads the vectors"
)]
pub(crate) fn stored_or_made(file: &str, made: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let stored = std::fs::read_to_string(root.join("vectors").join(file)).unwrap_or_default();
    if stored != made {
        let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(file.replace('/', "-"));
        std::fs::write(&out, made).unwrap();
        panic!(
            "{file}: this build makes other bytes than the stored vectors; see {}",
            out.display()
        );
    }
    stored
}
