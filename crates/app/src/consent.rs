//! `candor consent …`, and the question itself, which `candor up` asks too.

use candor_client::commands::{Answered, Command, ErasureView, ProposalView, Stored, View};

use crate::App;
use crate::args::{ConsentCommand, Service};
use crate::door::Door;
use crate::failure::{Failure, Kind, Outcome};
use crate::progress::{execute, object, view};
use crate::text;
use crate::{device, receipt, terminal, views};

/// What a person answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There was nothing to ask: everything has a live consent.
    Nothing,
    /// Yes.
    Yes,
    /// No, or no answer.
    No,
}

/// Runs a `consent` command.
pub(crate) fn run(app: &App, command: ConsentCommand) -> Outcome {
    match command {
        ConsentCommand::List => {
            if !device::has_account(app)? {
                return show_list(app, &View::Consents(Vec::new()));
            }
            with_door(app, |door| {
                show_list(app, &execute(app, door, Command::ConsentList)?)
            })
        }
        ConsentCommand::History => with_door(app, |door| {
            show_list(app, &execute(app, door, Command::ConsentHistory)?)
        }),
        ConsentCommand::Receipt(args) => receipt::make(app, args),
        ConsentCommand::Verify { file, policy } => receipt::verify(app, &file, policy.as_deref()),
        ConsentCommand::Show { service } => with_door(app, |door| show(app, door, service)),
        ConsentCommand::On { service, yes } => with_door(app, |door| on(app, door, service, yes)),
        ConsentCommand::Off {
            service,
            name,
            keep,
            erase,
        } => {
            let stored = match (keep, erase) {
                (_, true) => Stored::Erased,
                (true, false) => Stored::Kept,
                (false, false) => Stored::Stays,
            };
            with_door(app, |door| off(app, door, service, name, stored))
        }
        ConsentCommand::Keep { erasure } => with_door(app, |door| keep(app, door, erasure)),
    }
}

fn keep(app: &App, door: &mut Door, erasure: String) -> Outcome {
    let erasures = view!(
        execute(app, door, Command::ErasureKeep { erasure })?,
        Erasures
    )?;
    app.ui
        .note("It stays at the cell: it is not erased. What is switched off stays off.");
    object(&app.ui, "erasures", &erasures)
}

fn with_door(app: &App, work: impl FnOnce(&mut Door) -> Outcome) -> Outcome {
    let mut door = Door::open(app)?;
    let result = work(&mut door);
    door.close(app);
    result
}

fn show_list(app: &App, view: &View) -> Outcome {
    let View::Consents(consents) = view else {
        return Err(crate::progress::unexpected());
    };
    object(&app.ui, "consents", consents)?;
    app.ui.data(&views::consents(consents).join("\n"))
}

fn propose(app: &App, door: &mut Door, service: &str, sets: &[String]) -> Outcome<ProposalView> {
    let command = Command::ConsentPropose {
        service: service.to_owned(),
        sets: sets.to_vec(),
    };
    view!(execute(app, door, command)?, Proposal)
}

fn show(app: &App, door: &mut Door, service: Service) -> Outcome {
    let proposal = propose(app, door, service.name(), &[])?;
    let consents = view!(execute(app, door, Command::ConsentList)?, Consents)?;
    let live: Vec<_> = consents
        .into_iter()
        .filter(|one| one.service == service.name() && one.state == "live")
        .collect();
    app.ui.object(
        "show",
        serde_json::json!({ "proposal": proposal, "live": live }),
    )?;
    if !proposal.text.is_empty() {
        app.ui.data(&notice(&proposal))?;
    }
    app.ui.data(&if live.is_empty() {
        format!("{} is off", service.name())
    } else {
        views::consents(&live).join("\n")
    })
}

/// The notice as it is shown: whole, and unable to move the cursor.
fn notice(proposal: &ProposalView) -> String {
    let lines: Vec<String> = proposal.text.trim_end().lines().map(text::shown).collect();
    lines.join("\n")
}

fn on(app: &App, door: &mut Door, service: Service, yes: bool) -> Outcome {
    match ask(app, door, service.name(), &[], yes)? {
        Answer::Nothing => {
            app.ui.note(&format!(
                "{} is on already; `candor consent show {}` shows it",
                service.name(),
                service.name()
            ));
        }
        Answer::Yes => app.ui.note(&format!(
            "{} is on. Next: {}. Stop it: candor consent off {}",
            service.name(),
            if service == Service::Sync {
                "candor sync run"
            } else {
                "candor backup run --all"
            },
            service.name()
        )),
        Answer::No => return Err(refused(service.name())),
    }
    let consents = view!(execute(app, door, Command::ConsentList)?, Consents)?;
    object(&app.ui, "consents", &consents)
}

/// The failure of somebody who said no, or could not be asked.
pub(crate) fn refused(service: &str) -> Failure {
    Failure::new(
        Kind::NoConsent,
        "you did not say yes, so none of your files was sent",
    )
    .hint(format!("`candor consent on {service}` asks again"))
}

/// Shows what would be agreed to, whole, and asks. *No* is the default, and `yes` shows the same text.
pub(crate) fn ask(
    app: &App,
    door: &mut Door,
    service: &str,
    sets: &[String],
    yes: bool,
) -> Outcome<Answer> {
    let proposal = propose(app, door, service, sets)?;
    if proposal.sets.is_empty() {
        return Ok(Answer::Nothing);
    }
    app.ui.note(&format!("\n{}\n", notice(&proposal)));
    let answered = if yes {
        app.ui.note("Answered with --yes.");
        Answered::Flag
    } else if !app.ui.can_ask() {
        let sentence = "there is no terminal to ask for consent, so nothing was sent";
        return Err(Failure::new(Kind::NoConsent, sentence).hint(format!(
            "candor consent on {service}; in a script, --yes says yes to the text above"
        )));
    } else if terminal::ask_yes(&app.ui, "Do you agree?")? {
        Answered::Terminal
    } else {
        return Ok(Answer::No);
    };
    let give = Command::ConsentGive {
        service: service.to_owned(),
        sets: proposal.sets,
        token: proposal.token,
        answered,
    };
    execute(app, door, give)?;
    Ok(Answer::Yes)
}

fn off(
    app: &App,
    door: &mut Door,
    service: Service,
    name: Option<String>,
    stored: Stored,
) -> Outcome {
    let what = name.as_deref().map_or_else(
        || service.name().to_owned(),
        |set| format!("{} of {}", service.name(), text::shown(set)),
    );
    let is_all = name.is_none();
    let command = Command::ConsentOff {
        service: service.name().to_owned(),
        set: name,
        stored,
    };
    let erasures = view!(execute(app, door, command)?, Erasures)?;
    app.ui
        .note(&format!("{what} is off; nothing more is sent."));
    if is_all {
        app.ui
            .note("That holds for all devices of this account, as soon as they hear of it.");
    }
    match stored {
        Stored::Stays => app.ui.note("What was stored stays at the cell."),
        Stored::Kept => app.ui.note(
            "What was stored stays at the cell, and nothing of it is erased that was not erased already.",
        ),
        Stored::Erased => erasing(app, &erasures),
    }
    if app.ui.json() {
        let consents = view!(execute(app, door, Command::ConsentList)?, Consents)?;
        let both = serde_json::json!({ "consents": consents, "erasures": erasures });
        return app.ui.object("off", both);
    }
    Ok(())
}

/// What was asked to be erased, when it is, and what to do until then and after.
fn erasing(app: &App, erasures: &[ErasureView]) {
    let standing = erasures.iter().filter(|one| one.state != "cancelled");
    let lines: Vec<String> = standing.flat_map(views::erasure).collect();
    if lines.is_empty() {
        app.ui
            .note("Nothing was stored, so there is nothing to erase.");
    }
    for line in lines {
        app.ui.note(&line);
    }
}

/// `candor account delete`.
pub(crate) fn delete_account(app: &App, yes: bool, cancel: bool) -> Outcome {
    with_door(app, |door| {
        if !cancel {
            app.ui.note(DELETION);
            if !yes && !app.ui.can_ask() {
                let sentence = "there is no terminal to ask whether to delete the account";
                return Err(Failure::usage(sentence).hint("in a script, --yes deletes it"));
            }
            if !yes && !terminal::ask_yes(&app.ui, "Delete the account?")? {
                app.ui.note("Nothing was changed.");
                return Ok(());
            }
        }
        let command = Command::AccountDelete { cancel };
        let erasures = view!(execute(app, door, command)?, Erasures)?;
        app.ui.object(
            "account-delete",
            serde_json::json!({ "erasures": erasures }),
        )?;
        let of_account = erasures.iter().rfind(|one| one.vault.is_none());
        if cancel {
            app.ui.note(
                "The account stays. Services are off until you switch them on again: candor consent on backup",
            );
        } else if let Some(one) = of_account {
            for line in views::erasure(one) {
                app.ui.note(&line);
            }
        }
        Ok(())
    })
}

/// What is said before an account is deleted.
const DELETION: &str = "
This erases everything of your account at its cell: all backups of all your devices, all consents, all
keys. It takes effect after a week at the latest; until then you can take it back on any of your full
devices. Then nobody can bring it back, not with the recovery phrase either. What is on your devices
stays there. All services are off from now on.
";
