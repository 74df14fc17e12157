//! Candor's one program: the device's commands and the cell's. Nothing depends on this crate. It
//! alone prints, reads the environment, and knows where the device's folder is.

#![cfg_attr(
    not(feature = "device"),
    allow(
        dead_code,
        reason = "the shared modules serve the device's commands too, which this build leaves out"
    )
)]

mod args;
#[cfg(feature = "device")]
mod args_device;
mod cell;
mod extras;
mod failure;
mod home;
mod signals;
mod socket;
mod text;
mod ui;
mod witness;

#[cfg(feature = "device")]
mod account;
#[cfg(feature = "device")]
mod allocator;
#[cfg(feature = "device")]
mod background;
#[cfg(feature = "device")]
mod backup;
#[cfg(feature = "device")]
mod consent;
#[cfg(feature = "device")]
mod device;
#[cfg(feature = "device")]
mod devices;
#[cfg(feature = "device")]
mod door;
#[cfg(feature = "device")]
mod export;
#[cfg(feature = "device")]
mod ledger;
#[cfg(feature = "device")]
mod log;
#[cfg(feature = "device")]
mod pages;
#[cfg(feature = "device")]
mod progress;
#[cfg(feature = "device")]
mod re_anchor;
#[cfg(feature = "device")]
mod receipt;
#[cfg(feature = "device")]
mod service;
#[cfg(feature = "device")]
mod socket_server;
#[cfg(feature = "device")]
mod status;
#[cfg(feature = "device")]
mod sync;
#[cfg(feature = "device")]
mod terminal;
#[cfg(feature = "device")]
mod today;
#[cfg(feature = "device")]
mod up;
#[cfg(feature = "device")]
mod views;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Global, Top};
use crate::failure::{Doing as _, Outcome};
use crate::home::HomeDir;
use crate::signals::Stop;
use crate::ui::Ui;

/// What every command works with.
pub(crate) struct App {
    /// How it talks.
    pub(crate) ui: Ui,
    /// Where the device's folder is.
    pub(crate) home: HomeDir,
    /// Where asynchronous work runs.
    pub(crate) runtime: tokio::runtime::Runtime,
    /// Whether the program was asked to stop.
    pub(crate) stop: Stop,
    /// Where the key store's passphrase is.
    #[cfg(feature = "device")]
    pub(crate) passphrase_file: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    // Wrong usage exits with 2 here; `--help` and `--version` with 0.
    let Cli { global, command } = Cli::parse();
    #[cfg(feature = "device")]
    if command.lasts() {
        allocator::settle();
    }
    let ui = Ui::new(global.json);
    let app = match prepare(ui, &global, command.needs_home()) {
        Ok(app) => app,
        Err(failure) => {
            Ui::new(global.json).failure(&failure);
            return failure.exit();
        }
    };
    let result = dispatch(&app, command);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            app.ui.failure(&failure);
            failure.exit()
        }
    }
}

fn prepare(ui: Ui, global: &Global, needs_home: bool) -> Outcome<App> {
    // Before the first secret is in memory. What a container forbids is done without.
    #[cfg(feature = "device")]
    let _ = candor_client::sys::harden_process();
    let home = match HomeDir::find(global.home.as_deref()) {
        Err(failure) if needs_home => return Err(failure),
        found => found.unwrap_or_else(|_| HomeDir::nowhere()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.doing(|| "start the program's threads".to_owned())?;
    let stop = Stop::new();
    signals::listen(runtime.handle(), &stop, at_prompt)?;
    Ok(App {
        ui,
        home,
        runtime,
        stop,
        #[cfg(feature = "device")]
        passphrase_file: global.passphrase_file.clone(),
    })
}

#[cfg(feature = "device")]
fn at_prompt() -> bool {
    terminal::leave_prompt()
}

#[cfg(not(feature = "device"))]
fn at_prompt() -> bool {
    false
}

fn dispatch(app: &App, command: Top) -> Outcome {
    match command {
        #[cfg(feature = "device")]
        Top::Up(args) => up::run(app, &args),
        #[cfg(feature = "device")]
        Top::Status => status::run(app),
        #[cfg(feature = "device")]
        Top::Account(command) => account::run(app, command),
        #[cfg(feature = "device")]
        Top::Device(command) => devices::run(app, command),
        #[cfg(feature = "device")]
        Top::Consent(command) => consent::run(app, command),
        #[cfg(feature = "device")]
        Top::Backup(command) => backup::run(app, command),
        #[cfg(feature = "device")]
        Top::Sync(command) => sync::run(app, command),
        #[cfg(feature = "device")]
        Top::Export(args) => export::run(app, &args),
        #[cfg(feature = "device")]
        Top::Service(command) => service::run(app, command),
        #[cfg(feature = "device")]
        Top::Ledger(args) => ledger::run(app, args),
        Top::Server(command) => cell::run(app, command),
        Top::Log(args::LogCommand::Key) => witness::log_key(app),
        #[cfg(feature = "device")]
        Top::Log(args::LogCommand::Checkpoint { compare }) => {
            log::checkpoint(app, compare.as_deref())
        }
        #[cfg(feature = "device")]
        Top::Log(args::LogCommand::Prove { statement, output }) => {
            log::prove(app, statement, output)
        }
        #[cfg(feature = "device")]
        Top::Log(args::LogCommand::Monitor) => log::monitor(app),
        #[cfg(feature = "device")]
        Top::Log(args::LogCommand::Verify {
            proof,
            leaf,
            policy,
        }) => receipt::verify_proof(app, &proof, leaf.as_deref(), &policy),
        Top::Log(args::LogCommand::Witness(command)) => witness::run(app, command),
        Top::Completions { shell } => extras::completions(app, shell),
        Top::Man { to } => extras::man(app, &to),
    }
}
