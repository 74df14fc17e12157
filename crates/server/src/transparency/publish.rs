//! Publishing: the newest head is signed, offered to the witnesses, and put where everybody reads it.

use std::time::Duration;

use bytes::Bytes;
use candor_log::checkpoint::SignedCheckpoint;
use candor_log::tree::TreeHead;

use super::sequencer::head_of;
use super::signer::SignerError;
use super::witnesses::AskError;
use super::{CHECKPOINT_FILE, LogFault, Published, Transparency};

/// How old a witness's word may get before it is asked again although nothing changed, in seconds.
/// A monitor that sees no newer time knows that something is wrong.
const COSIGNED_AGAIN_SECONDS: u64 = 600;

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
        if !is_new && !self.is_stale(&before) {
            return Ok(false);
        }
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
        self.announce(checkpoint.clone(), head);
        self.report(&checkpoint).await?;
        Ok(true)
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
        self.signer().sign(head, &proof).map_err(LogFault::Signer)
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
        if seen.size > head.size {
            return Err(LogFault::Signer(SignerError::Behind {
                size: head.size,
                signed: seen.size,
            }));
        }
        let proof = self.consistency(seen.size, head).await?;
        proof
            .verify(&seen, &head)
            .map_err(|_| LogFault::Signer(SignerError::Fork))?;
        self.signer().recover(seen).map_err(LogFault::Signer)
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
        let asking = self.witnesses.iter().map(|witness| {
            let prove = |old_size| async move { self.consistency(old_size, head).await.ok() };
            witness.ask(&offered, self.witness_limit(), prove)
        });
        let mut cosigned = 0;
        let answers = futures_util::future::join_all(asking).await;
        for answer in answers {
            match answer {
                Ok(lines) => cosigned += checkpoint.add_lines(&lines, &known),
                // Somebody saw more than this cell has: it was put back, and its signer with it.
                Err(AskError::Ahead(signed)) => {
                    let size = head.size;
                    return Err(LogFault::Signer(SignerError::Behind { size, signed }));
                }
                Err(_) => {}
            }
        }
        Ok(cosigned)
    }

    /// Whether witnesses should be asked again although the head is the same.
    fn is_stale(&self, published: &Published) -> bool {
        let Some(checkpoint) = &published.checkpoint else {
            return true;
        };
        let now_s = u64::try_from(self.now().seconds()).unwrap_or(0);
        self.witnesses.iter().any(|witness| {
            if witness.is_resting() {
                return false;
            }
            checkpoint
                .cosigned_by(witness.key())
                .is_none_or(|time_s| time_s + COSIGNED_AGAIN_SECONDS < now_s)
        })
    }

    fn announce(&self, checkpoint: SignedCheckpoint, head: TreeHead) {
        let mut unpublished = self.unpublished();
        let newest = unpublished.iter().rposition(|map| map.place < head.size);
        if let Some(at) = newest {
            // Earlier versions are never asked for again; the newest stays for comparison.
            unpublished.drain(..at);
        }
        let map = newest.and_then(|_| unpublished.first().cloned());
        drop(unpublished);
        self.published.send_modify(|published| {
            published.checkpoint = Some(checkpoint);
            if map.is_some() {
                published.map = map;
            }
        });
    }

    fn witness_limit(&self) -> Duration {
        Duration::from_secs(u64::from(self.settings.witness_timeout_seconds))
    }
}
