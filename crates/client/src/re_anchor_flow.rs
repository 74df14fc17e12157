//! Accepting an older state, after the cell was restored from a backup.
//!
//! 1. [`Engine::re_anchor_propose`] reads everything as the cell shows it now, checks every signature,
//!    and compares it with what this device saw: chain, heads, log. Nothing is changed.
//! 2. A person reads what was lost and says yes to exactly that ([`Engine::re_anchor_accept`]).
//! 3. What this device has of the lost part of the chain is brought back: the cell's own earlier
//!    acknowledgements say that it was there.
//! 4. The acceptance is signed and appended to the chain, and so stands in the log.
//! 5. Only then the rollback memory is lowered. What it held is kept as evidence.
//!
//! A genesis, a signature or a key that does not verify is never accepted: that is no backup.
//! Threats: rows 15, 22.

use candor_log::checkpoint::{CHECKPOINT_MAX_BYTES, SignedCheckpoint};
use candor_vault::report::Cancel;
use candor_wire::api::ErrorCode;
use candor_wire::chain::Record;
use candor_wire::errand::Purpose;
use candor_wire::ids::to_hex;
use candor_wire::re_anchor::{
    ChainPoint, HeadChange, HeadPoint, LogPoint, RE_ANCHOR_VERSION, ReAnchor,
};
use candor_wire::statement::{Body, Kind, Role};

use crate::account::{self, AccountError};
use crate::api::{Api, ApiError, CheckedCell};
use crate::chain::{Chain, acknowledge};
use crate::commands::{
    Failure, FailureKind, LostHeadView, LostStatementView, ReAnchorView, ReAnchoredView, View,
};
use crate::device_store::PendingWithdrawal;
use crate::engine::Engine;
use crate::log::evidence::Evidence;
use crate::log::head::{Trust, load_policy};
use crate::memory::{RememberedHead, RememberedLog};

/// The account as a restored cell shows it, checked, beside what this device knew.
struct Restored {
    chain: Chain,
    /// Entries that the cell no longer has, as this device has them.
    lost: Vec<Record>,
    /// Whether the cell's chain goes on differently where the lost ones stood.
    is_diverged: bool,
    heads: Vec<HeadChange>,
    log_before: Option<RememberedLog>,
    log_now: Option<RememberedLog>,
    known: ChainPoint,
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

    /// Whether the cell shows less than this device saw.
    fn is_older(&self) -> bool {
        let (before, now) = (
            checkpoint_of(self.log_before.as_ref()),
            checkpoint_of(self.log_now.as_ref()),
        );
        let log_is_older = before.is_some_and(|before| {
            now.is_none_or(|now| {
                now.origin() != before.origin() || now.head().size < before.head().size
            })
        });
        let is_shorter = self.tip().sequence < self.known.sequence;
        !self.lost.is_empty() || is_shorter || !self.heads.is_empty() || log_is_older
    }

    /// What a person's yes is tied to.
    fn token(&self) -> String {
        let mut hash = blake3::Hasher::new_derive_key("candor 2026 re-anchor proposal v1");
        hash.update(self.tip().link.as_bytes());
        hash.update(&candor_wire::cbor::encode(&self.heads));
        for record in &self.lost {
            hash.update(record.commitment.as_bytes());
        }
        // The log grows while the person reads; which one it is does not change.
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
        let restored = self.restored(&api);
        self.runtime.block_on(api.close());
        let restored = restored?;
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
        let size = |log: &Option<RememberedLog>| {
            checkpoint_of(log.as_ref()).map(|checkpoint| checkpoint.head().size)
        };
        Ok(View::ReAnchor(ReAnchorView {
            is_older: restored.is_older(),
            lost: lost.collect(),
            comes_back: !restored.is_diverged,
            heads: heads.collect(),
            log_before: size(&restored.log_before),
            log_now: size(&restored.log_now),
            token: restored.token(),
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
        let mut restored = self.restored(api)?;
        if !restored.is_older() {
            return Err(nothing_to_accept());
        }
        if restored.token() != token {
            return Err(Failure::new(
                FailureKind::Failed,
                "the cell shows something else now than what you read",
            )
            .with_hint("look at it again: candor account re-anchor"));
        }
        if cancel.is_cancelled() {
            return Err(crate::failure::interrupted());
        }
        let kept = self.keep_evidence(&restored);
        let brought_back = self.bring_back(api, &mut restored)?;
        self.state_acceptance(api, &mut restored)?;
        self.take_over(&restored)?;
        self.settle_withdrawals(&restored, brought_back)?;
        self.ledger.alarm(&format!(
            "an older state of the account was accepted by a person at this device; what was seen before is {kept}"
        ))?;
        Ok(ReAnchoredView {
            brought_back: brought_back as u64,
            given_up: (restored.lost.len() - brought_back) as u64,
            evidence: kept,
        })
    }

    /// Everything as the cell shows it now. Every signature is checked; the rollback memory is not asked.
    fn restored(&self, api: &Api) -> Result<Restored, Failure> {
        let CheckedCell { signed, .. } = self.runtime.block_on(api.describe_cell())?;
        let (root, account) = (self.facts.invitation.root, self.facts.account);
        let mut records = Vec::new();
        loop {
            let from = records.len() as u64;
            let (page, is_all) = self.runtime.block_on(api.read_chain(account, from))?;
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
        let own = self
            .with_chain(|chain| chain.records().to_vec())
            .unwrap_or_default();
        let shared = own
            .iter()
            .zip(chain.records())
            .take_while(|(own, theirs)| own.commitment == theirs.commitment)
            .count();
        let heads = self.older_heads(api, &chain)?;
        let log_now = self.log_of(api, &chain)?;
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
        let is_diverged = chain.records().len() > shared && own.len() > shared;
        Ok(Restored {
            lost: own[shared..].to_vec(),
            is_diverged,
            chain,
            heads,
            log_before: self.memory.log(),
            log_now,
            known,
        })
    }

    /// Vaults whose heads are older than this device saw, or others of the same number: another device may
    /// have gone on already. A head that is shown has to be signed.
    fn older_heads(&self, api: &Api, chain: &Chain) -> Result<Vec<HeadChange>, Failure> {
        let mut older = Vec::new();
        let known = self.with_chain(|own| own.view().clone());
        for seen in self.memory.heads() {
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
                    Some(HeadPoint {
                        counter: head.counter,
                        hash: signed.hash(),
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
                now,
            };
            older.extend(change.is_a_loss().then_some(change));
        }
        Ok(older)
    }

    /// The log as the cell shows it now, signed by a key that its root signed. `None` before its first
    /// checkpoint.
    fn log_of(&self, api: &Api, chain: &Chain) -> Result<Option<RememberedLog>, Failure> {
        let Ok(trust) = Trust::new(chain, load_policy(&self.home)?) else {
            return Ok(None);
        };
        let bytes = match self
            .runtime
            .block_on(api.read_log_file("checkpoint", CHECKPOINT_MAX_BYTES))
        {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (checkpoint, _) = trust.verify(&bytes).map_err(|error| {
            Failure::new(FailureKind::Integrity, "the cell's log was refused").because(&error)
        })?;
        Ok(Some(RememberedLog {
            checkpoint: checkpoint.bytes(),
            map_version: 0,
            witnessed_s: None,
            witnesses: Vec::new(),
        }))
    }

    fn keep_evidence(&self, restored: &Restored) -> String {
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
        let before = checkpoint_of(restored.log_before.as_ref());
        let now = checkpoint_of(restored.log_now.as_ref());
        let evidence = Evidence {
            kind: "re-anchor",
            lines,
            checkpoints: before.iter().chain(&now).collect(),
        };
        evidence.keep(&self.home)
    }

    /// Gives the cell back what it had acknowledged, as far as it takes it. Says how many.
    fn bring_back(&self, api: &Api, restored: &mut Restored) -> Result<usize, Failure> {
        if restored.is_diverged {
            return Ok(0);
        }
        let mut count = 0;
        for record in restored.lost.clone() {
            if record.acknowledgement.is_none() || record.statement.is_none() {
                break;
            }
            let after = restored.chain.view().tip();
            let appended = api.append_chain(self.facts.account, after, vec![record.clone()]);
            let acknowledgements = match self.runtime.block_on(appended) {
                Ok(acknowledgements) => acknowledgements,
                // It cannot check its own earlier signature: the keys of that time are lost, too.
                Err(ApiError::Refused {
                    code: ErrorCode::Chain,
                    ..
                }) => break,
                Err(error) => return Err(error.into()),
            };
            let mut records = vec![record];
            acknowledge(&mut records, acknowledgements);
            restored.chain.extend(records).map_err(AccountError::from)?;
            count += 1;
        }
        Ok(count)
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

    /// Lowers the rollback memory, and takes the chain over. The local indexes of vaults that went back
    /// are built again from the cell.
    fn take_over(&self, restored: &Restored) -> Result<(), Failure> {
        let heads: Vec<RememberedHead> = self
            .memory
            .heads()
            .into_iter()
            .filter(|seen| restored.heads.iter().all(|head| head.vault != seen.vault))
            .collect();
        let chain = &restored.chain;
        self.memory.re_anchor(
            chain.keyring().current().serial,
            chain.view(),
            heads,
            restored.log_now.clone(),
        )?;
        for head in &restored.heads {
            let path = self.home.index(&head.vault)?;
            candor_vault::Index::delete(&path).map_err(|error| {
                Failure::new(FailureKind::Failed, "the local index cannot be deleted")
                    .because(&error)
            })?;
        }
        let mut store = self.store();
        store.replace_chain(chain.records())?;
        store.put_cell_keys(chain.cell_keys())?;
        store.forget_watched()?;
        drop(store);
        self.set_chain(chain.clone());
        Ok(())
    }

    /// A withdrawal that could not be brought back holds on this device, and is told to the cell again:
    /// a restore must not bring a consent back to life.
    fn settle_withdrawals(&self, restored: &Restored, brought_back: usize) -> Result<(), Failure> {
        for record in &restored.lost[brought_back..] {
            let parsed = record
                .statement
                .as_ref()
                .and_then(|statement| statement.parse().ok());
            let Some(parsed) = parsed else { continue };
            if let Body::ConsentWithdrawn(withdrawal) = parsed.body {
                self.store().add_withdrawal(&PendingWithdrawal {
                    service: withdrawal.service,
                    vault: withdrawal.vault,
                    time: parsed.entry.time,
                    before: restored.chain.view().next_sequence(),
                })?;
            }
        }
        Ok(())
    }

    fn set_names(&self) -> Vec<(candor_wire::VaultId, String)> {
        let sets = self.store().sets().unwrap_or_default();
        sets.into_iter()
            .filter_map(|set| Some((set.vault?, set.name)))
            .collect()
    }
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
    }
}
