//! A tree of every awkward kind of file, made with the system's own tools.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::sys::{self, Doing, Failure, Outcome};

/// Length of the large sparse file, in bytes: past 4 GiB, so that 32-bit lengths show.
const LARGE_SPARSE_BYTES: u64 = (4 << 30) + (1 << 20) + 7;

/// How many more 512-byte blocks a restored sparse file may take than its source: a hole may begin on another page.
const HOLE_SLACK_BLOCKS: u64 = 64;

/// How many of the sparse files must really have holes for their comparison to say anything.
const SPARSE_FILES_MIN: usize = 2;

/// Longest name of a file on Linux, in bytes.
const NAME_MAX_BYTES: usize = 255;

/// Builds the tree and returns how many kinds of files it holds.
pub(super) fn build(root: &Path) -> Outcome<usize> {
    type Kind = (&'static str, fn(&Path) -> Outcome);
    let kinds: [Kind; 13] = [
        ("names", names),
        ("modes", modes),
        ("times", times),
        ("symbolic links", symbolic_links),
        ("hard links", hard_links),
        ("extended attributes", extended_attributes),
        ("access control lists", access_control_lists),
        ("sparse", sparse),
        ("fifo", fifo),
        ("empty", empty),
        ("sizes", sizes),
        ("deep", deep),
        ("read-only", read_only),
    ];
    fs::create_dir(root)?;
    for (name, make) in kinds {
        let directory = root.join(name);
        fs::create_dir(&directory)?;
        make(&directory).doing(name)?;
    }
    // Last, because making files changed it: a directory's own time, before the epoch.
    set_time(&root.join("times"), "1960-02-29 12:00:00.123456789 UTC")?;
    Ok(kinds.len())
}

fn quietly(command: &mut Command) -> Outcome {
    sys::output(command).map(drop)
}

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Outcome {
    fs::write(&path, bytes).doing(path.as_ref().display())
}

fn names(at: &Path) -> Outcome {
    let odd: [&[u8]; 14] = [
        b"not utf-8 \xff\xfe\x80",
        b"latin-1 caf\xe9",
        b"line\nbreak",
        b"tab\tand\rreturn",
        b" leading and trailing ",
        b"-rf",
        b"back\\slash and \"quotes\" '",
        b"\x01\x02\x7f",
        b"con",
        b"semi;colon&amp|pipe$HOME`x`*?[a]",
        "composed \u{e9}".as_bytes(),
        "decomposed e\u{301}".as_bytes(),
        "emoji \u{1f512} \u{202e}rtl".as_bytes(),
        b"...",
    ];
    for (number, name) in odd.iter().enumerate() {
        write(
            at.join(OsStr::from_bytes(name)),
            format!("content {number}"),
        )?;
    }
    write(at.join("n".repeat(NAME_MAX_BYTES)), "longest name")?;
    write(at.join("Case"), "upper")?;
    write(at.join("case"), "lower")?;
    let directory = at.join(OsStr::from_bytes(b"directory \xc3\x28"));
    fs::create_dir(&directory)?;
    write(directory.join("inside"), "of a name that is not UTF-8")
}

fn modes(at: &Path) -> Outcome {
    for mode in [
        0o000, 0o400, 0o444, 0o600, 0o644, 0o666, 0o711, 0o755, 0o777,
    ] {
        let file = at.join(format!("file {mode:04o}"));
        write(&file, format!("{mode:o}"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    }
    for mode in [0o700, 0o755, 0o777, 0o1777] {
        let directory = at.join(format!("directory {mode:04o}"));
        fs::create_dir(&directory)?;
        write(directory.join("file"), "inside")?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode))?;
    }
    if sys::is_root() {
        let owned = at.join("somebody else's");
        write(&owned, "owned by another number")?;
        quietly(Command::new("chown").arg("12345:23456").arg(&owned))?;
    }
    Ok(())
}

fn set_time(path: &Path, time: &str) -> Outcome {
    quietly(
        Command::new("touch")
            .args(["--no-dereference", "-m", "-d", time])
            .arg(path),
    )
}

fn times(at: &Path) -> Outcome {
    let nanosecond = at.join("one nanosecond");
    write(&nanosecond, "")?;
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 1);
    File::options()
        .write(true)
        .open(&nanosecond)?
        .set_modified(time)?;
    for (name, time) in [
        ("last nanosecond", "2024-12-31 23:59:59.999999999 UTC"),
        ("epoch", "1970-01-01 00:00:00 UTC"),
        ("before the epoch", "1955-11-05 06:15:00.000000001 UTC"),
        ("after 2038", "2100-01-01 00:00:00.5 UTC"),
    ] {
        write(at.join(name), name)?;
        set_time(&at.join(name), time)?;
    }
    Ok(())
}

fn symbolic_links(at: &Path) -> Outcome {
    write(at.join("target"), "linked")?;
    symlink("target", at.join("to a file"))?;
    symlink("no such file", at.join("dangling"))?;
    symlink("/nonexistent/absolute", at.join("absolute"))?;
    symlink("..", at.join("up"))?;
    symlink("to itself", at.join("to itself"))?;
    symlink(
        OsStr::from_bytes(b"\xff\n"),
        at.join(OsStr::from_bytes(b"bytes \xfe")),
    )?;
    symlink("x".repeat(1000), at.join("long"))?;
    set_time(&at.join("dangling"), "2001-09-09 01:46:40.987654321 UTC")
}

fn hard_links(at: &Path) -> Outcome {
    write(at.join("one"), "three names")?;
    fs::create_dir(at.join("sub"))?;
    fs::hard_link(at.join("one"), at.join("two"))?;
    fs::hard_link(at.join("one"), at.join("sub/three"))?;
    write(at.join("alone"), "three names")?;
    symlink("one", at.join("link"))?;
    fs::hard_link(at.join("link"), at.join("same link"))?;
    Ok(())
}

fn set_attribute(path: &Path, name: &str, value: &str) -> Outcome {
    quietly(
        Command::new("setfattr")
            .args(["--no-dereference", "-n", name, "-v", value])
            .arg(path),
    )
}

fn extended_attributes(at: &Path) -> Outcome {
    let file = at.join("file");
    write(&file, "attributed")?;
    set_attribute(&file, "user.comment", "plain text")?;
    set_attribute(&file, "user.empty", "")?;
    set_attribute(&file, "user.binary", "0x00ff0a0d8081")?;
    set_attribute(&file, "user.long", &format!("0x{}", "5a".repeat(2000)))?;
    let directory = at.join("directory");
    fs::create_dir(&directory)?;
    set_attribute(&directory, "user.kind", "directory")
}

fn set_acl(path: &Path, words: &[&str]) -> Outcome {
    quietly(Command::new("setfacl").args(words).arg(path))
}

fn access_control_lists(at: &Path) -> Outcome {
    let file = at.join("file");
    write(&file, "listed")?;
    set_acl(&file, &["-m", "u:12345:rw,g:23456:r,m::rw"])?;
    let directory = at.join("directory");
    fs::create_dir(&directory)?;
    set_acl(&directory, &["-m", "u:12345:rwx"])?;
    set_acl(&directory, &["-d", "-m", "u:12345:rx,g:23456:rwx"])?;
    write(directory.join("inherits"), "by default")
}

fn sparse(at: &Path) -> Outcome {
    let all_hole = File::create(at.join("all hole"))?;
    all_hole.set_len(64 << 20)?;
    let large = File::create(at.join("over 4 GiB"))?;
    large.set_len(LARGE_SPARSE_BYTES)?;
    large.write_all_at(b"at the start", 0)?;
    large.write_all_at(b"around four gibibytes", (4 << 30) - 10)?;
    large.write_all_at(b"the end", LARGE_SPARSE_BYTES - 7)?;
    let comb = File::create(at.join("comb"))?;
    for tooth in 0..64_u64 {
        comb.write_all_at(&[b'#'; 4096], tooth * (256 << 10))?;
    }
    comb.set_len(64 * (256 << 10))?;
    // Zeros that are really there must not come back as something else.
    write(at.join("written zeros"), vec![0; 300_000])
}

fn fifo(at: &Path) -> Outcome {
    quietly(
        Command::new("mkfifo")
            .args(["-m", "0640"])
            .arg(at.join("pipe")),
    )
}

fn empty(at: &Path) -> Outcome {
    write(at.join("file"), "")?;
    fs::create_dir_all(at.join("directory/in a directory"))?;
    Ok(())
}

/// Lengths around the borders of segments, frames and packs, of bytes that do and do not compress.
fn sizes(at: &Path) -> Outcome {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for border in [1_usize << 16, 1 << 20, 1 << 24] {
        for length in [border - 1, border, border + 1] {
            let noise: Vec<u8> = std::iter::repeat_with(|| next(&mut state))
                .take(length)
                .collect();
            write(at.join(format!("noise {length}")), noise)?;
        }
        write(
            at.join(format!("text {border}")),
            "the same words again. ".repeat(border / 22 + 1),
        )?;
    }
    write(at.join("one byte"), "x")
}

/// The next byte of a xorshift sequence: noise that is the same in every run.
fn next(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()[3]
}

fn deep(at: &Path) -> Outcome {
    let mut path = at.to_owned();
    for level in 0..100 {
        path.push(format!("level {level}"));
    }
    fs::create_dir_all(&path)?;
    write(path.join("at the bottom"), "deep")?;
    let many = at.join("many");
    fs::create_dir(&many)?;
    for number in 0..3000 {
        write(
            many.join(format!("{number:05}")),
            format!("small file {number}\n"),
        )?;
    }
    Ok(())
}

fn read_only(at: &Path) -> Outcome {
    let directory = at.join("directory");
    fs::create_dir(&directory)?;
    write(
        directory.join("file"),
        "in a directory that may not be written",
    )?;
    fs::set_permissions(directory.join("file"), fs::Permissions::from_mode(0o444))?;
    set_time(&directory, "2010-10-10 10:10:10.101010101 UTC")?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555))?;
    Ok(())
}

/// Fails unless every regular file has the same bytes on both sides.
pub(super) fn same_contents(source: &Path, restored: &Path) -> Outcome {
    let (ours, theirs) = (regular_files(source)?, regular_files(restored)?);
    if !ours.keys().eq(theirs.keys()) {
        return Err(Failure::new("the regular files have other names"));
    }
    for name in ours.keys() {
        if !same_bytes(&source.join(name), &restored.join(name))? {
            return Err(Failure::new(format!("{}: other content", name.display())));
        }
    }
    println!("{} regular files have the same bytes", ours.len());
    Ok(())
}

/// Fails when a sparse file came back with its holes filled.
pub(super) fn same_holes(source: &Path, restored: &Path) -> Outcome {
    let theirs = regular_files(restored)?;
    let mut sparse = 0;
    for (name, blocks) in regular_files(source)? {
        let length = fs::metadata(source.join(&name))?.len();
        // Blocks are of 512 bytes: fewer than the length needs means holes.
        if blocks * 512 + 4096 > length {
            continue;
        }
        sparse += 1;
        let restored_blocks = theirs.get(&name).copied().unwrap_or(u64::MAX);
        if restored_blocks > blocks + HOLE_SLACK_BLOCKS {
            return Err(Failure::new(format!(
                "{}: {restored_blocks} blocks, was {blocks}",
                name.display()
            )));
        }
    }
    if sparse < SPARSE_FILES_MIN {
        return Err(Failure::new(
            "this file system keeps no holes, so the comparison says nothing",
        ));
    }
    println!("{sparse} sparse files kept their holes");
    Ok(())
}

/// Regular files below a directory, with their blocks.
fn regular_files(root: &Path) -> Outcome<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let full = root.join(&directory);
        for entry in fs::read_dir(&full).doing(full.display())? {
            let entry = entry?;
            let name = directory.join(entry.file_name());
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(name);
            } else if metadata.is_file() {
                found.insert(name, metadata.blocks());
            }
        }
    }
    Ok(found)
}

fn same_bytes(one: &Path, two: &Path) -> Outcome<bool> {
    if fs::metadata(one)?.len() != fs::metadata(two)?.len() {
        return Ok(false);
    }
    let open = |path: &Path| {
        File::open(path)
            .map(|file| BufReader::with_capacity(1 << 20, file))
            .doing(path.display())
    };
    let (mut one, mut two) = (open(one)?, open(two)?);
    let (mut here, mut there) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut here)?;
        if count == 0 {
            return Ok(true);
        }
        two.read_exact(&mut there[..count])?;
        if here[..count] != there[..count] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::e2e::compare::{With, same_tree};
    use std::io::Write as _;

    #[test]
    fn other_content_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        for side in [&one, &two] {
            fs::create_dir(side).unwrap();
            fs::write(side.join("file"), "same").unwrap();
        }
        assert!(same_contents(&one, &two).is_ok());
        fs::write(two.join("file"), "else").unwrap();
        assert!(same_contents(&one, &two).is_err());
        fs::remove_file(two.join("file")).unwrap();
        assert!(same_contents(&one, &two).is_err());
    }

    /// The tree can be made here, another program copies it faithfully, and then every comparison is content; and
    /// not after one nanosecond was changed.
    #[test]
    fn a_faithful_copy_passes() {
        let parent = sys::target_dir();
        fs::create_dir_all(&parent).unwrap();
        let directory = tempfile::tempdir_in(parent).unwrap();
        let (source, copy) = (
            directory.path().join("source"),
            directory.path().join("copy"),
        );
        build(&source).unwrap();
        // Its comparison takes long, and is for the scenario.
        fs::remove_file(source.join("sparse/over 4 GiB")).unwrap();
        let mut rsync = Command::new("rsync");
        rsync.args(["-aHAXS", "--modify-window=-1"]);
        sys::run(rsync.arg(format!("{}/", source.display())).arg(&copy)).unwrap();
        same_tree(&source, &copy, With::Rsync).unwrap();
        same_contents(&source, &copy).unwrap();
        same_holes(&source, &copy).unwrap();
        let file = File::options()
            .write(true)
            .open(copy.join("times/one nanosecond"))
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 2))
            .unwrap();
        assert!(same_tree(&source, &copy, With::Rsync).is_err());
        let mut open_all = Command::new("chmod");
        sys::run(open_all.args(["-R", "u+rwX"]).arg(directory.path())).unwrap();
    }

    #[test]
    fn filled_holes_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        for side in [&one, &two] {
            fs::create_dir(side).unwrap();
            for name in ["a", "b", "c"] {
                File::create(side.join(name))
                    .unwrap()
                    .set_len(8 << 20)
                    .unwrap();
            }
        }
        assert!(same_holes(&one, &two).is_ok());
        let mut filled = File::create(two.join("b")).unwrap();
        filled.write_all(&vec![0; 8 << 20]).unwrap();
        filled.sync_all().unwrap();
        assert!(same_holes(&one, &two).is_err());
    }
}
