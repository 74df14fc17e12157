//! What each part of a page says for given answers of the engine. The texts are kept beside this file, so that a change
//! of a single word is seen.

use candor_client::commands::{
    AccountView, ConflictView, ConsentView, DeviceView, ErasureView, FolderView, LedgerHourView,
    LedgerSummaryView, LinkAskView, LinkCodeView, LogView, ServiceView, SetView, StatusView,
};
use candor_client::path_text::PathText;
use maud::Markup;

use super::{backups, consent, devices, folders, home, log, settings, welcome};

/// Noon of a day, so that the days of a chart do not depend on when the tests run.
pub(super) const NOW: i64 = 1_767_268_800_000;
const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A line for each element.
pub(super) fn lines(markup: &Markup) -> String {
    markup.0.replace("><", ">\n<")
}

fn path(text: &str) -> PathText {
    PathText {
        text: text.to_owned(),
        raw: None,
    }
}

fn set(name: &str) -> SetView {
    SetView {
        name: name.to_owned(),
        vault: None,
        paths: vec![path(&format!("/home/zoe/{name}"))],
        excludes: Vec::new(),
        consent: "on".to_owned(),
        last_backup_ms: Some(NOW - 3 * HOUR_MS),
        last_problems: 0,
        last_drill_ms: Some(NOW - 2 * DAY_MS),
        overdue: false,
        running: false,
        interrupted: false,
    }
}

fn sets() -> Vec<SetView> {
    vec![
        set("documents"),
        SetView {
            overdue: true,
            last_problems: 2,
            excludes: vec!["*.tmp".to_owned()],
            ..set("pictures")
        },
        SetView {
            consent: "off".to_owned(),
            last_backup_ms: None,
            last_drill_ms: None,
            ..set("<b>music</b>")
        },
        SetView {
            running: true,
            ..set("films")
        },
    ]
}

fn folder(name: &str) -> FolderView {
    FolderView {
        name: name.to_owned(),
        path: path(&format!("/home/zoe/{name}")),
        vault: None,
        excludes: Vec::new(),
        consent: "on".to_owned(),
        paused: false,
        syncing: false,
        last_sync_ms: Some(NOW - HOUR_MS),
        last_problems: 0,
        files: 1200,
        folders: 1,
        conflicts: 0,
    }
}

fn account() -> AccountView {
    AccountView {
        name: "me".to_owned(),
        account: "a".repeat(32),
        device: "d".repeat(32),
        device_name: "laptop".to_owned(),
        role: "full".to_owned(),
        cell: "c".repeat(64),
        cell_addresses: vec!["192.0.2.7:7443".to_owned()],
        controller: "Example Ltd".to_owned(),
        region: "eu-west".to_owned(),
        root_fingerprint: "01234567 89abcdef".to_owned(),
        phrase_confirmed: false,
        keys_protected_by: "passphrase".to_owned(),
        cell_on_same_disk: true,
    }
}

fn log_view() -> LogView {
    LogView {
        origin: "cell.example/log".to_owned(),
        size: 12_345,
        root: "AAAA".to_owned(),
        standing: "unwitnessed".to_owned(),
        sentence: "no policy on this device asks for witnesses".to_owned(),
        has_quorum: false,
        witnesses: Vec::new(),
        witnessed_ms: None,
        checked_ms: Some(NOW - HOUR_MS),
        findings: Vec::new(),
        evidence_files: 0,
    }
}

fn status() -> StatusView {
    let service = |name: &str, on| ServiceView {
        name: name.to_owned(),
        on,
        ends_ms: None,
    };
    StatusView {
        account: Some(account()),
        services: vec![service("backup", true), service("sync", false)],
        sets: sets(),
        folders: vec![
            folder("shared"),
            FolderView {
                paused: true,
                ..folder("work")
            },
        ],
        erasures: Vec::new(),
        warnings: vec!["documents is overdue: `candor backup run`".to_owned()],
        witnessed: false,
        log: Some(Box::new(log_view())),
    }
}

fn nothing() -> StatusView {
    StatusView {
        account: None,
        sets: Vec::new(),
        folders: Vec::new(),
        warnings: Vec::new(),
        log: None,
        ..status()
    }
}

fn given(state: &str) -> ConsentView {
    ConsentView {
        id: "e".repeat(64),
        service: "backup".to_owned(),
        set: Some("documents".to_owned()),
        vault: Some("f".repeat(32)),
        device: "d".repeat(32),
        state: state.to_owned(),
        given_ms: NOW - 30 * DAY_MS,
        ends_ms: NOW + 335 * DAY_MS,
        withdrawn_ms: (state == "withdrawn").then_some(NOW - DAY_MS),
        controller: "Example Ltd".to_owned(),
        region: "eu-west".to_owned(),
        how_to_withdraw: "candor consent off backup".to_owned(),
    }
}

fn hour(ago: i64, service: &str, protocol: &str, out_bytes: u64) -> LedgerHourView {
    LedgerHourView {
        hour_ms: NOW - ago,
        service: service.to_owned(),
        destination: "192.0.2.7:7443".to_owned(),
        protocol: protocol.to_owned(),
        connections: 1,
        interrupted: 0,
        out_bytes,
        in_bytes: 10,
    }
}

#[test]
fn home_answers_what_is_safe() {
    insta::assert_snapshot!("safe", lines(&home::safe(&status(), NOW)));
    insta::assert_snapshot!("safe-nothing", lines(&home::safe(&nothing(), NOW)));
}

#[test]
fn home_answers_what_is_on() {
    let consents = [given("live"), given("withdrawn")];
    insta::assert_snapshot!(
        "services",
        lines(&home::services(&status(), &consents, NOW))
    );
}

#[test]
fn home_answers_what_left() {
    let summary = LedgerSummaryView {
        since_ms: NOW - 31 * DAY_MS,
        hours: vec![
            hour(3 * DAY_MS, "backup", "tcp", 5000),
            hour(2 * HOUR_MS, "backup", "tcp", 3000),
            hour(HOUR_MS, "backup", "tcp", 96),
            hour(HOUR_MS, "verify", "in-process", 1),
        ],
        open: 0,
        alarms: 1,
        newest_alarm_ms: Some(NOW),
    };
    insta::assert_snapshot!("left", lines(&home::left(&summary, NOW)));
    // Where something is not known, nothing is claimed.
    let mut cut = LedgerSummaryView {
        hours: vec![hour(HOUR_MS, "backup", "tcp", 0)],
        open: 2,
        ..summary.clone()
    };
    cut.hours[0].interrupted = 1;
    let shown = home::left(&cut, NOW).into_string();
    assert!(
        shown.contains("<strong>At least 0 B</strong> left this device today."),
        "{shown}"
    );
    assert!(
        shown.contains("2 connections are open, and counted so far."),
        "{shown}"
    );
    // The day begins at midnight, and only what left on it is counted.
    let days = home::days(&summary, NOW, |_| true);
    let (today, three_ago) = (&days[days.len() - 1], &days[days.len() - 4]);
    assert_eq!((today.1, three_ago.1), (3097, 5000));
    let left = home::days(&summary, NOW, crate::today::leaves);
    assert_eq!(left[left.len() - 1].1, 3096, "without what stayed inside");
}

#[test]
fn the_sets_say_how_they_stand() {
    insta::assert_snapshot!("sets", lines(&backups::sets(&status(), NOW)));
    insta::assert_snapshot!("sets-nothing", lines(&backups::sets(&nothing(), NOW)));
}

#[test]
fn the_folders_say_how_they_stand() {
    let twice = [ConflictView {
        folder: "shared".to_owned(),
        path: path("/home/zoe/shared/a (laptop).txt"),
    }];
    insta::assert_snapshot!("folders", lines(&folders::list(&status(), &twice, NOW)));
}

#[test]
fn consents_and_erasures_are_told() {
    let all = ["live", "withdrawn", "ended", "waiting"].map(given);
    insta::assert_snapshot!("consents", lines(&consent::history(&all, NOW)));
    let erasure = |state: &str, vault: Option<&str>| ErasureView {
        id: "0".repeat(64),
        vault: vault.map(str::to_owned),
        set: vault.map(|_| "documents".to_owned()),
        service: "backup".to_owned(),
        device: None,
        this_device: vault.is_some(),
        state: state.to_owned(),
        asked_ms: NOW - DAY_MS,
        due_ms: match state {
            "waiting" => None,
            "due" => Some(NOW - DAY_MS),
            _ => Some(NOW + 6 * DAY_MS),
        },
    };
    let gone = ErasureView {
        set: None,
        ..erasure("asked", Some("2"))
    };
    let all = [
        gone,
        erasure("asked", Some("1")),
        erasure("due", Some("1")),
        erasure("cancelled", Some("1")),
        erasure("waiting", None),
    ];
    insta::assert_snapshot!("erasures", lines(&consent::erasures(&all, NOW)));
}

#[test]
fn devices_are_told() {
    let device = |name: Option<&str>, this_device, revoked_ms| DeviceView {
        device: "d".repeat(32),
        name: name.map(str::to_owned),
        role: if this_device { "full" } else { "write-only" }.to_owned(),
        added_ms: NOW - DAY_MS,
        revoked_ms,
        this_device,
    };
    let all = [
        device(Some("laptop"), true, None),
        device(None, false, None),
        device(Some("old"), false, Some(NOW - HOUR_MS)),
    ];
    insta::assert_snapshot!("devices", lines(&devices::devices_list(&all, NOW)));
    let ask = LinkAskView {
        name: "<i>phone</i>".to_owned(),
        digits: "123456".to_owned(),
        role: "full".to_owned(),
    };
    insta::assert_snapshot!("digits", lines(&devices::digits_shown(&ask)));
}

#[test]
fn a_code_is_there_as_text_and_as_a_picture() {
    let code = LinkCodeView {
        code: "candor-link1:abc".to_owned(),
        expires_ms: NOW + 10 * 60 * 1000,
    };
    let shown = devices::code_shown(&code, NOW).into_string();
    assert!(
        shown.contains("<p class=\"code\" tabindex=\"0\">candor-link1:abc</p>"),
        "{shown}"
    );
    assert!(
        shown.contains("<svg class=\"qr\" role=\"img\"") && shown.contains("d=\"M0 0h7v1h-7z"),
        "{shown}"
    );
    assert!(shown.len() < 12_000, "a page stays small");
    // Colours are attributes: a style would be against the policy.
    assert!(!shown.contains("style="), "{shown}");
}

#[test]
fn the_log_is_told() {
    insta::assert_snapshot!("log", lines(&log::state(&status(), NOW)));
    let mut alarmed = status();
    alarmed.log = Some(Box::new(LogView {
        standing: "stale".to_owned(),
        findings: vec!["the log shrank".to_owned()],
        evidence_files: 2,
        witnesses: vec!["w1.example".to_owned()],
        witnessed_ms: Some(NOW - 40 * DAY_MS),
        ..log_view()
    }));
    insta::assert_snapshot!("log-alarmed", lines(&log::state(&alarmed, NOW)));
    insta::assert_snapshot!("log-nothing", lines(&log::state(&nothing(), NOW)));
}

#[test]
fn the_account_is_told() {
    insta::assert_snapshot!("account", lines(&settings::account_facts(&account())));
}

#[test]
fn the_first_run_leads_by_the_hand() {
    insta::assert_snapshot!("welcome", lines(&welcome::begin_sheet(None).body));
    insta::assert_snapshot!("welcome-words", lines(&welcome::words_body(&[3, 7, 24])));
}
