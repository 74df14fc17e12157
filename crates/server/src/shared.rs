//! What every request of one cell shares.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use candor_store::{
    Erasures, Links, LogFiles, LogRecords, ObjectKey, ObjectState, Objects, Records, Store,
};
use candor_wire::api::CellDescription;
use candor_wire::cbor;
use candor_wire::cell::{
    Acknowledgement, CELL_FORMAT_VERSION, CellKeyring, SignedAcknowledgement, authority,
};
use candor_wire::erasure::{Erasure, SignedErasure};
use candor_wire::ids::{AccountId, DeviceId, Link, StatementId};
use candor_wire::sign::{Ed25519Public, Ed25519Secret};
use candor_wire::time::Millis;
use tokio::sync::Semaphore;

use crate::cell::CellOptions;
use crate::clock::Clock;
use crate::config::CellConfig;
use crate::keys::CellKeyFiles;
use crate::log::{Cause, Event, Field, Log};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::shares::Shares;
use crate::transparency::{AboutCell, Signer, Transparency, TransparencyParts};
use crate::turns::Turns;
use crate::views::Views;
use crate::waiting::Waiters;
use crate::work::Work;

/// How many objects can be put in place or taken away at once. Many more than uploads at one time,
/// so that two of them seldom wait for each other.
const OBJECT_STRIPES: usize = 256;

/// How many accounts at least can upload at one time, whatever some of them do.
const UPLOADERS_MIN: usize = 3;

/// How many accounts at least can send messages at one time.
const WRITERS_MIN: usize = 8;

/// How long a device whose revocation was tried changes nothing, in milliseconds: the next try comes well before.
const HOLD_MS: i64 = 30_000;

/// Requests at one time whose body is read before it is known who calls. Each holds up to 1 MiB.
const STRANGERS_MAX: usize = 16;

/// What a cell stores into.
pub(crate) struct Ports {
    pub(crate) records: Arc<dyn Records>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) erasures: Arc<dyn Erasures>,
    pub(crate) links: Arc<dyn Links>,
    pub(crate) log_records: Arc<dyn LogRecords>,
    pub(crate) log_files: Arc<dyn LogFiles>,
    // Holds the lock on the directory for as long as anybody can write to it.
    pub(crate) store: Store,
}

impl Ports {
    pub(crate) fn of(store: Store) -> Self {
        Self {
            records: store.records(),
            objects: store.objects(),
            erasures: store.erasures(),
            links: store.links(),
            log_records: store.log_records(),
            log_files: store.log_files(),
            store,
        }
    }
}

pub(crate) struct Shared {
    pub(crate) config: CellConfig,
    pub(crate) root: Ed25519Public,
    pub(crate) keyring: CellKeyring,
    /// The reply to whoever asks for the cell's keys; the same for everybody.
    pub(crate) description: Bytes,
    /// What requests to this cell are signed for, whatever host they were sent to.
    pub(crate) authority: String,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) erasures: Arc<dyn Erasures>,
    pub(crate) links: Arc<dyn Links>,
    pub(crate) views: Views,
    /// Requests that wait for a head to move.
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
    pub(crate) uploads: Arc<Semaphore>,
    /// What one account may have of [`Self::uploads`].
    pub(crate) upload_shares: Shares<AccountId>,
    /// What one account gets in a second.
    pub(crate) pace: Arc<Pace>,
    /// Uploads of one account that has to wait for its steps: each keeps a place for long, and more of them get no further.
    pub(crate) paced_uploads: Shares<AccountId>,
    /// Requests of one device, or of one account's root key, at one time: a device that is in other hands does not
    /// stand in the way of the others.
    pub(crate) request_shares: Shares<(AccountId, Option<DeviceId>)>,
    /// What one account has the cell do at one time.
    pub(crate) work: Work,
    /// Whose connection goes on next.
    pub(crate) turns: Arc<Turns>,
    /// What one account may have of [`Self::messages`].
    pub(crate) message_shares: Shares<AccountId>,
    pub(crate) messages: Semaphore,
    /// Apart from [`Self::messages`]: no stranger stands in the way of an account.
    pub(crate) strangers: Semaphore,
    pub(crate) keys: CellKeyFiles,
    pub(crate) transparency: Transparency,
    /// Devices that somebody is trying to revoke, and until when they change nothing.
    on_hold: std::sync::Mutex<HashMap<(AccountId, DeviceId), Millis>>,
    acknowledgement: Ed25519Secret,
    stopping: AtomicBool,
    object_stripes: Vec<tokio::sync::Mutex<()>>,
    _store: Store,
}

/// Where a statement stands, for its acknowledgement.
pub(crate) struct Place {
    pub(crate) account: AccountId,
    pub(crate) sequence: u64,
    pub(crate) link: Link,
    pub(crate) statement: StatementId,
}

impl Shared {
    pub(crate) fn new(
        ports: Ports,
        keys: CellKeyFiles,
        keyring: CellKeyring,
        description: &CellDescription,
        config: CellConfig,
        options: CellOptions,
        signer: Signer,
    ) -> Self {
        let transparency = Transparency::new(TransparencyParts {
            records: ports.log_records,
            files: ports.log_files,
            clock: Arc::clone(&options.clock),
            settings: config.log.clone(),
            witnesses: config.log.witness_list(),
            signer,
            about: AboutCell {
                controller: config.controller.clone(),
                region: config.region.clone(),
            },
            padding_secret: keys.log.derive("candor 2026 padding of the log v1"),
        });
        let most = usize::try_from(config.limits.waits_max).unwrap_or(1);
        let waiters = Arc::new(Waiters::new(most));
        // As many as a runtime has threads.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = Turns::new(threads);
        let permits = |count: u32| Semaphore::new(usize::try_from(count).unwrap_or(1));
        Self {
            root: keys.root.secret().public(),
            description: cbor::encode(description).into(),
            authority: authority(&keyring.cell()),
            keyring,
            records: ports.records,
            objects: ports.objects,
            erasures: ports.erasures,
            links: ports.links,
            views: Views::new(),
            clock: options.clock,
            log: options.log,
            metrics: Metrics::new(Arc::clone(&waiters)),
            waiters,
            uploads: Arc::new(permits(config.limits.uploads_max)),
            upload_shares: Shares::new(config.limits.uploads_max as usize / UPLOADERS_MIN),
            pace: Arc::new(Pace::new(config.limits.steps_per_second_max)),
            paced_uploads: Shares::new(1),
            request_shares: Shares::new(config.limits.requests_per_device_max as usize),
            work: Work::new(Arc::clone(&turns)),
            turns,
            message_shares: Shares::new(config.limits.messages_max as usize / WRITERS_MIN),
            messages: permits(config.limits.messages_max),
            strangers: Semaphore::new(STRANGERS_MAX),
            on_hold: std::sync::Mutex::default(),
            acknowledgement: keys.acknowledgement.secret(),
            keys,
            transparency,
            stopping: AtomicBool::new(false),
            object_stripes: (0..OBJECT_STRIPES)
                .map(|_| tokio::sync::Mutex::new(()))
                .collect(),
            config,
            _store: ports.store,
        }
    }

    /// What is below the ports.
    #[cfg(test)]
    pub(crate) const fn store(&self) -> &Store {
        &self._store
    }

    #[cfg(test)]
    pub(crate) fn log_records(&self) -> Arc<dyn candor_store::LogRecords> {
        self._store.log_records()
    }

    #[cfg(test)]
    pub(crate) fn log_files(&self) -> Arc<dyn candor_store::LogFiles> {
        self._store.log_files()
    }

    /// Signs an acknowledgement. It may leave the cell only once the statement is durable.
    pub(crate) fn acknowledge(&self, place: &Place, time: Millis) -> SignedAcknowledgement {
        let acknowledgement = Acknowledgement {
            version: CELL_FORMAT_VERSION,
            cell: self.keyring.cell(),
            serial: self.keyring.current().serial,
            account: place.account,
            sequence: place.sequence,
            link: place.link,
            statement: place.statement,
            time,
        };
        SignedAcknowledgement::sign(&acknowledgement, &self.acknowledgement)
    }

    /// Signs a receipt. It may leave the cell only once everything that it names is gone, durably.
    pub(crate) fn sign_erasure(&self, erasure: &Erasure) -> SignedErasure {
        SignedErasure::sign(erasure, &self.acknowledgement)
    }

    fn on_hold(&self) -> std::sync::MutexGuard<'_, HashMap<(AccountId, DeviceId), Millis>> {
        // The map is never left half changed.
        self.on_hold
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// For a while these devices move no head, and state nothing but revocations.
    pub(crate) fn hold_devices(&self, account: AccountId, devices: &[DeviceId], now: Millis) {
        if devices.is_empty() {
            return;
        }
        let until = now.plus_ms(HOLD_MS);
        let mut held = self.on_hold();
        held.retain(|_, until| *until > now);
        held.extend(devices.iter().map(|device| ((account, *device), until)));
    }

    /// Whether a device is held.
    pub(crate) fn is_held(&self, account: &AccountId, device: &DeviceId, now: Millis) -> bool {
        let held = self.on_hold();
        held.get(&(*account, *device))
            .is_some_and(|until| *until > now)
    }

    /// Whoever puts an object in place, or takes it away, holds this.
    pub(crate) async fn hold_object(&self, key: &ObjectKey) -> tokio::sync::MutexGuard<'_, ()> {
        self.object_stripes[usize::from(key.object.as_bytes()[0]) % OBJECT_STRIPES]
            .lock()
            .await
    }

    /// Removes an object that the records let go, and tells whether it is gone. Any other object is
    /// left alone: since it was let go it may have been sent again.
    pub(crate) async fn take_away(&self, key: ObjectKey) -> bool {
        let _held = self.hold_object(&key).await;
        let entry = self.records.object(key).await;
        let let_go = matches!(entry, Ok(Some(entry)) if entry.state == ObjectState::Releasing);
        let_go
            && self.objects.delete(key).await.is_ok()
            && self.records.finish_release(vec![key]).await.is_ok()
    }

    /// Writes down a failure that is not the caller's doing.
    pub(crate) fn fault(&self, cause: Cause) {
        self.metrics.faults.fetch_add(1, Ordering::Relaxed);
        self.log
            .line(self.clock.now(), Event::Fault, &[(Field::Cause, &cause)]);
    }

    /// From now on the cell says that it is not ready, also to whoever waits.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.waiters.stop();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
