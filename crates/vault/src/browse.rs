//! Looking into snapshots without restoring them: list, find, compare.
//!
//! Everything streams: entries go to a callback one at a time, and memory does not grow with the
//! snapshot. Paths are relative to the top of the snapshot.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::chunk::ChunkId;
use crate::node::{self, Entry, Item, Kind, References, Root};
use crate::random::RandomReader;
use crate::reader::Reader;
use crate::tree::{self, ChunkSource, DirectoryReader, Step, TreeError, TreeWalk, WALK_MAX_BYTES};

/// Folders without a hit that a search remembers, 32 bytes for each.
const BARREN_MAX: usize = 1 << 18;

/// Longest pattern, in bytes: what understands it goes deeper with each nested brace.
pub const PATTERN_MAX_BYTES: usize = 1024;

/// Why a snapshot could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// The tree could not be read.
    #[error("the tree of the snapshot could not be read")]
    Tree(#[source] TreeError),
    /// The path is not in the snapshot.
    #[error("{path:?} is not in the snapshot")]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// The pattern is longer than any that is understood.
    #[error("the pattern is longer than {PATTERN_MAX_BYTES} bytes")]
    LongPattern,
    /// The pattern is not a glob.
    #[error("the pattern {pattern:?} cannot be understood")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What the glob parser says.
        #[source]
        source: ignore::Error,
    },
}

impl From<TreeError> for BrowseError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

/// What a path leads to.
enum Found {
    Top(References),
    Entry(Box<Entry>),
}

fn components(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    })
}

fn look_up(
    root: &Root,
    path: &Path,
    source: &mut dyn ChunkSource,
) -> Result<Option<Found>, TreeError> {
    let mut found = Found::Top(root.parts.clone());
    for name in components(path) {
        let parts = match found {
            Found::Top(parts) => parts,
            Found::Entry(entry) => match entry.kind {
                Kind::Directory { parts } => parts,
                _ => return Ok(None),
            },
        };
        match find_name(parts, name, source)? {
            Some(entry) => found = Found::Entry(Box::new(entry)),
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// The entry of a name; `None` too for one whose name no directory may hold.
pub(crate) fn find_name(
    parts: References,
    name: &[u8],
    source: &mut dyn ChunkSource,
) -> Result<Option<Entry>, TreeError> {
    let mut directory = DirectoryReader::new(parts);
    while let Some(item) = directory.next(source)? {
        match item.raw_name().cmp(name) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                return Ok(match item {
                    Item::Entry(entry) => Some(entry),
                    Item::Refused { .. } => None,
                });
            }
            std::cmp::Ordering::Greater => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether a path is in a snapshot.
pub(crate) fn exists(
    root: &Root,
    path: &Path,
    source: &mut dyn ChunkSource,
) -> Result<bool, TreeError> {
    Ok(look_up(root, path, source)?.is_some())
}

/// What is at a path of a snapshot; `None` if nothing is. The top itself has no entry.
pub fn entry(
    mut reader: &RandomReader,
    root: ChunkId,
    path: &Path,
) -> Result<Option<Entry>, BrowseError> {
    let record = tree::read_root(root, &mut reader)?;
    Ok(match look_up(&record, path, &mut reader)? {
        Some(Found::Entry(entry)) => Some(*entry),
        Some(Found::Top(_)) | None => None,
    })
}

/// Lists what is at `path`: a directory's entries, or the one entry that is not a directory. Fetches not much more than that.
/// The callback may stop the listing.
pub fn list(
    mut reader: &RandomReader,
    root: ChunkId,
    path: &Path,
    each: &mut dyn FnMut(&Path, &Item) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    list_from(&mut reader, root, path, false, each)
}

/// The same, with everything in the directories below. Fetches whole packs.
pub fn list_all(
    reader: &mut Reader<'_>,
    root: ChunkId,
    path: &Path,
    each: &mut dyn FnMut(&Path, &Item) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    list_from(reader, root, path, true, each)
}

fn list_from(
    reader: &mut dyn ChunkSource,
    root: ChunkId,
    path: &Path,
    recursive: bool,
    each: &mut dyn FnMut(&Path, &Item) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    let record = tree::read_root(root, reader)?;
    let found = look_up(&record, path, reader)?;
    let clean: PathBuf = components(path).map(OsStr::from_bytes).collect();
    match found {
        None => Err(BrowseError::NotFound {
            path: path.to_path_buf(),
        }),
        Some(Found::Top(parts)) => visit(parts, clean, reader, &mut Listing { recursive, each }),
        Some(Found::Entry(entry)) => match entry.kind {
            Kind::Directory { parts } => {
                visit(parts, clean, reader, &mut Listing { recursive, each })
            }
            _ => Ok(each(&clean, &Item::Entry(*entry))),
        },
    }
    .map(drop)
}

/// What is done with the entries of a walk.
trait Visitor {
    /// Called with each entry. Whether to go into it, if it is a directory; breaking ends the walk.
    fn see(&mut self, path: &Path, item: &Item) -> ControlFlow<(), bool>;

    /// Called after the last entry of a directory that was gone into.
    fn leave(&mut self) {}
}

struct Listing<'a> {
    recursive: bool,
    each: &'a mut dyn FnMut(&Path, &Item) -> ControlFlow<()>,
}

impl Visitor for Listing<'_> {
    fn see(&mut self, path: &Path, item: &Item) -> ControlFlow<(), bool> {
        (self.each)(path, item)?;
        ControlFlow::Continue(self.recursive)
    }
}

/// A search by a pattern in the syntax of `.gitignore`: `*.c` anywhere, `/a/*` at its place. It goes through one snapshot after the
/// other, and reads a directory in which nothing fits once, however many of them have it.
pub struct Search {
    matcher: Gitignore,
    /// Directories, at their places, in which nothing fits.
    barren: HashSet<blake3::Hash>,
}

impl Search {
    /// A search that has not begun.
    pub fn new(pattern: &str) -> Result<Self, BrowseError> {
        if pattern.len() > PATTERN_MAX_BYTES {
            return Err(BrowseError::LongPattern);
        }
        let wrap = |source| BrowseError::Pattern {
            pattern: pattern.to_owned(),
            source,
        };
        let mut builder = GitignoreBuilder::new("");
        builder.add_line(None, pattern).map_err(wrap)?;
        Ok(Self {
            matcher: builder.build().map_err(wrap)?,
            barren: HashSet::new(),
        })
    }

    /// Looks through a snapshot. The callback is given every entry that is looked at, with whether it fits, and may stop the search
    /// at each.
    pub fn run(
        &mut self,
        reader: &mut Reader<'_>,
        root: ChunkId,
        each: &mut dyn FnMut(&Path, &Item, bool) -> ControlFlow<()>,
    ) -> Result<(), BrowseError> {
        let parts = tree::read_root(root, reader)?.parts;
        let top = place(Path::new(""), &parts);
        if self.barren.contains(&top) {
            return Ok(());
        }
        let mut looking = Looking {
            search: self,
            within: vec![(top, false)],
            each,
        };
        if visit(parts, PathBuf::new(), reader, &mut looking)?.is_continue() {
            looking.leave();
        }
        Ok(())
    }
}

/// A directory and where it is: patterns may name places.
fn place(path: &Path, parts: &References) -> blake3::Hash {
    let path = path.as_os_str().as_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(path.len() as u64).to_le_bytes());
    hasher.update(path);
    hasher.update(&[parts.levels]);
    for part in &parts.list {
        hasher.update(part.id.as_bytes());
    }
    hasher.finalize()
}

/// A search within one snapshot.
struct Looking<'a> {
    search: &'a mut Search,
    /// The directories that it is in, and whether something in them fits.
    within: Vec<(blake3::Hash, bool)>,
    each: &'a mut dyn FnMut(&Path, &Item, bool) -> ControlFlow<()>,
}

impl Visitor for Looking<'_> {
    fn see(&mut self, path: &Path, item: &Item) -> ControlFlow<(), bool> {
        let parts = match item {
            Item::Entry(Entry {
                kind: Kind::Directory { parts },
                ..
            }) => Some(parts),
            _ => None,
        };
        let fits = self.search.matcher.matched(path, parts.is_some());
        let fits = fits.is_ignore();
        if fits && let Some((_, has_some)) = self.within.last_mut() {
            *has_some = true;
        }
        (self.each)(path, item, fits)?;
        let Some(parts) = parts else {
            return ControlFlow::Continue(false);
        };
        let place = place(path, parts);
        let is_barren = self.search.barren.contains(&place);
        if !is_barren {
            self.within.push((place, false));
        }
        ControlFlow::Continue(!is_barren)
    }

    fn leave(&mut self) {
        let Some((place, had_some)) = self.within.pop() else {
            return;
        };
        if !had_some {
            if self.search.barren.len() < BARREN_MAX {
                self.search.barren.insert(place);
            }
        } else if let Some((_, has_some)) = self.within.last_mut() {
            *has_some = true;
        }
    }
}

fn visit(
    parts: References,
    mut path: PathBuf,
    source: &mut dyn ChunkSource,
    visitor: &mut dyn Visitor,
) -> Result<ControlFlow<()>, BrowseError> {
    let mut walk = TreeWalk::new(parts);
    while let Some(step) = walk.next(source)? {
        let item = match step {
            Step::Leave => {
                visitor.leave();
                path.pop();
                continue;
            }
            Step::Item(item) => item,
        };
        let seen = if let Item::Refused { name, .. } = &item {
            // A refused name may itself be a path; it is shown as the last component, whatever it holds.
            let shown = path.join(String::from_utf8_lossy(name).replace('/', "\u{2215}"));
            visitor.see(&shown, &item)
        } else {
            path.push(OsStr::from_bytes(item.raw_name()));
            visitor.see(&path, &item)
        };
        let ControlFlow::Continue(wanted) = seen else {
            return Ok(ControlFlow::Break(()));
        };
        match item {
            Item::Entry(Entry {
                kind: Kind::Directory { parts },
                ..
            }) if wanted => walk.enter(parts)?,
            Item::Entry(_) => {
                path.pop();
            }
            Item::Refused { .. } => {}
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// How one path differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only the second has it.
    Added(Entry),
    /// Only the first has it.
    Removed(Entry),
    /// Both have it, and it is not the same.
    Changed {
        /// As the first has it.
        before: Entry,
        /// As the second has it.
        after: Entry,
        /// Whether its kind or content differs, and not only mode, owner, times or attributes.
        content: bool,
    },
}

/// Compares two snapshots, in the order of their paths. Directories that are the same chunk are
/// not read. The callback may stop the comparison.
pub fn compare(
    reader: &mut Reader<'_>,
    before: ChunkId,
    after: ChunkId,
    each: &mut dyn FnMut(&Path, &Difference) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    let before = tree::read_root(before, reader)?;
    let after = tree::read_root(after, reader)?;
    if before.parts == after.parts {
        return Ok(());
    }
    let mut stack = vec![Pair::new(before.parts, after.parts)];
    let mut path = PathBuf::new();
    while let Some(pair) = stack.last_mut() {
        let Some(both) = pair.next(reader)? else {
            stack.pop();
            path.pop();
            continue;
        };
        let (name, difference, parts) = judge(both);
        path.push(OsStr::from_bytes(&name));
        if let Some(difference) = difference
            && each(&path, &difference).is_break()
        {
            return Ok(());
        }
        let Some((a, b)) = parts else {
            path.pop();
            continue;
        };
        let retained: usize = stack.iter().map(Pair::retained).sum();
        if stack.len() >= node::DEPTH_MAX || retained > WALK_MAX_BYTES {
            return Err(TreeError::TooDeep.into());
        }
        stack.push(Pair::new(a, b));
    }
    Ok(())
}

/// The entries of one name on both sides.
enum Both {
    Before(Entry),
    After(Entry),
    Each(Box<(Entry, Entry)>),
}

fn parts_of(entry: &Entry) -> References {
    match &entry.kind {
        Kind::Directory { parts } => parts.clone(),
        _ => References::default(),
    }
}

/// The name, what is different, and the directories to go into.
#[allow(clippy::type_complexity)]
fn judge(
    both: Both,
) -> (
    Vec<u8>,
    Option<Difference>,
    Option<(References, References)>,
) {
    match both {
        Both::Before(entry) => {
            let parts = parts_of(&entry);
            let deeper = (!parts.list.is_empty()).then(|| (parts, References::default()));
            (
                entry.name.as_bytes().to_vec(),
                Some(Difference::Removed(entry)),
                deeper,
            )
        }
        Both::After(entry) => {
            let parts = parts_of(&entry);
            let deeper = (!parts.list.is_empty()).then(|| (References::default(), parts));
            (
                entry.name.as_bytes().to_vec(),
                Some(Difference::Added(entry)),
                deeper,
            )
        }
        Both::Each(pair) => {
            let (before, after) = *pair;
            let name = before.name.as_bytes().to_vec();
            let (a, b) = (parts_of(&before), parts_of(&after));
            let deeper = (a != b).then_some((a, b));
            let is_directory = |entry: &Entry| matches!(entry.kind, Kind::Directory { .. });
            let content = if is_directory(&before) && is_directory(&after) {
                false
            } else {
                before.kind != after.kind
            };
            let same = !content && before.metadata == after.metadata;
            let difference = (!same).then_some(Difference::Changed {
                before,
                after,
                content,
            });
            (name, difference, deeper)
        }
    }
}

/// Two directories that are read side by side.
struct Pair {
    before: (DirectoryReader, Option<Entry>),
    after: (DirectoryReader, Option<Entry>),
}

impl Pair {
    fn new(before: References, after: References) -> Self {
        Self {
            before: (DirectoryReader::new(before), None),
            after: (DirectoryReader::new(after), None),
        }
    }

    fn retained(&self) -> usize {
        self.before.0.retained() + self.after.0.retained()
    }

    fn next(&mut self, source: &mut dyn ChunkSource) -> Result<Option<Both>, TreeError> {
        peek(&mut self.before, source)?;
        peek(&mut self.after, source)?;
        let order = match (&self.before.1, &self.after.1) {
            (None, None) => return Ok(None),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.name.cmp(&b.name),
        };
        let before = if order.is_le() {
            self.before.1.take()
        } else {
            None
        };
        let after = if order.is_ge() {
            self.after.1.take()
        } else {
            None
        };
        Ok(match (before, after) {
            (Some(a), Some(b)) => Some(Both::Each(Box::new((a, b)))),
            (Some(a), None) => Some(Both::Before(a)),
            (None, Some(b)) => Some(Both::After(b)),
            (None, None) => None,
        })
    }
}

fn peek(
    side: &mut (DirectoryReader, Option<Entry>),
    source: &mut dyn ChunkSource,
) -> Result<(), TreeError> {
    while side.1.is_none() {
        match side.0.next(source)? {
            Some(Item::Entry(entry)) => side.1 = Some(entry),
            // A refused entry is in neither side of a comparison.
            Some(Item::Refused { .. }) => {}
            None => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests/browse.rs"]
mod tests;
