//! Writing chunks: hash, deduplicate, bundle into frames; the rest happens on other threads.
//!
//! One thread calls the writer. What it submits is cut, named and looked up there; new chunks are
//! copied once, into the frame that is being filled. Chunks that are in a frame, but not yet
//! acknowledged, are remembered, so that the run never stores one twice; after the acknowledgement
//! the index knows them. Memory does not grow with what is written.

use std::collections::HashSet;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use crate::chunk::{CHUNK_MAX_BYTES, ChunkId, first_cut};
use crate::entropy::EntropyError;
use crate::frame::{FRAME_MAX_BYTES, FRAME_MAX_CHUNKS, FRAME_TARGET_BYTES};
use crate::index::{Index, IndexError};
use crate::keys::VaultKeys;
use crate::pack::Stream;
use crate::pipeline::{self, FrameJob, Pipeline};
use crate::ports::{ObjectSink, SinkError};
use crate::seal::Sealer;

/// How many objects are sent at the same time: while one waits for the cell's disk, the other's
/// bytes travel.
pub const UPLOADS_IN_FLIGHT: usize = 2;

/// Length of the buffer for content that is being cut, in bytes: the longest chunk, and as much
/// again, so that moving its rest to the front is rare.
const CONTENT_BUFFER_BYTES: usize = 2 * CHUNK_MAX_BYTES;

/// Room that a new frame's buffer has, in bytes: the target and one more file of middling size.
const FRAME_BUFFER_BYTES: usize = FRAME_TARGET_BYTES + FRAME_TARGET_BYTES / 4;

/// Why a run could not go on. What was acknowledged before stays recorded, and the next run does
/// not send it again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The cell did not take an object.
    #[error("an object could not be stored")]
    Sink(#[source] Arc<SinkError>),
    /// The local index failed.
    #[error("the local index failed")]
    Index(#[source] Arc<IndexError>),
    /// The operating system gave no random bytes.
    #[error("an object could not be sealed")]
    Entropy(#[source] Arc<EntropyError>),
    /// A chunk is empty, or longer than chunks may be.
    #[error("a chunk of {bytes} bytes cannot be stored; it has 1 to {limit_bytes}")]
    ChunkLength {
        /// Its length, in bytes.
        bytes: usize,
        /// The longest that is stored, in bytes.
        limit_bytes: usize,
    },
    /// The content could not be read. The run can go on with other content.
    #[error("the content could not be read")]
    Read(#[source] Arc<std::io::Error>),
    /// A thread of the pipeline could not be started.
    #[error("the pipeline could not be started")]
    Thread(#[source] Arc<std::io::Error>),
    /// Frames did not fit the pack they were chosen for; a mistake in this program.
    #[error("frames did not fit a pack")]
    Unpackable,
    /// The caller stopped the run, or the pipeline ended early.
    #[error("the run was stopped")]
    Stopped,
}

/// Content that was cut and submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Its chunks in order, with their lengths in bytes. Empty content has none.
    pub chunks: Vec<(ChunkId, u32)>,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// What a run added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Packs that were stored and acknowledged.
    pub packs: u64,
    /// Sealed bytes of these packs.
    pub bytes_stored: u64,
    /// Chunks that were not stored before.
    pub chunks_new: u64,
    /// Their plaintext bytes.
    pub bytes_new: u64,
}

#[derive(Default)]
struct OpenFrame {
    plaintext: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

/// Stores chunks of one run. Made by [`crate::Repository::writer`]; used by one thread. Dropping it
/// without [`Writer::finish`] stops the run: uploads in flight end, what is acknowledged is kept.
pub struct Writer {
    keys: Arc<VaultKeys>,
    index: Arc<Index>,
    open: [OpenFrame; 2],
    unacknowledged: HashSet<ChunkId>,
    pipeline: Option<Pipeline>,
    written: Written,
    buffer: Vec<u8>,
}

impl Writer {
    pub(crate) fn start(
        index: Arc<Index>,
        sealer: Arc<Sealer>,
        sink: Arc<dyn ObjectSink>,
    ) -> Result<Self, WriteError> {
        let recorder = index
            .recorder()
            .map_err(|error| WriteError::Index(Arc::new(error)))?;
        let keys = sealer.keys().clone();
        Ok(Self {
            keys,
            index,
            open: Default::default(),
            unacknowledged: HashSet::new(),
            pipeline: Some(pipeline::start(sealer, recorder, sink)?),
            written: Written::default(),
            buffer: Vec::new(),
        })
    }

    /// Submits a chunk of 1 to [`CHUNK_MAX_BYTES`] bytes, unless the vault has it. It is durable
    /// after [`Writer::finish`]. Waits when the pipeline is full.
    pub fn chunk(&mut self, stream: Stream, plaintext: &[u8]) -> Result<ChunkId, WriteError> {
        if plaintext.is_empty() || plaintext.len() > CHUNK_MAX_BYTES {
            let bytes = plaintext.len();
            return Err(WriteError::ChunkLength {
                bytes,
                limit_bytes: CHUNK_MAX_BYTES,
            });
        }
        self.collect_acknowledged();
        self.check()?;
        let id = ChunkId::of(&self.keys, plaintext);
        if !self.unacknowledged.contains(&id) && !self.is_known(&id)? {
            self.add(stream, id, plaintext)?;
        }
        Ok(id)
    }

    /// Submits a chunk that the vault has, to be stored once more: the pack that it lies in will go. The caller
    /// has checked that it is what its name says.
    pub(crate) fn copy(
        &mut self,
        stream: Stream,
        id: ChunkId,
        plaintext: &[u8],
    ) -> Result<(), WriteError> {
        self.collect_acknowledged();
        self.check()?;
        if self.unacknowledged.contains(&id) {
            return Ok(());
        }
        self.add(stream, id, plaintext)
    }

    fn add(&mut self, stream: Stream, id: ChunkId, plaintext: &[u8]) -> Result<(), WriteError> {
        let open = &self.open[stream as usize];
        if open.plaintext.len() + plaintext.len() > FRAME_MAX_BYTES {
            self.close_frame(stream)?;
        }
        let open = &mut self.open[stream as usize];
        if open.chunks.is_empty() {
            let room = FRAME_BUFFER_BYTES.max(plaintext.len());
            open.plaintext = self
                .pipeline
                .as_ref()
                .ok_or(WriteError::Stopped)?
                .shared
                .frames
                .take(room);
            open.plaintext.clear();
        }
        open.plaintext.extend_from_slice(plaintext);
        open.chunks.push((id, plaintext.len() as u32));
        self.unacknowledged.insert(id);
        self.written.chunks_new += 1;
        self.written.bytes_new += plaintext.len() as u64;
        if open.plaintext.len() >= FRAME_TARGET_BYTES || open.chunks.len() >= FRAME_MAX_CHUNKS {
            self.close_frame(stream)?;
        }
        Ok(())
    }

    /// Reads to the end, cuts by content and submits every chunk as data. `observer` hears how many
    /// bytes were read since it was last called; when it returns `false`, the answer is
    /// [`WriteError::Stopped`] and the run may go on with other content.
    pub fn content(
        &mut self,
        input: &mut dyn Read,
        observer: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Content, WriteError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer = vec![0; CONTENT_BUFFER_BYTES];
        }
        let content = self.cut(input, observer, &mut buffer);
        self.buffer = buffer;
        content
    }

    fn cut(
        &mut self,
        input: &mut dyn Read,
        observer: &mut dyn FnMut(u64) -> bool,
        buffer: &mut [u8],
    ) -> Result<Content, WriteError> {
        let mut content = Content::default();
        let (mut start, mut end, mut ended) = (0, 0, false);
        loop {
            while !ended && end - start < CHUNK_MAX_BYTES {
                if buffer.len() - start < CHUNK_MAX_BYTES {
                    buffer.copy_within(start..end, 0);
                    (start, end) = (0, end - start);
                }
                match input.read(&mut buffer[end..]) {
                    Ok(0) => ended = true,
                    Ok(count) => {
                        end += count;
                        if !observer(count as u64) {
                            return Err(WriteError::Stopped);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(WriteError::Read(Arc::new(error))),
                }
            }
            if start == end {
                return Ok(content);
            }
            let length = first_cut(&buffer[start..end]);
            let id = self.chunk(Stream::Data, &buffer[start..start + length])?;
            content.chunks.push((id, length as u32));
            content.bytes += length as u64;
            start += length;
        }
    }

    /// What was new so far, and what is acknowledged so far.
    pub fn so_far(&mut self) -> Written {
        self.collect_acknowledged();
        self.written
    }

    /// Sends all that is left, and waits until everything is acknowledged and recorded.
    pub fn finish(mut self) -> Result<Written, WriteError> {
        self.close_frame(Stream::Data)?;
        self.close_frame(Stream::Tree)?;
        let pipeline = self.pipeline.take().ok_or(WriteError::Stopped)?;
        drop(pipeline.jobs);
        let whole = pipeline
            .threads
            .into_iter()
            .all(|thread| thread.join().is_ok());
        if let Some(error) = pipeline.shared.failure() {
            return Err(error);
        }
        while let Ok(done) = pipeline.acknowledged.try_recv() {
            self.written.packs += 1;
            self.written.bytes_stored += done.stored_bytes;
            self.index
                .note(done.table.chunks.iter().map(|chunk| &chunk.id));
        }
        if whole {
            Ok(self.written)
        } else {
            Err(WriteError::Stopped)
        }
    }

    fn is_known(&self, id: &ChunkId) -> Result<bool, WriteError> {
        self.index
            .contains_while_writing(id)
            .map_err(|error| WriteError::Index(Arc::new(error)))
    }

    fn check(&self) -> Result<(), WriteError> {
        match &self.pipeline {
            Some(pipeline) if !pipeline.shared.stopped() => Ok(()),
            Some(pipeline) => Err(pipeline.shared.failure().unwrap_or(WriteError::Stopped)),
            None => Err(WriteError::Stopped),
        }
    }

    /// Forgets chunks that the index knows by now.
    fn collect_acknowledged(&mut self) {
        let Some(pipeline) = &self.pipeline else {
            return;
        };
        while let Ok(done) = pipeline.acknowledged.try_recv() {
            self.written.packs += 1;
            self.written.bytes_stored += done.stored_bytes;
            self.index
                .note(done.table.chunks.iter().map(|chunk| &chunk.id));
            for chunk in &done.table.chunks {
                self.unacknowledged.remove(&chunk.id);
            }
        }
    }

    fn close_frame(&mut self, stream: Stream) -> Result<(), WriteError> {
        let OpenFrame { plaintext, chunks } = std::mem::take(&mut self.open[stream as usize]);
        if chunks.is_empty() {
            return Ok(());
        }
        let pipeline = self.pipeline.as_ref().ok_or(WriteError::Stopped)?;
        pipeline
            .jobs
            .send(FrameJob {
                stream,
                plaintext,
                chunks,
            })
            .map_err(|_| pipeline.shared.failure().unwrap_or(WriteError::Stopped))?;
        self.check()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(pipeline) = self.pipeline.take() else {
            return;
        };
        pipeline.shared.stop();
        drop(pipeline.jobs);
        for thread in pipeline.threads {
            // A thread that panicked has nothing left to tell: the run is being given up anyway.
            let _ = thread.join();
        }
    }
}
