//! A world in memory for the merge: folders, a cell, and whatever goes wrong between them, under one seed.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bytes::Bytes;
use candor_wire::{Nanos, ObjectId};

use crate::chunk::ChunkId;
use crate::name::Name;
use crate::node::{Entry, Kind, Metadata, Reference, References};
use crate::reader::ReadError;
use crate::sync::SyncError;
use crate::sync::apply::Locate;
use crate::sync::folder::{Folder, ReadEntry, Trouble, join};
use crate::sync::merge::Store;
use crate::sync::record::{FILE, FOLDER, SYMLINK, Stamp};
use crate::tree::{ChunkSource, ReferenceReader, TreeSink};
use crate::writer::WriteError;

/// Numbers out of a seed: SplitMix64.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The chunks of the vault.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunks(pub(super) Rc<RefCell<HashMap<ChunkId, Bytes>>>);

impl TreeSink for Chunks {
    fn store(&mut self, plaintext: &[u8]) -> Result<ChunkId, WriteError> {
        let id = ChunkId::from_bytes(*blake3::hash(plaintext).as_bytes());
        let mut chunks = self.0.borrow_mut();
        chunks
            .entry(id)
            .or_insert_with(|| Bytes::copy_from_slice(plaintext));
        Ok(id)
    }
}

impl Store for Chunks {
    fn has(&mut self, id: &ChunkId) -> Result<bool, SyncError> {
        Ok(self.0.borrow().contains_key(id))
    }
}

impl ChunkSource for Chunks {
    fn fetch(&mut self, id: ChunkId) -> Result<Bytes, ReadError> {
        let found = self.0.borrow().get(&id).cloned();
        found.ok_or(ReadError::Source(crate::ports::SourceError::Missing {
            object: ObjectId::from_bytes(*id.as_bytes()),
        }))
    }
}

impl Locate for Chunks {
    fn place(&mut self, id: &ChunkId) -> (i64, u32) {
        (i64::from(id.as_bytes()[0]), 0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    File(Vec<u8>),
    Link(Vec<u8>),
    Folder,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u32,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
    pub(super) inode: u64,
}

/// A folder in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryFolder {
    pub(super) nodes: BTreeMap<Vec<u8>, Node>,
    pub(super) clock: i64,
    pub(super) next_inode: u64,
    /// Names that begin like this are left out here.
    pub(super) hidden_prefix: Option<u8>,
    /// Operations left until the device crashes.
    pub(super) fuse: Option<u32>,
}

fn crash() -> SyncError {
    SyncError::Folder {
        reason: "crash".to_owned(),
        source: None,
    }
}

impl MemoryFolder {
    pub(super) fn tick(&mut self) -> i64 {
        self.clock += 1_000;
        self.clock
    }

    pub(super) fn inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.next_inode
    }

    fn burn(&mut self) -> Result<(), Trouble> {
        match &mut self.fuse {
            Some(0) => Err(crash().into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn is_folder(&self, path: &[u8]) -> bool {
        path.is_empty()
            || self
                .nodes
                .get(path)
                .is_some_and(|node| node.content == Content::Folder)
    }

    /// Paths of what is directly in a folder.
    pub(super) fn children(&self, at: &[u8]) -> Vec<Vec<u8>> {
        let prefix = if at.is_empty() {
            Vec::new()
        } else {
            join(at, b"")
        };
        self.nodes
            .range(prefix.clone()..)
            .take_while(|(path, _)| path.starts_with(&prefix))
            .filter(|(path, _)| !path[prefix.len()..].contains(&b'/'))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Moves a path with everything below it.
    pub(super) fn shift(&mut self, from: &[u8], to: &[u8]) {
        let below = join(from, b"");
        let moved: Vec<Vec<u8>> = self
            .nodes
            .keys()
            .filter(|path| *path == from || path.starts_with(&below))
            .cloned()
            .collect();
        let now = self.tick();
        for path in moved {
            if let Some(mut node) = self.nodes.remove(&path) {
                if path == from {
                    node.ctime = now;
                }
                let mut new = to.to_vec();
                new.extend_from_slice(&path[from.len()..]);
                self.nodes.insert(new, node);
            }
        }
    }

    pub(super) fn drop_tree(&mut self, path: &[u8]) {
        let below = join(path, b"");
        self.nodes
            .retain(|other, _| other != path && !other.starts_with(&below));
    }

    fn stamp(node: &Node) -> Stamp {
        let (kind, size) = match &node.content {
            Content::File(bytes) => (FILE, bytes.len() as u64),
            Content::Link(target) => (SYMLINK, target.len() as u64),
            Content::Folder => (FOLDER, 0),
        };
        let unless_folder = |value| if kind == FOLDER { 0 } else { value };
        Stamp {
            kind,
            mode: node.mode,
            size,
            mtime: unless_folder(node.mtime),
            ctime: unless_folder(node.ctime),
            inode: node.inode,
            device: 1,
        }
    }

    fn check_parent(&self, at: &[u8]) -> Result<(), Trouble> {
        if self.is_folder(at) {
            Ok(())
        } else {
            Err(Trouble::Changed)
        }
    }
}

impl Folder<Chunks> for MemoryFolder {
    fn list(&mut self, at: &[u8]) -> Result<Vec<(Vec<u8>, Stamp)>, Trouble> {
        self.burn()?;
        self.check_parent(at)?;
        let skip = if at.is_empty() { 0 } else { at.len() + 1 };
        Ok(self
            .children(at)
            .into_iter()
            .map(|path| (path[skip..].to_vec(), Self::stamp(&self.nodes[&path])))
            .collect())
    }

    fn hides(&mut self, _at: &[u8], name: &[u8], _is_folder: bool) -> bool {
        self.hidden_prefix
            .is_some_and(|prefix| name.first() == Some(&prefix))
    }

    fn read(
        &mut self,
        at: &[u8],
        name: &[u8],
        _stamp: &Stamp,
        sink: &mut Chunks,
    ) -> Result<ReadEntry, Trouble> {
        self.burn()?;
        let path = join(at, name);
        let node = self.nodes.get(&path).ok_or(Trouble::Changed)?.clone();
        let kind = match &node.content {
            Content::File(bytes) => {
                let mut list = Vec::new();
                if !bytes.is_empty() {
                    let id = sink.store(bytes).map_err(SyncError::from)?;
                    list.push(Reference {
                        id,
                        length: bytes.len() as u32,
                    });
                }
                Kind::File {
                    size: bytes.len() as u64,
                    content: References { levels: 0, list },
                    extents: None,
                }
            }
            Content::Link(target) => Kind::Symlink {
                target: target.clone(),
            },
            Content::Folder => return Err(Trouble::Changed),
        };
        Ok(ReadEntry {
            entry: Entry {
                name: Name::new(name).map_err(|_| Trouble::Changed)?,
                metadata: Metadata {
                    mode: node.mode,
                    uid: 0,
                    gid: 0,
                    mtime: Nanos(node.mtime),
                    xattrs: Vec::new(),
                },
                link: None,
                kind,
            },
            stamp: Self::stamp(&node),
        })
    }

    fn make_folder(
        &mut self,
        at: &[u8],
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<(Stamp, bool), Trouble> {
        self.burn()?;
        self.check_parent(at)?;
        let path = join(at, name);
        let (now, inode) = (self.tick(), self.inode());
        let is_new = !self.nodes.contains_key(&path);
        let node = self.nodes.entry(path).or_insert(Node {
            content: Content::Folder,
            mode: metadata.mode,
            mtime: now,
            ctime: now,
            inode,
        });
        if node.content == Content::Folder {
            Ok((Self::stamp(node), is_new))
        } else {
            Err(Trouble::Changed)
        }
    }

    fn dress_folder(
        &mut self,
        at: &[u8],
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<Stamp, Trouble> {
        self.burn()?;
        let node = self
            .nodes
            .get_mut(&join(at, name))
            .filter(|node| node.content == Content::Folder)
            .ok_or(Trouble::Changed)?;
        node.mode = metadata.mode;
        Ok(Self::stamp(node))
    }

    fn put(
        &mut self,
        at: &[u8],
        entry: &Entry,
        old: Option<(&Stamp, &Entry)>,
        source: &mut dyn ChunkSource,
    ) -> Result<Stamp, Trouble> {
        self.burn()?;
        self.check_parent(at)?;
        let path = join(at, entry.name.as_bytes());
        let there = self.nodes.get(&path).map(Self::stamp);
        if there.as_ref() != old.map(|(stamp, _)| stamp) {
            return Err(Trouble::Changed);
        }
        let content = match &entry.kind {
            Kind::File { content, .. } => {
                let mut bytes = Vec::new();
                let mut references = ReferenceReader::new(content.clone());
                while let Some(reference) = references.next(source).map_err(SyncError::from)? {
                    let chunk = source
                        .fetch(reference.id)
                        .map_err(|error| SyncError::from(crate::tree::TreeError::Read(error)))?;
                    bytes.extend_from_slice(&chunk);
                }
                Content::File(bytes)
            }
            Kind::Symlink { target } => Content::Link(target.clone()),
            _ => return Err(Trouble::Changed),
        };
        let (now, inode) = (self.tick(), self.inode());
        let node = Node {
            content,
            mode: entry.metadata.mode,
            mtime: entry.metadata.mtime.0,
            ctime: now,
            inode,
        };
        let stamp = Self::stamp(&node);
        self.nodes.insert(path, node);
        Ok(stamp)
    }

    fn remove(&mut self, at: &[u8], name: &[u8], expected: &Stamp) -> Result<(), Trouble> {
        self.burn()?;
        let path = join(at, name);
        match self.nodes.get(&path) {
            None => Ok(()),
            Some(node) if Self::stamp(node).is_same_file(expected) => {
                self.nodes.remove(&path);
                Ok(())
            }
            Some(_) => Err(Trouble::Changed),
        }
    }

    fn remove_folder(&mut self, at: &[u8], name: &[u8]) -> Result<bool, Trouble> {
        self.burn()?;
        let path = join(at, name);
        if !self.nodes.contains_key(&path) {
            return Ok(true);
        }
        if !self.is_folder(&path) {
            return Err(Trouble::Changed);
        }
        if !self.children(&path).is_empty() {
            return Ok(false);
        }
        self.nodes.remove(&path);
        Ok(true)
    }

    fn rename(
        &mut self,
        from: (&[u8], &[u8]),
        to: (&[u8], &[u8]),
        expected: &Stamp,
    ) -> Result<Stamp, Trouble> {
        self.burn()?;
        let (old, new) = (join(from.0, from.1), join(to.0, to.1));
        self.check_parent(to.0)?;
        let node = self.nodes.get(&old).ok_or(Trouble::Changed)?;
        let is_inside = new.starts_with(&join(&old, b""));
        if self.nodes.contains_key(&new) || is_inside || !Self::stamp(node).is_same_file(expected) {
            return Err(Trouble::Changed);
        }
        self.shift(&old, &new);
        Ok(Self::stamp(&self.nodes[&new]))
    }

    fn sync(&mut self) -> Result<(), Trouble> {
        Ok(())
    }
}
