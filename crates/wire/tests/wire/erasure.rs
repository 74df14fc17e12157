//! Erasures: who may ask for one, what it ends, and what a cell's word about it is worth.

use candor_testkit::sample::*;
use candor_wire::chain::{AccountView, CHAIN_MAX_ENTRIES, ChainError, RECORD_VERSION, Record};
use candor_wire::erasure::{
    ACCOUNT_ERASURE_DAYS, ERASURE_VERSION, Erasure, ErasureAsked, ErasureCancelled, SignedErasure,
    due, log_label, receipt_name,
};
use candor_wire::ids::{CellId, DeviceId, Salt, StatementId, VaultId};
use candor_wire::sign::Ed25519Secret;
use candor_wire::statement::{Body, Kind, Role, link};
use candor_wire::time::DAY_MS;

pub(crate) fn asked(vault: Option<VaultId>) -> ErasureAsked {
    ErasureAsked {
        version: ERASURE_VERSION,
        vault,
    }
}

pub(crate) fn cancelled() -> ErasureCancelled {
    ErasureCancelled {
        version: ERASURE_VERSION,
        asked: StatementId::from_bytes([0x99; 32]),
    }
}

pub(crate) fn erasure() -> Erasure {
    Erasure {
        version: ERASURE_VERSION,
        cell: cell(),
        serial: 1,
        account: ACCOUNT,
        vault: Some(VAULT),
        asked: StatementId::from_bytes([0x99; 32]),
        asked_at: NOW,
        erased_at: NOW.plus_ms(30 * DAY_MS),
        objects: 12,
        bytes: 12 * 65_536,
        consents: 1,
    }
}

/// A family whose laptop and phone consented, the phone being write-only.
fn consented() -> Grower {
    let mut grower = family();
    grower
        .push(Some(LAPTOP), &laptop(), consent(LAPTOP))
        .push(
            Some(LAPTOP),
            &laptop(),
            added(PHONE, Role::WriteOnly, &phone()),
        )
        .push(Some(PHONE), &phone(), consent(PHONE));
    grower
}

fn live(view: &AccountView) -> usize {
    let consents = view.consents();
    let live = consents.iter().filter(|(_, one)| one.withdrawn.is_none());
    live.count()
}

/// What applying one more statement comes to; a refusal changes nothing.
fn outcome(
    grower: &Grower,
    signer: Option<candor_wire::DeviceId>,
    body: Body,
) -> Result<(), ChainError> {
    let key = match signer {
        None => root(),
        Some(PHONE) => phone(),
        Some(_) => laptop(),
    };
    let (record, _) = grower.draft(signer, &key, body);
    let mut view = grower.view();
    let before = view.clone();
    let applied = view.apply(&record, &keyring());
    if applied.is_err() {
        assert_eq!(view, before);
    }
    applied
}

#[test]
fn asking_ends_every_consent_for_it_and_lets_none_begin() {
    for vault in [Some(VAULT), None] {
        let mut grower = consented();
        assert_eq!(live(&grower.view()), 2);
        grower.push(Some(LAPTOP), &laptop(), Body::ErasureAsked(asked(vault)));
        let view = grower.view();
        assert_eq!(live(&view), 0);
        let (id, entry) = view.erasure_of(Some(&VAULT)).unwrap();
        assert_eq!((entry.vault, entry.device), (vault, Some(LAPTOP)));
        assert_eq!(entry.acknowledged, Some(NOW.plus_ms(5)));
        assert_eq!(view.erasure_of(None).is_some(), vault.is_none());
        let other = VaultId::from_bytes([7; 16]);
        assert_eq!(view.erasure_of(Some(&other)).is_some(), vault.is_none());
        for again in [consent(LAPTOP), Body::ErasureAsked(asked(Some(VAULT)))] {
            let refused = outcome(&grower, Some(LAPTOP), again).unwrap_err();
            assert!(matches!(refused, ChainError::Contradiction { .. }));
        }
        // Taken back, a new consent may be given; the old ones stay ended.
        let cancel = ErasureCancelled {
            version: ERASURE_VERSION,
            asked: id,
        };
        grower.push(
            Some(LAPTOP),
            &laptop(),
            Body::ErasureCancelled(cancel.clone()),
        );
        assert_eq!(live(&grower.view()), 0);
        assert!(grower.view().erasure_of(Some(&VAULT)).is_none());
        assert_eq!(outcome(&grower, Some(LAPTOP), consent(LAPTOP)), Ok(()));
        let twice = outcome(&grower, Some(LAPTOP), Body::ErasureCancelled(cancel));
        assert!(matches!(
            twice.unwrap_err(),
            ChainError::Contradiction { .. }
        ));
    }
}

#[test]
fn all_that_was_ever_asked_for_is_listed_in_its_order() {
    let mut grower = consented();
    let mut expected = Vec::new();
    for vault in [Some(VAULT), None, Some(VAULT), None] {
        let sequence = grower.records.len() as u64;
        grower.push(Some(LAPTOP), &laptop(), Body::ErasureAsked(asked(vault)));
        let id = grower.records.last().unwrap().commitment;
        expected.push((id, sequence, vault));
        let cancel = ErasureCancelled {
            version: ERASURE_VERSION,
            asked: id,
        };
        grower.push(Some(LAPTOP), &laptop(), Body::ErasureCancelled(cancel));
    }
    let view = grower.view();
    let listed: Vec<_> = view
        .erasures()
        .into_iter()
        .map(|(id, entry)| (id, entry.sequence, entry.vault))
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn a21_a_write_only_device_has_nothing_erased() {
    let mut grower = consented();
    for body in [
        Body::ErasureAsked(asked(Some(VAULT))),
        Body::ErasureAsked(asked(None)),
    ] {
        let refused = outcome(&grower, Some(PHONE), body).unwrap_err();
        assert!(matches!(refused, ChainError::Role { .. }), "{refused:?}");
    }
    grower.push(Some(LAPTOP), &laptop(), Body::ErasureAsked(asked(None)));
    let (id, _) = grower.view().erasure_of(None).unwrap();
    let cancel = Body::ErasureCancelled(ErasureCancelled {
        version: ERASURE_VERSION,
        asked: id,
    });
    let refused = outcome(&grower, Some(PHONE), cancel.clone()).unwrap_err();
    assert!(matches!(refused, ChainError::Role { .. }), "{refused:?}");
    assert_eq!(outcome(&grower, None, cancel), Ok(()), "the root keeps it");
}

/// Somebody with a stolen device fills the chain and asks for the erasure in the last place that is left.
#[test]
fn a21_a_full_chain_still_takes_an_erasure_back() {
    let mut grower = consented();
    let stub = |sequence| Record {
        version: RECORD_VERSION,
        sequence,
        kind: Kind::ConsentGiven,
        commitment: StatementId::from_bytes([5; 32]),
        statement: None,
        acknowledgement: None,
    };
    // So many are kept, by docs/formats/statements.md.
    let last = CHAIN_MAX_ENTRIES - 1_089 - 1;
    while (grower.records.len() as u64) < last {
        let next = stub(grower.records.len() as u64);
        grower.tip = link(
            next.sequence,
            next.kind.code(),
            &grower.tip,
            &next.commitment,
        );
        grower.records.push(next);
    }
    grower.push(Some(LAPTOP), &laptop(), Body::ErasureAsked(asked(None)));
    for body in [
        consent(LAPTOP),
        Body::ErasureAsked(asked(Some(VAULT))),
        added(DeviceId::from_bytes([0xd9; 16]), Role::Full, &laptop()),
    ] {
        let refused = outcome(&grower, Some(LAPTOP), body).unwrap_err();
        assert!(matches!(refused, ChainError::Limit { .. }), "{refused:?}");
    }
    let (id, _) = grower.view().erasure_of(None).unwrap();
    let cancel = Body::ErasureCancelled(ErasureCancelled {
        version: ERASURE_VERSION,
        asked: id,
    });
    assert_eq!(outcome(&grower, Some(LAPTOP), cancel), Ok(()));
}

#[test]
fn what_is_asked_for_exists_and_is_of_this_version() {
    let grower = consented();
    let root_asks = outcome(&grower, None, Body::ErasureAsked(asked(None)));
    assert_eq!(root_asks, Ok(()));
    let of_vault = outcome(&grower, None, Body::ErasureAsked(asked(Some(VAULT))));
    assert!(matches!(of_vault.unwrap_err(), ChainError::Role { .. }));
    let newer = ErasureAsked {
        version: ERASURE_VERSION + 1,
        vault: None,
    };
    let unknown = asked(Some(VaultId::from_bytes([7; 16])));
    for body in [
        Body::ErasureAsked(newer),
        Body::ErasureAsked(unknown),
        Body::ErasureCancelled(cancelled()),
    ] {
        let refused = outcome(&grower, Some(LAPTOP), body).unwrap_err();
        assert!(matches!(refused, ChainError::Contradiction { .. }));
    }
}

#[test]
fn a_statement_about_an_erasure_is_never_erased_itself() {
    let mut grower = consented();
    grower.push(Some(LAPTOP), &laptop(), Body::ErasureAsked(asked(None)));
    grower.records.last_mut().unwrap().statement = None;
    let refused = AccountView::of(ACCOUNT, &grower.records, &keyring()).unwrap_err();
    assert!(matches!(refused, ChainError::NotErasable { .. }));
}

#[test]
fn a_cells_word_is_checked() {
    let said = erasure();
    let signed = SignedErasure::sign(&said, &acknowledgement_key());
    assert_eq!(signed.verify(&keyring()).unwrap(), said);
    let by_another = SignedErasure::sign(&said, &Ed25519Secret::from_seed(&[9; 32]));
    assert!(by_another.verify(&keyring()).is_err());
    for change in [
        |said: &mut Erasure| said.version += 1,
        |said: &mut Erasure| said.serial += 1,
        |said: &mut Erasure| said.cell = CellId::from_bytes([1; 16]),
    ] {
        let mut other = said.clone();
        change(&mut other);
        let signed = SignedErasure::sign(&other, &acknowledgement_key());
        assert!(signed.verify(&keyring()).is_err(), "{other:?}");
    }
    let mut altered = signed.clone();
    *altered.erasure.last_mut().unwrap() ^= 1;
    assert!(altered.verify(&keyring()).is_err());
}

#[test]
fn names_and_labels_follow_from_salts() {
    let salts = [1, 2].map(|byte| Salt::from_bytes([byte; 32]));
    let signed = SignedErasure::sign(&erasure(), &acknowledgement_key());
    let all: std::collections::BTreeSet<[u8; 32]> = salts
        .iter()
        .flat_map(|salt| {
            [
                receipt_name(salt),
                *log_label(salt).as_bytes(),
                *signed.commitment(salt).as_bytes(),
            ]
        })
        .collect();
    assert_eq!(all.len(), 6);
    assert_eq!(
        candor_wire::ids::to_hex(&receipt_name(&salts[0])),
        RECEIPT_NAME
    );
    assert_eq!(
        candor_wire::ids::to_hex(log_label(&salts[0]).as_bytes()),
        LOG_LABEL
    );
}

/// HMAC-SHA256 under 32 bytes of 1, of the two labels (docs/formats/erasure.md), by another program.
const RECEIPT_NAME: &str = "ff3d92dd0b43888803e5dbbf9ff580d53d0ffcf1aa666138227e5079d18840e5";
const LOG_LABEL: &str = "e8d17879476f028ffa5d966c0b1b1d9625a6b99b8846dfcd850eab913fe705c9";

#[test]
fn an_account_goes_after_a_week_or_sooner() {
    let days = |vault: Option<VaultId>, retention| {
        (due(NOW, vault.as_ref(), retention).0 - NOW.0) / DAY_MS
    };
    assert_eq!(days(Some(VAULT), 30), 30);
    assert_eq!(days(None, 30), i64::from(ACCOUNT_ERASURE_DAYS));
    assert_eq!(days(None, 1), 1);
}
