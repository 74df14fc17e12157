//! The account's entry in the state map: proven under the checkpoint, and compared with what this device
//! knows of its chain and heads.

use candor_log::state_map::{
    AccountState, AccountStateError, MapProof, MapProofError, MapRoot, StateSecret, VaultState,
};
use candor_log::tile::{Prover, TILE_WIDTH, TileError, bundle_at};
use candor_wire::api::StateReply;
use candor_wire::cbor::CodecError;
use candor_wire::chain::AccountView;
use candor_wire::ids::VaultId;

use super::source::{CellTiles, ReadFault};
use crate::chain::Chain;
use crate::memory::{RememberedHead, link_at};

/// Why what the cell says of the account's state is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The state cannot be read.
    #[error("the account's state in the cell's state map cannot be read")]
    State(#[source] AccountStateError),
    /// The proof cannot be read.
    #[error("the proof of the account's state cannot be read")]
    Malformed(#[source] CodecError),
    /// The place is not in the tree.
    #[error("the cell names an entry of its log that its checkpoint does not have")]
    OutOfTree,
    /// The entry is another one.
    #[error("the entry of the log that the cell names is not that version of its state map")]
    OtherEntry,
    /// The proof leads elsewhere.
    #[error("the proof of the account's state does not lead to the state map's root")]
    Proof(#[source] MapProofError),
    /// The map says something else.
    #[error("the cell's state map says something else of the account than the cell does")]
    Contradiction,
    /// Tiles are missing or do not belong to the tree.
    #[error("the cell's log does not prove its state map")]
    Tiles(#[source] TileError<ReadFault>),
}

/// Where the account stands in the map. `None` for a chain whose first statement is not there, which no
/// account's is while it lives.
pub(crate) fn secret_of(chain: &Chain) -> Option<StateSecret> {
    let genesis = chain.records().first()?.statement.as_ref()?;
    Some(StateSecret::of(&genesis.salt, &chain.account()))
}

/// What the map says of the account, proven; `None` if it is proven that it says nothing.
pub(crate) fn prove(
    reply: &StateReply,
    secret: &StateSecret,
    prover: &Prover<'_, CellTiles<'_>>,
) -> Result<Option<AccountState>, StateError> {
    let state = match &reply.state {
        None => None,
        Some(bytes) => Some(AccountState::from_bytes(bytes).map_err(StateError::State)?),
    };
    if reply.map_version == 0 {
        // Nothing was ever published, so nothing can be proven.
        return match state {
            None => Ok(None),
            Some(_) => Err(StateError::Contradiction),
        };
    }
    let size = prover.head().size;
    if reply.index >= size {
        return Err(StateError::OutOfTree);
    }
    let bundle = bundle_at(reply.index / TILE_WIDTH, size).ok_or(StateError::OutOfTree)?;
    let leaves = prover.leaves(&bundle).map_err(StateError::Tiles)?;
    let within = usize::try_from(reply.index % TILE_WIDTH).map_err(|_| StateError::OutOfTree)?;
    let leaf = leaves.get(within).ok_or(StateError::OutOfTree)?;
    if leaf.state_map_version() != Some(reply.map_version) {
        return Err(StateError::OtherEntry);
    }
    let proof = MapProof::from_bytes(&reply.proof).map_err(StateError::Malformed)?;
    let said = proof
        .verify(&MapRoot(leaf.commitment), &secret.key())
        .map_err(StateError::Proof)?;
    if said == state.as_ref().map(|state| secret.value(state)) {
        Ok(state)
    } else {
        Err(StateError::Contradiction)
    }
}

/// What the device knows, in the form in which the map says it.
pub(crate) fn known(view: &AccountView, heads: &[RememberedHead]) -> AccountState {
    let heads = heads
        .iter()
        .filter(|head| view.erasure_of(Some(&head.vault)).is_none());
    let heads = heads.map(|head| VaultState {
        vault: head.vault,
        counter: head.counter,
        hash: head.hash.0,
    });
    // A view has at least its genesis.
    let sequence = view.next_sequence().saturating_sub(1);
    AccountState::new(sequence, view.tip(), heads.collect())
}

/// Whether the map's state holds everything that was known earlier. What is further on is fine, and of a vault
/// that a device of the account had erased nothing is owed.
pub(crate) fn reaches(state: &AccountState, owed: &AccountState, view: &AccountView) -> bool {
    state.sequence >= owed.sequence
        && owed
            .heads
            .iter()
            .filter(|one| view.erasure_of(Some(&one.vault)).is_none())
            .all(|one| counter_of(state, &one.vault).is_some_and(|counter| counter >= one.counter))
}

fn counter_of(state: &AccountState, vault: &VaultId) -> Option<u64> {
    let found = state.heads.iter().find(|head| head.vault == *vault);
    found.map(|head| head.counter)
}

/// What the map's state contradicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// The chain: another statement stands at that place, or the chain that the cell shows is shorter.
    Chain,
    /// The newest head that this device saw of a vault: the same counter, another head.
    Head(RememberedHead),
}

/// Compares the map's state with the chain, read after it, and the heads that this device saw.
pub(crate) fn conflict(
    state: &AccountState,
    view: &AccountView,
    heads: &[RememberedHead],
) -> Option<Conflict> {
    let length = state.sequence.checked_add(1);
    if length.and_then(|length| link_at(view, length)) != Some(state.link) {
        return Some(Conflict::Chain);
    }
    let other = heads.iter().find(|seen| {
        state.heads.iter().any(|shown| {
            shown.vault == seen.vault && shown.counter == seen.counter && shown.hash != seen.hash.0
        })
    });
    other.copied().map(Conflict::Head)
}
