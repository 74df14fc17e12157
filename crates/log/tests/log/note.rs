//! Verifier keys, with C2SP's own example.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use candor_log::note::*;
use candor_wire::sign::{Ed25519Public, Ed25519Signature};
use proptest::prelude::*;

use crate::sample::*;

/// The example of the signed-note specification: key, text and signature.
#[test]
fn the_example_of_the_specification_verifies() {
    let text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let key = VerifierKey::parse(text).unwrap();
    assert_eq!(key.to_string(), text);
    assert_eq!((key.name(), key.kind()), ("example.com/foo", KeyKind::Log));
    assert_eq!(key.id(), 0x530d_903a);
    let line = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=";
    let bytes = STANDARD.decode(line).unwrap();
    assert_eq!(bytes[..4], key.id().to_be_bytes());
    let signature = Ed25519Signature::from_bytes(bytes[4..].try_into().unwrap());
    let message = b"This is an example message.\n";
    assert_eq!(key.key().verify_raw(message, &signature), Ok(()));
}

#[test]
fn keys_of_real_logs_and_witnesses_are_read() {
    let log = VerifierKey::parse(REAL_LOG).unwrap();
    assert_eq!(
        (log.kind(), log.to_string().as_str()),
        (KeyKind::Log, REAL_LOG)
    );
    for text in REAL_WITNESSES {
        let key = VerifierKey::parse(text).unwrap();
        assert_eq!(key.kind(), KeyKind::Cosigner);
        assert_eq!(key.to_string(), text);
    }
}

#[test]
fn the_same_key_of_another_kind_or_name_has_another_id() {
    let log = key("a", KeyKind::Log, 1);
    assert_ne!(log.id(), key("a", KeyKind::Cosigner, 1).id());
    assert_ne!(log.id(), key("b", KeyKind::Log, 1).id());
    assert_eq!(log, VerifierKey::parse(&log.to_string()).unwrap());
    for kind in [KeyKind::Log, KeyKind::Cosigner] {
        assert_eq!(KeyKind::from_code(kind.code()), Some(kind));
    }
}

#[test]
fn a_name_has_no_spaces_plus_or_control_characters() {
    let public = secret(1).public();
    let long = "a".repeat(KEY_NAME_MAX_BYTES);
    for name in [
        "a",
        "example.com/foo",
        "🔑",
        "transparency.dev/DEV:w",
        &long,
    ] {
        let key = VerifierKey::new(name, KeyKind::Log, public).unwrap();
        assert_eq!(VerifierKey::parse(&key.to_string()), Ok(key));
    }
    let longer = "a".repeat(KEY_NAME_MAX_BYTES + 1);
    let refused = [
        "",
        " ",
        "a b",
        "a+b",
        "a\nb",
        "a\tb",
        "a\u{a0}b",
        "a\u{2003}b",
        "a\u{0}b",
        "a\u{7f}b",
        "a\u{85}b",
        "a\u{9b}b",
        "a\r",
        &longer,
    ];
    for name in refused {
        let result = VerifierKey::new(name, KeyKind::Log, public);
        assert_eq!(result, Err(KeyError::Name), "{name:?}");
    }
}

#[test]
fn a_key_has_one_spelling() {
    let good = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let changed = |from: &str, to: &str| good.replace(from, to);
    let pq = STANDARD.encode([&[6_u8][..], &[7; 1312]].concat());
    let cases = [
        (String::new(), KeyError::Format),
        (changed("+530d903a", ""), KeyError::Format),
        (changed("530d903a", "530D903A"), KeyError::Format),
        (changed("530d903a", "30d903a"), KeyError::Format),
        (changed("530d903a", "0530d903a"), KeyError::Format),
        (changed("530d903a", "+30d903a"), KeyError::Format),
        (changed("530d903a", "530d903b"), KeyError::Id),
        (changed("example", "Example"), KeyError::Id),
        (changed("example.com", "example com"), KeyError::Name),
        (changed("example.com/foo", ""), KeyError::Name),
        (format!("{good}="), KeyError::Format),
        (format!("{good}\n"), KeyError::Format),
        (format!(" {good}"), KeyError::Name),
        (format!("{good}+"), KeyError::Format),
        (changed("AekyeRrm", "AekyeRr"), KeyError::Format),
        (changed("3U2k", "3U2kAAAA"), KeyError::Format),
        (changed("AekyeRrm", "BOkyeRrm"), KeyError::Id),
        (changed("AekyeRrm", "AukyeRrm"), KeyError::Kind { code: 2 }),
        (format!("w+00000000+{pq}"), KeyError::Kind { code: 6 }),
        (
            format!("w+00000000+{}", "A".repeat(1 << 20)),
            KeyError::Format,
        ),
        ("w+00000000+".to_owned(), KeyError::Format),
    ];
    for (text, error) in cases {
        let shown: String = text.chars().take(100).collect();
        assert_eq!(VerifierKey::parse(&text), Err(error), "{shown}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(name in "[!-*,-~é🔑]{1,40}", kind: bool, bytes: [u8; 32]) {
        let kind = if kind { KeyKind::Log } else { KeyKind::Cosigner };
        let key = VerifierKey::new(&name, kind, Ed25519Public::from_bytes(bytes)).unwrap();
        prop_assert_eq!(VerifierKey::parse(&key.to_string()), Ok(key));
    }

    #[test]
    fn any_text_is_read_back_or_refused(text in "[a-z+ ]{0,4}\\+?[0-9a-f]{8}\\+[AB][A-Za-z0-9+/=]{43}") {
        if let Ok(key) = VerifierKey::parse(&text) {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
