//! Devices: which are in the account, taking one in, and putting one out.

use std::fmt::Write as _;

use candor_client::commands::{Command, DeviceView, LinkAskView, LinkCodeView, View};
use maud::{Markup, html};
use qrcode::{Color, QrCode};

use super::jobs::Kind;
use super::live::{self, Part};
use super::parts::{self, Look, Tone, badge, card, name, when};
use super::request::{Answer, Asked, Reply, expect_view, usage};
use super::services::{answers, question};
use super::shell::{Place, Sheet};
use super::{Shared, off_the_thread};
use crate::text;

/// Light modules around a code, so that a reader finds it (ISO/IEC 18004).
const QUIET_MODULES: usize = 4;

/// The page. Asks the cell for the devices.
pub(super) async fn page(asked: &Asked) -> Answer {
    let devices = asked.run(Command::DeviceList).await;
    let now = asked.shared.now();
    let list = match devices {
        Ok(view) => {
            let mut devices = expect_view!(view, Devices)?;
            devices.sort_by_key(|device| device.added_ms);
            devices_list(&devices, now)
        }
        Err(failure) => parts::failure(&failure),
    };
    let body = html! {
        (card("devices", "In your account", list))
        (card("link", "Take a new device in", link_form()))
    };
    Ok(Reply::Sheet(Sheet::new("Devices", Place::Devices, body)))
}

pub(super) fn devices_list(devices: &[DeviceView], now: i64) -> Markup {
    html! {
        ul.rows { @for device in devices { (row(device, now)) } }
        p.quiet { "If there is a device here that you do not know, revoke it at once, and look at " a href="/log" { "Log" } "." }
    }
}

fn role_words(role: &str) -> &'static str {
    if role == "write-only" {
        "may only add to backups: it can read and delete nothing"
    } else {
        "may do everything"
    }
}

fn row(device: &DeviceView, now: i64) -> Markup {
    let called = device
        .name
        .as_deref()
        .unwrap_or("a device whose name is not known here");
    html! {
        li.row {
            div.what {
                strong { (name(called)) }
                span.quiet { (parts::sentence(role_words(&device.role))) " Added " (when(device.added_ms, now)) "." }
                (parts::deeper("Exact terms", parts::facts(&[("Device", html! { code { (device.device) } }), ("Role", html! { (device.role) })])))
            }
            div.how {
                @match device.revoked_ms {
                    Some(revoked) => { (badge(Tone::Plain, "revoked")) " " (when(revoked, now)) }
                    None if device.this_device => { (badge(Tone::Good, "this device")) }
                    None => { (badge(Tone::Good, "in the account")) }
                }
            }
            div.do {
                @if device.revoked_ms.is_none() && !device.this_device {
                    (parts::dialog_link(&parts::address("/devices/revoke", &[("device", &device.device)]), "Revoke", Look::Danger.class()))
                }
            }
        }
    }
}

fn link_form() -> Markup {
    html! {
        p { "The new device shows six digits, and so does this one. You say yes only if they are the same." }
        form.stack method="post" action="/devices/link" {
            fieldset {
                legend { "What it may do" }
                label.check { input type="radio" name="role" value="full" checked; " everything" }
                label.check { input type="radio" name="role" value="write-only"; " only add to backups: it can read and delete nothing" }
            }
            div.buttons { button.button.main type="submit" { "Make a code" } }
        }
    }
}

/// Makes a code and begins to wait for the device.
pub(super) async fn link(asked: &Asked) -> Answer {
    let write_only = match asked.form.get("role") {
        Some("full") => false,
        Some("write-only") => true,
        _ => return Err(usage("what the new device may do is missing".to_owned())),
    };
    let code = expect_view!(
        asked.run(Command::DeviceLink { write_only }).await?,
        LinkCode
    )?;
    // A code that was made before is worthless now, and nobody waits for it any more.
    asked.shared.jobs.stop_kind(Kind::Link);
    let title = "Waiting for the new device".to_owned();
    asked.shared.set_link_code(Some(code));
    asked.begin(Kind::Link, title, Command::DeviceLinkWait, "/devices/link")
}

/// The code, and what became of it.
pub(super) async fn link_page(asked: &Asked) -> Answer {
    let body = off_the_thread(&asked.shared, |shared| {
        html! {
            nav.crumbs aria-label="Where you are" { a href="/devices" { "Devices" } span { "New device" } }
            (card("state", "Take a new device in", Part::Link.whole(&live::Look::new(shared))))
        }
    })
    .await?;
    Ok(Reply::Sheet(Sheet::new("New device", Place::Devices, body)))
}

/// How far it is.
pub(super) fn link_state(shared: &Shared) -> Markup {
    let job = shared.jobs.newest(Kind::Link);
    let result = job.and_then(|job| job.state().result);
    match (shared.link_code(), result) {
        (None, _) => parts::empty(
            "There is no code now.",
            parts::link("/devices", "Devices", Look::Quiet),
        ),
        (Some(code), None) => code_shown(&code, shared.now()),
        (Some(_), Some(Ok(View::LinkAsk(ask)))) => digits_shown(&ask),
        (Some(_), Some(Ok(_))) => parts::failure(&super::request::unexpected()),
        (Some(_), Some(Err(failure))) => html! {
            (parts::failure(&failure))
            (parts::link("/devices", "Devices", Look::Quiet))
        },
    }
}

pub(super) fn code_shown(code: &LinkCodeView, now: i64) -> Markup {
    html! {
        ol {
            li { "On the new device, install candor and run " code { "candor device join" } "." }
            li { "Give it this code: scan the picture, or copy the text." }
            li { "Wait here: the digits appear by themselves." }
        }
        (picture(&code.code))
        p.code tabindex="0" { (code.code) }
        p { strong { "Whoever has this code can ask to join your account." } " It is good once, and ends " (when(code.expires_ms, now)) "." }
    }
}

/// The code as a picture, where it fits one: a path over the runs of dark modules, row by row.
fn picture(code: &str) -> Markup {
    let Ok(picture) = QrCode::new(code) else {
        return html! {};
    };
    let (width, colors) = (picture.width(), picture.to_colors());
    let mut path = String::new();
    for (y, row) in colors.chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] == Color::Dark {
                // Writing to a string cannot fail.
                let _ = write!(path, "M{x} {y}h{length}v1h-{length}z", length = run.len());
            }
            x += run.len();
        }
    }
    let whole = width + 2 * QUIET_MODULES;
    html! {
        svg.qr role="img" aria-label="The code as a picture"
            viewBox={ "-" (QUIET_MODULES) " -" (QUIET_MODULES) " " (whole) " " (whole) } {
            path d=(path) {}
        }
    }
}

pub(super) fn digits_shown(ask: &LinkAskView) -> Markup {
    html! {
        p { strong { (name(&ask.name)) } " asks to join. It " (role_words(&ask.role)) "." }
        p { "Does the new device show these digits?" }
        p.digits { (ask.digits) }
        form.buttons method="post" action="/devices/answer" {
            input type="hidden" name="digits" value=(ask.digits);
            button.button type="submit" name="accept" value="no" { "No, they are different" }
            button.button.main type="submit" name="accept" value="yes" { "Yes, take it in" }
        }
    }
}

/// Says yes or no to the device that asks.
pub(super) async fn answer(asked: &Asked) -> Answer {
    let accept = match asked.form.get("accept") {
        Some("yes") => true,
        Some("no") => false,
        _ => return Err(usage("yes or no is missing".to_owned())),
    };
    let digits = asked.form.need("digits", "the digits")?.to_owned();
    let answered = asked
        .run(Command::DeviceLinkAnswer { accept, digits })
        .await;
    asked.shared.set_link_code(None);
    let words = match answered? {
        View::Device(device) => {
            let called = device.name.as_deref().unwrap_or("The device").to_owned();
            html! { p { strong { (name(&called)) " is in your account." } } }
        }
        _ => html! { p { strong { "It was not taken in." } " Nothing was changed." } },
    };
    asked.told("/devices", parts::notice(Tone::Good, words))
}

/// Asks whether to put a device out.
pub(super) async fn ask_revoke(asked: &Asked) -> Answer {
    let wanted = asked.query.need("device", "the device")?;
    let devices = expect_view!(asked.run(Command::DeviceList).await?, Devices)?;
    let device = DeviceView::find(&devices, wanted)?;
    let called = device.name.as_deref().unwrap_or("this device");
    let body = html! {
        p { "The cell stops serving " (name(called)) " at once, its consents end, and your other devices refuse whatever it signs from now on." }
        p { "New keys are made that it does not get. What it could read until now it may have kept: nobody can take that back. Its files stay on it." }
        form method="post" action="/devices/revoke" {
            input type="hidden" name="device" value=(device.device);
            (answers("/devices", "Revoke it", Look::Danger))
        }
    };
    let title = format!("Revoke {}?", text::shown(called));
    Ok(question(asked, &title, Place::Devices, &body))
}

/// Puts a device out.
pub(super) async fn revoke(asked: &Asked) -> Answer {
    let device = asked.form.need("device", "the device")?.to_owned();
    let revoked = expect_view!(asked.run(Command::DeviceRevoke { device }).await?, Revoked)?;
    let called = revoked.device.name.as_deref().unwrap_or("The device");
    let words = html! {
        p { strong { (name(called)) " is revoked." } " What is stored from now on is under keys that it does not get." }
        @if revoked.left > 0 { p { (text::count(revoked.left)) " keys that revoked devices hold are not on this device, and are renewed by one that has them." } }
    };
    asked.told("/devices", parts::notice(Tone::Good, words))
}
