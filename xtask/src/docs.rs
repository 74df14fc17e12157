//! Documents: every format with vectors is described, and every link leads somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::{self, Doing, Outcome};

/// Checks `docs/formats` against `vectors/`, and the links of every Markdown file.
pub(crate) fn check() -> Outcome {
    let mut findings = Vec::new();
    let formats = check_formats(&mut findings)?;
    let mut links = 0_usize;
    for path in sys::project_files()?
        .iter()
        .filter(|path| sys::has_extension(path, "md"))
    {
        let text = fs::read_to_string(sys::root().join(path)).doing(path.display())?;
        for target in link_targets(&text) {
            links += 1;
            check_link(path, &text, &target, &mut findings);
        }
    }
    sys::no_findings("documents that do not hold", &findings)?;
    println!("{formats} formats are described, {links} links lead somewhere");
    Ok(())
}

/// Every directory of test vectors is named in a document of `docs/formats`. Returns how many there are.
fn check_formats(findings: &mut Vec<String>) -> Outcome<usize> {
    let vectors = sys::root().join("vectors");
    if !vectors.is_dir() {
        return Ok(0);
    }
    let described = all_text(&sys::root().join("docs/formats"))?;
    let mut count = 0;
    for entry in fs::read_dir(&vectors)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        count += 1;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !described.contains(&format!("vectors/{name}")) {
            findings.push(format!(
                "vectors/{name}: no document of docs/formats names it"
            ));
        }
    }
    Ok(count)
}

fn all_text(directory: &Path) -> Outcome<String> {
    let mut text = String::new();
    for entry in fs::read_dir(directory).doing(directory.display())? {
        let path = entry?.path();
        if sys::has_extension(&path, "md") {
            text.push_str(&fs::read_to_string(&path).doing(path.display())?);
        }
    }
    Ok(text)
}

/// The targets of `[text](target)` outside code.
fn link_targets(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut in_fence = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        if in_fence {
            continue;
        }
        // Text between backquotes is code: every second piece.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        let mut rest = prose.as_str();
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let Some(end) = rest.find(')') else { break };
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            targets.push(target.to_owned());
            rest = &rest[end..];
        }
    }
    targets
}

fn check_link(from: &Path, text: &str, target: &str, findings: &mut Vec<String>) {
    if target.contains("://") || target.starts_with("mailto:") {
        return;
    }
    let (file, anchor) = target
        .split_once('#')
        .map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let place = from.display();
    let (path, text) = if file.is_empty() {
        (from.to_path_buf(), text.to_owned())
    } else {
        let path = from
            .parent()
            .map_or_else(PathBuf::new, Path::to_path_buf)
            .join(file);
        let found = sys::root().join(&path);
        if !found.exists() {
            findings.push(format!("{place}: {target} does not exist"));
            return;
        }
        (path, fs::read_to_string(found).unwrap_or_default())
    };
    let Some(anchor) = anchor else { return };
    if sys::has_extension(&path, "md") && !headings(&text).iter().any(|heading| heading == anchor) {
        findings.push(format!("{place}: {target}: no such heading"));
    }
}

/// The anchors of a Markdown file's headings.
fn headings(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines
        .map(|line| anchor_of(line.trim_start_matches('#').trim()))
        .collect()
}

fn anchor_of(heading: &str) -> String {
    let kept = heading.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ if letter.is_alphanumeric() => Some(letter.to_lowercase().next().unwrap_or(letter)),
        _ => None,
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code() {
        let text = "See [a](b.md#c) and `[x](y)`.\n```\n[no](no.md)\n```\n[d](e.md \"title\")\n";
        assert_eq!(link_targets(text), ["b.md#c", "e.md"]);
    }

    #[test]
    fn a_link_to_nowhere_is_found() {
        let mut findings = Vec::new();
        check_link(Path::new("README.md"), "", "no-such-file.md", &mut findings);
        check_link(
            Path::new("README.md"),
            "# One Heading\n",
            "#one-heading",
            &mut findings,
        );
        check_link(
            Path::new("README.md"),
            "# One Heading\n",
            "#two",
            &mut findings,
        );
        assert_eq!(findings.len(), 2);
    }

    #[test]
    fn anchors_are_made_as_hosts_make_them() {
        assert_eq!(anchor_of("What it is, and isn't"), "what-it-is-and-isnt");
    }
}
