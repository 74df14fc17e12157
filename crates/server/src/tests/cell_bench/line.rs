//! One connection of one device: HTTP/1.1 over TLS 1.3, by hand, so that nothing
//! but the cell's work is between a request and its reply.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candor_wire::api::{ErrorCode, ErrorReply};
use candor_wire::cbor;
use candor_wire::cell::{authority, cell_id};
use candor_wire::sign::Ed25519Public;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::listening::trust;

/// How much is read at once, in bytes: a TLS record and more.
const READ_BYTES: usize = 64 * 1024;

/// What is sent of zeros at once.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// How long a reply is waited for: longer than anything that the cell promises.
const REPLY_WAIT: Duration = Duration::from_secs(120);

/// So many zeros, piece by piece.
pub(super) fn pieces_of_zeros(count: usize) -> impl Iterator<Item = &'static [u8]> {
    let starts = (0..count).step_by(ZEROS.len());
    starts.map(move |start| &ZEROS[..ZEROS.len().min(count - start)])
}

/// A request, ready to be sent.
pub(super) struct Sent {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// How many zeros follow the body, and belong to it.
    pub(super) zeros: usize,
}

impl Sent {
    /// `headers` are whole lines.
    pub(super) fn new(method: &str, path: &str, headers: &str, body: &[u8], zeros: usize) -> Self {
        let length = match (method, body.len() + zeros) {
            ("GET", 0) => String::new(),
            (_, length) => format!("content-length: {length}\r\n"),
        };
        Self {
            head: format!("{method} {path} HTTP/1.1\r\nhost: cell\r\n{headers}{length}\r\n").into(),
            body: body.to_vec(),
            zeros,
        }
    }
}

/// What came back, and when.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// From before the first byte was sent until the last one was read.
    pub(super) whole: Duration,
}

impl Reply {
    /// Whether it is a success.
    pub(super) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What it refuses with.
    pub(super) fn error(&self) -> Option<ErrorCode> {
        let reply = cbor::decode::<ErrorReply>(&self.body);
        reply.ok().map(|reply| reply.code)
    }
}

/// An open connection.
pub(super) struct Line {
    pub(super) stream: TlsStream<TcpStream>,
    read: Vec<u8>,
}

impl Line {
    /// Connects from the machine's own address `127.0.source.1`, and shakes hands.
    pub(super) async fn open(
        address: SocketAddr,
        root: &Ed25519Public,
        source: u8,
    ) -> io::Result<Self> {
        let stream = Self::tcp(address, source).await?;
        let name = ServerName::try_from(authority(&cell_id(root))).unwrap();
        let stream = TlsConnector::from(config(root))
            .connect(name, stream)
            .await?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    /// The connection below.
    pub(super) async fn tcp(address: SocketAddr, source: u8) -> io::Result<TcpStream> {
        #[expect(clippy::disallowed_methods, reason = "the measurement is many devices")]
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, source, 1), 0)))?;
        #[expect(clippy::disallowed_methods, reason = "the measurement is many devices")]
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends a request and reads the whole reply.
    pub(super) async fn ask(&mut self, sent: &Sent) -> io::Result<Reply> {
        let began = Instant::now();
        self.stream.write_all(&sent.head).await?;
        self.send_body(sent, sent.zeros).await?;
        self.stream.flush().await?;
        let (status, body) = tokio::time::timeout(REPLY_WAIT, self.reply())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(Reply {
            status,
            body,
            whole: began.elapsed(),
        })
    }

    /// Sends a body with so many of its zeros.
    pub(super) async fn send_body(&mut self, sent: &Sent, zeros: usize) -> io::Result<()> {
        self.stream.write_all(&sent.body).await?;
        for piece in pieces_of_zeros(zeros) {
            self.stream.write_all(piece).await?;
        }
        Ok(())
    }

    async fn reply(&mut self) -> io::Result<(u16, Vec<u8>)> {
        let (head, status, length) = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
                let status = text.get(9..12).and_then(|code| code.parse().ok());
                let length = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let status: u16 = status.ok_or(io::ErrorKind::InvalidData)?;
                break (end + 4, status, length.unwrap_or(0_usize));
            }
            self.more().await?;
        };
        while self.read.len() < head + length {
            self.more().await?;
        }
        let body = self.read[head..head + length].to_vec();
        self.read.drain(..head + length);
        Ok((status, body))
    }

    async fn more(&mut self) -> io::Result<()> {
        self.read.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn config(root: &Ed25519Public) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.roots.push(trust(&cell_id(root), root));
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}
