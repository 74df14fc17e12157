//! What a record says, and the signed head.

use candor_wire::DeviceId;
use candor_wire::cbor::{self, Canonical};
use candor_wire::ids::to_hex;
use candor_wire::sign::{Domain, Ed25519Public, Ed25519Secret, Ed25519Signature};
use candor_wire::time::Millis;

use super::line::{Counts, DataClass, Opening, Protocol};
use super::{LEDGER_VERSION, RECORD_MAX_BYTES};
use crate::commands::LedgerLineView;

/// Context of the hash that chains records.
const LINK_CONTEXT: &str = "candor 2026 ledger link v1";

/// The hash before the first record: 32 zero bytes.
pub(super) const FIRST_HASH: [u8; 32] = [0; 32];

/// What a record is about. The numbers are part of the format and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub(super) enum Event {
    /// A connection is about to be opened.
    #[n(1)]
    Opened,
    /// It was closed; its counts are final.
    #[n(2)]
    Closed,
    /// It was open when the process ended; its counts are unknown.
    #[n(3)]
    Interrupted,
    /// Something was detected.
    #[n(4)]
    Alarm,
}

/// One record. What does not apply is absent or 0.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct Record {
    #[n(0)]
    pub(super) version: u8,
    /// From 1, without gaps.
    #[n(1)]
    pub(super) sequence: u64,
    #[n(2)]
    pub(super) event: Event,
    /// Number of the record that opened this connection; 0 for that one itself and for alarms.
    #[n(3)]
    pub(super) opening: u64,
    #[n(4)]
    pub(super) opened_at: Millis,
    #[n(5)]
    pub(super) closed_at: Option<Millis>,
    #[n(6)]
    pub(super) protocol: Option<Protocol>,
    /// The name that was asked for.
    #[n(7)]
    pub(super) name: String,
    #[n(8)]
    pub(super) local: Option<String>,
    #[n(9)]
    pub(super) remote: Option<String>,
    /// Service or purpose.
    #[n(10)]
    pub(super) service: String,
    /// The consent's id, or the errand's number.
    #[n(11)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) authority: Vec<u8>,
    #[n(12)]
    pub(super) is_grant: bool,
    #[n(13)]
    pub(super) data_classes: Vec<DataClass>,
    #[n(14)]
    pub(super) plain_out: u64,
    #[n(15)]
    pub(super) plain_in: u64,
    #[n(16)]
    pub(super) cipher_out: Option<u64>,
    #[n(17)]
    pub(super) cipher_in: Option<u64>,
    #[n(18)]
    pub(super) retransmitted_segments: Option<u32>,
    #[n(19)]
    pub(super) alarm: Option<String>,
}

impl Canonical for Record {
    const WHAT: &'static str = "a record of the ledger";
    const MAX_BYTES: usize = RECORD_MAX_BYTES;
}

impl Record {
    fn empty(event: Event, now: Millis) -> Self {
        Self {
            version: LEDGER_VERSION,
            sequence: 0,
            event,
            opening: 0,
            opened_at: now,
            closed_at: None,
            protocol: None,
            name: String::new(),
            local: None,
            remote: None,
            service: String::new(),
            authority: Vec::new(),
            is_grant: false,
            data_classes: Vec::new(),
            plain_out: 0,
            plain_in: 0,
            cipher_out: None,
            cipher_in: None,
            retransmitted_segments: None,
            alarm: None,
        }
    }

    pub(super) fn opened(now: Millis, opening: &Opening) -> Self {
        Self {
            protocol: Some(opening.protocol),
            name: opening.name.clone(),
            local: opening.local.map(|address| address.to_string()),
            remote: opening.remote.map(|address| address.to_string()),
            service: opening.service.to_owned(),
            authority: opening.authority.clone(),
            is_grant: opening.is_grant,
            ..Self::empty(Event::Opened, now)
        }
    }

    pub(super) fn alarm(now: Millis, sentence: String) -> Self {
        Self {
            closed_at: Some(now),
            alarm: Some(sentence),
            ..Self::empty(Event::Alarm, now)
        }
    }

    /// Where to: the other end's address, or where none was known yet, the name that was asked for.
    pub(super) fn destination(&self) -> &str {
        self.remote.as_deref().unwrap_or(&self.name)
    }

    /// The record that ends the connection which `self` opened.
    pub(super) fn closed(&self, opening: u64, now: Millis, counts: &Counts) -> Self {
        let is_tcp = self.protocol == Some(Protocol::Tcp);
        Self {
            event: Event::Closed,
            opening,
            closed_at: Some(now),
            data_classes: counts.classes(),
            plain_out: counts.plain_out(),
            plain_in: counts.plain_in(),
            cipher_out: is_tcp.then(|| counts.cipher_out()),
            cipher_in: is_tcp.then(|| counts.cipher_in()),
            retransmitted_segments: counts.retransmitted(),
            ..self.clone()
        }
    }

    /// The hash that chains this record to the one before.
    pub(super) fn link(previous: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_derive_key(LINK_CONTEXT);
        hash.update(previous);
        hash.update(bytes);
        *hash.finalize().as_bytes()
    }

    pub(super) fn view(&self) -> LedgerLineView {
        let state = match self.event {
            Event::Opened => "open",
            Event::Closed => "closed",
            Event::Interrupted => "interrupted",
            Event::Alarm => "alarm",
        };
        LedgerLineView {
            sequence: if self.opening == 0 {
                self.sequence
            } else {
                self.opening
            },
            state: state.to_owned(),
            opened_ms: self.opened_at.0,
            closed_ms: self.closed_at.unwrap_or(self.opened_at).0,
            protocol: self.protocol.map_or("", Protocol::name).to_owned(),
            name: self.name.clone(),
            local: self.local.clone(),
            remote: self.remote.clone(),
            service: self.service.clone(),
            authority: to_hex(&self.authority),
            consent_state: match (self.event, self.is_grant) {
                (Event::Alarm, _) => "",
                (_, true) => "live",
                (_, false) => "errand",
            }
            .to_owned(),
            data_classes: self
                .data_classes
                .iter()
                .map(|class| class.name().to_owned())
                .collect(),
            plain_out: self.plain_out,
            plain_in: self.plain_in,
            cipher_out: self.cipher_out,
            cipher_in: self.cipher_in,
            retransmitted_segments: self.retransmitted_segments,
            alarm: self.alarm.clone(),
        }
    }
}

/// What a device says of a record of its ledger. Each is signed in a domain of its own: one that was kept aside says nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is the newest one.
    Head,
    /// It is the last one of what retention took away.
    Checkpoint,
}

impl Claim {
    /// The file that holds it.
    pub(super) const fn file(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Checkpoint => "checkpoint",
        }
    }

    const fn domain(self) -> Domain {
        match self {
            Self::Head => Domain::LEDGER_HEAD,
            Self::Checkpoint => Domain::LEDGER_CHECKPOINT,
        }
    }
}

/// The record that a [`Claim`] is about.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct LedgerHead {
    #[n(0)]
    pub(super) version: u8,
    #[n(1)]
    pub(super) device: DeviceId,
    #[n(2)]
    pub(super) sequence: u64,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) hash: [u8; 32],
    #[n(4)]
    pub(super) time: Millis,
}

impl Canonical for LedgerHead {
    const WHAT: &'static str = "a head of the ledger";
    const MAX_BYTES: usize = 256;
}

/// A [`LedgerHead`] with its signature.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct SignedLedgerHead {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    head: Vec<u8>,
    #[n(1)]
    signature: Ed25519Signature,
}

impl Canonical for SignedLedgerHead {
    const WHAT: &'static str = "a signed head of the ledger";
    const MAX_BYTES: usize = 384;
}

impl SignedLedgerHead {
    pub(super) fn sign(claim: Claim, head: &LedgerHead, key: &Ed25519Secret) -> Self {
        let bytes = cbor::encode(head);
        Self {
            signature: key.sign(claim.domain(), &bytes),
            head: bytes,
        }
    }

    /// What it is about, if `device` made this claim with its key.
    pub(super) fn verify(
        &self,
        claim: Claim,
        device: DeviceId,
        key: &Ed25519Public,
    ) -> Option<LedgerHead> {
        key.verify(claim.domain(), &self.head, &self.signature)
            .ok()?;
        let head: LedgerHead = cbor::decode(&self.head).ok()?;
        (head.version == LEDGER_VERSION && head.device == device).then_some(head)
    }
}
