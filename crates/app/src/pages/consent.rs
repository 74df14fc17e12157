//! Consent: what was agreed to, when, for what; receipts to keep, and the way out.

use axum::body::Body;
use candor_client::commands::{Command, ConsentView, ErasureView, StatusView, View};
use maud::{Markup, html};

use super::home::title_of;
use super::parts::{self, Look, Tone, badge, card, name, when};
use super::request::{Answer, Asked, Reply, expect_view, unexpected};
use super::settings::is_open;
use super::shell::{Place, Sheet};
use super::text_id;

/// The page. Reads the account's consents from the cell, and shows those that this device knows where it does not answer.
pub(super) async fn page(asked: &Asked) -> Answer {
    let (consents, missing) = match asked.run(Command::ConsentHistory).await {
        Ok(view) => (expect_view!(view, Consents)?, None),
        Err(failure) => {
            let known = asked.run(Command::ConsentList).await?;
            (expect_view!(known, Consents)?, Some(failure))
        }
    };
    let status = expect_view!(asked.run(Command::Status).await?, Status)?;
    let now = asked.shared.now();
    let body = html! {
        @if let Some(failure) = &missing { (parts::failure(failure)) }
        (card("history", "What you agreed to", history(&consents, now)))
        @if !status.erasures.is_empty() { (card("erasures", "What was asked to be erased", erasures(&status.erasures, now))) }
        (card("ask", "Switch a service on", ask(&status)))
    };
    Ok(Reply::Sheet(Sheet::new("Consent", Place::Consent, body)))
}

fn ask(status: &StatusView) -> Markup {
    html! {
        p { "Before anything is sent, you are shown what, to whom, for how long, and who can read it." }
        div.buttons {
            @for service in status.services.iter().filter(|one| one.name == "backup" || one.name == "sync") {
                @let to = format!("/services/{}/on", service.name);
                (parts::dialog_link(&to, &format!("Switch {} on", title_of(&service.name).to_lowercase()), Look::Quiet.class()))
            }
        }
    }
}

pub(super) fn history(consents: &[ConsentView], now: i64) -> Markup {
    if consents.is_empty() {
        return parts::empty(
            "You have agreed to nothing, so no service sends anything.",
            html! {},
        );
    }
    html! {
        ul.rows { @for one in consents.iter().rev() { (row(one, now)) } }
        p.quiet { "A receipt is a file that proves your consent, or its end, to anybody, without candor and without asking the cell." }
    }
}

fn row(one: &ConsentView, now: i64) -> Markup {
    let (tone, word) = match one.state.as_str() {
        "live" => (Tone::Good, "in force"),
        "withdrawn" => (Tone::Plain, "withdrawn"),
        "ended" => (Tone::Plain, "ended"),
        "waiting" => (Tone::Warn, "waiting for the cell"),
        other => (Tone::Plain, other),
    };
    html! {
        li.row {
            div.what {
                strong { (title_of(&one.service)) @if let Some(set) = &one.set { " of " (name(set)) } }
                span.quiet {
                    "Given " (when(one.given_ms, now)) " to " (name(&one.controller)) ", region " (name(&one.region)) ". "
                    @match one.withdrawn_ms {
                        Some(withdrawn) => { "Withdrawn " (when(withdrawn, now)) "." }
                        None => { "Ends " (when(one.ends_ms, now)) "." }
                    }
                }
                (parts::deeper("Exact terms", parts::facts(&[
                    ("Consent", html! { code { (one.id) } }),
                    ("Device", html! { code { (one.device) } }),
                    ("Vault", one.vault.as_ref().map_or_else(|| html! { "none" }, |vault| html! { code { (vault) } })),
                    ("To withdraw in a terminal", html! { code { (one.how_to_withdraw) } }),
                ])))
            }
            div.how { (badge(tone, word)) }
            div.do {
                (parts::link(&parts::address("/consent/receipt", &[("id", &one.id)]), "Receipt", Look::Quiet))
                @if one.state == "live" && let Some(set) = &one.set {
                    (parts::dialog_link(&parts::address(&format!("/services/{}/off", one.service), &[("set", set)]), "Withdraw", Look::Quiet.class()))
                }
            }
        }
    }
}

/// Erasures: until when they can be taken back, and receipts of those that are done.
pub(super) fn erasures(erasures: &[ErasureView], now: i64) -> Markup {
    html! {
        ul.rows {
            @for one in erasures.iter().rev() {
                li.row {
                    div.what {
                        strong {
                            @match (&one.vault, &one.set) {
                                (None, _) => { "The whole account" }
                                (Some(_), Some(set)) => { (title_of(&one.service)) " of " (name(set)) }
                                (Some(_), None) if one.this_device => { (title_of(&one.service)) ", what was stored before" }
                                (Some(_), None) => { (title_of(&one.service)) ", by another device" }
                            }
                        }
                        span.quiet { "Asked for " (when(one.asked_ms, now)) @if !one.this_device { " by another device" } ". "
                            @match one.state.as_str() {
                                "cancelled" => { "Taken back: nothing of it is erased." }
                                "due" => { "It was due " (parts::when_or(one.due_ms, now, "by now")) "; the receipt says whether it is done." }
                                _ => { "It is erased " (parts::when_or(one.due_ms, now, "once the cell has confirmed it")) "." }
                            }
                        }
                    }
                    div.how {
                        @match one.state.as_str() {
                            "cancelled" => { (badge(Tone::Plain, "taken back")) }
                            "due" => { (badge(Tone::Plain, "due")) }
                            _ => { (badge(Tone::Warn, "can be taken back")) }
                        }
                    }
                    div.do {
                        @if one.state == "due" { (parts::link(&parts::address("/consent/receipt", &[("id", &one.id)]), "Receipt", Look::Quiet)) }
                        @else if is_open(&one.state) { (parts::action("/consent/keep", "Keep it", Look::Main, &[("id", &one.id)])) }
                    }
                }
            }
        }
    }
}

/// Takes an erasure back. What is off stays off.
pub(super) async fn keep(asked: &Asked) -> Answer {
    let erasure = asked.form.need("id", "the erasure")?.to_owned();
    asked.run(Command::ErasureKeep { erasure }).await?;
    let words = html! { p { strong { "It stays at the cell: it is not erased." } " What is switched off stays off until you switch it on again." } };
    asked.told("/consent", parts::notice(Tone::Good, words))
}

/// A receipt, as a file.
pub(super) async fn receipt(asked: &Asked) -> Answer {
    let id = asked.query.need("id", "the consent")?;
    let made = asked
        .run(Command::ConsentReceipt { id: id.to_owned() })
        .await?;
    let text = match made {
        View::Receipt(made) => made.text,
        View::ErasureReceipt(made) => made.text,
        _ => return Err(unexpected()),
    };
    Ok(Reply::File {
        name: format!("receipt-{}.json", text_id(id)),
        kind: "application/json",
        content: Body::from(text),
    })
}
