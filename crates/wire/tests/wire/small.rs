//! Errands, heads, invitations, domains and the API table.

use std::collections::BTreeSet;

use base64::Engine as _;
use candor_wire::api::{BodyKind, Caller, ENDPOINTS, EndpointId, endpoint};
use candor_wire::cbor::{self, Canonical as _, CodecError};
use candor_wire::cell::{
    ADDRESS_MAX_BYTES, CellError, CellKeyring, INVITATION_ADDRESSES_MAX, Invitation,
    InvitationError, InvitationRight, SignedCellKeys,
};
use candor_wire::errand::{ERRAND_VERSION, ErrandError, ErrandToken, Purpose, SignedErrand};
use candor_wire::head::{
    CONDEMNED_MAX, ENCAPSULATED_BYTES, HEAD_VERSION, Head, HeadError, HeadHash, RUN_KEYS_MAX,
    RUN_SECRETS_SEALED_BYTES, RunKey, SignedHead,
};
use candor_wire::ids::{AccountId, CellId, ObjectId, RequestNonce, VaultId};
use candor_wire::limits::ERRAND_MAX_MS;
use candor_wire::sign::{BadSignature, Domain, Ed25519Public, Ed25519Secret, Ed25519Signature};

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

/// A root that recovers does not know its account yet, and a link's key belongs to none.
#[test]
fn only_who_recovers_or_joins_names_nobody() {
    let laptop = laptop();
    let verify = |purpose, account, signer| {
        let token = ErrandToken {
            purpose,
            account,
            signer,
            ..token()
        };
        let signed = SignedErrand::sign(&token, laptop.ed25519());
        let key = laptop.ed25519().public();
        signed.verify(&key, &cell(), NOW, 0).map(drop)
    };
    for purpose in Purpose::ALL {
        let recovers = purpose == Purpose::Recover;
        let joins = purpose == Purpose::Join;
        for (account, signer, may) in [
            (Some(ACCOUNT), Some(LAPTOP), true),
            (Some(ACCOUNT), None, recovers),
            (None, Some(LAPTOP), recovers),
            (None, None, recovers || joins),
        ] {
            let expected = if may { Ok(()) } else { Err(ErrandError::Place) };
            assert_eq!(
                verify(purpose, account, signer),
                expected,
                "{purpose:?} {account:?} {signer:?}"
            );
        }
    }
}

#[test]
fn an_errand_s_times_are_exact() {
    let laptop = laptop();
    let (key, skew_ms) = (laptop.ed25519().public(), 1_000);
    let lasting = |ms| ErrandToken {
        expires: NOW.plus_ms(ms),
        ..token()
    };
    let at = |token: &ErrandToken, now| {
        let signed = SignedErrand::sign(token, laptop.ed25519());
        signed.verify(&key, &cell(), now, skew_ms).map(|_| ())
    };
    let over = Err(ErrandError::Time);
    assert_eq!(at(&lasting(-1), NOW), over);
    assert_eq!(at(&lasting(0), NOW), over);
    assert_eq!(at(&lasting(1), NOW), Ok(()));
    assert_eq!(at(&lasting(ERRAND_MAX_MS), NOW), Ok(()));
    assert_eq!(at(&token(), NOW.plus_ms(-skew_ms)), Ok(()));
    assert_eq!(at(&token(), NOW.plus_ms(-skew_ms - 1)), over);
    let end = token().expires;
    assert_eq!(at(&token(), end.plus_ms(skew_ms - 1)), Ok(()));
    assert_eq!(at(&token(), end.plus_ms(skew_ms)), over);
}

#[test]
fn encodings_have_a_longest_length() {
    let most = ErrandToken::MAX_BYTES;
    let what = ErrandToken::WHAT;
    assert_eq!(
        cbor::decode::<ErrandToken>(&vec![0; most + 1]),
        Err(CodecError::TooLong {
            what,
            bytes: most + 1,
            limit_bytes: most
        })
    );
    assert_eq!(
        cbor::decode::<ErrandToken>(&vec![0; most]),
        Err(CodecError::Malformed { what })
    );
    // The text is refused before it is decoded. Up to there it is decoded, and then refused for what it holds.
    let what = SignedErrand::WHAT;
    let read = |letters| SignedErrand::from_text(&"A".repeat(letters));
    let decoded = CodecError::TooLong {
        what,
        bytes: 576,
        limit_bytes: 384,
    };
    assert_eq!(read(768), Err(ErrandError::Codec(decoded)));
    let undecoded = CodecError::Malformed { what };
    assert_eq!(read(772), Err(ErrandError::Codec(undecoded)));
}

/// A key of small order, the point 1 of the curve: with R the same point and S zero, a lenient check
/// accepts every message.
#[test]
fn a_key_of_small_order_signs_nothing() {
    let mut one = [0; 32];
    one[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let (key, signature) = (
        Ed25519Public::from_bytes(one),
        Ed25519Signature::from_bytes(signature),
    );
    for message in [&b""[..], b"every", b"message"] {
        assert_eq!(key.verify_raw(message, &signature), Err(BadSignature));
        assert_eq!(
            key.verify(Domain::ERRAND, message, &signature),
            Err(BadSignature)
        );
    }
}

/// S and S plus the order of the group are the same number; only the smaller is a signature.
#[test]
fn a_signature_has_one_spelling() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let key = cell_root();
    let good = key.sign_raw(b"message");
    assert_eq!(key.public().verify_raw(b"message", &good), Ok(()));
    let (mut bytes, mut carry) = (*good.as_bytes(), 0);
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    assert_eq!(carry, 0);
    let again = Ed25519Signature::from_bytes(bytes);
    assert_eq!(
        key.public().verify_raw(b"message", &again),
        Err(BadSignature)
    );
}

/// A run: the second head of a write-only device's vault, which brings its own key and that of a run before.
pub(crate) fn run_head() -> Head {
    let run = |number| RunKey {
        number,
        epoch: 1,
        encapsulated: vec![0x0e; ENCAPSULATED_BYTES],
        sealed: vec![0x0d; RUN_SECRETS_SEALED_BYTES],
    };
    Head {
        epoch: 3,
        runs: Some(vec![run(3), run(2)]),
        ..head()
    }
}

#[test]
fn runs_have_one_shape() {
    let verify = |head: &Head| {
        let signed = SignedHead::sign(head, laptop().ed25519());
        signed.verify(&ACCOUNT, &VAULT, |_| Some(laptop().ed25519().public()))
    };
    assert_eq!(verify(&run_head()).unwrap(), run_head());
    let refused = |change: fn(&mut Head)| {
        let mut head = run_head();
        change(&mut head);
        let error = verify(&head).unwrap_err();
        assert!(matches!(error, HeadError::Place), "{error:?}");
    };
    refused(|head| head.runs = Some(Vec::new()));
    refused(|head| head.epoch = 2);
    refused(|head| head.condemned.push(ObjectId::from_bytes([1; 32])));
    refused(|head| head.runs.as_mut().unwrap().swap(0, 1));
    refused(|head| head.runs.as_mut().unwrap()[1].number = 3);
    refused(|head| head.runs.as_mut().unwrap()[1].number = 0);
    refused(|head| head.runs.as_mut().unwrap()[1].epoch = 0);
    refused(|head| head.runs.as_mut().unwrap()[0].sealed.truncate(79));
    refused(|head| head.runs.as_mut().unwrap()[0].encapsulated.push(0));
    refused(|head| {
        let first = head.runs.as_ref().unwrap()[0].clone();
        head.epoch = 100;
        let many = (0..=RUN_KEYS_MAX as u32).map(|less| RunKey {
            number: 100 - less,
            ..first.clone()
        });
        head.runs = Some(many.collect());
    });
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
        runs: None,
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

#[test]
fn a_head_is_of_one_account_and_condemns_so_much() {
    let laptop = laptop();
    let key = laptop.ed25519().public();
    let verify = |head: &Head, account| {
        let signed = SignedHead::sign(head, laptop.ed25519());
        signed
            .verify(&account, &VAULT, |_| Some(key))
            .map(|head| head.condemned.len())
    };
    let other = AccountId::from_bytes([0xa2; 16]);
    assert_eq!(verify(&head(), other), Err(HeadError::Place));
    let numbered = |number: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        ObjectId::from_bytes(bytes)
    };
    let condemning = |count| Head {
        condemned: (0..count).map(numbered).collect(),
        ..head()
    };
    assert_eq!(
        verify(&condemning(CONDEMNED_MAX), ACCOUNT),
        Ok(CONDEMNED_MAX)
    );
    assert_eq!(
        verify(&condemning(CONDEMNED_MAX + 1), ACCOUNT),
        Err(HeadError::Place)
    );
    // Ascending, each once, and not the manifest.
    let manifest = head().manifest;
    for condemned in [
        vec![numbered(2), numbered(1)],
        vec![numbered(1), numbered(1)],
        vec![numbered(1), manifest],
    ] {
        let broken = Head {
            condemned,
            ..head()
        };
        assert_eq!(verify(&broken, ACCOUNT), Err(HeadError::Place));
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
fn an_invitation_s_content_has_bounds() {
    let read = |change: &dyn Fn(&mut Invitation)| {
        let mut invitation = invitation();
        change(&mut invitation);
        Invitation::from_text(&invitation.to_text()).map(|_| ())
    };
    let address = |bytes: usize| vec!["a".repeat(bytes)];
    let most = INVITATION_ADDRESSES_MAX;
    assert_eq!(read(&|i| i.addresses = vec![]), Ok(()));
    assert_eq!(read(&|i| i.addresses = address(ADDRESS_MAX_BYTES)), Ok(()));
    assert_eq!(read(&|i| i.addresses = vec!["a:1".into(); most]), Ok(()));
    let bad: [&dyn Fn(&mut Invitation); 4] = [
        &|i| i.version += 1,
        &|i| i.addresses = address(0),
        &|i| i.addresses = address(ADDRESS_MAX_BYTES + 1),
        &|i| i.addresses = vec!["a:1".into(); most + 1],
    ];
    for change in bad {
        assert_eq!(read(change), Err(InvitationError::Content));
    }
    // A text beyond every length is refused before it is decoded.
    let mut long = vec![0; 6_200];
    let check = *blake3::hash(&long).as_bytes();
    long.extend_from_slice(&check[..4]);
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&long);
    assert_eq!(
        Invitation::from_text(&format!("candor1:{encoded}")),
        Err(InvitationError::Damaged)
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
