//! Writes content pack by pack, then everything that has none, then the attributes of directories.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use rusqlite::Rows;
use rustix::io::Errno;

use super::plan::{
    DIRECTORY_BLOCKED, FILE_DONE, FILE_FAILED, FILE_PLANNED, FILE_STARTED, FileRow, PieceRow, Plan,
    TOP,
};
use super::target::{Target, path_of};
use super::{Context, RestoreError};
use crate::chunk::ChunkId;
use crate::index::Place;
use crate::keys::VaultKeys;
use crate::node::Kind;
use crate::ports::SourceError;
use crate::reader::{OpenPack, ReadError, Reader};
use crate::report::ProblemKind;
use crate::sys::{self, FileKind};

/// Most files that are open for more pieces at once.
const OPEN_FILES_MAX: usize = 64;

/// Most pieces of one frame that are handled together: a chunk that a million files share must not
/// take a million rows of memory.
const BATCH_PIECES: usize = 4096;

/// A file that waits for more pieces.
struct OpenFile {
    file: OwnedFd,
    directory: Rc<OwnedFd>,
    row: FileRow,
    used: u64,
}

struct Filler<'a, 'b, 'c> {
    plan: &'a Plan,
    target: &'a mut Target,
    context: &'a mut Context<'b>,
    keys: &'c VaultKeys,
    open: HashMap<i64, OpenFile>,
    clock: u64,
}

/// Writes all content that is not there yet.
pub(super) fn fill(
    plan: &Plan,
    target: &mut Target,
    context: &mut Context<'_>,
    keys: &VaultKeys,
    reader: &Reader<'_>,
) -> Result<(), RestoreError> {
    let mut statement = plan.connection.prepare(
        "SELECT pack, frame, offset, length, chunk, file, skip, at, count FROM piece
         WHERE (SELECT state FROM file WHERE id = piece.file) = 0
         ORDER BY pack, frame, offset, file, at",
    )?;
    let mut rows = statement.query([])?;
    let mut filler = Filler {
        plan,
        target,
        context,
        keys,
        open: HashMap::new(),
        clock: 0,
    };
    let mut pack: Option<(i64, Option<OpenPack>)> = None;
    let mut carried = None;
    let mut batch = Vec::new();
    let mut scratch = Vec::new();
    while next_batch(&mut rows, &mut carried, &mut batch)? {
        filler.context.check_cancel()?;
        let Some(first) = batch.first() else { break };
        let (number, frame) = (first.place.pack_number, first.place.frame);
        if pack.as_ref().is_none_or(|(open, _)| *open != number) {
            // The old pack's memory is given back before the next one is fetched.
            drop(pack.take());
            pack = Some((number, filler.open_pack(number, reader)?));
        }
        let Some((_, Some(open))) = &pack else {
            filler.fail_all(&batch)?;
            continue;
        };
        let plaintext = open
            .frame(frame, &mut scratch)
            .map_err(RestoreError::Read)?;
        filler.write_batch(&mut batch, open, plaintext)?;
    }
    Ok(())
}

/// Reads the pieces of one frame, at most [`BATCH_PIECES`] of them.
fn next_batch(
    rows: &mut Rows<'_>,
    carried: &mut Option<PieceRow>,
    batch: &mut Vec<PieceRow>,
) -> Result<bool, RestoreError> {
    batch.clear();
    batch.extend(carried.take());
    while batch.len() < BATCH_PIECES {
        let Some(row) = rows.next()? else { break };
        let piece = read_piece(row)?;
        let same = batch.first().is_none_or(|first| {
            first.place.pack_number == piece.place.pack_number
                && first.place.frame == piece.place.frame
        });
        if !same {
            *carried = Some(piece);
            break;
        }
        batch.push(piece);
    }
    Ok(!batch.is_empty())
}

fn read_piece(row: &rusqlite::Row<'_>) -> Result<PieceRow, RestoreError> {
    let chunk: [u8; 32] = row.get(4)?;
    let at: i64 = row.get(7)?;
    Ok(PieceRow {
        chunk: ChunkId::from_bytes(chunk),
        place: Place {
            // Filled in when the pack is opened.
            pack: candor_wire::ObjectId::from_bytes([0; 32]),
            pack_number: row.get(0)?,
            frame: row.get(1)?,
            offset: row.get(2)?,
            length: row.get(3)?,
        },
        file: row.get(5)?,
        skip: row.get(6)?,
        at: at.unsigned_abs(),
        count: row.get(8)?,
    })
}

impl Filler<'_, '_, '_> {
    /// Fetches and verifies a pack. `None`: the cell does not have it, and its files are listed.
    fn open_pack(
        &mut self,
        number: i64,
        reader: &Reader<'_>,
    ) -> Result<Option<OpenPack>, RestoreError> {
        let Some(object) = self.plan.pack(number)? else {
            return Ok(None);
        };
        match reader.open_pack(object) {
            Ok(pack) => Ok(Some(pack)),
            Err(ReadError::Source(SourceError::Missing { .. })) => Ok(None),
            Err(error) => Err(RestoreError::Read(error)),
        }
    }

    fn fail_all(&mut self, batch: &[PieceRow]) -> Result<(), RestoreError> {
        for piece in batch {
            if let Some(row) = self.plan.file(piece.file)?
                && row.state != FILE_FAILED
            {
                self.fail(&row, ProblemKind::Damaged)?;
            }
        }
        Ok(())
    }

    /// Lists a file as not restored and removes what there is of it.
    fn fail(&mut self, row: &FileRow, kind: ProblemKind) -> Result<(), RestoreError> {
        let open = self.open.remove(&row.id);
        if let Some(open) = open {
            // What cannot be removed is found and removed by the next restore.
            let _ = sys::remove_file(
                &*open.directory,
                self.target.temporary_name(row.id).as_str(),
            );
        } else if row.state == FILE_STARTED {
            remove_temporary(self.plan, self.target, self.context, row)?;
        }
        self.plan.set_file(row.id, FILE_FAILED)?;
        let path = path_of(self.plan, row.directory)?;
        self.context
            .outcome
            .problems
            .add(&super::join(&path, row.entry.name.as_bytes()), kind);
        self.context.progress.advance(1, 0);
        Ok(())
    }

    fn write_batch(
        &mut self,
        batch: &mut [PieceRow],
        pack: &OpenPack,
        frame: &[u8],
    ) -> Result<(), RestoreError> {
        let mut verified: Option<(ChunkId, u32, &[u8])> = None;
        for piece in batch {
            piece.place.pack = pack.object();
            let known = verified
                .filter(|(id, offset, _)| *id == piece.chunk && *offset == piece.place.offset);
            let chunk = match known {
                Some((_, _, chunk)) => chunk,
                None => pack
                    .verify(self.keys, piece.chunk, &piece.place, frame)
                    .map_err(RestoreError::Read)?,
            };
            verified = Some((piece.chunk, piece.place.offset, chunk));
            let end = piece.skip as usize + piece.count as usize;
            let Some(bytes) = chunk.get(piece.skip as usize..end) else {
                continue;
            };
            self.write_piece(piece, bytes)?;
        }
        Ok(())
    }

    fn write_piece(&mut self, piece: &PieceRow, bytes: &[u8]) -> Result<(), RestoreError> {
        if !self.open.contains_key(&piece.file) {
            let Some(row) = self.plan.file(piece.file)? else {
                return Ok(());
            };
            if row.state == FILE_FAILED || row.state == FILE_DONE {
                return Ok(());
            }
            let Some(directory) =
                self.target
                    .directory(row.directory, true, self.plan, self.context)?
            else {
                return self.fail(&row, ProblemKind::ParentMissing);
            };
            if row.pieces == 1 {
                return self.write_whole(&row, &directory, piece.at, bytes);
            }
            match self.open_for_pieces(&row, &directory) {
                Ok(file) => self.keep_open(OpenFile {
                    file,
                    directory,
                    row,
                    used: 0,
                })?,
                Err(errno) => return self.refuse(&row, errno),
            }
        }
        self.clock += 1;
        let clock = self.clock;
        let Some(open) = self.open.get_mut(&piece.file) else {
            return Ok(());
        };
        open.used = clock;
        let written = sys::write_at(&open.file, bytes, piece.at);
        self.advance(0, bytes.len());
        if let Err(errno) = written {
            return match self.open.get(&piece.file).map(|open| open.row.id) {
                Some(id) => match self.plan.file(id)? {
                    Some(row) => self.refuse(&row, errno),
                    None => Ok(()),
                },
                None => Ok(()),
            };
        }
        let count = self.plan.count_piece(piece.file)?;
        if self
            .open
            .get(&piece.file)
            .is_some_and(|open| open.row.pieces == count)
            && let Some(open) = self.open.remove(&piece.file)
        {
            self.appear(&open.row, &open.directory, &open.file)?;
        }
        Ok(())
    }

    fn advance(&mut self, files: u64, bytes: usize) {
        self.context.outcome.bytes_written += bytes as u64;
        self.context.progress.advance(files, bytes as u64);
    }

    fn refuse(&mut self, row: &FileRow, errno: Errno) -> Result<(), RestoreError> {
        if Context::is_fatal(errno) {
            return Err(self.context.fatal(errno));
        }
        self.fail(row, ProblemKind::Unwritable(errno))
    }

    /// Opens the temporary file of a file with several pieces, making it at the first.
    fn open_for_pieces(&mut self, row: &FileRow, directory: &OwnedFd) -> Result<OwnedFd, Errno> {
        let name = self.target.temporary_name(row.id);
        if row.state == FILE_STARTED {
            return sys::reopen_file_beneath(directory, name.as_str());
        }
        let file = sys::create_file(directory, name.as_str())?;
        if let Kind::File { size, .. } = row.entry.kind {
            sys::set_length(&file, size).inspect_err(|_| {
                let _ = sys::remove_file(directory, name.as_str());
            })?;
        }
        Ok(file)
    }

    fn keep_open(&mut self, open: OpenFile) -> Result<(), RestoreError> {
        if open.row.state == FILE_PLANNED {
            self.plan.set_file(open.row.id, FILE_STARTED)?;
        }
        if self.open.len() >= OPEN_FILES_MAX {
            let oldest = self
                .open
                .iter()
                .min_by_key(|(_, open)| open.used)
                .map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.open.remove(&oldest);
            }
        }
        let mut open = open;
        open.row.state = FILE_STARTED;
        self.open.insert(open.row.id, open);
        Ok(())
    }

    /// Writes a file that is one piece.
    fn write_whole(
        &mut self,
        row: &FileRow,
        directory: &OwnedFd,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), RestoreError> {
        let name = self.target.temporary_name(row.id);
        let Kind::File { size, .. } = row.entry.kind else {
            return Ok(());
        };
        let made = sys::create_file(directory, name.as_str()).and_then(|file| {
            let written = sys::write_at(&file, bytes, at).and_then(|()| {
                if size == at + bytes.len() as u64 {
                    Ok(())
                } else {
                    sys::set_length(&file, size)
                }
            });
            written.map(|()| file).inspect_err(|_| {
                let _ = sys::remove_file(directory, name.as_str());
            })
        });
        self.advance(0, bytes.len());
        match made {
            Ok(file) => self.appear(row, directory, &file),
            Err(errno) => self.refuse(row, errno),
        }
    }

    /// Gives a whole file its attributes and its name.
    fn appear(
        &mut self,
        row: &FileRow,
        directory: &OwnedFd,
        file: &OwnedFd,
    ) -> Result<(), RestoreError> {
        appear(self.plan, self.target, self.context, row, directory, file)
    }
}

fn appear(
    plan: &Plan,
    target: &Target,
    context: &mut Context<'_>,
    row: &FileRow,
    directory: &OwnedFd,
    file: &OwnedFd,
) -> Result<(), RestoreError> {
    let temporary = target.temporary_name(row.id);
    context.dress(file, &row.entry);
    let renamed = sys::rename_new(directory, temporary.as_bytes(), row.entry.name.as_bytes());
    if let Err(errno) = renamed {
        let _ = sys::remove_file(directory, temporary.as_str());
        context.noted.clear();
        context.noted.push(match errno {
            Errno::EXIST => ProblemKind::Collision,
            errno => ProblemKind::Unwritable(errno),
        });
        plan.set_file(row.id, FILE_FAILED)?;
    } else {
        context.outcome.files += 1;
        if row.pieces != 1 {
            plan.set_file(row.id, FILE_DONE)?;
        }
    }
    context.progress.advance(1, 0);
    context.report(|| file_path(plan, row))
}

fn file_path(plan: &Plan, row: &FileRow) -> Result<PathBuf, RestoreError> {
    Ok(super::join(
        &path_of(plan, row.directory)?,
        row.entry.name.as_bytes(),
    ))
}

fn remove_temporary(
    plan: &Plan,
    target: &mut Target,
    context: &mut Context<'_>,
    row: &FileRow,
) -> Result<(), RestoreError> {
    if let Some(directory) = target.directory(row.directory, false, plan, context)? {
        let _ = sys::remove_file(&*directory, target.temporary_name(row.id).as_str());
    }
    Ok(())
}

/// Removes every unfinished file after the restore ended early. Does what it can: what it cannot
/// remove is removed by the next restore.
pub(super) fn remove_unfinished(plan: &Plan, target: &mut Target, context: &mut Context<'_>) {
    let mut last = 0;
    while let Ok(Some(id)) = next_file(plan, last, "state = 1") {
        last = id;
        if let Ok(Some(row)) = plan.file(id) {
            let _ = remove_temporary(plan, target, context, &row);
        }
    }
}

fn next_file(plan: &Plan, after: i64, which: &'static str) -> Result<Option<i64>, RestoreError> {
    use rusqlite::OptionalExtension;
    let sql = format!("SELECT id FROM file WHERE id > ?1 AND {which} ORDER BY id LIMIT 1");
    let id = plan
        .connection
        .prepare_cached(&sql)?
        .query_row([after], |row| row.get(0))
        .optional()?;
    Ok(id)
}

/// Makes everything without content, joins hard links, and dresses the directories.
pub(super) fn finish(
    plan: &Plan,
    target: &mut Target,
    context: &mut Context<'_>,
) -> Result<(), RestoreError> {
    for which in [
        "pieces = 0 AND state = 0 AND link_to IS NULL",
        "state = 0 AND link_to IS NOT NULL",
    ] {
        let mut last = 0;
        while let Some(id) = next_file(plan, last, which)? {
            last = id;
            context.check_cancel()?;
            let Some(row) = plan.file(id)? else { continue };
            make(plan, target, context, &row)?;
        }
    }
    for id in (TOP + 1..=plan.last_directory()?).rev() {
        context.check_cancel()?;
        if plan.directory(id)?.state == DIRECTORY_BLOCKED {
            continue;
        }
        let Some(directory) = target.directory(id, true, plan, context)? else {
            continue;
        };
        if let Some(entry) = plan.directory_entry(id)? {
            context.dress(&directory, &entry);
            context.outcome.directories += 1;
            context.report(|| path_of(plan, id))?;
        }
    }
    Ok(())
}

/// Makes one entry that has no content of its own.
fn make(
    plan: &Plan,
    target: &mut Target,
    context: &mut Context<'_>,
    row: &FileRow,
) -> Result<(), RestoreError> {
    let refused = match row.entry.kind {
        Kind::Socket => Some(ProblemKind::Socket),
        Kind::CharacterDevice { .. } | Kind::BlockDevice { .. } if !context.job.privileged => {
            Some(ProblemKind::DeviceNode)
        }
        _ => None,
    };
    let directory = match &refused {
        Some(_) => None,
        None => target.directory(row.directory, true, plan, context)?,
    };
    let (made, directory) = match (refused, directory) {
        (Some(kind), _) => (Err(kind), None),
        (None, None) => (Err(ProblemKind::ParentMissing), None),
        (None, Some(directory)) => {
            if row.link_to.is_none() && matches!(row.entry.kind, Kind::File { .. }) {
                return make_hollow(plan, target, context, row, &directory);
            }
            let made = match row.link_to {
                Some(first) => join_link(plan, target, context, row, first, &directory)?,
                None => make_special(&directory, row),
            };
            if let Err(errno) = made
                && Context::is_fatal(errno)
            {
                return Err(context.fatal(errno));
            }
            (made.map_err(problem_of), Some(directory))
        }
    };
    context.progress.advance(1, 0);
    match made {
        Ok(()) => {
            context.outcome.files += 1;
            if row.link_to.is_none()
                && let Some(directory) = directory
            {
                let has_mode = !matches!(row.entry.kind, Kind::Symlink { .. });
                context.dress_named(
                    directory.as_fd(),
                    row.entry.name.as_bytes(),
                    &row.entry,
                    has_mode,
                );
            }
        }
        Err(kind) => {
            plan.set_file(row.id, FILE_FAILED)?;
            context.noted.push(kind);
        }
    }
    context.report(|| file_path(plan, row))
}

fn problem_of(errno: Errno) -> ProblemKind {
    match errno {
        Errno::EXIST => ProblemKind::Collision,
        errno => ProblemKind::Unwritable(errno),
    }
}

/// Makes a file that is empty or one hole.
fn make_hollow(
    plan: &Plan,
    target: &mut Target,
    context: &mut Context<'_>,
    row: &FileRow,
    directory: &OwnedFd,
) -> Result<(), RestoreError> {
    let name = target.temporary_name(row.id);
    let Kind::File { size, .. } = row.entry.kind else {
        return Ok(());
    };
    let made = sys::create_file(directory, name.as_str()).and_then(|file| {
        let sized = if size == 0 {
            Ok(())
        } else {
            sys::set_length(&file, size)
        };
        sized.map(|()| file).inspect_err(|_| {
            let _ = sys::remove_file(directory, name.as_str());
        })
    });
    match made {
        Ok(file) => appear(plan, target, context, row, directory, &file),
        Err(errno) if Context::is_fatal(errno) => Err(context.fatal(errno)),
        Err(errno) => {
            plan.set_file(row.id, FILE_FAILED)?;
            context.noted.push(problem_of(errno));
            context.report(|| file_path(plan, row))
        }
    }
}

fn join_link(
    plan: &Plan,
    target: &mut Target,
    context: &mut Context<'_>,
    row: &FileRow,
    first: i64,
    directory: &OwnedFd,
) -> Result<Result<(), Errno>, RestoreError> {
    let Some(first) = plan.file(first)? else {
        return Ok(Err(Errno::NOENT));
    };
    if first.state == FILE_FAILED {
        return Ok(Err(Errno::NOENT));
    }
    let Some(other) = target.directory(first.directory, true, plan, context)? else {
        return Ok(Err(Errno::NOENT));
    };
    let (old, new) = (first.entry.name.as_bytes(), row.entry.name.as_bytes());
    Ok(sys::hard_link(&*other, old, directory, new))
}

fn make_special(directory: &OwnedFd, row: &FileRow) -> Result<(), Errno> {
    let name = row.entry.name.as_bytes();
    match &row.entry.kind {
        Kind::Symlink { target } => sys::create_symlink(target.as_slice(), directory, name),
        Kind::Fifo => sys::create_special(directory, name, FileKind::Fifo, 0, 0),
        Kind::CharacterDevice { major, minor } => {
            sys::create_special(directory, name, FileKind::CharacterDevice, *major, *minor)
        }
        Kind::BlockDevice { major, minor } => {
            sys::create_special(directory, name, FileKind::BlockDevice, *major, *minor)
        }
        Kind::File { .. } | Kind::Directory { .. } | Kind::Socket => Err(Errno::INVAL),
    }
}
