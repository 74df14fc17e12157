//! Directory nodes: what one directory holds, in one canonical spelling.
//!
//! A directory is a sequence of *parts*. Each part is one chunk of the tree stream: deterministic
//! CBOR with a version and a run of entries sorted by the raw bytes of their names. A parent names
//! the parts of a child by their keyed chunk ids, so a whole tree hangs from one id. The layout,
//! byte for byte, is in `docs/formats/tree.md`.
//!
//! Everything here is hostile input when it comes from a cell or from another device: lengths and
//! counts are compared with the bytes that are really there before anything is allocated.

use candor_wire::Nanos;
use minicbor::{Decoder, Encoder};

use crate::chunk::ChunkId;
use crate::name::{self, Name, NameError};

mod root;

pub use root::{Origin, Root, SOURCES_MAX};

/// Version of every record of the tree: parts, lists and roots.
pub const TREE_VERSION: u32 = 1;

/// Longest part of a directory node, in bytes of plaintext: the split target below plus one
/// entry of the largest size. A tree chunk is held in memory whole.
pub const PART_MAX_BYTES: usize = 2 * 1024 * 1024;

/// Longest encoding of one entry, in bytes: extended attributes of one file are at most this
/// together with its name, references and holes.
pub const ENTRY_MAX_BYTES: usize = 1024 * 1024;

/// Most entries in one part: more than ever fit under the split target, so only an attacker's
/// count breaks it.
pub const PART_MAX_ENTRIES: usize = 65_536;

/// Fewest bytes that an entry takes: bounds what a count may claim before anything is allocated.
const ENTRY_MIN_BYTES: usize = 8;

/// Most references in one list, inline or in a list chunk: 36 bytes each, so 72 KiB.
pub const LIST_MAX_REFERENCES: usize = 2048;

/// Most levels of list chunks between an entry and its content: 2048^4 chunks are beyond any file.
pub const LEVELS_MAX: u8 = 3;

/// Bytes of one reference: a chunk id and a big-endian length.
pub const REFERENCE_BYTES: usize = 36;

/// Most stretches of data in one sparse file: their map stays inside the entry. What follows
/// them is stored with its holes read as zeros.
pub const EXTENTS_MAX: usize = 8192;

/// Most extended attributes of one entry: the system's list of names is at most 64 KiB.
pub const XATTRS_MAX: usize = 1024;

/// Longest value of one extended attribute, in bytes: the system's own `XATTR_SIZE_MAX`.
pub const XATTR_VALUE_MAX_BYTES: usize = 65_536;

/// Longest target of a symbolic link, in bytes: `PATH_MAX` without its terminating zero.
pub const SYMLINK_MAX_BYTES: usize = 4095;

/// Deepest nesting of directories that is read or written. A path names at most 2,048 directories
/// (`PATH_MAX` of 4,096 bytes, two for each), so nothing deeper can be reached by its path.
pub const DEPTH_MAX: usize = 2048;

/// The twelve bits of a mode: permissions, setuid, setgid, sticky.
pub const MODE_MASK: u32 = 0o7777;

/// Why bytes of the tree were not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The bytes are not the expected CBOR, or something is missing or left over.
    #[error("a tree record is malformed")]
    Malformed,
    /// The bytes have a meaning, but not the one spelling that is allowed for it.
    #[error("a tree record is not in its canonical spelling")]
    NotCanonical,
    /// The record has a version that this build does not know.
    #[error("a tree record has the unknown version {version}")]
    Version {
        /// The version found.
        version: u32,
    },
    /// Entries are not strictly ascending by name, so one name may be there twice.
    #[error("entries of a directory are not in strictly ascending order")]
    Order,
    /// A count or length is above its limit.
    #[error("a tree record claims more {what} than the limit")]
    Limit {
        /// What is counted.
        what: &'static str,
    },
    /// A field holds a value that its kind of entry cannot have.
    #[error("a tree record has an impossible {what}")]
    Value {
        /// The field.
        what: &'static str,
    },
}

impl From<minicbor::decode::Error> for NodeError {
    fn from(_: minicbor::decode::Error) -> Self {
        Self::Malformed
    }
}

/// A chunk and the length of its plaintext, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The chunk.
    pub id: ChunkId,
    /// Plaintext length, in bytes; never zero.
    pub length: u32,
}

/// A sequence of chunks. With `levels == 0` they are the content; otherwise each is a list chunk
/// that holds the references of the level below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// How many levels of list chunks lie between these references and the content.
    pub levels: u8,
    /// The references, in content order, at most [`LIST_MAX_REFERENCES`].
    pub list: Vec<Reference>,
}

/// One stretch of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of hole between the end of the stretch before (or the start of the file) and this one.
    pub gap: u64,
    /// Bytes of data; never zero.
    pub length: u64,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Its full name with its namespace, without a terminating zero.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Which names of one snapshot are the same file: 16 bytes, equal exactly for hard links of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkGroup(pub [u8; 16]);

/// What an entry is, with what only this kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length in bytes, holes included.
        size: u64,
        /// The data, without holes.
        content: References,
        /// Where the data lies; `None`: from the start to the end without a hole.
        extents: Option<Vec<Extent>>,
    },
    /// A directory.
    Directory {
        /// Its parts.
        parts: References,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, byte for byte; never followed by anything here.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket: remembered so that it can be listed, never made again.
    Socket,
    /// A character device.
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Kind {
    /// The number that stands for the kind in the format.
    pub fn code(&self) -> u8 {
        match self {
            Self::File { .. } => 0,
            Self::Directory { .. } => 1,
            Self::Symlink { .. } => 2,
            Self::Fifo => 3,
            Self::Socket => 4,
            Self::CharacterDevice { .. } => 5,
            Self::BlockDevice { .. } => 6,
        }
    }
}

/// What every kind of entry has beside its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The twelve mode bits.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
    /// Time of last change of the content, in nanoseconds.
    pub mtime: Nanos,
    /// Extended attributes, POSIX ACLs among them, ascending by name, each name once.
    pub xattrs: Vec<Xattr>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Mode, owner, time and attributes.
    pub metadata: Metadata,
    /// Set when other names of the snapshot are this same file.
    pub link: Option<LinkGroup>,
    /// What it is.
    pub kind: Kind,
}

/// One decoded entry: taken, or refused for its name alone so that its neighbours can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An entry that may be used.
    Entry(Entry),
    /// An entry whose name no directory may hold.
    Refused {
        /// The name as found.
        name: Vec<u8>,
        /// What is wrong with it.
        reason: NameError,
    },
}

type Sink<'a> = Encoder<&'a mut Vec<u8>>;
type Infallible = minicbor::encode::Error<core::convert::Infallible>;

/// Appends the encoding of `entry` to `out`.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    write_entry(entry.name.as_bytes(), entry, out).expect("memory takes every byte");
}

/// Encodes an entry under any name, as a hostile writer would.
#[cfg(test)]
pub(crate) fn encode_entry_as(name: &[u8], entry: &Entry, out: &mut Vec<u8>) {
    write_entry(name, entry, out).expect("memory takes every byte");
}

fn write_entry(name: &[u8], entry: &Entry, out: &mut Vec<u8>) -> Result<(), Infallible> {
    let metadata = &entry.metadata;
    let own_fields = match &entry.kind {
        Kind::File { extents, .. } => 2 + u64::from(extents.is_some()),
        Kind::Directory { .. } | Kind::Symlink { .. } => 1,
        Kind::CharacterDevice { .. } | Kind::BlockDevice { .. } => 1,
        Kind::Fifo | Kind::Socket => 0,
    };
    let levels = match &entry.kind {
        Kind::File { content, .. } => content.levels,
        Kind::Directory { parts } => parts.levels,
        _ => 0,
    };
    let optional = u64::from(!metadata.xattrs.is_empty())
        + u64::from(entry.link.is_some())
        + u64::from(levels != 0);
    let mut e = Encoder::new(out);
    e.map(6 + own_fields + optional)?;
    e.u8(0)?.bytes(name)?;
    e.u8(1)?.u8(entry.kind.code())?;
    e.u8(2)?.u32(metadata.mode)?;
    e.u8(3)?.u32(metadata.uid)?;
    e.u8(4)?.u32(metadata.gid)?;
    e.u8(5)?.i64(metadata.mtime.0)?;
    if !metadata.xattrs.is_empty() {
        e.u8(6)?.array(metadata.xattrs.len() as u64)?;
        for xattr in &metadata.xattrs {
            e.array(2)?.bytes(&xattr.name)?.bytes(&xattr.value)?;
        }
    }
    if let Some(group) = entry.link {
        e.u8(7)?.bytes(&group.0)?;
    }
    write_kind(&entry.kind, levels, &mut e)
}

fn write_kind(kind: &Kind, levels: u8, e: &mut Sink<'_>) -> Result<(), Infallible> {
    match kind {
        Kind::File {
            size,
            content,
            extents,
        } => {
            e.u8(8)?;
            write_references(&content.list, e)?;
            if levels != 0 {
                e.u8(9)?.u8(levels)?;
            }
            e.u8(10)?.u64(*size)?;
            if let Some(extents) = extents {
                e.u8(11)?.array(extents.len() as u64 * 2)?;
                for extent in extents {
                    e.u64(extent.gap)?.u64(extent.length)?;
                }
            }
        }
        Kind::Directory { parts } => {
            e.u8(8)?;
            write_references(&parts.list, e)?;
            if levels != 0 {
                e.u8(9)?.u8(levels)?;
            }
        }
        Kind::Symlink { target } => {
            e.u8(12)?.bytes(target)?;
        }
        Kind::CharacterDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            e.u8(13)?.array(2)?.u32(*major)?.u32(*minor)?;
        }
        Kind::Fifo | Kind::Socket => {}
    }
    Ok(())
}

fn write_references(list: &[Reference], e: &mut Sink<'_>) -> Result<(), Infallible> {
    e.bytes_len((list.len() * REFERENCE_BYTES) as u64)?;
    let out = e.writer_mut();
    for reference in list {
        out.extend_from_slice(reference.id.as_bytes());
        out.extend_from_slice(&reference.length.to_be_bytes());
    }
    Ok(())
}

fn definite(length: Option<u64>) -> Result<u64, NodeError> {
    length.ok_or(NodeError::NotCanonical)
}

/// Decodes a byte string of references: whole, within the limit, no empty chunk.
fn read_references(bytes: &[u8]) -> Result<Vec<Reference>, NodeError> {
    if !bytes.len().is_multiple_of(REFERENCE_BYTES) {
        return Err(NodeError::Value {
            what: "list of references",
        });
    }
    if bytes.len() / REFERENCE_BYTES > LIST_MAX_REFERENCES {
        return Err(NodeError::Limit { what: "references" });
    }
    let mut list = Vec::with_capacity(bytes.len() / REFERENCE_BYTES);
    for raw in bytes.chunks_exact(REFERENCE_BYTES) {
        let (id, length) = raw.split_at(32);
        let id: [u8; 32] = id.try_into().map_err(|_| NodeError::Malformed)?;
        let length = u32::from_be_bytes(length.try_into().map_err(|_| NodeError::Malformed)?);
        if length == 0 {
            return Err(NodeError::Value {
                what: "chunk length",
            });
        }
        list.push(Reference {
            id: ChunkId::from_bytes(id),
            length,
        });
    }
    Ok(list)
}

/// The fields of an entry as they are found; which of them must be there depends on the kind.
#[derive(Default)]
struct Fields<'b> {
    name: Option<&'b [u8]>,
    kind: Option<u8>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    xattrs: Vec<Xattr>,
    link: Option<LinkGroup>,
    references: Option<Vec<Reference>>,
    levels: u8,
    size: Option<u64>,
    extents: Option<Vec<Extent>>,
    target: Option<&'b [u8]>,
    device: Option<(u32, u32)>,
}

impl<'b> Fields<'b> {
    fn read(d: &mut Decoder<'b>) -> Result<Self, NodeError> {
        let count = definite(d.map()?)?;
        let mut fields = Self::default();
        let mut last: Option<u8> = None;
        for _ in 0..count {
            let key = d.u8()?;
            if last.is_some_and(|last| last >= key) {
                return Err(NodeError::NotCanonical);
            }
            last = Some(key);
            fields.take(key, d)?;
        }
        Ok(fields)
    }

    fn take(&mut self, key: u8, d: &mut Decoder<'b>) -> Result<(), NodeError> {
        match key {
            0 => self.name = Some(d.bytes()?),
            1 => self.kind = Some(d.u8()?),
            2 => self.mode = Some(d.u32()?),
            3 => self.uid = Some(d.u32()?),
            4 => self.gid = Some(d.u32()?),
            5 => self.mtime = Some(d.i64()?),
            6 => self.xattrs = read_xattrs(d)?,
            7 => {
                let bytes: [u8; 16] = d.bytes()?.try_into().map_err(|_| NodeError::Value {
                    what: "hard link group",
                })?;
                self.link = Some(LinkGroup(bytes));
            }
            8 => self.references = Some(read_references(d.bytes()?)?),
            9 => {
                self.levels = d.u8()?;
                if self.levels == 0 {
                    return Err(NodeError::NotCanonical);
                }
                if self.levels > LEVELS_MAX {
                    return Err(NodeError::Limit {
                        what: "levels of lists",
                    });
                }
            }
            10 => self.size = Some(d.u64()?),
            11 => self.extents = Some(read_extents(d)?),
            12 => self.target = Some(d.bytes()?),
            13 => {
                if definite(d.array()?)? != 2 {
                    return Err(NodeError::Malformed);
                }
                self.device = Some((d.u32()?, d.u32()?));
            }
            _ => return Err(NodeError::Malformed),
        }
        Ok(())
    }

    /// Builds the kind and refuses fields that this kind does not have.
    fn kind(&mut self) -> Result<Kind, NodeError> {
        let levels = std::mem::take(&mut self.levels);
        let size = self.size.take();
        let extents = self.extents.take();
        let target = self.target.take();
        let device = self.device.take();
        let references = self.references.take();
        if levels != 0 && references.as_ref().is_none_or(Vec::is_empty) {
            return Err(NodeError::Value {
                what: "levels of lists",
            });
        }
        let code = self.kind.ok_or(NodeError::Malformed)?;
        if self.link.is_some() && code == 1 {
            return Err(NodeError::Value {
                what: "hard link of a directory",
            });
        }
        match (code, references, size, extents, target, device) {
            (0, Some(list), Some(size), extents, None, None) => {
                check_content(size, &list, levels, extents.as_deref())?;
                Ok(Kind::File {
                    size,
                    content: References { levels, list },
                    extents,
                })
            }
            (1, Some(list), None, None, None, None) => Ok(Kind::Directory {
                parts: References { levels, list },
            }),
            (2, None, None, None, Some(target), None) => {
                if target.is_empty() || target.len() > SYMLINK_MAX_BYTES || target.contains(&0) {
                    return Err(NodeError::Value {
                        what: "symbolic link target",
                    });
                }
                Ok(Kind::Symlink {
                    target: target.to_vec(),
                })
            }
            (3, None, None, None, None, None) => Ok(Kind::Fifo),
            (4, None, None, None, None, None) => Ok(Kind::Socket),
            (5, None, None, None, None, Some((major, minor))) => {
                Ok(Kind::CharacterDevice { major, minor })
            }
            (6, None, None, None, None, Some((major, minor))) => {
                Ok(Kind::BlockDevice { major, minor })
            }
            _ => Err(NodeError::Value {
                what: "set of fields for its kind",
            }),
        }
    }
}

fn read_xattrs(d: &mut Decoder<'_>) -> Result<Vec<Xattr>, NodeError> {
    let count = definite(d.array()?)?;
    if count == 0 {
        return Err(NodeError::NotCanonical);
    }
    if count > XATTRS_MAX as u64 {
        return Err(NodeError::Limit {
            what: "extended attributes",
        });
    }
    let mut xattrs: Vec<Xattr> = Vec::new();
    for _ in 0..count {
        if definite(d.array()?)? != 2 {
            return Err(NodeError::Malformed);
        }
        let (name, value) = (d.bytes()?, d.bytes()?);
        if name.is_empty() || name.len() > name::NAME_MAX_BYTES || name.contains(&0) {
            return Err(NodeError::Value {
                what: "name of an extended attribute",
            });
        }
        if value.len() > XATTR_VALUE_MAX_BYTES {
            return Err(NodeError::Limit {
                what: "bytes of an extended attribute",
            });
        }
        if xattrs
            .last()
            .is_some_and(|last| last.name.as_slice() >= name)
        {
            return Err(NodeError::Order);
        }
        xattrs.push(Xattr {
            name: name.to_vec(),
            value: value.to_vec(),
        });
    }
    Ok(xattrs)
}

fn read_extents(d: &mut Decoder<'_>) -> Result<Vec<Extent>, NodeError> {
    let count = definite(d.array()?)?;
    if !count.is_multiple_of(2) {
        return Err(NodeError::Malformed);
    }
    if count / 2 > EXTENTS_MAX as u64 {
        return Err(NodeError::Limit {
            what: "stretches of data",
        });
    }
    let mut extents = Vec::new();
    for _ in 0..count / 2 {
        extents.push(Extent {
            gap: d.u64()?,
            length: d.u64()?,
        });
    }
    Ok(extents)
}

/// Data, holes and size of a file must agree, with every sum checked for overflow.
fn check_content(
    size: u64,
    list: &[Reference],
    levels: u8,
    extents: Option<&[Extent]>,
) -> Result<(), NodeError> {
    if size > i64::MAX as u64 {
        return Err(NodeError::Limit {
            what: "bytes of a file",
        });
    }
    let mut data = size;
    if let Some(extents) = extents {
        let mut end = 0u64;
        data = 0;
        for (position, extent) in extents.iter().enumerate() {
            if extent.length == 0 || (position > 0 && extent.gap == 0) {
                return Err(NodeError::Value {
                    what: "stretch of data",
                });
            }
            end = end
                .checked_add(extent.gap)
                .and_then(|start| start.checked_add(extent.length))
                .filter(|&end| end <= size)
                .ok_or(NodeError::Value {
                    what: "stretch of data",
                })?;
            data += extent.length;
        }
        if data == size {
            // Without a hole the map must be left out.
            return Err(NodeError::NotCanonical);
        }
    }
    if levels == 0 {
        let stored: u64 = list
            .iter()
            .map(|reference| u64::from(reference.length))
            .sum();
        if stored != data {
            return Err(NodeError::Value { what: "file size" });
        }
    }
    Ok(())
}

/// Decodes one entry that starts at the decoder's position.
fn read_item(d: &mut Decoder<'_>, scratch: &mut Vec<u8>) -> Result<Item, NodeError> {
    let start = d.position();
    let mut fields = Fields::read(d)?;
    let end = d.position();
    if end - start > ENTRY_MAX_BYTES {
        return Err(NodeError::Limit {
            what: "bytes of an entry",
        });
    }
    let kind = fields.kind()?;
    let raw_name = fields.name.ok_or(NodeError::Malformed)?;
    let mode = fields.mode.ok_or(NodeError::Malformed)?;
    if mode & !MODE_MASK != 0 {
        return Err(NodeError::Value { what: "mode" });
    }
    let metadata = Metadata {
        mode,
        uid: fields.uid.ok_or(NodeError::Malformed)?,
        gid: fields.gid.ok_or(NodeError::Malformed)?,
        mtime: Nanos(fields.mtime.ok_or(NodeError::Malformed)?),
        xattrs: fields.xattrs,
    };
    let checked = Name::new(raw_name);
    // A refused name is spelled out below; any valid one stands in for it meanwhile.
    let name = match &checked {
        Ok(name) => name.clone(),
        Err(_) => placeholder_name(),
    };
    let entry = Entry {
        name,
        metadata,
        link: fields.link,
        kind,
    };
    scratch.clear();
    write_entry(raw_name, &entry, scratch).expect("memory takes every byte");
    if d.input().get(start..end) != Some(scratch.as_slice()) {
        return Err(NodeError::NotCanonical);
    }
    Ok(match checked {
        Ok(_) => Item::Entry(entry),
        Err(reason) => Item::Refused {
            name: raw_name.to_vec(),
            reason,
        },
    })
}

/// A valid name that stands where the real one must not count.
pub(crate) fn placeholder_name() -> Name {
    Name::new(b"-").expect("one dash is a valid name")
}

/// Decodes one entry that fills `bytes` exactly, as kept by the stat cache.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry, NodeError> {
    let mut d = Decoder::new(bytes);
    let item = read_item(&mut d, &mut Vec::new())?;
    match item {
        Item::Entry(entry) if d.position() == bytes.len() => Ok(entry),
        _ => Err(NodeError::Malformed),
    }
}

/// Wraps `count` encoded entries, already ascending by name, as one part.
pub fn encode_part(count: usize, entries: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() + 16);
    let mut e = Encoder::new(&mut out);
    let header = e
        .map(2)
        .and_then(|e| e.u8(0))
        .and_then(|e| e.u32(TREE_VERSION))
        .and_then(|e| e.u8(1))
        .and_then(|e| e.array(count as u64));
    header.map(|_| ()).expect("memory takes every byte");
    out.extend_from_slice(entries);
    out
}

/// Reads the version field of a record that is a map of `fields` fields.
fn read_version(d: &mut Decoder<'_>, fields: u64) -> Result<(), NodeError> {
    let count = definite(d.map()?)?;
    if d.u8()? != 0 {
        return Err(NodeError::Malformed);
    }
    let version = d.u32()?;
    if version != TREE_VERSION {
        return Err(NodeError::Version { version });
    }
    if count != fields {
        return Err(NodeError::Malformed);
    }
    Ok(())
}

/// Decodes one part of a directory. Entries whose *name* alone is impossible come back as
/// [`Item::Refused`]; anything else that is wrong rejects the part.
pub fn decode_part(bytes: &[u8]) -> Result<Vec<Item>, NodeError> {
    if bytes.len() > PART_MAX_BYTES {
        return Err(NodeError::Limit {
            what: "bytes of a part",
        });
    }
    let mut d = Decoder::new(bytes);
    read_version(&mut d, 2)?;
    if d.u8()? != 1 {
        return Err(NodeError::Malformed);
    }
    let count = definite(d.array()?)?;
    if count > PART_MAX_ENTRIES as u64 || count > (bytes.len() / ENTRY_MIN_BYTES) as u64 {
        return Err(NodeError::Limit { what: "entries" });
    }
    let header = d.position();
    let mut items: Vec<Item> = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let mut scratch = Vec::new();
    for _ in 0..count {
        let item = read_item(&mut d, &mut scratch)?;
        if items
            .last()
            .is_some_and(|last| last.raw_name() >= item.raw_name())
        {
            return Err(NodeError::Order);
        }
        items.push(item);
    }
    if d.position() != bytes.len() {
        return Err(NodeError::Malformed);
    }
    // The entries were compared one by one; what is left is the spelling of the header.
    let spelled = encode_part(items.len(), &[]);
    if bytes.get(..header) != Some(spelled.as_slice()) {
        return Err(NodeError::NotCanonical);
    }
    Ok(items)
}

impl Item {
    /// The name as it was found, checked or not.
    pub fn raw_name(&self) -> &[u8] {
        match self {
            Self::Entry(entry) => entry.name.as_bytes(),
            Self::Refused { name, .. } => name,
        }
    }
}

/// Encodes a list chunk.
pub fn encode_list(list: &[Reference]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * REFERENCE_BYTES + 16);
    let mut e = Encoder::new(&mut out);
    let written = e
        .map(2)
        .and_then(|e| e.u8(0))
        .and_then(|e| e.u32(TREE_VERSION))
        .and_then(|e| e.u8(1))
        .map(|_| ())
        .and_then(|()| write_references(list, &mut e));
    written.expect("memory takes every byte");
    out
}

/// Decodes a list chunk: at least one reference, at most [`LIST_MAX_REFERENCES`].
pub fn decode_list(bytes: &[u8]) -> Result<Vec<Reference>, NodeError> {
    let mut d = Decoder::new(bytes);
    read_version(&mut d, 2)?;
    if d.u8()? != 1 {
        return Err(NodeError::Malformed);
    }
    let list = read_references(d.bytes()?)?;
    if list.is_empty() {
        return Err(NodeError::Value {
            what: "list of references",
        });
    }
    if encode_list(&list) != bytes {
        return Err(NodeError::NotCanonical);
    }
    Ok(list)
}

#[cfg(test)]
#[path = "tests/node.rs"]
mod tests;
