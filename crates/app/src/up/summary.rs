//! The screen at the end: what is safe, what is not, and what to do next.

use candor_client::commands::{BackupView, Command, DrillView, SetView, StatusView};

use super::schedule::RUN_EVERY;
use crate::App;
use crate::door::Door;
use crate::failure::Outcome;
use crate::progress::{execute, object, view};
use crate::text;

/// What a run of `up` did.
#[derive(Default)]
pub(super) struct Summary {
    /// The backups.
    pub(super) backups: Vec<BackupView>,
    /// What was restored and compared.
    pub(super) samples: Vec<DrillView>,
}

impl Summary {
    /// Prints it. For programs it is the status.
    pub(super) fn print(&self, app: &App, door: &mut Door, once: bool) -> Outcome {
        let status = view!(execute(app, door, Command::Status)?, Status)?;
        object(&app.ui, "status", &status)?;
        app.ui.data(&self.lines(app, &status, once).join("\n"))
    }

    fn lines(&self, app: &App, status: &StatusView, once: bool) -> Vec<String> {
        let mut lines = vec![String::new(), "SAFE".to_owned()];
        let saved: Vec<&SetView> = status
            .sets
            .iter()
            .filter(|set| set.last_backup_ms.is_some())
            .collect();
        lines.extend(saved.iter().map(|set| self.safe_line(set)));
        if saved.is_empty() {
            lines.push("  nothing yet: candor up PATH, or candor backup add PATH".to_owned());
        } else {
            lines
                .push("  Sealed on this device before it left it: the cell has no key.".to_owned());
        }
        let warnings = unsafe_lines(status);
        if !warnings.is_empty() {
            lines.push("NOT SAFE".to_owned());
            lines.extend(warnings.into_iter().map(|warning| format!("  ! {warning}")));
        }
        lines.push("NEXT".to_owned());
        lines.extend(
            next_lines(app, &saved, once)
                .into_iter()
                .map(|line| format!("  {line}")),
        );
        lines
    }

    fn safe_line(&self, set: &SetView) -> String {
        let name = text::shown(&set.name);
        let backup = self.backups.iter().find(|backup| backup.set == set.name);
        let what = match backup {
            Some(backup) => format!(
                "{}, {}",
                text::counted(backup.files, "file", "files"),
                text::bytes(backup.bytes)
            ),
            None if set.consent == "on" => "not part of this run".to_owned(),
            None => format!("not backed up any more, its consent is {}", set.consent),
        };
        let when = set.last_backup_ms.map(text::time).unwrap_or_default();
        let sample = self
            .samples
            .iter()
            .find(|sample| sample.set == set.name && sample.equal > 0);
        let proof = sample.map(|sample| {
            format!(
                "; {} restored and compared: equal",
                text::counted(sample.equal, "file", "files")
            )
        });
        format!(
            "  {name}: {what}, backed up {when}{}",
            proof.unwrap_or_default()
        )
    }
}

fn unsafe_lines(status: &StatusView) -> Vec<String> {
    let mut lines: Vec<String> = status
        .warnings
        .iter()
        .map(|warning| text::shown(warning))
        .collect();
    if status
        .account
        .as_ref()
        .is_some_and(|account| account.cell_on_same_disk)
    {
        lines.push(
            "for a copy elsewhere, run a cell on another machine: candor server init --help"
                .to_owned(),
        );
    }
    match &status.log {
        // A frozen log is among the warnings.
        Some(log) if status.witnessed || log.is_stale() => {}
        Some(log) => lines.push(text::shown(&log.sentence)),
        None => {
            lines.push("unwitnessed: this device has not looked at its cell's log yet".to_owned())
        }
    }
    lines
}

fn next_lines(app: &App, saved: &[&SetView], once: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if once {
        lines.push(
            "Again:   candor backup run --all (from cron or a timer), or candor up to stay"
                .to_owned(),
        );
        if app.home.cell().exists() {
            lines.push(
                "         The cell stops with this; candor up or candor server run brings it back."
                    .to_owned(),
            );
        }
    } else {
        lines.push(format!(
            "Again:   every {} minutes while candor up runs",
            RUN_EVERY.as_secs() / 60
        ));
    }
    if let Some(set) = saved.first() {
        lines.push(format!(
            "Restore: candor backup restore {}:latest --to DIR",
            text::shown(&set.name)
        ));
    }
    lines.push(
        "Stop:    Ctrl-C ends candor up; candor consent off backup withdraws your consent"
            .to_owned(),
    );
    lines.push("Look:    candor status, candor ledger".to_owned());
    lines
}
