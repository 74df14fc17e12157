//! Any engine with faults put between it and its caller: disks that fail, fill up, answer late, or do what they were
//! asked and lose the answer. For tests.
//!
//! [`Faults`] decides about every call of every port that shares it: one chosen call is struck, all from
//! one on, or many at random, by a seed. Whatever is not struck reaches the engine as it is, so that the conformance suites pass.

use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use candor_wire::ids::{ObjectId, StatementId};
use candor_wire::{AccountId, Millis, VaultId};
use futures_core::Stream;

use crate::erasures::{ErasureEnd, ErasureJob, Erasures, RowsOutcome, RowsToErase};
use crate::links::{LinkOpening, LinkOutcome, Links, MessageOutcome, OpenLink};
use crate::log::{LogBatch, LogEntry, LogTree, MapInputs, MapRow, Sequencing};
use crate::objects::Fault;
use crate::{
    Account, AccountOpening, AccountState, AppendOutcome, ChainAppend, ChainPage, ChainTip,
    ConfirmOutcome, CreateOutcome, Head, HeadSwap, Invitation, LedgerEntry, LogFiles,
    LogFilesError, LogRecords, NonceOutcome, NonceUse, ObjectKey, ObjectListing, ObjectReader,
    Objects, ObjectsError, OpenOutcome, Pending, Presence, PutOutcome, Records, RecordsError,
    Reservation, ReserveOutcome, RootKeyHash, SwapOutcome,
};

/// How late a slow answer comes: much later than any engine's, and short enough for thousands of them.
const SLOW: Duration = Duration::from_millis(20);

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// It fails, and nothing was done.
    Fails,
    /// It was done, and fails all the same: the answer was lost.
    Lost,
    /// The disk is full, and nothing was done.
    Full,
    /// Somebody else holds the database, and nothing was done.
    Busy,
    /// It is done, and the answer comes late.
    Slow,
    /// The bytes of an object break off.
    Torn,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Fails,
        Self::Lost,
        Self::Full,
        Self::Busy,
        Self::Slow,
        Self::Torn,
    ];
}

/// A call of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The port.
    pub port: &'static str,
    /// The operation.
    pub name: &'static str,
    /// Whether it changes anything.
    pub writes: bool,
}

impl Call {
    /// Whether this can happen to it: what only reads has nothing to lose and needs no room.
    pub fn can_meet(&self, kind: FaultKind) -> bool {
        match kind {
            FaultKind::Fails | FaultKind::Slow => true,
            FaultKind::Lost | FaultKind::Full => self.writes,
            FaultKind::Busy => matches!(self.port, "Records" | "Erasures" | "Links" | "LogRecords"),
            FaultKind::Torn => (self.port, self.name) == ("Objects", "get"),
        }
    }
}

#[derive(Debug, Default)]
enum Plan {
    #[default]
    Nothing,
    /// The calls at these places.
    These(Range<usize>, FaultKind),
    /// One call in so many, by a generator.
    Some(u64, u64),
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    calls: Vec<Call>,
    struck: Vec<(Call, FaultKind)>,
}

/// Decides what happens to calls. Clones share everything. Without a plan nothing happens to any.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// From now on the call number `place`, from 0, is struck, and no other.
    pub fn strike(&self, place: usize, kind: FaultKind) {
        self.begin(Plan::These(place..place + 1, kind));
    }

    /// From now on the call number `place`, from 0, and every one after it is struck.
    pub fn strike_from(&self, place: usize, kind: FaultKind) {
        self.begin(Plan::These(place..usize::MAX, kind));
    }

    /// From now on about one call in `one_in` is struck, which ones and how by the seed alone.
    pub fn strike_at_random(&self, seed: u64, one_in: u64) {
        self.begin(Plan::Some(seed, one_in.max(1)));
    }

    /// From now on nothing happens to any call. Returns what was struck since the plan was made.
    pub fn stop(&self) -> Vec<(Call, FaultKind)> {
        self.begin(Plan::Nothing)
    }

    /// The calls since the plan was made or ended.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn begin(&self, plan: Plan) -> Vec<(Call, FaultKind)> {
        let mut state = self.state();
        state.plan = plan;
        state.calls.clear();
        core::mem::take(&mut state.struck)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Lists of whole values are lists whatever stopped a thread.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meets(&self, call: Call) -> Option<FaultKind> {
        let mut state = self.state();
        let place = state.calls.len();
        state.calls.push(call);
        let met = match &mut state.plan {
            Plan::Nothing => None,
            Plan::These(places, kind) => places.contains(&place).then_some(*kind),
            Plan::Some(seed, one_in) => {
                let drawn = next(seed);
                let kinds: Vec<FaultKind> = FaultKind::ALL
                    .into_iter()
                    .filter(|kind| call.can_meet(*kind))
                    .collect();
                let which = usize::try_from(next(seed) % 64).unwrap_or(0) % kinds.len();
                drawn.is_multiple_of(*one_in).then_some(kinds[which])
            }
        };
        let met = met.filter(|kind| call.can_meet(*kind));
        state.struck.extend(met.map(|kind| (call, kind)));
        met
    }

    async fn pass<'a, T, E: PortError>(
        &self,
        call: Call,
        go: impl FnOnce() -> Pending<'a, Result<T, E>>,
    ) -> Result<T, E> {
        match self.meets(call) {
            None | Some(FaultKind::Torn) => go().await,
            Some(FaultKind::Fails) => Err(E::failed(cause())),
            Some(FaultKind::Full) => Err(E::full(cause())),
            Some(FaultKind::Busy) => Err(E::busy(cause())),
            Some(FaultKind::Lost) => {
                go().await?;
                Err(E::failed(cause()))
            }
            Some(FaultKind::Slow) => {
                let done = go().await;
                tokio::time::sleep(SLOW).await;
                done
            }
        }
    }
}

/// The next number of a generator (SplitMix64, Steele and others 2014).
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn cause() -> Fault {
    Arc::new(io::Error::other("a test put this fault here"))
}

/// How a port says what happened.
trait PortError {
    fn failed(source: Fault) -> Self;
    fn full(source: Fault) -> Self;
    fn busy(source: Fault) -> Self;
}

impl PortError for RecordsError {
    fn failed(source: Fault) -> Self {
        let action = "go on";
        Self::Io { action, source }
    }

    fn full(source: Fault) -> Self {
        Self::Full(source)
    }

    fn busy(source: Fault) -> Self {
        Self::Busy(source)
    }
}

impl PortError for ObjectsError {
    fn failed(source: Fault) -> Self {
        let action = "go on";
        Self::Io { action, source }
    }

    fn full(source: Fault) -> Self {
        Self::Full(source)
    }

    fn busy(source: Fault) -> Self {
        Self::failed(source)
    }
}

impl PortError for LogFilesError {
    fn failed(source: Fault) -> Self {
        let action = "reached";
        Self::Io { action, source }
    }

    fn full(source: Fault) -> Self {
        Self::Full(source)
    }

    fn busy(source: Fault) -> Self {
        Self::failed(source)
    }
}

/// A port whose calls go through [`Faults`] first.
pub struct Faulty<P: ?Sized> {
    inner: Arc<P>,
    faults: Faults,
}

impl<P: ?Sized> Faulty<P> {
    /// Faults before `inner`.
    pub fn new(inner: Arc<P>, faults: &Faults) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: faults.clone(),
        })
    }
}

const fn call(port: &'static str, name: &'static str, writes: bool) -> Call {
    Call { port, name, writes }
}

macro_rules! writes {
    (read) => {
        false
    };
    (write) => {
        true
    };
}

/// A port as a list of its operations: whether it writes, its name, what it takes and what it answers.
macro_rules! faulty {
    ($port:ident, $error:ty;
     $($kind:ident $name:ident($($taken:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl $port for Faulty<dyn $port> {
            $(
                fn $name(&self, $($taken: $type),*) -> Pending<'_, Result<$answer, $error>> {
                    let call = call(stringify!($port), stringify!($name), writes!($kind));
                    Box::pin(self.faults.pass(call, move || self.inner.$name($($taken),*)))
                }
            )*
        }
    };
}

faulty! {
    Records, RecordsError;
    read cell_value(name: &'static str) -> Option<Bytes>;
    write set_cell_value(name: &'static str, value: Bytes) -> ();
    write create_invitation(invitation: Invitation) -> CreateOutcome;
    write open_account(opening: AccountOpening) -> OpenOutcome;
    read account(account: AccountId) -> Option<Account>;
    read account_by_root_key(root_key: RootKeyHash) -> Option<Account>;
    write set_quota(account: AccountId, quota_bytes: u64) -> ();
    write set_account_state(account: AccountId, state: AccountState) -> ();
    write append(nonce: Option<NonceUse>, append: ChainAppend) -> AppendOutcome;
    read read_chain(account: AccountId, after: Option<u64>, limit: usize) -> ChainPage;
    read chain_tip(account: AccountId) -> Option<ChainTip>;
    read head(account: AccountId, vault: VaultId) -> Option<Head>;
    read runs(account: AccountId, vault: VaultId, after: u64, limit: usize) -> (Vec<Bytes>, bool);
    write swap_head(nonce: Option<NonceUse>, swap: HeadSwap) -> SwapOutcome;
    write reserve(nonce: Option<NonceUse>, reservation: Reservation) -> ReserveOutcome;
    write confirm(key: ObjectKey, now: Millis) -> ConfirmOutcome;
    write release(key: ObjectKey, now: Millis) -> bool;
    write let_condemned_go(before: Millis, now: Millis, limit: usize) -> u64;
    write releasing(now: Millis, limit: usize) -> Vec<ObjectKey>;
    write finish_release(keys: Vec<ObjectKey>) -> u64;
    read has_objects(account: AccountId, vault: VaultId, objects: Vec<ObjectId>) -> Vec<Presence>;
    read object(key: ObjectKey) -> Option<LedgerEntry>;
    read list_objects(account: AccountId, vault: VaultId, after: Option<ObjectId>, limit: usize) -> Vec<LedgerEntry>;
    write use_nonce(nonce: NonceUse) -> NonceOutcome;
    write sweep_nonces(before: Millis, limit: usize) -> u64;
    read check() -> ();
}

faulty! {
    Links, RecordsError;
    write open_link(nonce: Option<NonceUse>, opening: LinkOpening) -> LinkOutcome;
    write leave_message(name: [u8; 32], place: u8, message: Bytes, now: Millis) -> MessageOutcome;
    read link(name: [u8; 32], now: Millis) -> Option<OpenLink>;
    write sweep_links(before: Millis, limit: usize) -> u64;
}

faulty! {
    Erasures, RecordsError;
    read due(now: Millis, limit: usize) -> Vec<ErasureJob>;
    write begin(asked: StatementId, now: Millis) -> Option<ErasureJob>;
    write let_objects_go(asked: StatementId, now: Millis, limit: usize) -> u64;
    write erase_rows(rows: RowsToErase) -> RowsOutcome;
    write settle() -> ();
    write finish(end: ErasureEnd) -> bool;
    read receipt(name: [u8; 32]) -> Option<Bytes>;
    write sweep_receipts(before: Millis, limit: usize) -> u64;
}

faulty! {
    LogRecords, RecordsError;
    read log_tree() -> LogTree;
    read log_batch() -> LogBatch;
    write queue_entries(entries: Vec<LogEntry>, now: Millis) -> ();
    write queue_again(entries: Vec<LogEntry>, now: Millis) -> ();
    write begin_log_anew(now: Millis) -> ();
    read accounts_after(after: Option<AccountId>) -> Vec<AccountId>;
    write sequence(sequencing: Sequencing) -> bool;
    read sequenced_entries(from: u64, limit: usize) -> Vec<LogEntry>;
    read map_inputs() -> Vec<MapInputs>;
    write advance(from: (u64, [u8; 32]), to: (u64, [u8; 32])) -> bool;
    read map_rows(after: u64, last: Option<(u64, AccountId)>) -> Vec<MapRow>;
    read map_row(account: AccountId) -> Option<MapRow>;
}

faulty! {
    LogFiles, LogFilesError;
    write put(files: Vec<(String, Bytes)>) -> ();
    write replace(name: String, bytes: Bytes) -> ();
    write remove_partial(names: Vec<String>) -> ();
    read get(name: String) -> Option<Bytes>;
}

impl Objects for Faulty<dyn Objects> {
    fn put(
        &self,
        key: ObjectKey,
        body: Vec<Bytes>,
    ) -> Pending<'_, Result<PutOutcome, ObjectsError>> {
        let call = call("Objects", "put", true);
        Box::pin(self.faults.pass(call, move || self.inner.put(key, body)))
    }

    fn get(
        &self,
        key: ObjectKey,
        range: Option<Range<u64>>,
    ) -> Pending<'_, Result<ObjectReader, ObjectsError>> {
        Box::pin(async move {
            match self.faults.meets(call("Objects", "get", false)) {
                Some(FaultKind::Torn) => Ok(torn(self.inner.get(key, range).await?)),
                Some(FaultKind::Slow) => {
                    tokio::time::sleep(SLOW).await;
                    self.inner.get(key, range).await
                }
                Some(_) => Err(ObjectsError::failed(cause())),
                None => self.inner.get(key, range).await,
            }
        })
    }

    fn head(&self, key: ObjectKey) -> Pending<'_, Result<Option<u64>, ObjectsError>> {
        let call = call("Objects", "head", false);
        Box::pin(self.faults.pass(call, move || self.inner.head(key)))
    }

    fn delete(&self, key: ObjectKey) -> Pending<'_, Result<(), ObjectsError>> {
        let call = call("Objects", "delete", true);
        Box::pin(self.faults.pass(call, move || self.inner.delete(key)))
    }

    fn erase(
        &self,
        account: AccountId,
        vault: Option<VaultId>,
    ) -> Pending<'_, Result<(), ObjectsError>> {
        let call = call("Objects", "erase", true);
        Box::pin(
            self.faults
                .pass(call, move || self.inner.erase(account, vault)),
        )
    }

    fn list(
        &self,
        account: AccountId,
        vault: VaultId,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ObjectListing>, ObjectsError>> {
        let call = call("Objects", "list", false);
        let go = move || self.inner.list(account, vault, after, limit);
        Box::pin(self.faults.pass(call, go))
    }
}

/// The first half of what a reader would give, and then a failure.
struct TornReader {
    reader: ObjectReader,
    left: u64,
}

fn torn(reader: ObjectReader) -> ObjectReader {
    let (size, left) = (reader.size(), reader.size() / 2);
    ObjectReader::new(size, TornReader { reader, left })
}

impl Stream for TornReader {
    type Item = Result<Bytes, ObjectsError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err(ObjectsError::failed(cause()))));
        }
        let next = Pin::new(&mut self.reader).poll_next(cx);
        next.map_ok(|mut chunk| {
            chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= chunk.len() as u64;
            chunk
        })
    }
}
