//! The one place of a device that reads a clock. Everything else is handed a [`Clock`], so that a
//! test can say what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use candor_wire::time::{DAY_MS, Millis};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// UTC, in milliseconds. May jump, backwards too, when somebody sets the clock.
    fn now(&self) -> Millis;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        Millis(ms)
    }
}

/// The UTC date of a time as `YYYY-MM-DD`, for people.
///
/// Proleptic Gregorian calendar, counted in cycles of 400 years (146,097 days).
pub fn date_text(time: Millis) -> String {
    const CYCLE_DAYS: i64 = 146_097;
    /// Days from 0000-03-01 to 1970-01-01: years that begin in March end with the leap day.
    const EPOCH_OFFSET_DAYS: i64 = 719_468;
    let days = time.0.div_euclid(DAY_MS) + EPOCH_OFFSET_DAYS;
    let cycle = days.div_euclid(CYCLE_DAYS);
    let day_of_cycle = days.rem_euclid(CYCLE_DAYS);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = cycle * 400 + year_of_cycle + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (951_782_400_000, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (1_798_761_599_999, "2026-12-31"),
            (1_798_761_600_000, "2027-01-01"),
            (4_107_542_400_000, "2100-03-01"),
        ];
        for (ms, text) in cases {
            assert_eq!(date_text(Millis(ms)), text);
        }
    }
}
