//! `candor account …` and `candor device …`, and what `candor up` shares with them: making an account
//! with a recovery phrase that the person has before any cell knows of it.

use std::io;
use std::path::{Path, PathBuf};

use candor_client::commands::{Command, Failure as EngineFailure};
use candor_client::{Engine, Entropy as _, KeyProtection, RecoveryPhrase, SystemEntropy, engine};
use candor_server::Cell;
use candor_wire::cell::Invitation;
use std::sync::Arc;
use zeroize::Zeroizing;

use crate::App;
use crate::args::{AccountCommand, AccountCreate, AccountRecover, Role};
use crate::device::{self, Enrol, LockOr, Opened, Seen};
use crate::door::{self, Door};
use crate::failure::{Doing as _, Failure, Kind, Outcome};
use crate::progress::{execute, object, view};
use crate::{home, terminal, views};

/// Words of a new phrase that are asked back.
const WORDS_ASKED_BACK: usize = 3;

/// Words that stand on one line when a phrase is shown.
const WORDS_PER_LINE: usize = 4;

/// Largest file with an invitation.
const INVITATION_FILE_MAX_BYTES: u64 = 16 << 10;

/// Largest file with a recovery phrase.
const PHRASE_FILE_MAX_BYTES: u64 = 4096;

/// Runs an `account` command.
pub(crate) fn run(app: &App, command: AccountCommand) -> Outcome {
    match command {
        AccountCommand::Create(args) => create(app, &args),
        AccountCommand::Recover(args) => recover(app, &args),
        AccountCommand::Show => {
            let mut door = Door::open(app)?;
            let result = show(app, &mut door);
            door.close(app);
            result
        }
        AccountCommand::Delete { yes, cancel } => crate::consent::delete_account(app, yes, cancel),
        AccountCommand::ReAnchor { yes } => crate::re_anchor::run(app, yes),
        AccountCommand::Confirm { recovery_file } => {
            let phrase = known_phrase(app, recovery_file.as_deref())?;
            let mut door = Door::open(app)?;
            let result = confirm_known(app, &mut door, &phrase);
            door.close(app);
            result
        }
    }
}

/// Confirms a phrase that is this account's: its root key is the one on the chain.
fn confirm_known(app: &App, door: &mut Door, phrase: &RecoveryPhrase) -> Outcome {
    let account = view!(execute(app, door, Command::AccountShow)?, Account)?;
    let fingerprint = candor_client::status::fingerprint_text(&phrase.root().public());
    if account.root_fingerprint != fingerprint {
        return Err(Failure::new(
            Kind::Failed,
            "these are 24 good words, but of another account",
        )
        .hint("`candor account show` tells which account this is"));
    }
    execute(app, door, Command::PhraseConfirmed)?;
    app.ui.note("The recovery phrase is confirmed.");
    Ok(())
}

fn show(app: &App, door: &mut Door) -> Outcome {
    let account = view!(execute(app, door, Command::AccountShow)?, Account)?;
    object(&app.ui, "account", &account)?;
    app.ui.data(&views::account(&account).join("\n"))
}

/// What a new account's recovery phrase is kept by, once the person has it.
pub(crate) enum PhraseTo {
    /// A new file.
    File(PathBuf),
    /// Paper: it is shown, and some words are asked back.
    Terminal,
    /// The person has it already: this one, from the pages, where some words were asked back.
    Person(Arc<RecoveryPhrase>),
}

impl PhraseTo {
    /// Decides, before anything is made. `yes` means that nobody sits at the terminal.
    pub(crate) fn decide(app: &App, file: Option<&Path>, yes: bool) -> Outcome<Self> {
        match file {
            Some(path) => match path.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::File(path.to_owned())),
                Err(error) => Err(Failure::because(format!("cannot use {}", path.display()), &error).kind(Kind::Usage)),
                Ok(_) => Err(Failure::usage(format!("{} is there already", path.display()))
                    .hint("name a file that does not exist: a recovery phrase never replaces anything")),
            },
            None if app.ui.can_ask() && !yes => Ok(Self::Terminal),
            None => Err(Failure::usage("nothing says where the recovery phrase of the new account shall go")
                .hint("give --recovery-file FILE (a new file), or run it on a terminal without --yes")),
        }
    }

    /// Gives the phrase to the person. True if they proved that they have it.
    fn keep(&self, app: &App, phrase: &RecoveryPhrase) -> Outcome<bool> {
        match self {
            Self::File(path) => {
                let mut text = phrase.text();
                text.push('\n');
                home::write_new_private(path, text.as_bytes())
                    .doing(|| format!("write {}", path.display()))?;
                app.ui.note(&format!(
                    "The recovery phrase is in {}. Take it off this machine: it opens everything.",
                    path.display()
                ));
                Ok(false)
            }
            Self::Terminal => show_phrase(app, phrase),
            Self::Person(_) => Ok(true),
        }
    }

    /// Takes the file away again, after the account was not made.
    fn forget(&self, app: &App) {
        if let Self::File(path) = self
            && home::remove_if_there(path).is_err()
        {
            app.ui.warning(&format!(
                "{} holds the phrase of an account that was not made",
                path.display()
            ));
        }
    }
}

fn show_phrase(app: &App, phrase: &RecoveryPhrase) -> Outcome<bool> {
    app.ui.note("\nYour recovery phrase. Write these 24 words down, on paper, in this order. When this device is");
    app.ui.note(
        "lost, they and an invitation of your cell bring everything back. Without the words nobody can.",
    );
    app.ui.note("They are shown once.\n");
    let words = phrase.words();
    for (row, line) in words.chunks(WORDS_PER_LINE).enumerate() {
        let numbered = line.iter().enumerate().map(|(column, word)| {
            let numbered = format!("{:>2} {word}", row * WORDS_PER_LINE + column + 1);
            Zeroizing::new(format!("{numbered:<14}"))
        });
        let line: Zeroizing<String> =
            Zeroizing::new(numbered.map(|word| word.as_str().to_owned()).collect());
        app.ui.note(&format!("  {}", line.trim_end()));
    }
    app.ui.note("");
    let places = places_to_ask(words.len())?;
    if terminal::ask_words_back(&app.ui, &words, &places)? {
        return Ok(true);
    }
    app.ui
        .warning("the phrase is not confirmed; `candor status` says so until it is");
    Ok(false)
}

/// Different places, counted from 1, that nobody can foresee.
pub(crate) fn places_to_ask(words: usize) -> Outcome<Vec<usize>> {
    let mut places = Vec::with_capacity(WORDS_ASKED_BACK);
    while places.len() < WORDS_ASKED_BACK {
        let mut byte = [0];
        SystemEntropy
            .fill(&mut byte)
            .doing(|| "draw random numbers".to_owned())?;
        // What is above the last whole round would come up more often than the rest.
        let whole_rounds = 256 - 256 % words;
        let place = usize::from(byte[0]) % words + 1;
        if usize::from(byte[0]) < whole_rounds && !places.contains(&place) {
            places.push(place);
        }
    }
    places.sort_unstable();
    Ok(places)
}

/// A role as the chain has it.
pub(crate) const fn role_of(role: Role) -> candor_wire::statement::Role {
    match role {
        Role::Full => candor_wire::statement::Role::Full,
        Role::WriteOnly => candor_wire::statement::Role::WriteOnly,
    }
}

pub(crate) fn no_account_yet(app: &App) -> Outcome {
    if !device::has_account(app)? {
        return Ok(());
    }
    let sentence = format!(
        "there is an account in {} already",
        app.home.path().display()
    );
    Err(Failure::new(Kind::Failed, sentence)
        .hint("`candor account show` shows it; --home DIR names another folder"))
}

fn invitation_of(text: &str) -> Outcome<Invitation> {
    let read = match text.strip_prefix('@') {
        Some(path) => home::read_small(Path::new(path), INVITATION_FILE_MAX_BYTES)
            .map_err(|failure| failure.kind(Kind::Usage))?,
        None => text.to_owned(),
    };
    Invitation::from_text(&read).map_err(|error| {
        Failure::because("this is not an invitation", &error)
            .kind(Kind::Usage)
            .hint("copy all of it, from `candor1:` on; --cell @FILE reads it from a file")
    })
}

/// The device's folder, for an account that is about to be made in it.
pub(crate) fn lock_for_new(app: &App) -> Outcome<candor_client::home::Home> {
    let home = lock_alone(app)?;
    // Another command can have been faster.
    no_account_yet(app)?;
    Ok(home)
}

/// The device's folder, once no other process works in it.
pub(crate) fn lock_alone(app: &App) -> Outcome<candor_client::home::Home> {
    app.home.make()?;
    let look = || Ok(door::connect(app)?.map_or(Seen::Nobody, |_| Seen::<()>::Busy));
    match device::lock_or(app, look)? {
        LockOr::Locked(home) => Ok(home),
        LockOr::Other(()) => Err(crate::progress::unexpected()),
    }
}

fn create(app: &App, args: &AccountCreate) -> Outcome {
    let invitation = invitation_of(&args.cell)?;
    no_account_yet(app)?;
    let phrase_to = PhraseTo::decide(app, args.recovery_file.as_deref(), false)?;
    device::check_protection(app, args.keys.unprotected_keys)?;
    let home = lock_for_new(app)?;
    let protection = device::new_protection(app, args.keys.unprotected_keys)?;
    let embedded = device::own_cell(app, invitation.cell())?;
    let new = NewAccount {
        home,
        invitation,
        embedded,
        name: args.name.clone(),
        protection,
        phrase_to,
        role: role_of(args.role),
    };
    finish(
        app,
        make(app, new)?,
        "Nothing is backed up yet. Next: candor backup add PATH, then candor consent on backup",
    )
}

/// What it takes to make an account.
pub(crate) struct NewAccount {
    /// The device's folder.
    pub(crate) home: candor_client::home::Home,
    /// With a right to open an account.
    pub(crate) invitation: Invitation,
    /// The cell, if it is in this process.
    pub(crate) embedded: Option<Cell>,
    /// What the person calls it.
    pub(crate) name: String,
    /// How the keys are protected.
    pub(crate) protection: KeyProtection,
    /// Where the phrase goes.
    pub(crate) phrase_to: PhraseTo,
    /// What its first device may do.
    pub(crate) role: candor_wire::statement::Role,
}

/// Makes the account. The person has the phrase before the cell is asked: an account that nobody
/// could recover never exists.
pub(crate) fn make(app: &App, new: NewAccount) -> Outcome<Opened> {
    let NewAccount {
        home,
        invitation,
        embedded,
        name,
        protection,
        phrase_to,
        role,
    } = new;
    let phrase = match &phrase_to {
        PhraseTo::Person(phrase) => Arc::clone(phrase),
        PhraseTo::File(_) | PhraseTo::Terminal => Arc::new(engine::draw_phrase(&SystemEntropy)?),
    };
    let confirmed = phrase_to.keep(app, &phrase)?;
    app.stop.check()?;
    let enrol = Enrol {
        home,
        invitation,
        embedded: embedded.as_ref(),
        account_name: name,
        protection,
        role,
    };
    match engine::create_account(device::enrol_params(app, enrol), &phrase) {
        Ok(engine) => {
            let opened = Opened {
                engine: Arc::new(engine),
                cell: embedded,
            };
            if confirmed {
                confirm(app, &opened.engine)?;
            }
            Ok(opened)
        }
        Err(failure) => {
            let failure = Failure::from(failure);
            if failure.kind == Kind::Unreachable && matches!(phrase_to, PhraseTo::File(_)) {
                // The request may have arrived and only its answer have been lost.
                app.ui.note("The recovery phrase stays in its file: if the cell did open the account, it gets it back.");
            } else {
                phrase_to.forget(app);
            }
            Err(failure)
        }
    }
}

fn confirm(app: &App, engine: &Engine) -> Outcome {
    engine.execute(
        Command::PhraseConfirmed,
        &mut |_| {},
        &candor_client::Cancel::default(),
    )?;
    app.ui.note("The recovery phrase is confirmed.");
    Ok(())
}

fn recover(app: &App, args: &AccountRecover) -> Outcome {
    let given = args.cell.as_deref().map(invitation_of).transpose()?;
    // A device that a restored cell does not know any more joins anew, in its own home.
    let former = device::former(app)?;
    let invitation = match (given, &former) {
        (Some(given), _) => given,
        (None, Some(former)) => former.invitation.clone(),
        (None, None) => {
            return Err(Failure::usage("nothing says in which cell the account is")
                .hint("give --cell INVITATION, or --cell @FILE"));
        }
    };
    if former.is_none() {
        device::check_protection(app, args.keys.unprotected_keys)?;
    }
    let phrase = known_phrase(app, args.recovery_file.as_deref())?;
    let home = lock_alone(app)?;
    let was_here = home.device_store().exists();
    let embedded = device::own_cell(app, invitation.cell())?;
    let (name, protection) = match former {
        Some(former) => (former.account_name, former.protection),
        None => (
            "recovered".to_owned(),
            device::new_protection(app, args.keys.unprotected_keys)?,
        ),
    };
    let enrol = Enrol {
        home,
        invitation,
        embedded: embedded.as_ref(),
        account_name: args.name.clone().unwrap_or(name),
        protection,
        role: role_of(args.role),
    };
    let engine = engine::recover_account(
        device::enrol_params(app, enrol),
        &phrase,
        args.revoke_others,
    )?;
    let opened = Opened {
        engine: Arc::new(engine),
        cell: embedded,
    };
    // Whoever could type it has it.
    confirm(app, &opened.engine)?;
    let next = if was_here {
        "This device is in the account again, as a new one. Its folders stay; nothing is sent until you say yes again.\nNext: candor account re-anchor, which shows what the cell lost, then candor consent on backup"
    } else {
        "What was backed up: candor backup ls latest. To get it: candor backup restore latest --to DIR\nTo back up from here: candor backup add PATH, then candor consent on backup"
    };
    finish(app, opened, next)
}

fn known_phrase(app: &App, file: Option<&Path>) -> Outcome<RecoveryPhrase> {
    let text = match file {
        Some(path) => Zeroizing::new(home::read_small(path, PHRASE_FILE_MAX_BYTES)?),
        None if app.ui.can_ask() => terminal::ask(&app.ui, "The 24 words of the recovery phrase:")?,
        None => {
            return Err(
                Failure::usage("there is no terminal to ask for the recovery phrase on")
                    .hint("give --recovery-file FILE"),
            );
        }
    };
    Ok(RecoveryPhrase::from_text(&text).map_err(|error| EngineFailure::of(&error))?)
}

pub(crate) fn finish(app: &App, opened: Opened, next: &str) -> Outcome {
    let mut door = Door::serve(app, opened, false)?;
    let result = show(app, &mut door);
    door.close(app);
    app.ui.note(next);
    result
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn words_are_asked_at_different_places() {
        for _ in 0..1000 {
            let places = places_to_ask(24).unwrap();
            assert_eq!(places.len(), WORDS_ASKED_BACK);
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(places.iter().all(|place| (1..=24).contains(place)));
        }
    }
}
