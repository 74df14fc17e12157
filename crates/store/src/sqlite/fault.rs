//! What the engine's errors mean to a caller.

use std::sync::Arc;

use rusqlite::{Error, ErrorCode, ffi};

use crate::records::RecordsError;

/// Turns an error of SQLite into one of the port.
pub(crate) fn engine_fault(action: &'static str, source: Error) -> RecordsError {
    let failure = source
        .sqlite_error()
        .map(|failure| (failure.code, failure.extended_code));
    match failure {
        // The shared memory beside the log is grown by writing to it: that fails when the disk is full.
        Some((ErrorCode::DiskFull, _)) | Some((_, ffi::SQLITE_IOERR_SHMSIZE)) => {
            RecordsError::Full(Arc::new(source))
        }
        Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => {
            RecordsError::Busy(Arc::new(source))
        }
        Some((ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _)) => RecordsError::Damaged {
            detail: String::from("the engine cannot make sense of its file"),
            source: Some(Arc::new(source)),
        },
        _ if is_foreign_value(&source) => RecordsError::Damaged {
            detail: String::from("a column holds a value of the wrong type"),
            source: Some(Arc::new(source)),
        },
        _ => RecordsError::Io {
            action,
            source: Arc::new(source),
        },
    }
}

fn is_foreign_value(error: &Error) -> bool {
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
    )
}
