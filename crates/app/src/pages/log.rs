//! The log: what the cell says in public, and who vouches for it.

use candor_client::commands::{Command, LogView, StatusView};
use maud::{Markup, html};

use super::jobs::Kind;
use super::live::{self, Part};
use super::off_the_thread;
use super::parts::{self, Look, Tone, badge, card, when_or};
use super::request::{Answer, Asked, Reply};
use super::shell::{Place, Sheet};
use crate::text;

/// The page.
pub(super) async fn page(asked: &Asked) -> Answer {
    let body = off_the_thread(&asked.shared, |shared| {
        html! {
            (card("state", "What this device found", Part::Log.whole(&live::Look::new(shared))))
            (card("what", "What it is for", html! {
                p { "Every consent, every device and every erasure of every account is a line in this log, in a form that tells strangers nothing. The cell cannot take a line back, and cannot show you another log than it shows everybody else, without being found out." }
                p { "Witnesses are independent parties that sign what they see. The file " code { "log-policy" } " in candor's folder says whose word you ask for." }
            }))
        }
    })
    .await?;
    Ok(Reply::Sheet(Sheet::new("Log", Place::Log, body)))
}

/// How the log stands, as this device saw it last.
pub(super) fn state(status: &StatusView, now: i64) -> Markup {
    let Some(log) = status.log.as_deref() else {
        return parts::empty("This device has not looked at its cell's log yet.", look());
    };
    html! {
        @for finding in &log.findings { (parts::notice(Tone::Bad, html! { p { strong { "Alarm: " } (parts::sentence(finding)) } })) }
        @if log.findings.is_empty() { p { (badge(Tone::Good, "nothing is missing, extra or doubled")) } }
        p { (standing(log)) " " (parts::sentence(&log.sentence)) }
        (parts::facts(&[
            ("Looked through", when_or(log.checked_ms, now, "not yet")),
            ("Entries", html! { (text::count(log.size)) }),
            ("Witnesses that vouch for it", html! { @if log.witnesses.is_empty() { "none" } @else { (text::shown(&log.witnesses.join(", "))) } }),
            ("Last witnessed", when_or(log.witnessed_ms, now, "never")),
        ]))
        @if log.evidence_files > 0 {
            (parts::notice(Tone::Bad, html! { p { (text::counted(log.evidence_files, "file that speaks", "files that speak")) " against the cell: in the folder " code { "evidence" } " of candor's folder." } }))
        }
        (parts::deeper("Exact terms", parts::facts(&[
            ("Log", html! { code.path { (text::shown(&log.origin)) } }),
            ("Root of the tree", html! { code.path { (text::shown(&log.root)) } }),
            ("Standing", html! { (log.standing) }),
        ])))
        (look())
    }
}

fn standing(log: &LogView) -> Markup {
    if log.is_witnessed() {
        badge(Tone::Good, "witnessed")
    } else if log.is_stale() {
        badge(Tone::Bad, "not witnessed lately")
    } else {
        badge(Tone::Plain, "not witnessed")
    }
}

fn look() -> Markup {
    html! { div.buttons { (parts::action("/log/look", "Look through it now", Look::Main, &[])) } }
}

/// Begins to look through it.
pub(super) fn look_now(asked: &Asked) -> Answer {
    let title = "Looking through the cell's log".to_owned();
    asked.begin(Kind::Look, title, Command::LogMonitor, "/log")
}
