//! Choosing a folder of this device, without typing its path.

use std::fs;
use std::path::{Path, PathBuf};

use candor_client::commands::Failure;
use candor_client::path_text::PathText;
use maud::{Markup, html};

use super::parts::{self, Look, card};
use super::request::{Answer, Asked, Reply, usage};
use super::shell::{Place, Sheet};
use crate::text;

/// Folders that are shown of one; somebody with more types the path.
const FOLDERS_MAX: usize = 500;

/// What the folder is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Backup,
    Folder,
}

impl For {
    const fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Folder => "folder",
        }
    }

    const fn place(self) -> Place {
        match self {
            Self::Backup => Place::Backups,
            Self::Folder => Place::Folders,
        }
    }
}

/// Folders in a folder, by name, those last that programs hide.
fn folders(at: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable =
        |error: std::io::Error| usage(format!("{} cannot be read: {error}", at.display()));
    let entries = fs::read_dir(at).map_err(unreadable)?;
    let mut folders: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .take(FOLDERS_MAX)
        .collect();
    let is_hidden = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.as_encoded_bytes().first() == Some(&b'.')
    };
    folders.sort_by_key(|path| (is_hidden(path), path.clone()));
    Ok(folders)
}

/// The page.
pub(super) async fn page(asked: &Asked) -> Answer {
    let wanted = if asked.query.get("for") == Some("folder") {
        For::Folder
    } else {
        For::Backup
    };
    let at = match asked.query.path() {
        Some(_) => asked.query.absolute_path()?.to_path(),
        None => asked.shared.user_folder.clone(),
    };
    let (looking, shown) = (at.clone(), asked.shared.home.clone());
    let found = tokio::task::spawn_blocking(move || folders(&looking)).await;
    let mut found = found.map_err(|error| {
        Failure::from(crate::failure::Failure::because(
            "the folder cannot be read",
            &error,
        ))
    })??;
    // What this program keeps is never backed up.
    found.retain(|folder| *folder != shown);
    let body = html! {
        (card("here", "This folder", chosen(wanted, &at)))
        (card("inside", "Folders in it", inside(wanted, &at, &found)))
    };
    Ok(Reply::Sheet(Sheet::new(
        "Choose a folder",
        wanted.place(),
        body,
    )))
}

fn to(wanted: For, path: &Path) -> String {
    let path = PathText::from_path(path);
    let mut fields = vec![("for", wanted.word())];
    fields.extend(parts::path_query(&path));
    parts::address("/choose", &fields)
}

pub(super) fn chosen(wanted: For, at: &Path) -> Markup {
    let path = PathText::from_path(at);
    let target = match wanted {
        For::Backup => "/backups/add",
        For::Folder => "/folders/add",
    };
    let label = match wanted {
        For::Backup => "Back up this folder",
        For::Folder => "Keep this folder in step",
    };
    html! {
        p { (parts::path(&path)) }
        form.inline method="post" action=(target) {
            (parts::path_fields(&path))
            button.button.main type="submit" { (label) }
        }
        @if let Some(above) = at.parent() { " " (parts::link(&to(wanted, above), "One folder up", Look::Quiet)) }
        p.hint { "Nothing is sent by this. You are asked for your consent next." }
    }
}

pub(super) fn inside(wanted: For, at: &Path, found: &[PathBuf]) -> Markup {
    if found.is_empty() {
        return parts::empty("There is no folder in this one.", html! {});
    }
    html! {
        ul.rows {
            @for folder in found {
                @let name = folder.strip_prefix(at).unwrap_or(folder).to_string_lossy();
                li.row { div.what { a href=(to(wanted, folder)) { bdi { (text::shown(&name)) } } } }
            }
        }
        @if found.len() >= FOLDERS_MAX { p.quiet { "There are more; type the whole path of one that is not here." } }
    }
}
