//! Links in memory.

use bytes::Bytes;
use candor_wire::linking::LINKS_MAX;
use candor_wire::{AccountId, Millis};

use super::{MemoryRecords, Tables};
use crate::Pending;
use crate::links::{
    LinkMessages, LinkOpening, LinkOutcome, Links, MessageOutcome, OpenLink, check_message,
};
use crate::records::{NonceUse, ROWS_MAX, RecordsError};

#[derive(Debug, Clone)]
pub(super) struct Row {
    account: AccountId,
    expires_at: Millis,
    messages: LinkMessages,
}

impl Row {
    pub(super) fn is_of(&self, account: AccountId) -> bool {
        self.account == account
    }
}

impl Tables {
    fn open_link(&mut self, opening: &LinkOpening) -> Result<LinkOutcome, RecordsError> {
        self.writable(opening.account)?;
        if self.links.contains_key(&opening.name) {
            return Ok(LinkOutcome::AlreadyThere);
        }
        let open = self
            .links
            .values()
            .filter(|row| row.is_of(opening.account) && row.expires_at > opening.now);
        if open.count() >= LINKS_MAX {
            return Ok(LinkOutcome::TooMany);
        }
        let row = Row {
            account: opening.account,
            expires_at: opening.expires_at,
            messages: LinkMessages::default(),
        };
        self.links.insert(opening.name, row);
        Ok(LinkOutcome::Opened)
    }

    fn leave(
        &mut self,
        name: &[u8; 32],
        place: u8,
        message: Bytes,
        now: Millis,
    ) -> Result<MessageOutcome, RecordsError> {
        let place = check_message(place, &message)?;
        let open = self.links.get_mut(name);
        let Some(row) = open.filter(|row| row.expires_at > now) else {
            return Ok(MessageOutcome::NoSuchLink);
        };
        Ok(match &row.messages[place] {
            Some(there) if *there == message => MessageOutcome::AlreadyThere,
            Some(_) => MessageOutcome::Taken,
            None => {
                row.messages[place] = Some(message);
                MessageOutcome::Left
            }
        })
    }

    fn sweep_links(&mut self, before: Millis, limit: usize) -> u64 {
        let mut over: Vec<_> = self
            .links
            .iter()
            .filter(|(_, row)| row.expires_at < before)
            .map(|(name, row)| (row.expires_at, *name))
            .collect();
        over.sort_unstable();
        over.truncate(limit.min(ROWS_MAX));
        for (_, name) in &over {
            self.links.remove(name);
        }
        over.len() as u64
    }
}

impl Links for MemoryRecords {
    fn open_link(
        &self,
        nonce: Option<NonceUse>,
        opening: LinkOpening,
    ) -> Pending<'_, Result<LinkOutcome, RecordsError>> {
        self.once(nonce, |tables| tables.open_link(&opening))
    }

    fn leave_message(
        &self,
        name: [u8; 32],
        place: u8,
        message: Bytes,
        now: Millis,
    ) -> Pending<'_, Result<MessageOutcome, RecordsError>> {
        self.once(None, |tables| tables.leave(&name, place, message, now))
    }

    fn link(
        &self,
        name: [u8; 32],
        now: Millis,
    ) -> Pending<'_, Result<Option<OpenLink>, RecordsError>> {
        self.once(None, |tables| {
            let row = tables.links.get(&name).filter(|row| row.expires_at > now);
            Ok(row.map(|row| OpenLink {
                account: row.account,
                messages: row.messages.clone(),
            }))
        })
    }

    fn sweep_links(&self, before: Millis, limit: usize) -> Pending<'_, Result<u64, RecordsError>> {
        self.once(None, |tables| Ok(tables.sweep_links(before, limit)))
    }
}
