//! Leaves: one length, one spelling, and padding that looks like everything else.

use candor_log::leaf::*;
use candor_wire::StatementId;
use candor_wire::ids::Label;
use proptest::prelude::*;

#[test]
fn a_statement_and_padding_look_the_same() {
    let label = Label::from_bytes([0xaa; 32]);
    let commitment = StatementId::from_bytes([0xbb; 32]);
    let statement = Leaf::statement(&label, &commitment);
    let mut random = [0xaa; PADDING_BYTES];
    random[32..].fill(0xbb);
    assert_eq!(Leaf::padding(&random), statement);
    assert_eq!(statement.class, Class::Sealed);
    let bytes = statement.encode();
    assert_eq!(bytes.len(), LEAF_BYTES);
    assert_eq!(bytes[..2], [1, 0]);
    assert_eq!(bytes[2..34], [0xaa; 32]);
    assert_eq!(bytes[34..], [0xbb; 32]);
}

#[test]
fn a_state_map_says_its_version() {
    for version in [0, 1, 258, u64::MAX] {
        let leaf = Leaf::state_map(version, &[7; 32]);
        assert_eq!(leaf.state_map_version(), Some(version));
        assert_eq!(leaf.label[..24], [0; 24]);
        assert_eq!(leaf.label[24..], version.to_be_bytes());
        assert_eq!(Leaf::decode(&leaf.encode()), Ok(leaf));
    }
    let mut other = Leaf::state_map(1, &[7; 32]);
    other.class = Class::Report;
    assert_eq!(other.state_map_version(), None);
    let mut bytes = Leaf::state_map(1, &[7; 32]).encode();
    bytes[25] = 1;
    assert_eq!(Leaf::decode(&bytes), Err(LeafError::StateMapLabel));
}

#[test]
fn what_is_not_a_leaf_is_refused() {
    let good = crate::sample::leaf(0).encode();
    for length in [0, 1, 65] {
        let error = LeafError::Length { bytes: length };
        assert_eq!(Leaf::decode(&good[..length]), Err(error));
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert_eq!(Leaf::decode(&longer), Err(LeafError::Length { bytes: 67 }));
    for version in [0, 2, 255] {
        let mut bytes = good;
        bytes[0] = version;
        assert_eq!(Leaf::decode(&bytes), Err(LeafError::Version { version }));
    }
    for code in 7..=255 {
        let mut bytes = good;
        bytes[1] = code;
        assert_eq!(Leaf::decode(&bytes), Err(LeafError::Class { code }));
        assert_eq!(Class::from_code(code), None);
    }
    for class in Class::ALL {
        assert_eq!(Class::from_code(class.code()), Some(class));
    }
}

proptest! {
    #[test]
    fn what_is_read_is_written_the_same(bytes in prop::collection::vec(any::<u8>(), 60..72)) {
        if let Ok(leaf) = Leaf::decode(&bytes) {
            prop_assert_eq!(leaf.encode().to_vec(), bytes);
        }
    }

    #[test]
    fn what_is_written_is_read(code in 0_u8..7, label: [u8; 32], commitment: [u8; 32], version: u64) {
        let class = Class::from_code(code).unwrap();
        let leaf = match class {
            Class::StateMap => Leaf::state_map(version, &commitment),
            _ => Leaf { class, label, commitment },
        };
        prop_assert_eq!(Leaf::decode(&leaf.encode()), Ok(leaf));
    }
}
