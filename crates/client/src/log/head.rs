//! The checkpoint: who signed it, who vouches for it, and that it continues what was seen before.

use candor_log::checkpoint::{CheckpointError, SignedCheckpoint};
use candor_log::fork::{Misbehaviour, Prefix};
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::policy::{POLICY_MAX_BYTES, Policy, PolicyError, PolicyRefusal, Standing};
use candor_log::tile::{Prover, Suspect, TileError};
use candor_wire::Millis;
use candor_wire::cbor;
use candor_wire::cell::CellKeys;

use super::FREEZE_AFTER_MS;
use super::evidence::{self, Evidence};
use super::source::{CellTiles, ReadFault};
use crate::chain::Chain;
use crate::commands::{Failure, FailureKind};
use crate::durable;
use crate::home::Home;
use crate::memory::{RememberedLog, WITNESS_NAME_MAX_BYTES, WITNESSES_MAX};

/// Why the cell's log is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The cell's keys name none.
    #[error("the cell has no log")]
    NoLog,
    /// Nothing is published yet.
    #[error("the cell has published nothing of its log yet")]
    NotYet,
    /// There was one.
    #[error("the cell does not show its log any more")]
    Withheld,
    /// It cannot be read, or the cell's log key has not signed it.
    #[error("the checkpoint of the cell's log was refused")]
    Checkpoint(#[source] CheckpointError),
    /// The person's policy lists logs, and not this one.
    #[error("the file log-policy does not list this cell's log")]
    OtherLog,
    /// Tiles are missing or do not belong to the tree.
    #[error("the cell's log does not prove what its checkpoint says")]
    Tiles(#[source] TileError<ReadFault>),
    /// The log has fewer entries than before.
    #[error(
        "ROLLBACK: the cell showed its log with {shown} entries, after this device had seen {seen}; both checkpoints are {kept}"
    )]
    Rollback {
        /// Entries that were seen before.
        seen: u64,
        /// Entries that are shown now.
        shown: u64,
        /// Where the evidence is.
        kept: String,
    },
    /// The cell began a new log, as it does when it was restored from a backup.
    #[error(
        "ROLLBACK: the cell began a new log, {origin}, after this device had seen {seen} entries of the one before; both checkpoints are {kept}"
    )]
    NewLog {
        /// The new one.
        origin: String,
        /// Entries that were seen of the old one.
        seen: u64,
        /// Where the evidence is.
        kept: String,
    },
    /// The log is another one than before.
    #[error(
        "FORK: the cell signed two logs that contradict each other at {size} entries; the proof, which anybody can verify, is {kept}"
    )]
    Fork {
        /// Up to how many entries there are two histories.
        size: u64,
        /// Where the proof is.
        kept: String,
    },
}

/// Whom this device believes about the cell's log.
pub(crate) struct Trust {
    keys: Vec<VerifierKey>,
    policy: Option<Policy>,
}

/// The person's policy, if there is one.
pub(crate) fn load_policy(home: &Home) -> Result<Option<Policy>, Failure> {
    let unusable = |why: String| {
        Failure::new(
            FailureKind::Usage,
            format!("the file log-policy in candor's folder cannot be used: {why}"),
        )
        .with_hint("correct it, or take it away: it is a C2SP tlog-policy file, see docs/formats/device-log.md")
    };
    let read = durable::read_limited(&home.log_policy(), POLICY_MAX_BYTES as u64);
    let Some(bytes) = read.map_err(|error| unusable(error.to_string()))? else {
        return Ok(None);
    };
    let policy = Policy::parse(&bytes);
    let policy = policy.map_err(|error: PolicyError| unusable(error.to_string()))?;
    Ok(Some(policy))
}

impl Trust {
    /// The keys that ever signed the log which the cell's newest keys name, and the policy.
    pub(crate) fn new(chain: &Chain, policy: Option<Policy>) -> Result<Self, LogError> {
        let origin = chain.keyring().current().log_origin();
        let mut keys: Vec<VerifierKey> = Vec::new();
        // They were verified when they were taken into the chain.
        let generations = chain.cell_keys().iter().rev();
        let generations =
            generations.filter_map(|signed| cbor::decode::<CellKeys>(&signed.keys).ok());
        for generation in generations.filter(|keys| keys.log_origin() == origin) {
            let key = generation
                .log
                .and_then(|public| VerifierKey::new(&origin, KeyKind::Log, public).ok());
            keys.extend(key.filter(|key| !keys.contains(key)));
        }
        if keys.is_empty() {
            return Err(LogError::NoLog);
        }
        Ok(Self { keys, policy })
    }

    /// How well a checkpoint is witnessed.
    pub(crate) fn standing(&self, checkpoint: &SignedCheckpoint) -> Standing {
        match &self.policy {
            Some(policy) => policy.standing(checkpoint),
            None => Standing::Unwitnessed { have: Vec::new() },
        }
    }

    /// Reads a checkpoint and checks who signed it. How well it is witnessed never decides here.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Result<(SignedCheckpoint, Standing), LogError> {
        let checkpoint = SignedCheckpoint::parse(bytes).map_err(LogError::Checkpoint)?;
        let mut signed = Err(CheckpointError::NotSigned);
        for key in &self.keys {
            match checkpoint.is_signed_by(key) {
                Err(CheckpointError::NotSigned) => {}
                other => {
                    signed = other;
                    break;
                }
            }
        }
        signed.map_err(LogError::Checkpoint)?;
        let Some(policy) = &self.policy else {
            return Ok((checkpoint, Standing::Unwitnessed { have: Vec::new() }));
        };
        match policy.check(&checkpoint) {
            Ok(standing) => Ok((checkpoint, standing)),
            Err(PolicyRefusal::Unwitnessed { have }) => {
                Ok((checkpoint, Standing::Unwitnessed { have }))
            }
            Err(PolicyRefusal::Log(CheckpointError::OtherLog)) => Err(LogError::OtherLog),
            Err(PolicyRefusal::Log(error)) => Err(LogError::Checkpoint(error)),
        }
    }
}

/// What is remembered once `shown` was found to continue `seen`, and the checkpoint in it. Of two for the
/// same tree the one with the fresher quorum is kept. A witness whose clock is ahead does not vouch for
/// what comes after `now`: else a frozen log would not be noticed until then.
pub(crate) fn remember(
    before: Option<RememberedLog>,
    seen: Option<SignedCheckpoint>,
    shown: (SignedCheckpoint, Standing),
    trust: &Trust,
    now: Millis,
) -> (SignedCheckpoint, RememberedLog) {
    let (mut kept, standing) = shown;
    let time_of = |standing: &Standing| match standing {
        Standing::Witnessed { time_s, .. } => Some(*time_s),
        Standing::Unwitnessed { .. } => None,
    };
    let time = time_of(&standing);
    let now_s = u64::try_from(now.0 / 1_000).unwrap_or(0);
    if let Some(seen) = seen.filter(|seen| seen.head() == kept.head()) {
        let old = trust.standing(&seen);
        if time_of(&old) > time {
            kept = seen;
        }
    }
    let (mut witnessed_s, mut witnesses) = before
        .as_ref()
        .map(|log| (log.witnessed_s, log.witnesses.clone()))
        .unwrap_or_default();
    if let Standing::Witnessed {
        witnesses: names,
        time_s,
    } = standing
        && witnessed_s.is_none_or(|newest| newest < time_s.min(now_s))
    {
        witnessed_s = Some(time_s.min(now_s));
        witnesses = names
            .iter()
            .take(WITNESSES_MAX)
            .map(|name| short_name(name))
            .collect();
    }
    let log = RememberedLog {
        checkpoint: kept.bytes(),
        map_version: before.map_or(0, |log| log.map_version),
        witnessed_s,
        witnesses,
    };
    (kept, log)
}

/// Whether a quorum vouches, and did so lately.
pub(crate) fn is_fresh(standing: &Standing, now: Millis) -> bool {
    match standing {
        Standing::Witnessed { time_s, .. } => {
            let time = i64::try_from(*time_s).map_or(i64::MAX, |time| time.saturating_mul(1_000));
            now.0.saturating_sub(time) <= FREEZE_AFTER_MS
        }
        Standing::Unwitnessed { .. } => false,
    }
}

fn short_name(name: &str) -> String {
    let mut end = name.len().min(WITNESS_NAME_MAX_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// Checks that `shown` continues `seen`. If it does not, both are kept as evidence.
pub(crate) fn check_continues(
    seen: &SignedCheckpoint,
    shown: &SignedCheckpoint,
    tiles: &CellTiles<'_>,
    home: &Home,
) -> Result<(), LogError> {
    let (old, new) = (seen.head(), shown.head());
    if seen.origin() != shown.origin() {
        let evidence = Evidence {
            kind: "new-log",
            lines: Vec::new(),
            checkpoints: vec![seen, shown],
        };
        return Err(LogError::NewLog {
            origin: shown.origin().to_owned(),
            seen: old.size,
            kept: evidence.keep(home),
        });
    }
    if new.size < old.size {
        let evidence = Evidence {
            kind: "rollback",
            lines: Vec::new(),
            checkpoints: vec![seen, shown],
        };
        return Err(LogError::Rollback {
            seen: old.size,
            shown: new.size,
            kept: evidence.keep(home),
        });
    }
    if new.size == old.size {
        return match Misbehaviour::new(seen.clone(), shown.clone()) {
            None => Ok(()),
            Some(proof) => Err(fork(&proof, home)),
        };
    }
    let prover = Prover::new(tiles, new);
    let consistency = prover.consistency(old.size).map_err(LogError::Tiles)?;
    if consistency.verify(&old, &new).is_ok() {
        return Ok(());
    }
    let root = prover.root_of(old.size).map_err(LogError::Tiles)?;
    let prefix = Prefix { root, consistency };
    let proof = Misbehaviour::with_prefix(seen.clone(), shown.clone(), prefix);
    Err(proof.map_or(
        LogError::Tiles(TileError::NotAuthentic(Suspect::Edge(new))),
        |proof| fork(&proof, home),
    ))
}

fn fork(proof: &Misbehaviour, home: &Home) -> LogError {
    LogError::Fork {
        size: proof.older.head().size,
        kept: evidence::keep_fork(home, proof),
    }
}
