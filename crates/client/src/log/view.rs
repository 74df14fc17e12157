//! The log as this device saw it last, in words. Sends nothing.

use candor_log::policy::{Policy, Standing};
use candor_wire::Millis;

use super::{FREEZE_AFTER_MS, evidence, head};
use crate::commands::{Failure, LogView};
use crate::device_store::Watched;
use crate::engine::Engine;

/// A quorum vouches for the log, and did so lately.
pub(crate) const WITNESSED: &str = "witnessed";
/// A quorum did, but not lately.
pub(crate) const STALE: &str = "stale";
/// No quorum does.
pub(crate) const UNWITNESSED: &str = "unwitnessed";

const HOUR_MS: i64 = 60 * 60 * 1000;

/// How long ago something was, as people say it.
fn ago(then_ms: i64, now: Millis) -> String {
    match now.0.saturating_sub(then_ms) / HOUR_MS {
        ..=0 => "less than an hour ago".to_owned(),
        1 => "an hour ago".to_owned(),
        hours @ 2..=47 => format!("{hours} hours ago"),
        hours => format!("{} days ago", hours / 24),
    }
}

fn names_of(names: &[String]) -> String {
    if names.is_empty() {
        "nobody".to_owned()
    } else {
        names.join(", ")
    }
}

/// What this device's looks say about the age of a quorum's word.
#[derive(Debug, Clone, Copy)]
struct Looked {
    /// The newest look; `None` before the first.
    newest: Option<Millis>,
    /// The first look without a fresh word, after which none had one.
    unvouched: Option<Millis>,
}

/// What a standing comes to: one word, and a sentence.
fn sentence(
    standing: &Standing,
    has_quorum: bool,
    last: Option<(i64, &[String])>,
    looked: Looked,
    now: Millis,
) -> (&'static str, String) {
    let Some((last_ms, by)) = last.filter(|_| has_quorum) else {
        let why = if has_quorum {
            "no quorum of this device's policy vouches for the cell's log"
        } else {
            "nobody but the cell vouches for its log, since this device has no policy that asks for witnesses"
        };
        return (UNWITNESSED, format!("unwitnessed: {why}"));
    };
    let by = names_of(by);
    let when = format!("last witnessed {} by {by}", ago(last_ms, now));
    if now.0.saturating_sub(last_ms) > FREEZE_AFTER_MS {
        // Only a look after the word had become old says anything about the cell.
        let says_nothing = |looked: Millis| {
            now.0.saturating_sub(looked.0) > FREEZE_AFTER_MS
                || looked.0.saturating_sub(last_ms) <= FREEZE_AFTER_MS
        };
        let Some(newest) = looked.newest.filter(|looked| !says_nothing(*looked)) else {
            let text = format!("{when}; this device has not looked at the cell's log lately");
            return (STALE, text);
        };
        // An old word under what is shown is the old state itself. Without any, the quorum may have fallen
        // silent a moment ago, for all that a device knows which was off.
        let is_old_state = matches!(standing, Standing::Witnessed { .. });
        let is_silent = |since: Millis| newest.0.saturating_sub(since.0) > FREEZE_AFTER_MS;
        if is_old_state || looked.unvouched.is_some_and(is_silent) {
            let text = format!(
                "FROZEN: {when}; the cell may be showing an old state, or this device's clock is wrong"
            );
            return (STALE, text);
        }
    }
    match standing {
        Standing::Witnessed { .. } => (
            WITNESSED,
            format!("witnessed {} by {by}", ago(last_ms, now)),
        ),
        Standing::Unwitnessed { .. } => (
            UNWITNESSED,
            format!("unwitnessed: no quorum vouches for the newest state; {when}"),
        ),
    }
}

impl Engine {
    /// The log as this device saw it last; `None` before it looked.
    pub(crate) fn log_view(&self) -> Result<Option<LogView>, Failure> {
        let policy = head::load_policy(&self.home)?;
        self.log_view_under(policy.as_ref(), None)
    }

    /// The same right after its checkpoint was fetched.
    pub(crate) fn log_view_now(&self) -> Result<Option<LogView>, Failure> {
        let policy = head::load_policy(&self.home)?;
        self.log_view_under(policy.as_ref(), Some(self.now()))
    }

    /// The same under a policy that is known. `looked` is when the checkpoint was fetched, if that was
    /// later than the last look at the whole log.
    pub(crate) fn log_view_under(
        &self,
        policy: Option<&Policy>,
        looked: Option<Millis>,
    ) -> Result<Option<LogView>, Failure> {
        let Some(log) = self.memory.log() else {
            return Ok(None);
        };
        let Some(checkpoint) = log.checkpoint() else {
            return Ok(None);
        };
        let has_quorum = policy.is_some_and(Policy::needs_witnesses);
        let standing = match policy {
            Some(policy) => policy.standing(&checkpoint),
            None => Standing::Unwitnessed { have: Vec::new() },
        };
        let last_ms = log
            .witnessed_s
            .map(|time_s| i64::try_from(time_s).map_or(i64::MAX, |time| time.saturating_mul(1000)));
        let last = last_ms.map(|last_ms| (last_ms, log.witnesses.as_slice()));
        let (findings, watched, unvouched) = {
            let store = self.store();
            (store.log_findings()?, store.watched()?, store.unvouched()?)
        };
        let checked = watched
            .map(|watched| watched.checked)
            .filter(|checked| *checked != Watched::NEVER);
        let looked = Looked {
            newest: looked.or(checked),
            unvouched,
        };
        let (word, sentence) = sentence(&standing, has_quorum, last, looked, self.now());
        let witnesses = match standing {
            Standing::Witnessed { witnesses, .. } => witnesses,
            Standing::Unwitnessed { have } => have,
        };
        Ok(Some(LogView {
            origin: checkpoint.origin().to_owned(),
            size: checkpoint.head().size,
            root: checkpoint.head().root.to_base64(),
            standing: word.to_owned(),
            sentence,
            has_quorum,
            witnesses,
            witnessed_ms: last_ms,
            checked_ms: checked.map(|checked| checked.0),
            findings: findings.into_iter().map(|one| one.sentence).collect(),
            evidence_files: evidence::count(&self.home) as u64,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn how_long_ago_is_said_as_people_say_it() {
        let now = Millis(100 * HOUR_MS);
        for (hours, text) in [
            (101, "less than an hour ago"),
            (100, "less than an hour ago"),
            (99, "an hour ago"),
            (53, "47 hours ago"),
            (52, "2 days ago"),
        ] {
            assert_eq!(ago(hours * HOUR_MS, now), text);
        }
    }

    #[test]
    fn a_quorum_is_fresh_for_a_day() {
        let by = ["one".to_owned(), "two".to_owned()];
        let now = Millis(100 * HOUR_MS);
        let witnessed = Standing::Witnessed {
            witnesses: by.to_vec(),
            time_s: 1,
        };
        let unwitnessed = Standing::Unwitnessed { have: Vec::new() };
        let last = |hours: i64| Some((hours * HOUR_MS, by.as_slice()));
        let at = |hours: i64| Millis(hours * HOUR_MS);
        let looked = |newest: i64, unvouched: Option<i64>| Looked {
            newest: Some(at(newest)),
            unvouched: unvouched.map(at),
        };
        let word = |standing, has_quorum, last| {
            sentence(standing, has_quorum, last, looked(100, Some(75)), now).0
        };
        assert_eq!(word(&witnessed, true, last(76)), WITNESSED);
        assert_eq!(word(&witnessed, true, last(75)), STALE);
        assert_eq!(word(&unwitnessed, true, last(76)), UNWITNESSED);
        assert_eq!(word(&unwitnessed, true, last(75)), STALE);
        assert_eq!(word(&unwitnessed, true, None), UNWITNESSED);
        assert_eq!(word(&unwitnessed, false, last(0)), UNWITNESSED);
        // Whoever did not look cannot say that the log is frozen.
        for (at, is_frozen) in [(100, true), (76, true), (75, false)] {
            let (word, text) = sentence(&witnessed, true, last(9), looked(at, None), now);
            assert_eq!((word, text.starts_with("FROZEN")), (STALE, is_frozen));
        }
        // Nor can whoever looked while the word was fresh.
        for (at, is_frozen) in [(98, false), (99, true)] {
            let (word, text) = sentence(&witnessed, true, last(74), looked(at, None), now);
            assert_eq!((word, text.starts_with("FROZEN")), (STALE, is_frozen));
        }
        // Nor can whoever was off, and finds nobody's word under the newest state.
        for (since, standing) in [
            (None, UNWITNESSED),
            (Some(100), UNWITNESSED),
            (Some(76), UNWITNESSED),
            (Some(75), STALE),
        ] {
            let (word, _) = sentence(&unwitnessed, true, last(9), looked(100, since), now);
            assert_eq!(word, standing, "{since:?}");
        }
    }
}
