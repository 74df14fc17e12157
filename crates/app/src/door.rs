//! The way to the engine: the one that runs already, through its socket, or one in this process.

use std::sync::Arc;

use candor_client::commands::{COMMANDS_VERSION, Command, Event, View};
use candor_client::home::Home;
use candor_client::{Cancel, Engine};
use candor_server::Cell;

use crate::App;
use crate::device::{self, LockOr, Opened, Seen};
use crate::failure::{Failure, Kind, Outcome};
use crate::signals::Stop;
use crate::socket::{Channel, SocketError};
use crate::socket_server::{FromEngine, Served, ToEngine};

/// A way to the engine.
pub(crate) enum Door {
    /// Through the socket of another process.
    There(Remote),
    /// In this process.
    Here(Local),
}

/// A conversation with the engine of another process.
pub(crate) struct Remote {
    channel: Channel,
    /// Whether that process stays (`candor up`).
    pub(crate) stays: bool,
}

/// The engine in this process.
pub(crate) struct Local {
    engine: Arc<Engine>,
    served: Option<Served>,
    // Kept open for as long as the engine may call it.
    _cell: Option<Cell>,
}

/// The hint for whoever has no account yet.
pub(crate) const NO_ACCOUNT_HINT: &str = "`candor up PATH` starts with a cell of your own; `candor account create NAME --cell INVITATION` joins another one; `candor account recover --cell INVITATION` gets an account back";

impl Door {
    /// Opens the way for one command of a device that has an account.
    pub(crate) fn open(app: &App) -> Outcome<Self> {
        if !device::has_account(app)? {
            return Err(
                Failure::new(Kind::Failed, "there is no account on this device")
                    .hint(NO_ACCOUNT_HINT),
            );
        }
        let look = || Ok(connect(app)?.map_or(Seen::Nobody, Seen::Other));
        match device::lock_or(app, look)? {
            LockOr::Other(remote) => Ok(Self::There(remote)),
            LockOr::Locked(home) => Self::here(app, home, None, false),
        }
    }

    /// The engine in this process, served to other commands for as long as this one runs: whoever
    /// comes in the meantime uses the same one. `stays` says whether this is `candor up`.
    pub(crate) fn here(
        app: &App,
        home: Home,
        embedded: Option<Cell>,
        stays: bool,
    ) -> Outcome<Self> {
        let opened = device::open(app, home, embedded)?;
        Self::serve(app, opened, stays)
    }

    /// The same with an engine that is open.
    pub(crate) fn serve(app: &App, opened: Opened, stays: bool) -> Outcome<Self> {
        let served = Served::start(app, &opened.engine, stays)?;
        Ok(Self::Here(Local {
            engine: opened.engine,
            served: Some(served),
            _cell: opened.cell,
        }))
    }

    /// The engine, if it is in this process.
    pub(crate) fn engine(&self) -> Option<Arc<Engine>> {
        match self {
            Self::Here(local) => Some(Arc::clone(&local.engine)),
            Self::There(_) => None,
        }
    }

    /// Runs one command. Events come as they happen; asking the program to stop ends it cleanly.
    pub(crate) fn execute(
        &mut self,
        app: &App,
        command: Command,
        events: &mut dyn FnMut(Event),
    ) -> Outcome<View> {
        app.stop.check()?;
        match self {
            Self::There(remote) => {
                app.runtime
                    .block_on(converse(&mut remote.channel, command, events, &app.stop))
            }
            Self::Here(local) => {
                let cancel = Cancel::default();
                let (stop, cancelled) = (app.stop.clone(), cancel.clone());
                let watching = app.runtime.spawn(async move {
                    stop.stopped().await;
                    cancelled.cancel();
                });
                let result = local.engine.execute(command, events, &cancel);
                watching.abort();
                Ok(result?)
            }
        }
    }

    /// Ends what this process serves, after the commands that still use it.
    pub(crate) fn close(self, app: &App) {
        if let Self::Here(Local {
            served: Some(served),
            ..
        }) = self
        {
            app.runtime.block_on(served.close());
        }
    }
}

/// Connects to the engine that runs, if one does.
pub(crate) fn connect(app: &App) -> Outcome<Option<Remote>> {
    match app.runtime.block_on(greet(app)) {
        Ok(remote) => Ok(Some(remote)),
        // Also one that ends just now: its lock is free in a moment.
        Err(SocketError::Nobody | SocketError::Broken(_)) => Ok(None),
        Err(error @ (SocketError::Foreign { .. } | SocketError::Malformed)) => {
            let sentence = "the engine that runs cannot be talked to";
            Err(Failure::because(sentence, &error)
                .hint("is it of another version, or somebody else's?"))
        }
    }
}

async fn greet(app: &App) -> Result<Remote, SocketError> {
    let mut channel = Channel::connect(&app.home.engine_socket()).await?;
    channel
        .sender
        .send(&ToEngine::Hello {
            version: COMMANDS_VERSION,
        })
        .await?;
    match channel.receiver.receive().await? {
        Some(FromEngine::Hello {
            version: COMMANDS_VERSION,
            stays,
        }) => Ok(Remote { channel, stays }),
        Some(_) => Err(SocketError::Malformed),
        None => Err(SocketError::Nobody),
    }
}

async fn converse(
    channel: &mut Channel,
    command: Command,
    events: &mut dyn FnMut(Event),
    stop: &Stop,
) -> Outcome<View> {
    let Channel { receiver, sender } = channel;
    sender
        .send(&ToEngine::Run(Box::new(command)))
        .await
        .map_err(|error| lost(&error))?;
    let answer = async {
        loop {
            match receiver.receive().await.map_err(|error| lost(&error))? {
                Some(FromEngine::Event(event)) => events(event),
                Some(FromEngine::Done(view)) => return Ok(view),
                Some(FromEngine::Failed(failure)) => return Err(failure.into()),
                Some(FromEngine::Hello { .. }) => return Err(lost(&SocketError::Malformed)),
                None => return Err(lost(&SocketError::Nobody)),
            }
        }
    };
    let cancel = async {
        stop.stopped().await;
        // If it cannot be sent, the answer's side sees why.
        let _ = sender.send(&ToEngine::Cancel).await;
        core::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = cancel => Err(crate::signals::interrupted()),
    }
}

fn lost(error: &SocketError) -> Failure {
    Failure::because("the engine that ran has ended in the middle", error)
        .hint("run it again: it goes on where it stopped")
}
