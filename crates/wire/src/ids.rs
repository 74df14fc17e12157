//! Identifiers. Each is a type of its own, so that an account can never be passed for a device.
//!
//! Text form: lowercase hexadecimal, always of full length. CBOR form: a byte string.

use core::fmt;
use core::str::FromStr;

/// The text is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is written as {digits} hexadecimal digits")]
pub struct ParseIdError {
    /// Which kind of identifier was expected.
    pub what: &'static str,
    /// How many digits it has.
    pub digits: usize,
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Decodes lowercase hexadecimal of exactly `N` bytes.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(out)
}

/// Encodes bytes as lowercase hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const BYTES: usize = $bytes;

            /// Takes the bytes as they are: every value of this length is an identifier.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Takes a slice of exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                from_hex(text)
                    .map(Self)
                    .ok_or(ParseIdError { what: $what, digits: $bytes * 2 })
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let bytes = d.bytes()?;
                Self::from_slice(bytes)
                    .ok_or_else(|| minicbor::decode::Error::message(concat!($what, ": wrong length")))
            }
        }
    };
}

id!(
    /// An account: a person. 128 random bits.
    AccountId, 16, "an account id"
);
id!(
    /// A device of an account. 128 random bits.
    DeviceId, 16, "a device id"
);
id!(
    /// A vault. 128 random bits.
    VaultId, 16, "a vault id"
);
id!(
    /// A cell: the first 16 bytes of the BLAKE3 hash of its root public key.
    CellId, 16, "a cell id"
);
id!(
    /// A sealed object: the BLAKE3 hash of its ciphertext, so that anybody can check one.
    ObjectId, 32, "an object id"
);
id!(
    /// A statement: its commitment, HMAC-SHA256(salt, signed statement).
    StatementId, 32, "a statement id"
);
id!(
    /// A link of a chain: SHA-256 over (sequence, kind, previous link, commitment).
    Link, 32, "a chain link"
);
id!(
    /// A label in the transparency log, derived from a watch key.
    Label, 32, "a log label"
);
id!(
    /// 32 bytes of salt that are kept beside a statement and destroyed when it is erased.
    Salt, 32, "a salt"
);
id!(
    /// Makes a request unrepeatable. 128 random bits.
    RequestNonce, 16, "a request nonce"
);

impl ObjectId {
    /// The name of these ciphertext bytes.
    pub fn of(ciphertext: &[u8]) -> Self {
        Self(*blake3::hash(ciphertext).as_bytes())
    }
}
