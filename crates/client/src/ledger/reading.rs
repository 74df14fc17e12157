//! Reading segments: frame by frame, each checked by its seal, its number and the hash that it leads to.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use candor_vault::secret::scrub_stack;
use candor_wire::cbor;

use super::mark::Mark;
use super::record::Record;
use super::{LEDGER_VERSION, LedgerError, RECORD_MAX_BYTES};
use crate::keystore::LedgerKey;
use crate::seal_small;

const PLACE: &[u8] = b"candor/ledger/1";
pub(super) const LENGTH_BYTES: u64 = 4;

pub(super) fn place(sequence: u64) -> [u8; 23] {
    let mut place = [0; 23];
    place[..15].copy_from_slice(PLACE);
    place[15..].copy_from_slice(&sequence.to_be_bytes());
    place
}

/// Reads the next frame: `None` at the end or where it is not whole.
pub(super) fn frame(reader: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let read = reader.read(&mut length[..1])?;
    if read == 0 {
        return Ok(Some(Vec::new()));
    }
    if let Err(error) = reader.read_exact(&mut length[1..]) {
        return if error.kind() == io::ErrorKind::UnexpectedEof {
            Ok(None)
        } else {
            Err(error)
        };
    }
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 || length > RECORD_MAX_BYTES {
        return Ok(None);
    }
    let mut sealed = vec![0; length];
    match reader.read_exact(&mut sealed) {
        Ok(()) => Ok(Some(sealed)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// How far a reading of the segments came.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    /// Number of the last record; 0 if there is none.
    pub(super) sequence: u64,
    /// Its hash.
    pub(super) hash: [u8; 32],
    /// Length of the whole records of the last segment, in bytes.
    pub(super) end_bytes: u64,
    /// Whether something follows them that cannot be read.
    pub(super) is_torn: bool,
    /// The hash of the record that the signed head names, if it was passed.
    pub(super) hash_at_head: Option<[u8; 32]>,
    /// The segments that were read.
    pub(super) marks: Vec<Mark>,
}

impl Walk {
    /// One that begins behind this record.
    pub(super) const fn behind(sequence: u64, hash: [u8; 32]) -> Self {
        Self {
            sequence,
            hash,
            end_bytes: 0,
            is_torn: false,
            hash_at_head: None,
            marks: Vec::new(),
        }
    }

    /// Reads a segment from its beginning on, of which the records up to `signed` must be there.
    #[inline(never)]
    pub(super) fn through(
        &mut self,
        key: &LedgerKey,
        reader: &mut impl Read,
        signed: u64,
        visit: &mut dyn FnMut(Record),
    ) -> Result<(), LedgerError> {
        loop {
            let sequence = self.sequence + 1;
            let sealed = frame(reader)?;
            if sealed.as_ref().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            let opened = sealed.as_ref().and_then(|sealed| {
                let bytes = seal_small::open(key.as_bytes(), &place(sequence), sealed).ok()?;
                let record: Record = cbor::decode(&bytes).ok()?;
                let fits = record.version == LEDGER_VERSION && record.sequence == sequence;
                fits.then_some((record, bytes))
            });
            let (Some((record, bytes)), Some(sealed)) = (opened, sealed) else {
                // What was never signed may be half written. What was signed must be there.
                if sequence <= signed {
                    return Err(LedgerError::Altered { sequence });
                }
                self.is_torn = true;
                return Ok(());
            };
            self.hash = Record::link(&self.hash, &bytes);
            self.sequence = sequence;
            self.end_bytes += LENGTH_BYTES + sealed.len() as u64;
            if sequence == signed {
                self.hash_at_head = Some(self.hash);
            }
            if let Some(mark) = self.marks.last_mut() {
                mark.take(&record);
            }
            visit(record);
        }
    }
}

/// One segment as it was when it was asked for, and what it has to hold: what this process read or wrote.
pub(super) struct Segment {
    pub(super) key: Arc<LedgerKey>,
    pub(super) file: File,
    /// Length of its records, while it grows.
    pub(super) length_bytes: Option<u64>,
    /// Number of its first record.
    pub(super) first: u64,
    /// The hash before that one.
    pub(super) before: [u8; 32],
    /// Number and hash of its last record.
    pub(super) last: (u64, [u8; 32]),
    /// Whether another one was begun after it.
    pub(super) is_closed: bool,
}

impl Segment {
    /// Its records, checked. Returns the number of the last one.
    pub(super) fn read(self, visit: &mut dyn FnMut(Record)) -> Result<u64, LedgerError> {
        let (last, hash) = self.last;
        let mut walk = Walk::behind(self.first - 1, self.before);
        let content = self.file.take(self.length_bytes.unwrap_or(u64::MAX));
        let read = walk.through(&self.key, &mut BufReader::new(content), last, visit);
        // Records were opened below this frame.
        scrub_stack();
        read?;
        // Nothing follows the last record of a segment after which another one was begun.
        let is_whole = !(self.is_closed && walk.is_torn);
        if is_whole && (walk.sequence, walk.hash) == (last, hash) {
            Ok(last)
        } else if !self.is_closed && !walk.is_torn && walk.sequence < last {
            Err(LedgerError::Cut {
                found: walk.sequence,
                signed: last,
            })
        } else {
            let sequence = (walk.sequence + 1).min(last);
            Err(LedgerError::Altered { sequence })
        }
    }
}
