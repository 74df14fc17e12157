//! What a request carries outside of its body: path, query and headers, each with the forms that the gate accepts.

use candor_wire::api::{BodyKind, Caller, Endpoint, EndpointId};
use candor_wire::limits::HEAD_WAIT_SECONDS;
use candor_wire::request::{
    HEADER_AUTHORITY, HEADER_DEVICE, HEADER_DIGEST, HEADER_MAX_BYTES, HEADER_PLACEMENT,
    HEADER_SIGNATURE, HEADER_SIGNATURE_INPUT,
};
use serde_json::{Value, json};

use crate::handlers::FROM_MAX_DIGITS;

/// A header of signed requests: name, what it says, and its form.
type SignedHeader = (&'static str, &'static str, &'static str);

const SIGNED_HEADERS: [SignedHeader; 5] = [
    (
        HEADER_DEVICE,
        "The signing device, 32 hexadecimal digits, or `root` for the account's root key.",
        "^([0-9a-f]{32}|root)$",
    ),
    (
        HEADER_AUTHORITY,
        "`grant <statement id>` or `errand <signed errand, base64url>`.",
        "^(grant [0-9a-f]{64}|errand [A-Za-z0-9_-]+)$",
    ),
    (
        HEADER_PLACEMENT,
        "The placement epoch of the account; 1 for an account that was never moved.",
        "^[1-9][0-9]*$",
    ),
    (
        HEADER_SIGNATURE_INPUT,
        "RFC 9421, in the one accepted form, labelled `candor`.",
        r#"^candor=\([a-z" @-]+\);created=-?[0-9]+;nonce="[0-9a-f]{32}";keyid="([0-9a-f]{32}|root)";alg="ed25519";tag="candor-request-1"$"#,
    ),
    (
        HEADER_SIGNATURE,
        "RFC 9421, Ed25519, labelled `candor`.",
        "^candor=:[A-Za-z0-9+/]{86}==:$",
    ),
];

const DIGEST_HEADER: SignedHeader = (
    HEADER_DIGEST,
    "RFC 9530, SHA-256 of the body.",
    "^sha-256=:[A-Za-z0-9+/]{43}=:$",
);

/// Everything that an endpoint's requests carry outside of their bodies.
pub(super) fn of(endpoint: &Endpoint) -> Vec<Value> {
    let mut parameters: Vec<Value> = endpoint
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
        .map(in_path)
        .collect();
    parameters.extend(
        endpoint
            .query
            .iter()
            .map(|name| in_query(endpoint.id, name)),
    );
    if endpoint.caller != Caller::Anybody {
        parameters.extend(SIGNED_HEADERS.iter().map(in_header));
        if matches!(endpoint.request, BodyKind::Cbor(_)) {
            parameters.push(in_header(&DIGEST_HEADER));
        }
    }
    if endpoint.reply == BodyKind::Object {
        parameters.push(json!({
            "name": "range",
            "in": "header",
            "required": false,
            "description": "One range of the object; an end beyond the object means its end.",
            "schema": { "type": "string", "pattern": "^bytes=[0-9]+-[0-9]*$", "maxLength": HEADER_MAX_BYTES }
        }));
    }
    parameters
}

fn in_path(name: &str) -> Value {
    if name == "file" {
        return json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": "The rest of the path, slashes and all: `checkpoint`, `tile/…`, `map/…`, `report.txt` or `report.json`.",
            "schema": { "type": "string", "pattern": "^[a-z0-9./]+$" }
        });
    }
    let digits = match name {
        "object" | "root" | "receipt" | "link" => 64,
        _ => 32,
    };
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "schema": { "type": "string", "pattern": format!("^[0-9a-f]{{{digits}}}$") }
    })
}

fn in_query(endpoint: EndpointId, name: &str) -> Value {
    let (what, schema) = match (endpoint, name) {
        (_, "from") => (
            "The number of the first record or head that is wanted, decimal; 0 where it is absent."
                .to_owned(),
            json!({ "type": "string", "pattern": format!("^(0|[1-9][0-9]{{0,{}}})$", FROM_MAX_DIGITS - 1) }),
        ),
        (EndpointId::ReadHead, _) => (
            format!(
                "The counter that is known already, decimal without leading zeros: the reply waits for a head with a \
                 higher one, {HEAD_WAIT_SECONDS} s at most, and is the head as it is then. A vault without a head has 0."
            ),
            json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
        ),
        _ => (
            "The last name that is known already.".to_owned(),
            json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        ),
    };
    json!({
        "name": name,
        "in": "query",
        "required": false,
        "description": what,
        "schema": schema
    })
}

fn in_header((name, what, pattern): &SignedHeader) -> Value {
    json!({
        "name": name,
        "in": "header",
        "required": true,
        "description": what,
        "schema": { "type": "string", "pattern": pattern, "maxLength": HEADER_MAX_BYTES }
    })
}
