//! Noise for signatures: what was signed once is changed, and must no longer verify.

use std::sync::LazyLock;

use candor_wire::cbor::{self, Canonical, decode, encode};
use candor_wire::cell::{CellKeyring, SignedAcknowledgement, SignedCellKeys};
use candor_wire::erasure::{ERASURE_VERSION, Erasure, SignedErasure};
use candor_wire::errand::{ERRAND_VERSION, ErrandToken, Purpose, SignedErrand};
use candor_wire::head::{HEAD_VERSION, Head, HeadHash, SignedHead};
use candor_wire::ids::{ObjectId, RequestNonce, StatementId};
use candor_wire::limits::REQUEST_SKEW_SECONDS;
use candor_wire::linking::{LINKING_VERSION, SignedVerdict, Verdict};
use candor_wire::request::{self, Covered, SignatureHeaders};
use candor_wire::sign::Domain;
use candor_wire::statement::SignedEntry;

use super::choices::Choices;
use super::known::{KEYRING, STRANGER, key_of};
use super::seeds;
use crate::sample::{
    ACCOUNT, LAPTOP, NOW, VAULT, acknowledgement_key, cell, cell_keys, cell_root, family,
};

/// A signed thing, its canonical bytes, and whether other bytes of the kind verify.
struct Signed {
    bytes: Vec<u8>,
    verifies: fn(&[u8]) -> bool,
}

fn of<T: Canonical>(value: &T, verifies: fn(&[u8]) -> bool) -> Signed {
    let bytes = encode(value);
    Signed { bytes, verifies }
}

fn errand() -> Signed {
    let token = ErrandToken {
        version: ERRAND_VERSION,
        account: Some(ACCOUNT),
        signer: Some(LAPTOP),
        purpose: Purpose::Restore,
        cell: cell(),
        created: NOW,
        expires: NOW.plus_ms(60_000),
        nonce: RequestNonce::from_bytes([0x4e; 16]),
    };
    of(
        &SignedErrand::sign(&token, key_of(Some(LAPTOP)).ed25519()),
        |bytes| {
            let key = key_of(Some(LAPTOP)).ed25519().public();
            decode::<SignedErrand>(bytes)
                .is_ok_and(|signed| signed.verify(&key, &cell(), NOW, 0).is_ok())
        },
    )
}

fn head() -> Signed {
    let head = Head {
        version: HEAD_VERSION,
        account: ACCOUNT,
        vault: VAULT,
        counter: 2,
        previous: Some(HeadHash([0x0f; 32])),
        manifest: ObjectId::from_bytes([0x3a; 32]),
        epoch: 1,
        device: LAPTOP,
        time: NOW,
        condemned: vec![ObjectId::from_bytes([1; 32]), ObjectId::from_bytes([2; 32])],
        runs: None,
    };
    of(
        &SignedHead::sign(&head, key_of(Some(LAPTOP)).ed25519()),
        |bytes| {
            let key = |_: &_| Some(key_of(Some(LAPTOP)).ed25519().public());
            decode::<SignedHead>(bytes)
                .is_ok_and(|signed| signed.verify(&ACCOUNT, &VAULT, key).is_ok())
        },
    )
}

fn acknowledgement() -> Signed {
    let grower = family();
    let signed = grower.records[2]
        .acknowledgement
        .clone()
        .expect("the sample is acknowledged");
    of(&signed, |bytes| {
        decode::<SignedAcknowledgement>(bytes).is_ok_and(|signed| KEYRING.check(&signed).is_ok())
    })
}

/// A cell's description with one generation of keys, which only its root signs.
fn description() -> Signed {
    let description = candor_wire::api::CellDescription {
        version: candor_wire::api::API_VERSION,
        keys: vec![SignedCellKeys::sign(&cell_keys(), &cell_root())],
    };
    of(&description, |bytes| {
        decode::<candor_wire::api::CellDescription>(bytes).is_ok_and(|description| {
            CellKeyring::verify(&cell_root().public(), &description.keys).is_ok()
        })
    })
}

fn erasure() -> Signed {
    let erasure = Erasure {
        version: ERASURE_VERSION,
        cell: cell(),
        serial: 1,
        account: ACCOUNT,
        vault: Some(VAULT),
        asked: StatementId::from_bytes([0x99; 32]),
        asked_at: NOW,
        erased_at: NOW,
        objects: 3,
        bytes: 196_608,
        consents: 1,
    };
    of(
        &SignedErasure::sign(&erasure, &acknowledgement_key()),
        |bytes| decode::<SignedErasure>(bytes).is_ok_and(|signed| signed.verify(&KEYRING).is_ok()),
    )
}

fn verdict() -> Signed {
    let verdict = Verdict {
        version: LINKING_VERSION,
        accepted: true,
        request: [0x44; 32],
        gift: None,
    };
    of(
        &SignedVerdict::sign(&verdict, key_of(Some(LAPTOP)).ed25519()),
        |bytes| {
            let key = key_of(Some(LAPTOP)).ed25519().public();
            decode::<SignedVerdict>(bytes).is_ok_and(|signed| signed.verify(&key).is_ok())
        },
    )
}

/// A statement, which carries two signatures.
fn statement() -> Signed {
    let grower = family();
    let statement = grower.records[2].statement.as_ref();
    let bytes = statement.expect("the sample has it").signed.clone();
    Signed {
        bytes,
        verifies: |bytes| {
            let Ok(signed) = cbor::decode::<SignedEntry>(bytes) else {
                return false;
            };
            let key = key_of(Some(LAPTOP)).public();
            key.verify(Domain::STATEMENT, &signed.entry, &signed.signature)
                .is_ok()
        },
    }
}

static SAMPLES: LazyLock<[Signed; 7]> = LazyLock::new(|| {
    let samples = [
        errand(),
        head(),
        acknowledgement(),
        description(),
        erasure(),
        verdict(),
        statement(),
    ];
    for sample in &samples {
        assert!((sample.verifies)(&sample.bytes), "a sample verifies");
    }
    samples
});

/// Changes what was signed, signatures included: only the very bytes that the signer made verify. A
/// description alone may lose its version: that stands outside of what is signed.
pub fn signatures(noise: &[u8]) {
    let mut choices = Choices::new(noise);
    let kind = choices.below(SAMPLES.len());
    let sample = &SAMPLES[kind];
    let changed = choices.edit(&sample.bytes);
    if !(sample.verifies)(&changed) {
        return;
    }
    let keys = |bytes: &[u8]| {
        decode::<candor_wire::api::CellDescription>(bytes).map(|description| description.keys)
    };
    let is_same = changed == sample.bytes || (kind == 3 && keys(&changed) == keys(&sample.bytes));
    assert!(is_same, "sample {kind} verifies after a change");
}

const NONCE: RequestNonce = RequestNonce::from_bytes([9; 16]);

const COVERED: Covered<'static> = Covered {
    method: "PUT",
    authority: "00.cell.invalid",
    path: "/v1/accounts/x/vaults/y/head",
    query: "after=1",
    device: "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
    authorization: "grant 00",
    placement: "1",
    digest: Some("sha-256=:AA==:"),
};

/// Headers from nowhere: nothing that a stranger did not sign is taken as theirs.
fn raw_request(mut choices: Choices<'_>) {
    let created = choices.number() as i64;
    let now = match choices.once_in(2) {
        true => choices.number() as i64,
        false => created,
    };
    let split = choices.below(512);
    let input = String::from_utf8_lossy(choices.take(split)).into_owned();
    let signature = String::from_utf8_lossy(choices.rest()).into_owned();
    let headers = SignatureHeaders { input, signature };
    let key = STRANGER.ed25519().public();
    assert!(
        request::verify(&COVERED, &headers, now, &key).is_err(),
        "a forged request"
    );
}

/// A signed request with something changed: taken only if it is the same, and in time.
fn changed_request(mut choices: Choices<'_>) {
    let key = key_of(Some(LAPTOP)).ed25519();
    let created = choices.number() as i64;
    let good = request::sign(&COVERED, created, &NONCE, key);
    let verify = |covered: &Covered<'_>, headers: &SignatureHeaders, now| {
        request::verify(covered, headers, now, &key.public())
    };
    let verified = verify(&COVERED, &good, created).expect("what was signed verifies");
    assert_eq!((verified.created, verified.nonce), (created, NONCE));
    let part = choices.below(10);
    let changed =
        |choices: &mut Choices<'_>, text: &str| String::from_utf8(choices.edit(text.as_bytes()));
    if part < 2 {
        let mut headers = good.clone();
        let text = match part {
            0 => &mut headers.input,
            _ => &mut headers.signature,
        };
        let Ok(new) = changed(&mut choices, text) else {
            return;
        };
        *text = new;
        let taken = verify(&COVERED, &headers, created).is_ok();
        assert_eq!(taken, headers == good, "other headers are taken");
        return;
    }
    let old = part_of(part);
    let Ok(new) = changed(&mut choices, old) else {
        return;
    };
    // A line end in a value could spell another component; HTTP has none in any of them.
    if new.contains(['\n', '\r']) {
        return;
    }
    let taken = verify(&with(part, &new), &good, created).is_ok();
    assert_eq!(taken, new == old, "another request is taken: {part} {new}");
    let late = created.saturating_add(choices.below(1000) as i64);
    let in_time = late.abs_diff(created) <= REQUEST_SKEW_SECONDS.unsigned_abs();
    let taken = verify(&COVERED, &good, late).is_ok();
    assert_eq!(taken, in_time, "{created} {late}");
}

/// One of the components of the sample.
fn part_of(part: usize) -> &'static str {
    match part {
        2 => COVERED.method,
        3 => COVERED.authority,
        4 => COVERED.path,
        5 => COVERED.query,
        6 => COVERED.authorization,
        7 => COVERED.placement,
        8 => COVERED.device,
        _ => COVERED.digest.unwrap_or_default(),
    }
}

/// The sample with another value of one component.
fn with(part: usize, new: &str) -> Covered<'_> {
    let mut covered: Covered<'_> = COVERED;
    match part {
        2 => covered.method = new,
        3 => covered.authority = new,
        4 => covered.path = new,
        5 => covered.query = new,
        6 => covered.authorization = new,
        7 => covered.placement = new,
        8 => covered.device = new,
        _ => covered.digest = Some(new),
    }
    covered
}

/// Signature headers of requests.
pub fn requests(noise: &[u8]) {
    let mut choices = Choices::new(noise);
    match choices.byte() % 3 {
        0 => raw_request(choices),
        1 => changed_request(choices),
        _ => {
            let body = choices.rest();
            let digest = request::content_digest(body);
            assert!(request::check_digest(&digest, body).is_ok());
            let text = String::from_utf8_lossy(body);
            let is_own = text == digest;
            assert_eq!(request::check_digest(&text, body).is_ok(), is_own);
        }
    }
}

/// A signed request's headers, and decisions.
pub fn request_seeds() -> Vec<Vec<u8>> {
    let key = key_of(Some(LAPTOP)).ed25519();
    let headers = request::sign(&COVERED, 1_000, &NONCE, key);
    let mut raw = vec![0];
    raw.extend_from_slice(&1_000u64.to_be_bytes());
    raw.push(0);
    raw.extend_from_slice(&(headers.input.len() as u16).to_be_bytes());
    raw.extend_from_slice(headers.input.as_bytes());
    raw.extend_from_slice(headers.signature.as_bytes());
    let decisions = seeds::selected(1, seeds::decisions());
    decisions.chain([raw, b"\x02body".to_vec()]).collect()
}

/// Each sample with each kind of edit.
pub fn signature_seeds() -> Vec<Vec<u8>> {
    let kinds = 0..SAMPLES.len() as u8;
    let edits = kinds.flat_map(|kind| (0..7).map(move |edit| vec![kind, 0, edit, 0, 40, 3, 1]));
    edits.chain(seeds::decisions()).collect()
}
