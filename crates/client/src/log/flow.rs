//! What comes of a look at the log: alarms with their evidence, and the answers to a person's commands.

use std::thread;
use std::time::Instant;

use candor_log::checkpoint::SignedCheckpoint;
use candor_log::leaf::Leaf;
use candor_log::monitor::Finding;
use candor_log::proof_file::TlogProof;
use candor_log::tile::Prover;
use candor_vault::report::Cancel;
use candor_wire::StatementId;
use candor_wire::errand::Purpose;
use candor_wire::ids::to_hex;

use super::evidence::Evidence;
use super::head::{self, LogError, Trust};
use super::look::{Look, Said};
use super::source::CellTiles;
use super::state::Conflict;
use super::watch;
use super::{CONFIRM_POLL, CONFIRM_WAIT, Trouble};
use crate::api::Api;
use crate::chain::Chain;
use crate::commands::{
    Failure, FailureKind, LogCheckpointView, LogMonitorView, LogProofView, LogView, View,
};
use crate::device_store::LogFinding;
use crate::engine::{Engine, lock, unknown_chain};
use crate::events::Events;

impl Engine {
    /// What is wrong, in words, with its evidence kept. What stands against the cell already keeps its
    /// words and its evidence.
    pub(super) fn troubles_of(&self, look: &Look) -> Result<Vec<Trouble>, Failure> {
        let standing = self.store().log_findings()?;
        let size = look.checkpoint.head().size;
        let kept = |name: String, make: &dyn Fn(&str) -> String, evidence: &Evidence<'_>| {
            let known = standing.iter().find(|one| one.name == name);
            let sentence = match known {
                Some(known) => known.sentence.clone(),
                None => make(&evidence.keep(&self.home)),
            };
            trouble(name, sentence)
        };
        let mut out: Vec<Trouble> = Vec::new();
        for finding in &look.findings {
            let evidence = Evidence {
                kind: match finding {
                    Finding::Missing { .. } => "missing",
                    Finding::Extra { .. } => "extra",
                    Finding::Doubled { .. } => "doubled",
                },
                lines: watch::evidence_lines(finding, &look.chain),
                checkpoints: vec![&look.checkpoint],
            };
            let words = |kept: &str| watch::words(finding, size, kept);
            out.push(kept(watch::name_of(finding), &words, &evidence));
        }
        if let Some((index, version)) = look.versions.broken {
            let evidence = Evidence {
                kind: "map",
                lines: vec![
                    ("map-version", version.to_string()),
                    ("entry", index.to_string()),
                ],
                checkpoints: vec![&look.checkpoint],
            };
            let words = |kept: &str| {
                format!(
                    "FORK: the cell's log has version {version} of its state map, or a later one, a second time, in entry {index}; the place is {kept}"
                )
            };
            out.push(kept(format!("map {index}"), &words, &evidence));
        }
        if let Some(StateTrouble { name, what, lines }) = state_words(look) {
            let evidence = Evidence {
                kind: "state",
                lines,
                checkpoints: vec![&look.checkpoint],
            };
            let words = |kept: &str| format!("{what}; what the cell showed is {kept}");
            let mut one = kept(name, &words, &evidence);
            if let Said::Refused(error) = &look.said {
                one.failure = one.failure.because(error);
            }
            out.push(one);
        }
        Ok(out)
    }

    /// An alarm if the person asked for witnesses and none of a quorum vouched for the log lately.
    pub(super) fn freeze(&self) -> Result<Option<Trouble>, Failure> {
        let view = self.log_view_now()?;
        let stale = view.filter(LogView::is_stale);
        Ok(stale.map(|view| trouble("frozen".to_owned(), view.sentence)))
    }

    /// Whether the log looks frozen and did not before. A cell that slept asks its witnesses as soon as it
    /// wakes up, so this is waited for before it is believed.
    pub(super) fn freezes_anew(&self) -> Result<bool, Failure> {
        let Some(frozen) = self.freeze()? else {
            return Ok(false);
        };
        let standing = self.store().log_findings()?;
        Ok(standing.iter().all(|one| one.name != frozen.name))
    }

    /// Writes down what stands against the cell, and tells which of it is new.
    fn settle(&self, troubles: &[Trouble], is_whole: bool) -> Result<Vec<bool>, Failure> {
        let now = self.now();
        let mut store = self.store();
        if is_whole {
            let names: Vec<String> = troubles.iter().map(|one| one.name.clone()).collect();
            store.keep_log_findings(&names)?;
        }
        let add = |one: &Trouble| {
            store.add_log_finding(&LogFinding {
                name: one.name.clone(),
                sentence: one.failure.sentence.clone(),
                found: now,
            })
        };
        let new: Result<Vec<bool>, _> = troubles.iter().map(add).collect();
        Ok(new?)
    }

    /// A look that ended early because the log itself was refused stands against the cell too.
    fn refused(&self, failure: Failure) -> Failure {
        if failure.kind == FailureKind::Integrity {
            let one = Trouble {
                name: refusal(&failure),
                failure: failure.clone(),
            };
            // What cannot be kept here is in the ledger all the same.
            let _ = self.settle(&[one], false);
        }
        failure
    }

    /// The look at the end of a backup, over its connection. Never makes the backup a failure: what is
    /// wrong is an alarm, and is said.
    pub(crate) fn watch_after_run(&self, api: &Api, events: &Events, cancel: &Cancel) {
        let (troubles, is_whole) = match self.watch_log(api, false, cancel) {
            Ok((_, troubles)) => (troubles, true),
            Err(failure) if failure.kind == FailureKind::Integrity => {
                let name = refusal(&failure);
                (vec![Trouble { name, failure }], false)
            }
            Err(failure) if failure.kind == FailureKind::Interrupted => return,
            Err(failure) => {
                return events.step(format!(
                    "the backup is done; the cell's log could not be checked: {}",
                    failure.sentence
                ));
            }
        };
        let new = self.settle(&troubles, is_whole);
        let new = new.unwrap_or_else(|_| vec![true; troubles.len()]);
        for (one, is_new) in troubles.into_iter().zip(new) {
            events.step(format!("ALARM: {}", one.failure.sentence));
            if is_new {
                self.alarmed(one.failure);
            }
        }
    }

    /// `log monitor`.
    pub(crate) fn log_monitor(&self, cancel: &Cancel) -> Result<View, Failure> {
        let api = self.errand(Purpose::Verify)?;
        let watched = self.watch_log(&api, true, cancel);
        let (look, troubles) = watched.map_err(|failure| self.refused(failure))?;
        self.end_in(troubles)?;
        let log = self.log_view_now()?.ok_or(LogError::NotYet)?;
        Ok(View::LogMonitored(LogMonitorView {
            log,
            statements: look.chain.records().len() as u64,
            found: look.found(),
            new_entries: look.new_entries,
            state_matches: matches!(look.said, Said::Fine),
        }))
    }

    /// The first trouble is the failure of the command, and each other one an alarm of its own.
    fn end_in(&self, troubles: Vec<Trouble>) -> Result<(), Failure> {
        let new = self.settle(&troubles, true)?;
        let mut all = troubles.into_iter().zip(new);
        let Some((first, _)) = all.next() else {
            return Ok(());
        };
        let mut failure = first.failure;
        for (one, is_new) in all {
            failure.causes.push(one.failure.sentence.clone());
            if is_new {
                self.alarmed(one.failure);
            }
        }
        Err(failure)
    }

    /// `log checkpoint`.
    pub(crate) fn log_checkpoint(
        &self,
        compare: Option<&str>,
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let api = self.errand(Purpose::Verify)?;
        let _turn = lock(&self.log_turn);
        let checked = self.check_checkpoint(&api, compare, cancel);
        let (mut checkpoint, seen_before, compared) =
            checked.map_err(|failure| self.refused(failure))?;
        let began = Instant::now();
        while self.freezes_anew()? && began.elapsed() < CONFIRM_WAIT {
            if cancel.is_cancelled() {
                return Err(crate::failure::interrupted());
            }
            thread::sleep(CONFIRM_POLL);
            let checked = self.check_checkpoint(&api, None, cancel);
            (checkpoint, _, _) = checked.map_err(|failure| self.refused(failure))?;
        }
        if let Some(frozen) = self.freeze()?
            && self.settle(std::slice::from_ref(&frozen), false)? == [true]
        {
            self.alarmed(frozen.failure);
        }
        let log = self.log_view_now()?.ok_or(LogError::NotYet)?;
        Ok(View::LogCheckpoint(LogCheckpointView {
            log,
            checkpoint: text_of(checkpoint.bytes()),
            seen_before,
            compared,
        }))
    }

    fn check_checkpoint(
        &self,
        api: &Api,
        compare: Option<&str>,
        cancel: &Cancel,
    ) -> Result<(SignedCheckpoint, Option<u64>, Option<u64>), Failure> {
        let policy = head::load_policy(&self.home)?;
        let before = self.memory.log();
        let seen_before = before
            .and_then(|log| log.checkpoint())
            .map(|seen| seen.head().size);
        let file = self.read_checkpoint(api)?;
        self.sync_chain(api)?;
        let chain = self.with_chain(Chain::clone).ok_or_else(unknown_chain)?;
        let tiles = CellTiles::new(api, &self.runtime, cancel);
        let checkpoint = self.accept(file, &chain, policy, &tiles)?;
        let Some(other) = compare else {
            return Ok((checkpoint, seen_before, None));
        };
        let (other, _) = Trust::new(&chain, None)?
            .verify(other.as_bytes())
            .map_err(|error| not_comparable(&error))?;
        // It was made before the one that was just fetched, so the log has to continue it.
        head::check_continues(&other, &checkpoint, &tiles, &self.home)?;
        Ok((checkpoint, seen_before, Some(other.head().size)))
    }

    /// `log prove`.
    pub(crate) fn log_prove(&self, statement: &str, cancel: &Cancel) -> Result<View, Failure> {
        let api = self.errand(Purpose::Verify)?;
        let watched = self.watch_log(&api, true, cancel);
        let (look, troubles) = watched.map_err(|failure| self.refused(failure))?;
        let records = look.chain.records();
        let mut named = records
            .iter()
            .filter(|record| record.commitment.to_string().starts_with(statement));
        let (Some(record), None) = (named.next(), named.next()) else {
            self.end_in(troubles)?;
            return Err(no_such_statement(statement));
        };
        let Some(index) = look.watch.leaf_of(record.sequence) else {
            self.end_in(troubles)?;
            return Err(LogError::NotYet.into());
        };
        let new = self.settle(&troubles, true)?;
        for (one, _) in troubles.into_iter().zip(new).filter(|(_, is_new)| *is_new) {
            self.alarmed(one.failure);
        }
        let (leaf, proof) = self.proof_of(&api, &look, record.commitment, index, cancel)?;
        Ok(View::LogProof(Box::new(LogProofView {
            statement: record.commitment.to_string(),
            what: watch::kind_name(record.kind).to_owned(),
            index,
            size: look.checkpoint.head().size,
            leaf: to_hex(&leaf.encode()),
            proof: text_of(proof.to_bytes()),
            log: self.log_view_now()?.ok_or(LogError::NotYet)?,
        })))
    }

    /// Makes the proof, and checks it as everybody else will.
    fn proof_of(
        &self,
        api: &Api,
        look: &Look,
        commitment: StatementId,
        index: u64,
        cancel: &Cancel,
    ) -> Result<(Leaf, TlogProof), Failure> {
        let tiles = CellTiles::new(api, &self.runtime, cancel);
        let prover = Prover::new(&tiles, look.checkpoint.head());
        let leaf = watch::leaf_at(&prover, index)?;
        let proof = TlogProof {
            extra: None,
            inclusion: prover.inclusion(index).map_err(LogError::Tiles)?,
            checkpoint: look.checkpoint.clone(),
        };
        let holds = proof
            .inclusion
            .verify(&leaf.hash(), &look.checkpoint.head());
        if holds.is_err() || leaf.commitment != *commitment.as_bytes() {
            return Err(Failure::new(
                FailureKind::Integrity,
                "the cell's log does not prove the statement that it holds",
            ));
        }
        Ok((leaf, proof))
    }
}

/// What is wrong with the account's state.
struct StateTrouble {
    name: String,
    what: String,
    /// What the cell showed.
    lines: Vec<(&'static str, String)>,
}

/// What is wrong with the account's state, if anything is.
fn state_words(look: &Look) -> Option<StateTrouble> {
    let reply = &look.reply;
    let state = reply.state.as_deref().map_or_else(String::new, to_hex);
    let mut lines = vec![
        ("account", look.chain.account().to_string()),
        ("map-version", reply.map_version.to_string()),
        ("map-entry", reply.index.to_string()),
        ("state", state),
        ("proof", to_hex(&reply.proof)),
    ];
    let (name, what) = match &look.said {
        Said::Fine => return None,
        Said::Late(_) if !look.is_due => return None,
        Said::Late(None) => (
            "state absent",
            "WITHHELD: the state map in the cell's log does not have this account, whose statements the cell acknowledged".to_owned(),
        ),
        Said::Late(Some(_)) => (
            "state older",
            "ROLLBACK: the state map in the cell's log shows an older state of this account than the cell acknowledged".to_owned(),
        ),
        Said::Outdated { newest } => {
            lines.push(("newest-map-version", newest.to_string()));
            let version = reply.map_version;
            (
                "state outdated",
                format!(
                    "ROLLBACK: the cell shows this account's state in version {version} of its state map, and its log has version {newest}"
                ),
            )
        }
        Said::Conflict(Conflict::Chain) => (
            "state chain",
            "FORK: the state map in the cell's log has another chain of this account than the cell shows".to_owned(),
        ),
        Said::Conflict(Conflict::Head(seen)) => {
            lines.push(("seen-vault", seen.vault.to_string()));
            lines.push(("seen-counter", seen.counter.to_string()));
            lines.push(("seen-head", to_hex(&seen.hash.0)));
            (
                "state head",
                "FORK: the state map in the cell's log has another head of a vault than the cell showed to this device".to_owned(),
            )
        }
        Said::Refused(error) => {
            let what = error.to_string();
            return Some(StateTrouble {
                name: format!("state refused: {what}"),
                what,
                lines,
            });
        }
    };
    Some(StateTrouble {
        name: name.to_owned(),
        what,
        lines,
    })
}

/// The name of a refusal of the whole log: what happened, without the numbers of this time, so that it
/// rings once while it stands.
fn refusal(failure: &Failure) -> String {
    let what = failure.sentence.split(':').next().unwrap_or_default();
    format!("log: {what}")
}

fn trouble(name: String, sentence: String) -> Trouble {
    Trouble {
        name,
        failure: Failure::new(FailureKind::Integrity, sentence).with_hint(crate::failure::TAMPERED),
    }
}

fn text_of(bytes: Vec<u8>) -> String {
    // Checkpoints and proofs are text by their format.
    String::from_utf8_lossy(&bytes).into_owned()
}

fn not_comparable(error: &LogError) -> Failure {
    Failure::new(
        FailureKind::Usage,
        "the checkpoint to compare with is not one that this cell's log signed",
    )
    .with_hint("it is the output of `candor log checkpoint` on another device of the same cell")
    .because(error)
}

fn no_such_statement(statement: &str) -> Failure {
    Failure::new(
        FailureKind::Usage,
        format!(
            "the account has no statement, or more than one, whose id begins with {statement:?}"
        ),
    )
    .with_hint("`candor consent history --json` shows the ids of consents")
}
