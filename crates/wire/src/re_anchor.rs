//! Re-anchoring: a person's signed word that they accept an older state of their account.
//!
//! When a cell had to be restored from a backup, it comes back with less than a device saw before: a
//! shorter chain, older heads, a log that begins anew. To the device that looks like an attack, and it
//! refuses, as it must. This statement is the way out, and leaves a trace: it says what was known
//! before and what is accepted now, is signed by a full device, and stands on the chain and so in the
//! log. Threat: row 15.

use crate::head::HeadHash;
use crate::ids::{Link, VaultId};

/// The version of these statements that this build writes and the lowest that it accepts.
pub const RE_ANCHOR_VERSION: u8 = 1;

/// Where a chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ChainPoint {
    /// Place of its last entry.
    #[n(0)]
    pub sequence: u64,
    /// The link after it.
    #[n(1)]
    pub link: Link,
}

/// A head by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct HeadPoint {
    /// Its counter.
    #[n(0)]
    pub counter: u64,
    /// Its hash.
    #[n(1)]
    pub hash: HeadHash,
}

/// A vault whose head is older than it was, or another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct HeadChange {
    /// Which vault.
    #[n(0)]
    pub vault: VaultId,
    /// What the device saw before.
    #[n(1)]
    pub before: HeadPoint,
    /// What is there now; absent if there is none.
    #[n(2)]
    pub now: Option<HeadPoint>,
}

impl HeadChange {
    /// Whether what is there now is not what was seen, nor follows after it: older, another one of the
    /// same counter, or none.
    pub fn is_a_loss(&self) -> bool {
        self.now.is_none_or(|now| {
            now.counter < self.before.counter
                || (now.counter == self.before.counter && now.hash != self.before.hash)
        })
    }
}

/// A head of the cell's log.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct LogPoint {
    /// The log's origin.
    #[n(0)]
    pub origin: String,
    /// Entries in its tree.
    #[n(1)]
    pub size: u64,
    /// Root of its tree.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub root: [u8; 32],
}

/// The body of [`crate::statement::Kind::ReAnchored`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ReAnchor {
    /// Always [`RE_ANCHOR_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Where the chain ended as the device knew it.
    #[n(1)]
    pub chain_before: ChainPoint,
    /// Where it ends now: the entry before this statement.
    #[n(2)]
    pub chain_now: ChainPoint,
    /// Vaults whose heads are older now, by vault.
    #[n(3)]
    pub heads: Vec<HeadChange>,
    /// The newest state of the log that the device saw; absent if it never saw one.
    #[n(4)]
    pub log_before: Option<LogPoint>,
    /// The state of the log that is accepted; absent if there is none yet.
    #[n(5)]
    pub log_now: Option<LogPoint>,
}

impl ReAnchor {
    /// Whether it can stand after the entry `sequence - 1`, whose link is `previous`.
    pub(crate) fn fits(&self, sequence: u64, previous: &Link) -> bool {
        let follows = self.chain_now.sequence.checked_add(1) == Some(sequence)
            && self.chain_now.link == *previous;
        let ascends = self
            .heads
            .windows(2)
            .all(|pair| pair[0].vault < pair[1].vault);
        let is_older = self.heads.iter().all(HeadChange::is_a_loss);
        self.version == RE_ANCHOR_VERSION && follows && ascends && is_older
    }
}
