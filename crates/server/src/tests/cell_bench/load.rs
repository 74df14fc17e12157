//! A hundred devices at once, each with a request on its way all the time.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candor_wire::ids::ObjectId;
use tokio::sync::Barrier;

use super::line::{Line, Reply};
use super::people::{Device, Object, family};
use super::{Bench, LARGE_BYTES, SMALL_BYTES, line, milliseconds, percentile, runtime};

/// Accounts, and devices of each: families.
const FAMILIES: usize = 20;
const FAMILY_DEVICES: usize = 5;

/// Where the devices come from; one network address may have 128 connections.
const SOURCE: u8 = 10;

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Move,
    Put(usize),
    Get,
}

/// A device and its connection.
pub(super) struct Caller {
    pub(super) line: Line,
    pub(super) device: Device,
    /// What its head names, and what it reads.
    stored: ObjectId,
}

impl Caller {
    /// Connects, and stores the object that it will read.
    pub(super) async fn open(device: Device, source: u8, bytes: usize) -> Self {
        let place = Arc::clone(&device.place);
        let line = Line::open(place.address, &place.root, source).await;
        Self::over(line.unwrap(), device, bytes).await
    }

    /// The same over a connection.
    pub(super) async fn over(line: Line, device: Device, bytes: usize) -> Self {
        let mut caller = Self {
            line,
            stored: ObjectId::from_bytes([0; 32]),
            device,
        };
        caller.store(bytes).await;
        caller
    }

    /// Stores an object, and reads that one from now on.
    pub(super) async fn store(&mut self, bytes: usize) {
        let object = self.device.place.object(bytes);
        let reply = self.put(&object).await.unwrap();
        assert!(reply.is_good(), "{:?}", reply.error());
        self.stored = object.name;
    }

    /// The object that it reads.
    pub(super) fn stored(&self) -> ObjectId {
        self.stored
    }

    pub(super) async fn put(&mut self, object: &Object) -> io::Result<Reply> {
        self.line.ask(&self.device.put(object)).await
    }

    pub(super) async fn once(&mut self, kind: Kind) -> io::Result<Reply> {
        let sent = match kind {
            Kind::Move => self.device.move_head(self.stored),
            Kind::Put(bytes) => return self.put(&self.device.place.object(bytes)).await,
            Kind::Get => self.device.get(self.stored),
        };
        self.line.ask(&sent).await
    }
}

/// All of them ask for the same until the time is over; returns how long each request took.
async fn at_once(
    callers: Vec<Caller>,
    kind: Kind,
    how_long: Duration,
) -> (Vec<Caller>, Vec<Duration>, Duration) {
    let start = Arc::new(Barrier::new(callers.len()));
    let began = Instant::now();
    let mut running = Vec::new();
    for mut caller in callers {
        let start = Arc::clone(&start);
        running.push(tokio::spawn(async move {
            start.wait().await;
            let began = Instant::now();
            let mut times = Vec::new();
            while began.elapsed() < how_long {
                let reply = caller.once(kind).await.unwrap();
                assert!(reply.is_good(), "{kind:?}: {:?}", reply.error());
                times.push(reply.whole);
            }
            (caller, times)
        }));
    }
    let (mut callers, mut times) = (Vec::new(), Vec::new());
    for one in running {
        let (caller, some) = one.await.unwrap();
        callers.push(caller);
        times.extend(some);
    }
    (callers, times, began.elapsed())
}

/// Measures each kind of request.
pub(super) fn measure(bench: &mut Bench) {
    let runtime = runtime(2, 0);
    let mut callers = runtime.block_on(async {
        let mut callers = Vec::new();
        for _ in 0..FAMILIES {
            for device in family(&bench.cell.invitation(), &bench.cell.place, FAMILY_DEVICES).await
            {
                callers.push(Caller::open(device, SOURCE, SMALL_BYTES).await);
            }
        }
        callers
    });
    let mut kinds = vec![
        ("head moves", Kind::Move, 0),
        ("puts of 64 KiB", Kind::Put(SMALL_BYTES), 0),
        ("gets of 64 KiB", Kind::Get, 0),
    ];
    if bench.form.is_long() {
        kinds.push(("puts of 16 MiB", Kind::Put(LARGE_BYTES), 0));
        kinds.push(("gets of 16 MiB", Kind::Get, LARGE_BYTES));
    }
    for (name, kind, stored) in kinds {
        callers = runtime.block_on(async {
            if stored > 0 {
                let all = callers.iter_mut().map(|caller| caller.store(stored));
                futures_util::future::join_all(all).await;
            }
            let (callers, ..) = at_once(callers, kind, bench.form.noticed()).await;
            let (callers, mut times, took) = at_once(callers, kind, bench.form.load()).await;
            let rate = times.len() as f64 / took.as_secs_f64();
            line(&format!("100 devices, {name}"), rate, "requests/s");
            for (word, part) in [("p50", 0.5), ("p99", 0.99)] {
                let time = milliseconds(percentile(&mut times, part));
                line(&format!("100 devices, {name}, {word}"), time, "ms");
            }
            callers
        });
    }
}
