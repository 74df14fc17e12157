//! Joining an account with a code that one of its devices shows ([`candor_wire::linking`]): the new device's side, and
//! what both sides share.

use std::sync::Arc;
use std::time::Duration;

use candor_vault::report::Cancel;
use candor_vault::secret::SecretBytes;
use candor_wire::api::ErrorCode;
use candor_wire::errand::Purpose;
use candor_wire::linking::{
    JoinRequest, LINK_SECRET_BYTES, LINKING_VERSION, LinkCode, LinkPlace, LinkSecret,
    SignedVerdict, Transcript, WriterGift, commitment, digits, gift_info, request_hash,
};
use candor_wire::statement::{Body, Role};
use candor_wire::{AccountId, CellId, Millis, cbor};
use zeroize::Zeroizing;

use super::{AccountError, ErrandFor, Surroundings, fetch, open_keys, sign_errand};
use crate::api::{Api, ApiError, CheckedCell};
use crate::bridge::is_transient;
use crate::chain::Chain;
use crate::egress::Egress;
use crate::epochs;
use crate::keystore::{KeyStore, WriterKeys};
use crate::memory::{Memory, link_at};
use crate::seal_small;

/// How often each side looks whether the other one has answered: a person is waiting, and it costs little.
const POLL: Duration = Duration::from_millis(250);

/// One side of a link: its secret, and a connection signed with the key that follows from it.
pub(crate) struct Linked {
    secret: LinkSecret,
    name: [u8; 32],
    expires: Millis,
    api: Api,
}

impl Linked {
    /// Opens a connection to the link of a code (errand: join).
    pub(crate) fn open(
        egress: &Egress,
        code: &LinkCode,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, AccountError> {
        let key = Arc::new(code.secret.signing());
        let what = ErrandFor {
            purpose: Purpose::Join,
            account: None,
            signer: None,
            cell: egress.cell(),
        };
        let errand = sign_errand(what, &key, surroundings)?;
        Ok(Self {
            secret: code.secret.clone(),
            name: *key.public().ed25519().as_bytes(),
            expires: code.expires,
            api: Api::new(egress.open(Box::new(errand), key)?),
        })
    }

    pub(crate) const fn name(&self) -> &[u8; 32] {
        &self.name
    }

    pub(crate) async fn close(&self) {
        self.api.close().await;
    }

    /// Seals a message for the other side and leaves it.
    pub(crate) async fn leave(
        &self,
        place: LinkPlace,
        message: &[u8],
        surroundings: Surroundings<'_>,
    ) -> Result<(), AccountError> {
        // Each key seals one message.
        let key = Zeroizing::new(self.secret.key(place));
        let sealed = seal_small::seal(&key, &self.name, message, surroundings.entropy)?;
        let left = self.api.put_link_message(&self.name, place, sealed).await;
        left.map_err(|error| match error {
            ApiError::Refused {
                code: ErrorCode::Conflict,
                ..
            } => AccountError::LinkUsed,
            error if error.is_not_found() => AccountError::LinkOver,
            error => error.into(),
        })
    }

    /// Waits for a message of the other side.
    pub(crate) async fn wait(
        &self,
        place: LinkPlace,
        cancel: &Cancel,
        surroundings: Surroundings<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, AccountError> {
        loop {
            if cancel.is_cancelled() {
                return Err(AccountError::Cancelled);
            }
            if surroundings.clock.now() >= self.expires {
                return Err(AccountError::LinkOver);
            }
            match self.api.link_message(&self.name, place).await {
                Ok(Some(sealed)) => {
                    let key = Zeroizing::new(self.secret.key(place));
                    let opened = seal_small::open(&key, &self.name, &sealed);
                    return opened
                        .map(Zeroizing::new)
                        .map_err(|_| AccountError::LinkAltered);
                }
                // Somebody is walking to the other machine, or the cell is being restarted.
                Ok(None) => {}
                Err(error) if is_transient(&error) => {}
                Err(error) if error.is_not_found() => return Err(AccountError::LinkOver),
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The digits that both sides show.
    pub(crate) fn digits(
        &self,
        (cell, account): (&CellId, &AccountId),
        request: &[u8],
        answer: &[u8; LINK_SECRET_BYTES],
        opening: &[u8; LINK_SECRET_BYTES],
    ) -> u32 {
        let transcript = Transcript {
            cell,
            account,
            request,
            answer,
            opening,
        };
        digits(&self.secret, transcript)
    }
}

/// 32 bytes that the other side sent.
pub(crate) fn random_of(message: &[u8]) -> Result<[u8; LINK_SECRET_BYTES], AccountError> {
    message.try_into().map_err(|_| AccountError::LinkAltered)
}

/// Joins the account of `code`. The key store is new; `tell` shows the digits to the person. When this returns, the
/// account's chain was checked from its first entry on, goes through the place that the code names, and has this device.
pub(crate) async fn join(
    egress: &Egress,
    code: &LinkCode,
    keys: &mut KeyStore,
    memory: &Memory,
    tell: &mut (dyn FnMut(u32) + Send),
    cancel: &Cancel,
    surroundings: Surroundings<'_>,
) -> Result<Chain, AccountError> {
    if surroundings.clock.now() >= code.expires {
        return Err(AccountError::LinkOver);
    }
    keys.set_account(code.account);
    keys.save()?;
    let link = Linked::open(egress, code, surroundings)?;
    let told = ask(
        &link,
        egress,
        code,
        keys,
        memory,
        tell,
        cancel,
        surroundings,
    )
    .await;
    link.close().await;
    let told = told?;
    let what = ErrandFor {
        purpose: Purpose::Join,
        account: Some(code.account),
        signer: Some(keys.device()),
        cell: egress.cell(),
    };
    let signing = keys.signing();
    let errand = sign_errand(what, &signing, surroundings)?;
    let api = Api::new(egress.open(Box::new(errand), signing)?);
    let read = fetch(&api, &egress.root(), code.account, None, memory).await;
    api.close().await;
    let Told { request, said } = told;
    let (chain, said) = match (read, said) {
        (Ok(chain), said) => (chain, said),
        // It is not in the account, as the other side said.
        (Err(AccountError::Api(error)), Err(said)) if error.is_not_found() => return Err(said),
        (Err(error), _) => return Err(error),
    };
    if link_at(chain.view(), code.chain_length) != Some(code.chain_tip) {
        return Err(AccountError::OtherChain);
    }
    let entry = chain.view().device(&keys.device());
    let is_this = entry.is_some_and(|entry| {
        entry.is_live()
            && entry.added.role == code.role
            && entry.added.signing == keys.signing().public()
            && entry.added.agreement == keys.agreement().public()
    });
    if !is_this {
        return Err(AccountError::NotEnrolled);
    }
    match code.role {
        Role::Full => {
            open_keys(&chain, keys)?;
        }
        Role::WriteOnly => take_gift(&chain, keys, &said?, &request)?,
    }
    keys.set_enrolled(code.account, chain.genesis());
    keys.save()?;
    Ok(chain)
}

/// What the other side said in the end.
struct Told {
    /// Hash of what this device asked.
    request: [u8; 32],
    /// The verdict, if it was a yes; else what it comes to.
    said: Result<SignedVerdict, AccountError>,
}

#[expect(
    clippy::too_many_arguments,
    reason = "one step of `join`, split off to close its connection"
)]
async fn ask(
    link: &Linked,
    egress: &Egress,
    code: &LinkCode,
    keys: &KeyStore,
    memory: &Memory,
    tell: &mut (dyn FnMut(u32) + Send),
    cancel: &Cancel,
    surroundings: Surroundings<'_>,
) -> Result<Told, AccountError> {
    let CheckedCell { keyring, .. } = link.api.describe_cell().await?;
    memory.remember_cell(keyring.current().serial)?;
    let mut random = [0; LINK_SECRET_BYTES];
    surroundings.entropy.fill(&mut random)?;
    let request = cbor::encode(&JoinRequest {
        version: LINKING_VERSION,
        device: keys.device(),
        name: keys.device_name().to_owned(),
        signing: keys.signing().public(),
        agreement: keys.agreement().public(),
        commitment: commitment(&random),
    });
    link.leave(LinkPlace::Request, &request, surroundings)
        .await?;
    let answer = link.wait(LinkPlace::Answer, cancel, surroundings).await?;
    let answer = random_of(&answer)?;
    link.leave(LinkPlace::Opening, &random, surroundings)
        .await?;
    let place = (&egress.cell(), &code.account);
    tell(link.digits(place, &request, &answer, &random));
    let verdict = link.wait(LinkPlace::Verdict, cancel, surroundings).await;
    let said = match verdict.and_then(|bytes| read_verdict(&bytes)) {
        Err(error @ (AccountError::Cancelled | AccountError::Api(_))) => return Err(error),
        said => said,
    };
    Ok(Told {
        request: request_hash(&request),
        said,
    })
}

fn read_verdict(bytes: &[u8]) -> Result<SignedVerdict, AccountError> {
    let signed: SignedVerdict = cbor::decode(bytes).map_err(|_| AccountError::LinkAltered)?;
    let verdict = signed.peek().map_err(|_| AccountError::LinkAltered)?;
    match (verdict.version, verdict.accepted) {
        (LINKING_VERSION, true) => Ok(signed),
        (LINKING_VERSION, false) => Err(AccountError::LinkDeclined),
        _ => Err(AccountError::LinkAltered),
    }
}

/// Of a write-only device: what it has instead of keys. It counts only if the device that stated this one on the chain
/// signed it, for what this one asked.
fn take_gift(
    chain: &Chain,
    keys: &mut KeyStore,
    signed: &SignedVerdict,
    request: &[u8; 32],
) -> Result<(), AccountError> {
    let altered = || AccountError::LinkAltered;
    let mut statements = chain.records().iter().filter_map(|record| {
        let parsed = record.statement.as_ref()?.parse().ok()?;
        match &parsed.body {
            Body::DeviceAdded(added) if added.device == keys.device() => parsed.entry.signer,
            _ => None,
        }
    });
    let stated_by = statements.next().ok_or_else(altered)?;
    let entry = chain.view().device(&stated_by).ok_or_else(altered)?;
    signed
        .verify(&entry.added.signing.ed25519())
        .map_err(|_| altered())?;
    let verdict = signed.peek().map_err(|_| altered())?;
    let gift = verdict
        .gift
        .filter(|_| verdict.request == *request)
        .ok_or_else(altered)?;
    let info = gift_info(&chain.account(), &keys.device(), request);
    let sealed = (gift.encapsulated.as_slice(), gift.ciphertext.as_slice());
    let opened = epochs::open_for(keys.agreement(), &info, sealed).map_err(|_| altered())?;
    let gift: WriterGift = cbor::decode(&opened).map_err(|_| altered())?;
    let vaults = gift.vaults.iter();
    let vaults = vaults.map(|given| (given.vault, SecretBytes::copy_of(given.chunk_ids())));
    keys.set_writer(WriterKeys::new(
        Zeroizing::new(gift.watch.clone()),
        vaults.collect(),
    ));
    Ok(())
}
