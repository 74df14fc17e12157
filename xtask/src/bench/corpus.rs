//! What is backed up: the same bytes on every machine, made once and kept.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mutate::Noise;
use crate::sys::{self, Doing, Failure, Outcome};
use crate::tools;

/// The Debian package with the sources of linux, and the archive within it.
const LINUX_PACKAGE: &str = "linux-source-6.1";

/// How many files of moderate size *media* holds.
const MEDIA_FILES: u64 = 571;

/// How many bytes *media* holds in all; what the files of moderate size leave is one large file.
const MEDIA_BYTES: u64 = 2_860_000_000;

/// Smallest and largest file of moderate size, in bytes.
const MEDIA_FILE_BYTES: (u64, u64) = (2_000_000, 8_000_000);

/// Files and folders of *many*.
const MANY_FILES: u64 = 1_000_000;
const MANY_FOLDERS: u64 = 10_000;

/// How much noise is made before it is written, in bytes.
const NOISE_PIECE_BYTES: usize = 1 << 20;

/// A corpus by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Corpus {
    /// Debian's linux-source-6.1, unpacked: many small files of text.
    Linux,
    /// 571 incompressible files of 2 to 8 MB and one large, 2.86 GB in all.
    Media,
    /// A million files of a few lines, in 10,000 folders: what memory does.
    Many,
    /// 20 MB of both kinds, for tests of the benchmark itself.
    Small,
}

impl Corpus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Media => "media",
            Self::Many => "many",
            Self::Small => "small",
        }
    }

    /// Makes the corpus below a directory, where it is not there yet, and returns its root.
    pub(crate) fn make(self, directory: &Path) -> Outcome<PathBuf> {
        match self {
            Self::Linux => linux_source(directory),
            Self::Media => made_once(directory, self.name(), media),
            Self::Many => made_once(directory, self.name(), many),
            Self::Small => made_once(directory, self.name(), small),
        }
    }
}

/// Where corpora are kept.
pub(crate) fn default_directory() -> Outcome<PathBuf> {
    let directory = sys::target_dir().join("corpus");
    fs::create_dir_all(&directory)?;
    Ok(std::path::absolute(directory)?)
}

/// The unpacked sources of linux.
pub(crate) fn linux_source(directory: &Path) -> Outcome<PathBuf> {
    made_once(directory, LINUX_PACKAGE, |to| {
        let download = tempfile::tempdir_in(directory)?;
        tools::install_programs(&[("xz", "xz-utils"), ("dpkg-deb", "dpkg")])?;
        let get = || {
            let mut get = Command::new("apt-get");
            get.current_dir(download.path())
                .args(["download", "-qq", LINUX_PACKAGE]);
            sys::run(&mut get)
        };
        if get().is_err() {
            // A machine whose list of packages is old, or empty.
            tools::refresh_packages()?;
            get()?;
        }
        let package = fs::read_dir(download.path())?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| sys::has_extension(path, "deb"))
            .ok_or_else(|| Failure::new("apt-get downloaded no package"))?;
        let unpacked = download.path().join("unpacked");
        sys::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .args([&package, &unpacked]),
        )?;
        let archive = unpacked
            .join("usr/src")
            .join(format!("{LINUX_PACKAGE}.tar.xz"));
        let mut tar = Command::new("tar");
        tar.args(["--strip-components=1", "-x", "-J", "-f"])
            .arg(archive)
            .arg("-C")
            .arg(to);
        sys::run(&mut tar)
    })
}

/// Makes a directory with `make`, unless it is there, and lets it appear under its name only when it is whole.
fn made_once(
    directory: &Path,
    name: &str,
    make: impl FnOnce(&Path) -> Outcome,
) -> Outcome<PathBuf> {
    let whole = directory.join(name);
    if whole.is_dir() {
        return Ok(whole);
    }
    println!("making the corpus {name}");
    let part = tempfile::Builder::new()
        .prefix("part-")
        .tempdir_in(directory)?;
    make(part.path()).doing(name)?;
    fs::rename(part.keep(), &whole).doing(whole.display())?;
    Ok(whole)
}

fn media(to: &Path) -> Outcome {
    let mut noise = Noise::new(1);
    let mut left = MEDIA_BYTES;
    for number in 0..MEDIA_FILES {
        let (least, most) = MEDIA_FILE_BYTES;
        // Most pictures are small: a square root keeps the mean at a third of the range.
        let draw = noise.below(most - least).min(noise.below(most - least));
        let length = least + draw;
        let folder = to.join(format!("album {:02}", number / 30));
        fs::create_dir_all(&folder)?;
        noise_file(
            &folder.join(format!("picture {number:03}.jpg")),
            length,
            &mut noise,
        )?;
        left -= length;
    }
    noise_file(&to.join("film.mp4"), left, &mut noise)
}

fn many(to: &Path) -> Outcome {
    let mut noise = Noise::new(3);
    for number in 0..MANY_FOLDERS {
        let folder = to
            .join(format!("year {:02}", number / 200))
            .join(format!("day {number:05}"));
        fs::create_dir_all(&folder)?;
        for place in 0..MANY_FILES / MANY_FOLDERS {
            let lines: String = (0..=noise.below(12))
                .map(|line| sentence(line + number * 1_000 + place, &mut noise))
                .collect();
            fs::write(folder.join(format!("note {place:03}.txt")), lines)?;
        }
    }
    Ok(())
}

fn small(to: &Path) -> Outcome {
    let mut noise = Noise::new(2);
    for number in 0..400_u64 {
        let folder = to.join(format!("texts {:02}", number / 25));
        fs::create_dir_all(&folder)?;
        let lines: String = (0..noise.below(600))
            .map(|line| sentence(line, &mut noise))
            .collect();
        fs::write(folder.join(format!("text {number:03}.txt")), lines)?;
    }
    for number in 0..4 {
        noise_file(
            &to.join(format!("picture {number}.jpg")),
            1_000_000,
            &mut noise,
        )?;
    }
    noise_file(&to.join("film.mp4"), 10_000_000, &mut noise)
}

fn sentence(line: u64, noise: &mut Noise) -> String {
    const WORDS: [&str; 8] = [
        "a person",
        "the cell",
        "this device",
        "nobody",
        "keeps",
        "reads",
        "a letter",
        "a key",
    ];
    let word = |noise: &mut Noise| WORDS[noise.below(WORDS.len() as u64) as usize];
    format!("{line}: {} {} {}.\n", word(noise), word(noise), word(noise))
}

fn noise_file(path: &Path, length: u64, noise: &mut Noise) -> Outcome {
    let mut file = File::create(path).doing(path.display())?;
    let mut piece = vec![0_u8; NOISE_PIECE_BYTES];
    let mut left = length;
    while left > 0 {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&noise.next().to_le_bytes());
        }
        let count = left.min(NOISE_PIECE_BYTES as u64);
        file.write_all(&piece[..count as usize])
            .doing(path.display())?;
        left -= count;
    }
    Ok(())
}

/// Brings a working copy back to what the corpus is.
pub(crate) fn reset(pristine: &Path, live: &Path) -> Outcome {
    fs::create_dir_all(live)?;
    let slash = |path: &Path| format!("{}/", path.display());
    let mut rsync = Command::new("rsync");
    sys::output(rsync.args(["-aH", "--delete", &slash(pristine), &slash(live)])).map(drop)
}

/// Reads everything once, so that nobody's first look at a file pays for the disk.
pub(crate) fn warm(directory: &Path) -> Outcome {
    let mut buffer = vec![0; 1 << 20];
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                let mut file = File::open(entry.path())?;
                while file.read(&mut buffer)? > 0 {}
            }
        }
    }
    Ok(())
}
