//! The way between a device and the cell, and what can go wrong on it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use candor_wire::ObjectId;

use super::cell::{Cell, Head, Refused};
use super::{Draw, Journal};
use crate::ports::{ObjectSink, ObjectSource, Presence, SinkError, SourceError};

/// What becomes of one call, or of one step on the device's own disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// The request does not arrive.
    RequestLost,
    /// It is done, and nobody hears of it.
    ReplyLost,
    /// It arrives twice.
    Twice,
    /// It arrives when nobody waits for it any more.
    Late,
    /// It takes so long that the retention window of everything condemned is over.
    Slow,
    /// What comes back is torn, once.
    Torn,
    /// The cell stops in the midst of it; the number says how far it came.
    CellStops(usize),
    /// The device stops before it.
    CrashBefore,
    /// The device stops after it, before it hears of it.
    CrashAfter,
}

/// What goes wrong, and when.
pub(super) enum Plan {
    /// Nothing.
    Calm,
    /// Anything, at so many calls of a thousand; stops of the device are rarer.
    Drawn {
        draw: Draw,
        per_mille: usize,
        may_tear: bool,
    },
    /// This, at the durable step of that number, counted from 0.
    At { step: usize, fault: Fault },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put,
    Swap,
    Read,
    /// A durable step on the device itself.
    Local,
}

impl Kind {
    /// What the fault means for such a call.
    fn fit(self, fault: Fault) -> Fault {
        match (self, fault) {
            (_, Fault::CrashBefore | Fault::CrashAfter) => fault,
            (Self::Local, _) => Fault::None,
            (Self::Read, Fault::Torn) => Fault::Torn,
            (_, Fault::Torn) => Fault::None,
            (Self::Read, Fault::Twice) => Fault::None,
            (Self::Read, Fault::Late | Fault::CellStops(_)) => Fault::RequestLost,
            _ => fault,
        }
    }
}

impl Plan {
    fn next(&mut self, kind: Kind, step: usize) -> Fault {
        let fault = match self {
            Self::Calm => Fault::None,
            Self::At { step: at, fault } if kind != Kind::Read && *at == step => *fault,
            Self::At { .. } => Fault::None,
            Self::Drawn {
                draw,
                per_mille,
                may_tear,
            } => {
                if draw.below(1_000) >= *per_mille {
                    return Fault::None;
                }
                match draw.below(16) {
                    0..3 => Fault::RequestLost,
                    3..6 => Fault::ReplyLost,
                    6..8 => Fault::Twice,
                    8..10 => Fault::Late,
                    10 => Fault::Slow,
                    11 if *may_tear => Fault::Torn,
                    11 | 12 => Fault::CellStops(draw.below(3)),
                    13 | 14 => Fault::CrashBefore,
                    _ => Fault::CrashAfter,
                }
            }
        };
        kind.fit(fault)
    }
}

/// A request that may arrive once more, or for the first time, when nobody waits for it.
#[derive(Clone)]
pub(super) enum Request {
    Put(ObjectId, Bytes),
    Swap(Head, Vec<ObjectId>),
}

impl Request {
    pub(super) fn arrive(&self, cell: &mut Cell) {
        match self {
            Self::Put(object, bytes) => cell.put(*object, bytes),
            // Whoever sent it is gone.
            Self::Swap(head, rescued) => {
                let _ = cell.swap(head, rescued);
            }
        }
    }
}

struct State {
    plan: Plan,
    /// Durable steps so far.
    steps: usize,
    is_dead: bool,
    torn: usize,
    swaps: usize,
}

/// One device's way to the cell. A device that stopped gets no answer any more.
pub(super) struct Link {
    device: u8,
    cell: Arc<Mutex<Cell>>,
    journal: Arc<Journal>,
    /// The device's own files, and where they are copied to when it stops.
    local: PathBuf,
    left: PathBuf,
    state: Mutex<State>,
}

impl Link {
    pub(super) fn new(
        device: u8,
        cell: &Arc<Mutex<Cell>>,
        journal: &Arc<Journal>,
        local: PathBuf,
        left: PathBuf,
    ) -> Self {
        let state = State {
            plan: Plan::Calm,
            steps: 0,
            is_dead: false,
            torn: 0,
            swaps: 0,
        };
        Self {
            device,
            cell: Arc::clone(cell),
            journal: Arc::clone(journal),
            local,
            left,
            state: Mutex::new(state),
        }
    }

    pub(super) fn set_plan(&self, plan: Plan) {
        self.state.lock().unwrap().plan = plan;
    }

    /// Durable steps so far.
    pub(super) fn steps(&self) -> usize {
        self.state.lock().unwrap().steps
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state.lock().unwrap().is_dead
    }

    pub(super) fn revive(&self) {
        self.state.lock().unwrap().is_dead = false;
    }

    /// How many torn objects were served.
    pub(super) fn torn(&self) -> usize {
        self.state.lock().unwrap().torn
    }

    /// How many heads this device signed and sent.
    pub(super) fn swaps(&self) -> usize {
        self.state.lock().unwrap().swaps
    }

    fn next(&self, kind: Kind) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        if state.is_dead {
            return None;
        }
        let step = state.steps;
        state.steps += usize::from(kind != Kind::Read);
        Some(state.plan.next(kind, step))
    }

    /// From here on nothing of the device runs: its disk is kept as it is now.
    pub(super) fn stop(&self) {
        copy_files(&self.local, &self.left);
        self.state.lock().unwrap().is_dead = true;
    }

    /// One call, as the plan has it. `None`: there is no answer.
    fn call<T>(
        &self,
        kind: Kind,
        what: &str,
        request: Option<&Request>,
        mut act: impl FnMut(&mut Cell) -> T,
        show: impl Fn(&T) -> String,
    ) -> (Option<T>, Fault) {
        let Some(fault) = self.next(kind) else {
            return (None, Fault::RequestLost);
        };
        let mut cell = self.cell.lock().unwrap();
        let answer = match fault {
            Fault::None | Fault::Torn => Some(act(&mut cell)),
            Fault::RequestLost => None,
            Fault::ReplyLost => {
                act(&mut cell);
                None
            }
            Fault::Twice => {
                act(&mut cell);
                Some(act(&mut cell))
            }
            Fault::Late => {
                self.journal.late.lock().unwrap().extend(request.cloned());
                None
            }
            Fault::Slow => {
                cell.expire();
                Some(act(&mut cell))
            }
            Fault::CellStops(stage) => {
                stop_cell(&mut cell, request, stage);
                None
            }
            Fault::CrashBefore => {
                self.stop();
                None
            }
            Fault::CrashAfter => {
                act(&mut cell);
                self.stop();
                None
            }
        };
        drop(cell);
        let word = match fault {
            Fault::None => String::new(),
            other => format!(" [{other:?}]"),
        };
        let said = answer.as_ref().map_or("no answer".to_owned(), show);
        self.journal
            .note(format!("d{} {what}{word}: {said}", self.device));
        (answer, fault)
    }

    /// A durable step on the device's own disk. False: the device stopped in it.
    pub(super) fn local(&self, what: &str, mut act: impl FnMut()) -> bool {
        let done = self.call(Kind::Local, what, None, |_| act(), |()| "done".to_owned());
        done.0.is_some()
    }

    /// The head; `None` if there is no answer.
    pub(super) fn head(&self) -> Option<Option<Head>> {
        let show = |head: &Option<Head>| match head {
            None => "none".to_owned(),
            Some(head) => format!("head {}", head.counter),
        };
        self.call(Kind::Read, "reads the head", None, |cell| cell.head(), show)
            .0
    }

    /// Moves the head; `None` if there is no answer.
    pub(super) fn swap(&self, head: &Head, rescued: &[ObjectId]) -> Option<Result<(), Refused>> {
        self.state.lock().unwrap().swaps += 1;
        let name = self.journal.name_of(&head.manifest);
        let what = format!(
            "moves the head to {} ({name}, {} condemned, {} rescued)",
            head.counter,
            head.condemned.len(),
            rescued.len()
        );
        let request = Request::Swap(head.clone(), rescued.to_vec());
        let act = |cell: &mut Cell| cell.swap(head, rescued);
        let show = |moved: &Result<(), Refused>| format!("{moved:?}");
        self.call(Kind::Swap, &what, Some(&request), act, show).0
    }
}

fn stop_cell(cell: &mut Cell, request: Option<&Request>, stage: usize) {
    match request {
        Some(Request::Put(object, bytes)) => {
            let written = [0, bytes.len() / 3, bytes.len()][stage];
            cell.begin(*object, bytes, written);
        }
        // The database moves a head in one piece.
        Some(swap) if stage == 2 => swap.arrive(cell),
        _ => {}
    }
    cell.start_again();
}

/// Makes `to` hold the same databases as `from`, and nothing else.
pub(super) fn copy_files(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        // What SQLite shares between processes is made again.
        if !name.to_string_lossy().ends_with("-shm") {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

fn lost() -> Box<dyn std::error::Error + Send + Sync> {
    "no answer".into()
}

impl ObjectSink for Link {
    fn put(&self, object: ObjectId, bytes: Bytes) -> Result<(), SinkError> {
        let bytes = Bytes::copy_from_slice(&bytes);
        let name = self.journal.name(object, &bytes);
        let what = format!("puts {name}, {} KiB", bytes.len() / 1024);
        let request = Request::Put(object, bytes.clone());
        let act = |cell: &mut Cell| cell.put(object, &bytes);
        let show = |(): &()| "stored".to_owned();
        let done = self.call(Kind::Put, &what, Some(&request), act, show);
        done.0.ok_or_else(|| SinkError::Unreachable(lost()))
    }

    fn puts_at_once(&self) -> usize {
        1
    }
}

impl ObjectSource for Link {
    fn get(&self, object: ObjectId) -> Result<Bytes, SourceError> {
        let what = format!("gets {}", self.journal.name_of(&object));
        let act = |cell: &mut Cell| cell.get(object);
        let show = |bytes: &Option<Bytes>| bytes.as_ref().map_or("missing", |_| "there").to_owned();
        let (answer, fault) = self.call(Kind::Read, &what, None, act, show);
        let bytes = answer
            .ok_or_else(|| SourceError::Unreachable(lost()))?
            .ok_or(SourceError::Missing { object })?;
        if fault == Fault::Torn {
            self.state.lock().unwrap().torn += 1;
            let mut torn = bytes[..bytes.len() / 2].to_vec();
            torn.resize(bytes.len(), 0);
            return Ok(Bytes::from(torn));
        }
        Ok(Bytes::copy_from_slice(&bytes))
    }

    fn get_range(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes, SourceError> {
        let bytes = self.get(object)?;
        let end = (range.end as usize).min(bytes.len());
        Ok(bytes.slice((range.start as usize).min(end)..end))
    }

    fn has(&self, objects: &[ObjectId]) -> Result<Vec<Presence>, SourceError> {
        let what = format!("asks for {} objects", objects.len());
        let act = |cell: &mut Cell| objects.iter().map(|one| cell.presence(*one)).collect();
        let show = |found: &Vec<Presence>| {
            let mut counts = BTreeMap::new();
            for one in found {
                *counts.entry(format!("{one:?}")).or_insert(0) += 1;
            }
            format!("{counts:?}")
        };
        let answer = self.call(Kind::Read, &what, None, act, show).0;
        answer.ok_or_else(|| SourceError::Unreachable(lost()))
    }

    fn list(&self, after: Option<ObjectId>) -> Result<Vec<(ObjectId, u64)>, SourceError> {
        let act = |cell: &mut Cell| cell.list(after);
        let show = |page: &Vec<(ObjectId, u64)>| format!("{} objects", page.len());
        let answer = self.call(Kind::Read, "lists objects", None, act, show).0;
        answer.ok_or_else(|| SourceError::Unreachable(lost()))
    }
}
