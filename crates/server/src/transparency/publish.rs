//! Publishing: the newest head is signed, offered to the witnesses, and put where everybody reads it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use candor_log::checkpoint::SignedCheckpoint;
use candor_log::tile::{TILE_LEVELS, TILE_WIDTH, bundle_at, tile_at};
use candor_log::tree::TreeHead;

use super::sequencer::head_of;
use super::signer::SignerError;
use super::{CHECKPOINT_FILE, LogFault, Published, PublishedMap, Transparency, Witness};

/// How old a witness's word may get before it is asked again although nothing changed, in seconds.
/// A monitor that sees no newer time knows that something is wrong.
const COSIGNED_AGAIN_SECONDS: u64 = 600;

/// How far back partial files are looked for, in entries: what a cell left that was stopped in between is
/// not far from the end, and the rest of a long log is not looked at again at each start.
const TIDIED_ENTRIES_MAX: u64 = 65_536;

/// The tiles and bundles that became whole while a tree grew.
fn completed(from: u64, to: u64) -> Vec<String> {
    let mut names = Vec::new();
    for level in 0..TILE_LEVELS {
        let span = TILE_WIDTH.pow(u32::from(level) + 1);
        for index in from / span..to / span {
            names.extend(tile_at(level, index, to).map(|tile| tile.path()));
            if level == 0 {
                names.extend(bundle_at(index, to).map(|bundle| bundle.path()));
            }
        }
    }
    names
}

impl Transparency {
    /// Publishes the newest head. Returns whether there was anything new to say.
    pub(super) async fn publish(&self) -> Result<bool, LogFault> {
        let _turn = self.publishing.lock().await;
        let tree = self.records.log_tree().await?;
        let head = head_of(&tree);
        let before = self.published();
        let is_new = before
            .checkpoint
            .as_ref()
            .is_none_or(|checkpoint| checkpoint.head() != head);
        if !is_new {
            self.catch_up_map(&before, head);
        }
        if !is_new && !self.is_stale(&before) {
            return Ok(false);
        }
        // Taken now: while witnesses are waited for, newer ones may push it out.
        let map = self.newest_map(head);
        let mut checkpoint = self.sign(head).await?;
        if let (false, Some(before)) = (is_new, &before.checkpoint) {
            // Whoever is silent today takes nothing away from what was said of the same tree.
            self.keep_cosignatures(&mut checkpoint, before);
        }
        let cosigned = self.cosign(&mut checkpoint, head).await?;
        if !is_new && cosigned == 0 {
            return Ok(false);
        }
        let bytes = Bytes::from(checkpoint.bytes());
        self.files()
            .replace(CHECKPOINT_FILE.to_owned(), bytes)
            .await?;
        self.announce(checkpoint.clone(), map);
        self.report(&checkpoint).await?;
        self.tidy(head).await?;
        Ok(true)
    }

    /// Removes the partial tiles and bundles of which a published tree has the whole ones: every batch
    /// leaves some behind.
    async fn tidy(&self, head: TreeHead) -> Result<(), LogFault> {
        let before = self.tidied.load(Ordering::Relaxed);
        let from = before.max(head.size.saturating_sub(TIDIED_ENTRIES_MAX));
        let names = completed(from, head.size);
        if !names.is_empty() {
            self.files().remove_partial(names).await?;
        }
        self.tidied.store(head.size, Ordering::Relaxed);
        Ok(())
    }

    /// Signs, after proving to the signer that the head continues what it signed last.
    async fn sign(&self, head: TreeHead) -> Result<SignedCheckpoint, LogFault> {
        if self.signer().last().is_none() {
            self.recover_signer(head).await?;
        }
        let last = self.signer().last().unwrap_or_else(TreeHead::empty);
        if head.size < last.size {
            return Err(LogFault::Signer(SignerError::Behind {
                size: head.size,
                signed: last.size,
            }));
        }
        let proof = self.consistency(last.size, head).await?;
        let signed = self.signer().sign(head, &proof).map_err(LogFault::Signer)?;
        self.has_signed.store(true, Ordering::Relaxed);
        Ok(signed)
    }

    /// A signer that lost its memory takes the newest head that most of the witnesses vouch for, if the
    /// log continues it. Without witnesses, or without most of them, it signs nothing.
    async fn recover_signer(&self, head: TreeHead) -> Result<(), LogFault> {
        let origin = self.signer().key().name().to_owned();
        let mut newest: Option<TreeHead> = None;
        let mut answered = 0;
        for witness in &self.witnesses {
            let Ok(seen) = witness.newest(&origin, self.witness_limit()).await else {
                continue;
            };
            if seen.is_signed_by(self.signer().key()).is_err() {
                continue;
            }
            answered += 1;
            if newest.is_none_or(|newest| newest.size < seen.head().size) {
                newest = Some(seen.head());
            }
        }
        let missing = LogFault::Signer(SignerError::Missing);
        let (Some(seen), true) = (newest, answered * 2 > self.witnesses.len()) else {
            return Err(missing);
        };
        self.check_continues(seen, head).await?;
        self.signer().recover(seen).map_err(LogFault::Signer)
    }

    /// Refuses a head that does not continue one that was seen.
    async fn check_continues(&self, seen: TreeHead, head: TreeHead) -> Result<(), LogFault> {
        if seen.size > head.size {
            return Err(LogFault::Signer(SignerError::Behind {
                size: head.size,
                signed: seen.size,
            }));
        }
        let proof = self.consistency(seen.size, head).await?;
        proof
            .verify(&seen, &head)
            .map_err(|_| LogFault::Signer(SignerError::Fork))
    }

    /// A witness claims to have seen what does not go with this head. If it shows a checkpoint that this
    /// log's key signed, nothing is published before that is settled: the cell was put back, and its
    /// signer with it. Otherwise it rests, and the others go on.
    async fn check_claim(&self, witness: &Witness, head: TreeHead) -> Result<(), LogFault> {
        let origin = self.signer().key().name().to_owned();
        if let Ok(seen) = witness.newest(&origin, self.witness_limit()).await {
            let is_own = seen.is_signed_by(self.signer().key()).is_ok();
            if is_own {
                self.check_continues(seen.head(), head).await?;
            }
        }
        witness.rest();
        Ok(())
    }

    /// Takes over what the witnesses said of the same tree before.
    fn keep_cosignatures(&self, checkpoint: &mut SignedCheckpoint, before: &SignedCheckpoint) {
        let known: Vec<_> = self
            .witnesses
            .iter()
            .map(|witness| witness.key().clone())
            .collect();
        let before = before.bytes();
        let text = std::str::from_utf8(&before).unwrap_or_default();
        if let Some((_, lines)) = text.split_once("\n\n") {
            checkpoint.add_lines(lines, &known);
        }
    }

    /// Asks all witnesses at once; says how many cosigned.
    async fn cosign(
        &self,
        checkpoint: &mut SignedCheckpoint,
        head: TreeHead,
    ) -> Result<usize, LogFault> {
        let known: Vec<_> = self
            .witnesses
            .iter()
            .map(|witness| witness.key().clone())
            .collect();
        let offered = checkpoint.clone();
        let offered = &offered;
        let asking = self.witnesses.iter().map(|witness| async move {
            let prove = |old_size| async move { self.consistency(old_size, head).await.ok() };
            let answer = witness.ask(offered, self.witness_limit(), prove).await;
            match answer {
                Err(error) if error.may_know_more() => {
                    self.check_claim(witness, head).await?;
                    Ok(None)
                }
                answer => Ok(answer.ok()),
            }
        });
        let mut cosigned = 0;
        let answers: Vec<Result<_, LogFault>> = futures_util::future::join_all(asking).await;
        for (witness, answer) in self.witnesses.iter().zip(answers) {
            let Some(lines) = answer? else { continue };
            let before = checkpoint.cosigned_by(witness.key());
            cosigned += checkpoint.add_lines(&lines, &known);
            let is_newer = checkpoint.cosigned_by(witness.key()) > before;
            if !is_newer && self.is_stale_by(checkpoint, witness) {
                // It answered, and said nothing: asked again at once, it would say no more.
                witness.rest();
            }
        }
        Ok(cosigned)
    }

    /// Whether witnesses should be asked again although the head is the same.
    fn is_stale(&self, published: &Published) -> bool {
        let Some(checkpoint) = &published.checkpoint else {
            return true;
        };
        self.witnesses
            .iter()
            .any(|witness| !witness.is_resting() && self.is_stale_by(checkpoint, witness))
    }

    /// Whether the word of this witness is missing, or old.
    fn is_stale_by(&self, checkpoint: &SignedCheckpoint, witness: &Witness) -> bool {
        let now_s = u64::try_from(self.now().seconds()).unwrap_or(0);
        checkpoint
            .cosigned_by(witness.key())
            .is_none_or(|time_s| time_s.saturating_add(COSIGNED_AGAIN_SECONDS) < now_s)
    }

    /// The newest version of the state map that is in this tree.
    fn newest_map(&self, head: TreeHead) -> Option<PublishedMap> {
        let mut unpublished = self.unpublished();
        let newest = unpublished.iter().rposition(|map| map.place < head.size)?;
        // Earlier versions are never asked for again; the newest stays for comparison.
        unpublished.drain(..newest);
        unpublished.first().cloned()
    }

    /// A cell that was just started may have published its checkpoint before the map was read: then the
    /// map follows, and does not wait until the tree grows.
    fn catch_up_map(&self, before: &Published, head: TreeHead) {
        let known = before.map.as_ref().map_or(0, |map| map.version);
        let map = self.newest_map(head);
        if let Some(map) = map.filter(|map| map.version > known) {
            self.published
                .send_modify(|published| published.map = Some(map));
        }
    }

    fn announce(&self, checkpoint: SignedCheckpoint, map: Option<PublishedMap>) {
        self.published.send_modify(|published| {
            published.checkpoint = Some(checkpoint);
            if map.is_some() {
                published.map = map;
            }
        });
    }

    fn witness_limit(&self) -> Duration {
        self.settings.witness_wait()
    }
}
