//! `candor account re-anchor`: what a restored cell lost, and a person who accepts it.

use candor_client::commands::{Command, ReAnchorView};

use crate::App;
use crate::door::Door;
use crate::failure::{Failure, Kind, Outcome};
use crate::progress::{execute, object, view};
use crate::{terminal, text};

/// Statements that are listed by name; a person reads a handful, the rest is counted.
const LISTED_MAX: usize = 20;

pub(crate) fn run(app: &App, yes: bool) -> Outcome {
    let mut door = Door::open(app)?;
    let result = over(app, &mut door, yes);
    door.close(app);
    result
}

fn over(app: &App, door: &mut Door, yes: bool) -> Outcome {
    let shown = view!(execute(app, door, Command::ReAnchorPropose)?, ReAnchor)?;
    if !shown.is_older {
        object(&app.ui, "lost", &shown)?;
        app.ui
            .note("Nothing is lost: the cell shows all that this device saw.");
        return Ok(());
    }
    app.ui
        .note(&format!("\n{}\n", sentences(&shown).join("\n")));
    if yes {
        app.ui.note("Answered with --yes.");
    } else if !app.ui.can_ask() {
        return Err(Failure::new(
            Kind::Integrity,
            "there is no terminal to ask, so nothing was accepted",
        )
        .hint("in a script, `candor account re-anchor --yes` accepts what is shown above"));
    } else if !terminal::ask_yes(&app.ui, "Do you accept this?")? {
        return Err(Failure::new(
            Kind::Integrity,
            "nothing was accepted; this device goes on refusing what the cell shows",
        )
        .hint("ask whoever runs the cell what happened"));
    }
    let token = shown.token;
    let accepted = execute(app, door, Command::ReAnchorAccept { token })?;
    let done = view!(accepted, ReAnchored)?;
    object(&app.ui, "accepted", &done)?;
    app.ui.data(&format!(
        "accepted; {} entries brought back, {} given up; what was seen before is {}",
        done.brought_back, done.given_up, done.evidence
    ))?;
    app.ui
        .note("Next: candor backup run --all, which sends again what the cell lost.");
    Ok(())
}

/// What was lost, in plain words.
fn sentences(shown: &ReAnchorView) -> Vec<String> {
    let mut lines = vec![
        "The cell shows less than this device saw before. If it was restored from a backup, that is to be"
            .to_owned(),
        "expected; if nobody told you so, it may be an attack: ask whoever runs the cell first.".to_owned(),
        String::new(),
    ];
    if !shown.lost.is_empty() {
        let count = shown.lost.len();
        let entries = if count == 1 { "entry" } else { "entries" };
        lines.push(format!("Missing in the account's chain: {count} {entries}"));
        for lost in shown.lost.iter().take(LISTED_MAX) {
            let time = lost
                .time_ms
                .map_or_else(String::new, |time| format!(", {}", text::time(time)));
            lines.push(format!("  {}{time}", lost.kind));
        }
        if count > LISTED_MAX {
            lines.push(format!("  and {} more", count - LISTED_MAX));
        }
        let given_up = (count as u64).saturating_sub(shown.offered);
        lines.push(match (shown.offered, given_up) {
            (_, 0) => "This device brings them back.".to_owned(),
            (0, _) => "They cannot be brought back, and are given up. A consent that you withdrew stays withdrawn.".to_owned(),
            (offered, given_up) => format!("This device brings back the first {offered}. The other {given_up} are given up; a consent that you withdrew stays withdrawn."),
        });
    }
    for head in &shown.heads {
        let name = head.set.as_deref().unwrap_or(&head.vault);
        let lost = head.before.saturating_sub(head.now);
        lines.push(if lost == 0 {
            format!("Backups of {name}: the newest is another one than this device saw")
        } else {
            format!("Backups of {name}: the newest {lost} are gone from the cell; the next run sends again what is still on this device")
        });
    }
    if let (Some(before), Some(now)) = (shown.log_before, shown.log_now) {
        lines.push(format!(
            "The cell's public log: {before} entries when this device saw it last, a new one with {now} now"
        ));
    }
    lines.push(String::new());
    lines.push(
        "Accepting is signed by this device and stands in the account's chain and in the log. What this device saw"
            .to_owned(),
    );
    lines.push("before is kept as evidence.".to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use candor_client::commands::{LostHeadView, LostStatementView};

    use super::*;

    #[test]
    fn what_was_lost_is_told_in_plain_words() {
        let shown = ReAnchorView {
            is_older: true,
            lost: vec![LostStatementView {
                kind: "a consent".to_owned(),
                time_ms: None,
            }],
            offered: 1,
            heads: vec![LostHeadView {
                set: Some("papers".to_owned()),
                vault: "b0".to_owned(),
                before: 5,
                now: 3,
            }],
            log_before: Some(100),
            log_now: Some(7),
            token: "t".to_owned(),
        };
        let told = sentences(&shown).join("\n");
        for words in [
            "1 entry",
            "a consent",
            "brings them back",
            "Backups of papers: the newest 2 are gone",
            "100 entries",
            "ask whoever runs the cell first",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}
