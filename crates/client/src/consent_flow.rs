//! Consent: what a person is shown, what is signed when they say yes, and how it ends.
//!
//! 1. *Propose* fills in the notice. Nothing is sent. The token is a hash of everything that the
//!    person is shown and of what would be signed, so a yes cannot be used for another text.
//! 2. *Give* makes the same proposal again and compares tokens. Then, in one errand, it appends for
//!    each set the vault's first epoch (unless it has one) and the consent. New keys are in the key
//!    store, durably, before the chain names them.
//! 3. *Off* is recorded durably on this device first: from then on no grant is made here, and runs
//!    stop. Then the cell is told. If it cannot be reached, off is off all the same.

use std::fmt::Write as _;
use std::path::Path;

use candor_consent::{Proposal, Refusal, Sync};
use candor_wire::consent_record::{Collected, ServiceCode, Withdrawal};
use candor_wire::epoch::EpochRecord;
use candor_wire::errand::Purpose;
use candor_wire::limits::CONSENT_MAX_MS;
use candor_wire::statement::Body;
use candor_wire::time::DAY_MS;
use candor_wire::{Millis, StatementId, VaultId};

use crate::account;
use crate::api::Api;
use crate::chain::Chain;
use crate::clock::date_text;
use crate::commands::{Answered, ConsentView, Failure, FailureKind, ProposalView, Stored, View};
use crate::device_store::{BackupSet, PendingWithdrawal, SyncedFolder};
use crate::engine::{Engine, unknown_chain};
use crate::epochs::{self, Recipients};
use crate::sync_flow::run_name;
use candor_wire::chain::AccountView as ChainView;
use candor_wire::statement::Role;

/// How long a consent is proposed for, in days: a year, within the 13 months that are allowed.
pub(crate) const CONSENT_DAYS: i64 = 365;

/// A consent that ends sooner than this is proposed again, in days.
pub(crate) const RENEWAL_DAYS: i64 = 30;

/// Most consents that go into one append: each brings an epoch record with it, and a request has
/// 1 MiB.
const CONSENTS_PER_APPEND_MAX: usize = 4;

/// What would be agreed to for some sets.
struct Prepared {
    sets: Vec<BackupSet>,
    ends_at: Millis,
    text: String,
    token: String,
}

/// The service of a name.
pub(crate) fn service_of(name: &str) -> Result<ServiceCode, Failure> {
    ServiceCode::ALL
        .into_iter()
        .find(|service| service.name() == name)
        .ok_or_else(|| {
            Failure::new(
                FailureKind::Usage,
                format!("there is no service named {name:?}"),
            )
            .with_hint("services are backup, sync, messages, relay and recovery")
        })
}

fn offered(service: ServiceCode) -> Result<&'static candor_consent::Notice, Failure> {
    candor_consent::notice(service).ok_or_else(|| {
        Failure::new(
            FailureKind::Usage,
            format!(
                "this version of candor does not offer {} yet",
                service.name()
            ),
        )
    })
}

const fn collected(answered: Answered) -> Collected {
    match answered {
        Answered::Terminal => Collected::Terminal,
        Answered::Flag => Collected::CommandFlag,
        Answered::Page => Collected::Page,
    }
}

/// The same end for everybody who is asked on one day: the midnight (UTC) after [`CONSENT_DAYS`].
fn end_of_consent(now: Millis) -> Millis {
    Millis((now.0.div_euclid(DAY_MS) + CONSENT_DAYS + 1) * DAY_MS)
}

/// A path that cannot add lines or colours to the text that a person agrees to.
fn one_line(path: &Path) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().chars() {
        if is_safe(c) {
            out.push(c)
        } else {
            out.extend(c.escape_unicode())
        }
    }
    out
}

/// Not a control character, and nothing that turns the direction of writing or hides in it.
fn is_safe(c: char) -> bool {
    let is_invisible = matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}'
    );
    !c.is_control() && !is_invisible
}

impl Engine {
    /// The live consent for a set, or a folder: the grant's id and when it ends, or why there is none. Decided
    /// from what this device knows; nothing is sent.
    pub(crate) fn consent_of(
        &self,
        service: ServiceCode,
        set: &BackupSet,
    ) -> Result<Result<(StatementId, Millis), Refusal>, Failure> {
        Ok(match service {
            ServiceCode::Sync => self
                .grant_in::<Sync>(set.vault)?
                .map(|grant| (grant.id(), grant.ends_at())),
            _ => self
                .grant_for(set)?
                .map(|grant| (grant.id(), grant.ends_at())),
        })
    }

    /// What consent of a service is asked for: backup sets, or synced folders.
    pub(crate) fn subjects(&self, service: ServiceCode) -> Result<Vec<BackupSet>, Failure> {
        Ok(match service {
            ServiceCode::Sync => {
                let folders = self.store().folders()?;
                folders.iter().map(SyncedFolder::as_set).collect()
            }
            _ => self.store().sets()?,
        })
    }

    /// One of them, by its name.
    fn subject(&self, service: ServiceCode, name: &str) -> Result<BackupSet, Failure> {
        Ok(match service {
            ServiceCode::Sync => self.store().folder(name)?.as_set(),
            _ => self.store().set(name)?,
        })
    }

    /// When a consent that is given now ends. It lasts longer than every one that is over for this device
    /// and does not look so: the one that lasts longest is the one that counts.
    fn end_beyond(&self, now: Millis) -> Result<Millis, Failure> {
        let over = self.consents_over(now)?;
        let newest = self.with_chain(|chain| {
            let consents = over.iter().filter_map(|id| chain.view().consent(id));
            consents.map(|consent| consent.record.ends_at).max()
        });
        let usual = end_of_consent(now);
        Ok(match newest.flatten() {
            Some(newest) if newest >= usual => {
                let day = newest.0.div_euclid(DAY_MS).saturating_add(1);
                Millis(day.saturating_mul(DAY_MS)).min(now.plus_ms(CONSENT_MAX_MS))
            }
            _ => usual,
        })
    }

    fn prepare(&self, service: ServiceCode, names: &[String]) -> Result<Prepared, Failure> {
        let notice = offered(service)?;
        self.check_not_deleted()?;
        let now = self.now();
        let all = self.subjects(service)?;
        if all.is_empty() {
            let (what, hint) = match service {
                ServiceCode::Sync => ("synced folder", "candor sync add DIR"),
                _ => ("backup set", "candor backup add PATH"),
            };
            let sentence = format!("there is no {what} to consent for");
            return Err(Failure::new(FailureKind::Usage, sentence).with_hint(hint));
        }
        let mut sets = Vec::new();
        for name in names {
            self.subject(service, name)?;
        }
        for set in all {
            if !names.is_empty() && !names.contains(&set.name) {
                continue;
            }
            let lasts = self
                .consent_of(service, &set)?
                .is_ok_and(|(_, ends)| ends > now.plus_ms(RENEWAL_DAYS * DAY_MS));
            if !lasts {
                sets.push(set);
            }
        }
        let ends_at = self.end_beyond(now)?;
        let mut what = String::new();
        for path in sets.iter().flat_map(|set| &set.paths) {
            let separator = if what.is_empty() {
                ""
            } else {
                "\n                "
            };
            let _ = write!(what, "{separator}{}", one_line(path));
        }
        let until = date_text(ends_at);
        let blanks = candor_consent::NoticeBlanks {
            what: &what,
            until: &until,
        };
        let text = self
            .with_chain(|chain| notice.text(chain.keyring().current(), &blanks))
            .ok_or_else(unknown_chain)?;
        let token = self.token(service, &sets, ends_at, &text);
        Ok(Prepared {
            sets,
            ends_at,
            text,
            token,
        })
    }

    /// An account that is about to be deleted takes no consent.
    fn check_not_deleted(&self) -> Result<(), Failure> {
        let asked = self.with_chain(|chain| {
            let standing = chain.view().erasure_of(None);
            standing.map(|(_, entry)| entry.time)
        });
        match asked.flatten() {
            None => Ok(()),
            Some(time) => Err(Failure::new(
                FailureKind::Policy,
                format!(
                    "the account is about to be deleted: a device asked for it on {}",
                    date_text(time)
                ),
            )
            .with_hint("`candor account delete --cancel` keeps it")),
        }
    }

    fn token(
        &self,
        service: ServiceCode,
        sets: &[BackupSet],
        ends_at: Millis,
        text: &str,
    ) -> String {
        let mut hash = blake3::Hasher::new_derive_key("candor 2026 consent proposal v1");
        hash.update(self.facts.account.as_bytes());
        hash.update(self.facts.device.as_bytes());
        hash.update(self.facts.cell.as_bytes());
        hash.update(service.name().as_bytes());
        hash.update(&ends_at.0.to_be_bytes());
        let names = sets.iter().map(|set| set.name.as_str());
        for part in names.chain([text]) {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().to_hex().to_string()
    }

    /// What would be agreed to. Sends nothing.
    pub(crate) fn consent_propose(&self, service: &str, names: &[String]) -> Result<View, Failure> {
        let prepared = self.prepare(service_of(service)?, names)?;
        let Prepared {
            sets,
            ends_at,
            text,
            token,
        } = prepared;
        Ok(View::Proposal(ProposalView {
            text: if sets.is_empty() { String::new() } else { text },
            token,
            sets: sets.into_iter().map(|set| set.name).collect(),
            ends_ms: ends_at.0,
        }))
    }

    /// The person said yes to what was proposed.
    pub(crate) fn consent_give(
        &self,
        service: &str,
        names: &[String],
        token: &str,
        answered: Answered,
    ) -> Result<View, Failure> {
        let service = service_of(service)?;
        let prepared = self.prepare(service, names)?;
        if prepared.token != token {
            return Err(Failure::new(
                FailureKind::Failed,
                "what is asked has changed since it was shown; nothing was agreed to",
            )
            .with_hint(format!(
                "read the new text: `candor consent on {}`",
                service.name()
            )));
        }
        if prepared.sets.is_empty() {
            return self.consent_list();
        }
        let api = self.errand(Purpose::Consent)?;
        self.sync_chain(&api)?;
        self.tell_withdrawals(&api)?;
        self.check_not_deleted()?;
        // Durable before the yes leaves: if its answer is lost, *off* still knows that there was one.
        self.store().set_unanswered(service, true)?;
        for sets in prepared.sets.chunks(CONSENTS_PER_APPEND_MAX) {
            let mut bodies = Vec::new();
            for set in sets {
                bodies.extend(self.consent_statements(
                    service,
                    set,
                    &prepared,
                    collected(answered),
                )?);
            }
            self.append(&api, bodies)?;
        }
        self.store().set_unanswered(service, false)?;
        self.consent_list()
    }

    /// The statements that switch the service on for one set. The vault's key is durable when this
    /// returns.
    fn consent_statements(
        &self,
        service: ServiceCode,
        set: &BackupSet,
        prepared: &Prepared,
        collected: Collected,
    ) -> Result<Vec<Body>, Failure> {
        let now = self.now();
        let view = self.view()?;
        let is_erased = |vault: &VaultId| view.erasure_of(Some(vault)).is_some();
        let vault = match set.vault.filter(|vault| !is_erased(vault)) {
            Some(vault) => vault,
            None => {
                let vault = self.new_vault(&view)?;
                // What is being erased stays apart from what is stored from now on.
                match service {
                    ServiceCode::Sync => self.begin_folder(set, vault)?,
                    _ => self.store().assign_vault(&set.name, vault, set.vault)?,
                }
                vault
            }
        };
        let mut bodies = Vec::new();
        if view.epoch(Some(vault)).is_none() {
            let record = self.first_epoch(vault, &Recipients::of(&view))?;
            bodies.push(Body::Epoch(Box::new(record)));
        }
        let previous = self.consent_of(service, set)?.ok().map(|(id, _)| id);
        let notice = offered(service)?;
        let record = self
            .with_chain(|chain| {
                candor_consent::propose(&Proposal {
                    notice,
                    account: self.facts.account,
                    device: self.facts.device,
                    vault: Some(vault),
                    cell: chain.keyring().current(),
                    now,
                    ends_at: prepared.ends_at,
                    shown: &prepared.text,
                    collected,
                    previous,
                })
            })
            .ok_or_else(unknown_chain)?;
        bodies.push(Body::ConsentGiven(Box::new(record)));
        Ok(bodies)
    }

    /// A vault for a set: a new one, or, on a write-only device, which can make none, one that it was given.
    fn new_vault(&self, view: &ChainView) -> Result<VaultId, Failure> {
        if self.facts.role == Role::Full {
            let mut id = [0; VaultId::BYTES];
            let filled = self.entropy.fill(&mut id);
            filled.map_err(|error| Failure::of(&error))?;
            return Ok(VaultId::from_bytes(id));
        }
        let taken: Vec<VaultId> = self
            .store()
            .sets()?
            .iter()
            .filter_map(|set| set.vault)
            .collect();
        let keys = self.keys();
        let mut given = keys.writer().into_iter().flat_map(|writer| writer.vaults());
        let is_free =
            |vault: &VaultId| !taken.contains(vault) && view.erasure_of(Some(vault)).is_none();
        given.find(is_free).ok_or_else(|| {
            Failure::new(
                FailureKind::Policy,
                "a write-only device has room for eight backup sets, and all are taken",
            )
            .with_hint("put the folders into fewer sets, or use a full device")
        })
    }

    /// The record of a vault's first epoch. Its key is durable when this returns, and stays the same
    /// when an earlier try drew one: that try's record may be on its way to the cell still.
    fn first_epoch(&self, vault: VaultId, recipients: &Recipients) -> Result<EpochRecord, Failure> {
        let account = self.facts.account;
        let mut keys = self.keys();
        let again = keys
            .keys(Some(vault))
            .and_then(|held| epochs::begin_again(account, held, recipients, &*self.entropy));
        if let Some(record) = again {
            return Ok(record?);
        }
        let (record, scope) = epochs::begin(account, Some(vault), recipients, &*self.entropy)?;
        keys.put_keys(scope);
        keys.save()?;
        Ok(record)
    }

    /// Appends statements of this device and keeps what the cell acknowledged.
    pub(crate) fn append(&self, api: &Api, bodies: Vec<Body>) -> Result<(), Failure> {
        self.change_chain(api, |chain: &mut Chain| {
            let keys = self.keys();
            let work =
                account::append(api, chain, &self.memory, &keys, bodies, self.surroundings());
            Ok(self.runtime.block_on(work)?)
        })
    }

    /// Tells the cell of withdrawals that it has not acknowledged.
    pub(crate) fn tell_withdrawals(&self, api: &Api) -> Result<(), Failure> {
        let pending = self.store().withdrawals()?;
        if pending.is_empty() {
            return Ok(());
        }
        let bodies = pending
            .iter()
            .map(|one| Withdrawal {
                version: candor_wire::consent_record::CONSENT_RECORD_VERSION,
                service: one.service,
                vault: one.vault,
            })
            .map(Body::ConsentWithdrawn)
            .collect();
        self.append(api, bodies)?;
        // They stand in the chain now: a yes that arrives later no longer fits behind what it names.
        let mut store = self.store();
        for one in &pending {
            store.set_unanswered(one.service, false)?;
            store.forget_withdrawal(one)?;
        }
        Ok(())
    }

    /// Switches a service off, for one set or for all, and says what becomes of what was stored.
    pub(crate) fn consent_off(
        &self,
        service: &str,
        set: Option<&str>,
        stored: Stored,
    ) -> Result<View, Failure> {
        let service = service_of(service)?;
        let vault = match set {
            None => None,
            Some(name) => match self.subject(service, name)?.vault {
                // Nothing was ever agreed to for this set.
                None => return Ok(View::Erasures(Vec::new())),
                vault => vault,
            },
        };
        self.withdraw(service, vault)?;
        match stored {
            Stored::Stays => return Ok(View::Erasures(Vec::new())),
            Stored::Kept => self.keep_erasing(service, vault),
            Stored::Erased => self.ask_erasures(service, vault),
        }
        .map_err(|failure| not_asked(failure, service, stored))?;
        let mut views = self.erasure_views()?;
        views.retain(|view| vault.is_none_or(|vault| view.vault == Some(vault.to_string())));
        Ok(View::Erasures(views))
    }

    /// Withdraws: here at once, then at the cell.
    fn withdraw(&self, service: ServiceCode, vault: Option<VaultId>) -> Result<(), Failure> {
        let sets = self.subjects(service)?;
        let waits = self.store().withdrawals()?;
        let unanswered = self.store().is_unanswered(service)?;
        let length = self.with_chain(|chain| chain.view().next_sequence());
        let pending = PendingWithdrawal {
            service,
            vault,
            time: self.now(),
            before: match length {
                Some(length) if !unanswered => length,
                _ => PendingWithdrawal::ANYWHERE,
            },
        };
        let is_live = self
            .with_chain(|chain| {
                chain.view().consents().iter().any(|(_, consent)| {
                    pending.ends(consent)
                        && consent.withdrawn.is_none()
                        && !waits.iter().any(|earlier| earlier.ends(consent))
                })
            })
            .unwrap_or(true);
        if is_live || unanswered {
            self.store().add_withdrawal(&pending)?;
        }
        for one in &sets {
            if vault.is_none() || one.vault == vault {
                self.stop_run(&run_name(service, &one.name));
            }
        }
        if self.store().withdrawals()?.is_empty() {
            return Ok(());
        }
        self.errand(Purpose::Consent)
            .and_then(|api| {
                self.sync_chain(&api)?;
                self.tell_withdrawals(&api)
            })
            .map_err(|failure| told_later(failure, service))
    }

    /// Consents of this device, as it knows them. Sends nothing.
    pub(crate) fn consent_list(&self) -> Result<View, Failure> {
        let device = self.facts.device;
        let mut list = self.consents()?;
        list.retain(|consent| consent.device == device.to_string());
        Ok(View::Consents(list))
    }

    /// All consents of the account, as the cell has them (errand: list).
    pub(crate) fn consent_history(&self) -> Result<View, Failure> {
        let api = self.errand(Purpose::List)?;
        self.sync_chain(&api)?;
        self.consents().map(View::Consents)
    }

    pub(crate) fn consents(&self) -> Result<Vec<ConsentView>, Failure> {
        let now = self.now();
        let mut sets = self.subjects(ServiceCode::Backup)?;
        sets.extend(self.subjects(ServiceCode::Sync)?);
        let pending = self.store().withdrawals()?;
        let over = self.consents_over(now)?;
        let view = self.view()?;
        let list = view.consents().into_iter().map(|(id, consent)| {
            let record = &consent.record;
            let off_here = pending
                .iter()
                .find(|one| one.ends(consent))
                .map(|one| one.time);
            let withdrawn = consent.withdrawn.or(off_here);
            let state = match (withdrawn, consent.acknowledged) {
                (Some(_), _) => "withdrawn",
                _ if record.ends_at <= now || over.contains(&id) => "ended",
                (None, None) => "waiting",
                (None, Some(_)) => "live",
            };
            let set = sets
                .iter()
                .find(|set| set.vault.is_some() && set.vault == record.vault);
            ConsentView {
                id: id.to_string(),
                service: record.service.name().to_owned(),
                set: set.map(|set| set.name.clone()),
                vault: record.vault.map(|vault| vault.to_string()),
                device: record.device.to_string(),
                state: state.to_owned(),
                given_ms: record.given_at.0,
                ends_ms: record.ends_at.0,
                withdrawn_ms: withdrawn.map(|time| time.0),
                controller: record.recipient.controller.clone(),
                region: record.recipient.region.clone(),
                how_to_withdraw: record.how_to_withdraw.clone(),
            }
        });
        Ok(list.collect())
    }
}

/// The service is off, and what becomes of what was stored could not be said.
fn not_asked(failure: Failure, service: ServiceCode, stored: Stored) -> Failure {
    if failure.kind == FailureKind::Integrity {
        return failure;
    }
    let name = service.name();
    let flag = if stored == Stored::Erased {
        "--erase"
    } else {
        "--keep"
    };
    let hint = failure
        .hint
        .filter(|_| failure.kind == FailureKind::Policy)
        .unwrap_or_else(|| {
            format!("run `candor consent off {name} {flag}` again when the cell can be reached")
        });
    Failure {
        sentence: format!(
            "{name} is off, but nothing was changed about what is stored: {}",
            failure.sentence
        ),
        hint: Some(hint),
        ..failure
    }
}

/// The withdrawal holds here, and the cell does not know of it.
fn told_later(failure: Failure, service: ServiceCode) -> Failure {
    if failure.kind == FailureKind::Integrity {
        return failure;
    }
    let name = service.name();
    Failure {
        sentence: format!(
            "{name} is off on this device, but the cell could not be told: {}",
            failure.sentence
        ),
        hint: Some(format!(
            "run `candor consent off {name}` again when the cell can be reached"
        )),
        ..failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_adds_no_line_to_the_notice() {
        let shown = one_line(Path::new("/x\nWho can read    Everybody\u{1b}[1m\u{202e}"));
        assert_eq!(
            shown,
            "/x\\u{a}Who can read    Everybody\\u{1b}[1m\\u{202e}"
        );
        assert_eq!(
            one_line(Path::new("/home/zoë/Fotos 2024")),
            "/home/zoë/Fotos 2024"
        );
    }

    #[test]
    fn everybody_asked_on_one_day_is_asked_for_the_same_end() {
        let (morning, evening) = (Millis(5 * DAY_MS), Millis(6 * DAY_MS - 1));
        assert_eq!(end_of_consent(morning), end_of_consent(evening));
        let lasts = end_of_consent(morning).0 - morning.0;
        assert!(lasts <= candor_wire::limits::CONSENT_MAX_MS && lasts > CONSENT_DAYS * DAY_MS);
    }
}
