//! Switching a service on and off: what will happen in plain words, and *no* as the answer that is at hand.

use candor_client::commands::{Answered, Command, ErasureView, Failure, ProposalView, Stored};
use maud::{Markup, html};

use super::home::title_of;
use super::parts::{self, Look, Tone, name};
use super::request::{Answer, Asked, Reply, expect_view, usage};
use super::shell::{Place, Sheet};
use crate::text;

/// A question, as a page of its own or above the one that is open.
pub(super) fn question(asked: &Asked, title: &str, place: Place, body: &Markup) -> Reply {
    if asked.by_script {
        return Reply::Part(html! { div.ask { h2 #ask-title { (title) } (body) } });
    }
    Reply::Sheet(Sheet::new(title, place, html! { div.ask.card { (body) } }))
}

/// The answers to a question. *Not now* comes first and has the focus.
pub(super) fn answers(back: &str, yes: &str, look: Look) -> Markup {
    html! {
        div.buttons {
            a.button href=(back) data-close autofocus { "Not now" }
            button type="submit" class=(look.class()) { (yes) }
        }
    }
}

/// Asks whether to switch a service on.
pub(super) async fn ask_on(asked: &Asked, service: &str) -> Answer {
    let status = expect_view!(asked.run(Command::Status).await?, Status)?;
    let is_sync = service == "sync";
    if (is_sync && status.folders.is_empty()) || (!is_sync && status.sets.is_empty()) {
        return Ok(choose_first(asked, service));
    }
    let sets = asked.query.all("set");
    let proposal = propose(asked, service, sets).await?;
    let title = format!("Switch {} on?", title_of(service).to_lowercase());
    if proposal.sets.is_empty() {
        let body = html! {
            p { (title_of(service)) " is on already for everything that you chose." }
            div.buttons { a.button.main href="/" data-close autofocus { "Good" } }
        };
        return Ok(question(asked, &title, Place::Consent, &body));
    }
    Ok(question(
        asked,
        &title,
        Place::Consent,
        &on_body(service, &proposal),
    ))
}

/// There is nothing yet that could be agreed to.
fn choose_first(asked: &Asked, service: &str) -> Reply {
    let (to, what) = if service == "sync" {
        ("/choose?for=folder", "which folder to keep in step")
    } else {
        ("/choose?for=backup", "what to back up")
    };
    let body = html! {
        p { "First choose " (what) ". Then you are shown exactly what would be sent, and asked." }
        div.buttons {
            a.button href="/" data-close autofocus { "Not now" }
            (parts::link(to, "Choose a folder", Look::Main))
        }
    };
    let title = format!("Switch {} on?", title_of(service).to_lowercase());
    question(asked, &title, Place::Consent, &body)
}

pub(super) fn on_body(service: &str, proposal: &ProposalView) -> Markup {
    html! {
        p { "This is what you would agree to, word for word. It is what is signed, and you get a receipt of it." }
        (terms(&proposal.text))
        p.quiet { "On these pages the same switch stops it." }
        form method="post" action={ "/services/" (service) "/on" } {
            input type="hidden" name="token" value=(proposal.token);
            @for set in &proposal.sets { input type="hidden" name="set" value=(set); }
            (answers("/", "Yes, switch it on", Look::Main))
        }
    }
}

/// The text of a notice with its terms beside what they say. Every word is there, in its order; only where lines end is
/// up to the page. A text of another shape is shown as it is.
pub(super) fn terms(notice: &str) -> Markup {
    let lines: Vec<String> = notice.trim_end().lines().map(text::shown).collect();
    let Some((title, rows)) = rows(&lines) else {
        return html! { pre.text { (lines.join("\n")) } };
    };
    html! {
        p { strong { (title) } }
        dl.facts.terms { @for (term, words) in rows { div { dt { (term) } dd { (words) } } } }
    }
}

/// A title, an empty line, and then terms at the beginning of lines, each followed by two blanks or more and by what it
/// says, which goes on in lines that begin with blanks.
fn rows(lines: &[String]) -> Option<(&str, Vec<(&str, String)>)> {
    let [title, empty, rest @ ..] = lines else {
        return None;
    };
    if !empty.is_empty() {
        return None;
    }
    let mut rows: Vec<(&str, String)> = Vec::new();
    for line in rest {
        if line.starts_with(' ') {
            let (_, words) = rows.last_mut()?;
            let next = line.trim();
            // A path and a command stand in lines of their own.
            let stands_alone = |line: &str| line.starts_with('/') || line.starts_with("candor ");
            let before = words.lines().last().unwrap_or_default();
            let is_apart = stands_alone(next) || stands_alone(before);
            words.push(if is_apart { '\n' } else { ' ' });
            words.push_str(next);
        } else {
            let (term, words) = line.split_once("  ")?;
            rows.push((term, words.trim().to_owned()));
        }
    }
    (!rows.is_empty()).then_some((title, rows))
}

async fn propose(asked: &Asked, service: &str, sets: Vec<String>) -> Result<ProposalView, Failure> {
    let command = Command::ConsentPropose {
        service: service.to_owned(),
        sets,
    };
    expect_view!(asked.run(command).await?, Proposal)
}

/// Says yes to exactly the text that was shown.
pub(super) async fn on(asked: &Asked, service: &str) -> Answer {
    let token = asked.form.need("token", "the text that you were shown")?;
    let sets = asked.form.all("set");
    let command = Command::ConsentGive {
        service: service.to_owned(),
        sets: sets.clone(),
        token: token.to_owned(),
        answered: Answered::Page,
    };
    if let Err(failure) = asked.run(command).await {
        // Who pressed twice has said yes once.
        if sets.is_empty() || !are_on(asked, service, &sets).await? {
            return Err(failure);
        }
    }
    let next = if service == "sync" {
        "/folders"
    } else {
        "/backups"
    };
    let words = html! { p { strong { (title_of(service)) " is on." } " You can switch it off on the first page at any time. Your receipt is under " a href="/consent" { "Consent" } "." } };
    asked.told(next, parts::notice(Tone::Good, words))
}

/// Whether all of these have a live consent.
async fn are_on(asked: &Asked, service: &str, sets: &[String]) -> Result<bool, Failure> {
    let on = live_sets(asked, service).await?;
    Ok(sets.iter().all(|set| on.iter().any(|one| one.0 == *set)))
}

/// The sets or folders of this device that have a live consent, and to whom.
async fn live_sets(asked: &Asked, service: &str) -> Result<Vec<(String, String)>, Failure> {
    let consents = expect_view!(asked.run(Command::ConsentList).await?, Consents)?;
    let live = consents
        .into_iter()
        .filter(|one| one.service == service && one.state == "live");
    let named = live.filter_map(|one| {
        let to = format!("{}, region {}", one.controller, one.region);
        one.set.map(|set| (set, to))
    });
    Ok(named.collect())
}

/// Asks whether to switch off what is on, each by its name: what was not shown is not switched off.
pub(super) async fn ask_off(asked: &Asked, service: &str) -> Answer {
    let only = asked.query.get("set");
    let mut live = live_sets(asked, service).await?;
    live.retain(|(set, _)| only.is_none_or(|only| only == set));
    let what = only.map_or_else(
        || title_of(service).to_lowercase(),
        |set| {
            format!(
                "{} of {}",
                title_of(service).to_lowercase(),
                text::shown(set)
            )
        },
    );
    let title = format!("Switch {what} off?");
    let body = if live.is_empty() {
        html! {
            p { "It is off on this device already; nothing is sent." }
            div.buttons { a.button.main href="/" data-close autofocus { "Good" } }
        }
    } else {
        off_body(service, &live)
    };
    Ok(question(asked, &title, Place::Consent, &body))
}

pub(super) fn off_body(service: &str, live: &[(String, String)]) -> Markup {
    html! {
        p { "Nothing more of this is sent from the moment you say so, also if the cell cannot be reached just now:" }
        ul { @for (set, to) in live { li { strong { (name(set)) } ", to " (text::shown(to)) } } }
        @if service == "sync" { p { "Your other devices stop keeping these folders in step, too. The files stay where they are." } }
        form method="post" action={ "/services/" (service) "/off" } {
            @for (set, _) in live { input type="hidden" name="set" value=(set); }
            fieldset {
                legend { "What was stored until now" }
                label.check { input type="radio" name="stored" value="stays" checked; " keep it at the cell, to restore from" }
                label.check { input type="radio" name="stored" value="erased"; " erase it at the cell; you get a signed receipt once it is gone" }
            }
            (answers("/", "Switch it off", Look::Main))
        }
    }
}

/// Withdraws what was named, and nothing else.
pub(super) async fn off(asked: &Asked, service: &str) -> Answer {
    let stored = match asked.form.get("stored") {
        Some("erased") => Stored::Erased,
        Some("kept") => Stored::Kept,
        Some("stays") => Stored::Stays,
        _ => {
            return Err(usage(
                "what becomes of what was stored is missing".to_owned(),
            ));
        }
    };
    let sets = asked.form.all("set");
    if sets.is_empty() {
        return Err(usage("what to switch off is missing".to_owned()));
    }
    let mut erasures = Vec::new();
    for set in &sets {
        let command = Command::ConsentOff {
            service: service.to_owned(),
            set: Some(set.clone()),
            stored,
        };
        let asked_for = expect_view!(asked.run(command).await?, Erasures)?;
        let of_this = asked_for
            .into_iter()
            .filter(|one| one.state != "cancelled" && one.set.as_ref() == Some(set));
        erasures.extend(of_this);
    }
    let words = off_words(service, &sets, stored, &erasures, asked.shared.now());
    asked.told("/", parts::notice(Tone::Good, words))
}

fn off_words(
    service: &str,
    sets: &[String],
    stored: Stored,
    erasures: &[ErasureView],
    now: i64,
) -> Markup {
    let sets: Vec<String> = sets.iter().map(|set| text::shown(set)).collect();
    html! {
        p { strong { (title_of(service)) " of " (sets.join(", ")) " is off; nothing more is sent." } }
        @match stored {
            Stored::Stays => p { "What was stored stays at the cell." },
            Stored::Kept => p { "What was stored stays at the cell after all." },
            Stored::Erased if erasures.is_empty() => p { "Nothing was stored, so there is nothing to erase." },
            Stored::Erased => { @for one in erasures {
                p {
                    (one.set.as_deref().map_or_else(|| html! { "What was stored" }, name)) " is erased at the cell "
                    (parts::when_or(one.due_ms, now, "once the cell has confirmed it")) ". Until then you can keep it, under "
                    a href="/consent" { "Consent" } ", where the cell's receipt is afterwards, too."
                }
            } },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOTICE: &str = "BACKUP: what you are asked

What is sent    The files in: /home/zoe/a
                /home/zoe/b.
                Contents are locked before
                anything leaves.
How to stop     candor consent off backup
                It takes effect at once.
";

    #[test]
    fn a_notice_has_every_word_in_its_order() {
        let lines: Vec<String> = NOTICE.trim_end().lines().map(text::shown).collect();
        let (title, rows) = rows(&lines).unwrap();
        assert_eq!(title, "BACKUP: what you are asked");
        assert_eq!(
            rows,
            [
                (
                    "What is sent",
                    "The files in: /home/zoe/a\n/home/zoe/b.\nContents are locked before anything leaves."
                        .to_owned()
                ),
                (
                    "How to stop",
                    "candor consent off backup\nIt takes effect at once.".to_owned()
                ),
            ]
        );
        let said: Vec<String> = rows
            .into_iter()
            .flat_map(|(term, words)| [term.to_owned(), words])
            .collect();
        let said = format!("{title} {}", said.join(" "));
        assert!(said.split_whitespace().eq(NOTICE.split_whitespace()));
    }

    #[test]
    fn a_text_of_another_shape_is_shown_as_it_is() {
        for text in [
            "one line",
            "title\n\nno term",
            "title\n\n  begins inside",
            "a\nb\nc  d",
        ] {
            let shown = terms(text).into_string();
            assert_eq!(shown, format!("<pre class=\"text\">{text}</pre>"));
        }
        let hostile = terms("t\n\na  <script>x</script>").into_string();
        assert!(!hostile.contains("<script>"), "{hostile}");
    }
}
