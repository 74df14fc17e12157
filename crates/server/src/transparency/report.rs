//! The report and the page of the log: made from its entries alone, so that anybody who has them makes
//! the same ones.

use core::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use candor_log::checkpoint::SignedCheckpoint;
use candor_log::leaf::Class;
use candor_log::report::{Counts, Report};
use candor_log::tile::{Prover, TILE_WIDTH, bundle_at};
use candor_log::tree::TreeHead;

use super::source::PublishedFiles;
use super::{LogFault, PAGE_FILE, REPORT_JSON_FILE, REPORT_TEXT_FILE, Transparency};

/// How often the report is written at most. Strangers read it; nothing waits for it.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// What one process has counted, so that it reads no entry twice.
#[derive(Default)]
pub(super) struct Counted {
    counts: Counts,
    written: Option<Instant>,
}

/// Who runs the cell, as everybody may know.
#[derive(Debug, Clone)]
pub(crate) struct AboutCell {
    pub(crate) controller: String,
    pub(crate) region: String,
}

impl Transparency {
    /// Writes the report and the page of a published checkpoint, unless that was done a moment ago.
    pub(super) async fn report(&self, checkpoint: &SignedCheckpoint) -> Result<(), LogFault> {
        let mut counted = self.counted.lock().await;
        if counted
            .written
            .is_some_and(|written| written.elapsed() < REPORT_EVERY)
        {
            return Ok(());
        }
        let head = checkpoint.head();
        counted.counts = self.count(counted.counts.clone(), head).await?;
        let report = Report::new(checkpoint.origin(), head, counted.counts.clone())
            .map_err(|_| LogFault::Damaged("the entries of the log cannot be counted"))?;
        let page = self.page(checkpoint, &report);
        let files = [
            (REPORT_TEXT_FILE, report.text()),
            (REPORT_JSON_FILE, report.json()),
            (PAGE_FILE, page),
        ];
        for (name, text) in files {
            self.files()
                .replace(name.to_owned(), Bytes::from(text))
                .await?;
        }
        counted.written = Some(Instant::now());
        Ok(())
    }

    /// Goes on counting from where `counts` stopped, up to `head`.
    async fn count(&self, counts: Counts, head: TreeHead) -> Result<Counts, LogFault> {
        let source = PublishedFiles::new(self.files());
        let damaged = LogFault::Damaged("the entries of the log do not have its root");
        let counting = tokio::task::spawn_blocking(move || {
            let prover = Prover::new(&source, head);
            let mut counts = if counts.size() <= head.size {
                counts
            } else {
                Counts::new()
            };
            while counts.size() < head.size {
                let Some(bundle) = bundle_at(counts.size() / TILE_WIDTH, head.size) else {
                    return Err(damaged);
                };
                let leaves = prover.leaves(&bundle).map_err(LogFault::of_tiles)?;
                let counted = counts.size() % TILE_WIDTH;
                leaves
                    .iter()
                    .zip(0..)
                    .filter(|(_, place)| *place >= counted)
                    .map(|(leaf, _)| leaf)
                    .for_each(|leaf| counts.add(leaf));
            }
            Ok(counts)
        });
        counting.await.map_err(|_| LogFault::Task)?
    }

    /// The page for people: plain HTML, no script, no foreign address.
    fn page(&self, checkpoint: &SignedCheckpoint, report: &Report) -> String {
        let mut out = String::new();
        // Writing into a `String` cannot fail.
        let _ = self.write_page(&mut out, checkpoint, report);
        out
    }

    fn write_page(
        &self,
        out: &mut String,
        checkpoint: &SignedCheckpoint,
        report: &Report,
    ) -> core::fmt::Result {
        let head = checkpoint.head();
        let (controller, region) = (escaped(&self.about.controller), escaped(&self.about.region));
        let key = escaped(&self.signer().key().to_string());
        write!(out, "{PAGE_HEAD}")?;
        writeln!(out, "<h1>The public log of a Candor cell</h1>")?;
        writeln!(
            out,
            "<p>Run by <strong>{controller}</strong>, region <strong>{region}</strong>. Everything that \
             this cell acknowledged to somebody is in this log as a sealed entry: it says nothing to \
             strangers, and its owner can prove it to anybody. Nothing can be taken out or changed later \
             without everybody being able to notice.</p>"
        )?;
        writeln!(out, "<table>")?;
        writeln!(out, "<tr><th>Entries</th><td>{}</td></tr>", head.size)?;
        writeln!(
            out,
            "<tr><th>Root</th><td><code>{}</code></td></tr>",
            head.root.to_base64()
        )?;
        writeln!(out, "<tr><th>Key</th><td><code>{key}</code></td></tr>")?;
        self.write_witnesses(out, checkpoint)?;
        writeln!(out, "</table>\n<h2>What is in it</h2>\n<table>")?;
        for class in Class::ALL {
            let leaves = report.counts().of(class).leaves;
            writeln!(out, "<tr><th>{}</th><td>{leaves}</td></tr>", words(class))?;
        }
        writeln!(out, "</table>")?;
        write!(out, "{PAGE_TAIL}")
    }

    fn write_witnesses(
        &self,
        out: &mut String,
        checkpoint: &SignedCheckpoint,
    ) -> core::fmt::Result {
        if self.witnesses.is_empty() {
            return writeln!(
                out,
                "<tr><th>Witnesses</th><td>none: nobody else confirms that everybody is shown the same \
                 log</td></tr>"
            );
        }
        for witness in &self.witnesses {
            let name = escaped(witness.key().name());
            let seen = match checkpoint.cosigned_by(witness.key()) {
                Some(time_s) => format!("confirmed at {time_s} (seconds since 1970)"),
                None => "did not confirm this state".to_owned(),
            };
            writeln!(out, "<tr><th>Witness {name}</th><td>{seen}</td></tr>")?;
        }
        Ok(())
    }
}

const fn words(class: Class) -> &'static str {
    match class {
        Class::Sealed => "Sealed entries (statements and padding, which nobody can tell apart)",
        Class::StateMap => "Versions of the state map",
        Class::Access => "Accesses to personal data by somebody other than its owner",
        Class::Move => "Moves of accounts",
        Class::Erasure => "Erasures",
        Class::Report => "Reports",
        Class::Build => "Builds of the program",
    }
}

/// As text in HTML, and between double quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

const PAGE_HEAD: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>Public log</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
th { text-align: left; vertical-align: top; padding-right: 1rem; font-weight: 600; }
td { overflow-wrap: anywhere; }
</style>
";

const PAGE_TAIL: &str = "<h2>Check it yourself</h2>
<p>The log follows the public C2SP formats, so any verifier of tiled transparency logs works:
<a href=\"checkpoint\">checkpoint</a>, tiles below <code>tile/</code>, entries below <code>tile/entries/</code>.
The inputs of the state map are below <code>map/</code>. The report, as <a href=\"report.txt\">text</a> and
<a href=\"report.json\">JSON</a>, is made from the entries alone: whoever has them makes the same one.</p>
<p>What this log cannot show: what an operator does with what it sees anyway (network addresses, times, sizes),
and whether somebody kept another copy of sealed data.</p>
</html>
";
