//! A cell and its witnesses: what becomes of a checkpoint when some of them are gone, and of a signer
//! that lost its memory.

use std::path::PathBuf;
use std::time::Duration;

use candor_log::checkpoint::SignedCheckpoint;
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::policy::{Policy, Standing};
use candor_wire::cell::log_origin;

use super::witness::Running;
use super::world::World;
use crate::witness::add_log;

/// How long the cell may take to publish what it is waited for.
const WAIT_MAX: Duration = Duration::from_secs(30);

fn log_key(world: &World) -> VerifierKey {
    let keys = world.cell.keys();
    VerifierKey::new(&log_origin(&keys.cell), KeyKind::Log, keys.log.unwrap()).unwrap()
}

/// Three friends with a witness each, and the cell that they witness.
struct Friends {
    world: World,
    folders: tempfile::TempDir,
    witnesses: Vec<Option<Running>>,
    policy: Policy,
}

impl Friends {
    async fn new() -> Self {
        let world = World::new().await;
        let folders = tempfile::tempdir().unwrap();
        let log = log_key(&world);
        let mut witnesses = Vec::new();
        let mut policy = format!("log {log}\n");
        for number in 0..3 {
            let folder = folders.path().join(number.to_string());
            add_log(&folder, &log.to_string()).unwrap();
            let running = Running::start(&folder, world.clock.clone()).await;
            policy += &format!("witness w{number} {}\n", running.vkey);
            witnesses.push(Some(running));
        }
        policy += "group friends 2 w0 w1 w2\nquorum friends\n";
        let lines: Vec<String> = witnesses
            .iter()
            .flatten()
            .map(|witness| format!("\"{} http://{}\"", witness.vkey, witness.address))
            .collect();
        let settings = world.directory.path().join("cell.toml");
        let text = std::fs::read_to_string(&settings).unwrap();
        let text = format!("{text}\n[log]\nwitnesses = [{}]\n", lines.join(", "));
        std::fs::write(&settings, text).unwrap();
        Self {
            world: world.restarted().await,
            folders,
            witnesses,
            policy: Policy::parse(policy.as_bytes()).unwrap(),
        }
    }

    /// One friend's machine is switched off.
    async fn lose(&mut self, number: usize) {
        self.witnesses[number].take().unwrap().stop().await;
    }

    fn published_file(&self) -> PathBuf {
        self.world.directory.path().join("store/log/checkpoint")
    }

    fn published(&self) -> SignedCheckpoint {
        SignedCheckpoint::parse(&std::fs::read(self.published_file()).unwrap()).unwrap()
    }

    /// The checkpoint, once it is as wanted.
    async fn published_when(
        &self,
        is_wanted: impl Fn(&SignedCheckpoint) -> bool,
    ) -> SignedCheckpoint {
        let waiting = async {
            loop {
                let published = self.published();
                if is_wanted(&published) {
                    return published;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(WAIT_MAX, waiting).await {
            Ok(published) => published,
            Err(_) => panic!("it was never published; there is {:?}", self.published()),
        }
    }

    /// The checkpoint of a tree that has grown by somebody's account.
    async fn grown(&self) -> SignedCheckpoint {
        let before = self.published().head().size;
        self.world.person().await;
        self.published_when(|now| now.head().size > before).await
    }

    fn names(&self, checkpoint: &SignedCheckpoint) -> Vec<String> {
        match self.policy.standing(checkpoint) {
            Standing::Witnessed { witnesses, .. } => witnesses,
            Standing::Unwitnessed { have } => have,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_witnesses_are_enough_and_one_is_not() {
    let mut friends = Friends::new().await;
    let all = |checkpoint: &SignedCheckpoint| friends.names(checkpoint).len() == 3;
    friends.published_when(all).await;
    let three = friends.grown().await;
    assert_eq!(friends.names(&three), ["w0", "w1", "w2"]);
    assert!(matches!(
        friends.policy.check(&three).unwrap(),
        Standing::Witnessed { .. }
    ));
    friends.lose(1).await;
    let two = friends.grown().await;
    assert_eq!(friends.names(&two), ["w0", "w2"]);
    assert!(matches!(
        friends.policy.check(&two).unwrap(),
        Standing::Witnessed { .. }
    ));
    friends.lose(0).await;
    let one = friends.grown().await;
    assert_eq!(friends.names(&one), ["w2"]);
    assert!(matches!(
        friends.policy.standing(&one),
        Standing::Unwitnessed { .. }
    ));
    assert!(friends.policy.check(&one).is_err());
}

/// Witnesses are asked again after a while. Whoever is silent then takes nothing away from what they
/// and the others said before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cosignature_stays_when_its_witness_goes() {
    let mut friends = Friends::new().await;
    let all = |checkpoint: &SignedCheckpoint| friends.names(checkpoint).len() == 3;
    let before = friends.published_when(all).await;
    friends.lose(0).await;
    friends.lose(1).await;
    friends.world.advance(700_000);
    let key = friends.witnesses[2].as_ref().unwrap().key();
    let again = friends
        .published_when(|now| now.cosigned_by(&key) > before.cosigned_by(&key))
        .await;
    if again.head() == before.head() {
        assert_eq!(friends.names(&again), ["w0", "w1", "w2"]);
    }
}

async fn without_memory(friends: Friends, lost: &[usize]) -> Friends {
    let memory = friends.world.directory.path().join("keys/log-signer");
    let Friends {
        world,
        folders,
        mut witnesses,
        policy,
    } = friends;
    for number in lost {
        witnesses[*number].take().unwrap().stop().await;
    }
    let world = world
        .restarted_after(|| std::fs::remove_file(&memory).unwrap())
        .await;
    Friends {
        world,
        folders,
        witnesses,
        policy,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b22_a_signer_without_memory_recovers_from_a_quorum_of_witnesses() {
    let friends = Friends::new().await;
    friends.grown().await;
    let all = |checkpoint: &SignedCheckpoint| friends.names(checkpoint).len() == 3;
    friends.published_when(all).await;
    let friends = without_memory(friends, &[2]).await;
    let after = friends.grown().await;
    assert_eq!(friends.names(&after), ["w0", "w1"]);
    let memory = friends.world.directory.path().join("keys/log-signer");
    assert!(memory.exists());
    drop(friends.folders);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b22_a_signer_without_memory_and_without_a_quorum_signs_nothing() {
    use crate::transparency::LogFault;
    use crate::transparency::signer::SignerError;
    let friends = Friends::new().await;
    let all = |checkpoint: &SignedCheckpoint| friends.names(checkpoint).len() == 3;
    friends.published_when(all).await;
    let before = friends.published();
    let friends = without_memory(friends, &[1, 2]).await;
    friends.world.person().await;
    let fault = friends.world.cell.shared().transparency.step().await;
    assert!(matches!(fault, Err(LogFault::Signer(SignerError::Missing))));
    let memory = friends.world.directory.path().join("keys/log-signer");
    assert!(!memory.exists());
    assert_eq!(friends.published().head(), before.head());
}
