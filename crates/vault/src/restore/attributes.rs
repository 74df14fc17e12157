//! Mode, owner, times and extended attributes of what was restored.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;

use super::{Context, RestoreError};
use crate::node::{Entry, Metadata};
use crate::report::ProblemKind;
use crate::sys;

/// The setuid and setgid bits.
const SET_ID_BITS: u32 = 0o6000;

/// Where the attributes of one entry go.
enum Place<'a> {
    /// An open file or directory.
    Open(&'a OwnedFd),
    /// A name in a directory: what cannot be opened, such as a link or a pipe.
    Named(BorrowedFd<'a>, &'a [u8]),
}

/// Whether an attribute gives powers, so that it is restored only with privileges.
pub(super) fn needs_privilege(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"trusted.")
}

impl Context<'_> {
    /// Sets everything on an open file or directory. What could not be set is noted until
    /// [`Context::report`] lists it.
    pub(super) fn dress(&mut self, file: &OwnedFd, entry: &Entry) {
        self.apply(&Place::Open(file), &entry.metadata, true);
    }

    /// Lists what was noted under the path that `path` finds out; paths cost look-ups, and mostly
    /// nothing was noted.
    pub(super) fn report(
        &mut self,
        path: impl FnOnce() -> Result<PathBuf, RestoreError>,
    ) -> Result<(), RestoreError> {
        if !self.noted.is_empty() {
            let path = path()?;
            for kind in std::mem::take(&mut self.noted) {
                self.outcome.problems.add(&path, kind);
            }
        }
        Ok(())
    }

    /// Sets everything on an entry by its name; a symbolic link has no mode of its own.
    pub(super) fn dress_named(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        has_mode: bool,
    ) {
        self.apply(&Place::Named(directory, name), &entry.metadata, has_mode);
    }

    /// The mode that an entry gets.
    pub(super) fn mode_for(&self, metadata: &Metadata) -> u32 {
        if self.job.privileged {
            metadata.mode
        } else {
            metadata.mode & !SET_ID_BITS
        }
    }

    /// Owner first, since changing it clears capabilities and setuid; attributes before the mode,
    /// which may take the right to set them away; times last.
    fn apply(&mut self, place: &Place<'_>, metadata: &Metadata, has_mode: bool) {
        if self.superuser {
            let done = match place {
                Place::Open(file) => sys::set_owner_of(file, metadata.uid, metadata.gid),
                Place::Named(directory, name) => {
                    sys::set_owner(directory, *name, metadata.uid, metadata.gid)
                }
            };
            self.note(done);
        }
        self.apply_xattrs(place, metadata);
        if has_mode {
            let mode = self.mode_for(metadata);
            if mode != metadata.mode {
                self.noted.push(ProblemKind::SetIdDropped);
            }
            let done = match place {
                Place::Open(file) => sys::set_mode(file, mode),
                Place::Named(directory, name) => sys::set_mode_at(directory, *name, mode),
            };
            self.note(done);
        }
        let done = match place {
            Place::Open(file) => sys::set_times_of(file, metadata.mtime.0),
            Place::Named(directory, name) => sys::set_times(directory, *name, metadata.mtime.0),
        };
        self.note(done);
    }

    fn apply_xattrs(&mut self, place: &Place<'_>, metadata: &Metadata) {
        if self.inherits_acl
            && let Place::Open(file) = place
        {
            for name in [&b"system.posix_acl_access"[..], b"system.posix_acl_default"] {
                let done = sys::remove_attribute_of(file, name);
                self.note(done);
            }
        }
        for xattr in &metadata.xattrs {
            let refused = needs_privilege(&xattr.name) && !self.job.privileged;
            let done = match place {
                _ if refused => Err(Errno::PERM),
                Place::Open(file) => sys::set_attribute_of(file, &xattr.name, &xattr.value),
                Place::Named(directory, name) => {
                    sys::set_attribute_at(*directory, name, &xattr.name, &xattr.value)
                }
            };
            if done.is_err() {
                let kind = ProblemKind::AttributeDropped {
                    name: xattr.name.clone(),
                };
                self.noted.push(kind);
            }
        }
    }

    fn note(&mut self, done: Result<(), Errno>) {
        if let Err(errno) = done {
            self.noted.push(ProblemKind::MetadataRefused(errno));
        }
    }
}
