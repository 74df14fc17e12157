//! The same for lists, tables, questions and work: what is made from many things of one kind.

use std::path::{Path, PathBuf};

use candor_client::commands::{
    BackupView, Command, EntryView, Failure, FailureKind, LedgerHourView, LedgerLineView,
    LedgerSummaryView, LedgerVerifiedView, Problem, Progress, ProposalView, SnapshotView,
    VersionView, View,
};
use candor_client::path_text::PathText;
use maud::{Markup, html};

use super::choose::For;
use super::jobs::{Job, Kind, State};
use super::tests::{NOW, lines};
use super::{backups, browse, choose, find, folders, job_shown, ledger, services};

const HOUR_MS: i64 = 60 * 60 * 1000;

/// Ids are long; their beginnings are shown.
const ID: &str = "0123456789abcdef0123456789abcdef";

fn entry(path: &str, kind: &str) -> EntryView {
    EntryView {
        snapshot: ID.to_owned(),
        path: PathText::from_bytes(path.as_bytes()),
        kind: kind.to_owned(),
        bytes: 1536,
        mode: 0o644,
        modified_ns: (NOW - HOUR_MS) * 1_000_000,
        target: (kind == "symlink").then(|| PathText::from_bytes(b"letters/a.txt")),
    }
}

fn line(sequence: u64, protocol: &str) -> LedgerLineView {
    LedgerLineView {
        sequence,
        state: "closed".to_owned(),
        opened_ms: NOW - HOUR_MS,
        closed_ms: NOW,
        protocol: protocol.to_owned(),
        name: "cell.example:7443".to_owned(),
        local: None,
        remote: (protocol == "tcp").then(|| "192.0.2.7:7443".to_owned()),
        service: "backup".to_owned(),
        authority: ID.to_owned(),
        consent_state: "live".to_owned(),
        data_classes: vec!["heads".to_owned(), "objects".to_owned()],
        plain_out: 1024,
        plain_in: 2048,
        cipher_out: (protocol == "tcp").then_some(1100),
        cipher_in: (protocol == "tcp").then_some(2200),
        retransmitted_segments: None,
        alarm: None,
    }
}

#[test]
fn a_snapshot_is_looked_into() {
    let snapshot = SnapshotView {
        snapshot: ID.to_owned(),
        set: "documents".to_owned(),
        time_ms: NOW - 3 * HOUR_MS,
        device: "laptop".to_owned(),
        paths: vec![PathText::from_bytes(b"/home/me/documents")],
        files: 1200,
        bytes: 5 << 20,
    };
    insta::assert_snapshot!("snapshot", lines(&backups::snapshot(&snapshot, NOW)));
    let entries = [
        entry("documents/letters", "folder"),
        entry("documents/a & b.txt", "file"),
        entry("documents/link", "symlink"),
        entry("documents/pipe", "fifo"),
    ];
    insta::assert_snapshot!("entries", lines(&browse::table(&entries, NOW)));
    insta::assert_snapshot!("found", lines(&browse::found(&entries[1..2], true)));
    let folder = PathText::from_bytes(b"documents/caf\xe9");
    let around = html! {
        (browse::crumbs(ID, Some(&folder)))
        (browse::restore_form(ID, Some(&folder), "/home/me/restored"))
        (backups::pager("/backups/browse", &[("snapshot", ID)], 50, 50, true))
    };
    insta::assert_snapshot!("around-entries", lines(&around));
}

#[test]
fn the_ledger_is_shown() {
    let mut alarm = line(9, "");
    alarm.alarm = Some("a head was older than one seen before".to_owned());
    let mut cut = line(8, "tcp");
    cut.state = "interrupted".to_owned();
    let all = [alarm, cut, line(7, "in-process"), line(6, "name-lookup")];
    insta::assert_snapshot!("ledger-lines", lines(&ledger::table(&all, NOW)));
    insta::assert_snapshot!("ledger-nothing", lines(&ledger::table(&[], NOW)));
    let filter = ledger::Filter {
        span: "7d",
        since_ms: Some(NOW),
        service: Some("backup".to_owned()),
        destination: None,
    };
    let summary = LedgerSummaryView {
        since_ms: 0,
        hours: vec![LedgerHourView {
            hour_ms: NOW - HOUR_MS,
            service: "backup".to_owned(),
            destination: "192.0.2.7:7443".to_owned(),
            protocol: "tcp".to_owned(),
            connections: 3,
            interrupted: 0,
            out_bytes: 4096,
            in_bytes: 512,
        }],
        open: 0,
        alarms: 0,
        newest_alarm_ms: None,
    };
    let around = html! {
        (ledger::chart_and_sums(&summary, NOW))
        (ledger::filter_form(&filter, &summary))
        (ledger::turn(&filter, Some(100), Some(50)))
    };
    insta::assert_snapshot!("around-ledger", lines(&around));
    assert_eq!(ledger::turn(&filter, None, None).0, "", "there is one page");
}

#[test]
fn questions_say_what_is_decided() {
    let proposal = ProposalView {
        text: "Backup of documents\n\nWhat   the folder\n       /home/me/documents\nWhere  to Me, region home\n"
            .to_owned(),
        token: ID.to_owned(),
        sets: vec!["documents".to_owned()],
        ends_ms: NOW,
    };
    insta::assert_snapshot!(
        "question-on",
        lines(&services::on_body("backup", &proposal))
    );
    let live = [("notes".to_owned(), "Me, region home".to_owned())];
    insta::assert_snapshot!("question-off", lines(&services::off_body("sync", &live)));
}

#[test]
fn folders_are_chosen() {
    let at = Path::new("/home/me");
    let found = [
        PathBuf::from("/home/me/documents"),
        PathBuf::from("/home/me/<b>"),
    ];
    let shown = html! {
        (choose::chosen(For::Backup, at))
        (choose::inside(For::Backup, at, &found))
        (choose::chosen(For::Folder, Path::new("/")))
        (choose::inside(For::Folder, at, &[]))
    };
    insta::assert_snapshot!("choose", lines(&shown));
}

#[test]
fn versions_are_listed() {
    let version = |kind: &str, current: bool| VersionView {
        version: ID.to_owned(),
        time_ms: NOW - HOUR_MS,
        device: "laptop".to_owned(),
        kind: kind.to_owned(),
        bytes: 77,
        current,
    };
    let path = PathText::from_bytes(b"/home/me/notes/list.txt");
    let shown = |one: &VersionView| folders::version(one, &path, NOW);
    let all: Vec<Markup> = [
        version("file", true),
        version("removed", false),
        version("file", false),
    ]
    .iter()
    .map(shown)
    .collect();
    insta::assert_snapshot!("versions", lines(&html! { @for one in &all { (one) } }));
}

#[test]
fn work_is_shown_from_its_beginning_to_what_it_came_to() {
    let working = State {
        progress: Some(Progress {
            phase: "backup".to_owned(),
            files: 10,
            bytes: 1 << 20,
            bytes_total: Some(4 << 20),
            sent_bytes: 1 << 19,
            ..Progress::default()
        }),
        step: Some("looking for what changed".to_owned()),
        problems: vec![Problem {
            path: PathText::from_bytes(b"/home/me/locked"),
            what: "permission denied".to_owned(),
        }],
        problems_count: 1,
        ..State::default()
    };
    let saved = View::Backups(vec![BackupView {
        set: "documents".to_owned(),
        snapshot: ID.to_owned(),
        files: 10,
        folders: 2,
        bytes: 1 << 20,
        unchanged_files: 9,
        new_bytes: 512,
        stored_bytes: 700,
        duration_ms: 26,
        problems: 0,
    }]);
    let failed = Failure {
        kind: FailureKind::Unreachable,
        sentence: "the cell does not answer".to_owned(),
        hint: Some("look whether it runs: `candor server stats`".to_owned()),
        causes: vec!["connection refused".to_owned()],
    };
    let result = |result| State {
        result: Some(result),
        ..State::default()
    };
    let states = [
        State::default(),
        working,
        result(Ok(saved)),
        result(Err(failed)),
    ];
    let shown: Vec<Markup> = states
        .into_iter()
        .zip(1..)
        .map(|(state, number)| job_shown(&Job::standing(number, "Backing up documents", state)))
        .collect();
    insta::assert_snapshot!("jobs", lines(&html! { @for one in &shown { (one) } }));
}

#[test]
fn a_search_says_how_far_it_is_and_what_it_came_to() {
    let failed = |kind| Failure {
        kind,
        sentence: "the cell does not answer".to_owned(),
        hint: None,
        causes: Vec::new(),
    };
    let some = || vec![entry("documents/letters/a.txt", "file")];
    let at_work = State {
        progress: Some(Progress {
            phase: "find".to_owned(),
            files: 12_288,
            ..Progress::default()
        }),
        entries: some(),
        ..State::default()
    };
    let result = |result, entries, has_more| State {
        result: Some(result),
        entries,
        has_more,
        ..State::default()
    };
    let states = [
        ("begun", State::default()),
        ("at work", at_work),
        ("nothing", result(Ok(View::Done), Vec::new(), false)),
        ("all", result(Ok(View::Done), some(), false)),
        (
            "more",
            result(Err(failed(FailureKind::Interrupted)), some(), true),
        ),
        (
            "stopped",
            result(Err(failed(FailureKind::Interrupted)), some(), false),
        ),
        (
            "failed",
            result(Err(failed(FailureKind::Unreachable)), some(), false),
        ),
    ];
    let shown = states.iter().zip(1..).map(|((name, state), number)| {
        let search = Command::BackupFind {
            glob: "*.txt".to_owned(),
        };
        let job = Job::standing(number, "Looking for *.txt", State::default());
        let job = job.doing(Kind::Find, search);
        (name, find::shown(&job, state))
    });
    let shown: Vec<_> = shown.collect();
    insta::assert_snapshot!(
        "search",
        lines(&html! { @for (name, one) in &shown { h2 { (name) } (one) } })
    );
}

#[test]
fn the_verified_ledger_says_its_hash() {
    let verified = View::LedgerVerified(LedgerVerifiedView {
        lines: 1_204,
        head: ID.to_owned(),
    });
    let state = State {
        result: Some(Ok(verified)),
        ..State::default()
    };
    let shown = job_shown(&Job::standing(1, "Verifying the ledger", state));
    insta::assert_snapshot!("verified", lines(&shown));
}
