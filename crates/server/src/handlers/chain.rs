//! Reading a chain and appending to it.

use std::sync::Arc;

use axum::response::Response;
use candor_log::leaf::Leaf;
use candor_store::erasures::{ErasureAsk, ErasureChange};
use candor_store::log::LogEntry;
use candor_store::{AppendOutcome, ChainAppend, ChainRow, ChainTip, HeadMark, NonceUse};
use candor_wire::api::{API_VERSION, AppendChain, Appended, ChainPage, ErrorCode};
use candor_wire::cbor::{self, CodecError};
use candor_wire::cell::{Acknowledgement, CELL_FORMAT_VERSION, SignedAcknowledgement};
use candor_wire::chain::{AccountView, DeviceEntry, Record};
use candor_wire::consent_record::ConsentRecord;
use candor_wire::erasure::{self, receipt_name};
use candor_wire::errand::Purpose;
use candor_wire::ids::{AccountId, DeviceId, Label, VaultId};
use candor_wire::limits::{DEVICES_MAX, PAGE_MAX_ENTRIES, REQUEST_SKEW_SECONDS};
use candor_wire::sign::Domain;
use candor_wire::statement::{Body, Kind, Role, Statement, genesis_link, link};
use candor_wire::time::Millis;

use crate::gate::Admitted;
use crate::log::Cause;
use crate::reply::{self, Refusal};
use crate::shared::{Place, Shared};
use crate::views::{self, Folded};

/// Longest `from` of a page, in digits: what fits always fits 64 bits too, and no chain comes near.
pub(crate) const FROM_MAX_DIGITS: usize = 18;

/// A chain with new entries at its end, checked and acknowledged, and not stored yet.
pub(super) struct Extension {
    pub(super) view: AccountView,
    pub(super) rows: Vec<ChainRow>,
    pub(super) acknowledgements: Vec<SignedAcknowledgement>,
    /// Their entries for the transparency log.
    pub(super) entries: Vec<LogEntry>,
    /// What they ask to be erased, or take back.
    pub(super) erasures: Vec<ErasureChange>,
    /// The heads that a revocation among them pins.
    pub(super) heads: Option<Vec<(VaultId, HeadMark)>>,
    /// How long the new rows are.
    pub(super) bytes: usize,
}

/// Who may have stated what is appended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Terms<'a> {
    /// Record *i* has to be signed by `signers[i]`, or by the last of them.
    Signed(&'a [Option<DeviceId>]),
    /// A restored cell gets back what it lost: whoever stated it, it bears this cell's earlier
    /// acknowledgement for just this place. Only a re-anchoring may bear none: then it is new, and this
    /// device's.
    BroughtBack(Option<DeviceId>),
}

/// Checks records against `view` (`None`: they begin the chain of `account`) and acknowledges them.
/// Costs processor time.
pub(super) fn extend(
    shared: &Shared,
    account: AccountId,
    view: Option<AccountView>,
    records: Vec<Record>,
    terms: Terms<'_>,
    now: Millis,
) -> Result<Extension, Refusal> {
    let mut view = view;
    let (mut rows, mut acknowledgements, mut bytes) = (Vec::new(), Vec::new(), 0);
    let (mut entries, mut erasures, mut heads) = (Vec::new(), Vec::new(), None);
    for (i, mut record) in records.into_iter().enumerate() {
        let (sequence, previous) = view.as_ref().map_or((0, genesis_link()), |view| {
            (view.next_sequence(), view.tip())
        });
        let link = link(sequence, record.kind.code(), &previous, &record.commitment);
        let place = Place {
            account,
            sequence,
            link,
            statement: record.commitment,
        };
        let label = match terms {
            // An earlier acceptance is brought back like everything else; the new one is not acknowledged.
            Terms::BroughtBack(_)
                if record.kind != Kind::ReAnchored || record.acknowledgement.is_some() =>
            {
                check_brought_back(shared, &mut record, &place)?
            }
            Terms::BroughtBack(signer) => check_statement(shared, &record, signer, now)?,
            Terms::Signed(signers) => {
                let signer = signers.get(i).or(signers.last()).copied().flatten();
                check_statement(shared, &record, signer, now)?
            }
        };
        entries.push(Leaf::statement(&label, &record.commitment).encode());
        erasures.extend(erasure_change(shared, &record, now));
        // What a restored cell gets back pins the heads that it had.
        if matches!(terms, Terms::Signed(_)) {
            let pinned = pinned_heads(&record);
            // Several revocations at once name the same heads.
            if heads.is_some() && pinned.is_some() && heads != pinned {
                return Err(ErrorCode::Malformed.into());
            }
            heads = heads.or(pinned);
        }
        let stored = cbor::encode(&record);
        let acknowledgement = shared.acknowledge(&place, now);
        record.acknowledgement = Some(acknowledgement.clone());
        match &mut view {
            Some(view) => view
                .apply(&record, &shared.keyring)
                .map_err(|_| ErrorCode::Chain)?,
            None => {
                let begun = AccountView::begin(account, &record, &shared.keyring);
                view = Some(begun.map_err(|_| ErrorCode::Chain)?);
            }
        }
        let row = ChainRow {
            sequence,
            kind: u32::from(record.kind.code()),
            link,
            commitment: record.commitment,
            record: stored.into(),
            acknowledgement: cbor::encode(&acknowledgement).into(),
        };
        bytes += row.record.len() + row.acknowledgement.len();
        rows.push(row);
        acknowledgements.push(acknowledgement);
    }
    let view = view.ok_or(ErrorCode::Malformed)?;
    Ok(Extension {
        view,
        rows,
        acknowledgements,
        entries,
        erasures,
        heads,
        bytes,
    })
}

/// Devices of the account that the caller, who may, says are to be revoked: with its signature, so that nobody is
/// held by what others make up.
fn revoked_devices(
    view: &AccountView,
    signer: Option<DeviceId>,
    records: &[Record],
) -> Vec<DeviceId> {
    let may = signer.is_none_or(|device| {
        let entry = view.device(&device);
        entry.is_some_and(|entry| entry.is_live() && entry.added.role == Role::Full)
    });
    let Some(key) = view.key_of(signer.as_ref()).filter(|_| may) else {
        return Vec::new();
    };
    let is_live = |device: &DeviceId| view.device(device).is_some_and(DeviceEntry::is_live);
    let revocations = records
        .iter()
        .filter(|record| record.kind == Kind::DeviceRevoked)
        .take(DEVICES_MAX)
        .filter_map(|record| record.statement.as_ref()?.parse().ok())
        .filter(|parsed| parsed.entry.account == view.account() && parsed.entry.signer == signer)
        .filter(|parsed| parsed.verify(key).is_ok());
    let devices = revocations.filter_map(|parsed| match parsed.body {
        Body::DeviceRevoked(revoked) => Some(revoked.device),
        _ => None,
    });
    devices.filter(is_live).collect()
}

/// Where the heads stand that a revocation pins; `None` for every other statement.
fn pinned_heads(record: &Record) -> Option<Vec<(VaultId, HeadMark)>> {
    if record.kind != Kind::DeviceRevoked {
        return None;
    }
    let Body::DeviceRevoked(revoked) = record.statement.as_ref()?.parse().ok()?.body else {
        return None;
    };
    let marks = revoked.heads.iter().map(|pin| {
        let (counter, hash) = (pin.counter, pin.hash.0);
        (pin.vault, HeadMark { counter, hash })
    });
    Some(marks.collect())
}

/// What a statement changes about erasures, if it does. That it may, the chain's rules say.
fn erasure_change(shared: &Shared, record: &Record, now: Millis) -> Option<ErasureChange> {
    if !matches!(record.kind, Kind::ErasureAsked | Kind::ErasureCancelled) {
        return None;
    }
    let statement = record.statement.as_ref()?;
    match statement.parse().ok()?.body {
        Body::ErasureAsked(asked) => Some(ErasureChange::Ask(ErasureAsk {
            asked: record.commitment,
            vault: asked.vault,
            receipt_name: receipt_name(&statement.salt),
            asked_at: now,
            due_at: erasure::due(now, asked.vault.as_ref(), shared.config.retention_days),
        })),
        Body::ErasureCancelled(cancelled) => Some(ErasureChange::Cancel(cancelled.asked)),
        _ => None,
    }
}

/// What the cell asks of a new statement beyond what its chain asks. Tells its label for the log.
fn check_statement(
    shared: &Shared,
    record: &Record,
    signer: Option<DeviceId>,
    now: Millis,
) -> Result<Label, Refusal> {
    // A stub is what erasing leaves; nobody appends one. Acknowledging is the cell's.
    let Some(statement) = record
        .statement
        .as_ref()
        .filter(|_| record.acknowledgement.is_none())
    else {
        return Err(ErrorCode::Malformed.into());
    };
    let parsed = statement.parse().map_err(|error| match error {
        CodecError::Version { .. } => ErrorCode::Version,
        _ => ErrorCode::Malformed,
    })?;
    if parsed.entry.signer != signer {
        return Err(ErrorCode::NotPermitted.into());
    }
    if let Body::ConsentGiven(consent) = &parsed.body {
        check_consent(shared, consent, now)?;
    }
    Ok(parsed.entry.label)
}

/// A statement that this cell acknowledged before it was put back: its own signature says so, for this
/// place of this chain and no other. Takes the old acknowledgement off.
fn check_brought_back(
    shared: &Shared,
    record: &mut Record,
    place: &Place,
) -> Result<Label, Refusal> {
    let signed = record.acknowledgement.take().ok_or(ErrorCode::Malformed)?;
    let earlier = own_acknowledgement(shared, &signed).ok_or(ErrorCode::Chain)?;
    let is_this_place = earlier.account == place.account
        && earlier.sequence == place.sequence
        && earlier.link == place.link
        && earlier.statement == place.statement;
    if !is_this_place {
        return Err(ErrorCode::Chain.into());
    }
    let statement = record.statement.as_ref().ok_or(ErrorCode::Malformed)?;
    let parsed = statement.parse().map_err(|_| ErrorCode::Malformed)?;
    Ok(parsed.entry.label)
}

/// What an acknowledgement says, if this cell signed it. The generation of keys that it names may have
/// been lost with the restored database; the key itself is in its own file.
fn own_acknowledgement(shared: &Shared, signed: &SignedAcknowledgement) -> Option<Acknowledgement> {
    if let Ok(earlier) = shared.keyring.check(signed) {
        return Some(earlier);
    }
    let own = shared.keys.acknowledgement.secret().public();
    let bytes = &signed.acknowledgement;
    own.verify(Domain::ACKNOWLEDGEMENT, bytes, &signed.signature)
        .ok()?;
    let earlier: Acknowledgement = cbor::decode(bytes).ok()?;
    let is_own = earlier.version == CELL_FORMAT_VERSION && earlier.cell == shared.keyring.cell();
    is_own.then_some(earlier)
}

/// A consent has to say the truth about this cell, and cannot begin in the future: a later beginning
/// would stretch its end beyond 13 months from now.
fn check_consent(shared: &Shared, consent: &ConsentRecord, now: Millis) -> Result<(), Refusal> {
    let keys = shared.keyring.current();
    let recipient = &consent.recipient;
    let is_true = recipient.cell == keys.cell
        && recipient.controller == keys.controller
        && recipient.region == keys.region
        && consent.retention_days == keys.retention_days
        && consent.given_at <= now.plus_ms(REQUEST_SKEW_SECONDS * 1000);
    if is_true {
        Ok(())
    } else {
        Err(ErrorCode::Chain.into())
    }
}

/// Whether an errand may append this kind of statement.
const fn may_append(purpose: Option<Purpose>, signer: Option<DeviceId>, kind: Kind) -> bool {
    match (purpose, signer) {
        (Some(Purpose::Consent), Some(_)) => {
            matches!(
                kind,
                Kind::Epoch | Kind::ConsentGiven | Kind::ConsentWithdrawn
            )
        }
        // The root enrols the new device, and revokes others, and the new one then may start an epoch that includes it; of a write-only one, the
        // root does that too. And it may end the account, or keep it from ending.
        (Some(Purpose::Recover), None) => {
            matches!(
                kind,
                Kind::DeviceAdded
                    | Kind::DeviceRevoked
                    | Kind::Epoch
                    | Kind::ErasureAsked
                    | Kind::ErasureCancelled
            )
        }
        (Some(Purpose::Erase), Some(_)) => {
            matches!(kind, Kind::ErasureAsked | Kind::ErasureCancelled)
        }
        (Some(Purpose::Recover), Some(_)) => matches!(kind, Kind::Epoch),
        (Some(Purpose::Revoke), Some(_)) => matches!(kind, Kind::DeviceRevoked | Kind::Epoch),
        (Some(Purpose::Link), Some(_)) => matches!(kind, Kind::DeviceAdded | Kind::Epoch),
        // With a grant: a vault whose epoch is wrapped to a revoked device gets a new one before it is written.
        (None, Some(_)) => matches!(kind, Kind::Epoch),
        // What a restored cell lost is brought back, whoever stated it; then the acceptance itself.
        (Some(Purpose::ReAnchor), Some(_)) => !matches!(kind, Kind::Genesis),
        _ => false,
    }
}

/// Whether it is a new epoch of this vault: with a grant nothing else is stated.
fn is_epoch_of(record: &Record, vault: Option<VaultId>) -> bool {
    let parsed = record.statement.as_ref().map(Statement::parse);
    match parsed {
        Some(Ok(parsed)) => {
            matches!(parsed.body, Body::Epoch(epoch) if vault.is_some() && epoch.vault == vault)
        }
        _ => false,
    }
}

/// Appends, if the chain still ends where the caller thinks. Runs to its end even if the caller hangs
/// up: what is remembered of the account must not fall behind what was written.
pub(super) async fn append(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let request: AppendChain = cbor::decode(&admitted.message).map_err(|_| ErrorCode::Malformed)?;
    if request.version != API_VERSION {
        return Err(ErrorCode::Version.into());
    }
    if request.records.is_empty() {
        return Err(ErrorCode::Malformed.into());
    }
    let permitted = |record: &Record| {
        may_append(admitted.purpose, admitted.signer, record.kind)
            && (admitted.purpose.is_some() || is_epoch_of(record, admitted.granted_vault()))
    };
    if !request.records.iter().all(permitted) {
        return Err(ErrorCode::NotPermitted.into());
    }
    let call = AppendCall {
        account: admitted.account()?,
        signer: admitted.signer,
        brings_back: admitted.purpose == Some(Purpose::ReAnchor),
        nonce: admitted.nonce,
        now: admitted.now,
    };
    let shared = Arc::clone(shared);
    let appending = tokio::spawn(async move { append_checked(&shared, call, request).await });
    appending
        .await
        .map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::Task))?
}

/// Who appends to what.
struct AppendCall {
    account: AccountId,
    signer: Option<DeviceId>,
    /// On the errand of re-anchoring.
    brings_back: bool,
    nonce: Option<NonceUse>,
    now: Millis,
}

async fn append_checked(
    shared: &Arc<Shared>,
    call: AppendCall,
    request: AppendChain,
) -> Result<Response, Refusal> {
    let AppendCall {
        account,
        signer,
        brings_back,
        nonce,
        now,
    } = call;
    let _held = shared.views.hold(&account).await;
    // The view at the gate may be behind by now.
    let folded = views::folded_while_held(shared, account)
        .await?
        .ok_or(ErrorCode::NotFound)?;
    let revokes = request
        .records
        .iter()
        .any(|record| record.kind == Kind::DeviceRevoked);
    if !revokes && signer.is_some_and(|device| shared.is_held(&account, &device, now)) {
        return Err(ErrorCode::Busy.into());
    }
    // A device that is about to be revoked does not outrun that by moving heads or the chain all the time.
    let hold = |records: &[Record]| {
        let devices = revoked_devices(&folded.view, signer, records);
        shared.hold_devices(account, &devices, now);
    };
    if folded.view.tip() != request.after {
        if revokes {
            hold(&request.records);
        }
        return Err(ErrorCode::Conflict.into());
    }
    let to_hold = if revokes {
        revoked_devices(&folded.view, signer, &request.records)
    } else {
        Vec::new()
    };
    let expected = ChainTip {
        sequence: folded.view.next_sequence() - 1,
        link: folded.view.tip(),
    };
    let (extending, view) = (Arc::clone(shared), (*folded.view).clone());
    let extended = tokio::task::spawn_blocking(move || {
        let signers = [signer];
        let terms = if brings_back {
            Terms::BroughtBack(signer)
        } else {
            Terms::Signed(&signers)
        };
        extend(&extending, account, Some(view), request.records, terms, now)
    });
    let extended = extended
        .await
        .map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::Task))??;
    let append = ChainAppend {
        account,
        expected,
        rows: extended.rows,
        entries: extended.entries,
        erasures: extended.erasures,
        heads: extended.heads,
        now,
    };
    let outcome = shared.records.append(nonce, append).await;
    if let Ok(AppendOutcome::HeadsMoved | AppendOutcome::Conflict(_)) = outcome {
        shared.hold_devices(account, &to_hold, now);
    }
    if !matches!(outcome, Ok(AppendOutcome::Appended(_))) {
        // Whatever is there now, this memory of it may be behind.
        shared.views.forget(&account);
        shared.waiters.account_changed(&account);
    }
    match outcome.map_err(|error| Refusal::of_records(&error))? {
        AppendOutcome::Conflict(_) | AppendOutcome::HeadsMoved => Err(ErrorCode::Conflict.into()),
        AppendOutcome::ErasureBegun => Err(ErrorCode::NotPermitted.into()),
        AppendOutcome::Appended(_) => {
            let bytes = folded.bytes + extended.bytes;
            shared.views.remember(&Folded {
                view: Arc::new(extended.view),
                bytes,
            });
            shared.waiters.account_changed(&account);
            shared
                .transparency
                .queue()
                .added(extended.acknowledgements.len());
            let acknowledgements = extended.acknowledgements;
            Ok(reply::message(&Appended {
                version: API_VERSION,
                acknowledgements,
            }))
        }
    }
}

/// A place in a query, 0 if there is none.
pub(super) fn decimal(text: Option<&str>) -> Result<u64, Refusal> {
    let Some(text) = text else { return Ok(0) };
    let number = canonical(text)?;
    if text.len() <= FROM_MAX_DIGITS {
        Ok(number)
    } else {
        Err(ErrorCode::Malformed.into())
    }
}

/// A number in a query. It has one spelling: no sign, no leading zeros.
pub(super) fn canonical(text: &str) -> Result<u64, Refusal> {
    let number: u64 = text.parse().map_err(|_| ErrorCode::Malformed)?;
    if number.to_string() == text {
        Ok(number)
    } else {
        Err(ErrorCode::Malformed.into())
    }
}

/// A page of the chain.
pub(super) async fn read(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let from = decimal(admitted.query.as_deref())?;
    let account = admitted.account()?;
    let page = shared
        .records
        .read_chain(account, from.checked_sub(1), PAGE_MAX_ENTRIES)
        .await;
    let page = page.map_err(|error| Refusal::of_records(&error))?;
    let records: Vec<Record> = page
        .rows
        .iter()
        .map(views::record_of)
        .collect::<Result<_, _>>()?;
    let last = page.rows.last().map_or(0, |row| row.sequence + 1);
    let length = admitted.view()?.next_sequence().max(last);
    Ok(reply::message(&ChainPage {
        version: API_VERSION,
        records,
        length,
    }))
}
