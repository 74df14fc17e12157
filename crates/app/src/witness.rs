//! `candor log witness …`: a witness of other people's logs on this machine. In both builds: it needs
//! no account and no cell, and opens nothing.

use std::net::SocketAddr;
use std::path::PathBuf;

use candor_server::log::Log;
use candor_server::log_vkey_of;
use candor_server::witness::{
    Witness, WitnessError, WitnessListening, WitnessOptions, WitnessedLog, add_log, vkey_of,
};
use serde_json::json;

use crate::App;
use crate::args::{WitnessCommand, WitnessRun};
use crate::failure::{Failure, Kind, Outcome};
use crate::text;

/// Runs a `log witness` command.
pub(crate) fn run(app: &App, command: WitnessCommand) -> Outcome {
    match command {
        WitnessCommand::Run(args) => serve(app, args),
        WitnessCommand::Add { vkey, dir } => add(app, &vkey, dir),
        WitnessCommand::Key { dir } => key(app, dir),
    }
}

/// Runs `candor log key`: what a witness of this machine's cell has to be told.
pub(crate) fn log_key(app: &App) -> Outcome {
    let vkey = log_vkey_of(&app.home.cell()).map_err(|error| crate::cell::open_failure(&error))?;
    app.ui.object("vkey", json!(vkey))?;
    app.ui.data(&vkey)
}

/// The folder that was given, or the one in the home.
fn folder(app: &App, given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| app.home.path().join("witness"))
}

fn serve(app: &App, args: WitnessRun) -> Outcome {
    let folder = folder(app, args.dir);
    let options = WitnessOptions {
        name: args.name,
        log: Log::to_stderr(),
        ..WitnessOptions::default()
    };
    let witness = Witness::open(&folder, options).map_err(|error| failure(&error))?;
    let (vkey, logs) = (
        witness.vkey(),
        witness.logs().map_err(|error| failure(&error))?,
    );
    let listening = bind(app, witness, args.listen)?;
    let address = listening.address();
    app.ui.object(
        "witness",
        json!({
            "vkey": vkey,
            "address": format!("http://{address}"),
            "folder": folder.display().to_string(),
            "logs": logs.iter().map(log_json).collect::<Vec<_>>(),
        }),
    )?;
    app.ui.data(&vkey)?;
    for log in &logs {
        app.ui.note(&log_line(log));
    }
    if logs.is_empty() {
        app.ui.note(
            "It witnesses no log yet. Next: `candor log witness add VKEY`, while this goes on.",
        );
    }
    app.ui.note(&format!("listening on http://{address}"));
    let stop = app.stop.clone();
    app.runtime
        .block_on(listening.run(async move { stop.stopped().await }));
    app.ui.note("the witness has stopped");
    Ok(())
}

fn bind(app: &App, witness: Witness, listen: SocketAddr) -> Outcome<WitnessListening> {
    app.runtime
        .block_on(witness.bind(listen))
        .map_err(|error| Failure::because("the witness cannot listen", &error))
}

fn log_json(log: &WitnessedLog) -> serde_json::Value {
    match &log.size {
        Ok(size) => json!({ "origin": log.origin, "size": size }),
        Err(error) => json!({ "origin": log.origin, "fault": error.to_string() }),
    }
}

fn log_line(log: &WitnessedLog) -> String {
    let origin = text::shown(&log.origin);
    match &log.size {
        Ok(None) => format!("witnesses {origin}: nothing cosigned yet"),
        Ok(Some(size)) => format!(
            "witnesses {origin}: {} entries cosigned",
            text::count(*size)
        ),
        Err(error) => format!(
            "REFUSES {origin}: {error}. Put the file in `newest` back from a copy of the folder; docs/witness.md tells more"
        ),
    }
}

fn add(app: &App, vkey: &str, dir: Option<PathBuf>) -> Outcome {
    let folder = folder(app, dir);
    let added = add_log(&folder, vkey).map_err(|error| failure(&error))?;
    app.ui.object(
        "added",
        json!({ "origin": added.origin, "is-new": added.is_new }),
    )?;
    let origin = text::shown(&added.origin);
    app.ui.data(&if added.is_new {
        format!("witnesses {origin}")
    } else {
        format!("witnesses {origin} already")
    })
}

fn key(app: &App, dir: Option<PathBuf>) -> Outcome {
    let vkey = vkey_of(&folder(app, dir)).map_err(|error| failure(&error))?;
    app.ui.object("vkey", json!(vkey))?;
    app.ui.data(&vkey)
}

fn failure(error: &WitnessError) -> Failure {
    let failure = Failure::because("the witness cannot be used", error);
    match error {
        WitnessError::NoWitness { .. } => {
            failure.hint("`candor log witness run` makes one; --dir names another folder")
        }
        WitnessError::InUse { .. } => {
            failure.hint("it runs already; --dir names another folder")
        }
        WitnessError::Key(_) => failure
            .kind(Kind::Usage)
            .hint("a key is written as NAME+ID+KEY; `candor log key` prints that of the cell on its machine"),
        WitnessError::NotALog => failure
            .kind(Kind::Usage)
            .hint("the key of a cell's log is wanted here; a witness's own belongs into its friends' settings"),
        WitnessError::OtherName { .. } => failure
            .kind(Kind::Usage)
            .hint("leave --name out, or begin another witness with --dir"),
        WitnessError::LogsLine { .. } => failure.hint("put the line right, or remove it"),
        WitnessError::DamagedKey { .. } | WitnessError::KeyLost { .. } => failure
            .kind(Kind::Integrity)
            .hint("put witness.key back from a copy; a new witness needs another folder, and its friends need its new key"),
        _ => failure,
    }
}
