//! `candor status`.

use candor_client::commands::{Command, ServiceView, StatusView};
use clap::ValueEnum as _;

use crate::App;
use crate::args::Service;
use crate::door::{Door, NO_ACCOUNT_HINT};
use crate::failure::Outcome;
use crate::progress::{execute, object, view};
use crate::{device, views};

/// Shows what is on, what is safe and what is pending.
pub(crate) fn run(app: &App) -> Outcome {
    let status = if !device::has_account(app)? {
        without_account()
    } else {
        let mut door = Door::open(app)?;
        let status = *view!(execute(app, &mut door, Command::Status)?, Status)?;
        door.close(app);
        status
    };
    object(&app.ui, "status", &status)?;
    app.ui.data(&views::status(&status).join("\n"))
}

fn without_account() -> StatusView {
    let off = |service: &Service| ServiceView {
        name: service.name().to_owned(),
        on: false,
        ends_ms: None,
    };
    StatusView {
        account: None,
        services: Service::value_variants().iter().map(off).collect(),
        sets: Vec::new(),
        folders: Vec::new(),
        erasures: Vec::new(),
        warnings: vec![format!(
            "nothing on this device is backed up: {NO_ACCOUNT_HINT}"
        )],
        witnessed: false,
        log: None,
    }
}
