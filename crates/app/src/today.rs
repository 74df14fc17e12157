//! What left this device today, and who asked for the person's data: the same words on a terminal and on the pages.

use candor_client::commands::{ConsentView, LedgerHourView, LedgerSummaryView, StatusView};
use candor_wire::time::DAY_MS;

use crate::text;

/// Destinations that are told: the rest is in the ledger.
pub(crate) const PLACES_MAX: usize = 5;

/// The answer to who asked for the data.
pub(crate) const NOBODY: &str = "Nobody.";

/// Why nobody can have.
pub(crate) const NO_WAY: &str = "Only your own devices hold keys to your data, and this version has no way for anybody else to ask for it.";

/// Connections of one kind to one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Went<'a> {
    pub(crate) service: &'a str,
    pub(crate) destination: &'a str,
    pub(crate) protocol: &'a str,
    pub(crate) out_bytes: u64,
}

impl Went<'_> {
    fn place(&self) -> (&str, &str, &str) {
        (self.service, self.destination, self.protocol)
    }
}

/// What went over today's connections, those that are open included.
pub(crate) struct Today<'a> {
    left_bytes: u64,
    within_bytes: u64,
    interrupted: u64,
    open: u64,
    alarms: u64,
    /// The most bytes first.
    went: Vec<Went<'a>>,
}

/// Whether what is counted here left the device: what goes to a cell in this very program does not.
pub(crate) fn leaves(hour: &LedgerHourView) -> bool {
    hour.protocol != "in-process"
}

impl<'a> Today<'a> {
    pub(crate) fn of(summary: &'a LedgerSummaryView, now_ms: i64) -> Self {
        let midnight = now_ms.div_euclid(DAY_MS) * DAY_MS;
        let mut today = Self {
            left_bytes: 0,
            within_bytes: 0,
            interrupted: 0,
            open: summary.open,
            alarms: summary.alarms,
            went: Vec::new(),
        };
        for hour in summary.hours.iter().filter(|hour| hour.hour_ms >= midnight) {
            let sum = if leaves(hour) {
                &mut today.left_bytes
            } else {
                &mut today.within_bytes
            };
            *sum = sum.saturating_add(hour.out_bytes);
            today.interrupted += hour.interrupted;
            let one = Went {
                service: &hour.service,
                destination: &hour.destination,
                protocol: &hour.protocol,
                out_bytes: hour.out_bytes,
            };
            let known = today
                .went
                .iter_mut()
                .find(|known| known.place() == one.place());
            match known {
                Some(known) => known.out_bytes = known.out_bytes.saturating_add(one.out_bytes),
                None => today.went.push(one),
            }
        }
        today
            .went
            .sort_by_key(|one| std::cmp::Reverse(one.out_bytes));
        today
    }

    /// How much left, in a word or two.
    pub(crate) fn amount(&self) -> String {
        match (self.left_bytes, self.interrupted) {
            (0, 0) => "Nothing".to_owned(),
            (bytes, 0) => text::bytes(bytes),
            (bytes, _) => format!("At least {}", text::bytes(bytes)),
        }
    }

    /// The sentences after the amount.
    pub(crate) fn rest(&self) -> String {
        let mut words = " left this device today.".to_owned();
        if self.interrupted > 0 {
            let cut = text::counted(self.interrupted, "connection was", "connections were");
            words.push_str(&format!(
                " {cut} cut off, and what went over it is not known."
            ));
        }
        if self.open > 0 {
            let open = text::counted(self.open, "connection is", "connections are");
            words.push_str(&format!(" {open} open, and counted so far."));
        }
        if self.within_bytes > 0 {
            let within = text::bytes(self.within_bytes);
            words.push_str(&format!(" {within} went to the cell in this very program."));
        }
        words
    }

    /// How often something was detected that must not be, if that happened lately.
    pub(crate) fn alarms(&self) -> Option<String> {
        let alarms = text::counted(self.alarms, "alarm", "alarms");
        (self.alarms > 0).then(|| format!("{alarms} in the last month."))
    }

    /// Where the most went.
    pub(crate) fn went(&self) -> impl Iterator<Item = &Went<'a>> {
        self.went.iter().take(PLACES_MAX)
    }
}

/// What a service or an errand is called.
pub(crate) fn errand_words(service: &str) -> String {
    let words = match service {
        "backup" => "Backup",
        "sync" => "Sync",
        "restore" => "Reading your own data back",
        "verify" => "Checking the cell",
        "list" => "Looking at devices and consents",
        "consent" => "Telling the cell of a consent",
        "link" => "Taking in a device",
        "revoke" => "Putting a device out",
        "erase" => "Asking for an erasure",
        "create" => "Opening the account",
        "recover" | "join" => "Joining the account",
        "re-anchor" => "Accepting a restored cell",
        other => return text::sentence(other).trim_end_matches('.').to_owned(),
    };
    words.to_owned()
}

/// Where a connection went.
pub(crate) fn to_words(destination: &str, protocol: &str) -> String {
    match protocol {
        "in-process" => "to the cell in this very program; it never reached the network".to_owned(),
        "name-lookup" => format!(
            "asked this machine's resolver for {}",
            text::shown(destination)
        ),
        _ => format!("to {}", text::shown(destination)),
    }
}

/// The live consents of a service, the one that was given first before the others.
pub(crate) fn live<'a>(consents: &'a [ConsentView], service: &str) -> Vec<&'a ConsentView> {
    let mut live: Vec<&ConsentView> = consents
        .iter()
        .filter(|one| one.service == service && one.state == "live")
        .collect();
    live.sort_by_key(|one| one.given_ms);
    live
}

/// How much a service sends.
pub(crate) fn sends(status: &StatusView, service: &str) -> String {
    let (count, one, many) = if service == "sync" {
        let on = status
            .folders
            .iter()
            .filter(|folder| folder.consent == "on");
        (on.count(), "folder", "folders")
    } else {
        let on = status.sets.iter().filter(|set| set.consent == "on");
        (on.count(), "backup set", "backup sets")
    };
    text::counted(count as u64, one, many)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 40 * DAY_MS + DAY_MS / 2;

    fn hour(days_ago: i64, protocol: &str, out_bytes: u64) -> LedgerHourView {
        LedgerHourView {
            hour_ms: NOW - days_ago * DAY_MS,
            service: "backup".to_owned(),
            destination: "cell.example:7443".to_owned(),
            protocol: protocol.to_owned(),
            connections: 1,
            interrupted: 0,
            out_bytes,
            in_bytes: 1,
        }
    }

    fn summary(hours: Vec<LedgerHourView>, open: u64) -> LedgerSummaryView {
        LedgerSummaryView {
            since_ms: 0,
            hours,
            open,
            alarms: 0,
            newest_alarm_ms: None,
        }
    }

    fn told(summary: &LedgerSummaryView) -> String {
        let today = Today::of(summary, NOW);
        today.amount() + &today.rest()
    }

    #[test]
    fn a_day_is_told_with_what_is_not_known_of_it() {
        let nothing = summary(
            vec![hour(1, "tcp", 5 << 20), hour(0, "in-process", 2048)],
            0,
        );
        insta::assert_snapshot!(told(&nothing), @"Nothing left this device today. 2.0 KiB went to the cell in this very program.");
        let mut cut = hour(0, "tcp", 1024);
        cut.interrupted = 2;
        let mut some = summary(vec![hour(0, "tcp", 1024), cut], 1);
        insta::assert_snapshot!(told(&some), @"At least 2.0 KiB left this device today. 2 connections were cut off, and what went over it is not known. 1 connection is open, and counted so far.");
        assert_eq!(Today::of(&some, NOW).alarms(), None);
        some.alarms = 2;
        let alarms = Today::of(&some, NOW).alarms();
        assert_eq!(alarms.as_deref(), Some("2 alarms in the last month."));
    }

    #[test]
    fn places_are_added_up_and_the_most_comes_first() {
        let hours = vec![
            hour(0, "name-lookup", 40),
            hour(0, "tcp", 30),
            hour(0, "tcp", 20),
            hour(2, "tcp", 9000),
        ];
        let summary = summary(hours, 0);
        let today = Today::of(&summary, NOW);
        let told: Vec<(&str, u64)> = today
            .went()
            .map(|one| (one.protocol, one.out_bytes))
            .collect();
        assert_eq!(told, [("tcp", 50), ("name-lookup", 40)]);
    }
}
