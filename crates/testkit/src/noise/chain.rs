//! Noise as a chain of statements: signed with the keys of an account, so that it gets past the signatures.

use std::cell::RefCell;
use std::collections::HashMap;

use candor_consent::{Backup, admit, grant};
use candor_wire::api::{API_VERSION, ChainPage};
use candor_wire::cbor::{Canonical, decode, encode};
use candor_wire::cell::{Acknowledgement, CELL_FORMAT_VERSION, SignedAcknowledgement};
use candor_wire::chain::{AccountView, RECORD_VERSION, Record};
use candor_wire::consent_record::ServiceCode;
use candor_wire::epoch::{EPOCH_RECORD_VERSION, EpochRecord, Wrap};
use candor_wire::erasure::{ERASURE_VERSION, ErasureAsked, ErasureCancelled};
use candor_wire::head::{HEAD_VERSION, Head, HeadHash};
use candor_wire::ids::*;
use candor_wire::re_anchor::{ChainPoint, HeadChange, HeadPoint, RE_ANCHOR_VERSION, ReAnchor};
use candor_wire::revocation::{DeviceRevoked, HeadPin, REVOCATION_VERSION};
use candor_wire::sign::{Domain, Signature};
use candor_wire::statement::*;
use candor_wire::time::Millis;

use super::choices::Choices;
use super::known::{KEYRING, TABLET, key_of, public_of};
use super::seeds;
use crate::sample::*;

/// Most statements of one chain.
const STATEMENTS_MAX: usize = 10;

/// Most signatures that are kept, of 3.4 KB each.
const SIGNATURES_MAX: usize = 4096;

/// A device that no account has: what it signs is a stranger's.
const NOBODY: DeviceId = DeviceId::from_bytes([0xdf; 16]);

const DEVICES: [DeviceId; 3] = [LAPTOP, PHONE, TABLET];
const VAULTS: [VaultId; 2] = [VAULT, VaultId::from_bytes([0xb2; 16])];

/// A chain that grows, and what it says.
struct Growth {
    records: Vec<Record>,
    view: AccountView,
}

impl Growth {
    /// Genesis, the laptop, an epoch of the account and of a vault: made once.
    fn begin() -> Self {
        use std::sync::LazyLock;
        static FAMILY: LazyLock<Growth> = LazyLock::new(|| {
            let grower = family();
            Growth {
                view: grower.view(),
                records: grower.records,
            }
        });
        Self {
            records: FAMILY.records.clone(),
            view: FAMILY.view.clone(),
        }
    }

    /// Offers one record that names a signer and was signed with the key of another or the same. Refused, it
    /// changes nothing; taken, it was signed by whom it names.
    fn offer(&mut self, record: Record, signer: Option<DeviceId>, by: Option<DeviceId>) {
        let before = self.view.clone();
        if self.view.apply(&record, &KEYRING).is_err() {
            assert_eq!(self.view, before, "a refused record changed the view");
            return;
        }
        assert_eq!(self.view.next_sequence(), before.next_sequence() + 1);
        if record.statement.is_some() {
            let named = before
                .key_of(signer.as_ref())
                .expect("a taken record has a signer");
            assert_eq!(named, public_of(by), "signed by another key");
            let was_revoked = signer.is_some_and(|device| before.is_revoked(&device));
            assert!(!was_revoked, "a revoked device states something");
        }
        self.records.push(record);
    }

    /// Folded once more as a whole, the chain says the same.
    fn fold_again(&self) {
        let again = AccountView::of(ACCOUNT, &self.records, &KEYRING);
        let is_same = again.as_ref() == Ok(&self.view);
        assert!(is_same, "another fold says another thing");
    }

    /// What has to hold at the end, whatever was offered.
    fn check(&self) {
        let page = ChainPage {
            version: API_VERSION,
            records: self.records.clone(),
            length: self.view.next_sequence(),
        };
        assert_eq!(decode::<ChainPage>(&encode(&page)), Ok(page));
        for device in DEVICES {
            for vault in VAULTS {
                self.check_grant(&device, &vault);
            }
        }
        for vault in self.view.vaults() {
            if let Some(writer) = self.view.writer_of(&vault) {
                assert!(self.view.device(&writer).is_some());
            }
        }
    }

    /// Device and cell agree on what is granted, and nothing is that was revoked or is being erased.
    fn check_grant(&self, device: &DeviceId, vault: &VaultId) {
        let now = NOW.plus_ms(1000);
        let Ok(grant) = grant::<Backup>(&self.view, &KEYRING, device, Some(vault), now) else {
            return;
        };
        let services = [ServiceCode::Backup];
        let admitted = admit(
            &self.view,
            &grant.id(),
            &services,
            device,
            Some(vault),
            &cell(),
            now,
        );
        assert_eq!(
            admitted,
            Ok(()),
            "the cell refuses what the device was granted"
        );
        assert!(!self.view.is_revoked(device), "a revoked device is granted");
        let erased = self.view.erasure_of(Some(vault));
        assert!(erased.is_none(), "what is being erased is granted");
        assert!(grant.ends_at() > now);
    }
}

fn epoch_of(choices: &mut Choices<'_>, view: &AccountView) -> Body {
    let scope = match choices.below(3) {
        0 => None,
        which => Some(VAULTS[which - 1]),
    };
    let current = view.epoch(scope).map_or(0, |record| record.epoch);
    let members = choices.byte();
    let wrap = |recipient| Wrap {
        recipient,
        encapsulated: vec![0x22; 32],
        ciphertext: vec![0x33; 48],
    };
    let mut wraps = vec![wrap(None)];
    let devices = DEVICES.iter().enumerate();
    let chosen = devices.filter(|(place, _)| members & 1 << place != 0);
    wraps.extend(chosen.map(|(_, device)| wrap(Some(*device))));
    if choices.once_in(32) {
        wraps.reverse();
    }
    let number = match choices.once_in(16) {
        true => u32::from(choices.byte()),
        false => current + 1,
    };
    Body::Epoch(Box::new(EpochRecord {
        version: EPOCH_RECORD_VERSION,
        vault: scope,
        epoch: number,
        public: [0x5b; AGREEMENT_PUBLIC_BYTES],
        wraps,
        earlier: vec![0x44; if number == 1 { 0 } else { 60 }],
    }))
}

fn consent_of(choices: &mut Choices<'_>, signer: Option<DeviceId>) -> Body {
    let device = match choices.once_in(16) {
        true => choices.pick(&DEVICES),
        false => signer.unwrap_or(LAPTOP),
    };
    let mut record = consent_record(device);
    record.vault = Some(choices.pick(&VAULTS));
    match choices.below(24) {
        1 => record.ends_at = Millis(choices.number() as i64),
        2 => record.given_at = Millis(choices.number() as i64),
        3 => record.vault = None,
        4 => record.service = choices.pick(&ServiceCode::ALL),
        5 => record.purpose.clear(),
        6 => record.operations.reverse(),
        7 => record.subject = AccountId::from_bytes([7; 16]),
        _ => {}
    }
    Body::ConsentGiven(Box::new(record))
}

fn pins(choices: &mut Choices<'_>) -> Vec<HeadPin> {
    let which = choices.byte();
    let vaults = VAULTS.iter().enumerate();
    let chosen = vaults.filter(|(place, _)| which & 1 << place != 0);
    let mut pins: Vec<HeadPin> = chosen
        .map(|(_, vault)| HeadPin {
            vault: *vault,
            counter: u64::from(choices.byte() % 4),
            hash: HeadHash([choices.byte(); 32]),
        })
        .collect();
    if choices.once_in(32) {
        pins.reverse();
    }
    pins
}

fn re_anchor_of(choices: &mut Choices<'_>, view: &AccountView) -> Body {
    let point = |choices: &mut Choices<'_>| HeadPoint {
        counter: u64::from(choices.byte() % 4),
        hash: HeadHash([choices.byte(); 32]),
    };
    let heads = pins(choices)
        .into_iter()
        .map(|pin| HeadChange {
            vault: pin.vault,
            before: HeadPoint {
                counter: pin.counter,
                hash: pin.hash,
            },
            now: choices.once_in(2).then(|| point(choices)),
        })
        .collect();
    let sequence = match choices.once_in(16) {
        true => choices.number(),
        false => view.next_sequence() - 1,
    };
    Body::ReAnchored(Box::new(ReAnchor {
        version: RE_ANCHOR_VERSION,
        chain_before: ChainPoint {
            sequence: choices.number(),
            link: Link::from_bytes([4; 32]),
        },
        chain_now: ChainPoint {
            sequence,
            link: view.tip(),
        },
        heads,
        log_before: None,
        log_now: None,
    }))
}

fn erasure_of(choices: &mut Choices<'_>, view: &AccountView) -> Body {
    let standing = view.erasures();
    let asked = standing.get(choices.below(standing.len()));
    match (choices.below(2), asked) {
        (1, Some((asked, _))) => Body::ErasureCancelled(ErasureCancelled {
            version: ERASURE_VERSION,
            asked: *asked,
        }),
        _ => Body::ErasureAsked(ErasureAsked {
            version: ERASURE_VERSION,
            vault: choices.once_in(2).then(|| choices.pick(&VAULTS)),
        }),
    }
}

fn body_of(choices: &mut Choices<'_>, view: &AccountView, signer: Option<DeviceId>) -> Body {
    match choices.below(12) {
        0 => genesis(),
        1 | 2 => {
            let role = choices.pick(&[Role::Full, Role::WriteOnly]);
            let device = choices.pick(&DEVICES);
            added(device, role, key_of(Some(device)))
        }
        3 | 4 => epoch_of(choices, view),
        5 | 6 => consent_of(choices, signer),
        7 => withdrawal(choices.once_in(2).then(|| choices.pick(&VAULTS))),
        8 => re_anchor_of(choices, view),
        9 => erasure_of(choices, view),
        _ => Body::DeviceRevoked(Box::new(DeviceRevoked {
            version: REVOCATION_VERSION,
            device: choices.pick(&DEVICES),
            heads: pins(choices),
        })),
    }
}

/// The signature of a key over an entry. Signing takes a millisecond, and most of a chain is as it was before.
fn signature(by: Option<DeviceId>, entry: &[u8]) -> Signature {
    type Known = HashMap<(Option<DeviceId>, [u8; 32]), Signature>;
    thread_local! {
        static KNOWN: RefCell<Known> = RefCell::default();
    }
    let name = (by, *blake3::hash(entry).as_bytes());
    KNOWN.with_borrow_mut(|known| {
        if known.len() > SIGNATURES_MAX {
            known.clear();
        }
        let signed = known.entry(name);
        signed
            .or_insert_with(|| key_of(by).sign(Domain::STATEMENT, entry))
            .clone()
    })
}

/// The body in its canonical bytes.
fn bytes_of(body: &Body) -> Vec<u8> {
    match body {
        Body::Genesis(body) => encode(body),
        Body::DeviceAdded(body) => encode(body),
        Body::Epoch(body) => encode(body),
        Body::ConsentGiven(body) => encode(body),
        Body::ConsentWithdrawn(body) => encode(body),
        Body::ReAnchored(body) => encode(body),
        Body::ErasureAsked(body) => encode(body),
        Body::ErasureCancelled(body) => encode(body),
        Body::DeviceRevoked(body) => encode(body),
    }
}

fn acknowledged(record: &Record, view: &AccountView) -> SignedAcknowledgement {
    let tip = link(
        record.sequence,
        record.kind.code(),
        &view.tip(),
        &record.commitment,
    );
    let said = Acknowledgement {
        version: CELL_FORMAT_VERSION,
        cell: cell(),
        serial: 1,
        account: ACCOUNT,
        sequence: record.sequence,
        link: tip,
        statement: record.commitment,
        time: NOW.plus_ms(5),
    };
    SignedAcknowledgement::sign(&said, &acknowledgement_key())
}

fn spoil(record: &mut Record, choices: &mut Choices<'_>) {
    match choices.below(40) {
        1 => record.version = choices.byte(),
        2 => record.sequence = choices.number(),
        3 => record.commitment = StatementId::from_bytes(choices.array()),
        4 => record.kind = choices.pick(&Kind::ALL),
        5 | 6 => record.acknowledgement = None,
        // Erased, as a cell may when it is asked.
        7..=9 => record.statement = None,
        10 => {
            if let Some(statement) = &mut record.statement {
                statement.signed = choices.edit(&statement.signed);
            }
        }
        _ => {}
    }
}

fn step(growth: &mut Growth, choices: &mut Choices<'_>) {
    let signer = match choices.below(8) {
        0 => None,
        1 => Some(PHONE),
        2 => Some(TABLET),
        _ => Some(LAPTOP),
    };
    let by = match choices.once_in(24) {
        true => choices.pick(&[None, Some(LAPTOP), Some(PHONE), Some(NOBODY)]),
        false => signer,
    };
    // Now and then the body is whatever the noise says, signed all the same.
    let (kind, body) = match choices.once_in(12) {
        true => {
            let count = choices.below(300);
            (choices.pick(&Kind::ALL), choices.take(count).to_vec())
        }
        false => {
            let body = body_of(choices, &growth.view, signer);
            (body.kind(), bytes_of(&body))
        }
    };
    let sequence = growth.view.next_sequence();
    let entry = encode(&Entry {
        version: ENTRY_VERSION,
        account: ACCOUNT,
        sequence,
        previous: growth.view.tip(),
        kind,
        signer,
        time: NOW.plus_ms(i64::from(choices.byte())),
        label: Label::from_bytes([choices.byte(); 32]),
        body,
    });
    let salt = Salt::from_bytes([0x77; 32]);
    let signature = signature(by, &entry);
    let signed = encode(&SignedEntry { entry, signature });
    let mut record = Record {
        version: RECORD_VERSION,
        sequence,
        kind,
        commitment: commitment(&salt, &signed),
        statement: Some(Statement { signed, salt }),
        acknowledgement: None,
    };
    record.acknowledgement = Some(acknowledged(&record, &growth.view));
    spoil(&mut record, choices);
    let bytes = encode(&record);
    if bytes.len() <= <Record as Canonical>::MAX_BYTES {
        assert_eq!(decode::<Record>(&bytes).as_ref(), Ok(&record));
    }
    growth.offer(record, signer, by);
}

/// Heads of any kind are judged the same way twice, and a revoked device's only if it is pinned.
fn check_heads(growth: &Growth, choices: &mut Choices<'_>) {
    let head = Head {
        version: HEAD_VERSION,
        account: ACCOUNT,
        vault: choices.pick(&VAULTS),
        counter: u64::from(choices.byte() % 4),
        previous: None,
        manifest: ObjectId::from_bytes([3; 32]),
        epoch: u32::from(choices.byte() % 4),
        device: choices.pick(&DEVICES),
        time: NOW,
        condemned: Vec::new(),
        runs: None,
    };
    let hash = HeadHash([choices.byte(); 32]);
    let view = &growth.view;
    let judged = view.check_head(&head.vault, &head, &hash);
    assert_eq!(judged, view.check_head(&head.vault, &head, &hash));
    let revoked = view
        .device(&head.device)
        .and_then(|entry| entry.revoked.as_ref());
    let was_named = growth
        .records
        .iter()
        .any(|one| one.kind == Kind::ReAnchored);
    if let Some(revoked) = revoked
        && judged.is_ok()
        && !was_named
    {
        let pin = revoked.statement.pin(&head.vault);
        let is_pinned = pin.is_some_and(|pin| (pin.counter, pin.hash) == (head.counter, hash));
        assert!(is_pinned, "a revoked device's head holds");
    }
}

/// A spoilt genesis begins no account, unless only the cell's word is missing.
fn check_begin(choices: &mut Choices<'_>, genesis: &Record) {
    let mut record = genesis.clone();
    spoil(&mut record, choices);
    let begun = AccountView::begin(ACCOUNT, &record, &KEYRING);
    let is_same = record.statement == genesis.statement && record.sequence == 0;
    assert!(
        begun.is_err() || is_same,
        "another genesis begins the account"
    );
}

/// A chain, folded as it grows and, now and then, once more as a whole.
pub fn chains(noise: &[u8]) {
    let mut choices = Choices::new(noise);
    let twice = choices.once_in(4);
    let mut growth = Growth::begin();
    if choices.once_in(8) {
        check_begin(&mut choices, &growth.records[0]);
    }
    for _ in 0..STATEMENTS_MAX {
        if choices.is_over() {
            break;
        }
        step(&mut growth, &mut choices);
    }
    check_heads(&growth, &mut choices);
    growth.check();
    if twice {
        growth.fold_again();
    }
}

pub fn chain_seeds() -> Vec<Vec<u8>> {
    seeds::decisions()
}
