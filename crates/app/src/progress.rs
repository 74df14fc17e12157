//! What is seen while a command works: a progress bar on a terminal, and each file with a problem.

use std::time::{Duration, Instant};

use candor_client::commands::{Command, Event, Problem, Progress, View};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::App;
use crate::door::Door;
use crate::failure::{Doing as _, Failure, Kind, Outcome};
use crate::text;
use crate::ui::Ui;

/// Work that is done sooner is not worth a bar.
const SHOW_AFTER: Duration = Duration::from_secs(1);

/// Time between two drawings.
const DRAWS_PER_SECOND: u8 = 8;

/// Tells a person, or a program, what the engine tells.
pub(crate) struct Watcher<'a> {
    ui: &'a Ui,
    started: Instant,
    bar: Option<ProgressBar>,
    problems: u64,
    broken: Option<Failure>,
}

impl<'a> Watcher<'a> {
    /// From now on.
    pub(crate) fn new(ui: &'a Ui) -> Self {
        Self {
            ui,
            started: Instant::now(),
            bar: None,
            problems: 0,
            broken: None,
        }
    }

    /// Tells one event. Entries of listings are their commands' own.
    pub(crate) fn tell(&mut self, event: Event) {
        match event {
            Event::Progress(progress) => self.draw(&progress),
            Event::Step { text } => self.beside(|ui| ui.note(&text::shown(&text))),
            Event::Problem(problem) => self.problem(&problem),
            Event::Entry(_) | Event::Difference(_) | Event::LedgerLine(_) => {}
        }
    }

    fn problem(&mut self, problem: &Problem) {
        self.problems += 1;
        let line = format!(
            "  {}: {}",
            text::shown(&problem.path.text),
            text::shown(&problem.what)
        );
        if self.ui.json() {
            let result = object(self.ui, "problem", problem);
            self.broken = self.broken.take().or(result.err());
        } else {
            self.beside(|ui| ui.note(&line));
        }
    }

    /// Prints without tearing the bar.
    fn beside(&self, print: impl FnOnce(&Ui)) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print(self.ui)),
            None => print(self.ui),
        }
    }

    fn draw(&mut self, progress: &Progress) {
        let elapsed = self.started.elapsed();
        if !self.ui.draws() || elapsed < SHOW_AFTER {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            ProgressBar::with_draw_target(
                None,
                ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND),
            )
        });
        match progress.bytes_total {
            Some(total) if bar.length().is_none() => {
                bar.set_style(style("{msg}  {wide_bar}  {prefix}"));
                bar.set_length(total.max(progress.bytes));
            }
            Some(total) => bar.set_length(total.max(progress.bytes)),
            None => bar.set_style(style("{spinner} {msg}  {prefix}")),
        }
        bar.set_message(message(progress));
        bar.set_prefix(pace(progress, elapsed));
        bar.set_position(progress.bytes);
    }

    /// The end of the work: takes the bar away. How many problems there were, or why they could not
    /// be told.
    pub(crate) fn finish(self) -> Outcome<u64> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.broken.map_or(Ok(self.problems), Err)
    }
}

fn message(progress: &Progress) -> String {
    let files = match progress.files_total {
        Some(total) => format!(
            "{}/{} files",
            text::count(progress.files),
            text::count(total)
        ),
        None => text::counted(progress.files, "file", "files"),
    };
    let way = if progress.phase == "backup" {
        "sent"
    } else {
        "fetched"
    };
    format!(
        "{}: {files}, {} {way}",
        text::shown(&progress.phase),
        text::bytes(progress.sent_bytes)
    )
}

/// Bytes, rate and time left. They are those of the source, so what need not be sent again does not
/// make them lie; and the rate is that of the whole run, so they do not jump.
fn pace(progress: &Progress, elapsed: Duration) -> String {
    let elapsed_ms = elapsed.as_millis().max(1);
    let rate = u128::from(progress.bytes) * 1000 / elapsed_ms;
    let rate_text = text::bytes(u64::try_from(rate).unwrap_or(u64::MAX));
    let done = text::bytes(progress.bytes);
    let Some(total) = progress.bytes_total else {
        // Of what is looked for, names alone are read.
        if progress.phase == "find" {
            return String::new();
        }
        return format!("{done}  {rate_text}/s");
    };
    let left = total.saturating_sub(progress.bytes);
    let time = match (u128::from(left) * 1000).checked_div(rate) {
        // Whole seconds: more would only flicker.
        Some(ms) => text::duration(u64::try_from(ms / 1000 * 1000).unwrap_or(u64::MAX)),
        None => "unknown time".to_owned(),
    };
    format!("{done}/{}  {rate_text}/s  {time} left", text::bytes(total))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants of this file")
}

/// Prints a value for programs.
pub(crate) fn object<T: Serialize>(ui: &Ui, field: &str, value: &T) -> Outcome {
    ui.object(
        field,
        serde_json::to_value(value).doing(|| "write the output as JSON".to_owned())?,
    )
}

/// Runs a command and shows what happens.
pub(crate) fn execute(app: &App, door: &mut Door, command: Command) -> Outcome<View> {
    execute_with(app, door, command, |_| Ok(()))
}

/// The same, with `each` for the entries of a listing. A failure of `each` stops the command.
pub(crate) fn execute_with(
    app: &App,
    door: &mut Door,
    command: Command,
    mut each: impl FnMut(&Event) -> Outcome,
) -> Outcome<View> {
    let mut watcher = Watcher::new(&app.ui);
    let mut failed = None;
    let result = door.execute(app, command, &mut |event| {
        if failed.is_none() {
            watcher.beside(|_| failed = each(&event).err());
        }
        watcher.tell(event);
    });
    watcher.finish()?;
    failed.map_or(result, Err)
}

/// An answer that does not fit its question: the other end is of another version.
pub(crate) fn unexpected() -> Failure {
    Failure::new(
        Kind::Failed,
        "the engine answered something else than was asked",
    )
    .hint("end every running candor, then try again")
}

/// Takes the view that a command answers with.
macro_rules! view {
    ($view:expr, $variant:ident) => {
        match $view {
            candor_client::commands::View::$variant(inner) => Ok(inner),
            _ => Err($crate::progress::unexpected()),
        }
    };
}
pub(crate) use view;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_counts_bytes_of_the_source() {
        let mut progress = Progress {
            phase: "backup".to_owned(),
            bytes: 100 << 20,
            bytes_total: Some(300 << 20),
            sent_bytes: 0,
            ..Progress::default()
        };
        let pace_of = |progress: &Progress| pace(progress, Duration::from_secs(10));
        assert_eq!(
            pace_of(&progress),
            "100.0 MiB/300.0 MiB  10.0 MiB/s  20.0 s left"
        );
        progress.bytes = 0;
        assert_eq!(
            pace_of(&progress),
            "0 B/300.0 MiB  0 B/s  unknown time left"
        );
        progress.bytes_total = None;
        assert_eq!(pace_of(&progress), "0 B  0 B/s");
        progress.phase = "find".to_owned();
        assert_eq!(pace_of(&progress), "");
    }
}
