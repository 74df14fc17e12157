//! `candor backup …`.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use candor_client::commands::{BackupView, Command, DrillView, Event, Keep, PrunedView, View};
use candor_client::path_text::PathText;

use crate::App;
use crate::args::{BackupCommand, ForgetArgs, RestoreArgs};
use crate::door::Door;
use crate::failure::{Doing as _, Failure, Kind, Outcome};
use crate::progress::{execute, execute_with, object, view};
use crate::text;
use crate::{device, views};

/// Runs a `backup` command.
pub(crate) fn run(app: &App, command: BackupCommand) -> Outcome {
    if matches!(command, BackupCommand::List) && !device::has_account(app)? {
        return show_sets(app, &View::Sets(Vec::new()));
    }
    // What makes no sense is said before anything is opened for it.
    let command = resolved(command)?;
    let mut door = Door::open(app)?;
    let result = run_through(app, &mut door, command);
    door.close(app);
    result
}

/// The command with absolute paths.
fn resolved(mut command: BackupCommand) -> Outcome<BackupCommand> {
    match &mut command {
        BackupCommand::Add { paths, .. } => *paths = existing(paths)?,
        BackupCommand::Restore(args) => {
            args.to =
                std::path::absolute(&args.to).doing(|| "find the current folder".to_owned())?;
        }
        BackupCommand::Mount { at } => {
            *at = std::path::absolute(&*at).doing(|| "find the current folder".to_owned())?;
        }
        _ => {}
    }
    Ok(command)
}

fn run_through(app: &App, door: &mut Door, command: BackupCommand) -> Outcome {
    match command {
        BackupCommand::Add {
            paths,
            name,
            exclude,
        } => add(app, door, name, &paths, exclude),
        BackupCommand::Run { sets, .. } => {
            let backups = back_up(app, door, sets)?;
            show_backups(app, &backups)
        }
        BackupCommand::List => show_sets(app, &execute(app, door, Command::BackupList)?),
        BackupCommand::Snapshots {
            forgotten: true, ..
        } => {
            let found = view!(execute(app, door, Command::BackupForgotten)?, Forgotten)?;
            object(&app.ui, "forgotten", &found)?;
            app.ui.data(&views::snapshots(&found.snapshots).join("\n"))
        }
        BackupCommand::Snapshots { set, .. } => {
            let snapshots = view!(
                execute(app, door, Command::BackupSnapshots { set })?,
                Snapshots
            )?;
            object(&app.ui, "snapshots", &snapshots)?;
            app.ui.data(&views::snapshots(&snapshots).join("\n"))
        }
        BackupCommand::Ls {
            snapshot,
            path,
            recursive,
        } => {
            let path = path.as_deref().map(within_snapshot);
            list(
                app,
                door,
                Command::BackupLs {
                    snapshot,
                    path,
                    recursive,
                },
            )
        }
        BackupCommand::Find { glob } => list(app, door, Command::BackupFind { glob }),
        BackupCommand::Diff { a, b } => list(app, door, Command::BackupDiff { a, b }),
        BackupCommand::Restore(args) => restore(app, door, &args),
        BackupCommand::Mount { at } => mount(app, door, &at),
        BackupCommand::Check { read_data, repair } => check(app, door, read_data, repair),
        BackupCommand::Drill { sets, files } => drill(app, door, sets, files),
        BackupCommand::Forget(args) => forget(app, door, args),
        BackupCommand::Prune { set, max_unused } => prune(app, door, set, max_unused),
    }
}

/// The absolute paths of what a person named: links on the way are followed, so that the folder that
/// is meant is the one that is backed up.
pub(crate) fn existing(paths: &[PathBuf]) -> Outcome<Vec<PathBuf>> {
    let resolve = |path: &PathBuf| {
        fs::canonicalize(path).map_err(|error| {
            let failure =
                Failure::because(format!("{} cannot be backed up", path.display()), &error);
            failure
                .kind(Kind::Usage)
                .hint("check the spelling; relative paths count from the current folder")
        })
    };
    paths.iter().map(resolve).collect()
}

fn add(
    app: &App,
    door: &mut Door,
    name: Option<String>,
    paths: &[PathBuf],
    excludes: Vec<String>,
) -> Outcome {
    let paths = paths.iter().map(|path| PathText::from_path(path)).collect();
    let set = view!(
        execute(
            app,
            door,
            Command::BackupAdd {
                name,
                paths,
                excludes
            }
        )?,
        Set
    )?;
    object(&app.ui, "set", &set)?;
    app.ui.data(&format!(
        "{}: {}",
        text::shown(&set.name),
        text::counted(set.paths.len() as u64, "path", "paths")
    ))?;
    if set.consent != "on" {
        app.ui
            .note("Nothing is sent yet. Next: candor consent on backup");
    }
    Ok(())
}

fn show_sets(app: &App, view: &View) -> Outcome {
    let View::Sets(sets) = view else {
        return Err(crate::progress::unexpected());
    };
    object(&app.ui, "sets", sets)?;
    app.ui.data(&views::sets(sets).join("\n"))
}

/// Backs up, showing progress.
pub(crate) fn back_up(app: &App, door: &mut Door, sets: Vec<String>) -> Outcome<Vec<BackupView>> {
    view!(execute(app, door, Command::BackupRun { sets })?, Backups)
}

fn show_backups(app: &App, backups: &[BackupView]) -> Outcome {
    object(&app.ui, "backups", &backups)?;
    for backup in backups {
        app.ui.data(&views::backup(backup))?;
    }
    partial(backups.iter().map(|backup| backup.problems).sum(), "saved")
}

/// The failure of work that was done for most files, if it was not done for all.
pub(crate) fn partial(problems: u64, done: &str) -> Outcome {
    if problems == 0 {
        return Ok(());
    }
    let files = text::counted(problems, "file was", "files were");
    Err(Failure::new(
        Kind::Partial,
        format!("done in part: {files} not {done} in full; each is listed above"),
    ))
}

fn list(app: &App, door: &mut Door, command: Command) -> Outcome {
    // What was found is in many snapshots: each line tells in which one.
    let tells_snapshot = matches!(command, Command::BackupFind { .. });
    let each = |event: &Event| match event {
        Event::Entry(entry) => {
            object(&app.ui, "entry", entry)?;
            let line = views::entry(entry);
            if tells_snapshot {
                app.ui
                    .data(&format!("{}  {line}", views::short(&entry.snapshot)))
            } else {
                app.ui.data(&line)
            }
        }
        Event::Difference(difference) => {
            object(&app.ui, "difference", difference)?;
            app.ui.data(&views::difference(difference))
        }
        _ => Ok(()),
    };
    execute_with(app, door, command, each).map(drop)
}

/// A path within a snapshot. What people type ends in `/` or begins with it; paths there do neither.
fn within_snapshot(path: &Path) -> PathText {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.iter().take_while(|byte| **byte == b'/').count();
    let end = bytes
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(start, |last| last + 1);
    PathText::from_bytes(&bytes[start..end.max(start)])
}

fn restore(app: &App, door: &mut Door, args: &RestoreArgs) -> Outcome {
    let command = Command::BackupRestore {
        snapshot: args.snapshot.clone(),
        paths: args
            .paths
            .iter()
            .map(|path| within_snapshot(path))
            .collect(),
        to: PathText::from_path(&args.to),
        privileged: args.privileged,
    };
    let restored = view!(execute(app, door, command)?, Restored)?;
    object(&app.ui, "restored", &restored)?;
    app.ui.data(&views::restored(&restored))?;
    partial(restored.problems, "restored")
}

fn mount(app: &App, door: &mut Door, at: &Path) -> Outcome {
    let at = PathText::from_path(at);
    execute(app, door, Command::BackupMount { at }).map(drop)
}

fn check(app: &App, door: &mut Door, read_data: bool, repair: bool) -> Outcome {
    let command = Command::BackupCheck { read_data, repair };
    let checked = view!(execute(app, door, command)?, Checked)?;
    object(&app.ui, "checked", &checked)?;
    app.ui.data(&views::check(&checked).join("\n"))?;
    let damaged = checked.damaged.len() as u64;
    if damaged == 0 && checked.affected.is_empty() {
        return Ok(());
    }
    if damaged == 0 || (repair && checked.unrepaired == 0) {
        return Err(Failure::new(
            Kind::Partial,
            "the files above lack what was damaged or missing, until it is sent again",
        )
        .hint("`candor backup run --all` sends what is still on this device"));
    }
    let objects = text::counted(damaged, "object is", "objects are");
    Err(Failure::new(Kind::Integrity, format!("{objects} missing or damaged at the cell"))
        .hint("`candor backup check --read-data --repair` does without them, and then `candor backup run --all` sends again what is still on this device; what somebody pruned can come back with `candor backup forget --undo SNAPSHOT`; tell whoever runs the cell"))
}

fn drill(app: &App, door: &mut Door, sets: Vec<String>, files: u32) -> Outcome {
    let command = Command::BackupDrill {
        sets,
        files,
        quick: false,
    };
    let drilled = view!(execute(app, door, command)?, Drilled)?;
    object(&app.ui, "drilled", &drilled)?;
    for view in &drilled {
        app.ui.data(&views::drill(view))?;
    }
    drilled.iter().find_map(differs).map_or(Ok(()), Err)
}

/// A drill in which something came back different from its source.
pub(crate) fn differs(view: &DrillView) -> Option<Failure> {
    let path = view.different.first()?;
    let sentence = format!(
        "{} of {} came back different from what is on this device, though it looks unchanged",
        text::shown(&path.text),
        text::shown(&view.set)
    );
    Some(
        Failure::new(Kind::Integrity, sentence)
            .hint("look at both before you go on: `candor backup restore` brings what was backed up, and a disk may change what lies on it"),
    )
}

fn forget(app: &App, door: &mut Door, args: ForgetArgs) -> Outcome {
    if args.undo {
        let snapshots = args.snapshots;
        let back = execute(app, door, Command::BackupUnforget { snapshots })?;
        let back = view!(back, Forgotten)?;
        object(&app.ui, "brought-back", &back)?;
        let count = text::counted(back.snapshots.len() as u64, "snapshot is", "snapshots are");
        return app.ui.data(&format!("{count} on the list again"));
    }
    let dry_run = args.dry_run;
    let command = Command::BackupForget {
        snapshots: args.snapshots,
        set: args.set,
        keep: Keep {
            last: args.keep_last,
            hourly: args.keep_hourly,
            daily: args.keep_daily,
            weekly: args.keep_weekly,
            monthly: args.keep_monthly,
            yearly: args.keep_yearly,
        },
        dry_run,
    };
    let gone = view!(execute(app, door, command)?, Forgotten)?;
    object(&app.ui, "forgotten", &gone)?;
    if !gone.snapshots.is_empty() {
        app.ui.data(&views::snapshots(&gone.snapshots).join("\n"))?;
    }
    let (count, left) = (gone.snapshots.len() as u64, gone.left);
    let (is, are) = if dry_run {
        (
            "snapshot would be forgotten",
            "snapshots would be forgotten",
        )
    } else {
        ("snapshot is forgotten", "snapshots are forgotten")
    };
    app.ui
        .data(&format!("{}, {left} stay", text::counted(count, is, are)))?;
    if count > 0 && !dry_run {
        app.ui.note("What only they needed is at the cell still. To bring one back: candor backup forget --undo SNAPSHOT\nTo let go of it: candor backup prune");
    }
    Ok(())
}

fn prune(app: &App, door: &mut Door, set: Option<String>, max_unused_percent: u8) -> Outcome {
    let command = Command::BackupPrune {
        set,
        max_unused_percent,
    };
    let pruned = view!(execute(app, door, command)?, Pruned)?;
    if show_pruned(app, &pruned)? {
        app.ui.note(
            "Until then `candor backup snapshots --forgotten` shows what can be brought back.",
        );
    }
    Ok(())
}

/// Shows what a prune found, and says whether it was anything.
pub(crate) fn show_pruned(app: &App, pruned: &PrunedView) -> Outcome<bool> {
    object(&app.ui, "pruned", pruned)?;
    if pruned.packs_gone + pruned.orphans == 0 {
        app.ui.data("nothing is superfluous")?;
        return Ok(false);
    }
    let days = text::counted(u64::from(pruned.retention_days), "day", "days");
    app.ui.data(&format!(
        "{} are superfluous; the cell deletes them in {days}",
        text::bytes(pruned.bytes_gone)
    ))?;
    if pruned.packs_rewritten > 0 {
        app.ui.data(&format!(
            "{} of them were in part needed, which is stored again in {}",
            text::counted(pruned.packs_rewritten, "pack", "packs"),
            text::bytes(pruned.bytes_stored)
        ))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_within_a_snapshot_have_no_outer_slashes() {
        let cases = [
            ("a/b", "a/b"),
            ("/a/b/", "a/b"),
            ("///", ""),
            ("", ""),
            ("a//", "a"),
        ];
        for (typed, expected) in cases {
            assert_eq!(within_snapshot(Path::new(typed)).text, expected);
        }
    }
}
