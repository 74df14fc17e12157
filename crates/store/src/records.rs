//! The port for records: everything of a cell that changes.
//!
//! Each write is one atomic step: it happens whole or not at all, and when it returns it survives a
//! loss of power. What can lose a race is a compare-and-swap and says what it found instead. Writes
//! that come from a signed request take the request's [`NonceUse`]: the nonce is spent in the same
//! step, so that a repeated request changes nothing and a request costs one commit.

use bytes::Bytes;
use candor_wire::ids::RequestNonce;
use candor_wire::time::DAY_MS;
use candor_wire::{AccountId, DeviceId, Millis, ObjectId, StatementId, VaultId, ids::Link};

use crate::Pending;
use crate::erasures::ErasureChange;
use crate::log::LogEntry;
use crate::objects::{Fault, ObjectKey};

/// How long a reservation of quota lives without the object arriving, in milliseconds. A day: an
/// upload over a bad line is given the night, and a lost one does not hold quota for longer.
pub const RESERVATION_MAX_MS: i64 = DAY_MS;

/// Most bytes of records in one page of a chain. Bounds what one reader holds; a page always has at
/// least one row, whatever its size.
pub const CHAIN_PAGE_MAX_BYTES: usize = 512 * 1024;

/// Most rows of any list that an engine returns at once, whatever the caller asks for.
pub const ROWS_MAX: usize = candor_wire::limits::PAGE_MAX_ENTRIES;

/// Longest name of a value of the cell, in bytes. Names are constants of the server's code.
pub const CELL_NAME_MAX_BYTES: usize = 64;

/// Longest value of the cell, in bytes. These are small facts about the cell itself.
pub const CELL_VALUE_MAX_BYTES: usize = 1024 * 1024;

/// Why an operation on records failed. Cheap to clone: one fault of a commit is told to every
/// request that was in it. Unless a variant says otherwise, nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordsError {
    /// The nonce of the request was used before: this is a repetition, and it changed nothing.
    #[error("the request was made before")]
    Replayed,
    /// The cell has no such account.
    #[error("account {0} is not here")]
    NoSuchAccount(AccountId),
    /// The account takes no writes at present.
    #[error("account {0} is frozen")]
    AccountFrozen(AccountId),
    /// The caller handed in something that no caller should: an error of the program.
    #[error("not a valid request to the records: {0}")]
    Invalid(&'static str),
    /// The disk, or the size that the database may have, is used up.
    #[error("the disk of the database is full")]
    Full(#[source] Fault),
    /// Another process holds the database. Try again later.
    #[error("another process holds the database")]
    Busy(#[source] Fault),
    /// The database is not one, or parts of it do not fit together.
    #[error("the database is damaged: {detail}")]
    Damaged {
        /// What was found, without contents of the database.
        detail: String,
        /// What the engine said, if it was the engine that noticed.
        #[source]
        source: Option<Fault>,
    },
    /// The database was written by a newer version of the program.
    #[error("the database has schema version {found}, this program knows up to {known}")]
    NewerSchema {
        /// The version found.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The storage below failed. Whether a write took effect is unknown: try it again.
    #[error("the database could not {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the engine said.
        #[source]
        source: Fault,
    },
    /// The engine was shut down. Whether a write took effect is unknown.
    #[error("the database is shut down")]
    Closed,
}

/// The SHA-256 hash of the secret in an invitation. The cell never keeps the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretHash(pub [u8; 32]);

/// The hash of an account's root public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootKeyHash(pub [u8; 32]);

/// A right to open one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The hash of its secret.
    pub secret: SecretHash,
    /// When it was made.
    pub made_at: Millis,
    /// The first moment at which it is no longer good.
    pub expires_at: Millis,
    /// The quota that the account gets, in stored bytes.
    pub quota_bytes: u64,
}

/// What came of creating an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It is good from now on.
    Created,
    /// One with the same secret exists, used or not. It was not changed.
    AlreadyThere,
}

/// Whether an account takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountState {
    /// It does.
    Active,
    /// It can be read, and takes no writes.
    Frozen,
}

/// An account, as the cell accounts for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub account: AccountId,
    /// The hash of the root public key that it was opened with.
    pub root_key: RootKeyHash,
    /// Whether it takes writes.
    pub state: AccountState,
    /// How many bytes it may store.
    pub quota_bytes: u64,
    /// How many bytes its stored objects have, padding included.
    pub stored_bytes: u64,
    /// How many bytes are promised to uploads that have not arrived.
    pub reserved_bytes: u64,
    /// When it was opened.
    pub opened_at: Millis,
}

/// Everything needed to open an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountOpening {
    /// The hash of the invitation's secret.
    pub secret: SecretHash,
    /// The new account.
    pub account: AccountId,
    /// The hash of its root public key.
    pub root_key: RootKeyHash,
    /// The first rows of its chain, at least one, sequences without a gap.
    pub genesis: Vec<ChainRow>,
    /// Entries for the transparency log, queued in the same commit.
    pub entries: Vec<LogEntry>,
    /// The present time.
    pub now: Millis,
}

/// What came of opening an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenOutcome {
    /// The account exists, its chain has begun, the invitation is used up.
    Opened,
    /// The same account was opened before with this invitation, root key and first link: a
    /// repetition of a request whose answer was lost. Nothing was changed.
    AlreadyOpened,
    /// No invitation has this secret.
    InvitationUnknown,
    /// The invitation opened another account.
    InvitationUsed,
    /// The invitation is no longer good.
    InvitationExpired,
    /// The account id is taken. The invitation is still good.
    AccountExists,
    /// Another account has this root key. The invitation is still good.
    RootKeyTaken,
}

/// One row of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainRow {
    /// Its place in the chain.
    pub sequence: u64,
    /// The kind of its statement.
    pub kind: u32,
    /// The link that the chain has after it.
    pub link: Link,
    /// The commitment to its statement.
    pub commitment: StatementId,
    /// The statement with its signatures and salt, as it was sent.
    pub record: Bytes,
    /// The cell's acknowledgement.
    pub acknowledgement: Bytes,
}

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainTip {
    /// The sequence of its last row.
    pub sequence: u64,
    /// The link of its last row.
    pub link: Link,
}

/// Rows to be put at the end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainAppend {
    /// Whose chain.
    pub account: AccountId,
    /// Where the chain must end now.
    pub expected: ChainTip,
    /// The rows, at least one, the first of sequence `expected.sequence + 1`, without a gap.
    pub rows: Vec<ChainRow>,
    /// Entries for the transparency log, queued in the same commit.
    pub entries: Vec<LogEntry>,
    /// What the rows ask to be erased, or take back, in their order.
    pub erasures: Vec<ErasureChange>,
    /// The heads that the account's vaults must have now, all of them, ascending by vault; `None` for whatever they
    /// are.
    pub heads: Option<Vec<(VaultId, HeadMark)>>,
    /// The present time.
    pub now: Millis,
}

/// What came of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The rows are on the chain, which now ends here.
    Appended(ChainTip),
    /// The chain ends here instead. Nothing was changed.
    Conflict(ChainTip),
    /// The rows cancel an erasure that has begun. Nothing was changed.
    ErasureBegun,
    /// The vaults have other heads. Nothing was changed.
    HeadsMoved,
}

/// Consecutive rows of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainPage {
    /// The rows in order.
    pub rows: Vec<ChainRow>,
    /// Whether there are rows after these.
    pub more: bool,
}

/// Names one state of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadMark {
    /// Its counter.
    pub counter: u64,
    /// The hash of its signed bytes.
    pub hash: [u8; 32],
}

/// The head of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its counter and hash.
    pub mark: HeadMark,
    /// The signed head, as the device sent it.
    pub bytes: Bytes,
    /// When the cell took it.
    pub moved_at: Millis,
}

/// A move of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadSwap {
    /// Whose vault.
    pub account: AccountId,
    /// Which vault.
    pub vault: VaultId,
    /// The end that the account's chain must have still, from which it was read that the device may do this; `None`
    /// for whatever it is.
    pub chain: Option<Link>,
    /// The head that must be there now; `None` for the first.
    pub expected: Option<HeadMark>,
    /// The head to put there. Its counter must be greater than the one expected.
    pub new: Head,
    /// Stored objects that are condemned from now on, those that are already from when they were first.
    pub condemned: Vec<ObjectId>,
    /// Objects that have to be stored still, and are not condemned any longer.
    pub needed: Vec<ObjectId>,
    /// Whether the new head is kept for good, also when others come after it ([`Records::runs`]).
    pub is_run: bool,
}

/// What came of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwapOutcome {
    /// The new head is there.
    Swapped,
    /// The new head was there already: a repetition. Nothing was changed.
    AlreadyThere,
    /// Another head is there (`None`: none at all). Nothing was changed.
    Conflict(Option<Head>),
    /// The new counter is not greater than the present one. Nothing was changed.
    NotNewer {
        /// The present counter.
        current: u64,
    },
    /// A needed object is not stored. Nothing was changed.
    Missing(ObjectId),
    /// The account's chain goes on. Nothing was changed.
    ChainMoved,
}

/// A claim on quota for an object that is about to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// The object.
    pub key: ObjectKey,
    /// Its size in bytes, padding included.
    pub size: u64,
    /// The present time. The reservation lives for [`RESERVATION_MAX_MS`] from here.
    pub now: Millis,
}

/// What came of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// The quota is held. An earlier reservation of the same object was renewed.
    Reserved,
    /// The object is stored: there is nothing to send.
    AlreadyStored,
    /// It does not fit. Nothing was changed.
    OverQuota {
        /// Bytes stored and reserved now.
        used: u64,
        /// Bytes allowed.
        quota: u64,
    },
    /// The object is just being taken away. Try again shortly.
    Releasing,
}

/// What came of a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfirmOutcome {
    /// The object counts as stored.
    Confirmed,
    /// It did already.
    AlreadyStored,
    /// It has no reservation, or no longer: it must be reserved and sent again.
    NotReserved,
}

/// What the records know of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectState {
    /// Quota is held; the bytes may or may not be there.
    Reserved,
    /// The bytes are durable.
    Stored,
    /// The bytes are being removed.
    Releasing,
}

/// Whether an object can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is not stored.
    Absent,
    /// It is stored.
    Stored,
    /// It is stored, and will be deleted unless a head rescues it.
    Condemned,
}

/// An object, as the cell accounts for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its name.
    pub object: ObjectId,
    /// Its size in bytes, padding included.
    pub size: u64,
    /// Where it stands.
    pub state: ObjectState,
    /// Since when: reserved, stored or releasing.
    pub since: Millis,
    /// Since when it is condemned, if it is stored and a head condemned it.
    pub condemned_at: Option<Millis>,
}

/// The nonce of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceUse {
    /// Who signed the request.
    pub device: DeviceId,
    /// The nonce.
    pub nonce: RequestNonce,
    /// The cell's time at which it was seen.
    pub seen_at: Millis,
}

/// Whether a nonce is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonceOutcome {
    /// It is, and is spent now.
    Fresh,
    /// It was used before.
    Seen,
}

/// A store of records.
///
/// Every operation may fail with the faults of an engine ([`RecordsError::Full`],
/// [`RecordsError::Busy`], [`RecordsError::Damaged`], [`RecordsError::Io`],
/// [`RecordsError::Closed`]); the documentation of an operation names only what comes on top. A
/// fault of the engine may leave the nonce of the request unspent; any other refusal spends it. A
/// dropped future may or may not have taken effect. Writes that are under way together share one
/// commit, and a refused one does not hurt the others. A read sees every write whose future was
/// ready before the read began.
pub trait Records: Send + Sync + 'static {
    /// A value of the cell, by its name. Keys are never among them: those are files.
    fn cell_value(&self, name: &'static str) -> Pending<'_, Result<Option<Bytes>, RecordsError>>;

    /// Sets a value of the cell.
    ///
    /// # Errors
    /// [`RecordsError::Invalid`] beyond [`CELL_NAME_MAX_BYTES`] or [`CELL_VALUE_MAX_BYTES`].
    fn set_cell_value(
        &self,
        name: &'static str,
        value: Bytes,
    ) -> Pending<'_, Result<(), RecordsError>>;

    /// Makes an invitation good.
    fn create_invitation(
        &self,
        invitation: Invitation,
    ) -> Pending<'_, Result<CreateOutcome, RecordsError>>;

    /// Uses up an invitation, and opens an account with the first rows of its chain.
    ///
    /// # Errors
    /// [`RecordsError::Invalid`] if the rows are none or have a gap, or an entry is queued already.
    fn open_account(
        &self,
        opening: AccountOpening,
    ) -> Pending<'_, Result<OpenOutcome, RecordsError>>;

    /// An account, by its id.
    fn account(&self, account: AccountId) -> Pending<'_, Result<Option<Account>, RecordsError>>;

    /// An account, by the hash of its root key. This is how a person with only the phrase is found.
    fn account_by_root_key(
        &self,
        root_key: RootKeyHash,
    ) -> Pending<'_, Result<Option<Account>, RecordsError>>;

    /// Sets how many bytes an account may store. What is stored beyond it stays.
    ///
    /// # Errors
    /// [`RecordsError::NoSuchAccount`].
    fn set_quota(
        &self,
        account: AccountId,
        quota_bytes: u64,
    ) -> Pending<'_, Result<(), RecordsError>>;

    /// Freezes or unfreezes an account.
    ///
    /// # Errors
    /// [`RecordsError::NoSuchAccount`].
    fn set_account_state(
        &self,
        account: AccountId,
        state: AccountState,
    ) -> Pending<'_, Result<(), RecordsError>>;

    /// Puts rows at the end of a chain, if it ends where the caller says.
    ///
    /// # Errors
    /// [`RecordsError::Replayed`], [`RecordsError::NoSuchAccount`], [`RecordsError::AccountFrozen`],
    /// and [`RecordsError::Invalid`] if the rows are none or have a gap, or an entry is queued already.
    fn append(
        &self,
        nonce: Option<NonceUse>,
        append: ChainAppend,
    ) -> Pending<'_, Result<AppendOutcome, RecordsError>>;

    /// Up to `limit` rows of a chain after the sequence `after` (`None`: from its beginning), and no
    /// more than [`CHAIN_PAGE_MAX_BYTES`] unless a single row is larger. No account: no rows.
    fn read_chain(
        &self,
        account: AccountId,
        after: Option<u64>,
        limit: usize,
    ) -> Pending<'_, Result<ChainPage, RecordsError>>;

    /// Where a chain ends; `None` if there is no such account.
    fn chain_tip(&self, account: AccountId) -> Pending<'_, Result<Option<ChainTip>, RecordsError>>;

    /// The head of a vault, if it has one.
    fn head(
        &self,
        account: AccountId,
        vault: VaultId,
    ) -> Pending<'_, Result<Option<Head>, RecordsError>>;

    /// Up to `limit` heads of a vault that are kept for good, by counter, of those above `after`; and no more than
    /// [`CHAIN_PAGE_MAX_BYTES`] unless a single one is larger. Also whether there are more.
    fn runs(
        &self,
        account: AccountId,
        vault: VaultId,
        after: u64,
        limit: usize,
    ) -> Pending<'_, Result<(Vec<Bytes>, bool), RecordsError>>;

    /// Moves the head of a vault, if it stands where the caller says, and only forwards. In the same step it
    /// condemns objects and takes others off: no object is let go between.
    ///
    /// # Errors
    /// [`RecordsError::Replayed`], [`RecordsError::NoSuchAccount`] and [`RecordsError::AccountFrozen`].
    fn swap_head(
        &self,
        nonce: Option<NonceUse>,
        swap: HeadSwap,
    ) -> Pending<'_, Result<SwapOutcome, RecordsError>>;

    /// Holds quota for an object.
    ///
    /// # Errors
    /// [`RecordsError::Replayed`], [`RecordsError::NoSuchAccount`], [`RecordsError::AccountFrozen`],
    /// and [`RecordsError::Invalid`] if the object is known with another size.
    fn reserve(
        &self,
        nonce: Option<NonceUse>,
        reservation: Reservation,
    ) -> Pending<'_, Result<ReserveOutcome, RecordsError>>;

    /// Turns a reservation into a stored object. Call it only when the object is durable.
    fn confirm(
        &self,
        key: ObjectKey,
        now: Millis,
    ) -> Pending<'_, Result<ConfirmOutcome, RecordsError>>;

    /// Gives up a reservation whose upload failed: the object is `Releasing` from now on, until
    /// [`finish_release`](Self::finish_release). Tells whether it was reserved; a stored object is
    /// never touched.
    fn release(&self, key: ObjectKey, now: Millis) -> Pending<'_, Result<bool, RecordsError>>;

    /// Lets up to `limit` stored objects go that were condemned before `before`, the oldest first: they are
    /// `Releasing` from now on. Returns how many.
    fn let_condemned_go(
        &self,
        before: Millis,
        now: Millis,
        limit: usize,
    ) -> Pending<'_, Result<u64, RecordsError>>;

    /// Lets reservations older than [`RESERVATION_MAX_MS`] go, and returns up to `limit` keys of
    /// all that are `Releasing`, the oldest first. Their objects are to be deleted.
    fn releasing(
        &self,
        now: Millis,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ObjectKey>, RecordsError>>;

    /// Forgets objects that are `Releasing` and gives their quota back. Call it only when their
    /// bytes are gone. Others are left alone. Returns how many were forgotten.
    fn finish_release(&self, keys: Vec<ObjectKey>) -> Pending<'_, Result<u64, RecordsError>>;

    /// Whether the objects can be relied on, in the order asked. Reserved ones are absent.
    ///
    /// # Errors
    /// [`RecordsError::Invalid`] for more than [`candor_wire::limits::HAS_MAX_IDS`].
    fn has_objects(
        &self,
        account: AccountId,
        vault: VaultId,
        objects: Vec<ObjectId>,
    ) -> Pending<'_, Result<Vec<Presence>, RecordsError>>;

    /// What is known of an object, in whatever state.
    fn object(&self, key: ObjectKey) -> Pending<'_, Result<Option<LedgerEntry>, RecordsError>>;

    /// Up to `limit` stored objects of a vault whose names come after `after`, in the order of
    /// their names. At most [`ROWS_MAX`] come at once; none means that there are no more.
    fn list_objects(
        &self,
        account: AccountId,
        vault: VaultId,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<LedgerEntry>, RecordsError>>;

    /// Spends the nonce of a request that writes nothing else. Durable before it returns: a nonce
    /// that was forgotten in a restart could be used twice.
    fn use_nonce(&self, nonce: NonceUse) -> Pending<'_, Result<NonceOutcome, RecordsError>>;

    /// Forgets up to `limit` nonces seen before `before`, and returns how many. The caller keeps
    /// them for [`candor_wire::limits::NONCE_KEPT_SECONDS`].
    fn sweep_nonces(&self, before: Millis, limit: usize) -> Pending<'_, Result<u64, RecordsError>>;

    /// Looks whether the database fits together: its own structure, its references, that the account
    /// totals are the sums of the objects, and that the log has no gap. Reads everything; for start-up
    /// and operators.
    ///
    /// # Errors
    /// [`RecordsError::Damaged`] says what was found.
    fn check(&self) -> Pending<'_, Result<(), RecordsError>>;
}

/// Looks whether rows follow each other without a gap (and follow `after`, if given), and says
/// where they end. Every engine uses this one rule.
pub(crate) fn end_of(rows: &[ChainRow], after: Option<u64>) -> Result<ChainTip, RecordsError> {
    let last = rows
        .last()
        .ok_or(RecordsError::Invalid("no rows to append"))?;
    if i64::try_from(last.sequence).is_err() {
        return Err(RecordsError::Invalid("a sequence is above 2^63 - 1"));
    }
    let follows = |before: u64, row: &ChainRow| before.checked_add(1) == Some(row.sequence);
    let gapless = rows
        .windows(2)
        .all(|pair| follows(pair[0].sequence, &pair[1]));
    if !gapless || after.is_some_and(|after| !follows(after, &rows[0])) {
        return Err(RecordsError::Invalid("the rows of a chain have a gap"));
    }
    Ok(ChainTip {
        sequence: last.sequence,
        link: last.link,
    })
}

impl HeadSwap {
    /// What a swap comes to without moving anything, given the head that is there; `None` if it may
    /// go ahead. Every engine uses this one rule.
    pub(crate) fn refusal(&self, current: Option<Head>) -> Option<SwapOutcome> {
        let mark = current.as_ref().map(|head| head.mark);
        if mark == Some(self.new.mark) {
            return Some(SwapOutcome::AlreadyThere);
        }
        if mark != self.expected {
            return Some(SwapOutcome::Conflict(current));
        }
        let counter = mark?.counter;
        (self.new.mark.counter <= counter).then_some(SwapOutcome::NotNewer { current: counter })
    }
}
