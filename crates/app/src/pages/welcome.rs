//! The first run: a name, a passphrase, the recovery phrase. What to protect and the consent for it follow on the usual pages.
//!
//! Until there is an account, nothing else is answered. The account itself is made by whoever started the program: this only
//! collects what the person says, and hands it over once they have shown that they have the phrase.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex};

use candor_client::commands::Failure;
use candor_client::{Engine, KeyProtection, RecoveryPhrase, SystemEntropy, engine};
use maud::{Markup, html};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::lock;
use super::parts::{self, Look};
use super::request::{Asked, see_other, usage};
use super::shell::Sheet;
use crate::account::places_to_ask;
use axum::response::Response;
use http::StatusCode;

/// Where it is.
pub(super) const WELCOME: &str = "/welcome";

/// Longest name of an account, in characters.
const NAME_MAX_CHARS: usize = 64;

/// What the person said, for whoever makes the account.
pub(crate) struct Answers {
    /// What the account is called on this device.
    pub(crate) name: String,
    /// How the keys are protected.
    pub(crate) protection: KeyProtection,
    /// The phrase, which the person has.
    pub(crate) phrase: Arc<RecoveryPhrase>,
    /// Takes the engine of the new account, or why there is none.
    pub(crate) done: oneshot::Sender<Result<Arc<Engine>, Failure>>,
}

/// What was said so far.
struct Begun {
    name: String,
    passphrase: Option<Zeroizing<String>>,
    phrase: Arc<RecoveryPhrase>,
    /// Places of the words that are asked back, counted from 1.
    places: Vec<usize>,
}

/// A first run.
pub(super) struct Welcome {
    begun: Mutex<Option<Begun>>,
    answers: SyncSender<Answers>,
}

impl Welcome {
    /// Hands what the person says to `answers`.
    pub(super) fn new(answers: SyncSender<Answers>) -> Self {
        Self {
            begun: Mutex::default(),
            answers,
        }
    }

    /// Forgets what was said: there is an account now.
    pub(super) fn forget(&self) {
        *lock(&self.begun) = None;
    }
}

/// A page, or with what was wrong in a form.
fn shown(asked: &Asked, sheet: &Sheet, is_wrong: bool) -> Response {
    let status = if is_wrong {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    asked.whole(status, sheet, html! {})
}

fn sheet(title: &str, step: usize, failure: Option<&Failure>, body: Markup) -> Sheet {
    const STEPS: [&str; 4] = ["Name", "Recovery phrase", "What to protect", "Consent"];
    Sheet {
        title: title.to_owned(),
        place: None,
        body: html! {
            ol.steps aria-label="Steps" {
                @for (place, name) in STEPS.iter().enumerate() { li aria-current=[(place == step).then_some("step")] { (name) } }
            }
            @if let Some(failure) = failure { (parts::failure(failure)) }
            div.card { (body) }
        },
    }
}

/// The first page.
pub(super) async fn begin_page(asked: Asked) -> Response {
    shown(&asked, &begin_sheet(None), false)
}

pub(super) fn begin_sheet(failure: Option<&Failure>) -> Sheet {
    let body = html! {
        p { "Candor keeps copies of your files that nobody but you can read, and shows you everything that it sends. Nothing leaves this device until you say yes, and you can take that back at any time." }
        form.stack method="post" action=(WELCOME) {
            div.field {
                label for="welcome-name" { "What should your account be called?" }
                input #welcome-name name="name" required value="me" maxlength=(NAME_MAX_CHARS) autocomplete="off";
                p.hint { "Known on your own devices alone." }
            }
            fieldset {
                legend { "A passphrase protects the keys on this device" }
                div.field { label for="welcome-pass" { "Passphrase" } input #welcome-pass type="password" name="passphrase" autocomplete="new-password"; }
                div.field { label for="welcome-again" { "Again" } input #welcome-again type="password" name="again" autocomplete="new-password"; }
                p.hint { "It is asked for when candor starts. If you forget it, the recovery phrase on the next page still opens everything." }
                label.check { input type="checkbox" name="unprotected" value="yes"; " Without a passphrase: whoever can read this device's files may use my keys" }
            }
            div.buttons { button.button.main type="submit" { "Go on" } }
        }
        (parts::deeper("I have an account already", html! {
            p { "On a device that is in it: " code { "candor device link" } ", and here " code { "candor device join" } ". If no device is left: " code { "candor account recover --cell INVITATION" } " with the 24 words." }
        }))
    };
    sheet("Welcome", 0, failure, body)
}

/// Takes the name and the passphrase, and draws a phrase.
pub(super) async fn begin(asked: Asked) -> Response {
    let begun = read_beginning(&asked);
    match begun {
        Ok(begun) => {
            if let Some(welcome) = asked.shared.welcome() {
                *lock(&welcome.begun) = Some(begun);
            }
            see_other("/welcome/phrase")
        }
        Err(failure) => shown(&asked, &begin_sheet(Some(&failure)), true),
    }
}

fn read_beginning(asked: &Asked) -> Result<Begun, Failure> {
    let form = &asked.form;
    let name: String = form.need("name", "the name")?.to_owned();
    if name.chars().count() > NAME_MAX_CHARS {
        return Err(usage(format!(
            "a name has at most {NAME_MAX_CHARS} characters"
        )));
    }
    // A blank at the end of a passphrase is part of it.
    let [first, again] = ["passphrase", "again"].map(|field| form.secret(field));
    let passphrase = match (form.get("unprotected"), first.is_empty()) {
        (Some("yes"), true) => None,
        (Some("yes"), false) => return Err(usage("choose one: a passphrase, or none".to_owned())),
        (_, true) => return Err(usage("the passphrase is missing".to_owned())),
        (_, false) if *first != *again => {
            return Err(usage("these are two different passphrases".to_owned()));
        }
        (_, false) => Some(first),
    };
    let phrase = Arc::new(engine::draw_phrase(&SystemEntropy)?);
    let places = places_to_ask(phrase.words().len())?;
    Ok(Begun {
        name,
        passphrase,
        phrase,
        places,
    })
}

/// Reads from what was said so far; whoever comes too early is sent to the beginning.
fn with_begun<T>(asked: &Asked, read: impl FnOnce(&Begun) -> T) -> Option<T> {
    let welcome = asked.shared.welcome()?;
    let begun = lock(&welcome.begun);
    begun.as_ref().map(read)
}

/// Shows the phrase.
pub(super) async fn phrase_page(asked: Asked) -> Response {
    let body = with_begun(&asked, |begun| {
        html! {
            p { strong { "Write these 24 words down, on paper, in this order." } " If this device is lost, they and an invitation of your cell bring everything back. Without them nobody can, and whoever has them can read everything." }
            ol.words { @for word in begun.phrase.words() { li { (word) } } }
            p { "They are shown until your account is made, and never again." }
            div.buttons { (parts::link("/welcome/words", "I have written them down", Look::Main)) }
        }
    });
    match body {
        Some(body) => shown(&asked, &sheet("Your recovery phrase", 1, None, body), false),
        None => see_other(WELCOME),
    }
}

/// Asks some of the words back.
pub(super) async fn words_page(asked: Asked) -> Response {
    words_shown(&asked, None)
}

fn words_shown(asked: &Asked, failure: Option<&Failure>) -> Response {
    match with_begun(asked, |begun| words_body(&begun.places)) {
        Some(body) => {
            let sheet = sheet("Do you have the words?", 1, failure, body);
            shown(asked, &sheet, failure.is_some())
        }
        None => see_other(WELCOME),
    }
}

pub(super) fn words_body(places: &[usize]) -> Markup {
    html! {
        p { "Look at what you wrote down, and type these." }
        form.stack method="post" action="/welcome/words" {
            @for place in places {
                div.field {
                    label for={ "word-" (place) } { "Word " (place) }
                    input id={ "word-" (place) } name="word" required autocomplete="off" autocapitalize="none" spellcheck="false";
                }
            }
            div.buttons {
                (parts::link("/welcome/phrase", "Show them again", Look::Quiet))
                button.button.main type="submit" { "Make my account" }
            }
        }
    }
}

/// Compares the words, and has the account made.
pub(super) async fn words(asked: Asked) -> Response {
    let typed = Zeroizing::new(asked.form.all("word"));
    let said = with_begun(&asked, |begun| {
        let words = begun.phrase.words();
        let is_right = typed.len() == begun.places.len()
            && begun.places.iter().zip(typed.iter()).all(|(place, word)| {
                words
                    .get(place - 1)
                    .is_some_and(|right| word.trim().eq_ignore_ascii_case(right))
            });
        let protection = match &begun.passphrase {
            Some(passphrase) => KeyProtection::Passphrase(passphrase.clone()),
            None => KeyProtection::Unprotected,
        };
        is_right.then(|| (begun.name.clone(), protection, Arc::clone(&begun.phrase)))
    });
    let (name, protection, phrase) = match said {
        None => return see_other(WELCOME),
        Some(None) => {
            let failure = usage("that is not it; look at what you wrote down".to_owned());
            return words_shown(&asked, Some(&failure));
        }
        Some(Some(said)) => said,
    };
    match make(&asked, name, protection, phrase).await {
        Ok(engine) => {
            asked.shared.set_engine(engine);
            see_other("/choose?for=backup")
        }
        Err(failure) => words_shown(&asked, Some(&failure)),
    }
}

async fn make(
    asked: &Asked,
    name: String,
    protection: KeyProtection,
    phrase: Arc<RecoveryPhrase>,
) -> Result<Arc<Engine>, Failure> {
    let (done, made) = oneshot::channel();
    let answers = Answers {
        name,
        protection,
        phrase,
        done,
    };
    let ended = || Failure {
        kind: candor_client::commands::FailureKind::Interrupted,
        sentence: "the program ended before the account was made".to_owned(),
        hint: None,
        causes: Vec::new(),
    };
    let welcome = asked.shared.welcome().ok_or_else(ended)?;
    welcome
        .answers
        .try_send(answers)
        .map_err(|error| match error {
            TrySendError::Full(_) => usage("your account is being made already".to_owned()),
            TrySendError::Disconnected(_) => ended(),
        })?;
    made.await.map_err(|_| ended())?
}
