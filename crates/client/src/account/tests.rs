#![allow(clippy::unwrap_used, clippy::panic)]
use std::sync::Mutex;

use bytes::Bytes;
use candor_wire::api::{Appended, CellDescription, ChainPage, ErrorCode, ErrorReply, FoundAccount};
use candor_wire::cbor;
use candor_wire::cell::{
    Acknowledgement, CellKeys, Invitation, SignedAcknowledgement, SignedCellKeys,
};
use candor_wire::sign::Ed25519Secret;
use candor_wire::statement::{Kind, Role};
use http::{Request, Response};

use super::*;
use crate::clock::Clock;
use crate::egress::{BoxFuture, CellDoor, EgressParts, TransportError};
use crate::keystore::{KeyProtection, NewKeys};
use crate::ledger::{Ledger, LedgerParts};
use crate::memory::Remembered;
use crate::test_support::{HandClock, Repeatable};

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const NOW: Millis = Millis(1_800_000_000_000);

/// A cell that keeps one chain, believes everything and forgets what it is told to forget.
#[derive(Default)]
struct Credulous {
    records: Mutex<Vec<Record>>,
    /// How many records it shows.
    shown: Mutex<Option<usize>>,
    /// Acknowledges with a key that nobody pinned.
    forges: Mutex<bool>,
    /// Takes an append, and loses its answer.
    loses_answer: Mutex<bool>,
}

fn root() -> Ed25519Secret {
    Ed25519Secret::from_seed(&[8; 32])
}

fn keys_of_cell() -> CellKeys {
    CellKeys {
        version: 1,
        cell: candor_wire::cell::cell_id(&root().public()),
        serial: 1,
        acknowledgement: Ed25519Secret::from_seed(&[9; 32]).public(),
        from: NOW,
        controller: "the tests".into(),
        region: "home".into(),
        retention_days: 30,
        log: None,
        log_number: None,
        log_before: None,
    }
}

impl Credulous {
    fn take(&self, mut records: Vec<Record>) -> Vec<u8> {
        let forges = *self.forges.lock().unwrap();
        let key = Ed25519Secret::from_seed(&[if forges { 10 } else { 9 }; 32]);
        let acknowledge = |record: &Record| {
            let parsed = record.statement.as_ref().unwrap().parse().unwrap();
            let acknowledgement = Acknowledgement {
                version: 1,
                cell: keys_of_cell().cell,
                serial: 1,
                account: ACCOUNT,
                sequence: record.sequence,
                link: parsed.link(),
                statement: record.commitment,
                time: NOW,
            };
            SignedAcknowledgement::sign(&acknowledgement, &key)
        };
        let acknowledgements: Vec<_> = records.iter().map(acknowledge).collect();
        crate::chain::acknowledge(&mut records, acknowledgements.clone());
        self.records.lock().unwrap().extend(records);
        cbor::encode(&Appended {
            version: API_VERSION,
            acknowledgements,
        })
    }

    fn answer(&self, request: &Request<Bytes>) -> Result<Vec<u8>, ErrorCode> {
        let path = request.uri().path();
        if path == "/v1/cell" {
            let keys = vec![SignedCellKeys::sign(&keys_of_cell(), &root())];
            return Ok(cbor::encode(&CellDescription {
                version: API_VERSION,
                keys,
            }));
        }
        if path == "/v1/accounts" {
            let body: OpenAccount = cbor::decode(request.body()).unwrap();
            return Ok(self.take(body.records));
        }
        if path.starts_with("/v1/roots/") {
            return Ok(cbor::encode(&FoundAccount {
                version: API_VERSION,
                account: ACCOUNT,
            }));
        }
        if request.method() == "POST" {
            let body: candor_wire::api::AppendChain = cbor::decode(request.body()).unwrap();
            if body.records[0].sequence != self.records.lock().unwrap().len() as u64 {
                return Err(ErrorCode::Conflict);
            }
            return Ok(self.take(body.records));
        }
        let from: usize = request
            .uri()
            .query()
            .unwrap()
            .strip_prefix("from=")
            .unwrap()
            .parse()
            .unwrap();
        let records = self.records.lock().unwrap();
        let shown = self.shown.lock().unwrap().unwrap_or(records.len());
        let page = records[..shown].get(from..).unwrap_or_default().to_vec();
        Ok(cbor::encode(&ChainPage {
            version: API_VERSION,
            records: page,
            length: shown as u64,
        }))
    }
}

struct Door(Arc<Credulous>);

impl crate::egress::in_process::CellService for Door {
    fn call(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Result<Response<Bytes>, TransportError>> {
        let answer = self.0.answer(&request);
        let is_append = request.method() == "POST";
        let is_lost = is_append && std::mem::take(&mut *self.0.loses_answer.lock().unwrap());
        Box::pin(async move {
            if is_lost {
                return Err(TransportError::Broken("lost".into()));
            }
            let (status, body) = match answer {
                Ok(body) => (200, body),
                Err(code) => {
                    let reply = ErrorReply {
                        version: 1,
                        code,
                        time: NOW,
                        used_bytes: None,
                        quota_bytes: None,
                    };
                    (code.status(), cbor::encode(&reply))
                }
            };
            Ok(Response::builder()
                .status(status)
                .body(body.into())
                .unwrap())
        })
    }
}

struct Device {
    _folder: tempfile::TempDir,
    clock: HandClock,
    entropy: Repeatable,
    keys: KeyStore,
    memory: Memory,
    egress: Egress,
}

impl Device {
    fn new(cell: &Arc<Credulous>, seed: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pinned = Invitation {
            version: 1,
            root: root().public(),
            addresses: vec![],
            right: None,
        };
        let new = NewKeys {
            account: Some(ACCOUNT),
            account_name: "alice".into(),
            device_name: format!("laptop {seed}"),
            role: Role::Full,
            cell: pinned.clone(),
        };
        let path = folder.path().join("keys");
        let entropy = || Arc::new(Repeatable::new(seed));
        let keys = KeyStore::create(&path, new, KeyProtection::Unprotected, entropy()).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(HandClock::new(NOW.0));
        let parts = LedgerParts {
            key: keys.ledger_key(),
            signing: keys.signing(),
            device: keys.device(),
            clock: Arc::clone(&clock),
            entropy: entropy(),
        };
        let ledger = Ledger::open(&folder.path().join("ledger"), parts).unwrap();
        let memory = Memory::open(&folder.path().join("memory"), pinned.cell()).unwrap();
        let door = CellDoor::InProcess(Arc::new(Door(Arc::clone(cell))));
        let egress = Egress::new(EgressParts {
            cell: pinned,
            door,
            ledger,
            clock,
            entropy: entropy(),
        });
        let (clock, entropy) = (HandClock::new(NOW.0), Repeatable::new(seed + 100));
        Self {
            _folder: folder,
            clock,
            entropy,
            keys,
            memory,
            egress,
        }
    }

    async fn create(&mut self, phrase: &RecoveryPhrase) -> Result<Chain, AccountError> {
        let surroundings = Surroundings {
            clock: &self.clock,
            entropy: &self.entropy,
        };
        let right = InvitationRight([0; 16]);
        create(
            &self.egress,
            right,
            phrase,
            &mut self.keys,
            &self.memory,
            surroundings,
        )
        .await
    }

    async fn recover(&mut self, phrase: &RecoveryPhrase) -> Result<Chain, AccountError> {
        let surroundings = Surroundings {
            clock: &self.clock,
            entropy: &self.entropy,
        };
        recover(
            &self.egress,
            Known {
                phrase,
                genesis: None,
                revoke_others: false,
            },
            &mut self.keys,
            &self.memory,
            surroundings,
        )
        .await
    }

    fn api(&self, purpose: Purpose) -> Api {
        let surroundings = Surroundings {
            clock: &self.clock,
            entropy: &self.entropy,
        };
        device_errand(&self.egress, &self.keys, purpose, surroundings).unwrap()
    }
}

fn phrase() -> RecoveryPhrase {
    RecoveryPhrase::from_bytes(&[0x21; 32])
}

#[tokio::test]
async fn an_account_is_opened_and_gotten_back_with_the_phrase_alone() {
    let cell = Arc::new(Credulous::default());
    let mut first = Device::new(&cell, 1);
    let mut chain = first.create(&phrase()).await.unwrap();
    assert!(first.keys.is_enrolled());
    assert_eq!(chain.view().next_sequence(), 3);
    let mut second = Device::new(&cell, 2);
    let recovered = second.recover(&phrase()).await.unwrap();
    assert_eq!(recovered.view().devices().count(), 2);
    let both = |keys: &KeyStore| *keys.keys(None).unwrap().get(2).unwrap().as_bytes();
    // The first device learns of it, opens the renewed epoch, and can read the other's name.
    sync(&first.api(Purpose::List), &mut chain, &first.memory)
        .await
        .unwrap();
    assert!(open_keys(&chain, &mut first.keys).unwrap());
    assert!(!open_keys(&chain, &mut first.keys).unwrap());
    assert_eq!(both(&first.keys), both(&second.keys));
    let added = &chain.view().device(&second.keys.device()).unwrap().added;
    let name = open_name(added, ACCOUNT, first.keys.keys(None).unwrap());
    assert_eq!(name.as_deref(), Some("laptop 2"));
}

#[tokio::test]
async fn a_lost_answer_and_a_lost_race_state_nothing_twice() {
    let cell = Arc::new(Credulous::default());
    let mut device = Device::new(&cell, 1);
    let mut chain = device.create(&phrase()).await.unwrap();
    let mut stale = chain.clone();
    let api = device.api(Purpose::Consent);
    let surroundings = Surroundings {
        clock: &device.clock,
        entropy: &device.entropy,
    };
    let vault = |n| {
        let scope = Some(candor_wire::VaultId::from_bytes([n; 16]));
        let recipients = Recipients::of(chain.view());
        let (record, _) = epochs::begin(ACCOUNT, scope, &recipients, &device.entropy).unwrap();
        Body::Epoch(Box::new(record))
    };
    let (one, two) = (vault(1), vault(2));
    *cell.loses_answer.lock().unwrap() = true;
    append(
        &api,
        &mut chain,
        &device.memory,
        &device.keys,
        vec![one],
        surroundings,
    )
    .await
    .unwrap();
    assert_eq!(chain.view().next_sequence(), 4);
    // Another place of the same chain was taken meanwhile: the same draft takes the next one.
    append(
        &api,
        &mut stale,
        &device.memory,
        &device.keys,
        vec![two],
        surroundings,
    )
    .await
    .unwrap();
    assert_eq!(stale.view().next_sequence(), 5);
    assert_eq!(cell.records.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn a_chain_that_was_cut_or_belongs_to_another_phrase_is_refused() {
    let cell = Arc::new(Credulous::default());
    let mut device = Device::new(&cell, 1);
    let mut chain = device.create(&phrase()).await.unwrap();
    let begun = chain.clone();
    *cell.shown.lock().unwrap() = Some(2);
    let cut = sync(&device.api(Purpose::List), &mut chain, &device.memory).await;
    assert!(matches!(
        cut,
        Err(AccountError::Api(ApiError::Integrity { .. }))
    ));
    assert_eq!(chain.view(), begun.view());
    // Also for a device that lost all but its memory.
    let shortened = Chain::load(
        &root().public(),
        ACCOUNT,
        chain.cell_keys().to_vec(),
        chain.records()[..2].to_vec(),
    );
    let refused = device.memory.remember_chain(shortened.unwrap().view());
    assert!(matches!(
        refused,
        Err(MemoryError::Rollback {
            what: Remembered::Chain
        })
    ));
    *cell.shown.lock().unwrap() = None;
    let mut other = Device::new(&cell, 2);
    let refused = other
        .recover(&RecoveryPhrase::from_bytes(&[0x22; 32]))
        .await;
    assert!(matches!(refused.map(|_| ()), Err(AccountError::OtherRoot)));
    assert!(!other.keys.is_enrolled() && other.memory.chain().is_none());
}

#[tokio::test]
async fn acknowledgements_of_another_key_are_refused() {
    let cell = Arc::new(Credulous::default());
    *cell.forges.lock().unwrap() = true;
    let mut device = Device::new(&cell, 1);
    let refused = device.create(&phrase()).await;
    assert!(matches!(
        refused.map(|_| ()),
        Err(AccountError::Load(LoadError::Chain(_)))
    ));
    assert!(!device.keys.is_enrolled() && device.memory.chain().is_none());
}

#[tokio::test]
async fn a_key_that_the_chain_does_not_announce_is_refused() {
    let cell = Arc::new(Credulous::default());
    let mut device = Device::new(&cell, 1);
    let chain = device.create(&phrase()).await.unwrap();
    assert!(!open_keys(&chain, &mut device.keys).unwrap());
    let other = ScopeKeys::new(None, [EpochKey::from_bytes(&[5; 32])]).unwrap();
    device.keys.put_keys(other);
    assert!(matches!(
        open_keys(&chain, &mut device.keys),
        Err(AccountError::Epoch(EpochError::Rejected))
    ));
}

#[test]
fn labels_differ_by_kind_and_number() {
    let keys = ScopeKeys::new(None, [EpochKey::from_bytes(&[5; 32])]).unwrap();
    let of = |kind, n| label_of(keys.get(1).unwrap(), kind, n);
    assert_eq!(of(Kind::Epoch, 1), of(Kind::Epoch, 1));
    assert_ne!(of(Kind::Epoch, 1), of(Kind::Epoch, 2));
    assert_ne!(of(Kind::Epoch, 1), of(Kind::ConsentGiven, 1));
}
