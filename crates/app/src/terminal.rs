//! Asking a person something on the terminal.
//!
//! What is typed is read by the system call, never through the standard library's buffer: that one is
//! never wiped, and a passphrase would stay in it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{LocalModes, OptionalActions, Termios};
use zeroize::Zeroizing;

use crate::failure::{Doing as _, Failure, Kind, Outcome};
use crate::ui::Ui;

/// Longest line that is read. Terminals hand over at most this many bytes at once.
const LINE_MAX_BYTES: usize = 4096;

/// How often a person may mistype before it is given up.
const TRIES_MAX: usize = 3;

static PROMPTING: AtomicBool = AtomicBool::new(false);
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether the process waits for typing. Puts the terminal back as it was, because whoever asks is
/// about to end the process.
pub(crate) fn leave_prompt() -> bool {
    let prompting = PROMPTING.load(Ordering::Acquire);
    if prompting {
        show_typing();
    }
    prompting
}

fn hide_typing() -> Outcome {
    let what = || "switch off the terminal's echo".to_owned();
    let before = rustix::termios::tcgetattr(rustix::stdio::stdin()).doing(what)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    if let Ok(mut slot) = BEFORE.lock() {
        *slot = Some(before);
    }
    rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &hidden).doing(what)
}

fn show_typing() {
    let before = BEFORE.lock().ok().and_then(|mut slot| slot.take());
    if let Some(before) = before {
        // Nothing more can be done if the terminal is gone.
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
    }
}

fn read_line() -> Outcome<Zeroizing<String>> {
    let mut buffer = Zeroizing::new([0_u8; LINE_MAX_BYTES]);
    PROMPTING.store(true, Ordering::Release);
    let read = rustix::io::read(rustix::stdio::stdin(), buffer.as_mut_slice());
    PROMPTING.store(false, Ordering::Release);
    let length = read.doing(|| "read from the terminal".to_owned())?;
    if length == 0 {
        return Err(Failure::new(
            Kind::Interrupted,
            "the terminal was closed before an answer came",
        ));
    }
    let line = core::str::from_utf8(&buffer[..length]);
    let line = line.map_err(|_| Failure::usage("what was typed is not text"))?;
    Ok(Zeroizing::new(
        line.trim_end_matches(['\n', '\r']).to_owned(),
    ))
}

/// Asks for a line.
pub(crate) fn ask(ui: &Ui, question: &str) -> Outcome<Zeroizing<String>> {
    ui.question(question);
    read_line()
}

/// Asks for a line that is not shown while it is typed.
pub(crate) fn ask_hidden(ui: &Ui, question: &str) -> Outcome<Zeroizing<String>> {
    hide_typing()?;
    ui.question(question);
    let line = read_line();
    show_typing();
    line
}

/// Asks yes or no. *No* is the default: only a whole `y` or `yes` is a yes.
pub(crate) fn ask_yes(ui: &Ui, question: &str) -> Outcome<bool> {
    let answer = ask(ui, &format!("{question} [y/N]"))?;
    let answer = answer.trim();
    Ok(answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes"))
}

/// Asks for a new passphrase until it was typed the same way twice.
pub(crate) fn ask_new_passphrase(ui: &Ui) -> Outcome<Zeroizing<String>> {
    ui.note("A passphrase protects the keys on this device. It is asked for when candor starts. If you forget\nit, the recovery phrase still opens everything.");
    for _ in 0..TRIES_MAX {
        let first = ask_hidden(ui, "New passphrase:")?;
        if first.is_empty() {
            ui.note("It is empty. `--unprotected-keys` keeps the keys without one.");
            continue;
        }
        let second = ask_hidden(ui, "Again:")?;
        if *first == *second {
            return Ok(first);
        }
        ui.note("These are two different passphrases.");
    }
    Err(Failure::usage("no passphrase was chosen")
        .hint("run it again, or give --passphrase-file FILE"))
}

/// Asks some of the words back. `places` count from 1. True once all of them are right.
pub(crate) fn ask_words_back(ui: &Ui, words: &[&str], places: &[usize]) -> Outcome<bool> {
    for place in places {
        let mut right = false;
        for _ in 0..TRIES_MAX {
            let typed = ask(ui, &format!("Word {place}:"))?;
            right = words
                .get(place - 1)
                .is_some_and(|word| typed.trim().eq_ignore_ascii_case(word));
            if right {
                break;
            }
            ui.note("That is not it. Look at what you wrote down.");
        }
        if !right {
            return Ok(false);
        }
    }
    Ok(true)
}
