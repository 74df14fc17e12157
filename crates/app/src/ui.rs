//! The one place that prints. Standard output carries data; everything else goes to standard error,
//! readable without colour.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the one place that prints"
)]

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::{Map, Value};

use crate::failure::{Doing as _, Failure, Outcome};

/// The version of the JSON that this program prints.
pub(crate) const JSON_VERSION: u32 = 1;

/// How this run talks to people and programs.
#[derive(Debug)]
pub(crate) struct Ui {
    json: bool,
    in_terminal: bool,
    error_terminal: bool,
}

impl Ui {
    /// For this process' own standard streams.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            in_terminal: io::stdin().is_terminal(),
            error_terminal: io::stderr().is_terminal(),
        }
    }

    /// Whether programs read the output.
    pub(crate) const fn json(&self) -> bool {
        self.json
    }

    /// Whether a person can be asked something.
    #[cfg(feature = "device")]
    pub(crate) const fn can_ask(&self) -> bool {
        self.in_terminal && self.error_terminal
    }

    /// Whether progress can be drawn.
    #[cfg(feature = "device")]
    pub(crate) const fn draws(&self) -> bool {
        self.error_terminal && !self.json
    }

    /// Data for people: a line on standard output; nothing when programs read it.
    pub(crate) fn data(&self, line: &str) -> Outcome {
        if self.json { Ok(()) } else { self.out(line) }
    }

    /// Data for both: a line on standard output, whoever reads it.
    pub(crate) fn out(&self, line: &str) -> Outcome {
        let mut out = io::stdout().lock();
        let written = out
            .write_all(line.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush());
        match written {
            // Whoever read it has read enough, as `head` does: nothing is left to do.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            written => written.doing(|| "write the output".to_owned()),
        }
    }

    /// Data for programs: an object with the version and one field; nothing when people read it.
    pub(crate) fn object(&self, field: &str, value: Value) -> Outcome {
        if !self.json {
            return Ok(());
        }
        let mut object = Map::new();
        object.insert("version".to_owned(), Value::from(JSON_VERSION));
        object.insert(field.to_owned(), value);
        self.out(&Value::Object(object).to_string())
    }

    /// Something to know while it works, on standard error.
    pub(crate) fn note(&self, text: &str) {
        // Nobody can be told that standard error is gone.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Something that a person should act on.
    #[cfg(feature = "device")]
    pub(crate) fn warning(&self, text: &str) {
        self.note(&format!("warning: {text}"));
    }

    /// A question, without a line end.
    #[cfg(feature = "device")]
    pub(crate) fn question(&self, text: &str) {
        let mut err = io::stderr();
        let _ = write!(err, "{text} ").and_then(|()| err.flush());
    }

    /// Why it did not work: for people on standard error, for programs on standard output too.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.note(&failure.text());
        if let Ok(value) = serde_json::to_value(failure) {
            // The exit code tells what this could not.
            let _ = self.object("failure", value);
        }
    }
}
