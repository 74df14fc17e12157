//! Names of conflict copies: readable, by device and time, and never longer than a name may be.

use candor_wire::Millis;

use crate::name::NAME_MAX_BYTES;

/// What every conflict copy has in its name.
pub(super) const CONFLICT_MARK: &str = " (conflict ";

/// Longest part of a name that counts as its ending and stays behind the mark, in bytes.
const ENDING_MAX_BYTES: usize = 16;

/// Longest name of a device within a conflict copy's name, in bytes.
const DEVICE_MAX_BYTES: usize = 40;

/// The name for the copy number `attempt` of `name`: `report (conflict laptop 2026-11-26 120501).odt`.
pub(crate) fn conflict_name(name: &[u8], device: &str, time: Millis, attempt: u32) -> Vec<u8> {
    let split = name
        .iter()
        .rposition(|&byte| byte == b'.')
        .filter(|&at| at > 0 && name.len() - at <= ENDING_MAX_BYTES)
        .unwrap_or(name.len());
    let (stem, ending) = name.split_at(split);
    let when = time.calendar();
    let device: String = device
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .scan(0, |used, c| {
            *used += c.len_utf8();
            (*used <= DEVICE_MAX_BYTES).then_some(c)
        })
        .collect();
    let mut mark = format!(
        "{CONFLICT_MARK}{device} {:04}-{:02}-{:02} {:02}{:02}{:02}",
        when.year, when.month, when.day, when.hour, when.minute, when.second
    );
    if attempt > 0 {
        mark.push_str(&format!(" {}", attempt + 1));
    }
    mark.push(')');
    let room = NAME_MAX_BYTES.saturating_sub(mark.len() + ending.len());
    let mut out = cut(stem, room).to_vec();
    out.extend_from_slice(mark.as_bytes());
    out.extend_from_slice(ending);
    out
}

/// The beginning of a name, without half a character at its end where it is text.
fn cut(name: &[u8], room: usize) -> &[u8] {
    if name.len() <= room {
        return name;
    }
    let mut end = room;
    while end > 0 && (name[end] & 0xc0) == 0x80 {
        end -= 1;
    }
    &name[..end]
}

/// Whether a name is one that a conflict copy has.
pub(crate) fn is_conflict_name(name: &[u8]) -> bool {
    let mark = CONFLICT_MARK.as_bytes();
    let Some(at) = name.windows(mark.len()).rposition(|window| window == mark) else {
        return false;
    };
    let rest = &name[at + mark.len()..];
    let Some(end) = rest.iter().rposition(|&byte| byte == b')') else {
        return false;
    };
    // The date, ten digits and dashes, and the time, six digits, stand somewhere before the bracket.
    rest[..end].windows(17).any(|window| {
        window.iter().enumerate().all(|(at, &byte)| match at {
            4 | 7 => byte == b'-',
            10 => byte == b' ',
            _ => byte.is_ascii_digit(),
        })
    })
}
