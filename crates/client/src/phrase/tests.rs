#![allow(clippy::unwrap_used, clippy::panic)]
use candor_wire::ids::to_hex;

use super::*;
use crate::test_support::{Repeatable, rows, unhex};

/// Entropy, words, fingerprint of the root key, BLAKE3 of the recovery key.
const ACCEPTED: &str = include_str!("../../../../vectors/phrase/accepted.txt");
/// Reason, text.
const REJECTED: &str = include_str!("../../../../vectors/phrase/rejected.txt");

#[test]
fn vectors_accepted() {
    let rows = rows(ACCEPTED);
    assert!(rows.len() >= 3);
    for row in rows {
        let [entropy, words, root, recovery] = row.as_slice() else {
            panic!("four fields: {row:?}")
        };
        let phrase = RecoveryPhrase::from_text(words).unwrap();
        assert_eq!(to_hex(phrase.0.as_array()), *entropy);
        assert_eq!(*phrase.text(), *words);
        assert_eq!(to_hex(&phrase.root().public().fingerprint()), *root);
        assert_eq!(
            to_hex(blake3::hash(&phrase.recovery().public()).as_bytes()),
            *recovery
        );
        let bytes: [u8; PHRASE_BYTES] = unhex(entropy).try_into().unwrap();
        assert_eq!(*RecoveryPhrase::from_bytes(&bytes).text(), *words);
    }
}

#[test]
fn vectors_rejected() {
    let rows = rows(REJECTED);
    assert!(rows.len() >= 5);
    for row in rows {
        let [reason, text] = row.as_slice() else {
            panic!("two fields: {row:?}")
        };
        let error = RecoveryPhrase::from_text(text).map(|_| ()).unwrap_err();
        assert_eq!(format!("{error:?}"), *reason, "{text}");
        assert!(
            !text
                .split(' ')
                .any(|word| word.len() > 5 && error.to_string().contains(word))
        );
    }
}

#[test]
fn a_new_phrase_reads_back_whatever_the_spacing() {
    let phrase = RecoveryPhrase::generate(&Repeatable::new(1)).unwrap();
    assert_eq!(phrase.words().len(), PHRASE_WORDS);
    let shouted = format!(
        "\n  {}\t",
        phrase.text().to_uppercase().replace(' ', " \n ")
    );
    let read = RecoveryPhrase::from_text(&shouted).unwrap();
    assert_eq!(read.0.as_array(), phrase.0.as_array());
    let other = RecoveryPhrase::generate(&Repeatable::new(2)).unwrap();
    assert_ne!(other.0.as_array(), phrase.0.as_array());
}

#[test]
fn every_key_has_a_purpose_of_its_own() {
    let phrase = RecoveryPhrase::from_bytes(&[7; PHRASE_BYTES]);
    let mut keys = [[0; 32]; 3];
    for (key, info) in keys
        .iter_mut()
        .zip([INFO_ROOT_ED25519, INFO_ROOT_ML_DSA, INFO_RECOVERY])
    {
        phrase.derive(info, key);
    }
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
}
