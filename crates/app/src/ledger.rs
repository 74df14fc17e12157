//! `candor ledger …`: every connection that this device opened.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use candor_client::commands::{Command, Event, ExportedLine, LedgerLineView};
use serde::Serialize;

use crate::App;
use crate::args::{LedgerArgs, LedgerBy, LedgerCommand, LedgerList};
use crate::door::Door;
use crate::failure::{Doing as _, Failure, Outcome};
use crate::progress::{execute, execute_with, object, view};
use crate::text;
use crate::views;

/// Most destinations that are added up one by one; the rest become one line.
const SUMS_MAX: usize = 10_000;

/// Runs a `ledger` command.
pub(crate) fn run(app: &App, args: LedgerArgs) -> Outcome {
    let mut door = Door::open(app)?;
    let result = match args.command {
        None => list(app, &mut door, &args.list),
        Some(LedgerCommand::List(list_args)) => list(app, &mut door, &list_args),
        Some(LedgerCommand::Export { output }) => export(app, &mut door, &output),
        Some(LedgerCommand::Verify) => verify(app, &mut door),
    };
    door.close(app);
    result
}

fn since(list: &LedgerList) -> Outcome<Option<i64>> {
    let Some(given) = &list.since else {
        return Ok(None);
    };
    let time = text::read_time(given, text::now_ms());
    let time = time.ok_or_else(|| {
        Failure::usage(format!("`{given}` is not a time"))
            .hint("2026-01-31, 2026-01-31T12:00:00Z, 30m, 24h or 7d")
    })?;
    Ok(Some(time))
}

fn list(app: &App, door: &mut Door, list: &LedgerList) -> Outcome {
    let command = Command::Ledger {
        since_ms: since(list)?,
    };
    if let Some(by) = list.by {
        return sums(app, door, command, by);
    }
    let each = |event: &Event| match event {
        Event::LedgerLine(line) => {
            object(&app.ui, "ledger-line", line)?;
            app.ui.data(&views::ledger_line(line))
        }
        _ => Ok(()),
    };
    execute_with(app, door, command, each).map(drop)
}

/// What connections of one kind come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Sum {
    connections: u64,
    plain_out: u64,
    plain_in: u64,
    cipher_out: u64,
    cipher_in: u64,
    alarms: u64,
}

#[derive(Default)]
struct Sums(BTreeMap<String, Sum>);

impl Sums {
    fn add(&mut self, line: &LedgerLineView, by: LedgerBy) {
        let key = match by {
            LedgerBy::Service => line.service.clone(),
            LedgerBy::Destination => line.remote.clone().unwrap_or_else(|| line.name.clone()),
        };
        let is_new = !self.0.contains_key(&key);
        let key = if is_new && self.0.len() >= SUMS_MAX {
            "others".to_owned()
        } else {
            key
        };
        let sum = self.0.entry(key).or_default();
        if line.alarm.is_some() {
            sum.alarms += 1;
            return;
        }
        sum.connections += 1;
        sum.plain_out = sum.plain_out.saturating_add(line.plain_out);
        sum.plain_in = sum.plain_in.saturating_add(line.plain_in);
        sum.cipher_out = sum.cipher_out.saturating_add(line.cipher_out.unwrap_or(0));
        sum.cipher_in = sum.cipher_in.saturating_add(line.cipher_in.unwrap_or(0));
    }
}

fn sums(app: &App, door: &mut Door, command: Command, by: LedgerBy) -> Outcome {
    let mut sums = Sums::default();
    let each = |event: &Event| {
        if let Event::LedgerLine(line) = event {
            sums.add(line, by);
        }
        Ok(())
    };
    execute_with(app, door, command, each)?;
    object(&app.ui, "sums", &sums.0)?;
    let rows: Vec<Vec<String>> = sums
        .0
        .iter()
        .map(|(key, sum)| {
            let network = format!(
                "{} / {}",
                text::bytes(sum.cipher_out),
                text::bytes(sum.cipher_in)
            );
            let inside = format!(
                "{} / {}",
                text::bytes(sum.plain_out),
                text::bytes(sum.plain_in)
            );
            vec![
                text::shown(key),
                text::count(sum.connections),
                inside,
                network,
                text::count(sum.alarms),
            ]
        })
        .collect();
    let head = match by {
        LedgerBy::Service => "SERVICE",
        LedgerBy::Destination => "DESTINATION",
    };
    let heads = [
        head,
        "CONNECTIONS",
        "DATA OUT / IN",
        "ON THE WIRE OUT / IN",
        "ALARMS",
    ];
    app.ui.data(&text::table(&heads, &rows).join("\n"))
}

fn export(app: &App, door: &mut Door, output: &Path) -> Outcome {
    let what = || format!("write {}", output.display());
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(output)
        .doing(what)?;
    let mut writer = BufWriter::new(file);
    let mut lines = 0_u64;
    let each = |event: &Event| {
        if let Event::LedgerLine(line) = event {
            serde_json::to_writer(&mut writer, &ExportedLine::of(line)).doing(what)?;
            writer.write_all(b"\n").doing(what)?;
            lines += 1;
        }
        Ok(())
    };
    execute_with(app, door, Command::Ledger { since_ms: None }, each)?;
    let file = writer
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .doing(what)?;
    file.sync_all().doing(what)?;
    app.ui
        .object("exported", serde_json::json!({ "lines": lines }))?;
    app.ui.note(&format!(
        "{} in {}",
        text::counted(lines, "line", "lines"),
        output.display()
    ));
    Ok(())
}

fn verify(app: &App, door: &mut Door) -> Outcome {
    let verified = view!(execute(app, door, Command::LedgerVerify)?, LedgerVerified)?;
    object(&app.ui, "ledger-verified", &verified)?;
    let lines = text::counted(verified.lines, "line", "lines");
    app.ui.data(&format!(
        "the ledger is whole: {lines}, newest {}",
        verified.head
    ))
}
