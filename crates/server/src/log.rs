//! The cell's log: one JSON object per line, made of counts, times and names that this program knows
//! beforehand.
//!
//! Personal data cannot get in by accident: a field's value has to be [`Loggable`], which is sealed
//! and implemented for numbers of things and for closed lists of names only. There is no way to log
//! a text, an id, an address or a path.
//!
//! ```compile_fail,E0277
//! use candor_server::log::{Field, Loggable};
//! let account = String::from("somebody");
//! let value: &dyn Loggable = &account;
//! ```
//!
//! ```compile_fail,E0277
//! use candor_server::log::Loggable;
//! struct Anything;
//! impl Loggable for Anything {
//!     fn append_json(&self, line: &mut String) {}
//! }
//! ```
//!
//! ```compile_fail,E0277
//! use candor_server::log::Loggable;
//! let device = candor_wire::DeviceId::from_bytes([1; 16]);
//! let value: &dyn Loggable = &device;
//! ```

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use candor_wire::Millis;
use candor_wire::api::{Endpoint, ErrorCode};

mod sealed {
    pub trait Sealed {}
}

/// What may stand in a log. Sealed: new kinds of values are added here, where they are read twice.
pub trait Loggable: sealed::Sealed {
    #[doc(hidden)]
    fn append_json(&self, line: &mut String);
}

/// How many of something: bytes, connections, entries.
#[derive(Debug, Clone, Copy)]
pub struct Count(pub u64);

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// As it is written.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

names!(
    /// What happened.
    Event {
        /// The listeners are open.
        Started => "started",
        /// The cell was told to stop.
        Stopping => "stopping",
        /// The last request is over.
        Stopped => "stopped",
        /// A request was answered.
        Request => "request",
        /// Something failed that is not the caller's doing.
        Fault => "fault",
        /// Old nonces and lost uploads were swept away.
        Swept => "swept",
        /// A connection did not complete its handshake.
        HandshakeFailed => "handshake_failed",
    }
);

names!(
    /// What a value in a line is.
    Field {
        /// Which endpoint.
        Endpoint => "endpoint",
        /// HTTP status.
        Status => "status",
        /// Which error was answered.
        Error => "error",
        /// How long it took.
        Milliseconds => "milliseconds",
        /// Length of a request's body.
        BytesIn => "bytes_in",
        /// Which part failed.
        Cause => "cause",
        /// How many nonces.
        Nonces => "nonces",
        /// How many objects.
        Objects => "objects",
        /// How many erasures were finished.
        Erasures => "erasures",
    }
);

names!(
    /// Which part failed, and how. Details that could name people or places are left out.
    Cause {
        /// No room for the database.
        DatabaseFull => "database_full",
        /// Another process holds the database.
        DatabaseBusy => "database_busy",
        /// The database does not fit together.
        DatabaseDamaged => "database_damaged",
        /// The database could not be read or written.
        DatabaseFailed => "database_failed",
        /// The server handed the database something it should not have.
        DatabaseMisused => "database_misused",
        /// No room for objects.
        ObjectsFull => "objects_full",
        /// Objects could not be read or written.
        ObjectsFailed => "objects_failed",
        /// A stored chain does not verify.
        ChainDamaged => "chain_damaged",
        /// A stored object is not there.
        ObjectMissing => "object_missing",
        /// No certificate could be made.
        Certificate => "certificate",
        /// A connection could not be accepted.
        Accept => "accept",
        /// A task of the server ended in a panic.
        Task => "task",
        /// The transparency log's bookkeeping failed.
        LogRecords => "log_records",
        /// The transparency log's files failed.
        LogFiles => "log_files",
        /// What is stored of the transparency log does not fit together.
        LogDamaged => "log_damaged",
        /// The signer of the transparency log refused to sign.
        LogSigner => "log_signer",
        /// There were no random bytes for padding entries.
        LogRandomness => "log_randomness",
        /// What a witness keeps about a log is damaged, gone, or cannot be written.
        WitnessRecord => "witness_record",
        /// A witness's list of logs cannot be used.
        WitnessLogs => "witness_logs",
        /// A witness's clock shows no time that a cosignature can have.
        WitnessClock => "witness_clock",
        /// A log asked a witness to cosign a second tree of the same size; the proof is kept.
        WitnessFork => "witness_fork",
    }
);

impl sealed::Sealed for Count {}
impl sealed::Sealed for Duration {}
impl sealed::Sealed for ErrorCode {}
impl sealed::Sealed for Cause {}
impl sealed::Sealed for http::StatusCode {}
impl sealed::Sealed for Endpoint {}

impl Loggable for Count {
    fn append_json(&self, line: &mut String) {
        line.push_str(&self.0.to_string());
    }
}

impl Loggable for Duration {
    fn append_json(&self, line: &mut String) {
        line.push_str(&self.as_millis().to_string());
    }
}

impl Loggable for http::StatusCode {
    fn append_json(&self, line: &mut String) {
        line.push_str(self.as_str());
    }
}

impl Loggable for ErrorCode {
    fn append_json(&self, line: &mut String) {
        quoted(line, &format!("{self:?}"));
    }
}

impl Loggable for Cause {
    fn append_json(&self, line: &mut String) {
        quoted(line, self.name());
    }
}

impl Loggable for Endpoint {
    fn append_json(&self, line: &mut String) {
        quoted(line, &format!("{:?}", self.id));
    }
}

/// Names of this program's own enumerations need no escaping.
fn quoted(line: &mut String, name: &str) {
    line.push('"');
    line.push_str(name);
    line.push('"');
}

type Sink = Mutex<Box<dyn Write + Send>>;

/// Where lines go.
#[derive(Clone)]
pub struct Log {
    sink: Option<Arc<Sink>>,
}

impl core::fmt::Debug for Log {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Log")
            .field("silent", &self.sink.is_none())
            .finish()
    }
}

impl Log {
    /// Nowhere.
    pub const fn silent() -> Self {
        Self { sink: None }
    }

    /// The process's standard error.
    pub fn to_stderr() -> Self {
        Self::to(std::io::stderr())
    }

    /// Any writer. A line that cannot be written is lost: the cell goes on without its log.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self {
            sink: Some(Arc::new(Mutex::new(Box::new(writer)))),
        }
    }

    /// Writes one line.
    pub fn line(&self, time: Millis, event: Event, fields: &[(Field, &dyn Loggable)]) {
        let Some(sink) = &self.sink else { return };
        let mut line = format!("{{\"time\":{},\"event\":\"{}\"", time.0, event.name());
        for (field, value) in fields {
            line.push_str(",\"");
            line.push_str(field.name());
            line.push_str("\":");
            value.append_json(&mut line);
        }
        line.push_str("}\n");
        // Half a line of a writer that panicked does no harm to the next one.
        let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sink.write_all(line.as_bytes());
    }
}
