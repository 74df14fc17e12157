//! Noise for receipts: one spelling, and nothing is proven but what the vectors prove.

use std::sync::LazyLock;

use candor_log::erasure_receipt::{ErasureReceipt, VerifiedErasure};
use candor_log::policy::Policy;
use candor_log::receipt::{Receipt, Verified};
use candor_wire::Millis;
use candor_wire::cbor::encode;

use super::choices::Choices;
use super::{Noise, seeds};

/// Accepts every log, and asks for no witnesses.
static NOBODY: LazyLock<Policy> =
    LazyLock::new(|| Policy::parse(b"quorum none\n").expect("this is a policy"));

fn bytes_of(fields: Vec<String>) -> Vec<Vec<u8>> {
    fields.iter().filter_map(|text| seeds::hex(text)).collect()
}

static RECEIPTS: LazyLock<Vec<(Vec<u8>, Verified)>> = LazyLock::new(|| {
    let all = bytes_of(seeds::fields_in("receipt/accepted.txt", "receipt", 2));
    let verified = |bytes: Vec<u8>| {
        let receipt = Receipt::decode(&bytes).expect("the vector is a receipt");
        let verified = receipt.verify(&NOBODY).expect("the vector verifies");
        (bytes, verified)
    };
    all.into_iter().map(verified).collect()
});

static ERASURES: LazyLock<Vec<(Vec<u8>, VerifiedErasure)>> = LazyLock::new(|| {
    let all = bytes_of(seeds::fields_in("erasure/receipts.txt", "accept", 3));
    let verified = |bytes: Vec<u8>| {
        let receipt = ErasureReceipt::decode(&bytes).expect("the vector is a receipt");
        let verified = receipt.verify(&NOBODY).expect("the vector verifies");
        (bytes, verified)
    };
    all.into_iter().map(verified).collect()
});

/// What counts about a receipt: who agreed to what, when, with whom.
fn same_consent(a: &Verified, b: &Verified) -> bool {
    let of = |one: &Verified| (one.id, one.account, one.acknowledged, one.cell);
    a.record == b.record && of(a) == of(b)
}

fn receipt(bytes: &[u8]) {
    let Ok(receipt) = Receipt::decode(bytes) else {
        return;
    };
    assert_eq!(receipt.encode(), bytes);
    assert_eq!(
        Receipt::from_text(&receipt.to_text()).as_ref(),
        Ok(&receipt)
    );
    if let Ok(verified) = receipt.verify(&NOBODY) {
        let known = RECEIPTS.iter();
        let is_known = known
            .into_iter()
            .any(|(_, one)| same_consent(one, &verified));
        assert!(is_known, "a forged consent verifies");
        let json = verified.to_json_ld(Millis(0));
        let json = serde_json::from_str::<serde_json::Value>(&json);
        assert!(json.is_ok(), "the document is no JSON");
    }
}

fn erasure(bytes: &[u8]) {
    let Ok(receipt) = ErasureReceipt::decode(bytes) else {
        return;
    };
    assert_eq!(encode(&receipt), bytes);
    let again = ErasureReceipt::from_text(&receipt.to_text());
    assert_eq!(again.as_ref(), Ok(&receipt));
    if let Ok(verified) = receipt.verify(&NOBODY) {
        let known = ERASURES.iter();
        let is_known = known
            .into_iter()
            .any(|(_, one)| one.erasure == verified.erasure);
        assert!(is_known, "a forged erasure verifies");
    }
}

/// A receipt of the vectors, changed.
fn changed(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let which = choices.below(RECEIPTS.len() + ERASURES.len());
    match RECEIPTS.get(which) {
        Some((good, _)) => receipt(&choices.edit(good)),
        None => erasure(&choices.edit(&ERASURES[which - RECEIPTS.len()].0)),
    }
}

/// Texts as they come in mail.
fn texts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(receipt) = Receipt::from_text(&text) {
        assert_eq!(
            Receipt::from_text(&receipt.to_text()).as_ref(),
            Ok(&receipt)
        );
    }
    if let Ok(receipt) = ErasureReceipt::from_text(&text) {
        assert!(candor_log::erasure_receipt::is_erasure_receipt(&text));
        let again = ErasureReceipt::from_text(&receipt.to_text());
        assert_eq!(again.as_ref(), Ok(&receipt));
    }
}

/// The first byte selects a row; rows are only ever added at the end.
const FORMS: &[Noise] = &[receipt, erasure, changed, texts];

/// Receipts of consents and of erasures.
pub fn receipts(noise: &[u8]) {
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    FORMS[usize::from(*selector) % FORMS.len()](bytes);
}

pub fn receipt_seeds() -> Vec<Vec<u8>> {
    let receipts = seeds::bytes_in("receipt/accepted.txt", 500);
    let erasures = seeds::bytes_in("erasure/receipts.txt", 300);
    let texts = ["receipt/witnessed.receipt", "receipt/lonely.receipt"];
    let mut texts = texts.map(seeds::file).to_vec();
    let erasure_texts = ERASURES.iter().filter_map(|(bytes, _)| {
        let receipt = ErasureReceipt::decode(bytes).ok()?;
        Some(receipt.to_text().into_bytes())
    });
    texts.extend(erasure_texts);
    let mut all: Vec<Vec<u8>> = seeds::selected(0, receipts).collect();
    all.extend(seeds::selected(1, erasures));
    all.extend(seeds::selected(2, seeds::decisions()));
    all.extend(seeds::selected(3, texts));
    all
}
