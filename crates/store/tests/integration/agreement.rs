//! Two engines that are asked the same give the same answers: random sequences of operations over
//! few names, so that they meet each other often.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use candor_store::erasures::{ErasureAsk, ErasureChange, ErasureEnd, RowsToErase};
use candor_store::log::{
    LOG_ENTRY_BYTES, LogBatch, LogEntry, LogTree, MapChange, MapVersion, Sequencing,
};
use candor_store::memory::MemoryRecords;
use candor_store::records::{RESERVATION_MAX_MS, RootKeyHash};
use candor_store::{
    AccountOpening, AccountState, ChainAppend, ChainRow, ChainTip, Erasures, Head, HeadMark,
    HeadSwap, Invitation, LogRecords, NonceUse, ObjectKey, Pending, Records, RecordsError,
    Reservation, SecretHash, SqliteRecords,
};
use candor_wire::ids::{Link, RequestNonce};
use candor_wire::{AccountId, DeviceId, Millis, ObjectId, StatementId, VaultId};

/// Operations of one sequence.
const STEPS: u64 = 600;

/// Sequences. The seed of each is its number, so that one that fails can be run again.
const SEEDS: u64 = 8;

/// What the sequences must have come across together, or they prove little.
const SEEN: &[&str] = &[
    "Opened",
    "InvitationUsed",
    "InvitationExpired",
    "RootKeyTaken",
    "Appended",
    "Conflict",
    "Swapped",
    "AlreadyThere",
    "NotNewer",
    "Reserved",
    "AlreadyStored",
    "OverQuota",
    "Releasing",
    "Confirmed",
    "NotReserved",
    "true",
    "ObjectKey",
    "is frozen",
    "is not here",
    "another size",
    "Missing(",
    "made before",
    "no rows",
    "is queued already",
    "queued ()",
    "again ()",
    "anew ()",
    "sequenced true",
    "sequenced false",
    "without entries",
    "is not in its batch",
    "without changes",
    "ErasureBegun",
    "begun Some",
    "begun None",
    "let go 1",
    "rows Erased",
    "rows ObjectsLeft",
    "rows NotBegun",
    "finished true",
    "finished false",
    "swept 0",
    "advanced true",
    "advanced false",
    "only grows",
];

/// What both engines are.
trait Engine: Records + LogRecords + Erasures {}

impl<S: Records + LogRecords + Erasures> Engine for S {}

/// Numbers that follow from a seed.
struct Choices {
    seed: u64,
    drawn: u64,
}

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        let hash = blake3::hash(&[self.seed.to_le_bytes(), self.drawn.to_le_bytes()].concat());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap()) % bound
    }

    fn byte(&mut self, bound: u64) -> u8 {
        u8::try_from(self.below(bound)).unwrap()
    }

    fn account(&mut self) -> AccountId {
        AccountId::from_bytes([self.byte(3); 16])
    }

    /// One that nobody has.
    fn fresh_account(&mut self) -> AccountId {
        let (high, low) = (self.below(u64::MAX), self.below(u64::MAX));
        AccountId::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    fn vault(&mut self) -> VaultId {
        VaultId::from_bytes([self.byte(2); 16])
    }

    fn expected_chain(&mut self) -> Option<Link> {
        (self.below(4) == 0).then(|| self.row(0).link)
    }

    fn expected_heads(&mut self) -> Option<Vec<(VaultId, HeadMark)>> {
        let some = (0..self.below(2)).map(|vault| {
            let vault = VaultId::from_bytes([u8::try_from(vault).unwrap(); 16]);
            (vault, self.mark())
        });
        let some = some.collect();
        (self.below(4) == 0).then_some(some)
    }

    fn object(&mut self) -> ObjectId {
        ObjectId::from_bytes([self.byte(6); 32])
    }

    fn key(&mut self) -> ObjectKey {
        ObjectKey {
            account: self.account(),
            vault: self.vault(),
            object: self.object(),
        }
    }

    fn now(&mut self, step: u64) -> Millis {
        // Often enough, a reservation is old by the next step.
        let leap = i64::try_from(self.below(3) * step).unwrap();
        Millis(leap * RESERVATION_MAX_MS / 20)
    }

    fn nonce(&mut self, now: Millis) -> Option<NonceUse> {
        (self.below(3) > 0).then(|| NonceUse {
            device: DeviceId::from_bytes([self.byte(2); 16]),
            nonce: RequestNonce::from_bytes([self.byte(250); 16]),
            seen_at: now,
        })
    }

    fn row(&mut self, sequence: u64) -> ChainRow {
        ChainRow {
            sequence,
            // Kind of a consent, which an erasure replaces.
            kind: 4,
            link: Link::from_bytes([self.byte(3); 32]),
            commitment: StatementId::from_bytes([self.byte(255); 32]),
            record: Bytes::from(vec![1; usize::from(self.byte(50))]),
            acknowledgement: Bytes::new(),
        }
    }

    fn entry(&mut self) -> LogEntry {
        [self.byte(60); LOG_ENTRY_BYTES]
    }

    fn entries(&mut self) -> Vec<LogEntry> {
        (0..self.below(3)).map(|_| self.entry()).collect()
    }

    /// Most are of a changed account, with the stamp that it has.
    fn map_change(&mut self, batch: &LogBatch) -> MapChange {
        let some = self.below(4) as usize;
        let (account, stamp) = match batch.changed.get(some) {
            Some(changed) => (changed.account, changed.stamp - self.below(2)),
            None => (AccountId::from_bytes([self.byte(5); 16]), self.below(3)),
        };
        MapChange {
            account,
            stamp,
            key: [account.as_bytes()[0]; 32],
            value: [self.byte(255); 32],
            state: Bytes::from(vec![2; usize::from(self.byte(20))]),
        }
    }

    fn sequencing(&mut self, batch: LogBatch) -> Sequencing {
        let mut expected = batch.tree;
        if self.below(4) == 0 {
            expected.sequenced += self.below(2);
            expected.map_version = expected.map_version.saturating_sub(self.below(2));
            expected.size += self.below(2);
        }
        let map = (self.below(2) == 0).then(|| MapVersion {
            changes: (0..self.below(4))
                .map(|_| self.map_change(&batch))
                .collect(),
            root: [self.byte(255); 32],
            entry: self.below(4) as usize,
            inputs: Bytes::from(vec![3; usize::from(self.byte(20))]),
        });
        let queued = batch.queued.into_iter().filter(|_| self.below(4) > 0);
        let mut entries: Vec<LogEntry> = queued.collect();
        entries.extend(self.entries());
        Sequencing {
            expected,
            entries,
            map,
        }
    }

    /// A tree that grows from where it is, often enough.
    fn growth(&mut self, tree: &LogTree) -> ((u64, [u8; 32]), (u64, [u8; 32])) {
        let mut from = (tree.size, tree.root);
        if self.below(6) == 0 {
            from = (self.below(3), [self.byte(4); 32]);
        }
        let by = self.below(tree.sequenced - tree.size + 2);
        (from, (tree.size + by, [self.byte(4); 32]))
    }

    fn asked(&mut self) -> StatementId {
        StatementId::from_bytes([self.byte(4); 32])
    }

    fn erasures(&mut self, now: Millis) -> Vec<ErasureChange> {
        match self.below(9) {
            0 | 4 | 5 => vec![ErasureChange::Cancel(self.asked())],
            1..=3 => {
                let asked = self.asked();
                vec![ErasureChange::Ask(ErasureAsk {
                    asked,
                    vault: (self.below(8) > 0).then(|| self.vault()),
                    receipt_name: *asked.as_bytes(),
                    asked_at: now,
                    due_at: Millis((self.below(3) / 2) as i64 * i64::MAX),
                })]
            }
            _ => Vec::new(),
        }
    }

    fn names(&mut self) -> Vec<ObjectId> {
        (0..self.below(4)).map(|_| self.key().object).collect()
    }

    /// Mostly nothing, or no head would ever move.
    fn needed(&mut self) -> Vec<ObjectId> {
        match self.below(3) {
            0 => self.names(),
            _ => Vec::new(),
        }
    }

    fn mark(&mut self) -> HeadMark {
        HeadMark {
            counter: self.below(4),
            hash: [self.byte(2); 32],
        }
    }
}

type Answer = String;

fn told<T: Debug>(answer: Result<T, RecordsError>) -> Answer {
    match answer {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("refused: {error}"),
    }
}

async fn of<T: Debug>(pending: Pending<'_, Result<T, RecordsError>>) -> Answer {
    told(pending.await)
}

async fn change_log(records: &dyn Engine, now: Millis, choices: &mut Choices) -> Answer {
    match choices.below(6) {
        0 if choices.below(9) == 0 => {
            String::from("anew ") + &of(records.begin_log_anew(now)).await
        }
        0 => String::from("again ") + &of(records.queue_again(choices.entries(), now)).await,
        1 => String::from("queued ") + &of(records.queue_entries(choices.entries(), now)).await,
        2 | 3 => {
            let batch = records.log_batch().await.unwrap();
            let sequencing = choices.sequencing(batch);
            String::from("sequenced ") + &of(records.sequence(sequencing)).await
        }
        _ => {
            let tree = records.log_tree().await.unwrap();
            let (from, to) = choices.growth(&tree);
            String::from("advanced ") + &of(records.advance(from, to)).await
        }
    }
}

async fn change_erasures(records: &dyn Engine, now: Millis, choices: &mut Choices) -> Answer {
    let asked = choices.asked();
    match choices.below(9) {
        0 | 1 => String::from("begun ") + &of(records.begin(asked, now)).await,
        2 | 6 | 7 => {
            let limit = usize::from(choices.byte(9));
            String::from("let go ") + &of(records.let_objects_go(asked, now, limit)).await
        }
        3 | 4 => {
            let stubs = (0..4).map(|sequence| (sequence, Bytes::from_static(b"stub")));
            let rows = RowsToErase {
                asked,
                stubs: stubs.collect(),
                alias: choices.fresh_account(),
            };
            String::from("rows ") + &of(records.erase_rows(rows)).await
        }
        5 => {
            let end = ErasureEnd {
                asked,
                receipt: Bytes::from_static(b"receipt"),
                entry: choices.entry(),
                now,
            };
            String::from("finished ") + &of(records.finish(end)).await
        }
        _ => String::from("swept ") + &of(records.sweep_receipts(now, 2)).await,
    }
}

async fn change(records: &dyn Engine, step: u64, choices: &mut Choices) -> Answer {
    let now = choices.now(step);
    let nonce = choices.nonce(now);
    match choices.below(20) {
        0 => {
            let secret = SecretHash([choices.byte(4); 32]);
            let expires_at = Millis(choices.below(2) as i64 * i64::MAX);
            let quota_bytes = choices.below(400);
            let invitation = Invitation {
                secret,
                made_at: now,
                expires_at,
                quota_bytes,
            };
            of(records.create_invitation(invitation)).await
        }
        1 => {
            let secret = SecretHash([choices.byte(4); 32]);
            let root_key = RootKeyHash([choices.byte(3); 32]);
            let genesis = (0..choices.below(3))
                .map(|sequence| choices.row(sequence))
                .collect();
            let account = choices.account();
            let opening = AccountOpening {
                secret,
                account,
                root_key,
                genesis,
                entries: choices.entries(),
                now,
            };
            of(records.open_account(opening)).await
        }
        2 => {
            let account = choices.account();
            let tip = records.chain_tip(account).await.unwrap();
            let stale = ChainTip {
                sequence: choices.below(5),
                link: choices.row(0).link,
            };
            let expected = tip.filter(|_| choices.below(4) > 0).unwrap_or(stale);
            let first = expected.sequence + 1;
            let rows = (0..choices.below(4))
                .map(|more| choices.row(first + more))
                .collect();
            of(records.append(
                nonce,
                ChainAppend {
                    erasures: choices.erasures(now),
                    heads: choices.expected_heads(),
                    account,
                    expected,
                    rows,
                    entries: choices.entries(),
                    now,
                },
            ))
            .await
        }
        3 => {
            let (account, vault) = (choices.account(), choices.vault());
            let current = records.head(account, vault).await.unwrap();
            let expected = match choices.below(4) {
                0 => None,
                1 => Some(choices.mark()),
                _ => current.map(|head| head.mark),
            };
            let mark = choices.mark();
            let new = Head {
                mark,
                bytes: Bytes::from_static(b"head"),
                moved_at: now,
            };
            of(records.swap_head(
                nonce,
                HeadSwap {
                    account,
                    vault,
                    chain: choices.expected_chain(),
                    expected,
                    new,
                    condemned: choices.names(),
                    needed: choices.needed(),
                    is_run: choices.below(2) == 0,
                },
            ))
            .await
        }
        4..=6 => {
            let key = choices.key();
            let size = u64::from(key.object.as_bytes()[0]) * 30 + choices.below(10) / 9;
            of(records.reserve(nonce, Reservation { key, size, now })).await
        }
        7 => of(records.confirm(choices.key(), now)).await,
        8 => of(records.release(choices.key(), now)).await,
        9 => {
            let limit = usize::from(choices.byte(4));
            let keys = records.releasing(now, limit).await;
            let answer = told(keys.clone());
            match keys {
                Ok(keys) if choices.below(2) == 0 => {
                    answer + &of(records.finish_release(keys)).await
                }
                _ => answer,
            }
        }
        10 => {
            let account = choices.account();
            match choices.below(6) {
                0 => of(records.set_account_state(account, AccountState::Frozen)).await,
                1 => of(records.set_quota(account, choices.below(600))).await,
                _ => of(records.set_account_state(account, AccountState::Active)).await,
            }
        }
        11..=14 => change_log(records, now, choices).await,
        15 => {
            let (before, limit) = (choices.now(step), usize::from(choices.byte(4)));
            of(records.let_condemned_go(before, now, limit)).await
        }
        16..=18 => change_erasures(records, now, choices).await,
        _ => {
            let limit = usize::from(choices.byte(9));
            of(records.sweep_nonces(now, limit)).await
        }
    }
}

async fn look_at_log(records: &dyn Engine, choices: &mut Choices) -> Answer {
    let tree = records.log_tree().await.unwrap();
    let from = (tree.size + choices.below(4)).saturating_sub(1);
    let limit = usize::from(choices.byte(6));
    let after = tree.map_version.saturating_sub(choices.below(6));
    let last = (choices.below(2) == 0).then(|| (after + choices.below(3), choices.account()));
    [
        told(Ok(tree)),
        of(records.log_batch()).await,
        of(records.sequenced_entries(from, limit)).await,
        of(records.map_inputs()).await,
        of(records.map_rows(after, last)).await,
        of(records.map_row(choices.account())).await,
        of(records.accounts_after(last.map(|(_, account)| account))).await,
    ]
    .join("\n")
}

async fn look(records: &dyn Engine, choices: &mut Choices) -> Answer {
    let (account, vault) = (choices.account(), choices.vault());
    let limit = usize::from(choices.byte(5));
    let after = choices.below(5).checked_sub(1);
    let some_object = choices.object();
    let objects = (0..7)
        .map(|number| ObjectId::from_bytes([number; 32]))
        .collect();
    [
        of(records.account(account)).await,
        of(records.account_by_root_key(RootKeyHash([choices.byte(3); 32]))).await,
        of(records.chain_tip(account)).await,
        of(records.read_chain(account, after, limit)).await,
        of(records.head(account, vault)).await,
        of(records.runs(account, vault, choices.below(3), limit)).await,
        of(records.has_objects(account, vault, objects)).await,
        of(records.list_objects(account, vault, after.map(|_| some_object), limit)).await,
        of(records.object(ObjectKey {
            account,
            vault,
            object: some_object,
        }))
        .await,
        of(records.due(Millis(0), limit)).await,
        of(records.receipt([choices.byte(4); 32])).await,
        look_at_log(records, choices).await,
    ]
    .join("\n")
}

#[tokio::test]
async fn engines_agree() {
    let mut seen = Answer::new();
    for seed in 1..=SEEDS {
        let place = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Engine> =
            Arc::new(SqliteRecords::open(&place.path().join("records")).unwrap());
        let memory: Arc<dyn Engine> = Arc::new(MemoryRecords::default());
        for step in 0..STEPS {
            let mut answers = Vec::new();
            for records in [&*disk, &*memory] {
                // Both engines see the same choices.
                let mut choices = Choices {
                    seed,
                    drawn: step * 1000,
                };
                let done = change(records, step, &mut choices).await;
                answers.push((done, look(records, &mut choices).await));
            }
            assert_eq!(answers[0], answers[1], "seed {seed}, step {step}");
            seen += &answers[0].0;
        }
        disk.check().await.unwrap();
    }
    for outcome in SEEN {
        assert!(seen.contains(outcome), "no sequence came across: {outcome}");
    }
}
