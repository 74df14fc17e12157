//! Having things erased at the cell: a vault, or the whole account.
//!
//! 1. *Ask*: a full device states it on the chain (errand: erase). From then on no consent holds for it. Until the
//!    retention window is over every full device can take it back, and each shows what was asked.
//! 2. *Receipt*: when the cell is done, whoever knows the asking statement's salt finds what the cell signed. This
//!    device checks it, finds its entry in the log, and makes one file of it that verifies offline. It works
//!    without the account's chain, which is gone when the account is.

use candor_log::erasure_receipt::{ERASURE_RECEIPT_VERSION, ErasureReceipt, erasure_leaf};
use candor_log::leaf::Leaf;
use candor_log::proof_file::TlogProof;
use candor_log::tile::{Prover, TILE_WIDTH, bundle_at};
use candor_vault::report::Cancel;
use candor_wire::api::ErasureReply;
use candor_wire::chain::{AccountView as ChainView, ErasureEntry};
use candor_wire::consent_record::ServiceCode;
use candor_wire::erasure::{ERASURE_VERSION, ErasureAsked, ErasureCancelled, due, receipt_name};
use candor_wire::errand::Purpose;
use candor_wire::statement::{Body, Role};
use candor_wire::{Millis, StatementId, VaultId};

use crate::api::{Api, CheckedCell};
use crate::chain::Chain;
use crate::clock::date_text;
use crate::commands::{ErasureView, Failure, FailureKind, View};
use crate::engine::{Engine, unknown_chain};
use crate::log::head::load_policy;
use crate::log::source::CellTiles;
use crate::log::{LogError, PROMISE_MS};
use crate::receipt::{self, ErasureReceiptFileView};
use crate::sync_flow::is_synced_vault;

/// Most erasures that go into one append: each is small.
const ERASURES_PER_APPEND_MAX: usize = 64;

/// When an erasure is due, as far as this device knows: `None` while the cell has not acknowledged it.
fn due_at(entry: &ErasureEntry, retention_days: u32) -> Option<Millis> {
    let asked_at = entry.acknowledged?;
    Some(due(asked_at, entry.vault.as_ref(), retention_days))
}

/// Whether a vault is gone from the cell by now, by what was asked and this device's clock.
pub(crate) fn is_gone(view: &ChainView, vault: &VaultId, retention_days: u32, now: Millis) -> bool {
    let standing = view.erasure_of(Some(vault));
    let due = standing.and_then(|(_, entry)| due_at(entry, retention_days));
    due.is_some_and(|due| due <= now)
}

/// What a command about an erased vault ends in.
pub(crate) fn erased(asked: StatementId, entry: &ErasureEntry) -> Failure {
    let day = date_text(entry.time);
    let hint = format!(
        "`candor consent receipt {}` makes the cell's receipt of it",
        short(&asked.to_string())
    );
    Failure::new(
        FailureKind::Policy,
        format!("this vault was erased: a device of the account asked for it on {day}"),
    )
    .with_hint(hint)
}

/// As much of an id as is shown, and enough to name it.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// The service that a vault was made for.
fn service_of(view: &ChainView, vault: Option<&VaultId>) -> ServiceCode {
    match vault {
        Some(vault) if is_synced_vault(view, vault) => ServiceCode::Sync,
        _ => ServiceCode::Backup,
    }
}

/// Whether a vault is one of a service: a synced folder's, or not.
fn is_of(view: &ChainView, service: ServiceCode, vault: &VaultId) -> bool {
    is_synced_vault(view, vault) == (service == ServiceCode::Sync)
}

impl Engine {
    fn only_full(&self) -> Result<(), Failure> {
        if self.facts.role == Role::Full {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::Policy,
            "a write-only device cannot have anything erased",
        )
        .with_hint("do it on a full device of this account"))
    }

    /// States changes about erasures on the chain.
    fn state_erasures(&self, api: &Api, bodies: Vec<Body>) -> Result<(), Failure> {
        let mut bodies = bodies.into_iter().peekable();
        while bodies.peek().is_some() {
            let some: Vec<Body> = bodies.by_ref().take(ERASURES_PER_APPEND_MAX).collect();
            self.append(api, some)?;
        }
        Ok(())
    }

    /// Asks for the vaults of a service to be erased, or of one set. Sends its own errand.
    pub(crate) fn ask_erasures(
        &self,
        service: ServiceCode,
        vault: Option<VaultId>,
    ) -> Result<(), Failure> {
        self.only_full()?;
        let api = self.errand(Purpose::Erase)?;
        self.sync_chain(&api)?;
        let view = self.view()?;
        let consents = view.consents();
        let of_service = consents
            .iter()
            .filter(|(_, consent)| consent.record.service == service)
            .filter_map(|(_, consent)| consent.record.vault)
            .filter(|vault| is_of(&view, service, vault));
        let mut vaults: Vec<VaultId> = match vault {
            Some(vault) => view.epoch(Some(vault)).map(|_| vault).into_iter().collect(),
            None => of_service.collect(),
        };
        vaults.sort_unstable();
        vaults.dedup();
        vaults.retain(|vault| view.erasure_of(Some(vault)).is_none());
        let asks = vaults.into_iter().map(|vault| {
            Body::ErasureAsked(ErasureAsked {
                version: ERASURE_VERSION,
                vault: Some(vault),
            })
        });
        self.state_erasures(&api, asks.collect())
    }

    /// Takes back the erasures that were asked for, of one vault or of all, as long as the cell has not begun.
    pub(crate) fn keep_erasing(
        &self,
        service: ServiceCode,
        vault: Option<VaultId>,
    ) -> Result<(), Failure> {
        self.only_full()?;
        let api = self.errand(Purpose::Erase)?;
        self.sync_chain(&api)?;
        let (now, days) = (self.now(), self.retention_days()?);
        let view = self.view()?;
        let standing = view.erasures().into_iter().filter(|(_, entry)| {
            let is_meant = match vault {
                Some(_) => entry.vault == vault,
                None => entry
                    .vault
                    .is_some_and(|vault| is_of(&view, service, &vault)),
            };
            // What is gone cannot be kept; what is just due, the cell says.
            let is_long_due = due_at(entry, days).is_some_and(|due| due.plus_ms(PROMISE_MS) < now);
            is_meant && entry.cancelled.is_none() && !is_long_due
        });
        let ids: Vec<StatementId> = standing.map(|(id, _)| id).collect();
        self.cancel(&api, ids)
    }

    fn cancel(&self, api: &Api, ids: Vec<StatementId>) -> Result<(), Failure> {
        let cancels = ids.into_iter().map(|asked| {
            Body::ErasureCancelled(ErasureCancelled {
                version: ERASURE_VERSION,
                asked,
            })
        });
        self.state_erasures(api, cancels.collect())
            .map_err(|failure| {
                if failure.kind != FailureKind::Policy {
                    return failure;
                }
                Failure::new(
                    FailureKind::Policy,
                    "it is too late: the cell has begun to erase it",
                )
                .with_hint("`candor consent history` shows what was asked and when")
            })
    }

    /// Asks for the whole account to be erased, or takes that back (errand: erase).
    pub(crate) fn account_delete(&self, cancel: bool) -> Result<View, Failure> {
        self.only_full()?;
        let api = self.errand(Purpose::Erase)?;
        self.sync_chain(&api)?;
        let standing = self.view()?.erasure_of(None).map(|(id, _)| id);
        match (cancel, standing) {
            (true, None) => {
                return Err(Failure::new(
                    FailureKind::Usage,
                    "the deletion of this account was not asked for",
                ));
            }
            (true, Some(asked)) => self.cancel(&api, vec![asked])?,
            (false, Some(_)) => {}
            (false, None) => {
                let ask = ErasureAsked {
                    version: ERASURE_VERSION,
                    vault: None,
                };
                self.state_erasures(&api, vec![Body::ErasureAsked(ask)])?;
                self.stop_runs();
            }
        }
        Ok(View::Erasures(self.erasure_views()?))
    }

    /// Takes one erasure back, whatever it is of: consents stay as they are.
    pub(crate) fn erasure_keep(&self, id: &str) -> Result<View, Failure> {
        self.only_full()?;
        let api = self.errand(Purpose::Erase)?;
        self.sync_chain(&api)?;
        let Some(asked) = self.erasure_named(id) else {
            let sentence =
                format!("no erasure, or more than one, has an id that begins with {id:?}");
            return Err(Failure::new(FailureKind::Usage, sentence)
                .with_hint("`candor status` shows what was asked to be erased"));
        };
        let view = self.view()?;
        let erasures = view.erasures();
        let entry = erasures.iter().find(|(known, _)| *known == asked);
        if entry.is_some_and(|(_, entry)| entry.cancelled.is_none()) {
            self.cancel(&api, vec![asked])?;
        }
        Ok(View::Erasures(self.erasure_views()?))
    }

    /// Every erasure that was ever asked for, as this device knows it. Sends nothing.
    pub(crate) fn erasure_views(&self) -> Result<Vec<ErasureView>, Failure> {
        let (now, days) = (self.now(), self.retention_days()?);
        let mut sets = self.subjects(ServiceCode::Backup)?;
        sets.extend(self.subjects(ServiceCode::Sync)?);
        let view = self.view()?;
        let views = view.erasures().into_iter().map(|(id, entry)| {
            let due = due_at(entry, days);
            let state = match (entry.cancelled, due) {
                (Some(_), _) => "cancelled",
                (None, Some(due)) if due <= now => "due",
                (None, Some(_)) => "asked",
                (None, None) => "waiting",
            };
            let set = sets
                .iter()
                .find(|set| set.vault.is_some() && set.vault == entry.vault);
            ErasureView {
                id: id.to_string(),
                vault: entry.vault.map(|vault| vault.to_string()),
                set: set.map(|set| set.name.clone()),
                service: service_of(&view, entry.vault.as_ref()).name().to_owned(),
                device: entry.device.map(|device| device.to_string()),
                this_device: entry.device == Some(self.facts.device),
                state: state.to_owned(),
                asked_ms: entry.time.0,
                due_ms: due.map(|due| due.0),
            }
        });
        Ok(views.collect())
    }

    /// Sentences about erasures that can still be taken back.
    pub(crate) fn erasure_warnings(&self) -> Result<Vec<String>, Failure> {
        if self.with_chain(|_| ()).is_none() {
            return Ok(Vec::new());
        }
        let views = self.erasure_views()?;
        let open = views
            .iter()
            .filter(|view| matches!(view.state.as_str(), "asked" | "waiting"));
        Ok(open.map(warning).collect())
    }

    /// The erasure that an id means, or the beginning of one.
    pub(crate) fn erasure_named(&self, id: &str) -> Option<StatementId> {
        let view = self.view().ok()?;
        let erasures = view.erasures();
        let mut named = erasures
            .iter()
            .filter(|(known, _)| !id.is_empty() && known.to_string().starts_with(id));
        match (named.next(), named.next()) {
            (Some((id, _)), None) => Some(*id),
            _ => None,
        }
    }

    /// `consent receipt` of an erasure.
    pub(crate) fn erasure_receipt(
        &self,
        asked: StatementId,
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let mut chain = self.with_chain(Chain::clone).ok_or_else(unknown_chain)?;
        let api = self.errand(Purpose::Erase)?;
        let CheckedCell { signed, keyring } = self.runtime.block_on(api.describe_cell())?;
        self.memory
            .remember_cell(keyring.current().serial)
            .map_err(|error| Failure::of(&error))?;
        chain.set_cell_keys(signed, keyring);
        let reply = self.signed_erasure(&api, &chain, asked)?;
        let leaf = erasure_leaf(&reply.erasure, &reply.salt);
        let proof = self.prove_leaf(&api, &chain, &leaf, cancel)?;
        let receipt = ErasureReceipt {
            version: ERASURE_RECEIPT_VERSION,
            root: self.facts.invitation.root,
            keys: chain.cell_keys().to_vec(),
            erasure: reply.erasure,
            salt: reply.salt,
            proof: proof.to_bytes(),
        };
        let text = receipt.to_text();
        // Nothing leaves this device as a receipt that others would refuse.
        Ok(View::ErasureReceipt(Box::new(ErasureReceiptFileView {
            receipt: receipt::verify_erasure_receipt(&text, None)?,
            text,
        })))
    }

    /// What the cell signed, checked against what was asked.
    fn signed_erasure(
        &self,
        api: &Api,
        chain: &Chain,
        asked: StatementId,
    ) -> Result<ErasureReply, Failure> {
        let records = chain.records().iter();
        let mut named = records.filter(|record| record.commitment == asked);
        let statement = named.next().and_then(|record| record.statement.as_ref());
        let salt = statement.ok_or_else(unknown_chain)?.salt;
        let erasures = chain.view().erasures();
        let entry = erasures.iter().find(|(id, _)| *id == asked);
        let (_, entry) = entry.ok_or_else(unknown_chain)?;
        let reply = self
            .runtime
            .block_on(api.read_erasure(&receipt_name(&salt)))?;
        let Some(reply) = reply else {
            let days = chain.keyring().current().retention_days;
            return Err(not_yet(entry, due_at(entry, days), self.now()));
        };
        let said = reply
            .erasure
            .verify(chain.keyring())
            .map_err(|error| Failure::of(&error))?;
        let is_what_was_asked = said.account == self.facts.account
            && said.vault == entry.vault
            && said.asked == asked
            && entry.acknowledged == Some(said.asked_at);
        if is_what_was_asked {
            Ok(reply)
        } else {
            Err(Failure::new(
                FailureKind::Integrity,
                "the cell's receipt is of another erasure than the one that was asked for",
            ))
        }
    }

    /// The proof of a leaf that was logged lately: it is looked for from the end of the log on.
    fn prove_leaf(
        &self,
        api: &Api,
        chain: &Chain,
        leaf: &Leaf,
        cancel: &Cancel,
    ) -> Result<TlogProof, Failure> {
        let file = self.read_checkpoint(api)?;
        let tiles = CellTiles::new(api, &self.runtime, cancel);
        let policy = load_policy(&self.home)?;
        let checkpoint = self.accept(file, chain, policy, &tiles)?;
        let head = checkpoint.head();
        let prover = Prover::new(&tiles, head);
        for index in (0..head.size.div_ceil(TILE_WIDTH)).rev() {
            let Some(bundle) = bundle_at(index, head.size) else {
                continue;
            };
            let leaves = prover.leaves(&bundle).map_err(LogError::Tiles)?;
            let Some(place) = leaves.iter().position(|other| other == leaf) else {
                continue;
            };
            let place = index * TILE_WIDTH + place as u64;
            let inclusion = prover.inclusion(place).map_err(LogError::Tiles)?;
            return Ok(TlogProof {
                extra: None,
                inclusion,
                checkpoint,
            });
        }
        Err(Failure::new(
            FailureKind::Failed,
            "the cell signed the erasure, and its log does not have it yet",
        )
        .with_hint("try again in a minute; if it stays so, the cell does not log what it erases"))
    }
}

fn warning(view: &ErasureView) -> String {
    let by = if view.this_device {
        "this device"
    } else {
        "another device"
    };
    let asked = date_text(Millis(view.asked_ms));
    let due = view.due_ms.map_or_else(
        || "later".to_owned(),
        |due| format!("on {}", date_text(Millis(due))),
    );
    let service = &view.service;
    match (&view.vault, &view.set) {
        (None, _) => format!(
            "the whole account is deleted {due}: {by} asked for it on {asked}; `candor account delete --cancel` keeps it"
        ),
        (Some(_), Some(set)) => format!(
            "everything of {set} is erased {due}: {by} asked for it on {asked}; `candor consent off {service} {set} --keep` keeps it"
        ),
        (Some(vault), None) => format!(
            "what was stored in {service} vault {vault} is erased {due}: {by} asked for it on {asked}; `candor consent keep {}` keeps it",
            short(&view.id)
        ),
    }
}

fn not_yet(entry: &ErasureEntry, due: Option<Millis>, now: Millis) -> Failure {
    if entry.cancelled.is_some() {
        return Failure::new(
            FailureKind::Usage,
            "that erasure was taken back, so nothing was erased",
        );
    }
    match due {
        Some(due) if due <= now => Failure::new(
            FailureKind::Failed,
            format!(
                "the cell has not finished it, though it was due on {}",
                date_text(due)
            ),
        )
        .with_hint("a cell looks every minute; if it stays so, ask who runs it"),
        Some(due) => Failure::new(
            FailureKind::Failed,
            format!(
                "it is not erased yet: it can be taken back until {}",
                date_text(due)
            ),
        )
        .with_hint("run this again after that day"),
        None => Failure::new(FailureKind::Failed, "the cell has not acknowledged it yet"),
    }
}
