//! Cargo.lock against a local copy of the RustSec advisory database.
//!
//! An advisory is a Markdown file that opens with a fenced TOML block:
//! `[advisory]` names the package, `[versions]` lists `patched` and `unaffected` ranges. A locked version is
//! vulnerable when no range of either list holds it. Withdrawn and purely informational ones are told, not failed.

use std::fs;
use std::path::{Path, PathBuf};

use semver::{Version, VersionReq};
use toml::{Table, Value};

use crate::sys::{self, Doing, Failure, Outcome};

/// One advisory, as far as it matters here.
struct Advisory {
    id: String,
    package: String,
    is_informational: bool,
    is_withdrawn: bool,
    safe: Vec<VersionReq>,
}

/// Fails when a locked crate is named by an advisory that is not patched in its version.
pub(crate) fn check(database: &Path) -> Outcome {
    let locked = locked_packages()?;
    let crates = database.join("crates");
    let mut files = Vec::new();
    markdown_files(if crates.is_dir() { &crates } else { database }, &mut files)?;
    if files.is_empty() {
        return Err(Failure::new(format!(
            "no advisories under {}",
            database.display()
        )));
    }
    let mut findings = Vec::new();
    let mut read = 0_usize;
    for file in &files {
        let text = fs::read_to_string(file).doing(file.display())?;
        let Some(advisory) = parse(&text).doing(file.display())? else {
            continue;
        };
        read += 1;
        for (name, version) in &locked {
            if !advisory.concerns(name, version) {
                continue;
            }
            let line = format!("{}: {name} {version}", advisory.id);
            if advisory.is_informational {
                println!("note: {line} (informational)");
            } else {
                findings.push(line);
            }
        }
    }
    sys::no_findings("vulnerable crates", &findings)?;
    println!(
        "{} locked crates, {read} advisories, none applies",
        locked.len()
    );
    Ok(())
}

impl Advisory {
    fn concerns(&self, name: &str, version: &Version) -> bool {
        self.package == name
            && !self.is_withdrawn
            && !self.safe.iter().any(|range| holds(range, version))
    }
}

/// Ranges of advisories hold pre-releases by their order, which `semver` alone does not.
fn holds(range: &VersionReq, version: &Version) -> bool {
    if range.matches(version) {
        return true;
    }
    let is_pre_release = !version.pre.is_empty();
    is_pre_release
        && range.matches(&Version::new(version.major, version.minor, version.patch))
        && !range.comparators.is_empty()
        && {
            // A pre-release of the first patched version comes before it, and is not patched.
            !range.comparators.iter().any(|comparator| {
                comparator.major == version.major
                    && comparator.minor == Some(version.minor)
                    && comparator.patch == Some(version.patch)
            })
        }
}

fn locked_packages() -> Outcome<Vec<(String, Version)>> {
    let path = sys::root().join("Cargo.lock");
    let lock: Table = fs::read_to_string(&path)
        .doing("Cargo.lock")?
        .parse()
        .doing("Cargo.lock")?;
    let packages = lock
        .get("package")
        .and_then(Value::as_array)
        .ok_or_else(|| Failure::new("Cargo.lock: no packages"))?;
    let mut locked = Vec::new();
    for package in packages
        .iter()
        .filter(|package| package.get("source").is_some())
    {
        let field = |name| {
            package
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let version = Version::parse(field("version")).doing(field("name"))?;
        locked.push((field("name").to_owned(), version));
    }
    Ok(locked)
}

fn markdown_files(directory: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    for entry in fs::read_dir(directory).doing(directory.display())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            markdown_files(&path, files)?;
        } else if sys::has_extension(&path, "md") {
            files.push(path);
        }
    }
    Ok(())
}

/// The advisory of a file, or nothing where the file is no advisory.
fn parse(text: &str) -> Outcome<Option<Advisory>> {
    let Some(block) = front_matter(text) else {
        return Ok(None);
    };
    let table: Table = block.parse().doing("front matter")?;
    let Some(advisory) = table.get("advisory").and_then(Value::as_table) else {
        return Ok(None);
    };
    let field = |name| advisory.get(name).and_then(Value::as_str);
    let (Some(id), Some(package)) = (field("id"), field("package")) else {
        return Err(Failure::new("an advisory without id or package"));
    };
    let mut safe = Vec::new();
    for list in ["patched", "unaffected"] {
        let ranges = table
            .get("versions")
            .and_then(|versions| versions.get(list))
            .and_then(Value::as_array);
        for range in ranges.into_iter().flatten().filter_map(Value::as_str) {
            safe.push(VersionReq::parse(range).doing(range)?);
        }
    }
    Ok(Some(Advisory {
        id: id.to_owned(),
        package: package.to_owned(),
        is_informational: advisory.contains_key("informational"),
        is_withdrawn: advisory.contains_key("withdrawn"),
        safe,
    }))
}

fn front_matter(text: &str) -> Option<&str> {
    let start = text.find("```toml")? + "```toml".len();
    let length = text[start..].find("\n```")?;
    Some(&text[start..start + length])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ADVISORY: &str = "```toml\n[advisory]\nid = \"X-1\"\npackage = \"thing\"\ndate = \"2026-01-01\"\n\
        \n[versions]\npatched = [\">= 1.2.3\"]\nunaffected = [\"< 1.0.0\"]\n```\n\n# Title\n";

    fn concerns(version: &str) -> bool {
        let advisory = parse(ADVISORY).unwrap().unwrap();
        advisory.concerns("thing", &Version::parse(version).unwrap())
    }

    #[test]
    fn ranges_are_read() {
        assert!(concerns("1.0.0"));
        assert!(concerns("1.2.2"));
        assert!(!concerns("1.2.3"));
        assert!(!concerns("0.9.9"));
        assert!(concerns("1.2.3-alpha.1"));
        assert!(!concerns("1.3.0-alpha.1"));
    }

    #[test]
    fn other_files_are_no_advisories() {
        assert!(parse("# Readme\n").unwrap().is_none());
        assert!(parse("```toml\n[advisory]\nid = \"X\"\n```\n").is_err());
    }
}
