//! Points in time. They are always handed in by the caller; nothing in this crate reads a clock.

/// UTC milliseconds since 1970-01-01, as used by every protocol.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
#[cbor(transparent)]
pub struct Millis(#[n(0)] pub i64);

/// UTC nanoseconds since 1970-01-01, as used for the times of files.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
#[cbor(transparent)]
pub struct Nanos(#[n(0)] pub i64);

/// Milliseconds in a day.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A point in time by the calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    /// Year; the one before 1 is 0.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
}

/// Days in 400 years of the calendar, after which it repeats.
const CYCLE_DAYS: i64 = 146_097;

/// Days from 0000-03-01 to 1970-01-01: counted in years that begin in March, a leap day comes last.
const EPOCH_DAYS: i64 = 719_468;

/// Year, month and day of a day since 1970-01-01, by the proleptic Gregorian calendar. Fits any day of a [`Millis`].
pub const fn date_of(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + EPOCH_DAYS;
    let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 31, 30, 31, 30, 31 days, and again.
    let from_march = (5 * day_of_year + 2) / 153;
    let month = (from_march + 2) % 12 + 1;
    (
        cycle * 400 + year + (month <= 2) as i64,
        month,
        day_of_year - (153 * from_march + 2) / 5 + 1,
    )
}

/// The day since 1970-01-01 of a date. What is no date gives a day near it.
pub const fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year_of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    cycle * CYCLE_DAYS + year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year
        - EPOCH_DAYS
}

impl Millis {
    /// Date and time of day, UTC; parts of a second are dropped.
    pub const fn calendar(self) -> Calendar {
        let (year, month, day) = date_of(self.0.div_euclid(DAY_MS));
        let second = self.0.rem_euclid(DAY_MS) / 1000;
        Calendar {
            year,
            month,
            day,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }

    /// This time, later by `ms`. Saturates at the ends of the range.
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Whole seconds, rounded towards the past.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates_and_dates_have_days() {
        let cases = [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (20_454, (2026, 1, 1)),
            (-719_528, (0, 1, 1)),
            (2_932_896, (9999, 12, 31)),
        ];
        for (day, date) in cases {
            assert_eq!(date_of(day), date);
            assert_eq!(days_of(date.0, date.1, date.2), day);
        }
        for day in (-1_000_000..1_000_000).step_by(97).chain(0..CYCLE_DAYS) {
            let (year, month, of_month) = date_of(day);
            assert_eq!(days_of(year, month, of_month), day);
        }
    }

    #[test]
    fn a_day_has_so_many_milliseconds_and_seconds_are_whole() {
        assert_eq!(DAY_MS, 86_400_000);
        let cases = [
            (2_999, 2),
            (1_000, 1),
            (999, 0),
            (0, 0),
            (-1, -1),
            (-1_000, -1),
            (-1_001, -2),
        ];
        for (ms, seconds) in cases {
            assert_eq!(Millis(ms).seconds(), seconds, "{ms}");
        }
    }

    #[test]
    fn times_have_hours_minutes_and_seconds() {
        let last = Millis(-1).calendar();
        assert_eq!((last.hour, last.minute, last.second), (23, 59, 59));
        let afternoon = Calendar {
            year: 2026,
            month: 9,
            day: 21,
            hour: 14,
            minute: 13,
            second: 20,
        };
        assert_eq!(Millis(1_790_000_000_999).calendar(), afternoon);
        for extreme in [i64::MIN, i64::MAX] {
            let calendar = Millis(extreme).calendar();
            assert!((1..=12).contains(&calendar.month) && (1..=31).contains(&calendar.day));
        }
    }
}
