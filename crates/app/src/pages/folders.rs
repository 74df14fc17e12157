//! Folders that are kept in step: how they stand, what was kept twice, and older versions.

use candor_client::commands::{
    Command, ConflictView, Failure, FolderView, StatusView, VersionView,
};
use candor_client::path_text::PathText;
use maud::{Markup, html};

use super::jobs::Kind;
use super::live::{self, Part};
use super::parts::{self, Look, Tone, badge, card, name, when, when_or};
use super::request::{Answer, Asked, Reply, expect_view};
use super::shell::{Place, Sheet};
use super::{Shared, off_the_thread, text_id};
use crate::text;

/// Conflicts that are shown; the rest is counted.
const CONFLICTS_SHOWN_MAX: usize = 50;

impl Shared {
    /// Files that were kept twice. Sends nothing.
    pub(super) fn conflicts(&self) -> Result<Vec<ConflictView>, Failure> {
        expect_view!(self.ask(Command::SyncConflicts)?, Conflicts)
    }
}

/// The page.
pub(super) async fn page(asked: &Asked) -> Answer {
    let body = off_the_thread(&asked.shared, |shared| {
        html! {
            (card("folders", "Kept in step with your other devices", Part::Folders.whole(&live::Look::new(shared))))
            (card("add", "Keep one more folder in step", add_form()))
            (card("join", "Get a folder of another device", join_form()))
            (card("versions", "Older versions of a file", versions_form("")))
        }
    })
    .await?;
    Ok(Reply::Sheet(Sheet::new("Folders", Place::Folders, body)))
}

/// The folders, and what was kept twice in them.
pub(super) fn list(status: &StatusView, conflicts: &[ConflictView], now: i64) -> Markup {
    if status.folders.is_empty() {
        let next = parts::link("/choose?for=folder", "Choose a folder", Look::Main);
        return parts::empty("No folder is kept in step.", next);
    }
    let waiting = status
        .folders
        .iter()
        .any(|folder| folder.consent != "on" && folder.consent != "withdrawn");
    html! {
        @if waiting {
            (parts::notice(Tone::Warn, html! {
                p { "Something here is not kept in step, because you have not said yes to it." }
                (parts::dialog_link("/services/sync/on", "Read what you would agree to", Look::Main.class()))
            }))
        }
        ul.rows { @for folder in &status.folders { (row(folder, now)) } }
        @if !conflicts.is_empty() { (kept_twice(conflicts)) }
    }
}

fn folder_badge(folder: &FolderView) -> Markup {
    match folder.consent.as_str() {
        "on" if folder.paused => badge(Tone::Plain, "paused"),
        "on" if folder.syncing => badge(Tone::Plain, "at work"),
        "on" if folder.last_problems > 0 => badge(Tone::Warn, "not complete"),
        "on" if folder.last_sync_ms.is_none() => badge(Tone::Warn, "not in step yet"),
        "on" => badge(Tone::Good, "in step"),
        "ended" => badge(Tone::Warn, "your consent has ended"),
        "withdrawn" => badge(Tone::Plain, "switched off"),
        _ => badge(Tone::Plain, "not switched on"),
    }
}

fn row(folder: &FolderView, now: i64) -> Markup {
    let fields = [("folder", folder.name.as_str())];
    let sets = [("set", folder.name.as_str())];
    html! {
        li.row {
            div.what {
                strong { (name(&folder.name)) }
                span.quiet { (parts::path(&folder.path)) }
                span.quiet {
                    "In step: " (when_or(folder.last_sync_ms, now, "not yet")) ". " (text::counted(folder.files, "file", "files")) ", " (text::counted(folder.folders, "folder", "folders")) "."
                    @if folder.last_problems > 0 { " " (text::counted(folder.last_problems, "file is", "files are")) " not in step." }
                }
            }
            div.how { (folder_badge(folder)) }
            div.do {
                @if folder.consent == "on" && folder.paused { (parts::action("/folders/pause", "Go on", Look::Main, &[fields[0], ("paused", "no")])) }
                @else if folder.consent == "on" {
                    (parts::action("/folders/run", "Look now", Look::Quiet, &fields))
                    (parts::action("/folders/pause", "Pause", Look::Quiet, &[fields[0], ("paused", "yes")]))
                }
                @if folder.consent == "on" { (parts::dialog_link(&parts::address("/services/sync/off", &sets), "Switch off", Look::Quiet.class())) }
                @else { (parts::dialog_link(&parts::address("/services/sync/on", &sets), "Switch on", Look::Quiet.class())) }
            }
        }
    }
}

fn kept_twice(conflicts: &[ConflictView]) -> Markup {
    html! {
        h3 { "Kept twice" }
        p { "Two devices changed these at the same time, so both are there. Keep the one that you want, and delete the other as you delete any file." }
        ul {
            @for one in conflicts.iter().take(CONFLICTS_SHOWN_MAX) { li { (parts::path(&one.path)) " " span.quiet { "in " (name(&one.folder)) } } }
        }
        @if conflicts.len() > CONFLICTS_SHOWN_MAX { p.quiet { "And " (text::count((conflicts.len() - CONFLICTS_SHOWN_MAX) as u64)) " more." } }
    }
}

fn add_form() -> Markup {
    html! {
        form.stack method="post" action="/folders/add" {
            div.field {
                label for="folder-path" { "Folder" }
                input #folder-path name="path" required autocomplete="off" placeholder="/home/you/Shared";
                p.hint { "The whole path, or " a href="/choose?for=folder" { "choose it" } "." }
            }
            div.field {
                label for="folder-name" { "Name on all devices" }
                input #folder-name name="name" autocomplete="off";
                p.hint { "May be left empty: then it is called like the folder." }
            }
            div.buttons { button.button.main type="submit" { "Add it" } }
        }
    }
}

fn join_form() -> Markup {
    html! {
        form.stack method="post" action="/folders/join" {
            div.field { label for="join-name" { "Its name" } input #join-name name="name" required autocomplete="off"; }
            div.field {
                label for="join-path" { "Where it shall be on this device" }
                input #join-path name="path" required autocomplete="off" placeholder="/home/you/Shared";
            }
            div.buttons { button.button type="submit" { "Get it" } }
        }
    }
}

fn versions_form(path: &str) -> Markup {
    html! {
        form.stack method="get" action="/folders/versions" {
            div.field {
                label for="versions-path" { "File or folder" }
                input #versions-path name="path" required value=(path) autocomplete="off" placeholder="/home/you/Shared/letter.odt";
                p.hint { "The whole path of something in a folder that is kept in step; it may be deleted." }
            }
            div.buttons { button.button type="submit" { "Show its versions" } }
        }
    }
}

fn added(asked: &Asked, folder: &FolderView) -> Answer {
    let on = parts::address("/services/sync/on", &[("set", &folder.name)]);
    let words = html! {
        p { strong { (name(&folder.name)) " is on the list." } " Nothing of it is sent until you say yes." }
        p { (parts::dialog_link(&on, "Read what you would agree to", Look::Main.class())) }
    };
    asked.told("/folders", parts::notice(Tone::Good, words))
}

/// Adds a folder.
pub(super) async fn add(asked: &Asked) -> Answer {
    let command = Command::SyncAdd {
        name: asked.form.get("name").map(str::to_owned),
        path: asked.form.absolute_path()?,
        excludes: Vec::new(),
    };
    let folder = expect_view!(asked.run(command).await?, Folder)?;
    added(asked, &folder)
}

/// Adds a folder of another device.
pub(super) async fn join(asked: &Asked) -> Answer {
    let command = Command::SyncJoin {
        name: asked.form.need("name", "the folder's name")?.to_owned(),
        path: asked.form.absolute_path()?,
        excludes: Vec::new(),
    };
    let folder = expect_view!(asked.run(command).await?, Folder)?;
    added(asked, &folder)
}

/// Stops a folder for a while, or lets it go on.
pub(super) async fn pause(asked: &Asked) -> Answer {
    let command = Command::SyncPause {
        folder: asked.form.need("folder", "the folder")?.to_owned(),
        paused: asked.form.get("paused") == Some("yes"),
    };
    let folder = expect_view!(asked.run(command).await?, Folder)?;
    let words = if folder.paused {
        " is paused until you let it go on."
    } else {
        " goes on."
    };
    asked.told(
        "/folders",
        parts::notice(
            Tone::Good,
            html! { p { strong { (name(&folder.name)) } (words) } },
        ),
    )
}

/// Looks at a folder now.
pub(super) async fn run(asked: &Asked) -> Answer {
    let folder = asked.form.need("folder", "the folder")?.to_owned();
    let all = expect_view!(asked.run(Command::SyncList).await?, Folders)?;
    if all.iter().any(|one| one.name == folder && one.syncing) {
        let words = html! { p { strong { (name(&folder)) } " is at work already." } };
        return asked.told("/folders", parts::notice(Tone::Plain, words));
    }
    let title = format!("Bringing {} into step", text::shown(&folder));
    let command = Command::SyncRun {
        folders: vec![folder],
    };
    asked.begin(Kind::Sync, title, command, "/folders")
}

/// Versions of something.
pub(super) async fn versions(asked: &Asked) -> Answer {
    let path = asked.query.absolute_path()?;
    let command = Command::SyncVersions { path: path.clone() };
    let versions = expect_view!(asked.run(command).await?, Versions)?;
    let now = asked.shared.now();
    let body = html! {
        nav.crumbs aria-label="Where you are" { a href="/folders" { "Folders" } (parts::path(&path)) }
        @if versions.is_empty() { (parts::empty("There is no version of that.", html! {})) }
        ul.rows { @for one in &versions { (version(one, &path, now)) } }
        (card("other", "Older versions of a file", versions_form(&path.text)))
    };
    Ok(Reply::Sheet(Sheet::new("Versions", Place::Folders, body)))
}

pub(super) fn version(one: &VersionView, path: &PathText, now: i64) -> Markup {
    html! {
        li.row {
            div.what {
                strong { (when(one.time_ms, now)) }
                span.quiet {
                    @match one.kind.as_str() {
                        "file" => { (text::bytes(one.bytes)) }
                        "removed" => { "deleted" }
                        kind => { (kind) }
                    }
                    ", by " (name(&one.device)) ". Version " code { (text_id(&one.version)) }
                }
            }
            div.how { @if one.current { (badge(Tone::Good, "now")) } }
            div.do {
                @if !one.current && one.kind != "removed" {
                    form.inline method="post" action="/folders/restore" {
                        (parts::path_fields(path))
                        input type="hidden" name="version" value=(one.version);
                        button.button type="submit" { "Bring it back" }
                    }
                }
            }
        }
    }
}

/// Brings a version back to its place; what is there becomes a version, too.
pub(super) fn restore(asked: &Asked) -> Answer {
    let path = asked.form.absolute_path()?;
    let title = format!("Bringing back {}", text::shown(&path.text));
    let command = Command::SyncRestore {
        path,
        version: asked.form.need("version", "the version")?.to_owned(),
        to: None,
    };
    asked.begin(Kind::Version, title, command, "/folders")
}
