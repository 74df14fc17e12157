//! `candor sync …`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use candor_client::commands::{Command, FolderView, SyncedView};
use candor_client::path_text::PathText;

use crate::App;
use crate::args::SyncCommand;
use crate::consent::{self, Answer};
use crate::door::Door;
use crate::failure::{Doing as _, Failure, Kind, Outcome};
use crate::progress::{execute, object, view};
use crate::text;
use crate::{backup, device, views};

/// Runs a `sync` command.
pub(crate) fn run(app: &App, command: SyncCommand) -> Outcome {
    if matches!(command, SyncCommand::Status) && !device::has_account(app)? {
        return show_folders(app, &[]);
    }
    // What makes no sense is said before anything is opened for it.
    let command = resolved(command)?;
    let mut door = Door::open(app)?;
    let result = run_through(app, &mut door, command);
    door.close(app);
    result
}

/// The command with absolute paths.
fn resolved(mut command: SyncCommand) -> Outcome<SyncCommand> {
    match &mut command {
        SyncCommand::Add { folder, .. } => *folder = existing(folder)?,
        SyncCommand::Join { folder, .. } => {
            if !folder.exists() {
                fs::create_dir_all(&folder).map_err(|error| {
                    Failure::because(format!("{} cannot be made", folder.display()), &error)
                        .kind(Kind::Usage)
                })?;
            }
            *folder = existing(folder)?;
        }
        SyncCommand::Versions { path } => *path = absolute(path)?,
        SyncCommand::Restore { to: Some(to), .. } => *to = absolute(to)?,
        _ => {}
    }
    Ok(command)
}

/// The absolute path of something that need not be there any more: its folder's links are followed, if that is there.
fn absolute(path: &Path) -> Outcome<PathBuf> {
    let path = std::path::absolute(path).doing(|| "find the current folder".to_owned())?;
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path);
    };
    Ok(fs::canonicalize(above).map_or(path.clone(), |above| above.join(name)))
}

fn existing(folder: &Path) -> Outcome<PathBuf> {
    fs::canonicalize(folder).map_err(|error| {
        Failure::because(
            format!("{} cannot be kept in step", folder.display()),
            &error,
        )
        .kind(Kind::Usage)
        .hint("check the spelling; relative paths count from the current folder")
    })
}

fn run_through(app: &App, door: &mut Door, command: SyncCommand) -> Outcome {
    match command {
        SyncCommand::Add {
            folder,
            name,
            exclude,
            yes,
        } => {
            let command = Command::SyncAdd {
                name,
                path: PathText::from_path(&folder),
                excludes: exclude,
            };
            let folder = view!(execute(app, door, command)?, Folder)?;
            begin(app, door, &folder, yes)
        }
        SyncCommand::Join {
            name,
            folder,
            exclude,
            yes,
        } => {
            let command = Command::SyncJoin {
                name,
                path: PathText::from_path(&folder),
                excludes: exclude,
            };
            let folder = view!(execute(app, door, command)?, Folder)?;
            begin(app, door, &folder, yes)
        }
        SyncCommand::Run { folders } => {
            let synced = view!(execute(app, door, Command::SyncRun { folders })?, Synced)?;
            show_synced(app, &synced)
        }
        SyncCommand::Prune {
            folders,
            max_unused,
        } => {
            let command = Command::SyncPrune {
                folders,
                max_unused_percent: max_unused,
            };
            let pruned = view!(execute(app, door, command)?, Pruned)?;
            backup::show_pruned(app, &pruned).map(drop)
        }
        SyncCommand::Status => {
            let folders = view!(execute(app, door, Command::SyncList)?, Folders)?;
            show_folders(app, &folders)
        }
        SyncCommand::Pause { folder } => pause(app, door, folder, true),
        SyncCommand::Resume { folder } => pause(app, door, folder, false),
        SyncCommand::Versions { path } => {
            let path = PathText::from_path(&path);
            let versions = view!(
                execute(app, door, Command::SyncVersions { path })?,
                Versions
            )?;
            object(&app.ui, "versions", &versions)?;
            app.ui.data(&views::versions(&versions).join("\n"))
        }
        SyncCommand::Restore { what, to } => restore(app, door, &what, to.as_deref()),
        SyncCommand::Conflicts => {
            let conflicts = view!(execute(app, door, Command::SyncConflicts)?, Conflicts)?;
            object(&app.ui, "conflicts", &conflicts)?;
            if conflicts.is_empty() {
                return app.ui.data("no file is kept twice");
            }
            for one in &conflicts {
                app.ui.data(&text::shown(&one.path.text))?;
            }
            app.ui.note(
                "Each is what one device made while another one changed the same file. Keep what you want under the first name, and delete the copy: your other devices follow.",
            );
            Ok(())
        }
    }
}

/// Asks for consent, and brings the folder into step for the first time.
fn begin(app: &App, door: &mut Door, folder: &FolderView, yes: bool) -> Outcome {
    app.ui.note(&format!(
        "{}: {}",
        text::shown(&folder.name),
        text::shown(&folder.path.text)
    ));
    let names = vec![folder.name.clone()];
    if consent::ask(app, door, "sync", &names, yes)? == Answer::No {
        return Err(consent::refused("sync"));
    }
    let synced = view!(
        execute(app, door, Command::SyncRun { folders: names })?,
        Synced
    )?;
    app.ui.note(
        "While `candor up` runs, it stays in step by itself; `candor sync run` does it once.",
    );
    show_synced(app, &synced)
}

fn restore(app: &App, door: &mut Door, what: &OsStr, to: Option<&Path>) -> Outcome {
    let bytes = what.as_bytes();
    let Some(at) = bytes
        .iter()
        .rposition(|&byte| byte == b'@')
        .filter(|at| *at > 0)
    else {
        return Err(Failure::usage("the version is missing")
            .hint("write PATH@VERSION; `candor sync versions PATH` lists them"));
    };
    let path = absolute(Path::new(OsStr::from_bytes(&bytes[..at])))?;
    let command = Command::SyncRestore {
        path: PathText::from_path(&path),
        version: String::from_utf8_lossy(&bytes[at + 1..]).into_owned(),
        to: to.map(PathText::from_path),
    };
    execute(app, door, command)?;
    app.ui.object("restored", serde_json::json!({}))?;
    let shown = text::shown(&path.to_string_lossy());
    app.ui.data(&match to {
        Some(to) => format!(
            "{shown} was restored into {}",
            text::shown(&to.to_string_lossy())
        ),
        None => format!("{shown} is back"),
    })
}

fn pause(app: &App, door: &mut Door, folder: String, paused: bool) -> Outcome {
    let folder = view!(
        execute(app, door, Command::SyncPause { folder, paused })?,
        Folder
    )?;
    object(&app.ui, "folder", &folder)?;
    app.ui.data(&format!(
        "{} {}",
        text::shown(&folder.name),
        if paused { "is paused" } else { "goes on" }
    ))
}

fn show_folders(app: &App, folders: &[FolderView]) -> Outcome {
    object(&app.ui, "folders", &folders)?;
    app.ui.data(&views::folders(folders).join("\n"))
}

fn show_synced(app: &App, synced: &[SyncedView]) -> Outcome {
    object(&app.ui, "synced", &synced)?;
    for one in synced {
        app.ui.data(&views::synced(one))?;
    }
    backup::partial(synced.iter().map(|one| one.problems).sum(), "kept in step")
}
