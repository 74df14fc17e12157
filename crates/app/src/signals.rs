//! Being asked to stop: `Ctrl-C` and `SIGTERM`. The first lets the work end cleanly, the second ends
//! the process; both leave something that the next run resumes.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Doing as _, Failure, Kind, Outcome};

/// Whether this process was asked to stop. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// Not asked yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Asks.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was asked.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it was asked.
    pub(crate) async fn stopped(&self) {
        // This value holds the sender, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// What a command that was stopped answers.
    #[cfg(feature = "device")]
    pub(crate) fn check(&self) -> Outcome {
        if self.is_stopped() {
            Err(interrupted())
        } else {
            Ok(())
        }
    }
}

/// The failure of work that the person stopped.
pub(crate) fn interrupted() -> Failure {
    Failure::new(Kind::Interrupted, "stopped; run again to go on")
}

/// Listens for both signals for as long as the runtime runs. `at_prompt` is asked whether the
/// process waits for typing: then there is nothing to end cleanly.
pub(crate) fn listen(
    runtime: &tokio::runtime::Handle,
    stop: &Stop,
    at_prompt: fn() -> bool,
) -> Outcome {
    let _inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).doing(|| "listen for Ctrl-C".to_owned())?;
    let mut terminate =
        signal(SignalKind::terminate()).doing(|| "listen for SIGTERM".to_owned())?;
    let stop = stop.clone();
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if at_prompt() || stop.is_stopped() {
                std::process::exit(i32::from(Kind::Interrupted.code()));
            }
            stop.stop();
        }
    });
    Ok(())
}
