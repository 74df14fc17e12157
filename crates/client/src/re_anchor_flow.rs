//! Accepting an older state, after the cell was restored from a backup.
//!
//! 1. [`Engine::re_anchor_propose`] reads everything as the cell shows it now, checks every signature,
//!    and compares it with what this device saw: chain, heads, log. Nothing is changed.
//! 2. A person reads what was lost and says yes to exactly that ([`Engine::re_anchor_accept`]). What the
//!    memory held is kept as evidence before anything else is done.
//! 3. What this device has of the lost part of the chain is brought back: the cell's own earlier
//!    acknowledgements say that it was there. If the cell declines what it was to take, the person is
//!    asked again.
//! 4. The acceptance is signed and appended to the chain, and so stands in the log.
//! 5. The chain is taken over, with every withdrawal that did not come back: those go on holding here.
//! 6. Only then the rollback memory is lowered, to what was shown and no further.
//!
//! A genesis, a signature or a key that does not verify is never accepted: that is no backup. Neither is
//! an older generation of the cell's keys, or a log under the old name that is smaller or contradicts what
//! was seen: a restored cell begins a new one (`candor server re-anchor`).
//! Threats: rows 15, 22.

use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use candor_log::checkpoint::SignedCheckpoint;
use candor_vault::report::Cancel;
use candor_vault::sync::State;
use candor_wire::api::ErrorCode;
use candor_wire::chain::AccountView as ChainView;
use candor_wire::chain::{DeviceEntry, Record};
use candor_wire::consent_record::ServiceCode;
use candor_wire::errand::Purpose;
use candor_wire::ids::{StatementId, to_hex};
use candor_wire::re_anchor::{
    ChainPoint, HeadChange, HeadPoint, LogPoint, RE_ANCHOR_VERSION, ReAnchor,
};
use candor_wire::statement::{Body, Kind, Role};
use candor_wire::{DeviceId, VaultId};

use crate::account::{self, AccountError};
use crate::api::{Api, ApiError, CheckedCell};
use crate::chain::{Chain, acknowledge};
use crate::commands::{
    Failure, FailureKind, LostHeadView, LostStatementView, ReAnchorView, ReAnchoredView, View,
};
use crate::device_store::PendingWithdrawal;
use crate::engine::{Engine, lock};
use crate::log::LogError;
use crate::log::evidence::Evidence;
use crate::log::head::{Trust, check_continues, load_policy};
use crate::log::source::CellTiles;
use crate::log::{CONFIRM_POLL, CONFIRM_WAIT};
use crate::memory::{RememberedHead, RememberedLog};

/// The account as a restored cell shows it, checked, beside what this device knew.
struct Restored {
    chain: Chain,
    /// Whether it is not what this device saw, nor follows after it.
    is_other_chain: bool,
    /// Entries that the cell no longer has, as this device has them.
    lost: Vec<Record>,
    /// How many of them, from the first on, this device offers the cell again.
    offered: usize,
    heads: Vec<HeadChange>,
    /// What there is now of those vaults.
    heads_now: Vec<RememberedHead>,
    log_before: Option<RememberedLog>,
    log_now: Option<RememberedLog>,
    known: ChainPoint,
}

/// What the last proposal showed, as far as an acceptance has to know.
#[derive(Default)]
pub(crate) struct Proposal {
    token: String,
    log: Option<SignedCheckpoint>,
    /// The first entry that the cell would not take back.
    declined: Option<StatementId>,
}

fn checkpoint_of(log: Option<&RememberedLog>) -> Option<SignedCheckpoint> {
    log.and_then(RememberedLog::checkpoint)
}

fn point(checkpoint: &SignedCheckpoint) -> LogPoint {
    LogPoint {
        origin: checkpoint.origin().to_owned(),
        size: checkpoint.head().size,
        root: checkpoint.head().root.0,
    }
}

impl Restored {
    fn tip(&self) -> ChainPoint {
        ChainPoint {
            sequence: self.chain.view().next_sequence() - 1,
            link: self.chain.view().tip(),
        }
    }

    /// The log before and now, if the cell began a new one.
    fn new_log(&self) -> Option<(SignedCheckpoint, SignedCheckpoint)> {
        let before = checkpoint_of(self.log_before.as_ref())?;
        let now = checkpoint_of(self.log_now.as_ref())?;
        (before.origin() != now.origin()).then_some((before, now))
    }

    /// Whether the cell shows less than this device saw.
    fn is_older(&self) -> bool {
        let is_log_new = self.new_log().is_some();
        !self.lost.is_empty() || self.is_other_chain || !self.heads.is_empty() || is_log_new
    }

    /// What a person's yes is tied to.
    fn token(&self) -> String {
        let mut hash = blake3::Hasher::new_derive_key("candor 2026 re-anchor proposal v1");
        hash.update(self.tip().link.as_bytes());
        hash.update(&(self.offered as u64).to_le_bytes());
        hash.update(&candor_wire::cbor::encode(&self.heads));
        for record in &self.lost {
            hash.update(record.commitment.as_bytes());
        }
        // The log grows while the person reads; which one it is does not change, and that it goes on from
        // what was shown is checked when it is accepted.
        if let Some(checkpoint) = checkpoint_of(self.log_now.as_ref()) {
            hash.update(checkpoint.origin().as_bytes());
        }
        to_hex(&hash.finalize().as_bytes()[..16])
    }

    fn body(&self) -> ReAnchor {
        let log = |log: &Option<RememberedLog>| {
            checkpoint_of(log.as_ref()).map(|checkpoint| point(&checkpoint))
        };
        ReAnchor {
            version: RE_ANCHOR_VERSION,
            chain_before: self.known,
            chain_now: self.tip(),
            heads: self.heads.clone(),
            log_before: log(&self.log_before),
            log_now: log(&self.log_now),
        }
    }
}

impl Engine {
    /// Tells what a restored cell lost. Asks the cell (errand: re-anchor); changes nothing.
    pub(crate) fn re_anchor_propose(&self) -> Result<View, Failure> {
        let api = self.errand(Purpose::ReAnchor)?;
        let restored = self.restored(&api, &Cancel::default());
        self.runtime.block_on(api.close());
        let restored = restored?;
        let token = restored.token();
        let mut proposal = lock(&self.proposal);
        proposal.token.clone_from(&token);
        proposal.log = checkpoint_of(restored.log_now.as_ref());
        drop(proposal);
        let names = self.set_names();
        let lost = restored.lost.iter().map(|record| LostStatementView {
            kind: kind_name(record.kind).to_owned(),
            time_ms: time_of(record),
        });
        let heads = restored.heads.iter().map(|head| LostHeadView {
            set: names
                .iter()
                .find(|(vault, _)| *vault == head.vault)
                .map(|(_, name)| name.clone()),
            vault: head.vault.to_string(),
            before: head.before.counter,
            now: head.now.map_or(0, |now| now.counter),
        });
        let (log_before, log_now) = restored.new_log().unzip();
        let size = |checkpoint: SignedCheckpoint| checkpoint.head().size;
        Ok(View::ReAnchor(ReAnchorView {
            is_older: restored.is_older(),
            lost: lost.collect(),
            offered: restored.offered as u64,
            heads: heads.collect(),
            log_before: log_before.map(size),
            log_now: log_now.map(size),
            token,
        }))
    }

    /// Accepts exactly what was proposed (errand: re-anchor).
    pub(crate) fn re_anchor_accept(&self, token: &str, cancel: &Cancel) -> Result<View, Failure> {
        if self.facts.role != Role::Full {
            return Err(Failure::new(
                FailureKind::Policy,
                "a write-only device cannot accept an older state",
            )
            .with_hint("do it on a full device of this account"));
        }
        let api = self.errand(Purpose::ReAnchor)?;
        let accepted = self.re_anchor_over(&api, token, cancel);
        self.runtime.block_on(api.close());
        accepted.map(View::ReAnchored)
    }

    fn re_anchor_over(
        &self,
        api: &Api,
        token: &str,
        cancel: &Cancel,
    ) -> Result<ReAnchoredView, Failure> {
        let mut restored = self.restored(api, cancel)?;
        if !restored.is_older() {
            return Err(nothing_to_accept());
        }
        if restored.token() != token || !self.is_proposed(api, token, &restored, cancel)? {
            return Err(look_again(
                "the cell shows something else now than what you read",
            ));
        }
        if cancel.is_cancelled() {
            return Err(crate::failure::interrupted());
        }
        let kept = self.keep_evidence(&restored)?;
        let brought_back = self.bring_back(api, &mut restored)?;
        self.state_acceptance(api, &mut restored)?;
        self.take_over(&restored, brought_back)?;
        self.ledger.alarm(&format!(
            "an older state of the account was accepted by a person at this device; what was seen before is {kept}"
        ))?;
        // The cell is to stop serving what a withdrawal ended. One that does not reach it now holds on this
        // device, and is told with the next change of a consent.
        if !self.store().withdrawals()?.is_empty() {
            let told = self.errand(Purpose::Consent).and_then(|api| {
                let told = self.tell_withdrawals(&api);
                self.runtime.block_on(api.close());
                told
            });
            if let Err(failure) = told {
                self.ledger.alarm(&format!(
                    "the cell could not be told of a withdrawal that it lost: {}",
                    failure.sentence
                ))?;
            }
        }
        // A revocation that does not come back is said again: a restore must not let a device in that was put out.
        for device in revoked_in(&restored.lost[brought_back..]) {
            // One that was added in the lost part, too, is not there.
            let entry = restored.chain.view().device(&device);
            if !entry.is_some_and(DeviceEntry::is_live) {
                continue;
            }
            if let Err(failure) = self.device_revoke(&device.to_string(), cancel) {
                self.ledger.alarm(&format!(
                    "device {device} was revoked before, the cell lost that, and it could not be revoked again: {}",
                    failure.sentence
                ))?;
            }
        }
        Ok(ReAnchoredView {
            brought_back: brought_back as u64,
            given_up: (restored.lost.len() - brought_back) as u64,
            evidence: kept,
        })
    }

    /// Whether the last proposal had this token, and the log of now goes on from the one in it.
    fn is_proposed(
        &self,
        api: &Api,
        token: &str,
        restored: &Restored,
        cancel: &Cancel,
    ) -> Result<bool, Failure> {
        let proposal = lock(&self.proposal);
        if proposal.token != token {
            return Ok(false);
        }
        let read = proposal.log.clone();
        drop(proposal);
        let now = checkpoint_of(restored.log_now.as_ref());
        let (Some(read), Some(now)) = (&read, &now) else {
            return Ok(read.is_none() && now.is_none());
        };
        let tiles = CellTiles::new(api, &self.runtime, cancel);
        check_continues(read, now, &tiles, &self.home)?;
        Ok(true)
    }

    /// Everything as the cell shows it now. Every signature is checked; of the rollback memory only what no
    /// restored cell takes back is asked: the generation of its keys, and the history of a log.
    fn restored(&self, api: &Api, cancel: &Cancel) -> Result<Restored, Failure> {
        let CheckedCell { signed, .. } = self.runtime.block_on(api.describe_cell())?;
        let (root, account) = (self.facts.invitation.root, self.facts.account);
        let mut records = Vec::new();
        loop {
            let from = records.len() as u64;
            let page = self.runtime.block_on(api.read_chain(account, from));
            let (page, is_all) = page.map_err(unknown_here)?;
            records.extend(page);
            if is_all {
                break;
            }
        }
        let chain = Chain::load(&root, account, signed, records).map_err(AccountError::from)?;
        if self
            .facts
            .genesis
            .is_some_and(|genesis| genesis != chain.genesis())
        {
            return Err(AccountError::OtherGenesis.into());
        }
        self.memory
            .check_cell(chain.keyring().current().serial)
            .map_err(|error| Failure::of(&error).with_hint(BEGIN_ANEW))?;
        let own = self
            .with_chain(|chain| chain.records().to_vec())
            .unwrap_or_default();
        let shared = own
            .iter()
            .zip(chain.records())
            .take_while(|(own, theirs)| own.commitment == theirs.commitment)
            .count();
        let (heads, heads_now) = self.older_heads(api, &chain)?;
        let log_before = self.memory.log();
        let log_now = self.log_of(api, &chain, log_before.as_ref(), cancel)?;
        let known = match self.memory.chain() {
            Some(seen) => ChainPoint {
                sequence: seen.length.saturating_sub(1),
                link: seen.tip,
            },
            None => ChainPoint {
                sequence: chain.view().next_sequence() - 1,
                link: chain.view().tip(),
            },
        };
        let lost = own[shared..].to_vec();
        let offered = if chain.records().len() > shared {
            // It went on differently there.
            0
        } else {
            let declined = lock(&self.proposal).declined;
            let is_offered = |record: &&Record| {
                record.acknowledgement.is_some()
                    && record.statement.is_some()
                    && declined != Some(record.commitment)
            };
            lost.iter().take_while(is_offered).count()
        };
        Ok(Restored {
            is_other_chain: self.memory.check_chain(chain.view()).is_err(),
            lost,
            offered,
            chain,
            heads,
            heads_now,
            log_before,
            log_now,
            known,
        })
    }

    /// Vaults whose heads are older than this device saw, or others of the same number: another device may
    /// have gone on already. A head that is shown has to be signed.
    fn older_heads(
        &self,
        api: &Api,
        chain: &Chain,
    ) -> Result<(Vec<HeadChange>, Vec<RememberedHead>), Failure> {
        let (mut older, mut shown_now) = (Vec::new(), Vec::new());
        let known = self.with_chain(|own| own.view().clone());
        let is_erased = |vault: &VaultId| {
            let own = known
                .as_ref()
                .is_some_and(|own| own.erasure_of(Some(vault)).is_some());
            own || chain.view().erasure_of(Some(vault)).is_some()
        };
        let mut heads = self.memory.heads();
        // What a revocation pins was there, also where this device never looked.
        let pinned = known.as_ref().map(pinned_heads).unwrap_or_default();
        for pin in pinned {
            if heads.iter().all(|seen| seen.vault != pin.vault) {
                heads.push(pin);
            }
        }
        heads.sort_by_key(|seen| seen.vault);
        for seen in heads.into_iter().filter(|seen| !is_erased(&seen.vault)) {
            let shown = self
                .runtime
                .block_on(api.read_head(self.facts.account, seen.vault));
            let now = match shown {
                Ok(None) => None,
                Ok(Some(signed)) => {
                    // The device that signed it may have been added in the part that was lost.
                    let key_of = |device: &_| {
                        let here = chain.view().device(device);
                        let entry = here.or_else(|| known.as_ref()?.device(device));
                        entry.map(|entry| entry.added.signing.ed25519())
                    };
                    let head = signed.verify(&self.facts.account, &seen.vault, key_of)?;
                    Some(RememberedHead {
                        vault: seen.vault,
                        counter: head.counter,
                        hash: signed.hash(),
                        epoch: head.epoch,
                    })
                }
                Err(error) => return Err(error.into()),
            };
            let change = HeadChange {
                vault: seen.vault,
                before: HeadPoint {
                    counter: seen.counter,
                    hash: seen.hash,
                },
                now: now.map(|now| HeadPoint {
                    counter: now.counter,
                    hash: now.hash,
                }),
            };
            if change.is_a_loss() {
                older.push(change);
                shown_now.extend(now);
            }
        }
        Ok((older, shown_now))
    }

    /// The log as the cell shows it now, signed by a key that its root signed. `None` before its first
    /// checkpoint, if there was none before either. A log of the same name has to continue `before`.
    fn log_of(
        &self,
        api: &Api,
        chain: &Chain,
        before: Option<&RememberedLog>,
        cancel: &Cancel,
    ) -> Result<Option<RememberedLog>, Failure> {
        let trust = match Trust::new(chain, load_policy(&self.home)?) {
            Ok(trust) => trust,
            Err(LogError::NoLog) if before.is_none() => return Ok(None),
            Err(LogError::NoLog) => return Err(LogError::Withheld.into()),
            Err(error) => return Err(error.into()),
        };
        let began = Instant::now();
        let bytes = loop {
            match self.read_checkpoint(api)? {
                Some(bytes) => break bytes,
                None if before.is_none() => return Ok(None),
                // A cell that has just begun a new log publishes it after a moment.
                None if began.elapsed() < CONFIRM_WAIT && !cancel.is_cancelled() => {
                    thread::sleep(CONFIRM_POLL);
                }
                None => return Err(LogError::Withheld.into()),
            }
        };
        let (checkpoint, _) = trust.verify(&bytes).map_err(|error| match error {
            // A new log has a new name: what the person's policy says of the old one is no lie of the cell.
            LogError::OtherLog => error.into(),
            _ => Failure::new(FailureKind::Integrity, "the cell's log was refused").because(&error),
        })?;
        let seen = checkpoint_of(before).filter(|seen| seen.origin() == checkpoint.origin());
        if let Some(seen) = seen {
            let tiles = CellTiles::new(api, &self.runtime, cancel);
            check_continues(&seen, &checkpoint, &tiles, &self.home)
                .map_err(|error| Failure::from(error).with_hint(BEGIN_ANEW))?;
        }
        Ok(Some(RememberedLog {
            checkpoint: checkpoint.bytes(),
            map_version: 0,
            witnessed_s: None,
            witnesses: Vec::new(),
        }))
    }

    fn keep_evidence(&self, restored: &Restored) -> Result<String, Failure> {
        let tip = restored.tip();
        let mut lines = vec![
            ("account", self.facts.account.to_string()),
            ("entries-before", (restored.known.sequence + 1).to_string()),
            ("link-before", restored.known.link.to_string()),
            ("entries-now", (tip.sequence + 1).to_string()),
            ("link-now", tip.link.to_string()),
        ];
        for head in &restored.heads {
            let now = head.now.map_or(0, |now| now.counter);
            let text = format!("{} {} {now}", head.vault, head.before.counter);
            lines.push(("head-before-and-now", text));
        }
        // What the cell itself says of the log before: less than this device saw, if it lost that, too.
        if let Some(said) = restored.chain.keyring().current().log_before.as_ref() {
            let text = format!("{} {} {}", said.origin, said.size, to_hex(&said.root));
            lines.push(("cell-says-log-ended-with", text));
        }
        let before = checkpoint_of(restored.log_before.as_ref());
        let now = checkpoint_of(restored.log_now.as_ref());
        let evidence = Evidence {
            kind: "re-anchor",
            lines,
            checkpoints: before.iter().chain(&now).collect(),
        };
        evidence.keep_always(&self.home).map_err(|why| {
            Failure::new(
                FailureKind::Failed,
                format!("what this device saw cannot be kept as evidence, so nothing was accepted: {why}"),
            )
        })
    }

    /// Gives the cell back what it had acknowledged and the person was told comes back. Says how many.
    fn bring_back(&self, api: &Api, restored: &mut Restored) -> Result<usize, Failure> {
        let Restored {
            chain,
            lost,
            offered,
            ..
        } = restored;
        for record in &lost[..*offered] {
            let after = chain.view().tip();
            let appended = api.append_chain(self.facts.account, after, vec![record.clone()]);
            let acknowledgements = match self.runtime.block_on(appended) {
                Ok(acknowledgements) => acknowledgements,
                // It cannot check its own earlier signature, for example: the keys of that time are lost,
                // too. Or it began to erase what the person had said was to be kept. That is not what they
                // said yes to.
                Err(ApiError::Refused {
                    code:
                        ErrorCode::Chain
                        | ErrorCode::Malformed
                        | ErrorCode::Version
                        | ErrorCode::NotPermitted,
                    ..
                }) => {
                    lock(&self.proposal).declined = Some(record.commitment);
                    return Err(look_again("the cell does not take back all that it lost"));
                }
                Err(error) => return Err(error.into()),
            };
            let mut records = vec![record.clone()];
            acknowledge(&mut records, acknowledgements);
            chain.extend(records).map_err(AccountError::from)?;
        }
        Ok(*offered)
    }

    /// Signs the acceptance and puts it on the chain.
    fn state_acceptance(&self, api: &Api, restored: &mut Restored) -> Result<(), Failure> {
        let body = Body::ReAnchored(Box::new(restored.body()));
        let records = account::sign_next(
            &restored.chain,
            &self.keys(),
            body,
            &self.facts.signing,
            self.surroundings(),
        )?;
        let after = restored.chain.view().tip();
        let appended = api.append_chain(self.facts.account, after, records.clone());
        let acknowledgements = self.runtime.block_on(appended)?;
        let mut records = records;
        acknowledge(&mut records, acknowledgements);
        restored.chain.extend(records).map_err(AccountError::from)?;
        Ok(())
    }

    /// Takes the chain over, and lowers the rollback memory last: a cut before that only means that the
    /// person is asked again. The local indexes of vaults that went back are built again from the cell.
    fn take_over(&self, restored: &Restored, brought_back: usize) -> Result<(), Failure> {
        let chain = &restored.chain;
        let mut keys = self.keys();
        if account::let_go_of_lost_epochs(chain, &mut keys) {
            keys.save()?;
        }
        drop(keys);
        let withdrawals = self.withdrawals_not_brought_back(restored, brought_back);
        let mut store = self.store();
        store.replace_chain(chain.records(), &withdrawals)?;
        store.put_cell_keys(chain.cell_keys())?;
        store.forget_watched()?;
        drop(store);
        self.set_chain(chain.clone());
        let mut gone = Vec::new();
        for head in &restored.heads {
            let path = self.home.index(&head.vault)?;
            candor_vault::Index::delete(&path).map_err(|error| {
                Failure::new(FailureKind::Failed, "the local index cannot be deleted")
                    .because(&error)
            })?;
            let folder = self.home.sync_state(&head.vault)?;
            if folder.exists() {
                // A round that is at work ends first.
                let _hold = self.hold_vault(head.vault, &Cancel::default())?;
                State::open(&folder)
                    .and_then(|mut state| state.put_back())
                    .map_err(|error| Failure::of(&error))?;
            }
            // The person read what is missing.
            self.store().set_listed(&head.vault, &[])?;
            gone.push(head.vault);
        }
        // Of a log that goes on, the next look remembers the rest.
        let log = restored.new_log().and(restored.log_now.clone());
        self.memory
            .re_anchor(chain.view(), &gone, restored.heads_now.clone(), log)?;
        Ok(())
    }

    /// A withdrawal that is not brought back holds on this device, and is told to the cell again: a restore
    /// must not bring a consent back to life.
    fn withdrawals_not_brought_back(
        &self,
        restored: &Restored,
        brought_back: usize,
    ) -> Vec<PendingWithdrawal> {
        let before = restored.chain.view().next_sequence();
        let mut withdrawals = Vec::new();
        for record in &restored.lost[brought_back..] {
            let Some(statement) = &record.statement else {
                if record.kind == Kind::ConsentWithdrawn {
                    // What it withdrew is unknown: everything.
                    withdrawals.extend(ServiceCode::ALL.map(|service| PendingWithdrawal {
                        service,
                        vault: None,
                        time: self.now(),
                        before,
                    }));
                }
                continue;
            };
            let Ok(parsed) = statement.parse() else {
                continue;
            };
            if let Body::ConsentWithdrawn(withdrawal) = parsed.body {
                withdrawals.push(PendingWithdrawal {
                    service: withdrawal.service,
                    vault: withdrawal.vault,
                    time: parsed.entry.time,
                    before,
                });
            }
        }
        withdrawals
    }

    fn set_names(&self) -> Vec<(candor_wire::VaultId, String)> {
        let sets = self.store().sets().unwrap_or_default();
        sets.into_iter()
            .filter_map(|set| Some((set.vault?, set.name)))
            .collect()
    }
}

/// The newest pin of each vault.
fn pinned_heads(view: &ChainView) -> Vec<RememberedHead> {
    let mut newest: BTreeMap<VaultId, RememberedHead> = BTreeMap::new();
    let revocations = view.devices().filter_map(|entry| entry.revoked.as_ref());
    for pin in revocations.flat_map(|revoked| &revoked.statement.heads) {
        let seen = RememberedHead {
            vault: pin.vault,
            counter: pin.counter,
            hash: pin.hash,
            epoch: 0,
        };
        let before = newest.entry(pin.vault).or_insert(seen);
        if before.counter < seen.counter {
            *before = seen;
        }
    }
    newest.into_values().collect()
}

/// Devices whose revocations are among these records.
fn revoked_in(records: &[Record]) -> Vec<DeviceId> {
    let parsed = records
        .iter()
        .filter_map(|record| record.statement.as_ref()?.parse().ok());
    let devices = parsed.filter_map(|parsed| match parsed.body {
        Body::DeviceRevoked(revoked) => Some(revoked.device),
        _ => None,
    });
    devices.collect()
}

/// What whoever runs the cell has to do before an older state can be accepted.
const BEGIN_ANEW: &str = "if the cell was restored from a backup, whoever runs it has to tell it so first: `candor server re-anchor`";

fn look_again(message: &str) -> Failure {
    Failure::new(FailureKind::Failed, message)
        .with_hint("look at it again: candor account re-anchor")
}

/// A restored cell that is older than this device, or the account, cannot be asked anything.
fn unknown_here(error: ApiError) -> Failure {
    if !error.is_not_found() {
        return error.into();
    }
    Failure::new(
        FailureKind::Integrity,
        "the cell does not know this device, or not the account: its state is older than they are",
    )
    .with_hint("if the cell was restored from a backup, `candor account recover` lets this device join the account anew with the recovery phrase: its folders stay, and what was withdrawn stays withdrawn; if the cell does not know the account either, begin a new one: the files on this device are whole")
}

fn nothing_to_accept() -> Failure {
    Failure::new(
        FailureKind::Usage,
        "there is nothing to accept: the cell shows all that this device saw",
    )
}

fn time_of(record: &Record) -> Option<i64> {
    let statement = record.statement.as_ref()?;
    Some(statement.parse().ok()?.entry.time.0)
}

/// A kind of statement, for people.
const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Genesis => "the account's beginning",
        Kind::DeviceAdded => "a device was added",
        Kind::Epoch => "a new key",
        Kind::ConsentGiven => "a consent",
        Kind::ConsentWithdrawn => "a withdrawal of consent",
        Kind::ReAnchored => "an older state was accepted",
        Kind::ErasureAsked => "an erasure was asked for",
        Kind::ErasureCancelled => "an erasure was taken back",
        Kind::DeviceRevoked => "a device was revoked",
    }
}
