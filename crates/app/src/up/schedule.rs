//! Staying up: backups again and again, and folders in step all the time, until the person stops it.

use std::time::{Duration, Instant, SystemTime};

use candor_client::commands::{Command, SetView};
use candor_client::{Cancel, Followed};

use crate::backup::back_up;
use crate::door::Door;
use crate::failure::{Failure, Kind, Outcome};
use crate::progress::{execute, view};
use crate::{App, background, text, views};

/// Time between two backups of a set. An hour of work is what most people can bear to lose, and a run
/// that finds nothing new costs seconds.
pub(super) const RUN_EVERY: Duration = Duration::from_secs(60 * 60);

/// Time until a set whose run failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// Time between two looks at the clock. Short, because a machine that slept has missed its hour.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Stays until the program is asked to stop, which is a good end.
pub(super) fn stay(app: &App, door: &mut Door) -> Outcome {
    let cancel = Cancel::default();
    let engine = door.engine();
    std::thread::scope(|scope| {
        if let Some(engine) = &engine {
            scope.spawn(|| engine.follow_folders(&|news| tell_folder(app, &news), &cancel));
        }
        let result = stay_alone(app, door);
        cancel.cancel();
        result
    })
}

/// What happened to a folder, in one line.
fn tell_folder(app: &App, news: &Followed) {
    match news {
        Followed::Synced(view) => app.ui.note(&views::synced(view)),
        Followed::Failed { folder, failure } => app.ui.note(&format!(
            "{}: {}; it is tried again",
            text::shown(folder),
            failure.sentence
        )),
        Followed::Halted { folder, failure } => app.ui.warning(&format!(
            "{} is not touched any more: {}",
            text::shown(folder),
            failure.sentence
        )),
        Followed::Unwatched { folder, reason } => app.ui.warning(&format!(
            "{} cannot be watched ({reason}); it is looked at every minute",
            text::shown(folder)
        )),
    }
}

fn stay_alone(app: &App, door: &mut Door) -> Outcome {
    background::let_others_go_first();
    let mut not_before: Option<Instant> = None;
    loop {
        app.runtime.block_on(async {
            tokio::select! {
                () = app.stop.stopped() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        });
        if app.stop.is_stopped() {
            app.ui.note("stopped");
            return Ok(());
        }
        if not_before.is_some_and(|time| Instant::now() < time) {
            continue;
        }
        not_before = None;
        match run_due(app, door) {
            Ok(()) => {}
            Err(failure) if failure.kind == Kind::Interrupted => {}
            Err(failure) => {
                tell(app, &failure);
                not_before = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }
}

fn tell(app: &App, failure: &Failure) {
    app.ui.note(&failure.text());
    app.ui.note(&format!(
        "trying again in {} minutes",
        RETRY_AFTER.as_secs() / 60
    ));
}

fn run_due(app: &App, door: &mut Door) -> Outcome {
    let sets = view!(execute(app, door, Command::BackupList)?, Sets)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let due: Vec<String> = sets
        .into_iter()
        .filter(|set| is_due(set, now_ms))
        .map(|set| set.name)
        .collect();
    if due.is_empty() {
        return Ok(());
    }
    for backup in back_up(app, door, due)? {
        app.ui.note(&views::backup(&backup));
    }
    Ok(())
}

/// Only what has a live consent ever runs by itself.
fn is_due(set: &SetView, now_ms: i64) -> bool {
    let every_ms = i64::try_from(RUN_EVERY.as_millis()).unwrap_or(i64::MAX);
    // A clock that was set back must not keep backups from running.
    let is_over = |last: i64| now_ms.saturating_sub(last) >= every_ms || last > now_ms;
    set.consent == "on" && set.last_backup_ms.is_none_or(is_over)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(consent: &str, last_backup_ms: Option<i64>) -> SetView {
        SetView {
            name: "documents".to_owned(),
            vault: None,
            paths: Vec::new(),
            excludes: Vec::new(),
            consent: consent.to_owned(),
            last_backup_ms,
            last_problems: 0,
            last_drill_ms: None,
            overdue: false,
            running: false,
            interrupted: false,
        }
    }

    #[test]
    fn nothing_without_consent_is_ever_due() {
        for consent in ["off", "withdrawn", "ended"] {
            assert!(!is_due(&set(consent, None), i64::MAX));
        }
    }

    #[test]
    fn a_set_is_due_every_hour_and_after_the_clock_was_set_back() {
        const HOUR_MS: i64 = 3_600_000;
        assert!(is_due(&set("on", None), 0));
        assert!(!is_due(&set("on", Some(0)), HOUR_MS - 1));
        assert!(is_due(&set("on", Some(0)), HOUR_MS));
        assert!(is_due(&set("on", Some(HOUR_MS)), 0));
    }
}
