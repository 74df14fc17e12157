//! Checkpoints and cosignatures: real ones, those of the specification, and everything that is wrong.

use candor_log::checkpoint::*;
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::tree::{Hash, TREE_SIZE_MAX, TreeHead};
use candor_wire::sign::BadSignature;
use proptest::prelude::*;

use crate::sample::*;

/// The example of the cosignature specification. It gives no keys.
const EXAMPLE: &str = "example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
";

fn parse(text: &str) -> SignedCheckpoint {
    SignedCheckpoint::parse(text.as_bytes()).unwrap()
}

fn head() -> TreeHead {
    TreeHead {
        size: 7,
        root: Hash([9; 32]),
    }
}

#[test]
fn the_example_of_the_specification_is_read() {
    let checkpoint = parse(EXAMPLE);
    assert_eq!(checkpoint.bytes(), EXAMPLE.as_bytes());
    assert_eq!(checkpoint.origin(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.head().size, 20_852_163);
    let root = checkpoint.head().root.to_base64();
    assert_eq!(root, "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=");
}

#[test]
fn a_real_checkpoint_verifies_with_the_keys_of_its_log_and_witnesses() {
    let checkpoint = parse(REAL);
    assert_eq!(checkpoint.bytes(), REAL.as_bytes());
    let log = VerifierKey::parse(REAL_LOG).unwrap();
    assert_eq!(checkpoint.is_signed_by(&log), Ok(()));
    for witness in REAL_WITNESSES {
        let witness = VerifierKey::parse(witness).unwrap();
        assert_eq!(checkpoint.cosigned_by(&witness), Some(REAL_TIME_S));
    }
    // The log signed with a key of a type that is not supported, too. It is kept, and ignored.
    let without = REAL.replace("zTM8sQAAAZ5", "zTM8sQAAAZ4");
    assert_eq!(parse(&without).is_signed_by(&log), Ok(()));
    let grown = parse(&REAL.replace("1432088532", "1432088533"));
    let error = CheckpointError::Signature(BadSignature);
    assert_eq!(grown.is_signed_by(&log), Err(error));
    for witness in REAL_WITNESSES {
        let witness = VerifierKey::parse(witness).unwrap();
        assert_eq!(grown.cosigned_by(&witness), None);
    }
}

/// Byte for byte what the specification says is signed; made with a fixed key, as it gives none.
#[test]
fn a_cosignature_covers_header_time_and_text() {
    let text = EXAMPLE.split_inclusive('\n').take(3).collect::<String>();
    let message = format!("cosignature/v1\ntime 1679315147\n{text}");
    let signature = secret(100).sign_raw(message.as_bytes());
    let stamped = [&1_679_315_147_u64.to_be_bytes()[..], signature.as_bytes()].concat();
    let expected = line(&witness_key(0), &stamped);
    let made = parse(EXAMPLE).cosign(&witness_key(0), &secret(100), 1_679_315_147);
    assert_eq!(made, Ok(expected));
    // The time in the example's own line is that one.
    assert!(EXAMPLE.contains("jWbPPwAAAABkGFDL"));
    assert_eq!(0x6418_50cb, 1_679_315_147);
}

#[test]
fn a_log_signs_what_a_tree_can_be() {
    let signed = sign(head());
    let text = String::from_utf8(signed.bytes()).unwrap();
    let root = head().root.to_base64();
    assert!(text.starts_with(&format!("{ORIGIN}\n7\n{root}\n\n— {ORIGIN} ")));
    assert_eq!(parse(&text), signed);
    assert_eq!(signed.is_signed_by(&log_key()), Ok(()));
    assert_eq!(sign(TreeHead::empty()).head(), TreeHead::empty());

    let try_sign = |origin: &str, head: TreeHead, key: &VerifierKey, number: u8| {
        let origin = origin.to_owned();
        let checkpoint = Checkpoint { origin, head };
        SignedCheckpoint::sign(&checkpoint, key, &secret(number)).err()
    };
    let refused = [
        (
            CheckpointError::Root,
            try_sign(ORIGIN, TreeHead { size: 0, ..head() }, &log_key(), 1),
        ),
        (
            CheckpointError::Size,
            try_sign(
                ORIGIN,
                TreeHead {
                    size: TREE_SIZE_MAX + 1,
                    ..head()
                },
                &log_key(),
                1,
            ),
        ),
        (
            CheckpointError::Key,
            try_sign(ORIGIN, head(), &log_key(), 2),
        ),
        (
            CheckpointError::Key,
            try_sign(ORIGIN, head(), &key("other", KeyKind::Log, 1), 1),
        ),
        (
            CheckpointError::Key,
            try_sign(ORIGIN, head(), &key(ORIGIN, KeyKind::Cosigner, 1), 1),
        ),
        (CheckpointError::Origin, try_sign("", head(), &log_key(), 1)),
        (
            CheckpointError::Origin,
            try_sign("a\n7", head(), &log_key(), 1),
        ),
        // As if the origin ended there and the rest were size, root and an extension line.
        (
            CheckpointError::Origin,
            try_sign(
                &format!("{ORIGIN}\n9\n{}", head().root.to_base64()),
                head(),
                &log_key(),
                1,
            ),
        ),
        (
            CheckpointError::Origin,
            try_sign(&"a".repeat(256), head(), &log_key(), 1),
        ),
    ];
    for (expected, found) in refused {
        assert_eq!(found, Some(expected));
    }
}

#[test]
fn a_witness_signs_with_its_own_key_at_a_time() {
    let signed = sign(head());
    let key = witness_key(0);
    for time_s in [0, COSIGNATURE_TIME_MAX_S + 1, u64::MAX] {
        let result = signed.cosign(&key, &secret(100), time_s);
        assert_eq!(result, Err(CheckpointError::Time));
    }
    assert!(
        signed
            .cosign(&key, &secret(100), COSIGNATURE_TIME_MAX_S)
            .is_ok()
    );
    let wrong = signed.cosign(&key, &secret(101), TIME_S);
    assert_eq!(wrong, Err(CheckpointError::Key));
    let not_a_witness = signed.cosign(&log_key(), &log_secret(), TIME_S);
    assert_eq!(not_a_witness, Err(CheckpointError::Key));
}

/// A line at a time that no cosignature can have does not count, though its signature is right.
#[test]
fn a_time_out_of_range_does_not_count() {
    for time_s in [0, COSIGNATURE_TIME_MAX_S + 1] {
        let signed = sign(head());
        let body = String::from_utf8(signed.bytes()).unwrap();
        let body = body.split_once("\n\n").unwrap().0;
        let message = format!("cosignature/v1\ntime {time_s}\n{body}\n");
        let signature = secret(100).sign_raw(message.as_bytes());
        let stamped = [&time_s.to_be_bytes()[..], signature.as_bytes()].concat();
        let mut cosigned = signed.clone();
        let line = line(&witness_key(0), &stamped);
        assert_eq!(cosigned.add_lines(&line, &[witness_key(0)]), 0);
        let bytes = [signed.bytes(), line.into_bytes()].concat();
        let read = SignedCheckpoint::parse(&bytes).unwrap();
        assert_eq!(read.cosigned_by(&witness_key(0)), None);
    }
}

#[test]
fn signatures_of_one_kind_are_none_of_the_other() {
    // A witness's key over the bare text, and a log's key over a cosignature's message.
    let text = format!("{ORIGIN}\n7\n{}\n", head().root.to_base64());
    let as_witness = key(ORIGIN, KeyKind::Cosigner, 1);
    let bare = log_secret().sign_raw(text.as_bytes());
    let message = format!("cosignature/v1\ntime {TIME_S}\n{text}");
    let stamped = log_secret().sign_raw(message.as_bytes());
    let stamp = TIME_S.to_be_bytes();
    for signature in [
        bare.as_bytes().to_vec(),
        [&stamp[..], bare.as_bytes()].concat(),
        stamped.as_bytes().to_vec(),
    ] {
        let note = format!("{text}\n{}", line(&as_witness, &signature));
        assert_eq!(parse(&note).cosigned_by(&as_witness), None);
    }
    let note = format!("{text}\n{}", line(&log_key(), stamped.as_bytes()));
    let error = CheckpointError::Signature(BadSignature);
    assert_eq!(parse(&note).is_signed_by(&log_key()), Err(error.clone()));
    let stamped = [&stamp[..], stamped.as_bytes()].concat();
    let note = format!("{text}\n{}", line(&log_key(), &stamped));
    assert_eq!(parse(&note).is_signed_by(&log_key()), Err(error));
}

#[test]
fn one_bad_line_of_the_log_spoils_the_checkpoint() {
    let signed = sign(head());
    let good = String::from_utf8(signed.bytes()).unwrap();
    let bad = line(&log_key(), &[7; 64]);
    let short = line(&log_key(), &[7; 63]);
    let error = Err(CheckpointError::Signature(BadSignature));
    for spoilt in [&bad, &short] {
        assert_eq!(
            parse(&format!("{good}{spoilt}")).is_signed_by(&log_key()),
            error
        );
        let (text, lines) = good.split_once("\n\n").unwrap();
        let note = format!("{text}\n\n{spoilt}{lines}");
        assert_eq!(parse(&note).is_signed_by(&log_key()), error);
    }
    // A line of another key under the log's name is ignored.
    let other = line(&key(ORIGIN, KeyKind::Log, 2), &[7; 64]);
    let note = format!("{good}{other}");
    assert_eq!(parse(&note).is_signed_by(&log_key()), Ok(()));
    assert_eq!(parse(&note).bytes(), note.as_bytes());
}

#[test]
fn who_did_not_sign_has_not_signed() {
    let signed = sign(head());
    let other_name = key("example.com/log", KeyKind::Log, 1);
    assert_eq!(
        signed.is_signed_by(&other_name),
        Err(CheckpointError::OtherLog)
    );
    let other_key = key(ORIGIN, KeyKind::Log, 2);
    assert_eq!(
        signed.is_signed_by(&other_key),
        Err(CheckpointError::NotSigned)
    );
    let witness = key(ORIGIN, KeyKind::Cosigner, 1);
    assert_eq!(signed.is_signed_by(&witness), Err(CheckpointError::Key));
    assert_eq!(signed.cosigned_by(&witness_key(0)), None);
    assert_eq!(signed.cosigned_by(&log_key()), None);
}

#[test]
fn the_newest_valid_cosignature_counts() {
    let signed = sign(head());
    let key = witness_key(0);
    let at = |time_s| signed.cosign(&key, &secret(100), time_s).unwrap();
    let good = String::from_utf8(signed.bytes()).unwrap();
    // Newer, but not valid: the time was changed after signing.
    let mut stamped = (TIME_S + 9).to_be_bytes().to_vec();
    stamped.extend_from_slice(&[7; 64]);
    let bad = line(&key, &stamped);
    let note = format!(
        "{good}{}{}{}{bad}",
        at(TIME_S),
        at(TIME_S + 5),
        at(TIME_S + 2)
    );
    let read = parse(&note);
    assert_eq!(read.bytes(), note.as_bytes());
    assert_eq!(read.cosigned_by(&key), Some(TIME_S + 5));
    assert_eq!(parse(&format!("{good}{bad}")).cosigned_by(&key), None);
}

#[test]
fn valid_lines_of_known_witnesses_are_taken() {
    let mut signed = sign(head());
    let known = [witness_key(0), witness_key(1)];
    let at = |number: u8, time_s| {
        let key = witness_key(number);
        sign(head())
            .cosign(&key, &secret(100 + number), time_s)
            .unwrap()
    };
    let unknown = at(2, TIME_S);
    let for_another = sign(TreeHead { size: 8, ..head() })
        .cosign(&known[1], &secret(101), TIME_S)
        .unwrap();
    let reply = format!(
        "{}{unknown}{for_another}not a line\n— x y\n{}{}",
        at(0, TIME_S),
        line(&known[1], &[7; 72]),
        at(1, TIME_S + 1).trim_end()
    );
    // The last line has no end, so it is none.
    assert_eq!(signed.add_lines(&reply, &known), 1);
    assert_eq!(signed.cosigned_by(&known[0]), Some(TIME_S));
    assert_eq!(signed.cosigned_by(&known[1]), None);
    assert_eq!(signed.cosigned_by(&witness_key(2)), None);
    let before = signed.bytes();
    assert_eq!(signed.add_lines(&at(0, TIME_S), &known), 0);
    assert_eq!(signed.add_lines(&at(0, TIME_S - 1), &known), 0);
    assert_eq!(signed.bytes(), before);
    // A newer one replaces the older one.
    assert_eq!(signed.add_lines(&at(0, TIME_S + 1), &known), 1);
    assert_eq!(signed.bytes().len(), before.len());
    assert_eq!(signed.cosigned_by(&known[0]), Some(TIME_S + 1));
    assert_eq!(SignedCheckpoint::parse(&signed.bytes()), Ok(signed));
}

#[test]
fn what_does_not_fit_is_not_taken() {
    let good = String::from_utf8(sign(head()).bytes()).unwrap();
    let filler = line(&key("x", KeyKind::Log, 9), &[1; 64]);
    let full = format!("{good}{}", filler.repeat(SIGNATURES_MAX - 1));
    let mut full = parse(&full);
    let key = witness_key(0);
    let reply = full.cosign(&key, &secret(100), TIME_S).unwrap();
    assert_eq!(full.add_lines(&reply, std::slice::from_ref(&key)), 0);
    let flood = "— a b\n".repeat(CHECKPOINT_MAX_BYTES);
    let mut signed = sign(head());
    assert_eq!(signed.add_lines(&flood, &[key]), 0);
}

#[test]
fn extension_lines_are_kept_and_signed() {
    let body = format!(
        "{ORIGIN}\n7\n{}\nmore\n— even this +\n",
        head().root.to_base64()
    );
    let bytes = sign_anything(&body, &log_secret(), &log_key());
    let mut signed = SignedCheckpoint::parse(&bytes).unwrap();
    assert_eq!(signed.bytes(), bytes);
    assert_eq!(signed.head(), head());
    assert_eq!(signed.is_signed_by(&log_key()), Ok(()));
    let reply = signed
        .cosign(&witness_key(0), &secret(100), TIME_S)
        .unwrap();
    assert_eq!(signed.add_lines(&reply, &[witness_key(0)]), 1);
    let changed = String::from_utf8(signed.bytes())
        .unwrap()
        .replace("more", "less");
    let error = CheckpointError::Signature(BadSignature);
    assert_eq!(parse(&changed).is_signed_by(&log_key()), Err(error));
    assert_eq!(parse(&changed).cosigned_by(&witness_key(0)), None);
}

/// Wrong texts, signed. `$o` is the origin, `$r` the root.
fn misspelt_texts() -> Vec<(&'static str, CheckpointError, &'static str)> {
    use CheckpointError::*;
    vec![
        ("empty-origin", Origin, "\n7\n$r\n"),
        ("long-origin", Origin, "$o$o$o$o$o$o$o\n7\n$r\n"),
        ("two-lines", Root, "$o\n7\n"),
        ("one-line", Size, "$o\n"),
        ("empty-size", Size, "$o\n\n$r\n"),
        ("leading-zero", Size, "$o\n07\n$r\n"),
        ("two-zeros", Size, "$o\n00\n$r\n"),
        ("plus-sign", Size, "$o\n+7\n$r\n"),
        ("minus-sign", Size, "$o\n-7\n$r\n"),
        ("space-before", Size, "$o\n 7\n$r\n"),
        ("hexadecimal", Size, "$o\n0x7\n$r\n"),
        ("other-digits", Size, "$o\n٧\n$r\n"),
        ("fraction", Size, "$o\n7.0\n$r\n"),
        ("above-the-largest", Size, "$o\n1099511627777\n$r\n"),
        ("above-64-bits", Size, "$o\n18446744073709551616\n$r\n"),
        (
            "short-root",
            Root,
            "$o\n7\nCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ\n",
        ),
        ("long-root", Root, "$o\n7\n$rAAAA\n"),
        (
            "root-without-padding",
            Root,
            "$o\n7\nCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk\n",
        ),
        (
            "root-with-loose-bits",
            Root,
            "$o\n7\nCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQl=\n",
        ),
        ("empty-extension-line", Extension, "$o\n7\n$r\n\nmore\n"),
        ("empty-last-line", Extension, "$o\n7\n$r\n\n"),
    ]
}

/// Every way to spell a checkpoint wrongly, with its error.
pub(crate) fn misspelt() -> Vec<(&'static str, CheckpointError, Vec<u8>)> {
    use CheckpointError::{Note, TooManySignatures};
    let good = String::from_utf8(sign(head()).bytes()).unwrap();
    let change = |from: &str, to: &str| good.replacen(from, to, 1).into_bytes();
    let many = line(&log_key(), &[7; 64]).repeat(SIGNATURES_MAX);
    let (before, signature) = good.rsplit_once(' ').unwrap();
    let other_letters = signature.replace('/', "_").replace('+', "-");
    assert_ne!(signature, other_letters);
    let cut = good.trim_end();
    let mut cases = vec![
        ("empty", Note, Vec::new()),
        ("no-signature", Note, good.split_once('—').unwrap().0.into()),
        ("no-empty-line", Note, change("\n\n", "\n")),
        ("no-last-newline", Note, cut.into()),
        ("empty-line-at-the-end", Note, format!("{good}\n").into()),
        ("carriage-returns", Note, good.replace('\n', "\r\n").into()),
        ("tab", Note, change(" ", "\t")),
        (
            "not-utf-8",
            Note,
            [good.as_bytes(), &[0xff, b'\n']].concat(),
        ),
        ("hyphen", Note, change("— ", "- ")),
        ("en-dash", Note, change("— ", "– ")),
        ("two-spaces", Note, change("— ", "—  ")),
        (
            "plus-in-a-name",
            Note,
            change(&format!("— {ORIGIN}"), "— a+b"),
        ),
        (
            "url-base64",
            Note,
            format!("{before} {other_letters}").into(),
        ),
        (
            "no-padding",
            Note,
            format!("{}\n", cut.trim_end_matches('=')).into(),
        ),
        ("space-after-padding", Note, format!("{cut} \n").into()),
        (
            "only-a-key-id",
            Note,
            format!("{good}— a AAAAAA==\n").into(),
        ),
        (
            "too-many-signatures",
            TooManySignatures,
            format!("{good}{many}").into(),
        ),
    ];
    let root = head().root.to_base64();
    for (name, error, text) in misspelt_texts() {
        let text = text.replace("$o", ORIGIN).replace("$r", &root);
        cases.push((name, error, sign_anything(&text, &log_secret(), &log_key())));
    }
    cases
}

#[test]
fn a_checkpoint_has_one_spelling() {
    for (name, error, bytes) in misspelt() {
        assert_eq!(SignedCheckpoint::parse(&bytes), Err(error), "{name}");
    }
    let long = vec![b'a'; CHECKPOINT_MAX_BYTES + 1];
    let error = CheckpointError::TooLong { bytes: long.len() };
    assert_eq!(SignedCheckpoint::parse(&long), Err(error));
    let root = head().root.to_base64();
    let largest = format!("{ORIGIN}\n{TREE_SIZE_MAX}\n{root}\n");
    let bytes = sign_anything(&largest, &log_secret(), &log_key());
    assert_eq!(
        SignedCheckpoint::parse(&bytes).unwrap().head().size,
        TREE_SIZE_MAX
    );
}

/// C2SP asks for at least 16 signatures, also of the largest post-quantum kind.
#[test]
fn many_large_signatures_of_unknown_keys_fit() {
    let good = String::from_utf8(sign(head()).bytes()).unwrap();
    let large = line(&key("pq.example/witness", KeyKind::Cosigner, 9), &[7; 5000]);
    let note = format!("{good}{}", large.repeat(15));
    assert_eq!(parse(&note).bytes(), note.as_bytes());
    assert_eq!(parse(&note).is_signed_by(&log_key()), Ok(()));
    let sixty_four: Vec<(u8, u64)> = (0..64).map(|number| (number, TIME_S)).collect();
    let witnessed = cosign(sign(head()), &sixty_four);
    assert_eq!(SignedCheckpoint::parse(&witnessed.bytes()), Ok(witnessed));
}

#[test]
fn every_flipped_byte_is_refused_or_breaks_a_signature() {
    let signed = cosign(sign(head()), &[(0, TIME_S)]);
    let bytes = signed.bytes();
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << bit;
            let Ok(read) = SignedCheckpoint::parse(&flipped) else {
                continue;
            };
            assert_eq!(read.bytes(), flipped);
            let by_log = read.is_signed_by(&log_key());
            let by_witness = read.cosigned_by(&witness_key(0));
            assert!(by_log.is_err() || by_witness.is_none(), "byte {place}");
            // What still verifies says the same as before.
            if by_log.is_ok() || by_witness.is_some() {
                assert_eq!(read.head(), signed.head());
                assert_eq!(read.origin(), signed.origin());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_note_is_read_back_or_refused(
        origin in "[ -~é—]{0,9}",
        size in "[0-9 ]{0,22}",
        root in "[A-Za-z0-9+/]{43}=?",
        more in "([a-z—\n]{0,4}\n)?",
        lines in "(— [a-z+ ]{0,3} [A-Za-z0-9+/]{8,12}={0,2}\n){0,3}",
    ) {
        let note = format!("{origin}\n{size}\n{root}\n{more}\n{lines}");
        if let Ok(read) = SignedCheckpoint::parse(note.as_bytes()) {
            prop_assert_eq!(read.bytes(), note.as_bytes());
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(SignedCheckpoint::parse(&bytes).is_err());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        prop_assert_eq!(sign(head()).add_lines(&text, &[witness_key(0)]), 0);
    }

    #[test]
    fn what_is_signed_is_read_and_verifies(size in 1..=TREE_SIZE_MAX, root: [u8; 32], time_s in 1..=COSIGNATURE_TIME_MAX_S) {
        let signed = sign(TreeHead { size, root: Hash(root) });
        let cosigned = cosign(signed, &[(3, time_s)]);
        let read = SignedCheckpoint::parse(&cosigned.bytes()).unwrap();
        prop_assert_eq!(read.is_signed_by(&log_key()), Ok(()));
        prop_assert_eq!(read.cosigned_by(&witness_key(3)), Some(time_s));
    }
}
