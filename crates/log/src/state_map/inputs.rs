//! What a cell publishes with each version of its state map: the changed entries, and where.
//!
//! The file of version v holds the changes from version v - 1 to v; version 0 is the empty map. Sixty-four
//! bytes for each change, key and value, ascending by key, no key twice: so a version has one file.

use super::{MapKey, MapValue, in_order};

/// Most changes in one version: each account of a cell ten times as large as planned, at once.
pub const INPUTS_MAX_ENTRIES: usize = 1 << 20;

/// Longest published file, in bytes. Whoever fetches one reads no further.
pub const INPUTS_MAX_BYTES: usize = INPUTS_MAX_ENTRIES * ENTRY_BYTES;

const ENTRY_BYTES: usize = 64;

/// The directory of the files, beside the tiles of the log.
const DIRECTORY: &str = "map";

/// Fewest elements of a path after [`DIRECTORY`]: no directory has more than 1,000 files, from the first
/// version on.
const ELEMENTS_MIN: usize = 2;

/// A published file of changes cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputsError {
    /// Not a whole number of changes, or more than are accepted.
    #[error(
        "a list of changes has {bytes} bytes; it has 64 for each change and at most {INPUTS_MAX_BYTES}"
    )]
    Length {
        /// How long the input was.
        bytes: usize,
    },
    /// The keys do not ascend, or one is there twice.
    #[error("change {position} of the list is not after the one before")]
    Order {
        /// Which change, from 0.
        position: usize,
    },
}

/// The file of these changes. They may be in any order; of two changes of one key the later one counts,
/// as in [`super::StateMap::with`]. At most [`INPUTS_MAX_ENTRIES`]: readers refuse more.
pub fn encode_inputs(changes: &[(MapKey, MapValue)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(changes.len() * ENTRY_BYTES);
    for (key, value) in in_order(changes) {
        out.extend_from_slice(&key.0);
        out.extend_from_slice(&value.0);
    }
    out
}

/// Reads a published file: the changes, ascending by key.
pub fn decode_inputs(bytes: &[u8]) -> Result<Vec<(MapKey, MapValue)>, InputsError> {
    let wrong_length = InputsError::Length { bytes: bytes.len() };
    if bytes.len() > INPUTS_MAX_BYTES {
        return Err(wrong_length);
    }
    let (halves, rest) = bytes.as_chunks::<32>();
    let (changes, half) = halves.as_chunks::<2>();
    if !rest.is_empty() || !half.is_empty() {
        return Err(wrong_length);
    }
    let changes: Vec<_> = changes
        .iter()
        .map(|[key, value]| (MapKey(*key), MapValue(*value)))
        .collect();
    match changes.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
        None => Ok(changes),
        Some(before) => Err(InputsError::Order {
            position: before + 1,
        }),
    }
}

/// Where the changes of a version are published, relative to the log: `map/x000/001` for version 1,
/// `map/x001/x234/067` for version 1,234,067. Versions count from 1.
pub fn inputs_path(version: u64) -> String {
    let mut elements = vec![format!("{:03}", version % 1000)];
    let mut rest = version / 1000;
    while rest > 0 || elements.len() < ELEMENTS_MIN {
        elements.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    elements.push(DIRECTORY.to_owned());
    elements.reverse();
    elements.join("/")
}

/// The version whose changes are at this path. Only the one spelling that [`inputs_path`] makes is
/// accepted, and there is no version 0.
pub fn inputs_version(path: &str) -> Option<u64> {
    let mut version: u64 = 0;
    for element in path.split('/').skip(1) {
        let digits = element.strip_prefix('x').unwrap_or(element);
        let is_number = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|_| is_number)?;
        version = version.checked_mul(1000)?.checked_add(number)?;
    }
    (version > 0 && inputs_path(version) == path).then_some(version)
}
