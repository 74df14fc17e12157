//! Tidiness is a test: lengths, leftovers, machine paths, and where lint exceptions may stand.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::sys::{self, Doing, Outcome};

/// Longest source file, in lines: more is two ideas in one file.
const FILE_MAX_LINES: usize = 800;

/// Source files that may be longer, each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Notes to self that must not be committed. Put together here so that this file does not hold them.
const LEFTOVERS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
];

/// Paths that exist on one machine only.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/", "team"),
];

/// Where a ban on sockets, listeners or the environment may be lifted, by the beginning of the path. These
/// are the egress gate, the server's listeners, the program itself, and what only tests link.
const MAY_LIFT_BANS: [&str; 5] = [
    "crates/client/src/egress",
    "crates/server/src/",
    "crates/app/",
    "crates/testkit/",
    "xtask/",
];

/// Files that are not the project's prose or code.
const NOT_OURS: [&str; 5] = [
    "Cargo.lock",
    "fuzz/Cargo.lock",
    "crates/app/src/pages/assets/htmx.min.js",
    "LICENSE-APACHE",
    "LICENSE-MIT",
];

/// Directories of bytes, and of texts that are what they are.
const BYTES: [&str; 2] = ["vectors/", "fuzz/corpus/"];

/// Checks every file of the project.
pub(crate) fn check() -> Outcome {
    let files = sys::project_files()?;
    let mut findings = Vec::new();
    for path in &files {
        let name = path.to_string_lossy();
        let is_bytes = BYTES.iter().any(|beginning| name.starts_with(beginning));
        if NOT_OURS.contains(&name.as_ref()) || is_bytes {
            continue;
        }
        let bytes = fs::read(sys::root().join(path)).doing(path.display())?;
        // What is not text (a picture, a capture) holds no notes and has no lines.
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        check_text(path, &text, &mut findings);
    }
    check_bans(&mut findings)?;
    sys::no_findings("untidy", &findings)?;
    println!("{} files are tidy", files.len());
    Ok(())
}

fn check_text(path: &Path, text: &str, findings: &mut Vec<String>) {
    let name = path.to_string_lossy();
    let is_rust = sys::has_extension(path, "rs");
    let lines = text.lines().count();
    let may_be_long = LONG_FILES.iter().any(|(long, _)| *long == name);
    if is_rust && lines > FILE_MAX_LINES && !may_be_long {
        findings.push(format!("{name}: {lines} lines, more than {FILE_MAX_LINES}"));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(format!("{name}: no line end at the end of the file"));
    }
    for (position, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", position + 1);
        for needle in LEFTOVERS.iter().filter(|needle| line.contains(*needle)) {
            findings.push(format!("{place}: {needle}"));
        }
        for needle in MACHINE_PATHS
            .iter()
            .filter(|needle| names_path(line, needle))
        {
            findings.push(format!("{place}: a path of one machine ({needle})"));
        }
        if is_rust && lifts_a_ban(line) && !may_lift_bans(&name) {
            findings.push(format!(
                "{place}: lifts a ban on sockets or the environment here"
            ));
        }
    }
}

/// Whether a path begins in this line, and is no part of a longer one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "-_.}".contains(letter))
    })
}

fn lifts_a_ban(line: &str) -> bool {
    line.contains(concat!("clippy::disallowed", "_methods"))
        || line.contains(concat!("clippy::disallowed", "_types"))
}

fn may_lift_bans(name: &str) -> bool {
    name.contains("/tests/")
        || MAY_LIFT_BANS
            .iter()
            .any(|beginning| name.starts_with(beginning))
}

/// A crate with a `clippy.toml` of its own replaces the workspace's, so it must repeat every ban.
fn check_bans(findings: &mut Vec<String>) -> Outcome {
    let everywhere = bans(Path::new("clippy.toml"))?;
    for name in ["wire", "consent", "log", "messaging", "lockbox"] {
        let path = Path::new("crates").join(name).join("clippy.toml");
        let exists = sys::root().join("crates").join(name).is_dir();
        if !exists {
            continue;
        }
        let here = bans(&path)?;
        for missing in everywhere.difference(&here) {
            findings.push(format!(
                "{}: does not ban {missing}, which clippy.toml does",
                path.display()
            ));
        }
        for clock in ["std::time::SystemTime::now", "std::time::Instant::now"] {
            if !here.contains(clock) {
                findings.push(format!("{}: does not ban {clock}", path.display()));
            }
        }
    }
    Ok(())
}

fn bans(path: &Path) -> Outcome<BTreeSet<String>> {
    let text = fs::read_to_string(sys::root().join(path)).doing(path.display())?;
    let table: toml::Table = text.parse().doing(path.display())?;
    let lists = ["disallowed-methods", "disallowed-types"];
    let entries = lists
        .iter()
        .filter_map(|list| table.get(*list)?.as_array())
        .flatten();
    Ok(entries
        .filter_map(|entry| entry.get("path")?.as_str().map(str::to_owned))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings_of(path: &str, text: &str) -> usize {
        let mut findings = Vec::new();
        check_text(Path::new(path), text, &mut findings);
        findings.len()
    }

    #[test]
    fn leftovers_and_machine_paths_are_found() {
        assert_eq!(
            findings_of("a.rs", &format!("// {}: later\n", LEFTOVERS[0])),
            1
        );
        assert_eq!(
            findings_of("a.md", &format!("see {}main\n", MACHINE_PATHS[0])),
            1
        );
        assert_eq!(
            findings_of("a.md", &format!("candor{}main\n", MACHINE_PATHS[0])),
            0
        );
        assert_eq!(findings_of("a.rs", "// nothing\n"), 0);
        assert_eq!(findings_of("a.rs", "// no line end"), 1);
    }

    #[test]
    fn long_files_are_found() {
        assert_eq!(findings_of("a.rs", &"\n".repeat(FILE_MAX_LINES)), 0);
        assert_eq!(findings_of("a.rs", &"\n".repeat(FILE_MAX_LINES + 1)), 1);
        assert_eq!(findings_of("a.md", &"\n".repeat(FILE_MAX_LINES + 1)), 0);
    }

    #[test]
    fn bans_are_lifted_in_few_places() {
        let line = concat!("#[expect(clippy::disallowed", "_methods, reason = \"\")]\n");
        assert_eq!(findings_of("crates/vault/src/pack.rs", line), 1);
        assert_eq!(findings_of("crates/client/src/egress/dial.rs", line), 0);
        assert_eq!(findings_of("crates/vault/tests/all.rs", line), 0);
    }
}
