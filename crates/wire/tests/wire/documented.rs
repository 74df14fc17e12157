//! The tables of docs/formats/api.md say what the code says: somebody else's cell or device is written from them.

use std::collections::BTreeSet;

use candor_wire::api::{BodyKind, Caller, ENDPOINTS, Endpoint, ErrorCode};
use candor_wire::consent_record::ServiceCode;
use candor_wire::errand::Purpose;
use candor_wire::limits::{BODY_MAX_BYTES, OBJECT_MAX_BYTES};

const DOCUMENT: &str = include_str!("../../../../docs/formats/api.md");

/// The cells of the rows of the first table behind a heading.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let behind = DOCUMENT.split_once(heading).unwrap().1;
    let lines = behind.lines().skip_while(|line| !line.starts_with('|'));
    let lines = lines.take_while(|line| line.starts_with('|'));
    lines
        .skip(2)
        .map(|line| {
            let cells = line.trim_matches('|').split('|').map(str::trim);
            cells.collect()
        })
        .collect()
}

/// Names, `all` written out.
fn names<'a>(cell: &'a str, all: &[&'a str]) -> BTreeSet<&'a str> {
    match cell {
        "" => BTreeSet::new(),
        "all" => all.iter().copied().collect(),
        list => list.split(", ").collect(),
    }
}

/// What is written before `?` and the names of what may follow.
fn request(endpoint: &Endpoint) -> (String, Vec<&'static str>) {
    let path = match endpoint.path.strip_prefix("/v1/accounts/{account}/") {
        Some(rest) if !rest.starts_with("chain") && !rest.starts_with("links") => {
            format!("…/{rest}")
        }
        _ => endpoint.path.to_owned(),
    };
    let method = endpoint.method.name();
    // The router takes slashes there, too.
    let path = path.replace("{*", "{");
    (format!("{method} {path}"), endpoint.query.to_vec())
}

fn body(kind: BodyKind, nothing: &'static str) -> &'static str {
    match kind {
        BodyKind::Empty => nothing,
        BodyKind::Cbor(name) => name,
        BodyKind::Object => "object",
        BodyKind::LogFile => "file",
    }
}

#[test]
fn the_document_lists_every_endpoint_as_it_is() {
    let rows = table("## Endpoints");
    let listed: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    let known: Vec<String> = ENDPOINTS
        .iter()
        .map(|one| format!("{:?}", one.id))
        .collect();
    assert_eq!(listed, known.iter().map(String::as_str).collect());
    for row in rows {
        let place = known.iter().position(|name| name == row[0]).unwrap();
        let endpoint = &ENDPOINTS[place];
        let asked = row[1].trim_matches('`');
        let (asked, query) = asked.split_once('?').unwrap_or((asked, ""));
        let query: Vec<&str> = query
            .split('&')
            .filter_map(|one| one.split('=').next())
            .collect();
        let query: Vec<&str> = query.into_iter().filter(|name| !name.is_empty()).collect();
        assert_eq!((asked.to_owned(), query), request(endpoint), "{row:?}");
        let may: &[&str] = match endpoint.caller {
            Caller::Anybody => &["nobody"],
            Caller::NewDevice => &["new device"],
            Caller::Root => &["root"],
            Caller::Device if endpoint.write_only => &["device", "device, root"],
            Caller::Device => &["device", "full device"],
            Caller::Linker => &["link"],
        };
        assert!(may.contains(&row[2]), "{row:?}");
        let services = ServiceCode::ALL.map(ServiceCode::name);
        let granted = endpoint.grants.iter().map(|service| service.name());
        assert_eq!(names(row[3], &services), granted.collect(), "{row:?}");
        let purposes = Purpose::ALL.map(Purpose::name);
        let errands = endpoint.errands.iter().map(|purpose| purpose.name());
        assert_eq!(names(row[4], &purposes), errands.collect(), "{row:?}");
        assert_eq!(row[5], body(endpoint.request, ""), "{row:?}");
        assert_eq!(row[6], body(endpoint.reply, "204"), "{row:?}");
    }
}

#[test]
fn the_document_lists_every_error_with_its_status() {
    let rows = table("## Errors");
    let read = |number: u8| minicbor::decode::<ErrorCode>(&minicbor::to_vec(number).unwrap());
    for (place, row) in (1..).zip(&rows) {
        assert_eq!(row[0], place.to_string());
        let code = read(place).unwrap();
        assert_eq!(row[1], format!("{code:?}"));
        assert_eq!(row[2], code.status().to_string());
    }
    assert!(read(rows.len() as u8 + 1).is_err() && read(0).is_err());
}

#[test]
fn bodies_have_the_limits_that_are_named() {
    assert_eq!(BodyKind::Empty.max_bytes(), 0);
    assert_eq!(BodyKind::Object.max_bytes(), OBJECT_MAX_BYTES);
    for kind in [BodyKind::Cbor("HasObjects"), BodyKind::LogFile] {
        assert_eq!(kind.max_bytes(), BODY_MAX_BYTES);
    }
}
