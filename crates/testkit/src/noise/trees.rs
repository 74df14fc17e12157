//! Noise for the proofs of a log: leaves, tiles, proofs of a place and of growth, the state map, a watch.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use candor_log::leaf::{LEAF_BYTES, Leaf};
use candor_log::monitor::{Known, Stated, Watch, WatchState};
use candor_log::state_map::{
    AccountState, MapKey, MapProof, MapRoot, MapValue, StateMap, decode_inputs, encode_inputs,
};
use candor_log::tile::{
    BundleId, Edge, Prover, Resource, TileSource, decode_bundle, encode_bundle,
};
use candor_log::tree::{Consistency, Hash, Inclusion, TREE_SIZE_MAX, TreeHead};
use candor_wire::ids::{Label, StatementId};

use super::choices::Choices;
use super::{Noise, seeds};
use crate::sample::NOW;

/// Leaves of the trees here.
const LEAVES: u64 = 300;

fn leaf(number: u64) -> Leaf {
    let mut random = [0x11; 64];
    random[..8].copy_from_slice(&number.to_be_bytes());
    Leaf::padding(&random)
}

/// Heads of all sizes up to [`LEAVES`], and the files of all of these trees.
struct Tree {
    heads: Vec<TreeHead>,
    files: BTreeMap<Resource, Vec<u8>>,
}

static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let mut edge = Edge::empty();
    let mut tree = Tree {
        heads: vec![edge.head()],
        files: BTreeMap::new(),
    };
    for number in 0..LEAVES {
        let growth = edge.append(&[leaf(number)]);
        tree.heads.push(growth.head);
        tree.files.extend(growth.files);
    }
    tree
});

/// Tiles, of which the one that is asked for at some time is not as it was.
struct Lying<'a> {
    changed: Option<(usize, Vec<u8>)>,
    asked: std::cell::Cell<usize>,
    tree: &'a Tree,
}

impl TileSource for Lying<'_> {
    type Error = ();

    fn read(&self, resource: &Resource) -> Result<Vec<u8>, ()> {
        let asked = self.asked.get();
        self.asked.set(asked + 1);
        let good = self.tree.files.get(resource).ok_or(())?;
        match &self.changed {
            Some((when, edits)) if *when == asked => Ok(Choices::new(edits).edit(good)),
            _ => Ok(good.clone()),
        }
    }
}

/// Proofs from tiles, of which one may be forged: whatever comes out is true, and changed it proves nothing.
fn proven(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let size = 1 + choices.below(LEAVES as usize) as u64;
    let index = choices.below(size as usize) as u64;
    let old = choices.below(size as usize + 1) as u64;
    let lies = choices.once_in(2);
    let when = usize::from(choices.byte() % 8);
    let edits = choices.array::<12>().to_vec();
    let source = Lying {
        changed: lies.then_some((when, edits)),
        asked: std::cell::Cell::new(0),
        tree: &TREE,
    };
    let head = TREE.heads[size as usize];
    let prover = Prover::new(&source, head);
    if let Ok(proof) = prover.inclusion(index) {
        let hash = leaf(index).hash();
        assert_eq!(proof.verify(&hash, &head), Ok(()), "{index} of {size}");
        let path = proof.path.iter().flat_map(|hash| hash.0);
        let changed = changed_path(&mut choices, path.collect());
        let index_now = match choices.once_in(4) {
            true => choices.number(),
            false => index,
        };
        let other = Inclusion {
            index: index_now,
            path: changed,
        };
        let is_same = other == proof;
        assert_eq!(other.verify(&hash, &head).is_ok(), is_same);
    }
    if let Ok(proof) = prover.consistency(old) {
        let before = TREE.heads[old as usize];
        assert_eq!(proof.verify(&before, &head), Ok(()), "{old} to {size}");
        let path = proof.path.iter().flat_map(|hash| hash.0);
        let other = Consistency {
            path: changed_path(&mut choices, path.collect()),
        };
        let is_same = other == proof;
        assert_eq!(other.verify(&before, &head).is_ok(), is_same);
    }
    if let Ok(root) = prover.root_of(old) {
        assert_eq!(root, TREE.heads[old as usize].root);
    }
    let bundle = BundleId {
        index: index / 256,
        width: (size - index / 256 * 256).min(256) as u16,
    };
    if let Ok(leaves) = prover.leaves(&bundle) {
        let first = bundle.index * 256;
        let all = (first..)
            .zip(&leaves)
            .all(|(place, got)| *got == leaf(place));
        assert!(all && leaves.len() == usize::from(bundle.width));
    }
    if let Ok(edge) = Edge::load(&source, head) {
        assert_eq!(edge.head(), head);
    }
}

fn changed_path(choices: &mut Choices<'_>, path: Vec<u8>) -> Vec<Hash> {
    let changed = choices.edit(&path);
    let (hashes, _) = changed.as_chunks::<32>();
    hashes.iter().map(|hash| Hash(*hash)).collect()
}

/// Proofs from nowhere, of trees of any size: nothing is proven, and nothing overflows.
fn raw_proofs(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let size = |choices: &mut Choices<'_>| match choices.byte() % 4 {
        0 => choices.number(),
        1 => choices.number() % (TREE_SIZE_MAX + 2),
        2 => 1 << (choices.byte() % 64),
        _ => u64::from(choices.byte()),
    };
    let (new, old, index) = (size(&mut choices), size(&mut choices), size(&mut choices));
    let (hashes, _) = choices.rest().as_chunks::<32>();
    let path: Vec<Hash> = hashes.iter().map(|hash| Hash(*hash)).collect();
    let head = |size, byte| TreeHead {
        size,
        root: Hash([byte; 32]),
    };
    let inclusion = Inclusion {
        index,
        path: path.clone(),
    };
    let refused = inclusion.verify(&Hash([1; 32]), &head(new, 2)).is_err();
    assert!(refused, "a leaf is proven that nobody hashed");
    let consistency = Consistency { path };
    if consistency.verify(&head(old, 2), &head(new, 2)).is_ok() {
        assert!(old == new && consistency.path.is_empty());
    }
    assert!(consistency.verify(&head(old, 3), &head(new, 2)).is_err());
}

fn leaves(bytes: &[u8]) {
    if let Ok(leaf) = Leaf::decode(bytes) {
        assert_eq!(leaf.encode(), bytes);
    }
    let Some((width, bytes)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let width = u16::from_be_bytes(*width);
    if let Ok(leaves) = decode_bundle(bytes, width) {
        assert_eq!(leaves.len(), usize::from(width));
        assert_eq!(encode_bundle(leaves.iter()), bytes);
    }
}

/// The first byte selects a row; rows are only ever added at the end.
const PROOFS: &[Noise] = &[raw_proofs, leaves, proven];

/// Proofs of the log, its leaves and tiles.
pub fn proofs(noise: &[u8]) {
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    PROOFS[usize::from(*selector) % PROOFS.len()](bytes);
}

pub fn proof_seeds() -> Vec<Vec<u8>> {
    let leaves = seeds::bytes_in("log/accepted.txt", LEAF_BYTES);
    let leaves: Vec<_> = leaves
        .into_iter()
        .filter(|bytes| bytes.len() < 10 * LEAF_BYTES)
        .collect();
    let with_width = |mut bytes: Vec<u8>| {
        let width = (bytes.len() / (LEAF_BYTES + 2)) as u16;
        bytes.splice(0..0, width.to_be_bytes());
        bytes
    };
    let bundles = leaves.iter().cloned().map(with_width).collect();
    let mut all: Vec<Vec<u8>> = seeds::selected(0, seeds::decisions()).collect();
    all.extend(seeds::selected(1, leaves));
    all.extend(seeds::selected(1, bundles));
    all.extend(seeds::selected(2, seeds::decisions()));
    all
}

fn map_proof(bytes: &[u8]) {
    if let Ok(proof) = MapProof::from_bytes(bytes) {
        assert_eq!(proof.to_bytes(), bytes);
        let empty = MapRoot([0; 32]);
        if let Ok(shown) = proof.verify(&empty, &MapKey([3; 32])) {
            assert_eq!(shown, None, "the empty map holds something");
        }
        assert!(proof.verify(&MapRoot([1; 32]), &MapKey([3; 32])).is_err());
    }
}

fn inputs(bytes: &[u8]) {
    let Ok(changes) = decode_inputs(bytes) else {
        return;
    };
    assert_eq!(encode_inputs(&changes), bytes);
    let map = StateMap::new().with(&changes);
    assert_eq!(map.len(), changes.len());
    for (key, value) in changes.iter().take(8) {
        assert_eq!(map.get(key), Some(*value));
    }
}

fn account_state(bytes: &[u8]) {
    if let Ok(state) = AccountState::from_bytes(bytes) {
        assert_eq!(state.to_bytes(), bytes);
    }
}

/// Keys that agree in many bits, and others.
fn map_key(choices: &mut Choices<'_>) -> MapKey {
    let mut key = [choices.byte(); 32];
    let place = choices.below(32);
    key[place] ^= choices.byte();
    MapKey(key)
}

/// A map in two steps is the map in one; a proof shows what the map holds, and changed it shows nothing else.
fn map(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let changes = |choices: &mut Choices<'_>| -> Vec<(MapKey, MapValue)> {
        let count = choices.below(12);
        (0..count)
            .map(|_| (map_key(choices), MapValue([choices.byte(); 32])))
            .collect()
    };
    let (first, second) = (changes(&mut choices), changes(&mut choices));
    let map = StateMap::new().with(&first).with(&second);
    let both = [first, second].concat();
    assert_eq!(map.root(), StateMap::new().with(&both).root());
    let key = match choices.once_in(2) {
        true => both.first().map_or(MapKey([0; 32]), |change| change.0),
        false => map_key(&mut choices),
    };
    let proof = map.prove(&key);
    assert_eq!(proof.verify(&map.root(), &key), Ok(map.get(&key)));
    assert_eq!(MapProof::from_bytes(&proof.to_bytes()).as_ref(), Ok(&proof));
    let changed = choices.edit(&proof.to_bytes());
    if let Ok(other) = MapProof::from_bytes(&changed)
        && let Ok(shown) = other.verify(&map.root(), &key)
    {
        assert_eq!(shown, map.get(&key), "a changed proof shows something else");
    }
    let asked = map_key(&mut choices);
    if let Ok(shown) = proof.verify(&map.root(), &asked) {
        assert_eq!(shown, map.get(&asked), "a proof of another key");
    }
}

/// The first byte selects a row; rows are only ever added at the end.
const MAPS: &[Noise] = &[map_proof, inputs, account_state, map];

/// The state map.
pub fn state_map(noise: &[u8]) {
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    MAPS[usize::from(*selector) % MAPS.len()](bytes);
}

pub fn state_map_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for file in ["state-map/accepted.txt", "state-map/rejected.txt"] {
        let bytes = seeds::bytes_in(file, 1);
        for row in 0..3 {
            all.extend(seeds::selected(row, bytes.clone()));
        }
    }
    all.extend(seeds::selected(3, seeds::decisions()));
    all
}

/// The labels of an account, and of nobody.
fn label(kind: u8, number: u64) -> Label {
    let mut bytes = [kind; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Label::from_bytes(bytes)
}

/// Goes on from a state that was read, over leaves that the noise picks.
fn watch_on(state: WatchState, choices: &mut Choices<'_>) {
    let stated = |kind, number| Stated {
        kind,
        label: label(kind, number),
        commitment: StatementId::from_bytes([kind; 32]),
        acknowledged: Some(NOW),
    };
    let known = Known {
        stated: &[stated(1, 0), stated(2, 0), stated(2, 1)],
        kinds: &[1, 2, 3],
        label: &label,
    };
    let position = state.position();
    let count = u64::from(choices.byte() % 16);
    let size = position.saturating_add(count);
    let Ok(mut watch) = Watch::new(state, &known, size) else {
        return;
    };
    for index in position..size {
        let leaf = match choices.byte() % 4 {
            0 => Leaf::statement(&label(2, 0), &StatementId::from_bytes([2; 32])),
            1 => Leaf::statement(&label(2, 1), &StatementId::from_bytes([choices.byte(); 32])),
            2 => Leaf::state_map(choices.number(), &[5; 32]),
            _ => Leaf::padding(&[choices.byte(); 64]),
        };
        watch.feed(index, &leaf).expect("the leaves come in order");
    }
    let findings = watch.findings(NOW.plus_ms(10_000), 1000);
    assert!(findings.is_ok(), "every leaf was fed");
    let kept = watch.into_state();
    let again = WatchState::from_bytes(&kept.to_bytes());
    assert!(
        again.is_ok_and(|again| again == kept),
        "a state is not read"
    );
}

/// What a watch remembers: one spelling; and what it becomes is read again.
pub fn watches(noise: &[u8]) {
    let mut choices = Choices::new(noise);
    let tail = choices.array::<16>();
    let bytes = choices.rest();
    let mut choices = Choices::new(&tail);
    match WatchState::from_bytes(bytes) {
        Ok(state) => {
            assert_eq!(state.to_bytes(), bytes);
            watch_on(state, &mut choices);
        }
        Err(_) => watch_on(WatchState::new(), &mut choices),
    }
}

pub fn watch_seeds() -> Vec<Vec<u8>> {
    let files = ["monitor/accepted.txt", "monitor/rejected.txt"];
    let states = files.into_iter().flat_map(|file| seeds::bytes_in(file, 1));
    // Counts and places at their ends.
    let last = [0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let ends = [
        [&[0xa5, 0, 1, 1, 0, 2, 0x80, 3][..], &last, &[5], &last].concat(),
        [&[0xa5, 0, 1, 1][..], &last, &[2, 0x80, 3, 0, 5, 0]].concat(),
    ];
    let states = states.chain(ends);
    let begin = |mut bytes: Vec<u8>| {
        bytes.splice(0..0, 3..19);
        bytes
    };
    states.map(begin).collect()
}
