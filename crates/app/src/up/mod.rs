//! `candor up`: everything on this machine, in one process. Asks before it sends.
//!
//! 1. A second `up` joins the one that runs; otherwise this process takes the device's folder.
//! 2. Somebody new gets a cell of their own, an account, and a recovery phrase.
//! 3. The paths become backup sets, and consent is asked for what has none.
//! 4. What has consent is backed up; from a first backup a sample is restored and compared.
//! 5. A summary says what is safe and what is not. Then it stays, and backs up on a schedule; its pages are there from
//!    the beginning.

mod open;
mod schedule;
mod summary;
mod welcome;

use std::path::PathBuf;
use std::sync::Arc;

use candor_client::commands::{BackupView, Command, SetView};
use candor_client::home::Home;
use candor_client::path_text::PathText;
use candor_client::{Engine, KeyProtection};
use candor_server::Cell;
use candor_wire::statement::Role;

use crate::account::{self, NewAccount, PhraseTo};
use crate::args::UpArgs;
use crate::backup::{self, back_up, differs, partial};
use crate::cell::{self, Running};
use crate::consent::{self, Answer};
use crate::device::{self, LockOr, Opened, Seen};
use crate::door::{self, Door};
use crate::failure::{Doing as _, Kind, Outcome};
use crate::pages::Pages;
use crate::progress::{execute, object, view};
use crate::{App, home, text, views};

use summary::Summary;

/// What the account of somebody who starts on their own is called, until there is another one.
const OWN_ACCOUNT_NAME: &str = "me";

/// Files of the first drill: enough to pass through every part of a restore.
const SAMPLE_FILES: u32 = 5;

/// Runs `candor up`.
pub(crate) fn run(app: &App, args: &UpArgs) -> Outcome {
    let paths = backup::existing(&args.paths)?;
    if rustix::process::geteuid().is_root() {
        app.ui
            .warning("this runs as root: it can read every file of this machine, and back it up");
    }
    let mut waited = false;
    let look = || {
        Ok(match door::connect(app)? {
            Some(remote) if remote.stays => Seen::Other(remote),
            Some(_) => {
                if !waited {
                    waited = true;
                    app.ui.note("waiting for another candor command to end");
                }
                Seen::Busy
            }
            None => Seen::Nobody,
        })
    };
    if !device::has_account(app)? && !led_by_pages(app, args) {
        // Somebody new is told what is missing before anything is made, the folder included.
        check_newcomer(app, args)?;
    }
    match device::lock_or(app, look)? {
        LockOr::Other(remote) => {
            app.ui.note("joining the `candor up` that runs already");
            let done = work(app, &mut Door::There(remote), paths, args)?;
            if !args.once {
                let _ = open::show(app, args.no_open);
            }
            partial(done.problems, "saved")
        }
        LockOr::Locked(home) => run_here(app, home, paths, args),
    }
}

fn run_here(app: &App, home: Home, paths: Vec<PathBuf>, args: &UpArgs) -> Outcome {
    let is_new = !device::has_account(app)?;
    let (opened, pages) = if is_new && led_by_pages(app, args) {
        let (opened, pages) = welcome::lead(app, home)?;
        (opened, Some(pages))
    } else if is_new {
        (newcomer(app, home, args)?, None)
    } else {
        (device::open(app, home, None)?, None)
    };
    let own = opened.cell.clone();
    if let Some(own) = &own {
        store_invitation(app, own)?;
    }
    let mut door = Door::serve(app, opened, !args.once)?;
    let running = own
        .as_ref()
        .filter(|_| !args.once)
        .and_then(|own| listen(app, own));
    let pages = pages.or_else(|| {
        let engine = door.engine().filter(|_| !args.once)?;
        serve_pages(app, &engine, args)
    });
    let result = work(app, &mut door, paths, args);
    let result = match result {
        Ok(done) if args.once => partial(done.problems, "saved"),
        Ok(_) => schedule::stay(app, &mut door),
        // A cell elsewhere that is down now is no reason to go away.
        Err(failure) if failure.kind == Kind::Unreachable && !args.once => {
            app.ui.note(&failure.text());
            schedule::stay(app, &mut door)
        }
        Err(failure) => Err(failure),
    };
    if !args.once {
        // Whoever uses this engine through the socket sees that it ends.
        app.stop.stop();
    }
    door.close(app);
    if let Some(pages) = pages {
        app.runtime.block_on(pages.ended());
    }
    if let Some(running) = running {
        app.runtime.block_on(running.ended());
    }
    result
}

/// Serves the pages. Not being able to is no reason not to back up.
fn serve_pages(app: &App, engine: &Arc<Engine>, args: &UpArgs) -> Option<Pages> {
    match Pages::start(app, engine) {
        Ok(pages) => {
            // Whoever sees no way now can ask for one with another `candor up`.
            let _ = open::show(app, args.no_open);
            Some(pages)
        }
        Err(failure) => {
            app.ui
                .warning(&format!("there are no pages: {}", failure.sentence));
            None
        }
    }
}

/// Lets other devices in. Not being able to is no reason not to back up.
fn listen(app: &App, own: &Cell) -> Option<Running> {
    match Running::start(app, own) {
        Ok(running) => {
            app.ui.note(&format!(
                "The cell listens on {}; `listen` in its cell.toml changes that.",
                running.address
            ));
            Some(running)
        }
        Err(failure) => {
            app.ui.warning(&format!(
                "other devices cannot reach this cell: {}",
                failure.sentence
            ));
            None
        }
    }
}

/// Whether somebody new is led by the pages: there is a display, and nothing was said that only a terminal asks for.
fn led_by_pages(app: &App, args: &UpArgs) -> bool {
    let said_more = args.yes
        || args.once
        || args.no_open
        || args.recovery_file.is_some()
        || args.keys.unprotected_keys
        || app.passphrase_file.is_some()
        || !args.paths.is_empty();
    !said_more && open::has_display()
}

fn check_newcomer(app: &App, args: &UpArgs) -> Outcome {
    PhraseTo::decide(app, args.recovery_file.as_deref(), args.yes)?;
    device::check_protection(app, args.keys.unprotected_keys)
}

fn newcomer(app: &App, home: Home, args: &UpArgs) -> Outcome<Opened> {
    let phrase_to = PhraseTo::decide(app, args.recovery_file.as_deref(), args.yes)?;
    let protection = device::new_protection(app, args.keys.unprotected_keys)?;
    make_own(
        app,
        home,
        OWN_ACCOUNT_NAME.to_owned(),
        protection,
        phrase_to,
    )
}

/// Makes a cell of somebody's own, and an account on it.
fn make_own(
    app: &App,
    home: Home,
    name: String,
    protection: KeyProtection,
    phrase_to: PhraseTo,
) -> Outcome<Opened> {
    let own = cell::open_or_make_own(app)?;
    let invitation = app.runtime.block_on(cell::make_invitation(&own))?;
    app.ui.note(&format!(
        "A cell of your own is in {}.",
        app.home.cell().display()
    ));
    account::make(
        app,
        NewAccount {
            home,
            invitation,
            embedded: Some(own),
            name,
            protection,
            phrase_to,
            role: Role::Full,
        },
    )
}

/// Stores the invitation for the person's other devices. It opens no account; the phrase does.
fn store_invitation(app: &App, own: &Cell) -> Outcome {
    let path = app.home.invitation();
    let text = format!("{}\n", own.address_card().to_text());
    if std::fs::read_to_string(&path).is_ok_and(|stored| stored == text) {
        return Ok(());
    }
    home::replace_private(&path, text.as_bytes()).doing(|| format!("write {}", path.display()))?;
    app.ui.note(&format!(
        "This cell's invitation, also in {}. Keep a copy with the phrase:\n  {}",
        path.display(),
        text.trim_end()
    ));
    Ok(())
}

/// What a round of work came to.
struct Done {
    problems: u64,
}

fn work(app: &App, door: &mut Door, paths: Vec<PathBuf>, args: &UpArgs) -> Outcome<Done> {
    let before = view!(execute(app, door, Command::BackupList)?, Sets)?;
    let asked_for = !paths.is_empty();
    let names = sets_of(app, door, &before, &paths)?;
    if names.is_empty() && before.is_empty() {
        Summary::default().print(app, door, args.once)?;
        return Ok(Done { problems: 0 });
    }
    // Without paths nobody asked for anything new, and what was switched off stays off.
    if asked_for && consent::ask(app, door, "backup", &names, args.yes)? == Answer::No {
        return Err(consent::refused("backup"));
    }
    let sets = view!(execute(app, door, Command::BackupList)?, Sets)?;
    let wanted = |set: &&SetView| set.consent == "on" && (!asked_for || names.contains(&set.name));
    let run: Vec<&SetView> = sets.iter().filter(wanted).collect();
    let mut summary = Summary::default();
    if !run.is_empty() {
        let backups = back_up(app, door, run.iter().map(|set| set.name.clone()).collect())?;
        summary = with_samples(app, door, &run, backups)?;
    }
    let problems = summary.backups.iter().map(|backup| backup.problems).sum();
    summary.print(app, door, args.once)?;
    Ok(Done { problems })
}

/// The names of the sets for these paths; what is in none yet gets one of its own.
fn sets_of(
    app: &App,
    door: &mut Door,
    known: &[SetView],
    paths: &[PathBuf],
) -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    for path in paths {
        let path = PathText::from_path(path);
        let name = match known.iter().find(|set| set.paths.contains(&path)) {
            Some(set) => set.name.clone(),
            None => {
                let add = Command::BackupAdd {
                    name: None,
                    paths: vec![path],
                    excludes: Vec::new(),
                };
                view!(execute(app, door, add)?, Set)?.name
            }
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// After a first backup, a sample comes back and is compared: a backup is good when it was restored.
fn with_samples(
    app: &App,
    door: &mut Door,
    run: &[&SetView],
    backups: Vec<BackupView>,
) -> Outcome<Summary> {
    object(&app.ui, "backups", &backups)?;
    let mut samples = Vec::new();
    for backup in &backups {
        app.ui.data(&views::backup(backup))?;
        let first = run
            .iter()
            .find(|set| set.name == backup.set && set.last_backup_ms.is_none());
        let Some(set) = first else { continue };
        let drill = Command::BackupDrill {
            sets: vec![set.name.clone()],
            files: SAMPLE_FILES,
            quick: true,
        };
        for sample in view!(execute(app, door, drill)?, Drilled)? {
            if let Some(failure) = differs(&sample) {
                return Err(failure);
            }
            app.ui.note(&format!(
                "{}: {} restored and compared: equal",
                text::shown(&sample.set),
                text::counted(sample.equal, "file", "files")
            ));
            samples.push(sample);
        }
    }
    Ok(Summary { backups, samples })
}
