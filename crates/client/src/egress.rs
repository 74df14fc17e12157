//! The one place of a device that opens a connection.
//!
//! 1. [`Egress::open`] takes an [`Authority`]: a grant or an errand, which only the crate `consent`
//!    can make. There is no other way to a [`Connection`], and nothing else in this workspace's
//!    device side can reach a socket (lints and the crate graph see to that).
//! 2. Before each request the connection asks its authority whether it opens this endpoint and has
//!    not ended, and checks that it is for this very cell. Only then is the request signed, with a
//!    fresh nonce, and sent. Nothing is opened before the first request.
//! 3. Every connection has a line in the ledger, written before it opens.
//! 4. Where the cell runs in the same process the very same signed requests go to its service as a
//!    function call; see [`in_process`]. Everywhere else they go over TLS 1.3 under the pinned root
//!    key; see [`tls`].
//!
//! Retries: a request that may be repeated is sent again when a connection breaks or the cell is
//! busy, a bounded number of times, each time signed anew. An upload that was not acknowledged is
//! such a request.

mod connection;
mod counting;
pub mod in_process;
mod tcp_info;
pub mod tls;

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use candor_consent::Authority;
use candor_vault::Entropy;
use candor_wire::cell::Invitation;
use candor_wire::ids::CellId;
use candor_wire::sign::{Ed25519Public, SecretKey};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::ledger::{DataClass, Ledger, LedgerError, Opening, Protocol};
use in_process::{CellService, InProcess};
use tls::TlsTransport;

pub use connection::{Call, Connection, EgressError, RETRIES_MAX, RETRY_PAUSE_MS};

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What went wrong underneath; for a person's log.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why a request got no reply.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection could be made; nothing was sent.
    #[error("no connection to the cell could be made")]
    NotConnected(#[source] Cause),
    /// The other end did not prove that it is the cell whose root key is pinned.
    #[error("whoever answered is not the cell in the invitation")]
    Identity(#[source] Cause),
    /// The connection ended in the middle. Whether the cell acted is unknown.
    #[error("the connection to the cell was lost")]
    Broken(#[source] Cause),
    /// The reply is longer than its kind can be.
    #[error("the cell's reply is longer than {limit_bytes} bytes")]
    TooLong {
        /// The limit.
        limit_bytes: usize,
    },
    /// No reply in time.
    #[error("the cell did not answer in time")]
    TimedOut,
    /// The ledger could not be written; nothing was sent.
    #[error("the ledger cannot be written, so no connection was opened")]
    Ledger(#[source] LedgerError),
}

impl TransportError {
    fn not_connected(error: io::Error) -> Self {
        Self::NotConnected(Box::new(error))
    }
}

/// What a reply may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// Its longest body, in bytes.
    pub(crate) reply_max_bytes: usize,
    /// How long the cell may keep it back, beyond the time that every reply has.
    pub(crate) wait: Duration,
}

/// Carries signed requests to one cell.
pub(crate) trait Transport: Send + Sync {
    /// Sends one request and reads its reply. Dropping the future gives the request up: it ends at the cell, too.
    fn call<'a>(
        &'a self,
        request: http::Request<Bytes>,
        allowance: Allowance,
        classes: &'static [DataClass],
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>>;

    /// Ends all connections and closes their lines.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Runs `work` on a thread of the runtime, as long as this future is there. What asks may be work that lets others go first, and a
/// thread of the runtime's pool has the priority of the one that began it, for whatever it does later.
async fn on_the_runtime<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, TransportError> {
    let mut set = JoinSet::new();
    set.spawn(work);
    let done = set.join_next().await.expect("one was begun");
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => TransportError::Broken(Box::new(error)),
    })
}

/// Where the pinned cell is.
#[derive(Clone)]
pub enum CellDoor {
    /// In this process.
    InProcess(Arc<dyn CellService>),
    /// At the addresses of the pinned invitation.
    Network,
}

/// What an egress is made of.
pub struct EgressParts {
    /// The pinned cell; a right in it is not looked at.
    pub cell: Invitation,
    /// Where it is.
    pub door: CellDoor,
    /// Where every connection is written down.
    pub ledger: Arc<Ledger>,
    /// Decides when authorities end, and dates requests.
    pub clock: Arc<dyn Clock>,
    /// Nonces of requests.
    pub entropy: Arc<dyn Entropy>,
}

pub(crate) struct Shared {
    pub(crate) cell: CellId,
    pub(crate) root: Ed25519Public,
    pub(crate) addresses: Vec<String>,
    pub(crate) door: CellDoor,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// The way out to one cell. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Shared>);

impl Egress {
    /// Prepares the way to one cell. Opens nothing.
    pub fn new(parts: EgressParts) -> Self {
        let EgressParts {
            cell,
            door,
            ledger,
            clock,
            entropy,
        } = parts;
        Self(Arc::new(Shared {
            cell: cell.cell(),
            root: cell.root,
            addresses: cell.addresses,
            door,
            ledger,
            clock,
            entropy,
        }))
    }

    /// The cell at the other end.
    pub fn cell(&self) -> CellId {
        self.0.cell
    }

    /// The pinned root key of the cell.
    pub fn root(&self) -> Ed25519Public {
        self.0.root
    }

    /// Where every connection is written down.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.0.ledger
    }

    /// A connection under `authority`, signed by `signer` (the device's key, or the root's where the
    /// authority names no device). Sends nothing before the first request. To be used inside of a
    /// tokio runtime.
    ///
    /// It is the only way to a [`Connection`]. With an authority it compiles:
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use candor_client::egress::{Connection, Egress, EgressError};
    /// # use candor_wire::sign::SecretKey;
    /// fn open(
    ///     egress: &Egress,
    ///     errand: candor_consent::Errand,
    ///     key: Arc<SecretKey>,
    /// ) -> Result<Connection, EgressError> {
    ///     egress.open(Box::new(errand), key)
    /// }
    /// ```
    ///
    /// With anything else it does not, be it a signed token that `consent` has not checked:
    ///
    /// ```compile_fail,E0277
    /// # use std::sync::Arc;
    /// # use candor_client::egress::{Connection, Egress, EgressError};
    /// # use candor_wire::sign::SecretKey;
    /// fn open(
    ///     egress: &Egress,
    ///     token: candor_wire::errand::SignedErrand,
    ///     key: Arc<SecretKey>,
    /// ) -> Result<Connection, EgressError> {
    ///     egress.open(Box::new(token), key)
    /// }
    /// ```
    ///
    /// And a connection is not made by hand either:
    ///
    /// ```compile_fail,E0624
    /// # use candor_client::egress::Connection;
    /// let make = Connection::new;
    /// ```
    pub fn open(
        &self,
        authority: Box<dyn Authority>,
        signer: Arc<SecretKey>,
    ) -> Result<Connection, EgressError> {
        if authority.cell() != self.0.cell {
            return Err(EgressError::OtherCell);
        }
        let opening = Opening {
            protocol: match &self.0.door {
                CellDoor::InProcess(_) => Protocol::InProcess,
                CellDoor::Network => Protocol::Tcp,
            },
            name: String::new(),
            local: None,
            remote: None,
            service: authority.name(),
            authority: authority.reference(),
            is_grant: authority.is_grant(),
        };
        let transport: Box<dyn Transport> = match &self.0.door {
            CellDoor::InProcess(service) => Box::new(InProcess::new(
                Arc::clone(service),
                Arc::clone(&self.0.ledger),
                opening,
            )),
            CellDoor::Network => Box::new(TlsTransport::new(Arc::clone(&self.0), opening)?),
        };
        Connection::new(Arc::clone(&self.0), authority, signer, transport)
    }
}

#[cfg(test)]
mod tests;
