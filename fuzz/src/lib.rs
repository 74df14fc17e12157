//! What every fuzz target begins with, and the targets that need no other crate's insides.

use std::path::PathBuf;

use candor_client::commands::{Command, Event, Failure, View};

/// Where a target writes what it begins with, before it looks for more.
const SEEDS_VARIABLE: &str = "CANDOR_FUZZ_SEEDS";

/// Writes the seeds of a target as files, if somebody asked for them.
///
/// # Panics
/// If they cannot be written.
pub fn write_seeds(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(directory) = std::env::var_os(SEEDS_VARIABLE).map(PathBuf::from) else {
        return;
    };
    std::fs::create_dir_all(&directory).expect("the directory of seeds can be made");
    for (number, seed) in seeds().iter().enumerate() {
        let file = directory.join(format!("seed-{number:04}"));
        std::fs::write(file, seed).expect("a seed can be written");
    }
}

/// The program of a target: what takes noise, and where to begin.
#[macro_export]
macro_rules! target {
    ($check:path, $seeds:path) => {
        ::libfuzzer_sys::fuzz_target!(init: $crate::write_seeds($seeds), |noise: &[u8]| {
            $check(noise);
        });
    };
}

/// Records of a ledger, and its files.
pub fn ledger_seeds() -> Vec<Vec<u8>> {
    [
        candor_client::fuzzing::ledger_seeds(),
        candor_testkit::noise::device::ledger_seeds(),
    ]
    .concat()
}

/// What is read of a message is written, and read the same again.
fn message<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&read).expect("a message can be written");
    let again = serde_json::from_slice::<T>(&written).expect("what is written is read");
    let rewritten = serde_json::to_vec(&again).expect("a message can be written");
    assert_eq!(written, rewritten);
}

/// Messages between the program and the engine that runs, as they go over its socket. The first byte selects a
/// row; rows are only ever added at the end.
pub fn commands(noise: &[u8]) {
    const ROWS: [fn(&[u8]); 4] = [
        message::<Command>,
        message::<View>,
        message::<Event>,
        message::<Failure>,
    ];
    if let Some((selector, bytes)) = noise.split_first() {
        ROWS[usize::from(*selector) % ROWS.len()](bytes);
    }
}

/// A few messages of each kind.
pub fn command_seeds() -> Vec<Vec<u8>> {
    let rows: [(u8, &[&str]); 4] = [
        (
            0,
            &[
                "\"status\"",
                "{\"device-link\":{\"write_only\":true}}",
                "{\"backup-add\":{\"name\":null,\"paths\":[{\"text\":\"/a\",\"raw\":\"2f61\"}],\"excludes\":[\"*.o\"]}}",
                "{\"consent-off\":{\"service\":\"backup\",\"set\":null,\"stored\":\"keep\"}}",
            ],
        ),
        (
            1,
            &[
                "\"done\"",
                "{\"link-code\":{\"code\":\"candor-link1:\",\"expires_ms\":5}}",
            ],
        ),
        (
            2,
            &[
                "\"connecting\"",
                "{\"problem\":{\"path\":{\"text\":\"/a\"},\"what\":\"x\"}}",
            ],
        ),
        (
            3,
            &["{\"kind\":\"usage\",\"sentence\":\"no\",\"hint\":null,\"causes\":[]}"],
        ),
    ];
    let seeds = rows.into_iter().flat_map(|(row, texts)| {
        texts
            .iter()
            .map(move |text| [&[row], text.as_bytes()].concat())
    });
    seeds.collect()
}
