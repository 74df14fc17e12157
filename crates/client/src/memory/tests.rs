#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;

use candor_testkit::sample::{LAPTOP, consent, family, laptop, withdrawal};

use super::*;

const CELL: CellId = CellId::from_bytes([1; 16]);
const VAULT: VaultId = VaultId::from_bytes([2; 16]);

fn head(counter: u64, hash: u8, epoch: u32) -> RememberedHead {
    RememberedHead {
        vault: VAULT,
        counter,
        hash: HeadHash([hash; 32]),
        epoch,
    }
}

fn is_rollback<T: std::fmt::Debug>(result: Result<T, MemoryError>, of: Remembered) -> bool {
    matches!(result, Err(MemoryError::Rollback { what }) if what == of)
}

#[test]
fn older_heads_and_other_heads_are_refused_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = Memory::open(&path, CELL).unwrap();
    assert!(memory.is_fresh());
    memory.check_head(&VAULT, None).unwrap();
    memory.remember_head(head(5, 5, 2)).unwrap();
    drop(memory);
    let before = fs::read(&path).unwrap();
    let memory = Memory::open(&path, CELL).unwrap();
    assert!(!memory.is_fresh());
    assert_eq!(memory.head(&VAULT), Some(head(5, 5, 2)));
    assert!(is_rollback(
        memory.remember_head(head(4, 4, 2)),
        Remembered::Head
    ));
    assert!(is_rollback(
        memory.remember_head(head(5, 6, 2)),
        Remembered::Head
    ));
    assert!(is_rollback(
        memory.check_head(&VAULT, None),
        Remembered::Head
    ));
    assert!(is_rollback(
        memory.remember_head(head(6, 6, 1)),
        Remembered::Epoch
    ));
    assert_eq!(fs::read(&path).unwrap(), before);
    memory.remember_head(head(5, 5, 2)).unwrap();
    memory.remember_head(head(9, 9, 2)).unwrap();
}

#[test]
fn a_head_that_does_not_follow_from_the_newest_one_is_a_fork() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::open(&folder.path().join("memory"), CELL).unwrap();
    let (ours, theirs) = (HeadHash([5; 32]), HeadHash([6; 32]));
    memory.check_successor(&head(5, 5, 1), None).unwrap();
    memory.remember_head(head(5, 5, 1)).unwrap();
    for previous in [Some(&theirs), None] {
        assert!(is_rollback(
            memory.check_successor(&head(6, 7, 1), previous),
            Remembered::Head
        ));
    }
    memory.check_successor(&head(6, 7, 1), Some(&ours)).unwrap();
    // What was done between this head and the newest one seen is not known here.
    memory
        .check_successor(&head(7, 7, 1), Some(&theirs))
        .unwrap();
    let other = RememberedHead {
        vault: VaultId::from_bytes([3; 16]),
        ..head(6, 7, 1)
    };
    memory.check_successor(&other, Some(&theirs)).unwrap();
}

#[test]
fn cell_keys_and_formats_never_sink() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = Memory::open(&path, CELL).unwrap();
    memory.remember_cell(3).unwrap();
    memory.remember_format(2, 1).unwrap();
    memory.remember_format(1, 2).unwrap();
    let memory = Memory::open(&path, CELL).unwrap();
    assert!(is_rollback(memory.remember_cell(2), Remembered::CellKeys));
    memory.remember_cell(3).unwrap();
    assert_eq!(memory.format_floor(), (2, 2));
    assert!(is_rollback(memory.check_format(1, 2), Remembered::Format));
    assert!(is_rollback(memory.check_format(2, 1), Remembered::Format));
    memory.check_format(2, 3).unwrap();
    memory.check_format(2, 2).unwrap();
}

#[test]
fn a_home_that_joins_anew_goes_on_from_the_cell_s_newest_keys() {
    let joining = Memory::of_one_join(CELL, 3);
    assert!(is_rollback(joining.check_cell(2), Remembered::CellKeys));
    joining.remember_cell(4).unwrap();
    assert_eq!((joining.cell_serial(), joining.heads()), (4, Vec::new()));
    assert!(is_rollback(joining.check_cell(3), Remembered::CellKeys));
}

#[test]
fn so_many_vaults_are_remembered_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::open(&folder.path().join("memory"), CELL).unwrap();
    let of = |number: usize| {
        let mut vault = [0; 16];
        vault[..8].copy_from_slice(&(number as u64).to_be_bytes());
        RememberedHead {
            vault: VaultId::from_bytes(vault),
            ..head(1, 1, 1)
        }
    };
    let mut state = State::new(CELL);
    state.heads = (1..VAULTS_MAX).map(of).collect();
    *memory.state() = state;
    memory.remember_head(of(0)).unwrap();
    let full = memory.remember_head(of(VAULTS_MAX));
    assert!(matches!(full, Err(MemoryError::TooMany)));
    memory
        .remember_head(RememberedHead {
            counter: 2,
            ..of(5)
        })
        .unwrap();
    assert_eq!(memory.heads().len(), VAULTS_MAX);
}

#[test]
fn an_accepted_older_state_replaces_just_what_it_is_about() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = Memory::open(&path, CELL).unwrap();
    let other = RememberedHead {
        vault: VaultId::from_bytes([7; 16]),
        ..head(8, 8, 1)
    };
    memory.remember_head(head(9, 9, 2)).unwrap();
    memory.remember_head(other).unwrap();
    memory.remember_cell(5).unwrap();
    memory.remember_log(log_of(20, 2, 3)).unwrap();
    let view = family().view();
    memory
        .re_anchor(&view, &[VAULT], vec![head(2, 2, 2)], None)
        .unwrap();
    let memory = Memory::open(&path, CELL).unwrap();
    assert_eq!(memory.heads(), [head(2, 2, 2), other]);
    assert_eq!(memory.log(), Some(log_of(20, 2, 3)));
    let chain = memory.chain().unwrap();
    assert_eq!(
        (chain.length, chain.tip),
        (view.next_sequence(), view.tip())
    );
    assert_eq!(memory.cell_serial(), 5);
    memory
        .re_anchor(&view, &[VAULT], Vec::new(), Some(log_of(3, 1, 0)))
        .unwrap();
    assert_eq!(memory.heads(), [other]);
    assert_eq!(memory.log(), Some(log_of(3, 1, 0)));
}

#[test]
fn a_damaged_memory_is_no_missing_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    Memory::open(&path, CELL).unwrap().remember_cell(1).unwrap();
    let good = fs::read(&path).unwrap();
    for place in [0, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[place] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert!(matches!(
            Memory::open(&path, CELL),
            Err(MemoryError::Damaged)
        ));
    }
    for bad in [vec![], vec![0; MEMORY_MAX_BYTES + 1]] {
        fs::write(&path, bad).unwrap();
        assert!(matches!(
            Memory::open(&path, CELL),
            Err(MemoryError::Damaged)
        ));
    }
    fs::write(&path, &good).unwrap();
    let other = CellId::from_bytes([9; 16]);
    assert!(matches!(
        Memory::open(&path, other),
        Err(MemoryError::OtherCell)
    ));
    Memory::open(&path, CELL).unwrap();
}

#[test]
fn a_shorter_chain_and_one_that_went_another_way_are_refused_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let (shorter, mut other, mut ours) = (family().view(), family(), family());
    ours.push(Some(LAPTOP), &laptop(), consent(LAPTOP));
    other.push(Some(LAPTOP), &laptop(), withdrawal(None));
    let (seen, as_long) = (ours.view(), other.view());
    other.push(Some(LAPTOP), &laptop(), consent(LAPTOP));
    let longer = other.view();

    let memory = Memory::open(&path, CELL).unwrap();
    memory.check_chain(&seen).unwrap();
    memory.remember_chain(&seen).unwrap();
    let (before, kept) = (fs::read(&path).unwrap(), memory.chain());
    assert_eq!(
        kept.map(|chain| (chain.length, chain.tip)),
        Some((5, seen.tip()))
    );
    for memory in [memory, Memory::open(&path, CELL).unwrap()] {
        for view in [&shorter, &as_long, &longer] {
            assert!(is_rollback(memory.check_chain(view), Remembered::Chain));
            assert!(is_rollback(memory.remember_chain(view), Remembered::Chain));
            assert_eq!(memory.chain(), kept);
        }
        memory.check_chain(&seen).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    ours.push(Some(LAPTOP), &laptop(), withdrawal(None));
    let memory = Memory::open(&path, CELL).unwrap();
    memory.remember_chain(&ours.view()).unwrap();
    assert!(is_rollback(memory.check_chain(&seen), Remembered::Chain));
}

#[test]
fn a_check_refuses_and_remembers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = Memory::open(&path, CELL).unwrap();
    memory.remember_cell(3).unwrap();
    memory.remember_head(head(5, 5, 2)).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(is_rollback(memory.check_cell(2), Remembered::CellKeys));
    memory.check_cell(3).unwrap();
    memory.check_cell(4).unwrap();
    let elsewhere = RememberedHead {
        vault: VaultId::from_bytes([3; 16]),
        ..head(9, 9, 2)
    };
    for (shown, what) in [
        (head(4, 4, 2), Remembered::Head),
        (head(5, 6, 2), Remembered::Head),
        (elsewhere, Remembered::Head),
        (head(5, 5, 1), Remembered::Epoch),
        (head(6, 6, 1), Remembered::Epoch),
    ] {
        assert!(is_rollback(memory.check_head(&VAULT, Some(&shown)), what));
    }
    memory.check_head(&VAULT, Some(&head(5, 5, 2))).unwrap();
    memory.check_head(&VAULT, Some(&head(6, 6, 2))).unwrap();
    memory.check_cell(3).unwrap();
    assert_eq!(memory.head(&VAULT), Some(head(5, 5, 2)));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_memory_has_one_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = Memory::open(&path, CELL).unwrap();
    memory.remember_head(head(5, 5, 2)).unwrap();
    let good = memory.state().clone();
    let opened = |change: &dyn Fn(&mut State)| {
        let mut state = good.clone();
        change(&mut state);
        let mut file = cbor::encode(&state);
        let check = check_of(&file);
        file.extend_from_slice(&check);
        fs::write(&path, &file).unwrap();
        Memory::open(&path, CELL).map(|memory| memory.state().heads.len())
    };
    let of = |vault| RememberedHead {
        vault: VaultId::from_bytes([vault; 16]),
        ..head(1, 1, 1)
    };
    assert_eq!(opened(&|state| state.heads.push(of(3))).unwrap(), 2);
    for vault in [1, 2] {
        let disordered = opened(&|state| state.heads.push(of(vault)));
        assert!(matches!(disordered, Err(MemoryError::Damaged)));
    }
    for version in [MEMORY_VERSION_MIN - 1, MEMORY_VERSION + 1] {
        let refused = opened(&|state| state.version = version);
        assert!(
            matches!(refused, Err(MemoryError::Version { version: found }) if found == version)
        );
    }
}

fn log_of(size: u64, root: u8, map_version: u64) -> RememberedLog {
    use candor_log::checkpoint::Checkpoint;
    use candor_log::note::{KeyKind, VerifierKey};
    use candor_log::tree::{Hash, TreeHead};
    use candor_wire::sign::Ed25519Secret;
    let secret = Ed25519Secret::from_seed(&[1; 32]);
    let key = VerifierKey::new("example/log", KeyKind::Log, secret.public()).unwrap();
    let checkpoint = Checkpoint {
        origin: key.name().to_owned(),
        head: TreeHead {
            size,
            root: Hash([root; 32]),
        },
    };
    let signed = SignedCheckpoint::sign(&checkpoint, &key, &secret).unwrap();
    RememberedLog {
        checkpoint: signed.bytes(),
        map_version,
        witnessed_s: None,
        witnesses: Vec::new(),
    }
}

#[test]
fn a_smaller_log_another_one_and_an_older_map_are_refused_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = Memory::open(&path, CELL).unwrap();
    assert_eq!(memory.log(), None);
    memory.remember_log(log_of(5, 5, 2)).unwrap();
    drop(memory);
    let before = fs::read(&path).unwrap();
    let memory = Memory::open(&path, CELL).unwrap();
    for (shown, what) in [
        (log_of(4, 4, 2), Remembered::Log),
        (log_of(5, 6, 2), Remembered::Log),
        (log_of(6, 6, 1), Remembered::StateMap),
    ] {
        assert!(is_rollback(memory.remember_log(shown), what));
    }
    let nonsense = RememberedLog {
        checkpoint: vec![1],
        ..log_of(6, 6, 2)
    };
    assert!(memory.remember_log(nonsense).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    memory.remember_log(log_of(5, 5, 3)).unwrap();
    memory.remember_log(log_of(9, 9, 3)).unwrap();
    assert_eq!(memory.log(), Some(log_of(9, 9, 3)));
}

/// A memory of the version before the log, byte for byte: it is kept, and fresh as far as the log goes.
#[test]
fn a_memory_of_the_version_before_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = Memory::open(&path, CELL).unwrap();
    memory.remember_head(head(5, 5, 2)).unwrap();
    let mut old = memory.state().clone();
    old.version = 1;
    let mut file = cbor::encode(&old);
    let check = check_of(&file);
    file.extend_from_slice(&check);
    fs::write(&path, &file).unwrap();
    let memory = Memory::open(&path, CELL).unwrap();
    assert!(!memory.is_fresh());
    assert_eq!(memory.log(), None);
    assert!(is_rollback(
        memory.remember_head(head(4, 4, 2)),
        Remembered::Head
    ));
    memory.remember_log(log_of(5, 5, 0)).unwrap();
    let memory = Memory::open(&path, CELL).unwrap();
    assert_eq!(memory.head(&VAULT), Some(head(5, 5, 2)));
    assert_eq!(memory.log(), Some(log_of(5, 5, 0)));
    // The version before had no log: a file that claims both is none.
    old.log = Some(log_of(5, 5, 0));
    let mut file = cbor::encode(&old);
    let check = check_of(&file);
    file.extend_from_slice(&check);
    fs::write(&path, &file).unwrap();
    assert!(matches!(
        Memory::open(&path, CELL),
        Err(MemoryError::Damaged)
    ));
}
