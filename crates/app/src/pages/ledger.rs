//! The ledger: every connection that this device opened.

use axum::body::Body;
use candor_client::commands::{Command, Event, ExportedLine, LedgerLineView, LedgerSummaryView};
use maud::{Markup, html};

use super::backups::pager;
use super::home::{days, errand_words, to_words};
use super::parts::{self, Look, Tone, badge, card, when};
use super::request::{Answer, Asked, Heard, Reply, expect_view};
use super::shell::{Place, Sheet};
use crate::text;

/// Lines on one page: a page stays small, whatever is in the ledger.
const LINES_PER_PAGE: usize = 100;

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
struct Filter {
    span: &'static str,
    since_ms: Option<i64>,
    service: Option<String>,
    destination: Option<String>,
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

    fn takes(&self, line: &LedgerLineView) -> bool {
        let to = line.remote.as_deref().unwrap_or(&line.name);
        self.service
            .as_ref()
            .is_none_or(|service| *service == line.service)
            && self
                .destination
                .as_ref()
                .is_none_or(|wanted| to.contains(wanted.as_str()))
    }

    fn fields(&self) -> Vec<(&str, &str)> {
        let mut fields = vec![("since", self.span)];
        fields.extend(self.service.as_deref().map(|service| ("service", service)));
        fields.extend(self.destination.as_deref().map(|to| ("destination", to)));
        fields
    }
}

/// The newest lines that were looked for.
#[derive(Default)]
struct Newest {
    lines: std::collections::VecDeque<LedgerLineView>,
    count: usize,
}

/// The page.
pub(super) async fn page(asked: &Asked) -> Answer {
    let filter = Filter::of(asked);
    let from = asked.query.from();
    let most = from.saturating_add(LINES_PER_PAGE);
    let command = Command::Ledger {
        since_ms: filter.since_ms,
    };
    let taken = filter.clone();
    let (read, newest) = asked
        .run_with(command, move |heard: Heard<'_, Newest>| {
            let Event::LedgerLine(line) = heard.event else {
                return;
            };
            if taken.takes(&line) {
                let newest = heard.collected;
                newest.count += 1;
                newest.lines.push_front(*line);
                newest.lines.truncate(most);
            }
        })
        .await;
    let trouble = read.err().map(|failure| parts::failure(&failure));
    let summary = expect_view!(asked.run(Command::LedgerSummary).await?, LedgerSummary)?;
    let now = asked.shared.now();
    let lines: Vec<&LedgerLineView> = newest.lines.iter().skip(from).collect();
    let body = html! {
        @if let Some(trouble) = trouble { (trouble) }
        (card("days", "What was sent, by day", chart_and_sums(&summary, now)))
        (card("filter", "Look for", filter_form(&filter, &summary)))
        (card("lines", "Connections", html! {
            p.quiet { (text::counted(newest.count as u64, "connection", "connections")) " that fit." }
            (table(&lines, now))
            (pager("/ledger", &filter.fields(), from, LINES_PER_PAGE, newest.count > most))
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

fn chart_and_sums(summary: &LedgerSummaryView, now: i64) -> Markup {
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

fn filter_form(filter: &Filter, summary: &LedgerSummaryView) -> Markup {
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

fn table(lines: &[&LedgerLineView], now: i64) -> Markup {
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

/// Everything, as a file of lines.
pub(super) async fn export(asked: &Asked) -> Answer {
    let (read, lines) = asked
        .run_with(
            Command::Ledger { since_ms: None },
            |heard: Heard<'_, Vec<u8>>| {
                if let Event::LedgerLine(line) = heard.event
                // A line is plain data, and a vector takes whatever is written.
                && serde_json::to_writer(&mut *heard.collected, &ExportedLine::of(&line)).is_ok()
                {
                    heard.collected.push(b'\n');
                }
            },
        )
        .await;
    read?;
    Ok(Reply::File {
        name: "ledger.jsonl".to_owned(),
        kind: "application/x-ndjson",
        content: Body::from(lines),
    })
}

/// Checks the chain of lines and its signature.
pub(super) async fn verify(asked: &Asked) -> Answer {
    let verified = expect_view!(asked.run(Command::LedgerVerify).await?, LedgerVerified)?;
    let words = html! {
        p { strong { "The ledger is whole." } " " (text::counted(verified.lines, "line", "lines")) ", chained and signed." }
        (parts::deeper("Exact terms", html! { p { "Newest hash: " code.path { (verified.head) } } }))
    };
    asked.told("/ledger", parts::notice(Tone::Good, words))
}
