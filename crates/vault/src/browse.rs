//! Looking into snapshots without restoring them: list, find, compare.
//!
//! Everything streams: entries go to a callback one at a time, and memory does not grow with the
//! snapshot. Paths are relative to the top of the snapshot.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::chunk::ChunkId;
use crate::node::{self, Entry, Item, Kind, References, Root};
use crate::reader::Reader;
use crate::tree::{self, ChunkSource, DirectoryReader, Step, TreeError, TreeWalk, WALK_MAX_BYTES};

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
    reader: &mut Reader<'_>,
    root: ChunkId,
    path: &Path,
) -> Result<Option<Entry>, BrowseError> {
    let record = tree::read_root(root, reader)?;
    Ok(match look_up(&record, path, reader)? {
        Some(Found::Entry(entry)) => Some(*entry),
        Some(Found::Top(_)) | None => None,
    })
}

/// The root record of a snapshot: where its sources were.
pub fn root(reader: &mut Reader<'_>, root: ChunkId) -> Result<Root, BrowseError> {
    Ok(tree::read_root(root, reader)?)
}

/// Lists what is at `path`: a directory's entries, or the one entry that is not a directory.
/// `recursive` goes into every directory below. The callback may stop the listing.
pub fn list(
    reader: &mut Reader<'_>,
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
        Some(Found::Top(parts)) => visit(parts, clean, recursive, reader, each),
        Some(Found::Entry(entry)) => match entry.kind {
            Kind::Directory { parts } => visit(parts, clean, recursive, reader, each),
            _ => {
                let _ = each(&clean, &Item::Entry(*entry));
                Ok(())
            }
        },
    }
}

/// Finds entries by a pattern in the syntax of `.gitignore`: `*.c` anywhere, `/a/*` at its place. The callback is given
/// every entry that is looked at, with whether it fits, and may stop the search at each.
pub fn find(
    reader: &mut Reader<'_>,
    root: ChunkId,
    pattern: &str,
    each: &mut dyn FnMut(&Path, &Item, bool) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    let matcher = pattern_matcher(pattern)?;
    let record = tree::read_root(root, reader)?;
    visit(
        record.parts,
        PathBuf::new(),
        true,
        reader,
        &mut |path, item| {
            let is_directory = matches!(
                item,
                Item::Entry(Entry {
                    kind: Kind::Directory { .. },
                    ..
                })
            );
            let fits = matcher.matched(path, is_directory).is_ignore();
            each(path, item, fits)
        },
    )
}

/// Whether a pattern can be looked for at all.
pub fn check_pattern(pattern: &str) -> Result<(), BrowseError> {
    pattern_matcher(pattern).map(drop)
}

fn pattern_matcher(pattern: &str) -> Result<Gitignore, BrowseError> {
    let wrap = |source| BrowseError::Pattern {
        pattern: pattern.to_owned(),
        source,
    };
    let mut builder = GitignoreBuilder::new("");
    builder.add_line(None, pattern).map_err(wrap)?;
    builder.build().map_err(wrap)
}

fn visit(
    parts: References,
    mut path: PathBuf,
    recursive: bool,
    source: &mut dyn ChunkSource,
    each: &mut dyn FnMut(&Path, &Item) -> ControlFlow<()>,
) -> Result<(), BrowseError> {
    let mut walk = TreeWalk::new(parts);
    while let Some(step) = walk.next(source)? {
        let item = match step {
            Step::Leave => {
                path.pop();
                continue;
            }
            Step::Item(item) => item,
        };
        path.push(OsStr::from_bytes(item.raw_name()));
        if let Item::Refused { name, .. } = &item {
            // A refused name may itself be a path; it is shown as the last component, whatever it holds.
            path.pop();
            let shown = path.join(String::from_utf8_lossy(name).replace('/', "\u{2215}"));
            if each(&shown, &item).is_break() {
                return Ok(());
            }
            continue;
        }
        if each(&path, &item).is_break() {
            return Ok(());
        }
        match item {
            Item::Entry(Entry {
                kind: Kind::Directory { parts },
                ..
            }) if recursive => walk.enter(parts)?,
            _ => {
                path.pop();
            }
        }
    }
    Ok(())
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
