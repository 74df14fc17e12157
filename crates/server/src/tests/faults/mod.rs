//! Stores that fail under the cell: whatever was acknowledged is there, whatever failed says so, and when the faults
//! stop, so do the failures.

mod background;
mod operations;
mod seeded;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use candor_store::faulty::FaultKind;
use candor_store::{ObjectKey, Presence};
use candor_wire::api::ErrorCode;
use candor_wire::chain::Record;
use candor_wire::erasure::{ERASURE_VERSION, ErasureAsked};
use candor_wire::errand::Purpose;
use candor_wire::head::{HeadHash, SignedHead};
use candor_wire::ids::{AccountId, ObjectId, Salt, VaultId};
use candor_wire::limits::{HAS_MAX_IDS, PAGE_MAX_ENTRIES};
use candor_wire::statement::Body as Said;
use candor_wire::time::DAY_MS;

use super::transparency::{entries, files, leaf_of, published, step};
use super::world::{Person, World};

/// How long anything may take, a failed request included. More than the ten seconds that ReadState waits.
const HANG_MAX: Duration = Duration::from_secs(30);

/// What the cell said that it has. Nothing of it may ever be missing.
#[derive(Default)]
struct Promised {
    chains: BTreeMap<AccountId, Vec<Record>>,
    heads: BTreeMap<(AccountId, VaultId), (u64, HeadHash)>,
    objects: BTreeMap<ObjectKey, Bytes>,
}

impl Promised {
    fn chain(&mut self, person: &Person) {
        self.chains.insert(person.account, person.records.clone());
    }

    fn head(&mut self, person: &Person, counter: u64, head: &SignedHead) {
        let key = (person.account, person.vault);
        self.heads.insert(key, (counter, head.hash()));
    }

    fn object(&mut self, person: &Person, bytes: &Bytes) {
        self.objects.insert(key(person, bytes), bytes.clone());
    }

    /// Compares all of it with what is below the ports, and the database with itself.
    async fn is_kept(&self, world: &World) {
        let store = world.cell.shared().store();
        store.check().await.unwrap();
        for (account, promised) in &self.chains {
            let stored = stored_chain(world, *account).await;
            assert!(stored.len() >= promised.len(), "a chain lost its end");
            for (stored, promised) in stored.iter().zip(promised) {
                assert_eq!(stored, promised);
            }
        }
        for ((account, vault), (counter, hash)) in &self.heads {
            let head = store.records().head(*account, *vault).await.unwrap();
            let mark = head.expect("a head is gone").mark;
            assert!(mark.counter >= *counter, "a head went back");
            assert!(mark.counter > *counter || mark.hash == hash.0);
        }
        self.has_objects(world).await;
    }

    async fn has_objects(&self, world: &World) {
        let store = world.cell.shared().store();
        let records = store.records();
        let mut by_vault: BTreeMap<(AccountId, VaultId), Vec<ObjectId>> = BTreeMap::new();
        for (key, bytes) in &self.objects {
            let reader = store.objects().get(*key, None).await.unwrap();
            assert_eq!(&reader.read_to_end().await.unwrap(), bytes);
            let names = by_vault.entry((key.account, key.vault)).or_default();
            names.push(key.object);
        }
        for ((account, vault), names) in by_vault {
            for names in names.chunks(HAS_MAX_IDS) {
                let asked = records.has_objects(account, vault, names.to_vec());
                let standing = asked.await.unwrap();
                assert!(standing.iter().all(|one| *one != Presence::Absent));
            }
        }
    }
}

fn key(person: &Person, bytes: &Bytes) -> ObjectKey {
    ObjectKey {
        account: person.account,
        vault: person.vault,
        object: ObjectId::of(bytes),
    }
}

/// The chain as it is below the ports.
async fn stored_chain(world: &World, account: AccountId) -> Vec<Record> {
    let records = world.cell.shared().store().records();
    let mut stored: Vec<Record> = Vec::new();
    loop {
        let after = stored.last().map(|record| record.sequence);
        let page = records.read_chain(account, after, PAGE_MAX_ENTRIES).await;
        let page = page.unwrap();
        stored.extend(
            page.rows
                .iter()
                .map(|row| crate::views::record_of(row).unwrap()),
        );
        if !page.more {
            return stored;
        }
    }
}

/// Somebody asks for their vault to be erased, with an object in it, and so it is once the retention window is over.
/// Returns what the receipt's name is made of.
async fn has_erased(world: &World) -> Salt {
    let mut person = world.person().await;
    let grant = person.consents(world).await;
    let put = person.putting(&fresh_object(world), &grant);
    assert_eq!(person.outcome(world, &put).await, None);
    let asks = Said::ErasureAsked(ErasureAsked {
        version: ERASURE_VERSION,
        vault: Some(person.vault),
    });
    let outcome = person.append_for(world, Purpose::Erase, vec![asks]).await;
    assert_eq!(outcome, None);
    // A cell whose log was never signed since its start erases nothing.
    step(world).await;
    let statement = person.records.last().unwrap().statement.as_ref();
    statement.unwrap().salt
}

/// An object of the smallest size that no other object in this world equals.
fn fresh_object(world: &World) -> Bytes {
    let seed: [u8; 32] = world.fresh_bytes();
    Bytes::from(seed.repeat(64 * 1024 / seed.len()))
}

/// What a request that met this fault comes to. `None`: it is done all the same.
const fn refusal(kind: FaultKind) -> Option<ErrorCode> {
    match kind {
        FaultKind::Fails | FaultKind::Lost => Some(ErrorCode::Internal),
        FaultKind::Full => Some(ErrorCode::CellFull),
        FaultKind::Busy => Some(ErrorCode::Busy),
        FaultKind::Slow | FaultKind::Torn => None,
    }
}

/// Once every lost upload is over, nobody's quota is held for it, and the disk has what the records have and no more.
async fn nothing_is_left_over(world: &World, people: &[&Person]) {
    world.advance(DAY_MS + 60_000);
    let shared = world.cell.shared();
    crate::housekeeping::sweep(shared).await;
    let store = shared.store();
    let (records, objects) = (store.records(), store.objects());
    store.check().await.unwrap();
    for person in people {
        let (account, vault) = (person.account, person.vault);
        let totals = records.account(account).await.unwrap().unwrap();
        assert_eq!(totals.reserved_bytes, 0);
        let listed = records.list_objects(account, vault, None, PAGE_MAX_ENTRIES);
        let recorded: Vec<(ObjectId, u64)> = listed
            .await
            .unwrap()
            .iter()
            .map(|row| (row.object, row.size))
            .collect();
        let listed = objects.list(account, vault, None, PAGE_MAX_ENTRIES);
        let on_disk: Vec<(ObjectId, u64)> = listed
            .await
            .unwrap()
            .iter()
            .map(|one| (one.object, one.size))
            .collect();
        assert_eq!(on_disk, recorded);
        assert_eq!(
            totals.stored_bytes,
            recorded.iter().map(|(_, size)| size).sum::<u64>()
        );
    }
}

/// The published log holds every statement of these chains once.
async fn the_log_has(world: &World, chains: &BTreeMap<AccountId, Vec<Record>>) {
    let head = published(world).await.head();
    let mut counted: BTreeMap<[u8; 66], usize> = BTreeMap::new();
    for leaf in entries(&files(world), head) {
        *counted.entry(leaf.encode()).or_default() += 1;
    }
    for record in chains.values().flatten() {
        assert_eq!(counted.get(&leaf_of(record)), Some(&1));
    }
}
