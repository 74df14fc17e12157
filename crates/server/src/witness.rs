//! A witness of other people's logs: C2SP tlog-witness, as a server over plain HTTP.
//!
//! Threats: rows A18 and B30. A log that shows two trees to two people is noticed by whoever sees both;
//! a witness is somebody who always does.
//!
//! 1. The witness has a key of its own and a list of logs, in a folder. Nobody else's
//!    checkpoints are looked at.
//! 2. `POST /add-checkpoint`: the log's signature, then the size that the log believes was signed last,
//!    then the proof that the tree only grew ([`AddCheckpoint::check`]).
//! 3. What was cosigned last is compared and replaced under one lock, and it is durable before a
//!    cosignature leaves. So two requests at once never make the witness go back.
//! 4. `GET /<origin hash>/checkpoint`: what was cosigned last, for monitors and for a signer that lost
//!    its memory.
//!
//! A log whose record is damaged or gone is refused until a person has put the record back: a witness
//! that forgot must never begin again as if it had seen nothing. Nothing here decrypts or reads
//! anything about a person.

mod folder;
#[cfg(any(test, fuzzing))]
pub(crate) use folder::take_noise;
mod http;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candor_log::checkpoint::SignedCheckpoint;
use candor_log::fork::Misbehaviour;
use candor_log::note::VerifierKey;
use candor_log::witness::{AddCheckpoint, Refusal, origin_hash};
use candor_wire::sign::Ed25519Secret;

use crate::clock::{Clock, SystemClock};
use crate::log::{Cause, Event, Field, Log};
use crate::random::NoRandomness;

use folder::Folder;
pub use http::WitnessListening;

/// How to open a witness.
pub struct WitnessOptions {
    /// What it is called. `None` for the name that it has; one that has none yet is named after its key.
    pub name: Option<String>,
    /// The time, which is in every cosignature.
    pub clock: Arc<dyn Clock>,
    /// Where the log's lines go.
    pub log: Log,
}

impl Default for WitnessOptions {
    fn default() -> Self {
        Self {
            name: None,
            clock: Arc::new(SystemClock),
            log: Log::silent(),
        }
    }
}

/// Why a witness cannot work.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// A file or folder could not be read or written.
    #[error("{} cannot be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process runs this witness.
    #[error("the witness in {} is in use by another process", directory.display())]
    InUse {
        /// The folder.
        directory: PathBuf,
    },
    /// There is no witness in the folder yet.
    #[error("{} holds no witness", directory.display())]
    NoWitness {
        /// The folder.
        directory: PathBuf,
    },
    /// The key's file is not one.
    #[error("{} is not the key of a witness", path.display())]
    DamagedKey {
        /// The file.
        path: PathBuf,
    },
    /// The key's file is gone, though something was cosigned with it. A new key would be a stranger.
    #[error("the key of the witness in {} is gone, and it has cosigned before", directory.display())]
    KeyLost {
        /// The folder.
        directory: PathBuf,
    },
    /// It has another name. Names never change: they are part of every cosignature.
    #[error("the witness is called {name}, and a witness keeps its name")]
    OtherName {
        /// What it is called.
        name: String,
    },
    /// The name cannot be a witness's, or the text is not a key.
    #[error("this cannot be used as a key or as its name")]
    Key(#[source] candor_log::note::KeyError),
    /// The key is a witness's.
    #[error("this is the key of a witness, not of a log")]
    NotALog,
    /// The list of logs cannot be read.
    #[error("line {line} of {} is not the key of a log", path.display())]
    LogsLine {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// The list of logs is full.
    #[error("a witness has at most {} logs", folder::LOGS_MAX)]
    TooManyLogs,
    /// No key could be made.
    #[error("a key could not be made")]
    Randomness(#[source] NoRandomness),
}

/// Why the record of a log cannot be used. The log is refused until somebody has put it right.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file is gone, though the witness cosigned this log before.
    #[error("the record of this log is gone, and the witness has cosigned the log before")]
    Missing,
    /// The file does not hold a checkpoint of this log that this witness cosigned.
    #[error("the record of this log is damaged")]
    Damaged,
    /// The file could not be read or written.
    #[error("the record of this log cannot be read or written")]
    File(#[source] std::io::Error),
}

/// Why a request got no cosignature.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the request is refused")]
    Rule(#[source] Refusal),
    #[error("the log cannot be witnessed")]
    Record(#[source] RecordError),
    #[error("the list of logs cannot be used")]
    Logs(#[source] WitnessError),
    /// A time before 1970: every cosignature says when.
    #[error("the clock of the witness is wrong")]
    Clock,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Rule(refusal)
    }
}

impl From<RecordError> for Refused {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

/// A log as its witness knows it.
#[derive(Debug)]
pub struct WitnessedLog {
    /// Which.
    pub origin: String,
    /// Size of the newest tree that was cosigned; `None` if none ever was.
    pub size: Result<Option<u64>, RecordError>,
}

/// What adding a log to the list came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedLog {
    /// Which log.
    pub origin: String,
    /// Whether the key was not in the list before.
    pub is_new: bool,
}

/// A witness, open in this process and in no other.
pub struct Witness {
    folder: Folder,
    key: VerifierKey,
    secret: Ed25519Secret,
    clock: Arc<dyn Clock>,
    log: Log,
    /// Held from reading what was cosigned last until the next one is durable.
    turn: Mutex<()>,
    /// Says to other processes that this one runs the witness.
    _lock: File,
}

impl Witness {
    /// Opens the witness in `directory`, and makes folder and key the first time. Durable when this
    /// returns. Does I/O on the calling thread.
    ///
    /// # Errors
    /// [`WitnessError`]; [`WitnessError::InUse`] if another process runs it.
    pub fn open(directory: &Path, options: WitnessOptions) -> Result<Self, WitnessError> {
        let folder = Folder::make(directory)?;
        let lock = folder.lock()?;
        let (key, secret) = folder.key_or_new(options.name.as_deref())?;
        folder.logs()?;
        Ok(Self {
            folder,
            key,
            secret,
            clock: options.clock,
            log: options.log,
            turn: Mutex::new(()),
            _lock: lock,
        })
    }

    /// Its key in C2SP's text form, for policies and for the settings of the cells that it witnesses.
    pub fn vkey(&self) -> String {
        self.key.to_string()
    }

    /// The logs in its list, and what it knows of each.
    ///
    /// # Errors
    /// [`WitnessError`] if the list cannot be read.
    pub fn logs(&self) -> Result<Vec<WitnessedLog>, WitnessError> {
        let logs = self.folder.logs()?;
        let known = logs.iter().map(|log| {
            let newest = self.folder.newest(&origin_hash(log.name()), &self.key);
            WitnessedLog {
                origin: log.name().to_owned(),
                size: newest.map(|newest| newest.map(|newest| newest.head().size)),
            }
        });
        Ok(known.collect())
    }

    /// Decides on the body of an `add-checkpoint` request. The cosignature, if there is one, may leave:
    /// what it says is durable.
    fn add_checkpoint(&self, body: &[u8]) -> Result<String, Refused> {
        let request = AddCheckpoint::parse(body)?;
        let logs = self.folder.logs().map_err(Refused::Logs)?;
        let log = signing_log(&request.checkpoint, &logs)?;
        let hash = origin_hash(log.name());
        // A lock says nothing about the file, which is whole whatever stopped a thread.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.folder.newest(&hash, &self.key)?;
        let last = newest.as_ref().map(SignedCheckpoint::head);
        if let Err(refusal) = request.check(Some(log), last) {
            if let Some(newest) = newest {
                self.keep_evidence(&hash, newest, &request.checkpoint);
            }
            return Err(refusal.into());
        }
        let now_s = u64::try_from(self.clock.now().seconds()).map_err(|_| Refused::Clock)?;
        let line = request.checkpoint.cosign(&self.key, &self.secret, now_s);
        let line = line.map_err(|_| Refused::Clock)?;
        let kept =
            with_only(&request.checkpoint, log, &line, &self.key).ok_or(Refusal::NotSigned)?;
        self.folder.keep(&hash, &kept).map_err(RecordError::File)?;
        Ok(line)
    }

    /// Two checkpoints of one size that the log signed, with different trees, prove by themselves that it
    /// lied. Kept for whoever wants to show it; the cosignature is refused either way.
    fn keep_evidence(&self, hash: &str, older: SignedCheckpoint, newer: &SignedCheckpoint) {
        let Some(fork) = Misbehaviour::new(older, newer.clone()) else {
            return;
        };
        self.fault(Cause::WitnessFork);
        if self.folder.keep_evidence(hash, &fork.to_bytes()).is_err() {
            self.fault(Cause::WitnessRecord);
        }
    }

    /// What was cosigned last of the log whose origin has this hash.
    fn newest(&self, hash: &str) -> Result<Option<SignedCheckpoint>, RecordError> {
        self.folder.newest(hash, &self.key)
    }

    fn fault(&self, cause: Cause) {
        self.log
            .line(self.clock.now(), Event::Fault, &[(Field::Cause, &cause)]);
    }
}

/// The key of a listed log that signed the checkpoint. A log may have several keys, of which one is
/// enough; a bad signature by any of them spoils the checkpoint.
fn signing_log<'a>(
    checkpoint: &SignedCheckpoint,
    logs: &'a [VerifierKey],
) -> Result<&'a VerifierKey, Refusal> {
    use candor_log::checkpoint::CheckpointError;
    let origin = checkpoint.origin();
    let mut signer = Err(Refusal::UnknownLog);
    for log in logs.iter().filter(|log| log.name() == origin) {
        match checkpoint.is_signed_by(log) {
            Ok(()) => signer = signer.or(Ok(log)),
            Err(CheckpointError::NotSigned) => {
                signer = signer.or(Err(Refusal::NotSigned));
            }
            Err(_) => return Err(Refusal::NotSigned),
        }
    }
    signer
}

/// The checkpoint with the log's signature and this cosignature, and no other lines: whoever asks could
/// put in as many as fit.
fn with_only(
    checkpoint: &SignedCheckpoint,
    log: &VerifierKey,
    cosignature: &str,
    witness: &VerifierKey,
) -> Option<SignedCheckpoint> {
    let bytes = checkpoint.bytes();
    let (text, lines) = std::str::from_utf8(&bytes).ok()?.split_once("\n\n")?;
    let mut kept = lines.lines().find_map(|line| {
        let one = format!("{text}\n\n{line}\n");
        let one = SignedCheckpoint::parse(one.as_bytes()).ok()?;
        one.is_signed_by(log).is_ok().then_some(one)
    })?;
    let known = std::slice::from_ref(witness);
    (kept.add_lines(cosignature, known) == 1).then_some(kept)
}

/// The key of the witness in `directory`, in C2SP's text form. Makes nothing.
///
/// # Errors
/// [`WitnessError`]; [`WitnessError::NoWitness`] if it has no key yet.
pub fn vkey_of(directory: &Path) -> Result<String, WitnessError> {
    Folder::at(directory).vkey()
}

/// Adds a log's key to the list of the witness in `directory`, which may be running: it sees the new
/// log at the next request. Makes the folder if it is not there.
///
/// # Errors
/// [`WitnessError`]; [`WitnessError::Key`] and [`WitnessError::NotALog`] if the text is not a log's key.
pub fn add_log(directory: &Path, vkey: &str) -> Result<AddedLog, WitnessError> {
    use candor_log::note::KeyKind;
    let log = VerifierKey::parse(vkey.trim()).map_err(WitnessError::Key)?;
    if log.kind() != KeyKind::Log {
        return Err(WitnessError::NotALog);
    }
    Ok(AddedLog {
        is_new: Folder::make(directory)?.add_log(&log)?,
        origin: log.name().to_owned(),
    })
}
