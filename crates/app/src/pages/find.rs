//! Finding a file by its name in all snapshots. That may take longer than a page, so it is work like any other: the page
//! is there at once, and shows what was found as it is found.

use std::sync::Arc;

use candor_client::check_glob;
use candor_client::commands::{Command, FailureKind};
use maud::{Markup, html};

use super::browse::{ENTRIES_PER_PAGE, found};
use super::jobs::{Job, Kind, State};
use super::live::{self, Part};
use super::parts::{self, Look, card};
use super::request::{Answer, Asked, Reply};
use super::shell::{Place, Sheet};
use super::{Shared, off_the_thread};
use crate::text;

/// Files that are found at once: a page stays small, whatever fits.
pub(super) const FOUND_MAX: usize = ENTRIES_PER_PAGE;

/// The page of a search. An address without the number of one begins one, and leads to its page: whoever comes back to that
/// begins no other.
pub(super) async fn page(asked: &Asked) -> Answer {
    let glob = asked.query.need("glob", "the name")?.to_owned();
    let job = asked.query.number("job");
    let job = job.and_then(|job| asked.shared.jobs.of(job));
    let Some(job) = job.filter(|job| glob_of(job) == Some(&glob)) else {
        check_glob(&glob)?;
        let number = begin(asked, &glob)?.number;
        return Ok(Reply::SeeOther(address_of(&glob, number)));
    };
    let number = job.number;
    let body = off_the_thread(&asked.shared, move |shared| {
        html! {
            nav.crumbs aria-label="Where you are" { a href="/backups" { "Backups" } span { "Find" } }
            (card("find", "Find a file", form(&glob)))
            (Part::Found(number).whole(&live::Look::new(shared)))
        }
    })
    .await?;
    Ok(Reply::Sheet(Sheet::new(
        "Find a file",
        Place::Backups,
        body,
    )))
}

/// Begins to look, instead of what was looked for before.
fn begin(asked: &Asked, glob: &str) -> Result<Arc<Job>, super::Failure> {
    let jobs = &asked.shared.jobs;
    let command = Command::BackupFind {
        glob: glob.to_owned(),
    };
    jobs.stop_others(Kind::Find, &command);
    let title = format!("Looking for {}", text::shown(glob));
    Ok(jobs.start(asked.shared.engine()?, Kind::Find, title, command))
}

fn glob_of(job: &Job) -> Option<&str> {
    match job.command() {
        Command::BackupFind { glob } => Some(glob),
        _ => None,
    }
}

/// The address of a search's page.
pub(super) fn address(job: &Job) -> Option<String> {
    Some(address_of(glob_of(job)?, job.number))
}

fn address_of(glob: &str, number: u64) -> String {
    let fields = [("glob", glob), ("job", &number.to_string())];
    parts::address("/backups/find", &fields)
}

pub(super) fn form(glob: &str) -> Markup {
    html! {
        form.stack method="get" action="/backups/find" {
            div.field {
                label for="find-glob" { "Name" }
                input #find-glob name="glob" required value=(glob) autocomplete="off" placeholder="*.odt";
                p.hint { "* stands for anything. Looks through all snapshots." }
            }
            div.buttons { button.button type="submit" { "Find" } }
        }
    }
}

/// What a search found by now.
pub(super) fn state(shared: &Shared, number: u64) -> Markup {
    let job = shared.jobs.of(number);
    match job.filter(|job| job.kind == Kind::Find) {
        Some(job) => {
            job.ask();
            shown(&job, &job.state())
        }
        None => parts::empty("What this search found is not kept any more.", html! {}),
    }
}

pub(super) fn shown(job: &Job, state: &State) -> Markup {
    let entries = &state.entries;
    html! {
        @match &state.result {
            None => (at_work(job, state)),
            Some(Ok(_)) => @if entries.is_empty() { (parts::empty("No snapshot has a file of that name.", html! {})) },
            Some(Err(failure)) if failure.kind == FailureKind::Interrupted => {
                @if !state.has_more { p.quiet { "This search was stopped before everything was looked at." } }
            }
            Some(Err(failure)) => (parts::failure(failure)),
        }
        @if !entries.is_empty() { (found(entries, state.result.is_some())) }
        @if state.has_more { p.quiet { "There are more; a more exact name finds them." } }
    }
}

fn at_work(job: &Job, state: &State) -> Markup {
    let looked_at = state.progress.as_ref().map_or(0, |progress| progress.files);
    let number = job.number.to_string();
    html! {
        div.job {
            p { strong { (job.title) } }
            progress aria-label=(job.title) {}
            @if looked_at > 0 { p.quiet { "Looked at " (text::counted(looked_at, "name", "names")) " so far" } }
            div.buttons {
                (parts::action("/jobs/stop", "Stop", Look::Quiet, &[("job", &number)]))
                noscript { @if let Some(here) = address(job) { (parts::link(&here, "See what was found by now", Look::Quiet)) } }
            }
        }
    }
}
