//! Tiles and bundles: their paths, growing, proving, and sources that lie.

use std::collections::{BTreeMap, BTreeSet};

use candor_log::leaf::{LEAF_BYTES, Leaf};
use candor_log::tile::*;
use candor_log::tree::{Hash, TREE_SIZE_MAX, TreeHead, empty_root, leaf_hash};
use proptest::prelude::*;

use crate::sample::*;

const FULL: u16 = 256;

fn tile_id(level: u8, index: u64, width: u16) -> TileId {
    TileId {
        level,
        index,
        width,
    }
}

#[test]
fn paths_are_those_of_c2sp() {
    let cases = [
        ("tile/0/x001/x234/067.p/1", tile_id(0, 1_234_067, 1)),
        ("tile/0/x001/x234/067", tile_id(0, 1_234_067, FULL)),
        ("tile/0/000.p/255", tile_id(0, 0, 255)),
        ("tile/1/999", tile_id(1, 999, FULL)),
        ("tile/1/x001/000", tile_id(1, 1000, FULL)),
        ("tile/5/000.p/1", tile_id(5, 0, 1)),
    ];
    for (path, tile) in cases {
        assert_eq!(tile.path(), path);
        assert_eq!(Resource::from_path(path), Some(Resource::Tile(tile)));
    }
    let bundle = BundleId {
        index: 4_294_967_295,
        width: FULL,
    };
    assert_eq!(bundle.path(), "tile/entries/x004/x294/x967/295");
    let bundle = BundleId { index: 0, width: 5 };
    assert_eq!(bundle.path(), "tile/entries/000.p/5");
    let resource = Resource::from_path("tile/entries/000.p/5").unwrap();
    assert_eq!(resource, Resource::Entries(bundle));
    assert_eq!(resource.full().path(), "tile/entries/000");
    assert_eq!(resource.bytes(), 5 * 68);
}

#[test]
fn a_path_has_one_spelling() {
    let refused = [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile//000",
        "tile/00/000",
        "tile/+1/000",
        "tile/a/000",
        "tile/6/000",
        "tile/63/000",
        "tile/64/000",
        "tile/256/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/000/000",
        "tile/0/x001/x002",
        "tile/0/X001/002",
        "tile/0/x01/002",
        "tile/0/+01",
        "tile/0/-01",
        "tile/0/٠٠٠",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/+1",
        "tile/0/000.p/1/",
        "tile/0/000.p/1.p/1",
        "tile/0/000.P/1",
        "tile/8/0/000",
        "tile/data/000",
        "tile/entries/000.p/256",
        "tile/entries/0/000",
        "tile/Entries/000",
        // One more than the last tile of the largest tree that is accepted.
        "tile/0/x004/x294/x967/296",
        "tile/entries/x004/x294/x967/296",
        "tile/5/000.p/2",
        "tile/4/000.p/1/../1",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ];
    for path in refused {
        assert_eq!(Resource::from_path(path), None, "{path}");
    }
    let long = format!("tile/0/{}000", "x000/".repeat(100_000));
    assert_eq!(Resource::from_path(&long), None);
}

/// The example of the specification: a tree of 70,000 leaves.
#[test]
fn a_tree_of_70000_has_the_files_of_the_specification() {
    let log = Log::of(70_000);
    let mut count: BTreeMap<(Option<u8>, u16), usize> = BTreeMap::new();
    for resource in log.files.files.keys() {
        let level = match resource {
            Resource::Tile(tile) => Some(tile.level),
            Resource::Entries(_) => None,
        };
        *count.entry((level, resource.width())).or_default() += 1;
    }
    let expected = [
        ((None, 112), 1),
        ((None, 256), 273),
        ((Some(0), 112), 1),
        ((Some(0), 256), 273),
        ((Some(1), 17), 1),
        ((Some(1), 256), 1),
        ((Some(2), 1), 1),
    ];
    assert_eq!(count, BTreeMap::from(expected));
    let log = Log::of(256);
    let tiles: Vec<String> = log.files.files.keys().map(Resource::path).collect();
    assert_eq!(tiles, ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]);
}

#[test]
fn places_have_the_width_of_their_size() {
    assert_eq!(tile_at(0, 0, 0), None);
    assert_eq!(tile_at(0, 0, 1), Some(tile_id(0, 0, 1)));
    assert_eq!(tile_at(0, 273, 70_000), Some(tile_id(0, 273, 112)));
    assert_eq!(tile_at(0, 272, 70_000), Some(tile_id(0, 272, FULL)));
    assert_eq!(tile_at(0, 274, 70_000), None);
    assert_eq!(tile_at(1, 1, 70_000), Some(tile_id(1, 1, 17)));
    assert_eq!(tile_at(2, 0, 70_000), Some(tile_id(2, 0, 1)));
    assert_eq!(tile_at(3, 0, 70_000), None);
    assert_eq!(tile_at(5, 0, TREE_SIZE_MAX), Some(tile_id(5, 0, 1)));
    assert_eq!(tile_at(255, u64::MAX, u64::MAX), None);
    assert_eq!(tile_at(0, u64::MAX, u64::MAX), None);
    let bundle = bundle_at(273, 70_000);
    assert_eq!(
        bundle,
        Some(BundleId {
            index: 273,
            width: 112
        })
    );
}

/// What C2SP says exists for `size` and was not complete at `old`, computed naively.
fn expected_files(hashes: &[Hash], old: u64, size: u64) -> BTreeMap<Resource, Vec<u8>> {
    let mut files = BTreeMap::new();
    for level in 0..TILE_LEVELS {
        let span = 256_u64.pow(u32::from(level));
        let nodes = size / span;
        for index in 0..nodes.div_ceil(256) {
            let width = (nodes - index * 256).min(256);
            let end = (index + 1) * 256 * span;
            if width == 256 && end <= old {
                continue;
            }
            let node = |i: u64| {
                let start = usize::try_from((index * 256 + i) * span).unwrap();
                naive_root(&hashes[start..start + usize::try_from(span).unwrap()])
            };
            let bytes = (0..width).flat_map(|i| node(i).0).collect();
            let width = u16::try_from(width).unwrap();
            files.insert(Resource::Tile(tile_id(level, index, width)), bytes);
            if level == 0 {
                let entries = leaves(index * 256..index * 256 + u64::from(width));
                let bytes = entries
                    .iter()
                    .flat_map(|leaf| [&[0, 66][..], &leaf.encode()].concat())
                    .collect();
                let bundle = BundleId { index, width };
                files.insert(Resource::Entries(bundle), bytes);
            }
        }
    }
    files
}

fn check_growth(sizes: &BTreeSet<u64>) {
    let largest = sizes.last().copied().unwrap_or(0);
    let hashes: Vec<Hash> = (0..largest).map(|i| leaf(i).hash()).collect();
    let mut edge = Edge::empty();
    let mut files = Files::default();
    for size in sizes {
        let old = edge.head();
        let growth = edge.append(&leaves(old.size..*size));
        assert_eq!(growth.head, edge.head());
        let root = naive_root(&hashes[..usize::try_from(*size).unwrap()]);
        assert_eq!(growth.head, TreeHead { size: *size, root });
        let made: BTreeMap<_, _> = growth.files.iter().cloned().collect();
        assert_eq!(made.len(), growth.files.len(), "a file twice");
        assert!(
            made == expected_files(&hashes, old.size, *size),
            "other files from {} to {size}",
            old.size
        );
        // Go's rule for what is new, apart from partial tiles that stay as they are.
        let theirs: BTreeSet<Resource> = tlog_tiles::Tile::new_tiles(8, old.size, *size)
            .iter()
            .map(|tile| {
                let width = u16::try_from(tile.width()).unwrap();
                Resource::Tile(tile_id(tile.level(), tile.level_index(), width))
            })
            .collect();
        let ours: BTreeSet<Resource> = made
            .keys()
            .filter(|resource| matches!(resource, Resource::Tile(_)))
            .filter(|resource| !files.files.contains_key(*resource))
            .copied()
            .collect();
        assert_eq!(ours, theirs);
        in_order(&growth);
        files.keep(growth);
        // Loaded from its files it is the same edge.
        assert_eq!(Edge::load(&files, edge.head()).unwrap(), edge);
    }
}

/// Bundles first, then tiles from level 0 up.
fn in_order(growth: &Growth) {
    let place = |resource: &Resource| match resource {
        Resource::Entries(bundle) => (0, bundle.index),
        Resource::Tile(tile) => (1 + tile.level, tile.index),
    };
    let places: Vec<_> = growth.files.iter().map(|(id, _)| place(id)).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn growth_by_one_makes_what_c2sp_says() {
    check_growth(&(0..=600).collect());
}

#[test]
fn growth_around_the_borders_makes_what_c2sp_says() {
    let borders = [0, 1, 255, 256, 257, 511, 512, 65_279, 65_280, 65_281];
    let more = [65_535, 65_536, 65_537, 65_791, 65_792, 65_793, 70_000];
    check_growth(&borders.into_iter().chain(more).collect());
    check_growth(&BTreeSet::from([65_536]));
    check_growth(&BTreeSet::from([65_537, 65_538]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn growth_of_any_batch_from_any_size_makes_what_c2sp_says(
        sizes in prop::collection::btree_set(prop_oneof![0_u64..2_000, 0_u64..70_001], 1..5)
    ) {
        check_growth(&sizes);
    }

    #[test]
    fn proofs_from_tiles_verify(size in 1_u64..70_001, places in prop::collection::vec(any::<u64>(), 6)) {
        let log = Log::of(size);
        let prover = log.prover();
        for place in places {
            let index = place % size;
            let proof = prover.inclusion(index).unwrap();
            prop_assert_eq!(proof.verify(&leaf(index).hash(), &log.head()), Ok(()));
            let old = place % (size + 1);
            let consistency = prover.consistency(old).unwrap();
            let root = prover.root_of(old).unwrap();
            prop_assert_eq!(root, naive_root(&hashes(old)));
            let old = TreeHead { size: old, root };
            prop_assert_eq!(consistency.verify(&old, &log.head()), Ok(()));
            let bundle = bundle_at(index / 256, size).unwrap();
            let start = bundle.index * 256;
            let expected = leaves(start..start + u64::from(bundle.width));
            prop_assert_eq!(prover.leaves(&bundle).unwrap(), expected);
        }
    }

    #[test]
    fn paths_are_read_back_or_refused(path in "tile/(entries|[0-9]{1,2})(/x[0-9]{3}){0,3}/[0-9]{3}(\\.p/[0-9]{1,3})?") {
        if let Some(resource) = Resource::from_path(&path) {
            prop_assert_eq!(resource.path(), path);
        }
    }

    #[test]
    fn any_bytes_are_a_bundle_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), width in 0_u16..300) {
        if let Ok(leaves) = decode_bundle(&bytes, width) {
            prop_assert_eq!(encode_bundle(leaves.iter()), bytes);
        }
    }
}

fn hashes(size: u64) -> Vec<Hash> {
    leaves(0..size).iter().map(Leaf::hash).collect()
}

#[test]
fn a_tree_without_leaves_has_nothing() {
    let files = Files::default();
    let prover = Prover::new(&files, TreeHead::empty());
    assert_eq!(prover.root_of(0).unwrap(), empty_root());
    assert_eq!(prover.consistency(0).unwrap().path, []);
    let outside = TileError::OutOfTree { size: 0 };
    assert_eq!(prover.inclusion(0), Err(outside.clone()));
    let bundle = BundleId { index: 0, width: 1 };
    assert_eq!(prover.leaves(&bundle), Err(outside));
    let edge = Edge::load(&files, TreeHead::empty()).unwrap();
    assert_eq!(edge, Edge::empty());
    let lie = TreeHead {
        size: 0,
        root: Hash([1; 32]),
    };
    let error = TileError::NotAuthentic(Suspect::Edge(lie));
    assert_eq!(Edge::load(&files, lie), Err(error));
    assert_eq!(Edge::empty().append(&[]).files, []);
}

#[test]
fn what_the_tree_does_not_have_is_not_asked_for() {
    let log = Log::of(600);
    let prover = log.prover();
    let outside = TileError::OutOfTree { size: 600 };
    for index in [600, 601, u64::MAX] {
        assert_eq!(prover.inclusion(index), Err(outside.clone()));
        assert_eq!(
            prover.root_of(index + u64::from(index == 600)),
            Err(outside.clone())
        );
    }
    assert_eq!(prover.consistency(601), Err(outside.clone()));
    for (index, width) in [(0, 0), (0, 257), (2, 89), (3, 1), (u64::MAX, 1)] {
        let bundle = BundleId { index, width };
        assert_eq!(prover.leaves(&bundle), Err(outside.clone()));
    }
    assert_eq!(log.files.reads.get(), 0);
    let size = TREE_SIZE_MAX + 1;
    let large = TreeHead {
        size,
        root: empty_root(),
    };
    let error = TileError::TooLarge { size };
    assert_eq!(Edge::load(&log.files, large), Err(error.clone()));
    assert_eq!(Prover::new(&log.files, large).inclusion(5), Err(error));
}

#[test]
fn a_narrower_bundle_is_enough() {
    let log = Log::of(600);
    let mut files = log.files.clone();
    let bundle = BundleId { index: 2, width: 7 };
    let resource = Resource::Entries(bundle);
    files
        .files
        .insert(resource, encode_bundle(leaves(512..519).iter()));
    let prover = Prover::new(&files, log.head());
    assert_eq!(prover.leaves(&bundle).unwrap(), leaves(512..519));
}

#[test]
fn walking_along_a_log_reads_each_tile_once() {
    let log = Log::of(66_000);
    let prover = log.prover();
    for index in 0..257 {
        let bundle = bundle_at(index, 66_000).unwrap();
        prover.leaves(&bundle).unwrap();
    }
    // 257 bundles, 257 full tiles of level 0, 1 of level 1, and 3 partial ones.
    assert_eq!(log.files.reads.get(), 257 + 257 + 1 + 3);
}

#[test]
fn a_missing_file_is_the_sources_error() {
    let log = Log::of(600);
    let mut files = log.files.clone();
    let tile = Resource::Tile(tile_id(0, 1, FULL));
    files.files.remove(&tile);
    let prover = Prover::new(&files, log.head());
    let missing = TileError::Source(Missing("tile/0/001".to_owned()));
    assert_eq!(prover.inclusion(300), Err(missing));
    assert!(prover.inclusion(599).is_ok());
    let partial = Resource::Tile(tile_id(0, 2, 88));
    files.files.remove(&partial);
    let missing = TileError::Source(Missing("tile/0/002.p/88".to_owned()));
    assert_eq!(Edge::load(&files, log.head()), Err(missing));
}

/// Everything that a caller can ask, and how each answer may be wrong: not at all, or so.
fn ask_everything(files: &Files, honest: &Log) -> usize {
    let head = honest.head();
    let size = head.size;
    let prover = Prover::new(files, head);
    let mut refused = 0;
    let mut judge = |result: Result<bool, TileError<Missing>>| match result {
        Ok(is_right) => assert!(is_right, "a lie was believed"),
        Err(TileError::NotAuthentic(_)) => refused += 1,
        Err(error) => panic!("{error:?}"),
    };
    for index in [0, 255, 256, 300, 511, 512, 513, size - 1] {
        let proof = prover.inclusion(index);
        judge(proof.map(|proof| proof.verify(&leaf(index).hash(), &head).is_ok()));
        let root = prover.root_of(index + 1);
        judge(root.map(|root| root == honest.prover().root_of(index + 1).unwrap()));
        let consistency = prover.consistency(index + 1);
        judge(consistency.map(|proof| {
            let old = honest.head_at(index + 1);
            proof.verify(&old, &head).is_ok()
        }));
        let bundle = bundle_at(index / 256, size).unwrap();
        let start = bundle.index * 256;
        let expected = leaves(start..start + u64::from(bundle.width));
        judge(prover.leaves(&bundle).map(|leaves| leaves == expected));
    }
    judge(Edge::load(files, head).map(|edge| edge == honest.edge));
    refused
}

#[test]
fn a_source_that_lies_gets_nothing_believed() {
    let honest = Log::of(600);
    assert_eq!(ask_everything(&honest.files, &honest), 0);
    for resource in honest.files.files.keys() {
        let good = &honest.files.files[resource];
        let mut lies: Vec<Vec<u8>> = Vec::new();
        for place in [0, 1, 2, 40, good.len() / 2, good.len() - 1] {
            let mut flipped = good.clone();
            flipped[place.min(good.len() - 1)] ^= 1;
            lies.push(flipped);
        }
        let mut swapped = good.clone();
        let each = good.len() / usize::from(resource.width());
        swapped.rotate_left(each);
        lies.push(swapped);
        lies.push(Vec::new());
        lies.push(good[..good.len() - 1].to_vec());
        lies.push(good[..good.len() - each].to_vec());
        lies.push([good.clone(), good[..each].to_vec()].concat());
        lies.push([good.clone(), vec![0]].concat());
        lies.push(vec![0; good.len()]);
        lies.push(vec![0xff; 1 << 20]);
        for lie in lies.iter().filter(|lie| *lie != good) {
            let mut files = honest.files.clone();
            files.files.insert(*resource, lie.clone());
            let refused = ask_everything(&files, &honest);
            assert!(refused > 0, "{resource}: nobody noticed");
        }
    }
}

#[test]
fn every_flipped_byte_of_an_edge_is_noticed() {
    let honest = Log::of(259);
    for (resource, good) in &honest.files.files {
        // A full tile or bundle is no part of the edge.
        if resource.width() == FULL {
            continue;
        }
        for place in 0..good.len() {
            let mut files = honest.files.clone();
            files.files.get_mut(resource).unwrap()[place] ^= 0x80;
            assert!(matches!(
                Edge::load(&files, honest.head()),
                Err(TileError::NotAuthentic(_))
            ));
        }
    }
}

#[test]
fn tiles_of_another_tree_are_noticed() {
    let honest = Log::of(600);
    let mut other = Edge::empty();
    let mut changed = leaves(0..600);
    changed[10].commitment = [0; 32];
    let mut files = Files::default();
    files.keep(other.append(&changed));
    assert!(ask_everything(&files, &honest) > 20);
}

/// The tree really holds something that is not a leaf: that is the log's fault, and is said so.
#[test]
fn an_entry_that_is_not_a_leaf_is_the_logs_fault() {
    let mut entry = leaf(3).encode().to_vec();
    entry[1] = 99;
    for entry in [entry, b"short".to_vec(), vec![1; 65_535], Vec::new()] {
        let root = leaf_hash(&entry);
        let head = TreeHead { size: 1, root };
        let mut files = Files::default();
        let bundle = BundleId { index: 0, width: 1 };
        let resource = Resource::Entries(bundle);
        let length = u16::try_from(entry.len()).unwrap();
        let bytes = [&length.to_be_bytes()[..], &entry].concat();
        files.files.insert(resource, bytes);
        let tile = Resource::Tile(tile_id(0, 0, 1));
        files.files.insert(tile, root.0.to_vec());
        for result in [
            Prover::new(&files, head).leaves(&bundle).err(),
            Edge::load(&files, head).err(),
        ] {
            assert!(
                matches!(result, Some(TileError::NotALeaf { bundle, .. }) if bundle == resource)
            );
        }
        assert!(Prover::new(&files, head).inclusion(0).is_ok());
    }
}

#[test]
fn a_bundle_has_exactly_its_entries() {
    let bytes = encode_bundle(leaves(0..3).iter());
    assert_eq!(bytes.len(), 3 * (2 + LEAF_BYTES));
    assert_eq!(decode_bundle(&bytes, 3), Ok(leaves(0..3)));
    for width in [0, 2, 4, 256, u16::MAX] {
        assert_eq!(
            decode_bundle(&bytes, width),
            Err(BundleError::Width { width })
        );
    }
    for end in 0..bytes.len() {
        let error = BundleError::Width { width: 3 };
        assert_eq!(decode_bundle(&bytes[..end], 3), Err(error));
    }
    let mut unknown = bytes;
    unknown[68 + 2] = 9;
    let Err(BundleError::Leaf { position: 1, .. }) = decode_bundle(&unknown, 3) else {
        panic!("another error");
    };
}

/// In release: `cargo test -p candor-log --release -- --ignored --nocapture a_million`.
#[test]
#[ignore = "a measurement, which no suite decides by: see above how to run it"]
#[expect(
    clippy::disallowed_methods,
    reason = "the crate has no clock; its measurements need one"
)]
fn a_million_leaves_are_appended_and_walked_quickly() {
    use std::time::Instant;
    let leaves = leaves(0..1_000_000);
    let start = Instant::now();
    let mut edge = Edge::empty();
    let growth = edge.append(&leaves);
    let appended = start.elapsed();
    let mut files = Files::default();
    files.keep(growth);
    let start = Instant::now();
    let prover = Prover::new(&files, edge.head());
    let bundles = (0..3_907).map(|index| bundle_at(index, 1_000_000).unwrap());
    let count: usize = bundles.map(|id| prover.leaves(&id).unwrap().len()).sum();
    let walked = start.elapsed();
    assert_eq!(count, 1_000_000);
    let start = Instant::now();
    for index in (0..1_000_000).step_by(1_009) {
        prover.inclusion(index).unwrap();
    }
    let proven = start.elapsed();
    assert!(appended.as_secs() < 10, "{appended:?}");
    assert!(walked.as_secs() < 10, "{walked:?}");
    assert!(proven.as_secs() < 10, "{proven:?}");
}
