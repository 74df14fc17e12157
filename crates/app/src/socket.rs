//! A Unix socket between processes of one person: bound with mode 0600, both ends look at the other's
//! user id, and messages are lines of JSON with a bound on their length.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

/// Longest message. The longest ones are lists of snapshots: tens of thousands fit.
const MESSAGE_MAX_BYTES: usize = 16 << 20;

/// Longest path that fits into a socket's address on every platform, its end included.
const ADDRESS_MAX_BYTES: usize = 100;

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Nobody listens.
    #[error("nobody listens there")]
    Nobody,
    /// The process at the other end belongs to somebody else.
    #[error("the process at the other end of the socket belongs to user {uid}")]
    Foreign {
        /// The other's user id.
        uid: u32,
    },
    /// The other end sent something that is no message.
    #[error("the other end sent something that is no message")]
    Malformed,
    /// The connection failed.
    #[error("the connection failed")]
    Broken(#[source] io::Error),
}

/// A listening socket; its file goes away with it.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds. What lies at `path` is removed: whoever calls this holds the lock that says that nobody
    /// else listens there. Must be called within a runtime.
    #[expect(
        clippy::disallowed_methods,
        reason = "the program's own listener, on a file, not on a network"
    )]
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        // Under another name until its mode is right: nobody else can connect in between.
        let beside = path.with_extension("new");
        crate::home::remove_if_there(&beside)?;
        let address = Address::of(&beside)?;
        let listener = UnixListener::bind(&address.path)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&beside, path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// The next connection from a process of this person. Others are dropped without a word.
    pub(crate) async fn accept(&self) -> io::Result<Channel> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            if let Ok(channel) = Channel::new(stream) {
                return Ok(channel);
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A file that stays is no harm: the next one to listen removes it.
        let _ = crate::home::remove_if_there(&self.path);
    }
}

/// A connection to a process of this person.
#[derive(Debug)]
pub(crate) struct Channel {
    /// What comes.
    pub(crate) receiver: Receiver,
    /// What goes.
    pub(crate) sender: Sender,
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver(BufReader<OwnedReadHalf>);

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender(OwnedWriteHalf);

impl Channel {
    /// Connects to whoever listens at `path`.
    #[expect(
        clippy::disallowed_methods,
        reason = "to the program's own listener, on a file, not on a network"
    )]
    pub(crate) async fn connect(path: &Path) -> Result<Self, SocketError> {
        let address = Address::of(path).map_err(|_| SocketError::Nobody)?;
        match UnixStream::connect(&address.path).await {
            Ok(stream) => Self::new(stream),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(SocketError::Nobody)
            }
            Err(error) => Err(SocketError::Broken(error)),
        }
    }

    fn new(stream: UnixStream) -> Result<Self, SocketError> {
        let uid = stream.peer_cred().map_err(SocketError::Broken)?.uid();
        if uid != rustix::process::geteuid().as_raw() {
            return Err(SocketError::Foreign { uid });
        }
        let (read, write) = stream.into_split();
        Ok(Self {
            receiver: Receiver(BufReader::new(read)),
            sender: Sender(write),
        })
    }
}

impl Receiver {
    /// The next message; `None` when the other end closed. Not to be dropped half-way: what was read
    /// of a message would be lost with it.
    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, SocketError> {
        let mut line = Vec::new();
        loop {
            let available = self.0.fill_buf().await.map_err(SocketError::Broken)?;
            if available.is_empty() {
                return if line.is_empty() {
                    Ok(None)
                } else {
                    Err(SocketError::Malformed)
                };
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            if line.len() + part.len() > MESSAGE_MAX_BYTES {
                return Err(SocketError::Malformed);
            }
            line.extend_from_slice(part);
            let consumed = part.len() + usize::from(end.is_some());
            self.0.consume(consumed);
            if end.is_some() {
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|_| SocketError::Malformed);
            }
        }
    }
}

impl Sender {
    /// Sends a message.
    pub(crate) async fn send<T: Serialize + Sync>(
        &mut self,
        message: &T,
    ) -> Result<(), SocketError> {
        let mut line = serde_json::to_vec(message).map_err(|_| SocketError::Malformed)?;
        line.push(b'\n');
        self.0.write_all(&line).await.map_err(SocketError::Broken)
    }
}

/// A path that fits into a socket's address, whatever the length of the real one.
struct Address {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl Address {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() < ADDRESS_MAX_BYTES {
            return Ok(Self {
                path: path.to_owned(),
                _folder: None,
            });
        }
        let missing = || io::Error::from(io::ErrorKind::InvalidInput);
        let (folder, name) = (
            path.parent().ok_or_else(missing)?,
            path.file_name().ok_or_else(missing)?,
        );
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let path = Path::new("/proc/self/fd")
            .join(folder.as_raw_fd().to_string())
            .join(name);
        Ok(Self {
            path,
            _folder: Some(folder),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn messages_arrive_and_the_file_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        // Longer than any socket's address may be.
        let deep = folder.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("test.sock");
        runtime().block_on(async {
            let listener = Listener::bind(&path).unwrap();
            let mut here = Channel::connect(&path).await.unwrap();
            let mut there = listener.accept().await.unwrap();
            here.sender.send(&vec!["one", "two\n"]).await.unwrap();
            assert_eq!(
                there
                    .receiver
                    .receive::<Vec<String>>()
                    .await
                    .unwrap()
                    .unwrap(),
                ["one", "two\n"]
            );
            drop(here);
            assert!(
                there
                    .receiver
                    .receive::<Vec<String>>()
                    .await
                    .unwrap()
                    .is_none()
            );
        });
        assert!(!path.exists());
        runtime().block_on(async {
            assert!(matches!(
                Channel::connect(&path).await,
                Err(SocketError::Nobody)
            ));
        });
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.sock");
        runtime().block_on(async {
            let listener = Listener::bind(&path).unwrap();
            let mut here = Channel::connect(&path).await.unwrap();
            let mut there = listener.accept().await.unwrap();
            here.sender.0.write_all(b"{\n").await.unwrap();
            assert!(matches!(
                there.receiver.receive::<u32>().await,
                Err(SocketError::Malformed)
            ));
            here.sender.0.write_all(b"1").await.unwrap();
            drop(here);
            assert!(matches!(
                there.receiver.receive::<u32>().await,
                Err(SocketError::Malformed)
            ));
        });
    }

    #[test]
    fn a42_the_socket_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.sock");
        runtime().block_on(async {
            let _listener = Listener::bind(&path).unwrap();
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        });
    }
}
