//! Settings: the account and this device, the recovery phrase, taking everything along, and ending.

use candor_client::commands::{AccountView, Command, StatusView};
use candor_client::{RecoveryPhrase, status::fingerprint_text};
use maud::{Markup, html};

use super::jobs::Kind;
use super::off_the_thread;
use super::parts::{self, Look, Tone, card, name};
use super::request::{Answer, Asked, Reply, expect_view, usage};
use super::services::{answers, question};
use super::shell::{Place, Sheet};
use crate::text;

/// The page.
pub(super) async fn page(asked: &Asked) -> Answer {
    let status = expect_view!(asked.run(Command::Status).await?, Status)?;
    let place = asked.shared.export_place();
    let browsers = asked.shared.entry.count();
    let body = html! {
        @if let Some(account) = &status.account {
            (card("account", "Your account", account_facts(account)))
            (card("phrase", "Recovery phrase", phrase(account)))
        }
        (card("export", "Take everything along", export_form(&place)))
        (card("browsers", "Browsers", browsers_form(browsers)))
        (card("end", "End", end(&status)))
    };
    Ok(Reply::Sheet(Sheet::new("Settings", Place::Settings, body)))
}

pub(super) fn account_facts(account: &AccountView) -> Markup {
    let addresses = if account.cell_addresses.is_empty() {
        "in this program alone".to_owned()
    } else {
        text::shown(&account.cell_addresses.join(", "))
    };
    let keys = if account.keys_protected_by == "passphrase" {
        "encrypted under your passphrase"
    } else {
        "not encrypted: whoever reads your files may use them"
    };
    html! {
        (parts::facts(&[
            ("Called", name(&account.name)),
            ("This device", name(&account.device_name)),
            ("Run by", name(&account.controller)),
            ("Region", name(&account.region)),
            ("Keys on this device", html! { (keys) }),
        ]))
        (parts::deeper("Exact terms", parts::facts(&[
            ("Account", html! { code.path { (account.account) } }),
            ("Root key", html! { code.path { (account.root_fingerprint) } }),
            ("Device", html! { code.path { (account.device) } }),
            ("Role", html! { (account.role) }),
            ("Cell", html! { code.path { (account.cell) } }),
            ("Cell's addresses", html! { code.path { (addresses) } }),
        ])))
    }
}

fn phrase(account: &AccountView) -> Markup {
    if account.phrase_confirmed {
        return html! { p { (parts::badge(Tone::Good, "confirmed")) " You have the 24 words. Keep them, with the cell's invitation, where this device is not." } };
    }
    html! {
        p { "If this device is lost, its 24 words are the only way back to your data. Type them once, so that it is certain that you have them." }
        form.stack method="post" action="/settings/phrase" {
            div.field {
                label for="phrase-words" { "The 24 words, in their order" }
                textarea #phrase-words name="words" rows="4" required autocomplete="off" autocapitalize="none" spellcheck="false" {}
                p.hint { "They stay on this device, and are not kept." }
            }
            div.buttons { button.button.main type="submit" { "Confirm" } }
        }
    }
}

/// Confirms the phrase, if it is this account's.
pub(super) async fn confirm(asked: &Asked) -> Answer {
    let words = asked.form.secret("words");
    let account = expect_view!(asked.run(Command::AccountShow).await?, Account)?;
    let phrase = tokio::task::spawn_blocking(move || {
        RecoveryPhrase::from_text(&words).map(|phrase| fingerprint_text(&phrase.root().public()))
    });
    let fingerprint = phrase.await.map_err(|error| {
        crate::failure::Failure::because("the phrase could not be read", &error)
    })?;
    let fingerprint = fingerprint.map_err(|error| usage(error.to_string()))?;
    if fingerprint != account.root_fingerprint {
        return Err(usage(
            "these are 24 good words, but of another account".to_owned(),
        ));
    }
    asked.run(Command::PhraseConfirmed).await?;
    asked.told(
        "/settings",
        parts::notice(
            Tone::Good,
            html! { p { strong { "The recovery phrase is confirmed." } } },
        ),
    )
}

fn export_form(place: &str) -> Markup {
    html! {
        p { "Writes everything of your account into a folder, as plain files in open formats that need no candor to be read: your files, consents with receipts, the account's signed history, the ledger." }
        form.stack method="post" action="/settings/export" {
            div.field {
                label for="export-to" { "Folder" }
                input #export-to name="to" required value=(place) autocomplete="off";
                p.hint { strong { "Nothing in the copy is encrypted." } " An export that was interrupted goes on in the same folder." }
            }
            label.check { input type="checkbox" name="every" value="yes"; " every snapshot, instead of each set's newest" }
            div.buttons { button.button type="submit" { "Export" } }
        }
    }
}

/// Begins an export.
pub(super) fn export(asked: &Asked) -> Answer {
    let to = asked.form.absolute("to")?;
    let title = format!("Exporting to {}", text::shown(&to.text));
    let command = Command::Export {
        to,
        every_snapshot: asked.form.get("every") == Some("yes"),
    };
    asked.begin(Kind::Export, title, command, "/settings")
}

fn browsers_form(count: usize) -> Markup {
    html! {
        p { (text::counted(count as u64, "browser is", "browsers are")) " let in, this one included." }
        div.buttons {
            (parts::action("/settings/leave", "Let this browser out", Look::Quiet, &[]))
            @if count > 1 { (parts::action("/settings/leave", "Let all others out", Look::Quiet, &[("others", "yes")])) }
        }
    }
}

/// Lets this browser out, or all others.
pub(super) async fn leave(asked: &Asked) -> Answer {
    let others = asked.form.get("others") == Some("yes");
    let key = asked.browser.0.clone();
    off_the_thread(&asked.shared, move |shared| {
        shared.entry.leave(&key, others)
    })
    .await??;
    if others {
        return asked.told(
            "/settings",
            parts::notice(
                Tone::Good,
                html! { p { "All other browsers are let out." } },
            ),
        );
    }
    Ok(Reply::SeeOther("/".to_owned()))
}

fn end(status: &StatusView) -> Markup {
    let leaves = status
        .erasures
        .iter()
        .any(|one| one.vault.is_none() && is_open(&one.state));
    html! {
        div.buttons {
            (parts::dialog_link("/settings/stop", "Stop candor on this device", Look::Quiet.class()))
            @if leaves { (parts::action("/settings/keep", "Keep my account after all", Look::Main, &[])) }
            @else { (parts::dialog_link("/settings/delete", "Delete my account", Look::Danger.class())) }
        }
    }
}

/// Whether an erasure can still be taken back.
pub(super) fn is_open(state: &str) -> bool {
    matches!(state, "asked" | "waiting")
}

/// Asks whether to stop the program.
pub(super) fn ask_stop(asked: &Asked) -> Answer {
    let body = html! {
        p { "Nothing is backed up and no folder is kept in step until " code { "candor up" } " runs again. Nothing is lost." }
        form method="post" action="/settings/stop" { (answers("/settings", "Stop it", Look::Main)) }
    };
    Ok(question(asked, "Stop candor?", Place::Settings, &body))
}

/// Stops the program, once this was answered.
pub(super) fn stop(asked: &Asked) -> Answer {
    asked.shared.stop.stop();
    let body = parts::notice(
        Tone::Good,
        html! { p { strong { "Candor ends on this device." } " Run " code { "candor up" } " to start it again." } },
    );
    Ok(Reply::Sheet(Sheet::new("Stopped", Place::Settings, body)))
}

/// Asks whether to delete the account.
pub(super) fn ask_delete(asked: &Asked) -> Answer {
    let body = html! {
        p { "This erases everything of your account at its cell: all backups of all your devices, all consents, all keys. All services are off from now on." }
        p { "It takes effect after a week at the latest; until then you can take it back on any of your full devices. Then nobody can bring it back, not with the recovery phrase either. What is on your devices stays there." }
        form method="post" action="/settings/delete" { (answers("/settings", "Delete my account", Look::Danger)) }
    };
    Ok(question(
        asked,
        "Delete your account?",
        Place::Settings,
        &body,
    ))
}

/// Asks the cell for the account to be erased; or takes that back.
pub(super) async fn delete(asked: &Asked, cancel: bool) -> Answer {
    let erasures = expect_view!(
        asked.run(Command::AccountDelete { cancel }).await?,
        Erasures
    )?;
    let now = asked.shared.now();
    let words = if cancel {
        html! { p { strong { "The account stays." } " Services are off until you switch them on again." } }
    } else {
        let whole = erasures.iter().rfind(|one| one.vault.is_none());
        let due = whole.and_then(|one| one.due_ms);
        html! { p { strong { "Your account is erased " (parts::when_or(due, now, "once the cell has confirmed it")) "." } " Until then you can keep it, under Settings." } }
    };
    asked.told("/settings", parts::notice(Tone::Good, words))
}
