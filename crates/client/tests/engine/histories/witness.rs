//! Witnesses in this process, as friends run them: each with a folder and a port of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use candor_server::witness::{Witness, WitnessOptions, add_log};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::world::TestClock;

/// One for the witnesses of all histories.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    })
}

/// A witness of the cell's log.
pub(super) struct Friend {
    pub(super) name: String,
    pub(super) key: String,
    folder: PathBuf,
    clock: Arc<TestClock>,
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// Whether it left for good.
    pub(super) is_gone: bool,
    /// Whether the cell may leave it alone still, because it was silent.
    pub(super) is_resting: bool,
}

impl Friend {
    /// A new one, which listens and knows no log yet.
    pub(super) fn new(name: &str, folder: PathBuf, clock: Arc<TestClock>) -> Self {
        let mut friend = Self {
            name: name.to_owned(),
            key: String::new(),
            folder,
            clock,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            running: None,
            is_gone: false,
            is_resting: false,
        };
        assert!(friend.start());
        friend
    }

    /// For the settings of the cell.
    pub(super) fn line(&self) -> String {
        format!("{} http://{}/", self.key, self.address)
    }

    /// Adds the log to those that it looks at.
    pub(super) fn know(&self, log: &str) {
        add_log(&self.folder, log).unwrap();
    }

    /// Whether the cell can have its word now.
    pub(super) const fn is_of_use(&self) -> bool {
        self.running.is_some() && !self.is_resting
    }

    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts it where it was. `false`: somebody took its port meanwhile, and it stays away.
    pub(super) fn start(&mut self) -> bool {
        let options = WitnessOptions {
            name: Some(format!("{}.example/w", self.name)),
            clock: Arc::clone(&self.clock) as Arc<dyn candor_server::clock::Clock>,
            ..WitnessOptions::default()
        };
        let witness = Witness::open(&self.folder, options).unwrap();
        self.key = witness.vkey();
        let Ok(listening) = runtime().block_on(witness.bind(self.address)) else {
            return false;
        };
        self.address = listening.address();
        let (stop, stopped) = oneshot::channel();
        let task = runtime().spawn(listening.run(async move {
            let _ = stopped.await;
        }));
        self.running = Some((stop, task));
        true
    }

    pub(super) fn stop(&mut self) {
        self.is_resting = true;
        let Some((stop, task)) = self.running.take() else {
            return;
        };
        let _ = stop.send(());
        let ended = async { tokio::time::timeout(Duration::from_secs(20), task).await };
        runtime().block_on(ended).unwrap().unwrap();
    }

    /// Asserts that it saw nothing wrong in the log.
    pub(super) fn assert_content(&self) {
        let proofs: Vec<PathBuf> = list(&self.folder.join("forks"));
        assert_eq!(proofs, Vec::<PathBuf>::new(), "{} saw a fork", self.name);
    }
}

impl Drop for Friend {
    fn drop(&mut self) {
        if let Some((stop, _)) = self.running.take() {
            let _ = stop.send(());
        }
    }
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}
