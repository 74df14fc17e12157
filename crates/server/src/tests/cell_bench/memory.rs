//! What strangers and accounts can make the cell hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candor_wire::ids::ObjectId;
use tokio::io::AsyncWriteExt as _;

use super::floods::{Flood, Got};
use super::line::Line;
use super::load::{Caller, Kind};
use super::people::{Device, family};
use super::{Bench, LARGE_BYTES, SMALL_BYTES, line, runtime};

/// Hostile connections of each round, a fifth of them of each kind; one address may have 128. Somebody else is served
/// meanwhile.
const CONNECTIONS: usize = 100;

/// Where they come from.
const SOURCE: u8 = 40;

/// Devices of the account among them.
const DEVICES: usize = 5;

/// How long each round holds what it has, while the flood runs beside it.
const HELD: Duration = Duration::from_secs(3);

/// How long one of them may be kept from sending more.
const SEND_WAIT: Duration = Duration::from_millis(300);

/// The most that the cell may hold here, in bytes: twelve uploads of 16 MiB, 80 messages of 1 MiB, views and caches of
/// 80 MiB, and some 220 connections with buffers and two pieces of an object, three quarters of a MiB together.
const RESIDENT_MAX_BYTES: u64 = 517 * 1024 * 1024;

/// By how much more the later rounds may have than the earlier ones, in bytes: what an allocator keeps here or there.
const NOISE_MAX_BYTES: u64 = 48 * 1024 * 1024;

/// Does what a caller does that means harm, and keeps the connection.
async fn hold(kind: usize, device: &Device, stored: ObjectId) -> Option<Line> {
    let place = Arc::clone(&device.place);
    let mut line = Line::open(place.address, &place.root, SOURCE).await.ok()?;
    let put = || device.put(&place.promised(LARGE_BYTES));
    let bytes: Vec<u8> = match kind {
        // Headers that do not end.
        0 => format!("GET /v1/cell HTTP/1.1\r\nx: {}", "y".repeat(15_000)).into(),
        // An upload that stops just before its end.
        1 => {
            let sent = put();
            [sent.head, sent.body, vec![0; sent.zeros - 1]].concat()
        }
        // Objects that are asked for and not read.
        2 => device.get(stored).head,
        // A body that is longer than anything.
        3 => {
            let mut head =
                b"POST /v1/accounts HTTP/1.1\r\ncontent-length: 1000000000\r\n\r\n".to_vec();
            head.resize(LARGE_BYTES, b'z');
            head
        }
        // One without an end, and without a length.
        _ => {
            let head = "POST /v1/accounts HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n";
            let mut head = head.as_bytes().to_vec();
            head.resize(head.len() + 900_000, b'z');
            head
        }
    };
    // The cell need not take it.
    let _ = tokio::time::timeout(SEND_WAIT, line.stream.write_all(&bytes)).await;
    let _ = tokio::time::timeout(SEND_WAIT, line.stream.flush()).await;
    Some(line)
}

/// The most that the process held since it was last asked, in bytes.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    // From here on it is counted anew. (proc_pid_clear_refs(5))
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
    kib.unwrap() * 1024
}

/// Measures the memory of the cell in each round, and demands that it is bounded and does not grow.
pub(super) fn measure(bench: &mut Bench) {
    let runtime = runtime(2, 0);
    let rounds = bench.form.hostile_rounds();
    let peaks: Vec<u64> = runtime.block_on(async {
        let mut flood = Flood::new(&mut bench.cell).await;
        let mut devices = family(&bench.cell.invitation(), &bench.cell.place, DEVICES).await;
        let reader = Caller::open(devices.remove(0), SOURCE, LARGE_BYTES).await;
        let stored = reader.stored();
        devices.push(reader.device);
        let other = family(&bench.cell.invitation(), &bench.cell.place, 1)
            .await
            .remove(0);
        let mut other = Caller::open(other, SOURCE + 1, SMALL_BYTES).await;
        let mut peaks = Vec::new();
        peak(bench.process);
        for _ in 0..rounds {
            let over = Arc::new(AtomicBool::new(false));
            let until = Arc::clone(&over);
            let flooding = tokio::spawn(async move {
                flood.until(&until, &Arc::new(Got::default())).await;
                flood
            });
            // Of what is read, only its vault knows: the last device asks for it.
            let device_for = |n: usize| match n % 5 {
                2 => &devices[DEVICES - 1],
                _ => &devices[n / 5 % DEVICES],
            };
            let holding = (0..CONNECTIONS).map(|n| hold(n % 5, device_for(n), stored));
            let held = futures_util::future::join_all(holding).await;
            tokio::time::sleep(HELD).await;
            let reply = other.once(Kind::Put(SMALL_BYTES)).await.unwrap();
            assert!(reply.is_good(), "{:?}", reply.error());
            over.store(true, Ordering::Relaxed);
            drop(held);
            flood = flooding.await.unwrap();
            peaks.push(peak(bench.process));
        }
        peaks
    });
    let (early, late) = peaks.split_at(rounds / 2);
    let most = |some: &[u64]| some.iter().copied().max().unwrap_or_default();
    let (early, late) = (most(early), most(late));
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    line(
        "memory under hostile requests, earlier rounds",
        mib(early),
        "MiB",
    );
    line(
        "memory under hostile requests, later rounds",
        mib(late),
        "MiB",
    );
    assert!(late < early + NOISE_MAX_BYTES, "it grows: {peaks:?}");
    assert!(late < RESIDENT_MAX_BYTES, "it is not bounded: {peaks:?}");
}
