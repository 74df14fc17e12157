//! What keeps an open page true: parts that carry a revision, and one stream (server-sent events, WHATWG HTML 9.2) that names
//! the parts whose revision is no longer the one that the page shows.
//!
//! The page says which parts it shows and in which revision; so nothing is missed between its making and the stream's
//! beginning, and after a restart of the daemon it catches up with everything at once.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use candor_client::commands::{Failure, StatusView};
use maud::{Markup, html};
use tokio::time::{Interval, MissedTickBehavior};

use super::request::{Answer, Asked, Browser, Reply};
use super::{Shared, backups, devices, find, folders, home, log, parts};

/// Time between two looks at what a page shows: soon enough to follow with the eye.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How the name of a search's part begins.
const FOUND: &str = "found-";

/// Something on a page that changes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Jobs,
    Safe,
    Services,
    Left,
    Sets,
    Folders,
    Link,
    Log,
    /// Of the search with this number.
    Found(u64),
}

impl Part {
    /// Those that are one of a kind.
    const ALL: [Self; 8] = [
        Self::Jobs,
        Self::Safe,
        Self::Services,
        Self::Left,
        Self::Sets,
        Self::Folders,
        Self::Link,
        Self::Log,
    ];

    fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Jobs => "jobs",
            Self::Safe => "safe",
            Self::Services => "services",
            Self::Left => "left",
            Self::Sets => "sets",
            Self::Folders => "folders",
            Self::Link => "link",
            Self::Log => "log",
            Self::Found(job) => return Cow::Owned(format!("{FOUND}{job}")),
        })
    }

    fn named(name: &str) -> Option<Self> {
        if let Some(job) = name.strip_prefix(FOUND) {
            return job.parse().ok().map(Self::Found);
        }
        Self::ALL.into_iter().find(|part| part.name() == name)
    }

    /// Makes it. Asks the engine for what this device knows, and never the cell.
    fn content(self, look: &Look<'_>) -> Result<Markup, Failure> {
        let (shared, now) = (look.shared, look.now);
        Ok(match self {
            Self::Jobs => super::jobs_content(shared),
            Self::Safe => home::safe(look.status()?, now),
            Self::Services => home::services(look.status()?, &shared.consents()?, now),
            Self::Left => home::left(&shared.ledger_summary()?, now),
            Self::Sets => backups::sets(look.status()?, now),
            Self::Folders => folders::list(look.status()?, &shared.conflicts()?, now),
            Self::Link => devices::link_state(shared),
            Self::Log => log::state(look.status()?, now),
            Self::Found(job) => find::state(shared, job),
        })
    }

    /// The same, or why it cannot be made.
    fn shown(self, look: &Look<'_>) -> Markup {
        let content = self.content(look);
        content.unwrap_or_else(|failure| parts::failure(&failure))
    }

    /// Makes it, with what it needs to be kept up to date. One that cannot be made says why.
    pub(super) fn whole(self, look: &Look<'_>) -> Markup {
        let content = self.shown(look);
        let name = self.name();
        let revision = revision(&content);
        html! {
            div id={ "live-" (name) } data-live=(name) data-revision=(revision)
                hx-get={ "/parts/" (name) } hx-trigger="refresh" hx-swap="outerMorph" { (content) }
        }
    }
}

/// One look at what the engine knows, which several parts share.
pub(super) struct Look<'a> {
    shared: &'a Shared,
    now: i64,
    status: OnceCell<StatusView>,
}

impl<'a> Look<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            now: shared.now(),
            status: OnceCell::new(),
        }
    }

    fn status(&self) -> Result<&StatusView, Failure> {
        if let Some(status) = self.status.get() {
            return Ok(status);
        }
        let status = self.shared.status()?;
        Ok(self.status.get_or_init(|| status))
    }
}

/// Names a content. Only ever compared on this machine.
fn revision(content: &Markup) -> String {
    let mut hasher = DefaultHasher::new();
    content.0.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// One part.
pub(super) async fn part(asked: &Asked, name: &str) -> Answer {
    let Some(part) = Part::named(name) else {
        return Ok(Reply::Sheet(super::shell::missing()));
    };
    let shared = Arc::clone(&asked.shared);
    let made = tokio::task::spawn_blocking(move || part.whole(&Look::new(&shared))).await;
    made.map(Reply::Part).map_err(|error| {
        crate::failure::Failure::because("this part could not be made", &error).into()
    })
}

/// What a page shows, as it says: `name:revision,name:revision`.
fn shown(words: &str) -> Vec<(Part, String)> {
    let mut parts: Vec<(Part, String)> = Vec::new();
    for word in words.split(',') {
        let named = word.split_once(':');
        let Some((part, revision)) = named.and_then(|(name, rev)| Some((Part::named(name)?, rev)))
        else {
            continue;
        };
        if !parts.iter().any(|(known, _)| *known == part) {
            parts.push((part, revision.to_owned()));
        }
    }
    parts
}

/// Looks which parts changed, and remembers how they are now.
fn changed(shared: &Shared, shown: &mut [(Part, String)]) -> String {
    let mut names = Vec::new();
    let look = Look::new(shared);
    for (part, known) in shown {
        let now = revision(&part.shown(&look));
        if now != *known {
            *known = now;
            names.push(part.name().into_owned());
        }
    }
    names.join(",")
}

/// Waits for the end of a search that is at work: what it found is shown at once.
async fn search_ends(shared: &Shared, shown: &[(Part, String)]) {
    for (part, _) in shown {
        if let Part::Found(number) = part
            && let Some(job) = shared.jobs.of(*number)
            && job.state().result.is_none()
        {
            return job.ends().await;
        }
    }
    std::future::pending().await
}

/// Somebody who looks at a page.
struct Watcher {
    shared: Arc<Shared>,
    browser: Browser,
    parts: Vec<(Part, String)>,
    ticks: Interval,
}

impl Watcher {
    /// Waits until parts changed. `None` once the program ends, or the browser was let out.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            tokio::select! {
                _ = self.ticks.tick() => {}
                () = search_ends(&self.shared, &self.parts) => {}
                () = self.shared.stop.stopped() => return None,
            }
            let shared = &self.shared;
            if !shared.entry.knows(&self.browser.0, shared.now()) {
                return None;
            }
            let (shared, mut parts) = (Arc::clone(shared), self.parts);
            let look = tokio::task::spawn_blocking(move || {
                let names = changed(&shared, &mut parts);
                (names, parts)
            });
            let (names, parts) = look.await.ok()?;
            self.parts = parts;
            if !names.is_empty() {
                return Some((Ok(Event::default().data(names)), self));
            }
        }
    }
}

/// The stream.
pub(super) fn stream(asked: &Asked) -> Response {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher {
        shared: Arc::clone(&asked.shared),
        browser: asked.browser.clone(),
        parts: shown(asked.query.get("shown").unwrap_or_default()),
        ticks,
    };
    Sse::new(futures_util::stream::unfold(watcher, Watcher::next))
        .keep_alive(KeepAlive::default())
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_it_shows() {
        assert_eq!(
            shown("safe:01,nothing:02,log:,jobs"),
            [(Part::Safe, "01".to_owned()), (Part::Log, String::new())]
        );
        assert_eq!(shown("jobs:1,jobs:2,").len(), 1, "each once");
        assert_eq!(
            shown("found-7:01,found-x:2,found-:3"),
            [(Part::Found(7), "01".to_owned())]
        );
        let name = Part::Found(7).name();
        assert_eq!(Part::named(&name), Some(Part::Found(7)));
    }

    #[test]
    fn a_revision_changes_with_the_content() {
        let [a, b] = ["a", "b"].map(|text| revision(&html! { (text) }));
        assert_ne!(a, b);
        assert_eq!(a, revision(&html! { "a" }));
    }
}
