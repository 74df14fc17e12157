//! What this process knows of a segment without reading it again.

use std::collections::{BTreeMap, BTreeSet};

use candor_wire::time::Millis;

use super::fits;
use super::record::Record;
use crate::commands::LedgerSelection;

/// Most pairs of a service and a destination that are kept of a segment. One that has more is read whatever is asked for.
const PAIRS_MAX: usize = 64;

/// What is known of a segment that was read or is written: enough to check it by itself, and to pass over it where
/// nothing in it is asked for.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    /// Number of its first record.
    pub(super) first: u64,
    /// The hash of the record before that one.
    pub(super) before: [u8; 32],
    /// The newest beginning of a connection in it, or of an alarm.
    latest: Millis,
    /// The destinations of each service; `None` once they are too many.
    pairs: Option<BTreeMap<String, BTreeSet<String>>>,
}

impl Mark {
    pub(super) const fn new(first: u64, before: [u8; 32]) -> Self {
        Self {
            first,
            before,
            latest: Millis(i64::MIN),
            pairs: Some(BTreeMap::new()),
        }
    }

    pub(super) fn take(&mut self, record: &Record) {
        self.latest = self.latest.max(record.opened_at);
        let Some(pairs) = &mut self.pairs else {
            return;
        };
        let (service, destination) = (record.service.as_str(), record.destination());
        let is_known = pairs
            .get(service)
            .is_some_and(|known| known.contains(destination));
        if is_known {
            return;
        }
        let known: usize = pairs.values().map(BTreeSet::len).sum();
        if known == PAIRS_MAX {
            self.pairs = None;
            return;
        }
        let of_service = pairs.entry(service.to_owned()).or_default();
        of_service.insert(destination.to_owned());
    }

    /// Whether a record in it may be asked for. If not, none is.
    pub(super) fn may_have(&self, asked: &LedgerSelection) -> bool {
        let Some(pairs) = &self.pairs else {
            return fits(asked, self.latest, None);
        };
        pairs.iter().any(|(service, destinations)| {
            destinations
                .iter()
                .any(|to| fits(asked, self.latest, Some((service, to))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Opening, Protocol};

    fn record(service: &'static str, name: &str) -> Record {
        let opening = Opening {
            protocol: Protocol::Tcp,
            name: name.to_owned(),
            local: None,
            remote: None,
            service,
            authority: Vec::new(),
            is_grant: false,
        };
        Record::opened(Millis(7), &opening)
    }

    fn asked(service: &str, destination: &str) -> LedgerSelection {
        LedgerSelection {
            since_ms: None,
            service: (!service.is_empty()).then(|| service.to_owned()),
            destination: (!destination.is_empty()).then(|| destination.to_owned()),
        }
    }

    #[test]
    fn a_segment_is_passed_over_only_if_nothing_in_it_fits() {
        let mut mark = Mark::new(1, [0; 32]);
        mark.take(&record("backup", "a.example"));
        mark.take(&record("sync", "b.example"));
        for (service, destination, may) in [
            ("", "", true),
            ("backup", "", true),
            ("backup", "a.ex", true),
            ("backup", "b.example", false),
            ("sync", "b.example", true),
            ("list", "", false),
            ("", "c.example", false),
        ] {
            assert_eq!(
                mark.may_have(&asked(service, destination)),
                may,
                "{service} {destination}"
            );
        }
        for (since, may) in [(7, true), (8, false)] {
            let since_ms = Some(since);
            let asked = LedgerSelection {
                since_ms,
                ..asked("sync", "b")
            };
            assert_eq!(mark.may_have(&asked), may, "since {since}");
        }
    }

    #[test]
    fn a_segment_with_too_many_destinations_is_read_for_all_of_them() {
        let mut mark = Mark::new(1, [0; 32]);
        for number in 0..PAIRS_MAX {
            mark.take(&record("sync", &format!("{number}.example")));
        }
        assert!(!mark.may_have(&asked("", "one-more.example")));
        mark.take(&record("sync", "0.example"));
        assert!(!mark.may_have(&asked("backup", "")), "all are known");
        mark.take(&record("sync", "one-more.example"));
        assert!(mark.may_have(&asked("backup", "")) && mark.may_have(&asked("", "any")));
        let since_ms = Some(8);
        assert!(!mark.may_have(&LedgerSelection {
            since_ms,
            ..asked("", "")
        }));
    }
}
