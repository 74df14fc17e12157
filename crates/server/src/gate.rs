//! The gate: what every request goes through before anything is read or written for it.
//!
//! 1. Size: headers and the declared length of the body are within bounds.
//! 2. Table: method and path are a row of [`candor_wire::api::ENDPOINTS`]; nothing else exists.
//! 3. Form: ids, query, and every signature header have the one accepted spelling.
//! 4. Who: the key that must have signed is found, in the account's chain or, for a device that is
//!    just being enrolled, in the request itself.
//! 5. Signature (RFC 9421) and the difference of the clocks.
//! 6. Body: a message is the one that was signed.
//! 7. Authority: a device whose role may call the endpoint; and a live grant of a service that opens it, for
//!    this device, vault and cell, or an errand of a purpose that opens it.
//! 8. Nonce: this very request was never made before. A request that writes hands its nonce to the
//!    store, which spends it in the same commit.
//!
//! Nobody learns what exists: an unknown account, an account that does not know the signer, and a
//! signature that does not verify get the same reply. Where there is no key, another is tried in its
//! stead, so that the reply does not come sooner either.

#[cfg(any(test, fuzzing))]
pub(crate) mod noise;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use bytes::Bytes;
use candor_store::{NonceOutcome, NonceUse};
use candor_wire::api::{
    BodyKind, Caller, Endpoint, EndpointId, ErrorCode, MEDIA_CBOR, MEDIA_OBJECT, OpenAccount,
};
use candor_wire::cbor;
use candor_wire::chain::AccountView;
use candor_wire::consent_record::ServiceCode;
use candor_wire::errand::{ErrandError, ErrandToken, Purpose, SignedErrand};
use candor_wire::ids::{AccountId, DeviceId, ObjectId, StatementId, VaultId, from_hex};
use candor_wire::limits::REQUEST_SKEW_SECONDS;
use candor_wire::request::{
    self, Covered, FIRST_PLACEMENT, HEADER_AUTHORITY, HEADER_DEVICE, HEADER_DIGEST,
    HEADER_MAX_BYTES, HEADER_PLACEMENT, HEADER_SIGNATURE, HEADER_SIGNATURE_INPUT, RequestError,
    SignatureHeaders, Verified,
};
use candor_wire::sign::Ed25519Public;
use candor_wire::statement::{Body as Statement, Role};
use candor_wire::time::Millis;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::RequestBody;
use crate::reply::Refusal;
use crate::shared::Shared;
use crate::turns::{Holder, Seat};
use crate::views;

/// Longest headers of one request altogether, in bytes. Ours have about 2 KiB.
pub(crate) const HEADERS_MAX_BYTES: usize = 16 * 1024;

/// Most headers of one request. Ours have about ten.
pub(crate) const HEADERS_MAX: usize = 64;

/// Longest path and query, in bytes. The longest of ours has about 200.
const TARGET_MAX_BYTES: usize = 1024;

/// What varies in a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Names {
    account: Option<AccountId>,
    vault: Option<VaultId>,
    object: Option<ObjectId>,
    root: Option<[u8; 32]>,
    receipt: Option<[u8; 32]>,
    link: Option<[u8; 32]>,
}

/// What lets a request through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    Grant(StatementId),
    Errand(SignedErrand),
}

/// A request that went through the gate.
pub(crate) struct Admitted {
    names: Names,
    /// The account as its chain describes it; none while it is being opened.
    view: Option<Arc<AccountView>>,
    /// The signing device; `None` for the account's root key.
    pub(crate) signer: Option<DeviceId>,
    /// The errand's purpose; `None` with a grant.
    pub(crate) purpose: Option<Purpose>,
    /// The services whose grant opens the endpoint, and the consent that was named; `None` with an errand.
    grant: Option<(&'static [ServiceCode], StatementId)>,
    /// Until when the errand lasts; `None` with a grant.
    errand_ends: Option<Millis>,
    /// Value of the endpoint's query parameter.
    pub(crate) query: Option<String>,
    /// A message; empty for other bodies.
    pub(crate) message: Bytes,
    /// The path, as it was asked for.
    pub(crate) path: String,
    /// The nonce of a request that writes; whoever writes spends it.
    pub(crate) nonce: Option<NonceUse>,
    pub(crate) now: Millis,
    /// How long it waited for a head to move.
    pub(crate) waited: Duration,
    /// The device's share of the cell, for as long as the request lasts.
    pub(crate) share: Option<OwnedSemaphorePermit>,
    /// The account's share of the work, until the reply is there or a body is waited for.
    pub(crate) work: Option<OwnedSemaphorePermit>,
}

impl Admitted {
    pub(crate) fn view(&self) -> Result<&Arc<AccountView>, Refusal> {
        self.view.as_ref().ok_or_else(|| ErrorCode::NotFound.into())
    }

    /// The vault of the consent that was named, of a request with a grant.
    pub(crate) fn granted_vault(&self) -> Option<VaultId> {
        let (_, id) = self.grant?;
        self.view.as_ref()?.consent(&id)?.record.vault
    }

    /// Lets go of everything that others may need while this request waits: its shares of the cell, and what is
    /// remembered of the account. Afterwards it is judged again.
    pub(crate) fn rest(&mut self) {
        (self.share, self.work, self.view) = (None, None, None);
    }

    /// Reads the account's chain again, after it went on, and asks once more whether this request may be made.
    pub(crate) async fn look_again(&mut self, shared: &Arc<Shared>) -> Result<(), Refusal> {
        let account = self.names.account.ok_or(ErrorCode::NotFound)?;
        self.now = shared.clock.now();
        self.view = views::view(shared, account).await?;
        if self.view.is_none() {
            return Err(ErrorCode::NotFound.into());
        }
        refuse_revoked(self)?;
        let skew_ms = REQUEST_SKEW_SECONDS * 1000;
        if self
            .errand_ends
            .is_some_and(|ends| ends.plus_ms(skew_ms) <= self.now)
        {
            return Err(ErrorCode::NotPermitted.into());
        }
        if let (Some((services, id)), Some(device)) = (self.grant, self.signer) {
            let (view, cell) = (self.view()?, shared.keyring.cell());
            let vault = self.names.vault;
            candor_consent::admit(
                view,
                &id,
                services,
                &device,
                vault.as_ref(),
                &cell,
                self.now,
            )
            .map_err(|_| ErrorCode::NoConsent)?;
        }
        Ok(())
    }

    pub(crate) fn account(&self) -> Result<AccountId, Refusal> {
        Ok(self.view()?.account())
    }

    pub(crate) fn vault(&self) -> Result<VaultId, Refusal> {
        self.names.vault.ok_or_else(|| ErrorCode::Malformed.into())
    }

    pub(crate) fn receipt(&self) -> Result<[u8; 32], Refusal> {
        self.names
            .receipt
            .ok_or_else(|| ErrorCode::Malformed.into())
    }

    pub(crate) fn link(&self) -> Result<[u8; 32], Refusal> {
        self.names.link.ok_or_else(|| ErrorCode::Malformed.into())
    }

    pub(crate) fn object(&self) -> Result<ObjectId, Refusal> {
        self.names.object.ok_or_else(|| ErrorCode::Malformed.into())
    }
}

/// The signed headers in their checked form.
struct Signed<'a> {
    device: &'a str,
    signer: Option<DeviceId>,
    authorization: &'a str,
    claim: Claim,
    placement: &'a str,
    digest: Option<&'a str>,
    headers: SignatureHeaders,
}

/// Steps 1 to 3 that every endpoint has, the one for everybody included.
fn outer_form(
    endpoint: &Endpoint,
    parts: &Parts,
    body: &RequestBody,
) -> Result<(Names, Option<String>), Refusal> {
    let header_bytes: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let target_bytes = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    if header_bytes > HEADERS_MAX_BYTES
        || parts.headers.len() > HEADERS_MAX
        || target_bytes > TARGET_MAX_BYTES
    {
        return Err(ErrorCode::TooLarge.into());
    }
    if body
        .declared()
        .is_some_and(|declared| declared > endpoint.request.max_bytes() as u64)
    {
        return Err(ErrorCode::TooLarge.into());
    }
    if parts.method.as_str() != endpoint.method.name() {
        return Err(ErrorCode::NotFound.into());
    }
    let names = names(endpoint.path, parts.uri.path()).ok_or(ErrorCode::NotFound)?;
    let query = query(endpoint.query, parts.uri.query().unwrap_or(""))?;
    let media = match endpoint.request {
        BodyKind::Empty if body.declared() != Some(0) => return Err(ErrorCode::Malformed.into()),
        BodyKind::Empty | BodyKind::LogFile => None,
        BodyKind::Cbor(_) => Some(MEDIA_CBOR),
        BodyKind::Object => Some(MEDIA_OBJECT),
    };
    let content_type = optional(&parts.headers, &CONTENT_TYPE)?;
    if content_type.is_some_and(|named| media.is_some_and(|media| media != named)) {
        return Err(ErrorCode::Malformed.into());
    }
    Ok((names, query))
}

/// The ids in a path. `None` if the path is not one of the pattern's.
fn names(pattern: &str, path: &str) -> Option<Names> {
    let mut names = Names::default();
    let mut given = path.split('/');
    for expected in pattern.split('/') {
        if expected == "{*file}" {
            // The rest of the path, which its handler reads strictly.
            return given.next().map(|_| names);
        }
        let segment = given.next()?;
        match expected {
            "{account}" => names.account = Some(segment.parse().ok()?),
            "{vault}" => names.vault = Some(segment.parse().ok()?),
            "{object}" => names.object = Some(segment.parse().ok()?),
            "{root}" => names.root = Some(from_hex(segment)?),
            "{receipt}" => names.receipt = Some(from_hex(segment)?),
            "{link}" => names.link = Some(from_hex(segment)?),
            literal if literal == segment => {}
            _ => return None,
        }
    }
    given.next().is_none().then_some(names)
}

/// The value of the one parameter that an endpoint knows, if it is given.
fn query(known: &[&str], given: &str) -> Result<Option<String>, Refusal> {
    if given.is_empty() {
        return Ok(None);
    }
    match given.split_once('=') {
        Some((name, value)) if known.contains(&name) && !value.contains('&') => {
            Ok(Some(value.to_owned()))
        }
        _ => Err(ErrorCode::Malformed.into()),
    }
}

/// A header that stands at most once.
fn optional<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut all = headers.get_all(name).iter();
    let (first, second) = (all.next(), all.next());
    if second.is_some() {
        return Err(ErrorCode::Malformed.into());
    }
    let Some(value) = first else { return Ok(None) };
    match value.to_str() {
        Ok(text) if text.len() <= HEADER_MAX_BYTES => Ok(Some(text)),
        _ => Err(ErrorCode::Malformed.into()),
    }
}

fn required<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Refusal> {
    let value = optional(headers, &HeaderName::from_static(name))?;
    value.ok_or_else(|| ErrorCode::NotSigned.into())
}

/// Step 3 for requests that are signed.
fn signed_form<'a>(endpoint: &Endpoint, headers: &'a HeaderMap) -> Result<Signed<'a>, Refusal> {
    let malformed = || Refusal::from(ErrorCode::Malformed);
    let device = required(headers, HEADER_DEVICE)?;
    let signer = request::parse_device_header(device).map_err(|_| malformed())?;
    let authorization = required(headers, HEADER_AUTHORITY)?;
    let claim = match authorization.split_once(' ') {
        Some(("grant", id)) => Claim::Grant(id.parse().map_err(|_| malformed())?),
        Some(("errand", token)) => {
            Claim::Errand(SignedErrand::from_text(token).map_err(|_| malformed())?)
        }
        _ => return Err(malformed()),
    };
    let digest = optional(headers, &HeaderName::from_static(HEADER_DIGEST))?;
    if digest.is_some() != matches!(endpoint.request, BodyKind::Cbor(_)) {
        return Err(ErrorCode::NotSigned.into());
    }
    let headers = SignatureHeaders {
        input: required(headers, HEADER_SIGNATURE_INPUT)?.to_owned(),
        signature: required(headers, HEADER_SIGNATURE)?.to_owned(),
    };
    Ok(Signed {
        device,
        signer,
        authorization,
        claim,
        placement: "",
        digest,
        headers,
    })
}

/// Step 5. `None` stands for a key that was not found: the work is the same, the reply too.
fn verify(
    shared: &Shared,
    parts: &Parts,
    signed: &Signed<'_>,
    key: Option<Ed25519Public>,
    now: Millis,
) -> Result<Verified, Refusal> {
    let covered = Covered {
        method: parts.method.as_str(),
        authority: &shared.authority,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or(""),
        device: signed.device,
        authorization: signed.authorization,
        placement: signed.placement,
        digest: signed.digest,
    };
    let outcome = request::verify(
        &covered,
        &signed.headers,
        now.seconds(),
        &key.unwrap_or(shared.root),
    );
    match outcome {
        // Whoever holds the cell's own root key could sign for a key that was not found.
        Ok(verified) if key.is_some() => Ok(verified),
        Err(RequestError::Form | RequestError::Digest) => Err(ErrorCode::NotSigned.into()),
        Err(RequestError::Time) if key.is_some() => Err(ErrorCode::Skew.into()),
        Ok(_) | Err(RequestError::Signature | RequestError::Time) => {
            Err(ErrorCode::NotFound.into())
        }
    }
}

/// Takes a request through the gate.
pub(crate) async fn pass(
    shared: &Arc<Shared>,
    endpoint: &'static Endpoint,
    parts: &Parts,
    body: &mut RequestBody,
) -> Result<Admitted, Refusal> {
    let now = shared.clock.now();
    let (names, query) = outer_form(endpoint, parts, body)?;
    let mut admitted = Admitted {
        names,
        view: None,
        signer: None,
        purpose: None,
        grant: None,
        errand_ends: None,
        query,
        message: Bytes::new(),
        path: parts.uri.path().to_owned(),
        nonce: None,
        now,
        waited: Duration::ZERO,
        share: None,
        work: None,
    };
    if endpoint.caller == Caller::Anybody {
        return Ok(admitted);
    }
    let mut signed = signed_form(endpoint, &parts.headers)?;
    signed.placement = required(&parts.headers, HEADER_PLACEMENT)?;
    admitted.signer = signed.signer;
    let mut account_of_link = None;
    let key = match endpoint.caller {
        Caller::NewDevice => {
            // The key is in the body, so the body comes first. Anybody can send one: there are few
            // places, apart from those of accounts, and nobody holds one for long.
            body.hurry();
            admitted.message = read_message(&shared.strangers, endpoint, body).await?;
            new_device_key(&admitted.message, signed.signer)?
        }
        Caller::Root => {
            admitted.view = view_of_root(shared, names.root).await?;
            let is_root = signed.signer.is_none();
            admitted
                .view
                .as_ref()
                .filter(|_| is_root)
                .map(|view| view.genesis().root.ed25519())
        }
        Caller::Linker => {
            let name = names.link.ok_or(ErrorCode::NotFound)?;
            let found = shared.links.link(name, now).await;
            let found = found.map_err(|error| Refusal::of_records(&error))?;
            // Of a link that is not open the key is as good as unknown.
            let is_open = found.is_some() && signed.signer.is_none();
            account_of_link = found.map(|link| link.account);
            is_open.then(|| Ed25519Public::from_bytes(name))
        }
        Caller::Device | Caller::Anybody => {
            let account = names.account.ok_or(ErrorCode::NotFound)?;
            admitted.view = views::view(shared, account).await?;
            let key = admitted
                .view
                .as_ref()
                .and_then(|view| view.key_of(signed.signer.as_ref()));
            key.map(candor_wire::sign::PublicKey::ed25519)
        }
    };
    let verified = verify(shared, parts, &signed, key, now)?;
    // `verify` refuses where there is no key.
    let key = key.ok_or(ErrorCode::NotFound)?;
    refuse_revoked(&admitted)?;
    if let (Some(seat), Some(view)) = (parts.extensions.get::<Arc<Seat>>(), &admitted.view) {
        seat.belongs_to(Holder::Account(view.account()));
    }
    let account = admitted.view.as_ref().map(|view| view.account());
    if let Some(account) = account.or(account_of_link) {
        body.keep_pace(Arc::clone(&shared.pace), account);
        if !is_wait(endpoint, &admitted) {
            shared.pace.was_here(account);
        }
        wait_for_share(shared, &mut admitted, account, verified.created).await?;
    }
    if signed.placement != FIRST_PLACEMENT.to_string() {
        return Err(ErrorCode::Conflict.into());
    }
    if let Some(digest) = signed.digest {
        if endpoint.caller != Caller::NewDevice {
            let account = admitted.view.as_ref().map(|view| view.account());
            let _share = match account {
                Some(account) => shared.message_shares.take(account).await,
                None => None,
            };
            let places = match account {
                Some(_) => &shared.messages,
                None => {
                    body.hurry();
                    &shared.strangers
                }
            };
            admitted.message = read_message(places, endpoint, body).await?;
        }
        request::check_digest(digest, &admitted.message).map_err(|_| ErrorCode::NotSigned)?;
    }
    wait_for_work(shared, &mut admitted, verified.created).await?;
    may_call(endpoint, &admitted)?;
    if endpoint.id == EndpointId::SwapHead
        && let (Some(view), Some(device)) = (&admitted.view, admitted.signer)
        && shared.is_held(&view.account(), &device, admitted.now)
    {
        return Err(ErrorCode::Busy.into());
    }
    let errand = authority(shared, endpoint, &admitted, &signed.claim, &key)?;
    admitted.purpose = errand.as_ref().map(|token| token.purpose);
    admitted.errand_ends = errand.map(|token| token.expires);
    if let Claim::Grant(id) = signed.claim {
        admitted.grant = Some((endpoint.grants, id));
    }
    spend(shared, endpoint, &mut admitted, &key, &verified).await?;
    Ok(admitted)
}

/// Whether it asks for what may come later: whoever only waits does not notice how busy the cell is.
fn is_wait(endpoint: &Endpoint, admitted: &Admitted) -> bool {
    endpoint.id == EndpointId::ReadHead && admitted.query.is_some()
}

/// From here on it is known whose request this is, and it costs more than its signature. Whoever had to wait for
/// their own is looked at again: a consent may have ended meanwhile, and a nonce is remembered for so long only.
async fn wait_for_share(
    shared: &Arc<Shared>,
    admitted: &mut Admitted,
    account: AccountId,
    created: i64,
) -> Result<(), Refusal> {
    let holder = (account, admitted.signer);
    admitted.share = shared.request_shares.try_take(holder);
    let had_to_wait = admitted.share.is_none();
    if had_to_wait {
        admitted.share = shared.request_shares.take(holder).await;
    }
    // Of each device only its share stands in line: the owner of one that is in other hands gets to revoke it.
    let had_to_wait = shared.pace.step(account).await || had_to_wait;
    // Of a link it is looked at again whether it is open.
    if !had_to_wait || admitted.view.is_none() {
        return Ok(());
    }
    look_again(shared, admitted, created).await
}

/// All of the request is there: from here on it is the account's share of the cell's work that counts.
async fn wait_for_work(
    shared: &Arc<Shared>,
    admitted: &mut Admitted,
    created: i64,
) -> Result<(), Refusal> {
    let Some(account) = admitted.view.as_ref().map(|view| view.account()) else {
        return Ok(());
    };
    admitted.work = shared.work.try_take(account);
    if admitted.work.is_some() {
        return Ok(());
    }
    admitted.work = shared.work.take(account).await;
    look_again(shared, admitted, created).await
}

/// After a wait.
async fn look_again(
    shared: &Arc<Shared>,
    admitted: &mut Admitted,
    created: i64,
) -> Result<(), Refusal> {
    let account = admitted.account()?;
    admitted.now = shared.clock.now();
    if (admitted.now.seconds() - created).abs() > REQUEST_SKEW_SECONDS {
        return Err(ErrorCode::Skew.into());
    }
    admitted.view = views::view(shared, account).await?;
    if admitted.view.is_none() {
        return Err(ErrorCode::NotFound.into());
    }
    Ok(())
}

async fn read_message(
    places: &Semaphore,
    endpoint: &Endpoint,
    body: &mut RequestBody,
) -> Result<Bytes, Refusal> {
    // The semaphore is never closed.
    let _permit = places.acquire().await.map_err(|_| ErrorCode::Busy)?;
    body.read_all(endpoint.request.max_bytes()).await
}

/// The key of the device that a request to open an account enrols.
fn new_device_key(
    message: &[u8],
    signer: Option<DeviceId>,
) -> Result<Option<Ed25519Public>, Refusal> {
    let request: OpenAccount = cbor::decode(message).map_err(|_| ErrorCode::Malformed)?;
    for record in &request.records {
        let Some(statement) = &record.statement else {
            continue;
        };
        let parsed = statement.parse().map_err(|_| ErrorCode::Malformed)?;
        if let Statement::DeviceAdded(added) = parsed.body {
            let is_signer = signer == Some(added.device);
            return Ok(is_signer.then(|| added.signing.ed25519()));
        }
    }
    Ok(None)
}

async fn view_of_root(
    shared: &Arc<Shared>,
    root: Option<[u8; 32]>,
) -> Result<Option<Arc<AccountView>>, Refusal> {
    let root = root.ok_or(ErrorCode::NotFound)?;
    let found = shared
        .records
        .account_by_root_key(candor_store::records::RootKeyHash(root))
        .await;
    match found.map_err(|error| Refusal::of_records(&error))? {
        None => Ok(None),
        Some(account) => views::view(shared, account.account).await,
    }
}

/// Whoever holds the key of a revoked device, and nobody else, is told so.
fn refuse_revoked(admitted: &Admitted) -> Result<(), Refusal> {
    let device = admitted.view.as_ref().zip(admitted.signer.as_ref());
    if device.is_some_and(|(view, device)| view.is_revoked(device)) {
        return Err(ErrorCode::Revoked.into());
    }
    Ok(())
}

/// A write-only device backs up, and neither reads nor deletes, whatever it says that it is for.
fn may_call(endpoint: &Endpoint, admitted: &Admitted) -> Result<(), Refusal> {
    // Once more: there may have been a wait.
    refuse_revoked(admitted)?;
    let device = admitted.view.as_ref().zip(admitted.signer.as_ref());
    let entry = device.and_then(|(view, device)| view.device(device));
    let is_write_only = entry.is_some_and(|entry| entry.added.role == Role::WriteOnly);
    if is_write_only && !endpoint.write_only {
        return Err(ErrorCode::NotPermitted.into());
    }
    Ok(())
}

/// Step 7: tells the errand, or `None` for a grant.
fn authority(
    shared: &Shared,
    endpoint: &Endpoint,
    admitted: &Admitted,
    claim: &Claim,
    key: &Ed25519Public,
) -> Result<Option<ErrandToken>, Refusal> {
    match claim {
        Claim::Grant(id) => {
            let (Some(view), Some(device)) = (&admitted.view, &admitted.signer) else {
                return Err(ErrorCode::NotPermitted.into());
            };
            if endpoint.grants.is_empty() {
                return Err(ErrorCode::NotPermitted.into());
            }
            let (vault, cell) = (admitted.names.vault, shared.keyring.cell());
            candor_consent::admit(
                view,
                id,
                endpoint.grants,
                device,
                vault.as_ref(),
                &cell,
                admitted.now,
            )
            .map_err(|_| ErrorCode::NoConsent)?;
            Ok(None)
        }
        Claim::Errand(errand) => {
            let skew_ms = REQUEST_SKEW_SECONDS * 1000;
            let token = errand
                .verify(key, &shared.keyring.cell(), admitted.now, skew_ms)
                .map_err(|error| match error {
                    ErrandError::Codec(_) => ErrorCode::Malformed,
                    _ => ErrorCode::NotPermitted,
                })?;
            let account = match &admitted.view {
                Some(view) => Some(view.account()),
                None => opened_account(&admitted.message),
            };
            // Only the root key, looking for its account, may not know the account yet; that its
            // signature verifies under the account's root key says that it is this one. A link's key has none.
            let recovering = token.account.is_none() && token.signer.is_none();
            let fits = token.signer == admitted.signer && (token.account == account || recovering);
            if !fits || !endpoint.errands.contains(&token.purpose) {
                return Err(ErrorCode::NotPermitted.into());
            }
            Ok(Some(token))
        }
    }
}

fn opened_account(message: &[u8]) -> Option<AccountId> {
    cbor::decode::<OpenAccount>(message)
        .ok()
        .map(|request| request.account)
}

/// Whether the handler of an endpoint hands the nonce to the store with its write.
const fn spends_by_writing(endpoint: EndpointId) -> bool {
    matches!(
        endpoint,
        EndpointId::AppendChain
            | EndpointId::SwapHead
            | EndpointId::PutObject
            | EndpointId::OpenLink
    )
}

/// Step 8.
async fn spend(
    shared: &Shared,
    endpoint: &Endpoint,
    admitted: &mut Admitted,
    key: &Ed25519Public,
    verified: &Verified,
) -> Result<(), Refusal> {
    let device = admitted.signer.unwrap_or_else(|| root_as_device(key));
    let nonce = NonceUse {
        device,
        nonce: verified.nonce,
        seen_at: admitted.now,
    };
    if spends_by_writing(endpoint.id) {
        admitted.nonce = Some(nonce);
        return Ok(());
    }
    if endpoint.id == EndpointId::ReadLink {
        // It is asked again and again, answers the same to whoever repeats it, and what it answers is sealed.
        return Ok(());
    }
    match shared.records.use_nonce(nonce).await {
        Ok(NonceOutcome::Fresh) => Ok(()),
        Ok(NonceOutcome::Seen) => Err(ErrorCode::Replayed.into()),
        Err(error) => Err(Refusal::of_records(&error)),
    }
}

/// Under which name the nonces of a root key are remembered.
fn root_as_device(key: &Ed25519Public) -> DeviceId {
    let hash = blake3::derive_key("candor 2026 nonces of a root key v1", key.as_bytes());
    let mut id = [0; DeviceId::BYTES];
    id.copy_from_slice(&hash[..DeviceId::BYTES]);
    DeviceId::from_bytes(id)
}

/// The parts of a request and its body.
pub(crate) fn split(shared: &Shared, request: Request) -> (Parts, RequestBody) {
    let (parts, body) = request.into_parts();
    let body = RequestBody::new(body, &shared.config.limits);
    (parts, body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn paths_have_one_spelling() {
        let pattern = "/v1/accounts/{account}/chain";
        let good = format!("/v1/accounts/{}/chain", "0a".repeat(16));
        assert_eq!(
            names(pattern, &good).unwrap().account,
            Some(AccountId::from_bytes([10; 16]))
        );
        let bad = [
            format!("{good}/"),
            good.replace("/chain", ""),
            good.to_uppercase(),
            good.replace("0a0a", "%30a0a"),
            good.replace("/v1", "//v1"),
            format!("/v1/accounts/{}/chain", "0a".repeat(15)),
        ];
        for path in bad {
            assert_eq!(names(pattern, &path), None, "{path}");
        }
    }

    #[test]
    fn queries_are_known_or_refused() {
        assert_eq!(query(&["from"], ""), Ok(None));
        assert_eq!(query(&["from"], "from=7"), Ok(Some("7".to_owned())));
        for bad in ["to=7", "from", "from=7&from=8", "from=7&a=b"] {
            assert_eq!(
                query(&["from"], bad),
                Err(ErrorCode::Malformed.into()),
                "{bad}"
            );
        }
        assert_eq!(query(&[], "from=7"), Err(ErrorCode::Malformed.into()));
    }
}
