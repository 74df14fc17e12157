//! Compares what the target already holds with the plan. Writes nothing but removes unfinished
//! files of an earlier restore.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::attributes::needs_privilege;
use super::plan::{
    DIRECTORY_BLOCKED, DIRECTORY_EXISTED, ExtentCursor, FILE_DONE, FILE_FAILED, FileRow, Plan, TOP,
};
use super::target::{Target, path_of};
use super::{Context, RestoreError};
use crate::chunk::ChunkId;
use crate::keys::VaultKeys;
use crate::node::{Entry, Extent, Kind, References};
use crate::reader::Reader;
use crate::report::ProblemKind;
use crate::sys::{self, FileKind, Names, Status};
use crate::tree::ReferenceReader;

/// Bytes that are compared with zeros at once.
const HOLE_BUFFER_BYTES: usize = 64 * 1024;

/// Looks at every planned directory that is there already, parents first.
pub(super) fn survey(
    plan: &Plan,
    target: &mut Target,
    context: &mut Context<'_>,
    keys: &VaultKeys,
    reader: &mut Reader<'_>,
) -> Result<(), RestoreError> {
    let mut lister = sys::Lister::default();
    // A hard link is right when it is the same file as its first name, so first names come first,
    // in whatever directory they are.
    for links in [false, true] {
        for id in TOP..=plan.last_directory()? {
            context.check_cancel()?;
            if id != TOP && plan.directory(id)?.state != DIRECTORY_EXISTED {
                continue;
            }
            let Some(directory) = target.directory(id, false, plan, context)? else {
                continue;
            };
            let names = lister
                .list(directory.as_fd())
                .map_err(|errno| context.fatal(errno))?;
            if !links {
                remove_leftovers(&directory, &names);
                survey_directories(plan, target, context, id, &directory, &names)?;
            }
            let mut last = 0;
            while let Some(file) = plan.files_of(last, id)? {
                last = file;
                let Some(row) = plan.file(file)? else {
                    continue;
                };
                let is_there = names.contains(row.entry.name.as_bytes());
                if row.link_to.is_some() != links || row.state == FILE_FAILED || !is_there {
                    continue;
                }
                let right = match row.link_to {
                    Some(first) => is_link_of(plan, target, context, &directory, &row, first)?,
                    None => is_right(&directory, &row.entry, context, keys, reader)?,
                };
                settle(plan, context, &row, right)?;
            }
        }
    }
    Ok(())
}

fn settle(
    plan: &Plan,
    context: &mut Context<'_>,
    row: &FileRow,
    right: bool,
) -> Result<(), RestoreError> {
    if right {
        plan.set_file(row.id, FILE_DONE)?;
        context.outcome.already += 1;
        let bytes = if let Kind::File { size, .. } = row.entry.kind {
            size
        } else {
            0
        };
        context.progress.advance(1, bytes);
    } else {
        plan.set_file(row.id, FILE_FAILED)?;
        let path = path_of(plan, row.directory)?;
        context.outcome.problems.add(
            &super::join(&path, row.entry.name.as_bytes()),
            ProblemKind::Exists,
        );
    }
    Ok(())
}

/// Files under a temporary name belong to a restore that was killed; only this user's are touched.
fn remove_leftovers(directory: &OwnedFd, names: &Names) {
    for name in (0..names.len()).filter_map(|position| names.get(position)) {
        if Target::is_temporary_name(name)
            && sys::status(directory, name)
                .is_ok_and(|status| status.kind == FileKind::File && status.links == 1)
        {
            // One that stays is in nobody's way: new ones have other names.
            let _ = sys::remove_file(directory, name);
        }
    }
}

fn survey_directories(
    plan: &Plan,
    target: &mut Target,
    context: &mut Context<'_>,
    parent: i64,
    directory: &OwnedFd,
    names: &Names,
) -> Result<(), RestoreError> {
    let mut last = 0;
    while let Some(id) = plan.directories_of(last, parent)? {
        last = id;
        let row = plan.directory(id)?;
        if !names.contains(&row.name) {
            continue;
        }
        match sys::status(directory, row.name.as_slice()) {
            Ok(status) if status.kind == FileKind::Directory => target.found(id, plan)?,
            Ok(_) => {
                plan.set_directory(id, DIRECTORY_BLOCKED)?;
                context
                    .outcome
                    .problems
                    .add(&path_of(plan, id)?, ProblemKind::Exists);
            }
            // Gone since it was listed: it is made when it is needed.
            Err(_) => {}
        }
    }
    Ok(())
}

fn is_link_of(
    plan: &Plan,
    target: &mut Target,
    context: &mut Context<'_>,
    directory: &OwnedFd,
    row: &FileRow,
    first: i64,
) -> Result<bool, RestoreError> {
    let Some(first) = plan.file(first)? else {
        return Ok(false);
    };
    if first.state != FILE_DONE {
        return Ok(false);
    }
    let Some(other) = target.directory(first.directory, false, plan, context)? else {
        return Ok(false);
    };
    let a = sys::status(directory, row.entry.name.as_bytes());
    let b = sys::status(&*other, first.entry.name.as_bytes());
    Ok(matches!((a, b), (Ok(a), Ok(b)) if a.device == b.device && a.inode == b.inode))
}

/// Whether an entry of the target is exactly what would be restored.
fn is_right(
    directory: &OwnedFd,
    entry: &Entry,
    context: &Context<'_>,
    keys: &VaultKeys,
    reader: &mut Reader<'_>,
) -> Result<bool, RestoreError> {
    let name = entry.name.as_bytes();
    let Ok(status) = sys::status(directory, name) else {
        return Ok(false);
    };
    if !is_dressed(&status, entry, context) {
        return Ok(false);
    }
    let device = (status.device_major, status.device_minor);
    match (&entry.kind, status.kind) {
        (
            Kind::File {
                size,
                content,
                extents,
            },
            FileKind::File,
        ) => {
            if status.size != *size {
                return Ok(false);
            }
            let Ok(file) = sys::open_file_beneath(directory, name) else {
                return Ok(false);
            };
            if sys::status_of(&file).ok() != Some(status) || !has_attributes(&file, entry, context)
            {
                return Ok(false);
            }
            has_content(&file, *size, content, extents.as_deref(), keys, reader)
        }
        (Kind::Symlink { target }, FileKind::Symlink) => {
            Ok(sys::read_symlink(directory, name).is_ok_and(|found| found == *target))
        }
        (Kind::Fifo, FileKind::Fifo) => Ok(true),
        (Kind::CharacterDevice { major, minor }, FileKind::CharacterDevice)
        | (Kind::BlockDevice { major, minor }, FileKind::BlockDevice) => {
            Ok(device == (*major, *minor))
        }
        _ => Ok(false),
    }
}

fn is_dressed(status: &Status, entry: &Entry, context: &Context<'_>) -> bool {
    let metadata = &entry.metadata;
    let is_link = matches!(entry.kind, Kind::Symlink { .. });
    (is_link || status.mode == context.mode_for(metadata))
        && status.mtime == metadata.mtime.0
        && (!context.superuser || (status.uid, status.gid) == (metadata.uid, metadata.gid))
}

fn has_attributes(file: &OwnedFd, entry: &Entry, context: &Context<'_>) -> bool {
    let Ok(found) = sys::attributes_of(file, &mut Vec::new()) else {
        return false;
    };
    let wanted = || {
        entry
            .metadata
            .xattrs
            .iter()
            .filter(|xattr| context.job.privileged || !needs_privilege(&xattr.name))
    };
    let all = wanted().all(|xattr| {
        found
            .iter()
            .any(|(name, value)| *name == xattr.name && *value == xattr.value)
    });
    // What the system adds by itself, such as a security label, does not count as a difference.
    let none_more = found.iter().all(|(name, _)| {
        name.starts_with(b"security.") || wanted().any(|xattr| xattr.name == *name)
    });
    all && none_more
}

/// Compares content chunk by chunk with the ids in the tree, and holes with zeros.
fn has_content(
    file: &OwnedFd,
    size: u64,
    content: &References,
    extents: Option<&[Extent]>,
    keys: &VaultKeys,
    reader: &mut Reader<'_>,
) -> Result<bool, RestoreError> {
    let whole = [Extent {
        gap: 0,
        length: size,
    }];
    let extents = extents.unwrap_or(&whole);
    let mut cursor = ExtentCursor::new(extents);
    let mut references = ReferenceReader::new(content.clone());
    let mut buffer = Vec::new();
    while let Some(reference) = references.next(reader)? {
        buffer.resize(reference.length as usize, 0);
        let mut filled = 0;
        while filled < reference.length {
            let Some((at, count)) = cursor.take(reference.length - filled) else {
                return Ok(false);
            };
            let piece = &mut buffer[filled as usize..(filled + count) as usize];
            if sys::read_at(file, piece, at) != Ok(count as usize) {
                return Ok(false);
            }
            filled += count;
        }
        if ChunkId::of(keys, &buffer) != reference.id {
            return Ok(false);
        }
    }
    if cursor.take(1).is_some() {
        return Ok(false);
    }
    Ok(holes_are_zero(file.as_fd(), size, extents).unwrap_or(false))
}

fn holes_are_zero(file: BorrowedFd<'_>, size: u64, extents: &[Extent]) -> Result<bool, Errno> {
    let mut buffer = vec![0; HOLE_BUFFER_BYTES];
    let mut end = 0;
    let tail = Extent {
        gap: size - extents.iter().map(|e| e.gap + e.length).sum::<u64>(),
        length: 0,
    };
    for extent in extents.iter().chain([&tail]) {
        let stop = end + extent.gap;
        let mut at = end;
        while at < stop {
            // A hole that is still one needs no reading.
            let (data, data_end) = sys::next_data(file, at)?.unwrap_or((stop, stop));
            let (data, data_end) = (data.min(stop), data_end.min(stop));
            at = data;
            while at < data_end {
                let wanted = buffer
                    .len()
                    .min(usize::try_from(data_end - at).unwrap_or(usize::MAX));
                let count = sys::read_at(file, &mut buffer[..wanted], at)?;
                if count == 0 || buffer[..count].iter().any(|&byte| byte != 0) {
                    return Ok(false);
                }
                at += count as u64;
            }
        }
        end = stop + extent.length;
    }
    Ok(true)
}
