//! A line while its connection is open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::record::Record;
use super::{Ledger, LedgerError};

/// How a connection travels. The numbers are part of the format and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Protocol {
    /// TLS 1.3 over TCP.
    #[n(1)]
    Tcp,
    /// A call of the cell in the same process; nothing leaves the machine.
    #[n(2)]
    InProcess,
    /// The machine's own resolver was asked for a name. Which packets it sent, it alone knows.
    #[n(3)]
    NameLookup,
}

impl Protocol {
    /// The name in views.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::InProcess => "in-process",
            Self::NameLookup => "name-lookup",
        }
    }
}

/// What kind of data went out over a connection. The numbers are part of the format and never reused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum DataClass {
    /// Random ids, public keys, signatures.
    #[n(1)]
    Identifiers,
    /// Sealed objects: contents, names and properties of files, readable to the account alone.
    #[n(2)]
    SealedObjects,
    /// Signed heads of vaults.
    #[n(3)]
    Heads,
    /// Statements: devices, epochs, consents, withdrawals.
    #[n(4)]
    Statements,
    /// Names of sealed objects.
    #[n(5)]
    ObjectNames,
    /// A one-time right to open an account.
    #[n(6)]
    InvitationRight,
    /// What two devices tell each other when one takes the other in, sealed for the other one.
    #[n(7)]
    SealedMessages,
}

impl DataClass {
    const ALL: [Self; 7] = [
        Self::Identifiers,
        Self::SealedObjects,
        Self::Heads,
        Self::Statements,
        Self::ObjectNames,
        Self::InvitationRight,
        Self::SealedMessages,
    ];

    /// The name in views.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identifiers => "identifiers",
            Self::SealedObjects => "sealed-objects",
            Self::Heads => "heads",
            Self::Statements => "statements",
            Self::ObjectNames => "object-names",
            Self::InvitationRight => "invitation-right",
            Self::SealedMessages => "sealed-messages",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// What is known of a connection before it is opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// How it travels.
    pub protocol: Protocol,
    /// The name that was asked for.
    pub name: String,
    /// This end.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub remote: Option<SocketAddr>,
    /// Service or purpose.
    pub service: &'static str,
    /// The consent's id, or the errand's number.
    pub authority: Vec<u8>,
    /// Whether a consent stands behind it.
    pub is_grant: bool,
}

/// What went over a connection so far. Shared by whoever counts.
#[derive(Debug)]
pub struct Counts {
    plain_out: AtomicU64,
    plain_in: AtomicU64,
    cipher_out: AtomicU64,
    cipher_in: AtomicU64,
    classes: AtomicU32,
    /// One more than the number of segments; 0 while it is unknown.
    retransmitted: AtomicU32,
}

impl Counts {
    pub(super) const fn new() -> Self {
        Self {
            plain_out: AtomicU64::new(0),
            plain_in: AtomicU64::new(0),
            cipher_out: AtomicU64::new(0),
            cipher_in: AtomicU64::new(0),
            classes: AtomicU32::new(0),
            retransmitted: AtomicU32::new(0),
        }
    }

    /// Counts bytes before encryption.
    pub fn add_plain(&self, out: u64, r#in: u64) {
        self.plain_out.fetch_add(out, Ordering::Relaxed);
        self.plain_in.fetch_add(r#in, Ordering::Relaxed);
    }

    /// Counts bytes as they go over TCP.
    pub fn add_cipher(&self, out: u64, r#in: u64) {
        self.cipher_out.fetch_add(out, Ordering::Relaxed);
        self.cipher_in.fetch_add(r#in, Ordering::Relaxed);
    }

    /// Notes that data of this class goes out.
    pub fn add_class(&self, class: DataClass) {
        self.classes.fetch_or(class.bit(), Ordering::Relaxed);
    }

    /// Notes how many TCP segments were sent again.
    pub fn set_retransmitted(&self, segments: u32) {
        self.retransmitted
            .store(segments.saturating_add(1), Ordering::Relaxed);
    }

    /// Bytes sent, before encryption.
    pub fn plain_out(&self) -> u64 {
        self.plain_out.load(Ordering::Relaxed)
    }

    /// Bytes received, after decryption.
    pub fn plain_in(&self) -> u64 {
        self.plain_in.load(Ordering::Relaxed)
    }

    /// Bytes sent over TCP.
    pub fn cipher_out(&self) -> u64 {
        self.cipher_out.load(Ordering::Relaxed)
    }

    /// Bytes received over TCP.
    pub fn cipher_in(&self) -> u64 {
        self.cipher_in.load(Ordering::Relaxed)
    }

    pub(super) fn classes(&self) -> Vec<DataClass> {
        let bits = self.classes.load(Ordering::Relaxed);
        DataClass::ALL
            .into_iter()
            .filter(|class| bits & class.bit() != 0)
            .collect()
    }

    pub(super) fn retransmitted(&self) -> Option<u32> {
        self.retransmitted.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// A line whose connection is open. Dropping it closes the line with what was counted so far; if
/// that cannot be written, the next start calls the line interrupted.
pub struct OpenLine {
    ledger: Arc<Ledger>,
    sequence: u64,
    record: Record,
    counts: Arc<Counts>,
    is_finished: bool,
}

impl OpenLine {
    pub(super) fn new(
        ledger: Arc<Ledger>,
        sequence: u64,
        record: Record,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            ledger,
            sequence,
            record,
            counts,
            is_finished: false,
        }
    }

    /// To count with.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// This end, once the connection stands.
    pub fn set_local(&mut self, local: SocketAddr) {
        self.record.local = Some(local.to_string());
    }

    /// Closes the line, durably.
    pub fn finish(mut self) -> Result<(), LedgerError> {
        self.write()
    }

    fn write(&mut self) -> Result<(), LedgerError> {
        if std::mem::replace(&mut self.is_finished, true) {
            return Ok(());
        }
        let closed = self
            .record
            .closed(self.sequence, self.ledger.clock.now(), &self.counts);
        self.ledger.append(closed, None).map(|_| ())
    }
}

impl Drop for OpenLine {
    fn drop(&mut self) {
        // Nobody is left to tell; see the type's own words.
        let _ = self.write();
    }
}
