//! The peers: where they come from, and how each does what is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Phase;
use super::contenders::{Contender, Server, below, words};
use crate::sys::{self, Failure, Outcome};
use crate::tools;

/// The version of borg, from its Python package.
const BORG_VERSION: &str = "1.4.5";

/// The Debian release whose restic and rclone are measured where this one's are older.
const DEBIAN_RELEASE: &str = "trixie";

/// Password of every peer's repository: they are measured encrypted, as people use them.
const PASSWORD: &str = "bench";

/// Who is measured beside Candor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Peer {
    Restic,
    Borg,
    Rustic,
    None,
}

/// The peers' programs.
#[derive(Default)]
pub(crate) struct Installed {
    restic: PathBuf,
    rclone: PathBuf,
    borg: PathBuf,
    rustic: PathBuf,
}

/// Installs the peers that are asked for, below the build directory; nothing of the system is changed but for
/// Debian packages that their builds need.
pub(crate) fn install(peers: &[Peer]) -> Outcome<Installed> {
    let directory = sys::target_dir().join("peers");
    fs::create_dir_all(&directory)?;
    let directory = std::path::absolute(directory)?;
    let mut installed = Installed::default();
    if peers.contains(&Peer::Restic) {
        let unpacked = directory.join("debian");
        from_debian(&unpacked, &["restic", "rclone"])?;
        installed.restic = unpacked.join("usr/bin/restic");
        installed.rclone = unpacked.join("usr/bin/rclone");
    }
    if peers.contains(&Peer::Borg) {
        installed.borg = from_python(&directory.join("borg"))?;
    }
    if peers.contains(&Peer::Rustic) {
        let root = directory.join("rustic");
        installed.rustic = root.join("bin/rustic");
        if !installed.rustic.is_file() {
            let build = directory.join("rustic-build");
            let mut install = sys::cargo();
            // Its terminal interface, metrics and web server are left out: they play no part here.
            install.args([
                "install",
                "--locked",
                "--quiet",
                "--no-default-features",
                "rustic-rs",
                "--root",
            ]);
            sys::run(install.arg(&root).arg("--target-dir").arg(&build))?;
            fs::remove_dir_all(build)?;
        }
    }
    Ok(installed)
}

/// Installs Syncthing below the build directory.
pub(crate) fn install_syncthing() -> Outcome<PathBuf> {
    let unpacked = std::path::absolute(sys::target_dir().join("peers").join("debian"))?;
    fs::create_dir_all(&unpacked)?;
    from_debian(&unpacked, &["syncthing"])?;
    Ok(unpacked.join("usr/bin/syncthing"))
}

/// Unpacks Debian packages of a newer release than this machine's, from the mirror that it already uses.
fn from_debian(to: &Path, packages: &[&str]) -> Outcome {
    if packages
        .iter()
        .all(|package| to.join("usr/bin").join(package).is_file())
    {
        return Ok(());
    }
    let work = tempfile::tempdir()?;
    let list = work.path().join("sources.list");
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(
        &list,
        format!(
            "deb [signed-by={keys}] {} {DEBIAN_RELEASE} main\n",
            debian_mirror()?
        ),
    )?;
    let lists = work.path().join("lists");
    fs::create_dir_all(lists.join("partial"))?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.current_dir(work.path()).stdin(Stdio::null());
        for (name, value) in [
            ("Dir::Etc::sourcelist", list.as_path()),
            ("Dir::State::lists", &lists),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        command.args([
            "-o",
            "Dir::Etc::sourceparts=-",
            "-o",
            "APT::Sandbox::User=root",
            "-qq",
        ]);
        command
    };
    sys::run(apt().arg("update"))?;
    sys::run(
        apt().arg("download").args(
            packages
                .iter()
                .map(|package| format!("{package}/{DEBIAN_RELEASE}")),
        ),
    )?;
    for entry in fs::read_dir(work.path())? {
        let path = entry?.path();
        if sys::has_extension(&path, "deb") {
            sys::run(
                Command::new("dpkg-deb")
                    .arg("-x")
                    .args([path.as_path(), to]),
            )?;
        }
    }
    Ok(())
}

/// The address of the mirror in this machine's own list.
fn debian_mirror() -> Outcome<String> {
    let files = [
        "/etc/apt/sources.list.d/debian.sources",
        "/etc/apt/sources.list",
    ];
    let texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    let found = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .find_map(|line| {
            let line = line.trim();
            let after = line
                .strip_prefix("URIs:")
                .or_else(|| line.strip_prefix("deb "))?;
            after
                .split_whitespace()
                .find(|word| word.contains("://") && word.ends_with("/debian"))
                .map(str::to_owned)
        });
    found.ok_or_else(|| Failure::new("no Debian mirror in this machine's list of sources"))
}

fn from_python(environment: &Path) -> Outcome<PathBuf> {
    let borg = environment.join("bin/borg");
    if borg.is_file() {
        return Ok(borg);
    }
    // What its build needs where there is no wheel for this machine.
    tools::install_packages(&[
        "python3-venv",
        "python3-dev",
        "pkg-config",
        "libssl-dev",
        "libacl1-dev",
        "liblz4-dev",
        "libzstd-dev",
        "libxxhash-dev",
    ])?;
    sys::run(
        Command::new("python3")
            .args(["-m", "venv"])
            .arg(environment),
    )?;
    let mut pip = Command::new(environment.join("bin/pip"));
    sys::run(pip.args(["install", "--quiet", &format!("borgbackup=={BORG_VERSION}")]))?;
    Ok(borg)
}

impl Installed {
    /// The peers with repositories on the local disk.
    pub(crate) fn local(&self, peers: &[Peer]) -> Vec<Box<dyn Contender>> {
        let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
        for peer in peers {
            let contender: Box<dyn Contender> = match peer {
                Peer::Restic => Box::new(Restic::local(&self.restic)),
                Peer::Borg => Box::new(Borg {
                    program: self.borg.clone(),
                    directory: PathBuf::new(),
                }),
                Peer::Rustic => Box::new(Rustic {
                    program: self.rustic.clone(),
                    directory: PathBuf::new(),
                }),
                Peer::None => continue,
            };
            contenders.push(contender);
        }
        contenders
    }

    /// restic over HTTP to `rclone serve restic`, where restic is asked for.
    pub(crate) fn over_http(&self, peers: &[Peer]) -> Outcome<Vec<Box<dyn Contender>>> {
        if !peers.contains(&Peer::Restic) {
            return Ok(Vec::new());
        }
        Ok(vec![Box::new(Restic {
            rclone: Some((self.rclone.clone(), None)),
            ..Restic::local(&self.restic)
        })])
    }
}

/// A program with a home of its own, so that its caches are its own too.
fn isolated(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("HOME", directory)
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::null());
    command
}

fn first_line(command: &mut Command) -> Outcome<String> {
    Ok(sys::text(command)?
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

struct Restic {
    program: PathBuf,
    directory: PathBuf,
    /// rclone, and the server while it runs with the address of the repository.
    rclone: Option<(PathBuf, Option<(Server, String)>)>,
}

impl Restic {
    fn local(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            directory: PathBuf::new(),
            rclone: None,
        }
    }

    fn restic(&self) -> Command {
        let mut command = isolated(&self.program, &self.directory);
        command
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_PROGRESS_FPS", "0.01");
        match &self.rclone {
            Some((_, Some((_, address)))) => command.env("RESTIC_REPOSITORY", address),
            _ => command.env("RESTIC_REPOSITORY", self.store()),
        };
        command
    }
}

impl Contender for Restic {
    fn name(&self) -> String {
        if self.rclone.is_some() {
            "restic over HTTP".to_owned()
        } else {
            "restic".to_owned()
        }
    }

    fn version(&self) -> Outcome<String> {
        let own = first_line(Command::new(&self.program).arg("version"))?;
        let Some((rclone, _)) = &self.rclone else {
            return Ok(own);
        };
        Ok(format!(
            "{own}, {}",
            first_line(Command::new(rclone).arg("version"))?
        ))
    }

    fn is_over_network(&self) -> bool {
        self.rclone.is_some()
    }

    fn start(&mut self, directory: &Path, _source: &Path) -> Outcome {
        directory.clone_into(&mut self.directory);
        let store = self.store();
        fs::create_dir_all(&store)?;
        if let Some((rclone, server)) = &mut self.rclone {
            let port = crate::e2e::free_port()?;
            let mut serve = isolated(rclone, directory);
            serve
                .args([
                    "serve",
                    "restic",
                    "-v",
                    "--addr",
                    &format!("127.0.0.1:{port}"),
                ])
                .arg(&store);
            let running = Server::start(serve, &directory.join("rclone.log"), "erving restic")?;
            *server = Some((running, format!("rest:http://127.0.0.1:{port}/")));
        }
        sys::output(self.restic().arg("init")).map(drop)
    }

    fn command(&self, phase: Phase, source: &Path, target: &Path) -> Outcome<Command> {
        let mut command = self.restic();
        match phase {
            Phase::First | Phase::Unchanged | Phase::Mutated => command.arg("backup").arg(source),
            Phase::Restore => command.args(words([&"restore", &"latest", &"--target", &target])),
            Phase::Check => command.args(["check", "--read-data"]),
        };
        Ok(command)
    }

    fn restored(&self, source: &Path, target: &Path) -> PathBuf {
        below(target, source)
    }

    fn store(&self) -> PathBuf {
        self.directory.join("repository")
    }

    fn server(&self) -> Option<u32> {
        let (_, server) = self.rclone.as_ref()?;
        server.as_ref().map(|(server, _)| server.id())
    }

    fn stop(&mut self) -> Outcome {
        if let Some((_, server)) = &mut self.rclone {
            *server = None;
        }
        Ok(())
    }
}

struct Borg {
    program: PathBuf,
    directory: PathBuf,
}

impl Borg {
    fn borg(&self) -> Command {
        let mut command = isolated(&self.program, &self.directory);
        command
            .env("BORG_PASSPHRASE", PASSWORD)
            .env("BORG_REPO", self.store())
            .env("BORG_BASE_DIR", &self.directory);
        command
    }
}

impl Contender for Borg {
    fn name(&self) -> String {
        "borg".to_owned()
    }

    fn version(&self) -> Outcome<String> {
        first_line(Command::new(&self.program).arg("--version"))
    }

    fn is_over_network(&self) -> bool {
        false
    }

    fn start(&mut self, directory: &Path, _source: &Path) -> Outcome {
        directory.clone_into(&mut self.directory);
        sys::output(self.borg().args(["init", "--encryption", "repokey-blake2"])).map(drop)
    }

    fn command(&self, phase: Phase, source: &Path, _target: &Path) -> Outcome<Command> {
        let mut command = self.borg();
        let archive = match phase {
            Phase::First => "::first",
            Phase::Unchanged => "::unchanged",
            Phase::Mutated | Phase::Restore | Phase::Check => "::mutated",
        };
        match phase {
            Phase::First | Phase::Unchanged | Phase::Mutated => command.args(words([
                &"create",
                &"--compression",
                &"zstd,3",
                &archive,
                &source,
            ])),
            Phase::Restore => command.args(["extract", archive]),
            Phase::Check => command.args(["check", "--verify-data"]),
        };
        Ok(command)
    }

    fn restores_here(&self) -> bool {
        true
    }

    fn restored(&self, source: &Path, target: &Path) -> PathBuf {
        below(target, source)
    }

    fn store(&self) -> PathBuf {
        self.directory.join("repository")
    }
}

struct Rustic {
    program: PathBuf,
    directory: PathBuf,
}

impl Rustic {
    fn rustic(&self) -> Command {
        let mut command = isolated(&self.program, &self.directory);
        command
            .env("RUSTIC_REPOSITORY", self.store())
            .env("RUSTIC_PASSWORD", PASSWORD)
            .env("RUSTIC_NO_PROGRESS", "true");
        command
    }
}

impl Contender for Rustic {
    fn name(&self) -> String {
        "rustic".to_owned()
    }

    fn version(&self) -> Outcome<String> {
        first_line(Command::new(&self.program).arg("--version"))
    }

    fn is_over_network(&self) -> bool {
        false
    }

    fn start(&mut self, directory: &Path, _source: &Path) -> Outcome {
        directory.clone_into(&mut self.directory);
        sys::output(self.rustic().arg("init")).map(drop)
    }

    fn command(&self, phase: Phase, source: &Path, target: &Path) -> Outcome<Command> {
        let mut command = self.rustic();
        match phase {
            Phase::First | Phase::Unchanged | Phase::Mutated => command.arg("backup").arg(source),
            Phase::Restore => {
                let snapshot = format!(
                    "latest:{}",
                    source.to_str().ok_or_else(|| Failure::new("an odd path"))?
                );
                command.args(words([&"restore", &snapshot, &target]))
            }
            Phase::Check => command.args(["check", "--read-data"]),
        };
        Ok(command)
    }

    fn restored(&self, _source: &Path, target: &Path) -> PathBuf {
        target.to_owned()
    }

    fn store(&self) -> PathBuf {
        self.directory.join("repository")
    }
}
