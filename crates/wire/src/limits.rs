//! Every limit that two parties must share, with its unit and its reason.

/// Largest object, in bytes: one full pack. The cell never buffers more than this for one request.
pub const OBJECT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Smallest object, in bytes: short packs are padded to a power of two, at least this, so that
/// small changes look alike.
pub const OBJECT_MIN_BYTES: usize = 64 * 1024;

/// Largest request body that is not an object, in bytes: a page of the chain fits with room.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;

/// Largest signed statement, in bytes: an epoch record for 64 devices fits.
pub const STATEMENT_MAX_BYTES: usize = 160 * 1024;

/// Most entries in one page of any list: bounds the memory of one reply on both sides.
pub const PAGE_MAX_ENTRIES: usize = 1024;

/// Most object names in one "has" question: 32 bytes each, so 32 KiB.
pub const HAS_MAX_IDS: usize = 1024;

/// Most objects that one move of a head rescues: 32 bytes each, beside a head with a full condemned list, fit one
/// message.
pub const RESCUED_MAX: usize = 8 * 1024;

/// Most devices of one account. A person has a handful; an epoch wraps its key to each.
pub const DEVICES_MAX: usize = 64;

/// Longest consent, in milliseconds: 13 months of 31 days. Nobody stays consented by forgetting.
pub const CONSENT_MAX_MS: i64 = 13 * 31 * super::time::DAY_MS;

/// How far a request's `created` may be from the cell's clock, in seconds.
pub const REQUEST_SKEW_SECONDS: i64 = 300;

/// How long a cell lets a request wait for a vault's head to move, in seconds: proxies end a connection on which nothing
/// was sent for a minute.
pub const HEAD_WAIT_SECONDS: u32 = 50;

/// How long a cell remembers nonces, in seconds: twice the skew, so that no accepted request can be replayed.
pub const NONCE_KEPT_SECONDS: i64 = 600;

/// Longest validity of an errand, in milliseconds: a restore of a large vault over a slow line.
pub const ERRAND_MAX_MS: i64 = super::time::DAY_MS;

/// Longest name a person gives to a device, a backup set or an account, in bytes.
pub const NAME_MAX_BYTES: usize = 128;
