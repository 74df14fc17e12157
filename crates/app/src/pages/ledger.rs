//! The ledger: every connection that this device opened.

use std::mem::take;
use std::sync::Arc;

use axum::body::Body;
use candor_client::Cancel;
use candor_client::commands::{
    Command, Event, ExportedLine, LedgerLineView, LedgerPageView, LedgerSelection,
    LedgerSummaryView,
};
use maud::{Markup, html};
use tokio::sync::mpsc;

use super::home::days;
use super::jobs::Kind;
use super::parts::{self, Look, Tone, badge, card, when};
use super::request::{Answer, Asked, Reply, expect_view};
use super::shell::{Place, Sheet};
use crate::text;
use crate::today::{errand_words, to_words};

/// Lines on one page: a page stays small, whatever is in the ledger, and a browser lays it out at once.
const LINES_PER_PAGE: usize = 50;

/// How much of the file is sent at once, in bytes, and how many such pieces wait for a slow browser.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_AHEAD: usize = 4;

const HOUR_MS: i64 = 60 * 60 * 1000;

/// How far back can be looked: what it is called in an address, for people, and in milliseconds.
const SPANS: [(&str, &str, Option<i64>); 4] = [
    ("24h", "The last 24 hours", Some(24 * HOUR_MS)),
    ("7d", "The last 7 days", Some(7 * 24 * HOUR_MS)),
    ("30d", "The last 30 days", Some(30 * 24 * HOUR_MS)),
    ("all", "Everything that is kept", None),
];

/// Which lines are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) span: &'static str,
    pub(super) since_ms: Option<i64>,
    pub(super) service: Option<String>,
    pub(super) destination: Option<String>,
}

impl Filter {
    fn of(asked: &Asked) -> Self {
        let wanted = asked.query.get("since").unwrap_or(SPANS[0].0);
        let span = SPANS
            .iter()
            .find(|(name, ..)| *name == wanted)
            .unwrap_or(&SPANS[0]);
        Self {
            span: span.0,
            since_ms: span.2.map(|span| asked.shared.now().saturating_sub(span)),
            service: asked.query.get("service").map(str::to_owned),
            destination: asked.query.get("destination").map(str::to_owned),
        }
    }

    fn selection(&self) -> LedgerSelection {
        LedgerSelection {
            since_ms: self.since_ms,
            service: self.service.clone(),
            destination: self.destination.clone(),
        }
    }

    fn fields(&self) -> Vec<(&str, &str)> {
        let mut fields = vec![("since", self.span)];
        fields.extend(self.service.as_deref().map(|service| ("service", service)));
        fields.extend(self.destination.as_deref().map(|to| ("destination", to)));
        fields
    }
}

/// The page.
pub(super) async fn page(asked: &Asked) -> Answer {
    let filter = Filter::of(asked);
    let before = asked.query.number("before");
    let command = Command::LedgerNewest {
        selection: filter.selection(),
        before,
        most: LINES_PER_PAGE,
    };
    let read = asked.run(command).await;
    let read = read.and_then(|view| expect_view!(view, LedgerPage));
    // The rest is shown even if lines cannot be read.
    let (newest, trouble) = match read {
        Ok(newest) => (newest, None),
        Err(failure) => (LedgerPageView::default(), Some(parts::failure(&failure))),
    };
    let summary = expect_view!(asked.run(Command::LedgerSummary).await?, LedgerSummary)?;
    let now = asked.shared.now();
    let body = html! {
        @if let Some(trouble) = trouble { (trouble) }
        (card("days", "What was sent, by day", chart_and_sums(&summary, now)))
        (card("filter", "Look for", filter_form(&filter, &summary)))
        (card("lines", "Connections", html! {
            (table(&newest.lines, now))
            (turn(&filter, before, newest.older_before))
        }))
        (card("keep", "Keep and check it", html! {
            p { "Each line is chained to the one before and signed by this device, so nothing can be taken out unnoticed. The export has one JSON object in each line, and can be compared with a capture of the network." }
            div.buttons {
                (parts::link("/ledger/export", "Export", Look::Quiet))
                (parts::action("/ledger/verify", "Verify", Look::Quiet, &[]))
            }
        }))
    };
    Ok(Reply::Sheet(Sheet::new("Ledger", Place::Ledger, body)))
}

pub(super) fn chart_and_sums(summary: &LedgerSummaryView, now: i64) -> Markup {
    let mut sums: Vec<(&str, u64, u64, u64)> = Vec::new();
    for hour in &summary.hours {
        let place = sums
            .iter()
            .position(|sum| sum.0 == hour.service)
            .unwrap_or_else(|| {
                sums.push((&hour.service, 0, 0, 0));
                sums.len() - 1
            });
        let sum = &mut sums[place];
        sum.1 = sum.1.saturating_add(hour.connections);
        sum.2 = sum.2.saturating_add(hour.out_bytes);
        sum.3 = sum.3.saturating_add(hour.in_bytes);
    }
    sums.sort_by_key(|sum| std::cmp::Reverse(sum.2));
    html! {
        (parts::chart("Bytes that were sent, by day", &days(summary, now, |_| true)))
        @if sums.is_empty() { (parts::empty("No connection was opened in the last month.", html! {})) }
        @else {
            div.scroll role="region" tabindex="0" aria-label="The last month, by purpose" {
                table {
                    thead { tr { th scope="col" { "The last month" } th.number scope="col" { "Connections" } th.number scope="col" { "Out" } th.number scope="col" { "In" } } }
                    tbody {
                        @for (service, connections, out, r#in) in sums {
                            tr { td { (errand_words(service)) } td.number { (text::count(connections)) } td.number { (text::bytes(out)) } td.number { (text::bytes(r#in)) } }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn filter_form(filter: &Filter, summary: &LedgerSummaryView) -> Markup {
    let mut services: Vec<&str> = summary
        .hours
        .iter()
        .map(|hour| hour.service.as_str())
        .collect();
    services.extend(filter.service.as_deref());
    services.sort_unstable();
    services.dedup();
    html! {
        form.stack method="get" action="/ledger" {
            div.field {
                label for="ledger-since" { "When" }
                select #ledger-since name="since" {
                    @for (value, words, _) in SPANS { option value=(value) selected[value == filter.span] { (words) } }
                }
            }
            div.field {
                label for="ledger-service" { "What for" }
                select #ledger-service name="service" {
                    option value="" { "Anything" }
                    @for service in services { option value=(service) selected[filter.service.as_deref() == Some(service)] { (errand_words(service)) } }
                }
            }
            div.field {
                label for="ledger-destination" { "Where to" }
                input #ledger-destination name="destination" value=(filter.destination.as_deref().unwrap_or_default()) autocomplete="off" placeholder="part of an address";
            }
            div.buttons { button.button type="submit" { "Look" } }
        }
    }
}

/// The ways to newer and older lines.
pub(super) fn turn(filter: &Filter, before: Option<u64>, older: Option<u64>) -> Markup {
    let older = older.map(|older| older.to_string());
    html! {
        @if before.is_some() || older.is_some() {
            nav.pager aria-label="More" {
                @if before.is_some() { a.button href=(parts::address("/ledger", &filter.fields())) { "The newest" } }
                @if let Some(older) = &older {
                    @let fields = [filter.fields(), vec![("before", older.as_str())]].concat();
                    a.button href=(parts::address("/ledger", &fields)) { "Older" }
                }
            }
        }
    }
}

pub(super) fn table(lines: &[LedgerLineView], now: i64) -> Markup {
    if lines.is_empty() {
        return parts::empty("There is none.", html! {});
    }
    html! {
        div.scroll role="region" tabindex="0" aria-label="Table of connections" {
            table {
                thead { tr { th scope="col" { "When" } th scope="col" { "What for" } th scope="col" { "Where to" } th.number scope="col" { "Out" } th.number scope="col" { "In" } } }
                tbody { @for line in lines { (row(line, now)) } }
            }
        }
    }
}

fn row(line: &LedgerLineView, now: i64) -> Markup {
    if let Some(alarm) = &line.alarm {
        return html! { tr { td { (when(line.opened_ms, now)) } td colspan="4" { (badge(Tone::Bad, "alarm")) " " (parts::sentence(alarm)) } } };
    }
    let to = line.remote.as_deref().unwrap_or(&line.name);
    let counts = |bytes: u64| {
        if line.state == "closed" {
            text::bytes(bytes)
        } else {
            line.state.clone()
        }
    };
    html! {
        tr {
            td { (when(line.opened_ms, now)) }
            td title=(line.data_classes.join(", ")) { (errand_words(&line.service)) }
            td { (to_words(to, &line.protocol)) }
            td.number { (counts(line.cipher_out.unwrap_or(line.plain_out))) }
            td.number { (counts(line.cipher_in.unwrap_or(line.plain_in))) }
        }
    }
}

/// A part of the file.
enum Piece {
    Some(Vec<u8>),
    /// After it the file is whole: without it, whatever happened, the browser is told that it is not.
    Last(Vec<u8>),
}

/// Everything, as a file of lines. A browser that takes it slowly holds nothing up; one that goes away ends it; and a
/// ledger that is not whole ends it in the middle, which the browser says.
pub(super) fn export(asked: &Asked) -> Answer {
    let engine = Arc::clone(asked.shared.engine()?);
    let (pieces, coming) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let cancel = Cancel::default();
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut tell = |event| {
            let Event::LedgerLine(line) = event else {
                return;
            };
            // A line is plain data, and a vector takes whatever is written.
            let _ = serde_json::to_writer(&mut piece, &ExportedLine::of(&line));
            piece.push(b'\n');
            let is_full = piece.len() >= PIECE_BYTES;
            if is_full && pieces.blocking_send(Piece::Some(take(&mut piece))).is_err() {
                cancel.cancel();
            }
        };
        let everything = Command::Ledger { since_ms: None };
        if engine.execute(everything, &mut tell, &cancel).is_ok() {
            // Nobody is there any more, or they get the rest.
            let _ = pieces.blocking_send(Piece::Last(piece));
        }
    });
    let pieces = futures_util::stream::unfold(Some(coming), |coming| async move {
        let mut coming = coming?;
        match coming.recv().await {
            Some(Piece::Some(piece)) => Some((Ok(piece), Some(coming))),
            Some(Piece::Last(piece)) => Some((Ok(piece), None)),
            None => Some((Err("the ledger could not be read to its end"), None)),
        }
    });
    Ok(Reply::File {
        name: "ledger.jsonl".to_owned(),
        kind: "application/x-ndjson",
        content: Body::from_stream(pieces),
    })
}

/// Begins to check the chain of lines and its signature.
pub(super) fn verify(asked: &Asked) -> Answer {
    let title = "Verifying the ledger".to_owned();
    asked.begin(Kind::Verify, title, Command::LedgerVerify, "/ledger")
}
