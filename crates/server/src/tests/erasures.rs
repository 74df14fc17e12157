//! Erasing vaults and accounts: what is gone afterwards, what stays, and what proves it.

use std::path::{Path, PathBuf};

use candor_log::leaf::{Class, LEAF_BYTES, Leaf};
use candor_wire::api::{EndpointId, ErasureReply, ErrorCode, SwapHead};
use candor_wire::cbor;
use candor_wire::chain::AccountView;
use candor_wire::erasure::{
    ACCOUNT_ERASURE_DAYS, ERASURE_VERSION, Erasure, ErasureAsked, ErasureCancelled, log_label,
    receipt_name,
};
use candor_wire::errand::Purpose;
use candor_wire::ids::{ObjectId, Salt, StatementId, VaultId, to_hex};
use candor_wire::statement::Body as Said;
use candor_wire::time::DAY_MS;
use http::StatusCode;

use super::world::{Ask, Person, World, decoded, object};

const RETENTION_DAYS: u32 = 10;

async fn world() -> World {
    let world = World::with(
        |config| config.retention_days = RETENTION_DAYS,
        crate::log::Log::silent(),
    )
    .await;
    // The signer signs, and so knows that the database is no older one.
    world.cell.shared().transparency.step().await.unwrap();
    world
}

async fn sweep(world: &World) {
    crate::housekeeping::sweep(world.cell.shared()).await;
}

fn asks(vault: Option<VaultId>) -> Said {
    Said::ErasureAsked(ErasureAsked {
        version: ERASURE_VERSION,
        vault,
    })
}

fn cancels(asked: StatementId) -> Said {
    Said::ErasureCancelled(ErasureCancelled {
        version: ERASURE_VERSION,
        asked,
    })
}

/// Asks for it; returns the statement's id and salt.
async fn ask(world: &World, person: &mut Person, vault: Option<VaultId>) -> (StatementId, Salt) {
    let said = vec![asks(vault)];
    let outcome = person.append_for(world, Purpose::Erase, said).await;
    assert_eq!(outcome, None);
    let record = person.records.last().unwrap();
    (record.commitment, record.statement.as_ref().unwrap().salt)
}

/// Two objects and a head in a vault of its own; returns the grant.
async fn fills(world: &World, person: &mut Person, vault: VaultId) -> String {
    person.vault = vault;
    let grant = person.consents(world).await;
    for filling in [1, 2] {
        let put = person.putting(&object(filling), &grant);
        assert_eq!(person.outcome(world, &put).await, None);
    }
    let head = person.head(world, 1, None, ObjectId::of(&object(1)));
    let swap = SwapHead {
        version: candor_wire::api::API_VERSION,
        expected: None,
        head,
        rescued: None,
    };
    let ask = Ask {
        body: cbor::encode(&swap).into(),
        ..person.ask(EndpointId::SwapHead, grant.clone())
    };
    assert_eq!(person.outcome(world, &ask).await, None);
    grant
}

async fn receipt(world: &World, person: &Person, asked: &Salt) -> Option<ErasureReply> {
    let ask = person.ask(EndpointId::ReadErasure, String::new());
    let path = ask
        .path
        .replace(&"ee".repeat(32), &to_hex(&receipt_name(asked)));
    let request = http::Request::get(path)
        .body(axum::body::Body::empty())
        .unwrap();
    let (status, body) = world.send(request).await;
    match status {
        StatusCode::OK => Some(decoded(&body)),
        other => {
            assert_eq!(other, StatusCode::NOT_FOUND);
            None
        }
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

fn store(world: &World) -> PathBuf {
    world.directory.path().join("store")
}

/// How many files and directories below the objects have this in their name's path.
fn named(world: &World, id: &str) -> usize {
    let all = files_below(&store(world).join("objects"));
    let with_id = all
        .iter()
        .filter(|path| path.to_str().unwrap().contains(id));
    with_id.count()
}

/// In how many rows of the database a column of any table is this id, asked in SQL.
fn rows_with(world: &World, id: &[u8]) -> usize {
    let file = store(world).join("records.sqlite");
    let connection =
        rusqlite::Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .unwrap();
    let mut rows = 0;
    for column in candor_store::data_map::COLUMNS {
        let question = format!(
            "SELECT count(*) FROM {} WHERE {} = ?1",
            column.table, column.name
        );
        let found: i64 = connection
            .query_row(&question, [id], |row| row.get(0))
            .unwrap();
        rows += usize::try_from(found).unwrap();
    }
    rows
}

/// Whether the bytes are in any file of the store.
fn is_in_a_file(world: &World, bytes: &[u8]) -> bool {
    let files = files_below(&store(world)).into_iter();
    let mut contents = files
        .filter(|path| path.is_file())
        .map(|path| std::fs::read(path).unwrap());
    contents.any(|content| content.windows(bytes.len()).any(|some| some == bytes))
}

async fn leaves(world: &World) -> Vec<Leaf> {
    while world.cell.shared().transparency.step().await.unwrap() {}
    let files = world.cell.shared().log_files();
    let size = world
        .cell
        .shared()
        .log_records()
        .log_tree()
        .await
        .unwrap()
        .size;
    let name = format!("tile/entries/000.p/{size}");
    let bundle = files.get(name).await.unwrap().expect("a small log");
    // C2SP tlog-tiles: each entry after its length in two bytes.
    let entries = bundle.chunks(LEAF_BYTES + 2);
    entries
        .map(|entry| Leaf::decode(&entry[2..]).unwrap())
        .collect()
}

fn check_receipt(world: &World, reply: &ErasureReply) -> Erasure {
    let shared = world.cell.shared();
    reply.erasure.verify(&shared.keyring).unwrap()
}

const KEPT: VaultId = VaultId::from_bytes([0xa1; 16]);
const ERASED: VaultId = VaultId::from_bytes([0xb2; 16]);

#[tokio::test]
async fn an_erased_vault_is_gone_and_its_neighbour_is_untouched() {
    let world = world().await;
    let mut person = world.person().await;
    let kept_grant = fills(&world, &mut person, KEPT).await;
    let kept_head = world.cell.shared().records.head(person.account, KEPT);
    let kept_head = kept_head.await.unwrap().unwrap();
    let grant = fills(&world, &mut person, ERASED).await;
    let consent = person.records.last().unwrap().clone();
    let salt_of_consent = consent.statement.as_ref().unwrap().salt;
    let consent_label = consent.statement.as_ref().unwrap().parse().unwrap();
    let vault = ERASED.to_string();
    assert!(named(&world, &vault) > 2 && is_in_a_file(&world, salt_of_consent.as_bytes()));

    let (asked, salt) = ask(&world, &mut person, Some(ERASED)).await;
    // From now on nothing more is stored, and everything is there until its time.
    let put = person.putting(&object(3), &grant);
    assert_eq!(
        person.outcome(&world, &put).await,
        Some(ErrorCode::NoConsent)
    );
    let consent_again = vec![Said::ConsentGiven(Box::new(person.consent(&world)))];
    let refused = person.append(&world, consent_again).await;
    assert_eq!(refused, Some(ErrorCode::Chain));
    world.advance(i64::from(RETENTION_DAYS) * DAY_MS - 1);
    sweep(&world).await;
    let errand = person.errand(&world, Purpose::Restore);
    let get = person.getting(ObjectId::of(&object(1)), &errand);
    assert_eq!(person.outcome(&world, &get).await, None);
    assert!(receipt(&world, &person, &salt).await.is_none());

    world.advance(1);
    sweep(&world).await;
    assert_eq!(named(&world, &vault), 0, "no file, no directory");
    assert_eq!(rows_with(&world, ERASED.as_bytes()), 0, "no row");
    assert!(
        !is_in_a_file(&world, salt_of_consent.as_bytes()),
        "what opens the consent's entry in the log is destroyed"
    );

    let reply = receipt(&world, &person, &salt).await.unwrap();
    let erasure = check_receipt(&world, &reply);
    assert_eq!(
        (erasure.account, erasure.vault, erasure.asked),
        (person.account, Some(ERASED), asked)
    );
    assert_eq!((erasure.objects, erasure.bytes), (2, 2 * 64 * 1024));
    assert_eq!(erasure.consents, 1);
    assert_eq!(erasure.erased_at, world.now());

    // The log: the consent's leaf says nothing any more, and the erasure is counted.
    let leaves = leaves(&world).await;
    let leaf = Leaf::statement(&consent_label.entry.label, &consent.commitment);
    assert!(leaves.contains(&leaf));
    let counted: Vec<&Leaf> = leaves
        .iter()
        .filter(|leaf| leaf.class == Class::Erasure)
        .collect();
    let proof = Leaf {
        class: Class::Erasure,
        label: *log_label(&reply.salt).as_bytes(),
        commitment: *reply.erasure.commitment(&reply.salt).as_bytes(),
    };
    assert_eq!(counted, [&proof]);

    // The chain: a stub, with which it verifies.
    let page = person.chain(&world).await;
    let view =
        AccountView::of(person.account, &page.records, &world.cell.shared().keyring).unwrap();
    let place = usize::try_from(consent.sequence).unwrap();
    assert_eq!(page.records[place].statement, None);
    assert_eq!(page.records[place].commitment, consent.commitment);
    assert_eq!(view.tip(), person.view.as_ref().unwrap().tip());
    assert_eq!(view.consents().len(), 1);

    // The neighbour.
    person.vault = KEPT;
    let get = person.getting(ObjectId::of(&object(1)), &errand_of(&world, &person));
    let (status, body) = person.call(&world, &get).await;
    assert_eq!((status, body), (StatusCode::OK, object(1)));
    let head = world.cell.shared().records.head(person.account, KEPT);
    assert_eq!(head.await.unwrap().unwrap(), kept_head);
    let put = person.putting(&object(5), &kept_grant);
    assert_eq!(person.outcome(&world, &put).await, None);
    let used = world.cell.shared().records.account(person.account);
    let used = used.await.unwrap().unwrap();
    assert_eq!((used.stored_bytes, used.reserved_bytes), (3 * 64 * 1024, 0));
    world.cell.shared().records.check().await.unwrap();

    // Done is done, also after a restart.
    let world = world.restarted().await;
    let again = receipt(&world, &person, &salt).await.unwrap();
    assert_eq!(again, reply);
    let late = vec![cancels(asked)];
    let outcome = person.append_for(&world, Purpose::Erase, late).await;
    assert_eq!(outcome, Some(ErrorCode::NotPermitted));
}

fn errand_of(world: &World, person: &Person) -> String {
    person.errand(world, Purpose::Restore)
}

#[tokio::test]
async fn a_wish_to_erase_can_be_taken_back_in_time() {
    let world = world().await;
    let mut person = world.person().await;
    fills(&world, &mut person, ERASED).await;
    let (asked, salt) = ask(&world, &mut person, Some(ERASED)).await;
    let twice = vec![asks(Some(ERASED))];
    let outcome = person.append_for(&world, Purpose::Erase, twice).await;
    assert_eq!(
        outcome,
        Some(ErrorCode::Chain),
        "it is being erased already"
    );
    let cancel = vec![cancels(asked)];
    let outcome = person.append_for(&world, Purpose::Erase, cancel).await;
    assert_eq!(outcome, None);
    let grant = person.consents(&world).await;
    world.advance(i64::from(RETENTION_DAYS) * DAY_MS);
    sweep(&world).await;
    let get = person.getting(ObjectId::of(&object(1)), &grant);
    assert_eq!(person.outcome(&world, &get).await, None);
    assert!(receipt(&world, &person, &salt).await.is_none());
    // It can be asked for again, and then has its whole window.
    ask(&world, &mut person, Some(ERASED)).await;
    world.advance(DAY_MS);
    sweep(&world).await;
    assert!(named(&world, &ERASED.to_string()) > 0);
}

#[tokio::test]
async fn an_erased_account_leaves_nothing_but_its_receipt() {
    let world = world().await;
    let mut person = world.person().await;
    let mut other = world.person().await;
    fills(&world, &mut person, ERASED).await;
    let other_grant = fills(&world, &mut other, KEPT).await;
    world.cell.shared().transparency.step().await.unwrap();
    let account = person.account.to_string();
    let (asked, salt) = ask(&world, &mut person, None).await;
    let consent = vec![Said::ConsentGiven(Box::new(person.consent(&world)))];
    let refused = person.append(&world, consent).await;
    assert_eq!(refused, Some(ErrorCode::Chain));

    world.advance(i64::from(ACCOUNT_ERASURE_DAYS) * DAY_MS - 1);
    sweep(&world).await;
    assert!(named(&world, &account) > 0);
    world.advance(1);
    sweep(&world).await;
    assert_eq!(named(&world, &account), 0);
    assert_eq!(
        rows_with(&world, person.account.as_bytes()),
        1,
        "the receipt's"
    );
    assert!(!is_in_a_file(&world, &person.root.public().fingerprint()));
    let genesis = person.records[0].statement.as_ref().unwrap();
    assert!(!is_in_a_file(&world, genesis.salt.as_bytes()));
    let chain = person.ask(EndpointId::ReadChain, person.errand(&world, Purpose::List));
    assert_eq!(
        person.outcome(&world, &chain).await,
        Some(ErrorCode::NotFound)
    );

    let reply = receipt(&world, &person, &salt).await.unwrap();
    let erasure = check_receipt(&world, &reply);
    assert_eq!((erasure.vault, erasure.asked), (None, asked));
    assert_eq!((erasure.objects, erasure.consents), (2, 1));

    // The log goes on, and so does everybody else.
    let erasures = leaves(&world).await;
    let erasures = erasures.iter().filter(|leaf| leaf.class == Class::Erasure);
    assert_eq!(erasures.count(), 1);
    let put = other.putting(&object(5), &other_grant);
    assert_eq!(other.outcome(&world, &put).await, None);
    world.cell.shared().records.check().await.unwrap();
    let world = world.restarted().await;
    let late = fills(&world, &mut other, VaultId::from_bytes([7; 16])).await;
    assert!(late.starts_with("grant"));
    world.cell.shared().transparency.step().await.unwrap();

    // The receipt itself is not kept for ever.
    world.advance(91 * DAY_MS);
    sweep(&world).await;
    assert!(receipt(&world, &person, &salt).await.is_none());
    assert_eq!(rows_with(&world, person.account.as_bytes()), 0);
}

#[tokio::test]
async fn the_root_key_may_end_its_account_and_keep_it() {
    let world = world().await;
    let mut person = world.person().await;
    let errand =
        |person: &Person| person.errand_of(&world, Purpose::Recover, None, Some(person.account));
    let as_root = |person: &Person, said: Said| {
        let record = person.state(&world, None, said, &[]);
        let ask = person.appending(vec![record.clone()], errand(person));
        (
            Ask {
                signer: None,
                ..ask
            },
            record.commitment,
        )
    };
    let (of_a_vault, _) = as_root(&person, asks(Some(person.vault)));
    let refused = person.outcome(&world, &of_a_vault).await;
    assert_eq!(refused, Some(ErrorCode::Chain), "vaults are the devices'");
    let (ending, asked) = as_root(&person, asks(None));
    assert_eq!(person.outcome(&world, &ending).await, None);
    person.records = person.chain(&world).await.records;
    let keyring = &world.cell.shared().keyring;
    person.view = Some(AccountView::of(person.account, &person.records, keyring).unwrap());
    let (keeping, _) = as_root(&person, cancels(asked));
    assert_eq!(person.outcome(&world, &keeping).await, None);
    world.advance(i64::from(RETENTION_DAYS) * DAY_MS);
    sweep(&world).await;
    assert_eq!(person.chain(&world).await.records.len(), 5);
}

/// A cell that was put back may have lost that an erasure was cancelled.
#[tokio::test]
async fn nothing_is_erased_before_the_signer_knows_that_the_database_is_no_older_one() {
    let world = world().await;
    let mut person = world.person().await;
    fills(&world, &mut person, ERASED).await;
    ask(&world, &mut person, Some(ERASED)).await;
    world.cell.shared().transparency.step().await.unwrap();
    // The signer remembers more than the database has.
    let directory = world.directory.path().to_path_buf();
    let kept = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        for file in files_below(from) {
            let target = to.join(file.strip_prefix(from).unwrap());
            if file.is_dir() {
                std::fs::create_dir_all(&target).unwrap();
            } else {
                std::fs::create_dir_all(target.parent().unwrap()).unwrap();
                std::fs::copy(&file, &target).unwrap();
            }
        }
    };
    let store = directory.join("store");
    let world = world.restarted_after(|| copy(&store, kept.path())).await;
    let mut later = world.person().await;
    fills(&world, &mut later, KEPT).await;
    while world.cell.shared().transparency.step().await.unwrap() {}
    let world = world
        .restarted_after(|| {
            std::fs::remove_dir_all(&store).unwrap();
            copy(kept.path(), &store);
        })
        .await;
    world.advance(i64::from(RETENTION_DAYS) * DAY_MS);
    assert!(world.cell.shared().transparency.step().await.is_err());
    sweep(&world).await;
    assert!(named(&world, &ERASED.to_string()) > 0);
}
