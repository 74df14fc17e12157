//! The engine's socket, served: other commands of this person use the engine that runs already.

use std::sync::Arc;
use std::time::Duration;

use candor_client::commands::{COMMANDS_VERSION, Command, Event, Failure, View};
use candor_client::{Cancel, Engine};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::App;
use crate::failure::{Doing as _, Kind, Outcome};
use crate::signals::Stop;
use crate::socket::{Channel, Listener, Sender, SocketError};

/// Most commands at once through the socket.
const CONNECTIONS_MAX: usize = 32;

/// How long the first message may take. It is sent together with the connection.
const HELLO_WAIT: Duration = Duration::from_secs(5);

/// Events that wait for a slow reader before the engine waits too.
const EVENTS_WAITING_MAX: usize = 256;

/// What a command sends to the engine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToEngine {
    /// The first message.
    Hello {
        /// [`COMMANDS_VERSION`].
        version: u32,
    },
    /// Runs a command. One at a time per connection.
    Run(Box<Command>),
    /// Ends the running command cleanly.
    Cancel,
}

/// What the engine sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FromEngine {
    /// The answer to the first message.
    Hello {
        /// [`COMMANDS_VERSION`].
        version: u32,
        /// Whether the engine stays (`candor up`) or serves a single command.
        stays: bool,
    },
    /// Something that happened while a command runs.
    Event(Event),
    /// The command is done.
    Done(View),
    /// The command did not do what was asked.
    Failed(Failure),
}

/// A served engine.
pub(crate) struct Served {
    closing: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    engine: Arc<Engine>,
    stop: Stop,
    stays: bool,
}

impl Served {
    /// Starts to serve. The caller holds the home's lock.
    pub(crate) fn start(app: &App, engine: &Arc<Engine>, stays: bool) -> Outcome<Self> {
        let inside = app.runtime.enter();
        let listener = Listener::bind(&app.home.engine_socket())
            .doing(|| "make the engine's socket".to_owned())?;
        drop(inside);
        let closing = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            engine: Arc::clone(engine),
            stop: app.stop.clone(),
            stays,
        });
        let task = app
            .runtime
            .spawn(serve(listener, shared, Arc::clone(&closing)));
        Ok(Self { closing, task })
    }

    /// Takes no more commands, and waits for those that run: they end by themselves, or cleanly and
    /// soon if the program was asked to stop.
    pub(crate) async fn close(self) {
        self.closing.notify_one();
        // A task that panicked has ended too; its message is on standard error.
        let _ = self.task.await;
    }
}

async fn serve(listener: Listener, shared: Arc<Shared>, closing: Arc<Notify>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut running = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            (place, accepted) = next => {
                let Ok(channel) = accepted else { break };
                let shared = Arc::clone(&shared);
                running.spawn(async move {
                    // Whoever asked sees that the connection ended; there is nobody else to tell.
                    let _ = converse(channel, &shared).await;
                    drop(place);
                });
            }
            Some(_) = running.join_next() => {}
            () = closing.notified() => break,
        }
    }
    drop(listener);
    while running.join_next().await.is_some() {}
}

async fn converse(channel: Channel, shared: &Shared) -> Result<(), SocketError> {
    let Channel {
        mut receiver,
        mut sender,
    } = channel;
    // Whoever connects and says nothing must not keep this process from ending.
    let hello = tokio::time::timeout(HELLO_WAIT, receiver.receive());
    let hello = tokio::select! {
        hello = hello => hello.unwrap_or(Ok(None))?,
        () = shared.stop.stopped() => return Ok(()),
    };
    sender
        .send(&FromEngine::Hello {
            version: COMMANDS_VERSION,
            stays: shared.stays,
        })
        .await?;
    let Some(ToEngine::Hello {
        version: COMMANDS_VERSION,
    }) = hello
    else {
        return Ok(());
    };
    // A task of its own reads, so that no message is lost half-way, and "cancel" is seen at once.
    let (messages, mut arriving) = mpsc::channel(1);
    let reading = tokio::spawn(async move {
        while let Ok(Some(message)) = receiver.receive::<ToEngine>().await {
            if messages.send(message).await.is_err() {
                break;
            }
        }
    });
    let result = commands(&mut arriving, &mut sender, shared).await;
    reading.abort();
    result
}

async fn commands(
    arriving: &mut mpsc::Receiver<ToEngine>,
    sender: &mut Sender,
    shared: &Shared,
) -> Result<(), SocketError> {
    loop {
        // Between commands, a program that was asked to stop waits for nobody.
        let message = tokio::select! {
            message = arriving.recv() => message,
            () = shared.stop.stopped() => return Ok(()),
        };
        match message {
            Some(ToEngine::Run(command)) if *command == Command::Stop => {
                shared.stop.stop();
                return sender.send(&FromEngine::Done(View::Done)).await;
            }
            Some(ToEngine::Run(command)) => execute(*command, arriving, sender, shared).await?,
            // A command may end just before somebody asks to end it.
            Some(ToEngine::Cancel) => {}
            Some(ToEngine::Hello { .. }) => return Err(SocketError::Malformed),
            None => return Ok(()),
        }
    }
}

async fn execute(
    command: Command,
    arriving: &mut mpsc::Receiver<ToEngine>,
    sender: &mut Sender,
    shared: &Shared,
) -> Result<(), SocketError> {
    let cancel = Cancel::default();
    let (events, mut happening) = mpsc::channel(EVENTS_WAITING_MAX);
    let (engine, cancelled) = (Arc::clone(&shared.engine), cancel.clone());
    let mut work = tokio::task::spawn_blocking(move || {
        let mut tell = |event| {
            if events.blocking_send(event).is_err() {
                cancelled.cancel();
            }
        };
        engine.execute(command, &mut tell, &cancelled)
    });
    let mut listens = true;
    let result = loop {
        tokio::select! {
            biased;
            Some(event) = happening.recv() => {
                if let Err(error) = sender.send(&FromEngine::Event(event)).await {
                    // Nobody waits for the result: what was done so far is kept, and resumed later.
                    cancel.cancel();
                    drop(happening);
                    let _ = work.await;
                    return Err(error);
                }
            }
            message = arriving.recv(), if listens => {
                listens = message.is_some();
                cancel.cancel();
            }
            () = shared.stop.stopped(), if !cancel.is_cancelled() => cancel.cancel(),
            result = &mut work => break result,
        }
    };
    // The work is done, so every event that it told is here.
    while let Ok(event) = happening.try_recv() {
        sender.send(&FromEngine::Event(event)).await?;
    }
    let reply = match result {
        Ok(Ok(view)) => FromEngine::Done(view),
        Ok(Err(failure)) => FromEngine::Failed(failure),
        Err(error) => {
            let failure =
                crate::failure::Failure::because("the engine stopped in the middle", &error);
            FromEngine::Failed(failure.kind(Kind::Failed).into())
        }
    };
    sender.send(&reply).await
}
