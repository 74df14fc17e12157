//! Bodies of requests: read in pieces, bounded in size and time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use candor_wire::api::ErrorCode;
use candor_wire::ids::{AccountId, ObjectId};
use candor_wire::limits::OBJECT_MAX_BYTES;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::config::Limits;
use crate::log::Cause;
use crate::pace::Pace;
use crate::reply::Refusal;

/// From this size on a piece is hashed on a thread of its own, in bytes: about a quarter of a
/// millisecond of hashing, beyond which others on this thread would wait noticeably.
const ELSEWHERE_MIN_BYTES: usize = 512 * 1024;

/// How much of a body is taken before others on this thread get their turn, in bytes: about a tenth of a millisecond of
/// decrypting and hashing. Where the next piece is always there already, on a fast line, a body would else be read for
/// many milliseconds at once.
const TURN_BYTES: u64 = 128 * 1024;

/// The pause after so much of a refused body: 32 MiB in a second. Nothing becomes of these bytes, so that they are in
/// no hurry, and cost nobody much however many of them come.
const REFUSED_PAUSE: Duration = Duration::from_millis(4);

/// A request's body. Whatever becomes of the request, [`Self::drain`] is called in the end.
pub(crate) struct RequestBody {
    body: Body,
    /// How long all of it may take to come, from the first time that it is waited for: a request that has to wait
    /// for its turn loses nothing.
    longest: Duration,
    deadline: Option<Instant>,
    stall: Duration,
    read_bytes: u64,
    /// What was read since others had their turn.
    turn_bytes: u64,
    broken: bool,
    /// Whose body it is, once that is known.
    pace: Option<(Arc<Pace>, AccountId)>,
}

impl RequestBody {
    pub(crate) fn new(body: Body, limits: &Limits) -> Self {
        let seconds = |count: u32| Duration::from_secs(u64::from(count));
        Self {
            body,
            longest: seconds(limits.body_timeout_seconds),
            deadline: None,
            stall: seconds(limits.stall_timeout_seconds),
            read_bytes: 0,
            turn_bytes: 0,
            broken: false,
            pace: None,
        }
    }

    /// From here on it is read no faster than the account may go.
    pub(crate) fn keep_pace(&mut self, pace: Arc<Pace>, account: AccountId) {
        self.pace = Some((pace, account));
    }

    /// Lets others have their turn.
    async fn rest(&mut self) {
        self.turn_bytes = 0;
        tokio::task::yield_now().await;
        if let Some((pace, account)) = &self.pace {
            let began = Instant::now();
            pace.was_here(*account);
            pace.step(*account).await;
            // Whoever sends does not answer for this wait.
            self.deadline = self.deadline.map(|deadline| deadline + began.elapsed());
        }
    }

    /// From now on all of it has to come within the time that others may only stand still.
    pub(crate) fn hurry(&mut self) {
        self.longest = self.longest.min(self.stall);
    }

    /// How long the body says that it is.
    pub(crate) fn declared(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// How much was read of it.
    pub(crate) const fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// The next piece; `None` at the end.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        if self.turn_bytes >= TURN_BYTES && !self.body.is_end_stream() {
            self.rest().await;
        }
        loop {
            if self.body.is_end_stream() {
                return Ok(None);
            }
            let now = Instant::now();
            let deadline = *self.deadline.get_or_insert_with(|| now + self.longest);
            let until = deadline.min(now + self.stall);
            let frame = match tokio::time::timeout_at(until, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) | Err(_) => {
                    self.broken = true;
                    return Err(ErrorCode::Malformed.into());
                }
            };
            // Trailers mean nothing here and are passed over.
            if let Ok(data) = frame.into_data() {
                self.read_bytes += data.len() as u64;
                self.turn_bytes += data.len() as u64;
                return Ok(Some(data));
            }
        }
    }

    /// All of a body of at most `max_bytes`. A body in one piece is not copied.
    pub(crate) async fn read_all(&mut self, max_bytes: usize) -> Result<Bytes, Refusal> {
        let Some(first) = self.next_piece().await? else {
            return Ok(Bytes::new());
        };
        if first.len() > max_bytes {
            return Err(ErrorCode::TooLarge.into());
        }
        let Some(mut next) = self.next_piece().await? else {
            return Ok(first);
        };
        let mut whole = BytesMut::from(first);
        loop {
            if whole.len() + next.len() > max_bytes {
                return Err(ErrorCode::TooLarge.into());
            }
            whole.extend_from_slice(&next);
            match self.next_piece().await? {
                Some(piece) => next = piece,
                None => return Ok(whole.freeze()),
            }
        }
    }

    /// The pieces of an object of exactly `size` bytes, hashed as they come and checked against its
    /// name. With `keep` false the pieces are let go at once, and none are returned.
    pub(crate) async fn read_object(
        &mut self,
        name: ObjectId,
        size: u64,
        keep: bool,
    ) -> Result<Vec<Bytes>, Refusal> {
        let mut pieces = Vec::new();
        let mut hasher = blake3::Hasher::new();
        let mut read = 0u64;
        while let Some(piece) = self.next_piece().await? {
            read += piece.len() as u64;
            if read > size {
                return Err(ErrorCode::TooLarge.into());
            }
            hasher = update(hasher, &piece).await?;
            if keep && !piece.is_empty() {
                pieces.push(piece);
            }
        }
        if read != size {
            return Err(ErrorCode::Malformed.into());
        }
        if hasher.finalize() != *name.as_bytes() {
            return Err(ErrorCode::WrongHash.into());
        }
        Ok(pieces)
    }

    /// Reads what is left of a refused request's body and throws it away, so that the caller gets to
    /// read the refusal instead of a broken connection. Gives up on what is longer than an object.
    pub(crate) async fn drain(&mut self) {
        let longest = OBJECT_MAX_BYTES as u64;
        if self.broken || self.declared().is_none_or(|bytes| bytes > longest) {
            return;
        }
        while let Ok(Some(_)) = self.next_piece().await {
            if self.read_bytes > longest {
                return;
            }
            if self.turn_bytes >= TURN_BYTES {
                self.rest().await;
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

async fn update(mut hasher: blake3::Hasher, piece: &Bytes) -> Result<blake3::Hasher, Refusal> {
    if piece.len() < ELSEWHERE_MIN_BYTES {
        hasher.update(piece);
        return Ok(hasher);
    }
    let piece = piece.clone();
    let hashed = tokio::task::spawn_blocking(move || {
        hasher.update(&piece);
        hasher
    });
    hashed
        .await
        .map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::Task))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a38_a_body_is_read_step_by_step_while_somebody_asks_for_less() {
        const PIECES: usize = 8;
        const RATE: u32 = 10;
        let pieces = || {
            let all = (0..PIECES).map(|_| Ok::<_, std::io::Error>(vec![1; TURN_BYTES as usize]));
            Body::from_stream(futures_util::stream::iter(all))
        };
        let limits = crate::CellConfig::from_text("region = \"r\"\ncontroller = \"c\"")
            .unwrap()
            .limits;
        let pace = Arc::new(Pace::new(RATE));
        let greedy = AccountId::from_bytes([1; 16]);
        let read = async || {
            let mut body = RequestBody::new(pieces(), &limits);
            body.keep_pace(Arc::clone(&pace), greedy);
            // The request itself.
            pace.step(greedy).await;
            let began = Instant::now();
            let whole = body.read_all(OBJECT_MAX_BYTES).await.unwrap();
            assert_eq!(whole.len(), PIECES * TURN_BYTES as usize);
            began.elapsed()
        };
        assert_eq!(read().await, Duration::ZERO, "nobody else is there");
        pace.was_here(AccountId::from_bytes([2; 16]));
        pace.spends_extras(greedy);
        let (took, step) = (read().await, Duration::from_secs(1) / RATE);
        assert!(took >= step * (PIECES as u32 - 1), "{took:?}");
        assert!(took < step * (PIECES as u32 + 1), "{took:?}");
    }
}
