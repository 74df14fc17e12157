//! The ledger's files: segments of sealed records, the signed head, the signed checkpoint.
//!
//! A segment is named by the number of its first record, in 16 decimal digits. It holds frames:
//! length (u32, big endian) and that many sealed bytes. The head and the checkpoint are canonical
//! CBOR, replaced as a whole. Order of writes: record, then head; checkpoint, then removal. So after
//! a crash the segments may be one record ahead of the head, and never behind it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candor_vault::Entropy;
use candor_vault::secret::scrub_stack;
use candor_wire::DeviceId;
use candor_wire::cbor::{self, Canonical as _};
use candor_wire::sign::{Ed25519Public, SecretKey};

use super::mark::Mark;
use super::reading::{LENGTH_BYTES, Segment, Walk, place};
use super::record::{Claim, FIRST_HASH, LedgerHead, Record, SignedLedgerHead};
use super::{LedgerError, RECORD_MAX_BYTES, SEGMENT_MAX_BYTES, SEGMENTS_MAX};
use crate::commands::LedgerSelection;
use crate::keystore::LedgerKey;
use crate::{durable, seal_small};

const SUFFIX: &str = ".segment";

/// Signs a claim about the record with this number and hash.
pub(super) type Signer<'a> = &'a dyn Fn(Claim, u64, [u8; 32]) -> SignedLedgerHead;

/// The files of one ledger.
pub(super) struct Segments {
    folder: PathBuf,
    key: Arc<LedgerKey>,
    entropy: Arc<dyn Entropy>,
    device: DeviceId,
    public: Ed25519Public,
    sequence: u64,
    hash: [u8; 32],
    /// All segments, ascending.
    marks: Vec<Mark>,
    /// The segment that grows, and its length.
    newest: Option<(File, u64)>,
    segment_max_bytes: u64,
}

impl Segments {
    /// Makes the folder unless it is there. Reads nothing yet; see [`Self::recover`].
    pub(super) fn open(
        folder: &Path,
        key: &LedgerKey,
        entropy: Arc<dyn Entropy>,
        signing: &SecretKey,
        device: DeviceId,
    ) -> Result<Self, LedgerError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        durable::sync_folder_of(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            key: Arc::new(LedgerKey::from_bytes(key.as_bytes())),
            entropy,
            device,
            public: signing.ed25519().public(),
            sequence: 0,
            hash: FIRST_HASH,
            marks: Vec::new(),
            newest: None,
            segment_max_bytes: SEGMENT_MAX_BYTES,
        })
    }

    /// Number and hash of the newest record.
    pub(super) const fn newest(&self) -> (u64, [u8; 32]) {
        (self.sequence, self.hash)
    }

    /// The signed head on the disk.
    pub(super) fn signed_head(&self) -> Result<Option<LedgerHead>, LedgerError> {
        self.signed(Claim::Head)
    }

    fn signed(&self, claim: Claim) -> Result<Option<LedgerHead>, LedgerError> {
        let limit = SignedLedgerHead::MAX_BYTES as u64;
        let Some(bytes) = durable::read_limited(&self.folder.join(claim.file()), limit)? else {
            return Ok(None);
        };
        let signed: SignedLedgerHead = cbor::decode(&bytes).map_err(|_| LedgerError::Signature)?;
        signed
            .verify(claim, self.device, &self.public)
            .map(Some)
            .ok_or(LedgerError::Signature)
    }

    fn segment_path(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{first:016}{SUFFIX}"))
    }

    /// Numbers of the first records of all segments, ascending.
    fn list(&self) -> Result<Vec<u64>, LedgerError> {
        let mut firsts = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            firsts.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
        }
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// Reads every record in order and checks seal, number and hash of each.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(Record)) -> Result<Walk, LedgerError> {
        let walk = self.walk_segments(visit);
        // Records were opened below this frame.
        scrub_stack();
        walk
    }

    #[inline(never)]
    fn walk_segments(&self, visit: &mut dyn FnMut(Record)) -> Result<Walk, LedgerError> {
        let checkpoint = self.signed(Claim::Checkpoint)?;
        let signed = self.signed_head()?.map_or(0, |head| head.sequence);
        let (begins, hash) = checkpoint.map_or((0, FIRST_HASH), |head| (head.sequence, head.hash));
        let mut walk = Walk::behind(begins, hash);
        for first in self.list()?.into_iter().filter(|first| *first > begins) {
            if walk.is_torn || first != walk.sequence + 1 {
                return Err(LedgerError::Altered {
                    sequence: walk.sequence + 1,
                });
            }
            walk.end_bytes = 0;
            walk.marks.push(Mark::new(first, walk.hash));
            let file = File::open(self.segment_path(first))?;
            let mut reader = BufReader::new(file);
            walk.through(&self.key, &mut reader, signed, visit)?;
        }
        // Retention leaves newer segments.
        if begins > 0 && walk.sequence == begins {
            return Err(LedgerError::Altered {
                sequence: begins + 1,
            });
        }
        if signed == walk.sequence && walk.sequence == begins {
            walk.hash_at_head = Some(walk.hash);
        }
        Ok(walk)
    }

    /// Reads everything after a start: checks it against the signed head, cuts a torn record off,
    /// removes segments that a checkpoint made superfluous.
    pub(super) fn recover(&mut self, visit: &mut dyn FnMut(Record)) -> Result<(), LedgerError> {
        let walk = self.walk(visit)?;
        match self.signed_head()? {
            Some(head) if head.sequence > walk.sequence => {
                return Err(LedgerError::Cut {
                    found: walk.sequence,
                    signed: head.sequence,
                });
            }
            Some(head) if walk.hash_at_head != Some(head.hash) => {
                return Err(LedgerError::Altered {
                    sequence: head.sequence,
                });
            }
            // Only the very first record can be there before any head is.
            None if walk.sequence > 1 => return Err(LedgerError::Signature),
            _ => {}
        }
        self.sequence = walk.sequence;
        self.hash = walk.hash;
        self.marks = walk.marks;
        let begins = self
            .signed(Claim::Checkpoint)?
            .map_or(0, |head| head.sequence);
        let (gone, kept): (Vec<u64>, Vec<u64>) =
            self.list()?.into_iter().partition(|first| *first <= begins);
        for first in gone {
            fs::remove_file(self.segment_path(first))?;
        }
        if let Some(first) = kept.last() {
            let file = OpenOptions::new()
                .append(true)
                .open(self.segment_path(*first))?;
            if walk.is_torn {
                file.set_len(walk.end_bytes)?;
                file.sync_all()?;
            }
            self.newest = Some((file, walk.end_bytes));
        }
        Ok(())
    }

    /// Appends a record as the next one, makes it durable and writes the head that `sign` signs.
    pub(super) fn append(&mut self, record: Record, sign: Signer<'_>) -> Result<u64, LedgerError> {
        let sequence = self.sequence + 1;
        let record = Record { sequence, ..record };
        let bytes = cbor::encode(&record);
        let sealed = seal_small::seal(
            self.key.as_bytes(),
            &place(sequence),
            &bytes,
            self.entropy.as_ref(),
        );
        // A connection may be closed, and its line written, by a thread of the runtime, which lives on.
        scrub_stack();
        let sealed = sealed?;
        if sealed.len() > RECORD_MAX_BYTES {
            return Err(LedgerError::TooLong);
        }
        let mut framed = Vec::with_capacity(sealed.len() + LENGTH_BYTES as usize);
        framed.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
        framed.extend_from_slice(&sealed);
        self.write(sequence, &framed)?;
        self.hash = Record::link(&self.hash, &bytes);
        self.sequence = sequence;
        if let Some(mark) = self.marks.last_mut() {
            mark.take(&record);
        }
        self.write_head(sign)?;
        self.retain(sign)?;
        Ok(sequence)
    }

    fn write_head(&self, sign: Signer<'_>) -> Result<(), LedgerError> {
        self.write_claim(Claim::Head, (self.sequence, self.hash), sign)
    }

    fn write_claim(
        &self,
        claim: Claim,
        (sequence, hash): (u64, [u8; 32]),
        sign: Signer<'_>,
    ) -> Result<(), LedgerError> {
        let path = self.folder.join(claim.file());
        let signed = sign(claim, sequence, hash);
        Ok(durable::replace(&path, &cbor::encode(&signed))?)
    }

    /// Signs the newest record, if a crash came between it and its head.
    pub(super) fn catch_up(&self, sign: Signer<'_>) -> Result<(), LedgerError> {
        let signed = self.signed_head()?.map_or(0, |head| head.sequence);
        if signed < self.sequence {
            self.write_head(sign)
        } else {
            Ok(())
        }
    }

    fn write(&mut self, sequence: u64, framed: &[u8]) -> Result<(), LedgerError> {
        self.cut_surplus()?;
        let (mut file, length) = match self.newest.take() {
            Some((file, length)) if length < self.segment_max_bytes => (file, length),
            _ => {
                let path = self.segment_path(sequence);
                // One of this name has no record, whatever is in it: a crash left it.
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(durable::FILE_MODE)
                    .open(&path)?;
                let is_begun = file.set_len(0);
                if let Err(error) = is_begun.and_then(|()| durable::sync_folder_of(&path)) {
                    // It is no part of the ledger.
                    let _ = fs::remove_file(&path);
                    return Err(error.into());
                }
                self.marks.push(Mark::new(sequence, self.hash));
                (file, 0)
            }
        };
        let written = file.write_all(framed).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Whatever part of it is there must not stand in the way of the next record.
            let _ = file.set_len(length);
            self.newest = Some((file, length));
            return Err(LedgerError::Storage(error));
        }
        self.newest = Some((file, length + framed.len() as u64));
        Ok(())
    }

    /// Cuts off what is behind the newest record, as a start does: a record that could not be written whole, or what somebody else
    /// put there. In the way of the next one it would be.
    fn cut_surplus(&self) -> Result<(), LedgerError> {
        if let Some((file, length)) = &self.newest
            && file.metadata()?.len() > *length
        {
            file.set_len(*length)?;
            file.sync_all()?;
        }
        Ok(())
    }

    /// Takes the oldest segments away while there are too many, checkpoint first.
    fn retain(&mut self, sign: Signer<'_>) -> Result<(), LedgerError> {
        while self.marks.len() > SEGMENTS_MAX {
            // What is not whole must be noticed, and not taken away.
            self.segment(0)?.read(&mut |_| {})?;
            let (oldest, kept) = (&self.marks[0], &self.marks[1]);
            self.write_claim(Claim::Checkpoint, (kept.first - 1, kept.before), sign)?;
            let path = self.segment_path(oldest.first);
            // From here on it is not a part of the ledger, also if its file stays until the next start.
            self.marks.remove(0);
            fs::remove_file(&path)?;
            durable::sync_folder_of(&path)?;
        }
        Ok(())
    }

    /// Compares the checkpoint and the names of the segments with what this process read and wrote.
    pub(super) fn check_files(&self) -> Result<(), LedgerError> {
        let checkpoint = self.signed(Claim::Checkpoint)?;
        let (begins, hash) = checkpoint.map_or((0, FIRST_HASH), |head| (head.sequence, head.hash));
        let goes_on = match self.marks.first() {
            Some(first) => (first.first, first.before) == (begins + 1, hash),
            None => begins == 0,
        };
        // What is older may be there until the next start.
        let there = self.list()?.into_iter().filter(|first| *first > begins);
        let is_same = there.eq(self.marks.iter().map(|mark| mark.first));
        // Nothing follows the newest record.
        let is_whole = match &self.newest {
            Some((file, length)) => file.metadata()?.len() == *length,
            None => true,
        };
        if !is_whole {
            let sequence = self.sequence + 1;
            Err(LedgerError::Altered { sequence })
        } else if goes_on && is_same {
            Ok(())
        } else {
            let sequence = begins + 1;
            Err(LedgerError::Altered { sequence })
        }
    }

    /// The oldest segment with this record or a later one that may hold what is asked for: its place.
    pub(super) fn next_with(&self, from: u64, asked: &LedgerSelection) -> Option<usize> {
        (0..self.marks.len())
            .find(|place| self.end_of(*place).0 >= from && self.marks[*place].may_have(asked))
    }

    /// The same backwards: the newest one that has a record before `before`.
    pub(super) fn last_with(&self, before: u64, asked: &LedgerSelection) -> Option<usize> {
        self.marks
            .iter()
            .rposition(|mark| mark.first < before && mark.may_have(asked))
    }

    /// Number and hash of the last record of the segment at this place; of an empty one, those before it.
    fn end_of(&self, place: usize) -> (u64, [u8; 32]) {
        let next = self.marks.get(place + 1);
        next.map_or((self.sequence, self.hash), |next| {
            (next.first - 1, next.before)
        })
    }

    /// The segment at this place, to be read as it is now: it can be read without these, and whatever happens to them meanwhile.
    pub(super) fn segment(&self, place: usize) -> Result<Segment, LedgerError> {
        let mark = &self.marks[place];
        let file = match File::open(self.segment_path(mark.first)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LedgerError::Altered {
                    sequence: mark.first,
                });
            }
            opened => opened?,
        };
        let is_closed = place + 1 < self.marks.len();
        let grows = self.newest.as_ref().filter(|_| !is_closed);
        Ok(Segment {
            key: Arc::clone(&self.key),
            file,
            length_bytes: grows.map(|(_, length)| *length),
            first: mark.first,
            before: mark.before,
            last: self.end_of(place),
            is_closed,
        })
    }

    /// A ledger without files, for noise.
    #[cfg(any(test, fuzzing))]
    pub(super) fn in_memory(key: &LedgerKey) -> Self {
        Self {
            folder: PathBuf::new(),
            key: Arc::new(LedgerKey::from_bytes(key.as_bytes())),
            entropy: Arc::new(candor_vault::SystemEntropy),
            device: DeviceId::from_bytes([0; 16]),
            public: Ed25519Public::from_bytes([0; 32]),
            sequence: 0,
            hash: FIRST_HASH,
            marks: Vec::new(),
            newest: None,
            segment_max_bytes: SEGMENT_MAX_BYTES,
        }
    }

    /// The bytes of a segment with these records, from number 1 on.
    #[cfg(any(test, fuzzing))]
    pub(super) fn segment_of(&self, records: &[Record]) -> Vec<u8> {
        let mut segment = Vec::new();
        for record in records {
            let sealed = seal_small::seal(
                self.key.as_bytes(),
                &place(record.sequence),
                &cbor::encode(record),
                self.entropy.as_ref(),
            );
            let sealed = sealed.expect("the system has random bytes");
            segment.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
            segment.extend_from_slice(&sealed);
        }
        segment
    }

    /// Reads a segment from memory, of which the records up to `signed` must be there.
    #[cfg(any(test, fuzzing))]
    pub(super) fn walk_bytes(
        &self,
        mut segment: &[u8],
        signed: u64,
        visit: &mut dyn FnMut(Record),
    ) -> Result<u64, LedgerError> {
        let mut walk = Walk::behind(0, FIRST_HASH);
        walk.through(&self.key, &mut segment, signed, visit)?;
        Ok(walk.sequence)
    }

    /// Small segments, so that a test sees retention without writing megabytes.
    #[cfg(test)]
    pub(super) const fn set_segment_max_bytes(&mut self, bytes: u64) {
        self.segment_max_bytes = bytes;
    }
}
