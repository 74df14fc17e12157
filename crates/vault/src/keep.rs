//! Which snapshots stay: keep rules, counted for each device and set by themselves.
//!
//! A rule keeps the newest snapshot of each of the newest N periods that have one, as restic's and Borg's do.
//! A snapshot stays if any rule keeps it. One in which something could not be read takes no complete one's place: it
//! stays as long as no complete one is newer. Periods are those of UTC; weeks begin on Monday. A device that makes
//! many snapshots cannot push those of another one out.

use std::collections::{BTreeMap, BTreeSet};

use candor_wire::time::DAY_MS;
use candor_wire::{DeviceId, Millis};

use crate::manifest::{SnapshotEntry, SnapshotId};

const HOUR_MS: i64 = 60 * 60 * 1000;

/// How many periods of each length keep their newest snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepRules {
    /// The newest snapshots, whatever their time.
    pub last: u32,
    /// Hours.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// Weeks, from Monday on.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

/// Tells the period of a snapshot by its time, in milliseconds, and its place among the newest.
type PeriodOf = fn(i64, usize) -> i64;

impl KeepRules {
    /// Whether no rule keeps anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn rules(&self) -> [(u32, PeriodOf); 6] {
        [
            (self.last, |_, place| {
                i64::try_from(place).unwrap_or(i64::MAX)
            }),
            (self.hourly, |time, _| time.div_euclid(HOUR_MS)),
            (self.daily, |time, _| time.div_euclid(DAY_MS)),
            // The day 0 was a Thursday.
            (self.weekly, |time, _| {
                (time.div_euclid(DAY_MS) + 3).div_euclid(7)
            }),
            (self.monthly, |time, _| month(time)),
            (self.yearly, |time, _| month(time).div_euclid(12)),
        ]
    }
}

/// The month of a time, counted from year 0.
fn month(time: i64) -> i64 {
    let date = Millis(time).calendar();
    date.year * 12 + date.month - 1
}

/// The snapshots that no rule keeps, in the order in which they are listed. Without any rule: none.
pub fn superfluous(snapshots: &[SnapshotEntry], rules: &KeepRules) -> Vec<SnapshotId> {
    if rules.is_empty() {
        return Vec::new();
    }
    let mut groups: BTreeMap<(DeviceId, &str), Vec<&SnapshotEntry>> = BTreeMap::new();
    for snapshot in snapshots {
        let group = groups.entry((snapshot.device, &snapshot.set)).or_default();
        group.push(snapshot);
    }
    let mut kept = BTreeSet::new();
    for mut group in groups.into_values() {
        // The newest first. Of two of one time the later one in the list is the newer.
        group.reverse();
        group.sort_by_key(|one| core::cmp::Reverse(one.time));
        let newer = group.iter().take_while(|one| one.incomplete);
        let newer: Vec<SnapshotId> = newer.map(|one| one.id).collect();
        // Without any complete one they are all that there is.
        if newer.len() < group.len() {
            kept.extend(newer);
            group.retain(|one| !one.incomplete);
        }
        for (count, period) in rules.rules() {
            let mut periods = BTreeSet::new();
            for (place, one) in group.iter().enumerate() {
                if periods.len() >= count as usize {
                    break;
                }
                if periods.insert(period(one.time.0, place)) {
                    kept.insert(one.id);
                }
            }
        }
    }
    let gone = snapshots.iter().map(|snapshot| snapshot.id);
    gone.filter(|id| !kept.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::chunk::ChunkId;
    use crate::manifest::SnapshotStats;

    fn snapshot(number: u8, device: u8, time: i64) -> SnapshotEntry {
        SnapshotEntry {
            id: SnapshotId::from_bytes([number; 16]),
            time: Millis(time),
            device: DeviceId::from_bytes([device; 16]),
            set: "documents".to_owned(),
            root: ChunkId::from_bytes([number; 32]),
            stats: SnapshotStats::default(),
            incomplete: false,
        }
    }

    fn kept(snapshots: &[SnapshotEntry], rules: KeepRules) -> Vec<u8> {
        let gone = superfluous(snapshots, &rules);
        let stay = snapshots.iter().filter(|one| !gone.contains(&one.id));
        stay.map(|one| one.id.as_bytes()[0]).collect()
    }

    #[test]
    fn months_and_years_are_those_of_the_calendar() {
        // Days since 1970, year, month.
        for (day, year, number) in [
            (0, 1970, 0),
            (30, 1970, 0),
            (31, 1970, 1),
            (58, 1970, 1),
            (59, 1970, 2),
            (364, 1970, 11),
            (365, 1971, 0),
            (11_016, 2000, 1),
            (11_017, 2000, 2),
            (19_722, 2023, 11),
            (19_723, 2024, 0),
            (19_782, 2024, 1),
            (19_783, 2024, 2),
            (-1, 1969, 11),
            (-25_509, 1900, 1),
            (-25_508, 1900, 2),
        ] {
            assert_eq!(month(day * DAY_MS), year * 12 + number, "day {day}");
            assert_eq!(
                month((day + 1) * DAY_MS - 1),
                year * 12 + number,
                "day {day}"
            );
        }
    }

    #[test]
    fn each_rule_keeps_the_newest_of_its_periods() {
        // Four a day on ten days, from Monday the 5th of January 1970 on.
        let all: Vec<SnapshotEntry> = (0..40)
            .map(|n| snapshot(n, 1, 4 * DAY_MS + i64::from(n) * 6 * HOUR_MS))
            .collect();
        let none = KeepRules::default();
        assert_eq!(
            kept(&all, none).len(),
            40,
            "without a rule everything stays"
        );
        assert_eq!(kept(&all, KeepRules { last: 2, ..none }), [38, 39]);
        assert_eq!(kept(&all, KeepRules { hourly: 3, ..none }), [37, 38, 39]);
        assert_eq!(kept(&all, KeepRules { daily: 3, ..none }), [31, 35, 39]);
        assert_eq!(kept(&all, KeepRules { weekly: 5, ..none }), [27, 39]);
        assert_eq!(kept(&all, KeepRules { monthly: 5, ..none }), [39]);
        assert_eq!(kept(&all, KeepRules { yearly: 1, ..none }), [39]);
        let both = KeepRules {
            last: 1,
            daily: 2,
            ..none
        };
        assert_eq!(kept(&all, both), [35, 39]);
        assert_eq!(
            kept(
                &all,
                KeepRules {
                    last: u32::MAX,
                    ..none
                }
            )
            .len(),
            40
        );
    }

    #[test]
    fn a_device_cannot_push_the_snapshots_of_another_out() {
        let mut all = vec![snapshot(1, 1, DAY_MS), snapshot(2, 1, 2 * DAY_MS)];
        all.extend((10..200).map(|n| snapshot(n, 2, 3 * DAY_MS + i64::from(n))));
        let rules = KeepRules {
            last: 1,
            daily: 7,
            ..KeepRules::default()
        };
        assert_eq!(kept(&all, rules), [1, 2, 199]);
    }

    #[test]
    fn an_incomplete_snapshot_takes_no_complete_one_s_place() {
        let of = |number, incomplete| SnapshotEntry {
            incomplete,
            ..snapshot(number, 1, i64::from(number) * DAY_MS)
        };
        let last = KeepRules {
            last: 1,
            ..KeepRules::default()
        };
        let mixed = [
            of(1, false),
            of(2, true),
            of(3, false),
            of(4, true),
            of(5, true),
        ];
        assert_eq!(kept(&mixed, last), [3, 4, 5]);
        let nothing_else = [of(1, true), of(2, true)];
        assert_eq!(kept(&nothing_else, last), [2]);
    }

    #[test]
    fn of_two_of_one_time_the_later_one_is_the_newer() {
        let all = [snapshot(1, 1, 5), snapshot(2, 1, 5)];
        assert_eq!(
            kept(
                &all,
                KeepRules {
                    last: 1,
                    ..KeepRules::default()
                }
            ),
            [2]
        );
    }
}
