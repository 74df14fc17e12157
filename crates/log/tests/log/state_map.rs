//! The state map against a naive one, and against a cell that lies.

use std::collections::BTreeMap;

use candor_log::state_map::*;
use candor_wire::cbor::CodecError;
use candor_wire::ids::{AccountId, Link, Salt, VaultId};
use proptest::collection::vec;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

const EMPTY: [u8; 32] = [0; 32];

pub(crate) type Change = (MapKey, MapValue);

/// A key that looks like an output of HMAC.
pub(crate) fn key(n: u32) -> MapKey {
    MapKey(Sha256::digest(n.to_be_bytes()).into())
}

pub(crate) fn value(n: u32) -> MapValue {
    MapValue(Sha256::digest([b"v", &n.to_be_bytes()[..]].concat()).into())
}

fn with_bit(base: u8, bit: usize) -> MapKey {
    let mut key = [base; 32];
    key[bit / 8] ^= 0x80 >> (bit % 8);
    MapKey(key)
}

/// Few keys, so that some are changed twice; half of them differ in one late bit only.
fn any_key() -> impl Strategy<Value = MapKey> {
    prop_oneof![
        (0..40u32).prop_map(key),
        (prop_oneof![Just(0u8), Just(0xff), Just(0xa5)], 0..256usize)
            .prop_map(|(base, bit)| with_bit(base, bit)),
    ]
}

fn any_changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    vec((any_key(), (0..9u32).prop_map(value)), 0..most)
}

fn bit(key: &MapKey, depth: usize) -> bool {
    key.0[depth / 8] & (0x80 >> (depth % 8)) != 0
}

fn hash(prefix: u8, left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::digest([&[prefix][..], left, right].concat()).into()
}

/// The rules of the map, word for word.
fn naive_root(entries: &[Change], depth: usize) -> [u8; 32] {
    match entries {
        [] => EMPTY,
        [(key, value)] => hash(0, &key.0, &value.0),
        _ => {
            let middle = entries.partition_point(|(key, _)| !bit(key, depth));
            let (left, right) = entries.split_at(middle);
            let (left, right) = (naive_root(left, depth + 1), naive_root(right, depth + 1));
            hash(1, &left, &right)
        }
    }
}

fn root_of(naive: &BTreeMap<MapKey, MapValue>) -> MapRoot {
    let entries: Vec<Change> = naive.iter().map(|(key, value)| (*key, *value)).collect();
    MapRoot(naive_root(&entries, 0))
}

/// A proof, taken apart.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) version: u8,
    pub(crate) siblings: Vec<[u8; 32]>,
    pub(crate) entry: Option<[[u8; 32]; 2]>,
}

impl Parts {
    pub(crate) fn of(proof: &MapProof) -> Self {
        let bytes = proof.to_bytes();
        let mut decoder = minicbor::Decoder::new(&bytes);
        let fields = decoder.map().unwrap().unwrap();
        assert_eq!(decoder.u8().unwrap(), 0);
        let version = decoder.u8().unwrap();
        assert_eq!(decoder.u8().unwrap(), 1);
        let siblings = decoder.bytes().unwrap().as_chunks::<32>().0.to_vec();
        let entry = (fields == 3).then(|| {
            assert_eq!(decoder.u8().unwrap(), 2);
            let (halves, _) = decoder.bytes().unwrap().as_chunks::<32>();
            halves.try_into().unwrap()
        });
        Self {
            version,
            siblings,
            entry,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut encoder = minicbor::Encoder::new(Vec::new());
        let fields = 2 + u64::from(self.entry.is_some());
        encoder.map(fields).unwrap();
        encoder.u8(0).unwrap().u8(self.version).unwrap();
        let siblings = self.siblings.as_flattened();
        encoder.u8(1).unwrap().bytes(siblings).unwrap();
        if let Some(entry) = &self.entry {
            encoder.u8(2).unwrap().bytes(entry.as_flattened()).unwrap();
        }
        encoder.into_writer()
    }

    fn proof(&self) -> Result<MapProof, CodecError> {
        MapProof::from_bytes(&self.bytes())
    }
}

/// What whoever has the root believes after these bytes, if anything.
fn believed(bytes: &[u8], root: &MapRoot, key: &MapKey) -> Option<Option<MapValue>> {
    MapProof::from_bytes(bytes).ok()?.verify(root, key).ok()
}

/// Proofs that a lying cell could try, made from a true one.
fn forgeries(true_one: &Parts, others: &[Parts]) -> Vec<Parts> {
    let mut forged = Vec::new();
    for entry in others.iter().map(|other| other.entry).chain([None]) {
        for length in 0..=true_one.siblings.len() {
            let mut cut = true_one.clone();
            cut.siblings.truncate(length);
            cut.entry = entry;
            forged.push(cut);
        }
        for added in [EMPTY, [7; 32]] {
            let mut longer = true_one.clone();
            longer.siblings.push(added);
            longer.entry = entry;
            forged.push(longer);
        }
    }
    forged.extend(others.iter().cloned());
    forged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn versions_are_those_of_a_naive_map(batches in vec(any_changes(24), 1..8)) {
        let mut naive = BTreeMap::new();
        let mut map = StateMap::new();
        let mut versions = vec![(map.clone(), naive.clone())];
        for batch in &batches {
            map = map.with(batch);
            naive.extend(batch.iter().copied());
            versions.push((map.clone(), naive.clone()));
        }
        // Also the old ones, after newer ones were made of them.
        for (map, naive) in &versions {
            prop_assert_eq!(map.root(), root_of(naive));
            prop_assert_eq!(map.len(), naive.len());
            prop_assert_eq!(map.is_empty(), naive.is_empty());
        }
        // The order in which entries came does not matter, nor how they were grouped.
        let all: Vec<Change> = naive.iter().map(|(key, value)| (*key, *value)).collect();
        prop_assert_eq!(StateMap::new().with(&all).root(), map.root());
        let single = all.iter().rev().fold(StateMap::new(), |map, one| map.with(&[*one]));
        prop_assert_eq!(single.root(), map.root());
    }

    #[test]
    fn every_proof_says_what_a_naive_map_says(
        changes in any_changes(40), asked in vec(any_key(), 1..20),
    ) {
        let naive: BTreeMap<_, _> = changes.iter().copied().collect();
        let map = StateMap::new().with(&changes);
        for key in asked.iter().chain(naive.keys()) {
            let proof = map.prove(key);
            prop_assert_eq!(MapProof::from_bytes(&proof.to_bytes()), Ok(proof.clone()));
            prop_assert_eq!(Parts::of(&proof).bytes(), proof.to_bytes());
            let expected = naive.get(key).copied();
            prop_assert_eq!(proof.verify(&map.root(), key), Ok(expected));
            prop_assert_eq!(map.get(key), expected);
        }
    }

    /// A cell cannot deny an account, nor show another value, nor claim an account that is not there:
    /// whatever is put together from true proofs says the truth or nothing.
    #[test]
    fn a17_one_root_has_one_answer_for_each_key(
        changes in any_changes(12), asked in vec(any_key(), 1..5),
    ) {
        let naive: BTreeMap<_, _> = changes.iter().copied().collect();
        let map = StateMap::new().with(&changes);
        let keys: Vec<MapKey> = naive.keys().chain(&asked).copied().collect();
        let parts: Vec<Parts> = keys.iter().map(|key| Parts::of(&map.prove(key))).collect();
        for (key, true_one) in keys.iter().zip(&parts) {
            for forged in forgeries(true_one, &parts) {
                if let Some(answer) = believed(&forged.bytes(), &map.root(), key) {
                    prop_assert_eq!(answer, naive.get(key).copied());
                }
            }
        }
    }

    #[test]
    fn any_changed_byte_of_a_proof_is_noticed(
        changes in any_changes(20), asked in any_key(), at in any::<prop::sample::Index>(), flip in 1u8..=255,
    ) {
        let map = StateMap::new().with(&changes);
        let mut bytes = map.prove(&asked).to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert_eq!(believed(&bytes, &map.root(), &asked), None);
    }

    #[test]
    fn inputs_round_trip_in_one_spelling(changes in any_changes(40)) {
        let bytes = encode_inputs(&changes);
        let naive: BTreeMap<_, _> = changes.iter().copied().collect();
        let sorted: Vec<Change> = naive.into_iter().collect();
        prop_assert_eq!(decode_inputs(&bytes), Ok(sorted.clone()));
        prop_assert_eq!(encode_inputs(&sorted), bytes);
        prop_assert_eq!(StateMap::new().with(&sorted).root(), StateMap::new().with(&changes).root());
    }

    #[test]
    fn paths_of_inputs_have_one_spelling(version in prop_oneof![1..5_000u64, 1..=u64::MAX]) {
        let path = inputs_path(version);
        prop_assert_eq!(inputs_version(&path), Some(version));
        prop_assert_eq!(inputs_version(&format!("{path}/")), None);
        prop_assert_eq!(inputs_version(&path.replacen("/x", "/x000/x", 1)), None);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = MapProof::from_bytes(&bytes);
        let _ = decode_inputs(&bytes);
        let _ = AccountState::from_bytes(&bytes);
        let _ = inputs_version(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn every_changed_byte_of_some_proofs_is_noticed() {
    let changes: Vec<Change> = (0..50).map(|n| (key(n), value(n))).collect();
    let map = StateMap::new().with(&changes);
    // Present; absent beside a neighbour; absent in an empty subtree.
    let absent = |has_entry: bool| {
        let mut keys = (50..).map(key);
        let is_such = |key: &MapKey| Parts::of(&map.prove(key)).entry.is_some() == has_entry;
        keys.find(is_such).unwrap()
    };
    for asked in [key(7), absent(true), absent(false)] {
        let good = map.prove(&asked).to_bytes();
        for at in 0..good.len() {
            for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                assert_eq!(believed(&bytes, &map.root(), &asked), None, "byte {at}");
            }
        }
    }
}

#[test]
fn small_maps_have_the_roots_of_the_rules() {
    let map = StateMap::new();
    assert_eq!(map.root(), MapRoot(EMPTY));
    assert_eq!(map.prove(&key(0)).verify(&map.root(), &key(0)), Ok(None));
    // A single entry is the whole map, wherever its key leads.
    let one = map.with(&[(key(0), value(0))]);
    assert_eq!(one.root().0, hash(0, &key(0).0, &value(0).0));
    let proof = one.prove(&key(1));
    assert_eq!(Parts::of(&proof).siblings.len(), 0);
    assert_eq!(proof.verify(&one.root(), &key(1)), Ok(None));
    // The later of two changes of one key counts.
    let twice = map.with(&[(key(0), value(1)), (key(0), value(0))]);
    assert_eq!((twice.root(), twice.len()), (one.root(), 1));
    assert_eq!(one.with(&[]).root(), one.root());
}

#[test]
fn keys_that_differ_in_the_last_bit_make_the_longest_proof() {
    let (a, b) = (with_bit(0, 255), MapKey([0; 32]));
    let map = StateMap::new().with(&[(a, value(1)), (b, value(2))]);
    let proof = map.prove(&a);
    assert_eq!(Parts::of(&proof).siblings.len(), MAP_SIBLINGS_MAX);
    assert_eq!(proof.verify(&map.root(), &a), Ok(Some(value(1))));
    let bytes = proof.to_bytes();
    assert_eq!(MapProof::from_bytes(&bytes), Ok(proof.clone()));
    // One more is refused before it is looked at.
    let mut longer = Parts::of(&proof);
    longer.siblings.push([1; 32]);
    assert!(matches!(longer.proof(), Err(CodecError::TooLong { .. })));
    longer.entry = None;
    assert!(matches!(longer.proof(), Err(CodecError::Malformed { .. })));
}

#[test]
fn a16_an_old_value_does_not_verify_under_a_newer_root() {
    let changes: Vec<Change> = (0..100).map(|n| (key(n), value(n))).collect();
    let old = StateMap::new().with(&changes);
    let new = old.with(&[(key(5), value(500))]);
    let stale = old.prove(&key(5));
    assert_eq!(stale.verify(&old.root(), &key(5)), Ok(Some(value(5))));
    assert_eq!(stale.verify(&new.root(), &key(5)), Err(MapProofError::Root));
    // Neither with the newer siblings.
    let mut mixed = Parts::of(&new.prove(&key(5)));
    mixed.entry = Parts::of(&stale).entry;
    let mixed = mixed.proof().unwrap();
    assert_eq!(mixed.verify(&new.root(), &key(5)), Err(MapProofError::Root));
    assert_eq!(
        new.prove(&key(5)).verify(&new.root(), &key(5)),
        Ok(Some(value(500)))
    );
}

#[test]
fn another_accounts_entry_is_not_an_answer() {
    let changes: Vec<Change> = (0..100).map(|n| (key(n), value(n))).collect();
    let map = StateMap::new().with(&changes);
    let theirs = map.prove(&key(6));
    assert_eq!(
        theirs.verify(&map.root(), &key(5)),
        Err(MapProofError::Misplaced)
    );
    // Their value under this key.
    let mut renamed = Parts::of(&theirs);
    renamed.entry = renamed.entry.map(|[_, value]| [key(5).0, value]);
    let renamed = renamed.proof().unwrap();
    assert_eq!(
        renamed.verify(&map.root(), &key(5)),
        Err(MapProofError::Root)
    );
}

/// A cell that breaks the rules of the map gains nothing: it cannot hide an entry beside a longer path.
#[test]
fn a_map_that_breaks_its_rules_is_not_believed() {
    let only = [key(1).0, value(1).0];
    let entry = hash(0, &only[0], &only[1]);
    let root = if bit(&key(1), 0) {
        hash(1, &EMPTY, &entry)
    } else {
        hash(1, &entry, &EMPTY)
    };
    let parts = Parts {
        version: MAP_PROOF_VERSION,
        siblings: vec![EMPTY],
        entry: Some(only),
    };
    let proof = parts.proof().unwrap();
    assert_eq!(
        proof.verify(&MapRoot(root), &key(1)),
        Err(MapProofError::TooLong)
    );
    // Nor does another account's entry on the path of a key deny that key.
    let path_of = (0..).map(key).find(|key| !bit(key, 0)).unwrap();
    let elsewhere = (0..).map(key).find(|key| bit(key, 0)).unwrap();
    let entry = [elsewhere.0, value(0).0];
    let parts = Parts {
        siblings: vec![[7; 32]],
        entry: Some(entry),
        ..parts
    };
    let root = hash(1, &hash(0, &entry[0], &entry[1]), &[7; 32]);
    let proof = parts.proof().unwrap();
    assert_eq!(
        proof.verify(&MapRoot(root), &path_of),
        Err(MapProofError::Misplaced)
    );
}

#[test]
fn a_proof_of_another_version_is_refused() {
    let map = StateMap::new().with(&[(key(1), value(1))]);
    let mut parts = Parts::of(&map.prove(&key(1)));
    for version in [0, MAP_PROOF_VERSION + 1] {
        parts.version = version;
        assert!(matches!(
            parts.proof(),
            Err(CodecError::Version { version: found, .. }) if found == u32::from(version)
        ));
        // Also where it came inside something else.
        let inside: MapProof = candor_wire::cbor::decode(&parts.bytes()).unwrap();
        assert_eq!(
            inside.verify(&map.root(), &key(1)),
            Err(MapProofError::Version { version })
        );
    }
}

#[test]
fn bad_inputs_and_paths_are_refused() {
    let good = encode_inputs(&[(key(1), value(1)), (key(2), value(2))]);
    assert_eq!(good.len(), 128);
    assert_eq!(decode_inputs(&[]), Ok(Vec::new()));
    for bytes in [1, 32, 63, 65, 96, 127] {
        assert_eq!(
            decode_inputs(&good[..bytes.min(128)]),
            Err(InputsError::Length { bytes })
        );
    }
    let too_many = vec![0; INPUTS_MAX_BYTES + 64];
    assert!(matches!(
        decode_inputs(&too_many),
        Err(InputsError::Length { .. })
    ));
    let backwards = [&good[64..], &good[..64]].concat();
    let twice = [&good[..64], &good[..64]].concat();
    for bytes in [backwards, twice] {
        assert_eq!(
            decode_inputs(&bytes),
            Err(InputsError::Order { position: 1 })
        );
    }
    assert_eq!(inputs_path(1), "map/x000/001");
    assert_eq!(inputs_path(999_999), "map/x999/999");
    assert_eq!(inputs_path(1_234_067), "map/x001/x234/067");
    for path in [
        "",
        "map",
        "map/001",
        "map/x000/000",
        "map/000/001",
        "map/x000/x001",
        "map/x00/0001",
        "map/x000/+01",
        "map/x000/x000/001",
        "maps/x000/001",
        "/map/x000/001",
        "map/x018/x446/x744/x073/x709/x551/616",
        "map/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(inputs_version(path), None, "{path}");
    }
}

fn state() -> AccountState {
    let head = |n: u8, counter| VaultState {
        vault: VaultId::from_bytes([n; 16]),
        counter,
        hash: [n; 32],
    };
    AccountState::new(7, Link::from_bytes([3; 32]), vec![head(2, 9), head(1, 300)])
}

#[test]
fn a_state_has_one_spelling_and_one_value() {
    let state = state();
    assert_eq!(
        AccountState::from_bytes(&state.to_bytes()),
        Ok(state.clone())
    );
    let secret = StateSecret::of(&Salt::from_bytes([1; 32]), &AccountId::from_bytes([2; 16]));
    // Whoever gives the heads in another order means the same.
    let mut turned = state.clone();
    turned.heads.reverse();
    assert_eq!(turned.to_bytes(), state.to_bytes());
    assert_eq!(secret.value(&turned), secret.value(&state));
    // Everything that is in it changes the value.
    let mut others = vec![state.clone(); 5];
    others[0].sequence += 1;
    others[1].link = Link::from_bytes([4; 32]);
    others[2].heads[0].counter += 1;
    others[3].heads[1].hash[31] ^= 1;
    others[4].heads.pop();
    for other in &others {
        assert_ne!(secret.value(other), secret.value(&state));
    }
}

#[test]
fn states_that_list_vaults_otherwise_are_refused() {
    let good = state();
    let mut twice = good.clone();
    twice.heads[1].vault = twice.heads[0].vault;
    let mut no_counter = good.clone();
    no_counter.heads[0].counter = 0;
    let mut turned = good.clone();
    turned.heads.reverse();
    for bad in [twice, no_counter, turned] {
        let bytes = candor_wire::cbor::encode(&bad);
        assert_eq!(
            AccountState::from_bytes(&bytes),
            Err(AccountStateError::Heads)
        );
    }
    let newer = AccountState { version: 2, ..good };
    assert!(matches!(
        AccountState::from_bytes(&newer.to_bytes()),
        Err(AccountStateError::Codec(CodecError::Version { .. }))
    ));
}

#[test]
fn the_largest_state_is_accepted_and_one_vault_more_is_not() {
    let many = |count: u32| {
        let heads = (0..count).map(|n| {
            let mut vault = [0xff; 16];
            vault[..4].copy_from_slice(&n.to_be_bytes());
            VaultState {
                vault: VaultId::from_bytes(vault),
                counter: u64::MAX,
                hash: [0xff; 32],
            }
        });
        AccountState::new(u64::MAX, Link::from_bytes([0xff; 32]), heads.collect())
    };
    let most = many(1024);
    assert_eq!(AccountState::from_bytes(&most.to_bytes()), Ok(most));
    assert!(AccountState::from_bytes(&many(1025).to_bytes()).is_err());
}

/// Nothing of an entry in the map can be computed from what is in the log or from an account's id.
#[test]
fn entries_of_two_accounts_or_salts_have_nothing_in_common() {
    let account = AccountId::from_bytes([2; 16]);
    let secret =
        |salt: u8, account: &AccountId| StateSecret::of(&Salt::from_bytes([salt; 32]), account);
    let mine = secret(1, &account);
    assert_eq!(mine.key(), secret(1, &account).key());
    assert_ne!(mine.key(), secret(2, &account).key());
    assert_ne!(mine.key(), secret(1, &AccountId::from_bytes([3; 16])).key());
    assert_ne!(mine.value(&state()), secret(2, &account).value(&state()));
}
