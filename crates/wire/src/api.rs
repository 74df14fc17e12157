//! The HTTP interface of a cell: its endpoints, who may call them, and the bodies that they take.
//!
//! The table [`ENDPOINTS`] is the one source of all of it. The server builds its routes and its
//! OpenAPI document from it, the device's egress reaches nothing that is not in it, and the
//! authorization tests are generated from it. Bodies are canonical CBOR (`application/cbor`),
//! except objects, which are opaque bytes.

use crate::cbor::Canonical;
use crate::cell::{InvitationRight, SignedAcknowledgement, SignedCellKeys};
use crate::chain::Record;
use crate::consent_record::ServiceCode;
use crate::erasure::SignedErasure;
use crate::errand::Purpose;
use crate::head::{HeadHash, SignedHead};
use crate::ids::{AccountId, Link, ObjectId, Salt};
use crate::limits::{BODY_MAX_BYTES, OBJECT_MAX_BYTES};
use crate::time::Millis;

/// The version of the API's types that this build writes and the lowest that it accepts.
pub const API_VERSION: u8 = 1;

/// Media type of every body that is not an object.
pub const MEDIA_CBOR: &str = "application/cbor";

/// Media type of an object.
pub const MEDIA_OBJECT: &str = "application/octet-stream";

/// HTTP methods in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Writes at a name that the caller chose; repeating it changes nothing.
    Put,
    /// Everything else.
    Post,
}

impl Method {
    /// As in a request line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
        }
    }
}

/// Which endpoint. Named for what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointId {
    /// The cell's keys, controller and region.
    DescribeCell,
    /// Opens an account with a one-time right.
    OpenAccount,
    /// Finds the account of a root key.
    FindAccount,
    /// Reads a page of a chain.
    ReadChain,
    /// Appends to a chain by compare-and-swap.
    AppendChain,
    /// Reads a vault's head.
    ReadHead,
    /// Moves a vault's head by compare-and-swap.
    SwapHead,
    /// Stores an object.
    PutObject,
    /// Reads an object or a range of it.
    GetObject,
    /// Tells which of some objects are stored.
    HasObjects,
    /// Lists a vault's objects, a page at a time.
    ListObjects,
    /// A published file of the cell's log.
    ReadLog,
    /// The account's entry in the state map, with its proof.
    ReadState,
    /// The receipt of an erasure.
    ReadErasure,
    /// The heads of a write-only device's vault, all of them.
    ReadRuns,
    /// Opens a link for a new device.
    OpenLink,
    /// Leaves a message at a link.
    PutLinkMessage,
    /// Reads a link's messages.
    ReadLink,
}

/// Whose signature a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Nobody's: the reply says nothing about anybody.
    Anybody,
    /// A device that the request's own body enrols.
    NewDevice,
    /// The account's root key.
    Root,
    /// A device of the account, or its root key on the errand of recovering it.
    Device,
    /// Whoever holds the secret half of the key in the path: the two devices that share a linking code.
    Linker,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// There is none.
    Empty,
    /// Canonical CBOR of the named type.
    Cbor(&'static str),
    /// Sealed bytes.
    Object,
    /// A file of the transparency log, as C2SP tlog-tiles or `docs/formats/state-map.md` describe it.
    LogFile,
}

impl BodyKind {
    /// Longest accepted body, in bytes.
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Cbor(_) | Self::LogFile => BODY_MAX_BYTES,
            Self::Object => OBJECT_MAX_BYTES,
        }
    }
}

/// One endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// Which.
    pub id: EndpointId,
    /// Its method.
    pub method: Method,
    /// Its path, with `{names}` for what varies.
    pub path: &'static str,
    /// Who may call it.
    pub caller: Caller,
    /// Services whose grant opens it.
    pub grants: &'static [ServiceCode],
    /// Errands that open it.
    pub errands: &'static [Purpose],
    /// Whether a write-only device may call it, with these: it backs up, and neither reads nor deletes.
    pub write_only: bool,
    /// What it takes.
    pub request: BodyKind,
    /// What it answers when all is well.
    pub reply: BodyKind,
    /// Query parameters that it knows.
    pub query: &'static [&'static str],
    /// One sentence for the API document.
    pub summary: &'static str,
}

const VAULT_SERVICES: &[ServiceCode] = &[ServiceCode::Backup, ServiceCode::Sync];
const READ_BACK: &[Purpose] = &[Purpose::Restore, Purpose::Verify];
const READ_HEADS: &[Purpose] = &[
    Purpose::Restore,
    Purpose::Verify,
    Purpose::ReAnchor,
    Purpose::Revoke,
    Purpose::Recover,
];
const LINKING: &[Purpose] = &[Purpose::Join];
const NONE: &[Purpose] = &[];

/// Every endpoint of a cell. What is not here does not exist: there is no password, no session and
/// no endpoint that takes a key.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        id: EndpointId::DescribeCell,
        method: Method::Get,
        path: "/v1/cell",
        caller: Caller::Anybody,
        grants: &[],
        errands: NONE,
        write_only: true,
        request: BodyKind::Empty,
        reply: BodyKind::Cbor("CellDescription"),
        query: &[],
        summary: "The cell's keys, all generations, each signed by its root key.",
    },
    Endpoint {
        id: EndpointId::OpenAccount,
        method: Method::Post,
        path: "/v1/accounts",
        caller: Caller::NewDevice,
        grants: &[],
        errands: &[Purpose::Create],
        write_only: true,
        request: BodyKind::Cbor("OpenAccount"),
        reply: BodyKind::Cbor("Appended"),
        query: &[],
        summary: "Opens an account with a one-time right and the first entries of its chain.",
    },
    Endpoint {
        id: EndpointId::FindAccount,
        method: Method::Get,
        path: "/v1/roots/{root}",
        caller: Caller::Root,
        grants: &[],
        errands: &[Purpose::Recover],
        write_only: false,
        request: BodyKind::Empty,
        reply: BodyKind::Cbor("FoundAccount"),
        query: &[],
        summary: "Tells the holder of a root key which account it belongs to.",
    },
    Endpoint {
        id: EndpointId::ReadChain,
        method: Method::Get,
        path: "/v1/accounts/{account}/chain",
        caller: Caller::Device,
        grants: &ServiceCode::ALL,
        errands: &Purpose::ALL,
        write_only: true,
        request: BodyKind::Empty,
        reply: BodyKind::Cbor("ChainPage"),
        query: &["from"],
        summary: "A page of the account's chain, from a place on.",
    },
    Endpoint {
        id: EndpointId::AppendChain,
        method: Method::Post,
        path: "/v1/accounts/{account}/chain",
        caller: Caller::Device,
        // A device that finds a vault's epoch wrapped to a revoked one begins a new epoch before it writes.
        grants: VAULT_SERVICES,
        errands: &[
            Purpose::Consent,
            Purpose::Recover,
            Purpose::ReAnchor,
            Purpose::Erase,
            Purpose::Revoke,
            Purpose::Link,
        ],
        write_only: true,
        request: BodyKind::Cbor("AppendChain"),
        reply: BodyKind::Cbor("Appended"),
        query: &[],
        summary: "Appends statements, if the chain still ends where the caller thinks.",
    },
    Endpoint {
        id: EndpointId::ReadHead,
        method: Method::Get,
        path: "/v1/accounts/{account}/vaults/{vault}/head",
        caller: Caller::Device,
        grants: VAULT_SERVICES,
        errands: READ_HEADS,
        write_only: true,
        request: BodyKind::Empty,
        reply: BodyKind::Cbor("HeadReply"),
        query: &["after"],
        summary: "The vault's head, if it has one; at once, or when its counter is above the one named.",
    },
    Endpoint {
        id: EndpointId::SwapHead,
        method: Method::Put,
        path: "/v1/accounts/{account}/vaults/{vault}/head",
        caller: Caller::Device,
        grants: VAULT_SERVICES,
        errands: NONE,
        write_only: true,
        request: BodyKind::Cbor("SwapHead"),
        reply: BodyKind::Empty,
        query: &[],
        summary: "Moves the vault's head, if it is still the one that the caller names.",
    },
    Endpoint {
        id: EndpointId::PutObject,
        method: Method::Put,
        path: "/v1/accounts/{account}/vaults/{vault}/objects/{object}",
        caller: Caller::Device,
        grants: VAULT_SERVICES,
        errands: NONE,
        write_only: true,
        request: BodyKind::Object,
        reply: BodyKind::Empty,
        query: &[],
        summary: "Stores an object under its hash. The reply comes when it is durable.",
    },
    Endpoint {
        id: EndpointId::GetObject,
        method: Method::Get,
        path: "/v1/accounts/{account}/vaults/{vault}/objects/{object}",
        caller: Caller::Device,
        grants: VAULT_SERVICES,
        errands: READ_BACK,
        write_only: false,
        request: BodyKind::Empty,
        reply: BodyKind::Object,
        query: &[],
        summary: "An object, or the one range of it that a Range header names.",
    },
    Endpoint {
        id: EndpointId::HasObjects,
        method: Method::Post,
        path: "/v1/accounts/{account}/vaults/{vault}/objects/has",
        caller: Caller::Device,
        grants: VAULT_SERVICES,
        errands: READ_BACK,
        write_only: true,
        request: BodyKind::Cbor("HasObjects"),
        reply: BodyKind::Cbor("HasReply"),
        query: &[],
        summary: "Tells which of up to 1,024 objects are stored in this vault.",
    },
    Endpoint {
        id: EndpointId::ListObjects,
        method: Method::Get,
        path: "/v1/accounts/{account}/vaults/{vault}/objects",
        caller: Caller::Device,
        grants: VAULT_SERVICES,
        errands: READ_BACK,
        write_only: false,
        request: BodyKind::Empty,
        reply: BodyKind::Cbor("ObjectPage"),
        query: &["after"],
        summary: "Names and sizes of the vault's objects, in ascending order, a page at a time.",
    },
    Endpoint {
        id: EndpointId::ReadLog,
        method: Method::Get,
        path: "/log/{*file}",
        caller: Caller::Anybody,
        grants: &[],
        errands: NONE,
        write_only: true,
        request: BodyKind::Empty,
        reply: BodyKind::LogFile,
        query: &[],
        summary: "A file of the transparency log: checkpoint, tile, entries, inputs of the state map, report.",
    },
    Endpoint {
        id: EndpointId::ReadState,
        method: Method::Get,
        path: "/v1/accounts/{account}/state",
        caller: Caller::Device,
        grants: &ServiceCode::ALL,
        errands: &Purpose::ALL,
        write_only: true,
        request: BodyKind::Empty,
        reply: BodyKind::Cbor("StateReply"),
        query: &[],
        summary: "The account's entry in the newest published version of the state map, with its proof.",
    },
    Endpoint {
        id: EndpointId::ReadRuns,
        method: Method::Get,
        path: "/v1/accounts/{account}/vaults/{vault}/runs",
        caller: Caller::Device,
        grants: VAULT_SERVICES,
        errands: READ_BACK,
        write_only: false,
        request: BodyKind::Empty,
        reply: BodyKind::Cbor("RunsPage"),
        query: &["from"],
        summary: "The heads of a write-only device's vault in their order, a page at a time.",
    },
    Endpoint {
        id: EndpointId::ReadErasure,
        method: Method::Get,
        path: "/v1/erasures/{receipt}",
        caller: Caller::Anybody,
        grants: &[],
        errands: NONE,
        write_only: true,
        request: BodyKind::Empty,
        reply: BodyKind::Cbor("ErasureReply"),
        query: &[],
        summary: "The signed receipt of an erasure, for whoever knows its name.",
    },
    Endpoint {
        id: EndpointId::OpenLink,
        method: Method::Put,
        path: "/v1/accounts/{account}/links/{link}",
        caller: Caller::Device,
        grants: &[],
        errands: &[Purpose::Link],
        write_only: false,
        request: BodyKind::Empty,
        reply: BodyKind::Empty,
        query: &[],
        summary: "Opens a link, over which a new device may ask to join, for ten minutes.",
    },
    Endpoint {
        id: EndpointId::PutLinkMessage,
        method: Method::Post,
        path: "/v1/links/{link}",
        caller: Caller::Linker,
        grants: &[],
        errands: LINKING,
        write_only: true,
        request: BodyKind::Cbor("LinkMessage"),
        reply: BodyKind::Empty,
        query: &[],
        summary: "Leaves a sealed message at a place of a link that is free.",
    },
    Endpoint {
        id: EndpointId::ReadLink,
        method: Method::Get,
        path: "/v1/links/{link}",
        caller: Caller::Linker,
        grants: &[],
        errands: LINKING,
        write_only: true,
        request: BodyKind::Empty,
        reply: BodyKind::Cbor("LinkReply"),
        query: &[],
        summary: "The sealed messages of a link.",
    },
];

/// The endpoint with this id.
pub fn endpoint(id: EndpointId) -> &'static Endpoint {
    ENDPOINTS
        .iter()
        .find(|endpoint| endpoint.id == id)
        .expect("every id has a row in the table; a test goes through all of them")
}

macro_rules! body {
    ($type:ty, $what:literal) => {
        impl Canonical for $type {
            const WHAT: &'static str = $what;
            const MAX_BYTES: usize = BODY_MAX_BYTES;
        }
    };
}

mod link;

pub use link::*;

/// Reply of [`EndpointId::DescribeCell`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct CellDescription {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Every generation of the cell's keys, oldest first.
    #[n(1)]
    pub keys: Vec<SignedCellKeys>,
}
body!(CellDescription, "a cell's description");

/// Request of [`EndpointId::OpenAccount`].
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct OpenAccount {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The new account.
    #[n(1)]
    pub account: AccountId,
    /// The one-time right out of the invitation.
    #[n(2)]
    pub right: InvitationRight,
    /// Genesis, the first device, and the account's first epoch.
    #[n(3)]
    pub records: Vec<Record>,
}
body!(OpenAccount, "a request to open an account");

impl core::fmt::Debug for OpenAccount {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "OpenAccount({})", self.account)
    }
}

/// Reply of [`EndpointId::OpenAccount`] and [`EndpointId::AppendChain`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Appended {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// One for each appended entry, in order.
    #[n(1)]
    pub acknowledgements: Vec<SignedAcknowledgement>,
}
body!(Appended, "a reply to an append");

/// Reply of [`EndpointId::FindAccount`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct FoundAccount {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The account.
    #[n(1)]
    pub account: AccountId,
}
body!(FoundAccount, "a found account");

/// Reply of [`EndpointId::ReadChain`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ChainPage {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Records from the asked place on, as many as fit in one reply.
    #[n(1)]
    pub records: Vec<Record>,
    /// How many entries the chain has.
    #[n(2)]
    pub length: u64,
}
body!(ChainPage, "a page of a chain");

/// Request of [`EndpointId::AppendChain`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct AppendChain {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The link after which these come.
    #[n(1)]
    pub after: Link,
    /// What to append, without acknowledgements.
    #[n(2)]
    pub records: Vec<Record>,
}
body!(AppendChain, "a request to append to a chain");

/// Reply of [`EndpointId::ReadHead`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct HeadReply {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The head; absent for a vault that was never written.
    #[n(1)]
    pub head: Option<SignedHead>,
}
body!(HeadReply, "a head reply");

/// Request of [`EndpointId::SwapHead`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct SwapHead {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The head that the caller believes to be there.
    #[n(1)]
    pub expected: Option<HeadHash>,
    /// The new one.
    #[n(2)]
    pub head: SignedHead,
    /// Objects that an earlier move condemned and that the new head needs, at most
    /// [`crate::limits::RESCUED_MAX`]; absent for none. The head moves only if all of them are still stored,
    /// and they are condemned no longer.
    #[n(3)]
    pub rescued: Option<Vec<ObjectId>>,
}
body!(SwapHead, "a request to move a head");

/// Reply of [`EndpointId::ReadRuns`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct RunsPage {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// Heads by counter, from the one after the asked on, without a gap.
    #[n(1)]
    pub heads: Vec<SignedHead>,
    /// Whether there are more.
    #[n(2)]
    pub more: bool,
}
body!(RunsPage, "a page of runs");

/// Reply of [`EndpointId::ReadErasure`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ErasureReply {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// What the cell signed.
    #[n(1)]
    pub erasure: SignedErasure,
    /// Opens the commitment in the log.
    #[n(2)]
    pub salt: Salt,
}
body!(ErasureReply, "a receipt of an erasure");

/// Request of [`EndpointId::HasObjects`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct HasObjects {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// At most [`crate::limits::HAS_MAX_IDS`].
    #[n(1)]
    pub objects: Vec<ObjectId>,
}
body!(HasObjects, "a has question");

/// Reply of [`EndpointId::HasObjects`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct HasReply {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// One answer for each asked object, in order.
    #[n(1)]
    pub stored: Vec<bool>,
    /// Which of them are condemned, in the same order; absent if none is.
    #[n(2)]
    pub condemned: Option<Vec<bool>>,
}
body!(HasReply, "a has reply");

/// A stored object in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ListedObject {
    /// Its name.
    #[n(0)]
    pub object: ObjectId,
    /// Its size in bytes.
    #[n(1)]
    pub bytes: u64,
}

/// Reply of [`EndpointId::ListObjects`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ObjectPage {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// In ascending order of name.
    #[n(1)]
    pub objects: Vec<ListedObject>,
    /// Whether more follow.
    #[n(2)]
    pub more: bool,
}
body!(ObjectPage, "a page of objects");

/// Reply of [`EndpointId::ReadState`].
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct StateReply {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// The version of the map; 0 while it was never published.
    #[n(1)]
    pub map_version: u64,
    /// Place in the log of the entry with that version's root.
    #[n(2)]
    pub index: u64,
    /// Canonical bytes of the account's state in that version; absent if it is not in it yet.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub state: Option<Vec<u8>>,
    /// Canonical bytes of the proof that the map holds it, or that it holds nothing for the account.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub proof: Vec<u8>,
}
body!(StateReply, "a state reply");

/// What went wrong, for programs. The numbers are part of the format and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum ErrorCode {
    /// The request has no acceptable form.
    #[n(1)]
    Malformed,
    /// The signature is missing or wrong, or the signer unknown.
    #[n(2)]
    NotSigned,
    /// The clocks differ too much; `time` is the cell's.
    #[n(3)]
    Skew,
    /// This very request was made before.
    #[n(4)]
    Replayed,
    /// The request names no live grant for this service, device, vault and cell.
    #[n(5)]
    NoConsent,
    /// The errand or grant does not open this endpoint.
    #[n(6)]
    NotPermitted,
    /// There is no such thing, or none that this caller may know of.
    #[n(7)]
    NotFound,
    /// Something else came first; read again and retry.
    #[n(8)]
    Conflict,
    /// The account's quota does not allow it.
    #[n(9)]
    OverQuota,
    /// The body is longer than allowed.
    #[n(10)]
    TooLarge,
    /// The object's bytes do not have the hash in its name.
    #[n(11)]
    WrongHash,
    /// The cell has no room left.
    #[n(12)]
    CellFull,
    /// The cell is busy or stopping; try again later.
    #[n(13)]
    Busy,
    /// The cell failed; nothing was acknowledged.
    #[n(14)]
    Internal,
    /// The right in the invitation was used or has expired.
    #[n(15)]
    InvitationSpent,
    /// A version in the request is below what the cell accepts.
    #[n(16)]
    Version,
    /// A statement in the request does not continue the chain or breaks its rules.
    #[n(17)]
    Chain,
    /// The range asked for is not within the object.
    #[n(18)]
    Range,
    /// The device that signed the request was revoked. Nobody but the holder of its key is told.
    #[n(19)]
    Revoked,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::WrongHash | Self::Version | Self::Chain => 400,
            Self::NotSigned | Self::Skew | Self::Replayed => 401,
            Self::NoConsent | Self::NotPermitted | Self::InvitationSpent | Self::Revoked => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Range => 416,
            Self::OverQuota | Self::CellFull => 507,
            Self::Internal => 500,
            Self::Busy => 503,
        }
    }
}

/// Body of every reply that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct ErrorReply {
    /// Always [`API_VERSION`].
    #[n(0)]
    pub version: u8,
    /// What went wrong.
    #[n(1)]
    pub code: ErrorCode,
    /// The cell's time, so that a device can tell a person about a wrong clock.
    #[n(2)]
    pub time: Millis,
    /// Bytes in use, for [`ErrorCode::OverQuota`].
    #[n(3)]
    pub used_bytes: Option<u64>,
    /// Bytes allowed, for [`ErrorCode::OverQuota`].
    #[n(4)]
    pub quota_bytes: Option<u64>,
}
body!(ErrorReply, "an error reply");
