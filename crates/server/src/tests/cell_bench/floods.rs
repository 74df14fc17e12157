//! Accounts that ask for as much as they can get.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::line::Line;
use super::load::{Caller, Kind};
use super::people::{Device, Object, Place, family};
use super::{LARGE_BYTES, Rights, SMALL_BYTES, line};

/// Devices of the account that floods.
const DEVICES: usize = 16;

/// Connections of each device for each kind of upload: with those below more than the account has places for.
const UPLOADS_PER_DEVICE: usize = 2;

/// Connections of an account that does nothing but what it may: as many requests at one time as sixteen of our devices make.
const WITHIN_LIMITS: usize = 32;

/// Where it comes from: two addresses, each of which may have 128 connections.
const SOURCES: [u8; 2] = [20, 21];

/// How much of an upload that never ends is sent, in bytes.
const ORPHAN_BYTES: usize = 256 * 1024;

/// How many large objects are made beforehand: more than a second of them.
const READY: usize = 64;

/// How often somebody who only waits looks whether the flood is over.
const LOOK: Duration = Duration::from_millis(50);

/// What one connection does all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Requests(Kind),
    /// Begins an upload, and lets it stand.
    Orphans,
    /// Uploads for which it has no quota.
    OverQuota,
}

/// The accounts that flood, and their connections.
pub(super) struct Flood {
    parts: Vec<(Part, Device, u8)>,
    place: Arc<Place>,
    /// Large objects that are made before the flood begins: to name one takes a processor for milliseconds.
    ready: Arc<Mutex<Vec<Object>>>,
}

/// What a flood got through.
#[derive(Default)]
pub(super) struct Got {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Got {
    pub(super) fn print(&self, name: &str, in_time: Duration) {
        let each_second =
            |all: &AtomicU64| all.load(Ordering::Relaxed) as f64 / in_time.as_secs_f64();
        line(name, each_second(&self.requests), "requests/s");
        line(name, each_second(&self.bytes) / 1e6, "MB/s");
    }
}

impl Flood {
    /// One account that asks for as much as it gets, and keeps to what an account may ask for at one time.
    pub(super) async fn within_limits(rights: &mut Rights) -> Self {
        let kinds = [
            Kind::Put(SMALL_BYTES),
            Kind::Put(LARGE_BYTES),
            Kind::Get,
            Kind::Move,
        ];
        let invitation = rights.invitation();
        let devices = family(&invitation, &rights.place, WITHIN_LIMITS / kinds.len()).await;
        let mut parts = Vec::new();
        for device in devices {
            for kind in kinds {
                parts.push((Part::Requests(kind), device.twin(), SOURCES[0]));
            }
        }
        Self {
            parts,
            place: Arc::clone(&rights.place),
            ready: Arc::default(),
        }
    }

    /// Opens its accounts: one with all the quota that there is, and one that has none left.
    pub(super) async fn new(rights: &mut Rights) -> Self {
        let mut parts = Vec::new();
        let devices = family(&rights.invitation(), &rights.place, DEVICES).await;
        for (device, source) in devices.into_iter().zip(SOURCES.into_iter().cycle()) {
            for _ in 0..UPLOADS_PER_DEVICE {
                parts.push((
                    Part::Requests(Kind::Put(SMALL_BYTES)),
                    device.twin(),
                    source,
                ));
            }
            parts.push((
                Part::Requests(Kind::Put(LARGE_BYTES)),
                device.twin(),
                source,
            ));
            parts.push((Part::Requests(Kind::Get), device.twin(), source));
            parts.push((Part::Orphans, device.twin(), source));
            parts.push((Part::Requests(Kind::Move), device, source));
        }
        for device in family(&rights.small.pop().unwrap(), &rights.place, DEVICES).await {
            parts.push((Part::OverQuota, device, SOURCES[0]));
        }
        Self {
            parts,
            place: Arc::clone(&rights.place),
            ready: Arc::default(),
        }
    }

    fn make_ready(&self) {
        let mut ready = self.ready.lock().unwrap();
        while ready.len() < READY {
            ready.push(self.place.object(LARGE_BYTES));
        }
    }

    /// Floods until `over`, with all connections at once; then all of them hang up, whatever they are about.
    pub(super) async fn until(&mut self, over: &Arc<AtomicBool>, got: &Arc<Got>) {
        self.make_ready();
        let mut running = JoinSet::new();
        for (part, device, source) in self.parts.drain(..) {
            let (over, got, ready) = (Arc::clone(over), Arc::clone(got), Arc::clone(&self.ready));
            running.spawn(async move {
                let device = match part {
                    // Nobody else would know where its head stands.
                    Part::Requests(kind @ Kind::Move) => {
                        requests(kind, device, source, &ready, &over, &got).await
                    }
                    _ => {
                        let twin = device.twin();
                        let work = async {
                            match part {
                                Part::Requests(kind) => {
                                    requests(kind, twin, source, &ready, &over, &got).await
                                }
                                Part::Orphans => orphans(twin, source, &over).await,
                                Part::OverQuota => over_quota(twin, source, &over, &got).await,
                            }
                        };
                        tokio::select! {
                            _ = work => {}
                            () = ended(&over) => {}
                        }
                        device
                    }
                };
                (part, device, source)
            });
        }
        while let Some(ended) = running.join_next().await {
            self.parts.push(ended.unwrap());
        }
    }
}

/// A connection, as soon as there are not too many from here.
async fn connected(place: &Place, source: u8) -> Line {
    loop {
        match Line::open(place.address, &place.root, source).await {
            Ok(line) => return line,
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn ended(over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK).await;
    }
}

async fn requests(
    kind: Kind,
    device: Device,
    source: u8,
    ready: &Mutex<Vec<Object>>,
    over: &AtomicBool,
    got: &Got,
) -> Device {
    let line = connected(&device.place, source).await;
    let mut caller = Caller::over(line, device, SMALL_BYTES).await;
    while !over.load(Ordering::Relaxed) {
        let made = (kind == Kind::Put(LARGE_BYTES)).then(|| ready.lock().unwrap().pop());
        let reply = match made.flatten() {
            Some(object) => caller.put(&object).await.unwrap(),
            None => caller.once(kind).await.unwrap(),
        };
        assert!(reply.is_good(), "{kind:?}: {:?}", reply.error());
        got.requests.fetch_add(1, Ordering::Relaxed);
        let bytes = match kind {
            Kind::Put(bytes) => bytes,
            Kind::Move | Kind::Get => reply.body.len(),
        };
        got.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    caller.device
}

async fn orphans(device: Device, source: u8, over: &AtomicBool) -> Device {
    let place = Arc::clone(&device.place);
    while !over.load(Ordering::Relaxed) {
        let mut line = connected(&place, source).await;
        let sent = device.put(&place.promised(LARGE_BYTES));
        let _ = line.stream.write_all(&sent.head).await;
        let _ = line.send_body(&sent, ORPHAN_BYTES).await;
        let _ = line.stream.flush().await;
        // Whoever hangs up and begins anew leaves more behind than whoever is told to go.
        tokio::time::sleep(20 * LOOK).await;
    }
    device
}

async fn over_quota(device: Device, source: u8, over: &AtomicBool, got: &Got) -> Device {
    let place = Arc::clone(&device.place);
    let mut line = connected(&place, source).await;
    while !over.load(Ordering::Relaxed) {
        let sent = device.put(&place.promised(LARGE_BYTES));
        let reply = line.ask(&sent).await.unwrap();
        assert_eq!(reply.status, 507, "{:?}", reply.error());
        got.requests.fetch_add(1, Ordering::Relaxed);
    }
    device
}
