//! Limits that two parties share, at their numbers in docs/formats: just as much is taken, and no more.

use candor_testkit::sample::*;
use candor_wire::api::{BodyKind, HasObjects, LinkMessage};
use candor_wire::cbor::{Canonical, CodecError, decode};
use candor_wire::cell::{Acknowledgement, CellKeys, SignedAcknowledgement};
use candor_wire::chain::Record;
use candor_wire::consent_record::{ConsentRecord, RecordFault};
use candor_wire::erasure::{Erasure, SignedErasure};
use candor_wire::errand::{ErrandError, ErrandToken, SignedErrand};
use candor_wire::head::{Head, SignedHead};
use candor_wire::limits::{OBJECT_MIN_BYTES, RESCUED_MAX};
use candor_wire::linking::{JoinRequest, LINK_MAX_MS, SignedVerdict, Verdict, WriterGift};
use candor_wire::statement::{Entry, SignedEntry};

/// So many bytes are read, and found to be no value; one more is refused for its length alone.
#[track_caller]
fn longest<T: Canonical>(limit_bytes: usize) {
    let what = T::WHAT;
    let refusal = |bytes: usize| decode::<T>(&vec![0; bytes]).err();
    assert_eq!(
        refusal(limit_bytes),
        Some(CodecError::Malformed { what }),
        "{what}"
    );
    assert_eq!(
        refusal(limit_bytes + 1),
        Some(CodecError::TooLong {
            what,
            bytes: limit_bytes + 1,
            limit_bytes
        })
    );
}

/// docs/formats/statements.md; an erasure has the lengths of an acknowledgement.
#[test]
fn what_is_signed_has_a_longest_encoding() {
    longest::<SignedEntry>(163_840);
    longest::<Entry>(163_840);
    longest::<ConsentRecord>(163_840);
    longest::<Record>(165_888);
    longest::<Head>(655_360);
    longest::<SignedHead>(655_488);
    longest::<Acknowledgement>(512);
    longest::<SignedAcknowledgement>(640);
    longest::<CellKeys>(2_048);
    longest::<Erasure>(512);
    longest::<SignedErasure>(640);
}

/// docs/formats/api.md and vault.md.
#[test]
fn bodies_and_objects_have_a_largest_size() {
    longest::<HasObjects>(1_048_576);
    longest::<LinkMessage>(1_048_576);
    assert_eq!(BodyKind::Cbor("HasObjects").max_bytes(), 1_048_576);
    assert_eq!(BodyKind::Object.max_bytes(), 16_777_216);
    assert_eq!(OBJECT_MIN_BYTES, 65_536);
    assert_eq!(RESCUED_MAX, 8_192);
}

/// docs/formats/linking.md: ten minutes, and messages of 8 KiB.
#[test]
fn a_link_has_its_time_and_its_messages_a_longest_encoding() {
    assert_eq!(LINK_MAX_MS, 600_000);
    longest::<JoinRequest>(8_192);
    longest::<SignedVerdict>(8_192);
    longest::<Verdict>(8_192);
    longest::<WriterGift>(8_192);
}

/// docs/formats/consent.md: 13 months of 31 days.
#[test]
fn a_consent_lasts_13_months_and_no_longer() {
    let lasting = |ms| {
        let mut record = consent_record(LAPTOP);
        record.ends_at = record.given_at.plus_ms(ms);
        record.check()
    };
    assert_eq!(lasting(34_819_200_000), Ok(()));
    assert_eq!(lasting(34_819_200_001), Err(RecordFault::Duration));
}

/// docs/formats/statements.md, Errand.
#[test]
fn an_errand_lasts_a_day_and_no_longer() {
    let laptop = laptop();
    let lasting = |ms| {
        let token = ErrandToken {
            expires: NOW.plus_ms(ms),
            ..crate::small::token()
        };
        let signed = SignedErrand::sign(&token, laptop.ed25519());
        let key = laptop.ed25519().public();
        signed.verify(&key, &cell(), NOW, 0).map(drop)
    };
    assert_eq!(lasting(86_400_000), Ok(()));
    assert_eq!(lasting(86_400_001), Err(ErrandError::Time));
}
