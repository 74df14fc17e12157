//! Backups: what is backed up, its snapshots as a timeline, looking inside, and getting it back.

use candor_client::commands::{Command, SetView, SnapshotView, StatusView};
use maud::{Markup, html};

use super::home::set_badge;
use super::jobs::Kind;
use super::live::{self, Part};
use super::parts::{self, Look, Tone, card, name, when, when_or};
use super::request::{Answer, Asked, Fields, Reply, expect_view};
use super::shell::{Place, Sheet};
use super::{find, off_the_thread, text_id};
use crate::text;

/// Files of a restore that is tried: a few seconds' work.
const DRILL_FILES: u32 = 20;

/// Snapshots on one page of the timeline: two days of hourly backups.
const SNAPSHOTS_PER_PAGE: usize = 50;

/// The page.
pub(super) async fn page(asked: &Asked) -> Answer {
    let body = off_the_thread(&asked.shared, |shared| {
        html! {
            (card("sets", "What is backed up", Part::Sets.whole(&live::Look::new(shared))))
            (card("add", "Back up something else", add_form("", "")))
            (card("find", "Find a file", find::form("")))
            (card("check", "Look after what is stored", check_forms()))
        }
    })
    .await?;
    Ok(Reply::Sheet(Sheet::new("Backups", Place::Backups, body)))
}

/// The sets, and what can be done with each.
pub(super) fn sets(status: &StatusView, now: i64) -> Markup {
    if status.sets.is_empty() {
        let next = parts::link("/choose?for=backup", "Choose a folder", Look::Main);
        return parts::empty("Nothing is backed up yet.", next);
    }
    let waiting = status
        .sets
        .iter()
        .any(|set| set.consent != "on" && set.consent != "withdrawn");
    html! {
        @if waiting {
            (parts::notice(Tone::Warn, html! {
                p { "Something here is not backed up, because you have not said yes to it." }
                (parts::dialog_link("/services/backup/on", "Read what you would agree to", Look::Main.class()))
            }))
        }
        ul.rows { @for set in &status.sets { (row(set, now)) } }
    }
}

fn row(set: &SetView, now: i64) -> Markup {
    let fields = [("set", set.name.as_str())];
    html! {
        li.row {
            div.what {
                strong { (name(&set.name)) }
                span.quiet { @for path in &set.paths { (parts::path(path)) " " } }
                span.quiet { "Last backup: " (when_or(set.last_backup_ms, now, "none yet")) ". Last verified restore: " (when_or(set.last_drill_ms, now, "none yet")) "." }
                @if !set.excludes.is_empty() { span.quiet { "Leaves out: " @for glob in &set.excludes { code { (text::shown(glob)) } " " } } }
            }
            div.how { (set_badge(set)) }
            div.do {
                @if set.consent == "on" { (parts::action("/backups/run", "Back up now", Look::Main, &fields)) }
                @if set.last_backup_ms.is_some() {
                    (parts::link(&parts::address("/backups/snapshots", &fields), "Snapshots", Look::Quiet))
                    (parts::action("/backups/drill", "Try a restore", Look::Quiet, &fields))
                }
                @if set.consent == "on" { (parts::dialog_link(&parts::address("/services/backup/off", &fields), "Switch off", Look::Quiet.class())) }
                @else if set.consent != "on" { (parts::dialog_link(&parts::address("/services/backup/on", &fields), "Switch on", Look::Quiet.class())) }
            }
        }
    }
}

/// A form for one more set.
pub(super) fn add_form(path: &str, set: &str) -> Markup {
    html! {
        form.stack method="post" action="/backups/add" {
            div.field {
                label for="add-path" { "Folder" }
                input #add-path name="path" required value=(path) autocomplete="off" placeholder="/home/you/Documents";
                p.hint { "The whole path, or " a href="/choose?for=backup" { "choose it" } "." }
            }
            div.field {
                label for="add-name" { "Name" }
                input #add-name name="name" value=(set) autocomplete="off";
                p.hint { "May be left empty: then it is called like the folder." }
            }
            details {
                summary { "Leave something out" }
                div.field {
                    label for="add-excludes" { "Patterns, one in each line" }
                    textarea #add-excludes name="excludes" rows="3" placeholder="*.tmp" {}
                    p.hint { "As in a .gitignore file." }
                }
            }
            div.buttons { button.button.main type="submit" { "Add it" } }
            p.hint { "Adding sends nothing. You are asked for your consent next." }
        }
    }
}

fn check_forms() -> Markup {
    html! {
        p { "A check asks the cell whether everything is there. Reading every byte takes longer, and proves that it can be restored." }
        div.buttons {
            (parts::action("/backups/check", "Check", Look::Quiet, &[("read", "no")]))
            (parts::action("/backups/check", "Check every byte", Look::Quiet, &[("read", "yes")]))
            (parts::action("/backups/drill", "Try a restore of each", Look::Quiet, &[]))
        }
    }
}

/// Adds a set, and goes on to the question.
pub(super) async fn add(asked: &Asked) -> Answer {
    let excludes = asked.form.get("excludes").unwrap_or_default();
    let command = Command::BackupAdd {
        name: asked.form.get("name").map(str::to_owned),
        paths: vec![asked.form.absolute_path()?],
        excludes: excludes
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect(),
    };
    let set = expect_view!(asked.run(command).await?, Set)?;
    let on = parts::address("/services/backup/on", &[("set", &set.name)]);
    let words = html! {
        p { strong { (name(&set.name)) " is on the list." } " Nothing of it is sent until you say yes." }
        p { (parts::dialog_link(&on, "Read what you would agree to", Look::Main.class())) }
    };
    asked.told("/backups", parts::notice(Tone::Good, words))
}

fn set_names(form: &Fields) -> Vec<String> {
    form.get("set").map(str::to_owned).into_iter().collect()
}

/// What a job over sets is called.
fn titled(doing: &str, sets: &[String]) -> String {
    match sets.first() {
        Some(set) => format!("{doing} {}", text::shown(set)),
        None => format!("{doing} everything"),
    }
}

/// Begins a backup.
pub(super) async fn run(asked: &Asked) -> Answer {
    let sets = set_names(&asked.form);
    let all = expect_view!(asked.run(Command::BackupList).await?, Sets)?;
    let mut meant = all
        .iter()
        .filter(|set| set.consent == "on" && (sets.is_empty() || sets.contains(&set.name)))
        .peekable();
    if meant.peek().is_some() && meant.all(|set| set.running) {
        let words = html! { p { strong { "It is being backed up already." } } };
        return asked.told("/backups", parts::notice(Tone::Plain, words));
    }
    let title = titled("Backing up", &sets);
    asked.begin(Kind::Backup, title, Command::BackupRun { sets }, "/backups")
}

/// Begins to try a restore.
pub(super) fn drill(asked: &Asked) -> Answer {
    let sets = set_names(&asked.form);
    let title = titled("Restoring a sample of", &sets);
    let command = Command::BackupDrill {
        sets,
        files: DRILL_FILES,
        quick: false,
    };
    asked.begin(Kind::Drill, title, command, "/backups")
}

/// Begins a check.
pub(super) fn check(asked: &Asked) -> Answer {
    let read_data = asked.form.get("read") == Some("yes");
    let title = if read_data {
        "Checking every byte"
    } else {
        "Checking that everything is there"
    };
    let command = Command::BackupCheck {
        read_data,
        repair: false,
    };
    asked.begin(Kind::Check, title.to_owned(), command, "/backups")
}

/// The snapshots as a timeline.
pub(super) async fn snapshots(asked: &Asked) -> Answer {
    let set = asked.query.get("set");
    let command = Command::BackupSnapshots {
        set: set.map(str::to_owned),
    };
    let mut all = expect_view!(asked.run(command).await?, Snapshots)?;
    all.sort_by_key(|one| std::cmp::Reverse(one.time_ms));
    let title = set.map_or_else(
        || "Snapshots".to_owned(),
        |set| format!("Snapshots of {}", text::shown(set)),
    );
    let from = asked.query.from();
    let now = asked.shared.now();
    let body = html! {
        nav.crumbs aria-label="Where you are" { a href="/backups" { "Backups" } span { (title) } }
        @if all.is_empty() { (parts::empty("There is no snapshot yet.", parts::link("/backups", "Back up", Look::Main))) }
        ol.timeline { @for one in all.iter().skip(from).take(SNAPSHOTS_PER_PAGE) { (snapshot(one, now)) } }
        (pager("/backups/snapshots", &set.map(|set| ("set", set)).into_iter().collect::<Vec<_>>(), from, SNAPSHOTS_PER_PAGE, all.len() > from + SNAPSHOTS_PER_PAGE))
    };
    Ok(Reply::Sheet(Sheet::new(
        title.clone(),
        Place::Backups,
        body,
    )))
}

pub(super) fn snapshot(one: &SnapshotView, now: i64) -> Markup {
    let inside = parts::address("/backups/browse", &[("snapshot", &one.snapshot)]);
    html! {
        li {
            strong { (when(one.time_ms, now)) } " "
            span.quiet { (name(&one.set)) ": " (text::counted(one.files, "file", "files")) ", " (text::bytes(one.bytes)) ". Snapshot " code { (text_id(&one.snapshot)) } }
            div.buttons { (parts::link(&inside, "Look inside", Look::Quiet)) }
        }
    }
}

/// The way to what does not fit on one page.
pub(super) fn pager(
    to: &str,
    fields: &[(&str, &str)],
    from: usize,
    per_page: usize,
    has_more: bool,
) -> Markup {
    let at = |from: usize| {
        let from = from.to_string();
        let mut all = fields.to_vec();
        all.push(("from", &from));
        parts::address(to, &all)
    };
    html! {
        @if from > 0 || has_more {
            nav.pager aria-label="More" {
                @if from > 0 { a.button href=(at(from.saturating_sub(per_page))) { "Back" } }
                @if has_more { a.button href=(at(from + per_page)) { "More" } }
            }
        }
    }
}
