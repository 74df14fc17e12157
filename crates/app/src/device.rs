//! The device in this process: its lock, its key store, its engine, and the cell beside it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candor_client::clock::SystemClock;
use candor_client::commands::Failure as EngineFailure;
use candor_client::egress::in_process;
use candor_client::engine::{EngineConfig, EnrolParams};
use candor_client::home::{Home, HomeError};
use candor_client::keystore::{self, KeyState};
use candor_client::{CellDoor, Engine, Entropy, KeyProtection, KeyStore, SystemEntropy};
use candor_server::{Cell, CellOptions, OpenError};
use candor_wire::cell::Invitation;
use candor_wire::ids::CellId;
use candor_wire::statement::Role;
use zeroize::Zeroizing;

use crate::App;
use crate::failure::{Failure, Kind, Outcome};
use crate::{cell, home, terminal};

/// How long a short command waits for another one to leave the device's folder.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Time between two looks at the lock.
const LOCK_POLL: Duration = Duration::from_millis(25);

/// Largest file with a passphrase.
const PASSPHRASE_FILE_MAX_BYTES: u64 = 4096;

/// Longest name of a device that is taken over from the machine.
const DEVICE_NAME_MAX_CHARS: usize = 40;

/// The same while another process is at work that has to be waited for.
const BUSY_POLL: Duration = Duration::from_millis(500);

/// Where random bytes come from.
pub(crate) fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy)
}

/// Whether this device belongs to an account. An enrolment that was begun and did not succeed leaves
/// a key store behind, because the ledger of what was sent for it is sealed under it.
pub(crate) fn has_account(app: &App) -> Outcome<bool> {
    let folder = app.home.path();
    let path = folder.join("keys");
    let state = keystore::state(&path).map_err(|error| EngineFailure::of(&error))?;
    if state == KeyState::Missing {
        return Ok(false);
    }
    // The engine makes its database once the device is enrolled. Without it, only the key store knows.
    if folder.join("device.sqlite").exists() {
        return Ok(true);
    }
    Ok(unlock(app, &path)?.is_enrolled())
}

/// One try to take the device's folder; `None` if another process has it.
pub(crate) fn try_lock(app: &App) -> Outcome<Option<Home>> {
    match Home::lock(app.home.path()) {
        Ok(home) => Ok(Some(home)),
        Err(HomeError::InUse { .. }) => Ok(None),
        Err(error) => Err(EngineFailure::of(&error).into()),
    }
}

/// Waits for the device's folder. `look` is asked in between what the other process is.
pub(crate) fn lock_or<T>(
    app: &App,
    mut look: impl FnMut() -> Outcome<Seen<T>>,
) -> Outcome<LockOr<T>> {
    let mut started = Instant::now();
    loop {
        let mut poll = LOCK_POLL;
        match look()? {
            Seen::Other(other) => return Ok(LockOr::Other(other)),
            Seen::Busy => {
                started = Instant::now();
                poll = BUSY_POLL;
            }
            Seen::Nobody => {}
        }
        if let Some(home) = try_lock(app)? {
            return Ok(LockOr::Locked(home));
        }
        app.stop.check()?;
        if started.elapsed() > LOCK_WAIT_MAX {
            let sentence = format!(
                "another candor uses {} and does not answer",
                app.home.path().display()
            );
            return Err(
                Failure::new(Kind::Failed, sentence).hint("wait until it is done, or end it")
            );
        }
        std::thread::sleep(poll);
    }
}

/// What a look at the other process gave.
pub(crate) enum Seen<T> {
    /// It does not answer: it may be gone, or about to begin or end.
    Nobody,
    /// It answers, but has to be waited for, however long that takes.
    Busy,
    /// A way to it.
    Other(T),
}

/// What waiting for the lock gave.
pub(crate) enum LockOr<T> {
    /// The device's folder.
    Locked(Home),
    /// A way to the process that has it.
    Other(T),
}

/// An engine in this process, and the cell if that is in this process too.
pub(crate) struct Opened {
    /// The engine.
    pub(crate) engine: Arc<Engine>,
    /// The embedded cell.
    pub(crate) cell: Option<Cell>,
}

/// Unlocks the key store and opens the engine. `embedded` is this home's cell if it is open already.
pub(crate) fn open(app: &App, home: Home, embedded: Option<Cell>) -> Outcome<Opened> {
    let keys = unlock(app, &home.keys())?;
    let embedded = match embedded {
        Some(cell) => Some(cell),
        None => own_cell(app, keys.cell().cell())?,
    };
    let config = EngineConfig {
        home,
        keys,
        door: door_to(embedded.as_ref()),
        runtime: app.runtime.handle().clone(),
        clock: Arc::new(SystemClock),
        entropy: entropy(),
    };
    Ok(Opened {
        engine: Arc::new(Engine::open(config)?),
        cell: embedded,
    })
}

fn unlock(app: &App, path: &Path) -> Outcome<KeyStore> {
    let state = keystore::state(path).map_err(|error| EngineFailure::of(&error))?;
    let passphrase = match state {
        KeyState::Passphrase => Some(known_passphrase(app)?),
        KeyState::Unprotected | KeyState::Missing => None,
    };
    let opened = KeyStore::open(path, passphrase.as_deref().map(String::as_str), entropy());
    Ok(opened.map_err(|error| EngineFailure::of(&error))?)
}

fn known_passphrase(app: &App) -> Outcome<Zeroizing<String>> {
    if let Some(from_file) = passphrase_in_file(app)? {
        return Ok(from_file);
    }
    if app.ui.can_ask() {
        return terminal::ask_hidden(&app.ui, "Passphrase of this device's keys:");
    }
    let sentence =
        "the keys on this device need their passphrase, and there is no terminal to ask on";
    Err(Failure::usage(sentence).hint("give --passphrase-file FILE"))
}

fn passphrase_in_file(app: &App) -> Outcome<Option<Zeroizing<String>>> {
    let Some(path) = &app.passphrase_file else {
        return Ok(None);
    };
    let text = Zeroizing::new(home::read_small(path, PASSPHRASE_FILE_MAX_BYTES)?);
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        let sentence = format!(
            "the first line of {} is empty: it should be the passphrase",
            path.display()
        );
        return Err(Failure::usage(sentence));
    }
    Ok(Some(Zeroizing::new(line.to_owned())))
}

/// Whether [`new_protection`] will find an answer, so that nothing is begun that cannot be ended.
pub(crate) fn check_protection(app: &App, unprotected: bool) -> Outcome {
    if unprotected || app.passphrase_file.is_some() || app.ui.can_ask() {
        return Ok(());
    }
    Err(Failure::usage("nothing says how to protect the keys on this device")
        .hint("give --passphrase-file FILE, or --unprotected-keys if whoever reads your files may use them"))
}

/// What the key store says that this device was enrolled with.
pub(crate) struct Former {
    /// Names the cell.
    pub(crate) invitation: Invitation,
    /// What the person called the account.
    pub(crate) account_name: String,
    /// How the keys are protected.
    pub(crate) protection: KeyProtection,
}

/// What this device was before; `None` if it has no keys of an account.
pub(crate) fn former(app: &App) -> Outcome<Option<Former>> {
    let path = app.home.path().join("keys");
    let state = keystore::state(&path).map_err(|error| EngineFailure::of(&error))?;
    let protection = match state {
        KeyState::Missing => return Ok(None),
        KeyState::Unprotected => KeyProtection::Unprotected,
        KeyState::Passphrase => KeyProtection::Passphrase(known_passphrase(app)?),
    };
    let passphrase = match &protection {
        KeyProtection::Passphrase(text) => Some(text.as_str()),
        KeyProtection::Unprotected => None,
    };
    let keys = KeyStore::open(&path, passphrase, entropy());
    let keys = keys.map_err(|error| EngineFailure::of(&error))?;
    // An earlier try to join anew may have left a key store that is enrolled nowhere yet.
    let was_here = app.home.path().join("device.sqlite").exists();
    Ok((keys.is_enrolled() || was_here).then(|| Former {
        invitation: keys.cell().clone(),
        account_name: keys.account_name().to_owned(),
        protection,
    }))
}

/// How a new key store is to be protected.
pub(crate) fn new_protection(app: &App, unprotected: bool) -> Outcome<KeyProtection> {
    check_protection(app, unprotected)?;
    check_begun(app, unprotected)?;
    if unprotected {
        return Ok(KeyProtection::Unprotected);
    }
    let passphrase = match passphrase_in_file(app)? {
        Some(passphrase) => passphrase,
        None => terminal::ask_new_passphrase(&app.ui)?,
    };
    Ok(KeyProtection::Passphrase(passphrase))
}

/// An enrolment that did not succeed left a key store, and the next one goes on with it: it must not
/// be less, or more, protected than the person says now.
fn check_begun(app: &App, unprotected: bool) -> Outcome {
    let state = keystore::state(&app.home.path().join("keys"));
    let begun = match (
        state.map_err(|error| EngineFailure::of(&error))?,
        unprotected,
    ) {
        (KeyState::Passphrase, true) => "with a passphrase",
        (KeyState::Unprotected, false) => "without a passphrase",
        _ => return Ok(()),
    };
    let folder = app.home.path().display();
    Err(Failure::usage(format!(
        "an account was begun in {folder} {begun}, and not made"
    ))
    .hint("protect the keys as you did then, or choose another folder with --home DIR"))
}

/// This home's own cell, if it is the one that the device knows and no other process runs it.
pub(crate) fn own_cell(app: &App, pinned: CellId) -> Outcome<Option<Cell>> {
    match app
        .runtime
        .block_on(Cell::open_with(&app.home.cell(), CellOptions::default()))
    {
        Ok(own) if own.id() == pinned => Ok(Some(own)),
        // `candor server run` has it: it is reached like any other cell.
        Ok(_) | Err(OpenError::NoCell { .. } | OpenError::InUse { .. }) => Ok(None),
        Err(error) => Err(cell::open_failure(&error)),
    }
}

fn door_to(embedded: Option<&Cell>) -> CellDoor {
    match embedded {
        Some(own) => CellDoor::InProcess(in_process::service(own.service())),
        None => CellDoor::Network,
    }
}

/// What a new device of an account needs.
pub(crate) struct Enrol<'a> {
    /// The device's folder.
    pub(crate) home: Home,
    /// Names the cell.
    pub(crate) invitation: Invitation,
    /// The cell, if it is in this process.
    pub(crate) embedded: Option<&'a Cell>,
    /// What the person calls the account.
    pub(crate) account_name: String,
    /// How the keys are protected.
    pub(crate) protection: KeyProtection,
    /// What the device may do.
    pub(crate) role: Role,
}

/// The engine's parameters for it.
pub(crate) fn enrol_params(app: &App, enrol: Enrol<'_>) -> EnrolParams {
    EnrolParams {
        home: enrol.home,
        invitation: enrol.invitation,
        door: door_to(enrol.embedded),
        account_name: enrol.account_name,
        device_name: device_name(),
        role: enrol.role,
        protection: enrol.protection,
        runtime: app.runtime.handle().clone(),
        clock: Arc::new(SystemClock),
        entropy: entropy(),
    }
}

/// The machine's name. Only the account's own devices can read it.
fn device_name() -> String {
    let name = rustix::system::uname();
    let name: String = name
        .nodename()
        .to_string_lossy()
        .chars()
        .take(DEVICE_NAME_MAX_CHARS)
        .collect();
    if name.is_empty() {
        "this device".to_owned()
    } else {
        name
    }
}
