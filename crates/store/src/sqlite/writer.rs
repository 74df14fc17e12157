//! The one writer: a thread that gathers the writes that wait, runs them in one transaction, makes
//! that durable once, and then answers all of them.
//!
//! Each write runs under a savepoint of its own, so that one that is refused leaves nothing behind
//! and does not touch its neighbours. Only a fault of the engine that ends the whole transaction (a
//! full disk, say) is told to all of them; then none of them happened.

use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::checkpoints::Checkpoints;
use super::fault::engine_fault;
use super::nonces;
use crate::records::{NonceUse, RecordsError};

/// Most writes in one transaction. Beyond this the sync is long paid for, and the first of them
/// would wait for the last.
const GROUP_MAX_WRITES: usize = 256;

/// Most writes that wait for the writer. Whoever comes then waits for a place.
const QUEUE_MAX_WRITES: usize = 2 * GROUP_MAX_WRITES;

const ACTION: &str = "write";

/// A write that waits.
trait Job: Send {
    /// Runs it within the open transaction.
    fn apply(&mut self, connection: &Connection);
    /// Answers, once it is known how the transaction ended.
    fn answer(self: Box<Self>, committed: Result<(), RecordsError>);
    /// The fault that it met, if it met one.
    fn fault(&self) -> Option<&RecordsError>;
}

struct Write<T, F> {
    nonce: Option<NonceUse>,
    work: Option<F>,
    outcome: Result<T, RecordsError>,
    reply: oneshot::Sender<Result<T, RecordsError>>,
}

impl<T, F> Job for Write<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, RecordsError> + Send,
{
    fn apply(&mut self, connection: &Connection) {
        if let Some(work) = self.work.take() {
            self.outcome = spend(connection, self.nonce.as_ref())
                .and_then(|()| under_savepoint(connection, work));
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), RecordsError>) {
        // Whoever asked may have gone: the write stands all the same.
        let _ = self.reply.send(committed.and(self.outcome));
    }

    fn fault(&self) -> Option<&RecordsError> {
        self.outcome.as_ref().err()
    }
}

/// Sends writes to the thread. When it is dropped, the thread finishes what waits, and ends.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl core::fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Job")
    }
}

impl Writer {
    /// Starts the thread over its connection, and one `beside` it that moves what it wrote into the database.
    pub(crate) fn start(mut connection: Connection, beside: Connection) -> std::io::Result<Self> {
        let checkpoints =
            Checkpoints::start(beside, &mut connection).map_err(std::io::Error::other)?;
        let (queue, waiting) = mpsc::channel(QUEUE_MAX_WRITES);
        let thread = thread::Builder::new()
            .name(String::from("records-writer"))
            .spawn(move || serve(&connection, waiting, checkpoints))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Runs `work` in the next group and returns when that is durable. The nonce is spent even if
    /// `work` refuses.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        nonce: Option<NonceUse>,
        work: impl FnOnce(&Connection) -> Result<T, RecordsError> + Send + 'static,
    ) -> Result<T, RecordsError> {
        let (reply, answer) = oneshot::channel();
        let job = Write {
            nonce,
            work: Some(work),
            outcome: Err(RecordsError::Closed),
            reply,
        };
        let queue = self.queue.as_ref().ok_or(RecordsError::Closed)?;
        queue
            .send(Box::new(job))
            .await
            .map_err(|_| RecordsError::Closed)?;
        answer.await.map_err(|_| RecordsError::Closed)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been answered as `Closed` to those who waited.
            let _ = thread.join();
        }
    }
}

fn serve(
    connection: &Connection,
    mut waiting: mpsc::Receiver<Box<dyn Job>>,
    mut checkpoints: Checkpoints,
) {
    let mut group = Vec::with_capacity(GROUP_MAX_WRITES);
    while waiting.blocking_recv_many(&mut group, GROUP_MAX_WRITES) > 0 {
        let committed = run_group(connection, &mut group);
        if committed.is_err() && !connection.is_autocommit() {
            // Nothing can be done about a rollback that fails; the next BEGIN will say so.
            let _ = run(connection, "ROLLBACK");
        }
        for job in group.drain(..) {
            job.answer(committed.clone());
        }
        checkpoints.committed(connection);
    }
}

/// Runs all jobs in one transaction. On an error, none of them happened, or it is not known.
fn run_group(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), RecordsError> {
    run(connection, "BEGIN IMMEDIATE")?;
    for job in group {
        job.apply(connection);
        if connection.is_autocommit() {
            // The engine has ended the transaction by itself, with all that was in it.
            return Err(job.fault().cloned().unwrap_or(RecordsError::Closed));
        }
    }
    run(connection, "COMMIT")
}

fn spend(connection: &Connection, nonce: Option<&NonceUse>) -> Result<(), RecordsError> {
    match nonce {
        Some(nonce) if !nonces::insert(connection, nonce)? => Err(RecordsError::Replayed),
        _ => Ok(()),
    }
}

fn under_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, RecordsError>,
) -> Result<T, RecordsError> {
    run(connection, "SAVEPOINT one_write")?;
    let outcome = work(connection);
    if outcome.is_err() && !connection.is_autocommit() {
        run(connection, "ROLLBACK TO one_write")?;
    }
    if !connection.is_autocommit() {
        run(connection, "RELEASE one_write")?;
    }
    outcome
}

fn run(connection: &Connection, statement: &str) -> Result<(), RecordsError> {
    connection
        .prepare_cached(statement)
        .and_then(|mut prepared| prepared.execute([]))
        .map(|_| ())
        .map_err(|source| engine_fault(ACTION, source))
}
