//! Compression frames: the unit of compression within a pack.
//!
//! Small chunks share a frame of about 1 MiB, so that a tree of small files compresses like one
//! stream; a chunk of that size or more has a frame of its own. A frame that does not compress is
//! stored as it is. A frame's plaintext length is known from the pack's authenticated table and is
//! bounded, so a decompression bomb (row 36) can never write more than [`FRAME_MAX_BYTES`].

use std::cell::RefCell;

use crate::chunk::CHUNK_MAX_BYTES;

/// A frame is closed when it holds this much plaintext, in bytes: nearly all of zstd's gain on
/// source text is there, and a restore of one small file decompresses no more than this.
pub const FRAME_TARGET_BYTES: usize = 1024 * 1024;

/// Longest plaintext of a frame, in bytes: the longest chunk. Bounds a reader's memory.
pub const FRAME_MAX_BYTES: usize = CHUNK_MAX_BYTES;

/// Most chunks of one frame: keeps the table of a pack of tiny files small beside its frames.
pub const FRAME_MAX_CHUNKS: usize = 16 * 1024;

/// Compression level: 185 MB/s a core on source text; the levels above cost far more than they save.
pub const ZSTD_LEVEL: i32 = 3;

/// Level of the probe that decides whether compressing is worth the time.
const PROBE_LEVEL: i32 = 1;

/// Frames shorter than this are compressed without a probe, in bytes: the probe would cost as much.
const PROBE_FROM_BYTES: usize = 128 * 1024;

/// Length of each sample of the probe, in bytes.
const PROBE_SAMPLE_BYTES: usize = 4 * 1024;

/// How many samples the probe takes, spread over the frame.
const PROBE_SAMPLES: usize = 4;

/// Share of its plaintext, as one part in so many, that compression must save to be kept: less
/// than that is not worth decompressing.
const WORTHWHILE_SAVING: usize = 32;

/// How a frame is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The plaintext itself.
    Stored = 0,
    /// One zstd frame (RFC 8878) without checksum, content size or dictionary.
    Zstd = 1,
}

impl Codec {
    /// Reads the byte of a pack's table.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Stored),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The stored bytes are not a frame of the promised length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the frame does not decompress to the length that the pack's table promises")]
pub struct FrameError;

/// Compresses frames; owns its contexts, so each thread has one of its own.
pub struct Compressor {
    frame: Option<zstd::bulk::Compressor<'static>>,
    probe: Option<zstd::bulk::Compressor<'static>>,
    sample: Vec<u8>,
    sample_out: Vec<u8>,
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compressor {
    /// Allocates the contexts. Where that fails, frames are stored uncompressed.
    pub fn new() -> Self {
        Self {
            frame: context(ZSTD_LEVEL),
            probe: context(PROBE_LEVEL),
            sample: Vec::with_capacity(PROBE_SAMPLES * PROBE_SAMPLE_BYTES),
            sample_out: Vec::new(),
        }
    }

    /// Compresses into `out` if that pays. With [`Codec::Stored`] the plaintext itself is to be
    /// stored, and the content of `out` is unspecified.
    pub fn compress(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Codec {
        if !self.worth_trying(plaintext) {
            return Codec::Stored;
        }
        let Some(frame) = self.frame.as_mut() else {
            return Codec::Stored;
        };
        out.clear();
        out.reserve(zstd::zstd_safe::compress_bound(plaintext.len()));
        match frame.compress_to_buffer(plaintext, out) {
            Ok(length) if length + plaintext.len() / WORTHWHILE_SAVING < plaintext.len() => {
                Codec::Zstd
            }
            _ => Codec::Stored,
        }
    }

    fn worth_trying(&mut self, plaintext: &[u8]) -> bool {
        if plaintext.len() < PROBE_FROM_BYTES {
            return true;
        }
        let Some(probe) = self.probe.as_mut() else {
            return true;
        };
        self.sample.clear();
        let step = (plaintext.len() - PROBE_SAMPLE_BYTES) / (PROBE_SAMPLES - 1);
        for number in 0..PROBE_SAMPLES {
            self.sample
                .extend_from_slice(&plaintext[number * step..][..PROBE_SAMPLE_BYTES]);
        }
        self.sample_out.clear();
        self.sample_out
            .reserve(zstd::zstd_safe::compress_bound(self.sample.len()));
        match probe.compress_to_buffer(&self.sample, &mut self.sample_out) {
            Ok(length) => length + self.sample.len() / (2 * WORTHWHILE_SAVING) < self.sample.len(),
            Err(_) => true,
        }
    }
}

fn context(level: i32) -> Option<zstd::bulk::Compressor<'static>> {
    let mut context = zstd::bulk::Compressor::new(level).ok()?;
    context.include_contentsize(false).ok()?;
    context.include_checksum(false).ok()?;
    context.include_dictid(false).ok()?;
    Some(context)
}

/// How a zstd frame begins (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

thread_local! {
    /// One decompression context for each thread: making one costs more than a small frame.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
        RefCell::new(zstd::bulk::Decompressor::new().ok());
}

/// Decompresses a zstd frame of exactly `plaintext_bytes` into `out`, whose old content is
/// replaced. Allocates no more than that, whatever the frame claims; lengths over
/// [`FRAME_MAX_BYTES`] are refused before anything is allocated.
pub fn decompress(
    stored: &[u8],
    plaintext_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    if plaintext_bytes > FRAME_MAX_BYTES {
        return Err(FrameError);
    }
    // One frame and nothing else: the library also takes several, and such as say nothing.
    let is_one = stored.starts_with(&ZSTD_MAGIC)
        && zstd::zstd_safe::find_frame_compressed_size(stored) == Ok(stored.len());
    if !is_one {
        return Err(FrameError);
    }
    out.clear();
    out.reserve_exact(plaintext_bytes);
    let length = DECOMPRESSOR.with_borrow_mut(|context| {
        let context = context.as_mut().ok_or(FrameError)?;
        // The writer into a `Vec` may use its whole capacity, which can be more than was asked for:
        // the length is compared after.
        context
            .decompress_to_buffer(stored, out)
            .map_err(|_| FrameError)
    })?;
    if length == plaintext_bytes {
        Ok(())
    } else {
        Err(FrameError)
    }
}
