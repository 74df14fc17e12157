//! The target directory: open directories beneath it, made when they are first needed.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::io::Errno;

use super::plan::{
    DIRECTORY_BLOCKED, DIRECTORY_EXISTED, DIRECTORY_MADE, DIRECTORY_PLANNED, Plan, TOP,
};
use super::{Context, RestoreError};
use crate::report::ProblemKind;
use crate::sys;

/// Most directories that are kept open: neighbours in a pack are mostly neighbours in the tree.
const OPEN_DIRECTORIES_MAX: usize = 128;

/// Begins the names of unfinished files; what follows is random for each restore.
pub(super) const TEMPORARY_PREFIX: &str = ".candor-";

/// Ends the names of unfinished files.
pub(super) const TEMPORARY_SUFFIX: &str = ".part";

/// The target directory and what is open beneath it.
pub(super) struct Target {
    top: Rc<OwnedFd>,
    open: HashMap<i64, (Rc<OwnedFd>, u64)>,
    clock: u64,
    existed: bool,
    run: String,
}

impl Target {
    /// Opens or makes the target. Its own path may lead through symbolic links: it is the person's.
    pub(super) fn open(context: &mut Context<'_>, random: [u8; 16]) -> Result<Self, RestoreError> {
        let path = context.job.target.as_path();
        let mut existed = true;
        let top = match sys::open_directory_path(path) {
            Err(Errno::NOENT) => {
                existed = false;
                sys::create_directory(rustix::fs::CWD, path)
                    .and_then(|()| sys::open_directory_path(path))
            }
            other => other,
        }
        .map_err(|errno| context.fatal(errno))?;
        let mut scratch = Vec::new();
        let attributes = sys::attributes_of(&top, &mut scratch).unwrap_or_default();
        context.inherits_acl = attributes
            .iter()
            .any(|(name, _)| name == b"system.posix_acl_default");
        if existed {
            let names = sys::Lister::default()
                .list(top.as_fd())
                .map_err(|errno| context.fatal(errno))?;
            existed = !names.is_empty();
        }
        let run = candor_wire::ids::to_hex(&random[..8]);
        Ok(Self {
            top: Rc::new(top),
            open: HashMap::new(),
            clock: 0,
            existed,
            run,
        })
    }

    /// Whether the target held anything before.
    pub(super) fn existed(&self) -> bool {
        self.existed
    }

    /// The temporary name of a file.
    pub(super) fn temporary_name(&self, file: i64) -> String {
        format!("{TEMPORARY_PREFIX}{}-{file:x}{TEMPORARY_SUFFIX}", self.run)
    }

    /// Whether a name is one that some restore gives to unfinished files.
    pub(super) fn is_temporary_name(name: &[u8]) -> bool {
        let middle = name
            .strip_prefix(TEMPORARY_PREFIX.as_bytes())
            .and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX.as_bytes()));
        let Some(middle) = middle else { return false };
        let hex = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_hexdigit);
        middle.len() > 17 && middle[16] == b'-' && hex(&middle[..16]) && hex(&middle[17..])
    }

    /// An open directory; it and those above it are made when `make` says so. `None`: it cannot be
    /// had, which was reported, or it is not there and must not be made.
    pub(super) fn directory(
        &mut self,
        id: i64,
        make: bool,
        plan: &Plan,
        context: &mut Context<'_>,
    ) -> Result<Option<Rc<OwnedFd>>, RestoreError> {
        let mut chain = Vec::new();
        let mut at = id;
        let mut directory = loop {
            if at == TOP {
                break Rc::clone(&self.top);
            }
            if let Some(found) = self.lookup(at) {
                break found;
            }
            let row = plan.directory(at)?;
            if row.state == DIRECTORY_BLOCKED {
                return Ok(None);
            }
            let parent = row.parent;
            chain.push((at, row));
            at = parent;
        };
        for (at, row) in chain.into_iter().rev() {
            let opened = self.open_one(&directory, at, &row.name, row.state, make, plan);
            match opened? {
                Ok(Some(next)) => {
                    directory = Rc::new(next);
                    self.keep(at, &directory);
                }
                Ok(None) => return Ok(None),
                Err(errno) => {
                    if Context::is_fatal(errno) {
                        return Err(context.fatal(errno));
                    }
                    plan.set_directory(at, DIRECTORY_BLOCKED)?;
                    let kind = if errno == Errno::EXIST {
                        ProblemKind::Collision
                    } else {
                        ProblemKind::Unwritable(errno)
                    };
                    context.outcome.problems.add(&path_of(plan, at)?, kind);
                    return Ok(None);
                }
            }
        }
        Ok(Some(directory))
    }

    /// Opens one directory in its parent, making it first if it is only planned.
    fn open_one(
        &mut self,
        parent: &OwnedFd,
        id: i64,
        name: &[u8],
        state: i64,
        make: bool,
        plan: &Plan,
    ) -> Result<Result<Option<OwnedFd>, Errno>, RestoreError> {
        if state == DIRECTORY_PLANNED {
            if !make {
                return Ok(Ok(None));
            }
            if let Err(errno) = sys::create_directory(parent, name) {
                return Ok(Err(errno));
            }
            plan.set_directory(id, DIRECTORY_MADE)?;
        }
        Ok(sys::open_directory_beneath(parent, name).map(Some))
    }

    fn lookup(&mut self, id: i64) -> Option<Rc<OwnedFd>> {
        self.clock += 1;
        let clock = self.clock;
        self.open.get_mut(&id).map(|(directory, used)| {
            *used = clock;
            Rc::clone(directory)
        })
    }

    /// Keeps a directory open, and closes the one that was not used for longest.
    fn keep(&mut self, id: i64, directory: &Rc<OwnedFd>) {
        if self.open.len() >= OPEN_DIRECTORIES_MAX {
            let oldest = self
                .open
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.open.remove(&oldest);
            }
        }
        self.open.insert(id, (Rc::clone(directory), self.clock));
    }

    /// Remembers that a planned directory is there already.
    pub(super) fn found(&mut self, id: i64, plan: &Plan) -> Result<(), RestoreError> {
        plan.set_directory(id, DIRECTORY_EXISTED)
    }

    /// Makes everything durable.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        sys::sync_file_system(&*self.top)
    }
}

/// The path of a planned directory within the snapshot.
pub(super) fn path_of(plan: &Plan, id: i64) -> Result<PathBuf, RestoreError> {
    let mut names = Vec::new();
    let mut at = id;
    while at != TOP {
        let row = plan.directory(at)?;
        names.push(row.name);
        at = row.parent;
    }
    Ok(names
        .iter()
        .rev()
        .map(|name| std::ffi::OsStr::from_bytes(name))
        .collect())
}
