//! When a sample of a set was last restored and compared.

use candor_wire::Millis;
use rusqlite::{OptionalExtension as _, params};

use super::{DeviceStore, DeviceStoreError};

/// New in version 6.
pub(super) const SCHEMA_6: &str = "
CREATE TABLE drill (
    name TEXT PRIMARY KEY, time_ms INTEGER NOT NULL, files INTEGER NOT NULL
) STRICT;
";

/// A drill that found nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drill {
    /// When.
    pub time: Millis,
    /// How many files came back.
    pub files: u64,
}

impl DeviceStore {
    /// Remembers a set's newest drill.
    pub fn put_drill(&mut self, set: &str, drill: &Drill) -> Result<(), DeviceStoreError> {
        let files = i64::try_from(drill.files).unwrap_or(i64::MAX);
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO drill (name, time_ms, files) VALUES (?1, ?2, ?3)",
                params![set, drill.time.0, files],
            )?;
            Ok(())
        })
    }

    /// A set's newest drill.
    pub fn drill(&self, set: &str) -> Result<Option<Drill>, DeviceStoreError> {
        self.run(|connection| {
            let mut found =
                connection.prepare("SELECT time_ms, files FROM drill WHERE name = ?1")?;
            found
                .query_row([set], |row| {
                    Ok(Drill {
                        time: Millis(row.get(0)?),
                        files: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
                    })
                })
                .optional()
        })
    }
}
