//! The transparency report: what anybody can count in a log, made from its leaves and nothing else.
//!
//! Whoever has the leaves of a checkpoint computes the same bytes: there is no clock, no setting and no
//! word of the operator in it. A cell that publishes another report than its log says is found out by
//! anybody; `e2e/report/recompute.py` does it with none of this code.
//!
//! **What it cannot say.** Statements of accounts and padding are one class, look the same, and nobody
//! can tell them apart without an account's keys. So their number is not the number of statements. And
//! what was never put into the log is in no report: that owners find what was acknowledged to them is
//! [`crate::monitor`]'s part.
//!
//! The format is in `docs/formats/transparency-report.md`.

use core::fmt::Write as _;

use crate::leaf::{Class, Leaf};
use crate::tree::TreeHead;

/// The version of reports that this build writes.
pub const REPORT_VERSION: u8 = 1;

/// What both forms say at their end.
const REMARKS: [&str; 4] = [
    "Sealed leaves are statements of accounts and padding, which look the same.",
    "Nobody can tell them apart without an account's keys: their number is not the number of statements.",
    "Leaves of the other classes are open, and anybody can count them.",
    "What was never put into the log is not counted here.",
];

const fn name_of(class: Class) -> &'static str {
    match class {
        Class::Sealed => "sealed",
        Class::StateMap => "state map",
        Class::Access => "access",
        Class::Move => "move",
        Class::Erasure => "erasure",
        Class::Report => "report",
        Class::Build => "build",
    }
}

/// How many, and from where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// How many leaves.
    pub leaves: u64,
    /// Place of the first and of the last one; for versions of the state map, the first and the
    /// last number. `None` if there is none.
    pub range: Option<(u64, u64)>,
}

impl Count {
    fn add(&mut self, place: u64) {
        self.leaves += 1;
        self.range = Some((self.range.map_or(place, |(first, _)| first), place));
    }
}

/// A fold over the leaves of a log, from the first one on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    size: u64,
    classes: [Count; Class::ALL.len()],
    versions: Count,
    unordered_versions: u64,
}

impl Counts {
    /// Before the first leaf.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the next leaf.
    pub fn add(&mut self, leaf: &Leaf) {
        if let Some(count) = self.classes.get_mut(usize::from(leaf.class.code())) {
            count.add(self.size);
        }
        if leaf.class == Class::StateMap {
            // The first version is 1; the map before it is empty and has no leaf.
            let before = self.versions.range.map_or(0, |(_, last)| last);
            // A label that is no version cannot be decoded from a log; here it counts as version 0.
            let version = leaf.state_map_version().unwrap_or(0);
            if before.checked_add(1) != Some(version) {
                self.unordered_versions += 1;
            }
            self.versions.add(version);
        }
        self.size += 1;
    }

    /// How many leaves were counted.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The leaves of one class.
    pub fn of(&self, class: Class) -> Count {
        let place = usize::from(class.code());
        self.classes.get(place).copied().unwrap_or_default()
    }

    /// The versions of the state map, by number.
    pub const fn versions(&self) -> Count {
        self.versions
    }

    /// How many versions of the state map do not follow from the one before by one. None, in a log that
    /// keeps its rules.
    pub const fn unordered_versions(&self) -> u64 {
        self.unordered_versions
    }
}

/// A report cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Not all leaves of the tree were counted, or more.
    #[error("{counted} leaves were counted of a log of {size}")]
    Size {
        /// How many were counted.
        counted: u64,
        /// How many the tree has.
        size: u64,
    },
    /// No checkpoint has such an origin: it is empty or holds control characters.
    #[error("a log cannot have this origin")]
    Origin,
}

/// The report of one tree of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    origin: String,
    head: TreeHead,
    counts: Counts,
}

impl Report {
    /// The report of the log `origin` up to a tree head. The caller has checked that the leaves which it
    /// counted are those of the tree.
    pub fn new(origin: &str, head: TreeHead, counts: Counts) -> Result<Self, ReportError> {
        if origin.is_empty() || origin.chars().any(char::is_control) {
            return Err(ReportError::Origin);
        }
        if counts.size != head.size {
            return Err(ReportError::Size {
                counted: counts.size,
                size: head.size,
            });
        }
        Ok(Self {
            origin: origin.to_owned(),
            head,
            counts,
        })
    }

    /// What was counted.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// For people: plain text, with a line end after each line.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a `String` cannot fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> core::fmt::Result {
        writeln!(
            out,
            "Candor transparency report, version {REPORT_VERSION}\n"
        )?;
        writeln!(out, "Log:      {}", self.origin)?;
        writeln!(out, "Leaves:   {}", self.head.size)?;
        writeln!(out, "Root:     {}\n", self.head.root.to_base64())?;
        writeln!(
            out,
            "{:<10}{:>15}{:>15}{:>15}",
            "Class", "Leaves", "First", "Last"
        )?;
        for class in Class::ALL {
            let Count { leaves, range } = self.counts.of(class);
            let name = name_of(class);
            match range {
                None => writeln!(out, "{name:<10}{leaves:>15}{:>15}{:>15}", "-", "-")?,
                Some((first, last)) => {
                    writeln!(out, "{name:<10}{leaves:>15}{first:>15}{last:>15}")?;
                }
            }
        }
        let Count { leaves, range } = self.counts.versions;
        out.push('\n');
        match (range, self.counts.unordered_versions) {
            (None, _) => writeln!(out, "State map: no version.")?,
            (Some((first, last)), 0) => writeln!(
                out,
                "State map: versions {first} to {last}, each once and in order."
            )?,
            (Some((first, last)), wrong) => writeln!(
                out,
                "State map: versions {first} to {last}; {wrong} of {leaves} do not follow from the \
                 one before."
            )?,
        }
        writeln!(out, "\n{}", REMARKS.join("\n"))
    }

    /// For programs: JSON (RFC 8259) in one spelling, two spaces for each level, with a line end after
    /// each line.
    pub fn json(&self) -> String {
        let mut out = String::new();
        // Writing into a `String` cannot fail.
        let _ = self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) -> core::fmt::Result {
        writeln!(out, "{{\n  \"report\": \"candor transparency\",")?;
        writeln!(out, "  \"version\": {REPORT_VERSION},")?;
        writeln!(out, "  \"origin\": \"{}\",", escaped(&self.origin))?;
        writeln!(out, "  \"leaves\": {},", self.head.size)?;
        writeln!(out, "  \"root\": \"{}\",", self.head.root.to_base64())?;
        writeln!(out, "  \"classes\": [")?;
        for class in Class::ALL {
            let Count { leaves, range } = self.counts.of(class);
            let (first, last) = json_range(range);
            writeln!(out, "    {{\n      \"code\": {},", class.code())?;
            writeln!(out, "      \"name\": \"{}\",", name_of(class))?;
            writeln!(out, "      \"leaves\": {leaves},")?;
            writeln!(out, "      \"first\": {first},")?;
            writeln!(out, "      \"last\": {last}")?;
            let is_last = usize::from(class.code()) + 1 == Class::ALL.len();
            writeln!(out, "    }}{}", if is_last { "" } else { "," })?;
        }
        let (first, last) = json_range(self.counts.versions.range);
        writeln!(out, "  ],\n  \"state_map\": {{")?;
        writeln!(out, "    \"versions\": {},", self.counts.versions.leaves)?;
        writeln!(out, "    \"first\": {first},")?;
        writeln!(out, "    \"last\": {last},")?;
        let unordered = self.counts.unordered_versions;
        writeln!(out, "    \"not_following\": {unordered}\n  }},")?;
        let remarks = REMARKS.map(|remark| format!("    \"{remark}\""));
        writeln!(out, "  \"remarks\": [\n{}\n  ]\n}}", remarks.join(",\n"))
    }
}

fn json_range(range: Option<(u64, u64)>) -> (String, String) {
    range.map_or_else(
        || ("null".to_owned(), "null".to_owned()),
        |(first, last)| (first.to_string(), last.to_string()),
    )
}

/// A string without control characters, for between the quotes of JSON.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
