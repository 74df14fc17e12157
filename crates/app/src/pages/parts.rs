//! The pieces that every page is put together from. What comes from a file system or a cell goes through
//! [`text::shown`], and maud escapes it.

use candor_client::commands::{Failure, FailureKind};
use candor_client::path_text::PathText;
use maud::{Markup, PreEscaped, html};

use crate::text;
pub(super) use crate::text::sentence;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// Somebody should look at it.
    Warn,
    /// It is not as it should be.
    Bad,
    /// Neither.
    Plain,
}

impl Tone {
    /// Its word in a class.
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Plain => "plain",
        }
    }

    /// For who does not see colours.
    const fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Warn => "!",
            Self::Bad => "✕",
            Self::Plain => "·",
        }
    }
}

/// A word on how something stands.
pub(super) fn badge(tone: Tone, words: &str) -> Markup {
    html! {
        span class={ "badge " (tone.class()) } {
            span aria-hidden="true" { (tone.sign()) } " " (words)
        }
    }
}

/// How long ago, or how soon; to the largest unit that says something.
pub(super) fn relative(ms: i64, now_ms: i64) -> String {
    let distance = now_ms.saturating_sub(ms);
    let (span, is_past) = (distance.saturating_abs(), distance >= 0);
    let words = match span {
        0..MINUTE_MS => return if is_past { "just now" } else { "in a moment" }.to_owned(),
        MINUTE_MS..HOUR_MS => units(span / MINUTE_MS, "minute"),
        HOUR_MS..DAY_MS => units(span / HOUR_MS, "hour"),
        _ => units(span / DAY_MS, "day"),
    };
    if is_past {
        format!("{words} ago")
    } else {
        format!("in {words}")
    }
}

fn units(count: i64, unit: &str) -> String {
    let count = u64::try_from(count).unwrap_or(0);
    text::counted(count, unit, &format!("{unit}s"))
}

/// A time, relative, with the exact one on hover and for programs.
pub(super) fn when(ms: i64, now_ms: i64) -> Markup {
    html! { time datetime=(machine_time(ms)) title=(text::time(ms)) { (relative(ms, now_ms)) } }
}

/// The same for what may never have happened.
pub(super) fn when_or(ms: Option<i64>, now_ms: i64, never: &str) -> Markup {
    ms.map_or_else(|| html! { (never) }, |ms| when(ms, now_ms))
}

/// A time as `datetime` has it.
fn machine_time(ms: i64) -> String {
    let shown = text::time(ms);
    shown.replacen(' ', "T", 1).replace(" UTC", "Z")
}

/// A name, in one line and unable to turn it round.
pub(super) fn name(name: &str) -> Markup {
    html! { bdi { (text::shown(name)) } }
}

/// A path.
pub(super) fn path(path: &PathText) -> Markup {
    html! { code.path { (text::shown(&path.text)) } }
}

/// Hidden fields that say which path is meant, byte for byte.
pub(super) fn path_fields(path: &PathText) -> Markup {
    html! {
        input type="hidden" name="path" value=(path.text);
        @if let Some(raw) = &path.raw { input type="hidden" name="raw" value=(raw); }
    }
}

/// An address with fields behind it.
pub(super) fn address(path: &str, fields: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(fields);
    let query = query.finish();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// The fields of an address that say which path is meant.
pub(super) fn path_query(path: &PathText) -> Vec<(&'static str, &str)> {
    let raw = path.raw.as_deref().map(|raw| ("raw", raw));
    let text = raw.is_none().then_some(("path", path.text.as_str()));
    text.into_iter().chain(raw).collect()
}

/// How a button looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// What a person most likely wants.
    Main,
    /// Anything else.
    Quiet,
    /// What cannot be taken back.
    Danger,
}

impl Look {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Main => "button main",
            Self::Quiet => "button",
            Self::Danger => "button danger",
        }
    }
}

/// A button that does something at once.
pub(super) fn action(to: &str, label: &str, look: Look, fields: &[(&str, &str)]) -> Markup {
    html! {
        form.inline method="post" action=(to) {
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            button type="submit" class=(look.class()) { (label) }
        }
    }
}

/// A link that looks like a button.
pub(super) fn link(to: &str, label: &str, look: Look) -> Markup {
    html! { a class=(look.class()) href=(to) { (label) } }
}

/// A link whose page opens above this one where scripts run, and by itself where they do not.
pub(super) fn dialog_link(to: &str, label: &str, class: &str) -> Markup {
    html! { a class=(class) href=(to) hx-get=(to) hx-target="#dialog" hx-swap="innerHTML" { (label) } }
}

/// A part of a page with a heading.
pub(super) fn card(id: &str, title: &str, body: Markup) -> Markup {
    html! {
        section.card id=(id) aria-labelledby={ (id) "-title" } {
            h2 id={ (id) "-title" } { (title) }
            (body)
        }
    }
}

/// What stands where there is nothing yet: what to do next.
pub(super) fn empty(sentence: &str, next: Markup) -> Markup {
    html! { div.empty { p { (sentence) } (next) } }
}

/// A message about what was just done or found.
pub(super) fn notice(tone: Tone, body: Markup) -> Markup {
    let role = if tone == Tone::Bad { "alert" } else { "status" };
    html! { div class={ "notice " (tone.class()) } role=(role) { (body) } }
}

/// Exact words, one click deeper.
pub(super) fn deeper(label: &str, body: Markup) -> Markup {
    html! { details { summary { (label) } (body) } }
}

/// Facts in two columns.
pub(super) fn facts(rows: &[(&str, Markup)]) -> Markup {
    html! {
        dl.facts {
            @for (term, value) in rows { div { dt { (term) } dd { (value) } } }
        }
    }
}

/// What happened, what is safe, and what to do.
pub(super) fn failure(failure: &Failure) -> Markup {
    let causes: Vec<&String> = failure
        .causes
        .iter()
        .filter(|cause| **cause != failure.sentence)
        .collect();
    notice(
        Tone::Bad,
        html! {
            p { strong { (sentence(&failure.sentence)) } }
            p { (what_is_safe(failure.kind)) }
            @if failure.hint.is_some() || !causes.is_empty() {
                (deeper("What to do, in exact words", html! {
                    @if let Some(hint) = &failure.hint { p { (commands(hint)) } }
                    @for cause in causes { p.quiet { "Because: " (text::shown(cause)) } }
                }))
            }
        },
    )
}

const fn what_is_safe(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Failed => "What was saved before is still saved.",
        FailureKind::Usage => "Nothing was changed.",
        FailureKind::NoConsent => "Nothing was sent.",
        FailureKind::Integrity => {
            "Nothing was written. What is on this device is as it was. Do not switch this off: it is a sign that the cell, or somebody on the way, did something that it must not."
        }
        FailureKind::Unreachable => {
            "What was saved before is still saved. Try it again when the cell answers; backups and folders that are on go on by themselves."
        }
        FailureKind::Policy => "Nothing was changed. What was saved before is still saved.",
        FailureKind::Partial => "Everything else was done; only what is listed is missing.",
        FailureKind::Interrupted => {
            "What was done so far is kept, and the next try goes on from there."
        }
    }
}

/// Text in which commands stand between backticks.
pub(super) fn commands(words: &str) -> Markup {
    let words = text::shown(words);
    html! {
        @for (place, part) in words.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// Bars of bytes over time, each with its own words for who does not see them.
pub(super) fn chart(label: &str, bars: &[(String, u64)]) -> Markup {
    const WIDTH: u64 = 12;
    const GAP: u64 = 2;
    const HEIGHT: u64 = 48;
    let most = bars
        .iter()
        .map(|(_, value)| *value)
        .max()
        .unwrap_or(0)
        .max(1);
    let wide = (WIDTH + GAP) * bars.len() as u64;
    html! {
        svg.chart role="img" aria-label=(label) viewBox={ "0 0 " (wide) " " (HEIGHT) } preserveAspectRatio="none" {
            @for (place, (words, value)) in bars.iter().enumerate() {
                // Something is never drawn as nothing.
                @let high = if *value == 0 { 0 } else { (value.saturating_mul(HEIGHT) / most).max(2) };
                rect x=((WIDTH + GAP) * place as u64) y=(HEIGHT - high) width=(WIDTH) height=(high) {
                    title { (words) }
                }
            }
        }
    }
}

/// Markup of these pages that was kept as text for a while.
pub(super) fn kept(markup: String) -> Markup {
    PreEscaped(markup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_largest_unit() {
        let now = 100 * DAY_MS;
        let cases = [
            (0, "just now"),
            (59_999, "just now"),
            (MINUTE_MS, "1 minute ago"),
            (3 * HOUR_MS + 1, "3 hours ago"),
            (36 * HOUR_MS, "1 day ago"),
            (-1, "in a moment"),
            (-2 * DAY_MS, "in 2 days"),
        ];
        for (ago, expected) in cases {
            assert_eq!(relative(now - ago, now), expected);
        }
    }

    #[test]
    fn a_time_is_there_for_people_and_programs() {
        insta::assert_snapshot!(
            when(0, 90 * MINUTE_MS).into_string(),
            @r#"<time datetime="1970-01-01T00:00Z" title="1970-01-01 00:00 UTC">1 hour ago</time>"#
        );
    }

    #[test]
    fn names_and_failures_cannot_become_markup() {
        let hostile = "<img src=x onerror=alert(1)>\u{202e}";
        let failed = Failure {
            kind: FailureKind::Failed,
            sentence: hostile.to_owned(),
            hint: Some("run `<b>`".to_owned()),
            causes: vec![hostile.to_owned()],
        };
        let shown = [
            name(hostile).into_string(),
            path(&PathText {
                text: hostile.to_owned(),
                raw: None,
            })
            .into_string(),
            failure(&failed).into_string(),
            address("/x", &[("path", hostile)]),
        ]
        .concat();
        assert!(!shown.contains("<img"), "{shown}");
        assert!(!shown.contains('\u{202e}'), "{shown}");
        assert!(shown.contains("<code>&lt;b&gt;</code>"), "{shown}");
    }
}
