//! The ports in memory: for tests, and as the shortest statement of what the ports mean. Nothing
//! survives the process. The conformance suites hold the real engines and these to the same rules.

mod erasures;
mod links;
mod log;

use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use candor_wire::limits::HAS_MAX_IDS;
use candor_wire::{AccountId, DeviceId, Millis, ObjectId, StatementId, VaultId, ids::RequestNonce};
use futures_core::Stream;

use crate::Pending;
use crate::objects::{
    CHUNK_MAX_BYTES, ObjectKey, ObjectListing, ObjectReader, Objects, ObjectsError, PutOutcome,
};
use crate::records::{
    Account, AccountOpening, AccountState, AppendOutcome, CELL_NAME_MAX_BYTES,
    CELL_VALUE_MAX_BYTES, CHAIN_PAGE_MAX_BYTES, ChainAppend, ChainPage, ChainRow, ChainTip,
    ConfirmOutcome, CreateOutcome, Head, HeadMark, HeadSwap, Invitation, LedgerEntry, NonceOutcome,
    NonceUse, ObjectState, OpenOutcome, Presence, RESERVATION_MAX_MS, ROWS_MAX, Records,
    RecordsError, Reservation, ReserveOutcome, RootKeyHash, SecretHash, SwapOutcome, end_of,
};

use self::log::Log;
pub use self::log::MemoryLogFiles;

/// Objects in memory.
#[derive(Debug, Default)]
pub struct MemoryObjects(Mutex<BTreeMap<ObjectKey, Bytes>>);

/// An object cut into pieces.
struct Pieces(Bytes);

impl Stream for Pieces {
    type Item = Result<Bytes, ObjectsError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let length = self.0.len().min(CHUNK_MAX_BYTES);
        Poll::Ready((length > 0).then(|| Ok(self.0.split_to(length))))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ready<T: Send + 'static>(value: T) -> Pending<'static, T> {
    Box::pin(core::future::ready(value))
}

impl Objects for MemoryObjects {
    fn put(
        &self,
        key: ObjectKey,
        body: Vec<Bytes>,
    ) -> Pending<'_, Result<PutOutcome, ObjectsError>> {
        let mut objects = locked(&self.0);
        if objects.contains_key(&key) {
            return ready(Ok(PutOutcome::AlreadyThere));
        }
        let mut whole = BytesMut::new();
        body.iter().for_each(|part| whole.extend_from_slice(part));
        objects.insert(key, whole.freeze());
        ready(Ok(PutOutcome::Stored))
    }

    fn get(
        &self,
        key: ObjectKey,
        range: Option<Range<u64>>,
    ) -> Pending<'_, Result<ObjectReader, ObjectsError>> {
        let Some(whole) = locked(&self.0).get(&key).cloned() else {
            return ready(Err(ObjectsError::NotFound(key.object)));
        };
        let size = whole.len() as u64;
        let Range { start, end } = range.unwrap_or(0..size);
        if start > end || end > size {
            let object = key.object;
            return ready(Err(ObjectsError::RangeOutside {
                object,
                start,
                end,
                size,
            }));
        }
        // Both ends are at most the length of a slice in memory.
        let piece = whole.slice(start as usize..end as usize);
        ready(Ok(ObjectReader::new(end - start, Pieces(piece))))
    }

    fn head(&self, key: ObjectKey) -> Pending<'_, Result<Option<u64>, ObjectsError>> {
        ready(Ok(locked(&self.0)
            .get(&key)
            .map(|whole| whole.len() as u64)))
    }

    fn delete(&self, key: ObjectKey) -> Pending<'_, Result<(), ObjectsError>> {
        locked(&self.0).remove(&key);
        ready(Ok(()))
    }

    fn erase(
        &self,
        account: AccountId,
        vault: Option<VaultId>,
    ) -> Pending<'_, Result<(), ObjectsError>> {
        locked(&self.0).retain(|key, _| {
            key.account != account || vault.is_some_and(|vault| vault != key.vault)
        });
        ready(Ok(()))
    }

    fn list(
        &self,
        account: AccountId,
        vault: VaultId,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ObjectListing>, ObjectsError>> {
        let objects = locked(&self.0);
        let page = objects
            .iter()
            .filter(|(key, _)| key.account == account && key.vault == vault)
            .filter(|(key, _)| after.is_none_or(|after| key.object > after))
            .take(limit)
            .map(|(key, whole)| ObjectListing {
                object: key.object,
                size: whole.len() as u64,
            })
            .collect();
        ready(Ok(page))
    }
}

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryRecords(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    cell_values: BTreeMap<&'static str, Bytes>,
    invitations: BTreeMap<SecretHash, (Invitation, Option<AccountId>)>,
    accounts: BTreeMap<AccountId, Account>,
    chains: BTreeMap<AccountId, Vec<ChainRow>>,
    heads: BTreeMap<(AccountId, VaultId), Head>,
    runs: BTreeMap<(AccountId, VaultId, u64), Bytes>,
    objects: BTreeMap<ObjectKey, LedgerEntry>,
    nonces: BTreeSet<(DeviceId, RequestNonce)>,
    nonces_by_time: BTreeSet<(Millis, DeviceId, RequestNonce)>,
    log: Log,
    erasures: BTreeMap<StatementId, erasures::Row>,
    links: BTreeMap<[u8; 32], links::Row>,
}

impl Tables {
    fn spend(&mut self, nonce: &NonceUse) -> bool {
        let fresh = self.nonces.insert((nonce.device, nonce.nonce));
        if fresh {
            self.nonces_by_time
                .insert((nonce.seen_at, nonce.device, nonce.nonce));
        }
        fresh
    }

    fn existing(&mut self, account: AccountId) -> Result<&mut Account, RecordsError> {
        self.accounts
            .get_mut(&account)
            .ok_or(RecordsError::NoSuchAccount(account))
    }

    fn writable(&mut self, account: AccountId) -> Result<&mut Account, RecordsError> {
        let found = self.existing(account)?;
        match found.state {
            AccountState::Active => Ok(found),
            AccountState::Frozen => Err(RecordsError::AccountFrozen(account)),
        }
    }

    fn tip(&self, account: AccountId) -> Option<ChainTip> {
        let last = self.chains.get(&account)?.last()?;
        Some(ChainTip {
            sequence: last.sequence,
            link: last.link,
        })
    }

    fn by_root_key(&self, root_key: RootKeyHash) -> Option<Account> {
        self.accounts
            .values()
            .find(|account| account.root_key == root_key)
            .cloned()
    }

    fn open(&mut self, opening: AccountOpening) -> Result<OpenOutcome, RecordsError> {
        end_of(&opening.genesis, None)?;
        let taken = self.accounts.contains_key(&opening.account);
        let root_key_taken = self.by_root_key(opening.root_key).is_some();
        let Some((invitation, opened)) = self.invitations.get_mut(&opening.secret) else {
            return Ok(OpenOutcome::InvitationUnknown);
        };
        if let Some(opened) = opened {
            let repeated = *opened == opening.account
                && self.accounts.get(opened).map(|account| account.root_key)
                    == Some(opening.root_key)
                && self
                    .chains
                    .get(opened)
                    .and_then(|chain| chain.first())
                    .map(|row| row.link)
                    == opening.genesis.first().map(|row| row.link);
            return Ok(match repeated {
                true => OpenOutcome::AlreadyOpened,
                false => OpenOutcome::InvitationUsed,
            });
        }
        if opening.now >= invitation.expires_at {
            return Ok(OpenOutcome::InvitationExpired);
        }
        if taken {
            return Ok(OpenOutcome::AccountExists);
        }
        if root_key_taken {
            return Ok(OpenOutcome::RootKeyTaken);
        }
        self.log.queue(&opening.entries, opening.now)?;
        self.log.mark_changed(opening.account);
        *opened = Some(opening.account);
        let account = Account {
            account: opening.account,
            root_key: opening.root_key,
            state: AccountState::Active,
            quota_bytes: invitation.quota_bytes,
            stored_bytes: 0,
            reserved_bytes: 0,
            opened_at: opening.now,
        };
        self.accounts.insert(opening.account, account);
        self.chains.insert(opening.account, opening.genesis);
        Ok(OpenOutcome::Opened)
    }

    fn append(&mut self, append: ChainAppend) -> Result<AppendOutcome, RecordsError> {
        let end = end_of(&append.rows, Some(append.expected.sequence))?;
        self.writable(append.account)?;
        match self.tip(append.account) {
            Some(tip) if tip != append.expected => Ok(AppendOutcome::Conflict(tip)),
            _ if append
                .heads
                .as_ref()
                .is_some_and(|heads| *heads != self.heads_of(append.account)) =>
            {
                Ok(AppendOutcome::HeadsMoved)
            }
            _ if self.comes_too_late(&append.erasures) => Ok(AppendOutcome::ErasureBegun),
            _ => {
                self.log.queue(&append.entries, append.now)?;
                self.log.mark_changed(append.account);
                self.change_erasures(append.account, &append.erasures);
                self.chains
                    .entry(append.account)
                    .or_default()
                    .extend(append.rows);
                Ok(AppendOutcome::Appended(end))
            }
        }
    }

    fn read_chain(&self, account: AccountId, after: Option<u64>, limit: usize) -> ChainPage {
        let chain = self.chains.get(&account).map_or(&[][..], Vec::as_slice);
        let start = chain.partition_point(|row| after.is_some_and(|after| row.sequence <= after));
        let rest = &chain[start..];
        let mut bytes = 0;
        let fitting = rest
            .iter()
            .take_while(|row| {
                let first = bytes == 0;
                bytes += row.record.len() + row.acknowledgement.len();
                first || bytes <= CHAIN_PAGE_MAX_BYTES
            })
            .take(limit.min(ROWS_MAX))
            .count();
        ChainPage {
            rows: rest[..fitting].to_vec(),
            more: fitting < rest.len(),
        }
    }

    fn heads_of(&self, account: AccountId) -> Vec<(VaultId, HeadMark)> {
        let of_account = self.heads.iter().filter(|((of, _), _)| *of == account);
        // The map is in the order of its keys.
        of_account
            .map(|((_, vault), head)| (*vault, head.mark))
            .collect()
    }

    fn swap(&mut self, swap: HeadSwap) -> Result<SwapOutcome, RecordsError> {
        if i64::try_from(swap.new.mark.counter).is_err() {
            return Err(RecordsError::Invalid("a number is above 2^63 - 1"));
        }
        self.writable(swap.account)?;
        let tip = self.tip(swap.account);
        if swap
            .chain
            .is_some_and(|link| tip.is_some_and(|tip| tip.link != link))
        {
            return Ok(SwapOutcome::ChainMoved);
        }
        let place = (swap.account, swap.vault);
        if let Some(refused) = swap.refusal(self.heads.get(&place).cloned()) {
            return Ok(refused);
        }
        let key = |object: &ObjectId| ObjectKey {
            account: swap.account,
            vault: swap.vault,
            object: *object,
        };
        let missing = swap.needed.iter().find(|one| !self.is_stored(&key(one)));
        if let Some(missing) = missing {
            return Ok(SwapOutcome::Missing(*missing));
        }
        for object in &swap.needed {
            if let Some(entry) = self.objects.get_mut(&key(object)) {
                entry.condemned_at = None;
            }
        }
        for object in &swap.condemned {
            let stored = self.objects.get_mut(&key(object));
            if let Some(entry) = stored.filter(|entry| entry.state == ObjectState::Stored) {
                entry.condemned_at.get_or_insert(swap.new.moved_at);
            }
        }
        if swap.is_run {
            let counter = swap.new.mark.counter;
            let head = swap.new.bytes.clone();
            self.runs.insert((swap.account, swap.vault, counter), head);
        }
        self.heads.insert(place, swap.new);
        self.log.mark_changed(swap.account);
        Ok(SwapOutcome::Swapped)
    }

    fn reserve(&mut self, reservation: Reservation) -> Result<ReserveOutcome, RecordsError> {
        let Reservation { key, size, now } = reservation;
        if i64::try_from(size).is_err() {
            return Err(RecordsError::Invalid("a number is above 2^63 - 1"));
        }
        self.writable(key.account)?;
        if let Some(entry) = self.objects.get_mut(&key) {
            if entry.size != size {
                return Err(RecordsError::Invalid(
                    "the object is known with another size",
                ));
            }
            return Ok(match entry.state {
                ObjectState::Stored => ReserveOutcome::AlreadyStored,
                ObjectState::Releasing => ReserveOutcome::Releasing,
                ObjectState::Reserved => {
                    entry.since = now;
                    ReserveOutcome::Reserved
                }
            });
        }
        let account = self.existing(key.account)?;
        let used = account.stored_bytes + account.reserved_bytes;
        if used.saturating_add(size) > account.quota_bytes {
            return Ok(ReserveOutcome::OverQuota {
                used,
                quota: account.quota_bytes,
            });
        }
        account.reserved_bytes += size;
        let state = ObjectState::Reserved;
        self.objects.insert(
            key,
            LedgerEntry {
                object: key.object,
                size,
                state,
                since: now,
                condemned_at: None,
            },
        );
        Ok(ReserveOutcome::Reserved)
    }

    fn confirm(&mut self, key: ObjectKey, now: Millis) -> Result<ConfirmOutcome, RecordsError> {
        let Some(entry) = self.objects.get_mut(&key) else {
            return Ok(ConfirmOutcome::NotReserved);
        };
        match entry.state {
            ObjectState::Stored => return Ok(ConfirmOutcome::AlreadyStored),
            ObjectState::Releasing => return Ok(ConfirmOutcome::NotReserved),
            ObjectState::Reserved => {}
        }
        (entry.state, entry.since) = (ObjectState::Stored, now);
        let size = entry.size;
        let account = self.existing(key.account)?;
        account.stored_bytes += size;
        account.reserved_bytes -= size;
        Ok(ConfirmOutcome::Confirmed)
    }

    fn release(&mut self, key: ObjectKey, now: Millis) -> bool {
        match self.objects.get_mut(&key) {
            Some(entry) if entry.state == ObjectState::Reserved => {
                (entry.state, entry.since) = (ObjectState::Releasing, now);
                true
            }
            _ => false,
        }
    }

    /// The keys in a state, the oldest first.
    fn oldest(&self, state: ObjectState, until: Millis, limit: usize) -> Vec<ObjectKey> {
        let mut found: Vec<(Millis, ObjectKey)> = self
            .objects
            .iter()
            .filter(|(_, entry)| entry.state == state && entry.since <= until)
            .map(|(key, entry)| (entry.since, *key))
            .collect();
        found.sort_unstable();
        found
            .into_iter()
            .take(limit.min(ROWS_MAX))
            .map(|(_, key)| key)
            .collect()
    }

    fn let_condemned_go(
        &mut self,
        before: Millis,
        now: Millis,
        limit: usize,
    ) -> Result<u64, RecordsError> {
        let condemned = self.objects.iter().filter_map(|(key, entry)| {
            let since = entry.condemned_at?;
            (since < before).then_some((since, *key))
        });
        let mut condemned: Vec<(Millis, ObjectKey)> = condemned.collect();
        condemned.sort_unstable();
        condemned.truncate(limit.min(ROWS_MAX));
        for (_, key) in &condemned {
            if let Some(entry) = self.objects.get_mut(key) {
                *entry = LedgerEntry {
                    state: ObjectState::Releasing,
                    since: now,
                    condemned_at: None,
                    ..*entry
                };
                let size = entry.size;
                let account = self.existing(key.account)?;
                account.stored_bytes -= size;
                account.reserved_bytes += size;
            }
        }
        Ok(condemned.len() as u64)
    }

    fn releasing(&mut self, now: Millis, limit: usize) -> Vec<ObjectKey> {
        for key in self.oldest(
            ObjectState::Reserved,
            now.plus_ms(-RESERVATION_MAX_MS),
            limit,
        ) {
            self.release(key, now);
        }
        self.oldest(ObjectState::Releasing, Millis(i64::MAX), limit)
    }

    fn finish_release(&mut self, keys: &[ObjectKey]) -> Result<u64, RecordsError> {
        if keys.len() > ROWS_MAX {
            return Err(RecordsError::Invalid("too many objects at once"));
        }
        let mut forgotten = 0;
        for key in keys {
            let Some(entry) = self.objects.get(key).copied() else {
                continue;
            };
            if entry.state == ObjectState::Releasing {
                self.objects.remove(key);
                self.existing(key.account)?.reserved_bytes -= entry.size;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    fn is_stored(&self, key: &ObjectKey) -> bool {
        self.objects
            .get(key)
            .is_some_and(|entry| entry.state == ObjectState::Stored)
    }
}

impl MemoryRecords {
    fn once<T: Send + 'static>(
        &self,
        nonce: Option<NonceUse>,
        work: impl FnOnce(&mut Tables) -> Result<T, RecordsError>,
    ) -> Pending<'_, Result<T, RecordsError>> {
        let mut tables = locked(&self.0);
        if nonce.is_some_and(|nonce| !tables.spend(&nonce)) {
            return ready(Err(RecordsError::Replayed));
        }
        ready(work(&mut tables))
    }
}

impl Records for MemoryRecords {
    fn cell_value(&self, name: &'static str) -> Pending<'_, Result<Option<Bytes>, RecordsError>> {
        self.once(None, |tables| Ok(tables.cell_values.get(name).cloned()))
    }

    fn set_cell_value(
        &self,
        name: &'static str,
        value: Bytes,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.once(None, |tables| {
            if name.len() > CELL_NAME_MAX_BYTES || value.len() > CELL_VALUE_MAX_BYTES {
                return Err(RecordsError::Invalid("a value of the cell is too long"));
            }
            tables.cell_values.insert(name, value);
            Ok(())
        })
    }

    fn create_invitation(
        &self,
        invitation: Invitation,
    ) -> Pending<'_, Result<CreateOutcome, RecordsError>> {
        self.once(None, |tables| {
            if tables.invitations.contains_key(&invitation.secret) {
                return Ok(CreateOutcome::AlreadyThere);
            }
            tables
                .invitations
                .insert(invitation.secret, (invitation, None));
            Ok(CreateOutcome::Created)
        })
    }

    fn open_account(
        &self,
        opening: AccountOpening,
    ) -> Pending<'_, Result<OpenOutcome, RecordsError>> {
        self.once(None, |tables| tables.open(opening))
    }

    fn account(&self, account: AccountId) -> Pending<'_, Result<Option<Account>, RecordsError>> {
        self.once(None, |tables| Ok(tables.accounts.get(&account).cloned()))
    }

    fn account_by_root_key(
        &self,
        root_key: RootKeyHash,
    ) -> Pending<'_, Result<Option<Account>, RecordsError>> {
        self.once(None, |tables| Ok(tables.by_root_key(root_key)))
    }

    fn set_quota(
        &self,
        account: AccountId,
        quota_bytes: u64,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.once(None, |tables| {
            tables.existing(account)?.quota_bytes = quota_bytes.min(i64::MAX as u64);
            Ok(())
        })
    }

    fn set_account_state(
        &self,
        account: AccountId,
        state: AccountState,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.once(None, |tables| {
            tables.existing(account)?.state = state;
            Ok(())
        })
    }

    fn append(
        &self,
        nonce: Option<NonceUse>,
        append: ChainAppend,
    ) -> Pending<'_, Result<AppendOutcome, RecordsError>> {
        self.once(nonce, |tables| tables.append(append))
    }

    fn read_chain(
        &self,
        account: AccountId,
        after: Option<u64>,
        limit: usize,
    ) -> Pending<'_, Result<ChainPage, RecordsError>> {
        self.once(None, |tables| Ok(tables.read_chain(account, after, limit)))
    }

    fn chain_tip(&self, account: AccountId) -> Pending<'_, Result<Option<ChainTip>, RecordsError>> {
        self.once(None, |tables| Ok(tables.tip(account)))
    }

    fn head(
        &self,
        account: AccountId,
        vault: VaultId,
    ) -> Pending<'_, Result<Option<Head>, RecordsError>> {
        self.once(None, |tables| {
            Ok(tables.heads.get(&(account, vault)).cloned())
        })
    }

    fn runs(
        &self,
        account: AccountId,
        vault: VaultId,
        after: u64,
        limit: usize,
    ) -> Pending<'_, Result<(Vec<Bytes>, bool), RecordsError>> {
        self.once(None, |tables| {
            let from = (account, vault, after.saturating_add(1));
            let all: Vec<&Bytes> = tables
                .runs
                .range(from..=(account, vault, u64::MAX))
                .map(|(_, head)| head)
                .collect();
            let mut bytes = 0;
            let fitting = all
                .iter()
                .take_while(|head| {
                    let first = bytes == 0;
                    bytes += head.len();
                    first || bytes <= CHAIN_PAGE_MAX_BYTES
                })
                .take(limit.min(ROWS_MAX))
                .count();
            let page = all[..fitting].iter().map(|&head| head.clone()).collect();
            Ok((page, fitting < all.len()))
        })
    }

    fn swap_head(
        &self,
        nonce: Option<NonceUse>,
        swap: HeadSwap,
    ) -> Pending<'_, Result<SwapOutcome, RecordsError>> {
        self.once(nonce, |tables| tables.swap(swap))
    }

    fn reserve(
        &self,
        nonce: Option<NonceUse>,
        reservation: Reservation,
    ) -> Pending<'_, Result<ReserveOutcome, RecordsError>> {
        self.once(nonce, |tables| tables.reserve(reservation))
    }

    fn confirm(
        &self,
        key: ObjectKey,
        now: Millis,
    ) -> Pending<'_, Result<ConfirmOutcome, RecordsError>> {
        self.once(None, |tables| tables.confirm(key, now))
    }

    fn release(&self, key: ObjectKey, now: Millis) -> Pending<'_, Result<bool, RecordsError>> {
        self.once(None, |tables| Ok(tables.release(key, now)))
    }

    fn let_condemned_go(
        &self,
        before: Millis,
        now: Millis,
        limit: usize,
    ) -> Pending<'_, Result<u64, RecordsError>> {
        self.once(None, |tables| tables.let_condemned_go(before, now, limit))
    }

    fn releasing(
        &self,
        now: Millis,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ObjectKey>, RecordsError>> {
        self.once(None, |tables| Ok(tables.releasing(now, limit)))
    }

    fn finish_release(&self, keys: Vec<ObjectKey>) -> Pending<'_, Result<u64, RecordsError>> {
        self.once(None, |tables| tables.finish_release(&keys))
    }

    fn has_objects(
        &self,
        account: AccountId,
        vault: VaultId,
        objects: Vec<ObjectId>,
    ) -> Pending<'_, Result<Vec<Presence>, RecordsError>> {
        self.once(None, |tables| {
            if objects.len() > HAS_MAX_IDS {
                return Err(RecordsError::Invalid("too many objects in one question"));
            }
            let known = |object| {
                let key = ObjectKey {
                    account,
                    vault,
                    object,
                };
                match tables.objects.get(&key) {
                    Some(entry) if entry.state != ObjectState::Stored => Presence::Absent,
                    Some(entry) if entry.condemned_at.is_some() => Presence::Condemned,
                    Some(_) => Presence::Stored,
                    None => Presence::Absent,
                }
            };
            Ok(objects.into_iter().map(known).collect())
        })
    }

    fn object(&self, key: ObjectKey) -> Pending<'_, Result<Option<LedgerEntry>, RecordsError>> {
        self.once(None, |tables| Ok(tables.objects.get(&key).copied()))
    }

    fn list_objects(
        &self,
        account: AccountId,
        vault: VaultId,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<LedgerEntry>, RecordsError>> {
        self.once(None, |tables| {
            Ok(tables
                .objects
                .iter()
                .filter(|(key, _)| key.account == account && key.vault == vault)
                .filter(|(key, _)| after.is_none_or(|after| key.object > after))
                .filter(|(_, entry)| entry.state == ObjectState::Stored)
                .take(limit.min(ROWS_MAX))
                .map(|(_, entry)| *entry)
                .collect())
        })
    }

    fn use_nonce(&self, nonce: NonceUse) -> Pending<'_, Result<NonceOutcome, RecordsError>> {
        self.once(None, |tables| {
            Ok(if tables.spend(&nonce) {
                NonceOutcome::Fresh
            } else {
                NonceOutcome::Seen
            })
        })
    }

    fn sweep_nonces(&self, before: Millis, limit: usize) -> Pending<'_, Result<u64, RecordsError>> {
        self.once(None, |tables| {
            let mut forgotten = 0;
            while forgotten < limit.min(ROWS_MAX) {
                let Some((seen_at, device, nonce)) = tables.nonces_by_time.first().copied() else {
                    break;
                };
                if seen_at >= before {
                    break;
                }
                tables.nonces_by_time.pop_first();
                tables.nonces.remove(&(device, nonce));
                forgotten += 1;
            }
            Ok(forgotten as u64)
        })
    }

    fn check(&self) -> Pending<'_, Result<(), RecordsError>> {
        ready(Ok(()))
    }
}
