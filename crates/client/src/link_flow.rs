//! Taking a new device in: the old device's side of [`candor_wire::linking`].
//!
//! Three commands, with a person between them: one opens a link and gives the code; one waits until a device asks, and
//! tells its name and the digits; one says yes or no. What is known in between is in this engine and nowhere else: if
//! it ends, the code is worthless, and nothing was changed.

use std::sync::Arc;

use candor_vault::report::Cancel;
use candor_wire::Millis;
use candor_wire::api::ErrorCode;
use candor_wire::cbor;
use candor_wire::chain::AccountView as ChainView;
use candor_wire::epoch::EpochRecord;
use candor_wire::errand::Purpose;
use candor_wire::linking::{
    GivenVault, JoinRequest, LINK_MAX_MS, LINK_SECRET_BYTES, LINKING_VERSION, LinkCode, LinkPlace,
    LinkSecret, SealedGift, SignedVerdict, Verdict, WriterGift, commitment, gift_info,
    request_hash,
};
use candor_wire::statement::{Body, DeviceAdded, Role};
use zeroize::Zeroizing;

use crate::account::{self, APPEND_TRIES_MAX, AccountError, Given, Linked, Tried, next_batch};
use crate::api::{Api, ApiError};
use crate::chain::Chain;
use crate::commands::{Failure, FailureKind, LinkAskView, LinkCodeView, View};
use crate::engine::{Engine, lock, unknown_chain};
use crate::epochs::{self, EpochError, Recipients};

/// A link that this device opened.
pub(crate) struct OpenLink {
    /// Under the errand of linking: for the account's chain.
    api: Arc<Api>,
    link: Linked,
    role: Role,
    expires: Millis,
    /// Who asked, once they did.
    asked: Option<Asked>,
}

/// A device that asks to join.
struct Asked {
    request: JoinRequest,
    hash: [u8; 32],
    digits: String,
}

/// How long before its end a code takes nobody in any more, in milliseconds: the other side has to be told.
const MARGIN_MS: i64 = 15_000;

impl Engine {
    /// Opens a link and makes its code (errand: link).
    pub(crate) fn device_link(&self, role: Role) -> Result<View, Failure> {
        if self.facts.role == Role::WriteOnly {
            return Err(
                Failure::new(FailureKind::Policy, "a write-only device takes no other in")
                    .with_hint("run it on a full device of the account"),
            );
        }
        let api = self.errand(Purpose::Link)?;
        self.sync_chain(&api)?;
        let mut secret = [0; LINK_SECRET_BYTES];
        self.entropy.fill(&mut secret).map_err(AccountError::from)?;
        let view = self.view()?;
        let code = LinkCode {
            version: LINKING_VERSION,
            cell: self.facts.invitation.clone(),
            account: self.facts.account,
            secret: LinkSecret::from_bytes(secret),
            chain_length: view.next_sequence(),
            chain_tip: view.tip(),
            expires: self.now().plus_ms(LINK_MAX_MS),
            role,
        };
        let link = {
            let _inside = self.runtime.enter();
            Linked::open(&self.egress, &code, self.surroundings())?
        };
        let opened = api.open_link(self.facts.account, link.name());
        self.runtime.block_on(opened).map_err(|error| match error {
            ApiError::Refused {
                code: ErrorCode::Conflict,
                ..
            } => Failure::new(FailureKind::Policy, "too many codes are open already")
                .with_hint("each is over after ten minutes; try again then"),
            error => error.into(),
        })?;
        let before = lock(&self.link).replace(OpenLink {
            api,
            link,
            role,
            expires: code.expires,
            asked: None,
        });
        // A code that was made before is not waited for any more.
        if let Some(before) = before {
            self.end_link(before);
        }
        Ok(View::LinkCode(LinkCodeView {
            code: code.to_text(),
            expires_ms: code.expires.0,
        }))
    }

    fn end_link(&self, link: OpenLink) {
        self.runtime.block_on(async {
            link.link.close().await;
            link.api.close().await;
        });
    }

    /// The link that is open. While it is worked on there is none; whoever is done puts it back.
    fn take_link(&self) -> Result<OpenLink, Failure> {
        lock(&self.link).take().ok_or_else(|| {
            Failure::new(FailureKind::Usage, "no code is open on this device")
                .with_hint("make one: candor device link")
        })
    }

    /// Waits for a device to ask, and tells its name and the digits that it should show.
    pub(crate) fn device_link_wait(&self, cancel: &Cancel) -> Result<View, Failure> {
        let mut link = self.take_link()?;
        let asked = match self.asked(&link, cancel) {
            Ok(asked) => asked,
            Err(failure) => {
                // Whoever waits at the other end is told, if they can be.
                let _ = self.leave_verdict(
                    &link,
                    &Verdict {
                        version: LINKING_VERSION,
                        accepted: false,
                        request: [0; 32],
                        gift: None,
                    },
                );
                self.end_link(link);
                return Err(failure);
            }
        };
        let view = LinkAskView {
            name: asked.request.name.clone(),
            digits: asked.digits.clone(),
            role: crate::status::role_name(link.role).to_owned(),
        };
        link.asked = Some(asked);
        let mut open = lock(&self.link);
        if open.is_some() {
            drop(open);
            self.end_link(link);
            return Err(Failure::new(
                FailureKind::Usage,
                "another code was made meanwhile, and this one is worthless",
            ));
        }
        *open = Some(link);
        Ok(View::LinkAsk(view))
    }

    fn asked(&self, open: &OpenLink, cancel: &Cancel) -> Result<Asked, Failure> {
        let (link, surroundings) = (&open.link, self.surroundings());
        self.runtime.block_on(async {
            let bytes = link.wait(LinkPlace::Request, cancel, surroundings).await?;
            let request: JoinRequest =
                cbor::decode(&bytes).map_err(|_| AccountError::LinkAltered)?;
            if !request.is_sound() {
                return Err(AccountError::LinkAltered.into());
            }
            let mut answer = [0; LINK_SECRET_BYTES];
            surroundings
                .entropy
                .fill(&mut answer)
                .map_err(AccountError::from)?;
            link.leave(LinkPlace::Answer, &answer, surroundings).await?;
            let opening = link.wait(LinkPlace::Opening, cancel, surroundings).await?;
            let opening = account::random_of(&opening)?;
            // Whoever changed their mind after they saw the answer is somebody else.
            if commitment(&opening) != request.commitment {
                return Err(AccountError::LinkAltered.into());
            }
            let place = (&self.facts.cell, &self.facts.account);
            let digits = link.digits(place, &bytes, &answer, &opening);
            Ok(Asked {
                request,
                hash: request_hash(&bytes),
                digits: digits_text(digits),
            })
        })
    }

    /// Says yes or no to the device that asked and shows these digits: to that one and no other.
    pub(crate) fn device_link_answer(&self, accept: bool, digits: &str) -> Result<View, Failure> {
        let link = self.take_link()?;
        let answered = match &link.asked {
            Some(asked) if asked.digits == digits => self.answer(&link, asked, accept),
            _ => Err(Failure::new(
                FailureKind::Usage,
                "no device that shows these digits has asked",
            )),
        };
        self.end_link(link);
        answered
    }

    fn answer(&self, open: &OpenLink, asked: &Asked, accept: bool) -> Result<View, Failure> {
        let mut verdict = Verdict {
            version: LINKING_VERSION,
            accepted: accept,
            request: asked.hash,
            gift: None,
        };
        if !accept {
            self.leave_verdict(open, &verdict)?;
            return Ok(View::Done);
        }
        if self.now().plus_ms(MARGIN_MS) >= open.expires {
            return Err(AccountError::LinkOver.into());
        }
        verdict.gift = self.take_in(open, asked)?;
        let left = self.leave_verdict(open, &verdict);
        let view = self.view()?;
        let entry = view
            .device(&asked.request.device)
            .ok_or_else(unknown_chain)?;
        let device = self.device_view(entry, &self.keys());
        match (left, open.role) {
            // A full device finds itself on the chain, whatever it is told.
            (Ok(()), _) | (Err(_), Role::Full) => Ok(View::Device(device)),
            (Err(failure), Role::WriteOnly) => {
                let mut told = Failure::new(
                    FailureKind::Failed,
                    "the device is in your account, and could not be told what it needs",
                )
                .with_hint(format!(
                    "take it out again with `candor device revoke {}`, and make a new code",
                    device.device
                ));
                told.causes.push(failure.sentence);
                Err(told)
            }
        }
    }

    fn leave_verdict(&self, open: &OpenLink, verdict: &Verdict) -> Result<(), Failure> {
        let signed = SignedVerdict::sign(verdict, self.facts.signing.ed25519());
        let bytes = cbor::encode(&signed);
        let left = open
            .link
            .leave(LinkPlace::Verdict, &bytes, self.surroundings());
        Ok(self.runtime.block_on(left)?)
    }

    /// States the new device on the chain, and new epochs that are wrapped to it.
    fn take_in(&self, open: &OpenLink, asked: &Asked) -> Result<Option<SealedGift>, Failure> {
        self.sync_chain(&open.api)?;
        let gift = self.change_chain(&open.api, |chain| self.state_device(open, asked, chain))?;
        // What did not fit into the first append.
        while self.renew_for(&open.api, &asked.request)? > 0 {}
        Ok(gift)
    }

    fn state_device(
        &self,
        open: &OpenLink,
        asked: &Asked,
        chain: &mut Chain,
    ) -> Result<Option<SealedGift>, Failure> {
        let request = &asked.request;
        for _ in 0..APPEND_TRIES_MAX {
            let keys = self.keys();
            let account_keys = keys.keys(None);
            let first = account_keys
                .and_then(|keys| keys.get(1))
                .ok_or(EpochError::NotRecipient)?;
            let sealed_name = account::seal_name(
                &request.name,
                self.facts.account,
                request.device,
                first,
                &*self.entropy,
            );
            let added = Body::DeviceAdded(Box::new(DeviceAdded {
                device: request.device,
                role: open.role,
                signing: request.signing.clone(),
                agreement: request.agreement,
                sealed_name: sealed_name.map_err(AccountError::from)?,
            }));
            let mut bodies = vec![added];
            let gift = match open.role {
                Role::Full => {
                    let recipients =
                        Recipients::of(chain.view()).with(request.device, request.agreement);
                    let mut renewals = account::renewals(
                        chain.view(),
                        &keys,
                        &recipients,
                        |_, _| true,
                        self.surroundings(),
                    )?;
                    bodies.extend(next_batch(&mut renewals));
                    None
                }
                Role::WriteOnly => {
                    let given = account::draw_vaults(chain.view(), first, self.surroundings())?;
                    let gift = self.gift_of(&given, asked)?;
                    bodies.extend(given.bodies);
                    Some(gift)
                }
            };
            let trying = account::try_append(
                &open.api,
                chain,
                &self.memory,
                &keys,
                bodies,
                self.surroundings(),
            );
            if self.runtime.block_on(trying)? == Tried::Done {
                return Ok(gift);
            }
        }
        Err(AccountError::Contended.into())
    }

    /// What a write-only device is given, sealed to its own key.
    fn gift_of(&self, given: &Given, asked: &Asked) -> Result<SealedGift, Failure> {
        let vaults = given.vaults.iter();
        let gift = WriterGift {
            watch: given.watch.to_vec(),
            vaults: vaults
                .map(|(vault, ids)| GivenVault::new(*vault, *ids.as_array()))
                .collect(),
        };
        let plain = Zeroizing::new(cbor::encode(&gift));
        let request = &asked.request;
        let info = gift_info(&self.facts.account, &request.device, &asked.hash);
        let sealed = epochs::seal_for(&request.agreement, &info, &plain, &*self.entropy);
        let (encapsulated, ciphertext) = sealed.map_err(AccountError::from)?;
        Ok(SealedGift {
            encapsulated,
            ciphertext,
        })
    }

    /// Renews keys that are not wrapped to the new full device yet. Tells how many; of many there may be more.
    fn renew_for(&self, api: &Api, request: &JoinRequest) -> Result<u64, Failure> {
        let is_member = |view: &ChainView| {
            view.device(&request.device)
                .is_some_and(|entry| entry.is_live() && entry.added.role == Role::Full)
        };
        if !is_member(&self.view()?) {
            return Ok(0);
        }
        let lacks = |record: &EpochRecord| record.wrap_for(Some(request.device)).is_none();
        self.renew(api, |_, record| lacks(record))
    }
}

/// Six digits in two groups, as people read them aloud.
pub(crate) fn digits_text(digits: u32) -> String {
    format!("{:03} {:03}", digits / 1000, digits % 1000)
}
