//! Numbers, times and tables as people read them.

#[cfg(feature = "device")]
use std::time::SystemTime;

use candor_wire::Millis;
use candor_wire::time::{date_of, days_of};

/// Milliseconds in a second, a minute, an hour, a day.
const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// `2026-01-31 12:00 UTC`.
pub(crate) fn time(ms: i64) -> String {
    let at = Millis(ms).calendar();
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02} UTC",
        at.year, at.month, at.day, at.hour, at.minute
    )
}

/// Now, milliseconds UTC.
#[cfg(feature = "device")]
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Reads `2026-01-31`, `2026-01-31T12:00:00Z` (seconds may be left out) or how long ago: `30m`,
/// `24h`, `7d`. UTC, milliseconds.
pub(crate) fn read_time(text: &str, now_ms: i64) -> Option<i64> {
    if let Some(ago) = read_span(text) {
        return now_ms.checked_sub(ago);
    }
    let (date, clock) = match text.split_once(['T', ' ']) {
        Some((date, clock)) => (date, clock.strip_suffix('Z').unwrap_or(clock)),
        None => (text, "00:00"),
    };
    let date = numbers(date, '-', 3)?;
    let clock = numbers(clock, ':', 3).or_else(|| numbers(clock, ':', 2))?;
    let (year, month, day) = (date[0], date[1], date[2]);
    let second = clock.get(2).copied().unwrap_or(0);
    let in_range = (1..=9999).contains(&year) && clock[0] < 24 && clock[1] < 60 && second < 60;
    let days = days_of(year, month, day);
    // 31 April counts on into May: not a date.
    if !in_range || date_of(days) != (year, month, day) {
        return None;
    }
    Some(days * DAY_MS + clock[0] * HOUR_MS + clock[1] * MINUTE_MS + second * SECOND_MS)
}

fn numbers(text: &str, separator: char, count: usize) -> Option<Vec<i64>> {
    let digits = |part: &str| {
        !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts = text
        .split(separator)
        .map(|part| part.parse().ok().filter(|_| digits(part)));
    parts
        .collect::<Option<Vec<i64>>>()
        .filter(|parts| parts.len() == count)
}

fn read_span(text: &str) -> Option<i64> {
    let unit = match text.chars().last()? {
        's' => SECOND_MS,
        'm' => MINUTE_MS,
        'h' => HOUR_MS,
        'd' => DAY_MS,
        _ => return None,
    };
    text[..text.len() - 1]
        .parse::<u32>()
        .ok()
        .map(|count| i64::from(count) * unit)
}

/// `1.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `2 files`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `850 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// Text from a file system or a cell: what could move the cursor, end the line or turn the reading
/// direction round, or is not seen at all, is shown as an escape.
pub(crate) fn shown(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Columns, each as wide as its widest cell, two spaces between; the last one is not padded.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut heads.iter().copied())];
    lines.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    lines
}

/// A sentence with its first letter large and an end.
#[cfg(feature = "device")]
pub(crate) fn sentence(words: &str) -> String {
    let words = shown(words.trim());
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    let mut out = first.unwrap_or_default() + letters.as_str();
    if !out.ends_with(['.', '!', '?', ':']) {
        out.push('.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01 00:00 UTC");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00 UTC");
        assert_eq!(time(-1), "1969-12-31 23:59 UTC");
        assert_eq!(time(1_798_761_599_999), "2026-12-31 23:59 UTC");
    }

    #[test]
    fn times_are_read() {
        let now = 1_798_761_599_999;
        let cases = [
            ("2000-02-29", Some(951_782_400_000)),
            ("2000-02-29T00:01", Some(951_782_460_000)),
            ("2000-02-29T00:01:02Z", Some(951_782_462_000)),
            ("2001-02-29", None),
            ("2000-13-01", None),
            ("2000-00-01", None),
            ("2000-02-29T24:00", None),
            ("30m", Some(now - 1_800_000)),
            ("7d", Some(now - 604_800_000)),
            ("d", None),
            ("-1d", None),
            ("", None),
            ("yesterday", None),
        ];
        for (text, expected) in cases {
            assert_eq!(read_time(text, now), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "15.9 EiB");
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(duration(4_250_000), "1 h 10 min");
    }

    #[test]
    fn a_name_cannot_move_the_cursor_or_turn_the_line() {
        assert_eq!(shown("a\u{1b}[2J\n\u{202e}b"), "a\\u{1b}[2J\\n\\u{202e}b");
        assert_eq!(
            shown("a\u{200b}\u{61c}\u{feff}"),
            "a\\u{200b}\\u{61c}\\u{feff}"
        );
    }

    #[test]
    fn tables_line_up() {
        let rows = [
            vec!["documents".to_owned(), "on".to_owned()],
            vec!["a".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["SET", "CONSENT"], &rows),
            ["SET        CONSENT", "documents  on", "a"]
        );
    }
}
