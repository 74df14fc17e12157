//! Hashes and proofs, against `ct-merkle`, `tlog_tiles` and the definition.

use candor_log::tree::*;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::Sha256;

use crate::sample::*;

type Oracle = MemoryBackedTree<Sha256, Vec<u8>>;

fn oracle(size: u64) -> Oracle {
    let mut tree = Oracle::new();
    leaves(0..size)
        .iter()
        .for_each(|leaf| tree.push(leaf.encode().to_vec()));
    tree
}

fn path_of(bytes: &[u8]) -> Vec<Hash> {
    bytes
        .chunks(32)
        .map(|chunk| Hash(chunk.try_into().unwrap()))
        .collect()
}

fn hash_of(leaf: u64) -> Hash {
    crate::sample::leaf(leaf).hash()
}

/// RFC 6962 in Go's tests and everybody's: roots over these leaves.
#[test]
fn roots_of_the_known_small_trees() {
    assert_eq!(
        empty_root().to_base64(),
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    );
    let hex = candor_wire::ids::to_hex(&leaf_hash(b"").0);
    assert_eq!(
        hex,
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    );
    for size in 0..70 {
        let hashes: Vec<Hash> = (0..size).map(hash_of).collect();
        let root = naive_root(&hashes);
        assert_eq!(root, Log::of(size).head().root, "size {size}");
        assert_eq!(root.0, oracle(size).root().as_bytes()[..], "size {size}");
    }
}

#[test]
fn proofs_are_those_of_another_implementation() {
    for size in 1..70 {
        let (log, tree) = (Log::of(size), oracle(size));
        let prover = log.prover();
        for index in 0..size {
            let theirs = tree.prove_inclusion(usize::try_from(index).unwrap());
            let ours = prover.inclusion(index).unwrap();
            assert_eq!(ours.path, path_of(theirs.as_bytes()));
            assert_eq!(ours.verify(&hash_of(index), &log.head()), Ok(()));
        }
        for old in 1..size {
            let theirs = tree.prove_consistency(usize::try_from(size - old).unwrap());
            let ours = prover.consistency(old).unwrap();
            assert_eq!(ours.path, path_of(theirs.as_bytes()));
            assert_eq!(ours.verify(&log.head_at(old), &log.head()), Ok(()));
        }
    }
}

#[test]
fn a_proof_is_for_one_leaf_one_place_one_tree() {
    let log = Log::of(13);
    let head = log.head();
    let proof = log.prover().inclusion(6).unwrap();
    let good = hash_of(6);
    assert_eq!(proof.verify(&good, &head), Ok(()));
    assert_eq!(proof.verify(&hash_of(5), &head), Err(ProofError::Invalid));
    for index in (0..13).filter(|index| *index != 6) {
        let moved = Inclusion {
            index,
            ..proof.clone()
        };
        assert_eq!(moved.verify(&good, &head), Err(ProofError::Invalid));
    }
    let outside = Inclusion {
        index: 13,
        ..proof.clone()
    };
    let error = ProofError::Index {
        index: 13,
        size: 13,
    };
    assert_eq!(outside.verify(&good, &head), Err(error));
    for place in 0..proof.path.len() {
        let mut cut = proof.clone();
        cut.path.remove(place);
        assert_eq!(cut.verify(&good, &head), Err(ProofError::Invalid));
        let mut flipped = proof.clone();
        flipped.path[place].0[31] ^= 1;
        assert_eq!(flipped.verify(&good, &head), Err(ProofError::Invalid));
    }
    let mut longer = proof.clone();
    longer.path.push(good);
    assert_eq!(longer.verify(&good, &head), Err(ProofError::Invalid));
    let alone = Inclusion {
        index: 0,
        path: Vec::new(),
    };
    let one = Log::of(1).head();
    assert_eq!(alone.verify(&hash_of(0), &one), Ok(()));
}

#[test]
fn nothing_without_bounds_reaches_a_verifier() {
    let log = Log::of(13);
    let head = log.head();
    let leaf = hash_of(6);
    let many = vec![leaf; PROOF_MAX_HASHES + 1];
    let too_long = Err(ProofError::TooLong {
        hashes: PROOF_MAX_HASHES + 1,
    });
    let inclusion = Inclusion {
        index: 6,
        path: many.clone(),
    };
    assert_eq!(inclusion.verify(&leaf, &head), too_long);
    let consistency = Consistency { path: many };
    assert_eq!(consistency.verify(&head, &head), too_long);
    for size in [TREE_SIZE_MAX + 1, u64::MAX] {
        let root = head.root;
        let large = TreeHead { size, root };
        let refused = Err(ProofError::TooLarge { size });
        let path = vec![leaf; 40];
        let inclusion = Inclusion { index: 6, path };
        assert_eq!(inclusion.verify(&leaf, &large), refused);
        let path = vec![leaf; 40];
        let consistency = Consistency { path };
        assert_eq!(consistency.verify(&head, &large), refused);
        assert_eq!(consistency.verify(&large, &large), refused);
    }
    // The largest tree itself is fine: wrong proofs of every length are refused, none panics.
    for index in [0, 1, TREE_SIZE_MAX / 2, TREE_SIZE_MAX - 1] {
        for length in 0..=PROOF_MAX_HASHES {
            let path = vec![leaf; length];
            let largest = TreeHead {
                size: TREE_SIZE_MAX,
                root: head.root,
            };
            let inclusion = Inclusion {
                index,
                path: path.clone(),
            };
            assert_eq!(inclusion.verify(&leaf, &largest), Err(ProofError::Invalid));
            let old = TreeHead {
                size: index + 1,
                root: leaf,
            };
            let consistency = Consistency { path };
            assert_eq!(
                consistency.verify(&old, &largest),
                Err(ProofError::Invalid),
                "{index} {length}"
            );
        }
    }
}

#[test]
fn trees_grow_from_nothing_and_never_shrink() {
    let (small, large) = (Log::of(5).head(), Log::of(13).head());
    let none = Consistency { path: Vec::new() };
    let some = Consistency {
        path: vec![small.root],
    };
    assert_eq!(none.verify(&TreeHead::empty(), &large), Ok(()));
    assert_eq!(none.verify(&large, &large), Ok(()));
    assert_eq!(none.verify(&TreeHead::empty(), &TreeHead::empty()), Ok(()));
    assert_eq!(
        some.verify(&TreeHead::empty(), &large),
        Err(ProofError::Invalid)
    );
    assert_eq!(some.verify(&large, &large), Err(ProofError::Invalid));
    let shrunk = ProofError::Shrunk { old: 13, new: 5 };
    assert_eq!(none.verify(&large, &small), Err(shrunk));
    let other = TreeHead {
        root: small.root,
        ..large
    };
    assert_eq!(none.verify(&large, &other), Err(ProofError::Invalid));
    let bad_empty = TreeHead { size: 0, ..large };
    assert_eq!(none.verify(&bad_empty, &large), Err(ProofError::EmptyRoot));
    assert_eq!(
        none.verify(&TreeHead::empty(), &bad_empty),
        Err(ProofError::EmptyRoot)
    );
}

#[test]
fn a_hash_has_one_spelling() {
    let hash = hash_of(3);
    let text = hash.to_base64();
    assert_eq!(Hash::from_base64(&text), Some(hash));
    let refused = [
        text[..43].to_owned(),
        format!("{text}="),
        text.replace('=', ""),
        format!(" {}", &text[..43]),
        text.replace('+', "-").replace('/', "_").replace('=', "A"),
        String::new(),
        // The last letter has two bits that mean nothing: only zeros are accepted.
        format!("{}{}", &"A".repeat(42), "B="),
    ];
    for text in refused {
        assert_eq!(Hash::from_base64(&text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_hashes_of_any_length_are_judged(
        index in any::<u64>(),
        old in any::<u64>(),
        size in prop_oneof![0..TREE_SIZE_MAX + 2, any::<u64>()],
        length in 0_usize..80,
    ) {
        let hash = Hash([7; 32]);
        let head = TreeHead { size, root: hash };
        let old = TreeHead { size: old, root: Hash([8; 32]) };
        let path = vec![hash; length];
        let inclusion = Inclusion { index, path: path.clone() };
        prop_assert!(inclusion.verify(&Hash([9; 32]), &head).is_err());
        let consistency = Consistency { path };
        prop_assert!(consistency.verify(&old, &head).is_err() || old.size == 0);
    }

    #[test]
    fn texts_of_hashes_are_read_back_or_refused(text in "[A-Za-z0-9+/=]{40,48}") {
        if let Some(hash) = Hash::from_base64(&text) {
            prop_assert_eq!(hash.to_base64(), text);
        }
    }
}
