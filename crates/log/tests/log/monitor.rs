//! What a device concludes about an honest cell (nothing), and about one that is not.

use std::fmt::Write as _;

use candor_log::leaf::{Class, Leaf};
use candor_log::monitor::*;
use candor_log::state_map::MapRoot;
use candor_wire::StatementId;
use candor_wire::cbor::CodecError;
use candor_wire::ids::{Label, to_hex};
use candor_wire::limits::DEVICES_MAX;
use candor_wire::time::Millis;
use proptest::collection::vec;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::stored::{bytes_of, reason, stored_or_made};

const KINDS: [u8; 5] = [1, 2, 3, 4, 5];
const CONSENT: u8 = 4;

/// How long the cell of these tests may take, in milliseconds.
const PROMISE_MS: i64 = 10_000;

fn bytes(tag: &str, n: u64) -> [u8; 32] {
    Sha256::digest([tag.as_bytes(), &n.to_be_bytes()].concat()).into()
}

fn label(kind: u8, n: u64) -> Label {
    Label::from_bytes(bytes("label", u64::from(kind) << 32 | n))
}

fn padding(n: u64) -> Leaf {
    let mut random = [0; 64];
    random[..32].copy_from_slice(&bytes("padding label", n));
    random[32..].copy_from_slice(&bytes("padding commitment", n));
    Leaf::padding(&random)
}

fn leaf_of(stated: &Stated) -> Leaf {
    Leaf::statement(&stated.label, &stated.commitment)
}

/// A cell with one account that matters and a log.
#[derive(Default)]
struct Cell {
    now: i64,
    chain: Vec<Stated>,
    counts: [u64; 6],
    /// Acknowledged and not yet in the log.
    pending: Vec<(i64, Leaf)>,
    log: Vec<Leaf>,
}

impl Cell {
    fn state(&mut self, kind: u8) -> Stated {
        let n = &mut self.counts[usize::from(kind)];
        let stated = Stated {
            kind,
            label: label(kind, *n),
            commitment: StatementId::from_bytes(bytes("commitment", self.chain.len() as u64)),
            acknowledged: Some(Millis(self.now)),
        };
        *n += 1;
        self.chain.push(stated);
        self.pending.push((self.now, leaf_of(&stated)));
        stated
    }

    /// Puts what is pending into the log, between other people's statements and padding.
    fn integrate(&mut self, others: u64) {
        let first = self.log.len() as u64;
        self.log.extend((0..others).map(|n| padding(first + n)));
        let new = self.pending.drain(..).map(|(_, leaf)| leaf);
        for (n, leaf) in (1..).zip(new) {
            // Not in the order of the chain.
            let at = self.log.len() - n % (usize::try_from(others).unwrap() + 1).min(n + 1);
            self.log.insert(at, leaf);
        }
    }

    fn wait(&mut self, ms: i64) {
        self.now += ms;
        if self
            .pending
            .iter()
            .any(|(since, _)| since + PROMISE_MS <= self.now)
        {
            self.integrate(3);
        }
    }
}

/// A device between two looks: it has nothing but the bytes that it stored.
struct Device(Vec<u8>);

impl Device {
    fn new() -> Self {
        Self(WatchState::new().to_bytes())
    }

    /// Looks at a log of which a checkpoint was fetched, and then the chain.
    fn look(&mut self, log: &[Leaf], chain: &[Stated], now: i64) -> Vec<Finding> {
        let known = Known {
            stated: chain,
            kinds: &KINDS,
            label: &label,
        };
        let state = WatchState::from_bytes(&self.0).unwrap();
        let mut watch = Watch::new(state, &known, log.len() as u64).unwrap();
        for index in watch.position()..log.len() as u64 {
            watch
                .feed(index, &log[usize::try_from(index).unwrap()])
                .unwrap();
        }
        let findings = watch.findings(Millis(now), PROMISE_MS).unwrap();
        self.0 = watch.into_state().to_bytes();
        findings
    }
}

#[derive(Debug, Clone)]
enum Step {
    State(u8),
    Integrate(u64),
    Wait(i64),
    /// A device fetches the checkpoint; then so many things are stated, and some of them logged; only
    /// then it fetches the chain.
    Look {
        meanwhile: Vec<u8>,
        logged: bool,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(&KINDS[..]);
    prop_oneof![
        4 => kind.clone().prop_map(Step::State),
        2 => (0..6u64).prop_map(Step::Integrate),
        2 => (0..2 * PROMISE_MS).prop_map(Step::Wait),
        2 => (vec(kind, 0..5), any::<bool>())
            .prop_map(|(meanwhile, logged)| Step::Look { meanwhile, logged }),
    ]
}

/// What a cell may do to a log that is otherwise honest.
#[derive(Debug, Clone)]
enum Fault {
    Drop,
    OtherCommitment,
    OtherClass,
    Double,
    Unstated(u64),
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Drop),
        Just(Fault::OtherCommitment),
        Just(Fault::OtherClass),
        Just(Fault::Double),
        (0..WATCH_AHEAD).prop_map(Fault::Unstated),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_honest_cell_gives_no_finding(steps in vec(any_step(), 1..50)) {
        let mut cell = Cell::default();
        let mut device = Device::new();
        for step in steps {
            match step {
                Step::State(kind) => { cell.state(kind); }
                Step::Integrate(others) => cell.integrate(others),
                Step::Wait(ms) => cell.wait(ms),
                Step::Look { meanwhile, logged } => {
                    let (checkpoint, now) = (cell.log.clone(), cell.now);
                    for kind in meanwhile {
                        cell.state(kind);
                    }
                    if logged {
                        cell.integrate(2);
                    }
                    prop_assert_eq!(device.look(&checkpoint, &cell.chain, now), Vec::new());
                }
            }
        }
        // And everything is where the log has it.
        cell.integrate(1);
        prop_assert_eq!(device.look(&cell.log, &cell.chain, cell.now + PROMISE_MS), Vec::new());
        let known = Known { stated: &cell.chain, kinds: &KINDS, label: &label };
        let state = WatchState::from_bytes(&device.0).unwrap();
        let watch = Watch::new(state, &known, cell.log.len() as u64).unwrap();
        for (sequence, stated) in (0..).zip(&cell.chain) {
            let place = watch.leaf_of(sequence).unwrap();
            prop_assert_eq!(cell.log[usize::try_from(place).unwrap()], leaf_of(stated));
        }
        prop_assert_eq!(watch.leaf_of(cell.chain.len() as u64), None);
    }

    /// One fault in an honest history is found at the next look after the promised time, and named.
    #[test]
    fn b29_any_single_fault_is_found(
        kinds in vec(prop::sample::select(&KINDS[..]), 1..30),
        chosen in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        fault in any_fault(),
    ) {
        let mut cell = Cell::default();
        for kind in &kinds {
            cell.state(*kind);
            cell.integrate(2);
        }
        let sequence = chosen.index(kinds.len());
        let stated = cell.chain[sequence];
        let (kind, n) = (stated.kind, kinds[..sequence].iter().filter(|kind| **kind == stated.kind).count() as u64);
        let first = cell.log.iter().position(|leaf| *leaf == leaf_of(&stated)).unwrap();
        let (log, index) = (&mut cell.log, first as u64);
        let missing = Finding::Missing { kind, n };
        let expected = match fault {
            Fault::Drop => {
                log.remove(first);
                vec![missing]
            }
            Fault::OtherCommitment => {
                log[first].commitment[31] ^= 1;
                vec![missing, Finding::Extra { index, kind, n }]
            }
            Fault::OtherClass => {
                log[first].class = Class::Access;
                vec![missing, Finding::Extra { index, kind, n }]
            }
            Fault::Double => {
                let at = first + 1 + place.index(log.len() - first);
                log.insert(at, leaf_of(&stated));
                vec![Finding::Doubled { index: at as u64, first: index, kind, n }]
            }
            Fault::Unstated(ahead) => {
                let at = place.index(log.len() + 1);
                let n = cell.counts[usize::from(kind)] + ahead;
                log.insert(at, Leaf::statement(&label(kind, n), &stated.commitment));
                vec![Finding::Extra { index: at as u64, kind, n }]
            }
        };
        prop_assert_eq!(Device::new().look(&cell.log, &cell.chain, PROMISE_MS), expected);
    }

    #[test]
    fn states_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = WatchState::from_bytes(&bytes);
    }
}

#[test]
fn b29_a_dropped_consent_leaf_is_reported() {
    let mut cell = Cell::default();
    let mut device = Device::new();
    cell.state(1);
    cell.state(CONSENT);
    cell.integrate(5);
    cell.state(CONSENT);
    // The cell acknowledged it and forgets it.
    cell.pending.clear();
    cell.integrate(5);
    let missing = vec![Finding::Missing {
        kind: CONSENT,
        n: 1,
    }];
    // Not yet due.
    let early = PROMISE_MS - 1;
    assert_eq!(device.look(&cell.log, &cell.chain, early), Vec::new());
    assert_eq!(device.look(&cell.log, &cell.chain, PROMISE_MS), missing);
    cell.integrate(300);
    assert_eq!(device.look(&cell.log, &cell.chain, PROMISE_MS), missing);
    // What comes too late is reported until it is there.
    let late = leaf_of(cell.chain.last().unwrap());
    cell.log.push(late);
    assert_eq!(device.look(&cell.log, &cell.chain, PROMISE_MS), Vec::new());
}

#[test]
fn what_was_never_acknowledged_is_not_missing() {
    let mut cell = Cell::default();
    cell.state(CONSENT);
    cell.chain[0].acknowledged = None;
    let look = Device::new().look(&[], &cell.chain, i64::MAX);
    assert_eq!(look, Vec::new());
    // Nor does a time at the end of the range overflow.
    cell.chain[0].acknowledged = Some(Millis(i64::MAX));
    let look = Device::new().look(&[], &cell.chain, i64::MAX - 1);
    assert_eq!(look, Vec::new());
}

/// A cell that keeps the newest statements from a device and logs them is noticed, however many each of
/// the account's devices made; and once it shows them, they are in order.
#[test]
fn b29_a_chain_that_is_kept_back_is_noticed() {
    let mut cell = Cell::default();
    let mut device = Device::new();
    cell.state(CONSENT);
    cell.integrate(2);
    assert_eq!(device.look(&cell.log, &cell.chain, 0), Vec::new());
    let shown = cell.chain.clone();
    for _ in 0..4 * DEVICES_MAX {
        cell.state(CONSENT);
    }
    cell.integrate(0);
    let findings = device.look(&cell.log, &shown, 0);
    assert_eq!(findings.len(), 4 * DEVICES_MAX);
    assert!(findings.iter().all(|finding| matches!(
        finding,
        Finding::Extra {
            kind: CONSENT,
            n: 1..,
            ..
        }
    )));
    assert_eq!(device.look(&cell.log, &cell.chain, i64::MAX), Vec::new());
}

#[test]
fn the_first_leaf_that_is_the_statement_takes_its_number() {
    let mut cell = Cell::default();
    let stated = cell.state(CONSENT);
    cell.integrate(0);
    let mut forged = leaf_of(&stated);
    forged.commitment = [9; 32];
    cell.log.insert(0, forged);
    cell.log.push(leaf_of(&stated));
    let (kind, n) = (CONSENT, 0);
    assert_eq!(
        Device::new().look(&cell.log, &cell.chain, PROMISE_MS),
        vec![
            Finding::Extra { index: 0, kind, n },
            Finding::Doubled {
                index: 2,
                first: 1,
                kind,
                n
            },
        ]
    );
}

/// Also where a device, by malice or mistake, signed a statement with the label of another one.
#[test]
fn two_statements_with_one_label_are_both_found() {
    let mut cell = Cell::default();
    cell.state(CONSENT);
    cell.state(5);
    cell.chain[1].label = cell.chain[0].label;
    let both: Vec<Leaf> = cell.chain.iter().map(leaf_of).collect();
    let look = |log: &[Leaf]| Device::new().look(log, &cell.chain, PROMISE_MS);
    assert_eq!(look(&both), Vec::new());
    assert_eq!(look(&both[..1]), vec![Finding::Missing { kind: 5, n: 0 }]);
    assert_eq!(
        look(&both[1..]),
        vec![Finding::Missing {
            kind: CONSENT,
            n: 0
        }]
    );
}

fn known(chain: &[Stated]) -> Known<'_> {
    Known {
        stated: chain,
        kinds: &KINDS,
        label: &label,
    }
}

#[test]
fn a_statement_is_only_where_its_own_leaf_is() {
    let mut cell = Cell::default();
    let stated = cell.state(CONSENT);
    let mut open = leaf_of(&stated);
    open.class = Class::Access;
    let mut watch = Watch::new(WatchState::new(), &known(&cell.chain), 2).unwrap();
    assert_eq!(watch.feed(0, &open), Ok(()));
    assert_eq!(watch.leaf_of(0), None);
    assert_eq!(watch.feed(1, &leaf_of(&stated)), Ok(()));
    assert_eq!(watch.leaf_of(0), Some(1));
}

#[test]
fn leaves_are_taken_in_order_and_only_up_to_the_checkpoint() {
    let mut watch = Watch::new(WatchState::new(), &known(&[]), 2).unwrap();
    let order = |index, expected| Err(WatchError::Order { index, expected });
    assert_eq!(watch.feed(1, &padding(1)), order(1, 0));
    assert_eq!(watch.feed(0, &padding(0)), Ok(()));
    assert_eq!(watch.feed(0, &padding(0)), order(0, 1));
    assert_eq!(
        watch.findings(Millis(0), 0),
        Err(WatchError::Unfinished {
            position: 1,
            size: 2
        })
    );
    assert_eq!(watch.feed(1, &padding(1)), Ok(()));
    assert_eq!(
        watch.feed(2, &padding(2)),
        Err(WatchError::Beyond { index: 2, size: 2 })
    );
    assert_eq!(watch.findings(Millis(0), 0), Ok(Vec::new()));
    let shrunk = Watch::new(watch.into_state(), &known(&[]), 1).err();
    assert_eq!(
        shrunk,
        Some(WatchError::Shrunk {
            size: 1,
            position: 2
        })
    );
}

#[test]
fn more_than_an_account_can_have_is_refused() {
    let kinds: Vec<u8> = (0..=32).collect();
    let all = Known {
        kinds: &kinds,
        ..known(&[])
    };
    let refused = |known: &Known<'_>| Watch::new(WatchState::new(), known, 0).err();
    let limit = |what| Some(WatchError::Limit { what });
    assert_eq!(refused(&all), limit("kinds"));
    let chain = vec![Cell::default().state(CONSENT); 65_537];
    assert_eq!(refused(&known(&chain)), limit("statements"));
    assert_eq!(refused(&known(&chain[1..])), None);
}

#[test]
fn a_flood_of_evidence_is_counted_and_does_not_hide_other_statements() {
    let mut cell = Cell::default();
    let first = cell.state(CONSENT);
    let second = cell.state(5);
    cell.pending.clear();
    let flood = EVIDENCE_MAX as u64 + 500;
    cell.log = vec![leaf_of(&first); usize::try_from(flood).unwrap()];
    cell.log.push(leaf_of(&second));
    let mut device = Device::new();
    let findings = device.look(&cell.log, &cell.chain, PROMISE_MS);
    assert_eq!(findings.len(), EVIDENCE_MAX);
    assert!(findings.iter().all(|finding| matches!(
        finding,
        Finding::Doubled {
            first: 0,
            kind: CONSENT,
            ..
        }
    )));
    let state = WatchState::from_bytes(&device.0).unwrap();
    // The first one is the statement itself.
    assert_eq!(state.left_off(), flood - 1 - EVIDENCE_MAX as u64);
    assert_eq!(state.position(), flood + 1);
}

/// A cell that names an older version of the state map is found out by whoever scans all leaves.
#[test]
fn a16_the_newest_version_of_the_state_map_is_seen() {
    let map = |version: u64| Leaf::state_map(version, &[7; 32]);
    let seen = |leaves: &[Leaf]| {
        let mut device = Device::new();
        device.look(&leaves[..leaves.len() / 2], &[], 0);
        device.look(leaves, &[], 0);
        let state = WatchState::from_bytes(&device.0).unwrap();
        (state.newest_map(), state.unordered_maps())
    };
    let root = MapRoot([7; 32]);
    let newest = |index, version| {
        Some(MapLeaf {
            index,
            version,
            root,
        })
    };
    assert_eq!(seen(&[]), (None, 0));
    let good = [map(1), padding(1), map(2), padding(3), map(3), padding(5)];
    assert_eq!(seen(&good), (newest(4, 3), 0));
    let late = [map(2), map(3)];
    assert_eq!(seen(&late), (newest(1, 3), 1));
    let twice = [map(1), map(1), map(2), map(u64::MAX), map(0)];
    assert_eq!(seen(&twice), (newest(4, 0), 3));
}

/// A count in a stored state may be any: at its end it stays there, and nothing overflows.
#[test]
fn a37_a_stored_count_at_its_end_stays_there() {
    let mut bytes = WatchState::new().to_bytes();
    assert_eq!(bytes.pop(), Some(0), "the last field is the count");
    bytes.extend_from_slice(&[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let state = WatchState::from_bytes(&bytes).unwrap();
    let known = Known {
        stated: &[],
        kinds: &[],
        label: &label,
    };
    let mut watch = Watch::new(state, &known, 1).unwrap();
    watch.feed(0, &Leaf::state_map(9, &[7; 32])).unwrap();
    assert_eq!(watch.into_state().unordered_maps(), u64::MAX);
}

/// A state's canonical bytes with these sightings (place, kind, n, class), and with the leaf of a state
/// map at a place.
fn state_bytes(position: u64, sightings: &[(u64, u8, u64, u8)], map: Option<u64>) -> Vec<u8> {
    let mut e = minicbor::Encoder::new(Vec::new());
    let fields = 5 + u64::from(map.is_some());
    e.map(fields).unwrap().u8(0).unwrap().u8(1).unwrap();
    e.u8(1).unwrap().u64(position).unwrap();
    e.u8(2).unwrap().array(sightings.len() as u64).unwrap();
    for (index, kind, n, class) in sightings {
        e.map(6).unwrap().u8(0).unwrap().u64(*index).unwrap();
        e.u8(1).unwrap().u8(*kind).unwrap();
        e.u8(2).unwrap().u64(*n).unwrap();
        e.u8(3).unwrap().u8(*class).unwrap();
        e.u8(4).unwrap().bytes(label(*kind, *n).as_bytes()).unwrap();
        e.u8(5).unwrap().bytes(&bytes("commitment", *n)).unwrap();
    }
    e.u8(3).unwrap().u64(0).unwrap();
    if let Some(index) = map {
        e.u8(4).unwrap().map(3).unwrap();
        e.u8(0).unwrap().u64(index).unwrap();
        e.u8(1).unwrap().u8(1).unwrap();
        e.u8(2).unwrap().bytes(&[7; 32]).unwrap();
    }
    e.u8(5).unwrap().u64(0).unwrap();
    e.into_writer()
}

fn reason_of(error: &WatchStateError) -> &'static str {
    match error {
        WatchStateError::Codec(error) => reason(error),
        WatchStateError::Contradiction => "contradiction",
    }
}

#[test]
fn vectors_of_the_state() {
    let mut cell = Cell::default();
    for kind in KINDS {
        cell.state(kind);
    }
    cell.integrate(3);
    let mut device = Device::new();
    let empty = device.0.clone();
    device.look(&cell.log, &cell.chain, 0);
    let good = device.0.clone();
    let largest = state_bytes(u64::MAX, &[(u64::MAX - 1, 255, u64::MAX, 6)], Some(0));
    let accepted = [
        ("nothing-scanned", empty),
        ("five-statements", good.clone()),
        ("largest-numbers", largest),
    ];
    let spoilt = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let rejected = [
        ("empty", Vec::new()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("trailing-byte", [&good[..], &[0]].concat()),
        ("long-map-head", [&[0xb8, 5], &good[1..]].concat()),
        ("version-zero", spoilt(2, 0)),
        ("version-two", spoilt(2, 2)),
        ("an-array", vec![0x80]),
        ("beyond-the-position", state_bytes(5, &[(5, 4, 0, 0)], None)),
        (
            "twice-at-a-place",
            state_bytes(5, &[(4, 4, 0, 0), (4, 4, 1, 0)], None),
        ),
        (
            "not-ascending",
            state_bytes(5, &[(4, 4, 0, 0), (3, 4, 1, 0)], None),
        ),
        ("map-beyond-the-position", state_bytes(5, &[], Some(5))),
        ("no-such-class", state_bytes(5, &[(4, 4, 0, 7)], None)),
    ];
    let mut made = String::from(
        "# The state of a watch. docs/formats/monitor.md explains it.\n# accept NAME HEX\n",
    );
    for (name, bytes) in &accepted {
        writeln!(made, "accept {name} {}", to_hex(bytes)).unwrap();
    }
    let stored = stored_or_made("monitor/accepted.txt", &made);
    for line in stored.lines().filter(|line| !line.starts_with('#')) {
        let bytes = bytes_of(line.split(' ').nth(2).unwrap());
        let state = WatchState::from_bytes(&bytes).unwrap();
        assert_eq!(state.to_bytes(), bytes, "{line}");
    }
    let mut made = String::from(
        "# States of a watch that are refused. docs/formats/monitor.md explains them.\n# reject NAME REASON HEX\n",
    );
    for (name, bytes) in &rejected {
        let error = WatchState::from_bytes(bytes).err().unwrap();
        writeln!(
            made,
            "reject {name} {} {}",
            reason_of(&error),
            to_hex(bytes)
        )
        .unwrap();
    }
    let stored = stored_or_made("monitor/rejected.txt", &made);
    for line in stored.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ').skip(2);
        let why = words.next().unwrap();
        let error = WatchState::from_bytes(&bytes_of(words.next().unwrap())).err();
        assert_eq!(error.as_ref().map(reason_of), Some(why), "{line}");
    }
}

#[test]
fn a_state_that_is_too_long_is_refused_unread() {
    let error = WatchState::from_bytes(&vec![0; 16 << 20]).err();
    assert!(matches!(
        error,
        Some(WatchStateError::Codec(CodecError::TooLong { .. }))
    ));
}
