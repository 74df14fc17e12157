//! Objects: stored under their hash, read back, asked for and listed.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use candor_store::{
    ConfirmOutcome, LedgerEntry, ObjectKey, ObjectState, Presence, RecordsError, Reservation,
    ReserveOutcome,
};
use candor_wire::api::{API_VERSION, ErrorCode, HasObjects, HasReply, ListedObject, ObjectPage};
use candor_wire::cbor;
use candor_wire::ids::{AccountId, ObjectId};
use candor_wire::limits::{HAS_MAX_IDS, OBJECT_MAX_BYTES, OBJECT_MIN_BYTES, PAGE_MAX_ENTRIES};
use http::HeaderMap;
use http::header::RANGE;
use tokio::sync::OwnedSemaphorePermit;

use crate::body::RequestBody;
use crate::gate::Admitted;
use crate::log::Cause;
use crate::reply::{self, Refusal};
use crate::shared::Shared;
use crate::shares::Shares;

fn key(admitted: &Admitted) -> Result<ObjectKey, Refusal> {
    Ok(ObjectKey {
        account: admitted.account()?,
        vault: admitted.vault()?,
        object: admitted.object()?,
    })
}

fn of_records(error: RecordsError) -> Refusal {
    Refusal::of_records(&error)
}

/// Whether an object may have this size: the size must not tell more than its bucket.
fn is_allowed_size(bytes: u64) -> bool {
    let (least, most) = (OBJECT_MIN_BYTES as u64, OBJECT_MAX_BYTES as u64);
    bytes.is_power_of_two() && (least..=most).contains(&bytes)
}

/// The account's share of the places for uploads.
struct OwnPlace {
    _shares: [Option<OwnedSemaphorePermit>; 2],
    /// Whether it had to be waited for.
    waited: bool,
}

/// Waits for the account's share of the places for uploads; others do not wait for it.
async fn own_place(shared: &Shared, account: AccountId) -> OwnPlace {
    let mut waited = false;
    let mut take = async |shares: &Shares<AccountId>| match shares.try_take(account) {
        Some(share) => Some(share),
        None => {
            waited = true;
            shares.take(account).await
        }
    };
    let share = take(&shared.upload_shares).await;
    let paced = match shared.pace.is_held_up(&account) {
        true => take(&shared.paced_uploads).await,
        false => None,
    };
    OwnPlace {
        _shares: [share, paced],
        waited,
    }
}

/// Stores an object: quota, bytes, then the reply, each durable before the next. An object that is
/// there already is read, checked and let go, and the reply is the same.
pub(super) async fn put(
    shared: &Arc<Shared>,
    admitted: &mut Admitted,
    body: &mut RequestBody,
) -> Result<Response, Refusal> {
    let key = key(admitted)?;
    let size = body
        .declared()
        .filter(|bytes| is_allowed_size(*bytes))
        .ok_or(ErrorCode::Malformed)?;
    drop(admitted.work.take());
    // The own share first: whoever waits for it holds no place that others could have.
    let own = own_place(shared, key.account).await;
    if own.waited {
        admitted.look_again(shared).await?;
    }
    // The semaphore is never closed.
    let permit = Arc::clone(&shared.uploads)
        .acquire_owned()
        .await
        .map_err(|_| ErrorCode::Busy)?;
    let reservation = Reservation {
        key,
        size,
        now: admitted.now,
    };
    match shared.records.reserve(admitted.nonce, reservation).await {
        Ok(ReserveOutcome::Reserved) => {}
        Ok(ReserveOutcome::AlreadyStored) => {
            body.read_object(key.object, size, false).await?;
            return Ok(reply::done());
        }
        Ok(ReserveOutcome::OverQuota { used, quota }) => {
            // Others need not wait for what is thrown away.
            drop(permit);
            // While the share is held: an account without room has no more on its way than the others.
            body.drain().await;
            return Err(Refusal {
                quota: Some((used, quota)),
                ..ErrorCode::OverQuota.into()
            });
        }
        Ok(ReserveOutcome::Releasing) => return Err(ErrorCode::Busy.into()),
        // Known with another size: one of the two cannot have this hash.
        Err(RecordsError::Invalid(_)) => return Err(ErrorCode::WrongHash.into()),
        Err(error) => return Err(of_records(error)),
    }
    let read = body.read_object(key.object, size, true).await;
    // To the end even if the caller hangs up: bytes that are half on the disk must not meet the next
    // upload, and the place among the uploads is free when their memory is.
    let shared = Arc::clone(shared);
    let finishing = tokio::spawn(async move {
        let stored = match read {
            Ok(pieces) => store(&shared, key, pieces).await,
            Err(refusal) => Err(refusal),
        };
        if stored.is_err() {
            give_up(&shared, key).await;
        }
        drop((permit, own));
        stored
    });
    finishing
        .await
        .map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::Task))??;
    Ok(reply::done())
}

async fn store(shared: &Shared, key: ObjectKey, pieces: Vec<Bytes>) -> Result<(), Refusal> {
    let _work = shared.work.take(key.account).await;
    // Nobody takes this object away between its bytes and its confirmation.
    let _held = shared.hold_object(&key).await;
    shared
        .objects
        .put(key, pieces)
        .await
        .map_err(|error| Refusal::of_objects(&error))?;
    match shared
        .records
        .confirm(key, shared.clock.now())
        .await
        .map_err(of_records)?
    {
        ConfirmOutcome::Confirmed | ConfirmOutcome::AlreadyStored => Ok(()),
        // Somebody gave up the same upload meanwhile: it has to be sent again. Nobody accounts for
        // these bytes, so that they do not stay.
        ConfirmOutcome::NotReserved => {
            shared
                .objects
                .delete(key)
                .await
                .map_err(|error| Refusal::of_objects(&error))?;
            Err(ErrorCode::Busy.into())
        }
    }
}

/// Gives the quota of a failed upload back. What fails here is done by the sweep later.
async fn give_up(shared: &Shared, key: ObjectKey) {
    if let Ok(true) = shared.records.release(key, shared.clock.now()).await {
        shared.take_away(key).await;
    }
}

/// The one range that a header asks for, within `size` bytes: first byte, and the one after the last.
pub(crate) fn range(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let Some(value) = headers.get(RANGE) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| -> Option<u64> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok())?
        };
        let first = number(first)?;
        let last = if last.is_empty() {
            u64::MAX
        } else {
            number(last)?
        };
        (first <= last).then_some((first, last))
    });
    match parsed {
        // An end beyond the object means its end (RFC 9110, section 14.1.2).
        Some((first, last)) if first < size => Ok(Some((first, last.saturating_add(1).min(size)))),
        _ => Err(ErrorCode::Range.into()),
    }
}

/// An object or a part of it, from the disk as it goes.
pub(super) async fn get(
    shared: &Arc<Shared>,
    admitted: &mut Admitted,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let key = key(admitted)?;
    let entry = shared.records.object(key).await.map_err(of_records)?;
    let stored = entry
        .filter(|entry| entry.state == ObjectState::Stored)
        .ok_or(ErrorCode::NotFound)?;
    let range = range(headers, stored.size)?;
    let reader = shared
        .objects
        .get(key, range.map(|(start, end)| start..end))
        .await;
    let reader = reader.map_err(|error| Refusal::of_objects(&error))?;
    let reply = reply::ObjectReply {
        account: key.account,
        share: admitted.share.take(),
        size: stored.size,
        range,
    };
    Ok(reply::object(shared, reader, reply))
}

/// Which of some objects are stored, in this vault and no other.
pub(super) async fn has(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let request: HasObjects = cbor::decode(&admitted.message).map_err(|_| ErrorCode::Malformed)?;
    if request.version != API_VERSION {
        return Err(ErrorCode::Version.into());
    }
    if request.objects.len() > HAS_MAX_IDS {
        return Err(ErrorCode::TooLarge.into());
    }
    let standing = shared
        .records
        .has_objects(admitted.account()?, admitted.vault()?, request.objects)
        .await;
    let standing = standing.map_err(of_records)?;
    let is = |presence| move |one: &Presence| *one == presence;
    let condemned: Vec<bool> = standing.iter().map(is(Presence::Condemned)).collect();
    Ok(reply::message(&HasReply {
        version: API_VERSION,
        stored: standing
            .iter()
            .map(|one| *one != Presence::Absent)
            .collect(),
        condemned: condemned.contains(&true).then_some(condemned),
    }))
}

/// A page of a vault's objects.
pub(super) async fn list(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let after: Option<ObjectId> = match &admitted.query {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| ErrorCode::Malformed)?),
    };
    let (account, vault) = (admitted.account()?, admitted.vault()?);
    let rows = shared
        .records
        .list_objects(account, vault, after, PAGE_MAX_ENTRIES)
        .await;
    let mut rows: Vec<LedgerEntry> = rows.map_err(of_records)?;
    // A full page may be the last one. One entry is kept back, so that `more` is always true.
    let more = rows.len() >= PAGE_MAX_ENTRIES;
    if more {
        rows.truncate(PAGE_MAX_ENTRIES - 1);
    }
    let objects = rows
        .iter()
        .map(|row| ListedObject {
            object: row.object,
            bytes: row.size,
        })
        .collect();
    Ok(reply::message(&ObjectPage {
        version: API_VERSION,
        objects,
        more,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_are_buckets() {
        let allowed: Vec<u64> = (0..=26)
            .map(|bits| 1 << bits)
            .filter(|bytes| is_allowed_size(*bytes))
            .collect();
        assert_eq!(
            allowed,
            (16..=24).map(|bits| 1u64 << bits).collect::<Vec<_>>()
        );
        for bytes in [
            0,
            65_535,
            65_537,
            16 * 1024 * 1024 - 1,
            16 * 1024 * 1024 + 1,
        ] {
            assert!(!is_allowed_size(bytes), "{bytes}");
        }
    }

    #[test]
    fn a_range_is_one_range() {
        let ask = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            range(&headers, 100)
        };
        assert_eq!(range(&HeaderMap::new(), 100), Ok(None));
        assert_eq!(ask("bytes=0-9"), Ok(Some((0, 10))));
        assert_eq!(ask("bytes=90-"), Ok(Some((90, 100))));
        assert_eq!(ask("bytes=99-1000"), Ok(Some((99, 100))));
        for bad in [
            "bytes=100-",
            "bytes=9-8",
            "bytes=-5",
            "bytes=0-1,4-5",
            "bytes=+1-2",
            "items=0-1",
            "bytes=a-b",
        ] {
            assert_eq!(ask(bad), Err(ErrorCode::Range.into()), "{bad}");
        }
    }
}
