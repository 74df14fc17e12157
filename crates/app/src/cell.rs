//! A cell in this process: the `server` commands, and the pieces that `candor up` shares with them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use candor_server::log::Log;
use candor_server::{
    Cell, CellConfig, CellOptions, InitError, InitParams, OpenError, ReAnchorError, ServeError,
    Stats, StatsError, begin_log_anew,
};
use candor_wire::cell::Invitation;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::App;
use crate::args::{ServerCommand, ServerInit};
use crate::failure::{Doing as _, Failure, Kind, Outcome};
use crate::socket::{Channel, Listener, SocketError};
use crate::text;

/// The version of the messages on the cell's socket.
const CONTROL_VERSION: u32 = 1;

/// Most people that ask a running cell at once.
const CONTROL_CONNECTIONS_MAX: usize = 8;

/// Whoever runs a cell beside their own device, as they read it before they consent.
#[cfg(feature = "device")]
const SELF_CONTROLLER: &str = "you (this machine)";

/// Where the embedded cell keeps data, unless somebody says otherwise.
#[cfg(feature = "device")]
const SELF_REGION: &str = "home";

/// What is asked of a running cell.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ask {
    /// An invitation.
    Invite {
        /// [`CONTROL_VERSION`].
        version: u32,
    },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// The text of an invitation.
    Invitation(String),
    /// Why there is none.
    Failed(String),
}

/// Runs a `server` command.
pub(crate) fn run(app: &App, command: ServerCommand) -> Outcome {
    match command {
        ServerCommand::Init(args) => init(app, args),
        ServerCommand::Run { config } => serve(app, config.as_deref()),
        ServerCommand::Invite => invite(app),
        ServerCommand::ReAnchor { yes } => re_anchor(app, yes),
        ServerCommand::Stats => show_stats(app),
        ServerCommand::CheckConfig { config } => check_config(app, config.as_deref()),
    }
}

fn init(app: &App, args: ServerInit) -> Outcome {
    app.home.make()?;
    let params = InitParams {
        region: args.region,
        controller: args.controller,
        listen: args.listen,
        public_addresses: args.public_address,
    };
    let folder = app.home.cell();
    app.runtime
        .block_on(Cell::init(&folder, &params))
        .map_err(|error| init_failure(&error))?;
    let cell = open(app, CellOptions::default())?;
    let config = cell.config();
    app.ui.object(
        "cell",
        json!({
            "cell": cell.id().to_string(),
            "region": config.region,
            "controller": config.controller,
            "listen": config.listen.to_string(),
            "folder": folder.display().to_string(),
        }),
    )?;
    app.ui
        .data(&format!("cell {} in {}", cell.id(), folder.display()))?;
    app.ui.note(&format!(
        "It will listen on {}; invitations will name {} (`public_addresses` in cell.toml).\nNext: `candor server run`, then `candor server invite`.",
        config.listen,
        config.invitation_addresses().join(", ")
    ));
    Ok(())
}

fn init_failure(error: &InitError) -> Failure {
    let failure = Failure::because("the cell could not be made", error);
    match error {
        InitError::AlreadyThere { .. } => {
            failure.hint("`candor server run` starts it; --home names another folder")
        }
        InitError::Config(_) => failure.kind(Kind::Usage),
        InitError::NoPort { .. } => failure.hint("choose another address with --listen"),
        InitError::File { .. } | InitError::Open(_) => failure,
    }
}

/// Opens this home's cell.
pub(crate) fn open(app: &App, options: CellOptions) -> Outcome<Cell> {
    app.runtime
        .block_on(Cell::open_with(&app.home.cell(), options))
        .map_err(|error| open_failure(&error))
}

/// An opening error with its hint.
pub(crate) fn open_failure(error: &OpenError) -> Failure {
    let failure = Failure::because("the cell could not be opened", error);
    match error {
        OpenError::NoCell { .. } => failure
            .hint("`candor server init --region NAME` makes one; --home names another folder"),
        OpenError::InUse { .. } => {
            failure.hint("it runs already, in `candor server run` or `candor up`")
        }
        OpenError::Config(_) | OpenError::Region { .. } => {
            failure.hint("`candor server check-config` tells more")
        }
        OpenError::Identity(_) => failure.kind(Kind::Integrity),
        OpenError::BeginningAnew => failure.hint("`candor server re-anchor --yes` finishes it"),
        _ => failure,
    }
}

fn options(config: Option<&Path>) -> Outcome<CellOptions> {
    let config = config.map(|path| {
        let read = CellConfig::from_file(path);
        read.map_err(|error| {
            Failure::because("the settings cannot be used", &error).kind(Kind::Usage)
        })
    });
    Ok(CellOptions {
        config: config.transpose()?,
        log: Log::to_stderr(),
        ..CellOptions::default()
    })
}

fn serve(app: &App, config: Option<&Path>) -> Outcome {
    let cell = open(app, options(config)?)?;
    let running = Running::start(app, &cell)?;
    app.ui
        .object("listening", json!(running.address.to_string()))?;
    app.ui.note(&format!("listening on {}", running.address));
    app.runtime.block_on(async {
        let stop = app.stop.clone();
        stop.stopped().await;
        running.ended().await;
    });
    app.ui.note("the cell has stopped");
    Ok(())
}

fn invite(app: &App) -> Outcome {
    let text = match app.runtime.block_on(ask_running(app)) {
        Ok(text) => text,
        Err(SocketError::Nobody) => {
            let cell = open(app, CellOptions::default())?;
            app.runtime.block_on(make_invitation(&cell))?.to_text()
        }
        Err(error) => {
            return Err(Failure::because(
                "the running cell could not be asked",
                &error,
            ));
        }
    };
    app.ui.object("invitation", json!(text))?;
    app.ui.data(&text)?;
    app.ui.note(
        "Good for one account, for a week. Whoever has it can use it: hand it over in private.",
    );
    Ok(())
}

/// An invitation with a right to open an account.
pub(crate) async fn make_invitation(cell: &Cell) -> Outcome<Invitation> {
    cell.invite()
        .await
        .map_err(|error| Failure::because("no invitation could be made", &error))
}

async fn ask_running(app: &App) -> Result<String, SocketError> {
    let mut channel = Channel::connect(&app.home.cell_socket()).await?;
    channel
        .sender
        .send(&Ask::Invite {
            version: CONTROL_VERSION,
        })
        .await?;
    match channel.receiver.receive().await? {
        Some(Answer::Invitation(text)) => Ok(text),
        Some(Answer::Failed(why)) => Err(SocketError::Broken(std::io::Error::other(why))),
        None => Err(SocketError::Nobody),
    }
}

/// Begins the log of this home's cell anew.
fn re_anchor(app: &App, yes: bool) -> Outcome {
    if !yes {
        return Err(Failure::new(
            Kind::Usage,
            "this begins the cell's public log anew, and every device will ask its person about it",
        )
        .hint("only after a restore from a backup; then: `candor server re-anchor --yes`"));
    }
    let begun = app
        .runtime
        .block_on(begin_log_anew(&app.home.cell()))
        .map_err(|error| re_anchor_failure(&error))?;
    app.ui.object(
        "log",
        json!({
            "number": begun.number,
            "signed_before": begun.signed_before,
            "statements": begun.statements,
            "accounts": begun.accounts,
        }),
    )?;
    app.ui.data(&format!(
        "log {} begins: {} statements of {} accounts go into it",
        begun.number, begun.statements, begun.accounts
    ))?;
    let before = match begun.signed_before {
        Some(size) => format!("The old log had {size} entries when it was last signed."),
        None => "How far the old log had come is not remembered.".to_owned(),
    };
    app.ui.note(&format!(
        "{before} Its files are kept beside the new ones.\nNext: `candor server run`. Devices that saw more than this cell has now will say so, and ask: `candor account re-anchor`."
    ));
    Ok(())
}

fn re_anchor_failure(error: &ReAnchorError) -> Failure {
    match error {
        ReAnchorError::Open(error) => open_failure(error),
        error => Failure::because("the log could not be begun anew", error)
            .hint("run it again: it goes on where it stopped"),
    }
}

fn show_stats(app: &App) -> Outcome {
    let folder = app.home.cell();
    let stats = candor_server::stats(&folder).map_err(|error| {
        let hint = match &error {
            StatsError::NoCell { .. } => {
                "`candor server init` makes one; --home names another folder"
            }
            StatsError::Store(_) => "`candor server run` says more when it starts",
        };
        Failure::because("there are no numbers", &error).hint(hint)
    })?;
    let Stats {
        accounts,
        invitations,
        statements,
        vaults,
        objects,
        stored_bytes,
        condemned,
        condemned_bytes,
        reserved_bytes,
        quota_bytes,
        log_entries,
        log_waiting,
    } = stats;
    app.ui.object(
        "stats",
        json!({
            "accounts": accounts,
            "unused_invitations": invitations,
            "statements": statements,
            "vaults": vaults,
            "objects": objects,
            "stored_bytes": stored_bytes,
            "condemned_objects": condemned,
            "condemned_bytes": condemned_bytes,
            "reserved_bytes": reserved_bytes,
            "quota_bytes": quota_bytes,
            "log_entries": log_entries,
            "log_waiting": log_waiting,
        }),
    )?;
    let rows = [
        ("accounts", text::count(accounts)),
        ("unused invitations", text::count(invitations)),
        ("statements in chains", text::count(statements)),
        ("vaults", text::count(vaults)),
        ("objects", text::count(objects)),
        ("stored", text::bytes(stored_bytes)),
        (
            "of that, waiting to be deleted",
            format!(
                "{} in {} objects",
                text::bytes(condemned_bytes),
                text::count(condemned)
            ),
        ),
        ("promised to uploads", text::bytes(reserved_bytes)),
        ("allowed to all accounts", text::bytes(quota_bytes)),
        ("entries of the log", text::count(log_entries)),
        ("waiting for the log", text::count(log_waiting)),
    ];
    let lines = rows.map(|(name, value)| format!("{name:<31} {value}"));
    app.ui.data(&lines.join("\n"))
}

fn check_config(app: &App, config: Option<&Path>) -> Outcome {
    let own = app.home.cell().join("cell.toml");
    let path = config.unwrap_or(&own);
    let read = CellConfig::from_file(path).map_err(|error| {
        Failure::because(format!("{} cannot be used", path.display()), &error)
            .hint("nothing was started or changed")
    })?;
    app.ui.object(
        "config",
        serde_json::to_value(&read).doing(|| "show the settings".to_owned())?,
    )?;
    app.ui.data(&format!("{}: good", path.display()))?;
    app.ui.data(&format!(
        "region {}, run by {}, listening on {}",
        read.region, read.controller, read.listen
    ))
}

/// A cell that answers other devices, and this person's `server invite`.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
    control: JoinHandle<()>,
}

impl Running {
    /// Starts both; they end when the program is asked to stop.
    pub(crate) fn start(app: &App, cell: &Cell) -> Outcome<Self> {
        let listening = app
            .runtime
            .block_on(cell.bind())
            .map_err(|error| serve_failure(&error))?;
        let address = listening.address();
        let stop = app.stop.clone();
        let serving = app
            .runtime
            .spawn(async move { listening.run(async move { stop.stopped().await }).await });
        let control = control(app, cell)?;
        Ok(Self {
            address,
            serving,
            control,
        })
    }

    /// Waits until both have ended.
    pub(crate) async fn ended(self) {
        // A task that panicked has ended too; its message is on standard error.
        let _ = self.serving.await;
        self.control.abort();
        let _ = self.control.await;
    }
}

fn serve_failure(error: &ServeError) -> Failure {
    Failure::because("the cell cannot listen", error)
        .hint("is another cell running? The address is `listen` in the cell's cell.toml")
}

/// Answers `candor server invite` of this person.
fn control(app: &App, cell: &Cell) -> Outcome<JoinHandle<()>> {
    let inside = app.runtime.enter();
    let listener =
        Listener::bind(&app.home.cell_socket()).doing(|| "make the cell's socket".to_owned())?;
    drop(inside);
    let (cell, stop) = (cell.clone(), app.stop.clone());
    Ok(app.runtime.spawn(async move {
        tokio::select! {
            () = answer_all(&listener, &cell) => {}
            () = stop.stopped() => {}
        }
    }))
}

async fn answer_all(listener: &Listener, cell: &Cell) {
    let places = Arc::new(Semaphore::new(CONTROL_CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok(channel) = listener.accept().await else {
            return;
        };
        let cell = cell.clone();
        tokio::spawn(async move {
            // Whoever asked sees that the connection ended.
            let _ = answer(channel, &cell).await;
            drop(place);
        });
    }
}

async fn answer(mut channel: Channel, cell: &Cell) -> Result<(), SocketError> {
    let answer = match channel.receiver.receive().await? {
        Some(Ask::Invite {
            version: CONTROL_VERSION,
        }) => match make_invitation(cell).await {
            Ok(invitation) => Answer::Invitation(invitation.to_text()),
            Err(failure) => Answer::Failed(failure.sentence),
        },
        Some(Ask::Invite { .. }) => {
            Answer::Failed("the running cell is of another version".to_owned())
        }
        None => return Ok(()),
    };
    channel.sender.send(&answer).await
}

/// Makes the cell of somebody who runs it for themselves, unless it is there, and opens it.
#[cfg(feature = "device")]
pub(crate) fn open_or_make_own(app: &App) -> Outcome<Cell> {
    let params = InitParams {
        region: SELF_REGION.to_owned(),
        controller: SELF_CONTROLLER.to_owned(),
        // Loopback: other machines are let in by a deliberate change of the settings.
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        public_addresses: Vec::new(),
    };
    app.home.make()?;
    match app.runtime.block_on(Cell::init(&app.home.cell(), &params)) {
        Ok(()) | Err(InitError::AlreadyThere { .. }) => open(app, CellOptions::default()),
        Err(error) => Err(init_failure(&error)),
    }
}
