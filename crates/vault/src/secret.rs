//! Secrets in memory: where they lie and how they go away.
//!
//! A value that is moved leaves a copy of its bytes behind, which no destructor reaches. So 32 secret
//! bytes live on the heap from the start and only their pointer moves; and after work that had to
//! handle secrets by value (deriving, opening, signing keys), the part of the stack that it used is
//! overwritten. A thread that ends leaves its stack mapped, so a thread that handled secrets does the
//! same as its last act. Threat: row 51.

use zeroize::{Zeroize as _, Zeroizing};

/// How much of the stack is overwritten, in bytes: expanding an ML-DSA-65 key is the deepest thing
/// done with secrets and needs about half of it.
const SCRUBBED_STACK_BYTES: usize = 256 * 1024;

/// 32 secret bytes at a fixed place. No `Debug`; wiped when dropped.
pub struct SecretBytes(Box<Zeroizing<[u8; 32]>>);

impl SecretBytes {
    /// Copies the bytes to their place. The caller wipes the original.
    pub fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut secret = Box::new(Zeroizing::new([0; 32]));
        secret.copy_from_slice(bytes);
        Self(secret)
    }

    /// The secret bytes.
    pub fn as_array(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Overwrites the stack below the caller's frame. The functions whose traces are meant must not be
/// inlined into the caller.
#[inline(never)]
pub fn scrub_stack() {
    let mut trace = [0_u8; SCRUBBED_STACK_BYTES];
    trace.zeroize();
    std::hint::black_box(&mut trace);
}
