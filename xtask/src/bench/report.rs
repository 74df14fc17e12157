//! The figures: medians, and the ratio of ours to the best peer's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Phase;
use super::measure::Usage;

/// Everything measured in one run.
pub(crate) struct Report {
    rounds: usize,
    corpora: Vec<(String, Results)>,
}

/// What was measured on one corpus.
#[derive(Default)]
pub(crate) struct Results {
    contenders: Vec<Entry>,
}

struct Entry {
    name: String,
    version: String,
    is_over_network: bool,
    is_ours: bool,
    usages: BTreeMap<&'static str, Vec<Usage>>,
    stored: Vec<u64>,
}

impl Results {
    /// Adds somebody to the table.
    pub(crate) fn name(
        &mut self,
        name: String,
        version: String,
        is_over_network: bool,
        is_ours: bool,
    ) {
        let (usages, stored) = (BTreeMap::new(), Vec::new());
        self.contenders.push(Entry {
            name,
            version,
            is_over_network,
            is_ours,
            usages,
            stored,
        });
    }

    /// Adds one measurement.
    pub(crate) fn add(&mut self, name: &str, phase: Phase, usage: Usage) {
        if let Some(entry) = self.entry(name) {
            entry.usages.entry(phase.name()).or_default().push(usage);
        }
    }

    /// Adds the size of a repository after the first backup.
    pub(crate) fn add_stored(&mut self, name: &str, bytes: u64) {
        if let Some(entry) = self.entry(name) {
            entry.stored.push(bytes);
        }
    }

    fn entry(&mut self, name: &str) -> Option<&mut Entry> {
        self.contenders.iter_mut().find(|entry| entry.name == name)
    }

    /// One group: those with a local repository, or those with a server.
    fn group(&self, is_over_network: bool) -> Vec<&Entry> {
        self.contenders
            .iter()
            .filter(|entry| entry.is_over_network == is_over_network)
            .collect()
    }
}

impl Entry {
    fn median(&self, phase: Phase, figure: impl Fn(&Usage) -> f64) -> Option<f64> {
        median(self.usages.get(phase.name())?.iter().map(figure).collect())
    }

    /// The largest memory of any phase, and of the server.
    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes of memory fit well enough"
    )]
    fn peak_megabytes(&self) -> Option<f64> {
        let peaks = Phase::ALL
            .iter()
            .filter_map(|phase| self.median(*phase, |usage| usage.peak_bytes as f64));
        peaks.reduce(f64::max).map(|bytes| bytes / 1e6)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes of memory fit well enough"
    )]
    fn server_peak_megabytes(&self) -> Option<f64> {
        let peaks = Phase::ALL
            .iter()
            .filter_map(|phase| self.median(*phase, |usage| usage.server_peak_bytes as f64));
        peaks.reduce(f64::max).map(|bytes| bytes / 1e6)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes of a repository fit well enough"
    )]
    fn stored_megabytes(&self) -> Option<f64> {
        median(
            self.stored
                .iter()
                .map(|bytes| *bytes as f64 / 1e6)
                .collect(),
        )
    }

    fn json(&self) -> Value {
        let phases: serde_json::Map<String, Value> = self
            .usages
            .iter()
            .map(|(phase, usages)| {
                (
                    (*phase).to_owned(),
                    usages.iter().map(Usage::json).collect(),
                )
            })
            .collect();
        json!({ "name": self.name, "version": self.version, "stored_bytes": self.stored, "phases": phases })
    }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

impl Report {
    pub(crate) fn new(rounds: usize) -> Self {
        Self {
            rounds,
            corpora: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, corpus: &str, results: Results) {
        self.corpora.push((corpus.to_owned(), results));
    }

    /// How many phases of how many contenders were measured, in all rounds.
    pub(crate) fn measurements(&self) -> usize {
        let entries = self
            .corpora
            .iter()
            .flat_map(|(_, results)| &results.contenders);
        entries
            .map(|entry| entry.usages.values().map(Vec::len).sum::<usize>())
            .sum()
    }

    /// Every single measurement.
    pub(crate) fn json(&self) -> String {
        let corpora: Vec<Value> = self
            .corpora
            .iter()
            .map(|(corpus, results)| {
                let entries: Vec<Value> = results.contenders.iter().map(Entry::json).collect();
                json!({ "corpus": corpus, "contenders": entries })
            })
            .collect();
        format!(
            "{:#}\n",
            json!({ "version": 1, "rounds": self.rounds, "corpora": corpora })
        )
    }

    /// Prints the tables, one for each corpus and group.
    pub(crate) fn print(&self) {
        for (corpus, results) in &self.corpora {
            for is_over_network in [false, true] {
                let group = results.group(is_over_network);
                if group.is_empty() {
                    continue;
                }
                let setting = if is_over_network {
                    "client and server"
                } else {
                    "local"
                };
                println!(
                    "\n{corpus}, {setting}: medians of {}, CPU seconds of all processes (wall seconds)\n",
                    self.rounds
                );
                print!("{}", table(&group));
                println!();
                for entry in group {
                    println!("{}: {}", entry.name, entry.version);
                }
            }
        }
    }
}

fn table(group: &[&Entry]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut heading = vec![String::new()];
    heading.extend(group.iter().map(|entry| entry.name.clone()));
    heading.push("ratio to best peer".to_owned());
    rows.push(heading);
    for phase in Phase::ALL {
        let cell = |entry: &&Entry| {
            let cpu = entry.median(phase, |usage| usage.cpu_seconds)?;
            let wall = entry.median(phase, |usage| usage.wall_seconds)?;
            Some((cpu, format!("{cpu:.2} ({wall:.2})")))
        };
        rows.push(row(phase.name(), group, cell));
    }
    let megabytes = |value: Option<f64>| value.map(|value| (value, format!("{value:.1} MB")));
    rows.push(row("stored size", group, |entry| {
        megabytes(entry.stored_megabytes())
    }));
    rows.push(row("peak memory, client", group, |entry| {
        megabytes(entry.peak_megabytes())
    }));
    if group.iter().any(|entry| entry.is_over_network) {
        rows.push(row("peak memory, server", group, |entry| {
            megabytes(entry.server_peak_megabytes())
        }));
    }
    aligned(&rows)
}

/// One line: everybody's figure, and ours divided by the best peer's.
fn row(
    name: &str,
    group: &[&Entry],
    figure: impl Fn(&&Entry) -> Option<(f64, String)>,
) -> Vec<String> {
    let mut cells = vec![name.to_owned()];
    let (mut ours, mut best) = (None, None::<f64>);
    for entry in group {
        let Some((value, text)) = figure(entry) else {
            cells.push("-".to_owned());
            continue;
        };
        cells.push(text);
        if entry.is_ours {
            ours = Some(value);
        } else {
            best = Some(best.map_or(value, |best| best.min(value)));
        }
    }
    cells.push(match (ours, best) {
        (Some(ours), Some(best)) if best > 0.0 => format!("{:.2}", ours / best),
        _ => "-".to_owned(),
    });
    cells
}

/// A table with columns of one width each.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(String::len)
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if number == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text.push_str(&format!("| {} |\n", rules.join(" | ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_few() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn the_ratio_is_to_the_best_peer() {
        let mut results = Results::default();
        for (name, is_ours, seconds) in [
            ("candor", true, 2.0),
            ("one", false, 8.0),
            ("two", false, 4.0),
        ] {
            results.name(name.to_owned(), "1".to_owned(), false, is_ours);
            let usage = Usage {
                cpu_seconds: seconds,
                ..Usage::default()
            };
            results.add(name, Phase::First, usage);
        }
        let table = table(&results.group(false));
        let line = table.lines().find(|line| line.contains("first backup"));
        assert!(
            line.is_some_and(|line| line.trim_end_matches(['|', ' ']).ends_with("0.50")),
            "{table}"
        );
    }
}
