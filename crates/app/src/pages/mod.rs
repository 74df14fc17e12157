//! The pages: what this device does, in a browser on this device, and the same decisions as on the command line.
//!
//! They belong to `candor up`. A listener on the loopback address answers the same person's programs alone ([`peer`]), judges
//! every request before anything else happens ([`guard`]), and knows a browser by a key that it got for a one-time token
//! ([`entry`]). Pages are made here from what the engine answers; there is no other interface behind them, and no plaintext
//! leaves the device. Everything works with scripts off; with them, dialogs open above the page ([`parts`]) and what changes
//! is shown as it changes ([`live`]).

mod backups;
mod browse;
mod choose;
mod consent;
mod devices;
mod entry;
mod find;
mod folders;
mod guard;
mod home;
mod jobs;
mod ledger;
mod listen;
mod live;
mod log;
mod parts;
mod peer;
mod request;
mod routes;
mod services;
mod settings;
mod shell;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_lists;
mod welcome;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};

use candor_client::Engine;
use candor_client::commands::{Failure, FailureKind, LinkCodeView, Progress, View};
use maud::{Markup, html};

use crate::App;
use crate::failure::Outcome;
use crate::signals::Stop;
use crate::{home as home_folder, text};

use entry::Entry;
pub(crate) use entry::address;
use guard::Guard;
use jobs::{Job, Jobs, Kind};
use parts::{Look, Tone};
use request::Browser;
pub(crate) use welcome::Answers;
use welcome::Welcome;

/// Digits of an id that are shown: enough to tell them apart.
const SHORT_ID_CHARS: usize = 12;

/// Words that are kept for pages that nobody fetched yet.
const TOLD_MAX: usize = 64;

/// What all requests share.
pub(super) struct Shared {
    /// There from the moment on that there is an account.
    engine: OnceLock<Arc<Engine>>,
    /// Of a first run.
    welcome: Option<Welcome>,
    stop: Stop,
    guard: Guard,
    entry: Entry,
    jobs: Jobs,
    /// The device's folder.
    home: PathBuf,
    /// Where the person's own files are.
    user_folder: PathBuf,
    /// What browsers are told on the page that they are sent to: by a number, whom, and the words.
    told: Mutex<BTreeMap<u64, (String, String)>>,
    /// The newest of those numbers. They begin with the time, so that an address of an earlier run means nothing now.
    tellings: AtomicU64,
    link_code: Mutex<Option<LinkCodeView>>,
}

/// The pages, as long as they are served.
pub(crate) struct Pages {
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pages {
    /// Begins to serve the pages of a device that belongs to an account.
    pub(crate) fn start(app: &App, engine: &Arc<Engine>) -> Outcome<Self> {
        let pages = Self::serve(app, None)?;
        pages.know(engine);
        Ok(pages)
    }

    /// Begins to serve those of a first run. What the person says comes out of the receiver; the rest of the pages is
    /// there once it was answered.
    pub(crate) fn welcome(app: &App) -> Outcome<(Self, mpsc::Receiver<Answers>)> {
        // One account is made, and a second try comes after the first.
        let (answers, coming) = mpsc::sync_channel(1);
        let pages = Self::serve(app, Some(Welcome::new(answers)))?;
        Ok((pages, coming))
    }

    fn serve(app: &App, welcome: Option<Welcome>) -> Outcome<Self> {
        let home = app.home.path().to_owned();
        let entry = Entry::open(&home, text::now_ms())?;
        let (listener, port) = app.runtime.block_on(listen::bind(entry.port()))?;
        entry.set_port(port)?;
        let shared = Arc::new(Shared {
            engine: OnceLock::new(),
            welcome,
            stop: app.stop.clone(),
            guard: Guard::new(port),
            entry,
            jobs: Jobs::default(),
            user_folder: home_folder::user_folder().unwrap_or_else(|_| PathBuf::from("/")),
            home,
            told: Mutex::default(),
            tellings: AtomicU64::new(text::now_ms().unsigned_abs()),
            link_code: Mutex::default(),
        });
        let serving = app
            .runtime
            .spawn(listen::serve(listener, Arc::clone(&shared)));
        Ok(Self { shared, serving })
    }

    /// Shows the pages of this engine from now on.
    pub(crate) fn know(&self, engine: &Arc<Engine>) {
        self.shared.set_engine(Arc::clone(engine));
    }

    /// Ends them, once the program was asked to stop: work that was begun here ends cleanly.
    pub(crate) async fn ended(self) {
        self.shared.jobs.stop_all();
        // A task that panicked has ended too; its message is on standard error.
        let _ = self.serving.await;
        let shared = Arc::clone(&self.shared);
        // Its threads are waited for where nothing else waits.
        let _ = tokio::task::spawn_blocking(move || shared.jobs.close()).await;
        // Nobody is let in by what this file says until the next start; that one writes it anew in any case.
        let _ = self.shared.entry.close();
    }
}

impl Shared {
    fn now(&self) -> i64 {
        text::now_ms()
    }

    /// The engine, once there is an account.
    fn engine(&self) -> Result<&Arc<Engine>, Failure> {
        self.engine.get().ok_or_else(|| Failure {
            kind: FailureKind::Failed,
            sentence: "there is no account on this device yet".to_owned(),
            hint: None,
            causes: Vec::new(),
        })
    }

    fn set_engine(&self, engine: Arc<Engine>) {
        if let Some(welcome) = &self.welcome {
            welcome.forget();
        }
        // A device belongs to one account: a second engine would be of the same one.
        let _ = self.engine.set(engine);
    }

    /// The first run, as long as it lasts.
    fn welcome(&self) -> Option<&Welcome> {
        self.welcome
            .as_ref()
            .filter(|_| self.engine.get().is_none())
    }

    /// Keeps words for the page that a browser is sent to. Returns their number.
    fn tell(&self, browser: &Browser, words: Markup) -> u64 {
        let mut told = lock(&self.told);
        // What nobody fetched makes room.
        while told.len() >= TOLD_MAX {
            told.pop_first();
        }
        let number = self.tellings.fetch_add(1, Ordering::Relaxed) + 1;
        told.insert(number, (browser.0.clone(), words.into_string()));
        number
    }

    fn take_told(&self, browser: &Browser, number: u64) -> Option<Markup> {
        let mut told = lock(&self.told);
        let is_theirs = told.get(&number).is_some_and(|(key, _)| *key == browser.0);
        let taken = is_theirs.then(|| told.remove(&number)).flatten();
        taken.map(|(_, words)| parts::kept(words))
    }

    fn link_code(&self) -> Option<LinkCodeView> {
        lock(&self.link_code).clone()
    }

    fn set_link_code(&self, code: Option<LinkCodeView>) {
        *lock(&self.link_code) = code;
    }

    /// A folder that is not there yet, to restore into.
    fn restore_place(&self) -> String {
        self.new_folder("restored")
    }

    /// The same for an export.
    fn export_place(&self) -> String {
        self.new_folder("candor-export")
    }

    fn new_folder(&self, name: &str) -> String {
        let date = text::time(self.now());
        let date = date.split(' ').next().unwrap_or_default();
        let folder = self.user_folder.join(format!("{name}-{date}"));
        folder.to_string_lossy().into_owned()
    }
}

/// Makes something that reads the disk, away from the threads that serve.
async fn off_the_thread<T: Send + 'static>(
    shared: &Arc<Shared>,
    make: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Result<T, Failure> {
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || make(&shared))
        .await
        .map_err(|error| {
            crate::failure::Failure::because("the page could not be made", &error).into()
        })
}

/// The beginning of an id.
fn text_id(id: &str) -> String {
    id.chars().take(SHORT_ID_CHARS).collect()
}

/// What is at work, and what it came to.
fn jobs_part(shared: &Shared) -> Markup {
    live::Part::Jobs.whole(&live::Look::new(shared))
}

fn jobs_content(shared: &Shared) -> Markup {
    let jobs = shared.jobs.all();
    let is_shown = |job: &&Arc<Job>| {
        let state = job.state();
        // These are shown by pages of their own.
        let has_a_page = matches!(job.kind, Kind::Link | Kind::Find);
        !has_a_page && !state.is_seen && state.result.as_ref().is_none_or(jobs::is_news)
    };
    let shown: Vec<&Arc<Job>> = jobs.iter().filter(is_shown).collect();
    html! {
        @if !shown.is_empty() { div.jobs { @for job in shown { (job_shown(job)) } } }
    }
}

fn job_shown(job: &Job) -> Markup {
    let state = job.state();
    let number = job.number.to_string();
    let problems = html! {
        @if !state.problems.is_empty() {
            (parts::deeper(&text::counted(state.problems_count, "file with a problem", "files with a problem"), html! {
                ul { @for problem in &state.problems { li { (parts::path(&problem.path)) ": " (parts::sentence(&problem.what)) } } }
            }))
        }
    };
    let away = parts::action("/jobs/seen", "Good", Look::Quiet, &[("job", &number)]);
    html! {
        div.job {
            @match &state.result {
                None => {
                    p { strong { (job.title) } }
                    (progress(state.progress.as_ref(), &job.title))
                    @if let Some(step) = &state.step { p.quiet { (parts::sentence(step)) } }
                    (problems)
                    // Nothing waits for the ledger meanwhile, and it is soon done.
                    @if job.kind != Kind::Verify { (parts::action("/jobs/stop", "Stop", Look::Quiet, &[("job", &number)])) }
                }
                Some(Ok(view)) => {
                    (parts::notice(outcome_tone(view), html! {
                        p { strong { (job.title) ": " (outcome(view)) } }
                        @if let View::LedgerVerified(one) = view {
                            (parts::deeper("Exact terms", html! { p { "Newest hash: " code.path { (one.head) } } }))
                        }
                        @if let Some(step) = &state.step { p.quiet { (parts::sentence(step)) } }
                        (problems) (away)
                    }))
                }
                Some(Err(failure)) => {
                    p { strong { (job.title) } }
                    (parts::failure(failure))
                    (problems)
                    (away)
                }
            }
        }
    }
}

fn progress(progress: Option<&Progress>, label: &str) -> Markup {
    let Some(progress) = progress else {
        return html! { progress aria-label=(label) {} };
    };
    let done = format!(
        "{}, {}",
        text::counted(progress.files, "file", "files"),
        text::bytes(progress.bytes)
    );
    html! {
        @match progress.bytes_total {
            Some(total) => {
                progress aria-label=(label) value=(progress.bytes) max=(total.max(progress.bytes).max(1)) {}
                p.quiet { (done) " of " (text::bytes(total)) "; " (text::bytes(progress.sent_bytes)) " over the connection" }
            }
            None => {
                progress aria-label=(label) {}
                p.quiet { (done) " so far" }
            }
        }
    }
}

fn outcome_tone(view: &View) -> Tone {
    let is_whole = match view {
        View::Backups(all) if all.is_empty() => return Tone::Warn,
        View::Backups(all) => all.iter().all(|one| one.problems == 0),
        View::Restored(one) => one.problems == 0,
        View::Checked(one) => one.damaged.is_empty() && one.affected.is_empty(),
        View::Drilled(all) => all.iter().all(|one| one.different.is_empty()),
        View::Synced(all) => all.iter().all(|one| one.problems == 0),
        View::Exported(one) => one.problems == 0,
        _ => true,
    };
    if is_whole { Tone::Good } else { Tone::Bad }
}

/// What work came to, in one sentence.
fn outcome(view: &View) -> String {
    match view {
        View::Backups(all) if all.is_empty() => "nothing was backed up.".to_owned(),
        View::Backups(all) => {
            let [files, bytes, new] = [
                all.iter().map(|one| one.files).sum(),
                all.iter().map(|one| one.bytes).sum::<u64>(),
                all.iter().map(|one| one.new_bytes).sum(),
            ];
            format!(
                "{}, {}; {} new.",
                text::counted(files, "file", "files"),
                text::bytes(bytes),
                text::bytes(new)
            )
        }
        View::Restored(_) | View::Checked(_) | View::Drilled(_) => outcome_read(view),
        View::Synced(all) => {
            let all: Vec<String> = all.iter().map(crate::views::synced).collect();
            format!("{}.", all.join("; "))
        }
        View::Exported(one) => format!(
            "{} in {} and {}.",
            text::counted(one.files, "file", "files"),
            text::counted(one.snapshots, "snapshot", "snapshots"),
            text::counted(one.folders, "folder", "folders")
        ),
        View::LogMonitored(one) => format!(
            "{} of {} found, and nothing else in your name.",
            text::count(one.found),
            text::counted(one.statements, "statement", "statements")
        ),
        View::LedgerVerified(one) => format!(
            "the ledger is whole; {}, chained and signed.",
            text::counted(one.lines, "line", "lines")
        ),
        _ => "done.".to_owned(),
    }
}

fn outcome_read(view: &View) -> String {
    match view {
        View::Restored(one) => format!("{}.", crate::views::restored(one)),
        View::Checked(one) if one.damaged.is_empty() && one.affected.is_empty() => format!(
            "{} in {}; nothing is missing or damaged.",
            text::counted(one.objects, "object", "objects"),
            text::counted(one.snapshots, "snapshot", "snapshots")
        ),
        View::Checked(one) => format!(
            "{} missing or damaged; {} need them. The next backup sends again what is still on this device, after candor backup check --repair.",
            text::counted(one.damaged.len() as u64, "object is", "objects are"),
            text::counted(one.affected.len() as u64, "file", "files")
        ),
        View::Drilled(all) => {
            let all: Vec<String> = all.iter().map(crate::views::drill).collect();
            format!("{}.", all.join("; "))
        }
        _ => String::new(),
    }
}

/// What a person did not ask for in this way.
pub(super) fn no_such_service(service: &str) -> Failure {
    Failure {
        kind: FailureKind::Usage,
        sentence: format!("there is no service named {}", text::shown(service)),
        hint: None,
        causes: Vec::new(),
    }
}
