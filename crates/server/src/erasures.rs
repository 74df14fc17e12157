//! Erasing what people asked to be erased, once it is due.
//!
//! In this order, so that a receipt is true when it is signed: what there is is counted, and can no longer be
//! kept; the objects are taken away one by one, each durably; what is left of their directories goes, and the
//! directories above are synced; the rows go, consent records with their salts among them, and the database's
//! log is emptied; only then the receipt is signed, kept, and its entry queued for the log. Cut anywhere, the next
//! round goes on.

use std::sync::Arc;

use candor_log::leaf::{Class, Leaf};
use candor_store::erasures::{ErasureEnd, ErasureJob, RowsOutcome, RowsToErase};
use candor_store::{ObjectsError, RecordsError};
use candor_wire::api::{API_VERSION, ErasureReply};
use candor_wire::cbor;
use candor_wire::chain::{AccountView, RECORD_VERSION, Record};
use candor_wire::erasure::{ERASURE_VERSION, Erasure, log_label};
use candor_wire::ids::{AccountId, Salt, VaultId};
use candor_wire::statement::Kind;
use candor_wire::time::{DAY_MS, Millis};

use crate::log::Cause;
use crate::random;
use crate::reply::Refusal;
use crate::shared::Shared;
use crate::views;

/// How many erasures one round looks at: the next one comes within a minute.
const BATCH_MAX_ERASURES: usize = 100;

/// How many objects go in one commit.
const BATCH_MAX_OBJECTS: usize = 1000;

/// How long the receipt of an account that is gone can be fetched, in days. Its devices know when it is due.
const RECEIPT_KEPT_DAYS: i64 = 90;

/// What a round did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Swept {
    pub(crate) finished: u64,
    /// Objects that were taken away.
    pub(crate) objects: u64,
}

/// Why an erasure did not get to its end this time.
enum Unfinished {
    Cause(Cause),
    /// Something is in the way that goes by itself: an object that could not be taken away yet, say.
    Later,
}

impl From<RecordsError> for Unfinished {
    fn from(error: RecordsError) -> Self {
        Refusal::of_records(&error)
            .cause
            .map_or(Self::Later, Self::Cause)
    }
}

impl From<ObjectsError> for Unfinished {
    fn from(error: ObjectsError) -> Self {
        Refusal::of_objects(&error)
            .cause
            .map_or(Self::Later, Self::Cause)
    }
}

impl From<Refusal> for Unfinished {
    fn from(refusal: Refusal) -> Self {
        refusal.cause.map_or(Self::Later, Self::Cause)
    }
}

/// One round. What fails is tried again in the next, and does not keep the others from being done.
pub(crate) async fn sweep(shared: &Arc<Shared>, now: Millis) -> Swept {
    let mut swept = Swept::default();
    let due = shared.erasures.due(now, BATCH_MAX_ERASURES).await;
    for job in due.unwrap_or_default() {
        match erase(shared, &job, now, &mut swept.objects).await {
            Ok(finished) => swept.finished += u64::from(finished),
            Err(Unfinished::Cause(cause)) => shared.fault(cause),
            Err(Unfinished::Later) => {}
        }
    }
    let before = now.plus_ms(-RECEIPT_KEPT_DAYS * DAY_MS);
    // What stays is swept in the next round.
    let _ = shared
        .erasures
        .sweep_receipts(before, BATCH_MAX_ERASURES)
        .await;
    swept
}

/// Takes one erasure as far as it gets. `false`: it was cancelled, or somebody else finished it.
async fn erase(
    shared: &Arc<Shared>,
    job: &ErasureJob,
    now: Millis,
    taken: &mut u64,
) -> Result<bool, Unfinished> {
    let Some(job) = shared.erasures.begin(job.asked, now).await? else {
        return Ok(false);
    };
    take_objects_away(shared, &job, now, taken).await?;
    shared.objects.erase(job.account, job.vault).await?;
    let consents = erase_rows(shared, &job).await?;
    shared.erasures.settle().await?;
    let (receipt, leaf) = receipt(shared, &job, consents)?;
    let end = ErasureEnd {
        asked: job.asked,
        receipt: cbor::encode(&receipt).into(),
        entry: leaf.encode(),
        now: shared.clock.now(),
    };
    let finished = shared.erasures.finish(end).await?;
    if finished {
        shared.transparency.queue().added(1);
    }
    Ok(finished)
}

async fn take_objects_away(
    shared: &Arc<Shared>,
    job: &ErasureJob,
    now: Millis,
    taken: &mut u64,
) -> Result<(), Unfinished> {
    let let_go = |limit| shared.erasures.let_objects_go(job.asked, now, limit);
    while let_go(BATCH_MAX_OBJECTS).await? == BATCH_MAX_OBJECTS as u64 {}
    loop {
        let keys = shared.records.releasing(now, BATCH_MAX_OBJECTS).await?;
        let (listed, before) = (keys.len(), *taken);
        for key in keys {
            *taken += u64::from(shared.take_away(key).await);
        }
        if listed < BATCH_MAX_OBJECTS || *taken == before {
            return Ok(());
        }
    }
}

/// Erases the rows while nobody appends to the chain, and forgets what is remembered of it.
async fn erase_rows(shared: &Arc<Shared>, job: &ErasureJob) -> Result<u64, Unfinished> {
    let _held = shared.views.hold(&job.account).await;
    let stubs = match job.vault {
        None => Vec::new(),
        Some(vault) => {
            let folded = views::folded_while_held(shared, job.account).await?;
            let view = folded.map(|folded| folded.view);
            view.map_or_else(Vec::new, |view| stubs(&view, &vault))
        }
    };
    let rows = RowsToErase {
        asked: job.asked,
        stubs,
        alias: AccountId::from_bytes(random::bytes().map_err(|_| randomness())?),
    };
    let outcome = shared.erasures.erase_rows(rows).await;
    shared.views.forget(&job.account);
    shared.waiters.account_changed(&job.account);
    match outcome? {
        RowsOutcome::Erased { consents } => Ok(consents),
        RowsOutcome::ObjectsLeft | RowsOutcome::NotBegun => Err(Unfinished::Later),
    }
}

const fn randomness() -> Unfinished {
    Unfinished::Cause(Cause::LogRandomness)
}

/// What is left of the consents for a vault: kind and commitment, with which the chain still verifies.
fn stubs(view: &AccountView, vault: &VaultId) -> Vec<(u64, bytes::Bytes)> {
    let consents = view.consents();
    let of_vault = consents
        .into_iter()
        .filter(|(_, consent)| consent.record.vault.as_ref() == Some(vault));
    let stub = |(commitment, sequence)| Record {
        version: RECORD_VERSION,
        sequence,
        kind: Kind::ConsentGiven,
        commitment,
        statement: None,
        acknowledgement: None,
    };
    of_vault
        .map(|(id, consent)| (id, consent.sequence))
        .map(|place| (place.1, cbor::encode(&stub(place)).into()))
        .collect()
}

/// The receipt, and its entry for the log.
fn receipt(
    shared: &Shared,
    job: &ErasureJob,
    consents: u64,
) -> Result<(ErasureReply, Leaf), Unfinished> {
    let salt = Salt::from_bytes(random::bytes().map_err(|_| randomness())?);
    let erasure = shared.sign_erasure(&Erasure {
        version: ERASURE_VERSION,
        cell: shared.keyring.cell(),
        serial: shared.keyring.current().serial,
        account: job.account,
        vault: job.vault,
        asked: job.asked,
        asked_at: job.asked_at,
        erased_at: shared.clock.now(),
        objects: job.objects,
        bytes: job.bytes,
        consents,
    });
    let leaf = Leaf {
        class: Class::Erasure,
        label: *log_label(&salt).as_bytes(),
        commitment: *erasure.commitment(&salt).as_bytes(),
    };
    let version = API_VERSION;
    Ok((
        ErasureReply {
            version,
            erasure,
            salt,
        },
        leaf,
    ))
}
