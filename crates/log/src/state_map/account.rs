//! An account's entry in the state map: what it says, and how it hides whose it is.
//!
//! 1. The state is the newest entry of the account's chain, and the counter and hash of each vault's
//!    head. Device and cell make the same bytes of it.
//! 2. The salt of the account's genesis statement makes the account's secret. That salt is random, only
//!    the account's devices and its cell have it, it is as old as the account, and it is destroyed with
//!    the account. The account's id would not do: other people learn it. Neither would a watch key: the
//!    cell, which makes the entry, does not have it.
//! 3. Key and value are HMACs under that secret. The log holds only a commitment under the same salt,
//!    so the public cannot compute which leaves of the log belong to which key of the map, and cannot
//!    guess a state and compare. What came in one batch can be seen: `docs/formats/state-map.md`.

use std::borrow::Cow;

use candor_wire::cbor::{self, Canonical, CodecError};
use candor_wire::chain::VAULTS_MAX;
use candor_wire::ids::{AccountId, Link, Salt, VaultId};
use hmac::{KeyInit as _, Mac as _};

use super::{MapKey, MapValue};

/// The version of account states that this build writes and the lowest that it accepts.
pub const ACCOUNT_STATE_VERSION: u8 = 1;

/// Longest encoding, in bytes: a vault has at most 64, and everything else together has less than 64.
const ACCOUNT_STATE_MAX_BYTES: usize = (VAULTS_MAX + 1) * 64;

/// Separates the secret from commitments, which are HMACs under the same salt.
const SECRET_DOMAIN: &[u8] = b"candor state map\0\x01";
const KEY_DOMAIN: &[u8] = b"key";
const VALUE_DOMAIN: &[u8] = b"value";

/// The head of one vault.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct VaultState {
    /// Which vault.
    #[n(0)]
    pub vault: VaultId,
    /// Its head's counter, from 1.
    #[n(1)]
    pub counter: u64,
    /// Its head's hash ([`candor_wire::head::HeadHash`]).
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub hash: [u8; 32],
}

/// What the state map says of an account. Canonical CBOR.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct AccountState {
    /// Always [`ACCOUNT_STATE_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Place of the newest entry of the chain, from 0.
    #[n(1)]
    pub sequence: u64,
    /// Link of that entry, and so of the whole chain.
    #[n(2)]
    pub link: Link,
    /// Vaults that have a head, ascending by id, each once; at most [`VAULTS_MAX`].
    #[n(3)]
    pub heads: Vec<VaultState>,
}

impl Canonical for AccountState {
    const WHAT: &'static str = "an account's state";
    const MAX_BYTES: usize = ACCOUNT_STATE_MAX_BYTES;
}

/// A foreign account state is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountStateError {
    /// Not a valid encoding.
    #[error("the account's state cannot be read")]
    Codec(#[source] CodecError),
    /// Vaults that do not ascend, too many of them, or a head without a counter.
    #[error("the account's state does not list its vaults as it has to")]
    Heads,
}

impl AccountState {
    /// The state of a chain that ends with this entry, and of these heads, in any order.
    pub fn new(sequence: u64, link: Link, mut heads: Vec<VaultState>) -> Self {
        heads.sort_by_key(|head| head.vault);
        Self {
            version: ACCOUNT_STATE_VERSION,
            sequence,
            link,
            heads,
        }
    }

    /// The canonical encoding. Heads are brought into their order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let state = if self.heads.is_sorted_by_key(|head| head.vault) {
            Cow::Borrowed(self)
        } else {
            Cow::Owned(Self {
                version: self.version,
                ..Self::new(self.sequence, self.link, self.heads.clone())
            })
        };
        cbor::encode(&*state)
    }

    /// Decodes a foreign state.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AccountStateError> {
        let state: Self = cbor::decode(bytes).map_err(AccountStateError::Codec)?;
        if state.version != ACCOUNT_STATE_VERSION {
            return Err(AccountStateError::Codec(CodecError::Version {
                what: Self::WHAT,
                version: u32::from(state.version),
            }));
        }
        let is_ascending = state
            .heads
            .windows(2)
            .all(|pair| pair[0].vault < pair[1].vault);
        let are_heads = state.heads.iter().all(|head| head.counter >= 1);
        if is_ascending && are_heads && state.heads.len() <= VAULTS_MAX {
            Ok(state)
        } else {
            Err(AccountStateError::Heads)
        }
    }
}

/// An account's secret for the state map. Whoever has it can follow the account through all versions of
/// the map, so it has no `Debug` and is never sent: it is derived where the chain is.
#[derive(Clone)]
pub struct StateSecret([u8; 32]);

impl StateSecret {
    /// From the salt of the account's first statement: HMAC-SHA256 (RFC 2104) with the salt as key, over
    /// a domain and the account's id.
    pub fn of(genesis_salt: &Salt, account: &AccountId) -> Self {
        Self(hmac(
            genesis_salt.as_bytes(),
            &[SECRET_DOMAIN, account.as_bytes()],
        ))
    }

    /// Where the account stands in the map, for as long as it exists.
    pub fn key(&self) -> MapKey {
        MapKey(hmac(&self.0, &[KEY_DOMAIN]))
    }

    /// What the map has to say for this state.
    pub fn value(&self, state: &AccountState) -> MapValue {
        MapValue(hmac(&self.0, &[VALUE_DOMAIN, &state.to_bytes()]))
    }
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let Ok(mut mac) = hmac::Hmac::<sha2::Sha256>::new_from_slice(key) else {
        unreachable!("HMAC accepts keys of every length")
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}
