//! The vectors under `vectors/state-map/`: made anew from fixed values, then judged block by block.

use std::collections::HashMap;
use std::fmt::Write as _;

use candor_log::state_map::*;
use candor_wire::ids::{AccountId, Link, Salt, VaultId, from_hex, to_hex};

use crate::state_map::{Change, Parts, key, value};
use crate::stored::{bytes_of, reason, stored_or_made};

fn block(out: &mut String, name: &str, kind: &str, fields: &[(&str, String)]) {
    writeln!(out, "\nname {name}\nkind {kind}").unwrap();
    for (field, value) in fields {
        writeln!(out, "{field} {value}").unwrap();
    }
}

fn blocks(text: &str) -> Vec<HashMap<&str, &str>> {
    let body = text.lines().filter(|line| !line.starts_with('#'));
    let body: Vec<&str> = body.collect();
    let blocks = body.split(|line| line.is_empty());
    blocks
        .filter(|block| !block.is_empty())
        .map(|block| {
            block
                .iter()
                .map(|line| line.split_once(' ').unwrap())
                .collect()
        })
        .collect()
}

fn entries(range: std::ops::Range<u32>) -> Vec<Change> {
    range.map(|n| (key(n), value(n))).collect()
}

/// Two keys that differ in the last bit only.
fn twins() -> [MapKey; 2] {
    let mut last = [0x5a; 32];
    last[31] ^= 1;
    [MapKey([0x5a; 32]), MapKey(last)]
}

/// Batches of changes, by name.
fn maps() -> Vec<(&'static str, Vec<Vec<Change>>)> {
    let [a, b] = twins();
    vec![
        ("empty", vec![Vec::new()]),
        ("one_account", vec![entries(0..1)]),
        ("twins", vec![vec![(a, value(1)), (b, value(2))]]),
        (
            "a_third_beside_twins",
            vec![vec![(a, value(1)), (b, value(2)), (key(3), value(3))]],
        ),
        (
            "four_versions",
            vec![
                entries(0..2),
                entries(2..9),
                Vec::new(),
                vec![(key(1), value(100)), (key(9), value(9)), (key(4), value(4))],
            ],
        ),
    ]
}

fn whole(batches: &[Vec<Change>]) -> StateMap {
    batches
        .iter()
        .fold(StateMap::new(), |map, batch| map.with(batch))
}

fn state(heads: u8) -> AccountState {
    let head = |n: u8| VaultState {
        vault: VaultId::from_bytes([n; 16]),
        counter: 1 + 300 * u64::from(n),
        hash: [0xf0 | n; 32],
    };
    let heads = (0..heads).map(head).collect();
    AccountState::new(41, Link::from_bytes([0x11; 32]), heads)
}

fn accepted() -> String {
    let mut out = String::from(
        "# What every implementation of the state map must make and accept. Blocks of lines: a name, a kind,\n\
         # then the fields of that kind; bytes in hexadecimal. docs/formats/state-map.md explains them.\n\
         #   map    inputs_N, root_N: what is published with version N, and the root after it\n\
         #   proof  root, key, proof: what it shows is `value`, or `absent yes`\n\
         #   state  salt and account: they give `key`; with the bytes of the state, `value`\n\
         #   path   where the inputs of a version are\n",
    );
    for (name, batches) in maps() {
        let mut map = StateMap::new();
        let mut fields = Vec::new();
        for (version, batch) in (1..).zip(&batches) {
            map = map.with(batch);
            fields.push((format!("inputs_{version}"), to_hex(&encode_inputs(batch))));
            fields.push((format!("root_{version}"), to_hex(&map.root().0)));
        }
        let fields: Vec<_> = fields
            .iter()
            .map(|(field, value)| (field.as_str(), value.clone()))
            .collect();
        block(&mut out, name, "map", &fields);
    }
    let all = maps();
    let [a, b] = twins();
    for (name, map, asked) in [
        ("nothing_in_an_empty_map", 0, key(0)),
        ("the_only_account", 1, key(0)),
        ("absent_beside_the_only_account", 1, key(1)),
        ("a_twin", 2, a),
        ("absent_beside_twins", 2, key(1)),
        ("present", 4, key(1)),
        ("changed", 4, key(4)),
        ("absent_in_an_empty_half", 4, key(20)),
        ("absent_beside_another", 4, key(15)),
        ("the_other_twin_of_three", 3, b),
    ] {
        let map = whole(&all[map].1);
        let proof = map.prove(&asked);
        let shown = proof.verify(&map.root(), &asked).unwrap();
        let answer = match shown {
            Some(value) => ("value", to_hex(&value.0)),
            None => ("absent", "yes".to_owned()),
        };
        let fields = [
            ("root", to_hex(&map.root().0)),
            ("key", to_hex(&asked.0)),
            ("proof", to_hex(&proof.to_bytes())),
            answer,
        ];
        block(&mut out, name, "proof", &fields);
    }
    for (name, heads) in [("no_vault", 0), ("one_vault", 1), ("three_vaults", 3)] {
        let (salt, account) = ([0x5a; 32], [0xa1; 16]);
        let secret = StateSecret::of(&Salt::from_bytes(salt), &AccountId::from_bytes(account));
        let state = state(heads);
        let fields = [
            ("salt", to_hex(&salt)),
            ("account", to_hex(&account)),
            ("state", to_hex(&state.to_bytes())),
            ("key", to_hex(&secret.key().0)),
            ("value", to_hex(&secret.value(&state).0)),
        ];
        block(&mut out, name, "state", &fields);
    }
    for version in [1, 999, 1_000, 999_999, 1_000_000, 1_234_067, u64::MAX] {
        let fields = [
            ("version", version.to_string()),
            ("path", inputs_path(version)),
        ];
        block(&mut out, &format!("version_{version}"), "path", &fields);
    }
    out
}

fn bytes_32(hex: &str) -> [u8; 32] {
    from_hex(hex).unwrap()
}

#[test]
fn accepted_vectors() {
    let stored = stored_or_made("state-map/accepted.txt", &accepted());
    for block in blocks(&stored) {
        let name = block["name"];
        let field = |name: &str| block[name];
        match block["kind"] {
            "map" => {
                let mut map = StateMap::new();
                for version in 1..=(block.len() - 2) / 2 {
                    let inputs = bytes_of(block[&*format!("inputs_{version}")]);
                    map = map.with(&decode_inputs(&inputs).unwrap());
                    let root = block[&*format!("root_{version}")];
                    assert_eq!(map.root().0, bytes_32(root), "{name}: version {version}");
                }
            }
            "proof" => {
                let bytes = bytes_of(field("proof"));
                let proof = MapProof::from_bytes(&bytes).unwrap();
                assert_eq!(proof.to_bytes(), bytes, "{name}");
                let root = MapRoot(bytes_32(field("root")));
                let value = block.get("value").map(|hex| MapValue(bytes_32(hex)));
                assert_eq!(block.contains_key("absent"), value.is_none(), "{name}");
                let key = MapKey(bytes_32(field("key")));
                assert_eq!(proof.verify(&root, &key), Ok(value), "{name}");
            }
            "state" => {
                let bytes = bytes_of(field("state"));
                let state = AccountState::from_bytes(&bytes).unwrap();
                assert_eq!(state.to_bytes(), bytes, "{name}");
                let account: AccountId = field("account").parse().unwrap();
                let salt: Salt = field("salt").parse().unwrap();
                let secret = StateSecret::of(&salt, &account);
                assert_eq!(secret.key().0, bytes_32(field("key")), "{name}");
                assert_eq!(secret.value(&state).0, bytes_32(field("value")), "{name}");
            }
            "path" => {
                let version = field("version").parse().unwrap();
                assert_eq!(inputs_path(version), field("path"));
                assert_eq!(inputs_version(field("path")), Some(version));
            }
            kind => panic!("{name}: no kind of vectors: {kind}"),
        }
    }
}

fn proof_error(root: &MapRoot, key: &MapKey, bytes: &[u8]) -> Option<&'static str> {
    match MapProof::from_bytes(bytes) {
        Err(error) => Some(reason(&error)),
        Ok(proof) => match proof.verify(root, key) {
            Ok(_) => None,
            Err(MapProofError::Misplaced) => Some("misplaced"),
            Err(MapProofError::TooLong) => Some("path-too-long"),
            Err(MapProofError::Root) => Some("root"),
            Err(MapProofError::Version { .. }) => Some("version"),
        },
    }
}

fn inputs_error(bytes: &[u8]) -> Option<&'static str> {
    decode_inputs(bytes).err().map(|error| match error {
        InputsError::Length { .. } => "length",
        InputsError::Order { .. } => "order",
    })
}

fn state_error(bytes: &[u8]) -> Option<&'static str> {
    AccountState::from_bytes(bytes)
        .err()
        .map(|error| match &error {
            AccountStateError::Codec(error) => reason(error),
            AccountStateError::Heads => "heads",
        })
}

/// Proofs for account 1 of the map with four versions, each wrong in one way.
fn bad_proofs(map: &StateMap) -> Vec<(&'static str, Vec<u8>)> {
    let good = map.prove(&key(1)).to_bytes();
    let change = |change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&map.prove(&key(1)));
        change(&mut parts);
        parts.bytes()
    };
    let theirs = Parts::of(&map.prove(&key(2)));
    let entry = theirs.entry;
    // Key 1 of the map has its value in two spellings: as it is, and as an integer of two bytes.
    let long_version = [&good[..2], &[0x18, 1], &good[3..]].concat();
    let mut indefinite = vec![0xbf];
    indefinite.extend_from_slice(&good[1..]);
    indefinite.push(0xff);
    vec![
        ("no_bytes", Vec::new()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("trailing_byte", [&good[..], &[0]].concat()),
        ("long_version", long_version),
        ("indefinite_map", indefinite),
        ("version_zero", change(&|parts| parts.version = 0)),
        ("version_two", change(&|parts| parts.version = 2)),
        ("no_siblings", change(&|parts| parts.siblings.clear())),
        (
            "one_sibling_less",
            change(&|parts| parts.siblings.truncate(5)),
        ),
        (
            "one_sibling_more",
            change(&|parts| parts.siblings.push([1; 32])),
        ),
        (
            "an_empty_sibling_at_the_end",
            change(&|parts| parts.siblings.push([0; 32])),
        ),
        (
            "siblings_from_the_other_end",
            change(&|parts| parts.siblings.reverse()),
        ),
        ("denied", change(&|parts| parts.entry = None)),
        (
            "another_value",
            change(&|parts| parts.entry = Some([key(1).0, value(1).0])),
        ),
        (
            "another_key_on_the_path",
            change(&|parts| {
                parts.entry = Some([key(1).0.map(|byte| byte ^ (byte & 1)), value(100).0])
            }),
        ),
        ("another_account", theirs.bytes()),
        (
            "the_entry_of_another_account",
            change(&|parts| parts.entry = entry),
        ),
        (
            "too_many_siblings",
            change(&|parts| {
                parts.entry = None;
                parts.siblings = vec![[1; 32]; MAP_SIBLINGS_MAX + 1];
            }),
        ),
        (
            "longer_than_any",
            change(&|parts| parts.siblings = vec![[1; 32]; MAP_SIBLINGS_MAX + 1]),
        ),
    ]
}

fn bad_states() -> Vec<(&'static str, Vec<u8>)> {
    let good = state(3);
    let of = |change: &dyn Fn(&mut AccountState)| {
        let mut state = good.clone();
        change(&mut state);
        candor_wire::cbor::encode(&state)
    };
    let bytes = good.to_bytes();
    vec![
        ("state_of_no_bytes", Vec::new()),
        ("state_cut", bytes[..bytes.len() - 1].to_vec()),
        ("state_with_a_trailing_byte", [&bytes[..], &[0]].concat()),
        (
            "state_with_a_long_map_head",
            [&[0xb8, 4], &bytes[1..]].concat(),
        ),
        ("state_of_version_zero", of(&|state| state.version = 0)),
        ("state_of_version_two", of(&|state| state.version = 2)),
        ("vaults_not_ascending", of(&|state| state.heads.reverse())),
        (
            "a_vault_twice",
            of(&|state| state.heads[1].vault = state.heads[0].vault),
        ),
        (
            "a_head_without_a_counter",
            of(&|state| state.heads[0].counter = 0),
        ),
    ]
}

const BAD_PATHS: [&str; 10] = [
    "map",
    "map/001",
    "map/x000/000",
    "map/000/001",
    "map/x000/x001",
    "map/x000/01",
    "map/x000/0001",
    "map/x000/x000/001",
    "/map/x000/001",
    "map/x018/x446/x744/x073/x709/x551/616",
];

fn rejected() -> String {
    let mut out = String::from(
        "# What every implementation of the state map must refuse, and why. Blocks as in accepted.txt, with an\n\
         # error. Proofs are asked for the root and key of their block. docs/formats/state-map.md explains them.\n",
    );
    let map = whole(&maps()[4].1);
    for (name, bytes) in bad_proofs(&map) {
        let error = proof_error(&map.root(), &key(1), &bytes);
        let error = error.unwrap_or_else(|| panic!("{name} was accepted"));
        let fields = [
            ("root", to_hex(&map.root().0)),
            ("key", to_hex(&key(1).0)),
            ("error", error.to_owned()),
            ("proof", to_hex(&bytes)),
        ];
        block(&mut out, name, "proof", &fields);
    }
    let good = encode_inputs(&entries(0..2));
    for (name, bytes) in [
        ("half_a_change", good[..96].to_vec()),
        ("a_byte_less", good[..127].to_vec()),
        ("a_byte_more", [&good[..], &[0]].concat()),
        ("descending", [&good[64..], &good[..64]].concat()),
        ("twice", [&good[..64], &good[..64]].concat()),
    ] {
        let error = inputs_error(&bytes).unwrap_or_else(|| panic!("{name} was accepted"));
        let fields = [("error", error.to_owned()), ("inputs", to_hex(&bytes))];
        block(&mut out, name, "inputs", &fields);
    }
    for (name, bytes) in bad_states() {
        let error = state_error(&bytes).unwrap_or_else(|| panic!("{name} was accepted"));
        let fields = [("error", error.to_owned()), ("state", to_hex(&bytes))];
        block(&mut out, name, "state", &fields);
    }
    for (n, path) in (1..).zip(BAD_PATHS) {
        assert_eq!(inputs_version(path), None, "{path}");
        block(
            &mut out,
            &format!("path_{n}"),
            "path",
            &[("path", path.to_owned())],
        );
    }
    out
}

#[test]
fn rejected_vectors() {
    let stored = stored_or_made("state-map/rejected.txt", &rejected());
    for block in blocks(&stored) {
        let error = match block["kind"] {
            "proof" => {
                let (root, key) = (bytes_32(block["root"]), bytes_32(block["key"]));
                proof_error(&MapRoot(root), &MapKey(key), &bytes_of(block["proof"]))
            }
            "inputs" => inputs_error(&bytes_of(block["inputs"])),
            "state" => state_error(&bytes_of(block["state"])),
            _ => {
                assert_eq!(inputs_version(block["path"]), None);
                continue;
            }
        };
        assert_eq!(error, Some(block["error"]), "{}", block["name"]);
    }
}
