//! What the suite needs beside Rust, and how it gets there.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::sys::{self, Failure, Outcome};

/// A cargo subcommand that the suite runs, at the version that is installed where none is found.
struct CargoTool {
    program: &'static str,
    package: &'static str,
    version: &'static str,
}

const CARGO_TOOLS: [CargoTool; 2] = [
    CargoTool {
        program: "cargo-nextest",
        package: "cargo-nextest",
        version: "0.9.143",
    },
    CargoTool {
        program: "cargo-deny",
        package: "cargo-deny",
        version: "0.20.2",
    },
];

/// What changes code and looks whether a test notices.
const MUTANTS: CargoTool = CargoTool {
    program: "cargo-mutants",
    package: "cargo-mutants",
    version: "27.1.0",
};

/// Programs of the system that the suite starts, and the Debian package of each.
pub(crate) const SUITE_PROGRAMS: [(&str, &str); 13] = [
    ("git", "git"),
    ("tcpdump", "tcpdump"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("rsync", "rsync"),
    ("setfacl", "acl"),
    ("setfattr", "attr"),
    ("diff", "diffutils"),
    ("gzip", "gzip"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("python3", "python3"),
];

/// Programs that look at the pages, and the Debian package of each. Large, so that only who runs that scenario gets them.
pub(crate) const PAGES_PROGRAMS: [(&str, &str); 3] =
    [("chromium", "chromium"), ("node", "nodejs"), ("npm", "npm")];

/// Installs what is missing for the whole suite.
pub(crate) fn install_all() -> Outcome {
    install_programs(&SUITE_PROGRAMS)?;
    for tool in &CARGO_TOOLS {
        install_cargo_tool(tool)?;
    }
    Ok(())
}

/// Installs what `cargo xtask mutants` runs.
pub(crate) fn install_mutants() -> Outcome {
    install_cargo_tool(&MUTANTS)
}

fn cargo_bin_directory() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
    Some(home.join("bin"))
}

fn is_installed(program: &str) -> bool {
    sys::find_program(program).is_some()
        || cargo_bin_directory().is_some_and(|directory| directory.join(program).is_file())
}

fn install_cargo_tool(tool: &CargoTool) -> Outcome {
    if is_installed(tool.program) {
        println!("{} is here", tool.program);
        return Ok(());
    }
    println!(
        "{} is missing; building version {} (several minutes, once)",
        tool.program, tool.version
    );
    // A target directory of its own: otherwise cargo builds in a temporary one and a stopped build starts over.
    let build = sys::target_dir().join("tools-build");
    sys::run(
        sys::cargo()
            .args([
                "install",
                "--locked",
                "--quiet",
                tool.package,
                "--version",
                tool.version,
            ])
            .arg("--target-dir")
            .arg(build),
    )
}

/// Installs the Debian packages of those programs that are missing.
pub(crate) fn install_programs(programs: &[(&str, &str)]) -> Outcome {
    let mut packages: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| sys::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        println!("the system's programs are here");
        return Ok(());
    }
    install_packages(&packages)
}

/// Installs Debian packages by name.
pub(crate) fn install_packages(packages: &[&str]) -> Outcome {
    let wanted = packages.join(" ");
    if sys::find_program("apt-get").is_none() {
        return Err(Failure::new(format!(
            "these are missing and this is no Debian system: install what provides {wanted}"
        )));
    }
    refresh_packages()?;
    let mut install =
        administrator(&["apt-get", "install", "-y", "-qq", "--no-install-recommends"])?;
    sys::run(install.args(packages))
}

/// Brings the list of Debian packages up to date.
pub(crate) fn refresh_packages() -> Outcome {
    sys::run(&mut administrator(&["apt-get", "update", "-qq"])?)
}

/// A command with the rights to install packages.
fn administrator(words: &[&str]) -> Outcome<Command> {
    let mut command = if sys::is_root() {
        Command::new(words[0])
    } else if can_sudo() {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", words[0]]);
        sudo
    } else {
        return Err(Failure::new(format!(
            "packages are missing and this user may not install them; as root: {}",
            words.join(" ")
        )));
    };
    command
        .args(&words[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    Ok(command)
}

fn can_sudo() -> bool {
    Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
