//! The threat table against the suite: a row says *closed* only while a test named by it stands.
//!
//! Rows are the lines `| A7 | … | closed |` of `docs/threat-model.md`. A test belongs to a row by its name:
//! `a07_reordered_chunks` belongs to A7, `c06_…` to C6.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;

use crate::sys::{self, Doing, Outcome};

const TABLE: &str = "docs/threat-model.md";

/// How many rows each part has. Rows are added at the end and never removed, so that names stay true.
const PARTS: [(char, u32); 4] = [('A', 53), ('B', 30), ('C', 6), ('D', 32)];

/// How many lines above a function its `#[test]` may stand.
const ATTRIBUTE_LINES: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Row {
    part: char,
    number: u32,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.part, self.number)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Closed,
}

#[derive(Debug)]
struct Threat {
    title: String,
    capability: String,
    state: State,
}

type Table = BTreeMap<Row, Threat>;
type Tests = BTreeMap<Row, BTreeSet<String>>;

/// Checks the table and the tests against each other.
pub(crate) fn check() -> Outcome {
    let (table, mut findings) = read_table()?;
    let tests = read_tests()?;
    findings.extend(compare(&table, &tests));
    sys::no_findings("the threat table and the suite disagree", &findings)?;
    let closed = table
        .values()
        .filter(|threat| threat.state == State::Closed)
        .count();
    let named: usize = tests.values().map(BTreeSet::len).sum();
    println!(
        "{} rows: {closed} closed, {} open; {named} tests named by row",
        table.len(),
        table.len() - closed
    );
    let early = table
        .iter()
        .filter(|(row, threat)| threat.state == State::Open && tests.contains_key(row))
        .map(|(row, _)| row.to_string())
        .collect::<Vec<_>>();
    if !early.is_empty() {
        println!("open, with tests already: {}", early.join(", "));
    }
    Ok(())
}

/// Prints every row with its tests.
pub(crate) fn list() -> Outcome {
    let (table, findings) = read_table()?;
    let tests = read_tests()?;
    for (row, threat) in &table {
        let state = if threat.state == State::Closed {
            "closed"
        } else {
            "open"
        };
        println!(
            "{row:<4} {state:<6} {:<9} {}",
            threat.capability, threat.title
        );
        for test in tests.get(row).into_iter().flatten() {
            println!("{:>22} {test}", "");
        }
    }
    sys::no_findings("rows that cannot be read", &findings)
}

fn compare(table: &Table, tests: &Tests) -> Vec<String> {
    let mut findings = Vec::new();
    for (part, count) in PARTS {
        for number in 1..=count {
            let row = Row { part, number };
            if !table.contains_key(&row) {
                findings.push(format!("{row}: not in {TABLE}"));
            }
        }
    }
    for (row, threat) in table {
        if threat.state == State::Closed && !tests.contains_key(row) {
            findings.push(format!(
                "{row} ({}): closed, but no test is named by it",
                threat.title
            ));
        }
    }
    for (row, names) in tests.iter().filter(|(row, _)| !table.contains_key(row)) {
        for name in names {
            findings.push(format!("{name}: {row} is no row of {TABLE}"));
        }
    }
    findings
}

fn read_table() -> Outcome<(Table, Vec<String>)> {
    let text = fs::read_to_string(sys::root().join(TABLE)).doing(TABLE)?;
    Ok(parse_table(&text))
}

/// The rows, and what is wrong with lines that look like rows and are none.
fn parse_table(text: &str) -> (Table, Vec<String>) {
    let mut table = Table::new();
    let mut findings = Vec::new();
    for (position, line) in text.lines().enumerate() {
        let Some((row, cells)) = row_cells(line) else {
            continue;
        };
        let place = format!("{TABLE}:{}: {row}", position + 1);
        let [_, _, title, _, capability, state] = cells.as_slice() else {
            findings.push(format!("{place}: {} cells instead of 6", cells.len()));
            continue;
        };
        let state = match *state {
            "open" => State::Open,
            "closed" => State::Closed,
            other => {
                findings.push(format!(
                    "{place}: state {other:?}, neither `open` nor `closed`"
                ));
                continue;
            }
        };
        let threat = Threat {
            title: (*title).to_owned(),
            capability: (*capability).to_owned(),
            state,
        };
        if table.insert(row, threat).is_some() {
            findings.push(format!("{place}: twice"));
        }
    }
    (table, findings)
}

fn row_cells(line: &str) -> Option<(Row, Vec<&str>)> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
    let mut letters = cells.first()?.chars();
    let part = letters.next()?;
    let number = letters.as_str().parse().ok()?;
    PARTS
        .iter()
        .any(|(known, _)| *known == part)
        .then_some((Row { part, number }, cells))
}

fn read_tests() -> Outcome<Tests> {
    let mut tests = Tests::new();
    for path in sys::project_files()?
        .iter()
        .filter(|path| sys::has_extension(path, "rs"))
    {
        let text = fs::read_to_string(sys::root().join(path)).doing(path.display())?;
        for (row, name) in row_tests(&text) {
            tests
                .entry(row)
                .or_default()
                .insert(format!("{}: {name}", path.display()));
        }
    }
    Ok(tests)
}

/// The tests of one source file that are named by a row.
fn row_tests(text: &str) -> Vec<(Row, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (position, line) in lines.iter().enumerate() {
        let Some((row, name)) = row_of_function(line) else {
            continue;
        };
        let above = &lines[position.saturating_sub(ATTRIBUTE_LINES)..position];
        // Attributes stand directly above, after the end of whatever came before.
        let attributes = above.iter().rev().take_while(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('}')
        });
        let attributes: Vec<&str> = attributes.map(|line| line.trim()).collect();
        let is_test = attributes
            .iter()
            .any(|line| line.starts_with("#[") && line.contains("test"));
        let is_ignored = attributes.iter().any(|line| line.starts_with("#[ignore"));
        if is_test && !is_ignored {
            found.push((row, name));
        }
    }
    found
}

/// The row and name of `fn a07_reordered_chunks`.
fn row_of_function(line: &str) -> Option<(Row, String)> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    let signature = line.strip_prefix("fn ")?;
    let end = signature.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
    let name = &signature[..end];
    let (head, _) = name.split_once('_')?;
    let mut letters = head.chars();
    let part = letters.next()?.to_ascii_uppercase();
    let digits = letters.as_str();
    if digits.len() != 2 || !PARTS.iter().any(|(known, _)| *known == part) {
        return None;
    }
    Some((
        Row {
            part,
            number: digits.parse().ok()?,
        },
        name.to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test functions as text, put together so that this file's own text is not taken for them.
    fn function(attribute: &str, name: &str) -> String {
        format!("    {attribute}\n    {} {name}() {{}}\n", "fn")
    }

    #[test]
    fn only_tests_count() {
        let text = [
            function("#[test]", "a07_reordered"),
            function("#[tokio::test]", "b12_officer"),
            function("// helper", "a08_helper"),
            function("#[test]\n    #[ignore]", "a09_ignored"),
            function("#[test]", "a1_short"),
        ]
        .join("\n");
        let rows: Vec<String> = row_tests(&text)
            .iter()
            .map(|(row, _)| row.to_string())
            .collect();
        assert_eq!(rows, ["A7", "B12"]);
    }

    fn closed_row() -> Table {
        parse_table("| A7 | S | Reordered | refused | backup | closed |\n").0
    }

    #[test]
    fn a_closed_row_needs_a_test() {
        let says = |findings: &[String]| {
            findings
                .iter()
                .any(|finding| finding.contains("closed, but"))
        };
        assert!(says(&compare(&closed_row(), &Tests::new())));
        let row = Row {
            part: 'A',
            number: 7,
        };
        let tests = Tests::from([(row, BTreeSet::from(["a07_reordered".to_owned()]))]);
        assert!(!says(&compare(&closed_row(), &tests)));
    }

    #[test]
    fn rows_that_are_missing_or_unknown_are_found() {
        let findings = compare(&closed_row(), &Tests::new());
        assert!(
            findings
                .iter()
                .any(|finding| finding.starts_with("A8: not in"))
        );
        let row = Row {
            part: 'A',
            number: 54,
        };
        let tests = Tests::from([(row, BTreeSet::from(["a54_unknown".to_owned()]))]);
        assert!(
            compare(&closed_row(), &tests)
                .iter()
                .any(|finding| finding.contains("is no row"))
        );
    }

    #[test]
    fn bad_rows_are_found() {
        assert_eq!(
            parse_table("| A7 | S | x | y | backup | maybe |\n").1.len(),
            1
        );
        assert_eq!(parse_table("| A7 | S | x | closed |\n").1.len(), 1);
        assert!(parse_table("| Row | By | Attack |\n").1.is_empty());
    }
}
