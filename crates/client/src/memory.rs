//! Rollback memory: the newest state of everything that this device ever saw, in a file of its own.
//!
//! 1. What a cell shows is compared with the memory before it is believed; anything older, or at the
//!    same place and different, is a [`MemoryError::Rollback`], and nothing is written.
//! 2. What is new is remembered durably *before* a success that rests on it is reported.
//! 3. The file is in no backup and no export. If it is missing, the device is *fresh*: it says so,
//!    and its first look at the cell is believed as far as signatures go.
//!
//! Nothing in it is secret. A hash at the end tells damage; a damaged memory is never taken for a
//! missing one, because that would be a way to make a device forget. Of the cell's log it holds the whole
//! newest checkpoint, signatures included: when the cell shows another history, this is the evidence.
//! Whether a larger log continues the remembered one is shown by tiles, which the module `log` reads; here
//! a log only never shrinks. Threats: rows A15, A23, B22.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candor_log::checkpoint::{CHECKPOINT_MAX_BYTES, SignedCheckpoint};
use candor_wire::cbor::{self, Canonical};
use candor_wire::chain::{AccountView, VAULTS_MAX};
use candor_wire::head::HeadHash;
use candor_wire::ids::Link;
use candor_wire::statement::{genesis_link, link};
use candor_wire::{CellId, VaultId};

use crate::durable;

/// The version of the memory that this build writes.
pub const MEMORY_VERSION: u8 = 2;

/// The lowest version that this build reads. Version 1 knew nothing of the log: with it, the device is
/// fresh in that part.
pub const MEMORY_VERSION_MIN: u8 = 1;

/// Largest memory file, in bytes: an entry of a vault has below 96, and there are at most 1,024; a
/// checkpoint has at most 128 KiB, and the names of its witnesses 4 KiB.
pub const MEMORY_MAX_BYTES: usize = 256 * 1024;

/// Most witnesses whose names are remembered: a policy has no more.
pub const WITNESSES_MAX: usize = candor_log::policy::POLICY_WITNESSES_MAX;

/// Longest remembered name of a witness, in bytes: a policy may have longer ones, a line for a person not.
pub const WITNESS_NAME_MAX_BYTES: usize = 60;

const CHECK_BYTES: usize = 16;
const CHECK_CONTEXT: &str = "candor 2026 rollback memory check v1";

/// What was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// The generation of the cell's keys.
    CellKeys,
    /// The account's chain.
    Chain,
    /// A vault's head.
    Head,
    /// A vault's key epoch.
    Epoch,
    /// The lowest accepted version of sealed objects.
    Format,
    /// The cell's log.
    Log,
    /// The state map in the cell's log.
    StateMap,
}

impl Remembered {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CellKeys => "the cell's keys",
            Self::Chain => "the account's chain",
            Self::Head => "a vault's head",
            Self::Epoch => "a vault's key epoch",
            Self::Format => "the format of sealed objects",
            Self::Log => "the cell's log",
            Self::StateMap => "the state map in the cell's log",
        }
    }
}

/// Why the memory refuses, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// What was shown is older than what this device saw before, or contradicts it.
    #[error("{} is older than what this device saw before, or not the same", .what.name())]
    Rollback {
        /// What was shown.
        what: Remembered,
    },
    /// The memory belongs to another cell.
    #[error("the rollback memory belongs to another cell")]
    OtherCell,
    /// The file is not whole.
    #[error("the rollback memory is damaged")]
    Damaged,
    /// Its version is not one that this build accepts.
    #[error("version {version} of the rollback memory is not accepted")]
    Version {
        /// The version found.
        version: u8,
    },
    /// There are too many vaults.
    #[error("the rollback memory holds at most {VAULTS_MAX} vaults")]
    TooMany,
    /// The file cannot be read or written.
    #[error("the rollback memory cannot be read or written")]
    Storage(#[source] io::Error),
}

/// The newest head of a vault that this device saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct RememberedHead {
    /// Which vault.
    #[n(0)]
    pub vault: VaultId,
    /// Its counter.
    #[n(1)]
    pub counter: u64,
    /// Its hash.
    #[n(2)]
    pub hash: HeadHash,
    /// The epoch of its manifest.
    #[n(3)]
    pub epoch: u32,
}

/// The newest chain that this device saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct RememberedChain {
    /// How many entries.
    #[n(0)]
    pub length: u64,
    /// Link of the last one.
    #[n(1)]
    pub tip: Link,
}

/// The newest state of the cell's log that this device saw.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct RememberedLog {
    /// The whole signed checkpoint, as it came.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub checkpoint: Vec<u8>,
    /// The newest version of the state map that was proven to this device; 0 before the first.
    #[n(1)]
    pub map_version: u64,
    /// The newest time to which a quorum of witnesses vouched for any checkpoint of the log, POSIX
    /// seconds by the witnesses' clocks; absent before the first.
    #[n(2)]
    pub witnessed_s: Option<u64>,
    /// Names of those witnesses: at most [`WITNESSES_MAX`] of [`WITNESS_NAME_MAX_BYTES`].
    #[n(3)]
    pub witnesses: Vec<String>,
}

impl RememberedLog {
    /// The checkpoint. `None` for bytes that are none, which a memory never holds.
    pub fn checkpoint(&self) -> Option<SignedCheckpoint> {
        SignedCheckpoint::parse(&self.checkpoint).ok()
    }

    fn is_sound(&self) -> bool {
        let names_fit = self.witnesses.len() <= WITNESSES_MAX
            && self
                .witnesses
                .iter()
                .all(|name| name.len() <= WITNESS_NAME_MAX_BYTES);
        names_fit && self.checkpoint.len() <= CHECKPOINT_MAX_BYTES && self.checkpoint().is_some()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct State {
    #[n(0)]
    version: u8,
    #[n(1)]
    cell: CellId,
    /// Newest generation of the cell's keys; 0 before the first.
    #[n(2)]
    serial: u32,
    #[n(3)]
    chain: Option<RememberedChain>,
    /// Ascending by vault.
    #[n(4)]
    heads: Vec<RememberedHead>,
    /// Lowest accepted format and suite of sealed objects; 0 before the first.
    #[n(5)]
    format_floor: u8,
    #[n(6)]
    suite_floor: u8,
    /// Absent before the first, and in version 1.
    #[n(7)]
    log: Option<RememberedLog>,
}

impl Canonical for State {
    const WHAT: &'static str = "the rollback memory";
    const MAX_BYTES: usize = MEMORY_MAX_BYTES;
}

impl State {
    const fn new(cell: CellId) -> Self {
        Self {
            version: MEMORY_VERSION,
            cell,
            serial: 0,
            chain: None,
            heads: Vec::new(),
            format_floor: 0,
            suite_floor: 0,
            log: None,
        }
    }
}

/// The device's rollback memory. Every `remember_…` is durable when it returns.
#[derive(Debug)]
pub struct Memory {
    /// `None`: it is kept only as long as a device joins anew.
    path: Option<PathBuf>,
    is_fresh: bool,
    state: Mutex<State>,
}

const fn rollback<T>(what: Remembered) -> Result<T, MemoryError> {
    Err(MemoryError::Rollback { what })
}

fn check_of(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&blake3::derive_key(CHECK_CONTEXT, bytes)[..CHECK_BYTES]);
    check
}

fn load(path: &Path) -> Result<Option<State>, MemoryError> {
    let read = durable::read_limited(path, MEMORY_MAX_BYTES as u64);
    let file = read.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => MemoryError::Damaged,
        _ => MemoryError::Storage(error),
    })?;
    file.map(|file| state_in(&file)).transpose()
}

/// Reads the bytes of a file.
fn state_in(file: &[u8]) -> Result<State, MemoryError> {
    let split = file
        .len()
        .checked_sub(CHECK_BYTES)
        .ok_or(MemoryError::Damaged)?;
    let (body, check) = file.split_at(split);
    if check_of(body) != check {
        return Err(MemoryError::Damaged);
    }
    let state: State = cbor::decode(body).map_err(|_| MemoryError::Damaged)?;
    if !(MEMORY_VERSION_MIN..=MEMORY_VERSION).contains(&state.version) {
        return Err(MemoryError::Version {
            version: state.version,
        });
    }
    let log_fits = match &state.log {
        None => true,
        Some(log) => state.version >= 2 && log.is_sound(),
    };
    let ascends = state
        .heads
        .windows(2)
        .all(|pair| pair[0].vault < pair[1].vault);
    if ascends && log_fits {
        // What is written next is of this build's version.
        Ok(State {
            version: MEMORY_VERSION,
            ..state
        })
    } else {
        Err(MemoryError::Damaged)
    }
}

/// A memory whose check is right, with any content (row A37): what is read is written the same, and does not
/// contradict itself.
#[cfg(any(test, fuzzing))]
pub(crate) fn take_noise(body: &[u8]) {
    let mut file = body.to_vec();
    file.extend_from_slice(&check_of(body));
    let Ok(state) = state_in(&file) else {
        return;
    };
    let version = cbor::decode::<State>(body).map(|stored| stored.version);
    let stored = State {
        version: version.unwrap_or(MEMORY_VERSION),
        ..state.clone()
    };
    assert_eq!(cbor::encode(&stored), body);
    assert!(check_cell(&state, state.serial).is_ok());
    if let Some(log) = &state.log {
        assert!(check_log(&state, log).is_ok());
    }
    for head in &state.heads {
        assert_eq!(head_of(&state, &head.vault).as_ref(), Some(head));
        assert!(check_head(&state, &head.vault, Some(head)).is_ok());
        assert!(check_head(&state, &head.vault, None).is_err());
    }
}

/// Where noise begins: a memory with everything in it, and an empty one.
#[cfg(any(test, fuzzing))]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    use candor_log::checkpoint::Checkpoint;
    use candor_log::note::{KeyKind, VerifierKey};
    use candor_log::tree::TreeHead;
    use candor_wire::sign::Ed25519Secret;

    let cell = CellId::from_bytes([0xce; 16]);
    let origin = candor_wire::cell::log_origin(&cell);
    let secret = Ed25519Secret::from_seed(&[1; 32]);
    let signed = VerifierKey::new(&origin, KeyKind::Log, secret.public())
        .ok()
        .and_then(|key| {
            let head = TreeHead::empty();
            SignedCheckpoint::sign(&Checkpoint { origin, head }, &key, &secret).ok()
        });
    let head = |vault: u8| RememberedHead {
        vault: VaultId::from_bytes([vault; 16]),
        counter: 3,
        hash: HeadHash([0x77; 32]),
        epoch: 1,
    };
    let full = State {
        serial: 2,
        chain: Some(RememberedChain {
            length: 5,
            tip: Link::from_bytes([4; 32]),
        }),
        heads: vec![head(1), head(2)],
        format_floor: 1,
        suite_floor: 1,
        log: signed.map(|signed| RememberedLog {
            checkpoint: signed.bytes(),
            map_version: 3,
            witnessed_s: Some(1_800_000_000),
            witnesses: vec!["w0".to_owned(), "w1".to_owned()],
        }),
        ..State::new(cell)
    };
    let first = State {
        version: MEMORY_VERSION_MIN,
        log: None,
        ..full.clone()
    };
    [full, first, State::new(cell)]
        .iter()
        .map(cbor::encode)
        .collect()
}

/// The link of the first `length` entries of a chain, worked out from its history.
pub(crate) fn link_at(view: &AccountView, length: u64) -> Option<Link> {
    let mut tip = genesis_link();
    let entries = view.history().get(..usize::try_from(length).ok()?)?;
    for entry in entries {
        tip = link(entry.sequence, entry.kind.code(), &tip, &entry.id);
    }
    Some(tip)
}

// The checks work on a state that the caller holds locked: between a check and what it allows to be
// written nothing else may be remembered.

fn check_cell(state: &State, serial: u32) -> Result<(), MemoryError> {
    if serial < state.serial {
        rollback(Remembered::CellKeys)
    } else {
        Ok(())
    }
}

fn check_chain(state: &State, view: &AccountView) -> Result<(), MemoryError> {
    match state.chain {
        Some(seen) if link_at(view, seen.length) != Some(seen.tip) => rollback(Remembered::Chain),
        _ => Ok(()),
    }
}

fn head_of(state: &State, vault: &VaultId) -> Option<RememberedHead> {
    let mut heads = state.heads.iter();
    heads.find(|head| head.vault == *vault).copied()
}

fn check_head(
    state: &State,
    vault: &VaultId,
    shown: Option<&RememberedHead>,
) -> Result<(), MemoryError> {
    let Some(seen) = head_of(state, vault) else {
        return Ok(());
    };
    let Some(shown) = shown.filter(|shown| shown.vault == *vault) else {
        return rollback(Remembered::Head);
    };
    let is_other = shown.counter == seen.counter && shown.hash != seen.hash;
    if shown.counter < seen.counter || is_other {
        return rollback(Remembered::Head);
    }
    if shown.epoch < seen.epoch {
        rollback(Remembered::Epoch)
    } else {
        Ok(())
    }
}

fn check_log(state: &State, shown: &RememberedLog) -> Result<(), MemoryError> {
    let Some(shown_head) = shown.checkpoint().filter(|_| shown.is_sound()) else {
        return Err(MemoryError::Damaged);
    };
    let Some(seen) = &state.log else {
        return Ok(());
    };
    let seen_head = seen.checkpoint().ok_or(MemoryError::Damaged)?;
    let (old, new) = (seen_head.head(), shown_head.head());
    let is_other =
        seen_head.origin() != shown_head.origin() || (old.size == new.size && old.root != new.root);
    if new.size < old.size || is_other {
        return rollback(Remembered::Log);
    }
    if shown.map_version < seen.map_version {
        rollback(Remembered::StateMap)
    } else {
        Ok(())
    }
}

impl Memory {
    /// Opens the memory of this device at `cell`, or begins a fresh one (which is written with the
    /// first thing to remember).
    pub fn open(path: &Path, cell: CellId) -> Result<Self, MemoryError> {
        let loaded = load(path)?;
        let is_fresh = loaded.is_none();
        let state = loaded.unwrap_or_else(|| State::new(cell));
        if state.cell != cell {
            return Err(MemoryError::OtherCell);
        }
        Ok(Self {
            path: Some(path.to_owned()),
            is_fresh,
            state: Mutex::new(state),
        })
    }

    /// A memory for one join of a home that was enrolled before, beside the one of that home, which stays as
    /// it is: nothing but the generation of the cell's keys is compared. Written nowhere.
    pub(crate) fn of_one_join(cell: CellId, serial: u32) -> Self {
        Self {
            path: None,
            is_fresh: true,
            state: Mutex::new(State {
                serial,
                ..State::new(cell)
            }),
        }
    }

    /// Whether there was no memory when it was opened: what the cell showed first was believed.
    pub const fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A state is replaced as a whole, after it was written: a panic elsewhere leaves it valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the changed state, and only then takes it over.
    fn store(&self, guard: &mut State, changed: State) -> Result<(), MemoryError> {
        if *guard == changed {
            return Ok(());
        }
        if let Some(path) = &self.path {
            let mut file = cbor::encode(&changed);
            let check = check_of(&file);
            file.extend_from_slice(&check);
            durable::replace(path, &file).map_err(MemoryError::Storage)?;
        }
        *guard = changed;
        Ok(())
    }

    /// The newest generation of the cell's keys that was seen; 0 before the first.
    pub(crate) fn cell_serial(&self) -> u32 {
        self.state().serial
    }

    /// Refuses a generation of the cell's keys that is older than the newest one seen.
    pub fn check_cell(&self, serial: u32) -> Result<(), MemoryError> {
        check_cell(&self.state(), serial)
    }

    /// Checks and remembers a generation of the cell's keys.
    pub fn remember_cell(&self, serial: u32) -> Result<(), MemoryError> {
        let mut state = self.state();
        check_cell(&state, serial)?;
        let changed = State {
            serial: state.serial.max(serial),
            ..state.clone()
        };
        self.store(&mut state, changed)
    }

    /// Refuses a chain that is shorter than the longest one seen, or went another way.
    pub fn check_chain(&self, view: &AccountView) -> Result<(), MemoryError> {
        check_chain(&self.state(), view)
    }

    /// Checks and remembers a chain.
    pub fn remember_chain(&self, view: &AccountView) -> Result<(), MemoryError> {
        let mut state = self.state();
        check_chain(&state, view)?;
        let chain = Some(RememberedChain {
            length: view.next_sequence(),
            tip: view.tip(),
        });
        let changed = State {
            chain,
            ..state.clone()
        };
        self.store(&mut state, changed)
    }

    /// The longest chain seen.
    pub fn chain(&self) -> Option<RememberedChain> {
        self.state().chain
    }

    /// The newest head seen of a vault.
    pub fn head(&self, vault: &VaultId) -> Option<RememberedHead> {
        head_of(&self.state(), vault)
    }

    /// The newest head seen of every vault, ascending by vault.
    pub fn heads(&self) -> Vec<RememberedHead> {
        self.state().heads.clone()
    }

    /// The newest state of the cell's log that was seen.
    pub fn log(&self) -> Option<RememberedLog> {
        self.state().log.clone()
    }

    /// Refuses a log that is smaller than the largest one seen, one of the same size with another root,
    /// and an older version of the state map; remembers all others. The caller has checked the
    /// signature, and that a larger log continues the remembered one.
    pub fn remember_log(&self, shown: RememberedLog) -> Result<(), MemoryError> {
        let mut state = self.state();
        check_log(&state, &shown)?;
        let changed = State {
            log: Some(shown),
            ..state.clone()
        };
        self.store(&mut state, changed)
    }

    /// Refuses a head that is older than the newest one seen, that has the same counter and another
    /// hash, or that fell back to an earlier epoch. `shown` is `None` for a vault without a head.
    pub fn check_head(
        &self,
        vault: &VaultId,
        shown: Option<&RememberedHead>,
    ) -> Result<(), MemoryError> {
        check_head(&self.state(), vault, shown)
    }

    /// Refuses a head that comes right after the newest one seen and does not follow from it:
    /// `previous` is what it names as the head before. Heads further on cannot be told apart so.
    pub fn check_successor(
        &self,
        shown: &RememberedHead,
        previous: Option<&HeadHash>,
    ) -> Result<(), MemoryError> {
        match self.head(&shown.vault) {
            Some(seen)
                if seen.counter.checked_add(1) == Some(shown.counter)
                    && previous != Some(&seen.hash) =>
            {
                rollback(Remembered::Head)
            }
            _ => Ok(()),
        }
    }

    /// Checks and remembers a head.
    pub fn remember_head(&self, shown: RememberedHead) -> Result<(), MemoryError> {
        let mut state = self.state();
        check_head(&state, &shown.vault, Some(&shown))?;
        let mut changed = state.clone();
        match changed
            .heads
            .binary_search_by_key(&shown.vault, |head| head.vault)
        {
            Ok(place) => changed.heads[place] = shown,
            Err(_) if changed.heads.len() >= VAULTS_MAX => return Err(MemoryError::TooMany),
            Err(place) => changed.heads.insert(place, shown),
        }
        self.store(&mut state, changed)
    }

    /// Lowers what is remembered to what a person accepted, and no further; the acceptance is signed and on
    /// the chain. Only for that. Of the vaults in `gone`, those in `heads` are remembered anew. Without a
    /// new `log` the old one stays. The cell's keys and the floor of formats never sink.
    pub(crate) fn re_anchor(
        &self,
        view: &AccountView,
        gone: &[VaultId],
        heads: Vec<RememberedHead>,
        log: Option<RememberedLog>,
    ) -> Result<(), MemoryError> {
        let mut state = self.state();
        let others = state.heads.iter().copied();
        let others = others.filter(|seen| !gone.contains(&seen.vault));
        let mut heads: Vec<RememberedHead> = others.chain(heads).collect();
        heads.sort_by_key(|head| head.vault);
        let changed = State {
            chain: Some(RememberedChain {
                length: view.next_sequence(),
                tip: view.tip(),
            }),
            heads,
            log: log.or_else(|| state.log.clone()),
            ..state.clone()
        };
        self.store(&mut state, changed)
    }

    /// Refuses a format or suite of sealed objects below the floor.
    pub fn check_format(&self, format: u8, suite: u8) -> Result<(), MemoryError> {
        let state = self.state();
        let is_below = format < state.format_floor || suite < state.suite_floor;
        if is_below {
            rollback(Remembered::Format)
        } else {
            Ok(())
        }
    }

    /// Raises the floor of sealed objects to this format and suite. It never sinks.
    pub fn remember_format(&self, format: u8, suite: u8) -> Result<(), MemoryError> {
        let mut state = self.state();
        let changed = State {
            format_floor: state.format_floor.max(format),
            suite_floor: state.suite_floor.max(suite),
            ..state.clone()
        };
        self.store(&mut state, changed)
    }

    /// The lowest accepted format and suite of sealed objects; 0 before the first.
    pub fn format_floor(&self) -> (u8, u8) {
        let state = self.state();
        (state.format_floor, state.suite_floor)
    }
}

#[cfg(test)]
mod tests;
