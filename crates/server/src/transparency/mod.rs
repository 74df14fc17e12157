//! The cell's transparency log: entries get their place, tiles are written, checkpoints are signed,
//! witnessed and published. What the log is and how it is checked is `candor_log`'s; this is the part
//! that has a disk and a clock.
//!
//! 1. Whoever appends to a chain queues the entry in the same commit ([`candor_store::log`]).
//! 2. [`Sequencer::round`] closes a batch: what is queued, padding ([`padding`]) and, when accounts
//!    changed, the root of the next version of the state map ([`maps`]) get their places.
//! 3. The same round writes the tiles and bundles of the batch, and moves the tree once they are
//!    durable. A round that was cut is finished by the next one, in this process or another.
//! 4. [`publish`] signs the new head ([`signer`]), asks the witnesses, and publishes the checkpoint.
//!
//! A failure anywhere leaves the earlier checkpoint in place, and statements stay queued: nothing that
//! was acknowledged is lost.

mod maps;
mod padding;
mod publish;
mod report;
mod sequencer;
pub(crate) mod signer;
mod source;
mod witnesses;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use candor_log::checkpoint::SignedCheckpoint;
use candor_log::state_map::StateMap;
use candor_log::tile::TileError;
use candor_store::log::LOG_BATCH_MAX_ENTRIES;
use candor_store::{LogFiles, LogFilesError, LogRecords, RecordsError};
use candor_wire::Millis;
use tokio::sync::{Notify, watch};

pub(crate) use report::AboutCell;
pub(crate) use signer::Signer;
pub(crate) use witnesses::Witness;

use crate::clock::Clock;
use crate::config::LogSettings;
use crate::log::Cause;
use crate::random::NoRandomness;
use crate::shared::Shared;
use sequencer::Sequencer;
#[cfg(test)]
pub(crate) use sequencer::UNPUBLISHED_MAX;
#[cfg(test)]
pub(crate) use source::PublishedFiles;
use source::SourceError;

/// How long a batch stays open at most: what an acknowledgement promises.
pub(crate) const BATCH_OPEN: Duration = Duration::from_secs(1);

/// How long the log rests after a failure: long enough not to fill the cell's own log with it.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// How long a device waits for its newest state to be published before it is told to come again.
pub(crate) const PUBLISHED_WAIT: Duration = Duration::from_secs(10);

/// The newest checkpoint.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";

/// The transparency report, for people.
pub(crate) const REPORT_TEXT_FILE: &str = "report.txt";

/// The same for programs.
pub(crate) const REPORT_JSON_FILE: &str = "report.json";

/// The page about the log, for people.
pub(crate) const PAGE_FILE: &str = "index.html";

/// Why the log did not move. Nothing is lost: it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogFault {
    #[error("the log's bookkeeping failed")]
    Records(#[source] RecordsError),
    #[error("the log's files failed")]
    Files(#[source] LogFilesError),
    #[error("what is stored of the log does not fit together: {0}")]
    Damaged(&'static str),
    #[error("the checkpoint was not signed")]
    Signer(#[source] signer::SignerError),
    #[error("no random bytes for padding")]
    Randomness(#[source] NoRandomness),
    #[error("a task of the log ended")]
    Task,
}

impl From<RecordsError> for LogFault {
    fn from(source: RecordsError) -> Self {
        Self::Records(source)
    }
}

impl From<LogFilesError> for LogFault {
    fn from(source: LogFilesError) -> Self {
        Self::Files(source)
    }
}

impl LogFault {
    /// Tiles that cannot be read now are not damaged.
    fn of_tiles(error: TileError<SourceError>) -> Self {
        match error {
            TileError::Source(SourceError::Files(source)) => Self::Files(source),
            _ => Self::Damaged("the log's tiles do not have the tree's root"),
        }
    }

    /// For the cell's own log, which names parts and no details.
    pub(crate) const fn cause(&self) -> Cause {
        match self {
            Self::Records(_) => Cause::LogRecords,
            Self::Files(_) => Cause::LogFiles,
            Self::Damaged(_) => Cause::LogDamaged,
            Self::Signer(_) => Cause::LogSigner,
            Self::Randomness(_) => Cause::LogRandomness,
            Self::Task => Cause::Task,
        }
    }
}

/// What everybody can read now.
#[derive(Clone, Default)]
pub(crate) struct Published {
    /// The newest checkpoint; `None` before the first.
    pub(crate) checkpoint: Option<SignedCheckpoint>,
    /// The newest version of the state map whose entry is in that checkpoint's tree.
    pub(crate) map: Option<PublishedMap>,
}

/// A version of the state map.
#[derive(Clone)]
pub(crate) struct PublishedMap {
    pub(crate) version: u64,
    /// Place of the entry with its root.
    pub(crate) place: u64,
    pub(crate) map: StateMap,
}

/// The log of one cell.
pub(crate) struct Transparency {
    records: Arc<dyn LogRecords>,
    files: Arc<dyn LogFiles>,
    clock: Arc<dyn Clock>,
    settings: LogSettings,
    witnesses: Vec<Witness>,
    signer: Mutex<Signer>,
    /// Whether the signer signed since the start: then the database is not older than what was signed before.
    has_signed: AtomicBool,
    sequencer: tokio::sync::Mutex<Sequencer>,
    queue: Arc<Queue>,
    /// The tree moved.
    moved: Arc<Notify>,
    /// Maps whose entries may not be published yet.
    unpublished: Mutex<Vec<PublishedMap>>,
    published: watch::Sender<Published>,
    about: AboutCell,
    counted: tokio::sync::Mutex<report::Counted>,
    /// Whoever publishes holds this: an older head never overtakes a newer one.
    publishing: tokio::sync::Mutex<()>,
    /// Up to this size the tree has whole tiles only.
    tidied: AtomicU64,
}

/// What a [`Transparency`] is made of.
pub(crate) struct TransparencyParts {
    pub(crate) records: Arc<dyn LogRecords>,
    pub(crate) files: Arc<dyn LogFiles>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: LogSettings,
    pub(crate) witnesses: Vec<Witness>,
    pub(crate) signer: Signer,
    pub(crate) padding_secret: [u8; 32],
    pub(crate) about: AboutCell,
}

impl Transparency {
    pub(crate) fn new(parts: TransparencyParts) -> Self {
        Self {
            sequencer: tokio::sync::Mutex::new(Sequencer::new(
                &parts.settings,
                parts.padding_secret,
            )),
            records: parts.records,
            files: parts.files,
            clock: parts.clock,
            settings: parts.settings,
            witnesses: parts.witnesses,
            signer: Mutex::new(parts.signer),
            has_signed: AtomicBool::new(false),
            queue: Arc::default(),
            moved: Arc::default(),
            unpublished: Mutex::default(),
            published: watch::Sender::new(Published::default()),
            about: parts.about,
            counted: tokio::sync::Mutex::default(),
            publishing: tokio::sync::Mutex::default(),
            tidied: AtomicU64::default(),
        }
    }

    /// Where to tell that something was queued.
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What everybody can read now.
    pub(crate) fn published(&self) -> Published {
        self.published.borrow().clone()
    }

    /// The published map, once it is of this version or a newer one. `None` when that takes too long.
    pub(crate) async fn published_map(&self, version: u64) -> Option<PublishedMap> {
        let mut published = self.published.subscribe();
        let has = |published: &Published| {
            let map = published.map.as_ref();
            map.filter(|map| map.version >= version).cloned()
        };
        let waiting = async {
            loop {
                if let Some(map) = has(&published.borrow_and_update()) {
                    return Some(map);
                }
                published.changed().await.ok()?;
            }
        };
        tokio::time::timeout(PUBLISHED_WAIT, waiting).await.ok()?
    }

    /// Closes one batch and publishes nothing.
    #[cfg(test)]
    pub(crate) async fn close(&self) -> Result<(), LogFault> {
        self.sequencer.lock().await.round(self).await.map(drop)
    }

    /// Keeps everybody from publishing.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.publishing.lock().await
    }

    /// How many wait for a map to be published.
    #[cfg(test)]
    pub(crate) fn waiting_for_a_map(&self) -> usize {
        self.published.receiver_count()
    }

    /// How many maps wait for their publication.
    #[cfg(test)]
    pub(crate) fn waiting_maps(&self) -> usize {
        self.unpublished().len()
    }

    /// To see what is published from now on.
    #[cfg(test)]
    pub(crate) fn subscribe(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// Closes one batch and publishes it. Returns whether anything moved.
    #[cfg(test)]
    pub(crate) async fn step(&self) -> Result<bool, LogFault> {
        let round = self.sequencer.lock().await.round(self).await?;
        let published = self.publish().await?;
        Ok(round.moved || published)
    }

    /// A published file, by its name.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<bytes::Bytes>, LogFilesError> {
        source::read_file(self.files.as_ref(), name.to_owned()).await
    }

    /// An account's row of the state map.
    pub(crate) async fn map_row(
        &self,
        account: candor_wire::AccountId,
    ) -> Result<Option<candor_store::log::MapRow>, RecordsError> {
        self.records.map_row(account).await
    }

    /// Whether it is known that the database was not put back to an older state.
    pub(crate) fn is_current(&self) -> bool {
        self.has_signed.load(Ordering::Relaxed)
    }

    fn signer(&self) -> std::sync::MutexGuard<'_, Signer> {
        // What the signer remembers is written to its file before it changes here.
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpublished(&self) -> std::sync::MutexGuard<'_, Vec<PublishedMap>> {
        // A list of whole versions is one whatever stopped a thread.
        self.unpublished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }
}

/// Tells the sequencer that a batch is full.
#[derive(Default)]
pub(crate) struct Queue {
    entries: AtomicUsize,
    full: Notify,
    #[cfg(test)]
    waits: AtomicUsize,
}

impl Queue {
    /// Something was queued.
    pub(crate) fn added(&self, entries: usize) {
        let before = self.entries.fetch_add(entries, Ordering::Relaxed);
        if before + entries >= LOG_BATCH_MAX_ENTRIES {
            self.full.notify_one();
        }
    }

    /// Until the next batch closes: when it is full, and at least once in a second.
    async fn wait(&self) {
        #[cfg(test)]
        self.waits.fetch_add(1, Ordering::SeqCst);
        let _ = tokio::time::timeout(BATCH_OPEN, self.full.notified()).await;
        self.entries.store(0, Ordering::Relaxed);
    }

    /// How often somebody waited.
    #[cfg(test)]
    pub(crate) fn waits(&self) -> usize {
        self.waits.load(Ordering::SeqCst)
    }
}

/// Starts the tasks of the log: one sequences, one publishes, so that a slow witness never keeps an
/// entry from its place. They end when the cell is dropped.
pub(crate) fn start(shared: &Arc<Shared>) {
    tokio::spawn(sequence(Arc::downgrade(shared)));
    tokio::spawn(publish(Arc::downgrade(shared)));
}

async fn sequence(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let log = &strong.transparency;
        let round = log.sequencer.lock().await.round(log).await;
        if round.as_ref().is_ok_and(|round| round.moved) {
            log.moved.notify_one();
        }
        if let Err(fault) = &round {
            strong.fault(fault.cause());
        }
        let queue = Arc::clone(&log.queue);
        // Whoever closes the cell meanwhile ends this task after the present round.
        drop(strong);
        match round {
            // What has gathered, while the cell was closed or busy, waits no longer than it must.
            Ok(round) if round.full => tokio::task::yield_now().await,
            Ok(_) => queue.wait().await,
            Err(_) => tokio::time::sleep(FAILED_PAUSE).await,
        }
    }
}

async fn publish(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let failed = match strong.transparency.publish().await {
            Ok(_) => false,
            Err(fault) => {
                strong.fault(fault.cause());
                true
            }
        };
        let moved = Arc::clone(&strong.transparency.moved);
        drop(strong);
        let pause = if failed { FAILED_PAUSE } else { BATCH_OPEN };
        let _ = tokio::time::timeout(pause, moved.notified()).await;
    }
}
