//! Whether two trees are the same, by tools that are not ours.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::sys::{Doing, Failure, Outcome};

/// How much of a tool's findings is shown, in lines.
const SHOWN_LINES: usize = 40;

/// Which tools compare.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    /// `diff` for contents and kinds, `rsync` for everything else.
    DiffAndRsync,
    /// `rsync` alone, which reads contents too: `diff` reports FIFOs even where they are the same.
    Rsync,
}

/// Fails unless two trees are the same in contents, names, kinds, modes, owners, times to the nanosecond, hard
/// links, ACLs and extended attributes.
pub(crate) fn same_tree(source: &Path, restored: &Path, with: With) -> Outcome {
    if !restored.is_dir() {
        return Err(Failure::new(format!(
            "{} was not restored",
            restored.display()
        )));
    }
    if with == With::DiffAndRsync {
        let mut diff = Command::new("diff");
        diff.args(["-r", "--no-dereference"])
            .args([source, restored]);
        must_print_nothing(diff)?;
    }
    let mut rsync = Command::new("rsync");
    rsync.args([
        "-aHAX",
        "--delete",
        "--modify-window=-1",
        "--checksum",
        "--dry-run",
        "--itemize-changes",
    ]);
    rsync.arg(with_slash(source)).arg(with_slash(restored));
    must_print_nothing(rsync)
}

/// To rsync a directory with a slash at its end is what the directory holds, and the directory's own attributes.
fn with_slash(path: &Path) -> std::ffi::OsString {
    let mut name = path.as_os_str().to_owned();
    name.push("/");
    name
}

fn must_print_nothing(mut command: Command) -> Outcome {
    let shown = crate::sys::shown(&command);
    println!("$ {shown}");
    let output = command.stdin(Stdio::null()).output().doing(&shown)?;
    let printed = [output.stdout, output.stderr].concat();
    if output.status.success() && printed.is_empty() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&printed).into_owned();
    let first: Vec<&str> = printed.lines().take(SHOWN_LINES).collect();
    let count = printed.lines().count();
    Err(Failure::new(format!(
        "`{shown}` ended with {} and {count} lines:\n{}",
        output.status,
        first.join("\n")
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn a_difference_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        for side in [&one, &two] {
            fs::create_dir(side).unwrap();
            fs::write(side.join("file"), "same").unwrap();
        }
        let mut touch = Command::new("touch");
        touch
            .args(["-r"])
            .args([one.join("file"), two.join("file")]);
        assert!(touch.status().unwrap().success());
        assert!(
            must_print_nothing({
                let mut diff = Command::new("diff");
                diff.args(["-r"]).args([&one, &two]);
                diff
            })
            .is_ok()
        );
        fs::write(two.join("file"), "else").unwrap();
        assert!(same_tree(&one, &two, With::DiffAndRsync).is_err());
        assert!(same_tree(&one, &directory.path().join("none"), With::Rsync).is_err());
    }
}
