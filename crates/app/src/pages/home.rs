//! Home: four questions, answered at a glance.

use candor_client::commands::{
    Command, ConsentView, Failure, LedgerHourView, LedgerSummaryView, SetView, StatusView, View,
};
use candor_wire::time::DAY_MS;
use maud::{Markup, html};

use super::live::{self, Part};
use super::parts::{self, Look, Tone, badge, card, name, when, when_or};
use super::request::{Answer, Asked, Reply, expect_view};
use super::shell::{Place, Sheet};
use super::{Shared, off_the_thread};
use crate::text;
use crate::today::{NO_WAY, NOBODY, Today, errand_words, leaves, live, sends, to_words};

/// Days that the small chart goes back: two weeks show whether today is like other days.
const CHART_DAYS: i64 = 14;

/// The page.
pub(super) async fn page(asked: &Asked) -> Answer {
    let body = off_the_thread(&asked.shared, |shared| {
        let look = live::Look::new(shared);
        html! {
            div.answers {
                (card("safe", "Is my data safe?", Part::Safe.whole(&look)))
                (card("on", "What is switched on?", Part::Services.whole(&look)))
                (card("left", "What left this device?", Part::Left.whole(&look)))
                (card("asked", "Who asked for my data?", nobody()))
            }
        }
    })
    .await?;
    Ok(Reply::Sheet(Sheet::new("Home", Place::Home, body)))
}

/// The answer to the first question.
pub(super) fn safe(status: &StatusView, now: i64) -> Markup {
    let alarms: Vec<&String> = status.log.iter().flat_map(|log| &log.findings).collect();
    html! {
        @for alarm in alarms { (parts::notice(Tone::Bad, html! { p { strong { "Alarm: " } (parts::sentence(alarm)) } })) }
        @if status.sets.is_empty() {
            (parts::empty("Nothing is backed up yet.", parts::link("/choose?for=backup", "Choose what to protect", Look::Main)))
        } @else {
            ul.rows { @for set in &status.sets { (safe_row(set, now)) } }
            div.buttons {
                @if status.sets.iter().any(|set| set.consent == "on") {
                    (parts::action("/backups/run", "Back up now", Look::Main, &[]))
                }
                (parts::link("/backups", "All backups", Look::Quiet))
            }
        }
        (not_covered(status))
        @if !status.warnings.is_empty() {
            (parts::deeper("All that needs you, in exact words", html! {
                ul { @for warning in &status.warnings { li { (parts::commands(warning)) } } }
            }))
        }
    }
}

/// How a set stands, in a word.
pub(super) fn set_badge(set: &SetView) -> Markup {
    match set.consent.as_str() {
        "on" if set.running => badge(Tone::Plain, "backing up now"),
        "on" if set.last_backup_ms.is_none() => badge(Tone::Warn, "not backed up yet"),
        "on" if set.overdue => badge(Tone::Bad, "overdue"),
        "on" if set.last_problems > 0 => badge(Tone::Warn, "not complete"),
        "on" => badge(Tone::Good, "backed up"),
        "ended" => badge(Tone::Warn, "your consent has ended"),
        "withdrawn" => badge(Tone::Plain, "switched off"),
        _ => badge(Tone::Plain, "not switched on"),
    }
}

fn safe_row(set: &SetView, now: i64) -> Markup {
    html! {
        li.row {
            div.what {
                strong { (name(&set.name)) }
                span.quiet {
                    "Last backup: " (when_or(set.last_backup_ms, now, "none yet")) ". "
                    "Last verified restore: " (when_or(set.last_drill_ms, now, "none yet")) "."
                    @if set.last_problems > 0 { " " (text::counted(set.last_problems, "file is", "files are")) " missing from it." }
                    @if set.interrupted { " It was interrupted, and goes on where it stopped." }
                }
            }
            div.how { (set_badge(set)) }
        }
    }
}

/// What the backups do not protect from, each with what to do.
fn not_covered(status: &StatusView) -> Markup {
    let account = status.account.as_ref();
    let same_disk =
        account.is_some_and(|account| account.cell_on_same_disk) && !status.sets.is_empty();
    let unconfirmed = account.is_some_and(|account| !account.phrase_confirmed);
    html! {
        @if same_disk {
            (parts::notice(Tone::Warn, html! {
                p { strong { "This copy does not survive the loss of this disk." } " Your files and their backup are on the same one." }
                (parts::deeper("What to do", html! { p { "Run a cell on another machine (" code { "candor server init" } "), or on another disk, and open an account there." } }))
            }))
        }
        @if unconfirmed {
            (parts::notice(Tone::Warn, html! {
                p { strong { "The recovery phrase is not confirmed." } " If this device is lost, its 24 words are the only way back." }
                p { (parts::link("/settings#phrase", "Confirm it", Look::Quiet)) }
            }))
        }
    }
}

/// Services that this version offers: name, what it is called, what it does.
pub(super) const OFFERED: [(&str, &str, &str); 2] = [
    (
        "backup",
        "Backup",
        "Copies your folders to your cell, encrypted on this device before they leave it.",
    ),
    (
        "sync",
        "Sync",
        "Keeps folders the same on all your devices, encrypted on the way.",
    ),
];

/// What a service is called on the pages.
pub(super) fn title_of(service: &str) -> &str {
    let offered = OFFERED.iter().find(|(known, ..)| *known == service);
    offered.map_or(service, |(_, title, _)| title)
}

/// The answer to the second question.
pub(super) fn services(status: &StatusView, consents: &[ConsentView], now: i64) -> Markup {
    html! {
        ul.rows {
            @for offer in OFFERED { (service_row(status, consents, offer, now)) }
        }
        p.quiet { "Everything is off until you switch it on, and switching off takes no more steps." }
    }
}

fn service_row(
    status: &StatusView,
    consents: &[ConsentView],
    (service, title, does): (&str, &str, &str),
    now: i64,
) -> Markup {
    let is_on = status
        .services
        .iter()
        .any(|one| one.name == service && one.on);
    let live = live(consents, service);
    html! {
        li.row {
            div.what {
                strong { (title) }
                span.quiet {
                    (does)
                    @if let Some(first) = live.first() {
                        " Sends " (sends(status, service)) " to " (name(&first.controller)) ", region " (name(&first.region))
                        ", since " (when(first.given_ms, now)) "; your consent ends " (when(first.ends_ms, now)) "."
                    } @else {
                        " Nothing is sent."
                    }
                }
            }
            div.do { (switch(service, title, is_on)) }
        }
    }
}

/// A service's switch: it asks before it does anything.
fn switch(service: &str, title: &str, is_on: bool) -> Markup {
    let (class, word, next) = if is_on {
        ("switch on", "on", "off")
    } else {
        ("switch off", "off", "on")
    };
    let to = format!("/services/{service}/{next}");
    html! {
        a class=(class) href=(to) hx-get=(to) hx-target="#dialog" hx-swap="innerHTML" aria-label={ (title) " is " (word) ". Switch it " (next) } { (word) }
    }
}

/// The answer to the third question.
pub(super) fn left(summary: &LedgerSummaryView, now: i64) -> Markup {
    let today = Today::of(summary, now);
    let of_days = days(summary, now, leaves);
    html! {
        p { strong { (today.amount()) } (today.rest()) " " span.quiet { "A day begins at midnight UTC." } }
        @if of_days.iter().any(|(_, out)| *out > 0) { (parts::chart("Bytes that left this device, by day", &of_days)) }
        @if today.went().next().is_some() {
            ul.rows {
                @for one in today.went() {
                    li.row {
                        div.what { strong { (errand_words(one.service)) } span.quiet { (to_words(one.destination, one.protocol)) } }
                        div.how { (text::bytes(one.out_bytes)) }
                    }
                }
            }
        }
        @if let Some(alarms) = today.alarms() { (parts::notice(Tone::Bad, html! { p { strong { (alarms) } } })) }
        div.buttons { (parts::link("/ledger", "The whole ledger", Look::Quiet)) }
    }
}

/// Bytes that went out on each of the last days, with their words.
pub(super) fn days(
    summary: &LedgerSummaryView,
    now: i64,
    counts: fn(&LedgerHourView) -> bool,
) -> Vec<(String, u64)> {
    let today = now.div_euclid(DAY_MS);
    (today - CHART_DAYS + 1..=today)
        .map(|day| {
            let of_day = summary
                .hours
                .iter()
                .filter(|hour| hour.hour_ms.div_euclid(DAY_MS) == day && counts(hour));
            let out = of_day.map(|hour| hour.out_bytes).sum();
            let date = text::time(day * DAY_MS);
            let date = date.split(' ').next().unwrap_or_default();
            (format!("{date}: {}", text::bytes(out)), out)
        })
        .collect()
}

/// The answer to the fourth question.
fn nobody() -> Markup {
    html! {
        p { strong { (NOBODY) } " " (NO_WAY) }
        (parts::deeper("How to check that", html! {
            p { "A cell is handed sealed objects and no key. The program for those who run cells for others is built without the code that decrypts. Every consent and every device of your account is in a public log, which this device watches: see " a href="/log" { "Log" } "." }
        }))
    }
}

impl Shared {
    /// What is on, what is safe, what waits. Sends nothing.
    pub(super) fn status(&self) -> Result<StatusView, Failure> {
        Ok(*expect_view!(self.ask(Command::Status)?, Status)?)
    }

    /// Consents of this device, as known here. Sends nothing.
    pub(super) fn consents(&self) -> Result<Vec<ConsentView>, Failure> {
        expect_view!(self.ask(Command::ConsentList)?, Consents)
    }

    /// What went over the connections of the last weeks.
    pub(super) fn ledger_summary(&self) -> Result<LedgerSummaryView, Failure> {
        expect_view!(self.ask(Command::LedgerSummary)?, LedgerSummary)
    }

    /// Runs a command that sends nothing and is done at once.
    pub(super) fn ask(&self, command: Command) -> Result<View, Failure> {
        self.engine()?
            .execute(command, &mut |_| {}, &candor_client::Cancel::default())
    }
}
