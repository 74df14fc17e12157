//! Linking: the code's text, and the digits.

use candor_testkit::memory::copy_from;
use candor_testkit::sample::*;
use candor_wire::cell::{Invitation, InvitationRight};
use candor_wire::ids::Link;
use candor_wire::linking::{
    GivenVault, JoinRequest, LINKING_VERSION, LinkCode, LinkCodeError, LinkPlace, LinkSecret,
    SignedVerdict, Transcript, Verdict, WriterGift, commitment, digits,
};
use candor_wire::statement::Role;

pub(crate) fn code() -> LinkCode {
    LinkCode {
        version: LINKING_VERSION,
        cell: Invitation {
            version: 1,
            root: cell_root().public(),
            addresses: vec!["cell.example:7946".to_owned()],
            right: None,
        },
        account: ACCOUNT,
        secret: LinkSecret::from_bytes([0x5e; 32]),
        chain_length: 7,
        chain_tip: Link::from_bytes([0x11; 32]),
        expires: NOW,
        role: Role::Full,
    }
}

pub(crate) fn request() -> JoinRequest {
    JoinRequest {
        version: LINKING_VERSION,
        device: PHONE,
        name: "a phone".to_owned(),
        signing: phone().public(),
        agreement: [0x5d; 1216],
        commitment: commitment(&[0x22; 32]),
    }
}

pub(crate) fn verdict() -> Verdict {
    Verdict {
        version: LINKING_VERSION,
        accepted: true,
        request: [0x44; 32],
        gift: None,
    }
}

pub(crate) fn gift() -> WriterGift {
    WriterGift {
        watch: vec![0x66; 32],
        vaults: vec![GivenVault::new(VAULT, [0x67; 32])],
    }
}

#[test]
fn a_yes_is_believed_under_one_key() {
    let signed = SignedVerdict::sign(&verdict(), laptop().ed25519());
    assert_eq!(signed.peek(), Ok(verdict()));
    assert!(signed.verify(&laptop().public().ed25519()).is_ok());
    assert!(signed.verify(&phone().public().ed25519()).is_err());
    let mut altered = signed;
    *altered.verdict.last_mut().unwrap() ^= 1;
    assert!(altered.verify(&laptop().public().ed25519()).is_err());
}

#[test]
fn a_code_survives_copying_and_notices_damage() {
    let text = code().to_text();
    assert!(LinkCode::from_text(&format!("  {text}\n")).unwrap() == code());
    assert!(text.len() < 350, "{}: a QR code gets large", text.len());
    let refused = |text: &str| LinkCode::from_text(text).map(drop).unwrap_err();
    assert_eq!(refused("candor1:abc"), LinkCodeError::Prefix);
    for place in "candor-link1:".len()..text.len() {
        let mut altered: Vec<char> = text.chars().collect();
        altered[place] = if altered[place] == 'A' { 'B' } else { 'A' };
        let altered: String = altered.into_iter().collect();
        assert_eq!(refused(&altered), LinkCodeError::Damaged, "{place}");
        assert_eq!(refused(&text[..place]), LinkCodeError::Damaged, "{place}");
    }
    // What is no code of this version is none.
    let mut newer = code();
    newer.version += 1;
    assert_eq!(refused(&newer.to_text()), LinkCodeError::Content);
    let mut empty = code();
    empty.chain_length = 0;
    assert_eq!(refused(&empty.to_text()), LinkCodeError::Content);
    // Neither a right to open an account nor an invitation that is none by itself is in one.
    let mut with_right = code();
    with_right.cell.right = Some(InvitationRight([1; 16]));
    assert_eq!(refused(&with_right.to_text()), LinkCodeError::Content);
    let mut nowhere = code();
    nowhere.cell.addresses = vec![String::new()];
    assert_eq!(refused(&nowhere.to_text()), LinkCodeError::Content);
}

#[test]
fn a_device_that_joins_has_a_name_in_bounds_and_speaks_this_version() {
    let named = |bytes| {
        let request = JoinRequest {
            name: "n".repeat(bytes),
            ..request()
        };
        request.is_sound()
    };
    assert!(!named(0) && named(1) && named(256) && !named(257));
    let newer = JoinRequest {
        version: LINKING_VERSION + 1,
        ..request()
    };
    assert!(!newer.is_sound());
}

#[test]
fn a_given_vault_brings_its_key() {
    let given = GivenVault::new(VAULT, [0x67; 32]);
    assert_eq!(*given.chunk_ids(), [0x67_u8; 32]);
}

/// Safe code sees no value that is gone. The place where it was is in the process's memory still.
#[test]
fn secrets_of_a_link_are_wiped_when_they_are_dropped() {
    let mut left = [0_u8; 32];
    let mut held = vec![LinkSecret::from_bytes([0x5e; 32])];
    let place = held.as_ptr().expose_provenance();
    copy_from(place, &mut left);
    assert_eq!(left, [0x5e_u8; 32], "it is looked for where it is");
    // The secret goes, and the place that `held` has for one stays.
    held.clear();
    copy_from(place, &mut left);
    assert_eq!(left, [0_u8; 32]);
    drop(held);

    let mut left = [0_u8; 1024];
    let gift = WriterGift {
        watch: vec![0x69; 1024],
        vaults: Vec::new(),
    };
    let place = gift.watch.as_ptr().expose_provenance();
    copy_from(place, &mut left);
    assert_eq!(left, [0x69_u8; 1024], "it is looked for where it is");
    drop(gift);
    copy_from(place, &mut left);
    // What frees memory writes at the ends of it.
    assert_eq!(left[64..960], [0_u8; 896]);
}

#[test]
fn keys_of_a_link_follow_from_its_secret_and_differ() {
    let secret = code().secret;
    let places = [
        LinkPlace::Request,
        LinkPlace::Answer,
        LinkPlace::Opening,
        LinkPlace::Verdict,
    ];
    let mut keys: Vec<[u8; 32]> = places.iter().map(|place| secret.key(*place)).collect();
    keys.push(*secret.signing().public().ed25519().as_bytes());
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 5);
    let other = LinkSecret::from_bytes([0x5f; 32]);
    assert!(!keys.contains(&other.key(LinkPlace::Request)));
}

/// Whoever is between the two sides has to say what they committed to before they know the other side's bytes: the
/// digits depend on everything that either side said.
#[test]
fn a03_the_digits_depend_on_all_that_was_said() {
    let secret = code().secret;
    let request = candor_wire::cbor::encode(&request());
    let of = |request: &[u8], answer: u8, opening: u8, secret: &LinkSecret| {
        let transcript = Transcript {
            cell: &cell(),
            account: &ACCOUNT,
            request,
            answer: &[answer; 32],
            opening: &[opening; 32],
        };
        digits(secret, transcript)
    };
    // As another program has it: docs/formats/linking.md.
    assert_eq!(of(&request, 0x33, 0x22, &secret), EXPECTED_DIGITS);
    let mut altered = request.clone();
    *altered.last_mut().unwrap() ^= 1;
    let other_secret = LinkSecret::from_bytes([1; 32]);
    let others = [
        of(&altered, 0x33, 0x22, &secret),
        of(&request, 0x34, 0x22, &secret),
        of(&request, 0x33, 0x23, &secret),
        of(&request, 0x33, 0x22, &other_secret),
    ];
    assert!(others.iter().all(|other| *other != EXPECTED_DIGITS));
    // They are spread over all of six digits.
    let many = (0..200).map(|answer| of(&request, answer, 0x22, &secret));
    let (mut low, mut high) = (0, 0);
    for one in many {
        assert!(one < 1_000_000);
        low += usize::from(one < 500_000);
        high += usize::from(one >= 500_000);
    }
    assert!(low > 60 && high > 60, "{low} {high}");
}

/// Worked out by another program, from docs/formats/linking.md.
const EXPECTED_DIGITS: u32 = 386369;
