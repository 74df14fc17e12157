//! Looking into snapshots. Errands, like restoring.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use candor_vault::browse::{self, BrowseError, Difference, Search};
use candor_vault::node::{Entry, Item, Kind};
use candor_vault::report::{Cancel, Progress as _};
use candor_wire::errand::Purpose;

use crate::commands::{DifferenceView, EntryView, Event, Failure, FailureKind, View};
use crate::engine::Engine;
use crate::events::{Events, Meter};
use crate::failure;
use crate::path_text::PathText;
use crate::restore_flow::{Session, SnapshotSpec, not_found};

/// Entries that a search looks at between two tellings of how far it is.
const LOOKED_AT_STEP: u64 = 1024;

pub(crate) const fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Directory { .. } => "folder",
        Kind::Symlink { .. } => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharacterDevice { .. } => "character-device",
        Kind::BlockDevice { .. } => "block-device",
    }
}

fn entry_view(snapshot: &str, path: &Path, entry: &Entry) -> EntryView {
    EntryView {
        snapshot: snapshot.to_owned(),
        path: PathText::from_path(path),
        kind: kind_name(&entry.kind).to_owned(),
        bytes: if let Kind::File { size, .. } = entry.kind {
            size
        } else {
            0
        },
        mode: entry.metadata.mode,
        modified_ns: entry.metadata.mtime.0,
        target: match &entry.kind {
            Kind::Symlink { target } => Some(PathText::from_bytes(target)),
            _ => None,
        },
    }
}

/// Sends one item of a listing, and goes on unless the person stopped it.
fn tell_item(
    events: &Events,
    cancel: &Cancel,
    snapshot: &str,
    path: &Path,
    item: &Item,
) -> ControlFlow<()> {
    if cancel.is_cancelled() {
        return ControlFlow::Break(());
    }
    match item {
        Item::Entry(entry) => events.send(Event::Entry(entry_view(snapshot, path, entry))),
        Item::Refused { .. } => events.send(Event::Problem(crate::commands::Problem {
            path: PathText::from_path(path),
            what: "its name is one that no folder may hold; it is never restored".to_owned(),
        })),
    }
    ControlFlow::Continue(())
}

pub(crate) fn browse_failed(error: &BrowseError) -> Failure {
    match error {
        BrowseError::NotFound { path } => Failure::new(
            FailureKind::Usage,
            format!("{} is not in the snapshot", path.display()),
        )
        .with_hint("`candor backup ls SNAPSHOT` shows what is in it"),
        BrowseError::Pattern { .. } | BrowseError::LongPattern => {
            Failure::new(FailureKind::Usage, error.to_string())
                .with_hint("globs are written as in a .gitignore file")
                .because(error)
        }
        BrowseError::Tree(_) => Failure::of(error),
    }
}

/// Whether a pattern can be looked for at all: what is wrong with it is known before anything is opened.
pub fn check_glob(glob: &str) -> Result<(), Failure> {
    let search = Search::new(glob);
    search.map(drop).map_err(|error| browse_failed(&error))
}

impl Engine {
    /// Lists a folder of a snapshot.
    pub(crate) fn backup_ls(
        &self,
        snapshot: &str,
        path: Option<&PathText>,
        recursive: bool,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let spec = SnapshotSpec::parse(snapshot)?;
        let path = path.map(PathText::to_path).unwrap_or_default();
        self.read_back(Purpose::Restore, events, cancel, |session| {
            let (held, entry) = session.find(&spec)?;
            let (open, id) = (&held.open, entry.id.to_string());
            let mut each = |path: &Path, item: &Item| {
                tell_item(session.events, session.cancel, &id, path, item)
            };
            let listed = if recursive {
                let mut reader = open.repository.reader(&*open.objects);
                browse::list_all(&mut reader, entry.root, &path, &mut each)
            } else {
                browse::list(&open.random_reader(), entry.root, &path, &mut each)
            };
            listed.map_err(|error| browse_failed(&error))?;
            session.done()
        })
    }

    /// Finds files by name in all snapshots.
    pub(crate) fn backup_find(
        &self,
        glob: &str,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        // Nothing is asked of the cell for what cannot be looked for.
        let mut search = Search::new(glob).map_err(|error| browse_failed(&error))?;
        self.read_back(Purpose::Restore, events, cancel, |session| {
            let mut damaged = None;
            let looked = session.look_for(&mut search, &mut damaged);
            match (looked, damaged) {
                (Ok(()), None) => session.done(),
                (Err(failure), None) => Err(failure),
                (Err(failure), Some(_)) if failure.kind != FailureKind::Interrupted => Err(failure),
                // What is damaged is told, however early it ended.
                (_, Some(damaged)) => Err(damaged),
            }
        })
    }

    /// Compares two snapshots of one vault.
    pub(crate) fn backup_diff(
        &self,
        a: &str,
        b: &str,
        events: &mut dyn FnMut(Event),
        cancel: &Cancel,
    ) -> Result<View, Failure> {
        let (a, b) = (SnapshotSpec::parse(a)?, SnapshotSpec::parse(b)?);
        self.read_back(Purpose::Restore, events, cancel, |session| {
            let (held, before) = session.find(&a)?;
            let after = b
                .pick(&held.open.repository.manifest().snapshots)?
                .ok_or_else(|| {
                    not_found()
                        .with_hint("two snapshots can be compared when they are of the same set")
                })?;
            let mut reader = held.open.repository.reader(&*held.open.objects);
            let mut each = |path: &Path, difference: &Difference| {
                if session.cancel.is_cancelled() {
                    return ControlFlow::Break(());
                }
                let change = change_name(difference).to_owned();
                session.events.send(Event::Difference(DifferenceView {
                    change,
                    path: PathText::from_path(path),
                }));
                ControlFlow::Continue(())
            };
            browse::compare(&mut reader, before.root, after.root, &mut each)
                .map_err(|error| browse_failed(&error))?;
            session.done()
        })
    }
}

impl Session<'_> {
    /// Looks through all snapshots. One that is damaged hides nothing in the others.
    fn look_for(&self, search: &mut Search, damaged: &mut Option<Failure>) -> Result<(), Failure> {
        let moved_bytes = AtomicU64::new(0);
        let moved = || moved_bytes.load(Ordering::Relaxed);
        let meter = Meter::new(self.events, "find", &moved);
        let mut looked_at = 0;
        for vault in self.vaults()? {
            let held = self.open(vault)?;
            let moved_before = moved();
            let mut reader = held.open.repository.reader(&*held.open.objects);
            for entry in &held.open.repository.manifest().snapshots {
                let id = entry.id.to_string();
                let mut each = |path: &Path, item: &Item, fits: bool| {
                    looked_at += 1;
                    if looked_at % LOOKED_AT_STEP == 0 {
                        let moved_here = held.open.objects.moved_bytes();
                        moved_bytes.store(moved_before + moved_here, Ordering::Relaxed);
                        meter.advance(LOOKED_AT_STEP, 0);
                    }
                    if fits {
                        tell_item(self.events, self.cancel, &id, path, item)
                    } else if self.cancel.is_cancelled() {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                };
                let found = search.run(&mut reader, entry.root, &mut each);
                match found.map_err(|error| browse_failed(&error)) {
                    Err(failure) if failure.kind == FailureKind::Integrity => {
                        damaged.get_or_insert(failure);
                    }
                    looked => looked?,
                }
                self.done()?;
            }
        }
        Ok(())
    }

    /// Nothing more to do, unless the person stopped it in the middle.
    pub(crate) fn done(&self) -> Result<View, Failure> {
        if self.cancel.is_cancelled() {
            Err(failure::interrupted())
        } else {
            Ok(View::Done)
        }
    }
}

fn change_name(difference: &Difference) -> &'static str {
    match difference {
        Difference::Added(_) => "added",
        Difference::Removed(_) => "removed",
        Difference::Changed {
            before,
            after,
            content,
        } => {
            if before.kind.code() != after.kind.code() {
                "kind"
            } else if *content {
                "content"
            } else {
                "metadata"
            }
        }
    }
}
