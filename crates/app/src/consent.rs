//! `candor consent …`, and the question itself, which `candor up` asks too.

use candor_client::commands::{Answered, Command, ProposalView, View};

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
        ConsentCommand::Off { erase: true, .. } => Err(Failure::usage(
            "erasing is not available in this version; nothing was changed",
        )
        .hint("without --erase, consent is withdrawn and what was stored stays")),
        ConsentCommand::Off { service, name, .. } => {
            with_door(app, |door| off(app, door, service, name))
        }
    }
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
            "{} is on. Next: candor backup run --all. Stop it: candor consent off {}",
            service.name(),
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

fn off(app: &App, door: &mut Door, service: Service, name: Option<String>) -> Outcome {
    let what = name.as_deref().map_or_else(
        || service.name().to_owned(),
        |set| format!("{} of {}", service.name(), text::shown(set)),
    );
    execute(
        app,
        door,
        Command::ConsentOff {
            service: service.name().to_owned(),
            set: name,
        },
    )?;
    app.ui.note(&format!(
        "{what} is off. What was stored stays at the cell; nothing more is sent."
    ));
    let consents = view!(execute(app, door, Command::ConsentList)?, Consents)?;
    object(&app.ui, "consents", &consents)
}
