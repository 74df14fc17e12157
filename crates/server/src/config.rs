//! A cell's settings: compiled-in ones, and a file laid over them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candor_wire::cell::{ADDRESS_MAX_BYTES, INVITATION_ADDRESSES_MAX};
use candor_wire::consent_record::TEXT_MAX_BYTES;
use candor_wire::limits::HEAD_WAIT_SECONDS;

use crate::transparency::Witness;

/// The settings that every cell begins with; also the schema's list of keys.
const DEFAULTS: &str = include_str!("default.toml");

/// Longest file of settings, in bytes: hand-written, with comments.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Longest retention, in days: ten years. Beyond that a promise to erase is none.
const RETENTION_MAX_DAYS: u32 = 3660;

/// Most of any one count in [`Limits`]. A cell that needs more is two cells.
const COUNT_MAX: u32 = 65_536;

/// Fewest and most steps of one account in a second: with fewer, whoever asks for little would wait for it, and timers count
/// milliseconds.
const STEPS_MIN: u32 = 10;
const STEPS_MAX: u32 = 1000;

/// Most witnesses of one cell: C2SP policies are asked to know as many.
const WITNESSES_MAX: usize = 32;

/// Most padding entries in one window: half a batch, whatever else is in it.
const PADDING_MAX_ENTRIES: u32 = 128;

/// Longest window of padding, in minutes: a day.
const PADDING_MAX_MINUTES: u32 = 1440;

/// Longest wait for a witness that can be set, in seconds.
const WITNESS_TIMEOUT_MAX_SECONDS: u32 = 60;

/// Longest wait for a witness, in seconds; a longer one that was set counts as this. The checkpoint waits
/// as long, once or twice, and a device that asks for its newest state no longer than 10 seconds for the
/// checkpoint.
const WITNESS_WAIT_MAX_SECONDS: u32 = 5;

/// Longest of any one time in [`Limits`], in seconds: a day.
const TIMEOUT_MAX_SECONDS: u32 = 86_400;

/// A cell's settings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct CellConfig {
    /// The jurisdiction in which the cell keeps data. Never changes: people consented to it.
    pub region: String,
    /// The party that runs the cell.
    pub controller: String,
    /// Where devices reach it.
    pub listen: SocketAddr,
    /// What invitations say instead of [`Self::listen`]: `host:port`, in order of preference.
    pub public_addresses: Vec<String>,
    /// How long erased data may stay before it is gone, in days.
    pub retention_days: u32,
    /// What a newly opened account may store, in bytes.
    pub quota_bytes: u64,
    /// Where health and metrics are read; loopback.
    pub metrics_listen: SocketAddr,
    /// The transparency log.
    pub log: LogSettings,
    /// How much at one time, and how long.
    pub limits: Limits,
}

/// How the transparency log is run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// Where anybody can read the log's files over plain HTTP, as `host:port`; empty for nowhere but at
    /// the cell's own address.
    pub listen: String,
    /// The witnesses that are asked to cosign each checkpoint: `KEY http://HOST:PORT/PREFIX`.
    pub witnesses: Vec<String>,
    /// By how many entries the log grows at least in each window.
    pub padding_entries: u32,
    /// Length of a window, in minutes.
    pub padding_minutes: u32,
    /// How long a witness is waited for, in seconds; above 5 counts as 5.
    pub witness_timeout_seconds: u32,
}

/// Bounds on what callers can make the cell hold, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections at one time.
    pub connections_max: u32,
    /// Connections of one network address at one time.
    pub connections_per_address_max: u32,
    /// Steps of one account in a second, while others are there that do not take as many.
    pub steps_per_second_max: u32,
    /// Requests of one device at one time.
    pub requests_per_device_max: u32,
    /// Requests at one time whose body is an object.
    pub uploads_max: u32,
    /// Requests at one time whose body is a message.
    pub messages_max: u32,
    /// Requests at one time that wait for a head to move.
    pub waits_max: u32,
    /// Longest wait for a head to move, in seconds.
    pub wait_timeout_seconds: u32,
    /// Longest TLS handshake, in seconds.
    pub handshake_timeout_seconds: u32,
    /// Longest silence before a request's headers are complete, in seconds.
    pub header_timeout_seconds: u32,
    /// Longest standstill of a body or reply, in seconds.
    pub stall_timeout_seconds: u32,
    /// Longest time for one body to arrive, in seconds.
    pub body_timeout_seconds: u32,
    /// Longest time that running requests get when the cell stops, in seconds.
    pub shutdown_timeout_seconds: u32,
}

/// Settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a file of settings.
    #[error("the file of settings is longer than {FILE_MAX_BYTES} bytes")]
    TooLong,
    /// Not TOML, a key that does not exist, or a value of the wrong type.
    #[error("the settings cannot be understood")]
    Syntax(#[source] toml::de::Error),
    /// A value that no cell can have.
    #[error("`{key}` {reason}")]
    Value {
        /// The key, with its table.
        key: &'static str,
        /// What is wrong with its value, as the end of a sentence.
        reason: &'static str,
    },
}

impl CellConfig {
    /// The settings in `text`, laid over the compiled-in ones.
    ///
    /// # Errors
    /// Everything but [`ConfigError::Read`] and [`ConfigError::TooLong`].
    pub fn from_text(text: &str) -> Result<Self, ConfigError> {
        let mut merged: toml::Table = toml::from_str(DEFAULTS).map_err(ConfigError::Syntax)?;
        let own: toml::Table = toml::from_str(text).map_err(ConfigError::Syntax)?;
        lay_over(&mut merged, own);
        let config: Self = toml::Value::Table(merged)
            .try_into()
            .map_err(ConfigError::Syntax)?;
        config.check()?;
        Ok(config)
    }

    /// Reads a file of settings.
    ///
    /// # Errors
    /// Any of [`ConfigError`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let fault = |source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        };
        if std::fs::metadata(path).map_err(fault)?.len() > FILE_MAX_BYTES {
            return Err(ConfigError::TooLong);
        }
        Self::from_text(&std::fs::read_to_string(path).map_err(fault)?)
    }

    /// What goes into invitations.
    pub fn invitation_addresses(&self) -> Vec<String> {
        if !self.public_addresses.is_empty() {
            return self.public_addresses.clone();
        }
        let mut address = self.listen;
        // "Every interface" is no address that anybody could call. This machine itself is one.
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        vec![address.to_string()]
    }

    fn check(&self) -> Result<(), ConfigError> {
        let value = |key, reason| Err(ConfigError::Value { key, reason });
        for (key, text) in [("region", &self.region), ("controller", &self.controller)] {
            if text.trim().is_empty() {
                return value(key, "is empty: people read it before they consent");
            }
            if text.len() > TEXT_MAX_BYTES || text.chars().any(char::is_control) {
                return value(key, "is too long, or has characters that cannot be shown");
            }
        }
        if self.public_addresses.len() > INVITATION_ADDRESSES_MAX {
            return value(
                "public_addresses",
                "has more addresses than fit an invitation",
            );
        }
        if !self
            .public_addresses
            .iter()
            .all(|address| is_address(address))
        {
            return value("public_addresses", "has something that is not `host:port`");
        }
        if !(1..=RETENTION_MAX_DAYS).contains(&self.retention_days) {
            return value("retention_days", "is not between 1 and 3660");
        }
        if self.quota_bytes > i64::MAX as u64 {
            return value("quota_bytes", "is more than any disk holds");
        }
        if !self.metrics_listen.ip().is_loopback() {
            return value("metrics_listen", "is not a loopback address");
        }
        self.log.check()?;
        self.limits.check()
    }
}

impl LogSettings {
    /// Where the public files are served, if anywhere.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// How long a witness is waited for.
    pub(crate) fn witness_wait(&self) -> Duration {
        let seconds = self.witness_timeout_seconds.min(WITNESS_WAIT_MAX_SECONDS);
        Duration::from_secs(u64::from(seconds))
    }

    /// The witnesses. A line that is none was refused when the settings were read.
    pub(crate) fn witness_list(&self) -> Vec<Witness> {
        let parsed = self.witnesses.iter().map(|line| Witness::parse(line));
        parsed.filter_map(Result::ok).collect()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let value = |key, reason| Err(ConfigError::Value { key, reason });
        if !self.listen.is_empty() && self.listen_address().is_none() {
            return value("log.listen", "is not an address and a port, nor empty");
        }
        if self.witnesses.len() > WITNESSES_MAX {
            return value("log.witnesses", "has more than 32 witnesses");
        }
        if !self
            .witnesses
            .iter()
            .all(|line| Witness::parse(line).is_ok())
        {
            return value(
                "log.witnesses",
                "has a line that is not `KEY http://HOST:PORT/PREFIX`",
            );
        }
        if self.padding_entries > PADDING_MAX_ENTRIES {
            return value("log.padding_entries", "is above 128");
        }
        if !(1..=PADDING_MAX_MINUTES).contains(&self.padding_minutes) {
            return value("log.padding_minutes", "is not between 1 and 1440");
        }
        if !(1..=WITNESS_TIMEOUT_MAX_SECONDS).contains(&self.witness_timeout_seconds) {
            return value("log.witness_timeout_seconds", "is not between 1 and 60");
        }
        Ok(())
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("limits.connections_max", self.connections_max),
            (
                "limits.connections_per_address_max",
                self.connections_per_address_max,
            ),
            (
                "limits.requests_per_device_max",
                self.requests_per_device_max,
            ),
            ("limits.uploads_max", self.uploads_max),
            ("limits.messages_max", self.messages_max),
            ("limits.waits_max", self.waits_max),
        ];
        let times = [
            (
                "limits.handshake_timeout_seconds",
                self.handshake_timeout_seconds,
            ),
            ("limits.header_timeout_seconds", self.header_timeout_seconds),
            ("limits.stall_timeout_seconds", self.stall_timeout_seconds),
            ("limits.body_timeout_seconds", self.body_timeout_seconds),
            (
                "limits.shutdown_timeout_seconds",
                self.shutdown_timeout_seconds,
            ),
        ];
        let waits = [("limits.wait_timeout_seconds", self.wait_timeout_seconds)];
        let bounded = |all: &[(&'static str, u32)], most: u32, reason| match all
            .iter()
            .find(|(_, value)| !(1..=most).contains(value))
        {
            Some((key, _)) => Err(ConfigError::Value { key, reason }),
            None => Ok(()),
        };
        if !(STEPS_MIN..=STEPS_MAX).contains(&self.steps_per_second_max) {
            let (key, reason) = ("limits.steps_per_second_max", "is not between 10 and 1000");
            return Err(ConfigError::Value { key, reason });
        }
        bounded(&counts, COUNT_MAX, "is not between 1 and 65536")?;
        bounded(&waits, HEAD_WAIT_SECONDS, "is not between 1 and 50")?;
        bounded(&times, TIMEOUT_MAX_SECONDS, "is not between 1 and 86400")
    }
}

/// `host:port` with a host that can be written in an invitation.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_ok = match host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        }
    };
    host_ok && text.len() <= ADDRESS_MAX_BYTES && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Puts every key of `above` into `below`; tables are laid over each other key by key.
fn lay_over(below: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => lay_over(old, new),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const LEAST: &str = "region = \"r\"\ncontroller = \"c\"\n";

    #[test]
    fn a_file_is_laid_over_the_defaults() {
        let config = CellConfig::from_text(&format!(
            "{LEAST}quota_bytes = 5\n[limits]\nuploads_max = 3\n"
        ))
        .unwrap();
        assert_eq!((config.quota_bytes, config.limits.uploads_max), (5, 3));
        assert_eq!(
            (config.retention_days, config.limits.messages_max),
            (30, 64)
        );
        let again = CellConfig::from_text(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config, "what is written is what is read");
    }

    #[test]
    fn a_witness_is_waited_for_no_longer_than_devices_wait() {
        for (set, waited) in [(1, 1), (3, 3), (5, 5), (60, 5)] {
            let text = format!("{LEAST}[log]\nwitness_timeout_seconds = {set}\n");
            let settings = CellConfig::from_text(&text).unwrap().log;
            let wait = settings.witness_wait();
            assert_eq!(wait, Duration::from_secs(waited));
            assert!(2 * wait <= crate::transparency::PUBLISHED_WAIT);
        }
    }

    #[test]
    fn unknown_keys_are_refused_wherever_they_stand() {
        for more in [
            "regoin = \"x\"",
            "[limits]\nuplaods_max = 1",
            "[more]\na = 1",
        ] {
            let refused = CellConfig::from_text(&format!("{LEAST}{more}\n"));
            assert!(matches!(refused, Err(ConfigError::Syntax(_))), "{more}");
        }
    }

    #[test]
    fn every_value_is_checked() {
        let cases = [
            ("region = \"\"\ncontroller = \"c\"", "region"),
            ("region = \"r\"", "controller"),
            ("region = \"r\"\ncontroller = \"a\\nb\"", "controller"),
            (
                "region = \"r\"\ncontroller = \"c\"\npublic_addresses = [\"host\"]",
                "public_addresses",
            ),
            (
                "region = \"r\"\ncontroller = \"c\"\nretention_days = 0",
                "retention_days",
            ),
            (
                "region = \"r\"\ncontroller = \"c\"\nmetrics_listen = \"0.0.0.0:1\"",
                "metrics_listen",
            ),
            (
                "region = \"r\"\ncontroller = \"c\"\n[limits]\nuploads_max = 0",
                "limits.uploads_max",
            ),
            (
                "region = \"r\"\ncontroller = \"c\"\n[limits]\nsteps_per_second_max = 9",
                "limits.steps_per_second_max",
            ),
            (
                "region = \"r\"\ncontroller = \"c\"\n[limits]\nsteps_per_second_max = 1001",
                "limits.steps_per_second_max",
            ),
            (
                "region = \"r\"\ncontroller = \"c\"\n[limits]\nwait_timeout_seconds = 51",
                "limits.wait_timeout_seconds",
            ),
        ];
        for (text, expected) in cases {
            match CellConfig::from_text(text) {
                Err(ConfigError::Value { key, .. }) => assert_eq!(key, expected),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn invitations_name_something_that_can_be_called() {
        let with = |more: &str| {
            CellConfig::from_text(&format!("{LEAST}{more}\n"))
                .unwrap()
                .invitation_addresses()
        };
        assert_eq!(with("listen = \"0.0.0.0:7\""), ["127.0.0.1:7"]);
        assert_eq!(with("listen = \"[::]:7\""), ["[::1]:7"]);
        assert_eq!(with("listen = \"10.0.0.1:7\""), ["10.0.0.1:7"]);
        assert_eq!(
            with("public_addresses = [\"cell.example:7\"]"),
            ["cell.example:7"]
        );
    }
}
