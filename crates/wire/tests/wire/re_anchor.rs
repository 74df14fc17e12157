//! Accepting an older state: who may, and what it has to say.

use candor_testkit::sample::*;
use candor_wire::VaultId;
use candor_wire::chain::ChainError;
use candor_wire::head::HeadHash;
use candor_wire::ids::Link;
use candor_wire::re_anchor::{
    ChainPoint, HeadChange, HeadPoint, LogPoint, RE_ANCHOR_VERSION, ReAnchor,
};
use candor_wire::statement::{Body, Role};

/// Accepts the state that `grower` is in.
pub(crate) fn sample(grower: &Grower) -> ReAnchor {
    let log = |size| LogPoint {
        origin: "c0c0.cell.invalid/log".to_owned(),
        size,
        root: [7; 32],
    };
    let view = grower.view();
    ReAnchor {
        version: RE_ANCHOR_VERSION,
        chain_before: ChainPoint {
            sequence: 40,
            link: Link::from_bytes([4; 32]),
        },
        chain_now: ChainPoint {
            sequence: view.next_sequence() - 1,
            link: view.tip(),
        },
        heads: vec![HeadChange {
            vault: VAULT,
            before: HeadPoint {
                counter: 9,
                hash: HeadHash([9; 32]),
            },
            now: Some(HeadPoint {
                counter: 7,
                hash: HeadHash([8; 32]),
            }),
        }],
        log_before: Some(log(100)),
        log_now: None,
    }
}

fn outcome(
    grower: &Grower,
    signer: Option<candor_wire::DeviceId>,
    body: ReAnchor,
) -> Result<(), ChainError> {
    let key = if signer == Some(PHONE) {
        phone()
    } else if signer.is_some() {
        laptop()
    } else {
        root()
    };
    let (record, _) = grower.draft(signer, &key, Body::ReAnchored(Box::new(body)));
    let mut view = grower.view();
    let before = view.clone();
    let applied = view.apply(&record, &keyring());
    if applied.is_err() {
        assert_eq!(view, before);
    }
    applied
}

#[test]
fn a_full_device_accepts_what_is_before_it() {
    let grower = family();
    assert_eq!(outcome(&grower, Some(LAPTOP), sample(&grower)), Ok(()));
    let mut nothing_lost = sample(&grower);
    nothing_lost.heads.clear();
    nothing_lost.log_before = None;
    assert_eq!(outcome(&grower, Some(LAPTOP), nothing_lost), Ok(()));
}

#[test]
fn it_names_vaults_in_their_order() {
    let grower = family();
    let naming = |vaults: [u8; 2]| {
        let mut body = sample(&grower);
        let change = body.heads[0];
        let changes = vaults.map(|vault| HeadChange {
            vault: VaultId::from_bytes([vault; 16]),
            ..change
        });
        body.heads = changes.to_vec();
        outcome(&grower, Some(LAPTOP), body)
    };
    assert_eq!(naming([1, 2]), Ok(()));
    for refused in [naming([2, 1]), naming([2, 2])] {
        assert!(
            matches!(refused, Err(ChainError::Contradiction { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn nobody_else_accepts_it() {
    let mut grower = family();
    grower.push(
        Some(LAPTOP),
        &laptop(),
        added(PHONE, Role::WriteOnly, &phone()),
    );
    for signer in [None, Some(PHONE)] {
        let refused = outcome(&grower, signer, sample(&grower)).unwrap_err();
        assert!(matches!(refused, ChainError::Role { .. }), "{refused:?}");
    }
}

#[test]
fn it_names_the_entry_before_it_and_only_older_heads() {
    let grower = family();
    let change = |change: fn(&mut ReAnchor)| {
        let mut body = sample(&grower);
        change(&mut body);
        outcome(&grower, Some(LAPTOP), body).unwrap_err()
    };
    let refused = [
        change(|body| body.version += 1),
        change(|body| body.chain_now.sequence -= 1),
        change(|body| body.chain_now.link = Link::from_bytes([1; 32])),
        change(|body| body.heads.push(body.heads[0])),
        change(|body| body.heads[0].now = Some(body.heads[0].before)),
        change(|body| body.heads[0].before.counter = 6),
    ];
    for refused in refused {
        assert!(
            matches!(refused, ChainError::Contradiction { .. }),
            "{refused:?}"
        );
    }
}
