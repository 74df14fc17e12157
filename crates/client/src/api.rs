//! The cell's endpoints as typed calls. Everything that comes back is hostile input: it is decoded
//! canonically, bounded, and checked as far as one reply alone can be. What needs the chain (who may
//! sign a head, which consent is live) is checked by the callers, who have it.
//!
//! Repetition and time limits are the connection's business ([`crate::egress`]). Nothing here waits but the cell, where
//! it is asked to.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use candor_vault::Presence;
use candor_wire::api::{
    API_VERSION, AppendChain, Appended, CellDescription, ChainPage, EndpointId, ErasureReply,
    ErrorCode, ErrorReply, FoundAccount, HasObjects, HasReply, HeadReply, LinkMessage, LinkReply,
    ObjectPage, OpenAccount, RunsPage, StateReply, SwapHead, endpoint,
};
use candor_wire::cbor::{self, Canonical};
use candor_wire::cell::{CellError, CellKeyring, SignedAcknowledgement, SignedCellKeys};
use candor_wire::chain::{CHAIN_MAX_ENTRIES, Record};
use candor_wire::head::{HeadHash, SignedHead};
use candor_wire::ids::{AccountId, Link, ObjectId, VaultId, to_hex};
use candor_wire::limits::{HAS_MAX_IDS, HEAD_WAIT_SECONDS, OBJECT_MAX_BYTES, PAGE_MAX_ENTRIES};
use candor_wire::linking::LinkPlace;
use candor_wire::sign::PublicKey;

use crate::egress::{Call, Connection, EgressError, TransportError};

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The cell cannot be reached, or stopped answering. Nothing acknowledged is lost.
    #[error("the cell cannot be reached")]
    Unreachable(#[source] TransportError),
    /// The cell answered that it will not.
    #[error("the cell refused: {}", refusal_text(*.code))]
    Refused {
        /// Why.
        code: ErrorCode,
        /// Bytes in use, when the quota is the reason.
        used_bytes: Option<u64>,
        /// Bytes allowed, when the quota is the reason.
        quota_bytes: Option<u64>,
    },
    /// What came back cannot be from an honest cell, or not from this one.
    #[error("the cell's answer was refused: {what}")]
    Integrity {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The consent or errand ended.
    #[error("the consent or errand has ended")]
    Over,
    /// The consent or errand does not open this endpoint or is for another cell. Nothing was sent.
    #[error("the consent or errand does not allow this")]
    NotPermitted,
    /// The ledger could not be written; nothing was sent.
    #[error("the ledger cannot be written, so nothing was sent")]
    Ledger(#[source] crate::ledger::LedgerError),
    /// The operating system gave no random bytes; nothing was sent.
    #[error("the operating system gave no random bytes")]
    Entropy,
}

impl ApiError {
    /// Whether the cell knows no such thing: what was asked for, or this device, or the account.
    pub(crate) const fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: ErrorCode::NotFound,
                ..
            }
        )
    }
}

/// A refusal in words.
const fn refusal_text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Malformed => "it does not understand the request",
        ErrorCode::NotSigned => "it does not know this device",
        ErrorCode::Skew => "this device's clock and its own differ too much",
        ErrorCode::Replayed => "it has seen this very request before",
        ErrorCode::NoConsent => "it knows no live consent for this",
        ErrorCode::NotPermitted => "the consent or errand does not cover this",
        ErrorCode::NotFound => "it has no such thing",
        ErrorCode::Conflict => "something else came first",
        ErrorCode::OverQuota => "the account's quota is used up",
        ErrorCode::TooLarge => "the request is too large",
        ErrorCode::WrongHash => "the object did not arrive as it was sent",
        ErrorCode::CellFull => "it has no room left",
        ErrorCode::Busy => "it is busy",
        ErrorCode::Internal => "it failed",
        ErrorCode::InvitationSpent => "the invitation was used or has expired",
        ErrorCode::Version => "it does not accept this version",
        ErrorCode::Chain => "the statement does not continue the account's chain",
        ErrorCode::Range => "the range is not within the object",
        ErrorCode::Revoked => "this device was revoked",
    }
}

impl From<EgressError> for ApiError {
    fn from(error: EgressError) -> Self {
        match error {
            EgressError::Over => Self::Over,
            EgressError::OtherCell | EgressError::NotPermitted { .. } | EgressError::Pinned => {
                Self::NotPermitted
            }
            EgressError::Malformed => Self::Integrity {
                what: "it makes no sense",
            },
            EgressError::Entropy => Self::Entropy,
            EgressError::Refused(ErrorReply {
                code,
                used_bytes,
                quota_bytes,
                ..
            }) => Self::Refused {
                code,
                used_bytes,
                quota_bytes,
            },
            EgressError::Transport(TransportError::Identity(_)) => Self::Integrity {
                what: "whoever answered is not the cell in the invitation",
            },
            EgressError::Transport(TransportError::TooLong { .. }) => Self::Integrity {
                what: "it is longer than it can be",
            },
            EgressError::Transport(TransportError::Ledger(error)) => Self::Ledger(error),
            EgressError::Transport(error) => Self::Unreachable(error),
        }
    }
}

const fn integrity<T>(what: &'static str) -> Result<T, ApiError> {
    Err(ApiError::Integrity { what })
}

/// A cell's keys as they came, and checked under its pinned root key.
#[derive(Debug, Clone)]
pub struct CheckedCell {
    /// As they came, for keeping.
    pub signed: Vec<SignedCellKeys>,
    /// Checked.
    pub keyring: CellKeyring,
}

/// The endpoints of one cell, under one authority. Usable from many tasks at once.
pub struct Api(Connection);

impl Api {
    /// Speaks over `connection`.
    pub const fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Ends the connection; its ledger lines are complete afterwards.
    pub async fn close(&self) {
        self.0.close().await;
    }

    /// The connection.
    pub const fn connection(&self) -> &Connection {
        &self.0
    }

    async fn call(&self, call: Call) -> Result<(u16, Bytes), ApiError> {
        Ok(self.0.call(&call).await?)
    }

    async fn ask<T: Canonical>(&self, call: Call) -> Result<T, ApiError> {
        let (_, body) = self.call(call).await?;
        cbor::decode(&body).or(integrity("it is not in the expected form"))
    }

    /// The cell's keys, checked under the pinned root key.
    pub async fn describe_cell(&self) -> Result<CheckedCell, ApiError> {
        let reply: CellDescription = self.ask(call(EndpointId::DescribeCell, &[])).await?;
        version(reply.version)?;
        let keyring = CellKeyring::verify(&self.0.root(), &reply.keys).map_err(|error| {
            let what = match error {
                CellError::Signature => "the cell's keys are not signed by the pinned root key",
                _ => "the cell's keys contradict themselves",
            };
            ApiError::Integrity { what }
        })?;
        Ok(CheckedCell {
            signed: reply.keys,
            keyring,
        })
    }

    /// Opens an account. Harmless to repeat with the same body.
    pub async fn open_account(
        &self,
        body: &OpenAccount,
    ) -> Result<Vec<SignedAcknowledgement>, ApiError> {
        let request = Call {
            body: cbor::encode(body).into(),
            ..call(EndpointId::OpenAccount, &[])
        };
        acknowledgements(self.ask(request).await?, body.records.len())
    }

    /// The account of a root key; `None` if the cell knows none.
    pub async fn find_account(&self, root: &PublicKey) -> Result<Option<AccountId>, ApiError> {
        let root = to_hex(&root.fingerprint());
        match self
            .ask::<FoundAccount>(call(EndpointId::FindAccount, &[("root", &root)]))
            .await
        {
            Ok(found) => version(found.version).map(|()| Some(found.account)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next records of the chain from place `from` on, and whether it ends with them. A page at a
    /// time, so that the caller has checked one before the next is held. A cell whose chain is shorter
    /// than `from` is refused.
    pub async fn read_chain(
        &self,
        account: AccountId,
        from: u64,
    ) -> Result<(Vec<Record>, bool), ApiError> {
        let account = account.to_string();
        let request = Call {
            query: format!("from={from}"),
            ..call(EndpointId::ReadChain, &[("account", &account)])
        };
        let page: ChainPage = self.ask(request).await?;
        version(page.version)?;
        if page.length < from || page.length > CHAIN_MAX_ENTRIES {
            return integrity("the chain is shorter than it was, or impossibly long");
        }
        let in_order = page
            .records
            .iter()
            .zip(from..)
            .all(|(record, place)| record.sequence == place);
        let (count, left) = (page.records.len() as u64, page.length - from);
        if !in_order || count > left || (count == 0 && left > 0) {
            return integrity("a page of the chain does not fit");
        }
        Ok((page.records, count == left))
    }

    /// Appends records after `after`, by compare-and-swap.
    pub async fn append_chain(
        &self,
        account: AccountId,
        after: Link,
        records: Vec<Record>,
    ) -> Result<Vec<SignedAcknowledgement>, ApiError> {
        let count = records.len();
        let body = AppendChain {
            version: API_VERSION,
            after,
            records,
        };
        let account = account.to_string();
        let request = Call {
            body: cbor::encode(&body).into(),
            ..call(EndpointId::AppendChain, &[("account", &account)])
        };
        acknowledgements(self.ask(request).await?, count)
    }

    /// The vault's head as the cell shows it; its signature is the caller's to check.
    pub async fn read_head(
        &self,
        account: AccountId,
        vault: VaultId,
    ) -> Result<Option<SignedHead>, ApiError> {
        let (account, vault) = (account.to_string(), vault.to_string());
        let place = [("account", account.as_str()), ("vault", vault.as_str())];
        match self
            .ask::<HeadReply>(call(EndpointId::ReadHead, &place))
            .await
        {
            Ok(reply) => version(reply.version).map(|()| reply.head),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until the vault's head has a counter above `after`, and returns it; or the head as it is after
    /// [`HEAD_WAIT_SECONDS`] at most. The caller compares counters, and checks the head as one of [`Self::read_head`]. A
    /// cell may answer sooner, and without news, as often as it likes: whoever asks again and again leaves pauses then.
    /// Unlike there, [`ErrorCode::NotFound`] is an error: the account is gone.
    ///
    /// Other requests over this connection do not wait with it. Dropping the future ends the request, also at the cell.
    pub async fn wait_head(
        &self,
        account: AccountId,
        vault: VaultId,
        after: u64,
    ) -> Result<Option<SignedHead>, ApiError> {
        let (account, vault) = (account.to_string(), vault.to_string());
        let place = [("account", account.as_str()), ("vault", vault.as_str())];
        let request = Call {
            query: format!("after={after}"),
            wait: Duration::from_secs(u64::from(HEAD_WAIT_SECONDS)),
            ..call(EndpointId::ReadHead, &place)
        };
        let reply: HeadReply = self.ask(request).await?;
        version(reply.version)?;
        Ok(reply.head)
    }

    /// Moves the head from `expected` to `head`. If the cell's answer to an earlier try was lost, the
    /// head is there already, and that is a success.
    pub async fn swap_head(
        &self,
        account: AccountId,
        vault: VaultId,
        expected: Option<HeadHash>,
        head: &SignedHead,
        rescued: &[ObjectId],
    ) -> Result<(), ApiError> {
        let hash = head.hash();
        let body = SwapHead {
            version: API_VERSION,
            expected,
            head: head.clone(),
            rescued: (!rescued.is_empty()).then(|| rescued.to_vec()),
        };
        let (account_text, vault_text) = (account.to_string(), vault.to_string());
        let place = [
            ("account", account_text.as_str()),
            ("vault", vault_text.as_str()),
        ];
        let request = Call {
            body: cbor::encode(&body).into(),
            ..call(EndpointId::SwapHead, &place)
        };
        match self.call(request).await {
            Ok(_) => Ok(()),
            Err(
                conflict @ ApiError::Refused {
                    code: ErrorCode::Conflict,
                    ..
                },
            ) => {
                let there = self.read_head(account, vault).await?;
                if there.is_some_and(|there| there.hash() == hash) {
                    Ok(())
                } else {
                    Err(conflict)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a link of the account.
    pub async fn open_link(&self, account: AccountId, name: &[u8; 32]) -> Result<(), ApiError> {
        let (account, name) = (account.to_string(), to_hex(name));
        let place = [("account", account.as_str()), ("link", name.as_str())];
        self.call(call(EndpointId::OpenLink, &place))
            .await
            .map(|_| ())
    }

    /// Leaves a message at a link, over a connection of whoever holds its key.
    pub async fn put_link_message(
        &self,
        name: &[u8; 32],
        place: LinkPlace,
        sealed: Vec<u8>,
    ) -> Result<(), ApiError> {
        let body = LinkMessage {
            version: API_VERSION,
            place: place.number(),
            sealed,
        };
        let name = to_hex(name);
        let request = Call {
            body: cbor::encode(&body).into(),
            ..call(EndpointId::PutLinkMessage, &[("link", &name)])
        };
        self.call(request).await.map(|_| ())
    }

    /// What was left at a place of a link so far.
    pub async fn link_message(
        &self,
        name: &[u8; 32],
        place: LinkPlace,
    ) -> Result<Option<Vec<u8>>, ApiError> {
        let name = to_hex(name);
        let reply: LinkReply = self
            .ask(call(EndpointId::ReadLink, &[("link", &name)]))
            .await?;
        version(reply.version)?;
        let mut messages = reply.messages.into_iter();
        let message = messages.nth(usize::from(place.number()));
        let message = message.ok_or(ApiError::Integrity {
            what: "a link has fewer places than it should",
        })?;
        Ok(message.sealed)
    }

    /// A published file of the cell's log, of at most `max_bytes`; `None` if the log has none of this
    /// name. Nothing in it is checked here.
    pub async fn read_log_file(
        &self,
        name: &str,
        max_bytes: usize,
    ) -> Result<Option<Bytes>, ApiError> {
        match self
            .call(call(EndpointId::ReadLog, &[("*file", name)]))
            .await
        {
            Ok((_, bytes)) if bytes.len() > max_bytes => {
                integrity("a file of the log is longer than it can be")
            }
            Ok((_, bytes)) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The account's entry in the cell's state map, with its proof, which is the caller's to check.
    pub async fn read_state(&self, account: AccountId) -> Result<StateReply, ApiError> {
        let account = account.to_string();
        let request = call(EndpointId::ReadState, &[("account", &account)]);
        let reply: StateReply = self.ask(request).await?;
        version(reply.version)?;
        Ok(reply)
    }

    /// The heads of a write-only device's vault after one; none if there are no more.
    pub async fn read_runs(
        &self,
        account: AccountId,
        vault: VaultId,
        from: u64,
    ) -> Result<Vec<SignedHead>, ApiError> {
        let (account, vault) = (account.to_string(), vault.to_string());
        let places = [("account", account.as_str()), ("vault", vault.as_str())];
        let request = Call {
            query: format!("from={from}"),
            ..call(EndpointId::ReadRuns, &places)
        };
        let page: RunsPage = self.ask(request).await?;
        version(page.version)?;
        Ok(page.heads)
    }

    /// What the cell signed about an erasure, under its receipt's name; `None` if it is not done.
    pub async fn read_erasure(&self, name: &[u8; 32]) -> Result<Option<ErasureReply>, ApiError> {
        let name = to_hex(name);
        let request = call(EndpointId::ReadErasure, &[("receipt", &name)]);
        match self.ask::<ErasureReply>(request).await {
            Ok(reply) => version(reply.version).map(|()| Some(reply)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores an object. Returns when the cell has acknowledged that it is durable.
    pub async fn put_object(
        &self,
        account: AccountId,
        vault: VaultId,
        object: ObjectId,
        bytes: Bytes,
    ) -> Result<(), ApiError> {
        let request = Call {
            body: bytes,
            ..object_call(EndpointId::PutObject, account, vault, object)
        };
        self.call(request).await.map(|_| ())
    }

    /// A whole object, whose bytes have the hash that is its name.
    pub async fn get_object(
        &self,
        account: AccountId,
        vault: VaultId,
        object: ObjectId,
    ) -> Result<Bytes, ApiError> {
        let request = object_call(EndpointId::GetObject, account, vault, object);
        let (_, bytes) = self.call(request).await?;
        if ObjectId::of(&bytes) == object {
            Ok(bytes)
        } else {
            integrity("an object is not the one asked for")
        }
    }

    /// A range of an object, not empty. Fewer bytes mean that the object ends there. A part cannot be
    /// checked against the name: whoever reads it checks the seal.
    pub async fn get_range(
        &self,
        account: AccountId,
        vault: VaultId,
        object: ObjectId,
        range: Range<u64>,
    ) -> Result<Bytes, ApiError> {
        const PARTIAL: u16 = 206;
        let asked = range.end.saturating_sub(range.start);
        if asked == 0 || range.start >= OBJECT_MAX_BYTES as u64 {
            return Ok(Bytes::new());
        }
        let request = Call {
            range: Some(range),
            ..object_call(EndpointId::GetObject, account, vault, object)
        };
        let (status, bytes) = self.call(request).await?;
        if status != PARTIAL || bytes.len() as u64 > asked {
            return integrity("a part of an object is not the one asked for");
        }
        Ok(bytes)
    }

    /// Which objects are stored, and which of them the cell will delete: one answer for each, in order.
    pub async fn has_objects(
        &self,
        account: AccountId,
        vault: VaultId,
        objects: &[ObjectId],
    ) -> Result<Vec<Presence>, ApiError> {
        let (account, vault) = (account.to_string(), vault.to_string());
        let place = [("account", account.as_str()), ("vault", vault.as_str())];
        let mut standing = Vec::with_capacity(objects.len());
        for some in objects.chunks(HAS_MAX_IDS) {
            let body = HasObjects {
                version: API_VERSION,
                objects: some.to_vec(),
            };
            let request = Call {
                body: cbor::encode(&body).into(),
                ..call(EndpointId::HasObjects, &place)
            };
            let reply: HasReply = self.ask(request).await?;
            version(reply.version)?;
            let condemned = reply.condemned.unwrap_or_else(|| vec![false; some.len()]);
            if reply.stored.len() != some.len() || condemned.len() != some.len() {
                return integrity("it does not answer what was asked");
            }
            let answers = reply.stored.into_iter().zip(condemned);
            standing.extend(answers.map(|answer| match answer {
                (false, _) => Presence::Absent,
                (true, false) => Presence::Stored,
                (true, true) => Presence::Condemned,
            }));
        }
        Ok(standing)
    }

    /// A page of the vault's objects, those after `after`, ascending.
    pub async fn list_objects(
        &self,
        account: AccountId,
        vault: VaultId,
        after: Option<ObjectId>,
    ) -> Result<ObjectPage, ApiError> {
        let (account, vault) = (account.to_string(), vault.to_string());
        let place = [("account", account.as_str()), ("vault", vault.as_str())];
        let query = after
            .map(|after| format!("after={after}"))
            .unwrap_or_default();
        let page: ObjectPage = self
            .ask(Call {
                query,
                ..call(EndpointId::ListObjects, &place)
            })
            .await?;
        version(page.version)?;
        let names = || page.objects.iter().map(|listed| listed.object);
        let follows = names()
            .next()
            .is_none_or(|first| after.is_none_or(|after| after < first));
        let ascends = names().zip(names().skip(1)).all(|(a, b)| a < b);
        let advances = !page.more || !page.objects.is_empty();
        if !follows || !ascends || !advances || page.objects.len() > PAGE_MAX_ENTRIES {
            return integrity("a page of objects is not in order");
        }
        Ok(page)
    }
}

fn version(version: u8) -> Result<(), ApiError> {
    if version == API_VERSION {
        Ok(())
    } else {
        integrity("its version is not accepted")
    }
}

fn acknowledgements(reply: Appended, count: usize) -> Result<Vec<SignedAcknowledgement>, ApiError> {
    version(reply.version)?;
    if reply.acknowledgements.len() == count {
        Ok(reply.acknowledgements)
    } else {
        integrity("it does not acknowledge every statement")
    }
}

/// A call without query and body, its path filled in.
fn call(id: EndpointId, names: &[(&str, &str)]) -> Call {
    let mut path = endpoint(id).path.to_owned();
    for (name, value) in names {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    debug_assert!(!path.contains('{'), "every name of the path is filled in");
    Call {
        endpoint: id,
        path,
        query: String::new(),
        body: Bytes::new(),
        range: None,
        wait: Duration::ZERO,
    }
}

fn object_call(id: EndpointId, account: AccountId, vault: VaultId, object: ObjectId) -> Call {
    let (account, vault, object) = (account.to_string(), vault.to_string(), object.to_string());
    call(
        id,
        &[
            ("account", &account),
            ("vault", &vault),
            ("object", &object),
        ],
    )
}
