//! Work that nobody sits and waits for lets others go first.

/// What is added to the niceness: as much as `nice` adds where it is told no number.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// From now on, for the thread that calls this and for those that it begins: the processor is theirs where no other work wants it.
/// There is no way back, so that it is for threads that do nothing else.
#[cfg(target_os = "linux")]
pub(crate) fn let_others_go_first() {
    // The work is done all the same where the system does not allow it.
    let _ = rustix::process::nice(NICENESS);
}

/// Elsewhere niceness is of a whole program, and what a person looks at is in the same one.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn let_others_go_first() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_thread_and_what_it_begins_go_last_and_no_other() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let (own, begun) = std::thread::spawn(move || {
            let_others_go_first();
            (niceness(), std::thread::spawn(niceness).join().unwrap())
        })
        .join()
        .unwrap();
        let expected = (before + NICENESS).min(19);
        assert_eq!((own, begun), (expected, expected));
        assert_eq!(niceness(), before);
    }
}
