//! A first run that the pages lead: they ask, and the account is made here.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use candor_client::home::Home;

use super::open;
use crate::App;
use crate::account::{self, PhraseTo};
use crate::device::Opened;
use crate::failure::{Failure, Outcome};
use crate::pages::{Answers, Pages};

/// How soon it is noticed that the program was asked to stop.
const POLL: Duration = Duration::from_millis(100);

/// Leads somebody new until there is an account. A try that failed is told on the page, and can be made again.
pub(super) fn lead(app: &App, home: Home) -> Outcome<(Opened, Pages)> {
    let (pages, coming) = Pages::welcome(app)?;
    let led = if open::show(app, false) {
        tries(app, home, &coming)
    } else {
        Err(Failure::usage("no browser could be opened to lead you")
            .hint("run it on a terminal, or give --recovery-file FILE and how to protect the keys"))
    };
    match led {
        Ok(opened) => {
            pages.know(&opened.engine);
            Ok((opened, pages))
        }
        Err(failure) => {
            app.stop.stop();
            app.runtime.block_on(pages.ended());
            Err(failure)
        }
    }
}

fn tries(app: &App, home: Home, coming: &Receiver<Answers>) -> Outcome<Opened> {
    let mut home = Some(home);
    loop {
        let answers = next(app, coming)?;
        // A try takes the folder with it, whatever becomes of it.
        let folder = home.take().map_or_else(|| account::lock_alone(app), Ok);
        let done = answers.done;
        let made = folder.and_then(|folder| {
            let phrase_to = PhraseTo::Person(answers.phrase);
            super::make_own(app, folder, answers.name, answers.protection, phrase_to)
        });
        match made {
            Ok(opened) => {
                // Whoever closed the page finds the others instead.
                let _ = done.send(Ok(Arc::clone(&opened.engine)));
                return Ok(opened);
            }
            Err(failure) => {
                let _ = done.send(Err(failure.into()));
            }
        }
    }
}

fn next(app: &App, coming: &Receiver<Answers>) -> Outcome<Answers> {
    loop {
        app.stop.check()?;
        match coming.recv_timeout(POLL) {
            Ok(answers) => return Ok(answers),
            Err(RecvTimeoutError::Timeout) => {}
            // The pages have ended, and so does this.
            Err(RecvTimeoutError::Disconnected) => return Err(crate::signals::interrupted()),
        }
    }
}
