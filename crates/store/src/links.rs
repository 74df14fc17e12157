//! The port for links: places where a device that joins an account and one that takes it in leave each other sealed
//! messages ([`candor_wire::linking`]). A link lives for minutes; what it holds is worthless afterwards.

use bytes::Bytes;
use candor_wire::linking::LINK_MESSAGES;
use candor_wire::{AccountId, Millis};

use crate::Pending;
use crate::records::{NonceUse, RecordsError};

/// A link that is about to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkOpening {
    /// Its name: 256 bits that nobody guesses.
    pub name: [u8; 32],
    /// Whose device opens it.
    pub account: AccountId,
    /// When it ends.
    pub expires_at: Millis,
    /// The present time.
    pub now: Millis,
}

/// What came of opening a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOutcome {
    /// It is open.
    Opened,
    /// It was open already: a repetition, or somebody else's of the same name. Nothing was changed.
    AlreadyThere,
    /// The account has [`candor_wire::linking::LINKS_MAX`] open already. Nothing was changed.
    TooMany,
}

/// What came of leaving a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageOutcome {
    /// It is there.
    Left,
    /// This very message was there already.
    AlreadyThere,
    /// Another one is there. Nothing was changed.
    Taken,
    /// There is no such link, or it has ended. Nothing was changed.
    NoSuchLink,
}

/// The messages of a link, by place.
pub type LinkMessages = [Option<Bytes>; LINK_MESSAGES];

/// A link that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLink {
    /// Whose device opened it.
    pub account: AccountId,
    /// What was left there.
    pub messages: LinkMessages,
}

/// A store of links. Its faults are those of [`crate::Records`]; what it wrote is durable when it returns.
pub trait Links: Send + Sync + 'static {
    /// Opens a link. Those of the account that have ended do not count any more.
    ///
    /// # Errors
    /// [`RecordsError::Replayed`], [`RecordsError::NoSuchAccount`] and [`RecordsError::AccountFrozen`].
    fn open_link(
        &self,
        nonce: Option<NonceUse>,
        opening: LinkOpening,
    ) -> Pending<'_, Result<LinkOutcome, RecordsError>>;

    /// Leaves a message at a place that is free.
    ///
    /// # Errors
    /// [`RecordsError::Invalid`] for a place that no link has, or a message beyond
    /// [`candor_wire::linking::LINK_MESSAGE_MAX_BYTES`].
    fn leave_message(
        &self,
        name: [u8; 32],
        place: u8,
        message: Bytes,
        now: Millis,
    ) -> Pending<'_, Result<MessageOutcome, RecordsError>>;

    /// Whose it is and what was left; `None` if there is no such link, or it has ended.
    fn link(
        &self,
        name: [u8; 32],
        now: Millis,
    ) -> Pending<'_, Result<Option<OpenLink>, RecordsError>>;

    /// Forgets up to `limit` links that ended before `before`, and returns how many.
    fn sweep_links(&self, before: Millis, limit: usize) -> Pending<'_, Result<u64, RecordsError>>;
}

/// Refuses what no link can hold. Every engine uses this one rule.
pub(crate) fn check_message(place: u8, message: &[u8]) -> Result<usize, RecordsError> {
    let place = usize::from(place);
    if place >= LINK_MESSAGES {
        return Err(RecordsError::Invalid("a link has no such place"));
    }
    if message.len() > candor_wire::linking::LINK_MESSAGE_MAX_BYTES {
        return Err(RecordsError::Invalid("a message of a link is too long"));
    }
    Ok(place)
}
