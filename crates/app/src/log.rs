//! `candor log checkpoint`, `candor log prove` and `candor log monitor`: the cell's log as this device
//! checks it.

use std::path::{Path, PathBuf};

use candor_client::commands::{Command, LogMonitorView, LogView};

use crate::App;
use crate::door::Door;
use crate::failure::{Doing as _, Outcome};
use crate::home::{read_small, write_new_private};
use crate::progress::{execute, object, view};
use crate::text::{count, counted, shown, time};

/// Longest file with a checkpoint, in bytes: what the formats allow.
const CHECKPOINT_FILE_MAX_BYTES: u64 = 128 * 1024;

/// `candor log checkpoint`.
pub(crate) fn checkpoint(app: &App, compare: Option<&Path>) -> Outcome {
    let compare = compare
        .map(|path| read_small(path, CHECKPOINT_FILE_MAX_BYTES))
        .transpose()?;
    let command = Command::LogCheckpoint { compare };
    let shown_now = view!(run(app, command)?, LogCheckpoint)?;
    object(&app.ui, "checkpoint", &shown_now)?;
    app.ui.data(shown_now.checkpoint.trim_end_matches('\n'))?;
    let size = shown_now.log.size;
    let before = match shown_now.seen_before {
        None => "this device had seen nothing of it before".to_owned(),
        Some(seen) if seen == size => "as many as this device saw before".to_owned(),
        Some(seen) => format!("it continues the {} seen before", count(seen)),
    };
    let compared = shown_now.compared.map(|other| {
        format!(
            "\nThe checkpoint to compare with, of {}, belongs to the same log.",
            counted(other, "entry", "entries")
        )
    });
    app.ui.note(&format!(
        "The log has {}; {before}.\n{}.{}",
        counted(size, "entry", "entries"),
        shown(&shown_now.log.sentence),
        compared.unwrap_or_default()
    ));
    Ok(())
}

/// `candor log prove`.
pub(crate) fn prove(app: &App, statement: String, output: Option<PathBuf>) -> Outcome {
    let proof = view!(run(app, Command::LogProve { statement })?, LogProof)?;
    object(&app.ui, "proof", &proof)?;
    if let Some(path) = &output {
        write_new_private(path, proof.proof.as_bytes())
            .doing(|| format!("write {}", path.display()))?;
    } else {
        app.ui.data(proof.proof.trim_end_matches('\n'))?;
    }
    let file = output
        .as_deref()
        .map_or_else(|| "PROOF".to_owned(), |path| path.display().to_string());
    app.ui.note(&format!(
        "Entry {} of {} is statement {}: {}. {}.\nAnybody can check it: candor log verify {} --leaf {} --policy FILE",
        proof.index,
        count(proof.size),
        proof.statement,
        proof.what,
        shown(&proof.log.sentence),
        shown(&file),
        proof.leaf
    ));
    Ok(())
}

/// `candor log monitor`.
pub(crate) fn monitor(app: &App) -> Outcome {
    let watched = view!(run(app, Command::LogMonitor)?, LogMonitored)?;
    object(&app.ui, "monitor", &watched)?;
    app.ui.data(&monitor_lines(&watched).join("\n"))
}

fn run(app: &App, command: Command) -> Outcome<candor_client::commands::View> {
    let mut door = Door::open(app)?;
    let result = execute(app, &mut door, command);
    door.close(app);
    result
}

fn monitor_lines(view: &LogMonitorView) -> Vec<String> {
    let mut lines = vec![format!(
        "{} looked at; {} of {} of this account found, and nothing else in its name",
        counted(view.new_entries, "new entry", "new entries"),
        count(view.found),
        counted(view.statements, "statement", "statements")
    )];
    if view.state_matches {
        lines.push("the state map says of this account what this device knows".to_owned());
    }
    lines.extend(status_lines(&view.log));
    lines
}

/// The log in `candor status`.
pub(crate) fn status_lines(view: &LogView) -> Vec<String> {
    let checked = view.checked_ms.map_or_else(
        || "not looked through yet".to_owned(),
        |checked| format!("looked through {}", time(checked)),
    );
    let mut lines = vec![
        format!(
            "log              {}, {checked}",
            counted(view.size, "entry", "entries")
        ),
        format!("  standing       {}", shown(&view.sentence)),
    ];
    if !view.findings.is_empty() {
        lines.push(format!(
            "  findings       {}: see the alarms below",
            count(view.findings.len() as u64)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> LogView {
        LogView {
            origin: "example/log".to_owned(),
            size: 1200,
            root: String::new(),
            standing: "unwitnessed".to_owned(),
            sentence: "unwitnessed: nobody but the cell vouches for its log".to_owned(),
            has_quorum: false,
            witnesses: Vec::new(),
            witnessed_ms: None,
            checked_ms: None,
            findings: vec!["ROLLBACK".to_owned()],
            evidence_files: 1,
        }
    }

    #[test]
    fn the_log_in_the_status_reads_like_the_rest() {
        insta::assert_snapshot!(status_lines(&seen()).join("\n"), @"
        log              1,200 entries, not looked through yet
          standing       unwitnessed: nobody but the cell vouches for its log
          findings       1: see the alarms below
        ");
    }

    #[test]
    fn what_the_monitor_found_is_one_screen() {
        let view = LogMonitorView {
            log: LogView {
                findings: Vec::new(),
                checked_ms: Some(0),
                ..seen()
            },
            statements: 5,
            found: 5,
            new_entries: 1,
            state_matches: true,
        };
        insta::assert_snapshot!(monitor_lines(&view).join("\n"), @"
        1 new entry looked at; 5 of 5 statements of this account found, and nothing else in its name
        the state map says of this account what this device knows
        log              1,200 entries, looked through 1970-01-01 00:00 UTC
          standing       unwitnessed: nobody but the cell vouches for its log
        ");
    }
}
