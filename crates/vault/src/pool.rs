//! Buffers that are used again: allocating and touching fresh memory for each frame and pack costs
//! more than filling it.

use std::sync::{Arc, Mutex, PoisonError};

/// A few buffers that wait to be used again, within a number of bytes.
pub(crate) struct Pool {
    buffers: Mutex<Vec<Vec<u8>>>,
    least_bytes: usize,
    limit_bytes: usize,
}

impl Pool {
    /// A pool that keeps buffers of at least `least_bytes`, and no more than `limit_bytes` in all.
    pub(crate) fn new(least_bytes: usize, limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            buffers: Mutex::new(Vec::new()),
            least_bytes,
            limit_bytes,
        })
    }

    /// A buffer with room for so many bytes: the smallest that has it, or a new one. Its length and
    /// content are whatever they were; callers set them.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let best = buffers
            .iter()
            .enumerate()
            .filter(|(_, buffer)| buffer.capacity() >= bytes)
            .min_by_key(|(_, buffer)| buffer.capacity())
            .map(|(at, _)| at);
        match best {
            Some(at) => buffers.swap_remove(at),
            None => Vec::with_capacity(bytes),
        }
    }

    /// Takes a buffer back, unless it is too small to be asked for again, or there are enough.
    pub(crate) fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() < self.least_bytes {
            return;
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = buffers.iter().map(Vec::capacity).sum();
        if held + buffer.capacity() <= self.limit_bytes {
            buffers.push(buffer);
        }
    }
}

/// A buffer that goes back to its pool when the last user of it is done.
pub(crate) struct Pooled {
    pub(crate) buffer: Vec<u8>,
    pub(crate) pool: Arc<Pool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.buffer));
    }
}
