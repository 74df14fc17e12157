//! The cell's listeners: TLS 1.3 for devices, plain HTTP on loopback for its operator, and, where the
//! settings say so, plain HTTP for whoever reads the transparency log: what is there proves itself.
//!
//! Everything that a stranger can make the cell hold is bounded: the number of connections, the time
//! of a handshake, of headers, of bodies and of replies that nobody reads.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::gate::{HEADERS_MAX, HEADERS_MAX_BYTES};
use crate::log::{Cause, Event};
use crate::random;
use crate::routes::{self, Connected};
use crate::shared::Shared;
use crate::shares::Shares;
use crate::stall::Stall;
use crate::tls::{self, Leaf, TlsError};
use crate::turns::{Holder, Seat};

/// Ports that a new cell chooses from. They are below those that operating systems hand out for
/// outgoing connections, so that the port is still free at the next start.
const PORTS: core::ops::Range<u16> = 20_000..30_000;

/// How many ports are tried.
const PORT_TRIES_MAX: usize = 64;

/// Connections to the operator's listener at one time: a scraper, a health check, a person.
const OBSERVERS_MAX: usize = 16;

/// Connections of strangers who read the log at one time. They are apart from those of devices, so that
/// no reader stands in the way of a backup.
const READERS_MAX: usize = 64;

/// How much of a request or a reply is buffered for one connection, in bytes: a piece that is hashed or encrypted in a
/// tenth of a millisecond, so that no connection keeps the others on its thread waiting.
const BUFFER_MAX_BYTES: usize = 128 * 1024;

/// How often the certificate is issued anew.
const RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait when no connection can be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the cell cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken or not this machine's.
    #[error("nothing can listen at {address}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls(#[source] TlsError),
}

/// Open listeners. Dropping it closes them.
pub struct Listening {
    shared: Arc<Shared>,
    devices: TcpListener,
    observers: TcpListener,
    readers: Option<TcpListener>,
    address: SocketAddr,
    metrics_address: SocketAddr,
    log_address: Option<SocketAddr>,
    leaf: Arc<Leaf>,
    acceptor: TlsAcceptor,
}

/// `listen` with a port that is free now and likely to be free later, if it names none.
pub(crate) fn choose_port(listen: SocketAddr) -> io::Result<SocketAddr> {
    if listen.port() != 0 {
        return Ok(listen);
    }
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES_MAX {
        let random = u16::from_le_bytes(random::bytes().map_err(io::Error::other)?);
        let port = PORTS.start + random % (PORTS.end - PORTS.start);
        let address = SocketAddr::new(listen.ip(), port);
        #[expect(
            clippy::disallowed_methods,
            reason = "the cell's listeners are opened in this module"
        )]
        match std::net::TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let fault = |source| ServeError::Address { address, source };
    #[expect(
        clippy::disallowed_methods,
        reason = "the cell's listeners are opened in this module"
    )]
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    Ok((listener, bound))
}

pub(crate) async fn bind(shared: &Arc<Shared>) -> Result<Listening, ServeError> {
    let leaf = Arc::new(Leaf::issue(shared).map_err(ServeError::Tls)?);
    let config = tls::server_config(Arc::clone(&leaf)).map_err(ServeError::Tls)?;
    let (devices, address) = listen(shared.config.listen).await?;
    let (observers, metrics_address) = listen(shared.config.metrics_listen).await?;
    let (readers, log_address) = match shared.config.log.listen_address() {
        Some(address) => {
            let (readers, address) = listen(address).await?;
            (Some(readers), Some(address))
        }
        None => (None, None),
    };
    Ok(Listening {
        shared: Arc::clone(shared),
        devices,
        observers,
        readers,
        log_address,
        address,
        metrics_address,
        leaf,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    })
}

impl Listening {
    /// Where devices reach the cell.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub const fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Where anybody can read the log, below `/log/`, if the settings name an address.
    pub const fn log_address(&self) -> Option<SocketAddr> {
        self.log_address
    }

    /// Accepts and answers until `shutdown` is ready. Then no connection is accepted any more,
    /// running requests finish within the configured time, and everything is closed.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let shared = self.shared;
        let seconds = |count: u32| Duration::from_secs(u64::from(count));
        let limits = &shared.config.limits;
        let room = usize::try_from(limits.connections_max).unwrap_or(1);
        let (devices_room, observers_room, readers_room) = (
            Arc::new(Semaphore::new(room)),
            Arc::new(Semaphore::new(OBSERVERS_MAX)),
            Arc::new(Semaphore::new(READERS_MAX)),
        );
        let per_address = usize::try_from(limits.connections_per_address_max).unwrap_or(1);
        let shares = Shares::new(per_address);
        let turns = &shared.turns;
        let (stop, stopped) = watch::channel(false);
        let (service, observation) = (routes::router(&shared), routes::observation_router(&shared));
        let public = routes::log_router(&shared);
        let mut connections = JoinSet::new();
        let mut renewal = tokio::time::interval(RENEWAL);
        let mut shutdown = core::pin::pin!(shutdown);
        shared.log.line(shared.clock.now(), Event::Started, &[]);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                _ = renewal.tick() => {
                    if self.leaf.renew(&shared).is_err() {
                        // The one in use is good for weeks.
                        shared.fault(Cause::Certificate);
                    }
                }
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                (stream, permit) = accept(&shared, &self.devices, &devices_room) => {
                    // Who has too many already is let go without a word: each of them could be the last one.
                    let host = host_of(&stream);
                    let Some((host, share)) = host.and_then(|host| Some((host, shares.try_take(host)?))) else {
                        shared.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    let seat = turns.seat(Holder::Address(host));
                    let connection = Connection {
                        shared: Arc::clone(&shared),
                        service: service.clone(),
                        stopped: stopped.clone(),
                        seat: Some(Arc::clone(&seat)),
                        _permits: [Some(permit), Some(share)],
                    };
                    connections.spawn(seat.of(connection.over_tls(stream, self.acceptor.clone())));
                }
                (stream, permit) = accept(&shared, &self.observers, &observers_room) => {
                    let connection = Connection {
                        shared: Arc::clone(&shared),
                        service: observation.clone(),
                        stopped: stopped.clone(),
                        seat: None,
                        _permits: [Some(permit), None],
                    };
                    connections.spawn(connection.serve(stream));
                }
                (stream, permit) = accept_reader(&shared, self.readers.as_ref(), &readers_room) => {
                    let Some(host) = host_of(&stream) else { continue };
                    let seat = turns.seat(Holder::Address(host));
                    let connection = Connection {
                        shared: Arc::clone(&shared),
                        service: public.clone(),
                        stopped: stopped.clone(),
                        seat: Some(Arc::clone(&seat)),
                        _permits: [Some(permit), None],
                    };
                    connections.spawn(seat.of(connection.serve(stream)));
                }
            }
        }
        shared.stop();
        shared.log.line(shared.clock.now(), Event::Stopping, &[]);
        drop((self.devices, self.observers, self.readers));
        let _ = stop.send(true);
        let finished = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(seconds(limits.shutdown_timeout_seconds), finished).await;
        connections.shutdown().await;
        shared.log.line(shared.clock.now(), Event::Stopped, &[]);
    }
}

/// The next connection, once there is room for it.
async fn accept(
    shared: &Shared,
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(room).acquire_owned().await else {
            core::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(_) => {
                shared.fault(Cause::Accept);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One network address, as far as it tells hosts apart: an IPv6 host has a whole /64 to choose from.
fn host_of(stream: &TcpStream) -> Option<IpAddr> {
    const HOST_BITS: u32 = 64;
    Some(match stream.peer_addr().ok()?.ip().to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> HOST_BITS << HOST_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    })
}

/// The same for the log's readers; never, where they have no listener.
async fn accept_reader(
    shared: &Shared,
    listener: Option<&TcpListener>,
    room: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    match listener {
        Some(listener) => accept(shared, listener, room).await,
        None => core::future::pending().await,
    }
}

struct Connection {
    shared: Arc<Shared>,
    service: Router,
    stopped: watch::Receiver<bool>,
    /// Whose turns this connection has. The operator's has no need of them.
    seat: Option<Arc<Seat>>,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Connection {
    async fn over_tls(self, stream: TcpStream, acceptor: TlsAcceptor) {
        let _connected = Connected::new(&self.shared);
        // Replies go out as they are written; where that fails, they only come later.
        let _ = stream.set_nodelay(true);
        let longest = Duration::from_secs(u64::from(
            self.shared.config.limits.handshake_timeout_seconds,
        ));
        let mut stopped = self.stopped.clone();
        let handshake = async {
            tokio::select! {
                done = tokio::time::timeout(longest, acceptor.accept(stream)) => done.ok().and_then(Result::ok),
                _ = stopped.changed() => None,
            }
        };
        match handshake.await {
            Some(stream) => self.serve(stream).await,
            None => {
                self.shared
                    .metrics
                    .handshakes_failed
                    .fetch_add(1, Ordering::Relaxed);
                self.shared
                    .log
                    .line(self.shared.clock.now(), Event::HandshakeFailed, &[]);
            }
        }
    }

    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let limits = &self.shared.config.limits;
        let seconds = |count: u32| Duration::from_secs(u64::from(count));
        let guarded = Stall::new(stream, seconds(limits.stall_timeout_seconds));
        let (seat, service) = (
            self.seat.take(),
            TowerToHyperService::new(self.service.clone()),
        );
        let seated = service_fn(move |mut request| {
            if let Some(seat) = &seat {
                request.extensions_mut().insert(Arc::clone(seat));
            }
            service.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(seconds(limits.header_timeout_seconds))
            .max_headers(HEADERS_MAX)
            .max_header_size(HEADERS_MAX_BYTES)
            .max_buf_size(BUFFER_MAX_BYTES)
            .serve_connection(TokioIo::new(guarded), seated);
        let mut connection = core::pin::pin!(connection);
        tokio::select! {
            // How a connection ends is the other side's business.
            _ = connection.as_mut() => return,
            _ = self.stopped.changed() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}
