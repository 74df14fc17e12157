//! A cell's generations of keys, and which acknowledgement of which generation is believed.

use candor_wire::cbor;
use candor_wire::cell::{
    Acknowledgement, CELL_FORMAT_VERSION, CELL_KEYS_MAX, CellError, CellKeyring, CellKeys,
    InvitationRight, SignedAcknowledgement, SignedCellKeys, authority, log_origin,
};
use candor_wire::ids::{CellId, Link, StatementId, to_hex};
use candor_wire::sign::Ed25519Secret;

use candor_testkit::sample::*;

fn generation(serial: u32) -> CellKeys {
    CellKeys {
        serial,
        ..cell_keys()
    }
}

fn verified(generations: &[CellKeys]) -> Result<CellKeyring, CellError> {
    let root = cell_root();
    let signed: Vec<_> = generations
        .iter()
        .map(|keys| SignedCellKeys::sign(keys, &root))
        .collect();
    CellKeyring::verify(&root.public(), &signed)
}

#[test]
fn generations_ascend_and_the_last_is_current() {
    let keyring = verified(&[generation(1), generation(2), generation(7)]).unwrap();
    assert_eq!(keyring.current(), &generation(7));
    assert_eq!(keyring.cell(), cell());
    for wrong in [
        vec![generation(0)],
        vec![generation(2), generation(1)],
        vec![generation(1), generation(3), generation(2)],
        vec![generation(1), generation(1)],
        vec![CellKeys {
            version: CELL_FORMAT_VERSION + 1,
            ..cell_keys()
        }],
        vec![
            generation(1),
            CellKeys {
                cell: CellId::from_bytes([1; 16]),
                ..generation(2)
            },
        ],
    ] {
        assert_eq!(
            verified(&wrong),
            Err(CellError::Contradiction),
            "{:?}",
            wrong.iter().map(|keys| keys.serial).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_cell_has_so_many_generations_and_no_more() {
    let most = u32::try_from(CELL_KEYS_MAX).unwrap();
    let generations: Vec<_> = (1..=most + 1).map(generation).collect();
    let (_, allowed) = generations.split_last().unwrap();
    assert_eq!(verified(allowed).unwrap().current().serial, most);
    assert_eq!(verified(&generations), Err(CellError::Contradiction));
}

#[test]
fn every_generation_is_signed_by_the_root() {
    let root = cell_root();
    let mut signed = [generation(1), generation(2)].map(|keys| SignedCellKeys::sign(&keys, &root));
    signed[1] = SignedCellKeys::sign(&generation(2), &acknowledgement_key());
    assert_eq!(
        CellKeyring::verify(&root.public(), &signed),
        Err(CellError::Signature)
    );
}

/// Names that no resolver answers for and that stay when the cell gets another address: docs/formats/cell.md, log.md.
#[test]
fn a_cell_and_its_logs_are_named_by_its_id() {
    let cell = CellId::from_bytes([0xc0; 16]);
    let id = "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0";
    assert_eq!(authority(&cell), format!("{id}.cell.invalid"));
    assert_eq!(log_origin(&cell), format!("{id}.cell.invalid/log"));
    let origin = |log_number| {
        let keys = CellKeys {
            cell,
            log_number,
            ..cell_keys()
        };
        keys.log_origin()
    };
    assert_eq!(origin(None), format!("{id}.cell.invalid/log"));
    assert_eq!(origin(Some(2)), format!("{id}.cell.invalid/log/2"));
}

/// Whoever reads a cell's database cannot use a right that is stored there.
#[test]
fn a_right_is_stored_as_its_hash() {
    let stored = InvitationRight([0x1f; 16]).stored_hash();
    assert_eq!(to_hex(&stored), STORED_RIGHT);
}

/// BLAKE3 in key-derivation mode (docs/formats/cell.md) over 16 bytes of 0x1f, by another program.
const STORED_RIGHT: &str = "da297a032a51b770690d70101eae91a4c3668b77851fdbc53831999bdc978774";

fn acknowledgement() -> Acknowledgement {
    Acknowledgement {
        version: CELL_FORMAT_VERSION,
        cell: cell(),
        serial: 1,
        account: ACCOUNT,
        sequence: 4,
        link: Link::from_bytes([6; 32]),
        statement: StatementId::from_bytes([7; 32]),
        time: NOW,
    }
}

#[test]
fn an_acknowledgement_is_this_cells_and_of_this_version() {
    let check = |ack: &Acknowledgement, key: &Ed25519Secret| {
        keyring().check(&SignedAcknowledgement::sign(ack, key))
    };
    let key = acknowledgement_key();
    assert_eq!(check(&acknowledgement(), &key), Ok(acknowledgement()));
    for wrong in [
        Acknowledgement {
            version: CELL_FORMAT_VERSION + 1,
            ..acknowledgement()
        },
        Acknowledgement {
            cell: CellId::from_bytes([1; 16]),
            ..acknowledgement()
        },
        Acknowledgement {
            serial: 2,
            ..acknowledgement()
        },
    ] {
        assert_eq!(
            check(&wrong, &key),
            Err(CellError::Acknowledgement),
            "{wrong:?}"
        );
    }
    assert_eq!(
        check(&acknowledgement(), &cell_root()),
        Err(CellError::Acknowledgement)
    );
}

/// A key is good for the acknowledgements of its own generation and for no other's.
#[test]
fn an_acknowledgement_is_checked_with_the_generation_that_it_names() {
    let newer = Ed25519Secret::from_seed(&[0xad; 32]);
    let second = CellKeys {
        acknowledgement: newer.public(),
        ..generation(2)
    };
    let keyring = verified(&[generation(1), second]).unwrap();
    for (serial, key, good) in [
        (1, &acknowledgement_key(), true),
        (2, &newer, true),
        (1, &newer, false),
        (2, &acknowledgement_key(), false),
        (3, &newer, false),
    ] {
        let ack = Acknowledgement {
            serial,
            ..acknowledgement()
        };
        let expected = good.then(|| ack.clone()).ok_or(CellError::Acknowledgement);
        assert_eq!(
            keyring.check(&SignedAcknowledgement::sign(&ack, key)),
            expected,
            "generation {serial}"
        );
    }
    let mut unreadable = SignedAcknowledgement::sign(&acknowledgement(), &newer);
    unreadable.acknowledgement.push(0);
    assert_eq!(
        keyring.check(&unreadable),
        Err(CellError::Codec(cbor::CodecError::Malformed {
            what: "an acknowledgement"
        }))
    );
}
