//! How the C library keeps memory, for work that lasts.
//!
//! glibc gives large buffers back to the system when they are freed, until one was: then it takes that size for the size
//! of things to come, puts all up to it into its heap, and the holes that they leave there are never given back. A
//! device that syncs for months then holds twice what it needs. That is only ever set through the environment, before
//! the program starts, so the program starts itself once more: the same process, the same arguments.

/// From which size on a buffer is given back: what glibc begins with.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");

/// How many heaps there are, however many threads: short-lived ones would leave one behind each.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// Says that the program was started anew. It stays where the system takes the others away, as it does for
/// programs with privileges of their own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ANEW: (&str, &str) = ("CANDOR_STARTED_ANEW", "1");

/// Starts this program anew with the allocator set, unless that was done, or somebody set it. Returns if it is not needed,
/// or cannot be done: then more memory is used, and nothing else is different. A program that was started by
/// another one, as a loader does, is left as it is: its file is not what would have to be started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    clippy::disallowed_methods,
    reason = "the program is where its own name and words are read"
)]
pub(crate) fn settle() {
    use std::os::unix::process::CommandExt as _;

    let is_set = [ANEW.0, MAPPED_FROM.0]
        .into_iter()
        .any(crate::home::has_variable);
    let mut words = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), words.next()) else {
        return;
    };
    if is_set || program.file_name() != std::path::Path::new(&name).file_name() {
        return;
    }
    // It comes back only if that failed.
    let _ = std::process::Command::new(program)
        .arg0(name)
        .args(words)
        .envs([MAPPED_FROM, HEAPS, ANEW])
        .exec();
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn settle() {}
