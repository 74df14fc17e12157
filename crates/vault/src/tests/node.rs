#![allow(clippy::unwrap_used, clippy::panic)]

use candor_wire::Nanos;
use candor_wire::ids::to_hex;
use proptest::prelude::*;

use super::*;

struct Vector {
    name: String,
    record: String,
    error: Option<String>,
    bytes: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap())
        .collect()
}

fn vectors(text: &str) -> Vec<Vector> {
    let mut out = Vec::new();
    for block in text.split("\n\n").skip(1) {
        let field = |key: &str| {
            block.lines().find_map(|line| {
                line.strip_prefix(key)
                    .and_then(|rest| rest.strip_prefix(' '))
            })
        };
        out.push(Vector {
            name: field("name").unwrap().to_owned(),
            record: field("record").unwrap().to_owned(),
            error: field("error").map(str::to_owned),
            bytes: unhex(
                block
                    .lines()
                    .find_map(|line| line.strip_prefix("hex "))
                    .unwrap_or(""),
            ),
        });
    }
    assert!(out.len() > 10);
    out
}

fn decode(vector: &Vector) -> Result<Vec<u8>, NodeError> {
    match vector.record.as_str() {
        "part" => decode_part(&vector.bytes).map(|items| {
            let mut entries = Vec::new();
            for item in &items {
                match item {
                    Item::Entry(entry) => encode_entry(entry, &mut entries),
                    Item::Refused { .. } => return vector.bytes.clone(),
                }
            }
            encode_part(items.len(), &entries)
        }),
        "list" => decode_list(&vector.bytes).map(|list| encode_list(&list)),
        "root" => Root::decode(&vector.bytes).map(|root| root.encode()),
        other => panic!("unknown record {other}"),
    }
}

#[test]
fn accepted_vectors_decode_and_encode_to_the_same_bytes() {
    for vector in vectors(include_str!("../../../../vectors/tree/accepted.txt")) {
        let again = decode(&vector).unwrap_or_else(|error| panic!("{}: {error:?}", vector.name));
        assert_eq!(to_hex(&again), to_hex(&vector.bytes), "{}", vector.name);
    }
}

#[test]
fn rejected_vectors_fail_with_their_kind_of_error() {
    for vector in vectors(include_str!("../../../../vectors/tree/rejected.txt")) {
        let error = decode(&vector).expect_err(&vector.name);
        let kind = match error {
            NodeError::Malformed => "malformed",
            NodeError::NotCanonical => "not-canonical",
            NodeError::Version { .. } => "version",
            NodeError::Order => "order",
            NodeError::Limit { .. } => "limit",
            NodeError::Value { .. } => "value",
        };
        assert_eq!(Some(kind), vector.error.as_deref(), "{}", vector.name);
    }
}

#[test]
fn a34_refused_names_leave_their_neighbours() {
    let vector = vectors(include_str!("../../../../vectors/tree/accepted.txt"))
        .into_iter()
        .find(|vector| vector.name == "refused_names")
        .unwrap();
    let items = decode_part(&vector.bytes).unwrap();
    let reasons: Vec<Option<NameError>> = items
        .iter()
        .map(|item| match item {
            Item::Entry(_) => None,
            Item::Refused { reason, .. } => Some(*reason),
        })
        .collect();
    let wanted = [
        Some(NameError::Empty),
        Some(NameError::Dots),
        Some(NameError::Slash),
        None,
        Some(NameError::Nul),
        Some(NameError::TooLong),
    ];
    assert_eq!(reasons, wanted);
}

#[test]
fn a36_claims_are_compared_with_the_bytes_before_anything_is_allocated() {
    // A part that claims 65,536 entries in a handful of bytes.
    let part = [0xa2, 0, 1, 1, 0x9a, 0, 1, 0, 0];
    assert_eq!(
        decode_part(&part),
        Err(NodeError::Limit { what: "entries" })
    );
    let long = vec![0; PART_MAX_BYTES + 1];
    assert_eq!(
        decode_part(&long),
        Err(NodeError::Limit {
            what: "bytes of a part"
        })
    );
}

pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
    let name = prop::collection::vec(any::<u8>(), 1..20)
        .prop_filter_map("name", |bytes| Name::new(&bytes).ok());
    let xattrs = prop::collection::btree_map(
        prop::collection::vec(1u8..=255, 1..12),
        prop::collection::vec(any::<u8>(), 0..20),
        0..4,
    );
    let metadata = (
        0u32..=0o7777,
        any::<u32>(),
        any::<u32>(),
        any::<i64>(),
        xattrs,
    )
        .prop_map(|(mode, uid, gid, mtime, xattrs)| Metadata {
            mode,
            uid,
            gid,
            mtime: Nanos(mtime),
            xattrs: xattrs
                .into_iter()
                .map(|(name, value)| Xattr { name, value })
                .collect(),
        });
    (
        name,
        metadata,
        any_kind(),
        prop::option::of(any::<[u8; 16]>()),
    )
        .prop_map(|(name, metadata, kind, link)| {
            let link = if matches!(kind, Kind::Directory { .. }) {
                None
            } else {
                link.map(LinkGroup)
            };
            Entry {
                name,
                metadata,
                link,
                kind,
            }
        })
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let reference = (any::<[u8; 32]>(), 1u32..100).prop_map(|(id, length)| Reference {
        id: ChunkId::from_bytes(id),
        length,
    });
    let list = prop::collection::vec(reference, 0..5);
    prop_oneof![
        (list.clone(), prop::option::of((1u64..50, 1u64..50))).prop_map(|(list, holes)| {
            let data: u64 = list
                .iter()
                .map(|reference| u64::from(reference.length))
                .sum();
            let extents = holes.map(|(gap, _)| {
                if data == 0 {
                    Vec::new()
                } else {
                    vec![Extent { gap, length: data }]
                }
            });
            let size = data + holes.map_or(0, |(gap, tail)| gap + tail);
            Kind::File {
                size,
                content: References { levels: 0, list },
                extents,
            }
        }),
        list.prop_map(|list| Kind::Directory {
            parts: References { levels: 0, list }
        }),
        prop::collection::vec(1u8..=255, 1..30).prop_map(|target| Kind::Symlink { target }),
        Just(Kind::Fifo),
        Just(Kind::Socket),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
    ]
}

proptest! {
    #[test]
    fn entries_round_trip(entry in any_entry()) {
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        prop_assert_eq!(decode_entry(&bytes), Ok(entry));
    }

    #[test]
    fn any_change_of_a_part_is_noticed_or_changes_its_meaning(
        entry in any_entry(), at in any::<prop::sample::Index>(), flip in 1u8..=255,
    ) {
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        let part = encode_part(1, &bytes);
        let mut other = part.clone();
        other[at.index(part.len())] ^= flip;
        if let Ok(items) = decode_part(&other) {
            prop_assert_ne!(items, vec![Item::Entry(entry)]);
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_part(&bytes);
        let _ = decode_list(&bytes);
        let _ = Root::decode(&bytes);
        let _ = decode_entry(&bytes);
    }
}
