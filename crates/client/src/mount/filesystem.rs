//! The kernel's side of a mount: answers to FUSE's questions.
//!
//! The kernel itself refuses every change (`EROFS`), because the mount is read-only; here is nothing
//! that could make one. Owners and modes are shown as they were backed up and not enforced: only who
//! mounted may look in at all.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use candor_vault::node::{self, Entry, Item, Kind, References};
use candor_vault::random::{FileContent, Listing};
use candor_vault::tree::TreeError;
use candor_wire::Millis;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr, Request,
};

use super::attributes::{attributes_of, time_of, type_of};
use super::keeper::{Keeper, Trouble};
use super::nodes::{Identity, Node, Nodes, SnapshotNode, TOP, identity_of, packed};
use super::{NEWEST, Shelf};

/// How long the kernel may believe what is inside of a snapshot: it never changes.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it may believe which snapshots there are.
const BRIEFLY: Duration = Duration::from_secs(1);

/// How far the kernel reads ahead, in bytes: about one frame.
const READ_AHEAD_BYTES: u32 = 1024 * 1024;

/// Threads that answer.
const THREADS: usize = 4;

/// The folders above the snapshots.
const FOLDER_MODE: u16 = 0o555;

/// What the kernel is asked for.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName("candor".to_owned()),
        MountOption::Subtype("candor".to_owned()),
    ];
    config.n_threads = Some(THREADS);
    config
}

/// A mounted account.
pub(crate) struct Mounted {
    shelf: Shelf,
    keeper: Keeper,
    nodes: Nodes,
    /// Who mounted: the folders above the snapshots are theirs.
    owner: (u32, u32),
    since: Millis,
    next_handle: AtomicU64,
    files: Mutex<HashMap<u64, Arc<OpenFile>>>,
    folders: Mutex<HashMap<u64, Arc<OpenFolder>>>,
}

struct OpenFile {
    snapshot: Arc<SnapshotNode>,
    content: FileContent,
}

/// A folder that is being listed.
enum OpenFolder {
    /// One above the snapshots.
    Above(Vec<(String, Node)>),
    /// One of a snapshot.
    Inside(Box<OpenInside>),
}

struct OpenInside {
    snapshot: Arc<SnapshotNode>,
    parts: References,
    cursor: Mutex<Cursor>,
}

/// How far a listing came.
struct Cursor {
    listing: Listing,
    /// How many entries were handed out or are gone by.
    done: u64,
    /// The one that did not fit any more.
    waiting: Option<Entry>,
}

/// One line of a listing.
struct Line<'a> {
    /// Where the next one begins.
    next: u64,
    name: &'a OsStr,
    node: &'a Node,
    /// The entry, of what is in a snapshot.
    entry: Option<&'a Entry>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The entry of something in a snapshot, as it was packed here.
fn unpacked(bytes: &[u8]) -> Result<Entry, Errno> {
    node::decode_entry(bytes).map_err(|_| Errno::EIO)
}

impl Mounted {
    pub(crate) fn new(shelf: Shelf, keeper: Keeper, since: Millis) -> Self {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        Self {
            shelf,
            keeper,
            nodes: Nodes::new(),
            owner: (user.as_raw(), group.as_raw()),
            since,
            next_handle: AtomicU64::new(1),
            files: Mutex::default(),
            folders: Mutex::default(),
        }
    }

    fn node(&self, number: INodeNo) -> Result<Node, Errno> {
        self.nodes.get(number.0).ok_or(Errno::ESTALE)
    }

    /// Where something is below the mounted folder, for people.
    fn path_of(&self, number: u64) -> String {
        let mut names = Vec::new();
        let mut at = Some(number);
        while let Some(number) = at.take() {
            match self.nodes.get(number) {
                Some(Node::Inside { parent, entry, .. }) => {
                    let name = unpacked(&entry).map(|entry| entry.name);
                    names.push(name.map_or_else(
                        |_| "?".to_owned(),
                        |name| name.as_os_str().to_string_lossy().into_owned(),
                    ));
                    at = Some(parent);
                }
                Some(Node::Snapshot(snapshot)) => {
                    names.push(snapshot.shown.name.clone());
                    names.push(snapshot.set.to_string());
                }
                _ => {}
            }
        }
        names.reverse();
        names.join("/")
    }

    /// Something could not be read: the person is told, and whoever asked gets an error.
    fn unreadable(&self, number: u64, error: &TreeError) -> Errno {
        let mut what = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(deeper) = cause {
            what = format!("{what}: {deeper}");
            cause = deeper.source();
        }
        self.keeper.tell(Trouble {
            path: self.path_of(number),
            what,
            is_integrity: error.is_integrity(),
        });
        Errno::EIO
    }

    /// What `stat` shows of a node, and for how long it stays so.
    fn attributes(&self, number: u64, node: &Node) -> Result<(FileAttr, Duration), Errno> {
        let plain = |kind, perm, time: SystemTime, size| FileAttr {
            ino: INodeNo(number),
            size,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        };
        let folder = |time| plain(FileType::Directory, FOLDER_MODE, time, 0);
        let newest = |set: &str| {
            let catalog = self.shelf.get();
            let shown = catalog.sets.get(set).and_then(|set| set.last());
            shown.map(|shown| (time_of(shown.time), shown.name.len() as u64))
        };
        Ok(match node {
            Node::Top => (folder(time_of(self.since)), BRIEFLY),
            Node::Set(set) => {
                let (time, _) = newest(set).ok_or(Errno::ESTALE)?;
                (folder(time), BRIEFLY)
            }
            Node::Newest(set) => {
                let (time, size) = newest(set).ok_or(Errno::ESTALE)?;
                (plain(FileType::Symlink, 0o777, time, size), BRIEFLY)
            }
            Node::Snapshot(snapshot) => (folder(time_of(snapshot.shown.time)), FOREVER),
            Node::Inside { entry, .. } => (attributes_of(number, &unpacked(entry)?), FOREVER),
        })
    }

    /// The node of a name in a folder, and its identity's number, with which the kernel is told of it.
    fn look_up(&self, parent: u64, name: &OsStr) -> Result<(FileAttr, Duration), Errno> {
        let text = || name.to_str().ok_or(Errno::ENOENT);
        let named = Identity::Named {
            parent,
            name: name.as_bytes(),
        };
        let number = match self.node(INodeNo(parent))? {
            Node::Top => {
                self.keeper.refresh();
                let (catalog, set) = (self.shelf.get(), text()?);
                if !catalog.sets.contains_key(set) {
                    return Err(Errno::ENOENT);
                }
                self.nodes.tell(&named, || Node::Set(set.into()))
            }
            Node::Set(set) => {
                self.keeper.refresh();
                let (catalog, name) = (self.shelf.get(), text()?);
                if name == NEWEST {
                    self.nodes.tell(&named, || Node::Newest(set))
                } else {
                    let shown = catalog.find(&set, name).ok_or(Errno::ENOENT)?;
                    let node = || SnapshotNode::new(set, shown.clone());
                    self.nodes.tell(&named, || Node::Snapshot(Arc::new(node())))
                }
            }
            Node::Newest(_) => return Err(Errno::ENOTDIR),
            node @ (Node::Snapshot(_) | Node::Inside { .. }) => {
                let (snapshot, parts) = self.parts(parent, &node)?;
                let found = snapshot.reader().find(&parts, name.as_bytes());
                let found = found.map_err(|error| self.unreadable(parent, &error))?;
                let entry = found.ok_or(Errno::ENOENT)?;
                let number = self.tell_inside(&snapshot, parent, &entry);
                return Ok((attributes_of(number, &entry), FOREVER));
            }
        };
        self.attributes(number, &self.node(INodeNo(number))?)
    }

    fn tell_inside(&self, snapshot: &Arc<SnapshotNode>, parent: u64, entry: &Entry) -> u64 {
        let node = || Node::Inside {
            snapshot: Arc::clone(snapshot),
            parent,
            entry: packed(entry),
        };
        self.nodes.tell(&identity_of(snapshot, parent, entry), node)
    }

    /// The folder that a node is, in its snapshot.
    fn parts(&self, number: u64, node: &Node) -> Result<(Arc<SnapshotNode>, References), Errno> {
        match node {
            Node::Snapshot(snapshot) => {
                let top = snapshot.top();
                let top = top.map_err(|error| self.unreadable(number, &error))?;
                Ok((Arc::clone(snapshot), top.clone()))
            }
            Node::Inside {
                snapshot, entry, ..
            } => match unpacked(entry)?.kind {
                Kind::Directory { parts } => Ok((Arc::clone(snapshot), parts)),
                _ => Err(Errno::ENOTDIR),
            },
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn open_folder(&self, number: u64) -> Result<OpenFolder, Errno> {
        let node = self.node(INodeNo(number))?;
        match &node {
            Node::Top => {
                self.keeper.refresh();
                let catalog = self.shelf.get();
                let sets = catalog.sets.keys();
                let lines = sets.map(|set| (set.clone(), Node::Set(set.as_str().into())));
                Ok(OpenFolder::Above(lines.collect()))
            }
            Node::Set(set) => {
                self.keeper.refresh();
                let catalog = self.shelf.get();
                let shown = catalog.sets.get(&**set).ok_or(Errno::ESTALE)?;
                let snapshots = shown.iter().map(|shown| {
                    let node = SnapshotNode::new(Arc::clone(set), shown.clone());
                    (shown.name.clone(), Node::Snapshot(Arc::new(node)))
                });
                let newest = (NEWEST.to_owned(), Node::Newest(Arc::clone(set)));
                Ok(OpenFolder::Above(snapshots.chain([newest]).collect()))
            }
            _ => {
                let (snapshot, parts) = self.parts(number, &node)?;
                let cursor = Mutex::new(Cursor::new(&parts));
                Ok(OpenFolder::Inside(Box::new(OpenInside {
                    snapshot,
                    parts,
                    cursor,
                })))
            }
        }
    }

    /// Hands out the lines of a folder from `offset` on, until `add` says that there is no more room.
    fn list(
        &self,
        number: u64,
        handle: FileHandle,
        offset: u64,
        add: &mut dyn FnMut(&Line<'_>) -> bool,
    ) -> Result<(), Errno> {
        let folder = lock(&self.folders).get(&handle.0).cloned();
        let folder = folder.ok_or(Errno::EBADF)?;
        let own = self.node(INodeNo(number))?;
        for (at, name) in [(0, "."), (1, "..")] {
            let line = Line {
                next: at + 1,
                name: OsStr::new(name),
                node: &own,
                entry: None,
            };
            if offset <= at && add(&line) {
                return Ok(());
            }
        }
        let from = offset.max(2) - 2;
        match &*folder {
            OpenFolder::Above(lines) => {
                let rest = lines.iter().enumerate();
                for (at, (name, node)) in rest.skip(usize::try_from(from).unwrap_or(usize::MAX)) {
                    let line = Line {
                        next: at as u64 + 3,
                        name: OsStr::new(name),
                        node,
                        entry: None,
                    };
                    if add(&line) {
                        break;
                    }
                }
                Ok(())
            }
            OpenFolder::Inside(inside) => {
                let listed = inside.list(from, add);
                listed.map_err(|error| self.unreadable(number, &error))
            }
        }
    }

    fn open_file(&self, number: u64) -> Result<OpenFile, Errno> {
        let Node::Inside {
            snapshot, entry, ..
        } = self.node(INodeNo(number))?
        else {
            return Err(Errno::EISDIR);
        };
        let Kind::File {
            size,
            content,
            extents,
        } = unpacked(&entry)?.kind
        else {
            return Err(Errno::EINVAL);
        };
        let content = FileContent::open(size, &content, extents.as_deref(), snapshot.reader());
        Ok(OpenFile {
            content: content.map_err(|error| self.unreadable(number, &error))?,
            snapshot,
        })
    }

    fn handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    fn link_target(&self, number: u64) -> Result<Vec<u8>, Errno> {
        match self.node(INodeNo(number))? {
            Node::Newest(set) => {
                let catalog = self.shelf.get();
                let newest = catalog.sets.get(&*set).and_then(|set| set.last());
                newest
                    .map(|shown| shown.name.clone().into_bytes())
                    .ok_or(Errno::ENOENT)
            }
            Node::Inside { entry, .. } => match unpacked(&entry)?.kind {
                Kind::Symlink { target } => Ok(target),
                _ => Err(Errno::EINVAL),
            },
            _ => Err(Errno::EINVAL),
        }
    }

    /// The extended attributes of what is in a snapshot.
    fn with_xattrs<T>(
        &self,
        number: u64,
        take: impl FnOnce(&[node::Xattr]) -> Option<T>,
    ) -> Result<T, Errno> {
        let taken = match self.node(INodeNo(number))? {
            Node::Inside { entry, .. } => take(&unpacked(&entry)?.metadata.xattrs),
            _ => take(&[]),
        };
        taken.ok_or(Errno::NO_XATTR)
    }
}

impl OpenInside {
    /// Hands out entries, from number `from` on, until `add` says that there is no more room.
    fn list(&self, from: u64, add: &mut dyn FnMut(&Line<'_>) -> bool) -> Result<(), TreeError> {
        let node = Node::Snapshot(Arc::clone(&self.snapshot));
        let mut cursor = lock(&self.cursor);
        if cursor.done > from {
            *cursor = Cursor::new(&self.parts);
        }
        loop {
            let entry = match cursor.next(&self.snapshot) {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => {
                    // Whoever asks again begins anew: a part that failed is passed over by nobody.
                    *cursor = Cursor::new(&self.parts);
                    return Err(error);
                }
            };
            let line = Line {
                next: cursor.done + 3,
                name: entry.name.as_os_str(),
                node: &node,
                entry: Some(&entry),
            };
            if cursor.done >= from && add(&line) {
                cursor.waiting = Some(entry);
                break;
            }
            cursor.done += 1;
        }
        Ok(())
    }
}

impl Cursor {
    fn new(parts: &References) -> Self {
        Self {
            listing: Listing::new(parts),
            done: 0,
            waiting: None,
        }
    }

    /// The next entry that may be shown: names that no folder may hold are passed over.
    fn next(&mut self, snapshot: &SnapshotNode) -> Result<Option<Entry>, TreeError> {
        if let Some(entry) = self.waiting.take() {
            return Ok(Some(entry));
        }
        loop {
            match self.listing.next(snapshot.reader())? {
                Some(Item::Entry(entry)) => return Ok(Some(entry)),
                Some(Item::Refused { .. }) => {}
                None => return Ok(None),
            }
        }
    }
}

/// Answers a question about attributes: how long they are, or what they are.
fn answer_xattr(bytes: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match bytes {
        Err(error) => reply.error(error),
        Ok(bytes) if size == 0 => reply.size(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Ok(bytes) if bytes.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(bytes) => reply.data(&bytes),
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each is a wish; an older kernel has fewer.
        for wish in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
        ] {
            let _ = config.add_capabilities(wish);
        }
        if let Err(most) = config.set_max_readahead(READ_AHEAD_BYTES) {
            let _ = config.set_max_readahead(most);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(parent.0, name) {
            Ok((attributes, life)) => reply.entry(&life, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _request: &Request, number: INodeNo, times: u64) {
        self.nodes.forget(number.0, times);
    }

    fn getattr(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let node = self.node(number);
        match node.and_then(|node| self.attributes(number.0, &node)) {
            Ok((attributes, life)) => reply.attr(&life, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        match self.link_target(number.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(number.0) {
            Ok(file) => {
                let handle = self.handle();
                lock(&self.files).insert(handle, Arc::new(file));
                reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = lock(&self.files).get(&handle.0).cloned() else {
            reply.error(Errno::EBADF);
            return;
        };
        let reader = file.snapshot.reader();
        match file.content.read(offset, size as usize, reader) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(self.unreadable(number.0, &error)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.files).remove(&handle.0);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_folder(number.0) {
            Ok(folder) => {
                let handle = self.handle();
                lock(&self.folders).insert(handle, Arc::new(folder));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut add = |line: &Line<'_>| {
            let (child, kind) = self.line_number(number.0, line);
            reply.add(INodeNo(child), line.next, kind, line.name)
        };
        match self.list(number.0, handle, offset, &mut add) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut added = 0_usize;
        let mut add = |line: &Line<'_>| {
            let Ok((attributes, life)) = self.line_attributes(number.0, line) else {
                // It went while it was listed.
                return false;
            };
            let child = attributes.ino;
            let is_full = reply.add(
                child,
                line.next,
                line.name,
                &life,
                &attributes,
                Generation(0),
            );
            if is_full && !line.is_own() {
                self.nodes.forget(child.0, 1);
            }
            added += usize::from(!is_full);
            is_full
        };
        match self.list(number.0, handle, offset, &mut add) {
            Ok(()) => reply.ok(),
            // The kernel was told of these, and counts them; the next question meets the error.
            Err(_) if added > 0 => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        lock(&self.folders).remove(&handle.0);
        reply.ok();
    }

    fn getxattr(
        &self,
        _request: &Request,
        number: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let value = self.with_xattrs(number.0, |xattrs| {
            let mut named = xattrs.iter().filter(|one| one.name == name.as_bytes());
            named.next().map(|one| one.value.clone())
        });
        answer_xattr(value, size, reply);
    }

    fn listxattr(&self, _request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.with_xattrs(number.0, |xattrs| {
            let names = xattrs.iter().map(|one| [&one.name[..], b"\0"].concat());
            Some(names.collect::<Vec<_>>().concat())
        });
        answer_xattr(names, size, reply);
    }
}

impl Line<'_> {
    /// Whether it is `.` or `..`, of which the kernel keeps no count.
    fn is_own(&self) -> bool {
        self.next <= 2
    }

    fn identity<'a>(&'a self, parent: u64) -> Identity<'a> {
        match (self.node, self.entry) {
            (Node::Snapshot(snapshot), Some(entry)) => identity_of(snapshot, parent, entry),
            _ => Identity::Named {
                parent,
                name: self.name.as_bytes(),
            },
        }
    }
}

impl Mounted {
    /// The number and type of a line, without telling the kernel of it.
    fn line_number(&self, parent: u64, line: &Line<'_>) -> (u64, FileType) {
        if line.is_own() {
            return (parent.max(TOP), FileType::Directory);
        }
        let kind = match (line.entry, line.node) {
            (Some(entry), _) => type_of(&entry.kind),
            (None, Node::Newest(_)) => FileType::Symlink,
            (None, _) => FileType::Directory,
        };
        (self.nodes.number(&line.identity(parent)), kind)
    }

    /// What `stat` shows of a line, of which the kernel is told.
    fn line_attributes(&self, parent: u64, line: &Line<'_>) -> Result<(FileAttr, Duration), Errno> {
        if line.is_own() {
            return self.attributes(parent, line.node);
        }
        if let (Node::Snapshot(snapshot), Some(entry)) = (line.node, line.entry) {
            let number = self.tell_inside(snapshot, parent, entry);
            return Ok((attributes_of(number, entry), FOREVER));
        }
        let number = self
            .nodes
            .tell(&line.identity(parent), || line.node.clone());
        self.attributes(number, line.node)
    }
}
