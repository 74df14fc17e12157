//! Reading and moving a vault's head.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use candor_store::{Head as StoredHead, HeadMark, HeadSwap, SwapOutcome};
use candor_wire::api::{API_VERSION, ErrorCode, HeadReply, RunsPage, SwapHead};
use candor_wire::cbor;
use candor_wire::chain::AccountView;
use candor_wire::head::{Head, HeadError, SignedHead};
use candor_wire::ids::{DeviceId, VaultId};
use candor_wire::limits::{PAGE_MAX_ENTRIES, RESCUED_MAX};
use candor_wire::statement::Role;
use tokio::time::Instant;

use crate::gate::Admitted;
use crate::log::Cause;
use crate::reply::{self, Refusal};
use crate::shared::Shared;
use crate::waiting::{Awaited, Waiter};

/// The head, as the device signed it: at once, or, where the request names a counter, as soon as the head's is above it.
pub(super) async fn read(
    shared: &Arc<Shared>,
    admitted: &mut Admitted,
) -> Result<Response, Refusal> {
    let after = admitted.query.as_deref().map(super::chain::canonical);
    match after.transpose()? {
        None => head_reply(visible(shared, admitted).await?),
        Some(after) => head_reply(waited_for(shared, admitted, after).await?),
    }
}

/// The head that the caller may see. A write-only device reads only those that it signed itself.
async fn visible(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Option<StoredHead>, Refusal> {
    let (view, vault) = (admitted.view()?, admitted.vault()?);
    if is_write_only(view, admitted.signer) && view.writer_of(&vault) != admitted.signer {
        return Err(ErrorCode::NotPermitted.into());
    }
    let stored = shared.records.head(view.account(), vault).await;
    stored.map_err(|error| Refusal::of_records(&error))
}

/// Whether the head has a counter above that; a vault without a head counts as 0.
fn is_above(head: Option<&StoredHead>, after: u64) -> bool {
    head.map_or(0, |head| head.mark.counter) > after
}

/// The head once its counter is above `after`, or as it is when the time is over. Whatever wakes the request, it is
/// judged again before anything is told.
async fn waited_for(
    shared: &Arc<Shared>,
    admitted: &mut Admitted,
    after: u64,
) -> Result<Option<StoredHead>, Refusal> {
    let awaited = Awaited {
        account: admitted.account()?,
        device: admitted.signer,
        vault: admitted.vault()?,
        after,
    };
    // Before the head is read, so that no move of it is missed.
    let waiter = shared.waiters.enter(awaited);
    let longest = shared.config.limits.wait_timeout_seconds;
    let end = Instant::now() + Duration::from_secs(u64::from(longest));
    loop {
        let head = visible(shared, admitted).await?;
        if is_above(head.as_ref(), after) || Instant::now() >= end {
            return Ok(head);
        }
        drop(head);
        let waiter = waiter.as_ref().ok_or(ErrorCode::Busy)?;
        admitted.rest();
        let began = Instant::now();
        let news = news(shared, waiter, &awaited, end).await;
        admitted.waited += began.elapsed();
        news?;
        admitted.look_again(shared).await?;
        admitted.work = shared.work.take(awaited.account).await;
    }
}

/// Ready when there may be something to tell, and at the end of the time.
async fn news(
    shared: &Arc<Shared>,
    waiter: &Waiter,
    awaited: &Awaited,
    end: Instant,
) -> Result<(), Refusal> {
    // It may have stopped before this request took its place, and woke nobody here then.
    refuse_if_stopping(shared)?;
    loop {
        let look = end.min(Instant::now() + shared.waiters.look_pause());
        let is_woken = tokio::select! {
            () = waiter.woken() => true,
            () = tokio::time::sleep_until(look) => false,
        };
        refuse_if_stopping(shared)?;
        if is_woken || look == end {
            return Ok(());
        }
        let head = shared.records.head(awaited.account, awaited.vault).await;
        let head = head.map_err(|error| Refusal::of_records(&error))?;
        if is_above(head.as_ref(), awaited.after) {
            return Ok(());
        }
    }
}

/// A cell that stops keeps nobody waiting; whoever asks again finds the one that comes after.
fn refuse_if_stopping(shared: &Shared) -> Result<(), Refusal> {
    if shared.is_stopping() {
        return Err(ErrorCode::Busy.into());
    }
    Ok(())
}

fn head_reply(stored: Option<StoredHead>) -> Result<Response, Refusal> {
    let decoded = stored
        .map(|stored| cbor::decode::<SignedHead>(&stored.bytes))
        .transpose();
    let head = decoded.map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::DatabaseDamaged))?;
    Ok(reply::message(&HeadReply {
        version: API_VERSION,
        head,
    }))
}

fn is_write_only(view: &AccountView, signer: Option<DeviceId>) -> bool {
    let entry = signer.and_then(|device| view.device(&device));
    entry.is_some_and(|entry| entry.added.role == Role::WriteOnly)
}

/// Whether the device may put such a head there: a write-only one its runs into a vault that is its alone, a full
/// one everything else.
fn may_move(view: &AccountView, vault: &VaultId, head: &Head) -> bool {
    let Some(epoch) = view.epoch(Some(*vault)) else {
        return false;
    };
    let writer = view.writer_of(vault);
    match (&head.runs, is_write_only(view, Some(head.device))) {
        (Some(runs), true) => {
            writer == Some(head.device) && runs.iter().all(|run| run.epoch <= epoch.epoch)
        }
        (None, false) => writer.is_none() && head.epoch <= epoch.epoch,
        _ => false,
    }
}

/// How often the chain may go on while one head is being moved.
const CHAIN_MOVES_MAX: usize = 8;

/// The heads of a write-only device's vault from one on.
pub(super) async fn runs(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let from = super::chain::decimal(admitted.query.as_deref())?;
    let (account, vault) = (admitted.account()?, admitted.vault()?);
    let page = shared
        .records
        .runs(account, vault, from.saturating_sub(1), PAGE_MAX_ENTRIES)
        .await;
    let (heads, more) = page.map_err(|error| Refusal::of_records(&error))?;
    let heads: Result<Vec<SignedHead>, _> = heads.iter().map(|head| cbor::decode(head)).collect();
    Ok(reply::message(&RunsPage {
        version: API_VERSION,
        heads: heads.map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::DatabaseDamaged))?,
        more,
    }))
}

/// Moves the head, if it is still the one that the caller names. The manifest has to be stored, so
/// that no head ever points at nothing; so does everything that the caller rescues.
///
/// That the device may do this was read from the account's chain; the head moves only if the chain ends there still, so
/// that no head of a device comes after its revocation or the end of its consent.
pub(super) async fn swap(
    shared: &Arc<Shared>,
    admitted: &mut Admitted,
) -> Result<Response, Refusal> {
    let request: SwapHead = cbor::decode(&admitted.message).map_err(|_| ErrorCode::Malformed)?;
    if request.version != API_VERSION {
        return Err(ErrorCode::Version.into());
    }
    let (account, vault) = (admitted.account()?, admitted.vault()?);
    let head = check_head(&request, admitted.view()?, vault)?;
    if admitted.signer != Some(head.device) || request.expected != head.previous {
        return Err(ErrorCode::Malformed.into());
    }
    let mut needed = request.rescued.unwrap_or_default();
    let is_both = |object| head.condemned.binary_search(object).is_ok();
    let is_run = head.runs.is_some();
    if needed.len() > RESCUED_MAX || needed.iter().any(is_both) || (is_run && !needed.is_empty()) {
        return Err(ErrorCode::Malformed.into());
    }
    needed.push(head.manifest);
    let expected = head.previous.map(|previous| HeadMark {
        counter: head.counter - 1,
        hash: previous.0,
    });
    let mark = HeadMark {
        counter: head.counter,
        hash: request.head.hash().0,
    };
    let mut swap = HeadSwap {
        account,
        vault,
        chain: None,
        expected,
        new: StoredHead {
            mark,
            bytes: cbor::encode(&request.head).into(),
            moved_at: admitted.now,
        },
        condemned: head.condemned.clone(),
        needed,
        is_run,
    };
    let mut nonce = admitted.nonce;
    for _ in 0..CHAIN_MOVES_MAX {
        let view = admitted.view()?;
        if !may_move(view, &vault, &head) {
            return Err(ErrorCode::NotPermitted.into());
        }
        let is_void = view
            .check_head(&vault, &head, &request.head.hash())
            .is_err();
        if is_void || is_behind(view, vault, &head) {
            // The answer to an earlier try may have been lost, and the chain have gone on since.
            let there = shared.records.head(account, vault).await;
            let there = there.map_err(|error| Refusal::of_records(&error))?;
            if there.is_some_and(|there| there.mark == mark) {
                return Ok(reply::done());
            }
            // The device has not heard of newer keys yet: it reads the chain, and writes under those.
            return Err(ErrorCode::Conflict.into());
        }
        swap.chain = Some(view.tip());
        // A nonce is spent by the first try, whatever becomes of it.
        let outcome = shared.records.swap_head(nonce.take(), swap.clone()).await;
        match outcome.map_err(|error| Refusal::of_records(&error))? {
            SwapOutcome::Swapped | SwapOutcome::AlreadyThere => {
                shared.waiters.head_moved(&account, &vault, mark.counter);
                shared.transparency.queue().added(1);
                return Ok(reply::done());
            }
            SwapOutcome::Conflict(_) | SwapOutcome::NotNewer { .. } => {
                return Err(ErrorCode::Conflict.into());
            }
            SwapOutcome::Missing(_) => return Err(ErrorCode::NotFound.into()),
            SwapOutcome::ChainMoved => admitted.look_again(shared).await?,
        }
    }
    Err(ErrorCode::Busy.into())
}

/// Whether a head of a vault that full devices share is sealed under other keys than its newest, or these are a
/// revoked device's, too. Whatever the others remember of its epochs, they accept what comes after.
fn is_behind(view: &AccountView, vault: VaultId, head: &Head) -> bool {
    let newest = view.epoch(Some(vault)).map(|epoch| epoch.epoch);
    head.runs.is_none() && (newest != Some(head.epoch) || view.is_stale(Some(vault)))
}

/// The head in a request, if its signature and place are right.
fn check_head(request: &SwapHead, view: &AccountView, vault: VaultId) -> Result<Head, Refusal> {
    let key_of = |device: &_| {
        view.device(device)
            .map(|entry| entry.added.signing.ed25519())
    };
    let head = request.head.verify(&view.account(), &vault, key_of);
    head.map_err(|error| match error {
        HeadError::Codec(_) | HeadError::Place => ErrorCode::Malformed.into(),
        HeadError::Signature => ErrorCode::NotSigned.into(),
    })
}
