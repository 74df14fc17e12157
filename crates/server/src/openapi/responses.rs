//! What a cell answers: the one success of an endpoint, and every status of a refusal that it can have.

use candor_wire::api::{BodyKind, Caller, Endpoint, EndpointId, ErrorCode, MEDIA_OBJECT};
use serde_json::{Map, Value, json};

use super::{ERRORS, content};

/// All replies of an endpoint by status.
pub(super) fn of(endpoint: &Endpoint) -> Value {
    let mut replies = Map::new();
    let codes = ERRORS.iter().map(|(code, _)| *code);
    for code in codes.filter(|code| can_refuse(endpoint, *code)) {
        replies.entry(code.status().to_string()).or_insert_with(|| {
            json!({ "description": "Refused.", "content": content(BodyKind::Cbor("ErrorReply")) })
        });
    }
    match endpoint.reply {
        BodyKind::Empty => {
            replies.insert(
                "204".to_owned(),
                json!({ "description": "Done, and durable." }),
            );
        }
        kind => {
            replies.insert(
                "200".to_owned(),
                json!({ "description": "Done.", "content": content(kind) }),
            );
        }
    }
    if endpoint.reply == BodyKind::Object {
        replies.insert(
            "206".to_owned(),
            json!({
                "description": "The range that was asked for.",
                "headers": { "content-range": {
                    "required": true,
                    "description": "First and last byte of the range, and the size of the object.",
                    "schema": { "type": "string", "pattern": "^bytes [0-9]+-[0-9]+/[0-9]+$" }
                } },
                "content": content(BodyKind::Object)
            }),
        );
    }
    Value::Object(replies)
}

/// Whether an endpoint can refuse with this. Whatever concerns signatures, authority, accounts and room does not
/// concern requests that nobody signs: these read, and read nothing of anybody's.
fn can_refuse(endpoint: &Endpoint, code: ErrorCode) -> bool {
    match code {
        ErrorCode::Malformed | ErrorCode::NotFound | ErrorCode::TooLarge | ErrorCode::Internal => {
            true
        }
        ErrorCode::Range => endpoint.id == EndpointId::GetObject,
        _ => endpoint.caller != Caller::Anybody,
    }
}

/// A file of the log, in the media type of its name.
pub(super) fn log_file() -> Value {
    let text = || json!({ "schema": { "type": "string" }, "x-candor-max-bytes": BodyKind::LogFile.max_bytes() });
    json!({
        MEDIA_OBJECT: {
            "schema": { "type": "string", "contentEncoding": "binary" },
            "x-candor-max-bytes": BodyKind::LogFile.max_bytes()
        },
        "text/plain": text(),
        "application/json": { "x-candor-max-bytes": BodyKind::LogFile.max_bytes() }
    })
}
