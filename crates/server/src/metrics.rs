//! Counters for operators, in Prometheus' text format. By endpoint and status, never by account.

use core::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use candor_wire::api::{ENDPOINTS, EndpointId};

use crate::waiting::Waiters;

/// Every status that the cell answers with; the last place counts all others.
const STATUSES: [u16; 14] = [
    200, 204, 206, 400, 401, 403, 404, 409, 413, 416, 500, 503, 507, 0,
];

/// Upper bounds of the histogram's buckets, in milliseconds: from a cached read to a slow upload.
const BUCKETS_MS: [u64; 12] = [1, 5, 10, 25, 50, 100, 250, 500, 1000, 5000, 30_000, 120_000];

#[derive(Default)]
struct PerEndpoint {
    by_status: [AtomicU64; STATUSES.len()],
    buckets: [AtomicU64; BUCKETS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// All counters of one cell. They begin at zero with the process.
pub(crate) struct Metrics {
    // One for each endpoint of the table, and one for requests that are in no table.
    endpoints: Vec<PerEndpoint>,
    pub(crate) connections_open: AtomicU64,
    pub(crate) connections_total: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) faults: AtomicU64,
    waiters: Arc<Waiters>,
}

impl Metrics {
    pub(crate) fn new(waiters: Arc<Waiters>) -> Self {
        Self {
            endpoints: (0..=ENDPOINTS.len())
                .map(|_| PerEndpoint::default())
                .collect(),
            connections_open: AtomicU64::new(0),
            connections_total: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            waiters,
        }
    }

    fn of(&self, endpoint: Option<EndpointId>) -> &PerEndpoint {
        let place = ENDPOINTS.iter().position(|one| Some(one.id) == endpoint);
        &self.endpoints[place.unwrap_or(ENDPOINTS.len())]
    }

    /// Counts an answered request.
    pub(crate) fn answered(
        &self,
        endpoint: Option<EndpointId>,
        status: u16,
        took: Duration,
        bytes_in: u64,
    ) {
        let counters = self.of(endpoint);
        let place = STATUSES
            .iter()
            .position(|one| *one == status)
            .unwrap_or(STATUSES.len() - 1);
        counters.by_status[place].fetch_add(1, Relaxed);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = BUCKETS_MS.iter().position(|bound| took_us <= bound * 1000) {
            counters.buckets[bucket].fetch_add(1, Relaxed);
        }
        counters.count.fetch_add(1, Relaxed);
        counters.sum_us.fetch_add(took_us, Relaxed);
        counters.bytes_in.fetch_add(bytes_in, Relaxed);
    }

    /// Counts bytes of a reply's body.
    pub(crate) fn sent(&self, endpoint: EndpointId, bytes: u64) {
        self.of(Some(endpoint)).bytes_out.fetch_add(bytes, Relaxed);
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let names: Vec<String> = ENDPOINTS
            .iter()
            .map(|endpoint| format!("{:?}", endpoint.id))
            .chain([String::from("none")])
            .collect();
        let rows: Vec<Row<'_>> = names
            .iter()
            .map(String::as_str)
            .zip(&self.endpoints)
            .collect();
        requests(&mut out, &rows);
        bytes(&mut out, &rows);
        self.connections(&mut out);
        out
    }

    fn connections(&self, out: &mut String) {
        let waiting = AtomicU64::new(self.waiters.count() as u64);
        for (metric, kind, help, value) in [
            (
                "candor_connections_open",
                "gauge",
                "Connections at this moment.",
                &self.connections_open,
            ),
            (
                "candor_connections_total",
                "counter",
                "Accepted connections.",
                &self.connections_total,
            ),
            (
                "candor_connections_refused_total",
                "counter",
                "Connections of network addresses that had too many.",
                &self.connections_refused,
            ),
            (
                "candor_requests_waiting",
                "gauge",
                "Requests that wait for a head to move.",
                &waiting,
            ),
            (
                "candor_handshakes_failed_total",
                "counter",
                "Failed handshakes.",
                &self.handshakes_failed,
            ),
            (
                "candor_faults_total",
                "counter",
                "Failures of the cell itself.",
                &self.faults,
            ),
        ] {
            head(out, metric, kind, help);
            let _ = writeln!(out, "{metric} {}", value.load(Relaxed));
        }
    }
}

/// An endpoint's name and its counters.
type Row<'a> = (&'a str, &'a PerEndpoint);

fn requests(out: &mut String, rows: &[Row<'_>]) {
    head(
        out,
        "candor_requests_total",
        "counter",
        "Answered requests.",
    );
    for (name, row) in rows {
        for (status, count) in STATUSES
            .iter()
            .zip(&row.by_status)
            .filter(|(_, n)| n.load(Relaxed) > 0)
        {
            let count = count.load(Relaxed);
            let _ = writeln!(
                out,
                "candor_requests_total{{endpoint=\"{name}\",status=\"{status}\"}} {count}"
            );
        }
    }
    head(
        out,
        "candor_request_seconds",
        "histogram",
        "Time from headers to reply, without what was waited for a head to move.",
    );
    for (name, row) in rows.iter().filter(|(_, row)| row.count.load(Relaxed) > 0) {
        histogram(out, name, row);
    }
}

fn bytes(out: &mut String, rows: &[Row<'_>]) {
    for (metric, help, pick) in [
        (
            "candor_received_bytes_total",
            "Bytes of request bodies.",
            (|row| &row.bytes_in) as Pick,
        ),
        ("candor_sent_bytes_total", "Bytes of reply bodies.", |row| {
            &row.bytes_out
        }),
    ] {
        head(out, metric, "counter", help);
        for (name, row) in rows {
            let _ = writeln!(
                out,
                "{metric}{{endpoint=\"{name}\"}} {}",
                pick(row).load(Relaxed)
            );
        }
    }
}

type Pick = fn(&PerEndpoint) -> &AtomicU64;

fn head(out: &mut String, metric: &str, kind: &str, help: &str) {
    // Writing into a `String` never fails.
    let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
}

fn histogram(out: &mut String, name: &str, row: &PerEndpoint) {
    let mut below = 0;
    for (bound_ms, count) in BUCKETS_MS.iter().zip(&row.buckets) {
        below += count.load(Relaxed);
        let _ = writeln!(
            out,
            "candor_request_seconds_bucket{{endpoint=\"{name}\",le=\"{}.{:03}\"}} {below}",
            bound_ms / 1000,
            bound_ms % 1000
        );
    }
    let (count, sum_us) = (row.count.load(Relaxed), row.sum_us.load(Relaxed));
    let _ = writeln!(
        out,
        "candor_request_seconds_bucket{{endpoint=\"{name}\",le=\"+Inf\"}} {count}"
    );
    let (seconds, rest) = (sum_us / 1_000_000, sum_us % 1_000_000);
    let _ = writeln!(
        out,
        "candor_request_seconds_sum{{endpoint=\"{name}\"}} {seconds}.{rest:06}"
    );
    let _ = writeln!(
        out,
        "candor_request_seconds_count{{endpoint=\"{name}\"}} {count}"
    );
}
