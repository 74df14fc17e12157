//! A witness's folder: its key, its list of logs, and what it cosigned last of each.
//!
//! | File | What it is |
//! |---|---|
//! | `witness.key` | name and seed of the key, CBOR |
//! | `witness.lock` | its lock says that a process runs the witness |
//! | `logs` | one log's key a line; lines that begin with `#` are remarks |
//! | `newest/<origin hash>` | the newest checkpoint that was cosigned, with that cosignature |
//! | `seen/<origin hash>` | says that the log was cosigned at least once; its origin |
//! | `forks/<origin hash>` | the first proof that the log signed two trees of one size |
//!
//! A record is believed only with the witness's own cosignature on it, so a file that was damaged or
//! put there by somebody is noticed. One that is gone is noticed by its mark.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use candor_log::checkpoint::{CHECKPOINT_MAX_BYTES, SignedCheckpoint};
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::witness::origin_hash;
use candor_wire::cbor::{self, Canonical};
use candor_wire::ids::to_hex;
use candor_wire::sign::{Ed25519Public, Ed25519Secret, SEED_BYTES};
use zeroize::{Zeroize as _, Zeroizing};

use super::{RecordError, WitnessError};
use crate::{random, sys};

/// Most logs of one witness. One that needs more is a public witness, and asks for other machinery.
pub(super) const LOGS_MAX: usize = 1024;

/// Longest list of logs, in bytes: [`LOGS_MAX`] keys with long names, and remarks.
const LOGS_MAX_BYTES: u64 = 512 * 1024;

/// The version of key files that this build writes and the lowest that it accepts.
const KEY_FILE_VERSION: u8 = 1;

/// How much of a key's hash goes into the name of a witness that was given none, in bytes.
const NAME_HASH_BYTES: usize = 16;

#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct KeyFile {
    #[n(0)]
    version: u8,
    #[n(1)]
    name: String,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    seed: [u8; SEED_BYTES],
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl Canonical for KeyFile {
    const WHAT: &'static str = "the key of a witness";
    const MAX_BYTES: usize = 512;
}

/// A folder. Every method does I/O on the calling thread.
pub(super) struct Folder {
    path: PathBuf,
}

fn fault(path: PathBuf) -> impl FnOnce(io::Error) -> WitnessError {
    move |source| WitnessError::File { path, source }
}

impl Folder {
    /// One that need not be there.
    pub(super) fn at(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
        }
    }

    /// One that is there when this returns.
    pub(super) fn make(path: &Path) -> Result<Self, WitnessError> {
        for inner in ["", "newest", "seen", "forks"] {
            let inner = path.join(inner);
            sys::create_private_directory(&inner).map_err(fault(inner))?;
        }
        Ok(Self::at(path))
    }

    fn key_file(&self) -> PathBuf {
        self.path.join("witness.key")
    }

    fn logs_file(&self) -> PathBuf {
        self.path.join("logs")
    }

    fn newest_file(&self, hash: &str) -> PathBuf {
        self.path.join("newest").join(hash)
    }

    fn seen_file(&self, hash: &str) -> PathBuf {
        self.path.join("seen").join(hash)
    }

    fn open_lock(&self, name: &str) -> Result<File, WitnessError> {
        let path = self.path.join(name);
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        options.open(&path).map_err(fault(path))
    }

    /// Takes the witness for this process, for as long as the file is open.
    pub(super) fn lock(&self) -> Result<File, WitnessError> {
        let lock = self.open_lock("witness.lock")?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(WitnessError::InUse {
                directory: self.path.clone(),
            }),
            Err(TryLockError::Error(source)) => Err(fault(self.path.clone())(source)),
        }
    }

    /// The key, made now if there never was one.
    pub(super) fn key_or_new(
        &self,
        name: Option<&str>,
    ) -> Result<(VerifierKey, Ed25519Secret), WitnessError> {
        let (key, secret) = match self.key()? {
            Some(pair) => pair,
            None if self.has_cosigned()? => {
                return Err(WitnessError::KeyLost {
                    directory: self.path.clone(),
                });
            }
            None => self.new_key(name)?,
        };
        match name {
            Some(name) if name != key.name() => Err(WitnessError::OtherName {
                name: key.name().to_owned(),
            }),
            _ => Ok((key, secret)),
        }
    }

    /// The public half, in text.
    pub(super) fn vkey(&self) -> Result<String, WitnessError> {
        match self.key()? {
            Some((key, _)) => Ok(key.to_string()),
            None => Err(WitnessError::NoWitness {
                directory: self.path.clone(),
            }),
        }
    }

    fn key(&self) -> Result<Option<(VerifierKey, Ed25519Secret)>, WitnessError> {
        let path = self.key_file();
        let bytes = match fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(fault(path)(source)),
        };
        match cbor::decode::<KeyFile>(&bytes) {
            Ok(file) if file.version == KEY_FILE_VERSION => {
                let secret = Ed25519Secret::from_seed(&file.seed);
                match VerifierKey::new(&file.name, KeyKind::Cosigner, secret.public()) {
                    Ok(key) => Ok(Some((key, secret))),
                    Err(_) => Err(WitnessError::DamagedKey { path }),
                }
            }
            _ => Err(WitnessError::DamagedKey { path }),
        }
    }

    fn new_key(&self, name: Option<&str>) -> Result<(VerifierKey, Ed25519Secret), WitnessError> {
        let mut file = KeyFile {
            version: KEY_FILE_VERSION,
            name: String::new(),
            seed: random::bytes().map_err(WitnessError::Randomness)?,
        };
        let secret = Ed25519Secret::from_seed(&file.seed);
        file.name = name.map_or_else(|| name_of(&secret.public()), str::to_owned);
        let key = VerifierKey::new(&file.name, KeyKind::Cosigner, secret.public())
            .map_err(WitnessError::Key)?;
        let bytes = Zeroizing::new(cbor::encode(&file));
        let path = self.key_file();
        sys::write_private_file(&path, &bytes).map_err(fault(path))?;
        Ok((key, secret))
    }

    fn has_cosigned(&self) -> Result<bool, WitnessError> {
        for inner in ["newest", "seen"] {
            let inner = self.path.join(inner);
            let mut entries = fs::read_dir(&inner).map_err(fault(inner))?;
            if entries.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The keys in the list. A folder without a list has none.
    pub(super) fn logs(&self) -> Result<Vec<VerifierKey>, WitnessError> {
        let mut logs: Vec<VerifierKey> = Vec::new();
        for (position, line) in self.logs_text()?.lines().enumerate() {
            let line_number = position + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match VerifierKey::parse(line) {
                Ok(log) if log.kind() == KeyKind::Log => logs.push(log),
                _ => {
                    return Err(WitnessError::LogsLine {
                        path: self.logs_file(),
                        line: line_number,
                    });
                }
            }
        }
        if logs.len() > LOGS_MAX {
            return Err(WitnessError::TooManyLogs);
        }
        Ok(logs)
    }

    fn logs_text(&self) -> Result<String, WitnessError> {
        let path = self.logs_file();
        let read = fs::metadata(&path).and_then(|metadata| {
            if metadata.len() > LOGS_MAX_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            fs::read_to_string(&path)
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(fault(path)),
        }
    }

    /// Puts a key into the list. `false`: it was there.
    pub(super) fn add_log(&self, log: &VerifierKey) -> Result<bool, WitnessError> {
        // Two people may add a log at once.
        let lock = self.open_lock("logs.lock")?;
        lock.lock().map_err(fault(self.path.clone()))?;
        let logs = self.logs()?;
        if logs.contains(log) {
            return Ok(false);
        }
        if logs.len() >= LOGS_MAX {
            return Err(WitnessError::TooManyLogs);
        }
        let mut text = self.logs_text()?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("{log}\n"));
        let path = self.logs_file();
        sys::write_private_file(&path, text.as_bytes()).map_err(fault(path))?;
        Ok(true)
    }

    /// What `witness` cosigned last of the log whose origin has this hash; `None` if it never did.
    pub(super) fn newest(
        &self,
        hash: &str,
        witness: &VerifierKey,
    ) -> Result<Option<SignedCheckpoint>, RecordError> {
        let path = self.newest_file(hash);
        let longest = CHECKPOINT_MAX_BYTES as u64;
        let bytes = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > longest => return Err(RecordError::Damaged),
            Ok(_) => fs::read(&path).map_err(RecordError::File)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match self.seen_file(hash).try_exists() {
                    Ok(false) => Ok(None),
                    Ok(true) => Err(RecordError::Missing),
                    Err(source) => Err(RecordError::File(source)),
                };
            }
            Err(source) => return Err(RecordError::File(source)),
        };
        let checkpoint = SignedCheckpoint::parse(&bytes).map_err(|_| RecordError::Damaged)?;
        let is_own =
            origin_hash(checkpoint.origin()) == hash && checkpoint.cosigned_by(witness).is_some();
        is_own
            .then_some(Some(checkpoint))
            .ok_or(RecordError::Damaged)
    }

    /// Replaces the record of a log. Durable when this returns. The mark comes after the record: a stop
    /// between the two leaves a record, which needs no mark, and no cosignature has left.
    pub(super) fn keep(&self, hash: &str, checkpoint: &SignedCheckpoint) -> io::Result<()> {
        sys::write_private_file(&self.newest_file(hash), &checkpoint.bytes())?;
        let seen = self.seen_file(hash);
        if seen.try_exists()? {
            return Ok(());
        }
        sys::write_private_file(&seen, format!("{}\n", checkpoint.origin()).as_bytes())
    }

    /// Keeps the first proof of a log's misbehaviour. One is enough, and more would fill the disk.
    pub(super) fn keep_evidence(&self, hash: &str, proof: &[u8]) -> io::Result<()> {
        let path = self.path.join("forks").join(hash);
        if path.try_exists()? {
            return Ok(());
        }
        sys::write_private_file(&path, proof)
    }
}

/// The name of a witness that was given none. `.invalid` is reserved (RFC 2606), so it is nobody's.
fn name_of(key: &Ed25519Public) -> String {
    let hash = blake3::derive_key("candor 2026 witness name v1", key.as_bytes());
    format!("{}.witness.invalid", to_hex(&hash[..NAME_HASH_BYTES]))
}

/// Whatever is read of such a file is written the same (row A37).
#[cfg(any(test, fuzzing))]
pub(crate) fn take_noise(bytes: &[u8]) {
    if let Ok(file) = cbor::decode::<KeyFile>(bytes) {
        assert_eq!(cbor::encode(&file), bytes);
    }
}
