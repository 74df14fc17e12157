//! What is around every page: the head, the way to the other pages, and what was just done.

use maud::{DOCTYPE, Markup, html};

use super::parts::{self, Tone};

/// The pages that can be gone to, in the order in which they are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Home,
    Backups,
    Folders,
    Consent,
    Devices,
    Ledger,
    Log,
    Settings,
}

impl Place {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Home,
        Self::Backups,
        Self::Folders,
        Self::Consent,
        Self::Devices,
        Self::Ledger,
        Self::Log,
        Self::Settings,
    ];

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Home => "Home",
            Self::Backups => "Backups",
            Self::Folders => "Folders",
            Self::Consent => "Consent",
            Self::Devices => "Devices",
            Self::Ledger => "Ledger",
            Self::Log => "Log",
            Self::Settings => "Settings",
        }
    }

    /// Its address.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Home => "/",
            Self::Backups => "/backups",
            Self::Folders => "/folders",
            Self::Consent => "/consent",
            Self::Devices => "/devices",
            Self::Ledger => "/ledger",
            Self::Log => "/log",
            Self::Settings => "/settings",
        }
    }
}

/// htmx without what a strict content security policy forbids, and without what is not used.
const HTMX: &str = r#"{"includeIndicatorCSS":false,"history":false,"mode":"same-origin"}"#;

/// A page without its surroundings.
pub(super) struct Sheet {
    /// What it is called; also in the browser's tab.
    pub(super) title: String,
    /// Which of the pages it belongs to; none while there is no account.
    pub(super) place: Option<Place>,
    /// What is on it.
    pub(super) body: Markup,
}

impl Sheet {
    pub(super) fn new(title: impl Into<String>, place: Place, body: Markup) -> Self {
        Self {
            title: title.into(),
            place: Some(place),
            body,
        }
    }
}

/// The whole document. `told` is what was just done; `jobs` is what is at work.
///
/// Only scripts that bear the nonce run (CSP3, 6.1.12.1): whoever got markup of theirs into a page got no script in.
pub(super) fn page(sheet: &Sheet, told: Option<Markup>, jobs: Markup, nonce: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&sheet.title, nonce))
            body {
                a.skip href="#main" { "Skip to the page" }
                @if let Some(place) = sheet.place { (navigation(place)) }
                div #stale.notice.warn role="status" hidden { "Candor does not answer. What you see may be old; this page catches up by itself when it is back." }
                main #main tabindex="-1" {
                    h1 { (sheet.title) }
                    @if let Some(told) = told { (told) }
                    (jobs)
                    (sheet.body)
                }
                dialog #dialog aria-labelledby="ask-title" {}
            }
        }
    }
}

fn head(title: &str, nonce: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            title { (title) " · Candor" }
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="htmx-config" content=(HTMX);
            link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
            link rel="stylesheet" href="/assets/candor.css";
            script src="/assets/htmx.min.js" nonce=(nonce) defer {}
            script src="/assets/candor.js" nonce=(nonce) defer {}
        }
    }
}

fn navigation(current: Place) -> Markup {
    html! {
        header.top {
            a.brand href="/" { "Candor" }
            nav aria-label="Pages" {
                ul {
                    @for place in Place::ALL {
                        li { a href=(place.path()) aria-current=[(place == current).then_some("page")] { (place.name()) } }
                    }
                }
            }
        }
    }
}

/// What a browser without a key is shown. It loads nothing else, so it has no look of its own.
pub(super) fn refused(reason: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Not let in · Candor" } meta name="viewport" content="width=device-width, initial-scale=1"; }
            body { main {
                h1 { "This browser is not let in" }
                p { (parts::sentence(reason)) }
                p { "These pages are for the person who uses this device. On it, run " code { "candor up" } " in a terminal: it opens them, or prints an address that lets one browser in, once. Type or paste that address into the address bar." }
            } }
        }
    }
}

/// A page that says why something did not work.
pub(super) fn failed(
    title: &str,
    place: Place,
    failure: &candor_client::commands::Failure,
) -> Sheet {
    let back = parts::link(place.path(), "Back", parts::Look::Quiet);
    let body = html! { (parts::failure(failure)) p { (back) } };
    Sheet::new(title, place, body)
}

/// The same, where a question would have been asked above a page.
pub(super) fn failed_question(failure: &candor_client::commands::Failure) -> Markup {
    html! {
        div.ask {
            h2 #ask-title { "That did not work" }
            (parts::failure(failure))
            div.buttons { a.button href="/" data-close autofocus { "Close" } }
        }
    }
}

/// A page that is not there.
pub(super) fn missing() -> Sheet {
    let sentence = "There is no such page.";
    let body = html! { (parts::notice(Tone::Warn, html! { p { (sentence) } })) p { (parts::link("/", "Home", parts::Look::Main)) } };
    Sheet::new("Not found", Place::Home, body)
}
