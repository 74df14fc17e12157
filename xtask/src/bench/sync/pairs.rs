//! Two devices that keep a folder in step, behind one small interface: Candor, and Syncthing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::contenders::{Server, candor, candor_version, new_cell};
use crate::bench::measure::{self, Usage};
use crate::e2e::free_port;
use crate::sys::{self, Doing, Failure, Outcome};

/// Name of the folder that is kept in step.
const FOLDER: &str = "bench";

/// What Syncthing waits for more changes before it tells of one, in seconds: the least that it can be set to.
const WATCHER_DELAY_S: u32 = 1;

/// Two devices, and whatever they need to reach each other.
pub(crate) trait Pair {
    fn name(&self) -> &'static str;
    /// What it says its version is.
    fn version(&self) -> Outcome<String>;
    /// Starts everything, up to the last step before something is sent. Not measured.
    fn start(&mut self, place: &Path, from: &Path, to: &Path) -> Outcome;
    /// Lets it begin; returns what that used beside the processes.
    fn begin(&mut self) -> Outcome<Usage>;
    /// The devices' processes.
    fn devices(&self) -> Vec<u32>;
    /// Every process.
    fn processes(&self) -> Vec<u32> {
        self.devices()
    }
    /// Names that it keeps for itself in each folder.
    fn own_names(&self) -> Vec<&'static str>;
    fn stop(&mut self);
}

/// Candor: two devices that are up, and a cell, each in a process of its own.
pub(crate) struct Candor {
    program: PathBuf,
    place: PathBuf,
    cell: Option<Server>,
    devices: Vec<Server>,
    folders: Vec<PathBuf>,
}

impl Candor {
    pub(crate) fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            place: PathBuf::new(),
            cell: None,
            devices: Vec::new(),
            folders: Vec::new(),
        }
    }

    fn device(&self, name: &str) -> Command {
        candor(&self.program, &self.place.join(name))
    }

    fn up(&self, name: &str) -> Outcome<Server> {
        let mut up = self.device(name);
        up.args(["up", "--no-open"]);
        Server::start(up, &self.place.join(format!("{name}.log")), "Stop: ")
    }
}

impl Pair for Candor {
    fn name(&self) -> &'static str {
        "candor"
    }

    fn version(&self) -> Outcome<String> {
        candor_version(&self.program)
    }

    fn start(&mut self, place: &Path, from: &Path, to: &Path) -> Outcome {
        place.clone_into(&mut self.place);
        self.folders = vec![from.to_owned(), to.to_owned()];
        let (cell, invitation) = new_cell(&self.program, place)?;
        self.cell = Some(cell);
        let phrase = place.join("phrase.txt");
        for (device, words) in [
            ("one", ["account", "create"]),
            ("two", ["account", "recover"]),
        ] {
            let mut enter = self.device(device);
            enter.args(words);
            if device == "one" {
                enter.arg("bench");
            }
            enter
                .args([
                    "--cell",
                    &invitation,
                    "--unprotected-keys",
                    "--recovery-file",
                ])
                .arg(&phrase);
            sys::output(&mut enter)?;
        }
        for device in ["one", "two"] {
            let up = self.up(device)?;
            self.devices.push(up);
        }
        Ok(())
    }

    fn begin(&mut self) -> Outcome<Usage> {
        let [from, to] = &self.folders[..] else {
            return Err(Failure::new("it was not started"));
        };
        let report = self.place.join("measured.json");
        let mut add = self.device("one");
        add.args(["sync", "add"]).arg(from);
        add.args(["--name", FOLDER, "--yes"]);
        let mut used = measure::of_command(&add, &report)?;
        let mut join = self.device("two");
        join.args(["sync", "join", FOLDER]).arg(to).arg("--yes");
        used.cpu_seconds += measure::of_command(&join, &report)?.cpu_seconds;
        Ok(used)
    }

    fn devices(&self) -> Vec<u32> {
        self.devices.iter().map(Server::id).collect()
    }

    fn processes(&self) -> Vec<u32> {
        let cell = self.cell.iter().map(Server::id);
        cell.chain(self.devices()).collect()
    }

    fn own_names(&self) -> Vec<&'static str> {
        vec![".candor-sync"]
    }

    fn stop(&mut self) {
        self.devices.clear();
        self.cell = None;
    }
}

/// Syncthing: two devices on this machine, which know each other's addresses.
pub(crate) struct Syncthing {
    program: PathBuf,
    homes: Vec<PathBuf>,
    devices: Vec<Server>,
}

impl Syncthing {
    pub(crate) fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            homes: Vec::new(),
            devices: Vec::new(),
        }
    }

    fn command(&self, home: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .arg("--home")
            .arg(home)
            .env("HOME", home)
            .stdin(Stdio::null());
        command
    }
}

/// The identity that Syncthing made for itself.
fn identity(settings: &str) -> Outcome<String> {
    settings
        .split("<device id=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("Syncthing has no identity"))
}

/// Its settings: one folder, the other device, and nothing that leaves this machine.
fn settings(folder: &Path, ids: &[String], ports: &[u16], own: usize, own_page: u16) -> String {
    let devices: String = ids
        .iter()
        .zip(ports)
        .map(|(id, port)| {
            format!(
                "<device id=\"{id}\" name=\"{port}\"><address>tcp://127.0.0.1:{port}</address></device>"
            )
        })
        .collect();
    let shared: String = ids
        .iter()
        .map(|id| format!("<device id=\"{id}\"></device>"))
        .collect();
    format!(
        "<configuration version=\"37\">\
         <folder id=\"{FOLDER}\" label=\"{FOLDER}\" path=\"{}\" type=\"sendreceive\" rescanIntervalS=\"3600\" \
         fsWatcherEnabled=\"true\" fsWatcherDelayS=\"{WATCHER_DELAY_S}\">{shared}<paused>true</paused></folder>\
         {devices}\
         <gui enabled=\"true\" tls=\"false\"><address>127.0.0.1:{own_page}</address><apikey>bench</apikey></gui>\
         <options><listenAddress>tcp://127.0.0.1:{}</listenAddress>\
         <globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>\
         <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><startBrowser>false</startBrowser>\
         <urAccepted>-1</urAccepted><autoUpgradeIntervalH>0</autoUpgradeIntervalH>\
         <crashReportingEnabled>false</crashReportingEnabled></options></configuration>\n",
        folder.display(),
        ports[own],
    )
}

impl Pair for Syncthing {
    fn name(&self) -> &'static str {
        "syncthing"
    }

    fn version(&self) -> Outcome<String> {
        Ok(sys::text(Command::new(&self.program).arg("--version"))?
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned())
    }

    fn start(&mut self, place: &Path, from: &Path, to: &Path) -> Outcome {
        self.homes = vec![place.join("one"), place.join("two")];
        let mut ids = Vec::new();
        for home in &self.homes {
            fs::create_dir(home)?;
            sys::output(&mut self.command(home, &["generate", "--no-default-folder"]))?;
            let made = fs::read_to_string(home.join("config.xml")).doing("Syncthing's settings")?;
            ids.push(identity(&made)?);
        }
        let ports = [free_port()?, free_port()?];
        for (own, (home, folder)) in self.homes.iter().zip([from, to]).enumerate() {
            let text = settings(folder, &ids, &ports, own, free_port()?);
            fs::write(home.join("config.xml"), text)?;
        }
        for (number, home) in self.homes.iter().enumerate() {
            let serve = self.command(
                home,
                &["serve", "--no-browser", "--no-restart", "--no-upgrade"],
            );
            let log = place.join(format!("{number}.log"));
            let server = Server::start(serve, &log, "GUI and API listening on")?;
            self.devices.push(server);
        }
        Ok(())
    }

    fn begin(&mut self) -> Outcome<Usage> {
        for home in &self.homes {
            let words = ["cli", "config", "folders", FOLDER, "paused", "set", "false"];
            let mut resume = Command::new(&self.program);
            resume
                .arg(words[0])
                .arg("--home")
                .arg(home)
                .args(&words[1..])
                .env("HOME", home)
                .stdin(Stdio::null());
            sys::output(&mut resume)?;
        }
        Ok(Usage::default())
    }

    /// One process watches over another one, which does the work.
    fn devices(&self) -> Vec<u32> {
        let started = self.devices.iter().map(Server::id);
        started.flat_map(measure::family).collect()
    }

    fn own_names(&self) -> Vec<&'static str> {
        vec![".stfolder"]
    }

    fn stop(&mut self) {
        self.devices.clear();
    }
}
