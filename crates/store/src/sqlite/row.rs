//! Between Rust's types and the columns' types.

use bytes::Bytes;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

use crate::records::RecordsError;

/// A blob of a fixed length. A blob of any other length is damage.
pub(crate) struct Fixed<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> FromSql for Fixed<N> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let blob = value.as_blob()?;
        let bytes = blob.try_into().map_err(|_| FromSqlError::InvalidBlobSize {
            expected_size: N,
            blob_size: blob.len(),
        })?;
        Ok(Self(bytes))
    }
}

/// A blob of any length.
pub(crate) struct Blob(pub(crate) Bytes);

impl FromSql for Blob {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(Bytes::copy_from_slice(value.as_blob()?)))
    }
}

/// A number that is never negative. A negative one is damage.
pub(crate) struct Count(pub(crate) u64);

impl FromSql for Count {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number)
            .map(Self)
            .map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// A number as the database holds it.
pub(crate) fn bigint(number: u64) -> Result<i64, RecordsError> {
    i64::try_from(number).map_err(|_| RecordsError::Invalid("a number is above 2^63 - 1"))
}

/// A number of rows to ask for.
pub(crate) fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit.min(crate::records::ROWS_MAX)).unwrap_or(i64::MAX)
}
