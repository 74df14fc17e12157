//! Bytes that the documents spell out and that no vector holds: what a sealed key is bound to, and the name of a key.

use candor_testkit::sample::*;
use candor_wire::epoch::wrap_info;
use candor_wire::head::run_info;
use candor_wire::ids::to_hex;
use candor_wire::linking::gift_info;

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// docs/formats/statements.md, Epoch.
#[test]
fn a_wrap_is_bound_to_account_vault_device_and_epoch() {
    let of_a_vault = joined(&[
        b"candor epoch wrap\0\x01",
        &[0xa1; 16],
        &[1],
        &[0xb1; 16],
        &[1],
        &[0xd1; 16],
        &[0x01, 0x02, 0x03, 0x04],
    ]);
    assert_eq!(
        wrap_info(&ACCOUNT, Some(&VAULT), 0x0102_0304, Some(&LAPTOP)),
        of_a_vault
    );
    // Of the account's own key, for its recovery key.
    let of_the_account = joined(&[
        b"candor epoch wrap\0\x01",
        &[0xa1; 16],
        &[0],
        &[0; 16],
        &[0],
        &[0; 16],
        &[0, 0, 0, 1],
    ]);
    assert_eq!(wrap_info(&ACCOUNT, None, 1, None), of_the_account);
}

/// docs/formats/keystore.md, Runs of write-only devices.
#[test]
fn a_run_is_bound_to_account_vault_device_epoch_and_number() {
    let expected = joined(&[
        b"candor run key\0\x01",
        &[0xa1; 16],
        &[0xb1; 16],
        &[0xd2; 16],
        &[0x01, 0x02, 0x03, 0x04],
        &[0x05, 0x06, 0x07, 0x08],
    ]);
    assert_eq!(
        run_info(&ACCOUNT, &VAULT, &PHONE, 0x0102_0304, 0x0506_0708),
        expected
    );
}

/// docs/formats/linking.md, Messages.
#[test]
fn a_gift_is_bound_to_account_device_and_request() {
    let expected = joined(&[
        b"candor link gift\0\x01",
        &[0xa1; 16],
        &[0xd2; 16],
        &[0x44; 32],
    ]);
    assert_eq!(gift_info(&ACCOUNT, &PHONE, &[0x44; 32]), expected);
}

#[test]
fn a_key_is_named_by_its_fingerprint() {
    assert_eq!(to_hex(&root().public().fingerprint()), ROOT_FINGERPRINT);
}

/// SHA-256 (docs/formats/statements.md, Kinds) of the root in `vectors/wire/genesis.txt`, by another program.
const ROOT_FINGERPRINT: &str = "a65632fe193aa3903be195cc5048881379f07d33b07c27f9c0b10dfa0d8ae708";
