//! `candor status`.

use candor_client::commands::{
    Command, ConsentView, LedgerSummaryView, ServiceView, StatusView, View,
};
use clap::ValueEnum as _;

use crate::App;
use crate::args::Service;
use crate::door::{Door, NO_ACCOUNT_HINT};
use crate::failure::Outcome;
use crate::progress::{execute, object, view};
use crate::text::now_ms;
use crate::today::Today;
use crate::{device, views};

/// Shows what is on, what is safe and what is pending.
pub(crate) fn run(app: &App) -> Outcome {
    if !device::has_account(app)? {
        return tell(app, &without_account(), &[], None);
    }
    let mut door = Door::open(app)?;
    let status = view!(execute(app, &mut door, Command::Status)?, Status)?;
    // A device that does not know its account's chain any more says so among the warnings.
    let consents = match execute(app, &mut door, Command::ConsentList) {
        Ok(View::Consents(consents)) => consents,
        _ => Vec::new(),
    };
    let summary = view!(
        execute(app, &mut door, Command::LedgerSummary)?,
        LedgerSummary
    )?;
    door.close(app);
    tell(app, &status, &consents, Some(&summary))
}

/// The page Home answers the same questions, in the same order and in the same words.
fn tell(
    app: &App,
    status: &StatusView,
    consents: &[ConsentView],
    summary: Option<&LedgerSummaryView>,
) -> Outcome {
    object(&app.ui, "status", status)?;
    let today = summary.map(|summary| Today::of(summary, now_ms()));
    app.ui
        .data(&views::status(status, consents, today.as_ref()).join("\n"))
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
