//! The threads behind a [`crate::Writer`]: compress, pack and seal, send.
//!
//! Frames go through bounded queues: frames to compress -> compressors (one for each core) ->
//! packer -> senders. So memory is bounded by the queues, one pack's worth of waiting frames for
//! each stream, and the packs in flight; and a slow cell slows the reading of files down. The first
//! failure stops everything; what was acknowledged until then is recorded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;
use candor_wire::ObjectId;
use candor_wire::limits::OBJECT_MAX_BYTES;

use crate::chunk::ChunkId;
use crate::frame::{Codec, Compressor, FRAME_TARGET_BYTES};
use crate::index::Recorder;
use crate::pack::{FIT_SLACK_BYTES, PACK_ROOM_BYTES, PendingFrame, Stream, Table, choose, lay_out};
use crate::pool::{Pool, Pooled};
use crate::ports::ObjectSink;
use crate::seal::{ObjectType, Sealer};
use crate::secret::scrub_stack;
use crate::writer::{UPLOADS_IN_FLIGHT, WriteError};

/// Most compressing threads: beyond this, reading and hashing on one thread is the limit.
const COMPRESSORS_MAX: usize = 8;

/// Bytes of frame buffers kept for reuse: as many as wait for one full pack.
const FRAME_POOL_BYTES: usize = OBJECT_MAX_BYTES + FIT_SLACK_BYTES;

/// Bytes of pack buffers kept for reuse: one being filled, the others in flight.
const PACK_POOL_BYTES: usize = (UPLOADS_IN_FLIGHT + 1) * OBJECT_MAX_BYTES;

/// Frames that the caller closed and nobody compressed yet.
const FRAMES_QUEUED: usize = 2;

/// A frame of plaintext on its way to a compressor.
pub(crate) struct FrameJob {
    pub(crate) stream: Stream,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) chunks: Vec<(ChunkId, u32)>,
}

/// A pack that the cell acknowledged and the index recorded.
pub(crate) struct Acknowledged {
    pub(crate) table: Table,
    pub(crate) stored_bytes: u64,
}

struct SealedPack {
    object: ObjectId,
    bytes: Vec<u8>,
    table: Table,
}

/// What the threads of one run share.
pub(crate) struct Shared {
    stop: AtomicBool,
    failure: Mutex<Option<WriteError>>,
    pub(crate) frames: Arc<Pool>,
    packs: Arc<Pool>,
}

impl Shared {
    /// Stops the run; the first failure is the one that is reported.
    pub(crate) fn fail(&self, error: WriteError) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.stop();
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn failure(&self) -> Option<WriteError> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The running threads. Dropping the sender of jobs lets them finish.
pub(crate) struct Pipeline {
    pub(crate) jobs: SyncSender<FrameJob>,
    pub(crate) acknowledged: Receiver<Acknowledged>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

/// Starts the threads of one run.
pub(crate) fn start(
    sealer: Arc<Sealer>,
    recorder: Recorder,
    sink: Arc<dyn ObjectSink>,
) -> Result<Pipeline, WriteError> {
    let shared = Arc::new(Shared {
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
        frames: Pool::new(FRAME_TARGET_BYTES, FRAME_POOL_BYTES),
        packs: Pool::new(OBJECT_MAX_BYTES, PACK_POOL_BYTES),
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (jobs, job_queue) = sync_channel(FRAMES_QUEUED);
    let (frames, frame_queue) = sync_channel(FRAMES_QUEUED);
    let (sealed, sealed_queue) = sync_channel(0);
    let (done, acknowledged) = channel();
    let mut threads = Vec::new();
    let job_queue = Arc::new(Mutex::new(job_queue));
    for _ in 0..cores.clamp(1, COMPRESSORS_MAX) {
        let (queue, out, shared) = (job_queue.clone(), frames.clone(), shared.clone());
        threads.push(spawn("vault-compress", move || {
            compress(&queue, &out, &shared)
        })?);
    }
    let packer = Packer {
        sealer,
        shared: shared.clone(),
        sealed,
    };
    threads.push(spawn("vault-pack", move || packer.run(&frame_queue))?);
    let sealed_queue = Arc::new(Mutex::new(sealed_queue));
    let recorder = Arc::new(Mutex::new(recorder));
    for _ in 0..sink.puts_at_once().clamp(1, UPLOADS_IN_FLIGHT) {
        let uploader = Uploader {
            sink: sink.clone(),
            recorder: recorder.clone(),
            shared: shared.clone(),
            done: done.clone(),
        };
        let queue = sealed_queue.clone();
        threads.push(spawn("vault-send", move || uploader.run(&queue))?);
    }
    Ok(Pipeline {
        jobs,
        acknowledged,
        shared,
        threads,
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, WriteError> {
    Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            work();
            scrub_stack();
        })
        .map_err(|error| WriteError::Thread(Arc::new(error)))
}

/// The next item of a queue that several threads share. The lock is held while waiting: whoever
/// holds it gets the next item, and the others wait for the lock instead of the queue.
fn next<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .recv()
        .ok()
}

type CompressedFrame = (Stream, PendingFrame);

fn compress(queue: &Mutex<Receiver<FrameJob>>, out: &SyncSender<CompressedFrame>, shared: &Shared) {
    let mut compressor = Compressor::new();
    let mut buffer = Vec::new();
    while let Some(job) = next(queue) {
        if shared.stopped() {
            continue;
        }
        let plaintext = job.plaintext.len() as u32;
        let codec = compressor.compress(&job.plaintext, &mut buffer);
        let stored = match codec {
            Codec::Zstd => {
                shared.frames.give(job.plaintext);
                buffer.as_slice().to_vec()
            }
            Codec::Stored => job.plaintext,
        };
        let frame = PendingFrame {
            codec,
            stored,
            plaintext,
            chunks: job.chunks,
        };
        if out.send((job.stream, frame)).is_err() {
            return;
        }
    }
}

/// Collects frames and makes packs of them.
struct Packer {
    sealer: Arc<Sealer>,
    shared: Arc<Shared>,
    sealed: SyncSender<SealedPack>,
}

#[derive(Default)]
struct Waiting {
    frames: Vec<PendingFrame>,
    cost: usize,
}

impl Packer {
    fn run(self, queue: &Receiver<CompressedFrame>) {
        let mut waiting = [
            (Stream::Data, Waiting::default()),
            (Stream::Tree, Waiting::default()),
        ];
        while let Ok((stream, frame)) = queue.recv() {
            if self.shared.stopped() {
                continue;
            }
            let (stream, waiting) = &mut waiting[stream as usize];
            waiting.cost += frame.cost();
            waiting.frames.push(frame);
            while waiting.cost >= PACK_ROOM_BYTES + FIT_SLACK_BYTES {
                if !self.pack(*stream, waiting) {
                    break;
                }
            }
        }
        for (stream, waiting) in &mut waiting {
            while !waiting.frames.is_empty() && !self.shared.stopped() {
                if !self.pack(*stream, waiting) {
                    break;
                }
            }
        }
    }

    /// Makes one pack of waiting frames and hands it on. Says whether the run goes on.
    fn pack(&self, stream: Stream, waiting: &mut Waiting) -> bool {
        match self.seal(stream, waiting) {
            Ok(pack) => self.sealed.send(pack).is_ok(),
            Err(error) => {
                self.shared.fail(error);
                false
            }
        }
    }

    fn seal(&self, stream: Stream, waiting: &mut Waiting) -> Result<SealedPack, WriteError> {
        let entropy = |error| WriteError::Entropy(Arc::new(error));
        let mut random = [0; 32];
        self.sealer.entropy().fill(&mut random).map_err(entropy)?;
        let costs: Vec<usize> = waiting.frames.iter().map(PendingFrame::cost).collect();
        let order = choose(&costs, &random);
        let mut slots: Vec<Option<PendingFrame>> = std::mem::take(&mut waiting.frames)
            .into_iter()
            .map(Some)
            .collect();
        let chosen: Vec<PendingFrame> = order.iter().filter_map(|&at| slots[at].take()).collect();
        waiting.frames = slots.into_iter().flatten().collect();
        waiting.cost = waiting.frames.iter().map(PendingFrame::cost).sum();
        let reuse = self.shared.packs.take(OBJECT_MAX_BYTES);
        let (buffer, table) = lay_out(stream, &chosen, reuse).ok_or(WriteError::Unpackable)?;
        chosen
            .into_iter()
            .for_each(|frame| self.shared.frames.give(frame.stored));
        // The table holds the keyed hash of every chunk: it differs whenever the content does.
        let fingerprint = blake3::hash(&table.encode());
        let (object, bytes) = self
            .sealer
            .seal(ObjectType::Pack, buffer, fingerprint.as_bytes())
            .map_err(entropy)?;
        Ok(SealedPack {
            object,
            bytes,
            table,
        })
    }
}

/// Sends packs and records what became of them.
struct Uploader {
    sink: Arc<dyn ObjectSink>,
    recorder: Arc<Mutex<Recorder>>,
    shared: Arc<Shared>,
    done: Sender<Acknowledged>,
}

impl Uploader {
    fn run(self, queue: &Mutex<Receiver<SealedPack>>) {
        while let Some(pack) = next(queue) {
            if self.shared.stopped() {
                continue;
            }
            match self.send(pack) {
                // The caller may be gone; what counts is in the index.
                Ok(done) => drop(self.done.send(done)),
                Err(error) => self.shared.fail(error),
            }
        }
    }

    fn send(&self, pack: SealedPack) -> Result<Acknowledged, WriteError> {
        let SealedPack {
            object,
            bytes,
            table,
        } = pack;
        let stored_bytes = bytes.len();
        let index = |error| WriteError::Index(Arc::new(error));
        let number = {
            let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
            recorder
                .pending(object, stored_bytes, &table)
                .map_err(index)?
        };
        let pooled = Pooled {
            buffer: bytes,
            pool: self.shared.packs.clone(),
        };
        self.sink
            .put(object, Bytes::from_owner(pooled))
            .map_err(|error| WriteError::Sink(Arc::new(error)))?;
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        recorder.acknowledged(number).map_err(index)?;
        Ok(Acknowledged {
            table,
            stored_bytes: stored_bytes as u64,
        })
    }
}
