//! The vectors under `vectors/wire/`. A file has one line for each vector:
//! `accept NAME HEX` or `reject NAME REASON HEX`; lines that begin with `#` are remarks.
//!
//! The accepted ones are made anew here from fixed keys and must come out the same; then every
//! line of the file is decoded and must be judged as it says.

use std::fmt::Write as _;
use std::path::PathBuf;

use candor_wire::api::*;
use candor_wire::cbor::{Canonical, CodecError, decode, encode};
use candor_wire::cell::*;
use candor_wire::chain::Record;
use candor_wire::erasure::{Erasure, ErasureAsked, ErasureCancelled, SignedErasure};
use candor_wire::errand::SignedErrand;
use candor_wire::head::SignedHead;
use candor_wire::ids::{ObjectId, Salt, from_hex, to_hex};
use candor_wire::linking::{JoinRequest, LinkCode, Verdict, WriterGift};
use candor_wire::revocation::DeviceRevoked;
use candor_wire::statement::*;
use candor_wire::time::Millis;

use crate::small::{head, invitation, token};
use candor_testkit::sample::*;

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| from_hex::<1>(std::str::from_utf8(pair).unwrap()).unwrap()[0])
        .collect()
}

fn reason(error: &CodecError) -> &'static str {
    match error {
        CodecError::Malformed { .. } => "malformed",
        CodecError::NotCanonical { .. } => "not-canonical",
        CodecError::TooLong { .. } => "too-long",
        CodecError::Version { .. } => "version",
    }
}

/// Ways to spell a value that are not canonical, and ways to break it. Every value here is a map.
fn spoilt(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let pairs = usize::from(good[0] & 0x1f);
    let mut long_head = vec![0xb8, u8::try_from(pairs).unwrap()];
    long_head.extend_from_slice(&good[1..]);
    let mut indefinite = vec![0xbf];
    indefinite.extend_from_slice(&good[1..]);
    indefinite.push(0xff);
    let mut long_key = vec![good[0], 0x18, good[1]];
    long_key.extend_from_slice(&good[2..]);
    let mut unknown_key = good.to_vec();
    unknown_key[0] += 1;
    unknown_key.extend_from_slice(&[0x16, 0xf6]);
    let mut trailing = good.to_vec();
    trailing.push(0);
    vec![
        ("empty", Vec::new()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("trailing-byte", trailing),
        ("long-map-head", long_head),
        ("indefinite-map", indefinite),
        ("long-key", long_key),
        ("unknown-key", unknown_key),
        ("an-array", vec![0x80]),
    ]
}

/// Compares a file of vectors with what this build makes, then judges every line of the file.
#[expect(
    clippy::disallowed_methods,
    reason = "the crate does no I/O; its test reads the vectors"
)]
fn check<T: Canonical>(file: &str, remark: &str, accepted: &[(&str, Vec<u8>)]) {
    let mut made = format!("# {remark}\n# accept NAME HEX | reject NAME REASON HEX\n");
    for (name, bytes) in accepted {
        writeln!(made, "accept {name} {}", to_hex(bytes)).unwrap();
    }
    for (name, bytes) in spoilt(&accepted[0].1) {
        let error = decode::<T>(&bytes)
            .err()
            .unwrap_or_else(|| panic!("{file}: {name} was accepted"));
        writeln!(made, "reject {name} {} {}", reason(&error), to_hex(&bytes)).unwrap();
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("vectors/wire").join(file);
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    if stored != made {
        let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(file);
        std::fs::write(&out, &made).unwrap();
        panic!(
            "{file}: this build makes other bytes than the stored vectors; see {}",
            out.display()
        );
    }
    let mut judged = 0;
    for line in stored.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["accept", name, hex] => {
                let value =
                    decode::<T>(&bytes_of(hex)).unwrap_or_else(|e| panic!("{file}: {name}: {e}"));
                assert_eq!(encode(&value), bytes_of(hex), "{file}: {name}");
            }
            ["reject", name, why, hex] => {
                let error = decode::<T>(&bytes_of(hex)).err();
                assert_eq!(error.as_ref().map(reason), Some(why), "{file}: {name}");
            }
            _ => panic!("{file}: not a vector: {line}"),
        }
        judged += 1;
    }
    assert!(judged > 8, "{file} has too few vectors");
}

fn full() -> Grower {
    let mut grower = family();
    grower
        .push(Some(LAPTOP), &laptop(), consent(LAPTOP))
        .push(Some(LAPTOP), &laptop(), withdrawal(Some(VAULT)))
        .push(
            Some(LAPTOP),
            &laptop(),
            added(PHONE, Role::WriteOnly, &phone()),
        )
        .push(
            Some(LAPTOP),
            &laptop(),
            epoch(Some(VAULT), 2, &[LAPTOP, PHONE]),
        );
    grower
}

fn entry_of(record: &Record) -> Entry {
    record.statement.as_ref().unwrap().parse().unwrap().entry
}

#[test]
fn bodies() {
    let grower = full();
    let body = |i: usize| entry_of(&grower.records[i]).body;
    check::<Genesis>(
        "genesis.txt",
        "Body of a genesis statement.",
        &[("genesis", body(0))],
    );
    check::<DeviceAdded>(
        "device-added.txt",
        "Body of a device statement.",
        &[("full", body(1)), ("write-only", body(6))],
    );
    check::<candor_wire::epoch::EpochRecord>(
        "epoch.txt",
        "Body of an epoch statement.",
        &[
            ("account-first", body(2)),
            ("vault-first", body(3)),
            ("vault-second", body(7)),
        ],
    );
    check::<candor_wire::consent_record::ConsentRecord>(
        "consent.txt",
        "Body of a consent statement.",
        &[("backup", body(4))],
    );
    check::<candor_wire::consent_record::Withdrawal>(
        "withdrawal.txt",
        "Body of a withdrawal.",
        &[("one-vault", body(5))],
    );
    let accepted = crate::re_anchor::sample(&grower);
    check::<candor_wire::re_anchor::ReAnchor>(
        "re-anchor.txt",
        "Body of a re-anchoring.",
        &[("chain-head-and-log", encode(&accepted))],
    );
    let heads = [
        crate::revocation::pin(VAULT, 7, 0x77),
        crate::revocation::pin(candor_wire::VaultId::from_bytes([0xb2; 16]), 1, 0x78),
    ];
    check::<LinkCode>(
        "link-code.txt",
        "What a linking code holds.",
        &[("full", encode(&crate::linking::code()))],
    );
    check::<JoinRequest>(
        "join-request.txt",
        "What a device that joins says it is.",
        &[("phone", encode(&crate::linking::request()))],
    );
    check::<Verdict>(
        "link-verdict.txt",
        "What the person said about it.",
        &[("yes", encode(&crate::linking::verdict()))],
    );
    check::<WriterGift>(
        "link-gift.txt",
        "What a write-only device is given.",
        &[("one-vault", encode(&crate::linking::gift()))],
    );
    check::<DeviceRevoked>(
        "device-revoked.txt",
        "Body of a revocation.",
        &[
            ("no-heads", encode(&crate::revocation::revoked(PHONE, &[]))),
            (
                "two-heads",
                encode(&crate::revocation::revoked(PHONE, &heads)),
            ),
        ],
    );
    check::<ErasureAsked>(
        "erasure-asked.txt",
        "Body of a wish to erase.",
        &[
            ("vault", encode(&crate::erasure::asked(Some(VAULT)))),
            ("account", encode(&crate::erasure::asked(None))),
        ],
    );
    check::<ErasureCancelled>(
        "erasure-cancelled.txt",
        "Body of a wish to erase, taken back.",
        &[("one", encode(&crate::erasure::cancelled()))],
    );
}

#[test]
fn statements() {
    let grower = full();
    let entry = |i: usize| encode(&entry_of(&grower.records[i]));
    check::<Entry>(
        "entry.txt",
        "What is signed of a statement, at its place in a chain.",
        &[("by-the-root", entry(0)), ("by-a-device", entry(4))],
    );
    let signed = |i: usize| grower.records[i].statement.as_ref().unwrap().signed.clone();
    check::<SignedEntry>(
        "signed-entry.txt",
        "A statement with both signatures.",
        &[("consent", signed(4)), ("withdrawal", signed(5))],
    );
    let mut erased = grower.records[4].clone();
    erased.statement = None;
    let mut fresh = grower.records[5].clone();
    fresh.acknowledgement = None;
    check::<Record>(
        "record.txt",
        "A place of a chain: acknowledged, not yet acknowledged, erased.",
        &[
            ("acknowledged", encode(&grower.records[5])),
            ("not-acknowledged", encode(&fresh)),
            ("erased", encode(&erased)),
        ],
    );
}

#[test]
fn tokens_heads_and_cells() {
    let errand = SignedErrand::sign(&token(), laptop().ed25519());
    check::<SignedErrand>(
        "errand.txt",
        "A signed errand.",
        &[("restore", encode(&errand))],
    );
    let signed = SignedHead::sign(&head(), laptop().ed25519());
    check::<SignedHead>("head.txt", "A signed head.", &[("second", encode(&signed))]);
    let run = SignedHead::sign(&crate::small::run_head(), laptop().ed25519());
    check::<SignedHead>(
        "run-head.txt",
        "A signed head of a write-only device.",
        &[("second", encode(&run))],
    );
    check::<CellKeys>(
        "cell-keys.txt",
        "A cell's keys.",
        &[("first", encode(&cell_keys()))],
    );
    let with_right = invitation();
    let without = Invitation {
        right: None,
        ..invitation()
    };
    check::<Invitation>(
        "invitation.txt",
        "An invitation, before its text form.",
        &[
            ("with-right", encode(&with_right)),
            ("without-right", encode(&without)),
        ],
    );
    let said = crate::erasure::erasure();
    let of_account = Erasure {
        vault: None,
        ..said.clone()
    };
    check::<Erasure>(
        "erasure.txt",
        "What a cell says about an erasure.",
        &[("vault", encode(&said)), ("account", encode(&of_account))],
    );
    let signed = SignedErasure::sign(&said, &acknowledgement_key());
    check::<SignedErasure>(
        "signed-erasure.txt",
        "The same, signed.",
        &[("vault", encode(&signed))],
    );
    let grower = full();
    let ack = grower.records[4].acknowledgement.clone().unwrap();
    check::<SignedAcknowledgement>(
        "acknowledgement.txt",
        "A signed acknowledgement.",
        &[("consent", encode(&ack))],
    );
}

#[test]
fn bodies_of_the_api() {
    let grower = full();
    let version = API_VERSION;
    let description = CellDescription {
        version,
        keys: vec![SignedCellKeys::sign(&cell_keys(), &cell_root())],
    };
    check::<CellDescription>(
        "api-cell.txt",
        "CellDescription.",
        &[("one", encode(&description))],
    );
    let open = OpenAccount {
        version,
        account: ACCOUNT,
        right: InvitationRight([0x1f; 16]),
        records: Vec::new(),
    };
    check::<OpenAccount>(
        "api-open-account.txt",
        "OpenAccount (without records).",
        &[("empty", encode(&open))],
    );
    let appended = Appended {
        version,
        acknowledgements: vec![grower.records[4].acknowledgement.clone().unwrap()],
    };
    check::<Appended>(
        "api-appended.txt",
        "Appended.",
        &[("one", encode(&appended))],
    );
    let found = FoundAccount {
        version,
        account: ACCOUNT,
    };
    check::<FoundAccount>("api-found.txt", "FoundAccount.", &[("one", encode(&found))]);
    let page = ChainPage {
        version,
        records: vec![grower.records[5].clone()],
        length: 8,
    };
    check::<ChainPage>(
        "api-chain-page.txt",
        "ChainPage.",
        &[("one", encode(&page))],
    );
    let append = AppendChain {
        version,
        after: grower.tip,
        records: Vec::new(),
    };
    check::<AppendChain>(
        "api-append.txt",
        "AppendChain (without records).",
        &[("empty", encode(&append))],
    );
    let message = LinkMessage {
        version,
        place: 2,
        sealed: vec![0x55; 60],
    };
    check::<LinkMessage>(
        "api-link-message.txt",
        "LinkMessage.",
        &[("one", encode(&message))],
    );
    let mut messages = vec![LinkEntry { sealed: None }; 4];
    messages[0].sealed = Some(vec![0x55; 60]);
    let reply = LinkReply { version, messages };
    check::<LinkReply>(
        "api-link.txt",
        "LinkReply.",
        &[("one-message", encode(&reply))],
    );
    let erasure = SignedErasure::sign(&crate::erasure::erasure(), &acknowledgement_key());
    let reply = ErasureReply {
        version,
        erasure,
        salt: Salt::from_bytes([0x77; 32]),
    };
    check::<ErasureReply>(
        "api-erasure.txt",
        "ErasureReply.",
        &[("one", encode(&reply))],
    );
    let head = SignedHead::sign(&head(), laptop().ed25519());
    let reply = HeadReply {
        version,
        head: Some(head.clone()),
    };
    let none = HeadReply {
        version,
        head: None,
    };
    check::<HeadReply>(
        "api-head.txt",
        "HeadReply.",
        &[("some", encode(&reply)), ("none", encode(&none))],
    );
    let page = RunsPage {
        version,
        heads: vec![SignedHead::sign(
            &crate::small::run_head(),
            laptop().ed25519(),
        )],
        more: true,
    };
    check::<RunsPage>("api-runs.txt", "RunsPage.", &[("one", encode(&page))]);
    let swap = SwapHead {
        version,
        expected: Some(head.hash()),
        head,
        rescued: None,
    };
    let rescuing = SwapHead {
        rescued: Some(vec![ObjectId::from_bytes([4; 32])]),
        ..swap.clone()
    };
    check::<SwapHead>(
        "api-swap-head.txt",
        "SwapHead.",
        &[("one", encode(&swap)), ("rescuing", encode(&rescuing))],
    );
    let object = ObjectId::of(b"");
    let has = HasObjects {
        version,
        objects: vec![object],
    };
    check::<HasObjects>("api-has.txt", "HasObjects.", &[("one", encode(&has))]);
    let has_reply = HasReply {
        version,
        stored: vec![true, false],
        condemned: None,
    };
    let condemned = HasReply {
        condemned: Some(vec![true, false]),
        ..has_reply.clone()
    };
    check::<HasReply>(
        "api-has-reply.txt",
        "HasReply.",
        &[
            ("two", encode(&has_reply)),
            ("condemned", encode(&condemned)),
        ],
    );
    let objects = ObjectPage {
        version,
        objects: vec![ListedObject {
            object,
            bytes: 65_536,
        }],
        more: false,
    };
    check::<ObjectPage>(
        "api-objects.txt",
        "ObjectPage.",
        &[("one", encode(&objects))],
    );
    let error = ErrorReply {
        version,
        code: ErrorCode::OverQuota,
        time: Millis(1_790_000_000_000),
        used_bytes: Some(10),
        quota_bytes: Some(20),
    };
    check::<ErrorReply>("api-error.txt", "ErrorReply.", &[("quota", encode(&error))]);
}
