//! The plan of a restore, on disk: directories, files, and pieces of content in storage order.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Context, RestoreError};
use crate::chunk::ChunkId;
use crate::index::Place;
use crate::node::{self, Entry, Extent, Item, Kind, NodeError, References};
use crate::ports::SourceError;
use crate::reader::{ReadError, Reader};
use crate::report::ProblemKind;
use crate::tree::{self, ReferenceReader, Step, TreeError, TreeWalk};

/// Row number of the target directory itself.
pub(super) const TOP: i64 = 0;

/// A directory that is still to be made or found.
pub(super) const DIRECTORY_PLANNED: i64 = 0;
/// A directory that was there before.
pub(super) const DIRECTORY_EXISTED: i64 = 1;
/// A directory that this restore made.
pub(super) const DIRECTORY_MADE: i64 = 2;
/// A directory that cannot be had; nothing below it is restored.
pub(super) const DIRECTORY_BLOCKED: i64 = 3;

/// A file of which nothing was written.
pub(super) const FILE_PLANNED: i64 = 0;
/// A file of which a part lies under its temporary name.
pub(super) const FILE_STARTED: i64 = 1;
/// A file that is as it should be.
pub(super) const FILE_DONE: i64 = 2;
/// A file that is not restored; the reason is listed.
pub(super) const FILE_FAILED: i64 = 3;

/// The plan. Its file has no name: it is gone with this process, however that ends.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) connection: Connection,
}

/// A planned directory.
#[derive(Debug)]
pub(super) struct DirectoryRow {
    pub(super) parent: i64,
    pub(super) name: Vec<u8>,
    pub(super) state: i64,
}

/// A planned file, or anything else that is not a directory.
#[derive(Debug)]
pub(super) struct FileRow {
    pub(super) id: i64,
    pub(super) directory: i64,
    pub(super) entry: Entry,
    pub(super) pieces: i64,
    pub(super) state: i64,
    pub(super) link_to: Option<i64>,
}

/// A piece of a file: where it is stored, and where it goes.
#[derive(Debug, Clone)]
pub(super) struct PieceRow {
    pub(super) chunk: ChunkId,
    pub(super) place: Place,
    pub(super) file: i64,
    pub(super) skip: u32,
    pub(super) at: u64,
    pub(super) count: u32,
}

impl Plan {
    /// Makes an empty plan in the caller's directory.
    pub(super) fn create(scratch: &Path, random: [u8; 16]) -> Result<Self, RestoreError> {
        let name = format!("restore-{}.plan", candor_wire::ids::to_hex(&random));
        let path = scratch.join(name);
        let connection = Connection::open(&path)?;
        // SQLite keeps its descriptor. Without a journal it never asks for the name again.
        std::fs::remove_file(&path).map_err(|_| rusqlite::Error::InvalidPath(path))?;
        let plan = Self { connection };
        plan.connection.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA cache_size = -8192; PRAGMA temp_store = FILE;
             CREATE TABLE directory (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL,
                 entry BLOB NOT NULL, state INTEGER NOT NULL);
             CREATE TABLE file (id INTEGER PRIMARY KEY, directory INTEGER NOT NULL, entry BLOB NOT NULL,
                 pieces INTEGER NOT NULL, written INTEGER NOT NULL, state INTEGER NOT NULL, link_to INTEGER);
             CREATE TABLE pack (number INTEGER PRIMARY KEY, object BLOB NOT NULL);
             CREATE TABLE piece (pack INTEGER NOT NULL, frame INTEGER NOT NULL, offset INTEGER NOT NULL,
                 length INTEGER NOT NULL, chunk BLOB NOT NULL, file INTEGER NOT NULL,
                 skip INTEGER NOT NULL, at INTEGER NOT NULL, count INTEGER NOT NULL);
             CREATE TABLE link (key BLOB PRIMARY KEY, file INTEGER NOT NULL) WITHOUT ROWID;
             BEGIN;",
        )?;
        Ok(plan)
    }

    /// How many files there are, and how many bytes will be written.
    pub(super) fn totals(&self) -> Result<(u64, u64), RestoreError> {
        let files: i64 = self
            .connection
            .query_row("SELECT count(*) FROM file", [], |row| row.get(0))?;
        let bytes: i64 =
            self.connection
                .query_row("SELECT coalesce(sum(count), 0) FROM piece", [], |row| {
                    row.get(0)
                })?;
        Ok((files.unsigned_abs(), bytes.unsigned_abs()))
    }

    fn add_directory(&self, id: i64, parent: i64, entry: &Entry) -> Result<(), RestoreError> {
        let mut bare = entry.clone();
        bare.kind = Kind::Directory {
            parts: References::default(),
        };
        let mut encoded = Vec::new();
        node::encode_entry(&bare, &mut encoded);
        self.connection
            .prepare_cached("INSERT INTO directory VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                id,
                parent,
                entry.name.as_bytes(),
                encoded,
                DIRECTORY_PLANNED
            ])?;
        Ok(())
    }

    /// A directory's place in the tree.
    pub(super) fn directory(&self, id: i64) -> Result<DirectoryRow, RestoreError> {
        let row = self
            .connection
            .prepare_cached("SELECT parent, name, state FROM directory WHERE id = ?1")?
            .query_row([id], |row| {
                Ok(DirectoryRow {
                    parent: row.get(0)?,
                    name: row.get(1)?,
                    state: row.get(2)?,
                })
            })?;
        Ok(row)
    }

    /// A directory's entry, without its parts.
    pub(super) fn directory_entry(&self, id: i64) -> Result<Option<Entry>, RestoreError> {
        let encoded: Vec<u8> = self
            .connection
            .prepare_cached("SELECT entry FROM directory WHERE id = ?1")?
            .query_row([id], |row| row.get(0))?;
        Ok(node::decode_entry(&encoded).ok())
    }

    /// The largest row number of a directory; numbers below it down to one are all there, parents
    /// before their children.
    pub(super) fn last_directory(&self) -> Result<i64, RestoreError> {
        let last =
            self.connection
                .query_row("SELECT coalesce(max(id), 0) FROM directory", [], |row| {
                    row.get(0)
                })?;
        Ok(last)
    }

    pub(super) fn set_directory(&self, id: i64, state: i64) -> Result<(), RestoreError> {
        self.connection
            .prepare_cached("UPDATE directory SET state = ?2 WHERE id = ?1")?
            .execute([id, state])?;
        Ok(())
    }

    pub(super) fn set_file(&self, id: i64, state: i64) -> Result<(), RestoreError> {
        self.connection
            .prepare_cached("UPDATE file SET state = ?2 WHERE id = ?1")?
            .execute([id, state])?;
        Ok(())
    }

    /// Counts one more written piece of a file, and returns how many there are now.
    pub(super) fn count_piece(&self, id: i64) -> Result<i64, RestoreError> {
        let written = self
            .connection
            .prepare_cached(
                "UPDATE file SET written = written + 1 WHERE id = ?1 RETURNING written",
            )?
            .query_row([id], |row| row.get(0))?;
        Ok(written)
    }

    /// A file by its number; `None` between numbers.
    pub(super) fn file(&self, id: i64) -> Result<Option<FileRow>, RestoreError> {
        let row = self
            .connection
            .prepare_cached(
                "SELECT directory, entry, pieces, state, link_to FROM file WHERE id = ?1",
            )?
            .query_row([id], |row| {
                let encoded: Vec<u8> = row.get(1)?;
                Ok((row.get(0)?, encoded, row.get(2)?, row.get(3)?, row.get(4)?))
            })
            .optional()?;
        let Some((directory, encoded, pieces, state, link_to)) = row else {
            return Ok(None);
        };
        // The plan is this process's own and was encoded a moment ago; a row that does not decode
        // any more is a file that cannot be restored.
        let Ok(entry) = node::decode_entry(&encoded) else {
            return Ok(None);
        };
        Ok(Some(FileRow {
            id,
            directory,
            entry,
            pieces,
            state,
            link_to,
        }))
    }

    /// Numbers of the files of a directory, ascending.
    pub(super) fn files_of(&self, first: i64, directory: i64) -> Result<Option<i64>, RestoreError> {
        let next = self
            .connection
            .prepare_cached(
                "SELECT id FROM file WHERE directory = ?2 AND id > ?1 ORDER BY id LIMIT 1",
            )?
            .query_row([first, directory], |row| row.get(0))
            .optional()?;
        Ok(next)
    }

    /// Numbers of the directories in a directory, ascending.
    pub(super) fn directories_of(
        &self,
        first: i64,
        parent: i64,
    ) -> Result<Option<i64>, RestoreError> {
        let next = self
            .connection
            .prepare_cached(
                "SELECT id FROM directory WHERE parent = ?2 AND id > ?1 ORDER BY id LIMIT 1",
            )?
            .query_row([first, parent], |row| row.get(0))
            .optional()?;
        Ok(next)
    }

    /// The object that a pack number stands for.
    pub(super) fn pack(&self, number: i64) -> Result<Option<candor_wire::ObjectId>, RestoreError> {
        let object: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT object FROM pack WHERE number = ?1")?
            .query_row([number], |row| row.get(0))
            .optional()?;
        Ok(object.and_then(|object| candor_wire::ObjectId::from_slice(&object)))
    }

    fn add_piece(&self, piece: &PieceRow) -> Result<(), RestoreError> {
        let place = &piece.place;
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO pack VALUES (?1, ?2)")?
            .execute(params![place.pack_number, place.pack.as_bytes().as_slice()])?;
        self.connection
            .prepare_cached("INSERT INTO piece VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
            .execute(params![
                place.pack_number,
                place.frame,
                place.offset,
                place.length,
                piece.chunk.as_bytes().as_slice(),
                piece.file,
                piece.skip,
                i64::try_from(piece.at).unwrap_or(i64::MAX),
                piece.count,
            ])?;
        Ok(())
    }

    fn add_file(&self, row: &FileRow) -> Result<(), RestoreError> {
        let mut encoded = Vec::new();
        node::encode_entry(&row.entry, &mut encoded);
        self.connection
            .prepare_cached("INSERT INTO file VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6)")?
            .execute(params![
                row.id,
                row.directory,
                encoded,
                row.pieces,
                row.state,
                row.link_to
            ])?;
        Ok(())
    }

    /// The first file of a hard link group. Two names are the same file only if everything else in
    /// their entries is the same too; a tree that says otherwise gets two files.
    fn first_of_group(&self, entry: &Entry, id: i64) -> Result<Option<i64>, RestoreError> {
        let Some(group) = entry.link else {
            return Ok(None);
        };
        let mut nameless = entry.clone();
        nameless.name = node::placeholder_name();
        let mut encoded = group.0.to_vec();
        node::encode_entry(&nameless, &mut encoded);
        let key = *blake3::hash(&encoded).as_bytes();
        let first: Option<i64> = self
            .connection
            .prepare_cached("SELECT file FROM link WHERE key = ?1")?
            .query_row([key.as_slice()], |row| row.get(0))
            .optional()?;
        if first.is_none() {
            self.connection
                .prepare_cached("INSERT INTO link VALUES (?1, ?2)")?
                .execute(params![key.as_slice(), id])?;
        }
        Ok(first)
    }
}

/// Which entries were asked for.
struct Selection {
    paths: Vec<Vec<Vec<u8>>>,
}

#[derive(PartialEq, Eq)]
enum Selected {
    No,
    /// A directory on the way to what was asked for.
    Way,
    Whole,
}

impl Selection {
    fn new(paths: &[PathBuf]) -> Self {
        let split = |path: &PathBuf| {
            path.components()
                .filter_map(|part| match part {
                    std::path::Component::Normal(name) => Some(name.as_bytes().to_vec()),
                    _ => None,
                })
                .collect()
        };
        Self {
            paths: paths.iter().map(split).collect(),
        }
    }

    fn of(&self, place: &[Vec<u8>], name: &[u8]) -> Selected {
        if self.paths.is_empty() {
            return Selected::Whole;
        }
        let mut found = Selected::No;
        for path in &self.paths {
            let depth = place.len();
            let common = path.len().min(depth);
            if path[..common] != place[..common] {
                continue;
            }
            if path.len() <= depth || (path.len() == depth + 1 && path[depth] == name) {
                return Selected::Whole;
            }
            if path[depth] == name {
                found = Selected::Way;
            }
        }
        found
    }
}

/// Reads and verifies the whole tree into the plan.
pub(super) fn read_tree(
    plan: &Plan,
    context: &mut Context<'_>,
    reader: &mut Reader<'_>,
) -> Result<(), RestoreError> {
    let root = tree::read_root(context.job.root, reader)?;
    for path in &context.job.paths {
        match crate::browse::exists(&root, path, reader) {
            Ok(true) => {}
            Ok(false) => return Err(RestoreError::NotFound { path: path.clone() }),
            // A folder on the way to it is out of reach: the walk finds that too, and tells it.
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let selection = Selection::new(&context.job.paths);
    let mut walk = TreeWalk::new(root.parts);
    let mut place: Vec<Vec<u8>> = Vec::new();
    let mut directories: Vec<i64> = vec![TOP];
    let (mut last_directory, mut last_file) = (TOP, 0);
    let mut path = PathBuf::new();
    loop {
        context.check_cancel()?;
        let step = match walk.next(reader) {
            Ok(Some(step)) => step,
            Ok(None) => break,
            // The rest of this directory is out of reach; those beside it are not.
            Err(error) if is_missing(&error) && !place.is_empty() => {
                context.outcome.problems.add(&path, ProblemKind::Damaged);
                walk.abandon();
                Step::Leave
            }
            Err(error) => return Err(error.into()),
        };
        let item = match step {
            Step::Leave => {
                place.pop();
                directories.pop();
                path.pop();
                continue;
            }
            Step::Item(item) => item,
        };
        let selected = selection.of(&place, item.raw_name());
        if selected == Selected::No {
            continue;
        }
        let entry = match item {
            Item::Entry(entry) => entry,
            Item::Refused { name, reason } => {
                context
                    .outcome
                    .problems
                    .add(&super::join(&path, &name), ProblemKind::BadName(reason));
                continue;
            }
        };
        let parent = directories.last().copied().unwrap_or(TOP);
        if let Kind::Directory { parts } = &entry.kind {
            last_directory += 1;
            plan.add_directory(last_directory, parent, &entry)?;
            walk.enter(parts.clone())?;
            path.push(entry.name.as_os_str());
            place.push(entry.name.as_bytes().to_vec());
            directories.push(last_directory);
        } else if selected == Selected::Whole {
            last_file += 1;
            let name = entry.name.clone();
            if !add_file(plan, entry, last_file, parent, reader)? {
                let path = path.join(name.as_os_str());
                context.outcome.problems.add(&path, ProblemKind::Damaged);
            }
        }
    }
    plan.connection.execute_batch(
        "CREATE INDEX file_directory ON file (directory, id);
         CREATE INDEX directory_parent ON directory (parent, id);",
    )?;
    Ok(())
}

/// Whether the cell does not have it, or the vault goes on without it since a repair. Anything else that is wrong with a
/// tree ends the restore.
fn is_missing(error: &TreeError) -> bool {
    matches!(
        error,
        TreeError::Read(
            ReadError::Source(SourceError::Missing { .. }) | ReadError::UnknownChunk { .. }
        )
    )
}

/// Plans a file. Says whether all of its list of chunks is there; if not, it counts as failed.
fn add_file(
    plan: &Plan,
    entry: Entry,
    id: i64,
    directory: i64,
    reader: &mut Reader<'_>,
) -> Result<bool, RestoreError> {
    let link_to = plan.first_of_group(&entry, id)?;
    let (mut pieces, mut state) = (0, FILE_PLANNED);
    if link_to.is_none()
        && let Kind::File {
            size,
            content,
            extents,
        } = &entry.kind
    {
        match add_content(plan, id, *size, content, extents.as_deref(), reader) {
            Ok(count) => pieces = count,
            Err(RestoreError::Tree(error)) if is_missing(&error) => state = FILE_FAILED,
            Err(error) => return Err(error),
        }
    }
    plan.add_file(&FileRow {
        id,
        directory,
        entry,
        pieces,
        state,
        link_to,
    })?;
    Ok(state == FILE_PLANNED)
}

/// Plans the pieces of a file and returns how many there are.
fn add_content(
    plan: &Plan,
    file: i64,
    size: u64,
    content: &References,
    extents: Option<&[Extent]>,
    reader: &mut Reader<'_>,
) -> Result<i64, RestoreError> {
    let whole = [Extent {
        gap: 0,
        length: size,
    }];
    let extents = extents.unwrap_or(&whole);
    let mut cursor = ExtentCursor::new(extents);
    let mut references = ReferenceReader::new(content.clone());
    let mut pieces = 0;
    while let Some(reference) = references.next(reader)? {
        let place = reader
            .locate(reference.id)
            .map_err(RestoreError::Read)?
            .ok_or(TreeError::Read(ReadError::UnknownChunk {
                chunk: reference.id,
            }))?;
        if place.length != reference.length {
            return Err(TreeError::Length {
                chunk: reference.id,
            }
            .into());
        }
        let mut skip = 0;
        while skip < reference.length {
            let Some((at, count)) = cursor.take(reference.length - skip) else {
                return Err(too_long(reference.id));
            };
            let piece = PieceRow {
                chunk: reference.id,
                place,
                file,
                skip,
                at,
                count,
            };
            plan.add_piece(&piece)?;
            pieces += 1;
            skip += count;
        }
    }
    // Lists in chunks of their own are summed up only here.
    if cursor.take(1).is_some() {
        let chunk = content
            .list
            .first()
            .map_or(ChunkId::from_bytes([0; 32]), |reference| reference.id);
        return Err(too_long(chunk));
    }
    Ok(pieces)
}

fn too_long(chunk: ChunkId) -> RestoreError {
    let source = NodeError::Value { what: "file size" };
    TreeError::Node { chunk, source }.into()
}

/// Walks the stretches of data of a file.
pub(super) struct ExtentCursor<'a> {
    extents: &'a [Extent],
    position: usize,
    start: u64,
    used: u64,
}

impl<'a> ExtentCursor<'a> {
    pub(super) fn new(extents: &'a [Extent]) -> Self {
        Self {
            extents,
            position: 0,
            start: extents.first().map_or(0, |extent| extent.gap),
            used: 0,
        }
    }

    /// Where the next bytes go, and how many of `most` lie there in one stretch.
    pub(super) fn take(&mut self, most: u32) -> Option<(u64, u32)> {
        loop {
            let extent = self.extents.get(self.position)?;
            let left = extent.length - self.used;
            if left == 0 {
                self.position += 1;
                let gap = self.extents.get(self.position)?.gap;
                self.start += extent.length + gap;
                self.used = 0;
                continue;
            }
            let count = u32::try_from(left).unwrap_or(u32::MAX).min(most);
            let at = self.start + self.used;
            self.used += u64::from(count);
            return Some((at, count));
        }
    }
}
