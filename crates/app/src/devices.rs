//! `candor device …`: the account's devices, taking one in, and taking one out.

use std::path::Path;
use std::sync::Arc;

use candor_client::commands::{Command, DeviceView, RevokedView};
use candor_client::{Cancel, engine};
use candor_wire::linking::LinkCode;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::App;
use crate::args::{DeviceCommand, JoinArgs, Role};
use crate::device::{self, Enrol, Opened};
use crate::door::Door;
use crate::failure::{Failure, Kind, Outcome};
use crate::progress::{execute, object, view};
use crate::text::shown;
use crate::{account, home, terminal, views};

/// Largest file with a linking code.
const CODE_FILE_MAX_BYTES: u64 = 16 << 10;

pub(crate) fn run(app: &App, command: DeviceCommand) -> Outcome {
    if let DeviceCommand::Join(args) = command {
        return join(app, &args);
    }
    let mut door = Door::open(app)?;
    let result = match command {
        DeviceCommand::List => list(app, &mut door),
        DeviceCommand::Link { role, yes } => link(app, &mut door, role, yes),
        DeviceCommand::Revoke { device, yes } => revoke(app, &mut door, &device, yes),
        DeviceCommand::Join(_) => Ok(()),
    };
    door.close(app);
    result
}

fn link(app: &App, door: &mut Door, role: Role, yes: bool) -> Outcome {
    if !yes && !app.ui.can_ask() {
        let sentence = "there is no terminal on which to compare the digits";
        return Err(Failure::usage(sentence).hint(
            "in a script, --yes takes in whichever device uses the code: keep the code to yourself",
        ));
    }
    let write_only = matches!(role, Role::WriteOnly);
    let made = view!(
        execute(app, door, Command::DeviceLink { write_only })?,
        LinkCode
    )?;
    app.ui.note(LINKING);
    warn_of_loopback(app, &made.code);
    if app.ui.can_ask() {
        app.ui.note(&picture(&made.code));
    }
    object(&app.ui, "link-code", &made)?;
    app.ui.data(&made.code)?;
    app.ui
        .note("\nWaiting for the new device. Ctrl-C ends this, and the code is worthless then.");
    let asked = view!(execute(app, door, Command::DeviceLinkWait)?, LinkAsk)?;
    object(&app.ui, "link-ask", &asked)?;
    app.ui.note(&format!(
        "\n{} asks to join your account as a {} device. It has to show these six digits:\n\n    {}\n",
        shown(&asked.name),
        asked.role,
        asked.digits
    ));
    let accept = if yes {
        app.ui.note("Answered with --yes.");
        true
    } else {
        terminal::ask_yes(&app.ui, "Does it show exactly these?")?
    };
    let digits = asked.digits;
    let answered = execute(app, door, Command::DeviceLinkAnswer { accept, digits })?;
    if !accept {
        app.ui
            .note("It was not taken in. If the digits were others, somebody else saw the code.");
        return Ok(());
    }
    let device = view!(answered, Device)?;
    object(&app.ui, "linked", &device)?;
    app.ui
        .data(&format!("{} is one of your devices now", called(&device)))
}

/// Says so when no other machine can follow the code.
fn warn_of_loopback(app: &App, code: &str) {
    let Ok(code) = LinkCode::from_text(code) else {
        return;
    };
    let is_here = |address: &String| {
        let near = ["127.", "[::1]", "localhost"];
        near.iter().any(|start| address.starts_with(start))
    };
    if code.cell.addresses.iter().all(is_here) {
        app.ui.warning("this device knows its cell by an address of this very machine, and so does the code: only another home on this machine can use it. A cell for several machines needs an address of its own, `public_addresses` in its cell.toml, before the account is opened there");
    }
}

/// A code as a QR code, two modules to a character; as text only where it does not fit one.
fn picture(code: &str) -> String {
    let Ok(picture) = QrCode::new(code) else {
        return String::new();
    };
    // Dark on light also where the terminal is light on dark.
    picture
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build()
}

fn join(app: &App, args: &JoinArgs) -> Outcome {
    account::no_account_yet(app)?;
    let code = code_of(app, args.code.as_deref())?;
    device::check_protection(app, args.keys.unprotected_keys)?;
    let home = account::lock_for_new(app)?;
    let protection = device::new_protection(app, args.keys.unprotected_keys)?;
    let embedded = device::own_cell(app, code.cell.cell())?;
    let enrol = Enrol {
        home,
        invitation: code.cell.clone(),
        embedded: embedded.as_ref(),
        account_name: args.name.clone(),
        protection,
        role: code.role,
    };
    let cancel = Cancel::default();
    let (stop, stopped) = (app.stop.clone(), cancel.clone());
    let watching = app.runtime.spawn(async move {
        stop.stopped().await;
        stopped.cancel();
    });
    let mut told = Ok(());
    let joined = engine::join_account(
        device::enrol_params(app, enrol),
        &code,
        &mut |digits| {
            told = app
                .ui
                .object("digits", serde_json::json!({ "digits": digits }));
            app.ui.note(&format!(
                "\nThe other device has to show these six digits, too:\n\n    {digits}\n\nSay yes there, and only if they are the same."
            ));
        },
        &cancel,
    );
    watching.abort();
    let engine = joined?;
    told?;
    let opened = Opened {
        engine: Arc::new(engine),
        cell: embedded,
    };
    account::finish(
        app,
        opened,
        "This device is in the account. Nothing is sent by itself.\nTo back up from here: candor backup add PATH, then candor consent on backup",
    )
}

fn code_of(app: &App, given: Option<&str>) -> Outcome<LinkCode> {
    let text = match given {
        Some(given) => match given.strip_prefix('@') {
            Some(path) => home::read_small(Path::new(path), CODE_FILE_MAX_BYTES)
                .map_err(|failure| failure.kind(Kind::Usage))?,
            None => given.to_owned(),
        },
        None if app.ui.can_ask() => {
            terminal::ask(&app.ui, "The code that the other device shows:")?.to_string()
        }
        None => {
            return Err(
                Failure::usage("there is no terminal to ask for the code on")
                    .hint("give the code, or @FILE"),
            );
        }
    };
    LinkCode::from_text(&text).map_err(|error| {
        Failure::because("this is not a linking code", &error)
            .kind(Kind::Usage)
            .hint("copy all of it, from `candor-link1:` on; @FILE reads it from a file")
    })
}

fn list(app: &App, door: &mut Door) -> Outcome {
    let devices = view!(execute(app, door, Command::DeviceList)?, Devices)?;
    object(&app.ui, "devices", &devices)?;
    app.ui.data(&views::devices(&devices).join("\n"))
}

fn revoke(app: &App, door: &mut Door, named: &str, yes: bool) -> Outcome {
    let all = view!(execute(app, door, Command::DeviceList)?, Devices)?;
    let device = DeviceView::find(&all, named)?;
    app.ui.note(REVOCATION);
    let called = called(device);
    if !yes && !app.ui.can_ask() {
        let sentence = format!("there is no terminal to ask whether to revoke {called}");
        return Err(Failure::usage(sentence).hint("in a script, --yes revokes it"));
    }
    if !yes && !terminal::ask_yes(&app.ui, &format!("Revoke {called}?"))? {
        app.ui.note("Nothing was changed.");
        return Ok(());
    }
    let device = device.device.clone();
    let revoked = view!(
        execute(app, door, Command::DeviceRevoke { device })?,
        Revoked
    )?;
    object(&app.ui, "revoked", &revoked)?;
    app.ui.data(&sentence(&revoked))?;
    app.ui.note(
        "Look through what it may have done: candor consent history, candor backup snapshots, candor device list",
    );
    Ok(())
}

/// Name and id of a device.
fn called(device: &DeviceView) -> String {
    let name = device.name.as_deref().unwrap_or("the device");
    format!("{} ({})", shown(name), device.device)
}

fn sentence(revoked: &RevokedView) -> String {
    let called = called(&revoked.device);
    let what = match (revoked.was_revoked, revoked.renewed) {
        (false, _) => format!("{called} is revoked"),
        (true, 0) => format!("{called} was revoked before"),
        (true, keys) => {
            format!("{called} was revoked before; {keys} keys that it held are renewed now")
        }
    };
    match revoked.left {
        0 => format!("{what}; what is stored from now on is under keys that it does not get"),
        left => format!(
            "{what}; {left} keys that revoked devices hold are not on this device, and are renewed by one that has them"
        ),
    }
}

/// What is said before a device is revoked.
const REVOCATION: &str = "
The cell stops serving the device at once, its consents end, and whatever it signs from now on is refused
by your other devices. New keys are made that it does not get. What it could read until now it may have
kept: nobody can take that back. Its files stay on it. It cannot come back except as a new device.
";

/// What is said with a code.
const LINKING: &str = "
Whoever has this code can ask to join your account: show it to the new device and to nobody else. It is
good once, for ten minutes. On the new device: candor device join, and scan or paste the code.
";
