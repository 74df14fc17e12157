//! The authorization matrix: every endpoint of the kept API document, with every role, authority and object.
//!
//! What is expected comes from the document, not from the table that the gate reads: a row that is changed in one
//! of them only, or left out, fails here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use candor_wire::api::{ENDPOINTS, EndpointId, ErrorCode, SwapHead};
use candor_wire::cbor;
use candor_wire::chain::AccountView;
use candor_wire::errand::Purpose;
use candor_wire::ids::{AccountId, DeviceId, ObjectId, VaultId};
use candor_wire::statement::Role as DeviceRole;
use http::StatusCode;
use serde_json::Value;

use super::world::{Ask, Person, World, error, object};

const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A full device of the account.
    Full,
    /// A write-only device of the account.
    WriteOnly,
    /// The account's root key.
    Root,
    /// A full device of another account, as itself.
    Stranger,
    /// The same, with the name of the account's device.
    Impostor,
    /// A key that no account has.
    Unknown,
}

/// With what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// A live consent to backups, of the device that asks, if it can have one.
    Backup,
    /// A consent that nobody gave.
    MadeUp,
    Errand(Purpose),
}

/// One operation of the document.
struct Operation {
    path: String,
    method: String,
    id: EndpointId,
    caller: String,
    grants: Vec<String>,
    errands: Vec<String>,
    write_only: bool,
}

fn words(value: &Value) -> Vec<String> {
    let list = value.as_array().unwrap().iter();
    list.map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(name) = operation["operationId"].as_str() else {
                continue;
            };
            let row = ENDPOINTS.iter().find(|row| format!("{:?}", row.id) == name);
            found.push(Operation {
                path: path.clone(),
                method: method.to_uppercase(),
                id: row.unwrap_or_else(|| panic!("{name} is not served")).id,
                caller: operation["x-candor-caller"].as_str().unwrap().to_owned(),
                grants: words(&operation["x-candor-grants"]),
                errands: words(&operation["x-candor-errands"]),
                write_only: operation["x-candor-write-only"].as_bool().unwrap(),
            });
        }
    }
    assert_eq!(
        found.len(),
        ENDPOINTS.len(),
        "an endpoint is not in the document"
    );
    found
}

impl Operation {
    /// Whether a caller gets past the gate on their own account.
    fn opens(&self, role: Role, claim: Claim) -> bool {
        let is_named = match claim {
            Claim::Errand(purpose) => self.errands.iter().any(|name| name == purpose.name()),
            Claim::Backup => self.grants.iter().any(|name| name == "backup"),
            Claim::MadeUp => false,
        };
        match (self.caller.as_str(), role) {
            ("Device", Role::Full) => is_named,
            // The vault is the full device's: a write-only one reads and moves the heads of its own alone.
            ("Device", Role::WriteOnly) => {
                let is_head = matches!(self.id, EndpointId::ReadHead | EndpointId::SwapHead);
                is_named && self.write_only && !is_head
            }
            // The root key recovers, and nothing else.
            ("Device" | "Root", Role::Root) => is_named && claim == Claim::Errand(Purpose::Recover),
            _ => false,
        }
    }
}

/// A person with another device of that role, which the root key enrolled and which consented.
pub(super) async fn with_device(
    world: &World,
    person: &Person,
    role: DeviceRole,
) -> (Person, String) {
    let mut other = Person::new(world);
    other.account = person.account;
    other.root = Arc::clone(&person.root);
    other.vault = person.vault;
    other.records = person.chain(world).await.records;
    let keyring = &world.cell.shared().keyring;
    other.view = Some(AccountView::of(other.account, &other.records, keyring).unwrap());
    let added = other.state(
        world,
        None,
        other.device_of(role, other.device, &other.key),
        &[],
    );
    let errand = other.errand_of(world, Purpose::Recover, None, None);
    let append = Ask {
        signer: None,
        ..other.appending(vec![added], errand)
    };
    assert_eq!(other.outcome(world, &append).await, None);
    other.records = person.chain(world).await.records;
    other.view = Some(AccountView::of(other.account, &other.records, keyring).unwrap());
    let grant = other.consents(world).await;
    (other, grant)
}

/// What may be told to nobody who is not let in.
fn is_refused(code: Option<ErrorCode>) -> bool {
    use ErrorCode::{NoConsent, NotFound, NotPermitted, NotSigned};
    matches!(code, Some(NotSigned | NotPermitted | NoConsent | NotFound))
}

struct Cast {
    mine: Person,
    writer: Person,
    theirs: Person,
    nobody: Person,
    grants: BTreeMap<&'static str, String>,
    stored: ObjectId,
}

impl Cast {
    async fn new(world: &World) -> Self {
        let (mut mine, mut theirs) = (world.person().await, world.person().await);
        let mut grants = BTreeMap::new();
        grants.insert("mine", mine.consents(world).await);
        grants.insert("theirs", theirs.consents(world).await);
        let (writer, grant) = with_device(world, &mine, DeviceRole::WriteOnly).await;
        grants.insert("writer", grant);
        let put = mine.putting(&object(1), &grants["mine"]);
        assert_eq!(mine.outcome(world, &put).await, None);
        world.cell.shared().transparency.step().await.unwrap();
        Self {
            stored: ObjectId::of(&object(1)),
            nobody: Person::new(world),
            mine,
            writer,
            theirs,
            grants,
        }
    }

    /// Who signs, as which device, and with which consent.
    fn caller(&self, role: Role) -> (&Person, Option<DeviceId>, &str) {
        let grant = |name| self.grants[name].as_str();
        match role {
            Role::Full => (&self.mine, Some(self.mine.device), grant("mine")),
            Role::WriteOnly => (&self.writer, Some(self.writer.device), grant("writer")),
            Role::Root => (&self.mine, None, grant("mine")),
            Role::Stranger => (&self.theirs, Some(self.theirs.device), grant("theirs")),
            Role::Impostor => (&self.theirs, Some(self.mine.device), grant("mine")),
            Role::Unknown => (&self.nobody, Some(self.nobody.device), grant("mine")),
        }
    }

    /// A request of that role to the first person's account, or to one that does not exist.
    fn ask(
        &self,
        world: &World,
        operation: &Operation,
        (role, claim): (Role, Claim),
        account: &AccountId,
    ) -> Ask {
        let (person, signer, grant) = self.caller(role);
        let of = match role {
            Role::Root if operation.id == EndpointId::FindAccount => None,
            Role::Stranger | Role::Unknown => Some(person.account),
            _ => Some(self.mine.account),
        };
        let authority = match claim {
            Claim::Backup => grant.to_owned(),
            Claim::MadeUp => format!("grant {}", "00".repeat(32)),
            Claim::Errand(purpose) => person.errand_of(world, purpose, signer, of),
        };
        let body = match operation.id {
            EndpointId::PutObject => object(2),
            EndpointId::SwapHead => {
                let mover = match role {
                    Role::WriteOnly => &self.writer,
                    _ => &self.mine,
                };
                let head = mover.head(world, 1, None, self.stored);
                let swap = SwapHead {
                    version: candor_wire::api::API_VERSION,
                    expected: None,
                    head,
                    rescued: None,
                };
                cbor::encode(&swap).into()
            }
            _ => Bytes::new(),
        };
        let named = match operation.id {
            EndpointId::PutObject => ObjectId::of(&object(2)),
            _ => self.stored,
        };
        let mine = self.mine.ask(operation.id, authority);
        Ask {
            path: mine
                .path
                .replace(&self.mine.account.to_string(), &account.to_string())
                .replace("{object}", &named.to_string()),
            body,
            signer,
            ..mine
        }
    }
}

const ROLES: [Role; 6] = [
    Role::Full,
    Role::WriteOnly,
    Role::Root,
    Role::Stranger,
    Role::Impostor,
    Role::Unknown,
];

fn claims() -> impl Iterator<Item = Claim> {
    let errands = Purpose::ALL.into_iter().map(Claim::Errand);
    [Claim::Backup, Claim::MadeUp].into_iter().chain(errands)
}

#[tokio::test]
async fn c01_every_role_gets_what_the_document_says_and_nothing_else() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    let nowhere = AccountId::from_bytes([0xee; 16]);
    let mut opened = 0;
    let signed = |operation: &&Operation| matches!(operation.caller.as_str(), "Device" | "Root");
    for operation in operations().iter().filter(signed) {
        for role in ROLES {
            for claim in claims() {
                let (person, ..) = cast.caller(role);
                let what = format!("{:?} as {role:?} with {claim:?}", operation.id);
                let ask = cast.ask(&world, operation, (role, claim), &cast.mine.account);
                let (status, body) = person.call(&world, &ask).await;
                let code = (!status.is_success()).then(|| error(&body).unwrap());
                assert_eq!(
                    !is_refused(code),
                    operation.opens(role, claim),
                    "{what}: {code:?}"
                );
                opened += u32::from(operation.opens(role, claim));
                // Whoever does not belong to the account cannot tell whether it exists.
                if matches!(role, Role::Stranger | Role::Impostor | Role::Unknown)
                    && operation.caller == "Device"
                {
                    let elsewhere = cast.ask(&world, operation, (role, claim), &nowhere);
                    let answer = person.call(&world, &elsewhere).await;
                    assert_eq!((status, body), answer, "{what}");
                    assert_eq!(status, StatusCode::NOT_FOUND, "{what}");
                }
            }
        }
    }
    assert!(
        opened > 40,
        "{opened}: the matrix opens too little to say anything"
    );
}

/// Within the own account, too: another vault, and an object of another vault.
#[tokio::test]
async fn c01_a_grant_is_for_its_vault_and_an_object_for_its_own() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    let elsewhere = VaultId::from_bytes([9; 16]).to_string();
    for operation in operations() {
        if !operation.path.contains("{vault}") {
            continue;
        }
        for claim in [
            Claim::Backup,
            Claim::Errand(Purpose::Restore),
            Claim::Errand(Purpose::Verify),
        ] {
            let ask = cast.ask(&world, &operation, (Role::Full, claim), &cast.mine.account);
            let ask = Ask {
                path: ask.path.replace(&cast.mine.vault.to_string(), &elsewhere),
                ..ask
            };
            let (status, body) = cast.mine.call(&world, &ask).await;
            let code = error(&body);
            let what = format!("{:?} with {claim:?}: {status}", operation.id);
            match (claim, operation.id) {
                (Claim::Backup, _) => assert!(is_refused(code), "{what}"),
                // The account's own, and nothing is there.
                (_, EndpointId::GetObject) => assert_eq!(code, Some(ErrorCode::NotFound), "{what}"),
                _ => assert!(
                    !body.windows(32).any(|some| some == cast.stored.as_bytes()),
                    "{what}"
                ),
            }
        }
    }
}

/// Methods that the document does not have for a path do not exist, whoever asks.
#[tokio::test]
async fn c01_no_other_method_exists() {
    let world = World::new().await;
    let cast = Cast::new(&world).await;
    let all = operations();
    for operation in &all {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
            let is_known =
                |other: &Operation| other.path == operation.path && other.method == method;
            if all.iter().any(is_known) {
                continue;
            }
            let claim = Claim::Errand(Purpose::Restore);
            let ask = Ask {
                body: Bytes::new(),
                ..cast.ask(&world, operation, (Role::Full, claim), &cast.mine.account)
            };
            let mut request = cast.mine.sign(&world, &ask);
            *request.method_mut() = method.parse().unwrap();
            let (status, _) = world.send(request).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{method} {}", operation.path);
        }
    }
}
