//! Policies: the whole syntax, every error with its line, and quorums against their definition.

use candor_log::checkpoint::{CheckpointError, SignedCheckpoint};
use candor_log::note::{KeyError, KeyKind};
use candor_log::policy::*;
use candor_log::tree::{Hash, TreeHead};
use candor_wire::sign::BadSignature;
use proptest::prelude::*;

use crate::sample::*;

fn head() -> TreeHead {
    TreeHead {
        size: 7,
        root: Hash([9; 32]),
    }
}

fn parse(text: &str) -> Policy {
    Policy::parse(text.as_bytes()).unwrap()
}

#[track_caller]
fn refused(text: &str, line: usize, fault: PolicyFault) {
    let result = Policy::parse(text.as_bytes());
    assert_eq!(result, Err(PolicyError { line, fault }));
}

/// The specification's example of groups of groups: two of the X, one of the Y, and both groups.
/// Witnesses 0 to 2 are the X, 3 to 5 the Y.
fn example() -> String {
    let mut text = format!("log {}\n\n", log_key());
    for number in 0..6 {
        let name = ["X1", "X2", "X3", "Y1", "Y2", "Y3"][usize::from(number)];
        text += &format!("witness {name} {}\n", witness_key(number));
    }
    text + "group X-witnesses 2 X1 X2 X3\ngroup Y-witnesses any Y1 Y2 Y3\n\n\
        group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
}

#[test]
fn groups_of_groups_hold_for_exactly_the_right_witnesses() {
    let policy = parse(&example());
    let signed = sign(head());
    for set in 0_u32..64 {
        let by: Vec<(u8, u64)> = (0..6)
            .filter(|number| set & (1 << number) != 0)
            .map(|number| (number, TIME_S + u64::from(number)))
            .collect();
        let checkpoint = cosign(signed.clone(), &by);
        let names: Vec<String> = by
            .iter()
            .map(|(number, _)| policy.witnesses()[usize::from(*number)].name.clone())
            .collect();
        let holds = (set & 0b111).count_ones() >= 2 && (set >> 3) != 0;
        match policy.standing(&checkpoint) {
            Standing::Witnessed { witnesses, .. } => {
                assert!(holds);
                assert_eq!(witnesses, names);
                assert!(policy.check(&checkpoint).is_ok());
            }
            Standing::Unwitnessed { have } => {
                assert!(!holds);
                assert_eq!(have, names);
                let refusal = PolicyRefusal::Unwitnessed { have };
                assert_eq!(policy.check(&checkpoint), Err(refusal));
            }
        }
    }
}

/// Whether the witnesses of the example with a time of at least `since` are a quorum.
fn is_quorum(times: &[Option<u64>], since: u64) -> bool {
    let late = |range: std::ops::Range<usize>| {
        let times = times[range].iter();
        times
            .filter(|time| time.is_some_and(|time| time >= since))
            .count()
    };
    late(0..3) >= 2 && late(3..6) >= 1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_quorums_time_is_the_newest_at_which_it_still_holds(
        times in prop::collection::vec(prop::option::of(1_u64..9), 6)
    ) {
        let by: Vec<(u8, u64)> = (0..6)
            .filter_map(|number| Some((number, times[usize::from(number)]?)))
            .collect();
        let checkpoint = cosign(sign(head()), &by);
        let newest = (1..10).rev().find(|since| is_quorum(&times, *since));
        let standing = parse(&example()).standing(&checkpoint);
        let found = match standing {
            Standing::Witnessed { time_s, .. } => Some(time_s),
            Standing::Unwitnessed { .. } => None,
        };
        prop_assert_eq!(found, newest);
    }

    #[test]
    fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Policy::parse(&octets);
    }

    #[test]
    fn any_lines_are_read_or_refused(lines in prop::collection::vec("(group|quorum|witness|log|#)([ \t][a-c0-3]{1,2}){0,5}", 0..9)) {
        let text = lines.join("\n") + "\n";
        if let Err(error) = Policy::parse(text.as_bytes()) {
            prop_assert!((1..=lines.len().max(1)).contains(&error.line));
        }
    }
}

#[test]
fn one_witness_can_be_the_quorum() {
    let text = format!("witness w {}\nquorum w\n", witness_key(0));
    let policy = parse(&text);
    assert!(policy.logs().is_empty());
    let signed = sign(head());
    let have = Vec::new();
    assert_eq!(
        policy.check(&signed),
        Err(PolicyRefusal::Unwitnessed { have })
    );
    let witnessed = Standing::Witnessed {
        witnesses: vec!["w".to_owned()],
        time_s: TIME_S,
    };
    let signed = cosign(signed, &[(0, TIME_S), (1, TIME_S + 1)]);
    assert_eq!(policy.check(&signed), Ok(witnessed));
}

#[test]
fn without_a_quorum_nothing_is_witnessed() {
    let text = format!(
        "log {}\nwitness w {}\nquorum none\n",
        log_key(),
        witness_key(0)
    );
    let policy = parse(&text);
    assert!(!policy.needs_witnesses());
    let signed = cosign(sign(head()), &[(0, TIME_S)]);
    let have = vec!["w".to_owned()];
    assert_eq!(policy.check(&signed), Ok(Standing::Unwitnessed { have }));
}

#[test]
fn a_log_of_the_policy_has_to_have_signed() {
    let quorum = "quorum none\n";
    let other = key("example.com/log", KeyKind::Log, 7);
    let second = key(ORIGIN, KeyKind::Log, 8);
    let signed = sign(head());
    let check = |logs: &[&candor_log::note::VerifierKey], signed: &SignedCheckpoint| {
        let logs: String = logs.iter().map(|key| format!("log {key}\n")).collect();
        parse(&format!("{logs}{quorum}")).check(signed).map(|_| ())
    };
    let refused = |error| Err(PolicyRefusal::Log(error));
    assert_eq!(check(&[&log_key()], &signed), Ok(()));
    assert_eq!(check(&[&other, &log_key()], &signed), Ok(()));
    assert_eq!(check(&[&second, &log_key()], &signed), Ok(()));
    assert_eq!(check(&[&log_key(), &second], &signed), Ok(()));
    assert_eq!(
        check(&[&other], &signed),
        refused(CheckpointError::OtherLog)
    );
    assert_eq!(
        check(&[&second], &signed),
        refused(CheckpointError::NotSigned)
    );
    // A bad line by any known key of the log spoils it.
    let spoilt = [signed.bytes(), line(&second, &[7; 64]).into_bytes()].concat();
    let spoilt = SignedCheckpoint::parse(&spoilt).unwrap();
    assert_eq!(check(&[&log_key()], &spoilt), Ok(()));
    let bad = CheckpointError::Signature(BadSignature);
    assert_eq!(check(&[&log_key(), &second], &spoilt), refused(bad));
}

#[test]
fn a_real_checkpoint_holds_under_a_real_policy() {
    let mut text = format!("log {REAL_LOG}\n");
    for (place, witness) in REAL_WITNESSES.iter().enumerate() {
        text += &format!("witness w{place} {witness}\n");
    }
    text += "group g 3 w0 w1 w2 w3\nquorum g\n";
    let checkpoint = SignedCheckpoint::parse(REAL.as_bytes()).unwrap();
    let standing = parse(&text).check(&checkpoint).unwrap();
    assert!(
        matches!(standing, Standing::Witnessed { witnesses, time_s } if witnesses.len() == 4 && time_s == REAL_TIME_S)
    );
}

#[test]
fn names_urls_and_remarks_are_octets() {
    let mut text = b"# remark \xff\n\t # another\n \t \n".to_vec();
    let mut put = |line: &[u8]| {
        text.extend_from_slice(line);
        text.push(b'\n');
    };
    let url = "https://wïtness.example/";
    put(format!("\twitness  K\t{}  {url} ", witness_key(0)).as_bytes());
    put(format!("witness \u{212a} {}", witness_key(1)).as_bytes());
    put(&[b"witness \xff\xfe ", witness_key(2).to_string().as_bytes()].concat());
    put(format!("log {} {url}", log_key()).as_bytes());
    put("group all any K \u{212a}".as_bytes());
    put(b"group any 1 \xff\xfe");
    put(b"quorum all");
    let policy = Policy::parse(&text).unwrap();
    let names: Vec<&str> = policy.witnesses().iter().map(|w| &*w.name).collect();
    assert_eq!(names, ["K", "\u{212a}", "\\xff\\xfe"]);
    assert_eq!(policy.witnesses()[0].url.as_deref(), Some(url));
    assert_eq!(policy.witnesses()[1].url, None);
    assert_eq!(policy.logs()[0].url.as_deref(), Some(url));
    assert_eq!(policy.logs()[0].key, log_key());
}

/// Every fault of a line by itself: name, line, fault, and the policy. `$log` and `$w0` are lines that
/// define these, `$3` defines three witnesses.
fn faulty_lines() -> Vec<(&'static str, usize, PolicyFault, &'static str)> {
    use PolicyFault::*;
    vec![
        ("empty", 1, NoQuorum, ""),
        ("no-quorum", 3, NoQuorum, "$3"),
        ("two-quorums", 5, SecondQuorum, "$3quorum w0\nquorum none\n"),
        ("unknown-quorum", 1, UnknownName, "quorum w0\n"),
        ("later-quorum", 1, UnknownName, "quorum w0\n$w0"),
        ("cut", 4, NotEnded, "$3quorum w0"),
        ("carriage-return", 1, Control, "quorum none\r\n"),
        ("form-feed", 1, Control, "\u{c}quorum none\n"),
        ("delete", 1, Control, "# \u{7f}\nquorum none\n"),
        ("zero-octet", 2, Control, "quorum none\n\0\n"),
        ("keyword", 1, Keyword, "Quorum none\nquorum none\n"),
        ("no-break-space", 1, Keyword, "quorum\u{a0}none\n"),
        ("quorum-without-a-name", 1, Words, "quorum\n"),
        ("quorum-of-two", 4, Words, "$3quorum w0 w1\n"),
        ("log-without-a-key", 1, Words, "log\nquorum none\n"),
        ("log-with-more", 1, Words, "log $logkey a b\nquorum none\n"),
        (
            "witness-without-a-key",
            1,
            Words,
            "witness w0\nquorum none\n",
        ),
        (
            "witness-with-more",
            1,
            Words,
            "witness w $key0 a b\nquorum none\n",
        ),
        (
            "group-without-members",
            4,
            Words,
            "$3group g all\nquorum w0\n",
        ),
    ]
}

/// Every fault of keys, names and groups.
fn faulty_names() -> Vec<(&'static str, usize, PolicyFault, &'static str)> {
    use PolicyFault::*;
    vec![
        (
            "not-a-key",
            1,
            Key(KeyError::Format),
            "log x\nquorum none\n",
        ),
        (
            "wrong-id",
            1,
            Key(KeyError::Id),
            "log x$logkey\nquorum none\n",
        ),
        (
            "log-with-a-witness-key",
            1,
            KeyKind,
            "log $key0\nquorum none\n",
        ),
        (
            "witness-with-a-log-key",
            1,
            KeyKind,
            "witness a $logkey\nquorum none\n",
        ),
        (
            "same-log-twice",
            2,
            DuplicateKey,
            "$loglog $samelog\nquorum none\n",
        ),
        (
            "same-witness-twice",
            2,
            DuplicateKey,
            "$w0witness b $same0\nquorum none\n",
        ),
        (
            "same-name-twice",
            2,
            NameTaken,
            "$w0witness w0 $key3\nquorum w0\n",
        ),
        (
            "group-with-a-witness-name",
            4,
            NameTaken,
            "$3group w0 any w1\nquorum w0\n",
        ),
        (
            "group-of-itself",
            4,
            UnknownName,
            "$3group g any g\nquorum w0\n",
        ),
        (
            "witness-called-none",
            1,
            NameTaken,
            "witness none $key0\nquorum none\n",
        ),
        (
            "group-called-none",
            4,
            NameTaken,
            "$3group none any w0\nquorum w0\n",
        ),
        (
            "member-none",
            4,
            UnknownName,
            "$3group g any none\nquorum w0\n",
        ),
        (
            "unknown-member",
            4,
            UnknownName,
            "$3group g any w9\nquorum w0\n",
        ),
        (
            "member-twice",
            4,
            MemberTwice,
            "$3group g any w0 w0\nquorum w0\n",
        ),
        (
            "member-of-two-groups",
            5,
            MemberTwice,
            "$3group g any w0\ngroup h any w0 w1\nquorum w0\n",
        ),
        ("zero", 4, Threshold, "$3group g 0 w0 w1\nquorum w0\n"),
        (
            "more-than-all",
            4,
            Threshold,
            "$3group g 3 w0 w1\nquorum w0\n",
        ),
        (
            "leading-zero",
            4,
            Threshold,
            "$3group g 01 w0 w1\nquorum w0\n",
        ),
        ("plus-sign", 4, Threshold, "$3group g +1 w0 w1\nquorum w0\n"),
        ("word", 4, Threshold, "$3group g most w0 w1\nquorum w0\n"),
        (
            "huge",
            4,
            Threshold,
            "$3group g 99999999999999999999 w0\nquorum w0\n",
        ),
    ]
}

/// Every fault, with its line.
pub(crate) fn faulty() -> Vec<(&'static str, usize, PolicyFault, String)> {
    let w = |number: u8| format!("witness w{number} {}\n", witness_key(number));
    let fill = |template: &str| {
        template
            .replace("$3", &(w(0) + &w(1) + &w(2)))
            .replace("$w0", &w(0))
            .replace("$key0", &witness_key(0).to_string())
            .replace("$key3", &witness_key(3).to_string())
            .replace("$logkey", &log_key().to_string())
            .replace("$log", &format!("log {}\n", log_key()))
            .replace(
                "$samelog",
                &key("other.example", KeyKind::Log, 1).to_string(),
            )
            .replace(
                "$same0",
                &key("other.example", KeyKind::Cosigner, 100).to_string(),
            )
    };
    faulty_lines()
        .into_iter()
        .chain(faulty_names())
        .map(|(name, line, fault, template)| (name, line, fault, fill(template)))
        .collect()
}

#[test]
fn every_fault_names_its_line() {
    for (name, line, fault, text) in faulty() {
        let error = PolicyError { line, fault };
        assert_eq!(Policy::parse(text.as_bytes()), Err(error), "{name}");
    }
}

#[test]
fn limits_are_where_they_are_said_to_be() {
    let many_logs = |count: u8| {
        let log = |number| format!("log {}\n", key(ORIGIN, KeyKind::Log, number));
        (0..count).map(log).collect::<String>() + "quorum none\n"
    };
    assert_eq!(parse(&many_logs(64)).logs().len(), 64);
    refused(&many_logs(65), 65, PolicyFault::TooMany { limit: 64 });
    let many_witnesses = |count: u8| {
        let witness = |number| format!("witness w{number} {}\n", witness_key(number));
        (0..count).map(witness).collect::<String>()
    };
    let all = many_witnesses(64);
    assert_eq!(parse(&format!("{all}quorum none\n")).witnesses().len(), 64);
    refused(&many_witnesses(65), 65, PolicyFault::TooMany { limit: 64 });
    // The deepest nesting that fits: each group holds the one before.
    let mut chain = format!("{}group g0 any w0\n", many_witnesses(1));
    for number in 1..64 {
        chain += &format!("group g{number} all g{}\n", number - 1);
    }
    let deepest = parse(&format!("{chain}quorum g63\n"));
    let signed = cosign(sign(head()), &[(0, TIME_S)]);
    assert!(matches!(
        deepest.standing(&signed),
        Standing::Witnessed { time_s: TIME_S, .. }
    ));
    let over = format!("{chain}group g64 all g63\n");
    refused(&over, 66, PolicyFault::TooMany { limit: 64 });
    let long = format!("# {}\nquorum none\n", "x".repeat(POLICY_MAX_BYTES));
    refused(&long, 1, PolicyFault::TooLong);
}
