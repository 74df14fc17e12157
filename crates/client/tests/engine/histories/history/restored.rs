//! A cell that comes back from a backup, and the people who accept what it lost.

use candor_client::commands::{Command, Failure, FailureKind, View};
use candor_server::log_vkey_of;

use super::History;
use crate::re_anchor::copy;

impl History<'_> {
    /// The cell comes back from a backup.
    pub(super) fn put_back(&mut self) {
        if self.kept.is_empty() {
            return self.restart_and(true);
        }
        let which = self.draw.below(self.kept.len());
        self.tell(format_args!("the cell is put back to copy {which}"));
        let place = self.world.path("comes-back");
        copy(&self.kept[which].place, &place);
        let friends = &self.friends;
        self.world.put_cell_back_and(&place, |cell| {
            let log = log_vkey_of(cell).unwrap();
            friends.iter().for_each(|friend| friend.know(&log));
        });
        self.rested();
        let mut is_whole = true;
        let mut order: Vec<usize> = (0..self.devices.len()).collect();
        if self.draw.chance(50) {
            order.reverse();
        }
        // Devices that the copy does not know come last: another one may bring them back.
        order.sort_by_key(|n| !self.kept[which].homes.contains(&self.devices[*n].home));
        let mut forgotten = Vec::new();
        for n in order {
            self.devices[n].safe = None;
            match self.accept(n, which) {
                Some(lost) => is_whole &= lost == 0,
                None => forgotten.push(n),
            }
        }
        for n in forgotten {
            is_whole = false;
            self.rejoin(n, which);
        }
        self.settle(is_whole);
    }

    /// A device that nobody brought back joins anew in its own home, and its person accepts what is lost.
    fn rejoin(&mut self, n: usize, which: usize) {
        let mut device = self.devices.remove(n);
        let home = device.home.clone();
        self.tell(format_args!(
            "{home} is known to nobody any more, and joins anew"
        ));
        drop(device.person);
        device.person = self.world.recover(&home, &self.phrase).unwrap();
        // The ledger is a new one, with no alarm in it.
        device.accepted = 0;
        self.devices.insert(n, device);
        self.write_policy(n);
        self.accept_shown(n, which, 2).unwrap();
    }

    /// What became of consents. A yes may be lost with a restored cell, and is asked for again; a no is not.
    fn settle(&mut self, is_whole: bool) {
        for n in 0..self.devices.len() {
            let is_untold = |text: &String| text.contains("has not been told of a withdrawal");
            if self.devices[n]
                .person
                .status()
                .warnings
                .iter()
                .any(is_untold)
            {
                self.tell(format_args!("{}: consent off again", self.devices[n].home));
                self.switch_off(n);
            }
        }
        for n in 0..self.devices.len() {
            self.hear(n);
            let device = &mut self.devices[n];
            let is_on = device.person.status().sets[0].consent == "on";
            assert!(device.is_on || !is_on, "{}: on again", device.home);
            assert!(is_on == device.is_on || !is_whole, "{}: off", device.home);
            device.is_on = is_on;
        }
    }

    /// The person at a device accepts what a restored cell lost, and is told how many statements do not come
    /// back. `None`: the cell does not know the device, which can be only if the copy did not.
    fn accept(&mut self, n: usize, which: usize) -> Option<u64> {
        if self.devices[n]
            .quorum
            .as_ref()
            .is_some_and(|quorum| quorum.names_log)
        {
            // The policy names the log that is no more, and says so.
            match self.devices[n].person.ask(Command::ReAnchorPropose) {
                Err(failure) if self.is_unknown(n, which, &failure) => return None,
                Err(failure) => assert_eq!(failure.kind, FailureKind::Policy, "{failure:#?}"),
                // It has not published anything yet.
                Ok(_) => {}
            }
        }
        self.write_policy(n);
        self.accept_shown(n, which, 2)
    }

    fn accept_shown(&mut self, n: usize, which: usize, again: u32) -> Option<u64> {
        let device = &self.devices[n];
        let shown = match device.person.ask(Command::ReAnchorPropose) {
            Ok(View::ReAnchor(shown)) => shown,
            Ok(other) => panic!("{other:?}"),
            Err(failure) if self.is_unknown(n, which, &failure) => return None,
            Err(failure) => panic!("{}: {failure:#?}", device.home),
        };
        if !shown.is_older {
            self.tell(format_args!("{} has nothing to accept", device.home));
            return Some(0);
        }
        let command = Command::ReAnchorAccept { token: shown.token };
        let accepted = match device.person.ask(command) {
            Ok(View::ReAnchored(accepted)) => accepted,
            Ok(other) => panic!("{other:?}"),
            // The cell does not take back what it seemed to: the person reads again what is lost.
            Err(failure) if is_look_again(&failure) && again > 0 => {
                return self.accept_shown(n, which, again - 1);
            }
            Err(failure) => panic!("{}: {failure:#?}", device.home),
        };
        let (back, lost) = (accepted.brought_back, accepted.given_up);
        self.tell(format_args!(
            "{} accepts it: {back} statements come back, {lost} are lost",
            self.devices[n].home
        ));
        self.devices[n].accepted += 1;
        Some(lost)
    }

    fn is_unknown(&self, n: usize, which: usize, failure: &Failure) -> bool {
        !self.kept[which].homes.contains(&self.devices[n].home)
            && failure
                .sentence
                .starts_with("the cell does not know this device")
    }
}

fn is_look_again(failure: &Failure) -> bool {
    failure.kind == FailureKind::Failed
        && failure
            .hint
            .as_ref()
            .is_some_and(|hint| hint.starts_with("look at it again"))
}
