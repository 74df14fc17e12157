//! A cell with a clock that can be moved, and people who call it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::body::Body;
use bytes::Bytes;
use candor_store::Store;
use candor_store::faulty::{Faults, Faulty};
use candor_wire::api::{
    API_VERSION, AppendChain, Appended, ChainPage, EndpointId, ErrorCode, ErrorReply, OpenAccount,
    endpoint,
};
use candor_wire::cbor::{self, Canonical};
use candor_wire::cell::InvitationRight;
use candor_wire::chain::{AccountView, Record};
use candor_wire::consent_record::{
    Basis, CONSENT_RECORD_VERSION, Collected, ConsentRecord, DataCategory, Event, Operation,
    Recipient, ServiceCode, Withdrawal,
};
use candor_wire::epoch::{EPOCH_RECORD_VERSION, EpochRecord, Wrap};
use candor_wire::errand::{ERRAND_VERSION, ErrandToken, Purpose, SignedErrand};
use candor_wire::head::{HEAD_VERSION, Head, HeadHash, SignedHead};
use candor_wire::ids::{
    AccountId, DeviceId, Label, ObjectId, RequestNonce, Salt, StatementId, VaultId,
};
use candor_wire::request::{self, Covered};
use candor_wire::sign::{SecretKey, SigningSeeds};
use candor_wire::statement::{Body as Said, DeviceAdded, Draft, Genesis, Role, genesis_link};
use candor_wire::time::{DAY_MS, Millis};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::clock::Clock;
use crate::log::Log;
use crate::shared::Ports;
use crate::{Cell, CellConfig, CellOptions, InitParams, OpenError};

/// Some day in 2026.
pub(crate) const START: Millis = Millis(1_780_000_000_000);

pub(crate) struct MovedClock(AtomicI64);

impl Clock for MovedClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) clock: Arc<MovedClock>,
    pub(crate) cell: Cell,
    counter: AtomicU64,
    /// What the cell's ports go through; `None` for the store's own ports.
    faults: Option<Faults>,
}

async fn open(
    directory: &Path,
    options: CellOptions,
    faults: Option<&Faults>,
) -> Result<Cell, OpenError> {
    match faults {
        None => Cell::open_with(directory, options).await,
        Some(faults) => Cell::open_over(directory, options, |store| faulty(store, faults)).await,
    }
}

fn faulty(store: Store, faults: &Faults) -> Ports {
    let ports = Ports::of(store);
    Ports {
        records: Faulty::new(ports.records, faults),
        objects: Faulty::new(ports.objects, faults),
        erasures: Faulty::new(ports.erasures, faults),
        links: Faulty::new(ports.links, faults),
        log_records: Faulty::new(ports.log_records, faults),
        log_files: Faulty::new(ports.log_files, faults),
        ..ports
    }
}

pub(crate) fn params() -> InitParams {
    InitParams {
        region: "testland".into(),
        controller: "Tester".into(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        public_addresses: Vec::new(),
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}, Log::silent()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut CellConfig), log: Log) -> Self {
        Self::made(change, log, None).await
    }

    /// A cell whose ports go through `faults`, and which does nothing by itself.
    pub(crate) async fn over(faults: &Faults, change: impl FnOnce(&mut CellConfig)) -> Self {
        Self::made(change, Log::silent(), Some(faults.clone())).await
    }

    async fn made(change: impl FnOnce(&mut CellConfig), log: Log, faults: Option<Faults>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Cell::init(directory.path(), &params()).await.unwrap();
        let mut config = CellConfig::from_file(&directory.path().join("cell.toml")).unwrap();
        change(&mut config);
        let clock = Arc::new(MovedClock(AtomicI64::new(START.0)));
        let options = CellOptions {
            config: Some(config),
            clock: clock.clone(),
            log,
        };
        let cell = open(directory.path(), options, faults.as_ref()).await;
        Self {
            directory,
            clock,
            cell: cell.unwrap(),
            counter: AtomicU64::new(1),
            faults,
        }
    }

    /// Closes the cell and opens it again, as after a restart.
    pub(crate) async fn restarted(self) -> Self {
        self.restarted_after(|| {}).await
    }

    /// The same, with something done while it is closed.
    pub(crate) async fn restarted_after(self, work: impl FnOnce()) -> Self {
        let Self {
            directory,
            clock,
            cell,
            counter,
            faults,
        } = self;
        let held = Arc::downgrade(cell.shared());
        drop(cell);
        // The cell's own tasks may hold it for a moment.
        for _ in 0..500 {
            if held.strong_count() == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(held.strong_count(), 0, "the cell was never closed");
        work();
        for _ in 0..100 {
            let options = CellOptions {
                clock: clock.clone(),
                ..CellOptions::default()
            };
            match open(directory.path(), options, faults.as_ref()).await {
                Ok(cell) => {
                    return Self {
                        directory,
                        clock,
                        cell,
                        counter,
                        faults,
                    };
                }
                Err(OpenError::InUse { .. }) => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("the cell was never closed");
    }

    /// Another cell, out of what is on the disk at this moment, as after a loss of power, and of what that left there.
    pub(crate) async fn crashed(self, leave: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        super::transparency::copy(self.directory.path(), directory.path());
        leave(directory.path());
        let options = CellOptions {
            clock: self.clock.clone(),
            ..CellOptions::default()
        };
        let cell = open(directory.path(), options, self.faults.as_ref()).await;
        Self {
            directory,
            cell: cell.unwrap(),
            ..self
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    pub(crate) fn advance(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// A number that is new in this world.
    pub(crate) fn fresh(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn fresh_bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        let hash = blake3::hash(&self.fresh().to_be_bytes());
        out.copy_from_slice(&hash.as_bytes()[..N]);
        out
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, Bytes) {
        let response = self.cell.service().oneshot(request).await.unwrap();
        let status = response.status();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    /// The same; `None` if the reply breaks off.
    pub(crate) async fn try_send(&self, request: Request<Body>) -> Option<(StatusCode, Bytes)> {
        let response = self.cell.service().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.ok()?;
        Some((status, body.to_bytes()))
    }

    /// A person with an account.
    pub(crate) async fn person(&self) -> Person {
        let mut person = Person::new(self);
        let right = self.cell.invite().await.unwrap().right.unwrap();
        let (status, body) = self.send(person.opening(self, &right)).await;
        assert_eq!(status, StatusCode::OK, "{:?}", error(&body));
        person.keep(self, &body);
        person
    }
}

pub(crate) fn decoded<T: Canonical>(body: &[u8]) -> T {
    cbor::decode(body).unwrap()
}

pub(crate) fn error(body: &[u8]) -> Option<ErrorCode> {
    cbor::decode::<ErrorReply>(body)
        .ok()
        .map(|reply| reply.code)
}

pub(crate) struct Person {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) root: Arc<SecretKey>,
    pub(crate) key: SecretKey,
    pub(crate) vault: VaultId,
    pub(crate) records: Vec<Record>,
    pub(crate) view: Option<AccountView>,
    pub(crate) pending: Vec<Record>,
}

/// One request, before it is signed.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) endpoint: EndpointId,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authority: String,
    pub(crate) body: Bytes,
    pub(crate) signer: Option<DeviceId>,
    pub(crate) range: Option<&'static str>,
}

impl Person {
    pub(crate) fn new(world: &World) -> Self {
        let seeds = || SigningSeeds {
            ed25519: world.fresh_bytes(),
            ml_dsa: world.fresh_bytes(),
        };
        Self {
            account: AccountId::from_bytes(world.fresh_bytes()),
            device: DeviceId::from_bytes(world.fresh_bytes()),
            root: Arc::new(SecretKey::from_seeds(&seeds())),
            key: SecretKey::from_seeds(&seeds()),
            vault: VaultId::from_bytes(world.fresh_bytes()),
            records: Vec::new(),
            view: None,
            pending: Vec::new(),
        }
    }

    /// A statement for the place after what is known and what is pending.
    pub(crate) fn state(
        &self,
        world: &World,
        signer: Option<DeviceId>,
        body: Said,
        after: &[Record],
    ) -> Record {
        let draft = Draft {
            account: self.account,
            signer,
            time: world.now(),
            label: Label::from_bytes(world.fresh_bytes()),
            salt: Salt::from_bytes(world.fresh_bytes()),
            body,
        };
        let mut link = self.view.as_ref().map_or(genesis_link(), AccountView::tip);
        let mut sequence = self.view.as_ref().map_or(0, AccountView::next_sequence);
        for record in after {
            link = candor_wire::statement::link(
                sequence,
                record.kind.code(),
                &link,
                &record.commitment,
            );
            sequence += 1;
        }
        let key = if signer.is_some() {
            &self.key
        } else {
            &*self.root
        };
        Record::of(draft.sign(sequence, link, key).0).unwrap()
    }

    pub(crate) fn device_added(&self, device: DeviceId, key: &SecretKey) -> Said {
        self.device_of(Role::Full, device, key)
    }

    pub(crate) fn device_of(&self, role: Role, device: DeviceId, key: &SecretKey) -> Said {
        Said::DeviceAdded(Box::new(DeviceAdded {
            device,
            role,
            signing: key.public(),
            agreement: [2; 1216],
            sealed_name: vec![3; 40],
        }))
    }

    pub(crate) fn epoch(&self, vault: Option<VaultId>) -> Said {
        let wrap = |recipient| Wrap {
            recipient,
            encapsulated: vec![1; 8],
            ciphertext: vec![2; 8],
        };
        Said::Epoch(Box::new(EpochRecord {
            version: EPOCH_RECORD_VERSION,
            vault,
            epoch: 1,
            public: [4; 1216],
            wraps: vec![wrap(None), wrap(Some(self.device))],
            earlier: Vec::new(),
        }))
    }

    pub(crate) fn consent(&self, world: &World) -> ConsentRecord {
        let keys = world.cell.keys();
        ConsentRecord {
            version: CONSENT_RECORD_VERSION,
            subject: self.account,
            device: self.device,
            service: ServiceCode::Backup,
            vault: Some(self.vault),
            recipient: Recipient {
                cell: keys.cell,
                controller: keys.controller.clone(),
                region: keys.region.clone(),
            },
            purpose: "backup/1".into(),
            purpose_hash: [1; 32],
            categories: vec![DataCategory::SealedFiles],
            operations: vec![Operation::Store],
            basis: Basis::Consent,
            retention_days: keys.retention_days,
            notice_hash: [2; 32],
            language: "en".into(),
            collected: Collected::Terminal,
            event: Event::Given,
            given_at: world.now(),
            ends_at: world.now().plus_ms(30 * DAY_MS),
            how_to_withdraw: "candor consent off backup".into(),
            previous: None,
        }
    }

    /// The request that opens the account.
    pub(crate) fn opening(&mut self, world: &World, right: &InvitationRight) -> Request<Body> {
        let genesis = Said::Genesis(Box::new(Genesis {
            root: self.root.public(),
            recovery: [1; 1216],
            cell: world.cell.id(),
        }));
        if self.pending.is_empty() {
            self.pending.push(self.state(world, None, genesis, &[]));
            let added = self.device_added(self.device, &self.key);
            self.pending
                .push(self.state(world, None, added, &self.pending));
            let epoch = self.epoch(None);
            self.pending
                .push(self.state(world, Some(self.device), epoch, &self.pending));
        }
        let body = OpenAccount {
            version: API_VERSION,
            account: self.account,
            right: right.clone(),
            records: self.pending.clone(),
        };
        let ask = self.ask(EndpointId::OpenAccount, self.errand(world, Purpose::Create));
        self.sign(
            world,
            &Ask {
                body: cbor::encode(&body).into(),
                ..ask
            },
        )
    }

    /// Takes the acknowledgements of what was pending, and checks all of it like a device.
    pub(crate) fn keep(&mut self, world: &World, reply: &[u8]) {
        let appended: Appended = decoded(reply);
        assert_eq!(appended.acknowledgements.len(), self.pending.len());
        for (mut record, acknowledgement) in self.pending.drain(..).zip(appended.acknowledgements) {
            record.acknowledgement = Some(acknowledgement);
            self.records.push(record);
        }
        let keyring = &world.cell.shared().keyring;
        self.view = Some(AccountView::of(self.account, &self.records, keyring).unwrap());
    }

    /// The same for records that were sent by hand.
    pub(crate) fn keeps(&mut self, world: &World, records: Vec<Record>, reply: &[u8]) {
        self.pending = records;
        self.keep(world, reply);
    }

    /// Takes over records that stand on the chain already.
    pub(crate) fn found(&mut self, world: &World, records: Vec<Record>) {
        self.records.extend(records);
        let keyring = &world.cell.shared().keyring;
        self.view = Some(AccountView::of(self.account, &self.records, keyring).unwrap());
    }

    pub(crate) fn errand(&self, world: &World, purpose: Purpose) -> String {
        self.errand_of(world, purpose, Some(self.device), Some(self.account))
    }

    pub(crate) fn errand_of(
        &self,
        world: &World,
        purpose: Purpose,
        signer: Option<DeviceId>,
        account: Option<AccountId>,
    ) -> String {
        let token = ErrandToken {
            version: ERRAND_VERSION,
            account,
            signer,
            purpose,
            cell: world.cell.id(),
            created: world.now(),
            expires: world.now().plus_ms(60_000),
            nonce: RequestNonce::from_bytes(world.fresh_bytes()),
        };
        let key = if signer.is_some() {
            &self.key
        } else {
            &*self.root
        };
        format!(
            "errand {}",
            SignedErrand::sign(&token, key.ed25519()).to_text()
        )
    }

    /// A request to an endpoint of this person's own account and vault.
    pub(crate) fn ask(&self, id: EndpointId, authority: String) -> Ask {
        let path = endpoint(id)
            .path
            .replace("{account}", &self.account.to_string())
            .replace("{vault}", &self.vault.to_string())
            .replace("{receipt}", &"ee".repeat(32))
            .replace("{link}", &"1c".repeat(32))
            .replace(
                "{root}",
                &candor_wire::ids::to_hex(&self.root.public().fingerprint()),
            );
        Ask {
            endpoint: id,
            path,
            query: String::new(),
            authority,
            body: Bytes::new(),
            signer: Some(self.device),
            range: None,
        }
    }

    pub(crate) fn sign(&self, world: &World, ask: &Ask) -> Request<Body> {
        let nonce = RequestNonce::from_bytes(world.fresh_bytes());
        self.sign_as(world, ask, nonce, world.now().seconds())
    }

    pub(crate) fn sign_as(
        &self,
        world: &World,
        ask: &Ask,
        nonce: RequestNonce,
        created: i64,
    ) -> Request<Body> {
        let row = endpoint(ask.endpoint);
        let digest = matches!(row.request, candor_wire::api::BodyKind::Cbor(_))
            .then(|| request::content_digest(&ask.body));
        let device = request::device_header(ask.signer.as_ref());
        let authority = candor_wire::cell::authority(&world.cell.id());
        let covered = Covered {
            method: row.method.name(),
            authority: &authority,
            path: &ask.path,
            query: &ask.query,
            device: &device,
            authorization: &ask.authority,
            placement: "1",
            digest: digest.as_deref(),
        };
        let key = if ask.signer.is_some() {
            &self.key
        } else {
            &*self.root
        };
        let signed = request::sign(&covered, created, &nonce, key.ed25519());
        let uri = match ask.query.as_str() {
            "" => ask.path.clone(),
            query => format!("{}?{query}", ask.path),
        };
        let mut built = Request::builder()
            .method(row.method.name())
            .uri(uri)
            .header(request::HEADER_DEVICE, &device)
            .header(request::HEADER_AUTHORITY, &ask.authority)
            .header(request::HEADER_PLACEMENT, "1")
            .header(request::HEADER_SIGNATURE_INPUT, signed.input)
            .header(request::HEADER_SIGNATURE, signed.signature);
        if let Some(digest) = &digest {
            built = built.header(request::HEADER_DIGEST, digest);
        }
        if let Some(range) = ask.range {
            built = built.header("range", range);
        }
        built.body(Body::from(ask.body.clone())).unwrap()
    }

    pub(crate) async fn call(&self, world: &World, ask: &Ask) -> (StatusCode, Bytes) {
        world.send(self.sign(world, ask)).await
    }

    /// What a request comes to: `None` for a success.
    pub(crate) async fn outcome(&self, world: &World, ask: &Ask) -> Option<ErrorCode> {
        let (status, body) = self.call(world, ask).await;
        if status.is_success() {
            return None;
        }
        let code = error(&body).unwrap();
        assert_eq!(status.as_u16(), code.status());
        Some(code)
    }

    pub(crate) fn appending(&self, records: Vec<Record>, authority: String) -> Ask {
        let after = self.view.as_ref().unwrap().tip();
        let body = AppendChain {
            version: API_VERSION,
            after,
            records,
        };
        Ask {
            body: cbor::encode(&body).into(),
            ..self.ask(EndpointId::AppendChain, authority)
        }
    }

    /// Appends statements of the device on an errand to consent.
    pub(crate) async fn append(&mut self, world: &World, said: Vec<Said>) -> Option<ErrorCode> {
        self.append_for(world, Purpose::Consent, said).await
    }

    /// The same on an errand of that purpose.
    pub(crate) async fn append_for(
        &mut self,
        world: &World,
        purpose: Purpose,
        said: Vec<Said>,
    ) -> Option<ErrorCode> {
        let mut records = Vec::new();
        for one in said {
            records.push(self.state(world, Some(self.device), one, &records));
        }
        let ask = self.appending(records.clone(), self.errand(world, purpose));
        let (status, body) = self.call(world, &ask).await;
        if !status.is_success() {
            return error(&body);
        }
        self.pending = records;
        self.keep(world, &body);
        None
    }

    /// Appends on an errand of re-anchoring.
    pub(crate) async fn re_anchors(&mut self, world: &World, records: Vec<Record>) -> StatusCode {
        let errand = self.errand(world, Purpose::ReAnchor);
        let ask = self.appending(records.clone(), errand);
        let (status, body) = self.call(world, &ask).await;
        if status.is_success() {
            self.pending = records;
            self.keep(world, &body);
        }
        status
    }

    /// Consents to backups of the vault; returns the authority for requests.
    pub(crate) async fn consents(&mut self, world: &World) -> String {
        let mut said = Vec::new();
        if self
            .view
            .as_ref()
            .unwrap()
            .epoch(Some(self.vault))
            .is_none()
        {
            said.push(self.epoch(Some(self.vault)));
        }
        said.push(Said::ConsentGiven(Box::new(self.consent(world))));
        assert_eq!(self.append(world, said).await, None);
        let id: StatementId = self.records.last().unwrap().commitment;
        format!("grant {id}")
    }

    pub(crate) async fn withdraws(&mut self, world: &World) {
        let said = Said::ConsentWithdrawn(Withdrawal {
            version: CONSENT_RECORD_VERSION,
            service: ServiceCode::Backup,
            vault: None,
        });
        assert_eq!(self.append(world, vec![said]).await, None);
    }

    pub(crate) fn putting(&self, object: &Bytes, authority: &str) -> Ask {
        self.putting_as(ObjectId::of(object), object, authority)
    }

    pub(crate) fn putting_as(&self, name: ObjectId, object: &Bytes, authority: &str) -> Ask {
        let ask = self.ask(EndpointId::PutObject, authority.to_owned());
        Ask {
            path: ask.path.replace("{object}", &name.to_string()),
            body: object.clone(),
            ..ask
        }
    }

    pub(crate) fn getting(&self, name: ObjectId, authority: &str) -> Ask {
        let ask = self.ask(EndpointId::GetObject, authority.to_owned());
        Ask {
            path: ask.path.replace("{object}", &name.to_string()),
            ..ask
        }
    }

    pub(crate) fn head(
        &self,
        world: &World,
        counter: u64,
        previous: Option<HeadHash>,
        manifest: ObjectId,
    ) -> SignedHead {
        self.condemning(world, (counter, previous, manifest), Vec::new())
    }

    pub(crate) fn condemning(
        &self,
        world: &World,
        (counter, previous, manifest): (u64, Option<HeadHash>, ObjectId),
        condemned: Vec<ObjectId>,
    ) -> SignedHead {
        let head = Head {
            version: HEAD_VERSION,
            account: self.account,
            vault: self.vault,
            counter,
            previous,
            manifest,
            epoch: 1,
            device: self.device,
            time: world.now(),
            condemned,
            runs: None,
        };
        SignedHead::sign(&head, self.key.ed25519())
    }

    pub(crate) async fn chain(&self, world: &World) -> ChainPage {
        let (status, body) = self
            .call(
                world,
                &self.ask(EndpointId::ReadChain, self.errand(world, Purpose::List)),
            )
            .await;
        assert_eq!(status, StatusCode::OK, "{:?}", error(&body));
        decoded(&body)
    }
}

/// An object of 64 KiB.
pub(crate) fn object(filling: u8) -> Bytes {
    Bytes::from(vec![filling; 64 * 1024])
}
