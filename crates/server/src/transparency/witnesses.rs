//! Asking witnesses for cosignatures: C2SP tlog-witness, `add-checkpoint`, as a client.
//!
//! A witness is named in the cell's settings by its key and its address. What it answers proves itself
//! by its signature, so the connection is plain HTTP: nobody on the way can do more than be silent. What
//! it refuses with proves nothing: that it saw more, or something else, is believed only if it shows a
//! checkpoint that this log's key signed. One that does not answer, or not well, is left alone for a
//! while, so that it delays nobody.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use candor_log::checkpoint::{CHECKPOINT_MAX_BYTES, SignedCheckpoint};
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::tree::Consistency;
use candor_log::witness::{AddCheckpoint, origin_hash};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a witness is left alone after it did not answer.
const SILENCE: Duration = Duration::from_secs(30);

/// Longest reply, in bytes: a checkpoint.
const REPLY_MAX_BYTES: usize = CHECKPOINT_MAX_BYTES;

/// Why a line of the settings is no witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WitnessError {
    #[error("is not `KEY http://HOST:PORT/PREFIX`")]
    Form,
    #[error("is not the key of a witness")]
    Key,
}

/// Why a witness gave no cosignature.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("the witness was silent lately")]
    Resting,
    #[error("the witness does not answer")]
    Silent,
    #[error("the witness refused with status {0}")]
    Refused(StatusCode),
    #[error("the witness saw a larger tree: {0} entries")]
    Ahead(u64),
    #[error("the witness answered something else")]
    Malformed,
    #[error("no proof for the witness could be made")]
    Proof,
}

impl AskError {
    /// Whether it may be that the witness saw a larger tree than this cell's, or another one.
    pub(crate) const fn may_know_more(&self) -> bool {
        matches!(
            self,
            Self::Ahead(_) | Self::Refused(StatusCode::UNPROCESSABLE_ENTITY)
        )
    }
}

/// A witness as the cell knows it.
pub(crate) struct Witness {
    key: VerifierKey,
    host: String,
    prefix: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Size of the last head that it cosigned, as far as this process knows.
    size: u64,
    rests_until: Option<Instant>,
}

/// What came of offering a head.
enum Answer {
    Lines(String),
    Conflict(u64),
}

impl Witness {
    /// Reads a line of the settings: the witness's key, white space, and the prefix of its address.
    pub(crate) fn parse(line: &str) -> Result<Self, WitnessError> {
        let mut words = line.split_whitespace();
        let (Some(key), Some(address), None) = (words.next(), words.next(), words.next()) else {
            return Err(WitnessError::Form);
        };
        let key = VerifierKey::parse(key).map_err(|_| WitnessError::Key)?;
        if key.kind() != KeyKind::Cosigner {
            return Err(WitnessError::Key);
        }
        let rest = address.strip_prefix("http://").ok_or(WitnessError::Form)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = path.trim_end_matches('/');
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) || prefix.contains(['?', '#']) {
            return Err(WitnessError::Form);
        }
        Ok(Self {
            key,
            host: host.to_owned(),
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("/{prefix}")
            },
            state: Mutex::default(),
        })
    }

    pub(crate) const fn key(&self) -> &VerifierKey {
        &self.key
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Two numbers are sound whatever stopped a thread.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is left alone for now.
    pub(crate) fn is_resting(&self) -> bool {
        let resting = self.state().rests_until;
        resting.is_some_and(|until| until > Instant::now())
    }

    /// Leaves it alone for a while.
    pub(crate) fn rest(&self) {
        self.state().rests_until = Some(Instant::now() + SILENCE);
    }

    /// Asks for cosignatures, within `limit`. `prove` proves the checkpoint's head from an older size.
    pub(crate) async fn ask<F>(
        &self,
        checkpoint: &SignedCheckpoint,
        limit: Duration,
        prove: impl Fn(u64) -> F,
    ) -> Result<String, AskError>
    where
        F: Future<Output = Option<Consistency>>,
    {
        if self.is_resting() {
            return Err(AskError::Resting);
        }
        let asked = tokio::time::timeout(limit, self.offer(checkpoint, prove)).await;
        let outcome = asked.unwrap_or(Err(AskError::Silent));
        let mut state = self.state();
        match &outcome {
            Ok(_) => state.size = checkpoint.head().size,
            // Whoever asked looks into it.
            Err(error) if error.may_know_more() => {}
            Err(_) => state.rests_until = Some(Instant::now() + SILENCE),
        }
        outcome
    }

    async fn offer<F>(
        &self,
        checkpoint: &SignedCheckpoint,
        prove: impl Fn(u64) -> F,
    ) -> Result<String, AskError>
    where
        F: Future<Output = Option<Consistency>>,
    {
        let size = checkpoint.head().size;
        let mut old_size = self.state().size.min(size);
        // The second time with the size that the witness itself named.
        for _ in 0..2 {
            let proof = prove(old_size).await.ok_or(AskError::Proof)?;
            let offered = AddCheckpoint {
                old_size,
                proof,
                checkpoint: checkpoint.clone(),
            };
            match self.add_checkpoint(&offered).await? {
                Answer::Lines(lines) => return Ok(lines),
                Answer::Conflict(seen) if seen > size => return Err(AskError::Ahead(seen)),
                Answer::Conflict(seen) => old_size = seen,
            }
        }
        Err(AskError::Malformed)
    }

    async fn add_checkpoint(&self, offered: &AddCheckpoint) -> Result<Answer, AskError> {
        let path = format!("{}/add-checkpoint", self.prefix);
        let body = Bytes::from(offered.to_bytes());
        let (status, reply) = self.call(Method::POST, &path, body).await?;
        let text = String::from_utf8(reply).map_err(|_| AskError::Malformed)?;
        match status {
            StatusCode::OK => Ok(Answer::Lines(text)),
            StatusCode::CONFLICT => {
                let size = text.strip_suffix('\n').and_then(|size| size.parse().ok());
                size.map(Answer::Conflict).ok_or(AskError::Malformed)
            }
            other => Err(AskError::Refused(other)),
        }
    }

    /// The newest checkpoint of a log that the witness cosigned.
    pub(crate) async fn newest(
        &self,
        origin: &str,
        limit: Duration,
    ) -> Result<SignedCheckpoint, AskError> {
        let path = format!("{}/{}/checkpoint", self.prefix, origin_hash(origin));
        let asked = self.call(Method::GET, &path, Bytes::new());
        let (status, reply) = tokio::time::timeout(limit, asked)
            .await
            .map_err(|_| AskError::Silent)??;
        if status != StatusCode::OK {
            return Err(AskError::Refused(status));
        }
        let checkpoint = SignedCheckpoint::parse(&reply).map_err(|_| AskError::Malformed)?;
        let is_its = checkpoint.origin() == origin && checkpoint.cosigned_by(&self.key).is_some();
        is_its.then_some(checkpoint).ok_or(AskError::Malformed)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Vec<u8>), AskError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where a cell calls somebody: the witnesses in its settings"
        )]
        let stream = TcpStream::connect(&self.host).await;
        let stream = TokioIo::new(stream.map_err(|_| AskError::Silent)?);
        let (mut sender, connection) = http1::handshake(stream)
            .await
            .map_err(|_| AskError::Silent)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .body(Full::new(body))
            .map_err(|_| AskError::Malformed)?;
        let exchange = async {
            let reply = sender.send_request(request).await.ok()?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), REPLY_MAX_BYTES).collect();
            Some((status, body.await.ok()?.to_bytes().to_vec()))
        };
        tokio::pin!(exchange);
        let mut connection = core::pin::pin!(connection);
        let exchanged = tokio::select! {
            done = &mut exchange => done,
            // The other side may close right after its reply: what came is still to be read.
            _ = &mut connection => exchange.await,
        };
        exchanged.ok_or(AskError::Silent)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candor_wire::sign::Ed25519Secret;

    #[test]
    fn a_line_of_the_settings_names_a_key_and_an_address() {
        let public = Ed25519Secret::from_seed(&[3; 32]).public();
        let key = VerifierKey::new("friend.example/w", KeyKind::Cosigner, public).unwrap();
        let witness = Witness::parse(&format!(" {key}  http://192.0.2.3:7480/w/ ")).unwrap();
        assert_eq!(
            (witness.host.as_str(), witness.prefix.as_str()),
            ("192.0.2.3:7480", "/w")
        );
        for address in [
            "https://a:1",
            "http://a",
            "a:1",
            "http://a:x/",
            "http://a:1/?q",
            "",
        ] {
            let refused = Witness::parse(&format!("{key} {address}"));
            assert_eq!(
                refused.map(|_| ()).unwrap_err(),
                WitnessError::Form,
                "{address}"
            );
        }
        let log = VerifierKey::new("log.example", KeyKind::Log, public).unwrap();
        let refused = Witness::parse(&format!("{log} http://a:1"));
        assert_eq!(refused.map(|_| ()).unwrap_err(), WitnessError::Key);
    }
}
