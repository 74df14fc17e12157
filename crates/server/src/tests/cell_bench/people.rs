//! Accounts and devices at a cell that runs elsewhere: all that is known of it is an invitation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candor_wire::api::{
    API_VERSION, AppendChain, Appended, BodyKind, CellDescription, EndpointId, OpenAccount,
    SwapHead, endpoint,
};
use candor_wire::cbor::{self, Canonical};
use candor_wire::cell::{CellKeyring, Invitation, authority};
use candor_wire::chain::{AccountView, Record};
use candor_wire::consent_record::{
    Basis, CONSENT_RECORD_VERSION, Collected, ConsentRecord, DataCategory, Event, Operation,
    Recipient, ServiceCode,
};
use candor_wire::epoch::{EPOCH_RECORD_VERSION, EpochRecord, Wrap};
use candor_wire::errand::{ERRAND_VERSION, ErrandToken, Purpose, SignedErrand};
use candor_wire::head::{HEAD_VERSION, Head, HeadHash, SignedHead};
use candor_wire::ids::{AccountId, DeviceId, Label, ObjectId, RequestNonce, Salt, VaultId};
use candor_wire::request::{self, Covered};
use candor_wire::sign::{Ed25519Public, SecretKey, SigningSeeds};
use candor_wire::statement::{Body as Said, DeviceAdded, Draft, Genesis, Role, genesis_link, link};
use candor_wire::time::{DAY_MS, Millis};

use super::line::{Line, Reply, Sent, pieces_of_zeros};
use crate::clock::{Clock as _, SystemClock};

/// How long an errand and a consent are good: longer than any measurement.
const GOOD_FOR_DAYS: i64 = 1;

/// The cell that is measured.
pub(super) struct Place {
    pub(super) root: Ed25519Public,
    pub(super) address: SocketAddr,
    pub(super) keyring: CellKeyring,
    counter: AtomicU64,
    seed: [u8; 32],
}

impl Place {
    /// Asks the cell that the invitation names for its keys.
    pub(super) async fn of(invitation: &Invitation) -> Arc<Self> {
        let root = invitation.root;
        let address = invitation.addresses[0].parse().unwrap();
        let mut line = Line::open(address, &root, 1).await.unwrap();
        let reply = line.ask(&Sent::new("GET", "/v1/cell", "", &[], 0)).await;
        let described: CellDescription = decoded(&reply.unwrap());
        Arc::new(Self {
            keyring: CellKeyring::verify(&root, &described.keys).unwrap(),
            root,
            address,
            counter: AtomicU64::new(0),
            seed: crate::random::bytes().unwrap(),
        })
    }

    /// Bytes that nobody had before.
    pub(super) fn fresh<const N: usize>(&self) -> [u8; N] {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut out = [0; N];
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&number.to_be_bytes());
        hasher.finalize_xof().fill(&mut out);
        out
    }

    /// An object that nobody has yet.
    pub(super) fn object(&self, bytes: usize) -> Object {
        let mut object = self.promised(bytes);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&object.fresh);
        for piece in pieces_of_zeros(object.zeros) {
            hasher.update(piece);
        }
        object.name = ObjectId::from_bytes(*hasher.finalize().as_bytes());
        object
    }

    /// One whose end nobody will read: its name is not its own, which nothing but the end would show.
    pub(super) fn promised(&self, bytes: usize) -> Object {
        let fresh = self.fresh();
        Object {
            name: ObjectId::from_bytes(fresh),
            zeros: bytes - fresh.len(),
            fresh,
        }
    }

    fn secret(&self) -> Arc<SecretKey> {
        Arc::new(SecretKey::from_seeds(&SigningSeeds {
            ed25519: self.fresh(),
            ml_dsa: self.fresh(),
        }))
    }
}

/// An object of a name of its own: bytes that nobody had, and zeros after them. The zeros are never in one piece: who
/// asks the kernel for 16 MiB and lets them go, thirty times in a second, holds a processor for milliseconds each time,
/// whoever else waits for it, and a device of another house could not do that to the cell.
pub(super) struct Object {
    pub(super) name: ObjectId,
    fresh: [u8; 32],
    zeros: usize,
}

fn now() -> Millis {
    SystemClock.now()
}

/// The message in a reply that has to be a success.
pub(super) fn decoded<T: Canonical>(reply: &Reply) -> T {
    assert_eq!(reply.status, 200, "{:?}", reply.error());
    cbor::decode(&reply.body).unwrap()
}

/// One account: its root key, and its chain as far as it goes.
struct Account {
    place: Arc<Place>,
    id: AccountId,
    root: Arc<SecretKey>,
    records: Vec<Record>,
}

/// A device that may back up into a vault of its own.
pub(super) struct Device {
    pub(super) place: Arc<Place>,
    pub(super) account: AccountId,
    pub(super) id: DeviceId,
    pub(super) vault: VaultId,
    key: Arc<SecretKey>,
    grant: String,
    head: Option<(u64, HeadHash)>,
    errand_nonce: RequestNonce,
}

/// Opens an account with so many devices, each of which consented.
pub(super) async fn family(
    invitation: &Invitation,
    place: &Arc<Place>,
    devices: usize,
) -> Vec<Device> {
    let mut line = Line::open(place.address, &place.root, 1).await.unwrap();
    let mut account = Account {
        place: Arc::clone(place),
        id: AccountId::from_bytes(place.fresh()),
        root: place.secret(),
        records: Vec::new(),
    };
    let mut all: Vec<Device> = (0..devices).map(|_| account.device()).collect();
    account.open(&mut line, invitation, &all[0]).await;
    if devices > 1 {
        account.enrol(&mut line, &all[1..]).await;
    }
    for device in &mut all {
        account.consent(&mut line, device).await;
    }
    all
}

impl Account {
    fn device(&self) -> Device {
        Device {
            place: Arc::clone(&self.place),
            account: self.id,
            id: DeviceId::from_bytes(self.place.fresh()),
            vault: VaultId::from_bytes(self.place.fresh()),
            key: self.place.secret(),
            grant: String::new(),
            head: None,
            errand_nonce: RequestNonce::from_bytes(self.place.fresh()),
        }
    }

    /// A statement after what is there and what is pending, by a device or by the root key.
    fn state(&self, pending: &mut Vec<Record>, device: Option<&Device>, body: Said) {
        let draft = Draft {
            account: self.id,
            signer: device.map(|device| device.id),
            time: now(),
            label: Label::from_bytes(self.place.fresh()),
            salt: Salt::from_bytes(self.place.fresh()),
            body,
        };
        let (sequence, tip) = self.tip(pending);
        let key = device.map_or(&self.root, |device| &device.key);
        pending.push(Record::of(draft.sign(sequence, tip, key).0).unwrap());
    }

    fn tip(&self, pending: &[Record]) -> (u64, candor_wire::ids::Link) {
        let all = self.records.iter().chain(pending);
        all.zip(0..)
            .fold((0, genesis_link()), |(_, tip), (record, n)| {
                (n + 1, link(n, record.kind.code(), &tip, &record.commitment))
            })
    }

    fn keep(&mut self, pending: Vec<Record>, reply: &Reply) {
        let appended: Appended = decoded(reply);
        for (mut record, acknowledgement) in pending.into_iter().zip(appended.acknowledgements) {
            record.acknowledgement = Some(acknowledgement);
            self.records.push(record);
        }
        AccountView::of(self.id, &self.records, &self.place.keyring).unwrap();
    }

    async fn open(&mut self, line: &mut Line, invitation: &Invitation, first: &Device) {
        let mut pending = Vec::new();
        let genesis = Said::Genesis(Box::new(Genesis {
            root: self.root.public(),
            recovery: [1; 1216],
            cell: invitation.cell(),
        }));
        self.state(&mut pending, None, genesis);
        self.state(&mut pending, None, first.added());
        self.state(&mut pending, Some(first), first.epoch(None));
        let body = OpenAccount {
            version: API_VERSION,
            account: self.id,
            right: invitation.right.clone().unwrap(),
            records: pending.clone(),
        };
        let errand = first.errand(Purpose::Create);
        let sent = first.sign(EndpointId::OpenAccount, None, &errand, &cbor::encode(&body));
        let reply = line.ask(&sent).await.unwrap();
        self.keep(pending, &reply);
    }

    /// Adds devices by the root key, as a recovery does.
    async fn enrol(&mut self, line: &mut Line, devices: &[Device]) {
        let mut pending = Vec::new();
        for device in devices {
            self.state(&mut pending, None, device.added());
        }
        let token = ErrandToken {
            signer: None,
            ..devices[0].errand_token(Purpose::Recover)
        };
        let errand = SignedErrand::sign(&token, self.root.ed25519()).to_text();
        let body = self.appending(&pending);
        let signer = Signer {
            device: None,
            key: &self.root,
        };
        let sent = devices[0].sign_as(
            &signer,
            EndpointId::AppendChain,
            None,
            &format!("errand {errand}"),
            (&body, 0),
        );
        let reply = line.ask(&sent).await.unwrap();
        self.keep(pending, &reply);
    }

    async fn consent(&mut self, line: &mut Line, device: &mut Device) {
        let mut pending = Vec::new();
        self.state(&mut pending, Some(device), device.epoch(Some(device.vault)));
        let given = Said::ConsentGiven(Box::new(device.consent()));
        self.state(&mut pending, Some(device), given);
        device.grant = format!("grant {}", pending[1].commitment);
        let body = self.appending(&pending);
        let errand = device.errand(Purpose::Consent);
        let sent = device.sign(EndpointId::AppendChain, None, &errand, &body);
        let reply = line.ask(&sent).await.unwrap();
        self.keep(pending, &reply);
    }

    fn appending(&self, pending: &[Record]) -> Vec<u8> {
        cbor::encode(&AppendChain {
            version: API_VERSION,
            after: self.tip(&[]).1,
            records: pending.to_vec(),
        })
    }
}

/// Who signs a request.
struct Signer<'a> {
    device: Option<DeviceId>,
    key: &'a SecretKey,
}

impl Device {
    fn added(&self) -> Said {
        Said::DeviceAdded(Box::new(DeviceAdded {
            device: self.id,
            role: Role::Full,
            signing: self.key.public(),
            agreement: [2; 1216],
            sealed_name: vec![3; 40],
        }))
    }

    fn epoch(&self, vault: Option<VaultId>) -> Said {
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
            wraps: vec![wrap(None), wrap(Some(self.id))],
            earlier: Vec::new(),
        }))
    }

    fn consent(&self) -> ConsentRecord {
        let keys = self.place.keyring.current();
        ConsentRecord {
            version: CONSENT_RECORD_VERSION,
            subject: self.account,
            device: self.id,
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
            given_at: now(),
            ends_at: now().plus_ms(GOOD_FOR_DAYS * DAY_MS),
            how_to_withdraw: "candor consent off backup".into(),
            previous: None,
        }
    }

    fn errand_token(&self, purpose: Purpose) -> ErrandToken {
        ErrandToken {
            version: ERRAND_VERSION,
            account: Some(self.account),
            signer: Some(self.id),
            purpose,
            cell: self.place.keyring.cell(),
            created: now(),
            expires: now().plus_ms(60_000),
            nonce: self.errand_nonce,
        }
    }

    fn errand(&self, purpose: Purpose) -> String {
        let signed = SignedErrand::sign(&self.errand_token(purpose), self.key.ed25519());
        format!("errand {}", signed.to_text())
    }

    fn sign(&self, id: EndpointId, object: Option<ObjectId>, authority: &str, body: &[u8]) -> Sent {
        self.sign_as(&self.signer(), id, object, authority, (body, 0))
    }

    fn signer(&self) -> Signer<'_> {
        Signer {
            device: Some(self.id),
            key: &self.key,
        }
    }

    fn sign_as(
        &self,
        signer: &Signer<'_>,
        id: EndpointId,
        object: Option<ObjectId>,
        claim: &str,
        (body, zeros): (&[u8], usize),
    ) -> Sent {
        let row = endpoint(id);
        let mut path = row
            .path
            .replace("{account}", &self.account.to_string())
            .replace("{vault}", &self.vault.to_string());
        if let Some(object) = object {
            path = path.replace("{object}", &object.to_string());
        }
        let digest =
            matches!(row.request, BodyKind::Cbor(_)).then(|| request::content_digest(body));
        let device = request::device_header(signer.device.as_ref());
        let covered = Covered {
            method: row.method.name(),
            authority: &authority(&self.place.keyring.cell()),
            path: &path,
            query: "",
            device: &device,
            authorization: claim,
            placement: "1",
            digest: digest.as_deref(),
        };
        let nonce = RequestNonce::from_bytes(self.place.fresh());
        let signed = request::sign(&covered, now().seconds(), &nonce, signer.key.ed25519());
        let mut headers = format!(
            "{}: {device}\r\n{}: {claim}\r\n{}: 1\r\n{}: {}\r\n{}: {}\r\n",
            request::HEADER_DEVICE,
            request::HEADER_AUTHORITY,
            request::HEADER_PLACEMENT,
            request::HEADER_SIGNATURE_INPUT,
            signed.input,
            request::HEADER_SIGNATURE,
            signed.signature,
        );
        if let Some(digest) = digest {
            headers += &format!("{}: {digest}\r\n", request::HEADER_DIGEST);
        }
        Sent::new(row.method.name(), &path, &headers, body, zeros)
    }

    /// The same device, on a connection of its own. Only one of the two moves the head.
    pub(super) fn twin(&self) -> Self {
        Self {
            place: Arc::clone(&self.place),
            key: Arc::clone(&self.key),
            grant: self.grant.clone(),
            ..*self
        }
    }

    /// Stores an object.
    pub(super) fn put(&self, object: &Object) -> Sent {
        self.sign_as(
            &self.signer(),
            EndpointId::PutObject,
            Some(object.name),
            &self.grant,
            (&object.fresh, object.zeros),
        )
    }

    pub(super) fn get(&self, name: ObjectId) -> Sent {
        self.sign(EndpointId::GetObject, Some(name), &self.grant, &[])
    }

    /// Moves the head of this device's vault to a manifest that is stored; nobody else moves it.
    pub(super) fn move_head(&mut self, manifest: ObjectId) -> Sent {
        let previous = self.head.map(|(_, hash)| hash);
        let head = Head {
            version: HEAD_VERSION,
            account: self.account,
            vault: self.vault,
            counter: self.head.map_or(1, |(counter, _)| counter + 1),
            previous,
            manifest,
            epoch: 1,
            device: self.id,
            time: now(),
            condemned: Vec::new(),
            runs: None,
        };
        let signed = SignedHead::sign(&head, self.key.ed25519());
        self.head = Some((head.counter, signed.hash()));
        let body = SwapHead {
            version: API_VERSION,
            expected: previous,
            head: signed,
            rescued: None,
        };
        self.sign(
            EndpointId::SwapHead,
            None,
            &self.grant,
            &cbor::encode(&body),
        )
    }
}
