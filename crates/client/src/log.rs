//! The cell's log, as this device checks it: that it only grows, that it holds what the cell
//! acknowledged and nothing else in the account's name, and that its state map says of the account what
//! the device knows.
//!
//! 1. A look reads the account's entry in the state map, then the checkpoint, then the chain. In this
//!    order an honest cell never contradicts itself: an entry is published with or before the checkpoint,
//!    and a statement is on the chain before it is in the log.
//! 2. The checkpoint must be signed by the cell's log key, fit the person's policy, and continue the
//!    newest one that this device ever saw, which the tiles have to prove. It is remembered, durably,
//!    before anything rests on it ([`head`]).
//! 3. New entries are read, all of them, because asking for some would tell which are the account's
//!    ([`watch`]). The entry of the state map is proven under the checkpoint ([`state`]).
//! 4. What is wrong becomes an alarm with evidence in a file ([`evidence`]).
//!
//! **Time.** No clock of a cell decides that something is late. What the device knew at one look, the
//! log owes at the next; what is still missing then is waited for, by this machine's monotonic clock,
//! and only then reported. An acknowledgement's time can make something due earlier, never later. So
//! clocks that jump cost a few seconds of waiting and never an alarm. The word of witnesses that has become
//! old is waited for too: a machine that slept asks for a new one as soon as it wakes up.
//!
//! Threats: rows A15 to A19, A52, B22, B29. What is stored is in `docs/formats/device-log.md`.

pub(crate) mod evidence;
mod flow;
pub(crate) mod head;
mod look;
pub(crate) mod source;
mod state;
mod view;
mod watch;

use std::time::Duration;

use candor_wire::time::DAY_MS;

use crate::commands::Failure;

pub(crate) use head::LogError;
pub(crate) use source::ReadFault;
pub(crate) use state::StateError;
pub(crate) use view::{STALE, WITNESSED};
pub(crate) use watch::kind_name;

/// The one file of a log that changes.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";

/// How long a statement or head may be on its way into the log before it is waited for, in
/// milliseconds. A cell promises a second; a minute lets one restart.
pub(crate) const PROMISE_MS: i64 = 60_000;

/// How long something that is due is waited for before its absence is believed. By the monotonic clock.
/// A cell that was just started needs about ten seconds when a disk or a witness is slow.
pub(crate) const CONFIRM_WAIT: Duration = Duration::from_secs(15);

/// Time between two looks while something is waited for.
pub(crate) const CONFIRM_POLL: Duration = Duration::from_millis(500);

/// Most entries that the look after a backup reads: a minute over a slow network. What is left is read
/// after the next ones; a person who asks gets all of it at once. A cell cannot keep backups waiting by
/// growing its log.
pub(crate) const ENTRIES_PER_RUN_MAX: u64 = 256 * 1024;

/// How old a quorum's word may be, in milliseconds, until the log counts as frozen: a day. Cells ask
/// their witnesses every ten minutes; a day lets the friend who runs one sleep. Under a checkpoint without any
/// word it counts from the first look that found none: a device that was off cannot know since when.
pub(crate) const FREEZE_AFTER_MS: i64 = DAY_MS;

/// Something that an honest cell does not do.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    /// Tells it from others, so that it is an alarm once.
    pub(crate) name: String,
    pub(crate) failure: Failure,
}
