//! Errands, heads, invitations, domains and the API table.

use std::collections::BTreeSet;

use candor_wire::api::{BodyKind, Caller, ENDPOINTS, EndpointId, endpoint};
use candor_wire::cell::{
    CellError, CellKeyring, Invitation, InvitationError, InvitationRight, SignedCellKeys,
};
use candor_wire::errand::{ERRAND_VERSION, ErrandError, ErrandToken, Purpose, SignedErrand};
use candor_wire::head::{HEAD_VERSION, Head, HeadError, HeadHash, SignedHead};
use candor_wire::ids::{CellId, ObjectId, RequestNonce, VaultId};
use candor_wire::limits::ERRAND_MAX_MS;
use candor_wire::sign::{Domain, Ed25519Secret};

use candor_testkit::sample::*;

pub(crate) fn token() -> ErrandToken {
    ErrandToken {
        version: ERRAND_VERSION,
        account: Some(ACCOUNT),
        signer: Some(LAPTOP),
        purpose: Purpose::Restore,
        cell: cell(),
        created: NOW,
        expires: NOW.plus_ms(60_000),
        nonce: RequestNonce::from_bytes([0x4e; 16]),
    }
}

#[test]
fn an_errand_is_for_one_key_cell_and_time() {
    let laptop = laptop();
    let key = laptop.ed25519().public();
    let sign = |token: &ErrandToken| SignedErrand::sign(token, laptop.ed25519());
    let good = sign(&token());
    assert_eq!(good.verify(&key, &cell(), NOW, 1_000), Ok(token()));
    assert_eq!(SignedErrand::from_text(&good.to_text()), Ok(good.clone()));

    let other = phone().ed25519().public();
    assert_eq!(
        good.verify(&other, &cell(), NOW, 1_000),
        Err(ErrandError::Signature)
    );
    let elsewhere = CellId::from_bytes([1; 16]);
    assert_eq!(
        good.verify(&key, &elsewhere, NOW, 1_000),
        Err(ErrandError::Place)
    );
    assert_eq!(
        good.verify(&key, &cell(), NOW.plus_ms(61_000), 1_000),
        Err(ErrandError::Time)
    );
    assert_eq!(
        good.verify(&key, &cell(), NOW.plus_ms(-1_001), 1_000),
        Err(ErrandError::Time)
    );

    let endless = ErrandToken {
        expires: NOW.plus_ms(ERRAND_MAX_MS + 1),
        ..token()
    };
    assert_eq!(
        sign(&endless).verify(&key, &cell(), NOW, 1_000),
        Err(ErrandError::Time)
    );
    let nobodys = ErrandToken {
        account: None,
        ..token()
    };
    assert_eq!(
        sign(&nobodys).verify(&key, &cell(), NOW, 1_000),
        Err(ErrandError::Place)
    );
    let roots = ErrandToken {
        signer: None,
        ..token()
    };
    assert_eq!(
        sign(&roots).verify(&key, &cell(), NOW, 1_000),
        Err(ErrandError::Place)
    );
    let old = ErrandToken {
        version: 0,
        ..token()
    };
    assert_eq!(
        sign(&old).verify(&key, &cell(), NOW, 1_000),
        Err(ErrandError::Place)
    );
}

pub(crate) fn head() -> Head {
    Head {
        version: HEAD_VERSION,
        account: ACCOUNT,
        vault: VAULT,
        counter: 2,
        previous: Some(HeadHash([0x0f; 32])),
        manifest: ObjectId::from_bytes([0x3a; 32]),
        epoch: 1,
        device: LAPTOP,
        time: NOW,
        condemned: Vec::new(),
    }
}

#[test]
fn a_head_is_of_one_vault_and_one_device() {
    let laptop = laptop();
    let key = laptop.ed25519().public();
    let sign = |head: &Head| SignedHead::sign(head, laptop.ed25519());
    let key_of = |device: &_| (*device == LAPTOP).then_some(key);
    assert_eq!(sign(&head()).verify(&ACCOUNT, &VAULT, key_of), Ok(head()));
    let elsewhere = VaultId::from_bytes([1; 16]);
    assert_eq!(
        sign(&head()).verify(&ACCOUNT, &elsewhere, key_of),
        Err(HeadError::Place)
    );
    assert_eq!(
        sign(&head()).verify(&ACCOUNT, &VAULT, |_| None),
        Err(HeadError::Signature)
    );
    let by_another = SignedHead::sign(&head(), phone().ed25519());
    assert_eq!(
        by_another.verify(&ACCOUNT, &VAULT, key_of),
        Err(HeadError::Signature)
    );
    for broken in [
        Head {
            version: 0,
            ..head()
        },
        Head {
            counter: 0,
            ..head()
        },
        Head {
            counter: 1,
            ..head()
        },
        Head {
            previous: None,
            ..head()
        },
        Head { epoch: 0, ..head() },
    ] {
        assert_eq!(
            sign(&broken).verify(&ACCOUNT, &VAULT, key_of),
            Err(HeadError::Place)
        );
    }
}

pub(crate) fn invitation() -> Invitation {
    Invitation {
        version: 1,
        root: cell_root().public(),
        addresses: vec!["cell.example:8443".to_owned()],
        right: Some(InvitationRight([0x1f; 16])),
    }
}

#[test]
fn an_invitation_survives_copying_and_notices_damage() {
    let text = invitation().to_text();
    assert_eq!(
        Invitation::from_text(&format!("  {text}\n")),
        Ok(invitation())
    );
    assert_eq!(
        Invitation::from_text("https://cell.example"),
        Err(InvitationError::Prefix)
    );
    for cut in 8..text.len() {
        assert!(Invitation::from_text(&text[..cut]).is_err(), "cut at {cut}");
    }
    let body = text.strip_prefix("candor1:").unwrap();
    for (i, c) in body.char_indices() {
        let replacement = if c == 'A' { 'B' } else { 'A' };
        let mut changed = body.to_owned();
        changed.replace_range(i..=i, &replacement.to_string());
        assert!(
            Invitation::from_text(&format!("candor1:{changed}")).is_err(),
            "changed at {i}"
        );
    }
    assert!(
        !format!("{:?}", invitation()).contains("1f1f"),
        "the right must not be printed"
    );
}

#[test]
fn a_cells_keys_are_signed_by_the_pinned_root() {
    let root = cell_root();
    let signed = SignedCellKeys::sign(&cell_keys(), &root);
    assert!(CellKeyring::verify(&root.public(), std::slice::from_ref(&signed)).is_ok());
    let other = Ed25519Secret::from_seed(&[1; 32]);
    assert_eq!(
        CellKeyring::verify(&other.public(), std::slice::from_ref(&signed)),
        Err(CellError::Signature)
    );
    // The same generation twice, and a description of another cell under the right signature.
    assert_eq!(
        CellKeyring::verify(&root.public(), &[signed.clone(), signed.clone()]),
        Err(CellError::Contradiction)
    );
    let mut foreign = cell_keys();
    foreign.cell = CellId::from_bytes([1; 16]);
    assert_eq!(
        CellKeyring::verify(&root.public(), &[SignedCellKeys::sign(&foreign, &root)]),
        Err(CellError::Contradiction)
    );
    assert_eq!(
        CellKeyring::verify(&root.public(), &[]),
        Err(CellError::Contradiction)
    );
}

#[test]
fn domains_never_overlap() {
    let messages: BTreeSet<_> = Domain::ALL
        .iter()
        .map(|domain| domain.message(b"x"))
        .collect();
    assert_eq!(messages.len(), Domain::ALL.len());
    for a in Domain::ALL {
        for b in Domain::ALL {
            let extends = a != b && b.message(b"").starts_with(&a.message(b""));
            assert!(!extends, "{a:?} is a prefix of {b:?}");
        }
    }
}

#[test]
fn the_api_table_is_sound() {
    let mut seen = BTreeSet::new();
    for row in ENDPOINTS {
        assert!(
            seen.insert((row.method, row.path)),
            "{} {} is there twice",
            row.method.name(),
            row.path
        );
        assert_eq!(endpoint(row.id).path, row.path);
        match row.caller {
            Caller::Anybody => assert!(row.grants.is_empty() && row.errands.is_empty()),
            _ => assert!(!row.grants.is_empty() || !row.errands.is_empty()),
        }
        // What writes vault data takes a grant; no errand opens it.
        if matches!(row.id, EndpointId::PutObject | EndpointId::SwapHead) {
            assert!(row.errands.is_empty() && !row.grants.is_empty());
        }
        assert!(row.request != BodyKind::Object || row.id == EndpointId::PutObject);
    }
}

/// Rows 24 and 25: no endpoint takes a password, so there is no verifier to steal and no login to ask.
#[test]
fn a24_no_endpoint_takes_a_password() {
    let words = [
        "password", "login", "session", "verifier", "opaque", "token",
    ];
    for row in ENDPOINTS {
        let text = format!("{} {:?} {:?}", row.path, row.request, row.reply).to_lowercase();
        assert!(words.iter().all(|word| !text.contains(word)), "{text}");
    }
}
