//! Noise for what is encoded in `candor-wire`: every canonical type, every text form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use candor_wire::api::*;
use candor_wire::cbor::{Canonical, decode, encode};
use candor_wire::cell::{
    Acknowledgement, CellKeyring, CellKeys, Invitation, InvitationError, SignedAcknowledgement,
};
use candor_wire::chain::Record;
use candor_wire::consent_record::{ConsentRecord, Withdrawal};
use candor_wire::epoch::EpochRecord;
use candor_wire::erasure::{Erasure, ErasureAsked, ErasureCancelled, SignedErasure, receipt_name};
use candor_wire::errand::{ErrandToken, SignedErrand};
use candor_wire::head::{Head, SignedHead};
use candor_wire::ids::*;
use candor_wire::linking::{
    JoinRequest, LinkCode, LinkCodeError, SignedVerdict, Verdict, WriterGift,
};
use candor_wire::re_anchor::ReAnchor;
use candor_wire::request;
use candor_wire::revocation::DeviceRevoked;
use candor_wire::sign::Ed25519Public;
use candor_wire::statement::{DeviceAdded, Entry, Genesis, SignedEntry};

use super::known::{KEYRING, STRANGER, STRANGER_PUBLIC};
use super::{Noise, seeds};
use crate::sample::{ACCOUNT, NOW, VAULT, cell, cell_root};

fn stranger() -> Ed25519Public {
    STRANGER.ed25519().public()
}

/// What decodes has one spelling.
fn canonical<T: Canonical>(bytes: &[u8]) -> Option<T> {
    let value = decode::<T>(bytes).ok()?;
    assert!(bytes.len() <= T::MAX_BYTES, "{}: too long", T::WHAT);
    assert_eq!(encode(&value), bytes, "{}: another spelling", T::WHAT);
    Some(value)
}

fn only_canonical<T: Canonical>(bytes: &[u8]) {
    canonical::<T>(bytes);
}

fn record(bytes: &[u8]) {
    let Some(record) = canonical::<Record>(bytes) else {
        return;
    };
    let Some(statement) = &record.statement else {
        return;
    };
    let Ok(parsed) = statement.parse() else {
        return;
    };
    assert!(
        parsed.verify(&STRANGER_PUBLIC).is_err(),
        "a forged statement"
    );
    let made = Record::of(statement.clone()).expect("it was parsed before");
    assert_eq!(made.commitment, parsed.id);
    assert_eq!(made.kind, parsed.body.kind());
}

fn consent(bytes: &[u8]) {
    if let Some(record) = canonical::<ConsentRecord>(bytes)
        && record.check().is_ok()
    {
        assert!(record.given_at < record.ends_at);
    }
}

fn epoch(bytes: &[u8]) {
    if let Some(record) = canonical::<EpochRecord>(bytes)
        && record.is_well_formed()
    {
        assert!(record.wrap_for(None).is_some());
    }
}

fn revoked(bytes: &[u8]) {
    if let Some(revoked) = canonical::<DeviceRevoked>(bytes)
        && revoked.is_well_formed()
    {
        for pin in &revoked.heads {
            assert_eq!(revoked.pin(&pin.vault), Some(pin));
        }
    }
}

fn errand(bytes: &[u8]) {
    let Some(signed) = canonical::<SignedErrand>(bytes) else {
        return;
    };
    assert!(signed.verify(&stranger(), &cell(), NOW, 0).is_err());
    assert_eq!(SignedErrand::from_text(&signed.to_text()), Ok(signed));
}

fn head(bytes: &[u8]) {
    let Some(signed) = canonical::<SignedHead>(bytes) else {
        return;
    };
    let forged = signed.verify(&ACCOUNT, &VAULT, |_| Some(stranger()));
    assert!(forged.is_err(), "a forged head");
    assert_eq!(signed.hash(), signed.clone().hash());
}

fn acknowledgement(bytes: &[u8]) {
    if let Some(signed) = canonical::<SignedAcknowledgement>(bytes)
        && let Ok(said) = KEYRING.check(&signed)
    {
        assert_eq!(encode(&said), signed.acknowledgement);
    }
}

fn erasure(bytes: &[u8]) {
    if let Some(signed) = canonical::<SignedErasure>(bytes)
        && let Ok(said) = signed.verify(&KEYRING)
    {
        assert_eq!(encode(&said), signed.erasure);
    }
}

fn description(bytes: &[u8]) {
    let Some(description) = canonical::<CellDescription>(bytes) else {
        return;
    };
    assert!(CellKeyring::verify(&stranger(), &description.keys).is_err());
    if let Ok(keyring) = CellKeyring::verify(&cell_root().public(), &description.keys) {
        assert_eq!(keyring.cell(), cell());
        let current = keyring.current();
        assert_eq!(keyring.generation(current.serial), Some(current));
        assert!(!current.log_origin().is_empty());
    }
}

fn verdict(bytes: &[u8]) {
    if let Some(signed) = canonical::<SignedVerdict>(bytes) {
        assert!(signed.verify(&stranger()).is_err());
        if let Ok(verdict) = signed.peek() {
            assert_eq!(encode(&verdict), signed.verdict);
        }
    }
}

/// What the text form gives back is what was written, or is not acceptable in itself.
fn invitation(bytes: &[u8]) {
    let Some(invitation) = canonical::<Invitation>(bytes) else {
        return;
    };
    let text = invitation.to_text();
    assert_eq!(text, wrapped("candor1:", bytes));
    match Invitation::from_text(&text) {
        Ok(read) => assert_eq!(read, invitation),
        Err(error) => assert_eq!(error, InvitationError::Content),
    }
}

fn link_code(bytes: &[u8]) {
    let Some(code) = canonical::<LinkCode>(bytes) else {
        return;
    };
    let text = code.to_text();
    assert_eq!(text, wrapped("candor-link1:", bytes));
    match LinkCode::from_text(&text) {
        Ok(read) => assert!(read == code && read.cell.right.is_none()),
        Err(error) => assert_eq!(error, LinkCodeError::Content),
    }
}

fn erasure_reply(bytes: &[u8]) {
    if let Some(reply) = canonical::<ErasureReply>(bytes) {
        assert_ne!(receipt_name(&reply.salt), [0; 32]);
        assert_ne!(
            reply.erasure.commitment(&reply.salt),
            StatementId::from_bytes([0; 32])
        );
    }
}

/// The first byte selects a row; stored corpora hold it, so that rows are only ever added at the end. The
/// file is where the row's vectors are, below `vectors/wire`.
const TYPES: &[(&str, Noise)] = &[
    ("genesis.txt", only_canonical::<Genesis>),
    ("device-added.txt", only_canonical::<DeviceAdded>),
    ("epoch.txt", epoch),
    ("consent.txt", consent),
    ("withdrawal.txt", only_canonical::<Withdrawal>),
    ("re-anchor.txt", only_canonical::<ReAnchor>),
    ("device-revoked.txt", revoked),
    ("erasure-asked.txt", only_canonical::<ErasureAsked>),
    ("erasure-cancelled.txt", only_canonical::<ErasureCancelled>),
    ("entry.txt", only_canonical::<Entry>),
    ("signed-entry.txt", only_canonical::<SignedEntry>),
    ("record.txt", record),
    ("errand.txt", errand),
    ("errand.txt", only_canonical::<ErrandToken>),
    ("head.txt", head),
    ("run-head.txt", head),
    ("head.txt", only_canonical::<Head>),
    ("cell-keys.txt", only_canonical::<CellKeys>),
    ("invitation.txt", invitation),
    ("erasure.txt", only_canonical::<Erasure>),
    ("signed-erasure.txt", erasure),
    ("acknowledgement.txt", acknowledgement),
    ("acknowledgement.txt", only_canonical::<Acknowledgement>),
    ("link-code.txt", link_code),
    ("join-request.txt", only_canonical::<JoinRequest>),
    ("link-verdict.txt", only_canonical::<Verdict>),
    ("link-verdict.txt", verdict),
    ("link-gift.txt", only_canonical::<WriterGift>),
    ("api-cell.txt", description),
    ("api-open-account.txt", only_canonical::<OpenAccount>),
    ("api-appended.txt", only_canonical::<Appended>),
    ("api-found.txt", only_canonical::<FoundAccount>),
    ("api-chain-page.txt", only_canonical::<ChainPage>),
    ("api-append.txt", only_canonical::<AppendChain>),
    ("api-link-message.txt", only_canonical::<LinkMessage>),
    ("api-link.txt", only_canonical::<LinkReply>),
    ("api-erasure.txt", erasure_reply),
    ("api-head.txt", only_canonical::<HeadReply>),
    ("api-runs.txt", only_canonical::<RunsPage>),
    ("api-swap-head.txt", only_canonical::<SwapHead>),
    ("api-has.txt", only_canonical::<HasObjects>),
    ("api-has-reply.txt", only_canonical::<HasReply>),
    ("api-objects.txt", only_canonical::<ObjectPage>),
    ("api-error.txt", only_canonical::<ErrorReply>),
    ("api-error.txt", only_canonical::<StateReply>),
];

/// Every canonical type: what decodes has one spelling, and no stranger's signature is taken.
pub fn types(noise: &[u8]) {
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    let (_, check) = TYPES[usize::from(*selector) % TYPES.len()];
    check(bytes);
}

/// The vectors of every type.
pub fn type_seeds() -> Vec<Vec<u8>> {
    let rows = TYPES.iter().enumerate();
    rows.flat_map(|(row, (file, _))| {
        seeds::selected(row, seeds::bytes_in(&format!("wire/{file}"), 0))
    })
    .collect()
}

/// A content with prefix and check, as people copy it.
fn wrapped(prefix: &str, content: &[u8]) -> String {
    let mut bytes = content.to_vec();
    bytes.extend_from_slice(&blake3::hash(content).as_bytes()[..4]);
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn read_invitation(text: &str) {
    if let Ok(invitation) = Invitation::from_text(text) {
        assert_eq!(invitation.to_text(), text.trim());
        let addresses = &invitation.addresses;
        assert!(addresses.len() <= 8 && addresses.iter().all(|one| !one.is_empty()));
    }
}

fn read_link_code(text: &str) {
    if let Ok(code) = LinkCode::from_text(text) {
        assert_eq!(code.to_text(), text.trim());
        assert!(code.cell.right.is_none() && code.chain_length >= 1);
    }
}

fn read_errand(text: &str) {
    if let Ok(errand) = SignedErrand::from_text(text) {
        assert_eq!(errand.to_text(), text);
    }
}

fn read_ids(text: &str) {
    fn same<T: core::str::FromStr + ToString>(text: &str) {
        if let Ok(id) = text.parse::<T>() {
            assert_eq!(id.to_string(), text);
        }
    }
    same::<AccountId>(text);
    same::<DeviceId>(text);
    same::<VaultId>(text);
    same::<CellId>(text);
    same::<ObjectId>(text);
    same::<StatementId>(text);
    same::<Link>(text);
    same::<RequestNonce>(text);
    if let Ok(signer) = request::parse_device_header(text) {
        assert_eq!(request::device_header(signer.as_ref()), text);
    }
}

/// Text forms: what is read is written the same, and is sound.
pub fn texts(noise: &[u8]) {
    let Some((selector, bytes)) = noise.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    match selector % 6 {
        0 => read_invitation(&text),
        1 => read_invitation(&wrapped("candor1:", bytes)),
        2 => read_link_code(&text),
        3 => read_link_code(&wrapped("candor-link1:", bytes)),
        4 => read_errand(&text),
        _ => read_ids(&text),
    }
}

/// Contents and texts of invitations, linking codes, errands and ids.
pub fn text_seeds() -> Vec<Vec<u8>> {
    let invitations = seeds::bytes_in("wire/invitation.txt", 1);
    let codes = seeds::bytes_in("wire/link-code.txt", 1);
    let errands = seeds::bytes_in("wire/errand.txt", 1);
    let as_text = |prefix: &'static str, contents: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let texts = contents.iter().map(|content| wrapped(prefix, content));
        texts.map(String::into_bytes).collect()
    };
    let errand_texts = errands.iter().map(|one| URL_SAFE_NO_PAD.encode(one));
    let ids = ["root".to_owned(), ACCOUNT.to_string(), "0f".repeat(32)];
    let mut all: Vec<Vec<u8>> = Vec::new();
    all.extend(seeds::selected(0, as_text("candor1:", &invitations)));
    all.extend(seeds::selected(1, invitations));
    all.extend(seeds::selected(2, as_text("candor-link1:", &codes)));
    all.extend(seeds::selected(3, codes));
    all.extend(seeds::selected(
        4,
        errand_texts.map(String::into_bytes).collect(),
    ));
    all.extend(seeds::selected(5, ids.map(String::into_bytes).to_vec()));
    all
}
