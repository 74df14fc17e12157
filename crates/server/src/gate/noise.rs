//! Noise for the form of requests (row A37): what the gate reads before it knows whose they are.

use axum::body::Body;
use candor_wire::api::{ENDPOINTS, Endpoint};
use http::header::RANGE;

use super::{Claim, HeaderMap, Names, Parts, RequestBody, names, outer_form, query, signed_form};
use crate::config::Limits;
use crate::handlers::range;
use candor_wire::ids::to_hex;
use candor_wire::request::device_header;

/// The path that has these ids, by the pattern that they were read with.
fn path_of(pattern: &str, names: &Names) -> String {
    let hex = |bytes: &Option<[u8; 32]>| bytes.map(|bytes| to_hex(&bytes)).unwrap_or_default();
    let text = |id: Option<String>| id.unwrap_or_default();
    let segments = pattern.split('/').map(|segment| match segment {
        "{account}" => text(names.account.map(|id| id.to_string())),
        "{vault}" => text(names.vault.map(|id| id.to_string())),
        "{object}" => text(names.object.map(|id| id.to_string())),
        "{root}" => hex(&names.root),
        "{receipt}" => hex(&names.receipt),
        "{link}" => hex(&names.link),
        literal => literal.to_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}

/// A path is one spelling of its ids.
fn check_path(endpoint: &Endpoint, path: &str) {
    let Some(found) = names(endpoint.path, path) else {
        return;
    };
    match endpoint.path.split_once("{*file}") {
        Some((before, _)) => assert!(path.starts_with(before)),
        None => assert_eq!(path_of(endpoint.path, &found), path),
    }
}

fn check_query(endpoint: &Endpoint, text: &str) {
    match query(endpoint.query, text) {
        Ok(None) => assert!(text.is_empty()),
        Ok(Some(value)) => {
            let known = endpoint.query.iter();
            let written = |name: &&str| format!("{name}={value}");
            assert!(known.map(written).any(|written| written == text));
        }
        Err(_) => {}
    }
}

/// Headers of a signature have one spelling.
fn check_signed(endpoint: &Endpoint, headers: &HeaderMap) {
    let Ok(signed) = signed_form(endpoint, headers) else {
        return;
    };
    assert_eq!(device_header(signed.signer.as_ref()), signed.device);
    let written = match &signed.claim {
        Claim::Grant(id) => format!("grant {id}"),
        Claim::Errand(errand) => format!("errand {}", errand.to_text()),
    };
    assert_eq!(written, signed.authorization);
}

fn check_range(headers: &HeaderMap, size: u64) {
    match range(headers, size) {
        Ok(Some((first, end))) => assert!(first < end && end <= size),
        Ok(None) => assert!(headers.get(RANGE).is_none()),
        Err(_) => assert!(headers.get(RANGE).is_some()),
    }
}

/// `METHOD TARGET`, then lines `NAME: VALUE`. `None` for what no HTTP library lets through.
fn request_in(noise: &[u8]) -> Option<Parts> {
    let mut lines = noise.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let mut builder = http::Request::builder()
        .method(&first[..space])
        .uri(&first[space + 1..]);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[colon + 1..].trim_ascii_start();
        builder = builder.header(&line[..colon], value);
    }
    let (parts, ()) = builder.body(()).ok()?.into_parts();
    Some(parts)
}

/// A request for every endpoint: at most one of each path and method takes it, and whatever is read has one
/// spelling.
pub(crate) fn take_noise(noise: &[u8], limits: &Limits) {
    let Some(parts) = request_in(noise) else {
        return;
    };
    let mut taken = 0;
    for endpoint in ENDPOINTS {
        check_path(endpoint, parts.uri.path());
        check_query(endpoint, parts.uri.query().unwrap_or(""));
        check_signed(endpoint, &parts.headers);
        let body = RequestBody::new(Body::empty(), limits);
        taken += usize::from(outer_form(endpoint, &parts, &body).is_ok());
    }
    assert!(taken <= 1, "two endpoints take one request");
    for size in [1, 65_536, u64::MAX] {
        check_range(&parts.headers, size);
    }
}
