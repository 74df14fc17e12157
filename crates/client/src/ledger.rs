//! The ledger: this device's own record of every connection that it opened.
//!
//! 1. Before a connection opens, a record that says so is on the disk. When it closes, a second one
//!    says what went over it. A process that is killed in between leaves the first, which the next
//!    start turns into an *interrupted* line: a line can be incomplete, never missing.
//! 2. Records are chained: the hash of each covers the one before. The newest hash is signed by the
//!    device ([`candor_wire::sign::Domain::LEDGER_HEAD`]) after every record.
//! 3. Each record is sealed with AES-256-GCM under the ledger key, with its number as associated
//!    data: the ledger is a history of what a person did, and is nobody else's business.
//! 4. Retention is bounded. Records lie in segments; when there are too many, the oldest goes, after
//!    its last hash was signed as a checkpoint, from which the rest still verifies.
//!
//! Alarms (tampering and rollback that were detected) are records of the same chain. Format:
//! `docs/formats/ledger.md`.

mod line;
mod mark;
mod reading;
mod record;
mod segments;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candor_vault::Entropy;
use candor_vault::entropy::EntropyError;
use candor_wire::DeviceId;
use candor_wire::ids::to_hex;
use candor_wire::sign::SecretKey;
use candor_wire::time::Millis;

use crate::clock::Clock;
use crate::commands::{
    LedgerLineView, LedgerPageView, LedgerSelection, LedgerSummaryView, LedgerVerifiedView,
};
use crate::keystore::LedgerKey;

pub use line::{Counts, DataClass, OpenLine, Opening, Protocol};
use reading::Segment;
use record::{Claim, Event, LedgerHead, Record, SignedLedgerHead};
use segments::Segments;
use summary::Summary;

/// The version of records that this build writes and the lowest that it accepts.
pub const LEDGER_VERSION: u8 = 1;

/// Length at which a segment is full, in bytes: some 3,000 records.
pub const SEGMENT_MAX_BYTES: u64 = 1024 * 1024;

/// Most segments that are kept. 64 MiB hold some 100,000 connections: years of hourly backups.
pub const SEGMENTS_MAX: usize = 64;

/// Most lines that are told at once of the newest.
pub const NEWEST_MAX: usize = 1_000;

/// Longest sealed record, in bytes.
pub const RECORD_MAX_BYTES: usize = 4096;

/// Longest sentence of an alarm, in bytes.
pub const ALARM_MAX_BYTES: usize = 512;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Records were altered, taken away or put in.
    #[error("the ledger was altered: record {sequence} is not what it was")]
    Altered {
        /// The first record that does not fit.
        sequence: u64,
    },
    /// The newest records are missing.
    #[error("the ledger was cut: it ends at record {found}, but {signed} were signed")]
    Cut {
        /// The last record that is there.
        found: u64,
        /// The last record that was signed.
        signed: u64,
    },
    /// The signed head or checkpoint is missing or not by this device.
    #[error("the ledger's signature is missing or not this device's")]
    Signature,
    /// A record would be longer than allowed.
    #[error("a record of the ledger has at most {RECORD_MAX_BYTES} bytes")]
    TooLong,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Entropy,
    /// The files cannot be read or written.
    #[error("the ledger cannot be read or written")]
    Storage(#[source] io::Error),
}

impl From<EntropyError> for LedgerError {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

impl From<io::Error> for LedgerError {
    fn from(error: io::Error) -> Self {
        Self::Storage(error)
    }
}

/// What the ledger needs to seal, sign and tell the time.
pub struct LedgerParts<'a> {
    /// Seals the records.
    pub key: &'a LedgerKey,
    /// This device's key, which signs the newest hash.
    pub signing: Arc<SecretKey>,
    /// This device.
    pub device: DeviceId,
    /// Times of records.
    pub clock: Arc<dyn Clock>,
    /// Nonces of records.
    pub entropy: Arc<dyn Entropy>,
}

/// The ledger of this device. One per process, under the lock of the device's folder.
pub struct Ledger {
    signing: Arc<SecretKey>,
    device: DeviceId,
    clock: Arc<dyn Clock>,
    inner: Mutex<Segments>,
    summary: Mutex<Summary>,
    /// Connections that are open, by the number of the record that opened each, with what counts them.
    open: Mutex<BTreeMap<u64, (Record, Arc<Counts>)>>,
}

impl Ledger {
    /// Opens the ledger in `folder`, or begins one. Reads and checks all of it, drops a record that a
    /// crash left half written, and closes lines that were open when the process ended.
    pub fn open(folder: &Path, parts: LedgerParts<'_>) -> Result<Arc<Self>, LedgerError> {
        let LedgerParts {
            key,
            signing,
            device,
            clock,
            entropy,
        } = parts;
        let mut segments = Segments::open(folder, key, entropy, &signing, device)?;
        let mut still_open: BTreeMap<u64, Record> = BTreeMap::new();
        let mut summary = Summary::default();
        segments.recover(&mut |record| {
            summary.add(&record);
            match record.event {
                Event::Opened => {
                    still_open.insert(record.sequence, record);
                }
                Event::Closed | Event::Interrupted => {
                    still_open.remove(&record.opening);
                }
                Event::Alarm => {}
            }
        })?;
        let ledger = Arc::new(Self {
            signing,
            device,
            clock,
            inner: Mutex::new(segments),
            summary: Mutex::new(summary),
            open: Mutex::default(),
        });
        ledger
            .inner()
            .catch_up(&|claim, sequence, hash| ledger.sign(claim, sequence, hash))?;
        for (opening, record) in still_open {
            let interrupted = Record {
                event: Event::Interrupted,
                opening,
                ..record
            };
            ledger.append(interrupted, None)?;
        }
        Ok(ledger)
    }

    fn inner(&self) -> MutexGuard<'_, Segments> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record, durably, and signs the new head. Returns its number. `counts` are those of a connection that
    /// this record opens.
    fn append(&self, record: Record, counts: Option<&Arc<Counts>>) -> Result<u64, LedgerError> {
        let mut inner = self.inner();
        let before = inner.newest().0;
        let result = inner.append(record.clone(), &|claim, sequence, hash| {
            self.sign(claim, sequence, hash)
        });
        let sequence = inner.newest().0;
        if sequence > before {
            // It is on the disk, also if what comes after that failed. In one moment, so that a connection is in one of
            // both places: it is never counted twice, nor missing.
            let (mut summary, mut open) = (self.summary(), self.open_now());
            open.remove(&record.opening);
            summary.add(&record);
            let opened = Record { sequence, ..record };
            open.extend(counts.map(|counts| (sequence, (opened, Arc::clone(counts)))));
        }
        result
    }

    fn open_now(&self) -> MutexGuard<'_, BTreeMap<u64, (Record, Arc<Counts>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn summary(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went over the connections of the last weeks, by the hour. Reads no disk.
    pub fn summarise(&self) -> LedgerSummaryView {
        let now = self.clock.now();
        let summary = self.summary();
        let open = self.open_now();
        let closed_now = open
            .iter()
            .map(|(opening, (record, counts))| record.closed(*opening, now, counts));
        summary.view(now, &closed_now.collect::<Vec<Record>>())
    }

    fn sign(&self, claim: Claim, sequence: u64, hash: [u8; 32]) -> SignedLedgerHead {
        let time = self.clock.now();
        let head = LedgerHead {
            version: LEDGER_VERSION,
            device: self.device,
            sequence,
            hash,
            time,
        };
        SignedLedgerHead::sign(claim, &head, self.signing.ed25519())
    }

    /// Writes that a connection is about to be opened. When this returns, the record is durable.
    pub fn begin(self: &Arc<Self>, opening: &Opening) -> Result<OpenLine, LedgerError> {
        let record = Record::opened(self.clock.now(), opening);
        let counts = Arc::new(Counts::new());
        let sequence = self.append(record.clone(), Some(&counts))?;
        Ok(OpenLine::new(Arc::clone(self), sequence, record, counts))
    }

    /// Writes that something was detected that must not be. `sentence` is cut to
    /// [`ALARM_MAX_BYTES`]; it must hold no secret and no name of a file.
    pub fn alarm(&self, sentence: &str) -> Result<(), LedgerError> {
        let mut end = sentence.len().min(ALARM_MAX_BYTES);
        while !sentence.is_char_boundary(end) {
            end -= 1;
        }
        let alarm = Record::alarm(self.clock.now(), sentence[..end].to_owned());
        self.append(alarm, None).map(|_| ())
    }

    /// Tells every line that was opened at or after `since_ms`, in the order in which they ended;
    /// those that are open now come last. Reads the segments that may hold such lines, one by one: whoever is told
    /// may be slow, and stops nobody from opening a connection.
    pub fn lines(
        &self,
        since_ms: Option<i64>,
        tell: &mut dyn FnMut(LedgerLineView),
    ) -> Result<(), LedgerError> {
        let mut to_the_end = |line| {
            tell(line);
            ControlFlow::Continue(())
        };
        self.lines_until(since_ms, &mut to_the_end).map(drop)
    }

    /// The same, until whoever is told has enough.
    pub fn lines_until(
        &self,
        since_ms: Option<i64>,
        tell: &mut dyn FnMut(LedgerLineView) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LedgerError> {
        let asked = LedgerSelection {
            since_ms,
            ..LedgerSelection::default()
        };
        let mut still_open: BTreeMap<u64, Record> = BTreeMap::new();
        let mut next = 0;
        loop {
            let Some(segment) = self.next_segment(next, &asked, check_head)? else {
                break;
            };
            let mut records = Vec::new();
            // Records may have been added to a segment since a part of it was told.
            let from = next;
            let mut new = |record: Record| {
                if record.sequence >= from {
                    records.push(record);
                }
            };
            next = segment.read(&mut new)? + 1;
            for record in records {
                match record.event {
                    Event::Opened => {
                        still_open.insert(record.sequence, record);
                        continue;
                    }
                    Event::Closed | Event::Interrupted => {
                        still_open.remove(&record.opening);
                    }
                    Event::Alarm => {}
                }
                if takes(&asked, &record) && tell(record.view()).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        let mut open = still_open.values().filter(|record| takes(&asked, record));
        Ok(open.try_for_each(|record| tell(record.view())))
    }

    /// The newest lines that are asked for, the newest first: those that are open now, then those that ended, from the
    /// record `before` backwards. At most `most` (and [`NEWEST_MAX`]), and always all that are open. Reads no more segments
    /// than it takes to find them.
    pub fn newest(
        &self,
        asked: &LedgerSelection,
        before: Option<u64>,
        most: usize,
    ) -> Result<LedgerPageView, LedgerError> {
        let most = most.min(NEWEST_MAX);
        let mut page = LedgerPageView::default();
        // Those that end while this reads are told once.
        let mut told_open = BTreeSet::new();
        if before.is_none() {
            let inner = self.inner();
            check_head(&inner)?;
            let open = self.open_now();
            for (opening, (record, _)) in open.iter().rev() {
                if takes(asked, record) {
                    told_open.insert(*opening);
                    page.lines.push(record.view());
                }
            }
        }
        let mut end = before.unwrap_or(u64::MAX);
        loop {
            let Some(segment) = self.last_segment(end, asked)? else {
                break;
            };
            let first = segment.first;
            let mut found = Vec::new();
            segment.read(&mut |record| {
                let is_over = record.event != Event::Opened && record.sequence < end;
                let is_new = is_over && !told_open.contains(&record.opening);
                if is_new && takes(asked, &record) {
                    found.push(record);
                }
            })?;
            for record in found.iter().rev() {
                page.older_before = Some(record.sequence + 1);
                if page.lines.len() >= most {
                    return Ok(page);
                }
                page.lines.push(record.view());
            }
            end = first;
        }
        page.older_before = None;
        Ok(page)
    }

    /// Reads and checks everything: seals, numbers, hashes, the names of the files, the checkpoint and the signed head.
    pub fn verify(&self) -> Result<LedgerVerifiedView, LedgerError> {
        let everything = LedgerSelection::default();
        let (mut lines, mut next) = (0, 0);
        let mut head = String::new();
        let mut at_end = |inner: &Segments| {
            head = to_hex(&inner.newest().1);
            check_head(inner)?;
            inner.check_files()
        };
        while let Some(segment) = self.next_segment(next, &everything, &mut at_end)? {
            let from = next;
            let mut count = |record: Record| {
                let begins = matches!(record.event, Event::Opened | Event::Alarm);
                // Records may have been added to a segment since it was read.
                lines += u64::from(begins && record.sequence >= from);
            };
            next = segment.read(&mut count)? + 1;
        }
        Ok(LedgerVerifiedView { lines, head })
    }

    /// The oldest segment with this record or a later one that may hold what is asked for; if there is none, what `at_end` says of
    /// all of them in the same moment. Connections go on while the segment is read.
    fn next_segment(
        &self,
        from: u64,
        asked: &LedgerSelection,
        at_end: impl FnOnce(&Segments) -> Result<(), LedgerError>,
    ) -> Result<Option<Segment>, LedgerError> {
        let inner = self.inner();
        match inner.next_with(from, asked) {
            Some(place) => inner.segment(place).map(Some),
            None => at_end(&inner).map(|()| None),
        }
    }

    /// The same backwards: the newest one that has a record before `before`.
    fn last_segment(
        &self,
        before: u64,
        asked: &LedgerSelection,
    ) -> Result<Option<Segment>, LedgerError> {
        let inner = self.inner();
        let place = inner.last_with(before, asked);
        place.map(|place| inner.segment(place)).transpose()
    }
}

/// Compares what this process wrote last with the signature on the disk.
fn check_head(inner: &Segments) -> Result<(), LedgerError> {
    let (sequence, hash) = inner.newest();
    match inner.signed_head()? {
        Some(head) if head.sequence == sequence && head.hash == hash => Ok(()),
        None if sequence == 0 => Ok(()),
        _ => Err(LedgerError::Signature),
    }
}

/// Whether a line is asked for.
fn takes(asked: &LedgerSelection, record: &Record) -> bool {
    let way = (record.service.as_str(), record.destination());
    fits(asked, record.opened_at, Some(way))
}

/// Whether a line is asked for that begins at this time and goes this way: its service and its destination, if they are known.
fn fits(asked: &LedgerSelection, opened_at: Millis, way: Option<(&str, &str)>) -> bool {
    asked.since_ms.is_none_or(|since| opened_at.0 >= since)
        && way.is_none_or(|(service, to)| {
            let is_service = |wanted: &String| wanted == service;
            let is_there = |part: &String| to.contains(part.as_str());
            asked.service.as_ref().is_none_or(is_service)
                && asked.destination.as_ref().is_none_or(is_there)
        })
}

#[cfg(any(test, fuzzing))]
pub(crate) mod noise;
#[cfg(test)]
mod tests;
