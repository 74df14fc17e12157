//! Errand tokens: the signed form of "a person asked this device to do this one thing at that cell".
//!
//! A token names its purpose, the cell and a short life. The cell accepts it only at the endpoints
//! of its purpose ([`crate::api::ENDPOINTS`]). Turning a token into an authority that can open a
//! connection is the business of the crate `consent`, and of no other.

use base64::Engine as _;

use crate::cbor::{self, Canonical, CodecError};
use crate::ids::{AccountId, CellId, DeviceId, RequestNonce};
use crate::limits::ERRAND_MAX_MS;
use crate::sign::{Domain, Ed25519Public, Ed25519Secret, Ed25519Signature};
use crate::time::Millis;

/// The version of errand tokens that this build writes and the lowest that it accepts.
pub const ERRAND_VERSION: u8 = 1;

/// What an errand is for. The numbers are part of the format and never reused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum Purpose {
    /// Open an account.
    #[n(1)]
    Create,
    /// See the account's own chain: devices, consents, history.
    #[n(2)]
    List,
    /// Enrol this device with the recovery phrase.
    #[n(3)]
    Recover,
    /// Give or withdraw consent.
    #[n(4)]
    Consent,
    /// Read files back.
    #[n(5)]
    Restore,
    /// Check that everything is there and unaltered.
    #[n(6)]
    Verify,
    /// Accept an older state, after the cell was restored from a backup.
    #[n(7)]
    ReAnchor,
    /// Have a vault or the account erased, or take that back.
    #[n(8)]
    Erase,
    /// Revoke a device.
    #[n(9)]
    Revoke,
    /// Take a new device in.
    #[n(10)]
    Link,
    /// Join an account with a code that one of its devices shows. Signed by the link's key, and, once it is in the
    /// account, by the new device.
    #[n(11)]
    Join,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 11] = [
        Self::Create,
        Self::List,
        Self::Recover,
        Self::Consent,
        Self::Restore,
        Self::Verify,
        Self::ReAnchor,
        Self::Erase,
        Self::Revoke,
        Self::Link,
        Self::Join,
    ];

    /// The name used in the ledger and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::List => "list",
            Self::Recover => "recover",
            Self::Consent => "consent",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::ReAnchor => "re-anchor",
            Self::Erase => "erase",
            Self::Revoke => "revoke",
            Self::Link => "link",
            Self::Join => "join",
        }
    }
}

/// What the token says.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ErrandToken {
    /// Always [`ERRAND_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The account; absent while a recovery does not know it yet, and of a link's key.
    #[n(1)]
    pub account: Option<AccountId>,
    /// The signing device; absent for the root key, and for a link's.
    #[n(2)]
    pub signer: Option<DeviceId>,
    /// What for.
    #[n(3)]
    pub purpose: Purpose,
    /// At which cell.
    #[n(4)]
    pub cell: CellId,
    /// From when.
    #[n(5)]
    pub created: Millis,
    /// Until when; at most a day later.
    #[n(6)]
    pub expires: Millis,
    /// Tells one errand from another, also in the ledger.
    #[n(7)]
    pub nonce: RequestNonce,
}

impl Canonical for ErrandToken {
    const WHAT: &'static str = "an errand";
    const MAX_BYTES: usize = 256;
}

/// A token with its signature.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SignedErrand {
    /// Canonical bytes of the [`ErrandToken`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub token: Vec<u8>,
    /// Over [`Domain::ERRAND`] and those bytes.
    #[n(1)]
    pub signature: Ed25519Signature,
}

impl Canonical for SignedErrand {
    const WHAT: &'static str = "a signed errand";
    const MAX_BYTES: usize = 384;
}

/// An errand is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErrandError {
    /// Not a valid encoding.
    #[error("the errand cannot be read")]
    Codec(#[source] CodecError),
    /// Not signed by the key that it names.
    #[error("the errand is not signed by the key that it names")]
    Signature,
    /// For another cell, or with a shape that its purpose does not allow.
    #[error("the errand is not for this cell or purpose")]
    Place,
    /// Over, or not begun.
    #[error("the errand is over")]
    Time,
}

impl SignedErrand {
    /// Signs a token.
    pub fn sign(token: &ErrandToken, key: &Ed25519Secret) -> Self {
        let bytes = cbor::encode(token);
        Self {
            signature: key.sign(Domain::ERRAND, &bytes),
            token: bytes,
        }
    }

    /// Decodes without checking, to learn whose key to ask for.
    pub fn peek(&self) -> Result<ErrandToken, ErrandError> {
        cbor::decode(&self.token).map_err(ErrandError::Codec)
    }

    /// Checks signature, cell, shape and time. `skew_ms` is how far clocks may differ.
    pub fn verify(
        &self,
        key: &Ed25519Public,
        cell: &CellId,
        now: Millis,
        skew_ms: i64,
    ) -> Result<ErrandToken, ErrandError> {
        key.verify(Domain::ERRAND, &self.token, &self.signature)
            .map_err(|_| ErrandError::Signature)?;
        let token = self.peek()?;
        let account_ok = token.account.is_some() || token.purpose == Purpose::Recover;
        let root_ok = token.signer.is_some() || token.purpose == Purpose::Recover;
        // A link's key belongs to no account; a device that joins, to one.
        let is_linker =
            token.purpose == Purpose::Join && token.account.is_none() && token.signer.is_none();
        let is_whose = (account_ok && root_ok) || is_linker;
        if token.version != ERRAND_VERSION || token.cell != *cell || !is_whose {
            return Err(ErrandError::Place);
        }
        let lasts = token.expires.0.saturating_sub(token.created.0);
        let begun = token.created.0 <= now.0.saturating_add(skew_ms);
        let over = token.expires.0 <= now.0.saturating_sub(skew_ms);
        if !(1..=ERRAND_MAX_MS).contains(&lasts) || !begun || over {
            return Err(ErrandError::Time);
        }
        Ok(token)
    }

    /// The form in which it travels in a header: base64url without padding.
    pub fn to_text(&self) -> String {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(cbor::encode(self))
    }

    /// Reads the header form.
    pub fn from_text(text: &str) -> Result<Self, ErrandError> {
        let malformed = || ErrandError::Codec(CodecError::Malformed { what: Self::WHAT });
        if text.len() > Self::MAX_BYTES * 2 {
            return Err(malformed());
        }
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| malformed())?;
        cbor::decode(&bytes).map_err(ErrandError::Codec)
    }
}
