//! `candor device …`: the account's devices, and taking one out.

use candor_client::commands::{Command, RevokedView};

use crate::App;
use crate::args::DeviceCommand;
use crate::door::Door;
use crate::failure::{Failure, Outcome};
use crate::progress::{execute, object, view};
use crate::text::shown;
use crate::{terminal, views};

pub(crate) fn run(app: &App, command: DeviceCommand) -> Outcome {
    let mut door = Door::open(app)?;
    let result = match command {
        DeviceCommand::List => list(app, &mut door),
        DeviceCommand::Revoke { device, yes } => revoke(app, &mut door, device, yes),
    };
    door.close(app);
    result
}

fn list(app: &App, door: &mut Door) -> Outcome {
    let devices = view!(execute(app, door, Command::DeviceList)?, Devices)?;
    object(&app.ui, "devices", &devices)?;
    app.ui.data(&views::devices(&devices).join("\n"))
}

fn revoke(app: &App, door: &mut Door, device: String, yes: bool) -> Outcome {
    app.ui.note(REVOCATION);
    if !yes && !app.ui.can_ask() {
        let sentence = "there is no terminal to ask whether to revoke the device";
        return Err(Failure::usage(sentence).hint("in a script, --yes revokes it"));
    }
    if !yes && !terminal::ask_yes(&app.ui, &format!("Revoke {}?", shown(&device)))? {
        app.ui.note("Nothing was changed.");
        return Ok(());
    }
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

fn sentence(revoked: &RevokedView) -> String {
    let device = &revoked.device;
    let name = device.name.as_deref().unwrap_or("the device");
    let (name, id) = (shown(name), &device.device);
    match (revoked.was_revoked, revoked.renewed) {
        (false, _) => format!("{name} ({id}) is revoked, and the keys that it held are renewed"),
        (true, 0) => format!("{name} ({id}) was revoked before, and its keys were renewed"),
        (true, keys) => {
            format!("{name} ({id}) was revoked before; {keys} keys that it held are renewed now")
        }
    }
}

/// What is said before a device is revoked.
const REVOCATION: &str = "
The cell stops serving the device at once, its consents end, and whatever it signs from now on is refused
by your other devices. New keys are made that it does not get. What it could read until now it may have
kept: nobody can take that back. Its files stay on it. It cannot come back except as a new device.
";
