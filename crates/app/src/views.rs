//! Views as lines of text.

use candor_client::commands::{
    AccountView, BackupView, CheckView, ConsentView, DeviceView, DifferenceView, DrillView,
    EntryView, ErasureView, FolderView, LedgerLineView, RestoredView, SetView, SnapshotView,
    StatusView, SyncedView, VersionView,
};
use candor_client::path_text::PathText;

use crate::text::{bytes, count, counted, duration, shown, table, time};
use crate::today::{self, Today};

/// Nanoseconds in a millisecond.
const NANOS_PER_MS: i64 = 1_000_000;

/// Digits of an id that are shown in tables: enough to be unique in practice, and to type.
const SHORT_ID_CHARS: usize = 12;

pub(crate) fn short(id: &str) -> String {
    id.chars().take(SHORT_ID_CHARS).collect()
}

fn maybe_time(ms: Option<i64>) -> String {
    ms.map_or_else(|| "never".to_owned(), time)
}

fn joined(paths: &[PathText]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| shown(&path.text)).collect();
    paths.join(", ")
}

/// `candor account show`.
pub(crate) fn account(view: &AccountView) -> Vec<String> {
    let addresses = if view.cell_addresses.is_empty() {
        "in this process alone".to_owned()
    } else {
        shown(&view.cell_addresses.join(", "))
    };
    let phrase = if view.phrase_confirmed {
        "confirmed"
    } else {
        "not confirmed"
    };
    vec![
        format!("account          {} ({})", shown(&view.name), view.account),
        format!("root key         {}", view.root_fingerprint),
        format!("recovery phrase  {phrase}"),
        format!(
            "device           {} ({}), {}",
            shown(&view.device_name),
            view.device,
            view.role
        ),
        format!("keys             {}", shown(&view.keys_protected_by)),
        format!("cell             {}", view.cell),
        format!(
            "  run by         {}, region {}",
            shown(&view.controller),
            shown(&view.region)
        ),
        format!("  reached at     {addresses}"),
    ]
}

/// `candor device list`.
pub(crate) fn devices(views: &[DeviceView]) -> Vec<String> {
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            let name = view.name.as_deref().map_or_else(|| "-".to_owned(), shown);
            let note = match view.revoked_ms {
                Some(revoked) => format!("revoked {}", time(revoked)),
                None if view.this_device => "this device".to_owned(),
                None => String::new(),
            };
            vec![
                view.device.clone(),
                name,
                view.role.clone(),
                time(view.added_ms),
                note,
            ]
        })
        .collect();
    table(&["DEVICE", "NAME", "ROLE", "ADDED", ""], &rows)
}

/// `candor consent list` and `history`.
pub(crate) fn consents(views: &[ConsentView]) -> Vec<String> {
    if views.is_empty() {
        return vec!["no consent was given".to_owned()];
    }
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            let set = view.set.as_deref().map_or_else(|| "-".to_owned(), shown);
            let ended = view.withdrawn_ms.unwrap_or(view.ends_ms);
            let to = format!("{}, {}", shown(&view.controller), shown(&view.region));
            vec![
                short(&view.id),
                view.service.clone(),
                set,
                view.state.clone(),
                time(view.given_ms),
                time(ended),
                to,
            ]
        })
        .collect();
    table(
        &["CONSENT", "SERVICE", "SET", "STATE", "GIVEN", "ENDS", "TO"],
        &rows,
    )
}

/// An erasure, and what to do about it.
pub(crate) fn erasure(view: &ErasureView) -> Vec<String> {
    let what = match (&view.vault, &view.set) {
        (None, _) => "The whole account".to_owned(),
        (Some(_), Some(set)) => format!("Everything of {}", shown(set)),
        (Some(vault), None) => format!("Vault {vault}"),
    };
    let keep = match (&view.vault, &view.set) {
        (None, _) => "candor account delete --cancel".to_owned(),
        (Some(_), Some(set)) => {
            format!("candor consent off {} {} --keep", view.service, shown(set))
        }
        (Some(_), None) => format!("candor consent keep {}", short(&view.id)),
    };
    let when = view.due_ms.map_or_else(
        || "once the cell has confirmed it".to_owned(),
        |due| format!("on {}", time(due)),
    );
    vec![
        format!("{what} is erased at the cell {when}. Until then you can keep it: {keep}"),
        format!(
            "Afterwards, the cell's receipt: candor consent receipt {}",
            short(&view.id)
        ),
    ]
}

/// `candor backup list`.
pub(crate) fn sets(views: &[SetView]) -> Vec<String> {
    if views.is_empty() {
        return vec!["no backup sets; `candor backup add PATH` names the first".to_owned()];
    }
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            vec![
                shown(&view.name),
                view.consent.clone(),
                maybe_time(view.last_backup_ms),
                maybe_time(view.last_drill_ms),
                note_of(view),
                joined(&view.paths),
            ]
        })
        .collect();
    table(
        &[
            "SET",
            "CONSENT",
            "LAST BACKUP",
            "LAST DRILL",
            "NOTE",
            "PATHS",
        ],
        &rows,
    )
}

/// `candor backup drill`.
pub(crate) fn drill(view: &DrillView) -> String {
    let files = counted(view.files, "file", "files");
    let mut line = format!(
        "{}: {files}, {} restored and verified; {} equal to the source",
        shown(&view.set),
        bytes(view.bytes),
        view.equal
    );
    if view.changed > 0 {
        line.push_str(&format!(", {} changed since or not here", view.changed));
    }
    if !view.different.is_empty() {
        line.push_str(&format!(", {} DIFFERENT", view.different.len()));
    }
    line
}

/// `candor sync status`.
pub(crate) fn folders(views: &[FolderView]) -> Vec<String> {
    if views.is_empty() {
        return vec!["no synced folders; `candor sync add DIR` names the first".to_owned()];
    }
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            vec![
                shown(&view.name),
                if view.paused {
                    "paused".to_owned()
                } else {
                    view.consent.clone()
                },
                maybe_time(view.last_sync_ms),
                counted(view.files, "file", "files"),
                folder_note(view),
                shown(&view.path.text),
            ]
        })
        .collect();
    table(
        &["FOLDER", "CONSENT", "LAST IN STEP", "HOLDS", "NOTE", "PATH"],
        &rows,
    )
}

fn folder_note(view: &FolderView) -> String {
    let mut notes = Vec::new();
    if view.syncing {
        notes.push("at work".to_owned());
    }
    if view.conflicts > 0 {
        notes.push(counted(
            view.conflicts,
            "file kept twice",
            "files kept twice",
        ));
    }
    if view.last_problems > 0 {
        notes.push(counted(view.last_problems, "problem", "problems"));
    }
    notes.join(", ")
}

/// `candor sync versions`.
pub(crate) fn versions(views: &[VersionView]) -> Vec<String> {
    if views.is_empty() {
        return vec!["there is no version of that".to_owned()];
    }
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            vec![
                short(&view.version),
                time(view.time_ms),
                shown(&view.device),
                if view.kind == "file" {
                    bytes(view.bytes)
                } else {
                    view.kind.clone()
                },
                if view.current {
                    "now".to_owned()
                } else {
                    String::new()
                },
            ]
        })
        .collect();
    table(&["VERSION", "TIME", "DEVICE", "SIZE", ""], &rows)
}

/// One line about rounds of a folder.
pub(crate) fn synced(view: &SyncedView) -> String {
    let counts = [
        (view.sent, "sent"),
        (view.received, "received"),
        (view.moved, "moved"),
        (view.removed, "removed"),
        (view.conflicts, "kept twice"),
    ];
    let parts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", crate::text::count(*count)))
        .collect();
    let name = shown(&view.folder);
    if parts.is_empty() {
        format!("{name}: in step")
    } else {
        format!("{name}: in step ({})", parts.join(", "))
    }
}

fn note_of(view: &SetView) -> String {
    let mut notes = Vec::new();
    if view.overdue {
        notes.push("overdue".to_owned());
    }
    if view.interrupted {
        notes.push("will be resumed".to_owned());
    }
    if view.last_problems > 0 {
        notes.push(counted(
            view.last_problems,
            "file not saved",
            "files not saved",
        ));
    }
    notes.join(", ")
}

/// `candor backup snapshots`.
pub(crate) fn snapshots(views: &[SnapshotView]) -> Vec<String> {
    if views.is_empty() {
        return vec!["no snapshots yet".to_owned()];
    }
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            let size = bytes(view.bytes);
            vec![
                short(&view.snapshot),
                shown(&view.set),
                time(view.time_ms),
                count(view.files),
                size,
                short(&view.device),
                joined(&view.paths),
            ]
        })
        .collect();
    table(
        &[
            "SNAPSHOT", "SET", "TIME", "FILES", "SIZE", "DEVICE", "PATHS",
        ],
        &rows,
    )
}

/// One line of `candor backup ls` and `find`.
pub(crate) fn entry(view: &EntryView) -> String {
    let kind = match view.kind.as_str() {
        "folder" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "character-device" => 'c',
        "block-device" => 'b',
        _ => '-',
    };
    let target = view
        .target
        .as_ref()
        .map(|target| format!(" -> {}", shown(&target.text)))
        .unwrap_or_default();
    let modified = time(view.modified_ns.div_euclid(NANOS_PER_MS));
    format!(
        "{kind}{} {:>11}  {modified}  {}{target}",
        mode(view.mode),
        bytes(view.bytes),
        shown(&view.path.text)
    )
}

fn mode(bits: u32) -> String {
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut out = String::with_capacity(9);
    for (place, (bit, with, without)) in special.into_iter().enumerate() {
        let three = bits >> (6 - 3 * place);
        out.push(if three & 4 != 0 { 'r' } else { '-' });
        out.push(if three & 2 != 0 { 'w' } else { '-' });
        out.push(match (bits & bit != 0, three & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// One line of `candor backup diff`.
pub(crate) fn difference(view: &DifferenceView) -> String {
    format!("{:<9} {}", view.change, shown(&view.path.text))
}

/// The result of a backup.
pub(crate) fn backup(view: &BackupView) -> String {
    let mut text = format!(
        "{}: {}, {} in {}; {} new, {} sent; snapshot {}",
        shown(&view.set),
        counted(view.files, "file", "files"),
        bytes(view.bytes),
        duration(view.duration_ms),
        bytes(view.new_bytes),
        bytes(view.stored_bytes),
        short(&view.snapshot)
    );
    if view.problems > 0 {
        text.push_str("; ");
        text.push_str(&counted(
            view.problems,
            "file could not be saved",
            "files could not be saved",
        ));
    }
    text
}

/// The result of a restore.
pub(crate) fn restored(view: &RestoredView) -> String {
    let mut text = format!(
        "{}, {} restored in {}",
        counted(view.files, "file", "files"),
        bytes(view.bytes),
        duration(view.duration_ms)
    );
    if view.already_there > 0 {
        text.push_str(&format!(
            "; {} there already",
            counted(view.already_there, "file was", "files were")
        ));
    }
    if view.problems > 0 {
        text.push_str(&format!(
            "; {}",
            counted(
                view.problems,
                "entry is not as it was",
                "entries are not as they were"
            )
        ));
    }
    text
}

/// The result of a check.
pub(crate) fn check(view: &CheckView) -> Vec<String> {
    let how = if view.read_data {
        format!("{} read and verified", bytes(view.bytes_read))
    } else {
        "contents not read (--read-data reads them)".to_owned()
    };
    let what = format!(
        "{} in {}; {how}",
        counted(view.objects, "object", "objects"),
        counted(view.snapshots, "snapshot", "snapshots")
    );
    let mut lines = vec![what];
    lines.extend(
        view.damaged
            .iter()
            .map(|object| format!("missing or damaged: {object}")),
    );
    lines.extend(
        view.affected
            .iter()
            .map(|path| format!("needs it: {}", shown(&path.text))),
    );
    if view.damaged.is_empty() && view.affected.is_empty() {
        lines.push("nothing is missing or damaged".to_owned());
    }
    if view.repaired > 0 {
        let objects = counted(view.repaired, "object is", "objects are");
        lines.push(format!("repaired: {objects} on no list any more"));
    }
    lines
}

/// One line of `candor ledger`.
pub(crate) fn ledger_line(view: &LedgerLineView) -> String {
    let when = time(view.opened_ms);
    if let Some(alarm) = &view.alarm {
        return format!("{:>6}  {when}  ALARM: {}", view.sequence, shown(alarm));
    }
    let remote = view.remote.as_deref().unwrap_or(&view.name);
    format!(
        "{:>6}  {when}  {:<10}  {:<8}  {}  out {}  in {}  {}",
        view.sequence,
        view.protocol,
        shown(&view.service),
        shown(remote),
        bytes(view.cipher_out.unwrap_or(view.plain_out)),
        bytes(view.cipher_in.unwrap_or(view.plain_in)),
        shown(&view.data_classes.join("+")),
    )
}

/// `candor status`: the account, the four questions of the page Home, the log, and what needs the person.
pub(crate) fn status(
    view: &StatusView,
    consents: &[ConsentView],
    today: Option<&Today<'_>>,
) -> Vec<String> {
    let mut lines = match &view.account {
        Some(one) => account(one),
        None => vec!["no account on this device".to_owned()],
    };
    let mut part = |question: &str, answer: Vec<String>| {
        lines.extend([String::new(), question.to_owned()]);
        lines.extend(answer.into_iter().map(|line| format!("  {line}")));
    };
    part("Is my data safe?", safe(view));
    part("What is switched on?", switched_on(view, consents));
    if let Some(today) = today {
        part("What left this device?", left(today));
        part(
            "Who asked for my data?",
            vec![format!("{} {}", today::NOBODY, today::NO_WAY)],
        );
    }
    if let Some(log) = &view.log {
        part(
            "What does the public log say?",
            crate::log::status_lines(log),
        );
    } else if view.account.is_some() {
        let sentence =
            "unwitnessed: this device has not looked at its cell's log yet (`candor log monitor`)";
        part("What does the public log say?", vec![sentence.to_owned()]);
    }
    if !view.warnings.is_empty() {
        lines.push(String::new());
        lines.extend(
            view.warnings
                .iter()
                .map(|warning| format!("! {}", shown(warning))),
        );
    }
    lines
}

fn safe(view: &StatusView) -> Vec<String> {
    if view.sets.is_empty() {
        return vec!["Nothing is backed up yet: candor backup add PATH".to_owned()];
    }
    sets(&view.sets)
}

fn switched_on(view: &StatusView, consents: &[ConsentView]) -> Vec<String> {
    let mut lines = Vec::new();
    for service in &view.services {
        let live = today::live(consents, &service.name);
        let state = match live.first() {
            Some(first) if service.on => format!(
                "on: sends {} to {}, region {}, since {}; your consent ends {}",
                today::sends(view, &service.name),
                shown(&first.controller),
                shown(&first.region),
                time(first.given_ms),
                time(first.ends_ms)
            ),
            _ if service.on => "on".to_owned(),
            _ => "off: nothing is sent".to_owned(),
        };
        lines.push(format!("{:<10} {state}", service.name));
    }
    if !view.folders.is_empty() {
        lines.extend(folders(&view.folders));
    }
    lines
}

fn left(today: &Today<'_>) -> Vec<String> {
    let mut lines = vec![format!(
        "{}{} A day begins at midnight UTC.",
        today.amount(),
        today.rest()
    )];
    let rows: Vec<Vec<String>> = today
        .went()
        .map(|one| {
            vec![
                bytes(one.out_bytes),
                today::errand_words(one.service),
                today::to_words(one.destination, one.protocol),
            ]
        })
        .collect();
    lines.extend(
        today
            .alarms()
            .map(|alarms| format!("! {alarms} `candor ledger` has them.")),
    );
    if !rows.is_empty() {
        lines.extend(table(&["OUT", "WHAT FOR", "WHERE TO"], &rows));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_ls_shows_them() {
        assert_eq!(mode(0o644), "rw-r--r--");
        assert_eq!(mode(0o4755), "rwsr-xr-x");
        assert_eq!(mode(0o2644), "rw-r-Sr--");
        assert_eq!(mode(0o1777), "rwxrwxrwt");
    }

    #[test]
    fn a_name_in_a_listing_stays_on_its_line() {
        let view = DifferenceView {
            change: "added".to_owned(),
            path: PathText::from_bytes(b"a\nremoved b\xff"),
        };
        assert_eq!(difference(&view), "added     a\\nremoved b\u{fffd}");
    }
}
