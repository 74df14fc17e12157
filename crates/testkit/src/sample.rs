//! One account with fixed keys, of which every test and vector is made.

use candor_wire::cell::{
    Acknowledgement, CELL_FORMAT_VERSION, CellKeyring, CellKeys, SignedAcknowledgement,
    SignedCellKeys, cell_id,
};
use candor_wire::chain::{AccountView, Record};
use candor_wire::consent_record::*;
use candor_wire::epoch::{EPOCH_RECORD_VERSION, EpochRecord, Wrap};
use candor_wire::ids::*;
use candor_wire::sign::{Ed25519Secret, SecretKey, SigningSeeds};
use candor_wire::statement::*;
use candor_wire::time::{DAY_MS, Millis};

pub const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
pub const LAPTOP: DeviceId = DeviceId::from_bytes([0xd1; 16]);
pub const PHONE: DeviceId = DeviceId::from_bytes([0xd2; 16]);
pub const VAULT: VaultId = VaultId::from_bytes([0xb1; 16]);
pub const NOW: Millis = Millis(1_790_000_000_000);

pub fn secret(n: u8) -> SecretKey {
    SecretKey::from_seeds(&SigningSeeds {
        ed25519: [n; 32],
        ml_dsa: [n + 100; 32],
    })
}

pub fn root() -> SecretKey {
    secret(1)
}

pub fn laptop() -> SecretKey {
    secret(2)
}

pub fn phone() -> SecretKey {
    secret(3)
}

pub fn cell_root() -> Ed25519Secret {
    Ed25519Secret::from_seed(&[0xce; 32])
}

pub fn acknowledgement_key() -> Ed25519Secret {
    Ed25519Secret::from_seed(&[0xac; 32])
}

pub fn cell() -> CellId {
    cell_id(&cell_root().public())
}

pub fn cell_keys() -> CellKeys {
    CellKeys {
        version: CELL_FORMAT_VERSION,
        cell: cell(),
        serial: 1,
        acknowledgement: acknowledgement_key().public(),
        from: NOW,
        controller: "Example Family".to_owned(),
        region: "home".to_owned(),
        retention_days: 30,
        log: None,
        log_number: None,
        log_before: None,
    }
}

pub fn keyring() -> CellKeyring {
    CellKeyring::verify(
        &cell_root().public(),
        &[SignedCellKeys::sign(&cell_keys(), &cell_root())],
    )
    .unwrap()
}

pub fn genesis() -> Body {
    Body::Genesis(Box::new(Genesis {
        root: root().public(),
        recovery: [0x5e; 1216],
        cell: cell(),
    }))
}

pub fn added(device: DeviceId, role: Role, key: &SecretKey) -> Body {
    Body::DeviceAdded(Box::new(DeviceAdded {
        device,
        role,
        signing: key.public(),
        agreement: [0x5d; 1216],
        sealed_name: vec![0x11; 48],
    }))
}

pub fn epoch(vault: Option<VaultId>, number: u32, devices: &[DeviceId]) -> Body {
    let wrap = |recipient| Wrap {
        recipient,
        encapsulated: vec![0x22; 32],
        ciphertext: vec![0x33; 48],
    };
    let mut wraps = vec![wrap(None)];
    wraps.extend(devices.iter().map(|device| wrap(Some(*device))));
    Body::Epoch(Box::new(EpochRecord {
        version: EPOCH_RECORD_VERSION,
        vault,
        epoch: number,
        public: [0x5b; 1216],
        wraps,
        earlier: if number == 1 {
            Vec::new()
        } else {
            vec![0x44; 60]
        },
    }))
}

pub fn consent_record(device: DeviceId) -> ConsentRecord {
    ConsentRecord {
        version: CONSENT_RECORD_VERSION,
        subject: ACCOUNT,
        device,
        service: ServiceCode::Backup,
        vault: Some(VAULT),
        recipient: Recipient {
            cell: cell(),
            controller: "Example Family".to_owned(),
            region: "home".to_owned(),
        },
        purpose: "backup/1".to_owned(),
        purpose_hash: [0x01; 32],
        categories: vec![DataCategory::SealedFiles, DataCategory::ObjectSizes],
        operations: vec![Operation::Receive, Operation::Store],
        basis: Basis::Consent,
        retention_days: 30,
        notice_hash: [0x02; 32],
        language: "en".to_owned(),
        collected: Collected::Terminal,
        event: Event::Given,
        given_at: NOW,
        ends_at: NOW.plus_ms(365 * DAY_MS),
        how_to_withdraw: "candor consent off backup".to_owned(),
        previous: None,
    }
}

pub fn consent(device: DeviceId) -> Body {
    Body::ConsentGiven(Box::new(consent_record(device)))
}

pub fn withdrawal(vault: Option<VaultId>) -> Body {
    Body::ConsentWithdrawn(Withdrawal {
        version: CONSENT_RECORD_VERSION,
        service: ServiceCode::Backup,
        vault,
    })
}

/// Grows a chain and keeps its view.
pub struct Grower {
    pub records: Vec<Record>,
    pub tip: Link,
}

impl Grower {
    pub fn empty() -> Self {
        Self {
            records: Vec::new(),
            tip: genesis_link(),
        }
    }

    /// Signs a body for the next place; does not append it.
    pub fn draft(&self, signer: Option<DeviceId>, key: &SecretKey, body: Body) -> (Record, Link) {
        let sequence = self.records.len() as u64;
        let draft = Draft {
            account: ACCOUNT,
            signer,
            time: NOW.plus_ms(sequence as i64),
            label: Label::from_bytes([sequence as u8; 32]),
            salt: Salt::from_bytes([0x77; 32]),
            body,
        };
        let (statement, link) = draft.sign(sequence, self.tip, key);
        (Record::of(statement).unwrap(), link)
    }

    pub fn push(&mut self, signer: Option<DeviceId>, key: &SecretKey, body: Body) -> &mut Self {
        let (mut record, link) = self.draft(signer, key, body);
        record.acknowledgement = Some(acknowledge(&record, link));
        self.records.push(record);
        self.tip = link;
        self
    }

    pub fn view(&self) -> AccountView {
        AccountView::of(ACCOUNT, &self.records, &keyring()).unwrap()
    }
}

pub fn acknowledge(record: &Record, link: Link) -> SignedAcknowledgement {
    let ack = Acknowledgement {
        version: CELL_FORMAT_VERSION,
        cell: cell(),
        serial: 1,
        account: ACCOUNT,
        sequence: record.sequence,
        link,
        statement: record.commitment,
        time: NOW.plus_ms(5),
    };
    SignedAcknowledgement::sign(&ack, &acknowledgement_key())
}

/// Genesis, laptop, account epoch, vault epoch.
pub fn family() -> Grower {
    let mut grower = Grower::empty();
    grower
        .push(None, &root(), genesis())
        .push(None, &root(), added(LAPTOP, Role::Full, &laptop()))
        .push(Some(LAPTOP), &laptop(), epoch(None, 1, &[LAPTOP]))
        .push(Some(LAPTOP), &laptop(), epoch(Some(VAULT), 1, &[LAPTOP]));
    grower
}
