//! One history: a world, what the people in it did, and what they may expect of it.

mod restored;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candor_client::RecoveryPhrase;
use candor_client::commands::{Command, Event, FailureKind, LogMonitorView, LogView, View};
use candor_client::path_text::PathText;
use candor_server::log_vkey_of;

use super::Draw;
use super::witness::Friend;
use crate::lying_log::evidence;
use crate::re_anchor::copy;
use crate::world::{Person, TestClock, World, assert_same};

/// How far the device's clock and the cell's may be from the true time, in milliseconds.
const WRONG_MAX_MS: i64 = 200_000;

/// How far they may be from each other: a cell tolerates 300 s, and what a step takes.
const APART_MAX_MS: i64 = 270_000;

const HOUR_MS: i64 = 60 * 60 * 1000;

/// How long a device may find a quorum silent before it says that the log is frozen, with an hour to spare.
const SILENT_MAX_MS: i64 = 23 * HOUR_MS;

/// How long a log that has just begun is waited for, as its person is told to.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);

/// How long a witness may need for its word.
const SPEAKS_WITHIN: Duration = Duration::from_secs(30);

/// What a device says of a log that has just begun.
const NOT_YET: &str = "the cell has published nothing of its log yet";

/// How many witnesses a device asks for.
struct Quorum {
    witnesses: Vec<usize>,
    threshold: usize,
    /// Whether the policy names the log too, which a restored cell begins anew.
    names_log: bool,
}

struct Device {
    home: String,
    person: Person,
    source: PathBuf,
    set: String,
    /// How often its database was lost.
    losses: u32,
    files: u32,
    is_on: bool,
    /// Whether another device switched it off, and this one may not have heard of it yet.
    is_unheard: bool,
    /// The set in which everything is safe, if the last backup succeeded since the last change.
    safe: Option<String>,
    quorum: Option<Quorum>,
    /// How long ago it first looked and no quorum vouched for what it saw, if none did since.
    unvouched_ms: Option<i64>,
    /// Older states that its person accepted.
    accepted: usize,
}

/// A backup of the cell's store, as its operator made it.
struct Kept {
    place: PathBuf,
    homes: BTreeSet<String>,
}

pub(super) struct History<'t> {
    told: &'t Mutex<Vec<String>>,
    draw: Draw,
    world: World,
    true_clock: Arc<TestClock>,
    /// How wrong the devices' clock is, and the cell's.
    wrong_ms: [i64; 2],
    friends: Vec<Friend>,
    phrase: RecoveryPhrase,
    devices: Vec<Device>,
    kept: Vec<Kept>,
    homes: u32,
}

impl<'t> History<'t> {
    pub(super) fn new(seed: u64, told: &'t Mutex<Vec<String>>) -> Self {
        let mut draw = Draw(seed);
        let true_clock: Arc<TestClock> = Arc::default();
        let mut friends = Vec::new();
        let count = draw.below(4);
        let world = World::with(|cell| {
            let log = log_vkey_of(cell).unwrap();
            let mut lines = Vec::new();
            for n in 0..count {
                let name = format!("friend-{n}");
                let folder = cell.parent().unwrap().join(&name);
                let friend = Friend::new(&name, folder, Arc::clone(&true_clock));
                friend.know(&log);
                lines.push(format!("{:?}", friend.line()));
                friends.push(friend);
            }
            let settings = cell.join("cell.toml");
            let mut text = std::fs::read_to_string(&settings).unwrap();
            text.push_str(&format!(
                "\n[log]\nwitnesses = [{}]\nwitness_timeout_seconds = 30\n",
                lines.join(", ")
            ));
            std::fs::write(settings, text).unwrap();
        });
        let (person, phrase) = world.create("home-1");
        let mut history = Self {
            told,
            draw,
            world,
            true_clock,
            wrong_ms: [0; 2],
            friends,
            phrase,
            devices: Vec::new(),
            kept: Vec::new(),
            homes: 1,
        };
        history.tell(format_args!("an account, and {count} witnesses"));
        history.take_in("home-1".to_owned(), person);
        history
    }

    pub(super) fn play(mut self) {
        let steps = 8 + self.draw.below(13);
        for _ in 0..steps {
            self.step();
            self.assert_calm();
        }
        for n in 0..self.devices.len() {
            self.monitor(n);
        }
        self.read_back();
        self.assert_calm();
        self.friends.iter().for_each(Friend::assert_content);
    }

    #[expect(
        clippy::print_stderr,
        reason = "steps of the one history that is played again"
    )]
    fn tell(&self, what: impl Display) {
        let mut told = self.told.lock().unwrap();
        if super::asked_for("CANDOR_HISTORY_SEED").is_some() {
            eprintln!("{:>3} {what}", told.len());
        }
        told.push(what.to_string());
    }

    fn step(&mut self) {
        let n = self.draw.below(self.devices.len());
        match self.draw.below(100) {
            0..22 => self.change_and_back_up(n),
            22..34 => self.change_mind(n),
            34..46 => self.monitor(n),
            46..51 => self.checkpoint(n),
            51..55 => {
                self.tell(format_args!("{}: status", self.devices[n].home));
                self.devices[n].person.status();
            }
            55..61 => self.restart_device(n),
            61..72 => self.restart_cell(),
            72..76 => self.recover(),
            76..79 => self.lose_database(n),
            79..87 => self.move_clocks(),
            87..92 => self.move_witness(),
            92..97 => self.put_back(),
            _ => self.take_turns(),
        }
    }

    /// Nothing that a person would be frightened by: checked after every step.
    fn assert_calm(&self) {
        for device in &self.devices {
            let alarms = device.person.alarms();
            let is_accepted = |line: &String| {
                line.starts_with("an older state of the account was accepted by a person")
            };
            assert!(
                alarms.len() == device.accepted && alarms.iter().all(is_accepted),
                "alarms of {}: {alarms:#?}",
                device.home
            );
            let status = device.person.status();
            let is_alarm = |text: &&String| text.contains("ALARM") || text.contains("FROZEN");
            let told: Vec<&String> = status.warnings.iter().filter(is_alarm).collect();
            assert!(told.is_empty(), "{}: {told:?}", device.home);
            if let Some(log) = &status.log {
                assert_eq!(log.findings, Vec::<String>::new());
            }
            for set in &status.sets {
                let (home, is_on) = (&device.home, set.consent == "on");
                let is_expected = is_on == device.is_on || device.is_unheard;
                assert!(is_expected, "{home}: {}", set.consent);
            }
            for path in evidence(&device.person) {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                assert!(name.starts_with("re-anchor-"), "{}: {name}", device.home);
            }
        }
    }

    /// What the person asks for, and again as long as the log has just begun: they are told to.
    fn ask(&self, n: usize, command: &Command) -> (View, Vec<Event>) {
        let began = Instant::now();
        loop {
            let (view, events) = self.devices[n].person.listen(command.clone());
            match view {
                Ok(view) => return (view, events),
                Err(failure) if failure.sentence == NOT_YET && began.elapsed() < BEGINS_WITHIN => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(failure) => panic!("{}: {command:?}: {failure:#?}", self.devices[n].home),
            }
        }
    }

    /// A new device joins: its folder to back up, its policy.
    fn take_in(&mut self, home: String, person: Person) {
        let source = self.world.path(&format!("files-of-{home}"));
        std::fs::create_dir_all(source.join("folder/empty")).unwrap();
        std::fs::write(source.join("a.txt"), "alpha").unwrap();
        std::fs::write(source.join("folder/b.txt"), &home).unwrap();
        let here: Vec<usize> = (0..self.friends.len())
            .filter(|n| !self.friends[*n].is_gone)
            .collect();
        let quorum = (!here.is_empty() && self.draw.chance(60)).then(|| Quorum {
            threshold: 1 + self.draw.below(here.len()),
            witnesses: here,
            names_log: self.draw.chance(50),
        });
        let mut device = Device {
            home,
            person,
            source,
            set: String::new(),
            losses: 0,
            files: 0,
            is_on: false,
            is_unheard: false,
            safe: None,
            quorum,
            unvouched_ms: None,
            accepted: 0,
        };
        device.add_set();
        if let Some(quorum) = &device.quorum {
            let (k, all) = (quorum.threshold, quorum.witnesses.len());
            self.tell(format_args!(
                "{} asks for {k} of {all} witnesses",
                device.home
            ));
        }
        self.devices.push(device);
        self.write_policy(self.devices.len() - 1);
    }

    fn write_policy(&self, n: usize) {
        let device = &self.devices[n];
        let path = self.world.path(&device.home).join("log-policy");
        let Some(quorum) = &device.quorum else {
            let _ = std::fs::remove_file(path);
            return;
        };
        let mut text = String::new();
        if quorum.names_log {
            text.push_str(&format!("log {}\n", self.world.log_key()));
        }
        let mut names = Vec::new();
        for friend in quorum.witnesses.iter().map(|n| &self.friends[*n]) {
            text.push_str(&format!("witness {} {}\n", friend.name, friend.key));
            names.push(friend.name.as_str());
        }
        let (threshold, names) = (quorum.threshold, names.join(" "));
        text.push_str(&format!(
            "group friends {threshold} {names}\nquorum friends\n"
        ));
        std::fs::write(path, text).unwrap();
    }

    fn change_and_back_up(&mut self, n: usize) {
        if !self.devices[n].is_on && self.draw.chance(65) {
            self.change_mind(n);
        }
        let changes = self.draw.below(4);
        for _ in 0..changes {
            let device = &mut self.devices[n];
            device.files += 1;
            let name = match self.draw.below(3) {
                0 => "a.txt".to_owned(),
                1 => format!("folder/{}", device.files),
                _ => format!("{}", self.draw.below(6)),
            };
            let bytes = vec![u8::try_from(device.files % 251).unwrap(); self.draw.below(40_000)];
            std::fs::write(device.source.join(name), bytes).unwrap();
            device.safe = None;
        }
        self.back_up(n, changes);
    }

    fn back_up(&mut self, n: usize, changes: usize) {
        let device = &self.devices[n];
        let is_on = device.is_on;
        let word = if is_on {
            "a backup"
        } else {
            "a backup without consent"
        };
        self.tell(format_args!("{}: {changes} changes, {word}", device.home));
        let run = Command::BackupRun { sets: Vec::new() };
        if !is_on {
            let failure = device.person.ask(run).unwrap_err();
            assert_eq!(failure.kind, FailureKind::NoConsent, "{failure:#?}");
            return;
        }
        let (_, events) = self.ask(n, &run);
        for event in events {
            if let Event::Step { text } = event {
                let is_calm = !text.contains("ALARM") && !text.contains("could not be checked");
                assert!(is_calm || text.contains(NOT_YET), "{text}");
            }
        }
        let device = &mut self.devices[n];
        device.safe = Some(device.set.clone());
        // It looked at the log, too, and the quorum's word may have been on its way still.
        device.unvouched_ms.get_or_insert(0);
    }

    /// Consent off where it was on, and on where it was off. Off is off for the whole account.
    fn change_mind(&mut self, n: usize) {
        let is_on = self.devices[n].is_on;
        let word = if is_on { "off" } else { "on" };
        self.tell(format_args!("{}: consent {word}", self.devices[n].home));
        if is_on {
            self.switch_off(n);
            return;
        }
        // What other devices switched off, and what was lost with a database, is read again.
        self.hear(n);
        self.devices[n].person.consent();
        self.devices[n].is_on = true;
    }

    fn switch_off(&mut self, n: usize) {
        self.devices[n].person.off().unwrap();
        for (m, device) in self.devices.iter_mut().enumerate() {
            device.is_unheard = m != n && (device.is_on || device.is_unheard);
            device.is_on = false;
        }
    }

    /// The device reads the chain.
    fn hear(&mut self, n: usize) {
        self.ask(n, &Command::ConsentHistory);
        self.devices[n].is_unheard = false;
    }

    fn monitor(&mut self, n: usize) {
        self.tell(format_args!("{}: monitor", self.devices[n].home));
        let mut view = self.look(n);
        if view.found < view.statements {
            // What another device stated lately is due at the next look.
            view = self.look(n);
        }
        assert_eq!(view.found, view.statements);
        assert!(view.state_matches);
        assert_eq!(view.log.findings, Vec::<String>::new());
        self.assert_standing(n, view.log);
    }

    fn look(&mut self, n: usize) -> LogMonitorView {
        let (View::LogMonitored(view), _) = self.ask(n, &Command::LogMonitor) else {
            panic!("another view")
        };
        self.devices[n].is_unheard = false;
        view
    }

    fn checkpoint(&mut self, n: usize) {
        self.tell(format_args!("{}: checkpoint", self.devices[n].home));
        let command = Command::LogCheckpoint { compare: None };
        let (View::LogCheckpoint(view), _) = self.ask(n, &command) else {
            panic!("another view")
        };
        self.assert_standing(n, view.log);
    }

    /// A quorum that can vouch for the log does so, at the latest after a moment.
    fn assert_standing(&mut self, n: usize, log: LogView) {
        let is_heard = self.has_quorum(&self.devices[n]);
        if self.devices[n].quorum.is_none() {
            return assert_eq!(log.standing, "unwitnessed", "{}", log.sentence);
        }
        let began = Instant::now();
        let mut log = log;
        while is_heard && log.standing == "unwitnessed" && began.elapsed() < SPEAKS_WITHIN {
            std::thread::sleep(Duration::from_millis(200));
            log = self.look(n).log;
        }
        if is_heard {
            assert_eq!(log.standing, "witnessed", "{}", log.sentence);
        } else {
            // Those that were silent may have spoken again.
            assert_ne!(log.standing, "stale", "{}", log.sentence);
        }
        let unvouched_ms = &mut self.devices[n].unvouched_ms;
        if log.standing == "witnessed" {
            *unvouched_ms = None;
        } else {
            unvouched_ms.get_or_insert(0);
        }
    }

    fn has_quorum(&self, device: &Device) -> bool {
        device.quorum.as_ref().is_none_or(|quorum| {
            let asked = quorum.witnesses.iter().map(|n| &self.friends[*n]);
            asked.filter(|friend| friend.is_of_use()).count() >= quorum.threshold
        })
    }

    fn restart_device(&mut self, n: usize) {
        self.tell(format_args!("{} is restarted", self.devices[n].home));
        let device = self.devices.remove(n);
        let person = self.world.reopen(device.person);
        self.devices.insert(n, Device { person, ..device });
    }

    fn restart_cell(&mut self) {
        let keeps = self.draw.chance(50);
        self.restart_and(keeps);
    }

    /// Restarts the cell. Between, its operator may make a backup.
    fn restart_and(&mut self, keeps: bool) {
        let word = if keeps {
            " and its store is copied"
        } else {
            ""
        };
        self.tell(format_args!("the cell is restarted{word}"));
        self.world.stop_cell();
        if keeps {
            let place = self.world.path(&format!("kept-{}", self.kept.len()));
            copy(&self.world.path("cell/store"), &place);
            let homes = self.devices.iter().map(|device| device.home.clone());
            let homes = homes.collect();
            self.kept.push(Kept { place, homes });
        }
        self.world.start_cell();
        self.rested();
    }

    /// A cell that was just started leaves no witness alone.
    fn rested(&mut self) {
        for friend in &mut self.friends {
            friend.is_resting = !friend.is_running();
        }
    }

    fn recover(&mut self) {
        if self.devices.len() < 2 {
            self.join();
        }
    }

    /// A new home of the account, with nothing but its phrase.
    fn join(&mut self) {
        self.homes += 1;
        let home = format!("home-{}", self.homes);
        self.tell(format_args!("{home} joins with the phrase"));
        let person = self.world.recover(&home, &self.phrase).unwrap();
        self.take_in(home, person);
    }

    fn lose_database(&mut self, n: usize) {
        self.tell(format_args!("{} loses its database", self.devices[n].home));
        let device = self.devices.remove(n);
        let home = device.person.engine.home().to_owned();
        drop(device.person);
        for name in ["device.sqlite", "device.sqlite-wal", "device.sqlite-shm"] {
            let _ = std::fs::remove_file(home.join(name));
        }
        let mut device = Device {
            person: Person {
                engine: self.world.open(&home).unwrap(),
            },
            losses: device.losses + 1,
            is_on: false,
            safe: None,
            ..device
        };
        device.add_set();
        self.devices.insert(n, device);
    }

    fn move_clocks(&mut self) {
        match self.draw.below(3) {
            0 => {
                let hours = match self.draw.below(2) {
                    0 => self.draw.between(1, 20),
                    _ => self.draw.between(20, 200),
                };
                let ms = hours * HOUR_MS + self.draw.between(0, HOUR_MS);
                self.pass_time(ms);
            }
            which => {
                let which = which - 1;
                let (own, other) = (self.wrong_ms[which], self.wrong_ms[1 - which]);
                let wish = own + self.draw.between(-WRONG_MAX_MS, WRONG_MAX_MS);
                let low = (-WRONG_MAX_MS).max(other - APART_MAX_MS);
                let high = WRONG_MAX_MS.min(other + APART_MAX_MS);
                let now = wish.clamp(low, high);
                let (who, clock) = match which {
                    0 => ("the devices", &self.world.clock),
                    _ => ("the cell", &self.world.cell_clock),
                };
                self.tell(format_args!("the clock of {who} jumps by {} ms", now - own));
                clock.forward_ms(now - own);
                self.wrong_ms[which] = now;
            }
        }
    }

    /// Time passes, for everybody.
    fn pass_time(&mut self, ms: i64) {
        let is_silent = |device: &Device| {
            let is_long = |unvouched_ms| unvouched_ms + ms > SILENT_MAX_MS;
            !self.has_quorum(device) && device.unvouched_ms.is_some_and(is_long)
        };
        if self.devices.iter().any(is_silent) {
            self.bring_witnesses_back();
        }
        for device in &mut self.devices {
            if let Some(unvouched_ms) = &mut device.unvouched_ms {
                *unvouched_ms += ms;
            }
        }
        self.tell(format_args!("{} minutes pass", ms / 60_000));
        for clock in [&self.true_clock, &self.world.clock, &self.world.cell_clock] {
            clock.forward_ms(ms);
        }
    }

    fn bring_witnesses_back(&mut self) {
        for n in 0..self.friends.len() {
            let friend = &mut self.friends[n];
            if friend.is_gone || friend.is_running() {
                continue;
            }
            friend.is_gone = !friend.start();
            let name = friend.name.clone();
            self.tell(format_args!("{name} is asked to witness again"));
        }
        self.forget_gone();
        self.restart_cell();
        // What comes next would find that nobody vouched since they fell silent.
        for n in 0..self.devices.len() {
            self.monitor(n);
        }
    }

    /// Nobody asks for the word of those who left.
    fn forget_gone(&mut self) {
        let gone: Vec<bool> = self.friends.iter().map(|friend| friend.is_gone).collect();
        for n in 0..self.devices.len() {
            let Some(quorum) = &mut self.devices[n].quorum else {
                continue;
            };
            quorum.witnesses.retain(|friend| !gone[*friend]);
            quorum.threshold = quorum.threshold.min(quorum.witnesses.len());
            if quorum.witnesses.is_empty() {
                self.devices[n].quorum = None;
            }
            self.write_policy(n);
        }
    }

    fn move_witness(&mut self) {
        if self.friends.is_empty() {
            return;
        }
        let n = self.draw.below(self.friends.len());
        let leaves = self.draw.chance(25);
        let is_told = self.draw.chance(50);
        let friend = &mut self.friends[n];
        let name = friend.name.clone();
        if friend.is_gone {
            return;
        }
        if !friend.is_running() {
            friend.is_gone = !friend.start();
            return self.tell(format_args!("{name} witnesses again"));
        }
        // Who found no word at a look, and at the next one a day later, cannot know that there was one between.
        for m in 0..self.devices.len() {
            let device = &self.devices[m];
            let is_open = device.unvouched_ms.is_some_and(|ms| ms > 0);
            if is_open && device.quorum.is_some() && self.has_quorum(device) {
                self.monitor(m);
            }
        }
        let friend = &mut self.friends[n];
        friend.stop();
        friend.is_gone = leaves;
        let word = if leaves {
            "leaves for good"
        } else {
            "falls silent"
        };
        self.tell(format_args!("{name} {word}"));
        if leaves && is_told {
            self.tell("nobody asks for it any more");
            self.forget_gone();
        }
    }

    fn take_turns(&mut self) {
        self.tell("backups in turn");
        for _ in 0..2 {
            for n in 0..self.devices.len() {
                self.change_and_back_up(n);
            }
        }
    }

    /// A device that nobody had before gets back everything that is safe.
    fn read_back(&mut self) {
        self.tell("a fresh device reads back");
        let fresh = self.world.recover("fresh", &self.phrase).unwrap();
        for device in &self.devices {
            let Some(set) = &device.safe else { continue };
            let to = self.world.path(&format!("back-{}", device.home));
            fresh.restore(&format!("{set}:latest"), &to).unwrap();
            let name = device.source.file_name().unwrap();
            assert_same(&device.source, &to.join(Path::new(name)));
        }
        fresh.ask(Command::LogMonitor).unwrap();
        assert_eq!(fresh.alarms(), Vec::<String>::new());
    }
}

impl Device {
    fn add_set(&mut self) {
        self.set = format!("{}-{}", self.home, self.losses + 1);
        let command = Command::BackupAdd {
            name: Some(self.set.clone()),
            paths: vec![PathText::from_path(&self.source)],
            excludes: Vec::new(),
        };
        self.person.ask(command).unwrap();
    }
}
