//! Looking into a snapshot, and getting things out of it.

use std::path::Path;

use candor_client::commands::{Command, EntryView, Event, Failure, FailureKind, View};
use candor_client::path_text::PathText;
use maud::{Markup, html};

use super::backups::pager;
use super::jobs::Kind;
use super::parts::{self, Look, card, when};
use super::request::{Answer, Asked, Heard, Reply};
use super::shell::{Place, Sheet};
use super::text_id;
use crate::text;

/// Entries on one page: a page stays small, whatever is in a folder.
pub(super) const ENTRIES_PER_PAGE: usize = 50;

/// Nanoseconds in a millisecond.
const NANOS_PER_MS: i64 = 1_000_000;

/// A part of a folder's entries.
#[derive(Default)]
struct Listing {
    passed: usize,
    entries: Vec<EntryView>,
    has_more: bool,
}

/// What was collected, and whether it was ended because that was enough.
pub(super) fn cut<T>(heard: (Result<View, Failure>, T)) -> Result<(T, bool), Failure> {
    match heard {
        (Ok(_), collected) => Ok((collected, false)),
        (Err(failure), collected) if failure.kind == FailureKind::Interrupted => {
            Ok((collected, true))
        }
        (Err(failure), _) => Err(failure),
    }
}

/// A folder of a snapshot.
pub(super) async fn page(asked: &Asked) -> Answer {
    let snapshot = asked.query.need("snapshot", "the snapshot")?.to_owned();
    let folder = asked.query.path();
    let from = asked.query.from();
    let command = Command::BackupLs {
        snapshot: snapshot.clone(),
        path: folder.clone(),
        recursive: false,
    };
    let heard = asked
        .run_with(command, move |heard: Heard<'_, Listing>| {
            let Event::Entry(entry) = heard.event else {
                return;
            };
            let listing = heard.collected;
            if listing.passed < from {
                listing.passed += 1;
            } else if listing.entries.len() < ENTRIES_PER_PAGE {
                listing.entries.push(entry);
            } else {
                listing.has_more = true;
                heard.cancel.cancel();
            }
        })
        .await;
    let (listing, _) = cut(heard)?;
    let mut fields = vec![("snapshot", snapshot.as_str())];
    fields.extend(folder.iter().flat_map(parts::path_query));
    let now = asked.shared.now();
    let body = html! {
        (crumbs(&snapshot, folder.as_ref()))
        @if listing.entries.is_empty() { (parts::empty("This folder is empty.", html! {})) }
        @else { (table(&listing.entries, now)) }
        (pager("/backups/browse", &fields, from, ENTRIES_PER_PAGE, listing.has_more))
        (card("restore", if folder.is_some() { "Restore this folder" } else { "Restore everything in this snapshot" }, restore_form(&snapshot, folder.as_ref(), &asked.shared.restore_place())))
    };
    Ok(Reply::Sheet(Sheet::new(
        "Inside a snapshot",
        Place::Backups,
        body,
    )))
}

pub(super) fn crumbs(snapshot: &str, folder: Option<&PathText>) -> Markup {
    let at = |path: Option<&PathText>| {
        let mut fields = vec![("snapshot", snapshot)];
        fields.extend(path.into_iter().flat_map(parts::path_query));
        parts::address("/backups/browse", &fields)
    };
    let path = folder.map(PathText::to_path).unwrap_or_default();
    let mut above: Vec<PathText> = path
        .ancestors()
        .filter(|part| !part.as_os_str().is_empty() && *part != Path::new("/"))
        .map(PathText::from_path)
        .collect();
    above.reverse();
    let last = above.pop();
    html! {
        nav.crumbs aria-label="Where you are" {
            a href="/backups" { "Backups" }
            a href=(at(None)) { "Snapshot " (text_id(snapshot)) }
            @for part in &above { a href=(at(Some(part))) { (last_name(part)) } }
            @if let Some(last) = &last { span { (last_name(last)) } }
        }
    }
}

fn last_name(path: &PathText) -> String {
    let path = path.to_path();
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    text::shown(&name.unwrap_or_else(|| "/".to_owned()))
}

pub(super) fn table(entries: &[EntryView], now: i64) -> Markup {
    html! {
        div.scroll role="region" tabindex="0" aria-label="What is in the folder" {
            table {
                thead { tr { th scope="col" { "Name" } th.number scope="col" { "Size" } th scope="col" { "Changed" } } }
                tbody {
                    @for entry in entries {
                        tr {
                            td { (entry_name(entry)) }
                            td.number { @if entry.kind == "file" { (text::bytes(entry.bytes)) } }
                            td { (when(entry.modified_ns.div_euclid(NANOS_PER_MS), now)) }
                        }
                    }
                }
            }
        }
    }
}

fn entry_name(entry: &EntryView) -> Markup {
    let name = last_name(&entry.path);
    if entry.kind == "folder" {
        let mut fields = vec![("snapshot", entry.snapshot.as_str())];
        fields.extend(parts::path_query(&entry.path));
        return html! { a href=(parts::address("/backups/browse", &fields)) { bdi { (name) } "/" } };
    }
    html! {
        bdi { (name) }
        @if let Some(target) = &entry.target { " → " (parts::path(target)) }
        @else if entry.kind != "file" { " " span.quiet { "(" (entry.kind) ")" } }
    }
}

/// Files that were found, with the way to their folders, once no search keeps those closed.
pub(super) fn found(entries: &[EntryView], is_over: bool) -> Markup {
    html! {
        ul.rows {
            @for entry in entries {
                @let folder = entry.path.to_path().parent().map(PathText::from_path).filter(|folder| !folder.text.is_empty());
                @let at = {
                    let mut fields = vec![("snapshot", entry.snapshot.as_str())];
                    fields.extend(folder.iter().flat_map(parts::path_query));
                    parts::address("/backups/browse", &fields)
                };
                li.row {
                    div.what {
                        strong { bdi { (last_name(&entry.path)) } }
                        span.quiet { (parts::path(&entry.path)) " " (text::bytes(entry.bytes)) ". Snapshot " code { (text_id(&entry.snapshot)) } }
                    }
                    @if is_over { div.do { (parts::link(&at, "Its folder", Look::Quiet)) } }
                }
            }
        }
    }
}

pub(super) fn restore_form(snapshot: &str, folder: Option<&PathText>, to: &str) -> Markup {
    html! {
        form.stack method="post" action="/backups/restore" {
            input type="hidden" name="snapshot" value=(snapshot);
            @if let Some(folder) = folder { (parts::path_fields(folder)) }
            div.field {
                label for="restore-to" { "Put it into this folder" }
                input #restore-to name="to" required value=(to) autocomplete="off";
                p.hint { "Best a new one. What is there already and is different stays as it is, and is listed." }
            }
            div.buttons { button.button.main type="submit" { "Restore" } }
        }
    }
}

/// Begins a restore.
pub(super) fn restore(asked: &Asked) -> Answer {
    let snapshot = asked.form.need("snapshot", "the snapshot")?.to_owned();
    let to = asked.form.absolute("to")?;
    let paths: Vec<PathText> = asked.form.path().into_iter().collect();
    let what = paths
        .first()
        .map_or_else(|| "a snapshot".to_owned(), last_name);
    let title = format!("Restoring {what} to {}", text::shown(&to.text));
    let command = Command::BackupRestore {
        snapshot,
        paths,
        to,
        privileged: false,
    };
    asked.begin(Kind::Restore, title, command, "/backups")
}
