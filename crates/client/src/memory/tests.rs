#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;

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
    fs::write(&path, b"").unwrap();
    assert!(matches!(
        Memory::open(&path, CELL),
        Err(MemoryError::Damaged)
    ));
    fs::write(&path, &good).unwrap();
    let other = CellId::from_bytes([9; 16]);
    assert!(matches!(
        Memory::open(&path, other),
        Err(MemoryError::OtherCell)
    ));
    Memory::open(&path, CELL).unwrap();
}
