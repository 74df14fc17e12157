//! TLS 1.3 to a cell whose root key is pinned.
//!
//! 1. The trust store holds one anchor: the cell's root key, under the name `CN=<cell id>`. No
//!    certificate authority, no system store. The server's certificate is issued by that key for the
//!    name [`candor_wire::cell::authority`], whatever address is dialled.
//! 2. TLS 1.3 only, no early data, no session tickets: each connection proves everything anew.
//! 3. HTTP/1.1 over it, kept alive; two lanes, so that one object is on its way while the cell makes
//!    another durable. Each lane is a TCP connection with a ledger line of its own, written before
//!    the first packet. A request that waits for news has a lane to itself meanwhile: the others do not wait with it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use candor_wire::cell::{authority, cell_id};
use candor_wire::sign::Ed25519Public;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls_pki_types::{Der, ServerName, TrustAnchor, UnixTime};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::counting::Counted;
use super::in_process::collect;
use super::{
    Allowance, BoxFuture, EgressError, Shared, Transport, TransportError, on_the_runtime, tcp_info,
};
use crate::clock::Clock;
use crate::ledger::{Counts, DataClass, Opening, Protocol};

/// Connections side by side under one authority; see the module.
pub const LANES: usize = 2;

/// Longest wait for a TCP connection, in seconds: more than three lost first packets take.
pub const CONNECT_SECONDS: u64 = 10;

/// Longest wait for a TLS handshake, in seconds.
pub const HANDSHAKE_SECONDS: u64 = 10;

/// Longest wait for a reply, in seconds, beyond the time that the bytes themselves may take.
pub const REPLY_SECONDS: u64 = 60;

/// Longest time, in seconds, by which a reply that waits for news comes later than the cell may keep it back: a line on
/// which nothing comes any more is given up sooner than one on which a reply is slow.
pub const WAIT_MARGIN_SECONDS: u64 = 15;

/// Idle lanes that are kept for the next request that waits: one for each vault that a device usually waits for.
const WAITING_LANES_KEPT_MAX: usize = 4;

/// The slowest line on which a transfer is waited for, in bytes a second.
pub const SLOWEST_BYTES_PER_SECOND: u64 = 16 * 1024;

/// Longest wait for the polite end of a connection, in seconds.
const CLOSE_SECONDS: u64 = 2;

/// Most socket addresses that are tried for one name: a name that resolves to thousands is no cell.
const ADDRESSES_PER_NAME_MAX: usize = 8;

/// The device's clock, as rustls asks for it.
struct CertificateTime(Arc<dyn Clock>);

impl std::fmt::Debug for CertificateTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateTime")
    }
}

impl rustls::time_provider::TimeProvider for CertificateTime {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.now().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// The one trust anchor. Both fields are DER without the outermost tag and length, as webpki keeps
/// them.
fn anchor(root: &Ed25519Public) -> TrustAnchor<'static> {
    const TEXT_BYTES: u8 = 32;
    let name = cell_id(root).to_string();
    debug_assert_eq!(
        name.len(),
        usize::from(TEXT_BYTES),
        "a cell id has 32 digits"
    );
    // SET { SEQUENCE { OID 2.5.4.3 (commonName), UTF8String } } (RFC 5280 §4.1.2.4)
    let mut subject = vec![
        0x31,
        TEXT_BYTES + 9,
        0x30,
        TEXT_BYTES + 7,
        0x06,
        3,
        0x55,
        0x04,
        0x03,
    ];
    subject.extend_from_slice(&[0x0c, TEXT_BYTES]);
    subject.extend_from_slice(name.as_bytes());
    // SEQUENCE { OID 1.3.101.112 (Ed25519) }, BIT STRING (RFC 8410 §4)
    let mut key = vec![0x30, 5, 0x06, 3, 0x2b, 0x65, 0x70, 0x03, 33, 0];
    key.extend_from_slice(root.as_bytes());
    TrustAnchor {
        subject: Der::from(subject),
        subject_public_key_info: Der::from(key),
        name_constraints: None,
    }
}

fn client_config(
    root: &Ed25519Public,
    clock: &Arc<dyn Clock>,
) -> Result<rustls::ClientConfig, EgressError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.roots.push(anchor(root));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let time = Arc::new(CertificateTime(Arc::clone(clock)));
    let mut config = rustls::ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| EgressError::Pinned)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// One TCP connection. Dropping it ends it at once.
struct Lane {
    sender: SendRequest<Full<Bytes>>,
    task: Driver,
    counts: Arc<Counts>,
}

/// The task that moves a connection's bytes. Ends with this value.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The transport over the network.
pub(super) struct TlsTransport {
    shared: Arc<Shared>,
    opening: Opening,
    connector: TlsConnector,
    name: ServerName<'static>,
    lanes: [Mutex<Option<Lane>>; LANES],
    /// Lanes on which requests waited, for the next that do.
    waiting: std::sync::Mutex<Vec<Lane>>,
    next: AtomicUsize,
}

impl TlsTransport {
    pub(super) fn new(shared: Arc<Shared>, opening: Opening) -> Result<Self, EgressError> {
        let config = client_config(&shared.root, &shared.clock)?;
        let name =
            ServerName::try_from(authority(&shared.cell)).map_err(|_| EgressError::Pinned)?;
        Ok(Self {
            shared,
            opening,
            connector: TlsConnector::from(Arc::new(config)),
            name,
            lanes: [const { Mutex::const_new(None) }; LANES],
            waiting: std::sync::Mutex::default(),
            next: AtomicUsize::new(0),
        })
    }

    /// A lane that nobody uses, or else the one whose turn it is.
    async fn lane(&self) -> MutexGuard<'_, Option<Lane>> {
        if let Some(free) = self.lanes.iter().find_map(|lane| lane.try_lock().ok()) {
            return free;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % LANES;
        self.lanes[turn].lock().await
    }

    async fn connect(&self) -> Result<Lane, TransportError> {
        let mut last = TransportError::not_connected(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "the invitation has no address",
        ));
        for address in &self.shared.addresses {
            let sockets = match self.resolve(address).await {
                Ok(sockets) => sockets,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            for socket in sockets {
                match self.connect_to(address, socket).await {
                    Ok(lane) => return Ok(lane),
                    // Somebody else sits at the cell's address: that is told, never stepped over.
                    Err(error @ (TransportError::Identity(_) | TransportError::Ledger(_))) => {
                        return Err(error);
                    }
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, TransportError> {
        if let Ok(socket) = address.parse() {
            return Ok(vec![socket]);
        }
        let opening = Opening {
            protocol: Protocol::NameLookup,
            name: address.to_owned(),
            ..self.opening.clone()
        };
        let line = self
            .shared
            .ledger
            .begin(&opening)
            .map_err(TransportError::Ledger)?;
        let address = address.to_owned();
        let found = on_the_runtime(async move {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the egress: the lookup has a ledger line"
            )]
            let found = tokio::net::lookup_host(address).await?;
            Ok(found.take(ADDRESSES_PER_NAME_MAX).collect())
        });
        let found = found.await?.map_err(TransportError::not_connected)?;
        line.finish().map_err(TransportError::Ledger)?;
        Ok(found)
    }

    /// A bound socket, so that the ledger can name the port before the first packet.
    fn socket(remote: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the egress: the socket has a ledger line"
        )]
        let socket = if remote.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        let any: SocketAddr = if remote.is_ipv4() {
            (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        socket.bind(any)?;
        let local = socket.local_addr()?;
        Ok((socket, local))
    }

    async fn connect_to(&self, name: &str, remote: SocketAddr) -> Result<Lane, TransportError> {
        let (socket, local) = Self::socket(remote).map_err(TransportError::not_connected)?;
        let opening = Opening {
            name: name.to_owned(),
            local: Some(local),
            remote: Some(remote),
            ..self.opening.clone()
        };
        let mut line = self
            .shared
            .ledger
            .begin(&opening)
            .map_err(TransportError::Ledger)?;
        let connect = connect_bounded(socket, remote);
        let stream = connect.await.map_err(TransportError::not_connected)?;
        if let Ok(local) = stream.local_addr() {
            line.set_local(local);
        }
        let counts = line.counts();
        let stream = Counted::cipher(stream, line, |stream: &TcpStream, counts: &Counts| {
            if let Some(segments) = tcp_info::retransmitted_segments(stream) {
                counts.set_retransmitted(segments);
            }
        });
        let handshake = self.connector.connect(self.name.clone(), stream);
        let stream = timeout(Duration::from_secs(HANDSHAKE_SECONDS), handshake)
            .await
            .map_err(|elapsed| TransportError::NotConnected(Box::new(elapsed)))?
            .map_err(handshake_error)?;
        let stream = TokioIo::new(Counted::plain(stream, Arc::clone(&counts)));
        let (sender, connection) = http1::Builder::new()
            .handshake(stream)
            .await
            .map_err(|error| TransportError::NotConnected(Box::new(error)))?;
        // Errors come out of the request that was under way.
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Lane {
            sender,
            task: Driver(task),
            counts,
        })
    }

    async fn exchange(
        lane: &mut Lane,
        request: http::Request<Bytes>,
        allowance: Allowance,
    ) -> Result<http::Response<Bytes>, TransportError> {
        // The last reply was read to its end a moment ago; the connection may not have noticed yet.
        let ready = lane.sender.ready().await;
        ready.map_err(|error| TransportError::Broken(Box::new(error)))?;
        let answer = lane.sender.send_request(request.map(Full::new));
        let answered = if allowance.wait.is_zero() {
            answer.await
        } else {
            let longest = allowance.wait + Duration::from_secs(WAIT_MARGIN_SECONDS);
            let answered = timeout(longest, answer).await;
            answered.map_err(|_| TransportError::TimedOut)?
        };
        let reply = answered.map_err(|error| TransportError::Broken(Box::new(error)))?;
        let (parts, body) = reply.into_parts();
        let body = collect(body, allowance.reply_max_bytes).await?;
        Ok(http::Response::from_parts(parts, body))
    }

    /// One request on one lane, within its time.
    async fn call_on(
        lane: &mut Lane,
        request: http::Request<Bytes>,
        allowance: Allowance,
        classes: &'static [DataClass],
    ) -> Result<http::Response<Bytes>, TransportError> {
        classes
            .iter()
            .for_each(|class| lane.counts.add_class(*class));
        let bytes = request.body().len().max(allowance.reply_max_bytes) as u64;
        let patience = Duration::from_secs(REPLY_SECONDS + bytes / SLOWEST_BYTES_PER_SECOND);
        let exchange = Self::exchange(lane, request, allowance);
        timeout(patience + allowance.wait, exchange)
            .await
            .map_err(|_| TransportError::TimedOut)?
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Lane>> {
        // Lanes are put in and taken out whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that the cell may keep waiting, on a lane to itself. Given up, it takes the lane with it.
    async fn wait(
        &self,
        request: http::Request<Bytes>,
        allowance: Allowance,
        classes: &'static [DataClass],
    ) -> Result<http::Response<Bytes>, TransportError> {
        let kept = self.waiting().pop();
        let mut lane = match kept {
            Some(lane) if !lane.sender.is_closed() => lane,
            _ => self.connect().await?,
        };
        let reply = Self::call_on(&mut lane, request, allowance, classes).await?;
        let mut waiting = self.waiting();
        if waiting.len() < WAITING_LANES_KEPT_MAX {
            waiting.push(lane);
        }
        Ok(reply)
    }
}

async fn connect_bounded(socket: TcpSocket, remote: SocketAddr) -> io::Result<TcpStream> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the egress: the connection has a ledger line"
    )]
    let connect = socket.connect(remote);
    let stream = timeout(Duration::from_secs(CONNECT_SECONDS), connect)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Tells a peer that is not the cell from a line that broke.
fn handshake_error(error: io::Error) -> TransportError {
    use rustls::Error as Tls;
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Tls>());
    let is_not_the_cell = matches!(
        cause,
        Some(
            Tls::InvalidCertificate(_)
                | Tls::NoCertificatesPresented
                | Tls::UnsupportedNameType
                | Tls::PeerIncompatible(_)
                | Tls::PeerMisbehaved(_)
                | Tls::InvalidMessage(_)
                | Tls::InappropriateMessage { .. }
                | Tls::InappropriateHandshakeMessage { .. }
        )
    );
    if is_not_the_cell {
        TransportError::Identity(Box::new(error))
    } else {
        TransportError::NotConnected(Box::new(error))
    }
}

impl Transport for TlsTransport {
    fn call<'a>(
        &'a self,
        request: http::Request<Bytes>,
        allowance: Allowance,
        classes: &'static [DataClass],
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        Box::pin(async move {
            if !allowance.wait.is_zero() {
                return self.wait(request, allowance, classes).await;
            }
            let mut slot = self.lane().await;
            // Taken out while it is in use: whoever gives this future up in the middle ends the lane,
            // so that no reply is ever taken for the answer to another request.
            let mut lane = match slot.take() {
                Some(lane) if !lane.sender.is_closed() => lane,
                _ => self.connect().await?,
            };
            let reply = Self::call_on(&mut lane, request, allowance, classes).await?;
            *slot = Some(lane);
            Ok(reply)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for lane in &self.lanes {
                let Some(lane) = lane.lock().await.take() else {
                    continue;
                };
                end(lane).await;
            }
            let waiting = std::mem::take(&mut *self.waiting());
            for lane in waiting {
                end(lane).await;
            }
        })
    }
}

/// Says goodbye, and waits until the last byte was counted.
async fn end(lane: Lane) {
    let Lane {
        sender, mut task, ..
    } = lane;
    // Without its sender the connection shuts down by itself.
    drop(sender);
    if timeout(Duration::from_secs(CLOSE_SECONDS), &mut task.0)
        .await
        .is_err()
    {
        task.0.abort();
        let _ = (&mut task.0).await;
    }
}
