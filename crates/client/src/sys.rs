//! What differs by platform: keeping the process's memory to itself, and renames in one step.

use std::path::Path;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// What [`harden_process`] could do. Each part is best effort: a container may forbid any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardening {
    /// Other processes of the same person cannot read this one's memory, and it leaves no core dump.
    pub is_not_dumpable: bool,
    /// Core dumps are limited to nothing.
    pub has_no_core: bool,
    /// Memory is never written to swap.
    pub is_locked: bool,
}

/// Makes the process hard to look into: no core dumps, no `ptrace` by processes without special
/// rights, and, where the limit on locked memory allows it, no swapping.
///
/// To be called once, before the first secret is in memory. Locking covers the whole process, page
/// by page as they are touched, and only where there is no limit on locked memory: under a limit
/// the kernel would refuse later allocations, and a backup must not fail because of it. Without
/// locking, what protects against swap is encrypted swap, which the documents say.
pub fn harden_process() -> Hardening {
    let is_not_dumpable =
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok();
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let has_no_core = rustix::process::setrlimit(Resource::Core, none).is_ok();
    let is_unlimited = rustix::process::getrlimit(Resource::Memlock)
        .current
        .is_none();
    let is_locked = is_unlimited && {
        use rustix::mm::MlockAllFlags as Lock;
        rustix::mm::mlockall(Lock::CURRENT | Lock::FUTURE | Lock::ONFAULT).is_ok()
    };
    Hardening {
        is_not_dumpable,
        has_no_core,
        is_locked,
    }
}

/// Gives something a name that nothing has.
pub(crate) fn rename_new(old: &Path, new: &Path) -> std::io::Result<()> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    Ok(rustix::fs::renameat_with(
        rustix::fs::CWD,
        old,
        rustix::fs::CWD,
        new,
        flags,
    )?)
}

/// Exchanges two entries in one step.
pub(crate) fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    Ok(rustix::fs::renameat_with(
        rustix::fs::CWD,
        one,
        rustix::fs::CWD,
        other,
        flags,
    )?)
}
