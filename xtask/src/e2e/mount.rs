//! Mounted snapshots: the same as the source by tools that are not ours, and nothing can be changed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::awkward;
use super::compare::{With, same_tree};
use super::round_trip;
use super::world::{Candor, World, terminate};
use crate::sys::{self, Doing, Failure, Outcome};

/// How long mounting, unmounting and showing a new snapshot may take.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Objects of this size hold contents: manifests and index objects of a tree like this are shorter.
const CONTENT_BYTES: u64 = 1024 * 1024;

/// A program that shows snapshots at a folder; unmounted, if it has to be, when it goes out of scope.
pub(crate) struct Mounted {
    child: Child,
    at: PathBuf,
}

impl Mounted {
    /// Mounts and waits until it is there.
    pub(crate) fn start(mut command: Command, at: &Path) -> Outcome<Self> {
        fs::create_dir_all(at)?;
        command.arg(at).stdout(Stdio::null());
        println!("$ {} &", sys::shown(&command));
        let mut mounted = Self {
            child: command.spawn().doing("starting the mount")?,
            at: at.to_owned(),
        };
        mounted.wait(|mounted| Ok(is_mounted(&mounted.at)?))?;
        Ok(mounted)
    }

    fn wait(&mut self, is_done: impl Fn(&Self) -> Outcome<bool>) -> Outcome {
        let started = Instant::now();
        while !is_done(self)? {
            if let Some(status) = self.child.try_wait()? {
                return Err(Failure::new(format!("the mount ended with {status}")));
            }
            if started.elapsed() > WAIT_MAX {
                return Err(Failure::new(format!("not there after {WAIT_MAX:?}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The newest snapshot's folder of the source.
    pub(crate) fn newest(&self, source: &Path) -> Outcome<PathBuf> {
        let name = source.file_name().unwrap_or_default();
        let mut found = None;
        for set in fs::read_dir(&self.at)? {
            let place = set?.path().join("latest").join(name);
            if place.exists() {
                found = Some(place);
            }
        }
        found.ok_or_else(|| Failure::new(format!("{} is not shown", source.display())))
    }

    /// Asks the program to end; it must do so well, and leave an empty folder.
    pub(crate) fn stop(mut self) -> Outcome {
        let status = terminate(&mut self.child, WAIT_MAX)?;
        self.must_be_gone(status)
    }

    /// Unmounts as people do; the program must end by itself.
    fn unmount(mut self) -> Outcome {
        sys::run(Command::new("umount").arg(&self.at))?;
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return self.must_be_gone(status);
            }
            if started.elapsed() > WAIT_MAX {
                return Err(Failure::new("the mount does not end when it is unmounted"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn must_be_gone(&self, status: std::process::ExitStatus) -> Outcome {
        if status.success() && !is_mounted(&self.at)? && fs::read_dir(&self.at)?.next().is_none() {
            return Ok(());
        }
        Err(Failure::new(format!("the mount ended with {status}")))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = terminate(&mut self.child, WAIT_MAX);
        if is_mounted(&self.at).unwrap_or(false) {
            let mut umount = Command::new("umount");
            let _ = umount.arg("--lazy").arg(&self.at).status();
        }
    }
}

fn is_mounted(at: &Path) -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let at = at.to_string_lossy();
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(&*at)))
}

/// Whether the system lets anybody mount. Where it does not, nothing can be shown.
pub(crate) fn can_mount() -> bool {
    let mut device = fs::OpenOptions::new();
    let is_there = device.read(true).write(true).open("/dev/fuse").is_ok();
    let can = is_there && sys::is_root();
    if !can {
        println!("NOT RUN: mounting needs /dev/fuse, and root to unmount what a test left behind");
    }
    can
}

/// Everything that is mounted is as it was, and stays so.
pub(super) fn shows_what_was_backed_up(world: &World) -> Outcome {
    if !can_mount() {
        return Ok(());
    }
    let real = round_trip::real_source(world)?;
    let awkward = world.path("awkward");
    awkward::build(&awkward)?;
    let candor = world.candor("home");
    candor.up_once(&[&real, &awkward], &world.path("phrase.txt"))?;

    let around = world.path("around");
    let at = around.join("snapshots");
    let mount = || Mounted::start(candor.command(["backup", "mount"]), &at);
    let mut mounted = mount()?;
    same_tree(&real, &mounted.newest(&real)?, With::DiffAndRsync)?;
    let shown = mounted.newest(&awkward)?;
    same_tree(&awkward, &shown, With::Rsync)?;
    awkward::same_contents(&awkward, &shown)?;
    nothing_can_be_changed(&mounted.newest(&real)?)?;
    is_no_source(&candor, &around)?;
    new_snapshots_appear(&candor, &mut mounted, &awkward)?;
    mounted.unmount()?;
    mount()?.stop()?;
    damage_is_an_error(&candor, mount, &awkward)
}

fn a_file(folder: &Path) -> Outcome<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            return Ok(entry.path());
        }
        if entry.file_type()?.is_dir()
            && let Ok(found) = a_file(&entry.path())
        {
            return Ok(found);
        }
    }
    Err(Failure::new(format!("no file in {}", folder.display())))
}

/// Tries every way to change something; each has to say that the file system is read-only.
fn nothing_can_be_changed(folder: &Path) -> Outcome {
    let file = a_file(folder)?;
    let before = fs::read(&file)?;
    let new = folder.join("new");
    let tries: [(&str, io::Result<()>); 9] = [
        (
            "write",
            fs::OpenOptions::new().write(true).open(&file).map(drop),
        ),
        ("create", fs::File::create(&new).map(drop)),
        ("mkdir", fs::create_dir(&new)),
        ("unlink", fs::remove_file(&file)),
        ("rmdir", fs::remove_dir(folder)),
        ("rename", fs::rename(&file, &new)),
        (
            "chmod",
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)),
        ),
        ("symlink", symlink("target", &new)),
        ("link", fs::hard_link(&file, &new)),
    ];
    for (what, result) in tries {
        match result {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
            other => {
                return Err(Failure::new(format!(
                    "{what} gives {other:?}, not a read-only file system"
                )));
            }
        }
    }
    for words in [
        &["setfattr", "-n", "user.mine", "-v", "1"][..],
        &["setfattr", "-x", "user.mine"],
        &["touch"],
        &["chown", "1:1"],
        &["truncate", "-s", "1"],
    ] {
        let mut command = Command::new(words[0]);
        let output = command.args(&words[1..]).arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains("Read-only file system") {
            return Err(Failure::new(format!("{words:?}: {said}")));
        }
    }
    if fs::read(&file)? != before || new.exists() {
        return Err(Failure::new("something was changed"));
    }
    Ok(())
}

/// A folder in which snapshots are mounted is neither backed up nor synced.
fn is_no_source(candor: &Candor<'_>, around: &Path) -> Outcome {
    for words in [["backup", "add"], ["sync", "add"]] {
        let output = candor.command(words).arg(around).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(2) || !said.contains("snapshots are mounted at") {
            return Err(Failure::new(format!("{words:?}: {said}")));
        }
    }
    Ok(())
}

/// The vault is not held: a backup runs beside the mount, and its snapshot appears.
fn new_snapshots_appear(candor: &Candor<'_>, mounted: &mut Mounted, source: &Path) -> Outcome {
    let old = mounted.newest(source)?.canonicalize()?;
    fs::write(source.join("written later"), "later")?;
    candor.run(["backup", "run", "--all"])?;
    mounted.wait(|mounted| {
        let newest = mounted.newest(source)?;
        Ok(fs::read(newest.join("written later")).is_ok_and(|text| text == b"later"))
    })?;
    if old.join("written later").exists() {
        return Err(Failure::new("a snapshot changed"));
    }
    Ok(())
}

/// Bytes that are not those that were stored are never shown: whoever reads gets an error, and the ledger an alarm.
fn damage_is_an_error(
    candor: &Candor<'_>,
    mount: impl Fn() -> Outcome<Mounted>,
    source: &Path,
) -> Outcome {
    damage_contents(candor)?;
    let mounted = mount()?;
    let mut refused = 0;
    let sets = fs::read_dir(&mounted.at)?;
    for set in sets {
        refused += compare_or_refuse(&set?.path().join("latest").join("awkward"), source)?;
    }
    if refused == 0 {
        return Err(Failure::new(
            "every object was damaged, and nothing was refused",
        ));
    }
    mounted.stop()?;
    let ledger = candor.run(["ledger"])?;
    if ledger.to_lowercase().contains("alarm") {
        return Ok(());
    }
    Err(Failure::new(format!("the ledger has no alarm:\n{ledger}")))
}

/// Changes a byte in all contents that a home's own cell keeps.
pub(super) fn damage_contents(candor: &Candor<'_>) -> Outcome {
    let mut objects = Vec::new();
    collect(&candor.home().join("cell/store/objects"), &mut objects)?;
    for object in &objects {
        let file = fs::OpenOptions::new().read(true).write(true).open(object)?;
        let length = file.metadata()?.len();
        if length < CONTENT_BYTES {
            continue;
        }
        // In the middle of the segments, which leaves the header as it is.
        let middle = length / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle)?;
        file.write_all_at(&[!byte[0]], middle)?;
    }
    Ok(())
}

/// Everything below is either refused or as it was; says how much was refused.
fn compare_or_refuse(shown: &Path, source: &Path) -> Outcome<usize> {
    let Ok(entries) = fs::read_dir(shown) else {
        return Ok(1);
    };
    let mut refused = 0;
    for entry in entries {
        let Ok(entry) = entry else {
            refused += 1;
            continue;
        };
        let original = source.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            refused += compare_or_refuse(&entry.path(), &original)?;
        } else if kind.is_file() {
            match fs::read(entry.path()) {
                Err(_) => refused += 1,
                Ok(bytes) if bytes == fs::read(&original)? => {}
                Ok(_) => {
                    return Err(Failure::new(format!(
                        "{} is shown with other bytes",
                        original.display()
                    )));
                }
            }
        }
    }
    Ok(refused)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    for entry in fs::read_dir(directory).doing(directory.display())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
