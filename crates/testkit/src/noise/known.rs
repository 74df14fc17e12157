//! Keys that are made once: noise comes a thousand times in a second.

use std::sync::LazyLock;

use candor_wire::DeviceId;
use candor_wire::cell::CellKeyring;
use candor_wire::sign::{PublicKey, SecretKey};

use crate::sample::{LAPTOP, PHONE, keyring, secret};

/// A third device.
pub const TABLET: DeviceId = DeviceId::from_bytes([0xd3; 16]);

/// A key that signed nothing that noise can know of.
pub static STRANGER: LazyLock<SecretKey> = LazyLock::new(|| secret(99));
pub static STRANGER_PUBLIC: LazyLock<PublicKey> = LazyLock::new(|| STRANGER.public());

pub static KEYRING: LazyLock<CellKeyring> = LazyLock::new(keyring);

/// The public halves of the root and of the three devices.
static PUBLIC: LazyLock<[PublicKey; 4]> = LazyLock::new(|| {
    [&ROOT, &LAPTOP_KEY, &PHONE_KEY, &TABLET_KEY].map(|key: &LazyLock<SecretKey>| key.public())
});

static ROOT: LazyLock<SecretKey> = LazyLock::new(|| secret(1));
static LAPTOP_KEY: LazyLock<SecretKey> = LazyLock::new(|| secret(2));
static PHONE_KEY: LazyLock<SecretKey> = LazyLock::new(|| secret(3));
static TABLET_KEY: LazyLock<SecretKey> = LazyLock::new(|| secret(4));

/// The key of a device of the sample account, or of its root.
pub fn key_of(signer: Option<DeviceId>) -> &'static SecretKey {
    match signer {
        None => &ROOT,
        Some(LAPTOP) => &LAPTOP_KEY,
        Some(PHONE) => &PHONE_KEY,
        Some(TABLET) => &TABLET_KEY,
        Some(_) => &STRANGER,
    }
}

/// The public half of [`key_of`].
pub fn public_of(signer: Option<DeviceId>) -> &'static PublicKey {
    match signer {
        None => &PUBLIC[0],
        Some(LAPTOP) => &PUBLIC[1],
        Some(PHONE) => &PUBLIC[2],
        Some(TABLET) => &PUBLIC[3],
        Some(_) => &STRANGER_PUBLIC,
    }
}
