//! What keeps a mount going: connections are renewed and new snapshots looked for, when somebody who
//! reads needs it. Readers are the kernel's threads and know no engine; they leave a note here, and the
//! thread of the command does what it says.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use candor_vault::{ObjectSource, Presence, SourceError};
use candor_wire::ObjectId;

use crate::bridge::CellObjects;
use crate::events::CANCEL_POLL;

/// How long whoever reads waits for a new connection.
const RENEWAL_WAIT: Duration = Duration::from_secs(30);

/// How old the list of snapshots may be when somebody looks at it.
const LIST_FRESH: Duration = Duration::from_secs(3);

/// How long whoever looks at the list of snapshots waits for a newer one.
const LIST_WAIT: Duration = Duration::from_secs(2);

/// Most problems that wait to be told.
const PROBLEMS_MAX: usize = 64;

/// Something that could not be read.
pub(crate) struct Trouble {
    pub(crate) path: String,
    pub(crate) what: String,
    /// Whether it is damaged or forged, and not merely out of reach.
    pub(crate) is_integrity: bool,
}

/// What readers ask of the command's thread.
#[derive(Default)]
struct Notes {
    /// How many connections there were before this one.
    renewals: u64,
    wants_connection: bool,
    wants_list: bool,
    listed: Option<Instant>,
    problems: Vec<Trouble>,
    ended: bool,
}

/// What the command's thread has to do next.
pub(crate) enum Work {
    Connect,
    List,
    Tell(Vec<Trouble>),
    /// Nothing was asked for in a while.
    Look,
}

#[derive(Clone, Default)]
pub(crate) struct Keeper(Arc<(Mutex<Notes>, Condvar)>);

impl Keeper {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Each note is whole or not there.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.1.notify_all();
    }

    /// Waits until `done`, for a time.
    fn wait<'a>(
        &'a self,
        mut notes: MutexGuard<'a, Notes>,
        most: Duration,
        done: impl Fn(&Notes) -> bool,
    ) -> MutexGuard<'a, Notes> {
        let until = Instant::now() + most;
        while !done(&notes) {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                break;
            };
            let waited = self.0.1.wait_timeout(notes, left);
            notes = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        notes
    }

    /// What to do next; called by the command's thread in a loop.
    pub(crate) fn next(&self) -> Work {
        let asked = |notes: &Notes| {
            notes.wants_connection || notes.wants_list || !notes.problems.is_empty()
        };
        let mut notes = self.wait(self.notes(), CANCEL_POLL, asked);
        if !notes.problems.is_empty() {
            return Work::Tell(std::mem::take(&mut notes.problems));
        }
        if notes.wants_connection {
            return Work::Connect;
        }
        if notes.wants_list {
            return Work::List;
        }
        Work::Look
    }

    /// There is another connection, or none can be had.
    pub(crate) fn connected(&self) {
        let mut notes = self.notes();
        notes.renewals += 1;
        notes.wants_connection = false;
        self.changed();
    }

    /// The list is as new as it can be.
    pub(crate) fn listed(&self) {
        let mut notes = self.notes();
        notes.wants_list = false;
        notes.listed = Some(Instant::now());
        self.changed();
    }

    /// Nobody waits for anything any more.
    pub(crate) fn end(&self) {
        self.notes().ended = true;
        self.changed();
    }

    /// Something could not be read.
    pub(super) fn tell(&self, trouble: Trouble) {
        let mut notes = self.notes();
        if notes.problems.len() < PROBLEMS_MAX {
            notes.problems.push(trouble);
            self.changed();
        }
    }

    /// Whoever looks at the list of snapshots asks for a new one, and waits a little.
    pub(super) fn refresh(&self) {
        let mut notes = self.notes();
        let before = notes.listed;
        if before.is_some_and(|listed| listed.elapsed() < LIST_FRESH) {
            return;
        }
        notes.wants_list = true;
        self.changed();
        let is_over = |notes: &Notes| notes.ended || notes.listed != before;
        drop(self.wait(notes, LIST_WAIT, is_over));
    }

    fn renewals(&self) -> u64 {
        self.notes().renewals
    }

    /// Asks for a connection after number `last`, and waits for it. False when it did not come.
    fn renew(&self, last: u64) -> bool {
        let mut notes = self.notes();
        if notes.renewals == last {
            notes.wants_connection = true;
            self.changed();
        }
        let is_over = |notes: &Notes| notes.ended || notes.renewals != last;
        let notes = self.wait(notes, RENEWAL_WAIT, is_over);
        notes.renewals != last && !notes.ended
    }
}

/// The way to a vault's objects while it is mounted: an errand lasts a day and a connection less, and
/// a mount may stay for weeks.
pub(crate) struct Way {
    objects: Mutex<Arc<CellObjects>>,
    keeper: Keeper,
}

impl Way {
    pub(crate) fn new(objects: Arc<CellObjects>, keeper: Keeper) -> Self {
        Self {
            objects: Mutex::new(objects),
            keeper,
        }
    }

    pub(crate) fn replace(&self, objects: Arc<CellObjects>) {
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner) = objects;
    }

    fn objects(&self) -> Arc<CellObjects> {
        Arc::clone(&self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks once, and once more over a new connection.
    fn ask<T>(
        &self,
        question: impl Fn(&CellObjects) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let number = self.keeper.renewals();
        match question(&self.objects()) {
            Err(SourceError::Unreachable(_) | SourceError::Refused(_))
                if self.keeper.renew(number) =>
            {
                question(&self.objects())
            }
            answer => answer,
        }
    }
}

impl ObjectSource for Way {
    fn get(&self, object: ObjectId) -> Result<Bytes, SourceError> {
        self.ask(|objects| objects.get(object))
    }

    fn get_range(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.ask(|objects| objects.get_range(object, range.clone()))
    }

    fn has(&self, objects: &[ObjectId]) -> Result<Vec<Presence>, SourceError> {
        self.ask(|cell| cell.has(objects))
    }

    fn list(&self, after: Option<ObjectId>) -> Result<Vec<(ObjectId, u64)>, SourceError> {
        self.ask(|objects| objects.list(after))
    }
}
