//! When there is a grant, when there is not, and that nobody else can make one.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use candor_consent::{
    Authority, Backup, Messages, NoticeBlanks, Proposal, Recovery, Refusal, Relay, Service, Sync,
    admit, errand, grant, notice, propose,
};
use candor_testkit::sample::*;
use candor_wire::api::{EndpointId, endpoint};
use candor_wire::chain::Record;
use candor_wire::consent_record::{Collected, ConsentRecord, Event, ServiceCode};
use candor_wire::errand::{ERRAND_VERSION, ErrandError, ErrandToken, Purpose, SignedErrand};
use candor_wire::ids::{AccountId, CellId, DeviceId, RequestNonce, VaultId, to_hex};
use candor_wire::sign::SecretKey;
use candor_wire::statement::{Body, Role};
use candor_wire::time::{DAY_MS, Millis};

const SERVICE: ServiceCode = ServiceCode::Backup;

fn consented() -> Grower {
    let mut grower = family();
    grower.push(Some(LAPTOP), &laptop(), consent(LAPTOP));
    grower
}

fn ask(grower: &Grower) -> Result<candor_consent::Grant<Backup>, Refusal> {
    grant::<Backup>(&grower.view(), &keyring(), &LAPTOP, Some(&VAULT), NOW)
}

#[test]
fn a_live_consent_gives_a_grant_for_exactly_its_place() {
    let grower = consented();
    let view = grower.view();
    let granted = ask(&grower).unwrap();
    assert_eq!(granted.vault(), Some(VAULT));
    assert_eq!(granted.device(), Some(LAPTOP));
    assert_eq!(granted.cell(), cell());
    assert!(granted.opens(endpoint(EndpointId::PutObject)));
    assert!(granted.opens(endpoint(EndpointId::DescribeCell)));
    assert!(!granted.opens(endpoint(EndpointId::FindAccount)));

    let none = Refusal::NoConsent { service: SERVICE };
    let other_vault = VaultId::from_bytes([1; 16]);
    let elsewhere = grant::<Backup>(&view, &keyring(), &LAPTOP, Some(&other_vault), NOW);
    assert_eq!(elsewhere.unwrap_err(), none);
    let other_device = grant::<Backup>(&view, &keyring(), &PHONE, Some(&VAULT), NOW);
    assert_eq!(other_device.unwrap_err(), none);
    let other_service = grant::<Sync>(&view, &keyring(), &LAPTOP, Some(&VAULT), NOW);
    assert_eq!(
        other_service.unwrap_err(),
        Refusal::NoConsent {
            service: ServiceCode::Sync
        }
    );
}

#[test]
fn without_consent_there_is_no_grant() {
    assert_eq!(
        ask(&family()).unwrap_err(),
        Refusal::NoConsent { service: SERVICE }
    );
}

#[test]
fn a_grant_ends_by_withdrawal_and_by_itself() {
    let mut grower = consented();
    let ends = consent_record(LAPTOP).ends_at;
    let late = grant::<Backup>(&grower.view(), &keyring(), &LAPTOP, Some(&VAULT), ends);
    assert_eq!(
        late.unwrap_err(),
        Refusal::Ended {
            service: SERVICE,
            at: ends
        }
    );
    grower.push(Some(LAPTOP), &laptop(), withdrawal(None));
    assert_eq!(
        ask(&grower).unwrap_err(),
        Refusal::Withdrawn { service: SERVICE }
    );
    // A new consent after a withdrawal holds again.
    grower.push(Some(LAPTOP), &laptop(), consent(LAPTOP));
    assert!(ask(&grower).is_ok());
}

#[test]
fn a_grant_opens_only_the_endpoints_of_its_service() {
    fn check<S: Service + Send + core::marker::Sync>() {
        let needs_vault = matches!(S::CODE, ServiceCode::Backup | ServiceCode::Sync);
        let vault = needs_vault.then_some(VAULT);
        let record = ConsentRecord {
            service: S::CODE,
            vault,
            ..consent_record(LAPTOP)
        };
        let mut grower = family();
        let body = Body::ConsentGiven(Box::new(record));
        grower.push(Some(LAPTOP), &laptop(), body);
        let granted = grant::<S>(&grower.view(), &keyring(), &LAPTOP, vault.as_ref(), NOW).unwrap();
        for row in candor_wire::api::ENDPOINTS {
            let public = matches!(
                row.id,
                EndpointId::DescribeCell | EndpointId::ReadLog | EndpointId::ReadErasure
            );
            assert_eq!(
                granted.opens(row),
                public || row.grants.contains(&S::CODE),
                "{:?} {row:?}",
                S::CODE
            );
        }
        assert_eq!(granted.opens(endpoint(EndpointId::PutObject)), needs_vault);
        // For new keys of its vault, after a device was revoked.
        let append = endpoint(EndpointId::AppendChain);
        assert_eq!(granted.opens(append), needs_vault);
    }
    check::<Backup>();
    check::<Sync>();
    check::<Messages>();
    check::<Relay>();
    check::<Recovery>();
}

#[test]
fn of_several_live_consents_the_longest_lasting_is_used() {
    let mut grower = family();
    let mut push = |days| {
        let mut record = consent_record(LAPTOP);
        record.ends_at = NOW.plus_ms(days * DAY_MS);
        let body = Body::ConsentGiven(Box::new(record));
        grower.push(Some(LAPTOP), &laptop(), body);
        grower.records.last().unwrap().commitment
    };
    push(30);
    let longest = push(300);
    push(100);
    // Of equals the first is kept: a request does not change its consent without a reason.
    push(300);
    let granted = ask(&grower).unwrap();
    assert_eq!(granted.id(), longest);
    assert_eq!(granted.ends_at(), NOW.plus_ms(300 * DAY_MS));
}

#[test]
fn a_withdrawal_by_one_full_device_ends_the_others_grants() {
    let mut grower = consented();
    grower
        .push(Some(LAPTOP), &laptop(), added(PHONE, Role::Full, &phone()))
        .push(Some(PHONE), &phone(), withdrawal(Some(VAULT)));
    assert_eq!(
        ask(&grower).unwrap_err(),
        Refusal::Withdrawn { service: SERVICE }
    );
}

#[test]
fn a_withdrawal_by_a_write_only_device_ends_only_its_own() {
    let mut grower = consented();
    grower
        .push(
            Some(LAPTOP),
            &laptop(),
            added(PHONE, Role::WriteOnly, &phone()),
        )
        .push(Some(PHONE), &phone(), consent(PHONE))
        .push(Some(PHONE), &phone(), withdrawal(None));
    assert!(ask(&grower).is_ok());
    let own = grant::<Backup>(&grower.view(), &keyring(), &PHONE, Some(&VAULT), NOW);
    assert_eq!(own.unwrap_err(), Refusal::Withdrawn { service: SERVICE });
}

#[test]
fn a_consent_that_the_cell_did_not_acknowledge_grants_nothing() {
    let mut grower = family();
    let (record, link): (Record, _) = grower.draft(Some(LAPTOP), &laptop(), consent(LAPTOP));
    grower.records.push(record);
    grower.tip = link;
    assert_eq!(
        ask(&grower).unwrap_err(),
        Refusal::NotAcknowledged { service: SERVICE }
    );
}

/// Row 44: a cell turns a service on. It can offer any consent it likes; without the signature of
/// the very device the chain refuses it, and a consent for another cell grants nothing here.
#[test]
fn a44_a_server_cannot_switch_a_service_on() {
    let grower = family();
    let view = grower.view();
    for (signer, key) in [
        (Some(LAPTOP), phone()),
        (None, phone()),
        (Some(PHONE), phone()),
    ] {
        let (mut record, link) = grower.draft(signer, &key, consent(LAPTOP));
        record.acknowledgement = Some(acknowledge(&record, link));
        let mut after = view.clone();
        let refused = after.apply(&record, &keyring()).unwrap_err();
        assert_eq!(
            refused,
            candor_wire::chain::ChainError::Signature { sequence: 4 }
        );
        let granted = grant::<Backup>(&after, &keyring(), &LAPTOP, Some(&VAULT), NOW);
        assert_eq!(
            granted.unwrap_err(),
            Refusal::NoConsent { service: SERVICE }
        );
    }
    let mut elsewhere = consent_record(LAPTOP);
    elsewhere.recipient.cell = CellId::from_bytes([9; 16]);
    let mut grower = family();
    grower.push(
        Some(LAPTOP),
        &laptop(),
        Body::ConsentGiven(Box::new(elsewhere)),
    );
    assert_eq!(
        ask(&grower).unwrap_err(),
        Refusal::NoConsent { service: SERVICE }
    );
}

#[test]
fn the_cell_admits_what_the_device_is_granted_and_nothing_else() {
    let mut grower = consented();
    let id = ask(&grower).unwrap().id();
    let services = [ServiceCode::Backup, ServiceCode::Sync];
    let view = grower.view();
    let check =
        |device, vault, cell| admit(&view, &id, &services, &device, Some(&vault), &cell, NOW);
    assert_eq!(check(LAPTOP, VAULT, cell()), Ok(()));
    let none = Err(Refusal::NoConsent { service: SERVICE });
    assert_eq!(check(PHONE, VAULT, cell()), none);
    assert_eq!(check(LAPTOP, VaultId::from_bytes([1; 16]), cell()), none);
    assert_eq!(check(LAPTOP, VAULT, CellId::from_bytes([1; 16])), none);
    let messages = admit(
        &view,
        &id,
        &[ServiceCode::Messages],
        &LAPTOP,
        Some(&VAULT),
        &cell(),
        NOW,
    );
    assert_eq!(
        messages,
        Err(Refusal::NoConsent {
            service: ServiceCode::Messages
        })
    );
    grower.push(Some(LAPTOP), &laptop(), withdrawal(None));
    let after = admit(
        &grower.view(),
        &id,
        &services,
        &LAPTOP,
        Some(&VAULT),
        &cell(),
        NOW,
    );
    assert_eq!(after, Err(Refusal::Withdrawn { service: SERVICE }));
}

fn token(purpose: Purpose) -> ErrandToken {
    ErrandToken {
        version: ERRAND_VERSION,
        account: Some(ACCOUNT),
        signer: Some(LAPTOP),
        purpose,
        cell: cell(),
        created: NOW,
        expires: NOW.plus_ms(60_000),
        nonce: RequestNonce::from_bytes([1; 16]),
    }
}

#[test]
fn an_errand_opens_only_what_it_is_for() {
    let laptop = laptop();
    let make = |purpose| {
        let signed = SignedErrand::sign(&token(purpose), laptop.ed25519());
        errand(signed, &laptop.ed25519().public(), &cell(), NOW).unwrap()
    };
    for purpose in Purpose::ALL {
        let errand = make(purpose);
        for row in candor_wire::api::ENDPOINTS {
            // By name, so that no endpoint becomes public without somebody writing it here.
            let public = matches!(
                row.id,
                EndpointId::DescribeCell | EndpointId::ReadLog | EndpointId::ReadErasure
            );
            assert_eq!(
                errand.opens(row),
                public || row.errands.contains(&purpose),
                "{purpose:?} {row:?}"
            );
        }
        assert!(
            !errand.opens(endpoint(EndpointId::PutObject)),
            "{purpose:?} must not write"
        );
    }
    let forged = SignedErrand::sign(&token(Purpose::Restore), phone().ed25519());
    let refused = errand(forged, &laptop.ed25519().public(), &cell(), NOW);
    assert_eq!(refused.unwrap_err(), ErrandError::Signature);
}

#[test]
fn an_errand_ends_with_its_time_and_the_clocks_difference() {
    let laptop = laptop();
    let at = |now| {
        let signed = SignedErrand::sign(&token(Purpose::Restore), laptop.ed25519());
        errand(signed, &laptop.ed25519().public(), &cell(), now).map(|errand| errand.purpose())
    };
    let skew_ms = 300_000;
    let expires = token(Purpose::Restore).expires;
    assert_eq!(at(NOW.plus_ms(-skew_ms)), Ok(Purpose::Restore));
    assert_eq!(at(NOW.plus_ms(-skew_ms - 1)), Err(ErrandError::Time));
    assert_eq!(at(expires.plus_ms(skew_ms - 1)), Ok(Purpose::Restore));
    assert_eq!(at(expires.plus_ms(skew_ms)), Err(ErrandError::Time));
}

/// What an authority says of itself: the ledger and the requests are made of it.
#[derive(Debug, PartialEq, Eq)]
struct Says {
    cell: CellId,
    account: Option<AccountId>,
    device: Option<DeviceId>,
    ends_at: Millis,
    header: String,
    name: &'static str,
    reference: Vec<u8>,
    is_grant: bool,
}

fn says(authority: &dyn Authority) -> Says {
    Says {
        cell: authority.cell(),
        account: authority.account(),
        device: authority.device(),
        ends_at: authority.ends_at(),
        header: authority.header(),
        name: authority.name(),
        reference: authority.reference(),
        is_grant: authority.is_grant(),
    }
}

#[test]
fn an_authority_tells_requests_and_ledger_what_it_is() {
    let grower = consented();
    let id = grower.records.last().unwrap().commitment;
    assert_eq!(
        says(&ask(&grower).unwrap()),
        Says {
            cell: cell(),
            account: Some(ACCOUNT),
            device: Some(LAPTOP),
            ends_at: consent_record(LAPTOP).ends_at,
            header: format!("grant {}", to_hex(id.as_bytes())),
            name: "backup",
            reference: id.as_bytes().to_vec(),
            is_grant: true,
        }
    );

    let make = |token: &ErrandToken, key: &SecretKey| {
        let signed = SignedErrand::sign(token, key.ed25519());
        let header = format!("errand {}", signed.to_text());
        let errand = errand(signed, &key.ed25519().public(), &cell(), NOW).unwrap();
        (errand, header)
    };
    let (restore, header) = make(&token(Purpose::Restore), &laptop());
    let expected = Says {
        cell: cell(),
        account: Some(ACCOUNT),
        device: Some(LAPTOP),
        ends_at: NOW.plus_ms(60_000),
        header,
        name: "restore",
        reference: vec![1; 16],
        is_grant: false,
    };
    assert_eq!(says(&restore), expected);

    // Nobody's yet: the phrase alone is there, so neither account nor device.
    let nobodys = ErrandToken {
        account: None,
        signer: None,
        ..token(Purpose::Recover)
    };
    let (recover, header) = make(&nobodys, &root());
    let expected = Says {
        account: None,
        device: None,
        header,
        name: "recover",
        ..expected
    };
    assert_eq!(says(&recover), expected);
}

#[test]
fn a_notice_says_everything_and_its_record_is_sound() {
    let notice = notice(SERVICE).unwrap();
    let cell_keys = cell_keys();
    // A folder whose name looks like a blank stays a name.
    let blanks = NoticeBlanks {
        what: "/home/a/{until}",
        until: "2027-01-02",
    };
    let shown = notice.text(&cell_keys, &blanks);
    for part in [
        "/home/a/{until}",
        "2027-01-02",
        "Example Family",
        "region home",
        "candor consent off backup",
    ] {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
    assert!(!shown.contains("{what}") && !shown.contains("{region}"));
    let proposal = Proposal {
        notice,
        account: ACCOUNT,
        device: LAPTOP,
        vault: Some(VAULT),
        cell: &cell_keys,
        now: NOW,
        ends_at: NOW.plus_ms(365 * DAY_MS),
        shown: &shown,
        collected: Collected::Terminal,
        previous: None,
    };
    let record = propose(&proposal);
    assert_eq!(record.check(), Ok(()));
    assert_eq!(record.event, Event::Given);
    let other = propose(&Proposal {
        shown: "something else",
        ..proposal
    });
    assert_ne!(record.notice_hash, other.notice_hash);
    let offered: Vec<ServiceCode> = ServiceCode::ALL
        .into_iter()
        .filter(|service| candor_consent::notice(*service).is_some())
        .collect();
    assert_eq!(offered, [ServiceCode::Backup, ServiceCode::Sync]);
}

#[test]
fn the_notice_of_synced_folders_says_what_comes_and_goes() {
    let blanks = NoticeBlanks {
        what: "/home/alice/papers",
        until: "2027-01-02",
    };
    let notice = candor_consent::notice(ServiceCode::Sync).unwrap();
    let text = notice.text(&cell_keys(), &blanks);
    for part in [
        "SYNC: ",
        "/home/alice/papers",
        "removals included",
        "candor consent off sync --erase",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains(['{', '}']), "{text}");
    let filled = format!("Example Family, region home, cell {}.\n", cell());
    assert!(text.contains(&filled), "{filled} is not in\n{text}");
}

/// Nobody outside the crate can make, copy or convert an authority.
#[test]
fn authorities_cannot_be_forged() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
