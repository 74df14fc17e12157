//! Closing a batch: entries get their places, then their tiles, then the tree moves.

use std::sync::Arc;

use bytes::Bytes;
use candor_log::leaf::Leaf;
use candor_log::state_map::inputs_path;
use candor_log::tile::{Edge, Growth};
use candor_log::tree::{Hash, TreeHead};
use candor_store::log::{
    LOG_BATCH_MAX_ENTRIES, LogEntry, LogTree, STATE_BATCH_MAX_ACCOUNTS, Sequencing,
};

use super::maps::{Maps, NextVersion};
use super::padding::Padding;
use super::source::PublishedFiles;
use super::{LogFault, PublishedMap, Transparency};
use crate::config::LogSettings;

/// Most entries that go into the tree at one time: what a cut round left behind is taken in pieces.
const INTEGRATED_MAX_ENTRIES: usize = 1024;

/// How often a lost race is run again within one round; the next round is a second later.
const RACES_MAX: usize = 8;

/// Maps that are kept until they are published, at most. Whoever publishes needs the newest one in the
/// tree, and no more than a few batches are sequenced before their entries are in the tree.
pub(crate) const UNPUBLISHED_MAX: usize = 8;

/// What came of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round {
    /// The tree moved.
    pub(crate) moved: bool,
    /// The batch was as large as one may be: more may wait.
    pub(crate) full: bool,
}

/// What one process knows of the log, so that it does not read it again for every batch.
pub(crate) struct Sequencer {
    edge: Option<Edge>,
    maps: Maps,
    padding: Padding,
}

impl Sequencer {
    pub(crate) fn new(settings: &LogSettings, padding_secret: [u8; 32]) -> Self {
        let window_ms = i64::from(settings.padding_minutes) * 60_000;
        Self {
            edge: None,
            maps: Maps::new(),
            padding: Padding::new(settings.padding_entries, window_ms, padding_secret),
        }
    }

    /// Finishes what an earlier round left, closes one batch, and takes it into the tree. Whoever
    /// runs it goes on at once after a full batch.
    pub(crate) async fn round(&mut self, log: &Transparency) -> Result<Round, LogFault> {
        let finished = self.integrate(log).await?;
        let full = self.close_batch(log).await?;
        let moved = self.integrate(log).await? || finished;
        Ok(Round { moved, full })
    }

    /// Returns whether the batch was full.
    async fn close_batch(&mut self, log: &Transparency) -> Result<bool, LogFault> {
        let mut padding = None;
        for _ in 0..RACES_MAX {
            let batch = log.records.log_batch().await?;
            if !self
                .maps
                .catch_up(log.records.as_ref(), &batch.tree)
                .await?
            {
                continue;
            }
            self.keep_map(log, &batch.tree);
            let padding = match &padding {
                Some(padding) => padding,
                None => {
                    let due = self.padding.due(log.now(), batch.queued.len());
                    padding.insert(due.map_err(LogFault::Randomness)?)
                }
            };
            let version = self.maps.next(&batch.changed, padding)?;
            let full = batch.queued.len() >= LOG_BATCH_MAX_ENTRIES
                || version.is_some() && batch.changed.len() >= STATE_BATCH_MAX_ACCOUNTS;
            let mut entries = batch.queued;
            entries.extend(padding.iter().map(|entry| entry.leaf.encode()));
            // Labels look random: in their order nothing tells padding from statements.
            entries.sort_unstable();
            let map = version.as_ref().map(|version| {
                entries.push(map_entry(&batch.tree, version));
                version.to_store(entries.len() - 1)
            });
            if entries.is_empty() {
                return Ok(false);
            }
            let sequencing = Sequencing {
                expected: batch.tree,
                entries,
                map,
            };
            if log.records.sequence(sequencing).await? {
                if let Some(version) = version {
                    self.maps.set(batch.tree.map_version + 1, version.map);
                }
                return Ok(full);
            }
        }
        Ok(false)
    }

    /// Hands a version over to whoever publishes, if it is not there yet.
    fn keep_map(&self, log: &Transparency, tree: &LogTree) {
        let mut unpublished = log.unpublished();
        let newest = unpublished.last().map_or(0, |map| map.version);
        if tree.map_version > newest {
            unpublished.push(PublishedMap {
                version: tree.map_version,
                place: tree.map_place,
                map: self.maps.map().clone(),
            });
            let over = unpublished.len().saturating_sub(UNPUBLISHED_MAX);
            unpublished.drain(..over);
        }
    }

    /// Takes sequenced entries into the tree, until all are in it.
    async fn integrate(&mut self, log: &Transparency) -> Result<bool, LogFault> {
        let mut moved = false;
        loop {
            let tree = log.records.log_tree().await?;
            if self.maps.catch_up(log.records.as_ref(), &tree).await? {
                self.keep_map(log, &tree);
            }
            if tree.size >= tree.sequenced {
                return Ok(moved);
            }
            let mut edge = self.edge_at(log, head_of(&tree)).await?;
            let entries = log
                .records
                .sequenced_entries(tree.size, INTEGRATED_MAX_ENTRIES)
                .await?;
            if entries.is_empty() {
                // Another process was faster.
                continue;
            }
            let growth = edge.append(&leaves_of(&entries)?);
            self.write(log, &growth).await?;
            let to = (growth.head.size, growth.head.root.0);
            if log.records.advance((tree.size, tree.root), to).await? {
                moved = true;
            }
            self.edge = Some(edge);
        }
    }

    /// The right edge of the tree, from memory or from the files.
    async fn edge_at(&self, log: &Transparency, head: TreeHead) -> Result<Edge, LogFault> {
        if let Some(edge) = self.edge.as_ref().filter(|edge| edge.head() == head) {
            return Ok(edge.clone());
        }
        let source = PublishedFiles::new(&log.files);
        let loaded = tokio::task::spawn_blocking(move || Edge::load(&source, head)).await;
        let loaded = loaded.map_err(|_| LogFault::Task)?;
        loaded.map_err(LogFault::of_tiles)
    }

    async fn write(&self, log: &Transparency, growth: &Growth) -> Result<(), LogFault> {
        let mut files: Vec<(String, Bytes)> = growth
            .files
            .iter()
            .map(|(resource, bytes)| (resource.path(), Bytes::copy_from_slice(bytes)))
            .collect();
        for inputs in log.records.map_inputs().await? {
            if inputs.place < growth.head.size {
                files.push((inputs_path(inputs.version), inputs.inputs));
            }
        }
        Ok(log.files.put(files).await?)
    }
}

pub(crate) const fn head_of(tree: &LogTree) -> TreeHead {
    TreeHead {
        size: tree.size,
        root: Hash(tree.root),
    }
}

fn map_entry(tree: &LogTree, version: &NextVersion) -> LogEntry {
    Leaf::state_map(tree.map_version + 1, &version.map.root().0).encode()
}

fn leaves_of(entries: &[LogEntry]) -> Result<Vec<Leaf>, LogFault> {
    let decoded = entries.iter().map(|entry| Leaf::decode(entry));
    decoded
        .collect::<Result<_, _>>()
        .map_err(|_| LogFault::Damaged("a sequenced entry is none of the log"))
}

impl Transparency {
    /// Proves, from the files, that `head` continues a head of `old_size` entries.
    pub(super) async fn consistency(
        &self,
        old_size: u64,
        head: TreeHead,
    ) -> Result<candor_log::tree::Consistency, LogFault> {
        let source = PublishedFiles::new(&self.files);
        let proving = tokio::task::spawn_blocking(move || {
            candor_log::tile::Prover::new(&source, head).consistency(old_size)
        });
        let proved = proving.await.map_err(|_| LogFault::Task)?;
        proved.map_err(LogFault::of_tiles)
    }

    pub(super) fn files(&self) -> &Arc<dyn candor_store::LogFiles> {
        &self.files
    }
}
