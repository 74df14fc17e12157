//! Noise for what is not public here (row A37): requests before anybody is asked for, settings, and the cell's own
//! files. For the fuzzer and for the tests below.

use std::sync::LazyLock;

use crate::config::CellConfig;
use crate::{gate, keys, re_anchor, transparency, witness};

const LEAST: &str = "region = \"r\"\ncontroller = \"c\"\n";

/// Requests: `METHOD TARGET`, then lines `NAME: VALUE`.
pub fn requests(noise: &[u8]) {
    static CONFIG: LazyLock<CellConfig> =
        LazyLock::new(|| CellConfig::from_text(LEAST).expect("these are settings"));
    gate::noise::take_noise(noise, &CONFIG.limits);
}

/// Where noise for [`requests`] begins: one of each kind of target, with every header that counts.
pub fn request_seeds() -> Vec<Vec<u8>> {
    use candor_wire::api::ENDPOINTS;
    let ids = [
        ("{account}", "a1".repeat(16)),
        ("{vault}", "b1".repeat(16)),
        ("{object}", "0c".repeat(32)),
        ("{root}", "0d".repeat(32)),
        ("{receipt}", "0e".repeat(32)),
        ("{link}", "0f".repeat(32)),
        ("{*file}", "tile/0/x001/x234/067.p/1".to_owned()),
    ];
    let headers = format!(
        "candor-device: {}\ncandor-authority: grant {}\ncandor-placement: 1\n\
         content-type: application/cbor\ncontent-digest: sha-256=:AA==:\nrange: bytes=5-900\n\
         signature-input: candor=(\"@method\");created=1\nsignature: candor=:AA==:",
        "d1".repeat(16),
        "99".repeat(32)
    );
    let targets = ENDPOINTS.iter().map(|endpoint| {
        let mut path = endpoint.path.to_owned();
        for (name, id) in &ids {
            path = path.replace(name, id);
        }
        let query = endpoint.query.first().map(|name| format!("?{name}=7"));
        let query = query.unwrap_or_default();
        format!("{} {path}{query}\n{headers}", endpoint.method.name())
    });
    let errand =
        "GET /v1/cell\ncandor-device: root\ncandor-authority: errand oQD2\nrange: bytes=-5";
    targets
        .chain([errand.to_owned()])
        .map(String::into_bytes)
        .collect()
}

/// Settings that are understood are written and read the same.
fn settings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(config) = CellConfig::from_text(&text) else {
        return;
    };
    assert!(!config.region.trim().is_empty() && config.metrics_listen.ip().is_loopback());
    assert!(!config.invitation_addresses().is_empty());
    assert_eq!(config.log.witness_list().len(), config.log.witnesses.len());
    let written = toml::to_string(&config).expect("settings can be written");
    let read = CellConfig::from_text(&written).expect("what is written is read");
    assert_eq!(read, config);
}

/// Settings and the cell's own files. The first byte selects a row; rows are only ever added at the end.
pub fn own_files(noise: &[u8]) {
    const ROWS: [fn(&[u8]); 5] = [
        settings,
        keys::take_noise,
        witness::take_noise,
        transparency::signer::take_noise,
        re_anchor::take_noise,
    ];
    if let Some((selector, bytes)) = noise.split_first() {
        ROWS[usize::from(*selector) % ROWS.len()](bytes);
    }
}

/// Where noise for [`own_files`] begins.
pub fn own_file_seeds() -> Vec<Vec<u8>> {
    let key = "x+00000000+AAAA";
    let settings = [
        LEAST.to_owned(),
        include_str!("default.toml").to_owned(),
        format!(
            "{LEAST}public_addresses = [\"cell.example:7\", \"[::1]:7\"]\nquota_bytes = 5\n[log]\n\
             witnesses = [\"{key} http://127.0.0.1:8080/w\"]\n[limits]\nuploads_max = 3\n"
        ),
    ];
    // Maps of a version and a few fields, as the documents of the formats have them.
    let seed = [&[0x58, 32][..], &[7; 32]].concat();
    let files = [
        [&[0xa3, 0, 1, 1, 1, 2], &seed[..]].concat(),
        [&[0xa3, 0, 1, 1, 0x61, b'w', 2], &seed[..]].concat(),
        [&[0xa4, 0, 1, 1, 5, 2], &seed[..], &[3, 0x61, b'o']].concat(),
        vec![0xa2, 0, 1, 1, 2],
    ];
    let settings = settings.map(|text| [&[0], text.as_bytes()].concat());
    let files = (1..).zip(files).map(|(row, bytes): (u8, _)| {
        let mut seed = vec![row];
        seed.extend(bytes);
        seed
    });
    settings.into_iter().chain(files).collect()
}

#[cfg(test)]
mod tests {
    use candor_testkit::noise::feed;

    use super::*;

    #[test]
    fn a37_the_form_of_requests_takes_noise() {
        feed(requests, &request_seeds(), 10_000);
    }

    #[test]
    fn a37_settings_and_own_files_take_noise() {
        feed(own_files, &own_file_seeds(), 4_000);
    }
}
