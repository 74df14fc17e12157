//! The way to the pages: a browser where there is a display, else an address and how to reach it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{App, home, pages};

/// How long the program that opens addresses is watched: one that cannot says so at once.
const OPENING: Duration = Duration::from_secs(1);

/// Time between two looks at it.
const POLL: Duration = Duration::from_millis(50);

/// Shows the way, as far as `no_open` and the machine allow. Whether somebody can get there by it. Never a reason to fail.
pub(super) fn show(app: &App, no_open: bool) -> bool {
    let Some(address) = pages::address(app.home.path()) else {
        return false;
    };
    let plain = address.split("/enter").next().unwrap_or_default();
    let is_open = !no_open && has_display() && open(&address);
    if !app.ui.draws() {
        // What goes to a file or a journal may be read by others: it gets no key.
        app.ui.note(&format!(
            "The pages are at {plain}/; `candor up` on a terminal lets a browser in."
        ));
        return is_open;
    }
    let beginning = if is_open {
        "The pages open in your browser. If they do not, this address lets one in, once"
    } else {
        "The pages. This address lets one browser in, once"
    };
    app.ui.note(&format!("{beginning}:\n  {address}"));
    if home::has_variable("SSH_CONNECTION") {
        let port = plain.rsplit(':').next().unwrap_or_default();
        app.ui.note(&format!(
            "From the machine that you sit at, first: ssh -L {port}:127.0.0.1:{port} {}",
            host()
        ));
    }
    true
}

/// Whether a window would be seen by the person who started this.
pub(super) fn has_display() -> bool {
    let is_remote = home::has_variable("SSH_CONNECTION");
    let is_there = cfg!(target_os = "macos")
        || home::has_variable("DISPLAY")
        || home::has_variable("WAYLAND_DISPLAY");
    is_there && !is_remote
}

/// Hands an address to the program that the desktop opens addresses with. False if there is none.
fn open(address: &str) -> bool {
    let usual = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let program = home::browser().unwrap_or_else(|| usual.into());
    let started = Command::new(program)
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else {
        return false;
    };
    let began = Instant::now();
    while began.elapsed() < OPENING {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(POLL),
            Ok(Some(status)) => return status.success(),
            Err(_) => return false,
        }
    }
    // It may last as long as the browser; somebody has to take note of its end.
    std::thread::spawn(move || child.wait());
    true
}

/// This machine, as others may know it.
fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
