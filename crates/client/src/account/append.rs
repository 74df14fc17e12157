//! Stating something on the account's chain, by compare-and-swap.

use candor_wire::DeviceId;
use candor_wire::api::ErrorCode;
use candor_wire::chain::Record;
use candor_wire::ids::Label;
use candor_wire::sign::SecretKey;
use candor_wire::statement::{Body, Draft, Kind};

use super::labels::label;
use super::{APPEND_TRIES_MAX, AccountError, Surroundings, draft, read_on};
use crate::api::{Api, ApiError};
use crate::chain::{Chain, acknowledge};
use crate::keystore::KeyStore;
use crate::memory::Memory;

/// States `bodies` on the chain, signed by this device, all at once. Returns when the cell has
/// acknowledged them and the memory holds them.
pub async fn append(
    api: &Api,
    chain: &mut Chain,
    memory: &Memory,
    keys: &KeyStore,
    bodies: Vec<Body>,
    surroundings: Surroundings<'_>,
) -> Result<(), AccountError> {
    let signing = keys.signing();
    let signer = Some(keys.device());
    append_as(
        api,
        chain,
        memory,
        keys,
        signer,
        &signing,
        bodies,
        surroundings,
    )
    .await
}

#[expect(
    clippy::too_many_arguments,
    reason = "who signs is the one thing that its two callers differ in"
)]
pub(super) async fn append_as(
    api: &Api,
    chain: &mut Chain,
    memory: &Memory,
    keys: &KeyStore,
    signer: Option<DeviceId>,
    key: &SecretKey,
    bodies: Vec<Body>,
    surroundings: Surroundings<'_>,
) -> Result<(), AccountError> {
    let mut drafts = drafts_of(chain, signer, bodies, surroundings)?;
    for _ in 0..APPEND_TRIES_MAX {
        let tried = try_drafts(api, chain, memory, keys, &mut drafts, key).await?;
        if tried == Tried::Done {
            return Ok(());
        }
    }
    Err(AccountError::Contended)
}

fn drafts_of(
    chain: &Chain,
    signer: Option<DeviceId>,
    bodies: Vec<Body>,
    surroundings: Surroundings<'_>,
) -> Result<Vec<Draft>, AccountError> {
    // The label is decided anew at each try: it counts the statements of its kind.
    let label = Label::from_bytes([0; 32]);
    let drafts = bodies.into_iter();
    drafts
        .map(|body| draft(chain.account(), signer, label, body, surroundings))
        .collect()
}

/// What came of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    /// The cell has acknowledged the statements and the memory holds them.
    Done,
    /// Something else came first. The chain is up to date again, and has none of the statements.
    Lost,
}

/// Tries once to state `bodies`, signed by this device, all at once: for statements that say how things stand, and
/// have to be made anew when they changed.
pub(crate) async fn try_append(
    api: &Api,
    chain: &mut Chain,
    memory: &Memory,
    keys: &KeyStore,
    bodies: Vec<Body>,
    surroundings: Surroundings<'_>,
) -> Result<Tried, AccountError> {
    let signing = keys.signing();
    let signer = (Some(keys.device()), signing.as_ref());
    try_append_as(api, chain, memory, keys, signer, bodies, surroundings).await
}

/// The same, signed by whoever `signer` says; `None` is the root.
pub(super) async fn try_append_as(
    api: &Api,
    chain: &mut Chain,
    memory: &Memory,
    keys: &KeyStore,
    (signer, key): (Option<DeviceId>, &SecretKey),
    bodies: Vec<Body>,
    surroundings: Surroundings<'_>,
) -> Result<Tried, AccountError> {
    let mut drafts = drafts_of(chain, signer, bodies, surroundings)?;
    try_drafts(api, chain, memory, keys, &mut drafts, key).await
}

async fn try_drafts(
    api: &Api,
    chain: &mut Chain,
    memory: &Memory,
    keys: &KeyStore,
    drafts: &mut [Draft],
    key: &SecretKey,
) -> Result<Tried, AccountError> {
    let before = chain.view().next_sequence();
    let mut records = sign_all(chain, keys, drafts, key)?;
    match api
        .append_chain(chain.account(), chain.view().tip(), records.clone())
        .await
    {
        Ok(acknowledgements) => {
            acknowledge(&mut records, acknowledgements);
            let mut newer = chain.clone();
            newer.extend(records)?;
            memory.remember_chain(newer.view())?;
            *chain = newer;
            Ok(Tried::Done)
        }
        Err(ApiError::Refused {
            code: ErrorCode::Conflict,
            ..
        }) => {
            let mut newer = chain.clone();
            read_on(api, &mut newer, memory).await?;
            *chain = newer;
            Ok(if is_stated(chain, before, &records) {
                Tried::Done
            } else {
                Tried::Lost
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Signs one statement of this device for the place after the chain's end.
pub(crate) fn sign_next(
    chain: &Chain,
    keys: &KeyStore,
    body: Body,
    key: &SecretKey,
    surroundings: Surroundings<'_>,
) -> Result<Vec<Record>, AccountError> {
    let label = Label::from_bytes([0; 32]);
    let draft = draft(
        chain.account(),
        Some(keys.device()),
        label,
        body,
        surroundings,
    )?;
    sign_all(chain, keys, &mut [draft], key)
}

/// Signs the drafts for the places after the chain's end.
fn sign_all(
    chain: &Chain,
    keys: &KeyStore,
    drafts: &mut [Draft],
    key: &SecretKey,
) -> Result<Vec<Record>, AccountError> {
    let history = chain.view().history();
    let mut tip = chain.view().tip();
    let mut kinds: Vec<Kind> = Vec::with_capacity(drafts.len());
    let mut records = Vec::with_capacity(drafts.len());
    for (sequence, draft) in (chain.view().next_sequence()..).zip(drafts) {
        let kind = draft.body.kind();
        let stated = history.iter().filter(|entry| entry.kind == kind).count();
        let in_this_batch = kinds.iter().filter(|other| **other == kind).count();
        draft.label =
            label(keys, kind, (stated + in_this_batch) as u64).ok_or(AccountError::NotEnrolled)?;
        let (statement, link) = draft.sign(sequence, tip, key);
        records.push(Record::of(statement).expect("a statement that was just made can be read"));
        kinds.push(kind);
        tip = link;
    }
    Ok(records)
}

/// Whether the cell took exactly these records at exactly their places: the answer to an earlier try
/// was lost.
fn is_stated(chain: &Chain, before: u64, records: &[Record]) -> bool {
    let start = usize::try_from(before).unwrap_or(usize::MAX);
    let there = chain.view().history().get(start..).unwrap_or_default();
    there.len() >= records.len()
        && there
            .iter()
            .zip(records)
            .all(|(there, record)| there.id == record.commitment)
}
