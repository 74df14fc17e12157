//! The gate, from outside.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use candor_wire::api::{BodyKind, Caller, ENDPOINTS, EndpointId, ErrorCode};
use candor_wire::errand::Purpose;
use candor_wire::ids::{AccountId, RequestNonce, VaultId};
use candor_wire::request;
use http::{Request, StatusCode};

use super::world::{Ask, Person, START, World, error, object};
use crate::log::Log;

fn filled(path: &str, person: &Person) -> String {
    path.replace("{account}", &person.account.to_string())
        .replace("{vault}", &person.vault.to_string())
        .replace("{*file}", "checkpoint")
        .replace("{object}", &"ab".repeat(32))
        .replace("{receipt}", &"ee".repeat(32))
        .replace("{link}", &"1c".repeat(32))
        .replace(
            "{root}",
            &candor_wire::ids::to_hex(&person.root.public().fingerprint()),
        )
}

#[tokio::test]
async fn every_row_of_the_table_is_routed_and_nothing_else_is() {
    let world = World::new().await;
    let person = world.person().await;
    world.cell.shared().transparency.step().await.unwrap();
    let methods = [
        "GET", "PUT", "POST", "HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE",
    ];
    for endpoint in ENDPOINTS {
        let path = filled(endpoint.path, &person);
        for method in methods {
            let request = Request::builder()
                .method(method)
                .uri(&path)
                .body(Body::empty())
                .unwrap();
            let (status, body) = world.send(request).await;
            let known = ENDPOINTS
                .iter()
                .find(|row| filled(row.path, &person) == path && row.method.name() == method);
            let expected = match known {
                // Nothing was erased.
                Some(row) if row.id == EndpointId::ReadErasure => StatusCode::NOT_FOUND,
                Some(row) if row.caller == Caller::Anybody => StatusCode::OK,
                // Routed: it is the signature that is missing.
                Some(_) => StatusCode::UNAUTHORIZED,
                None => StatusCode::NOT_FOUND,
            };
            assert_eq!(status, expected, "{method} {}", endpoint.path);
            if method != "HEAD" && expected == StatusCode::NOT_FOUND {
                assert_eq!(error(&body), Some(ErrorCode::NotFound));
            }
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/login",
        "/v2/cell",
        "/v1/cell/",
        "/metrics",
        "/healthz",
    ] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        assert_eq!(world.send(request).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_request_is_made_once() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let read = person.ask(EndpointId::ReadHead, grant.clone());
    let write = person.putting(&object(1), &grant);
    for ask in [read, write] {
        let nonce = RequestNonce::from_bytes(world.fresh_bytes());
        let now = world.now().seconds();
        assert!(
            world
                .send(person.sign_as(&world, &ask, nonce, now))
                .await
                .0
                .is_success()
        );
        let (status, body) = world.send(person.sign_as(&world, &ask, nonce, now)).await;
        assert_eq!(
            (status, error(&body)),
            (StatusCode::UNAUTHORIZED, Some(ErrorCode::Replayed))
        );
    }
    // For as long as it would be accepted by its time, and longer.
    let nonce = RequestNonce::from_bytes(world.fresh_bytes());
    let (ask, ahead) = (
        person.ask(EndpointId::ReadHead, grant),
        world.now().seconds() + 300,
    );
    assert!(
        world
            .send(person.sign_as(&world, &ask, nonce, ahead))
            .await
            .0
            .is_success()
    );
    world.advance(600_000);
    crate::housekeeping::sweep(world.cell.shared()).await;
    let (_, body) = world.send(person.sign_as(&world, &ask, nonce, ahead)).await;
    assert_eq!(error(&body), Some(ErrorCode::Replayed));
}

#[tokio::test]
async fn a_wrong_clock_is_told_to_signers_only() {
    let world = World::new().await;
    let (person, stranger) = (world.person().await, Person::new(&world));
    let ask = person.ask(EndpointId::ReadChain, person.errand(&world, Purpose::List));
    let nonce = || RequestNonce::from_bytes(world.fresh_bytes());
    for off in [-301, 301, i64::MIN / 2, i64::MAX / 2] {
        let created = world.now().seconds() + off;
        let (_, body) = world
            .send(person.sign_as(&world, &ask, nonce(), created))
            .await;
        assert_eq!(error(&body), Some(ErrorCode::Skew), "{off}");
        let (_, body) = world
            .send(stranger.sign_as(&world, &ask, nonce(), created))
            .await;
        assert_eq!(error(&body), Some(ErrorCode::NotFound), "{off}");
    }
    for off in [-300, 300] {
        let created = world.now().seconds() + off;
        assert!(
            world
                .send(person.sign_as(&world, &ask, nonce(), created))
                .await
                .0
                .is_success()
        );
    }
}

/// A stranger's request gets the very same bytes for an account that exists and for one that does not.
#[tokio::test]
async fn a39_a_foreign_account_is_like_none() {
    let world = World::new().await;
    let (mut mine, mut theirs) = (world.person().await, world.person().await);
    let my_grant = mine.consents(&world).await;
    let their_grant = theirs.consents(&world).await;
    let nowhere = AccountId::from_bytes([0xee; 16]).to_string();
    for endpoint in ENDPOINTS.iter().filter(|row| row.caller == Caller::Device) {
        for authority in [
            &my_grant,
            &their_grant,
            &mine.errand(&world, Purpose::Restore),
        ] {
            for signer in [Some(mine.device), Some(theirs.device), None] {
                let body = match endpoint.request {
                    BodyKind::Empty => bytes::Bytes::new(),
                    _ => object(1),
                };
                let there = Ask {
                    path: filled(endpoint.path, &theirs),
                    body,
                    signer,
                    ..mine.ask(endpoint.id, authority.clone())
                };
                let absent = Ask {
                    path: there.path.replace(&theirs.account.to_string(), &nowhere),
                    body: there.body.clone(),
                    ..mine.ask(endpoint.id, authority.clone())
                };
                let answer = mine.call(&world, &there).await;
                assert_eq!(
                    error(&answer.1),
                    Some(ErrorCode::NotFound),
                    "{:?}",
                    endpoint.id
                );
                assert_eq!(
                    answer,
                    mine.call(&world, &absent).await,
                    "{:?}",
                    endpoint.id
                );
            }
        }
    }
}

#[tokio::test]
async fn without_consent_nothing_is_written() {
    let world = World::new().await;
    let mut person = world.person().await;
    let sent = object(1);
    let made_up = format!("grant {}", "00".repeat(32));
    assert_eq!(
        person
            .outcome(&world, &person.putting(&sent, &made_up))
            .await,
        Some(ErrorCode::NoConsent)
    );
    for purpose in Purpose::ALL {
        let errand = person.errand(&world, purpose);
        let refused = person
            .outcome(&world, &person.putting(&sent, &errand))
            .await;
        assert_eq!(refused, Some(ErrorCode::NotPermitted), "{purpose:?}");
    }
    let grant = person.consents(&world).await;
    let elsewhere = VaultId::from_bytes([9; 16]).to_string();
    let other_vault = person.putting(&sent, &grant);
    let other_vault = Ask {
        path: other_vault
            .path
            .replace(&person.vault.to_string(), &elsewhere),
        ..other_vault
    };
    assert_eq!(
        person.outcome(&world, &other_vault).await,
        Some(ErrorCode::NoConsent)
    );
    assert_eq!(
        person.outcome(&world, &person.putting(&sent, &grant)).await,
        None
    );

    person.withdraws(&world).await;
    let next = person.putting(&object(2), &grant);
    assert_eq!(
        person.outcome(&world, &next).await,
        Some(ErrorCode::NoConsent)
    );
    // What is theirs they get back all the same.
    let errand = person.errand(&world, Purpose::Restore);
    let name = candor_wire::ObjectId::of(&sent);
    assert_eq!(
        person.call(&world, &person.getting(name, &errand)).await,
        (StatusCode::OK, sent)
    );

    let again = person.consents(&world).await;
    assert_eq!(
        person
            .outcome(&world, &person.putting(&object(2), &again))
            .await,
        None
    );
    world.advance(30 * 24 * 3600 * 1000);
    assert_eq!(
        person
            .outcome(&world, &person.putting(&object(3), &again))
            .await,
        Some(ErrorCode::NoConsent)
    );
}

#[tokio::test]
async fn an_errand_opens_its_own_endpoints_while_it_lasts() {
    let world = World::new().await;
    let person = world.person().await;
    for endpoint in ENDPOINTS
        .iter()
        .filter(|row| row.caller == Caller::Device && row.request == BodyKind::Empty)
    {
        for purpose in Purpose::ALL {
            let path = filled(endpoint.path, &person);
            let ask = Ask {
                path,
                ..person.ask(endpoint.id, person.errand(&world, purpose))
            };
            let refused = person.outcome(&world, &ask).await == Some(ErrorCode::NotPermitted);
            assert_eq!(
                refused,
                !endpoint.errands.contains(&purpose),
                "{:?} {purpose:?}",
                endpoint.id
            );
        }
    }
    let errand = person.errand(&world, Purpose::List);
    world.advance(60_000 + 300_001);
    let late = person.ask(EndpointId::ReadChain, errand);
    assert_eq!(
        person.outcome(&world, &late).await,
        Some(ErrorCode::NotPermitted)
    );
}

#[tokio::test]
async fn forms_are_strict() {
    let world = World::new().await;
    let person = world.person().await;
    let ask = person.ask(EndpointId::ReadChain, person.errand(&world, Purpose::List));
    let changed = async |change: &dyn Fn(&mut Request<Body>)| {
        let mut request = person.sign(&world, &ask);
        change(&mut request);
        error(&world.send(request).await.1)
    };
    let set = |name: &'static str, value: &'static str| {
        move |request: &mut Request<Body>| {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
    };
    assert_eq!(changed(&|_| {}).await, None);
    for name in [
        request::HEADER_SIGNATURE,
        request::HEADER_SIGNATURE_INPUT,
        request::HEADER_DEVICE,
        request::HEADER_PLACEMENT,
    ] {
        let missing = changed(&|request: &mut Request<Body>| {
            request.headers_mut().remove(name);
        })
        .await;
        assert_eq!(missing, Some(ErrorCode::NotSigned), "{name}");
        let twice = changed(&|request: &mut Request<Body>| {
            let value = request.headers()[name].clone();
            request.headers_mut().append(name, value);
        })
        .await;
        assert_eq!(twice, Some(ErrorCode::Malformed), "{name}");
    }
    assert_eq!(
        changed(&set(request::HEADER_PLACEMENT, "2")).await,
        Some(ErrorCode::NotFound)
    );
    assert_eq!(
        changed(&set(request::HEADER_DEVICE, "somebody")).await,
        Some(ErrorCode::Malformed)
    );
    assert_eq!(
        changed(&set(request::HEADER_AUTHORITY, "please")).await,
        Some(ErrorCode::Malformed)
    );
    assert_eq!(
        changed(&set(request::HEADER_DIGEST, "sha-256=:AA==:")).await,
        Some(ErrorCode::NotSigned)
    );
    let crowded = changed(&|request: &mut Request<Body>| {
        for _ in 0..40 {
            request
                .headers_mut()
                .append("x-more", "y".repeat(600).parse().unwrap());
        }
    })
    .await;
    assert_eq!(crowded, Some(ErrorCode::TooLarge));
    let with_body =
        changed(&|request: &mut Request<Body>| *request.body_mut() = Body::from("x")).await;
    assert_eq!(with_body, Some(ErrorCode::TooLarge));
}

#[tokio::test]
async fn a_message_is_the_one_that_was_signed() {
    let world = World::new().await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    let has = Ask {
        body: vec![0; 32].into(),
        ..person.ask(EndpointId::HasObjects, grant)
    };
    let mut other_body = person.sign(&world, &has);
    *other_body.body_mut() = Body::from(vec![1; 32]);
    assert_eq!(
        error(&world.send(other_body).await.1),
        Some(ErrorCode::NotSigned)
    );
    assert_eq!(
        person.outcome(&world, &has).await,
        Some(ErrorCode::Malformed)
    );
    let long = Ask {
        body: vec![0; 1024 * 1024 + 1].into(),
        ..has
    };
    assert_eq!(
        person.outcome(&world, &long).await,
        Some(ErrorCode::TooLarge)
    );
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_and_the_metrics_name_nobody() {
    let kept = Kept::default();
    let world = World::with(|_| {}, Log::to(kept.clone())).await;
    let mut person = world.person().await;
    let grant = person.consents(&world).await;
    assert_eq!(
        person
            .outcome(&world, &person.putting(&object(1), &grant))
            .await,
        None
    );
    assert_eq!(
        person
            .outcome(&world, &person.putting(&object(1), "grant no"))
            .await,
        Some(ErrorCode::Malformed)
    );
    let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    let metrics = world.cell.shared().metrics.render();
    for name in [
        person.account.to_string(),
        person.device.to_string(),
        person.vault.to_string(),
        grant[6..].into(),
    ] {
        assert!(!log.contains(&name) && !metrics.contains(&name));
    }
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[2]["endpoint"], "PutObject");
    assert_eq!(lines[2]["bytes_in"], 65_536);
    assert_eq!(
        (&lines[3]["error"], &lines[3]["time"]),
        (&"Malformed".into(), &START.0.into())
    );
    assert!(metrics.contains("candor_requests_total{endpoint=\"PutObject\",status=\"204\"} 1\n"));
    assert!(metrics.contains("candor_received_bytes_total{endpoint=\"PutObject\"} 131072\n"));
}
