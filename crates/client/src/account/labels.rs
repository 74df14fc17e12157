//! Labels: where the account's devices find its statements in the log, and nobody else does.

use candor_vault::EpochKey;
use candor_wire::ids::Label;
use candor_wire::statement::Kind;
use hmac::{KeyInit as _, Mac as _};
use zeroize::Zeroizing;

use crate::keystore::KeyStore;

/// Kinds of statements whose watch keys a write-only device is given: those that there are, and room for more.
const WATCHED_KINDS: u8 = 32;

const INFO_WATCH: &[u8] = b"candor/account/watch/1";

/// The log label of the `n`-th statement of a kind (from 0): HMAC-SHA256 under that kind's watch key,
/// which is derived from the key of the account's first epoch. A write-only device holds the watch keys themselves.
pub fn label(keys: &KeyStore, kind: Kind, n: u64) -> Option<Label> {
    match keys.keys(None).and_then(|account| account.get(1)) {
        Some(first) => Some(label_of(first, kind, n)),
        None => keys
            .writer()
            .and_then(|writer| writer.watch(kind))
            .map(|watch| label_under(watch, n)),
    }
}

pub(super) fn label_of(first: &EpochKey, kind: Kind, n: u64) -> Label {
    label_under(&first.derive(&[INFO_WATCH, &[kind.code()]]), n)
}

fn label_under(watch: &[u8; 32], n: u64) -> Label {
    let mut mac =
        hmac::Hmac::<sha2::Sha256>::new_from_slice(watch).expect("HMAC takes keys of every length");
    mac.update(&n.to_be_bytes());
    Label::from_bytes(mac.finalize().into_bytes().into())
}

/// The watch keys of all kinds that there may be, one after another: what a write-only device is given.
pub(super) fn watch_keys(first: &EpochKey) -> Zeroizing<Vec<u8>> {
    let mut all = Zeroizing::new(Vec::with_capacity(usize::from(WATCHED_KINDS) * 32));
    for code in 1..=WATCHED_KINDS {
        all.extend_from_slice(first.derive(&[INFO_WATCH, &[code]]).as_ref());
    }
    all
}
