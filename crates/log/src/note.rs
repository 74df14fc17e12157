//! C2SP signed notes: verifier keys and signature lines.
//!
//! A note is a text, an empty line, and lines `— NAME BASE64(key id | signature)`. Name and key id
//! together say which key made a signature; lines of other keys are kept and never looked at.
//!
//! `signed_note` reads notes and lines. It copies them a few times and refuses more than a million bytes,
//! so the length is bounded before it is asked. Its Ed25519 is never used: signatures are made
//! and checked by [`candor_wire::sign`], strictly.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use candor_wire::ids::{from_hex, to_hex};
use candor_wire::sign::{ED25519_PUBLIC_BYTES, Ed25519Public};

/// Longest name of a key, in bytes: what C2SP's newer cosignatures can carry.
pub const KEY_NAME_MAX_BYTES: usize = 255;

/// Longest base64 of a type and a key, in bytes: the largest keys of C2SP (ML-DSA-44) fit with room, so
/// that they are refused as what they are.
const KEY_BASE64_MAX_BYTES: usize = 4096;

/// Longest decimal that fits a `u64`, in digits.
const DECIMAL_MAX_DIGITS: usize = 20;

/// What a key signs, and so the form of its signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// A log: Ed25519 over the note's text. Type 0x01.
    Log,
    /// A witness: Ed25519 over a time and the note's text (`cosignature/v1`). Type 0x04.
    Cosigner,
}

impl KeyKind {
    /// C2SP's signature type.
    pub const fn code(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Cosigner => 0x04,
        }
    }

    /// The kind with this signature type; the other types are not supported.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x01 => Some(Self::Log),
            0x04 => Some(Self::Cosigner),
            _ => None,
        }
    }
}

/// A text is not a verifier key, or a name cannot be a key's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `NAME+ID+BASE64` in its one spelling.
    #[error("a key is written as NAME+ID+KEY")]
    Format,
    /// The name is empty, too long, or holds a space, a plus or a control character.
    #[error(
        "a key's name has 1 to {KEY_NAME_MAX_BYTES} bytes, without spaces, plus and control characters"
    )]
    Name,
    /// A signature type that is not supported here.
    #[error("keys of type {code:#04x} are not supported")]
    Kind {
        /// The type found.
        code: u8,
    },
    /// The id is not the one of this name and key.
    #[error("the key's id does not belong to its name and bytes")]
    Id,
}

/// A public key with its name and kind: what checks signatures of a note.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    key: Ed25519Public,
    id: u32,
}

impl VerifierKey {
    /// Gives a key its name and kind.
    pub fn new(name: &str, kind: KeyKind, key: Ed25519Public) -> Result<Self, KeyError> {
        if !is_key_name(name) {
            return Err(KeyError::Name);
        }
        Ok(Self {
            name: name.to_owned(),
            kind,
            key,
            id: signed_note::key_id(name, &with_kind(kind, &key)),
        })
    }

    /// Reads C2SP's text form, `NAME+ID+BASE64`; each key has one spelling.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, rest) = text.split_once('+').ok_or(KeyError::Format)?;
        let (id, bytes) = rest.split_once('+').ok_or(KeyError::Format)?;
        let id = from_hex::<4>(id).ok_or(KeyError::Format)?;
        if bytes.len() > KEY_BASE64_MAX_BYTES {
            return Err(KeyError::Format);
        }
        let bytes = STANDARD.decode(bytes).map_err(|_| KeyError::Format)?;
        let (code, bytes) = bytes.split_first().ok_or(KeyError::Format)?;
        let kind = KeyKind::from_code(*code).ok_or(KeyError::Kind { code: *code })?;
        let bytes: [u8; ED25519_PUBLIC_BYTES] = bytes.try_into().map_err(|_| KeyError::Format)?;
        let key = Self::new(name, kind, Ed25519Public::from_bytes(bytes))?;
        if key.id == u32::from_be_bytes(id) {
            Ok(key)
        } else {
            Err(KeyError::Id)
        }
    }

    /// Its name. A log's is its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key itself.
    pub const fn key(&self) -> &Ed25519Public {
        &self.key
    }

    /// C2SP's key id: the first four bytes of a hash over name, kind and key. No protection by itself.
    pub const fn id(&self) -> u32 {
        self.id
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = to_hex(&self.id.to_be_bytes());
        let bytes = STANDARD.encode(with_kind(self.kind, &self.key));
        write!(f, "{}+{id}+{bytes}", self.name)
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

fn with_kind(kind: KeyKind, key: &Ed25519Public) -> [u8; 1 + ED25519_PUBLIC_BYTES] {
    let mut bytes = [kind.code(); 1 + ED25519_PUBLIC_BYTES];
    bytes[1..].copy_from_slice(key.as_bytes());
    bytes
}

fn is_key_name(name: &str) -> bool {
    signed_note::is_key_name_valid(name)
        && name.len() <= KEY_NAME_MAX_BYTES
        && !name.contains(char::is_control)
}

/// One signature line of a note.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SignatureLine(signed_note::Signature);

// The only fields are a string, a number and bytes.
impl Eq for SignatureLine {}

impl SignatureLine {
    /// The line of a key's signature.
    pub(crate) fn new(key: &VerifierKey, signature: Vec<u8>) -> Option<Self> {
        signed_note::Signature::new(key.name.clone(), key.id, signature)
            .ok()
            .map(Self)
    }

    /// Reads a line, without its newline.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let read = signed_note::Signature::from_bytes(line.as_bytes()).ok()?;
        let read = Self(read);
        (read.text().strip_suffix('\n') == Some(line)).then_some(read)
    }

    /// The line, with its newline.
    pub(crate) fn text(&self) -> String {
        let mut bytes = self.0.id().to_be_bytes().to_vec();
        bytes.extend_from_slice(self.0.signature());
        format!("— {} {}\n", self.0.name(), STANDARD.encode(bytes))
    }

    /// Whether it says that this key made it.
    pub(crate) fn is_by(&self, key: &VerifierKey) -> bool {
        self.0.id() == key.id && self.0.name() == key.name
    }

    /// What follows the key id.
    pub(crate) fn signature(&self) -> &[u8] {
        self.0.signature()
    }
}

/// Splits a note into its text, with the last newline, and its lines. `None` unless this is the one
/// spelling of a note. The caller has bounded the length.
pub(crate) fn open(bytes: &[u8]) -> Option<(String, Vec<SignatureLine>)> {
    let note = signed_note::Note::from_bytes(bytes).ok()?;
    if note.to_bytes() != bytes {
        return None;
    }
    let text = String::from_utf8(note.text().to_vec()).ok()?;
    let lines = std::str::from_utf8(bytes.get(text.len() + 1..)?).ok()?;
    let lines: Option<Vec<_>> = lines.lines().map(SignatureLine::parse).collect();
    Some((text, lines?))
}

/// Reads a decimal in its one spelling: ASCII digits, no leading zero unless it is `0`.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_one_spelling = text == "0" || !text.starts_with('0');
    if !digits || !is_one_spelling || text.len() > DECIMAL_MAX_DIGITS {
        return None;
    }
    text.parse().ok()
}

/// Splits what stands before a checkpoint from it: at the first empty line, which belongs to neither.
pub(crate) fn split_at_empty_line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let before = std::str::from_utf8(&bytes[..end]).ok()?;
    Some((before, &bytes[end + 2..]))
}
