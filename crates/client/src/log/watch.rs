//! Watching for the account's own statements: the chain as the log's monitor wants it, the scan of new
//! entries, and what each finding means in words.

use candor_log::leaf::Leaf;
use candor_log::monitor::{Finding, Known, Stated, Watch, WatchState};
use candor_log::tile::{Prover, TILE_WIDTH, TileError, bundle_at};
use candor_wire::Millis;
use candor_wire::ids::{Label, to_hex};
use candor_wire::statement::Kind;

use super::source::CellTiles;
use super::{LogError, PROMISE_MS};
use crate::account;
use crate::chain::Chain;
use crate::commands::{Failure, FailureKind};
use crate::keystore::KeyStore;

/// A long scan is kept whenever so many entries are full: 256 bundles, some seconds over a network.
const SAVE_EVERY_ENTRIES: u64 = TILE_WIDTH * TILE_WIDTH;

/// A kind in words.
pub(crate) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Genesis => "the account's beginning",
        Kind::DeviceAdded => "a device was added",
        Kind::Epoch => "a key epoch began",
        Kind::ConsentGiven => "a consent was given",
        Kind::ConsentWithdrawn => "a consent was withdrawn",
        Kind::ReAnchored => "an older state was accepted",
        Kind::ErasureAsked => "an erasure was asked for",
        Kind::ErasureCancelled => "an erasure was taken back",
        Kind::DeviceRevoked => "a device was revoked",
    }
}

fn named(code: u8) -> &'static str {
    let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code);
    kind.map_or("a statement of an unknown kind", kind_name)
}

/// What is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// Every statement up to this place, and itself, has to be in the log.
    pub(crate) through: Option<u64>,
    /// Now, by this device's clock: what was acknowledged longer ago than [`PROMISE_MS`] is due too.
    pub(crate) at: Millis,
}

/// The chain's statements, as the monitor wants them. A statement that is due has a time, others none:
/// no clock decides it beyond what [`Due`] says.
pub(crate) fn stated(chain: &Chain, keys: &KeyStore, due: Due) -> Result<Vec<Stated>, Failure> {
    let mut counts = [0_u64; Kind::ALL.len()];
    // A log that was begun anew has what its cell still had: of erased statements nothing.
    let is_anew = chain.keyring().current().log_number.is_some();
    let mut out = Vec::with_capacity(chain.records().len());
    for record in chain.records() {
        let place = Kind::ALL.iter().position(|kind| *kind == record.kind);
        let place = place.ok_or_else(no_key)?;
        let n = counts[place];
        counts[place] += 1;
        let own = record
            .statement
            .as_ref()
            .and_then(|statement| statement.parse().ok())
            .map(|parsed| parsed.entry.label);
        let label = match own {
            Some(label) => label,
            None => account::label(keys, record.kind, n).ok_or_else(no_key)?,
        };
        let is_owed = due.through.is_some_and(|last| record.sequence <= last);
        let acknowledged = || {
            let signed = record.acknowledgement.as_ref()?;
            let acknowledgement = chain.keyring().check(signed).ok()?;
            Some(acknowledgement.time)
        };
        let is_left_out = is_anew && record.statement.is_none();
        let is_old = || acknowledged().is_some_and(|time| time.plus_ms(PROMISE_MS) <= due.at);
        let is_due = !is_left_out && (is_owed || is_old());
        out.push(Stated {
            kind: record.kind.code(),
            label,
            commitment: record.commitment,
            acknowledged: is_due.then_some(due.at),
        });
    }
    Ok(out)
}

pub(crate) fn no_key() -> Failure {
    Failure::new(
        FailureKind::Failed,
        "this device does not hold the key with which the account's statements are found in the log",
    )
    .with_hint("use a full device of the account")
}

/// The watch from where `state` stopped, up to a tree of `size` entries.
pub(crate) fn begin(
    state: WatchState,
    stated: &[Stated],
    keys: &KeyStore,
    size: u64,
) -> Result<Watch, Failure> {
    account::label(keys, Kind::Genesis, 0).ok_or_else(no_key)?;
    let label = |code: u8, n: u64| {
        let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code);
        kind.and_then(|kind| account::label(keys, kind, n))
            .unwrap_or(Label::from_bytes([0; Label::BYTES]))
    };
    let known = Known {
        stated,
        kinds: &Kind::ALL.map(Kind::code),
        label: &label,
    };
    Watch::new(state, &known, size).map_err(|error| Failure::of(&error))
}

/// The versions of the state map among the entries that were looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapVersions {
    /// The newest; 0 if there is none.
    pub(crate) newest: u64,
    /// The first entry that does not go on from the ones before, and its version.
    pub(crate) broken: Option<(u64, u64)>,
}

impl MapVersions {
    /// Before the first entry.
    pub(crate) const fn none() -> Self {
        Self {
            newest: 0,
            broken: None,
        }
    }

    fn look(&mut self, index: u64, leaf: &Leaf) {
        let Some(version) = leaf.state_map_version() else {
            return;
        };
        if version <= self.newest {
            self.broken = self.broken.or(Some((index, version)));
        }
        self.newest = self.newest.max(version);
    }
}

/// Reads every entry up to that one that was not looked at yet; it ends with a full bundle, or with the
/// tree. `save` keeps what was done so far of a long scan.
pub(crate) fn scan(
    prover: &Prover<'_, CellTiles<'_>>,
    watch: &mut Watch,
    versions: &mut MapVersions,
    until: u64,
    save: &dyn Fn(&Watch, &MapVersions) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let size = prover.head().size;
    while watch.position() < until {
        let from = watch.position();
        let Some(bundle) = bundle_at(from / TILE_WIDTH, size) else {
            break;
        };
        let leaves = prover.leaves(&bundle).map_err(LogError::Tiles)?;
        let first = bundle.index * TILE_WIDTH;
        for (index, leaf) in (first..).zip(&leaves).filter(|(index, _)| *index >= from) {
            watch
                .feed(index, leaf)
                .map_err(|error| Failure::of(&error))?;
            versions.look(index, leaf);
        }
        if watch.position().is_multiple_of(SAVE_EVERY_ENTRIES) {
            save(watch, versions)?;
        }
    }
    Ok(())
}

/// The entry at a place of the tree.
pub(crate) fn leaf_at(prover: &Prover<'_, CellTiles<'_>>, index: u64) -> Result<Leaf, Failure> {
    let size = prover.head().size;
    let outside = || LogError::Tiles(TileError::OutOfTree { size });
    let bundle = bundle_at(index / TILE_WIDTH, size).ok_or_else(outside)?;
    let leaves = prover.leaves(&bundle).map_err(LogError::Tiles)?;
    let within = usize::try_from(index % TILE_WIDTH).map_err(|_| outside())?;
    Ok(leaves.get(within).copied().ok_or_else(outside)?)
}

/// A finding's name, the same each time that it is found.
pub(crate) fn name_of(finding: &Finding) -> String {
    match *finding {
        Finding::Missing { kind, n } => format!("missing {kind} {n}"),
        Finding::Extra { index, .. } => format!("extra {index}"),
        Finding::Doubled { index, .. } => format!("doubled {index}"),
    }
}

/// A finding in words. `kept` says where the evidence is.
pub(crate) fn words(finding: &Finding, size: u64, kept: &str) -> String {
    match *finding {
        Finding::Missing { kind, n } => format!(
            "MISSING: the cell acknowledged a statement of this account ({}, number {}) and its log of {size} entries does not have it; the acknowledgement is {kept}",
            named(kind),
            n + 1
        ),
        Finding::Extra { index, kind, n } => format!(
            "EXTRA: entry {index} of the cell's log stands under this account's label ({}, number {}) and is no statement of its chain; it is {kept}",
            named(kind),
            n + 1
        ),
        Finding::Doubled {
            index,
            first,
            kind,
            n,
        } => format!(
            "DOUBLED: entry {index} of the cell's log repeats entry {first} of this account ({}, number {}); it is {kept}",
            named(kind),
            n + 1
        ),
    }
}

/// The values that show a finding, for its evidence.
pub(crate) fn evidence_lines(finding: &Finding, chain: &Chain) -> Vec<(&'static str, String)> {
    let (index, kind, n) = match *finding {
        Finding::Missing { kind, n } => (None, kind, n),
        Finding::Extra { index, kind, n } | Finding::Doubled { index, kind, n, .. } => {
            (Some(index), kind, n)
        }
    };
    let mut lines = vec![
        ("account", chain.account().to_string()),
        ("statement-kind", kind.to_string()),
        ("statement-number", n.to_string()),
    ];
    lines.extend(index.map(|index| ("entry", index.to_string())));
    let mut of_kind = chain
        .records()
        .iter()
        .filter(|record| record.kind.code() == kind);
    let record = usize::try_from(n).ok().and_then(|n| of_kind.nth(n));
    if let Some(record) = record {
        lines.push(("commitment", to_hex(record.commitment.as_bytes())));
        if let Some(acknowledgement) = &record.acknowledgement {
            let bytes = candor_wire::cbor::encode(acknowledgement);
            lines.push(("acknowledgement", to_hex(&bytes)));
        }
    }
    lines
}
