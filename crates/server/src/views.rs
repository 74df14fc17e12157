//! What the chains of accounts say, remembered for as long as there is room.
//!
//! A view is folded from the stored chain, every signature checked again: a database that was
//! altered gives no grant. One account is folded by one request at a time; the others wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candor_store::ChainRow;
use candor_wire::api::ErrorCode;
use candor_wire::cbor;
use candor_wire::chain::{AccountView, Record};
use candor_wire::ids::AccountId;
use candor_wire::limits::PAGE_MAX_ENTRIES;

use crate::log::Cause;
use crate::reply::Refusal;
use crate::shared::Shared;

/// How much all remembered views may hold, in bytes of the chains they were made of. An ordinary
/// chain has some 50 KB, so this is about a thousand accounts.
const VIEWS_MAX_BYTES: usize = 48 * 1024 * 1024;

/// How many accounts can be folded or appended to at once. A power of two; more than there are
/// processors in any one machine that this engine is for.
const STRIPES: usize = 64;

struct Slot {
    view: Arc<AccountView>,
    bytes: usize,
    used: u64,
}

#[derive(Default)]
struct Slots {
    by_account: HashMap<AccountId, Slot>,
    bytes: usize,
    tick: u64,
}

pub(crate) struct Views {
    slots: Mutex<Slots>,
    stripes: [tokio::sync::Mutex<()>; STRIPES],
}

/// A view and the bytes of its chain.
pub(crate) struct Folded {
    pub(crate) view: Arc<AccountView>,
    pub(crate) bytes: usize,
}

impl Views {
    pub(crate) fn new() -> Self {
        Self {
            slots: Mutex::default(),
            stripes: core::array::from_fn(|_| tokio::sync::Mutex::new(())),
        }
    }

    /// Whoever appends to an account, or folds it, holds this.
    pub(crate) async fn hold(&self, account: &AccountId) -> tokio::sync::MutexGuard<'_, ()> {
        let stripe = usize::from(account.as_bytes()[0]) % STRIPES;
        self.stripes[stripe].lock().await
    }

    /// The remembered view.
    pub(crate) fn recall(&self, account: &AccountId) -> Option<Folded> {
        let mut slots = self.slots();
        slots.tick += 1;
        let tick = slots.tick;
        let slot = slots.by_account.get_mut(account)?;
        slot.used = tick;
        Some(Folded {
            view: Arc::clone(&slot.view),
            bytes: slot.bytes,
        })
    }

    /// Remembers a view, and forgets those that were not used for longest.
    pub(crate) fn remember(&self, folded: &Folded) {
        let account = folded.view.account();
        let mut slots = self.slots();
        slots.tick += 1;
        let slot = Slot {
            view: Arc::clone(&folded.view),
            bytes: folded.bytes,
            used: slots.tick,
        };
        slots.bytes += folded.bytes;
        if let Some(old) = slots.by_account.insert(account, slot) {
            slots.bytes -= old.bytes;
        }
        while slots.bytes > VIEWS_MAX_BYTES && slots.by_account.len() > 1 {
            let oldest = slots
                .by_account
                .iter()
                .min_by_key(|(_, slot)| slot.used)
                .map(|(id, _)| *id);
            let Some(oldest) = oldest else { break };
            remove(&mut slots, &oldest);
        }
    }

    /// Forgets a view that turned out to be behind.
    pub(crate) fn forget(&self, account: &AccountId) {
        remove(&mut self.slots(), account);
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Views are inserted and removed whole: whatever stopped a thread, the map is one.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(slots: &mut Slots, account: &AccountId) {
    if let Some(old) = slots.by_account.remove(account) {
        slots.bytes -= old.bytes;
    }
}

/// The view of an account; `None` if the cell does not have it.
pub(crate) async fn view(
    shared: &Arc<Shared>,
    account: AccountId,
) -> Result<Option<Arc<AccountView>>, Refusal> {
    if let Some(folded) = shared.views.recall(&account) {
        return Ok(Some(folded.view));
    }
    let _held = shared.views.hold(&account).await;
    Ok(folded_while_held(shared, account)
        .await?
        .map(|folded| folded.view))
}

/// The same, for a caller that holds the account.
pub(crate) async fn folded_while_held(
    shared: &Arc<Shared>,
    account: AccountId,
) -> Result<Option<Folded>, Refusal> {
    if let Some(folded) = shared.views.recall(&account) {
        return Ok(Some(folded));
    }
    let mut view: Option<AccountView> = None;
    let mut bytes = 0;
    loop {
        let after = view.as_ref().map(|view| view.next_sequence() - 1);
        let page = shared
            .records
            .read_chain(account, after, PAGE_MAX_ENTRIES)
            .await;
        let page = page.map_err(|error| Refusal::of_records(&error))?;
        if page.rows.is_empty() && view.is_none() {
            return Ok(None);
        }
        bytes += page
            .rows
            .iter()
            .map(|row| row.record.len() + row.acknowledgement.len())
            .sum::<usize>();
        let more = page.more;
        let folding = Arc::clone(shared);
        let folded =
            tokio::task::spawn_blocking(move || fold(&folding, account, view, &page.rows)).await;
        view = folded.map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::Task))??;
        if !more {
            break;
        }
    }
    let folded = view.map(|view| Folded {
        view: Arc::new(view),
        bytes,
    });
    if let Some(folded) = &folded {
        shared.views.remember(folded);
    }
    Ok(folded)
}

fn fold(
    shared: &Shared,
    account: AccountId,
    mut view: Option<AccountView>,
    rows: &[ChainRow],
) -> Result<Option<AccountView>, Refusal> {
    let damaged = || Refusal::fault(ErrorCode::Internal, Cause::ChainDamaged);
    for row in rows {
        let record = record_of(row)?;
        match &mut view {
            None => {
                let begun =
                    AccountView::begin(account, &record, &shared.keyring).map_err(|_| damaged())?;
                view = Some(begun);
            }
            Some(view) => view
                .apply(&record, &shared.keyring)
                .map_err(|_| damaged())?,
        }
    }
    Ok(view)
}

/// The record in a stored row, with its acknowledgement.
pub(crate) fn record_of(row: &ChainRow) -> Result<Record, Refusal> {
    let damaged = |_| Refusal::fault(ErrorCode::Internal, Cause::ChainDamaged);
    let mut record: Record = cbor::decode(&row.record).map_err(damaged)?;
    record.acknowledgement = Some(cbor::decode(&row.acknowledgement).map_err(damaged)?);
    Ok(record)
}
