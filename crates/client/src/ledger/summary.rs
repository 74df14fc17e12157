//! What went over the connections of the last weeks, by the hour: kept up to date with every record, so that a page
//! that shows it reads no disk.

use std::collections::BTreeMap;

use candor_wire::time::{DAY_MS, Millis};

use super::line::Protocol;
use super::record::{Event, Record};
use crate::commands::{LedgerHourView, LedgerSummaryView};

/// How far back it goes, in days: a month that has 31.
pub(super) const SUMMARY_DAYS: i64 = 31;

const HOUR_MS: i64 = 60 * 60 * 1000;

/// Most sums that are kept: 27 for each hour of those days. Beyond it, the oldest go.
const SUMS_MAX: usize = 20_000;

/// The hour, the service, the destination and the protocol's name.
type Place = (i64, String, String, &'static str);

#[derive(Default)]
struct Sum {
    connections: u64,
    interrupted: u64,
    out: u64,
    r#in: u64,
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Summary {
    hours: BTreeMap<Place, Sum>,
    alarms: BTreeMap<i64, u64>,
}

impl Summary {
    /// Takes a record into account. A connection counts where it was opened, once it is closed.
    pub(super) fn add(&mut self, record: &Record) {
        let hour = record.opened_at.0.div_euclid(HOUR_MS) * HOUR_MS;
        match record.event {
            Event::Opened => return,
            Event::Alarm => {
                *self.alarms.entry(hour).or_default() += 1;
                return;
            }
            Event::Closed | Event::Interrupted => {}
        }
        let destination = record.destination().to_owned();
        let protocol = record.protocol.map_or("", Protocol::name);
        let place = (hour, record.service.clone(), destination, protocol);
        let sum = self.hours.entry(place).or_default();
        sum.connections += 1;
        sum.interrupted += u64::from(record.event == Event::Interrupted);
        let (out, r#in) = (
            record.cipher_out.unwrap_or(record.plain_out),
            record.cipher_in.unwrap_or(record.plain_in),
        );
        sum.out = sum.out.saturating_add(out);
        sum.r#in = sum.r#in.saturating_add(r#in);
        if self.hours.len() > SUMS_MAX {
            self.hours.pop_first();
        }
    }

    /// Tells what is not too old. `open` are the connections that are open, as they would be if they were closed now.
    pub(super) fn view(&self, now: Millis, open: &[Record]) -> LedgerSummaryView {
        let oldest = now.0.saturating_sub(SUMMARY_DAYS * DAY_MS);
        let mut live = Self::default();
        for record in open {
            // What goes over one that is open goes over it today, whenever it was opened.
            live.add(&Record {
                opened_at: now,
                ..record.clone()
            });
        }
        let sums = self.hours.iter().chain(&live.hours);
        let kept = sums.filter(|((hour, ..), _)| *hour >= oldest);
        let hours = kept.map(|(place, sum)| LedgerHourView {
            hour_ms: place.0,
            service: place.1.clone(),
            destination: place.2.clone(),
            protocol: place.3.to_owned(),
            connections: sum.connections,
            interrupted: sum.interrupted,
            out_bytes: sum.out,
            in_bytes: sum.r#in,
        });
        LedgerSummaryView {
            since_ms: oldest,
            hours: hours.collect(),
            open: open.len() as u64,
            alarms: self.alarms.range(oldest..).map(|(_, count)| count).sum(),
            newest_alarm_ms: self.alarms.keys().next_back().copied(),
        }
    }
}
