//! Evidence against a cell: files that the person can show to others, one for each thing that happened.
//!
//! Two contradicting checkpoints are a fork proof, in the format of [`candor_log::fork`]; anybody can
//! verify it offline. Everything else is written down as it was shown: lines of a name and a value, then
//! the signed checkpoints that belong to it. The same thing found twice is the same file.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;

use candor_log::checkpoint::SignedCheckpoint;
use candor_log::fork::Misbehaviour;
use candor_wire::ids::to_hex;

use crate::durable;
use crate::home::Home;

/// The first line of what is no fork proof.
const FIRST_LINE: &str = "candor log evidence v1";

/// Bytes of the content's hash in a file's name: two different ones never share a name by accident.
const NAME_HASH_BYTES: usize = 8;

/// Most files of evidence of one kind that are kept: more of the same does not make it stronger, and a cell
/// that misbehaves anew each hour must not fill the disk. The largest has 260 KiB. For each kind, so that
/// many small things do not leave the large one without a place.
const FILES_MAX: usize = 64;

/// What one thing that happened is shown by.
pub(crate) struct Evidence<'a> {
    /// One word: `rollback`, `missing`, …
    pub(crate) kind: &'static str,
    /// Names and values.
    pub(crate) lines: Vec<(&'static str, String)>,
    /// Checkpoints, in the order in which they were shown.
    pub(crate) checkpoints: Vec<&'a SignedCheckpoint>,
}

impl Evidence<'_> {
    fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{FIRST_LINE}\nkind {}\n", self.kind);
        for (name, value) in &self.lines {
            writeln!(text, "{name} {value}").expect("writing into memory cannot fail");
        }
        let mut bytes = text.into_bytes();
        for checkpoint in &self.checkpoints {
            bytes.push(b'\n');
            bytes.extend_from_slice(&checkpoint.bytes());
        }
        bytes
    }

    /// Keeps it. Says where, for a sentence; not being able to write it does not make it less true.
    pub(crate) fn keep(&self, home: &Home) -> String {
        said(keep(home, self.kind, FILES_MAX, &self.to_bytes()))
    }

    /// Keeps it, however many there are: for what only a person's own yes brings about. Says where; the
    /// error says why not.
    pub(crate) fn keep_always(&self, home: &Home) -> Result<String, String> {
        keep(home, self.kind, usize::MAX, &self.to_bytes())
    }
}

fn said(kept: Result<String, String>) -> String {
    kept.unwrap_or_else(|why| format!("not kept, since {why}"))
}

/// Keeps a fork proof.
pub(crate) fn keep_fork(home: &Home, proof: &Misbehaviour) -> String {
    said(keep(home, "fork", FILES_MAX, &proof.to_bytes()))
}

fn keep(home: &Home, kind: &str, files_max: usize, bytes: &[u8]) -> Result<String, String> {
    let hash = blake3::hash(bytes);
    let name = format!("{kind}-{}.txt", to_hex(&hash.as_bytes()[..NAME_HASH_BYTES]));
    let is_there = home.evidence().join(&name).exists();
    if !is_there && count_of(home, &format!("{kind}-")) >= files_max {
        return Err(format!(
            "the folder evidence has {files_max} files of this kind already"
        ));
    }
    match write(home, &name, bytes) {
        Ok(()) => Ok(format!("kept in evidence/{name}")),
        Err(error) => Err(format!("nothing can be written ({})", error.kind())),
    }
}

fn write(home: &Home, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = home.evidence();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    durable::replace(&folder.join(name), bytes)?;
    durable::sync_folder_of(&folder)
}

/// How many files of evidence there are. The person may take them away.
pub(crate) fn count(home: &Home) -> usize {
    count_of(home, "")
}

fn count_of(home: &Home, prefix: &str) -> usize {
    std::fs::read_dir(home.evidence()).map_or(0, |entries| {
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .filter(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
            .count()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn evidence_is_kept_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::lock(folder.path()).unwrap();
        assert_eq!(count(&home), 0);
        let evidence = Evidence {
            kind: "missing",
            lines: vec![("statement", "ab".to_owned())],
            checkpoints: Vec::new(),
        };
        let said = evidence.keep(&home);
        assert_eq!(evidence.keep(&home), said);
        assert_eq!(count(&home), 1);
        let path = home.path().join(said.strip_prefix("kept in ").unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "candor log evidence v1\nkind missing\nstatement ab\n"
        );
        // A cell cannot fill the disk with what speaks against it.
        for n in 0..FILES_MAX {
            let evidence = Evidence {
                lines: vec![("statement", n.to_string())],
                ..Evidence {
                    kind: "missing",
                    lines: Vec::new(),
                    checkpoints: Vec::new(),
                }
            };
            evidence.keep(&home);
        }
        assert_eq!(count(&home), FILES_MAX);
        assert_eq!(evidence.keep(&home), said);
        // Nor does it leave something worse without a place.
        let worse = Evidence {
            kind: "rollback",
            lines: Vec::new(),
            checkpoints: Vec::new(),
        };
        assert!(worse.keep(&home).starts_with("kept in "));
        let accepted = Evidence {
            kind: "missing",
            lines: vec![("accepted", "yes".to_owned())],
            checkpoints: Vec::new(),
        };
        assert!(accepted.keep(&home).starts_with("not kept"));
        accepted.keep_always(&home).unwrap();
        assert_eq!(count(&home), FILES_MAX + 2);
    }
}
