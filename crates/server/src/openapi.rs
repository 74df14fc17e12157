//! The API's description (OpenAPI 3.1), made from the same table as the routes.
//!
//! A copy is kept in `docs/openapi.json`, and a test holds the two equal. Bodies are CBOR maps with
//! integer keys; a schema lists the keys as property names, each with the name that the
//! specification uses and what the value means.

use candor_wire::api::{
    API_VERSION, BodyKind, Caller, ENDPOINTS, Endpoint, ErrorCode, MEDIA_CBOR, MEDIA_OBJECT,
};
use candor_wire::request::HEADER_SIGNATURE;
use serde_json::{Map, Value, json};

mod parameters;
mod responses;
mod schemas;

use self::schemas::{Field, Kind, SCHEMAS};

/// Every error, with its number. A test holds the numbers to the ones on the wire.
pub(crate) const ERRORS: [(ErrorCode, u8); 18] = [
    (ErrorCode::Malformed, 1),
    (ErrorCode::NotSigned, 2),
    (ErrorCode::Skew, 3),
    (ErrorCode::Replayed, 4),
    (ErrorCode::NoConsent, 5),
    (ErrorCode::NotPermitted, 6),
    (ErrorCode::NotFound, 7),
    (ErrorCode::Conflict, 8),
    (ErrorCode::OverQuota, 9),
    (ErrorCode::TooLarge, 10),
    (ErrorCode::WrongHash, 11),
    (ErrorCode::CellFull, 12),
    (ErrorCode::Busy, 13),
    (ErrorCode::Internal, 14),
    (ErrorCode::InvitationSpent, 15),
    (ErrorCode::Version, 16),
    (ErrorCode::Chain, 17),
    (ErrorCode::Range, 18),
];

/// The whole description.
pub fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let at_path = paths
            .entry(endpoint.path.replace("{*", "{"))
            .or_insert_with(|| json!({}));
        at_path[endpoint.method.name().to_ascii_lowercase()] = operation(endpoint);
    }
    let schemas: Map<String, Value> = SCHEMAS
        .iter()
        .map(|(name, what, fields)| ((*name).to_owned(), schema(what, fields)))
        .collect();
    let errors: Vec<Value> = ERRORS
        .iter()
        .map(|(code, number)| json!({ "code": number, "name": format!("{code:?}"), "status": code.status() }))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Candor cell",
            "version": API_VERSION.to_string(),
            "description": "Bodies are deterministic CBOR with integer keys, objects are sealed bytes. \
                Requests are signed by a device; there is nothing to log in to.",
            "license": { "name": "MIT OR Apache-2.0" }
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "requestSignature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": HEADER_SIGNATURE,
                    "description": "HTTP message signature (RFC 9421) with Ed25519 over every request."
                }
            }
        },
        "x-candor-errors": errors
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let grants: Vec<&str> = endpoint
        .grants
        .iter()
        .map(|service| service.name())
        .collect();
    let errands: Vec<&str> = endpoint
        .errands
        .iter()
        .map(|purpose| purpose.name())
        .collect();
    let mut operation = json!({
        "operationId": format!("{:?}", endpoint.id),
        "summary": endpoint.summary,
        "parameters": parameters::of(endpoint),
        "responses": responses::of(endpoint),
        "security": if endpoint.caller != Caller::Anybody { json!([{ "requestSignature": [] }]) } else { json!([]) },
        "x-candor-caller": format!("{:?}", endpoint.caller),
        "x-candor-grants": grants,
        "x-candor-errands": errands,
        "x-candor-write-only": endpoint.write_only
    });
    if endpoint.request != BodyKind::Empty {
        operation["requestBody"] =
            json!({ "required": true, "content": content(endpoint.request) });
    }
    operation
}

fn content(kind: BodyKind) -> Value {
    match kind {
        BodyKind::Empty => json!({}),
        BodyKind::Cbor(name) => json!({
            MEDIA_CBOR: { "schema": reference(name), "x-candor-max-bytes": kind.max_bytes() }
        }),
        BodyKind::Object => json!({
            MEDIA_OBJECT: { "schema": { "type": "string", "contentEncoding": "binary" }, "x-candor-max-bytes": kind.max_bytes() }
        }),
        BodyKind::LogFile => responses::log_file(),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn schema(what: &str, fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(key, name, kind, _, note)| (key.to_string(), property(name, *kind, note)))
        .collect();
    let required: Vec<String> = fields
        .iter()
        .filter(|(_, _, _, optional, _)| !optional)
        .map(|(key, ..)| key.to_string())
        .collect();
    json!({
        "type": "object",
        "description": what,
        "x-cbor": "map with integer keys, ascending",
        "properties": properties,
        "required": required,
        "additionalProperties": false
    })
}

fn property(name: &str, kind: Kind, note: &str) -> Value {
    let bytes = |length: u16| match length {
        0 => json!({ "type": "string", "x-cbor": "byte string" }),
        length => {
            json!({ "type": "string", "x-cbor": "byte string", "minLength": length, "maxLength": length })
        }
    };
    let mut property = match kind {
        Kind::Version => json!({ "type": "integer", "const": API_VERSION }),
        Kind::Number => json!({ "type": "integer" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Bytes(length) => bytes(length),
        Kind::Of(schema) => reference(schema),
        Kind::ListOf(schema) => json!({ "type": "array", "items": reference(schema) }),
        Kind::ListOfBytes(length, most) => {
            json!({ "type": "array", "items": bytes(length), "maxItems": most })
        }
        Kind::ListOfFlags => json!({ "type": "array", "items": { "type": "boolean" } }),
    };
    property["title"] = json!(name);
    property["description"] = json!(note);
    property
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::collections::BTreeSet;

    use super::*;

    const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

    #[test]
    fn the_kept_document_is_this_one() {
        let kept: Value = serde_json::from_slice(&std::fs::read(KEPT).unwrap()).unwrap();
        assert!(
            kept == document(),
            "docs/openapi.json is behind; write it with: \
             cargo test -p candor-server write_the_kept_document -- --ignored"
        );
    }

    #[test]
    #[ignore = "writes docs/openapi.json"]
    fn write_the_kept_document() {
        let mut text = serde_json::to_string_pretty(&document()).unwrap();
        text.push('\n');
        std::fs::write(KEPT, text).unwrap();
    }

    #[test]
    fn every_message_has_a_schema_and_no_schema_is_unused() {
        let known: BTreeSet<&str> = SCHEMAS.iter().map(|(name, ..)| *name).collect();
        let mut named: BTreeSet<&str> = BTreeSet::from(["ErrorReply"]);
        for endpoint in ENDPOINTS {
            named.extend(
                [endpoint.request, endpoint.reply]
                    .iter()
                    .filter_map(|kind| match kind {
                        BodyKind::Cbor(name) => Some(*name),
                        _ => None,
                    }),
            );
        }
        for (_, _, fields) in SCHEMAS {
            named.extend(fields.iter().filter_map(|(_, _, kind, ..)| match kind {
                Kind::Of(name) | Kind::ListOf(name) => Some(*name),
                _ => None,
            }));
        }
        assert_eq!(known, named);
    }

    #[test]
    fn errors_have_their_numbers_on_the_wire() {
        for (code, number) in ERRORS {
            assert_eq!(candor_wire::cbor::encode(&code), [number], "{code:?}");
        }
    }

    /// Names of everything that a caller can hand in or get, and of every operation.
    fn names(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    into.push(key.clone());
                    if matches!(
                        key.as_str(),
                        "name" | "title" | "operationId" | "scheme" | "type"
                    ) {
                        into.extend(value.as_str().map(str::to_owned));
                    }
                    names(value, into);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| names(value, into)),
            _ => {}
        }
    }

    fn no_name_contains(forbidden: &[&str]) {
        let mut all = Vec::new();
        names(&document(), &mut all);
        assert!(all.len() > 200, "the walk sees the document");
        for name in all {
            let lower = name.to_ascii_lowercase();
            assert!(!forbidden.iter().any(|word| lower.contains(word)), "{name}");
        }
    }

    /// Nothing at the server can be guessed offline: no endpoint takes or gives anything that is
    /// made of a password.
    #[test]
    fn a24_no_endpoint_takes_a_password() {
        no_name_contains(&[
            "password",
            "passphrase",
            "pin",
            "opaque",
            "verifier",
            "kdf",
            "argon",
            "salted",
        ]);
        let schemes = &document()["components"]["securitySchemes"];
        assert_eq!(
            schemes.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["requestSignature"]
        );
    }

    /// There is no login, so none can be asked a thousand times what it thinks of a wrapped key.
    #[test]
    fn a25_no_endpoint_is_a_login() {
        no_name_contains(&[
            "login",
            "session",
            "cookie",
            "bearer",
            "wrapped",
            "challenge",
            "oauth",
            "unlock",
        ]);
        for endpoint in ENDPOINTS {
            let is_public = endpoint.caller == Caller::Anybody;
            assert!(
                !is_public || (endpoint.request == BodyKind::Empty && endpoint.query.is_empty())
            );
        }
    }
}
