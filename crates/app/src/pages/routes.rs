//! What can be asked for. Everything here was judged before ([`super::guard`]).

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::request::{Answer, Asked, Reply};
use super::shell::{self, Place};
use super::{
    Shared, backups, browse, choose, consent, devices, find, folders, home, jobs_part, ledger,
    live, log, services, settings, welcome,
};

/// Files that are part of the program: name, type, content.
const ASSETS: [(&str, &str, &[u8]); 4] = [
    (
        "candor.css",
        "text/css; charset=utf-8",
        include_bytes!("assets/candor.css"),
    ),
    (
        "candor.js",
        "text/javascript; charset=utf-8",
        include_bytes!("assets/candor.js"),
    ),
    (
        "htmx.min.js",
        "text/javascript; charset=utf-8",
        include_bytes!("assets/htmx.min.js"),
    ),
    (
        "icon.svg",
        "image/svg+xml",
        include_bytes!("assets/icon.svg"),
    ),
];

/// Makes a handler of an asynchronous function that answers.
macro_rules! page {
    ($title:expr, $place:ident, $handler:path $(, $argument:expr)*) => {
        |asked: Asked| async move {
            let answer = $handler(&asked $(, $argument)*).await;
            asked.respond($title, Place::$place, answer)
        }
    };
}

/// Makes a handler of a function that answers at once.
macro_rules! step {
    ($title:expr, $place:ident, $handler:path) => {
        |asked: Asked| async move {
            let answer = $handler(&asked);
            asked.respond($title, Place::$place, answer)
        }
    };
}

/// All routes.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page!("Home", Home, home::page)))
        .merge(backup_routes())
        .merge(folder_routes())
        .merge(trust_routes())
        .merge(settings_routes())
        .merge(welcome_routes())
        .route(
            "/live",
            get(|asked: Asked| async move { live::stream(&asked) }),
        )
        .route("/parts/{name}", get(part))
        .route("/assets/{name}", get(asset))
        .fallback(missing)
        .with_state(Arc::clone(shared))
}

fn backup_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/backups", get(page!("Backups", Backups, backups::page)))
        .route(
            "/backups/add",
            post(page!("Backups", Backups, backups::add)),
        )
        .route(
            "/backups/run",
            post(page!("Backups", Backups, backups::run)),
        )
        .route(
            "/backups/drill",
            post(step!("Backups", Backups, backups::drill)),
        )
        .route(
            "/backups/check",
            post(step!("Backups", Backups, backups::check)),
        )
        .route(
            "/backups/snapshots",
            get(page!("Snapshots", Backups, backups::snapshots)),
        )
        .route(
            "/backups/find",
            get(page!("Find a file", Backups, find::page)),
        )
        .route(
            "/backups/browse",
            get(page!("Inside a snapshot", Backups, browse::page)),
        )
        .route(
            "/backups/restore",
            post(step!("Restore", Backups, browse::restore)),
        )
        .route(
            "/choose",
            get(page!("Choose a folder", Backups, choose::page)),
        )
        .route("/jobs/stop", post(step!("Stop", Home, stop_job)))
        .route("/jobs/seen", post(step!("Seen", Home, put_job_away)))
}

fn folder_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/folders", get(page!("Folders", Folders, folders::page)))
        .route(
            "/folders/add",
            post(page!("Folders", Folders, folders::add)),
        )
        .route(
            "/folders/join",
            post(page!("Folders", Folders, folders::join)),
        )
        .route(
            "/folders/pause",
            post(page!("Folders", Folders, folders::pause)),
        )
        .route(
            "/folders/run",
            post(page!("Folders", Folders, folders::run)),
        )
        .route(
            "/folders/versions",
            get(page!("Versions", Folders, folders::versions)),
        )
        .route(
            "/folders/restore",
            post(step!("Folders", Folders, folders::restore)),
        )
}

fn trust_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/services/{service}/on", get(ask_on).post(on))
        .route("/services/{service}/off", get(ask_off).post(off))
        .route("/consent", get(page!("Consent", Consent, consent::page)))
        .route("/consent/keep", post(page!("Keep", Consent, consent::keep)))
        .route(
            "/consent/receipt",
            get(page!("Receipt", Consent, consent::receipt)),
        )
        .route("/devices", get(page!("Devices", Devices, devices::page)))
        .route(
            "/devices/link",
            get(page!("New device", Devices, devices::link_page)).post(page!(
                "New device",
                Devices,
                devices::link
            )),
        )
        .route(
            "/devices/answer",
            post(page!("New device", Devices, devices::answer)),
        )
        .route(
            "/devices/revoke",
            get(page!("Revoke", Devices, devices::ask_revoke)).post(page!(
                "Revoke",
                Devices,
                devices::revoke
            )),
        )
        .route("/ledger", get(page!("Ledger", Ledger, ledger::page)))
        .route(
            "/ledger/export",
            get(step!("Ledger", Ledger, ledger::export)),
        )
        .route(
            "/ledger/verify",
            post(step!("Ledger", Ledger, ledger::verify)),
        )
        .route("/log", get(page!("Log", Log, log::page)))
        .route("/log/look", post(step!("Log", Log, log::look_now)))
}

fn settings_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route(
            "/settings",
            get(page!("Settings", Settings, settings::page)),
        )
        .route(
            "/settings/phrase",
            post(page!("Recovery phrase", Settings, settings::confirm)),
        )
        .route(
            "/settings/export",
            post(step!("Export", Settings, settings::export)),
        )
        .route(
            "/settings/leave",
            post(page!("Browsers", Settings, settings::leave)),
        )
        .route(
            "/settings/stop",
            get(step!("Stop", Settings, settings::ask_stop)).post(step!(
                "Stop",
                Settings,
                settings::stop
            )),
        )
        .route(
            "/settings/delete",
            get(step!("Delete", Settings, settings::ask_delete)).post(page!(
                "Delete",
                Settings,
                settings::delete,
                false
            )),
        )
        .route(
            "/settings/keep",
            post(page!("Keep", Settings, settings::delete, true)),
        )
}

/// The first run. [`super::listen`] lets nobody there afterwards.
fn welcome_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/welcome", get(welcome::begin_page).post(welcome::begin))
        .route("/welcome/phrase", get(welcome::phrase_page))
        .route(
            "/welcome/words",
            get(welcome::words_page).post(welcome::words),
        )
}

/// A service that is offered, or why it is none.
fn offered(service: &str) -> Result<(), candor_client::commands::Failure> {
    let is_offered = home::OFFERED.iter().any(|(known, ..)| *known == service);
    if is_offered {
        Ok(())
    } else {
        Err(super::no_such_service(service))
    }
}

/// Makes a handler of a function that answers for one service.
macro_rules! for_service {
    ($name:ident) => {
        async fn $name(Path(service): Path<String>, asked: Asked) -> Response {
            let answer = match offered(&service) {
                Ok(()) => services::$name(&asked, &service).await,
                Err(failure) => Err(failure),
            };
            asked.respond("Consent", Place::Consent, answer)
        }
    };
}

for_service!(ask_on);
for_service!(on);
for_service!(ask_off);
for_service!(off);

fn stop_job(asked: &Asked) -> Answer {
    let jobs = &asked.shared.jobs;
    let number = asked.form.number("job").unwrap_or(0);
    jobs.stop(number);
    let search = jobs.of(number).and_then(|job| find::address(&job));
    Ok(Reply::SeeOther(search.unwrap_or_else(|| back(asked))))
}

fn put_job_away(asked: &Asked) -> Answer {
    asked
        .shared
        .jobs
        .put_away(asked.form.number("job").unwrap_or(0));
    Ok(Reply::SeeOther(back(asked)))
}

/// The page that a form was on, if it says so and is one of these.
fn back(asked: &Asked) -> String {
    let from = asked.from.as_deref().unwrap_or("/");
    let known = Place::ALL.into_iter().find(|place| place.path() == from);
    known.unwrap_or(Place::Home).path().to_owned()
}

async fn part(Path(name): Path<String>, asked: Asked) -> Response {
    let answer = live::part(&asked, &name).await;
    asked.respond("Part", Place::Home, answer)
}

/// The assets as they travel, made once: each as it is, and compressed where that is shorter.
static COMPRESSED: LazyLock<Vec<Option<Vec<u8>>>> = LazyLock::new(|| {
    let compress = |(_, _, content): &(&str, &str, &[u8])| {
        let short = zstd::bulk::compress(content, ASSET_LEVEL).ok()?;
        (short.len() < content.len()).then_some(short)
    };
    ASSETS.iter().map(compress).collect()
});

/// Assets are compressed once in a run, as well as it goes.
const ASSET_LEVEL: i32 = 19;

/// Whether the browser reads Zstandard (RFC 8878, 7.2). What it refuses by a quality of 0 it does not name at all.
fn reads_zstd(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    let mut codings = accepted.unwrap_or_default().split(',').map(str::trim);
    codings.any(|coding| coding == "zstd")
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(place) = ASSETS.iter().position(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (_, kind, content) = ASSETS[place];
    // They change with the program, and loading them again costs nothing on this machine.
    let always = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (VARY, HeaderValue::from_static("accept-encoding")),
    ];
    match COMPRESSED[place]
        .as_deref()
        .filter(|_| reads_zstd(&headers))
    {
        Some(short) => {
            let coding = [(CONTENT_ENCODING, HeaderValue::from_static("zstd"))];
            (always, coding, short).into_response()
        }
        None => (always, content).into_response(),
    }
}

async fn missing(asked: Asked) -> Response {
    let jobs = jobs_part(&asked.shared);
    asked.whole(StatusCode::NOT_FOUND, &shell::missing(), jobs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// What tests and browsers try every attack on: a method and a path on each line.
    const LIST: &str = include_str!("routes.txt");

    /// Every route in this file, read from its own text: whoever adds one adds it to the list, too.
    fn in_the_router() -> BTreeSet<String> {
        let source = include_str!("routes.rs");
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let mut routes = BTreeSet::new();
        for route in source.split(".route(").skip(1) {
            let path = route.split('"').nth(1).unwrap_or_default();
            let handlers = route.split(".route(").next().unwrap_or_default();
            let handlers = handlers.split("fn ").next().unwrap_or_default();
            for (method, word) in [("GET", "get("), ("POST", "post(")] {
                let is_there = handlers
                    .match_indices(word)
                    .any(|(at, _)| !handlers[..at].ends_with(|c: char| c.is_alphanumeric()));
                if is_there {
                    routes.insert(format!("{method} {path}"));
                }
            }
        }
        routes
    }

    /// The same with what a path stands for left open.
    fn on_the_list() -> BTreeSet<String> {
        let open = |line: &str| {
            let parts = [
                ("/services/backup/", "/services/{service}/"),
                ("/services/sync/", "/services/{service}/"),
            ];
            let line = parts
                .iter()
                .fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
            for (start, name) in [("GET /parts/", "{name}"), ("GET /assets/", "{name}")] {
                if line.starts_with(start) {
                    return format!("{start}{name}");
                }
            }
            line
        };
        LIST.lines().map(open).collect()
    }

    #[test]
    fn c05_every_route_is_on_the_list_that_attacks_are_tried_on() {
        let routes = in_the_router();
        assert!(routes.len() > 40, "{routes:?}");
        assert_eq!(routes, on_the_list());
    }
}
