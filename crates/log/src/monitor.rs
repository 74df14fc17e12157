//! What an owner's device concludes from the leaves of a log: whether everything that the cell
//! acknowledged is there, and nothing else in the account's name.
//!
//! The device reads *all* leaves. Asking for some would tell the cell which ones are the account's.
//!
//! 1. Each statement of the chain has a label: an HMAC of its number n among those of its kind, under a
//!    watch key that only the account's devices have. The device knows the labels of the statements on
//!    its chain, and derives those of the next [`WATCH_AHEAD`] numbers of each kind.
//! 2. A leaf with one of these labels is kept: its place, class and commitment. All others are other
//!    people's, or padding, and are forgotten.
//! 3. The first leaf with a statement's label and commitment takes its number. Every other leaf with
//!    that label is evidence: [`Finding::Doubled`] if it repeats the statement, else [`Finding::Extra`].
//! 4. A statement that was acknowledged longer ago than the cell promises, and has no leaf, is
//!    [`Finding::Missing`].
//!
//! **The order in which a device does this**, each time: it fetches a checkpoint and checks it; *then* it
//! fetches and checks its chain; then [`Watch::new`], [`Watch::feed`] with every leaf up to the
//! checkpoint's size, [`Watch::findings`]; and [`Watch::into_state`] is stored, for the next time. A
//! statement is on the chain before it is in the log. So a chain that was fetched after a checkpoint has
//! every statement of that tree, and an honest cell gives no finding, however many devices state things
//! meanwhile. No leaf beyond that tree is taken: for a later checkpoint the chain is fetched again.
//!
//! Whoever calls this has checked that the leaves are those of the checkpoint
//! ([`crate::tile::Prover::leaves`]) and that the checkpoint is consistent with the one before: what was
//! scanned once stays as it was, and is never scanned again.
//!
//! On the way the device sees every version of the state map, and so which one is the newest
//! ([`WatchState::newest_map`]): a cell cannot pass an older one off as it.
//!
//! What it cannot see: leaves with a label that no key of the account makes. A stolen device can label
//! what it states as it likes; such statements are found on the chain, not here.
//!
//! Threats: rows A16 and B29. The state's format is in `docs/formats/monitor.md`.

mod state;

use std::collections::{BTreeMap, HashMap};

use candor_wire::chain::CHAIN_MAX_ENTRIES;
use candor_wire::ids::{Label, StatementId};
use candor_wire::limits::DEVICES_MAX;
use candor_wire::time::Millis;

use crate::leaf::{Class, Leaf};

use state::Sighting;
pub use state::{EVIDENCE_MAX, MapLeaf, WATCH_STATE_VERSION, WatchState, WatchStateError};

/// How many labels beyond the newest statement are watched, for each kind. An honest cell never uses them
/// (see the order above). They show a chain that is kept from this device: each other device of the
/// account can state four things of one kind behind its back, and all of them are noticed.
pub const WATCH_AHEAD: u64 = 4 * DEVICES_MAX as u64;

/// Most kinds of statements. There are five today; the bound is for the labels that are derived ahead.
pub const KINDS_MAX: usize = 32;

/// A statement of the device's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stated {
    /// The number of its kind ([`candor_wire::statement::Kind::code`]).
    pub kind: u8,
    /// The label in the statement; for one that was erased, the label of its number.
    pub label: Label,
    /// Its commitment, which stays when it is erased.
    pub commitment: StatementId,
    /// When the cell acknowledged it, by the cell's clock or by the clock of the device that was told,
    /// whichever is earlier: a cell must not gain time by its clock. `None` while it has not.
    pub acknowledged: Option<Millis>,
}

/// What a device knows of its account, as far as the log is concerned.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Every statement of the chain, in its order: the first of a kind has number 0.
    pub stated: &'a [Stated],
    /// The kinds of statements that there are, also those that were never stated.
    pub kinds: &'a [u8],
    /// The label of number n of a kind.
    pub label: &'a dyn Fn(u8, u64) -> Label,
}

/// Something that an honest cell does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finding {
    /// A statement was acknowledged, the promised time is over, and it is not in the log.
    Missing {
        /// Its kind.
        kind: u8,
        /// Its number among those of its kind, from 0.
        n: u64,
    },
    /// A leaf has a label of the account and is not the statement of that number: another commitment,
    /// another class, or a number that the chain does not have.
    Extra {
        /// Place of the leaf.
        index: u64,
        /// The label's kind.
        kind: u8,
        /// The label's number.
        n: u64,
    },
    /// A leaf repeats the leaf of a statement.
    Doubled {
        /// Place of the leaf.
        index: u64,
        /// Place of the statement's own leaf, which comes before.
        first: u64,
        /// The statement's kind.
        kind: u8,
        /// Its number among those of its kind, from 0.
        n: u64,
    },
}

/// A watch was used in a way that could make it report what is not so. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Leaves come one after the other, each once.
    #[error("leaf {index} was given where leaf {expected} is next")]
    Order {
        /// The place that was given.
        index: u64,
        /// The place that is next.
        expected: u64,
    },
    /// The leaf is beyond the tree after whose checkpoint the chain was fetched.
    #[error("leaf {index} was given of a log that is known up to {size} leaves")]
    Beyond {
        /// The place that was given.
        index: u64,
        /// The size of that tree.
        size: u64,
    },
    /// The tree has fewer leaves than were scanned already.
    #[error("a log of {size} leaves was given after {position} leaves had been scanned")]
    Shrunk {
        /// The size of the tree.
        size: u64,
        /// How many were scanned.
        position: u64,
    },
    /// Not all leaves of the tree were scanned yet.
    #[error("{position} of {size} leaves were scanned")]
    Unfinished {
        /// How many were scanned.
        position: u64,
        /// The size of the tree.
        size: u64,
    },
    /// More than an account can have.
    #[error("an account cannot have so many {what}")]
    Limit {
        /// Of what.
        what: &'static str,
    },
}

/// Number n of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    kind: u8,
    n: u64,
}

/// A device's watch over one log, up to one checkpoint. Each leaf costs one look into a hash table.
pub struct Watch {
    state: WatchState,
    /// The size of the checkpoint's tree.
    size: u64,
    /// In the order of the chain.
    statements: Vec<(Place, Stated)>,
    /// What each label is for. One that two statements have is the first one's.
    places: HashMap<[u8; 32], Place>,
}

impl Watch {
    /// Goes on where `state` stopped, towards a tree of `size` leaves. What is `known` comes from a chain
    /// that was fetched *after* the checkpoint of that tree.
    pub fn new(state: WatchState, known: &Known<'_>, size: u64) -> Result<Self, WatchError> {
        if size < state.position() {
            return Err(WatchError::Shrunk {
                size,
                position: state.position(),
            });
        }
        if known.stated.len() as u64 > CHAIN_MAX_ENTRIES {
            return Err(WatchError::Limit { what: "statements" });
        }
        let mut counts: BTreeMap<u8, u64> = known.kinds.iter().map(|kind| (*kind, 0)).collect();
        let mut statements = Vec::with_capacity(known.stated.len());
        let mut places = HashMap::new();
        for stated in known.stated {
            let n = counts.entry(stated.kind).or_default();
            let place = Place {
                kind: stated.kind,
                n: *n,
            };
            *n += 1;
            statements.push((place, *stated));
            places.entry(*stated.label.as_bytes()).or_insert(place);
        }
        if counts.len() > KINDS_MAX {
            return Err(WatchError::Limit { what: "kinds" });
        }
        for (kind, count) in counts {
            for n in count..count + WATCH_AHEAD {
                let label = (known.label)(kind, n);
                let place = Place { kind, n };
                places.entry(*label.as_bytes()).or_insert(place);
            }
        }
        Ok(Self {
            state,
            size,
            statements,
            places,
        })
    }

    /// How many leaves were scanned; also the place of the leaf that is next.
    pub const fn position(&self) -> u64 {
        self.state.position()
    }

    /// Takes the next leaf.
    pub fn feed(&mut self, index: u64, leaf: &Leaf) -> Result<(), WatchError> {
        let expected = self.state.position();
        if index != expected {
            return Err(WatchError::Order { index, expected });
        }
        if index >= self.size {
            let size = self.size;
            return Err(WatchError::Beyond { index, size });
        }
        let sighting = self.places.get(&leaf.label).map(|place| Sighting {
            index,
            kind: place.kind,
            n: place.n,
            class: leaf.class.code(),
            label: leaf.label,
            commitment: leaf.commitment,
        });
        self.state.scanned(leaf, sighting);
        Ok(())
    }

    /// What is wrong with the tree of the given size: first what is missing, in the order of the chain,
    /// then leaves in the order of the log. `at` is when the checkpoint was fetched, by the clock of
    /// [`Stated::acknowledged`]; `promise_ms` is how long after an acknowledgement the cell may publish
    /// a checkpoint with the statement. Nothing found means that every statement which is due is in the
    /// tree, once, and nothing else under the account's labels.
    ///
    /// Findings of earlier leaves are given again each time; whoever accepted one knows it by its place.
    pub fn findings(&self, at: Millis, promise_ms: i64) -> Result<Vec<Finding>, WatchError> {
        let position = self.state.position();
        if position != self.size {
            let size = self.size;
            return Err(WatchError::Unfinished { position, size });
        }
        let mut own = HashMap::with_capacity(self.statements.len());
        for (place, stated) in &self.statements {
            own.entry((stated.label.as_bytes(), stated.commitment.as_bytes()))
                .or_insert((*place, None));
        }
        let mut evidence = Vec::new();
        for sighting in self.state.sightings() {
            // All kinds that exist are sealed: one that appears in an open class would be counted
            // by strangers as something that it is not.
            let statement = (sighting.class == Class::Sealed.code())
                .then(|| own.get_mut(&(&sighting.label, &sighting.commitment)))
                .flatten();
            match statement {
                Some((_, first @ None)) => *first = Some(sighting.index),
                Some((place, Some(first))) => evidence.push(Finding::Doubled {
                    index: sighting.index,
                    first: *first,
                    kind: place.kind,
                    n: place.n,
                }),
                None => evidence.push(Finding::Extra {
                    index: sighting.index,
                    kind: sighting.kind,
                    n: sighting.n,
                }),
            }
        }
        let is_due = |stated: &Stated| {
            let acknowledged = stated.acknowledged;
            acknowledged.is_some_and(|time| time.plus_ms(promise_ms) <= at)
        };
        let missing = self.statements.iter().filter(|(_, stated)| {
            let leaf = own.get(&(stated.label.as_bytes(), stated.commitment.as_bytes()));
            is_due(stated) && leaf.is_none_or(|(_, first)| first.is_none())
        });
        let missing = missing.map(|(place, _)| Finding::Missing {
            kind: place.kind,
            n: place.n,
        });
        Ok(missing.chain(evidence).collect())
    }

    /// Where the leaf of the statement at this place of the chain is, once it was seen.
    pub fn leaf_of(&self, sequence: u64) -> Option<u64> {
        let position = usize::try_from(sequence).ok()?;
        let (_, stated) = self.statements.get(position)?;
        let sightings = self.state.sightings().iter();
        let mut own = sightings.filter(|sighting| sighting.is_of(stated));
        own.next().map(|sighting| sighting.index)
    }

    /// What has to be stored to go on later. The chain and the labels are not in it.
    pub fn into_state(self) -> WatchState {
        self.state
    }

    /// The same, to go on at once.
    pub const fn state(&self) -> &WatchState {
        &self.state
    }
}
